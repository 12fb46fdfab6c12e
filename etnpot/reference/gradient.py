"""Gradient of a linear functional of energies and pair derivatives: the explicit Jacobian, contracted.

    L = sum_i e_i E_i + sum_p d_p . dE/dr_p,    dL/dq = sum_i e_i dE_i/dq + sum_p d_p . d/dq dE/dr_p

No tangent is taken: the mixed second derivatives of `etnpot.reference.jacobian` are written out in full.

==========  =============================================
symbol      here
==========  =============================================
e_i, d_p    ``e_i`` [i], ``direction_pc`` [p, c]
q           ``radial_table`` and ``weights``
==========  =============================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.reference.jacobian import atom_sensitivities

if TYPE_CHECKING:
    from etnpot.potential.tables import BasisTables, TrainTables

__all__ = ["gradient"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def gradient(
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
    e_i: Floats,
    direction_pc: Floats,
    table_gradient: Floats,
    weight_gradient: Floats,
) -> None:
    """Add dL/dT and dL/dA, atoms ``start:stop``, to two arrays.

    Parameters
    ----------
    first, r_pc, type_i, type_p, basis, radial_table, train, weights, start, stop
        As for `etnpot.reference.evaluate.evaluate`.
    e_i : float64 [i]
        Weight of every energy.
    direction_pc : float64 [p, c]
        Weight of every pair derivative.
    table_gradient : float64 [z_i, z_j, n, lc]
        Added to: dL/dT.
    weight_gradient : float64 [q]
        Added to: dL/dA.
    """
    for i in range(start, stop):
        pairs = slice(first[i], first[i + 1])
        z, direction = int(type_i[i]), direction_pc[pairs]
        atom = atom_sensitivities(r_pc[pairs], z, type_p[pairs], basis, radial_table, train, weights)
        weight_gradient += e_i[i] * atom.weight_q + np.tensordot(direction, atom.weight_pcq, axes=2)
        table_gradient += e_i[i] * atom.table + np.tensordot(direction, atom.table_pc, axes=2)
