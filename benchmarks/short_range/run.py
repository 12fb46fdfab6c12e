"""How a potential behaves far below the distances of its data: dimers of all pairs of elements, and squeezed cells.

    python benchmarks/short_range/run.py POTENTIAL ... [--cells 24] [--seed 0]
    python benchmarks/short_range/run.py --render          the table again from the JSON

For every potential file two rows, with its short range and without (the same parameters, no repulsion, no bounds):

- *dimers*: over all pairs of elements and 400 distances from 0.02 Å to the shortest of the data (b/0.9), the part of the
  scan at which the two atoms attract each other, the strongest attraction, and the largest distance (in units of
  the shortest of the data) at which they do;
- *cells*: fcc cells of 32 random atoms, displaced by 0 to 0.5 Å and squeezed to 0.3 of their length: the lowest energy per atom
  relative to that of the cell as it was, and the largest fall of the energy on the way from 0.9 on.

Writes results.json beside this file, a row for each name of a file, and the table of docs/reliability.md between its markers.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii

import etnpot
from etnpot.neighbors import neighbor_list
from etnpot.potential import Potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "reliability.md"


def energy_and_forces(potential: Potential, atoms: Atoms) -> tuple[float, np.ndarray]:
    found = potential.evaluate(neighbor_list(atoms, potential.cutoff), atoms.numbers)
    return found.energy, found.forces


def dimers(potential: Potential, shortest: np.ndarray) -> dict[str, Any]:
    """Attraction below the shortest distances of the data, Å, [z_i, z_j]."""
    attracting, strongest, largest, total = 0, 0.0, 0.0, 0
    for i, z in enumerate(potential.species):
        for j, w in enumerate(potential.species[i:], start=i):
            for r in np.linspace(0.02, shortest[i, j], 400):
                atoms = Atoms([z, w], [[0.0, 0.0, 0.0], [r, 0.0, 0.0]])
                force = energy_and_forces(potential, atoms)[1][1, 0]
                if not np.isfinite(force):
                    raise SystemExit(f"the force between {z} and {w} at {r} Å is not finite")
                total += 1
                # where features rest, what is left of the force is rounding
                if force < -1e-9:
                    attracting += 1
                    strongest, largest = max(strongest, -force), max(largest, r / shortest[i, j])
    return {"attracting": attracting / total, "strongest": strongest, "largest": largest}


def cells(potential: Potential, n: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    lengths = np.linspace(1.0, 0.3, 71)
    lowest, fall = np.inf, 0.0
    for k in range(n):
        numbers = rng.choice(potential.species, 32)
        # the lattice constant of touching covalent spheres
        constant = np.sqrt(8.0) * np.mean(covalent_radii[numbers])
        atoms = bulk("Cu", "fcc", a=constant, cubic=True) * (2, 2, 2)
        atoms.numbers = numbers
        atoms.positions += 0.5 * k / max(n - 1, 1) * rng.normal(size=atoms.positions.shape) / np.sqrt(3)
        energies = []
        for length in lengths:
            squeezed = atoms.copy()
            squeezed.set_cell(atoms.cell.array * length, scale_atoms=True)
            energies.append(energy_and_forces(potential, squeezed)[0] / len(atoms))
        lowest = min(lowest, min(energies) - energies[0])
        later = np.minimum.accumulate(energies[::-1])[::-1]
        fall = max(fall, float(np.max((energies - later)[lengths < 0.9])))
    return {"lowest": lowest, "fall": fall}


def render(results: dict[str, Any]) -> None:
    """The table of docs/reliability.md."""
    lines = [
        "| potential | short range | attraction: share of distances | at most, eV/Å | up to (shortest = 1) "
        "| lowest energy, eV/atom | largest fall |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, both in results.items():
        for kind, row in both.items():
            lines.append(
                f"| {name} | {kind} | {100 * row['attracting']:.2f}% | {row['strongest']:.3g} | {row['largest']:.2f} | "
                f"{row['lowest']:,.1f} | {row['fall']:,.1f} |"
            )
    write_sections(PAGE, {"generated short range": "\n".join(lines)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("potentials", nargs="*", type=Path, metavar="POTENTIAL")
    parser.add_argument("--render", action="store_true", help="write the table from the JSON alone")
    parser.add_argument("--cells", type=int, default=24, help="squeezed cells")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for path in [] if args.render else args.potentials:
        potential = etnpot.load(path)
        if potential.spec.repulsion is None:
            raise SystemExit(f"{path} was fitted with repulsion: none")
        shortest = np.array(potential.spec.repulsion.outer) / 0.9
        without = Potential(replace(potential.spec, repulsion=None, energy_bounds=None), potential.parameters)
        results[path.stem] = {}
        for kind, one in (("as fitted", potential), ("none", without)):
            row = dimers(one, shortest) | cells(one, args.cells, args.seed)
            results[path.stem][kind] = row
            print(path.stem, kind, row, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    render(results)


if __name__ == "__main__":
    main()
