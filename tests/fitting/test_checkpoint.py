"""Checkpoints: the same bits after a stop, nothing overwritten unasked, one fit per directory."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etnpot
from etnpot.errors import DataError, PotentialFileError, RunDirectoryError, SpecificationError
from etnpot.fitting import report, samples
from etnpot.fitting.checkpoint import OUTPUTS, RunDirectory, read_checkpoint, write_checkpoint
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys
from etnpot.fitting.fit import FitResult, fit
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.settings import FitSettings

Tiny = dict[str, Any]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take longer than these fits; tests/fitting/test_fit.py looks at them."""
    monkeypatch.setattr(report, "write_report", lambda *_: None)


class Stop(Exception):
    """Ends a fit from its callback, as Ctrl-C does."""


def stopped(after: int, data: DataSet, out: Path, **settings: Any) -> None:
    def callback(record: dict[str, Any]) -> None:
        if record["step"] == after:
            raise Stop

    with pytest.raises(Stop):
        fit(data, out=out, callback=callback, **settings)


def same_bits(a: FitResult | Fitter, b: FitResult | Fitter) -> None:
    assert a.potential.spec == b.potential.spec
    np.testing.assert_array_equal(a.potential.parameters, b.potential.parameters)

    def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in record.items() if key != "seconds"} for record in history]

    assert timeless(a.history) == timeless(b.history)


# --------------------------------------------------------------------------------------------- stop and go on

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two sweeps, enriched": {"sweeps": 2, "enrichment": 1, "polish_steps": 2},
    "two-site": {"sweeps": 2, "two_site": True, "polish_steps": 2},
    "growth": {"order": 3, "polish_steps": 1},
    "l-bfgs, robust": {"method": "l-bfgs", "robust": 3.0, "polish_steps": 2},
    # so many rows that the first steps see a part of them, and ranks that adapt
    "samples": {"species_rank": 1, "sweeps": 2, "two_site": True, "rank_tolerance": 0.05, "polish_steps": 3},
}


LONG = ("two-site", "l-bfgs, robust", "samples", "two sweeps, enriched")


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in VARIANTS]
)
def test_a_fit_stopped_anywhere_ends_with_the_same_bits(
    alloys: DataSet, tiny: Tiny, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FitSettings(**tiny | VARIANTS[variant])
    train, valid = alloys[:10], alloys[10:]
    if variant == "samples":
        monkeypatch.setattr(samples, "_LARGEST_SAMPLE", 0.6)
        train = emt_alloys(36, symbols=("Cu",), seed=4, repeat=(1, 1, 2))
        valid = train[::8]
    whole = Fitter(train, valid, settings)
    n_parameters = {whole.potential.n_parameters}
    path = tmp_path / "checkpoint"
    states = []
    while not whole.finished:
        n_parameters.add(whole.step()["n_parameters"])
        write_checkpoint(path, *whole.state())
        states.append(path.read_bytes())
    if variant == "samples":
        assert any(record.get("sample", 1.0) < 1.0 for record in whole.history)
        assert len(n_parameters) > 1
    for state in states:
        path.write_bytes(state)
        restored = Fitter(train, valid, settings)
        restored.restore(*read_checkpoint(path))
        restored.run()
        same_bits(restored, whole)
        np.testing.assert_array_equal(restored.best.parameters, whole.best.parameters)
        assert restored.reason == whole.reason


def test_a_stopped_fit_keeps_the_last_step_and_goes_on(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(3, alloys, out, **tiny)
    assert json.loads((out / "history.jsonl").read_text().splitlines()[-1])["step"] == 3
    assert not (out / "finished.json").exists() and not (out / ".lock").exists()
    same_bits(fit(alloys, out=out, resume=True, **tiny), fit(alloys, **tiny))


def test_wider_limits_let_a_finished_fit_go_on(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    whole = fit(alloys, **tiny)
    first = fit(alloys, out=tmp_path / "run", **tiny | {"polish_steps": 2})
    assert (tmp_path / "run" / "finished.json").exists() and len(first.history) == 5
    again = fit(alloys, out=tmp_path / "run", resume=True, **tiny | {"polish_steps": 2})
    same_bits(again, first)
    same_bits(fit(alloys, out=tmp_path / "run", resume=True, **tiny), whole)


def test_the_wrong_continuation_is_refused_and_harms_nothing(
    alloys: DataSet, tiny: Tiny, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stopped(2, alloys, out, **tiny)
    before = (out / "checkpoint.etnfit").read_bytes()
    with pytest.raises(SpecificationError, match=r"other settings of .*cutoff"):
        fit(alloys, out=out, resume=True, **tiny | {"cutoff": 3.7})
    with pytest.raises(DataError, match="another training set"):
        fit(alloys[1:], out=out, resume=True, **tiny)
    assert (out / "checkpoint.etnfit").read_bytes() == before


def test_a_torn_history_is_mended(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    # a kill between the checkpoint and its line, or in the middle of the line
    out = tmp_path / "run"
    stopped(3, alloys, out, **tiny)
    text = (out / "history.jsonl").read_text()
    (out / "history.jsonl").write_text(text[: len(text) - 40])
    result = fit(alloys, out=out, resume=True, **tiny)
    lines = (out / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, len(result.history) + 1))


def test_the_best_potential_is_usable_before_the_end(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    stopped(3, alloys, tmp_path / "run", **tiny)
    potential = etnpot.load(tmp_path / "run" / "potential.etn")
    assert potential.provenance["finished"] is False and potential.provenance["errors"] == {}


KILLED = """
import sys
from etnpot.fitting.demo_data import emt_alloys
from etnpot.fitting.fit import fit
fit(emt_alloys(12, symbols=("Ni", "Cu"), seed=1, repeat=(1, 1, 2)), out=sys.argv[1], **eval(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_kill_9_loses_at_most_a_step(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    settings = tiny | {"polish_steps": 15, "patience": 100, "tolerance": 0.0}
    out = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path(etnpot.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out), repr(settings)], env=environment)
    history = out / "history.jsonl"
    deadline = time.monotonic() + 90
    while not (history.exists() and history.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    with pytest.raises(RunDirectoryError, match=rf"a fit is running in .*process {process.pid}"):
        fit(alloys, out=out, resume=True, **settings)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shown = history.read_text().count("\n")
    values, _ = read_checkpoint(out / "checkpoint.etnfit")
    assert len(values["history"]) in (shown, shown + 1)
    assert not (out / "finished.json").exists(), "the test must kill a fit that runs"
    same_bits(fit(alloys, out=out, resume=True, **settings), fit(alloys, **settings))


# ---------------------------------------------------------------------------------------------- the container


def test_a_checkpoint_keeps_every_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    values = {"a": [1, 2.5, None, True], "b": {"x": float("inf")}, "quoted": '"sha256":"00"', "ä": "ö"}
    arrays = {"parameters": rng.standard_normal(7), "empty": np.zeros(0)}
    path = tmp_path / "c"
    write_checkpoint(path, values, arrays)
    found, found_arrays = read_checkpoint(path)
    assert found == values
    for name, array in arrays.items():
        np.testing.assert_array_equal(found_arrays[name], array)
        assert found_arrays[name].dtype == np.float64


def test_every_damaged_byte_is_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "c"
    write_checkpoint(path, {"history": []}, {"parameters": rng.standard_normal(3)})
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(RunDirectoryError, match="begin anew"):
            read_checkpoint(path)
    for length in (0, 4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(RunDirectoryError, match="begin anew"):
            read_checkpoint(path)


# ---------------------------------------------------------------------------------------- the rules, the lock


def filled(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text("x")
    return path


@pytest.mark.parametrize(
    ("held", "plain", "resume"),
    [
        ((), None, None),
        (("notes.txt",), None, None),
        (("config.yaml", "fit.log"), None, None),  # stopped before its first step
        (("checkpoint.etnfit", "history.jsonl"), "unfinished fit; continue it with --resume", None),
        (("checkpoint.etnfit", "finished.json"), "holds a finished fit", None),
        (("potential.etn",), "holds potential.etn, but no fit to continue", "no fit to continue"),
    ],
)
def test_rules_of_the_directory(
    tmp_path: Path, held: tuple[str, ...], plain: str | None, resume: str | None
) -> None:
    path = filled(tmp_path / "run", *held)
    for options, refusal in (({}, plain), ({"resume": True}, resume)):
        if refusal is None:
            RunDirectory(path, **options).close()
        else:
            with pytest.raises(RunDirectoryError, match=refusal):
                RunDirectory(path, **options)
    with RunDirectory(path, force=True) as run:
        assert {p.name for p in path.iterdir()} == {*held, ".lock"}, (
            "nothing is removed before the fit begins"
        )
        run.log("before")
        run.begin()
        run.log("after")
        left = {p.name for p in path.iterdir()}
    assert left == {name for name in held if name not in OUTPUTS} | {".lock", "fit.log"}
    assert [line.split("  ")[1] for line in (path / "fit.log").read_text().splitlines()] == [
        "before",
        "after",
    ]
    assert not (path / ".lock").exists()


def test_one_fit_per_directory(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        for options in ({}, {"resume": True}, {"force": True}):
            with pytest.raises(RunDirectoryError, match=rf"a fit is running in .*process {os.getpid()}"):
                RunDirectory(tmp_path / "run", **options)
    RunDirectory(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["under a file", "is a file"])
def test_a_place_that_cannot_be_written(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "run" if kind == "under a file" else tmp_path / "file"
    with pytest.raises(RunDirectoryError, match="name a directory that can be written"):
        RunDirectory(path)


def test_a_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        RunDirectoryError, match="Read-only file system; name a directory that can be written"
    ):
        RunDirectory(tmp_path / "run")


# -------------------------------------------------------------------------------- forged states, no room, leftovers


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("progress", "mu"), "x"),
        (("progress", "sweep_at"), -1),
        (("progress", "level"), 0.0),
        (("progress", "sweep_at"), 10**30),
        (("progress", "sample_sizes"), [0, 0]),
        (("progress", "finished"), 1),
        (("progress",), []),
        (("history",), {"a": 1}),
        (("history",), [1]),
        (("spec", "species"), [28, 30]),
        (("spec", "radial", "cutoff"), 1e9),
        (("spec", "bonds"), [{"0e": 10**12}, {"0e": 1}]),
        (("best_spec",), None),
        (("settings",), 3),
    ],
)
def test_a_forged_state_is_refused_and_changes_nothing(
    alloys: DataSet, tiny: Tiny, where: tuple[str, ...], value: Any
) -> None:
    # a digest guards against accidents; whoever can write the file can compute it
    fitter = Fitter(alloys[:10], alloys[10:], FitSettings(**tiny))
    fitter.step()
    values, arrays = fitter.state()
    values = json.loads(json.dumps(values))
    part = values
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    before = fitter.potential
    with pytest.raises(RunDirectoryError, match="begin anew"):
        fitter.restore(values, arrays)
    assert fitter.potential is before


def test_no_room_is_said_and_the_fit_goes_on_when_there_is(
    alloys: DataSet, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    written = []
    real = os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        (RunDirectoryError, PotentialFileError), match=r"No space left on device; (make|the path)"
    ):
        fit(alloys, out=out, **tiny)
    monkeypatch.setattr(os, "fsync", real)
    assert not (out / ".lock").exists()
    same_bits(fit(alloys, out=out, resume=True, **tiny), fit(alloys, **tiny))


def test_what_a_kill_leaves_of_a_file_is_removed(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(2, alloys, out, **tiny)
    for name in (".checkpoint.etnfit.0123456789abcdef.tmp", ".notes.0123.tmp"):
        (out / name).write_text("half")
    fit(alloys, out=out, resume=True, **tiny)
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".notes.0123.tmp"]
