"""Properties of crystals that an ASE calculator gives.

============ ================================================================================================== =========
name         what                                                                                               unit
============ ================================================================================================== =========
lattice      lattice constant a₀ of the lowest energy, c/a of hcp, and the energy E₀ per atom there             Å, eV
volume_curve E(V) - E(V₀) per atom on a grid common to all models, V₀ the volume of the given crystal           eV
bulk         B = V ∂²E/∂V² at a₀, from a polynomial through five points                                         GPa
elastic      C11, C12, C44 (hcp: also C13, C33) from stresses σ at strains ±h:                                  GPa
             C_ij = [σ_i(+h e_j) - σ_i(-h e_j)] / 2h
vacancy      E_f = E(N-1 atoms, relaxed) - (N-1) E₀; elements only                                              eV
formation    E₀ - sum_z x_z E₀(z) of a compound, over the elements' crystals in the list                        eV/atom
phonons      the highest frequency at each point of high symmetry, by finite displacements                      THz
============ ================================================================================================== =========

**Inside the cell.** Every atom of fcc, bcc, sc, B2, L1₂ and rocksalt is a centre of inversion, and nothing relaxes inside the
cell under a homogeneous strain. In diamond, zincblende and hcp the sublattices move: after each strain the positions x are
relaxed by

    x <- x + K⁺ F,    K_xy = -∂F_x/∂y of the crystal without strain,

K⁺ the inverse but for translations, until no force F is left. "C44 clamped" is C44 without these steps.

**hcp.** The curves are functions of the volume alone: at each, c/a is that of the lowest energy. Their abscissa is the a of a
crystal with the given c/a and the same volume; B is then that under hydrostatic pressure.

A property that cannot be computed is a text that says why.

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

__all__ = ["LATTICES", "NUMBERS", "PROPERTIES", "all_properties", "crystal", "primitive"]

PROPERTIES = ("lattice", "volume_curve", "bulk", "elastic", "vacancy", "formation", "phonons")
#: Number of elements of each lattice.
LATTICES = {
    "fcc": 1, "bcc": 1, "sc": 1, "diamond": 1, "hcp": 1, "b2": 2, "l12": 2, "rocksalt": 2, "zincblende": 2,
}  # fmt: skip
#: Property of a crystal -> title and unit.
NUMBERS: dict[str, tuple[str, str]] = {
    "a": ("a₀", "Å"),
    "c/a": ("c/a", ""),
    "B": ("B", "GPa"),
    "C11": ("C₁₁", "GPa"),
    "C12": ("C₁₂", "GPa"),
    "C13": ("C₁₃", "GPa"),
    "C33": ("C₃₃", "GPa"),
    "C44": ("C₄₄", "GPa"),
    "C44 clamped": ("C₄₄ clamped", "GPa"),
    "vacancy": ("vacancy", "eV"),
    "formation": ("formation", "eV/atom"),
    **{f"phonon {point}": (f"ν({point})", "THz") for point in ("Γ", "X", "L", "H", "N", "M", "K", "A", "R")},
}

_STRAIN = 0.004
_GRID = np.linspace(0.96, 1.04, 9)  # of the lattice constant
_STEP = 0.01  # of the lattice constant, for its parabola
_IDEAL = float(np.sqrt(8 / 3))  # c/a of close-packed spheres
_RELAXING = ("diamond", "hcp", "zincblende")  # their atoms are no centres of inversion
_DISPLACEMENT = 0.01  # Å, for force constants inside the cell
_AT_REST = 1e-5  # eV/Å; a force below is none
_NOT_AT_REST = 1e-3  # eV/Å; a force above was to be relaxed
#: Cells along each axis around a vacancy, conventional ones but for hcp.
_SUPERCELL = {"fcc": (3, 3, 3), "bcc": (3, 3, 3), "sc": (4, 4, 4), "diamond": (2, 2, 2), "hcp": (4, 4, 3)}
_FCC_POINTS = {"X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5)}
_SC_POINTS = {"X": (0.0, 0.5, 0.0), "M": (0.5, 0.5, 0.0)}
_GAMMA = {"Γ": (0.0, 0.0, 0.0)}
_POINTS: dict[str, dict[str, tuple[float, float, float]]] = {
    "fcc": _FCC_POINTS,
    "bcc": {"H": (0.5, -0.5, 0.5), "N": (0.0, 0.0, 0.5)},
    "sc": _SC_POINTS,
    "diamond": {**_GAMMA, **_FCC_POINTS},
    "zincblende": {**_GAMMA, **_FCC_POINTS},
    "rocksalt": {**_GAMMA, **_FCC_POINTS},
    "hcp": {**_GAMMA, "M": (0.5, 0.0, 0.0), "K": (1 / 3, 1 / 3, 0.0), "A": (0.0, 0.0, 0.5)},
    "b2": {**_GAMMA, **_SC_POINTS, "R": (0.5, 0.5, 0.5)},
    "l12": {**_GAMMA, **_SC_POINTS, "R": (0.5, 0.5, 0.5)},
}
#: Primitive cells along each axis for phonons; the waves of all points fit into them.
_PHONON_CELLS = {"hcp": (6, 6, 4)}
_THZ_PER_EV = 241.798926


def crystal(lattice: str, symbols: Sequence[str], a: float, c: float | None = None) -> Atoms:
    """The conventional cell; of "l12" the first element is that on the faces (A₃B). `c` of hcp: that of spheres by default."""
    if lattice in ("fcc", "bcc", "sc", "diamond"):
        return bulk(symbols[0], lattice, a=a, cubic=True)
    if lattice == "hcp":
        return bulk(symbols[0], "hcp", a=a, c=_IDEAL * a if c is None else c)
    if lattice in ("rocksalt", "zincblende"):
        return bulk("".join(symbols), lattice, a=a, cubic=True)
    cell = [a] * 3
    if lattice == "b2":
        return Atoms(
            [symbols[0], symbols[1]], scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=cell, pbc=True
        )
    if lattice == "l12":
        sites = [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (0, 0, 0)]
        return Atoms([symbols[0]] * 3 + [symbols[1]], scaled_positions=sites, cell=cell, pbc=True)
    raise ValueError(f"lattice {lattice!r} is not known; the lattices are {', '.join(LATTICES)}")


def primitive(lattice: str, symbols: Sequence[str], a: float, c: float | None = None) -> Atoms:
    """The primitive cell, its axes those of `crystal`."""
    if lattice in ("fcc", "bcc", "diamond", "rocksalt", "zincblende"):
        return bulk("".join(symbols), lattice, a=a)
    return crystal(lattice, symbols, a, c)


def all_properties(
    calculator: Any, *, crystals: Sequence[Mapping[str, Any]], compute: Sequence[str] = PROPERTIES
) -> dict[str, dict[str, Any]]:
    """Properties of every crystal, by its name.

    Parameters
    ----------
    calculator : ASE calculator
    crystals : sequence of mappings
        ``name``, ``lattice``, ``symbols``, ``a`` (Å; near the lattice constant), and ``c`` of hcp if it is not near that of
        close-packed spheres.
    compute : sequence of str
        Of `PROPERTIES`; all of them need the lattice constant, which is always computed.
    """
    found: dict[str, dict[str, Any]] = {}
    for spec in crystals:
        found[spec["name"]] = _of_crystal(calculator, spec, compute)
    if "formation" in compute:
        _add_formation(found, crystals)
    return found


class _Curve:
    """Energy per atom (eV) of a crystal as a function of the volume; see the module about its argument `a`."""

    def __init__(
        self, calculator: Any, lattice: str, symbols: Sequence[str], a: float, c: float | None
    ) -> None:
        self.calculator, self.lattice, self.symbols = calculator, lattice, symbols
        self.ratio = (_IDEAL if c is None else c / a) if lattice == "hcp" else None
        self.n_atoms = len(crystal(lattice, symbols, a))
        self._best: dict[float, tuple[float, float]] = {}

    def shape(self, a: float, ratio: float | None) -> tuple[float, float | None]:
        """a and c with a ratio, of the volume that `a` has with the given ratio."""
        if self.ratio is None or ratio is None:
            return a, None
        side = a * (self.ratio / ratio) ** (1 / 3)
        return side, side * ratio

    def rigid(self, a: float, ratio: float | None = None) -> float:
        """With a ratio c/a, by default the given one."""
        atoms = crystal(self.lattice, self.symbols, *self.shape(a, self.ratio if ratio is None else ratio))
        atoms.calc = self.calculator
        return float(atoms.get_potential_energy()) / len(atoms)

    def __call__(self, a: float) -> float:
        """With the best ratio."""
        return self.rigid(a) if self.ratio is None else self.best(a)[1]

    def best(self, a: float) -> tuple[float, float]:
        """Ratio c/a of the lowest energy, and that energy; an error if it is more than 15 percent away from the given one."""
        from scipy.optimize import minimize_scalar

        assert self.ratio is not None
        if a not in self._best:
            low, high = 0.85 * self.ratio, 1.15 * self.ratio
            done = minimize_scalar(
                lambda ratio: self.rigid(a, ratio),
                bounds=(low, high),
                method="bounded",
                options={"xatol": 2e-5},
            )
            if not low + 1e-3 < done.x < high - 1e-3:
                raise ValueError(f"no minimum of the energy at c/a between {low:.3f} and {high:.3f}")
            self._best[a] = float(done.x), float(done.fun)
        return self._best[a]


def _of_crystal(calculator: Any, spec: Mapping[str, Any], compute: Sequence[str]) -> dict[str, Any]:
    lattice, symbols, guess = spec["lattice"], list(spec["symbols"]), float(spec["a"])
    energy = _Curve(calculator, lattice, symbols, guess, spec.get("c"))
    found: dict[str, Any] = {}
    try:
        at = _lattice_constant(energy, guess)
        found["E0"] = energy(at)
        ratio = None if energy.ratio is None else energy.best(at)[0]
    except Exception as error:
        return {"a": _reason(error)}
    found["a"], c = energy.shape(at, ratio)
    if ratio is not None:
        found["c/a"] = ratio
    cell = primitive(lattice, symbols, found["a"], c)
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "volume_curve": lambda: _volume_curve(energy, guess),
        "bulk": lambda: {"B": _bulk_modulus(energy, at)},
        "elastic": lambda: _elastic(calculator, cell, lattice),
        "phonons": lambda: _phonons(calculator, cell, lattice),
    }
    if LATTICES[lattice] == 1:
        whole = crystal(lattice, symbols, found["a"], c)
        steps["vacancy"] = lambda: {
            "vacancy": _vacancy(calculator, whole.repeat(_SUPERCELL[lattice]), found["E0"])
        }
    for name in PROPERTIES:
        if name in compute and name in steps:
            try:
                found.update(steps[name]())
            except Exception as error:
                found[name] = _reason(error)
    return found


def _reason(error: Exception) -> str:
    return f"not computed: {type(error).__name__}: {error}"[:200]


def _lattice_constant(energy: _Curve, guess: float) -> float:
    """Where the energy is lowest, to 1e-6 of itself; an error if that is more than 15 percent away from the guess."""
    from scipy.optimize import minimize_scalar

    low, high = 0.85 * guess, 1.15 * guess
    grid = np.linspace(low, high, 31)
    energies = np.array([energy.rigid(a) for a in grid])
    # the minimum nearest to the guess: a potential may have others where it has no data
    inner = [k for k in range(1, 30) if energies[k] <= min(energies[k - 1], energies[k + 1])]
    if not inner:
        raise ValueError(f"no minimum of the energy between {low:.3f} and {high:.3f} Å")
    k = min(inner, key=lambda k: abs(grid[k] - guess))
    done = minimize_scalar(
        energy, bounds=(grid[k - 1], grid[k + 1]), method="bounded", options={"xatol": 1e-6}
    )
    return float(done.x)


def _volume_curve(energy: _Curve, guess: float) -> dict[str, Any]:
    energies = np.array([energy(guess * scale) for scale in _GRID])
    return {"curve": (energies - energies[len(_GRID) // 2]).tolist(), "curve_a": (guess * _GRID).tolist()}


def _bulk_modulus(energy: _Curve, a0: float) -> float:
    """B = (a² / 9V) ∂²E/∂a² at the minimum, with V ~ a³ per atom."""
    a = a0 * (1 + _STEP * np.arange(-2, 3) / 2)
    curvature = 2 * np.polyfit(a - a0, [energy(x) for x in a], 4)[2]
    volume = (
        crystal(energy.lattice, energy.symbols, *energy.shape(a0, energy.ratio)).get_volume() / energy.n_atoms
    )
    return float(curvature * a0**2 / (9 * volume) / GPa)


class _Inside:
    """Relaxes the positions in a cell by the force constants of the crystal without strain; see the module."""

    def __init__(self, cell: Atoms, calculator: Any) -> None:
        n = 3 * len(cell)
        self.calculator = calculator
        constants = np.empty((n, n))
        for x in range(n):
            step = np.zeros(n)
            step[x] = _DISPLACEMENT
            difference = self._forces(cell, step) - self._forces(cell, -step)
            constants[x] = -difference / (2 * _DISPLACEMENT)
        values, vectors = np.linalg.eigh(0.5 * (constants + constants.T))
        rest = np.argsort(np.abs(values))[3:]  # but for translations
        if values[rest].min() <= 0:
            raise RuntimeError("the positions inside the cell are not a minimum of the energy")
        self.inverse = (vectors[:, rest] / values[rest]) @ vectors[:, rest].T

    def _forces(self, cell: Atoms, step: np.ndarray) -> np.ndarray:
        atoms = cell.copy()
        atoms.positions += step.reshape(-1, 3)
        atoms.calc = self.calculator
        return np.asarray(atoms.get_forces(), dtype=np.float64).ravel()

    def relax(self, atoms: Atoms) -> None:
        """In place; `atoms` is the strained cell with a calculator."""
        for _ in range(12):
            forces = np.asarray(atoms.get_forces(), dtype=np.float64).ravel()
            forces -= np.tile(forces.reshape(-1, 3).mean(axis=0), len(atoms))
            if np.abs(forces).max() < _AT_REST:
                return
            atoms.positions += (self.inverse @ forces).reshape(-1, 3)
        if np.abs(forces).max() > _NOT_AT_REST:
            raise RuntimeError("the positions inside a strained cell did not relax")


def _elastic(calculator: Any, cell: Atoms, lattice: str) -> dict[str, float]:
    inside = _Inside(cell, calculator) if lattice in _RELAXING else None

    def response(i: int, j: int, relaxed: Callable[[Atoms], None] | None) -> np.ndarray:
        """∂σ/∂e_ij in GPa, Voigt; e_ij counted twice for a shear."""
        stress = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += 0.5 * sign * _STRAIN
            strain[j, i] += 0.5 * sign * _STRAIN
            atoms = cell.copy()
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            atoms.calc = calculator
            if relaxed is not None:
                relaxed(atoms)
            stress.append(np.asarray(atoms.get_stress(), dtype=np.float64) / GPa)
        return (stress[0] - stress[1]) / (2 * _STRAIN)

    relaxed = None if inside is None else inside.relax
    xx, yz = response(0, 0, relaxed), response(1, 2, relaxed)
    found = {"C11": xx[0], "C12": 0.5 * (xx[1] + xx[2]), "C44": yz[3]}
    if lattice == "hcp":
        zz = response(2, 2, relaxed)
        found.update({"C12": xx[1], "C13": (xx[2] + zz[0] + zz[1]) / 3, "C33": zz[2]})
    elif inside is not None:
        found["C44 clamped"] = response(1, 2, None)[3]
    return {name: float(value) for name, value in found.items()}


def _vacancy(calculator: Any, atoms: Atoms, energy: float) -> float:
    from ase.optimize import FIRE

    del atoms[0]
    atoms.calc = calculator
    if not FIRE(atoms, logfile=None).run(fmax=0.01, steps=300):
        raise RuntimeError("the vacancy did not relax to 0.01 eV/Å in 300 steps")
    return float(atoms.get_potential_energy()) - len(atoms) * energy


def _phonons(calculator: Any, cell: Atoms, lattice: str) -> dict[str, Any]:
    from ase.phonons import Phonons

    with tempfile.TemporaryDirectory() as name:
        supercell = _PHONON_CELLS.get(lattice, (4, 4, 4))
        phonons = Phonons(cell, calculator, supercell=supercell, delta=0.02, name=f"{name}/phonons")
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
