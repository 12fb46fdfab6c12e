"""Radial functions and harmonics of the kernels against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from etnpot import reference
from etnpot.basis import RadialBasis, recurrence_constants
from etnpot.errors import SpecificationError
from etnpot.kernels import basis as kernels
from etnpot.kernels.lanes import LANES

L_MAX = 8

BASES = [
    RadialBasis(family, size, 5.0, r_min, cutoff_function, power)
    for family in ("chebyshev", "jacobi", "bessel")
    for cutoff_function, power in (("power", 3), ("power", 5), ("envelope", 2), ("envelope", 6))
    for size, r_min in ((1, 0.0), (7, 1.3))
]


def radial(module: ModuleType, basis: RadialBasis, r_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi and dphi [n, p] by the kernel or its reference, block by block."""
    blocks = []
    for r_b in r_p.reshape(-1, LANES):
        phi_nb, dphi_nb = np.full((2, basis.size, LANES), np.nan)
        module.radial_functions(r_b, *basis.kernel_tables(), phi_nb, dphi_nb)
        blocks.append((phi_nb, dphi_nb))
    phi_np, dphi_np = np.concatenate(blocks, axis=-1)
    return phi_np, dphi_np


def angular(module: ModuleType, u_cp: np.ndarray, l_max: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values alone, values and gradients, by the kernel or its reference."""
    norms, work_b = recurrence_constants(l_max), np.empty((kernels.harmonics_work_rows(l_max), LANES))
    blocks = []
    for u_pb in np.split(u_cp, u_cp.shape[1] // LANES, axis=1):
        u_cb = np.ascontiguousarray(u_pb)
        alone_mb, y_mb = np.full((2, len(norms), LANES), np.nan)
        dy_cmb = np.full((3, len(norms), LANES), np.nan)
        module.harmonics(u_cb, l_max, norms, alone_mb)
        module.harmonics_gradient(u_cb, l_max, norms, work_b, y_mb, dy_cmb)
        blocks.append((alone_mb, y_mb, dy_cmb))
    alone, values, gradients = (np.concatenate(part, axis=-1) for part in zip(*blocks, strict=True))
    return alone, values, gradients


@pytest.mark.parametrize("basis", BASES, ids=str)
def test_radial_functions(basis: RadialBasis, assert_close: Callable[..., None]) -> None:
    joints_p = [basis.r_min, basis.r_min - 0.1 * (basis.cutoff - basis.r_min), 1e-2 * basis.cutoff / np.pi]
    near_p = [joint * (1.0 + shift) for joint in joints_p for shift in (-1e-9, 0.0, 1e-9) if joint > 0.0]
    r_p = np.concatenate([[1e-12, 1e-7, 1e-3], near_p, np.linspace(0.01, 1.1 * basis.cutoff, 60)])
    r_p = r_p[: len(r_p) // LANES * LANES]
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
    r_p = np.full(LANES, 2.0)
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
    u_pc = np.concatenate([axes_pc, diagonal_pc, rng.normal(size=(3 * LANES, 3))])
    u_cp = (u_pc / np.linalg.norm(u_pc, axis=1)[:, None]).T
    alone_mp, y_mp, dy_cmp = angular(kernels, u_cp, l_max)
    _, expected_mp, dexpected_cmp = angular(reference.basis, u_cp, l_max)
    assert_close(alone_mp, expected_mp, 1e-13)
    assert_close(y_mp, expected_mp, 1e-13)
    assert_close(dy_cmp, dexpected_cmp, 1e-13)


def test_gradient_of_harmonics_is_that_of_a_homogeneous_polynomial(
    rng: np.random.Generator, assert_close: Callable[..., None]
) -> None:
    u_cp = rng.normal(size=(3, 2 * LANES))
    u_cp /= np.linalg.norm(u_cp, axis=0)
    _, y_mp, dy_cmp = angular(kernels, u_cp, L_MAX)
    degree_m = np.repeat(np.arange(L_MAX + 1), 2 * np.arange(L_MAX + 1) + 1)
    assert_close(np.einsum("cp,cmp->mp", u_cp, dy_cmp), degree_m[:, None] * y_mp, 1e-13)  # Euler
