"""Reading labels: where they are found, and what stops the reading."""

from __future__ import annotations

import logging
import pickle
import resource
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.stress import voigt_6_to_full_3x3_stress

from etnpot.errors import DataError
from etnpot.io.structures import read_structures


@pytest.fixture
def frames(rng: np.random.Generator) -> list[Atoms]:
    """Four rattled, strained copper-gold cells with EMT labels."""
    out = []
    for _ in range(4):
        atoms = bulk("Cu", cubic=True)
        atoms.numbers[0] = 79
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.standard_normal((3, 3))), scale_atoms=True)
        atoms.positions += 0.1 * rng.standard_normal((4, 3))
        atoms.calc = EMT()
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        out.append(atoms)
    return out


def bare(atoms: Atoms, **info: object) -> Atoms:
    copy = atoms.copy()
    copy.calc = None
    copy.info.update(info)
    return copy


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.traj", "a.db", "a.json"])
def test_formats_of_ase(tmp_path: Path, frames: list[Atoms], name: str) -> None:
    path = tmp_path / name
    ase.io.write(path, frames)
    read = read_structures(path)
    assert [c.index for c in read] == [0, 1, 2, 3]
    for c, atoms in zip(read, frames, strict=True):
        assert c.source == str(path) and c.atoms.calc is None
        assert c.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-7)
        np.testing.assert_allclose(c.forces, atoms.calc.results["forces"], atol=1e-7)
        np.testing.assert_allclose(c.stress, atoms.calc.results["stress"], atol=1e-7)
        assert c.forces.dtype == np.float64


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
 <atominfo><atoms>2</atoms>
  <array name="atoms"><set><rc><c>Cu</c><c>1</c></rc><rc><c>Cu</c><c>1</c></rc></set></array></atominfo>
 <structure name="initialpos">
  <crystal><varray name="basis"><v>3 0 0</v><v>0 3 0</v><v>0 0 4</v></varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray>
  <varray name="selective"><v type="logical"> F F F</v><v type="logical"> T T T</v></varray>
 </structure>
 <calculation>
  <scstep><energy>
   <i name="e_fr_energy">-7.0</i><i name="e_wo_entrp">-6.0</i><i name="e_0_energy">-6.5</i></energy>
  </scstep>
  <structure><crystal><varray name="basis"><v>3 0 0</v><v>0 3 0</v><v>0 0 4</v></varray></crystal>
   <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
  <varray name="forces"><v>0.1 0.2 0.3</v><v>-0.1 -0.2 -0.3</v></varray>
  <varray name="stress"><v>10 1 2</v><v>1 20 3</v><v>2 3 30</v></varray>
  <energy><i name="e_fr_energy">-7.0</i><i name="e_wo_entrp">-6.0</i><i name="e_0_energy">-6.5</i></energy>
 </calculation>
</modeling>
"""


def test_vasprun_with_fixed_atoms_keeps_their_forces(tmp_path: Path) -> None:
    path = tmp_path / "vasprun.xml"
    path.write_text(VASPRUN)
    (c,) = read_structures(path)
    np.testing.assert_allclose(c.forces, [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]], rtol=1e-12)
    kbar = -0.1 / 160.21766208  # VASP counts compression positive
    np.testing.assert_allclose(c.stress, np.array([10, 20, 30, 3, 2, 1]) * kbar, rtol=1e-6)
    (free,) = read_structures(path, energy_key="free_energy")
    assert free.energy == pytest.approx(-7.0)
    assert c.energy != free.energy


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.db"])
def test_constraints_do_not_zero_forces(tmp_path: Path, frames: list[Atoms], name: str) -> None:
    reference = [atoms.calc.results["forces"].copy() for atoms in frames]
    for atoms in frames:
        atoms.set_constraint(FixAtoms([0, 1]))
    path = tmp_path / name
    ase.io.write(path, frames)
    for c, forces in zip(read_structures(path), reference, strict=True):
        np.testing.assert_allclose(c.forces, forces, atol=1e-7)
        assert not c.atoms.constraints
    for c, forces in zip(read_structures(frames), reference, strict=True):
        np.testing.assert_array_equal(c.forces, forces)
    assert frames[0].constraints, "the caller's Atoms are left alone"


@pytest.mark.parametrize("energy", ["energy", "REF_energy", "dft_energy", "Energy"])
@pytest.mark.parametrize("forces", ["forces", "REF_forces", "dft_force", "force"])
def test_usual_names_are_found(frames: list[Atoms], energy: str, forces: str) -> None:
    atoms = bare(frames[0], **{energy: -1.5})
    atoms.arrays[forces] = np.arange(12.0).reshape(4, 3)
    (c,) = read_structures(atoms)
    assert c.energy == -1.5 and c.stress is None and c.source is None
    np.testing.assert_array_equal(c.forces, np.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize("shape", ["voigt", "nine", "matrix"])
@pytest.mark.parametrize("name", ["virial", "REF_virials", "stress", "REF_stress"])
def test_stress_and_virial_in_every_shape(frames: list[Atoms], name: str, shape: str) -> None:
    stress = frames[0].calc.results["stress"]
    value = -stress * frames[0].get_volume() if "virial" in name else stress
    if shape != "voigt":
        value = voigt_6_to_full_3x3_stress(value)
    if shape == "nine":
        value = value.ravel()
    (c,) = read_structures(bare(frames[0], energy=0.0, **{name: value}))
    np.testing.assert_allclose(c.stress, stress, rtol=1e-12)


def test_virial_agrees_with_stress_and_may_stand_beside_it(frames: list[Atoms]) -> None:
    atoms = frames[0]
    atoms.info["virial"] = voigt_6_to_full_3x3_stress(-atoms.calc.results["stress"] * atoms.get_volume())
    (c,) = read_structures(atoms)
    np.testing.assert_allclose(c.stress, atoms.calc.results["stress"], rtol=1e-12)
    atoms.info["virial"] = -atoms.info["virial"]
    with pytest.raises(DataError, match="stress_key or virial_key"):
        read_structures(atoms)
    (c,) = read_structures(atoms, virial_key="virial")
    np.testing.assert_allclose(c.stress, -atoms.calc.results["stress"], rtol=1e-12)
    with pytest.raises(DataError, match="give one of them"):
        read_structures(atoms, virial_key="virial", stress_key="stress")


def test_two_different_values_stop_the_reading(tmp_path: Path, frames: list[Atoms]) -> None:
    for atoms in frames:
        atoms.info["REF_energy"] = atoms.calc.results["energy"] + 1.0
    path = tmp_path / "a.extxyz"
    ase.io.write(path, frames)
    with pytest.raises(DataError, match=r"a\.extxyz, frame 0.*energy_key"):
        read_structures(path)
    read = read_structures(path, energy_key="REF_energy")
    assert read[1].energy == pytest.approx(frames[1].calc.results["energy"] + 1.0)
    assert read_structures(path, energy_key="energy")[1].energy == pytest.approx(read[1].energy - 1.0)


def test_result_hidden_by_info_of_the_same_name(frames: list[Atoms]) -> None:
    atoms = frames[0]
    atoms.info["energy"] = 7.0
    with pytest.raises(DataError, match="calculator:energy"):
        read_structures(atoms)
    assert read_structures(atoms, energy_key="energy")[0].energy == 7.0
    assert read_structures(atoms, energy_key="calculator:energy")[0].energy == atoms.calc.results["energy"]


def test_labels_may_be_missing_in_some_frames(frames: list[Atoms]) -> None:
    atoms = [bare(frames[0], energy=1.0), bare(frames[1]), bare(frames[2])]
    atoms[1].arrays["forces"] = np.zeros((4, 3))
    read = read_structures(atoms)
    assert [c.energy for c in read] == [1.0, None, None]
    assert [c.forces is None for c in read] == [True, False, True]


@pytest.mark.parametrize("option", ["energy_key", "forces_key", "stress_key", "virial_key"])
def test_missing_key_names_file_key_and_what_is_there(
    tmp_path: Path, frames: list[Atoms], option: str
) -> None:
    path = tmp_path / "a.extxyz"
    ase.io.write(path, frames)
    with pytest.raises(DataError) as caught:
        read_structures(path, **{option: "nonsense"})
    for part in ("a.extxyz", option, "nonsense", "'energy'", "'forces'"):
        assert part in str(caught.value)


def test_no_labels_at_all(tmp_path: Path, frames: list[Atoms]) -> None:
    path = tmp_path / "a.extxyz"
    ase.io.write(path, [bare(atoms, my_energy=1.0) for atoms in frames])
    with pytest.raises(DataError, match=r"no energies and no forces.*my_energy"):
        read_structures(path)
    assert len(read_structures(path, require_labels=False)) == 4


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_not_finite(frames: list[Atoms], label: str, value: float) -> None:
    results = frames[2].calc.results
    results[label] = np.array(results[label], dtype=float)
    results[label].reshape(-1)[0] = value
    with pytest.raises(DataError, match=f"frame 2.*{label}.*not finite"):
        read_structures(frames)


def test_bad_shapes_and_positions(frames: list[Atoms]) -> None:
    with pytest.raises(DataError, match=r"shape \(4, 3\)"):
        read_structures(bare(frames[0], forces=np.zeros((3, 3))))
    with pytest.raises(DataError, match="one number"):
        read_structures(bare(frames[0], energy=[1.0, 2.0]))
    with pytest.raises(DataError, match="must be numbers"):
        read_structures(bare(frames[0], energy="converged"))
    with pytest.raises(DataError, match="nine or six"):
        read_structures(bare(frames[0], energy=0.0, stress=np.zeros(3)))
    atoms = bare(frames[0], energy=0.0)
    atoms.positions[1, 2] = np.nan
    with pytest.raises(DataError, match="positions"):
        read_structures(atoms)


def test_unsymmetric_stress(tmp_path: Path, frames: list[Atoms]) -> None:
    matrix = np.diag([0.1, 0.2, 0.3])
    matrix[0, 1] = 0.05
    with pytest.raises(DataError, match="not symmetric"):
        read_structures(bare(frames[0], energy=0.0, REF_stress=matrix))
    # ASE's reader keeps the upper triangle of a 3x3 entry "stress" of an extended XYZ file.
    path = tmp_path / "a.extxyz"
    ase.io.write(path, frames)
    lines = path.read_text().splitlines()
    second = 4 + 2 + 1  # header line of the second frame
    words = lines[second].split('stress="')
    values = words[1].split('"', 1)
    nine = values[0].split()
    nine[1] = repr(float(nine[1]) + 0.05)
    lines[second] = words[0] + 'stress="' + " ".join(nine) + '"' + values[1]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"frame 1: 'stress' is not symmetric"):
        read_structures(path)
    assert len(read_structures(path, index="2:")) == 2


def test_uncertain_shear_order_drops_the_stress(
    frames: list[Atoms], caplog: pytest.LogCaptureFixture
) -> None:
    frames[1].info["stress_shear_order_uncertain"] = True
    frames[2].info["stress_shear_order_uncertain"] = False
    with caplog.at_level(logging.INFO, logger="etnpot"):
        read = read_structures(frames)
    assert [c.stress is None for c in read] == [False, True, False, False]
    assert "1 stresses left out" in caplog.text


def test_stress_without_volume_is_dropped() -> None:
    water = molecule("H2O")
    water.info.update(energy=-1.0, virial=np.zeros((3, 3)))
    assert read_structures(water)[0].stress is None


def test_groups_and_weights(frames: list[Atoms]) -> None:
    frames[0].info.update(config_type="bulk", config_weight=2.0, energy_weight=3.0)
    frames[1].info.update(config_type=7, config_forces_weight=0.0, stress_weight=0.5, kind="x")
    a, b, c, _ = read_structures(frames)
    assert (a.group, a.weight, a.energy_weight, a.forces_weight, a.stress_weight) == (
        "bulk",
        2.0,
        3.0,
        1.0,
        1.0,
    )
    assert (b.group, b.weight, b.forces_weight, b.stress_weight) == ("7", 1.0, 0.0, 0.5)
    assert c.group is None
    assert read_structures(frames[1], group_key="kind")[0].group == "x"
    frames[2].info["config_weight"] = -1.0
    with pytest.raises(DataError, match="config_weight"):
        read_structures(frames)


def test_stale_calculator_results_are_refused(frames: list[Atoms]) -> None:
    frames[0].positions[0] += 0.1
    with pytest.raises(DataError, match="belong to other positions"):
        read_structures(frames)


def test_several_files_and_indices(tmp_path: Path, frames: list[Atoms]) -> None:
    ase.io.write(tmp_path / "a.extxyz", frames[:3])
    ase.io.write(tmp_path / "b@1.traj", frames[3:])
    read = read_structures([tmp_path / "a.extxyz", str(tmp_path / "b@1.traj"), frames[0]])
    assert [(c.source and Path(c.source).name, c.index) for c in read] == [
        ("a.extxyz", 0),
        ("a.extxyz", 1),
        ("a.extxyz", 2),
        ("b@1.traj", 0),
        (None, 0),
    ]
    assert [c.index for c in read_structures(tmp_path / "a.extxyz", index="::-2")] == [2, 0]
    assert [c.index for c in read_structures(tmp_path / "a.extxyz", index=-1)] == [2]
    for index in (5, "x", "7:"):
        with pytest.raises(DataError, match="index"):
            read_structures(tmp_path / "a.extxyz", index=index)


def test_unreadable_files(tmp_path: Path, frames: list[Atoms]) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_structures(tmp_path / "none.extxyz")
    with pytest.raises(DataError, match="directory"):
        read_structures(tmp_path)
    path = tmp_path / "a.extxyz"
    ase.io.write(path, frames)
    path.write_text(path.read_text()[:-150])
    with pytest.raises(DataError, match=r"cannot read.*a\.extxyz"):
        read_structures(path)
    (tmp_path / "b.extxyz").write_text("")
    with pytest.raises(DataError, match=r"b\.extxyz"):
        read_structures(tmp_path / "b.extxyz")


def test_mixed_keys_are_reported(frames: list[Atoms], caplog: pytest.LogCaptureFixture) -> None:
    read_structures([bare(frames[0], energy=1.0), bare(frames[1], dft_energy=2.0)])
    assert "select one" in caplog.text


def test_to_atoms_carries_the_labels(tmp_path: Path, frames: list[Atoms]) -> None:
    frames[0].info["virial"] = voigt_6_to_full_3x3_stress(
        -frames[0].calc.results["stress"] * frames[0].get_volume()
    )
    read = read_structures(frames)
    ase.io.write(tmp_path / "b.extxyz", [c.to_atoms() for c in read])
    for c, again in zip(read, read_structures(tmp_path / "b.extxyz"), strict=True):
        assert again.energy == pytest.approx(c.energy, abs=1e-7)
        np.testing.assert_allclose(again.forces, c.forces, atol=1e-7)
        np.testing.assert_allclose(again.stress, c.stress, atol=1e-9)


# -------------------------------------------------------------------------------- what a file claims about itself


@pytest.mark.parametrize("n_atoms", ["999999999", "9223372036854775807"])
@pytest.mark.parametrize("frame", [0, 1])
def test_more_atoms_than_a_file_can_hold_are_refused_at_once(
    tmp_path: Path, frames: list[Atoms], n_atoms: str, frame: int
) -> None:
    # ASE and the check of stresses counted to that number
    path = tmp_path / "a.extxyz"
    ase.io.write(path, frames[:2])
    lines = path.read_text().splitlines()
    lines[6 * frame] = n_atoms
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"frame {frame}.*cannot be in a file of"):
        read_structures(path)


def test_a_trajectory_that_claims_more_than_it_holds_is_refused(tmp_path: Path, frames: list[Atoms]) -> None:
    path = tmp_path / "a.traj"
    ase.io.write(path, frames)
    content = path.read_bytes()
    for count in (10**12, -1, 2**62):
        path.write_bytes(content[:32] + count.to_bytes(8, "little", signed=True) + content[40:])
        with pytest.raises(DataError, match="damaged ASE trajectory"):
            read_structures(path)
    for shape in (b"[[4000000000, 3000]", b"[[-4, 3]"):
        path.write_bytes(_with_json(content, b"[[4, 3]", shape))
        with pytest.raises(DataError, match="damaged ASE trajectory"):
            read_structures(path)
    path.write_bytes(content)
    assert len(read_structures(path)) == 4


def _with_json(content: bytes, old: bytes, new: bytes) -> bytes:
    """A trajectory whose last entry of JSON is changed and moved to its end, with its length."""
    offset = int.from_bytes(content[40:48], "little")
    first = int.from_bytes(content[offset : offset + 8], "little")
    n = int.from_bytes(content[first : first + 8], "little")
    text = content[first + 8 : first + 8 + n].replace(old, new)
    moved = content + len(text).to_bytes(8, "little") + text
    return moved[:offset] + len(content).to_bytes(8, "little") + moved[offset + 8 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cell", "the cell is not finite"),
        ("ghost", "atomic number 0 is no element"),
        ("minus", "is no element"),
    ],
)
def test_frames_that_no_fit_can_take_are_refused(frames: list[Atoms], change: str, message: str) -> None:
    atoms = bare(frames[0], energy=1.0)
    if change == "cell":
        atoms.cell[0, 0] = np.inf
    else:
        atoms.numbers[1] = 0 if change == "ghost" else -29
    with pytest.raises(DataError, match=message):
        read_structures(atoms)


def test_a_ragged_stress_is_an_error_of_the_data(frames: list[Atoms]) -> None:
    with pytest.raises(DataError, match="nine or six numbers"):
        read_structures(bare(frames[0], energy=1.0, stress=[[1, 2], [3], 4]))


def test_nothing_in_a_data_file_is_executed(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    for head in (b"", b"PickleTrajectory", b"- of UlmASE-Trajectory  "):
        for name in ("a.traj", "a.trj", "a.pckl", "a.json", "a.db", "a.extxyz", "a.py"):
            (tmp_path / name).write_bytes(head + pickle.dumps(Payload()))
            with pytest.raises(DataError):
                read_structures(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_what_a_file_makes_ase_allocate_is_bounded(tmp_path: Path) -> None:
    # "Cu 99999999999" made a list of as many names
    path = tmp_path / "POSCAR"
    path.write_text("Cu\n1.0\n3.6 0 0\n0 3.6 0\n0 0 3.6\nCu\n99999999999\nDirect\n0 0 0\n")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(DataError, match="asks for more memory"):
        read_structures(path, require_labels=False)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_dump_that_claims_more_atoms_than_it_holds_is_refused_at_once(tmp_path: Path) -> None:
    # ASE counted to that number
    path = tmp_path / "a.lammpstrj"
    text = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 3\n0 3\n0 3\n"
    text += "ITEM: ATOMS id type x y z\n1 1 0 0 0\n"
    path.write_text(text)
    assert len(read_structures(path, require_labels=False)) == 1
    path.write_text(text.replace("ATOMS\n1\n", "ATOMS\n2147483647\n"))
    with pytest.raises(DataError, match=r"damaged LAMMPS dump.*more atoms"):
        read_structures(path, require_labels=False)
