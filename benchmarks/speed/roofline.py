"""Roofline: counted operations and bytes of every kernel stage over its time, beside what the machine can do.

    python benchmarks/speed/roofline.py            measure, write roofline.json and docs/roofline.md
    python benchmarks/speed/roofline.py --render   the page again from the JSON

Stages are timed through the library's own functions: features alone are the pair stage; atoms without neighbours leave the
train alone; what remains of an evaluation is the way back to the pairs. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import common
import counts
import numpy as np
import run
from models import conditions, conditions_lines, potential_of

from etnpot.fitting.normal_equations import GramAccumulator
from etnpot.neighbors import EdgeList, neighbor_list
from etnpot.potential import Potential, Sensitivities, assembly
from etnpot.workspace import Workspace

RESULTS = run.HERE / "roofline.json"
PAGE = run.ROOT / "docs" / "roofline.md"
PLOT = run.ROOT / "docs" / "roofline.png"
#: Columns of J^T that the fit multiplies at once, and atoms of the configuration of the Jacobian.
GRAM_COLUMNS, FIT_ATOMS = 2048, 32
PRESETS = ("small", "medium", "large")
EVALUATION = ("pair forward", "train", "pair adjoint", "assembly")
TRAINING = ("Jacobian", "Gram matrix")


def seconds(call: Callable[[], Any], budget: float) -> float:
    """Least processor time of a call."""
    return float(common.minimum_seconds(call, budget=budget)["processor_seconds"])


def machine_rates(budget: float) -> dict[str, float]:
    """Rate of a matrix product (operations per second) and bandwidth of memory (bytes per second), one thread."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1024, 1024)), rng.normal(size=(1024, 1024))
    out = np.empty_like(a)
    product = seconds(lambda: np.matmul(a, b, out=out), budget)
    x, y = np.ones(16_000_000), np.ones(16_000_000)
    z = np.empty_like(x)
    addition = seconds(lambda: np.add(x, y, out=z), budget)
    return {"matrix_product": 2 * 1024**3 / product, "bandwidth": 24 * len(x) / addition}


def isolated(n_atoms: int) -> EdgeList:
    """Atoms without neighbours."""
    return EdgeList(np.zeros(n_atoms + 1, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3)))


def evaluation_stages(potential: Potential, budget: float) -> dict[str, dict[str, float]]:
    """Time, operations and bytes of every stage, per atom."""
    atoms = common.cell(4_000)
    edges = neighbor_list(atoms, potential.cutoff)
    numbers, n = atoms.numbers, len(atoms)
    alone = isolated(n)
    calls = {
        "whole": lambda: potential.evaluate(edges, numbers, threads=1),
        "forward": lambda: potential.features(edges, numbers, threads=1),
        "train": lambda: potential.evaluate(alone, numbers, threads=1),
    }
    timings = common.minimum_in_turns(calls, budget=budget, rounds=8)
    least = {name: timing["processor_seconds"] for name, timing in timings.items()}
    evaluation = potential.evaluate(edges, numbers, threads=1)

    def assembled() -> None:
        assembly.forces_and_virials(edges, evaluation.dE_dr_pc, n, 1)

    times = {
        "pair forward": least["forward"],
        "train": least["train"],
        "pair adjoint": max(least["whole"] - least["forward"] - least["train"], 1e-9),
        "assembly": seconds(assembled, budget),
    }
    found = counts.evaluation_counts(potential.spec, edges.n_pairs / n)
    return {
        name: {"seconds": times[name] / n, "operations": count.operations, "bytes": count.bytes}
        for name, count in found.items()
    }


def training_stages(potential: Potential, budget: float) -> dict[str, dict[str, float]]:
    """The Jacobian of a configuration, and the product of a block of its rows into the Gram matrix."""
    atoms = common.bulk("Ni", "fcc", a=common.LATTICE, cubic=True).repeat((2, 2, FIT_ATOMS // 16))
    atoms.set_chemical_symbols(np.resize(np.array(common.SPECIES[:4]), len(atoms)).tolist())
    atoms.rattle(common.RATTLE, seed=1)
    edges = neighbor_list(atoms, potential.cutoff)
    sensitivities = Sensitivities(potential)
    workspace = Workspace()
    jacobian = seconds(
        lambda: sensitivities.jacobian(edges, atoms.numbers, per_atom=False, workspace=workspace), budget
    )
    n_parameters = potential.n_parameters
    block = np.random.default_rng(0).normal(size=(n_parameters, GRAM_COLUMNS))
    rows, accumulator = np.zeros(GRAM_COLUMNS), GramAccumulator(n_parameters)

    return {
        "Jacobian": {
            "seconds": jacobian,
            "operations": counts.jacobian_operations(potential.spec, len(atoms)),
            "bytes": 8.0 * n_parameters * (3 * len(atoms) + 7),
        },
        "Gram matrix": {
            "seconds": seconds(lambda: accumulator._absorb(block, rows), budget),
            "operations": counts.gram_operations(n_parameters, GRAM_COLUMNS),
            "bytes": 8.0 * (n_parameters * GRAM_COLUMNS + 2 * n_parameters**2),
        },
    }


def measure(budget: float) -> dict[str, Any]:
    """All presets."""
    results: dict[str, Any] = {"machine": run.machine(), "conditions": conditions(), "presets": {}}
    results["rates"] = machine_rates(budget)
    for name in PRESETS:
        potential = potential_of({"size": name}, list(common.SPECIES[:4]))
        stages = {**evaluation_stages(potential, budget), **training_stages(potential, budget)}
        results["presets"][name] = {"n_parameters": potential.n_parameters, "stages": stages}
        print(name, {key: f"{1e6 * value['seconds']:.2f} µs" for key, value in stages.items()}, flush=True)
    after = machine_rates(budget)
    results["rates"] = {key: max(value, after[key]) for key, value in results["rates"].items()}
    return results


def short(value: float) -> str:
    """Three digits with k, M or G."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {letter}"
    return f"{value:.3g}"


def roof(stage: dict[str, float], rates: dict[str, float]) -> float:
    """Highest rate that memory and arithmetic allow, operations per second."""
    return min(rates["matrix_product"], rates["bandwidth"] * stage["operations"] / stage["bytes"])


def tables(results: dict[str, Any]) -> dict[str, list[str]]:
    """The generated parts of the page."""
    rates = results["rates"]
    lines = [
        "| preset | stage | time | operations | operations per byte | Gop/s | of the matrix-product rate | of the roof |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in PRESETS:
        preset = results["presets"][name]
        total = dict.fromkeys(("seconds", "operations", "bytes"), 0.0)
        for key in EVALUATION:
            for field in total:
                total[field] += preset["stages"][key][field]
        stages = {key: preset["stages"][key] for key in EVALUATION}
        stages["evaluation, together"] = total
        stages.update({key: preset["stages"][key] for key in TRAINING})
        for key, stage in stages.items():
            rate = stage["operations"] / stage["seconds"]
            unit = "ms" if key in TRAINING else "µs/atom"
            time = stage["seconds"] * (1e3 if unit == "ms" else 1e6)
            lines.append(
                f"| {name} | {key} | {run.number(time)} {unit} | {short(stage['operations'])} | "
                f"{run.number(stage['operations'] / stage['bytes'])} | {rate / 1e9:.2f} | "
                f"{100 * rate / rates['matrix_product']:.0f} % | {100 * rate / roof(stage, rates):.0f} % |"
            )
    machine = [
        run.machine_line(results["machine"]),
        "",
        f"Matrix product of 1,024 rows and columns: {rates['matrix_product'] / 1e9:.1f} Gop/s; memory: "
        f"{rates['bandwidth'] / 1e9:.1f} GB/s (sum of two arrays of 16 million numbers); so the two limits meet at "
        f"{rates['matrix_product'] / rates['bandwidth']:.1f} operations per byte. One thread.",
        *conditions_lines(results["conditions"]),
    ]
    return {"machine": machine, "roofline": lines}


def plot(results: dict[str, Any]) -> None:
    """Rate against operations per byte, with the roof."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rates = results["rates"]
    figure = Figure(figsize=(7.6, 4.8), dpi=110, layout="constrained", facecolor="white")
    axis = figure.subplots()
    colours = {"pair forward": "#0072B2", "train": "#D55E00", "pair adjoint": "#009E73", "assembly": "#CC79A7",
               "Jacobian": "#E69F00", "Gram matrix": "#000000"}  # fmt: skip
    markers = {"small": "o", "medium": "s", "large": "^"}
    x_all = [s["operations"] / s["bytes"] for p in results["presets"].values() for s in p["stages"].values()]
    x = np.geomspace(min(x_all) / 3, max(x_all) * 3, 200)
    axis.plot(
        x, np.minimum(rates["matrix_product"], rates["bandwidth"] * x) / 1e9, color="#666666", linewidth=1.3
    )
    for name in PRESETS:
        for key, stage in results["presets"][name]["stages"].items():
            axis.plot(stage["operations"] / stage["bytes"], stage["operations"] / stage["seconds"] / 1e9, markers[name],
                      color=colours[key], markersize=7, alpha=0.9)  # fmt: skip
    for key, colour in colours.items():
        axis.plot([], [], "o", color=colour, label=key)
    for name, marker in markers.items():
        axis.plot([], [], marker, color="#888888", fillstyle="none", label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(top=1.6 * rates["matrix_product"] / 1e9)
    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel("operations per byte of memory traffic", fontsize=9.5)
    axis.set_ylabel("Gop/s, one core", fontsize=9.5)
    axis.grid(visible=True, which="major", color="#e3e3e3", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(PLOT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of timing per stage (default 3)")
    parser.add_argument("--render", action="store_true", help="write the page from the JSON alone")
    options = parser.parse_args(arguments)
    if not options.render and os.environ.get("OMP_NUM_THREADS") != "1":
        # libraries read their number of threads when they are loaded
        command = [sys.executable, __file__, "--budget", str(options.budget)]
        sys.exit(subprocess.run(command, check=False, env=run.environment_variables(1, "")).returncode)
    if not options.render:
        RESULTS.write_text(
            json.dumps(measure(options.budget), indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    run.write_blocks(PAGE, tables(results))
    plot(results)


if __name__ == "__main__":
    main()
