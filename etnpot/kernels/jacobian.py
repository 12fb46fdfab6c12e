"""Sensitivities for the full parameter Jacobian of energies, forces and virial.

Per atom, with x_k, y_k the bond vectors and adjoints of the train and a prime for the derivative by feature v_f,

    dE/dA        = sum_m3 y_k[l3 m3 a3] t[m3]                                                                (1)
    M[A, f]      = d2E/dA dv_f = sum_m3 y'_k t + y_k t'                                                       (2)
    H[f', f]     = d2E/dv_f' dv_f                                                                             (3)

The Jacobian of the pair derivatives is then a matrix product, sum_f M[q, f] dv_f/dr_p, in which all pairs that end on
one atom are summed first: column (j, c) of `columns` collects dv_f/dx_jc, and six more the strain.
For the coefficients B of the radial functions and the species factor S, T[zi, zj, n, lc] = sum_k B[lc, n, k] S[l, k, zi, zj],

    dE/dT = sum_m g w,    M[T, f] = sum_m H[lmc, f] w,    w[z_j, n, lm] = sum_j phi_n Y_lm,                   (4)

plus the explicit dependence of w on the positions, sum_m g dw/dr_p.
"""

import numpy as np

from etnpot._jit import njit
from etnpot.kernels.basis import LANES, harmonics_gradient, harmonics_work_rows, radial_functions
from etnpot.kernels.train import (
    CHANNELS,
    COMPONENTS,
    COUPLING,
    COUPLING_END,
    FEATURE,
    LEFT,
    RANK_LEFT,
    RANK_RIGHT,
    RIGHT,
    WEIGHT,
)

__all__ = ["feature_columns", "radial_sensitivities", "train_sensitivities"]
