"""Memory for large arrays that a calculation makes again and again.

A new array of megabytes comes from the operating system, page by page as it is first written, which takes as long as
the work of a fast kernel on it. Whoever repeats a calculation, as a calculator does in molecular dynamics, keeps a `Workspace`
and hands it on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Workspace"]

#: Room beyond what is asked for, as a part of it: numbers of pairs go up and down a little.
_ROOM = 0.05
#: Bytes that arrays are aligned to: those of a line of the cache, and of the longest vector registers.
_ALIGNMENT = 64
#: Memory that is so many times what is asked for is given back, if it is more than a few bytes.
_TOO_LARGE, _FEW = 16.0, 32_000_000


class Workspace:
    """Arrays by name, each of which is valid until the same name is asked for again.

    Pickles and copies are empty. One workspace must not be used by several calculations at once.
    """

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.byte]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """An array that holds whatever was there before.

        Parameters
        ----------
        name : str
        shape : tuple of int
        dtype : numpy dtype
        """
        kind = np.dtype(dtype)
        n_bytes = math.prod(shape) * kind.itemsize
        held = self._held.get(name)
        if held is None or len(held) < n_bytes or len(held) > max(_TOO_LARGE * n_bytes, _FEW):
            held = np.empty(int((1.0 + _ROOM) * n_bytes) + _ALIGNMENT, dtype=np.byte)
            held = held[-held.ctypes.data % _ALIGNMENT :]
            self._held[name] = held
        return held[:n_bytes].view(kind).reshape(shape)

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()
