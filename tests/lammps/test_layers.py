"""The pair style etn with layers gives the numbers of the ASE calculator, on any number of ranks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot.interfaces.lammps.export import export_text

from ..layers.conftest import KINDS, layered
from .conftest import CENTROID, MEASURES, Lammps, State
from .conftest import record as record_all
from .test_pair_style import POTENTIALS, scaled, triclinic

pytestmark = pytest.mark.lammps

#: More than one layer, and layers beside everything else that a potential may have.
MORE: dict[str, Callable[[], etnpot.Potential]] = {
    "messages twice": lambda: layered(
        "message", layers=[*KINDS["message"], dict(kind="message", carry={"0e": 1, "1o": 2, "2e": 1}, ranks=2)]
    ),
    "attention twice, after a pool": lambda: layered(
        "", layers=[*KINDS["pool"], *KINDS["normalised"], *KINDS["bilinear"], *KINDS["pool"], *KINDS["message"]]
    ),
    "l up to 3, embedding, no scalars passed on": lambda: etnpot.ETN(
        ["Al", "Ni", "Cu", "Ag", "Au"], cutoff=4.0, order=3, l_max=3, radial_family="bessel", radial_size=5,
        channels=[5, 1, 4, 3], ranks=3, pseudotensors=True, seed=3, neighbor_scale=1.0,
        layers=[
            dict(kind="message", carry={"1o": 3, "2e": 2, "3o": 1}, order=3, ranks=3, attention="normalised", heads=3, width=2)
        ],
    ),
    "scalars": lambda: etnpot.ETN(
        ["Ni", "Cu"], cutoff=4.0, order=3, l_max=0, channels=1, ranks=1, seed=4, neighbor_scale=1.0,
        layers=[dict(kind="message", carry={"0e": 5})],
    ),
    "repulsion and bounds": lambda: scaled(
        layered("normalised", repulsion="zbl", layers=[*KINDS["normalised"], *KINDS["message"]]), 15.0
    ).with_energy_bounds((-0.3, 0.3)),
    # every kind of layer, and dynamics that do not blow up
    "bounded": lambda: layered("deep", repulsion="zbl").with_energy_bounds((-0.3, 0.3)),
    "defaults": lambda: etnpot.ETN(
        ["Al", "Ni", "Cu"], cutoff=4.0, order=3, l_max=2, seed=2, neighbor_scale=1.0, layers=[dict(kind="message")]
    ),
}  # fmt: skip


def made(name: str) -> etnpot.Potential:
    """A potential of `KINDS` or of `MORE`."""
    return MORE[name]() if name in MORE else layered(name)


def record(name: str) -> str:
    return record_all(name, layers=True)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", [*KINDS, *MORE])
def test_equals_ase(
    name: str, ranks: int, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    potential = made(name)
    atoms = triclinic(potential, rng, n=2)
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + record("state"), ranks=ranks)
    state = State.read(lammps.directory, "state", list(potential.species))
    assert len(set(state.rank_i)) == ranks
    assert abs(state.force_ic.sum(axis=0)).max() < 1e-9 * abs(state.force_ic).max()
    without = potential.with_parameters(potential.parameters)
    without = without.with_arrays(
        **{name.replace(".", "__"): 0 * array for name, array in potential.arrays.items() if "layer" in name}
    )
    found = without.evaluate(without.edges(state.atoms), state.atoms.numbers)
    assert abs(found.forces - state.force_ic).max() > 1e-3 * abs(state.force_ic).max()  # layers do something
    check_state(state, potential)


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_closer_than_the_data(
    ranks: int, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    """Held pairs, repulsion, and learned energies beyond their bounds: the seed of the last train is not 1 then."""
    potential = made("repulsion and bounds")
    atoms = triclinic(potential, rng, n=2)
    atoms.positions += rng.normal(scale=0.3, size=atoms.positions.shape)
    atoms.wrap()
    edges = potential.edges(atoms)
    assert np.linalg.norm(edges.r_pc, axis=1).min() < 1.7
    unbounded = potential.with_energy_bounds(None).evaluate(edges, atoms.numbers)
    bounded = potential.evaluate(edges, atoms.numbers)
    assert (abs(bounded.energy_i - unbounded.energy_i) > 1e-3).sum() > 3
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + record("state"), ranks=ranks)
    check_state(State.read(lammps.directory, "state", list(potential.species)), potential)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_after_dynamics_with_atoms_that_cross_borders(
    ranks: int, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    potential = made("bounded")
    text = lammps.setup(potential, triclinic(potential, rng)) + (
        "velocity all create 4000.0 4711\nfix move all npt temp 4000 4000 0.1 tri 0.0 0.0 0.1\ntimestep 0.002\n"
        "neigh_modify every 1 delay 0 check yes\nrun 0\n"
    )
    lammps.run(text + record("before") + "run 60\n" + record("after"), ranks=ranks)
    species = list(potential.species)
    before, after = (State.read(lammps.directory, name, species) for name in ("before", "after"))
    assert ranks == 1 or (before.rank_i != after.rank_i).any()
    assert abs(before.atoms.cell.array - after.atoms.cell.array).max() > 1e-3
    check_state(after, potential)


def test_tiled_communication(
    lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    """Domains that are cut by the number of atoms, whose exchange is another one."""
    potential = made("deep")
    text = lammps.setup(potential, triclinic(potential, rng)).replace(
        "neighbor 0.6 bin", "neighbor 0.6 bin\ncomm_style tiled\nbalance 1.0 rcb"
    )
    lammps.run(text + "run 0\n" + record("state"), ranks=4)
    check_state(State.read(lammps.directory, "state", list(potential.species)), potential)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ["deep", "bilinear"])
def test_cell_smaller_than_the_cutoff(
    name: str, ranks: int, lammps: Lammps, check_state: Callable[..., None]
) -> None:
    """Ghosts are images of the atoms themselves, many of one."""
    potential = made(name)
    atoms = Atoms(
        "AlNi",
        [[0.1, 0.2, 0.0], [1.4, 1.5, 1.6]],
        cell=[[2.9, 0, 0], [0.4, 3.0, 0], [0.3, -0.2, 3.1]],
        pbc=True,
    )
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + record("state"), ranks=ranks)
    check_state(State.read(lammps.directory, "state", list(potential.species)), potential)


def test_ranks_without_atoms(
    lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    """A molecule in one corner of a box for four ranks: three have none of its atoms and take part in every exchange."""
    potential = made("deep")
    positions = np.array([[2, 2, 2], [4.2, 2, 2], [2, 4.4, 2.1], [2.2, 2, 4.3], [4.1, 4.2, 4]], dtype=float)
    atoms = Atoms("AlNiCuNiAl", positions, cell=np.diag([40.0, 40.0, 40.0]))
    text = lammps.setup(potential, atoms, boundary="f f f") + "run 0\n" + record("state")
    lammps.run(text, ranks=4)
    state = State.read(lammps.directory, "state", list(potential.species), pbc=False)
    assert len(set(state.rank_i)) == 1
    check_state(state, potential)


@pytest.mark.parametrize("name", ["deep", "bilinear"])
def test_isolated_atoms(name: str, lammps: Lammps) -> None:
    potential = made(name)
    atoms = Atoms("AlNiCu", [[1, 1, 1], [15, 15, 15], [1, 15, 1]], cell=np.diag([30.0] * 3), pbc=True)
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + record("state"))
    state = State.read(lammps.directory, "state", list(potential.species))
    assert not state.force_ic.any()
    atoms.calc = etnpot.ETNCalculator(potential)
    np.testing.assert_allclose(state.energy_i, atoms.get_potential_energies(), rtol=1e-12)


def test_energy_is_conserved_to_second_order(lammps: Lammps, rng: np.random.Generator) -> None:
    """Half the time step, a quarter of the fluctuation of the energy, on two ranks."""
    potential = made("bounded")
    text = lammps.setup(potential, triclinic(potential, rng, n=2))
    text += "minimize 0.0 1e-3 200 2000\nvelocity all create 300.0 4711\nwrite_data start.data\n"
    lammps.run(text)
    spread = []
    for step, n_steps in ((0.002, 100), (0.001, 200)):
        again = text.split("minimize")[0].replace("data.test", "start.data")
        again += f"fix move all nve\ntimestep {step}\nthermo 1\nrun {n_steps}\n"
        log = lammps.run(again, ranks=2)
        rows = [
            line.split() for line in log.splitlines() if re.fullmatch(r"\s*\d+( +-?[\d.e+-]+){15,}\s*", line)
        ]
        total = np.array([float(row[3]) for row in rows[-n_steps - 1 :]])
        assert len(total) == n_steps + 1
        spread.append(total.std())
    assert spread[0] / spread[1] == pytest.approx(4.0, rel=0.25)


def test_restart(lammps: Lammps, rng: np.random.Generator) -> None:
    """A run that is cut in two, on another number of ranks, ends where the whole one ends."""
    potential = made("deep")
    dynamics = "fix move all nve\nrun 10\nwrite_restart middle.restart\nrun 10\n" + record("whole")
    text = lammps.setup(potential, triclinic(potential, rng, n=2)) + "velocity all create 300.0 4711\n"
    lammps.run(text + dynamics)
    again = "read_restart middle.restart\npair_style etn\npair_coeff * * test.lammps Al Ni Cu\n"
    again += MEASURES.replace(CENTROID, "")
    lammps.run(again + "fix move all nve\nrun 10\n" + record("again"), ranks=2)
    whole, second = (
        State.read(lammps.directory, name, list(potential.species)) for name in ("whole", "again")
    )
    assert second.energy == pytest.approx(whole.energy, rel=1e-9)
    np.testing.assert_allclose(second.atoms.positions, whole.atoms.positions, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ranks", [1, 4])
def test_hybrid_overlay_is_the_sum(ranks: int, lammps: Lammps, rng: np.random.Generator) -> None:
    """The hybrid style asks for the sizes of exchanges before the potential is read."""
    potential = made("attention twice, after a pool")
    atoms = triclinic(potential, rng, n=2)
    z = (0, *potential.species)

    def zbl(name: str) -> str:
        return "\n".join(f"pair_coeff {i} {j} {name} {z[i]} {z[j]}" for i in (1, 2, 3) for j in range(i, 4))

    styles = {
        "etn": "",
        "zbl": f"pair_style zbl 2.0 3.0\n{zbl('')}",
        "both": f"pair_style hybrid/overlay etn zbl 2.0 3.0\npair_coeff * * etn test.lammps Al Ni Cu\n{zbl('zbl')}",
    }
    states = {}
    for name, style in styles.items():
        lammps.run(lammps.setup(potential, atoms, style=style) + "run 0\n" + record(name), ranks=ranks)
        states[name] = State.read(lammps.directory, name, list(potential.species))
    for field in ("energy", "energy_i", "force_ic", "stress", "virial_iv"):
        parts = getattr(states["etn"], field) + getattr(states["zbl"], field)
        np.testing.assert_allclose(
            getattr(states["both"], field), parts, rtol=0, atol=1e-9 * np.abs(parts).max(), err_msg=field
        )


def test_types_that_are_not_its_own(lammps: Lammps, rng: np.random.Generator) -> None:
    """A type mapped to NULL neither sends nor is pooled; two types may be one element."""
    potential = made("deep")
    atoms = triclinic(potential, rng)
    style = (
        "pair_style hybrid etn lj/cut 3.0\npair_coeff * * etn test.lammps NULL Cu Ni\n"
        "pair_coeff 1 * lj/cut 0.0 2.0"
    )
    lammps.run(lammps.setup(potential, atoms, style=style) + "run 0\n" + record("state"), ranks=2)
    state = State.read(lammps.directory, "state", [13, 29, 28])
    own = state.atoms.numbers != 13
    rest = state.atoms[own]
    rest.calc = etnpot.ETNCalculator(potential)
    assert state.energy == pytest.approx(rest.get_potential_energy(), rel=1e-9)
    assert not state.force_ic[~own].any()
    np.testing.assert_allclose(
        state.force_ic[own], rest.get_forces(), rtol=0, atol=1e-9 * abs(state.force_ic).max()
    )


# ------------------------------------------------------------------------------------------------ what must stop


def signed(text: str) -> str:
    """An exported text with the digest and the length that its tables have."""
    first, second, body = text.split("\n", 2)
    content = body.encode("ascii")
    words = second.split()
    words[3], words[5] = f"{zlib.crc32(content):08x}", str(len(content))
    return "\n".join([first, " ".join(words), body])


def first_of(table: str, value: str) -> Callable[[str], str]:
    """Another first entry of a table."""
    return lambda text: signed(re.sub(rf"(\n{table} \S+ \d+\n)\S+", rf"\g<1>{value}", text))


def test_what_layers_do_not_have(lammps: Lammps, rng: np.random.Generator) -> None:
    potential = made("deep")
    text = lammps.setup(potential, triclinic(potential, rng, n=2))
    log = lammps.run(text + "fix g all pair 1 etn grade 1\nrun 0\n", fails=True)
    assert "grades of potentials with layers are not computed in LAMMPS" in log.replace("\n", " ")
    for style in ("etn", "hybrid/overlay etn zero 3.0"):
        name = "etn " if "hybrid" in style else ""
        more = "pair_coeff * * zero\n" if "hybrid" in style else ""
        pair = f"pair_style {style}\npair_coeff * * {name}test.lammps Al Ni Cu\n{more}"
        again = lammps.setup(potential, triclinic(potential, rng, n=2), style=pair) + CENTROID
        log = lammps.run(
            again + "thermo_style custom step c_c[1]\nrun 0\n".replace(" c_c[1]", ""), fails=True
        )
        assert re.search("ERROR.*does not support compute centroid/stress/atom", log.replace("\n", " "))


DAMAGES: dict[str, tuple[str, Any, str]] = {
    "layers": ("layers", "7", "no table 'layer_4"),
    "place of a feature": ("layer_2_order", "1000", "'layer_2_order' does not fit"),
    "kind": ("layer_1_kind", "5", "'layer_1_kind' does not fit"),
    "row": ("layer_2_carried", "-1", "'layer_2_carried' does not fit"),
    "term": ("layer_1_terms", "99", "'layer_1_terms' does not fit"),
    "features": ("layer_3_train_sizes", "2", "'layer_3_.*' does not fit"),
    "local features": ("layers_local", "3", "does not fit"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_tables_that_do_not_fit(name: str, lammps: Lammps, rng: np.random.Generator) -> None:
    potential = made("deep")
    text = lammps.setup(potential, triclinic(potential, rng, n=2))
    table, value, message = DAMAGES[name]
    exported = export_text(potential)
    damaged = first_of(table, value)(exported)
    assert damaged != exported
    (lammps.directory / "test.lammps").write_text(damaged)
    log = lammps.run(text + "run 0\n", fails=True)
    assert re.search(f"ERROR.*damaged.*{message}", log.replace("\n", " ")), log[-1000:]


def test_files_of_version_2_are_read(lammps: Lammps, rng: np.random.Generator) -> None:
    """What was exported before there were layers gives the same bits."""
    potential = POTENTIALS["pair factor, envelope"]()
    text = lammps.setup(potential, triclinic(potential, rng, n=2)) + "run 0\n"
    lammps.run(text + record_all("new"))
    exported = export_text(potential)
    older = signed(
        exported.replace("etnpot-lammps 3 ", "etnpot-lammps 2 ").replace("\nlayers integer 1\n0\n", "\n")
    )
    assert "layers" not in older
    (lammps.directory / "test.lammps").write_text(older)
    lammps.run(text + record_all("old"))
    new, old = (State.read(lammps.directory, name, list(potential.species)) for name in ("new", "old"))
    assert new.energy == old.energy
    assert (new.force_ic == old.force_ic).all()
