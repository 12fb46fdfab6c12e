"""Vectors of listed pairs at new positions, which of the pairs are within the cutoff, and types, all at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_within", "farthest_move", "neighbor_types", "pairs_within", "shortest_pair"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
PairList = tuple[Integers, Integers, Integers, NDArray[np.int32], Floats, Floats]


def count_within(
    first: Integers,
    neighbor: Integers,
    crossing: Integers,
    crossing_shift: NDArray[np.int32],
    positions: Floats,
    cell: Floats,
    limit: float,
    start: int,
    stop: int,
) -> int:
    """Arguments and result of `etnpot.kernels.pairs.count_within`."""
    square_p = _squares(_vectors((first, neighbor, crossing, crossing_shift, positions, cell)))
    return int(np.count_nonzero(square_p[first[start] : first[stop]] < limit))


def pairs_within(
    first: Integers,
    neighbor: Integers,
    crossing: Integers,
    crossing_shift: NDArray[np.int32],
    positions: Floats,
    cell: Floats,
    limit: float,
    start: int,
    stop: int,
    begin: int,
    end: int,
    kept_first: Integers,
    kept_neighbor: Integers,
    r_pc: Floats,
    kept: NDArray[np.bool_],
) -> tuple[int, float]:
    """Arguments and result of `etnpot.kernels.pairs.pairs_within`, to the last bit."""
    vector_pc = _vectors((first, neighbor, crossing, crossing_shift, positions, cell))
    square_p = _squares(vector_pc)
    mine = np.arange(first[start], first[stop])
    is_kept = square_p[mine] < limit
    if len(kept):
        kept[mine] = is_kept
    last = begin + int(np.count_nonzero(is_kept))
    kept_first[start:stop] = (
        begin + np.concatenate([[0], np.cumsum(is_kept)])[first[start:stop] - first[start]]
    )
    kept_neighbor[begin:last], r_pc[begin:last] = neighbor[mine[is_kept]], vector_pc[mine[is_kept]]
    return last, float(square_p[mine].min(initial=np.inf))


def _vectors(given: PairList) -> Floats:
    first, neighbor, crossing, s, positions, h = given
    center = np.repeat(np.arange(len(first) - 1), np.diff(first))
    vector_pc = positions[neighbor] - positions[center]
    vector_pc[crossing] += s[:, 0, None] * h[0] + s[:, 1, None] * h[1] + s[:, 2, None] * h[2]
    return np.asarray(vector_pc)


def _squares(vector_pc: Floats) -> Floats:
    square_pc = vector_pc * vector_pc
    return np.asarray(square_pc[:, 0] + square_pc[:, 1] + square_pc[:, 2])


def neighbor_types(neighbor: Integers, type_i: Integers, start: int, stop: int, type_p: Integers) -> bool:
    """Arguments and result of `etnpot.kernels.pairs.neighbor_types`."""
    mine = neighbor[start:stop]
    if ((mine < 0) | (mine >= len(type_i))).any():
        return False
    type_p[start:stop] = type_i[mine]
    return True


def farthest_move(old: Floats, new: Floats) -> float:
    """Arguments and result of `etnpot.kernels.pairs.farthest_move`."""
    move_ic = new - old
    return float(np.linalg.norm(move_ic - move_ic.mean(axis=0), axis=1).max())


def shortest_pair(r_pc: Floats) -> tuple[int, float]:
    """Arguments and result of `etnpot.kernels.pairs.shortest_pair`."""
    r_p = np.linalg.norm(r_pc, axis=1)
    return int(np.argmin(r_p)), float(r_p.min())
