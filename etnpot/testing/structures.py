"""Random structures of low symmetry with a guaranteed minimum distance.

A crystal of N atoms has volume V = N v in a random triclinic cell A = V^(1/3) det(M)^(-1/3) M Q, M the
identity plus noise, Q a random rotation. Positions are uniform; then every pair closer than d_min is
pushed apart along its own direction,

    x_j - x_i = r_ij,  |r_ij| < d_min:   x_i -= w r_ij / |r_ij|,  x_j += w r_ij / |r_ij|,
    w = (d_min - |r_ij|) / 2,

until none is left (periodic images included). A molecule grows atom by atom, each within reach of an
earlier one.

======== ======================= =======
symbol   variable                unit
======== ======================= =======
A        ``cell_cc``             Å
v        ``volume_per_atom``     Å³
d_min    ``min_distance``        Å
======== ======================= =======
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from etnpot.errors import SpeciesError, SpecificationError, StructureError
from etnpot.testing.evaluation import require_positive
from etnpot.testing.symmetries import random_rotation

__all__ = ["default_min_distance", "default_volume_per_atom", "random_molecule", "random_structure"]

#: Default minimum distance in units of the mean covalent diameter.
_DISTANCE_FACTOR = 0.85

#: Default volume per atom in units of the mean covalent diameter cubed.
_VOLUME_FACTOR = 0.8

#: Packing fraction of spheres of diameter d_min beyond which a random packing is refused.
_MAX_PACKING = 0.58

_MAX_SWEEPS = 4000


def checked_species(species: Sequence[str]) -> list[str]:
    """The species as a list, or a `SpeciesError` that names what is no chemical symbol."""
    if isinstance(species, str) or len(species) == 0:
        raise SpeciesError(f"species must be a non-empty sequence of chemical symbols, got {species!r}")
    unknown = [symbol for symbol in species if atomic_numbers.get(symbol, 0) < 1]
    if unknown:
        raise SpeciesError(f"species must be chemical symbols, got {unknown}; correct or remove them")
    return list(species)


def _mean_diameter(species: Sequence[str]) -> float:
    radii = [covalent_radii[atomic_numbers[symbol]] for symbol in checked_species(species)]
    return 2.0 * float(np.mean(radii))


def default_min_distance(species: Sequence[str]) -> float:
    """Minimum distance that suits the species: 0.85 of their mean covalent diameter [Å]."""
    return _DISTANCE_FACTOR * _mean_diameter(species)


def default_volume_per_atom(species: Sequence[str]) -> float:
    """Volume per atom that suits the species: 0.8 of their mean covalent diameter cubed [Å³]."""
    return _VOLUME_FACTOR * _mean_diameter(species) ** 3


def _symbols(species: list[str], n_atoms: int, rng: np.random.Generator) -> list[str]:
    """Random symbols; every species occurs where there are atoms enough."""
    if n_atoms < 1:
        raise SpecificationError(f"n_atoms must be at least 1, got {n_atoms}")
    first = [species[k] for k in rng.permutation(len(species))[:n_atoms]]
    rest = [species[k] for k in rng.integers(len(species), size=n_atoms - len(first))]
    symbols = first + rest
    return [symbols[k] for k in rng.permutation(n_atoms)]


def _image_shifts(
    cell_cc: NDArray[np.float64], pbc: NDArray[np.bool_], distance: float
) -> NDArray[np.float64]:
    """Lattice translations [Å] that can bring wrapped atoms within ``distance``; zero comes first."""
    heights_c = 1.0 / np.linalg.norm(np.linalg.inv(cell_cc), axis=0)
    reach = [
        int(np.ceil(distance / height + 0.5)) if flag else 0
        for height, flag in zip(heights_c, pbc, strict=True)
    ]
    grids = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    images = np.stack(grids, axis=-1).reshape(-1, 3)
    images = images[np.argsort(np.abs(images).sum(axis=1), kind="stable")]
    return np.asarray(images @ cell_cc, dtype=float)


def _random_cell(
    volume: float, pbc: NDArray[np.bool_], triclinic: bool, min_distance: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A random cell of that volume in which no atom is within ``min_distance`` of its own images."""
    for _ in range(200):
        shape_cc = np.eye(3)
        if triclinic:
            shape_cc = rng.uniform(-0.25, 0.25, (3, 3))
            np.fill_diagonal(shape_cc, rng.uniform(0.85, 1.15, 3))
            shape_cc = shape_cc @ random_rotation(rng)
        cell_cc = shape_cc * np.cbrt(volume / abs(np.linalg.det(shape_cc)))
        shifts = _image_shifts(cell_cc, pbc, min_distance)[1:]
        if not (np.linalg.norm(shifts, axis=1) < min_distance).any():
            return cell_cc
        if not triclinic:
            break
    raise StructureError(
        f"no cell of {volume:.3g} Å³ keeps an atom {min_distance:.3g} Å away from its own periodic images; "
        "raise volume_per_atom or n_atoms, or lower min_distance"
    )


def random_structure(
    species: Sequence[str],
    n_atoms: int,
    rng: np.random.Generator,
    *,
    triclinic: bool = True,
    pbc: bool | Sequence[bool] = True,
    min_distance: float | None = None,
    volume_per_atom: float | None = None,
) -> Atoms:
    """Random multicomponent cell without symmetry and without close pairs.

    Parameters
    ----------
    species : sequence of str
        Chemical symbols; each occurs at least once if ``n_atoms`` allows.
    n_atoms : int
        Number of atoms.
    rng : Generator
        Source of randomness.
    triclinic : bool
        A skewed and rotated cell (True) or a cube along the axes (False).
    pbc : bool or three of them
        Periodic directions. The cell is the same for all choices; vacuum is not added.
    min_distance : float, optional
        No two atoms, images included, are closer [Å]; by default 0.85 of the mean covalent diameter.
    volume_per_atom : float, optional
        Volume per atom [Å³]; by default 0.8 of the mean covalent diameter cubed.

    Returns
    -------
    Atoms

    Raises
    ------
    StructureError
        If the volume is too small for that many atoms at that distance.
    """
    elements = checked_species(species)
    if min_distance is None:
        min_distance = default_min_distance(elements)
    distance = require_positive("min_distance", min_distance)
    if volume_per_atom is None:
        volume_per_atom = default_volume_per_atom(elements)
    atom_volume = require_positive("volume_per_atom", volume_per_atom)
    symbols = _symbols(elements, n_atoms, rng)
    periodic = np.broadcast_to(np.array(pbc, dtype=bool), (3,))
    packing = np.pi * distance**3 / (6.0 * atom_volume)
    too_dense = StructureError(
        f"{n_atoms} atoms at {atom_volume:.3g} Å³ each, {distance:.3g} Å apart, fill {packing:.0%} of space, "
        "too dense for a random arrangement; raise volume_per_atom or lower min_distance"
    )
    if packing > _MAX_PACKING and n_atoms > 1:
        raise too_dense
    cell_cc = _random_cell(n_atoms * atom_volume, periodic, triclinic, distance, rng)
    shifts = _image_shifts(cell_cc, periodic, distance)
    i, j = np.triu_indices(n_atoms, k=1)
    scaled_ic = rng.random((n_atoms, 3))
    for _ in range(_MAX_SWEEPS):
        scaled_ic = np.where(periodic, scaled_ic % 1.0, np.clip(scaled_ic, 0.0, 1.0))
        difference_pc = scaled_ic[j] - scaled_ic[i]
        difference_pc = np.where(periodic, difference_pc - np.rint(difference_pc), difference_pc)
        r_psc = (difference_pc @ cell_cc)[:, None, :] + shifts
        r_ps = np.linalg.norm(r_psc, axis=2)
        p, s = np.nonzero(r_ps < distance)
        if len(p) == 0:
            positions_ic = scaled_ic @ cell_cc
            return Atoms(symbols, positions=positions_ic, cell=cell_cc, pbc=periodic)
        # unit vectors with a floor, so that coinciding atoms give no NaN; the noise below parts them
        push = 0.5 * (1.02 * distance - r_ps[p, s]) / np.maximum(r_ps[p, s], 1e-9)
        move_pc = push[:, None] * r_psc[p, s]
        move_ic = np.zeros((n_atoms, 3))
        np.add.at(move_ic, i[p], -move_pc)
        np.add.at(move_ic, j[p], move_pc)
        close_i = np.isin(np.arange(n_atoms), np.concatenate([i[p], j[p]]))
        move_ic[close_i] += 1e-3 * distance * rng.standard_normal((np.count_nonzero(close_i), 3))
        scaled_ic = scaled_ic + np.linalg.solve(cell_cc.T, move_ic.T).T
    raise too_dense


def random_molecule(
    species: Sequence[str],
    n_atoms: int,
    rng: np.random.Generator,
    *,
    min_distance: float | None = None,
    reach: float = 1.4,
) -> Atoms:
    """Random connected cluster without cell, symmetry or close pairs.

    Parameters
    ----------
    species : sequence of str
        Chemical symbols; each occurs at least once if ``n_atoms`` allows.
    n_atoms : int
        Number of atoms.
    rng : Generator
        Source of randomness.
    min_distance : float, optional
        No two atoms are closer [Å]; by default 0.85 of the mean covalent diameter.
    reach : float
        Every atom has a neighbour within ``reach * min_distance``; above 1.

    Returns
    -------
    Atoms
    """
    elements = checked_species(species)
    if min_distance is None:
        min_distance = default_min_distance(elements)
    distance = require_positive("min_distance", min_distance)
    if not reach > 1.0:
        raise SpecificationError(f"reach must be above 1, got {reach!r}")
    symbols = _symbols(elements, n_atoms, rng)
    positions_ic = np.zeros((n_atoms, 3))
    n_placed = 1
    while n_placed < n_atoms:
        direction_c = rng.standard_normal(3)
        direction_c *= rng.uniform(1.0, reach) * distance / np.linalg.norm(direction_c)
        candidate_c = positions_ic[rng.integers(n_placed)] + direction_c
        if np.linalg.norm(positions_ic[:n_placed] - candidate_c, axis=1).min() >= distance:
            positions_ic[n_placed] = candidate_c
            n_placed += 1
    return Atoms(symbols, positions=positions_ic @ random_rotation(rng).T, pbc=False)
