"""Messages and the weights of attention from the features of every pair, with dense couplings.

    w_p[lm, c]  = R_lc(r_p) Y_lm(u_p)                                                                     (1)
    u_i[f]     += sum_p alpha_p sum_{lm c} K[lm, c, f] w_p[lm, c] x_j[c]                                     (2)
    dL/dr_p     = sum alpha_p K dw_p/dr_p x_j dL/du_i,  and likewise with x_j, or alpha_p, left out            (3)
    s_p = q_i . k_j / sqrt(D),      alpha_p = s_p   or   f_p exp(s_p) / (1 + sum_p f_p exp(s_p))            (4)
    dL/ds_p     = sum_p' dL/dalpha_p' dalpha_p'/ds_p                                                      (5)

with the Jacobian of eq. (4) of one atom as a dense matrix: 1, or diag(alpha) - alpha alpha^T.

============  ===================================================================
symbol        here
============  ===================================================================
w, dw/dr      ``w_pmc``, ``dw_pmcx``, by `pair_products`
K             `coupling_tensor` [lm, c, f]
alpha         ``weight_ph``; of every component ``weight_pc``
============  ===================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.reference import evaluate
from etnpot.reference.assemble import centers

if TYPE_CHECKING:
    from etnpot.potential.tables import BasisTables

__all__ = ["attend", "attend_adjoint", "coupling_tensor", "messages", "messages_adjoint", "pair_products"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def coupling_tensor(
    coupling_index: Integers, coupling_value: Floats, n_lm: int, n_carried: int, n_v: int
) -> Floats:
    """K of eq. (2), float64 [lm, c, f]."""
    dense = np.zeros((n_lm, n_carried, n_v))
    for (lm, c, f, copies), value in zip(coupling_index, coupling_value, strict=True):
        for a in range(copies):
            dense[lm, c + a, f + a] += value
    return dense


def pair_products(
    r_pc: Floats,
    center_type_p: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    carried: Integers,
) -> tuple[Floats, Floats]:
    """Eq. (1) and its derivative by the pair vector, float64 [p, lm, c] and [p, lm, c, x], 1/Å."""
    phi_pn, dphi_pnx, y_pm, dy_pmx = evaluate.pair_basis(r_pc, basis)
    l_max = len(basis.feature_first) - 1
    l_m = np.repeat(np.arange(l_max + 1), 2 * np.arange(l_max + 1) + 1)
    n_copies = radial_table.shape[3] // (l_max + 1)
    channel = l_m[:, None] * n_copies + carried[:, 1]  # -> [lm, c]
    table_pnmc = radial_table[center_type_p, type_p][:, :, channel]
    radial_pmc = np.einsum("pnmc,pn->pmc", table_pnmc, phi_pn)
    w_pmc = radial_pmc * y_pm[:, :, None]
    dw_pmcx = np.einsum("pnmc,pnx,pm->pmcx", table_pnmc, dphi_pnx, y_pm, optimize=True)
    dw_pmcx += radial_pmc[..., None] * dy_pmx[:, :, None]
    return w_pmc, dw_pmcx


def _weights(weight_ph: Floats, carried: Integers) -> Floats:
    """Weight of every component, float64 [p, c]; 1 without attention."""
    return weight_ph[:, carried[:, 2]] if weight_ph.shape[1] else np.ones((len(weight_ph), len(carried)))


def messages(
    first: Integers,
    neighbor: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    carried: Integers,
    coupling_index: Integers,
    coupling_value: Floats,
    weight_ph: Floats,
    x_jo: Floats,
    start: int,
    stop: int,
    v_if: Floats,
) -> None:
    """Eq. (2) for atoms ``start:stop``: u is added to its columns of v.

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
        Row of x, copy, and head of every component.
    coupling_index, coupling_value : int64 [t, 4], float64 [t]
        lm, first c, first f, and how many copies; the coefficient.
    weight_ph : float64 [p, h]
        Weights of attention; of no heads where there is none.
    x_jo : float64 [j, o]
    start, stop : int
    v_if : float64 [i, f]
        Added to.
    """
    w_pmc, _ = pair_products(r_pc, type_i[centers(first)], type_p, basis, radial_table, carried)
    dense = coupling_tensor(coupling_index, coupling_value, w_pmc.shape[1], len(carried), v_if.shape[1])
    x_pc = _weights(weight_ph, carried) * x_jo[neighbor][:, carried[:, 0]]
    for i in range(start, stop):
        pairs = slice(first[i], first[i + 1])
        v_if[i] += np.einsum("mcf,pmc,pc->f", dense, w_pmc[pairs], x_pc[pairs], optimize=True)


def messages_adjoint(
    first: Integers,
    neighbor: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    carried: Integers,
    coupling_index: Integers,
    coupling_value: Floats,
    weight_ph: Floats,
    x_jo: Floats,
    g_if: Floats,
    start: int,
    stop: int,
    dE_dr_pc: Floats,
    xbar_jo: Floats,
    weight_bar_ph: Floats,
) -> None:
    """Eq. (3) for atoms ``start:stop``, from dL/dv.

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
    w_pmc, dw_pmcx = pair_products(r_pc, type_i[centers(first)], type_p, basis, radial_table, carried)
    dense = coupling_tensor(coupling_index, coupling_value, w_pmc.shape[1], len(carried), g_if.shape[1])
    x_pc, weight_pc = x_jo[neighbor][:, carried[:, 0]], _weights(weight_ph, carried)
    for i in range(start, stop):
        g_mc = dense @ g_if[i]
        for p in range(first[i], first[i + 1]):
            dE_dr_pc[p] += np.einsum("mc,mcx,c->x", g_mc, dw_pmcx[p], weight_pc[p] * x_pc[p])
            by_x_c = np.einsum("mc,mc->c", g_mc, w_pmc[p])
            np.add.at(xbar_jo, (neighbor[p], carried[:, 0]), weight_pc[p] * by_x_c)
            for h in range(weight_ph.shape[1]):
                weight_bar_ph[p, h] = (by_x_c * x_pc[p])[carried[:, 2] == h].sum()


def attend(
    first: Integers,
    neighbor: Integers,
    x_jo: Floats,
    queries: Integers,
    keys: Integers,
    envelope_p: Floats,
    normalised: bool,
    start: int,
    stop: int,
    weight_ph: Floats,
    total_ih: Floats,
) -> None:
    """Eq. (4) for the pairs of atoms ``start:stop``.

    Parameters
    ----------
    first, neighbor, x_jo, start, stop
        As for `messages`.
    queries, keys : int64 [h, d]
        Columns of x.
    envelope_p : float64 [p]
        f.
    normalised : bool
        Whether alpha is the second of eq. (4).
    weight_ph : float64 [p, h]
        Written for the range: alpha.
    total_ih : float64 [i, h]
        Written for the range where normalised: the denominator, times exp(-max(0, s)) of the atom.
    """
    for i in range(start, stop):
        pairs = slice(first[i], first[i + 1])
        score = np.einsum("hd,phd->ph", x_jo[i, queries], x_jo[neighbor[pairs]][:, keys])
        score /= np.sqrt(queries.shape[1])
        weight_ph[pairs] = score
        if normalised:
            total = 1.0 + (envelope_p[pairs, None] * np.exp(score)).sum(axis=0)
            weight_ph[pairs] = envelope_p[pairs, None] * np.exp(score) / total
            total_ih[i] = total * np.exp(-score.max(axis=0, initial=0.0))


def attend_adjoint(
    first: Integers,
    neighbor: Integers,
    r_pc: Floats,
    x_jo: Floats,
    queries: Integers,
    keys: Integers,
    slope_p: Floats,
    normalised: bool,
    weight_ph: Floats,
    weight_bar_ph: Floats,
    start: int,
    stop: int,
    dE_dr_pc: Floats,
    xbar_jo: Floats,
) -> None:
    """Eq. (5) for the pairs of atoms ``start:stop``, dL/dx of queries and keys, and dL/dr by way of f.

    Parameters
    ----------
    first, neighbor, x_jo, queries, keys, normalised, start, stop
        As for `attend`.
    r_pc : float64 [p, c]
        Pair vectors, Å.
    slope_p : float64 [p]
        d log f/d r^2, 1/Å^2.
    weight_ph, weight_bar_ph : float64 [p, h]
        alpha and dL/dalpha.
    dE_dr_pc : float64 [p, c]
        Added to for the pairs of the range, eV/Å.
    xbar_jo : float64 [j, o]
        Added to, at every neighbour.
    """
    n_heads, width = queries.shape
    for i in range(start, stop):
        pairs = slice(first[i], first[i + 1])
        for h in range(n_heads):
            score_bar, alpha = weight_bar_ph[pairs, h], weight_ph[pairs, h]
            if normalised:
                score_bar = (np.diag(alpha) - np.outer(alpha, alpha)) @ score_bar
                # log f enters where s does
                dE_dr_pc[pairs] += 2.0 * (score_bar * slope_p[pairs])[:, None] * r_pc[pairs]
            for bar, j in zip(score_bar / np.sqrt(width), neighbor[pairs], strict=True):
                xbar_jo[i, queries[h]] += bar * x_jo[j, keys[h]]
                xbar_jo[j, keys[h]] += bar * x_jo[i, queries[h]]
