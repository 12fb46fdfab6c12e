"""Fits of potentials with layers: stages, restarts, local solves of the last train, batches and shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write

import etnpot
from etnpot.errors import RunDirectoryError, SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.polish import lbfgs_steps
from etnpot.fitting.prepared import LossWeights
from etnpot.fitting.problem import Problem
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.sweeps import one_site, sweep_order
from etnpot.network.canonical import frobenius_norm
from etnpot.potential import Potential

TINY: dict[str, Any] = dict(
    cutoff=4.0, order=2, l_max=1, channels=2, ranks=2, radial_size=3, species_rank=2, threads=1, polish_steps=3
)  # fmt: skip
KINDS: dict[str, list[dict[str, Any]]] = {
    "message": [dict(kind="message", carry={"0e": 1, "1o": 1}, ranks=1)],
    "bilinear": [dict(kind="message", carry={"0e": 2}, ranks=1, attention="bilinear", heads=1, width=1)],
    "normalised": [dict(kind="message", carry={"0e": 1}, ranks=1, attention="normalised", heads=1, width=1)],
    "pool": [dict(kind="pool", carry={"0e": 1, "1o": 1}, ranks=1)],
    "deep": [dict(kind="message", carry={"0e": 1}, order=1), dict(kind="pool", carry={"0e": 1}, order=1)],
}


@pytest.fixture
def data(labelled_by: Callable[..., DataSet], teacher: Potential) -> tuple[DataSet, DataSet]:
    """Training and validation set, small."""
    return labelled_by(teacher, n=5, n_atoms=4, noise=0.02), labelled_by(teacher, n=2, n_atoms=4)


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of L-BFGS with few iterations."""
    monkeypatch.setattr("etnpot.fitting.fitter._LBFGS_ITERATIONS", 4)


def student(kind: str, seed: int = 1) -> Potential:
    settings = {name: value for name, value in TINY.items() if name not in ("threads", "polish_steps")}
    return etnpot.ETN(
        ["Cu", "Ag"], **settings, layers=KINDS[kind], seed=seed, reference_energies={"Cu": -3.0, "Ag": -2.0}
    )


ALL_KINDS = [name if name == "deep" else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_fit_appends_its_layers_and_restarts_anywhere(kind: str, data: tuple[DataSet, DataSet]) -> None:
    """The same bits from before and after the layers were there; appending them changes no error."""
    settings = FitSettings(**TINY, layers=KINDS[kind])
    whole, states = Fitter(*data, settings), []
    while not whole.finished:
        whole.step()
        states.append(json.dumps(whole.state()[0]))
        states[-1] = (states[-1], {name: array.copy() for name, array in whole.state()[1].items()})
    stages = [record["stage"] for record in whole.history]
    at = stages.index("layers")
    assert stages.count("layers") == 1 and stages[at - 1] == "polish" and "polish" in stages[at + 1 :]
    before, appended, last = whole.history[at - 1], whole.history[at], whole.history[-1]
    assert appended["train"]["loss"] == pytest.approx(before["train"]["loss"], rel=1e-9)
    assert last["train"]["loss"] < appended["train"]["loss"]
    assert [layer.kind for layer in whole.potential.spec.layers] == [layer["kind"] for layer in KINDS[kind]]
    assert last["n_parameters"] > before["n_parameters"]
    for values, arrays in (states[at - 1], states[at]):
        restored = Fitter(*data, settings)
        restored.restore(json.loads(values), arrays)
        restored.run()
        np.testing.assert_array_equal(restored.potential.parameters, whole.potential.parameters)
        np.testing.assert_array_equal(restored.best.parameters, whole.best.parameters)
        assert restored.reason == whole.reason


def test_few_steps_are_not_all_spent_without_layers(data: tuple[DataSet, DataSet]) -> None:
    """Cause: the layers came after six steps of the polish, and a fit of fewer never had them."""
    fitter = Fitter(*data, FitSettings(**TINY | {"polish_steps": 2}, layers=KINDS["pool"]))
    fitter.run()
    assert fitter.potential.spec.layers


def test_a_checkpoint_of_other_layers_is_refused(data: tuple[DataSet, DataSet]) -> None:
    fitter = Fitter(*data, FitSettings(**TINY, layers=KINDS["pool"]))
    values, arrays = fitter.state()
    with pytest.raises(SpecificationError, match=r"other settings of .*layers"):
        Fitter(*data, FitSettings(**TINY, layers=KINDS["message"])).restore(values, arrays)
    other = student("message")
    forged = {**values, "spec": {**values["spec"], "layers": other.spec.to_dict()["layers"]}}
    with pytest.raises(RunDirectoryError, match="does not hold the state of a fit"):
        Fitter(*data, FitSettings(**TINY, layers=KINDS["pool"])).restore(forged, arrays)


def test_a_fit_goes_on_from_a_potential_with_layers(data: tuple[DataSet, DataSet]) -> None:
    start = student("message")
    fitter = Fitter(*data, FitSettings(**TINY | {"polish_steps": 1}, repulsion="none"), start=start)
    assert fitter.potential.spec.layers == start.spec.layers
    fitter.run()
    losses = [record["train"]["loss"] for record in fitter.history]
    assert losses[-1] < losses[0] and fitter.best.spec.layers == start.spec.layers


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_local_solve_of_the_last_train_lowers_the_penalised_loss(
    kind: str, data: tuple[DataSet, DataSet], problem_of: Callable[..., Problem]
) -> None:
    problem, potential, ridge = problem_of(data[0], 4.0), student(kind), 0.05
    value = problem.loss(potential) + ridge * frobenius_norm(potential.train) ** 2
    first = value
    for forward in (False, True):
        for core in sweep_order(2, forward=forward):
            solved = one_site(problem, potential, core, ridge=ridge)
            potential = solved.potential
            assert problem.loss(potential) == pytest.approx(solved.loss, rel=1e-8)
            new = solved.loss + ridge * frobenius_norm(potential.train) ** 2
            assert new <= value * (1 + 1e-10)
            value = new
    assert value < 0.9 * first
    _, after = lbfgs_steps(problem, potential, ridge=0.0, steps=3)
    assert after < problem.loss(potential)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_batches_and_shards_give_the_same_sums(
    kind: str,
    data: tuple[DataSet, DataSet],
    problem_of: Callable[..., Problem],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Configurations in one batch are pooled apart; two ranks share them."""
    monkeypatch.setattr("etnpot.fitting.prepared._LEAST_BATCHES", 2)
    potential = student(kind)
    whole = problem_of(data[0], 4.0)
    assert len(whole._data_batches) < len(data[0])  # several in one batch
    loss, gradient = whole.gradient(potential)
    singles = [problem_of(data[0][k : k + 1], 4.0).gradient(potential) for k in range(len(data[0]))]
    assert sum(part[0] for part in singles) == pytest.approx(loss, rel=1e-12)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(
        np.sum([part[1] for part in singles], axis=0), gradient, rtol=0, atol=1e-11 * scale
    )
    weights = LossWeights(energy=1.0, stress=1.0)
    shards = [Problem.from_dataset(data[0], 4.0, weights, shard=(rank, 2)) for rank in range(2)]
    assert all(0 < len(shard.data) < len(data[0]) for shard in shards)
    parts = [shard.gradient(potential) for shard in shards]
    assert sum(part[0] for part in parts) == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(parts[0][1] + parts[1][1], gradient, rtol=0, atol=1e-11 * scale)
    grams = [problem.normal_equations(potential, ("core.1",)).gram for problem in (whole, *shards)]
    np.testing.assert_allclose(grams[1] + grams[2], grams[0], rtol=0, atol=1e-11 * np.abs(grams[0]).max())


def test_the_gradient_of_the_loss_is_that_of_differences(
    data: tuple[DataSet, DataSet], problem_of: Callable[..., Problem], rng: np.random.Generator
) -> None:
    problem, potential = problem_of(data[0], 4.0), student("deep")
    _, gradient = problem.gradient(potential)
    direction = rng.normal(size=potential.n_parameters)
    exact, errors = float(gradient @ direction), []
    for h in (2e-4, 1e-4):
        ends = [
            problem.loss(potential.with_parameters(potential.parameters + sign * h * direction))
            for sign in (1.0, -1.0)
        ]
        errors.append(abs((ends[0] - ends[1]) / (2 * h) - exact))
    assert errors[1] < 1e-4 * abs(exact)
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.2)


def test_groups_of_a_file_reach_the_fit(data: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    """``pool_group`` is a column of the file, decides energies and gradients, and is part of what the data are."""
    frames = [labelled.to_atoms() for labelled in data[0]]
    for atoms in frames:
        atoms.set_array("pool_group", np.array([0, 1, 0, 1]))
    write(tmp_path / "grouped.extxyz", frames)
    grouped = DataSet.from_files(tmp_path / "grouped.extxyz")
    assert grouped.hash != data[0].hash  # cause: a checkpoint of other groups was taken for one of these data
    potential, weights = student("pool"), LossWeights(energy=1.0, stress=1.0)
    problem = Problem.from_dataset(grouped, 4.0, weights)
    residuals = problem.residuals(potential)
    for labelled, rows in zip(grouped, residuals, strict=True):
        atoms = labelled.atoms
        energy = potential.evaluate(potential.edges(atoms), atoms.numbers).energy
        assert abs(rows[0]) == pytest.approx(abs(energy - labelled.energy) / 2.0, rel=1e-9)  # sqrt of 4 atoms
    whole = Problem.from_dataset(data[0], 4.0, weights)
    assert problem.loss(potential) != pytest.approx(whole.loss(potential), rel=1e-6)


def test_a_fit_ends_with_grades(data: tuple[DataSet, DataSet], caplog: pytest.LogCaptureFixture) -> None:
    """Cause: it warned that potentials with layers have none."""
    potential = etnpot.fit(data[0], **TINY, valid_fraction=0.0, layers=KINDS["message"]).potential
    assert potential.spec.layers and potential.reliability is not None
    assert not [record for record in caplog.records if "grades" in record.message]
    assert potential.provenance["reliability"]["calibrated_on"] == "training set"
    grades = [potential.assess(potential.edges(c.atoms), c.atoms.numbers).grade for c in data[0]]
    assert max(grades) <= 1.02


@pytest.mark.slow
def test_a_fit_that_was_stopped_gives_the_same_grades(data: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    settings = {**TINY, "layers": KINDS["deep"], "polish_steps": 2}
    whole = etnpot.fit(*data, **settings).potential
    assert whole.spec.layers and whole.reliability is not None

    class Stopped(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record["stage"] == "layers":
            raise Stopped

    with pytest.raises(Stopped):
        etnpot.fit(*data, out=tmp_path / "stopped", callback=stop, **settings)
    etnpot.fit(*data, out=tmp_path / "stopped", resume=True, **settings)
    again = etnpot.load(tmp_path / "stopped/potential.etn")
    np.testing.assert_array_equal(again.parameters, whole.parameters)
    assert again.reliability is not None
    expected = whole.reliability.to_arrays()
    for name, array in again.reliability.to_arrays().items():
        np.testing.assert_array_equal(array, expected[name])
