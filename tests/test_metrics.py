"""Error statistics against closed forms and plain loops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from etnpot.errors import DataError, SpecificationError
from etnpot.io.structures import Labelled
from etnpot.metrics import ErrorStatistics, Prediction, collect_pairs, evaluate_errors, format_table

STRESS = np.array([1.0, 2.0, 3.0, 0.5, 0.0, -0.5])


@pytest.fixture
def case(rng: np.random.Generator) -> tuple[list[Labelled], list[Prediction]]:
    """Three configurations of two groups; the last has an energy only, the second no stress."""
    data, predictions = [], []
    for formula, group in (("Cu2", "a"), ("CuNi", "a"), ("Ni3", None)):
        n = len(Atoms(formula))
        atoms = Atoms(formula, rng.standard_normal((n, 3)))
        forces = rng.standard_normal((n, 3))
        stress = STRESS if formula == "Cu2" else None
        c = Labelled(atoms, -3.0 * n, forces, stress, group=group, source="x.extxyz", index=len(data))
        data.append(c)
        predictions.append(
            (c.energy + 0.1 * len(data), forces + 0.01 * rng.standard_normal((n, 3)), STRESS + 0.02)
        )
    data[2] = Labelled(data[2].atoms, data[2].energy, index=2, source="x.extxyz")
    return data, predictions


def test_statistics_in_closed_form() -> None:
    s = ErrorStatistics.from_arrays([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 5.0])
    assert (s.mae, s.rmse, s.max, s.n) == (0.5, 1.0, 2.0, 4)
    assert s.r2 == pytest.approx(1 - 4 / 5)
    assert s.to_json() == {"mae": 0.5, "rmse": 1.0, "max": 2.0, "r2": s.r2, "n": 4}


@settings(deadline=None, max_examples=40, derandomize=True)
@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e3, 1e3)), st.floats(-10, 10))
def test_statistics_of_any_numbers(reference: np.ndarray, shift: float) -> None:
    s = ErrorStatistics.from_arrays(reference, reference + shift)
    for value in (s.mae, s.rmse, s.max):
        assert value == pytest.approx(abs(shift), abs=1e-9)
    assert ErrorStatistics.from_arrays(reference, reference).mae == 0.0
    assert math.isnan(s.r2) or s.r2 <= 1.0
    tiny = 1e-150  # squares below underflow
    assert s.mae <= s.rmse * (1 + 1e-12) + tiny and s.rmse <= s.max * (1 + 1e-12) + tiny


def test_statistics_without_pairs_or_variance() -> None:
    s = ErrorStatistics.from_arrays([], [])
    assert s.n == 0 and math.isnan(s.mae)
    assert s.to_json() == {"mae": None, "rmse": None, "max": None, "r2": None, "n": 0}
    assert math.isnan(ErrorStatistics.from_arrays([0.1, 0.1, 0.1], [0.1, 0.2, 0.3]).r2)
    with pytest.raises(DataError, match="as many"):
        ErrorStatistics.from_arrays([1.0, 2.0], [1.0])


def test_errors_of_the_whole_set(case: tuple[list[Labelled], list[Prediction]]) -> None:
    data, predictions = case
    m = evaluate_errors(data, predictions)
    assert m.energy.n == 3 and m.forces.n == 12 and m.force_vectors.n == 4 and m.stress.n == 6
    assert m.energy.mae == pytest.approx(np.mean([0.1 / 2, 0.2 / 2, 0.3 / 3]))
    assert m.energy_total.mae == pytest.approx(0.2)
    assert m.stress.rmse == pytest.approx(0.02)
    errors = [
        np.asarray(p[1]) - c.forces for c, p in zip(data, predictions, strict=True) if c.forces is not None
    ]
    stacked = np.concatenate(errors)
    assert m.forces.rmse == pytest.approx(np.sqrt(np.mean(stacked**2)))
    assert m.force_vectors.mae == pytest.approx(np.mean([np.linalg.norm(f) for f in stacked]))
    assert math.isnan(m.force_vectors.r2)


def test_errors_by_element_group_and_configuration(case: tuple[list[Labelled], list[Prediction]]) -> None:
    data, predictions = case
    m = evaluate_errors(data, predictions)
    copper = [
        np.asarray(predictions[0][1]) - data[0].forces,
        (np.asarray(predictions[1][1]) - data[1].forces)[:1],
    ]
    nickel = (np.asarray(predictions[1][1]) - data[1].forces)[1:]
    assert m.by_element["Cu"].mae == pytest.approx(np.mean(np.abs(np.concatenate(copper))))
    assert m.by_element["Ni"].mae == pytest.approx(np.mean(np.abs(nickel))) and m.by_element["Ni"].n == 3
    assert list(m.by_group) == ["a", "ungrouped"]
    assert m.by_group["a"].energy.mae == pytest.approx(0.075) and m.by_group["a"].n_configurations == 2
    assert m.by_group["ungrouped"].forces.n == 0
    first, second, third = m.configurations
    assert (first.name, first.formula, first.group) == ("x.extxyz, frame 0", "Cu2", "a")
    assert second.energy == pytest.approx(0.1) and second.stress_rmse is None
    assert third.forces_rmse is None and third.forces_max is None
    np.testing.assert_allclose(first.forces_max, np.max(np.abs(copper[0])))


def test_predictions_may_be_missing(case: tuple[list[Labelled], list[Prediction]]) -> None:
    data, predictions = case
    m = evaluate_errors(data, [(None, p[1], None) for p in predictions])
    assert m.energy.n == 0 and m.forces.n == 12 and m.stress.n == 0
    empty = evaluate_errors([], [])
    assert empty.forces.n == 0 and empty.by_group == {} and empty.table()


def test_worst_configurations(case: tuple[list[Labelled], list[Prediction]]) -> None:
    data, predictions = case
    m = evaluate_errors(data, predictions)
    assert [c.position for c in m.worst(2, by="energy")] in ([1, 2], [2, 1])
    assert {c.position for c in m.worst(by="forces")} == {0, 1}
    assert [c.position for c in m.worst(by="stress")] == [0]
    predictions[0] = (math.nan, predictions[0][1], None)
    assert evaluate_errors(data, predictions).worst(1, by="energy")[0].position == 0
    with pytest.raises(SpecificationError, match="forces_max"):
        m.worst(by="weight")


def test_json_is_plain_and_finite(case: tuple[list[Labelled], list[Prediction]]) -> None:
    data, predictions = case
    predictions[1] = (math.inf, np.full((2, 3), math.nan), None)
    record = evaluate_errors(data, predictions).to_json()
    text = json.dumps(record, allow_nan=False)
    assert json.loads(text) == record
    assert record["forces"]["rmse"] is None and record["by_group"]["a"]["n_configurations"] == 2
    assert record["configurations"][1]["energy"] is None


def test_table_shows_units_groups_and_worst(case: tuple[list[Labelled], list[Prediction]]) -> None:
    table = evaluate_errors(*case).table(n_worst=2)
    row = next(line for line in table.splitlines() if line.startswith("energy per atom"))
    assert row.split()[3:6] == ["meV/atom", "83.33", "86.60"]
    assert "x.extxyz, frame 0" in table and "ungrouped" in table
    widths = {len(line) for line in format_table(["a", "b"], [["x", "1"], ["longer", "22"]]).splitlines()}
    assert widths == {10}


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ((0.0, np.zeros((3, 3)), None), r"forces .*frame 0 must have shape \(2, 3\)"),
        ((0.0, None, np.zeros((3, 3))), r"stress .*shape \(6,\)"),
        ((np.zeros(2), None, None), "energy"),
        ((0.0, None), "must be"),
    ],
)
def test_wrong_predictions(
    case: tuple[list[Labelled], list[Prediction]], prediction: Prediction, message: str
) -> None:
    data, _ = case
    with pytest.raises(DataError, match=message):
        collect_pairs(data[:1], [prediction])
    with pytest.raises(DataError, match="one prediction per configuration"):
        collect_pairs(data, [])
