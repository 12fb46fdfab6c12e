"""Hot alloys that nobody computed follow their elements.

Data often hold hot elements, and alloys near their ground states (`etnpot.basis.cold_pairs`). What atoms of hot alloys do is in
no such data, and what a fit says of it is left to chance. The elements give a good first guess: that every atom i has the
energy that it would have if the atoms around it, where they are, were of its own element,

    E_own = sum_i E_i({r_ij}; z_j = z_i for all j).                                                                       (1)

Cells of the hot elements, with elements drawn at random and in the volume of their mixture, enter the loss of a fit and ask for
the forces of (1). E_own is that of the potential itself before each step, since elements are what the data know best. With the
root mean squares dF of the errors on data and F of the forces of a cell, that of the guess being taken to be eps F, the weight
of a force component is that of one of the data times

    tau = min(1/10, (dF / (eps F))²),                                                                                        (2)

so that whatever the data do know of alloys goes before. Beside a sample of the data it is smaller, by the part that the sample
is (`Problem.subset`): without that and the bound of 1/10, the first steps, which see few data and large errors, would follow
the guess.

============== =============================== ========
symbol         here                            unit
============== =============================== ========
E_own          `OwnElement`                    eV
tau            `Prepared.guessed`
eps            `prepared._GUESS_ERROR`
============== =============================== ========
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from etnpot.basis import cold_elements
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.prepared import LossWeights, Prepared
from etnpot.io.structures import Labelled
from etnpot.neighbors import EdgeList
from etnpot.potential import Potential

__all__ = ["OwnElement", "hot_alloys"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Atoms of all cells, about, and how often the same cell is used at most.
_ATOMS, _MOST_COPIES = 4000, 2


class OwnElement:
    """The forces of E_own for one configuration.

    Parameters
    ----------
    edges : EdgeList
    numbers : int array [n_atoms]
    """

    def __init__(self, edges: EdgeList, numbers: Integers) -> None:
        elements, type_i = np.unique(numbers, return_inverse=True)
        # the neighbours are ghosts: after the centres, all atoms as each of the elements
        ghost_p = len(numbers) * (1 + type_i.reshape(-1)[edges.center]) + edges.neighbor
        self._edges = EdgeList(edges.first, ghost_p, edges.r_pc)
        self._numbers = np.concatenate([numbers, np.repeat(elements, len(numbers))])

    def __call__(self, potential: Potential) -> Floats:
        """Forces, float64 [n_atoms, 3], eV/Å."""
        found = potential.evaluate(self._edges, self._numbers, threads=1)
        force_sic = found.forces.reshape(-1, self._edges.n_atoms, 3)
        return np.asarray(force_sic.sum(axis=0))


def hot_alloys(
    species: Sequence[int],
    cutoff: float,
    distances: Mapping[tuple[int, int], float],
    data: DataSet,
    weights: LossWeights,
) -> list[Prepared]:
    """The cells, ready for a fit; none where the data hold no cold alloys of hot elements.

    Parameters
    ----------
    species, cutoff, distances, data, weights
        As for `etnpot.fitting.short_range.short_range_constraints`.
    """
    alloyed = cold_elements(species, cutoff, distances)
    elements = _elements(data, alloyed)
    hot, volume_z = _hot(elements), _atomic_volumes(elements)
    rng = np.random.default_rng(0)
    made: list[Prepared] = []
    n_atoms = 0
    for index in np.concatenate([rng.permutation(len(hot)) for _ in range(_MOST_COPIES)]):
        if n_atoms >= _ATOMS:
            break
        atoms = _mixed(hot[index].atoms, alloyed, volume_z, rng)
        labelled = Labelled(atoms, forces=np.zeros((len(atoms), 3)))
        prepared = Prepared.of(labelled, cutoff, weights)
        made.append(replace(prepared, guess=OwnElement(prepared.edges, prepared.numbers)))
        n_atoms += len(atoms)
    return made


def _elements(data: DataSet, alloyed: Sequence[int]) -> list[Labelled]:
    """The periodic configurations of a single one of these elements."""
    found = []
    for labelled in data:
        numbers = labelled.atoms.numbers
        if numbers[0] in alloyed and labelled.atoms.pbc.all() and np.all(numbers == numbers[0]):
            found.append(labelled)
    return found


def _hot(elements: Sequence[Labelled]) -> list[Labelled]:
    """Of these configurations, the half with larger forces."""
    ordered = sorted(
        (-float(np.mean(labelled.forces**2)), index)
        for index, labelled in enumerate(elements)
        if labelled.forces is not None and labelled.n_atoms > 1
    )
    return [elements[index] for _, index in ordered[: (len(ordered) + 1) // 2]]


def _atomic_volumes(elements: Sequence[Labelled]) -> dict[int, float]:
    """Volume of an atom of each element, Å³, in its configuration of lowest energy."""
    lowest: dict[int, tuple[float, float]] = {}
    for labelled in elements:
        if labelled.energy is not None:
            z, n = int(labelled.atoms.numbers[0]), labelled.n_atoms
            found = labelled.energy / n, labelled.volume / n
            lowest[z] = min(lowest.get(z, found), found)
    return {z: volume for z, (_, volume) in lowest.items()}


def _mixed(
    atoms: Atoms, alloyed: Sequence[int], volume_z: Mapping[int, float], rng: np.random.Generator
) -> Atoms:
    """With two elements or more, drawn at random, and the volume per atom that is theirs in the mean."""
    chosen = rng.choice(alloyed, size=rng.integers(2, len(alloyed) + 1), replace=False)
    mixed = Atoms(rng.choice(chosen, size=len(atoms)), atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if set(volume_z) >= set(alloyed):
        before, after = (sum(volume_z[int(z)] for z in some.numbers) for some in (atoms, mixed))
        mixed.set_cell(mixed.cell * (after / before) ** (1 / 3), scale_atoms=True)
    return mixed
