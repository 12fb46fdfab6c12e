"""The potentials that are timed: random parameters, settings as for a fit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from ase.data import atomic_numbers

import etnpot
from etnpot.fitting.settings import FitSettings
from etnpot.potential import Potential
from etnpot.potential.build import random_potential

#: Å, below the shortest distance of the cell, as in a potential that was fitted to such cells: its repulsion acts on none of
#: their pairs.
R_MIN = 2.0


def potential_of(settings: Mapping[str, Any], species: Sequence[str]) -> Potential:
    """A potential with random parameters: `settings` are those of `FitSettings`."""
    numbers = sorted(atomic_numbers[symbol] for symbol in species)
    distances = {(a, b): R_MIN for a in numbers for b in numbers}
    spec = FitSettings(**settings).spec(numbers, r_min=R_MIN, neighbor_scale=54.0, distances=distances)
    return random_potential(spec, np.random.default_rng(0))


def conditions() -> dict[str, Any]:
    """Versions, and the load of the machine at this moment."""
    versions = {
        "etnpot": etnpot.__version__,
        **{name: version(name) for name in ("numpy", "scipy", "numba", "vesin")},
    }
    return {"versions": versions, "load": round(os.getloadavg()[0], 2)}


def conditions_lines(found: Mapping[str, Any]) -> list[str]:
    """`conditions` as text."""
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    return [
        "",
        f"Versions: {versions}. Load when it began: {found['load']:.1f}; on an idle machine it is below one.",
    ]
