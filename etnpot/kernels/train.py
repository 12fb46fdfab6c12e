"""The tensor train on one block of atoms: forward, adjoint, and both along a tangent.

    x_k[l3 m3 a3] = sum over paths of dT/dy_k[l3 m3 a3],    y_{k-1} = sum dT/dx_{k-1},    g = sum dT/dv,
    T = sum_{a1 a2 a3} sum_{m1 m2 m3} A[a1, a2, a3] C[m1, m2, m3] x_{k-1}[m1 a1] v[m2 a2] y_k[m3 a3]         (1)

with the energy E = x_d, y_k = dE/dx_k, g = dE/dv. The form T of a path is linear in three rows of components ("roles": left,
feature, right). One of them is its spectator s, the two that follow in cyclic order are p and q:

    W[ms, ap, aq] = sum_as A z_s[ms as]                                                         ``spread``
    dT/dz_p[mp ap] = sum_{mq ms} C sum_aq W[ms, ap, aq] z_q[mq aq]      (p and q swapped alike)   ``contract``
    dT/dz_s[ms as] = sum_{ap aq} A sum_{mp mq} C z_p[mp ap] z_q[mq aq]                          ``couple``     (2)

and s is chosen, path by path, where these take the fewest multiplications (`etnpot.potential.tables.spectator`). In
`contract` and `couple` the terms of a sum are those coefficients that share one component of the result, a "run", listed
with the rows that they multiply.

Along a tangent v' of the features two passes on (x, x') and (y, y') give E' = g.v', and the derivatives of e E + E' with
respect to v, v' and every entry of every core. All of this is per atom; the last axis is the lane.

============  ================================================================================
symbol        here
============  ================================================================================
x_0 .. x_d    rows of ``x_ab``, bond k from ``train.bond_first[k]``
v             ``v_fb`` [f, lane], f = offset(l) + m * rank + a2
A             ``weights`` [q]: the head [z, a], then the cores, as ``Train.flat``
C             ``train.coupling_index`` [nz, (m1, m2, m3)], ``train.coupling_value`` [nz]
runs of C     ``train.run_first`` [run], ``train.term_rows`` [term, 2], ``train.term_value`` [term]
W             ``work_ab`` [(ms, ap, aq), lane]
paths         rows of ``train.path``: columns below
============  ================================================================================
"""

from etnpot._jit import njit
from etnpot.kernels.lanes import LANES, entry, fma, load, mul, splat, store, total

__all__ = ["adjoint", "adjoint_tangent", "forward", "forward_tangent", "pull_back_tangent"]

# roles in a path: left, feature, right
X, V, Y = range(3)
# columns of train.path: the first row of a role and its rank are columns 2 role and 2 role + 1
LEFT, RANK_LEFT, FEATURE, CHANNELS, RIGHT, RANK_RIGHT, WEIGHT, COUPLING, COUPLING_END = range(9)
# of a role: 2 l + 1, first run, and distance of its copies in the weights are columns COMPONENTS + role, ...
COMPONENTS, RUNS, WEIGHT_STEP, SPECTATOR = 9, 12, 15, 18


@njit(inner=True)
def spread(train, path, weights, z_ab, work_ab):
    """W of eq. (2) for one path, from the rows `z_ab` of its spectator."""
    table = train.path
    s = table[path, SPECTATOR]
    p, q = (s + 1) % 3, (s + 2) % 3
    n_s, n_p, n_q = table[path, 2 * s + 1], table[path, 2 * p + 1], table[path, 2 * q + 1]
    step_s, step_p, step_q = (
        table[path, WEIGHT_STEP + s], table[path, WEIGHT_STEP + p], table[path, WEIGHT_STEP + q],
    )  # fmt: skip
    out = 0
    for m in range(table[path, COMPONENTS + s]):
        z = table[path, 2 * s] + m * n_s
        for a_p in range(n_p):
            at = table[path, WEIGHT] + a_p * step_p
            for _ in range(n_q):
                row = splat(0.0)
                for a in range(n_s):
                    row = fma(splat(entry(weights, at + a * step_s)), load(z_ab, z + a), row)
                store(work_ab, out, row)
                out += 1
                at += step_q


@njit(inner=True)
def contract(train, path, other, out_ab, z_ab, work_ab):
    """Add dT/dz of eq. (2) for one path, from a role that is not its spectator to the third one.

    Parameters
    ----------
    train : TrainTables
    path, other : int
    out_ab : float64 [a, lane]
        Added to, from the first row of the third role.
    z_ab : float64 [a, lane]
        Rows of the role `other`.
    work_ab : float64 [(ms, ap, aq), lane]
        W.
    """
    table, rows, value = train.path, train.term_rows, train.term_value
    role = X + V + Y - other - table[path, SPECTATOR]
    first, n_other = table[path, 2 * other], table[path, 2 * other + 1]
    out, n_out = table[path, 2 * role], table[path, 2 * role + 1]
    step = n_other if (role + 1) % 3 == other else 1  # the role is p, or q
    begin_run = table[path, RUNS + role]
    for run in range(begin_run, begin_run + table[path, COMPONENTS + role]):
        begin, end = entry(train.run_first, run), entry(train.run_first, run + 1)
        for a in range(n_out):
            row = load(out_ab, out)
            for term in range(begin, end):
                cz = mul(splat(entry(value, term)), load(z_ab, first + entry(rows, 2 * term)))
                row = fma(cz, load(work_ab, a * step + entry(rows, 2 * term + 1)), row)
            store(out_ab, out, row)
            out += 1


@njit(inner=True)
def couple(train, path, weights, p_ab, q_ab, out_ab):
    """Add dT/dz of eq. (2) for the spectator of one path to the rows `out_ab`."""
    table, rows, value = train.path, train.term_rows, train.term_value
    s = table[path, SPECTATOR]
    p, q = (s + 1) % 3, (s + 2) % 3
    first_p, first_q, out = table[path, 2 * p], table[path, 2 * q], table[path, 2 * s]
    n_s, n_p, n_q = table[path, 2 * s + 1], table[path, 2 * p + 1], table[path, 2 * q + 1]
    step_s, step_p, step_q = (
        table[path, WEIGHT_STEP + s], table[path, WEIGHT_STEP + p], table[path, WEIGHT_STEP + q],
    )  # fmt: skip
    begin_run = table[path, RUNS + s]
    for run in range(begin_run, begin_run + table[path, COMPONENTS + s]):
        begin, end = entry(train.run_first, run), entry(train.run_first, run + 1)
        for a_p in range(n_p):
            at = table[path, WEIGHT] + a_p * step_p
            for a_q in range(n_q):
                product = splat(0.0)
                for term in range(begin, end):
                    z = load(p_ab, first_p + a_p + entry(rows, 2 * term))
                    cz = mul(splat(entry(value, term)), z)
                    product = fma(cz, load(q_ab, first_q + a_q + entry(rows, 2 * term + 1)), product)
                for a in range(n_s):
                    w = splat(entry(weights, at + a * step_s))
                    store(out_ab, out + a, fma(w, product, load(out_ab, out + a)))
                at += step_q
        out += n_s


@njit(inner=True)
def forward(train, weights, type_b, v_fb, work_ab, x_ab):
    """Eq. (1): every bond vector of a block of atoms.

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
    type_b : int64 [lane]
        Type of the central atom.
    v_fb : float64 [f, lane]
    work_ab : float64 [``train.n_work_rows``, lane]
        Scratch.
    x_ab : float64 [a, lane]
        Written: all bonds, stacked.
    """
    rank_0 = train.bond_first[1]
    for a in range(rank_0):
        for b in range(LANES):
            x_ab[a, b] = weights[type_b[b] * rank_0 + a]
    for a in range(rank_0, x_ab.shape[0]):
        store(x_ab, a, splat(0.0))
    for path in range(train.path.shape[0]):
        s = train.path[path, SPECTATOR]
        if s == Y:
            couple(train, path, weights, x_ab, v_fb, x_ab)
        else:
            other = X + V - s
            spread(train, path, weights, x_ab if s == X else v_fb, work_ab)
            contract(train, path, other, x_ab, v_fb if other == V else x_ab, work_ab)


@njit(inner=True)
def pull_back(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb):
    """Eq. (1) backwards from the rows of the last bond in `y_ab`, all others of which are zero; `g_fb` is written."""
    for f in range(g_fb.shape[0]):
        store(g_fb, f, splat(0.0))
    for path in range(train.path.shape[0] - 1, -1, -1):
        s = train.path[path, SPECTATOR]
        spread(train, path, weights, x_ab if s == X else v_fb if s == V else y_ab, work_ab)
        for role in range(X, Y):
            out_ab = y_ab if role == X else g_fb
            if role == s:
                couple(train, path, weights, v_fb if s == X else y_ab, y_ab if s == X else x_ab, out_ab)
            else:  # from the third role, which is not the spectator
                other = X + V + Y - role - s
                contract(
                    train, path, other, out_ab, x_ab if other == X else v_fb if other == V else y_ab, work_ab
                )


@njit(inline="always", inner=True)
def adjoint(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb):
    """Eq. (1) backwards for E = the last bond (one scalar): y = dE/dx and g = dE/dv.

    Parameters
    ----------
    train, weights, v_fb, x_ab
        As given to and written by `forward`.
    work_ab : float64 [``train.n_work_rows``, lane]
        Scratch.
    y_ab : float64 [a, lane]
        Written: dE/dx of all bonds.
    g_fb : float64 [f, lane]
        Written: dE/dv.
    """
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for a in range(y_ab.shape[0]):
        store(y_ab, a, splat(1.0 if a == last else 0.0))
    pull_back(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb)


@njit(inner=True)
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
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS + Y]
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


@njit(inner=True)
def adjoint_tangent(
    train, weights, type_b, e_b, v_fb, dv_fb, x_ab, dx_ab, work_mb, y_ab, dy_ab, g_fb, h_fb, weight_gradient
):
    """Derivatives of L = sum over lanes of e E + E' with respect to v, v' and every entry of the train.

    With y = dL/dx' (the ordinary adjoint) and w = dL/dx, eq. (1) becomes, for each (a1, a2), with t = C x v and t' its tangent,

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
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for a in range(y_ab.shape[0]):
        store(y_ab, a, splat(0.0))
        store(dy_ab, a, splat(0.0))
    store(y_ab, last, splat(1.0))
    store(dy_ab, last, load(e_b, 0))
    pull_back_tangent(
        train, weights, type_b, v_fb, dv_fb, x_ab, dx_ab, work_mb, y_ab, dy_ab, g_fb, h_fb, weight_gradient
    )


@njit(inner=True)
def pull_back_tangent(
    train, weights, type_b, v_fb, dv_fb, x_ab, dx_ab, work_mb, y_ab, dy_ab, g_fb, h_fb, weight_gradient
):
    """What `adjoint_tangent` does, from the rows of the last bond in `y_ab` (dL/dx') and `dy_ab` (dL/dx), all others of which
    are zero."""
    n_m = work_mb.shape[0] // 4
    p_mb, w_mb = work_mb[:n_m], work_mb[n_m : 2 * n_m]
    t_mb, dt_mb = work_mb[2 * n_m : 3 * n_m], work_mb[3 * n_m :]
    zero = splat(0.0)
    for f in range(g_fb.shape[0]):
        store(g_fb, f, zero)
        store(h_fb, f, zero)
    for path in range(train.path.shape[0] - 1, -1, -1):
        left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
        feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
        right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
        weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS + Y]
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
