"""Vectors of listed pairs at new positions, and which of the pairs are within the cutoff.

    r_p = x_j - x_i + S h,      |r_p| < r_c

Every operation is rounded on its own and in the order written, so that (i, j, S) and (j, i, -S) give vectors that are each
other's exact negative.

============  ==============================================================================
symbol        here
============  ==============================================================================
x, h          ``positions`` [i, c], ``cell`` [3, c], Å
S             ``crossing_shift`` [n, 3] of the pairs ``crossing`` [n], ascending; else zero
============  ==============================================================================
"""

import math

from etnpot._jit import njit

__all__ = ["pairs_within", "shortest_pair"]


@njit
def pairs_within(
    first, neighbor, crossing, crossing_shift, positions, cell, cutoff, kept_first, kept_neighbor, r_pc, kept
):  # fmt: skip
    """Pairs shorter than the cutoff, in their order; returns how many.

    Parameters
    ----------
    first, neighbor : int64 [i + 1], int64 [p]
        The list.
    crossing, crossing_shift : int64 [n], int32 [n, 3]
    positions, cell : float64 [i, c], float64 [3, c], Å
    cutoff : float, Å
    kept_first : int64 [i + 1]
        Written.
    kept_neighbor, r_pc : int64 [p], float64 [p, c]
        Written as far as pairs are kept.
    kept : bool [p]
        Written: whether the pair is kept.
    """
    n_kept, next_crossing = 0, 0
    for i in range(first.shape[0] - 1):
        kept_first[i] = n_kept
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            x, y, z = (
                positions[j, 0] - positions[i, 0], positions[j, 1] - positions[i, 1], positions[j, 2] - positions[i, 2],
            )  # fmt: skip
            if next_crossing < crossing.shape[0] and crossing[next_crossing] == p:
                a, b, c = (
                    crossing_shift[next_crossing, 0], crossing_shift[next_crossing, 1], crossing_shift[next_crossing, 2],
                )  # fmt: skip
                x += a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                y += a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                z += a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                next_crossing += 1
            kept[p] = math.sqrt(x * x + y * y + z * z) < cutoff
            if kept[p]:
                kept_neighbor[n_kept] = j
                r_pc[n_kept, 0] = x
                r_pc[n_kept, 1] = y
                r_pc[n_kept, 2] = z
                n_kept += 1
    kept_first[first.shape[0] - 1] = n_kept
    return n_kept


@njit
def shortest_pair(r_pc):
    """Index of the shortest of at least one pair vectors, the first of equals, and its length."""
    shortest, least = 0, math.inf
    for p in range(r_pc.shape[0]):
        square = r_pc[p, 0] * r_pc[p, 0] + r_pc[p, 1] * r_pc[p, 1] + r_pc[p, 2] * r_pc[p, 2]
        if square < least:
            shortest, least = p, square
    return shortest, math.sqrt(least)
