"""Derivatives of the components of the last bond: by the pair vectors, and by the parameters.

    L_s = sum_i sum_o w_sio x_io,      dL_s/dr_p,      dL_s/dA,      dL_s/dT                                   (1)

with x_i the last bond of atom i. A seed w_s asks for one linear combination of all components of all atoms, such as one
component of a total. Features and forward pass serve all seeds; each has an adjoint pass that begins with w_s in the place
of dE/dx_d = 1, and then goes the way of ``evaluate`` (pairs) or ``sites`` (parameters). With g = dL_s/dv,

    dL_s/dT[z_i, z_j, n, lc] = sum_p phi_n(r_p) sum_m g_lmc Y_lm(u_p)                                          (2)

and the derivatives by the parameters are gathered in rows: atom i adds to row ``row_i[i]``, so that small molecules share
a block.

==========  =====================================================================
symbol      here
==========  =====================================================================
w           ``seed_sio`` [s, i, o]
dL/dr       ``derivative_spc`` [s, p, c]
dL/dA       ``weight_gradient`` [s, row, q]
dL/dT       ``table_gradient`` [s, row, z_i, z_j, n, lc]
==========  =====================================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import harmonics, legendre_rows, radial_functions
from etnpot.kernels.evaluate import (
    block_features,
    gather_pairs,
    pair_capacity,
    pair_derivatives,
)
from etnpot.kernels.lanes import LANES, OCTET, splat, store
from etnpot.kernels.sites import path_gradient
from etnpot.kernels.train import WEIGHT, forward, pull_back

__all__ = ["output_derivatives", "output_gradients"]


@njit(inner=True)
def seed_adjoint(train, seed_sio, s, block, n_lanes, y_ab):
    """dL_s/dx of a block: the seed on the last bond, zero elsewhere."""
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for a in range(y_ab.shape[0]):
        store(y_ab, a, splat(0.0))
    for b in range(n_lanes):
        for o in range(seed_sio.shape[2]):
            y_ab[last + o, b] = seed_sio[s, block + b, o]


@njit
def output_derivatives(
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop, seed_sio, output_io, derivative_spc
):  # fmt: skip
    """The last bond of atoms ``start:stop``, and dL_s/dr of eq. (1) for the pairs that leave them.

    Parameters
    ----------
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop
        As for ``evaluate.evaluate``.
    seed_sio : float64 [s, i, o]
        w.
    output_io : float64 [i, o]
        Written for the range: the last bond.
    derivative_spc : float64 [s, p, c]
        Written for the pairs of the range.
    """
    n_p = pair_capacity(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_radial, n_channels = basis.recurrence.shape[1], radial_table.shape[3]
    type_first, order_bp = np.empty(radial_table.shape[1] + 2, np.int64), np.empty((LANES, n_p), np.int64)
    r_p, u_bcp, y_mp = np.empty(n_p), np.empty((LANES, 4, n_p)), np.empty(((l_max + 1) ** 2, n_p))
    u_cp = np.empty((4, n_p))
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
    last = train.bond_first[train.bond_first.shape[0] - 2]
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        for b in range(n_lanes):
            type_b[b] = type_i[block + b]
        block_features(
            first, r_pc, type_i, type_p, basis, radial_table, block, n_lanes, type_first, order_bp, r_p, u_bcp, phi_np,
            dphi_np, legendre_tb, circle_mb, y_mp, radial_blp, dradial_blp, v_fb,
        )  # fmt: skip
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        for b in range(n_lanes):
            for o in range(output_io.shape[1]):
                output_io[block + b, o] = x_ab[last + o, b]
        for s in range(seed_sio.shape[0]):
            seed_adjoint(train, seed_sio, s, block, n_lanes, y_ab)
            pull_back(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb)
            for b in range(n_lanes):
                i = block + b
                for f in range(train.n_features):
                    g_f[f] = g_fb[f, b]
                for c in range(4):
                    for p in range(n_p):
                        u_cp[c, p] = u_bcp[b, c, p]
                pair_derivatives(
                    basis, first[i + 1] - first[i], u_cp, legendre_tb, circle_mb, radial_blp[b], dradial_blp[b], g_f,
                    order_bp[b], derivative_spc[s],
                )  # fmt: skip


@njit
def output_gradients(
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop, seed_sio, row_i, with_table,
    weight_gradient, table_gradient,
):  # fmt: skip
    """Derivatives of eq. (1) by head, cores and radial table for atoms ``start:stop``.

    Parameters
    ----------
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop
        As for ``evaluate.evaluate``.
    seed_sio : float64 [s, i, o]
        w.
    row_i : int64 [i]
        The row to which an atom adds.
    with_table : bool
        Whether dL/dT is wanted.
    weight_gradient : float64 [s, row, q]
        Added to: dL/dA.
    table_gradient : float64 [s, row, z_i, z_j, n, lc]
        Added to, if wanted: dL/dT, eq. (2).
    """
    n_p = pair_capacity(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_radial, n_channels = basis.recurrence.shape[1], radial_table.shape[3]
    type_first, order_bp = np.empty(radial_table.shape[1] + 2, np.int64), np.empty((LANES, n_p), np.int64)
    r_p, u_bcp, y_mp = np.empty(n_p), np.empty((LANES, 4, n_p)), np.empty(((l_max + 1) ** 2, n_p))
    u_cp = np.empty((4, n_p))
    phi_np, dphi_np = np.zeros((n_radial, n_p)), np.zeros((n_radial, n_p))
    legendre_tb, circle_mb = np.empty((legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    radial_blp, dradial_blp = np.empty((LANES, n_channels, n_p)), np.empty((LANES, n_channels, n_p))
    v_fb = np.empty((train.n_features, LANES))
    x_ab = np.empty((train.n_bond_rows, LANES))
    n_seeds = seed_sio.shape[0]
    y_ab, g_sfb = np.empty((train.n_bond_rows, LANES)), np.empty((n_seeds, train.n_features, LANES))
    work_ab, t_mb = np.empty((train.n_work_rows, LANES)), np.empty((train.max_components, LANES))
    gradient_qb = np.zeros((weights.shape[0], LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    rank_0 = train.bond_first[1]
    first_core = train.path[0, WEIGHT]
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        for b in range(n_lanes):
            type_b[b] = type_i[block + b]
        block_features(
            first, r_pc, type_i, type_p, basis, radial_table, block, n_lanes, type_first, order_bp, r_p, u_bcp, phi_np,
            dphi_np, legendre_tb, circle_mb, y_mp, radial_blp, dradial_blp, v_fb,
        )  # fmt: skip
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        for s in range(n_seeds):
            seed_adjoint(train, seed_sio, s, block, n_lanes, y_ab)
            pull_back(train, weights, v_fb, x_ab, work_ab, y_ab, g_sfb[s])
            for path in range(train.path.shape[0]):
                path_gradient(train, path, train.path[path, WEIGHT], v_fb, x_ab, y_ab, t_mb, gradient_qb)
            for b in range(n_lanes):
                row = row_i[block + b]
                for a in range(rank_0):
                    weight_gradient[s, row, type_b[b] * rank_0 + a] += y_ab[a, b]
                for q in range(first_core, weights.shape[0]):
                    weight_gradient[s, row, q] += gradient_qb[q, b]
        if with_table:
            for b in range(n_lanes):
                i = block + b
                row, zi = row_i[i], type_b[b]
                n_filled = gather_pairs(first, r_pc, i, basis.constants[1], order_bp[b], r_p, u_cp)
                radial_functions(
                    r_p[:n_filled], basis.codes, basis.constants, basis.recurrence, phi_np, dphi_np
                )
                harmonics(u_cp, n_filled, l_max, basis.legendre, legendre_tb, circle_mb, y_mp)
                for k in range(first[i + 1] - first[i]):
                    zj = type_p[order_bp[b, k]]
                    for s in range(n_seeds):
                        for l in range(l_max + 1):
                            channel = basis.channel_first[l]
                            for c in range(basis.channel_first[l + 1] - channel):
                                along = 0.0
                                f = basis.feature_first[l] + c
                                for m in range(2 * l + 1):
                                    along += g_sfb[s, f + m * basis.feature_rank[l], b] * y_mp[l * l + m, k]
                                for n in range(n_radial):
                                    table_gradient[s, row, zi, zj, n, channel + c] += along * phi_np[n, k]
