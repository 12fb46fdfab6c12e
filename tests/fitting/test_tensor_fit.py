"""Fits of tensors: equations against differences, a teacher that is found again, labels, errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import etnpot
from etnpot.errors import DataError, RunDirectoryError, SpecificationError
from etnpot.fitting import tensor_problem
from etnpot.fitting.checkpoint import CheckpointFile, read_checkpoint, write_checkpoint
from etnpot.fitting.tensor_evaluation import compare_tensors
from etnpot.fitting.tensor_problem import TensorProblem
from etnpot.io.tensor_labels import UNITS, TensorLabel, read_tensors
from etnpot.potential import Quantity, TensorModel, make_tensor_model

SMALL: dict[str, Any] = dict(
    cutoff=3.5, order=2, l_max=2, radial_size=3, channels=[2, 2, 1], ranks=2, species_rank=2
)
DIPOLE = Quantity("dipole", "vector", charges=True)
SHIELDING = Quantity("shielding", "matrix", per_atom=True)


def molecules(n: int, rng: np.random.Generator) -> list[Atoms]:
    """Water-like triatomics with charges, some with a fourth atom."""
    found = []
    for k in range(n):
        atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        if k % 3 == 0:
            atoms += Atoms("H", [[-0.3, -0.4, 0.9]])
            atoms.info["charge"] = 1.0
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape) + rng.normal(size=3)
        atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
        found.append(atoms)
    return found


def labelled(model: TensorModel, structures: list[Atoms]) -> list[TensorLabel]:
    return [
        TensorLabel(
            atoms, model.predict(atoms).value, float(atoms.info.get("charge", 0.0)), 1.0 + k % 2, f"{k}"
        )
        for k, atoms in enumerate(structures)
    ]


@pytest.mark.parametrize("quantity", [DIPOLE, SHIELDING])
def test_normal_equations_are_those_of_the_residuals(quantity: Quantity, rng: np.random.Generator) -> None:
    data = labelled(make_tensor_model(["H", "O"], quantity, seed=1, **SMALL), molecules(7, rng))
    model = make_tensor_model(["H", "O"], quantity, seed=2, **SMALL)
    problem = TensorProblem(data, quantity, model.cutoff)
    equations = problem.normal_equations(model)
    assert equations.loss == pytest.approx(problem.loss(model))
    assert equations.n_rows == problem.n_rows
    directions = rng.normal(size=(6, model.n_parameters))
    h = 1e-4
    columns = [
        np.concatenate(problem.residuals(model.with_parameters(model.parameters - h * d)))
        - np.concatenate(problem.residuals(model.with_parameters(model.parameters + h * d)))
        for d in directions
    ]
    j = np.array(columns).T / (2 * h)
    r = np.concatenate(problem.residuals(model))
    assert np.allclose(
        directions @ equations.gram @ directions.T, j.T @ j, rtol=1e-5, atol=1e-5 * np.abs(j.T @ j).max()
    )
    assert np.allclose(
        directions @ equations.rhs, j.T @ r, rtol=1e-4, atol=1e-6 * np.abs(equations.rhs).max()
    )
    assert np.allclose(
        problem.project(model, problem.residuals(model)), equations.rhs, atol=1e-9 * equations.loss
    )
    factor = problem.triangular_factor(model, ("core.2",))
    part = problem.normal_equations(model, ("core.2",))
    assert np.allclose(factor[:, :-1].T @ factor[:, :-1], part.gram, atol=1e-10 * np.abs(part.gram).max())
    assert np.allclose(factor[:, :-1].T @ factor[:, -1], part.rhs, atol=1e-10 * np.abs(part.gram).max())


@pytest.mark.parametrize("quantity", [DIPOLE, pytest.param(SHIELDING, marks=pytest.mark.slow)])
def test_a_teacher_is_found_again(quantity: Quantity, rng: np.random.Generator) -> None:
    teacher = make_tensor_model(["H", "O"], quantity, seed=3, r_min=0.6, neighbor_scale=2.3, **SMALL)
    structures = molecules(90, rng)
    for atoms in structures:
        value = teacher.predict(atoms).value
        if quantity.per_atom:
            atoms.arrays[quantity.name] = value.reshape(len(atoms), -1)
        else:
            atoms.info[quantity.name] = value
    result = etnpot.fit_tensor(
        structures[:70],
        quantity,
        test=structures[70:],
        r_min=0.6,
        neighbor_scale=2.3,
        polish_steps=15,
        **SMALL,
    )
    assert result.metrics["test"].rmse < 2e-2 * result.metrics["test"].spread, result.table()
    losses = [record["train_rmse"] for record in result.history]
    assert losses[-1] < losses[0]
    assert result.model.provenance["sets"]["test"]["n"] == (
        sum(map(len, structures[70:])) if quantity.per_atom else 20
    )


def test_the_same_seed_gives_the_same_model(rng: np.random.Generator) -> None:
    data = labelled(make_tensor_model(["H", "O"], "polarizability", seed=3, **SMALL), molecules(20, rng))
    for label in data:
        label.atoms.info["polarizability"] = label.value
    structures = [label.atoms for label in data]
    fits = [
        etnpot.fit_tensor(structures, "polarizability", polish_steps=1, sweeps=1, threads=1, **SMALL)
        for _ in range(2)
    ]
    assert np.array_equal(fits[0].model.parameters, fits[1].model.parameters)
    assert compare_tensors(fits[0].model, data).metrics.n == 20


def test_chunks_and_threads_do_not_matter(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(make_tensor_model(["H", "O"], DIPOLE, seed=1, **SMALL), molecules(9, rng))
    model = make_tensor_model(["H", "O"], DIPOLE, seed=2, **SMALL)
    whole = TensorProblem(data, DIPOLE, model.cutoff, threads=1).normal_equations(model)
    monkeypatch.setattr(tensor_problem, "_CHUNK_ATOMS", 6)
    problems = [TensorProblem(data, DIPOLE, model.cutoff, threads=n) for n in (1, 3)]
    cut = [problem.normal_equations(model) for problem in problems]
    assert np.array_equal(cut[0].gram, cut[1].gram) and np.array_equal(cut[0].rhs, cut[1].rhs)
    assert np.allclose(cut[0].gram, whole.gram, atol=1e-12 * np.abs(whole.gram).max())
    assert np.array_equal(*(problem.project(model, problem.residuals(model)) for problem in problems))


def test_labels_are_found_where_ase_has_them(tmp_path: Path, rng: np.random.Generator) -> None:
    structures = molecules(2, rng)
    dipole, alpha = rng.normal(size=3), rng.normal(size=(3, 3))
    alpha = alpha + alpha.T
    structures[0].calc = SinglePointCalculator(structures[0], dipole=dipole)
    structures[0].info["polarizability"] = alpha
    structures[1].info["alpha"] = alpha[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    structures[1].info["REF_dipole"] = 2 * dipole
    path = tmp_path / "data.extxyz"
    write(path, structures)
    for source in (path, structures):
        (first, second) = read_tensors(source, "dipole", (3,), unit="debye")
        assert np.allclose(first.value, dipole * UNITS["dipole"]["debye"], atol=1e-7)
        assert np.allclose(second.value, 2 * first.value)
        assert (first.charge, second.charge) == (1.0, 0.0)
        for label in read_tensors(source, "polarizability", (3, 3)):
            assert np.allclose(label.value, alpha, atol=1e-7)
    structures[1].info["mu"] = dipole
    with pytest.raises(DataError, match="several values"):
        read_tensors(structures, "dipole", (3,))
    assert len(read_tensors(structures, "dipole", (3,), key="mu")) == 1


def test_bad_data_and_settings_are_refused(rng: np.random.Generator) -> None:
    structures = molecules(4, rng)
    with pytest.raises(DataError, match=r"none of 4 configurations has a dipole.*key="):
        etnpot.fit_tensor(structures, "dipole")
    for atoms in structures:
        atoms.info["dipole"] = [1.0, 2.0]
    with pytest.raises(DataError, match=r"expected a dipole of shape \[3\]"):
        etnpot.fit_tensor(structures, "dipole")
    for atoms in structures:
        atoms.info["dipole"] = [1.0, 2.0, np.nan]
        atoms.info["polarizability"] = np.arange(9.0).reshape(3, 3)
    with pytest.raises(DataError, match="not finite"):
        etnpot.fit_tensor(structures, "dipole")
    with pytest.raises(DataError, match="is not symmetric"):
        etnpot.fit_tensor(structures, "polarizability", **SMALL)
    with pytest.raises(SpecificationError, match="unknown settings"):
        etnpot.fit_tensor(structures, "dipole", cutof=3.0)
    with pytest.raises(SpecificationError, match="no meaning of its own"):
        etnpot.fit_tensor(structures, "shielding")
    with pytest.raises(SpecificationError, match="unit: expected one of"):
        etnpot.fit_tensor(structures, "dipole", unit="esu")


# ----------------------------------------------------------------------------------------------- checkpoints


class Stopped(Exception):
    """What a callback raises in the place of a kill."""


def stop_after(step: int) -> Callable[[dict[str, Any]], None]:
    def callback(record: dict[str, Any]) -> None:
        if record["step"] == step:
            raise Stopped

    return callback


@pytest.fixture
def dipoles(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A file of molecules with the dipoles of a random model, and noise, so that no step ends the fit."""
    structures = molecules(40, rng)
    teacher = make_tensor_model(["H", "O"], DIPOLE, seed=4, **SMALL)
    for atoms, label in zip(structures, labelled(teacher, structures), strict=True):
        atoms.info["dipole"] = label.value + 0.1 * rng.normal(size=3)
    write(tmp_path / "dipoles.extxyz", structures)
    return tmp_path / "dipoles.extxyz"


FEW_STEPS: dict[str, Any] = SMALL | dict(charges=True, sweeps=2, polish_steps=3, threads=1, seed=1)


def test_a_fit_stopped_anywhere_ends_with_the_same_bits(dipoles: Path, tmp_path: Path) -> None:
    whole = etnpot.fit_tensor(dipoles, "dipole", **FEW_STEPS)
    assert {"sweep", "features", "polish"} == {record["stage"] for record in whole.history}
    for step in range(1, len(whole.history) + 1):
        kept = tmp_path / f"{step}.etnfit"
        with pytest.raises(Stopped):
            etnpot.fit_tensor(dipoles, "dipole", checkpoint=kept, callback=stop_after(step), **FEW_STEPS)
        seen: list[int] = []
        result = etnpot.fit_tensor(
            dipoles, "dipole", checkpoint=kept, resume=True,
            callback=lambda record, seen=seen: seen.append(record["step"]), **FEW_STEPS,
        )  # fmt: skip
        assert seen == list(range(step + 1, len(whole.history) + 1))
        assert result.model.parameters.tobytes() == whole.model.parameters.tobytes()
        assert result.history == whole.history
        assert (result.reason, list(tmp_path.glob("*.lock"))) == (whole.reason, [])


def test_wider_limits_go_on(dipoles: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    first = etnpot.fit_tensor(dipoles, "dipole", checkpoint=kept, **FEW_STEPS)
    more = etnpot.fit_tensor(
        dipoles, "dipole", checkpoint=kept, resume=True, **FEW_STEPS | dict(polish_steps=5)
    )
    assert more.history[: len(first.history)] == first.history
    assert len(more.history) == len(first.history) + 2


def test_what_a_checkpoint_is_not_for(dipoles: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with pytest.raises(Stopped):
        etnpot.fit_tensor(dipoles, "dipole", checkpoint=kept, callback=stop_after(2), **FEW_STEPS)

    def again(data: Any = dipoles, quantity: str = "dipole", **options: Any) -> None:
        etnpot.fit_tensor(data, quantity, checkpoint=kept, **FEW_STEPS | options)

    with pytest.raises(RunDirectoryError, match="--resume"):
        again()
    with pytest.raises(RunDirectoryError, match="give one of them"):
        again(resume=True, force=True)
    with pytest.raises(DataError, match="other data"):
        again(ase.io.read(dipoles, ":-1"), resume=True)
    for changed in ({"ranks": 1}, {"polish_steps": 0}):
        with pytest.raises(SpecificationError, match=f"other settings of .*{next(iter(changed))}"):
            again(resume=True, **changed)
    with CheckpointFile(kept, resume=True), pytest.raises(RunDirectoryError, match="a fit is running"):
        again(resume=True)
    values, arrays = read_checkpoint(kept)
    for damage in (
        {k: v for k, v in values.items() if k != "quantity"},
        {**values, "history": [1]},
        {**values, "progress": {**values["progress"], "sweep_at": -1}},
        {**values, "spec": {**values["spec"], "cutoff": 3.0}},
    ):
        write_checkpoint(kept, damage, arrays)
        with pytest.raises(RunDirectoryError, match="does not hold the state of this fit"):
            again(resume=True)
    kept.write_bytes(b"no checkpoint")
    with pytest.raises(RunDirectoryError, match="not a checkpoint"):
        again(resume=True)
    again(force=True)
    with pytest.raises(RunDirectoryError, match="cannot write the checkpoint"):
        etnpot.fit_tensor(dipoles, "dipole", checkpoint=tmp_path / "no" / "kept", **FEW_STEPS)
