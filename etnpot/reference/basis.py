"""Radial functions and harmonics from their closed forms.

The kernels take a radial basis as codes, constants and recurrence coefficients. Here the basis that these
numbers stand for is found again and evaluated without its recurrence: Chebyshev series by Clenshaw's
algorithm, Jacobi polynomials and spherical Bessel functions by scipy; the harmonics as complex polynomials.

============  ======================================================================
symbol        here
============  ======================================================================
r             ``r_b`` [lane], Å
u             ``u_cb`` [c, lane], unit vectors
phi_n         ``phi_nb`` [n, lane] and ``dphi_nb`` = d phi / d r
S_lm          ``y_mb`` [l*l + l + m, lane] and ``dy_cmb`` [c, lm, lane] = dS/du_c
F_lm          ``norms`` [lm]
============  ======================================================================

The number of lanes is free.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etnpot.basis import RadialBasis, recurrence_constants, solid_harmonics
from etnpot.basis.radial import COORDINATE_CODES, CUTOFF_CODES
from etnpot.errors import SpecificationError

__all__ = ["harmonics", "harmonics_gradient", "radial_basis", "radial_functions"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def radial_basis(codes: Integers, constants: Floats, recurrence: Floats) -> RadialBasis:
    """The radial basis whose ``kernel_tables()`` these are.

    Parameters
    ----------
    codes : int64 [2]
    constants : float64 [8]
    recurrence : float64 [3, n]

    Raises
    ------
    SpecificationError
        If there is none.
    """
    r_min, cutoff, _, p0, power = (float(value) for value in constants[:5])
    if codes[0] == COORDINATE_CODES["cosine"]:
        family = "bessel"
    else:  # p_0 is 1 for Chebyshev, sqrt((2 q + 1) / 2) with q >= 3 for Jacobi
        family = "chebyshev" if p0 == 1.0 else "jacobi"
    cutoff_function = {code: name for name, code in CUTOFF_CODES.items()}[int(codes[1])]
    basis = RadialBasis(family, recurrence.shape[1], cutoff, r_min, cutoff_function, int(power))
    own, given = basis.kernel_tables(), (codes, constants, recurrence)
    if not all(np.array_equal(mine, theirs) for mine, theirs in zip(own, given, strict=True)):
        raise SpecificationError(
            f"expected the tables of a radial basis, got codes {codes}, constants {constants}, which "
            f"come closest to {basis} without being its tables; take them from RadialBasis.kernel_tables()"
        )
    return basis


def radial_functions(
    r_b: Floats, codes: Integers, constants: Floats, recurrence: Floats, phi_nb: Floats, dphi_nb: Floats
) -> None:
    """phi_n(r) and its derivative; zero at and beyond the cutoff.

    Parameters
    ----------
    r_b : float64 [lane], Å
    codes, constants, recurrence
        As ``RadialBasis.kernel_tables`` gives them.
    phi_nb, dphi_nb : float64 [n, lane]
        Written.
    """
    phi_bn, dphi_bn = radial_basis(codes, constants, recurrence).evaluate(r_b)
    phi_nb[:], dphi_nb[:] = phi_bn.T, dphi_bn.T


def harmonics(u_cb: Floats, l_max: int, norms: Floats, y_mb: Floats) -> None:
    """Harmonics of unit vectors.

    Parameters
    ----------
    u_cb : float64 [c, lane]
    l_max : int
    norms : float64 [lm]
        F_lm.
    y_mb : float64 [lm, lane]
        Written.
    """
    y_bm, _ = solid_harmonics(u_cb.T, l_max)
    y_mb[:] = (norms / recurrence_constants(l_max))[:, None] * y_bm.T


def harmonics_gradient(
    u_cb: Floats, l_max: int, norms: Floats, work_b: Floats | None, y_mb: Floats, dy_cmb: Floats
) -> None:
    """Harmonics and the gradients of the homogeneous polynomials, at unit vectors.

    Parameters
    ----------
    u_cb, l_max, norms, y_mb
        As for `harmonics`.
    work_b
        Not used: scratch of the kernel.
    dy_cmb : float64 [c, lm, lane]
        Written.
    """
    y_bm, dy_bmc = solid_harmonics(u_cb.T, l_max)
    scale_m = norms / recurrence_constants(l_max)
    y_mb[:] = scale_m[:, None] * y_bm.T
    dy_cmb[:] = scale_m[None, :, None] * dy_bmc.transpose(2, 1, 0)
