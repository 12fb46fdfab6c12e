"""The compiler decorator: its cache sees every edit, lives where it can, and is never needed.

Each test works on a copy of a small package in a new process, since a cache is read when a process starts.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numba.core import event

import etnpot
from etnpot import _jit
from etnpot.kernels import pairs, train

CALLEE = "from etnpot._jit import njit\n\n@njit\ndef inner(x):\n    return x + {constant}\n"
CALLER = (
    "from etnpot._jit import njit\nfrom etnpot.conventions import SCALE\n"
    "from etnpot.kernels.callee import inner\n"
    "\n@njit\ndef outer(x):\n    return SCALE * inner(x)\n"
)
PROGRAM = """
import logging; logging.basicConfig(format="%(levelname)s %(message)s")
from etnpot.kernels.caller import outer
result = outer(1.0)
stats = getattr(outer, "stats", None)
print(result, len(stats.cache_hits) if stats else "plain", len(stats.cache_misses) if stats else "plain")
"""


class Package:
    """A copy of the decorator with two kernels in two files, and a user whose cache directory is `cache`."""

    def __init__(self, root: Path) -> None:
        self.root, self.kernels, self.cache = (
            root / "site",
            root / "site" / "etnpot" / "kernels",
            root / "cache",
        )
        self.kernels.mkdir(parents=True)
        for directory in (self.kernels.parent, self.kernels):
            (directory / "__init__.py").touch()
        shutil.copy(Path(etnpot.__file__).with_name("_jit.py"), self.kernels.parent)
        (self.kernels.parent / "conventions.py").write_text("SCALE = 1.0\n")
        (self.kernels / "callee.py").write_text(CALLEE.format(constant="1.0"))
        (self.kernels / "caller.py").write_text(CALLER)

    def run(self, **environment: str) -> tuple[list[str], str]:
        """What the caller gives in a new process (result, cache hits, cache misses), and the log."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
        clean |= {"PYTHONPATH": str(self.root), "XDG_CACHE_HOME": str(self.cache)} | environment
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM],
            env=clean,
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split(), done.stderr

    def caches(self, base: Path | None = None) -> list[Path]:
        """The cache directories below `base`."""
        return sorted((base or self.kernels / "__pycache__").glob("etnpot-*"))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


@pytest.mark.slow
def test_a_cached_caller_sees_every_edit_and_setting(package: Package) -> None:
    assert package.run()[0] == ["2.0", "0", "1"]
    assert package.run()[0] == ["2.0", "1", "0"]  # from the cache
    assert package.run(NUMBA_BOUNDSCHECK="1")[0] == ["2.0", "0", "1"]  # other machine code
    (package.kernels / "callee.py").write_text(CALLEE.format(constant="9.0"))
    assert package.run()[0] == ["10.0", "0", "1"]
    (package.kernels.parent / "conventions.py").write_text("SCALE = 3.0\n")
    assert package.run()[0] == ["30.0", "0", "1"]
    assert len(package.caches()) == 4


def test_without_a_writable_package_the_cache_is_the_users(package: Package) -> None:
    (package.kernels / "__pycache__").write_text(
        "a file where a directory should be, which stops even a super-user"
    )
    assert package.run() == (["2.0", "0", "1"], "")
    (directory,) = package.caches(package.cache / "etnpot" / "numba")
    assert len(list(directory.rglob("*.nbc"))) == 2  # caller and callee


def test_without_any_writable_place_everything_works_and_one_warning_is_logged(package: Package) -> None:
    (package.kernels / "__pycache__").touch()
    package.cache.touch()
    result, log = package.run()
    assert result == ["2.0", "0", "1"]
    assert log.count("WARNING") == 1 and "set NUMBA_CACHE_DIR to a directory that can be written" in log


def test_the_users_own_choice_of_directory_comes_first(package: Package, tmp_path: Path) -> None:
    package.run(NUMBA_CACHE_DIR=str(tmp_path / "mine"))
    assert len(package.caches(tmp_path / "mine")) == 1
    assert package.caches() == []


def test_kernels_run_as_plain_python(package: Package) -> None:
    assert package.run(NUMBA_DISABLE_JIT="1") == (["2.0", "plain", "plain"], "")
    assert package.caches() == []


def test_old_directories_are_removed_and_recent_ones_are_kept(tmp_path: Path) -> None:
    now = time.time()
    for age in range(14):
        (tmp_path / f"etnpot-{age:016x}").mkdir()
        (tmp_path / f"etnpot-{age:016x}" / "file.nbi").touch()
        seconds = 60 * age if age < 10 else 1e5 * age
        os.utime(tmp_path / f"etnpot-{age:016x}", (now - seconds, now - seconds))
    (tmp_path / "other").mkdir()
    os.utime(tmp_path / "other", (0, 0))
    _jit._prune(tmp_path, tmp_path / f"etnpot-{0:016x}")
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"etnpot-{age:016x}" for age in range(10)] + [
        "other"
    ]  # 8 newest, and those used in the last hour


def test_relaxations_that_hide_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fastmath allows only .*remove \['nnan'\]"):
        _jit.njit(fastmath={"contract", "nnan"})
    with pytest.raises(ValueError, match=r"remove \['fast'\]"):
        _jit.njit(fastmath="fast")


def test_the_settings_of_numba_are_left_as_they_were() -> None:
    before = _jit.numba.config.CACHE_DIR

    @_jit.njit(fastmath={"contract"})
    def kernel(x: float) -> float:
        return 2.0 * x

    assert _jit.numba.config.CACHE_DIR == before
    assert kernel(1.5) == 3.0


@pytest.mark.skipif(bool(_jit.numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_garbage_is_collected_less_often_while_kernels_are_compiled_and_as_before_afterwards() -> None:
    before = gc.get_threshold()

    @_jit.numba.njit
    def of_someone_else(x: float) -> float:
        return x

    def during(*kernels: object) -> int:
        """The threshold while the kernels are compiled, each by the one before it."""
        if not kernels:
            return gc.get_threshold()[0]
        with event.trigger_event("numba:compile", data={"dispatcher": kernels[0]}):
            return during(*kernels[1:])

    assert during(of_someone_else) == before[0]
    assert during(pairs.shortest_pair) == _jit._OBJECTS_BETWEEN_COLLECTIONS
    assert during(of_someone_else, pairs.shortest_pair, train.forward) == _jit._OBJECTS_BETWEEN_COLLECTIONS
    assert gc.get_threshold() == before
    try:
        gc.set_threshold(0)  # a user who wants none
        assert during(pairs.shortest_pair) == 0
    finally:
        gc.set_threshold(*before)


def test_inner_kernels_have_twins_that_python_can_call() -> None:
    @_jit.njit(fastmath={"contract"}, inner=True)
    def kernel(x: float) -> float:
        return 2.0 * x

    assert _jit.with_entry(kernel)(1.5) == 3.0
