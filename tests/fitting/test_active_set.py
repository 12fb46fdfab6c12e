"""MaxVol: against all subsets of few rows, and by what it promises of many."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from etnpot.fitting.active_set import TOLERANCE, ActiveSet, maxvol


def volume(rows: np.ndarray) -> float:
    return float(abs(np.linalg.det(rows)))


def in_blocks(z: np.ndarray, n: int) -> list[tuple[np.ndarray, object]]:
    return [(part, number) for number, part in enumerate(np.array_split(z, n))]


def scale_of(z: np.ndarray) -> float:
    return float(np.sqrt(np.mean(z**2)))


def test_no_coefficient_exceeds_one(rng: np.random.Generator) -> None:
    z = rng.normal(size=(500, 12)) * rng.uniform(0.1, 3.0, size=(500, 1))
    active = maxvol(lambda: in_blocks(z, 7), 12, scale_of(z))
    assert active.is_real
    assert np.abs(active.coefficients(z)).max() <= 1.0 + TOLERANCE + 1e-9
    np.testing.assert_allclose(active.rows_rs @ active.inverse_sr, np.eye(12), atol=1e-10)
    parts = [part for part, _ in in_blocks(z, 7)]
    for row, (block, i) in zip(active.rows_rs, active.labels, strict=True):  # type: ignore[misc]
        np.testing.assert_array_equal(row, parts[block][i])


def test_volume_is_close_to_that_of_the_best_subset(rng: np.random.Generator) -> None:
    for _ in range(20):
        z = rng.normal(size=(12, 3))
        best = max(volume(z[list(chosen)]) for chosen in combinations(range(12), 3))
        active = maxvol(lambda z=z: in_blocks(z, 1), 3, scale_of(z))
        # no exchange of one row makes it larger, and Hadamard bounds what all three could
        for j in range(3):
            for row in z:
                exchanged = active.rows_rs.copy()
                exchanged[j] = row
                assert volume(exchanged) <= (1.0 + TOLERANCE + 1e-9) * volume(active.rows_rs)
        assert best <= 3**1.5 * 1.1 * volume(active.rows_rs)


def test_blocks_may_come_in_any_number(rng: np.random.Generator) -> None:
    z = rng.normal(size=(200, 6))
    for n in (1, 3, 200):
        active = maxvol(lambda n=n: in_blocks(z, n), 6, scale_of(z))
        assert np.abs(active.coefficients(z)).max() <= 1.0 + TOLERANCE + 1e-9


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_unit_of_the_rows_does_not_matter(rng: np.random.Generator, scale: float) -> None:
    z = rng.normal(size=(60, 5))
    one = maxvol(lambda: in_blocks(z, 2), 5, scale_of(z))
    other = maxvol(lambda: in_blocks(scale * z, 2), 5, scale * scale_of(z))
    assert one.labels == other.labels


def test_a_new_row_outside_enters_and_one_inside_does_not(rng: np.random.Generator) -> None:
    active = ActiveSet(np.eye(4), np.eye(4), [0] * 4)
    assert active.absorb(0.9 * np.eye(4), lambda i: "new") == 0
    assert active.absorb(np.array([[0.0, 3.0, 0.1, 0.0]]), lambda i: "new") == 1
    assert active.labels == [0, "new", 0, 0]
    assert active.absorb(np.empty((0, 4)), lambda i: "none") == 0
