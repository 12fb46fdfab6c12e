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
        x, y, z = 0.0, 0.0, 0.0
        for p in range(first[i], first[i + 1]):
            j = neighbor[p]
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


@njit
def virials(first, r_pc, dE_dr_pc, virial_icc):
    """Virial of every atom, eV; `virial_icc` [i, c, c'] is written.

    It is symmetric for an energy that is invariant under rotation.
    """
    for i in range(first.shape[0] - 1):
        xx, xy, xz, yx, yy, yz, zx, zy, zz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for p in range(first[i], first[i + 1]):
            x, y, z = r_pc[p, 0], r_pc[p, 1], r_pc[p, 2]
            gx, gy, gz = dE_dr_pc[p, 0], dE_dr_pc[p, 1], dE_dr_pc[p, 2]
            xx, xy, xz = xx + x * gx, xy + x * gy, xz + x * gz
            yx, yy, yz = yx + y * gx, yy + y * gy, yz + y * gz
            zx, zy, zz = zx + z * gx, zy + z * gy, zz + z * gz
        virial_icc[i, 0, 0], virial_icc[i, 0, 1], virial_icc[i, 0, 2] = xx, xy, xz
        virial_icc[i, 1, 0], virial_icc[i, 1, 1], virial_icc[i, 1, 2] = yx, yy, yz
        virial_icc[i, 2, 0], virial_icc[i, 2, 1], virial_icc[i, 2, 2] = zx, zy, zz
