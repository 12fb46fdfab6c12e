"""The data set of a fit: labelled configurations, what they hold, and the energies of the free atoms.

Reference energies by least squares minimise, over the configurations s that have an energy E_s,

    sum_s (E_s / N_s - ē - sum_z c_sz δ_z)²  +  λ² |δ|²,        e_z = ē + δ_z,

where c_sz is the fraction of element z and ē the mean energy per atom. The small ridge λ (relative to the
largest singular value of c) picks the solution nearest to ē when compositions do not determine the elements
one by one (a single molecule, a fixed stoichiometry); it shifts a determined solution by about (λ s_max/s)²
only.

======== ============================== ========
symbol   variable                       unit
======== ============================== ========
E_s      ``Labelled.energy``            eV
N_s      ``Labelled.n_atoms``
c_sz     ``fraction`` [s, z]
e_z      returned ``{z: energy}``       eV
λ        ``ridge * s_max``
======== ============================== ========
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from etnpot.errors import DataError, SpeciesError, SpecificationError
from etnpot.io.structures import UNGROUPED, Labelled, read_structures
from etnpot.metrics import format_table
from etnpot.neighbors import POOL_GROUP

__all__ = ["DataSet", "configuration_digest", "is_isolated_atom", "reference_energies"]

logger = logging.getLogger(__name__)

#: Groups whose one-atom frames are free atoms whatever their cell.
_ISOLATED_GROUPS = {"isolatedatom", "isolated_atom", "isolated"}

#: A lone atom is free if its periodic images are at least this far away, Å.
ISOLATED_DISTANCE = 6.0


class DataSet(Sequence[Labelled]):
    """An immutable sequence of labelled configurations.

    Parameters
    ----------
    configurations
        The configurations, in order.
    """

    def __init__(self, configurations: Iterable[Labelled] = ()) -> None:
        self._configurations = tuple(configurations)
        self._shortest: dict[float, dict[tuple[int, int], float]] = {}

    @classmethod
    def from_files(cls, paths: str | Path | Sequence[str | Path], **options: Any) -> DataSet:
        """Read one or several files; `options` are those of `etnpot.io.structures.read_structures`."""
        return cls(read_structures(paths, **options))

    @classmethod
    def from_atoms(cls, atoms: Atoms | Sequence[Atoms], **options: Any) -> DataSet:
        """Take Atoms whose calculators, info or arrays hold the labels."""
        return cls(read_structures(atoms, **options))

    # ---------------------------------------------------------------------------------------- sequence

    def __len__(self) -> int:
        return len(self._configurations)

    @overload
    def __getitem__(self, index: int) -> Labelled: ...

    @overload
    def __getitem__(self, index: slice) -> DataSet: ...

    def __getitem__(self, index: int | slice) -> Labelled | DataSet:
        if isinstance(index, slice):
            return DataSet(self._configurations[index])
        return self._configurations[index]

    def __add__(self, other: DataSet) -> DataSet:
        if not isinstance(other, DataSet):
            return NotImplemented
        return DataSet((*self._configurations, *other._configurations))

    def subset(self, indices: Iterable[int]) -> DataSet:
        """The configurations at `indices`, in that order."""
        return DataSet(self._configurations[i] for i in indices)

    def __repr__(self) -> str:
        symbols = " ".join(chemical_symbols[z] for z in self.species)
        return f"DataSet({len(self)} configurations, {self.n_atoms} atoms, {symbols or 'no elements'})"

    # ---------------------------------------------------------------------------------------- contents

    @cached_property
    def n_atoms(self) -> int:
        """Number of atoms of all configurations."""
        return sum(c.n_atoms for c in self)

    @cached_property
    def n_energies(self) -> int:
        """Number of configurations with an energy."""
        return sum(c.energy is not None for c in self)

    @cached_property
    def n_forces(self) -> int:
        """Number of force components (three per atom of each configuration that has forces)."""
        return sum(c.forces.size for c in self if c.forces is not None)

    @cached_property
    def rms_force(self) -> float:
        """Root mean square of the force components, eV/Å; 1 without forces."""
        squares = sum(float((c.forces**2).sum()) for c in self if c.forces is not None)
        return float(np.sqrt(squares / self.n_forces)) if self.n_forces else 1.0

    @cached_property
    def n_stresses(self) -> int:
        """Number of configurations with a stress."""
        return sum(c.stress is not None for c in self)

    @property
    def n_rows(self) -> int:
        """Number of labels: energies, force components, and six components of each stress."""
        return self.n_energies + self.n_forces + 6 * self.n_stresses

    @cached_property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers present, ascending."""
        return tuple(sorted({int(z) for c in self for z in c.atoms.numbers}))

    @cached_property
    def groups(self) -> dict[str, int]:
        """Number of configurations of each group, by name; `UNGROUPED` for those that name none."""
        return dict(sorted(Counter(c.group or UNGROUPED for c in self).items()))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the contents, in hexadecimal; see `configuration_digest`. Independent of the order."""
        total = hashlib.sha256(b"etnpot data set 1")
        for digest in sorted(configuration_digest(c) for c in self):
            total.update(digest)
        return total.hexdigest()

    def check_against(self, train: DataSet, *, name: str = "validation set") -> None:
        """Raise DataError if this set holds an element that `train` does not."""
        known = set(train.species)
        unknown = [z for z in self.species if z not in known]
        if not unknown:
            return
        frames = {z: next(c.name for c in self if z in c.atoms.numbers) for z in unknown}
        found = "; ".join(f"{chemical_symbols[z]} (first in {frame})" for z, frame in frames.items())
        raise DataError(
            f"the {name} contains elements that the training set ({_symbols(train.species)}) lacks: {found}; "
            "remove those configurations or add such to the training set"
        )

    def min_distances(self, cutoff: float = 4.0) -> dict[tuple[int, int], float]:
        """Shortest distance of each pair of elements, Å.

        Parameters
        ----------
        cutoff
            Pairs farther apart than this are not looked at, Å.

        Returns
        -------
        dict of (int, int) to float
            Keyed by atomic numbers in ascending order; pairs that never come closer than `cutoff` are absent.
        """
        from etnpot.neighbors import neighbor_list

        if cutoff in self._shortest:
            return dict(self._shortest[cutoff])
        shortest: dict[tuple[int, int], float] = {}
        for configuration in self:
            edges = neighbor_list(configuration.atoms, cutoff)
            if not len(edges.neighbor):
                continue
            numbers = configuration.atoms.numbers
            distance = np.sqrt(np.einsum("pc,pc->p", edges.r_pc, edges.r_pc))
            z_centre, z_neighbor = numbers[edges.center], numbers[edges.neighbor]
            code = np.minimum(z_centre, z_neighbor) * 1000 + np.maximum(z_centre, z_neighbor)
            order = np.lexsort((distance, code))
            pairs, first = np.unique(code[order], return_index=True)
            for pair, value in zip(pairs, distance[order][first], strict=True):
                key = (int(pair) // 1000, int(pair) % 1000)
                shortest[key] = min(float(value), shortest.get(key, np.inf))
        self._shortest[cutoff] = dict(sorted(shortest.items()))
        return dict(self._shortest[cutoff])

    # ---------------------------------------------------------------------------------------- table

    def table(self, *, distances: bool = False) -> str:
        """What was read, per file and per element, as a table for people.

        Parameters
        ----------
        distances
            Add the shortest distance of each element to any atom (costs a neighbour list per configuration).
        """
        sources = list(dict.fromkeys(c.source for c in self))
        rows = []
        for source in sources:
            part = self.subset(i for i, c in enumerate(self) if c.source == source)
            rows.append([_short(source), *part._counts()])
        if len(sources) != 1:
            rows.append(["total", *self._counts()])
        head = ["file", "configurations", "atoms", "energies", "force components", "stresses"]
        return format_table(head, rows) + "\n\n" + self._element_table(distances)

    def _counts(self) -> list[str]:
        return [f"{n:,}" for n in (len(self), self.n_atoms, self.n_energies, self.n_forces, self.n_stresses)]

    def _element_table(self, distances: bool) -> str:
        shortest = self.min_distances() if distances else {}
        n_atoms: Counter[int] = Counter()
        n_configurations: Counter[int] = Counter()
        n_energies: Counter[int] = Counter()
        n_forces: Counter[int] = Counter()
        n_stresses: Counter[int] = Counter()
        for c in self:
            count = {
                int(z): int(n) for z, n in zip(*np.unique(c.atoms.numbers, return_counts=True), strict=True)
            }
            n_atoms.update(count)
            n_configurations.update(count.keys())
            if c.energy is not None:
                n_energies.update(count.keys())
            if c.forces is not None:
                n_forces.update({z: 3 * n for z, n in count.items()})
            if c.stress is not None:
                n_stresses.update(count.keys())
        head = ["element", "configurations", "atoms", "energies", "force components", "stresses"]
        rows = []
        for z in self.species:
            row = [chemical_symbols[z]]
            row += [
                f"{count[z]:,}" for count in (n_configurations, n_atoms, n_energies, n_forces, n_stresses)
            ]
            if distances:
                near = [d for pair, d in shortest.items() if z in pair]
                row.append(f"{min(near):.3f}" if near else "-")
            rows.append(row)
        return format_table([*head, "nearest (Å)"] if distances else head, rows)


def configuration_digest(configuration: Labelled) -> bytes:
    """SHA-256 of what a fit sees of one configuration.

    Elements, positions, cell, periodicity, groups of atoms, labels, weights and group count; file name, frame number and other
    entries do not. Numbers enter as little-endian float64, with -0 as 0.
    """
    digest = hashlib.sha256()

    def add(tag: str, value: Any) -> None:
        digest.update(tag.encode())
        if value is None:
            digest.update(b"none")
            return
        array = np.ascontiguousarray(value, dtype="<f8") + 0.0
        digest.update(repr(array.shape).encode())
        digest.update(array.tobytes())

    atoms = configuration.atoms
    add("numbers", atoms.numbers)
    add("positions", atoms.positions)
    add("cell", atoms.cell.array)
    add("pbc", atoms.pbc)
    if POOL_GROUP in atoms.arrays:
        add(POOL_GROUP, atoms.arrays[POOL_GROUP])
    add("energy", configuration.energy)
    add("forces", configuration.forces)
    add("stress", configuration.stress)
    c = configuration
    add("weights", [c.weight, c.energy_weight, c.forces_weight, c.stress_weight])
    digest.update(repr(configuration.group).encode())
    return digest.digest()


def is_isolated_atom(configuration: Labelled) -> bool:
    """Whether a configuration is one free atom: no periodic image nearer than `ISOLATED_DISTANCE`."""
    atoms = configuration.atoms
    if len(atoms) != 1:
        return False
    if (configuration.group or "").lower() in _ISOLATED_GROUPS or not np.any(atoms.pbc):
        return True
    from ase.geometry import minkowski_reduce

    reduced, _ = minkowski_reduce(atoms.cell.array, atoms.pbc)
    return bool(np.all(np.linalg.norm(reduced[atoms.pbc], axis=1) >= ISOLATED_DISTANCE))


def reference_energies(
    dataset: Sequence[Labelled],
    method: str | Mapping[str, float] | Mapping[int, float] = "least_squares",
    *,
    ridge: float = 1e-5,
) -> dict[int, float]:
    """Energy of each element that a fit subtracts first.

    Parameters
    ----------
    dataset
        Configurations with energies.
    method
        ``"least_squares"``: from compositions (module docstring). ``"isolated"``: from configurations of
        one free atom (`is_isolated_atom`). Or the energies themselves, eV, by symbol or atomic number.
    ridge
        Relative strength of the ridge of the least squares.

    Returns
    -------
    dict of int to float
        eV by atomic number, for every element of `dataset`. All zero if no configuration has an energy.

    Raises
    ------
    DataError
        An element has no isolated atom, two different ones, or no given energy.
    """
    species = sorted({int(z) for c in dataset for z in c.atoms.numbers})
    if isinstance(method, Mapping):
        return _given_energies(species, method)
    if method == "isolated":
        return _isolated_energies(dataset, species)
    if method == "least_squares":
        return _least_squares_energies(dataset, species, ridge)
    raise SpecificationError(
        f"unknown method {method!r} for the reference energies; give 'least_squares', 'isolated' or a "
        "mapping such as {'Mo': -4.6}"
    )


def _given_energies(
    species: Sequence[int], given: Mapping[str, float] | Mapping[int, float]
) -> dict[int, float]:
    energies: dict[int, float] = {}
    for element, energy in given.items():
        z = atomic_numbers.get(element, 0) if isinstance(element, str) else element
        if not isinstance(z, int | np.integer) or not 1 <= z < len(chemical_symbols):
            raise SpeciesError(f"the reference energies name {element!r}, which is no element")
        if not isinstance(energy, int | float | np.number) or not np.isfinite(float(energy)):
            raise DataError(
                f"the reference energy of {chemical_symbols[z]} must be a finite number, got {energy!r}"
            )
        energies[z] = float(energy)
    missing = [z for z in species if z not in energies]
    if missing:
        raise DataError(
            f"reference energies were given for {_symbols(sorted(energies))}, but the data also contain "
            f"{_symbols(missing)}; add these"
        )
    return {z: energies[z] for z in species}


def _isolated_energies(dataset: Sequence[Labelled], species: Sequence[int]) -> dict[int, float]:
    energies: dict[int, float] = {}
    frames: dict[int, str] = {}
    for c in dataset:
        if c.energy is None or not is_isolated_atom(c):
            continue
        z = int(c.atoms.numbers[0])
        if z in energies and abs(energies[z] - c.energy) > 1e-6:
            raise DataError(
                f"two isolated {chemical_symbols[z]} atoms have different energies: {energies[z]:.6f} eV "
                f"({frames[z]}) and {c.energy:.6f} eV ({c.name}); keep one"
            )
        energies.setdefault(z, c.energy)
        frames.setdefault(z, c.name)
    missing = [z for z in species if z not in energies]
    if missing:
        raise DataError(
            f"no isolated atom with an energy for {_symbols(missing)}: expected a configuration of one atom "
            f"without periodic images nearer than {ISOLATED_DISTANCE:g} Å; add one, give the energy, or use "
            "'least_squares'"
        )
    return {z: energies[z] for z in species}


def _least_squares_energies(
    dataset: Sequence[Labelled], species: Sequence[int], ridge: float
) -> dict[int, float]:
    if not (np.isfinite(ridge) and ridge >= 0):
        raise SpecificationError(f"ridge must be a finite number >= 0, got {ridge}")
    labelled = [c for c in dataset if c.energy is not None and c.n_atoms]
    if not labelled:
        logger.info("no energies in the data: reference energies are zero")
        return dict.fromkeys(species, 0.0)
    fraction = np.array(
        [[np.count_nonzero(c.atoms.numbers == z) / c.n_atoms for z in species] for c in labelled]
    )
    per_atom = np.array([c.energy / c.n_atoms for c in labelled if c.energy is not None])
    absent = [z for z, column in zip(species, fraction.T, strict=True) if not np.any(column)]
    if absent:
        logger.warning(
            "no energy of a configuration with %s: its reference energy is a mean", _symbols(absent)
        )
    mean = float(np.mean(per_atom))
    u, s, vt = np.linalg.svd(fraction, full_matrices=False)
    damped = s / (s**2 + (ridge * s[0]) ** 2)
    damped[s <= len(s) * np.finfo(np.float64).eps * s[0]] = 0.0
    delta = vt.T @ (damped * (u.T @ (per_atom - mean)))
    return {z: mean + float(d) for z, d in zip(species, delta, strict=True)}


def _short(source: str | None) -> str:
    """A file name short enough for a table."""
    if source is None:
        return "(Atoms)"
    return source if len(source) <= 48 else "..." + source[-45:]


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in numbers) or "none"
