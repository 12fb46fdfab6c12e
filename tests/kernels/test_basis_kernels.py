"""Radial functions and harmonics of the kernels against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from etnpot import reference
from etnpot._jit import with_entry
from etnpot.basis import RadialBasis
from etnpot.errors import SpecificationError
from etnpot.kernels import basis as inner_kernels
from etnpot.kernels.lanes import OCTET
from etnpot.potential.tables import legendre_recurrence

L_MAX = 8

kernels = SimpleNamespace(
    **{
        name: with_entry(getattr(inner_kernels, name))
        for name in ("legendre_rows", "radial_functions", "harmonics", "harmonics_gradient")
    }
)

BASES = [
    RadialBasis(family, size, 5.0, r_min, cutoff_function, power)
    for family in ("chebyshev", "jacobi", "bessel")
    for cutoff_function, power in (("power", 3), ("power", 5), ("envelope", 2), ("envelope", 6))
    for size, r_min in ((1, 0.0), (7, 1.3))
]


def radial(module: Any, basis: RadialBasis, r_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi and dphi [n, p] by the kernel or its reference."""
    phi_np, dphi_np = np.full((2, basis.size, len(r_p)), np.nan)
    module.radial_functions(r_p, *basis.kernel_tables(), phi_np, dphi_np)
    return phi_np, dphi_np


def angular(module: Any, u_cp: np.ndarray, l_max: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values alone, values and gradients, by the kernel or its reference."""
    legendre = legendre_recurrence(l_max)
    scratch = np.empty((kernels.legendre_rows(l_max), OCTET)), np.empty((2 * (l_max + 1), OCTET))
    n_pairs, n_lm = u_cp.shape[1], (l_max + 1) ** 2
    alone_mp, y_mp = np.full((2, n_lm, n_pairs), np.nan)
    dy_cmp = np.full((3, n_lm, n_pairs), np.nan)
    module.harmonics(u_cp, n_pairs, l_max, legendre, *scratch, alone_mp)
    module.harmonics_gradient(u_cp, l_max, legendre, *scratch, y_mp, dy_cmp)
    return alone_mp, y_mp, dy_cmp


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_radial_functions(basis: RadialBasis, assert_close: Callable[..., None]) -> None:
    joints_p = [basis.r_min, basis.r_min - 0.1 * (basis.cutoff - basis.r_min), 1e-2 * basis.cutoff / np.pi]
    near_p = [joint * (1.0 + shift) for joint in joints_p for shift in (-1e-9, 0.0, 1e-9) if joint > 0.0]
    r_p = np.concatenate([[1e-12, 1e-7, 1e-3], near_p, np.linspace(0.01, 1.1 * basis.cutoff, 60)])
    r_p = r_p[: len(r_p) // OCTET * OCTET]
    phi_np, dphi_np = radial(kernels, basis, r_p)
    expected_np, dexpected_np = radial(reference.basis, basis, r_p)
    for n in range(basis.size):  # each to its own scale: the higher ones are larger
        assert_close(phi_np[n], expected_np[n])
        assert_close(dphi_np[n], dexpected_np[n])


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_radial_functions_vanish_at_the_cutoff(basis: RadialBasis) -> None:
    r_p = basis.cutoff * np.array([1 - 1e-2, 1 - 1e-3, 1 - 1e-4, 1 - 1e-5, 1.0, 1.0 + 1e-15, 2.0, np.inf])
    phi_np, dphi_np = radial(kernels, basis, r_p)
    expected_np, dexpected_np = radial(reference.basis, basis, r_p)
    assert (phi_np[:, 4:] == 0.0).all() and (dphi_np[:, 4:] == 0.0).all()
    # relative to each value, however small: nothing cancels on the way to zero
    np.testing.assert_allclose(phi_np[:, :4], expected_np[:, :4], rtol=1e-9, atol=0.0)
    np.testing.assert_allclose(dphi_np[:, :4], dexpected_np[:, :4], rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("family", ["chebyshev", "jacobi", "bessel"])
def test_radial_functions_pass_on_nan(family: str) -> None:
    r_p = np.full(2 * OCTET, 2.0)
    r_p[3] = np.nan
    phi_np, dphi_np = radial(kernels, RadialBasis(family, 4), r_p)
    for array in (phi_np, dphi_np):
        assert np.isnan(array[:, 3]).all()
        assert np.isfinite(np.delete(array, 3, axis=1)).all()


def test_tables_of_no_basis_are_refused() -> None:
    codes, constants, recurrence = RadialBasis("chebyshev", 4).kernel_tables()
    recurrence[0, 2] = 1.9
    with pytest.raises(SpecificationError, match=r"take them from RadialBasis\.kernel_tables"):
        reference.basis.radial_basis(codes, constants, recurrence)


@pytest.mark.parametrize("l_max", range(L_MAX + 1))
def test_harmonics(l_max: int, rng: np.random.Generator, assert_close: Callable[..., None]) -> None:
    axes_pc = np.concatenate([np.eye(3), -np.eye(3)])
    diagonal_pc = np.array([[1.0, 1.0, 0.0], [1e-9, 0.0, 1.0]])
    u_pc = np.concatenate([axes_pc, diagonal_pc, rng.normal(size=(6 * OCTET, 3))])
    u_cp = np.ascontiguousarray((u_pc / np.linalg.norm(u_pc, axis=1)[:, None]).T)
    alone_mp, y_mp, dy_cmp = angular(kernels, u_cp, l_max)
    _, expected_mp, dexpected_cmp = angular(reference.basis, u_cp, l_max)
    assert_close(alone_mp, expected_mp, 1e-13)
    assert_close(y_mp, expected_mp, 1e-13)
    assert_close(dy_cmp, dexpected_cmp, 1e-13)


def test_gradient_of_harmonics_lies_on_the_sphere(
    rng: np.random.Generator, assert_close: Callable[..., None]
) -> None:
    u_cp = rng.normal(size=(3, 4 * OCTET))
    u_cp /= np.linalg.norm(u_cp, axis=0)
    _, y_mp, dy_cmp = angular(kernels, u_cp, L_MAX)
    assert np.abs(np.einsum("cp,cmp->mp", u_cp, dy_cmp)).max() < 1e-13
    # eigenvalue of the Laplacian: sum_m |grad Y_lm|^2 = l (l + 1) sum_m Y_lm^2 = l (l + 1) (2 l + 1) / 4 pi
    for l in range(L_MAX + 1):
        rows = slice(l * l, (l + 1) ** 2)
        squares_p = np.sum(dy_cmp[:, rows] ** 2, axis=(0, 1))
        assert_close(squares_p, l * (l + 1) * np.sum(y_mp[rows] ** 2, axis=0), 1e-12)
