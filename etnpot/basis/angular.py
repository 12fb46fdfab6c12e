"""Real solid and spherical harmonics with gradients, by recurrences in Cartesian coordinates.

    S_lm(r) = r^l Y_lm(r/|r|) = F_lm Q_l^|m|(z, r²) {c_|m| (m >= 0) or s_|m| (m < 0)}
    c_m + i s_m = (x + i y)^m

    Q_m^m = (2m-1)!!,   Q_{m+1}^m = (2m+1) z Q_m^m
    Q_l^m = [(2l-1) z Q_{l-1}^m - (l+m-1) r² Q_{l-2}^m] / (l-m)

    F_lm = sqrt((2l+1)/(4 pi) (l-|m|)!/(l+|m|)!) {1 (m = 0) or sqrt(2)}

The harmonics are orthonormal on the sphere and carry no Condon-Shortley sign. Being homogeneous polynomials,
they have no pole and no singularity: neither an angle nor a division by the distance from the z axis occurs.

Gradient: with the complex polynomials T_l^m = Q_l^m (x + i y)^m,

    (∂x + i ∂y) T_l^m = -T_{l-1}^{m+1}
    (∂x - i ∂y) T_l^m = (l+m)(l+m-1) T_{l-1}^{m-1},    read as -conj(T_{l-1}^1) for m = 0
             ∂z T_l^m = (l+m) T_{l-1}^m

with T_l^m = 0 for m > l: the gradient of degree l is a combination of values of degree l-1. The same follows
by the product rule from (total derivatives, r² being x² + y² + z²)

    ∂x Q_l^m = -x Q_{l-1}^{m+1},   ∂y Q_l^m = -y Q_{l-1}^{m+1},   ∂z Q_l^m = (l+m) Q_{l-1}^m
    ∂x c_m = m c_{m-1},   ∂y c_m = -m s_{m-1},   ∂x s_m = m s_{m-1},   ∂y s_m = m c_{m-1}

On the sphere, with e = r/|r| and Euler's identity e·∇S_lm(e) = l S_lm(e),

    dY_lm/dr = [∇S_lm(e) - l S_lm(e) e] / |r|

=============== ==============
symbol          here
=============== ==============
S_lm            ``S_pm``
Y_lm            ``Y_pm``
F_lm            ``F_m``
T_l^m           ``T[l][m]``
=============== ==============

The suffix m is the flat index l² + l + m.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.basis.cutoff import check_integer
from etnpot.conventions import harmonic_index, n_harmonics
from etnpot.errors import SpecificationError

__all__ = ["recurrence_constants", "solid_harmonics", "spherical_harmonics"]

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


def recurrence_constants(l_max: int) -> FloatArray:
    """The normalisations F_lm.

    Parameters
    ----------
    l_max : int
        Highest degree.

    Returns
    -------
    F_m : ndarray, [(l_max + 1)²], float64
        F_lm at index l² + l + m; equal for m and -m.
    """
    l_max = check_integer("l_max", l_max, 0)
    F_m = np.empty(n_harmonics(l_max))
    for l in range(l_max + 1):  # noqa: E741
        for m in range(l + 1):
            ratio = (2 * l + 1) * math.factorial(l - m) / math.factorial(l + m)
            F = math.sqrt(ratio / (4.0 * math.pi) * (2.0 if m else 1.0))
            F_m[harmonic_index(l, m)] = F_m[harmonic_index(l, -m)] = F
    return F_m


def _complex_polynomials(r_pc: FloatArray, l_max: int) -> list[list[ComplexArray]]:
    """T[l][m] = Q_l^m(z, r²) (x + i y)^m for 0 <= m <= l <= l_max, each [pair]."""
    w_p = r_pc[:, 0] + 1j * r_pc[:, 1]
    z_p = r_pc[:, 2]
    r2_p = np.sum(r_pc * r_pc, axis=1)
    T: list[list[ComplexArray]] = [[np.ones(len(r_pc), dtype=np.complex128)]]
    for l in range(1, l_max + 1):  # noqa: E741
        row = []
        for m in range(l - 1):
            row.append(((2 * l - 1) * z_p * T[l - 1][m] - (l + m - 1) * r2_p * T[l - 2][m]) / (l - m))
        row.append((2 * l - 1) * z_p * T[l - 1][l - 1])
        row.append((2 * l - 1) * w_p * T[l - 1][l - 1])
        T.append(row)
    return T


def _check_vectors(r_pc: ArrayLike) -> FloatArray:
    r_pc = np.asarray(r_pc, dtype=np.float64)
    if r_pc.ndim != 2 or r_pc.shape[1] != 3:
        raise SpecificationError(
            f"r_pc must have the shape [pair, 3], one vector per row, got {list(r_pc.shape)}"
        )
    return r_pc


def solid_harmonics(r_pc: ArrayLike, l_max: int) -> tuple[FloatArray, FloatArray]:
    """The real solid harmonics r^l Y_lm and their gradients.

    Parameters
    ----------
    r_pc : array_like, [pair, 3], float64, Å
        Vectors, of any length, zero included.
    l_max : int
        Highest degree.

    Returns
    -------
    S_pm : ndarray, [pair, (l_max + 1)²], float64, Å^l
        Values.
    dS_pmc : ndarray, [pair, (l_max + 1)², 3], float64, Å^(l-1)
        Gradients.
    """
    r_pc = _check_vectors(r_pc)
    F_m = recurrence_constants(l_max)
    T = _complex_polynomials(r_pc, l_max)
    zero_p = np.zeros(len(r_pc), dtype=np.complex128)
    S_pm = np.empty((len(r_pc), len(F_m)))
    dS_pmc = np.empty((len(r_pc), len(F_m), 3))
    for l in range(l_max + 1):  # noqa: E741
        for m in range(l + 1):
            raised_p = T[l - 1][m + 1] if m + 1 < l else zero_p  # T_{l-1}^{m+1}
            if l == 0:
                lowered_p, along_p = zero_p, zero_p
            elif m == 0:
                lowered_p, along_p = -np.conj(raised_p), l * T[l - 1][0]
            else:
                lowered_p = (l + m) * (l + m - 1) * T[l - 1][m - 1]
                along_p = (l + m) * T[l - 1][m] if m < l else zero_p
            dx_p, dy_p = 0.5 * (lowered_p - raised_p), 0.5j * (lowered_p + raised_p)
            gradient_pc = np.stack([dx_p, dy_p, along_p], axis=1)
            at = harmonic_index(l, m)
            S_pm[:, at] = F_m[at] * T[l][m].real
            dS_pmc[:, at] = F_m[at] * gradient_pc.real
            if m > 0:
                at = harmonic_index(l, -m)
                S_pm[:, at] = F_m[at] * T[l][m].imag
                dS_pmc[:, at] = F_m[at] * gradient_pc.imag
    return S_pm, dS_pmc


def spherical_harmonics(r_pc: ArrayLike, l_max: int) -> tuple[FloatArray, FloatArray]:
    """The real spherical harmonics of the directions r/|r| and their gradients with respect to r.

    A vector of length zero has no direction: there Y_00 keeps its value, every other harmonic is set to zero,
    and so are all gradients.

    Parameters
    ----------
    r_pc : array_like, [pair, 3], float64, Å
        Vectors, of any length.
    l_max : int
        Highest degree.

    Returns
    -------
    Y_pm : ndarray, [pair, (l_max + 1)²], float64
        Values.
    dY_pmc : ndarray, [pair, (l_max + 1)², 3], float64, 1/Å
        Gradients; they grow like 1/|r|.
    """
    r_pc = _check_vectors(r_pc)
    l_max = check_integer("l_max", l_max, 0)
    largest_p = np.max(np.abs(r_pc), axis=1, initial=0.0)
    # scaled by the largest component, so that no square under- or overflows
    scaled_pc = r_pc / np.where(largest_p == 0.0, 1.0, largest_p)[:, None]
    length_p = np.sqrt(np.sum(scaled_pc * scaled_pc, axis=1))
    e_pc = scaled_pc / np.where(length_p == 0.0, 1.0, length_p)[:, None]
    distance_p = largest_p * length_p
    inverse_p = np.where(distance_p == 0.0, 0.0, 1.0 / np.where(distance_p == 0.0, 1.0, distance_p))

    Y_pm, dS_pmc = solid_harmonics(e_pc, l_max)
    degree_m = np.repeat(np.arange(l_max + 1), 2 * np.arange(l_max + 1) + 1)
    dY_pmc = (dS_pmc - (degree_m * Y_pm)[:, :, None] * e_pc[:, None, :]) * inverse_p[:, None, None]
    return Y_pm, dY_pmc
