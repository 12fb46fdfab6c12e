"""Bonds, paths, memory order, and the train that holds the numbers."""

from __future__ import annotations

from itertools import product

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
    core_block,
    dense_core,
    dense_tensor,
    evaluate_dense,
    flatten_blocks,
    random_core,
    scale,
)
from etnpot.so3 import Irrep, clebsch_gordan, wigner_d

FEATURE = Bond.of({"0e": 2, "1o": 1, "2e": 1})
seeds = st.integers(0, 2**32 - 1)


def test_bond_sorts_drops_zeros_and_knows_its_offsets() -> None:
    bond = Bond.of({"1o": 3, "0o": 1, "1e": 0, "0e": 2})
    assert str(bond) == "2x0e + 1x0o + 3x1o"
    assert bond.dimension == 2 + 1 + 9
    assert [bond.offset(irrep) for irrep in bond.irreps] == [0, 2, 3]
    assert bond.slice(Irrep(1, -1)) == slice(3, 12)
    assert Irrep(1, 1) not in bond and bond.rank(Irrep(1, 1)) == 0
    assert Bond.of(bond.to_dict()) == bond
    assert str(bond + Bond.of({"1e": 1, "0e": 1})) == "3x0e + 1x0o + 3x1o + 1x1e"


@pytest.mark.parametrize(
    "ranks", [{"0e": -1}, {"0e": 1.5}, {"0e": "2"}, {"0x": 1}, {"0e": 1, SCALAR: 2}], ids=str
)
def test_bond_refuses_nonsense(ranks: dict) -> None:
    with pytest.raises(SpecificationError, match=r"0e|0x"):
        Bond.of(ranks)


def test_bond_refuses_disorder() -> None:
    with pytest.raises(SpecificationError, match="ascending"):
        Bond(((Irrep(1, -1), 1), (SCALAR, 1)))


def test_paths_are_those_of_triangle_and_parity() -> None:
    bond = Bond.of({f"{l}{p}": 1 for l in range(4) for p in "eo"})
    layout = CoreLayout(bond, FEATURE, bond)
    expected = [
        (a, b, c)
        for a, b, c in product(bond.irreps, FEATURE.irreps, bond.irreps)
        if abs(a.l - b.l) <= c.l <= a.l + b.l and c.p == a.p * b.p
    ]
    assert [(path.left, path.feature, path.right) for path in layout.paths] == expected == sorted(expected)


def test_blocks_tile_the_flat_core() -> None:
    layout = CoreLayout(Bond.of({"0e": 2, "1o": 3}), FEATURE, Bond.of({"0e": 1, "1o": 2, "1e": 1}))
    covered = np.concatenate([np.arange(layout.size)[layout.slice(path)] for path in layout.paths])
    assert np.array_equal(covered, np.arange(layout.size))
    core = np.arange(float(layout.size))
    blocks = {path: core_block(layout, core, path) for path in layout.paths}
    assert all(blocks[path].shape == layout.shape(path) for path in layout.paths)
    assert np.array_equal(flatten_blocks(layout, blocks), core)


@pytest.mark.parametrize(
    ("n_species", "feature", "bonds", "message"),
    [
        (0, {"0e": 1}, [{"0e": 1}, {"0e": 1}], "species"),
        (1, {"0e": 1}, [{"0e": 1}], "two bonds"),
        (1, {"0e": 1}, [{"0e": 1, "1o": 1}, {"0e": 1}], "bond 0"),
        (1, {"1o": 1}, [{"0e": 1}, {"0e": 1}], "constant"),
        (1, {"0e": 1, "1e": 1}, [{"0e": 1}, {"0e": 1}], "natural parity"),
        (1, {"0e": 1}, [{"0e": 1}, {}, {"0e": 1}], "bond 1"),
    ],
)
def test_train_layout_refuses_nonsense(n_species: int, feature: dict, bonds: list, message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        TrainLayout(n_species, Bond.of(feature), tuple(map(Bond.of, bonds)))


def test_trimmed_drops_what_cannot_be_reached_or_does_not_arrive() -> None:
    wide = Bond.of({"0e": 50, "1o": 50, "1e": 2, "3o": 4})
    layout = TrainLayout(2, FEATURE, (Bond.of({"0e": 9}), wide, wide, Bond.of({"0e": 1})))
    # Bond 1: 2 species x (2 0e, 1 1o) from the left. Bond 2: 1 output x the same channels from the right.
    assert layout.trimmed().bonds[:3] == (
        Bond.of({"0e": 2}),
        Bond.of({"0e": 4, "1o": 2}),
        Bond.of({"0e": 2, "1o": 1}),
    )
    assert layout.trimmed().trimmed() == layout.trimmed()


def test_trimmed_refuses_a_train_that_is_zero() -> None:
    layout = TrainLayout(1, Bond.of({"0e": 1}), (Bond.of({"0e": 1}), Bond.of({"1o": 1}), Bond.of({"0e": 1})))
    with pytest.raises(SpecificationError, match="no path"):
        layout.trimmed()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=seeds)
def test_trimmed_is_a_fixed_point(draw_train, seed: int) -> None:
    trimmed = draw_train(np.random.default_rng(seed)).layout.trimmed()
    assert trimmed.trimmed() == trimmed


def test_train_is_immutable_and_round_trips_through_flat(draw_train, rng) -> None:
    train = draw_train(rng, order=3)
    flat = train.flat
    assert flat.shape == (train.layout.n_parameters,)
    again = Train.from_flat(train.layout, flat)
    assert np.array_equal(again.flat, flat)
    flat[:] = 0.0
    assert np.any(again.flat)
    with pytest.raises(ValueError, match="read-only"):
        train.cores[0][0] = 1.0
    assert np.allclose(scale(train, 2.0).cores[-1], 2.0 * train.cores[-1])


def test_train_refuses_wrong_shapes(draw_train, rng) -> None:
    train = draw_train(rng, order=2)
    with pytest.raises(SpecificationError, match="core 1"):
        train.with_core(1, np.zeros(train.layout.cores[1].size + 1))
    with pytest.raises(SpecificationError, match="head"):
        Train(train.layout, train.head[:, :0], train.cores)
    with pytest.raises(SpecificationError, match="2 cores"):
        Train(train.layout, train.head, train.cores[:1])
    with pytest.raises(SpecificationError, match="parameters"):
        Train.from_flat(train.layout, train.flat[1:])


def test_dense_tensor_is_the_recursion_of_the_model(rng) -> None:
    """x_k from x_{k-1} by the formula, written as a sum over every index, at order 2."""
    bonds = Bond.of({"0e": 2}), Bond.of({"0e": 1, "1o": 2, "1e": 1}), Bond.of({"0e": 1, "1o": 1})
    train = Train.random(TrainLayout(2, FEATURE, bonds), rng)
    v = rng.normal(size=FEATURE.dimension)
    for z in range(2):
        x = {SCALAR: train.head[z][None, :]}
        for k in range(2):
            new = {irrep: np.zeros((irrep.dim, rank)) for irrep, rank in bonds[k + 1]}
            for path, block in train.blocks(k).items():
                if path.left not in x:
                    continue
                c = clebsch_gordan(path.left.l, path.feature.l, path.right.l)
                features = v[FEATURE.slice(path.feature)].reshape(path.feature.dim, -1)
                for m1, m2, m3 in product(*(range(n) for n in c.shape)):
                    for a1, a2, a3 in product(*(range(n) for n in block.shape)):
                        new[path.right][m3, a3] += (
                            block[a1, a2, a3] * c[m1, m2, m3] * x[path.left][m1, a1] * features[m2, a2]
                        )
            x = new
        expected = np.concatenate([x[irrep].ravel() for irrep in bonds[-1].irreps])
        np.testing.assert_allclose(evaluate_dense(train, v)[z], expected, rtol=1e-12, atol=1e-13)


def _rotation_of(bond: Bond, rotation: np.ndarray, parity: bool) -> np.ndarray:
    """The matrix of a rotation (then the inversion) on a bond vector."""
    matrix = np.zeros((bond.dimension, bond.dimension))
    for irrep, rank in bond:
        at = bond.slice(irrep)
        matrix[at, at] = np.kron(wigner_d(irrep.l, rotation) * (irrep.p if parity else 1), np.eye(rank))
    return matrix


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=seeds, inversion=st.booleans())
def test_output_turns_with_the_features(draw_train, seed: int, inversion: bool) -> None:
    rng = np.random.default_rng(seed)
    train = draw_train(rng)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    v = rng.normal(size=train.layout.feature.dimension)
    turned = evaluate_dense(train, _rotation_of(train.layout.feature, rotation, inversion) @ v)
    expected = evaluate_dense(train, v) @ _rotation_of(train.layout.bonds[-1], rotation, inversion).T
    np.testing.assert_allclose(turned, expected, atol=1e-10 * max(1.0, np.abs(expected).max()))


def test_dense_tensor_refuses_to_fill_the_memory() -> None:
    layout = TrainLayout(1, Bond.of({"0e": 40}), (Bond.of({"0e": 1}),) * 7)
    with pytest.raises(SpecificationError, match="dense tensor"):
        dense_tensor(Train.from_flat(layout, np.zeros(layout.n_parameters)))


def test_random_cores_keep_the_size_of_bond_components(rng) -> None:
    """The derivation in Train.random: columns of the dense core have norm one in the mean, for each irrep."""
    bond = Bond.of({"0e": 6, "1o": 7, "1e": 3, "2e": 5})
    layout = CoreLayout(bond, Bond.of({"0e": 3, "1o": 4, "2e": 2, "3o": 1}), bond)
    means = np.mean(
        [np.sum(dense_core(layout, random_core(layout, rng)) ** 2, axis=(0, 1)) for _ in range(12)], 0
    )
    for irrep in bond.irreps:
        assert np.mean(means[bond.slice(irrep)]) == pytest.approx(1.0, abs=0.08)


def test_path_names_itself() -> None:
    assert str(Path(SCALAR, Irrep(1, -1), Irrep(1, -1))) == "0e x 1o -> 1o"
