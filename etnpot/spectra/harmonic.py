"""Normal modes of a minimum, with infrared intensities and Raman activities.

    H = d2E/dx2,    M^{-1/2} H M^{-1/2} e_q = omega_q² e_q,    dx/dQ_q = M^{-1/2} e_q                    (1)
    I_q = N_A/(12 eps0 c²) |dmu/dQ_q|²                                                              (2)
    R_q = 45 a'² + 7 g'²,    a' = tr(alpha')/3,    g'² = 3/2 |alpha' - a' 1|²,    alpha' = dalpha/dQ_q   (3)
    rho_q = 3 g'² / (45 a'² + 4 g'²)                                                                (4)

with the Hessian by central differences of the forces, and derivatives of mu and alpha from `tensor_derivatives` of the
calculator or by central differences of its properties. Translations and, of molecules, rotations are taken out of the Hessian
by a projector (D. Porezag, M. R. Pederson, Phys. Rev. B 54, 7830 (1996) for the conventions). The Stokes cross-section of a
mode at temperature T under light of wavenumber nu_L is proportional to

    R_q (nu_L - nu_q)^4 / ( nu_q [1 - exp(-h c nu_q / kT)] ).                                           (5)

=========== ==================================== ==========
symbol      here                                 unit
=========== ==================================== ==========
H           ``hessian`` [3 n, 3 n]               eV/Å²
omega_q     ``frequencies`` [q], imaginary: < 0  1/cm
dx/dQ_q     ``modes_qic`` [q, i, c]              amu^(-1/2)
I_q         ``infrared`` [q]                     km/mol
R_q         ``raman`` [q]                        Å⁴/amu
rho_q       ``depolarization`` [q]
=========== ==================================== ==========
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from numpy.typing import ArrayLike, NDArray

from etnpot.errors import SpecificationError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "COULOMB",
    "KM_PER_MOL",
    "PER_CM",
    "HarmonicSpectrum",
    "harmonic_spectrum",
    "hessian",
    "stokes_factor",
]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

#: 1/cm for a root of eV/(Å² amu).
PER_CM = float(np.sqrt(units._e * 1e20 / units._amu) / (2.0 * np.pi * units._c * 100.0))
#: km/mol for one e²/amu, eq. (2).
KM_PER_MOL = float(units._Nav * units._e**2 / (12.0 * units._eps0 * units._c**2 * units._amu) / 1e3)
#: Å³ for one e²Å²/eV.
COULOMB = float(units.Hartree * units.Bohr)
#: Largest force of a minimum that is not remarked on, eV/Å.
_CONVERGED = 0.02
#: Singular values of the rigid motions below this part of the largest do not count: linear molecules have one less.
_RANK = 1e-4


@dataclass(frozen=True, eq=False)
class HarmonicSpectrum:
    """Vibrations without rigid motions.

    Attributes
    ----------
    frequencies : float64 [q], 1/cm
        Ascending; imaginary ones as negative numbers.
    modes_qic : float64 [q, i, c], amu^(-1/2)
        dx/dQ.
    infrared : float64 [q] or None, km/mol
    raman : float64 [q] or None, Å⁴/amu
        Activities.
    depolarization : float64 [q] or None
        Of light at right angles to a polarised beam, 0 to 3/4.
    """

    frequencies: Floats
    modes_qic: Floats
    infrared: Floats | None
    raman: Floats | None
    depolarization: Floats | None

    def broadened(self, intensities: Floats, wavenumbers: ArrayLike, width: float = 10.0) -> Floats:
        """Sum of Lorentzians of unit area and full width `width` (1/cm) times the intensities, per 1/cm."""
        if not width > 0:
            raise SpecificationError(f"width: expected a positive number in 1/cm, got {width!r}")
        x = np.asarray(wavenumbers, dtype=np.float64)[:, None] - self.frequencies
        return np.asarray((intensities * (0.5 * width / np.pi) / (x**2 + 0.25 * width**2)).sum(axis=1))

    def table(self) -> str:
        """One line per mode."""
        from etnpot.metrics import format_table

        def column(values: Floats | None, form: str) -> list[str]:
            return ["-"] * len(self.frequencies) if values is None else [format(v, form) for v in values]

        columns = [
            [str(q) for q in range(1, len(self.frequencies) + 1)],
            column(self.frequencies, ".2f"),
            column(self.infrared, ".4g"),
            column(self.raman, ".4g"),
            column(self.depolarization, ".3f"),
        ]
        header = ["mode", "1/cm", "infrared, km/mol", "Raman, Å⁴/amu", "depolarization"]
        return format_table(header, [list(row) for row in zip(*columns, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {"frequencies": self.frequencies, "infrared": self.infrared, "raman": self.raman}
        values["depolarization"] = self.depolarization
        return {name: None if value is None else value.tolist() for name, value in values.items()}


def hessian(atoms: Atoms, calculator: Any, *, step: float = 0.005) -> Floats:
    """Second derivatives of the energy by central differences of the forces.

    Parameters
    ----------
    atoms : Atoms
        Not changed; constraints are ignored.
    calculator : ASE calculator
    step : float, Å

    Returns
    -------
    float64 array [3 n, 3 n], eV/Å²
        Symmetric.
    """
    forces = [
        _copy(atoms, calculator, at, sign * step).get_forces().ravel()
        for at in range(3 * len(atoms))
        for sign in (1, -1)
    ]
    rows = (np.array(forces[1::2]) - np.array(forces[::2])) / (2.0 * step)
    return np.asarray(0.5 * (rows + rows.T))


def harmonic_spectrum(atoms: Atoms, calculator: Any, *, step: float = 0.005) -> HarmonicSpectrum:
    """Vibrations, infrared intensities and Raman activities of a minimum.

    Parameters
    ----------
    atoms : Atoms
        The minimum; not changed.
    calculator : ASE calculator
        With forces, and with the properties ``dipole`` and ``polarizability`` (e²Å²/eV) as far as intensities are wanted.
    step : float, Å
        Of central differences.

    Returns
    -------
    HarmonicSpectrum
    """
    if not (isinstance(step, int | float) and 0.0 < step < 1.0):
        raise SpecificationError(f"step: expected a length in Å between 0 and 1, got {step!r}")
    if len(atoms) == 0:
        raise StructureError("a spectrum needs atoms, got none")
    force = float(np.abs(_copy(atoms, calculator).get_forces()).max())
    if force > _CONVERGED:
        logger.warning(
            "the largest force is %.3g eV/Å: not a minimum, so that the modes mean little; relax it first",
            force,
        )
    root = np.sqrt(np.repeat(atoms.get_masses(), 3))
    rigid = _rigid_motions(atoms) * root[:, None]
    left, values, _ = np.linalg.svd(rigid, full_matrices=True)
    inner = left[:, int((values > _RANK * values.max()).sum()) :]
    dynamical = hessian(atoms, calculator, step=step) / np.outer(root, root)
    squares, vectors = np.linalg.eigh(inner.T @ dynamical @ inner)
    modes = ((inner @ vectors) / root[:, None]).T
    offered = getattr(calculator, "implemented_properties", ())
    infrared = raman = depolarization = None
    if "dipole" in offered:
        by_mode = modes @ _derivatives(atoms, calculator, "dipole", step)
        infrared = KM_PER_MOL * (by_mode**2).sum(axis=1)
    if "polarizability" in offered:
        by_mode = COULOMB * (modes @ _derivatives(atoms, calculator, "polarizability", step)).reshape(
            -1, 3, 3
        )
        mean = np.trace(by_mode, axis1=1, axis2=2) / 3.0
        rest = by_mode - mean[:, None, None] * np.eye(3)
        square, anisotropy = mean**2, 1.5 * (rest**2).sum(axis=(1, 2))
        raman = 45.0 * square + 7.0 * anisotropy
        depolarization = 3.0 * anisotropy / np.maximum(45.0 * square + 4.0 * anisotropy, 1e-300)
    frequencies = PER_CM * np.sign(squares) * np.sqrt(np.abs(squares))
    return HarmonicSpectrum(frequencies, modes.reshape(len(modes), -1, 3), infrared, raman, depolarization)


def stokes_factor(wavenumbers: ArrayLike, temperature: float, laser: float) -> Floats:
    """Eq. (5) over R_q, scaled to 1 at 1000 1/cm.

    Parameters
    ----------
    wavenumbers : array_like, 1/cm
        Positive, and below that of the laser.
    temperature : float, K
    laser : float, nm
    """
    if not (temperature > 0 and laser > 0):
        raise SpecificationError(
            f"expected a positive temperature in K and wavelength in nm, got {temperature!r} and {laser!r}"
        )

    def factor(nu: Floats) -> Floats:
        quantum = units._hplanck * units._c * 100.0 * nu / (units._k * temperature)
        return np.asarray((1e7 / laser - nu) ** 4 / (nu * -np.expm1(-quantum)))

    nu = np.maximum(np.asarray(wavenumbers, dtype=np.float64), 1e-3)
    return np.asarray(factor(nu) / factor(np.array(1000.0)))


def _copy(atoms: Atoms, calculator: Any, at: int | None = None, distance: float = 0.0) -> Atoms:
    copy = atoms.copy()
    copy.set_constraint()
    if at is not None:
        copy.positions[at // 3, at % 3] += distance
    copy.calc = calculator
    return copy


def _derivatives(atoms: Atoms, calculator: Any, name: str, step: float) -> Floats:
    """d property/dx, [3 n, components]."""
    if hasattr(calculator, "tensor_derivatives"):
        found = calculator.tensor_derivatives(name, _copy(atoms, calculator))
        return np.asarray(found).reshape(3 * len(atoms), -1)
    rows = []
    for at in range(3 * len(atoms)):
        sides = [
            np.asarray(calculator.get_property(name, _copy(atoms, calculator, at, sign * step)), dtype=float)
            for sign in (1, -1)
        ]
        rows.append((sides[0] - sides[1]).ravel() / (2.0 * step))
    return np.array(rows)


def _rigid_motions(atoms: Atoms) -> Floats:
    """Displacements of translations and, without periodic boundaries, rotations, [3 n, 3 or 6]."""
    n = len(atoms)
    shifts = np.tile(np.eye(3), (n, 1))
    if atoms.pbc.any():
        return shifts
    arm = atoms.positions - atoms.get_center_of_mass()
    turns = np.stack([np.cross(axis, arm).ravel() for axis in np.eye(3)], axis=1)
    return np.concatenate([shifts, turns], axis=1)
