"""Derivatives of the components of the last bond, from the train with a tensor or a feature taken out.

    L_s = sum_i sum_o w_sio x_io,    dL_s/dr_p = sum_f (dL_s/dv_f) dv_p,f/dr_p,    dL_s/dA = train with A taken out     (1)
    dL_s/dT[z_i, z_j, n, lc] = sum_p sum_m (dL_s/dv_lmc) phi_n(r_p) Y_lm(r_p)                                           (2)

One unit vector at the right end for each component o, then the sum over o with w.

==========  =====================================================================
symbol      here
==========  =====================================================================
w           ``seed_sio`` [s, i, o]
dL/dr       ``derivative_spc`` [s, p, c]
dL/dA       ``weight_gradient`` [s, row, q]
dL/dT       ``table_gradient`` [s, row, z_i, z_j, n, lc]
==========  =====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.reference.assemble import centers
from etnpot.reference.evaluate import feature_slices, features, pair_basis, pair_features
from etnpot.reference.train import contract_chain, dense_cores, head, reduce_cores, with_place

if TYPE_CHECKING:
    from etnpot.potential.tables import BasisTables, TrainTables

__all__ = ["output_derivatives", "output_gradients"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def _by_features(cores: list[Floats], x_0: Floats, v_if: Floats, n_outputs: int) -> Floats:
    """dx_io/dv_f, [o, i, f]."""
    v_k = [v_if] * len(cores)
    unit = np.eye(n_outputs)
    return np.stack(
        [
            np.sum(
                [contract_chain(cores, with_place(v_k, k, None), left=x_0, right=e) for k in range(len(cores))],
                axis=0,
            )
            for e in unit
        ]
    )  # fmt: skip


def output_derivatives(
    first: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    train: TrainTables,
    weights: Floats,
    start: int,
    stop: int,
    seed_sio: Floats,
    output_io: Floats,
    derivative_spc: Floats,
) -> None:
    """Arguments as of the kernel of this name."""
    v_if = np.empty((len(first) - 1, train.n_features))
    features(first, r_pc, type_i, type_p, basis, radial_table, start, stop, v_if)
    v_bf, cores = v_if[start:stop], dense_cores(train, weights)
    x_0 = head(train, weights, type_i[start:stop])
    output_io[start:stop] = contract_chain(cores, [v_bf] * len(cores), left=x_0)
    g_oif = _by_features(cores, x_0, v_bf, output_io.shape[1])
    g_sif = np.einsum("sio,oif->sif", seed_sio[:, start:stop], g_oif)
    pairs, center = slice(first[start], first[stop]), centers(first)
    _, dv_pfc = pair_features(r_pc, type_i[center], type_p, basis, radial_table)
    derivative_spc[:, pairs] = np.einsum("spf,pfc->spc", g_sif[:, center[pairs] - start], dv_pfc[pairs])


def output_gradients(
    first: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    train: TrainTables,
    weights: Floats,
    start: int,
    stop: int,
    seed_sio: Floats,
    row_i: Integers,
    with_table: bool,
    weight_gradient: Floats,
    table_gradient: Floats,
) -> None:
    """Arguments as of the kernel of this name."""
    v_if = np.empty((len(first) - 1, train.n_features))
    features(first, r_pc, type_i, type_p, basis, radial_table, start, stop, v_if)
    v_bf, cores, rank = v_if[start:stop], dense_cores(train, weights), int(train.bond_first[1])
    type_b, v_k = type_i[start:stop], [v_bf] * len(cores)
    x_0 = head(train, weights, type_b)
    n_outputs = seed_sio.shape[2]
    gradient_obq = np.zeros((n_outputs, stop - start, len(weights)))
    for o, e in enumerate(np.eye(n_outputs)):
        by_head_ba = contract_chain(cores, v_k, right=e)
        for b, z in enumerate(type_b):
            gradient_obq[o, b, z * rank : (z + 1) * rank] = by_head_ba[b]
        for k in range(len(cores)):
            reduce_cores(train, k, contract_chain(cores, v_k, left=x_0, right=e, without=k), gradient_obq[o])
    gradient_sbq = np.einsum("sbo,obq->sbq", seed_sio[:, start:stop], gradient_obq)
    for b, row in enumerate(row_i[start:stop]):
        weight_gradient[:, row] += gradient_sbq[:, b]
    if not with_table:
        return
    g_sbf = np.einsum("sbo,obf->sbf", seed_sio[:, start:stop], _by_features(cores, x_0, v_bf, n_outputs))
    phi_pn, _, y_pm, _ = pair_basis(r_pc, basis)
    center = centers(first)
    for p in range(first[start], first[stop]):
        i = center[p]
        for l in range(len(basis.feature_first)):  # noqa: E741
            channels = slice(basis.channel_first[l], basis.channel_first[l + 1])
            along_sc = np.sum(
                [
                    g_sbf[:, i - start, place] * y_pm[p, l * l + m]
                    for m, place in enumerate(feature_slices(basis, l))
                ],
                axis=0,
            )
            table_gradient[:, row_i[i], type_i[i], type_p[p], :, channels] += (
                phi_pn[p, None, :, None] * along_sc[:, None, None, :]
            )[:, 0]
