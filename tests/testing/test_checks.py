"""The physics checks: they pass on sound calculators and each one fails on a calculator broken on purpose."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot import testing as physics
from etnpot.errors import SpeciesError, SpecificationError, StructureError
from etnpot.testing.derivatives import extrapolate, observed_order
from etnpot.testing.results import Measurement

SPECIES = ("Cu", "Au", "O")
CUTOFF = 4.0
DEPTH = {"Cu": 0.4, "Au": 0.7, "O": 0.3}
DENSITY = {"Cu": 1.0, "Au": 1.6, "O": 0.5}


def pairs(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """i, j, distance and vector of all pairs; for a few atoms much faster than ASE's list."""
    if atoms.pbc.any() and not atoms.pbc.all():
        return neighbor_list("ijdD", atoms, cutoff)
    r = atoms.positions[None, :] - atoms.positions[:, None]
    shifts = np.zeros((1, 3))
    if atoms.pbc.all():
        cell = atoms.cell.array
        inverse = np.linalg.inv(cell)
        r -= np.rint(r @ inverse) @ cell
        reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + 0.5).astype(int)
        shifts = (np.indices(2 * reach + 1).reshape(3, -1).T - reach) @ cell
    r = r[:, :, None, :] + shifts
    d = np.sqrt(np.einsum("ijsc,ijsc->ijs", r, r))
    i, j, s = np.nonzero((d < cutoff) & (d > 1e-8))
    return i, j, d[i, j, s], r[i, j, s]


class Sound(Calculator):
    """Morse pairs and a squared density, both times (1 - r²/r_c²)⁴: smooth, many-body, species-dependent.

    E_i = 1/2 Σ_j u(r_ij) - 0.05 ρ_i²,  ρ_i = Σ_j b_j (1 - r_ij²/r_c²)⁴.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]
    search: float = CUTOFF
    power: int = 4

    def __init__(self, depth: dict[str, float] = DEPTH, density: dict[str, float] = DENSITY) -> None:
        super().__init__()
        self.depth, self.density = depth, density

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties or ["energy"], system_changes)
        structure = self.atoms
        i, j, d, r_pc = pairs(structure, self.search)
        symbols = structure.get_chemical_symbols()
        depth = np.array([self.depth[s] for s in symbols])
        density = np.array([self.density[s] for s in symbols])
        t = np.clip(1.0 - (d / CUTOFF) ** 2, 0.0, None)
        fc, dfc = t**self.power, -2.0 * self.power * d / CUTOFF**2 * t ** (self.power - 1)
        e = np.exp(-1.5 * (d - 2.6))
        a = np.sqrt(depth[i] * depth[j])
        u, du = a * (e * e - 2 * e), a * -3.0 * (e * e - e)
        n = len(structure)
        rho = np.bincount(i, density[j] * fc, n)
        energies = 0.5 * np.bincount(i, u * fc, n) - 0.05 * rho**2
        g = 0.5 * (du * fc + u * dfc) - 0.1 * rho[i] * density[j] * dfc
        g_pc = (g / d)[:, None] * r_pc
        forces = np.zeros((n, 3))
        np.add.at(forces, i, g_pc)
        np.add.at(forces, j, -g_pc)
        energy = float(energies.sum())
        self.results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": forces}
        if structure.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(r_pc.T @ g_pc) / structure.get_volume()
        self.spoil(structure)

    def spoil(self, atoms: Atoms) -> None:
        """Change the results; a sound calculator leaves them."""

    def add_energy(self, energy: float) -> None:
        self.results["energy"] += energy
        self.results["free_energy"] += energy


class ForceComponentOff(Sound):
    def spoil(self, atoms):
        self.results["forces"].flat[np.argmax(np.abs(self.results["forces"]))] *= 1 + 1e-4


class ForceSlightlyOff(Sound):
    def spoil(self, atoms):
        self.results["forces"] *= 1 + 1e-6


class ForceSign(Sound):
    def spoil(self, atoms):
        self.results["forces"] *= -1


class StressSign(Sound):
    def spoil(self, atoms):
        self.results["stress"] *= -1


class StressComponentOff(Sound):
    def spoil(self, atoms):
        self.results["stress"][np.argmax(np.abs(self.results["stress"]))] *= 1 + 1e-4


class StressShearDoubled(Sound):
    def spoil(self, atoms):
        self.results["stress"][3:] *= 2


class StressVoigtOrder(Sound):
    def spoil(self, atoms):
        self.results["stress"] = self.results["stress"][[0, 1, 2, 5, 4, 3]]


class AnisotropicEnergy(Sound):
    def spoil(self, atoms):
        self.add_energy(1e-6 * float((self.results["forces"][:, 2] ** 2).sum()))


class AnisotropicForces(Sound):
    def spoil(self, atoms):
        self.results["forces"][:, 2] *= 1 + 1e-7


class UnrotatedStress(Sound):
    def spoil(self, atoms):
        self.results["stress"][2] *= 1 + 1e-6


class Chiral(Sound):
    """Adds a pseudoscalar: invariant under rotation, opposite under inversion."""

    def spoil(self, atoms):
        i, _, d, r_pc = pairs(atoms, CUTOFF)
        t = np.clip(1.0 - (d / CUTOFF) ** 2, 0.0, None) ** 4
        w = np.zeros((3, len(atoms), 3))
        for k in range(3):
            np.add.at(w[k], i, (t * d**k)[:, None] * r_pc)
        self.add_energy(1e-5 * float(np.einsum("ic,ic->", w[0], np.cross(w[1], w[2]))))


class InvertedForces(Sound):
    """Forces with a part that does not change sign under inversion."""

    def spoil(self, atoms):
        self.results["forces"] += 1e-7 * self.results["forces"] ** 2


class OrderDependent(Sound):
    def spoil(self, atoms):
        self.add_energy(1e-6 * float(np.arange(len(atoms)) @ self.results["energies"]))


class EnergiesSorted(Sound):
    def spoil(self, atoms):
        self.results["energies"] = np.sort(self.results["energies"])


class ForcesSorted(Sound):
    def spoil(self, atoms):
        self.results["forces"] = np.sort(self.results["forces"], axis=0)


class AbsolutePosition(Sound):
    def spoil(self, atoms):
        self.add_energy(1e-6 * float((atoms.positions**2).sum()))


class UnwrappedExtent(Sound):
    """Depends on which image is given, though not on the origin."""

    def spoil(self, atoms):
        self.add_energy(1e-6 * float(np.ptp(atoms.positions)))


class NotExtensive(Sound):
    def spoil(self, atoms):
        self.add_energy(1e-6 * np.sqrt(len(atoms)))


class StressPerAtom(Sound):
    """Stress divided by the wrong volume."""

    def spoil(self, atoms):
        self.results["stress"] *= len(atoms)


class NetForce(Sound):
    def spoil(self, atoms):
        self.results["forces"] += np.array([1e-7, 0.0, 0.0])


class NetTorque(Sound):
    def spoil(self, atoms):
        arm = atoms.positions - atoms.positions.mean(axis=0)
        self.results["forces"] += 1e-7 * np.cross(arm, [0.0, 0.0, 1.0])


class HardEnergyCutoff(Sound):
    """Ends at r_c without any cutoff function."""

    power = 0


class ContinuousForceOnly(Sound):
    """Cutoff function (1 - r²/r_c²)²: the force is continuous, its derivative jumps."""

    power = 2


class ShortNeighborList(Sound):
    """Neighbours are searched up to 0.1 Å less than the potential reaches."""

    search = CUTOFF - 0.1


class LongRange(Sound):
    def spoil(self, atoms):
        if len(atoms) > 1:
            self.add_energy(1e-6 / float(np.linalg.norm(atoms.positions[0] - atoms.positions[-1])))


class FarForces(Sound):
    def spoil(self, atoms):
        self.results["forces"] *= 1 + 1e-6 * (len(atoms) > 5)


class VolumeEnergy(Sound):
    def spoil(self, atoms):
        self.add_energy(1e-9 * atoms.cell.volume)


class LoneForce(Sound):
    def spoil(self, atoms):
        if len(atoms) == 1:
            self.results["forces"] += 1e-8


class NumberDependent(Sound):
    def spoil(self, atoms):
        self.add_energy(1e-6 * float(atoms.numbers.sum()))


class NotANumber(Sound):
    def spoil(self, atoms):
        self.add_energy(float("nan"))
        self.results["forces"][0, 0] = float("nan")
        self.results.get("stress", np.zeros(6))[0] = float("nan")


class SinglePrecision(Sound):
    def spoil(self, atoms):
        self.results["energy"] = self.results["free_energy"] = float(np.float32(self.results["energy"]))


class Raises(Sound):
    def spoil(self, atoms):
        raise RuntimeError("out of cheese")


def crystal(n_atoms: int = 5, seed: int = 1) -> Atoms:
    rng = np.random.default_rng(seed)
    return physics.random_structure(SPECIES, n_atoms, rng, min_distance=2.0, volume_per_atom=14.0)


def slab() -> Atoms:
    rng = np.random.default_rng(4)
    options = {"pbc": (True, True, False), "min_distance": 2.0, "volume_per_atom": 14.0}
    return physics.random_structure(SPECIES, 4, rng, **options)


def molecule(n_atoms: int = 4, seed: int = 2) -> Atoms:
    return physics.random_molecule(SPECIES, n_atoms, np.random.default_rng(seed), min_distance=2.0)


def relabelling(atoms: Atoms, calculator: Sound, **options: Any) -> physics.CheckResult:
    """Cu and Au exchanged, in the structure and in the parameters."""
    swap = {"Cu": "Au", "Au": "Cu"}
    depth, density = ({swap.get(s, s): x for s, x in table.items()} for table in (DEPTH, DENSITY))
    other = type(calculator)(depth, density)
    return physics.check_species_relabelling(atoms, calculator, other, swap, **options)


def separation(atoms: Atoms, calculator: Any, **options: Any) -> physics.CheckResult:
    return physics.check_separation(atoms, molecule(3, 7), calculator, CUTOFF, **options)


def separated_groups(atoms: Atoms, calculator: Any, **options: Any) -> physics.CheckResult:
    return physics.check_separation(atoms, molecule(3, 7), calculator, CUTOFF, grouped=True, **options)


def isolated(atoms: Atoms, calculator: Any, **options: Any) -> physics.CheckResult:
    return physics.check_isolated_atom(atoms.get_chemical_symbols()[:2], calculator, CUTOFF, **options)


def smoothness(atoms: Atoms, calculator: Any, **options: Any) -> physics.CheckResult:
    return physics.check_cutoff_smoothness(atoms, calculator, CUTOFF, **options)


def dimer(atoms: Atoms, calculator: Any, **options: Any) -> physics.CheckResult:
    return physics.check_cutoff_smoothness(("Cu", "Au"), calculator, CUTOFF, **options)


# every check with the structures on which it must pass
SOUND = {
    "forces": (physics.check_forces, (crystal, molecule)),
    "stress": (physics.check_stress, (crystal,)),
    "rotation": (physics.check_rotation, (crystal, molecule, slab)),
    "inversion": (physics.check_inversion, (crystal, molecule)),
    "translation": (physics.check_translation, (crystal, molecule)),
    "permutation": (physics.check_permutation, (crystal, molecule)),
    "wrapping": (physics.check_wrapping, (crystal, slab)),
    "supercell": (physics.check_supercell, (crystal, slab)),
    "net force": (physics.check_net_force, (crystal, molecule, slab)),
    "relabelling": (relabelling, (crystal, molecule)),
    "separation": (separation, (molecule,)),
    "separated groups": (separated_groups, (molecule,)),
    "isolated": (isolated, (molecule,)),
    "smoothness": (smoothness, (crystal, molecule)),
    "dimer": (dimer, (molecule,)),
}

# check, broken calculator, structure, and the measurement that must give it away
BROKEN = [
    ("forces", ForceComponentOff, crystal, "largest error of the derivative"),
    ("forces", ForceComponentOff, crystal, "deviation from second order"),
    ("forces", ForceSlightlyOff, molecule, "largest error of the derivative"),
    ("forces", ForceSign, molecule, "largest error of the derivative"),
    ("forces", AnisotropicEnergy, molecule, "largest error of the derivative"),
    ("forces", ShortNeighborList, None, "largest error of the derivative"),
    ("stress", StressSign, crystal, "largest error of the derivative"),
    ("stress", StressComponentOff, crystal, "largest error of the derivative"),
    ("stress", StressShearDoubled, crystal, "largest error of the derivative"),
    ("stress", StressVoigtOrder, crystal, "largest error of the derivative"),
    ("rotation", AnisotropicEnergy, crystal, "energy"),
    ("rotation", AnisotropicForces, molecule, "forces"),
    ("rotation", UnrotatedStress, crystal, "stress"),
    ("inversion", Chiral, crystal, "energy"),
    ("inversion", Chiral, molecule, "energy"),
    ("inversion", InvertedForces, molecule, "forces"),
    ("translation", AbsolutePosition, crystal, "energy"),
    ("permutation", OrderDependent, molecule, "energy"),
    ("permutation", EnergiesSorted, crystal, "per-atom energies"),
    ("permutation", ForcesSorted, crystal, "forces"),
    ("wrapping", AbsolutePosition, crystal, "energy"),
    ("wrapping", UnwrappedExtent, crystal, "energy"),
    ("supercell", NotExtensive, crystal, "energy"),
    ("supercell", EnergiesSorted, crystal, "per-atom energies"),
    ("supercell", StressPerAtom, crystal, "stress"),
    ("net force", NetForce, crystal, "net force"),
    ("net force", NetTorque, molecule, "net torque"),
    ("relabelling", NumberDependent, crystal, "energy"),
    ("separation", LongRange, molecule, "energy"),
    ("separation", FarForces, molecule, "forces"),
    ("separated groups", LongRange, molecule, "energy"),
    ("separated groups", FarForces, molecule, "forces"),
    ("isolated", VolumeEnergy, molecule, "energy spread of"),
    ("isolated", LoneForce, molecule, "force on"),
    ("smoothness", HardEnergyCutoff, crystal, "jump of the energy"),
    ("smoothness", HardEnergyCutoff, molecule, "jump of the force"),
    ("smoothness", ContinuousForceOnly, crystal, "jump of the force derivative"),
    ("smoothness", ContinuousForceOnly, molecule, "jump of the force derivative"),
    ("dimer", HardEnergyCutoff, molecule, "jump of the energy"),
    ("dimer", ContinuousForceOnly, molecule, "jump of the force derivative"),
    ("dimer", ShortNeighborList, molecule, "largest jump of the force nearby"),
]


def at_the_list_edge() -> Atoms:
    """A dimer that crosses the edge of the short neighbour list while it is differentiated."""
    return Atoms("CuAu", positions=[[0, 0, 0], [CUTOFF - 0.1 - 1e-4, 0.0, 0.0]])


@pytest.mark.parametrize("name", SOUND)
def test_sound_calculator_passes(name: str) -> None:
    check, structures = SOUND[name]
    for make in structures:
        result = check(make(), Sound())
        assert result and result.passed, str(result)
        assert len(result.measurements) >= 1


@pytest.mark.parametrize(("name", "calculator", "make", "quantity"), BROKEN)
def test_broken_calculator_fails(name: str, calculator: type[Sound], make: Any, quantity: str) -> None:
    check = SOUND[name][0]
    atoms = at_the_list_edge() if make is None else make()
    with pytest.raises(physics.PhysicsCheckError, match="FAILED") as caught:
        check(atoms, calculator())
    result: Any = caught.value.result
    assert not result and str(caught.value) == str(result)
    culprits = [m for m in result.measurements if m.quantity.startswith(quantity)]
    assert culprits and not all(m.passed for m in culprits), str(result)


@pytest.mark.parametrize("name", SOUND)
def test_nan_never_passes(name: str) -> None:
    check, structures = SOUND[name]
    result = check(structures[0](), NotANumber(), raise_on_failure=False)
    assert not result.passed
    assert "nan" in str(result)


@pytest.mark.parametrize("name", SOUND)
def test_caller_atoms_are_left_alone(name: str) -> None:
    check, structures = SOUND[name]
    for make in structures:
        atoms, calculator = make(), Sound()
        atoms.set_constraint(FixAtoms([0]))
        atoms.info["key"] = "value"
        atoms.calc = own = Sound()
        before, arrays = atoms.copy(), {key: value.copy() for key, value in atoms.arrays.items()}
        # a fixed atom would have a force of zero if constraints were not ignored, and fail
        assert check(atoms, calculator).passed
        assert atoms.calc is own and not own.results
        assert atoms == before and atoms.info == before.info and len(atoms.constraints) == 1
        assert set(atoms.arrays) == set(arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(atoms.arrays[key], value)


# --- calculators of ASE ---------------------------------------------------------------------------


@pytest.mark.slow
def test_morse_of_ase_passes_everything() -> None:
    calculator = MorsePotential(r0=2.5, rho0=4.0, rcut1=1.2, rcut2=1.7)
    structures = [crystal(4), molecule(4), molecule(3, 5)]
    report = physics.check_all(calculator, structures, cutoff=1.7 * 2.5, components=3, max_dimers=1)
    assert report.passed and not report.failures
    assert {result.check for result in report.results} >= {
        "check_forces",
        "check_stress",
        "check_rotation",
        "check_inversion",
        "check_translation",
        "check_permutation",
        "check_wrapping",
        "check_supercell",
        "check_net_force",
        "check_cutoff_smoothness",
        "check_separation",
        "check_isolated_atom",
    }


def test_emt_derivatives_and_symmetries() -> None:
    rng = np.random.default_rng(3)
    atoms = physics.random_structure(["Cu", "Ag", "Pt"], 4, rng)
    forces = physics.check_forces(atoms, EMT())
    assert forces["error relative to the largest component"].value < 1e-7
    assert abs(forces.order - 2.0) < 0.01
    physics.check_stress(atoms, EMT())
    physics.check_rotation(atoms, EMT(), n_trials=1)
    physics.check_supercell(atoms, EMT(), repeats=(1, 2, 1))


def test_emt_cutoff_is_seen_to_be_abrupt() -> None:
    """EMT's Fermi function is cut where it is small but not zero; the jump is found where the list ends."""
    calculator = EMT()
    calculator.get_potential_energy(Atoms("CuAu", positions=[[0, 0, 0], [2.5, 0, 0]]))
    options = {"raise_on_failure": False}
    result = physics.check_cutoff_smoothness(("Cu", "Au"), calculator, calculator.rc_list, **options)
    assert not result["jump of the force"].passed


def test_lennard_jones_smooth_and_shifted() -> None:
    """Smoothed: continuous force, jump of its derivative. Shifted: continuous energy, jump of the force."""
    smooth = LennardJones(sigma=2.0, rc=5.0, smooth=True)
    shifted = LennardJones(sigma=2.0, rc=5.0)
    pair = ("Cu", "Cu")
    assert physics.check_cutoff_smoothness(pair, smooth, 5.0, continuous_derivatives=1).passed
    result = physics.check_cutoff_smoothness(pair, smooth, 5.0, raise_on_failure=False)
    assert [m.passed for m in result.measurements[:3]] == [True, True, False]
    assert physics.check_cutoff_smoothness(pair, shifted, 5.0, continuous_derivatives=0).passed
    result = physics.check_cutoff_smoothness(pair, shifted, 5.0, raise_on_failure=False)
    assert [m.passed for m in result.measurements[:2]] == [True, False]
    # the measured jump is the force at the cutoff: 24 ε/r (2 (σ/r)^12 - (σ/r)^6)
    expected = abs(24 / 5.0 * (2 * 0.4**12 - 0.4**6))
    direction = physics.random_rotation(np.random.default_rng(0))[0]
    assert result["jump of the force"].value == pytest.approx(expected * np.abs(direction).max(), rel=1e-6)


def test_lennard_jones_passes_derivatives_and_symmetries() -> None:
    calculator = LennardJones(sigma=2.0, rc=12.0, smooth=True)  # no pair near the kinks of its cutoff
    atoms = molecule(5)
    assert physics.check_forces(atoms, calculator).passed
    assert physics.check_net_force(atoms, calculator).passed
    assert physics.check_permutation(atoms, calculator).passed


# --- the h-sweep ----------------------------------------------------------------------------------


def test_plain_central_difference_is_second_order_and_extrapolation_reaches_rounding() -> None:
    result = physics.check_forces(crystal(), Sound())
    ratios = result.sweep_errors[:-1] / result.sweep_errors[1:]
    np.testing.assert_allclose(ratios, 4.0, rtol=0.02)
    assert abs(result.order - 2.0) < 0.01
    assert result["error relative to the largest component"].value < 1e-8
    assert len(result.labels) == len(result.analytic) == len(result.numeric) == 15
    assert np.all(np.abs(result.numeric - result.analytic) <= 10 * result.uncertainty + 1e-10)


def test_wrong_derivative_that_meets_one_step_exactly_is_rejected() -> None:
    """Cause to guard against: choosing the step that agrees best would call this derivative exact."""
    steps = np.array([0.08, 0.04, 0.02, 0.01])
    difference = (np.exp(steps) - np.exp(-steps)) / (2 * steps)
    wrong = difference[1]
    value, error = extrapolate(difference[:, None], steps)
    assert abs(value[0] - 1.0) < 1e-12 and error[0] < 1e-9
    assert abs(value[0] - wrong) > 1e-4
    assert observed_order(np.abs(difference - 1.0), steps, 1e-16 / steps) == pytest.approx(2.0, abs=0.01)
    assert abs(observed_order(np.abs(difference - 0.99 * wrong), steps, 1e-16 / steps) - 2.0) > 0.5


def test_observed_order_knows_its_limits() -> None:
    steps = np.array([0.4, 0.2, 0.1])
    assert observed_order(steps**1, steps, 1e-12 * steps) == pytest.approx(1.0)
    assert observed_order(steps**4, steps, 1e-12 * steps) == pytest.approx(4.0)
    assert np.isnan(observed_order(steps**2, steps, steps**2))


def test_noise_is_measured_and_single_precision_passes_with_settings_that_suit_it() -> None:
    atoms = molecule()
    strict = physics.check_forces(atoms, SinglePrecision(), raise_on_failure=False)
    assert not strict.passed and "noisy" in str(strict)
    assert 1e-9 < strict.noise < 1e-6
    loose = physics.check_forces(atoms, SinglePrecision(), steps=(0.1, 0.07, 0.05), rtol=1e-3)
    assert loose.passed


def test_component_subset_is_seeded() -> None:
    atoms = molecule()
    first = physics.check_forces(atoms, Sound(), components=3, seed=5)
    again = physics.check_forces(atoms, Sound(), components=3, seed=5)
    assert first.labels == again.labels and len(first.labels) == 3
    assert len(physics.check_forces(atoms, Sound(), components=[(2, 1)]).labels) == 1


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: physics.check_stress(molecule(), Sound()), StructureError, "all three dimensions"),
        (lambda: physics.check_wrapping(molecule(), Sound()), StructureError, "periodic direction"),
        (lambda: physics.check_supercell(molecule(), Sound()), StructureError, "periodic direction"),
        (lambda: physics.check_supercell(crystal(), Sound(), repeats=1), SpecificationError, "repeats"),
        (
            lambda: physics.check_separation(crystal(), molecule(), Sound(), 4.0),
            StructureError,
            "two molecules",
        ),
        (lambda: physics.check_forces(Atoms(), Sound()), StructureError, "at least one atom"),
        (
            lambda: physics.check_forces(Atoms("Cu", positions=[[np.nan, 0, 0]]), Sound()),
            StructureError,
            "finite",
        ),
        (
            lambda: physics.check_forces(molecule(), Sound(), steps=(0.1, 0.2, 0.3)),
            SpecificationError,
            "decreas",
        ),
        (lambda: physics.check_forces(molecule(), Sound(), steps=(0.2, 0.1)), SpecificationError, "three"),
        (lambda: physics.check_forces(molecule(), Sound(), components="some"), SpecificationError, "'all'"),
        (lambda: physics.check_forces(molecule(), Sound(), components=[(9, 0)]), SpecificationError, "0..3"),
        (lambda: physics.check_forces(molecule(), Sound(), components=0), SpecificationError, "at least 1"),
        (lambda: physics.check_rotation(molecule(), Sound(), rtol=0.0), SpecificationError, "rtol"),
        (lambda: physics.check_rotation(molecule(), Sound(), n_trials=0), SpecificationError, "n_trials"),
        (lambda: physics.check_wrapping(crystal(), Sound(), max_cells=0), SpecificationError, "max_cells"),
        (lambda: physics.check_permutation(Atoms("Cu"), Sound()), StructureError, "two atoms"),
        (lambda: physics.check_cutoff_smoothness(("Cu",), Sound(), 4.0), SpecificationError, "two chemical"),
        (lambda: physics.check_cutoff_smoothness(Atoms("Cu"), Sound(), 4.0), StructureError, "two atoms"),
        (lambda: physics.check_cutoff_smoothness(molecule(), Sound(), -1.0), SpecificationError, "cutoff"),
        (lambda: physics.check_isolated_atom("Cu", Sound()), SpeciesError, "sequence"),
        (lambda: physics.check_isolated_atom(["Qq"], Sound()), SpeciesError, "Qq"),
        (lambda: physics.check_all(Sound()), SpecificationError, "structures or species"),
        (lambda: physics.check_all(Sound(), []), SpecificationError, "at least one"),
        (
            lambda: physics.check_species_relabelling(molecule(), Sound(), Sound(), {"Cu": "Au"}),
            SpecificationError,
            "one to one",
        ),
        (
            lambda: physics.check_species_relabelling(molecule(), Sound(), Sound(), {"Cu": "Qq"}),
            SpeciesError,
            "Qq",
        ),
        (lambda: physics.random_structure([], 3, np.random.default_rng(0)), SpeciesError, "non-empty"),
        (lambda: physics.random_structure(["Qq"], 3, np.random.default_rng(0)), SpeciesError, "Qq"),
        (lambda: physics.random_molecule(["Cu"], 0, np.random.default_rng(0)), SpecificationError, "n_atoms"),
        (
            lambda: physics.random_structure(["Cu"], 9, np.random.default_rng(0), volume_per_atom=1.0),
            StructureError,
            "too dense",
        ),
        (
            lambda: physics.random_structure(
                ["Cu"], 1, np.random.default_rng(0), min_distance=3.0, volume_per_atom=8.0
            ),
            StructureError,
            "periodic images",
        ),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# --- results and report ---------------------------------------------------------------------------


def test_known_isolated_energies_are_compared() -> None:
    assert physics.check_isolated_atom(["Cu"], Sound(), expected={"Cu": 0.0}).passed
    with pytest.raises(physics.PhysicsCheckError, match="energy of Cu"):
        physics.check_isolated_atom(["Cu"], Sound(), expected={"Cu": 1e-6})


def test_result_is_readable_and_error_survives_pickling() -> None:
    with pytest.raises(physics.PhysicsCheckError) as caught:
        physics.check_forces(molecule(), ForceSign())
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, AssertionError) and str(error) == str(caught.value)
    assert "worst component atom" in str(error) and "observed order" in str(error)
    with pytest.raises(KeyError, match="largest error of the derivative"):
        error.result["no such thing"]


def test_measurement_verdicts() -> None:
    assert Measurement("q", 1.0, 1.0).passed
    assert not Measurement("q", float("nan"), float("inf")).passed
    assert Measurement("q", 5.0, float("inf")).passed
    assert Measurement("q", float("nan"), 1.0).severity == np.inf
    assert Measurement("q", 0.0, 0.0).severity == 0.0


def test_report_collects_failures_exceptions_and_omissions() -> None:
    structures = [molecule(3)]
    report = physics.check_all(NetForce(), structures, components=1, raise_on_failure=False)
    assert not report and {result.check for result in report.failures} >= {
        "check_net_force",
        "check_rotation",
    }
    text = str(report)
    assert "FAILED" in text and "no cutoff given" in text and "NetForce" in text
    with pytest.raises(physics.PhysicsCheckError, match="check_net_force"):
        physics.check_all(NetForce(), structures, components=1)
    # cause: ASE's cache kept what a failed calculation had stored, and the next check passed on it
    raised = physics.check_all(Raises(), structures, raise_on_failure=False)
    assert not any(result.passed for result in raised.results)
    assert "RuntimeError: out of cheese" in str(raised)
    assert not physics.Report("nothing", ()).passed


def test_check_all_makes_its_own_structures() -> None:
    report = physics.check_all(Sound(), species=SPECIES[:2], cutoff=CUTOFF, components=2, max_dimers=1)
    assert report.passed
    assert any("pbc TTT" in result.subject for result in report.results)
    assert any("other dimers" in subject for _, subject, _ in report.skipped)


# --- random structures ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_atoms=st.integers(1, 12),
    n_species=st.integers(1, 4),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    triclinic=st.booleans(),
)
def test_random_structure_keeps_its_promises(
    seed: int, n_atoms: int, n_species: int, pbc: tuple[bool, bool, bool], triclinic: bool
) -> None:
    species = ["Cu", "Au", "O", "H"][:n_species]
    options = {"triclinic": triclinic, "pbc": pbc, "min_distance": 1.8, "volume_per_atom": 8.0}
    atoms = physics.random_structure(species, n_atoms, np.random.default_rng(seed), **options)
    again = physics.random_structure(species, n_atoms, np.random.default_rng(seed), **options)
    assert atoms == again and len(atoms) == n_atoms and tuple(atoms.pbc) == pbc
    assert atoms.get_volume() == pytest.approx(8.0 * n_atoms)
    assert len(set(atoms.get_chemical_symbols())) >= min(n_atoms, n_species)
    assert len(neighbor_list("d", atoms, 1.8 - 1e-9)) == 0  # ASE's list knows images and self-images
    off_diagonal = atoms.cell.array - np.diag(np.diag(atoms.cell.array))
    assert triclinic == bool(np.abs(off_diagonal).max() > 1e-6)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), n_atoms=st.integers(1, 12))
def test_random_molecule_is_connected_and_open(seed: int, n_atoms: int) -> None:
    atoms = physics.random_molecule(["C", "H"], n_atoms, np.random.default_rng(seed), min_distance=1.0)
    assert not atoms.pbc.any() and len(atoms) == n_atoms
    distances = atoms.get_all_distances() + 10.0 * np.eye(n_atoms)
    assert distances.min() >= 1.0 - 1e-12
    if n_atoms > 1:
        assert distances.min(axis=1).max() <= 1.4 + 1e-12


def test_defaults_suit_the_elements(rng: np.random.Generator) -> None:
    for species in (["H"], ["C", "O"], ["Cu", "Au", "Pt"]):
        atoms = physics.random_structure(species, 10, rng)
        shortest = neighbor_list("d", atoms, 2 * physics.default_min_distance(species)).min()
        assert shortest >= physics.default_min_distance(species) - 1e-9
        assert atoms.get_volume() == pytest.approx(10 * physics.default_volume_per_atom(species))


def test_random_rotation_is_proper(rng: np.random.Generator) -> None:
    for _ in range(10):
        rotation = physics.random_rotation(rng)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-15)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
