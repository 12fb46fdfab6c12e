"""Which configurations of a pool are worth computing.

First those that lie outside of what was trained on, greedily: the configuration of the highest grade is taken, its atoms enter
the active set (`etnpot.fitting.active_set`), and the grades of all others are computed anew, so that a configuration that
resembles one already taken is worth no more. When no grade is above one, the posterior decides: the configuration with the
largest mean of |d_i|^2 is taken (symbols of `etnpot.potential.reliability`), and what its forces will teach is taken into
account before the next,

    d_i <- L^T d_i,     L L^T = (1 + R^T R / s^2)^-1,     R = dF/dA D,                                            (1)

with s the noise of forces. A copy of a configuration that was taken is never taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.fitting.active_set import TOLERANCE, ActiveSet
from etnpot.fitting.split import near_copies
from etnpot.io.structures import Labelled
from etnpot.potential import Potential
from etnpot.potential.reliability import site_gradients

__all__ = ["RULES", "Choice", "new_ones", "select"]

Floats = NDArray[np.float64]

#: "grade": outside of the training set first, then by deviation; "deviation": by deviation from the beginning.
RULES = ("grade", "deviation")
#: Atoms of a configuration that are kept in mind: those of the highest grades.
_MOST_ATOMS = 64
#: Configurations that differ by less than this in every coordinate are copies, Å.
_COPIES = 1e-3


@dataclass(frozen=True)
class Choice:
    """One configuration that was chosen.

    Attributes
    ----------
    index : int
        In the pool.
    grade : float
        Its grade against the training set and the choices before it.
    deviation : float
        Mean of |d_i|² against the same, times s_P squared, as a root: about the error of its forces, eV/Å.
    rule : str
        What it was chosen by.
    """

    index: int
    grade: float
    deviation: float
    rule: str


class _Pool:
    """Coefficients c and deviations d of the atoms of a pool, and how they change with the choices."""

    def __init__(self, potential: Potential, pool: Sequence[Labelled], threads: int | None) -> None:
        known = potential.known_reliability()
        self.potential, self.pool, self.known, self.threads = potential, pool, known, threads
        coefficients, deviations, owner = [], [], []
        for index, labelled in enumerate(pool):
            edges, numbers = potential.edges(labelled.atoms), labelled.atoms.numbers
            type_i = potential.type_index(numbers)
            v_if = potential.features(edges, numbers, threads=threads)
            b_iq = site_gradients(potential, known.group, v_if, type_i, threads=threads)
            c_ir = known.coefficients(b_iq, type_i)
            if len(c_ir) > _MOST_ATOMS:
                kept = np.sort(np.argsort(-np.abs(c_ir).max(axis=1), kind="stable")[:_MOST_ATOMS])
                b_iq, c_ir = b_iq[kept], c_ir[kept]
            coefficients.append(c_ir)
            deviations.append(b_iq @ known.deviation_qr)
            owner.append(np.full(len(c_ir), index))
        self.original_ir = np.concatenate(coefficients)
        self.c_ir = self.original_ir
        self.d_ir = np.concatenate(deviations)
        self.owner_i = np.concatenate(owner)
        self.first = np.searchsorted(self.owner_i, np.arange(len(pool) + 1))
        n = self.original_ir.shape[1]
        self.active = ActiveSet(np.eye(n), np.eye(n), [-1] * n)
        self._metric_rr = np.eye(self.d_ir.shape[1])

    def grades(self) -> Floats:
        """The largest |c| of every configuration."""
        return np.asarray(np.maximum.reduceat(np.abs(self.c_ir).max(axis=1), self.first[:-1]))

    def deviations(self) -> Floats:
        """Root of the mean of |d_i|^2, scaled, of every configuration, eV/Å."""
        square_i = np.einsum("ir,ir->i", self.d_ir, self.d_ir)
        means = np.add.reduceat(square_i, self.first[:-1]) / np.diff(self.first)
        return self.known.proxy_scale * np.sqrt(means)

    def take(self, index: int) -> None:
        """Everything as if this configuration had been trained on."""
        rows = slice(self.first[index], self.first[index + 1])
        if self.active.absorb(self.original_ir[rows], lambda i: (index, i)):
            self.active.refresh()
            self.c_ir = self.active.coefficients(self.original_ir)
        atoms = self.pool[index].atoms
        edges = self.potential.edges(atoms)
        rows_cr = self.known.force_rows(self.potential, edges, atoms.numbers, threads=self.threads)
        force_rows = rows_cr @ self._metric_rr
        taught = np.eye(force_rows.shape[1]) + force_rows.T @ force_rows / self.known.force_noise**2
        # (1 + R^T R / s^2) = K K^T, so that L = K^-T
        lower = scipy.linalg.cholesky(taught, lower=True)
        change = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True).T
        self.d_ir = self.d_ir @ change
        self._metric_rr = self._metric_rr @ change


def select(
    potential: Potential,
    pool: Sequence[Labelled],
    n: int,
    *,
    rule: str = "grade",
    threshold: float | None = None,
    threads: int | None = None,
) -> list[Choice]:
    """Choose at most `n` configurations of a pool, the most wanted first.

    Parameters
    ----------
    potential : Potential
        With its reliability.
    pool : sequence of Labelled
        Labels are not needed, and not looked at.
    n : int
    rule : {"grade", "deviation"}
    threshold : float, optional
        Choose only configurations whose grade is above it, and stop when there are none.
    threads : int, optional

    Returns
    -------
    list of Choice
        Fewer than `n` if the pool has no more that are not copies, or none above the threshold.

    Raises
    ------
    SpecificationError
        For a number or rule that makes no sense, or if the potential carries nothing to choose by.
    SpeciesError, StructureError
        If a configuration cannot be evaluated.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SpecificationError(f"n: expected a positive number of configurations, got {n!r}")
    if rule not in RULES:
        raise SpecificationError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    if threshold is not None and not threshold >= 0:
        raise SpecificationError(f"threshold: expected a grade of at least 0, got {threshold!r}")
    potential.known_reliability()
    if not len(pool):
        return []
    copies = {i: family for family in near_copies(pool, _COPIES) for i in family}
    atoms = _Pool(potential, pool, threads)
    free = np.ones(len(pool), dtype=bool)
    choices: list[Choice] = []
    while len(choices) < n and free.any():
        grades, deviations = np.where(free, atoms.grades(), -1.0), np.where(free, atoms.deviations(), -1.0)
        if threshold is not None and grades.max() <= threshold:
            break
        by_grade = rule == "grade" and grades.max() > 1.0 + TOLERANCE
        wanted = grades if by_grade else np.where(grades > (threshold or -0.5), deviations, -1.0)
        index = int(np.argmax(wanted))
        choices.append(
            Choice(
                index, float(grades[index]), float(deviations[index]), "grade" if by_grade else "deviation"
            )
        )
        free[copies[index]] = False
        atoms.take(index)
    return choices


def new_ones(pool: Sequence[Labelled], known: Sequence[Labelled]) -> list[Labelled]:
    """The configurations of a pool that are no copies of known ones."""
    n = len(known)
    old = {i for family in near_copies([*known, *pool], _COPIES) if min(family) < n for i in family}
    return [labelled for index, labelled in enumerate(pool, start=n) if index not in old]
