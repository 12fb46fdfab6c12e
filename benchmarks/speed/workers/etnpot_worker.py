"""etnpot: energy, forces and stress through its ASE calculator, and what the time consists of.

============  ===============================================================================================
reported      what
============  ===============================================================================================
(top level)   the calculator; its neighbour list, with a skin of 0.5 Å, is reused, as in molecular dynamics
with_list     the calculator without a skin: the list is searched at every call
list          the search alone, from ``Atoms`` to the edge list
evaluation    energies, forces and virial of a given edge list, without ASE
memory        bytes per atom: the list, and what an evaluation needs beyond it
============  ===============================================================================================
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import common
import numpy as np
from models import potential_of

import etnpot
from etnpot.neighbors import EdgeList, neighbor_list
from etnpot.potential import Potential


def evaluated(potential: Potential, edges: EdgeList, numbers: np.ndarray, threads: int) -> None:
    """Everything that an interface asks for."""
    evaluation = potential.evaluate(edges, numbers, threads=threads)
    _ = evaluation.energy, evaluation.forces, evaluation.virial


def memory_bytes(field: str) -> int:
    """A field of /proc/self/status (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only")


def memory(potential: Potential, n_atoms: int, species: list[str], threads: int) -> dict[str, float]:
    """Bytes per atom: of the edge list while it is searched, and of an evaluation beyond the list and the atoms."""
    atoms = common.cell(n_atoms, species)
    reset = Path("/proc/self/clear_refs")
    before = memory_bytes("VmRSS")
    reset.write_text("5", encoding="utf-8")  # forget the peak so far
    edges = neighbor_list(atoms, potential.cutoff)
    search = memory_bytes("VmHWM") - before
    held = memory_bytes("VmRSS") - before
    before = memory_bytes("VmRSS")
    reset.write_text("5", encoding="utf-8")
    evaluated(potential, edges, atoms.numbers, threads)
    evaluation = memory_bytes("VmHWM") - before
    return {
        "list_peak": search / n_atoms,
        "list": held / n_atoms,
        "evaluation_peak": evaluation / n_atoms,
    }


def main() -> None:
    """Time one model at one size."""
    values = common.task()
    threads, n_atoms, species = values["threads"], values["n_atoms"], values["species"]
    potential = potential_of(values["settings"], species)
    atoms = common.cell(n_atoms, species)
    small = common.cell(500, species)
    evaluated(potential, neighbor_list(small, potential.cutoff), small.numbers, threads)  # loads the kernels
    found = memory(potential, n_atoms, species, threads) if n_atoms >= 16_384 else None
    edges = neighbor_list(atoms, potential.cutoff)
    with_skin = etnpot.ETNCalculator(potential, threads=threads)
    without = etnpot.ETNCalculator(potential, threads=threads, skin=0.0)
    calls = {
        "step": common.calculator_call(atoms, with_skin),
        "with_list": common.calculator_call(atoms, without),
        "list": lambda: neighbor_list(atoms, potential.cutoff),
        "evaluation": lambda: evaluated(potential, edges, atoms.numbers, threads),
    }
    # the kernels are loaded: in a large cell only the first call of a calculator, which makes the list, needs company
    many = n_atoms >= 100_000
    timings = common.minimum_in_turns(
        calls, budget=values["budget"] / 4, warm=0 if many else 2, rounds=2 if many else 8
    )
    common.report(
        timings.pop("step"),
        **timings,
        n_pairs=edges.n_pairs,
        n_parameters=potential.n_parameters,
        memory=found,
        versions={
            "etnpot": etnpot.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "numba", "vesin")},
        },
    )


if __name__ == "__main__":
    main()
