"""The tensor train on one block of atoms: forward, adjoint, and both along a tangent.

    x_k[l3 m3 a3] = sum_{paths} sum_{a1 a2} A[a1, a2, a3] t[m3],
    t[m3] = sum_{m1 m2} C x_{k-1}[l1 m1 a1] v[l2 m2 a2]                                              (1)

With the energy E = x_d, the adjoint carries y_k = dE/dx_k and g = dE/dv back through eq. (1),

    P[m3] = sum_{a3} A[a1, a2, a3] y_k[l3 m3 a3],   y_{k-1} += C P v,   g += C P x_{k-1}             (2)

Along a tangent v' of the features the same two passes on (x, x') and (y, y') give E' = g.v', and the
derivatives of e E + E' with respect to v, v' and every entry of every core. All of this is per atom; the last
axis is the lane.

============  ================================================================================
symbol        here
============  ================================================================================
x_0 .. x_d    rows of ``x_ab``, bond k from ``train.bond_first[k]``
v             ``v_fb`` [f, lane], f = offset(l) + m * rank + a2
A             ``weights`` [q]: the head [z, a], then the cores, as ``Train.flat``
C             ``train.coupling_index`` [nz, (m1, m2, m3)], ``train.coupling_value`` [nz]
paths         rows of ``train.path``: columns below
============  ================================================================================
"""

from etnpot._jit import njit
from etnpot.kernels.lanes import LANES, fma, load, mul, splat, store, total

__all__ = ["adjoint", "adjoint_tangent", "forward", "forward_tangent"]

# columns of train.path
LEFT, RANK_LEFT, FEATURE, CHANNELS, RIGHT, RANK_RIGHT, WEIGHT, COUPLING, COUPLING_END, COMPONENTS = range(10)


@njit
def forward(train, weights, type_b, v_fb, work_mab, x_ab):
    """Eq. (1): every bond vector of a block of atoms.

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
    type_b : int64 [lane]
        Type of the central atom.
    v_fb : float64 [f, lane]
    work_mab : float64 [largest 2 l3 + 1, most channels, lane]
        Scratch.
    x_ab : float64 [a, lane]
        Written: all bonds, stacked.
    """
    most_channels = work_mab.shape[1]
    zero = splat(0.0)
    rank_0 = train.bond_first[1]
    for a in range(rank_0):
        for b in range(LANES):
            x_ab[a, b] = weights[type_b[b] * rank_0 + a]
    for a in range(rank_0, x_ab.shape[0]):
        store(x_ab, a, zero)
    for path in range(train.path.shape[0]):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            for m3 in range(components):
                for a2 in range(n2):
                    store(work_mab, m3 * most_channels + a2, zero)
            for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                i1 = left + train.coupling_index[z, 0] * n1 + a1
                i2 = feature + train.coupling_index[z, 1] * n2
                row = train.coupling_index[z, 2] * most_channels
                cx = mul(splat(train.coupling_value[z]), load(x_ab, i1))
                for a2 in range(n2):
                    store(work_mab, row + a2, fma(cx, load(v_fb, i2 + a2), load(work_mab, row + a2)))
            at = weight + a1 * n2 * n3
            for m3 in range(components):
                for a3 in range(n3):
                    i3 = right + m3 * n3 + a3
                    x = load(x_ab, i3)
                    for a2 in range(n2):
                        x = fma(splat(weights[at + a2 * n3 + a3]), load(work_mab, m3 * most_channels + a2), x)
                    store(x_ab, i3, x)


@njit
def adjoint(train, weights, v_fb, x_ab, work_mab, y_ab, g_fb):
    """Eq. (2) for E = the last bond (one scalar): g = dE/dv.

    Parameters
    ----------
    train, weights, v_fb, x_ab
        As given to and written by `forward`.
    work_mab : float64 [largest 2 l3 + 1, most channels, lane]
        Scratch.
    y_ab : float64 [a, lane]
        Written: dE/dx of all bonds.
    g_fb : float64 [f, lane]
        Written: dE/dv.
    """
    most_channels = work_mab.shape[1]
    zero = splat(0.0)
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for a in range(y_ab.shape[0]):
        store(y_ab, a, splat(1.0) if a == last else zero)
    for f in range(g_fb.shape[0]):
        store(g_fb, f, zero)
    for path in range(train.path.shape[0] - 1, -1, -1):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            at = weight + a1 * n2 * n3
            for m3 in range(components):
                for a2 in range(n2):
                    p = zero
                    for a3 in range(n3):
                        p = fma(splat(weights[at + a2 * n3 + a3]), load(y_ab, right + m3 * n3 + a3), p)
                    store(work_mab, m3 * most_channels + a2, p)
            for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                i1 = left + train.coupling_index[z, 0] * n1 + a1
                i2 = feature + train.coupling_index[z, 1] * n2
                row = train.coupling_index[z, 2] * most_channels
                c = splat(train.coupling_value[z])
                cx = mul(c, load(x_ab, i1))
                y = zero
                for a2 in range(n2):
                    p = load(work_mab, row + a2)
                    y = fma(p, load(v_fb, i2 + a2), y)
                    store(g_fb, i2 + a2, fma(p, cx, load(g_fb, i2 + a2)))
                store(y_ab, i1, fma(c, y, load(y_ab, i1)))


@njit
def forward_tangent(train, weights, v_fb, dv_fb, x_ab, t_mb, dx_ab):
    """Derivative of `forward` along v' (the head does not move): x' of every bond.

    Parameters
    ----------
    train, weights, v_fb, x_ab
        As given to and written by `forward`.
    dv_fb : float64 [f, lane]
        The tangent v'.
    t_mb : float64 [m3, lane]
        Scratch.
    dx_ab : float64 [a, lane]
        Written.
    """
    zero = splat(0.0)
    for a in range(dx_ab.shape[0]):
        store(dx_ab, a, zero)
    for path in range(train.path.shape[0]):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            for a2 in range(n2):
                for m3 in range(components):
                    store(t_mb, m3, zero)
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1 + a1
                    i2 = feature + train.coupling_index[z, 1] * n2 + a2
                    m3 = train.coupling_index[z, 2]
                    both = fma(load(x_ab, i1), load(dv_fb, i2), mul(load(dx_ab, i1), load(v_fb, i2)))
                    store(t_mb, m3, fma(splat(train.coupling_value[z]), both, load(t_mb, m3)))
                at = weight + (a1 * n2 + a2) * n3
                for m3 in range(components):
                    t = load(t_mb, m3)
                    for a3 in range(n3):
                        i3 = right + m3 * n3 + a3
                        store(dx_ab, i3, fma(splat(weights[at + a3]), t, load(dx_ab, i3)))


@njit
def adjoint_tangent(
    train, weights, type_b, e_b, v_fb, dv_fb, x_ab, dx_ab, work_mb, y_ab, dy_ab, g_fb, h_fb, weight_gradient
):
    """Derivatives of L = sum over lanes of e E + E' with respect to v, v' and every entry of the train.

    With y = dL/dx' (the ordinary adjoint) and w = dL/dx, eq. (2) becomes, for each (a1, a2),

        P = A y, W = A w:   y1 += C P v,   w1 += C (W v + P v'),   dL/dv' += C P x,   dL/dv += C (W x + P x'),
        dL/dA += sum over lanes of w t + y t'.

    Parameters
    ----------
    train, weights, type_b, v_fb, dv_fb, x_ab, dx_ab
        As given to and written by `forward` and `forward_tangent`.
    e_b : float64 [lane]
        e.
    work_mb : float64 [4 (2 l_max + 1), lane]
        Scratch.
    y_ab, dy_ab : float64 [a, lane]
        Written: dL/dx' and dL/dx.
    g_fb, h_fb : float64 [f, lane]
        Written: dL/dv' = dE/dv, and dL/dv.
    weight_gradient : float64 [q]
        Added to: dL/dA.
    """
    n_m = work_mb.shape[0] // 4
    p_mb, w_mb = work_mb[:n_m], work_mb[n_m : 2 * n_m]
    t_mb, dt_mb = work_mb[2 * n_m : 3 * n_m], work_mb[3 * n_m :]
    last = train.bond_first[train.bond_first.shape[0] - 2]
    zero = splat(0.0)
    for a in range(y_ab.shape[0]):
        store(y_ab, a, zero)
        store(dy_ab, a, zero)
    store(y_ab, last, splat(1.0))
    store(dy_ab, last, load(e_b, 0))
    for f in range(g_fb.shape[0]):
        store(g_fb, f, zero)
        store(h_fb, f, zero)
    for path in range(train.path.shape[0] - 1, -1, -1):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            for a2 in range(n2):
                at = weight + (a1 * n2 + a2) * n3
                for m3 in range(components):
                    p, w = zero, zero
                    for a3 in range(n3):
                        a, i3 = splat(weights[at + a3]), right + m3 * n3 + a3
                        p = fma(a, load(y_ab, i3), p)
                        w = fma(a, load(dy_ab, i3), w)
                    store(p_mb, m3, p)
                    store(w_mb, m3, w)
                    store(t_mb, m3, zero)
                    store(dt_mb, m3, zero)
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1 + a1
                    i2 = feature + train.coupling_index[z, 1] * n2 + a2
                    m3 = train.coupling_index[z, 2]
                    c = splat(train.coupling_value[z])
                    x, dx, v, dv = load(x_ab, i1), load(dx_ab, i1), load(v_fb, i2), load(dv_fb, i2)
                    p, w = mul(c, load(p_mb, m3)), mul(c, load(w_mb, m3))
                    cx = mul(c, x)
                    store(t_mb, m3, fma(cx, v, load(t_mb, m3)))
                    store(dt_mb, m3, fma(mul(c, dx), v, fma(cx, dv, load(dt_mb, m3))))
                    store(y_ab, i1, fma(p, v, load(y_ab, i1)))
                    store(dy_ab, i1, fma(w, v, fma(p, dv, load(dy_ab, i1))))
                    store(g_fb, i2, fma(p, x, load(g_fb, i2)))
                    store(h_fb, i2, fma(w, x, fma(p, dx, load(h_fb, i2))))
                for a3 in range(n3):
                    row = zero
                    for m3 in range(components):
                        i3 = right + m3 * n3 + a3
                        row = fma(load(dy_ab, i3), load(t_mb, m3), fma(load(y_ab, i3), load(dt_mb, m3), row))
                    weight_gradient[at + a3] += total(row)
    rank_0 = train.bond_first[1]
    for a in range(rank_0):
        for b in range(LANES):
            weight_gradient[type_b[b] * rank_0 + a] += dy_ab[a, b]
