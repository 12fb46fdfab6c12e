"""What the labels of the elements of Zuo et al. say about their crystals: the values in examples/compare/zuo.yaml.

    python benchmarks/compare/references.py

The training and test sets hold supercells with one component e_j of the strain at a time. C_ij is the derivative at e_j = 0 of
a polynomial of third order in e_j through the labelled stresses σ_i at |e_j| < 0.045 (shears of Si: 0.085), averaged over
equivalent i and j. The lattice constant is that of the lowest energy: with p = -(1/V) ∂E/∂e_j of such polynomials through the
energies, a₀ = a (1 + p / 3B), B = (C11 + 2 C12) / 3. The stresses themselves vanish elsewhere: the energies are those of plane
waves whose number follows the cell.

Si and Ge: forces remain in the sheared cells, so that their C44 is that of clamped atoms. The data are in ``$ETNPOT_ZUO``
(`mlearn.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from ase.units import GPa

from etnpot.compare.properties import crystal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from public_data import data_directory

#: Lattice, lattice constant (Å) of the unstrained supercells, conventional cells along each axis.
CRYSTALS = {
    "Ni": ("fcc", 3.508, 3), "Cu": ("fcc", 3.6164, 3), "Li": ("bcc", 3.42682, 1), "Mo": ("bcc", 3.1676, 3),
    "Si": ("diamond", 5.4687, 2), "Ge": ("diamond", 5.75416, 2),
}  # fmt: skip
LIMITS = (0.045, 0.085)  # of the strain


def strain_of(atoms: Atoms, side: float) -> np.ndarray:
    """Voigt strain [6] of a cell that was a cube; shears counted twice."""
    cell = atoms.cell.array / side
    metric = 0.5 * (cell @ cell.T - np.eye(3))  # of a rotated cell too
    lengths = np.sqrt(np.diag(cell @ cell.T)) - 1
    return np.array([*lengths, 2 * metric[1, 2], 2 * metric[0, 2], 2 * metric[0, 1]])


def values_of(symbol: str, folder: Path) -> dict[str, float]:
    """a (Å), B and elastic constants (GPa)."""
    lattice, a, repeat = CRYSTALS[symbol]
    n_atoms = len(crystal(lattice, [symbol], a)) * repeat**3
    found: dict[int, list[tuple[float, np.ndarray]]] = {j: [] for j in range(6)}
    for name in ("train", "test"):
        for atoms in read(folder / symbol / f"{name}.extxyz", index=":"):
            strain = strain_of(atoms, a * repeat)
            j = int(np.abs(strain).argmax())
            rest = np.delete(strain, j) if j < 3 else strain[3:][np.arange(3, 6) != j]
            if len(atoms) == n_atoms and 1e-3 < abs(strain[j]) < LIMITS[1] and np.abs(rest).max() < 1e-3:
                energy = atoms.get_potential_energy() / (a * repeat) ** 3
                found[j].append((strain[j], np.array([*atoms.get_stress(), energy])))

    def derivative(j: int) -> np.ndarray | None:
        """Of stresses and energy density, by e_j."""
        for limit in LIMITS:
            x, y = zip(*[(x, y) for x, y in found[j] if abs(x) < limit] or [(0.0, None)], strict=True)
            if min(sum(e > 0 for e in x), sum(e < 0 for e in x)) >= 2:
                return np.polyfit(x, np.array(y), 3)[2]
        return None

    slopes = {j: slope for j in range(6) if (slope := derivative(j)) is not None}
    normal = {j: slope for j, slope in slopes.items() if j < 3}
    c11 = np.mean([x[j] for j, x in normal.items()])
    c12 = np.mean([x[i] for j, x in normal.items() for i in range(3) if i != j])
    c44 = np.mean([abs(slope[j]) for j, slope in slopes.items() if j >= 3])
    pressure = -np.mean([x[6] for x in normal.values()])
    bulk = (c11 + 2 * c12) / 3
    values = {"a": a * (1 + pressure / (3 * bulk)), "B": bulk / GPa, "C11": c11 / GPa, "C12": c12 / GPa}
    return {**values, "C44 clamped" if lattice == "diamond" else "C44": c44 / GPa}


def main() -> None:
    """Lines for the study file."""
    folder = data_directory("ETNPOT_ZUO", "benchmarks/compare/mlearn.py")
    for symbol in CRYSTALS:
        values = values_of(symbol, folder)
        shown = ", ".join(
            f"{name}: {value:.3f}" if name == "a" else f"{name}: {value:.1f}"
            for name, value in values.items()
        )
        print(f"{symbol}: {{{shown}}}")


if __name__ == "__main__":
    main()
