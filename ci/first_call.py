"""How long the first energy and forces of a new installation take, and those of the next process.

Two processes, one after the other, share an empty cache of compiled kernels: the first compiles, the second
loads. What counts is processor time from the import of etnpot to the forces, so that a busy machine does not
fail the check, nor the time that ASE takes to build a crystal; the time on the clock is printed beside it.

Usage: ``python ci/first_call.py``
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

#: Most seconds of a processor for the process that compiles, and for the next one.
LIMITS = {"first process": 20.0, "next process": 2.0}

PROGRAM = """
import json, time
from ase.build import bulk
atoms = bulk("Cu", cubic=True) * (2, 2, 2)
atoms.symbols[::2] = "Ni"
atoms.rattle(0.05, seed=0)
begin, processor = time.perf_counter(), time.process_time()
import etnpot
atoms.calc = etnpot.ETNCalculator(etnpot.ETN(["Cu", "Ni"], seed=0))
atoms.get_potential_energy()
atoms.get_forces()
end = time.perf_counter()
print(json.dumps({"processor": time.process_time() - processor, "clock": end - begin}))
"""


def measure() -> dict[str, dict[str, float]]:
    """Seconds of each of the two processes."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in LIMITS:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM],
                env=os.environ | {"NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise RuntimeError(f"the {name} failed:\n{done.stderr}")
            found[name] = json.loads(done.stdout)
    return found


def verdict(seconds: dict[str, dict[str, float]]) -> int:
    """Print the times; 0 if all are within their limits."""
    status = 0
    for name, limit in LIMITS.items():
        times = seconds[name]
        print(
            f"{name}: {times['processor']:.1f} s of processor time (at most {limit:g}), "
            f"{times['clock']:.1f} s on the clock"
        )
        if times["processor"] > limit:
            print(f"first_call: the {name} took {times['processor']:.1f} s, expected at most {limit:g}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(verdict(measure()))
