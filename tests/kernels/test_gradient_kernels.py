"""Derivatives by the parameters: the gradient kernel and the full Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from etnpot import reference
from etnpot.conventions import VOIGT
from etnpot.kernels import gradient as kernels
from etnpot.potential import Potential, Sensitivities, sensitivity
from etnpot.workspace import Workspace

SPECIES = ("Al", "Ni", "Cu", "Zr")

#: Small enough that every parameter is varied, even as plain Python.
SMALL: dict[str, dict[str, Any]] = {
    "pair": dict(
        species=SPECIES[:2], order=2, l_max=1, channels=[1, 1], ranks=[{"0e": 2, "1o": 1}], radial_size=2,
        radial_family="jacobi", cutoff_function="envelope",
    ),
    "embedding": dict(
        species=SPECIES[:2], order=3, l_max=1, channels=[1, 1], radial_size=2,
        ranks=[{"0e": 1, "1o": 1}, {"1o": 1, "1e": 1}], species_form="embedding",
        embedding=(2, 1), pseudotensors=True, radial_family="bessel",
    ),
}  # fmt: skip


def gradients(
    module: Any, case: Any, e_i: np.ndarray, direction_pc: np.ndarray, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """dL/dT and dL/dA of a range of atoms."""
    table_gradient = np.zeros(case.potential.radial_table.shape)
    weight_gradient = np.zeros(case.potential.weights.shape)
    module.gradient(*case.arguments, start, stop, e_i, direction_pc, table_gradient, weight_gradient)
    return table_gradient, weight_gradient


def jacobian(case: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference Jacobian of a potential."""
    first, r_pc, type_i, type_p, basis, _ = case.pair_arguments
    potential = case.potential
    return reference.jacobian.jacobian(
        first, case.edges.neighbor, r_pc, type_i, type_p, basis, potential.train_tables, potential.arrays,
        potential.spec.neighbor_scale,
    )  # fmt: skip


def differences(case: Any, parameters: np.ndarray, h: float) -> tuple[Any, Any, Any]:
    """Central differences of energies, forces and virial by every parameter."""
    ends = []
    for sign in (1.0, -1.0):
        columns = []
        for q in range(len(parameters)):
            moved = parameters.copy()
            moved[q] += sign * h
            evaluation = case.potential.with_parameters(moved).evaluate(case.edges, case.numbers)
            columns.append((evaluation.energy_i, evaluation.forces, evaluation.virial))
        ends.append([np.stack(part, axis=-1) for part in zip(*columns, strict=True)])
    energy_iq, force_icq, virial_ccq = ((up - down) / (2 * h) for up, down in zip(*ends, strict=True))
    return energy_iq, force_icq, virial_ccq


def test_gradient(
    potential: Potential,
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    case = make_neighborhoods(potential, rng, [2, 0, 3, 1, 0, 2, 1, 0, 2])  # a block and one atom
    e_i, direction_pc = rng.normal(size=9), rng.normal(size=case.edges.r_pc.shape)
    actual = gradients(kernels, case, e_i, direction_pc, 0, 9)
    expected = gradients(reference.gradient, case, e_i, direction_pc, 0, 9)
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1])


def test_gradient_of_energies_or_derivatives_alone(
    models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    case = make_neighborhoods(models["order 3, l 0-2, pseudotensors"], rng, [2, 1, 3])
    e_i, direction_pc = rng.normal(size=3), rng.normal(size=case.edges.r_pc.shape)
    for weights in ((e_i, 0 * direction_pc), (0 * e_i, direction_pc)):
        actual = gradients(kernels, case, *weights, 0, 3)
        expected = gradients(reference.gradient, case, *weights, 0, 3)
        assert_close(actual[0], expected[0])
        assert_close(actual[1], expected[1])


def test_ranges_add_up(
    models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    case = make_neighborhoods(models["order 3, l 0-2, embedding"], rng, rng.integers(0, 4, size=13))
    e_i, direction_pc = rng.normal(size=13), rng.normal(size=case.edges.r_pc.shape)
    whole = gradients(kernels, case, e_i, direction_pc, 0, 13)
    parts = [gradients(kernels, case, e_i, direction_pc, *cut) for cut in ((0, 5), (5, 5), (5, 13))]
    for k in (0, 1):
        assert_close(sum(part[k] for part in parts), whole[k], 1e-13)
    again = gradients(kernels, case, e_i, direction_pc, 0, 13)
    np.testing.assert_array_equal(again[0], whole[0])
    np.testing.assert_array_equal(again[1], whole[1])


@pytest.mark.parametrize("counts", [[], [0], [1]], ids=["no atoms", "alone", "dimer"])
def test_few_neighbors(
    counts: list[int],
    models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    case = make_neighborhoods(models["order 2, l 0-1"], rng, counts)
    e_i, direction_pc = rng.normal(size=len(counts)), rng.normal(size=case.edges.r_pc.shape)
    actual = gradients(kernels, case, e_i, direction_pc, 0, len(counts))
    expected = gradients(reference.gradient, case, e_i, direction_pc, 0, len(counts))
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1])


def test_reference_table_is_that_of_the_potential(
    potential: Potential, assert_close: Callable[..., None]
) -> None:
    table = reference.jacobian.radial_table(potential.arrays, potential.spec.neighbor_scale)
    assert_close(potential.radial_table, table, 1e-14)


@pytest.mark.parametrize("form", list(SMALL))
def test_every_parameter(
    form: str,
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_model: Callable[..., Any],
    make_neighborhoods: Callable[..., Any],
) -> None:
    """Reference Jacobian, kernel Jacobian and gradient against finite differences by every parameter."""
    potential = make_model(1, **SMALL[form])
    # random numbers everywhere: the start has zeros and ones among the species parameters
    parameters = potential.parameters + 0.3 * rng.normal(size=potential.n_parameters)
    potential = potential.with_parameters(parameters)
    case = make_neighborhoods(potential, rng, [3, 1, 2, 0], n_ghosts=1)
    exact = jacobian(case)
    coarse, fine = (differences(case, parameters, h) for h in (2e-3, 1e-3))
    for k in range(3):
        scale = np.abs(exact[k]).max()
        errors = [np.abs(numeric[k] - exact[k]).max() / scale for numeric in (coarse, fine)]
        if SMALL[form]["order"] == 2:
            assert max(errors) < 1e-9  # of degree two in every parameter: the difference is exact
        else:
            assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)  # second order
        assert_close((4 * fine[k] - coarse[k]) / 3, exact[k], 1e-9)  # extrapolated
    e_i, direction_pc = rng.normal(size=4), rng.normal(size=case.edges.r_pc.shape)
    # forces alone do not give every direction of the pairs: the gradient has its own difference
    numeric_q = np.empty((2, potential.n_parameters))
    for row, h in enumerate((2e-3, 1e-3)):
        for q in range(potential.n_parameters):
            ends = []
            for sign in (1.0, -1.0):
                moved = parameters.copy()
                moved[q] += sign * h
                evaluation = potential.with_parameters(moved).evaluate(case.edges, case.numbers)
                ends.append(e_i @ evaluation.energy_i + np.vdot(direction_pc, evaluation.dE_dr_pc))
            numeric_q[row, q] = (ends[0] - ends[1]) / (2 * h)
    gradient_q = potential.gradient(case.edges, case.numbers, e_i, direction_pc)
    assert_close((4 * numeric_q[1] - numeric_q[0]) / 3, gradient_q, 1e-9)


@pytest.mark.parametrize("aligned", [True, False])
def test_jacobian(
    potential: Potential,
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    aligned: bool,
) -> None:
    """With the columns of all sites for every atom, and with those of the sites that it touches."""
    monkeypatch.setattr(sensitivity, "_NEARLY_ALL", 1.25 if aligned else 0.0)
    case = make_neighborhoods(potential, rng, [2, 0, 3, 1, 1], n_ghosts=1)
    energy_iq, force_icq, virial_ccq = jacobian(case)
    actual = potential.jacobian(case.edges, case.numbers)
    assert_close(actual.energy_iq, energy_iq)
    assert_close(actual.forces, force_icq)
    assert_close(actual.virial, np.array([virial_ccq[c, d] for c, d in VOIGT]))


def test_jacobians_of_one_workspace(
    models: dict[str, Potential],
    rng: np.random.Generator,
    make_neighborhoods: Callable[..., Any],
) -> None:
    """Neither what the last configuration left there nor the memory matters."""
    potential, workspace = models["order 3, l 0-2, embedding"], Workspace()
    sensitivities = Sensitivities(potential)
    memory = []
    for counts in ([2, 0, 3, 1], [1, 1], [2, 3, 1, 1, 4], [2, 0, 3, 1]):
        case = make_neighborhoods(potential, rng, counts)
        expected = sensitivities.jacobian(case.edges, case.numbers, per_atom=False)
        found = sensitivities.jacobian(case.edges, case.numbers, per_atom=False, workspace=workspace)
        np.testing.assert_array_equal(found.gradient_qc, expected.gradient_qc)
        np.testing.assert_array_equal(found.energy_iq, expected.energy_iq)
        memory.append(found.gradient_qc)
    assert np.shares_memory(memory[0], memory[1])


def test_jacobian_contracts_to_the_gradient(
    models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    potential = models["order 3, l 0-2, embedding"]
    case = make_neighborhoods(potential, rng, [2, 0, 3, 1], n_ghosts=1)
    energy_iq, force_icq, _ = jacobian(case)
    e_i, d_ic = rng.normal(size=4), rng.normal(size=(5, 3))
    center = reference.assemble.centers(case.edges.first)
    direction_pc = d_ic[center] - d_ic[case.edges.neighbor]  # sum_i d_i . F_i = sum_p (d_i - d_j) . dE/dr_p
    expected_q = potential.gradient(case.edges, case.numbers, e_i, direction_pc)
    assert_close(e_i @ energy_iq + np.tensordot(d_ic, force_icq, axes=2), expected_q)


def test_jacobian_where_a_species_parameter_does_nothing(
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_model: Callable[..., Any],
    make_neighborhoods: Callable[..., Any],
) -> None:
    """The first species parameters have no effect when their couplings vanish; their rows are still there."""
    potential = make_model(1, **SMALL["embedding"])
    coupling = potential.arrays["species.coupling"].copy()
    coupling[:, :, 0, :] = 0.0
    case = make_neighborhoods(potential.with_arrays(species__coupling=coupling), rng, [2, 1], n_ghosts=1)
    energy_iq, force_icq, _ = jacobian(case)
    actual = case.potential.jacobian(case.edges, case.numbers)
    assert_close(actual.energy_iq, energy_iq)
    assert_close(actual.forces, force_icq)
