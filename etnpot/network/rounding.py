"""Rounding: singular values of a train, truncation with a known error.

Unfold the full tensor at a bond into a matrix with everything to the left of the bond as its row and
everything to the right, output included, as its column. In the canonical form with the centre on the tensor
left of the bond,

    T = sum_{l p} sum_{m a b} L[row, (l m a)] M_{l p}[a, b] R[(l m b), column],

where L has orthonormal columns, R has orthonormal rows, and M_{lp} is the right unfolding of the centre. M
does not touch m: an SVD M_{lp} = U diag(s) V per irrep is an SVD of the whole unfolding, in which each
s_{lp,j} occurs 2l+1 times. So

    |T|^2 = sum_{l p} (2l+1) sum_j s_{lp,j}^2,                                                         (1)

and leaving out a set D of multiplets (l, p, j) of *all* irreps of the bond makes the Frobenius error

    |T - T'|^2 = sum_{(l p j) in D} (2l+1) s_{lp,j}^2,                                                 (2)

the least that any equivariant train with these ranks on this bond can make (Eckart and Young, irrep by
irrep). A tolerance therefore drops the multiplets of least (2l+1) s^2 first, whichever irrep they belong
to.

From bond to bond the errors add in squares, exactly. Let T_0 = T, and T_k = P_k T_{k-1} after the truncation
of the k-th bond, with an orthogonal projector P_k on its rows. Going from left to right, the later projectors
stay within the space that P_k left over, so T_{k-1} - T_k is orthogonal to everything that happens later, and

    |T - T_d|^2 = sum_k |T_{k-1} - T_k|^2                                                              (3)

with each term measured by (2) at its bond, where the centre is at that time.

What this error is and is not
    It is the true Frobenius distance of the two full tensors T[z, f_1, ..., f_d, o], up to rounding. It
    bounds the output of one atom, |x_d - x_d'| <= |T - T'| |v|^d with the norm of its features v (constant
    channel included), and usually by far too much. It is not the error of the energies or forces of a data
    set: T also has a part that is not symmetric in f_1 ... f_d, which no feature vector sees, and the
    features of real atoms fill their space unevenly. Nor is it the least error for the ranks on all bonds
    together: it is at most sqrt(number of bonds) times that.

=========================== ============================================================================
symbol                      here
=========================== ============================================================================
s_{lp,j}                    `singular_values`: for each irrep an array [j], descending
(2) at one bond             `Truncation`
(3)                         `RoundingReport.error`
M at a pair of cores        `etnpot.network.two_site`
=========================== ============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etnpot.network.canonical import HEAD, canonicalize, center_norm, right_orthogonalize
from etnpot.network.layout import Bond
from etnpot.network.train import Train
from etnpot.network.truncation import (
    ROUNDOFF,
    RankLimit,
    RankLimits,
    Truncation,
    check_tolerance,
    svd_per_irrep,
    truncate,
)
from etnpot.network.unfold import Gauge, absorb_left, fold_left_matrices, left_matrices
from etnpot.so3 import Irrep

__all__ = [
    "ROUNDOFF",
    "RankLimit",
    "RoundingReport",
    "Truncation",
    "bond_entropy",
    "round_train",
    "singular_values",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RoundingReport:
    """What `round_train` did.

    Parameters
    ----------
    norm : float
        Frobenius norm of the full tensor before rounding.
    bonds : tuple of Truncation
        For bonds 0..d-1, in the order in which they were truncated.
    """

    norm: float
    bonds: tuple[Truncation, ...]

    @property
    def error(self) -> float:
        """The Frobenius norm of the change of the full tensor, eq. (3)."""
        return math.hypot(*(truncation.error for truncation in self.bonds))

    @property
    def relative_error(self) -> float:
        """The error divided by the norm, zero for a zero tensor."""
        return self.error / self.norm if self.norm > 0.0 else 0.0

    @property
    def bond_errors(self) -> tuple[float, ...]:
        """The Frobenius error of each truncation."""
        return tuple(truncation.error for truncation in self.bonds)

    @property
    def singular_values(self) -> tuple[dict[Irrep, Array], ...]:
        """The singular values per irrep at each bond, before its truncation."""
        return tuple(truncation.singular_values for truncation in self.bonds)

    def __str__(self) -> str:
        lines = [f"relative error {self.relative_error:.3e} of norm {self.norm:.6g}"]
        for k, truncation in enumerate(self.bonds):
            before = Bond.of({irrep: len(s) for irrep, s in truncation.singular_values.items()})
            lines.append(f"bond {k}: {before} -> {truncation.kept}, error {truncation.error:.3e}")
        return "\n".join(lines)


def round_train(
    train: Train,
    *,
    tolerance: float = 0.0,
    max_ranks: RankLimit | None = None,
    max_total: int | None = None,
) -> tuple[Train, RoundingReport]:
    """Lower the ranks of a train as far as a tolerance allows, or as limits demand.

    Right-orthogonalises the train, then truncates bonds 0..d-1 from left to right. Each bond may spend an
    equal share of what the bonds before it left of the squared tolerance, so that the total error stays
    below ``tolerance * norm`` unless a limit forces more.

    Parameters
    ----------
    train : Train
    tolerance : float
        Relative Frobenius error of the full tensor, 0 <= tolerance < 1. At zero only rounding errors
        (`ROUNDOFF`) are dropped.
    max_ranks : int, mapping of irrep (or its name) to int, or None
        Most multiplets per irrep, on every bond but the output.
    max_total : int, optional
        Most multiplets per bond, all irreps together.

    Returns
    -------
    Train
        Left-orthogonal, with its centre on the last core.
    RoundingReport
        The true error, bond by bond, and the singular values.
    """
    check_tolerance(tolerance)
    limits = RankLimits.of(max_ranks, max_total)
    train = right_orthogonalize(train, HEAD)
    order, norm = train.layout.order, center_norm(train, HEAD)
    left_over = (tolerance * norm) ** 2
    truncations = []
    for bond in range(order):
        factors = svd_per_irrep(left_matrices(train, bond), f"bond {bond}")
        truncation = truncate(factors, left_over / (order - bond), norm, limits)
        left_over = max(left_over - truncation.error**2, 0.0)
        left, gauge = {}, {}
        for irrep, rank in truncation.kept:
            u, s, vt = factors[irrep]
            left[irrep], gauge[irrep] = u[:, :rank], s[:rank, None] * vt[:rank]
        new_bond, right = absorb_left(train.layout.cores[bond], train.cores[bond], gauge)
        new_left = fold_left_matrices(train, bond, new_bond, left)
        train = train.with_bond(bond, new_bond, new_left, right)
        truncations.append(truncation)
    return train, RoundingReport(norm, tuple(truncations))


def singular_values(train: Train, bond: int) -> Gauge:
    """The singular values of the full tensor unfolded at a bond, each to be counted 2l+1 times.

    Parameters
    ----------
    train : Train
    bond : int
        0..d-1.

    Returns
    -------
    dict of Irrep to float64 array [j]
        Descending.
    """
    train.layout.check_inner_bond(bond)
    centred = canonicalize(train, HEAD if bond == 0 else bond - 1)
    factors = svd_per_irrep(left_matrices(centred, bond), f"bond {bond}")
    return {irrep: s for irrep, (_, s, _) in factors.items()}


def bond_entropy(values: Mapping[Irrep, Array]) -> float:
    """The entropy of a bond in nats: -sum (2l+1) p log p with p = s^2 / |T|^2.

    Its exponential is an effective dimension: that of equally important components which the bond would need.

    Parameters
    ----------
    values : mapping of Irrep to float64 array [j]
        As from `singular_values`.
    """
    norm_squared = sum(irrep.dim * float(np.sum(s**2)) for irrep, s in values.items())
    entropy = 0.0
    for irrep, s in values.items():
        p = s[s > 0.0] ** 2 / norm_squared
        p = p[p > 0.0]
        entropy -= irrep.dim * float(np.sum(p * np.log(p)))
    return entropy
