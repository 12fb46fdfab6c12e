"""Freeze a file: ``python freeze.py POTENTIAL_OR_TENSOR_MODEL NAME`` makes NAME.etn and NAME.json beside it.

A file that etnpot can evaluate also gets what two structures of its elements must give.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

import etnpot
from etnpot.errors import PotentialFileError
from etnpot.io.potential_file import POTENTIAL, TENSOR, StoredPotential, read_potential_file

HERE = Path(__file__).parent


def described(stored: StoredPotential) -> dict[str, Any]:
    """What reading the file must give, as JSON values."""
    values = asdict(stored) | {"arrays": {name: array.tolist() for name, array in stored.arrays.items()}}
    del values["kind"]
    return values


def structures(species: tuple[int, ...]) -> list[dict[str, Any]]:
    """A small triclinic crystal and a molecule, as arguments of `ase.Atoms`, Å."""
    rng = np.random.default_rng(0)
    cell = [[4.1, 0.0, 0.0], [0.7, 3.9, 0.0], [-0.4, 0.9, 4.3]]
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) @ cell
    helix = [[1.1 * np.cos(t), 1.1 * np.sin(t), 0.7 * t] for t in 1.9 * np.arange(6)]
    found = []
    for positions, periodic in ((corners, {"cell": cell, "pbc": True}), (np.array(helix), {})):
        rattled = positions + rng.uniform(-0.2, 0.2, positions.shape)
        numbers = [species[i % len(species)] for i in range(len(positions))]
        found.append({"numbers": numbers, "positions": rattled.round(6).tolist(), **periodic})
    return found


def evaluations(potential: etnpot.Potential) -> list[dict[str, Any]]:
    """Energies (eV), forces (eV/Å) and virial (eV) of `structures`."""
    found = []
    for structure in structures(potential.species):
        atoms = Atoms(**structure)
        result = potential.evaluate(potential.edges(atoms), atoms.numbers)
        values = {name: getattr(result, name).tolist() for name in ("energy_i", "forces", "virial")}
        found.append({"structure": structure, "results": values})
    return found


def tensors(model: etnpot.TensorModel) -> list[dict[str, Any]]:
    """Totals, tensors of atoms and derivatives by the positions of `structures`."""
    found = []
    for structure in structures(model.species):
        atoms = Atoms(**structure)
        if model.quantity.charges:
            atoms.pbc = False
        result, derivative = model.predict_derivatives(atoms, charge=1.0)
        values = {"total": result.total.tolist(), "component_io": result.component_io.tolist()}
        found.append({"structure": structure, "results": {**values, "derivative": derivative.tolist()}})
    return found


def freeze(source: Path, name: str, directory: Path = HERE) -> None:
    """Copy `source` to NAME.etn and describe it in NAME.json; refuses to replace a file."""
    content = source.read_bytes()
    stored = read_potential_file(source, (POTENTIAL, TENSOR))
    expected = described(stored)
    try:
        if stored.kind == TENSOR:
            expected["evaluations"] = tensors(etnpot.load_tensor(source))
        else:
            expected["evaluations"] = evaluations(etnpot.load(source))
    except PotentialFileError:  # a container whose content is no potential
        pass
    text = json.dumps(expected, indent=1, sort_keys=True) + "\n"
    with open(directory / f"{name}.etn", "xb") as file:
        file.write(content)
    with open(directory / f"{name}.json", "x", encoding="utf-8") as description:
        description.write(text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    freeze(Path(sys.argv[1]), sys.argv[2])
