"""Physics of each kind of layer: symmetries, locality where there is any, smoothness, forces and stress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import etnpot
from etnpot.errors import StructureError
from etnpot.neighbors import EdgeList
from etnpot.network import scale
from etnpot.potential import Potential
from etnpot.potential.layered import LayeredPass
from etnpot.testing import (
    check_all,
    check_cutoff_smoothness,
    check_forces,
    check_inversion,
    check_isolated_atom,
    check_net_force,
    check_permutation,
    check_rotation,
    check_separation,
    check_species_relabelling,
    check_stress,
    check_supercell,
    check_translation,
    check_wrapping,
    random_molecule,
)

SPECIES = ("Al", "Ni", "Cu")
POOLED = ("pool", "deep")

Make = Callable[..., Potential]


def calculator(potential: Potential) -> etnpot.ETNCalculator:
    return etnpot.ETNCalculator(potential, threads=1)


# --------------------------------------------------------------------------------------------- symmetries


def test_symmetries(potential: Potential, crystal: Atoms, molecule: Atoms) -> None:
    calc = calculator(potential)
    for atoms in (crystal, molecule):
        for check in (check_rotation, check_translation, check_permutation):
            check(atoms, calc, n_trials=1)
        check_inversion(atoms, calc)
        check_net_force(atoms, calc)
    check_wrapping(crystal, calc)
    check_supercell(crystal, calc, repeats=(1, 2, 1))
    stress_cc = potential.evaluate(potential.edges(crystal), crystal.numbers).virial
    np.testing.assert_allclose(stress_cc, stress_cc.T, rtol=0, atol=1e-12)


def test_species_relabelling(potential: Potential, crystal: Atoms) -> None:
    """Parameters of Al and Cu exchanged, in the head of every train and in the table of pairs."""
    order = [2, 1, 0]
    changes: dict[str, Any] = {"species.pair": potential.arrays["species.pair"][:, :, order][..., order]}
    for name, array in potential.arrays.items():
        if name == "reference_energies" or name.endswith("head"):
            changes[name] = array[order]
    other = potential.with_arrays(**changes)
    check_species_relabelling(crystal, calculator(potential), calculator(other), {"Al": "Cu", "Cu": "Al"})
    # the tester fails where one of them is left out
    wrong = potential.with_arrays(**{k: v for k, v in changes.items() if k != "layer.1.head"})
    broken = check_species_relabelling(
        crystal, calculator(potential), calculator(wrong), {"Al": "Cu", "Cu": "Al"}, raise_on_failure=False
    )
    assert not broken.passed


def test_isolated_atoms(potential: Potential) -> None:
    check_isolated_atom(SPECIES, calculator(potential), cutoff=potential.cutoff)


# ----------------------------------------------------------------------------------------------- locality


def test_fragments_out_of_reach(kind: str, potential: Potential, rng: np.random.Generator) -> None:
    """Messages need neighbours to travel along; what is pooled is felt at any distance within the group, and not beyond."""
    one, other = (random_molecule(SPECIES, n, rng, min_distance=1.9) for n in (3, 4))
    calc = calculator(potential)
    together = check_separation(one, other, calc, potential.cutoff, raise_on_failure=False)
    assert together.passed == (kind not in POOLED)
    check_separation(one, other, calc, potential.cutoff, grouped=True)


def test_a_message_reaches_as_far_as_there_are_layers(make_layered: Make) -> None:
    """In a chain, the force on an atom depends on those that two cutoffs with one layer, and three with two layers, away."""
    chain = Atoms(["Al", "Ni", "Cu", "Ni", "Al", "Cu"], [(3.0 * k, 0.1 * (k % 2), 0.0) for k in range(6)])
    ends = chain.copy()
    ends.positions[-1] += (0.0, 0.3, 0.1)

    def reach(potential: Potential) -> int:
        """How many bonds from the last atom there is an energy that feels it."""
        before, after = (
            potential.evaluate(potential.edges(atoms), atoms.numbers).energy_i for atoms in (chain, ends)
        )
        return 5 - int(np.flatnonzero(before != after)[0])

    message: dict[str, Any] = dict(kind="message", carry={"0e": 2, "1o": 1}, ranks=2)
    assert [reach(make_layered("local", layers=[message] * k)) for k in range(3)] == [1, 2, 3]
    assert reach(make_layered("pool")) == 5


def test_groups_are_pooled_apart(make_layered: Make, crystal: Atoms) -> None:
    """Moving an atom of one group changes nothing in another one that is out of reach; the numbers of groups do not matter."""
    potential = make_layered("pool")
    near, far = crystal[:3], crystal[3:]
    for part in (near, far):
        part.pbc, part.cell = False, None
    far.positions += 40.0
    atoms = near + far
    atoms.set_array("pool_group", np.array([5, 5, 5, -1, -1]))
    calc = calculator(potential)
    atoms.calc = calc
    before = atoms.get_potential_energies()
    atoms.positions[0] += 0.2
    after = atoms.get_potential_energies()
    assert (after[:3] != before[:3]).all() and (after[3:] == before[3:]).all()
    atoms.set_array("pool_group", np.array([0, 0, 0, 1, 1]))
    np.testing.assert_array_equal(atoms.get_potential_energies(), after)
    # cause: ASE looks at positions, cell, species alone, and gave the energies of the groups before
    atoms.set_array("pool_group", np.zeros(5, dtype=int))
    assert (atoms.get_potential_energies() != after).any()
    del atoms.arrays["pool_group"]
    one_group = atoms.get_potential_energies()
    atoms.set_array("pool_group", np.full(5, 3))
    np.testing.assert_array_equal(atoms.get_potential_energies(), one_group)


@pytest.mark.parametrize(
    "group", [np.array([0.0, 1.0, 2.0, 0.0, 0.0]), np.zeros((5, 2), dtype=int), np.array(["a"] * 5)]
)
def test_groups_that_are_no_integers_are_refused(
    group: np.ndarray, make_layered: Make, crystal: Atoms
) -> None:
    crystal.arrays["pool_group"] = group
    with pytest.raises(StructureError, match="pool_group: expected one integer for each of 5 atoms"):
        make_layered("pool").edges(crystal)


def test_batches_are_single_configurations(potential: Potential, crystal: Atoms, molecule: Atoms) -> None:
    """Configurations side by side in one edge list, each a group of its own, as the fit has them; pools do not mix them."""
    parts = [potential.edges(atoms) for atoms in (crystal, molecule, crystal)]
    first_atom = np.cumsum([0, *(part.n_atoms for part in parts)])
    first_pair = np.cumsum([0, *(part.n_pairs for part in parts)])
    edges = EdgeList(
        np.concatenate([[0], *(part.first[1:] + at for part, at in zip(parts, first_pair, strict=False))]),
        np.concatenate([part.neighbor + at for part, at in zip(parts, first_atom, strict=False)]),
        np.concatenate([part.r_pc for part in parts]),
        group=np.repeat(np.arange(3), 5),
    )
    numbers = np.concatenate([crystal.numbers, molecule.numbers, crystal.numbers])
    whole = potential.evaluate(edges, numbers)
    alone = [
        potential.evaluate(part, atoms.numbers)
        for part, atoms in zip(parts, (crystal, molecule, crystal), strict=True)
    ]
    np.testing.assert_allclose(whole.energy_i, np.concatenate([a.energy_i for a in alone]), atol=1e-12)
    np.testing.assert_allclose(whole.forces, np.concatenate([a.forces for a in alone]), atol=1e-12)


def test_ghost_atoms_are_refused(make_layered: Make, molecule: Atoms) -> None:
    """Layers need what neighbours pass on, hence the neighbours of every neighbour."""
    potential = make_layered("message")
    edges = potential.edges(molecule)
    only_first = EdgeList(edges.first[:2], edges.neighbor[: edges.first[1]], edges.r_pc[: edges.first[1]])
    with pytest.raises(StructureError, match="needs the neighbours of every neighbour"):
        potential.evaluate(only_first, molecule.numbers)


def test_no_atoms_and_one(potential: Potential) -> None:
    none = EdgeList(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3)))
    assert potential.evaluate(none, []).energy == 0.0
    one = EdgeList(np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3)))
    found = potential.evaluate(one, [29])
    assert np.isfinite(found.energy) and (found.forces == 0).all()
    assert potential.jacobian(one, [29]).energy_iq.shape == (1, potential.n_parameters)


# -------------------------------------------------------------------------------- derivatives and smoothness


def test_forces_and_stress(potential: Potential, crystal: Atoms, molecule: Atoms) -> None:
    """With an h-sweep that shows second order."""
    calc = calculator(potential)
    check_forces(molecule, calc, components=2)
    check_forces(crystal, calc, components=1)
    check_stress(crystal, calc, steps=(0.002, 0.001, 0.0005))


@pytest.mark.slow
def test_every_component_of_forces_and_stress(potential: Potential, crystal: Atoms, molecule: Atoms) -> None:
    calc = calculator(potential)
    for atoms in (crystal, molecule):
        check_forces(atoms, calc)


@pytest.mark.slow
def test_all_checks(kind: str, potential: Potential) -> None:
    """The public report as a whole; fragments of a pool are groups."""
    report = check_all(
        calculator(potential), species=SPECIES, cutoff=potential.cutoff, components=4, max_dimers=3, grouped=kind in POOLED
    )  # fmt: skip
    assert report.passed
    if kind in POOLED:
        open_report = check_all(
            calculator(potential), species=SPECIES[:2], cutoff=potential.cutoff, components=1, max_dimers=1,
            raise_on_failure=False,
        )  # fmt: skip
        assert [result.check for result in open_report.failures] == ["check_separation"]


def test_smooth_at_the_cutoff_in_a_crowd(
    kind: str, potential: Potential, crystal: Atoms, molecule: Atoms
) -> None:
    """Energy, forces and stress, also where the pair counts in the denominator of the attention of other pairs."""
    calc = calculator(potential)
    check_cutoff_smoothness(molecule, calc, potential.cutoff)
    if kind in ("normalised", "deep"):
        check_cutoff_smoothness(crystal, calc, potential.cutoff)


def test_a_denominator_that_jumps_is_found(
    make_layered: Make, molecule: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its envelope a neighbour at the cutoff still weighs in the denominator."""
    calc = calculator(make_layered("normalised"))

    def abrupt(self: LayeredPass) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(len(self.r_pc)), np.zeros(len(self.r_pc))

    monkeypatch.setattr(LayeredPass, "_envelope", property(abrupt))
    check_forces(molecule, calc, components=2)  # consistent, but not continuous
    assert not check_cutoff_smoothness(molecule, calc, calc.potential.cutoff, raise_on_failure=False).passed


def test_large_scores_do_not_overflow(make_layered: Make, molecule: Atoms) -> None:
    """Cause: exp of the polynomial score was infinite, and its share not a number."""
    potential = make_layered("normalised", seed=3)
    loud = potential.with_arrays(**{"layer.1.core.2": 60.0 * potential.arrays["layer.1.core.2"]})
    edges = loud.edges(molecule)
    arguments, _ = loud._arguments(edges, loud.type_index(molecule.numbers))
    way = loud._pass(edges, arguments, 1)
    assert isinstance(way, LayeredPass) and way.attention[0] is not None
    query, key = way.query_key(0, way.x[0])
    assert np.einsum("phd,phd->ph", query, key).max() > 710.0  # exp of it is infinite
    weight = way.attention[0].weight
    assert np.isfinite(weight).all() and weight.min() >= 0.0 and 0.5 < weight.max() <= 1.0
    check_forces(molecule, calculator(loud), components=3, steps=(4e-5, 2e-5, 1e-5))
    gradient = loud.gradient(edges, molecule.numbers, np.ones(5), np.ones_like(edges.r_pc))
    assert np.isfinite(gradient).all()


def squeezed(rng: np.random.Generator) -> Atoms:
    """Pairs far below the inner radius of the repulsion."""
    atoms = bulk("Ni", cubic=True, a=2.9)
    atoms.numbers = rng.choice([13, 28, 29], len(atoms))
    atoms.rattle(0.1, rng=rng)
    return atoms


def test_close_pairs_and_energies_out_of_bounds(
    kind: str, make_layered: Make, rng: np.random.Generator
) -> None:
    """Held distances, the repulsion, and the slopes of the bounds that are the seeds of the way back."""
    potential = make_layered(kind, repulsion="zbl")
    potential = potential.with_train(scale(potential.train, 8.0))
    atoms = squeezed(rng)
    edges = potential.edges(atoms)
    arguments, close = potential._arguments(edges, potential.type_index(atoms.numbers))
    low, high = np.quantile(potential._pass(edges, arguments, 1).energy_i, [0.3, 0.7])
    bounded = potential.with_energy_bounds((float(low), float(high)))
    free_i, held_i = (p.evaluate(edges, atoms.numbers).energy_i for p in (potential, bounded))
    assert close is not None and np.abs(held_i - free_i).max() > 1e-2
    # pairs cross the radii of the repulsion within longer steps
    check_forces(atoms, calculator(bounded), components=1, steps=(0.001, 0.0005, 0.00025))
    check_stress(atoms, calculator(bounded), steps=(0.0002, 0.0001, 0.00005))


def test_threads_agree(potential: Potential, rng: np.random.Generator) -> None:
    """Enough atoms and pairs for two ranges; sums at neighbours are in another order, hence to rounding."""
    atoms = bulk("Al", cubic=True, a=3.4) * (3, 3, 7)
    atoms.numbers = rng.choice([13, 28, 29], len(atoms))
    atoms.rattle(0.1, rng=rng)
    edges = potential.edges(atoms)
    one, again, two = (potential.evaluate(edges, atoms.numbers, threads=n) for n in (1, 1, 2))
    np.testing.assert_array_equal(one.dE_dr_pc, again.dE_dr_pc)
    assert edges.n_pairs > 2 * 2048 and edges.n_atoms > 128
    np.testing.assert_allclose(two.energy_i, one.energy_i, rtol=0, atol=1e-12)
    np.testing.assert_allclose(two.dE_dr_pc, one.dE_dr_pc, rtol=0, atol=1e-12)
    shuffled = replace(edges, group=np.zeros(len(atoms), dtype=np.int64))
    np.testing.assert_array_equal(
        potential.evaluate(shuffled, atoms.numbers, threads=1).energy_i, one.energy_i
    )
