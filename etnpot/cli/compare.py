"""``etnpot compare``: potentials trained on the same data, each by its own code, and judged on the same tests.

Ctrl-C (or SIGTERM) ends the running step at once; what is complete is kept, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from etnpot.errors import SpecificationError

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions
    from etnpot.compare.runner import Run

__all__ = ["add_parser", "run"]

_DESCRIPTION = """Train potentials on the same data, each with its own code, evaluate all of them on the same test sets, and
write a report (HTML, JSON, CSV). STUDY is a YAML file: 'etnpot compare --example' prints one with every key explained. Runs
that are complete are not repeated; what failed is tried again."""


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "compare", help="train and compare several potentials on the same data", description=_DESCRIPTION
    )
    parser.add_argument("study", metavar="STUDY", nargs="?", help="study file (YAML)")
    parser.add_argument("--out", metavar="DIR", help="directory of the study [name of STUDY without .yaml]")
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing; write the report of the runs that are there"
    )
    parser.add_argument("--example", action="store_true", help="print a study file, and do nothing else")
    parser.add_argument(
        "--models",
        action="store_true",
        help="list the types of models with their settings, and do nothing else",
    )
    parser.add_argument(
        "--install", nargs="+", metavar="NAME",
        help="make the environments of other potentials, one for each NAME, and do nothing else",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what is asked for."""
    if args.example:
        from etnpot.compare.study import EXAMPLE

        print(EXAMPLE, end="")
        return 0
    if args.models:
        print(_models())
        return 0
    if args.install is not None:
        return _install(args.install)
    if args.study is None:
        raise SpecificationError(
            "no study: give a study file (etnpot compare STUDY.yaml; 'etnpot compare --example' prints one)"
        )
    from etnpot.compare.runner import compare

    out = args.out
    if out is None:
        out = args.study.rpartition("/")[2].rpartition(".")[0] or "study"
    display = _Display(sys.stdout)
    taken: list[int] = []
    try:
        with _interruptible(taken):
            result = compare(args.study, out, progress=display, report_only=args.report_only)
    except KeyboardInterrupt:
        display.clear()
        print(
            f"interrupted; complete runs are kept. To continue: etnpot compare {args.study} --out {out}",
            file=sys.stderr,
        )
        return 128 + (taken[0] if taken else signal.SIGINT)
    print(f"\n{result.table()}\n")
    if result.failures:
        print("without figures:")
        for record in result.failures:
            size = (
                "" if record["size"] is None else f", {record['size']} configurations, seed {record['seed']}"
            )
            print(f"  {record['data']}, {record['model']}{size}: {record['error']}")
        print()
    print(f"report   {result.out / 'report.html'}\nfigures  {result.out / 'results.csv'}, results.json")
    return 0 if len(result.failures) < len(result.records) else 2


@contextlib.contextmanager
def _interruptible(taken: list[int]) -> Iterator[None]:
    """SIGINT and SIGTERM as KeyboardInterrupt, whatever the shell had set for them; the number goes to `taken`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def handler(number: int, _: object) -> None:
        taken.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _models() -> str:
    """The types of models, their environments and settings."""
    import textwrap

    from etnpot.compare import environments
    from etnpot.compare.adapters import ADAPTERS, adapter_class

    blocks = []
    for kind in ADAPTERS:
        adapter = adapter_class(kind)
        state = "in this environment"
        if adapter.environment is not None:
            made = environments.is_made(adapter.environment)
            state = (
                f"environment {adapter.environment}, ready"
                if made
                else f"not installed: etnpot compare --install {adapter.environment}"
            )
        if adapter.defaults:
            settings = ", ".join(f"{name}: {value!r}" for name, value in adapter.defaults.items())
        else:
            settings = ", ".join(adapter.known())
        text = textwrap.fill(settings, 100, initial_indent="  ", subsequent_indent="  ")
        blocks.append(f"{kind}  {adapter.title} ({state})\n{text}")
    return "\n\n".join(blocks)


def _install(names: list[str]) -> int:
    """Make environments."""
    from etnpot.compare import environments

    unknown = sorted(set(names) - set(environments.ENVIRONMENTS))
    if unknown:
        raise SpecificationError(
            f"--install: unknown {', '.join(unknown)}; the environments are {', '.join(environments.ENVIRONMENTS)}"
        )
    status = 0
    for name in names:
        print(f"{name}: making {environments.directory() / name}", flush=True)
        try:
            environments.make(name)
            print(f"{name}: ready")
        except environments.PeerError as error:
            print(f"{name}: {error}")
            status = 2
    return status


class _Display:
    """One line per finished run; on a terminal the running step below, with its time."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._at = self._n = 0
        self._what = ""
        self._begin = time.monotonic()
        self._seconds: list[float] = []

    def begin(self, runs: list[Run], done: int) -> None:
        """As in `etnpot.compare.runner.Progress`."""
        self._n, self._at = len(runs), done
        print(
            f"{len(runs)} runs" + (f", {done} of them complete" if done else ""),
            file=self._stream,
            flush=True,
        )

    def step(self, run: Run, step: str) -> None:
        """As in `etnpot.compare.runner.Progress`."""
        if not self._what:
            self._begin = time.monotonic()
        self._what = f"[{self._at + 1}/{self._n}] {run.label}: {step}"
        self.tick(0.0)

    def tick(self, seconds: float) -> None:
        """As in `etnpot.compare.runner.Progress`."""
        if not self._live:
            return
        left = ""
        if self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            rest = (self._n - self._at) * mean - (time.monotonic() - self._begin)
            left = f", about {max(rest, 0) / 60:.0f} min left"
        print(f"\r\x1b[2K{self._what}, {seconds:.0f} s{left}", end="", file=self._stream, flush=True)

    def clear(self) -> None:
        """Remove the running line."""
        if self._live:
            print("\r\x1b[2K", end="", file=self._stream, flush=True)

    def end(self, run: Run, result: Mapping[str, Any]) -> None:
        """As in `etnpot.compare.runner.Progress`."""
        from etnpot.compare.results import short

        self.clear()
        seconds = time.monotonic() - self._begin if self._what else 0.0
        self._seconds.append(seconds)
        self._at += 1
        self._what = ""
        if result["error"] is not None:
            shown = f"failed: {result['error']}"
        else:
            parts = []
            for name, metrics in result["metrics"].items():
                energy, forces = metrics["energy"]["rmse"], metrics["forces"]["rmse"]
                values = [
                    None if energy is None else f"{short(1e3 * energy)} meV/atom",
                    None if forces is None else f"{short(forces)} eV/Å",
                ]
                parts.append(f"{name} " + ", ".join(value for value in values if value is not None))
            shown = "RMSE " + "; ".join(parts)
        print(f"[{self._at}/{self._n}] {run.label}: {shown} ({seconds:.0f} s)", file=self._stream, flush=True)
