"""The tensors of a train as matrices, one per irrep of a bond: what every decomposition works on.

    M_{l3}[(l1 l2 a1 a2), a3] = A^{l1 l2 l3}[a1, a2, a3]                                  (right unfolding)
    M_{l1}[a1, (l2 l3 a2 a3)] = A^{l1 l2 l3}[a1, a2, a3] sqrt((2 l3 + 1) / (2 l1 + 1))    (left unfolding)

The columns of the first are orthonormal for a left-orthogonal core, the rows of the second for a
right-orthogonal one; `etnpot.network.canonical` derives the weight. A gauge is one matrix X per irrep of a
bond, which acts on the copies a and leaves the components m alone:

    A'[b, a2, a3] = sum_a1 X[b, a1] A[a1, a2, a3]    or    A'[a1, a2, b] = sum_a3 A[a1, a2, a3] X[a3, b].

=========================== ============================================================================
symbol                      here
=========================== ============================================================================
M_{l3}, M_{l1}              `unfold_right`, `unfold_left`; back again `fold_right`, `fold_left`
X A, A X                    `absorb_left`, `absorb_right`
tensor left of bond k       the head (k = 0) or core k-1: `left_matrices`, `fold_left_matrices`,
                            `absorb_into_left`
=========================== ============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from etnpot.network.layout import SCALAR, Bond, CoreLayout, Path
from etnpot.network.train import Train, core_block
from etnpot.so3 import Irrep

__all__ = [
    "Gauge",
    "absorb_into_left",
    "absorb_left",
    "absorb_right",
    "fold_left",
    "fold_left_matrices",
    "fold_right",
    "left_matrices",
    "unfold_left",
    "unfold_right",
]

Array = NDArray[np.float64]

#: One matrix per irrep of a bond.
Gauge = dict[Irrep, Array]


def unfold_right(layout: CoreLayout, core: Array) -> Gauge:
    """The core as one matrix per irrep of the right bond.

    Parameters
    ----------
    layout : CoreLayout
    core : float64 array [q]
        Flat core.

    Returns
    -------
    dict of Irrep to float64 array [(l1 l2 a1 a2), a3]
        Rows in the order of the paths. Irreps that no path reaches are left out.
    """
    return {
        right: np.concatenate([core_block(layout, core, path).reshape(-1, rank) for path in paths])
        for (right, rank) in layout.right
        if (paths := _paths_into(layout, right))
    }


def fold_right(layout: CoreLayout, matrices: Mapping[Irrep, Array]) -> Array:
    """Flat core [q] from the matrices of `unfold_right`, whose columns are the right ranks of `layout`."""
    core = np.zeros(layout.size)
    for right, matrix in matrices.items():
        at = 0
        for path in _paths_into(layout, right):
            n1, n2, _ = layout.shape(path)
            core[layout.slice(path)] = matrix[at : at + n1 * n2].reshape(-1)
            at += n1 * n2
    return core


def unfold_left(layout: CoreLayout, core: Array) -> Gauge:
    """The core as one matrix per irrep of the left bond.

    Parameters
    ----------
    layout : CoreLayout
    core : float64 array [q]
        Flat core.

    Returns
    -------
    dict of Irrep to float64 array [a1, (l2 l3 a2 a3)]
        Columns in the order of the paths, each multiplied by sqrt((2 l3 + 1) / (2 l1 + 1)). Irreps that no
        path leaves are left out.
    """
    return {
        left: np.concatenate(
            [core_block(layout, core, path).reshape(rank, -1) * _weight(path) for path in paths], axis=1
        )
        for (left, rank) in layout.left
        if (paths := _paths_from(layout, left))
    }


def fold_left(layout: CoreLayout, matrices: Mapping[Irrep, Array]) -> Array:
    """Flat core [q] from the matrices of `unfold_left`, whose rows are the left ranks of `layout`."""
    core = np.zeros(layout.size)
    for left, matrix in matrices.items():
        at = 0
        for path in _paths_from(layout, left):
            _, n2, n3 = layout.shape(path)
            core[layout.slice(path)] = (matrix[:, at : at + n2 * n3] / _weight(path)).reshape(-1)
            at += n2 * n3
    return core


def absorb_left(layout: CoreLayout, core: Array, gauge: Mapping[Irrep, Array]) -> tuple[Bond, Array]:
    """Multiply a core from the left: A'[b, a2, a3] = sum_a1 X[b, a1] A[a1, a2, a3].

    Parameters
    ----------
    layout : CoreLayout
    core : float64 array [q]
        Flat core.
    gauge : mapping of Irrep to float64 array [new rank, old rank]
        One matrix per irrep of the left bond; irreps that are absent are dropped from the bond.

    Returns
    -------
    Bond
        The new left bond.
    float64 array [q]
        The new flat core.
    """
    bond = Bond.of({irrep: matrix.shape[0] for irrep, matrix in gauge.items()})
    new_layout = CoreLayout(bond, layout.feature, layout.right)
    new = np.empty(new_layout.size)
    for path in new_layout.paths:
        new[new_layout.slice(path)] = np.tensordot(
            gauge[path.left], core_block(layout, core, path), 1
        ).reshape(-1)
    return bond, new


def absorb_right(layout: CoreLayout, core: Array, gauge: Mapping[Irrep, Array]) -> tuple[Bond, Array]:
    """Multiply a core from the right: A'[a1, a2, b] = sum_a3 A[a1, a2, a3] X[a3, b].

    Parameters
    ----------
    layout : CoreLayout
    core : float64 array [q]
        Flat core.
    gauge : mapping of Irrep to float64 array [old rank, new rank]
        One matrix per irrep of the right bond; irreps that are absent are dropped from the bond.

    Returns
    -------
    Bond
        The new right bond.
    float64 array [q]
        The new flat core.
    """
    bond = Bond.of({irrep: matrix.shape[1] for irrep, matrix in gauge.items()})
    new_layout = CoreLayout(layout.left, layout.feature, bond)
    new = np.empty(new_layout.size)
    for path in new_layout.paths:
        new[new_layout.slice(path)] = np.tensordot(
            core_block(layout, core, path), gauge[path.right], 1
        ).reshape(-1)
    return bond, new


def left_matrices(train: Train, bond: int) -> Gauge:
    """Matrices [rows, rank] of the tensor to the left of a bond, per irrep."""
    if bond == 0:
        return {SCALAR: train.head}
    return unfold_right(train.layout.cores[bond - 1], train.cores[bond - 1])


def fold_left_matrices(train: Train, bond: int, new_bond: Bond, matrices: Mapping[Irrep, Array]) -> Array:
    """Head or flat core from the matrices of `left_matrices`, with a new bond to its right."""
    if bond == 0:
        return matrices[SCALAR]
    layout = train.layout.cores[bond - 1]
    return fold_right(CoreLayout(layout.left, layout.feature, new_bond), matrices)


def absorb_into_left(train: Train, bond: int, gauge: Mapping[Irrep, Array]) -> tuple[Bond, Array]:
    """Multiply the tensor to the left of a bond by matrices [old rank, new rank]."""
    if bond == 0:
        return Bond.of({SCALAR: gauge[SCALAR].shape[1]}), train.head @ gauge[SCALAR]
    return absorb_right(train.layout.cores[bond - 1], train.cores[bond - 1], gauge)


def _paths_into(layout: CoreLayout, right: Irrep) -> list[Path]:
    return [path for path in layout.paths if path.right == right]


def _paths_from(layout: CoreLayout, left: Irrep) -> list[Path]:
    return [path for path in layout.paths if path.left == left]


def _weight(path: Path) -> float:
    """The factor of the left unfolding."""
    return float(np.sqrt(path.right.dim / path.left.dim))
