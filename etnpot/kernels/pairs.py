"""Vectors of listed pairs at new positions, which of the pairs are within the cutoff, and the types of their neighbours.

    r_p = x_j - x_i + S h,      |r_p|² < limit

Every operation is rounded on its own and in the order written, so that (i, j, S) and (j, i, -S) give vectors that are each
other's exact negative. Indices without a sign spare the loops over pairs the question whether they count from the end.

============  ==============================================================================
symbol        here
============  ==============================================================================
x, h          ``positions`` [i, c], ``cell`` [3, c], Å
S             ``crossing_shift`` [n, 3] of the pairs ``crossing`` [n], ascending; else zero
============  ==============================================================================
"""

import math

import numpy as np

from etnpot._jit import njit

__all__ = ["count_within", "farthest_move", "neighbor_types", "pairs_within", "shortest_pair"]


@njit(inner=True)
def vector_to(j, origin, crossing, crossing_shift, p, at, positions, cell):
    """r_p from the position `origin` to atom j, and how many pairs up to p cross the boundary; `at` of those before p do."""
    x, y, z = positions[j, 0] - origin[0], positions[j, 1] - origin[1], positions[j, 2] - origin[2]
    if at < crossing.shape[0] and crossing[at] == p:
        a, b, c = crossing_shift[at, 0], crossing_shift[at, 1], crossing_shift[at, 2]
        x += a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
        y += a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
        z += a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
        at += 1
    return x, y, z, at


@njit
def count_within(first, neighbor, crossing, crossing_shift, positions, cell, limit, start, stop):
    """How many pairs of the atoms ``start:stop`` `pairs_within` keeps."""
    n_kept = 0
    at = np.searchsorted(crossing, first[start])
    for i in range(start, stop):
        origin = positions[i, 0], positions[i, 1], positions[i, 2]
        for p in range(first[i], first[i + 1]):
            j = np.uint64(neighbor[p])
            x, y, z, at = vector_to(j, origin, crossing, crossing_shift, p, at, positions, cell)
            n_kept += x * x + y * y + z * z < limit
    return n_kept


@njit
def pairs_within(
    first, neighbor, crossing, crossing_shift, positions, cell, limit, start, stop, begin, end, kept_first, kept_neighbor,
    r_pc, kept,
):  # fmt: skip
    """Pairs of the atoms ``start:stop`` whose squared length is below the limit, in their order.

    Parameters
    ----------
    first, neighbor : int64 [i + 1], int64 [p]
        The list.
    crossing, crossing_shift : int64 [n], int32 [n, 3]
    positions, cell : float64 [i, c], float64 [3, c], Å
    limit : float, Å²
    start, stop : int
        Range of atoms.
    begin, end : int
        Place of the first pair that is kept, and the end of the places that may be written.
    kept_first : int64 [i]
        Written for the range.
    kept_neighbor, r_pc : int64 [p], float64 [p, c]
        Written from `begin` on; up to `end` there may be pairs that are not kept.
    kept : bool [p]
        Written for the pairs of the range, unless it is empty: whether the pair is kept.

    Returns
    -------
    (int, float)
        Place after the last pair that is kept, and the squared length of the shortest pair, Å², infinite without any.
    """
    place, least = begin, math.inf
    at = np.searchsorted(crossing, first[start])
    with_mask = kept.shape[0] > 0
    for i in range(start, stop):
        kept_first[i] = place
        origin = positions[i, 0], positions[i, 1], positions[i, 2]
        for p in range(first[i], first[i + 1]):
            j = np.uint64(neighbor[p])
            x, y, z, at = vector_to(j, origin, crossing, crossing_shift, p, at, positions, cell)
            square = x * x + y * y + z * z
            least = square if square < least else least
            # written in any case: whether a pair is kept is hard to foretell, whether there is room is not
            if place < end:
                q = np.uint64(place)
                kept_neighbor[q] = j
                r_pc[q, 0] = x
                r_pc[q, 1] = y
                r_pc[q, 2] = z
            if with_mask:
                kept[p] = square < limit
            if square < limit:
                place += 1
    return place, least


@njit
def farthest_move(old, new):
    """Largest distance between positions `old` and `new` [i, c] beyond the mean of all moves, Å."""
    n_atoms = old.shape[0]
    x, y, z = 0.0, 0.0, 0.0
    for i in range(n_atoms):
        x += new[i, 0] - old[i, 0]
        y += new[i, 1] - old[i, 1]
        z += new[i, 2] - old[i, 2]
    x, y, z = x / n_atoms, y / n_atoms, z / n_atoms
    most = 0.0
    for i in range(n_atoms):
        dx, dy, dz = new[i, 0] - old[i, 0] - x, new[i, 1] - old[i, 1] - y, new[i, 2] - old[i, 2] - z
        most = max(most, dx * dx + dy * dy + dz * dz)
    return math.sqrt(most)


@njit
def shortest_pair(r_pc):
    """Index of the shortest of at least one pair vectors, the first of equals, and its length."""
    shortest, least = 0, math.inf
    for p in range(r_pc.shape[0]):
        square = r_pc[p, 0] * r_pc[p, 0] + r_pc[p, 1] * r_pc[p, 1] + r_pc[p, 2] * r_pc[p, 2]
        if square < least:
            shortest, least = p, square
    return shortest, math.sqrt(least)


@njit
def neighbor_types(neighbor, type_i, start, stop, type_p):
    """Types of the neighbours of pairs ``start:stop``: `type_p` is written; False where an index is none of an atom."""
    n_atoms = np.uint64(type_i.shape[0])
    for pair in range(start, stop):
        p = np.uint64(pair)
        j = np.uint64(neighbor[p])  # a negative number is a large one
        if j >= n_atoms:
            return False
        type_p[p] = type_i[j]
    return True
