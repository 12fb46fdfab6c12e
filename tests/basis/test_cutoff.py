"""The scaled coordinate and the cutoff functions: values, derivatives, smoothness at the joints."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etnpot.basis.cutoff import (
    CUTOFF_FUNCTIONS,
    SATURATION_WIDTH,
    check_integer,
    check_real,
    evaluate_cutoff,
    polynomial_envelope,
    power_cutoff,
    scaled_coordinate,
)
from etnpot.errors import SpecificationError

FloatArray = NDArray[np.float64]
Function = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

R_MIN, CUTOFF = 1.3, 4.7
FUNCTIONS = [("power", 3), ("power", 4), ("power", 7), ("envelope", 2), ("envelope", 5), ("envelope", 6)]


def is_second_derivative_continuous(function: Function, at: float) -> bool:
    """Whether the difference of the one-sided second derivatives at `at` goes to zero with the distance h."""
    jumps = []
    for h in (2e-3, 1e-3, 1e-5):
        _, slope = function(np.array([at - h, at, at + h]))
        jumps.append(np.abs((slope[2] - slope[1]) / h - (slope[1] - slope[0]) / h).max())
    return bool(jumps[-1] < 0.05 * max(jumps) + 1e-9)


def convergence_order(function: Function, r_p: FloatArray, steps: tuple[float, ...]) -> float:
    """Least order, over successive steps, at which central differences approach the derivative."""
    _, slope = function(r_p)
    errors = [np.abs((function(r_p + h)[0] - function(r_p - h)[0]) / (2 * h) - slope).max() for h in steps]
    orders = np.diff(np.log(errors)) / np.diff(np.log(steps))
    return float(orders.min())


def test_scaled_coordinate_is_linear_above_r_min() -> None:
    r_p = np.linspace(R_MIN, CUTOFF, 50)
    s_p, ds_dr_p = scaled_coordinate(r_p, r_min=R_MIN, cutoff=CUTOFF)
    np.testing.assert_allclose(s_p, (r_p - R_MIN) / (CUTOFF - R_MIN), rtol=1e-15, atol=0)
    np.testing.assert_allclose(ds_dr_p, 1 / (CUTOFF - R_MIN), rtol=1e-15)
    assert s_p[0] == 0.0
    assert s_p[-1] == 1.0


def test_scaled_coordinate_rests_below_the_layer() -> None:
    r_p = np.array([0.0, 0.3, R_MIN - SATURATION_WIDTH * (CUTOFF - R_MIN)])
    s_p, ds_dr_p = scaled_coordinate(r_p, r_min=R_MIN, cutoff=CUTOFF)
    np.testing.assert_allclose(s_p, -SATURATION_WIDTH / 2, rtol=1e-13)
    np.testing.assert_allclose(ds_dr_p, 0.0, atol=1e-12)


def test_scaled_coordinate_follows_its_formula_within_the_layer() -> None:
    u_p = np.linspace(0.01, 0.99, 30)
    r_p = R_MIN - u_p * SATURATION_WIDTH * (CUTOFF - R_MIN)
    s_p, _ = scaled_coordinate(r_p, r_min=R_MIN, cutoff=CUTOFF)
    expected_p = -SATURATION_WIDTH * (u_p - 2.5 * u_p**4 + 3 * u_p**5 - u_p**6)
    np.testing.assert_allclose(s_p, expected_p, rtol=1e-12)
    assert np.all(np.diff(s_p) < 0)


@pytest.mark.parametrize("u", [0.0, 1.0])
def test_scaled_coordinate_has_three_continuous_derivatives(u: float) -> None:
    joint = R_MIN - u * SATURATION_WIDTH * (CUTOFF - R_MIN)
    third = []
    for h in (1e-2, 1e-3):
        _, slope = scaled_coordinate(np.array([joint - h, joint, joint + h]), r_min=R_MIN, cutoff=CUTOFF)
        third.append(abs(slope[0] - 2 * slope[1] + slope[2]) / h**2)
    assert third[1] < 0.15 * third[0]  # vanishes like h; half its jump would stay


@pytest.mark.parametrize(("name", "power"), FUNCTIONS)
def test_cutoff_is_exactly_zero_from_the_cutoff_on(name: str, power: int) -> None:
    r_p = np.array([CUTOFF, np.nextafter(CUTOFF, np.inf), 1.5 * CUTOFF, 1e300, np.inf])
    f_p, df_dr_p = evaluate_cutoff(name, r_p, r_min=R_MIN, cutoff=CUTOFF, power=power)
    assert np.all(f_p == 0.0)
    assert np.all(df_dr_p == 0.0)


@pytest.mark.parametrize(("name", "power"), FUNCTIONS)
def test_cutoff_descends_and_shows_nan(name: str, power: int) -> None:
    f_p, df_dr_p = evaluate_cutoff(name, np.linspace(0, CUTOFF, 200), r_min=R_MIN, cutoff=CUTOFF, power=power)
    assert np.all(np.diff(f_p) <= 0)
    assert np.all(df_dr_p <= 0)
    f_p, df_dr_p = evaluate_cutoff(name, np.array([np.nan]), r_min=R_MIN, cutoff=CUTOFF, power=power)
    assert np.isnan(f_p).all()
    assert np.isnan(df_dr_p).all()


@pytest.mark.parametrize(("name", "power"), FUNCTIONS)
def test_cutoff_derivative_converges_at_second_order(name: str, power: int) -> None:
    def function(r_p: FloatArray) -> tuple[FloatArray, FloatArray]:
        return evaluate_cutoff(name, r_p, r_min=R_MIN, cutoff=CUTOFF, power=power)

    r_p = np.concatenate([np.linspace(0.1, CUTOFF, 40), [R_MIN, CUTOFF - 0.05]])
    order = convergence_order(function, r_p, (8e-3, 4e-3, 2e-3, 1e-3))
    assert 1.9 < order < 2.1


@pytest.mark.parametrize(("name", "power"), FUNCTIONS)
def test_two_continuous_derivatives_at_the_cutoff_and_at_r_min(name: str, power: int) -> None:
    def function(r_p: FloatArray) -> tuple[FloatArray, FloatArray]:
        return evaluate_cutoff(name, r_p, r_min=R_MIN, cutoff=CUTOFF, power=power)

    for at in (CUTOFF, R_MIN, R_MIN - SATURATION_WIDTH * (CUTOFF - R_MIN)):
        assert is_second_derivative_continuous(function, at), at


def test_the_continuity_check_notices_a_cutoff_that_is_not_smooth_enough() -> None:
    def function(r_p: FloatArray) -> tuple[FloatArray, FloatArray]:
        return power_cutoff(r_p, r_min=R_MIN, cutoff=CUTOFF, power=2)  # only one continuous derivative

    assert not is_second_derivative_continuous(function, CUTOFF)


def test_power_cutoff_against_its_formula() -> None:
    r_p = np.linspace(R_MIN, CUTOFF, 33)
    f_p, _ = power_cutoff(r_p, r_min=R_MIN, cutoff=CUTOFF, power=5)
    np.testing.assert_allclose(f_p, ((CUTOFF - r_p) / (CUTOFF - R_MIN)) ** 5, rtol=1e-12, atol=1e-300)
    f_p, _ = power_cutoff(np.zeros(1), r_min=R_MIN, cutoff=CUTOFF, power=5)
    np.testing.assert_allclose(f_p, (1 + SATURATION_WIDTH / 2) ** 5, rtol=1e-14)


@pytest.mark.parametrize("power", [2, 3, 5, 6, 12])
def test_envelope_against_its_expanded_form_in_exact_arithmetic(power: int) -> None:
    p = power
    t = [Fraction(k, 64) for k in range(65)]
    expected_p = [
        float(
            1
            - Fraction((p + 1) * (p + 2), 2) * x**p
            + p * (p + 2) * x ** (p + 1)
            - Fraction(p * (p + 1), 2) * x ** (p + 2)
        )
        for x in t
    ]
    f_p, _ = polynomial_envelope(CUTOFF * np.array([float(x) for x in t]), cutoff=CUTOFF, power=power)
    np.testing.assert_allclose(f_p, expected_p, rtol=1e-12, atol=0)


def test_unknown_cutoff_function_lists_the_known() -> None:
    with pytest.raises(SpecificationError, match="cutoff_function must be one of 'power', 'envelope'"):
        evaluate_cutoff("cosine", np.ones(1), r_min=R_MIN, cutoff=CUTOFF, power=3)
    assert set(CUTOFF_FUNCTIONS) == {"power", "envelope"}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    r=st.floats(0.0, 20.0),
    r_min=st.floats(0.0, 3.0),
    width=st.floats(0.5, 8.0),
    kind=st.sampled_from(FUNCTIONS),
)
def test_cutoff_is_bounded_everywhere(r: float, r_min: float, width: float, kind: tuple[str, int]) -> None:
    name, power = kind
    f_p, df_dr_p = evaluate_cutoff(name, np.array([r]), r_min=r_min, cutoff=r_min + width, power=power)
    assert 0.0 <= f_p[0] <= (1 + SATURATION_WIDTH / 2) ** power * (1 + 1e-14)
    assert np.isfinite(df_dr_p[0])


@pytest.mark.parametrize("value", [1.0, "3", None, True, np.float64(3)])
def test_integers_are_asked_for(value: object) -> None:
    with pytest.raises(SpecificationError, match="size must be an integer"):
        check_integer("size", value, 1)


@pytest.mark.parametrize("value", ["3", None, True, 1j, float("nan"), float("inf"), 10**400, np.ones(2)])
def test_finite_numbers_are_asked_for(value: object) -> None:
    with pytest.raises(SpecificationError, match="cutoff must be a finite number"):
        check_real("cutoff", value)


def test_numpy_scalars_become_plain_numbers() -> None:
    assert type(check_integer("size", np.int32(4), 1)) is int
    assert type(check_real("cutoff", np.float32(4.5))) is float
