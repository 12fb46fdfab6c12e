"""Gradient of a linear functional of energies and pair derivatives by every parameter.

For weights e_i and pair directions d_p,

    L = sum_i e_i E_i + sum_p d_p . dE/dr_p = sum_i (e_i E_i + E'_i),                      (1)

because the second sum is the derivative E' of the energy along the tangent r'_p = d_p. One forward pass on
(v, v') and one reverse pass therefore give dL/dA of every core and dL/dT of the radial table at a few times
the cost of the energy, whatever the number of parameters:

    v'[l, m, c] = sum_j R'_lc (u.d) Y_lm + R_lc Y'_lm,   Y' = dS/du . (d - u (u.d)) / r    (2)
    dL/dT[z_i, z_j, n, lc] = sum_p [ sum_m h Y + g Y' ] phi_n + [ sum_m g Y ] (u.d) phi'_n  (3)

with g = dL/dv' and h = dL/dv from `adjoint_tangent`. Symbols as in ``evaluate``; `direction_pc` is d.
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import harmonics_gradient, legendre_rows, radial_functions
from etnpot.kernels.evaluate import clear_features, largest_neighborhood
from etnpot.kernels.lanes import LANES, OCTET, fma, load, mul, splat, store
from etnpot.kernels.train import adjoint_tangent, forward, forward_tangent

__all__ = ["gradient"]


@njit(inner=True)
def gather_slot(first, r_pc, start, stop, slot, cutoff, r_b, u_cb):
    """Distances and unit vectors of the slot-th neighbours of a block of atoms.

    Lanes without such a neighbour get r = r_c and u = z, which contribute nothing.
    """
    for b in range(LANES):
        i = start + b
        r_b[b] = cutoff
        u_cb[0, b] = 0.0
        u_cb[1, b] = 0.0
        u_cb[2, b] = 1.0
        if i < stop and first[i] + slot < first[i + 1]:
            p = first[i] + slot
            x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
            r = np.sqrt(x * x + y * y + z * z)
            r_b[b] = r
            u_cb[0, b] = x / r
            u_cb[1, b] = y / r
            u_cb[2, b] = z / r


@njit(inner=True)
def combine_radial(
    first, type_i, type_p, start, stop, slot, table, phi_nb, dphi_nb, row, radial_lb, dradial_lb
):
    """Eq. (1) and its derivative for one slot; `row` [2, lc] is scratch."""
    n_channels = table.shape[3]
    for b in range(LANES):
        i = start + b
        if i < stop and first[i] + slot < first[i + 1]:
            zi = type_i[i]
            zj = type_p[first[i] + slot]
            for c in range(n_channels):
                row[0, c] = 0.0
                row[1, c] = 0.0
            for n in range(table.shape[2]):
                phi, dphi = phi_nb[n, b], dphi_nb[n, b]
                for c in range(n_channels):
                    row[0, c] += table[zi, zj, n, c] * phi
                    row[1, c] += table[zi, zj, n, c] * dphi
            for c in range(n_channels):
                radial_lb[c, b] = row[0, c]
                dradial_lb[c, b] = row[1, c]
        else:
            for c in range(n_channels):
                radial_lb[c, b] = 0.0
                dradial_lb[c, b] = 0.0


@njit(inner=True)
def accumulate_features(basis, radial_lb, y_mb, v_fb):
    """Eq. (2), one slot: v += R Y."""
    for l in range(basis.feature_first.shape[0]):
        channel, n_channels = basis.channel_first[l], basis.channel_first[l + 1] - basis.channel_first[l]
        for m in range(2 * l + 1):
            f = basis.feature_first[l] + m * basis.feature_rank[l]
            y = l * l + m
            harmonic = load(y_mb, y)
            for c in range(n_channels):
                store(v_fb, f + c, fma(load(radial_lb, channel + c), harmonic, load(v_fb, f + c)))


@njit(inner=True)
def tangent_slot(first, r_b, u_cb, direction_pc, start, stop, slot, dr_b, du_cb):
    """r' = u.d and u' = (d - u (u.d)) / r of one slot; zero in empty lanes."""
    for b in range(LANES):
        i = start + b
        dr_b[b] = 0.0
        du_cb[0, b] = 0.0
        du_cb[1, b] = 0.0
        du_cb[2, b] = 0.0
        if i < stop and first[i] + slot < first[i + 1]:
            p = first[i] + slot
            dr = 0.0
            for c in range(3):
                dr += u_cb[c, b] * direction_pc[p, c]
            dr_b[b] = dr
            for c in range(3):
                du_cb[c, b] = (direction_pc[p, c] - u_cb[c, b] * dr) / r_b[b]


@njit(inner=True)
def tangent_harmonics(dy_cmb, du_cb, yt_mb):
    """Y' = dS/du . u'."""
    for m in range(yt_mb.shape[0]):
        along = mul(load(dy_cmb[0], m), load(du_cb, 0))
        along = fma(load(dy_cmb[1], m), load(du_cb, 1), along)
        store(yt_mb, m, fma(load(dy_cmb[2], m), load(du_cb, 2), along))


@njit(inner=True)
def accumulate_tangent(basis, radial_lb, dradial_lb, dr_b, y_mb, yt_mb, dv_fb):
    """Eq. (2), one slot."""
    for l in range(basis.feature_first.shape[0]):
        channel, n_channels = basis.channel_first[l], basis.channel_first[l + 1] - basis.channel_first[l]
        for m in range(2 * l + 1):
            f = basis.feature_first[l] + m * basis.feature_rank[l]
            y = l * l + m
            slope, tangent = mul(load(dr_b, 0), load(y_mb, y)), load(yt_mb, y)
            for c in range(n_channels):
                dv = fma(load(dradial_lb, channel + c), slope, load(dv_fb, f + c))
                store(dv_fb, f + c, fma(load(radial_lb, channel + c), tangent, dv))


@njit(inner=True)
def radial_adjoint(basis, y_mb, yt_mb, g_fb, h_fb, value_lb, slope_lb):
    """Brackets of eq. (3) for one slot: value = sum_m h Y + g Y', slope = sum_m g Y."""
    for l in range(basis.feature_first.shape[0]):
        channel, n_channels = basis.channel_first[l], basis.channel_first[l + 1] - basis.channel_first[l]
        for c in range(n_channels):
            store(value_lb, channel + c, splat(0.0))
            store(slope_lb, channel + c, splat(0.0))
        for m in range(2 * l + 1):
            f = basis.feature_first[l] + m * basis.feature_rank[l]
            y = l * l + m
            harmonic, tangent = load(y_mb, y), load(yt_mb, y)
            for c in range(n_channels):
                g = load(g_fb, f + c)
                value = fma(load(h_fb, f + c), harmonic, load(value_lb, channel + c))
                store(value_lb, channel + c, fma(g, tangent, value))
                store(slope_lb, channel + c, fma(g, harmonic, load(slope_lb, channel + c)))


@njit
def gradient(
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop,
    e_i, direction_pc, table_gradient, weight_gradient,
):  # fmt: skip
    """Add dL/dT and dL/dA of eq. (1), atoms ``start:stop``, to two arrays.

    Parameters
    ----------
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop
        As for `evaluate`.
    e_i : float64 [i]
        Weight of every energy.
    direction_pc : float64 [p, c]
        Weight of every pair derivative.
    table_gradient : float64 [z_i, z_j, n, lc]
        Added to: dL/dT.
    weight_gradient : float64 [q]
        Added to: dL/dA.
    """
    n_slots_max = largest_neighborhood(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_lm, n_radial, n_channels = (l_max + 1) ** 2, basis.recurrence.shape[1], radial_table.shape[3]
    r_sb, dr_b = np.empty((n_slots_max, LANES)), np.empty(LANES)
    u_scb, du_cb = np.empty((n_slots_max, 3, LANES)), np.empty((3, LANES))
    phi_nb, dphi_nb = np.empty((n_radial, LANES)), np.empty((n_radial, LANES))
    row = np.empty((2, n_channels))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    y_mb, yt_mb, dy_cmb = np.empty((n_lm, LANES)), np.empty((n_lm, LANES)), np.empty((3, n_lm, LANES))
    radial_lb, dradial_lb = np.empty((n_channels, LANES)), np.empty((n_channels, LANES))
    value_lb, slope_lb = np.empty((n_channels, LANES)), np.empty((n_channels, LANES))
    v_fb, dv_fb = np.empty((train.n_features, LANES)), np.empty((train.n_features, LANES))
    g_fb, h_fb = np.empty((train.n_features, LANES)), np.empty((train.n_features, LANES))
    x_ab, dx_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    y_ab, dy_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_mb = np.empty((4 * train.max_components, LANES))
    work_ab = np.empty((train.n_work_rows, LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    e_b = np.empty(LANES)
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        n_slots = largest_neighborhood(first, block, block + n_lanes)
        for b in range(LANES):
            e_b[b] = 0.0
        for b in range(n_lanes):
            type_b[b] = type_i[block + b]
            e_b[b] = e_i[block + b]
        clear_features(v_fb)
        for f in range(train.n_features):
            for b in range(LANES):
                dv_fb[f, b] = 0.0
        for slot in range(n_slots):
            gather_slot(first, r_pc, block, stop, slot, basis.constants[1], r_sb[slot], u_scb[slot])
            radial_functions(r_sb[slot], basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
            combine_radial(
                first, type_i, type_p, block, stop, slot, radial_table, phi_nb, dphi_nb, row, radial_lb,
                dradial_lb,
            )  # fmt: skip
            harmonics_gradient(u_scb[slot], l_max, basis.legendre, legendre_tb, circle_mb, y_mb, dy_cmb)
            tangent_slot(first, r_sb[slot], u_scb[slot], direction_pc, block, stop, slot, dr_b, du_cb)
            tangent_harmonics(dy_cmb, du_cb, yt_mb)
            accumulate_features(basis, radial_lb, y_mb, v_fb)
            accumulate_tangent(basis, radial_lb, dradial_lb, dr_b, y_mb, yt_mb, dv_fb)
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        forward_tangent(train, weights, v_fb, dv_fb, x_ab, work_mb, dx_ab)
        adjoint_tangent(
            train, weights, type_b, e_b, v_fb, dv_fb, x_ab, dx_ab, work_mb, y_ab, dy_ab, g_fb, h_fb,
            weight_gradient,
        )  # fmt: skip
        for slot in range(n_slots):
            radial_functions(r_sb[slot], basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
            harmonics_gradient(u_scb[slot], l_max, basis.legendre, legendre_tb, circle_mb, y_mb, dy_cmb)
            tangent_slot(first, r_sb[slot], u_scb[slot], direction_pc, block, stop, slot, dr_b, du_cb)
            tangent_harmonics(dy_cmb, du_cb, yt_mb)
            radial_adjoint(basis, y_mb, yt_mb, g_fb, h_fb, value_lb, slope_lb)
            for b in range(n_lanes):
                p = first[block + b] + slot
                if p < first[block + b + 1]:
                    zi, zj = type_b[b], type_p[p]
                    for n in range(n_radial):
                        phi, dphi = phi_nb[n, b], dphi_nb[n, b] * dr_b[b]
                        for c in range(n_channels):
                            table_gradient[zi, zj, n, c] += value_lb[c, b] * phi + slope_lb[c, b] * dphi
