"""Energies and pair derivatives of a range of atoms: pair stage, train, and back.

    R_lc(r)    = sum_n T[z_i, z_j, n, lc] phi_n(r)                                     (1)
    v[l, m, c] = sum_j R_lc(r_ij) Y_lm(u_ij),    v[0, 0, constant] = 1                 (2)
    dE/dr_p    = u sum_lmc g_lmc R'_lc Y_lm + (1/r) (1 - u u^T) sum_lmc g_lmc R_lc dY_lm/du   (3)

with g = dE/dv from the adjoint pass of the train. The pair stage takes one atom at a time, its pairs sorted by the type of
the neighbour and filled up to a multiple of `OCTET` with pairs of length r_c, where all radial functions vanish. The train
takes a block of `LANES` atoms. R and R' of the block are kept for the way back; the harmonics are computed again.

With Y_lm = P_l^|m|(u_z) {s_|m|, c_m}(u_x, u_y) as in ``basis``, the sums over l in eq. (3) are taken first, for each m:

    K_lm = sum_c g_lmc R_lc,    A_m = sum_l K_lm P_l^m,    B_m = sum_l K_l,-m P_l^m                   (4)
    sum g R dY/du_x = sum_m m (A_m c_{m-1} + B_m s_{m-1}),    .../du_y = sum_m m (B_m c_{m-1} - A_m s_{m-1}),

u_z as A_m, B_m with dP_l^m/dz, and the first sum of eq. (3) as K with R'.

============  ==============================================================================================
symbol        here
============  ==============================================================================================
T             ``radial_table`` [z_i, z_j, n, lc], with N^(-1/2) folded in; lc = channels of l = 0, 1, ...
edges         ``first`` [i], ``r_pc`` [p, c], ``type_i``, ``type_p`` (type of the neighbour of pair p)
u, 1/r        ``u_cp`` [0:3, pair], ``u_cp`` [3, pair]
R, R'         ``radial_lp``, ``dradial_lp`` [lc, pair]
v, g          ``v_fb``, ``g_fb`` [f, lane]; of one atom ``g_f``
============  ==============================================================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import angular_factors, harmonics, legendre_rows, radial_functions
from etnpot.kernels.lanes import (
    LANES,
    OCTET,
    QUAD,
    add,
    div,
    entry,
    fma,
    load_octet,
    load_quad,
    mul,
    splat_octet,
    splat_quad,
    sqrt,
    store_octet,
    store_quad,
    sub,
    total,
)
from etnpot.kernels.train import adjoint, forward

__all__ = ["bonds", "evaluate", "features", "features_adjoint"]


@njit(inner=True)
def largest_neighborhood(first, start, stop):
    """Most neighbours of any atom in ``start:stop``."""
    most = 0
    for i in range(start, stop):
        most = max(most, first[i + 1] - first[i])
    return most


@njit(inner=True)
def pair_capacity(first, start, stop):
    """Length of the pair axis of scratch: the most neighbours of an atom, filled up, and what is overshot."""
    return (largest_neighborhood(first, start, stop) + OCTET - 1) // OCTET * OCTET + OCTET


@njit(inner=True)
def sort_by_type(first, type_p, i, type_first, order_p):
    """Pairs of atom i ordered by the type z of the neighbour: those of z are ``type_first[z]:type_first[z + 1]``."""
    for z in range(type_first.shape[0]):
        type_first[z] = 0
    for pair in range(first[i], first[i + 1]):
        type_first[np.uint64(type_p[np.uint64(pair)] + 2)] += 1
    for z in range(2, type_first.shape[0]):
        type_first[z] += type_first[z - 1]
    for pair in range(first[i], first[i + 1]):
        z = np.uint64(type_p[np.uint64(pair)] + 1)
        order_p[np.uint64(type_first[z])] = pair
        type_first[z] += 1


@njit(inner=True)
def gather_pairs(first, r_pc, i, cutoff, order_p, r_p, u_cp):
    """Distances, unit vectors and 1/r of the pairs of atom i in the order given; returns their number, filled up."""
    n_pairs = first[i + 1] - first[i]
    n_filled = (n_pairs + OCTET - 1) // OCTET * OCTET
    step = u_cp.shape[1]
    for k in range(n_pairs):
        p = np.uint64(order_p[k])
        for c in range(3):
            u_cp[c, k] = r_pc[p, c]
    for k in range(n_pairs, n_filled):
        u_cp[0, k] = 0.0
        u_cp[1, k] = 0.0
        u_cp[2, k] = cutoff
    for at in range(0, n_filled, OCTET):
        x, y, z = load_octet(u_cp, at), load_octet(u_cp, at + step), load_octet(u_cp, at + 2 * step)
        r = sqrt(fma(x, x, fma(y, y, mul(z, z))))
        over_r = div(splat_octet(1.0), r)
        store_octet(r_p, at, r)
        store_octet(u_cp, at, mul(x, over_r))
        store_octet(u_cp, at + step, mul(y, over_r))
        store_octet(u_cp, at + 2 * step, mul(z, over_r))
        store_octet(u_cp, at + 3 * step, over_r)
    return n_filled


@njit(inner=True)
def combine_radial(table, zi, type_first, n_filled, phi_np, dphi_np, radial_lp, dradial_lp):
    """Eq. (1) and its derivative for the pairs of one atom of type `zi`.

    Quads of one type of neighbours reach into the pairs of the next type, which overwrites what they leave there.
    """
    n_types, n_radial, n_channels = table.shape[1], table.shape[2], table.shape[3]
    step, out_step, zero = phi_np.shape[1], radial_lp.shape[1], splat_quad(0.0)
    for zj in range(n_types):
        block = (zi * n_types + zj) * n_radial * n_channels
        for at in range(type_first[zj], type_first[zj + 1] if zj + 1 < n_types else n_filled, QUAD):
            for c in range(0, n_channels - 3, 4):
                r0, r1, r2, r3, d0, d1, d2, d3 = zero, zero, zero, zero, zero, zero, zero, zero
                for n in range(n_radial):
                    w, phi = block + n * n_channels + c, load_quad(phi_np, n * step + at)
                    dphi = load_quad(dphi_np, n * step + at)
                    w0, w1 = splat_quad(entry(table, w)), splat_quad(entry(table, w + 1))
                    w2, w3 = splat_quad(entry(table, w + 2)), splat_quad(entry(table, w + 3))
                    r0, r1, r2, r3 = fma(w0, phi, r0), fma(w1, phi, r1), fma(w2, phi, r2), fma(w3, phi, r3)
                    d0, d1, d2, d3 = (
                        fma(w0, dphi, d0),
                        fma(w1, dphi, d1),
                        fma(w2, dphi, d2),
                        fma(w3, dphi, d3),
                    )
                row = c * out_step + at
                store_quad(radial_lp, row, r0)
                store_quad(dradial_lp, row, d0)
                store_quad(radial_lp, row + out_step, r1)
                store_quad(dradial_lp, row + out_step, d1)
                store_quad(radial_lp, row + 2 * out_step, r2)
                store_quad(dradial_lp, row + 2 * out_step, d2)
                store_quad(radial_lp, row + 3 * out_step, r3)
                store_quad(dradial_lp, row + 3 * out_step, d3)
            for c in range(n_channels // 4 * 4, n_channels - 1, 2):
                r0, r1, d0, d1 = zero, zero, zero, zero
                for n in range(n_radial):
                    w, phi = block + n * n_channels + c, load_quad(phi_np, n * step + at)
                    dphi = load_quad(dphi_np, n * step + at)
                    w0, w1 = splat_quad(entry(table, w)), splat_quad(entry(table, w + 1))
                    r0, r1, d0, d1 = fma(w0, phi, r0), fma(w1, phi, r1), fma(w0, dphi, d0), fma(w1, dphi, d1)
                row = c * out_step + at
                store_quad(radial_lp, row, r0)
                store_quad(dradial_lp, row, d0)
                store_quad(radial_lp, row + out_step, r1)
                store_quad(dradial_lp, row + out_step, d1)
            for c in range(n_channels // 2 * 2, n_channels):
                r0, d0 = zero, zero
                for n in range(n_radial):
                    w0 = splat_quad(entry(table, block + n * n_channels + c))
                    r0 = fma(w0, load_quad(phi_np, n * step + at), r0)
                    d0 = fma(w0, load_quad(dphi_np, n * step + at), d0)
                store_quad(radial_lp, c * out_step + at, r0)
                store_quad(dradial_lp, c * out_step + at, d0)


@njit(inner=True)
def accumulate_features(basis, radial_lp, y_mp, n_filled, v_fb, b):
    """Eq. (2) for the atom in lane b."""
    step, zero = radial_lp.shape[1], splat_octet(0.0)
    for l in range(basis.feature_first.shape[0]):
        channel, n_channels = basis.channel_first[l], basis.channel_first[l + 1] - basis.channel_first[l]
        for m in range(2 * l + 1):
            f = basis.feature_first[l] + m * basis.feature_rank[l]
            y = (l * l + m) * step
            for c in range(0, n_channels - 1, 2):
                low, high, row = zero, zero, (channel + c) * step
                for at in range(0, n_filled, OCTET):
                    harmonic = load_octet(y_mp, y + at)
                    low = fma(load_octet(radial_lp, row + at), harmonic, low)
                    high = fma(load_octet(radial_lp, row + step + at), harmonic, high)
                v_fb[f + c, b] = total(low)
                v_fb[f + c + 1, b] = total(high)
            if n_channels % 2 == 1:
                low, row = zero, (channel + n_channels - 1) * step
                for at in range(0, n_filled, OCTET):
                    low = fma(load_octet(radial_lp, row + at), load_octet(y_mp, y + at), low)
                v_fb[f + n_channels - 1, b] = total(low)


@njit(inner=True)
def clear_features(v_fb):
    """No neighbours: every feature is zero but the constant, which is one."""
    for f in range(v_fb.shape[0]):
        for b in range(LANES):
            v_fb[f, b] = 1.0 if f == 0 else 0.0


@njit(inline="always", inner=True)
def block_features(
    first, r_pc, type_i, type_p, basis, radial_table, start, n_lanes, type_first, order_bp, r_p, u_bcp, phi_np, dphi_np,
    legendre_tb, circle_mb, y_mp, radial_blp, dradial_blp, v_fb,
):  # fmt: skip
    """Pair stage of one block of atoms, eqs. (1), (2); keeps the order of the pairs, u, R and R' for the way back."""
    clear_features(v_fb)
    for b in range(n_lanes):
        i = start + b
        sort_by_type(first, type_p, i, type_first, order_bp[b])
        n_filled = gather_pairs(first, r_pc, i, basis.constants[1], order_bp[b], r_p, u_bcp[b])
        radial_functions(r_p[:n_filled], basis.codes, basis.constants, basis.recurrence, phi_np, dphi_np)
        combine_radial(
            radial_table, type_i[i], type_first, n_filled, phi_np, dphi_np, radial_blp[b], dradial_blp[b]
        )
        l_max = basis.feature_first.shape[0] - 1
        harmonics(u_bcp[b], n_filled, l_max, basis.legendre, legendre_tb, circle_mb, y_mp)
        accumulate_features(basis, radial_blp[b], y_mp, n_filled, v_fb, b)


@njit(inner=True)
def pair_sums(basis, at, legendre_tb, circle_mb, radial_lp, dradial_lp, g_f):
    """Eq. (4) for one octet: sum g R' Y, and the three components of sum g R dY/du."""
    step, zero = radial_lp.shape[1], splat_octet(0.0)
    l_max = basis.feature_first.shape[0] - 1
    slope, x, y, z, cos_old, sin_old = zero, zero, zero, zero, zero, zero
    for m in range(l_max + 1):
        a, b, a_z, b_z, a_r, b_r = zero, zero, zero, zero, zero, zero
        for l in range(m, l_max + 1):
            channel, n_channels = (
                entry(basis.channel_first, l),
                basis.channel_first[l + 1] - basis.channel_first[l],
            )
            up, down = zero, zero
            up_r, down_r = zero, zero
            f_up = basis.feature_first[l] + (l + m) * basis.feature_rank[l]
            f_down = f_up - 2 * m * basis.feature_rank[l]
            row = channel * step + at
            for c in range(n_channels):
                radial, dradial = load_octet(radial_lp, row), load_octet(dradial_lp, row)
                g = splat_octet(entry(g_f, f_up + c))
                up, up_r = fma(g, radial, up), fma(g, dradial, up_r)
                if m > 0:
                    g = splat_octet(entry(g_f, f_down + c))
                    down, down_r = fma(g, radial, down), fma(g, dradial, down_r)
                row += step
            t = l * (l + 1) // 2 + m
            p = load_octet(legendre_tb, t * OCTET)
            a, a_r = fma(up, p, a), fma(up_r, p, a_r)
            b, b_r = fma(down, p, b), fma(down_r, p, b_r)
            if l > m:
                dp = mul(
                    splat_octet(entry(basis.legendre, 2 * basis.legendre.shape[1] + t)),
                    load_octet(legendre_tb, (t + 1) * OCTET),
                )
                a_z, b_z = fma(up, dp, a_z), fma(down, dp, b_z)
        cos_m, sin_m = load_octet(circle_mb, 2 * m * OCTET), load_octet(circle_mb, (2 * m + 1) * OCTET)
        slope = fma(a_r, cos_m, fma(b_r, sin_m, slope))
        z = fma(a_z, cos_m, fma(b_z, sin_m, z))
        a, b = mul(splat_octet(1.0 * m), a), mul(splat_octet(1.0 * m), b)
        x = fma(a, cos_old, fma(b, sin_old, x))
        y = add(y, sub(mul(b, cos_old), mul(a, sin_old)))
        cos_old, sin_old = cos_m, sin_m
    return slope, x, y, z


@njit(inner=True)
def pair_derivatives(
    basis, n_pairs, u_cp, legendre_tb, circle_mb, radial_lp, dradial_lp, g_f, order_p, dE_dr_pc
):
    """Eq. (3) for the pairs of one atom: written in the order of the list of pairs; `u_cp` is overwritten."""
    step, l_max = u_cp.shape[1], basis.feature_first.shape[0] - 1
    for at in range(0, n_pairs, OCTET):
        angular_factors(u_cp, at, l_max, basis.legendre, legendre_tb, circle_mb)
        slope, gx, gy, gz = pair_sums(basis, at, legendre_tb, circle_mb, radial_lp, dradial_lp, g_f)
        x, y, z = load_octet(u_cp, at), load_octet(u_cp, at + step), load_octet(u_cp, at + 2 * step)
        over_r = load_octet(u_cp, at + 3 * step)
        along = sub(slope, mul(over_r, fma(x, gx, fma(y, gy, mul(z, gz)))))
        store_octet(u_cp, at, fma(x, along, mul(gx, over_r)))
        store_octet(u_cp, at + step, fma(y, along, mul(gy, over_r)))
        store_octet(u_cp, at + 2 * step, fma(z, along, mul(gz, over_r)))
    for k in range(n_pairs):
        p = np.uint64(order_p[k])
        for c in range(3):
            dE_dr_pc[p, c] = u_cp[c, k]


@njit
def evaluate(
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop, energy_i, dE_dr_pc
):  # fmt: skip
    """Energies of atoms ``start:stop`` and their derivatives by the pair vectors that leave them.

    Parameters
    ----------
    first : int64 [i + 1]
        Pairs of atom i are ``first[i]:first[i + 1]``.
    r_pc : float64 [p, c]
        Pair vectors, Å.
    type_i, type_p : int64
        Types of the atoms and of the neighbours.
    basis : BasisTables
    radial_table : float64 [z_i, z_j, n, lc]
    train : TrainTables
    weights : float64 [q]
        Head and cores.
    start, stop : int
        Range of atoms.
    energy_i : float64 [i]
        Written for the range: the energy without the reference energy, eV.
    dE_dr_pc : float64 [p, c]
        Written for the pairs of the range, eV/Å.
    """
    n_p = pair_capacity(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_radial, n_channels = basis.recurrence.shape[1], radial_table.shape[3]
    type_first, order_bp = np.empty(radial_table.shape[1] + 2, np.int64), np.empty((LANES, n_p), np.int64)
    r_p, u_bcp, y_mp = np.empty(n_p), np.empty((LANES, 4, n_p)), np.empty(((l_max + 1) ** 2, n_p))
    phi_np, dphi_np = np.zeros((n_radial, n_p)), np.zeros((n_radial, n_p))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    radial_blp, dradial_blp = np.empty((LANES, n_channels, n_p)), np.empty((LANES, n_channels, n_p))
    v_fb, g_fb, g_f = (
        np.empty((train.n_features, LANES)),
        np.empty((train.n_features, LANES)),
        np.empty(train.n_features),
    )
    x_ab, y_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab = np.empty((train.n_work_rows, LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        for b in range(n_lanes):
            type_b[b] = type_i[block + b]
        block_features(
            first, r_pc, type_i, type_p, basis, radial_table, block, n_lanes, type_first, order_bp, r_p, u_bcp, phi_np,
            dphi_np, legendre_tb, circle_mb, y_mp, radial_blp, dradial_blp, v_fb,
        )  # fmt: skip
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        adjoint(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb)
        for b in range(n_lanes):
            i = block + b
            energy_i[i] = x_ab[train.n_bond_rows - 1, b]
            for f in range(train.n_features):
                g_f[f] = g_fb[f, b]
            pair_derivatives(
                basis, first[i + 1] - first[i], u_bcp[b], legendre_tb, circle_mb, radial_blp[b], dradial_blp[b], g_f,
                order_bp[b], dE_dr_pc,
            )  # fmt: skip


@njit
def features(first, r_pc, type_i, type_p, basis, radial_table, start, stop, v_if):
    """Features of atoms ``start:stop``, eq. (2); arguments as for `evaluate`, `v_if` [i, f] is written."""
    n_p = pair_capacity(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_radial, n_channels = basis.recurrence.shape[1], radial_table.shape[3]
    type_first, order_bp = np.empty(radial_table.shape[1] + 2, np.int64), np.empty((LANES, n_p), np.int64)
    r_p, u_bcp, y_mp = np.empty(n_p), np.empty((LANES, 4, n_p)), np.empty(((l_max + 1) ** 2, n_p))
    phi_np, dphi_np = np.zeros((n_radial, n_p)), np.zeros((n_radial, n_p))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    radial_blp, dradial_blp = np.empty((LANES, n_channels, n_p)), np.empty((LANES, n_channels, n_p))
    v_fb = np.empty((v_if.shape[1], LANES))
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        block_features(
            first, r_pc, type_i, type_p, basis, radial_table, block, n_lanes, type_first, order_bp, r_p, u_bcp, phi_np,
            dphi_np, legendre_tb, circle_mb, y_mp, radial_blp, dradial_blp, v_fb,
        )  # fmt: skip
        for b in range(n_lanes):
            for f in range(v_if.shape[1]):
                v_if[block + b, f] = v_fb[f, b]


@njit
def features_adjoint(first, r_pc, type_i, type_p, basis, radial_table, g_if, start, stop, dE_dr_pc):
    """Eq. (3) for atoms ``start:stop``, from dE/dv that is given.

    Parameters
    ----------
    first, r_pc, type_i, type_p, basis, radial_table, start, stop, dE_dr_pc
        As for `evaluate`.
    g_if : float64 [i, f]
        dE/dv, eV.
    """
    n_p = pair_capacity(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_radial, n_channels = basis.recurrence.shape[1], radial_table.shape[3]
    type_first, order_p = np.empty(radial_table.shape[1] + 2, np.int64), np.empty(n_p, np.int64)
    r_p, u_cp = np.empty(n_p), np.empty((4, n_p))
    phi_np, dphi_np = np.zeros((n_radial, n_p)), np.zeros((n_radial, n_p))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    radial_lp, dradial_lp = np.empty((n_channels, n_p)), np.empty((n_channels, n_p))
    for i in range(start, stop):
        sort_by_type(first, type_p, i, type_first, order_p)
        n_filled = gather_pairs(first, r_pc, i, basis.constants[1], order_p, r_p, u_cp)
        radial_functions(r_p[:n_filled], basis.codes, basis.constants, basis.recurrence, phi_np, dphi_np)
        combine_radial(radial_table, type_i[i], type_first, n_filled, phi_np, dphi_np, radial_lp, dradial_lp)
        pair_derivatives(
            basis, first[i + 1] - first[i], u_cp, legendre_tb, circle_mb, radial_lp, dradial_lp, g_if[i], order_p, dE_dr_pc
        )  # fmt: skip


@njit
def bonds(v_if, type_i, train, weights, x_ia):
    """Every bond vector of every atom from its features: `x_ia` [i, a] is written, bonds stacked."""
    v_fb = np.zeros((train.n_features, LANES))
    x_ab = np.empty((train.n_bond_rows, LANES))
    work_ab = np.empty((train.n_work_rows, LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    n_atoms = v_if.shape[0]
    for block in range(0, n_atoms, LANES):
        n_lanes = min(LANES, n_atoms - block)
        for b in range(n_lanes):
            type_b[b] = type_i[block + b]
            for f in range(train.n_features):
                v_fb[f, b] = v_if[block + b, f]
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        for b in range(n_lanes):
            for a in range(train.n_bond_rows):
                x_ia[block + b, a] = x_ab[a, b]
