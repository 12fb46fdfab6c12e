"""The validation split: stratified, reproducible, and without near copies on both sides."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot.errors import SpecificationError
from etnpot.fitting.dataset import DataSet, configuration_digest
from etnpot.fitting.split import near_copies, split
from etnpot.io.structures import Labelled


def cell(
    rng: np.random.Generator, group: str | None = None, symbol: str = "Cu", rattle: float = 0.3
) -> Labelled:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[:] = symbol
    atoms.positions += rattle * rng.standard_normal((4, 3))
    return Labelled(atoms, energy=float(rng.normal()), group=group)


def digests(dataset: DataSet) -> set[bytes]:
    return {configuration_digest(c) for c in dataset}


def test_every_group_contributes_its_share(rng: np.random.Generator) -> None:
    sizes = {"hot": 60, "cold": 30, "surface": 12, "single": 1}
    dataset = DataSet(cell(rng, group) for group, n in sizes.items() for _ in range(n))
    train, valid = split(dataset, 0.1, seed=3)
    assert len(train) + len(valid) == len(dataset)
    assert digests(train) | digests(valid) == digests(dataset)
    assert valid.groups == {"cold": 3, "hot": 6, "surface": 1}
    assert "single" in train.groups
    _, valid = split(dataset, 0.5)
    assert valid.groups == {"cold": 15, "hot": 31, "surface": 6}


def test_order_and_file_do_not_matter_but_the_seed_does(rng: np.random.Generator) -> None:
    dataset = DataSet(cell(rng, "ab"[k % 2]) for k in range(40))
    _, valid = split(dataset, 0.2, seed=1)
    shuffled = DataSet(
        dataclasses.replace(dataset[int(k)], source="elsewhere", index=0)
        for k in rng.permutation(len(dataset))
    )
    _, again = split(shuffled, 0.2, seed=1)
    assert digests(again) == digests(valid) and len(valid) == 8
    _, other = split(dataset, 0.2, seed=2)
    assert digests(other) != digests(valid)


def test_near_copies_are_never_divided(rng: np.random.Generator) -> None:
    """A jittered copy, one wrapped to another image and one with another group follow their original."""
    originals = [cell(rng, "a") for _ in range(30)]
    copies = []
    for c in originals:
        jittered, wrapped = c.atoms.copy(), c.atoms.copy()
        jittered.positions += 0.003 * rng.uniform(-1, 1, (4, 3))
        wrapped.positions += rng.integers(-2, 3, (4, 3)) @ wrapped.cell.array
        copies += [dataclasses.replace(c, atoms=jittered), dataclasses.replace(c, atoms=wrapped, group="b")]
    dataset = DataSet([*originals, *copies])
    families = near_copies(dataset, 0.02)
    assert sorted(map(len, families)) == [3] * 30
    train, valid = split(dataset, 0.2)
    assert 0 < len(valid) <= 18
    names = {id(c.atoms): k for k, family in enumerate(families) for c in (dataset[i] for i in family)}
    assert not {names[id(c.atoms)] for c in train} & {names[id(c.atoms)] for c in valid}


def test_near_copies_need_the_same_elements_and_cell(rng: np.random.Generator) -> None:
    c = cell(rng)
    swapped, strained, molecule = c.atoms.copy(), c.atoms.copy(), c.atoms.copy()
    swapped.numbers[0] = 28
    strained.set_cell(strained.cell.array * 1.02)
    molecule.pbc = False
    far = c.atoms.copy()
    far.positions[2, 1] += 0.1
    family = [c, *(dataclasses.replace(c, atoms=a) for a in (swapped, strained, molecule, far))]
    assert sorted(map(len, near_copies(family, 0.02))) == [1] * 5
    assert sorted(map(len, near_copies([c, dataclasses.replace(c)], 0.02))) == [2]


def test_molecules_without_a_cell(rng: np.random.Generator) -> None:
    molecules = [Labelled(Atoms("OH2", rng.standard_normal((3, 3))), energy=0.0) for _ in range(10)]
    near = molecules[0].atoms.copy()
    near.positions += 0.005
    assert len(near_copies([*molecules, Labelled(near, energy=0.0)], 0.02)) == 10


def test_trajectory_of_near_copies_is_divided_with_a_note(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    first = cell(rng, "md")
    frames = [first]
    for _ in range(19):
        atoms = frames[-1].atoms.copy()
        atoms.positions += 0.01 * rng.uniform(-1, 1, (4, 3))
        frames.append(dataclasses.replace(first, atoms=atoms))
    with caplog.at_level(logging.INFO, logger="etnpot"):
        train, valid = split(DataSet(frames), 0.1)
    assert (len(train), len(valid)) == (18, 2)
    assert "near copies" in caplog.text


def test_identical_configurations_stay_together_even_then(rng: np.random.Generator) -> None:
    dataset = DataSet([cell(rng, "a")] * 10)
    train, valid = split(dataset, 0.2)
    assert (len(train), len(valid)) == (10, 0)


def test_free_atoms_and_rare_elements_stay_in_the_training_set(rng: np.random.Generator) -> None:
    free = [Labelled(Atoms(s, np.zeros((1, 3))), energy=0.0, group="free") for s in ("Cu", "Ni", "Au", "Ag")]
    rare = cell(rng, "rare", "Pt")
    dataset = DataSet([*free, rare, *(cell(rng, "rare") for _ in range(3))])
    for seed in range(10):
        train, valid = split(dataset, 0.4, seed=seed)
        valid.check_against(train)
        assert "free" not in valid.groups and len(valid) > 0


def test_a_group_of_copies_of_another_keeps_one_in_the_training_set(rng: np.random.Generator) -> None:
    originals = [cell(rng, "a") for _ in range(10)]
    dataset = DataSet([*originals, dataclasses.replace(originals[0], group="b")])
    for seed in range(10):
        train, valid = split(dataset, 0.5, seed=seed)
        assert train.groups["b"] == 1 and len(valid) > 0


def test_edge_cases(rng: np.random.Generator) -> None:
    dataset = DataSet(cell(rng) for _ in range(5))
    assert list(map(len, split(dataset, 0.0))) == [5, 0]
    assert list(map(len, split(dataset, 0.01))) == [4, 1]
    assert list(map(len, split(dataset[:1], 0.5))) == [1, 0]
    assert list(map(len, split(DataSet(), 0.5))) == [0, 0]
    assert list(map(len, split(dataset, 0.4, by="random"))) == [3, 2]
    for bad in ({"fraction": 1.0}, {"fraction": -0.1}, {"fraction": np.nan}, {"by": "file"}):
        with pytest.raises(SpecificationError):
            split(dataset, **bad)
    with pytest.raises(SpecificationError, match="duplicate_tolerance"):
        split(dataset, duplicate_tolerance=-1.0)


def test_singular_cells_do_not_break_the_comparison(rng: np.random.Generator) -> None:
    c = cell(rng)
    flat = c.atoms.copy()
    flat.set_cell([[1, 0, 0], [2, 0, 0], [0, 0, 3]])
    flats = [dataclasses.replace(c, atoms=flat), dataclasses.replace(c, atoms=flat.copy())]
    assert len(near_copies([c, *flats], 0.02)) == 2


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.floats(0.01, 0.9),
    st.integers(0, 5),
)
def test_quotas_hold_for_any_sizes(sizes: list[int], fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dataset = DataSet(cell(rng, f"g{k}") for k, n in enumerate(sizes) for _ in range(n))
    train, valid = split(dataset, fraction, seed=seed)
    assert len(train) + len(valid) == len(dataset)
    assert set(train.groups) == set(dataset.groups)
    for name, n in dataset.groups.items():
        assert valid.groups.get(name, 0) <= min(np.floor(fraction * n) + 1, n - 1)
