"""``etnpot spectra``: both ways, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import etnpot
from etnpot import cli
from etnpot.potential import make_tensor_model


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A potential, both tensor models, a structure, and a trajectory that carries dipoles."""
    monkeypatch.chdir(tmp_path)
    etnpot.ETN(["H", "O"], cutoff=3.0, l_max=1, order=2, seed=2).save("p.etn")
    for name in ("dipole", "polarizability"):
        make_tensor_model(["H", "O"], name, cutoff=3.0, l_max=2, order=2, channels=2).save(f"{name}.etn")
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    write("water.xyz", water)
    frames = []
    for k in range(64):
        frame = water.copy()
        frame.positions[1, 0] += 0.05 * np.cos(0.8 * k)
        frame.calc = SinglePointCalculator(frame, dipole=[0.1 * np.cos(0.8 * k), 0.0, 0.0])
        frames.append(frame)
    write("md.extxyz", frames)
    return tmp_path


def test_harmonic(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (
        "spectra harmonic water.xyz --potential p.etn --dipole dipole.etn --polarizability polarizability.etn"
    )
    assert cli.main([*given.split(), "--fmax", "0", "--json", "out.json", "--laser", "532"]) == 0
    assert "infrared, km/mol" in capsys.readouterr().out
    assert (models / "spectra.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((models / "out.json").read_text())
    assert len(report["frequencies"]) == len(report["infrared"]) == len(report["raman"]) == 3


def test_trajectory(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = "spectra trajectory md.extxyz --timestep 1 --lag 25 --plot a.png --json out.json --correction standard"
    # the dipoles of the frames, the polarizabilities of a model
    assert cli.main([*given.split(), "--polarizability", "polarizability.etn", "--laser", "1064"]) == 0
    assert "infrared: 64 frames" in capsys.readouterr().out
    assert list(json.loads((models / "out.json").read_text())) == ["infrared", "raman"]
    assert (models / "a.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("harmonic water.xyz --dipole dipole.etn", "--potential: normal modes need a potential"),
        ("harmonic water.xyz --potential p.etn", "give --dipole, --polarizability, or both"),
        ("harmonic water.xyz --potential p.etn --dipole p.etn", "holds a potential, not a tensor model"),
        (
            "harmonic water.xyz --potential p.etn --dipole polarizability.etn",
            "expected a model of form 'vector'",
        ),
        ("trajectory md.extxyz", "--timestep: give the time"),
        ("trajectory md.extxyz --timestep 1 --lag 99", "lag: expected from"),
        ("trajectory water.xyz --timestep 1", "give a model with --dipole or --polarizability"),
        ("trajectory md.extxyz --timestep 1 --plot no/such.png", "directory does not exist"),
    ],
)
@pytest.mark.usefixtures("models")
def test_mistakes_are_named(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["spectra", *arguments.split()]) == 2
    assert message in capsys.readouterr().err
