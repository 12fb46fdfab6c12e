"""A train and its derivatives by its features, by the matrix products of numpy.

With the cores as dense tensors T = A C, the transfer matrices W = T v, X = T x and Y = T y of each, and y_d = s a seed,

    x_k = W x_{k-1},   dx_k/dv = W dx_{k-1}/dv + X,   dy_{k-1}/dv = W^T dy_k/dv + Y,   g = d(s . x_d)/dv = sum_k X^T y_k,
    H = dg/dv = M + M^T,   M = sum_k X^T dy_k/dv      (the feature of core k first, one of a later core second).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etnpot.network import Train, dense_core
from etnpot.potential.tables import TrainTables

__all__ = ["DenseCores", "TrainDerivatives", "differentiate"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class DenseCores:
    """T = A C of every core, [right row, left row, feature], and as a matrix [left row, (right row, feature)]."""

    def __init__(self, train: Train) -> None:
        self.abf = [
            np.ascontiguousarray(dense_core(layout, core).transpose(2, 0, 1))
            for layout, core in zip(train.layout.cores, train.cores, strict=True)
        ]
        self.bm = [
            np.ascontiguousarray(tensor_abf.transpose(1, 0, 2)).reshape(tensor_abf.shape[1], -1)
            for tensor_abf in self.abf
        ]


class TrainDerivatives(NamedTuple):
    """Of each atom: bonds, adjoints of the seed, their derivatives by the features, and the Hessian of s . x_d.

    ``x_ia``, ``y_ia`` [i, a]; ``dx_iaf``, ``dy_iaf`` [i, a, f]; ``hessian_iff`` [i, f, f]; ``y_iao`` [i, a, o], the adjoints of
    the unit seeds. What was not asked for is zero, or has no rows.
    """

    x_ia: Floats
    y_ia: Floats
    dx_iaf: Floats
    dy_iaf: Floats
    hessian_iff: Floats
    y_iao: Floats


def differentiate(
    train: TrainTables,
    cores: DenseCores,
    weights: Floats,
    v_if: Floats,
    type_i: Integers,
    seed_io: Floats,
    *,
    last_dx: int,
    first_dy: int,
    with_hessian: bool,
    with_units: bool = False,
) -> TrainDerivatives:
    """Derivatives of the train on the features of some atoms.

    Parameters
    ----------
    train : TrainTables
    cores : DenseCores
    weights : float64 [q]
        Of which the head is read.
    v_if : float64 [i, f]
    type_i : int64 [i]
    seed_io : float64 [i, o]
        s.
    last_dx, first_dy : int
        The bonds up to which dx/dv, and down to which y and dy/dv are wanted.
    with_hessian, with_units : bool
    """
    n, n_features, first = len(v_if), v_if.shape[1], train.bond_first
    n_rows, n_cores = train.n_bond_rows, len(cores.abf)
    bonds = [slice(first[k], first[k + 1]) for k in range(n_cores + 1)]
    x_ia, y_ia = np.zeros((n, n_rows)), np.zeros((n, n_rows))
    dx_iaf, dy_iaf = np.zeros((n, n_rows, n_features)), np.zeros((n, n_rows, n_features))
    n_head = (int(type_i.max(initial=0)) + 1) * first[1]
    x_ia[:, bonds[0]] = weights[:n_head].reshape(-1, first[1])[type_i]
    y_ia[:, bonds[-1]] = seed_io
    y_iao = np.zeros((n if with_units else 0, n_rows, seed_io.shape[1]))
    y_iao[:, bonds[-1]] = np.eye(seed_io.shape[1])
    transfers = []
    for k, tensor_abf in enumerate(cores.abf):
        right, left = bonds[k + 1], bonds[k]
        n_right, n_left, _ = tensor_abf.shape
        transfer = (v_if @ tensor_abf.reshape(-1, n_features).T).reshape(n, n_right, n_left)
        x_ia[:, right] = (transfer @ x_ia[:, left, None])[..., 0]
        by_left = np.empty((0, n_right, n_features))
        if with_hessian or k < last_dx:
            by_left = (x_ia[:, left] @ cores.bm[k]).reshape(n, n_right, n_features)
        if k < last_dx:
            dx_iaf[:, right] = by_left + transfer @ dx_iaf[:, left] if k > 0 else by_left
        transfers.append((transfer, by_left))
    hessian_iff = np.zeros((n if with_hessian else 0, n_features, n_features))
    for k in range(n_cores - 1, first_dy - 1, -1):
        right, left = bonds[k + 1], bonds[k]
        tensor_abf, (transfer, by_left) = cores.abf[k], transfers[k]
        back = transfer.transpose(0, 2, 1)
        y_ia[:, left] = (back @ y_ia[:, right, None])[..., 0]
        dy_iaf[:, left] = (y_ia[:, right] @ tensor_abf.reshape(len(tensor_abf), -1)).reshape(
            n, -1, n_features
        )
        if with_units:
            y_iao[:, left] = back @ y_iao[:, right]
        if k < n_cores - 1:
            dy_iaf[:, left] += back @ dy_iaf[:, right]
            if with_hessian:
                hessian_iff += by_left.transpose(0, 2, 1) @ dy_iaf[:, right]
    if with_hessian:
        hessian_iff += hessian_iff.transpose(0, 2, 1).copy()
    return TrainDerivatives(x_ia, y_ia, dx_iaf, dy_iaf, hessian_iff, y_iao)
