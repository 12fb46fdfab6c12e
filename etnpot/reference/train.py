"""The tensor train as a network of dense tensors, contracted by opt_einsum.

    W_k[(l1 m1 a1), (l2 m2 a2), (l3 m3 a3)] = A_k^{l1 l2 l3}[a1, a2, a3] C^{l3 m3}_{l1 m1, l2 m2}        (1)
    x_k = x_0 W_1[v] ... W_k[v],    y_k = W_{k+1}[v] ... W_d[v] e,    E = x_0 W_1[v] ... W_d[v] e        (2)

with e the first row of the last bond. E is multilinear in x_0, in every W_k, and in the d places s = 1..d
where v enters, so that the derivatives are sums of the same contraction over the places,

    dE/dW_k = E(W_k taken out),      d2E/dW_k dv_f  = sum_s E(W_k taken out, e_f at s)                   (3)
    dE/dv_f = sum_s E(e_f at s),     d2E/dv_f dv_f' = sum_{s != t} E(e_f at s, e_f' at t)                (4)

and a derivative along v' has v' at s in place of e_f.

============  ======================================================================================
symbol        here
============  ======================================================================================
W_k           ``cores[k - 1]`` [left, f, right], by `dense_cores`
v, v'         ``v_bf``, ``dv_bf`` [lane, f] inside, [f, lane] in the arguments
x_k, y_k      rows ``train.bond_first[k]:train.bond_first[k + 1]`` of ``x_ab``, ``y_ab``
E(...)        `contract_chain`
============  ======================================================================================

The number of lanes is free. Cost: O(d²) contractions, each dense in the components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etnpot.so3 import clebsch_gordan

if TYPE_CHECKING:
    from etnpot.potential.tables import TrainTables

__all__ = [
    "DensePath",
    "adjoint",
    "adjoint_tangent",
    "contract_chain",
    "decode_path",
    "dense_cores",
    "forward",
    "forward_tangent",
    "head",
    "output",
    "reduce_cores",
    "with_place",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class DensePath(NamedTuple):
    """One path of a core, read from the tables.

    Attributes
    ----------
    left, feature, right : slice
        Components in the dense core.
    weights : slice
        Entries of the flat weights.
    shape : tuple of int
        (a1, a2, a3).
    coupling : float64 [m1, m2, m3]
        Clebsch-Gordan coefficients of the path, dense.
    """

    left: slice
    feature: slice
    right: slice
    weights: slice
    shape: tuple[int, int, int]
    coupling: Floats


def decode_path(train: TrainTables, core: int, path: int) -> DensePath:
    """Row `path` of the tables, which belongs to core `core` (0-based).

    The angular momenta follow from the largest m among the non-zero coefficients: by orthonormality,
    every component occurs. The coefficients themselves are not taken from the tables.
    """
    left, n1, feature, n2, right, n3, weight, nz, nz_end = (int(entry) for entry in train.path[path, :9])
    n_m1, n_m2, n_m3 = (int(count) for count in train.coupling_index[nz:nz_end].max(axis=0) + 1)
    left -= int(train.bond_first[core])
    right -= int(train.bond_first[core + 1])
    return DensePath(
        slice(left, left + n_m1 * n1),
        slice(feature, feature + n_m2 * n2),
        slice(right, right + n_m3 * n3),
        slice(weight, weight + n1 * n2 * n3),
        (n1, n2, n3),
        clebsch_gordan((n_m1 - 1) // 2, (n_m2 - 1) // 2, (n_m3 - 1) // 2),
    )


def _paths(train: TrainTables, core: int) -> list[DensePath]:
    rows = range(train.path_first[core], train.path_first[core + 1])
    return [decode_path(train, core, path) for path in rows]


def dense_cores(train: TrainTables, weights: Floats) -> list[Floats]:
    """Eq. (1).

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
        Head and cores, flat.

    Returns
    -------
    list of float64 array [left, f, right]
    """
    dimensions = np.diff(train.bond_first)
    cores = []
    for k in range(len(dimensions) - 1):
        dense = np.zeros((dimensions[k], train.n_features, dimensions[k + 1]))
        for path in _paths(train, k):
            place = dense[path.left, path.feature, path.right]  # a view
            block = weights[path.weights].reshape(path.shape)
            place[:] = np.einsum("abc,uvw->uavbwc", block, path.coupling).reshape(place.shape)
        cores.append(dense)
    return cores


def reduce_cores(train: TrainTables, k: int, dense: Floats, gradient: Floats) -> None:
    """Chain rule from a dense core to its reduced blocks: sum_{m1 m2 m3} C d/dW, eq. (1).

    Parameters
    ----------
    train : TrainTables
    k : int
        Core, 0-based.
    dense : float64 [..., left, f, right]
        Derivatives by the dense core.
    gradient : float64 [..., q]
        Added to: derivatives by the flat weights.
    """
    for path in _paths(train, k):
        place = dense[..., path.left, path.feature, path.right]
        (n_m1, n_m2, n_m3), (n1, n2, n3) = path.coupling.shape, path.shape
        place = place.reshape(*place.shape[:-3], n_m1, n1, n_m2, n2, n_m3, n3)
        block = np.einsum("...uavbwc,uvw->...abc", place, path.coupling)
        gradient[..., path.weights] += block.reshape(*block.shape[:-3], n1 * n2 * n3)


def head(train: TrainTables, weights: Floats, type_b: Integers) -> Floats:
    """x_0 = A_0[z], float64 [lane, a]."""
    rank = int(train.bond_first[1])
    n_species = int(train.path[:, 6].min()) // rank  # the head ends where the first core begins
    return weights[: n_species * rank].reshape(n_species, rank)[type_b]


def output(train: TrainTables) -> Floats:
    """e of eq. (2): the first row of the last bond, float64 [a]."""
    e_a = np.zeros(int(train.bond_first[-1] - train.bond_first[-2]))
    e_a[0] = 1.0
    return e_a


def contract_chain(
    cores: Sequence[Floats],
    v_kbf: Sequence[Floats | None],
    *,
    left: Floats | None = None,
    right: Floats | None = None,
    without: int | None = None,
) -> Floats:
    """Contract a stretch of the train, eq. (2), with legs left open where something is missing.

    Parameters
    ----------
    cores : sequence of float64 array [left, f, right]
        Consecutive dense cores, at least one.
    v_kbf : sequence of float64 array [lane, f], or None
        What enters at each place; None puts every unit vector there, and f becomes an axis of the result.
    left : float64 [lane, a], optional
        Vector on the left end; open when missing.
    right : float64 [a], optional
        Vector on the right end; open when missing.
    without : int, optional
        Core that is taken out: its three axes become axes of the result. Takes `left` and `right`.

    Returns
    -------
    float64 array
        Axes: lane; the left end if open; left, f and right of the core taken out; f of each None, in order;
        the right end if open.
    """
    from opt_einsum import contract

    lane, n = 0, len(cores)
    n_lanes = next((len(array) for array in (left, *v_kbf) if array is not None), 1)
    operands: list[Any] = [np.ones(n_lanes), (lane,)]  # so that the axis exists, whatever is missing
    result = [lane]
    if left is None:
        result.append(1)
    else:
        operands += [left, (lane, 1)]
    if without is not None:
        result += [1 + without, n + 2 + without, 2 + without]
    for k, (core, v_bf) in enumerate(zip(cores, v_kbf, strict=True)):
        bond, feature, unit = 1 + k, n + 2 + k, 2 * n + 2 + k
        if k != without:
            operands += [core, (bond, feature, bond + 1)]
        if v_bf is None:
            operands += [np.eye(core.shape[1]), (feature, unit)]
            result.append(unit)
        else:
            operands += [v_bf, (lane, feature)]
    if right is None:
        result.append(n + 1)
    else:
        operands += [right, (n + 1,)]
    return np.asarray(contract(*operands, result))


def with_place(items: Sequence[Floats | None], place: int, item: Floats | None) -> list[Floats | None]:
    """The same sequence with one entry replaced."""
    return [*items[:place], item, *items[place + 1 :]]


def forward(
    train: TrainTables, weights: Floats, type_b: Integers, v_fb: Floats, t_mb: Floats | None, x_ab: Floats
) -> None:
    """Eq. (2): every bond vector x_k.

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
    type_b : int64 [lane]
        Type of the central atom.
    v_fb : float64 [f, lane]
    t_mb
        Not used: scratch of the kernel.
    x_ab : float64 [a, lane]
        Written: all bonds, stacked.
    """
    cores, x_0 = dense_cores(train, weights), head(train, weights, type_b)
    x_ab[: train.bond_first[1]] = x_0.T
    for k in range(1, len(cores) + 1):
        rows = slice(train.bond_first[k], train.bond_first[k + 1])
        x_ab[rows] = contract_chain(cores[:k], [v_fb.T] * k, left=x_0).T


def adjoint(
    train: TrainTables,
    weights: Floats,
    v_fb: Floats,
    x_ab: Floats,
    p_mb: Floats | None,
    y_ab: Floats,
    g_fb: Floats,
) -> None:
    """Eqs. (2) and (4): y_k = dE/dx_k and g = dE/dv.

    Parameters
    ----------
    train, weights, v_fb, x_ab
        As given to and written by `forward`; of `x_ab` only x_0 is read.
    p_mb
        Not used: scratch of the kernel.
    y_ab : float64 [a, lane]
        Written.
    g_fb : float64 [f, lane]
        Written.
    """
    cores, e = dense_cores(train, weights), output(train)
    x_0, v_k = x_ab[: train.bond_first[1]].T, [v_fb.T] * len(cores)
    y_ab[train.bond_first[-2] :] = e[:, None]
    for k in range(len(cores)):
        y_ab[train.bond_first[k] : train.bond_first[k + 1]] = contract_chain(cores[k:], v_k[k:], right=e).T
    g_fb[:] = 0.0
    for s in range(len(cores)):
        g_fb += contract_chain(cores, with_place(v_k, s, None), left=x_0, right=e).T


def forward_tangent(
    train: TrainTables,
    weights: Floats,
    v_fb: Floats,
    dv_fb: Floats,
    x_ab: Floats,
    t_mb: Floats | None,
    dx_ab: Floats,
) -> None:
    """Derivative of every bond vector along v': sum over the places with v' in one of them.

    Parameters
    ----------
    train, weights, v_fb, x_ab
        As given to and written by `forward`; of `x_ab` only x_0 is read.
    dv_fb : float64 [f, lane]
        v'.
    t_mb
        Not used: scratch of the kernel.
    dx_ab : float64 [a, lane]
        Written.
    """
    cores, x_0 = dense_cores(train, weights), x_ab[: train.bond_first[1]].T
    dx_ab[:] = 0.0
    for k in range(1, len(cores) + 1):
        rows = slice(train.bond_first[k], train.bond_first[k + 1])
        for s in range(k):
            dx_ab[rows] += contract_chain(cores[:k], with_place([v_fb.T] * k, s, dv_fb.T), left=x_0).T


def adjoint_tangent(
    train: TrainTables,
    weights: Floats,
    type_b: Integers,
    e_b: Floats,
    v_fb: Floats,
    dv_fb: Floats,
    x_ab: Floats,
    dx_ab: Floats,
    work_mb: Floats | None,
    y_ab: Floats,
    dy_ab: Floats,
    g_fb: Floats,
    h_fb: Floats,
    weight_gradient: Floats,
) -> None:
    """Derivatives of L = sum over lanes of e E + E' with respect to x, v, v' and every entry of the train.

    E' is the sum over the places s of E(v' at s); each of its terms is multilinear as E is.

    Parameters
    ----------
    train, weights, type_b, v_fb, dv_fb, x_ab, dx_ab
        As given to and written by `forward` and `forward_tangent`; of the last two only x_0 is read.
    e_b : float64 [lane]
        e.
    work_mb
        Not used: scratch of the kernel.
    y_ab, dy_ab : float64 [a, lane]
        Written: dL/dx' and dL/dx.
    g_fb, h_fb : float64 [f, lane]
        Written: dL/dv' and dL/dv.
    weight_gradient : float64 [q]
        Added to: dL/dA.
    """
    cores, e = dense_cores(train, weights), output(train)
    order, x_0, v_k = len(cores), x_ab[: train.bond_first[1]].T, [v_fb.T] * len(cores)
    adjoint(train, weights, v_fb, x_ab, None, y_ab, g_fb)
    dy_ab[:] = e_b * y_ab
    h_fb[:] = e_b * g_fb
    scale_kb = [e_b, *[np.ones_like(e_b)] * order]  # of E, and of E(v' at s) for every s
    places = [with_place(v_k, 0, v_fb.T), *(with_place(v_k, s, dv_fb.T) for s in range(order))]
    for k in range(order):
        rows = slice(train.bond_first[k], train.bond_first[k + 1])
        for s in range(k, order):
            dy_ab[rows] += contract_chain(cores[k:], with_place(v_k, s, dv_fb.T)[k:], right=e).T
        for scale_b, v_s in zip(scale_kb, places, strict=True):
            removed = contract_chain(cores, v_s, left=x_0, right=e, without=k)
            reduce_cores(train, k, np.einsum("b,b...->...", scale_b, removed), weight_gradient)
    for s in range(order):
        for t in range(order):
            if s != t:
                h_fb += contract_chain(
                    cores, with_place(with_place(v_k, s, dv_fb.T), t, None), left=x_0, right=e
                ).T
    rank = int(train.bond_first[1])
    for z, dy_a in zip(type_b, dy_ab[:rank].T, strict=True):
        weight_gradient[z * rank : (z + 1) * rank] += dy_a
