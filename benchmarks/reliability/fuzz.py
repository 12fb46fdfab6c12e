"""Fuzzing of everything that reads input: whatever comes in, a correct result or an etnpot error comes out.

    python benchmarks/reliability/fuzz.py                                the whole campaign, more than 100,000 inputs
    python benchmarks/reliability/fuzz.py --targets extxyz cfg --n 2000  some targets, so many inputs of each
    python benchmarks/reliability/fuzz.py --seed 7                       other inputs
    python benchmarks/reliability/fuzz.py --replay DIR/extxyz-0-123.bin  one input again, with its traceback
    python benchmarks/reliability/fuzz.py --render                       the table again from the JSON

targets.py says what is read and what a correct result is; mutations.py does the damage. An input is determined by target, seed
and number, so that a campaign can be repeated. Inputs run in worker processes with a limit of memory; a worker that ends by a
signal is a crash, one that does not come to the next input in time is a hang, and an input is a failure as well if

- an exception leaves that is no etnpot error, or an etnpot error was caused by a lack of memory,
- the result is wrong by the target's own check,
- anything tries to start a program, unpickle an object, connect to a network, or write outside its directory (a hook of
  Python's audit events).

Failing inputs are kept in ``--keep DIR`` as files that ``--replay`` reads. Writes fuzz.json beside this file and the table of
docs/reliability.md between its markers. The target `export` needs a C++ compiler.
"""

# ruff: noqa: E501

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "fuzz.json"
PAGE = HERE.parents[1] / "docs" / "reliability.md"

#: Bytes that a worker may map beyond what it has when its first input comes, seconds for one input.
MEMORY, SECONDS = 2 * 1024**3, 30.0
#: What no input may ever cause: audit events of Python (besides writing outside the directory of the case).
_FORBIDDEN = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
    "socket.connect",
)
_POWERFUL = (
    "os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.getattr",
    "builtins.__import__", "builtins.open", "builtins.compile", "runpy.run_path", "importlib.import_module", "shutil.rmtree",
)  # fmt: skip
_LAYOUT = struct.Struct("<qqqq")  # input that runs, its begin in ms, correct, refused


class Finding(AssertionError):
    """A result that is wrong."""


@dataclass
class Outcome:
    """What a target has come to.

    Attributes
    ----------
    correct, refused : int
        Inputs with a correct result, and with an etnpot error.
    errors : Counter
        Of the refused, by class of the error.
    failures : list of dict
        Number of the input, kind, message.
    seconds : float
    """

    correct: int = 0
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def n(self) -> int:
        """Number of inputs."""
        return self.correct + self.refused + len(self.failures)


def generator(target: str, seed: int, index: int) -> np.random.Generator:
    """The generator of one input."""
    return np.random.default_rng([seed, zlib.crc32(target.encode()), index])


# ----------------------------------------------------------------------------------------------- one input


class Guard:
    """Notes audit events that no input may cause while it is `active`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.active, self.seen = os.path.realpath(directory), False, ""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "pickle.find_class" and ".".join(map(str, arguments)) not in _POWERFUL:
            return  # numba's cache of compiled kernels is made of pickles
        if event == "subprocess.Popen" and os.path.basename(str(arguments[0])) == "read_export":
            return  # the program of the target `export`
        if event in _FORBIDDEN:
            self.seen = f"{event} {arguments!r:.200}"
        elif event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                where = os.path.realpath(arguments[0])
                if (
                    not where.startswith((self.directory, "/dev/"))
                    and ".nbi" not in where
                    and ".nbc" not in where
                    and "__pycache__" not in where
                ):
                    self.seen = f"writes {where}"


def run_case(target: Any, case: bytes, directory: Path, guard: Guard | None = None) -> str:
    """Check one input: "correct", or the class of the etnpot error; anything else raises."""
    from etnpot.errors import EtnpotError

    if guard is not None:
        guard.seen, guard.active = "", True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.check(case, directory)
        result = "correct"
    except EtnpotError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                raise Finding(f"asked for more memory than there is: {error}") from error
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if not str(error).strip():
            raise Finding("an error without a message") from error
        result = type(error).__name__
    finally:
        if guard is not None:
            guard.active = False
    if guard is not None and guard.seen:
        raise Finding(guard.seen)
    return result


def in_process(name: str, n: int, seed: int = 0, first: int = 0) -> Outcome:
    """Inputs of one target in this process, without limits: for tests."""
    import targets

    outcome = Outcome()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        target = targets.TARGETS[name](Path(scratch))
        for index in range(first, first + n):
            try:
                result = run_case(target, target.make(generator(name, seed, index)), Path(scratch))
            except Exception as error:
                outcome.failures.append({"index": index, "kind": type(error).__name__, "message": str(error)})
                continue
            outcome.correct += result == "correct"
            outcome.refused += result != "correct"
            if result != "correct":
                outcome.errors[result] += 1
        target.close()
    outcome.seconds = time.monotonic() - begun
    return outcome


# -------------------------------------------------------------------------------------------- many inputs


def work(name: str, seed: int, first: int, stop: int, shared: Path, out: Path) -> None:
    """The worker process: inputs one by one; where it is stands in `shared`, failures and counts go to `out`."""
    sys.path.insert(0, str(HERE))
    import targets

    with (
        open(shared, "r+b") as stream,
        tempfile.TemporaryDirectory() as scratch,
        open(out, "a", encoding="utf-8") as log,
    ):
        state = mmap.mmap(stream.fileno(), _LAYOUT.size)
        target = targets.TARGETS[name](Path(scratch))
        resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, -1))
        target.warm(Path(scratch))
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, -1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        guard = Guard(Path(scratch))
        counts = [0, 0]
        errors: Counter[str] = Counter()
        for index in range(first, stop):
            state[:] = _LAYOUT.pack(index, int(time.monotonic() * 1000), *counts)
            case = target.make(generator(name, seed, index))
            try:
                result = run_case(target, case, Path(scratch), guard)
            except Exception as error:
                trace = traceback.format_exc(limit=-6)
                record = {
                    "index": index,
                    "kind": type(error).__name__,
                    "message": str(error)[:2000],
                    "trace": trace[-3000:],
                }
                log.write(json.dumps(record) + "\n")
                log.flush()
                continue
            counts[result != "correct"] += 1
            errors[result] += result != "correct"
        state[:] = _LAYOUT.pack(stop, int(time.monotonic() * 1000), *counts)
        log.write(json.dumps({"errors": errors}) + "\n")


def campaign(name: str, n: int, seed: int, keep: Path) -> Outcome:
    """`n` inputs of one target in worker processes; failing ones are kept."""
    sys.path.insert(0, str(HERE))
    import targets

    outcome, first, begun = Outcome(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        shared, out = Path(scratch) / "state", Path(scratch) / "out"
        while first < n:
            shared.write_bytes(_LAYOUT.pack(first - 1, 0, 0, 0))
            out.write_text("", encoding="utf-8")
            command = [
                sys.executable,
                str(HERE / "fuzz.py"),
                "--worker",
                name,
                str(seed),
                str(first),
                str(n),
                str(shared),
                str(out),
            ]
            with open(Path(scratch) / "stderr", "w+b") as stderr:
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
                hung = _watch(process, shared)
                stderr.seek(0)
                said = stderr.read()[-2000:].decode(errors="replace")
            index, _, correct, refused = _LAYOUT.unpack(shared.read_bytes())
            outcome.correct += correct
            outcome.refused += refused
            for line in out.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                if "errors" in record:
                    outcome.errors.update(record["errors"])
                else:
                    outcome.failures.append(record)
            if process.returncode == 0:
                break
            if index < first:
                sys.exit(f"the worker of {name} does not start (status {process.returncode}):\n{said}")
            if hung:
                kind, message = "hang", f"no end after {SECONDS:g} s"
            else:
                code = process.returncode
                kind, message = "crash", signal.Signals(-code).name if code < 0 else f"status {code}"
            outcome.failures.append({"index": index, "kind": kind, "message": message, "trace": said})
            first = index + 1
        outcome.seconds = time.monotonic() - begun
        target = targets.TARGETS[name](Path(scratch))
        for failure in outcome.failures:
            keep.mkdir(parents=True, exist_ok=True)
            file = keep / f"{name}-{seed}-{failure['index']}"
            file.with_suffix(".bin").write_bytes(target.make(generator(name, seed, failure["index"])))
            file.with_suffix(".txt").write_text(
                f"{failure['kind']}: {failure['message']}\n{failure.get('trace', '')}", encoding="utf-8"
            )
    return outcome


def _watch(process: subprocess.Popen[bytes], shared: Path) -> bool:
    """Wait for a worker; kill it, and give true, if one input takes too long."""
    while True:
        try:
            process.wait(0.25)
            return False
        except subprocess.TimeoutExpired:
            _, begun, _, _ = _LAYOUT.unpack(shared.read_bytes())
            if begun and time.monotonic() - begun / 1000 > SECONDS:
                process.kill()
                process.wait()
                return True


def replay(path: Path) -> int:
    """One kept input again, with its traceback."""
    sys.path.insert(0, str(HERE))
    import targets

    name = path.stem.rsplit("-", 2)[0]
    with tempfile.TemporaryDirectory() as scratch:
        target = targets.TARGETS[name](Path(scratch))
        case = path.read_bytes()
        print(f"{name}, {len(case)} bytes: {case[:2000]!r}")
        print(run_case(target, case, Path(scratch)))
    return 0


# ------------------------------------------------------------------------------------------------ the page


def render(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows = results["targets"]
    total = {
        key: sum(row[key] for row in rows.values())
        for key in ("inputs", "correct", "refused", "failures", "seconds")
    }
    lines = [
        "| what is read | inputs | correct result | etnpot error | failures | s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in [*rows.values(), {"title": "**all**", **total}]:
        lines.append(
            f"| {row['title']} | {row['inputs']:,} | {row['correct']:,} | {row['refused']:,} | {row['failures']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def write_page(results: dict[str, Any]) -> None:
    """Put the table between the markers of docs/reliability.md."""
    write_sections(PAGE, {"generated fuzz": render(results)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--worker"]:
        name, seed, first, stop, shared, out = given[1:]
        work(name, int(seed), int(first), int(stop), Path(shared), Path(out))
        return 0
    sys.path.insert(0, str(HERE))
    import targets

    import etnpot

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=list(targets.TARGETS), default=list(targets.TARGETS))
    parser.add_argument("--n", type=int, help="inputs of each target (default: see targets.py)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), help="directory for failing inputs"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE")
    parser.add_argument("--render", action="store_true", help="write the table from the JSON alone")
    options = parser.parse_args(given)
    if options.replay is not None:
        return replay(options.replay)
    results: dict[str, Any] = (
        json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"targets": {}}
    )
    failed = 0
    for name in [] if options.render else options.targets:
        target = targets.TARGETS[name]
        outcome = campaign(name, options.n or target.inputs, options.seed, options.keep)
        failed += len(outcome.failures)
        results["targets"][name] = {
            "title": target.title, "inputs": outcome.n, "correct": outcome.correct, "refused": outcome.refused,
            "errors": dict(sorted(outcome.errors.items())), "failures": len(outcome.failures), "seed": options.seed,
            "seconds": round(outcome.seconds, 1), "version": etnpot.__version__,
        }  # fmt: skip
        kinds = Counter(f"{f['kind']}: {f['message'][:90]}" for f in outcome.failures)
        print(f"{name:12s} {outcome.n:6d} inputs  {outcome.correct} correct  {outcome.refused} refused  "
              f"{len(outcome.failures)} failures  {outcome.seconds:.0f} s", flush=True)  # fmt: skip
        for kind, count in kinds.most_common(12):
            print(f"    {count:5d}  {kind}", flush=True)
        results["targets"] = {
            key: results["targets"][key] for key in targets.TARGETS if key in results["targets"]
        }
        results["machine"] = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
