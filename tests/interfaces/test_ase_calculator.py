"""The ASE calculator: the potential's numbers, in any cell, through everything that ASE does to it."""

from __future__ import annotations

import copy
import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import full_3x3_to_voigt_6_stress

import etnpot
from etnpot.errors import (
    ExtrapolationWarning,
    PotentialFileNotFoundError,
    SpeciesError,
    SpecificationError,
    StructureError,
)
from etnpot.neighbors import neighbor_list
from etnpot.testing import (
    FORCE_STEPS,
    STRAIN_STEPS,
    check_all,
    check_forces,
    check_stress,
    random_structure,
)

ROOT = Path(__file__).parents[2]
ALL = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]


@pytest.fixture(scope="module")
def potential() -> etnpot.Potential:
    return etnpot.ETN(
        ["Al", "Ni", "Cu", "Ag"], cutoff=4.0, order=3, l_max=2, ranks=3, channels=3, radial_size=5, seed=1,
        reference_energies={"Al": -1.0, "Ni": -2.5, "Cu": -3.25, "Ag": 0.75},
    )  # fmt: skip


@pytest.fixture
def calculator(potential: etnpot.Potential) -> etnpot.ETNCalculator:
    return etnpot.ETNCalculator(potential)


def alloy(rng: np.random.Generator, repeat: int = 2) -> Atoms:
    """A rattled, sheared four-element fcc crystal of 4 repeat³ atoms."""
    atoms = bulk("Cu", cubic=True) * repeat
    atoms.numbers = rng.choice([13, 28, 29, 47], len(atoms))
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0.0, 0.08, atoms.positions.shape)
    return atoms


def slab(rng: np.random.Generator) -> Atoms:
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    atoms.numbers = rng.choice([13, 28, 29, 47], len(atoms))
    atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
    return atoms


def cluster(rng: np.random.Generator) -> Atoms:
    atoms = alloy(rng, 1)
    return Atoms(atoms.numbers, atoms.positions)


def skewed(rng: np.random.Generator) -> Atoms:
    """A cell far shorter than the cutoff and steeply sheared."""
    cell = [[2.6, 0.0, 0.0], [2.1, 2.9, 0.0], [1.5, -1.8, 3.1]]
    return Atoms("CuAl", [[0.1, 0.0, 0.2], [1.3, 1.6, 1.4]], cell=cell, pbc=True)


def chain(rng: np.random.Generator) -> Atoms:
    atoms = Atoms("NiAgCu", [[0, 0, 0], [0.3, 0.1, 2.2], [-0.2, 0.2, 4.5]], pbc=[False, False, True])
    atoms.cell[2] = [0.0, 0.0, 6.8]
    return atoms


SHAPES = {"crystal": alloy, "slab": slab, "cluster": cluster, "skewed": skewed, "chain": chain}


# ---------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("shape", SHAPES)
def test_results_are_those_of_the_potential(
    potential: etnpot.Potential, rng: np.random.Generator, shape: str
) -> None:
    atoms = SHAPES[shape](rng)
    evaluation = potential.evaluate(neighbor_list(atoms, potential.cutoff), atoms.numbers)
    before = atoms.copy()
    atoms.calc = etnpot.ETNCalculator(potential)
    assert atoms.get_potential_energy() == evaluation.energy
    assert atoms.get_potential_energy(force_consistent=True) == evaluation.energy
    np.testing.assert_array_equal(atoms.get_potential_energies(), evaluation.energy_i)
    np.testing.assert_array_equal(atoms.get_forces(), evaluation.forces)
    assert abs(atoms.get_forces().sum(axis=0)).max() < 1e-12
    if atoms.cell.rank == 3:
        stress = full_3x3_to_voigt_6_stress(evaluation.virial) / atoms.get_volume()
        np.testing.assert_allclose(atoms.get_stress(), stress, rtol=1e-13, atol=1e-17)
        np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), rtol=0, atol=1e-14)
    assert atoms == before  # the atoms are as they were


@pytest.mark.parametrize("shape", SHAPES)
def test_forces_are_the_slope_of_the_energy(
    calculator: etnpot.ETNCalculator, rng: np.random.Generator, shape: str
) -> None:
    atoms = SHAPES[shape](rng)
    atoms.calc = calculator
    direction = rng.normal(size=atoms.positions.shape)
    slope = -(atoms.get_forces() * direction).sum()
    start, errors = atoms.positions.copy(), []
    for h in (2e-3, 1e-3):
        energies = []
        for sign in (1, -1):
            atoms.positions = start + sign * h * direction
            energies.append(atoms.get_potential_energy())
        errors.append((energies[0] - energies[1]) / (2 * h) - slope)
    assert abs(errors[1] - (errors[0] - errors[1]) / 3) < 1e-7 * max(1.0, abs(slope))  # extrapolated to h = 0
    assert abs(errors[1]) < 1e-7 or 3.5 < errors[0] / errors[1] < 4.5  # of second order


@pytest.mark.parametrize("shape", ["crystal", "skewed", "slab"])
def test_stress_is_the_slope_of_the_energy_under_strain(
    calculator: etnpot.ETNCalculator, rng: np.random.Generator, shape: str
) -> None:
    atoms = SHAPES[shape](rng)
    atoms.calc = calculator
    stress, volume, cell = atoms.get_stress(voigt=False), atoms.get_volume(), atoms.cell.array.copy()
    for c, d in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        slopes = []
        for h in (4e-4, 2e-4):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[c, d] += sign * h / 2
                strain[d, c] += sign * h / 2
                atoms.set_cell(cell @ strain, scale_atoms=True)
                energies.append(atoms.get_potential_energy())
            slopes.append((energies[0] - energies[1]) / (2 * h) / volume)
        atoms.set_cell(cell, scale_atoms=True)
        assert abs((4 * slopes[1] - slopes[0]) / 3 - stress[c, d]) < 1e-8


@pytest.mark.parametrize("pseudotensors", [False, True])
@pytest.mark.parametrize("l_max", range(5))
@pytest.mark.parametrize("order", range(2, 6))
def test_derivatives_of_models_of_every_size(order: int, l_max: int, pseudotensors: bool) -> None:
    species = ["Al", "Ni", "Cu", "Ag"]
    potential = etnpot.ETN(
        species, cutoff=4.0, order=order, l_max=l_max, ranks=2, channels=2, radial_size=4, seed=order,
        pseudotensors=pseudotensors,
    )  # fmt: skip
    atoms = random_structure(species, 4, np.random.default_rng(100 * order + 2 * l_max + pseudotensors))
    calc = etnpot.ETNCalculator(potential, threads=1)
    check_forces(atoms, calc, steps=FORCE_STEPS[1:4])  # every component, to 1e-7
    check_stress(atoms, calc, steps=STRAIN_STEPS[1:4])


def test_all_physics_checks_pass() -> None:
    species = ["Al", "Ni", "Cu", "Ag"]
    potential = etnpot.ETN(
        species, cutoff=4.0, order=4, l_max=2, ranks=2, channels=2, radial_size=4, pseudotensors=True
    )
    calc = etnpot.ETNCalculator(potential, threads=1)
    check_all(calc, species=species, cutoff=4.0, components=3, max_dimers=3)


@pytest.mark.parametrize("symbol", ["Al", "Ni", "Cu", "Ag"])
def test_an_atom_alone_has_the_energy_of_an_empty_neighbourhood(
    potential: etnpot.Potential, symbol: str
) -> None:
    atoms = Atoms(symbol, calculator=etnpot.ETNCalculator(potential))
    # without neighbours only the constant feature is left: a product of small matrices
    constant = np.zeros((1, potential.spec.feature.dimension))
    constant[0, 0] = 1.0
    np.testing.assert_array_equal(potential.descriptors(atoms), constant)
    expected = potential.descriptors(atoms, bond=potential.spec.order)[0, 0]
    expected += potential.arrays["reference_energies"][potential.species.index(atoms.numbers[0])]
    assert atoms.get_potential_energy() == expected
    np.testing.assert_array_equal(atoms.get_forces(), np.zeros((1, 3)))

    far = Atoms([symbol] * 2, [[0, 0, 0], [0, 0, 50.0]], cell=[100.0] * 3, pbc=True, calculator=atoms.calc)
    assert far.get_potential_energy() == pytest.approx(2 * expected, rel=1e-14)
    np.testing.assert_array_equal(far.get_stress(), np.zeros(6))


def test_the_energy_is_extensive_and_the_stress_is_not(
    calculator: etnpot.ETNCalculator, rng: np.random.Generator
) -> None:
    small = skewed(rng)
    large = small * (2, 3, 2)
    energy, stress = calculator.get_potential_energy(small), calculator.get_stress(small)
    assert calculator.get_potential_energy(large) == pytest.approx(12 * energy, rel=1e-12)
    np.testing.assert_allclose(calculator.get_stress(large), stress, rtol=0, atol=1e-13)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_a_bit(
    potential: etnpot.Potential, rng: np.random.Generator, threads: int
) -> None:
    atoms = alloy(rng, 4)
    results = []
    for n_threads in (1, threads):
        calc = etnpot.ETNCalculator(potential, threads=n_threads)
        calc.calculate(atoms, ALL, all_changes)
        results.append(calc.results)
    for name in ALL:
        np.testing.assert_array_equal(results[0][name], results[1][name])


# ------------------------------------------------------------------------------------ stress without a volume


def test_a_molecule_has_no_stress(calculator: etnpot.ETNCalculator, rng: np.random.Generator) -> None:
    atoms = cluster(rng)
    atoms.calc = calculator
    forces = atoms.get_forces()
    for method in (atoms.get_stress, atoms.get_stresses):
        with pytest.raises(PropertyNotImplementedError, match="three linearly independent vectors, got"):
            method()
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    assert calculator.get_property("stress", atoms, allow_calculation=False) is None
    with pytest.raises(PropertyNotImplementedError, match="stress not defined"):
        calculator.calculate(atoms, ["energy", "stress"], all_changes)
    assert "forces" in calculator.results
    atoms.cell = [30.0, 30.0, 30.0]  # a box is a volume, as for ASE's own calculators
    assert atoms.get_stress().shape == (6,)


@pytest.mark.parametrize("third", [[4.0, 4.0, 1e-13], [0.0, 0.0, 5e-324]])
def test_a_flat_cell_has_no_stress(calculator: etnpot.ETNCalculator, third: list[float]) -> None:
    cell = [[4.0, 0, 0], [0, 4.0, 0], third]  # the third vector is not used
    atoms = Atoms("Cu", cell=cell, pbc=[True, True, False], calculator=calculator)
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="without a volume"):
        atoms.get_stress()


def test_other_properties_are_not_implemented(calculator: etnpot.ETNCalculator) -> None:
    atoms = bulk("Cu")
    atoms.calc = calculator
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()
    with pytest.raises(PropertyNotImplementedError, match=r"magmoms not implemented; the properties are"):
        calculator.calculate(atoms, ["magmoms"], all_changes)


# ------------------------------------------------------------------------------------------ between two calls


def test_anything_may_change_between_calls(potential: etnpot.Potential, rng: np.random.Generator) -> None:
    calc = etnpot.ETNCalculator(potential)
    atoms = alloy(rng)
    frames = [atoms.copy()]
    atoms.positions[3] += 0.03
    frames.append(atoms.copy())
    atoms.numbers[[0, 1]] = [47, 13]
    frames.append(atoms.copy())
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    frames.append(atoms.copy())
    atoms.pbc = [True, False, True]
    frames.append(atoms.copy())
    del atoms[5]
    frames.append(atoms.copy())
    frames += [make(rng) for make in SHAPES.values()] + [frames[0]]
    for frame in frames:
        fresh = etnpot.ETNCalculator(potential)
        frame.calc = calc
        assert frame.get_potential_energy() == fresh.get_potential_energy(frame)
        np.testing.assert_array_equal(frame.get_forces(), fresh.get_forces(frame))


def test_one_evaluation_serves_all_properties(
    calculator: etnpot.ETNCalculator, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    evaluate = etnpot.Potential.evaluate
    monkeypatch.setattr(etnpot.Potential, "evaluate", lambda *a, **k: calls.append(1) or evaluate(*a, **k))
    atoms = alloy(rng)
    atoms.calc = calculator
    for _ in range(2):
        atoms.get_forces()
        atoms.get_potential_energies()
        atoms.get_stress()
        atoms.get_stresses()
    assert len(calls) == 1
    atoms.set_initial_charges(np.ones(len(atoms)))  # the model does not depend on them
    assert not calculator.calculation_required(atoms, ["forces"])
    atoms.get_forces()
    assert len(calls) == 1
    atoms.positions[0, 0] += 0.01
    assert calculator.calculation_required(atoms, ["forces"])
    atoms.get_stresses()
    atoms.get_forces()
    assert len(calls) == 2
    calculator.reset()
    assert calculator.atoms is None and calculator.results == {}
    atoms.get_forces()
    assert len(calls) == 3


def test_arrays_belong_to_the_caller(calculator: etnpot.ETNCalculator, rng: np.random.Generator) -> None:
    atoms = alloy(rng)
    atoms.calc = calculator
    forces = atoms.get_forces()
    kept = forces.copy()
    forces[:] = np.nan
    np.testing.assert_array_equal(atoms.get_forces(), kept)


def test_stresses_appear_only_on_request(calculator: etnpot.ETNCalculator) -> None:
    atoms = bulk("Cu", cubic=True)
    calculator.calculate(atoms, ["energy", "forces"], all_changes)
    assert sorted(calculator.results) == ["energies", "energy", "forces", "free_energy", "stress"]
    calculator.calculate(properties=["stresses"], system_changes=[])  # the atoms of the last call
    assert calculator.results["stresses"].shape == (4, 6)
    assert set(calculator.calculate_properties(atoms, ["energy", "stress"])) >= {"energy", "stress"}


# --------------------------------------------------------------------------------------------- bad structures


BAD = {
    "nothing": (lambda a: a.__delitem__(slice(None)), StructureError, "at least one atom"),
    "nan": (lambda a: a.positions.__setitem__((2, 1), np.nan), StructureError, "atom 2 is at"),
    "inf": (lambda a: a.positions.__setitem__((2, 1), np.inf), StructureError, "must be finite"),
    "twice": (lambda a: a.append(a[1]), StructureError, "atoms 1 and 4 are at one spot"),
    "image": (
        lambda a: a.positions.__setitem__(1, a.positions[0] + a.cell[0]),
        StructureError,
        "atoms 0 and 1 are at one spot",
    ),
    "tiny": (lambda a: a.set_cell(1e-4 * a.cell, scale_atoms=True), StructureError, "cell is too small"),
    "flat": (lambda a: a.cell.__setitem__(2, a.cell[1] + a.cell[0]), StructureError, "linearly independent"),
    "no cell": (lambda a: a.set_cell(None), StructureError, "cell vector a is zero"),
    "nan cell": (lambda a: a.cell.__setitem__((0, 0), np.nan), StructureError, "cell must be finite"),
    "element": (lambda a: a.numbers.__setitem__(0, 41), SpeciesError, r"41 \(Nb\).*29 \(Cu\).*refit"),
    "ghost": (lambda a: a.numbers.__setitem__(0, 0), SpeciesError, "not in this potential"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_structures_give_an_error_and_no_number(calculator: etnpot.ETNCalculator, kind: str) -> None:
    spoil, error, message = BAD[kind]
    good = bulk("Cu", cubic=True)
    atoms = good.copy()
    good.calc = atoms.calc = calculator
    energy = good.get_potential_energy()
    atoms.get_potential_energy()
    spoil(atoms)
    for method in (atoms.get_potential_energy, atoms.get_forces, atoms.get_forces, atoms.get_stress):
        with pytest.raises(error, match=message):
            method()
    with pytest.raises(error, match=message):
        calculator.calculate(atoms, ["energy"], [])
    assert calculator.results == {}
    for way in (calculator.potential.edges, calculator.potential.descriptors):  # without the calculator
        with pytest.raises(error, match=message):
            way(atoms)
    assert good.get_potential_energy() == energy  # and the calculator goes on


def test_a_calculator_without_atoms_says_so(calculator: etnpot.ETNCalculator) -> None:
    with pytest.raises(StructureError, match="no atoms to evaluate"):
        calculator.get_potential_energy()
    with pytest.raises(StructureError, match="no atoms to evaluate"):
        calculator.calculate()


def test_a_fitted_potential_warns_once_below_its_r_min(potential: etnpot.Potential) -> None:
    r_min = potential.spec.radial.r_min
    atoms = Atoms("CuAg", [[0, 0, 0], [0, 0, r_min - 0.1]])
    etnpot.ETNCalculator(potential).get_potential_energy(atoms)  # never fitted: nothing to extrapolate from
    fitted = potential.with_parameters(potential.parameters, {"data": "abc"})
    atoms.calc = etnpot.ETNCalculator(fitted)
    with pytest.warns(ExtrapolationWarning, match=r"atoms 0 \(Cu\) and 1 \(Ag\) are .* closer than"):
        atoms.get_potential_energy()
    atoms.positions[1, 2] -= 0.05
    assert np.isfinite(atoms.get_potential_energy())  # said once
    atoms.calc = etnpot.ETNCalculator(fitted)
    atoms.positions[1, 2] = r_min + 0.01
    atoms.get_potential_energy()  # in range: quiet


# ------------------------------------------------------------------------------------ dynamics and relaxation


def trajectory(
    potential: etnpot.Potential, skin: float, step: float, n_steps: int
) -> tuple[Atoms, list[float], int]:
    """Last atoms, total energies and number of searches of a run at constant energy (time step in fs)."""
    rng = np.random.default_rng(5)
    atoms = alloy(rng)
    atoms.calc = etnpot.ETNCalculator(potential, skin=skin)
    speed_ic = np.sqrt(900 * units.kB / atoms.get_masses())[:, None]  # of 900 K
    atoms.set_velocities(rng.normal(size=(len(atoms), 3)) * speed_ic)
    dynamics = VelocityVerlet(atoms, step * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(n_steps)
    return atoms, energies, atoms.calc._neighbors.n_builds


def test_dynamics_conserve_energy_and_do_not_see_the_skin(potential: etnpot.Potential) -> None:
    gentle = potential.with_arrays(head=0.3 * potential.arrays["head"])  # random wells are steep
    atoms, energies, n_builds = trajectory(gentle, 0.5, 1.0, 100)
    fresh, fresh_energies, n_fresh = trajectory(gentle, 0.0, 1.0, 100)
    np.testing.assert_array_equal(atoms.positions, fresh.positions)  # to the last bit
    assert energies == fresh_energies
    assert n_fresh == 101 and 2 <= n_builds <= 30
    _, fine, _ = trajectory(gentle, 0.5, 0.5, 200)
    spread, fine_spread = np.std(energies), np.std(fine)
    assert fine_spread < 1e-4 * atoms.get_kinetic_energy()
    assert 3.0 < spread / fine_spread < 5.0  # velocity Verlet is of second order


def test_the_neighbour_list_is_searched_only_when_it_must(
    calculator: etnpot.ETNCalculator, rng: np.random.Generator
) -> None:
    atoms = alloy(rng)
    atoms.calc = calculator
    counts = []
    for shift in (0.0, 0.1, 0.1, 0.3, 0.0):
        atoms.positions[0, 0] += shift
        atoms.get_forces()
        counts.append(calculator._neighbors.n_builds)
    assert counts[:3] == [1, 1, 1] and counts[-1] == 2
    atoms.numbers[0] = 47 if atoms.numbers[0] != 47 else 13
    atoms.get_forces()
    assert calculator._neighbors.n_builds == 2  # an edge list does not know species


def test_cell_relaxation_runs_and_lowers_the_enthalpy(
    potential: etnpot.Potential, rng: np.random.Generator
) -> None:
    atoms = alloy(rng)
    atoms.calc = etnpot.ETNCalculator(potential)
    start = atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None, maxstep=0.05).run(fmax=1e-3, steps=2)
    assert atoms.get_potential_energy() < start - 0.01


def test_a_slab_relaxes(potential: etnpot.Potential, rng: np.random.Generator) -> None:
    atoms = slab(rng)
    atoms.calc = etnpot.ETNCalculator(potential)
    start = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=5)
    assert atoms.get_potential_energy() < start


# --------------------------------------------------------------------------------------------------- settings


def test_settings_are_checked(potential: etnpot.Potential, tmp_path: Path) -> None:
    wrong = (
        ({"skin": -0.1}, "skin: expected a finite number"),
        ({"skin": np.inf}, "skin: expected"),
        ({"skin": "0.5"}, "skin: expected"),
        ({"threads": 0}, "threads: expected a positive integer or None, got 0"),
        ({"threads": 1.5}, "threads: expected"),
        ({"threads": True}, "threads: expected"),
    )
    for settings, message in wrong:
        with pytest.raises(SpecificationError, match=message):
            etnpot.ETNCalculator(potential, **settings)
    with pytest.raises(SpecificationError, match="a Potential or the path of a potential file, got int"):
        etnpot.ETNCalculator(3)  # type: ignore[arg-type]
    with pytest.raises(SpecificationError, match="got NoneType"):
        etnpot.ETNCalculator(None)  # type: ignore[arg-type]
    with pytest.raises(PotentialFileNotFoundError, match=r"none\.etn"):
        etnpot.ETNCalculator(tmp_path / "none.etn")


def test_set_changes_what_it_must(potential: etnpot.Potential, tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    calc = etnpot.ETNCalculator(potential, atoms=atoms)
    assert atoms.calc is calc
    energy = atoms.get_potential_energy()
    assert calc.set(skin=0.5, threads=None) == {}
    assert calc.set(skin=1.0, threads=2) == {"skin": 1.0, "threads": 2}
    assert calc.parameters["threads"] == 2 and calc._neighbors.skin == 1.0
    assert calc.results["energy"] == energy  # they change no result
    before = dict(calc.parameters)
    for wrong in ({"skin": 2.0, "threads": -1}, {"skin": 2.0, "cutoff": 3.0}, {"skin": 2.0, "potential": 1}):
        with pytest.raises(SpecificationError):
            calc.set(**wrong)
        assert calc.parameters == before and calc._neighbors.skin == 1.0
    with pytest.raises(SpecificationError, match="the settings are potential, skin, threads"):
        calc.set(cutoff=3.0)

    other = etnpot.ETN("Cu", cutoff=3.5, order=2, l_max=1, seed=3)
    other.save(tmp_path / "other.etn")
    assert list(calc.set(potential=tmp_path / "other.etn")) == ["potential"]
    assert calc.results == {} and calc.potential.cutoff == calc._neighbors.cutoff == 3.5
    assert atoms.get_potential_energy() == etnpot.ETNCalculator(other).get_potential_energy(atoms) != energy
    # the same words, another potential: the results must go
    twin = other.with_parameters(2.0 * other.parameters)
    calc.set(potential=other)
    atoms.get_potential_energy()
    assert list(calc.set(potential=twin)) == ["potential"] and calc.results == {}
    with pytest.raises(AttributeError):
        calc.potential = other  # type: ignore[misc]


def test_name_repr_and_dictionary(potential: etnpot.Potential, tmp_path: Path) -> None:
    potential.save(tmp_path / "p.etn")
    calc = etnpot.ETNCalculator(tmp_path / "p.etn", skin=0.25)
    assert calc.name == "etn"
    assert calc.implemented_properties == ALL
    assert repr(calc) == f"ETNCalculator({potential!r}, skin=0.25, threads=None)"
    record = json.loads(json.dumps(calc.todict()))
    assert record == {"potential": str(tmp_path / "p.etn"), "skin": 0.25}
    twin = etnpot.ETNCalculator(**record)
    atoms = bulk("Ag")
    assert twin.get_potential_energy(atoms) == calc.get_potential_energy(atoms)
    assert etnpot.ETNCalculator(potential).todict() == {"potential": repr(potential)}


# -------------------------------------------------------------------------- copies, processes, threads, files


def test_pickles_and_copies(potential: etnpot.Potential, rng: np.random.Generator) -> None:
    atoms = alloy(rng)
    atoms.calc = etnpot.ETNCalculator(potential, skin=0.3, threads=2)
    forces = atoms.get_forces()
    for twin in (pickle.loads(pickle.dumps(atoms)), copy.deepcopy(atoms)):
        assert twin.calc is not atoms.calc and twin.calc.parameters == atoms.calc.parameters
        assert not twin.calc.calculation_required(twin, ["forces"])
        twin.calc.reset()
        np.testing.assert_array_equal(twin.get_forces(), forces)
        twin.positions[0] += 0.4
        twin.get_forces()
        assert twin.calc._neighbors.n_builds == 2
    for calc in (copy.copy(atoms.calc), copy.deepcopy(atoms.calc)):
        assert calc.potential is potential and calc._neighbors is not atoms.calc._neighbors
        calc.set(skin=1.0)
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    assert atoms.calc.parameters["skin"] == 0.3 and atoms.calc._neighbors.n_builds == 1


def test_a_spawned_process_gives_the_same_bits(potential: etnpot.Potential, rng: np.random.Generator) -> None:
    atoms = alloy(rng)
    calc = etnpot.ETNCalculator(potential, threads=1)
    forces = calc.get_forces(atoms)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(calc.get_forces, atoms).result(timeout=60), forces)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_process_gives_the_same_bits_though_threads_do_not_survive_the_fork() -> None:
    program = """
import multiprocessing, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np, etnpot
from ase.build import bulk
atoms = bulk("Cu", cubic=True) * 4
atoms.rattle(0.05, seed=1)
calc = etnpot.ETNCalculator(etnpot.ETN("Cu", cutoff=3.5, order=2, l_max=1, ranks=2), threads=2)
forces = calc.get_forces(atoms)  # the pool of threads exists now
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: a fork with threads
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    calc.reset()
    for result in [pool.submit(calc.get_forces, atoms) for _ in range(4)]:
        assert np.array_equal(result.result(timeout=60), forces)
print("same")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout == "same\n", done.stderr


def test_threads_may_share_a_calculator(potential: etnpot.Potential, rng: np.random.Generator) -> None:
    calc = etnpot.ETNCalculator(potential, threads=2)
    frames = [alloy(rng, 1) for _ in range(6)] + [alloy(rng, 3)]
    expected = [etnpot.ETNCalculator(potential).get_forces(frame) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for forces, wanted in zip(pool.map(calc.get_forces, frames), expected, strict=True):
                np.testing.assert_array_equal(forces, wanted)


def test_results_are_written_and_read(
    potential: etnpot.Potential, rng: np.random.Generator, tmp_path: Path
) -> None:
    atoms = alloy(rng)
    atoms.calc = etnpot.ETNCalculator(potential)
    atoms.get_stresses()
    for name in ("a.extxyz", "a.traj", "a.json"):
        write(tmp_path / name, atoms)
        back = read(tmp_path / name)
        assert isinstance(back.calc, SinglePointCalculator)
        assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(back.get_forces(), atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(back.get_stress(), atoms.get_stress(), atol=1e-7)
    buffer = io.StringIO()
    write(buffer, cluster(rng), format="extxyz")  # and of a structure that was never evaluated
    with connect(tmp_path / "a.db") as database:
        database.write(atoms)
        row = database.get(1)
    assert row.calculator == "etn" and row.calculator_parameters == {"potential": repr(potential)}
    assert row.energy == atoms.get_potential_energy()


# --------------------------------------------------------------------------------------- what ASE knows of it


@pytest.mark.parametrize("first", ["import etnpot", "import etnpot.interfaces.ase"])
def test_ase_finds_the_class_by_its_name(first: str) -> None:
    program = (
        f"{first}\nfrom ase.calculators.calculator import get_calculator_class, names\n"
        "calculator = get_calculator_class('etn')\nassert names.count('etn') == 1\n"
        "print(calculator.__module__, calculator.__name__, calculator.name)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "etnpot.interfaces.ase ETNCalculator etn\n", done.stderr


def test_evaluation_gives_no_warnings(calculator: etnpot.ETNCalculator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator.calculate(bulk("Cu"), ALL, all_changes)


def test_numbers_that_are_not_finite_never_leave() -> None:
    potential = etnpot.ETN("Cu", cutoff=4.0, order=3, l_max=1, channels=2, ranks=2, radial_size=3, seed=0)
    atoms = bulk("Cu", cubic=True)
    atoms.calc = etnpot.ETNCalculator(potential.with_parameters(1e150 * potential.parameters))
    with pytest.raises(StructureError, match="not finite"):
        atoms.get_potential_energy()
    assert atoms.calc.results == {}
