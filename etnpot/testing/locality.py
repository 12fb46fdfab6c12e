"""Checks of a finite range: smoothness at the cutoff, separation, isolated atoms.

**Smoothness.** One atom is carried along a line through a pair distance r = r_c, at r = r_c + s. On each
side of s = 0 energy and forces are smooth; with k points per side, s = ±h, ±2h, ..., ±kh, the polynomial
through each side gives the one-sided limits of a function g(s) and of its derivative, and

    J_p = |d^p g/ds^p (0+) - d^p g/ds^p (0-)|,    error of order h^(k-p),

is the jump of the p-th derivative. For an energy with two continuous derivatives, J_0 of the energy, J_0
of the forces and J_1 of the forces vanish. Values of the two sides never mix, so a jump of a higher
derivative, which any finite cutoff has, does not blur the result. h is refined, and the estimate whose own
error estimate (against the polynomial of one degree less) is smallest is taken.

For a dimer the neighbourhood of r_c is also scanned for a jump of the force at any other distance, as a
neighbour list shorter than the potential leaves behind: fourth differences (at a jump J they are at most 3
J; where g is smooth they vanish as h⁴) point at suspicious distances, and zooming in tells a jump, which
stays, from a steep slope, which fades.

**Separation.** Two fragments further apart than the cutoff: E(A+B) = E(A) + E(B), the same for forces and
E_i.

**Isolated atom.** E is the same wherever the atom stands, and in an empty periodic box wider than the
cutoff; F = 0.

======== ================================ ======
symbol   variable                         unit
======== ================================ ======
r_c      ``cutoff``                       Å
s        ``s``                            Å
h        ``h``                            Å
k        ``_POINTS``                      1
g        ``observables``                  eV, eV/Å
J_p      ``jump``                         eV/Å^p, eV/Å^(1+p)
======== ================================ ======
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from etnpot.errors import SpecificationError, StructureError
from etnpot.neighbors import POOL_GROUP
from etnpot.testing.evaluation import ROUNDING, Evaluation, describe, evaluate, require_positive, working_copy
from etnpot.testing.results import CheckResult, Measurement, settle
from etnpot.testing.structures import checked_species
from etnpot.testing.symmetries import Seed, compare, largest, random_rotation

__all__ = ["check_cutoff_smoothness", "check_isolated_atom", "check_separation"]

#: Points on each side of the cutoff.
_POINTS = 6

#: Step sizes of the one-sided extrapolation [Å].
SMOOTHNESS_STEPS: tuple[float, ...] = (4e-3, 2e-3, 1e-3)

#: Scan for other jumps: first step [Å], refinement factor, number of refinements, distances followed up.
_SCAN_STEP, _SCAN_FACTOR, _SCAN_LEVELS, _SCAN_CANDIDATES = 0.02, 8, 5, 2

Observables = Callable[[float], tuple[float, NDArray[np.float64]]]


def _one_sided_weights(n_points: int, p: int) -> NDArray[np.float64]:
    """Weights of g(1), g(2), ..., g(n) that give the p-th derivative at 0 of the polynomial through them."""
    powers = np.vander(np.arange(1.0, n_points + 1.0), increasing=True)
    target = np.zeros(n_points)
    target[p] = math.factorial(p)
    return np.linalg.solve(powers.T, target)


def _jump(
    below_sk: NDArray[np.float64], above_sk: NDArray[np.float64], h: float, p: int
) -> tuple[float, float]:
    """Largest jump over the columns of the p-th derivative between two sides, and its error estimate.

    ``below_sk[n]`` and ``above_sk[n]``, shape (n_points, n_functions), hold g(-(n+1) h) and g(+(n+1) h).
    """
    n_points = len(below_sk)
    jumps = []
    for points in (n_points, n_points - 1):
        weights = _one_sided_weights(points, p) / h**p
        below_k = (-1.0) ** p * (weights @ below_sk[:points])
        jumps.append(weights @ above_sk[:points] - below_k)
    return largest(jumps[0]), largest(jumps[0] - jumps[1])


def _jumps_at_cutoff(observables: Observables, scale: float) -> tuple[tuple[float, float, float], str]:
    """Jumps of energy, forces and force derivatives at s = 0 [eV, eV/Å, eV/Å²], and a note on the refinement.

    The same offsets serve energy and forces. ``scale`` is the force scale [eV/Å], for the note only.
    """
    estimates: list[list[tuple[float, float]]] = [[], [], []]
    for h in SMOOTHNESS_STEPS:
        below = [observables(-n * h) for n in range(1, _POINTS + 1)]
        above = [observables(n * h) for n in range(1, _POINTS + 1)]
        energy = [np.array([[e] for e, _ in side]) for side in (below, above)]
        forces = [np.array([f for _, f in side]) for side in (below, above)]
        estimates[0].append(_jump(energy[0], energy[1], h, 0))
        estimates[1].append(_jump(forces[0], forces[1], h, 0))
        estimates[2].append(_jump(forces[0], forces[1], h, 1))
    best = [
        float("nan") if np.isnan(column).any() else min(column, key=lambda pair: pair[1])[0]
        for column in estimates
    ]
    sweep = ", ".join(
        f"{h:.0e} Å: {pair[0]:.1e}" for h, pair in zip(SMOOTHNESS_STEPS, estimates[2], strict=True)
    )
    note = f"jump of the force derivative by step: {sweep} eV/Å²; force scale {scale:.3g} eV/Å"
    return (best[0], best[1], best[2]), note


def _scan(observables: Observables, low: float, high: float) -> tuple[float, float]:
    """Largest jump of the forces for s in [low, high] [eV/Å] and the s where it is [Å]."""

    def fourth_differences(grid: NDArray[np.float64]) -> NDArray[np.float64]:
        """Largest |Δ⁴ F| / 3 around each inner point of the grid [eV/Å]."""
        forces = np.array([observables(float(s))[1] for s in grid])
        return np.asarray(np.abs(np.diff(forces, n=4, axis=0)).max(axis=1) / 3.0)

    grid = np.arange(low, high, _SCAN_STEP)
    size = fourth_differences(grid)
    worst, where = 0.0, low
    for _ in range(_SCAN_CANDIDATES):
        centre = int(np.argmax(size))
        s, h = float(grid[centre + 2]), _SCAN_STEP
        size[max(0, centre - 4) : centre + 5] = 0.0
        for _ in range(_SCAN_LEVELS):
            fine = s + h / _SCAN_FACTOR * np.arange(-1.5 * _SCAN_FACTOR, 1.5 * _SCAN_FACTOR + 1.0)
            fine_size = fourth_differences(fine)
            best = int(np.argmax(fine_size))
            s, h = float(fine[best + 2]), h / _SCAN_FACTOR
        if np.isnan(fine_size[best]) or fine_size[best] > worst:
            worst, where = float(fine_size[best]), s
    return worst, where


def _dimer_path(
    symbols: Sequence[str], calculator: Any, cutoff: float, rng: np.random.Generator
) -> tuple[Atoms, Any]:
    """A dimer in a random direction and the function that sets its distance to cutoff + s."""
    if len(symbols) != 2:
        raise SpecificationError(f"a dimer has two chemical symbols, got {list(symbols)}; or give an Atoms")
    dimer = Atoms(checked_species(symbols), positions=np.zeros((2, 3)), calculator=calculator)
    direction_c = random_rotation(rng)[0]

    def place(s: float) -> None:
        dimer.positions[1] = (cutoff + s) * direction_c

    return dimer, place


def _crowd_path(atoms: Atoms, calculator: Any, cutoff: float, reach: float) -> tuple[Atoms, Any, str]:
    """A structure with one pair moved onto the cutoff, and the function that moves that pair to cutoff + s.

    Of all pairs near the cutoff, the one is taken that has to move least while no other pair of the moving
    atom crosses the cutoff for \\|s\\| <= ``reach`` and no two atoms come closer than 0.8 of the shortest
    distance.
    """
    from ase.neighborlist import neighbor_list  # imports scipy

    work = working_copy(atoms, calculator)
    if len(work) < 2:
        raise StructureError(
            f"check_cutoff_smoothness needs at least two atoms, got {len(work)}; give a dimer"
        )
    search = 1.5 * cutoff
    i_p, j_p, d_p, r_pc = neighbor_list("ijdD", atoms, search)
    shortest = float(d_p.min(initial=np.inf))
    pairs = np.nonzero(i_p != j_p)[0]
    for p in pairs[np.argsort(np.abs(d_p[pairs] - cutoff))][:200]:
        j, direction_c = int(j_p[p]), r_pc[p] / d_p[p]
        start_c = atoms.positions[j] + (cutoff - d_p[p]) * direction_c
        trial = working_copy(atoms, None)
        trial.positions[j] = start_c
        at, to, distances = neighbor_list("ijd", trial, cutoff + 3.0 * reach)
        others = distances[(at == j) & (to != j)]
        # the pair itself is at the cutoff to rounding; any other one must stay clear of it along the path
        near = np.sort(np.abs(others - cutoff))
        if len(near) > 1 and near[1] <= 1.5 * reach:
            continue
        if others.min(initial=np.inf) - reach < 0.8 * min(shortest, cutoff):
            continue

        def place(s: float, j: int = j, start_c: Any = start_c, direction_c: Any = direction_c) -> None:
            work.positions[j] = start_c + s * direction_c

        symbols = atoms.get_chemical_symbols()
        note = f"atom {j} ({symbols[j]}) carried through the cutoff of atom {i_p[p]} ({symbols[i_p[p]]})"
        return work, place, note
    raise StructureError(
        f"no pair of atoms can be carried through the distance {cutoff:g} Å without a collision or another "
        "pair crossing it too; give another structure or a dimer, such as ('Cu', 'Cu')"
    )


def check_cutoff_smoothness(
    subject: Atoms | Sequence[str],
    calculator: Any,
    cutoff: float,
    *,
    continuous_derivatives: int = 2,
    rtol: float = 1e-6,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that energy and forces are smooth where an atom crosses the cutoff of another.

    Parameters
    ----------
    subject : Atoms or two chemical symbols
        A structure, one pair of which is moved onto the cutoff; or a dimer, whose distance is also scanned
        from 3/4 of the cutoff to 1/4 Å beyond it for a jump at any other distance.
    calculator : ASE calculator
        Anything with energy and forces.
    cutoff : float
        Distance r_c at which the interaction ends [Å].
    continuous_derivatives : {0, 1, 2}
        Continuous derivatives of the energy that are demanded: 1 for continuous forces, 2 for continuous
        force derivatives. Jumps of higher ones are reported and not judged.
    rtol : float
        Allowed jump of the force relative to the largest force between r_c/2 and r_c for a dimer, or in
        the structure (where the virial divided by r_c counts as a force too, if there is a stress); the
        jumps of the energy and of the force derivative are relative to the same force times or divided by
        1 Å.
    seed : int or Generator
        Draws the direction of the dimer.
    raise_on_failure : bool
        Raise `PhysicsCheckError` when the check fails.

    Returns
    -------
    CheckResult
    """
    require_positive("cutoff", cutoff)
    require_positive("rtol", rtol)
    if continuous_derivatives not in (0, 1, 2):
        raise SpecificationError(f"continuous_derivatives must be 0, 1 or 2, got {continuous_derivatives!r}")
    reach = _POINTS * SMOOTHNESS_STEPS[0]
    is_dimer = not isinstance(subject, Atoms)
    notes = []
    if isinstance(subject, Atoms):
        atoms, place, path_note = _crowd_path(subject, calculator, cutoff, reach)
        notes.append(path_note)
        name = describe(subject)
    else:
        atoms, place = _dimer_path(subject, calculator, cutoff, np.random.default_rng(seed))
        name = f"dimer {'-'.join(subject)}"

    def observables(s: float) -> tuple[float, NDArray[np.float64]]:
        place(s)
        result = evaluate(atoms)
        columns = result.forces_ic.ravel()
        if result.stress_v is not None:
            # the virial per Å has the unit of a force and is as smooth as one
            columns = np.concatenate([columns, result.stress_v * result.volume / cutoff])
        return result.energy, columns

    sample = np.linspace(-0.5 * cutoff, 0.0, 17) if is_dimer else np.array([-reach, reach])
    samples = [observables(float(s)) for s in sample]
    scale = max(float(np.abs(forces).max()) for _, forces in samples)
    rounding = ROUNDING * max(abs(energy) for energy, _ in samples)
    jumps, sweep_note = _jumps_at_cutoff(observables, scale)
    notes.append(sweep_note)
    # extrapolation multiplies rounding errors by the sum of its weights
    amplification = 2.0 * float(np.abs(_one_sided_weights(_POINTS, 0)).sum())
    floor_energy = amplification * rounding
    floor_force = max(rtol * scale, 1e-12)
    allowed = [rtol * scale + floor_energy, floor_force, max(floor_force, 1e-10)]
    names = ("jump of the energy", "jump of the force", "jump of the force derivative")
    measurements = [
        Measurement(quantity, jumps[p], allowed[p] if p <= continuous_derivatives else float("inf"), unit)
        for p, (quantity, unit) in enumerate(zip(names, ("eV", "eV/Å", "eV/Å²"), strict=True))
    ]
    if is_dimer:
        jump, where = _scan(observables, -0.25 * cutoff, 0.25)
        # at the last step of the scan an allowed kink of the force still shows a little
        kink = jumps[2] * _SCAN_STEP / _SCAN_FACTOR**_SCAN_LEVELS if continuous_derivatives < 2 else 0.0
        bound = max(10.0 * rtol * scale, 10.0 * kink, 1e-12) if continuous_derivatives > 0 else float("inf")
        measurements.append(Measurement("largest jump of the force nearby", jump, bound, "eV/Å"))
        notes.append(f"largest jump nearby at r = {cutoff + where:.6g} Å")
    result = CheckResult("check_cutoff_smoothness", name, tuple(measurements), tuple(notes))
    return settle(result, raise_on_failure)


def check_separation(
    fragment: Atoms,
    other: Atoms,
    calculator: Any,
    cutoff: float,
    *,
    gap: float = 0.5,
    grouped: bool = False,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that two molecules out of each other's reach do not feel one another.

    A model that is non-local on purpose (long-range electrostatics, a bond summed over all atoms) fails here. One that pools
    over groups of atoms does not, as long as the two molecules are different groups.

    Parameters
    ----------
    fragment, other : Atoms
        Two molecules (no periodic direction); not changed.
    calculator : ASE calculator
        Anything with energy and forces.
    cutoff : float
        Range of the interaction between atoms of different fragments [Å]; for a message-passing model its
        cutoff, whatever the number of layers, since messages need neighbours to travel along.
    gap : float
        The closest two atoms of different fragments are at least ``cutoff + gap`` apart [Å].
    grouped : bool
        Make each fragment a group of its own, by ``atoms.arrays["pool_group"]``, for a model with pooling layers.
    rtol : float
        Relative tolerance, with the scales of `etnpot.testing.symmetries`.
    seed : int or Generator
        Draws the direction in which the fragments are separated.
    raise_on_failure : bool
        Raise `PhysicsCheckError` when the check fails.

    Returns
    -------
    CheckResult
    """
    require_positive("cutoff", cutoff)
    require_positive("gap", gap)
    require_positive("rtol", rtol)
    if fragment.pbc.any() or other.pbc.any():
        raise StructureError(
            f"check_separation needs two molecules, got pbc {fragment.pbc.tolist()}, {other.pbc.tolist()}; "
            "cut clusters out of the periodic structures"
        )
    parts = []
    for number, part in enumerate((fragment, other)):
        work = working_copy(part, None)
        if grouped:
            work.set_array(POOL_GROUP, np.full(len(work), number))
        work.set_cell(None)
        work.set_positions(work.positions - work.positions.mean(axis=0))
        parts.append(work)
    extent = sum(float(np.linalg.norm(part.positions, axis=1).max()) for part in parts)
    direction_c = random_rotation(np.random.default_rng(seed))[0]
    parts[1].translate((extent + cutoff + gap) * direction_c)
    alone = [evaluate(working_copy(part, calculator)) for part in parts]
    energies = [result.energies_i for result in alone]
    expected = Evaluation(
        energy=alone[0].energy + alone[1].energy,
        forces_ic=np.concatenate([result.forces_ic for result in alone]),
        stress_v=None,
        energies_i=None
        if any(e is None for e in energies)
        else np.concatenate([e for e in energies if e is not None]),
        volume=0.0,
    )
    together = evaluate(working_copy(parts[0] + parts[1], calculator))
    subject = f"{fragment.get_chemical_formula()} + {other.get_chemical_formula()}"
    result = CheckResult("check_separation", subject, compare(expected, together, rtol))
    return settle(result, raise_on_failure)


def check_isolated_atom(
    species: Sequence[str],
    calculator: Any,
    cutoff: float | None = None,
    *,
    expected: Mapping[str, float] | None = None,
    rtol: float = 1e-10,
    seed: Seed = 0,
    raise_on_failure: bool = True,
) -> CheckResult:
    """Check that a lone atom of each species has one energy, wherever it is, and no force.

    Parameters
    ----------
    species : sequence of str
        Chemical symbols.
    calculator : ASE calculator
        Anything with energy and forces.
    cutoff : float, optional
        Range of the interaction [Å]. If given, the atom is also put into an empty periodic box of side
        ``2 * cutoff + 1`` Å, skewed a little.
    expected : mapping of str to float, optional
        Energies that are known [eV], compared where given.
    rtol : float
        Allowed force [eV/Å] and energy difference [eV], the latter besides 64 units of rounding.
    seed : int or Generator
        Draws the positions.
    raise_on_failure : bool
        Raise `PhysicsCheckError` when the check fails.

    Returns
    -------
    CheckResult
        Its notes list the energies.
    """
    require_positive("rtol", rtol)
    rng = np.random.default_rng(seed)
    measurements, notes = [], []
    for symbol in checked_species(species):
        variants = [Atoms(symbol), Atoms(symbol, positions=rng.uniform(-20.0, 20.0, (1, 3)))]
        if cutoff is not None:
            side = 2.0 * require_positive("cutoff", cutoff) + 1.0
            cell_cc = side * (np.eye(3) + np.triu(rng.uniform(0.0, 0.2, (3, 3)), k=1))
            variants.append(Atoms(symbol, positions=rng.uniform(0.0, side, (1, 3)), cell=cell_cc, pbc=True))
        results = [evaluate(working_copy(variant, calculator)) for variant in variants]
        energies = np.array([result.energy for result in results])
        allowed = rtol + ROUNDING * float(np.abs(energies).max())
        measurements.append(Measurement(f"energy spread of {symbol}", float(np.ptp(energies)), allowed, "eV"))
        force = max(largest(result.forces_ic) for result in results)
        measurements.append(Measurement(f"force on {symbol}", force, rtol, "eV/Å"))
        if expected is not None and symbol in expected:
            error = abs(float(energies[0]) - expected[symbol])
            measurements.append(Measurement(f"energy of {symbol}", error, allowed, "eV"))
        notes.append(f"E({symbol}) = {energies[0]:.10g} eV")
    result = CheckResult("check_isolated_atom", ", ".join(species), tuple(measurements), tuple(notes))
    return settle(result, raise_on_failure)
