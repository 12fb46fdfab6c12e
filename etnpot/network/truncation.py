"""Truncation of one bond: SVD per irrep, and which multiplets of all irreps to keep.

    M_{lp} = U_{lp} diag(s_{lp}) V_{lp},     |error|^2 = sum over dropped (l, p, j) of (2l+1) s_{lp,j}^2

`etnpot.network.rounding` derives it, and says what the error means.

=========================== ============================================================================
symbol                      here
=========================== ============================================================================
U, s, V                     `svd_per_irrep`
dropped multiplets          `truncate`, within `RankLimits` and a squared error
=========================== ============================================================================
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import ConvergenceError, SpecificationError
from etnpot.network.layout import Bond
from etnpot.network.unfold import Gauge
from etnpot.so3 import Irrep

__all__ = [
    "ROUNDOFF",
    "RankLimit",
    "RankLimits",
    "Truncation",
    "check_tolerance",
    "svd_per_irrep",
    "truncate",
]

Array = NDArray[np.float64]

#: One limit for every irrep, or a limit for some irreps (the others are free; zero removes an irrep).
RankLimit = int | Mapping[Irrep, int] | Mapping[str, int]

#: Multiplets whose joint size is below this fraction of the norm are rounding errors and always dropped.
ROUNDOFF = 1e-14


@dataclass(frozen=True)
class Truncation:
    """What happened at one bond.

    Parameters
    ----------
    singular_values : dict of Irrep to float64 array [j]
        Before the truncation, descending.
    kept : Bond
        Multiplets kept per irrep.
    norm : float
        Frobenius norm of the tensor before the truncation.
    error : float
        Frobenius norm of what was left out, eq. (2).
    """

    singular_values: dict[Irrep, Array]
    kept: Bond
    norm: float
    error: float

    @property
    def relative_error(self) -> float:
        """The error divided by the norm, zero for a zero tensor."""
        return self.error / self.norm if self.norm > 0.0 else 0.0


@dataclass(frozen=True)
class RankLimits:
    """Most multiplets that a bond may keep: of every irrep, of some irreps, and in total."""

    every_irrep: int | None
    per_irrep: dict[Irrep, int]
    total: int | None

    @classmethod
    def of(cls, max_ranks: RankLimit | None, max_total: int | None) -> RankLimits:
        """Limits from the options of `round_train` and `split_cores`, checked."""
        total = None if max_total is None else _count("max_total", max_total, at_least=1)
        if max_ranks is None:
            return cls(None, {}, total)
        if isinstance(max_ranks, Mapping):
            per_irrep = {
                key if isinstance(key, Irrep) else Irrep.from_string(key): _count(f"max_ranks[{key}]", rank)
                for key, rank in max_ranks.items()
            }
            return cls(None, per_irrep, total)
        return cls(_count("max_ranks", max_ranks, at_least=1), {}, total)

    def rank(self, irrep: Irrep, available: int) -> int:
        """What the limits of one irrep leave of the multiplets available."""
        limit = self.per_irrep.get(irrep, self.every_irrep)
        return available if limit is None else min(limit, available)


def truncate(
    factors: Mapping[Irrep, tuple[Array, Array, Array]], budget: float, norm: float, limits: RankLimits
) -> Truncation:
    """Choose which multiplets of a bond to keep.

    Parameters
    ----------
    factors : mapping of Irrep to (U, s, V)
        From `svd_per_irrep`, in ascending order of the irreps.
    budget : float
        Squared Frobenius error that the truncation may make, unless the limits force more.
    norm : float
        Frobenius norm of the full tensor.
    limits : RankLimits

    Returns
    -------
    Truncation
        At least one multiplet stays, the largest, so that a bond is never empty.
    """
    values = {irrep: s for irrep, (_, s, _) in factors.items()}
    kept = {irrep: limits.rank(irrep, len(s)) for irrep, s in values.items()}
    if not any(kept.values()):
        raise SpecificationError(
            f"max_ranks allows none of the irreps of this bond, {', '.join(map(str, values))}; "
            "expected a rank of at least 1 for one of them"
        )
    # (2l+1) s^2 of every multiplet within the limits, least first; of equals the highest irrep goes first.
    cost = [
        (irrep.dim * float(c), irrep) for irrep in reversed(values) for c in values[irrep][: kept[irrep]] ** 2
    ]
    cost.sort(key=lambda multiplet: multiplet[0])
    n_over = 0 if limits.total is None else max(len(cost) - limits.total, 0)
    dropped = sum(irrep.dim * float(np.sum(s[kept[irrep] :] ** 2)) for irrep, s in values.items())
    budget = max(budget, (ROUNDOFF * norm) ** 2)
    for at, (c, irrep) in enumerate(cost[:-1]):
        dropped += c
        if at >= n_over and dropped > budget:
            break
        kept[irrep] -= 1
    error_squared = sum(irrep.dim * float(np.sum(s[kept[irrep] :] ** 2)) for irrep, s in values.items())
    return Truncation(values, Bond.of(kept), norm, math.sqrt(error_squared))


def svd_per_irrep(matrices: Gauge, where: str) -> dict[Irrep, tuple[Array, Array, Array]]:
    """U [rows, j], s [j], V [j, columns] of every matrix, the largest entry of each U column positive."""
    factors = {}
    for irrep, matrix in matrices.items():
        if not np.isfinite(matrix).all():
            raise ConvergenceError(
                f"{where}, {irrep}: expected finite numbers, got NaN or infinity; the fit diverged"
            )
        try:
            u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        except np.linalg.LinAlgError:  # divide and conquer gave up; QR iteration is slower and steadier
            from scipy.linalg import svd

            u, s, vt = svd(matrix, full_matrices=False, lapack_driver="gesvd")
        sign = np.where(u[np.argmax(np.abs(u), axis=0), np.arange(len(s))] < 0.0, -1.0, 1.0)
        factors[irrep] = (u * sign, s, sign[:, None] * vt)
    return factors


def check_tolerance(tolerance: float) -> None:
    """Raise `SpecificationError` unless 0 <= tolerance < 1."""
    if not 0.0 <= tolerance < 1.0:
        raise SpecificationError(f"tolerance: expected 0 <= relative error < 1, got {tolerance!r}")


def _count(name: str, value: object, at_least: int = 0) -> int:
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < at_least:
        raise SpecificationError(f"{name}: expected an integer >= {at_least}, got {value!r}")
    return count
