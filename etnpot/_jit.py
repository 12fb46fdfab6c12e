"""The one compiler decorator of all kernels, with an on-disk cache that cannot go stale.

Numba files a compiled function under the content of the file that *defines* it. A caller whose callee lives
in another file therefore keeps the old machine code of the callee after an edit. Here every compiled function
is filed under

    <base> / etnpot-<key> / ...,     key = sha256( sources, compiler, settings )

============  ================================================================================================
symbol        meaning
============  ================================================================================================
sources       name and content of every file of ``etnpot/kernels``, of ``conventions.py`` (its constants are
              frozen into the machine code) and of this file
compiler      versions of numba and llvmlite
settings      the numba settings that change the machine code but not numba's own key (bounds checks, ...)
base          ``NUMBA_CACHE_DIR`` if set; else ``etnpot/kernels/__pycache__``; else the user's cache directory
              (``XDG_CACHE_HOME``, by default ``~/.cache``): the first that can be written. If none can, there
              is no cache, and one warning is logged
============  ================================================================================================

An edit anywhere among the sources opens a new directory, and the oldest ones are removed when that happens.
The directory is handed to numba through its public setting ``numba.config.CACHE_DIR``, which is restored at
once: other users of numba in the same process see no difference.

Processor and operating system are in numba's own index, so that a cache on a shared file system serves
different machines.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar, overload

import llvmlite
import numba
from numba.core import event

__all__ = ["SAFE_FASTMATH", "cache_directory", "njit", "prange", "with_entry"]

logger = logging.getLogger("etnpot.jit")

Function = TypeVar("Function", bound=Callable[..., Any])

#: The relaxations of floating-point arithmetic that leave NaN and infinity visible: fused multiply-add,
#: another order of summation, and the sign of zero.
SAFE_FASTMATH = frozenset({"contract", "reassoc", "nsz"})

prange = numba.prange

_config: Any = numba.config  # numba fills this module when it is imported
_PACKAGE = Path(__file__).resolve().parent
_SETTINGS = (
    "BOUNDSCHECK",
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "DEBUGINFO_DEFAULT",
    "ENABLE_AVX",
    "USING_SVML",
)
_PREFIX = "etnpot-"
_KEPT = 8  # cache directories that are never removed: the most recently used
_IN_USE = 3600.0  # s since the last start of a process on it, before an old one may be removed
_lock = threading.Lock()

#: New objects between two runs of Python's garbage collector while a kernel is compiled.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


class _RareCollections(event.Listener):
    """Lets the garbage collector run less often while a kernel of this package is compiled.

    The compiler makes millions of small objects that it keeps: with Python's own threshold of some hundred new ones, a tenth
    of the time of the first call is spent on looking through them in vain. Numba broadcasts its events under its lock,
    so that no two threads meet here; what the user has set is restored.
    """

    def __init__(self) -> None:
        self._compiling: list[bool] = []
        self._before = gc.get_threshold()

    def on_start(self, event: Any) -> None:
        ours = event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}.")
        if ours and not any(self._compiling):
            self._before = gc.get_threshold()
            if 0 < self._before[0] < _OBJECTS_BETWEEN_COLLECTIONS:
                gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *self._before[1:])
        self._compiling.append(ours)

    def on_end(self, event: Any) -> None:
        if self._compiling.pop() and not any(self._compiling):
            gc.set_threshold(*self._before)


event.register("numba:compile", _RareCollections())


def _sources() -> list[Path]:
    """Every file whose content can end up in the machine code of a kernel."""
    return [
        *sorted((_PACKAGE / "kernels").rglob("*.py")),
        *(path for path in (_PACKAGE / "conventions.py", Path(__file__).resolve()) if path.is_file()),
    ]


def _key() -> str:
    """The content hash of sources, compiler and settings (16 hexadecimal digits)."""
    digest = hashlib.sha256()
    for path in _sources():
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    settings = [(name, str(getattr(_config, name, None))) for name in _SETTINGS]
    digest.update(repr((numba.__version__, llvmlite.__version__, settings)).encode())
    return digest.hexdigest()[:16]


def _candidates() -> list[Path]:
    """Where the cache may live, best first."""
    if _config.CACHE_DIR:
        return [Path(_config.CACHE_DIR)]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [_PACKAGE / "kernels" / "__pycache__", Path(home) / "etnpot" / "numba"]


def _writable(directory: Path) -> bool:
    """Whether `directory` exists, or could be made, and takes a file; sets its time of last use."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
        os.utime(directory)
    except OSError:
        return False
    return True


def _prune(base: Path, keep: Path) -> None:
    """Remove the cache directories of past sources, except the recent ones; never fails.

    Another process may still use a directory: one is removed only when `_KEPT` others were used after it and
    no process has started on it for `_IN_USE` seconds. It is renamed first, so that nobody sees it half
    removed. Numba makes a missing directory anew.
    """
    found: list[tuple[float, Path]] = []
    try:
        for path in base.glob(f"{_PREFIX}*"):
            if path != keep and path.is_dir() and not path.is_symlink():
                found.append((path.stat().st_mtime, path))
    except OSError:
        return
    found.sort(reverse=True)
    for last_use, path in found[_KEPT - 1 :]:
        if time.time() - last_use > _IN_USE:
            doomed = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                path.rename(doomed)
            except OSError:
                continue
            shutil.rmtree(doomed, ignore_errors=True)


@functools.cache
def cache_directory() -> Path | None:
    """The directory of this process's compiled kernels, made if need be; None when nothing can be written.

    Returns
    -------
    pathlib.Path or None
    """
    name = _PREFIX + _key()
    candidates = _candidates()
    for base in candidates:
        directory = base / name
        is_new = not directory.exists()
        if _writable(directory):
            if is_new:
                _prune(base, directory)
            return directory
    logger.warning(
        "compiled kernels cannot be kept on disk: none of %s can be written, so every process compiles anew; "
        "set NUMBA_CACHE_DIR to a directory that can be written",
        ", ".join(str(base) for base in candidates),
    )
    return None


@overload
def njit(function: Function) -> Function: ...


@overload
def njit(
    function: None = None,
    *,
    parallel: bool = False,
    fastmath: Collection[str] = (),
    inline: str = "never",
    inner: bool = False,
) -> Callable[[Function], Function]: ...


def njit(
    function: Function | None = None,
    *,
    parallel: bool = False,
    fastmath: Collection[str] = (),
    inline: str = "never",
    inner: bool = False,
) -> Function | Callable[[Function], Function]:
    """Compile a kernel: no Python objects, no interpreter lock, IEEE division, cached on disk.

    Parameters
    ----------
    function : callable, optional
        The kernel, when used as a plain ``@njit``.
    parallel : bool, keyword-only
        Run `prange` loops on several threads.
    fastmath : collection of str, keyword-only
        Which of `SAFE_FASTMATH` to allow; none by default. Relaxations under which NaN or infinity may vanish
        are refused.
    inline : {"never", "always"}, keyword-only
        Whether numba inlines the kernel into its callers before typing it: for a long kernel with few callers, which is then
        compiled once and not at every level of calls.
    inner : bool, keyword-only
        The kernel is called by other kernels alone: it gets no entry from Python and no file of its own in the cache (the
        files of its callers hold its machine code), and does not count references to arrays, which makes both the first
        call and all others shorter. It must neither make nor return arrays. Never call it from Python: `with_entry` gives
        a twin that can be.

    Returns
    -------
    callable
        The compiled function, or with ``NUMBA_DISABLE_JIT=1`` `function` itself.

    Raises
    ------
    ValueError
        If `fastmath` holds anything that is not in `SAFE_FASTMATH`.
    """
    allowed = {fastmath} if isinstance(fastmath, str) else set(fastmath)
    if not allowed <= SAFE_FASTMATH:
        raise ValueError(
            f"fastmath allows only {sorted(SAFE_FASTMATH)}, because kernels must pass on NaN and infinity; "
            f"got {sorted(allowed)}: remove {sorted(allowed - SAFE_FASTMATH)}"
        )

    def decorate(kernel: Function) -> Function:
        if _config.DISABLE_JIT:
            return kernel
        options: dict[str, Any] = {
            "nogil": True,
            "error_model": "numpy",
            "parallel": parallel,
            "inline": inline,
            "no_cfunc_wrapper": True,  # nobody passes a kernel to another one
        }
        if allowed:
            options["fastmath"] = allowed
        if inner:
            options |= {"no_cpython_wrapper": True, "_nrt": False}
            callee: Function = numba.njit(**options)(kernel)
            return callee
        with _lock:  # numba fixes the place of the cache while it decorates
            directory = cache_directory()
            if directory is None:
                compiled: Function = numba.njit(**options)(kernel)
                return compiled
            before = {name: getattr(_config, name, "") for name in ("CACHE_DIR", "CACHE_LOCATOR_CLASSES")}
            _config.CACHE_DIR, _config.CACHE_LOCATOR_CLASSES = str(directory), ""
            try:
                compiled = numba.njit(cache=True, **options)(kernel)
            finally:
                for name, value in before.items():
                    setattr(_config, name, value)
        return compiled

    return decorate if function is None else decorate(function)


def with_entry(kernel: Function) -> Function:
    """The same kernel as one that Python can call, for tests of what is otherwise `inner`.

    Parameters
    ----------
    kernel : callable
        What `njit` gave.

    Returns
    -------
    callable
    """
    if _config.DISABLE_JIT:
        return kernel
    compiled: Any = kernel
    twin: Function = njit(fastmath=compiled.targetoptions.get("fastmath", ()))(compiled.py_func)
    return twin
