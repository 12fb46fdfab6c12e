"""Random models and neighbourhoods for the comparison of kernels with their references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import etnpot
from etnpot.neighbors import EdgeList
from etnpot.potential import Potential

#: Largest difference between a kernel and its reference, relative to the largest entry.
TOLERANCE = 1e-10

SPECIES = ("Al", "Ni", "Cu", "Zr")

#: Unequal ranks per irrep and bond; orders 1-5, l_max 0-4, 1-4 species, every radial family with every cutoff
#: function, both species forms, with and without pseudotensors.
MODELS: dict[str, dict[str, Any]] = {
    "order 1, scalars": dict(
        species=SPECIES[:1], order=1, l_max=0, radial_family="bessel", cutoff_function="power"
    ),
    "order 1, l 0-2": dict(
        species=SPECIES[:2], order=1, l_max=2, radial_family="jacobi", cutoff_function="envelope"
    ),
    "order 2, l 0-1": dict(
        species=SPECIES[:2],
        order=2,
        l_max=1,
        ranks=[{"0e": 3, "1o": 2}],
        radial_family="chebyshev",
        cutoff_function="envelope",
        cutoff_power=5,
    ),
    "order 3, l 0-2, embedding": dict(
        species=SPECIES[:3],
        order=3,
        l_max=2,
        ranks=[{"0e": 2, "1o": 3, "2e": 1}, {"0e": 3, "1o": 1, "2e": 2}],
        radial_family="jacobi",
        cutoff_function="power",
        cutoff_power=4,
        species_form="embedding",
        embedding=(2, 3),
    ),
    "order 3, l 0-2, pseudotensors": dict(
        species=SPECIES[:2],
        order=3,
        l_max=2,
        ranks=[{"0e": 2, "1o": 1, "2e": 2}, {"0e": 1, "1o": 2, "1e": 2, "2e": 1, "2o": 1}],
        radial_family="bessel",
        cutoff_function="envelope",
        cutoff_power=2,
    ),
    "order 4, l 0-3": dict(
        species=SPECIES,
        order=4,
        l_max=3,
        ranks=[
            {"0e": 2, "1o": 1, "2e": 1, "3o": 1},
            {"0e": 1, "1o": 2, "2e": 1},
            {"0e": 1, "1o": 1, "3o": 2},
        ],
        radial_family="chebyshev",
        cutoff_function="power",
    ),
    "order 4, l 0-4, pseudotensors": dict(
        species=SPECIES[:3],
        order=4,
        l_max=4,
        ranks=[
            {"0e": 1, "1o": 1, "2e": 1, "4e": 1},
            {"0e": 1, "1e": 1, "2e": 1, "2o": 1, "3e": 1},
            {"2e": 1, "4e": 1},
        ],
        radial_family="chebyshev",
        cutoff_function="envelope",
    ),
    "order 5, l 0-4, embedding": dict(
        species=SPECIES,
        order=5,
        l_max=4,
        ranks=1,
        bond_l_max=2,
        radial_family="jacobi",
        cutoff_function="envelope",
        species_form="embedding",
    ),
}


@dataclass(frozen=True, eq=False)
class Neighborhoods:
    """A model and random pairs, as the kernels take them."""

    potential: Potential
    edges: EdgeList
    type_i: np.ndarray
    n_sites: int

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers of all sites."""
        return np.array(self.potential.species)[self.type_i]

    @property
    def pair_arguments(self) -> tuple[Any, ...]:
        """first, r_pc, type_i, type_p, basis, radial_table."""
        edges, potential = self.edges, self.potential
        type_p = self.type_i[edges.neighbor]
        return (edges.first, edges.r_pc, self.type_i, type_p, potential.basis_tables, potential.radial_table)

    @property
    def train_arguments(self) -> tuple[Any, ...]:
        """train, weights."""
        return (self.potential.train_tables, self.potential.weights)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What `evaluate` and `gradient` take before the range."""
        return (*self.pair_arguments, *self.train_arguments)


def build_model(seed: int = 0, **settings: Any) -> Potential:
    """A model with few channels, and distances as in `random_neighborhoods`."""
    n_channels = settings["l_max"] + 1
    defaults: dict[str, Any] = dict(
        cutoff=4.0,
        r_min=1.2,
        radial_size=3,
        channels=[2, 1, 2, 1, 1][:n_channels],
        species_rank=2,
        neighbor_scale=5.0,
        seed=seed,
        reference_energies={settings["species"][0]: -1.5},
    )
    return etnpot.ETN(**{**defaults, **settings})


def random_neighborhoods(
    potential: Potential, rng: np.random.Generator, counts: list[int] | np.ndarray, n_ghosts: int = 2
) -> Neighborhoods:
    """Random pairs: distances from below r_min, where the radial coordinate rests, to beyond the cutoff."""
    n_atoms, n_pairs = len(counts), int(np.sum(counts))
    direction_pc = rng.normal(size=(n_pairs, 3))
    direction_pc /= np.linalg.norm(direction_pc, axis=1)[:, None]
    r_p = rng.uniform(0.5, 1.05 * potential.cutoff, size=n_pairs)
    edges = EdgeList(
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        neighbor=rng.integers(0, n_atoms + n_ghosts, size=n_pairs),
        r_pc=r_p[:, None] * direction_pc,
    )
    type_i = rng.integers(0, len(potential.species), size=n_atoms + n_ghosts)
    return Neighborhoods(potential, edges, type_i, n_atoms + n_ghosts)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Potential]:
    """``make_model(seed, **settings)``: a model of `etnpot.ETN` with few channels."""
    return build_model


@pytest.fixture(scope="session")
def make_neighborhoods() -> Callable[..., Neighborhoods]:
    """``make_neighborhoods(potential, rng, counts, n_ghosts=2)``: random pairs, so many for each atom."""
    return random_neighborhoods


@pytest.fixture(scope="session")
def models() -> dict[str, Potential]:
    """All models by name."""
    return {name: build_model(seed, **settings) for seed, (name, settings) in enumerate(MODELS.items())}


@pytest.fixture(params=list(MODELS))
def potential(request: pytest.FixtureRequest, models: dict[str, Potential]) -> Potential:
    """Each model in turn."""
    return models[request.param]


@pytest.fixture
def neighborhoods(potential: Potential, rng: np.random.Generator) -> Neighborhoods:
    """Eleven atoms, one block and a part of the next, with 0, 1 and more neighbours."""
    return random_neighborhoods(potential, rng, [2, 0, 5, 1, 3, 4, 0, 2, 1, 4, 0])


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Compare arrays relative to the largest expected entry."""

    def compare(actual: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
        assert actual.shape == expected.shape
        assert np.isfinite(expected).all() and np.isfinite(actual).all()
        if expected.size:
            scale = np.abs(expected).max()
            error = np.abs(actual - expected).max()
            assert error <= tolerance * scale, f"error {error:.2e}, allowed {tolerance:.0e} of {scale:.2e}"

    return compare
