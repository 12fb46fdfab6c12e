"""A fit on several processes: what `mpirun -n N etnpot fit ...` needs of MPI.

Every rank reads the same data, prepares every N-th configuration, and holds the same parameters. Gram matrices, gradients and
errors are summed over the ranks; all else is repeated on each, so that the result is that of one rank to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import InstallationError

__all__ = ["Ranks", "abort", "launched_ranks", "mpi_world"]

#: Variables in which launchers tell a process how many there are.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")

#: Numbers summed in one message.
_MESSAGE = 1 << 24


@dataclass(frozen=True)
class Ranks:
    """The processes of a fit, of which this is one.

    Attributes
    ----------
    reduce : callable or None
        Sums an array over the ranks, in place; None where there is one alone.
    rank, size : int
    """

    reduce: Callable[[NDArray[np.float64]], None] | None = None
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the first of them, or the only one."""
        return self.reduce is None or self.rank == 0

    def of_first(self, array: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the first rank passes, on all of them; the others pass an array of the same shape."""
        if self.reduce is None:
            return array
        shared = array if self.is_first else np.zeros_like(array)
        self.reduce(shared)
        return shared


def launched_ranks() -> int:
    """How many ranks a launcher such as mpirun started; 1 without one. MPI is not touched."""
    for name in _SIZE_VARIABLES:
        text = os.environ.get(name, "")
        if text.isdigit() and int(text) > 1:
            return int(text)
    return 1


def mpi_world() -> tuple[int, int, Callable[[NDArray[np.float64]], None], Callable[[Any], Any]]:
    """Rank, size, sum over ranks in place, and broadcast from rank 0, of MPI's world.

    Raises
    ------
    InstallationError
        If mpi4py is missing.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise InstallationError(
            "a fit on several processes needs mpi4py and an MPI library: pip install 'etnpot[mpi]', or run without mpirun"
        ) from error
    world = MPI.COMM_WORLD

    def reduce(array: NDArray[np.float64]) -> None:
        flat = array.reshape(-1)
        assert np.shares_memory(flat, array)
        for start in range(0, flat.size, _MESSAGE):
            world.Allreduce(MPI.IN_PLACE, flat[start : start + _MESSAGE], op=MPI.SUM)

    return world.Get_rank(), world.Get_size(), reduce, lambda value: world.bcast(value, root=0)


def abort(status: int) -> None:
    """End all ranks with an exit status: a rank that fails must not leave the others waiting."""
    from mpi4py import MPI

    MPI.COMM_WORLD.Abort(status)
