"""Floating-point operations and bytes of an evaluation and of the parameter Jacobian, derived from a specification.

A multiply-add counts as two operations. Those of the train are counted in the order in which its kernels contract each path,
eq. (2) of `etnpot.kernels.train`, with s the spectator of the path, p and q the other two roles, n copies of each, z non-zero
coupling coefficients, and each product C z_p formed once:

    spread     2 (2 l_s + 1) n_s n_p n_q
    contract   n z + 2 n n' z                              from the role of n copies to the one of n'
    couple     n_p z + 2 n_p n_q z + 2 (2 l_s + 1) n_s n_p n_q

Those of the pairs are counted as docs/theory.md writes them; a kernel that reaches the same numbers with fewer operations shows
as a higher rate.

Bytes are those that must pass between memory and processor: every array of a length that grows with the number of atoms, once
for each time that a stage reads or writes it. What fits the cache (weights, tables, the states of a block) is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from etnpot.kernels.train import COMPONENTS, COUPLING, COUPLING_END, SPECTATOR, V, X, Y
from etnpot.potential import PotentialSpec
from etnpot.potential.tables import TrainTables, train_tables

__all__ = ["Count", "evaluation_counts", "gram_operations", "jacobian_operations", "train_operations"]


@dataclass(frozen=True)
class Count:
    """Operations and bytes of a stage, per atom."""

    operations: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / self.bytes


def train_operations(tables: TrainTables) -> tuple[int, int]:
    """Operations per atom of the forward and of the adjoint pass."""
    forward = adjoint = 0
    for path in tables.path.tolist():
        z = path[COUPLING_END] - path[COUPLING]
        s = path[SPECTATOR]
        n = [path[2 * role + 1] for role in (X, V, Y)]
        p, q = (s + 1) % 3, (s + 2) % 3
        spread = 2 * path[COMPONENTS + s] * n[s] * n[p] * n[q]
        couple = n[p] * z + 2 * n[p] * n[q] * z + spread
        for role in (X, V, Y):
            other = X + V + Y - role - s
            step = couple if role == s else n[other] * z + 2 * n[other] * n[role] * z
            if role == Y:
                forward += step if s == Y else spread + step
            else:
                adjoint += step
        adjoint += spread
    return forward, adjoint


def _radial_operations(spec: PotentialSpec) -> int:
    """Per pair: radial functions with derivatives, and R, R' of every channel."""
    n_radial = spec.radial.size
    return 20 + 15 * n_radial + 4 * n_radial * sum(spec.channels)


def _harmonics_operations(l_max: int) -> tuple[int, int]:
    """Per pair: the values; the values with their gradient."""
    pairs_lm = (l_max + 1) * (l_max + 2) // 2
    positive_m = pairs_lm - (l_max + 1)
    values = 4 * pairs_lm + pairs_lm + (l_max + 1) ** 2 + 6 * (l_max + 1)
    gradient = 4 * pairs_lm + 5 * pairs_lm + 8 * (pairs_lm + positive_m) + 8 * (l_max + 1)
    return values, gradient


def evaluation_counts(spec: PotentialSpec, n_neighbors: float) -> dict[str, Count]:
    """Stages of energy, forces and virial, per atom with `n_neighbors` neighbours.

    ``pair forward``: vectors to features; ``train``: features to energy and back; ``pair adjoint``: back to the derivatives by
    the vectors; ``assembly``: forces and virials from these.
    """
    features = sum((2 * l + 1) * count for l, count in enumerate(spec.channels))
    values, gradient = _harmonics_operations(spec.l_max)
    forward, adjoint = train_operations(train_tables(spec.layout))
    n_lm = (spec.l_max + 1) ** 2
    pair, index = 24, 8  # bytes of a vector and of an index
    return {
        "pair forward": Count(
            n_neighbors * (9 + _radial_operations(spec) + values + 2 * features),
            n_neighbors * (pair + index) + 2 * index,
        ),
        "train": Count(forward + adjoint, 2 * index),
        "pair adjoint": Count(
            n_neighbors * (gradient + 4 * features + 8 * n_lm + 25), n_neighbors * 2 * pair + index
        ),
        "assembly": Count(n_neighbors * (6 + 18), n_neighbors * (4 * pair + index) + 24 + 72),
    }


def jacobian_operations(spec: PotentialSpec, n_atoms: int) -> float:
    """Operations of the matrix products of the Jacobian by all parameters, for a configuration of `n_atoms`.

    The products over pairs, which are loops, are not counted: their number does not grow with that of the parameters.
    """
    columns = 3 * n_atoms + 6
    n_features = spec.feature.dimension
    order = spec.order
    dims = [bond.dimension for bond in spec.bonds]
    per_atom = 0.0
    for k, core in enumerate(spec.layout.cores):
        left, right = dims[k], dims[k + 1]
        tensor = 2.0 * left * right * n_features
        # transfer matrices, X and Y; then dx/dv, dy/dv and the Hessian
        per_atom += 3 * tensor + 4 * left * right
        per_atom += (tensor if k > 0 else 0.0) + (tensor if k < order - 1 else 0.0)
        per_atom += 2.0 * right * n_features**2 if k < order - 1 else 0.0
        for path in core.paths:
            n1, n2, n3 = core.shape(path)
            inner = (
                path.feature.dim + (path.left.dim if k > 0 else 0) + (path.right.dim if k < order - 1 else 0)
            )
            per_atom += 2.0 * n1 * n2 * n3 * inner * columns
    # primes x' and y' of the inner bonds, y' of the head
    per_atom += 2.0 * (2 * sum(dims[1:-1]) + dims[0]) * n_features * columns
    # radial and species parameters: H D, then the products with the moments
    per_atom += 2.0 * n_features**2 * columns
    for l, channels in enumerate(spec.channels):
        dim, k = 2 * l + 1, spec.species_rank
        per_atom += 2.0 * spec.radial.size * k * dim * channels * columns
        per_atom += 2.0 * k * spec.n_species * dim * channels * columns
    return n_atoms * per_atom


def gram_operations(n_parameters: int, n_rows: int) -> float:
    """Operations of J^T J: it is symmetric, so half of the product is enough."""
    return float(n_rows) * n_parameters * (n_parameters + 1)
