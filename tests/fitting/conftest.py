"""Small alloys, small models, and synthetic teachers with data labelled by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.prepared import LossWeights
from etnpot.fitting.problem import Problem
from etnpot.io.structures import Labelled
from etnpot.neighbors import neighbor_list
from etnpot.network import scale
from etnpot.potential import Potential
from etnpot.potential.build import random_potential
from etnpot.testing import random_structure


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings of a small model: a step takes hundredths of a second and gives the same bits every time."""
    model = dict(order=2, l_max=1, radial_size=4, channels=[2, 2], ranks=2, species_rank=2)
    return dict(cutoff=3.6, polish_steps=4, threads=1, **model)


@pytest.fixture(scope="session")
def alloys() -> DataSet:
    """Twelve cells of eight atoms, Ni and Cu, in three groups."""
    return emt_alloys(12, symbols=("Ni", "Cu"), seed=1, repeat=(1, 1, 2))


@pytest.fixture
def teacher() -> Potential:
    """Two species, order 2, few ranks, energies of the order of 1 eV."""
    random = etnpot.ETN(
        ["Cu", "Ag"], cutoff=4.5, order=2, l_max=1, channels=2, ranks=2, radial_size=4, species_rank=2,
        seed=3, reference_energies={"Cu": -3.0, "Ag": -2.0},
    )  # fmt: skip
    return random.with_train(scale(random.train, 20.0))


@pytest.fixture
def labelled_by(rng: np.random.Generator) -> Callable[..., DataSet]:
    """Random structures with energies, forces and stresses of a potential, and Gaussian noise on request."""

    def make(potential: Potential, n: int = 14, n_atoms: int = 8, noise: float = 0.0) -> DataSet:
        symbols = ["Cu", "Ag"]
        configurations = []
        for index in range(n):
            atoms = random_structure(symbols, n_atoms, rng, volume_per_atom=14.0, min_distance=2.0)
            evaluation = potential.evaluate(neighbor_list(atoms, potential.cutoff), atoms.numbers)
            virial = evaluation.virial
            stress = np.array([virial[a, b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
            configurations.append(
                Labelled(
                    atoms,
                    energy=evaluation.energy + noise * rng.normal() * np.sqrt(n_atoms),
                    forces=evaluation.forces + noise * rng.normal(size=(n_atoms, 3)),
                    stress=stress / atoms.get_volume(),
                    index=index,
                )
            )
        return DataSet(configurations)

    return make


@pytest.fixture
def problem_of() -> Callable[..., Problem]:
    """Problem of a data set with equal weights."""

    def make(dataset: DataSet, cutoff: float, **options: object) -> Problem:
        return Problem.from_dataset(dataset, cutoff, LossWeights(energy=1.0, stress=1.0), **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def reseeded() -> Callable[[Potential, int], Potential]:
    """The same specification and reference energies with other random numbers."""

    def make(potential: Potential, seed: int) -> Potential:
        energies = dict(zip(potential.species, potential.arrays["reference_energies"], strict=True))
        return random_potential(potential.spec, np.random.default_rng(seed), energies)

    return make


@pytest.fixture
def restored_alike() -> Callable[[Callable[[], Fitter], Callable[[Fitter], bool]], Fitter]:
    """Check that a fit which is interrupted once a condition holds, and restored, ends with the same bits; the whole fit."""

    def check(begin: Callable[[], Fitter], interrupted: Callable[[Fitter], bool]) -> Fitter:
        whole, first, second = begin(), begin(), begin()
        whole.run()
        while not interrupted(first):
            first.step()
        assert not first.finished
        values, arrays = first.state()
        second.restore(json.loads(json.dumps(values)), {name: array.copy() for name, array in arrays.items()})
        second.run()
        np.testing.assert_array_equal(second.best.parameters, whole.best.parameters)
        losses = [[record["selection_loss"] for record in fitter.history] for fitter in (whole, second)]
        assert losses[0] == losses[1]
        return whole

    return check
