"""Grades and standard deviations of potentials with layers: by their definition, by differences, and by their symmetries."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

import etnpot
from etnpot import reference
from etnpot.errors import (
    ExtrapolationError,
    ExtrapolationWarning,
    PotentialFileError,
    SpecificationError,
    StructureError,
)
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.grading import calibration, grade_all
from etnpot.fitting.prepared import LossWeights
from etnpot.fitting.reliability import assessed, chosen_core
from etnpot.fitting.selection import select
from etnpot.interfaces.monitor import GradeMonitor
from etnpot.io.potential_file import write_potential_file
from etnpot.io.structures import Labelled
from etnpot.neighbors import EdgeList
from etnpot.network import scale
from etnpot.potential import Assessment, Potential
from etnpot.potential.reliability import gradients_along, site_gradients
from etnpot.potential.sensitivity import Sensitivities
from etnpot.testing import random_molecule, random_structure
from etnpot.testing.symmetries import random_rotation

from .conftest import KINDS, SPECIES, USUAL, layered

Make = Callable[..., Potential]

#: Configurations of a training set.
N_TRAIN = 40


def labelled_by(potential: Potential, n: int, seed: int, *, grouped: bool = False) -> DataSet:
    """Skewed cells of five atoms and molecules of four, with energies and forces of a potential and noise."""
    rng, found = np.random.default_rng(seed), []
    for k in range(n):
        if k % 3 < 2:
            atoms = random_structure(SPECIES, 5, rng, volume_per_atom=9.0, min_distance=1.9)
        else:
            atoms = random_molecule(SPECIES, 4, rng, min_distance=1.9)
        if grouped:
            atoms.set_array("pool_group", np.arange(len(atoms)) % 2)
        evaluation = potential.evaluate(potential.edges(atoms), atoms.numbers, threads=1)
        forces = evaluation.forces
        found.append(
            Labelled(
                atoms,
                energy=evaluation.energy + 0.02 * rng.normal() * len(atoms) ** 0.5,
                forces=forces + 0.05 * np.std(forces) * rng.normal(size=forces.shape),
                index=k,
            )
        )
    return DataSet(found)


@cache
def calibrated(kind: str) -> Potential:
    """A random potential that knows what it was trained on: what `labelled_by` makes of it, more atoms than directions."""
    potential = layered(kind)
    train, valid = labelled_by(potential, N_TRAIN, seed=0), labelled_by(potential, 3, seed=1)
    return assessed(potential, train, valid, LossWeights(), threads=1)


@pytest.fixture(
    params=[name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in KINDS],
    scope="module",
)
def known(request: pytest.FixtureRequest) -> Potential:
    """Of each kind in turn, with its reliability."""
    return calibrated(request.param)


def assess(potential: Potential, atoms: Atoms) -> Assessment:
    return potential.assess(potential.edges(atoms), atoms.numbers, threads=1)


def moved(potential: Potential, step_q: np.ndarray) -> Potential:
    """With a step of the parameters of the core that grades are made of."""
    assert potential.reliability is not None
    parameters = potential.parameters.copy()
    parameters[potential.spec.slices[potential.reliability.group]] += step_q
    return potential.with_parameters(parameters)


# ------------------------------------------------------------------------------------------------- derivatives


def test_site_gradients_are_derivatives_of_the_energies(potential: Potential, crystal: Atoms) -> None:
    """Every entry, by central differences; the energy is linear in a core: they have no error of discretisation."""
    edges, numbers = potential.edges(crystal), crystal.numbers
    type_i, v_if = potential.type_index(numbers), potential.features(edges, numbers)
    for group in ("core.1", "core.2"):
        where = potential.spec.slices[group]
        b_iq = site_gradients(potential, group, v_if, type_i)
        difference_iq = np.empty_like(b_iq)
        for q in range(where.stop - where.start):
            ends = []
            for h in (0.1, -0.1):
                parameters = potential.parameters.copy()
                parameters[where.start + q] += h
                ends.append(potential.with_parameters(parameters).evaluate(edges, numbers).energy_i)
            difference_iq[:, q] = (ends[0] - ends[1]) / 0.2
        np.testing.assert_allclose(b_iq, difference_iq, rtol=0, atol=1e-11 * np.abs(b_iq).max())


def test_site_gradients_equal_the_reference(potential: Potential, crystal: Atoms) -> None:
    """The slow twin, on the features that the layers made."""
    edges, numbers = potential.edges(crystal), crystal.numbers
    type_i, v_if = potential.type_index(numbers), potential.features(edges, numbers)
    tables, head = potential.train_tables, potential.spec.slices["head"].start
    for group in ("core.1", "core.2"):
        where = potential.spec.slices[group]
        expected_iq = np.empty((edges.n_atoms, where.stop - where.start))
        reference.sites.site_gradients(
            v_if, type_i, tables, tables, tables, potential.weights, 0, 0, where.start - head, 0, edges.n_atoms, expected_iq
        )  # fmt: skip
        b_iq = site_gradients(potential, group, v_if, type_i)
        np.testing.assert_allclose(b_iq, expected_iq, rtol=0, atol=1e-10 * np.abs(expected_iq).max())


@pytest.mark.parametrize("is_short_ranged", [False, True])
def test_gradients_along_directions_are_those_of_the_jacobian(
    is_short_ranged: bool, kind: str, make_layered: Make, crystal: Atoms, rng: np.random.Generator
) -> None:
    """Close pairs and bounds as well, and without layers."""
    for name in (kind, "local"):
        potential, atoms = make_layered(name), crystal.copy()
        if is_short_ranged:
            potential = make_layered(name, repulsion="zbl")
            potential = potential.with_train(scale(potential.train, 4.0))
            atoms.set_cell(0.8 * atoms.cell, scale_atoms=True)
            edges = potential.edges(atoms)
            arguments, close = potential._arguments(edges, potential.type_index(atoms.numbers))
            energy_i = potential._pass(edges, arguments, 1).energy_i
            low, high = (float(bound) for bound in np.quantile(energy_i, [0.3, 0.7]))
            potential = potential.with_energy_bounds((low, high))
            assert close is not None
        edges = potential.edges(atoms)
        assert potential._is_short_ranged(edges, atoms.numbers, 1) == is_short_ranged
        for group in ("core.1", "core.2"):
            d_qr = rng.normal(size=(potential.spec.shapes[group][0], 3))
            jacobian = Sensitivities(potential, (group,)).jacobian(edges, atoms.numbers, with_virial=False)
            expected_cr = jacobian.gradient_qc.T @ d_qr
            found_cr = gradients_along(potential, group, d_qr, edges, atoms.numbers)
            np.testing.assert_allclose(found_cr, expected_cr, rtol=0, atol=1e-11 * np.abs(expected_cr).max())


# ------------------------------------------------------------------------------------- grades and deviations


def test_training_atoms_are_within_the_active_set(known: Potential) -> None:
    grade_i = np.concatenate(
        [one.assessment.grade_i for one in grade_all(known, labelled_by(known, N_TRAIN, seed=0))]
    )
    assert grade_i.max() <= 1.02 and np.sum(grade_i < 0.99) > 40
    # as many atoms as there are directions are the active set itself: their grade is one
    assert known.reliability is not None
    assert np.sum(grade_i > 0.999) >= known.reliability.grade_qr.shape[1] / 2
    provenance = known.provenance["reliability"]
    assert provenance["core"] == chosen_core(known) and provenance["calibrated_on"] == "validation set"


def test_squeezed_structures_are_graded_higher(known: Potential) -> None:
    atoms = labelled_by(known, 1, seed=0)[0].atoms
    squeezed = atoms.copy()
    squeezed.set_cell(0.85 * atoms.cell, scale_atoms=True)
    assert assess(known, atoms).grade < 1.02 < assess(known, squeezed).grade


def test_deviations_are_those_of_energies_and_forces(
    known: Potential, crystal: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By steps of the parameters along the columns of D, to which everything is linear; both ways to the forces."""
    reliability = known.reliability
    assert reliability is not None
    edges, numbers = known.edges(crystal), crystal.numbers
    at = known.evaluate(edges, numbers)
    steps = [moved(known, d_q).evaluate(edges, numbers) for d_q in reliability.deviation_qr.T]
    energy_ri = np.array([step.energy_i - at.energy_i for step in steps])
    force_ric = np.array([step.forces - at.forces for step in steps])
    found, tight = assess(known, crystal), 1e-7
    norm_i = np.linalg.norm(energy_ri, axis=0)
    assert found.energy_std == pytest.approx(
        reliability.energy_scale * float(np.linalg.norm(energy_ri.sum(axis=1))), rel=tight
    )
    np.testing.assert_allclose(found.energy_std_i, reliability.energy_scale * norm_i, rtol=tight)
    np.testing.assert_allclose(found.force_std_i, reliability.proxy_scale * norm_i, rtol=tight)
    expected_ic = reliability.force_scale * np.linalg.norm(force_ric, axis=0)
    for most in (1000, 0):
        monkeypatch.setattr("etnpot.potential.reliability._ATOMS_PER_DIRECTION", most)
        deviation_ic = known.force_deviations(edges, numbers)
        np.testing.assert_allclose(deviation_ic, expected_ic, rtol=0, atol=tight * expected_ic.max())


def test_the_factors_make_held_out_errors_of_the_expected_size(known: Potential) -> None:
    graded = grade_all(known, labelled_by(known, 3, seed=1), forces=True)
    error_ic = np.concatenate([one.forces - np.asarray(one.labelled.forces) for one in graded])
    std_ic = np.concatenate([np.asarray(one.force_std_ic) for one in graded])
    ratio = np.sort(((error_ic / std_ic) ** 2).ravel())[: int(np.ceil(0.99 * error_ic.size))]
    assert np.sqrt(ratio.mean()) == pytest.approx(1.0, abs=1e-6)
    assert calibration(graded)["force_std"]["bins"]


def test_selection_takes_every_configuration_once(known: Potential) -> None:
    """Copies are left out, the highest grade comes first, and what was taken is known from then on."""
    pool = DataSet([*labelled_by(known, 3, seed=2), *labelled_by(known, 3, seed=2)])
    choices = select(known, pool, 6)
    assert len(choices) == 3 and len({choice.index % 3 for choice in choices}) == 3
    assert choices[0].grade == pytest.approx(max(one.assessment.grade for one in grade_all(known, pool)))


# -------------------------------------------------------------------------------------------------- symmetries


def test_symmetries(known: Potential, crystal: Atoms, rng: np.random.Generator) -> None:
    """Rotation, inversion, translation, order of the atoms, supercell: of grades and of deviations."""
    before = assess(known, crystal)
    deviation_i = np.linalg.norm(known.force_deviations(known.edges(crystal), crystal.numbers), axis=1)
    order = rng.permutation(len(crystal))
    turned, inverted, shifted = crystal.copy(), crystal.copy(), crystal.copy()
    rotation_cc = random_rotation(rng)
    turned.set_cell(crystal.cell.array @ rotation_cc.T)
    turned.positions = crystal.positions @ rotation_cc.T
    inverted.set_cell(-crystal.cell.array)
    inverted.positions = -crystal.positions
    shifted.positions += rng.normal(size=3)
    shifted.wrap()
    for atoms, place in (
        (turned, slice(None)), (inverted, slice(None)), (shifted, slice(None)), (crystal[order], order),
    ):  # fmt: skip
        after = assess(known, atoms)
        for name in ("grade_i", "energy_std_i", "force_std_i"):
            expected = getattr(before, name)
            np.testing.assert_allclose(
                getattr(after, name), expected[place], rtol=0, atol=1e-8 * expected.max()
            )
        assert after.energy_std == pytest.approx(before.energy_std, rel=1e-8)
        deviation_ic = known.force_deviations(known.edges(atoms), atoms.numbers)
        np.testing.assert_allclose(
            np.linalg.norm(deviation_ic, axis=1), deviation_i[place], rtol=0, atol=1e-8 * deviation_i.max()
        )
    doubled = assess(known, crystal.repeat((1, 2, 1)))
    np.testing.assert_allclose(doubled.grade_i, np.tile(before.grade_i, 2), rtol=0, atol=1e-8 * before.grade)
    assert doubled.energy_std == pytest.approx(2.0 * before.energy_std, rel=1e-8)


def test_how_far_away_an_atom_matters(make_layered: Make) -> None:
    """An atom that moves changes the grades of those that its messages reach, and through a pool of all."""
    chain = Atoms(["Al", "Ni", "Cu", "Ni", "Al", "Cu"], [(3.0 * k, 0.1 * (k % 2), 0.0) for k in range(6)])
    end = chain.copy()
    end.positions[-1] += (0.0, 0.3, 0.1)
    for kind, first in (("message", 3), ("pool", 0)):
        potential = make_layered(kind)
        potential = assessed(potential, labelled_by(potential, 6, seed=0), None, LossWeights())
        before, after = (assess(potential, atoms).grade_i for atoms in (chain, end))
        assert int(np.flatnonzero(before != after)[0]) == first


def test_groups_of_the_training_set_and_of_what_is_graded(make_layered: Make) -> None:
    """Pools over groups, in the active set and later; the numbers of the groups do not matter, which atoms are in them does."""
    potential = make_layered("pool")
    train = labelled_by(potential, 6, seed=3, grouped=True)
    known = assessed(potential, train, None, LossWeights())
    assert max(one.assessment.grade for one in grade_all(known, train)) <= 1.02
    renamed, other = train[0].atoms.copy(), train[0].atoms.copy()
    renamed.set_array("pool_group", 7 - 4 * renamed.arrays["pool_group"])
    del other.arrays["pool_group"]
    before = assess(known, train[0].atoms)
    np.testing.assert_allclose(assess(known, renamed).grade_i, before.grade_i, rtol=1e-12)
    assert np.abs(assess(known, other).grade_i - before.grade_i).min() > 1e-6
    other.calc = etnpot.ETNCalculator(known)
    assert other.calc.assess(train[0].atoms).grade == pytest.approx(before.grade, rel=1e-12)


def test_threads_do_not_matter(rng: np.random.Generator) -> None:
    known = calibrated("deep")
    atoms = random_structure(SPECIES, 5, rng, volume_per_atom=9.0, min_distance=1.9).repeat((5, 5, 6))
    edges = known.edges(atoms)
    one, two = (known.assess(edges, atoms.numbers, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.grade_i, two.grade_i)
    assert one.energy_std == two.energy_std


# -------------------------------------------------------------------------------------------- where it is kept


def test_files_and_pickles_keep_it(known: Potential, crystal: Atoms, tmp_path: Path) -> None:
    known.save(tmp_path / "p.etn")
    for again in (etnpot.load(tmp_path / "p.etn"), pickle.loads(pickle.dumps(known))):
        one, two = assess(known, crystal), assess(again, crystal)
        np.testing.assert_array_equal(one.grade_i, two.grade_i)
        np.testing.assert_array_equal(one.force_std_i, two.force_std_i)
        assert one.energy_std == two.energy_std and again.provenance == known.provenance
        assert f"reliability  {chosen_core(known)}" in again.summary()
    assert known.with_parameters(1.1 * known.parameters).reliability is None


def test_cores_of_layers_are_refused(tmp_path: Path) -> None:
    """Grades are made of a core of the last train; the arrays of a file must fit it."""
    known = calibrated("deep")
    assert known.reliability is not None
    with pytest.raises(SpecificationError, match=r"no core 'layer\.1\.core\.1'"):
        known.with_reliability(replace(known.reliability, group="layer.1.core.1"))
    arrays = dict(known.arrays) | known.reliability.to_arrays() | {"reliability.grade": np.ones((5, 3))}
    write_potential_file(tmp_path / "bad.etn", spec=known.spec.to_dict(), arrays=arrays, provenance={})
    with pytest.raises(PotentialFileError, match="reliability: grade should have shape"):
        etnpot.load(tmp_path / "bad.etn")


def test_what_is_missing_is_told(potential: Potential, crystal: Atoms) -> None:
    edges = potential.edges(crystal)
    with pytest.raises(SpecificationError, match="etnpot calibrate"):
        potential.assess(edges, crystal.numbers)
    crystal.calc = etnpot.ETNCalculator(potential)
    with pytest.raises(SpecificationError, match="etnpot calibrate"):
        crystal.calc.assess(crystal)
    with pytest.raises(SpecificationError, match="etnpot calibrate"):
        GradeMonitor(crystal)


def test_ghosts_are_refused() -> None:
    """Edges that name atoms without their own neighbours."""
    known = calibrated("deep")
    edges = EdgeList(np.array([0, 1]), np.array([1]), np.array([[2.5, 0.0, 0.0]]))
    for call in (known.assess, known.force_deviations):
        with pytest.raises(StructureError, match="ghost atoms"):
            call(edges, np.array([13, 28]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_no_grade_of_vectors_that_are_none(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cause: NaN is above no threshold, and a monitor that sees one goes on."""
    monkeypatch.setattr("etnpot.potential.reliability._ATOMS_PER_DIRECTION", 0)
    known = calibrated("deep")
    r_pc = np.array([[2.5, 0.0, 0.0], [bad, 0.0, 0.0]])
    edges = EdgeList(np.array([0, 1, 2]), np.array([1, 0]), r_pc)
    for call in (known.assess, known.force_deviations):
        with pytest.raises(StructureError):
            call(edges, np.array([13, 28]))


# -------------------------------------------------------------------------------------------------- dynamics


def test_monitor() -> None:
    """In a trajectory, the grade is that of a fresh neighbour list; squeezed cells give one warning, then an error."""
    known = calibrated("deep")
    atoms = labelled_by(known, 1, seed=0)[0].atoms
    atoms.calc = etnpot.ETNCalculator(known, threads=1)
    monitor = GradeMonitor(atoms, warn=None, stop=None)
    dynamics = VelocityVerlet(atoms, 0.1 * units.fs)
    dynamics.attach(monitor, interval=1)
    dynamics.run(3)
    assert monitor.calls == 4 and monitor.grade == pytest.approx(assess(known, atoms).grade, rel=1e-9)
    loud, cell = GradeMonitor(atoms, warn=1.2, stop=5.0), atoms.cell.array.copy()
    with warnings.catch_warnings(record=True) as caught, pytest.raises(ExtrapolationError, match="grade"):
        warnings.simplefilter("always")
        for k in range(60):
            atoms.set_cell((1.0 - 0.01 * k) * cell, scale_atoms=True)
            loud()
    assert [w.category for w in caught] == [ExtrapolationWarning]
