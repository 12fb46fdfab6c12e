"""The radial families against closed forms, against their recurrence, and their smoothness."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etnpot.basis.cutoff import CUTOFF_FUNCTIONS, SATURATION_WIDTH, evaluate_cutoff
from etnpot.basis.radial import RADIAL_FAMILIES, RadialBasis
from etnpot.errors import SpecificationError

FloatArray = NDArray[np.float64]

BASES = [
    RadialBasis(
        family=family, size=size, cutoff=cutoff, r_min=r_min, cutoff_function=name, cutoff_power=power
    )
    for (family, (name, power)), (size, cutoff, r_min) in zip(
        itertools.product(RADIAL_FAMILIES, [("power", 3), ("power", 5), ("envelope", 2), ("envelope", 6)]),
        itertools.cycle([(8, 5.0, 1.0), (12, 6.3, 1.9), (3, 4.0, 0.0), (1, 5.5, 2.0), (2, 3.5, 0.2)]),
        strict=False,
    )
]


def distances(basis: RadialBasis) -> FloatArray:
    """Zero, the layer below r_min, the body, both joints, the cutoff and beyond."""
    layer = SATURATION_WIDTH * (basis.cutoff - basis.r_min)
    joints = [basis.r_min, max(basis.r_min - layer, 0.0), basis.cutoff]
    below = np.linspace(max(basis.r_min - 1.5 * layer, 0.0), basis.r_min, 23)
    body = np.linspace(0.0, 1.1 * basis.cutoff, 57)
    edge = basis.cutoff - np.array([1e-1, 1e-2, 1e-4, 1e-9])
    return np.concatenate([[0.0, 1e-9, 1e-4, 1e-2], joints, below, body, edge])


def from_kernel_tables(
    tables: tuple[NDArray[np.int64], FloatArray, FloatArray], r_p: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """phi_n and dphi_n/dr written out from nothing but what a kernel is given."""
    (coordinate, cutoff_kind), (r_min, cutoff, d, p0, power, *_), (a_n, b_n, c_n) = tables
    k = math.pi / cutoff
    phi, dphi = np.zeros((len(r_p), len(a_n))), np.zeros((len(r_p), len(a_n)))
    for pair, r in enumerate(r_p):
        if r >= cutoff:
            continue
        s, ds = (r - r_min) / (cutoff - r_min), 1 / (cutoff - r_min)
        if s <= -d:
            s, ds = -d / 2, 0.0
        elif s < 0:
            u = -s / d
            s, ds = -d * (u - 2.5 * u**4 + 3 * u**5 - u**6), ds * (1 - 10 * u**3 + 15 * u**4 - 6 * u**5)
        if coordinate == 0:
            x, dx, g, dg = 2 * s - 1, 2 * ds, 1.0, 0.0
        else:
            kr, scale = k * r, math.sqrt(2 / cutoff)
            x, dx = math.cos(kr), -k * math.sin(kr)
            if kr < 0.05:
                g = scale * k * (1 - kr**2 / 6 + kr**4 / 120 - kr**6 / 5040)
                dg = -scale * k**2 * kr / 3 * (1 - kr**2 / 10 + kr**4 / 280 - kr**6 / 15120)
            else:
                g, dg = scale * math.sin(kr) / r, scale * (kr * math.cos(kr) - math.sin(kr)) / r**2
        if cutoff_kind == 0:
            f, df = (1 - s) ** power, -power * (1 - s) ** (power - 1) * ds
        else:
            t, p = r / cutoff, power
            f = (1 - t) ** 3 * sum((k + 1) * (k + 2) / 2 * t**k for k in range(int(p)))
            df = -p * (p + 1) * (p + 2) / 2 * t ** (p - 1) * (1 - t) ** 2 / cutoff
        previous, dprevious, value, dvalue = 0.0, 0.0, p0, 0.0  # p_n and dp_n/dx
        for n in range(len(a_n)):
            phi[pair, n] = f * g * value
            dphi[pair, n] = (df * g + f * dg) * value + f * g * dvalue * dx
            line = a_n[n] * x + b_n[n]
            dnext = line * dvalue + a_n[n] * value - c_n[n] * dprevious
            previous, value = value, line * value - c_n[n] * previous
            dprevious, dvalue = dvalue, dnext
    return phi, dphi


def test_every_family_and_cutoff_is_covered() -> None:
    assert {basis.family for basis in BASES} == set(RADIAL_FAMILIES)
    assert {basis.cutoff_function for basis in BASES} == set(CUTOFF_FUNCTIONS)


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_closed_forms_equal_the_recurrence(basis: RadialBasis) -> None:
    r_p = distances(basis)
    phi_pn, dphi_pn = basis.evaluate(r_p)
    expected_pn, dexpected_pn = from_kernel_tables(basis.kernel_tables(), r_p)
    assert phi_pn.shape == dphi_pn.shape == (len(r_p), basis.size)
    for got, expected in ((phi_pn, expected_pn), (dphi_pn, dexpected_pn)):
        scale = np.maximum(1.0, np.abs(expected).max(axis=0))
        np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=1e-12)


def test_chebyshev_is_a_cosine_of_the_angle() -> None:
    basis = RadialBasis("chebyshev", size=9, cutoff=5.0, r_min=1.0)
    r_p = np.linspace(1.0, 5.0, 40)
    phi_pn, _ = basis.evaluate(r_p)
    theta_p = np.arccos(np.clip((r_p - 3.0) / 2.0, -1, 1))
    expected = ((5.0 - r_p) / 4.0)[:, None] ** 3 * np.cos(np.arange(9) * theta_p[:, None])
    np.testing.assert_allclose(phi_pn, expected, rtol=0, atol=1e-13)


def test_bessel_is_a_sine_over_the_distance() -> None:
    basis = RadialBasis("bessel", size=7, cutoff=4.5, cutoff_function="envelope", cutoff_power=6)
    r_p = np.linspace(0.2, 4.4, 40)
    phi_pn, _ = basis.evaluate(r_p)
    f_p, _ = evaluate_cutoff("envelope", r_p, r_min=1.0, cutoff=4.5, power=6)
    k_n = np.arange(1, 8) * np.pi / 4.5
    expected = f_p[:, None] * np.sqrt(2 / 4.5) * np.sin(k_n * r_p[:, None]) / r_p[:, None]
    np.testing.assert_allclose(phi_pn, expected, rtol=0, atol=1e-13)


def test_bessel_has_its_limit_at_zero_distance() -> None:
    basis = RadialBasis("bessel", size=5, cutoff=4.5, cutoff_function="envelope", cutoff_power=4)
    phi_pn, dphi_pn = basis.evaluate(np.zeros(1))
    np.testing.assert_allclose(phi_pn[0], math.sqrt(2 / 4.5) * np.arange(1, 6) * np.pi / 4.5, rtol=1e-14)
    assert np.all(dphi_pn == 0.0)


def test_bessel_functions_are_orthonormal_without_the_cutoff() -> None:
    cutoff = 4.0
    basis = RadialBasis(
        "bessel", size=6, cutoff=cutoff, r_min=0.0, cutoff_function="envelope", cutoff_power=4
    )
    node_p, weight_p = np.polynomial.legendre.leggauss(60)
    r_p = 0.5 * cutoff * (node_p + 1)
    phi_pn, _ = basis.evaluate(r_p)
    f_p, _ = evaluate_cutoff("envelope", r_p, r_min=0.0, cutoff=cutoff, power=4)
    bare_pn = phi_pn / f_p[:, None]
    gram = np.einsum("p,pn,pm->nm", 0.5 * cutoff * weight_p * r_p**2, bare_pn, bare_pn)
    np.testing.assert_allclose(gram, np.eye(6), atol=1e-9)


@pytest.mark.parametrize("power", [3, 4, 6])
def test_jacobi_functions_are_orthonormal_with_the_cutoff(power: int) -> None:
    basis = RadialBasis("jacobi", size=10, cutoff=5.0, r_min=1.0, cutoff_power=power)
    x_p, weight_p = np.polynomial.legendre.leggauss(30)
    phi_pn, _ = basis.evaluate(3.0 + 2.0 * x_p)
    np.testing.assert_allclose(np.einsum("p,pn,pm->nm", weight_p, phi_pn, phi_pn), np.eye(10), atol=1e-12)


@pytest.mark.parametrize("power", [2, 6, 9])
def test_jacobi_stays_bounded_under_the_envelope(power: int) -> None:
    """Taking the index from the envelope's p instead of its triple zero gave values of 1e3 near r_c."""
    basis = RadialBasis("jacobi", 12, 6.3, 1.9, "envelope", power)
    r_p = np.linspace(1.9, 6.3, 300)
    phi_pn, _ = basis.evaluate(r_p)
    assert np.abs(phi_pn).max() < 100


@pytest.mark.parametrize("power", [3, 6])
def test_jacobi_in_exact_arithmetic(power: int) -> None:
    """The sum over binomials of the Jacobi polynomial, evaluated in integers, at x = k/8."""
    basis = RadialBasis("jacobi", size=13, cutoff=5.0, r_min=1.0, cutoff_power=power)
    alpha = 2 * power
    eighths = np.arange(-8, 8)
    phi_pn, _ = basis.evaluate(3.0 + 2.0 * eighths / 8)
    for n in range(13):
        exact_p = [
            sum(
                math.comb(n + alpha, n - s) * math.comb(n, s) * (int(k) - 8) ** s * (int(k) + 8) ** (n - s)
                for s in range(n + 1)
            )
            / 16**n
            for k in eighths
        ]
        expected_p = math.sqrt((2 * n + alpha + 1) / 2) * ((8 - eighths) / 16) ** power * exact_p
        np.testing.assert_allclose(phi_pn[:, n], expected_p, rtol=0, atol=1e-12)


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_exactly_zero_from_the_cutoff_on(basis: RadialBasis) -> None:
    r_p = np.array([basis.cutoff, np.nextafter(basis.cutoff, np.inf), 3 * basis.cutoff, np.inf])
    phi_pn, dphi_pn = basis.evaluate(r_p)
    assert np.all(phi_pn == 0.0)
    assert np.all(dphi_pn == 0.0)


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_derivatives_converge_at_second_order(basis: RadialBasis) -> None:
    low = 0.05
    joint = basis.r_min - SATURATION_WIDTH * (basis.cutoff - basis.r_min)
    r_p = np.concatenate([np.linspace(low, basis.cutoff, 60), [basis.r_min, joint, basis.cutoff - 0.03]])
    r_p = r_p[r_p >= low]
    _, slope_pn = basis.evaluate(r_p)
    steps = np.array([4e-3, 2e-3, 1e-3])
    errors = []
    for h in steps:
        difference_pn = (basis.evaluate(r_p + h)[0] - basis.evaluate(r_p - h)[0]) / (2 * h)
        errors.append(np.abs(difference_pn - slope_pn).max())
    orders = np.diff(np.log(errors)) / np.diff(np.log(steps))
    assert np.all((orders > 1.9) & (orders < 2.1)), orders
    assert errors[-1] < 1e-3 * max(1.0, np.abs(slope_pn).max())


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_value_and_two_derivatives_are_continuous_at_the_joints(basis: RadialBasis) -> None:
    layer = SATURATION_WIDTH * (basis.cutoff - basis.r_min)
    for at in (basis.cutoff, basis.r_min, basis.r_min - layer):
        if at <= 1e-2:
            continue
        jumps = np.empty((3, 3))  # of the value, the first and the second derivative, at three distances
        for row, h in enumerate((2e-3, 1e-3, 1e-5)):
            phi_pn, dphi_pn = basis.evaluate(np.array([at - h, at, at + h]))
            jumps[row, 0] = np.abs(phi_pn[2] - phi_pn[0]).max()
            jumps[row, 1] = np.abs(dphi_pn[2] - dphi_pn[0]).max()
            jumps[row, 2] = np.abs((dphi_pn[2] - dphi_pn[1]) / h - (dphi_pn[1] - dphi_pn[0]) / h).max()
        scale = max(1.0, np.abs(dphi_pn).max())
        assert np.all(jumps[-1] < 0.05 * jumps.max(axis=0) + 1e-9 * scale), (at, jumps)


@pytest.mark.parametrize("family", RADIAL_FAMILIES)
def test_finite_at_any_distance(family: str) -> None:
    basis = RadialBasis(family, size=8)
    phi_pn, dphi_pn = basis.evaluate(np.array([0.0, 5e-324, 1e-300, 1e-12, 0.1, 1e308]))
    assert np.all(np.isfinite(phi_pn))
    assert np.all(np.isfinite(dphi_pn))
    if RADIAL_FAMILIES[family] == "scaled":
        assert np.all(phi_pn[0] == phi_pn[4])  # at rest well below r_min
        assert np.all(dphi_pn[:5] == 0.0)
    phi_pn, dphi_pn = basis.evaluate(np.array([np.nan]))
    assert np.all(np.isnan(phi_pn))


@pytest.mark.parametrize("family", RADIAL_FAMILIES)
def test_no_pairs(family: str) -> None:
    phi_pn, dphi_pn = RadialBasis(family, size=4).evaluate(np.zeros(0))
    assert phi_pn.shape == dphi_pn.shape == (0, 4)


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_kernel_tables_have_their_documented_form(basis: RadialBasis) -> None:
    codes, constants, recurrence = basis.kernel_tables()
    assert codes.dtype == np.int64
    assert list(codes) == [int(basis.family == "bessel"), int(basis.cutoff_function == "envelope")]
    assert constants.dtype == np.float64
    np.testing.assert_array_equal(
        constants,
        [basis.r_min, basis.cutoff, SATURATION_WIDTH, basis.p0, basis.cutoff_power, 0, 0, 0],
    )
    assert recurrence.shape == (3, basis.size)
    assert recurrence.dtype == np.float64
    assert recurrence.flags.c_contiguous
    assert np.all(np.isfinite(recurrence))
    assert recurrence[2, 0] == 0.0


def test_specification_is_plain_hashable_and_round_trips() -> None:
    basis = RadialBasis("jacobi", np.int64(6), np.float32(5.5), 1, "power", 4)  # type: ignore[arg-type]
    assert {type(value) for value in dataclasses.asdict(basis).values()} == {str, int, float}
    assert RadialBasis(**dataclasses.asdict(basis)) == basis
    assert pickle.loads(pickle.dumps(basis)) == basis
    assert hash(basis) == hash(dataclasses.replace(basis))
    with pytest.raises(dataclasses.FrozenInstanceError):
        basis.size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "settings_"),
    [
        ("family", {"family": "legendre"}),
        ("family", {"family": None}),
        ("size", {"size": 0}),
        ("size", {"size": 2.5}),
        ("cutoff", {"cutoff": 0.0}),
        ("cutoff", {"cutoff": float("nan")}),
        ("cutoff", {"cutoff": "5"}),
        ("r_min", {"r_min": -0.1}),
        ("r_min", {"r_min": 5.0}),
        ("r_min", {"r_min": float("inf")}),
        ("cutoff_function", {"cutoff_function": "cosine"}),
        ("cutoff_power", {"cutoff_power": 2}),
        ("cutoff_power", {"cutoff_function": "envelope", "cutoff_power": 1}),
        ("cutoff_power", {"cutoff_power": 3.5}),
    ],
)
def test_a_bad_field_is_named(field: str, settings_: dict[str, object]) -> None:
    with pytest.raises(SpecificationError, match=rf"^{field} must be"):
        RadialBasis(**settings_)  # type: ignore[arg-type]


def test_an_unknown_family_lists_the_known() -> None:
    with pytest.raises(SpecificationError, match=r"'chebyshev', 'jacobi', 'bessel'.*'legendre'"):
        RadialBasis("legendre")


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    family=st.sampled_from([*RADIAL_FAMILIES, "hermite"]),
    size=st.integers(-1, 12),
    cutoff=st.floats(-1.0, 12.0) | st.just(math.nan),
    r_min=st.floats(-0.5, 12.0),
    cutoff_function=st.sampled_from([*CUTOFF_FUNCTIONS, "hard"]),
    cutoff_power=st.integers(0, 8),
    r=st.floats(0.0, 15.0),
)
def test_either_valid_and_finite_or_refused(
    family: str,
    size: int,
    cutoff: float,
    r_min: float,
    cutoff_function: str,
    cutoff_power: int,
    r: float,
) -> None:
    valid = (
        family in RADIAL_FAMILIES
        and size >= 1
        and cutoff > 0
        and 0 <= r_min < cutoff
        and cutoff_function in CUTOFF_FUNCTIONS
        and cutoff_power >= CUTOFF_FUNCTIONS[cutoff_function]
    )
    if not valid:
        with pytest.raises(SpecificationError):
            RadialBasis(family, size, cutoff, r_min, cutoff_function, cutoff_power)
        return
    basis = RadialBasis(family, size, cutoff, r_min, cutoff_function, cutoff_power)
    phi_pn, dphi_pn = basis.evaluate(np.array([r]))
    assert np.all(np.isfinite(phi_pn))
    assert not np.any(np.isnan(dphi_pn))
    if r >= cutoff:
        assert np.all(phi_pn == 0.0)


def test_scipy_and_numpy_agree_on_chebyshev_beyond_the_interval() -> None:
    """Below r_min the coordinate rests at x = -1.1, outside the interval on which |T_n| <= 1."""
    basis = RadialBasis("chebyshev", size=12, cutoff=5.0, r_min=2.0)
    phi_pn, _ = basis.evaluate(np.zeros(1))
    expected_n = 1.05**3 * scipy.special.eval_chebyt(np.arange(12), -1.0 - SATURATION_WIDTH)
    np.testing.assert_allclose(phi_pn[0], expected_n, rtol=1e-13)
