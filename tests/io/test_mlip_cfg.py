"""MLIP .cfg files: format, sign of the stress, round trip, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from etnpot.errors import DataError, SpeciesError
from etnpot.io.mlip_cfg import is_mlip_cfg, read_mlip_cfg, write_mlip_cfg
from etnpot.io.structures import read_structures

# Columns and components in unusual order, ids not sorted, a blank line, a feature whose value is continued.
EXAMPLE = """\
BEGIN_CFG
 Size
    2
 Supercell
    4.0 0.0 0.0
    0.5 5.0 0.0
    0.0 0.0 6.0
 AtomData:  type id  fz fx fy  cartes_z cartes_x cartes_y  site_en
    1 2  -0.3 -0.1 -0.2  3.0 2.0 2.5  -1.5
    0 1   0.3  0.1  0.2  0.0 0.0 0.0  -2.5

 Energy
    -4.0
 PlusStress:  xy xz yz zz yy xx
    6.0 5.0 4.0 3.0 2.0 1.0
 Feature   EFS_by\tVASP run
 Feature   EFS_by\t2
 Feature   my\\_key 3
END_CFG
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "set.cfg"
    path.write_text(text)
    return path


def labelled(rng: np.random.Generator, n: int = 2) -> list[Atoms]:
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.numbers[:2] = [28, 47]
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.standard_normal((3, 3))), scale_atoms=True)
        atoms.positions += 0.05 * rng.standard_normal((4, 3))
        atoms.calc = EMT()
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def test_reads_any_order_of_columns(tmp_path: Path) -> None:
    (atoms,) = read_mlip_cfg(write(tmp_path, EXAMPLE), ["Nb", "Mo"])
    assert list(atoms.symbols) == ["Nb", "Mo"]
    np.testing.assert_array_equal(atoms.positions, [[0, 0, 0], [2.0, 2.5, 3.0]])
    np.testing.assert_array_equal(atoms.calc.results["forces"], [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    assert atoms.calc.results["energy"] == -4.0
    np.testing.assert_allclose(atoms.calc.results["stress"], -np.arange(1.0, 7.0) / 120.0, rtol=1e-14)
    np.testing.assert_array_equal(atoms.arrays["site_en"], [-2.5, -1.5])
    assert atoms.info == {"EFS_by": "VASP run\n2", "my key": 3}
    assert atoms.pbc.all()


def test_compressed_crystal_has_positive_plus_stress(tmp_path: Path) -> None:
    """The virial is positive under compression, ASE's stress negative."""
    atoms = bulk("Cu", a=3.4, cubic=True)
    atoms.calc = EMT()
    assert atoms.get_stress()[:3].max() < 0
    path = tmp_path / "a.cfg"
    write_mlip_cfg(path, atoms)
    lines = path.read_text().splitlines()
    written = lines[next(k for k, line in enumerate(lines) if "PlusStress" in line) + 1].split()
    np.testing.assert_allclose(
        np.array(written, dtype=float), -atoms.get_stress() * atoms.get_volume(), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("direct", [False, True])
def test_round_trip(tmp_path: Path, rng: np.random.Generator, direct: bool) -> None:
    frames = labelled(rng)
    frames[0].info.update(config_type="hot cell", step=3, temperature=300.5, matrix=np.eye(3))
    path = tmp_path / "a.cfg"
    assert write_mlip_cfg(path, frames, direct=direct) == {0: "Ni", 1: "Cu", 2: "Ag"}
    back = read_mlip_cfg(path, ["Ni", "Cu", "Ag"])
    assert len(back) == 2
    for atoms, other in zip(frames, back, strict=True):
        np.testing.assert_array_equal(atoms.numbers, other.numbers)
        np.testing.assert_allclose(other.positions, atoms.positions, atol=1e-13)
        np.testing.assert_array_equal(other.cell.array, atoms.cell.array)
        np.testing.assert_array_equal(other.calc.results["forces"], atoms.calc.results["forces"])
        assert other.calc.results["energy"] == atoms.calc.results["energy"]
        np.testing.assert_allclose(other.calc.results["stress"], atoms.calc.results["stress"], rtol=1e-13)
    assert back[0].info == {"config_type": "hot cell", "step": 3, "temperature": 300.5}


def test_molecule_round_trip(tmp_path: Path) -> None:
    molecule = Atoms("OH2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    path = tmp_path / "a.cfg"
    write_mlip_cfg(path, molecule, species=["H", "O"])
    (back,) = read_mlip_cfg(path, {0: "H", 1: 8})
    assert not back.pbc.any() and back.cell.rank == 0 and back.calc is None
    np.testing.assert_array_equal(back.numbers, molecule.numbers)


def test_partial_supercell_is_periodic_along_its_vectors(tmp_path: Path) -> None:
    text = EXAMPLE.replace("    0.5 5.0 0.0\n    0.0 0.0 6.0\n", "    0.5 5.0 0.0\n")
    (atoms,) = read_mlip_cfg(write(tmp_path, text), ["Nb", "Mo"])
    assert list(atoms.pbc) == [True, True, False]
    assert "stress" not in atoms.calc.results


def test_read_structures_uses_the_type_map(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "set.cfg"
    frames = labelled(rng, 3)
    write_mlip_cfg(path, frames)
    assert is_mlip_cfg(path)
    read = read_structures(path, species=["Ni", "Cu", "Ag"], index="1:")
    assert [c.index for c in read] == [1, 2]
    np.testing.assert_allclose(read[0].stress, frames[1].calc.results["stress"], rtol=1e-13)
    with pytest.raises(DataError, match=r"types.*species="):
        read_structures(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("END_CFG\n", "", "truncated"),
        ("    2\n", "    3\n", "expected atom 3 of 3 in 9 columns, got 1"),
        ("    2\n", "    0\n", "positive integer"),
        (" Size\n    2\n", "", "before Size"),
        ("PlusStress:", "Stress:", "no settled sign"),
        (" Energy\n", " Enthalpy\n", "unknown entry 'Enthalpy'"),
        ("xy xz yz zz yy xx", "xy xz yz zz yy", "must name"),
        ("fz fx fy", "fz fx charge", "all of fx, fy, fz"),
        ("cartes_z", "direct_z", "cartes_x/y/z or as direct_x/y/z"),
        ("type id", "type type", "twice"),
        ("1 2  -0.3", "1 1  -0.3", "ids"),
        ("1 2  -0.3", "2 2  -0.3", "no element in the type map"),
        ("1 2  -0.3", "1.5 2  -0.3", "integers"),
        ("    -4.0", "    minus-four", "Energy must be numbers"),
        ("    -4.0", "    -4.0 eV", "expected 1 number for Energy, got 2"),
        ("0.3  0.1  0.2", "0.3  0.1  a.2", "AtomData must be numbers"),
        ("BEGIN_CFG", "BEGIN_CFG\nBEGIN_CFG", "inside a block"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(DataError, match=message) as caught:
        read_mlip_cfg(write(tmp_path, EXAMPLE.replace(old, new, 1)), ["Nb", "Mo"])
    assert "set.cfg" in str(caught.value)


def test_error_names_the_line(tmp_path: Path) -> None:
    text = EXAMPLE.replace(" Energy\n", " Enthalpy\n")
    line = text.splitlines().index(" Enthalpy") + 1
    with pytest.raises(DataError, match=f"line {line}:"):
        read_mlip_cfg(write(tmp_path, text), ["Nb", "Mo"])


def test_bad_type_maps_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path, EXAMPLE)
    for species in ("NbMo", ["Nb", "Xx"], ["Nb", "Nb"], [0, 41]):
        with pytest.raises(SpeciesError):
            read_mlip_cfg(path, species)
    with pytest.raises(DataError, match=r"Ni.*lacks"):
        write_mlip_cfg(path, labelled(rng, 1), species=["Cu", "Ag"])


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    slab = bulk("Cu", cubic=True)
    slab.pbc = [True, True, False]
    with pytest.raises(DataError, match="periodic along some axes"):
        write_mlip_cfg(tmp_path / "a.cfg", slab)
    with pytest.raises(DataError, match="not periodic"):
        write_mlip_cfg(tmp_path / "a.cfg", Atoms("H"), direct=True)
    (tmp_path / "empty.cfg").write_text("\n")
    with pytest.raises(DataError, match="no configuration"):
        read_mlip_cfg(tmp_path / "empty.cfg", ["H"])
