"""From pair derivatives to forces and virials.

    F_i = sum_{p from i} dE/dr_p - sum_{p onto i} dE/dr_p,     W_i = sym sum_{p from i} r_p (x) dE/dr_p

The virial of a pair is booked on its centre, whose energy it changes; sum_i W_i / V is the stress. Indices without a sign spare
the loops the question whether they count from the end.
"""

import numpy as np

from etnpot._jit import njit

__all__ = ["forces", "virials"]


@njit
def forces(first, neighbor, dE_dr_pc, start, stop, force_ic):
    """What the pairs of the atoms ``start:stop`` add to the forces on all atoms, eV/Å: `force_ic` [i, c] is added to."""
    for i in range(start, stop):
        x, y, z = 0.0, 0.0, 0.0
        for pair in range(first[i], first[i + 1]):
            p = np.uint64(pair)
            j = np.uint64(neighbor[p])
            gx, gy, gz = dE_dr_pc[p, 0], dE_dr_pc[p, 1], dE_dr_pc[p, 2]
            x += gx
            y += gy
            z += gz
            force_ic[j, 0] -= gx
            force_ic[j, 1] -= gy
            force_ic[j, 2] -= gz
        force_ic[i, 0] += x
        force_ic[i, 1] += y
        force_ic[i, 2] += z


@njit(fastmath=("contract",))
def virials(first, r_pc, dE_dr_pc, start, stop, virial_icc):
    """Symmetric part of the virial of the atoms ``start:stop``, eV; `virial_icc` [i, c, c'] is written.

    The virial itself is symmetric for an energy that is invariant under rotation.
    """
    for i in range(start, stop):
        xx, xy, xz, yx, yy, yz, zx, zy, zz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for pair in range(first[i], first[i + 1]):
            p = np.uint64(pair)
            x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
            gx, gy, gz = dE_dr_pc[p, 0], dE_dr_pc[p, 1], dE_dr_pc[p, 2]
            xx, xy, xz = xx + x * gx, xy + x * gy, xz + x * gz
            yx, yy, yz = yx + y * gx, yy + y * gy, yz + y * gz
            zx, zy, zz = zx + z * gx, zy + z * gy, zz + z * gz
        xy, xz, yz = 0.5 * (xy + yx), 0.5 * (xz + zx), 0.5 * (yz + zy)
        virial_icc[i, 0, 0], virial_icc[i, 0, 1], virial_icc[i, 0, 2] = xx, xy, xz
        virial_icc[i, 1, 0], virial_icc[i, 1, 1], virial_icc[i, 1, 2] = xy, yy, yz
        virial_icc[i, 2, 0], virial_icc[i, 2, 1], virial_icc[i, 2, 2] = xz, yz, zz
