"""Sensitivities of energies and their position derivatives to every parameter: what the training solves with.

Per atom, with x_k, y_k the bond vectors and adjoints of the train, t = C x v, u = C v y, s = C x y the
coupled products of a path, and a prime for the derivative by one position (or strain component) x_c of any
atom,

    dE/dA       = sum_m3 t[a1 a2 m3] y[m3 a3]                                                            (1)
    d2E/dA dx_c = sum_m3 t[a1 a2 m3] y'[m3 a3] + sum_m1 u[a2 a3 m1] x'[m1 a1]
                  + sum_m2 s[a1 a3 m2] v'[m2 a2]                                                         (2)

The primes are matrix products, x' = (dx/dv) v' and y' = (dy/dv) v' with v' = dv_f/dx_c. An atom has columns for the sites it
touches alone, its neighbours and itself ("local"), and its rows are scattered to the columns of the whole configuration when
they are complete, or it has those of the configuration, where it touches nearly all sites: the cost of eq. (2) per atom,
parameter and column is 2 l1 + 2 l2 + 2 l3 + 3 multiplications, whatever the number of features. For the radial coefficients B
and the species factor S, T[z_i, z_j, n, lc] = N^(-1/2) sum_k B[lc, n, k] S[l, k, z_i, z_j], and with the primitive moments
U[z_j, n, lm] = N^(-1/2) sum_{j of type z_j} phi_n Y_lm,

    d2E/dT dx_c = sum_m g'_lmc U[z_j, n, lm] + g_lmc U'[z_j, n, lm],   g' = H v',   H = d2E/dv dv        (3)

the second term pair by pair ("direct"). Parameters theta of the species factor follow by the chain dS/dtheta,
a sparse list for each pair of species.

==================  ========================================================================================
symbol              here
==================  ========================================================================================
v', x', y'          ``dv_ifc``, ``dx_iac``, ``dy_iac``: 3 columns for every touched site, then 6 of strain (Voigt)
dx/dv, dy/dv        ``dx_iaf``, ``dy_iaf`` [i, a, f]
t, u, s             ``t_abm``, ``u_bcm``, ``s_acm``
U, H                ``moments_iznm``, ``hessian_iff``
==================  ========================================================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import harmonics_gradient, legendre_rows, radial_functions
from etnpot.kernels.lanes import (
    LANES,
    OCTET,
    QUAD,
    entry,
    fma,
    load,
    load_quad,
    mul,
    splat,
    splat_quad,
    store,
    store_quad,
)
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

#: Pairs of one atom whose radial functions and harmonics are computed together.
PAIRS = OCTET

__all__ = ["add_cores", "add_rows", "direct_sensitivities", "pair_sensitivities"]


@njit(fastmath=("contract", "reassoc"), inner=True)
def scatter(row_c, site_s, n_sites, n_strain, gradient_c):
    """Add a row of local columns (of the sites of an atom, then of the strain) to a row of all columns."""
    for s in range(n_sites):
        here, there = 3 * s, 3 * site_s[s]
        gradient_c[there] += row_c[here]
        gradient_c[there + 1] += row_c[here + 1]
        gradient_c[there + 2] += row_c[here + 2]
    strain = gradient_c.shape[0] - n_strain
    for d in range(n_strain):
        gradient_c[strain + d] += row_c[3 * n_sites + d]


@njit(inner=True)
def components(train, path):
    """2 l + 1 of the left bond, the feature and the right bond of a path."""
    return train.path[path, COMPONENTS], train.path[path, COMPONENTS + 1], train.path[path, COMPONENTS + 2]


@njit(inner=True)
def across(rows_ia, rows_aq):
    """The rows of up to `QUAD` atoms side by side, those of no atom zero."""
    for a in range(rows_aq.shape[0]):
        for i in range(QUAD):
            rows_aq[a, i] = rows_ia[i, a] if i < rows_ia.shape[0] else 0.0


@njit(inner=True)
def coupled_products(train, path, at, v_fq, x_aq, y_aq, work_aq):
    """t, u and s of one path for all atoms of a quad, one after another in `work_aq` from row `at` on; returns the next row."""
    left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
    feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
    right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
    d1, d2, d3 = components(train, path)
    t = at
    u = t + n1 * n2 * d3
    s = u + n2 * n3 * d1
    end = s + n1 * n3 * d2
    for a in range(at, end):
        store_quad(work_aq, QUAD * a, splat_quad(0.0))
    for z in range(train.path[path, COUPLING], train.path[path, COUPLING_END]):
        m1, m2, m3 = train.coupling_index[z, 0], train.coupling_index[z, 1], train.coupling_index[z, 2]
        i1, i2, i3 = QUAD * (left + m1 * n1), QUAD * (feature + m2 * n2), QUAD * (right + m3 * n3)
        c = splat_quad(train.coupling_value[z])
        for a1 in range(n1):
            cx = mul(c, load_quad(x_aq, i1 + QUAD * a1))
            for a2 in range(n2):
                row = QUAD * (t + (a1 * n2 + a2) * d3 + m3)
                store_quad(work_aq, row, fma(cx, load_quad(v_fq, i2 + QUAD * a2), load_quad(work_aq, row)))
            for a3 in range(n3):
                row = QUAD * (s + (a1 * n3 + a3) * d2 + m2)
                store_quad(work_aq, row, fma(cx, load_quad(y_aq, i3 + QUAD * a3), load_quad(work_aq, row)))
        for a2 in range(n2):
            cv = mul(c, load_quad(v_fq, i2 + QUAD * a2))
            for a3 in range(n3):
                row = QUAD * (u + (a2 * n3 + a3) * d1 + m1)
                store_quad(work_aq, row, fma(cv, load_quad(y_aq, i3 + QUAD * a3), load_quad(work_aq, row)))
    return end


@njit(fastmath=("contract", "reassoc"))
def add_cores(
    train, path_begin, path_end, v_if, x_ia, y_ia, dv_ifc, dx_iac, dx_first, dy_iac, dy_first, site_is, n_sites_i,
    n_strain, q_shift, energy_iq, gradient_qc,
):  # fmt: skip
    """Eqs. (1) and (2) for the paths of consecutive cores and up to `QUAD` atoms, added to the rows of the parameters.

    Where the columns of the result are those of the atoms, this goes block by block of columns: what all paths read and write
    of one stays in the cache.

    Parameters
    ----------
    train : TrainTables
    path_begin, path_end : int
        Range of paths.
    v_if, x_ia, y_ia : float64 [i, f], [i, a], [i, a]
        Features, bonds and adjoints.
    dv_ifc, dx_iac, dy_iac : float64 [i, f, column], [i, a, column], [i, a, column]
        Their primes; local columns, as many as a multiple of `LANES`.
    dx_first, dy_first : int
        The bond rows at which the second and third begin.
    site_is, n_sites_i : int64 [i, s], [i]
        Sites of the local columns. Where `site_is` has no columns, the local columns are those of the result.
    n_strain : int
        Columns of strain: 6, or 0 where no virials are wanted.
    q_shift : int
        Row of the results that weight 0 would have.
    energy_iq : float64 [i, q] or [1, q]
        Added to.
    gradient_qc : float64 [q, 3 n_sites + n_strain], or [q, column] where the local columns are those of the result
        Added to.
    """
    n_work = 0
    for path in range(path_begin, path_end):
        n1, n2, n3 = train.path[path, RANK_LEFT], train.path[path, CHANNELS], train.path[path, RANK_RIGHT]
        d1, d2, d3 = components(train, path)
        n_work += n1 * n2 * d3 + n2 * n3 * d1 + n1 * n3 * d2
    work_aq, work_first = np.empty((n_work, QUAD)), np.empty(path_end - path_begin, np.int64)
    v_fq, x_aq, y_aq = (
        np.empty((v_if.shape[1], QUAD)), np.empty((x_ia.shape[1], QUAD)), np.empty((y_ia.shape[1], QUAD)),
    )  # fmt: skip
    across(v_if, v_fq)
    across(x_ia, x_aq)
    across(y_ia, y_aq)
    energy_b, at = np.empty(QUAD), 0
    for path in range(path_begin, path_end):
        work_first[path - path_begin] = at
        end = coupled_products(train, path, at, v_fq, x_aq, y_aq, work_aq)
        n1, n2, n3 = train.path[path, RANK_LEFT], train.path[path, CHANNELS], train.path[path, RANK_RIGHT]
        _, _, d3 = components(train, path)
        right, q = train.path[path, RIGHT], train.path[path, WEIGHT] + q_shift
        for a in range(n1 * n2):
            for a3 in range(n3):
                energy = splat_quad(0.0)
                for m in range(d3):
                    t = load_quad(work_aq, QUAD * (at + a * d3 + m))
                    energy = fma(t, load_quad(y_aq, QUAD * (right + m * n3 + a3)), energy)
                store_quad(energy_b, 0, energy)
                for i in range(v_if.shape[0]):
                    energy_iq[i if energy_iq.shape[0] > 1 else 0, q] += energy_b[i]
                q += 1
        at = end
    row_c = np.empty(dv_ifc.shape[2])
    n_blocks, is_aligned = dv_ifc.shape[2] // LANES, site_is.shape[1] == 0
    for part in range(n_blocks if is_aligned else 1):
        for path in range(path_begin, path_end):
            left, n1 = train.path[path, LEFT], train.path[path, RANK_LEFT]
            feature, n2 = train.path[path, FEATURE], train.path[path, CHANNELS]
            right, n3 = train.path[path, RIGHT], train.path[path, RANK_RIGHT]
            d1, d2, d3 = components(train, path)
            first_t = work_first[path - path_begin]
            first_u = first_t + n1 * n2 * d3
            first_s = first_u + n2 * n3 * d1
            for i in range(v_if.shape[0]):
                begin, end = part, part + 1
                if not is_aligned:
                    begin, end = 0, (3 * n_sites_i[i] + n_strain + LANES - 1) // LANES
                row_v = (i * dv_ifc.shape[1] + feature) * n_blocks
                row_x = (i * dx_iac.shape[1] + left - dx_first) * n_blocks
                row_y = (i * dy_iac.shape[1] + right - dy_first) * n_blocks
                q = train.path[path, WEIGHT] + q_shift
                for a1 in range(n1):
                    for a2 in range(n2):
                        for a3 in range(n3):
                            t, u, s = (
                                QUAD * (first_t + (a1 * n2 + a2) * d3) + i,
                                QUAD * (first_u + (a2 * n3 + a3) * d1) + i,
                                QUAD * (first_s + (a1 * n3 + a3) * d2) + i,
                            )
                            for block in range(begin, end):
                                sum_c = load(gradient_qc, q * n_blocks + block) if is_aligned else splat(0.0)
                                for m in range(d3):
                                    prime = load(dy_iac, row_y + (m * n3 + a3) * n_blocks + block)
                                    sum_c = fma(splat(entry(work_aq, t + QUAD * m)), prime, sum_c)
                                for m in range(d1):
                                    prime = load(dx_iac, row_x + (m * n1 + a1) * n_blocks + block)
                                    sum_c = fma(splat(entry(work_aq, u + QUAD * m)), prime, sum_c)
                                for m in range(d2):
                                    prime = load(dv_ifc, row_v + (m * n2 + a2) * n_blocks + block)
                                    sum_c = fma(splat(entry(work_aq, s + QUAD * m)), prime, sum_c)
                                if is_aligned:
                                    store(gradient_qc, q * n_blocks + block, sum_c)
                                else:
                                    store(row_c, block, sum_c)
                            if not is_aligned:
                                scatter(row_c, site_is[i], n_sites_i[i], n_strain, gradient_qc[q])
                            q += 1


@njit(fastmath=("contract", "reassoc"))
def add_rows(factor_iqm, prime_ifc, f_m, q_i, site_is, n_sites_i, n_strain, gradient_qc):
    """Rows q of every atom, from row q_i on: sum_m factor[i, q, m] prime[i, f_m, column], added to all columns.

    Parameters
    ----------
    factor_iqm : float64 [i, q, m]
    prime_ifc : float64 [i, f, column]
        Local columns, as many as a multiple of `LANES`.
    f_m : int64 [m]
    q_i : int64 [i]
    site_is, n_sites_i, n_strain, gradient_qc
        As for `add_cores`.
    """
    row_c = np.empty(prime_ifc.shape[2])
    n_blocks, is_aligned = prime_ifc.shape[2] // LANES, site_is.shape[1] == 0
    for i in range(factor_iqm.shape[0]):
        used = n_blocks if is_aligned else (3 * n_sites_i[i] + n_strain + LANES - 1) // LANES
        for q in range(factor_iqm.shape[1]):
            for block in range(used):
                at = (q_i[i] + q) * n_blocks + block
                sum_c = load(gradient_qc, at) if is_aligned else splat(0.0)
                for m in range(f_m.shape[0]):
                    prime = load(prime_ifc, (i * prime_ifc.shape[1] + f_m[m]) * n_blocks + block)
                    sum_c = fma(splat(factor_iqm[i, q, m]), prime, sum_c)
                if is_aligned:
                    store(gradient_qc, at, sum_c)
                else:
                    store(row_c, block, sum_c)
            if not is_aligned:
                scatter(row_c, site_is[i], n_sites_i[i], n_strain, gradient_qc[q_i[i] + q])


@njit(fastmath=("contract", "reassoc"))
def pair_sensitivities(
    first, r_pc, type_i, type_p, basis, radial_table, start, stop, slot_p, slot_i, n_sites_i,
    n_strain, scale, columns_icf, moments_iznm,
):  # fmt: skip
    """v' for a chunk of atoms, and the primitive moments U of eq. (3).

    Parameters
    ----------
    first, r_pc, type_i, type_p, basis, radial_table
        As for `evaluate`.
    start, stop : int
        The chunk.
    slot_p, slot_i : int64 [p], [i]
        Local number of the neighbour of a pair, and of an atom itself, among the sites that the atom touches: local columns
        3 s .. 3 s + 2 belong to site s.
    n_sites_i : int64 [i]
        Number of touched sites of every atom; the strain comes after them.
    n_strain : int
        Columns of strain, 6 or 0.
    scale : float
        N^(-1/2).
    columns_icf : float64 [i, column, f]
        Written.
    moments_iznm : float64 [i, z_j, n, lm]
        Written when it has a row per atom (leave it empty otherwise).
    """
    l_max = basis.feature_first.shape[0] - 1
    n_lm, n_radial, n_channels = (l_max + 1) ** 2, basis.recurrence.shape[1], radial_table.shape[3]
    n_features = columns_icf.shape[2]
    with_moments = moments_iznm.shape[0] == stop - start
    r_b, u_cb = np.empty(PAIRS), np.empty((3, PAIRS))
    phi_nb, dphi_nb = np.empty((n_radial, PAIRS)), np.empty((n_radial, PAIRS))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    y_mb, dy_cmb = np.empty((n_lm, PAIRS)), np.empty((3, n_lm, PAIRS))
    radial, slope = np.empty(n_channels), np.empty(n_channels)
    row_cf = np.zeros((3, n_features))
    columns_icf[:] = 0.0
    if with_moments:
        moments_iznm[:] = 0.0
    for i in range(start, stop):
        strain = 3 * n_sites_i[i]
        for block in range(first[i], first[i + 1], PAIRS):
            n_lanes = min(PAIRS, first[i + 1] - block)
            pair_block(r_pc, block, n_lanes, basis.constants[1], r_b, u_cb)
            radial_functions(r_b, basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
            harmonics_gradient(u_cb, l_max, basis.legendre, legendre_tb, circle_mb, y_mb, dy_cmb)
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
                        gx = dy_cmb[0, lm, b] * over_r
                        gy = dy_cmb[1, lm, b] * over_r
                        gz = dy_cmb[2, lm, b] * over_r
                        f = basis.feature_first[l] + m * basis.feature_rank[l]
                        for c in range(count):
                            value, dvalue = radial[channel + c], slope[channel + c] * y
                            row_cf[0, f + c] = dvalue * ux + value * gx
                            row_cf[1, f + c] = dvalue * uy + value * gy
                            row_cf[2, f + c] = dvalue * uz + value * gz
                here, there = 3 * slot_i[i], 3 * slot_p[p]
                x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
                at = i - start
                for c in range(3):
                    for f in range(n_features):
                        columns_icf[at, there + c, f] += row_cf[c, f]
                    for f in range(n_features):
                        columns_icf[at, here + c, f] -= row_cf[c, f]
                for f in range(n_features if n_strain else 0):
                    gx, gy, gz = row_cf[0, f], row_cf[1, f], row_cf[2, f]
                    columns_icf[at, strain, f] += x * gx
                    columns_icf[at, strain + 1, f] += y * gy
                    columns_icf[at, strain + 2, f] += z * gz
                    columns_icf[at, strain + 3, f] += 0.5 * (y * gz + z * gy)
                    columns_icf[at, strain + 4, f] += 0.5 * (x * gz + z * gx)
                    columns_icf[at, strain + 5, f] += 0.5 * (x * gy + y * gx)
                if with_moments:
                    for n in range(n_radial):
                        phi = scale * phi_nb[n, b]
                        for lm in range(n_lm):
                            moments_iznm[at, zj, n, lm] += phi * y_mb[lm, b]


@njit(inner=True)
def pair_block(r_pc, block, n_lanes, cutoff, r_b, u_cb):
    """Distances and unit vectors of consecutive pairs; empty lanes as in `gather_slot`."""
    for b in range(PAIRS):
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


@njit(inner=True)
def expand_direct(
    moments_dq, n_rows, row, z_i, z_j, basis, n_radial, radial_flat, species_table, chain_first, chain_lk, chain_q,
    chain_value, n_species_parameters, species_lk, direct_cq,
):  # fmt: skip
    """From the derivatives by the coefficients T of a pair of species those by B and theta: some rows of the output."""
    n_species, rank = species_table.shape[2], species_table.shape[1]
    n_lk = species_table.shape[0] * rank
    pair_type = z_i * n_species + z_j
    for d in range(n_rows):
        for lk in range(n_lk):
            species_lk[lk] = 0.0
        for l in range(species_table.shape[0]):
            for q in range(basis.channel_first[l] * n_radial, basis.channel_first[l + 1] * n_radial):
                moment = moments_dq[d, q]
                for k in range(rank):
                    species_lk[l * rank + k] += radial_flat[q * rank + k] * moment
                    direct_cq[row + d, n_species_parameters + q * rank + k] += (
                        species_table[l, k, z_i, z_j] * moment
                    )
        for link in range(chain_first[pair_type], chain_first[pair_type + 1]):
            direct_cq[row + d, chain_q[link]] += chain_value[link] * species_lk[chain_lk[link]]


@njit(fastmath=("contract", "reassoc"))
def direct_sensitivities(
    first, neighbor, r_pc, type_i, type_p, basis, radial_flat, species_table, chain_first, chain_lk, chain_q,
    chain_value, start, stop, scale, n_species_parameters, n_sites, g_if, direct_cq,
):  # fmt: skip
    """The dependence of dE/dT on the positions at fixed g: the second term of eq. (3), by B and theta.

    The derivatives by T are summed over all pairs of a site that have the same species, and only these sums are multiplied by B
    and S.

    Parameters
    ----------
    first, neighbor, r_pc, type_i, type_p, basis, start, stop, scale
        As for `evaluate` and `pair_sensitivities`.
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
    n_sites : int
        Sites that have forces: all, or 0.
    g_if : float64 [i, f]
        dE_i/dv of the chunk.
    direct_cq : float64 [3 n_sites + n_strain, q]
        Added to.
    """
    l_max = basis.feature_first.shape[0] - 1
    n_lm, n_radial = (l_max + 1) ** 2, basis.recurrence.shape[1]
    n_species = species_table.shape[2]
    n_q = basis.channel_first[l_max + 1] * n_radial
    strain, n_strain = 3 * n_sites, direct_cq.shape[0] - 3 * n_sites
    r_b, u_cb = np.empty(PAIRS), np.empty((3, PAIRS))
    phi_nb, dphi_nb = np.empty((n_radial, PAIRS)), np.empty((n_radial, PAIRS))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    y_mb, dy_cmb = np.empty((n_lm, PAIRS)), np.empty((3, n_lm, PAIRS))
    species_lk = np.empty(species_table.shape[0] * species_table.shape[1])
    # by T[z_i, z_j, (l, c, n)]: of a pair, of an atom and its neighbours of z_j, of a neighbour and its centres of z_i, of all
    # pairs
    direct_dq, here_zdq = np.empty((3, n_q)), np.empty((n_species, 3, n_q))
    there_szdq = np.zeros((n_sites, n_species, 3, n_q))
    strained_zzdq = np.zeros((n_species, n_species, n_strain, n_q))
    is_there_sz, is_here_z = np.zeros((n_sites, n_species), np.bool_), np.empty(n_species, np.bool_)
    is_strained_zz = np.zeros((n_species, n_species), np.bool_)
    for i in range(start, stop):
        at, zi = i - start, type_i[i]
        here_zdq[:] = 0.0
        is_here_z[:] = False
        for block in range(first[i], first[i + 1], PAIRS):
            n_lanes = min(PAIRS, first[i + 1] - block)
            pair_block(r_pc, block, n_lanes, basis.constants[1], r_b, u_cb)
            radial_functions(r_b, basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
            harmonics_gradient(u_cb, l_max, basis.legendre, legendre_tb, circle_mb, y_mb, dy_cmb)
            for b in range(n_lanes):
                p = block + b
                zj = type_p[p]
                over_r = 1.0 / r_b[b]
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
                        gx *= over_r
                        gy *= over_r
                        gz *= over_r
                        for n in range(n_radial):
                            phi, dphi = phi_nb[n, b], dphi_nb[n, b]
                            direct_dq[0, q] = value * dphi * u_cb[0, b] + gx * phi
                            direct_dq[1, q] = value * dphi * u_cb[1, b] + gy * phi
                            direct_dq[2, q] = value * dphi * u_cb[2, b] + gz * phi
                            q += 1
                if n_sites > 0:
                    j = neighbor[p]
                    is_there_sz[j, zi] = True
                    is_here_z[zj] = True
                    for d in range(3):
                        for q in range(n_q):
                            there_szdq[j, zi, d, q] += direct_dq[d, q]
                            here_zdq[zj, d, q] -= direct_dq[d, q]
                if n_strain > 0:
                    is_strained_zz[zi, zj] = True
                    x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
                    for q in range(n_q):
                        dx, dy, dz = direct_dq[0, q], direct_dq[1, q], direct_dq[2, q]
                        strained_zzdq[zi, zj, 0, q] += x * dx
                        strained_zzdq[zi, zj, 1, q] += y * dy
                        strained_zzdq[zi, zj, 2, q] += z * dz
                        strained_zzdq[zi, zj, 3, q] += 0.5 * (y * dz + z * dy)
                        strained_zzdq[zi, zj, 4, q] += 0.5 * (x * dz + z * dx)
                        strained_zzdq[zi, zj, 5, q] += 0.5 * (x * dy + y * dx)
        for zj in range(n_species):
            if is_here_z[zj]:
                expand_direct(
                    here_zdq[zj], 3, 3 * i, zi, zj, basis, n_radial, radial_flat, species_table, chain_first, chain_lk,
                    chain_q, chain_value, n_species_parameters, species_lk, direct_cq,
                )  # fmt: skip
    for s in range(n_sites):
        for zi in range(n_species):
            if is_there_sz[s, zi]:
                expand_direct(
                    there_szdq[s, zi], 3, 3 * s, zi, type_i[s], basis, n_radial, radial_flat, species_table, chain_first,
                    chain_lk, chain_q, chain_value, n_species_parameters, species_lk, direct_cq,
                )  # fmt: skip
    for zi in range(n_species):
        for zj in range(n_species):
            if is_strained_zz[zi, zj]:
                expand_direct(
                    strained_zzdq[zi, zj], n_strain, strain, zi, zj, basis, n_radial, radial_flat, species_table,
                    chain_first, chain_lk, chain_q, chain_value, n_species_parameters, species_lk, direct_cq,
                )  # fmt: skip
