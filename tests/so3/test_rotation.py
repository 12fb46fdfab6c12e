# ruff: noqa: E741 (l is the angular momentum)
"""Wigner matrices of the real harmonics against scipy's harmonics and the group laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import sph_harm_y

from etnpot.errors import SpecificationError
from etnpot.so3 import clebsch_gordan, wigner_d

L_MAX = 6


def random_orthogonal(rng: np.random.Generator, determinant: int) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q)) * determinant


def scipy_harmonics(l: int, r_pc: np.ndarray) -> np.ndarray:
    """Real harmonics [m, point] of unit vectors, made from scipy's complex ones."""
    theta, phi = np.arccos(np.clip(r_pc[:, 2], -1.0, 1.0)), np.arctan2(r_pc[:, 1], r_pc[:, 0])
    complex_y = [sph_harm_y(l, abs(m), theta, phi) for m in range(-l, l + 1)]
    scale = [1.0 if m == 0 else (-1) ** m * np.sqrt(2.0) for m in range(-l, l + 1)]
    parts = [y.imag if index < l else y.real for index, y in enumerate(complex_y)]
    return np.array([s * part for s, part in zip(scale, parts, strict=True)])


@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_turns_the_harmonics(l: int, determinant: int, rng: np.random.Generator) -> None:
    """Y(R r) = D Y(r) for rotations and, with natural parity, for improper ones."""
    r_pc = rng.normal(size=(50, 3))
    r_pc /= np.linalg.norm(r_pc, axis=1, keepdims=True)
    rotation = random_orthogonal(rng, determinant)
    turned = wigner_d(l, rotation) @ scipy_harmonics(l, r_pc)
    np.testing.assert_allclose(turned, scipy_harmonics(l, r_pc @ rotation.T), atol=5e-14)


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_is_an_orthogonal_representation(l: int, rng: np.random.Generator) -> None:
    for p in (1, -1):
        a, b = random_orthogonal(rng, -1), random_orthogonal(rng, int(rng.choice([-1, 1])))
        d_a, d_b = wigner_d(l, a, p=p), wigner_d(l, b, p=p)
        np.testing.assert_allclose(d_a.T @ d_a, np.eye(2 * l + 1), atol=2e-14)
        np.testing.assert_allclose(wigner_d(l, a @ b, p=p), d_a @ d_b, atol=2e-14)
        np.testing.assert_allclose(wigner_d(l, a.T, p=p), d_a.T, atol=2e-14)


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_identity_and_inversion(l: int) -> None:
    np.testing.assert_allclose(wigner_d(l, np.eye(3)), np.eye(2 * l + 1), atol=2e-15)
    for p in (1, -1):
        np.testing.assert_allclose(wigner_d(l, -np.eye(3), p=p), p * np.eye(2 * l + 1), atol=2e-15)
    np.testing.assert_allclose(wigner_d(l, -np.eye(3)), (-1) ** l * np.eye(2 * l + 1), atol=2e-15)


def test_vector_and_pseudovector(rng: np.random.Generator) -> None:
    yzx = np.array([1, 2, 0])
    a, b = rng.normal(size=(2, 3))
    mirror = random_orthogonal(rng, -1)
    np.testing.assert_allclose(wigner_d(1, mirror, p=-1) @ a[yzx], (mirror @ a)[yzx], atol=1e-15)
    axial = np.cross(mirror @ a, mirror @ b)
    np.testing.assert_allclose(wigner_d(1, mirror, p=1) @ np.cross(a, b)[yzx], axial[yzx], atol=2e-15)


def test_character(rng: np.random.Generator) -> None:
    """Trace of D^l for a rotation by ω about any axis: sin((2l+1)ω/2) / sin(ω/2)."""
    rotation = random_orthogonal(rng, 1)
    omega = np.arccos((np.trace(rotation) - 1.0) / 2.0)
    for l in range(L_MAX + 1):
        expected = np.sin((l + 0.5) * omega) / np.sin(0.5 * omega)
        assert np.trace(wigner_d(l, rotation)) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("parities", [(1, 1), (-1, 1), (-1, -1)])
def test_coupling_commutes_with_reflections(parities: tuple[int, int], rng: np.random.Generator) -> None:
    p1, p2 = parities
    rotation = random_orthogonal(rng, -1)
    for l1, l2, l3 in itertools.product(range(4), repeat=3):
        if not abs(l1 - l2) <= l3 <= l1 + l2:
            continue
        c = clebsch_gordan(l1, l2, l3)
        d1, d2 = wigner_d(l1, rotation, p=p1), wigner_d(l2, rotation, p=p2)
        d3 = wigner_d(l3, rotation, p=p1 * p2)
        turned = np.einsum("abc,ax,by,cz->xyz", c, d1, d2, d3, optimize=True)
        np.testing.assert_allclose(turned, c, atol=1e-13)


@pytest.mark.parametrize(
    ("rotation", "message"),
    [
        (np.eye(2), r"shape \(3, 3\)"),
        (np.zeros((2, 3, 3)), r"shape \(3, 3\)"),
        (2.0 * np.eye(3), "orthogonal"),
        (np.full((3, 3), np.nan), "orthogonal"),
        (np.diag([1.0, 1.0, np.inf]), "orthogonal"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_rotations_are_refused(rotation: np.ndarray, message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        wigner_d(2, rotation)


def test_bad_l_and_parity_are_refused() -> None:
    with pytest.raises(SpecificationError, match="expected an angular momentum"):
        wigner_d(-1, np.eye(3))
    with pytest.raises(SpecificationError, match="expected a parity"):
        wigner_d(1, np.eye(3), p=0)
