"""Small data files for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import write

from etnpot.fitting.demo_data import emt_alloys


@pytest.fixture(scope="session")
def data_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with train, valid and test.extxyz of Ni-Cu, and silver.extxyz."""
    directory = tmp_path_factory.mktemp("data")
    for seed, (name, n) in enumerate((("train", 10), ("valid", 3), ("test", 3))):
        frames = emt_alloys(n, symbols=("Ni", "Cu"), seed=seed, repeat=(1, 1, 2))
        write(directory / f"{name}.extxyz", [labelled.to_atoms() for labelled in frames])
    write(
        directory / "silver.extxyz", [c.to_atoms() for c in emt_alloys(1, symbols=("Ag",), repeat=(1, 1, 1))]
    )
    return directory


@pytest.fixture
def in_data(data_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the data files in it."""
    for path in data_files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
