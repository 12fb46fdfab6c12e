"""Random trains, small enough for their dense tensors, for the tests of the algebra."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from etnpot.errors import SpecificationError
from etnpot.network import SCALAR, Bond, Train, TrainLayout
from etnpot.so3 import Irrep

DrawTrain = Callable[..., Train]

OUTPUTS = ({"0e": 1}, {"0e": 2}, {"1o": 1}, {"0o": 1, "1e": 2}, {"0e": 1, "2e": 1}, {"3o": 1})


def _draw_layout(rng: np.random.Generator, order: int | None, max_entries: int) -> TrainLayout:
    """1-4 species, l <= 3, both parities, unequal ranks (some beyond their room), orders 1-4, any output."""
    while True:
        l_max = int(rng.integers(0, 4))
        feature = Bond.of(
            {SCALAR: int(rng.integers(1, 4))}
            | {Irrep.natural(l): int(rng.integers(0, 3 if l < 2 else 2)) for l in range(1, l_max + 1)}
        )
        d = int(rng.integers(1, 5)) if order is None else order
        irreps = [Irrep(l, p) for l in range(4) for p in (1, -1)]
        inner = [
            Bond.of({SCALAR: int(rng.integers(0, 4))} | {irrep: int(rng.integers(0, 3)) for irrep in irreps})
            for _ in range(d - 1)
        ]
        n_species = int(rng.integers(1, 5))
        output = Bond.of(OUTPUTS[rng.integers(len(OUTPUTS))])
        if n_species * feature.dimension**d * output.dimension > max_entries:
            continue
        try:
            layout = TrainLayout(
                n_species, feature, (Bond.of({SCALAR: int(rng.integers(1, 6))}), *inner, output)
            )
            layout.trimmed()  # refuses a train that is zero
        except SpecificationError:
            continue
        return layout


@pytest.fixture(scope="session")
def draw_train() -> DrawTrain:
    """A function (rng, order=None, max_entries=30000) -> random `Train`."""

    def draw(rng: np.random.Generator, order: int | None = None, max_entries: int = 30_000) -> Train:
        return Train.random(_draw_layout(rng, order, max_entries), rng)

    return draw
