"""The short range around the kernels against its reference, and its parameter derivatives against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import etnpot
from etnpot.basis import BOUND_WIDTH
from etnpot.kernels import short_range as kernels
from etnpot.network import scale
from etnpot.potential import Potential
from etnpot.reference import evaluate as reference_evaluate
from etnpot.reference import short_range as reference

from .conftest import Neighborhoods

BOUNDS = (-0.2, 0.3)
COUNTS = [2, 0, 5, 1, 3, 9, 0, 2, 1, 4, 0]


@pytest.fixture
def close(make_neighborhoods: Callable[..., Neighborhoods], rng: np.random.Generator) -> Neighborhoods:
    """Pairs on both sides of both radii, and energies beyond both bounds."""
    potential = etnpot.ETN(
        ["Al", "Ni", "Cu"], cutoff=4.0, r_min=1.2, order=3, l_max=2, radial_size=3, channels=2, ranks=2, seed=3,
        neighbor_scale=5.0, repulsion="zbl", reference_energies={"Al": -1.5},
    )  # fmt: skip
    potential = potential.with_train(scale(potential.train, 30.0)).with_energy_bounds(BOUNDS)
    return make_neighborhoods(potential, rng, COUNTS)


def test_close_pairs_are_those_of_the_reference(close: Neighborhoods) -> None:
    assert close.potential.spec.repulsion is not None
    outer = np.array(close.potential.spec.repulsion.outer)
    first, r_pc, type_i, type_p = close.pair_arguments[:4]
    for room in (0, 3, len(r_pc)):
        found, expected = np.full(room, -1), np.full(room, -1)
        n = kernels.close_pairs(first, r_pc, type_i, type_p, outer, found)
        assert n == reference.close_pairs(first, r_pc, type_i, type_p, outer, expected)
        assert 5 < n < len(r_pc)
        np.testing.assert_array_equal(found[:n], expected[:n])
    assert kernels.close_pairs(first, r_pc, type_i, type_p, np.zeros_like(outer), found) == 0


def test_evaluation_is_that_of_the_reference(close: Neighborhoods, assert_close: Callable[..., None]) -> None:
    potential, edges = close.potential, close.edges
    first, r_pc, type_i, type_p, basis, table = close.pair_arguments
    repulsion = potential.spec.repulsion
    assert repulsion is not None

    def learned(q_pc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x_i, g_pc = np.empty(edges.n_atoms), np.empty_like(q_pc)
        reference_evaluate.evaluate(
            first, q_pc, type_i, type_p, basis, table, *close.train_arguments, 0, edges.n_atoms, x_i, g_pc
        )
        assert (x_i < BOUNDS[0]).any() and (x_i > BOUNDS[1] + BOUND_WIDTH).any()
        assert ((x_i > BOUNDS[0]) & (x_i < BOUNDS[1])).any()
        return x_i, g_pc

    energy_i, dE_dr_pc = reference.evaluate(
        first, r_pc, type_i, type_p, potential.species, np.array(repulsion.inner), np.array(repulsion.outer), BOUNDS,
        BOUND_WIDTH, learned,
    )  # fmt: skip
    energy_i += potential.arrays["reference_energies"][type_i[: edges.n_atoms]]
    found = potential.evaluate(edges, close.numbers)
    assert_close(found.energy_i, energy_i)
    assert_close(found.dE_dr_pc, dE_dr_pc, 1e-8)  # the reference differentiates the repulsion by differences


def along(potential: Potential, direction: np.ndarray, h: float, of: Callable[[Potential], Any]) -> Any:
    """Derivative along a direction of the parameters, by differences of fourth order."""
    values = [of(potential.with_parameters(potential.parameters + k * h * direction)) for k in (1, -1, 2, -2)]
    return (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)


def test_gradient_and_jacobian_are_those_of_differences(
    close: Neighborhoods, rng: np.random.Generator, assert_close: Callable[..., None]
) -> None:
    potential, edges, numbers = close.potential, close.edges, close.numbers
    e_i, d_pc = rng.normal(size=edges.n_atoms), rng.normal(size=(edges.n_pairs, 3))
    jacobian = potential.jacobian(edges, numbers)
    gradient = potential.gradient(edges, numbers, e_i, d_pc)
    direction = rng.normal(size=potential.n_parameters) / np.sqrt(potential.n_parameters)

    def functional(p: Potential) -> float:
        found = p.evaluate(edges, numbers)
        return float(e_i @ found.energy_i + np.vdot(d_pc, found.dE_dr_pc))

    expected = along(potential, direction, 1e-4, functional)
    assert gradient @ direction == pytest.approx(expected, rel=1e-6)
    energies = along(potential, direction, 1e-4, lambda p: p.evaluate(edges, numbers).energy_i)
    assert_close(jacobian.energy_iq @ direction, energies, 1e-6)
    forces = along(potential, direction, 1e-4, lambda p: p.evaluate(edges, numbers).forces)
    assert_close(jacobian.forces @ direction, forces, 1e-6)
    virial = along(potential, direction, 1e-4, lambda p: p.evaluate(edges, numbers).virial)
    order = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
    assert_close(jacobian.virial @ direction, virial[order], 1e-6)


def test_jacobian_row_by_row_is_the_one_of_the_kernels_where_nothing_is_close(
    make_neighborhoods: Callable[..., Neighborhoods],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The slow path, which the tests above take, on what the fast path can do; a range of groups, energies summed."""
    from etnpot.potential import Sensitivities

    plain = make_neighborhoods(
        etnpot.ETN(["Al", "Ni"], cutoff=4.0, order=3, l_max=1, radial_size=3, channels=2, ranks=2, seed=3),
        rng,
        COUNTS,
    )
    sensitivities = Sensitivities(plain.potential, ("core.1", "core.2"))
    fast = sensitivities.jacobian(plain.edges, plain.numbers, per_atom=False)
    slow = sensitivities._row_by_row(plain.edges, plain.numbers, per_atom=False, with_virial=True)
    assert_close(slow.energy_iq, fast.energy_iq)
    assert_close(slow.gradient_qc, fast.gradient_qc)
