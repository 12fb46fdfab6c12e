"""Reference data of small molecules from PySCF (restricted Hartree-Fock): the data of `run.py`.

    python benchmarks/spectra/reference.py OUT [--molecules water formaldehyde] [--basis 6-31g*]

For each molecule OUT/NAME/ gets

- train, valid and test.extxyz: geometries with energies (eV), forces (eV/Å), dipoles (e Å) and polarizabilities (e²Å²/eV),
  drawn along the normal modes of the minimum with the classical variance k T / omega² at temperatures from 300 to 2000 K;
- reference.json: the minimum, its Hessian (analytic), the derivatives of dipole and polarizability by the positions (central
  differences of the analytic ones), and from them frequencies (1/cm), infrared intensities (km/mol) and Raman activities
  (Å⁴/amu).

The intensities are computed here by formulas of their own, without etnpot, so that they check etnpot's. Polarizabilities are
those of the coupled-perturbed equations. Needs the extra `spectra-reference` (PySCF) and ASE.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.optimize import BFGS
from pyscf import gto, scf
from pyscf.scf import cphf

NAMES = {"water": "H2O", "formaldehyde": "H2CO"}
TEMPERATURES = (300.0, 1000.0, 2000.0)
SIZES = {"train": 450, "valid": 60, "test": 90}
#: Step of the central differences, Å.
STEP = 0.005
#: km/mol per (e/sqrt(amu))², and 1/cm per sqrt(eV/Å²/amu).
KM_PER_MOL = 974.8801
PER_CM = np.sqrt(units._e * 1e20 / units._amu) / (2 * np.pi * units._c * 100)


class HartreeFock:
    """Energy, forces, dipole, polarizability and Hessian of one geometry, in eV, e and Å."""

    def __init__(self, atoms: Atoms, basis: str) -> None:
        mol = gto.M(atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis=basis, verbose=0)
        self.field = scf.RHF(mol).run(conv_tol=1e-11, conv_tol_grad=1e-7)
        if not self.field.converged:
            raise RuntimeError(f"the self-consistent field of {atoms} did not converge")
        self.energy = self.field.e_tot * units.Hartree

    @property
    def forces(self) -> np.ndarray:
        return -self.field.nuc_grad_method().kernel() * units.Hartree / units.Bohr

    @property
    def dipole(self) -> np.ndarray:
        return np.asarray(self.field.dip_moment(unit="au", verbose=0)) * units.Bohr

    @property
    def polarizability(self) -> np.ndarray:
        """alpha_cd = 4 sum_ai r^c_ai u^d_ai with the response u of the orbitals to r^d, [3, 3]."""
        field, coefficients = self.field, self.field.mo_coeff
        occupied, empty = coefficients[:, field.mo_occ > 0], coefficients[:, field.mo_occ == 0]
        r_cai = np.einsum("cpq,pa,qi->cai", field.mol.intor_symmetric("int1e_r", comp=3), empty, occupied)
        response = field.gen_response(hermi=1)

        def induced(u: np.ndarray) -> np.ndarray:
            density = np.einsum("cai,pa,qi->cpq", u.reshape(-1, *r_cai.shape[1:]), 2 * empty, occupied)
            potential = response(density + density.transpose(0, 2, 1))
            return np.einsum("cpq,pa,qi->cai", potential, empty, occupied)

        u_cai = cphf.solve(induced, field.mo_energy, field.mo_occ, r_cai, max_cycle=50, tol=1e-10)[0]
        alpha = -4.0 * np.einsum("cai,dai->cd", r_cai, u_cai.reshape(r_cai.shape))
        return 0.5 * (alpha + alpha.T) * units.Bohr**2 / units.Hartree

    @property
    def hessian(self) -> np.ndarray:
        """[3 n, 3 n], eV/Å²."""
        hessian = self.field.Hessian().kernel().transpose(0, 2, 1, 3)
        return hessian.reshape(2 * (3 * len(hessian),)) * units.Hartree / units.Bohr**2


class HartreeFockCalculator(Calculator):
    """Energy and forces for ASE's optimiser."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, basis: str) -> None:
        super().__init__()
        self.basis = basis

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        found = HartreeFock(self.atoms, self.basis)
        self.results = {"energy": found.energy, "forces": found.forces}


def minimum(name: str, basis: str) -> Atoms:
    atoms = molecule(NAMES[name])
    atoms.calc = HartreeFockCalculator(basis)
    BFGS(atoms, logfile=None).run(fmax=1e-5, steps=200)
    atoms.calc = None
    return atoms


def harmonic(atoms: Atoms, basis: str) -> dict[str, Any]:
    """Hessian, derivatives, and what follows from them."""
    found = HartreeFock(atoms, basis)
    n = 3 * len(atoms)
    dmu, dalpha = np.empty((n, 3)), np.empty((n, 3, 3))
    for at in range(n):
        sides = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[at // 3, at % 3] += sign * STEP
            here = HartreeFock(moved, basis)
            sides.append((here.dipole, here.polarizability))
        dmu[at] = (sides[0][0] - sides[1][0]) / (2 * STEP)
        dalpha[at] = (sides[0][1] - sides[1][1]) / (2 * STEP)
    root = np.repeat(np.sqrt(atoms.get_masses()), 3)
    hessian = found.hessian
    squares, vectors = np.linalg.eigh(hessian / np.outer(root, root))
    modes = (vectors / root[:, None]).T[6:]
    frequencies = PER_CM * np.sqrt(squares[6:])
    dmu_q = modes @ dmu
    da = np.einsum("qx,xab->qab", modes, dalpha) * units.Hartree * units.Bohr
    mean = np.trace(da, axis1=1, axis2=2) / 3
    rest = da - mean[:, None, None] * np.eye(3)
    anisotropy = 1.5 * (rest**2).sum(axis=(1, 2))
    return {
        "symbols": list(atoms.symbols),
        "positions": atoms.positions.tolist(),
        "energy": found.energy,
        "dipole": found.dipole.tolist(),
        "polarizability": found.polarizability.tolist(),
        "hessian": hessian.tolist(),
        "frequencies": frequencies.tolist(),
        "infrared": (KM_PER_MOL * (dmu_q**2).sum(axis=1)).tolist(),
        "raman": (45 * mean**2 + 7 * anisotropy).tolist(),
    }


def sample(atoms: Atoms, hessian: np.ndarray, temperature: float, rng: np.random.Generator) -> Atoms:
    """A geometry displaced along the normal modes with variance k T / omega², in a random orientation."""
    root = np.repeat(np.sqrt(atoms.get_masses()), 3)
    squares, vectors = np.linalg.eigh(hessian / np.outer(root, root))
    amplitude = np.sqrt(units.kB * temperature / squares[6:]) * rng.normal(size=len(squares) - 6)
    moved = atoms.copy()
    moved.positions += ((vectors[:, 6:] @ amplitude) / root).reshape(-1, 3)
    moved.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
    return moved


def labelled(atoms: Atoms, basis: str) -> Atoms:
    found = HartreeFock(atoms, basis)
    atoms.calc = SinglePointCalculator(atoms, energy=found.energy, forces=found.forces, dipole=found.dipole)
    atoms.info["polarizability"] = found.polarizability
    return atoms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--molecules", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.molecules:
        directory = args.out / name
        directory.mkdir(parents=True, exist_ok=True)
        atoms = minimum(name, args.basis)
        values = harmonic(atoms, args.basis)
        values.update(name=name, method=f"RHF/{args.basis}", seed=args.seed)
        (directory / "reference.json").write_text(json.dumps(values, indent=1) + "\n")
        rng = np.random.default_rng(args.seed)
        for part, size in SIZES.items():
            temperatures = [TEMPERATURES[k % len(TEMPERATURES)] for k in range(size)]
            frames = [
                labelled(sample(atoms, np.array(values["hessian"]), temperature, rng), args.basis)
                for temperature in temperatures
            ]
            write(directory / f"{part}.extxyz", frames)
        print(
            name,
            np.round(values["frequencies"], 1),
            np.round(values["infrared"], 2),
            np.round(values["raman"], 2),
        )


if __name__ == "__main__":
    main()
