"""What every timing shares: the cell, the way of timing, and the line in which a worker reports.

Runs in the environment of each peer, so that it imports numpy, ASE, the standard library, and of etnpot what imports no more.

A worker is a program of its own: it reads one JSON object (the `Task`) from its first argument, and its last line of output
is one JSON object. Seconds are the minimum over the calls after the warm-up, since other work on the machine can only make a
call longer; processor time, of all threads together, is kept beside the time on the clock, because it does not grow while
another program has the core.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from etnpot.compare.timing import (
    calculator_call,
    minimum_in_turns,
    minimum_seconds,
    peak_memory_mb,
    time_calculator,
)

__all__ = [
    "calculator_call",
    "cell",
    "minimum_in_turns",
    "minimum_seconds",
    "peak_memory_mb",
    "report",
    "task",
    "time_calculator",
]

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
