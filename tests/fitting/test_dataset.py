"""The data set: counts, hash, table, and the reference energies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot.errors import DataError, SpeciesError, SpecificationError
from etnpot.fitting.dataset import DataSet, configuration_digest, is_isolated_atom, reference_energies
from etnpot.io.structures import Labelled

EXACT = {28: -5.5, 46: -3.25, 79: -2.0}


def alloy(rng: np.random.Generator, numbers: list[int], **labels: object) -> Atoms:
    """A rattled fcc cell of the given elements whose energy is the sum of EXACT."""
    atoms = bulk("Cu", cubic=True)
    atoms.numbers = numbers
    atoms.positions += 0.05 * rng.standard_normal((4, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=sum(EXACT[z] for z in numbers), **labels)
    return atoms


@pytest.fixture
def dataset(rng: np.random.Generator) -> DataSet:
    forces = rng.standard_normal((4, 3))
    return DataSet.from_atoms(
        [
            alloy(rng, [28, 28, 28, 28], forces=forces, stress=np.arange(6.0)),
            alloy(rng, [28, 46, 46, 79], forces=forces),
            alloy(rng, [79, 79, 46, 79]),
            alloy(rng, [46, 28, 46, 79]),
        ]
    )


def test_counts(dataset: DataSet) -> None:
    assert (len(dataset), dataset.n_atoms) == (4, 16)
    assert (dataset.n_energies, dataset.n_forces, dataset.n_stresses) == (4, 24, 1)
    assert dataset.species == (28, 46, 79)
    assert dataset.groups == {"ungrouped": 4}
    assert "4 configurations, 16 atoms, Ni Pd Au" in repr(dataset)


def test_sequence(dataset: DataSet) -> None:
    assert isinstance(dataset[1:], DataSet) and len(dataset[1:]) == 3
    assert dataset.subset([2, 0])[0] is dataset[2]
    assert [c for c in dataset[:1] + dataset[1:]] == list(dataset)
    assert DataSet().species == () and len(DataSet()) == 0


def test_table_counts_files_and_elements(tmp_path: Path, rng: np.random.Generator) -> None:
    ase.io.write(tmp_path / "a.extxyz", [alloy(rng, [28] * 4, forces=np.zeros((4, 3)))] * 2)
    ase.io.write(tmp_path / "b.extxyz", [alloy(rng, [28, 46, 46, 46], stress=np.zeros(6))])
    files = DataSet.from_files([tmp_path / "a.extxyz", tmp_path / "b.extxyz"])
    table = files.table()
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line}
    by_file = {Path(name).name: row for name, row in rows.items() if name.endswith("extxyz")}
    assert by_file == {"a.extxyz": ["2", "8", "2", "24", "0"], "b.extxyz": ["1", "4", "1", "0", "1"]}
    assert rows["total"] == ["3", "12", "3", "24", "1"]
    assert rows["Ni"] == ["3", "9", "3", "24", "1"]
    assert rows["Pd"] == ["1", "3", "1", "0", "1"]
    assert "nearest" in files.table(distances=True)


def test_min_distances() -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.numbers[0] = 28
    dimer = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    far = Atoms("HeNe", [[0, 0, 0], [0, 0, 9.0]])
    for atoms in (crystal, dimer, far):
        atoms.info["energy"] = 0.0
    near = 3.61 / np.sqrt(2)
    found = DataSet.from_atoms([crystal, dimer, far]).min_distances()
    assert found == pytest.approx({(1, 1): 0.8, (28, 28): 3.61, (28, 29): near, (29, 29): near})


def test_hash_ignores_order_and_file_but_no_content(tmp_path: Path, dataset: DataSet) -> None:
    assert len(dataset.hash) == 64
    assert dataset.subset([3, 1, 0, 2]).hash == dataset.hash
    assert dataset[:3].hash != dataset.hash
    assert (dataset + dataset[:1]).hash != dataset.hash
    c = dataset[0]
    assert configuration_digest(dataclasses.replace(c, source="x", index=9)) == configuration_digest(c)
    moved = c.atoms.copy()
    moved.positions[0, 0] += 1e-12
    stretched = c.atoms.copy()
    stretched.cell[0, 0] += 1e-9
    isolated = c.atoms.copy()
    isolated.pbc = False
    other = c.atoms.copy()
    other.numbers[3] = 46
    changes = [
        *({"atoms": atoms} for atoms in (moved, stretched, isolated, other)),
        *({"energy": e} for e in (None, c.energy + 1e-9)),
        *({"forces": f} for f in (None, c.forces + 1e-9)),
        *({"stress": s} for s in (None, c.stress + 1e-9)),
        *({name: 2.0} for name in ("weight", "energy_weight", "forces_weight", "stress_weight")),
        {"group": "bulk"},
    ]
    digests = {configuration_digest(dataclasses.replace(c, **change)) for change in changes}
    assert len(digests | {configuration_digest(c)}) == len(changes) + 1


def test_hash_is_stable_between_versions() -> None:
    """A change of this value means that splits and stored data hashes change: note it in the changelog."""
    c = Labelled(Atoms("H2", [[0, 0, -0.0], [0, 0, 0.75]]), energy=-1.0, forces=np.zeros((2, 3)))
    assert DataSet([c]).hash == "103d749dff3acec40933bfe1a63bab52b66e3b83c9cf1c701cb08586005a5d41"


def test_check_against(dataset: DataSet) -> None:
    dataset[1:].check_against(dataset)
    with pytest.raises(DataError, match=r"Pd \(first in .*frame 1\).*Au"):
        dataset.check_against(dataset[:1])


# ------------------------------------------------------------------------------------------------ references


def test_least_squares_recovers_additive_energies(dataset: DataSet) -> None:
    assert reference_energies(dataset) == pytest.approx(EXACT, abs=1e-7)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from(sorted(EXACT)), min_size=1, max_size=6), min_size=1, max_size=6),
    st.floats(-1e4, 1e4),
)
def test_least_squares_reproduces_energies_of_any_rank(compositions: list[list[int]], shift: float) -> None:
    """Where elements are not determined one by one, the sums over configurations still are."""
    sets = [
        Labelled(Atoms(numbers=numbers, positions=np.zeros((len(numbers), 3))), energy=0.0)
        for numbers in compositions
    ]
    exact = {z: e + shift for z, e in EXACT.items()}
    sets = [dataclasses.replace(c, energy=sum(exact[int(z)] for z in c.atoms.numbers)) for c in sets]
    energies = reference_energies(sets)
    assert set(energies) == {z for numbers in compositions for z in numbers}
    for c in sets:
        assert sum(energies[int(z)] for z in c.atoms.numbers) == pytest.approx(c.energy, abs=1e-5)


def test_least_squares_of_one_molecule_is_the_mean() -> None:
    water = Labelled(Atoms("OH2", np.eye(3)), energy=-2081.1)
    assert reference_energies([water, water]) == pytest.approx({1: -693.7, 8: -693.7})


def test_least_squares_stays_bounded_for_nearly_equal_compositions(rng: np.random.Generator) -> None:
    """Compositions a millionth apart carry no information on the difference of two elements."""
    c = Labelled(Atoms("NiPd", np.eye(3)[:2]), energy=-8.75)
    noisy = [dataclasses.replace(c, energy=c.energy + 0.01 * x) for x in rng.standard_normal(5)]
    energies = reference_energies(noisy)
    assert max(abs(e + 4.375) for e in energies.values()) < 0.02


def test_missing_energies(rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> None:
    with_energy = Labelled(Atoms("Ni", np.zeros((1, 3))), energy=-5.0)
    without = Labelled(Atoms("Pd", np.zeros((1, 3))), forces=np.zeros((1, 3)))
    assert reference_energies([without]) == {46: 0.0}
    assert reference_energies([with_energy, without]) == pytest.approx({28: -5.0, 46: -5.0})
    assert "Pd" in caplog.text


def atom(symbol: str, energy: float | None, cell: float | None = None, group: str | None = None) -> Labelled:
    atoms = Atoms(symbol, np.zeros((1, 3)))
    if cell is not None:
        atoms.set_cell([cell] * 3)
        atoms.pbc = True
    return Labelled(atoms, energy=energy, group=group)


def test_isolated_atoms(dataset: DataSet) -> None:
    free = [atom("Ni", -0.1), atom("Pd", -0.2, 12.0), atom("Au", -0.3, 3.0, "IsolatedAtom")]
    dense = atom("Au", -9.0, 2.9)
    assert [is_isolated_atom(c) for c in (*free, dense, dataset[0])] == [True] * 3 + [False] * 2
    sets = [*dataset, *free, dense]
    assert reference_energies(sets, "isolated") == {28: -0.1, 46: -0.2, 79: -0.3}
    with pytest.raises(DataError, match=r"no isolated atom .* Pd"):
        reference_energies([*dataset, free[0], free[2]], "isolated")
    with pytest.raises(DataError, match="different energies"):
        reference_energies([*sets, atom("Ni", -0.5)], "isolated")


def test_given_energies(dataset: DataSet) -> None:
    assert reference_energies(dataset, {"Ni": 1, "Pd": 2.0, "Au": 3.0, "H": 4.0}) == {
        28: 1.0,
        46: 2.0,
        79: 3.0,
    }
    assert reference_energies(dataset, EXACT) == EXACT
    with pytest.raises(DataError, match="also contain Au"):
        reference_energies(dataset, {"Ni": 1.0, "Pd": 2.0})
    with pytest.raises(SpeciesError, match="Nickel"):
        reference_energies(dataset, {"Nickel": 1.0})
    with pytest.raises(DataError, match="finite"):
        reference_energies(dataset, {"Ni": np.nan})
    with pytest.raises(SpecificationError, match="least_squares"):
        reference_energies(dataset, "average")
