"""Radial functions and harmonics from their closed forms.

The kernels take a radial basis as codes, constants and recurrence coefficients. Here the basis that these
numbers stand for is found again and evaluated without its recurrence: Chebyshev series by Clenshaw's
algorithm, Jacobi polynomials and spherical Bessel functions by scipy; the harmonics as complex polynomials.

============  ======================================================================
symbol        here
============  ======================================================================
r             ``r_b`` [lane], Å
u             ``u_cp`` [c, pair], unit vectors
phi_n         ``phi_nb`` [n, lane] and ``dphi_nb`` = d phi / d r
S_lm          ``y_mp`` [l*l + l + m, pair] and ``dy_cmp`` [c, lm, pair], the gradient on the sphere
============  ======================================================================

The number of lanes and pairs is free.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etnpot.basis import RadialBasis, spherical_harmonics
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


def harmonics(
    u_cp: Floats, n_pairs: int, l_max: int, legendre: Floats, legendre_tb: None, circle_mb: None, y_mp: Floats
) -> None:
    """Harmonics of unit vectors.

    Parameters
    ----------
    u_cp : float64 [c, pair]
    n_pairs : int
        How many are written.
    l_max : int
    legendre, legendre_tb, circle_mb
        Not used: recurrence and scratch of the kernel.
    y_mp : float64 [lm, pair]
        Written.
    """
    y_mp[:, :n_pairs] = spherical_harmonics(u_cp.T[:n_pairs], l_max)[0].T


def harmonics_gradient(
    u_cp: Floats,
    l_max: int,
    legendre: Floats,
    legendre_tb: None,
    circle_mb: None,
    y_mp: Floats,
    dy_cmp: Floats,
) -> None:
    """Harmonics and their gradients on the sphere, at unit vectors.

    Parameters
    ----------
    u_cp, l_max, legendre, legendre_tb, circle_mb, y_mp
        As for `harmonics`; all pairs.
    dy_cmp : float64 [c, lm, pair]
        Written.
    """
    y_pm, dy_pmc = spherical_harmonics(u_cp.T, l_max)
    y_mp[:] = y_pm.T
    dy_cmp[:] = dy_pmc.transpose(2, 1, 0)
