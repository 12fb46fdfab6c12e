"""The passes of the train against contractions of its dense tensors."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from etnpot import reference
from etnpot._jit import with_entry
from etnpot.kernels import train as inner_kernels
from etnpot.kernels.lanes import LANES
from etnpot.network.dense import dense_core, dense_tensor, evaluate_dense
from etnpot.potential import Potential

kernels = SimpleNamespace(
    **{
        name: with_entry(getattr(inner_kernels, name))
        for name in ("forward", "adjoint", "forward_tangent", "adjoint_tangent")
    }
)


class Passes:
    """All four passes on random features, by the kernels or their references."""

    def __init__(self, module: Any, potential: Potential, rng: np.random.Generator) -> None:
        train, weights = potential.train_tables, potential.weights
        rows, n_features = (train.n_bond_rows, LANES), (train.n_features, LANES)
        self.type_b = rng.integers(0, len(potential.species), size=LANES)
        self.v_fb, self.dv_fb = rng.normal(size=n_features), rng.normal(size=n_features)
        self.e_b = rng.normal(size=LANES)
        self.x_ab, self.y_ab, self.dx_ab, self.dy_ab, again_ab = (np.full(rows, np.nan) for _ in range(5))
        self.g_fb, self.h_fb, again_fb = (np.full(n_features, np.nan) for _ in range(3))
        self.weight_gradient = np.ones(len(weights))  # added to
        t_mb, work_mb = np.empty((train.max_components, LANES)), np.empty((4 * train.max_components, LANES))
        work_ab = np.empty((train.n_work_rows, LANES))
        module.forward(train, weights, self.type_b, self.v_fb, work_ab, self.x_ab)
        module.adjoint(train, weights, self.v_fb, self.x_ab, work_ab, self.y_ab, self.g_fb)
        module.forward_tangent(train, weights, self.v_fb, self.dv_fb, self.x_ab, t_mb, self.dx_ab)
        module.adjoint_tangent(
            train, weights, self.type_b, self.e_b, self.v_fb, self.dv_fb, self.x_ab, self.dx_ab, work_mb,
            again_ab, self.dy_ab, again_fb, self.h_fb, self.weight_gradient,
        )  # fmt: skip
        np.testing.assert_allclose(again_ab, self.y_ab, rtol=1e-12, atol=1e-12 * np.abs(self.y_ab).max())
        np.testing.assert_allclose(again_fb, self.g_fb, rtol=1e-12, atol=1e-12 * np.abs(self.g_fb).max())


ARRAYS = ("x_ab", "y_ab", "g_fb", "dx_ab", "dy_ab", "h_fb", "weight_gradient")


def test_passes(potential: Potential, assert_close: Callable[..., None]) -> None:
    actual = Passes(kernels, potential, np.random.default_rng(5))
    expected = Passes(reference.train, potential, np.random.default_rng(5))
    for name in ARRAYS:
        assert_close(getattr(actual, name), getattr(expected, name))


def test_cores_of_reference_are_those_of_the_network(
    potential: Potential, assert_close: Callable[..., None]
) -> None:
    train = potential.train
    for k, core in enumerate(reference.train.dense_cores(potential.train_tables, potential.weights)):
        assert_close(core, dense_core(train.layout.cores[k], train.cores[k]), 1e-15)


@pytest.mark.parametrize("name", ["order 1, l 0-2", "order 3, l 0-2, pseudotensors", "order 4, l 0-3"])
def test_energy_of_reference_is_that_of_the_dense_tensor(
    name: str, models: dict[str, Potential], assert_close: Callable[..., None]
) -> None:
    potential = models[name]
    passes = Passes(reference.train, potential, np.random.default_rng(5))
    energy_b = [
        evaluate_dense(potential.train, v_f)[z, 0]
        for z, v_f in zip(passes.type_b, passes.v_fb.T, strict=True)
    ]
    assert_close(passes.x_ab[-1], np.array(energy_b))


@pytest.mark.parametrize("name", ["order 2, l 0-1", "order 3, l 0-2, embedding"])
def test_second_derivatives_of_reference_are_those_of_the_dense_tensor(
    name: str, models: dict[str, Potential], rng: np.random.Generator, assert_close: Callable[..., None]
) -> None:
    potential = models[name]
    v_f = rng.normal(size=potential.spec.feature.dimension)
    tensor = dense_tensor(potential.train)[..., 0]
    tables, weights = potential.train_tables, potential.weights
    for z in range(len(potential.species)):
        _, g_f, hessian_ff = reference.dense.derivatives(tensor[z], v_f)
        ours = reference.jacobian.second_derivatives(tables, weights, z, v_f)
        assert_close(ours[0], g_f)
        assert_close(ours[1], hessian_ff)
        # E is homogeneous of degree one in the head and in every core, and so is dE/dv
        order = potential.spec.order
        assert_close(ours[3] @ weights, (order + 1) * g_f)
