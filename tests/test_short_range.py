"""No configuration collapses: dimers of every pair of elements, squeezed cells, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import etnpot
from etnpot.basis import BOUND_WIDTH, Repulsion, zbl
from etnpot.errors import SpecificationError
from etnpot.network import scale
from etnpot.potential import Potential
from etnpot.potential.spec import PotentialSpec

ELEMENTS = ["H", "O", "Si", "Ni", "Ag", "U"]


def wild(seed: int, elements: list[str] = ELEMENTS, factor: float = 10.0) -> Potential:
    """A potential with large random energies, as a fit that went astray would have them."""
    potential = etnpot.ETN(elements, cutoff=4.5, order=4, l_max=2, ranks=3, seed=seed, repulsion="zbl")
    return potential.with_train(scale(potential.train, factor)).with_energy_bounds((-2.0, 8.0))


def dimers(potential: Potential, z: int, w: int, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies, and forces on the second atom away from the first, of dimers out of sight of each other."""
    along = np.array([0.6, 0.0, 0.8])
    first = 10.0 * np.arange(len(r))[:, None] * np.array([0.0, 1.0, 0.0])
    atoms = Atoms([z, w] * len(r), np.stack([first, first + r[:, None] * along], axis=1).reshape(-1, 3))
    found = potential.evaluate(potential.edges(atoms), atoms.numbers)
    return found.energy_i.reshape(-1, 2).sum(axis=1), found.forces[1::2] @ along


@pytest.mark.parametrize("seed", [0, 1])
def test_dimers_of_all_pairs_are_finite_repulsive_and_smooth(seed: int) -> None:
    """Below the inner radius the energy is the nuclear repulsion and a constant, whatever the parameters."""
    potential = wild(seed)
    assert potential.spec.repulsion is not None
    for i, z in enumerate(potential.species):
        for j, w in enumerate(potential.species[i:], start=i):
            inner, outer = potential.spec.repulsion.inner[i][j], potential.spec.repulsion.outer[i][j]
            r = np.geomspace(1e-3, inner, 40)
            energy, force = dimers(potential, z, w, r)
            assert np.isfinite(energy).all() and (force > 0).all() and (np.diff(energy) < 0).all()
            value, slope = zbl(r, z, w)
            np.testing.assert_allclose(energy - value, energy[-1] - value[-1], atol=1e-9 * value.max())
            np.testing.assert_allclose(force, -slope, rtol=1e-9)
            # through the layer and beyond it, the force is the derivative of the energy and has no jumps
            h = 1e-4
            r = np.linspace(0.9 * inner, 1.1 * outer, 41)
            after, before = (dimers(potential, z, w, r + step)[0] for step in (h, -h))
            forces = dimers(potential, z, w, r)[1]
            np.testing.assert_allclose(forces, -(after - before) / (2 * h), atol=1e-5 * abs(forces).max())
            edges = np.array([inner, outer])
            jumps = dimers(potential, z, w, edges + 1e-6)[1] - dimers(potential, z, w, edges - 1e-6)[1]
            assert abs(jumps).max() < 1e-4 * abs(forces).max()


@pytest.mark.parametrize("seed", range(4))
def test_squeezed_cells_do_not_collapse(seed: int, rng: np.random.Generator) -> None:
    """Random alloys at up to 30 times their density: bounded from below, and repulsive in the end."""
    potential = wild(seed, ["Ni", "Cu", "Ag"])
    atoms = bulk("Ni", cubic=True, a=3.8) * (2, 2, 2)
    atoms.numbers = rng.choice(potential.species, len(atoms))
    atoms.positions += rng.normal(scale=0.1 * seed, size=atoms.positions.shape)
    loose = potential.with_energy_bounds(None)
    signs = [loose.with_train(scale(loose.train, sign)) for sign in (1.0, -1.0)]
    energies, pressures, lowest = [], [], 0.0
    for factor in np.linspace(1.0, 0.3, 29):
        squeezed = atoms.copy()
        squeezed.set_cell(atoms.cell.array * factor, scale_atoms=True)
        found = potential.evaluate(potential.edges(squeezed), squeezed.numbers)
        assert found.energy_i.min() >= -2.0 - BOUND_WIDTH / 2
        lowest = min(lowest, *(p.evaluate(p.edges(squeezed), squeezed.numbers).energy_i.min() for p in signs))
        energies.append(found.energy)
        pressures.append(-np.trace(found.virial))
    assert (np.diff(energies[18:]) > 0).all() and min(pressures[18:]) > 0  # from 0.55 of the length on
    assert lowest < -2.0 - 10 * BOUND_WIDTH  # without the bounds, a polynomial goes anywhere


def test_no_pair_close_changes_no_bit(rng: np.random.Generator) -> None:
    with_it = etnpot.ETN(["Ni", "Cu"], cutoff=4.5, seed=1, repulsion="zbl")
    without = Potential(replace(with_it.spec, repulsion=None), with_it.parameters)
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.numbers = rng.choice(with_it.species, len(atoms))
    atoms.rattle(0.1, rng=rng)
    edges = with_it.edges(atoms)
    one, two = (p.evaluate(edges, atoms.numbers) for p in (with_it, without))
    np.testing.assert_array_equal(one.energy_i, two.energy_i)
    np.testing.assert_array_equal(one.dE_dr_pc, two.dE_dr_pc)


def test_forces_and_stress_of_close_atoms_are_derivatives(rng: np.random.Generator) -> None:
    from etnpot.testing import check_forces, check_stress

    potential = wild(3, ["Ni", "Ag"], factor=3.0)
    atoms = bulk("Ni", cubic=True, a=2.7) * (2, 1, 1)
    atoms.numbers = rng.choice(potential.species, len(atoms))
    atoms.rattle(0.1, rng=rng)
    calculator = etnpot.ETNCalculator(potential)
    check_forces(atoms, calculator)
    check_stress(atoms, calculator)


def test_the_file_keeps_the_short_range(tmp_path: Path) -> None:
    potential = wild(0)
    potential.save(tmp_path / "p.etn")
    loaded = etnpot.load(tmp_path / "p.etn")
    assert loaded.spec == potential.spec
    assert loaded.spec.energy_bounds == (-2.0, 8.0)
    assert "ZBL below" in loaded.summary()
    values = potential.spec.to_dict()
    for name in ("repulsion", "energy_bounds", "dispersion"):
        del values[name]
    old = PotentialSpec.from_dict(values)  # of format version 1
    assert old.repulsion is None and old.energy_bounds is None and old.dispersion is None


def test_wrong_settings_are_refused() -> None:
    spec = wild(0, ["Ni", "Ag"]).spec
    with pytest.raises(SpecificationError, match="repulsion: expected 'zbl' or 'none', got 'lj'"):
        etnpot.ETN("Cu", repulsion="lj")
    with pytest.raises(SpecificationError, match="radii for 2 species, got them for 1"):
        replace(spec, repulsion=Repulsion(((1.0,),), ((2.0,),)))
    with pytest.raises(SpecificationError, match="within the cutoff"):
        replace(spec, repulsion=Repulsion(((1.0,) * 2,) * 2, ((5.0,) * 2,) * 2))
    with pytest.raises(SpecificationError, match="expected a Repulsion or None"):
        replace(spec, repulsion="zbl")
    for bounds in ((1.0, 0.0), (0.0, float("inf")), 3, ("a", "b"), (0.0, 1.0, 2.0)):
        with pytest.raises(SpecificationError, match="energy_bounds: expected two finite numbers"):
            replace(spec, energy_bounds=bounds)
