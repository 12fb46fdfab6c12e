"""Scaling: time and memory of etnpot against atoms, threads, neighbours and every size of the model; and its start-up.

    python benchmarks/speed/scaling.py                   everything, then docs/scaling.md
    python benchmarks/speed/scaling.py --series order    some series; the others keep their last results
    python benchmarks/speed/scaling.py --render          the page again from the JSON

Each series changes one thing in the model `BASE`, on 500 atoms and one thread; the evaluation of a given edge list is timed,
and the train alone by atoms without neighbours. Atoms and threads are timed as in `run.py`, in processes of their own.
Exponents are slopes of the logarithm of the time against that of the size: over the whole series, and between its last two
entries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import run
from models import conditions, conditions_lines, potential_of

from etnpot.neighbors import EdgeList, neighbor_list

RESULTS = run.HERE / "scaling.json"
PAGE = run.ROOT / "docs" / "scaling.md"
PLOT = run.ROOT / "docs" / "scaling.png"

BASE: dict[str, Any] = {
    "order": 4,
    "l_max": 3,
    "radial_size": 8,
    "channels": 4,
    "ranks": 4,
    "species_rank": 4,
}
#: What varies, and through which values. Neighbours vary with the cutoff.
SERIES: dict[str, tuple[Any, ...]] = {
    "neighbours": (3.0, 3.8, 4.6, 5.0, 6.0, 7.0, 8.0),
    "order": (1, 2, 3, 4, 5, 6, 8),
    "l_max": (0, 1, 2, 3, 4, 5, 6),
    "ranks": (1, 2, 4, 8, 12, 16),
    "channels": (1, 2, 4, 8, 12, 16),
    "radial functions": (4, 6, 8, 12, 16),
    "species": (1, 2, 4, 8, 16),
}
SETTING = {"neighbours": "cutoff", "radial functions": "radial_size"}
ATOMS = (500, 4_000, 16_384, 100_000, 1_000_000)
THREADS = (1, 2)
#: Turns in which the entries of a series are timed.
ROUNDS = 8
#: GiB that a million atoms need to be free.
MEMORY_FOR_A_MILLION = 14


def entry_of(name: str, value: Any) -> tuple[dict[str, float], dict[str, Callable[[], Any]]]:
    """One entry of a series: what is known of it, and the calls to be timed."""
    settings = dict(BASE)
    species = list(common.SPECIES[:4])
    if name == "species":
        species = list(common.SPECIES[:value])
        settings["species_form"] = "embedding"
    else:
        settings[SETTING.get(name, name)] = value
    potential = potential_of(settings, species)
    atoms = common.cell(500, species)
    edges = neighbor_list(atoms, potential.cutoff)
    alone = EdgeList(np.zeros(len(atoms) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3)))
    known = {"n_parameters": float(potential.n_parameters), "n_neighbors": edges.n_pairs / len(atoms)}
    calls: dict[str, Callable[[], Any]] = {
        "evaluation": lambda: potential.evaluate(edges, atoms.numbers, threads=1),
        "train": lambda: potential.evaluate(alone, atoms.numbers, threads=1),
    }
    return known, calls


def series(name: str, budget: float) -> dict[str, dict[str, float]]:
    """All entries of a series, timed in turns, so that a busy spell of the machine does not meet one of them alone."""
    entries = {str(value): entry_of(name, value) for value in SERIES[name]}
    calls = {(value, key): call for value, (_, pair) in entries.items() for key, call in pair.items()}
    timings = common.minimum_in_turns(calls, budget=budget, rounds=ROUNDS)
    found = {value: known for value, (known, _) in entries.items()}
    for (value, key), timing in timings.items():
        found[value][key] = 1e6 * timing["processor_seconds"] / 500
    return found


def size_of(name: str, value: Any, found: dict[str, float]) -> float:
    """What the time is held against: neighbours are counted, and angular momenta begin with zero."""
    if name == "neighbours":
        return found["n_neighbors"]
    return float(value) + (1.0 if name == "l_max" else 0.0)


def free_memory_gib() -> float:
    """Memory that is available (Linux)."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 2**20
    return float("inf")


def atom_series(budget: float) -> dict[str, Any]:
    """The small preset through its calculator, by number of atoms."""
    row = run.ROWS["small"]
    found = {}
    for n_atoms in ATOMS:
        if n_atoms == max(ATOMS) and free_memory_gib() < MEMORY_FOR_A_MILLION:
            found[str(n_atoms)] = {"error": f"less than {MEMORY_FOR_A_MILLION} GiB of memory were free"}
            continue
        found[str(n_atoms)] = run.timed(row, n_atoms, 1, 4 * budget)
        print("atoms", n_atoms, found[str(n_atoms)].get("error", ""), flush=True)
    return found


def thread_series(budget: float) -> dict[str, Any]:
    """The medium preset at 16,384 atoms, by number of threads."""
    return {str(n): run.timed(run.ROWS["medium"], 16_384, n, 4 * budget) for n in THREADS}


IMPORT = """
import time
begin = time.perf_counter(), time.process_time()
import etnpot
{more}
print(time.perf_counter() - begin[0], time.process_time() - begin[1])
"""
IMPORTS = {"import": "", "import of the calculator": "etnpot.ETNCalculator, etnpot.ETN"}


def start_series() -> dict[str, Any]:
    """Import, first call of an installation and first forces of the next process, as CI measures them."""
    sys.path.insert(0, str(run.ROOT / "ci"))
    import first_call

    found: dict[str, Any] = {}
    for name, more in IMPORTS.items():
        times = []
        for _ in range(5):
            command = [sys.executable, "-c", IMPORT.format(more=more)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=run.environment_variables(1, "")
            )
            times.append([float(value) for value in done.stdout.split()])
        clock, processor = zip(*times, strict=True)
        found[name] = {"clock": min(clock), "processor": min(processor)}
    os.environ.update(run.environment_variables(1, ""))
    calls: dict[str, Any] = first_call.measure()
    for name, values in first_call.measure().items():
        calls[name] = {key: min(value, calls[name][key]) for key, value in values.items()}
    return {**found, **calls}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of y against x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponent_rows(results: dict[str, Any]) -> list[str]:
    """One line per series."""
    lines = [
        "| what grows | from, to | evaluation, µs/atom | exponent | last two | train alone, µs/atom | exponent | last two |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, values in SERIES.items():
        if name not in results["series"]:
            continue
        found = [results["series"][name][str(value)] for value in values]
        x = [size_of(name, value, entry) for value, entry in zip(values, found, strict=True)]
        shown = [f"{value:.0f}" for value in x] if name == "neighbours" else [str(value) for value in values]
        cells = [name, f"{shown[0]}, {shown[-1]}"]
        for key in ("evaluation", "train"):
            y = [entry[key] for entry in found]
            cells += [
                f"{run.number(y[0])}, {run.number(y[-1])}",
                f"{slope(x, y):.2f}",
                f"{slope(x[-2:], y[-2:]):.2f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def atom_rows(results: dict[str, Any]) -> list[str]:
    """Time and memory by number of atoms."""
    lines = [
        "| atoms | call, µs/atom | evaluation alone | list alone | list, kB/atom | evaluation beyond it, kB/atom | peak, MB |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    times = []
    for n_atoms in ATOMS:
        found = results["atoms"].get(str(n_atoms))
        if found is None or "error" in found:
            lines.append(f"| {n_atoms:,} | {(found or {}).get('error', 'not run')} | | | | | |")
            continue
        call, evaluation, search = (
            1e6 * part["processor_seconds"] / n_atoms for part in (found, found["evaluation"], found["list"])
        )
        times.append((n_atoms, call * n_atoms))
        memory = found["memory"]
        cells = [f"{n_atoms:,}", run.number(call), run.number(evaluation), run.number(search)]
        cells += [f"{memory[key] / 1000:.2f}" for key in ("list", "evaluation_peak")] if memory else ["", ""]
        lines.append("| " + " | ".join([*cells, f"{found['peak_memory_mb']:,.0f}"]) + " |")
    if len(times) > 1:
        lines += [
            "",
            f"Exponent of the time of a call against the number of atoms: {slope(*zip(*times, strict=True)):.3f}.",
        ]
    return lines


def thread_rows(results: dict[str, Any]) -> list[str]:
    """Time on the clock by number of threads."""
    lines = [
        "| threads | call, µs/atom on the clock | evaluation alone | gain of the evaluation | load before |",
        "|--:|--:|--:|--:|--:|",
    ]
    base = results["threads"].get("1", {})
    for n, found in results["threads"].items():
        if "error" in found or "error" in base:
            lines.append(f"| {n} | {found.get('error', 'no comparison')} | | | |")
            continue
        call, evaluation = (1e6 * part["seconds"] / 16_384 for part in (found, found["evaluation"]))
        gain = base["evaluation"]["seconds"] / found["evaluation"]["seconds"]
        lines.append(
            f"| {n} | {run.number(call)} | {run.number(evaluation)} | {gain:.2f} | {found['load']:.1f} |"
        )
    return lines


def start_rows(results: dict[str, Any]) -> list[str]:
    """Start-up."""
    names = {
        "import": "`import etnpot`, whose parts load when they are used",
        "import of the calculator": "`etnpot.ETN`, `etnpot.ETNCalculator`: ASE and the compiler with them",
        "first process": "first process after an installation: imports, compilation, first energy and forces of 32 atoms",
        "next process": "next process: imports, kernels from the cache, first energy and forces",
    }
    lines = ["| what | processor time, s | on the clock, s |", "|---|--:|--:|"]
    for key, label in names.items():
        found = results["start"][key]
        lines.append(f"| {label} | {found['processor']:.2f} | {found['clock']:.2f} |")
    return lines


def plot(results: dict[str, Any]) -> None:
    """Time against size, one panel per series."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    names = [name for name in SERIES if name in results["series"]]
    columns = 4
    figure = Figure(
        figsize=(11, 2.8 * -(-len(names) // columns)), dpi=110, layout="constrained", facecolor="white"
    )
    axes = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        found = [results["series"][name][str(value)] for value in SERIES[name]]
        x = [size_of(name, value, entry) for value, entry in zip(SERIES[name], found, strict=True)]
        for key, colour in (("evaluation", "#0072B2"), ("train", "#D55E00")):
            axis.plot(
                x, [entry[key] for entry in found], "o-", color=colour, markersize=4, linewidth=1.3, label=key
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        ticks = x[:1]
        for value in x[1:]:
            if value > 1.3 * ticks[-1]:
                ticks.append(value)
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        low, high = axis.get_ylim()
        axis.set_ylim(
            low / max(1.0, (2.5 / (high / low)) ** 0.5), high * max(1.0, (2.5 / (high / low)) ** 0.5)
        )
        axis.set_xlabel({"l_max": "l_max + 1"}.get(name, name), fontsize=9.5)
        axis.set_ylabel("µs per atom", fontsize=9)
        axis.grid(visible=True, color="#e3e3e3", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    axes[0].legend(fontsize=8.5, frameon=False)
    figure.savefig(PLOT)


def measure(names: Sequence[str], budget: float) -> None:
    """Measure, and write the JSON after every series."""
    results: dict[str, Any] = {"series": {}}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    results["machine"], results["conditions"] = run.machine(), conditions()
    for name in names:
        begin = time.perf_counter()
        if name == "start":
            results["start"] = start_series()
        elif name == "atoms":
            results["atoms"] = atom_series(budget)
        elif name == "threads":
            results["threads"] = thread_series(budget)
        else:
            results["series"][name] = series(name, budget)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    names = ["start", *SERIES, "atoms", "threads"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", nargs="+", choices=names, default=names)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of timing per entry (default 1)")
    parser.add_argument("--render", action="store_true", help="write the page from the JSON alone")
    options = parser.parse_args(arguments)
    if not options.render and os.environ.get("OMP_NUM_THREADS") != "1":
        # libraries read their number of threads when they are loaded
        command = [sys.executable, __file__, "--budget", str(options.budget), "--series", *options.series]
        sys.exit(subprocess.run(command, check=False, env=run.environment_variables(1, "")).returncode)
    if not options.render:
        measure(options.series, options.budget)
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = [run.machine_line(results["machine"]), *conditions_lines(results["conditions"])]
    generated = {"machine": machine, "exponents": exponent_rows(results)}
    if "atoms" in results:
        generated["atoms"] = atom_rows(results)
    if "threads" in results:
        generated["threads"] = thread_rows(results)
    if "start" in results:
        generated["start"] = start_rows(results)
    run.write_blocks(PAGE, generated)
    plot(results)


if __name__ == "__main__":
    main()
