"""Hot elements and cold alloys: what a fit says of hot alloys, of which its data say nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

import etnpot
from etnpot.errors import SpecificationError
from etnpot.fitting.alloys import OwnElement, hot_alloys
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.evaluation import evaluate
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.prepared import LossWeights, Prepared
from etnpot.fitting.problem import Problem
from etnpot.fitting.settings import FitSettings
from etnpot.io.structures import Labelled

TINY: dict[str, Any] = {
    "order": 2, "l_max": 1, "radial_size": 4, "channels": [2, 1], "ranks": 2, "cutoff": 3.6, "reliability": False, "threads": 1,
}  # fmt: skip


def cell(symbols: list[str], rattle: float, rng: np.random.Generator) -> Atoms:
    """A cell of 32 atoms with EMT labels; all elements have the lattice constant of their mean."""
    constants = {"Ni": 3.52, "Cu": 3.61, "Pd": 3.89, "Pt": 3.92}
    atoms = bulk("Cu", cubic=True, a=float(np.mean([constants[s] for s in symbols]))) * (2, 2, 2)
    atoms.symbols = rng.choice(symbols, len(atoms))
    atoms.rattle(rattle, rng=rng)
    atoms.calc = EMT()
    labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def hot_elements_cold_alloys(elements: list[str], n: int, rng: np.random.Generator) -> DataSet:
    pairs = [[z, w] for z in elements for w in elements if z < w]
    return DataSet.from_atoms(
        [cell([z], rattle, rng) for z in elements for rattle in np.linspace(0.02, 0.2, n)]
        + [cell(pair, 0.01, rng) for pair in pairs for _ in range(n)]
    )


def cells_of(data: DataSet, species: tuple[int, ...], cutoff: float = 3.6) -> list[Prepared]:
    return hot_alloys(species, cutoff, data.min_distances(), data, LossWeights(forces=2.0))


def test_forces_of_atoms_among_their_own_element(rng: np.random.Generator) -> None:
    """They are the derivative of the sum of what each atom has in a cell in which all others are like it."""
    potential = etnpot.ETN(["Ni", "Cu", "Pd"], cutoff=3.6, order=3, l_max=2, seed=2)
    atoms = bulk("Cu", cubic=True, a=3.75) * (
        2,
        1,
        1,
    )  # atoms see their own images, which are of their element
    atoms.numbers[:] = rng.choice([28, 29, 46], len(atoms))
    atoms.rattle(0.1, rng=rng)

    def energy(atoms: Atoms) -> float:
        edges, total = potential.edges(atoms), 0.0
        for z in set(atoms.numbers.tolist()):
            energy_i = potential.evaluate(edges, np.full(len(atoms), z)).energy_i
            total += float(energy_i[atoms.numbers == z].sum())
        return total

    forces = OwnElement(potential.edges(atoms), np.asarray(atoms.numbers, dtype=np.int64))(potential)
    assert np.abs(forces.sum(axis=0)).max() < 1e-12
    h = 1e-4
    for i, c in ((0, 0), (5, 1), (7, 2)):
        moved = [atoms.copy(), atoms.copy()]
        for sign, other in zip((-1, 1), moved, strict=True):
            other.positions[i, c] += sign * h
        slope = (energy(moved[1]) - energy(moved[0])) / (2 * h)
        assert forces[i, c] == pytest.approx(-slope, rel=1e-6, abs=1e-7)
    atoms.numbers[:] = 29
    alone = potential.evaluate(potential.edges(atoms), atoms.numbers).forces
    found = OwnElement(potential.edges(atoms), np.asarray(atoms.numbers, dtype=np.int64))(potential)
    np.testing.assert_allclose(found, alone, atol=1e-13)


def test_cells_where_alloys_are_cold_and_elements_hot(rng: np.random.Generator) -> None:
    data = hot_elements_cold_alloys(["Cu", "Ni", "Pt"], 12, rng)
    cells = cells_of(data, (28, 29, 78))
    # the half of the elements with larger forces, twice
    assert len(cells) == 2 * 18 and all(len(set(c.numbers.tolist())) > 1 for c in cells)
    assert {tuple(sorted(set(c.numbers.tolist()))) for c in cells} == {
        (28, 29),
        (28, 78),
        (29, 78),
        (28, 29, 78),
    }
    volume_z = {28: 3.52**3 / 4, 29: 3.61**3 / 4, 78: 3.92**3 / 4}
    for c in cells:
        assert c.volume == pytest.approx(sum(volume_z[int(z)] for z in c.numbers), rel=1e-9)
        assert c.energy is None and c.virial is None
        assert c.scale_forces == pytest.approx(np.sqrt(2.0))
    again = cells_of(data, (28, 29, 78))
    assert all(np.array_equal(a.edges.r_pc, b.edges.r_pc) for a, b in zip(cells, again, strict=True))


def test_no_cells_where_alloys_are_as_hot(rng: np.random.Generator) -> None:
    elements = [cell([z], 0.1, rng) for z in ("Cu", "Ni")]
    hot = DataSet.from_atoms([*elements, cell(["Cu", "Ni"], 0.15, rng)])
    assert cells_of(hot, (28, 29)) == []
    alone = DataSet.from_atoms(elements)
    assert cells_of(alone, (28, 29)) == []
    # no forces of elements to go by
    mute = DataSet(
        Labelled(c.atoms, energy=c.energy, forces=c.forces if len(set(c.atoms.numbers)) > 1 else None)
        for c in hot_elements_cold_alloys(["Cu", "Ni"], 4, rng)
    )
    assert cells_of(mute, (28, 29)) == []


def test_cells_without_energies_keep_their_volume(rng: np.random.Generator) -> None:
    data = DataSet(Labelled(c.atoms, forces=c.forces) for c in hot_elements_cold_alloys(["Cu", "Ni"], 4, rng))
    cells = cells_of(data, (28, 29))
    assert {round(c.volume, 6) for c in cells} == {round(8 * a**3, 6) for a in (3.52, 3.61)}


def test_they_count_in_steps_and_in_no_error(rng: np.random.Generator) -> None:
    data = hot_elements_cold_alloys(["Cu", "Ni"], 4, rng)
    cells = cells_of(data, (28, 29))
    plain = Problem.from_dataset(data, 3.6, LossWeights(), threads=1)
    problem = plain.constrained(cells)
    potential = etnpot.ETN(["Ni", "Cu"], cutoff=3.6, order=2, l_max=1, seed=1)
    assert problem.demanding(None).configurations == plain.configurations
    for forces_rmse in (0.01, 1e3):
        demanding = problem.demanding(potential, forces_rmse)
        assert len(demanding) == len(data) + len(cells)
        for c, asked in zip(cells, demanding.configurations[len(data) :], strict=True):
            expected = OwnElement(c.edges, c.numbers)(potential)
            assert asked.forces is not None
            np.testing.assert_array_equal(asked.forces, expected)
            # what they are taken to be wrong by
            part = min(np.sqrt(0.1), forces_rmse / (0.15 * float(np.sqrt(np.mean(expected**2)))))
            assert asked.scale_forces == pytest.approx(np.sqrt(2.0) * part)
    assert problem.demanding(potential).configurations == plain.configurations
    # beside a part of the data they weigh as much as beside all of them
    part = problem.subset(range(3))
    share = part.n_rows / problem.n_rows
    assert 0 < share < 1 and len(part) == 3 + len(cells)
    for c in part.configurations[3:]:
        assert c.scale_forces == pytest.approx(np.sqrt(2.0 * share))
    assert problem.n_failing(potential) == (0, 0)
    assert problem.n_rows == plain.n_rows
    assert problem.errors(potential)[0] == plain.errors(potential)[0]
    layered = etnpot.ETN(["Ni", "Cu"], cutoff=3.6, order=2, l_max=1, seed=1, layers=[{"kind": "message"}])
    assert problem.demanding(layered, 0.1).configurations == plain.configurations


def test_a_fit_has_them_unless_it_is_told_not_to(rng: np.random.Generator) -> None:
    data = hot_elements_cold_alloys(["Cu", "Ni"], 4, rng)
    for alloys, guesses in (("auto", 8), ("none", 0)):
        fitter = Fitter(data, None, FitSettings(**TINY, alloys=alloys))
        assert sum(c.guess is not None for c in fitter._problem.configurations) == guesses
        assert fitter.n_hot_alloys == guesses and len(fitter._problem.data) == len(data)
    with pytest.raises(SpecificationError, match=r"alloys: expected 'auto' or 'none', got 'free'"):
        FitSettings(alloys="free")


def test_a_restored_fit_asks_for_the_same(
    rng: np.random.Generator, restored_alike: Callable[..., Fitter]
) -> None:
    data = hot_elements_cold_alloys(["Cu", "Ni"], 4, rng)
    settings = FitSettings(**TINY, polish_steps=4)
    restored_alike(
        lambda: Fitter(data, None, settings),
        lambda fitter: any(record["stage"] == "polish" for record in fitter.history),
    )


@pytest.mark.parametrize(
    ("elements", "rank", "usual"), [((28, 29), 2, 4), ((28, 29, 46, 78), 2, 5), (tuple(range(21, 29)), 4, 5)]
)
def test_few_functions_of_the_species_where_alloys_are_cold(
    elements: tuple[int, ...], rank: int, usual: int
) -> None:
    hot = {(z, w): 2.0 for z in elements for w in elements if z <= w}
    cold = {(z, w): 2.0 if z == w else 2.6 for z, w in hot}

    def species_rank(distances: dict[tuple[int, int], float], **settings: Any) -> int:
        made = FitSettings(cutoff=5.0, size="medium", **settings)
        return made.spec(elements, r_min=1.9, neighbor_scale=60.0, distances=distances).species_rank

    assert species_rank(cold) == rank
    assert species_rank(hot) == species_rank(cold, alloys="none") == usual
    assert species_rank(cold, species_rank=3) == 3


def test_the_log_says_so(rng: np.random.Generator, tmp_path: Path) -> None:
    data = hot_elements_cold_alloys(["Cu", "Ni"], 4, rng)
    for alloys in ("auto", "none"):
        out = tmp_path / alloys
        etnpot.fit(data, out=out, **TINY, polish_steps=1, valid_fraction=0.0, alloys=alloys)
        assert ("8 cells of hot alloys follow" in (out / "fit.log").read_text()) == (alloys == "auto")


@pytest.mark.slow
def test_hot_alloys_from_hot_elements_and_cold_alloys(rng: np.random.Generator) -> None:
    """Forces of hot alloys of four elements, mean of seeds, are better than those of fits without such cells."""
    elements = ["Cu", "Ni", "Pd", "Pt"]
    data = hot_elements_cold_alloys(elements, 8, rng)
    hot = DataSet.from_atoms([cell(elements, 0.12, rng) for _ in range(8)])
    found = {}
    for alloys in ("none", "auto"):
        errors = []
        for seed in range(2):
            settings = FitSettings(
                size="small", cutoff=5.0, polish_steps=8, reliability=False, threads=1, seed=seed,
                alloys=alloys,
            )  # fmt: skip
            fitter = Fitter(data, None, settings)
            fitter.run()
            errors.append(evaluate(fitter.bounded_best(), hot).forces.mae)
        found[alloys] = float(np.mean(errors))
    assert found["auto"] < 0.75 * found["none"], found
