"""Where a fit begins, and how its train grows: a random potential in the range of the data, trains of other orders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from etnpot.errors import DataError
from etnpot.fitting.dataset import DataSet, reference_energies
from etnpot.fitting.settings import FitSettings
from etnpot.neighbors import neighbor_list
from etnpot.network import Bond, Train, TrainLayout, grow_order, grow_ranks
from etnpot.potential import Potential, PotentialSpec
from etnpot.potential.build import random_potential, symbols_to_numbers

__all__ = ["initial_potential", "initial_spec", "lengthened", "shortened"]


def initial_spec(
    train: DataSet, settings: FitSettings, species: tuple[int, ...] | None = None
) -> PotentialSpec:
    """What the settings say, in the range of the data."""
    elements = train.species if species is None else symbols_to_numbers(species)
    missing = sorted(set(train.species) - set(elements))
    if missing:
        raise DataError(
            f"species: the training set holds elements {missing} that are not among {list(elements)}"
        )
    distances = train.min_distances()
    shortest = min(distances.values(), default=0.5 * settings.cutoff)
    r_min = min(0.97 * shortest, 0.8 * settings.cutoff)
    return settings.spec(
        elements,
        r_min=round(r_min, 3),
        neighbor_scale=_mean_neighbors(train, settings.cutoff),
        distances=distances,
        n_rows=train.n_rows,
    )


def initial_potential(train: DataSet, settings: FitSettings, spec: PotentialSpec) -> Potential:
    """Random features and train, without the layers of `spec`; reference energies as the settings say."""
    energies: dict[str | int, float] = {}
    if train.n_energies:
        found = reference_energies(train, settings.reference_energies)
        energies = {z: e for z, e in found.items() if z in spec.species}
    rng = np.random.default_rng([settings.seed, 0])
    return random_potential(replace(spec, layers=()), rng, energies)


def shortened(layout: TrainLayout, order: int) -> TrainLayout:
    """The layout of a train of lower order, with the bonds nearest to the head."""
    bonds = (*layout.bonds[:order], layout.bonds[-1])
    return TrainLayout(layout.n_species, layout.feature, bonds).trimmed()


def lengthened(train: Train, layout: TrainLayout, rng: np.random.Generator) -> Train:
    """The same function with one core more, the last, and the ranks of `layout`; what is new of them is random on the left."""
    order = train.layout.order
    train = grow_order(train, order)
    for k in range(1, order + 1):
        old, new = train.layout.bonds[k], layout.bonds[k]
        if old != new:
            union = Bond.of(
                {irrep: max(old.rank(irrep), new.rank(irrep)) for irrep in {*old.irreps, *new.irreps}}
            )
            train = grow_ranks(train, k, union, rng)
    return train


def _mean_neighbors(train: DataSet, cutoff: float) -> float:
    step = max(1, len(train) // 50)
    pairs = atoms = 0
    for labelled in train[::step]:
        pairs += neighbor_list(labelled.atoms, cutoff).n_pairs
        atoms += labelled.n_atoms
    return round(max(1.0, pairs / atoms), 2)
