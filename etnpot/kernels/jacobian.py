"""Sensitivities of energies and their position derivatives to every parameter: what the training solves with.

Per atom, with x_k, y_k the bond vectors and adjoints of the train, t = C x v, and a prime for the derivative by one feature v_f,

    dE/dA   = sum_m3 y_k[l3 m3 a3] t[m3],              dE/dA_0[z_i, a] = y_0[a]                                     (1)
    M[A, f] = d2E/dA dv_f = sum_m3 y'_k t + y_k t',    H[f', f] = d2E/dv_f' dv_f                                    (2)

so that the Jacobian of all position derivatives is one matrix product per configuration,

    d/dq dE/dx_jc = sum_i sum_f M_i[q, f] D[(j, c), i, f],    D[(j, c), i, f] = dv_if/dx_jc,                        (3)

with six more rows of D for the strain. For the radial coefficients B and the species factor S,
T[z_i, z_j, n, lc] = N^(-1/2) sum_k B[lc, n, k] S[l, k, z_i, z_j], and with the primitive moments
U[z_j, n, lm] = N^(-1/2) sum_{j of type z_j} phi_n Y_lm,

    dE/dB[lc, n, k]    = sum_m g_lmc sum_zj S[l, k, z_i, z_j] U[z_j, n, lm]
    dE/dS[l, k, z_i, z_j] = sum_cm g_lmc sum_n B[lc, n, k] U[z_j, n, lm]                                            (4)

and M the same with H[lmc, f] in place of g; the dependence of U on the positions is added pair by pair ("direct").
Parameters theta of the species factor follow by the chain dS/dtheta, a sparse list for each pair of species.

==============  ================================================================================================
symbol          here
==============  ================================================================================================
q               index in the flat parameter vector minus ``q_start``
M               ``sensitivity_qif`` [q, i, f]: atoms of one chunk
D               ``columns_cif`` [column, i, f]: rows of touched atoms (3 each), then 6 of the strain (Voigt order)
dx/dv_f, dy/dv_f  ``dx_af``, ``dy_af`` [a, f]
==============  ================================================================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import LANES, harmonics_gradient, harmonics_work_rows, radial_functions
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
)

__all__ = ["pair_sensitivities", "radial_sensitivities", "train_sensitivities"]


@njit(fastmath=("contract", "reassoc"))
def train_sensitivities(
    train, weights, type_i, v_if, q_weight, q_start, first_path, last_path, with_head,
    energy_iq, sensitivity_qif, g_if, hessian_iff,
):  # fmt: skip
    """Eqs. (1) and (2) for a chunk of atoms.

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
        Head and cores.
    type_i : int64 [i]
    v_if : float64 [i, f]
    q_weight : int
        Index of the first weight (the head) in the flat parameter vector.
    q_start : int
        Index of row 0 of the outputs in the flat parameter vector.
    first_path, last_path : int
        Paths whose weights are wanted are ``first_path:last_path``.
    with_head : bool
        Whether the head is wanted.
    energy_iq : float64 [i, q]
        Written for the wanted weights: dE_i/dq.
    sensitivity_qif : float64 [q, i, f]
        Written for the wanted weights: M.
    g_if : float64 [i, f]
        Written: dE_i/dv.
    hessian_iff : float64 [i, f', f]
        Written when it has a row per atom: H (leave it empty when not wanted).
    """
    n_atoms, n_features = v_if.shape
    n_rows = train.n_bond_rows
    with_hessian = hessian_iff.shape[0] == n_atoms
    x_a, y_a = np.empty(n_rows), np.empty(n_rows)
    dx_af, dy_af = np.empty((n_rows, n_features)), np.empty((n_rows, n_features))
    t_m, p_m = np.empty(train.max_components), np.empty(train.max_components)
    dt_mf, dp_mf = np.empty((train.max_components, n_features)), np.empty((train.max_components, n_features))
    h_ff = np.empty((n_features, n_features))
    rank_0 = train.bond_first[1]
    n_paths = train.path.shape[0]
    for i in range(n_atoms):
        for a in range(n_rows):
            x_a[a] = weights[type_i[i] * rank_0 + a] if a < rank_0 else 0.0
            y_a[a] = 1.0 if a == n_rows - 1 else 0.0
            for f in range(n_features):
                dx_af[a, f] = 0.0
                dy_af[a, f] = 0.0
        for f in range(n_features):
            g_if[i, f] = 0.0
            for h in range(n_features):
                h_ff[f, h] = 0.0
        for path in range(n_paths):
            left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
            feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
            right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
            weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
            for a1 in range(n1):
                for a2 in range(n2):
                    for m3 in range(components):
                        t_m[m3] = 0.0
                        for f in range(n_features):
                            dt_mf[m3, f] = 0.0
                    for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                        i1 = left + train.coupling_index[z, 0] * n1 + a1
                        i2 = feature + train.coupling_index[z, 1] * n2 + a2
                        m3 = train.coupling_index[z, 2]
                        c = train.coupling_value[z]
                        t_m[m3] += c * x_a[i1] * v_if[i, i2]
                        cv = c * v_if[i, i2]
                        if left >= rank_0:
                            for f in range(n_features):
                                dt_mf[m3, f] += cv * dx_af[i1, f]
                        dt_mf[m3, i2] += c * x_a[i1]
                    at = weight + (a1 * n2 + a2) * n3
                    for m3 in range(components):
                        for a3 in range(n3):
                            w = weights[at + a3]
                            i3 = right + m3 * n3 + a3
                            x_a[i3] += w * t_m[m3]
                            for f in range(n_features):
                                dx_af[i3, f] += w * dt_mf[m3, f]
        for path in range(n_paths - 1, -1, -1):
            left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
            feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
            right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
            weight, components = train.path[path, WEIGHT], train.path[path, COMPONENTS]
            wanted = first_path <= path < last_path
            is_last = right == n_rows - 1
            for a1 in range(n1):
                for a2 in range(n2):
                    at = weight + (a1 * n2 + a2) * n3
                    for m3 in range(components):
                        t_m[m3] = 0.0
                        p_m[m3] = 0.0
                        for f in range(n_features):
                            dt_mf[m3, f] = 0.0
                            dp_mf[m3, f] = 0.0
                        for a3 in range(n3):
                            w = weights[at + a3]
                            i3 = right + m3 * n3 + a3
                            p_m[m3] += w * y_a[i3]
                            if not is_last:
                                for f in range(n_features):
                                    dp_mf[m3, f] += w * dy_af[i3, f]
                    for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                        i1 = left + train.coupling_index[z, 0] * n1 + a1
                        i2 = feature + train.coupling_index[z, 1] * n2 + a2
                        m3 = train.coupling_index[z, 2]
                        c = train.coupling_value[z]
                        x, v = c * x_a[i1], c * v_if[i, i2]
                        p = p_m[m3]
                        y_a[i1] += p * v
                        g_if[i, i2] += p * x
                        for f in range(n_features):
                            dy_af[i1, f] += v * dp_mf[m3, f]
                        dy_af[i1, i2] += c * p
                        if with_hessian:
                            for f in range(n_features):
                                h_ff[i2, f] += x * dp_mf[m3, f] + (c * p) * dx_af[i1, f]
                        if wanted:
                            t_m[m3] += x * v_if[i, i2]
                            for f in range(n_features):
                                dt_mf[m3, f] += v * dx_af[i1, f]
                            dt_mf[m3, i2] += x
                    if wanted:
                        for a3 in range(n3):
                            q = q_weight + at + a3 - q_start
                            total = 0.0
                            for f in range(n_features):
                                sensitivity_qif[q, i, f] = 0.0
                            for m3 in range(components):
                                i3 = right + m3 * n3 + a3
                                y, t = y_a[i3], t_m[m3]
                                total += y * t
                                for f in range(n_features):
                                    sensitivity_qif[q, i, f] += y * dt_mf[m3, f] + t * dy_af[i3, f]
                            energy_iq[i, q] = total
        if with_head:
            for row in range(train.path[0, WEIGHT]):
                z, a = row // rank_0, row % rank_0
                q = q_weight + row - q_start
                mine = z == type_i[i]
                energy_iq[i, q] = y_a[a] if mine else 0.0
                for f in range(n_features):
                    sensitivity_qif[q, i, f] = dy_af[a, f] if mine else 0.0
        if with_hessian:
            for f in range(n_features):
                for h in range(n_features):
                    hessian_iff[i, f, h] = h_ff[f, h]


@njit(fastmath=("contract", "reassoc"))
def pair_sensitivities(
    first, neighbor, r_pc, type_i, type_p, basis, radial_table, start, stop, site_of, n_sites,
    scale, columns_cif, moments_iznm,
):  # fmt: skip
    """D of eq. (3) for a chunk of atoms, and the primitive moments U of eq. (4).

    Parameters
    ----------
    first, neighbor, r_pc, type_i, type_p, basis, radial_table
        As for `evaluate`.
    start, stop : int
        The chunk.
    site_of : int64 [site]
        Local number of every atom that the chunk touches; rows 3 s .. 3 s + 2 of D belong to local atom s.
    n_sites : int
        Number of touched atoms.
    scale : float
        N^(-1/2).
    columns_cif : float64 [3 n_sites + 6, i, f]
        Written.
    moments_iznm : float64 [i, z_j, n, lm]
        Written when it has a row per atom.
    """
    l_max = basis.feature_first.shape[0] - 1
    n_lm, n_radial, n_channels = (l_max + 1) ** 2, basis.recurrence.shape[1], radial_table.shape[3]
    n_features = columns_cif.shape[2]
    with_moments = moments_iznm.shape[0] == stop - start
    r_b, u_cb = np.empty(LANES), np.empty((3, LANES))
    phi_nb, dphi_nb = np.empty((n_radial, LANES)), np.empty((n_radial, LANES))
    work_b = np.empty((harmonics_work_rows(l_max), LANES))
    y_mb, dy_cmb = np.empty((n_lm, LANES)), np.empty((3, n_lm, LANES))
    radial, slope = np.empty(n_channels), np.empty(n_channels)
    row_cf = np.zeros((3, n_features))
    columns_cif[:] = 0.0
    if with_moments:
        moments_iznm[:] = 0.0
    strain = 3 * n_sites
    for i in range(start, stop):
        for block in range(first[i], first[i + 1], LANES):
            n_lanes = min(LANES, first[i + 1] - block)
            pair_block(r_pc, block, n_lanes, basis.constants[1], r_b, u_cb)
            radial_functions(r_b, basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
            harmonics_gradient(u_cb, l_max, basis.norms, work_b, y_mb, dy_cmb)
            for b in range(n_lanes):
                p = block + b
                zi, zj = type_i[i], type_p[p]
                for c in range(n_channels):
                    radial[c] = 0.0
                    slope[c] = 0.0
                for n in range(n_radial):
                    phi, dphi = phi_nb[n, b], dphi_nb[n, b]
                    for c in range(n_channels):
                        radial[c] += radial_table[zi, zj, n, c] * phi
                        slope[c] += radial_table[zi, zj, n, c] * dphi
                ux, uy, uz = u_cb[0, b], u_cb[1, b], u_cb[2, b]
                over_r = 1.0 / r_b[b]
                for l in range(l_max + 1):
                    channel, count = basis.channel_first[l], basis.channel_first[l + 1] - basis.channel_first[l]
                    for m in range(2 * l + 1):
                        lm = l * l + m
                        y = y_mb[lm, b]
                        # dY/dr_c = (dS/du_c - l u_c S) / r, eq. (3) of evaluate
                        gx = (dy_cmb[0, lm, b] - l * ux * y) * over_r
                        gy = (dy_cmb[1, lm, b] - l * uy * y) * over_r
                        gz = (dy_cmb[2, lm, b] - l * uz * y) * over_r
                        f = basis.feature_first[l] + m * basis.feature_rank[l]
                        for c in range(count):
                            value, dvalue = radial[channel + c], slope[channel + c] * y
                            row_cf[0, f + c] = dvalue * ux + value * gx
                            row_cf[1, f + c] = dvalue * uy + value * gy
                            row_cf[2, f + c] = dvalue * uz + value * gz
                here, there = 3 * site_of[i], 3 * site_of[neighbor[p]]
                x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
                at = i - start
                for c in range(3):
                    for f in range(n_features):
                        columns_cif[there + c, at, f] += row_cf[c, f]
                    for f in range(n_features):
                        columns_cif[here + c, at, f] -= row_cf[c, f]
                for f in range(n_features):
                    gx, gy, gz = row_cf[0, f], row_cf[1, f], row_cf[2, f]
                    columns_cif[strain, at, f] += x * gx
                    columns_cif[strain + 1, at, f] += y * gy
                    columns_cif[strain + 2, at, f] += z * gz
                    columns_cif[strain + 3, at, f] += 0.5 * (y * gz + z * gy)
                    columns_cif[strain + 4, at, f] += 0.5 * (x * gz + z * gx)
                    columns_cif[strain + 5, at, f] += 0.5 * (x * gy + y * gx)
                if with_moments:
                    for n in range(n_radial):
                        phi = scale * phi_nb[n, b]
                        for lm in range(n_lm):
                            moments_iznm[at, zj, n, lm] += phi * y_mb[lm, b]


@njit
def pair_block(r_pc, block, n_lanes, cutoff, r_b, u_cb):
    """Distances and unit vectors of consecutive pairs; empty lanes as in `gather_slot`."""
    for b in range(LANES):
        r_b[b] = cutoff
        u_cb[0, b] = 0.0
        u_cb[1, b] = 0.0
        u_cb[2, b] = 1.0
        if b < n_lanes:
            p = block + b
            r = np.sqrt(r_pc[p, 0] ** 2 + r_pc[p, 1] ** 2 + r_pc[p, 2] ** 2)
            r_b[b] = r
            for c in range(3):
                u_cb[c, b] = r_pc[p, c] / r


@njit(fastmath=("contract", "reassoc"))
def radial_sensitivities(
    first, neighbor, r_pc, type_i, type_p, basis, radial_flat, species_table, chain_first, chain_lk, chain_q,
    chain_value, start, stop, site_of, n_sites, scale, q_radial, q_start, g_if, hessian_iff, moments_iznm,
    energy_iq, sensitivity_qif, direct_cq,
):  # fmt: skip
    """Eq. (4) for a chunk of atoms: species and radial parameters.

    Parameters
    ----------
    first, neighbor, r_pc, type_i, type_p, basis, start, stop, site_of, n_sites, scale
        As for `pair_sensitivities`.
    radial_flat : float64 [(l, c, n, k)]
        B of all l, flat.
    species_table : float64 [l, k, z_i, z_j]
        S.
    chain_first : int64 [z_i * n_species + z_j + 1]
        Range of the chain of a pair of species in the three arrays that follow.
    chain_lk, chain_q, chain_value : int64, int64, float64
        dS[l, k, z_i, z_j] / dtheta_q = value, with lk = l * K + k and q an index in the flat parameter vector.
    q_radial, q_start : int
        Index of the first radial coefficient in the flat parameter vector; index of row 0 of the outputs.
    g_if, hessian_iff, moments_iznm
        As written by `train_sensitivities` and `pair_sensitivities`.
    energy_iq, sensitivity_qif : float64
        Written for the rows of species and radial parameters (which are contiguous, species first).
    direct_cq : float64 [3 n_sites + 6, q]
        Added to: direct terms, for the same rows (row 0 is the first species parameter).
    """
    l_max = basis.feature_first.shape[0] - 1
    n_lm, n_radial = (l_max + 1) ** 2, basis.recurrence.shape[1]
    n_species, rank = species_table.shape[2], species_table.shape[1]
    n_features = g_if.shape[1]
    q_species = q_radial
    for entry in range(chain_q.shape[0]):
        q_species = min(q_species, chain_q[entry])
    n_shared = q_radial - q_species + radial_flat.shape[0]
    mixed_nm = np.empty((n_radial, n_lm))
    species_lkf = np.empty(((l_max + 1) * rank, n_features))
    r_b, u_cb = np.empty(LANES), np.empty((3, LANES))
    phi_nb, dphi_nb = np.empty((n_radial, LANES)), np.empty((n_radial, LANES))
    work_b = np.empty((harmonics_work_rows(l_max), LANES))
    y_mb, dy_cmb = np.empty((n_lm, LANES)), np.empty((3, n_lm, LANES))
    direct = np.empty((3, n_shared))
    species_lk = np.empty((3, (l_max + 1) * rank))
    strain = 3 * n_sites
    for i in range(start, stop):
        at, zi = i - start, type_i[i]
        for q in range(q_species - q_start, q_species - q_start + n_shared):
            energy_iq[at, q] = 0.0
            for f in range(n_features):
                sensitivity_qif[q, at, f] = 0.0
        # radial coefficients
        for k in range(rank):
            q = q_radial - q_start
            for l in range(l_max + 1):
                count = basis.channel_first[l + 1] - basis.channel_first[l]
                for n in range(n_radial):
                    for m in range(2 * l + 1):
                        total = 0.0
                        for zj in range(n_species):
                            total += species_table[l, k, zi, zj] * moments_iznm[at, zj, n, l * l + m]
                        mixed_nm[n, m] = total
                for c in range(count):
                    for n in range(n_radial):
                        row = q + (c * n_radial + n) * rank + k
                        energy = 0.0
                        for m in range(2 * l + 1):
                            w = mixed_nm[n, m]
                            f_lmc = basis.feature_first[l] + m * basis.feature_rank[l] + c
                            energy += g_if[at, f_lmc] * w
                            for f in range(n_features):
                                sensitivity_qif[row, at, f] += w * hessian_iff[at, f_lmc, f]
                        energy_iq[at, row] = energy
                q += count * n_radial * rank
        # species factor
        for zj in range(n_species):
            any_neighbor = False
            for n in range(n_radial):
                if moments_iznm[at, zj, n, 0] != 0.0:
                    any_neighbor = True
            if not any_neighbor:
                continue
            q = 0
            for l in range(l_max + 1):
                count = basis.channel_first[l + 1] - basis.channel_first[l]
                for k in range(rank):
                    lk = l * rank + k
                    for f in range(n_features):
                        species_lkf[lk, f] = 0.0
                    energy = 0.0
                    for c in range(count):
                        for m in range(2 * l + 1):
                            w = 0.0
                            for n in range(n_radial):
                                w += radial_flat[q + (c * n_radial + n) * rank + k] * moments_iznm[at, zj, n, l * l + m]
                            f_lmc = basis.feature_first[l] + m * basis.feature_rank[l] + c
                            energy += g_if[at, f_lmc] * w
                            for f in range(n_features):
                                species_lkf[lk, f] += w * hessian_iff[at, f_lmc, f]
                    species_lk[0, lk] = energy
                q += count * n_radial * rank
            pair_type = zi * n_species + zj
            for entry in range(chain_first[pair_type], chain_first[pair_type + 1]):
                value, lk, row = chain_value[entry], chain_lk[entry], chain_q[entry] - q_start
                energy_iq[at, row] += value * species_lk[0, lk]
                for f in range(n_features):
                    sensitivity_qif[row, at, f] += value * species_lkf[lk, f]
        # direct terms
        for block in range(first[i], first[i + 1], LANES):
            n_lanes = min(LANES, first[i + 1] - block)
            pair_block(r_pc, block, n_lanes, basis.constants[1], r_b, u_cb)
            radial_functions(r_b, basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
            harmonics_gradient(u_cb, l_max, basis.norms, work_b, y_mb, dy_cmb)
            for b in range(n_lanes):
                p = block + b
                zj = type_p[p]
                over_r = 1.0 / r_b[b]
                for d in range(3):
                    for q in range(n_shared):
                        direct[d, q] = 0.0
                    for lk in range((l_max + 1) * rank):
                        species_lk[d, lk] = 0.0
                q = 0
                for l in range(l_max + 1):
                    count = basis.channel_first[l + 1] - basis.channel_first[l]
                    for c in range(count):
                        value, gx, gy, gz = 0.0, 0.0, 0.0, 0.0
                        for m in range(2 * l + 1):
                            lm = l * l + m
                            g = scale * g_if[at, basis.feature_first[l] + m * basis.feature_rank[l] + c]
                            value += g * y_mb[lm, b]
                            gx += g * dy_cmb[0, lm, b]
                            gy += g * dy_cmb[1, lm, b]
                            gz += g * dy_cmb[2, lm, b]
                        gx = (gx - l * u_cb[0, b] * value) * over_r
                        gy = (gy - l * u_cb[1, b] * value) * over_r
                        gz = (gz - l * u_cb[2, b] * value) * over_r
                        for n in range(n_radial):
                            phi, dphi = phi_nb[n, b], dphi_nb[n, b]
                            dx = value * dphi * u_cb[0, b] + gx * phi
                            dy = value * dphi * u_cb[1, b] + gy * phi
                            dz = value * dphi * u_cb[2, b] + gz * phi
                            for k in range(rank):
                                s = species_table[l, k, zi, zj]
                                row = q + k
                                out = q_radial - q_species + row
                                direct[0, out] = s * dx
                                direct[1, out] = s * dy
                                direct[2, out] = s * dz
                                w = radial_flat[row]
                                species_lk[0, l * rank + k] += w * dx
                                species_lk[1, l * rank + k] += w * dy
                                species_lk[2, l * rank + k] += w * dz
                            q += rank
                pair_type = zi * n_species + zj
                for entry in range(chain_first[pair_type], chain_first[pair_type + 1]):
                    value, lk, out = chain_value[entry], chain_lk[entry], chain_q[entry] - q_species
                    for d in range(3):
                        direct[d, out] += value * species_lk[d, lk]
                here, there = 3 * site_of[i], 3 * site_of[neighbor[p]]
                x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
                for d in range(3):
                    for q in range(n_shared):
                        direct_cq[there + d, q] += direct[d, q]
                        direct_cq[here + d, q] -= direct[d, q]
                for q in range(n_shared):
                    gx, gy, gz = direct[0, q], direct[1, q], direct[2, q]
                    direct_cq[strain, q] += x * gx
                    direct_cq[strain + 1, q] += y * gy
                    direct_cq[strain + 2, q] += z * gz
                    direct_cq[strain + 3, q] += 0.5 * (y * gz + z * gy)
                    direct_cq[strain + 4, q] += 0.5 * (x * gz + z * gx)
                    direct_cq[strain + 5, q] += 0.5 * (x * gy + y * gx)
