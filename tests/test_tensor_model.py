"""Tensor models: equivariance, charges, derivatives, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot.errors import PotentialFileError, SpecificationError, StructureError
from etnpot.potential import Quantity, TensorModel, make_tensor_model
from etnpot.potential.tensor_spec import FORMS
from etnpot.so3 import clebsch_gordan, wigner_d

FEW: dict[str, Any] = dict(
    cutoff=4.0, order=3, l_max=2, radial_size=3, channels=[2, 2, 1], ranks=2, neighbor_scale=4.0
)


def molecule(rng: np.random.Generator) -> Atoms:
    positions = [[0, 0, 0], [0.9, 0.1, 0], [-0.3, 1.0, 0.2], [0.2, -0.4, 1.1], [-1.0, -0.8, -0.3]]
    return Atoms("CHOHN", np.array(positions, dtype=float) + 0.1 * rng.normal(size=(5, 3)))


def model_of(quantity: Quantity | str, seed: int = 1) -> TensorModel:
    made = make_tensor_model(["H", "C", "N", "O"], quantity, seed=seed, **FEW)
    if "offsets" in made.spec.shapes:
        parameters = made.parameters.copy()
        parameters[made.spec.slices["offsets"]] = [0.1, -0.2, 0.3, 0.4]
        made = made.with_parameters(parameters)
    return made


@pytest.mark.parametrize("form", FORMS)
def test_cartesian_components_are_orthonormal_and_turn_as_their_irreps(form: str) -> None:
    quantity = Quantity("t", form)
    basis = quantity.basis.reshape(quantity.n_components, -1)
    assert np.allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-15)
    rotation = etnpot.testing.random_rotation(np.random.default_rng(0))
    components = np.random.default_rng(1).normal(size=quantity.n_components)
    blocks, at = [], 0
    for irrep in FORMS[form]:
        blocks.append(wigner_d(irrep.l, rotation, p=irrep.p) @ components[at : at + irrep.dim])
        at += irrep.dim
    tensor = quantity.to_cartesian(components)
    turned = (
        rotation @ tensor if tensor.ndim == 1 else rotation @ tensor @ rotation.T if tensor.ndim else tensor
    )
    assert np.allclose(quantity.to_components(turned), np.concatenate(blocks), atol=1e-14)


def test_form_matrix_holds_the_coupling_of_two_vectors() -> None:
    """E_m of l = 1 and 2 are C^{lm}_{1a,1b} with the Cartesian axes y, z, x."""
    quantity, axes = Quantity("t", "matrix"), [1, 2, 0]
    for l, first in ((1, 1), (2, 4)):
        coupling = clebsch_gordan(1, 1, l)
        for m in range(2 * l + 1):
            assert np.allclose(quantity.basis[first + m][np.ix_(axes, axes)], coupling[:, :, m])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("per_atom", [False, True])
def test_rotation_inversion_translation_permutation(
    form: str, per_atom: bool, rng: np.random.Generator
) -> None:
    atoms = molecule(rng)
    model = model_of(Quantity("t", form, per_atom=per_atom))
    value = model.predict(atoms).value
    rotation = etnpot.testing.random_rotation(rng)
    order = rng.permutation(len(atoms))
    for improper in (1.0, -1.0):
        moved = atoms[order]
        moved.positions = improper * moved.positions @ rotation.T + [1.0, -2.0, 0.5]
        found = model.predict(moved).value
        expected = value[order] if per_atom else value
        if form == "vector":
            expected = improper * expected @ rotation.T
        elif form == "axial":
            expected = expected @ rotation.T
        elif form != "scalar":
            expected = rotation @ expected @ rotation.T
        assert np.abs(found - expected).max() < 1e-12 * max(np.abs(value).max(), 1.0)
    assert np.abs(value).max() > 1e-4


def test_charges_add_up_and_dipoles_move_with_the_total_charge(rng: np.random.Generator) -> None:
    atoms, model = molecule(rng), model_of(Quantity("dipole", "vector", charges=True))
    for charge in (0.0, -1.5):
        atoms.info["charge"] = charge
        found = model.predict(atoms)
        assert found.charge_i is not None
        assert abs(found.charge_i.sum() - charge) < 1e-12
        direct = found.charge_i @ atoms.positions + found.atomic.sum(axis=0)
        assert np.allclose(found.total, direct, atol=1e-12)
        moved = atoms.copy()
        moved.positions += [1.0, 2.0, -3.0]
        assert np.allclose(
            model.predict(moved).total, found.total + charge * np.array([1.0, 2.0, -3.0]), atol=1e-11
        )
    turned = atoms.copy()
    rotation = etnpot.testing.random_rotation(rng)
    turned.positions = -turned.positions @ rotation.T
    assert np.allclose(model.predict(turned).total, -rotation @ found.total, atol=1e-11)


@pytest.mark.parametrize(
    "quantity", [Quantity("d", "vector", charges=True), Quantity("a", "symmetric"), Quantity("m", "matrix")]
)
def test_derivatives_by_positions(quantity: Quantity, rng: np.random.Generator) -> None:
    """Every component against central differences, of second order in the step."""
    atoms, model = molecule(rng), model_of(quantity)
    atoms.info["charge"] = 1.0
    found, derivative = model.predict_derivatives(atoms)
    assert np.allclose(found.total, model.predict(atoms).total, atol=1e-13)
    errors = []
    for h in (4e-3, 2e-3):
        numeric = np.empty_like(derivative)
        for i in range(len(atoms)):
            for c in range(3):
                sides = []
                for sign in (1, -1):
                    moved = atoms.copy()
                    moved.positions[i, c] += sign * h
                    sides.append(model.predict(moved).total)
                numeric[i, c] = (sides[0] - sides[1]) / (2 * h)
        errors.append(np.abs(numeric - derivative).max())
    assert errors[1] < 1e-3 * np.abs(derivative).max()
    assert errors[1] < 0.35 * errors[0]


def test_periodic_images_count(rng: np.random.Generator) -> None:
    atoms = molecule(rng)
    atoms.set_cell([[3.1, 0, 0], [0.4, 3.3, 0], [0.1, 0.2, 3.6]])
    atoms.pbc = True
    model = model_of("polarizability")
    one, derivative = model.predict_derivatives(atoms)
    four, four_derivative = model.predict_derivatives(atoms * (2, 2, 1))
    assert np.allclose(four.total, 4 * one.total, atol=1e-12)
    assert np.allclose(four_derivative, np.tile(derivative, (4, 1, 1, 1)), atol=1e-12)
    assert np.abs(derivative.sum(axis=0)).max() < 1e-12  # a translation changes nothing
    with pytest.raises(StructureError, match="periodic"):
        model_of(Quantity("dipole", "vector", charges=True)).predict(atoms)


def test_file_round_trip_and_what_it_refuses(tmp_path: Path, rng: np.random.Generator) -> None:
    atoms, model = molecule(rng), model_of("polarizability")
    path = tmp_path / "alpha.etn"
    model.with_parameters(model.parameters, {"note": "a"}).save(path)
    again = etnpot.load_tensor(path)
    assert again.spec == model.spec and again.provenance == {"note": "a"}
    assert np.array_equal(again.predict(atoms).total, model.predict(atoms).total)
    with pytest.raises(PotentialFileError, match="holds a tensor model, not a potential"):
        etnpot.load(path)
    energy = tmp_path / "energy.etn"
    etnpot.ETN("H", l_max=1).save(energy)
    with pytest.raises(PotentialFileError, match="holds a potential, not a tensor model"):
        etnpot.load_tensor(energy)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(PotentialFileError, match="damaged"):
        etnpot.load_tensor(path)


def test_a_frozen_file_keeps_its_numbers() -> None:
    path = Path(__file__).parent / "data" / "tensor-format-1.etn"
    model = etnpot.load_tensor(path)
    for case in json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["evaluations"]:
        atoms = Atoms(**case["structure"])
        atoms.pbc = False  # a dipole with charges
        found, derivative = model.predict_derivatives(atoms, charge=1.0)
        for name, value in (
            ("total", found.total),
            ("component_io", found.component_io),
            ("derivative", derivative),
        ):
            expected = np.array(case["results"][name])
            assert np.abs(value - expected).max() <= 1e-12 * np.abs(expected).max(), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(name="t", form="tensor"), "form: expected one of scalar"),
        (dict(name="", form="vector"), "name"),
        (dict(name="t", form="symmetric", charges=True), "charges"),
        (dict(name="t", form="vector", per_atom=1), "per_atom"),
    ],
)
def test_wrong_quantities_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        Quantity(**values)


def test_an_output_that_no_path_reaches_is_refused() -> None:
    with pytest.raises(SpecificationError):
        make_tensor_model("H", Quantity("m", "axial"), **{**FEW, "order": 1})
    with pytest.raises(SpecificationError, match="no such setting"):
        make_tensor_model("H", "dipole", repulsion="zbl")
