"""What every timing shares: the cell, the way of timing, and the line in which a worker reports.

Runs in the environment of each peer, so that it imports numpy, ASE and the standard library alone.

A worker is a program of its own: it reads one JSON object (the `Task`) from its first argument, and its last line of output
is one JSON object. Seconds are the minimum over the calls after the warm-up, since other work on the machine can only make a
call longer; processor time, of all threads together, is kept beside the time on the clock, because it does not grow while
another program has the core.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from ase.build import bulk

#: Å; with `LATTICE` and `RATTLE` about 54 neighbours.
CUTOFF = 5.0
LATTICE = 3.45
RATTLE = 0.05
#: Cubic cells along each axis: four atoms each.
REPEATS = {
    108: (3, 3, 3),
    500: (5, 5, 5),
    1372: (7, 7, 7),
    4_000: (10, 10, 10),
    16_384: (16, 16, 16),
    100_000: (25, 25, 40),
    1_000_000: (50, 50, 100),
}
#: Species in the order in which they are used; the first four are those of the accuracy page's alloy.
SPECIES = ("Nb", "Mo", "Ta", "W", "V", "Cr", "Ti", "Zr", "Hf", "Re", "Ru", "Rh", "Pd", "Os", "Ir", "Pt")
#: Å by which positions change from call to call, so that nothing is taken from a cache of results.
NUDGE = 1.0e-4

Key = TypeVar("Key")


def cell(n_atoms: int, species: Sequence[str] = SPECIES[:4], *, lattice: float = LATTICE) -> Atoms:
    """Rattled fcc cell whose sites are taken by the species at random, in equal shares."""
    if n_atoms not in REPEATS:
        raise ValueError(f"cells of {n_atoms} atoms are not known; the sizes are {sorted(REPEATS)}")
    atoms = bulk("Ni", "fcc", a=lattice, cubic=True).repeat(REPEATS[n_atoms])
    symbols = np.resize(np.array(species), len(atoms))
    np.random.default_rng(0).shuffle(symbols)
    atoms.set_chemical_symbols(symbols.tolist())
    atoms.rattle(RATTLE, seed=1)
    return atoms


def minimum_seconds(
    call: Callable[[], Any], *, budget: float, warm: int = 2, least: int = 3
) -> dict[str, Any]:
    """Minimum time of a call: as many calls as fit in `budget` seconds, or `least` if they fit in four times as long."""
    begin = time.perf_counter()
    for _ in range(warm):
        call()
        if time.perf_counter() - begin > 2 * budget:
            break
    seconds: list[float] = []
    processor: list[float] = []
    end = time.perf_counter() + budget
    while (
        not seconds
        or time.perf_counter() < end
        or (len(seconds) < least and time.perf_counter() < end + 3 * budget)
    ):
        begin, begin_processor = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - begin)
        processor.append(time.process_time() - begin_processor)
    return {"seconds": min(seconds), "processor_seconds": min(processor), "calls": len(seconds)}


def minimum_in_turns(
    calls: Mapping[Key, Callable[[], Any]], *, budget: float, warm: int = 2, rounds: int = 4
) -> dict[Key, dict[str, Any]]:
    """`minimum_seconds` of several calls, a part of the budget at a time in turns: a busy spell then meets all of them."""
    found: dict[Key, dict[str, Any]] = {}
    for turn in range(rounds):
        for name, call in calls.items():
            timing = minimum_seconds(call, budget=budget / rounds, warm=warm if turn == 0 else 0, least=1)
            last = found.setdefault(name, timing)
            if last is not timing:
                last["calls"] += timing["calls"]
                for key in ("seconds", "processor_seconds"):
                    last[key] = min(last[key], timing[key])
    return found


def calculator_call(atoms: Atoms, calculator: Any) -> Callable[[], None]:
    """A call for energy, forces and stress through an ASE calculator, with positions that change from call to call."""
    atoms = atoms.copy()
    atoms.calc = calculator
    positions = atoms.get_positions()
    shifts = np.random.default_rng(2).normal(scale=NUDGE, size=(4, *positions.shape))
    count = [0]

    def call() -> None:
        atoms.set_positions(positions + shifts[count[0] % len(shifts)])
        count[0] += 1
        energy = atoms.get_potential_energy()
        forces = atoms.get_forces()
        stress = atoms.get_stress()
        if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(stress).all()):
            raise FloatingPointError("energy, forces or stress are not finite")

    return call


def time_calculator(atoms: Atoms, calculator: Any, *, budget: float, warm: int = 2) -> dict[str, Any]:
    """`minimum_seconds` of `calculator_call`."""
    return minimum_seconds(calculator_call(atoms, calculator), budget=budget, warm=warm)


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def task() -> dict[str, Any]:
    """What this worker is to do."""
    values = json.loads(sys.argv[1])
    expected = str(values["threads"])
    if os.environ.get("OMP_NUM_THREADS") != expected:
        raise RuntimeError(f"OMP_NUM_THREADS is not {expected}: workers are started by run.py, which pins it")
    return values


def report(timing: dict[str, Any], **more: Any) -> None:
    """Print the result as the last line."""
    values = {**timing, **more, "peak_memory_mb": round(peak_memory_mb(), 1)}
    print("\n" + json.dumps(values), flush=True)
