"""Vectors of listed pairs: the kernel equals its reference to the last bit."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from etnpot import reference
from etnpot.kernels import pairs as kernels


def within(module: ModuleType, counts: list[int], share: float, seed: int) -> tuple[Any, ...]:
    """Everything that is written, for random pairs of which a share crosses the boundary."""
    rng = np.random.default_rng(seed)
    n_atoms, n_pairs = len(counts), sum(counts)
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    neighbor = rng.integers(0, n_atoms, size=n_pairs)
    crossing = np.flatnonzero(rng.uniform(size=n_pairs) < share)
    shift = rng.integers(-2, 3, size=(len(crossing), 3)).astype(np.int32)
    positions, cell = rng.uniform(0.0, 4.0, size=(n_atoms, 3)), 4.0 * np.eye(3) + rng.normal(size=(3, 3))
    kept_first, kept_neighbor = np.full(n_atoms + 1, -1), np.full(n_pairs, -1)
    r_pc, kept = np.full((n_pairs, 3), np.nan), np.zeros(n_pairs, dtype=np.bool_)
    n_kept = module.pairs_within(
        first, neighbor, crossing, shift, positions, cell, 3.0, kept_first, kept_neighbor, r_pc, kept
    )
    return n_kept, kept_first, kept_neighbor, r_pc, kept


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("counts", [[], [0], [0, 3, 0, 12, 40]], ids=["no atoms", "alone", "several"])
def test_pairs_within(counts: list[int], share: float) -> None:
    actual, expected = (within(module, counts, share, 3) for module in (kernels, reference.pairs))
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(counts) < 5 or 0 < actual[0] < sum(counts)


def test_shortest_pair(rng: np.random.Generator) -> None:
    r_pc = rng.normal(size=(40, 3))
    ours, theirs = (module.shortest_pair(r_pc) for module in (kernels, reference.pairs))
    assert ours[0] == theirs[0] and ours[1] == pytest.approx(theirs[1], rel=1e-15)
