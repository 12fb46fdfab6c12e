"""The specification as plain arrays: what kernels and reference read.

Both tables are named tuples of numbers and arrays, so that compiled kernels take them as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etnpot.basis import recurrence_constants
from etnpot.network import SCALAR, TrainLayout
from etnpot.potential.spec import PotentialSpec
from etnpot.so3 import Irrep, coupling_table

__all__ = ["BasisTables", "TrainTables", "basis_tables", "train_tables"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class BasisTables(NamedTuple):
    """Radial functions, harmonics, and where each feature lies.

    Attributes
    ----------
    codes, constants, recurrence
        Of `RadialBasis.kernel_tables`.
    norms : float64 [lm]
        F_lm of the harmonics.
    channel_first : int64 [l + 1]
        Channels of l are lc = ``channel_first[l]:channel_first[l + 1]`` of the radial table.
    feature_first : int64 [l]
        Feature of (l, m = -l, first channel); the one of (l, m, c) is
        ``feature_first[l] + (l + m) * feature_rank[l] + c``.
    feature_rank : int64 [l]
        Channels of l in the feature vector; one more than in the radial table for l = 0, the constant.
    """

    codes: Integers
    constants: Floats
    recurrence: Floats
    norms: Floats
    channel_first: Integers
    feature_first: Integers
    feature_rank: Integers


class TrainTables(NamedTuple):
    """Paths of a train.

    Attributes
    ----------
    n_features : int
        Length of v.
    n_bond_rows : int
        Length of all bond vectors together.
    max_components : int
        Largest 2 l + 1 on any bond.
    max_channels : int
        Most copies of a feature irrep.
    bond_first : int64 [k + 1]
        Bond k is rows ``bond_first[k]:bond_first[k + 1]``.
    path : int64 [path, 10]
        Row of the left irrep and its rank, feature row and its rank, row of the right irrep and its rank,
        index of the block in the weights, range of coupling coefficients, 2 l3 + 1. Paths are in the order of
        the cores.
    path_first : int64 [k + 1]
        Paths of core k (0-based) are ``path_first[k]:path_first[k + 1]``.
    coupling_index : int64 [nz, 3]
        m1, m2, m3, zero-based.
    coupling_value : float64 [nz]
        Non-zero Clebsch-Gordan coefficients.
    """

    n_features: int
    n_bond_rows: int
    max_components: int
    max_channels: int
    bond_first: Integers
    path: Integers
    path_first: Integers
    coupling_index: Integers
    coupling_value: Floats


def basis_tables(spec: PotentialSpec) -> BasisTables:
    """Tables of the pair stage."""
    codes, constants, recurrence = spec.radial.kernel_tables()
    irreps = [Irrep.natural(l) for l in range(spec.l_max + 1)]
    feature_first = [spec.feature.offset(irrep) for irrep in irreps]
    feature_first[0] += 1
    return BasisTables(
        codes=codes,
        constants=constants,
        recurrence=recurrence,
        norms=recurrence_constants(spec.l_max),
        channel_first=np.cumsum([0, *spec.channels], dtype=np.int64),
        feature_first=np.array(feature_first, dtype=np.int64),
        feature_rank=np.array([spec.feature.rank(irrep) for irrep in irreps], dtype=np.int64),
    )


def train_tables(layout: TrainLayout) -> TrainTables:
    """Tables of the train stage; weights are ``Train.flat``: head, then cores."""
    bond_first = np.cumsum([0, *(bond.dimension for bond in layout.bonds)], dtype=np.int64)
    coupling_range: dict[tuple[int, int, int], tuple[int, int]] = {}
    indices: list[Integers] = []
    values: list[Floats] = []
    n_couplings = 0
    rows, path_first = [], [0]
    weight = layout.n_species * layout.bonds[0].rank(SCALAR)
    for k, core in enumerate(layout.cores):
        for path in core.paths:
            ls = (path.left.l, path.feature.l, path.right.l)
            if ls not in coupling_range:
                index, value = coupling_table(*ls)
                coupling_range[ls] = (n_couplings, n_couplings + len(value))
                n_couplings += len(value)
                indices.append(index)
                values.append(value)
            n1, n2, n3 = core.shape(path)
            rows.append(
                [
                    bond_first[k] + core.left.offset(path.left),
                    n1,
                    core.feature.offset(path.feature),
                    n2,
                    bond_first[k + 1] + core.right.offset(path.right),
                    n3,
                    weight + core.offset(path),
                    *coupling_range[ls],
                    path.right.dim,
                ]
            )
        weight += core.size
        path_first.append(len(rows))
    return TrainTables(
        n_features=layout.feature.dimension,
        n_bond_rows=int(bond_first[-1]),
        max_components=max(irrep.dim for bond in layout.bonds for irrep in bond.irreps),
        max_channels=max(rank for _, rank in layout.feature),
        bond_first=bond_first,
        path=np.array(rows, dtype=np.int64).reshape(-1, 10),
        path_first=np.array(path_first, dtype=np.int64),
        coupling_index=np.ascontiguousarray(np.concatenate(indices), dtype=np.int64),
        coupling_value=np.ascontiguousarray(np.concatenate(values), dtype=np.float64),
    )
