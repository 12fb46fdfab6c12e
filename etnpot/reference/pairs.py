"""Vectors of listed pairs at new positions, and which of the pairs are within the cutoff, all at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["pairs_within", "shortest_pair"]


def pairs_within(
    first: NDArray[np.int64],
    neighbor: NDArray[np.int64],
    crossing: NDArray[np.int64],
    crossing_shift: NDArray[np.int32],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    cutoff: float,
    kept_first: NDArray[np.int64],
    kept_neighbor: NDArray[np.int64],
    r_pc: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> int:
    """Arguments and result of `etnpot.kernels.pairs.pairs_within`, to the last bit."""
    s, h = crossing_shift, cell
    center = np.repeat(np.arange(len(first) - 1), np.diff(first))
    vector_pc = positions[neighbor] - positions[center]
    vector_pc[crossing] += s[:, 0, None] * h[0] + s[:, 1, None] * h[1] + s[:, 2, None] * h[2]
    square_pc = vector_pc * vector_pc
    kept[:] = np.sqrt(square_pc[:, 0] + square_pc[:, 1] + square_pc[:, 2]) < cutoff
    n_kept = int(np.count_nonzero(kept))
    kept_first[:] = np.concatenate([[0], np.cumsum(kept)])[first]
    kept_neighbor[:n_kept], r_pc[:n_kept] = neighbor[kept], vector_pc[kept]
    return n_kept


def shortest_pair(r_pc: NDArray[np.float64]) -> tuple[int, float]:
    """Arguments and result of `etnpot.kernels.pairs.shortest_pair`."""
    r_p = np.linalg.norm(r_pc, axis=1)
    return int(np.argmin(r_p)), float(r_p.min())
