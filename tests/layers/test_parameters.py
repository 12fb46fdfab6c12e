"""Derivatives by the parameters: every one against differences of second order, rows against columns, and appended layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from etnpot.conventions import VOIGT
from etnpot.network import scale
from etnpot.potential import Potential
from etnpot.potential.sensitivity import Sensitivities

Make = Callable[..., Potential]


def observables(potential: Potential, atoms: Atoms) -> np.ndarray:
    """Energies of atoms, gradients by positions and the virial, in the order of a Jacobian."""
    found = potential.evaluate(potential.edges(atoms), atoms.numbers, threads=1)
    virial_v = [found.virial[a, b] for a, b in VOIGT]
    return np.concatenate([found.energy_i, -found.forces.ravel(), virial_v])


def check_jacobian(potential: Potential, atoms: Atoms, parameters: Any, steps: tuple[float, float]) -> None:
    """The given rows against central differences at two steps: small errors, which fall by four."""
    jacobian = potential.jacobian(potential.edges(atoms), atoms.numbers)
    exact_qc = np.concatenate([jacobian.energy_iq.T, jacobian.gradient_qc], axis=1)[parameters]
    errors = []
    for h in steps:
        difference_qc = []
        for q in parameters:
            ends = []
            for sign in (1.0, -1.0):
                moved = potential.parameters.copy()
                moved[q] += sign * h
                ends.append(observables(potential.with_parameters(moved), atoms))
            difference_qc.append((ends[0] - ends[1]) / (2 * h))
        errors.append(np.abs(np.array(difference_qc) - exact_qc).max() / np.abs(exact_qc).max())
    assert errors[1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def some_of_each_group(potential: Potential, rng: np.random.Generator, count: int) -> list[int]:
    """Numbers of a few parameters of every group."""
    found: list[int] = []
    for place in potential.spec.slices.values():
        members = np.arange(place.start, place.stop)
        found += rng.choice(members, min(count, len(members)), replace=False).tolist()
    return found


def test_parameters_of_every_group(potential: Potential, molecule: Atoms, rng: np.random.Generator) -> None:
    check_jacobian(potential, molecule, some_of_each_group(potential, rng, 1), (0.02, 0.01))


@pytest.mark.slow
def test_every_parameter(potential: Potential, crystal: Atoms) -> None:
    check_jacobian(potential, crystal, list(range(potential.n_parameters)), (0.004, 0.002))


@pytest.mark.slow
def test_close_pairs_and_energies_out_of_bounds(
    kind: str, make_layered: Make, crystal: Atoms, rng: np.random.Generator
) -> None:
    potential = make_layered(kind, repulsion="zbl")
    potential = potential.with_train(scale(potential.train, 4.0))
    atoms = crystal.copy()
    atoms.set_cell(0.8 * atoms.cell, scale_atoms=True)
    edges = potential.edges(atoms)
    arguments, close = potential._arguments(edges, potential.type_index(atoms.numbers))
    low, high = np.quantile(potential._pass(edges, arguments, 1).energy_i, [0.3, 0.7])
    bounded = potential.with_energy_bounds((float(low), float(high)))
    assert close is not None
    check_jacobian(bounded, atoms, some_of_each_group(bounded, rng, 3), (0.0004, 0.0002))


def test_gradient_is_the_weighted_sum_of_the_rows(
    potential: Potential, crystal: Atoms, rng: np.random.Generator
) -> None:
    """Energies with weights of their own, and any direction of the pairs; one pass for many of them."""
    edges = potential.edges(crystal)
    jacobian = potential.jacobian(edges, crystal.numbers)
    e_i = rng.normal(size=edges.n_atoms)
    move_ic, strain_cc = rng.normal(size=(edges.n_atoms, 3)), rng.normal(size=(3, 3))
    strain_cc += strain_cc.T
    direction_pc = move_ic[edges.neighbor] - move_ic[edges.center] + edges.r_pc @ strain_cc
    strain_v = [strain_cc[a, b] * (1 if a == b else 2) for a, b in VOIGT]
    expected = jacobian.energy_iq.T @ e_i + jacobian.gradient_qc @ np.concatenate([move_ic.ravel(), strain_v])
    found = potential.gradient(edges, crystal.numbers, e_i, direction_pc)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    many = potential.gradients(edges, crystal.numbers)
    many(-e_i, 2 * direction_pc)  # leaves nothing behind
    np.testing.assert_array_equal(many(e_i, direction_pc), found)


@pytest.mark.parametrize("with_virial", [True, False])
def test_all_rows_at_once_are_single_rows(
    with_virial: bool, potential: Potential, crystal: Atoms, molecule: Atoms
) -> None:
    sensitivities = Sensitivities(potential)
    for atoms in (crystal, molecule):
        edges = potential.edges(atoms)
        fast = sensitivities.jacobian(edges, atoms.numbers, per_atom=False, with_virial=with_virial)
        slow = sensitivities._row_by_row(edges, atoms.numbers, per_atom=False, with_virial=with_virial)
        for one, other in ((fast.energy_iq, slow.energy_iq), (fast.gradient_qc, slow.gradient_qc)):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * max(1.0, np.abs(other).max()))


@pytest.mark.parametrize("with_virial", [True, False])
def test_columns_of_the_last_train_are_the_rows(
    with_virial: bool, potential: Potential, crystal: Atoms
) -> None:
    """What sweeps solve with: derivatives by all positions go through the layers once, for all parameters of a core."""
    edges, numbers = potential.edges(crystal), crystal.numbers
    for groups in (("core.1",), ("head", "core.1", "core.2")):
        mine = Sensitivities(potential, groups)
        fast = mine.jacobian(edges, numbers, with_virial=with_virial)
        slow = mine._row_by_row(edges, numbers, per_atom=True, with_virial=with_virial)
        for one, other in ((fast.energy_iq, slow.energy_iq), (fast.gradient_qc, slow.gradient_qc)):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(other).max())


@pytest.mark.parametrize("kind", ["pool", pytest.param("deep", marks=pytest.mark.slow)])
def test_groups(kind: str, make_layered: Make, molecule: Atoms, rng: np.random.Generator) -> None:
    """Groups in rows, columns and differences."""
    potential = make_layered(kind)
    molecule.set_array("pool_group", np.array([1, 0, 1, 1, 0]))
    check_jacobian(potential, molecule, some_of_each_group(potential, rng, 1), (0.02, 0.01))
    edges = potential.edges(molecule)
    mine = Sensitivities(potential, ("core.1", "core.2"))
    fast = mine.jacobian(edges, molecule.numbers)
    slow = mine._row_by_row(edges, molecule.numbers, per_atom=True, with_virial=True)
    np.testing.assert_allclose(fast.gradient_qc, slow.gradient_qc, rtol=0, atol=1e-11)


def test_appending_layers_changes_no_energy(kind: str, make_layered: Make, crystal: Atoms) -> None:
    from etnpot.potential.build import add_layers, make_layers

    local = make_layered("local")
    wanted = make_layered(kind).spec.layers
    grown = add_layers(local, wanted, np.random.default_rng(0))
    assert grown.spec.layers == wanted
    edges = local.edges(crystal)
    before, after = (p.evaluate(edges, crystal.numbers) for p in (local, grown))
    np.testing.assert_allclose(after.energy_i, before.energy_i, rtol=0, atol=1e-13)
    np.testing.assert_allclose(after.forces, before.forces, rtol=0, atol=1e-12)
    # the train can begin to use them, and further ones can be appended
    gradient = grown.gradient(edges, crystal.numbers, np.ones(5), np.zeros_like(edges.r_pc))
    assert np.count_nonzero(gradient[grown.spec.slices["core.1"]]) > np.count_nonzero(
        local.gradient(edges, crystal.numbers, np.ones(5), np.zeros_like(edges.r_pc))[
            local.spec.slices["core.1"]
        ]
    )
    more = add_layers(
        make_layered(kind), make_layers([{"kind": "pool"}], 3, (2, 2, 1)), np.random.default_rng(1)
    )
    one, two = (p.evaluate(edges, crystal.numbers) for p in (make_layered(kind), more))
    np.testing.assert_allclose(two.energy_i, one.energy_i, rtol=0, atol=1e-12)
