"""Example data made on the spot: random alloys labelled with ASE's effective-medium potential (EMT), and molecules of springs.

No download, and labels in milliseconds: small enough to fit in a minute, and hard enough (six elements on one
lattice) to show what a fit does. Of every three configurations, one is

========  ==========================================================================================
group     how it is made
========  ==========================================================================================
rattled   an fcc cell at its Vegard lattice constant, atoms displaced at random by 0.02 to 0.12 Å
strained  the same under a random symmetric strain of up to 5 percent per component
hot       100 fs of molecular dynamics, begun with the momenta of 600 to 1500 K
========  ==========================================================================================

with elements drawn at random, from one element to all of them.

References
----------
K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from etnpot.errors import SpeciesError, SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.io.structures import Labelled

__all__ = ["KINDS", "SYMBOLS", "emt_alloys", "fcc_alloy", "spring_molecules", "thermalize"]

#: The elements of the example.
SYMBOLS: tuple[str, ...] = ("Ni", "Cu", "Pd", "Ag", "Pt", "Au")

#: Groups of configurations.
KINDS = ("rattled", "strained", "hot")

_STRAIN, _RATTLE = 0.05, (0.02, 0.12)
_TEMPERATURES = (600.0, 1500.0)  # K
_HOT_STEPS, _HOT_STEP = 25, 4.0  # fs
#: Spring constant of two bonded atoms, eV/Å²; that of atoms further apart than this, Å, falls with the sixth power.
_STIFFNESS, _BOND = 30.0, 1.2


def fcc_alloy(
    rng: np.random.Generator,
    symbols: Sequence[str] = SYMBOLS,
    repeat: tuple[int, int, int] = (2, 2, 2),
    *,
    n_elements: int | None = None,
) -> Atoms:
    """A cubic fcc cell with some of the given elements on random sites, at its Vegard lattice constant.

    Parameters
    ----------
    rng : numpy.random.Generator
    symbols : sequence of str
        Elements that EMT knows and that are fcc: some of `SYMBOLS` (and Al).
    repeat : (int, int, int)
        Cubic cells of four atoms along each axis.
    n_elements : int, optional
        How many of the elements; at random from one to all by default.

    Returns
    -------
    ase.Atoms
        Without calculator.
    """
    from ase.build import bulk
    from ase.data import atomic_numbers, reference_states

    constants = {}
    for symbol in symbols:
        state = reference_states[atomic_numbers[symbol]] if symbol in atomic_numbers else None
        if symbol not in (*SYMBOLS, "Al") or state is None:
            raise SpeciesError(f"the example data know {', '.join((*SYMBOLS, 'Al'))}, got {symbol!r}")
        constants[symbol] = float(str(state["a"]))
    if not constants:
        raise SpeciesError("the example data need at least one element")
    if n_elements is None:
        n_elements = int(rng.integers(1, len(constants) + 1))
    present = rng.permutation(list(constants))[:n_elements]
    sites = [str(s) for s in rng.choice(present, size=4 * int(np.prod(repeat)))]
    atoms = bulk("Cu", "fcc", a=float(np.mean([constants[s] for s in sites])), cubic=True).repeat(repeat)
    atoms.set_chemical_symbols(sites)
    return atoms


def emt_alloys(
    n: int,
    *,
    symbols: Sequence[str] = SYMBOLS,
    seed: int = 0,
    repeat: tuple[int, int, int] = (2, 2, 2),
    kinds: Sequence[str] = KINDS,
    temperatures: tuple[float, float] = _TEMPERATURES,
) -> DataSet:
    """Random alloys with energies, forces and stresses of EMT, as the module says.

    Parameters
    ----------
    n : int
        How many configurations.
    symbols : sequence of str
        Elements to draw from.
    seed : int
        Another seed gives other configurations.
    repeat : (int, int, int)
        Cubic cells of four atoms along each axis; 32 atoms by default.
    kinds : sequence of str
        Groups, made in turn: "rattled", "strained", "hot".
    temperatures : (float, float)
        Lowest and highest temperature (K) of the momenta with which "hot" begins.

    Returns
    -------
    DataSet
        In groups named after their kinds.
    """
    if n < 1:
        raise SpecificationError(f"n: expected at least one configuration, got {n}")
    if not kinds or not set(kinds) <= set(KINDS):
        raise SpecificationError(
            f"kinds: expected some of {', '.join(KINDS)}, got {', '.join(kinds) or 'none'}"
        )
    if not 0 < temperatures[0] <= temperatures[1]:
        raise SpecificationError(f"temperatures: expected two in ascending order, got {temperatures}")
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        kind = kinds[k % len(kinds)]
        atoms = fcc_alloy(rng, symbols, repeat)
        if kind == "strained":
            strain = rng.uniform(-_STRAIN, _STRAIN, (3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        atoms.positions += rng.uniform(*_RATTLE) * rng.standard_normal(atoms.positions.shape)
        atoms.calc = EMT()
        if kind == "hot":
            _heat(atoms, rng, temperatures)
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        labelled = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
        labelled.info["config_type"] = kind
        labelled.calc = SinglePointCalculator(labelled, **results)
        frames.append(labelled)
    return DataSet.from_atoms(frames)


def thermalize(atoms: Atoms, kelvin: float, rng: np.random.Generator) -> None:
    """Random momenta of a temperature, the total momentum removed."""
    from ase import units

    masses = atoms.get_masses()[:, None]
    momenta = np.sqrt(masses * units.kB * kelvin) * rng.standard_normal((len(atoms), 3))
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())


def _heat(atoms: Atoms, rng: np.random.Generator, temperatures: tuple[float, float]) -> None:
    """A short stretch of molecular dynamics from random momenta."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    thermalize(atoms, float(rng.uniform(*temperatures)), rng)
    VelocityVerlet(atoms, timestep=_HOT_STEP * units.fs).run(_HOT_STEPS)


def spring_molecules(name: str, n: int, *, displacement: float = 0.05, seed: int = 0) -> DataSet:
    """Copies of one molecule, displaced at random, with the energies and forces of springs between all of its atoms.

    Parameters
    ----------
    name : str
        Of `ase.build.molecule`, such as ``"CH3OH"``.
    n : int
    displacement : float, Å
        Standard deviation of every coordinate.
    seed : int

    Returns
    -------
    DataSet
    """
    from ase.build import molecule

    rng = np.random.default_rng(seed)
    start = molecule(name)
    i, j = np.triu_indices(len(start), 1)
    rest_p = np.linalg.norm(start.positions[i] - start.positions[j], axis=1)
    stiffness_p = _STIFFNESS * np.minimum(1.0, (_BOND / rest_p) ** 6)
    made = []
    for index in range(n):
        atoms = start.copy()
        atoms.positions += rng.normal(scale=displacement, size=atoms.positions.shape)
        r_pc = atoms.positions[j] - atoms.positions[i]
        length_p = np.linalg.norm(r_pc, axis=1)
        pull_pc = (stiffness_p * (length_p - rest_p) / length_p)[:, None] * r_pc
        forces = np.zeros_like(atoms.positions)
        np.add.at(forces, i, pull_pc)
        np.add.at(forces, j, -pull_pc)
        energy = 0.5 * float(np.sum(stiffness_p * (length_p - rest_p) ** 2))
        made.append(Labelled(atoms, energy=energy, forces=forces, index=index))
    return DataSet(made)
