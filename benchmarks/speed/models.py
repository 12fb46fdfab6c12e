"""The potentials that are timed: random parameters, settings as for a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from etnpot.fitting.settings import FitSettings
from etnpot.potential import Potential
from etnpot.potential.build import random_potential

R_MIN = 2.0  # Å, below the shortest distance of the cell


def potential_of(settings: Mapping[str, Any], species: Sequence[str]) -> Potential:
    """A potential with random parameters: `settings` are those of `FitSettings`."""
    numbers = sorted(atomic_numbers[symbol] for symbol in species)
    spec = FitSettings(**settings).spec(numbers, r_min=R_MIN, neighbor_scale=54.0)
    return random_potential(spec, np.random.default_rng(0))
