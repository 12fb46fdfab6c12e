"""The scaled distance and the cutoff functions f_c(r).

Scaled coordinate, saturating below r_min so that a model stays finite and smooth at any distance:

    s = (r - r_min) / (r_c - r_min)
    s_eff = s                                       0 <= s
          = -d (u - 5/2 u⁴ + 3 u⁵ - u⁶),  u = -s/d   -d < s < 0
          = -d/2                                    s <= -d

s_eff has three continuous derivatives: ds_eff/ds = 1 - (10 u³ - 15 u⁴ + 6 u⁵) descends from 1 to 0, and the
second and third derivatives vanish at both joints.

Cutoff functions, exactly zero from r_c on and with (at least) two continuous derivatives there:

    "power"     f_c = (1 - s_eff)^p,                                              p >= 3
    "envelope"  f_c = 1 - (p+1)(p+2)/2 t^p + p(p+2) t^(p+1) - p(p+1)/2 t^(p+2),   p >= 2,  t = r/r_c
                    = (1 - t)³ sum_{k<p} (k+1)(k+2)/2 t^k
                df_c/dt = -p(p+1)(p+2)/2 t^(p-1) (1 - t)²

The second form of the envelope is the one evaluated: the expanded one cancels near r_c. It also shows that
the zero at r_c is triple whatever p, which only sets how flat the envelope is at r = 0.

========== ==================== =====
symbol     here                 unit
========== ==================== =====
r          ``r_p``              Å
r_c        ``cutoff``           Å
r_min      ``r_min``            Å
d          `SATURATION_WIDTH`   1
s_eff      ``s_p``              1
p          ``power``            1
========== ==================== =====
"""

from __future__ import annotations

import math
import operator
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.errors import SpecificationError

__all__ = [
    "CUTOFF_FUNCTIONS",
    "SATURATION_WIDTH",
    "check_choice",
    "check_integer",
    "check_real",
    "evaluate_cutoff",
    "polynomial_envelope",
    "power_cutoff",
    "scaled_coordinate",
]

FloatArray = NDArray[np.float64]

#: Width d, in the scaled coordinate, of the layer below r_min in which the coordinate comes to rest.
SATURATION_WIDTH = 0.1

#: Cutoff functions and the smallest power of each that leaves two continuous derivatives everywhere.
CUTOFF_FUNCTIONS = MappingProxyType({"power": 3, "envelope": 2})


def check_integer(field: str, value: Any, minimum: int) -> int:
    """`value` as a plain int, or a `SpecificationError` that names `field`."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise SpecificationError(f"{field} must be an integer of at least {minimum}, got {value!r}") from None
    if number < minimum:
        raise SpecificationError(f"{field} must be at least {minimum}, got {number}")
    return number


def check_real(field: str, value: Any) -> float:
    """`value` as a plain finite float, or a `SpecificationError` that names `field`."""
    try:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
            raise TypeError
        number = float(value)
    except (TypeError, OverflowError):
        raise SpecificationError(f"{field} must be a finite number, got {value!r}") from None
    if not math.isfinite(number):
        raise SpecificationError(f"{field} must be a finite number, got {value!r}")
    return number


def check_choice(field: str, value: Any, choices: Any) -> str:
    """`value` when it is one of the strings `choices`, or a `SpecificationError` that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise SpecificationError(f"{field} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def scaled_coordinate(r_p: ArrayLike, *, r_min: float, cutoff: float) -> tuple[FloatArray, FloatArray]:
    """The scaled distance s_eff(r), which saturates below r_min.

    Parameters
    ----------
    r_p : array_like, [pair], float64, Å
        Distances.
    r_min, cutoff : float, Å
        Where s_eff is 0 and 1.

    Returns
    -------
    s_p : ndarray, [pair], float64
        s_eff, in [-d/2, 1] up to the cutoff.
    ds_dr_p : ndarray, [pair], float64, 1/Å
        Its derivative.
    """
    r_p = np.asarray(r_p, dtype=np.float64)
    slope = 1.0 / (cutoff - r_min)
    s_p = (r_p - r_min) / (cutoff - r_min)  # not times slope: exactly 1 at the cutoff
    u_p = np.clip(-s_p / SATURATION_WIDTH, 0.0, 1.0)
    resting_p = -SATURATION_WIDTH * u_p * (1.0 - u_p**3 * (2.5 - u_p * (3.0 - u_p)))
    ds_dr_p = slope * (1.0 - u_p**3 * (10.0 - u_p * (15.0 - 6.0 * u_p)))
    return np.where(s_p < 0.0, resting_p, s_p), ds_dr_p


def power_cutoff(r_p: ArrayLike, *, r_min: float, cutoff: float, power: int) -> tuple[FloatArray, FloatArray]:
    """The cutoff (1 - s_eff)^p and its derivative.

    Parameters
    ----------
    r_p : array_like, [pair], float64, Å
        Distances.
    r_min, cutoff : float, Å
        Where the function is 1 and where it becomes 0. Below r_min it goes on to (1 + d/2)^p.
    power : int
        p; the function has p - 1 continuous derivatives at the cutoff.

    Returns
    -------
    f_p : ndarray, [pair], float64
        f_c, exactly 0 at and beyond the cutoff.
    df_dr_p : ndarray, [pair], float64, 1/Å
        Its derivative, exactly 0 there too.
    """
    r_p = np.asarray(r_p, dtype=np.float64)
    s_p, ds_dr_p = scaled_coordinate(np.minimum(r_p, cutoff), r_min=r_min, cutoff=cutoff)
    outside_p = r_p >= cutoff
    f_p = (1.0 - s_p) ** power
    df_dr_p = -power * (1.0 - s_p) ** (power - 1) * ds_dr_p
    return np.where(outside_p, 0.0, f_p), np.where(outside_p, 0.0, df_dr_p)


def polynomial_envelope(r_p: ArrayLike, *, cutoff: float, power: int) -> tuple[FloatArray, FloatArray]:
    """The polynomial envelope of exponent p and its derivative.

    Parameters
    ----------
    r_p : array_like, [pair], float64, Å
        Distances.
    cutoff : float, Å
        Where the function becomes 0, with two continuous derivatives.
    power : int
        p; near r = 0 the function is 1 - O(r^p).

    Returns
    -------
    f_p : ndarray, [pair], float64
        f_c, exactly 0 at and beyond the cutoff.
    df_dr_p : ndarray, [pair], float64, 1/Å
        Its derivative, exactly 0 there too.
    """
    r_p = np.asarray(r_p, dtype=np.float64)
    t_p = np.minimum(r_p, cutoff) / cutoff
    outside_p = r_p >= cutoff
    series_p = np.zeros_like(t_p)
    for k in reversed(range(power)):  # sum_{k<p} (k+1)(k+2)/2 t^k
        series_p = series_p * t_p + (k + 1) * (k + 2) / 2
    f_p = (1.0 - t_p) ** 3 * series_p
    df_dr_p = -power * (power + 1) * (power + 2) / 2 * t_p ** (power - 1) * (1.0 - t_p) ** 2 / cutoff
    return np.where(outside_p, 0.0, f_p), np.where(outside_p, 0.0, df_dr_p)


def evaluate_cutoff(
    name: str, r_p: ArrayLike, *, r_min: float, cutoff: float, power: int
) -> tuple[FloatArray, FloatArray]:
    """The cutoff function called `name`, one of `CUTOFF_FUNCTIONS`, and its derivative.

    Parameters and results are those of `power_cutoff`; the envelope does not use `r_min`.
    """
    check_choice("cutoff_function", name, CUTOFF_FUNCTIONS)
    if name == "power":
        return power_cutoff(r_p, r_min=r_min, cutoff=cutoff, power=power)
    return polynomial_envelope(r_p, cutoff=cutoff, power=power)
