"""Messages and the weights of attention with their adjoints: products are summed over the neighbours, and coupled once an atom.

    A_i[lm, c] = sum_p alpha_p R_lc(r_p) Y_lm(u_p) x_j[c],      u_i[f] = sum C A_i[lm, c]                        (1)
    G_i[lm, c] = sum C dL/du_i[f],      D_p[l, c] = sum_m G_i[lm, c] Y_lm(u_p)                                   (2)
    dL/dr_p = u sum_lc alpha R'_lc x_j[c] D_p[l, c] + (1/r) sum_lmc alpha R_lc x_j[c] G_i[lm, c] dY_lm/du        (3)
    dL/dx_j[c] += alpha_p sum_l R_lc D_p[l, c],      dL/dalpha_p = sum_lc R_lc x_j[c] D_p[l, c]                  (4)

with dY/du on the sphere. The pairs of an atom are ordered by the type of the neighbour and filled up as in ``evaluate``; atoms
are coupled in blocks of `LANES`. Nothing of a pair is kept but its weight of attention,

    s_p = q_i . k_j / sqrt(D),      alpha_p = s_p   or   e_p / Z_i,   e_p = f(r_p) exp(s_p),   Z_i = 1 + sum_p e_p      (5)
    dL/ds_p = dL/dalpha_p   or   alpha_p (dL/dalpha_p - sum_p alpha_p dL/dalpha_p),
    dL/dr_p += dL/ds_p (d log f/d r^2) 2 r_p      (of the latter),                                                (6)

of each head. Kernels loop over a range of atoms; what they add to an atom or a pair of their range no other range adds to, but
for dL/dx, which goes to the neighbours: one array for each range.

============  ===================================================================================================
symbol        here
============  ===================================================================================================
c             components that are passed on, ``carried`` [c, 3]: row of x, copy, head
x_j           ``x_jo`` [j, o], the last bond of a train; of one atom's pairs ``x_cp`` [c, pair], times alpha ``ax_cp``
R             ``radial_lp`` [l copies + copy, pair], of ``radial_table`` [z_i, z_j, n, l copies + copy]
A, G          ``sum_sb`` [lm rows + c, lane], rows being the number of c, made even; of one atom ``g_s``
C             ``coupling_value`` [t], with ``coupling_index`` [t, 4]: lm, first c, first f, copies a
alpha         ``weight_ph`` [p, h]; of no heads where there is no attention
============  ===================================================================================================
"""

import math

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import harmonics, harmonics_gradient, legendre_rows, radial_functions
from etnpot.kernels.evaluate import combine_radial, gather_pairs, pair_capacity, sort_by_type
from etnpot.kernels.lanes import (
    LANES,
    OCTET,
    entry,
    fma,
    load,
    load_octet,
    mul,
    splat,
    splat_octet,
    store,
    store_octet,
    total,
)

__all__ = ["attend", "attend_adjoint", "messages", "messages_adjoint"]


@njit(inner=True)
def even(n):
    """The next even number."""
    return n + n % 2


@njit(inner=True)
def gather_carried(neighbor, order_p, n_pairs, n_filled, carried, x_jo, weight_ph, x_cp, ax_cp, alpha_hp):
    """x and alpha of the pairs of one atom, and alpha x, which is not written without attention; zero where filled up."""
    n_heads, step = weight_ph.shape[1], x_cp.shape[1]
    for k in range(n_pairs):
        row = entry(neighbor, entry(order_p, k)) * x_jo.shape[1]
        for c in range(carried.shape[0]):
            x_cp[c, k] = entry(x_jo, row + entry(carried, 3 * c))
        for h in range(n_heads):
            alpha_hp[h, k] = weight_ph[order_p[k], h]
    for k in range(n_pairs, n_filled):
        for c in range(carried.shape[0]):
            x_cp[c, k] = 0.0
        for h in range(n_heads):
            alpha_hp[h, k] = 0.0
    if n_heads > 0:
        for c in range(carried.shape[0]):
            row, head = c * step, carried[c, 2] * step
            for at in range(0, n_filled, OCTET):
                store_octet(ax_cp, row + at, mul(load_octet(alpha_hp, head + at), load_octet(x_cp, row + at)))


@njit(inner=True)
def sum_products(l_max, carried, radial_lp, x_cp, y_mp, n_filled, z_cp, sum_sb, b):
    """A of eq. (1) for the atom in lane b; `z_cp` is scratch whose rows beyond those of c are zero."""
    n_copies, n_rows, step = radial_lp.shape[0] // (l_max + 1), z_cp.shape[0], z_cp.shape[1]
    zero = splat_octet(0.0)
    for l in range(l_max + 1):
        for c in range(carried.shape[0]):
            radial, row = (l * n_copies + carried[c, 1]) * step, c * step
            for at in range(0, n_filled, OCTET):
                store_octet(
                    z_cp, row + at, mul(load_octet(radial_lp, radial + at), load_octet(x_cp, row + at))
                )
        for c in range(0, n_rows, 2):
            row, y, s = c * step, l * l * step, l * l * n_rows + c
            low, high = zero, zero
            for at in range(0, n_filled, OCTET):
                harmonic = load_octet(y_mp, y + at)
                low = fma(load_octet(z_cp, row + at), harmonic, low)
                high = fma(load_octet(z_cp, row + step + at), harmonic, high)
            sum_sb[s, b] = total(low)
            sum_sb[s + 1, b] = total(high)
            for _ in range(l):
                y += step
                s += n_rows
                low, high, low_next, high_next = zero, zero, zero, zero
                for at in range(0, n_filled, OCTET):
                    z, z_next = load_octet(z_cp, row + at), load_octet(z_cp, row + step + at)
                    harmonic, following = load_octet(y_mp, y + at), load_octet(y_mp, y + step + at)
                    low, high = fma(z, harmonic, low), fma(z_next, harmonic, high)
                    low_next, high_next = fma(z, following, low_next), fma(z_next, following, high_next)
                sum_sb[s, b] = total(low)
                sum_sb[s + 1, b] = total(high)
                y += step
                s += n_rows
                sum_sb[s, b] = total(low_next)
                sum_sb[s + 1, b] = total(high_next)


@njit
def messages(
    first, neighbor, r_pc, type_i, type_p, basis, radial_table, carried, coupling_index, coupling_value, weight_ph, x_jo,
    start, stop, v_if,
):  # fmt: skip
    """Eq. (1) for atoms ``start:stop``: u is added to its columns of v.

    Parameters
    ----------
    first, neighbor : int64
        Pairs of atom i are ``first[i]:first[i + 1]``; the neighbour of each.
    r_pc : float64 [p, c]
        Pair vectors, Å.
    type_i, type_p : int64
        Types of the atoms and of the neighbours.
    basis : BasisTables
    radial_table : float64 [z_i, z_j, n, l copies + copy]
        Of what the layer passes on.
    carried : int64 [c, 3]
    coupling_index, coupling_value : int64 [t, 4], float64 [t]
    weight_ph : float64 [p, h]
        Weights of attention; of no heads where there is none.
    x_jo : float64 [j, o]
    start, stop : int
    v_if : float64 [i, f]
        Added to.
    """
    n_p, l_max, n_c = pair_capacity(first, start, stop), basis.feature_first.shape[0] - 1, carried.shape[0]
    n_radial, n_lm, n_rows, n_features = basis.recurrence.shape[1], (l_max + 1) ** 2, even(n_c), v_if.shape[1]
    type_first, order_p = np.empty(radial_table.shape[1] + 2, np.int64), np.empty(n_p, np.int64)
    r_p, u_cp, y_mp = np.empty(n_p), np.empty((4, n_p)), np.empty((n_lm, n_p))
    phi_np, dphi_np = np.zeros((n_radial, n_p)), np.zeros((n_radial, n_p))
    radial_lp, dradial_lp = np.empty((radial_table.shape[3], n_p)), np.empty((radial_table.shape[3], n_p))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    x_cp, z_cp, alpha_hp = np.empty((n_c, n_p)), np.zeros((n_rows, n_p)), np.empty((weight_ph.shape[1], n_p))
    ax_cp = np.empty((n_c, n_p)) if weight_ph.shape[1] > 0 else x_cp
    sum_sb, u_fb = np.zeros((n_lm * n_rows, LANES)), np.empty((n_features, LANES))
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        for b in range(n_lanes):
            i = block + b
            sort_by_type(first, type_p, i, type_first, order_p)
            n_filled = gather_pairs(first, r_pc, i, basis.constants[1], order_p, r_p, u_cp)
            radial_functions(r_p[:n_filled], basis.codes, basis.constants, basis.recurrence, phi_np, dphi_np)
            combine_radial(
                radial_table, type_i[i], type_first, n_filled, phi_np, dphi_np, radial_lp, dradial_lp
            )
            harmonics(u_cp, n_filled, l_max, basis.legendre, legendre_tb, circle_mb, y_mp)
            gather_carried(
                neighbor,
                order_p,
                first[i + 1] - first[i],
                n_filled,
                carried,
                x_jo,
                weight_ph,
                x_cp,
                ax_cp,
                alpha_hp,
            )
            sum_products(l_max, carried, radial_lp, ax_cp, y_mp, n_filled, z_cp, sum_sb, b)
        for f in range(n_features):
            store(u_fb, f, splat(0.0))
        for t in range(coupling_index.shape[0]):
            s, f = coupling_index[t, 0] * n_rows + coupling_index[t, 1], coupling_index[t, 2]
            for a in range(coupling_index[t, 3]):
                store(u_fb, f + a, fma(splat(coupling_value[t]), load(sum_sb, s + a), load(u_fb, f + a)))
        for b in range(n_lanes):
            for f in range(n_features):
                v_if[block + b, f] += u_fb[f, b]


@njit(inner=True)
def octet_adjoint(
    l_max, carried, at, radial_lp, dradial_lp, x_cp, g_s, n_rows, y_mb, dy_cmb, z_cb, d_cb, bar_cp
):
    """Sums of eqs. (3) and (4) for the octet of pairs at `at`, with alpha x as `x_cp`.

    Returns
    -------
    slope, x, y, z : octets
        The first sum of eq. (3), and the three components of the second.
    """
    n_c, n_lm, step, zero = carried.shape[0], (l_max + 1) * (l_max + 1), x_cp.shape[1], splat_octet(0.0)
    n_copies = radial_lp.shape[0] // (l_max + 1)
    next_y, next_z = n_lm * OCTET, 2 * n_lm * OCTET
    slope, x, y, z = zero, zero, zero, zero
    for c in range(n_c):
        store_octet(bar_cp, c * step + at, zero)
    for l in range(l_max + 1):
        g, lm = l * l * n_rows, l * l * OCTET
        harmonic, product = load_octet(y_mb, lm), zero
        for c in range(n_c):
            radial = load_octet(radial_lp, (l * n_copies + entry(carried, 3 * c + 1)) * step + at)
            rx, w = mul(radial, load_octet(x_cp, c * step + at)), splat_octet(entry(g_s, g + c))
            store_octet(z_cb, c * OCTET, rx)
            store_octet(d_cb, c * OCTET, mul(w, harmonic))
            product = fma(w, rx, product)
        x = fma(product, load_octet(dy_cmb, lm), x)
        y = fma(product, load_octet(dy_cmb, next_y + lm), y)
        z = fma(product, load_octet(dy_cmb, next_z + lm), z)
        for _ in range(l):
            g, lm = g + n_rows, lm + OCTET
            harmonic, following = load_octet(y_mb, lm), load_octet(y_mb, lm + OCTET)
            product, product_next = zero, zero
            for c in range(n_c):
                rx, d = load_octet(z_cb, c * OCTET), load_octet(d_cb, c * OCTET)
                w, w_next = splat_octet(entry(g_s, g + c)), splat_octet(entry(g_s, g + n_rows + c))
                product, product_next = fma(w, rx, product), fma(w_next, rx, product_next)
                store_octet(d_cb, c * OCTET, fma(w, harmonic, fma(w_next, following, d)))
            x = fma(product, load_octet(dy_cmb, lm), x)
            y = fma(product, load_octet(dy_cmb, next_y + lm), y)
            z = fma(product, load_octet(dy_cmb, next_z + lm), z)
            g, lm = g + n_rows, lm + OCTET
            x = fma(product_next, load_octet(dy_cmb, lm), x)
            y = fma(product_next, load_octet(dy_cmb, next_y + lm), y)
            z = fma(product_next, load_octet(dy_cmb, next_z + lm), z)
        for c in range(n_c):
            row, place = (l * n_copies + entry(carried, 3 * c + 1)) * step + at, c * step + at
            d = load_octet(d_cb, c * OCTET)
            slope = fma(mul(d, load_octet(x_cp, place)), load_octet(dradial_lp, row), slope)
            store_octet(bar_cp, place, fma(d, load_octet(radial_lp, row), load_octet(bar_cp, place)))
    return slope, x, y, z


@njit(inner=True)
def attention_products(carried, n_filled, x_cp, alpha_hp, bar_cp, alpha_bar_hp):
    """Eq. (4) with attention: dL/dalpha of the pairs of one atom is written, and `bar_cp` multiplied by alpha."""
    step = x_cp.shape[1]
    alpha_bar_hp[:] = 0.0
    for c in range(carried.shape[0]):
        row, head = c * step, carried[c, 2] * step
        for at in range(0, n_filled, OCTET):
            bar, sums = load_octet(bar_cp, row + at), load_octet(alpha_bar_hp, head + at)
            store_octet(alpha_bar_hp, head + at, fma(bar, load_octet(x_cp, row + at), sums))
            store_octet(bar_cp, row + at, mul(bar, load_octet(alpha_hp, head + at)))


@njit
def messages_adjoint(
    first, neighbor, r_pc, type_i, type_p, basis, radial_table, carried, coupling_index, coupling_value, weight_ph, x_jo,
    g_if, start, stop, dE_dr_pc, xbar_jo, weight_bar_ph,
):  # fmt: skip
    """Eqs. (2) to (4) for atoms ``start:stop``, from dL/dv.

    Parameters
    ----------
    first, neighbor, r_pc, type_i, type_p, basis, radial_table, carried, coupling_index, coupling_value, weight_ph, x_jo
        As for `messages`.
    g_if : float64 [i, f]
        dL/dv.
    start, stop : int
    dE_dr_pc : float64 [p, c]
        Added to: dL/dr of the pairs of the range, at fixed weights of attention, eV/Å.
    xbar_jo : float64 [j, o]
        Added to, at every neighbour: dL/dx.
    weight_bar_ph : float64 [p, h]
        Written for the pairs of the range: dL/dalpha.
    """
    n_p, l_max, n_c = pair_capacity(first, start, stop), basis.feature_first.shape[0] - 1, carried.shape[0]
    n_radial, n_lm, n_rows, n_features = basis.recurrence.shape[1], (l_max + 1) ** 2, even(n_c), g_if.shape[1]
    n_heads = weight_ph.shape[1]
    type_first, order_p = np.empty(radial_table.shape[1] + 2, np.int64), np.empty(n_p, np.int64)
    r_p, u_cp, u_cb = np.empty(n_p), np.empty((4, n_p)), np.empty((3, OCTET))
    y_mb, dy_cmb = np.empty((n_lm, OCTET)), np.empty((3, n_lm, OCTET))
    phi_np, dphi_np = np.zeros((n_radial, n_p)), np.zeros((n_radial, n_p))
    radial_lp, dradial_lp = np.empty((radial_table.shape[3], n_p)), np.empty((radial_table.shape[3], n_p))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    x_cp, bar_cp, alpha_hp, alpha_bar_hp = (
        np.empty((n_c, n_p)), np.empty((n_c, n_p)), np.empty((n_heads, n_p)), np.empty((n_heads, n_p)),
    )  # fmt: skip
    ax_cp = np.empty((n_c, n_p)) if n_heads > 0 else x_cp
    z_cb, d_cb, g_s = np.empty((n_c, OCTET)), np.empty((n_c, OCTET)), np.empty(n_lm * n_rows)
    sum_sb, u_fb = np.empty((n_lm * n_rows, LANES)), np.zeros((n_features, LANES))
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        for b in range(n_lanes):
            for f in range(n_features):
                u_fb[f, b] = g_if[block + b, f]
        for s in range(n_lm * n_rows):
            store(sum_sb, s, splat(0.0))
        for t in range(coupling_index.shape[0]):
            s, f = coupling_index[t, 0] * n_rows + coupling_index[t, 1], coupling_index[t, 2]
            for a in range(coupling_index[t, 3]):
                store(sum_sb, s + a, fma(splat(coupling_value[t]), load(u_fb, f + a), load(sum_sb, s + a)))
        for b in range(n_lanes):
            i, n_pairs = block + b, first[block + b + 1] - first[block + b]
            for s in range(n_lm * n_rows):
                g_s[s] = sum_sb[s, b]
            sort_by_type(first, type_p, i, type_first, order_p)
            n_filled = gather_pairs(first, r_pc, i, basis.constants[1], order_p, r_p, u_cp)
            radial_functions(r_p[:n_filled], basis.codes, basis.constants, basis.recurrence, phi_np, dphi_np)
            combine_radial(
                radial_table, type_i[i], type_first, n_filled, phi_np, dphi_np, radial_lp, dradial_lp
            )
            gather_carried(
                neighbor, order_p, n_pairs, n_filled, carried, x_jo, weight_ph, x_cp, ax_cp, alpha_hp
            )
            for at in range(0, n_filled, OCTET):
                for c in range(3):
                    store_octet(u_cb, c * OCTET, load_octet(u_cp, c * n_p + at))
                harmonics_gradient(u_cb, l_max, basis.legendre, legendre_tb, circle_mb, y_mb, dy_cmb)
                slope, gx, gy, gz = octet_adjoint(
                    l_max,
                    carried,
                    at,
                    radial_lp,
                    dradial_lp,
                    ax_cp,
                    g_s,
                    n_rows,
                    y_mb,
                    dy_cmb,
                    z_cb,
                    d_cb,
                    bar_cp,
                )
                over_r = load_octet(u_cp, 3 * n_p + at)
                store_octet(u_cp, at, fma(slope, load_octet(u_cb, 0), mul(gx, over_r)))
                store_octet(u_cp, n_p + at, fma(slope, load_octet(u_cb, OCTET), mul(gy, over_r)))
                store_octet(u_cp, 2 * n_p + at, fma(slope, load_octet(u_cb, 2 * OCTET), mul(gz, over_r)))
            if n_heads > 0:
                attention_products(carried, n_filled, x_cp, alpha_hp, bar_cp, alpha_bar_hp)
            for k in range(n_pairs):
                p = order_p[k]
                j = neighbor[p]
                for c in range(3):
                    dE_dr_pc[p, c] += u_cp[c, k]
                for c in range(n_c):
                    xbar_jo[j, carried[c, 0]] += bar_cp[c, k]
                for h in range(n_heads):
                    weight_bar_ph[p, h] = alpha_bar_hp[h, k]


@njit
def attend(first, neighbor, x_jo, queries, keys, envelope_p, normalised, start, stop, weight_ph, total_ih):
    """Eq. (5) for the pairs of atoms ``start:stop``.

    Parameters
    ----------
    first, neighbor, x_jo, start, stop
        As for `messages`.
    queries, keys : int64 [h, d]
        Columns of x.
    envelope_p : float64 [p]
        f.
    normalised : bool
        Whether alpha is e / Z.
    weight_ph : float64 [p, h]
        Written for the range: alpha.
    total_ih : float64 [i, h]
        Written for the range where normalised: Z, times exp(-max(0, s)) of the atom, so that nothing overflows.
    """
    n_heads, width = queries.shape
    scale = 1.0 / math.sqrt(width)
    for i in range(start, stop):
        for h in range(n_heads):
            top = 0.0
            for p in range(first[i], first[i + 1]):
                j, score = neighbor[p], 0.0
                for d in range(width):
                    score += x_jo[i, queries[h, d]] * x_jo[j, keys[h, d]]
                weight_ph[p, h] = scale * score
                top = max(top, weight_ph[p, h])
            if normalised:
                sums = math.exp(-top)
                for p in range(first[i], first[i + 1]):
                    weight_ph[p, h] = envelope_p[p] * math.exp(weight_ph[p, h] - top)
                    sums += weight_ph[p, h]
                for p in range(first[i], first[i + 1]):
                    weight_ph[p, h] /= sums
                total_ih[i, h] = sums


@njit
def attend_adjoint(
    first, neighbor, r_pc, x_jo, queries, keys, slope_p, normalised, weight_ph, weight_bar_ph, start, stop, dE_dr_pc,
    xbar_jo,
):  # fmt: skip
    """Eq. (6) for the pairs of atoms ``start:stop``, and dL/dx of queries and keys.

    Parameters
    ----------
    first, neighbor, x_jo, queries, keys, normalised, start, stop
        As for `attend`.
    r_pc : float64 [p, c]
        Pair vectors, Å.
    slope_p : float64 [p]
        d log f/d r^2, zero where f vanishes, 1/Å^2.
    weight_ph, weight_bar_ph : float64 [p, h]
        alpha and dL/dalpha.
    dE_dr_pc : float64 [p, c]
        Added to for the pairs of the range, eV/Å.
    xbar_jo : float64 [j, o]
        Added to, at every neighbour.
    """
    n_heads, width = queries.shape
    scale = 1.0 / math.sqrt(width)
    for i in range(start, stop):
        for h in range(n_heads):
            mean = 0.0
            if normalised:
                for p in range(first[i], first[i + 1]):
                    mean += weight_ph[p, h] * weight_bar_ph[p, h]
            for p in range(first[i], first[i + 1]):
                j, score_bar = neighbor[p], weight_bar_ph[p, h]
                if normalised:
                    score_bar = weight_ph[p, h] * (score_bar - mean)
                    along = 2.0 * score_bar * slope_p[p]
                    for c in range(3):
                        dE_dr_pc[p, c] += along * r_pc[p, c]
                for d in range(width):
                    q, k = queries[h, d], keys[h, d]
                    xbar_jo[i, q] += scale * score_bar * x_jo[j, k]
                    xbar_jo[j, k] += scale * score_bar * x_jo[i, q]
