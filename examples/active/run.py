"""Active learning from nothing but a crystal structure, with ASE's effective-medium potential in the place of DFT.

    python run.py                 begin, or go on after a kill
    python run.py --command "run-dft {input} {output}"

Copper and nickel from ten rattled cells: in every iteration molecular dynamics at up to 2000 K explores with the potential of
the moment and stops where it guesses, and ten of the configurations that were met are computed. With ``--command`` a program
of your own computes instead: it reads an extended XYZ file and leaves a file with energy and forces that ASE reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

import etnpot
from etnpot.interfaces.active_learning import Iteration, MolecularDynamics, command_reference


def alloy(rng: np.random.Generator, scale: float = 1.0) -> Atoms:
    """A cell of 32 atoms, elements at random."""
    atoms = bulk("Cu", "fcc", a=3.57 * scale, cubic=True).repeat((2, 2, 2))
    atoms.symbols = rng.choice(["Cu", "Ni"], size=len(atoms))
    return atoms


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="active-learning", help="directory of the loop [active-learning]")
    parser.add_argument("--command", help="a program that computes, instead of EMT")
    parser.add_argument("--budget", type=int, default=60, help="reference calculations [60]")
    parser.add_argument("--steps", type=int, default=500, help="of molecular dynamics from each start [500]")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    initial = []
    for _ in range(10):
        atoms = alloy(rng, rng.uniform(0.97, 1.03))
        atoms.rattle(0.08, rng=rng)
        initial.append(atoms)
    vacancy = alloy(rng)
    del vacancy[0]
    out = Path(options.out)
    loop = etnpot.ActiveLearning(
        out,
        EMT() if options.command is None else command_reference(options.command, out / "calculations"),
        initial,
        MolecularDynamics([alloy(rng), alloy(rng), vacancy, alloy(rng, 1.05)], [300, 1000, 800, 2000], steps=options.steps),
        batch=10,
        budget=options.budget,
        threshold=1.5,
        settings={"size": "small", "cutoff": 4.5, "polish_steps": 20, "stress_weight": 0.0},
    )  # fmt: skip

    def show(done: Iteration) -> None:
        print(
            f"iteration {done.number}: fitted to {done.n_train} configurations, met {done.n_candidates}, largest grade "
            f"{done.largest_grade:.1f}, computed {done.n_chosen} more {done.reason}",
            flush=True,
        )

    last = loop.run(show)[-1]
    print(f"the potential: {last.potential}")


if __name__ == "__main__":
    main()
