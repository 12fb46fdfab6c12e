"""Which pairs are closer than the outer radius of their species: those that the repulsion acts on.

    |r_p| < b[z_i, z_j]

In most configurations there are none, as their shortest pair tells, and nobody asks.
"""

import math

from etnpot._jit import njit

__all__ = ["close_pairs"]


@njit
def close_pairs(first, r_pc, type_i, type_p, outer_zz, found):
    """Number of close pairs; the first of them, as many as fit, are written to `found` in ascending order.

    Parameters
    ----------
    first : int64 [i + 1]
    r_pc : float64 [p, c], Å
    type_i, type_p : int64
        Types of the atoms and of the neighbours.
    outer_zz : float64 [z_i, z_j], Å
        b; 0 where there is no repulsion.
    found : int64 [any]
    """
    n_found = 0
    for i in range(first.shape[0] - 1):
        zi = type_i[i]
        for p in range(first[i], first[i + 1]):
            r = math.sqrt(r_pc[p, 0] * r_pc[p, 0] + r_pc[p, 1] * r_pc[p, 1] + r_pc[p, 2] * r_pc[p, 2])
            if r < outer_zz[zi, type_p[p]]:
                if n_found < found.shape[0]:
                    found[n_found] = p
                n_found += 1
    return n_found
