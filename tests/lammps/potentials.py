"""The potentials that the tests hand to LAMMPS, and a structure for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from ase import Atoms
from ase.build import bulk

import etnpot
from etnpot.fitting.settings import FitSettings
from etnpot.network import scale
from etnpot.potential.build import random_potential

from ..layers.conftest import KINDS, layered


def scaled(potential: etnpot.Potential, factor: float) -> etnpot.Potential:
    """The same potential with larger learned energies."""
    return potential.with_train(scale(potential.train, factor))


#: Every factor of the formula in more than one form: names of the cases are those of the tests.
LOCAL: dict[str, Callable[[], etnpot.Potential]] = {
    "one species": lambda: etnpot.ETN("Ni", cutoff=4.2, order=3, l_max=3, seed=1),
    "pair factor, envelope": lambda: etnpot.ETN(
        ["Al", "Ni", "Cu"], cutoff=4.0, order=2, l_max=2, cutoff_function="envelope", cutoff_power=5, seed=2,
        reference_energies={"Al": -1.0, "Ni": -2.5, "Cu": 3.25},
    ),
    "embedding, Bessel, pseudotensors": lambda: etnpot.ETN(
        ["Al", "Ni", "Cu", "Ag", "Au"], cutoff=4.0, order=4, l_max=3, radial_family="bessel", radial_size=5,
        channels=[7, 1, 4, 3], ranks=4, pseudotensors=True, seed=3,
    ),
    "scalars": lambda: etnpot.ETN(["Ni", "Cu"], cutoff=4.0, order=3, l_max=0, channels=1, ranks=1, seed=4),
    "repulsion and bounds": lambda: scaled(
        etnpot.ETN(
            ["Al", "Ni", "Cu"], cutoff=4.0, order=3, l_max=2, seed=6, repulsion="zbl",
            reference_energies={"Al": -1.0, "Ni": -2.5, "Cu": 3.25},
        ), 40.0,
    ).with_energy_bounds((-0.3, 0.3)),
    # dynamics that do not blow up
    "bounded": lambda: etnpot.ETN(
        ["Al", "Ni", "Cu"], cutoff=4.0, order=2, l_max=2, cutoff_function="envelope", cutoff_power=5, seed=2, repulsion="zbl",
        reference_energies={"Al": -1.0, "Ni": -2.5, "Cu": 3.25},
    ).with_energy_bounds((-0.3, 0.3)),
    "medium size": lambda: random_potential(
        FitSettings(size="medium", cutoff=4.5).spec((13, 28, 29, 47), r_min=2.0, neighbor_scale=30.0),
        np.random.default_rng(5),
    ),
}  # fmt: skip


#: Every kind of layer, more than one of them, and layers beside everything else that a potential may have.
LAYERED: dict[str, Callable[[], etnpot.Potential]] = {
    **{name: partial(layered, name) for name in KINDS},
    "messages twice": lambda: layered(
        "message", layers=[*KINDS["message"], dict(kind="message", carry={"0e": 1, "1o": 2, "2e": 1}, ranks=2)]
    ),
    "attention twice, after a pool": lambda: layered(
        "", layers=[*KINDS["pool"], *KINDS["normalised"], *KINDS["bilinear"], *KINDS["pool"], *KINDS["message"]]
    ),
    "l up to 3, embedding, no scalars passed on": lambda: etnpot.ETN(
        ["Al", "Ni", "Cu", "Ag", "Au"], cutoff=4.0, order=3, l_max=3, radial_family="bessel", radial_size=5,
        channels=[5, 1, 4, 3], ranks=3, pseudotensors=True, seed=3, neighbor_scale=1.0,
        layers=[
            dict(kind="message", carry={"1o": 3, "2e": 2, "3o": 1}, order=3, ranks=3, attention="normalised", heads=3, width=2)
        ],
    ),
    "scalars": lambda: etnpot.ETN(
        ["Ni", "Cu"], cutoff=4.0, order=3, l_max=0, channels=1, ranks=1, seed=4, neighbor_scale=1.0,
        layers=[dict(kind="message", carry={"0e": 5})],
    ),
    "repulsion and bounds": lambda: scaled(
        layered("normalised", repulsion="zbl", layers=[*KINDS["normalised"], *KINDS["message"]]), 15.0
    ).with_energy_bounds((-0.3, 0.3)),
    # every kind of layer, and dynamics that do not blow up
    "bounded": lambda: layered("deep", repulsion="zbl").with_energy_bounds((-0.3, 0.3)),
    "defaults": lambda: etnpot.ETN(
        ["Al", "Ni", "Cu"], cutoff=4.0, order=3, l_max=2, seed=2, neighbor_scale=1.0, layers=[dict(kind="message")]
    ),
}  # fmt: skip


#: For what LAMMPS does with any potential: a local one, and one with every kind of layer.
EITHER: dict[str, Callable[[], etnpot.Potential]] = {
    "local": LOCAL["bounded"],
    "layers": LAYERED["bounded"],
}


def triclinic(potential: etnpot.Potential, rng: np.random.Generator, n: int = 3) -> Atoms:
    """A rattled random alloy in a skewed cell."""
    atoms = bulk("Ni", cubic=True, a=3.7) * (n, n, n)
    length = atoms.cell.array[0, 0]
    atoms.set_cell(
        [[length, 0, 0], [0.23 * length, 1.04 * length, 0], [-0.31 * length, 0.17 * length, 0.97 * length]],
        scale_atoms=True,
    )
    atoms.positions += rng.normal(scale=0.12, size=(len(atoms), 3))
    atoms.wrap()
    atoms.numbers = rng.choice(potential.species, len(atoms))
    return atoms
