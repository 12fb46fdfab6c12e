"""Sums, gauges and growth against the dense tensor and the function it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot.errors import SpecificationError
from etnpot.network import (
    SCALAR,
    Bond,
    CoreLayout,
    Path,
    Train,
    TrainLayout,
    add,
    dense_tensor,
    enrich,
    evaluate_dense,
    extend_species,
    frobenius_norm,
    gauge_transform,
    grow_features,
    grow_order,
    grow_ranks,
    inner,
    is_left_orthogonal,
    left_orthogonalize,
    random_core,
    relabel_species,
    scale,
)
from etnpot.so3 import Irrep

seeds = st.integers(0, 2**32 - 1)
random_trains = settings(max_examples=20, deadline=None, derandomize=True)


def sibling(train: Train, rng: np.random.Generator) -> Train:
    """A random train on the same features and output, with other inner bonds."""
    layout = train.layout
    for k in range(layout.order):
        extra = {SCALAR: int(rng.integers(0, 3))}
        if k > 0:
            extra |= {Irrep(1, -1): int(rng.integers(0, 2)), Irrep(1, 1): int(rng.integers(0, 2))}
        layout = layout.with_bond(k, layout.bonds[k] + Bond.of(extra))
    return Train.random(layout, rng)


def plain_train(rng: np.random.Generator) -> Train:
    """A train of order 2 whose function does not vanish by symmetry anywhere."""
    feature = Bond.of({"0e": 2, "1o": 2, "2e": 1})
    bonds = Bond.of({"0e": 2}), Bond.of({"0e": 2, "1o": 1}), Bond.of({"0e": 1})
    return Train.random(TrainLayout(3, feature, bonds), rng)


def some_features(train: Train, rng: np.random.Generator) -> np.ndarray:
    """A feature vector whose constant channel is one."""
    features = rng.normal(size=train.layout.feature.dimension)
    features[train.layout.feature.offset(SCALAR)] = 1.0
    return features


@random_trains
@given(seed=seeds)
def test_vector_space(draw_train, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = draw_train(rng)
    second = sibling(first, rng)
    a, b = dense_tensor(first), dense_tensor(second)
    size = np.abs(a).max() + np.abs(b).max()
    total = add(first, second)
    np.testing.assert_allclose(dense_tensor(total), a + b, rtol=0, atol=1e-13 * size)
    for k in range(first.layout.order):
        assert total.layout.bonds[k] == first.layout.bonds[k] + second.layout.bonds[k]
    for k in ("head", None, 0):
        np.testing.assert_allclose(dense_tensor(scale(first, -2.5, k)), -2.5 * a, rtol=0, atol=1e-12 * size)
    product = np.linalg.norm(a) * np.linalg.norm(b)
    assert inner(first, second) == pytest.approx(np.sum(a * b), abs=1e-12 * product)
    assert inner(first, second) == pytest.approx(inner(second, first), abs=1e-12 * product)
    assert inner(first, first) == pytest.approx(frobenius_norm(first) ** 2, rel=1e-11)


def test_add_and_inner_refuse_other_spaces(draw_train, rng) -> None:
    train = draw_train(rng, order=2)
    feature = train.layout.feature + Bond.of({"0e": 1})
    for other, name in (
        (extend_species(train, 1), "species"),
        (grow_order(train, 1), "order"),
        (grow_features(train, feature), "features"),
    ):
        for operation in (add, inner):
            with pytest.raises(SpecificationError, match=name):
                operation(train, other)


@random_trains
@given(seed=seeds)
def test_gauge_leaves_the_tensor(draw_train, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = draw_train(rng)
    bond = int(rng.integers(train.layout.order))
    matrices = {
        irrep: rng.normal(size=(rank, rank)) + 2 * np.eye(rank) for irrep, rank in train.layout.bonds[bond]
    }
    transformed = gauge_transform(train, bond, matrices)
    dense = dense_tensor(train)
    np.testing.assert_allclose(
        dense_tensor(transformed), dense, rtol=0, atol=1e-10 * max(np.abs(dense).max(), 1.0)
    )
    assert not np.allclose(transformed.flat, train.flat)
    assert np.allclose(gauge_transform(train, bond, {}).flat, train.flat)


def test_gauge_refuses_what_is_no_gauge(draw_train, rng) -> None:
    train = draw_train(rng, order=2)
    rank = train.layout.bonds[0].rank(SCALAR)
    for matrices, message in (
        ({SCALAR: np.zeros((rank, rank))}, "singular"),
        ({SCALAR: np.eye(rank + 1)}, "shape"),
        ({Irrep(1, -1): np.eye(1)}, "got also 1o"),
    ):
        with pytest.raises(SpecificationError, match=message):
            gauge_transform(train, 0, matrices)
    with pytest.raises(SpecificationError, match="output"):
        gauge_transform(train, 2, {})


@random_trains
@given(seed=seeds, side=st.sampled_from(["left", "right"]))
def test_grow_ranks_leaves_the_function(draw_train, seed: int, side: str) -> None:
    rng = np.random.default_rng(seed)
    train = draw_train(rng)
    bond = int(rng.integers(train.layout.order))
    extra = {SCALAR: 2} if bond == 0 else {SCALAR: 1, Irrep(1, -1): 2, Irrep(2, -1): 1}
    new_bond = train.layout.bonds[bond] + Bond.of(extra)
    grown = grow_ranks(train, bond, new_bond, rng, amplitude=0.5, side=side)
    assert grown.layout.bonds[bond] == new_bond
    v = some_features(train, rng)
    before = evaluate_dense(train, v)
    np.testing.assert_allclose(
        evaluate_dense(grown, v), before, rtol=0, atol=1e-11 * max(1, np.abs(before).max())
    )
    a = dense_tensor(train)
    np.testing.assert_allclose(dense_tensor(grown), a, rtol=0, atol=1e-12 * max(1, np.abs(a).max()))


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_of_the_zeros_are_alive(rng, side: str) -> None:
    """With random numbers on one side of a grown bond, the function responds to every zero on the other."""
    train = plain_train(rng)
    v = some_features(train, rng)
    before = evaluate_dense(train, v)
    new_bond = Bond.of({"0e": 4, "1o": 2, "2e": 1})
    for generator, alive in ((rng, True), (None, False)):
        grown = grow_ranks(train, 1, new_bond, generator, side=side)
        k = 1 if side == "left" else 0  # the tensor with the zeros
        zeros = np.flatnonzero(grown.cores[k] == 0.0)
        assert len(zeros) > 0
        for q in zeros:
            core = np.array(grown.cores[k])
            core[q] = 1.0
            response = np.abs(evaluate_dense(grown.with_core(k, core), v) - before).max()
            assert response > 1e-6 if alive else response < 1e-13


def test_grow_ranks_without_a_generator_is_all_zero_and_never_shrinks(draw_train, rng) -> None:
    train = draw_train(rng, order=3)
    new_bond = train.layout.bonds[1] + Bond.of({"0e": 1})
    grown = grow_ranks(train, 1, new_bond)
    assert np.sum(grown.flat != 0.0) == np.sum(train.flat != 0.0)
    with pytest.raises(SpecificationError, match="round_train"):
        grow_ranks(grown, 1, train.layout.bonds[1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_enrich_puts_the_directions_where_they_belong(draw_train, rng, side: str) -> None:
    train = left_orthogonalize(draw_train(rng, order=3))
    layout, extra = train.layout, Bond.of({"0e": 2, "1e": 1})
    core = layout.cores[0] if side == "left" else layout.cores[1]
    part = (
        CoreLayout(core.left, core.feature, extra)
        if side == "left"
        else CoreLayout(extra, core.feature, core.right)
    )
    directions = random_core(part, rng)
    enriched = enrich(train, 1, directions, extra, side=side)
    np.testing.assert_allclose(dense_tensor(enriched), dense_tensor(train), atol=1e-12)
    for path in part.paths:
        k = 0 if side == "left" else 1
        new = enriched.block(k, path)
        at = layout.bonds[1].rank(path.right if side == "left" else path.left)
        new = new[:, :, at:] if side == "left" else new[at:]
        assert np.array_equal(new.ravel(), directions[part.slice(path)])
    blocks = {path: directions[part.slice(path)].reshape(part.shape(path)) for path in part.paths}
    assert np.array_equal(enrich(train, 1, blocks, extra, side=side).flat, enriched.flat)
    # A sweep goes on: orthogonalise the enriched bond; the rank stays, as far as there is room.
    again = left_orthogonalize(enriched)
    assert is_left_orthogonal(again, 0)
    np.testing.assert_allclose(dense_tensor(again), dense_tensor(train), atol=1e-12)


def test_enrich_on_the_head_and_its_errors(draw_train, rng) -> None:
    train = draw_train(rng, order=2)
    extra = Bond.of({"0e": 2})
    rows = rng.normal(size=(train.layout.n_species, 2))
    enriched = enrich(train, 0, rows, extra)
    assert np.array_equal(enriched.head[:, -2:], rows)
    np.testing.assert_allclose(dense_tensor(enriched), dense_tensor(train), atol=1e-13)
    for directions, message in ((rows.T[:, :0], "head"), ({}, "blocks")):
        with pytest.raises(SpecificationError, match=message):
            enrich(train, 0, directions, extra)
    with pytest.raises(SpecificationError, match="numbers"):
        enrich(train, 1, np.zeros(0), extra)
    with pytest.raises(SpecificationError, match="no such path"):
        enrich(train, 1, {Path(Irrep(5, 1), SCALAR, SCALAR): np.zeros((1, 1, 1))}, extra)
    with pytest.raises(SpecificationError, match="side"):
        enrich(train, 1, np.zeros(0), extra, side="up")


@random_trains
@given(seed=seeds)
def test_grow_order_leaves_the_function_at_every_position(draw_train, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = draw_train(rng, max_entries=3000)
    v = some_features(train, rng)
    before = evaluate_dense(train, v)
    for position in range(train.layout.order + 1):
        grown = grow_order(train, position)
        assert grown.layout.order == train.layout.order + 1
        np.testing.assert_allclose(
            evaluate_dense(grown, v), before, rtol=0, atol=1e-12 * max(np.abs(before).max(), 1.0)
        )
        dense = np.moveaxis(dense_tensor(grown), position + 1, 0)
        constant = train.layout.feature.offset(SCALAR)
        np.testing.assert_allclose(dense[constant], dense_tensor(train), atol=1e-12)
        assert np.count_nonzero(np.delete(dense, constant, axis=0)) == 0


@random_trains
@given(seed=seeds)
def test_grow_features_leaves_the_function_of_the_old_channels(draw_train, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = draw_train(rng, max_entries=2000)
    old = train.layout.feature
    grown = grow_features(train, old + Bond.of({"0e": 1, "1o": 1, "2e": 1}))
    new = grown.layout.feature
    v = some_features(train, rng)
    wide = rng.normal(size=new.dimension)  # anything in the new channels
    for irrep, channels in old:
        wide[new.slice(irrep)].reshape(irrep.dim, -1)[:, :channels] = v[old.slice(irrep)].reshape(
            irrep.dim, -1
        )
    np.testing.assert_allclose(evaluate_dense(grown, wide), evaluate_dense(train, v), rtol=1e-11, atol=1e-12)


def test_species_come_and_go(rng) -> None:
    train = plain_train(rng)
    n = train.layout.n_species
    v = some_features(train, rng)
    before = evaluate_dense(train, v)
    extended = extend_species(train, 2)
    np.testing.assert_allclose(evaluate_dense(extended, v)[:n], before, rtol=1e-13)
    assert not np.any(evaluate_dense(extended, v)[n:])
    copied = extend_species(train, 1, rows=train.head[:1])
    np.testing.assert_allclose(evaluate_dense(copied, v)[n], before[0], rtol=1e-13)
    permutation = [*rng.permutation(n + 2), 0]
    np.testing.assert_allclose(
        evaluate_dense(relabel_species(extended, permutation), v), evaluate_dense(extended, v)[permutation]
    )
    for wrong in ([], [n], [-1]):
        with pytest.raises(SpecificationError, match="type indices"):
            relabel_species(train, wrong)
    with pytest.raises(SpecificationError, match="rows"):
        extend_species(train, 2, rows=train.head[:1])
    with pytest.raises(SpecificationError, match="n_new"):
        extend_species(train, -1)


def test_grow_order_and_features_refuse_nonsense(draw_train, rng) -> None:
    train = draw_train(rng, order=2)
    for position in (-1, 3):
        with pytest.raises(SpecificationError, match="position"):
            grow_order(train, position)
    layout = TrainLayout(1, Bond.of({"0e": 2, "1o": 1}), (Bond.of({"0e": 1}), Bond.of({"0e": 1})))
    with pytest.raises(SpecificationError, match="new_feature"):
        grow_features(Train.random(layout, rng), Bond.of({"0e": 2}))


def test_growing_from_a_linear_start(rng) -> None:
    """A linear train grown to order 3 with more ranks, channels and species is still the same function."""
    layout = TrainLayout(2, Bond.of({"0e": 3}), (Bond.of({"0e": 2}), Bond.of({"0e": 1})))
    train = Train.random(layout, rng)
    v = np.concatenate([[1.0], rng.normal(size=2)])
    grown = grow_order(grow_order(train, 0), 0)
    grown = grow_features(grown, Bond.of({"0e": 3, "1o": 2, "2e": 1}))
    grown = grow_ranks(grown, 1, Bond.of({"0e": 3, "1o": 2, "2e": 2}), rng)
    grown = grow_ranks(grown, 2, Bond.of({"0e": 3, "1o": 2, "2e": 1}), rng, side="right")
    grown = extend_species(grown, 1)
    wide = np.concatenate([v, rng.normal(size=11)])
    np.testing.assert_allclose(evaluate_dense(grown, wide)[:2], evaluate_dense(train, v), rtol=1e-12)
