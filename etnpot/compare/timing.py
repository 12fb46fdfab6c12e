"""Time and memory of an ASE calculator.

Seconds are the minimum over the calls after the warm-up, since other work on the machine can only make a call longer;
processor time, of all threads together, is kept beside the time on the clock, because it does not grow while another program
has the core.

Runs in the environments of other potentials too, so that it imports numpy and the standard library alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "NUDGE",
    "calculator_call",
    "minimum_in_turns",
    "minimum_seconds",
    "peak_memory_mb",
    "time_calculator",
]

#: Å by which positions change from call to call, so that nothing is taken from a cache of results.
NUDGE = 1.0e-4

Key = TypeVar("Key")


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


def calculator_call(atoms: Any, calculator: Any) -> Callable[[], None]:
    """A call for energy, forces and stress through an ASE calculator, with positions that change from call to call.

    Without stress for what has no volume.
    """
    atoms = atoms.copy()
    has_volume = atoms.cell.rank == 3 and all(atoms.pbc)
    atoms.calc = calculator
    positions = atoms.get_positions()
    shifts = np.random.default_rng(2).normal(scale=NUDGE, size=(4, *positions.shape))
    count = [0]

    def call() -> None:
        atoms.set_positions(positions + shifts[count[0] % len(shifts)])
        count[0] += 1
        energy = atoms.get_potential_energy()
        forces = atoms.get_forces()
        stress = atoms.get_stress() if has_volume else 0.0
        if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(stress).all()):
            raise FloatingPointError("energy, forces or stress are not finite")

    return call


def time_calculator(atoms: Any, calculator: Any, *, budget: float, warm: int = 2) -> dict[str, Any]:
    """`minimum_seconds` of `calculator_call`."""
    return minimum_seconds(calculator_call(atoms, calculator), budget=budget, warm=warm)


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
