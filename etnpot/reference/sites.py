"""Derivatives of the energy of every atom by the entries of the train: the train with a tensor taken out.

    dE_i/dA = train of atom i with A taken out

==========  ==================================
symbol      here
==========  ==================================
dE_i/dA     ``gradient_iq`` [i, q]
==========  ==================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.reference.train import contract_chain, dense_cores, head, output, reduce_cores

if TYPE_CHECKING:
    from etnpot.potential.tables import TrainTables

__all__ = ["site_gradients"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def site_gradients(
    v_if: Floats,
    type_i: Integers,
    before: TrainTables,
    train: TrainTables,
    after: TrainTables,
    weights: Floats,
    path_begin: int,
    path_end: int,
    q_begin: int,
    start: int,
    stop: int,
    gradient_iq: Floats,
) -> None:
    """The derivatives for atoms ``start:stop``.

    Parameters
    ----------
    v_if : float64 [i, f]
        Features.
    type_i : int64 [i]
    train : TrainTables
    weights : float64 [q]
        Head and cores.
    before, after, path_begin, path_end
        Not used: the length of a row says where the range ends.
    q_begin : int
        The first of the weights whose derivatives are wanted.
    start, stop : int
        Range of atoms.
    gradient_iq : float64 [i, q]
        Written for the range.
    """
    cores, e_a, rank = dense_cores(train, weights), output(train), int(train.bond_first[1])
    type_b, v_k = type_i[start:stop], [v_if[start:stop]] * len(cores)
    all_bq = np.zeros((stop - start, len(weights)))
    by_head_ba = contract_chain(cores, v_k, right=e_a)
    for b, z in enumerate(type_b):
        all_bq[b, z * rank : (z + 1) * rank] = by_head_ba[b]
    x_0 = head(train, weights, type_b)
    for k in range(len(cores)):
        reduce_cores(train, k, contract_chain(cores, v_k, left=x_0, right=e_a, without=k), all_bq)
    gradient_iq[start:stop] = all_bq[:, q_begin : q_begin + gradient_iq.shape[1]]
