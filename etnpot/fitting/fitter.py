"""The fit as a sequence of steps, each of which can be the last or the one after a restart.

    start             reference energies by least squares; random features and a random train of order 2
    sweeps            local solves, core by core (`etnpot.fitting.sweeps`); after each half-sweep a Gauss-Newton step of the
                      radial and species factors, which all cores share
    growth            a few steps of the polish, each followed by one of each core and one of the features where the data
                      determine them, one core more, and again, up to the order that was asked for
    layers            if there are any, appended to the grown local model once its polish slows down; at first they change
                      nothing
    polish            Levenberg-Marquardt or L-BFGS over everything (`etnpot.fitting.polish`), on a growing sample of the
                      training set, until the validation loss stops falling; but for the smallest models, each step of all
                      parameters is followed by one of each core and one of the features, which lower the same penalised loss,
                      and again by these as long as they gain more than it did
    dynamics          of molecules, between the steps of the polish: what they fall into becomes constraints of the next ones
                      (`etnpot.fitting.dynamics`)

`Fitter.step` does one of them and returns a record; everything the next step depends on is in `Fitter.state`, so that a
fit that is stopped and restored ends with the same numbers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from etnpot.basis import Repulsion
from etnpot.dispersion import Dispersion
from etnpot.errors import DataError, SpecificationError
from etnpot.fitting.alloys import hot_alloys
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.dynamics import Dynamics
from etnpot.fitting.evaluation import without_dispersion
from etnpot.fitting.moves import Moves
from etnpot.fitting.parallel import Ranks
from etnpot.fitting.polish import Damping, PolishStep, lbfgs_steps, polish_step
from etnpot.fitting.prepared import Prepared
from etnpot.fitting.problem import Problem
from etnpot.fitting.progress import FIRST_DAMPING, Progress
from etnpot.fitting.samples import SAMPLE_LEVELS, Samples
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.short_range import repulsive_radii, short_range_constraints
from etnpot.fitting.start import initial_potential, initial_spec, lengthened, shortened
from etnpot.fitting.stepwise import Stepwise, history_of
from etnpot.fitting.sweeps import one_site, sweep_order, two_site
from etnpot.network import Train, balanced
from etnpot.potential import Potential, PotentialSpec
from etnpot.potential.build import add_layers, random_potential
from etnpot.potential.layers import Layer

__all__ = ["Fitter"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Reduce = Callable[[Floats], None]

#: Steps without a gain of this much before the sample grows.
_SAMPLE_GAIN, _SAMPLE_PATIENCE = 0.02, 1
#: Order of the first train, and the most steps of each order but the last; one that lowers the loss by less than this part
#: of it is the last of its order.
_FIRST_ORDER, _GROWTH_STEPS, _GROWTH_GAIN = 2, 4, 0.05
#: mu of the first step with a new core.
_GROWTH_DAMPING = 1e-5
#: Damping of the steps of one core, in which the model is linear.
_LINEAR_DAMPING = 1e-10
#: Parameters from which on the polish has steps of single cores as well: below, all of them cost little more than one core.
_PARTS_FROM = 1000
#: Where a round of steps of single cores gains less than this part of what the step of all parameters before it gained, at
#: about the same cost, rounds are left out this many times; where it gains more, at most so many others follow it.
_LEAST_PARTS_GAIN, _SKIPPED_PARTS, _REPEATED_PARTS = 0.5, 3, 3
#: Rows of the training set for each parameter from which on a train that still grows has steps of single cores: with fewer, to
#: fit the short trains closely is to fit them to chance.
_GROWING_PARTS_ROWS = 4
#: Most steps of the polish before layers are appended; one that gains less than this part of the loss is the last.
_LOCAL_STEPS, _LOCAL_GAIN = 6, 0.05
#: By which factor the loss of a potential may be larger of which no dimer and no embedded pair attracts, and by which part for
#: each fall that it does not have.
_REPULSIVE, _FALL = 1.5, 0.02
#: Dynamics begins after a step of all parameters, on all data, that gains less than this part of the loss: what a young
#: potential falls into is of no use to an old one, and costs it accuracy.
_MATURE = 0.03
#: Iterations of L-BFGS in one step of the polish.
_LBFGS_ITERATIONS = 20
#: Bounds of the learned energy: parts of its range in the training set, and eV at least, below and above it.
_BELOW, _LEAST_BELOW, _ABOVE, _LEAST_ABOVE = 0.15, 0.5, 2.0, 10.0


class Fitter(Stepwise):
    """A fit in progress.

    Parameters
    ----------
    train : DataSet
        Training set.
    valid : DataSet or None
        Validation set; without one the training loss decides what is best.
    settings : FitSettings
    species : sequence of int, optional
        Elements of the model; those of the training set by default.
    start : Potential, optional
        Begin from this potential instead of a random one (its specification wins).
    reduce : callable, optional
        Sums an array over the ranks of a distributed fit, in place; every rank is given the same data sets.
    shard : (int, int)
        Rank and number of ranks.
    """

    def __init__(
        self,
        train: DataSet,
        valid: DataSet | None,
        settings: FitSettings,
        *,
        species: tuple[int, ...] | None = None,
        start: Potential | None = None,
        reduce: Reduce | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        if len(train) == 0:
            raise DataError("the training set is empty; give at least one labelled configuration")
        self.settings = settings
        self.train, self.valid = train, valid
        if valid is not None:
            valid.check_against(train)
        self._ranks = Ranks(reduce, *shard)
        #: What the local potential is fitted to.
        local, local_valid = train, valid
        if settings.dispersion is not None:
            dispersion = Dispersion.from_dict(settings.dispersion)
            local = without_dispersion(train, dispersion)
            local_valid = None if valid is None else without_dispersion(valid, dispersion)
        #: Layers that are appended to the local model once it has grown.
        self._layers: tuple[Layer, ...] = ()
        if start is None:
            spec = initial_spec(local, settings, species)
            self.potential, self._layers = initial_potential(local, settings, spec), spec.layers
        else:
            self.potential = start.with_energy_bounds(None)  # those of other data, as are the radii
            if start.spec.repulsion is not None:
                usual = Repulsion.for_species(start.species, start.cutoff, local.min_distances())
                self.potential = self.potential.with_repulsion(usual)
        #: Shortest distances of the training set, Å.
        self.distances = local.min_distances()
        #: What the train grows to, and the parameters of the local model then.
        self._target, self._target_size = self.potential.spec.layout, self.potential.n_parameters
        if start is None and settings.growth and not settings.two_site:
            rng = np.random.default_rng([settings.seed, 3])
            layout = shortened(self._target, min(_FIRST_ORDER, self._target.order))
            self.potential = self.potential.with_train(Train.random(layout, rng))
        #: A half-sweep is one solve for each core and one step of the features.
        self._n_local_solves = settings.sweeps * (self.potential.spec.order + 1)
        weights, cutoff = settings.loss_weights, self.potential.cutoff
        options: dict[str, Any] = {"threads": settings.threads, "reduce": reduce, "shard": shard}
        if settings.stress_shift:
            options["shifted"] = self.potential.spec.species
        where = self.potential.species, cutoff, self.distances, local, weights
        constraints: list[Prepared] = []
        if settings.repulsion != "none" and self.potential.spec.repulsion is not None:
            constraints += short_range_constraints(*where)
        cells = hot_alloys(*where) if settings.alloys == "auto" else []
        #: Cells of alloys that are in no data, of all ranks.
        self.n_hot_alloys = len(cells)
        probe = random_potential(
            replace(self.potential.spec, layers=()), np.random.default_rng([settings.seed, 6])
        )
        problem = Problem.from_dataset(local, cutoff, weights, **options)
        problem = problem.probed(probe).constrained([*constraints, *cells])
        self._valid_problem = (
            None if not local_valid else Problem.from_dataset(local_valid, cutoff, weights, **options)
        )
        #: Of the coordinates in which steps are damped and penalised, if these are not the parameters.
        self._lower_nn = problem.radial_factor(self.potential.spec.radial) if settings.orthogonal else None
        dynamics = None
        if settings.dynamics == "auto" and Dynamics.applies(local):
            dynamics = Dynamics(
                local, cutoff, settings.seed, settings.threads, forces_weight=settings.forces_weight
            )
        self._moves = Moves(dynamics, problem, self._ranks)
        self._samples = Samples(problem, train, settings.seed)
        self._progress: Progress = Progress(ridge=settings.ridge or 0.0)
        self.best = self.potential
        self._bounded: tuple[Potential, Potential] | None = None
        self.history: list[dict[str, Any]] = []

    # ------------------------------------------------------------------------------------------------ state

    def state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Everything the next step depends on: JSON values, and arrays."""
        values = {
            "progress": asdict(self._progress),
            "spec": self.potential.spec.to_dict(),
            "best_spec": self.best.spec.to_dict(),
            "history": self.history,
            "settings": self.settings.to_dict(),
            "train_hash": self.train.hash,
            "valid_hash": None if self.valid is None else self.valid.hash,
        }
        arrays = {"parameters": self.potential.parameters, "best_parameters": self.best.parameters}
        found, places = self._moves.state()
        return {**values, **found}, {**arrays, **places}

    def _restore(self, values: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        if values["train_hash"] != self.train.hash:
            raise DataError(
                "the checkpoint belongs to another training set; restart with --force to begin anew"
            )
        if values["valid_hash"] != (None if self.valid is None else self.valid.hash):
            raise DataError(
                "the checkpoint belongs to another validation set; restart with --force to begin anew"
            )
        limits = {"time_limit", "polish_steps", "threads", "patience"}
        self._check_settings(values["settings"], limits)
        progress, history = Progress.from_dict(values["progress"]), history_of(values)
        if len(progress.sample_sizes) not in (0, SAMPLE_LEVELS) or not all(progress.sample_sizes):
            raise ValueError(f"the samples have the sizes {progress.sample_sizes}")
        potential = self._own(values["spec"], arrays["parameters"])
        best = self._own(values["best_spec"], arrays["best_parameters"])
        if progress.cycle_at > potential.spec.order + 1:
            raise ValueError(f"a round of {potential.spec.order} cores has no step {progress.cycle_at}")
        self._moves.take(self._moves.falls_of(values, arrays))
        self._samples = Samples(self._problem, self.train, self.settings.seed)
        self._progress, self.potential, self.best, self.history = progress, potential, best, history
        # a run that had ended only because of its limits goes on when they are wider now
        if self._progress.reason in ("time limit", "polish steps"):
            self._progress.finished, self._progress.reason = False, ""
        self._check_limits()

    def _own(self, spec: Mapping[str, Any], parameters: Floats) -> Potential:
        """A potential of a state, which differs from that of this fit in its train alone."""
        try:
            restored = Potential(PotentialSpec.from_dict(spec), parameters)
        except SpecificationError as error:
            raise TypeError(str(error)) from error
        now = self.potential.spec
        if restored.spec.layers not in ((), self._layers, now.layers):
            raise ValueError("its layers are other ones than those of the settings")
        if replace(restored.spec, bonds=now.bonds, layers=now.layers) != now:
            raise ValueError("its model is another one than that of the settings and the data")
        if not 1 <= restored.spec.order <= self._target.order:
            raise ValueError(f"its train has {restored.spec.order} cores, of {self._target.order}")
        return restored

    # ------------------------------------------------------------------------------------------------ steps

    def step(self) -> dict[str, Any]:
        """Do the next step; returns its record, which is also appended to ``history``."""
        started = time.monotonic()
        if self._progress.sweep_at < self._n_local_solves:
            record = self._local_solve()
        elif self._progress.cycle_at <= 1 and self._moves.due(self._progress):  # not in the middle of a round
            record = self._move()
        elif self._progress.cycle_at > 0:
            record = self._polish_part()
        else:
            record = self._polish()
        self._progress.step += 1
        self._progress.seconds += self._agreed(time.monotonic() - started)
        size = {"n_parameters": self.potential.n_parameters, "grows_to": self.grows_to}
        record = {"step": self._progress.step, **record, **size}
        record["seconds"] = round(self._progress.seconds, 3)
        self.history.append(record)
        self._check_limits()
        return record

    def run(self, callback: Callable[[dict[str, Any]], None] | None = None) -> Potential:
        """All remaining steps; `callback` sees every record. Returns the best potential."""
        while not self.finished:
            record = self.step()
            if callback is not None:
                callback(record)
        return self.best

    def _agreed(self, seconds: float) -> float:
        """The mean over the ranks, which must all see the same clock; their parameters are those of the first rank."""
        ranks = self._ranks
        if ranks.reduce is None:
            return seconds
        message = np.zeros(self.potential.n_parameters + 1)
        message[0] = seconds / ranks.size
        if ranks.is_first:
            message[1:] = self.potential.parameters
        ranks.reduce(message)
        was_best = self.best is self.potential
        self.potential = self.potential.with_parameters(message[1:])
        if was_best:
            self.best = self.potential
        return float(message[0])

    def virial_shift(self) -> dict[str, float]:
        """By element, the constant virial (eV per atom) that the reference stresses of the training set have beyond the
        best potential; empty when none was fitted or there are no stresses."""
        if not any(labelled.stress is not None for labelled in self.train):
            return {}
        _, shift = self._problem.errors(self.best)
        return {chemical_symbols[z]: float(p) for z, p in zip(self._problem.shifted, shift, strict=True)}

    def bounded_best(self) -> Potential:
        """The best potential, its learned energies held in the neighbourhood of those of the training set, with the radii
        of the repulsion that go with them (`etnpot.fitting.short_range`).

        The bounds lie below the lowest energy of an atom by 0.15 of the range, at least 0.5 eV, and above the highest by
        twice the range, at least 10 eV.
        """
        if self.settings.repulsion == "none":
            return self.best
        if self._bounded is None or self._bounded[0] is not self.best:
            low, high = self._problem.energy_range(self.best)
            span = high - low
            bounds = (
                low - max(_BELOW * span, _LEAST_BELOW),
                high + max(_ABOVE * span, _LEAST_ABOVE),
            )
            bounded = self.best.with_energy_bounds(bounds)
            if bounded.spec.repulsion is not None:
                bounded = bounded.with_repulsion(self._agreed_radii(bounded))
            self._bounded = self.best, bounded
        return self._bounded[1]

    def _agreed_radii(self, bounded: Potential) -> Repulsion:
        """Those that the first rank finds: where a force is all but zero, machines may differ."""
        n = bounded.spec.n_species
        radii = np.zeros((2, n, n))
        if self._ranks.is_first:
            found = repulsive_radii(bounded, self.distances)
            radii[:] = found.inner, found.outer
        inner, outer = (tuple(map(tuple, table)) for table in self._ranks.of_first(radii).tolist())
        return Repulsion(inner, outer)

    @property
    def grows_to(self) -> int:
        """Parameters of the model once its train has grown."""
        return self.potential.n_parameters if self._grown else self._target_size

    @property
    def _grown(self) -> bool:
        return self.potential.spec.order >= self._target.order

    def _local_solve(self) -> dict[str, Any]:
        settings, progress = self.settings, self._progress
        order = self.potential.spec.order
        half_sweep, at = divmod(progress.sweep_at, order + 1)
        if at == order:
            return self._feature_step(half_sweep)
        forward = half_sweep % 2 == 1
        core = sweep_order(order, forward=forward)[at]
        rng = np.random.default_rng([settings.seed, 1, progress.sweep_at])
        problem = self._working_problem().demanding(None)
        if settings.two_site:
            solved = two_site(
                problem, self.potential, core, ridge=settings.ridge, tolerance=settings.rank_tolerance,
                center="right" if forward else "left",
            )  # fmt: skip
        else:
            solved = one_site(
                problem, self.potential, core, ridge=settings.ridge, enrichment=settings.enrichment,
                tolerance=settings.rank_tolerance, rng=rng,
            )  # fmt: skip
        self.potential = solved.potential
        progress.sweep_at += 1
        record = {
            "stage": "sweep",
            "sweep": half_sweep,
            "core": core + 1,
            "ridge": solved.solution.ridge,
            "effective": solved.solution.effective,
            "truncation": solved.truncation,
        }
        return {**record, **self._judge()}

    def _feature_step(self, half_sweep: int) -> dict[str, Any]:
        """Gauss-Newton on the radial and species factors with all cores fixed, damped where it must be."""
        progress, problem = self._progress, self._working_problem().demanding(None)
        step = self._stepped(problem, Damping(), self.potential.spec.shared_groups)
        progress.sweep_at += 1
        if progress.sweep_at == self._n_local_solves:
            self.potential = self.potential.with_train(balanced(self.potential.train))
            progress.sample_sizes = []  # the number of parameters may have changed
        return {"stage": "features", "sweep": half_sweep, "damping": step.damping.mu, **self._judge()}

    def _polish(self) -> dict[str, Any]:
        settings, progress = self.settings, self._progress
        if self._layers_are_due():
            return self._append_layers()
        problem = self._polish_problem()
        with_layers = bool(self.potential.spec.layers)
        if settings.method == "l-bfgs":
            before = self.potential
            self.potential, loss = lbfgs_steps(
                problem,
                self.potential,
                ridge=progress.ridge,
                steps=_LBFGS_ITERATIONS,
                lower_nn=self._lower_nn,
            )
            moved = not np.array_equal(before.parameters, self.potential.parameters)
            gain, effective = float("inf") if moved else 0.0, float(self.potential.n_parameters)
        else:
            step = self._stepped(problem, Damping(progress.mu, progress.ridge))
            gain, loss, effective = step.gain, step.loss, step.effective
            progress.mu, progress.ridge = step.damping.mu, step.damping.ridge
        record: dict[str, Any] = {
            "stage": "polish" if self._grown else "growth",
            "order": self.potential.spec.order,
            "damping": progress.mu,
            "ridge": progress.ridge,
            "effective": effective,
            "sample": problem.n_rows / max(self._problem.n_rows, 1),
            "loss": loss,
        }
        record.update(self._judge())
        if self._grown:
            progress.polish_at += 1
            if not self._on_sample and not self._layers_wait:
                progress.mature |= gain < _MATURE * loss or settings.method == "l-bfgs"
            self._moves.owe(progress, self.potential.n_parameters)
            if (self._has_parts or with_layers) and gain > 0:
                if progress.skipped > 0:
                    progress.skipped -= 1
                else:
                    progress.step_gain, progress.repeated = gain, 0
                    self._begin_round()
            progress.slow = gain < _LOCAL_GAIN * loss
            self._advance(gain, record)
        else:
            progress.growth_at += 1
            progress.due = progress.growth_at >= _GROWTH_STEPS or gain < _GROWTH_GAIN * loss
            determined = self._problem.n_rows >= _GROWING_PARTS_ROWS * self.potential.n_parameters
            if self._has_parts and determined and gain > 0:
                self._begin_round()
            elif progress.due:
                self._grow()
        return record

    @property
    def _has_parts(self) -> bool:
        """Whether steps of single cores pay."""
        return self.potential.n_parameters >= _PARTS_FROM and self.settings.method != "l-bfgs"

    def _begin_round(self) -> None:
        """Steps of each core and of the features come next."""
        self._progress.cycle_at, self._progress.parts_gain = 1, 0.0

    def _grow(self) -> None:
        """One core more."""
        progress, order = self._progress, self.potential.spec.order
        rng = np.random.default_rng([self.settings.seed, 4, order])
        longer = lengthened(self.potential.train, shortened(self._target, order + 1), rng)
        self.potential = self.potential.with_train(balanced(longer))
        progress.growth_at, progress.stale, progress.sample_sizes, progress.due = 0, 0, [], False
        progress.mu = max(progress.mu, _GROWTH_DAMPING)

    def _stepped(
        self, problem: Problem, damping: Damping, groups: tuple[str, ...] | None = None
    ) -> PolishStep[Potential]:
        """Take a step of some groups of parameters, or of all: only then the ridge follows the evidence."""
        fixed = groups is not None or self.settings.ridge is not None
        step = polish_step(
            problem, self.potential, damping, groups=groups, fixed_ridge=fixed, lower_nn=self._lower_nn
        )
        self.potential = step.potential
        return step

    def stages(self) -> list[Potential]:
        """Potentials of the forms that are still to come: this one, and one with its layers where these are not yet there."""
        return [self.potential, self._with_layers()] if self._layers_wait else [self.potential]

    def _with_layers(self) -> Potential:
        return add_layers(self.potential, self._layers, np.random.default_rng([self.settings.seed, 5]))

    def _layers_are_due(self) -> bool:
        progress, most = self._progress, min(_LOCAL_STEPS, self.settings.polish_steps // 2)
        return self._layers_wait and self._grown and (progress.polish_at >= most or progress.slow)

    @property
    def _layers_wait(self) -> bool:
        """Whether there are layers that are not yet appended."""
        return bool(self._layers) and not self.potential.spec.layers

    def _append_layers(self) -> dict[str, Any]:
        """The layers that were asked for, random, with weights zero behind them."""
        self.potential = self._with_layers()
        progress = self._progress
        progress.stale, progress.level_stale, progress.sample_sizes = 0, 0, []
        progress.step_gain, progress.skipped, progress.repeated = 0.0, 0, _REPEATED_PARTS
        self._begin_round()
        return {"stage": "layers", "order": self.potential.spec.order, **self._judge()}

    def _polish_part(self) -> dict[str, Any]:
        """A step of one core, or of the features once all cores have had theirs."""
        progress, order = self._progress, self.potential.spec.order
        problem = self._polish_problem()
        record: dict[str, Any] = {"stage": "polish" if self._grown else "growth", "order": order}
        is_core = progress.cycle_at <= order
        damping, groups = Damping(progress.feature_mu, progress.ridge), self.potential.spec.shared_groups
        if is_core:
            rounds = progress.polish_at + progress.growth_at + progress.repeated
            core = sweep_order(order, forward=rounds % 2 == 0)[progress.cycle_at - 1] + 1
            damping, groups = Damping(_LINEAR_DAMPING, progress.ridge), (f"core.{core}",)
            record["core"] = core
        step = self._stepped(problem, damping, groups)
        if not is_core:
            progress.feature_mu = min(step.damping.mu, FIRST_DAMPING)
        # those of the features cost as much as one of all parameters where there are layers
        last = order if self.potential.spec.layers else order + 1
        progress.cycle_at = (progress.cycle_at + 1) % (last + 1)
        progress.parts_gain += step.gain
        record.update(sample=problem.n_rows / max(self._problem.n_rows, 1), loss=step.loss)
        record.update(self._judge(counts=False))
        if self._grown and self._on_sample:
            self._leave_sample(record["selection_loss"])
        if progress.cycle_at == 0:
            self._end_round()
        return record

    def _end_round(self) -> None:
        """What comes after the steps of single cores: another round, a step of all parameters, or a longer train."""
        progress = self._progress
        self._moves.owe(progress, self.potential.n_parameters)
        if not self._grown:
            if progress.due:
                self._grow()
        elif progress.parts_gain < _LEAST_PARTS_GAIN * progress.step_gain:
            progress.skipped = _SKIPPED_PARTS
        elif progress.parts_gain > progress.step_gain and progress.repeated < _REPEATED_PARTS:
            progress.repeated += 1
            self._begin_round()

    def _move(self) -> dict[str, Any]:
        """Dynamics with the present potential; what molecules fall into are constraints from here on."""
        moved = self._moves.run(self._progress, self.potential)
        if moved["falls"]:
            self._samples = Samples(self._problem, self.train, self.settings.seed)
            self._progress.best_penalty = self._penalty(self.best)
        record = {"stage": "dynamics", "order": self.potential.spec.order, **moved}
        return {**record, **self._judge(counts=False)}

    @property
    def _problem(self) -> Problem:
        """The training set and all constraints."""
        return self._moves.problem

    def _polish_problem(self) -> Problem:
        """The working problem with the constraints that are not met, once the train has grown, and with robust weights."""
        problem = self._working_problem().demanding(
            self.potential if self._grown else None, self._progress.forces_rmse
        )
        if self.settings.robust is not None:
            problem = problem.reweighted(self.potential, self.settings.robust)
        return problem

    def _advance(self, gain: float, record: Mapping[str, Any]) -> None:
        """Whether more of the training set is used from here on, or the fit is done."""
        progress, settings = self._progress, self.settings
        if self._on_sample:
            self._leave_sample(record["selection_loss"], stuck=gain <= 0)
        elif self._layers_wait and (gain <= 0 or progress.stale >= settings.patience):
            progress.slow = True
        elif gain <= 0:
            progress.finished, progress.reason = True, "converged: no step lowers the loss"
        elif progress.stale >= settings.patience:
            progress.finished, progress.reason = True, "the validation loss stopped falling"

    @property
    def _on_sample(self) -> bool:
        return self._sample_size < len(self.train)

    def _leave_sample(self, loss: float, *, stuck: bool = False) -> None:
        """More data from here on, if steps no longer lower the validation loss: they fit the sample."""
        progress = self._progress
        if loss < progress.level_loss * (1.0 - _SAMPLE_GAIN):
            progress.level_loss, progress.level_stale = loss, 0
        else:
            progress.level_stale += 1
        if stuck or progress.level_stale > _SAMPLE_PATIENCE:
            progress.level += 1
            progress.level_stale, progress.stale, progress.mu = 0, 0, min(progress.mu, 1e-2)
            progress.slow = True

    def _judge(self, *, counts: bool = True) -> dict[str, Any]:
        """Errors on the training and validation sets; keeps the best potential. A step without a gain `counts` towards the
        patience."""
        progress = self._progress
        judged, shift = self._working_problem().errors(self.potential)
        result: dict[str, Any] = {"train": judged}
        progress.forces_rmse = judged.get("forces_rmse", 0.0)
        if self._valid_problem is not None:
            judged, _ = self._valid_problem.errors(self.potential, shift)
            result["valid"] = judged
        loss = judged["loss"]
        result["selection_loss"] = loss
        if loss < progress.best_loss * (1.0 - self.settings.tolerance):
            progress.stale = 0
        elif counts:
            progress.stale += 1
        penalty = self._penalty(self.potential)
        if loss * penalty < progress.best_loss * progress.best_penalty:
            progress.best_loss, progress.best_penalty, self.best = loss, penalty, self.potential
        result["is_best"] = self.best is self.potential
        return result

    def _penalty(self, potential: Potential) -> float:
        """By which factor the loss of a potential may be larger that fails no constraint."""
        attracting, falls = self._problem.n_failing(potential)
        return (_REPULSIVE if attracting else 1.0) * (1.0 + _FALL * falls)

    def _check_limits(self) -> None:
        progress, settings = self._progress, self.settings
        if progress.finished:
            return
        if settings.time_limit is not None and progress.seconds >= settings.time_limit:
            progress.finished, progress.reason = True, "time limit"
        elif progress.sweep_at >= self._n_local_solves and progress.polish_at >= settings.polish_steps:
            progress.finished, progress.reason = True, "polish steps"
        if progress.finished and self._layers_wait:
            logger.warning(
                "the fit ended before its layers were appended: the potential is local; give it more time"
            )

    def _working_problem(self) -> Problem:
        """What the loss is taken over: the training set, or at first a part of it."""
        return self._samples.problem(self._sample_size)

    @property
    def _sample_size(self) -> int:
        """Configurations of the present sample. Decided once and kept in the state: a restored fit must see the same parts."""
        progress = self._progress
        if not progress.sample_sizes:
            progress.sample_sizes = self._samples.sizes(self.potential.n_parameters)
        return progress.sample_sizes[progress.level] if progress.level < SAMPLE_LEVELS else len(self.train)
