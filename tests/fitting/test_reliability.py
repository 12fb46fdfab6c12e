"""Grades and standard deviations: by their definition, by finite differences, and by what they must foretell."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etnpot
import etnpot.fitting.reliability as reliability_module
from etnpot.errors import DataError, PotentialFileError, SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys
from etnpot.fitting.grading import calibration, grade_all, spearman, table
from etnpot.fitting.prepared import LossWeights
from etnpot.fitting.reliability import assessed, chosen_core
from etnpot.fitting.selection import select
from etnpot.io.structures import Labelled
from etnpot.potential import Potential
from etnpot.potential.reliability import site_gradients

WEIGHTS = LossWeights()


@pytest.fixture(scope="module")
def valid() -> DataSet:
    return emt_alloys(6, symbols=("Ni", "Cu"), seed=5, repeat=(1, 1, 2))


@pytest.fixture(scope="module")
def fitted(alloys: DataSet, valid: DataSet, tiny: dict[str, Any]) -> Potential:
    """A small potential with its reliability."""
    return etnpot.fit(alloys, valid, **tiny).potential


def gradients(potential: Potential, labelled: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """b and types of a configuration."""
    assert potential.reliability is not None
    edges, numbers = potential.edges(labelled.atoms), labelled.atoms.numbers
    type_i = potential.type_index(numbers)
    return site_gradients(
        potential, potential.reliability.group, potential.features(edges, numbers), type_i
    ), type_i


def test_site_gradients_are_derivatives_of_the_energies(fitted: Potential, alloys: DataSet) -> None:
    labelled, group = alloys[1], chosen_core(fitted)
    edges, numbers = fitted.edges(labelled.atoms), labelled.atoms.numbers
    b_iq, _ = gradients(fitted, labelled)
    where = fitted.spec.slices[group]
    for q in range(where.stop - where.start):
        ends = []
        for h in (1e-4, -1e-4):
            moved = fitted.parameters.copy()
            moved[where.start + q] += h
            ends.append(fitted.with_parameters(moved).evaluate(edges, numbers).energy_i)
        # the energy is linear in one core: no error of discretisation
        np.testing.assert_allclose(b_iq[:, q], (ends[0] - ends[1]) / 2e-4, rtol=1e-7, atol=1e-8)


def test_training_atoms_are_within_the_active_set(fitted: Potential, alloys: DataSet) -> None:
    grades = [one.assessment.grade_i for one in grade_all(fitted, alloys)]
    assert np.concatenate(grades).max() <= 1.02
    # as many atoms as there are directions are the active set itself: their grade is one
    assert fitted.reliability is not None
    assert np.sum(np.concatenate(grades) > 0.999) >= fitted.reliability.grade_qr.shape[1] / 2


def test_the_mean_of_an_element_has_no_grade(fitted: Potential, alloys: DataSet) -> None:
    known = fitted.reliability
    assert known is not None
    parts = [gradients(fitted, labelled) for labelled in alloys]
    b_iq, type_i = (np.concatenate(part) for part in zip(*parts, strict=True))
    for z in range(2):
        c_r = known.coefficients(b_iq[type_i == z], np.full(np.sum(type_i == z), z)).mean(axis=0)
        np.testing.assert_allclose(c_r, 0.0, atol=1e-6)


def test_grades_do_not_depend_on_the_gauge(fitted: Potential, alloys: DataSet, valid: DataSet) -> None:
    from etnpot.network import left_orthogonalize

    other = fitted.with_train(left_orthogonalize(fitted.train))
    group = chosen_core(fitted)
    expected = fitted.reliability
    again = assessed(other, alloys, valid, WEIGHTS).reliability
    assert expected is not None and again is not None and again.group == group
    for labelled in valid:
        edges, numbers = other.edges(labelled.atoms), labelled.atoms.numbers
        # the core is another one, the space that its derivatives span is the same: so is who lies outside
        one = fitted.assess(edges, numbers).grade
        assert other.with_reliability(again).assess(edges, numbers).grade == pytest.approx(one, rel=0.5)


def test_far_away_is_graded_higher(fitted: Potential, alloys: DataSet) -> None:
    atoms = alloys[0].atoms.copy()
    grades = []
    for scale in (1.0, 0.9, 0.8):
        atoms.set_cell(scale * alloys[0].atoms.cell, scale_atoms=True)
        edges = fitted.edges(atoms)
        grades.append(fitted.assess(edges, atoms.numbers).grade)
    assert grades[0] < 1.02 < grades[1] < grades[2] and grades[2] > 5


def test_energy_deviation_is_that_of_the_posterior(fitted: Potential, valid: DataSet) -> None:
    known, labelled = fitted.reliability, valid[0]
    assert known is not None
    b_iq, _ = gradients(fitted, labelled)
    found = fitted.assess(fitted.edges(labelled.atoms), labelled.atoms.numbers)
    covariance = known.deviation_qr @ known.deviation_qr.T
    total_q = b_iq.sum(axis=0)
    assert found.energy_std == pytest.approx(known.energy_scale * np.sqrt(total_q @ covariance @ total_q))
    expected = np.sqrt(np.einsum("iq,qp,ip->i", b_iq, covariance, b_iq))
    np.testing.assert_allclose(found.energy_std_i, known.energy_scale * expected, rtol=1e-9)
    np.testing.assert_allclose(found.force_std_i, known.proxy_scale * expected, rtol=1e-9)


def test_deviations_are_the_spread_of_posterior_samples(fitted: Potential, valid: DataSet) -> None:
    known, labelled = fitted.reliability, valid[2]
    assert known is not None
    edges, numbers = fitted.edges(labelled.atoms), labelled.atoms.numbers
    where, rng = fitted.spec.slices[known.group], np.random.default_rng(0)
    energies, forces = [], []
    for _ in range(400):
        parameters = fitted.parameters.copy()
        parameters[where] += known.deviation_qr @ rng.normal(size=known.deviation_qr.shape[1])
        evaluation = fitted.with_parameters(parameters).evaluate(edges, numbers)
        energies.append(evaluation.energy)
        forces.append(evaluation.forces)
    found = fitted.assess(edges, numbers)
    assert np.std(energies) == pytest.approx(found.energy_std / known.energy_scale, rel=0.15)
    deviation_ic = fitted.force_deviations(edges, numbers) / known.force_scale
    np.testing.assert_allclose(np.std(forces, axis=0), deviation_ic, rtol=0.25)


def test_the_factors_make_held_out_errors_of_the_expected_size(fitted: Potential, valid: DataSet) -> None:
    graded = grade_all(fitted, valid, forces=True)
    error_ic = np.concatenate([one.forces - np.asarray(one.labelled.forces) for one in graded])
    std_ic = np.concatenate([np.asarray(one.force_std_ic) for one in graded])
    ratio = np.sort(((error_ic / std_ic) ** 2).ravel())[: int(np.ceil(0.99 * error_ic.size))]
    assert np.sqrt(ratio.mean()) == pytest.approx(1.0, abs=1e-6)
    found = calibration(graded)
    assert 0.55 < found["force_std"]["within_1"] < 0.85
    assert found["atoms"]["n"] == 48 and len(found["force_std"]["bins"]) == 10
    assert "median grade" in table(graded)


def test_threads_and_order_of_atoms_do_not_matter(fitted: Potential) -> None:
    atoms = emt_alloys(1, symbols=("Ni", "Cu"), seed=3, repeat=(5, 5, 6))[0].atoms
    one = fitted.assess(fitted.edges(atoms), atoms.numbers, threads=1)
    two = fitted.assess(fitted.edges(atoms), atoms.numbers, threads=2)
    np.testing.assert_allclose(one.grade_i, two.grade_i, rtol=1e-12)
    order = np.random.default_rng(0).permutation(len(atoms))
    shuffled = atoms[order]
    again = fitted.assess(fitted.edges(shuffled), shuffled.numbers)
    np.testing.assert_allclose(again.grade_i, one.grade_i[order], rtol=1e-9)
    assert again.energy_std == pytest.approx(one.energy_std, rel=1e-9)


def test_file_keeps_it(fitted: Potential, valid: DataSet, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a.etn")
    again = etnpot.load(tmp_path / "a.etn")
    edges, numbers = fitted.edges(valid[0].atoms), valid[0].atoms.numbers
    one, two = fitted.assess(edges, numbers), again.assess(edges, numbers)
    np.testing.assert_array_equal(one.grade_i, two.grade_i)
    assert (one.energy_std, again.provenance) == (two.energy_std, fitted.provenance)
    assert "reliability" in again.summary()
    import pickle

    assert pickle.loads(pickle.dumps(again)).reliability.group == again.reliability.group  # type: ignore[union-attr]


def test_other_parameters_lose_it(fitted: Potential) -> None:
    assert fitted.with_parameters(fitted.parameters).reliability is fitted.reliability
    other = fitted.with_parameters(1.1 * fitted.parameters)
    assert other.reliability is None
    with pytest.raises(SpecificationError, match="etnpot calibrate"):
        other.known_reliability()


@pytest.mark.parametrize("name", ["core", "grade", "center", "deviation", "scales", "missing", "unknown"])
def test_arrays_that_do_not_fit_are_refused(fitted: Potential, tmp_path: Path, name: str) -> None:
    from etnpot.io.potential_file import write_potential_file

    known = fitted.reliability
    assert known is not None
    arrays = known.to_arrays()
    if name == "missing":
        del arrays["reliability.grade"]
    elif name == "unknown":
        arrays["reliability.other"] = np.ones(3)
    elif name == "scales":
        arrays["reliability.scales"] = np.array([1.0, -1.0, 1.0, 1.0])
    elif name == "core":
        arrays["reliability.core"] = np.array([1.5])
    else:
        arrays[f"reliability.{name}"] = np.ones((5, 3))
    spec, groups = fitted.spec.to_dict(), dict(fitted.arrays) | arrays
    write_potential_file(tmp_path / "bad.etn", spec=spec, arrays=groups, provenance={})
    with pytest.raises(PotentialFileError, match="reliability"):
        etnpot.load(tmp_path / "bad.etn")


def test_a_part_of_a_large_training_set_gives_the_posterior(
    fitted: Potential, alloys: DataSet, valid: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = assessed(fitted, alloys, valid, WEIGHTS).provenance["reliability"]
    n_atoms = sum(c.n_atoms for c in alloys)
    monkeypatch.setattr(reliability_module, "_POSTERIOR_ATOMS", n_atoms / 2)
    part = assessed(fitted, alloys, valid, WEIGHTS).provenance["reliability"]
    assert part["noise"] != whole["noise"]
    for name in ("noise", "force_scale"):
        assert part[name] == pytest.approx(whole[name], rel=0.7)


def test_a_fit_may_leave_it_out(alloys: DataSet, tiny: dict[str, Any]) -> None:
    settings = {**tiny, "polish_steps": 1}
    assert etnpot.fit(alloys, reliability=False, **settings).potential.reliability is None


def test_data_that_teach_nothing_are_refused(fitted: Potential, alloys: DataSet) -> None:
    bare = DataSet([dataclasses.replace(c, energy=None, forces=None) for c in alloys])
    with pytest.raises(DataError, match="neither"):
        assessed(fitted, bare, None, WEIGHTS)
    one = emt_alloys(1, symbols=("Cu",), repeat=(1, 1, 1))[0]
    perfect = one.atoms.copy()
    perfect.set_scaled_positions(np.round(4 * perfect.get_scaled_positions()) / 4)
    perfect.positions = [[0, 0, 0], [0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]]
    perfect.set_cell([3.6, 3.6, 3.6])
    crystal = DataSet([dataclasses.replace(one, atoms=perfect)])
    with pytest.raises(SpecificationError, match="all alike"):
        assessed(fitted, crystal, None, WEIGHTS)


def test_spearman() -> None:
    x = np.array([1.0, 5.0, 2.0, 9.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -x) == pytest.approx(-1.0)
    assert spearman(x, np.ones(4)) is None and spearman(x[:2], x[:2]) is None


# ------------------------------------------------------------------------------------------------- selection


@pytest.fixture(scope="module")
def pool(alloys: DataSet) -> DataSet:
    """Training configurations, each squeezed by some part, and copies of these."""
    configurations = []
    for k, labelled in enumerate([*alloys[:6], *alloys[:6]]):
        atoms = labelled.atoms.copy()
        atoms.set_cell((1.0 - 0.02 * (k % 6)) * atoms.cell, scale_atoms=True)
        configurations.append(Labelled(atoms, index=k))
    return DataSet(configurations)


@pytest.mark.parametrize("rule", ["grade", "deviation"])
def test_selection_takes_what_is_farthest_and_no_copy(fitted: Potential, pool: DataSet, rule: str) -> None:
    choices = select(fitted, pool, 12, rule=rule)
    assert len(choices) == 6 and len({c.index % 6 for c in choices}) == 6
    grades = [one.assessment.grade for one in grade_all(fitted, pool)]
    if rule == "grade":
        assert choices[0].grade == pytest.approx(max(grades)) and choices[0].rule == "grade"
    # a second choice is made as if the first were known
    assert [c.index for c in select(fitted, pool, 3, rule=rule)] == [c.index for c in choices[:3]]
    deviations = [c.deviation for c in choices if c.rule == "deviation"]
    assert all(later <= 1.0001 * sooner for sooner, later in pairwise(deviations))


def test_threshold_ends_the_selection(fitted: Potential, pool: DataSet, alloys: DataSet) -> None:
    assert select(fitted, alloys, 5, threshold=1.05) == []
    chosen = select(fitted, pool, 12, threshold=2.0)
    assert 0 < len(chosen) < 6 and all(c.grade > 2.0 for c in chosen)
    assert select(fitted, DataSet(), 5) == []


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 1, "rule": "best"}, {"n": 1, "threshold": -1.0}])
def test_senseless_selections_are_refused(fitted: Potential, pool: DataSet, wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError):
        select(fitted, pool, **wrong)
