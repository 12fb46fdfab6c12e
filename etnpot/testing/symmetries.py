"""Symmetries of the energy and what they imply for forces, stress and per-atom energies.

For a structure X = (x_i, z_i, cell A) with energy E, forces F_i and stress σ:

================= ==================================== =============================================
check             transformation                       must hold
================= ==================================== =============================================
rotation          x -> R x, A -> A Rᵀ, R in SO(3)      E' = E, F' = R F, σ' = R σ Rᵀ, E_i' = E_i
inversion         x -> -x                              E' = E, F' = -F, σ' = σ, E_i' = E_i
translation       x -> x + t                           E' = E, F' = F, σ' = σ, E_i' = E_i
permutation       i -> π(i)                            E' = E, F'_i = F_π(i), σ' = σ, E'_i = E_π(i)
wrapping          x_i -> x_i + n_i A, n_i integer      E' = E, F' = F, σ' = σ, E_i' = E_i
supercell         n copies of the cell                 E' = n E, F' and E_i' tiled, σ' = σ
net force         none                                 Σ_i F_i = 0; without pbc Σ_i x_i × F_i = 0
relabelling       z -> τ(z) in structure and potential E' = E, F' = F, σ' = σ, E_i' = E_i
================= ==================================== =============================================

Errors are judged against ``rtol`` times a scale: for forces s_F = max(0.1 eV/Å, max|F|); for energies s_F x
1 Å plus 64 units of rounding of E itself, so that a large constant in E hides nothing; for the stress s_F
x 1 Å / V, or max|σ| where that is larger.

======== =================================== =======
symbol   variable                            unit
======== =================================== =======
R        ``rotation_cc``, shape (3, 3)       1
t        ``shift_c``, shape (3,)             Å
π        ``permutation_i``, shape (n_atoms,) 1
A        ``atoms.cell``, rows are vectors    Å
======== =================================== =======
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from etnpot.errors import SpeciesError, SpecificationError, StructureError
from etnpot.testing.evaluation import (
    ROUNDING,
    Evaluation,
    describe,
    evaluate,
    full_stress,
    require_positive,
    voigt_stress,
    working_copy,
)
from etnpot.testing.results import CheckResult, Measurement, settle

__all__ = [
    "check_inversion",
    "check_net_force",
    "check_permutation",
    "check_rotation",
    "check_species_relabelling",
    "check_supercell",
    "check_translation",
    "check_wrapping",
    "random_rotation",
]

Seed = int | np.random.Generator


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Proper rotation, uniform on SO(3), from a random unit quaternion.

    Parameters
    ----------
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of float64, shape (3, 3)
    """
    quaternion = rng.standard_normal(4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def largest(difference: NDArray[np.float64]) -> float:
    """Largest magnitude in an array; NaN if it holds one, 0 if it is empty."""
    return float(np.abs(difference).max(initial=0.0))


def compare(
    expected: Evaluation, got: Evaluation, rtol: float, *, copies: int = 1
) -> tuple[Measurement, ...]:
    """Differences of all that both evaluations hold, with the bounds of this module's docstring.

    ``copies`` divides the energy difference of a supercell, so that it is per original cell.
    """
    scale_force = max(expected.force_scale, got.force_scale)
    rounding = ROUNDING * max(abs(expected.energy), abs(got.energy)) / copies
    allowed_energy = rtol * scale_force + rounding
    difference = abs(got.energy - expected.energy) / copies
    measurements = [
        Measurement("energy", difference, allowed_energy, "eV"),
        Measurement("forces", largest(got.forces_ic - expected.forces_ic), rtol * scale_force, "eV/Å"),
    ]
    if expected.stress_v is not None and got.stress_v is not None:
        scale_stress = max(scale_force / expected.volume, largest(expected.stress_v))
        error = largest(got.stress_v - expected.stress_v)
        measurements.append(Measurement("stress", error, rtol * scale_stress, "eV/Å³"))
    if expected.energies_i is not None and got.energies_i is not None:
        error = largest(got.energies_i - expected.energies_i)
        rounding_i = ROUNDING * largest(expected.energies_i)
        measurements.append(Measurement("per-atom energies", error, rtol * scale_force + rounding_i, "eV"))
    return tuple(measurements)


def _worst_of(trials: Sequence[tuple[Measurement, ...]]) -> tuple[Measurement, ...]:
    """For each quantity the worst of several trials."""
    return tuple(
        max(same, key=lambda measurement: measurement.severity) for same in zip(*trials, strict=True)
    )


def valid_trials(n_trials: int) -> int:
    """The number of trials, if there is one at least."""
    if n_trials < 1:
        raise SpecificationError(f"n_trials must be at least 1, got {n_trials}")
    return n_trials


def _require_periodic(atoms: Atoms, check: str) -> None:
    if not atoms.pbc.any():
        raise StructureError(
            f"{check} needs at least one periodic direction, got a molecule; set pbc and cell"
        )


def check_rotation(
    atoms: Atoms,
    calculator: Any,
    *,
    n_trials: int = 3,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that energy, forces and stress follow a proper rotation of atoms and cell.

    Parameters
    ----------
    atoms : Atoms
        Structure; not changed.
    calculator : ASE calculator
        Anything with energy and forces; stress and per-atom energies are compared where offered.
    n_trials : int
        Number of random rotations.
    rtol : float
        Relative tolerance, see the module's docstring for the scales.
    seed : int or Generator
        Draws the rotations.
    raise_on_failure : bool
        Raise `PhysicsCheckError` when the check fails.

    Returns
    -------
    CheckResult
        The worst of the trials, quantity by quantity.
    """
    rng = np.random.default_rng(seed)
    require_positive("rtol", rtol)
    reference = evaluate(working_copy(atoms, calculator))
    trials = []
    for _ in range(valid_trials(n_trials)):
        rotation_cc = random_rotation(rng)
        work = working_copy(atoms, calculator)
        work.set_cell(work.cell.array @ rotation_cc.T, scale_atoms=False)
        work.set_positions(work.positions @ rotation_cc.T)
        stress_v = reference.stress_v
        if stress_v is not None:
            stress_v = voigt_stress(rotation_cc @ full_stress(stress_v) @ rotation_cc.T)
        expected = Evaluation(
            reference.energy,
            reference.forces_ic @ rotation_cc.T,
            stress_v,
            reference.energies_i,
            reference.volume,
        )
        trials.append(compare(expected, evaluate(work), rtol))
    return settle(CheckResult("check_rotation", describe(atoms), _worst_of(trials)), raise_on_failure)


def check_inversion(
    atoms: Atoms, calculator: Any, *, rtol: float = 1e-10, raise_on_failure: bool = True
) -> CheckResult:
    """Check that the mirror image has the same energy and stress, and opposite forces.

    Meaningful on chiral structures only: on one that equals its mirror image everything passes.

    Parameters
    ----------
    atoms, calculator, rtol, raise_on_failure
        As in `check_rotation`.

    Returns
    -------
    CheckResult
    """
    require_positive("rtol", rtol)
    reference = evaluate(working_copy(atoms, calculator))
    work = working_copy(atoms, calculator)
    work.set_positions(-work.positions)
    expected = Evaluation(
        reference.energy, -reference.forces_ic, reference.stress_v, reference.energies_i, reference.volume
    )
    result = CheckResult("check_inversion", describe(atoms), compare(expected, evaluate(work), rtol))
    return settle(result, raise_on_failure)


def check_translation(
    atoms: Atoms,
    calculator: Any,
    *,
    n_trials: int = 3,
    max_shift: float = 10.0,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that nothing depends on where the structure as a whole stands.

    Parameters
    ----------
    atoms, calculator, n_trials, rtol, seed, raise_on_failure
        As in `check_rotation`.
    max_shift : float
        Largest shift along each axis [Å].

    Returns
    -------
    CheckResult
    """
    rng = np.random.default_rng(seed)
    require_positive("rtol", rtol)
    require_positive("max_shift", max_shift)
    reference = evaluate(working_copy(atoms, calculator))
    trials = []
    for _ in range(valid_trials(n_trials)):
        shift_c = rng.uniform(-max_shift, max_shift, 3)
        work = working_copy(atoms, calculator)
        work.set_positions(work.positions + shift_c)
        trials.append(compare(reference, evaluate(work), rtol))
    return settle(CheckResult("check_translation", describe(atoms), _worst_of(trials)), raise_on_failure)


def check_permutation(
    atoms: Atoms,
    calculator: Any,
    *,
    n_trials: int = 3,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that the order of the atoms does not matter, and that forces and per-atom energies follow it.

    Parameters
    ----------
    atoms, calculator, n_trials, rtol, seed, raise_on_failure
        As in `check_rotation`; at least two atoms.

    Returns
    -------
    CheckResult
    """
    if len(atoms) < 2:
        raise StructureError(f"check_permutation needs at least two atoms, got {len(atoms)}; add atoms")
    rng = np.random.default_rng(seed)
    require_positive("rtol", rtol)
    reference = evaluate(working_copy(atoms, calculator))
    trials = []
    identity_i = np.arange(len(atoms))
    for _ in range(valid_trials(n_trials)):
        permutation_i = rng.permutation(len(atoms))
        while np.array_equal(permutation_i, identity_i):
            permutation_i = rng.permutation(len(atoms))
        energies_i = reference.energies_i
        expected = Evaluation(
            reference.energy,
            reference.forces_ic[permutation_i],
            reference.stress_v,
            None if energies_i is None else energies_i[permutation_i],
            reference.volume,
        )
        got = evaluate(working_copy(atoms[permutation_i], calculator))
        trials.append(compare(expected, got, rtol))
    return settle(CheckResult("check_permutation", describe(atoms), _worst_of(trials)), raise_on_failure)


def check_wrapping(
    atoms: Atoms,
    calculator: Any,
    *,
    n_trials: int = 3,
    max_cells: int = 3,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that each atom may be replaced by any of its periodic images.

    Parameters
    ----------
    atoms, calculator, n_trials, rtol, seed, raise_on_failure
        As in `check_rotation`; at least one periodic direction.
    max_cells : int
        Atoms move by up to this many lattice vectors, each by its own number, along periodic directions.

    Returns
    -------
    CheckResult
    """
    _require_periodic(atoms, "check_wrapping")
    if max_cells < 1:
        raise SpecificationError(f"max_cells must be at least 1, got {max_cells}")
    rng = np.random.default_rng(seed)
    require_positive("rtol", rtol)
    reference = evaluate(working_copy(atoms, calculator))
    trials = []
    for _ in range(valid_trials(n_trials)):
        cells_ic = rng.integers(-max_cells, max_cells + 1, (len(atoms), 3)) * atoms.pbc
        if not cells_ic.any():
            cells_ic[0] = atoms.pbc
        work = working_copy(atoms, calculator)
        work.set_positions(work.positions + cells_ic @ work.cell.array)
        trials.append(compare(reference, evaluate(work), rtol))
    return settle(CheckResult("check_wrapping", describe(atoms), _worst_of(trials)), raise_on_failure)


def check_supercell(
    atoms: Atoms,
    calculator: Any,
    *,
    repeats: int | Sequence[int] = 2,
    rtol: float = 1e-10,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check extensivity: n copies of the cell have n times the energy, equal forces and equal stress.

    Parameters
    ----------
    atoms, calculator, rtol, raise_on_failure
        As in `check_rotation`; at least one periodic direction. A cell shorter than the cutoff tests most.
    repeats : int or sequence of three int
        Copies along each direction; an int applies to the periodic ones.

    Returns
    -------
    CheckResult
        The energy error is per original cell.
    """
    _require_periodic(atoms, "check_supercell")
    require_positive("rtol", rtol)
    counts = [repeats if flag else 1 for flag in atoms.pbc] if isinstance(repeats, int) else list(repeats)
    if len(counts) != 3 or min(counts) < 1 or max(counts) < 2:
        raise SpecificationError(f"repeats must be three counts >= 1, one of them >= 2; got {repeats!r}")
    if any(count > 1 and not flag for count, flag in zip(counts, atoms.pbc, strict=True)):
        raise SpecificationError(
            f"repeats must be 1 where pbc is False; got {counts} for pbc {atoms.pbc.tolist()}"
        )
    copies = int(np.prod(counts))
    reference = evaluate(working_copy(atoms, calculator))
    energies_i = reference.energies_i
    expected = Evaluation(
        copies * reference.energy,
        np.tile(reference.forces_ic, (copies, 1)),
        reference.stress_v,
        None if energies_i is None else np.tile(energies_i, copies),
        reference.volume,
    )
    bare = working_copy(atoms, None)
    got = evaluate(working_copy(bare.repeat(counts), calculator))
    measurements = compare(expected, got, rtol, copies=copies)
    note = f"{' x '.join(map(str, counts))} copies"
    return settle(CheckResult("check_supercell", describe(atoms), measurements, (note,)), raise_on_failure)


def check_net_force(
    atoms: Atoms, calculator: Any, *, rtol: float = 1e-10, raise_on_failure: bool = True
) -> CheckResult:
    """Check that the forces add up to zero and, for a molecule, that the torques do.

    Parameters
    ----------
    atoms, calculator, raise_on_failure
        As in `check_rotation`.
    rtol : float
        Allowed net force relative to s_F = max(0.1 eV/Å, max|F|), and net torque relative to s_F times the
        larger of 1 Å and the distance from the centroid to the outermost atom.

    Returns
    -------
    CheckResult
    """
    require_positive("rtol", rtol)
    reference = evaluate(working_copy(atoms, calculator))
    net_c = reference.forces_ic.sum(axis=0)
    allowed = rtol * reference.force_scale
    measurements = [Measurement("net force", float(np.linalg.norm(net_c)), allowed, "eV/Å")]
    notes = []
    if atoms.pbc.any():
        notes.append("torque not judged: it is not conserved under periodic boundary conditions")
    else:
        arm_ic = atoms.positions - atoms.positions.mean(axis=0)
        torque_c = np.cross(arm_ic, reference.forces_ic).sum(axis=0)
        extent = max(1.0, float(np.linalg.norm(arm_ic, axis=1).max()))
        measurements.append(
            Measurement("net torque", float(np.linalg.norm(torque_c)), allowed * extent, "eV")
        )
    result = CheckResult("check_net_force", describe(atoms), tuple(measurements), tuple(notes))
    return settle(result, raise_on_failure)


def check_species_relabelling(
    atoms: Atoms,
    calculator: Any,
    relabelled: Any,
    mapping: Mapping[str, str],
    *,
    rtol: float = 1e-10,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that the names of the species carry no physics of their own.

    ``relabelled`` must be the same potential with its species renamed, such as the parameters of A and B
    exchanged. The structure with its species renamed must then give the same numbers.

    Parameters
    ----------
    atoms, calculator, rtol, raise_on_failure
        As in `check_rotation`.
    relabelled : ASE calculator
        The potential after renaming.
    mapping : mapping of str to str
        Old symbol to new symbol for every element that is renamed; one to one.

    Returns
    -------
    CheckResult
    """
    require_positive("rtol", rtol)
    present = set(atoms.get_chemical_symbols())
    unknown = sorted({*mapping, *mapping.values()} - set(atomic_numbers))
    if unknown:
        raise SpeciesError(f"mapping must hold chemical symbols, got {unknown}; correct or remove them")
    renamed = [mapping.get(symbol, symbol) for symbol in sorted(present)]
    if len(set(renamed)) != len(present):
        raise SpecificationError(f"mapping must be one to one on {sorted(present)}, got {dict(mapping)}")
    reference = evaluate(working_copy(atoms, calculator))
    work = working_copy(atoms, relabelled)
    work.set_chemical_symbols([mapping.get(symbol, symbol) for symbol in atoms.get_chemical_symbols()])
    measurements = compare(reference, evaluate(work), rtol)
    note = "renamed " + ", ".join(f"{old} to {new}" for old, new in mapping.items())
    result = CheckResult("check_species_relabelling", describe(atoms), measurements, (note,))
    return settle(result, raise_on_failure)
