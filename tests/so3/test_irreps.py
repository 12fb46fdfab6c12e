# ruff: noqa: E741 (l is the angular momentum)
"""Irreps of O(3): validation, order, text form and products."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot.errors import SpecificationError
from etnpot.so3 import Irrep

IRREPS = [Irrep(l, p) for l in range(5) for p in (1, -1)]
irreps = st.builds(Irrep, st.integers(0, 12), st.sampled_from([1, -1]))


def test_attributes() -> None:
    vector, pseudovector = Irrep(1, -1), Irrep(1, 1)
    assert (vector.l, vector.p, vector.dim) == (1, -1, 3)
    assert vector.is_natural and not pseudovector.is_natural
    assert [Irrep.natural(l).p for l in range(4)] == [1, -1, 1, -1]
    assert all(Irrep.natural(l).is_natural and Irrep.natural(l).dim == 2 * l + 1 for l in range(8))


def test_is_a_frozen_hashable_value() -> None:
    assert Irrep(2, 1) == Irrep(np.int64(2), np.int8(1))
    assert type(Irrep(np.int64(2), 1).l) is int
    assert len({Irrep(l, p) for l in range(3) for p in (1, -1) for _ in range(2)}) == 6
    assert pickle.loads(pickle.dumps(Irrep(3, 1))) == Irrep(3, 1)
    with pytest.raises(AttributeError):
        Irrep(0, 1).l = 1  # type: ignore[misc]
    assert Irrep(0, 1) != "0e"


def test_order_is_by_l_then_natural_parity_first() -> None:
    expected = ["0e", "0o", "1o", "1e", "2e", "2o", "3o", "3e", "4e", "4o"]
    assert [str(irrep) for irrep in sorted(IRREPS)] == expected
    assert Irrep(1, -1) < Irrep(1, 1) <= Irrep(1, 1) < Irrep(2, 1) and Irrep(2, 1) >= Irrep(0, -1)
    with pytest.raises(TypeError):
        _ = Irrep(0, 1) < 3


@given(irreps)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_text_round_trip(irrep: Irrep) -> None:
    assert Irrep.from_string(str(irrep)) == irrep


def test_text_form() -> None:
    assert (str(Irrep(0, 1)), str(Irrep(1, -1))) == ("0e", "1o")
    assert Irrep.from_string(" 10o ") == Irrep(10, -1)


@pytest.mark.parametrize("text", ["", "e", "1", "1x", "-1o", "1.0e", "1oe", "o1", "1 o", "²e", None, 1])
def test_bad_text_is_refused(text: object) -> None:
    with pytest.raises(SpecificationError, match="expected l in digits"):
        Irrep.from_string(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("l", [-1, 1.0, "1", None, True, float("nan")])
def test_bad_l_is_refused(l: object) -> None:
    with pytest.raises(SpecificationError, match=r"Irrep\.l: expected an angular momentum"):
        Irrep(l, 1)  # type: ignore[arg-type]
    with pytest.raises(SpecificationError, match="expected an angular momentum"):
        Irrep.natural(l)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [0, 2, -2, 1.0, "e", None, True])
def test_bad_p_is_refused(p: object) -> None:
    with pytest.raises(SpecificationError, match=r"Irrep\.p: expected a parity"):
        Irrep(1, p)  # type: ignore[arg-type]


def test_product_known() -> None:
    assert Irrep(1, -1) * Irrep(1, -1) == (Irrep(0, 1), Irrep(1, 1), Irrep(2, 1))
    assert Irrep(2, 1) * Irrep(0, -1) == (Irrep(2, -1),)
    with pytest.raises(TypeError):
        _ = Irrep(1, 1) * 2


@given(irreps, irreps)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_product_keeps_dimension_and_parity(a: Irrep, b: Irrep) -> None:
    product = a * b
    assert product == b * a
    assert sum(irrep.dim for irrep in product) == a.dim * b.dim
    assert {irrep.p for irrep in product} == {a.p * b.p}
    assert list(product) == sorted(product)


def test_product_is_associative() -> None:
    for a, b, c in itertools.product(IRREPS[:6], repeat=3):
        left = sorted(f for e in a * b for f in e * c)
        right = sorted(f for e in b * c for f in a * e)
        assert left == right
