"""The monitor of the grade, and the loop of active learning with EMT as the reference."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet

import etnpot
from etnpot.errors import DataError, ExtrapolationError, ExtrapolationWarning, SpecificationError
from etnpot.fitting.demo_data import emt_alloys, thermalize
from etnpot.interfaces.active_learning import (
    ActiveLearning,
    Iteration,
    MolecularDynamics,
    calculator_reference,
    command_reference,
)
from etnpot.interfaces.monitor import GradeMonitor
from etnpot.potential import Potential

TINY: dict[str, Any] = dict(
    cutoff=3.6,
    polish_steps=2,
    threads=1,
    order=2,
    l_max=1,
    radial_size=4,
    channels=[2, 2],
    ranks=2,
    species_rank=2,
)


@pytest.fixture(scope="module")
def potential() -> Potential:
    """Fitted to a few rattled cells."""
    return etnpot.fit(emt_alloys(12, symbols=("Ni", "Cu"), seed=1, repeat=(1, 1, 2)), **TINY).potential


@pytest.fixture
def atoms(potential: Potential) -> Atoms:
    """A training-like cell with the calculator."""
    made = emt_alloys(1, symbols=("Ni", "Cu"), seed=1, repeat=(1, 1, 2))[0].atoms.copy()
    made.calc = etnpot.ETNCalculator(potential)
    return made


# --------------------------------------------------------------------------------------------------- monitor


def test_calculator_assesses_what_the_potential_does(potential: Potential, atoms: Atoms) -> None:
    expected = potential.assess(potential.edges(atoms), atoms.numbers)
    found = atoms.calc.assess(atoms)
    np.testing.assert_allclose(found.grade_i, expected.grade_i, rtol=1e-9)
    atoms.get_potential_energy()
    assert atoms.calc.assess().grade == pytest.approx(expected.grade, rel=1e-9)
    with pytest.raises(SpecificationError, match="etnpot calibrate"):
        etnpot.ETNCalculator(potential.with_reliability(None)).assess(atoms)


def test_monitor_warns_once_dumps_and_stops(atoms: Atoms, tmp_path: Path) -> None:
    dump = tmp_path / "out.extxyz"
    monitor = GradeMonitor(atoms, warn=2.0, stop=30.0, dump=dump, keep=2)
    cell = atoms.cell.array.copy()
    with warnings.catch_warnings(record=True) as caught, pytest.raises(ExtrapolationError, match="grade"):
        warnings.simplefilter("always")
        for k in range(40):
            atoms.set_cell((1.0 - 0.01 * k) * cell, scale_atoms=True)
            monitor()
    assert [w.category for w in caught] == [ExtrapolationWarning]
    frames = ase.io.read(dump, ":")
    assert monitor.largest > 30.0 and monitor.above >= 2
    assert len(frames) == (monitor.above + 1) // 2
    assert all(frame.info["grade"] > 2.0 and "grades" in frame.arrays for frame in frames)


def test_monitor_is_attached_to_dynamics(atoms: Atoms) -> None:
    thermalize(atoms, 300.0, np.random.default_rng(0))
    quiet = GradeMonitor(atoms, warn=None, stop=None)
    stops = GradeMonitor(atoms, warn=None, stop=1e-3)
    dynamics = VelocityVerlet(atoms, 2.0 * units.fs)
    dynamics.attach(quiet, interval=1)
    dynamics.run(5)
    assert quiet.calls == 6 and quiet.grade == pytest.approx(atoms.calc.assess(atoms).grade)
    dynamics.attach(stops, interval=1)
    with pytest.raises(ExtrapolationError):
        dynamics.run(5)


@pytest.mark.parametrize(
    "wrong",
    [{"warn": 0.0}, {"stop": -1.0}, {"keep": 0}, {"dump": "x.extxyz", "warn": None}, {"dump_above": 0.0}],
)
def test_monitor_refuses_senseless_settings(atoms: Atoms, wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError):
        GradeMonitor(atoms, **wrong)


def test_monitor_needs_a_calculator_of_etnpot(atoms: Atoms, potential: Potential) -> None:
    atoms.calc = EMT()
    with pytest.raises(SpecificationError, match="EMT"):
        GradeMonitor(atoms)
    atoms.calc = etnpot.ETNCalculator(potential.with_reliability(None))
    with pytest.raises(SpecificationError, match="etnpot calibrate"):
        GradeMonitor(atoms)


# ------------------------------------------------------------------------------------------------------ loop


class Counting:
    """EMT that counts its calls."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls, self.fails_at = 0, fails_at
        self._compute = calculator_reference(EMT())

    def __call__(self, atoms: Atoms) -> Atoms:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the self-consistency did not converge")
        return self._compute(atoms)


def bare(n: int, seed: int) -> list[Atoms]:
    return [c.atoms for c in emt_alloys(n, symbols=("Ni", "Cu"), seed=seed, repeat=(1, 1, 1))]


def a_loop(directory: Path, reference: Any, **settings: Any) -> ActiveLearning:
    # a fit to six cells of four atoms: grades say little
    explore = MolecularDynamics(bare(2, 7), [600.0, 1200.0], steps=20, interval=5, stop=100.0, seed=1)
    options: dict[str, Any] = dict(batch=3, iterations=3, threshold=0.0, settings=TINY) | settings
    return ActiveLearning(directory, reference, bare(6, 2), explore, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Iteration], int]:
    """A loop that ran to its end: its directory, its iterations, and the number of reference calculations."""
    directory, reference = tmp_path_factory.mktemp("loop"), Counting()
    return directory, a_loop(directory, reference).run(), reference.calls


@pytest.mark.slow
def test_loop_learns(done: tuple[Path, list[Iteration], int]) -> None:
    _, iterations, calls = done
    assert [i.n_train for i in iterations] == [6, 9, 12] and calls == 12
    last = iterations[-1]
    assert last.finished and last.reason == "iterations used up" and last.n_chosen == 0


@pytest.mark.slow
def test_loop_goes_on_where_it_was(done: tuple[Path, list[Iteration], int], tmp_path: Path) -> None:
    original, iterations, _ = done
    directory, reference = tmp_path / "copy", Counting()
    shutil.copytree(original, directory)
    moved = [replace(i, potential=directory / i.potential.relative_to(original)) for i in iterations]
    assert a_loop(directory, reference).run() == moved and reference.calls == 0
    # stages that are missing are done again, and give the same
    for name in ("done.json", "labels/00001.extxyz", "chosen.extxyz"):
        (directory / "iteration-001" / name).unlink()
    assert a_loop(directory, reference).run() == moved and reference.calls == 1
    for name in ("chosen.extxyz", "labels/00001.extxyz"):
        one, two = (ase.io.read(base / "iteration-001" / name) for base in (original, directory))
        np.testing.assert_array_equal(one.positions, two.positions)


@pytest.mark.slow
def test_budget_and_failures_are_counted(tmp_path: Path) -> None:
    reference = Counting(fails_at=7)
    found = a_loop(tmp_path, reference, budget=8, iterations=9).run()
    assert reference.calls == 8 and found[-1].reason == "reference calculations used up"
    assert [i.n_train for i in found] == [6, 7] and sum(i.n_failed for i in found) == 1
    failed = list(tmp_path.glob("**/*.failed"))
    assert len(failed) == 1 and "did not converge" in failed[0].read_text()


def test_loop_ends_when_nothing_is_new(tmp_path: Path) -> None:
    found = a_loop(tmp_path, Counting(), threshold=1e6).run()
    assert len(found) == 1 and found[0].reason == "nothing left that is worth computing"


def test_what_was_computed_is_not_chosen_again(tmp_path: Path) -> None:
    initial = bare(6, 2)
    loop = ActiveLearning(
        tmp_path,
        Counting(),
        initial,
        lambda _, __: initial,
        batch=3,
        iterations=3,
        threshold=0.0,
        settings=TINY,
    )
    assert loop.run()[0].n_chosen == 0


def test_command_is_a_reference(tmp_path: Path) -> None:
    program = tmp_path / "emt.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys
            from ase.calculators.emt import EMT
            from ase.io import read, write
            atoms = read(sys.argv[1])
            atoms.calc = EMT()
            atoms.get_forces(), atoms.get_stress()
            write(sys.argv[2], atoms, format="extxyz")
            """
        )
    )
    atoms = bare(1, 3)[0]
    compute = command_reference(f"{sys.executable} {program} {{input}} {{output}}", tmp_path / "runs")
    expected = calculator_reference(EMT())(atoms)
    assert compute(atoms).get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-6)
    broken = command_reference(f"{sys.executable} {tmp_path}/none.py {{input}} {{output}}", tmp_path / "runs")
    with pytest.raises(DataError, match=r"log\.txt"):
        broken(atoms)
    slow = command_reference(
        f"{sys.executable} -c 'import time; time.sleep(60)' {{input}} {{output}}",
        tmp_path / "runs",
        timeout=0.2,
    )
    with pytest.raises(DataError, match="longer than"):
        slow(atoms)
    with pytest.raises(SpecificationError, match="input"):
        command_reference("run-dft", tmp_path)


def test_reference_without_a_stress() -> None:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]])
    computed = calculator_reference(LennardJones())(atoms)
    assert set(computed.calc.results) == {"energy", "forces"}


@pytest.mark.parametrize("wrong", [{"rule": "best"}, {"batch": 0}, {"iterations": 0}])
def test_senseless_loops_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError):
        a_loop(tmp_path, Counting(), **wrong)
    with pytest.raises(SpecificationError, match="initial"):
        ActiveLearning(tmp_path, Counting(), [], lambda _, __: [])


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.slow
def test_a_killed_loop_ends_as_one_that_was_not(
    done: tuple[Path, list[Iteration], int], tmp_path: Path
) -> None:
    """kill -9 in the middle; what another process makes of it equals what one process makes alone."""
    program, directory = tmp_path / "loop.py", tmp_path / "killed"
    program.write_text(
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\n"
        "from test_active_learning import Counting, a_loop\n"
        "a_loop(Path(sys.argv[1]), Counting()).run()\n"
    )
    words = [sys.executable, str(program), str(directory), str(Path(__file__).parent)]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(Path(etnpot.__file__).parents[1])})
    deadline = time.monotonic() + 120
    while not list(directory.glob("iteration-000/labels/*.extxyz")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = a_loop(directory, Counting()).run()
    one, two = (etnpot.load(run[-1].potential) for run in (killed, done[1]))
    np.testing.assert_array_equal(one.parameters, two.parameters)
