"""The directory of a fit: its lock, its checkpoint, and the rules of what may be overwritten.

==================  =====================================================================================
file                what
==================  =====================================================================================
checkpoint.etnfit   the state after the last step: everything that the next one depends on
potential.etn       the best potential so far; at the end with the errors it reached
history.jsonl       one line of JSON per step
fit.log             the same for people, with times
finished.json       written last: the fit is complete
.lock               held by the process that is fitting
==================  =====================================================================================

The checkpoint is a safetensors container: the parameters as float64 arrays, and all else as JSON in its
metadata, with

    sha256 = SHA-256( the file with the 64 digits of this field replaced by zeros ).                       (1)

It replaces the one before in one step, after every step of the fit and before anything else is written, so
that a kill at any moment loses the running step and nothing more; the history is rewritten from it when the
fit goes on. The lock is one of the operating system, which releases it when the process ends, however it
ends.

What is there decides what may be done:

==================  ====================  ==========================================  =======================
the directory has   plain                 ``resume``                                  ``force``
==================  ====================  ==========================================  =======================
no fit              begins                begins                                      begins
an unfinished fit   refused               continues                                   removed, begins anew
a finished fit      refused               continues if a limit is wider now,          removed, begins anew
                                          else nothing is left to do
==================  ====================  ==========================================  =======================

Only files that a fit writes are ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import RunDirectoryError
from etnpot.io.atomic import write_bytes_atomically

__all__ = ["OUTPUTS", "CheckpointFile", "RunDirectory", "locked", "read_checkpoint", "write_checkpoint"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
State = tuple[dict[str, Any], dict[str, Floats]]

_FORMAT, _FORMAT_VERSION = "etnpot-fit", "1"
_ZEROS = "0" * 64
_EITHER = "resume (--resume) continues a fit, force (--force) removes it; give one of them"
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')

#: Every file that a fit writes into its directory, apart from the lock; nothing else is ever removed.
OUTPUTS: tuple[str, ...] = (
    "checkpoint.etnfit", "potential.etn", "history.jsonl", "fit.log", "finished.json", "metrics.json",
    "config.yaml", "report.md", "report.html", "parity.png", "learning.png", "groups.png",
)  # fmt: skip


def write_checkpoint(
    path: str | os.PathLike[str], values: Mapping[str, Any], arrays: Mapping[str, Floats]
) -> None:
    """Write a state in one step: `path` holds the old one or the new one.

    Parameters
    ----------
    path : str or path-like
    values : mapping
        JSON values; infinities are allowed.
    arrays : mapping of str to float64 array
    """
    from safetensors.numpy import save

    metadata = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "state": json.dumps(values, sort_keys=True, separators=(",", ":")),
        "sha256": _ZEROS,
    }
    # the layout of the container is the library's: find our field instead of assuming where it stands
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=metadata)
    digest = hashlib.sha256(content).hexdigest()
    content = content.replace(f'"sha256":"{_ZEROS}"'.encode(), f'"sha256":"{digest}"'.encode(), 1)
    write_bytes_atomically(path, content)


def read_checkpoint(path: str | os.PathLike[str]) -> State:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    RunDirectoryError
        If the file is damaged, foreign, or of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = Path(path).read_bytes()
    advice = "begin anew with --force (force=True)"
    found = _DIGEST.search(content)
    if found is None:
        raise RunDirectoryError(f"{os.fspath(path)} is not a checkpoint of a fit, or is damaged; {advice}")
    blank = content.replace(found[0], f'"sha256":"{_ZEROS}"'.encode(), 1)
    if hashlib.sha256(blank).hexdigest().encode() != found[1]:
        raise RunDirectoryError(
            f"{os.fspath(path)} is damaged: its digest is not that of its content; {advice}"
        )
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        if not isinstance(header, dict):
            raise ValueError("its header has no fields")
        if (header["format"], header["format_version"]) != (_FORMAT, _FORMAT_VERSION):
            raise RunDirectoryError(
                f"{os.fspath(path)} has the format {header['format']} {header['format_version']}, "
                f"expected {_FORMAT} {_FORMAT_VERSION}; continue with the version of etnpot that began "
                f"the fit, or {advice}"
            )
        values, arrays = json.loads(header["state"]), dict(load(content))
        if not isinstance(values, dict):
            raise ValueError("its state is no state of a fit")
        if any(array.dtype != np.float64 for array in arrays.values()):
            raise ValueError("its arrays are not float64")
        return values, arrays
    except RunDirectoryError:
        raise
    except (KeyError, TypeError, ValueError, SafetensorError, RecursionError) as error:
        raise RunDirectoryError(f"{os.fspath(path)} cannot be read ({error}); {advice}") from error


@contextlib.contextmanager
def _writing(what: str, directory: str) -> Iterator[None]:
    """Says what to do when there is no room, or the directory has gone."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write {what}: {error.strerror or error}; make room, or {directory} writable, and go on with --resume "
            "(resume=True): what was written is kept"
        ) from error


class CheckpointFile:
    """The state of a fit that has no directory, in one file, locked while this object is open.

    Parameters
    ----------
    path : str or path-like
    resume, force : bool
        Go on from what is there, or begin anew although something is; at most one of them.

    Raises
    ------
    RunDirectoryError
        If another process fits there, it cannot be written, or what is there may not be overwritten.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False, force: bool = False) -> None:
        if resume and force:
            raise RunDirectoryError(_EITHER)
        self.path, self._resume = Path(path), resume
        self._lock_path = Path(f"{os.fspath(path)}.lock")
        with self._writing():
            self._lock = locked(self._lock_path)
        if self.path.exists() and not (resume or force):
            self.close()
            raise RunDirectoryError(
                f"{self.path} is the checkpoint of a fit; continue it with --resume (resume=True), or begin anew with "
                "--force (force=True)"
            )

    def load(self) -> State | None:
        """The state to go on from, if there is one and it is wanted."""
        return read_checkpoint(self.path) if self._resume and self.path.exists() else None

    def save(self, state: State) -> None:
        """The state after a step."""
        with self._writing():
            write_checkpoint(self.path, *state)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return _writing(f"the checkpoint {self.path}", "its directory")

    def close(self) -> None:
        """Release the lock."""
        with contextlib.suppress(OSError):
            self._lock_path.unlink()
        self._lock.close()

    def __enter__(self) -> CheckpointFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunDirectory:
    """The directory of one fit, locked while this object is open.

    Parameters
    ----------
    path : str or path-like
        Made if it does not exist, with its parents.
    resume, force : bool
        See the table of the module; at most one of them.

    Attributes
    ----------
    path : pathlib.Path
    config : str or None
        Text for ``config.yaml``, written when the fit begins.

    Raises
    ------
    RunDirectoryError
        If another process fits there, it cannot be written, or what it holds may not be overwritten.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False, force: bool = False) -> None:
        if resume and force:
            raise RunDirectoryError(_EITHER)
        self.path = Path(path)
        self.resume, self.force = resume, force
        self._lock: IO[str] | None = None
        self._log: IO[str] | None = None
        self._begun = False
        self._waiting: list[str] = []
        self.config: str | None = None
        made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locked(self.path / ".lock")
        except RunDirectoryError:
            raise
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write to the directory {self.path} of the fit: {error.strerror or error}; name a "
                "directory that can be written"
            ) from error
        self._made = made
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def file(self, name: str) -> Path:
        """Path of one of `OUTPUTS`."""
        return self.path / name

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to continue from."""
        return self.file("checkpoint.etnfit").exists()

    @property
    def is_finished(self) -> bool:
        """Whether the fit here is complete."""
        return self.file("finished.json").exists()

    def _check(self) -> None:
        """Refuse to overwrite a fit unless told to."""
        if self.force or self.continues:
            return
        # a fit that was stopped before its first step leaves these two
        held = [
            name for name in OUTPUTS if self.file(name).exists() and name not in ("config.yaml", "fit.log")
        ]
        if self.is_finished:
            raise RunDirectoryError(
                f"{self.path} holds a finished fit; name another directory, or replace it with --force "
                "(force=True)"
            )
        if self.has_checkpoint:
            raise RunDirectoryError(
                f"{self.path} holds an unfinished fit; continue it with --resume (resume=True), or begin "
                "anew with --force (force=True)"
            )
        if held:
            raise RunDirectoryError(
                f"{self.path} holds {', '.join(held)}, but no fit to continue; name another directory, or "
                f"replace {'them' if len(held) > 1 else 'it'} with --force (force=True)"
            )

    @property
    def continues(self) -> bool:
        """Whether there is a fit to go on with."""
        return self.resume and self.has_checkpoint

    def begin(self) -> None:
        """Remove what an earlier fit has left, unless it goes on; call it when every check has passed."""
        if self._begun:
            return
        with self._writing():
            for name in OUTPUTS:
                if not self.continues:
                    self._forget(name)
                for part in self.path.glob(f".{name}.*.tmp"):  # a kill in the middle of writing leaves one
                    self._forget(part.name)
        self._begun = True
        with self._writing():
            for line in self._waiting:
                self._write_log(line)
        if self.config is not None:
            self.write_text("config.yaml", self.config)

    def reopen(self) -> None:
        """Take back the mark of a finished fit, which goes on."""
        self._forget("finished.json")

    def _forget(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.file(name).unlink()

    # ---------------------------------------------------------------------------------------- what is written

    def save(self, state: State, history: Sequence[Mapping[str, Any]]) -> None:
        """The state after a step, then the line of its record."""
        with self._writing():
            write_checkpoint(self.file("checkpoint.etnfit"), *state)
            with open(self.file("history.jsonl"), "a", encoding="utf-8") as stream:
                stream.write(_json_line(history[-1]))

    def load(self) -> State:
        """The state after the last step; the history is made to agree with it."""
        values, arrays = read_checkpoint(self.file("checkpoint.etnfit"))
        history = values.get("history")
        if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
            raise RunDirectoryError(
                f"{self.file('checkpoint.etnfit')} holds no history of a fit; begin anew with --force (force=True)"
            )
        self.write_text("history.jsonl", "".join(_json_line(record) for record in history))
        return values, arrays

    def write_text(self, name: str, text: str) -> None:
        """One of `OUTPUTS`, in one step."""
        with self._writing():
            write_bytes_atomically(self.file(name), text.encode())

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """One of `OUTPUTS`, in one step."""
        self.write_text(name, json.dumps(_finite(values), indent=1, ensure_ascii=False) + "\n")

    def log(self, text: str) -> None:
        """Lines for ``fit.log``, each with the time; they wait in memory until the fit begins."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        for line in text.splitlines() or [""]:
            if self._begun:
                with self._writing():
                    self._write_log(f"{now}  {line}")
            else:
                self._waiting.append(f"{now}  {line}")

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return _writing(f"to the directory {self.path} of the fit", "the directory")

    def _write_log(self, line: str) -> None:
        if self._log is None:
            self._log = open(self.file("fit.log"), "a", encoding="utf-8", buffering=1)
        self._log.write(line.rstrip() + "\n")

    # ----------------------------------------------------------------------------------------------- the lock

    def close(self) -> None:
        """Release the lock; a directory that was made in vain is removed."""
        if self._log is not None:
            with contextlib.suppress(OSError):  # no room for the last line: the lock is released all the same
                self._log.close()
            self._log = None
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            (self.path / ".lock").unlink()
        self._lock.close()
        self._lock = None
        if self._made:
            with contextlib.suppress(OSError):  # not empty: a fit is there
                self.path.rmdir()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def locked(path: Path, what: str = "a fit is running") -> IO[str]:
    """The lock file, held by this process alone; its text says who holds it, and `what` what he does."""
    for _ in range(100):
        stream = open(path, "a+", encoding="utf-8")
        try:
            _lock(stream)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                stream.close()
                raise
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            stream.close()
            raise RunDirectoryError(
                f"{what} in {path.parent} ({holder}); wait for it, or name another directory"
            ) from None
        # the holder before may have removed the file between our opening and our locking of it
        try:
            same = os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
        except FileNotFoundError:
            same = False
        if same:
            stream.seek(0)
            stream.truncate()
            stream.write(
                f"process {os.getpid()} on {socket.gethostname()}, since "
                f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n"
            )
            stream.flush()
            return stream
        stream.close()
    raise RunDirectoryError(f"cannot lock {path}: other processes keep taking and leaving it; try again")


def _lock(stream: IO[str]) -> None:
    """Lock or raise at once."""
    if os.name == "nt":  # pragma: no cover
        import msvcrt

        getattr(msvcrt, "locking")(stream.fileno(), getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009
        return
    import fcntl

    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """`value` with None in place of numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
