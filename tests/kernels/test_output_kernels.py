"""Derivatives of tensor outputs: the kernels against the train with tensors taken out, and that against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from etnpot import reference
from etnpot.kernels import outputs as kernels
from etnpot.neighbors import EdgeList
from etnpot.potential import Quantity, TensorModel, make_tensor_model

#: A block of atoms and a part of the next, with 0, 1 and more neighbours.
COUNTS = [2, 0, 5, 1, 3, 4, 0, 2, 1, 4, 0] * 3 + [3]
FEW: dict[str, Any] = dict(cutoff=4.0, r_min=1.2, radial_size=3, species_rank=2, neighbor_scale=5.0)
MODELS: dict[str, tuple[Quantity, dict[str, Any]]] = {
    "scalar, order 1": (Quantity("s", "scalar"), dict(species="Al", order=1, l_max=0, channels=2)),
    "dipole with charges": (
        Quantity("d", "vector", charges=True),
        dict(species=["Al", "Cu"], order=2, l_max=2, channels=[2, 1, 1], ranks=2),
    ),
    "symmetric, embedding": (
        Quantity("a", "symmetric"),
        dict(species=["Al", "Ni", "Cu"], order=3, l_max=2, channels=[2, 1, 1], ranks=[2, 1], embedding=(2, 2)),
    ),
    "matrix": (
        Quantity("m", "matrix"),
        dict(species=["Al", "Cu"], order=3, l_max=3, channels=[1, 2, 1, 1], ranks=1),
    ),
}  # fmt: skip


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> TensorModel:
    """Each model in turn, with offsets that are not zero."""
    quantity, settings = MODELS[request.param]
    made = make_tensor_model(
        settings["species"], quantity, **FEW, **{k: v for k, v in settings.items() if k != "species"}
    )
    shifted = made.parameters.copy()
    shifted[
        : made.spec.slices["species.pair" if "species.pair" in made.spec.shapes else "species.center"].start
    ] += 0.3
    return made.with_parameters(shifted)


def arguments(model: TensorModel, rng: np.random.Generator) -> tuple[EdgeList, np.ndarray, tuple[Any, ...]]:
    n_atoms, n_pairs = len(COUNTS), sum(COUNTS)
    direction_pc = rng.normal(size=(n_pairs, 3))
    direction_pc /= np.linalg.norm(direction_pc, axis=1)[:, None]
    edges = EdgeList(
        first=np.concatenate([[0], np.cumsum(COUNTS)]).astype(np.int64),
        neighbor=rng.integers(0, n_atoms, size=n_pairs),
        r_pc=rng.uniform(0.5, 4.2, size=n_pairs)[:, None] * direction_pc,
    )
    type_i = rng.integers(0, len(model.species), size=n_atoms)
    train = (model.basis_tables, model.radial_table, model.train_tables, model.weights)
    return edges, type_i, (edges.first, edges.r_pc, type_i, type_i[edges.neighbor], *train)


def derivatives(module: Any, model: TensorModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    edges, _, case = arguments(model, rng)
    seed_sio = rng.normal(size=(2, edges.n_atoms, model.quantity.bond.dimension))
    output_io, derivative_spc = np.full(seed_sio.shape[1:], 7.0), np.full((2, edges.n_pairs, 3), 7.0)
    for start, stop in ((0, 32), (32, edges.n_atoms)):
        module.output_derivatives(*case, start, stop, seed_sio, output_io, derivative_spc)
    return output_io, derivative_spc


def gradients(module: Any, model: TensorModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    edges, _, case = arguments(model, rng)
    seed_sio = rng.normal(size=(2, edges.n_atoms, model.quantity.bond.dimension))
    row_i = rng.integers(0, 3, size=edges.n_atoms)
    by_weight = np.full((2, 3, len(model.weights)), 0.5)
    by_table = np.full((2, 3, *model.radial_table.shape), 0.5)
    for start, stop in ((0, 32), (32, edges.n_atoms)):
        module.output_gradients(*case, start, stop, seed_sio, row_i, True, by_weight, by_table)
    return by_weight, by_table


def test_output_derivatives(model: TensorModel, assert_close: Callable[..., None]) -> None:
    found = derivatives(kernels, model, np.random.default_rng(1))
    expected = derivatives(reference.outputs, model, np.random.default_rng(1))
    for actual, right in zip(found, expected, strict=True):
        assert_close(actual, right)


def test_output_gradients(model: TensorModel, assert_close: Callable[..., None]) -> None:
    found = gradients(kernels, model, np.random.default_rng(2))
    expected = gradients(reference.outputs, model, np.random.default_rng(2))
    for actual, right in zip(found, expected, strict=True):
        assert_close(actual, right)


def test_every_parameter_and_every_position_by_differences(model: TensorModel) -> None:
    """Rows of the Jacobian and derivatives by pairs are those of the outputs themselves, at second order."""
    rng = np.random.default_rng(3)
    edges, type_i, case = arguments(model, rng)
    numbers = np.array(model.species)[type_i]
    n_o = model.quantity.bond.dimension
    seed_sio = rng.normal(size=(1, edges.n_atoms, n_o))
    row_i = np.zeros(edges.n_atoms, dtype=np.int64)
    exact_q = model.gradient_rows(edges, numbers, seed_sio, row_i, 1)[0, 0]
    direction_q = rng.normal(size=(4, model.n_parameters))
    direction_pc = rng.normal(size=edges.r_pc.shape)
    derivative_spc = np.empty((1, *edges.r_pc.shape))
    kernels.output_derivatives(
        *case, 0, edges.n_atoms, seed_sio, np.empty((edges.n_atoms, n_o)), derivative_spc
    )
    exact = [*(direction_q @ exact_q), float((derivative_spc[0] * direction_pc).sum())]

    def value(parameters: np.ndarray, r_pc: np.ndarray) -> float:
        moved = model.with_parameters(parameters)
        at = EdgeList(edges.first, edges.neighbor, r_pc)
        components_io = np.array([bond for bond in moved.bonds(at, numbers)[-1]])
        if model.quantity.n_scalars:
            components_io[:, 0] += moved.arrays["offsets"][type_i, 0]
        return float((seed_sio[0] * components_io).sum())

    scale = np.abs(exact).max()
    errors = []
    for h in (2e-3, 1e-3):
        numeric = [
            (value(model.parameters + h * d, edges.r_pc) - value(model.parameters - h * d, edges.r_pc))
            / (2 * h)
            for d in direction_q
        ]
        numeric.append(
            (value(model.parameters, edges.r_pc + h * direction_pc) - value(model.parameters, edges.r_pc - h * direction_pc))
            / (2 * h)
        )  # fmt: skip
        errors.append(np.abs(np.array(numeric) - exact))
    assert (errors[1] < np.maximum(0.3 * errors[0], 1e-9 * scale)).all(), errors
    assert errors[1].max() < 1e-3 * scale
