"""Dynamics between the steps of a fit: when it is due, and what it found, as constraints of the problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etnpot.fitting.dynamics import Dynamics, Fall, packed
from etnpot.fitting.parallel import Ranks
from etnpot.fitting.problem import Problem
from etnpot.fitting.progress import Progress
from etnpot.potential import Potential

__all__ = ["Moves"]

Floats = NDArray[np.float64]

#: What dynamics may cost, in multiplications, as a part of the normal equations of steps of all parameters, to which what is
#: no matrix product adds like so many parameters more; multiplications for each atom and step; the least and most steps of
#: one run, and the most constraints.
_DYNAMICS, _MORE_PARAMETERS, _ATOM_STEP, _RUN_STEPS, _MOST_FALLS = 0.15, 3000, 3e5, (400, 2000), 500


class Moves:
    """The dynamics of a fit, or none.

    Parameters
    ----------
    dynamics : Dynamics or None
    problem : Problem
        Without what dynamics finds.
    ranks : Ranks
        The first of which moves molecules: trajectories are chaotic.

    Attributes
    ----------
    falls : list of Fall
        What was found so far.
    problem : Problem
        With that.
    """

    def __init__(self, dynamics: Dynamics | None, problem: Problem, ranks: Ranks) -> None:
        self._dynamics, self._without, self._ranks = dynamics, problem, ranks
        self.falls: list[Fall] = []
        self.problem = problem

    def owe(self, progress: Progress, n_parameters: int) -> None:
        """Count the steps of dynamics for one step of all parameters or a round of single cores."""
        if self._dynamics is not None and progress.mature:
            work = _DYNAMICS * self.problem.n_rows * n_parameters * (n_parameters + _MORE_PARAMETERS)
            progress.owed += work / (_ATOM_STEP * self._dynamics.n_atoms)

    def due(self, progress: Progress) -> bool:
        """Whether enough are owed for a run."""
        return progress.owed >= _RUN_STEPS[0] and len(self.falls) < _MOST_FALLS

    def run(self, progress: Progress, potential: Potential) -> dict[str, Any]:
        """A run; what molecules fall into are constraints from here on. Returns what a record says of it."""
        assert self._dynamics is not None
        if progress.temperature <= 0.0:
            hot = self._dynamics.temperature(potential) if self._ranks.is_first else 0.0
            progress.temperature = float(self._ranks.of_first(np.array([hot]))[0])
        steps = min(int(progress.owed), _RUN_STEPS[1])
        found = self._found(self._dynamics, potential, progress, steps)
        progress.owed, progress.runs = 0.0, progress.runs + 1
        if found:
            self.take([*self.falls, *found][:_MOST_FALLS])
        return {
            "temperature": progress.temperature,
            "dynamics_steps": steps,
            "falls": len(found),
            "constraints": len(self.falls),
        }

    def _found(self, dynamics: Dynamics, potential: Potential, progress: Progress, steps: int) -> list[Fall]:
        """What the first rank finds, on all of them."""
        first = self._ranks.is_first
        found = dynamics.falls(potential, progress.temperature, steps, progress.runs) if first else []
        known, flat = packed(found)
        sizes = self._ranks.of_first(np.array([len(known), len(flat)], dtype=np.float64))
        n_known, n_flat = sizes.astype(int)
        shared = self._ranks.of_first(np.array(known) if known else np.zeros((n_known, 3)))
        return dynamics.unpacked(shared.tolist(), self._ranks.of_first(flat if known else np.zeros(n_flat)))

    def take(self, falls: list[Fall]) -> None:
        """Have these constraints beside the others."""
        self.falls = falls
        if self._dynamics is not None:
            self.problem = self._without.constrained(self._dynamics.constraints(falls))

    def state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """What was found, as JSON values and arrays."""
        if not self.falls:
            return {}, {}
        known, flat = packed(self.falls)
        return {"falls": known}, {"falls": flat}

    def falls_of(self, values: Mapping[str, Any], arrays: Mapping[str, Floats]) -> list[Fall]:
        """Those of a state; anything that a fit would not have written raises ValueError."""
        if "falls" not in values:
            return []
        if self._dynamics is None or len(values["falls"]) > _MOST_FALLS:
            raise ValueError("this fit has no such constraints from dynamics")
        return self._dynamics.unpacked(values["falls"], arrays["falls"])
