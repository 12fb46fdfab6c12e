"""Sizes that a file claims, compared with its length before ASE believes them.

ASE counts the lines of a LAMMPS dump to the number of atoms that stands in it, whether they are there or not. A trajectory
(``.traj``, ``.gpw``) is a ULM file: 8 bytes of magic, 16 of a tag, three int64 (version, number n of items, place of the
offsets), n int64 offsets, and at each offset the length of a JSON text and the text. An array stands in the text as
``{"ndarray": [shape, dtype, place]}``. ASE allocates what these numbers say before it reads.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from etnpot.errors import DataError

__all__ = ["check_claims"]

_MAGIC = (b"- of Ulm", b"AFFormat")
_HEADER = 48


def check_claims(path: str | os.PathLike[str]) -> None:
    """Refuse an ASE trajectory or a LAMMPS dump that claims more than it holds; other files pass.

    Raises
    ------
    DataError
        Naming the file.
    """
    begin = b""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            begin = stream.read(8)
            if begin in _MAGIC:
                _check(stream, size)
            elif begin.startswith(b"ITEM:"):
                stream.seek(0)
                _check_dump(stream, size)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        kind = "ASE trajectory" if begin in _MAGIC else "LAMMPS dump"
        raise DataError(
            f"cannot read {Path(path)}: it is a damaged {kind} ({error}); get another copy of it"
        ) from error


def _check_dump(stream: BinaryIO, size: int) -> None:
    """Raise ValueError where there are more atoms than bytes."""
    for line in stream:
        if line.startswith(b"ITEM: NUMBER OF ATOMS") and int(stream.readline()) > size:
            raise ValueError(f"it claims more atoms than a file of {size} bytes can hold")


def _check(stream: BinaryIO, size: int) -> None:
    """Raise ValueError unless every size and place lies inside `size` bytes."""
    stream.seek(24)
    _, n_items, place = _integers(stream, 24, 3, size)
    if not 0 <= n_items <= size // 8:
        raise ValueError(f"it claims {n_items} frames in {size} bytes")
    for offset in _integers(stream, place, n_items, size):
        (length,) = _integers(stream, offset, 1, size)
        if not 0 <= length <= size - offset - 8:
            raise ValueError(f"it claims an entry of {length} bytes")
        _check_arrays(json.loads(stream.read(length)), size)


def _integers(stream: BinaryIO, place: int, n: int, size: int) -> list[int]:
    """`n` int64 numbers at a place."""
    if not 0 <= place <= size - 8 * n:
        raise ValueError(f"it refers to byte {place}, of {size}")
    stream.seek(place)
    return np.frombuffer(stream.read(8 * n), "<i8").tolist()


def _check_arrays(value: Any, size: int) -> None:
    """The arrays that a JSON value describes."""
    if isinstance(value, list):
        for part in value:
            _check_arrays(part, size)
    if not isinstance(value, dict):
        return
    if "ndarray" in value:
        shape, dtype, place = value["ndarray"]
        if not all(isinstance(n, int) and n >= 0 for n in [*shape, place]):
            raise ValueError(f"an array has the shape {shape!r:.100}")
        if np.dtype(dtype).kind not in "biufc" or place + math.prod(shape) * np.dtype(dtype).itemsize > size:
            raise ValueError(f"it claims an array of shape {shape!r:.100} in {size} bytes")
    for part in value.values():
        _check_arrays(part, size)
