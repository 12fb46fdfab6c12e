"""Energies, forces and gradients of a potential without layers: each atom has an energy of its own neighbours alone.

The interface is that of `etnpot.potential.layered`, and the work that of the kernels ``evaluate`` and ``gradient``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etnpot.kernels import evaluate, gradient
from etnpot.kernels.lanes import LANES
from etnpot.neighbors import EdgeList
from etnpot.threads import run_ranges
from etnpot.workspace import Workspace

__all__ = ["Arguments", "LocalPass", "LocalTangent"]

#: What the kernels of the learned energy take before their range.
Arguments = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
Floats = NDArray[np.float64]

#: Fewer atoms than this are not worth another thread.
_ATOMS_PER_THREAD = 64


class LocalPass:
    """Energies of atoms and their derivatives by the pair vectors, when they are asked for.

    Parameters
    ----------
    arguments : tuple
    edges : EdgeList
    threads : int, optional
    workspace : Workspace, optional
        Holds the derivatives.
    """

    def __init__(
        self,
        arguments: Arguments,
        edges: EdgeList,
        threads: int | None,
        workspace: Workspace | None = None,
    ) -> None:
        self._arguments, self._edges, self._threads = arguments, edges, threads
        self._workspace = Workspace() if workspace is None else workspace

    @cached_property
    def _evaluated(self) -> tuple[Floats, Floats]:
        """E_i and dE_i/dr_p."""
        n_atoms = len(self._arguments[0]) - 1
        energy_i = np.empty(n_atoms)
        dE_dr_pc = self._workspace.empty("dE_dr_pc", self._arguments[1].shape)

        def work(start: int, stop: int) -> None:
            evaluate.evaluate(*self._arguments, start, stop, energy_i, dE_dr_pc)

        run_ranges(work, n_atoms, threads=self._threads, block=LANES, smallest=_ATOMS_PER_THREAD)
        return energy_i, dE_dr_pc

    @property
    def energy_i(self) -> Floats:
        """Learned energy of every atom, eV."""
        return self._evaluated[0]

    def derivatives(self, seed_i: Floats | None = None) -> Floats:
        """dL/dr_p of L = sum_i s_i E_i, float64 [p, c]; all s are 1 by default."""
        dE_dr_pc = self._evaluated[1]
        return dE_dr_pc if seed_i is None else dE_dr_pc * seed_i[self._edges.center, None]

    def tangent(self, direction_pc: Floats) -> LocalTangent:
        """Along r'_p = d_p."""
        return LocalTangent(self, direction_pc)

    def with_last_train(self, weights: Floats) -> LocalPass:
        """The same pairs with another head and other cores."""
        return LocalPass((*self._arguments[:-1], weights), self._edges, self._threads)


class LocalTangent:
    """Tangents along one direction, and the gradient by the parameters."""

    def __init__(self, base: LocalPass, direction_pc: Floats) -> None:
        self._base, self._direction_pc = base, direction_pc

    @cached_property
    def energy_i(self) -> Floats:
        """E'_i."""
        along_p = np.einsum("pc,pc->p", self._direction_pc, self._base.derivatives())
        along_i: Floats = np.zeros_like(self._base.energy_i)
        np.add.at(along_i, self._base._edges.center, along_p)
        return along_i

    def gradient(
        self, e_i: Floats, s_i: Floats | None, table_gradient: Floats, train_gradient: Floats
    ) -> None:
        """dL/dtheta of L = sum_i e_i E_i + s_i E'_i: added to those of the radial table and the train; s is 1 for None."""
        arguments, direction_pc = self._base._arguments, self._direction_pc
        if s_i is not None:
            direction_pc = s_i[self._base._edges.center, None] * direction_pc
        gradient.gradient(
            *arguments, 0, len(arguments[0]) - 1, e_i, direction_pc, table_gradient, train_gradient
        )
