"""Ask any ASE calculator for what the checks compare, without touching the caller's atoms.

    A = (E, F_ic, σ_v, E_i) of a structure; σ only where a volume exists (periodic in three dimensions).

========= ===================== ================================= ========
symbol    variable              shape                             unit
========= ===================== ================================= ========
E         ``energy``            scalar                            eV
F_ic      ``forces_ic``         (n_atoms, 3)                      eV/Å
σ_v       ``stress_v``          (6,), Voigt xx yy zz yz xz xy     eV/Å³
E_i       ``energies_i``        (n_atoms,)                        eV
========= ===================== ================================= ========

The energy is the one consistent with the forces (ASE's ``free_energy``) wherever the calculator offers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from etnpot.conventions import VOIGT, voigt
from etnpot.errors import SpecificationError, StructureError

__all__ = [
    "Evaluation",
    "describe",
    "evaluate",
    "full_stress",
    "potential_energy",
    "require_positive",
    "voigt_stress",
    "working_copy",
]

#: Least scale of relative force errors [eV/Å]: in a perfect crystal the forces cancel and leave rounding.
MIN_FORCE_SCALE = 0.1

#: Units of rounding error, in multiples of eps |E|, that every energy comparison grants.
ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a calculator says about one structure.

    Attributes
    ----------
    energy : float
        Energy E [eV].
    forces_ic : ndarray of float64, shape (n_atoms, 3)
        Forces [eV/Å], constraints ignored.
    stress_v : ndarray of float64, shape (6,), or None
        Stress in Voigt order [eV/Å³]; None where the calculator has none or the structure is not periodic in
        three dimensions.
    energies_i : ndarray of float64, shape (n_atoms,), or None
        Per-atom energies [eV]; None where the calculator has none.
    volume : float
        Cell volume [Å³]; 0 without stress.
    """

    energy: float
    forces_ic: NDArray[np.float64]
    stress_v: NDArray[np.float64] | None
    energies_i: NDArray[np.float64] | None
    volume: float

    @property
    def force_scale(self) -> float:
        """Largest force component, at least `MIN_FORCE_SCALE`: the scale of relative errors [eV/Å]."""
        return max(MIN_FORCE_SCALE, float(np.abs(self.forces_ic).max(initial=0.0)))


def describe(atoms: Atoms) -> str:
    """Formula and periodicity in a few characters, such as ``Ag2Cu3 (pbc TTF)``."""
    pbc = "".join("FT"[int(flag)] for flag in atoms.pbc)
    return f"{atoms.get_chemical_formula()} ({'molecule' if not atoms.pbc.any() else f'pbc {pbc}'})"


def working_copy(atoms: Atoms, calculator: Any) -> Atoms:
    """Copy of ``atoms``, free of constraints, with the calculator attached.

    Raises
    ------
    StructureError
        If there are no atoms, or positions or cell are not finite.
    """
    if len(atoms) == 0:
        raise StructureError("a physics check needs at least one atom, got an empty Atoms; add atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError("positions and cell must be finite, got NaN or inf; repair the structure first")
    copy = atoms.copy()
    copy.set_constraint()
    copy.calc = calculator
    return copy


def require_positive(name: str, value: float) -> float:
    """``value`` as a float, or a `SpecificationError` that names the setting."""
    if not (np.isfinite(value) and value > 0.0):
        raise SpecificationError(f"{name} must be a positive number, got {value!r}")
    return float(value)


def implements(calculator: Any, name: str) -> bool:
    """Whether the calculator lists the property in ASE's ``implemented_properties``."""
    return name in getattr(calculator, "implemented_properties", ())


def potential_energy(atoms: Atoms) -> float:
    """Energy of ``atoms`` by its own calculator, consistent with the forces where offered [eV]."""
    return float(atoms.get_potential_energy(force_consistent=implements(atoms.calc, "free_energy")))


def evaluate(atoms: Atoms) -> Evaluation:
    """Energy, forces, and where available stress and per-atom energies, by the atoms' own calculator."""
    forces_ic = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
    energy = potential_energy(atoms)
    has_stress = bool(atoms.pbc.all()) and implements(atoms.calc, "stress")
    has_energies = implements(atoms.calc, "energies")
    return Evaluation(
        energy=energy,
        forces_ic=forces_ic,
        stress_v=np.array(atoms.get_stress(), dtype=float) if has_stress else None,
        energies_i=np.array(atoms.get_potential_energies(), dtype=float) if has_energies else None,
        volume=float(atoms.get_volume()) if has_stress else 0.0,
    )


def full_stress(stress_v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric (3, 3) stress from the Voigt vector, same unit."""
    stress_cc = np.empty((3, 3))
    for v, (c, d) in enumerate(VOIGT):
        stress_cc[c, d] = stress_cc[d, c] = stress_v[v]
    return stress_cc


def voigt_stress(stress_cc: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voigt vector (6,) of a symmetric (3, 3) stress, same unit."""
    return voigt(stress_cc)
