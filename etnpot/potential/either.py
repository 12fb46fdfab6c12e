"""A file that holds a potential or a tensor model, whichever it is, read once."""

from __future__ import annotations

import os

from etnpot.io.potential_file import POTENTIAL, TENSOR, StoredPotential, read_potential_file
from etnpot.potential import potential, tensor
from etnpot.potential.potential import Potential
from etnpot.potential.tensor import TensorModel

__all__ = ["load_either"]


def load_either(path: str | os.PathLike[str]) -> tuple[Potential | TensorModel, StoredPotential]:
    """Read a potential or a tensor model, and what else its file says.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Potential or TensorModel
    StoredPotential

    Raises
    ------
    PotentialFileError
        As `etnpot.load` and `etnpot.load_tensor`.
    """
    stored = read_potential_file(path, (POTENTIAL, TENSOR))
    module = tensor if stored.kind == TENSOR else potential
    return module.from_stored(stored, path), stored
