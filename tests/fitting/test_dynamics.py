"""Dynamics of molecules in a fit: what counts as a fall, what it adds to the fit, and restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units

import etnpot
from etnpot.errors import RunDirectoryError, SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys, spring_molecules
from etnpot.fitting.dynamics import Dynamics, Fall, bond_gaps
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.prepared import LossWeights, Prepared
from etnpot.fitting.problem import Problem
from etnpot.fitting.settings import FitSettings
from etnpot.io.structures import Labelled
from etnpot.network import scale
from etnpot.potential import Potential

TINY: dict[str, Any] = dict(
    cutoff=4.0, order=2, l_max=2, channels=[3, 2, 1], ranks=2, radial_size=6, species_rank=3, threads=1, polish_steps=3
)  # fmt: skip


@pytest.fixture(scope="module")
def methanol() -> DataSet:
    return spring_molecules("CH3OH", 12, displacement=0.04, seed=1)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamics after every step, however small the model."""
    monkeypatch.setattr("etnpot.fitting.moves._DYNAMICS", 1e3)
    monkeypatch.setattr("etnpot.fitting.moves._RUN_STEPS", (40, 40))
    monkeypatch.setattr("etnpot.fitting.fitter._MATURE", 1.0)


def wild(seed: int = 0) -> Potential:
    """A random potential whose forces tear a molecule apart."""
    settings = {name: value for name, value in TINY.items() if name not in ("threads", "polish_steps")}
    potential = etnpot.ETN(["H", "C", "O"], **settings, seed=seed)
    return potential.with_train(scale(potential.train, 30.0))


def test_springs_have_the_forces_of_their_energy() -> None:
    base, h = spring_molecules("H2O", 1, seed=2)[0], 1e-5
    assert base.forces is not None
    assert np.abs(base.forces.sum(axis=0)).max() < 1e-12
    # the energy is a sum of squares of lengths: by differences of the same springs
    rest = spring_molecules("H2O", 1, displacement=0.0)[0].atoms.positions
    i, j = np.triu_indices(3, 1)
    rest_p = np.linalg.norm(rest[i] - rest[j], axis=1)
    stiffness_p = 30.0 * np.minimum(1.0, (1.2 / rest_p) ** 6)

    def energy(place_ic: np.ndarray) -> float:
        return 0.5 * float(stiffness_p @ (np.linalg.norm(place_ic[i] - place_ic[j], axis=1) - rest_p) ** 2)

    assert base.energy == pytest.approx(energy(base.atoms.positions))
    for a in range(3):
        for c in range(3):
            moved = [base.atoms.positions.copy() for _ in range(2)]
            moved[0][a, c] += h
            moved[1][a, c] -= h
            assert -(energy(moved[0]) - energy(moved[1])) / (2 * h) == pytest.approx(
                base.forces[a, c], abs=1e-7
            )


def test_gaps_are_those_between_bonds_and_the_rest(methanol: DataSet) -> None:
    gaps = bond_gaps(methanol, 4.0)
    # by the distances themselves: the hydrogen atom of the hydroxyl group is not bonded to the carbon atom
    distances = np.sort(
        np.concatenate([c.atoms.get_all_distances()[0, c.atoms.numbers == 1] for c in methanol])
    )
    at = np.argmax(distances[1:] / distances[:-1])
    assert gaps[1, 6] == pytest.approx((distances[at], distances[at + 1]), abs=0.011)
    assert 1.1 < gaps[1, 6][0] < 1.3 < 1.7 < gaps[1, 6][1]
    assert (1, 1) not in gaps, "no two hydrogen atoms are bonded"
    assert (6, 8) not in gaps, "all distances of the carbon atom and the oxygen atom are bonds"


def test_dynamics_are_those_of_molecules_with_forces(methanol: DataSet) -> None:
    assert Dynamics.applies(methanol)
    assert not Dynamics.applies(emt_alloys(2, symbols=("Cu", "Ni"), repeat=(1, 1, 1)))
    assert not Dynamics.applies(DataSet([*methanol, *emt_alloys(1, symbols=("Cu",), repeat=(1, 1, 1))]))
    assert not Dynamics.applies(DataSet([Labelled(c.atoms, energy=c.energy) for c in methanol]))
    assert not Dynamics.applies(DataSet([*methanol, Labelled(Atoms("H"), energy=0.0)]))


def test_the_temperature_of_data_is_found() -> None:
    """Forces as large as those of harmonic molecules at 300 K, where each mode has kT/2."""
    data = spring_molecules("H2O", 40, displacement=0.03, seed=3)
    fitter = Fitter(data, None, FitSettings(**{**TINY, "polish_steps": 12, "dynamics": "none"}))
    fitter.run()
    rest, stiffness = spring_molecules("H2O", 1, displacement=0.0)[0].atoms.positions, 0.0
    for a, b in ((0, 1), (0, 2), (1, 2)):
        stiffness += 2.0 * 30.0 * min(1.0, (1.2 / np.linalg.norm(rest[a] - rest[b])) ** 6)
    square = 300.0 * units.kB * stiffness / 9  # <F^2> = kT tr(Hessian)
    now = np.mean([np.mean(np.asarray(c.forces) ** 2) for c in data])
    scaled = DataSet(replace(c, forces=np.sqrt(square / now) * np.asarray(c.forces)) for c in data)
    assert Dynamics(scaled, 4.0, 0, 1).temperature(fitter.best) == pytest.approx(900.0, rel=0.2)
    hotter = DataSet(replace(c, forces=10.0 * np.asarray(c.forces)) for c in data)
    assert Dynamics(hotter, 4.0, 0, 1).temperature(fitter.best) == 1200.0


def test_falls_are_low_and_the_same_every_time(methanol: DataSet) -> None:
    dynamics, potential = Dynamics(methanol, 4.0, 0, 1), wild()
    falls = dynamics.falls(potential, 900.0, 60, 0)
    assert falls
    for fall in falls:
        atoms = methanol[fall.molecule].atoms.copy()
        atoms.positions = fall.positions
        assert np.abs(atoms.positions.mean(axis=0)).max() < 1e-9
        assert potential.evaluate(potential.edges(atoms), atoms.numbers).energy < fall.enough < fall.asked
    again = Dynamics(methanol, 4.0, 0, 1).falls(potential, 900.0, 60, 0)
    assert [(f.molecule, f.asked) for f in again] == [(f.molecule, f.asked) for f in falls]
    other = dynamics.falls(potential, 900.0, 60, 1)
    assert [f.asked for f in other] != [f.asked for f in falls]


def test_a_gap_that_costs_less_than_a_bond_is_a_fall(methanol: DataSet) -> None:
    """Without any interaction a cold molecule drifts apart, and nothing but the gap tells."""
    free = wild().with_train(scale(wild().train, 0.0))
    calm = Dynamics(methanol, 4.0, 0, 1)
    falls = calm.falls(free, 1200.0, 100, 0)
    assert falls
    low, high = calm.gaps[1, 6]
    for fall in falls:
        assert fall.asked - fall.enough == pytest.approx(0.25)
        numbers = methanol[fall.molecule].atoms.numbers
        distances = Atoms(numbers, fall.positions).get_all_distances()
        gaps = [(z, w, *gap) for (z, w), gap in calm.gaps.items()]
        torn = [
            (distances[np.ix_(numbers == z, numbers == w)] > a + 0.4 * (b - a))
            & (distances[np.ix_(numbers == z, numbers == w)] < a + 0.6 * (b - a))
            for z, w, a, b in gaps
        ]
        assert any(part.any() for part in torn)
    assert high > low


def test_a_fall_counts_until_the_energy_is_enough(methanol: DataSet) -> None:
    potential = wild()
    atoms = methanol[0].atoms
    energy = potential.evaluate(potential.edges(atoms), atoms.numbers).energy
    dynamics = Dynamics(methanol, 4.0, 0, 1)
    problem = Problem.from_dataset(methanol, 4.0, LossWeights(), threads=1)
    cases = {
        "fails": (energy + 2.0, energy + 0.5),
        "held": (energy + 2.0, energy - 0.5),
        "met": (energy - 1.0, energy - 2.0),
    }
    for name, (asked, enough) in cases.items():
        (made,) = dynamics.constraints([Fall(0, atoms.positions, asked, enough)])
        counted = made.counting(energy, np.zeros((6, 3)))
        whole = problem.constrained([made])
        assert whole.n_rows == problem.n_rows, "a constraint is no datum"
        assert whole.n_failing(potential) == (0, int(name == "fails"))
        if name == "met":
            assert counted is None
            continue
        assert counted is not None
        assert counted.energy == pytest.approx(asked if name == "fails" else energy)
        # wrong by 2 eV: weighed down by half, as by Huber
        assert counted.scale_energy**2 == pytest.approx(
            made.scale_energy**2 * (0.5 if name == "fails" else 1.0)
        )
        equations = whole.demanding(potential).normal_equations(potential)
        alone = problem.normal_equations(potential)
        assert equations.loss - alone.loss == pytest.approx(
            (counted.scale_energy * (counted.energy - energy)) ** 2, abs=1e-6
        )
    assert problem.errors(potential)[0] == whole.errors(potential)[0]


def test_forces_without_weight_give_constraints_without(methanol: DataSet) -> None:
    (fall,) = Dynamics(methanol, 4.0, 0, 1, forces_weight=0.0).constraints(
        [Fall(0, methanol[0].atoms.positions, 9.0, 8.0)]
    )
    (half,) = Dynamics(methanol, 4.0, 0, 1, forces_weight=0.25).constraints(
        [Fall(0, methanol[0].atoms.positions, 9.0, 8.0)]
    )
    (whole,) = Dynamics(methanol, 4.0, 0, 1).constraints([Fall(0, methanol[0].atoms.positions, 9.0, 8.0)])
    assert fall.scale_energy == 0.0 and half.scale_energy == pytest.approx(0.5 * whole.scale_energy)
    dimer = Labelled(Atoms("H2", [[0, 0, 0], [0.5, 0, 0]]), forces=np.array([[-1.0, 0, 0], [1.0, 0, 0]]))
    idle = Prepared.of(dimer, 4.0, LossWeights(forces=0.0)).demanded(0.1)
    counted = idle.counting(0.0, np.array([[5.0, 0, 0], [-5.0, 0, 0]]))
    assert counted is not None and np.all(counted.scale_forces == 0.0)


def test_a_fit_lifts_what_it_falls_into(methanol: DataSet, often: None) -> None:
    fitter = Fitter(methanol, None, FitSettings(**{**TINY, "polish_steps": 8}))
    fitter.run()
    records = [record for record in fitter.history if record["stage"] == "dynamics"]
    assert len(records) >= 5
    assert 100 < records[0]["temperature"] <= 1200
    assert (
        sum(record["falls"] for record in records)
        == records[-1]["constraints"]
        == len(fitter._moves.falls)
        > 0
    )
    without = Fitter(methanol, None, FitSettings(**{**TINY, "polish_steps": 8, "dynamics": "none"}))
    without.run()
    assert not any(record["stage"] == "dynamics" for record in without.history)
    assert fitter._problem.n_failing(fitter.best)[1] < fitter._problem.n_failing(without.best)[1]


def test_a_restored_fit_moves_on_with_the_same_bits(
    methanol: DataSet, often: None, restored_alike: Callable[..., Fitter]
) -> None:
    settings = FitSettings(**{**TINY, "polish_steps": 5})
    whole = restored_alike(lambda: Fitter(methanol, None, settings), lambda fitter: bool(fitter._moves.falls))
    assert whole._moves.falls


FORGED: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "no configuration": lambda values, arrays: values["falls"].__setitem__(0, [99, 1.0, 0.0]),
    "are no energies": lambda values, arrays: values["falls"].__setitem__(0, [0, float("nan"), 0.0]),
    "are not those of": lambda values, arrays: arrays.__setitem__("falls", arrays["falls"][:-1]),
    "of molecules": lambda values, arrays: arrays["falls"].__setitem__(0, np.inf),
    "ValueError": lambda values, arrays: values["falls"].append(3),
}


@pytest.mark.parametrize("message", list(FORGED))
def test_falls_that_are_none_are_refused(methanol: DataSet, message: str) -> None:
    fitter = Fitter(methanol, None, FitSettings(**TINY))
    fitter._moves.take([Fall(0, methanol[0].atoms.positions, 1.0, 0.5)])
    values, arrays = fitter.state()
    FORGED[message](values, arrays)
    with pytest.raises(RunDirectoryError, match=message if message != "ValueError" else "TypeError"):
        Fitter(methanol, None, FitSettings(**TINY)).restore(values, arrays)


def test_a_fit_without_dynamics_has_no_falls(methanol: DataSet) -> None:
    fitter = Fitter(methanol, None, FitSettings(**TINY, dynamics="none"))
    values, arrays = fitter.state()
    values["falls"] = [[0, 1.0, 0.5]]
    arrays["falls"] = methanol[0].atoms.positions.ravel()
    with pytest.raises(RunDirectoryError, match="no such constraints"):
        Fitter(methanol, None, FitSettings(**TINY, dynamics="none")).restore(values, arrays)
    with pytest.raises(SpecificationError, match="dynamics: expected 'auto' or 'none'"):
        FitSettings(dynamics="hot")


def test_a_whole_fit_reports_its_dynamics(tmp_path: Path, methanol: DataSet, often: None) -> None:
    result = etnpot.fit(methanol, out=tmp_path / "run", **TINY)
    assert any(record["stage"] == "dynamics" for record in result.history)
    assert " falls in 40 steps)" in (tmp_path / "run" / "fit.log").read_text()
    assert "Between the steps molecules moved at " in (tmp_path / "run" / "report.md").read_text()
    again = etnpot.fit(methanol, out=tmp_path / "run", resume=True, **TINY)
    np.testing.assert_array_equal(again.potential.parameters, result.potential.parameters)
