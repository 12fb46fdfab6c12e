"""Active learning against random sampling: reference calculations until a potential is good everywhere that it will be used.

    python benchmarks/active/run.py              everything: JSON and the table of docs/reliability.md
    python benchmarks/active/run.py --render     the table again from the JSON

The material is a Cu-Ni alloy with ASE's effective-medium potential as the reference. The pool is what molecular dynamics with
the reference leaves: long runs of crystals at room temperature, short ones of hot crystals, vacancies, surfaces and melts,
in the parts of `SITUATIONS`. The test set has as many independent configurations of each situation, because a potential
must hold in all of them; errors on a test set with the parts of the pool are given as well. Both contenders are the same loop,
`etnpot.ActiveLearning`, which sees the pool in every iteration and differs in the rule by which it chooses: at random (the
mean over seeds), by grade, or by deviation.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, fcc100
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import thermalize
from etnpot.fitting.evaluation import evaluate
from etnpot.interfaces.active_learning import calculator_reference

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "reliability.md"

#: Part of the pool, temperature in K.
SITUATIONS: dict[str, tuple[float, float]] = {
    "crystal, 300 K": (0.70, 300.0),
    "crystal, 1000 K": (0.12, 1000.0),
    "vacancy, 800 K": (0.06, 800.0),
    "surface, 600 K": (0.06, 600.0),
    "melt, 2500 K": (0.06, 2500.0),
}
POOL, PER_SITUATION, INITIAL, BATCH = 500, 12, 10, 10
SETTINGS: dict[str, Any] = {
    "order": 3, "l_max": 2, "radial_size": 6, "channels": [4, 3, 2], "ranks": 3, "species_rank": 3, "cutoff": 4.5, "r_min": 1.4,
    "polish_steps": 25, "patience": 4, "stress_weight": 0.0, "threads": 1,
}  # fmt: skip


def start(name: str, rng: np.random.Generator) -> Atoms:
    """A structure of a situation with elements at random."""
    if name.startswith("surface"):
        atoms = fcc100("Cu", (2, 2, 4), a=3.57, vacuum=6.0)
    else:
        atoms = bulk("Cu", "fcc", a=3.57, cubic=True).repeat((2, 2, 2))
    atoms.pbc = True
    atoms.symbols = rng.choice(["Cu", "Ni"], size=len(atoms), p=[0.5, 0.5])
    if name.startswith("vacancy"):
        del atoms[int(rng.integers(len(atoms)))]
    if name.startswith("melt"):
        atoms.set_cell(1.04 * atoms.cell, scale_atoms=True)
        atoms.positions += 0.3 * rng.standard_normal(atoms.positions.shape)
    return atoms


def sample(name: str, n: int, seed: int, per_run: int) -> list[Atoms]:
    """Snapshots of runs with the reference, `per_run` of each run, 40 fs apart."""
    rng = np.random.default_rng(seed)
    kelvin, frames = SITUATIONS[name][1], []
    while len(frames) < n:
        atoms = start(name, rng)
        atoms.calc = EMT()
        thermalize(atoms, 2 * kelvin, rng)
        dynamics = Langevin(
            atoms,
            4.0 * units.fs,
            temperature_K=kelvin,
            friction=0.02 / units.fs,
            rng=np.random.default_rng(rng),
        )
        dynamics.run(60)
        for _ in range(min(per_run, n - len(frames))):
            dynamics.run(10)
            frame = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
            frame.info["config_type"] = name
            frames.append(frame)
    return frames


def pool_and_tests() -> tuple[list[Atoms], dict[str, DataSet]]:
    """The pool, unlabelled; the test sets "every situation alike" and "as the pool"."""
    pool: list[Atoms] = []
    tests: dict[str, list[Atoms]] = {"alike": [], "as the pool": []}
    for k, (name, (part, _)) in enumerate(SITUATIONS.items()):
        pool += sample(name, round(part * POOL), 100 + k, per_run=25)
        fresh = sample(name, round(part * 100), 300 + k, per_run=1)
        tests["alike"] += sample(name, PER_SITUATION, 200 + k, per_run=1)
        tests["as the pool"] += fresh
    reference = calculator_reference(EMT())
    return pool, {name: DataSet.from_atoms([reference(a) for a in frames]) for name, frames in tests.items()}


def errors(potential: etnpot.Potential, test: DataSet) -> dict[str, float]:
    """Root mean square errors: meV/atom, eV/Å."""
    metrics = evaluate(potential, test, threads=1)
    return {"energy": 1e3 * metrics.energy.rmse, "forces": metrics.forces.rmse}


def contend(
    rule: str, seed: int, budget: int, pool: Sequence[Atoms], tests: dict[str, DataSet], folder: Path
) -> list[dict[str, Any]]:
    """One loop: errors against the number of reference calculations."""
    rng = np.random.default_rng(seed)
    initial = [pool[i] for i in rng.permutation(len(pool))[:INITIAL]]
    loop = etnpot.ActiveLearning(
        folder / f"{rule}-{seed}", EMT(), initial, lambda _, __: pool, batch=BATCH, iterations=100, budget=budget,
        threshold=0.0, rule=rule, settings=SETTINGS, seed=seed,
    )  # fmt: skip
    curve: list[dict[str, Any]] = []
    begun = time.monotonic()

    def note(iteration: Any) -> None:
        potential = etnpot.load(iteration.potential)
        point = {
            "n": iteration.n_train,
            "largest_grade": iteration.largest_grade,
            "seconds": round(time.monotonic() - begun, 1),
        }
        point |= {name: errors(potential, test) for name, test in tests.items()}
        curve.append(point)
        print(rule, seed, json.dumps(point), flush=True)

    loop.run(note)
    return curve


def reached(curve: Sequence[dict[str, Any]], test: str, key: str, goal: float) -> int | None:
    """Reference calculations at which an error was first at or below a goal."""
    return next((point["n"] for point in curve if point[test][key] <= goal), None)


def summarize(curves: dict[str, list[list[dict[str, Any]]]]) -> dict[str, Any]:
    """Mean curves, and what each rule needs for the final accuracy of random sampling."""
    mean: dict[str, list[dict[str, Any]]] = {}
    for rule, runs in curves.items():
        numbers = sorted(set.intersection(*[{point["n"] for point in run} for run in runs]))
        mean[rule] = [
            {
                "n": n,
                **{
                    test: {
                        key: float(np.mean([next(p for p in run if p["n"] == n)[test][key] for run in runs]))
                        for key in ("energy", "forces")
                    }
                    for test in ("alike", "as the pool")
                },
            }
            for n in numbers
        ]
    random = mean["random"]
    needed = {
        str(goal["n"]): {
            rule: {
                test: {key: reached(curve, test, key, goal[test][key]) for key in ("energy", "forces")}
                for test in ("alike", "as the pool")
            }
            for rule, curve in mean.items()
        }
        for goal in (random[len(random) // 2 - 1], random[-1])
    }
    return {"mean": mean, "needed": needed}


def save(curves: dict[str, list[list[dict[str, Any]]]], n_pool: int) -> None:
    """Everything so far as JSON."""
    results = {
        "version": etnpot.__version__,
        "settings": SETTINGS,
        "pool": {name: part for name, (part, _) in SITUATIONS.items()},
        "n_pool": n_pool,
        "batch": BATCH,
        "initial": INITIAL,
        "curves": curves,
        "summary": summarize(curves),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def render(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    mean = results["summary"]["mean"]
    rules = list(mean)
    lines = [
        "| reference calculations | " + " | ".join(f"{rule}: E, F" for rule in rules) + " |",
        "|--:|" + "--:|" * len(rules),
    ]
    for n in sorted({point["n"] for curve in mean.values() for point in curve}):
        cells = []
        for rule in rules:
            point = next((p["alike"] for p in mean[rule] if p["n"] == n), None)
            cells.append("" if point is None else f"{point['energy']:.1f}, {point['forces']:.3f}")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Reference calculations until the accuracy that random sampling has after so many (loops: "
        + ", ".join(f"{rule} {len(results['curves'][rule])}" for rule in rules)
        + "):",
        "",
        "| random | test set | error | goal | " + " | ".join(rules) + " |",
        "|--:|---|---|--:|" + "--:|" * len(rules),
    ]
    for n, needed in results["summary"]["needed"].items():
        goal = next(point for point in mean["random"] if point["n"] == int(n))
        for test, name in (("alike", "every situation alike"), ("as the pool", "in the parts of the pool")):
            for key, unit, digits in (("energy", "meV/atom", 1), ("forces", "eV/Å", 3)):
                counts = [needed[rule][test][key] for rule in rules]
                lines.append(
                    f"| {n} | {name} | {key}, {unit} | {goal[test][key]:.{digits}f} | "
                    + " | ".join("not reached" if count is None else str(count) for count in counts)
                    + " |"
                )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="of every rule [3]")
    parser.add_argument("--budget", type=int, default=120, help="of random sampling [120]")
    parser.add_argument("--active-budget", type=int, default=80, help="of the others [80]")
    parser.add_argument("--rules", nargs="+", default=["random", "grade", "deviation"])
    parser.add_argument("--folder", help="where the loops are kept, to go on after a kill (default: nowhere)")
    parser.add_argument("--render", action="store_true", help="write the table from the JSON alone")
    options = parser.parse_args(arguments)
    if not options.render:
        os.environ.setdefault("ETNPOT_NUM_THREADS", "1")
        pool, tests = pool_and_tests()
        print(f"pool {len(pool)}, tests { ({k: len(v) for k, v in tests.items()}) }", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(options.folder or temporary)
            curves: dict[str, list[list[dict[str, Any]]]] = {}
            for seed in range(options.seeds):
                for rule in options.rules:
                    budget = options.budget if rule == "random" else options.active_budget
                    curves.setdefault(rule, []).append(contend(rule, seed, budget, pool, tests, folder))
                    save(curves, len(pool))
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    write_sections(PAGE, {"active": render(results)})
    print(render(results))


if __name__ == "__main__":
    main()
