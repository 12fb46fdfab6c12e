"""Kernels of layers against their references, over random layouts, and empty and partial ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etnpot import reference
from etnpot.kernels import layers as kernels
from etnpot.kernels import messages as message_kernels
from etnpot.kernels.lanes import LANES
from etnpot.potential import Potential
from etnpot.potential.layers import LayerTables

SPECIES = ("Al", "Ni", "Cu", "Zr")

#: Unequal copies, ranks and heads; every kind of layer and attention; l_max 0-3, 1-4 species.
MODELS: dict[str, dict[str, Any]] = {
    "scalars": dict(
        species=SPECIES[:1], order=1, l_max=0, layers=[dict(kind="message", order=1, carry={"0e": 1})]
    ),
    "pool": dict(
        species=SPECIES[:2], order=2, l_max=2, ranks=2,
        layers=[dict(kind="pool", carry={"0e": 2, "2e": 1}, ranks=2)],
    ),
    "message, bilinear": dict(
        species=SPECIES[:3], order=2, l_max=2, ranks=1, species_form="embedding", embedding=(2, 3),
        layers=[
            dict(kind="message", carry={"0e": 2, "1o": 3}, ranks=1, attention="bilinear", heads=2, width=2)
        ],
    ),
    "two messages and a pool": dict(
        species=SPECIES, order=1, l_max=3,
        layers=[
            dict(kind="message", carry={"0e": 2, "3o": 1}, ranks=1, attention="normalised", heads=2, width=1),
            dict(kind="pool", carry={"1o": 1}, ranks=1),
            dict(kind="message", carry={"0e": 1, "1o": 2}, order=1),
        ],
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """Random pairs of a model with layers, and random arrays of the right lengths."""

    potential: Potential
    neighborhoods: Any
    seed: int

    def random(self, *shape: int, salt: int = 0) -> np.ndarray:
        """The same numbers for the same shape and `salt`, whoever asks."""
        return np.random.default_rng([self.seed, salt, *shape]).normal(size=shape)

    @property
    def first(self) -> np.ndarray:
        return self.neighborhoods.edges.first

    @property
    def neighbor(self) -> np.ndarray:
        return self.neighborhoods.edges.neighbor

    @property
    def n_atoms(self) -> int:
        return len(self.first) - 1

    @property
    def n_pairs(self) -> int:
        return len(self.neighbor)

    @cached_property
    def pairs(self) -> tuple[Any, ...]:
        """zi_p, zj_p, basis of the kernels of pairs."""
        type_i = self.neighborhoods.type_i
        center = np.repeat(np.arange(self.n_atoms), np.diff(self.first))
        return type_i[center], type_i[self.neighbor], self.potential.basis_tables

    @property
    def r_pc(self) -> np.ndarray:
        return self.neighborhoods.edges.r_pc

    @property
    def n_w(self) -> int:
        tables = self.potential.layered_tables
        return len(tables.local_source) + sum(len(layer.columns) for layer in tables.layers)

    @property
    def messages(self) -> list[tuple[int, LayerTables]]:
        tables = self.potential.layered_tables.layers
        return [(k, layer) for k, layer in enumerate(tables) if not len(layer.source)]

    def terms(self, layer: LayerTables) -> tuple[Any, ...]:
        """first, neighbor, term_index, term_value."""
        return self.first, self.neighbor, layer.term_index, layer.term_value

    def train(self, k: int) -> tuple[Any, np.ndarray, int]:
        """Tables and weights of train k, and the dimension of its last bond."""
        tables = self.potential.layered_tables
        train = tables.trains[k]
        n_o = int(train.bond_first[-1] - train.bond_first[-2])
        return train, tables.weights[tables.places[k]], n_o

    def ranges(self, n: int) -> list[tuple[int, int]]:
        """Two that are not of whole blocks, and an empty one."""
        return [(0, n // 3), (n // 3, n), (n, n)]


def pair_stage(module: Any, case: Case) -> list[np.ndarray]:
    """w, w' and dL/dT."""
    table, (zi_p, zj_p, basis) = case.potential.radial_table, case.pairs
    r_pc, d_pc = case.r_pc, case.random(case.n_pairs, 3)
    wbar_pf, dwbar_pf = case.random(case.n_pairs, case.n_w), case.random(case.n_pairs, case.n_w, salt=1)
    w_pf, dw_pf = np.full(wbar_pf.shape, np.nan), np.full(wbar_pf.shape, np.nan)
    by_table = np.full(table.shape, 0.5)
    for start, stop in case.ranges(case.n_pairs):
        module.pair_features(r_pc, zi_p, zj_p, basis, table, start, stop, w_pf)
        module.pair_tangent(r_pc, d_pc, zi_p, zj_p, basis, table, start, stop, dw_pf)
        module.table_adjoint(r_pc, d_pc, zi_p, zj_p, basis, wbar_pf, dwbar_pf, start, stop, by_table)
    return [w_pf, dw_pf, by_table]


def sums(module: Any, case: Case) -> list[np.ndarray]:
    """Local features, their adjoint and their derivatives by positions and strain."""
    tables, n, w_pf = case.potential.layered_tables, case.n_atoms, case.random(case.n_pairs, case.n_w)
    places = tables.local_source, tables.local_target
    v_if, wbar_pf = np.full((n, tables.widths[0]), 0.5), np.full(w_pf.shape, 0.5)
    for start, stop in case.ranges(n):
        module.sum_pairs(case.first, *places, w_pf, start, stop, v_if)
        module.sum_pairs_adjoint(case.first, *places, case.random(*v_if.shape), start, stop, wbar_pf)
    found = [v_if, wbar_pf]
    for n_strain in (0, 6):
        dw_pfc, dw_pfs = case.random(*w_pf.shape, 3), case.random(*w_pf.shape, n_strain)
        dv_ifc = np.full((n, tables.widths[0], 3 * n + n_strain), 0.5)
        module.sum_columns(case.first, case.neighbor, *places, dw_pfc, dw_pfs, n, dv_ifc)
        found.append(dv_ifc)
    return found


def messages(module: Any, case: Case) -> list[np.ndarray]:
    """Messages of every layer and their adjoint; their derivatives with and without attention and strain."""
    n, w_pf, found = case.n_atoms, case.random(case.n_pairs, case.n_w), []
    for k, layer in case.messages:
        n_x, n_v = case.train(k)[2], case.potential.layered_tables.widths[k + 1]
        x_jo, g_if = case.random(n, n_x), case.random(n, n_v)
        v_if, wbar_pf, xbar_jo = (np.full(a.shape, 0.5) for a in (g_if, w_pf, x_jo))
        for start, stop in case.ranges(n):
            module.gather(*case.terms(layer), w_pf, x_jo, start, stop, v_if)
            module.gather_adjoint(*case.terms(layer), w_pf, x_jo, g_if, start, stop, wbar_pf, xbar_jo)
        found += [v_if, wbar_pf, xbar_jo]
        for n_heads, n_strain in ((0, 0), (len(layer.queries), 6)):
            n_columns = 3 * n + n_strain
            dv_ifc = np.full((n, n_v, n_columns), 0.5)
            module.gather_columns(
                *case.terms(layer), w_pf, case.random(*w_pf.shape, 3), case.random(*w_pf.shape, n_strain),
                case.random(case.n_pairs, n_heads), case.random(case.n_pairs, n_heads, n_columns), x_jo,
                case.random(*x_jo.shape, n_columns), n, dv_ifc,
            )  # fmt: skip
            found.append(dv_ifc)
    return found


def table_columns(module: Any, case: Case) -> list[np.ndarray]:
    """What the radial table and what is passed on get from all positions and strains."""
    n, potential, tables = case.n_atoms, case.potential, case.potential.layered_tables
    basis, w_pf, type_i = (
        potential.basis_tables,
        case.random(case.n_pairs, case.n_w),
        case.neighborhoods.type_i,
    )
    n_lm, n_radial = (potential.spec.l_max + 1) ** 2, potential.spec.radial.size
    shapes = ((3,), (n_radial,), (n_radial,), (n_lm,), (n_lm, 3))
    pairs = [np.full((case.n_pairs, *shape), np.nan) for shape in shapes]
    module.pair_basis(case.r_pc, basis, *pairs)
    lm_w, channel_w = columns_of(potential)
    found = list(pairs)
    for n_strain in (0, 6):
        size = (*potential.radial_table.shape, 3 * n + n_strain)
        by_energy, by_column = np.full(size[:-1], 0.5), np.full(size, 0.5)
        source, target = tables.local_source, tables.local_target
        module.local_columns_adjoint(
            case.first, case.neighbor, type_i, source, target, channel_w[source], lm_w[source],
            case.random(n, tables.widths[0], size[-1]), w_pf, case.r_pc, *pairs, n_strain, by_energy, by_column,
        )  # fmt: skip
        found += [by_energy, by_column]
        for k, layer in case.messages:
            n_x, n_v = case.train(k)[2], tables.widths[k + 1]
            slot_f = np.zeros(case.n_w, dtype=np.int64)
            slot_f[layer.columns] = np.arange(len(layer.columns))
            for n_heads in {0, len(layer.queries)}:
                heads = layer.heads if n_heads else np.zeros(len(layer.columns), dtype=np.int64)
                xbar_joc = np.full((n, n_x, size[-1]), 0.5)
                by_scale = np.full((case.n_pairs, n_heads, size[-1]), 0.5)
                by_energy, by_column = by_energy.copy(), by_column.copy()
                module.message_columns_adjoint(
                    case.first, case.neighbor, type_i, layer.term_index, layer.term_value, layer.columns, slot_f,
                    channel_w[layer.columns], lm_w[layer.columns], heads, w_pf, case.random(*w_pf.shape, 3),
                    case.random(*w_pf.shape, n_strain), case.random(case.n_pairs, n_heads),
                    case.random(case.n_pairs, n_heads, size[-1]), case.random(n, n_x), case.random(n, n_x, size[-1]),
                    case.random(n, n_v), case.random(n, n_v, size[-1]), case.random(*w_pf.shape, salt=1), case.r_pc, *pairs,
                    xbar_joc, by_scale, by_energy, by_column,
                )  # fmt: skip
                found += [xbar_joc, by_scale, by_energy, by_column]
    return found


def columns_of(potential: Potential) -> tuple[np.ndarray, np.ndarray]:
    """l*l + l + m, and the channel of the radial table, of every column of w."""
    first = potential.basis_tables.channel_first
    columns = [
        (l * l + m, c)
        for l in range(len(first) - 1)
        for m in range(2 * l + 1)
        for c in range(first[l], first[l + 1])
    ]
    lm, channel = np.array(columns, dtype=np.int64).T
    return np.ascontiguousarray(lm), np.ascontiguousarray(channel)


def trains(module: Any, case: Case) -> list[np.ndarray]:
    """Tangents, adjoints, and adjoints along a tangent, of every train."""
    n, type_i, found = case.n_atoms, case.neighborhoods.type_i, []
    for k, width in enumerate(case.potential.layered_tables.widths):
        train, weights, n_o = case.train(k)
        v_if, dv_if = case.random(n, width), case.random(n, width, salt=1)
        seed_io, dseed_io = case.random(n, n_o, salt=2), case.random(n, n_o, salt=3)
        plain_if, g_if, h_if, slope_if = (np.full(v_if.shape, np.nan) for _ in range(4))
        x_io, dx_io = (np.full(seed_io.shape, np.nan) for _ in range(2))
        by_weight, energy_i = np.full(weights.shape, 0.5), np.full(n, np.nan)
        for start, stop in case.ranges(n):
            module.last_bonds(v_if, type_i, train, weights, start, stop, x_io)
            if n_o == 1:
                module.energies(v_if, type_i, train, weights, start, stop, energy_i, slope_if)
            module.bonds_adjoint(v_if, type_i, train, weights, seed_io, start, stop, plain_if)
            module.bonds_tangent(v_if, dv_if, type_i, train, weights, start, stop, dx_io)
            module.bonds_adjoint_tangent(
                v_if, dv_if, type_i, train, weights, dseed_io, seed_io, start, stop, g_if, h_if, by_weight
            )
        found += [plain_if, x_io, dx_io, g_if, h_if, by_weight]
        if n_o == 1:
            found += [energy_i, slope_if]
    return found


def arguments_of_messages(case: Case, k: int, layer: LayerTables, n_heads: int) -> tuple[Any, ...]:
    """Arguments of the kernels of messages up to x."""
    type_i, tables, n_x = case.neighborhoods.type_i, case.potential.layered_tables, case.train(k)[2]
    return (
        case.first, case.neighbor, case.r_pc, type_i, type_i[case.neighbor], tables.basis, tables.radial_tables[k + 1],
        layer.carried, layer.coupling_index, layer.term_value, case.random(case.n_pairs, n_heads),
        case.random(case.n_atoms, n_x),
    )  # fmt: skip


def sums_of_products(module: Any, case: Case) -> list[np.ndarray]:
    """Messages and their adjoint with and without attention; attention, normalised or not, and its adjoint."""
    n, n_pairs, found = case.n_atoms, case.n_pairs, []
    for k, layer in case.messages:
        n_x, n_v = case.train(k)[2], case.potential.layered_tables.widths[k + 1]
        x_jo, g_if = case.random(n, n_x), case.random(n, n_v)
        for n_heads in {0, len(layer.queries)}:
            given = arguments_of_messages(case, k, layer, n_heads)
            v_if, by_r_pc, xbar_jo = (
                np.full((n, n_v), 0.5),
                np.full((n_pairs, 3), 0.5),
                np.full((n, n_x), 0.5),
            )
            weight_bar_ph = np.full((n_pairs, n_heads), np.nan)
            for start, stop in case.ranges(n):
                module.messages(*given, start, stop, v_if)
                module.messages_adjoint(*given, g_if, start, stop, by_r_pc, xbar_jo, weight_bar_ph)
            found += [v_if, by_r_pc, xbar_jo, weight_bar_ph]
        n_heads = len(layer.queries)
        for normalised in (False, True) if n_heads else ():
            weight_ph, total_ih = np.full((n_pairs, n_heads), np.nan), np.full((n, n_heads), 0.5)
            by_r_pc, xbar_jo = np.full((n_pairs, 3), 0.5), np.full((n, n_x), 0.5)
            places = layer.queries, layer.keys
            for start, stop in case.ranges(n):
                module.attend(
                    case.first, case.neighbor, x_jo, *places, case.random(n_pairs) ** 2, normalised, start, stop, weight_ph,
                    total_ih,
                )  # fmt: skip
                module.attend_adjoint(
                    case.first, case.neighbor, case.r_pc, x_jo, *places, case.random(n_pairs, salt=1), normalised,
                    case.random(n_pairs, n_heads), case.random(n_pairs, n_heads, salt=1), start, stop, by_r_pc, xbar_jo,
                )  # fmt: skip
            found += [weight_ph, total_ih, by_r_pc, xbar_jo]
    return found


STAGES = {
    "pairs": pair_stage,
    "sums": sums,
    "messages": messages,
    "table": table_columns,
    "trains": trains,
    "products": sums_of_products,
}


def twins(stage: str, case: Case) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What the kernels of a stage give, and their references."""
    modules = (kernels, reference.layers)
    if stage == "products":
        modules = (message_kernels, reference.messages)
    return zip(*(STAGES[stage](module, case) for module in modules), strict=True)


@pytest.fixture(scope="session")
def layered_models(make_model: Callable[..., Potential]) -> dict[str, Potential]:
    return {name: make_model(seed, **chosen) for seed, (name, chosen) in enumerate(MODELS.items())}


@pytest.mark.parametrize("stage", list(STAGES))
@pytest.mark.parametrize("name", list(MODELS))
def test_kernels_are_their_references(
    name: str,
    stage: str,
    layered_models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    potential = layered_models[name]
    case = Case(potential, make_neighborhoods(potential, rng, [2, 0, 3, 1], n_ghosts=0), seed=1)
    for actual, expected in twins(stage, case):
        assert_close(actual, expected)


@pytest.mark.parametrize("counts", [[], [0], [0, 0], [1, 1]], ids=["no atoms", "one", "lonely", "dimer"])
def test_few_neighbors(
    counts: list[int],
    layered_models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    potential = layered_models["scalars"]
    case = Case(potential, make_neighborhoods(potential, rng, counts, n_ghosts=0), seed=2)
    for stage in STAGES:
        for actual, expected in twins(stage, case):
            assert_close(actual, expected)


def test_more_than_a_block_of_atoms_and_pairs(
    layered_models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    potential = layered_models["scalars"]
    counts = rng.integers(0, 3, size=3 * LANES + 2)
    case = Case(potential, make_neighborhoods(potential, rng, counts, n_ghosts=0), seed=3)
    for stage in STAGES:
        for actual, expected in twins(stage, case):
            assert_close(actual, expected)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, Any], list[int], int]:
    """Random settings of `make_model`, neighbour counts, and a seed."""
    l_max = draw(st.integers(0, 3))
    irreps = [f"{l}{'eo'[l % 2]}" for l in range(l_max + 1)]
    carry = st.dictionaries(st.sampled_from(irreps), st.integers(1, 2), min_size=1, max_size=2)
    attention = st.sampled_from(["none", "bilinear", "normalised"])
    layers = []
    for _ in range(draw(st.integers(1, 2))):
        layer: dict[str, Any] = dict(carry=draw(carry), ranks=1, order=draw(st.integers(1, 2)))
        layer["kind"] = draw(st.sampled_from(["message", "message", "pool"]))
        if layer["kind"] == "message" and (chosen := draw(attention)) != "none":
            layer |= dict(attention=chosen, heads=draw(st.integers(1, 2)), width=draw(st.integers(1, 2)))
        layers.append(layer)
    chosen = dict(
        species=SPECIES[: draw(st.integers(1, 4))], order=draw(st.integers(1, 2)), l_max=l_max, ranks=1,
        channels=[draw(st.integers(1, 2)) for _ in irreps], layers=layers,
        radial_family=draw(st.sampled_from(["chebyshev", "jacobi", "bessel"])),
        cutoff_function=draw(st.sampled_from(["power", "envelope"])),
        species_form=draw(st.sampled_from(["pair", "embedding"])),
        head_rank=draw(st.integers(1, 2)), radial_size=draw(st.integers(1, 3)),
    )  # fmt: skip
    counts = draw(st.lists(st.integers(0, 2), max_size=4))
    return chosen, counts, draw(st.integers(0, 2**16))


@pytest.mark.slow
@settings(
    max_examples=6, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(layout=layouts())
def test_kernels_over_random_layouts(
    layout: tuple[dict[str, Any], list[int], int],
    assert_close: Callable[..., None],
    make_model: Callable[..., Any],
    make_neighborhoods: Callable[..., Any],
) -> None:
    chosen, counts, seed = layout
    potential = make_model(seed, **chosen)
    pairs = make_neighborhoods(potential, np.random.default_rng(seed), counts, n_ghosts=0)
    case = Case(potential, pairs, seed)
    for stage in STAGES:
        for actual, expected in twins(stage, case):
            assert_close(actual, expected)


@pytest.mark.parametrize("name", ["message, bilinear", "two messages and a pool"])
def test_both_orders_of_the_sums_are_the_same(
    name: str,
    layered_models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    """Coupled for every pair, or once for each atom."""
    potential = layered_models[name]
    case = Case(potential, make_neighborhoods(potential, rng, [9, 0, 17, 1], n_ghosts=0), seed=4)
    table, (zi_p, zj_p, basis) = potential.radial_table, case.pairs
    w_pf = np.empty((case.n_pairs, case.n_w))
    kernels.pair_features(case.r_pc, zi_p, zj_p, basis, table, 0, case.n_pairs, w_pf)
    for k, layer in case.messages:
        given = arguments_of_messages(case, k, layer, len(layer.queries))
        weight_ph, x_jo = given[-2:]
        carrier_pf = w_pf.copy()
        if len(layer.queries):
            carrier_pf[:, layer.columns] *= weight_ph[:, layer.heads]
        by_atom, by_pair = np.zeros((2, case.n_atoms, potential.layered_tables.widths[k + 1]))
        message_kernels.messages(*given, 0, case.n_atoms, by_atom)
        kernels.gather(*case.terms(layer), carrier_pf, x_jo, 0, case.n_atoms, by_pair)
        assert np.abs(by_pair).max() > 0.0
        assert_close(by_atom, by_pair)


@pytest.mark.parametrize("module", [kernels, message_kernels], ids=["layers", "messages"])
def test_every_public_kernel_has_a_twin_of_the_same_arguments(module: Any) -> None:
    for name in module.__all__:
        twin = getattr(getattr(reference, module.__name__.rsplit(".", 1)[1]), name)
        kernel = getattr(module, name)
        code = getattr(kernel, "py_func", kernel).__code__
        assert code.co_varnames[: code.co_argcount] == twin.__code__.co_varnames[: twin.__code__.co_argcount]
