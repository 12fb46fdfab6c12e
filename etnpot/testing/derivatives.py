"""Finite differences of the energy against forces and stress.

With the plain central difference along coordinate x_k

    D_k(h) = [E(x_k + h) - E(x_k - h)] / (2 h) = E'_k + c_2 h² + c_4 h⁴ + ...

two things are tested over a sweep of steps h_0 > h_1 > ...:

1. *the value*. The sweep is extrapolated to h² -> 0 by Neville's tableau

       T_j0 = D(h_j),   T_jm = T_j,m-1 + (T_j,m-1 - T_j-1,m-1) / ((h_{j-m} / h_j)² - 1),

   and the entry with the smallest estimate of its own error (distance to its two parents plus the noise
   ε/h_j) is compared with the analytic derivative. The choice never looks at the analytic derivative: D(h)
   moves away from E' as h grows, so a wrong derivative can agree with it at some h.
2. *the order*. The error of the plain difference against the analytic derivative must fall as h²; a wrong
   derivative leaves a plateau.

The forces are F_ic = -∂E/∂x_ic. The stress is ASE's, positive under tension, σ_v = (1/V) ∂E/∂s_v under the
symmetric deformation x -> (1 + e) x of cell and atoms, e_cc = s for v = xx, yy, zz and e_cd = e_dc = s/2 for
v = yz, xz, xy.

The noise ε of one energy is measured, not assumed: the scatter of a few energies about a parabola at
displacements of 1e-6 Å, so a calculator in single precision gets the floor that it deserves.

======== ====================== ================
symbol   variable               unit
======== ====================== ================
h_j      ``steps``              Å, or strain
D_k(h_j) ``difference_hk``      eV/Å, or eV/Å³
E'_k     ``analytic_k``         eV/Å, or eV/Å³
T_jm     ``tableau``            eV/Å, or eV/Å³
ε        ``noise``              eV
======== ====================== ================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from etnpot.conventions import VOIGT
from etnpot.errors import SpecificationError, StructureError
from etnpot.testing.evaluation import (
    describe,
    evaluate,
    potential_energy,
    require_positive,
    working_copy,
)
from etnpot.testing.results import DerivativeResult, Measurement, settle

__all__ = ["FORCE_STEPS", "STRAIN_STEPS", "check_forces", "check_stress", "extrapolate", "observed_order"]

#: Default displacements of `check_forces` [Å].
FORCE_STEPS: tuple[float, ...] = (0.016, 0.008, 0.004, 0.002, 0.001)

#: Default strains of `check_stress`.
STRAIN_STEPS: tuple[float, ...] = (0.004, 0.002, 0.001, 0.0005, 0.00025)

#: How far the observed order may be from 2.
ORDER_TOLERANCE = 0.2

#: A step counts for the order when its error is this many times the rounding floor ε/h.
_ABOVE_NOISE = 30.0

_VOIGT_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")


def extrapolate(
    difference_hk: NDArray[np.float64], steps: NDArray[np.float64], noise: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Extrapolate central differences to h -> 0 with an error estimate, column by column.

    Parameters
    ----------
    difference_hk : ndarray of float64, shape (n_steps, n_components)
        D_k(h_j), row j for step j.
    steps : ndarray of float64, shape (n_steps,)
        h_j, strictly decreasing, at least two.
    noise : float
        Noise ε of the energies, in (unit of D) x (unit of h).

    Returns
    -------
    value_k, error_k : ndarray of float64, shape (n_components,)
        Extrapolated derivative and the estimate of its error, in the unit of D.
    """
    n_steps, n_components = difference_hk.shape
    best_k = np.array(difference_hk[-1])
    error_k = np.full(n_components, np.inf)
    previous = [difference_hk[0]]
    for j in range(1, n_steps):
        tableau = [difference_hk[j]]
        for m in range(1, j + 1):
            ratio = (steps[j - m] / steps[j]) ** 2
            tableau.append(tableau[m - 1] + (tableau[m - 1] - previous[m - 1]) / (ratio - 1.0))
            spread_k = np.maximum(np.abs(tableau[m] - tableau[m - 1]), np.abs(tableau[m] - previous[m - 1]))
            estimate_k = spread_k + noise / steps[j]
            better_k = estimate_k < error_k
            best_k = np.where(better_k, tableau[m], best_k)
            error_k = np.where(better_k, estimate_k, error_k)
        previous = tableau
    return best_k, error_k


def observed_order(
    errors: NDArray[np.float64], steps: NDArray[np.float64], floors: NDArray[np.float64]
) -> float:
    """Exponent p of error ~ h^p, fitted over the steps whose error stands clear of the rounding floor.

    Parameters
    ----------
    errors, steps, floors : ndarray of float64, shape (n_steps,)
        Error, step, and rounding floor of the error at each step.

    Returns
    -------
    float
        NaN when fewer than two steps are clear of the floor.
    """
    clear = errors > _ABOVE_NOISE * floors
    if np.count_nonzero(clear) < 2:
        return float("nan")
    slope, _ = np.polyfit(np.log(steps[clear]), np.log(errors[clear]), 1)
    return float(slope)


def _energy_noise(atoms: Atoms, energy: float, rng: np.random.Generator) -> float:
    """Noise ε of one energy [eV]: scatter about a parabola over displacements of 1e-6 Å, at least eps |E|.

    NaN if an energy is not finite.
    """
    origin_ic = atoms.get_positions()
    direction_ic = rng.standard_normal(origin_ic.shape)
    direction_ic /= np.linalg.norm(direction_ic)
    offsets = np.arange(-3.0, 4.0)
    energies = np.empty(len(offsets))
    for n, offset in enumerate(offsets):
        atoms.set_positions(origin_ic + 1e-6 * offset * direction_ic)
        energies[n] = potential_energy(atoms) - energy
    atoms.set_positions(origin_ic)
    if not np.isfinite(energies).all():
        return float("nan")
    parabola = np.vander(offsets, 3)
    residual = energies - parabola @ np.linalg.lstsq(parabola, energies, rcond=None)[0]
    scatter = float(np.sqrt(np.sum(residual**2) / (len(offsets) - 3)))
    return max(scatter, float(np.finfo(np.float64).eps) * abs(energy))


def _valid_steps(steps: Sequence[float]) -> NDArray[np.float64]:
    """Steps as an array, checked to be at least three, positive and strictly decreasing."""
    array = np.array(steps, dtype=float)
    if array.ndim != 1 or array.size < 3 or not np.isfinite(array).all():
        raise SpecificationError(f"steps must be at least three finite numbers, largest first; got {steps!r}")
    if array[-1] <= 0.0 or (np.diff(array) >= 0.0).any():
        raise SpecificationError(f"steps must be positive and strictly decreasing; got {steps!r}")
    return array


def _components(
    selection: Literal["all"] | int | Sequence[tuple[int, int]], n_atoms: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """The (atom, Cartesian) components to check."""
    every = [(i, c) for i in range(n_atoms) for c in range(3)]
    if isinstance(selection, str):
        if selection != "all":
            raise SpecificationError(f"components: 'all', a number or (atom, axis) pairs; got {selection!r}")
        return every
    if isinstance(selection, int):
        if selection < 1:
            raise SpecificationError(f"components must be at least 1, got {selection}")
        chosen = rng.permutation(len(every))[:selection]
        return [every[k] for k in sorted(chosen)]
    chosen_pairs = [(int(i), int(c)) for i, c in selection]
    unknown = [pair for pair in chosen_pairs if pair not in set(every)]
    if unknown or not chosen_pairs:
        raise SpecificationError(
            f"components must name atoms 0..{n_atoms - 1} and axes 0..2, at least one; got {selection!r}"
        )
    return chosen_pairs


def _judge(
    check: str,
    subject: str,
    energy_at: Callable[[int, float], float],
    analytic_k: NDArray[np.float64],
    labels: Sequence[str],
    steps: NDArray[np.float64],
    *,
    divisor: float,
    noise: float,
    scale: float,
    rtol: float,
    atol: float,
    unit: str,
) -> DerivativeResult:
    """Sweep, extrapolate, compare: the body of both derivative checks.

    ``energy_at(k, h)`` is the energy with coordinate k displaced by h [eV]; dE/dx_k over ``divisor`` is the
    derivative compared (-1 for forces, the volume for stress).
    """
    difference_hk = np.empty((len(steps), len(labels)))
    for k in range(len(labels)):
        for j, h in enumerate(steps):
            difference_hk[j, k] = (energy_at(k, h) - energy_at(k, -h)) / (2.0 * h * divisor)
    noise_per_step = noise / abs(divisor)
    numeric_k, uncertainty_k = extrapolate(difference_hk, steps, noise_per_step)
    error_k = np.abs(numeric_k - analytic_k)
    sweep_errors = np.sqrt(np.mean((difference_hk - analytic_k) ** 2, axis=1))
    order = observed_order(sweep_errors, steps, noise_per_step / steps)
    allowed = max(rtol * scale, atol)
    worst = int(np.argmax(np.where(np.isnan(error_k), np.inf, error_k)))
    measurements = [
        Measurement("largest error of the derivative", float(error_k[worst]), allowed, unit),
        Measurement("error relative to the largest component", float(error_k[worst] / scale), float("inf")),
    ]
    notes = [
        f"worst component {labels[worst]}: analytic {analytic_k[worst]:.12g}, finite difference "
        f"{numeric_k[worst]:.12g} ± {uncertainty_k[worst]:.1g} {unit}",
        "plain central difference, step: rms error = "
        + ", ".join(f"{h:.3g}: {error:.2e}" for h, error in zip(steps, sweep_errors, strict=True)),
    ]
    if np.isnan(order):
        notes.append("order not measurable: fewer than two steps have an error clear of the noise")
    else:
        measurements.append(Measurement("deviation from second order", abs(order - 2.0), ORDER_TOLERANCE))
        notes.append(f"observed order {order:.3f}")
    if not uncertainty_k.max() <= allowed:
        notes.append(
            f"the finite difference is uncertain by up to {uncertainty_k.max():.1g} {unit}: the energy "
            f"is noisy (here {noise:.1g} eV) or has a kink within a step, as where a pair crosses an abrupt "
            "cutoff; try other steps or a larger rtol"
        )
    return DerivativeResult(
        check=check,
        subject=subject,
        measurements=tuple(measurements),
        notes=tuple(notes),
        steps=steps,
        sweep_errors=sweep_errors,
        order=order,
        noise=noise,
        labels=tuple(labels),
        analytic=analytic_k,
        numeric=numeric_k,
        uncertainty=uncertainty_k,
    )


def check_forces(
    atoms: Atoms,
    calculator: Any,
    *,
    steps: Sequence[float] = FORCE_STEPS,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    components: Literal["all"] | int | Sequence[tuple[int, int]] = "all",
    seed: int | np.random.Generator = 0,
    raise_on_failure: bool = True,
) -> DerivativeResult:
    """Check that the forces are minus the gradient of the energy, component by component.

    Costs 2 x (number of steps) x (number of components) energies.

    Parameters
    ----------
    atoms : Atoms
        Structure; not changed. A rattled one of low symmetry tests most.
    calculator : ASE calculator
        Anything with energy and forces.
    steps : sequence of float
        Displacements h [Å], strictly decreasing, at least three.
    rtol, atol : float
        Allowed error: ``max(rtol * max|F|, atol)``, atol in eV/Å. For a calculator in single precision use
        steps of about 0.1 to 0.02 Å and rtol 1e-3.
    components : "all", int, or sequence of (atom, axis)
        All 3 N components, a random subset of that size, or the ones named.
    seed : int or Generator
        Draws the subset and the direction along which the noise is measured.
    raise_on_failure : bool
        Raise `PhysicsCheckError` when the check fails.

    Returns
    -------
    DerivativeResult
    """
    rng = np.random.default_rng(seed)
    valid_steps = _valid_steps(steps)
    work = working_copy(atoms, calculator)
    chosen = _components(components, len(work), rng)
    reference = evaluate(work)
    noise = _energy_noise(work, reference.energy, rng)
    origin_ic = work.get_positions()
    symbols = work.get_chemical_symbols()

    def energy_at(k: int, h: float) -> float:
        moved_ic = origin_ic.copy()
        moved_ic[chosen[k]] += h
        work.set_positions(moved_ic)
        return potential_energy(work)

    scale = float(np.abs(reference.forces_ic).max())
    result = _judge(
        "check_forces",
        describe(atoms),
        energy_at,
        np.array([reference.forces_ic[component] for component in chosen]),
        [f"atom {i} ({symbols[i]}) {'xyz'[c]}" for i, c in chosen],
        valid_steps,
        divisor=-1.0,
        noise=noise,
        scale=max(scale, np.finfo(np.float64).tiny),
        rtol=require_positive("rtol", rtol),
        atol=require_positive("atol", atol),
        unit="eV/Å",
    )
    return settle(result, raise_on_failure)


def check_stress(
    atoms: Atoms,
    calculator: Any,
    *,
    steps: Sequence[float] = STRAIN_STEPS,
    rtol: float = 1e-7,
    atol: float = 1e-11,
    seed: int | np.random.Generator = 0,
    raise_on_failure: bool = True,
) -> DerivativeResult:
    """Check all six stress components against the strain derivative of the energy.

    Parameters
    ----------
    atoms : Atoms
        Structure, periodic in three dimensions; not changed.
    calculator : ASE calculator
        Anything with energy and stress, in ASE's sign (positive under tension) and Voigt order.
    steps : sequence of float
        Strains, strictly decreasing, at least three.
    rtol, atol : float
        Allowed error: ``max(rtol * max|σ|, atol)``, atol in eV/Å³.
    seed, raise_on_failure
        As in `check_forces`.

    Returns
    -------
    DerivativeResult

    Raises
    ------
    StructureError
        If the structure is not periodic in three dimensions, where no stress is defined.
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise StructureError(
            f"check_stress needs a cell periodic in all three dimensions, got pbc {atoms.pbc.tolist()} "
            f"and {atoms.cell.rank} cell vectors; set pbc and cell, or use check_forces alone"
        )
    rng = np.random.default_rng(seed)
    valid_steps = _valid_steps(steps)
    work = working_copy(atoms, calculator)
    stress_v = np.array(work.get_stress(), dtype=float)
    noise = _energy_noise(work, potential_energy(work), rng)
    origin_ic, cell_cc = work.get_positions(), work.cell.array.copy()

    def energy_at(v: int, strain: float) -> float:
        deformation_cc = np.eye(3)
        c, d = VOIGT[v]
        deformation_cc[c, d] += 0.5 * strain
        deformation_cc[d, c] += 0.5 * strain
        work.set_cell(cell_cc @ deformation_cc, scale_atoms=False)
        work.set_positions(origin_ic @ deformation_cc)
        return potential_energy(work)

    result = _judge(
        "check_stress",
        describe(atoms),
        energy_at,
        stress_v,
        _VOIGT_NAMES,
        valid_steps,
        divisor=float(atoms.get_volume()),
        noise=noise,
        scale=max(float(np.abs(stress_v).max()), np.finfo(np.float64).tiny),
        rtol=require_positive("rtol", rtol),
        atol=require_positive("atol", atol),
        unit="eV/Å³",
    )
    return settle(result, raise_on_failure)
