"""The full tensor of a train: slow, exponential in the order, and obvious. For checks and pictures.

    T[z, f_1, ..., f_d, o] = sum_{a_0} A_0[z, a_0] (W_1 W_2 ... W_d)[a_0; f_1, ..., f_d; o]
    W_k[(l1 m1 a1), (l2 m2 a2), (l3 m3 a3)] = A_k^{l1 l2 l3}[a1, a2, a3] C^{l3 m3}_{l1 m1, l2 m2}

=========================== ============================================================================
symbol                      here
=========================== ============================================================================
f = (l2, m2, a2)            index of a feature vector: ``layout.feature.offset(l2) + m2 * rank + a2``
o = (l, m, a)               index of the output, the same way in ``layout.bonds[-1]``
W_k                         `dense_core` [left, f, right]
T                           `dense_tensor` [z, f_1, ..., f_d, o]
x_d[o] for features v       `evaluate_dense`: T contracted with d copies of v
=========================== ============================================================================

T is what gauges, orthogonality and truncation are about. The train's function sees only the part of T that is
symmetric in f_1 ... f_d.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.network.layout import CoreLayout
from etnpot.network.train import Train, core_block
from etnpot.so3 import clebsch_gordan

__all__ = ["MAX_DENSE_ENTRIES", "dense_core", "dense_tensor", "evaluate_dense"]

Array = NDArray[np.float64]

#: Largest tensor that `dense_tensor` agrees to make (entries; 8 bytes each).
MAX_DENSE_ENTRIES = 50_000_000


def dense_core(layout: CoreLayout, core: Array) -> Array:
    """One core with the coupling coefficients written out.

    Parameters
    ----------
    layout : CoreLayout
    core : float64 array [q]
        Flat core.

    Returns
    -------
    float64 array [left, f, right]
        Axes run over the components of the left bond, of the features and of the right bond.
    """
    dense = np.zeros((layout.left.dimension, layout.feature.dimension, layout.right.dimension))
    for path in layout.paths:
        block = core_block(layout, core, path)
        coupling = clebsch_gordan(path.left.l, path.feature.l, path.right.l)
        place = (
            layout.left.slice(path.left),
            layout.feature.slice(path.feature),
            layout.right.slice(path.right),
        )
        dense[place] = np.einsum("abc,uvw->uavbwc", block, coupling).reshape(dense[place].shape)
    return dense


def dense_tensor(train: Train) -> Array:
    """The full tensor of a train.

    Returns
    -------
    float64 array [z, f_1, ..., f_d, o]

    Raises
    ------
    SpecificationError
        If it would have more than `MAX_DENSE_ENTRIES` entries.
    """
    layout = train.layout
    n_features, order = layout.feature.dimension, layout.order
    shape = (layout.n_species, *[n_features] * order, layout.bonds[-1].dimension)
    n_entries = layout.n_species * n_features**order * layout.bonds[-1].dimension
    if n_entries > MAX_DENSE_ENTRIES:
        raise SpecificationError(
            f"the dense tensor of this train has {n_entries} entries, expected at most {MAX_DENSE_ENTRIES}; "
            "use a layout of lower order or fewer features, or the canonical forms, which never expand it"
        )
    dense = train.head  # -> [z f_1 .. f_k, right]
    for core_layout, core in zip(layout.cores, train.cores, strict=True):
        dense_k = dense_core(core_layout, core)
        dense = dense.reshape(-1, dense_k.shape[0]) @ dense_k.reshape(dense_k.shape[0], -1)
    return dense.reshape(shape)


def evaluate_dense(train: Train, features: Array) -> Array:
    """The output of a train for one feature vector: the dense tensor contracted with d copies of it.

    Parameters
    ----------
    train : Train
    features : float64 array [f]
        One atom's features, dimensionless.

    Returns
    -------
    float64 array [z, o]
        The output for every central species.
    """
    dense = dense_tensor(train)
    for _ in range(train.layout.order):
        dense = np.tensordot(features, dense, axes=(0, 1))
    return dense
