"""Memory that is used again: arrays by name, and calculations that share one."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import etnpot
from etnpot.neighbors import NeighborCache, neighbor_list
from etnpot.workspace import Workspace


def test_an_array_is_the_memory_of_the_last_one_of_its_name() -> None:
    space = Workspace()
    first = space.empty("a", (100, 3))
    assert first.shape == (100, 3) and first.dtype == np.float64 and first.flags.c_contiguous
    assert np.shares_memory(space.empty("a", (101, 3)), first)  # there is some room
    assert np.shares_memory(space.empty("a", (300,), np.int64), first)
    assert not np.shares_memory(space.empty("b", (100, 3)), first)
    assert not np.shares_memory(space.empty("a", (200, 3)), first)


def test_memory_far_too_large_is_given_back() -> None:
    space = Workspace()
    large = space.empty("a", (10_000_000,))
    assert np.shares_memory(space.empty("a", (1_000_000,)), large)
    assert not np.shares_memory(space.empty("a", (10,)), large)
    assert space.empty("a", (0, 3)).shape == (0, 3)


def test_copies_and_pickles_are_empty() -> None:
    space = Workspace()
    held = space.empty("a", (1000,))
    for other in (copy.copy(space), copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert not np.shares_memory(other.empty("a", (1000,)), held)
    assert len(pickle.dumps(space)) < 200


def crystal(n: int, seed: int) -> Atoms:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True).repeat(n)
    atoms.rattle(0.05, seed=seed)
    return atoms


def test_the_cache_writes_its_edges_into_the_workspace() -> None:
    cache = NeighborCache(4.0, shifts=True, workspace=Workspace())
    before = cache.edges(crystal(2, 0))
    after = cache.edges(crystal(2, 1))
    assert np.shares_memory(before.r_pc, after.r_pc)
    expected = neighbor_list(crystal(2, 1), 4.0)
    np.testing.assert_array_equal(after.r_pc, expected.r_pc)
    np.testing.assert_array_equal(after.neighbor, expected.neighbor)
    other = copy.copy(cache).edges(crystal(2, 1))
    assert not np.shares_memory(other.r_pc, after.r_pc)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit_of_large_cells(threads: int) -> None:
    atoms = crystal(8, 0)  # 2,048 atoms: more than one range of every kind
    alone, shared = NeighborCache(3.0, shifts=True), NeighborCache(3.0, shifts=True)
    expected, edges = alone.edges(atoms), shared.edges(atoms, threads=threads)
    for name in ("first", "neighbor", "r_pc", "shift"):
        np.testing.assert_array_equal(getattr(edges, name), getattr(expected, name))
    assert (
        edges.shortest
        == expected.shortest
        == pytest.approx(np.linalg.norm(edges.r_pc, axis=1).min(), rel=1e-15)
    )
    potential = etnpot.ETN("Ni", cutoff=3.0, order=2, l_max=1, seed=0)
    one, several = (potential.evaluate(expected, atoms.numbers, threads=n) for n in (1, threads))
    np.testing.assert_array_equal(several.forces, one.forces)
    np.testing.assert_array_equal(several.virial_icc, one.virial_icc)
    assert np.abs(one.forces.sum(axis=0)).max() < 1e-10


def test_an_evaluation_uses_the_memory_of_the_last() -> None:
    potential, space = etnpot.ETN("Ni", cutoff=4.0, order=2, l_max=1, seed=0), Workspace()
    found = []
    for seed in (0, 1):
        atoms = crystal(2, seed)
        edges = neighbor_list(atoms, 4.0)
        found.append(potential.evaluate(edges, atoms.numbers, workspace=space))
        expected = potential.evaluate(edges, atoms.numbers)
        np.testing.assert_array_equal(found[-1].forces, expected.forces)
    assert np.shares_memory(found[0].dE_dr_pc, found[1].dE_dr_pc)
