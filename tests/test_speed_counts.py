"""The operations that benchmarks/speed counts from the tables are those that the formulas take, counted one by one."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import etnpot
from etnpot.kernels import train
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


class Path:
    """One path of the train with its three roles, contracted by eq. (2) of `etnpot.kernels.train`, written out."""

    def __init__(self, tables: TrainTables, row: np.ndarray, weights: list[Counted]) -> None:
        self.first = [int(row[2 * role]) for role in range(3)]
        self.n = [int(row[2 * role + 1]) for role in range(3)]
        self.dims = [int(row[train.COMPONENTS + role]) for role in range(3)]
        self.s = int(row[train.SPECTATOR])
        self.p, self.q = (self.s + 1) % 3, (self.s + 2) % 3
        self.weights, self.weight = weights, int(row[train.WEIGHT])
        entries = slice(int(row[train.COUPLING]), int(row[train.COUPLING_END]))
        self.coupling = list(
            zip(tables.coupling_index[entries].tolist(), tables.coupling_value[entries].tolist(), strict=True)
        )

    def entry(self, *copies: tuple[int, int]) -> Counted:
        at = dict(copies)
        return self.weights[self.weight + (at[0] * self.n[1] + at[1]) * self.n[2] + at[2]]

    def at(self, role: int, m: int, a: int) -> int:
        return self.first[role] + m * self.n[role] + a

    def spread(self, z: list[Counted]) -> dict[tuple[int, int, int], Counted]:
        s, p, q = self.s, self.p, self.q
        w = {}
        for m, a_p, a_q in itertools.product(range(self.dims[s]), range(self.n[p]), range(self.n[q])):
            total = Counted(0.0)
            for a in range(self.n[s]):
                total = total + self.entry((s, a), (p, a_p), (q, a_q)) * z[self.at(s, m, a)]
            w[m, a_p, a_q] = total
        return w

    def contract(
        self, w: dict[tuple[int, int, int], Counted], role: int, z: list[Counted], out: list[Counted]
    ) -> None:
        other = 3 - role - self.s
        for index, value in self.coupling:
            for b in range(self.n[other]):
                cz = Counted(value) * z[self.at(other, index[other], b)]
                for a in range(self.n[role]):
                    at = self.at(role, index[role], a)
                    copies = (a, b) if role == self.p else (b, a)
                    out[at] = out[at] + cz * w[index[self.s], *copies]

    def couple(self, z_p: list[Counted], z_q: list[Counted], out: list[Counted]) -> None:
        s, p, q = self.s, self.p, self.q
        t = {
            key: Counted(0.0)
            for key in itertools.product(range(self.dims[s]), range(self.n[p]), range(self.n[q]))
        }
        for index, value in self.coupling:
            for a_p in range(self.n[p]):
                cz = Counted(value) * z_p[self.at(p, index[p], a_p)]
                for a_q in range(self.n[q]):
                    key = index[s], a_p, a_q
                    t[key] = t[key] + cz * z_q[self.at(q, index[q], a_q)]
        for (m, a_p, a_q), value in t.items():
            for a in range(self.n[s]):
                at = self.at(s, m, a)
                out[at] = out[at] + self.entry((s, a), (p, a_p), (q, a_q)) * value

    def into(
        self, role: int, z: list[list[Counted]], w: dict[tuple[int, int, int], Counted], out: list[Counted]
    ) -> None:
        if role == self.s:
            self.couple(z[self.p], z[self.q], out)
        else:
            self.contract(w, role, z[3 - role - self.s], out)


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

    paths = [Path(tables, row, weights) for row in tables.path]
    Counted.operations = 0
    for path in paths:
        z = [x, v_f, x]
        path.into(train.Y, z, {} if path.s == train.Y else path.spread(z[path.s]), x)
    found_forward = Counted.operations
    y, g = counted(np.zeros(tables.n_bond_rows)), counted(np.zeros(tables.n_features))
    y[-1] = Counted(1.0)
    for path in reversed(paths):
        z = [x, v_f, y]
        w = path.spread(z[path.s])
        path.into(train.X, z, w, y)
        path.into(train.V, z, w, g)

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
