"""The potential file: one safetensors container, checked to the last bit. Files of tensor models are the same but for `format`.

    file = n (8 bytes, little-endian) | header (n bytes of JSON and spaces) | arrays (float64, little-endian)

The header names each array with its shape and place, and under ``__metadata__`` holds strings only:

==================  ==========================================================================================
key                 value
==================  ==========================================================================================
format              ``etnpot-potential``; ``etnpot-tensor`` for a tensor model
format_version      ``2``; ``1``
library_version     version of etnpot that wrote the file
spec                specification, as JSON
provenance          training provenance, as JSON
sha256              digest of the content, eq. (1), 64 lower-case hexadecimal digits
==================  ==========================================================================================

    sha256 = SHA-256( the whole file with the 64 digits of this field replaced by zeros )                (1)

Eq. (1) covers specification, provenance, names, shapes and bytes of all arrays, and every other byte as well:
a file that loads is the file that was written. Equal content written by one version of the library gives
equal bytes.

Nothing in the file is executed: there is no pickle, and no size that the file claims is believed before it
has been compared with the size of the file. Floating-point numbers in JSON are written so that reading gives
the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

import etnpot
from etnpot.errors import PotentialFileError, PotentialFileNotFoundError
from etnpot.io.atomic import write_bytes_atomically

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "POTENTIAL",
    "TENSOR",
    "Kind",
    "StoredPotential",
    "read_potential_file",
    "write_potential_file",
]

#: What the ``format`` field of every potential file says.
FORMAT = "etnpot-potential"

#: The format version that this library writes. It reads all versions from 1 to this one.
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes
    ----------
    format : str
        Its ``format`` field.
    version : int
        The format version that is written; all from 1 to this one are read.
    noun : str
        What it is called in messages.
    advice : str
        How to get one.
    """

    format: str
    version: int
    noun: str
    advice: str


POTENTIAL = Kind(FORMAT, FORMAT_VERSION, "potential", "give a file written by potential.save(...)")
TENSOR = Kind(
    "etnpot-tensor",
    1,
    "tensor model",
    "give a file written by 'etnpot fit-property' or TensorModel.save(...)",
)
_KINDS = (POTENTIAL, TENSOR)

_MAX_HEADER = 64 * 1024**2  # bytes; a specification takes kilobytes
_ZEROS = b"0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_FIELDS = frozenset({"format", "format_version", "library_version", "spec", "provenance", "sha256"})


@dataclass(frozen=True)
class StoredPotential:
    """What a potential file holds.

    Attributes
    ----------
    spec : dict
        Specification, as JSON values.
    arrays : dict of str to ndarray
        Parameters by name; float64, C-contiguous, read-only.
    provenance : dict
        Where the parameters come from, as JSON values.
    kind : Kind
        Potential or tensor model.
    format_version : int
        Version of the file format.
    library_version : str
        Version of etnpot that wrote the file.
    sha256 : str
        Digest of the content, eq. (1) of the module.
    """

    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]
    provenance: dict[str, Any]
    kind: Kind
    format_version: int
    library_version: str
    sha256: str


# ---------------------------------------------------------------------------------------------------- writing


def write_potential_file(
    path: str | os.PathLike[str],
    *,
    spec: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    kind: Kind = POTENTIAL,
) -> None:
    """Write a potential file in one step: `path` holds the old file or the new one, never a part.

    Parameters
    ----------
    path : str or path-like
        The file to make or replace.
    spec : mapping
        Specification: JSON values only (str, bool, int, finite float, None, lists and str-keyed mappings).
    arrays : mapping of str to ndarray
        Parameters by name: float64 of any shape, all finite.
    provenance : mapping
        Where the parameters come from: JSON values only.
    kind : Kind
        Potential or tensor model.

    Raises
    ------
    PotentialFileError
        If something cannot be stored as it is, or the file cannot be written. `path` is then untouched.
    """
    content = _encode(kind, _json(spec, "spec"), _json(provenance, "provenance"), _checked_arrays(arrays))
    try:
        write_bytes_atomically(path, content)
    except FileNotFoundError as error:
        raise PotentialFileError(
            f"cannot write the {kind.noun} file {os.fspath(path)}: its directory does not exist; make it first"
        ) from error
    except OSError as error:
        raise PotentialFileError(
            f"cannot write the {kind.noun} file {os.fspath(path)}: {error.strerror or error}; the path must "
            "name a file in a directory that can be written and has room"
        ) from error


def _encode(kind: Kind, spec: str, provenance: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a potential file."""
    header: dict[str, Any] = {
        "__metadata__": {
            "format": kind.format,
            "format_version": str(kind.version),
            "library_version": etnpot.__version__,
            "provenance": provenance,
            "sha256": _ZEROS.decode(),
            "spec": spec,
        }
    }
    end = 0
    for name in sorted(arrays):
        begin, end = end, end + arrays[name].nbytes
        header[name] = {"dtype": "F64", "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER:
        raise PotentialFileError(
            f"specification and provenance take {len(text)} bytes, but a potential file holds at most "
            f"{_MAX_HEADER} bytes of them; store large tables as arrays or leave them out of the provenance"
        )
    content = (
        len(text).to_bytes(8, "little") + text + b"".join(arrays[name].tobytes() for name in sorted(arrays))
    )
    return content.replace(
        b'"sha256":"' + _ZEROS, b'"sha256":"' + hashlib.sha256(content).hexdigest().encode(), 1
    )


def _checked_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`arrays` as they go into the file, after checking them."""
    checked = {}
    for name, array in arrays.items():
        if not isinstance(name, str) or not name or name == "__metadata__":
            raise PotentialFileError(
                f"the name of an array must be a non-empty string other than '__metadata__'; got {name!r}; "
                "rename the array"
            )
        if not isinstance(array, np.ndarray) or (array.dtype.kind, array.dtype.itemsize) != ("f", 8):
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise PotentialFileError(
                f"array {name!r} must be a float64 ndarray; got {kind}; "
                "convert it with numpy.asarray(..., dtype=float)"
            )
        _check_finite(name, array, "a potential with such a parameter cannot be evaluated: refit it")
        checked[name] = np.asarray(array, dtype="<f8", order="C")
    return checked


def _check_finite(name: str, array: np.ndarray, advice: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise PotentialFileError(
            f"array {name!r} must be finite; got {array[index]} at index {index} "
            f"({int(array.size - finite.sum())} of {array.size} entries are not finite); {advice}"
        )


def _json(value: Mapping[str, Any], where: str) -> str:
    """`value` as JSON that reads back as the same values."""
    if not isinstance(value, Mapping):
        raise PotentialFileError(f"{where} must be a mapping; got {type(value).__name__}")
    return json.dumps(_plain(value, where), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    """`value` with mappings as dict and sequences as list; refuses whatever JSON would change in silence."""
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PotentialFileError(
                f"{where} must be finite to be stored; got {value}; use None for 'not known'"
            )
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise PotentialFileError(
                    f"the keys of {where} must be strings to be stored; got {key!r} of type "
                    f"{type(key).__name__}; convert it"
                )
        return {key: _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    raise PotentialFileError(
        f"{where} must be a JSON value (string, bool, int, float, None, list or mapping); got "
        f"{type(value).__name__}; convert it to a plain Python value"
    )


# ---------------------------------------------------------------------------------------------------- reading


def read_potential_file(
    path: str | os.PathLike[str], kinds: tuple[Kind, ...] = (POTENTIAL,)
) -> StoredPotential:
    """Read a potential file and check all of it.

    Memory stays within a small multiple of the size of the file, whatever the file claims about itself.

    Parameters
    ----------
    path : str or path-like
    kinds : tuple of Kind
        What is accepted.

    Returns
    -------
    StoredPotential

    Raises
    ------
    PotentialFileNotFoundError
        If there is no such file (also a `FileNotFoundError`).
    PotentialFileError
        If it cannot be read, is no potential file, is damaged, or has a newer format version.
    """
    name, noun = os.fspath(path), " or ".join(kind.noun for kind in kinds)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            what = "directory" if Path(path).is_dir() else "special file"
            raise PotentialFileError(
                f"{name} is a {what}, not a {noun} file; give the path of the file itself"
            )
        with open(path, "rb") as stream:
            return _decode(stream, os.fstat(stream.fileno()).st_size, name, kinds)
    except FileNotFoundError as error:
        raise PotentialFileNotFoundError(
            f"there is no {noun} file {name}; check the path, and the current directory "
            "if the path is relative"
        ) from error
    except OSError as error:
        raise PotentialFileError(f"cannot read the {noun} file {name}: {error.strerror or error}") from error


def _decode(stream: BinaryIO, size: int, name: str, kinds: tuple[Kind, ...]) -> StoredPotential:
    """Read an open file of `size` bytes."""
    prefix, text, metadata = _read_header(stream, size, name, kinds)
    kind, format_version = _check_format(metadata, name, kinds)

    content = prefix + text + stream.read(size - 8 - len(text) + 1)
    if len(content) != size:
        _damaged(name, f"{size} bytes were there when it was opened and {len(content)} were read")
    found = _DIGEST.findall(text)
    if len(found) != 1 or metadata.keys() != _FIELDS:
        _damaged(name, f"its header must hold exactly the fields {', '.join(sorted(_FIELDS))}, each once")
    digest = hashlib.sha256(content.replace(b'"sha256":"' + found[0], b'"sha256":"' + _ZEROS, 1)).hexdigest()
    if digest != found[0].decode():
        _damaged(name, "its content does not have the SHA-256 digest that was stored with it")

    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        spec = json.loads(metadata["spec"])
        provenance = json.loads(metadata["provenance"])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        _damaged(name, str(error), error)
    if not isinstance(spec, dict) or not isinstance(provenance, dict):
        _damaged(name, "specification and provenance must be JSON objects")
    for key, array in arrays.items():
        if array.dtype != np.float64:
            _damaged(name, f"array {key!r} must be float64; got {array.dtype}")
        _check_finite(key, array, f"{name} cannot be evaluated: get another copy, or refit the {kind.noun}")
        array.flags.writeable = False
    return StoredPotential(
        spec, arrays, provenance, kind, format_version, metadata["library_version"], digest
    )


def _read_header(
    stream: BinaryIO, size: int, name: str, kinds: tuple[Kind, ...]
) -> tuple[bytes, bytes, dict[str, str]]:
    """The 8 length bytes, the header as bytes, and its metadata; allocates no more than the file."""
    if size == 0:
        raise PotentialFileError(f"{name} is empty; get another copy of the {kinds[0].noun} file")
    prefix = stream.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length < 2 or length > min(size - 8, _MAX_HEADER):
        _foreign(
            name,
            kinds,
            f"a file of {size} bytes cannot have a header of {length} bytes"
            if len(prefix) == 8
            else "too short",
        )
    text = stream.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        _foreign(name, kinds, "its header is not JSON", error)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _foreign(name, kinds, "its header has no metadata")
    return prefix, text, metadata


def _check_format(metadata: Mapping[str, str], name: str, kinds: tuple[Kind, ...]) -> tuple[Kind, int]:
    """Kind and format version, if this library can read it and the caller wants it."""
    found = metadata.get("format")
    kind = next((kind for kind in kinds if kind.format == found), None)
    if kind is None:
        for other in _KINDS:
            if other.format == found:
                raise PotentialFileError(
                    f"{name} holds a {other.noun}, not a {kinds[0].noun}; {kinds[0].advice}"
                )
        _foreign(name, kinds, f"its format field says {found!r}, not {kinds[0].format!r}")
    version = metadata.get("format_version", "")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        _damaged(name, f"its format version must be a positive integer; got {version!r}")
    if int(version) > kind.version:
        raise PotentialFileError(
            f"{name} was written by a newer etnpot ({metadata.get('library_version', 'unknown version')}, "
            f"file format {version}), but etnpot {etnpot.__version__} reads formats up to {kind.version}; "
            "upgrade etnpot"
        )
    return kind, int(version)


def _foreign(name: str, kinds: tuple[Kind, ...], reason: str, cause: BaseException | None = None) -> NoReturn:
    raise PotentialFileError(
        f"{name} is not an etnpot {kinds[0].noun} file, or is badly damaged: {reason}; {kinds[0].advice}"
    ) from cause


def _damaged(name: str, reason: str, cause: BaseException | None = None) -> NoReturn:
    raise PotentialFileError(f"{name} is damaged: {reason}; get another copy of it") from cause
