"""What a fit does about the short range: radii and bounds from the data, and not one bit of difference on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot.errors import SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.prepared import LossWeights
from etnpot.fitting.problem import Problem
from etnpot.fitting.settings import FitSettings
from etnpot.potential import Potential


@pytest.fixture(scope="module")
def result(
    tiny: dict[str, Any], alloys: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> etnpot.FitResult:
    """A fit with default settings of the short range, written to a directory."""
    return etnpot.fit(alloys, out=tmp_path_factory.mktemp("fit") / "run", **tiny)


def test_it_is_on_by_default_and_touches_no_configuration_of_the_data(
    result: etnpot.FitResult, tiny: dict[str, Any], alloys: DataSet
) -> None:
    spec = result.potential.spec
    assert spec.repulsion is not None
    shortest = result.data.train.min_distances()
    assert len(shortest) == 3
    for (z, w), distance in shortest.items():
        i, j = spec.species.index(z), spec.species.index(w)
        expected = 0.9 * min(distance, 0.5 * (shortest[z, z] + shortest[w, w]))
        assert spec.repulsion.outer[i][j] == pytest.approx(expected, abs=1e-6)
    without = etnpot.fit(alloys, repulsion="none", **tiny)
    assert without.potential.spec.repulsion is None and without.potential.spec.energy_bounds is None
    np.testing.assert_array_equal(without.potential.parameters, result.potential.parameters)
    for name in ("train", "valid"):
        assert without.metrics[name].forces.rmse == result.metrics[name].forces.rmse
        assert without.metrics[name].energy.rmse == result.metrics[name].energy.rmse


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
    assert bounds == pytest.approx((low - max(0.5, 0.5 * (high - low)), high + max(10.0, 2 * (high - low))))


def test_the_written_potential_has_it_and_dimers_repel(result: etnpot.FitResult) -> None:
    assert result.out is not None
    potential = etnpot.load(Path(result.out) / "potential.etn")
    assert potential.spec == result.potential.spec
    assert potential.spec.repulsion is not None
    for i, z in enumerate(potential.species):
        for j, w in enumerate(potential.species):
            for r in np.linspace(0.05, potential.spec.repulsion.inner[i][j], 20):
                atoms = Atoms([z, w], [[0, 0, 0], [0, 0, r]])
                assert potential.evaluate(potential.edges(atoms), atoms.numbers).forces[1, 2] > 1.0


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


def test_a_fit_from_a_potential_forgets_the_bounds_of_other_data(
    result: etnpot.FitResult, tiny: dict[str, Any], alloys: DataSet
) -> None:
    fitter = Fitter(alloys, None, FitSettings(**tiny), start=result.potential)
    assert fitter.potential.spec.energy_bounds is None
    assert isinstance(fitter.bounded_best(), Potential)


@pytest.mark.parametrize("value", ["off", None, True])
def test_a_wrong_setting_names_the_right_ones(value: Any) -> None:
    with pytest.raises(SpecificationError, match="repulsion: expected 'zbl' or 'none'"):
        FitSettings(repulsion=value)
