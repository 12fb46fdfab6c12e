"""The harmonics against scipy's, at ordinary and at special points, and their gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import sph_harm_y

from etnpot.basis.angular import recurrence_constants, solid_harmonics, spherical_harmonics
from etnpot.conventions import harmonic_index, n_harmonics
from etnpot.errors import SpecificationError

FloatArray = NDArray[np.float64]

L_MAX = 12
AXES = np.concatenate([np.eye(3), -np.eye(3)])
NEAR_POLE = np.array([[1e-9, 0, 1.0], [0, -1e-160, 1.0], [1e-300, 1e-300, -1.0], [1e-6, 2e-6, -3.0]])
DIAGONALS = np.array(list(itertools.product([1.0, -1.0, 0.0], repeat=3)))[:-1]


def scipy_harmonics(r_pc: FloatArray, l_max: int) -> FloatArray:
    """Real harmonics made of scipy's complex ones; (-1)^m takes back their Condon-Shortley sign."""
    theta_p = np.arctan2(np.hypot(r_pc[:, 0], r_pc[:, 1]), r_pc[:, 2])
    phi_p = np.arctan2(r_pc[:, 1], r_pc[:, 0])
    Y_pm = np.empty((len(r_pc), n_harmonics(l_max)))
    for l in range(l_max + 1):  # noqa: E741
        for m in range(l + 1):
            complex_p = (-1.0) ** m * sph_harm_y(l, m, theta_p, phi_p)
            factor = math.sqrt(2) if m else 1.0
            Y_pm[:, harmonic_index(l, -m)] = factor * complex_p.imag
            Y_pm[:, harmonic_index(l, m)] = factor * complex_p.real
    return Y_pm


def degrees(l_max: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(l_max + 1), 2 * np.arange(l_max + 1) + 1)


@pytest.mark.parametrize("l_max", [0, 1, 2, 6, L_MAX])
def test_spherical_harmonics_equal_scipy(l_max: int, rng: np.random.Generator) -> None:
    r_pc = np.concatenate([rng.normal(size=(40, 3)) * 3, AXES, 2.5 * AXES, NEAR_POLE, DIAGONALS])
    Y_pm, _ = spherical_harmonics(r_pc, l_max)
    np.testing.assert_allclose(Y_pm, scipy_harmonics(r_pc, l_max), rtol=0, atol=2e-13)


def test_solid_harmonics_are_spherical_ones_times_powers(rng: np.random.Generator) -> None:
    r_pc = rng.normal(size=(30, 3))
    S_pm, _ = solid_harmonics(r_pc, L_MAX)
    r_p = np.linalg.norm(r_pc, axis=1)
    expected = r_p[:, None] ** degrees(L_MAX) * scipy_harmonics(r_pc, L_MAX)
    np.testing.assert_allclose(S_pm, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_first_harmonics_by_hand() -> None:
    x, y, z = 0.3, -0.7, 1.1
    S_m = solid_harmonics(np.array([[x, y, z]]), 2)[0][0]
    first = math.sqrt(3 / (4 * math.pi))
    second = math.sqrt(15 / (4 * math.pi))
    expected = [
        math.sqrt(1 / (4 * math.pi)),
        *(first * y, first * z, first * x),
        *(second * x * y, second * y * z),
        math.sqrt(5 / (16 * math.pi)) * (2 * z * z - x * x - y * y),
        *(second * x * z, second / 2 * (x * x - y * y)),
    ]
    np.testing.assert_allclose(S_m, expected, rtol=1e-14)


def test_orthonormal_on_the_sphere() -> None:
    l_max = 6
    cos_t, weight_t = np.polynomial.legendre.leggauss(l_max + 1)
    phi_f = 2 * np.pi * np.arange(2 * l_max + 1) / (2 * l_max + 1)
    cos_p, phi_p = (grid.ravel() for grid in np.meshgrid(cos_t, phi_f, indexing="ij"))
    weight_p = np.repeat(weight_t, len(phi_f)) * 2 * np.pi / len(phi_f)
    sin_p = np.sqrt(1 - cos_p**2)
    Y_pm, _ = spherical_harmonics(np.stack([sin_p * np.cos(phi_p), sin_p * np.sin(phi_p), cos_p], 1), l_max)
    np.testing.assert_allclose(
        np.einsum("p,pm,pn->mn", weight_p, Y_pm, Y_pm), np.eye(n_harmonics(l_max)), atol=1e-13
    )


def test_normalisations_and_documented_recurrence_give_the_harmonics(rng: np.random.Generator) -> None:
    """S_lm = F_lm Q_l^|m| {c_m or s_m} with the gradient by the product rule, as a kernel would do it."""
    l_max = 7
    F_m = recurrence_constants(l_max)
    for x, y, z in rng.normal(size=(5, 3)):
        r2 = x * x + y * y + z * z
        Q = np.zeros((l_max + 2, l_max + 3))
        for m in range(l_max + 1):
            Q[m, m] = math.prod(range(1, 2 * m, 2))
            Q[m + 1, m] = (2 * m + 1) * z * Q[m, m]
            for l in range(m + 2, l_max + 1):  # noqa: E741
                Q[l, m] = ((2 * l - 1) * z * Q[l - 1, m] - (l + m - 1) * r2 * Q[l - 2, m]) / (l - m)
        power = [complex(x, y) ** m for m in range(l_max + 1)]
        S_pm, dS_pmc = solid_harmonics(np.array([[x, y, z]]), l_max)
        for l in range(l_max + 1):  # noqa: E741
            for m in range(-l, l + 1):
                k = abs(m)
                c, s = power[k].real, power[k].imag
                c1, s1 = (power[k - 1].real, power[k - 1].imag) if k else (0.0, 0.0)
                Qx = -Q[l - 1, k + 1] if l else 0.0  # times x or y
                Qz = (l + k) * Q[l - 1, k] if l > k else 0.0
                if m >= 0:
                    value, gradient = (
                        Q[l, k] * c,
                        [x * Qx * c + Q[l, k] * k * c1, y * Qx * c - Q[l, k] * k * s1, Qz * c],
                    )
                else:
                    value, gradient = (
                        Q[l, k] * s,
                        [x * Qx * s + Q[l, k] * k * s1, y * Qx * s + Q[l, k] * k * c1, Qz * s],
                    )
                at = harmonic_index(l, m)
                np.testing.assert_allclose(S_pm[0, at], F_m[at] * value, rtol=1e-11, atol=1e-11)
                np.testing.assert_allclose(
                    dS_pmc[0, at], F_m[at] * np.array(gradient), rtol=1e-11, atol=1e-10
                )


@pytest.mark.parametrize("function", [solid_harmonics, spherical_harmonics])
def test_gradients_converge_at_second_order(function, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    r_pc = np.concatenate([rng.normal(size=(12, 3)), AXES, [[1e-9, 0.0, 1.2], [0.02, -0.01, -0.9]]])
    r_pc[:12] *= (rng.uniform(0.8, 1.3, size=12) / np.linalg.norm(r_pc[:12], axis=1))[:, None]
    _, gradient = function(r_pc, L_MAX)
    steps = np.array([4e-3, 2e-3, 1e-3])
    per_degree = []
    for h in steps:
        difference = np.empty_like(gradient)
        for c in range(3):
            shift_c = h * np.eye(3)[c]
            difference[:, :, c] = (
                function(r_pc + shift_c, L_MAX)[0] - function(r_pc - shift_c, L_MAX)[0]
            ) / (2 * h)
        error_m = np.abs(difference - gradient).max(axis=(0, 2))
        per_degree.append(np.maximum.reduceat(error_m, np.arange(L_MAX + 1) ** 2))
    error_hl = np.array(per_degree)
    lowest = 3 if function is solid_harmonics else 1  # central differences are exact up to degree 2
    assert np.all(error_hl[:, :lowest] < 1e-11)
    order_hl = np.diff(np.log(error_hl[:, lowest:]), axis=0) / np.diff(np.log(steps))[:, None]
    assert np.all((order_hl > 1.9) & (order_hl < 2.1)), order_hl
    assert np.all(error_hl[-1] < 1e-3 * np.abs(gradient).max())


def test_gradient_obeys_euler_and_laplace(rng: np.random.Generator) -> None:
    """r.grad S = l S for solid harmonics; r.grad Y = 0 for spherical ones."""
    r_pc = rng.normal(size=(20, 3))
    S_pm, dS_pmc = solid_harmonics(r_pc, L_MAX)
    radial_pm = np.einsum("pc,pmc->pm", r_pc, dS_pmc)
    np.testing.assert_allclose(radial_pm, degrees(L_MAX) * S_pm, rtol=0, atol=1e-12 * np.abs(radial_pm).max())
    _, dY_pmc = spherical_harmonics(r_pc, L_MAX)
    np.testing.assert_allclose(np.einsum("pc,pmc->pm", r_pc, dY_pmc), 0.0, atol=1e-12)
    # sum over m of |dY_lm|² = (2l+1) l (l+1) / (4 pi r²)
    squares_pm = np.sum(dY_pmc**2, axis=2) * np.sum(r_pc**2, axis=1)[:, None]
    for l in range(L_MAX + 1):  # noqa: E741
        total_p = squares_pm[:, l * l : (l + 1) ** 2].sum(axis=1)
        np.testing.assert_allclose(total_p, (2 * l + 1) * l * (l + 1) / (4 * np.pi), rtol=1e-11)


def test_solid_harmonics_at_zero_are_polynomials_there() -> None:
    S_pm, dS_pmc = solid_harmonics(np.zeros((1, 3)), L_MAX)
    assert S_pm[0, 0] == recurrence_constants(0)[0]
    assert np.all(S_pm[0, 1:] == 0.0)
    first = math.sqrt(3 / (4 * math.pi))
    expected = np.zeros((n_harmonics(L_MAX), 3))
    expected[1, 1] = expected[2, 2] = expected[3, 0] = first
    np.testing.assert_allclose(dS_pmc[0], expected, rtol=1e-15)


def test_spherical_harmonics_at_zero_keep_only_the_constant() -> None:
    Y_pm, dY_pmc = spherical_harmonics(np.zeros((2, 3)), 4)
    np.testing.assert_allclose(Y_pm[:, 0], 1 / math.sqrt(4 * math.pi), rtol=1e-15)
    assert np.all(Y_pm[:, 1:] == 0.0)
    assert np.all(dY_pmc == 0.0)


@pytest.mark.parametrize("length", [1e-200, 1e-12, 1e-3, 1e3, 1e200])
def test_spherical_harmonics_depend_on_the_direction_only(length: float, rng: np.random.Generator) -> None:
    e_pc = np.concatenate([rng.normal(size=(6, 3)), AXES])
    e_pc /= np.linalg.norm(e_pc, axis=1)[:, None]
    unit_pm, dunit_pmc = spherical_harmonics(e_pc, 6)
    Y_pm, dY_pmc = spherical_harmonics(length * e_pc, 6)
    np.testing.assert_allclose(Y_pm, unit_pm, rtol=0, atol=1e-14)
    np.testing.assert_allclose(dY_pmc * length, dunit_pmc, rtol=0, atol=1e-13)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(vector=st.tuples(*[st.floats(-50.0, 50.0, allow_subnormal=False)] * 3), l_max=st.integers(0, 8))
def test_parity_and_addition_theorem(vector: tuple[float, float, float], l_max: int) -> None:
    r_pc = np.array([vector, tuple(-v for v in vector)])
    Y_pm, _ = spherical_harmonics(r_pc, l_max)
    sign_m = (-1.0) ** degrees(l_max)
    np.testing.assert_allclose(Y_pm[1], sign_m * Y_pm[0], rtol=0, atol=1e-14)
    if any(vector):
        for l in range(l_max + 1):  # noqa: E741
            total = np.sum(Y_pm[0, l * l : (l + 1) ** 2] ** 2)
            np.testing.assert_allclose(total, (2 * l + 1) / (4 * np.pi), rtol=1e-12)


def test_no_vectors_and_degree_zero() -> None:
    for function in (solid_harmonics, spherical_harmonics):
        value, gradient = function(np.zeros((0, 3)), 3)
        assert value.shape == (0, 16)
        assert gradient.shape == (0, 16, 3)
        value, gradient = function(np.ones((2, 3)), 0)
        np.testing.assert_allclose(value, 1 / math.sqrt(4 * math.pi))
        assert np.all(gradient == 0.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(SpecificationError, match=r"r_pc must have the shape \[pair, 3\].*got \[3\]"):
        solid_harmonics(np.ones(3), 2)
    with pytest.raises(SpecificationError, match="l_max must be at least 0, got -1"):
        spherical_harmonics(np.ones((1, 3)), -1)
    with pytest.raises(SpecificationError, match="l_max must be an integer"):
        recurrence_constants(2.0)  # type: ignore[arg-type]


def test_nan_is_not_hidden() -> None:
    Y_pm, dY_pmc = spherical_harmonics(np.array([[np.nan, 0.0, 1.0]]), 2)
    assert np.all(np.isnan(Y_pm[0, 1:]))
    assert np.all(np.isnan(dY_pmc[0, 1:]).any(axis=1))
