"""The specification as plain arrays: what kernels and reference read.

Both tables are named tuples of numbers and arrays, so that compiled kernels take them as they are.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etnpot.basis import recurrence_constants
from etnpot.network import SCALAR, TrainLayout
from etnpot.potential.spec import NetworkSpec
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
    legendre : float64 [3, t]
        Of `legendre_recurrence`.
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
    legendre: Floats
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
    n_work_rows : int
        Rows of scratch of the passes: the largest product of the components of a path's spectator and the ranks of the
        other two irreps.
    bond_first : int64 [k + 1]
        Bond k is rows ``bond_first[k]:bond_first[k + 1]``.
    path : int64 [path, 19]
        Row of the left irrep and its rank, feature row and its rank, row of the right irrep and its rank,
        index of the block in the weights, range of coupling coefficients; then for the left, feature and right
        irrep 2 l + 1, the first of its runs, and the distance of its copies in the weights; last the spectator
        (0, 1, 2: left, feature, right). Paths are in the order of the cores.
    path_first : int64 [k + 1]
        Paths of core k (0-based) are ``path_first[k]:path_first[k + 1]``.
    coupling_index : int64 [nz, 3]
        m1, m2, m3, zero-based.
    coupling_value : float64 [nz]
        Non-zero Clebsch-Gordan coefficients.
    run_first : int64 [run + 1]
        Terms of a run: see `path_runs`.
    term_rows : int32 [term, 2]
        Rows of the two factors of a term, relative to the first ones.
    term_value : float64 [term]
        Its coefficient.
    """

    n_features: int
    n_bond_rows: int
    max_components: int
    n_work_rows: int
    bond_first: Integers
    path: Integers
    path_first: Integers
    coupling_index: Integers
    coupling_value: Floats
    run_first: Integers
    term_rows: NDArray[np.int32]
    term_value: Floats


def spectator(ranks: tuple[int, int, int], components: tuple[int, int, int], n_terms: int) -> int:
    """Which of the three irreps of a path is summed with the weights alone: the cheapest choice.

    The other two, of ranks n and n', are coupled: 3 n n' multiplications for every coefficient over one evaluation and its
    adjoint, and two or three passes through the weights for every component of the spectator.
    """
    costs = []
    for role in range(3):
        n_pairs = math.prod(ranks) // ranks[role]
        passes = 2 if role == 2 else 3
        costs.append(3 * n_pairs * n_terms + passes * components[role] * math.prod(ranks))
    return 2 - int(np.argmin(costs[::-1]))  # of equals the right irrep


def legendre_recurrence(l_max: int) -> Floats:
    """Coefficients of the associated Legendre functions with the norm of the harmonics, P_l^m = F_lm Q_l^m.

        P_l^m = alpha z P_{l-1}^m - beta P_{l-2}^m,     dP_l^m/dz = delta P_l^{m+1},     P_m^m = F_mm (2m - 1)!!

    Returns
    -------
    float64 [3, (l_max + 1)(l_max + 2)/2]
        alpha (of l = m: P_m^m), beta, delta at t = l (l + 1)/2 + m.
    """
    norms = recurrence_constants(l_max)
    table = np.zeros((3, (l_max + 1) * (l_max + 2) // 2))
    for l in range(l_max + 1):  # noqa: E741
        for m in range(l + 1):
            t, norm = l * (l + 1) // 2 + m, norms[l * l + l + m]
            if l == m:
                table[0, t] = norm * math.prod(range(1, 2 * m, 2))
            else:
                table[0, t] = (2 * l - 1) / (l - m) * norm / norms[l * l - l + m]
                table[2, t] = norm / norms[l * l + l + m + 1]
            if l > m + 1:
                table[1, t] = (l + m - 1) / (l - m) * norm / norms[(l - 2) * (l - 1) + m]
    return table


def basis_tables(spec: NetworkSpec) -> BasisTables:
    """Tables of the pair stage; the features are those without layers."""
    codes, constants, recurrence = spec.radial.kernel_tables()
    irreps, feature = [Irrep.natural(l) for l in range(spec.l_max + 1)], spec.feature_bonds[0]
    feature_first = [feature.offset(irrep) for irrep in irreps]
    feature_first[0] += 1
    return BasisTables(
        codes=codes,
        constants=constants,
        recurrence=recurrence,
        legendre=legendre_recurrence(spec.l_max),
        channel_first=np.cumsum([0, *spec.pair_channels], dtype=np.int64),
        feature_first=np.array(feature_first, dtype=np.int64),
        feature_rank=np.array([feature.rank(irrep) for irrep in irreps], dtype=np.int64),
    )


def path_runs(
    ranks: tuple[int, int, int], components: tuple[int, int, int], role: int, index: Integers, value: Floats
) -> list[list[tuple[Integers, Integers, Floats]]]:
    """The sums of `etnpot.kernels.train`, eq. (2), of one path: for each of its three irreps, for each component m of it.

    Parameters
    ----------
    ranks, components : tuple of int
        Of the left, feature and right irrep.
    role : int
        The spectator.
    index, value
        Coupling coefficients as in `TrainTables`.

    Returns
    -------
    list of list of (rows, rows, coefficients)
        Of the spectator: rows [m, a = 0] of the other two irreps. Of another irrep: rows [m, a] of the third one, and those
        of W [ms, ap, aq] for its first copy.
    """
    p, q = (role + 1) % 3, (role + 2) % 3
    runs: list[list[tuple[Integers, Integers, Floats]]] = []
    for result in range(3):
        if result == role:
            first, second = index[:, p] * ranks[p], index[:, q] * ranks[q]
            copies = np.zeros(1, dtype=np.int64)
            step = 0
        else:
            third = p + q - result
            first, second = index[:, third] * ranks[third], index[:, role] * (ranks[p] * ranks[q])
            copies = np.arange(ranks[third])
            step = 1 if third == q else ranks[q]
        runs.append([])
        for m in range(components[result]):
            here = index[:, result] == m
            rows = (first[here, None] + copies).ravel()
            others = (second[here, None] + step * copies).ravel()
            runs[-1].append((rows, others, np.repeat(value[here], len(copies))))
    return runs


@lru_cache(maxsize=64)
def train_tables(layout: TrainLayout) -> TrainTables:
    """Tables of the train stage; weights are ``Train.flat``: head, then cores.

    Kept, since a fit asks for those of the same layout at every step; nobody writes to them.
    """
    bond_first = np.cumsum([0, *(bond.dimension for bond in layout.bonds)], dtype=np.int64)
    coupling_range: dict[tuple[int, int, int], tuple[int, int]] = {}
    shape_runs: dict[tuple[tuple[int, int, int], tuple[int, int, int]], list[int]] = {}
    run_length: list[int] = []
    terms: list[tuple[Integers, Integers, Floats]] = []
    indices: list[Integers] = []
    values: list[Floats] = []
    n_couplings = 0
    n_work_rows = 0
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
            ranks, components = core.shape(path), (path.left.dim, path.feature.dim, path.right.dim)
            n1, n2, n3 = ranks
            begin, end = coupling_range[ls]
            role = spectator(ranks, components, end - begin)
            n_work_rows = max(n_work_rows, components[role] * math.prod(ranks) // ranks[role])
            if (ls, ranks) not in shape_runs:
                shape_runs[ls, ranks] = []
                for runs in path_runs(ranks, components, role, *coupling_table(*ls)):
                    shape_runs[ls, ranks].append(len(run_length))
                    run_length.extend(len(coefficients) for _, _, coefficients in runs)
                    terms.extend(runs)
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
                    *components,
                    *shape_runs[ls, ranks],
                    *(n2 * n3, n3, 1),
                    role,
                ]
            )
        weight += core.size
        path_first.append(len(rows))
    rows_of_terms, others_of_terms, term_value = (np.concatenate(part) for part in zip(*terms, strict=True))
    return TrainTables(
        n_features=layout.feature.dimension,
        n_bond_rows=int(bond_first[-1]),
        max_components=max(irrep.dim for bond in layout.bonds for irrep in bond.irreps),
        n_work_rows=n_work_rows,
        bond_first=bond_first,
        path=np.array(rows, dtype=np.int64).reshape(-1, 19),
        path_first=np.array(path_first, dtype=np.int64),
        coupling_index=np.ascontiguousarray(np.concatenate(indices), dtype=np.int64),
        coupling_value=np.ascontiguousarray(np.concatenate(values), dtype=np.float64),
        run_first=np.cumsum([0, *run_length], dtype=np.int64),
        term_rows=np.stack([rows_of_terms, others_of_terms], axis=1).astype(np.int32),
        term_value=np.ascontiguousarray(term_value, dtype=np.float64),
    )
