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
from etnpot.kernels.basis import LANES

__all__ = ["adjoint", "adjoint_tangent", "forward", "forward_tangent"]

# columns of train.path
LEFT, RANK_LEFT, FEATURE, CHANNELS, RIGHT, RANK_RIGHT, WEIGHT, COUPLING, COUPLING_END, COMPONENTS = range(10)


@njit
def forward(train, weights, type_b, v_fb, t_mb, x_ab):
    """Eq. (1): every bond vector of a block of atoms.

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
    type_b : int64 [lane]
        Type of the central atom.
    v_fb : float64 [f, lane]
    t_mb : float64 [m3, lane]
        Scratch.
    x_ab : float64 [a, lane]
        Written: all bonds, stacked.
    """
    rank_0 = train.bond_first[1]
    for a in range(rank_0):
        for b in range(LANES):
            x_ab[a, b] = weights[type_b[b] * rank_0 + a]
    for a in range(rank_0, x_ab.shape[0]):
        for b in range(LANES):
            x_ab[a, b] = 0.0
    for path in range(train.path.shape[0]):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            for a2 in range(n2):
                for m3 in range(components):
                    for b in range(LANES):
                        t_mb[m3, b] = 0.0
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1 + a1
                    i2 = feature + train.coupling_index[z, 1] * n2 + a2
                    m3 = train.coupling_index[z, 2]
                    c = train.coupling_value[z]
                    for b in range(LANES):
                        t_mb[m3, b] += c * x_ab[i1, b] * v_fb[i2, b]
                at = weight + (a1 * n2 + a2) * n3
                for m3 in range(components):
                    for a3 in range(n3):
                        w = weights[at + a3]
                        i3 = right + m3 * n3 + a3
                        for b in range(LANES):
                            x_ab[i3, b] += w * t_mb[m3, b]


@njit
def adjoint(train, weights, v_fb, x_ab, p_mb, y_ab, g_fb):
    """Eq. (2) for E = the last bond (one scalar): g = dE/dv.

    Parameters
    ----------
    train, weights, v_fb, x_ab
        As given to and written by `forward`.
    p_mb : float64 [m3, lane]
        Scratch.
    y_ab : float64 [a, lane]
        Written: dE/dx of all bonds.
    g_fb : float64 [f, lane]
        Written: dE/dv.
    """
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for a in range(y_ab.shape[0]):
        value = 1.0 if a == last else 0.0
        for b in range(LANES):
            y_ab[a, b] = value
    for f in range(g_fb.shape[0]):
        for b in range(LANES):
            g_fb[f, b] = 0.0
    for path in range(train.path.shape[0] - 1, -1, -1):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            for a2 in range(n2):
                at = weight + (a1 * n2 + a2) * n3
                for m3 in range(components):
                    for b in range(LANES):
                        p_mb[m3, b] = 0.0
                    for a3 in range(n3):
                        w = weights[at + a3]
                        i3 = right + m3 * n3 + a3
                        for b in range(LANES):
                            p_mb[m3, b] += w * y_ab[i3, b]
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1 + a1
                    i2 = feature + train.coupling_index[z, 1] * n2 + a2
                    m3 = train.coupling_index[z, 2]
                    c = train.coupling_value[z]
                    for b in range(LANES):
                        p = c * p_mb[m3, b]
                        y_ab[i1, b] += p * v_fb[i2, b]
                        g_fb[i2, b] += p * x_ab[i1, b]


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
    for a in range(dx_ab.shape[0]):
        for b in range(LANES):
            dx_ab[a, b] = 0.0
    for path in range(train.path.shape[0]):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            for a2 in range(n2):
                for m3 in range(components):
                    for b in range(LANES):
                        t_mb[m3, b] = 0.0
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1 + a1
                    i2 = feature + train.coupling_index[z, 1] * n2 + a2
                    m3 = train.coupling_index[z, 2]
                    c = train.coupling_value[z]
                    for b in range(LANES):
                        t_mb[m3, b] += c * (dx_ab[i1, b] * v_fb[i2, b] + x_ab[i1, b] * dv_fb[i2, b])
                at = weight + (a1 * n2 + a2) * n3
                for m3 in range(components):
                    for a3 in range(n3):
                        w = weights[at + a3]
                        i3 = right + m3 * n3 + a3
                        for b in range(LANES):
                            dx_ab[i3, b] += w * t_mb[m3, b]


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
    for a in range(y_ab.shape[0]):
        for b in range(LANES):
            y_ab[a, b] = 1.0 if a == last else 0.0
            dy_ab[a, b] = e_b[b] if a == last else 0.0
    for f in range(g_fb.shape[0]):
        for b in range(LANES):
            g_fb[f, b] = 0.0
            h_fb[f, b] = 0.0
    for path in range(train.path.shape[0] - 1, -1, -1):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
        for a1 in range(n1):
            for a2 in range(n2):
                at = weight + (a1 * n2 + a2) * n3
                for m3 in range(components):
                    for b in range(LANES):
                        p_mb[m3, b] = 0.0
                        w_mb[m3, b] = 0.0
                        t_mb[m3, b] = 0.0
                        dt_mb[m3, b] = 0.0
                    for a3 in range(n3):
                        w = weights[at + a3]
                        i3 = right + m3 * n3 + a3
                        for b in range(LANES):
                            p_mb[m3, b] += w * y_ab[i3, b]
                            w_mb[m3, b] += w * dy_ab[i3, b]
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1 + a1
                    i2 = feature + train.coupling_index[z, 1] * n2 + a2
                    m3 = train.coupling_index[z, 2]
                    c = train.coupling_value[z]
                    for b in range(LANES):
                        x, dx = x_ab[i1, b], dx_ab[i1, b]
                        v, dv = v_fb[i2, b], dv_fb[i2, b]
                        p, w = c * p_mb[m3, b], c * w_mb[m3, b]
                        t_mb[m3, b] += c * x * v
                        dt_mb[m3, b] += c * (dx * v + x * dv)
                        y_ab[i1, b] += p * v
                        dy_ab[i1, b] += w * v + p * dv
                        g_fb[i2, b] += p * x
                        h_fb[i2, b] += w * x + p * dx
                for a3 in range(n3):
                    total = 0.0
                    for m3 in range(components):
                        i3 = right + m3 * n3 + a3
                        for b in range(LANES):
                            total += dy_ab[i3, b] * t_mb[m3, b] + y_ab[i3, b] * dt_mb[m3, b]
                    weight_gradient[at + a3] += total
    rank_0 = train.bond_first[1]
    for a in range(rank_0):
        for b in range(LANES):
            weight_gradient[type_b[b] * rank_0 + a] += dy_ab[a, b]
