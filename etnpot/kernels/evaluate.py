"""Energies and pair derivatives of a range of atoms: pair stage, train, and back.

    R_lc(r)    = sum_n T[z_i, z_j, n, lc] phi_n(r)                                     (1)
    v[l, m, c] = sum_j R_lc(r_ij) Y_lm(u_ij),    v[0, 0, constant] = 1                 (2)
    dE/dr_p    = u sum_lmc g_lmc R'_lc Y_lm + (1/r) (1 - u u^T) sum_lmc g_lmc R_lc dS_lm/du   (3)

with g = dE/dv from the adjoint pass of the train. A block of `LANES` atoms is carried through slot by slot:
slot s holds the s-th neighbour of every atom in the block; lanes that have run out of neighbours see r = r_c,
where all radial functions vanish.

============  ==============================================================================================
symbol        here
============  ==============================================================================================
T             ``radial_table`` [z_i, z_j, n, lc], with N^(-1/2) folded in; lc = channels of l = 0, 1, ...
edges         ``first`` [i], ``r_pc`` [p, c], ``type_i``, ``type_p`` (type of the neighbour of pair p)
R, R'         ``radial_slb``, ``dradial_slb`` [slot, lc, lane]
v, g          ``v_fb``, ``g_fb`` [f, lane]
============  ==============================================================================================
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import harmonics, harmonics_gradient, harmonics_work_rows, radial_functions
from etnpot.kernels.lanes import LANES, fma, load, splat, store
from etnpot.kernels.train import adjoint, forward

__all__ = ["bonds", "evaluate", "features"]


@njit
def largest_neighborhood(first, start, stop):
    """Most neighbours of any atom in ``start:stop``."""
    most = 0
    for i in range(start, stop):
        most = max(most, first[i + 1] - first[i])
    return most


@njit
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


@njit
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


@njit
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


@njit
def clear_features(v_fb):
    """No neighbours: every feature is zero but the constant, which is one."""
    for f in range(v_fb.shape[0]):
        for b in range(LANES):
            v_fb[f, b] = 1.0 if f == 0 else 0.0


@njit
def block_features(
    first, r_pc, type_i, type_p, basis, radial_table, start, stop, n_slots,
    r_b, u_scb, phi_nb, dphi_nb, row, y_mb, radial_slb, dradial_slb, v_fb,
):  # fmt: skip
    """Pair stage of one block of atoms, eqs. (1), (2); keeps u, R and R' of every slot for the way back."""
    clear_features(v_fb)
    for slot in range(n_slots):
        gather_slot(first, r_pc, start, stop, slot, basis.constants[1], r_b, u_scb[slot])
        radial_functions(r_b, basis.codes, basis.constants, basis.recurrence, phi_nb, dphi_nb)
        combine_radial(
            first, type_i, type_p, start, stop, slot, radial_table, phi_nb, dphi_nb, row,
            radial_slb[slot], dradial_slb[slot],
        )  # fmt: skip
        harmonics(u_scb[slot], basis.feature_first.shape[0] - 1, basis.norms, y_mb)
        accumulate_features(basis, radial_slb[slot], y_mb, v_fb)


@njit
def pair_adjoint(basis, radial_lb, dradial_lb, y_mb, dy_cmb, g_fb, slope_b, gradient_cb):
    """Sums of eq. (3) for one slot: slope = sum g R' Y and gradient_c = sum g R dS/du_c."""
    zero = splat(0.0)
    slope, x, y, z = zero, zero, zero, zero
    for l in range(basis.feature_first.shape[0]):
        channel, n_channels = basis.channel_first[l], basis.channel_first[l + 1] - basis.channel_first[l]
        for m in range(2 * l + 1):
            f = basis.feature_first[l] + m * basis.feature_rank[l]
            lm = l * l + m
            g_radial, g_slope = zero, zero
            for c in range(n_channels):
                g = load(g_fb, f + c)
                g_radial = fma(g, load(radial_lb, channel + c), g_radial)
                g_slope = fma(g, load(dradial_lb, channel + c), g_slope)
            slope = fma(g_slope, load(y_mb, lm), slope)
            x = fma(g_radial, load(dy_cmb[0], lm), x)
            y = fma(g_radial, load(dy_cmb[1], lm), y)
            z = fma(g_radial, load(dy_cmb[2], lm), z)
    store(slope_b, 0, slope)
    store(gradient_cb, 0, x)
    store(gradient_cb, 1, y)
    store(gradient_cb, 2, z)


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
    n_slots_max = largest_neighborhood(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_lm, n_radial, n_channels = (l_max + 1) ** 2, basis.recurrence.shape[1], radial_table.shape[3]
    r_b = np.empty(LANES)
    u_scb = np.empty((n_slots_max, 3, LANES))
    phi_nb, dphi_nb = np.empty((n_radial, LANES)), np.empty((n_radial, LANES))
    row = np.empty((2, n_channels))
    work_b = np.empty((harmonics_work_rows(l_max), LANES))
    y_mb, dy_cmb = np.empty((n_lm, LANES)), np.empty((3, n_lm, LANES))
    radial_slb = np.empty((n_slots_max, n_channels, LANES))
    dradial_slb = np.empty((n_slots_max, n_channels, LANES))
    v_fb, g_fb = np.empty((train.n_features, LANES)), np.empty((train.n_features, LANES))
    x_ab, y_ab = np.empty((train.n_bond_rows, LANES)), np.empty((train.n_bond_rows, LANES))
    work_ab = np.empty((train.n_work_rows, LANES))
    type_b = np.zeros(LANES, dtype=np.int64)
    slope_b, gradient_cb = np.empty(LANES), np.empty((3, LANES))
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        n_slots = largest_neighborhood(first, block, block + n_lanes)
        for b in range(n_lanes):
            type_b[b] = type_i[block + b]
        block_features(
            first, r_pc, type_i, type_p, basis, radial_table, block, stop, n_slots,
            r_b, u_scb, phi_nb, dphi_nb, row, y_mb, radial_slb, dradial_slb, v_fb,
        )  # fmt: skip
        forward(train, weights, type_b, v_fb, work_ab, x_ab)
        adjoint(train, weights, v_fb, x_ab, work_ab, y_ab, g_fb)
        for b in range(n_lanes):
            energy_i[block + b] = x_ab[train.n_bond_rows - 1, b]
        for slot in range(n_slots):
            harmonics_gradient(u_scb[slot], l_max, basis.norms, work_b, y_mb, dy_cmb)
            pair_adjoint(basis, radial_slb[slot], dradial_slb[slot], y_mb, dy_cmb, g_fb, slope_b, gradient_cb)
            for b in range(n_lanes):
                p = first[block + b] + slot
                if p < first[block + b + 1]:
                    # eq. (3); the unit vector is carried, so 1/r is the ratio of a component
                    ux, uy, uz = u_scb[slot, 0, b], u_scb[slot, 1, b], u_scb[slot, 2, b]
                    r = ux * r_pc[p, 0] + uy * r_pc[p, 1] + uz * r_pc[p, 2]
                    gx, gy, gz = gradient_cb[0, b], gradient_cb[1, b], gradient_cb[2, b]
                    along = slope_b[b] - (ux * gx + uy * gy + uz * gz) / r
                    dE_dr_pc[p, 0] = ux * along + gx / r
                    dE_dr_pc[p, 1] = uy * along + gy / r
                    dE_dr_pc[p, 2] = uz * along + gz / r


@njit
def features(first, r_pc, type_i, type_p, basis, radial_table, start, stop, v_if):
    """Features of atoms ``start:stop``, eq. (2); arguments as for `evaluate`, `v_if` [i, f] is written."""
    n_slots_max = largest_neighborhood(first, start, stop)
    l_max = basis.feature_first.shape[0] - 1
    n_radial, n_channels = basis.recurrence.shape[1], radial_table.shape[3]
    r_b = np.empty(LANES)
    u_scb = np.empty((n_slots_max, 3, LANES))
    phi_nb, dphi_nb = np.empty((n_radial, LANES)), np.empty((n_radial, LANES))
    row = np.empty((2, n_channels))
    y_mb = np.empty(((l_max + 1) ** 2, LANES))
    radial_slb = np.empty((n_slots_max, n_channels, LANES))
    dradial_slb = np.empty((n_slots_max, n_channels, LANES))
    v_fb = np.empty((v_if.shape[1], LANES))
    for block in range(start, stop, LANES):
        n_lanes = min(LANES, stop - block)
        n_slots = largest_neighborhood(first, block, block + n_lanes)
        block_features(
            first, r_pc, type_i, type_p, basis, radial_table, block, stop, n_slots,
            r_b, u_scb, phi_nb, dphi_nb, row, y_mb, radial_slb, dradial_slb, v_fb,
        )  # fmt: skip
        for b in range(n_lanes):
            for f in range(v_if.shape[1]):
                v_if[block + b, f] = v_fb[f, b]


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
