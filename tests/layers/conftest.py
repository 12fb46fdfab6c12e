"""A potential with each kind of layer, small, and structures of its elements."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot.potential import Potential
from etnpot.testing import random_molecule, random_structure

SPECIES = ("Al", "Ni", "Cu")

#: Every kind of layer and attention, and a deep one.
KINDS: dict[str, list[dict[str, Any]]] = {
    "message": [dict(kind="message", carry={"0e": 2, "1o": 1, "2e": 1}, ranks=2)],
    "bilinear": [
        dict(kind="message", carry={"0e": 2, "1o": 2}, ranks=2, attention="bilinear", heads=2, width=2)
    ],
    "normalised": [
        dict(kind="message", carry={"0e": 3, "1o": 2}, ranks=2, attention="normalised", heads=2, width=1)
    ],
    "pool": [dict(kind="pool", carry={"0e": 2, "1o": 1, "2e": 1}, ranks=2)],
    "deep": [
        dict(kind="message", carry={"0e": 1, "1o": 1, "2e": 1}, ranks=1, attention="normalised", heads=1, width=2),
        dict(kind="message", carry={"0e": 2, "1o": 1}, ranks=2),
        dict(kind="pool", carry={"0e": 2}, ranks=1),
    ],
}  # fmt: skip


def layered(kind: str, **changes: Any) -> Potential:
    """A random potential of `KINDS`, or without layers for "local": layers that count, energies of the order of 1 eV."""
    settings: dict[str, Any] = dict(
        cutoff=3.5, order=2, l_max=2, channels=[2, 2, 1], ranks=2, radial_size=3, species_rank=2, neighbor_scale=0.5,
        seed=1, reference_energies={"Al": -1.5, "Ni": -0.5, "Cu": 0.75}, layers=KINDS.get(kind, ()),
    )  # fmt: skip
    potential = etnpot.ETN(SPECIES, **{**settings, **changes})
    louder = {
        name: 3.0 * array
        for name, array in potential.arrays.items()
        if re.fullmatch(r"layer\.\d+\.core\.1", name)
    }
    return potential.with_arrays(**louder)


@pytest.fixture(scope="session")
def make_layered() -> Callable[..., Potential]:
    """``make_layered(kind, **settings of ETN)``: a random potential with layers of that kind."""
    return layered


#: "deep" has each kind, and normalised attention; the others alone are slow tests.
USUAL = ("bilinear", "deep")


@pytest.fixture(
    params=[name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of layer in turn."""
    return str(request.param)


@pytest.fixture
def potential(kind: str) -> Potential:
    return layered(kind)


@pytest.fixture
def crystal(rng: np.random.Generator) -> Atoms:
    """Five atoms in a skewed cell that is smaller than the cutoff, each with images of its own as neighbours."""
    return random_structure(SPECIES, 5, rng, volume_per_atom=9.0, min_distance=1.9)


@pytest.fixture
def molecule(rng: np.random.Generator) -> Atoms:
    return random_molecule(SPECIES, 5, rng, min_distance=1.9)
