"""The public data sets: everything that they hold is read, and their structures can be evaluated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.data import chemical_symbols

import etnpot
from etnpot.fitting.dataset import DataSet

#: File: configurations (all with energy and forces), atoms, configurations with a stress, elements.
SETS: dict[str, tuple[int, int, int, str]] = {
    "nbmotaw_snap2020/train": (5282, 108_464, 5282, "Nb Mo Ta W"),
    "nbmotaw_snap2020/test": (376, 10_448, 376, "Nb Mo Ta W"),
    "zuo2020/Ni/train": (263, 27_420, 263, "Ni"),
    "zuo2020/Ni/test": (31, 3158, 31, "Ni"),
    "zuo2020/Cu/train": (262, 27_416, 262, "Cu"),
    "zuo2020/Cu/test": (31, 3178, 31, "Cu"),
    "zuo2020/Mo/train": (194, 10_087, 194, "Mo"),
    "zuo2020/Mo/test": (23, 1189, 23, "Mo"),
    "zuo2020/Si/train": (214, 13_233, 202, "Si"),
    "zuo2020/Si/test": (25, 1525, 23, "Si"),
    "3bpa/train": (500, 13_500, 0, "H C N O"),
    "3bpa/train_mixedT": (500, 13_500, 0, "H C N O"),
    "3bpa/test": (1669, 45_063, 0, "H C N O"),
    "3bpa/test_600K": (2138, 57_726, 0, "H C N O"),
    "rmd17/aspirin/train": (1000, 21_000, 0, "H C O"),
    "rmd17/aspirin/test": (1000, 21_000, 0, "H C O"),
    "rmd17/ethanol/train": (1000, 9000, 0, "H C O"),
    "rmd17/ethanol/test": (1000, 9000, 0, "H C O"),
    "emt6/train": (100, 3200, 100, "Ni Cu Pd Ag Pt Au"),
    "emt6/valid": (20, 640, 20, "Ni Cu Pd Ag Pt Au"),
    "emt6/test": (40, 1280, 40, "Ni Cu Pd Ag Pt Au"),
}

#: Configurations of each subset of the NbMoTaW test set that errors are reported for.
NBMOTAW_SUBSETS = {1: 120, 2: 240, 4: 16}


@pytest.fixture(scope="session")
def read(data_directory: Path) -> Callable[[str], DataSet]:
    """``read(name)``: one file of `SETS`, read once."""
    found: dict[str, DataSet] = {}

    def get(name: str) -> DataSet:
        if name not in found:
            found[name] = DataSet.from_files(data_directory / f"{name}.extxyz")
        return found[name]

    return get


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_every_label_is_read(name: str, read: Callable[[str], DataSet]) -> None:
    dataset = read(name)
    n_configurations, n_atoms, n_stresses, elements = SETS[name]
    assert len(dataset) == dataset.n_energies == n_configurations
    assert dataset.n_atoms == n_atoms
    assert dataset.n_forces == 3 * n_atoms
    assert dataset.n_stresses == n_stresses
    assert " ".join(chemical_symbols[z] for z in dataset.species) == elements
    for configuration in dataset:
        assert configuration.energy is not None and configuration.forces is not None
        assert np.isfinite(configuration.energy) and np.isfinite(configuration.forces).all()


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_an_untrained_potential_evaluates_it(name: str, read: Callable[[str], DataSet]) -> None:
    dataset = read(name)
    potential = etnpot.ETN(dataset.species, cutoff=4.0, order=2, l_max=1, radial_size=3, ranks=2, seed=0)
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        atoms = dataset[index].atoms
        result = potential.evaluate(potential.edges(atoms), atoms.numbers)
        assert np.isfinite(result.energy)
        assert result.forces.shape == (len(atoms), 3) and np.isfinite(result.forces).all()
        assert np.abs(result.forces.sum(axis=0)).max() <= 1e-10 * max(1.0, np.abs(result.forces).sum())
        assert np.isfinite(result.virial).all()


@pytest.mark.data
@pytest.mark.parametrize(("part", "n_flagged"), [("train", 12), ("test", 2)])
def test_stresses_of_uncertain_order_are_left_out(
    part: str, n_flagged: int, read: Callable[[str], DataSet], data_directory: Path
) -> None:
    frames = ase.io.read(data_directory / f"zuo2020/Si/{part}.extxyz", index=":")
    flagged = [bool(frame.info.get("stress_shear_order_uncertain")) for frame in frames]
    assert sum(flagged) == n_flagged
    assert [c.stress is None for c in read(f"zuo2020/Si/{part}")] == flagged


@pytest.mark.data
def test_the_reported_subsets_of_nbmotaw_can_be_told_apart(read: Callable[[str], DataSet]) -> None:
    n_elements = [len(set(c.atoms.numbers.tolist())) for c in read("nbmotaw_snap2020/test")]
    assert {n: n_elements.count(n) for n in set(n_elements)} == NBMOTAW_SUBSETS


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in SETS if "train" not in name])
def test_no_configuration_is_in_training_and_test_set(name: str, read: Callable[[str], DataSet]) -> None:
    directory = name.rpartition("/")[0]
    for other in SETS:
        if other.startswith(f"{directory}/train"):
            train, test = ({c.atoms.positions.tobytes() for c in read(part)} for part in (other, name))
            assert not train & test


def test_missing_data_is_a_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-m",
            "data",
            "-k",
            "emt6",
            "-x",
            __file__,
        ],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"ETNPOT_DATA": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "nowhere is not a directory" in done.stdout and "set ETNPOT_DATA to" in done.stdout
    assert "skipped" not in done.stdout


#: Training and validation file, settings, ceilings of the validation RMSE: energy (meV/atom), forces (eV/Å).
CEILINGS = {
    "emt6": ("emt6/train", "emt6/valid", {"size": "small", "polish_steps": 4}, 10.0, 0.12),
    "Si": ("zuo2020/Si/train", None, {"size": "small", "polish_steps": 5}, 20.0, 0.25),
}


@pytest.mark.data
@pytest.mark.parametrize("name", CEILINGS)
def test_a_short_fit_with_the_defaults_stays_below_a_ceiling(
    name: str, read: Callable[[str], DataSet]
) -> None:
    train, valid, settings, energy, forces = CEILINGS[name]
    result = etnpot.fit(read(train), None if valid is None else read(valid), **settings)
    errors = result.metrics["valid"]
    assert 1e3 * errors.energy.rmse < energy
    assert errors.forces.rmse < forces
