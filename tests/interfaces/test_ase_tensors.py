"""Dipole and polarizability of the ASE calculator, the physics checks on them, and these checks on broken calculators."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

import etnpot
from etnpot import testing
from etnpot.errors import SpecificationError
from etnpot.potential import Quantity, TensorModel, make_tensor_model

FEW: dict[str, Any] = dict(
    cutoff=3.5, order=3, l_max=2, radial_size=4, channels=[2, 2, 1], ranks=2, neighbor_scale=4.0
)
CHARGED = Quantity("dipole", "vector", charges=True)


def tensor_model(quantity: Quantity | str) -> TensorModel:
    return make_tensor_model(["H", "C", "O"], quantity, seed=5, **FEW)


@pytest.fixture
def atoms() -> Atoms:
    positions = [[0, 0, 0], [1.1, 0.2, 0], [-0.5, 1.0, 0.3], [-0.4, -0.7, 0.9]]
    return Atoms("COHH", positions, info={"charge": -1.0})


@pytest.fixture
def calculator() -> etnpot.ETNCalculator:
    potential = etnpot.ETN(["H", "C", "O"], l_max=1, order=2, cutoff=3.0)
    return etnpot.ETNCalculator(
        potential, dipole=tensor_model(CHARGED), polarizability=tensor_model("polarizability")
    )


def test_properties_are_those_of_the_models(atoms: Atoms, calculator: etnpot.ETNCalculator) -> None:
    atoms.calc = calculator
    atoms.get_forces()
    assert "dipole" not in calculator.results  # on request only
    found = tensor_model(CHARGED).predict(atoms)
    assert np.array_equal(atoms.get_dipole_moment(), found.total)
    assert np.array_equal(atoms.get_charges(), found.charge_i)
    alpha = calculator.get_property("polarizability", atoms)
    assert np.array_equal(alpha, tensor_model("polarizability").predict(atoms).total)
    assert np.allclose(alpha, alpha.T, atol=1e-15)
    assert set(calculator.export_properties()) >= {"energy", "forces", "dipole", "charges"}
    atoms.positions[0, 0] += 0.1
    assert np.array_equal(atoms.get_dipole_moment(), tensor_model(CHARGED).predict(atoms).total)
    for twin in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        assert np.array_equal(twin.get_property("dipole", atoms), atoms.get_dipole_moment())


def test_models_come_and_go(atoms: Atoms, calculator: etnpot.ETNCalculator, tmp_path: Path) -> None:
    path = tmp_path / "dipole.etn"
    tensor_model("dipole").save(path)
    before = calculator.get_property("dipole", atoms)
    calculator.set(dipole=path)
    assert calculator.parameters["dipole"] == str(path)
    assert np.array_equal(
        calculator.get_property("dipole", atoms), tensor_model("dipole").predict(atoms).total
    )
    assert not np.allclose(calculator.get_property("dipole", atoms), before)
    calculator.set(skin=0.1, dipole=None)
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_property("dipole", atoms)
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_property("charges", atoms)
    with pytest.raises(PropertyNotImplementedError, match="dipole="):
        calculator.tensor_derivatives("dipole", atoms)
    assert calculator.get_property("polarizability", atoms).shape == (3, 3)
    assert "dipole" not in etnpot.ETNCalculator.implemented_properties


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(dipole=3), "dipole: expected a TensorModel"),
        (dict(dipole="polarizability"), "expected a model of form 'vector'"),
        (dict(polarizability=Quantity("a", "symmetric", per_atom=True)), "of each atom"),
    ],
)
def test_wrong_models_are_refused(
    settings: dict[str, Any], message: str, calculator: etnpot.ETNCalculator
) -> None:
    made = {k: tensor_model(v) if isinstance(v, str | Quantity) else v for k, v in settings.items()}
    with pytest.raises(SpecificationError, match=message):
        calculator.set(**made)


@pytest.mark.parametrize("name", ["dipole", "polarizability"])
def test_physics(name: str, atoms: Atoms, calculator: etnpot.ETNCalculator) -> None:
    testing.check_tensor_rotation(atoms, calculator, name)
    testing.check_tensor_inversion(atoms, calculator, name)
    testing.check_tensor_translation(atoms, calculator, name, charge=-1.0)
    testing.check_tensor_permutation(atoms, calculator, name)
    testing.check_tensor_derivatives(atoms, calculator, name)


class Broken:
    """A calculator whose tensors are wrong in one way."""

    implemented_properties = ("dipole", "polarizability")

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def get_property(self, name: str, atoms: Atoms) -> Any:
        x_ic = atoms.positions - atoms.positions.mean(axis=0)
        z_i = atoms.numbers.astype(float)
        if self.fault == "order":
            z_i = z_i + np.arange(len(z_i))
        value = z_i @ x_ic if name == "dipole" else np.einsum("i,ic,id->cd", z_i, x_ic, x_ic)
        if self.fault == "axis":
            value = value * (np.array([1.0, 1.0, 1.1]))
        if self.fault == "parity":
            value = value + (np.cross(x_ic[0], x_ic[1]) if name == "dipole" else z_i @ x_ic[:, 0])
        if self.fault == "origin":
            value = value + 0.1 * atoms.positions[0, 0]
        return value

    def tensor_derivatives(self, name: str, atoms: Atoms) -> Any:
        weight_i = atoms.numbers - atoms.numbers.mean()
        factor = 1.001 if self.fault == "derivative" else 1.0
        return factor * weight_i[:, None, None] * np.eye(3)


@pytest.mark.parametrize(
    ("fault", "check", "names"),
    [
        ("axis", testing.check_tensor_rotation, ("dipole", "polarizability")),
        ("parity", testing.check_tensor_inversion, ("dipole", "polarizability")),
        ("origin", testing.check_tensor_translation, ("dipole", "polarizability")),
        ("order", testing.check_tensor_permutation, ("dipole", "polarizability")),
        ("derivative", testing.check_tensor_derivatives, ("dipole",)),
    ],
)
def test_checks_fail_on_broken_tensors_alone(
    fault: str, check: Any, names: tuple[str, ...], atoms: Atoms
) -> None:
    for name in names:
        assert check(atoms, Broken(""), name).passed
        assert not check(atoms, Broken(fault), name, raise_on_failure=False).passed
        with pytest.raises(testing.PhysicsCheckError):
            check(atoms, Broken(fault), name)
