"""The fitting problem: prepared configurations, loss, residuals, and streamed normal equations.

    loss = sum_s [ w_E (E_s - E_s^ref)^2 / N_s^alpha  +  w_F |F_s - F_s^ref|^2  +  w_S V_s |sigma_s - sigma_s^ref|^2 ]

Every term is a sum of squared rows, (prediction - reference) times the square root of its weight. With J the derivative
of the weighted rows by the parameters and r the weighted (reference - prediction), the Gauss-Newton step solves

    (J^T J + ridge) step = J^T r,

and both sides are sums over configurations: they are streamed, by threads here and by ranks where there are several.
Rows of J are never held beyond one block. Where the smallest directions of J drown in the rounding of J^T J, which squares
its condition number, the triangular factor of a streamed QR decomposition of [J, r] takes its place (`triangular_factor`).

Stresses of plane-wave calculations lack the change of the basis with the cell (Pulay stress): next to the derivative of
the energies they are shifted, for each atom of an element by one isotropic virial. Where `shifted` elements are given,
that shift p is fitted along, by elimination: with the columns N of these unknowns, made orthonormal, every row above is
multiplied by the projector 1 - N N^T, and all sums over squares and products become those at the best p,

    r <- r - N N^T r,     J^T J <- J^T J - (J^T N)(J^T N)^T,     J^T r <- J^T r.

================  =========================================================================
symbol            here
================  =========================================================================
N_s, V_s          ``Prepared.edges.n_atoms``, ``Prepared.volume``
J^T J, J^T r      of `etnpot.fitting.normal_equations`, as are N and the loss
p                 ``virial_shift`` [element], eV per atom
================  =========================================================================
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from etnpot.basis import RadialBasis
from etnpot.fitting.coordinates import radial_factor, radial_moments
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.normal_equations import (
    PRESSURE,
    AccumulatorT,
    GramAccumulator,
    NormalEquations,
    TriangularAccumulator,
    triangle,
)
from etnpot.fitting.prepared import Batch, LossWeights, Prepared, batches
from etnpot.potential import Potential, Sensitivities
from etnpot.threads import default_threads
from etnpot.workspace import Workspace

__all__ = ["Problem"]

Floats = NDArray[np.float64]


class Problem:
    """Prepared configurations and what can be computed from all of them.

    Parameters
    ----------
    configurations : sequence of Prepared
    shifted : sequence of int
        Elements whose atoms may each add a constant isotropic virial to the reference; it is fitted along.
    threads : int, optional
        Default: see `etnpot.threads`.
    reduce : callable, optional
        Sums an array over the ranks of a distributed fit, in place. Every sum over configurations below is then one over
        all ranks.
    shard : (int, int)
        Rank and number of ranks, each of which holds every size-th configuration of the whole.
    n_data : int, optional
        The configurations after so many are constraints: they are in the loss, and in no error and no count of rows.
        Default: all are data.
    """

    def __init__(
        self,
        configurations: Sequence[Prepared],
        *,
        shifted: Sequence[int] = (),
        threads: int | None = None,
        reduce: Callable[[Floats], None] | None = None,
        shard: tuple[int, int] = (0, 1),
        n_data: int | None = None,
    ) -> None:
        self.configurations = list(configurations)
        self._n_data = len(self.configurations) if n_data is None else n_data
        self.shifted = tuple(shifted)
        self.shard = shard
        self.threads = default_threads() if threads is None else threads
        self._reduce = reduce

    @classmethod
    def from_dataset(cls, dataset: DataSet, cutoff: float, weights: LossWeights, **options: Any) -> Problem:
        """Prepare the configurations of a data set, or this rank's share of them."""
        rank, size = options.get("shard", (0, 1))
        return cls([Prepared.of(labelled, cutoff, weights) for labelled in dataset[rank::size]], **options)

    def __len__(self) -> int:
        return len(self.configurations)

    def _summed(self, array: Floats) -> Floats:
        """The array summed over all ranks."""
        if self._reduce is not None:
            self._reduce(array)
        return array

    @property
    def data(self) -> list[Prepared]:
        """The configurations that are no constraints."""
        return self.configurations[: self._n_data]

    @cached_property
    def n_rows(self) -> int:
        """Rows of the data, of all ranks."""
        return int(self._summed(np.array([float(sum(c.n_rows for c in self.data))]))[0])

    def radial_factor(self, radial: RadialBasis) -> Floats:
        """L of `etnpot.fitting.coordinates` for the data, of all ranks."""
        return radial_factor(self._summed(radial_moments(radial, (c.edges for c in self.data))))

    def subset(self, indices: Sequence[int]) -> Problem:
        """The problem of some of the data, by their ascending number in the whole, and of all constraints.

        Guesses weigh as much beside these data as beside all of them.
        """
        rank, size = self.shard
        mine = [self.configurations[i // size] for i in indices if i % size == rank]
        share = self._like(mine, len(mine)).n_rows / max(self.n_rows, 1)
        constraints = [c if c.guess is None else c.weighed(share) for c in self._constraints]
        return self._like([*mine, *constraints], len(mine))

    def _like(self, configurations: Sequence[Prepared], n_data: int) -> Problem:
        return Problem(
            configurations,
            shifted=self.shifted,
            threads=self.threads,
            reduce=self._reduce,
            shard=self.shard,
            n_data=n_data,
        )

    def probed(self, potential: Potential) -> Problem:
        """With the data marked whose forces vanish by symmetry, so that derivatives leave them out.

        `potential` is a random one, which has no other reason for a force to vanish.
        """
        data = [c.probed(potential) if c.has_forces else c for c in self.data]
        return self._like([*data, *self._constraints], self._n_data)

    def constrained(self, more: Sequence[Prepared]) -> Problem:
        """With more constraints, of which each rank takes its share."""
        rank, size = self.shard
        return self._of_same_data([*self._constraints, *more[rank::size]])

    def _of_same_data(self, constraints: Sequence[Prepared]) -> Problem:
        other = self._like([*self.data, *constraints], self._n_data)
        other._data_batches = self._data_batches  # their edges are gathered once
        return other

    def demanding(self, potential: Potential | None, forces_rmse: float = 0.0) -> Problem:
        """With the constraints as they count in the next step from a potential; with none for None.

        `forces_rmse`, eV/Å, is its error on the data; with none, guesses (`etnpot.fitting.alloys`) do not count.

        Those that the potential does not meet count as they are; where there are no data a force may be wrong by any factor,
        and what is wrong by too much is weighed down in proportion, lest the data be forgotten over it. Those that are met,
        but by less than all that is asked for, should keep what they have: a step that saw the data alone would undo what the
        step before it did for them, and so on for ever.
        """
        kept = []
        if potential is not None:
            counted = [c.counting(energy, forces) for c, energy, forces in self._met(potential)]
            counted += [c.guessed(potential, forces_rmse) for c in self._constraints if c.guess is not None]
            kept = [c for c in counted if c is not None]
        if kept == self._constraints:  # the same objects: `Prepared` compares by identity
            return self
        return self._of_same_data(kept)

    def n_failing(self, potential: Potential) -> tuple[int, int]:
        """Constraints whose forces have the wrong sign, and those whose energy is not enough."""
        here = np.zeros(2)
        for c, energy, forces in self._met(potential):
            here[int(c.floor is not None)] += c.fails(energy, forces)
        forces_fail, energies_fail = self._summed(here)
        return int(forces_fail), int(energies_fail)

    def _met(self, potential: Potential) -> Iterator[tuple[Prepared, float, Floats]]:
        """Every constraint that can be met, which guesses cannot, with the energy and the forces found."""
        found = [pair for batch in self._meetable_batches for pair in batch.predicted(potential)]
        for c, (energy, forces) in zip(self._meetable, found, strict=True):
            yield c, energy, forces

    @property
    def _constraints(self) -> list[Prepared]:
        return self.configurations[self._n_data :]

    @property
    def _meetable(self) -> list[Prepared]:
        return [c for c in self._constraints if c.guess is None]

    @cached_property
    def _meetable_batches(self) -> list[Batch]:
        guesses = len(self._meetable) < len(self._constraints)
        return batches(self._meetable) if guesses else self._constraint_batches

    def reweighted(self, potential: Potential, threshold: float) -> Problem:
        """Configurations whose weighted residual exceeds `threshold` medians, weighed down in proportion (Huber).

        The residual of a configuration is the root mean square of its rows.
        """
        rank, size = self.shard
        held_m = np.zeros(size)
        held_m[rank] = len(self)
        ends_m = np.cumsum(self._summed(held_m)).astype(int)
        residuals = self.residuals(potential)
        mine = [
            float(np.sqrt(rows @ rows / max(c.n_rows, 1)))
            for c, rows in zip(self.configurations, residuals, strict=True)
        ]
        rms = np.zeros(ends_m[-1])
        rms[ends_m[rank] - len(self) : ends_m[rank]] = mine
        limit = threshold * max(float(np.median(self._summed(rms))), 1e-300)
        weighed = [
            c if size <= limit else c.weighed(limit / size)
            for c, size in zip(self.configurations, mine, strict=True)
        ]
        return self._like(weighed, self._n_data)

    def errors(
        self, potential: Potential, virial_shift: Floats | None = None
    ) -> tuple[dict[str, float], Floats]:
        """Loss per row and root-mean-square errors, and the virial shift [element], eV per atom, at which they are.

        Errors are of energy (eV/atom), forces (eV/Å), stress (eV/Å³); without `virial_shift`, the best one is taken.
        """
        residuals = self._unshifted(potential)
        if virial_shift is None:
            virial_shift = self._best_shift(residuals)
        self._shift(residuals, virial_shift)
        sums = np.zeros(8)
        for c, rows in zip(self.data, residuals, strict=False):
            sums[0] += rows @ rows
            sums[1] += c.n_rows
            if c.energy is not None and c.scale_energy > 0:
                sums[2:4] += (rows[0] / (c.scale_energy * c.edges.n_atoms)) ** 2, 1
            if c.has_forces:
                sums[4:6] += float(rows[1:-6] @ rows[1:-6]) / float(c.scale_forces) ** 2, 3 * c.edges.n_atoms
            if c.has_virial:
                sums[6:8] += float(rows[-6:] @ rows[-6:]) / (c.scale_virial * c.volume) ** 2, 6
        sums = self._summed(sums)
        errors = {"loss": float(sums[0] / max(sums[1], 1.0))}
        for name, at in (("energy_rmse", 2), ("forces_rmse", 4), ("stress_rmse", 6)):
            if sums[at + 1] > 0:
                errors[name] = float(np.sqrt(sums[at] / sums[at + 1]))
        return errors, virial_shift

    def energy_range(self, potential: Potential) -> tuple[float, float]:
        """Lowest and highest energy of an atom of the data without its reference energy, eV, of all ranks."""
        rank, size = self.shard
        reference_z = potential.arrays["reference_energies"]
        extremes = np.zeros((2, size))
        data = self._data_batches
        found = np.empty((len(data), 2))

        def work(index: int) -> None:
            batch = data[index]
            energy_i = batch.energies(potential) - reference_z[potential.type_index(batch.numbers)]
            found[index] = energy_i.min(), energy_i.max()

        self._each(work, data)
        if len(found):
            extremes[:, rank] = found[:, 0].min(), found[:, 1].max()
        extremes = self._summed(extremes)
        return float(extremes[0].min()), float(extremes[1].max())

    def residuals(self, potential: Potential) -> list[Floats]:
        """Weighted residual rows of every configuration, at the best virial shift."""
        rows = self._unshifted(potential)
        self._shift(rows, self._best_shift(rows))
        return rows

    def _unshifted(self, potential: Potential) -> list[Floats]:
        """Weighted (reference - prediction) of every configuration."""
        rows: list[Floats] = [np.empty(0)] * len(self.configurations)

        def work(index: int) -> None:
            batch = self._batches[index]
            rows[batch.start : batch.stop] = batch.residuals(potential)

        self._each(work, self._batches)
        return rows

    @cached_property
    def _batches(self) -> list[Batch]:
        return [*self._data_batches, *self._constraint_batches]

    @cached_property
    def _constraint_batches(self) -> list[Batch]:
        return batches(self._constraints, self._n_data)

    @cached_property
    def _data_batches(self) -> list[Batch]:
        return batches(self.data)

    def _shift(self, rows: Sequence[Floats], virial_shift: Floats) -> None:
        """Take a virial shift [element] off the reference."""
        for pressure, r in zip(self._counts_cz @ virial_shift, rows, strict=True):
            r[PRESSURE] -= pressure

    def _best_shift(self, rows: Sequence[Floats]) -> Floats:
        """p, eV per atom: the shift that minimises the square of rows without one."""
        pressures = np.array([r[PRESSURE].sum() for r in rows])
        along = self._summed(pressures @ self._counts_cz)
        return np.asarray(self._shift_basis @ (self._shift_basis.T @ along))

    @cached_property
    def _counts_cz(self) -> Floats:
        """Derivatives of the rows xx, yy, zz by p, [configuration, element]: weighted numbers of atoms."""
        counts = np.zeros((len(self.configurations), len(self.shifted)))
        for row, c in zip(counts, self.configurations, strict=True):
            if c.virial is not None:
                row[:] = [c.scale_virial * np.count_nonzero(c.numbers == z) for z in self.shifted]
        return counts

    @cached_property
    def _shift_basis(self) -> Floats:
        """[element, n]: combinations of elements whose columns of rows are orthonormal; none without stresses."""
        values, vectors = np.linalg.eigh(self._summed(3.0 * self._counts_cz.T @ self._counts_cz))
        kept = values > 1e-10 * max(values.max(initial=0.0), 1e-300)
        return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))

    def loss(self, potential: Potential) -> float:
        """The loss."""
        return self.square(self.residuals(potential))

    def square(self, rows: Sequence[Floats]) -> float:
        """Sum of the squares of rows, one array per configuration."""
        return float(self._summed(np.array([sum(float(r @ r) for r in rows)], dtype=np.float64))[0])

    def normal_equations(
        self,
        potential: Potential,
        groups: tuple[str, ...] | None = None,
        *,
        rows: Sequence[Floats] | None = None,
    ) -> NormalEquations:
        """Normal equations of a Gauss-Newton step in some parameter groups (see `Sensitivities`).

        `rows` are the `residuals` of this potential, where they are known.
        """
        sensitivities = Sensitivities(potential, groups)
        partial = self._accumulated(GramAccumulator, potential, sensitivities, rows)
        n = self._shift_basis.shape[1]
        with threadpool_limits(self.threads, user_api="blas"):
            total = NormalEquations.zeros(n + sensitivities.n_parameters)
            for accumulator in partial:
                accumulator.finish()
                total += accumulator.total
            self._summed(total.gram)
            self._summed(total.rhs)
            scalars = self._summed(np.array([total.loss, float(total.n_rows)]))
            gram = total.gram[n:, n:]
            if n:
                gram = gram - total.gram[n:, :n] @ total.gram[:n, n:]
        return NormalEquations(gram, total.rhs[n:], float(scalars[0]), int(scalars[1]))

    def triangular_factor(self, potential: Potential, groups: tuple[str, ...] | None = None) -> Floats:
        """R [q + 1, q + 1] of a QR decomposition of [J, r], both weighted, by blocks of rows.

        Its condition number is that of J, where the Gram matrix has the square; it costs two to four times as much.
        """
        sensitivities = Sensitivities(potential, groups)
        n_shifts = self._shift_basis.shape[1]
        n = n_shifts + sensitivities.n_parameters + 1
        partial = self._accumulated(TriangularAccumulator, potential, sensitivities, None)
        rank, size = self.shard
        factors = np.zeros((size, n, n))
        with threadpool_limits(self.threads, user_api="blas"):
            for accumulator in partial:
                accumulator.finish()
                factors[rank] = triangle(np.vstack([factors[rank], accumulator.factor]))
            # the columns of the shift come first: what is left of R without them is that of the projected rows
            return triangle(self._summed(factors).reshape(-1, n))[n_shifts:, n_shifts:]

    def _accumulated(
        self,
        kind: type[AccumulatorT],
        potential: Potential,
        sensitivities: Sensitivities,
        rows: Sequence[Floats] | None,
    ) -> list[AccumulatorT]:
        """All rows of J and r in one accumulator for each thread."""
        residuals = self.residuals(potential) if rows is None else rows
        local = threading.local()
        partial: list[AccumulatorT] = []
        shift_rows = self._counts_cz @ self._shift_basis

        def work(index: int) -> None:
            if not hasattr(local, "accumulator"):
                local.accumulator = kind(shift_rows.shape[1] + sensitivities.n_parameters)
                local.workspace = Workspace()
                partial.append(local.accumulator)
            c = self.configurations[index]
            jacobian = sensitivities.jacobian(
                c.edges,
                c.numbers,
                per_atom=False,
                with_forces=c.has_forces and not c.at_rest,
                with_virial=c.has_virial,
                workspace=local.workspace,
            )
            local.accumulator.add(c, jacobian, residuals[index], shift_rows[index])

        with threadpool_limits(1, user_api="blas"):
            self._each(work, self.configurations)
        return partial

    def gradient(self, potential: Potential) -> tuple[float, Floats]:
        """The loss and its gradient by all parameters, at a few times the cost of the loss."""
        rows = self.residuals(potential)
        return self.square(rows), -2.0 * self.project(potential, rows)

    def project(self, potential: Potential, rows: Sequence[Floats]) -> Floats:
        """J^T times given rows, one array per configuration, without forming J."""
        n = potential.n_parameters
        local = threading.local()
        partial: list[Floats] = []

        def work(index: int) -> None:
            if not hasattr(local, "total"):
                local.total = np.zeros(n)
                partial.append(local.total)
            batch = self._batches[index]
            local.total += batch.project(potential, rows[batch.start : batch.stop])

        self._each(work, self._batches)
        total = np.sum(partial, axis=0) if partial else np.zeros(n)
        return self._summed(np.asarray(total))

    def _each(self, work: Callable[[int], None], items: Sequence[Prepared | Batch]) -> None:
        """Run `work` over the indices of all items, one range of about equal cost per thread, in a fixed assignment."""
        n_threads = min(self.threads, len(items))
        if n_threads <= 1:
            for index in range(len(items)):
                work(index)
            return
        costs = np.cumsum([item.cost for item in items])
        cuts = np.searchsorted(costs, costs[-1] * np.arange(1, n_threads) / n_threads)
        ranges = np.split(np.arange(len(items)), cuts)
        stop = threading.Event()

        def run(indices: NDArray[np.int64]) -> None:
            for index in indices:
                if stop.is_set():
                    return
                work(int(index))

        with ThreadPoolExecutor(n_threads) as pool:
            futures = [pool.submit(run, indices) for indices in ranges]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                stop.set()
                raise
