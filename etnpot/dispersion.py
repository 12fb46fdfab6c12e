"""Dispersion of Grimme: D3 by the library simple-dftd3, and D2, as an additive term of a potential.

    E = E_local(edges) + E_disp(atoms)

A fit to energies of density functional theory with dispersion takes E_disp off the references, so that the local potential
learns what it can see, and whoever evaluates the potential adds E_disp again: the ASE calculator and `etnpot evaluate` here,
``pair_style hybrid/overlay`` in LAMMPS. D2 is the sum over pairs, each once,

    E_disp = -s6 sum_pairs C6_ij r^-6 / (1 + exp(-d (r/R_ij - 1))),   C6_ij = (C6_i C6_j)^(1/2),   R_ij = R_i + R_j,    (1)

truncated at the cutoff. D3 is that of two bodies unless ``three_body`` says otherwise.

============  ===========================================================================
symbol        here
============  ===========================================================================
s6            `D2_SCALES`, by functional
d             `D2_STEEPNESS`
C6, R         `_D2_C6` (J nm⁶/mol), `_D2_RADII` (Å), H to Xe
============  ===========================================================================

References
----------
S. Grimme, J. Comput. Chem. 27, 1787 (2006): D2. S. Grimme, J. Antony, S. Ehrlich, H. Krieg, J. Chem. Phys. 132, 154104
(2010): D3. S. Grimme, S. Ehrlich, L. Goerigk, J. Comput. Chem. 32, 1456 (2011): D3(BJ).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import InstallationError, SpeciesError, SpecificationError, StructureError
from etnpot.neighbors import check_structure, neighbor_list

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["METHODS", "Dispersion"]

Floats = NDArray[np.float64]

#: Methods, with the class of simple-dftd3 and the name of the damping in LAMMPS.
METHODS: dict[str, tuple[str, str]] = {
    "d3bj": ("RationalDampingParam", "bj"),
    "d3zero": ("ZeroDampingParam", "original"),
    "d3bjm": ("ModifiedRationalDampingParam", "bjm"),
    "d3zerom": ("ModifiedZeroDampingParam", "zerom"),
    "d2": ("", ""),
}
#: s6 of eq. (1).
D2_SCALES = {"pbe": 0.75, "blyp": 1.2, "bp86": 1.05, "tpss": 1.0, "b3lyp": 1.05, "b97d": 1.25}
D2_STEEPNESS = 20.0
#: eV Å⁶ per J nm⁶/mol.
_EV_A6 = 10.364269656

_D2_C6 = np.array(
    [
        *(0.14, 0.08, 1.61, 1.61, 3.13, 1.75, 1.23, 0.70, 0.75, 0.63, 5.71, 5.71, 10.79, 9.23, 7.84, 5.57, 5.07, 4.61),
        *([10.80] * 12), *(16.99, 17.10, 16.37, 12.64, 12.47, 12.01),
        *([24.67] * 12), *(37.32, 38.71, 38.44, 31.74, 31.50, 29.99),
    ]
)  # fmt: skip
_D2_RADII = np.array(
    [
        *(1.001, 1.012, 0.825, 1.408, 1.485, 1.452, 1.397, 1.342, 1.287, 1.243, 1.144, 1.364, 1.639, 1.716, 1.705, 1.683),
        *(1.639, 1.595, 1.485, 1.474), *([1.562] * 10), *(1.650, 1.727, 1.760, 1.771, 1.749, 1.727),
        *(1.628, 1.606), *([1.639] * 10), *(1.672, 1.804, 1.881, 1.892, 1.892, 1.881),
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """Which dispersion belongs to a potential.

    Parameters
    ----------
    method : {"d3bj", "d3zero", "d3bjm", "d3zerom", "d2"}
        D3 with rational (Becke-Johnson) or zero damping, their modified forms, or D2.
    xc : str
        Functional whose parameters are taken, for instance "pbe".
    cutoff : float, Å
        Range of the pairs; 60 bohr by default.
    cn_cutoff : float, Å
        Range of the coordination numbers of D3; 40 bohr by default.
    three_body : bool
        Add the Axilrod-Teller-Muto term of D3, which LAMMPS does not have.
    """

    method: str
    xc: str
    cutoff: float = 31.7506
    cn_cutoff: float = 21.1671
    three_body: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SpecificationError(
                f"dispersion: expected a method among {', '.join(METHODS)}, got {self.method!r}"
            )
        if not isinstance(self.xc, str) or not self.xc or not self.xc.isprintable() or " " in self.xc:
            raise SpecificationError(
                f"dispersion: expected the name of a functional such as 'pbe', got {self.xc!r}"
            )
        object.__setattr__(self, "xc", self.xc.lower())
        for name in ("cutoff", "cn_cutoff"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 5.0 <= value <= 100.0:
                raise SpecificationError(f"dispersion: expected a {name} from 5 to 100 Å, got {value!r}")
            object.__setattr__(self, name, float(value))
        if not isinstance(self.three_body, bool):
            raise SpecificationError(
                f"dispersion: expected three_body true or false, got {self.three_body!r}"
            )
        if self.method == "d2" and self.three_body:
            raise SpecificationError("dispersion: D2 has no three-body term; leave three_body out")
        if self.method == "d2" and self.xc not in D2_SCALES:
            raise SpecificationError(
                f"dispersion: D2 has parameters for {', '.join(D2_SCALES)}, got {self.xc!r}"
            )

    @classmethod
    def from_dict(cls, values: Any) -> Dispersion:
        """From plain values, such as ``{"method": "d3bj", "xc": "pbe"}``."""
        known = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or not {"method", "xc"} <= set(values) <= set(known):
            raise SpecificationError(
                f"dispersion: expected method and xc, and of {', '.join(known[2:])} what differs from the default; "
                f"got {values!r}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def check(self, species: Sequence[int]) -> None:
        """Whether it can be computed here and for these elements.

        Raises
        ------
        InstallationError
            If simple-dftd3 is needed and not installed.
        SpeciesError, SpecificationError
            For an element or a functional without parameters.
        """
        if self.method == "d2":
            unknown = [z for z in species if z > len(_D2_C6)]
            if unknown:
                raise SpeciesError(
                    f"dispersion: D2 has parameters for H to Xe; got the atomic numbers {unknown}"
                )
            return
        if max(species, default=1) > 94:
            raise SpeciesError(
                f"dispersion: D3 has parameters for H to Pu; got the atomic numbers {list(species)}"
            )
        self._damping(_library())

    def evaluate(self, atoms: Atoms) -> tuple[float, Floats, Floats]:
        """Energy (eV), forces [n, 3] (eV/Å) and virial [3, 3] (eV) of a structure.

        Raises
        ------
        InstallationError, SpeciesError, SpecificationError
            As `check`.
        StructureError
            If the structure cannot be evaluated.
        """
        check_structure(atoms)
        self.check(sorted({int(z) for z in atoms.numbers}))
        return self._d2(atoms) if self.method == "d2" else self._d3(atoms)

    def lammps(self, species: Sequence[int], coefficients: str) -> list[str]:
        """Commands of an input file for LAMMPS that add it to ``pair_style etn``.

        Parameters
        ----------
        species : sequence of int
            Elements of the atom types.
        coefficients : str
            File and elements, as they follow ``pair_coeff * *``.

        Raises
        ------
        SpecificationError
            For the three-body term.
        """
        from ase.data import chemical_symbols

        if self.three_body:
            raise SpecificationError(
                "dispersion: LAMMPS has no three-body term of D3; this potential cannot be exported with it. Fit with "
                "three_body: false"
            )
        etn = f"pair_coeff      * * etn {coefficients}"
        # LAMMPS' lists hold 2000 neighbours by default, fewer than are within this range
        neighbors = "neigh_modify    one 50000 page 500000"
        if self.method == "d2":
            scale = D2_SCALES[self.xc]
            lines = [
                f"pair_style      hybrid/overlay etn momb {self.cutoff:g} {scale:g} {D2_STEEPNESS:g}",
                etn,
            ]
            for i, z in enumerate(species, start=1):
                for j, w in enumerate(species[i - 1 :], start=i):
                    c6, radius = _d2_pair(np.array(z), np.array(w))
                    lines.append(f"pair_coeff      {i} {j} momb 0.0 1.0 1.0 {float(c6)!r} {float(radius)!r}")
            return [*lines, neighbors]
        symbols = " ".join(chemical_symbols[z] for z in species)
        damping = METHODS[self.method][1]
        return [
            f"pair_style      hybrid/overlay etn dispersion/d3 {damping} {self.xc} {self.cutoff:g} {self.cn_cutoff:g}",
            etn,
            f"pair_coeff      * * dispersion/d3 {symbols}",
            neighbors,
        ]

    def _damping(self, library: Any) -> Any:
        try:
            return getattr(library, METHODS[self.method][0])(method=self.xc, atm=self.three_body)
        except RuntimeError as error:
            raise SpecificationError(
                f"dispersion: simple-dftd3 has no parameters of {self.method} for the functional {self.xc!r}: {error}"
            ) from error

    def _d3(self, atoms: Atoms) -> tuple[float, Floats, Floats]:
        from ase.units import Bohr, Hartree

        library = _library()
        try:
            model = library.DispersionModel(
                atoms.numbers, atoms.positions / Bohr, atoms.cell.array / Bohr, np.asarray(atoms.pbc)
            )
            model.set_realspace_cutoff(
                disp2=self.cutoff / Bohr,
                disp3=min(self.cutoff, self.cn_cutoff) / Bohr,
                cn=self.cn_cutoff / Bohr,
            )
            found = model.get_dispersion(self._damping(library), grad=True)
        except RuntimeError as error:
            raise StructureError(
                f"dispersion: simple-dftd3 cannot evaluate this structure: {error}"
            ) from error
        virial = 0.5 * (found["virial"] + found["virial"].T) * Hartree
        return float(found["energy"]) * Hartree, -found["gradient"] * (Hartree / Bohr), np.asarray(virial)

    def _d2(self, atoms: Atoms) -> tuple[float, Floats, Floats]:
        edges = neighbor_list(atoms, self.cutoff)
        z_i, z_j = atoms.numbers[edges.center], atoms.numbers[edges.neighbor]
        c6, radius = _d2_pair(z_i, z_j)
        r = np.linalg.norm(edges.r_pc, axis=1)
        damping = 1.0 / (1.0 + np.exp(-D2_STEEPNESS * (r / radius - 1.0)))
        # every pair stands twice in the list
        energy_p = -0.5 * D2_SCALES[self.xc] * c6 / r**6 * damping
        slope_p = energy_p * ((1.0 - damping) * D2_STEEPNESS / radius - 6.0 / r)
        gradient_pc = (slope_p / r)[:, None] * edges.r_pc
        forces = np.zeros((len(atoms), 3))
        for c in range(3):
            forces[:, c] += np.bincount(edges.center, weights=gradient_pc[:, c], minlength=len(atoms))
            forces[:, c] -= np.bincount(edges.neighbor, weights=gradient_pc[:, c], minlength=len(atoms))
        return math.fsum(energy_p), forces, np.asarray(edges.r_pc.T @ gradient_pc)


def _d2_pair(z_i: NDArray[Any], z_j: NDArray[Any]) -> tuple[Floats, Floats]:
    """C6_ij, eV Å⁶, and R_ij, Å."""
    c6 = _EV_A6 * np.sqrt(_D2_C6[z_i - 1] * _D2_C6[z_j - 1])
    return c6, _D2_RADII[z_i - 1] + _D2_RADII[z_j - 1]


def _library() -> Any:
    """The Python interface of simple-dftd3."""
    try:
        import dftd3.interface as library
    except ImportError as error:
        raise InstallationError(
            "dispersion: D3 is computed by the package 'dftd3', which is not installed; install it with "
            "pip install 'etnpot[dispersion]'"
        ) from error
    return library
