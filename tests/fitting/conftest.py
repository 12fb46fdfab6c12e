"""A small alloy and a small model, for tests of whole fits."""

from __future__ import annotations

from typing import Any

import pytest

from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings of a small model: a step takes hundredths of a second and gives the same bits every time."""
    model = dict(order=2, l_max=1, radial_size=4, channels=[2, 2], ranks=2, species_rank=2)
    return dict(cutoff=3.6, polish_steps=4, threads=1, **model)


@pytest.fixture(scope="session")
def alloys() -> DataSet:
    """Twelve cells of eight atoms, Ni and Cu, in three groups."""
    return emt_alloys(12, symbols=("Ni", "Cu"), seed=1, repeat=(1, 1, 2))
