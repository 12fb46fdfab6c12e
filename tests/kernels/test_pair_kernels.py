"""Vectors of listed pairs: the kernel equals its reference to the last bit."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from etnpot import reference
from etnpot.kernels import pairs as kernels


def within(module: ModuleType, counts: list[int], share: float, seed: int) -> tuple[Any, ...]:
    """Everything that is written, for random pairs of which a share crosses the boundary, in two ranges of atoms."""
    rng = np.random.default_rng(seed)
    n_atoms, n_pairs = len(counts), sum(counts)
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    neighbor = rng.integers(0, n_atoms, size=n_pairs)
    crossing = np.flatnonzero(rng.uniform(size=n_pairs) < share)
    shift = rng.integers(-2, 3, size=(len(crossing), 3)).astype(np.int32)
    positions, cell = rng.uniform(0.0, 4.0, size=(n_atoms, 3)), 4.0 * np.eye(3) + rng.normal(size=(3, 3))
    given = (first, neighbor, crossing, shift, positions, cell, 9.0)
    kept_first, kept_neighbor = np.full(n_atoms + 1, -1), np.full(n_pairs, -1)
    r_pc, kept = np.full((n_pairs, 3), np.nan), np.zeros(n_pairs, dtype=np.bool_)
    half = n_atoms // 2
    n_half = module.count_within(*given, 0, half)
    written = kept_first, kept_neighbor, r_pc, kept
    end, least = module.pairs_within(*given, half, n_atoms, n_half, n_pairs, *written)
    assert module.pairs_within(*given, 0, half, 0, n_half, *written)[0] == n_half
    return end, least, kept_first, kept_neighbor[:end], r_pc[:end], kept


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("counts", [[], [0], [0, 3, 0, 12, 40]], ids=["no atoms", "alone", "several"])
def test_pairs_within(counts: list[int], share: float) -> None:
    actual, expected = (within(module, counts, share, 3) for module in (kernels, reference.pairs))
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(counts) < 5 or 0 < actual[0] < sum(counts)


def test_a_mask_need_not_be_written() -> None:
    first, neighbor, none = np.array([0, 1]), np.array([0]), np.empty(0, dtype=np.int64)
    shift, r_pc = np.array([[1, 0, 0]], dtype=np.int32), np.empty((1, 3))
    given = (first, neighbor, np.array([0]), shift, np.zeros((1, 3)), 2.0 * np.eye(3), 9.0, 0, 1, 0, 1)
    for module in (kernels, reference.pairs):
        found = module.pairs_within(
            *given, np.empty(1, np.int64), np.empty(1, np.int64), r_pc, none.astype(bool)
        )
        assert found == (1, 4.0)
        np.testing.assert_array_equal(r_pc, [[2.0, 0.0, 0.0]])


def test_farthest_move(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=(2, 30, 3))
    ours, theirs = (module.farthest_move(old, new) for module in (kernels, reference.pairs))
    assert ours == pytest.approx(theirs, rel=1e-14) and ours > 1.0
    assert kernels.farthest_move(old, old + np.array([1.0, 2.0, 3.0])) < 1e-14


@pytest.mark.parametrize("index", [None, -1, 5, -(2**63)])
def test_neighbor_types(index: int | None) -> None:
    neighbor, type_i = np.array([4, 0, 2, 1]), np.array([3, 1, 4, 1, 5])
    if index is not None:
        neighbor[2] = index
    for module in (kernels, reference.pairs):
        type_p = np.full(4, -1)
        assert module.neighbor_types(neighbor, type_i, 1, 4, type_p) == (index is None)
        if index is None:
            np.testing.assert_array_equal(type_p, [-1, 3, 4, 1])


def test_shortest_pair(rng: np.random.Generator) -> None:
    r_pc = rng.normal(size=(40, 3))
    ours, theirs = (module.shortest_pair(r_pc) for module in (kernels, reference.pairs))
    assert ours[0] == theirs[0] and ours[1] == pytest.approx(theirs[1], rel=1e-15)
