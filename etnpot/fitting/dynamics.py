"""Molecules in short dynamics with the potential of a fit: what they fall into becomes constraints of it.

Data of molecules know their bonds and the distances of atoms that are not bonded, and nothing between. What a potential has
there is decided by the ridge, and where it is a hole, dynamics finds it: a hydrogen atom leaves its carbon and falls by
electronvolts. No rule of single pairs finds such holes, since they lie on paths on which several atoms give way; dynamics does.

Copies of training molecules, some four hundred atoms, move at three times the temperature of the data, T_h, but no hotter than
1200 K. Data have the temperature at which the forces of the model are as large: with their mean square F_T^2 at T = 300 K,

    T_h = min(3 T <F^2>_data / F_T^2, 1200 K).                                                                          (1)

Against the potential energy E_0 that a molecule had before, in the mean of 100 fs, it has fallen

1. where a pair of atoms is in the middle of the *gap* of their elements, the largest interval of distances, by ratio, that
   begins at a bond and holds no pair of the training set, with E < E_0 + 0.75 eV: to break a bond costs more;
2. where an atom is hotter than 20 k T_h, or the molecule than 3 T_h, in those of the configurations before with
   E < E_0 - 1.5 sigma, where sigma = sqrt(3N/2) k T_h is the deviation of N harmonic atoms.

The energy of such a configuration enters the loss (`Fall`), until it is no longer too low. Everything is decided by the
potential and the random numbers of the seed, so that a fit that continues from a checkpoint finds the same.

============== =============================== ========
symbol         here                            unit
============== =============================== ========
E_0            ``reference``                   eV
T_h            ``temperature``                 K
============== =============================== ========
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from numpy.typing import NDArray

from etnpot.fitting.dataset import DataSet
from etnpot.fitting.prepared import LossWeights, Prepared
from etnpot.io.structures import Labelled
from etnpot.neighbors import POOL_GROUP, NeighborCache
from etnpot.potential import Potential
from etnpot.workspace import Workspace

__all__ = ["Dynamics", "Fall", "bond_gaps", "packed"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Bonds are at most this times the sum of the covalent radii; a gap is one where the distance grows by this factor; resolution
#: in Å; the parts of a gap between which a pair is neither here nor there.
_BONDED, _GAP_RATIO, _RESOLUTION, _MIDDLE = 1.35, 1.2, 0.01, (0.4, 0.6)
#: Atoms that move, and how many molecules at least and at most.
_ATOMS, _FEWEST, _MOST = 400, 4, 32
#: Time step of hydrogen, that of the lightest atom being in proportion to the root of its mass, and the longest; friction; fs.
_STEP, _LONGEST_STEP, _FRICTION_TIME = 0.5, 2.0, 50.0
#: T_h in units of the temperature of the data, and how hot it may be.
_HOTTER, _HOTTEST = 3.0, 1200.0
#: T at which forces are measured and for how many steps, and the largest mean square of a molecule, in units of the median.
_MEASURING_T, _MEASURING, _OUTLIER = 300.0, 300, 10.0
#: Steps that E_0 is the mean of, and before those of the fall, which may last so long.
_MEMORY, _FALLING = 200, 100
#: An atom is hot with so many k T_h, a molecule at so many T_h.
_HOT_ATOM, _HOT_MOLECULE = 20.0, 3.0
#: E - E_0 of a pair in a gap: what is enough, and what is asked for, eV; that of other falls in units of sigma; how many
#: configurations of one fall.
_BROKEN, _BROKEN_ASKED, _LOW, _FRAMES = 0.75, 1.0, -1.5, 3
#: Distance between molecules, Å.
_APART = 100.0
#: What a fall that is wrong by 1 eV counts for, in units of the mean square of a force component of the data, and what all of
#: them count for at most, in units of that of all components: enough to fill a hole, and no match for the data.
_WEIGHT, _SHARE = 0.3, 3e-4

#: Forces of a molecule that is lost, eV/Å, and coordinates that none has, Å.
_EXPLODED, _FARTHEST = 1e4, 1e4


@dataclass(frozen=True, eq=False)
class Fall:
    """A configuration whose energy is too low.

    Attributes
    ----------
    molecule : int
        Number of the configuration of the training set that it was.
    positions : float64 [n_atoms, 3], Å
    asked, enough : float, eV
        What its energy should be, and what is enough.
    """

    molecule: int
    positions: Floats
    asked: float
    enough: float


def packed(falls: Sequence[Fall]) -> tuple[list[list[float]], Floats]:
    """Falls as plain numbers, for checkpoints and other processes: molecule, asked and enough of each; all positions, [n]."""
    known: list[list[float]] = [[fall.molecule, fall.asked, fall.enough] for fall in falls]
    return known, np.concatenate([np.empty(0), *(fall.positions.ravel() for fall in falls)])


class Dynamics:
    """Dynamics of the molecules of a training set.

    Parameters
    ----------
    data : DataSet
        Of molecules (`applies`).
    cutoff : float, Å
    seed : int
    threads : int, optional
        Of the evaluations.
    forces_weight : float, (Å/eV)², keyword-only
        That of the loss.
    """

    def __init__(
        self,
        data: DataSet,
        cutoff: float,
        seed: int,
        threads: int | None = None,
        *,
        forces_weight: float = 1.0,
    ) -> None:
        self._data, self._cutoff, self._seed, self._threads = data, cutoff, seed, threads
        self._forces_weight = forces_weight
        mean = sum(labelled.n_atoms for labelled in data) / len(data)
        self._n_molecules = int(np.clip(round(_ATOMS / mean), _FEWEST, _MOST))
        #: Atoms that move, about.
        self.n_atoms = round(self._n_molecules * mean)

    @staticmethod
    def applies(data: DataSet) -> bool:
        """Whether the data are molecules with forces: no periodic cell, and more atoms than one."""
        return (
            data.n_forces > 0
            and not any(labelled.atoms.pbc.any() for labelled in data)
            and all(labelled.n_atoms > 1 for labelled in data)
        )

    @cached_property
    def gaps(self) -> Mapping[tuple[int, int], tuple[float, float]]:
        """Those of `bond_gaps`."""
        return bond_gaps(self._data, self._cutoff)

    def temperature(self, potential: Potential) -> float:
        """T_h of eq. (1), K."""
        run = _Run(self, potential, _MEASURING_T, np.random.default_rng([self._seed, 8]))
        squares = []
        for at in range(_MEASURING):
            run.step()
            run.fallen()
            if 2 * at >= _MEASURING:
                squares.append(run.square_m())
        square_sm = np.array(squares)
        # molecules that fall apart do not count
        square = float(np.minimum(square_sm, _OUTLIER * np.median(square_sm)).mean())
        return float(min(_HOTTER * _MEASURING_T * self._data.rms_force**2 / max(square, 1e-300), _HOTTEST))

    def falls(self, potential: Potential, temperature: float, n_steps: int, number: int) -> list[Fall]:
        """What molecules fell into within so many steps; `number` is that of the run, for its random numbers."""
        run = _Run(self, potential, temperature, np.random.default_rng([self._seed, 9, number]))
        found = []
        for _ in range(n_steps):
            run.step()
            found += run.fallen()
        return found

    def unpacked(self, known: Any, positions: Floats) -> list[Fall]:
        """The inverse of `packed`; anything that is none of these data raises ValueError."""
        for molecule, *energies in known:
            if int(molecule) != molecule or not 0 <= molecule < len(self._data):
                raise ValueError(f"the training set has no configuration {molecule!r:.100}")
            if len(energies) != 2 or not np.isfinite(energies).all():
                raise ValueError(f"{energies!r:.100} are no energies")
        sizes = [3 * self._data[int(molecule)].n_atoms for molecule, _, _ in known]
        if len(positions) != sum(sizes) or not np.all(np.abs(positions) < _FARTHEST):
            raise ValueError(
                f"{len(positions)} coordinates are not those of {sum(sizes) // 3} atoms of molecules"
            )
        parts = np.split(positions, np.cumsum(sizes))
        return [
            Fall(int(molecule), part.reshape(-1, 3), float(asked), float(enough))
            for (molecule, asked, enough), part in zip(known, parts, strict=False)
        ]

    def constraints(self, falls: Sequence[Fall]) -> list[Prepared]:
        """The falls as configurations of a fit."""
        share = min(_WEIGHT, _SHARE * self._data.n_forces / max(len(falls), 1))
        scale = self._data.rms_force * float(np.sqrt(share * self._forces_weight))
        made = []
        for fall in falls:
            atoms = self._data[fall.molecule].atoms.copy()
            atoms.positions = fall.positions
            prepared = Prepared.of(Labelled(atoms, energy=fall.asked), self._cutoff, LossWeights())
            made.append(replace(prepared, scale_energy=scale, floor=fall.enough))
        return made


class _Run:
    """Molecules in motion, far from each other on one line."""

    def __init__(
        self, dynamics: Dynamics, potential: Potential, temperature: float, rng: np.random.Generator
    ) -> None:
        data = dynamics._data
        self._potential, self._rng, self._threads = potential, rng, dynamics._threads
        self._molecule_m = rng.integers(len(data), size=dynamics._n_molecules)
        molecules = [data[m].atoms for m in self._molecule_m]
        n_m = np.array([len(atoms) for atoms in molecules])
        self._owner_i, self._first_m = np.repeat(np.arange(len(n_m)), n_m), np.cumsum(n_m) - n_m
        self._n_m, self._start_ic = n_m, self._spread(molecules)
        self._atoms = Atoms(np.concatenate([atoms.numbers for atoms in molecules]), self._start_ic)
        groups = [np.asarray(atoms.arrays.get(POOL_GROUP, np.zeros(len(atoms)))) for atoms in molecules]
        _, group_i = np.unique(np.stack([self._owner_i, np.concatenate(groups)]), axis=1, return_inverse=True)
        self._atoms.set_array(POOL_GROUP, group_i.reshape(-1))
        self._cache = NeighborCache(potential.cutoff, workspace=Workspace())
        mass_i = self._atoms.get_masses()
        step = min(_LONGEST_STEP, _STEP * float(np.sqrt(mass_i.min() / 1.008))) * units.fs
        self._mass_i1, self._step, self._kT = mass_i[:, None], step, units.kB * temperature
        self._kept = float(np.exp(-step / (_FRICTION_TIME * units.fs)))
        self._type_i = potential.type_index(self._atoms.numbers)
        self._gap_zz = _tables(dynamics.gaps, potential.species)
        self._velocity_ic = self._thermal()
        self._history: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY + _FALLING)
        self._age_m = np.zeros(len(n_m), dtype=np.int64)
        self._evaluate()

    def _spread(self, molecules: list[Atoms]) -> Floats:
        placed, x = [], 0.0
        for atoms in molecules:
            place_ic = atoms.positions - atoms.positions.min(axis=0)
            place_ic[:, 0] += x
            x = float(place_ic[:, 0].max()) + _APART
            placed.append(place_ic)
        return np.concatenate(placed)

    def _thermal(self) -> Floats:
        width = np.sqrt(self._kT / self._mass_i1)
        return np.asarray(width * self._rng.normal(size=(len(width), 3)))

    def _evaluate(self) -> None:
        edges = self._cache.edges(self._atoms)
        found = self._potential.evaluate(edges, self._atoms.numbers, threads=self._threads)
        self._force_ic = found.forces
        self._energy_m = np.add.reduceat(found.energy_i, self._first_m)
        types = self._type_i
        low, high = (table[types[edges.center], types[edges.neighbor]] ** 2 for table in self._gap_zz)
        r2_p = np.einsum("pc,pc->p", edges.r_pc, edges.r_pc)
        torn = (low < r2_p) & (r2_p < high)
        self._torn_m = np.bincount(self._owner_i[edges.center[torn]], minlength=len(self._n_m)) > 0

    def step(self) -> None:
        """One step of the splitting BAOAB."""
        half = 0.5 * self._step
        self._velocity_ic += half * self._force_ic / self._mass_i1
        self._atoms.positions += half * self._velocity_ic
        self._velocity_ic *= self._kept
        self._velocity_ic += np.sqrt(1.0 - self._kept**2) * self._thermal()
        self._atoms.positions += half * self._velocity_ic
        self._evaluate()
        self._velocity_ic += half * self._force_ic / self._mass_i1
        self._age_m += 1
        self._history.append((self._energy_m, self._atoms.positions.copy()))

    def square_m(self) -> Floats:
        """Mean square of the force components of every molecule."""
        return np.add.reduceat(np.sum(self._force_ic**2, axis=1), self._first_m) / (3 * self._n_m)

    def fallen(self) -> list[Fall]:
        """Those that have just fallen, each of which begins anew."""
        kinetic_i = 0.5 * self._mass_i1[:, 0] * np.sum(self._velocity_ic**2, axis=1)
        hot_m = np.maximum.reduceat(kinetic_i, self._first_m) > _HOT_ATOM * self._kT
        hot_m |= np.add.reduceat(kinetic_i, self._first_m) > _HOT_MOLECULE * 1.5 * self._n_m * self._kT
        hot_m |= ~(np.maximum.reduceat(np.abs(self._force_ic).max(axis=1), self._first_m) < _EXPLODED)
        found: list[Fall] = []
        restarted = []
        for m in np.flatnonzero(hot_m | self._torn_m).tolist():
            reference = self._reference(m)
            if self._torn_m[m] and self._energy_m[m] < reference + _BROKEN:
                found.append(
                    self._fall(m, self._atoms.positions, reference + _BROKEN_ASKED, reference + _BROKEN)
                )
            elif hot_m[m]:
                enough = reference + _LOW * float(np.sqrt(1.5 * self._n_m[m])) * self._kT
                recent = list(self._history)[-min(int(self._age_m[m]), _FALLING) :]
                low = [place_ic for energy_m, place_ic in recent if energy_m[m] < enough]
                for at in np.unique(np.linspace(0, len(low) - 1, _FRAMES).round().astype(int)) if low else ():
                    found.append(self._fall(m, low[at], reference, enough))
            else:
                continue
            restarted.append(m)
        if restarted:
            self._restart(np.array(restarted))
        return found

    def _reference(self, m: int) -> float:
        """E_0 of a molecule: of those steps since its start that are not of the fall, if there are any."""
        energies = [energy_m[m] for energy_m, _ in list(self._history)[-int(self._age_m[m]) :]]
        return float(np.mean(energies[: max(len(energies) - _FALLING, 1)]))

    def _fall(self, m: int, place_ic: Floats, asked: float, enough: float) -> Fall:
        own = slice(self._first_m[m], self._first_m[m] + self._n_m[m])
        return Fall(int(self._molecule_m[m]), place_ic[own] - place_ic[own].mean(axis=0), asked, enough)

    def _restart(self, molecules: Integers) -> None:
        mine = np.isin(self._owner_i, molecules)
        self._atoms.positions[mine] = self._start_ic[mine]
        self._velocity_ic[mine] = self._thermal()[mine]
        self._age_m[molecules] = 0
        self._evaluate()


def _tables(
    gaps: Mapping[tuple[int, int], tuple[float, float]], species: Sequence[int]
) -> tuple[Floats, Floats]:
    """Beginning and end of the middle of each gap, by pairs of species; empty where there is none."""
    low, high = np.full((len(species),) * 2, np.inf), np.zeros((len(species),) * 2)
    for (z, w), (begin, end) in gaps.items():
        for place in (
            (species.index(z), species.index(w)),
            (species.index(w), species.index(z)),
        ):
            low[place], high[place] = (begin + part * (end - begin) for part in _MIDDLE)
    return low, high


def bond_gaps(data: DataSet, cutoff: float) -> dict[tuple[int, int], tuple[float, float]]:
    """For pairs of elements, the largest interval without a distance of the data, by ratio, that begins at a bond, Å."""
    kinds = np.array(data.species)
    n_bins = int(np.ceil(cutoff / _RESOLUTION))
    seen = np.zeros((len(kinds), len(kinds), n_bins), dtype=bool)
    for labelled in data:
        type_i, place_ic = np.searchsorted(kinds, labelled.atoms.numbers), labelled.atoms.positions
        i, j = np.triu_indices(len(type_i), 1)
        bin_p = (np.linalg.norm(place_ic[i] - place_ic[j], axis=1) / _RESOLUTION).astype(np.int64)
        near = bin_p < n_bins
        low_p, high_p = np.sort([type_i[i[near]], type_i[j[near]]], axis=0)
        seen[low_p, high_p, bin_p[near]] = True
    found = {}
    for a, b in zip(*np.triu_indices(len(kinds)), strict=True):
        z, w = int(kinds[a]), int(kinds[b])
        distances = _RESOLUTION * (np.flatnonzero(seen[a, b]) + 0.5)
        bonded = distances[:-1] < _BONDED * (covalent_radii[z] + covalent_radii[w])
        ratio = np.where(bonded, distances[1:] / distances[:-1], 0.0)
        if len(ratio) and ratio.max() >= _GAP_RATIO:
            at = int(ratio.argmax())
            found[z, w] = float(distances[at]), float(distances[at + 1])
    return found
