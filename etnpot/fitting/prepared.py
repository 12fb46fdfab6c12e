"""Configurations ready for a fit, and batches of them.

Small configurations fill the lanes of the kernels badly and have the interpreter between every two calls. So energies,
forces and gradients are computed for a batch of configurations at once: one edge list with the atoms of all of them one
after another, none of which is a neighbour of those of another configuration.

The rows of a configuration, each weighted, are its energy, dE/dx of every atom, and its virial:

    r = [w_E E, w_F dE/dx_0x, dE/dx_0y, ..., w_V W_xx, ... W_xy],     zero where there is no label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from etnpot.conventions import VOIGT
from etnpot.errors import SpecificationError
from etnpot.io.structures import Labelled
from etnpot.neighbors import EdgeList, check_distances, check_structure, neighbor_list
from etnpot.potential import Potential

__all__ = ["Batch", "LossWeights", "Prepared", "batches"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Atoms of a batch, if there are enough for this many batches.
_BATCH_ATOMS, _LEAST_BATCHES = 512, 16
#: An energy that is wrong by more, eV, counts less than its square.
_TOLERABLE = 1.0
#: The error of forces that are guesses, in units of their root mean square, and the most that they count for.
_GUESS_ERROR, _GUESS_WEIGHT = 0.15, 0.1
#: Forces smaller than this part of those of the single pairs vanish by symmetry.
_AT_REST = 1e-3


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss.

    Parameters
    ----------
    energy : float, 1/eV²
        w_E.
    forces : float, (Å/eV)²
        w_F.
    stress : float, Å³/eV²
        w_S.
    alpha : float
        Exponent of the number of atoms under the energy term: 2 weighs the energy per atom, 1 (the default) counts a
        configuration of N atoms like N independent ones.
    """

    energy: float = 10.0
    forces: float = 1.0
    stress: float = 10.0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        for name in ("energy", "forces", "stress"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1e15:
                raise SpecificationError(f"{name} weight: expected a number from 0 to 1e15, got {value!r}")
        if not _is_number(self.alpha) or not 0 <= self.alpha <= 2:
            raise SpecificationError(f"alpha: expected a number from 0 to 2, got {self.alpha!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


@dataclass(frozen=True, eq=False)
class Prepared:
    """One configuration, ready for the fit.

    Attributes
    ----------
    edges, numbers
        As for `Potential.evaluate`.
    energy : float or None, eV
    forces : float64 [n_atoms, 3] or None, eV/Å
    virial : float64 [6] or None, eV
        Volume times stress, Voigt order.
    volume : float, Å³
    scale_energy, scale_virial : float
    scale_forces : float or float64 [n_atoms, 3]
        Square roots of the weights of the rows: of E, of F, and of the virial.
    enough : float
        Of a constraint on forces, the part of them that it is content with.
    floor : float or None, eV
        Of a constraint on the energy, the one that it is content with.
    at_rest : bool
        Whether by symmetry no potential has forces on its atoms: derivatives of those rows vanish.
    guess : callable or None
        Of a constraint, the forces that it asks a potential for, in place of its own (`etnpot.fitting.alloys`).
    """

    edges: EdgeList
    numbers: NDArray[np.int64]
    energy: float | None
    forces: Floats | None
    virial: Floats | None
    volume: float
    scale_energy: float
    scale_forces: float | Floats
    scale_virial: float
    enough: float = 0.0
    floor: float | None = None
    at_rest: bool = False
    guess: Callable[[Potential], Floats] | None = None

    @classmethod
    def of(cls, labelled: Labelled, cutoff: float, weights: LossWeights) -> Prepared:
        """Edges, checked, and row weights of a labelled configuration."""
        atoms = labelled.atoms
        check_structure(atoms)
        listed = neighbor_list(atoms, cutoff)
        check_distances(listed)
        edges = replace(listed, shift=None)  # images are of no use here
        volume = labelled.volume
        stress = labelled.stress if volume > 0 else None
        w = labelled.weight
        return cls(
            edges=edges,
            numbers=np.asarray(atoms.numbers, dtype=np.int64),
            energy=labelled.energy,
            forces=labelled.forces,
            virial=None if stress is None else volume * np.asarray(stress),
            volume=volume,
            scale_energy=float(
                np.sqrt(w * labelled.energy_weight * weights.energy / edges.n_atoms**weights.alpha)
            ),
            scale_forces=float(np.sqrt(w * labelled.forces_weight * weights.forces)),
            scale_virial=0.0
            if stress is None
            else float(np.sqrt(w * labelled.stress_weight * weights.stress / volume)),
        )

    @property
    def cost(self) -> int:
        """Rough relative cost of its Jacobian."""
        return self.edges.n_pairs + self.edges.n_atoms

    @property
    def has_forces(self) -> bool:
        """Whether its forces carry weight."""
        return self.forces is not None and bool(np.any(self.scale_forces))

    @property
    def has_virial(self) -> bool:
        """Whether its virial carries weight."""
        return self.virial is not None and self.scale_virial > 0

    @property
    def n_rows(self) -> int:
        """Labelled rows that carry weight."""
        return (
            (self.energy is not None and self.scale_energy > 0)
            + self.has_forces * 3 * self.edges.n_atoms
            + self.has_virial * 6
        )

    def demanded(self, enough: float) -> Prepared:
        """A constraint: of its forces those components count that are not zero, until the potential has `enough` of them."""
        assert self.forces is not None
        return replace(self, scale_forces=self.scale_forces * (self.forces != 0), enough=enough)

    def guessed(self, potential: Potential, forces_rmse: float) -> Prepared | None:
        """A constraint with the forces that it asks this potential for, weighed as its guess is good; None where there is none.

        `forces_rmse`, eV/Å, is the error of the potential on data, which counts for one.
        """
        assert self.guess is not None
        forces = None if potential.spec.layers else self.guess(potential)
        if forces is None or forces_rmse <= 0.0:
            return None
        wrong = _GUESS_ERROR * float(np.sqrt(np.mean(forces**2)))
        weight = min(_GUESS_WEIGHT, (forces_rmse / wrong) ** 2) if wrong > 0 else _GUESS_WEIGHT
        return replace(self, forces=forces).weighed(weight)

    def fails(self, energy: float, forces: Floats) -> bool:
        """A constraint: whether the forces found have the wrong sign, or the energy is not enough."""
        return energy < self.floor if self.floor is not None else self._along(forces)[0] <= 0.0

    def counting(self, energy: float, forces: Floats) -> Prepared | None:
        """A constraint as it counts in a step from a potential with this energy and these forces; None if it does not."""
        if self.floor is not None:
            assert self.energy is not None
            there, enough, asked = energy, self.floor, self.energy
        else:
            there, asked = self._along(forces)
            enough = self.enough * asked
        if there >= asked:
            return None
        return self._tempered(energy, forces) if there < enough else self._held(energy, forces)

    def _along(self, forces: Floats) -> tuple[float, float]:
        """Of forces found and of those asked for, the part along the latter."""
        assert self.forces is not None
        return float(np.vdot(forces, self.forces)), float(np.vdot(self.forces, self.forces))

    def _held(self, energy: float, forces: Floats) -> Prepared:
        """That is met: what counts should stay what it is."""
        if self.forces is None:
            return replace(self, energy=energy)
        return replace(self, forces=np.where(self.forces != 0, forces, 0.0))

    def _tempered(self, energy: float, forces: Floats) -> Prepared:
        """Weighed down in proportion (Huber) where forces are wrong by more than no forces are, or an energy by 1 eV."""
        if self.forces is None:
            assert self.energy is not None
            tolerable, wrong = _TOLERABLE, abs(energy - self.energy)
        else:
            tolerable = float(np.linalg.norm(self.scale_forces * self.forces))
            wrong = float(np.linalg.norm(self.scale_forces * (forces - self.forces)))
        return self if wrong <= tolerable else self.weighed(tolerable / wrong)

    def probed(self, potential: Potential) -> Prepared:
        """With `at_rest` as a random potential tells: where the forces of the pairs cancel on every atom."""
        found = potential.evaluate(self.edges, self.numbers, threads=1)
        scale = float(np.vdot(found.dE_dr_pc, found.dE_dr_pc))
        return replace(self, at_rest=float(np.vdot(found.forces, found.forces)) <= _AT_REST**2 * scale)

    def weighed(self, factor: float) -> Prepared:
        """With the weight of every row times `factor`."""
        root = np.sqrt(factor)
        return replace(
            self,
            scale_energy=self.scale_energy * root,
            scale_forces=self.scale_forces * root,
            scale_virial=self.scale_virial * root,
        )


class Batch:
    """Configurations whose atoms are evaluated together.

    Parameters
    ----------
    configurations : sequence of Prepared
    start : int
        Number of the first among those of the problem.
    """

    def __init__(self, configurations: Sequence[Prepared], start: int) -> None:
        self.start, self.stop = start, start + len(configurations)
        n_atoms = np.array([c.edges.n_atoms for c in configurations], dtype=np.int64)
        n_pairs = np.array([c.edges.n_pairs for c in configurations], dtype=np.int64)
        self._atom_k, pair_k = np.cumsum(n_atoms) - n_atoms, np.cumsum(n_pairs) - n_pairs
        rows = [c.edges.first[:-1] + pair for c, pair in zip(configurations, pair_k, strict=True)]
        self._edges = EdgeList(
            np.concatenate([*rows, [n_pairs.sum()]]),
            np.concatenate(
                [c.edges.neighbor + atom for c, atom in zip(configurations, self._atom_k, strict=True)]
            ),
            np.concatenate([c.edges.r_pc for c in configurations]),
            group=_groups([c.edges for c in configurations]),
        )
        self._numbers = np.concatenate([c.numbers for c in configurations])
        self._owner_i = np.repeat(np.arange(len(configurations)), n_atoms)
        # places of the kinds of rows in those of all configurations, one after another
        self._first_k = np.cumsum(3 * n_atoms + 7) - (3 * n_atoms + 7)
        self._n_rows = int((3 * n_atoms + 7).sum())
        within_i = np.arange(len(self._owner_i)) - self._atom_k[self._owner_i]
        self._forces_ic = (self._first_k[self._owner_i] + 1 + 3 * within_i)[:, None] + np.arange(3)
        self._virial_kv = (self._first_k + 1 + 3 * n_atoms)[:, None] + np.arange(6)
        # references, and scales that vanish where there are none
        self._energy_k = np.array([0.0 if c.energy is None else c.energy for c in configurations])
        self._force_ic = np.concatenate(
            [np.zeros((c.edges.n_atoms, 3)) if c.forces is None else c.forces for c in configurations]
        )
        self._reference_kv = np.array([np.zeros(6) if c.virial is None else c.virial for c in configurations])
        self._scale_energy_k = np.array([0.0 if c.energy is None else c.scale_energy for c in configurations])
        self._scale_forces_ic = np.concatenate(
            [
                np.broadcast_to(0.0 if c.forces is None else c.scale_forces, (c.edges.n_atoms, 3))
                for c in configurations
            ]
        )
        self._scale_virial_k = np.array([0.0 if c.virial is None else c.scale_virial for c in configurations])

    @property
    def cost(self) -> int:
        """Rough relative cost of an evaluation."""
        return self._edges.n_pairs + self._edges.n_atoms

    def residuals(self, potential: Potential) -> list[Floats]:
        """Weighted (reference - prediction) of every configuration."""
        found = potential.evaluate(self._edges, self._numbers, threads=1)
        energy_k = np.add.reduceat(found.energy_i, self._atom_k)
        rows = np.zeros(self._n_rows)
        rows[self._first_k] = self._scale_energy_k * (self._energy_k - energy_k)
        rows[self._forces_ic] = self._scale_forces_ic * (found.forces - self._force_ic)
        if self._scale_virial_k.any():
            virial_iv = np.stack([found.virial_icc[:, a, b] for a, b in VOIGT], axis=1)
            virial_kv = np.add.reduceat(virial_iv, self._atom_k, axis=0)
            rows[self._virial_kv] = self._scale_virial_k[:, None] * (self._reference_kv - virial_kv)
        return np.split(rows, self._first_k[1:])

    def energies(self, potential: Potential) -> Floats:
        """Energy of every atom, eV."""
        return potential.evaluate(self._edges, self._numbers, threads=1).energy_i

    def predicted(self, potential: Potential) -> list[tuple[float, Floats]]:
        """Energy, eV, and forces, float64 [n_atoms, 3], eV/Å, of every configuration."""
        found = potential.evaluate(self._edges, self._numbers, threads=1)
        energies = np.add.reduceat(found.energy_i, self._atom_k).tolist()
        return list(zip(energies, np.split(found.forces, self._atom_k[1:]), strict=True))

    @property
    def numbers(self) -> Integers:
        """Atomic number of every atom."""
        return self._numbers

    def project(self, potential: Potential, rows: Sequence[Floats]) -> Floats:
        """J^T times the rows of every configuration: the gradient of the sum of predictions times `rows`."""
        edges, flat = self._edges, np.concatenate(rows)
        energy_weight_i = (self._scale_energy_k * flat[self._first_k])[self._owner_i]
        # dE/dx_j = sum of dE/dr_p onto j minus those from j
        weight_ic = self._scale_forces_ic * flat[self._forces_ic]
        direction_pc = weight_ic[edges.neighbor] - weight_ic[edges.center]
        if self._scale_virial_k.any():
            strain_kcc = np.zeros((len(self._first_k), 3, 3))
            for v, (a, b) in enumerate(VOIGT):
                half = 0.5 * self._scale_virial_k * flat[self._virial_kv[:, v]]
                strain_kcc[:, a, b] += half
                strain_kcc[:, b, a] += half
            strain_pcc = strain_kcc[self._owner_i[edges.center]]
            direction_pc += np.einsum("pc,pcd->pd", edges.r_pc, strain_pcc)
        return potential.gradient(edges, self._numbers, energy_weight_i, direction_pc)


def _groups(edges: Sequence[EdgeList]) -> Integers:
    """Groups of the atoms of all edge lists, none of which has atoms of two."""
    parts, count = [], 0
    for part in edges:
        _, group_i = np.unique(
            np.zeros(part.n_atoms, dtype=np.int64) if part.group is None else part.group, return_inverse=True
        )
        parts.append(group_i.reshape(-1) + count)
        count += int(group_i.max(initial=-1)) + 1
    return np.concatenate(parts).astype(np.int64)


def batches(configurations: Sequence[Prepared], first: int = 0) -> list[Batch]:
    """Consecutive configurations, from number `first` on, in batches of about as many atoms; a large one is a batch."""
    n_atoms = sum(c.edges.n_atoms for c in configurations)
    most = min(_BATCH_ATOMS, n_atoms // _LEAST_BATCHES)
    made: list[Batch] = []
    start, filled = 0, 0
    for index, c in enumerate(configurations):
        filled += c.edges.n_atoms
        if filled >= most or index + 1 == len(configurations):
            made.append(Batch(configurations[start : index + 1], first + start))
            start, filled = index + 1, 0
    return made
