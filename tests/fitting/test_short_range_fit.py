"""What a fit does about the short range: radii and bounds from the data, and not one bit of difference on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot.basis import Repulsion, data_distances
from etnpot.errors import SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys
from etnpot.fitting.evaluation import predict
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.prepared import LossWeights, Prepared
from etnpot.fitting.problem import Problem
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.short_range import (
    _force,
    _radii,
    attracting_dimers,
    dimer_forces,
    embedded_pairs,
    repulsive_dimers,
)
from etnpot.io.structures import Labelled
from etnpot.metrics import evaluate_errors
from etnpot.potential import Potential


@pytest.fixture(scope="module")
def result(
    tiny: dict[str, Any], alloys: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> etnpot.FitResult:
    """A fit with default settings of the short range, written to a directory."""
    return etnpot.fit(alloys, out=tmp_path_factory.mktemp("fit") / "run", **tiny)


def test_it_is_on_by_default_and_touches_no_configuration_of_the_data(result: etnpot.FitResult) -> None:
    potential = result.potential
    repulsion = potential.spec.repulsion
    assert repulsion is not None
    shortest = result.data.train.min_distances()
    assert len(shortest) == 3
    for (z, w), distance in shortest.items():
        i, j = potential.species.index(z), potential.species.index(w)
        least = 0.9 * min(distance, 0.5 * (shortest[z, z] + shortest[w, w]))
        assert least - 1e-6 <= repulsion.outer[i][j] <= distance
    loose = potential.with_repulsion(None).with_energy_bounds(None)
    for labelled in result.data.train:
        edges = potential.edges(labelled.atoms)
        one, two = (p.evaluate(edges, labelled.atoms.numbers) for p in (potential, loose))
        np.testing.assert_array_equal(one.energy_i, two.energy_i)
        np.testing.assert_array_equal(one.dE_dr_pc, two.dE_dr_pc)


def test_errors_of_a_fit_are_those_of_the_data_alone(
    result: etnpot.FitResult, tiny: dict[str, Any], alloys: DataSet
) -> None:
    """The dimers of the loss are in no record, no sample size and no bound."""
    errors = evaluate_errors(result.data.train, predict(result.potential, result.data.train))
    best = next(record for record in reversed(result.history) if record["is_best"])
    assert best["train"]["forces_rmse"] == pytest.approx(errors.forces.rmse, rel=1e-9)
    fitter = Fitter(alloys, None, FitSettings(**tiny))
    dimers = repulsive_dimers(fitter.potential.species, fitter.potential.cutoff, fitter.distances, alloys)
    assert len(dimers) == 15
    squares = [float((c.forces**2).sum()) for c in (*dimers, *alloys) if c.forces is not None]
    # each component of a dimer that is wrong by all of its force
    weighed = [0.5 * c.weight * square for c, square in zip(dimers, squares, strict=False)]
    assert sum(weighed) <= 0.001 * sum(squares[15:]) * (1 + 1e-9)
    assert len(fitter._problem) == len(alloys) + 15 and len(fitter._problem.data) == len(alloys)
    part = fitter._problem.subset(range(5))
    assert len(part) == 20 and len(part.data) == 5
    assert fitter._problem.n_rows == sum(c.n_rows for c in fitter._problem.data)
    without = Fitter(alloys, None, FitSettings(**tiny, repulsion="none"))
    assert len(without._problem) == len(alloys)
    assert without.bounded_best() is without.best


def test_pairs_of_cold_alloys_are_pushed_together_among_their_elements(alloys: DataSet) -> None:
    """A melt of NbMoTaW collapsed: data with hot elements and cold alloys left open what close atoms of an alloy do."""
    cold = {(28, 28): 1.9, (28, 29): 2.4, (29, 29): 2.0}
    assert len(embedded_pairs((28, 29), 3.6, alloys.min_distances(), alloys)) == 0
    pushed = embedded_pairs((28, 29), 3.6, cold, alloys)
    assert 24 < len(pushed) <= 48
    total = 0.0
    for labelled in pushed:
        assert labelled.forces is not None
        pair = np.flatnonzero(labelled.forces[:, 0])
        assert len(pair) == 2 and labelled.forces.sum() == 0 and not labelled.forces[:, 1:].any()
        z, w = sorted(labelled.atoms.numbers[pair].tolist())
        r_c = labelled.atoms.get_distance(*pair, mic=True, vector=True)
        least = 0.9 * min(cold[z, w], 0.5 * (cold[z, z] + cold[w, w]))
        assert (
            r_c[1:] == pytest.approx([0, 0], abs=1e-9) and least - 1e-9 < abs(r_c[0]) < 4 / 3 * least + 1e-9
        )
        assert np.sign(labelled.forces[pair[1], 0]) == np.sign(r_c[0])  # away from the other
        total += 0.5 * labelled.weight * float((labelled.forces**2).sum())
    squares = [float((c.forces**2).sum()) for c in alloys if c.forces is not None]
    assert total <= 0.001 * sum(squares) * (1 + 1e-9)


def constrained(data: DataSet, constraint: Labelled, enough: float, cutoff: float) -> Problem:
    prepared = Prepared.of(constraint, cutoff, LossWeights()).demanded(enough)
    return Problem.from_dataset(data, cutoff, LossWeights()).constrained([prepared])


def test_a_constraint_counts_along_its_force_until_there_is_enough(
    result: etnpot.FitResult, alloys: DataSet
) -> None:
    potential = result.potential
    atoms = alloys[0].atoms
    found = potential.evaluate(potential.edges(atoms), atoms.numbers).forces
    forces = np.zeros_like(found)
    forces[0, 0], forces[1, 0] = found[0, 0], found[1, 0]
    # of four times the forces that there are a quarter is there: too little, or enough, to be kept; all of half of them are
    for times, enough, kept, wrong in ((4.0, 0.3, 1, 3.0), (4.0, 0.2, 1, 0.0), (0.5, 0.2, 0, None)):
        problem = constrained(alloys, Labelled(atoms, forces=times * forces), enough, potential.cutoff)
        assert len(problem) == len(alloys) + 1 and len(problem.data) == len(alloys)
        demanding = problem.demanding(potential)
        assert len(demanding) == len(alloys) + kept
        assert len(problem.demanding(None)) == len(alloys)
        if wrong is not None:
            rows = demanding.residuals(potential)[-1][1:-6].reshape(-1, 3)
            np.testing.assert_allclose(rows, -wrong * forces, rtol=1e-9, atol=1e-9 * abs(forces).max())
        _, gradient = problem.gradient(potential)
        equations = problem.normal_equations(potential)
        np.testing.assert_allclose(-2 * equations.rhs, gradient, rtol=1e-7, atol=1e-7 * abs(gradient).max())


def test_a_constraint_is_weighed_down_where_it_is_wrong_by_more_than_without_any_force(
    result: etnpot.FitResult, alloys: DataSet
) -> None:
    potential = result.potential
    atoms = alloys[0].atoms
    found = potential.evaluate(potential.edges(atoms), atoms.numbers).forces
    asked = np.zeros_like(found)
    asked[0, 0] = -found[0, 0]
    for size, wrong in ((1.0, 2.0), (0.1, 11.0)):  # times what is asked
        problem = constrained(alloys, Labelled(atoms, forces=size * asked), 0.5, potential.cutoff)
        rows = problem.demanding(potential).residuals(potential)[-1][1:-6]
        assert np.linalg.norm(rows) == pytest.approx(np.sqrt(wrong) * size * abs(found[0, 0]), rel=1e-9)


def test_bounds_are_around_the_energies_of_the_training_set(result: etnpot.FitResult) -> None:
    potential = result.potential
    bounds = potential.spec.energy_bounds
    assert bounds is not None
    reference = potential.arrays["reference_energies"]
    learned = [
        potential.evaluate(potential.edges(c.atoms), c.atoms.numbers).energy_i
        - reference[potential.type_index(c.atoms.numbers)]
        for c in result.data.train
    ]
    low, high = min(e.min() for e in learned), max(e.max() for e in learned)
    assert bounds == pytest.approx((low - max(0.5, 0.15 * (high - low)), high + max(10.0, 2 * (high - low))))


def check_dimers(potential: Potential, distances: dict[tuple[int, int], float]) -> None:
    """All pairs from 0.3 Å to where the data begin: finite, repulsive, smooth, and forces that belong to the energies."""
    species = potential.species
    shortest_zz = data_distances(species, potential.cutoff, distances)
    for i, z in enumerate(species):
        for j, w in enumerate(species[i:], start=i):
            r = np.linspace(0.3, shortest_zz[i, j], 1500)
            force = dimer_forces(potential, [(z, w)], r[None])[0]
            assert np.isfinite(force).all() and (force > 0).all(), (z, w, r[force <= 0])
            # a kink of the force would make its second differences shrink with the step, not with the square of it
            at = r[r > 0.7 * shortest_zz[i, j]]
            bends = []
            for h in (4e-4, 2e-4):
                below, here, above = dimer_forces(potential, [(z, w)] * 3, np.stack([at - h, at, at + h]))
                bends.append(abs(below - 2 * here + above).max())
            assert bends[1] < 0.3 * bends[0]
            work = np.sum(0.5 * (force[1:] + force[:-1]) * np.diff(r))
            ends = [Atoms([z, w], [[0, 0, 0], [0, 0, x]]) for x in r[[0, -1]]]
            high, low = (potential.evaluate(potential.edges(a), a.numbers).energy for a in ends)
            assert work == pytest.approx(high - low, rel=1e-3)


def test_the_written_potential_has_it_and_dimers_of_all_pairs_repel(result: etnpot.FitResult) -> None:
    assert result.out is not None
    potential = etnpot.load(Path(result.out) / "potential.etn")
    assert potential.spec == result.potential.spec
    check_dimers(potential, result.data.train.min_distances())
    assert attracting_dimers(potential, result.data.train.min_distances()) == {}


@pytest.mark.parametrize("n_elements", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_dimers_of_all_pairs_of_an_alloy_repel(n_elements: int, tiny: dict[str, Any]) -> None:
    """The default model for six elements, a small one for three."""
    symbols = ("Al", "Ni", "Cu", "Ag", "Pd", "Au")[:n_elements]
    data = emt_alloys(
        5 * n_elements, symbols=symbols, seed=2, repeat=(1, 1, 2) if n_elements < 6 else (2, 2, 2)
    )
    settings = tiny if n_elements < 6 else {"polish_steps": 8, "threads": 1}
    fitted = etnpot.fit(data, reliability=False, **settings)
    check_dimers(fitted.potential, fitted.data.train.min_distances())


@pytest.mark.parametrize(
    ("depth", "at", "width", "repelling"),
    [
        (0.0, 0.95, 0.03, True),  # the usual radii will do
        (60.0, 0.93, 0.02, True),
        (300.0, 0.93, 0.02, True),
        (800.0, 0.90, 0.03, True),
        (800.0, 0.96, 0.01, True),
        (60.0, 1.0, 0.02, False),  # where the data begin it attracts: radii alone cannot change that
        (60.0, 1.0, 0.2, False),
    ],
)
def test_radii_make_dimers_repel_that_attract_below_the_data(
    depth: float, at: float, width: float, repelling: bool
) -> None:
    d, pair = 2.2, (42, 42)
    usual = 0.9 * d
    radii = 0.85 * usual, usual

    def learned(r: np.ndarray) -> np.ndarray:
        return 3.0 - depth * np.exp(-(((r / d - at) / width) ** 2))

    found = _radii(pair, radii, d, d, learned)
    assert (found is None) == (depth == 0.0)
    inner, outer = (0.85 * usual, usual) if found is None else found
    assert 0.8 * usual < inner < outer <= d and usual <= outer
    r = np.linspace(0.999 * inner, d, 5001)
    before, _ = _force(pair, 0.85 * usual, usual, r, learned)
    force, _ = _force(pair, inner, outer, r, learned)
    assert ((before <= 0).any()) == (depth > 0.0)
    assert (force > 0).all() == repelling
    if not repelling:
        assert np.isclose((outer - inner) / outer, 0.15)
        less = (before <= 0).sum() - (force <= 0).sum()
        assert less > 0 if width > 0.1 else less == 0  # a narrow one lies beyond all radii
        # configurations come closer than those of the data: there it is the data that count
        assert outer <= 0.95 * d


def test_dimers_of_the_scan_are_those_of_the_potential(result: etnpot.FitResult) -> None:
    potential = result.potential
    assert potential.spec.repulsion is not None
    z, w = potential.species
    inner, outer = potential.spec.repulsion.inner[0][1], potential.spec.repulsion.outer[0][1]
    r = np.linspace(0.95 * inner, 1.1 * outer, 9)
    found = dimer_forces(potential, [(z, w)], r[None])[0]
    for x, force in zip(r, found, strict=True):
        atoms = Atoms([z, w], [[0, 0, 0], [0, x, 0]])
        assert potential.evaluate(potential.edges(atoms), atoms.numbers).forces[1, 1] == pytest.approx(
            force, rel=1e-9
        )
    learned = potential.with_repulsion(None)
    assert np.allclose(
        _force((z, w), inner, outer, r, lambda x: dimer_forces(learned, [(z, w)], x[None])[0])[0], found
    )


def test_energy_range_adds_up_over_ranks(result: etnpot.FitResult) -> None:
    data, potential = result.data.train, result.potential
    whole = Problem.from_dataset(data, potential.cutoff, LossWeights())
    expected = whole.energy_range(potential)
    sums: list[np.ndarray] = []
    for rank in (0, 1):
        part = Problem.from_dataset(
            data, potential.cutoff, LossWeights(), shard=(rank, 2), reduce=lambda a: sums.append(a.copy())
        )
        part.energy_range(potential)
    total = sums[0] + sums[1]
    assert (total[0].min(), total[1].max()) == expected


def test_a_fit_from_a_potential_forgets_bounds_and_radii_of_other_data(
    result: etnpot.FitResult, tiny: dict[str, Any], alloys: DataSet
) -> None:
    radii = Repulsion.for_species(
        result.potential.species, 3.6, {(28, 28): 3.0, (28, 29): 3.0, (29, 29): 3.0}
    )
    fitter = Fitter(alloys, None, FitSettings(**tiny), start=result.potential.with_repulsion(radii))
    assert fitter.potential.spec.energy_bounds is None
    assert fitter.potential.spec.repulsion == Repulsion.for_species((28, 29), 3.6, alloys.min_distances())
    bare = Fitter(alloys, None, FitSettings(**tiny), start=result.potential.with_repulsion(None))
    assert len(bare._problem) == len(alloys)
    assert bare.bounded_best().spec.repulsion is None
    assert isinstance(fitter.bounded_best(), Potential)


@pytest.mark.parametrize("value", ["off", None, True])
def test_a_wrong_setting_names_the_right_ones(value: Any) -> None:
    with pytest.raises(SpecificationError, match="repulsion: expected 'zbl' or 'none'"):
        FitSettings(repulsion=value)
