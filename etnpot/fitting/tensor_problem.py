"""The fitting problem of a tensor model: chunks of configurations, residuals, normal equations.

    loss = sum_s w_s |T_s - T_s^ref|^2 / N_s^alpha        (or the sum over atoms, where each has a tensor)

in orthonormal components, so that the loss does not depend on the orientation. A row is the square root of its weight times
(reference - prediction); both are linear in what the train gives, and there are no derivatives by positions in a fit, so that
a row of the Jacobian is a sum of gradients of atoms:

    J_(s, c) = sqrt(w) sum_i sum_o w_cio d(t_io)/d theta,        w as in `etnpot.potential.tensor`, eq. (3).

Many small molecules go through the kernels together: a chunk holds as many as its rows of J leave room for.

==========  ==================================================================================
symbol      here
==========  ==================================================================================
w_cio       ``_Chunk.seed_sio``, of all atoms of a chunk
row of s    ``_Chunk.row_i``: the configuration of each atom, or the atom itself
T^ref       ``_Chunk.target_rs``, components, without the part Q x̄ of a dipole with charges
==========  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from etnpot.errors import DataError
from etnpot.fitting.normal_equations import NormalEquations
from etnpot.io.tensor_labels import TensorLabel
from etnpot.neighbors import EdgeList, check_distances, check_structure, neighbor_list
from etnpot.potential import Quantity, TensorModel
from etnpot.threads import default_threads

__all__ = ["TensorProblem"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Result = TypeVar("Result")

#: Numbers that the rows of J of a chunk may take, and the most atoms of a chunk.
_CHUNK_NUMBERS, _CHUNK_ATOMS = 4_000_000, 1024
#: Parameters that chunks are cut for.
_PARAMETERS = 2000
#: What a symmetric form leaves of a label that is not, relative to the label.
_LARGEST_REST = 1e-3


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Configurations whose atoms are numbered through."""

    edges: EdgeList
    numbers: Integers
    seed_sio: Floats
    row_i: Integers
    target_rs: Floats
    scale_r: Floats

    @property
    def n_rows(self) -> int:
        """Tensors."""
        return len(self.target_rs)


class TensorProblem:
    """Prepared configurations and what can be computed from all of them; see `etnpot.fitting.least_squares`.

    Parameters
    ----------
    labels : sequence of TensorLabel
    quantity : Quantity
    cutoff : float, Å
    alpha : float
        The square of the error of a total is divided by N_atoms to this power.
    threads : int, optional
        Each has a chunk of its own; sums are taken in the order of the chunks, whatever their number.
    """

    def __init__(
        self,
        labels: Sequence[TensorLabel],
        quantity: Quantity,
        cutoff: float,
        *,
        alpha: float = 1.0,
        threads: int | None = None,
    ) -> None:
        self.quantity = quantity
        self.threads = default_threads() if threads is None else threads
        self._chunks: list[_Chunk] = []
        waiting: list[TensorLabel] = []
        n_atoms = n_rows = 0
        most_rows = max(1, _CHUNK_NUMBERS // (_PARAMETERS * quantity.n_components))
        for label in labels:
            waiting.append(label)
            n_atoms += len(label.atoms)
            n_rows += len(label.atoms) if quantity.per_atom else 1
            if n_atoms >= _CHUNK_ATOMS or n_rows >= most_rows:
                self._chunks.append(_prepared(waiting, quantity, cutoff, alpha))
                waiting, n_atoms, n_rows = [], 0, 0
        if waiting:
            self._chunks.append(_prepared(waiting, quantity, cutoff, alpha))

    @property
    def n_rows(self) -> int:
        """Rows of the least-squares problem."""
        return sum(chunk.target_rs.size for chunk in self._chunks)

    def predictions(self, model: TensorModel) -> list[Floats]:
        """Components of every tensor, [row, s] of each chunk, without the part Q x̄."""
        _ = model.basis_tables, model.train_tables, model.radial_table  # made by one thread
        return list(self._each(lambda at: _predicted(model, self._chunks[at])))

    def _each(self, work: Callable[[int], Result]) -> Iterator[Result]:
        """Results of `work` for every chunk in order; no more of them wait than there are threads."""
        n_chunks, n_threads = len(self._chunks), min(self.threads, len(self._chunks))
        if n_threads <= 1:
            yield from map(work, range(n_chunks))
            return
        with ThreadPoolExecutor(n_threads) as pool:
            for start in range(0, n_chunks, n_threads):
                yield from pool.map(work, range(start, min(start + n_threads, n_chunks)))

    def errors(self, model: TensorModel) -> Floats:
        """Cartesian (prediction - reference) of every tensor, [row, *shape]; weights do not enter."""
        differences = [
            predicted - chunk.target_rs
            for predicted, chunk in zip(self.predictions(model), self._chunks, strict=True)
        ]
        return self.quantity.to_cartesian(np.concatenate(differences))

    def targets(self) -> Floats:
        """Cartesian references, [row, *shape], without the part Q x̄."""
        return self.quantity.to_cartesian(np.concatenate([chunk.target_rs for chunk in self._chunks]))

    def residuals(self, potential: TensorModel, /) -> list[Floats]:
        """Weighted (reference - prediction), one array per chunk."""
        return [
            (chunk.scale_r[:, None] * (chunk.target_rs - predicted)).ravel()
            for predicted, chunk in zip(self.predictions(potential), self._chunks, strict=True)
        ]

    def loss(self, potential: TensorModel, /) -> float:
        """The loss."""
        return float(sum(rows @ rows for rows in self.residuals(potential)))

    def normal_equations(
        self,
        potential: TensorModel,
        groups: tuple[str, ...] | None = None,
        /,
        *,
        rows: Sequence[Floats] | None = None,
    ) -> NormalEquations:
        """Normal equations of a Gauss-Newton step in some consecutive groups of parameters."""
        residuals = self.residuals(potential) if rows is None else rows
        total: NormalEquations | None = None
        _ = potential.prepared
        with threadpool_limits(self.threads, user_api="blas"):
            blocks = self._each(lambda at: _jacobian(potential, self._chunks[at], groups))
            for j_rq, r in zip(blocks, residuals, strict=True):
                if total is None:
                    total = NormalEquations.zeros(j_rq.shape[1])
                total += NormalEquations(j_rq.T @ j_rq, j_rq.T @ r, float(r @ r), len(r))
        if total is None:
            raise DataError("there is nothing to fit: no labelled configurations")
        return total

    def triangular_factor(self, potential: TensorModel, groups: tuple[str, ...] | None = None, /) -> Floats:
        """R [q + 1, q + 1] of a QR decomposition of [J, r], both weighted, by chunks."""
        factor: Floats | None = None
        _ = potential.prepared
        with threadpool_limits(self.threads, user_api="blas"):
            blocks = self._each(lambda at: _jacobian(potential, self._chunks[at], groups))
            for j_rq, r in zip(blocks, self.residuals(potential), strict=True):
                block = np.column_stack([j_rq, r])
                if factor is None:
                    factor = np.zeros((block.shape[1], block.shape[1]))
                factor = np.asarray(np.linalg.qr(np.vstack([factor, block]), mode="r"))
        if factor is None:
            raise DataError("there is nothing to fit: no labelled configurations")
        return factor

    def project(self, potential: TensorModel, rows: Sequence[Floats], /) -> Floats:
        """J^T times given rows, without forming J: one adjoint pass."""
        _ = potential.prepared

        def work(at: int) -> Floats:
            chunk = self._chunks[at]
            weight_rs = chunk.scale_r[:, None] * rows[at].reshape(chunk.target_rs.shape)
            seed_io = np.einsum("is,sio->io", weight_rs[chunk.row_i], chunk.seed_sio)
            none_i = np.zeros(len(chunk.row_i), dtype=np.int64)
            return potential.gradient_rows(chunk.edges, chunk.numbers, seed_io[None], none_i, 1)[0, 0]

        return np.asarray(sum(self._each(work), np.zeros(potential.n_parameters)))

    def gradient(self, potential: TensorModel, /) -> tuple[float, Floats]:
        """The loss and its gradient by all parameters."""
        rows = self.residuals(potential)
        return float(sum(r @ r for r in rows)), -2.0 * self.project(potential, rows)


def _prepared(labels: Sequence[TensorLabel], quantity: Quantity, cutoff: float, alpha: float) -> _Chunk:
    firsts, neighbors, vectors, seeds, targets, scales, rows = [], [], [], [], [], [], []
    n_atoms = n_pairs = n_rows = 0
    for label in labels:
        atoms, n = label.atoms, len(label.atoms)
        try:
            check_structure(atoms)
            edges = neighbor_list(atoms, cutoff)
            check_distances(edges)
        except ValueError as error:
            raise DataError(f"{label.name}: {error}") from error
        firsts.append(edges.first[:-1] + n_pairs)
        neighbors.append(edges.neighbor + n_atoms)
        vectors.append(edges.r_pc)
        seed_sio = np.zeros((quantity.n_components, n, quantity.bond.dimension))
        for s in range(quantity.n_components):
            seed_sio[s, :, quantity.components.start + s] = 1.0
        value = label.value
        if quantity.charges:
            if atoms.pbc.any():
                raise DataError(
                    f"{label.name} is periodic, where a dipole of charges is not defined: fit without charges"
                )
            mean = atoms.positions.mean(axis=0)
            seed_sio[:, :, 0] = quantity.to_components(atoms.positions - mean).T
            value = value - label.charge * mean
        components = quantity.to_components(value)
        rest = np.abs(quantity.to_cartesian(components) - value).max(initial=0.0)
        if rest > _LARGEST_REST * np.abs(value).max(initial=0.0):
            raise DataError(
                f"{label.name}: {quantity.name} is not {quantity.form}: {rest:.3g} of it is left out; take the form "
                f"'matrix', or correct the label"
            )
        seeds.append(seed_sio)
        targets.append(components.reshape(-1, quantity.n_components))
        count = len(targets[-1])
        weight = label.weight if quantity.per_atom else label.weight / n**alpha
        scales.append(np.full(count, np.sqrt(weight)))
        rows.append(n_rows + np.arange(n) if quantity.per_atom else np.full(n, n_rows))
        n_atoms, n_pairs, n_rows = n_atoms + n, n_pairs + edges.n_pairs, n_rows + count
    return _Chunk(
        edges=EdgeList(
            np.append(np.concatenate(firsts), n_pairs).astype(np.int64),
            np.concatenate(neighbors),
            np.concatenate(vectors),
        ),
        numbers=np.concatenate([label.atoms.numbers for label in labels]).astype(np.int64),
        seed_sio=np.ascontiguousarray(np.concatenate(seeds, axis=1)),
        row_i=np.concatenate(rows).astype(np.int64),
        target_rs=np.concatenate(targets),
        scale_r=np.concatenate(scales),
    )


def _predicted(model: TensorModel, chunk: _Chunk) -> Floats:
    component_io = model.components(chunk.edges, chunk.numbers)
    predicted_rs = np.zeros_like(chunk.target_rs)
    np.add.at(predicted_rs, chunk.row_i, np.einsum("sio,io->is", chunk.seed_sio, component_io))
    return predicted_rs


def _jacobian(model: TensorModel, chunk: _Chunk, groups: tuple[str, ...] | None) -> Floats:
    """Weighted rows of J, [(row, s), q]."""
    j_srq = model.gradient_rows(chunk.edges, chunk.numbers, chunk.seed_sio, chunk.row_i, chunk.n_rows, groups)
    j_rsq = j_srq.transpose(1, 0, 2) * chunk.scale_r[:, None, None]
    return np.ascontiguousarray(j_rsq.reshape(-1, j_srq.shape[2]))
