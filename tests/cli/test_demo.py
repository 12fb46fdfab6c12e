"""``etnpot demo``: the whole way, on a small plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import etnpot
from etnpot import cli
from etnpot.cli import demo
from etnpot.cli.demo import Trajectory


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demonstration of a few seconds."""
    plan = demo._Plan(n_train=6, n_valid=3, n_test=3, size=150, time_limit=2.0, md_cells=1, md_steps=50)
    monkeypatch.setattr(demo, "_QUICK", plan)
    monkeypatch.setattr(demo, "_MD_KELVIN", 100.0)  # so rough a potential meets no hot atoms
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore::etnpot.errors.ExtrapolationWarning")
def test_the_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--quick", "--out", "d", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for k in range(1, 5):
        assert f"[{k}/4]" in out
    assert "errors on the test set" in out and "errors on the training set" not in out
    assert "total energy stays within" in out and "etnpot evaluate d/fit/potential.etn" in out
    for name in ("fit/report.html", "fit/parity.png", "fit/learning.png", "md.png", "data/train.extxyz"):
        assert (Path("d") / name).stat().st_size > 1000
    potential = etnpot.load("d/fit/potential.etn")
    assert potential.species == (28, 29, 46, 47, 78, 79)
    metrics = json.loads(Path("d/fit/metrics.json").read_text())
    assert metrics["test"]["forces"]["n"] == 3 * 3 * 32
    assert cli.main(["demo", "--quick", "--out", "d"]) == 2
    assert "holds a finished fit" in capsys.readouterr().err


def test_the_drift_is_the_largest_deviation_of_the_total_energy() -> None:
    run = Trajectory(
        n_atoms=2,
        times=[0.0, 0.1, 0.2],
        potential=[0.0, 1.0, 2.0],
        kinetic=[4.0, 3.5, 1.8],
        kelvin=300.0,
        forces_rmse=0.01,
        wall=1.0,
        steps=10,
    )
    assert run.drift == pytest.approx(0.25)
    assert "within 250.000 meV/atom" in run.summary()
