"""Fits that are killed, run out of disk, or meet each other: what is left must be whole, and the fit must go on.

    python benchmarks/reliability/faults.py                      everything: 200 kills, full disks, read-only places, two fits
    python benchmarks/reliability/faults.py --parts kill --n 20  some of it
    python benchmarks/reliability/faults.py --render             the section again from the JSON

kill      A fit of the command line is killed (SIGKILL) at a random moment between its first instruction and its end, and continued
          with ``--resume``: the potential must be that of a fit that was never stopped, to the last bit, with the same history
          and no file left over. The moments are drawn from a seed, three of four from the time of the steps. Most fits run in a fork of this process, which has everything
          imported, so that kills fall on the fit and not on imports; every tenth is a new process ``python -m etnpot``.
full      The same where files cannot grow beyond a random size (RLIMIT_FSIZE, which bounds the output of the fit as well), and on a file system of a random small size (a
          tmpfs, where this process may mount one): the fit must end with an error in one line, and continue to the same bits
          when there is room.
readonly  A directory that cannot be written: an error that says so before anything begins. As root, the fit runs as "nobody".
two       Several fits begin in one directory at the same time: one runs to the same bits, the others are refused.

A SIGKILL ends the process, not the machine: what a power failure does to a disk is not tested here. POSIX only. Writes
faults.json beside this file and a part of docs/reliability.md between its markers.
"""

# ruff: noqa: E501

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a process that forks has no threads

import ase.io
import numpy as np

import etnpot
from etnpot.cli import main as command_line
from etnpot.fitting.demo_data import emt_alloys

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "faults.json"
PAGE = HERE.parents[1] / "docs" / "reliability.md"
PARTS = ("kill", "full", "readonly", "two")
SECONDS = 180.0

#: The fit: two elements, all kinds of steps, a hundredth of a second each.
SETTINGS = (
    "--order 2 --l-max 1 --radial-size 3 --channels 2,1 --ranks 1 --species-rank 1 --cutoff 3.4 --sweeps 1 --polish-steps 8 "
    "--patience 100 --tolerance 0 --threads 1"
).split()  # fmt: skip


class Bench:
    """Data, the uninterrupted fit, and how long it takes."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.train = work / "train.extxyz"
        ase.io.write(
            self.train, [c.to_atoms() for c in emt_alloys(8, symbols=("Ni", "Cu"), seed=1, repeat=(1, 1, 1))]
        )
        # in this process, so that its forks have everything imported and compiled, also those that may not read it again
        with open(work / "said", "w", encoding="utf-8") as said, contextlib.redirect_stdout(said):
            assert command_line(self.words("warm")) == 0
        begun = time.monotonic()
        self.finish("whole")
        self.seconds = time.monotonic() - begun
        self.whole = self.outcome("whole")
        last = (self.work / "whole" / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        #: Until the report begins, and a little into it.
        self.steps_seconds = min(self.seconds, 1.5 * json.loads(last)["seconds"] + 0.5)

    def words(self, out: str | Path, *more: str) -> list[str]:
        """The command line of the fit."""
        return ["fit", "--train", str(self.train), "--out", str(self.work / out), *SETTINGS, *more]

    def start(
        self, words: Sequence[str], *, fresh: bool = False, prepare: Callable[[], None] | None = None
    ) -> int:
        """Begin a fit in another process; its output goes to ``said`` in the directory of work. Gives the process."""
        with open(self.work / "said", "wb") as said:
            if fresh:
                return subprocess.Popen(
                    [sys.executable, "-m", "etnpot", *words], stdout=said, stderr=said, preexec_fn=prepare
                ).pid
            pid = os.fork()
            if pid:
                return pid
            status = 70
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                if prepare is not None:
                    prepare()
                status = command_line(words)
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def wait(self, pid: int) -> int:
        """Status of a process; it is killed, and that is an error, if it does not come to an end."""
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise AssertionError("a fit did not come to an end")

    def said(self) -> str:
        """What the fit that was begun last has said."""
        return (self.work / "said").read_text(encoding="utf-8", errors="replace")

    def finish(self, out: str | Path, *more: str, fresh: bool = False) -> None:
        """Fit to the end."""
        status = self.wait(self.start(self.words(out, *more), fresh=fresh))
        assert status == 0, f"status {status}: {self.said()[-2000:]}"

    def outcome(self, out: str | Path) -> tuple[bytes, list[Any]]:
        """Parameters and history of a fit, without its times."""
        directory = self.work / out
        assert (directory / "finished.json").exists(), "no finished.json"
        records = [
            json.loads(line)
            for line in (directory / "history.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for record in records:
            record.pop("seconds")
        left = [path.name for path in directory.iterdir() if path.name.startswith(".")]
        assert not left, f"left over: {left}"
        return etnpot.load(directory / "potential.etn").parameters.tobytes(), records

    def check(self, out: str | Path) -> None:
        """Whether a fit has ended as the one that was never stopped."""
        assert self.outcome(out) == self.whole, "another result"


def part_kill(bench: Bench, rng: np.random.Generator, n: int, chain: int = 1) -> dict[str, Any]:
    """Kills at random moments; a fit is killed `chain` times, each time continued, before it is left to end."""
    failures: list[str] = []
    states: Counter[str] = Counter()
    late = 0
    k = 0
    while k < n:
        fresh = k // chain % 10 == 9
        out = "killed"
        shutil.rmtree(bench.work / out, ignore_errors=True)
        length = bench.seconds + (2.0 if fresh else 0.0)
        moments: list[float] = []
        while k < n and len(moments) < chain:
            # the steps are a part of the time, the report is the rest: three of four kills fall on the steps
            moment = float(
                rng.uniform(
                    0.0, length if rng.random() < 0.25 else bench.steps_seconds + length - bench.seconds
                )
            )
            pid = bench.start(bench.words(out, "--resume"), fresh=fresh)
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
                late += 1  # it had come to its end: another moment
                break
            k += 1
            moments.append(round(moment, 3))
            states[_state(bench.work / out)] += 1
        if not moments:
            continue
        try:
            path = bench.work / out / "potential.etn"
            if path.exists():
                etnpot.load(path)  # never a part of one
            bench.finish(out, "--resume", fresh=fresh)
            bench.check(out)
        except Exception as error:
            failures.append(f"after {moments} s: {error}"[:500])
            shutil.copytree(bench.work / out, bench.work / f"failed-{k}", dirs_exist_ok=True)
        if k % 20 < chain:
            print(f"kill {k}: {len(failures)} failures", flush=True)
    return {
        "kills": n,
        "failures": failures,
        "found": dict(states),
        "ended_before": late,
        "chain": chain,
        "fit_seconds": round(bench.seconds, 2),
    }


def _state(directory: Path) -> str:
    """How far a killed fit had come."""
    if (directory / "finished.json").exists():
        return "finished"
    if (directory / "metrics.json").exists():
        return "writing the report"
    if (directory / "checkpoint.etnfit").exists():
        return "between the first step and the last"
    return "before the first step"


def part_full(bench: Bench, rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Files that cannot grow, and file systems that are full."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    sizes = {path.name: path.stat().st_size for path in (bench.work / "whole").iterdir()}
    can_mount = _mount(bench.work / "probe", 1)
    if can_mount:
        _unmount(bench.work / "probe")
    for k in range(n):
        out: str | Path = "full"
        shutil.rmtree(bench.work / out, ignore_errors=True)
        on_tmpfs = can_mount and k % 2 == 1
        try:
            if on_tmpfs:
                assert _mount(bench.work / "small", int(rng.integers(4, sum(sizes.values()) // 1024 + 24)))
                out = Path("small") / "fit"
                status = bench.wait(bench.start(bench.words(out)))
            else:
                limit = int(np.exp(rng.uniform(np.log(6000), np.log(max(sizes.values()) + 1000))))
                status = bench.wait(
                    bench.start(
                        bench.words(out),
                        prepare=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
                    )
                )
            counts["tmpfs" if on_tmpfs else "RLIMIT_FSIZE"] += 1
            counts["had room"] += status == 0
            said = bench.said()
            if status != 0:
                assert status == 2, f"status {status}: {said[-1500:]}"
                assert "Traceback" not in said and "etnpot: error:" in said, said[-1500:]
            if on_tmpfs:
                _resize(bench.work / "small")
            if status != 0:
                bench.finish(out, "--resume")
            bench.check(out)
        except AssertionError as error:
            failures.append(f"{'tmpfs' if on_tmpfs else 'limit'} {k}: {error}"[:2500])
        finally:
            if on_tmpfs:
                _unmount(bench.work / "small")
    return {"fits": n, "failures": failures, **counts}


def _mount(where: Path, kilobytes: int) -> bool:
    where.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(where)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _resize(where: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(where)], check=True)


def _unmount(where: Path) -> None:
    subprocess.run(["umount", str(where)], capture_output=True, check=False)


def part_readonly(bench: Bench, rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Directories that cannot be written, without a fit and with half of one in them."""
    failures: list[str] = []
    bench.work.chmod(0o755)
    for kind in ("empty", "holding a fit", "inside a directory that cannot be written"):
        out = bench.work / "locked"
        if out.exists():
            out.chmod(0o755)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if kind == "holding a fit":
            pid = bench.start(bench.words(out))
            time.sleep(0.5 * bench.seconds)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        before = sorted(path.name for path in out.iterdir())
        out.chmod(0o555)
        target = out / "fit" if kind.startswith("inside") else out
        more = ("--resume",) if kind == "holding a fit" else ()
        status = bench.wait(bench.start(bench.words(target, *more), prepare=_as_nobody))
        said = bench.said()
        if status != 2 or "Traceback" in said or "can be written" not in said:
            failures.append(f"{kind}: status {status}, {said[-500:]}")
        if sorted(path.name for path in out.iterdir()) != before:
            failures.append(f"{kind}: files have changed")
        out.chmod(0o755)
    return {"places": 3, "as": "nobody" if os.getuid() == 0 else "the user", "failures": failures}


def _as_nobody() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def part_two(bench: Bench, rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Three fits in one directory, begun at nearly the same time."""
    failures: list[str] = []
    for k in range(n):
        shutil.rmtree(bench.work / "shared", ignore_errors=True)
        pids = []
        for _ in range(3):
            pids.append(bench.start(bench.words("shared", "--resume")))
            time.sleep(float(rng.choice([0.0, 0.0, 0.02, 0.3])))
        statuses = [bench.wait(pid) for pid in pids]
        # one that began after another had ended finds its result finished, and has nothing left to do
        if statuses.count(0) < 1 or set(statuses) - {0, 2}:
            failures.append(f"{k}: statuses {statuses}, {bench.said()[-500:]}")
            continue
        try:
            bench.check("shared")
        except AssertionError as error:
            failures.append(f"{k}: {error}"[:500])
    return {"rounds": n, "fits": 3 * n, "failures": failures}


# ------------------------------------------------------------------------------------------------ the page


def render(results: dict[str, Any]) -> str:
    """The section as Markdown."""
    rows = ["| what | how often | failures |", "|---|---|--:|"]
    if "kill" in results:
        r = results["kill"]
        found = ", ".join(f"{count} {name}" for name, count in sorted(r["found"].items()))
        rows.append(
            f"| SIGKILL at a random moment, then `--resume`: same parameters to the last bit, same history | {r['kills']} kills"
            f"{'' if r.get('chain', 1) == 1 else ', ' + str(r['chain']) + ' of each fit'} ({found}) | {len(r['failures'])} |"
        )
    if "full" in results:
        r = results["full"]
        kinds = ", ".join(
            f"{r[name]} on {how}"
            for name, how in (("RLIMIT_FSIZE", "files that cannot grow"), ("tmpfs", "a full tmpfs"))
            if r.get(name)
        )
        rows.append(
            f"| no room: an error in one line; same bits when there is room | {r['fits']} fits ({kinds}; {r.get('had room', 0)} had room) | {len(r['failures'])} |"
        )
    if "readonly" in results:
        r = results["readonly"]
        rows.append(
            f"| a directory that cannot be written: refused, nothing changed | {r['places']} places, as {r['as']} | {len(r['failures'])} |"
        )
    if "two" in results:
        r = results["two"]
        rows.append(
            f"| three fits begun in one directory: one runs, the others are refused | {r['rounds']} rounds | {len(r['failures'])} |"
        )
    return "\n".join(rows)


def write_page(results: dict[str, Any]) -> None:
    """Put the section between the markers of docs/reliability.md."""
    write_sections(PAGE, {"generated faults": render(results)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--n", type=int, help="kills, fits without room, rounds (default 200, 40, 10)")
    parser.add_argument(
        "--chain", type=int, default=1, help="kills of one fit, each continued, before it may end"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--render", action="store_true", help="write the section from the JSON alone")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    failed = 0
    if not options.render:
        with contextlib.ExitStack() as stack:
            bench = Bench(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            print(f"the whole fit takes {bench.seconds:.2f} s", flush=True)
            for part in options.parts:
                run = {
                    "kill": functools.partial(part_kill, chain=options.chain),
                    "full": part_full,
                    "readonly": part_readonly,
                    "two": part_two,
                }[part]
                default = {"kill": 200, "full": 40, "readonly": 3, "two": 10}[part]
                found = run(
                    bench, np.random.default_rng([options.seed, PARTS.index(part)]), options.n or default
                )
                results[part] = {**found, "seed": options.seed, "version": etnpot.__version__}
                failed += len(found["failures"])
                print(part, {key: value for key, value in found.items() if key != "failures"}, flush=True)
                for failure in found["failures"][:10]:
                    print("   ", failure, flush=True)
                RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_page(results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
