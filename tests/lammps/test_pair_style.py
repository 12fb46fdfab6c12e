"""The pair style etn in stock LAMMPS gives the numbers of the ASE calculator, whatever LAMMPS does with it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot.fitting.reliability import chosen_core
from etnpot.interfaces.lammps.build import LammpsHeaders, build_plugin
from etnpot.interfaces.lammps.export import pair_commands, write_export
from etnpot.potential import Reliability

from .conftest import SCRIPTS, Lammps
from .potentials import EITHER, LAYERED, LOCAL, triclinic

pytestmark = pytest.mark.lammps


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", [*LOCAL, *(f"layers: {name}" for name in LAYERED)])
def test_equals_ase(
    name: str, ranks: int, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    _, layers, name = name.rpartition("layers: ")
    potential = (LAYERED if layers else LOCAL)[name]()
    atoms = triclinic(potential, rng, n=2 if layers else 3)
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + lammps.record("state"), ranks=ranks)
    state = lammps.state("state")
    assert len(set(state.rank_i)) == ranks
    assert abs(state.force_ic.sum(axis=0)).max() < 1e-9 * abs(state.force_ic).max()
    check_state(state, potential)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("potentials", "n"), [(LOCAL, 3), (LAYERED, 2)], ids=["local", "layers"])
def test_atoms_closer_than_the_data(
    potentials: Any,
    n: int,
    ranks: int,
    lammps: Lammps,
    rng: np.random.Generator,
    check_state: Callable[..., None],
) -> None:
    """Pairs on both sides of both radii of the repulsion, and learned energies beyond their bounds, where the seed of the last
    train is not 1."""
    potential = potentials["repulsion and bounds"]()
    atoms = triclinic(potential, rng, n=n)
    atoms.positions += rng.normal(scale=0.3, size=atoms.positions.shape)
    atoms.wrap()
    edges = potential.edges(atoms)
    assert np.linalg.norm(edges.r_pc, axis=1).min() < 1.7
    unbounded = potential.with_energy_bounds(None).evaluate(edges, atoms.numbers)
    bounded = potential.evaluate(edges, atoms.numbers)
    assert (abs(bounded.energy_i - unbounded.energy_i) > 1e-3).sum() > 3
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + lammps.record("state"), ranks=ranks)
    check_state(lammps.state("state"), potential)


def test_repulsion_is_that_of_the_pair_style_zbl(lammps: Lammps) -> None:
    """Below the inner radius, dimers of light and heavy elements beside LAMMPS' own implementation, which shifts the energy
    of each pair of types by a constant."""
    potential = etnpot.ETN(["H", "Ni", "Au"], cutoff=4.0, order=2, l_max=1, seed=1, repulsion="zbl")
    ends = {
        "HH": (0.3, 0.4),
        "HNi": (0.6, 0.9),
        "HAu": (0.5, 0.9),
        "NiNi": (0.7, 1.6),
        "NiAu": (1.5, 1.7),
        "AuAu": (0.2, 1.8),
    }
    dimers = [(symbols, r) for symbols, both in ends.items() for r in both]
    atoms = Atoms(cell=np.diag([10.0 * len(dimers) + 10.0, 10.0, 10.0]))
    for k, (symbols, r) in enumerate(dimers):
        atoms += Atoms(symbols, [[5 + 10 * k, 5, 5], [5 + 10 * k + 0.6 * r, 5, 5 - 0.8 * r]])
    style = "pair_style zbl 3.0 4.0\n" + "".join(
        f"pair_coeff {i} {j} {z} {w}\n"
        for i, z in enumerate(potential.species, start=1)
        for j, w in enumerate(potential.species, start=1)
        if i <= j
    )
    text = lammps.setup(potential, atoms, boundary="f f f", style=style) + "run 0\n" + lammps.record("state")
    lammps.run(text)
    state = lammps.state("state")
    found = potential.with_parameters(np.zeros(potential.n_parameters)).evaluate(
        potential.edges(atoms), atoms.numbers
    )
    np.testing.assert_allclose(found.forces, state.force_ic, rtol=1e-9, atol=1e-9)
    pairs, expected = (
        energy_i.reshape(-1, 2, 2).sum(axis=2) for energy_i in (found.energy_i, state.energy_i)
    )
    np.testing.assert_allclose(pairs[:, 0] - pairs[:, 1], expected[:, 0] - expected[:, 1], rtol=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("method", ["d3bj", "d3zero", "d2"])
def test_dispersion_in_an_overlay(method: str, ranks: int, lammps: Lammps, rng: np.random.Generator) -> None:
    """The commands of the export give what the ASE calculator gives: energy, forces, stress."""
    potential = etnpot.ETN(
        ["C", "Ni"], cutoff=4.0, order=2, l_max=1, seed=1, repulsion="zbl",
        dispersion={"method": method, "xc": "pbe", "cutoff": 12.0, "cn_cutoff": 8.0},
    )  # fmt: skip
    atoms = triclinic(potential, rng, n=2)
    commands = "\n".join(pair_commands(potential, "test.lammps"))
    lammps.run(
        lammps.setup(potential, atoms, style=commands) + "run 0\n" + lammps.record("state"), ranks=ranks
    )
    state = lammps.state("state")
    found = state.atoms
    found.calc = etnpot.ETNCalculator(potential)
    # two programs of D3, with constants of their own
    tolerance = 1e-7 if method == "d2" else 1e-5
    assert state.energy == pytest.approx(found.get_potential_energy(), rel=tolerance)
    assert abs(state.force_ic - found.get_forces()).max() < tolerance * abs(state.force_ic).max()
    stress = found.get_stress()[[0, 1, 2, 5, 4, 3]]
    assert abs(state.stress - stress).max() < tolerance * abs(stress).max()


def graded(name: str, rng: np.random.Generator) -> etnpot.Potential:
    """A potential with made-up grades: LAMMPS must give the numbers of `Potential.assess`, whatever they mean."""
    potential = {**LOCAL, **LAYERED}[name]()
    group = chosen_core(potential)
    n_q, n_r = potential.spec.shapes[group][0], 7
    known = Reliability(
        group, rng.normal(size=(n_q, n_r)), rng.normal(size=(len(potential.species), n_r)), np.ones((n_q, 1))
    )
    return potential.with_reliability(known)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", [*LOCAL, *LAYERED])
def test_grades_equal_those_of_the_potential(
    name: str, ranks: int, lammps: Lammps, rng: np.random.Generator
) -> None:
    potential = graded(name, rng)
    atoms = triclinic(potential, rng)
    text = lammps.setup(potential, atoms) + (
        "fix g all pair 1 etn grade 1\ncompute m all reduce max f_g\nrun 0\n"
        "write_dump all custom g.dump id f_g modify sort id format float %.17g\n"
        'print "$(c_m:%.17g)" file m.txt\n'
    )
    lammps.run(text, ranks=ranks)
    lines = (lammps.directory / "g.dump").read_text().splitlines()
    found = np.array([line.split()[1] for line in lines[9:]], dtype=float)
    expected = potential.assess(potential.edges(atoms), atoms.numbers)
    np.testing.assert_allclose(found, expected.grade_i, rtol=1e-8, atol=1e-9 * expected.grade)
    assert float((lammps.directory / "m.txt").read_text()) == pytest.approx(expected.grade, rel=1e-8)


def test_a_run_is_halted_by_its_grade(lammps: Lammps, rng: np.random.Generator) -> None:
    potential = graded("one species", rng)
    text = lammps.setup(potential, triclinic(potential, rng)) + (
        "fix g all pair 1 etn grade 1\ncompute m all reduce max f_g\nvariable m equal c_m\n"
        "fix nve all nve\nfix stop all halt 1 v_m > 1e-9 error soft\n"
        "dump d all custom 1 d.dump id f_g\ndump_modify d thresh f_g > 1e-9\nrun 50\n"
        'print "$(step)" file step.txt\n'
    )
    lammps.run(text)
    assert int((lammps.directory / "step.txt").read_text()) <= 2
    assert len((lammps.directory / "d.dump").read_text().splitlines()) > 100


def test_a_potential_without_grades_says_so(lammps: Lammps, rng: np.random.Generator) -> None:
    potential = LOCAL["one species"]()
    text = lammps.setup(potential, triclinic(potential, rng)) + "fix g all pair 1 etn grade 1\nrun 0\n"
    assert "etnpot calibrate" in lammps.run(text, fails=True)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", EITHER)
def test_after_dynamics_with_atoms_that_cross_borders(
    name: str, ranks: int, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    potential = EITHER[name]()
    text = (
        lammps.setup(potential, triclinic(potential, rng))
        + "velocity all create 4000.0 4711\nfix move all nve\n"
    )
    text += "timestep 0.002\nneigh_modify every 1 delay 0 check yes\nrun 0\n" + lammps.record("before")
    lammps.run(text + "run 60\n" + lammps.record("after"), ranks=ranks)
    before, after = lammps.state("before"), lammps.state("after")
    assert ranks == 1 or (before.rank_i != after.rank_i).any()
    check_state(after, potential)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", EITHER)
def test_constant_pressure(
    name: str, ranks: int, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    """The cell moves and tilts; what the pair style says in the end is right for the last cell."""
    potential = EITHER[name]()
    atoms = triclinic(potential, rng)
    text = lammps.setup(potential, atoms) + "velocity all create 600.0 4711\n"
    text += "fix move all npt temp 600 600 0.1 tri 0.0 0.0 0.1\nrun 40\n" + lammps.record("after")
    lammps.run(text, ranks=ranks)
    state = lammps.state("after")
    assert abs(state.atoms.cell.array - atoms.cell.array).max() > 1e-3
    check_state(state, potential)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", EITHER)
def test_cell_smaller_than_the_cutoff(
    name: str, ranks: int, lammps: Lammps, check_state: Callable[..., None]
) -> None:
    potential = EITHER[name]()
    atoms = Atoms(
        "AlNi",
        [[0.1, 0.2, 0.0], [1.4, 1.5, 1.6]],
        cell=[[2.9, 0, 0], [0.4, 3.0, 0], [0.3, -0.2, 3.1]],
        pbc=True,
    )
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + lammps.record("state"), ranks=ranks)
    check_state(lammps.state("state"), potential)


@pytest.mark.parametrize("name", EITHER)
def test_ranks_without_atoms(
    name: str, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    """A molecule in one corner of a box for four ranks: three have none of its atoms and take part in every exchange."""
    potential = EITHER[name]()
    positions = np.array([[2, 2, 2], [4.2, 2, 2], [2, 4.4, 2.1], [2.2, 2, 4.3], [4.1, 4.2, 4]], dtype=float)
    atoms = Atoms("AlNiCuNiAl", positions, cell=np.diag([40.0, 40.0, 40.0]))
    text = lammps.setup(potential, atoms, boundary="f f f") + "run 0\n" + lammps.record("state")
    lammps.run(text, ranks=4)
    state = lammps.state("state")
    assert len(set(state.rank_i)) == 1
    check_state(state, potential)


@pytest.mark.parametrize("name", EITHER)
def test_isolated_atoms(name: str, lammps: Lammps) -> None:
    """Nothing within the cutoff: energies of atoms without neighbours, no force."""
    potential = EITHER[name]()
    atoms = Atoms("AlNiCu", [[1, 1, 1], [15, 15, 15], [1, 15, 1]], cell=np.diag([30.0] * 3), pbc=True)
    lammps.run(lammps.setup(potential, atoms) + "run 0\n" + lammps.record("state"))
    state = lammps.state("state")
    assert not state.force_ic.any()
    atoms.calc = etnpot.ETNCalculator(potential)
    np.testing.assert_allclose(state.energy_i, atoms.get_potential_energies(), rtol=1e-12)


@pytest.mark.parametrize("name", EITHER)
def test_minimise(
    name: str, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    potential = EITHER[name]()
    text = lammps.setup(potential, triclinic(potential, rng)) + "run 0\n" + lammps.record("before")
    lammps.run(text + "minimize 0.0 1e-3 40 400\n" + lammps.record("after"), ranks=2)
    before, after = lammps.state("before"), lammps.state("after")
    assert after.energy < before.energy - 1.0
    check_state(after, potential)


@pytest.mark.parametrize("name", EITHER)
def test_energy_is_conserved_to_second_order(name: str, lammps: Lammps, rng: np.random.Generator) -> None:
    """Half the time step, a quarter of the fluctuation of the energy."""
    potential = EITHER[name]()
    text = lammps.setup(potential, triclinic(potential, rng))
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


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", EITHER)
def test_hybrid_overlay_is_the_sum(name: str, ranks: int, lammps: Lammps, rng: np.random.Generator) -> None:
    potential = EITHER[name]()
    atoms = triclinic(potential, rng)

    def zbl(style: str) -> str:
        pairs = [(i, j) for i in (1, 2, 3) for j in range(i, 4)]
        z = (0, *potential.species)
        return "\n".join(f"pair_coeff {i} {j} {style} {z[i]} {z[j]}" for i, j in pairs)

    etn = "etn test.lammps Al Ni Cu"
    styles = {
        "etn": "",
        "zbl": f"pair_style zbl 2.0 3.0\n{zbl('')}",
        "both": f"pair_style hybrid/overlay etn zbl 2.0 3.0\npair_coeff * * {etn}\n{zbl('zbl')}",
    }
    states = {}
    for style, pair in styles.items():
        text = lammps.setup(potential, atoms, style=pair)
        lammps.run(text + "run 0\n" + lammps.record(style), ranks=ranks)
        states[style] = lammps.state(style)
    fields = ["energy", "energy_i", "force_ic", "stress", "virial_iv"]
    for field in fields if potential.spec.layers else [*fields, "centroid_iv"]:
        parts = getattr(states["etn"], field) + getattr(states["zbl"], field)
        np.testing.assert_allclose(
            getattr(states["both"], field), parts, rtol=0, atol=1e-9 * np.abs(parts).max(), err_msg=field
        )


@pytest.mark.parametrize("name", EITHER)
def test_types_that_are_not_its_own(
    name: str, lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    """A type mapped to NULL is not there for etn: neither as centre nor as neighbour; two types may be one element."""
    potential = EITHER[name]()
    atoms = triclinic(potential, rng)
    style = (
        "pair_style hybrid etn lj/cut 3.0\npair_coeff * * etn test.lammps NULL Ni Ni\n"
        "pair_coeff 1 * lj/cut 0.0 2.0"
    )
    lammps.run(lammps.setup(potential, atoms, style=style) + "run 0\n" + lammps.record("state"), ranks=2)
    state = lammps.state("state", [13, 28, 28])
    own = state.atoms.numbers == 28
    rest = state.atoms[own]
    rest.calc = etnpot.ETNCalculator(potential)
    assert state.energy == pytest.approx(rest.get_potential_energy(), rel=1e-9)
    assert not state.force_ic[~own].any()
    np.testing.assert_allclose(
        state.force_ic[own], rest.get_forces(), rtol=0, atol=1e-9 * abs(state.force_ic).max()
    )


def test_replicate(lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]) -> None:
    potential = LOCAL["pair factor, envelope"]()
    text = lammps.setup(potential, triclinic(potential, rng, n=2)).replace(
        "read_data data.test", "read_data data.test\nreplicate 2 1 2"
    )
    lammps.run(text + "run 0\n" + lammps.record("state"), ranks=2)
    state = lammps.state("state")
    assert len(state.atoms) == 4 * 32
    check_state(state, potential)


@pytest.mark.parametrize("name", EITHER)
def test_restart(name: str, lammps: Lammps, rng: np.random.Generator) -> None:
    """A run that is cut in two, on another number of ranks, ends where the whole one ends."""
    potential = EITHER[name]()
    text = lammps.setup(potential, triclinic(potential, rng, n=2)) + "velocity all create 300.0 4711\n"
    text += "fix move all nve\nrun 10\nwrite_restart middle.restart\nrun 10\n"
    lammps.run(text + lammps.record("whole"))
    again = (
        "read_restart middle.restart\npair_style etn\npair_coeff * * test.lammps Al Ni Cu\n" + lammps.measures
    )
    lammps.run(again + "fix move all nve\nrun 10\n" + lammps.record("again"), ranks=2)
    whole, second = lammps.state("whole"), lammps.state("again")
    assert second.energy == pytest.approx(whole.energy, rel=1e-9)
    np.testing.assert_allclose(second.atoms.positions, whole.atoms.positions, rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------ what must stop


def damage_truncate(text: str) -> str:
    return text[: len(text) // 2]


def damage_digit(text: str) -> str:
    at = text.rindex("1")
    return text[:at] + "2" + text[at + 1 :]


def damage_version(text: str) -> str:
    return text.replace("etnpot-lammps 3 ", "etnpot-lammps 7 ")


MISTAKES = {
    "no such file": ("test.lammps Al", "nowhere.lammps Al", "cannot open the potential file nowhere.lammps"),
    "unknown element": ("test.lammps Al Ni", "test.lammps Al Fe", r"atom type 2 is mapped to Fe.*elements are Al Ni Cu"),
    "too few elements": ("test.lammps Al Ni Cu", "test.lammps Al", "one element .* for each of the 3 atom types"),
    "not a potential": ("test.lammps", "in.test", "not a potential exported by 'etnpot lammps"),
    "not exported": ("test.lammps", "test.etn", "export it with"),
    "truncated": ("test.lammps", "damage_truncate", "damaged.*bytes of tables"),
    "one digit": ("test.lammps", "damage_digit", "damaged.*digest"),
    "newer": ("test.lammps", "damage_version", "format version 7, but this plugin reads versions 2 to 3"),
    "other units": ("units metal", "units real", "real|metal units"),
    "newton off": ("atom_style atomic", "atom_style atomic\nnewton off", "newton on"),
    "arguments": ("pair_style etn", "pair_style etn 5.0", "takes no arguments"),
    "one pair": ("pair_coeff * *", "pair_coeff 1 2", r"must start with \* \*"),
    "not set": ("pair_coeff * * test.lammps Al Ni Cu", "", "coeff"),
    "in part": ("pair_coeff * * test.lammps Al Ni Cu", "pair_coeff * * test.lammps Al Ni NULL", "coeff"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "ranks"),
    [(name, 1) for name in MISTAKES]
    + [(name, 2) for name in ("no such file", "unknown element", "one digit")],
)
def test_mistakes_are_named_in_the_log(
    name: str, ranks: int, lammps: Lammps, rng: np.random.Generator
) -> None:
    potential = LOCAL["pair factor, envelope"]()
    text = lammps.setup(potential, triclinic(potential, rng, n=2))
    potential.save(lammps.directory / "test.etn")
    exported = (lammps.directory / "test.lammps").read_text()
    for damage in (damage_truncate, damage_digit, damage_version):
        (lammps.directory / damage.__name__).write_text(damage(exported))
    old, new, message = MISTAKES[name]
    assert old in text
    log = lammps.run(text.replace(old, new) + "run 0\n", ranks=ranks, fails=True)
    assert re.search(f"ERROR.*{message}", log.replace("\n", " ")), log[-1000:]


def test_ghosts_that_do_not_reach(lammps: Lammps, rng: np.random.Generator) -> None:
    """LAMMPS itself widens a ghost region that is too small for the cutoff; where it cannot, it stops."""
    potential = LOCAL["pair factor, envelope"]()
    text = lammps.setup(potential, triclinic(potential, rng))
    log = lammps.run(text + "comm_modify cutoff 2.0\nrun 0\n" + lammps.record("state"))
    assert "ommunication cutoff" in log
    state = lammps.state("state")
    atoms = state.atoms
    atoms.calc = etnpot.ETNCalculator(potential)
    assert state.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-9)


def test_plugin_of_another_version(plugin: Path, lammps: Lammps) -> None:
    """What was compiled for another LAMMPS refuses to run in this one, and says so."""
    headers = LammpsHeaders.of_package()
    other = LammpsHeaders(headers.include, "2 Aug 2023", headers.compiler)
    made = build_plugin(other, lammps.directory / "other", march="x86-64", flags=("-O0",))
    log = lammps.run(f"plugin load {made}\n", fails=True)
    assert "built for LAMMPS 20230802, but this is LAMMPS 20250722; build it again" in log.replace("\n", " ")


def test_plugin_for_a_source_tree(plugin: Path, lammps: Lammps) -> None:
    """What is built against the ``src`` of a LAMMPS runs after ``plugin load``."""
    (headers,) = LammpsHeaders.of_package().include
    tree = lammps.directory / "mylammps" / "src"
    shutil.copytree(headers, tree)
    (tree / "version.h").write_text('#define LAMMPS_VERSION "22 Jul 2025"\n')
    command = [
        sys.executable,
        "-m",
        "etnpot",
        "lammps",
        "--build",
        "--lammps",
        "mylammps",
        "--plugin-dir",
        "made",
    ]
    command += ["--compiler", f"{SCRIPTS / 'mpicxx'} -O0", "--march", "x86-64"]
    done = subprocess.run(command, cwd=lammps.directory, check=True, capture_output=True, text=True)
    assert f"plugin load {lammps.directory / 'made' / 'etnplugin.so'}" in done.stdout
    log = lammps.run("plugin unload pair etn\nplugin load made/etnplugin.so\nunits metal\npair_style etn\n")
    assert "Loading plugin: equivariant tensor network potentials" in log


def test_command_line_to_a_run(plugin: Path, lammps: Lammps) -> None:
    """``etnpot lammps POTENTIAL --out DIR`` gives an input file that runs as it is."""
    potential = LOCAL["pair factor, envelope"]()
    potential.with_parameters(potential.parameters).save(lammps.directory / "alloy.etn")
    command = [sys.executable, "-m", "etnpot", "lammps", "alloy.etn", "--out", "run"]
    subprocess.run(command, cwd=lammps.directory, check=True, capture_output=True)
    run = lammps.directory / "run"
    assert {path.name for path in run.iterdir()} == {"alloy.lammps", "in.lammps"}
    text = (run / "in.lammps").read_text().replace(" 6 0 6 0 6", " 3 0 3 0 3")
    log = Lammps(run).run(text)
    assert "Loop time" in log


def test_export_is_read_bit_by_bit(lammps: Lammps, rng: np.random.Generator) -> None:
    """The same potential written twice gives the same bits in LAMMPS."""
    potential = LOCAL["medium size"]()
    text = lammps.setup(potential, triclinic(potential, rng, n=2)) + "run 0\n"
    lammps.run(text + lammps.record("one"))
    again = etnpot.Potential(potential.spec, potential.parameters)
    write_export(again, lammps.directory / "test.lammps")
    lammps.run(text + lammps.record("two"))
    one, two = (lammps.state(name) for name in ("one", "two"))
    assert one.energy == two.energy
    assert (one.force_ic == two.force_ic).all()
