"""From pair derivatives to forces and virials, one pair at a time.

    F_i = sum_{p from i} dE/dr_p - sum_{p onto i} dE/dr_p,     W_i = sum_{p from i} r_p (x) dE/dr_p

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


def forces(first: Integers, neighbor: Integers, dE_dr_pc: Floats, force_ic: Floats) -> None:
    """Forces on all sites.

    Parameters
    ----------
    first : int64 [i + 1]
        Pairs of atom i are ``first[i]:first[i + 1]``.
    neighbor : int64 [p]
        Site at the other end of each pair.
    dE_dr_pc : float64 [p, c], eV/Å
    force_ic : float64 [site, c], eV/Å
        Written.
    """
    force_ic[:] = 0.0
    for p, i in enumerate(centers(first)):
        force_ic[i] += dE_dr_pc[p]
        force_ic[neighbor[p]] -= dE_dr_pc[p]


def virials(first: Integers, r_pc: Floats, dE_dr_pc: Floats, virial_icc: Floats) -> None:
    """Virial of every atom.

    Parameters
    ----------
    first : int64 [i + 1]
    r_pc : float64 [p, c], Å
    dE_dr_pc : float64 [p, c], eV/Å
    virial_icc : float64 [i, c, c'], eV
        Written.
    """
    virial_icc[:] = 0.0
    for p, i in enumerate(centers(first)):
        virial_icc[i] += np.outer(r_pc[p], dE_dr_pc[p])
