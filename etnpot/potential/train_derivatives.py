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
from etnpot.workspace import Workspace

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
    the unit seeds. What was not asked for is undefined, or has no rows.
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
    workspace: Workspace | None = None,
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
    workspace : Workspace, optional
        Holds all that has features as an axis.
    """
    workspace = Workspace() if workspace is None else workspace
    n, n_features, first = len(v_if), v_if.shape[1], train.bond_first
    n_rows, n_cores = train.n_bond_rows, len(cores.abf)
    bonds = [slice(first[k], first[k + 1]) for k in range(n_cores + 1)]
    x_ia, y_ia = np.zeros((n, n_rows)), np.zeros((n, n_rows))
    dx_iaf, dy_iaf, by_left_iaf = (
        workspace.empty(f"train.{name}", (n, n_rows, n_features)) for name in ("dx", "dy", "by_left")
    )
    for nothing_iaf in (dx_iaf[:, bonds[0]], dy_iaf[:, bonds[-1]]):
        nothing_iaf[:] = 0.0
    n_head = (int(type_i.max(initial=0)) + 1) * first[1]
    x_ia[:, bonds[0]] = weights[:n_head].reshape(-1, first[1])[type_i]
    y_ia[:, bonds[-1]] = seed_io
    y_iao = np.zeros((n if with_units else 0, n_rows, seed_io.shape[1]))
    y_iao[:, bonds[-1]] = np.eye(seed_io.shape[1])

    def rows(array_iaf: Floats, bond: slice) -> Floats:
        """Of a bond, as a matrix [i, (a, f)]."""
        return array_iaf.reshape(n, -1)[:, bond.start * n_features : bond.stop * n_features]

    transfers = []
    for k, tensor_abf in enumerate(cores.abf):
        right, left = bonds[k + 1], bonds[k]
        n_right, n_left, _ = tensor_abf.shape
        transfer = workspace.empty(f"train.transfer.{k}", (n, n_right, n_left))
        np.matmul(v_if, tensor_abf.reshape(-1, n_features).T, out=transfer.reshape(n, -1))
        x_ia[:, right] = (transfer @ x_ia[:, left, None])[..., 0]
        if with_hessian or k < last_dx:
            np.matmul(x_ia[:, left], cores.bm[k], out=rows(by_left_iaf, right))
        if 0 < k < last_dx:
            np.matmul(transfer, dx_iaf[:, left], out=dx_iaf[:, right])
            dx_iaf[:, right] += by_left_iaf[:, right]
        elif k < last_dx:
            dx_iaf[:, right] = by_left_iaf[:, right]
        transfers.append(transfer)
    for k in range(n_cores - 1, first_dy - 1, -1):
        right, left = bonds[k + 1], bonds[k]
        back = transfers[k].transpose(0, 2, 1)
        y_ia[:, left] = (back @ y_ia[:, right, None])[..., 0]
        np.matmul(y_ia[:, right], cores.abf[k].reshape(right.stop - right.start, -1), out=rows(dy_iaf, left))
        if with_units:
            y_iao[:, left] = back @ y_iao[:, right]
        if k < n_cores - 1:
            more_iaf = workspace.empty(f"train.more.{k}", (n, left.stop - left.start, n_features))
            np.matmul(back, dy_iaf[:, right], out=more_iaf)
            dy_iaf[:, left] += more_iaf
    hessian_iff = np.zeros((0, n_features, n_features))
    if with_hessian:
        inner = slice(bonds[1].start, bonds[-1].start)
        half_iff = workspace.empty("train.half", (n, n_features, n_features))
        np.matmul(by_left_iaf[:, inner].transpose(0, 2, 1), dy_iaf[:, inner], out=half_iff)
        hessian_iff = workspace.empty("train.hessian", half_iff.shape)
        np.add(half_iff, half_iff.transpose(0, 2, 1), out=hessian_iff)
    return TrainDerivatives(x_ia, y_ia, dx_iaf, dy_iaf, hessian_iff, y_iao)
