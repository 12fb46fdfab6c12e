"""Reference data in which charge moves further than a local model sees: polyynes, neutral and protonated, from PySCF.

    python benchmarks/layers/reference.py OUT [--basis sto-3g]

H-(C≡C)k-H and the cation with one more proton on its first carbon. The surroundings of the other end are the same in both,
and its bonds and forces are not: the charge is spread over the chain. This is the kind of system on which J. Behler and
coworkers showed what local models cannot learn (Ko et al., Nat. Commun. 12, 398 (2021)); geometries and method here are our
own. Energies (eV) and forces (eV/Å) are those of restricted Hartree-Fock at minima of each molecule with Gaussian
displacements; OUT/NAME.extxyz has them, NAME being c4h2, c4h3+, c6h2, ... Needs the extra `spectra-reference` (PySCF).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.optimize import BFGS
from pyscf import gto, scf

#: Carbons of a chain: geometries of each molecule.
SIZES = {4: 80, 6: 100, 8: 30}
#: Standard deviations of the displacements, Å, one after another.
DISPLACEMENTS = (0.02, 0.04, 0.06)


class HartreeFock(Calculator):  # type: ignore[misc]
    """Energies and forces; each field begins with the density of the last one."""

    implemented_properties = ("energy", "forces")

    def __init__(self, basis: str, charge: int) -> None:
        super().__init__()
        self._basis, self._charge, self._density = basis, charge, None

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """One field and its gradient."""
        super().calculate(atoms, properties, system_changes)
        mol = gto.M(
            atom=list(zip(self.atoms.symbols, self.atoms.positions, strict=True)),
            basis=self._basis,
            charge=self._charge,
            verbose=0,
        )
        field = scf.RHF(mol)
        field.conv_tol = 1e-10
        field.kernel(dm0=self._density)
        if not field.converged:
            raise RuntimeError(f"the self-consistent field of {self.atoms} did not converge")
        self._density = field.make_rdm1()
        gradient = field.nuc_grad_method().kernel()
        self.results = {
            "energy": field.e_tot * units.Hartree,
            "forces": -gradient * units.Hartree / units.Bohr,
        }


def chain(n_carbons: int, protonated: bool) -> Atoms:
    """A chain along x; the first carbon has one hydrogen, or two."""
    steps = [1.21 if k % 2 == 0 else 1.37 for k in range(n_carbons - 1)]
    x = np.concatenate([[0.0], np.cumsum(steps)])
    ends = [(-0.55, 0.94, 0.0), (-0.55, -0.94, 0.0)] if protonated else [(-1.06, 0.0, 0.0)]
    positions = [*((at, 0.0, 0.0) for at in x), (x[-1] + 1.06, 0.0, 0.0), *ends]
    return Atoms(f"C{n_carbons}H{1 + len(ends)}", positions=positions)


def main() -> None:
    """Minima and displaced geometries of every molecule."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--basis", default="sto-3g")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for n_carbons, count in SIZES.items():
        for charge in (0, 1):
            name = f"c{n_carbons}h{2 + charge}" + "+" * charge
            path = args.out / f"{name}.extxyz"
            if path.is_file():
                continue
            atoms = chain(n_carbons, bool(charge))
            atoms.calc = HartreeFock(args.basis, charge)
            BFGS(atoms, logfile=None).run(fmax=0.02, steps=100)
            rng = np.random.default_rng([n_carbons, charge])
            frames = []
            for k in range(count):
                frame = atoms.copy()
                frame.positions += rng.normal(
                    scale=DISPLACEMENTS[k % len(DISPLACEMENTS)], size=(len(frame), 3)
                )
                frame.calc = atoms.calc
                results = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
                frame.calc = SinglePointCalculator(frame, **results)
                frame.info = {"config_type": name, "charge": charge}
                frames.append(frame)
            write(path, frames)
            print(name, len(frames), flush=True)


if __name__ == "__main__":
    main()
