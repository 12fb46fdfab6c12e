"""Canonical forms of a train: orthogonal on the left of its centre, and on the right of it.

The coupling coefficients are orthonormal, sum_{m1 m2} C^{l3 m3}_{l1 m1, l2 m2} C^{l3' m3'}_{l1 m1, l2 m2} =
delta. So the part of the train to the left of a bond is an isometry when the head and all cores there obey

    sum_z A_0[z, a] A_0[z, a'] = delta(a, a'),                                                         (1)

    sum_{l1 l2 a1 a2} A^{l1 l2 l3}[a1, a2, a3] A^{l1 l2 l3}[a1, a2, a3'] = delta(a3, a3')              (2)

for each (l3, p), and the part to the right of it, output index included, when all cores there obey

    sum_{l2 l3 a2 a3} w A^{l1 l2 l3}[a1, a2, a3] A^{l1 l2 l3}[a1', a2, a3] = delta(a1, a1')            (3)

for each (l1, p) with the weight w = (2 l3 + 1) / (2 l1 + 1), which comes from the coefficients summed over
the other pair, sum_{m2 m3} C^{l3 m3}_{l1 m1, l2 m2} C^{l3 m3}_{l1 m1', l2 m2} = w delta(m1, m1'). With the
centre on a core, left-orthogonal tensors to its left and right-orthogonal ones to its right, the Frobenius
norm of the full tensor T[z, f_1, ..., f_d, o] is a weighted norm of that core alone,

    |T|^2 = sum_{l1 l2 l3} (2 l3 + 1) sum_{a1 a2 a3} A^{l1 l2 l3}[a1, a2, a3]^2,                       (4)

since sum_{m1 m2 m3} (C^{l3 m3}_{l1 m1, l2 m2})^2 = 2 l3 + 1; on the head it is sum_{z a} A_0[z, a]^2. The
output may be any sum of irreps with any ranks: its components and copies are one more index o of T, on
which no gauge acts. For an energy that index has one value.

=========================== ============================================================================
symbol                      here
=========================== ============================================================================
centre                      `HEAD` or the index of a core, 0..d-1
bond k                      index 0..d-1: left of core k, right of the head (k = 0) or of core k-1
columns of (2)              `unfold_right`: for each (l3, p) a matrix [(l1 l2 a1 a2), a3]
rows of (3)                 `unfold_left`: for each (l1, p) a matrix [a1, (l2 l3 a2 a3)] times sqrt(w)
2 l3 + 1 for every entry    `center_weights` [q]
gauge X of a bond           `Gauge`: for each irrep a matrix, [new, old] or [old, new] rank
=========================== ============================================================================

Every step here is a QR or LQ decomposition per irrep with a non-negative diagonal, hence unique for full rank
and the same on every run. Where a rank exceeds the room to the left (right) of its bond it shrinks to that
room, and an irrep that no path reaches leaves the bond; the full tensor never changes.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import ConvergenceError, SpecificationError
from etnpot.network.layout import SCALAR, CoreLayout
from etnpot.network.train import Train
from etnpot.network.unfold import (
    Gauge,
    absorb_into_left,
    absorb_left,
    fold_left,
    fold_left_matrices,
    left_matrices,
    unfold_left,
    unfold_right,
)

__all__ = [
    "HEAD",
    "Center",
    "canonicalize",
    "center_norm",
    "center_weights",
    "frobenius_norm",
    "is_canonical",
    "is_left_orthogonal",
    "is_right_orthogonal",
    "left_orthogonalize",
    "move_center",
    "push_left",
    "push_right",
    "right_orthogonalize",
]

Array = NDArray[np.float64]

#: Where the centre can be: on the head or on a core.
Center = int | Literal["head"]

#: The head as a centre.
HEAD: Final[Literal["head"]] = "head"


# --- moving the centre ----------------------------------------------------------------------------


def push_right(train: Train, bond: int) -> tuple[Train, Gauge]:
    """Make the tensor to the left of a bond left-orthogonal: move the centre across the bond to the right.

    A = Q R per irrep of the bond; Q stays, R multiplies the core to the right. No other tensor is touched.

    Parameters
    ----------
    train : Train
    bond : int
        0..d-1. The tensor to its left is the head (0) or core bond - 1, to its right core `bond`.

    Returns
    -------
    Train
        The same function.
    dict of Irrep to float64 array [new rank, old rank]
        R. Bond vectors obey x_old[m, a] = sum_b x_new[m, b] R[b, a], environments from the right
        y_new[m, b] = sum_a R[b, a] y_old[m, a].
    """
    train.layout.check_inner_bond(bond)
    matrices = left_matrices(train, bond)
    factors = {irrep: _qr(matrix, f"bond {bond}, {irrep}") for irrep, matrix in matrices.items()}
    gauge = {irrep: r for irrep, (_, r) in factors.items()}
    _check_not_empty(gauge, bond)
    new_bond, right = absorb_left(train.layout.cores[bond], train.cores[bond], gauge)
    left = fold_left_matrices(train, bond, new_bond, {irrep: q for irrep, (q, _) in factors.items()})
    return train.with_bond(bond, new_bond, left, right), gauge


def push_left(train: Train, bond: int) -> tuple[Train, Gauge]:
    """Make the core to the right of a bond right-orthogonal: move the centre across the bond to the left.

    sqrt(w) A = L Q per irrep of the bond; Q / sqrt(w) stays, L multiplies the tensor to the left (eq. 3).
    No other tensor is touched.

    Parameters
    ----------
    train : Train
    bond : int
        0..d-1. The tensor to its left is the head (0) or core bond - 1, to its right core `bond`.

    Returns
    -------
    Train
        The same function.
    dict of Irrep to float64 array [old rank, new rank]
        L. Bond vectors obey x_new[m, b] = sum_a x_old[m, a] L[a, b], environments from the right
        y_old[m, a] = sum_b L[a, b] y_new[m, b].
    """
    train.layout.check_inner_bond(bond)
    layout = train.layout.cores[bond]
    factors = {
        irrep: _qr(matrix.T, f"bond {bond}, {irrep}")
        for irrep, matrix in unfold_left(layout, train.cores[bond]).items()
    }
    gauge = {irrep: np.ascontiguousarray(r.T) for irrep, (_, r) in factors.items()}
    _check_not_empty(gauge, bond)
    new_bond, left = absorb_into_left(train, bond, gauge)
    right = fold_left(
        CoreLayout(new_bond, layout.feature, layout.right), {irrep: q.T for irrep, (q, _) in factors.items()}
    )
    return train.with_bond(bond, new_bond, left, right), gauge


def left_orthogonalize(train: Train, upto: Center | None = None) -> Train:
    """Make every tensor to the left of `upto` left-orthogonal (default: all but the last core)."""
    position = _position(train, train.layout.order - 1 if upto is None else upto)
    for bond in range(position + 1):
        train, _ = push_right(train, bond)
    return train


def right_orthogonalize(train: Train, downto: Center = HEAD) -> Train:
    """Make every core to the right of `downto` right-orthogonal (default: all cores)."""
    position = _position(train, downto)
    for bond in range(train.layout.order - 1, position, -1):
        train, _ = push_left(train, bond)
    return train


def canonicalize(train: Train, center: Center) -> Train:
    """The mixed canonical form: left-orthogonal to the left of `center`, right-orthogonal to its right.

    Parameters
    ----------
    train : Train
    center : int or "head"
        A core (0..d-1), or the head.

    Returns
    -------
    Train
        The same full tensor; its Frobenius norm is ``center_norm(train, center)``.
    """
    return right_orthogonalize(left_orthogonalize(train, center), center)


def move_center(train: Train, from_: Center, to: Center) -> Train:
    """Move the centre of a canonical train, one bond after the other; only the tensors on the way change.

    Parameters
    ----------
    train : Train
        Canonical with centre `from_`; this is not checked (`is_canonical` does).
    from_, to : int or "head"
        The centre now, and where it shall be.
    """
    start, stop = _position(train, from_), _position(train, to)
    for bond in range(start + 1, stop + 1):
        train, _ = push_right(train, bond)
    for bond in range(start, stop, -1):
        train, _ = push_left(train, bond)
    return train


# --- predicates and norms -------------------------------------------------------------------------


def is_left_orthogonal(train: Train, k: Center, tol: float = 1e-10) -> bool:
    """Whether core k obeys eq. (2), or the head eq. (1), with no element off by more than `tol`."""
    position = _position(train, k)
    if position == -1:
        matrices, bond = {SCALAR: train.head}, train.layout.bonds[0]
    else:
        layout = train.layout.cores[position]
        matrices, bond = unfold_right(layout, train.cores[position]), layout.right
    return all(irrep in matrices and _is_isometry(matrices[irrep], tol) for irrep in bond.irreps)


def is_right_orthogonal(train: Train, k: int, tol: float = 1e-10) -> bool:
    """Whether core k obeys eq. (3) with no element off by more than `tol`."""
    layout = train.layout.cores[_position(train, k)]
    matrices = unfold_left(layout, train.cores[k])
    return all(irrep in matrices and _is_isometry(matrices[irrep].T, tol) for irrep in layout.left.irreps)


def is_canonical(train: Train, center: Center, tol: float = 1e-10) -> bool:
    """Whether the train is left-orthogonal to the left of `center` and right-orthogonal to its right."""
    position = _position(train, center)
    left: list[Center] = [HEAD, *range(train.layout.order)]
    return all(is_left_orthogonal(train, k, tol) for k in left[: position + 1]) and all(
        is_right_orthogonal(train, k, tol) for k in range(position + 1, train.layout.order)
    )


def center_weights(layout: CoreLayout) -> Array:
    """The weight 2 l3 + 1 of every entry of a core in the squared Frobenius norm, eq. (4).

    A ridge term ``sum(center_weights * core**2)`` on the centre core is one on the whole tensor. For the
    head all weights are one.

    Returns
    -------
    float64 array [q]
    """
    weights = np.empty(layout.size)
    for path in layout.paths:
        weights[layout.slice(path)] = path.right.dim
    return weights


def center_norm(train: Train, center: Center) -> float:
    """The norm of a core (eq. 4) or of the head: that of the full tensor if the centre is there."""
    position = _position(train, center)
    if position == -1:
        return float(np.linalg.norm(train.head))
    root = np.sqrt(center_weights(train.layout.cores[position]))
    return float(np.linalg.norm(root * train.cores[position]))


def frobenius_norm(train: Train) -> float:
    """Frobenius norm of the full tensor T[z, f_1, ..., f_d, o], from one sweep of QR decompositions.

    Accurate to rounding relative to the size of the cores, also for a small difference of large trains,
    where a contraction of the squared norm would lose half of the digits.
    """
    last = train.layout.order - 1
    return center_norm(left_orthogonalize(train, last), last)


# --- small things ---------------------------------------------------------------------------------


def _is_isometry(matrix: Array, tol: float) -> bool:
    """Whether the columns are orthonormal."""
    return bool(np.all(np.abs(matrix.T @ matrix - np.eye(matrix.shape[1])) <= tol))


def _qr(matrix: Array, where: str) -> tuple[Array, Array]:
    """Q [rows, s] and R [s, columns], s = min(rows, columns), with a non-negative diagonal of R."""
    if not np.isfinite(matrix).all():
        raise ConvergenceError(
            f"{where}: expected finite numbers in the train, got NaN or infinity; the fit diverged"
        )
    q, r = np.linalg.qr(matrix)
    sign = np.where(np.diagonal(r) < 0.0, -1.0, 1.0)
    return q * sign, sign[:, None] * r


def _position(train: Train, center: Center) -> int:
    """The centre as an integer: -1 for the head, else the index of the core."""
    if center == HEAD:
        return -1
    if not isinstance(center, int | np.integer) or not 0 <= center < train.layout.order:
        raise SpecificationError(
            f"expected 'head' or a core 0..{train.layout.order - 1} of this train, got {center!r}"
        )
    return int(center)


def _check_not_empty(gauge: Gauge, bond: int) -> None:
    if not gauge:
        raise SpecificationError(
            f"no path leads through bond {bond}: this train is zero and has no canonical form; "
            "expected bonds whose irreps connect the head to the output"
        )
