"""A tiny study that is run once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import etnpot
from etnpot.compare.results import StudyResult


def tiny_study() -> dict[str, Any]:
    """Two elements, etnpot and the calculator that made the data, and a model that cannot work."""
    cells = [1, 1, 2]
    return {
        "name": "tiny",
        "data": {
            "cuni": {
                "train": {"emt": {"n": 16, "symbols": ["Cu", "Ni"], "seed": 0, "repeat": cells}},
                "test": {"same": {"emt": {"n": 6, "symbols": ["Cu", "Ni"], "seed": 1, "repeat": cells}}},
            }
        },
        "models": [
            {"name": "etnpot tiny", "type": "etnpot", "settings": {"size": 120, "cutoff": 4.0}},
            {"name": "EMT", "type": "calculator"},
            {
                "name": "broken",
                "type": "calculator",
                "settings": {"calculator": "ase.calculators.emt:Nothing"},
            },
        ],
        "budget": {"epochs": 2},
        "seeds": [3],
        "sizes": [12],
        "timing_atoms": 16,
        "properties": {
            "reference": "EMT",
            "compute": ["bulk", "elastic", "volume_curve", "formation"],
            "crystals": [
                {"name": "Cu", "lattice": "fcc", "symbols": ["Cu"], "a": 3.6},
                {"name": "Ni", "lattice": "fcc", "symbols": ["Ni"], "a": 3.5},
                {"name": "Cu3Ni", "lattice": "l12", "symbols": ["Cu", "Ni"], "a": 3.57},
                {"name": "Au", "lattice": "fcc", "symbols": ["Au"], "a": 4.06},
            ],
        },
    }


@pytest.fixture
def study() -> dict[str, Any]:
    """The tiny study, to be changed."""
    return tiny_study()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """The tiny study, run."""
    out: Path = tmp_path_factory.mktemp("study")
    return etnpot.compare(tiny_study(), out)
