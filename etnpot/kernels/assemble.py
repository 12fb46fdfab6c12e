"""From pair derivatives to forces and virials.

    F_i = sum_{p from i} dE/dr_p - sum_{p onto i} dE/dr_p,     W_i = sum_{p from i} r_p (x) dE/dr_p

The virial of a pair is booked on its centre, whose energy it changes; sum_i W_i / V is the stress.
"""

from etnpot._jit import njit

__all__ = ["forces", "virials"]


@njit
def forces(first, neighbor, dE_dr_pc, force_ic):
    """Forces on all atoms, eV/Å; `force_ic` [i, c] is written."""
    for i in range(force_ic.shape[0]):
        for c in range(3):
            force_ic[i, c] = 0.0
    for i in range(first.shape[0] - 1):
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
            for c in range(3):
                force_ic[i, c] += dE_dr_pc[p, c]
                force_ic[j, c] -= dE_dr_pc[p, c]


@njit
def virials(first, r_pc, dE_dr_pc, virial_icc):
    """Virial of every atom, eV; `virial_icc` [i, c, c'] is written.

    It is symmetric for an energy that is invariant under rotation.
    """
    for i in range(first.shape[0] - 1):
        for c in range(3):
            for d in range(3):
                virial_icc[i, c, d] = 0.0
        for p in range(first[i], first[i + 1]):
            for c in range(3):
                for d in range(3):
                    virial_icc[i, c, d] += r_pc[p, c] * dE_dr_pc[p, d]
