"""The nuclear repulsion, its switch, and the bounds of the learned energy: closed forms against mpmath and differences."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

from etnpot.basis import BOUND_WIDTH, Repulsion, bounded, cold_pairs, smooth_step, zbl
from etnpot.errors import SpecificationError


def test_smooth_step_has_three_continuous_derivatives_and_its_integral() -> None:
    t = np.linspace(-0.5, 1.5, 4001)
    step, slope, _ = smooth_step(t)
    h = 1e-5
    up, down = smooth_step(t + h), smooth_step(t - h)
    np.testing.assert_allclose((up[0] - down[0]) / (2 * h), slope, atol=1e-8)
    np.testing.assert_allclose((up[2] - down[2]) / (2 * h), 1.0 - step, atol=1e-8)
    assert (np.diff(step) >= 0).all()
    assert list(smooth_step([-1.0, 0.0, 1.0, 2.0])[0]) == [0.0, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(smooth_step([-1.0, 0.0, 1.0, 2.0])[2], [-1.0, 0.0, 0.5, 0.5], atol=1e-15)
    # the third derivative goes to zero linearly at both ends
    for end, inwards in ((0.0, 1.0), (1.0, -1.0)):
        thirds = []
        for at in (1e-2, 5e-3):
            x = end + inwards * at
            k = at / 4
            thirds.append(abs(smooth_step(x + k)[1] - 2 * smooth_step(x)[1] + smooth_step(x - k)[1]) / k**2)
        assert thirds[1] / thirds[0] == pytest.approx(0.5, abs=0.05)


def test_nuclear_repulsion_is_that_of_the_publication() -> None:
    """Ziegler, Biersack and Littmark (1985), with 50 digits."""
    with mpmath.workdps(50):

        def exact(r: Any, z: int, w: int) -> Any:
            a = mpmath.mpf("0.46850") / (
                mpmath.mpf(z) ** mpmath.mpf("0.23") + mpmath.mpf(w) ** mpmath.mpf("0.23")
            )
            terms = (
                ("0.18175", "3.19980"),
                ("0.50986", "0.94229"),
                ("0.28022", "0.40290"),
                ("0.02817", "0.20162"),
            )
            phi = mpmath.fsum(mpmath.mpf(c) * mpmath.exp(-mpmath.mpf(d) * r / a) for c, d in terms)
            return mpmath.mpf("14.399645") * z * w / r * phi

        for z, w in ((1, 1), (1, 92), (14, 14), (28, 79)):
            for r in ("1e-6", "0.01", "0.3", "1.5", "4"):
                value, slope = zbl(float(r), z, w)
                assert float(value) == pytest.approx(float(exact(mpmath.mpf(r), z, w)), rel=1e-13)
                derivative = mpmath.diff(lambda x, z=z, w=w: exact(x, z, w), mpmath.mpf(r))
                assert float(slope) == pytest.approx(float(derivative), rel=1e-12)


def test_bounds_leave_what_is_between_them_alone() -> None:
    low, high = -1.5, 4.0
    x = np.linspace(-6.0, 9.0, 3001)
    f, df, d2f = bounded(x, low, high)
    inside = (x >= low) & (x <= high)
    np.testing.assert_array_equal(f[inside], x[inside])
    np.testing.assert_array_equal(df[inside], 1.0)
    assert f.min() == pytest.approx(low - BOUND_WIDTH / 2)
    assert f.max() == pytest.approx(high + BOUND_WIDTH / 2)
    assert (np.diff(f) >= -1e-15).all()
    h = 1e-5
    up, down = bounded(x + h, low, high), bounded(x - h, low, high)
    np.testing.assert_allclose((up[0] - down[0]) / (2 * h), df, atol=1e-8)
    np.testing.assert_allclose((up[1] - down[1]) / (2 * h), d2f, atol=1e-8)


def test_radii_come_from_distances_or_from_covalent_radii() -> None:
    distances = {(1, 8): 0.9, (8, 8): 2.4, (8, 55): 3.9, (55, 55): 7.0}
    found = Repulsion.for_species((1, 8, 55), 5.0, distances)
    outer = np.array(found.outer)
    assert outer[0, 1] == outer[1, 0] == pytest.approx(0.81)
    assert outer[1, 1] == pytest.approx(2.16)
    assert outer[0, 0] == pytest.approx(0.8 * 0.62)  # never seen
    assert outer[1, 2] == pytest.approx(0.9 * 3.9)
    assert outer[2, 2] == pytest.approx(4.5)  # within the cutoff
    assert cold_pairs((1, 8, 55), 5.0, distances) == []
    np.testing.assert_allclose(found.inner, 0.85 * outer, atol=1e-6)
    assert Repulsion.from_dict(found.to_dict()) == found


def test_cold_pairs_are_those_whose_data_begin_farther_out_than_those_of_their_elements() -> None:
    distances = {(41, 41): 2.2, (41, 42): 2.7, (42, 42): 2.1, (42, 74): 2.3, (74, 74): 2.2}
    species = (41, 42, 74)
    assert cold_pairs(species, 5.0, distances) == [
        (41, 42)
    ]  # 42-74 begins where its elements do, 41-74 was never seen
    outer = np.array(Repulsion.for_species(species, 5.0, distances).outer)
    assert outer[0, 1] == outer[1, 0] == pytest.approx(0.9 * 2.15)


@pytest.mark.parametrize(
    ("inner", "outer", "message"),
    [
        ([[1.0]], [[1.0]], "0 < inner < outer"),
        ([[-1.0]], [[1.0]], "0 < inner < outer"),
        ([[1.0]], [[float("nan")]], "finite outer radii"),
        ([[1.0, 1.0], [1.1, 1.0]], [[2.0, 2.0], [2.0, 2.0]], "the same for"),
        ([1.0], [[1.0]], "square table"),
        ("x", [[1.0]], "square table"),
        ([[1.0]], [[2.0, 2.0], [2.0, 2.0]], "0 < inner < outer"),
    ],
)
def test_wrong_radii_are_refused(inner: Any, outer: Any, message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        Repulsion(inner, outer)


@pytest.mark.parametrize(
    "values", [None, 3, {}, {"kind": "zbl"}, {"kind": "x", "inner": [[1]], "outer": [[2]]}]
)
def test_wrong_fields_are_refused(values: Any) -> None:
    with pytest.raises(SpecificationError, match="repulsion: expected"):
        Repulsion.from_dict(values)
