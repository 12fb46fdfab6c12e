"""A whole fit: data in, a potential and its errors out; with a directory, safe against kill and power loss.

    read, check -> hold out a validation set -> Fitter, step by step -> best potential -> errors -> report

Everything is checked before the first step. With a directory, `etnpot.fitting.checkpoint` holds the state
after every step: a fit that was stopped, by whatever, and continued with ``resume=True`` ends with the
parameters of one that was not, to the last bit on one thread.

In a distributed fit every rank calls `fit` with its own `Communicator`; rank 0 alone reads and writes the
directory and calls the callback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

import etnpot
from etnpot.errors import DataError, SpecificationError
from etnpot.fitting.checkpoint import RunDirectory
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.evaluation import predict
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.settings import FitSettings, with_overrides
from etnpot.fitting.short_range import attracting_dimers
from etnpot.fitting.split import split
from etnpot.fitting.stepwise import plain
from etnpot.io.structures import Labelled, read_structures
from etnpot.metrics import Metrics, Prediction, evaluate_errors
from etnpot.potential import Potential, Sensitivities
from etnpot.potential.build import symbols_to_numbers
from etnpot.threads import default_threads

__all__ = ["Communicator", "Data", "FitData", "FitResult", "fit", "prepare_data"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Data = DataSet | Labelled | Atoms | str | os.PathLike[str] | Sequence[Any]
Record = dict[str, Any]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Communicator:
    """The processes that fit together; by default this one alone.

    Attributes
    ----------
    rank, size : int
    reduce : callable, optional
        Sums a float64 array over all ranks in place.
    broadcast : callable, optional
        Takes rank 0's value, whatever is passed on the others, and returns it on all.
    """

    rank: int = 0
    size: int = 1
    reduce: Callable[[Floats], None] | None = None
    broadcast: Callable[[Any], Any] | None = None

    @property
    def is_root(self) -> bool:
        """Whether this rank reads, writes and speaks."""
        return self.rank == 0

    def on_root(self, work: Callable[[], Value]) -> Value:
        """The result of `work`, done by rank 0 alone, on all ranks; an exception is raised on all of them."""
        if self.broadcast is None:
            return work()
        outcome: tuple[Any, BaseException | None] = None, None
        if self.is_root:
            try:
                outcome = work(), None
            except BaseException as error:  # all ranks must leave together
                outcome = None, error
        value, raised = self.broadcast(outcome)
        if raised is not None:
            raise raised
        return value


@dataclass(frozen=True)
class FitData:
    """The sets of a fit.

    Attributes
    ----------
    train : DataSet
    valid : DataSet or None
        For early stopping and the choice of the best potential.
    test : DataSet or None
        Looked at once, after the fit.
    was_split : bool
        Whether the validation set was taken out of the training set.
    """

    train: DataSet
    valid: DataSet | None = None
    test: DataSet | None = None
    was_split: bool = False

    @property
    def sets(self) -> dict[str, DataSet]:
        """Those that are there, by name."""
        found = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part for name, part in found.items() if part is not None}


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a fit gives.

    Attributes
    ----------
    potential : Potential
        The best one (by the validation loss; by the training loss without a validation set), with its
        provenance.
    history : list of dict
        One record per step.
    metrics : dict of str to Metrics
        Errors of the potential on "train", "valid" and "test", as far as they were there.
    virial_shift : dict of str to float
        By element, eV per atom: the constant that the virials of the references have beyond the derivatives of
        their energies (see `FitSettings.stress_shift`). The stress errors in `metrics` contain it.
    reason : str
        Why the fit stopped.
    seconds : float
        Time of all steps, over all restarts.
    out : pathlib.Path or None
        The directory with everything that was written.
    data : FitData
        The sets, as they were used.
    settings : FitSettings
    predictions : dict of str to list
        Of each set: what the metrics were computed from.
    """

    potential: Potential
    history: list[Record]
    metrics: dict[str, Metrics]
    virial_shift: dict[str, float]
    reason: str
    seconds: float
    out: Path | None
    data: FitData
    settings: FitSettings
    predictions: dict[str, list[Prediction]] = field(repr=False)


def fit(
    train: Data | FitData,
    valid: Data | None = None,
    *,
    test: Data | None = None,
    species: Sequence[str | int] | None = None,
    settings: FitSettings | None = None,
    out: str | os.PathLike[str] | RunDirectory | None = None,
    resume: bool = False,
    force: bool = False,
    callback: Callable[[Record], None] | None = None,
    communicator: Communicator | None = None,
    **overrides: Any,
) -> FitResult:
    """Fit a potential to labelled configurations.

    Parameters
    ----------
    train : DataSet, Atoms or path, or a sequence of Atoms or paths
        Anything with energies and forces that ASE reads, or MLIP ``.cfg`` files. For labels under other
        names, or other options of reading, make a `DataSet` first: ``DataSet.from_files(path,
        energy_key=...)``. Or all sets at once, as `prepare_data` gives them.
    valid : as `train`, optional
        Validation set; without one, ``settings.valid_fraction`` of the training set is held out.
    test : as `train`, optional
        Evaluated once at the end; it has no influence on the fit.
    species : sequence of str or int, optional
        Elements of the potential, at least those of the training set (the default).
    settings : FitSettings, optional
    out : path or RunDirectory, optional
        Directory for potential, history, metrics, plots, report and checkpoints; without one nothing is
        written.
    resume : bool
        Continue the fit in `out`, if there is one, with the same data and settings (time limit, steps,
        patience and threads may change).
    force : bool
        Remove a fit that is in `out` and begin anew.
    callback : callable, optional
        Called with the record of every step, after its checkpoint is on the disk: whatever it raises ends the
        fit there, and nothing is lost.
    communicator : Communicator, optional
        Of a distributed fit.
    **overrides
        Single settings, which win over `settings`: see `FitSettings`.

    Returns
    -------
    FitResult

    Raises
    ------
    DataError, SpecificationError, SpeciesError, StructureError, RunDirectoryError
        Before the first step, for whatever is wrong with data, settings or directory.

    Examples
    --------
    >>> from etnpot.fitting.demo_data import emt_alloys
    >>> alloys = emt_alloys(8, symbols=("Cu", "Ni"), seed=0)
    >>> result = fit(alloys, size=300, cutoff=4.0, polish_steps=1, threads=1)
    >>> sorted(result.metrics)
    ['train', 'valid']
    """
    comm = Communicator() if communicator is None else communicator
    chosen = with_overrides(settings, overrides)
    with contextlib.ExitStack() as stack:
        run = out if isinstance(out, RunDirectory) else None
        if out is not None and not isinstance(out, RunDirectory):

            def opened() -> None:
                nonlocal run
                run = stack.enter_context(RunDirectory(out, resume=resume, force=force))

            comm.on_root(opened)
        data = (
            train if isinstance(train, FitData) else prepare_data(train, valid, test, chosen, species=species)
        )
        threads = default_threads() if chosen.threads is None else chosen.threads
        stack.enter_context(_blas_threads(threads))
        fitter = Fitter(
            data.train,
            data.valid,
            chosen,
            species=_numbers(species),
            reduce=comm.reduce,
            shard=(comm.rank, comm.size),
        )
        _begin(fitter, run, comm)
        if not fitter.finished:
            _warm_up(fitter)
        while not fitter.finished:
            record = fitter.step()
            if record["is_best"] and (run is not None or comm.size > 1):
                fitter.bounded_best()  # by all ranks together
            if run is not None:
                run.save(fitter.state(), fitter.history)
                run.log(one_line(record))
                if record["is_best"]:
                    _provisional(fitter, data).save(run.file("potential.etn"))
            if callback is not None and comm.is_root:
                callback(record)
        best = fitter.bounded_best()
        if comm.is_root and best.spec.repulsion is not None:
            for pair, (low, high) in attracting_dimers(best, fitter.distances).items():
                logger.warning(
                    "repulsion: two atoms alone, %s, attract each other between %.3f and %.3f Å, where there are no data",
                    _symbols(pair),
                    low,
                    high,
                )
        predictions = {name: predict(best, part, threads=threads) for name, part in data.sets.items()}
        metrics = {name: evaluate_errors(part, predictions[name]) for name, part in data.sets.items()}
        best = best.with_parameters(best.parameters, describe(fitter, data, metrics))
        if chosen.reliability:
            best = comm.on_root(lambda: _assessed(best, data, chosen, threads))
        result = FitResult(
            potential=best,
            history=list(fitter.history),
            metrics=metrics,
            virial_shift=fitter.virial_shift(),
            reason=fitter.reason,
            seconds=fitter.seconds,
            out=None if run is None else run.path,
            data=data,
            settings=chosen,
            predictions=predictions,
        )
        if run is not None and not run.is_finished:
            _write(result, run)
    return result


def prepare_data(
    train: Data,
    valid: Data | None,
    test: Data | None,
    settings: FitSettings,
    *,
    species: Sequence[str | int] | None = None,
) -> FitData:
    """Read and check the sets, and hold out a validation set where none is given.

    Parameters
    ----------
    train, valid, test, species
        As for `fit`.
    settings : FitSettings

    Returns
    -------
    FitData

    Raises
    ------
    DataError
        If a set is empty or has no labels, or an element is missing from the training set or from `species`.
    SpecificationError
        If the settings do not make a model for these elements.
    """
    training = as_dataset(train, "training set")
    if not training.n_energies and not training.n_forces:
        raise DataError("the training set has neither energies nor forces; a fit needs at least one of them")
    validation = None if valid is None else as_dataset(valid, "validation set")
    was_split = False
    if validation is None and settings.valid_fraction > 0:
        training, held_out = split(training, settings.valid_fraction, settings.seed)
        if len(held_out):
            validation, was_split = held_out, True
    testing = None if test is None else as_dataset(test, "test set")
    if validation is not None:
        validation.check_against(training)
    if testing is not None:
        testing.check_against(training, name="test set")
    elements = training.species
    numbers = _numbers(species)
    if numbers is not None:
        missing = [z for z in training.species if z not in numbers]
        if missing:
            raise DataError(
                f"species: the training set holds {_symbols(missing)}, which {_symbols(numbers)} lacks; add "
                f"{'them' if len(missing) > 1 else 'it'}, or leave species out"
            )
        idle = [z for z in numbers if z not in training.species]
        if idle:
            logger.warning("species: no configuration holds %s; nothing is learned of it", _symbols(idle))
        elements = numbers
    # an error here names the setting, before anything has begun
    spec = settings.spec(elements, r_min=0.5 * settings.cutoff, neighbor_scale=50.0)
    if spec.dispersion is not None:
        spec.dispersion.check(elements)
    return FitData(training, validation, testing, was_split)


def as_dataset(data: Data, name: str = "data set") -> DataSet:
    """A data set from whatever `fit` takes; `name` is for the error of an empty one."""
    items: list[Any] = [data] if isinstance(data, Atoms | Labelled | str | os.PathLike) else []
    if isinstance(data, Sequence) and not items:
        items = list(data)
    if isinstance(data, DataSet):
        dataset = data
    elif items and all(isinstance(item, Labelled) for item in items):
        dataset = DataSet(items)
    elif all(isinstance(item, Atoms | str | os.PathLike) for item in items) and isinstance(
        data, Atoms | Sequence | os.PathLike
    ):
        dataset = DataSet(read_structures([i if isinstance(i, Atoms) else Path(i) for i in items]))
    else:
        raise DataError(
            f"{name}: expected a DataSet, Atoms with results, the path of a file, or a list of these, got "
            f"{type(data).__name__}"
        )
    if not len(dataset):
        raise DataError(f"the {name} is empty; give at least one labelled configuration")
    return dataset


def one_line(record: Mapping[str, Any]) -> str:
    """The record of a step as a line for a log: errors are RMSE in meV/atom, eV/Å and GPa."""
    stage = record["stage"]
    if stage in ("sweep", "features"):
        at = f"sweep {record['sweep'] + 1}" + (f" core {record['core']}" if stage == "sweep" else " features")
    elif stage == "dynamics":
        at = f"dynamics at {record['temperature']:.0f} K ({record['falls']} falls in {record['dynamics_steps']} steps)"
    else:
        at = stage + (f" core {record['core']}" if "core" in record else "")
        at += f" ({100 * record.get('sample', 1.0):.0f}% of rows)"
    parts = [f"step {record['step']:3d}  {at}", f"{record['n_parameters']} parameters"]
    for name in ("train", "valid"):
        if name in record:
            parts.append(
                f"{name} " + " ".join(f"{q} {text}" for q, text in error_cells(record[name]).items() if text)
            )
    parts.append(f"{record['seconds']:.1f} s" + ("  best" if record.get("is_best") else ""))
    return "  ".join(parts)


def error_cells(errors: Mapping[str, float]) -> dict[str, str]:
    """RMSE of a record as text: E in meV/atom, F in eV/Å, S in GPa; empty where there is none."""
    from ase.units import GPa

    formats = (
        ("E", "energy_rmse", 1e3, ".2f"),
        ("F", "forces_rmse", 1.0, ".4f"),
        ("S", "stress_rmse", 1.0 / GPa, ".3f"),
    )
    return {
        short: format(errors[key] * factor, form) if key in errors else ""
        for short, key, factor, form in formats
    }


# ----------------------------------------------------------------------------------------------------- inside


def _begin(fitter: Fitter, run: RunDirectory | None, comm: Communicator) -> None:
    """Restore the state in the directory, or clear the directory."""
    state = comm.on_root(lambda: run.load() if run is not None and run.continues else None)
    if state is not None:
        fitter.restore(*state)
    if run is None:
        return
    run.begin()
    if state is None:
        run.log(f"etnpot {etnpot.__version__}: a new fit of {fitter.grows_to:,} parameters")
        if fitter.n_hot_alloys:
            run.log(
                "the alloys of these data are much colder than the elements: "
                f"{fitter.n_hot_alloys} cells of hot alloys follow the elements (`alloys`)"
            )
        return
    if not fitter.finished:
        run.reopen()
    run.log(f"etnpot {etnpot.__version__}: continued after step {len(fitter.history)}")


def _warm_up(fitter: Fitter) -> None:
    """Have every kernel compiled or loaded before time is counted: the first fit of an installation takes as
    many steps as later ones."""
    smallest = min(fitter.train, key=lambda labelled: labelled.n_atoms)
    started = time.monotonic()
    numbers = smallest.atoms.numbers
    edges = fitter.potential.edges(smallest.atoms)
    for potential in fitter.stages():
        potential.evaluate(edges, numbers, threads=1)
        potential.gradient(edges, numbers, np.zeros(edges.n_atoms), np.zeros((edges.n_pairs, 3)))
        Sensitivities(potential, ("core.1",)).jacobian(edges, numbers, per_atom=False)
        Sensitivities(potential).jacobian(edges, numbers, per_atom=False)
    seconds = time.monotonic() - started
    if seconds > 1.0:
        logger.info("kernels compiled or loaded in %.1f s", seconds)


@contextlib.contextmanager
def _blas_threads(threads: int) -> Any:
    """Linear algebra on as many threads as the fit."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):
        yield


def _assessed(best: Potential, data: FitData, settings: FitSettings, threads: int) -> Potential:
    """The potential with its reliability; without, where the data do not give one."""
    from etnpot.fitting.reliability import assessed

    shifted = best.species if settings.stress_shift else ()
    try:
        return assessed(best, data.train, data.valid, settings.loss_weights, shifted=shifted, threads=threads)
    except SpecificationError as error:
        logger.warning("the potential gets no extrapolation grades: %s", error)
        return best


def _provisional(fitter: Fitter, data: FitData) -> Potential:
    best = fitter.bounded_best()
    return best.with_parameters(best.parameters, describe(fitter, data, {}))


def describe(fitter: Fitter, data: FitData, metrics: Mapping[str, Metrics]) -> dict[str, Any]:
    """Provenance of the best potential: data by hash, settings, versions, errors reached, date."""
    import scipy

    return {
        "data": {
            name: {
                "sha256": part.hash,
                "configurations": len(part),
                "atoms": part.n_atoms,
                "files": sorted({Path(c.source).name for c in part if c.source}),
            }
            for name, part in data.sets.items()
        },
        "valid_was_split_off": data.was_split,
        "settings": plain(fitter.settings.to_dict()),
        "versions": {
            "etnpot": etnpot.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "python": platform.python_version(),
        },
        "errors": {name: brief_errors(part) for name, part in metrics.items()},
        "finished": fitter.finished,
        "reason": fitter.reason,
        "steps": len(fitter.history),
        "seconds": round(fitter.seconds, 3),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def brief_errors(metrics: Metrics) -> dict[str, float]:
    """MAE and RMSE of what there is: eV/atom, eV/Å, eV/Å³."""
    found = {}
    for name in ("energy", "forces", "stress"):
        statistics = getattr(metrics, name)
        if statistics.n:
            found[f"{name}_mae"], found[f"{name}_rmse"] = statistics.mae, statistics.rmse
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _write(result: FitResult, run: RunDirectory) -> None:
    """Everything that a finished fit leaves in its directory; the mark that it is complete comes last."""
    from etnpot.fitting.report import write_report

    result.potential.save(run.file("potential.etn"))
    run.write_json(
        "metrics.json",
        {
            "n_parameters": result.potential.n_parameters,
            "steps": len(result.history),
            "seconds": round(result.seconds, 3),
            "reason": result.reason,
            "version": etnpot.__version__,
            "virial_shift": result.virial_shift,
            **{name: metrics.to_json() for name, metrics in result.metrics.items()},
        },
    )
    write_report(result, run.path)
    run.log(f"finished: {result.reason}; {len(result.history)} steps in {result.seconds:.1f} s")
    run.write_json(
        "finished.json", {"reason": result.reason, "steps": len(result.history), "seconds": result.seconds}
    )


def _numbers(species: Sequence[str | int] | None) -> tuple[int, ...] | None:
    return None if species is None else symbols_to_numbers(species)


def _symbols(numbers: Sequence[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] for z in numbers)
