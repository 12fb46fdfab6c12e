"""The elements of Zuo et al. (J. Phys. Chem. A 124, 731, 2020) as extended XYZ, from a clone of their repository.

    git clone https://github.com/materialsvirtuallab/mlearn
    python benchmarks/compare/mlearn.py mlearn OUT
    export ETNPOT_ZUO=$PWD/OUT

OUT/ELEMENT/train.extxyz and test.extxyz have energies (eV), forces (eV/Å) and stresses (eV/Å³; the repository has the pressures
of VASP, in kbar and, as fitted potentials confirm, in the order xx, yy, zz, xy, xz, yz), and the kind of each configuration as
config_type.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import GPa

ELEMENTS = ("Ni", "Cu", "Li", "Mo", "Si", "Ge")
PARTS = {"training": "train", "test": "test"}
#: Where the components in the order of ASE (xx, yy, zz, yz, xz, xy) are.
VOIGT = [0, 1, 2, 5, 4, 3]


def configuration(record: dict[str, Any]) -> Atoms:
    """One configuration with its labels."""
    structure, labels = record["structure"], record["outputs"]
    atoms = Atoms(
        [site["species"][0]["element"] for site in structure["sites"]],
        scaled_positions=[site["abc"] for site in structure["sites"]],
        cell=structure["lattice"]["matrix"],
        pbc=True,
        info={"config_type": record["group"], "description": record["description"]},
    )
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=labels["energy"],
        forces=np.array(labels["forces"]),
        stress=-0.1 * GPa * np.array(labels["virial_stress"])[VOIGT],
    )
    return atoms


def main() -> None:
    """Convert what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if not (args.clone / "data").is_dir():
        sys.exit(f"{args.clone} has no directory data: give a clone of materialsvirtuallab/mlearn")
    for element in ELEMENTS:
        folder = args.out / element
        folder.mkdir(parents=True, exist_ok=True)
        for part, name in PARTS.items():
            records = json.loads((args.clone / "data" / element / f"{part}.json").read_text())
            frames = [configuration(record) for record in records]
            write(folder / f"{name}.extxyz", frames)
            print(f"{element} {name}: {len(frames)} configurations")


if __name__ == "__main__":
    main()
