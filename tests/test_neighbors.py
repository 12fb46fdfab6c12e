"""Neighbour lists: against ASE's list and a direct sum over images, along trajectories, and on bad input."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.geometry import complete_cell
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot import neighbors
from etnpot.errors import SpecificationError, StructureError
from etnpot.neighbors import EdgeList, NeighborCache, check_distances, check_structure, neighbor_list


def random_structure(rng: np.random.Generator) -> Atoms:
    """1-20 atoms in a skewed, sometimes tiny cell of any periodicity, partly outside it, rotated anyhow."""
    while True:
        scale = rng.choice([1.5, 3.0, 6.0, 12.0])
        cell = scale * (np.eye(3) + rng.uniform(-0.6, 0.6, (3, 3)))
        if abs(np.linalg.det(cell)) > 0.05 * scale**3:
            break
    cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    n_atoms = rng.integers(1, 21 if scale > 2 else 6)
    positions = rng.uniform(-1.7, 1.7, (n_atoms, 3)) @ cell + rng.choice([0.0, -30.0, 50.0])
    return Atoms(f"Ni{n_atoms}", positions=positions, cell=cell, pbc=rng.random(3) < 0.6)


def edges_of_ase(atoms: Atoms, cutoff: float) -> EdgeList:
    """ASE's pairs in our order; zero vectors completed first, without which ASE misses pairs."""
    cell = complete_cell(atoms.cell.array)
    i, j, shift = primitive_neighbor_list("ijS", atoms.pbc, cell, atoms.positions, cutoff)
    order = np.lexsort((*shift.T[::-1], j, i))
    i, j, shift = i[order], j[order], shift[order]
    r_pc = atoms.positions[j] - atoms.positions[i] + shift @ cell
    first = np.searchsorted(i, np.arange(len(atoms) + 1))
    return EdgeList(first.astype(np.int64), j.astype(np.int64), r_pc, shift.astype(np.int32))


def edges_of_images(atoms: Atoms, cutoff: float) -> set[tuple[int, ...]]:
    """All (i, j, S), by a direct sum over images; needs no cell vector where there is no periodicity."""
    x, pbc = atoms.positions, atoms.pbc
    inverse = np.linalg.pinv(atoms.cell.array[pbc]) if pbc.any() else np.zeros((3, 0))
    spread = np.ptp(x @ inverse, axis=0)
    reach = np.zeros(3, dtype=int)
    reach[pbc] = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + spread)
    found = set()
    for shift in itertools.product(*(range(-m, m + 1) for m in reach)):
        d = np.linalg.norm(x[None] + shift @ atoms.cell.array - x[:, None], axis=-1)
        found |= {(int(i), int(j), *shift) for i, j in np.argwhere(d < cutoff) if i != j or any(shift)}
    return found


def assert_same(one: EdgeList, other: EdgeList, tolerance: float = 0.0) -> None:
    """The same edges in the same order; vectors to the given tolerance in Å, by default to the last bit."""
    np.testing.assert_array_equal(one.first, other.first)
    np.testing.assert_array_equal(one.neighbor, other.neighbor)
    np.testing.assert_allclose(one.r_pc, other.r_pc, rtol=0, atol=tolerance)
    if one.shift is not None and other.shift is not None:
        np.testing.assert_array_equal(one.shift, other.shift)


def as_set(edges: EdgeList) -> set[tuple[int, ...]]:
    assert edges.shift is not None
    rows = np.column_stack([edges.center, edges.neighbor, edges.shift])
    return {tuple(row) for row in rows.tolist()}


# ---------------------------------------------------------------------------------- against independent lists


def test_agrees_with_ase_on_200_random_cells(rng: np.random.Generator) -> None:
    n_pairs = 0
    for _ in range(200):
        atoms = random_structure(rng)
        cutoff = rng.uniform(1.0, 4.5)
        before = atoms.copy()
        edges = neighbor_list(atoms, cutoff)
        edges.validate()
        assert_same(edges, edges_of_ase(atoms, cutoff), tolerance=1e-11)
        assert atoms == before
        n_pairs += edges.n_pairs
    assert n_pairs > 10_000


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
def test_vectors_along_open_directions_may_be_zero_or_dependent(
    pbc: tuple[bool, bool, bool], rng: np.random.Generator
) -> None:
    for replacement in (0.0, 1.0):  # an open vector is zero, or equal to the first periodic one
        cell = np.array([[3.0, 1.0, 0.5], [0.2, 2.5, -1.0], [1.0, -0.3, 4.0]])
        closed = cell[list(pbc)]
        cell[~np.array(pbc)] = replacement * (closed[0] if len(closed) else 1.0)
        atoms = Atoms("Ni6", rng.uniform(-4, 4, (6, 3)), cell=cell, pbc=pbc)
        edges = neighbor_list(atoms, 3.5)
        assert as_set(edges) == edges_of_images(atoms, 3.5)
        assert edges.n_pairs > 0


def test_skewed_slab_on_which_ase_without_a_completed_cell_misses_pairs() -> None:
    atoms = Atoms(
        "Ni2", [[1, 0.5, -1], [2, 1.5, 0]], cell=[[0, 0, 0], [1, 3, 0], [3, 1, 1]], pbc=(False, True, True)
    )
    assert as_set(neighbor_list(atoms, 3.2)) == edges_of_images(atoms, 3.2)


@pytest.mark.parametrize("n_atoms", [40, 400])
def test_agrees_with_ase_where_cells_are_divided_into_bins(n_atoms: int, rng: np.random.Generator) -> None:
    length = (n_atoms / 0.05) ** (1 / 3)
    cell = np.diag([0.5, 1.0, 2.0]) * length + rng.uniform(-0.2, 0.2, (3, 3)) * length
    for pbc in [(True, True, True), (True, False, True), (False, False, True)]:
        atoms = Atoms(f"Ni{n_atoms}", rng.random((n_atoms, 3)) @ cell, cell=cell, pbc=pbc)
        assert_same(neighbor_list(atoms, 4.0), edges_of_ase(atoms, 4.0), tolerance=1e-11)


def test_known_shells_of_fcc() -> None:
    a = 3.52
    one = bulk("Ni", "fcc", a=a)
    for cutoff, count in [(0.71 * a, 12), (1.01 * a, 18), (1.23 * a, 42), (1.42 * a, 54)]:
        edges = neighbor_list(one, cutoff)
        assert edges.n_pairs == count
        assert (edges.neighbor == 0).all()
        assert edges.shift is not None and edges.shift.any(axis=1).all()
    assert neighbor_list(fcc111("Ni", (1, 1, 2), a=a), 0.71 * a).n_pairs == 2 * (6 + 3)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_list_is_symmetric_strict_and_sorted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_structure(rng)
    cutoff = rng.uniform(1.0, 3.0)
    edges = neighbor_list(atoms, cutoff)
    assert edges.shift is not None
    assert (np.linalg.norm(edges.r_pc, axis=1) < cutoff * (1 + 1e-15)).all()
    rows = np.column_stack([edges.center, edges.neighbor, edges.shift])
    assert (np.lexsort(rows.T[::-1]) == np.arange(len(rows))).all()
    mirrored = np.column_stack([edges.neighbor, edges.center, -edges.shift])
    order = np.lexsort(mirrored.T[::-1])
    np.testing.assert_array_equal(mirrored[order], rows)
    np.testing.assert_array_equal(-edges.r_pc[order], edges.r_pc)  # to the last bit
    # moving atoms by cell vectors renames images and nothing else
    hop = np.where(atoms.pbc, rng.integers(-3, 4, (len(atoms), 3)), 0)
    moved = atoms.copy()
    moved.positions += hop @ atoms.cell.array
    away = neighbor_list(moved, cutoff)
    assert away.shift is not None
    np.testing.assert_array_equal(away.shift - hop[away.center] + hop[away.neighbor], edges.shift)
    np.testing.assert_allclose(away.r_pc, edges.r_pc, rtol=0, atol=1e-11)


# ---------------------------------------------------------------------------------------------- special cases


def test_cutoff_is_strict() -> None:
    pair = Atoms("Ni2", [[0, 0, 0], [0, 0, 3.0]])
    assert neighbor_list(pair, 3.0).n_pairs == 0
    assert neighbor_list(pair, np.nextafter(3.0, 4.0)).n_pairs == 2


def test_one_atom_and_no_neighbours() -> None:
    for atoms in (
        Atoms("Ni"),
        Atoms("Ni", cell=[20, 20, 20], pbc=True),
        Atoms("Ni2", [[0, 0, 0], [0, 0, 9]]),
    ):
        edges = neighbor_list(atoms, 5.0)
        assert (edges.n_atoms, edges.n_pairs) == (len(atoms), 0)
        assert edges.r_pc.shape == (0, 3) and edges.center.shape == (0,)
        check_distances(edges)


def test_molecule_without_cell() -> None:
    ethanol = molecule("CH3CH2OH")
    assert not ethanol.cell.any()
    n = len(ethanol)
    assert neighbor_list(ethanol, 10.0).n_pairs == n * (n - 1)
    assert as_set(neighbor_list(ethanol, 1.6)) == edges_of_images(ethanol, 1.6)


def test_cell_much_shorter_than_cutoff() -> None:
    atoms = Atoms("Ni2", [[0, 0, 0], [0.3, 0.4, 0.5]], cell=np.eye(3), pbc=True)
    edges = neighbor_list(atoms, 6.0)
    assert_same(edges, edges_of_ase(atoms, 6.0), tolerance=1e-11)
    assert edges.n_pairs == pytest.approx(4 * 4 / 3 * np.pi * 6**3, rel=0.05)


def test_atoms_beyond_one_block_of_pairs() -> None:
    """More pairs than one block holds, and one row longer than a block."""
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True).repeat((6, 6, 6))
    atoms.rattle(0.05, seed=3)
    edges = neighbor_list(atoms, 4.9)
    assert edges.n_pairs > neighbors._BLOCK
    assert_same(edges, edges_of_ase(atoms, 4.9), tolerance=1e-11)
    dense = neighbor_list(Atoms("Ni", cell=[0.5, 0.5, 0.5], pbc=True), 10.2)
    assert dense.n_pairs > neighbors._BLOCK
    assert dense.n_pairs == pytest.approx(8 * 4 / 3 * np.pi * 10.2**3, rel=0.02)
    np.testing.assert_allclose(dense.r_pc.sum(axis=0), 0.0, atol=1e-9)


def test_far_from_the_origin() -> None:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True)
    moved = atoms.copy()
    moved.positions[1] += 10_000 * atoms.cell[0] - 333 * atoms.cell[2]
    np.testing.assert_allclose(neighbor_list(moved, 4.0).r_pc, neighbor_list(atoms, 4.0).r_pc, atol=1e-8)


# -------------------------------------------------------------------------------------------------- edge list


def test_edge_list_center_and_repr() -> None:
    edges = EdgeList(np.array([0, 2, 2, 3]), np.array([1, 2, 0]), np.ones((3, 3)))
    np.testing.assert_array_equal(edges.center, [0, 0, 2])
    assert edges.center.dtype == np.int64
    assert edges.center is edges.center
    assert repr(edges) == "EdgeList(n_atoms=3, n_pairs=3)"
    assert edges.shift is None
    assert_same(pickle.loads(pickle.dumps(edges)), edges)
    assert EdgeList(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros((0, 3))).n_atoms == 0


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("first", {"first": np.array([0.0, 3.0])}),
        ("first", {"first": np.zeros(0, dtype=np.int64)}),
        ("first", {"first": np.array([0, 2])}),
        ("first", {"first": np.array([1, 3])}),
        ("neighbor", {"neighbor": np.zeros(3, dtype=np.int32)}),
        ("r_pc", {"r_pc": np.ones((2, 3))}),
        ("r_pc", {"r_pc": np.ones((3, 3), dtype=np.float32)}),
        ("shift", {"shift": np.ones((3, 3))}),
    ],
)
def test_edge_list_refuses_wrong_arrays(name: str, arrays: dict[str, np.ndarray]) -> None:
    good = {"first": np.array([0, 3]), "neighbor": np.zeros(3, dtype=np.int64), "r_pc": np.ones((3, 3))}
    with pytest.raises(StructureError, match=rf"EdgeList\.{name} must"):
        EdgeList(**(good | arrays))


def test_edge_list_holds_good_arrays_and_copies_odd_ones(rng: np.random.Generator) -> None:
    """Kernels meet one kind of array, whatever a host program hands over."""
    good = {
        "first": np.array([0, 3]),
        "neighbor": np.zeros(3, dtype=np.int64),
        "r_pc": rng.normal(size=(3, 3)),
    }
    edges = EdgeList(**good)
    for name, array in good.items():
        assert getattr(edges, name) is array
    frozen = {name: array.copy() for name, array in good.items()}
    for array in frozen.values():
        array.flags.writeable = False
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in good.items()}
    swapped = {name: array.astype(array.dtype.newbyteorder()) for name, array in good.items()}
    for odd in (frozen, strided, swapped, good | {"r_pc": np.asfortranarray(good["r_pc"])}):
        edges = EdgeList(**odd)
        for name, array in good.items():
            plain = getattr(edges, name)
            np.testing.assert_array_equal(plain, array, strict=True)
            assert plain.flags.c_contiguous and plain.flags.writeable and plain.dtype.isnative


def test_edge_list_validate_looks_at_the_contents() -> None:
    first, neighbor, r_pc = np.array([0, 1, 2]), np.array([1, 0]), np.ones((2, 3))
    EdgeList(first, neighbor, r_pc).validate()
    nan = r_pc.copy()
    nan[1, 2] = np.nan
    for bad, name in [
        (EdgeList(np.array([0, 3, 2]), neighbor, r_pc), "first must not decrease; entry 1"),
        (EdgeList(first, np.array([-1, 0]), r_pc), "neighbor must not be negative; entry 0"),
        (EdgeList(first, neighbor, nan), "r_pc must be finite; entry 1"),
    ]:
        with pytest.raises(StructureError, match=name):
            bad.validate()


# ------------------------------------------------------------------------------------------------------ cache


def test_cache_equals_fresh_list_along_a_walk(rng: np.random.Generator) -> None:
    """Random walk with atoms wrapped back now and then: the same bits as a new list, with few searches."""
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 2, 1))
    cache = NeighborCache(4.0, skin=0.6, shifts=True)
    for step in range(60):
        atoms.positions += rng.normal(scale=0.02, size=(len(atoms), 3))
        if step % 17 == 16:
            atoms.wrap()
        edges = cache.edges(atoms)
        fresh = neighbor_list(atoms, 4.0)
        assert_same(edges, fresh)
        assert edges.shift is not None
    assert 3 < cache.n_builds < 30


def test_cache_equals_fresh_list_under_strain(rng: np.random.Generator) -> None:
    n_builds = []
    for pbc in [True, (True, True, False), (False, True, False)]:
        atoms = fcc111("Ni", (2, 2, 3), vacuum=None)
        atoms.set_cell(complete_cell(atoms.cell.array) * [[1], [1], [7]] + 0.1)
        atoms.pbc = pbc
        cache = NeighborCache(4.0, skin=1.0)
        for _ in range(30):
            strain = np.eye(3) + rng.normal(scale=0.02, size=(3, 3))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            atoms.rattle(0.01, rng=rng)
            assert_same(cache.edges(atoms), neighbor_list(atoms, 4.0))
        n_builds.append(cache.n_builds)
    assert max(n_builds) < 25 and n_builds[0] > 1


def test_cache_never_reuses_a_list_that_may_lack_a_pair(rng: np.random.Generator) -> None:
    """Adversary: one atom just outside the skin approaches as the cell shrinks around it."""
    n_reused = 0
    for _ in range(100):
        gap = 4.0 + rng.uniform(0.0, 1.0)
        atoms = Atoms("Ni2", [[0, 0, 0], [0, 0, gap]], cell=[9, 9, gap + 5.5], pbc=True)
        cache = NeighborCache(4.0, skin=0.5)
        cache.edges(atoms)
        atoms.set_cell(atoms.cell.array * rng.uniform(0.85, 1.02), scale_atoms=True)
        atoms.positions[1] -= [0, 0, rng.uniform(0, 0.3)]
        assert_same(cache.edges(atoms), neighbor_list(atoms, 4.0))
        n_reused += cache.n_builds == 1
    assert n_reused > 5


def test_cache_counts_searches() -> None:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True).repeat(2)
    cache = NeighborCache(4.0, skin=0.5)
    assert cache.n_builds == 0

    def builds(changed: Atoms) -> int:
        before = cache.n_builds
        assert_same(cache.edges(changed), neighbor_list(changed, 4.0))
        return cache.n_builds - before

    assert builds(atoms) == 1
    assert builds(atoms) == 0  # unchanged
    atoms.positions[3, 0] += 0.24
    assert builds(atoms) == 0  # less than half the skin
    atoms.positions[3, 0] += 0.04
    assert builds(atoms) == 1  # more, counted from the search on
    atoms.positions += [1.0, 2.0, 3.0]
    assert builds(atoms) == 0  # a common translation
    atoms.symbols[0] = "Cu"
    assert builds(atoms) == 0  # elements are not part of the list
    atoms.positions[0] += atoms.cell[1]
    assert builds(atoms) == 1  # another image
    atoms.pbc = (True, True, False)
    assert builds(atoms) == 1
    atoms.set_cell(atoms.cell.array * [[1], [1], [2]])
    assert builds(atoms) == 0  # only the vector along an open direction
    atoms.set_cell(atoms.cell.array * [[1.01], [1], [1]], scale_atoms=True)
    assert builds(atoms) == 0  # a small strain
    atoms.set_cell(atoms.cell.array * [[0.85], [1], [1]], scale_atoms=True)
    assert builds(atoms) == 1  # a large one
    assert builds(atoms[:-1]) == 1
    cache.reset()
    assert cache.n_builds == 0
    assert builds(atoms) == 1


def test_cache_without_skin_reuses_the_same_structure_only() -> None:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True)
    cache = NeighborCache(4.0, skin=0)
    for expected, step in [(1, 0.0), (1, 0.0), (2, 1e-9), (2, 0.0)]:
        atoms.positions[0, 0] += step
        assert_same(cache.edges(atoms), neighbor_list(atoms, 4.0))
        assert cache.n_builds == expected


def test_arrays_from_the_cache_belong_to_the_caller() -> None:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True)
    for skin in (0.0, 0.5):
        cache = NeighborCache(4.0, skin=skin, shifts=True)
        expected = neighbor_list(atoms, 4.0)
        for _ in range(2):
            edges = cache.edges(atoms)
            assert_same(edges, expected)
            assert edges.shift is not None
            for array in (edges.first, edges.neighbor, edges.r_pc, edges.shift):
                array[:] = 0
        original = atoms.positions.copy()
        atoms.positions[:] = original  # the cache holds its own copy of what it compares with
        assert_same(cache.edges(atoms), expected)


def test_cache_pickles_and_copies_without_its_list() -> None:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True)
    cache = NeighborCache(4.0, skin=0.3, shifts=True)
    edges = cache.edges(atoms)
    for other in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache), copy.copy(cache)):
        assert (other.cutoff, other.skin, other.n_builds) == (4.0, 0.3, 0)
        assert_same(other.edges(atoms), edges)
        assert other.n_builds == 1
    assert cache.n_builds == 1
    assert len(pickle.dumps(cache)) < 500
    assert "skin=0.3" in repr(cache)


# ----------------------------------------------------------------------------------------------------- errors


def bad_structures() -> dict[str, tuple[Atoms, str]]:
    nan = Atoms("Ni3", np.zeros((3, 3)))
    nan.positions[1, 2] = np.nan
    infinite = Atoms("Ni2", [[0, 0, 0], [0, np.inf, 0]])
    return {
        "empty": (Atoms(), "at least one atom"),
        "nan": (nan, r"atom 1 is at \[0.0, 0.0, nan\]"),
        "inf": (infinite, "atom 1 is at"),
        "nan cell": (Atoms("Ni", cell=[1, 1, np.nan]), "cell must be finite"),
        "no cell": (Atoms("Ni", pbc=True), "cell vector a is zero"),
        "zero vector": (Atoms("Ni", cell=[3, 0, 3], pbc=(True, True, False)), "cell vector b is zero"),
        "flat": (Atoms("Ni", cell=[[3, 0, 0], [0, 3, 0], [1, 2, 0]], pbc=True), "linearly independent"),
        "parallel": (
            Atoms("Ni", cell=[[3, 0, 0], [0, 3, 0], [-9, 0, 0]], pbc=(1, 0, 1)),
            "directions a, c must be linearly independent",
        ),
    }


@pytest.mark.parametrize("name", list(bad_structures()))
def test_bad_structures_are_refused_before_any_number_is_returned(name: str) -> None:
    atoms, message = bad_structures()[name]
    cache = NeighborCache(4.0)
    for call in (check_structure, lambda atoms: neighbor_list(atoms, 4.0), cache.edges):
        with pytest.raises(StructureError, match=message):
            call(atoms)
    assert cache.n_builds == 0


def test_nan_within_a_trajectory_is_refused_although_a_list_is_held() -> None:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True)
    cache = NeighborCache(4.0)
    cache.edges(atoms)
    atoms.positions[2] = np.nan
    with pytest.raises(StructureError, match="atom 2"):
        cache.edges(atoms)


def test_good_structures_pass() -> None:
    for atoms in (
        Atoms("Ni"),
        Atoms("Ni", cell=[3, 3, 0], pbc=(True, True, False)),
        Atoms("Ni", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=(True, False, True)),
        Atoms("Ni", cell=np.diag([3, 3, -3]), pbc=True),
        Atoms("Ni", cell=[[3, 0, 0], [300, 3, 0], [0, 0, 3]], pbc=True),
    ):
        check_structure(atoms)
        neighbor_list(atoms, 3.5).validate()


@pytest.mark.parametrize("cell", [np.diag([1e-3, 1e-3, 1e-3]), [[1e-5, 0, 0], [0, 9, 0], [0, 0, 9]]])
def test_absurdly_small_cells_are_refused(cell: object) -> None:
    with pytest.raises(StructureError, match="cell is too small"):
        neighbor_list(Atoms("Ni", cell=cell, pbc=True), 5.0)


def test_positions_without_precision_are_refused() -> None:
    atoms = Atoms("Ni2", [[0, 0, 0], [1e12, 0, 0]], cell=[3, 3, 3], pbc=True)
    with pytest.raises(StructureError, match="atom 1 is more than"):
        neighbor_list(atoms, 3.0)


def test_more_pairs_than_an_integer_can_name_are_refused() -> None:
    with pytest.raises(StructureError, match="more than one process can list"):
        neighbors._Packing.for_ranges(2**28, [1, 1, 30])


def test_coinciding_atoms_are_named() -> None:
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True)
    check_distances(neighbor_list(atoms, 4.0))
    atoms.positions[3] = atoms.positions[1] + atoms.cell[0] + 1e-10
    with pytest.raises(StructureError, match=r"atoms (1 and 3|3 and 1) are at one spot"):
        check_distances(neighbor_list(atoms, 4.0))
    with pytest.raises(StructureError, match=r"atoms 0 and 1 are at one spot: 0\.00e"):
        check_distances(neighbor_list(Atoms("Ni2", np.ones((2, 3))), 4.0))
    itself = EdgeList(np.array([0, 0, 1]), np.array([1]), np.full((1, 3), 1e-9))
    with pytest.raises(StructureError, match="atom 1 and its own periodic image"):
        check_distances(itself)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_cutoff_must_be_positive(cutoff: float) -> None:
    for call in (lambda: neighbor_list(Atoms("Ni"), cutoff), lambda: NeighborCache(cutoff)):
        with pytest.raises(SpecificationError, match="cutoff must be a finite positive number"):
            call()


def test_skin_must_not_be_negative() -> None:
    with pytest.raises(SpecificationError, match="skin must be a finite number >= 0"):
        NeighborCache(4.0, skin=-0.1)


def test_import_is_light() -> None:
    """The search library and ASE are loaded at the first search, not with the module."""
    code = (
        "import sys, etnpot.neighbors; print({'ase', 'vesin', 'scipy', 'numba', 'sympy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------- atoms that have flown away


def images(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Sorted lengths of all pairs, by trying images along the periodic axes."""
    ranges = [range(-4, 5) if periodic else (0,) for periodic in atoms.pbc]
    shifts = np.array(list(itertools.product(*ranges))) @ atoms.cell.array
    r = atoms.positions[None, :, None] - atoms.positions[:, None, None] + shifts
    lengths = np.linalg.norm(r, axis=-1).ravel()
    return np.sort(lengths[(lengths < cutoff) & (lengths > 1e-8)])


@pytest.mark.parametrize("away", [1e2, 1e4, 1e6, 2e8])
@pytest.mark.parametrize(
    "pbc", [(True, True, False), (False, False, False), (True, True, True), (False, True, False)]
)
def test_atoms_far_apart_are_listed(away: float, pbc: tuple[bool, bool, bool]) -> None:
    # the bins of the search overflowed: the process died of SIGFPE with one atom 10^6 Å from the others
    atoms = fcc111("Cu", (1, 2, 2), vacuum=4.0)
    atoms += Atoms("Cu2", [[0.0, 0.0, away], [0.0, 1.0, away + 2.0]])
    atoms.pbc = pbc
    if pbc[2]:
        atoms.cell[2] = [0.3, 0.2, 3.0 * away]
    edges = neighbor_list(atoms, 4.0)
    found = np.sort(np.linalg.norm(edges.r_pc, axis=1))
    np.testing.assert_allclose(found, images(atoms, 4.0), atol=1e-5)


def test_a_cell_of_astronomic_length_is_refused() -> None:
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 1e12]])
    with pytest.raises(StructureError, match="lost their precision"):
        neighbor_list(atoms, 4.0)


def test_a_long_file_of_atoms_is_listed_or_refused() -> None:
    def chain(n: int) -> Atoms:
        return Atoms(f"Cu{n}", positions=np.outer(np.arange(n), [0.0, 0.0, 7.0]))

    assert neighbor_list(chain(20_000), 8.0).n_pairs == 2 * 19_999
    with pytest.raises(StructureError, match="divide it"):
        neighbor_list(chain(80_000), 4.0)


def test_nearly_parallel_cell_vectors_are_refused_at_once() -> None:
    # the search went through all images between two planes 10⁻⁵ Å apart
    atoms = Atoms("Cu", cell=[[4.0, 0.3, -0.7], [0.3, 4.9, 1.8], [4.0e5 - 3.0, 0.3e5, -0.7e5]], pbc=True)
    with pytest.raises(StructureError, match=r"too skewed.*minkowski_reduce"):
        neighbor_list(atoms, 4.0)
    atoms.set_cell([[4.0, 0.3, -0.7], [0.3, 4.9, 1.8], [4.0 * 20 - 3.0, 0.3 * 20, -0.7 * 20 + 5.0]])
    reduced = Atoms("Cu", cell=atoms.cell.minkowski_reduce()[0], pbc=True)
    assert neighbor_list(atoms, 6.0).n_pairs == neighbor_list(reduced, 6.0).n_pairs > 0


@pytest.mark.parametrize("length", [1e12, 1e150, 1e300])
def test_cells_without_any_digit_left_are_refused(length: float) -> None:
    atoms = Atoms("Cu", cell=[[0, length, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], pbc=True)
    with pytest.raises(StructureError):
        neighbor_list(atoms, 4.0)
