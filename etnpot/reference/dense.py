"""Energies and derivatives from the full tensor of the train: exponential in the order, nothing to get wrong.

    E_i = sum_{f_1 ... f_d} T[z_i, f_1, ..., f_d] v_i[f_1] ... v_i[f_d]                 (1)
    dE/dv_f        = sum_s T(.., e_f at place s, ..)
    d2E/dv_f dv_f' = sum_{s != t} T(.., e_f at place s, .., e_f' at place t, ..)         (2)

============  ============================================================================
symbol        here
============  ============================================================================
T             ``tensor`` [z, f_1, ..., f_d], as ``network.dense.dense_tensor(train)[..., 0]``
v             ``v_f`` [f]
============  ============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.reference.assemble import centers
from etnpot.reference.evaluate import features, pair_features

if TYPE_CHECKING:
    from etnpot.potential.tables import BasisTables

__all__ = ["derivatives", "evaluate"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def derivatives(tensor: Floats, v_f: Floats) -> tuple[float, Floats, Floats]:
    """Eqs. (1) and (2) for one atom.

    Parameters
    ----------
    tensor : float64 [f_1, ..., f_d]
        T of the species of the atom.
    v_f : float64 [f]

    Returns
    -------
    energy : float
        E, eV.
    g_f : float64 [f]
        dE/dv.
    hessian_ff : float64 [f, f]
        d2E/dv dv.
    """
    order = tensor.ndim
    g_f, hessian_ff = np.zeros_like(v_f), np.zeros((len(v_f), len(v_f)))
    for s in range(order):
        g_f += _contract(tensor, v_f, (s,))
        for t in range(order):
            if s < t:
                second_ff = _contract(tensor, v_f, (s, t))
                hessian_ff += second_ff + second_ff.T
    return float(_contract(tensor, v_f, ())), g_f, hessian_ff


def _contract(tensor: Floats, v_f: Floats, open_places: tuple[int, ...]) -> Floats:
    """The tensor with v at every place but some."""
    for place in reversed(range(tensor.ndim)):
        if place not in open_places:
            tensor = np.tensordot(tensor, v_f, axes=(place, 0))
    return tensor


def evaluate(
    first: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    tensor: Floats,
    start: int,
    stop: int,
    energy_i: Floats,
    dE_dr_pc: Floats,
) -> None:
    """Energies and pair derivatives as `etnpot.reference.evaluate.evaluate` gives them, from the full tensor.

    Parameters
    ----------
    tensor : float64 [z, f_1, ..., f_d]
        In place of the train and its weights.
    first, r_pc, type_i, type_p, basis, radial_table, start, stop, energy_i, dE_dr_pc
        As there.
    """
    v_if = np.empty((len(first) - 1, tensor.shape[1]))
    features(first, r_pc, type_i, type_p, basis, radial_table, start, stop, v_if)
    _, dv_pfc = pair_features(r_pc, type_i[centers(first)], type_p, basis, radial_table)
    for i in range(start, stop):
        energy_i[i], g_f, _ = derivatives(tensor[type_i[i]], v_if[i])
        pairs = slice(first[i], first[i + 1])
        dE_dr_pc[pairs] = np.einsum("f,pfc->pc", g_f, dv_pfc[pairs])
