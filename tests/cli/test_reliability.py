"""``etnpot calibrate``, ``grade`` and ``select``: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest

import etnpot
from etnpot import cli
from etnpot.potential import Potential


@pytest.fixture(scope="module")
def calibrated(data_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a random potential that has been calibrated."""
    file = tmp_path_factory.mktemp("calibrated") / "random.etn"
    etnpot.ETN(["Ni", "Cu"], cutoff=4.0, order=2, l_max=1, seed=0).save(file)
    train, valid = (str(data_files / f"{name}.extxyz") for name in ("train", "valid"))
    assert cli.main(["calibrate", str(file), "--train", train, "--valid", valid]) == 0
    return file


@pytest.fixture
def potential(calibrated: Path, in_data: Path) -> Potential:
    """The same as random.etn in the working directory."""
    shutil.copy(calibrated, "random.etn")
    return etnpot.load("random.etn")


def test_calibrate_says_what_it_found(potential: Potential, capsys: pytest.CaptureFixture[str]) -> None:
    assert potential.provenance["reliability"]["calibrated_on"] == "validation set"
    arguments = ["calibrate", "random.etn", "--train", "train.extxyz", "--valid-fraction", "0.3"]
    assert cli.main([*arguments, "--out", "other.etn"]) == 0
    assert "random.etn" not in (out := capsys.readouterr().out) and "calibrated on the validation set" in out
    other = etnpot.load("other.etn")
    np.testing.assert_array_equal(other.parameters, potential.parameters)
    assert (
        other.provenance["reliability"]["train_sha256"] != potential.provenance["reliability"]["train_sha256"]
    )


def test_grade_prints_and_writes(potential: Potential, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["grade", "random.etn", "test.extxyz", "--forces"]
    assert cli.main([*arguments, "--json", "g.json", "--write", "g.extxyz", "--worst", "2"]) == 0
    out = capsys.readouterr().out
    assert "above 1" in out and "rank correlation" in out and "within 1.96" in out
    found = json.loads(Path("g.json").read_text())
    assert len(found["configurations"]) == 3
    for atoms, one in zip(ase.io.read("g.extxyz", ":"), found["configurations"], strict=True):
        assessment = potential.assess(potential.edges(atoms), atoms.numbers)
        assert atoms.info["grade"] == pytest.approx(assessment.grade) == pytest.approx(one["grade"])
        np.testing.assert_allclose(atoms.arrays["grades"], assessment.grade_i, rtol=1e-6)
        assert atoms.arrays["forces_std"].shape == (8, 3)
        assert atoms.get_potential_energy() == pytest.approx(
            potential.evaluate(potential.edges(atoms), atoms.numbers).energy
        )


def test_grade_needs_no_labels(potential: Potential, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = ase.io.read("test.extxyz")
    atoms.calc = None
    ase.io.write("bare.extxyz", atoms)
    assert cli.main(["grade", "random.etn", "bare.extxyz", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["calibration"] == {} and "rank correlation" not in captured.err


def test_select_writes_what_it_chose(potential: Potential, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["select", "random.etn", "test.extxyz", "valid.extxyz", "--n", "4"]
    assert cli.main([*arguments, "--out", "s.extxyz", "--json", "s.json"]) == 0
    assert "4 of 6 configurations chosen" in capsys.readouterr().out
    choices = json.loads(Path("s.json").read_text())["choices"]
    pool = [*ase.io.read("test.extxyz", ":"), *ase.io.read("valid.extxyz", ":")]
    for choice, atoms in zip(choices, ase.io.read("s.extxyz", ":"), strict=True):
        np.testing.assert_allclose(atoms.positions, pool[choice["index"]].positions, atol=1e-7)
        assert atoms.calc is None and "config_type" in atoms.info


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grade", "plain.etn", "test.extxyz"], "etnpot calibrate"),
        (["select", "plain.etn", "test.extxyz", "--n", "1"], "etnpot calibrate"),
        (["select", "random.etn", "test.extxyz", "--n", "0"], "positive number"),
        (["grade", "random.etn", "silver.extxyz"], "species 47 (Ag)"),
        (["grade", "random.etn", "test.extxyz", "--write", "no/where.extxyz"], "directory does not exist"),
        (["calibrate", "random.etn", "--train", "train.extxyz", "--valid-fraction", "1.5"], "from 0 to 1"),
        (["calibrate", "random.etn", "--train", "silver.extxyz"], "species 47 (Ag)"),
        (["calibrate", "random.etn", "--train", "train.extxyz", "--threads", "0"], "positive integer"),
    ],
)
def test_what_is_wrong_is_told(
    potential: Potential, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    etnpot.ETN(["Ni", "Cu"], cutoff=4.0, order=2, l_max=1, seed=0).save("plain.etn")
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err
