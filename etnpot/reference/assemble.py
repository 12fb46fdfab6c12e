"""From pair derivatives to forces and virials, one pair at a time.

    F_i = sum_{p from i} dE/dr_p - sum_{p onto i} dE/dr_p,     W_i = sym sum_{p from i} r_p (x) dE/dr_p

==========  ======================================
symbol      here
==========  ======================================
i, j of p   center of p, ``neighbor[p]``
r_p         ``r_pc`` [p, c], Å
dE/dr_p     ``dE_dr_pc`` [p, c], eV/Å
F_i, W_i    ``force_ic``, ``virial_icc``
==========  ======================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["centers", "forces", "virials"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def centers(first: Integers) -> Integers:
    """Centre of every pair, int64 [p]."""
    return np.repeat(np.arange(len(first) - 1), np.diff(first))


def forces(
    first: Integers, neighbor: Integers, dE_dr_pc: Floats, start: int, stop: int, force_ic: Floats
) -> None:
    """What the pairs of some atoms add to the forces on all sites.

    Parameters
    ----------
    first : int64 [i + 1]
        Pairs of atom i are ``first[i]:first[i + 1]``.
    neighbor : int64 [p]
        Site at the other end of each pair.
    dE_dr_pc : float64 [p, c], eV/Å
    start, stop : int
        Range of atoms.
    force_ic : float64 [site, c], eV/Å
        Added to.
    """
    center = centers(first)
    for p in range(first[start], first[stop]):
        force_ic[center[p]] += dE_dr_pc[p]
        force_ic[neighbor[p]] -= dE_dr_pc[p]


def virials(
    first: Integers, r_pc: Floats, dE_dr_pc: Floats, start: int, stop: int, virial_icc: Floats
) -> None:
    """Symmetric part of the virial of some atoms.

    Parameters
    ----------
    first : int64 [i + 1]
    r_pc : float64 [p, c], Å
    dE_dr_pc : float64 [p, c], eV/Å
    start, stop : int
        Range of atoms.
    virial_icc : float64 [i, c, c'], eV
        Written for the range.
    """
    virial_icc[start:stop] = 0.0
    center = centers(first)
    for p in range(first[start], first[stop]):
        product = np.outer(r_pc[p], dE_dr_pc[p])
        virial_icc[center[p]] += 0.5 * (product + product.T)
