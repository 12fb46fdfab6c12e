"""``etnpot fit-property`` and ``etnpot info`` on what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

import etnpot
from etnpot import cli
from etnpot.cli import fit_property

SMALL = [
    "--cutoff",
    "3",
    "--order",
    "2",
    "--l-max",
    "1",
    "--radial-size",
    "3",
    "--ranks",
    "{0e: 2, 1o: 2}",
    "--polish-steps",
    "2",
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Path:
    """Water-like molecules with the dipole of fixed charges, in debye."""
    monkeypatch.chdir(tmp_path)
    frames = []
    for _ in range(30):
        atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
        atoms.info["mu_debye"] = np.array([-0.6, 0.3, 0.3]) @ atoms.positions * 4.8032
        frames.append(atoms)
    write("data.extxyz", frames)
    return tmp_path


def test_fit_and_info(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "fit-property",
        "dipole",
        "data.extxyz",
        "--charges",
        "--key",
        "mu_debye",
        "--unit",
        "debye",
        "--json",
        "out.json",
    ]
    assert cli.main([*given, *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "RMSE, % of spread" in printed and "dipole.etn" in printed
    report = json.loads((data / "out.json").read_text())
    # the offsets alone are the charges: what is left is the rounding of the file
    assert report["metrics"]["valid"]["rmse"] < 1e-4
    model = etnpot.load_tensor(data / "dipole.etn")
    assert model.quantity.charges and model.spec.order == 2
    assert cli.main(["info", "dipole.etn"]) == 0
    assert "equivariant tensor network of dipole" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dipole", "data.extxyz"], "none of 30 configurations has a dipole"),
        (["dipole", "data.extxyz", "--per-atom"], "--per-atom goes with --form"),
        (["dipole", "data.extxyz", "--key", "mu_debye", "--out", "no/such.etn"], "directory does not exist"),
        (["dipole", "none.extxyz"], "does not exist"),
        (["mu", "data.extxyz", "--form", "arrow"], "form: expected one of"),
        (
            ["dipole", "data.extxyz", "--key", "mu_debye", "--polish-steps", "many"],
            "polish_steps: expected an integer",
        ),
    ],
)
def test_mistakes_are_named(
    data: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fit-property", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_interrupted_fit_goes_on(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["fit-property", "dipole", "data.extxyz", "--charges", "--key", "mu_debye", "--unit", "debye"]
    line = fit_property._line

    def interrupted(record: dict[str, Any]) -> str:
        if record["step"] == 2:
            raise KeyboardInterrupt
        return line(record)

    with monkeypatch.context() as patch:
        patch.setattr(fit_property, "_line", interrupted)
        assert cli.main([*given, *SMALL]) == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert cli.main([*given, *SMALL]) == 2
    assert "--resume" in capsys.readouterr().err
    assert not (data / "dipole.etn").exists()
    assert cli.main([*given, *SMALL, "--resume"]) == 0
    assert capsys.readouterr().out.startswith("   3  ")
    assert sorted(path.name for path in data.iterdir()) == ["data.extxyz", "dipole.etn"]
