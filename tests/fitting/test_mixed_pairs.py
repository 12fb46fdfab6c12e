"""Hot elements and cold alloys: what a fit says of hot alloys, of which its data say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from etnpot.errors import SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.evaluation import evaluate
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.start import follow_means, initial_potential, initial_spec

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


def test_means_where_alloys_are_cold(rng: np.random.Generator) -> None:
    hot = {(28, 28): 1.9, (28, 29): 2.0, (29, 29): 2.0}
    cold = {**hot, (28, 29): 2.5}
    auto = FitSettings(cutoff=4.0)
    assert follow_means(auto, (28, 29), 4.0, cold)
    assert not follow_means(auto, (28, 29), 4.0, hot)
    assert not follow_means(FitSettings(cutoff=4.0, mixed_pairs="free"), (28, 29), 4.0, cold)
    assert follow_means(FitSettings(cutoff=4.0, mixed_pairs="means"), (28, 29), 4.0, hot)
    with pytest.raises(
        SpecificationError, match=r"mixed_pairs: expected 'auto', 'means' or 'free', got 'none'"
    ):
        FitSettings(mixed_pairs="none")


def test_a_fit_starts_from_them(rng: np.random.Generator) -> None:
    data = hot_elements_cold_alloys(["Cu", "Ni"], 2, rng)
    for mixed_pairs, means in (("auto", True), ("free", False)):
        settings = FitSettings(**TINY, mixed_pairs=mixed_pairs)
        table = initial_potential(data, settings, initial_spec(data, settings)).arrays["species.pair"]
        own = np.diagonal(table, axis1=2, axis2=3)
        mean = (own[..., :, None] + own[..., None, :]) / 2
        assert np.allclose(table[:, 1], mean[:, 1]) == means
        assert Fitter(data, None, settings)._turning.means == means


@pytest.mark.slow
def test_hot_alloys_from_hot_elements_and_cold_alloys(rng: np.random.Generator) -> None:
    """Forces of hot alloys of four elements, mean of seeds, are better than those of fits that are free."""
    elements = ["Cu", "Ni", "Pd", "Pt"]
    data = hot_elements_cold_alloys(elements, 8, rng)
    hot = DataSet.from_atoms([cell(elements, 0.12, rng) for _ in range(8)])
    found = {}
    for mixed_pairs in ("free", "auto"):
        errors = []
        for seed in range(2):
            settings = FitSettings(
                size="small", cutoff=5.0, polish_steps=8, reliability=False, threads=1, seed=seed,
                mixed_pairs=mixed_pairs,
            )  # fmt: skip
            fitter = Fitter(data, None, settings)
            fitter.run()
            errors.append(evaluate(fitter.bounded_best(), hot).forces.mae)
        found[mixed_pairs] = float(np.mean(errors))
    assert found["auto"] < 0.75 * found["free"], found
