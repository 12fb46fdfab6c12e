"""The operations that benchmarks/speed counts from the tables are those that the formulas take, counted one by one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import etnpot
from etnpot.potential.tables import TrainTables
from etnpot.reference import evaluate

COUNTS = Path(__file__).resolve().parents[1] / "benchmarks" / "speed" / "counts.py"


@pytest.fixture(scope="module")
def counts() -> ModuleType:
    specification = importlib.util.spec_from_file_location("speed_counts", COUNTS)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


class Counted:
    """A number that counts the operations it takes part in."""

    operations = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __add__(self, other: Counted) -> Counted:
        Counted.operations += 1
        return Counted(self.value + other.value)

    def __mul__(self, other: Counted) -> Counted:
        Counted.operations += 1
        return Counted(self.value * other.value)


def counted(array: np.ndarray) -> list[Counted]:
    return [Counted(value) for value in array.tolist()]


def paths(tables: TrainTables) -> list[list[int]]:
    return [[int(x) for x in row] for row in tables.path]


def forward(tables: TrainTables, weights: list[Counted], v: list[Counted], x: list[Counted]) -> None:
    """Eq. (1) of `etnpot.kernels.train`, written out."""
    for left, n1, feature, n2, right, n3, weight, begin, end, components in paths(tables):
        for a1 in range(n1):
            t = {(m3, a2): Counted(0.0) for m3 in range(components) for a2 in range(n2)}
            for z in range(begin, end):
                m1, m2, m3 = tables.coupling_index[z].tolist()
                cx = Counted(tables.coupling_value[z]) * x[left + m1 * n1 + a1]
                for a2 in range(n2):
                    t[m3, a2] = t[m3, a2] + cx * v[feature + m2 * n2 + a2]
            for (m3, a2), value in t.items():
                for a3 in range(n3):
                    at = right + m3 * n3 + a3
                    x[at] = x[at] + weights[weight + (a1 * n2 + a2) * n3 + a3] * value


def adjoint(
    tables: TrainTables,
    weights: list[Counted],
    v: list[Counted],
    x: list[Counted],
    y: list[Counted],
    g: list[Counted],
) -> None:
    """Eq. (2), written out."""
    for left, n1, feature, n2, right, n3, weight, begin, end, components in reversed(paths(tables)):
        for a1 in range(n1):
            p = {(m3, a2): Counted(0.0) for m3 in range(components) for a2 in range(n2)}
            for m3, a2 in p:
                for a3 in range(n3):
                    p[m3, a2] = (
                        p[m3, a2] + weights[weight + (a1 * n2 + a2) * n3 + a3] * y[right + m3 * n3 + a3]
                    )
            for z in range(begin, end):
                m1, m2, m3 = tables.coupling_index[z].tolist()
                c, at = Counted(tables.coupling_value[z]), left + m1 * n1 + a1
                cx, total = c * x[at], Counted(0.0)
                for a2 in range(n2):
                    total = total + p[m3, a2] * v[feature + m2 * n2 + a2]
                    f = feature + m2 * n2 + a2
                    g[f] = g[f] + p[m3, a2] * cx
                y[at] = y[at] + c * total


@pytest.mark.parametrize(
    "settings",
    [
        {"order": 1, "l_max": 1, "channels": 2},
        {"order": 3, "l_max": 2, "channels": [3, 2, 1], "ranks": {"0e": 3, "1o": 2, "2e": 1}},
    ],
    ids=["order 1", "order 3"],
)
def test_train_operations_are_those_of_the_formulas(
    counts: ModuleType, settings: dict, rng: np.random.Generator
) -> None:
    potential = etnpot.ETN(["Cu", "Ni"], radial_size=3, seed=0, **settings)
    tables = potential.train_tables
    v = rng.normal(size=tables.n_features)
    v[0] = 1.0
    weights, v_f = counted(potential.weights), counted(v)
    rank_0 = int(tables.bond_first[1])
    x = weights[:rank_0] + counted(np.zeros(tables.n_bond_rows - rank_0))

    Counted.operations = 0
    forward(tables, weights, v_f, x)
    found_forward = Counted.operations
    y, g = counted(np.zeros(tables.n_bond_rows)), counted(np.zeros(tables.n_features))
    y[-1] = Counted(1.0)
    adjoint(tables, weights, v_f, x, y, g)

    assert counts.train_operations(tables) == (found_forward, Counted.operations - found_forward)
    # what was counted is the train
    x_ia = np.empty((1, tables.n_bond_rows))
    evaluate.bonds(v[None], np.zeros(1, dtype=np.int64), tables, potential.weights, x_ia)
    np.testing.assert_allclose([entry.value for entry in x], x_ia[0], rtol=1e-12, atol=1e-14)


def test_jacobian_operations_grow_with_parameters_and_columns(counts: ModuleType) -> None:
    small = etnpot.ETN(["Cu"], order=3, l_max=2, channels=2, ranks=2, radial_size=3, seed=0).spec
    large = etnpot.ETN(["Cu"], order=3, l_max=2, channels=2, ranks=4, radial_size=3, seed=0).spec
    assert counts.jacobian_operations(large, 8) > counts.jacobian_operations(small, 8)
    # the columns of the products grow with the atoms, too
    assert counts.jacobian_operations(small, 16) > 2 * counts.jacobian_operations(small, 8)
    assert counts.gram_operations(3, 5) == 5 * 3 * 4
