"""Properties of cubic crystals that an ASE calculator gives.

============ ================================================================================================== =========
name         what                                                                                               unit
============ ================================================================================================== =========
lattice      lattice constant a₀ of the lowest energy, and the energy E₀ per atom there                         Å, eV
volume_curve E(V) - E(V₀) per atom on a grid common to all models, V₀ the volume of the given lattice constant  eV
bulk         B = V ∂²E/∂V² at a₀, from a polynomial in a through five points                                    GPa
elastic      C11, C12, C44 from stresses at strains ±h:  C_ij = [σ_i(+h e_j) - σ_i(-h e_j)] / 2h                GPa
vacancy      E_f = E(N-1 atoms, relaxed) - (N-1) E₀; elements only                                              eV
formation    E₀ - sum_z x_z E₀(z) of a compound, over the elements' crystals in the list                        eV/atom
phonons      frequencies at the points X, L (fcc) or H, N (bcc) by finite displacements; elements only          THz
============ ================================================================================================== =========

Every atom of these lattices is a centre of inversion, so that nothing relaxes inside the cell under a homogeneous strain. A
property that cannot be computed is a text that says why.

Runs in the environments of other potentials too, so that it imports numpy, scipy and ASE alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.units import GPa

__all__ = ["LATTICES", "PROPERTIES", "all_properties", "crystal"]

PROPERTIES = ("lattice", "volume_curve", "bulk", "elastic", "vacancy", "formation", "phonons")
#: Number of elements of each lattice.
LATTICES = {"fcc": 1, "bcc": 1, "sc": 1, "b2": 2, "l12": 2, "rocksalt": 2}

_STRAIN = 0.004
_GRID = np.linspace(0.96, 1.04, 9)  # of the lattice constant
_STEP = 0.01  # of the lattice constant, for its parabola
_SUPERCELL = {"fcc": 3, "bcc": 3, "sc": 4}  # conventional cells along each axis around a vacancy
_POINTS = {
    "fcc": {"X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5)},
    "bcc": {"H": (0.5, -0.5, 0.5), "N": (0.0, 0.0, 0.5)},
    "sc": {"X": (0.0, 0.5, 0.0), "M": (0.5, 0.5, 0.0)},
}
_THZ_PER_EV = 241.798926


def crystal(lattice: str, symbols: Sequence[str], a: float) -> Atoms:
    """The conventional cubic cell; of "l12" the first element is that on the faces (A₃B)."""
    if lattice in ("fcc", "bcc", "sc"):
        return bulk(symbols[0], lattice, a=a, cubic=True)
    cell = [a] * 3
    if lattice == "b2":
        return Atoms(
            [symbols[0], symbols[1]], scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=cell, pbc=True
        )
    if lattice == "l12":
        sites = [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (0, 0, 0)]
        return Atoms([symbols[0]] * 3 + [symbols[1]], scaled_positions=sites, cell=cell, pbc=True)
    if lattice == "rocksalt":
        sites = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
        shifted = [tuple((x + 0.5) % 1 if k == 0 else x for k, x in enumerate(site)) for site in sites]
        return Atoms(
            [symbols[0]] * 4 + [symbols[1]] * 4, scaled_positions=sites + shifted, cell=cell, pbc=True
        )
    raise ValueError(f"lattice {lattice!r} is not known; the lattices are {', '.join(LATTICES)}")


def all_properties(
    calculator: Any, *, crystals: Sequence[Mapping[str, Any]], compute: Sequence[str] = PROPERTIES
) -> dict[str, dict[str, Any]]:
    """Properties of every crystal, by its name.

    Parameters
    ----------
    calculator : ASE calculator
    crystals : sequence of mappings
        ``name``, ``lattice``, ``symbols``, ``a`` (Å; near the lattice constant).
    compute : sequence of str
        Of `PROPERTIES`; all of them need the lattice constant, which is always computed.
    """
    found: dict[str, dict[str, Any]] = {}
    for spec in crystals:
        found[spec["name"]] = _of_crystal(calculator, spec, compute)
    if "formation" in compute:
        _add_formation(found, crystals)
    return found


def _of_crystal(calculator: Any, spec: Mapping[str, Any], compute: Sequence[str]) -> dict[str, Any]:
    lattice, symbols, guess = spec["lattice"], list(spec["symbols"]), float(spec["a"])

    def energy(a: float) -> float:
        atoms = crystal(lattice, symbols, a)
        atoms.calc = calculator
        return float(atoms.get_potential_energy()) / len(atoms)

    found: dict[str, Any] = {}
    try:
        a0 = _lattice_constant(energy, guess)
    except Exception as error:
        return {"a": _reason(error)}
    found["a"], found["E0"] = a0, energy(a0)
    elements = LATTICES[lattice] == 1
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "volume_curve": lambda: _volume_curve(energy, guess),
        "bulk": lambda: {"B": _bulk_modulus(energy, a0, len(crystal(lattice, symbols, a0)))},
        "elastic": lambda: _elastic(calculator, lattice, symbols, a0),
    }
    if elements:
        steps["vacancy"] = lambda: {"vacancy": _vacancy(calculator, lattice, symbols, a0, found["E0"])}
        steps["phonons"] = lambda: _phonons(calculator, lattice, symbols[0], a0)
    for name, step in steps.items():
        if name in compute:
            try:
                found.update(step())
            except Exception as error:
                found[name] = _reason(error)
    return found


def _reason(error: Exception) -> str:
    return f"not computed: {type(error).__name__}: {error}"[:200]


def _lattice_constant(energy: Callable[[float], float], guess: float) -> float:
    """Where the energy is lowest, to 1e-6 of itself; an error if that is more than 15 percent away from the guess."""
    from scipy.optimize import minimize_scalar

    low, high = 0.85 * guess, 1.15 * guess
    grid = np.linspace(low, high, 31)
    energies = np.array([energy(a) for a in grid])
    # the minimum nearest to the guess: a potential may have others where it has no data
    inner = [k for k in range(1, 30) if energies[k] <= min(energies[k - 1], energies[k + 1])]
    if not inner:
        raise ValueError(f"no minimum of the energy between {low:.3f} and {high:.3f} Å")
    k = min(inner, key=lambda k: abs(grid[k] - guess))
    done = minimize_scalar(
        energy, bounds=(grid[k - 1], grid[k + 1]), method="bounded", options={"xatol": 1e-6}
    )
    return float(done.x)


def _volume_curve(energy: Callable[[float], float], guess: float) -> dict[str, Any]:
    energies = np.array([energy(guess * scale) for scale in _GRID])
    return {"curve": (energies - energies[len(_GRID) // 2]).tolist(), "curve_a": (guess * _GRID).tolist()}


def _bulk_modulus(energy: Callable[[float], float], a0: float, n: int) -> float:
    """B = (1/9V) a² ∂²E/∂a² with V = a³/n per atom."""
    a = a0 * (1 + _STEP * np.arange(-2, 3) / 2)
    curvature = 2 * np.polyfit(a - a0, [energy(x) for x in a], 4)[2]
    return float(curvature * n / (9 * a0) / GPa)


def _elastic(calculator: Any, lattice: str, symbols: Sequence[str], a0: float) -> dict[str, float]:
    def stress(strain: np.ndarray) -> np.ndarray:
        atoms = crystal(lattice, symbols, a0)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.calc = calculator
        return np.asarray(atoms.get_stress()) / GPa

    xx = np.zeros((3, 3))
    xx[0, 0] = _STRAIN
    yz = np.zeros((3, 3))
    yz[1, 2] = yz[2, 1] = _STRAIN / 2
    normal = (stress(xx) - stress(-xx)) / (2 * _STRAIN)
    shear = (stress(yz) - stress(-yz)) / (2 * _STRAIN)
    return {"C11": float(normal[0]), "C12": float(0.5 * (normal[1] + normal[2])), "C44": float(shear[3])}


def _vacancy(calculator: Any, lattice: str, symbols: Sequence[str], a0: float, energy: float) -> float:
    from ase.optimize import FIRE

    atoms = crystal(lattice, symbols, a0).repeat(_SUPERCELL[lattice])
    del atoms[0]
    atoms.calc = calculator
    if not FIRE(atoms, logfile=None).run(fmax=0.01, steps=300):
        raise RuntimeError("the vacancy did not relax to 0.01 eV/Å in 300 steps")
    return float(atoms.get_potential_energy()) - len(atoms) * energy


def _phonons(calculator: Any, lattice: str, symbol: str, a0: float) -> dict[str, Any]:
    from ase.phonons import Phonons

    with tempfile.TemporaryDirectory() as name:
        phonons = Phonons(
            bulk(symbol, lattice, a=a0), calculator, supercell=(4, 4, 4), delta=0.02, name=f"{name}/phonons"
        )
        phonons.run()
        phonons.read(acoustic=True)
        energies = phonons.band_structure(list(_POINTS[lattice].values()), verbose=False)
    return {
        f"phonon {point}": float(np.max(np.real(row)) * _THZ_PER_EV)
        for point, row in zip(_POINTS[lattice], energies, strict=True)
    }


def _add_formation(found: dict[str, dict[str, Any]], crystals: Sequence[Mapping[str, Any]]) -> None:
    """Formation energies of compounds; of several crystals of an element the one of the lowest energy counts."""
    elements: dict[str, float] = {}
    for spec in crystals:
        energy = found[spec["name"]].get("E0")
        if LATTICES[spec["lattice"]] == 1 and energy is not None:
            symbol = spec["symbols"][0]
            elements[symbol] = min(energy, elements.get(symbol, np.inf))
    for spec in crystals:
        own = found[spec["name"]]
        if LATTICES[spec["lattice"]] == 1 or "E0" not in own:
            continue
        symbols = crystal(spec["lattice"], spec["symbols"], 1.0).get_chemical_symbols()
        missing = sorted(set(symbols) - set(elements))
        if missing:
            own["formation"] = f"not computed: no crystal of {', '.join(missing)}"
        else:
            own["formation"] = own["E0"] - float(np.mean([elements[symbol] for symbol in symbols]))
