"""Symmetries and derivatives of dipoles, polarizabilities and other tensors of a calculator.

For a tensor T of a structure, of rank 0 to 2 by its shape, with parity p (-1 for a dipole, +1 for a polarizability):

================= ===================== ==========================================================
check             transformation        must hold
================= ===================== ==========================================================
rotation          x -> R x, A -> A Rᵀ   T' = T, R T, or R T Rᵀ
inversion         x -> -x               T' = p T
translation       x -> x + t            T' = T, or T + Q t for the dipole of total charge Q
permutation       i -> π(i)             T' = T
derivatives       x_ic -> x_ic ± h      [T(+h) - T(-h)] / 2h = dT/dx_ic, with an error ~ h²
================= ===================== ==========================================================

Errors are judged against ``rtol`` times the largest component of T, at least `MIN_SCALE`. The calculator offers T through
``get_property(name, atoms)`` and, for the last check, its derivatives [i, c, ...] through ``tensor_derivatives(name, atoms)``,
as `etnpot.ETNCalculator` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.testing.evaluation import describe, require_positive, working_copy
from etnpot.testing.results import CheckResult, Measurement, settle
from etnpot.testing.symmetries import Seed, random_rotation, valid_trials

__all__ = [
    "check_tensor_derivatives",
    "check_tensor_inversion",
    "check_tensor_permutation",
    "check_tensor_rotation",
    "check_tensor_translation",
]

Floats = NDArray[np.float64]

#: Least scale of relative errors, in the unit of the property.
MIN_SCALE = 1e-3
#: Steps of the central differences, Å, largest first.
TENSOR_STEPS = (4e-3, 2e-3)


def _property(atoms: Atoms, calculator: Any, name: str) -> Floats:
    value = np.array(calculator.get_property(name, working_copy(atoms, calculator)), dtype=float)
    if value.shape not in ((), (3,), (3, 3)):
        raise SpecificationError(
            f"{name}: expected a scalar, a vector or a matrix of the whole structure, got shape {value.shape}"
        )
    return value


def _turned(value: Floats, rotation_cc: Floats) -> Floats:
    if value.ndim == 0:
        return value
    return rotation_cc @ value if value.ndim == 1 else rotation_cc @ value @ rotation_cc.T


def _judged(
    check: str, atoms: Atoms, name: str, pairs: Sequence[tuple[Floats, Floats]], rtol: float, raises: bool
) -> CheckResult:
    """The largest difference of (expected, got)."""
    scale = max([MIN_SCALE, *(float(np.abs(expected).max()) for expected, _ in pairs)])
    error = max(float(np.abs(got - expected).max()) for expected, got in pairs)
    measurement = Measurement(name, error, require_positive("rtol", rtol) * scale)
    return settle(CheckResult(check, describe(atoms), (measurement,)), raises)


def check_tensor_rotation(
    atoms: Atoms,
    calculator: Any,
    name: str = "dipole",
    *,
    n_trials: int = 3,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that a tensor turns with atoms and cell.

    Parameters
    ----------
    atoms : Atoms
        Structure; not changed.
    calculator : ASE calculator
        With the property `name`.
    name : str
        The property: "dipole", "polarizability", ...
    n_trials : int
        Number of random rotations.
    rtol : float
        Relative tolerance.
    seed : int or Generator
        Draws the rotations.
    raise_on_failure : bool
        Raise `PhysicsCheckError` when the check fails.

    Returns
    -------
    CheckResult
    """
    rng = np.random.default_rng(seed)
    reference, pairs = _property(atoms, calculator, name), []
    for _ in range(valid_trials(n_trials)):
        rotation_cc = random_rotation(rng)
        moved = atoms.copy()
        moved.set_cell(moved.cell.array @ rotation_cc.T, scale_atoms=False)
        moved.set_positions(moved.positions @ rotation_cc.T, apply_constraint=False)
        pairs.append((_turned(reference, rotation_cc), _property(moved, calculator, name)))
    return _judged("check_tensor_rotation", atoms, name, pairs, rtol, raise_on_failure)


def check_tensor_inversion(
    atoms: Atoms,
    calculator: Any,
    name: str = "dipole",
    *,
    parity: int | None = None,
    rtol: float = 1e-10,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that a tensor changes sign under inversion, or keeps it, as its parity says.

    Parameters
    ----------
    atoms, calculator, name, rtol, raise_on_failure
        As in `check_tensor_rotation`.
    parity : {1, -1}, optional
        Default: -1 for a vector, else 1.

    Returns
    -------
    CheckResult
    """
    reference = _property(atoms, calculator, name)
    if parity not in (None, 1, -1):
        raise SpecificationError(f"parity: expected 1 or -1, got {parity!r}")
    sign = (-1 if reference.ndim == 1 else 1) if parity is None else parity
    moved = atoms.copy()
    moved.set_cell(-moved.cell.array, scale_atoms=False)
    moved.set_positions(-moved.positions, apply_constraint=False)
    pairs = [(sign * reference, _property(moved, calculator, name))]
    return _judged("check_tensor_inversion", atoms, name, pairs, rtol, raise_on_failure)


def check_tensor_translation(
    atoms: Atoms,
    calculator: Any,
    name: str = "dipole",
    *,
    charge: float = 0.0,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that a translation leaves a tensor alone, or moves the dipole of an ion by Q t.

    Parameters
    ----------
    atoms, calculator, name, rtol, seed, raise_on_failure
        As in `check_tensor_rotation`.
    charge : float, e
        Q; of a vector only.

    Returns
    -------
    CheckResult
    """
    reference = _property(atoms, calculator, name)
    shift_c = np.random.default_rng(seed).uniform(-3.0, 3.0, size=3)
    moved = atoms.copy()
    moved.set_positions(moved.positions + shift_c, apply_constraint=False)
    expected = reference + charge * shift_c if reference.ndim == 1 else reference
    pairs = [(expected, _property(moved, calculator, name))]
    return _judged("check_tensor_translation", atoms, name, pairs, rtol, raise_on_failure)


def check_tensor_permutation(
    atoms: Atoms,
    calculator: Any,
    name: str = "dipole",
    *,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that the order of the atoms does not matter.

    Parameters
    ----------
    atoms, calculator, name, rtol, seed, raise_on_failure
        As in `check_tensor_rotation`.

    Returns
    -------
    CheckResult
    """
    order = np.random.default_rng(seed).permutation(len(atoms))
    pairs = [(_property(atoms, calculator, name), _property(atoms[order], calculator, name))]
    return _judged("check_tensor_permutation", atoms, name, pairs, rtol, raise_on_failure)


def check_tensor_derivatives(
    atoms: Atoms,
    calculator: Any,
    name: str = "dipole",
    *,
    rtol: float = 1e-6,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check every derivative of a tensor by the positions against central differences of the tensor itself.

    The differences at two steps are extrapolated to step zero, and the error at the smaller step must be a quarter of that at
    the larger one (at most a third is allowed), unless both are rounding.

    Parameters
    ----------
    atoms, calculator, name, raise_on_failure
        As in `check_tensor_rotation`; the calculator has ``tensor_derivatives``.
    rtol : float
        Relative to the largest derivative.

    Returns
    -------
    CheckResult
    """
    exact = np.asarray(calculator.tensor_derivatives(name, working_copy(atoms, calculator)))
    sweep = []
    for h in TENSOR_STEPS:
        numeric = np.empty_like(exact)
        for i in range(len(atoms)):
            for c in range(3):
                sides = []
                for sign in (1.0, -1.0):
                    moved = atoms.copy()
                    moved.set_constraint()
                    moved.positions[i, c] += sign * h
                    sides.append(_property(moved, calculator, name))
                numeric[i, c] = (sides[0] - sides[1]) / (2.0 * h)
        sweep.append(numeric)
    scale = max(MIN_SCALE, float(np.abs(exact).max()))
    errors = [float(np.abs(numeric - exact).max()) for numeric in sweep]
    ratio = (TENSOR_STEPS[0] / TENSOR_STEPS[1]) ** 2
    extrapolated = (ratio * sweep[1] - sweep[0]) / (ratio - 1.0)
    allowed = require_positive("rtol", rtol) * scale
    measurements = (
        Measurement(f"d {name}/dx", float(np.abs(extrapolated - exact).max()), allowed),
        Measurement("error at half the step", errors[1], max(errors[0] / 3.0, 1e-3 * allowed)),
    )
    return settle(CheckResult("check_tensor_derivatives", describe(atoms), measurements), raise_on_failure)
