"""Radial basis functions: an orthogonal polynomial family in a scaled coordinate, times a cutoff.

    phi_n(r) = f_c(r) g(r) p_n(x(r)),    n = 0..N_r-1;    phi_n(r) = 0 for r >= r_c
    p_{-1} = 0,   p_0 = const,   p_{n+1} = (a_n x + b_n) p_n - c_n p_{n-1}

A family is a coordinate x(r), a prefactor g(r) and a recurrence. With s_eff and f_c of `etnpot.basis.cutoff`:

=========== =============== ============================ ==================================
family      x(r)            g(r)                         p_n(x)
=========== =============== ============================ ==================================
chebyshev   2 s_eff - 1     1                            T_n(x)
jacobi      2 s_eff - 1     1                            sqrt((2n+2q+1)/2) P_n^{(2q,0)}(x)
bessel      cos(pi r/r_c)   sqrt(2/r_c) sin(pi r/r_c)/r  U_n(x)
=========== =============== ============================ ==================================

so that the Bessel functions are g p_n = sqrt(2/r_c) sin((n+1) pi r/r_c)/r.

The Jacobi family takes q, the order of the zero at r_c, from the cutoff. For the power cutoff ((1-x)/2)^p, q
= p and the phi_n are orthonormal in x on [-1, 1]. For the envelope, whose zero is triple whatever p, q = 3:
the phi_n are kept from growing towards r_c, only no longer orthonormal.

Below r_min the scaled coordinate comes to rest at x = -1 - d, where polynomials grow with n (T_n like
cosh(0.44 n) for d = 0.1): choose r_min below the distances that occur, not among them. The Bessel family does
not depend on r_min except through the power cutoff, and is smooth down to r = 0.

============= =================== ==================
symbol        here                unit
============= =================== ==================
r             ``r_p``             Å
phi_n(r)      ``phi_pn``          1 (bessel: Å^-3/2)
dphi_n/dr     ``dphi_pn``         that per Å
a_n, b_n, c_n ``recurrence[:,n]`` 1
p             ``cutoff_power``    1
============= =================== ==================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.basis.cutoff import (
    CUTOFF_FUNCTIONS,
    SATURATION_WIDTH,
    check_choice,
    check_integer,
    check_real,
    evaluate_cutoff,
    scaled_coordinate,
)
from etnpot.errors import SpecificationError

__all__ = ["COORDINATE_CODES", "CUTOFF_CODES", "RADIAL_FAMILIES", "RadialBasis"]

FloatArray = NDArray[np.float64]

#: First entry of the codes of `RadialBasis.kernel_tables`: which x(r) and g(r).
COORDINATE_CODES = MappingProxyType({"scaled": 0, "cosine": 1})

#: Second entry of the codes of `RadialBasis.kernel_tables`: which f_c(r).
CUTOFF_CODES = MappingProxyType({"power": 0, "envelope": 1})

#: The families and the coordinate of each.
RADIAL_FAMILIES = MappingProxyType({"chebyshev": "scaled", "jacobi": "scaled", "bessel": "cosine"})

#: Å; far beyond what can be computed, and near enough for the search of neighbours to end.
_LARGEST_CUTOFF = 1000.0


@dataclass(frozen=True)
class RadialBasis:
    """The radial functions phi_0 .. phi_{size-1}.

    Parameters
    ----------
    family : {"chebyshev", "jacobi", "bessel"}
        Polynomial family; see the module's table.
    size : int
        Number of functions N_r, at least 1.
    cutoff : float, Å
        Distance r_c from which on every function is exactly zero.
    r_min : float, Å
        Distance at which the scaled coordinate is zero, 0 <= r_min < cutoff.
    cutoff_function : {"power", "envelope"}
        See `etnpot.basis.cutoff`.
    cutoff_power : int
        Exponent p of the cutoff function, at least 3 ("power") or 2 ("envelope").

    Raises
    ------
    SpecificationError
        Naming the field that is out of its range.
    """

    family: str = "chebyshev"
    size: int = 8
    cutoff: float = 5.0
    r_min: float = 1.0
    cutoff_function: str = "power"
    cutoff_power: int = 3

    def __post_init__(self) -> None:
        check_choice("family", self.family, RADIAL_FAMILIES)
        check_choice("cutoff_function", self.cutoff_function, CUTOFF_FUNCTIONS)
        # plain Python numbers whatever came in, so that equality, hashing and JSON behave
        object.__setattr__(self, "size", check_integer("size", self.size, 1))
        object.__setattr__(self, "cutoff", check_real("cutoff", self.cutoff))
        object.__setattr__(self, "r_min", check_real("r_min", self.r_min))
        power = check_integer("cutoff_power", self.cutoff_power, CUTOFF_FUNCTIONS[self.cutoff_function])
        if power > 100:
            raise SpecificationError(
                f"cutoff_power must be at most 100, got {power:g}; beyond, the functions vanish"
            )
        object.__setattr__(self, "cutoff_power", power)
        if not 0.0 < self.cutoff <= _LARGEST_CUTOFF:
            raise SpecificationError(
                f"cutoff must be positive and at most {_LARGEST_CUTOFF:g} Å, got {self.cutoff:g}; a few shells of "
                "neighbours are enough, 4 to 8 Å"
            )
        if not 0.0 <= self.r_min < self.cutoff:
            raise SpecificationError(
                f"r_min must be at least 0 and below the cutoff of {self.cutoff} Å, got {self.r_min}; "
                "choose a value below the shortest distance between atoms"
            )

    @property
    def p0(self) -> float:
        """The constant polynomial p_0."""
        return math.sqrt((self._alpha + 1) / 2) if self.family == "jacobi" else 1.0

    @property
    def _alpha(self) -> int:
        """First index of the Jacobi polynomials: twice the order of the cutoff's zero at r_c."""
        return 2 * (self.cutoff_power if self.cutoff_function == "power" else 3)

    @property
    def recurrence(self) -> FloatArray:
        """Coefficients of p_{n+1} = (a_n x + b_n) p_n - c_n p_{n-1}.

        Returns
        -------
        ndarray, [3, size], float64
            Rows a_n, b_n, c_n. c_0 is 0; the last column would lead to p_size and is not needed.
        """
        n = np.arange(self.size, dtype=np.float64)
        if self.family == "chebyshev":  # T_{n+1} = 2 x T_n - T_{n-1}, T_1 = x
            a_n, b_n, c_n = np.full(self.size, 2.0), np.zeros(self.size), np.ones(self.size)
            a_n[0] = 1.0
        elif self.family == "bessel":  # U_{n+1} = 2 x U_n - U_{n-1}, U_1 = 2 x
            a_n, b_n, c_n = np.full(self.size, 2.0), np.zeros(self.size), np.ones(self.size)
        else:  # P_n^{(alpha, 0)}, each scaled by sqrt((2 n + alpha + 1) / 2)
            alpha = float(self._alpha)
            common = 2.0 * (n + 1.0) * (n + 1.0 + alpha)
            up_n = np.sqrt((2.0 * n + alpha + 3.0) / (2.0 * n + alpha + 1.0))
            up_two_n = np.sqrt((2.0 * n + alpha + 3.0) / (2.0 * n + alpha - 1.0))
            a_n = up_n * (2.0 * n + alpha + 1.0) * (2.0 * n + alpha + 2.0) / common
            b_n = up_n * (2.0 * n + alpha + 1.0) * alpha**2 / (common * (2.0 * n + alpha))
            c_n = up_two_n * 2.0 * n * (n + alpha) * (2.0 * n + alpha + 2.0) / (common * (2.0 * n + alpha))
        c_n[0] = 0.0
        return np.stack([a_n, b_n, c_n])

    def kernel_tables(self) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """Everything a kernel needs to evaluate this basis through the recurrence.

        Returns
        -------
        codes : ndarray, [2], int64
            Coordinate (0: x = 2 s_eff - 1, g = 1; 1: x = cos(pi r/r_c), g = sqrt(2/r_c) sin(pi r/r_c)/r) and
            cutoff function (0: power; 1: envelope).
        constants : ndarray, [8], float64
            r_min (Å), cutoff (Å), saturation width d, p_0, cutoff power, 0, 0, 0.
        recurrence : ndarray, [3, size], float64
            The property `recurrence`.

        Notes
        -----
        g'(r) = sqrt(2/r_c) (k r cos k r - sin k r)/r² with k = pi/r_c cancels for small r: take its series,
        -sqrt(2/r_c) k³ r/3 (1 - (k r)²/10 + (k r)⁴/280 - ...), when k r is small.
        """
        coordinate = COORDINATE_CODES[RADIAL_FAMILIES[self.family]]
        codes = np.array([coordinate, CUTOFF_CODES[self.cutoff_function]], dtype=np.int64)
        constants = np.zeros(8)
        constants[:5] = self.r_min, self.cutoff, SATURATION_WIDTH, self.p0, self.cutoff_power
        return codes, constants, self.recurrence

    def evaluate(self, r_p: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The radial functions and their derivatives, without the recurrence.

        Chebyshev polynomials are summed by Clenshaw's algorithm and differentiated as series, Jacobi
        polynomials come from scipy, and the Bessel family from the spherical Bessel functions j_0 and j_1.
        Cost: O(pairs size), except O(pairs size²) for Chebyshev.

        Parameters
        ----------
        r_p : array_like, [pair], float64, Å
            Distances, not negative. NaN gives NaN; infinity gives zero.

        Returns
        -------
        phi_pn : ndarray, [pair, size], float64
            phi_n(r); exactly 0 for r >= cutoff.
        dphi_pn : ndarray, [pair, size], float64, 1/Å
            dphi_n/dr; exactly 0 for r >= cutoff.
        """
        r_p = np.asarray(r_p, dtype=np.float64)
        inside_p = np.minimum(r_p, self.cutoff)
        if self.family == "bessel":
            h_pn, dh_pn = self._spherical_bessel(inside_p)
        else:
            s_p, ds_dr_p = scaled_coordinate(inside_p, r_min=self.r_min, cutoff=self.cutoff)
            polynomials = self._chebyshev if self.family == "chebyshev" else self._jacobi
            h_pn, dh_dx_pn = polynomials(2.0 * s_p - 1.0)
            dh_pn = dh_dx_pn * (2.0 * ds_dr_p)[..., None]
        f_p, df_dr_p = evaluate_cutoff(
            self.cutoff_function, r_p, r_min=self.r_min, cutoff=self.cutoff, power=self.cutoff_power
        )
        phi_pn = f_p[..., None] * h_pn
        dphi_pn = df_dr_p[..., None] * h_pn + f_p[..., None] * dh_pn
        return phi_pn, dphi_pn

    def _chebyshev(self, x_p: FloatArray) -> tuple[FloatArray, FloatArray]:
        """T_n(x) and dT_n/dx, each [pair, size]."""
        from numpy.polynomial import chebyshev

        unit_nn = np.eye(self.size)  # column n: the series that is T_n alone
        p_np = chebyshev.chebval(x_p, unit_nn)
        dp_np = chebyshev.chebval(x_p, chebyshev.chebder(unit_nn, axis=0))
        return np.moveaxis(np.asarray(p_np), 0, -1), np.moveaxis(np.asarray(dp_np), 0, -1)

    def _jacobi(self, x_p: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Scaled P_n^{(alpha, 0)}(x), alpha = 2 q, and its derivative, each [pair, size].

        Through P_n^{(alpha, 0)}(x) = (-1)^n P_n^{(0, alpha)}(-x): scipy sums outwards from the argument 1,
        and here the large values lie at x = 1, so that the other way round would cancel.
        """
        from scipy.special import eval_jacobi

        alpha = self._alpha
        n = np.arange(self.size)
        scale_n = (-1.0) ** n * np.sqrt((2 * n + alpha + 1) / 2)
        y_p = -x_p[..., None]
        p_pn = scale_n * eval_jacobi(n, 0, alpha, y_p)
        slope_pn = (n + alpha + 1) / 2 * eval_jacobi(np.maximum(n - 1, 0), 1, alpha + 1, y_p)
        return p_pn, np.where(n == 0, 0.0, -scale_n * slope_pn)

    def _spherical_bessel(self, r_p: FloatArray) -> tuple[FloatArray, FloatArray]:
        """sqrt(2/r_c) sin(k_n r)/r and its derivative, k_n = (n+1) pi/r_c, each [pair, size].

        sin(k r)/r = k j_0(k r) and its derivative is -k² j_1(k r): finite at r = 0 without a special case.
        """
        from scipy.special import spherical_jn

        k_n = np.arange(1, self.size + 1) * (math.pi / self.cutoff)
        argument_pn = r_p[..., None] * k_n
        argument_pn = np.where(
            argument_pn < 1e-100, 0.0, argument_pn
        )  # scipy's j_1 of a subnormal number is NaN
        scale = math.sqrt(2.0 / self.cutoff)
        return scale * k_n * spherical_jn(0, argument_pn), -scale * k_n**2 * spherical_jn(1, argument_pn)
