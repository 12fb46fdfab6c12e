"""Parts of the training set, for the first steps of a fit: many parameters are found from a few rows for each of them.

No kind of configuration is left out: a model that never saw a surface can be wrong by any amount there. So the configurations
are sorted by group, number of atoms and energy per atom, and a part is drawn evenly from them in that order.
"""

from __future__ import annotations

import numpy as np

from etnpot.fitting.dataset import DataSet
from etnpot.fitting.problem import Problem
from etnpot.io.structures import Labelled

__all__ = ["SAMPLE_LEVELS", "Samples"]

#: Rows per parameter of the first sample, the factor to the next one, and the samples before all data are used.
_ROWS_PER_PARAMETER, _SAMPLE_GROWTH, SAMPLE_LEVELS = 8.0, 4.0, 2
#: A sample larger than this part of the training set is not worth the detour.
_LARGEST_SAMPLE = 0.4


class Samples:
    """Problems of parts of a training set.

    Parameters
    ----------
    problem : Problem
        That of the whole.
    data : DataSet
        The training set.
    seed : int
    """

    def __init__(self, problem: Problem, data: DataSet, seed: int) -> None:
        self._whole, self._data, self._seed = problem, data, seed
        self._last: tuple[int, Problem] = len(data), problem

    def sizes(self, n_parameters: int) -> list[int]:
        """Configurations in the samples one after another; all where a sample is not worth the detour."""
        n = len(self._data)
        first = _ROWS_PER_PARAMETER * n_parameters / max(self._whole.n_rows, 1) * n
        sizes = [first * _SAMPLE_GROWTH**level for level in range(SAMPLE_LEVELS)]
        return [n if size >= _LARGEST_SAMPLE * n else max(1, round(size)) for size in sizes]

    def problem(self, size: int) -> Problem:
        """That of so many configurations; the last one is kept."""
        n = len(self._data)
        if size >= n:
            return self._whole
        if self._last[0] != size:
            kinds = sorted(range(n), key=lambda index: _kind(self._data[index]))
            offset = np.random.default_rng([self._seed, 2]).random()
            places = ((np.arange(size) + offset) * n / size).astype(int)
            self._last = size, self._whole.subset(sorted(kinds[place] for place in places))
        return self._last[1]


def _kind(labelled: Labelled) -> tuple[str, int, float]:
    """What configurations are sorted by."""
    energy = 0.0 if labelled.energy is None else labelled.energy / labelled.n_atoms
    return labelled.group or "", labelled.n_atoms, energy
