"""How a potential behaves far below the distances of its data: dimers of all pairs of elements, and squeezed cells.

    python benchmarks/short_range/run.py POTENTIAL --train FILE [--test FILE] [--name NAME] [--cells 24] [--seed 0]
    python benchmarks/short_range/run.py --render          the table again from the JSON

For a potential file and the data that it was fitted to, three rows: with the radii of the repulsion that a fit chooses for it,
with the usual ones, and without repulsion and bounds (the same parameters in all of them);

- *dimers*: over all pairs of elements and 1000 distances from 0.02 Å to where the data of the pair begin, the part of the
  scan at which the two atoms do not repel each other, the strongest attraction, the largest distance (in units of where the
  data begin) at which they do not repel, and the largest second derivative of the energy between 0.75 and 1;
- *cells*: fcc cells of 32 random atoms, displaced by 0 to 0.5 Å and squeezed to 0.3 of their length: the lowest energy per atom
  relative to that of the cell as it was, and the largest fall of the energy on the way from 0.9 on;
- with ``--test``, the root mean square of the force errors on a test set: what other radii cost.

Writes results.json beside this file, a row for each name, and the table of docs/reliability.md between its markers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii

import etnpot
from etnpot.basis import Repulsion, data_distances
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.evaluation import predict
from etnpot.fitting.short_range import dimer_forces, repulsive_radii
from etnpot.metrics import evaluate_errors
from etnpot.neighbors import neighbor_list
from etnpot.potential import Potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "reliability.md"


def energy_of(potential: Potential, atoms: Atoms) -> float:
    return potential.evaluate(neighbor_list(atoms, potential.cutoff), atoms.numbers).energy


def dimers(potential: Potential, shortest: np.ndarray) -> dict[str, Any]:
    """Forces below the shortest distances of the data, Å, [z_i, z_j]."""
    attracting, strongest, largest, bend, total = 0, 0.0, 0.0, 0.0, 0
    for i, z in enumerate(potential.species):
        for j, w in enumerate(potential.species[i:], start=i):
            r = np.linspace(0.02, shortest[i, j], 1000)
            force = dimer_forces(potential, [(z, w)], r[None])[0]
            if not np.isfinite(force).all():
                raise SystemExit(f"forces between {z} and {w} are not finite")
            total += len(r)
            bad = force <= 0
            attracting += int(bad.sum())
            strongest = max(strongest, float(-force.min()))
            if bad.any():
                largest = max(largest, float(r[bad].max() / shortest[i, j]))
            near = r > 0.75 * shortest[i, j]
            bend = max(bend, float(np.abs(np.gradient(force[near], r[near])).max()))
    return {"attracting": attracting / total, "strongest": strongest, "largest": largest, "bend": bend}


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
            energies.append(energy_of(potential, squeezed) / len(atoms))
        lowest = min(lowest, min(energies) - energies[0])
        later = np.minimum.accumulate(energies[::-1])[::-1]
        fall = max(fall, float(np.max((energies - later)[lengths < 0.9])))
    return {"lowest": lowest, "fall": fall}


def render(results: dict[str, Any]) -> None:
    """The table of docs/reliability.md."""
    lines = [
        "| potential | radii | not repulsive: share of distances | attraction at most, eV/Å | up to (data = 1) "
        "| bend at most, eV/Å² | lowest energy, eV/atom | largest fall | RMSE of test forces, eV/Å |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, rows in results.items():
        for kind in ("chosen", "usual", "none"):
            row = rows[kind]
            error = "" if row.get("forces_rmse") is None else f"{row['forces_rmse']:.4f}"
            lines.append(
                f"| {name} | {kind} | {100 * row['attracting']:.2f}% | {row['strongest']:.3g} | {row['largest']:.3f} "
                f"| {row['bend']:.3g} | {row['lowest']:,.1f} | {row['fall']:,.1f} | {error} |"
            )
    write_sections(PAGE, {"generated short range": "\n".join(lines)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("potential", nargs="?", type=Path, metavar="POTENTIAL")
    parser.add_argument("--train", nargs="+", type=Path, metavar="FILE", help="what it was fitted to")
    parser.add_argument("--test", nargs="+", type=Path, metavar="FILE", help="for errors")
    parser.add_argument("--name", help="of the row; by default that of the file")
    parser.add_argument("--render", action="store_true", help="write the table from the JSON alone")
    parser.add_argument("--cells", type=int, default=24, help="squeezed cells")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not args.render:
        if args.potential is None or not args.train:
            parser.error("give a POTENTIAL and --train, or --render")
        potential = etnpot.load(args.potential)
        if potential.spec.repulsion is None:
            raise SystemExit(f"{args.potential} was fitted with repulsion: none")
        distances = DataSet.from_files(args.train).min_distances()
        test = DataSet.from_files(args.test) if args.test else None
        species, cutoff = potential.species, potential.cutoff
        variants = {
            "chosen": potential.with_repulsion(repulsive_radii(potential, distances)),
            "usual": potential.with_repulsion(Repulsion.for_species(species, cutoff, distances)),
            "none": potential.with_repulsion(None).with_energy_bounds(None),
        }
        name = args.name or args.potential.stem
        results[name] = {}
        for kind, one in variants.items():
            row = dimers(one, data_distances(species, cutoff, distances)) | cells(one, args.cells, args.seed)
            row["forces_rmse"] = evaluate_errors(test, predict(one, test)).forces.rmse if test else None
            results[name][kind] = row
            print(name, kind, row, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    render(results)


if __name__ == "__main__":
    main()
