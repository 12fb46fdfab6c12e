"""What a training step costs: memory with the size of the data set, time and parameters with the number of elements.

    python benchmarks/training/run.py                   both parts, JSON, and the page docs/training-cost.md
    python benchmarks/training/run.py --parts memory    one part; the other keeps its last results
    python benchmarks/training/run.py --render          the page again from the JSON, no measurement

The data are rattled crystals labelled by a random potential: the cost of a step does not depend on the labels. Every
measurement runs in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.settings import FitSettings
from etnpot.io.structures import Labelled
from etnpot.potential.build import random_potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "training-cost.md"
#: Atoms of the training sets of the memory part, with about this many parameters.
ATOMS, PARAMETERS = (50_000, 200_000), 2000
#: Elements of the species part, and the forms of the species factor with their settings.
SPECIES = (2, 4, 8, 16)
FORMS: dict[str, dict[str, Any]] = {
    "pair": {"species_form": "pair", "species_rank": 4},
    "embedding": {"species_form": "embedding", "embedding": [4, 4], "species_rank": 4},
}
SYMBOLS = ("Cu", "Ni", "Ag", "Au", "Pd", "Pt", "Al", "Pb", "Fe", "Co", "Cr", "Mo", "W", "Ta", "Nb", "V")


def crystals(n_atoms: int, symbols: Sequence[str], settings: FitSettings, *, labels: bool) -> DataSet:
    """Rattled fcc cells of 108 atoms with random elements; with labels of a random potential, or zeros."""
    rng = np.random.default_rng(0)
    cells = []
    for index in range(max(1, n_atoms // 108)):
        atoms = bulk("Cu", a=3.9, cubic=True).repeat(3)
        atoms.symbols = rng.permutation(np.resize(symbols, len(atoms)))
        atoms.rattle(0.1, rng=rng)
        cells.append((index, atoms))
    potential = None
    if labels:
        species = sorted({int(z) for _, atoms in cells for z in atoms.numbers})
        spec = settings.spec(species, r_min=2.0, neighbor_scale=50.0)
        potential = random_potential(spec, rng, {})
    found = []
    for index, atoms in cells:
        energy, forces, stress = 0.0, np.zeros((len(atoms), 3)), np.zeros(6)
        if potential is not None:
            result = potential.evaluate(potential.edges(atoms), atoms.numbers)
            energy, forces = result.energy, result.forces
        found.append(Labelled(atoms=atoms, energy=energy, forces=forces, stress=stress, index=index))
    return DataSet(found)


def peak_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(n_atoms: int) -> dict[str, Any]:
    """Peak of memory of a step over everything, beyond the labelled data with their neighbour lists."""
    settings = FitSettings(size=PARAMETERS, sweeps=0, growth=False, polish_steps=1)
    data = crystals(n_atoms, SYMBOLS[:2], settings, labels=False)
    fitter = Fitter(data, None, settings)
    # beyond the first sample, so that the step sees all data
    fitter._progress.level = 99
    before = peak_mb()
    started = time.monotonic()
    fitter.step()
    return {
        "atoms": sum(c.n_atoms for c in data),
        "n_parameters": fitter.potential.n_parameters,
        "data_mb": round(before),
        "beyond_mb": round(peak_mb() - before),
        "seconds": round(time.monotonic() - started, 1),
    }


def measure_species(n_species: int, form: str) -> dict[str, Any]:
    """Parameters, and times per atom of the Jacobian with Gram matrix and of an evaluation, on one thread.

    Without the dimers of the short range, five for every pair of elements however few the data are.
    """
    base = FitSettings(size="small", cutoff=5.0, repulsion="none", **FORMS[form])
    data = crystals(1080, SYMBOLS[:n_species], base, labels=True)
    fitter = Fitter(data, None, FitSettings(**{**base.to_dict(), "growth": False, "threads": 1}))
    problem, potential = fitter._problem, fitter.potential
    n_atoms = sum(c.n_atoms for c in data)
    result: dict[str, Any] = {"species": n_species, "form": form, "n_parameters": potential.n_parameters}
    for name, work in (
        ("step_us", lambda: problem.normal_equations(potential)),
        ("evaluate_us", lambda: problem.loss(potential)),
    ):
        work()
        times = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        result[name] = round(1e6 * min(times) / n_atoms, 2)
    return result


def in_own_process(part: str, *arguments: str) -> dict[str, Any]:
    """One measurement by a fresh interpreter."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", part, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(part, found, flush=True)
    return found


def tables(results: dict[str, Any]) -> str:
    """Both parts as Markdown."""
    lines = [
        f"Measured with etnpot {results['version']} on {results['processors']} processors ({results['machine']}).",
        "",
        "| atoms | parameters | data and neighbour lists, MB | beyond them, MB | one step, s |",
        "|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {m['atoms']} | {m['n_parameters']} | {m['data_mb']} | {m['beyond_mb']} | {m['seconds']} |"
        for m in results.get("memory", [])
    ]
    lines += [
        "",
        "| elements | form | parameters | Jacobian and Gram matrix, µs/atom | energy and forces, µs/atom |",
        "|--:|---|--:|--:|--:|",
    ]
    lines += [
        f"| {m['species']} | {m['form']} | {m['n_parameters']} | {m['step_us']:.0f} | {m['evaluate_us']:.1f} |"
        for m in results.get("species", [])
    ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=("memory", "species"), default=("memory", "species"))
    parser.add_argument("--render", action="store_true", help="write the page from the JSON alone")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        part, *arguments = options.measure
        found = (
            measure_memory(int(arguments[0]))
            if part == "memory"
            else measure_species(int(arguments[0]), arguments[1])
        )
        print(json.dumps(found))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if not options.render:
        results |= {
            "version": etnpot.__version__,
            "processors": os.cpu_count(),
            "machine": platform.machine(),
        }
        if "memory" in options.parts:
            results["memory"] = [in_own_process("memory", str(n)) for n in ATOMS]
        if "species" in options.parts:
            results["species"] = [in_own_process("species", str(n), form) for form in FORMS for n in SPECIES]
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_sections(PAGE, {"generated tables": tables(results)})


if __name__ == "__main__":
    main()
