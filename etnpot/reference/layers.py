"""Layers between the features and the last train, with dense couplings.

    w_p,f        = R_lc(r_p) Y_lm(u_p),   f = (l, m, c)                                                          (1)
    v_i,g       += sum_p sum_f S_fg w_p,f,           v_i,g += sum_p sum_{f o} K_fog w_p,f x_j,o                   (2)
    w'_p,f       = dw_p,f/dr_p . d_p                                                                             (3)
    dL/dT[z_i, z_j, n, lc] = sum_p sum_m dL/dw d w/dR phi_n + ...,   d w/dR = Y_lm and likewise of w'               (4)

with S and K, of zeros and C, made of the tables. Both sums are linear in each factor, so that an adjoint is the same sum with
another factor left out, and a derivative by positions that with w, x or the weight of attention replaced by its own.

A train on given features is multilinear in the places where they enter (`etnpot.reference.train`); one unit vector at its
right end for each component of its last bond,

    dx_o/dv_f   = sum_s x_o(e_f at s),     x'_o = sum_s x_o(v' at s),     dx'_o/dv_f = sum_{s != t} x_o(v' at s, e_f at t)   (5)

============  =====================================================================
symbol        here
============  =====================================================================
w, dw/dr      ``w_pf``, ``dw_pfc``, by `pair_functions`
S             `sum_tensor` [f, g]
K             `gather_tensor` [h, f, o, g]: the terms of each head a mod H
x_o(...)      `contract_chain` with its right end open
============  =====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.reference import evaluate
from etnpot.reference.train import contract_chain, dense_cores, head, reduce_cores, with_place

if TYPE_CHECKING:
    from etnpot.potential.tables import BasisTables, TrainTables

__all__ = [
    "bonds_adjoint",
    "bonds_adjoint_tangent",
    "bonds_tangent",
    "energies",
    "gather",
    "gather_adjoint",
    "gather_columns",
    "gather_tensor",
    "last_bonds",
    "local_columns_adjoint",
    "message_columns_adjoint",
    "pair_basis",
    "pair_features",
    "pair_functions",
    "pair_tangent",
    "sum_columns",
    "sum_pairs",
    "sum_pairs_adjoint",
    "sum_tensor",
    "table_adjoint",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


# ------------------------------------------------------------------------------------------------------- pairs


def _columns(basis: BasisTables) -> tuple[Integers, Integers]:
    """lm and lc of every column of w."""
    lm, lc = [], []
    for l in range(len(basis.channel_first) - 1):
        for m in range(2 * l + 1):
            for c in range(basis.channel_first[l], basis.channel_first[l + 1]):
                lm.append(l * l + m)
                lc.append(c)
    return np.array(lm, dtype=np.int64), np.array(lc, dtype=np.int64)


def pair_functions(
    r_pc: Floats, zi_p: Integers, zj_p: Integers, basis: BasisTables, table: Floats
) -> tuple[Floats, Floats]:
    """Eq. (1) and its derivative by the pair vector.

    Returns
    -------
    w_pf : float64 [p, f]
    dw_pfc : float64 [p, f, c], 1/Å
    """
    lm, lc = _columns(basis)
    phi_pn, dphi_pnc, y_pm, dy_pmc = evaluate.pair_basis(r_pc, basis)
    radial_pf = np.einsum("pnf,pn->pf", table[zi_p, zj_p][:, :, lc], phi_pn)
    dradial_pfc = np.einsum("pnf,pnc->pfc", table[zi_p, zj_p][:, :, lc], dphi_pnc)
    dw_pfc = dradial_pfc * y_pm[:, lm, None] + radial_pf[:, :, None] * dy_pmc[:, lm]
    return radial_pf * y_pm[:, lm], dw_pfc


def pair_features(
    r_pc: Floats,
    zi_p: Integers,
    zj_p: Integers,
    basis: BasisTables,
    table: Floats,
    start: int,
    stop: int,
    w_pf: Floats,
) -> None:
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
    w_pf[start:stop] = pair_functions(r_pc, zi_p, zj_p, basis, table)[0][start:stop]


def pair_tangent(
    r_pc: Floats,
    direction_pc: Floats,
    zi_p: Integers,
    zj_p: Integers,
    basis: BasisTables,
    table: Floats,
    start: int,
    stop: int,
    dw_pf: Floats,
) -> None:
    """Eq. (3) of the pairs ``start:stop``: `dw_pf` [p, f] is written, for the tangents `direction_pc` [p, c]."""
    dw_pfc = pair_functions(r_pc, zi_p, zj_p, basis, table)[1]
    dw_pf[start:stop] = np.einsum("pfc,pc->pf", dw_pfc[start:stop], direction_pc[start:stop])


def table_adjoint(
    r_pc: Floats,
    direction_pc: Floats,
    zi_p: Integers,
    zj_p: Integers,
    basis: BasisTables,
    wbar_pf: Floats,
    dwbar_pf: Floats,
    start: int,
    stop: int,
    table_gradient: Floats,
) -> None:
    """Eq. (4): dL/dT of the pairs ``start:stop`` from dL/dw and dL/dw', added to `table_gradient`."""
    lm, lc = _columns(basis)
    phi_pn, dphi_pnc, y_pm, dy_pmc = evaluate.pair_basis(r_pc, basis)
    by_t = np.einsum("pn,pf->pnf", phi_pn, y_pm[:, lm])
    dby_t = np.einsum("pnc,pf,pc->pnf", dphi_pnc, y_pm[:, lm], direction_pc)
    dby_t += np.einsum("pn,pfc,pc->pnf", phi_pn, dy_pmc[:, lm], direction_pc)
    gradient_pnf = wbar_pf[:, None] * by_t + dwbar_pf[:, None] * dby_t
    for p in range(start, stop):
        for f, c in enumerate(lc):
            table_gradient[zi_p[p], zj_p[p], :, c] += gradient_pnf[p, :, f]


# ------------------------------------------------------------------------------------------- sums over neighbours


def sum_tensor(source_f: Integers, target_f: Integers, n_w: int, n_v: int) -> Floats:
    """S of eq. (2), [f, g]."""
    dense = np.zeros((n_w, n_v))
    for source, target in zip(source_f, target_f, strict=True):
        dense[source, target] += 1.0
    return dense


def gather_tensor(
    term_index: Integers, term_value: Floats, n_w: int, n_x: int, n_v: int, n_heads: int = 0
) -> Floats:
    """K of eq. (2), the copies of each head apart, [h, f, o, g]; one head where there is no attention."""
    dense = np.zeros((max(n_heads, 1), n_w, n_x, n_v))
    for (w, x, v, copies), value in zip(term_index, term_value, strict=True):
        for a in range(copies):
            dense[a % max(n_heads, 1), w + a, x + a, v + a] += value
    return dense


def sum_pairs(
    first: Integers,
    source_f: Integers,
    target_f: Integers,
    w_pf: Floats,
    start: int,
    stop: int,
    v_if: Floats,
) -> None:
    """Eq. (2), first part, atoms ``start:stop``: added to `v_if`."""
    dense = sum_tensor(source_f, target_f, w_pf.shape[1], v_if.shape[1])
    for i in range(start, stop):
        v_if[i] += (w_pf[first[i] : first[i + 1]] @ dense).sum(axis=0)


def sum_pairs_adjoint(
    first: Integers,
    source_f: Integers,
    target_f: Integers,
    g_if: Floats,
    start: int,
    stop: int,
    wbar_pf: Floats,
) -> None:
    """dL/dw of `sum_pairs` from dL/dv, added to `wbar_pf`."""
    dense = sum_tensor(source_f, target_f, wbar_pf.shape[1], g_if.shape[1])
    for i in range(start, stop):
        wbar_pf[first[i] : first[i + 1]] += dense @ g_if[i]


def gather(
    first: Integers,
    neighbor: Integers,
    term_index: Integers,
    term_value: Floats,
    w_pf: Floats,
    x_jo: Floats,
    start: int,
    stop: int,
    v_if: Floats,
) -> None:
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
    (dense,) = gather_tensor(term_index, term_value, w_pf.shape[1], x_jo.shape[1], v_if.shape[1])
    for i in range(start, stop):
        pairs = slice(first[i], first[i + 1])
        v_if[i] += np.einsum("fog,pf,po->g", dense, w_pf[pairs], x_jo[neighbor[pairs]], optimize=True)


def gather_adjoint(
    first: Integers,
    neighbor: Integers,
    term_index: Integers,
    term_value: Floats,
    w_pf: Floats,
    x_jo: Floats,
    g_if: Floats,
    start: int,
    stop: int,
    wbar_pf: Floats,
    xbar_jo: Floats,
) -> None:
    """dL/dw and dL/dx of `gather` from g = dL/dv, added; `xbar_jo` [j, o] gets terms at every neighbour."""
    (dense,) = gather_tensor(term_index, term_value, w_pf.shape[1], x_jo.shape[1], g_if.shape[1])
    for i in range(start, stop):
        for p in range(first[i], first[i + 1]):
            wbar_pf[p] += np.einsum("fog,o,g->f", dense, x_jo[neighbor[p]], g_if[i], optimize=True)
            xbar_jo[neighbor[p]] += np.einsum("fog,f,g->o", dense, w_pf[p], g_if[i], optimize=True)


def _by_positions(i: int, j: int, dw_fc: Floats, dw_fs: Floats, n_sites: int, n_columns: int) -> Floats:
    """Derivatives of the w of one pair by all positions, then by strain, [f, column]."""
    columns_fc = np.zeros((len(dw_fc), n_columns))
    columns_fc[:, 3 * j : 3 * j + 3] += dw_fc
    columns_fc[:, 3 * i : 3 * i + 3] -= dw_fc
    columns_fc[:, 3 * n_sites : 3 * n_sites + dw_fs.shape[1]] += dw_fs
    return columns_fc


def sum_columns(
    first: Integers,
    neighbor: Integers,
    source_f: Integers,
    target_f: Integers,
    dw_pfc: Floats,
    dw_pfs: Floats,
    n_sites: int,
    dv_ifc: Floats,
) -> None:
    """Derivatives of `sum_pairs` by all positions, and by strain, added: arguments as of the kernel of this name."""
    dense = sum_tensor(source_f, target_f, dw_pfc.shape[1], dv_ifc.shape[1])
    for i in range(len(first) - 1):
        for p in range(first[i], first[i + 1]):
            dw = _by_positions(i, neighbor[p], dw_pfc[p], dw_pfs[p], n_sites, dv_ifc.shape[2])
            dv_ifc[i] += dense.T @ dw


def gather_columns(
    first: Integers,
    neighbor: Integers,
    term_index: Integers,
    term_value: Floats,
    w_pf: Floats,
    dw_pfc: Floats,
    dw_pfs: Floats,
    scale_ph: Floats,
    dscale_phc: Floats,
    x_jo: Floats,
    dx_joc: Floats,
    n_sites: int,
    dv_ifc: Floats,
) -> None:
    """Derivatives of `gather` by all positions, and by strain, with w times a weight of attention: added to those of v.

    The product rule: a' w x + a w' x + a w x'. Arguments as of the kernel of this name.
    """
    n_heads = scale_ph.shape[1]
    dense = gather_tensor(
        term_index, term_value, w_pf.shape[1], x_jo.shape[1], dv_ifc.shape[1], n_heads
    )  # -> [h, f, o, g]
    for i in range(len(first) - 1):
        for p in range(first[i], first[i + 1]):
            j, w, x = neighbor[p], w_pf[p], x_jo[neighbor[p]]
            scale = scale_ph[p] if n_heads else np.ones(1)
            dw = _by_positions(i, j, dw_pfc[p], dw_pfs[p], n_sites, dv_ifc.shape[2])
            weighted = np.einsum("h,hfog->fog", scale, dense)
            dv_ifc[i] += np.einsum("fog,o->fg", weighted, x).T @ dw
            dv_ifc[i] += np.einsum("fog,f->og", weighted, w).T @ dx_joc[j]
            if n_heads:
                carried = np.einsum("hfog,f,o->hg", dense, w, x, optimize=True)
                dv_ifc[i] += carried.T @ dscale_phc[p]


# ---------------------------------------------------------------------------------- the radial table, by positions


def pair_basis(
    r_pc: Floats,
    basis: BasisTables,
    u_pc: Floats,
    phi_pn: Floats,
    dphi_pn: Floats,
    y_pm: Floats,
    dy_pmc: Floats,
) -> None:
    """Directions, radial functions with their derivatives by r, harmonics with theirs by the pair vector: all written."""
    phi_pn[:], dphi_pnc, y_pm[:], dy_pmc[:] = evaluate.pair_basis(r_pc, basis)
    u_pc[:] = r_pc / np.linalg.norm(r_pc, axis=1)[:, None]
    dphi_pn[:] = np.einsum("pnc,pc->pn", dphi_pnc, u_pc)


def _add_table(
    p: int,
    i: int,
    j: int,
    types: tuple[int, int],
    lm_f: Integers,
    channel_f: Integers,
    wbar_fc: Floats,
    fixed_f: Floats,
    pairs: tuple[Floats, Floats, Floats, Floats, Floats, Floats],
    n_strain: int,
    n_sites: int,
    energy_table: Floats,
    table_columns: Floats,
) -> None:
    """Eq. (4) for L = E and for its derivative by every column: the product rule on w_bar Y phi."""
    r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc = pairs
    by_r_fnc = np.einsum("n,fc->fnc", phi_pn[p], dy_pmc[p, lm_f]) + np.einsum(
        "n,c,f->fnc", dphi_pn[p], u_pc[p], y_pm[p, lm_f]
    )
    strains = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)][:n_strain]
    by_strain_fns = np.zeros((*by_r_fnc.shape[:2], n_strain))
    for s, (a, b) in enumerate(strains):
        by_strain_fns[:, :, s] = 0.5 * (r_pc[p, a] * by_r_fnc[:, :, b] + r_pc[p, b] * by_r_fnc[:, :, a])
    n_columns = table_columns.shape[-1]
    for f in range(len(lm_f)):
        product_n = phi_pn[p] * y_pm[p, lm_f[f]]
        moved = _by_positions(i, j, by_r_fnc[f], by_strain_fns[f], n_sites, n_columns)
        energy_table[types][:, channel_f[f]] += fixed_f[f] * product_n
        table_columns[types][:, channel_f[f]] += fixed_f[f] * moved + np.outer(product_n, wbar_fc[f])


def local_columns_adjoint(
    first: Integers,
    neighbor: Integers,
    type_i: Integers,
    source_f: Integers,
    target_f: Integers,
    channel_f: Integers,
    lm_f: Integers,
    h_ifc: Floats,
    dwbar_pf: Floats,
    r_pc: Floats,
    u_pc: Floats,
    phi_pn: Floats,
    dphi_pn: Floats,
    y_pm: Floats,
    dy_pmc: Floats,
    n_strain: int,
    energy_table: Floats,
    table_columns: Floats,
) -> None:
    """dE/dT and its derivatives by all positions and the strain, by way of the local features: arguments as of the kernel."""
    pairs = (r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc)
    for i in range(len(first) - 1):
        for p in range(first[i], first[i + 1]):
            _add_table(
                p, i, neighbor[p], (type_i[i], type_i[neighbor[p]]), lm_f, channel_f, h_ifc[i, target_f],
                dwbar_pf[p, source_f], pairs, n_strain, len(first) - 1, energy_table, table_columns,
            )  # fmt: skip


def message_columns_adjoint(
    first: Integers,
    neighbor: Integers,
    type_i: Integers,
    term_index: Integers,
    term_value: Floats,
    columns: Integers,
    slot_f: Integers,
    channel_f: Integers,
    lm_f: Integers,
    head_f: Integers,
    w_pf: Floats,
    dw_pfc: Floats,
    dw_pfs: Floats,
    scale_ph: Floats,
    dscale_phc: Floats,
    x_jo: Floats,
    dx_joc: Floats,
    g_if: Floats,
    h_ifc: Floats,
    dwbar_pf: Floats,
    r_pc: Floats,
    u_pc: Floats,
    phi_pn: Floats,
    dphi_pn: Floats,
    y_pm: Floats,
    dy_pmc: Floats,
    xbar_joc: Floats,
    dscalebar_phc: Floats,
    energy_table: Floats,
    table_columns: Floats,
) -> None:
    """The same by way of messages, and the derivatives of dE/dx and of dE/d(weights of attention).

    Of S = sum g K (a w) x the derivatives by w, x and a, and their derivatives by every column. Arguments as of the kernel.
    """
    pairs, n_sites = (r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc), len(first) - 1
    n_heads, n_columns = scale_ph.shape[1], h_ifc.shape[2]
    dense = gather_tensor(term_index, term_value, w_pf.shape[1], x_jo.shape[1], g_if.shape[1], 0)[
        0
    ]  # -> [f, o, g]
    head_w = np.zeros(w_pf.shape[1], dtype=np.int64)
    head_w[columns] = head_f
    for i in range(n_sites):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            scale_f, dscale_fc = np.ones(len(head_w)), np.zeros((len(head_w), n_columns))
            if n_heads:
                scale_f, dscale_fc = scale_ph[p, head_w], dscale_phc[p, head_w]
            dw_fc = _by_positions(i, j, dw_pfc[p], dw_pfs[p], n_sites, n_columns)
            carried_f = np.einsum("fog,o,g->f", dense, x_jo[j], g_if[i], optimize=True)
            carried_fc = np.einsum("fog,o,gc->fc", dense, x_jo[j], h_ifc[i], optimize=True)
            carried_fc += np.einsum("fog,oc,g->fc", dense, dx_joc[j], g_if[i], optimize=True)
            weighted_fc = scale_f[:, None] * dw_fc + dscale_fc * w_pf[p, :, None]
            xbar_joc[j] += np.einsum("fog,f,gc->oc", dense, scale_f * w_pf[p], h_ifc[i], optimize=True)
            xbar_joc[j] += np.einsum("fog,fc,g->oc", dense, weighted_fc, g_if[i], optimize=True)
            by_scale_fc = carried_fc * w_pf[p, :, None] + carried_f[:, None] * dw_fc
            for h in range(n_heads):
                dscalebar_phc[p, h] += by_scale_fc[columns][head_f == h].sum(axis=0)
            wbar_fc = scale_f[:, None] * carried_fc + dscale_fc * carried_f[:, None]
            _add_table(
                p, i, j, (type_i[i], type_i[j]), lm_f, channel_f, wbar_fc[columns], dwbar_pf[p, columns], pairs,
                dw_pfs.shape[2], n_sites, energy_table, table_columns,
            )  # fmt: skip


# --------------------------------------------------------------------------------------- trains on given features


def _by_features(cores: list[Floats], v_k: list[Floats | None], x_0: Floats) -> Floats:
    """dx_o/dv_f of eq. (5), over the places of `v_k` that are not None, [lane, f, o]."""
    return np.sum(
        [contract_chain(cores, with_place(v_k, s, None), left=x_0) for s in range(len(cores))], axis=0
    )


def last_bonds(
    v_if: Floats,
    type_i: Integers,
    train: TrainTables,
    weights: Floats,
    start: int,
    stop: int,
    x_io: Floats,
) -> None:
    """The last bond of atoms ``start:stop``: `x_io` [i, o] is written."""
    cores = dense_cores(train, weights)
    x_0 = head(train, weights, type_i[start:stop])
    x_io[start:stop] = contract_chain(cores, [v_if[start:stop]] * len(cores), left=x_0)


def energies(
    v_if: Floats,
    type_i: Integers,
    train: TrainTables,
    weights: Floats,
    start: int,
    stop: int,
    energy_i: Floats,
    g_if: Floats,
) -> None:
    """Energies of atoms ``start:stop`` and their derivatives by the features, both written: arguments as of the kernel."""
    x_io, seed_io = np.zeros((len(energy_i), 1)), np.ones((len(energy_i), 1))
    last_bonds(v_if, type_i, train, weights, start, stop, x_io)
    energy_i[start:stop] = x_io[start:stop, 0]
    bonds_adjoint(v_if, type_i, train, weights, seed_io, start, stop, g_if)


def bonds_adjoint(
    v_if: Floats,
    type_i: Integers,
    train: TrainTables,
    weights: Floats,
    seed_io: Floats,
    start: int,
    stop: int,
    g_if: Floats,
) -> None:
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
    cores, v = dense_cores(train, weights), v_if[start:stop]
    by_v = _by_features(cores, [v] * len(cores), head(train, weights, type_i[start:stop]))
    g_if[start:stop] = np.einsum("bfo,bo->bf", by_v, seed_io[start:stop])


def bonds_tangent(
    v_if: Floats,
    dv_if: Floats,
    type_i: Integers,
    train: TrainTables,
    weights: Floats,
    start: int,
    stop: int,
    dx_io: Floats,
) -> None:
    """Tangent x' of the last bond of atoms ``start:stop`` along v': `dx_io` [i, o] is written."""
    cores, v, dv = dense_cores(train, weights), v_if[start:stop], dv_if[start:stop]
    x_0 = head(train, weights, type_i[start:stop])
    dx_io[start:stop] = np.sum(
        [contract_chain(cores, with_place([v] * len(cores), s, dv), left=x_0) for s in range(len(cores))],
        axis=0,
    )


def bonds_adjoint_tangent(
    v_if: Floats,
    dv_if: Floats,
    type_i: Integers,
    train: TrainTables,
    weights: Floats,
    dseed_io: Floats,
    seed_io: Floats,
    start: int,
    stop: int,
    g_if: Floats,
    h_if: Floats,
    weight_gradient: Floats,
) -> None:
    """dL/dv', dL/dv and dL/dA of atoms ``start:stop`` from dL/dx' and dL/dx of the last bond.

    L is the sum of x_o(v) times dL/dx and of x_o(v' at s) times dL/dx' over the places s; each term is multilinear.

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
    cores, v, dv = dense_cores(train, weights), v_if[start:stop], dv_if[start:stop]
    order, type_b, rank = len(cores), type_i[start:stop], int(train.bond_first[1])
    x_0 = head(train, weights, type_b)
    v_k: list[Floats | None] = [v] * len(cores)
    seed, dseed = seed_io[start:stop], dseed_io[start:stop]
    by_v = _by_features(cores, v_k, x_0)
    g_if[start:stop] = np.einsum("bfo,bo->bf", by_v, dseed)
    h_if[start:stop] = np.einsum("bfo,bo->bf", by_v, seed)
    for s in range(order):
        for t in range(order):
            if s != t:
                both = contract_chain(cores, with_place(with_place(v_k, s, dv), t, None), left=x_0)
                h_if[start:stop] += np.einsum("bfo,bo->bf", both, dseed)
    terms: list[tuple[Floats, list[Floats | None]]] = [(seed, v_k)]
    terms += [(dseed, with_place(v_k, s, dv)) for s in range(order)]
    for bar, v_s in terms:
        by_head = contract_chain(cores, v_s)  # -> [lane, a, o]
        for z, gradient_a in zip(type_b, np.einsum("bao,bo->ba", by_head, bar), strict=True):
            weight_gradient[z * rank : (z + 1) * rank] += gradient_a
        for k in range(order):
            for o, e in enumerate(np.eye(bar.shape[1])):
                removed = contract_chain(cores, v_s, left=x_0, right=e, without=k)
                reduce_cores(train, k, np.einsum("b,b...->...", bar[:, o], removed), weight_gradient)
