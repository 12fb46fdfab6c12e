"""Active learning: fit, explore, choose, compute, and again, in a directory that survives a kill at any moment.

    iteration k:   fit to everything computed so far  ->  explore with the potential  ->  choose what it would learn most from
                   ->  compute those with the reference  ->  iteration k + 1

until nothing that is met is graded above a threshold, or until the reference calculations or iterations that were
granted are used up. Every stage leaves a file that is written in one step, and a stage whose file is there is not done again:

======================================  ================================================================
below the directory                     what
======================================  ================================================================
``initial/00000.extxyz`` ...            the first configurations, computed
``iteration-000/fit/``                  a fit as of `etnpot.fit`; it continues where it was
``iteration-000/candidates.extxyz``     what the exploration met
``iteration-000/chosen.extxyz``         what is to be computed
``iteration-000/labels/00000.extxyz``   what has been computed
``iteration-000/done.json``             written last: numbers, grades, errors
======================================  ================================================================

A reference calculation that fails is noted (``labels/00000.failed``) and left out; it counts as one that was done.
"""

from __future__ import annotations

import io
import json
import logging
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from etnpot.errors import DataError, EtnpotError, ExtrapolationError, SpecificationError
from etnpot.io.atomic import write_bytes_atomically

if TYPE_CHECKING:
    from ase import Atoms

    from etnpot.fitting.dataset import DataSet
    from etnpot.potential import Potential

__all__ = ["ActiveLearning", "Explorer", "Iteration", "MolecularDynamics", "Reference", "command_reference"]

logger = logging.getLogger(__name__)

#: Computes a configuration: Atoms in, Atoms with energy and forces (and stress) in their calculator out.
Reference = Callable[["Atoms"], "Atoms"]
#: Meets configurations with a potential: (potential, number of the iteration) -> candidates.
Explorer = Callable[["Potential", int], "Sequence[Atoms]"]

#: How candidates are chosen: as in `etnpot.fitting.selection`, or blindly, for comparison.
_RULES = ("grade", "deviation", "random")


@dataclass(frozen=True)
class Iteration:
    """What one iteration did.

    Attributes
    ----------
    number : int
    n_train : int
        Configurations that the potential was fitted to, validation included.
    n_candidates, n_chosen, n_failed : int
    largest_grade : float
        Among the candidates.
    potential : pathlib.Path
    finished : bool
        Whether the loop ends here.
    reason : str
    """

    number: int
    n_train: int
    n_candidates: int
    n_chosen: int
    n_failed: int
    largest_grade: float
    potential: Path
    finished: bool
    reason: str


def calculator_reference(calculator: Any) -> Reference:
    """A reference from an ASE calculator: energy, forces, and the stress where it has one."""

    def compute(atoms: Atoms) -> Atoms:
        from ase.calculators.calculator import PropertyNotImplementedError
        from ase.calculators.singlepoint import SinglePointCalculator

        work = atoms.copy()
        work.calc = calculator
        results = {"energy": work.get_potential_energy(), "forces": work.get_forces()}
        if work.cell.rank == 3:
            try:
                results["stress"] = work.get_stress()
            except (PropertyNotImplementedError, NotImplementedError):
                pass
        work.calc = SinglePointCalculator(work, **results)
        return work

    return compute


def command_reference(command: str, directory: str | Path, *, timeout: float | None = None) -> Reference:
    """A reference from a program: ``run-dft {input} {output}``.

    Parameters
    ----------
    command : str
        ``{input}`` stands for an extended XYZ file with the configuration, ``{output}`` for the file that the program
        leaves, in anything that ASE reads with energy and forces. It is run without a shell.
    directory : path
        Where both files and the program's output go, in a folder for each configuration; the program runs there.
    timeout : float, optional, s
        A calculation that takes longer has failed.

    Raises
    ------
    SpecificationError
        If the command does not name both files.
    """
    if "{input}" not in command or "{output}" not in command:
        raise SpecificationError(f"command: expected {{input}} and {{output}} in it, got {command!r}")
    words = shlex.split(command)
    base = Path(directory)

    def compute(atoms: Atoms) -> Atoms:
        from ase.io import read, write

        base.mkdir(parents=True, exist_ok=True)
        number = sum(1 for _ in base.glob("calculation-*"))
        folder = base / f"calculation-{number:05d}"
        folder.mkdir()
        source, result = folder / "input.extxyz", folder / "output.extxyz"
        write(source, atoms, format="extxyz")
        names = {"input": str(source.resolve()), "output": str(result.resolve())}
        with open(folder / "log.txt", "wb") as log:
            try:
                done = subprocess.run(
                    [word.format(**names) for word in words],
                    cwd=folder,
                    stdout=log,
                    stderr=log,
                    timeout=timeout,
                )
            except subprocess.TimeoutExpired as error:
                raise DataError(f"the reference took longer than {timeout:g} s: see {folder}") from error
        if done.returncode != 0 or not result.is_file():
            raise DataError(f"the reference ended with status {done.returncode}: see {folder / 'log.txt'}")
        computed = read(result)
        assert not isinstance(computed, list)
        return computed

    return compute


@dataclass(frozen=True)
class MolecularDynamics:
    """Explores by molecular dynamics (Langevin), and stops where the potential guesses.

    Parameters
    ----------
    starts : sequence of Atoms
        Every one is started from, in every iteration.
    temperatures : sequence of float, K
        One for each start, or one for all.
    steps : int
    timestep : float, fs
    interval : int
        A candidate every so many steps.
    stop : float
        Grade at which a trajectory ends; the configuration is the last candidate.
    seed : int
    """

    starts: Sequence[Atoms]
    temperatures: Sequence[float]
    steps: int = 1000
    timestep: float = 2.0
    interval: int = 20
    stop: float = 10.0
    seed: int = 0

    def __call__(self, potential: Potential, iteration: int) -> list[Atoms]:
        """The candidates of one iteration."""
        from ase import units
        from ase.md.langevin import Langevin

        from etnpot.fitting.demo_data import thermalize
        from etnpot.interfaces.ase import ETNCalculator
        from etnpot.interfaces.monitor import GradeMonitor

        candidates: list[Atoms] = []
        for k, start in enumerate(self.starts):
            kelvin = self.temperatures[k % len(self.temperatures)]
            rng = np.random.default_rng([self.seed, iteration, k])
            atoms = start.copy()
            atoms.calc = ETNCalculator(potential)
            thermalize(atoms, kelvin, rng)
            dynamics = Langevin(
                atoms,
                self.timestep * units.fs,
                temperature_K=kelvin,
                friction=0.01 / units.fs,
                fixcm=False,
                rng=rng,
            )
            monitor = GradeMonitor(atoms, warn=None, stop=self.stop)
            dynamics.attach(monitor, interval=1)

            def keep(atoms: Atoms = atoms, group: str = f"start {k}, {kelvin:g} K") -> None:
                frame = atoms.copy()
                frame.set_momenta(np.zeros((len(frame), 3)))
                del frame.arrays["momenta"]
                frame.info = {"config_type": group}
                candidates.append(frame)

            dynamics.attach(keep, interval=self.interval)
            try:
                dynamics.run(self.steps)
            except ExtrapolationError:
                keep()
            except EtnpotError as error:  # atoms on top of each other, positions that are not finite
                logger.info("trajectory %d ended: %s", k, error)
        return candidates


@dataclass
class ActiveLearning:
    """The loop.

    Parameters
    ----------
    directory : path
        Made if need be; a loop that was begun there goes on.
    reference : callable or ASE calculator
        See `Reference`, `command_reference`.
    initial : sequence of Atoms
        What the first potential is fitted to; those without energy and forces are computed.
    explore : callable
        See `Explorer`, `MolecularDynamics`.
    batch : int
        Reference calculations per iteration, at most.
    iterations : int
        At most; the last one only fits to everything that was computed.
    budget : int, optional
        Reference calculations, at most, the initial ones included.
    threshold : float
        The loop ends when no candidate has a grade above it. Zero: never.
    rule : {"grade", "deviation", "random"}
        How candidates are chosen.
    settings : mapping
        Of every fit: see `etnpot.FitSettings`.
    seed : int
        Of the rule "random".
    """

    directory: str | Path
    reference: Any
    initial: Sequence[Atoms]
    explore: Explorer
    batch: int = 10
    iterations: int = 20
    budget: int | None = None
    threshold: float = 1.5
    rule: str = "grade"
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule not in _RULES:
            raise SpecificationError(f"rule: expected one of {', '.join(_RULES)}, got {self.rule!r}")
        for name in ("batch", "iterations"):
            if getattr(self, name) < 1:
                raise SpecificationError(f"{name}: expected a positive integer, got {getattr(self, name)!r}")
        if not len(self.initial):
            raise SpecificationError("initial: expected at least one configuration to begin with")
        self.path = Path(self.directory)
        from ase.calculators.calculator import BaseCalculator

        self._reference: Reference = (
            calculator_reference(self.reference)
            if isinstance(self.reference, BaseCalculator) or not callable(self.reference)
            else self.reference
        )

    # ------------------------------------------------------------------------------------------------- the loop

    def run(self, callback: Callable[[Iteration], None] | None = None) -> list[Iteration]:
        """All iterations that are left; those that were done are reported as well."""
        done: list[Iteration] = []
        for number in range(self.iterations):
            done.append(self.iterate(number))
            if callback is not None:
                callback(done[-1])
            if done[-1].finished:
                break
        return done

    def iterate(self, number: int) -> Iteration:
        """One iteration, or what is left of it."""
        folder = self.path / f"iteration-{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / "done.json"
        if record.is_file():
            values = json.loads(record.read_text(encoding="utf-8"))
            return Iteration(**{**values, "potential": folder / values["potential"]})
        train = self.training_set(number)
        potential = self._fit(train, folder / "fit")
        candidates = self._candidates(potential, number, folder / "candidates.extxyz")
        chosen, largest = self._chosen(potential, train, candidates, number, folder / "chosen.extxyz")
        n_failed = self._label(chosen, folder / "labels")
        finished, reason = not chosen, ""
        if finished:
            reason = "nothing left that is worth computing"
            if number + 1 >= self.iterations:
                reason = "iterations used up"
            elif not self._wanted(number, len(train)):
                reason = "reference calculations used up"
        values = {
            "number": number,
            "n_train": len(train),
            "n_candidates": len(candidates),
            "n_chosen": len(chosen),
            "n_failed": n_failed,
            "largest_grade": largest,
            "potential": "fit/potential.etn",
            "finished": finished,
            "reason": reason,
        }
        write_bytes_atomically(record, (json.dumps(values, indent=1) + "\n").encode())
        return Iteration(**{**values, "potential": folder / "fit/potential.etn"})

    def training_set(self, number: int) -> DataSet:
        """Everything that has been computed before an iteration."""
        from etnpot.fitting.dataset import DataSet

        self._label(self.initial, self.path / "initial")
        folders = [self.path / "initial"]
        folders += [self.path / f"iteration-{k:03d}" / "labels" for k in range(number)]
        files = [file for folder in folders for file in sorted(folder.glob("*.extxyz"))]
        if not files:
            raise DataError(
                f"no reference calculation in {self.path} has succeeded: see the .failed files there"
            )
        return DataSet.from_files(files)

    # ------------------------------------------------------------------------------------------------- stages

    def _fit(self, train: DataSet, out: Path) -> Potential:
        import etnpot

        if (out / "finished.json").is_file():
            return etnpot.load(out / "potential.etn")
        return etnpot.fit(train, out=out, resume=True, **self.settings).potential

    def _candidates(self, potential: Potential, number: int, file: Path) -> list[Atoms]:
        if not file.is_file():
            _write(file, list(self.explore(potential, number)))
        return _read(file)

    def _chosen(
        self, potential: Potential, train: DataSet, candidates: list[Atoms], number: int, file: Path
    ) -> tuple[list[Atoms], float]:
        from etnpot.fitting.grading import grade_all
        from etnpot.fitting.selection import new_ones, select
        from etnpot.io.structures import Labelled

        pool = new_ones([Labelled(atoms, index=k) for k, atoms in enumerate(candidates)], train)
        largest = max((one.assessment.grade for one in grade_all(potential, pool)), default=0.0)
        if not file.is_file():
            wanted = self._wanted(number, len(train))
            indices: list[int] = []
            if wanted and pool and (largest > self.threshold or self.threshold <= 0 or self.rule == "random"):
                if self.rule == "random":
                    rng = np.random.default_rng([self.seed, number])
                    indices = rng.permutation(len(pool))[:wanted].tolist()
                else:
                    indices = [c.index for c in select(potential, pool, wanted, rule=self.rule)]
            _write(file, [pool[index].atoms for index in indices])
        return _read(file), float(largest)

    def _wanted(self, number: int, n_train: int) -> int:
        """Reference calculations that an iteration may do; the last one fits to what is there and does none."""
        if number + 1 >= self.iterations:
            return 0
        left = self.batch if self.budget is None else self.budget - n_train - self._n_failed(number)
        return max(0, min(self.batch, left))

    def _label(self, chosen: Sequence[Atoms], folder: Path) -> int:
        """Compute what has not been computed; returns how many calculations failed."""
        folder.mkdir(parents=True, exist_ok=True)
        for k, atoms in enumerate(chosen):
            file = folder / f"{k:05d}.extxyz"
            failed = file.with_suffix(".failed")
            if file.is_file() or failed.is_file():
                continue
            try:
                computed = atoms if _is_labelled(atoms) else self._reference(atoms)
                if not _is_labelled(computed):
                    raise DataError("the reference gave no finite energy and forces")
            except Exception as error:  # a calculation that fails must not end the loop
                logger.warning("reference calculation %s failed: %s", file, error)
                write_bytes_atomically(failed, (f"{type(error).__name__}: {error}\n").encode())
                continue
            if "config_type" in atoms.info:
                computed.info.setdefault("config_type", atoms.info["config_type"])
            _write(file, [computed])
        return sum(1 for _ in folder.glob("*.failed"))

    def _n_failed(self, number: int) -> int:
        """Reference calculations before an iteration that failed."""
        folders = [self.path / "initial"]
        folders += [self.path / f"iteration-{k:03d}" / "labels" for k in range(number)]
        return sum(1 for folder in folders for _ in folder.glob("*.failed"))


def _is_labelled(atoms: Atoms) -> bool:
    """Whether finite energy and forces are there without any calculation."""
    results = getattr(atoms.calc, "results", {})
    return all(name in results and bool(np.isfinite(results[name]).all()) for name in ("energy", "forces"))


def _write(file: Path, frames: Sequence[Atoms]) -> None:
    """Extended XYZ, in one step."""
    from ase.io import write

    text = io.StringIO()
    if frames:
        write(text, list(frames), format="extxyz")
    write_bytes_atomically(file, text.getvalue().encode())


def _read(file: Path) -> list[Atoms]:
    from ase.io import read

    if file.stat().st_size == 0:
        return []
    frames = read(file, ":")
    return frames if isinstance(frames, list) else [frames]
