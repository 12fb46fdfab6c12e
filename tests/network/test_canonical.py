"""Canonical forms against the dense tensor: orthogonality, norm, and a tensor that does not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot.errors import ConvergenceError, SpecificationError
from etnpot.network import (
    HEAD,
    SCALAR,
    Bond,
    Train,
    TrainLayout,
    add,
    canonicalize,
    center_norm,
    center_weights,
    core_block,
    dense_core,
    dense_tensor,
    frobenius_norm,
    gauge_transform,
    is_canonical,
    is_left_orthogonal,
    is_right_orthogonal,
    left_orthogonalize,
    move_center,
    push_left,
    push_right,
    right_orthogonalize,
    scale,
)

seeds = st.integers(0, 2**32 - 1)
random_trains = settings(max_examples=25, deadline=None, derandomize=True)


def assert_same_tensor(train: Train, dense: np.ndarray) -> None:
    np.testing.assert_allclose(dense_tensor(train), dense, rtol=0, atol=1e-12 * max(np.abs(dense).max(), 1.0))


def left_part(train: Train, bond: int) -> np.ndarray:
    """Everything to the left of a bond, dense: [(z f_1 .. f_k), component of the bond]."""
    part = train.head
    for layout, core in zip(train.layout.cores[:bond], train.cores[:bond], strict=True):
        dense = dense_core(layout, core)
        part = (part @ dense.reshape(len(dense), -1)).reshape(-1, dense.shape[2])
    return part


def right_part(train: Train, bond: int) -> np.ndarray:
    """Everything to the right of a bond, dense: [component of the bond, (f_{k+1} .. f_d o)]."""
    part = np.eye(train.layout.bonds[-1].dimension)
    for layout, core in zip(train.layout.cores[bond:][::-1], train.cores[bond:][::-1], strict=True):
        dense = dense_core(layout, core)
        part = (dense.reshape(-1, dense.shape[2]) @ part).reshape(len(dense), -1)
    return part


@random_trains
@given(seed=seeds)
def test_every_center(draw_train, seed: int) -> None:
    """Tensor unchanged, predicates true, dense parts isometric, norm of the centre = dense norm."""
    train = draw_train(np.random.default_rng(seed))
    dense = dense_tensor(train)
    for center in (HEAD, *range(train.layout.order)):
        mixed = canonicalize(train, center)
        assert_same_tensor(mixed, dense)
        assert is_canonical(mixed, center, tol=1e-12)
        assert center_norm(mixed, center) == pytest.approx(np.linalg.norm(dense), rel=1e-12)
        at = -1 if center == HEAD else center
        if at >= 0:
            part = left_part(mixed, at)
            np.testing.assert_allclose(part.T @ part, np.eye(part.shape[1]), atol=1e-12)
        part = right_part(mixed, at + 1)
        np.testing.assert_allclose(part @ part.T, np.eye(part.shape[0]), atol=1e-12)
    assert frobenius_norm(train) == pytest.approx(np.linalg.norm(dense), rel=1e-12)


@random_trains
@given(seed=seeds)
def test_ranks_shrink_to_the_room_and_never_grow(draw_train, seed: int) -> None:
    train = draw_train(np.random.default_rng(seed))
    both = right_orthogonalize(left_orthogonalize(train)).layout
    assert both.bonds[-1] == train.layout.bonds[-1]
    for before, after in zip(train.layout.trimmed().bonds, both.bonds, strict=True):
        assert all(rank <= before.rank(irrep) for irrep, rank in after)


@random_trains
@given(seed=seeds)
def test_move_center_step_by_step(draw_train, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = draw_train(rng)
    dense, order = dense_tensor(train), train.layout.order
    center = HEAD
    moved = canonicalize(train, center)
    for to in [*range(order), *range(order - 1, -1, -1), HEAD, order - 1, int(rng.integers(order))]:
        moved = move_center(moved, center, to)
        center = to
        assert is_canonical(moved, center, tol=1e-12)
    assert_same_tensor(moved, dense)


def test_move_center_touches_only_the_tensors_on_the_way(draw_train, rng) -> None:
    train = canonicalize(draw_train(rng, order=4), 1)
    moved = move_center(train, 1, 2)
    assert np.array_equal(moved.head, train.head)
    assert np.array_equal(moved.cores[0], train.cores[0]) and np.array_equal(moved.cores[3], train.cores[3])


def test_left_orthogonalisation_undoes_a_triangular_gauge_exactly(draw_train, rng) -> None:
    """The non-negative diagonal of R makes Q unique: Q X with X triangular gives back the same Q."""
    train = left_orthogonalize(draw_train(rng, order=3))
    bond = 1
    triangular = {
        irrep: np.triu(rng.normal(size=(rank, rank))) + 3.0 * np.eye(rank)
        for irrep, rank in train.layout.bonds[bond]
    }
    for matrix in triangular.values():
        matrix[np.diag_indices(len(matrix))] = np.abs(np.diag(matrix)) + 0.1
    again = left_orthogonalize(gauge_transform(train, bond, triangular))
    for a, b in zip((again.head, *again.cores), (train.head, *train.cores), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_same_bits_twice(draw_train, rng) -> None:
    train = draw_train(rng, order=3)
    assert np.array_equal(canonicalize(train, 1).flat, canonicalize(train, 1).flat)


def test_pushes_return_the_gauge_of_bond_vectors(draw_train, rng) -> None:
    train = draw_train(rng, order=3)
    old_left, old_right = left_part(train, 1), right_part(train, 1)

    def on_bond(vectors: np.ndarray, bond: Bond, irrep) -> np.ndarray:
        return vectors[:, bond.slice(irrep)].reshape(len(vectors), irrep.dim, -1)

    pushed, r = push_right(train, 1)
    assert is_left_orthogonal(pushed, 0) and set(r) == set(pushed.layout.bonds[1].irreps)
    for irrep, matrix in r.items():
        x_new = on_bond(left_part(pushed, 1), pushed.layout.bonds[1], irrep)
        np.testing.assert_allclose(
            x_new @ matrix, on_bond(old_left, train.layout.bonds[1], irrep), atol=1e-12
        )
        y_new = on_bond(right_part(pushed, 1).T, pushed.layout.bonds[1], irrep)
        y_old = on_bond(old_right.T, train.layout.bonds[1], irrep)
        np.testing.assert_allclose(y_new, y_old @ matrix.T, atol=1e-12)
        assert np.all(np.diagonal(matrix) >= 0.0) and np.allclose(matrix, np.triu(matrix))

    pushed, lower = push_left(train, 1)
    assert is_right_orthogonal(pushed, 1)
    for irrep, matrix in lower.items():
        x_new = on_bond(left_part(pushed, 1), pushed.layout.bonds[1], irrep)
        np.testing.assert_allclose(
            x_new, on_bond(old_left, train.layout.bonds[1], irrep) @ matrix, atol=1e-12
        )
        y_new = on_bond(right_part(pushed, 1).T, pushed.layout.bonds[1], irrep)
        y_old = on_bond(old_right.T, train.layout.bonds[1], irrep)
        np.testing.assert_allclose(y_old, y_new @ matrix.T, atol=1e-12)


def test_leaving_the_weight_out_makes_orthogonality_and_norm_wrong(rng) -> None:
    """The testers tested: rows orthonormal without the weight (2 l3 + 1) / (2 l1 + 1) are not an isometry."""
    bonds = Bond.of({"0e": 1}), Bond.of({"0e": 1, "1o": 2}), Bond.of({"0e": 1, "1o": 2}), Bond.of({"1o": 1})
    train = right_orthogonalize(Train.random(TrainLayout(1, Bond.of({"0e": 2, "1o": 2}), bonds), rng), 1)
    layout, core = train.layout.cores[2], np.array(train.cores[2])
    for path in layout.paths:  # turns the weighted rows into plainly orthonormal ones
        core_block(layout, core, path)[...] *= np.sqrt(path.right.dim / path.left.dim)
    broken = train.with_core(2, core)
    for left in layout.left.irreps:
        rank = layout.left.rank(left)
        rows = np.hstack(
            [core_block(layout, core, p).reshape(rank, -1) for p in layout.paths if p.left == left]
        )
        np.testing.assert_allclose(rows @ rows.T, np.eye(rank), atol=1e-12)
    assert is_right_orthogonal(train, 2) and not is_right_orthogonal(broken, 2)
    part = right_part(broken, 2)
    assert np.abs(part @ part.T - np.eye(len(part))).max() > 0.1

    mixed = canonicalize(train, 1)
    dense_norm = np.linalg.norm(dense_tensor(mixed))
    assert center_norm(mixed, 1) == pytest.approx(dense_norm, rel=1e-12)
    assert abs(np.linalg.norm(mixed.cores[1]) - dense_norm) > 0.05 * dense_norm


@random_trains
@given(seed=seeds)
def test_ridge_on_the_centre_is_ridge_on_the_tensor(draw_train, seed: int) -> None:
    """Not only the norm: the quadratic form of the centre core is diag(center_weights), for any core."""
    rng = np.random.default_rng(seed)
    train = draw_train(rng)
    k = int(rng.integers(train.layout.order))
    mixed = canonicalize(train, k)
    weights = center_weights(mixed.layout.cores[k])
    core = rng.normal(size=weights.shape)
    dense = dense_tensor(mixed.with_core(k, core))
    assert np.sum(weights * core**2) == pytest.approx(np.sum(dense**2), rel=1e-12)


def test_norm_of_a_small_difference_keeps_its_digits(draw_train, rng) -> None:
    train = draw_train(rng, order=3)
    norm = frobenius_norm(train)
    difference = add(train, scale(train, -1.0 + 1e-11, "head"))
    assert frobenius_norm(difference) == pytest.approx(1e-11 * norm, rel=1e-3)


def test_rank_deficient_and_zero_cores(draw_train, rng) -> None:
    train = draw_train(rng, order=3)
    doubled = add(train, train)  # every bond has linearly dependent copies
    for center in (HEAD, 0, 1, 2):
        mixed = canonicalize(doubled, center)
        assert is_canonical(mixed, center, tol=1e-11)
        assert_same_tensor(mixed, 2.0 * dense_tensor(train))
    zero = canonicalize(train.with_core(1, np.zeros(train.layout.cores[1].size)), 2)
    assert is_canonical(zero, 2) and frobenius_norm(zero) == 0.0


def test_irreps_that_lead_nowhere_leave_the_bonds() -> None:
    feature = Bond.of({"0e": 1, "1o": 1})
    inner = Bond.of({"0e": 1, "0o": 2, "1o": 1, "3o": 1})
    layout = TrainLayout(2, feature, (Bond.of({"0e": 1}), inner, Bond.of({"0e": 1})))
    train = Train.random(layout, np.random.default_rng(1))
    dense = dense_tensor(train)
    assert not is_left_orthogonal(train, 0)
    for form in (left_orthogonalize(train), right_orthogonalize(train)):
        assert form.layout.bonds[1] == Bond.of({"0e": 1, "1o": 1})
        assert_same_tensor(form, dense)


def test_zero_layout_and_bad_arguments_are_refused(draw_train, rng) -> None:
    nowhere = TrainLayout(1, Bond.of({"0e": 1}), (Bond.of({"0e": 1}), Bond.of({"1o": 1}), Bond.of({"0e": 1})))
    train = Train.random(nowhere, rng)
    for orthogonalize in (left_orthogonalize, right_orthogonalize):
        with pytest.raises(SpecificationError, match="no path"):
            orthogonalize(train)
    train = draw_train(rng, order=2)
    for center in (2, -1, "tail", 0.5):
        with pytest.raises(SpecificationError, match="'head' or a core"):
            canonicalize(train, center)
    for push in (push_left, push_right):
        with pytest.raises(SpecificationError, match="bond"):
            push(train, 2)
    broken = train.with_core(0, np.full(train.layout.cores[0].size, np.nan))
    for center in (0, 1):
        with pytest.raises(ConvergenceError, match="NaN"):
            canonicalize(right_orthogonalize(broken, 0), HEAD if center == 0 else 1)


def test_order_one_and_one_species() -> None:
    layout = TrainLayout(1, Bond.of({"0e": 2, "1o": 1}), (Bond.of({SCALAR: 3}), Bond.of({"1o": 2})))
    train = Train.random(layout, np.random.default_rng(2))
    for center, rank in (
        (HEAD, 2),
        (0, 1),
    ):  # room to the right: one vector channel, two outputs; to the left: one
        mixed = canonicalize(train, center)
        assert mixed.layout.head_shape == (1, rank)
        assert_same_tensor(mixed, dense_tensor(train))
