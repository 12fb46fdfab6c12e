"""From derivatives by pair vectors to forces and virials, on several threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etnpot.kernels import assemble
from etnpot.neighbors import EdgeList
from etnpot.threads import run_ranges

__all__ = ["forces", "forces_and_virials"]

Floats = NDArray[np.float64]

#: At most so many groups of atoms add their forces up on their own: as many threads can share the work, and the sums do not
#: depend on how many do.
_GROUPS = 4
#: Fewer atoms than this are not worth another group.
_ATOMS_PER_GROUP = 512


def forces(edges: EdgeList, dE_dr_pc: Floats, n_sites: int, threads: int | None) -> Floats:
    """Forces on all sites, float64 [n_sites, 3], eV/Å."""
    return _assembled(edges, dE_dr_pc, n_sites, threads, None)


def forces_and_virials(
    edges: EdgeList, dE_dr_pc: Floats, n_sites: int, threads: int | None
) -> tuple[Floats, Floats]:
    """The forces, and the symmetric virial of every centre, float64 [n_atoms, 3, 3], eV."""
    virial_icc = np.empty((edges.n_atoms, 3, 3))
    return _assembled(edges, dE_dr_pc, n_sites, threads, virial_icc), virial_icc


def _assembled(
    edges: EdgeList, dE_dr_pc: Floats, n_sites: int, threads: int | None, virial_icc: Floats | None
) -> Floats:
    n_groups = max(1, min(_GROUPS, edges.n_atoms // _ATOMS_PER_GROUP))
    cuts = [edges.n_atoms * k // n_groups for k in range(n_groups + 1)]
    force_kic = np.zeros((n_groups, n_sites, 3))

    def work(start: int, stop: int) -> None:
        for k in range(start, stop):
            atoms = cuts[k], cuts[k + 1]
            assemble.forces(edges.first, edges.neighbor, dE_dr_pc, *atoms, force_kic[k])
            if virial_icc is not None:
                assemble.virials(edges.first, edges.r_pc, dE_dr_pc, *atoms, virial_icc)

    run_ranges(work, n_groups, threads=threads, block=1, smallest=1)
    for k in range(1, n_groups):
        force_kic[0] += force_kic[k]
    return force_kic[0]
