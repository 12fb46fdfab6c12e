"""The whole fit: teachers are recovered, noise is not fitted, restarts change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import etnpot
from etnpot.errors import DataError, RunDirectoryError, SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.polish import Damping, lbfgs_steps, polish_step
from etnpot.fitting.problem import Problem
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.start import lengthened, shortened
from etnpot.network import Train, balanced
from etnpot.potential import Potential

TINY = {"cutoff": 4.5, "order": 2, "l_max": 1, "channels": 4, "ranks": 3, "radial_size": 4, "threads": 1}


def test_noiseless_teacher_is_recovered(labelled_by: Callable[..., DataSet], teacher: Potential) -> None:
    data = labelled_by(teacher, n=8)  # 248 numbers for 84 parameters
    student = etnpot.ETN(
        ["Cu", "Ag"], cutoff=4.5, order=2, l_max=1, channels=4, ranks=3, radial_size=4, species_rank=4, seed=1,
        reference_energies={"Cu": -3.0, "Ag": -2.0},
    )  # fmt: skip
    settings = FitSettings(**TINY, ridge=1e-14, polish_steps=80, tolerance=0.0, patience=99, sweeps=2)
    fitter = Fitter(data, None, settings, start=student)
    forces = np.concatenate([labelled.forces for labelled in data if labelled.forces is not None])
    wanted = 1e-6 * float(np.sqrt(np.mean(forces**2)))
    while not fitter.finished and (not fitter.history or fitter.history[-1]["train"]["forces_rmse"] > wanted):
        errors = fitter.step()["train"]
    assert errors["forces_rmse"] < wanted
    assert errors["energy_rmse"] < wanted


def test_errors_approach_the_noise_floor(
    labelled_by: Callable[..., DataSet], teacher: Potential, reseeded: Callable[[Potential, int], Potential]
) -> None:
    noise = 0.05
    data = labelled_by(teacher, n=40, noise=noise)
    clean = labelled_by(teacher, n=10)
    settings = FitSettings(**TINY, polish_steps=25, energy_weight=1.0, stress_weight=0.0)
    fitter = Fitter(data, clean, settings, start=reseeded(teacher, 3))
    best = fitter.run()
    problem = Problem.from_dataset(clean, teacher.cutoff, settings.loss_weights)
    # 84 parameters from 1000 noisy numbers: the noise averages out
    assert problem.errors(best)[0]["forces_rmse"] < 0.6 * noise


def test_balancing_leaves_the_function_alone(labelled_by: Callable[..., DataSet], teacher: Potential) -> None:
    problem = Problem.from_dataset(labelled_by(teacher, n=2), teacher.cutoff, FitSettings().loss_weights)
    even = teacher.with_train(balanced(teacher.train))
    for a, b in zip(problem.residuals(teacher), problem.residuals(even), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("ranks", [3, {"0e": 4, "1o": 2, "2e": 1}])
def test_a_longer_train_is_the_same_function(
    labelled_by: Callable[..., DataSet], rng: np.random.Generator, ranks
) -> None:
    target = etnpot.ETN(
        ["Cu", "Ag"], cutoff=4.5, order=6, l_max=2, channels=[3, 2, 2], ranks=ranks, radial_size=4
    )
    layout = target.spec.layout
    potential = target.with_train(Train.random(shortened(layout, 1), rng))
    problem = Problem.from_dataset(labelled_by(potential, n=2), 4.5, FitSettings().loss_weights)
    before = problem.residuals(potential)
    for order in range(2, 7):
        wanted = shortened(layout, order)
        longer = potential.with_train(lengthened(potential.train, wanted, rng))
        assert longer.spec.order == order
        assert longer.spec.bonds == wanted.bonds
        for a, b in zip(problem.residuals(longer), before, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
        potential = longer
    assert potential.spec.bonds == target.spec.bonds


def test_the_order_grows_to_what_was_asked_for(
    labelled_by: Callable[..., DataSet], teacher: Potential
) -> None:
    data = labelled_by(teacher, n=6)
    fitter = Fitter(data, None, FitSettings(**TINY | {"order": 4, "ridge": 1e-9}, polish_steps=2))
    assert fitter.potential.spec.order == 2
    fitter.run()
    assert [record["order"] for record in fitter.history if record["stage"] == "polish"] == [4, 4]
    losses = [record["loss"] for record in fitter.history if record["stage"] == "growth"]
    assert losses == sorted(losses, reverse=True)
    whole = Fitter(data, None, FitSettings(**TINY | {"order": 4}, polish_steps=2, growth=False))
    assert whole.potential.spec.order == 4


@pytest.mark.parametrize("determined", [False, True])
def test_rounds_of_single_cores(
    labelled_by: Callable[..., DataSet],
    teacher: Potential,
    monkeypatch: pytest.MonkeyPatch,
    *,
    determined: bool,
) -> None:
    """They follow steps of all parameters, of trains that grow where the data are enough, and go on while they gain more."""
    monkeypatch.setattr("etnpot.fitting.fitter._PARTS_FROM", 1)
    monkeypatch.setattr("etnpot.fitting.fitter._GROWING_PARTS_ROWS", 0 if determined else 1e9)
    settings = FitSettings(
        **TINY | {"order": 3, "ridge": 1e-12, "repulsion": "none", "tolerance": 0.0}, polish_steps=6
    )
    fitter = Fitter(labelled_by(teacher, n=6, noise=0.02), None, settings)
    fitter.run()
    grown = [record for record in fitter.history if record["stage"] == "growth"]
    assert any("core" in record for record in grown) == determined
    assert [record["order"] for record in grown] == [2] * len(grown)
    # what each step of all parameters gained, and the steps of the three cores and of the features behind it
    loss, steps = grown[-1]["loss"], []
    for record in (record for record in fitter.history if record["stage"] == "polish"):
        if "damping" in record:
            steps.append([])
        steps[-1].append(loss - record["loss"])
        loss = record["loss"]
    assert len(steps) == 6
    for whole, *parts in steps:
        rounds = [sum(parts[at : at + 4]) for at in range(0, len(parts), 4)]
        assert len(parts) in (0, 4, 8, 12, 16)
        assert all(gained > whole for gained in rounds[:-1])
        assert not rounds or len(rounds) == 4 or rounds[-1] <= whole * (1 + 1e-6)
    assert any(parts for _, *parts in steps)


def test_polish_lowers_the_loss_and_lbfgs_too(
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
) -> None:
    problem = problem_of(labelled_by(teacher, n=6), teacher.cutoff)
    student, damping = reseeded(teacher, 2), Damping()
    loss = problem.loss(student)
    for _ in range(4):
        step = polish_step(problem, student, damping, fixed_ridge=True)
        student, damping = step.potential, step.damping
        assert step.gain > 0
        assert problem.loss(student) == pytest.approx(step.loss, rel=1e-10)
        assert step.loss < loss
        loss = step.loss
    better, after = lbfgs_steps(problem, student, ridge=0.0, steps=5)
    assert after < loss
    assert problem.loss(better) == pytest.approx(after, rel=1e-8)


def test_a_step_of_one_core_ends_in_its_minimum(
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
) -> None:
    problem, ridge = problem_of(labelled_by(teacher, n=6), teacher.cutoff), 1e-3
    step = polish_step(
        problem, reseeded(teacher, 2), Damping(1e-10, ridge), groups=("core.2",), fixed_ridge=True
    )
    moving = teacher.spec.slices["core.2"]
    assert step.gain > 0
    rows = problem.residuals(step.potential)
    slope = problem.project(step.potential, rows)[moving] - ridge * step.potential.parameters[moving]
    start = problem.project(reseeded(teacher, 2), problem.residuals(reseeded(teacher, 2)))[moving]
    assert np.abs(slope).max() < 1e-6 * np.abs(start).max()


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_restored_fit_ends_with_the_same_bits(
    labelled_by: Callable[..., DataSet],
    teacher: Potential,
    monkeypatch: pytest.MonkeyPatch,
    restored_alike: Callable[..., Fitter],
    *,
    in_parts: bool,
) -> None:
    if in_parts:
        monkeypatch.setattr("etnpot.fitting.fitter._PARTS_FROM", 1)
    data, held = labelled_by(teacher, n=6, noise=0.02), labelled_by(teacher, n=3)
    settings = FitSettings(**TINY, polish_steps=2 if in_parts else 4)
    after = 3
    if in_parts:
        whole = Fitter(data, held, settings)
        whole.run()
        after = len(whole.history) - 3
    whole = restored_alike(lambda: Fitter(data, held, settings), lambda fitter: len(fitter.history) == after)
    cores = [record["core"] for record in whole.history if record["stage"] == "polish" and "core" in record]
    assert cores == (list(range(whole.potential.spec.order, 0, -1)) if in_parts else [])


def test_a_checkpoint_of_something_else_is_refused(
    labelled_by: Callable[..., DataSet], teacher: Potential
) -> None:
    data = labelled_by(teacher, n=4)
    values, arrays = Fitter(data, None, FitSettings(**TINY)).state()
    with pytest.raises(DataError, match="another training set"):
        Fitter(data[:3], None, FitSettings(**TINY)).restore(values, arrays)
    with pytest.raises(SpecificationError, match="seed"):
        Fitter(data, None, FitSettings(**TINY, seed=5)).restore(values, arrays)
    values["progress"]["cycle_at"] = 9
    with pytest.raises(RunDirectoryError, match="no step 9"):
        Fitter(data, None, FitSettings(**TINY)).restore(values, arrays)


def test_settings_are_checked_and_sizes_reached() -> None:
    with pytest.raises(SpecificationError, match="unknown settings"):
        FitSettings.from_dict({"cutof": 5.0})
    with pytest.raises(SpecificationError, match="size"):
        FitSettings(size="huge")
    with pytest.raises(SpecificationError, match="valid_fraction"):
        FitSettings(valid_fraction=1.5)
    sizes = [
        FitSettings(size=s).spec([29, 47], r_min=2.0, neighbor_scale=40.0).n_parameters
        for s in ("small", "medium", "large")
    ]
    assert sizes == sorted(sizes)
    for wanted in (300, 2000, 8000):
        got = FitSettings(size=wanted).spec([29, 47], r_min=2.0, neighbor_scale=40.0).n_parameters
        assert 0.7 * wanted < got < 1.4 * wanted


def test_the_size_that_is_chosen_follows_the_data(alloys: DataSet) -> None:
    def parameters(size: str, neighbors: float = 40.0, n_rows: int = 0) -> int:
        settings = FitSettings(size=size)
        return settings.spec([29, 47], r_min=2.0, neighbor_scale=neighbors, n_rows=n_rows).n_parameters

    medium, large = parameters("medium"), parameters("large")
    assert FitSettings().size == "auto"
    assert parameters("auto", n_rows=10 * large) == large
    assert parameters("auto", n_rows=10 * large - 1) == medium  # too few data
    assert parameters("auto", neighbors=12.0, n_rows=10 * large) == medium  # molecules
    assert parameters("auto", n_rows=10**7) == medium  # it would take hours
    assert alloys.n_rows == len(alloys) + 3 * alloys.n_atoms + 6 * alloys.n_stresses


def test_the_ranks_of_a_size_fit_other_orders_and_angular_momenta() -> None:
    def bonds(**settings: Any) -> list[str]:
        spec = FitSettings(size="large", **settings).spec([29], r_min=2.0, neighbor_scale=40.0)
        return [str(bond) for bond in spec.bonds[1:-1]]

    whole = bonds()
    assert bonds(order=3) == whole[:2]
    assert bonds(order=7) == [*whole, whole[-1], whole[-1]]
    assert bonds(l_max=5) == [whole[0] + " + 3x5o", *whole[1:]]
    with pytest.raises(SpecificationError, match="order"):
        bonds(order=1.5)


def test_species_beyond_the_training_set(labelled_by: Callable[..., DataSet], teacher: Potential) -> None:
    data = labelled_by(teacher, n=3)
    assert Fitter(data, None, FitSettings(**TINY), species=(29, 47, 79)).potential.species == (29, 47, 79)
    with pytest.raises(DataError, match="not among"):
        Fitter(data, None, FitSettings(**TINY), species=(29,))
    with pytest.raises(DataError, match="empty"):
        Fitter(DataSet(), None, FitSettings(**TINY))


def test_a_feature_step_moves_the_shared_factors_alone_and_lowers_the_loss(
    teacher: Potential, reseeded: Callable[[Potential, int], Potential], labelled_by: Callable[..., DataSet]
) -> None:
    problem = Problem.from_dataset(labelled_by(teacher, n=3), teacher.cutoff, FitSettings().loss_weights)
    student = reseeded(teacher, 3)
    shared = student.spec.shared_groups
    assert shared == ("species.pair", "radial.0", "radial.1")
    step = polish_step(problem, student, Damping(), groups=shared, fixed_ridge=True)
    assert step.loss == pytest.approx(problem.loss(step.potential))
    assert step.loss < 0.9 * problem.loss(student)
    for name, array in step.potential.arrays.items():
        assert np.array_equal(array, student.arrays[name]) == (name not in shared), name
