"""A whole fit of a tensor model: read, sweep, polish, judge.

    offsets           least squares with the train left out
    sweeps            local solves, core by core, each with the ridge of the highest evidence (`etnpot.fitting.sweeps`); after
                      each half-sweep a Gauss-Newton step of the radial and species factors
    polish            Levenberg-Marquardt over all parameters (`etnpot.fitting.polish`) until the validation error stops falling

by the solvers of potentials: a tensor is linear in every core as an energy is. What is returned is the model with the lowest
error on the validation set. A checkpoint keeps the state after every step; a fit that goes on from it ends with the same bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import etnpot
from etnpot.errors import DataError, SpecificationError
from etnpot.fitting.checkpoint import CheckpointFile
from etnpot.fitting.polish import Damping, polish_step
from etnpot.fitting.progress import FIRST_DAMPING, Counters
from etnpot.fitting.ridge import solve_ridge
from etnpot.fitting.stepwise import Stepwise, history_of, plain
from etnpot.fitting.sweeps import one_site, sweep_order
from etnpot.fitting.tensor_evaluation import TensorMetrics, metrics_table, problem_metrics
from etnpot.fitting.tensor_problem import TensorProblem
from etnpot.io.tensor_labels import TensorLabel, read_tensors
from etnpot.neighbors import neighbor_list
from etnpot.network import Train, balanced
from etnpot.potential import Quantity, TensorModel, make_tensor_model
from etnpot.potential.build import symbols_to_numbers
from etnpot.potential.tensor_spec import QUANTITIES, TensorSpec

__all__ = ["TensorFitResult", "TensorFitSettings", "fit_tensor"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TensorFitSettings:
    """Settings of the fit of a tensor model.

    Parameters
    ----------
    cutoff : float, Å
        Range of the model.
    order, l_max, radial_size, channels, ranks, species_rank, species_form, embedding, bond_l_max, head_rank
        As for `etnpot.ETN`.
    r_min : float, optional, Å
        Default: a little less than the shortest distance in the training set.
    neighbor_scale : float, optional
        Default: the mean number of neighbours in the training set.
    alpha : float
        The square of the error of a total is divided by N_atoms to this power.
    valid_fraction : float
        Part of the training set held out when no validation set is given; 0 for none.
    sweeps : int
        Half-sweeps of local solves before the polish.
    polish_steps : int
        Most Levenberg-Marquardt steps.
    patience : int
        Steps without a better validation error before the polish stops.
    tolerance : float
        Relative gain of the validation error that counts as better.
    ridge : float, optional
        Fixed ridge; from the evidence by default.
    seed : int
        Of the random start and the validation split.
    threads : int, optional
        Of the linear algebra. Default: ``ETNPOT_NUM_THREADS``, else ``OMP_NUM_THREADS``, else all processors.
    """

    cutoff: float = 5.0
    order: int = 3
    l_max: int = 3
    radial_size: int = 8
    channels: int | Sequence[int] | None = None
    ranks: Any = 4
    species_rank: int | None = None
    species_form: str | None = None
    embedding: tuple[int, int] | None = None
    bond_l_max: int | None = None
    head_rank: int | None = None
    r_min: float | None = None
    neighbor_scale: float | None = None
    alpha: float = 1.0
    valid_fraction: float = 0.1
    sweeps: int = 2
    polish_steps: int = 60
    patience: int = 8
    tolerance: float = 2e-3
    ridge: float | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("sweeps", "polish_steps", "patience", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise SpecificationError(f"{name}: expected an integer that is not negative, got {value!r}")
        for name, high in (("valid_fraction", 0.9), ("tolerance", 1.0), ("alpha", 2.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
                raise SpecificationError(f"{name}: expected a number from 0 to {high:g}, got {value!r}")
        for name in ("cutoff", "r_min", "neighbor_scale", "ridge"):
            value = getattr(self, name)
            if value is None and name != "cutoff":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise SpecificationError(f"{name}: expected a number that is not negative, got {value!r}")
        threads = self.threads
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise SpecificationError(f"threads: expected a positive integer, got {threads!r}")


#: Settings that describe the model.
_MODEL = (
    "cutoff", "order", "l_max", "radial_size", "channels", "ranks", "species_rank", "species_form", "embedding", "bond_l_max",
    "head_rank",
)  # fmt: skip


#: Settings that another run of the same fit may change.
_LIMITS = ("polish_steps", "patience", "threads")
_ALL_STEPS = "polish steps"


@dataclass(frozen=True, eq=False)
class TensorFitResult:
    """Outcome of a fit.

    Attributes
    ----------
    model : TensorModel
        The best one, with its provenance.
    history : list of dict
        One record per step: stage, loss, rmse of the training and of the validation set.
    metrics : dict of str to TensorMetrics
        "train", and "valid" and "test" where there are such sets.
    reason : str
        Why it stopped.
    seconds : float
        Of all steps, over all restarts.
    """

    model: TensorModel
    history: list[dict[str, Any]]
    metrics: dict[str, TensorMetrics]
    reason: str
    seconds: float

    def table(self) -> str:
        """Errors of every set as text."""
        return metrics_table(self.metrics)


def fit_tensor(
    train: Any,
    quantity: Quantity | str,
    valid: Any = None,
    *,
    test: Any = None,
    charges: bool = False,
    key: str | None = None,
    unit: str | None = None,
    species: Sequence[str | int] | None = None,
    index: int | slice | str = ":",
    format: str | None = None,
    settings: TensorFitSettings | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    callback: Callable[[dict[str, Any]], None] | None = None,
    **overrides: Any,
) -> TensorFitResult:
    """Fit a tensor model to dipoles, polarizabilities, charges, or any tensor of `etnpot.potential.tensor_spec`.

    Parameters
    ----------
    train : path, Atoms, or sequence of them
        Configurations with labels, read by `etnpot.io.tensor_labels.read_tensors`.
    quantity : Quantity or str
        What is fitted; "dipole", "polarizability" and "charges" have names.
    valid, test : path, Atoms, or sequence of them, optional
        A validation set; without one a part of the training set is held out. A test set, evaluated at the end.
    charges : bool
        The dipole as one of atomic charges and atomic dipoles.
    key, unit, index, format
        As for `read_tensors`.
    species : sequence of elements, optional
        Elements of the model; those of the training set by default.
    settings : TensorFitSettings, optional
    checkpoint : path, optional
        File that keeps the state after every step. It stays when the fit is complete: remove it once the model is saved.
    resume, force : bool
        Go on from the checkpoint, if there is one, with the same data and settings (steps, patience and threads may change); or
        begin anew although there is one.
    callback : callable, optional
        Sees the record of every step, after it is in the checkpoint.
    **overrides
        Single settings.

    Returns
    -------
    TensorFitResult

    Raises
    ------
    DataError, SpecificationError, RunDirectoryError
        Before anything starts.
    """
    settings = _with_overrides(settings, overrides)
    quantity = _quantity(quantity, charges)
    reading: dict[str, Any] = {
        "per_atom": quantity.per_atom,
        "key": key,
        "unit": unit,
        "index": index,
        "format": format,
    }
    sets = {
        name: read_tensors(part, quantity.name, quantity.shape, **reading)
        for name, part in (("train", train), ("valid", valid), ("test", test))
        if part is not None
    }
    if "valid" not in sets and settings.valid_fraction > 0:
        sets["train"], held_out = _held_out(sets["train"], settings.valid_fraction, settings.seed)
        if held_out:
            sets = {"train": sets["train"], "valid": held_out, **sets}
    model = _initial(sets["train"], quantity, settings, species)
    for name in ("valid", "test"):
        unknown = {z for label in sets.get(name, ()) for z in label.atoms.numbers.tolist()} - set(
            model.species
        )
        if unknown:
            raise DataError(
                f"the {name} set holds elements {sorted(unknown)} that the training set does not; remove those "
                "configurations, or add such ones to the training set"
            )
    digests = {name: _digest(labels) for name, labels in sets.items()}
    with contextlib.ExitStack() as stack:
        kept = None
        if checkpoint is not None:
            kept = stack.enter_context(CheckpointFile(checkpoint, resume=resume, force=force))
        problems = {
            name: TensorProblem(
                labels, quantity, model.cutoff, alpha=settings.alpha, threads=settings.threads
            )
            for name, labels in sets.items()
        }
        fitter = _TensorFitter(problems["train"], problems.get("valid"), model, settings, digests)
        state = None if kept is None else kept.load()
        if state is not None:
            fitter.restore(*state)
        while not fitter.finished:
            record = fitter.step()
            if kept is not None:
                kept.save(fitter.state())
            if callback is not None:
                callback(record)
    best, reason, seconds = fitter.best, fitter.reason, fitter.seconds
    metrics = {name: problem_metrics(problem, best) for name, problem in problems.items()}
    provenance = {
        "etnpot": etnpot.__version__,
        "quantity": quantity.name,
        "key": key,
        "unit_of_data": unit,
        "sets": {
            name: {"n": len(labels), "sha256": digests[name], **metrics[name].to_json()}
            for name, labels in sets.items()
        },
        "settings": plain(asdict(settings)),
        "steps": len(fitter.history),
        "reason": reason,
        "seconds": round(seconds, 3),
    }
    best = best.with_parameters(best.parameters, provenance)
    return TensorFitResult(best, fitter.history, metrics, reason, seconds)


@dataclass
class _Progress(Counters):
    """Where the fit of a tensor model is."""

    sweep_at: int = 0
    polish_at: int = 0
    stale: int = 0
    mu: float = FIRST_DAMPING
    ridge: float = 0.0
    best_error: float = float("inf")


class _TensorFitter(Stepwise):
    """The fit in progress."""

    _state_of: ClassVar[str] = "this fit"

    def __init__(
        self,
        problem: TensorProblem,
        valid: TensorProblem | None,
        model: TensorModel,
        settings: TensorFitSettings,
        digests: Mapping[str, str],
    ) -> None:
        self.problem, self.valid, self.settings = problem, valid, settings
        self._digests = {name: digest for name, digest in digests.items() if name != "test"}
        self.history: list[dict[str, Any]] = []
        self.model = self.best = self._with_offsets(model)
        #: Of a half-sweep, one solve for each core, and one step of the features if there is a polish.
        self._n_turns = model.spec.order + (settings.polish_steps > 0)
        self._progress: _Progress = _Progress(ridge=settings.ridge or 0.0)
        self._check_limits()

    # ------------------------------------------------------------------------------------------------ state

    def state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """JSON values, and arrays."""
        values = {
            "quantity": self.model.quantity.name,
            "progress": asdict(self._progress),
            "spec": self.model.spec.to_dict(),
            "best_spec": self.best.spec.to_dict(),
            "history": self.history,
            "settings": plain(asdict(self.settings)),
            "data": self._digests,
        }
        return values, {"parameters": self.model.parameters, "best_parameters": self.best.parameters}

    def _restore(self, values: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        if "quantity" not in values:
            raise ValueError("it is that of a potential")
        if values["data"] != self._digests:
            raise DataError("the checkpoint belongs to other data; restart with --force to begin anew")
        before = values["settings"]
        # half-sweeps have other steps without a polish
        others = () if (before["polish_steps"] > 0) == (self.settings.polish_steps > 0) else ("polish_steps",)
        self._check_settings(before, _LIMITS, *others)
        progress, history = _Progress.from_dict(values["progress"]), history_of(values)
        model = self._own(values["spec"], arrays["parameters"])
        best = self._own(values["best_spec"], arrays["best_parameters"])
        self._progress, self.model, self.best, self.history = progress, model, best, history
        if progress.reason == _ALL_STEPS:  # more of them may be wanted now
            progress.finished, progress.reason = False, ""
        self._check_limits()

    def _own(self, spec: Mapping[str, Any], parameters: Floats) -> TensorModel:
        """A model of a state, which differs from that of this fit in its ranks alone."""
        try:
            restored = TensorModel(TensorSpec.from_dict(spec), parameters)
        except SpecificationError as error:
            raise TypeError(str(error)) from error
        if replace(restored.spec, bonds=self.model.spec.bonds) != self.model.spec:
            raise ValueError("its model is another one than that of the settings and the data")
        if restored.spec.order != self.model.spec.order:
            raise ValueError(f"its train has {restored.spec.order} cores, of {self.model.spec.order}")
        return restored

    # ------------------------------------------------------------------------------------------------ steps

    def step(self) -> dict[str, Any]:
        """Do the next step; returns its record, which is also appended to ``history``."""
        started = time.monotonic()
        progress = self._progress
        if progress.sweep_at < self._n_local_solves:
            record = self._local_solve()
        else:
            record = self._polish()
        progress.seconds += time.monotonic() - started
        self.history.append(record)
        self._check_limits()
        return record

    @property
    def _n_local_solves(self) -> int:
        return self.settings.sweeps * self._n_turns

    def _local_solve(self) -> dict[str, Any]:
        progress, order = self._progress, self.model.spec.order
        half_sweep, at = divmod(progress.sweep_at, self._n_turns)
        progress.sweep_at += 1
        if at < order:
            core = sweep_order(order, forward=half_sweep % 2 == 1)[at]
            solved = one_site(self.problem, self.model, core, ridge=self.settings.ridge)
            self.model = solved.potential
            record = self._judged("sweep", core=core + 1, ridge=solved.solution.ridge)
        else:
            shared = self.model.spec.shared_groups
            step = polish_step(self.problem, self.model, Damping(), groups=shared, fixed_ridge=True)
            self.model = step.potential
            record = self._judged("features", damping=step.damping.mu)
        if progress.sweep_at == self._n_local_solves:
            self.model = self.model.with_train(balanced(self.model.train))
            progress.stale = 0
        return record

    def _polish(self) -> dict[str, Any]:
        progress, settings = self._progress, self.settings
        if not settings.sweeps and not progress.polish_at:
            self.model = self.model.with_train(balanced(self.model.train))
        damping = Damping(progress.mu, progress.ridge)
        found = polish_step(self.problem, self.model, damping, fixed_ridge=settings.ridge is not None)
        self.model, progress.mu, progress.ridge = found.potential, found.damping.mu, found.damping.ridge
        progress.polish_at += 1
        record = self._judged("polish", damping=progress.mu, ridge=progress.ridge)
        if found.gain <= 0:
            progress.finished, progress.reason = True, "no step lowers the loss any more"
        elif progress.stale >= settings.patience:
            progress.finished, progress.reason = True, "the validation error does not fall any more"
        return record

    def _check_limits(self) -> None:
        progress = self._progress
        if (
            not progress.finished
            and progress.sweep_at >= self._n_local_solves
            and progress.polish_at >= self.settings.polish_steps
        ):
            progress.finished, progress.reason = True, _ALL_STEPS

    def _with_offsets(self, model: TensorModel) -> TensorModel:
        """The constants by species, with a train that is zero."""
        spec = model.spec
        if spec.constants not in spec.shapes:
            return model
        empty = model.with_train(Train.from_flat(spec.layout, np.zeros_like(model.weights)))
        equations = self.problem.normal_equations(empty, (spec.constants,))
        solution = solve_ridge(equations.gram, equations.rhs, equations.loss, equations.n_rows)
        parameters = model.parameters.copy()
        parameters[spec.slices[spec.constants]] += solution.x
        return model.with_parameters(parameters)

    def _judged(self, stage: str, **values: Any) -> dict[str, Any]:
        progress = self._progress
        record: dict[str, Any] = {"step": len(self.history) + 1, "stage": stage, **values}
        record["train_rmse"] = _rmse(self.problem.errors(self.model))
        record["valid_rmse"] = None if self.valid is None else _rmse(self.valid.errors(self.model))
        error = record["train_rmse"] if self.valid is None else record["valid_rmse"]
        better = error < (1.0 - self.settings.tolerance) * progress.best_error
        progress.stale = 0 if better else progress.stale + 1
        if error < progress.best_error:
            self.best, progress.best_error = self.model, error
        return record


def _rmse(errors: Floats) -> float:
    return float(np.sqrt((errors**2).mean()))


def _initial(
    labels: Sequence[TensorLabel],
    quantity: Quantity,
    settings: TensorFitSettings,
    species: Sequence[str | int] | None,
) -> TensorModel:
    """Random features and train in the range of the data."""
    found = sorted({int(z) for label in labels for z in label.atoms.numbers})
    elements = found if species is None else list(symbols_to_numbers(species))
    missing = sorted(set(found) - set(elements))
    if missing:
        raise DataError(f"species: the training set holds elements {missing} that are not among {elements}")
    chosen = {name: getattr(settings, name) for name in _MODEL}
    n_pairs = n_atoms = 0
    shortest = 0.5 * settings.cutoff
    step = max(1, len(labels) // 200)
    for label in labels[::step]:
        edges = neighbor_list(label.atoms, settings.cutoff)
        n_pairs, n_atoms = n_pairs + edges.n_pairs, n_atoms + len(label.atoms)
        if edges.n_pairs:
            shortest = min(shortest, float(np.sqrt((edges.r_pc**2).sum(axis=1).min())))
    r_min = (
        round(min(0.95 * shortest, 0.8 * settings.cutoff), 3) if settings.r_min is None else settings.r_min
    )
    scale = settings.neighbor_scale
    return make_tensor_model(
        elements,
        quantity,
        seed=settings.seed,
        r_min=r_min,
        neighbor_scale=round(max(1.0, n_pairs / max(n_atoms, 1)), 2) if scale is None else scale,
        **chosen,
    )


def _held_out(
    labels: list[TensorLabel], fraction: float, seed: int
) -> tuple[list[TensorLabel], list[TensorLabel]]:
    """A part of the configurations, by the hash of what is in them: a copy of one never lands on the other side."""
    order = sorted(
        labels, key=lambda label: hashlib.sha256(f"{seed}:{_digest([label])}".encode()).hexdigest()
    )
    count = math.floor(fraction * len(labels))
    if count == 0 or len({_digest([label]) for label in labels}) < 2:
        return labels, []
    chosen = {_digest([label]) for label in order[:count]}
    return (
        [label for label in labels if _digest([label]) not in chosen],
        [label for label in labels if _digest([label]) in chosen],
    )


def _digest(labels: Sequence[TensorLabel]) -> str:
    """SHA-256 of structures and labels, independent of the order."""
    parts = []
    for label in labels:
        atoms = label.atoms
        content = (
            atoms.numbers.astype("<i8"),
            atoms.positions.astype("<f8"),
            atoms.cell.array.astype("<f8"),
            label.value,
        )
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in content))
        digest.update(repr((atoms.pbc.tolist(), label.charge, label.weight)).encode())
        parts.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def _quantity(quantity: Quantity | str, charges: bool) -> Quantity:
    if isinstance(quantity, str):
        if quantity not in QUANTITIES:
            raise SpecificationError(
                f"quantity: {quantity!r} has no meaning of its own; the names are {', '.join(QUANTITIES)}; give an "
                "etnpot.Quantity for another one"
            )
        quantity = QUANTITIES[quantity]
    if not isinstance(quantity, Quantity):
        raise SpecificationError(f"quantity: expected a Quantity or a name, got {type(quantity).__name__}")
    return replace(quantity, charges=True) if charges else quantity


def _with_overrides(settings: TensorFitSettings | None, overrides: Mapping[str, Any]) -> TensorFitSettings:
    known = [field.name for field in fields(TensorFitSettings)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise SpecificationError(f"unknown settings {unknown}; the settings are {', '.join(sorted(known))}")
    return replace(TensorFitSettings() if settings is None else settings, **overrides)
