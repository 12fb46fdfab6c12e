"""The conventions that every part of etnpot shares, each written down once.

============== =====================================================================================
what           convention
============== =====================================================================================
units          Å, eV, eV/Å, eV/Å³ (those of ASE)
pair vector    r_ij = x_j - x_i, from the centre i to the neighbour j (periodic image included)
harmonics      real, orthonormal on the sphere, flat index l² + l + m, m = -l..l, no Condon-Shortley sign
stress         positive under tension, Voigt order xx yy zz yz xz xy (those of ASE)
species        atomic numbers outside, dense ``type_index`` 0..S-1 inside, in ascending atomic number
array suffixes i centre, p pair, c Cartesian, l m n basis, a b bonds, k core, q parameter
============== =====================================================================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_ATOMIC_NUMBER", "VOIGT", "harmonic_index", "n_harmonics", "voigt"]

#: Cartesian index pairs of the Voigt components, ASE's order.
VOIGT: tuple[tuple[int, int], ...] = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))

#: Heaviest element that a potential may name.
MAX_ATOMIC_NUMBER = 118


def voigt(tensor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voigt components [..., 6] of symmetric tensors [..., 3, 3]."""
    rows, columns = (list(axes) for axes in zip(*VOIGT, strict=True))
    return np.asarray(tensor[..., rows, columns])


def harmonic_index(l: int, m: int) -> int:  # noqa: E741
    """Flat index of the real harmonic Y_lm: ``l*l + l + m``."""
    return l * l + l + m


def n_harmonics(l_max: int) -> int:
    """Number of harmonics with l <= l_max."""
    return (l_max + 1) ** 2
