"""What layers buy: local models, message passing, attention and pooling on the same data, in the same time.

    python benchmarks/layers/reference.py POLYYNES
    python benchmarks/layers/run.py --polyynes POLYYNES                  every data set and variant
    python benchmarks/layers/run.py --polyynes POLYYNES --seeds 0 1      with several seeds, over which the tables take the mean
    python benchmarks/layers/run.py --polyynes POLYYNES --data polyynes --variants local messages
    python benchmarks/layers/run.py --polyynes POLYYNES --times          only the times, of random potentials of these settings
    python benchmarks/layers/run.py --render                             the tables again from the JSON

Every variant of a data set has the same local features, the same train behind its layers, and the same time on one thread;
*local, as many parameters* has about those of the messages, by higher ranks, and *local, as slow* an order, l_max and ranks
with which an evaluation takes about as long. The data are polyynes (`reference.py`), of which the longest are in no training
set, parts of 3BPA and NbMoTaW (docs/accuracy.md), and acetylacetone, whose directory $ETNPOT_ACAC names
(examples/compare/acac.yaml says where it is from). Writes results.json beside this file and the tables of docs/layers.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.evaluation import evaluate
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.split import split
from etnpot.potential import Potential
from etnpot.potential.build import random_potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections
from public_data import data_directory

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "layers.md"
#: Of measurements of time, far enough apart to find the machine at rest.
ROUNDS = 5


@dataclass(frozen=True)
class Task:
    """Settings of the local model and seconds; what is else in the larger local ones; training, validation and test sets."""

    settings: dict[str, Any]
    seconds: float
    larger: dict[str, int]
    slower: dict[str, Any]
    sets: Callable[[argparse.Namespace], tuple[DataSet, DataSet, dict[str, DataSet]]]


def polyynes(args: argparse.Namespace) -> tuple[DataSet, DataSet, dict[str, DataSet]]:
    """Of every five geometries of the shorter chains three are for training, one each for validation and test."""
    if args.polyynes is None:
        sys.exit("--polyynes: where the data of reference.py are")
    files = {path.stem: DataSet.from_files([path]) for path in sorted(args.polyynes.glob("c*.extxyz"))}
    known = [data for name, data in files.items() if name[:2] in ("c4", "c6")]
    longer = {name: data for name, data in files.items() if name[:2] == "c8"}

    def part(data: DataSet, *places: int) -> DataSet:
        return data.subset([index for index in range(len(data)) if index % 5 in places])

    def joined(*places: int) -> DataSet:
        first, *others = (part(data, *places) for data in known)
        for other in others:
            first = first + other
        return first

    return (
        joined(2, 3, 4),
        joined(0),
        {"C4, C6": joined(1), **{name.upper(): d for name, d in longer.items()}},
    )


def of_files(variable: str, told: str, train: str, tests: dict[str, str], n_train: int, n_test: int) -> Any:
    """Parts of data sets in the directory that a variable names, as the file `told` tells, drawn evenly."""

    def thinned(data: DataSet, count: int) -> DataSet:
        places = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int))
        return data.subset([int(place) for place in places])

    def sets(_: argparse.Namespace) -> tuple[DataSet, DataSet, dict[str, DataSet]]:
        root = data_directory(variable, told)
        learned, held_out = split(thinned(DataSet.from_files([root / train]), n_train), 0.15, seed=0)
        return (
            learned,
            held_out,
            {name: thinned(DataSet.from_files([root / path]), n_test) for name, path in tests.items()},
        )

    return sets


MOLECULE = {
    "order": 3, "l_max": 2, "radial_size": 7, "channels": [3, 2, 1], "ranks": {"0e": 3, "1o": 2, "2e": 1}, "species_rank": 3,
    "r_min": 0.8, "energy_weight": 1000.0, "repulsion": "none", "polish_steps": 1000,
}  # fmt: skip
METAL = {
    "order": 3, "l_max": 3, "radial_size": 7, "channels": [4, 3, 2, 1], "ranks": {"0e": 3, "1o": 2, "2e": 2, "3o": 1},
    "species_rank": 4, "cutoff": 4.5, "polish_steps": 1000,
}  # fmt: skip
SLOW = {"order": 5, "l_max": 3, "channels": [5, 4, 3, 2], "ranks": {"0e": 8, "1o": 6, "2e": 4, "3o": 3}}
SLOWER = {
    "order": 5, "l_max": 4, "channels": [5, 4, 3, 2, 2], "ranks": {"0e": 9, "1o": 7, "2e": 5, "3o": 4, "4e": 2},
}  # fmt: skip
TASKS = {
    "polyynes": Task(
        {**MOLECULE, "cutoff": 3.0}, 90, {"0e": 6, "1o": 4, "2e": 3}, SLOW, polyynes
    ),
    "3BPA": Task(
        {**MOLECULE, "cutoff": 4.0, "channels": [4, 3, 2], "ranks": {"0e": 5, "1o": 4, "2e": 2}}, 240,
        {"0e": 7, "1o": 5, "2e": 3}, SLOWER,
        of_files(
            "ETNPOT_DATA", "docs/accuracy.md", "3bpa/train.extxyz",
            {"300 K": "3bpa/test.extxyz", "600 K": "3bpa/test_600K.extxyz"}, 120, 200,
        ),
    ),
    "acetylacetone": Task(
        {**MOLECULE, "cutoff": 4.0, "channels": [4, 3, 2], "ranks": {"0e": 5, "1o": 4, "2e": 2}}, 300,
        {"0e": 7, "1o": 5, "2e": 3}, SLOWER,
        of_files(
            "ETNPOT_ACAC", "examples/compare/acac.yaml", "train_300K.xyz",
            {"300 K": "test_MD_300K.xyz", "600 K": "test_MD_600K.xyz", "dihedral": "test_dihedral.xyz",
             "proton transfer": "test_H_transfer.xyz"}, 500, 650,
        ),
    ),
    "NbMoTaW": Task(
        METAL, 240, {"0e": 5, "1o": 4, "2e": 3, "3o": 2}, SLOWER,
        of_files(
            "ETNPOT_DATA", "docs/accuracy.md", "nbmotaw_snap2020/train.extxyz",
            {"test": "nbmotaw_snap2020/test.extxyz"}, 300, 150,
        ),
    ),
}  # fmt: skip
MESSAGE = {"kind": "message", "order": 1, "carry": {"0e": 2, "1o": 1}}
POOL = {"kind": "pool", "order": 1, "carry": {"0e": 2}}
LAYERS: dict[str, list[dict[str, Any]]] = {
    "local": [],
    "local, as many parameters": [],
    "local, as slow": [],
    "messages": [MESSAGE],
    "messages twice": [MESSAGE, MESSAGE],
    "bilinear attention": [{**MESSAGE, "attention": "bilinear", "heads": 2, "width": 2}],
    "normalised attention": [{**MESSAGE, "attention": "normalised", "heads": 2, "width": 2}],
    "pool": [POOL],
    "pool, messages": [POOL, MESSAGE],
}


def settings_of(task: Task, variant: str) -> dict[str, Any]:
    """Settings of a variant."""
    settings = {**task.settings, "layers": LAYERS[variant]}
    if variant == "local, as many parameters":
        settings["ranks"] = task.larger
    elif variant == "local, as slow":
        settings |= task.slower
    return settings


def run(task: Task, variant: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One fit and its errors."""
    train, valid, tests = task.sets(args)
    result = etnpot.fit(
        train, valid, **settings_of(task, variant), time_limit=task.seconds, seed=seed, threads=1, reliability=False
    )  # fmt: skip
    row: dict[str, Any] = {
        "n_parameters": result.potential.n_parameters,
        "seconds": round(result.seconds, 1),
        "reason": result.reason,
        "microseconds_per_atom": time_per_atom(result.potential, max(valid, key=lambda c: c.n_atoms)),
        "errors": {},
    }
    for name, data in {"train": train, "valid": valid, **tests}.items():
        found = evaluate(result.potential, data)
        row["errors"][name] = {"n": len(data)}
        for label, scores in (("energy", found.energy), ("forces", found.forces)):
            if scores.n:
                row["errors"][name] |= {f"{label}_mae": 1e3 * scores.mae, f"{label}_rmse": 1e3 * scores.rmse}
    return row


def time_again(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Times of the rows of fits, by random potentials of their settings on the same configurations: the smallest of rounds.

    A fit that ended before its last growth is a little smaller than its settings; one that is much smaller keeps its time.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for name in args.data:
            train, valid, _ = TASKS[name].sets(args)
            species = sorted({int(z) for labelled in train for z in labelled.atoms.numbers})
            for variant in [v for v in args.variants if v in results.get(name, {})]:
                settings = FitSettings(**settings_of(TASKS[name], variant))
                spec = settings.spec(species, r_min=2.0, neighbor_scale=40.0)
                if spec.n_parameters <= 1.1 * max(
                    row["n_parameters"] for row in results[name][variant].values()
                ):
                    potential = random_potential(spec, np.random.default_rng(0))
                    times = found.setdefault((name, variant), [])
                    times.append(time_per_atom(potential, max(valid, key=lambda c: c.n_atoms)))
    for (name, variant), times in found.items():
        for row in results[name][variant].values():
            row["microseconds_per_atom"] = min(times)
        print(name, variant, *times)


def time_per_atom(potential: Potential, labelled: Any) -> float:
    """Microseconds of processor time of an evaluation, of several copies of one configuration, one thread."""
    atoms = labelled.atoms.copy()
    if not atoms.pbc.any():
        atoms.set_cell(np.ptp(atoms.positions, axis=0) + 20.0)
        atoms.pbc = True
    atoms = atoms * (2, 2, 2)
    edges = potential.edges(atoms)
    times = []
    for _ in range(50):
        begin = time.process_time()
        potential.evaluate(edges, atoms.numbers, threads=1)
        times.append(time.process_time() - begin)
    return round(1e6 * min(times[1:]) / len(atoms), 2)


def render(results: dict[str, Any]) -> dict[str, str]:
    """One table for each data set: means over the seeds and, where there are several, half the range of force errors."""

    def cell(runs: list[dict[str, Any]], part: str) -> str:
        energies, forces = (
            [run["errors"][part][f"{what}_mae"] for run in runs if f"{what}_mae" in run["errors"][part]]
            for what in ("energy", "forces")
        )
        if not forces:
            return f"{np.mean(energies):.2f}"
        spread = f" ± {np.ptp(forces) / 2:.0f}" if len(runs) > 1 else ""
        return f"{np.mean(energies):.2f}, {np.mean(forces):.0f}{spread}"

    tables = {}
    for name, rows in results.items():
        sets = list(next(iter(next(iter(rows.values())).values()))["errors"])
        lines = [
            "| model | parameters | µs per atom | " + " | ".join(f"{part}: E, F" for part in sets) + " |",
            "|---|--:|--:|" + "--:|" * len(sets),
        ]
        for variant in [v for v in LAYERS if v in rows]:
            runs = [rows[variant][seed] for seed in sorted(rows[variant])]
            cells = " | ".join(cell(runs, part) for part in sets)
            parameters = max(run["n_parameters"] for run in runs)
            time_taken = min(run["microseconds_per_atom"] for run in runs)
            lines.append(f"| {variant} | {parameters} | {time_taken:.1f} | {cells} |")
        tables[f"ablation: {name}"] = "\n".join(lines)
    return tables


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--polyynes", type=Path, help="directory of reference.py")
    parser.add_argument("--data", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--variants", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if args.times:
        time_again(args, results)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    elif not args.render:
        for name in args.data:
            for variant in args.variants:
                for seed in args.seeds:
                    row = run(TASKS[name], variant, seed, args)
                    results.setdefault(name, {}).setdefault(variant, {})[str(seed)] = row
                    print(name, variant, seed, json.dumps(row), flush=True)
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_sections(PAGE, render(results))


if __name__ == "__main__":
    main()
