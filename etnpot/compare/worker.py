"""Trains or evaluates one model, in the environment of its potential: ``python worker.py train|evaluate TYPE JOB.json``.

============ =========================================================================================
step         leaves in the directory of the job
============ =========================================================================================
train        the model; ``train.json``: parameters, seconds, memory, versions
evaluate     ``predictions.npz``; ``evaluate.json``: time per atom, memory, derived properties
============ =========================================================================================

The program is run by its path, since etnpot need not be installed in that environment. ``predictions.npz`` holds, for every
test set, energies [s] (eV), forces [i, 3] (eV/Å) of all atoms one after another and stresses [s, 6] (eV/Å³; NaN without one).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # etnpot's own directory as the package, and nothing else that may lie beside it
    _package = Path(__file__).resolve().parents[1]
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() not in (_package / "compare",)]
    if _package.parent not in [Path(path or ".").resolve() for path in sys.path]:
        for _name, _where in (("etnpot", _package), ("etnpot.compare", _package / "compare")):
            _module = types.ModuleType(_name)
            _module.__path__ = [str(_where)]
            sys.modules[_name] = _module

import numpy as np

from etnpot.compare.adapters import Adapter, Job, adapter_class
from etnpot.compare.adapters.base import versions
from etnpot.compare.timing import peak_memory_mb, time_calculator

__all__ = ["evaluate", "main", "train"]

#: s for the time per atom.
TIMING_BUDGET = 2.0


def train(adapter: Adapter, job: Job) -> dict[str, Any]:
    """Train; what `train.json` holds."""
    begin, before = time.perf_counter(), peak_memory_mb()
    facts = adapter.train(job)
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        **facts,
        "wall_seconds": seconds,
        "memory_mb": max(_peak_of_children(), peak_memory_mb()),
        "memory_before_mb": before,
        "versions": {"python": sys.version.split()[0], **versions(("ase", *adapter.distributions))},
    }


def _peak_of_children() -> float:
    """Largest resident size of a program that this one has run."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def evaluate(adapter: Adapter, job: Job) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Predictions of all test sets, time per atom, properties."""
    calculator = adapter.calculator(job)
    arrays: dict[str, np.ndarray] = {}
    begin = time.perf_counter()
    for name in job.sets:
        if name.startswith("test/"):
            arrays.update(predictions(job.frames(name), calculator, name))
    found: dict[str, Any] = {"seconds": time.perf_counter() - begin}
    found.update(speed(job, calculator))
    if job.properties:
        from etnpot.compare.properties import all_properties

        found["properties"] = all_properties(calculator, **job.properties)
    if not adapter.trains:
        count = getattr(getattr(calculator, "potential", None), "n_parameters", None)
        found["n_parameters"] = count if isinstance(count, int) else None
    found["memory_mb"] = peak_memory_mb()
    found["versions"] = {"python": sys.version.split()[0], **versions(("ase", *adapter.distributions))}
    return found, arrays


def predictions(frames: list[Any], calculator: Any, name: str) -> dict[str, np.ndarray]:
    """Energies, forces and stresses of configurations, as the module says."""
    energies, forces, stresses = [], [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        energies.append(float(atoms.get_potential_energy()))
        forces.append(np.asarray(atoms.get_forces(), dtype=np.float64))
        stresses.append(stress_of(atoms))
    return {
        f"{name}/energy": np.array(energies),
        f"{name}/forces": np.concatenate(forces) if forces else np.empty((0, 3)),
        f"{name}/stress": np.array(stresses).reshape(-1, 6),
    }


def stress_of(atoms: Any) -> np.ndarray:
    """Voigt stress [6] in eV/Å³; NaN for what has no volume, or a calculator without stress."""
    if atoms.cell.rank < 3 or not all(atoms.pbc):
        return np.full(6, np.nan)
    try:
        return np.asarray(atoms.get_stress(), dtype=np.float64)
    except Exception as error:
        print(f"no stress: {type(error).__name__}: {error}", file=sys.stderr)
        return np.full(6, np.nan)


def speed(job: Job, calculator: Any) -> dict[str, Any]:
    """Time per atom of the first test configuration, repeated along its periodic axes up to `timing_atoms`."""
    name = next((name for name in job.sets if name.startswith("test/")), None)
    if name is None:
        return {}
    atoms = job.frames(name)[0].copy()
    while len(atoms) < job.timing_atoms and any(atoms.pbc):
        lengths = np.where(atoms.pbc, atoms.cell.lengths(), np.inf)
        repeat = [1, 1, 1]
        repeat[int(np.argmin(lengths))] = 2
        atoms = atoms.repeat(repeat)
    try:
        timing = time_calculator(atoms, calculator, budget=TIMING_BUDGET)
    except Exception as error:
        return {"timing_error": f"{type(error).__name__}: {error}"}
    return {
        "us_per_atom": 1e6 * timing["processor_seconds"] / len(atoms),
        "us_per_atom_clock": 1e6 * timing["seconds"] / len(atoms),
        "timing_atoms": len(atoms),
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """In one step."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def end_with_parent() -> None:
    """End this program, and whatever it has started, when the one that has started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    if os.getpgrp() == os.getpid():  # a group of its own, as the runner makes it
        threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    """Do one step of one job."""
    step, kind, path = arguments
    end_with_parent()
    job = Job.from_json(Path(path).read_text(encoding="utf-8"))
    os.chdir(job.directory)
    adapter = adapter_class(kind)()
    if step == "train":
        write_json(job.directory / "train.json", train(adapter, job))
        return 0
    found, arrays = evaluate(adapter, job)
    partial = job.directory / ".predictions.partial.npz"
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    os.replace(partial, job.directory / "predictions.npz")
    write_json(job.directory / "evaluate.json", found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
