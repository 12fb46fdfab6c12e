"""Runs of a study: figures, failures, resumption, report."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.eos import EquationOfState
from ase.io import read, write
from ase.units import GPa

import etnpot
from etnpot.cli import main
from etnpot.compare.adapters.base import Job
from etnpot.compare.adapters.nequip import NequIP
from etnpot.compare.properties import all_properties, crystal
from etnpot.compare.results import Spread, StudyResult
from etnpot.fitting.evaluation import evaluate

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_figures_are_those_of_the_potential(finished: StudyResult) -> None:
    """The errors of the study are those that etnpot's own evaluation finds."""
    (record,) = finished.seeds_of("cuni", "etnpot tiny")
    where = finished.out / "runs" / "cuni"
    (potential,) = where.glob("etnpot-tiny-*/12-seed-3/potential.etn")
    own = evaluate(etnpot.load(potential), finished.data["cuni"].tests["same"], threads=1)
    for quantity in ("energy", "forces", "stress"):
        assert record["metrics"]["same"][quantity]["rmse"] == pytest.approx(
            getattr(own, quantity).rmse, rel=1e-9
        )
    assert record["train"]["n_parameters"] == etnpot.load(potential).n_parameters
    assert record["n_train"] + record["n_valid"] == 12
    assert 0 < record["evaluation"]["us_per_atom"] < 1e5 and record["train"]["memory_mb"] > 50
    systems = record["metrics"]["same"]["by_composition"]
    assert sum(entry["n_configurations"] for entry in systems.values()) == 6


@pytest.mark.slow
def test_the_calculator_of_the_labels_has_no_error(finished: StudyResult) -> None:
    (record,) = finished.seeds_of("cuni", "EMT")
    assert record["metrics"]["same"]["forces"]["max"] < 1e-12
    assert record["metrics"]["same"]["stress"]["n"] == 36


@pytest.mark.slow
def test_a_failure_is_recorded_and_loses_nothing_else(finished: StudyResult) -> None:
    (record,) = finished.failures
    assert record["model"] == "broken" and "Nothing" in record["error"]
    page = (finished.out / "report.html").read_text()
    assert "Without figures" in page and "Nothing" in page


@pytest.mark.slow
def test_no_test_configuration_is_handed_to_a_training(finished: StudyResult) -> None:
    (job,) = (finished.out / "runs").glob("cuni/etnpot-tiny-*/12-seed-3/train-job.json")
    sets = json.loads(job.read_text())["sets"]
    assert set(sets) == {"train", "valid"}
    handed = {atoms.positions.tobytes() for path in sets.values() for atoms in read(path, index=":")}
    assert len(handed) == 12
    assert not handed & {c.atoms.positions.tobytes() for c in finished.data["cuni"].tests["same"]}


@pytest.mark.slow
def test_the_report_needs_no_other_file(finished: StudyResult) -> None:
    page = (finished.out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for text in ("etnpot tiny", "µs/atom", "Properties of crystals", "Errors by composition", "C₁₁"):
        assert text in page


@pytest.mark.slow
def test_csv_and_json_hold_every_run(finished: StudyResult) -> None:
    rows = list(csv.DictReader((finished.out / "results.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == ["EMT", "broken", "etnpot tiny"]
    stored = json.loads((finished.out / "results.json").read_text())
    own = stored["runs"][2]["metrics"]["same"]["energy"]["rmse"]
    assert float(rows[2]["energy_rmse (meV/atom)"]) == pytest.approx(1e3 * own, rel=1e-5)
    assert rows[1]["error"] and not rows[1]["energy_rmse (meV/atom)"]


@pytest.mark.slow
def test_what_is_done_is_not_repeated_and_the_report_is_the_same(
    finished: StudyResult, study: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [finished.out / name for name in ("report.html", "results.csv")]
    before = [path.read_bytes() for path in files]
    stamps = {p: p.stat().st_mtime_ns for p in (finished.out / "runs").glob("cuni/[eE]*/*/result.json")}
    assert len(stamps) == 2
    etnpot.compare(study, finished.out)
    assert [path.read_bytes() for path in files] == before
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


@pytest.mark.slow
def test_other_settings_make_another_run(
    finished: StudyResult, study: dict[str, Any], tmp_path: Path
) -> None:
    study["models"][0]["settings"]["size"] = 130
    again = etnpot.compare(study, finished.out, report_only=True)
    assert [r["error"] for r in again.records if r["model"] == "etnpot tiny"] == ["not yet run"]
    etnpot.compare({**study, "models": study["models"][1:2]}, tmp_path / "only", report_only=True)
    text = (tmp_path / "only" / "report.html").read_text()
    assert "not yet run" in text


@pytest.mark.slow
def test_properties_are_those_of_other_programs(finished: StudyResult) -> None:
    """Lattice constant and bulk modulus against ASE's equation of state; B = (C11 + 2 C12) / 3; EMT's own references."""
    (record,) = finished.seeds_of("cuni", "EMT")
    copper = record["properties"]["Cu"]
    volumes, energies = [], []
    for a in np.linspace(3.53, 3.65, 9):
        atoms = crystal("fcc", ["Cu"], a)
        atoms.calc = EMT()
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    v0, e0, bulk_modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    assert copper["a"] == pytest.approx(v0 ** (1 / 3), abs=2e-4)
    assert 4 * copper["E0"] == pytest.approx(e0, abs=1e-5)
    assert copper["B"] == pytest.approx(bulk_modulus / GPa, rel=0.01)
    assert copper["B"] == pytest.approx((copper["C11"] + 2 * copper["C12"]) / 3, rel=0.005)
    nickel, alloy = record["properties"]["Ni"], record["properties"]["Cu3Ni"]
    assert alloy["formation"] == pytest.approx(alloy["E0"] - 0.75 * copper["E0"] - 0.25 * nickel["E0"])
    assert "Au" not in record["properties"]


@pytest.mark.slow
def test_given_values_stand_before_those_of_the_reference(
    finished: StudyResult, study: dict[str, Any]
) -> None:
    """They need no other run; without a reference the reference is a model like others."""
    crystal = study["properties"]["crystals"][0]
    crystal.update(values={"C11": 150.0, "vacancy": 1.1}, source="a book")
    given = etnpot.compare(study, finished.out, report_only=True)
    (record,) = given.seeds_of("cuni", "EMT")
    copper = given.references("cuni")["Cu"]
    assert (copper["C11"], copper["vacancy"]) == (150.0, 1.1)
    assert copper["C12"] == record["properties"]["Cu"]["C12"]
    page = (finished.out / "report.html").read_text()
    assert "given values of Cu: a book" in page and ">given</td>" in page
    del study["properties"]["reference"]
    alone = etnpot.compare(study, finished.out, report_only=True)
    assert alone.references("cuni")["Cu"] == {"C11": 150.0, "vacancy": 1.1}
    assert alone.references("cuni")["Ni"] == {}
    etnpot.compare(
        {**study, "properties": {**study["properties"], "reference": "EMT"}}, finished.out, report_only=True
    )


def test_a_vacancy_and_phonons_of_emt() -> None:
    found = all_properties(
        EMT(),
        crystals=[{"name": "Al", "lattice": "fcc", "symbols": ["Al"], "a": 4.0}],
        compute=["vacancy", "phonons"],
    )["Al"]
    atoms = crystal("fcc", ["Al"], found["a"]) * (3, 3, 3)
    del atoms[5]
    atoms.calc = EMT()
    unrelaxed = atoms.get_potential_energy() - 107 * found["E0"]
    assert 0.3 < found["vacancy"] < unrelaxed
    # two force constants of the plane along [111]: the frequency of L from one displaced plane
    assert 3 < found["phonon L"] < 15 and 3 < found["phonon X"] < 15


def test_a_property_that_cannot_be_says_why() -> None:
    found = all_properties(
        EMT(), crystals=[{"name": "Fe", "lattice": "bcc", "symbols": ["Fe"], "a": 2.9}], compute=["bulk"]
    )
    assert "not computed" in found["Fe"]["a"]


def test_many_systems_are_put_together_by_their_number_of_elements() -> None:
    from etnpot.compare.results import MOST_SYSTEMS, metrics_of
    from etnpot.fitting.demo_data import emt_alloys

    test = emt_alloys(60, seed=1, repeat=(1, 1, 1))
    arrays = {
        "energy": np.array([c.energy for c in test]) + 0.004,
        "forces": np.concatenate([c.forces for c in test]),
        "stress": np.full((60, 6), np.nan),
    }
    found = metrics_of(test, arrays)
    names = list(found["by_composition"])
    assert 2 < len(names) <= MOST_SYSTEMS and "1 element" in names and "3 elements" in names
    assert sum(entry["n_configurations"] for entry in found["by_composition"].values()) == 60
    assert found["energy"]["rmse"] == pytest.approx(0.001) and found["stress"]["n"] == 0
    few = metrics_of(test[:4], {k: v[: 4 if k != "forces" else 16] for k, v in arrays.items()})
    assert any("-" in name or name.isalpha() for name in few["by_composition"])


def test_a_molecule_is_timed_without_a_stress() -> None:
    """Calculators that have no stress for it are timed all the same; a crystal's stress is part of the time."""
    from ase.build import molecule

    from etnpot.compare.timing import calculator_call

    class Free(EMT):  # type: ignore[misc]
        def get_stress(self, atoms: Any = None) -> Any:
            raise RuntimeError("no volume")

    calculator_call(molecule("CO"), Free())()
    with pytest.raises(RuntimeError, match="no volume"):
        calculator_call(crystal("fcc", ["Cu"], 3.6), Free())()


def test_means_and_spreads() -> None:
    spread = Spread.of([1.0, None, 3.0, float("nan")])
    assert spread == Spread(2.0, pytest.approx(2**0.5), 2)
    assert Spread.of([1.5]) == Spread(1.5, None, 1)
    assert Spread.of([None]) is None
    assert spread is not None and spread.text() == "2 ± 1.4"


@pytest.mark.slow
def test_two_studies_cannot_share_a_directory(finished: StudyResult, study: dict[str, Any]) -> None:
    from etnpot.errors import RunDirectoryError
    from etnpot.fitting.checkpoint import locked

    with locked(finished.out / ".lock"), pytest.raises(RunDirectoryError, match="a study is running in"):
        etnpot.compare(study, finished.out, report_only=True)


@pytest.mark.slow
def test_an_interrupted_study_goes_on(finished: StudyResult, study: dict[str, Any], tmp_path: Path) -> None:
    """SIGINT in the middle of a training ends command and worker; the same command then trains to the same bits."""
    import yaml

    study["models"] = study["models"][:1]
    del study["properties"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "etnpot", "compare", "study.yaml", "--out", "one"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)
    pattern = "one/runs/cuni/*/*/fit/history.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not list(tmp_path.glob(pattern)):
        time.sleep(0.05)
    worker = int(next(tmp_path.glob("one/runs/cuni/*/*/fit/.lock")).read_text().split()[1])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "To continue: etnpot compare study.yaml --out one" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert not list(tmp_path.glob("one/runs/cuni/*/*/result.json"))
    one = etnpot.compare(study, tmp_path / "one")
    assert not one.failures
    assert one.records[0]["metrics"] == finished.seeds_of("cuni", "etnpot tiny")[0]["metrics"]


@pytest.mark.slow
def test_the_command(
    finished: StudyResult, study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    assert main(["compare", str(path), "--out", str(finished.out), "--report-only"]) == 0
    shown = capsys.readouterr().out
    assert "etnpot tiny" in shown and "without figures:" in shown and "report.html" in shown
    assert main(["compare", "--example"]) == 0
    assert "models:" in capsys.readouterr().out
    assert main(["compare", "--models"]) == 0
    assert "calculator" in capsys.readouterr().out
    assert main(["compare"]) == 2
    assert "--example" in capsys.readouterr().err
    assert main(["compare", "--install", "nequipp"]) == 2
    assert "unknown nequipp" in capsys.readouterr().err


def test_nequip_is_given_a_cell_where_a_structure_has_none(tmp_path: Path) -> None:
    """Its check of the compiled model divides the stress by the volume."""
    labels = {"energy": -1.0, "forces": np.zeros((2, 3))}
    frames = [
        Atoms("H2", [(0, 0, 0), (0, 0, 0.8)]),
        Atoms("H2", [(0, 0, 0), (0, 0, 0.8)], cell=[3, 4, 5], pbc=True),
        Atoms("H2", [(0, 0, 0), (0, 0, 0.8)], cell=[3, 0, 0], pbc=[True, False, False]),
    ]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    write(tmp_path / "set.traj", frames)
    job = Job(tmp_path, {"train": str(tmp_path / "set.traj")}, {}, ["H"])
    NequIP()._write(job, "train", stress=False)
    molecule, crystal, chain = read(tmp_path / "train.extxyz", index=":")
    assert molecule.cell.volume > 1e5 and not molecule.pbc.any()
    assert np.allclose(crystal.cell.lengths(), [3, 4, 5])
    assert (
        chain.cell.volume > 1e4 and chain.cell.lengths()[0] == 3 and list(chain.pbc) == [True, False, False]
    )
