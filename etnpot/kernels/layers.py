"""Layers between the features of atoms and the last train: pairs, messages, and trains on features that are given.

Parameter derivatives take pairs and messages from here; energies and forces take those of ``messages``, which keep nothing
of a pair. Every pair p = (i, j) has features of its own, whose sums over the neighbours are the local features and which
carry messages:

    w_p[l, m, c] = R_lc(r_p) Y_lm(u_p)                                                                       (1)
    v_i[l, m, c] += sum_p w_p[l, m, c],      v_i[l', m', a] += sum_p sum_{m mu} C w_p[l, m, a] x_j[lambda, mu, a]  (2)

with x_j an open bond of a train at the neighbour j. All of this is linear in w and in x; along a tangent r'_p = d_p

    w'_p = R' (u.d) Y + R dY/du . u',      u' = (d - u (u.d)) / r.                                           (3)

The adjoints take dL/dw, and dL/dw' where there is a tangent. A train on given features has the passes of ``train`` with
seeds on all components of its last bond. Kernels loop over a range of pairs, or of atoms; what they add to an atom or a pair of
their range no other range adds to, but for `gather_adjoint`, which adds to the neighbours: one array for each range.

============  ===============================================================================
symbol        here
============  ===============================================================================
w             ``w_pf`` [p, f], f = (sum over l'' < l of (2 l'' + 1) channels) + (l + m) channels + c
x             ``x_jo`` [j, o], the last bond of a train
C             ``term_value`` [t], with ``term_index`` [t, 4]: first w, first x, first v, copies a
z_i, z_j      ``zi_p``, ``zj_p`` [p]
============  ===============================================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import harmonics_gradient, legendre_rows, radial_functions
from etnpot.kernels.lanes import LANES, OCTET
from etnpot.kernels.train import adjoint, forward, forward_tangent, pull_back, pull_back_tangent

__all__ = [
    "bonds_adjoint",
    "bonds_adjoint_tangent",
    "bonds_tangent",
    "energies",
    "gather",
    "gather_adjoint",
    "gather_columns",
    "last_bonds",
    "local_columns_adjoint",
    "message_columns_adjoint",
    "pair_basis",
    "pair_features",
    "pair_tangent",
    "sum_columns",
    "sum_pairs",
    "sum_pairs_adjoint",
    "table_adjoint",
]


@njit(inner=True)
def unit_vectors(r_pc, at, stop, cutoff, r_b, u_cb):
    """Distances and directions of a block of pairs; beyond the range r = r_c and u = z."""
    for b in range(LANES):
        r_b[b] = cutoff
        u_cb[0, b] = 0.0
        u_cb[1, b] = 0.0
        u_cb[2, b] = 1.0
        if at + b < stop:
            x, y, z = r_pc[at + b, 0], r_pc[at + b, 1], r_pc[at + b, 2]
            r = np.sqrt(x * x + y * y + z * z)
            r_b[b] = r
            u_cb[0, b] = x / r
            u_cb[1, b] = y / r
            u_cb[2, b] = z / r


@njit
def block_scratch(basis):
    """What `block_basis` writes: distances, directions, radial functions, factors of the harmonics, harmonics; derivatives."""
    l_max = basis.channel_first.shape[0] - 2
    n_lm, n_radial = (l_max + 1) ** 2, basis.recurrence.shape[1]
    return (
        np.empty(LANES), np.empty((3, LANES)), np.empty((n_radial, LANES)), np.empty((n_radial, LANES)),
        np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET)), np.empty((n_lm, LANES)),
        np.empty((3, n_lm, LANES)),
    )  # fmt: skip


@njit(inner=True)
def block_basis(r_pc, at, stop, basis, r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb):
    """Radial functions and harmonics of a block of pairs."""
    l_max = basis.channel_first.shape[0] - 2
    unit_vectors(r_pc, at, stop, basis.constants[1], r_b, u_cb)
    radial_functions(r_b, basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
    harmonics_gradient(u_cb, l_max, basis.legendre, legendre_tb, circle_mb, y_mb, dy_cmb)


@njit(inner=True)
def radial_rows(table, zi, zj, phi_nb, dphi_nb, b, radial_c, dradial_c):
    """R and R' of one pair."""
    for c in range(table.shape[3]):
        radial_c[c] = 0.0
        dradial_c[c] = 0.0
    for n in range(table.shape[2]):
        phi, dphi = phi_nb[n, b], dphi_nb[n, b]
        for c in range(table.shape[3]):
            radial_c[c] += table[zi, zj, n, c] * phi
            dradial_c[c] += table[zi, zj, n, c] * dphi


@njit
def pair_features(r_pc, zi_p, zj_p, basis, table, start, stop, w_pf):
    """Eq. (1) of the pairs ``start:stop``.

    Parameters
    ----------
    r_pc : float64 [p, c]
        Pair vectors, Å.
    zi_p, zj_p : int64 [p]
        Types of centre and neighbour.
    basis : BasisTables
    table : float64 [z_i, z_j, n, lc]
        Radial table.
    start, stop : int
        Range of pairs.
    w_pf : float64 [p, f]
        Written for the range.
    """
    l_max = basis.channel_first.shape[0] - 2
    r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb = block_scratch(basis)
    radial_c, dradial_c = np.empty(table.shape[3]), np.empty(table.shape[3])
    for at in range(start, stop, LANES):
        block_basis(r_pc, at, stop, basis, r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb)
        for b in range(min(LANES, stop - at)):
            p, f = at + b, 0
            radial_rows(table, zi_p[p], zj_p[p], phi_nb, dphi_nb, b, radial_c, dradial_c)
            for l in range(l_max + 1):
                for m in range(2 * l + 1):
                    y = y_mb[l * l + m, b]
                    for c in range(basis.channel_first[l], basis.channel_first[l + 1]):
                        w_pf[p, f] = radial_c[c] * y
                        f += 1


@njit(inner=True)
def tangents(direction_pc, p, b, r_b, u_cb, dy_cmb, yt_m):
    """u.d of one pair, returned, and Y' = dY/du . u'."""
    dr = 0.0
    for c in range(3):
        dr += u_cb[c, b] * direction_pc[p, c]
    for lm in range(yt_m.shape[0]):
        along = 0.0
        for c in range(3):
            along += dy_cmb[c, lm, b] * (direction_pc[p, c] - u_cb[c, b] * dr)
        yt_m[lm] = along / r_b[b]
    return dr


@njit
def pair_tangent(r_pc, direction_pc, zi_p, zj_p, basis, table, start, stop, dw_pf):
    """Eq. (3) of the pairs ``start:stop``: `dw_pf` [p, f] is written, for the tangents `direction_pc` [p, c]."""
    l_max = basis.channel_first.shape[0] - 2
    n_lm = (l_max + 1) ** 2
    r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb = block_scratch(basis)
    yt_m = np.empty(n_lm)
    radial_c, dradial_c = np.empty(table.shape[3]), np.empty(table.shape[3])
    for at in range(start, stop, LANES):
        block_basis(r_pc, at, stop, basis, r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb)
        for b in range(min(LANES, stop - at)):
            p, f = at + b, 0
            radial_rows(table, zi_p[p], zj_p[p], phi_nb, dphi_nb, b, radial_c, dradial_c)
            dr = tangents(direction_pc, p, b, r_b, u_cb, dy_cmb, yt_m)
            for l in range(l_max + 1):
                for m in range(2 * l + 1):
                    lm = l * l + m
                    for c in range(basis.channel_first[l], basis.channel_first[l + 1]):
                        dw_pf[p, f] = dradial_c[c] * dr * y_mb[lm, b] + radial_c[c] * yt_m[lm]
                        f += 1


@njit
def table_adjoint(r_pc, direction_pc, zi_p, zj_p, basis, wbar_pf, dwbar_pf, start, stop, table_gradient):
    """Add dL/dT of the pairs ``start:stop`` from dL/dw and dL/dw'.

    Parameters
    ----------
    r_pc, zi_p, zj_p, basis, start, stop
        As for `pair_features`.
    direction_pc : float64 [p, c]
        The tangents d.
    wbar_pf, dwbar_pf : float64 [p, f]
        dL/dw and dL/dw'.
    table_gradient : float64 [z_i, z_j, n, lc]
        Added to.
    """
    l_max = basis.channel_first.shape[0] - 2
    n_lm, n_radial = (l_max + 1) ** 2, basis.recurrence.shape[1]
    r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb = block_scratch(basis)
    yt_m = np.empty(n_lm)
    n_channels = table_gradient.shape[3]
    value_c, slope_c = np.empty(n_channels), np.empty(n_channels)
    for at in range(start, stop, LANES):
        block_basis(r_pc, at, stop, basis, r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb)
        for b in range(min(LANES, stop - at)):
            p, f = at + b, 0
            dr = tangents(direction_pc, p, b, r_b, u_cb, dy_cmb, yt_m)
            for c in range(n_channels):
                value_c[c] = 0.0
                slope_c[c] = 0.0
            for l in range(l_max + 1):
                for m in range(2 * l + 1):
                    lm = l * l + m
                    for c in range(basis.channel_first[l], basis.channel_first[l + 1]):
                        value_c[c] += wbar_pf[p, f] * y_mb[lm, b] + dwbar_pf[p, f] * yt_m[lm]
                        slope_c[c] += dwbar_pf[p, f] * y_mb[lm, b]
                        f += 1
            for n in range(n_radial):
                phi, dphi = phi_nb[n, b], dphi_nb[n, b] * dr
                for c in range(n_channels):
                    table_gradient[zi_p[p], zj_p[p], n, c] += value_c[c] * phi + slope_c[c] * dphi


@njit
def sum_pairs(first, source_f, target_f, w_pf, start, stop, v_if):
    """Eq. (2), first part, atoms ``start:stop``: add the columns `source_f` of w to the columns `target_f` of v."""
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            for f in range(source_f.shape[0]):
                v_if[i, target_f[f]] += w_pf[p, source_f[f]]


@njit
def sum_pairs_adjoint(first, source_f, target_f, g_if, start, stop, wbar_pf):
    """Add dL/dw of `sum_pairs` from dL/dv."""
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            for f in range(source_f.shape[0]):
                wbar_pf[p, source_f[f]] += g_if[i, target_f[f]]


@njit
def gather(first, neighbor, term_index, term_value, w_pf, x_jo, start, stop, v_if):
    """Eq. (2), second part, atoms ``start:stop``: messages are added to their columns of v.

    Parameters
    ----------
    first, neighbor : int64
        Pairs of atom i are ``first[i]:first[i + 1]``; the neighbour of each.
    term_index : int64 [t, 4]
        First columns of w, x and v, and how many consecutive copies.
    term_value : float64 [t]
        C.
    w_pf : float64 [p, f]
    x_jo : float64 [j, o]
    start, stop : int
    v_if : float64 [i, f]
        Added to.
    """
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for t in range(term_index.shape[0]):
                w, x, v = term_index[t, 0], term_index[t, 1], term_index[t, 2]
                for a in range(term_index[t, 3]):
                    v_if[i, v + a] += term_value[t] * w_pf[p, w + a] * x_jo[j, x + a]


@njit
def gather_adjoint(first, neighbor, term_index, term_value, w_pf, x_jo, g_if, start, stop, wbar_pf, xbar_jo):
    """Add dL/dw and dL/dx of `gather` from g = dL/dv; `xbar_jo` [j, o] gets terms at every neighbour."""
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for t in range(term_index.shape[0]):
                w, x, v = term_index[t, 0], term_index[t, 1], term_index[t, 2]
                for a in range(term_index[t, 3]):
                    g = term_value[t] * g_if[i, v + a]
                    wbar_pf[p, w + a] += g * x_jo[j, x + a]
                    xbar_jo[j, x + a] += g * w_pf[p, w + a]


@njit
def sum_columns(first, neighbor, source_f, target_f, dw_pfc, dw_pfs, n_sites, dv_ifc):
    """Derivatives of `sum_pairs` by all positions, and by strain: added to the columns of v.

    Parameters
    ----------
    first, neighbor, source_f, target_f
        As for `sum_pairs`.
    dw_pfc : float64 [p, f, c]
        dw/dr_p.
    dw_pfs : float64 [p, f, s]
        dw/d(strain), six or none.
    n_sites : int
    dv_ifc : float64 [i, f, 3 n_sites + s or more]
        Added to.
    """
    for i in range(first.shape[0] - 1):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for f in range(source_f.shape[0]):
                w, v = source_f[f], target_f[f]
                for c in range(3):
                    dv_ifc[i, v, 3 * j + c] += dw_pfc[p, w, c]
                    dv_ifc[i, v, 3 * i + c] -= dw_pfc[p, w, c]
                for c in range(dw_pfs.shape[2]):
                    dv_ifc[i, v, 3 * n_sites + c] += dw_pfs[p, w, c]


@njit
def gather_columns(
    first, neighbor, term_index, term_value, w_pf, dw_pfc, dw_pfs, scale_ph, dscale_phc, x_jo, dx_joc, n_sites, dv_ifc
):  # fmt: skip
    """Derivatives of `gather` by all positions, and by strain, with w times a weight of attention: added to those of v.

    Parameters
    ----------
    first, neighbor, term_index, term_value, w_pf, x_jo
        As for `gather`; w without attention.
    dw_pfc, dw_pfs, n_sites
        As for `sum_columns`.
    scale_ph : float64 [p, h]
        Weights of attention, of copy a that of head a mod h; of no heads where there is none.
    dscale_phc : float64 [p, h, column]
        Their derivatives.
    dx_joc : float64 [j, o, column]
        Derivatives of x.
    dv_ifc : float64 [i, f, column]
        Added to.
    """
    n_heads, n_columns = scale_ph.shape[1], dv_ifc.shape[2]
    for i in range(first.shape[0] - 1):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for t in range(term_index.shape[0]):
                for a in range(term_index[t, 3]):
                    w, x, v = term_index[t, 0] + a, term_index[t, 1] + a, term_index[t, 2] + a
                    scale = scale_ph[p, a % n_heads] if n_heads > 0 else 1.0
                    by_x = term_value[t] * scale * w_pf[p, w]
                    for c in range(n_columns):
                        dv_ifc[i, v, c] += by_x * dx_joc[j, x, c]
                    by_w = term_value[t] * scale * x_jo[j, x]
                    for c in range(3):
                        dv_ifc[i, v, 3 * j + c] += by_w * dw_pfc[p, w, c]
                        dv_ifc[i, v, 3 * i + c] -= by_w * dw_pfc[p, w, c]
                    for c in range(dw_pfs.shape[2]):
                        dv_ifc[i, v, 3 * n_sites + c] += by_w * dw_pfs[p, w, c]
                    if n_heads > 0:
                        by_scale = term_value[t] * w_pf[p, w] * x_jo[j, x]
                        for c in range(n_columns):
                            dv_ifc[i, v, c] += by_scale * dscale_phc[p, a % n_heads, c]


@njit
def pair_basis(r_pc, basis, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc):
    """What eqs. (1) and (3) are made of, for every pair.

    Parameters
    ----------
    r_pc : float64 [p, c]
    basis : BasisTables
    u_pc, phi_pn, dphi_pn, y_pm : float64 [p, c], [p, n], [p, n], [p, lm]
        Written: directions, radial functions and their derivatives by r, harmonics.
    dy_pmc : float64 [p, lm, c]
        Written: derivatives of the harmonics by the pair vector.
    """
    l_max = basis.channel_first.shape[0] - 2
    n_lm, n_radial = (l_max + 1) ** 2, basis.recurrence.shape[1]
    r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb = block_scratch(basis)
    for at in range(0, r_pc.shape[0], LANES):
        block_basis(
            r_pc, at, r_pc.shape[0], basis, r_b, u_cb, phi_nb, dphi_nb, legendre_tb, circle_mb, y_mb, dy_cmb
        )
        for b in range(min(LANES, r_pc.shape[0] - at)):
            for n in range(n_radial):
                phi_pn[at + b, n] = phi_nb[n, b]
                dphi_pn[at + b, n] = dphi_nb[n, b]
            for lm in range(n_lm):
                y_pm[at + b, lm] = y_mb[lm, b]
            for c in range(3):
                u_pc[at + b, c] = u_cb[c, b]
                for lm in range(n_lm):
                    dy_pmc[at + b, lm, c] = dy_cmb[c, lm, b] / r_b[b]


@njit(inner=True)
def add_table_columns(
    p, i, j, z_i, z_j, column_f, channel_f, lm_f, wbar_fc, dwbar_pf, r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc, n_sites,
    n_strain, sum_lc, energy_table, table_columns,
):  # fmt: skip
    """Add d(dE/dT)/dx and dE/dT of one pair, for some columns of w."""
    n_columns = table_columns.shape[4]
    sum_lc[:] = 0.0
    for f in range(column_f.shape[0]):
        y, channel = y_pm[p, lm_f[f]], channel_f[f]
        for c in range(n_columns):
            sum_lc[channel, c] += y * wbar_fc[f, c]
    for f in range(column_f.shape[0]):
        channel = channel_f[f]
        fixed = dwbar_pf[p, column_f[f]]
        value = fixed * y_pm[p, lm_f[f]]
        for n in range(phi_pn.shape[1]):
            phi, dphi = phi_pn[p, n], dphi_pn[p, n]
            energy_table[z_i, z_j, n, channel] += phi * value
            slope_x = phi * fixed * dy_pmc[p, lm_f[f], 0] + dphi * u_pc[p, 0] * value
            slope_y = phi * fixed * dy_pmc[p, lm_f[f], 1] + dphi * u_pc[p, 1] * value
            slope_z = phi * fixed * dy_pmc[p, lm_f[f], 2] + dphi * u_pc[p, 2] * value
            table_columns[z_i, z_j, n, channel, 3 * j] += slope_x
            table_columns[z_i, z_j, n, channel, 3 * j + 1] += slope_y
            table_columns[z_i, z_j, n, channel, 3 * j + 2] += slope_z
            table_columns[z_i, z_j, n, channel, 3 * i] -= slope_x
            table_columns[z_i, z_j, n, channel, 3 * i + 1] -= slope_y
            table_columns[z_i, z_j, n, channel, 3 * i + 2] -= slope_z
            if n_strain > 0:
                x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
                strain = 3 * n_sites
                table_columns[z_i, z_j, n, channel, strain] += x * slope_x
                table_columns[z_i, z_j, n, channel, strain + 1] += y * slope_y
                table_columns[z_i, z_j, n, channel, strain + 2] += z * slope_z
                table_columns[z_i, z_j, n, channel, strain + 3] += 0.5 * (y * slope_z + z * slope_y)
                table_columns[z_i, z_j, n, channel, strain + 4] += 0.5 * (x * slope_z + z * slope_x)
                table_columns[z_i, z_j, n, channel, strain + 5] += 0.5 * (x * slope_y + y * slope_x)
    for n in range(phi_pn.shape[1]):
        phi = phi_pn[p, n]
        for channel in range(table_columns.shape[3]):
            for c in range(n_columns):
                table_columns[z_i, z_j, n, channel, c] += phi * sum_lc[channel, c]


@njit
def local_columns_adjoint(
    first, neighbor, type_i, source_f, target_f, channel_f, lm_f, h_ifc, dwbar_pf, r_pc, u_pc, phi_pn, dphi_pn, y_pm,
    dy_pmc, n_strain, energy_table, table_columns,
):  # fmt: skip
    """dE/dT and its derivatives by all positions and the strain, by way of the local features.

    Parameters
    ----------
    first, neighbor, source_f, target_f
        As for `sum_pairs`.
    type_i : int64 [i]
    channel_f, lm_f : int64 [f]
        Channel of the radial table, and l*l + l + m, of each column `source_f`.
    h_ifc : float64 [i, f, column]
        Derivatives of dE/dv.
    dwbar_pf : float64 [p, f]
        dE/dw.
    r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc
        As for `pair_basis`.
    n_strain : int
    energy_table : float64 [z_i, z_j, n, lc]
        Added to.
    table_columns : float64 [z_i, z_j, n, lc, column]
        Added to.
    """
    n_columns, n_sites = table_columns.shape[4], first.shape[0] - 1
    wbar_fc, sum_lc = np.empty((source_f.shape[0], n_columns)), np.empty((table_columns.shape[3], n_columns))
    for i in range(n_sites):
        for f in range(source_f.shape[0]):
            for c in range(n_columns):
                wbar_fc[f, c] = h_ifc[i, target_f[f], c]
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            add_table_columns(
                p, i, j, type_i[i], type_i[j], source_f, channel_f, lm_f, wbar_fc, dwbar_pf, r_pc, u_pc, phi_pn, dphi_pn,
                y_pm, dy_pmc, n_sites, n_strain, sum_lc, energy_table, table_columns,
            )  # fmt: skip


@njit
def message_columns_adjoint(
    first, neighbor, type_i, term_index, term_value, columns, slot_f, channel_f, lm_f, head_f, w_pf, dw_pfc, dw_pfs, scale_ph,
    dscale_phc, x_jo, dx_joc, g_if, h_ifc, dwbar_pf, r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc, xbar_joc, dscalebar_phc,
    energy_table, table_columns,
):  # fmt: skip
    """The same by way of messages, and the derivatives of dE/dx and of dE/d(weights of attention).

    Parameters
    ----------
    first, neighbor, term_index, term_value, w_pf, dw_pfc, dw_pfs, scale_ph, dscale_phc, x_jo, dx_joc
        As for `gather_columns`.
    type_i, channel_f, lm_f, h_ifc, dwbar_pf, r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc, energy_table, table_columns
        As for `local_columns_adjoint`, of each of `columns`.
    columns, head_f : int64 [f]
        Columns of w that carry the messages, and the head of each.
    slot_f : int64
        Place of every column of w among them.
    g_if : float64 [i, f]
        dE/dv.
    xbar_joc : float64 [j, o, column]
        Added to: the derivatives of dE/dx.
    dscalebar_phc : float64 [p, h, column]
        Added to: the derivatives of dE/d(weight) of every head.
    """
    n_columns, n_sites, n_strain = table_columns.shape[4], first.shape[0] - 1, dw_pfs.shape[2]
    n_heads = scale_ph.shape[1]
    wbar_fc, sum_lc = np.empty((columns.shape[0], n_columns)), np.empty((table_columns.shape[3], n_columns))
    carried_f = np.empty(columns.shape[0])
    for i in range(n_sites):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            wbar_fc[:] = 0.0
            carried_f[:] = 0.0
            for t in range(term_index.shape[0]):
                for a in range(term_index[t, 3]):
                    w, x, v = term_index[t, 0] + a, term_index[t, 1] + a, term_index[t, 2] + a
                    f, value, scale = slot_f[w], term_value[t], 1.0
                    if n_heads > 0:
                        scale = scale_ph[p, a % n_heads]
                    by_h, by_dx = value * x_jo[j, x], value * g_if[i, v]
                    by_w = value * scale * w_pf[p, w]
                    carried_f[f] += by_dx * x_jo[j, x]
                    for c in range(n_columns):
                        wbar_fc[f, c] += by_h * h_ifc[i, v, c] + by_dx * dx_joc[j, x, c]
                    for c in range(n_columns):
                        xbar_joc[j, x, c] += by_w * h_ifc[i, v, c]
                    if n_heads > 0:
                        for c in range(n_columns):
                            xbar_joc[j, x, c] += by_dx * w_pf[p, w] * dscale_phc[p, a % n_heads, c]
                    for c in range(3):
                        xbar_joc[j, x, 3 * j + c] += by_dx * scale * dw_pfc[p, w, c]
                        xbar_joc[j, x, 3 * i + c] -= by_dx * scale * dw_pfc[p, w, c]
                    for c in range(n_strain):
                        xbar_joc[j, x, 3 * n_sites + c] += by_dx * scale * dw_pfs[p, w, c]
            if n_heads > 0:
                for f in range(columns.shape[0]):
                    w, h, carried = columns[f], head_f[f], carried_f[f]
                    for c in range(n_columns):
                        dscalebar_phc[p, h, c] += wbar_fc[f, c] * w_pf[p, w]
                        wbar_fc[f, c] = scale_ph[p, h] * wbar_fc[f, c] + dscale_phc[p, h, c] * carried
                    for c in range(3):
                        dscalebar_phc[p, h, 3 * j + c] += carried * dw_pfc[p, w, c]
                        dscalebar_phc[p, h, 3 * i + c] -= carried * dw_pfc[p, w, c]
                    for c in range(n_strain):
                        dscalebar_phc[p, h, 3 * n_sites + c] += carried * dw_pfs[p, w, c]
            add_table_columns(
                p, i, j, type_i[i], type_i[j], columns, channel_f, lm_f, wbar_fc, dwbar_pf, r_pc, u_pc, phi_pn, dphi_pn,
                y_pm, dy_pmc, n_sites, n_strain, sum_lc, energy_table, table_columns,
            )  # fmt: skip


@njit(inner=True)
def lanes_of(block, stop, type_i, v_if, type_b, v_fb):
    """Types and features of a block of atoms, lane by lane; returns how many there are."""
    n_lanes = min(LANES, stop - block)
    for b in range(n_lanes):
        type_b[b] = type_i[block + b]
        for f in range(v_fb.shape[0]):
            v_fb[f, b] = v_if[block + b, f]
    return n_lanes


@njit
def last_bonds(v_if, type_i, train, weights, start, stop, x_io):
    """The last bond of atoms ``start:stop``: `x_io` [i, o] is written."""
    v_fb, x_ab = np.zeros((train.n_features, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab, type_b = np.empty((train.n_work_rows, LANES)), np.zeros(LANES, dtype=np.int64)
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for block in range(start, stop, LANES):
        n_lanes = lanes_of(block, stop, type_i, v_if, type_b, v_fb)
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        for b in range(n_lanes):
            for o in range(x_io.shape[1]):
                x_io[block + b, o] = x_ab[last + o, b]


@njit
def energies(v_if, type_i, train, weights, start, stop, energy_i, g_if):
    """Energies of atoms ``start:stop`` and their derivatives by the features, for a train that ends in one scalar.

    Parameters
    ----------
    v_if, type_i, train, weights, start, stop
        As for `bonds_adjoint`.
    energy_i : float64 [i]
        Written for the range: without the reference energy, eV.
    g_if : float64 [i, f]
        Written for the range: dE/dv, eV.
    """
    v_fb, g_fb = np.zeros((train.n_features, LANES)), np.empty((train.n_features, LANES))
    x_ab, y_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab, type_b = np.empty((train.n_work_rows, LANES)), np.zeros(LANES, dtype=np.int64)
    for block in range(start, stop, LANES):
        n_lanes = lanes_of(block, stop, type_i, v_if, type_b, v_fb)
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        adjoint(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb)
        for b in range(n_lanes):
            energy_i[block + b] = x_ab[train.n_bond_rows - 1, b]
            for f in range(train.n_features):
                g_if[block + b, f] = g_fb[f, b]


@njit
def bonds_adjoint(v_if, type_i, train, weights, seed_io, start, stop, g_if):
    """dL/dv of atoms ``start:stop`` from dL/dx of the last bond.

    Parameters
    ----------
    v_if : float64 [i, f]
        Features.
    type_i : int64 [i]
    train : TrainTables
    weights : float64 [q]
        Head and cores.
    seed_io : float64 [i, o]
        dL/dx of the last bond.
    start, stop : int
    g_if : float64 [i, f]
        Written for the range.
    """
    v_fb, g_fb = np.zeros((train.n_features, LANES)), np.empty((train.n_features, LANES))
    x_ab, y_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab, type_b = np.empty((train.n_work_rows, LANES)), np.zeros(LANES, dtype=np.int64)
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for block in range(start, stop, LANES):
        n_lanes = lanes_of(block, stop, type_i, v_if, type_b, v_fb)
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        y_ab[:] = 0.0
        for b in range(n_lanes):
            for o in range(seed_io.shape[1]):
                y_ab[last + o, b] = seed_io[block + b, o]
        pull_back(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb)
        for b in range(n_lanes):
            for f in range(train.n_features):
                g_if[block + b, f] = g_fb[f, b]


@njit
def bonds_tangent(v_if, dv_if, type_i, train, weights, start, stop, dx_io):
    """Tangent x' of the last bond of atoms ``start:stop`` along v': `dx_io` [i, o] is written."""
    v_fb, dv_fb = np.zeros((train.n_features, LANES)), np.zeros((train.n_features, LANES))
    x_ab, dx_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab, t_mb = np.empty((train.n_work_rows, LANES)), np.empty((train.max_components, LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for block in range(start, stop, LANES):
        n_lanes = lanes_of(block, stop, type_i, v_if, type_b, v_fb)
        lanes_of(block, stop, type_i, dv_if, type_b, dv_fb)
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        forward_tangent(train, weights, v_fb, dv_fb, x_ab, t_mb, dx_ab)
        for b in range(n_lanes):
            for o in range(dx_io.shape[1]):
                dx_io[block + b, o] = dx_ab[last + o, b]


@njit
def bonds_adjoint_tangent(
    v_if, dv_if, type_i, train, weights, dseed_io, seed_io, start, stop, g_if, h_if, weight_gradient
):
    """dL/dv', dL/dv and dL/dA of atoms ``start:stop`` from dL/dx' and dL/dx of the last bond.

    Parameters
    ----------
    v_if, dv_if : float64 [i, f]
        Features and their tangents.
    type_i, train, weights, start, stop
        As for `bonds_adjoint`.
    dseed_io, seed_io : float64 [i, o]
        dL/dx' and dL/dx.
    g_if, h_if : float64 [i, f]
        Written for the range: dL/dv' and dL/dv.
    weight_gradient : float64 [q]
        Added to.
    """
    v_fb, dv_fb = np.zeros((train.n_features, LANES)), np.zeros((train.n_features, LANES))
    g_fb, h_fb = np.empty((train.n_features, LANES)), np.empty((train.n_features, LANES))
    x_ab, dx_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    y_ab, dy_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab, work_mb = np.empty((train.n_work_rows, LANES)), np.empty((4 * train.max_components, LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for block in range(start, stop, LANES):
        n_lanes = lanes_of(block, stop, type_i, v_if, type_b, v_fb)
        lanes_of(block, stop, type_i, dv_if, type_b, dv_fb)
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        forward_tangent(train, weights, v_fb, dv_fb, x_ab, work_mb, dx_ab)
        y_ab[:] = 0.0
        dy_ab[:] = 0.0
        for b in range(n_lanes):
            for o in range(seed_io.shape[1]):
                y_ab[last + o, b] = dseed_io[block + b, o]
                dy_ab[last + o, b] = seed_io[block + b, o]
        pull_back_tangent(
            train,
            weights,
            type_b,
            v_fb,
            dv_fb,
            x_ab,
            dx_ab,
            work_mb,
            y_ab,
            dy_ab,
            g_fb,
            h_fb,
            weight_gradient,
        )
        for b in range(n_lanes):
            for f in range(train.n_features):
                g_if[block + b, f] = g_fb[f, b]
                h_if[block + b, f] = h_fb[f, b]
