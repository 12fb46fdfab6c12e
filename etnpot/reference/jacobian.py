"""Derivatives of energies, forces and virial by every parameter, one parameter group after the other.

With g = dE/dv, H = d2E/dv dv, M = d2E/dA dv of the train (each the train with tensors taken out or unit
vectors put in), and the primitive moments w_p[n, lm] = phi_n(r_p) Y_lm(r_p/|r_p|) of the pairs p of atom i,

    dE_i/dA = train with A taken out,      d/dA dE_i/dr_p = sum_f M[A, f] dv_f/dr_p                     (1)
    dE_i/dT[z_i, z, n, lc] = sum_{p: z_p = z} sum_m g[lmc] w_p[n, lm]                                    (2)
    d/dT dE_i/dr_p' = sum_{p: z_p = z} sum_m ( sum_f H[lmc, f] dv_f/dr_p' w_p[n, lm]
                                               + delta_pp' g[lmc] dw_p[n, lm]/dr_p )                     (3)

The radial table T[z_i, z_j, n, lc] = N^(-1/2) sum_k B^l[c, n, k] S^l[k](z_i, z_j) is affine in every B^l and
in every parameter array of S: its derivative by one of their entries is

    dT/dq = T(unit array in place of theirs) - T(zeros in place of theirs)                               (4)

=============  =====================================================================================
symbol         here
=============  =====================================================================================
A              flat weights of the train: head, then cores
T              ``radial_table`` [z_i, z_j, n, lc]
parameters     ``arrays``: "reference_energies", "species.*", "radial.l", "head", "core.k", in order
=============  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etnpot.reference.assemble import centers
from etnpot.reference.evaluate import feature_slices, features, pair_basis, pair_features
from etnpot.reference.train import contract_chain, dense_cores, head, output, reduce_cores, with_place

if TYPE_CHECKING:
    from etnpot.potential.tables import BasisTables, TrainTables

__all__ = ["Sensitivities", "atom_sensitivities", "jacobian", "radial_table", "second_derivatives"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Sensitivities(NamedTuple):
    """Derivatives of one atom's energy, and of its derivatives by its own pairs.

    Attributes
    ----------
    weight_q : float64 [q]
        dE/dA, A the flat weights.
    weight_pcq : float64 [p, c, q]
        d/dA dE/dr_p.
    table : float64 [z_i, z_j, n, lc]
        dE/dT.
    table_pc : float64 [p, c, z_i, z_j, n, lc]
        d/dT dE/dr_p.
    """

    weight_q: Floats
    weight_pcq: Floats
    table: Floats
    table_pc: Floats


def second_derivatives(
    train: TrainTables, weights: Floats, type_i: int, v_f: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """First and second derivatives of one atom's train.

    Parameters
    ----------
    train : TrainTables
    weights : float64 [q]
    type_i : int
        Type of the atom.
    v_f : float64 [f]
        Its features.

    Returns
    -------
    g_f : float64 [f]
        dE/dv.
    hessian_ff : float64 [f, f]
        H = d2E/dv dv.
    gradient_q : float64 [q]
        dE/dA.
    mixed_fq : float64 [f, q]
        M = d2E/dA dv.
    """
    cores, e = dense_cores(train, weights), output(train)
    order, n_features, rank = len(cores), len(v_f), int(train.bond_first[1])
    x_0, v_k = head(train, weights, np.array([type_i])), [v_f[None]] * len(cores)
    g_f, hessian_ff = np.zeros(n_features), np.zeros((n_features, n_features))
    gradient_q, mixed_fq = np.zeros(len(weights)), np.zeros((n_features, len(weights)))
    own_head = slice(type_i * rank, (type_i + 1) * rank)
    gradient_q[own_head] = contract_chain(cores, v_k, right=e)[0]
    for s in range(order):
        unit = with_place(v_k, s, None)
        g_f += contract_chain(cores, unit, left=x_0, right=e)[0]
        mixed_fq[:, own_head] += contract_chain(cores, unit, right=e)[0].T
        for t in range(s):
            second_ff = contract_chain(cores, with_place(unit, t, None), left=x_0, right=e)[0]
            hessian_ff += second_ff + second_ff.T
    for k in range(order):
        reduce_cores(train, k, contract_chain(cores, v_k, left=x_0, right=e, without=k)[0], gradient_q)
        for s in range(order):
            removed = contract_chain(cores, with_place(v_k, s, None), left=x_0, right=e, without=k)[0]
            reduce_cores(train, k, np.moveaxis(removed, -1, 0), mixed_fq)
    return g_f, hessian_ff, gradient_q, mixed_fq


def atom_sensitivities(
    r_pc: Floats,
    type_i: int,
    type_p: Integers,
    basis: BasisTables,
    table: Floats,
    train: TrainTables,
    weights: Floats,
) -> Sensitivities:
    """Eqs. (1) to (3) for one atom.

    Parameters
    ----------
    r_pc : float64 [p, c], Å
        Vectors to the neighbours of the atom.
    type_i : int
        Type of the atom.
    type_p : int64 [p]
        Types of the neighbours.
    basis, table, train, weights
        As for `etnpot.reference.evaluate.evaluate`.
    """
    n_pairs = len(r_pc)
    center_type_p = np.full(n_pairs, type_i)
    first = np.array([0, n_pairs])
    v_if = np.empty((1, train.n_features))
    features(first, r_pc, np.array([type_i]), type_p, basis, table, 0, 1, v_if)
    _, dv_pfc = pair_features(r_pc, center_type_p, type_p, basis, table)
    phi_pn, dphi_pnc, y_pm, dy_pmc = pair_basis(r_pc, basis)
    w_pnm = np.einsum("pn,pm->pnm", phi_pn, y_pm)
    dw_pcnm = np.einsum("pnc,pm->pcnm", dphi_pnc, y_pm) + np.einsum("pn,pmc->pcnm", phi_pn, dy_pmc)

    g_f, hessian_ff, gradient_q, mixed_fq = second_derivatives(train, weights, type_i, v_if[0])
    dg_pcf = np.einsum("fh,phc->pcf", hessian_ff, dv_pfc)
    energy_table = np.zeros(table.shape)
    pair_table = np.zeros((n_pairs, 3, *table.shape))
    for l in range(len(basis.feature_first)):  # noqa: E741
        channels = slice(basis.channel_first[l], basis.channel_first[l + 1])
        for m, place in enumerate(feature_slices(basis, l)):
            for p in range(n_pairs):
                at = (type_i, type_p[p], slice(None), channels)
                w_n = w_pnm[p, :, l * l + m]
                energy_table[at] += np.einsum("l,n->nl", g_f[place], w_n)
                pair_table[:, :, *at] += np.einsum("ycl,n->ycnl", dg_pcf[:, :, place], w_n)
                pair_table[p, :, *at] += np.einsum("l,cn->cnl", g_f[place], dw_pcnm[p, :, :, l * l + m])
    return Sensitivities(gradient_q, np.einsum("fq,pfc->pcq", mixed_fq, dv_pfc), energy_table, pair_table)


def radial_table(arrays: Mapping[str, Floats], neighbor_scale: float) -> Floats:
    """T[z_i, z_j, n, lc] = N^(-1/2) sum_k B^l[c, n, k] S^l[k](z_i, z_j), float64.

    Parameters
    ----------
    arrays : mapping of str to float64 array
        Parameter groups: "radial.l" and either "species.pair", or "species.center", "species.neighbor" and
        "species.coupling".
    neighbor_scale : float
        N.
    """
    if "species.pair" in arrays:
        species_lkij = arrays["species.pair"]
    else:
        a_ip, b_jq, G_lkpq = (arrays[f"species.{name}"] for name in ("center", "neighbor", "coupling"))
        species_lkij = np.einsum("lkpq,ip,jq->lkij", G_lkpq, a_ip, b_jq)
    blocks = [
        np.einsum("cnk,kij->ijnc", arrays[f"radial.{l}"], species_lkij[l]) for l in range(len(species_lkij))
    ]
    return np.concatenate(blocks, axis=-1) / np.sqrt(neighbor_scale)


def jacobian(
    first: Integers,
    neighbor: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    train: TrainTables,
    arrays: Mapping[str, Floats],
    neighbor_scale: float,
) -> tuple[Floats, Floats, Floats]:
    """Derivatives of energies, forces and virial by every parameter.

    Parameters
    ----------
    first : int64 [n_atoms + 1]
    neighbor : int64 [p]
        Site at the other end of each pair.
    r_pc : float64 [p, c], Å
    type_i : int64 [n_sites]
        Types of the centres, followed by those of ghosts.
    type_p : int64 [p]
    basis : BasisTables
    train : TrainTables
    arrays : mapping of str to float64 array
        Every parameter group by name, in the order of the flat parameter vector.
    neighbor_scale : float
        N.

    Returns
    -------
    energy_iq : float64 [n_atoms, q]
        dE_i/dq, reference energy included.
    force_icq : float64 [n_sites, 3, q]
        dF/dq.
    virial_ccq : float64 [3, 3, q]
        Derivative of the total virial, symmetric in its Cartesian axes.
    """
    weights = np.concatenate([array.ravel() for name, array in arrays.items() if _is_weight(name)])
    table = radial_table(arrays, neighbor_scale)
    n_atoms, n_parameters = len(first) - 1, sum(array.size for array in arrays.values())
    energy_iq = np.zeros((n_atoms, n_parameters))
    pair_pcq = np.zeros((len(r_pc), 3, n_parameters))
    slices, at = {}, 0
    for name, array in arrays.items():
        slices[name] = slice(at, at + array.size)
        at += array.size
    table_columns = {  # eq. (4)
        slices[name].start + q: radial_table({**arrays, name: unit}, neighbor_scale)
        - radial_table({**arrays, name: np.zeros_like(array)}, neighbor_scale)
        for name, array in arrays.items()
        if name.startswith(("radial.", "species."))
        for q, unit in enumerate(np.eye(array.size).reshape(array.size, *array.shape))
    }
    for i in range(n_atoms):
        pairs = slice(first[i], first[i + 1])
        atom = atom_sensitivities(r_pc[pairs], int(type_i[i]), type_p[pairs], basis, table, train, weights)
        energy_iq[i, slices["reference_energies"].start + type_i[i]] = 1.0
        energy_iq[i, slices["head"].start :] = atom.weight_q
        pair_pcq[pairs, :, slices["head"].start :] = atom.weight_pcq
        for q, column in table_columns.items():
            energy_iq[i, q] = np.vdot(atom.table, column)
            pair_pcq[pairs, :, q] = np.tensordot(atom.table_pc, column, axes=4)
    force_icq = np.zeros((len(type_i), 3, n_parameters))
    for p, i in enumerate(centers(first)):
        force_icq[i] += pair_pcq[p]
        force_icq[neighbor[p]] -= pair_pcq[p]
    virial_ccq = np.einsum("pc,pdq->cdq", r_pc, pair_pcq)
    return energy_iq, force_icq, 0.5 * (virial_ccq + virial_ccq.transpose(1, 0, 2))


def _is_weight(name: str) -> bool:
    return name == "head" or name.startswith("core.")
