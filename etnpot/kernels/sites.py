"""Derivatives of the energy of every atom by the entries of the train: one forward and one adjoint pass for a block of atoms.

    dE_i/dA[a1, a2, a3] = sum_m3 t[a1, a2, m3] y[m3 a3],    t = C x v,        dE_i/dA_0[z_i, a] = y_0[a]          (1)

for the head and a range of consecutive cores, from the features. What takes time is a product of a row for every entry and
component m3: about what an evaluation takes in the train, where it is one core of several.

==========  =============================================================
symbol      here
==========  =============================================================
x, y, v, C  as in ``train``
t           ``t_mb`` [m3, lane], for one (a1, a2) at a time
dE_i/dA     ``gradient_qb`` [q, lane], then ``gradient_iq`` [i, q]
==========  =============================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.lanes import LANES, fma, load, mul, splat, store
from etnpot.kernels.train import (
    CHANNELS,
    COMPONENTS,
    COUPLING,
    COUPLING_END,
    FEATURE,
    LEFT,
    RANK_LEFT,
    RANK_RIGHT,
    RIGHT,
    WEIGHT,
    Y,
    adjoint,
    forward,
)

__all__ = ["site_gradients"]


@njit(inner=True)
def path_gradient(train, path, q, v_fb, x_ab, y_ab, t_mb, gradient_qb):
    """Eq. (1) for one path, whose first entry is row q."""
    left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
    feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
    right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
    components = train.path[path, COMPONENTS + Y]
    for a1 in range(n1):
        for a2 in range(n2):
            for m in range(components):
                store(t_mb, m, splat(0.0))
            for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                m = train.coupling_index[z, 2]
                x = load(x_ab, left + train.coupling_index[z, 0] * n1 + a1)
                v = load(v_fb, feature + train.coupling_index[z, 1] * n2 + a2)
                store(t_mb, m, fma(mul(splat(train.coupling_value[z]), x), v, load(t_mb, m)))
            for a3 in range(n3):
                row = splat(0.0)
                for m in range(components):
                    row = fma(load(y_ab, right + m * n3 + a3), load(t_mb, m), row)
                store(gradient_qb, q, row)
                q += 1


@njit
def site_gradients(
    v_if, type_i, before, train, after, weights, path_begin, path_end, q_begin, start, stop, gradient_iq
):
    """Eq. (1) for atoms ``start:stop``.

    Parameters
    ----------
    v_if : float64 [i, f]
        Features.
    type_i : int64 [i]
    before, train, after : TrainTables
        The tables with the paths of the cores before the last one that is wanted, with all of them, and with those after the
        first one: the bonds beyond are not needed.
    weights : float64 [q]
        Head and cores.
    path_begin, path_end : int
        Paths of the cores.
    q_begin : int
        The first of the weights whose derivatives are wanted: 0 for the head and the cores after it, else where the
        first core begins.
    start, stop : int
        Range of atoms.
    gradient_iq : float64 [i, q]
        Written for the range.
    """
    n_q = gradient_iq.shape[1]
    v_fb, g_fb = np.zeros((train.n_features, LANES)), np.empty((train.n_features, LANES))
    x_ab, y_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab, t_mb = np.empty((train.n_work_rows, LANES)), np.empty((train.max_components, LANES))
    gradient_qb = np.zeros((n_q, LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    rank_0 = train.bond_first[1]
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        for b in range(n_lanes):
            type_b[b] = type_i[block + b]
            for f in range(train.n_features):
                v_fb[f, b] = v_if[block + b, f]
        forward(before, weights, type_b, v_fb, work_ab, x_ab)
        adjoint(after, weights, v_fb, x_ab, work_ab, y_ab, g_fb)
        for path in range(path_begin, path_end):
            path_gradient(
                train, path, train.path[path, WEIGHT] - q_begin, v_fb, x_ab, y_ab, t_mb, gradient_qb
            )
        for b in range(n_lanes):
            for q in range(n_q):
                gradient_iq[block + b, q] = gradient_qb[q, b]
        if q_begin == 0:  # rows of the head: those of other species are zero
            for b in range(n_lanes):
                for a in range(rank_0):
                    gradient_iq[block + b, type_b[b] * rank_0 + a] = y_ab[a, b]
