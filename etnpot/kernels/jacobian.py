"""Sensitivities of energies and their position derivatives to every parameter: what the training solves with.

Per atom, with x_k, y_k the bond vectors and adjoints of the train, t = C x v, u = C v y, s = C x y the
coupled products of a path, and a prime for the derivative by one position (or strain component) x_c of any
atom,

    dE/dA       = sum_m3 t[a1 a2 m3] y[m3 a3]                                                            (1)
    d2E/dA dx_c = sum_m3 t[a1 a2 m3] y'[m3 a3] + sum_m1 u[a2 a3 m1] x'[m1 a1]
                  + sum_m2 s[a1 a3 m2] v'[m2 a2]                                                         (2)

The primes are matrix products, x' = (dx/dv) v' and y' = (dy/dv) v' with v' = D[c, i, f] = dv_if/dx_c, and so
is the sum of eq. (2) over atoms: the cost per parameter and column is 2 l1 + 2 l2 + 2 l3 + 3 multiplications
per atom, whatever the number of features. For the radial coefficients B and the species factor S,
T[z_i, z_j, n, lc] = N^(-1/2) sum_k B[lc, n, k] S[l, k, z_i, z_j], and with the primitive moments
U[z_j, n, lm] = N^(-1/2) sum_{j of type z_j} phi_n Y_lm,

    d2E/dT dx_c = sum_m g'_lmc U[z_j, n, lm] + g_lmc U'[z_j, n, lm],   g' = H v',   H = d2E/dv dv        (3)

the second term pair by pair ("direct"). Parameters theta of the species factor follow by the chain dS/dtheta,
a sparse list for each pair of species.

==================  ========================================================================================
symbol              here
==================  ========================================================================================
D                   ``columns_cif`` [column, i, f]: rows of touched atoms (3 each), then 6 of strain (Voigt)
dx/dv, dy/dv        ``dx_iaf``, ``dy_iaf`` [i, a, f]
t, u, s             ``t_abim``, ``u_bcim``, ``s_acim``
U, H                ``moments_iznm``, ``hessian_iff``
==================  ========================================================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import LANES, harmonics_gradient, harmonics_work_rows, radial_functions
from etnpot.kernels.train import (
    CHANNELS,
    COUPLING,
    COUPLING_END,
    FEATURE,
    LEFT,
    RANK_LEFT,
    RANK_RIGHT,
    RIGHT,
    WEIGHT,
)

__all__ = ["direct_sensitivities", "pair_sensitivities", "path_products", "train_states"]


@njit(fastmath=("contract", "reassoc"))
def train_states(train, weights, type_i, v_if, with_hessian, x_ia, y_ia, g_if, dx_iaf, dy_iaf, hessian_iff):
    """Bond vectors, adjoints and their derivatives by every feature, for a chunk of atoms.

    With the transfer matrices of core k, W = A C v (bond to bond), X = A C x (features to the right bond) and
    Y = A C y (features to the left bond),

        x_k = W x_{k-1},   dx_k/dv = W dx_{k-1}/dv + X,   dy_{k-1}/dv = W^T dy_k/dv + Y,
        H = M + M^T,   M = sum_k X^T dy_k/dv      (the feature of core k first, one of a later core second).

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
        Head and cores.
    type_i : int64 [i]
    v_if : float64 [i, f]
    with_hessian : bool
        Whether H is wanted.
    x_ia, y_ia : float64 [i, a]
        Written: bonds and adjoints, stacked as in `TrainTables`.
    g_if : float64 [i, f]
        Written: dE_i/dv.
    dx_iaf, dy_iaf : float64 [i, a, f]
        Written.
    hessian_iff : float64 [i, f', f]
        Written if wanted.
    """
    n_atoms, n_features = v_if.shape
    n_rows = train.n_bond_rows
    n_cores = train.bond_first.shape[0] - 2
    rank_0 = train.bond_first[1]
    by_left = np.zeros((n_rows, n_features))
    for i in range(n_atoms):
        for a in range(n_rows):
            x_ia[i, a] = weights[type_i[i] * rank_0 + a] if a < rank_0 else 0.0
            y_ia[i, a] = 1.0 if a == n_rows - 1 else 0.0
        dx_iaf[i] = 0.0
        dy_iaf[i] = 0.0
        g_if[i] = 0.0
        by_left[:] = 0.0
        transfers = []
        for k in range(n_cores):
            here, there, end = train.bond_first[k], train.bond_first[k + 1], train.bond_first[k + 2]
            transfer = np.zeros((end - there, there - here))
            for path in range(train.path_first[k], train.path_first[k + 1]):
                left, n1 = train.path[path, LEFT] - here, train.path[path, RANK_LEFT]
                feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
                right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
                weight = train.path[path, WEIGHT]
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1
                    i2 = feature + train.coupling_index[z, 1] * n2
                    i3 = right + train.coupling_index[z, 2] * n3
                    c = train.coupling_value[z]
                    for a1 in range(n1):
                        for a2 in range(n2):
                            cv, cx = c * v_if[i, i2 + a2], c * x_ia[i, here + i1 + a1]
                            at = weight + (a1 * n2 + a2) * n3
                            for a3 in range(n3):
                                transfer[i3 - there + a3, i1 + a1] += weights[at + a3] * cv
                                by_left[i3 + a3, i2 + a2] += weights[at + a3] * cx
            x_ia[i, there:end] = np.dot(transfer, x_ia[i, here:there])
            dx_iaf[i, there:end] = by_left[there:end]
            if k > 0:
                dx_iaf[i, there:end] += np.dot(transfer, dx_iaf[i, here:there])
            transfers.append(transfer)
        if with_hessian:
            hessian_iff[i] = 0.0
        for k in range(n_cores - 1, -1, -1):
            here, there, end = train.bond_first[k], train.bond_first[k + 1], train.bond_first[k + 2]
            back = np.ascontiguousarray(transfers[k].T)
            y_ia[i, here:there] = np.dot(back, y_ia[i, there:end])
            g_if[i] += np.dot(y_ia[i, there:end], by_left[there:end])
            for path in range(train.path_first[k], train.path_first[k + 1]):
                left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
                feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
                right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
                weight = train.path[path, WEIGHT]
                for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
                    i1 = left + train.coupling_index[z, 0] * n1
                    i2 = feature + train.coupling_index[z, 1] * n2
                    i3 = right + train.coupling_index[z, 2] * n3
                    c = train.coupling_value[z]
                    for a1 in range(n1):
                        for a2 in range(n2):
                            at = weight + (a1 * n2 + a2) * n3
                            total = 0.0
                            for a3 in range(n3):
                                total += weights[at + a3] * y_ia[i, i3 + a3]
                            dy_iaf[i, i1 + a1, i2 + a2] += c * total
            if k < n_cores - 1:
                dy_iaf[i, here:there] += np.dot(back, dy_iaf[i, there:end])
                if with_hessian:
                    columns = np.ascontiguousarray(by_left[there:end].T)
                    hessian_iff[i] += np.dot(columns, dy_iaf[i, there:end])
        if with_hessian:
            for f in range(n_features):
                for h in range(f + 1):
                    total = hessian_iff[i, f, h] + hessian_iff[i, h, f]
                    hessian_iff[i, f, h] = total
                    hessian_iff[i, h, f] = total


@njit(fastmath=("contract", "reassoc"))
def path_products(train, path, v_if, x_ia, y_ia, t_abim, u_bcim, s_acim):
    """The three coupled products of one path, for a chunk of atoms: what multiplies dy, dx and dv in eq. (2).

        t[a1 a2, i m3] = sum C x v,     u[a2 a3, i m1] = sum C v y,     s[a1 a3, i m2] = sum C x y

    Parameters
    ----------
    train, v_if, x_ia, y_ia
        As for and from `train_states`.
    path : int
    t_abim, u_bcim, s_acim : float64 [a1, a2, i, m3], [a2, a3, i, m1], [a1, a3, i, m2]
        Written.
    """
    left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
    feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
    right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
    t_abim[:] = 0.0
    u_bcim[:] = 0.0
    s_acim[:] = 0.0
    for i in range(v_if.shape[0]):
        for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
            m1, m2, m3 = train.coupling_index[z, 0], train.coupling_index[z, 1], train.coupling_index[z, 2]
            i1, i2, i3 = left + m1 * n1, feature + m2 * n2, right + m3 * n3
            c = train.coupling_value[z]
            for a1 in range(n1):
                cx = c * x_ia[i, i1 + a1]
                for a2 in range(n2):
                    t_abim[a1, a2, i, m3] += cx * v_if[i, i2 + a2]
                for a3 in range(n3):
                    s_acim[a1, a3, i, m2] += cx * y_ia[i, i3 + a3]
            for a2 in range(n2):
                cv = c * v_if[i, i2 + a2]
                for a3 in range(n3):
                    u_bcim[a2, a3, i, m1] += cv * y_ia[i, i3 + a3]


@njit(fastmath=("contract", "reassoc"))
def pair_sensitivities(
    first, neighbor, r_pc, type_i, type_p, basis, radial_table, start, stop, site_of, n_sites,
    scale, columns_cif, moments_iznm,
):  # fmt: skip
    """D for a chunk of atoms, and the primitive moments U of eq. (3).

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
        Written when it has a row per atom (leave it empty otherwise).
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
                    channel = basis.channel_first[l]
                    count = basis.channel_first[l + 1] - channel
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
def direct_sensitivities(
    first, neighbor, r_pc, type_i, type_p, basis, radial_flat, species_table, chain_first, chain_lk, chain_q,
    chain_value, start, stop, site_of, n_sites, scale, n_species_parameters, g_if, direct_cq,
):  # fmt: skip
    """The dependence of dE/dT on the positions at fixed g: the second term of eq. (3), by B and theta.

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
        dS[l, k, z_i, z_j] / dtheta_q = value, with lk = l * K + k.
    n_species_parameters : int
        Length of theta; columns of the output are theta, then B.
    g_if : float64 [i, f]
        dE_i/dv of the chunk.
    direct_cq : float64 [3 n_sites + 6, q]
        Added to.
    """
    l_max = basis.feature_first.shape[0] - 1
    n_lm, n_radial = (l_max + 1) ** 2, basis.recurrence.shape[1]
    n_species, rank = species_table.shape[2], species_table.shape[1]
    n_shared = n_species_parameters + radial_flat.shape[0]
    r_b, u_cb = np.empty(LANES), np.empty((3, LANES))
    phi_nb, dphi_nb = np.empty((n_radial, LANES)), np.empty((n_radial, LANES))
    work_b = np.empty((harmonics_work_rows(l_max), LANES))
    y_mb, dy_cmb = np.empty((n_lm, LANES)), np.empty((3, n_lm, LANES))
    direct = np.empty((3, n_shared))
    species_lk = np.empty((3, (l_max + 1) * rank))
    strain = 3 * n_sites
    for i in range(start, stop):
        at, zi = i - start, type_i[i]
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
                                out = n_species_parameters + row
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
                    value, lk, out = chain_value[entry], chain_lk[entry], chain_q[entry]
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
