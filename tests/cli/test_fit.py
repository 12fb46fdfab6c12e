"""``etnpot fit``: settings and their mistakes, what is shown, what a second run may do, Ctrl-C."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etnpot
from etnpot import cli
from etnpot.cli.config import check_config, parse_value, read_yaml
from etnpot.cli.fit import _Stop, read_config
from etnpot.cli.options import DataSettings, example, flag, options
from etnpot.cli.progress import COLUMNS, LiveProgress, PlainProgress, clock, progress_display
from etnpot.errors import DataError, SpecificationError
from etnpot.fitting import report
from etnpot.fitting.settings import FitSettings

TINY = (
    "--cutoff 3.6 --order 2 --l-max 1 --radial-size 4 --channels 2,2 --ranks 2 --species-rank 2 "
    "--polish-steps 2 --threads 1"
).split()


def fit(*arguments: str) -> int:
    return cli.main(["fit", *arguments])


# ----------------------------------------------------------------------------------------------- the settings


def test_every_setting_is_a_key_a_flag_and_a_line_of_the_example() -> None:
    names = {field.name for cls in (DataSettings, FitSettings) for field in fields(cls)}
    assert {option.name for option in options()} == names
    assert [option.name for option in options() if not option.help] == [], (
        "a setting without a word of explanation"
    )
    text = example()
    parser = cli.build_parser()
    arguments = parser.parse_args(["fit"])
    assert arguments.run.__module__ == "etnpot.cli.fit"
    for name in names:
        assert f"\n{name}: " in text or f"\n# {name}: " in text
        assert flag(name) in parser._known_options()


def test_the_example_is_a_configuration_with_the_defaults(
    in_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--example") == 0
    text = capsys.readouterr().out
    Path("a.yaml").write_text(text)
    config = check_config(*read_yaml("a.yaml"))
    assert config.settings == FitSettings() and config.data == DataSettings(train="train.extxyz")
    # also with every line active
    lines = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if ": " in line and ("_" in line or line[0] != "#")
    ]
    active = [line for line in lines if line.split(":")[0] in {option.name for option in options()}]
    Path("b.yaml").write_text("\n".join(active))
    assert check_config(*read_yaml("b.yaml")).settings == FitSettings()


def test_help_shows_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fit("--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(flag(option.name) in out for option in options())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2000", 2000),
        ("007", 7),
        (".5", 0.5),
        ("medium", "medium"),
        ("6,5,4", [6, 5, 4]),
        ("[6, 5]", [6, 5]),
        ("{0e: 4, 1o: 3}", {"0e": 4, "1o": 3}),
        ("Nb,Mo", ["Nb", "Mo"]),
        ("No", "No"),  # nobelium, not false
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("12:30:15", "12:30:15"),
        ("{a", "{a"),
    ],
)
def test_values_of_flags(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def config_of(*arguments: str) -> Any:
    return read_config(cli.build_parser().parse_args(["fit", *arguments]))


def test_flags_win_over_the_file(in_data: Path) -> None:
    Path("c.yaml").write_text(
        "train: [train.extxyz]\ncutoff: 4.5\nranks: {0e: 3, 1o: 2}\nembedding: [2, 3]\n" + "ridge: 1e-6\n"
    )
    config = config_of("c.yaml", "--cutoff", "4", "--two-site", "--type-map", "Ni,Cu", "--index", "::2")
    settings = config.settings
    assert settings.cutoff == 4 and settings.ranks == {"0e": 3, "1o": 2} and settings.embedding == (2, 3)
    assert settings.ridge == 1e-6 and settings.two_site is True
    assert config.data.reading["species"] == ["Ni", "Cu"] and config.data.reading["index"] == "::2"
    assert config.places["cutoff"] == "--cutoff" and config.places["ridge"] == "c.yaml, line 5"
    assert config_of("c.yaml", "--size", "2000").settings.size == 2000


def test_a_configuration_survives_being_written(in_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(
        "--train", "train.extxyz", "test.extxyz", "--valid", "valid.extxyz", "--ranks", "{0e: 3, 1o: 2}",
        "--reference-energies", "{Ni: 0.1, Cu: 0.2}", "--embedding", "2,2", "--no-pseudotensors",
        "--species", "Ni,Cu",
    )  # fmt: skip
    Path("used.yaml").write_text(config.to_yaml())
    (in_data / "elsewhere").mkdir()
    monkeypatch.chdir(in_data / "elsewhere")
    again = config_of("../used.yaml")
    assert again.settings == config.settings
    assert again.data.files()["train"] == [in_data / "train.extxyz", in_data / "test.extxyz"]


# --------------------------------------------------------------------------------------------- their mistakes

BAD_FILES = {
    "train: trian.extxyz": "line 1: train: the file trian.extxyz does not exist; did you mean train.extxyz?",
    "train: train.extxyz\ncutof: 5": "c.yaml, line 2: cutof: no such setting; did you mean 'cutoff'?",
    "train: train.extxyz\nxyzzy: 5": "c.yaml, line 2: xyzzy: no such setting; 'etnpot fit --example' lists",
    "train: train.extxyz\n\npolish_steps: many": "line 3: polish_steps: expected an integer, got 'many'",
    "train: train.extxyz\nsweeps: 1.5": "line 2: sweeps: expected an integer, got 1.5",
    "train: train.extxyz\nsweeps: -1": "line 2: sweeps: expected an integer that is not negative, got -1",
    "train: train.extxyz\ntwo_site: yes": "line 2: two_site: expected true or false, got 'yes'",
    "train: train.extxyz\ncutoff: true": "line 2: cutoff: expected a number, got True",
    "train: train.extxyz\ncutoff: '5'": "line 2: cutoff: expected a number, got '5'",
    "train: train.extxyz\ncutoff: -5": "line 2: cutoff must be positive",
    "train: train.extxyz\nchannels: [2, x]": "expected an integer or a list of integers, got [2, 'x']",
    "train: train.extxyz\nembedding: [2]": "embedding: expected a list of 2 values",
    "train: train.extxyz\nsize: mediun": "line 2: size: expected 'auto', 'small', 'medium', 'large'",
    "train: train.extxyz\nl_max: 3\nchannels: [2, 2]": "line 3: channels: expected 4 positive integers",
    "train: train.extxyz\nstress_key: a\nvirial_key: b": "line 3: virial_key: stress_key is given as well",
    "train: train.extxyz\nforces_key: nope": "forces_key='nope' is in no configuration",
    "train: train.extxyz\nvalid: silver.extxyz": "lacks: Ag (first in silver.extxyz, frame 0)",
    "train: train.extxyz\nspecies: [Ni]": "line 2: species: the training set holds Cu",
    "train: [1]": "train: expected text or a list of texts, got [1]",
    "train: .": "train: the file . is a directory",
    "train: no/such/file.xyz": "neither does its directory no/such",
    "cutoff: 5": "train: no training set",
    "": "train: no training set",
    "- a\n- b": "c.yaml: expected lines such as 'train: data.extxyz', got a list",
    "train: a\n  b: [": "c.yaml, line 2, column 4: this is not YAML",
    "train: a\ntrain: b": "c.yaml, line 2: train was given before, in c.yaml, line 1",
    "1: 2": "c.yaml, line 1: expected the name of a setting, got 1",
}


@pytest.mark.parametrize("content", BAD_FILES)
def test_a_bad_configuration_is_named_by_line(
    in_data: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Path("c.yaml").write_text(content)
    assert fit("c.yaml") == 2
    out, err = capsys.readouterr()
    assert BAD_FILES[content] in err and err.startswith("etnpot: error: ") and err.count("\n") == 1
    assert out == "" and not Path("fit").exists()


def test_all_mistakes_are_shown_at_once(in_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text("cutof: 5\ntrain: trian.extxyz\npatience: 1.5\nvalid_fraction: 3\n")
    assert fit("c.yaml", "--alpha", "x") == 2
    lines = capsys.readouterr().err.splitlines()
    places = [line.removeprefix("etnpot: error: ").split(":")[0] for line in lines]
    assert places == ["c.yaml, line 1", "c.yaml, line 2", "c.yaml, line 3", "c.yaml, line 4", "--alpha"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no data: give a configuration file"),
        (["nowhere.yaml"], "nowhere.yaml does not exist; 'etnpot fit --example > nowhere.yaml' makes one"),
        (["--train", "train.extxyz", "c.yaml"], "c.yaml looks like a configuration file"),
        (["--train", "train.extxyz", "--cutoff", "wide"], "--cutoff: expected a number, got 'wide'"),
        (["--train", "train.extxyz", "--resume", "--force"], "give one of them"),
        (["--train", "train.extxyz", "--out", "train.extxyz"], "cannot write to the directory train.extxyz"),
        (["--resume", "--out", "nowhere"], "there is no fit to continue in nowhere"),
    ],
)
def test_bad_arguments(
    in_data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert fit(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_mistyped_flag_comes_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fit("--train", "a", "--cutof", "3")
    assert caught.value.code == 2 and "did you mean --cutoff?" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ a whole fit


def test_a_fit_from_the_command_line(
    in_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "--train",
        "train.extxyz",
        "--valid",
        "valid.extxyz",
        "--test",
        "test.extxyz",
        "--out",
        "run",
        *TINY,
    ]
    assert fit(*arguments) == 0
    out = capsys.readouterr().out
    # the data come first, then a line per step, then the errors
    assert out.index("force components") < out.index("step stage") < out.index("errors on the test set")
    assert out.count("\n   ") >= 4 and "polish steps (5 steps" in out
    run = Path("run")
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['test']['forces']['rmse']:.3g}"[:4] in out
    log = (run / "fit.log").read_text()
    assert "train.extxyz" in log and "step   4" in log and "finished: polish steps" in log
    assert f"etnpot fit {run / 'config.yaml'} --out" in (run / "report.md").read_text()
    before = etnpot.load(run / "potential.etn")
    monkeypatch.setattr(report, "write_report", lambda *_: None)  # takes longer than the rest

    assert fit(*arguments) == 2  # the same again
    assert (
        "holds a finished fit; name another directory, or replace it with --force" in capsys.readouterr().err
    )
    assert fit("--resume", "--out", "run") == 0  # nothing is left to do
    capsys.readouterr()
    assert fit("--resume", "--out", "run", "--cutoff", "4") == 2
    err = capsys.readouterr().err
    assert "other settings of ['cutoff']" in err
    assert "cutoff: 3.6" in (run / "config.yaml").read_text(), "a refused run changes nothing"

    assert fit(str(run / "config.yaml"), "--out", "again") == 0  # what the report says
    np.testing.assert_array_equal(etnpot.load("again/potential.etn").parameters, before.parameters)
    assert fit(*arguments, "--force", "--seed", "1") == 0
    assert not np.array_equal(etnpot.load(run / "potential.etn").parameters, before.parameters)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_ctrl_c_ends_after_the_step_and_resume_goes_on(
    in_data: Path, number: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fit", "--train", "train.extxyz", "--out", "run", *TINY]
    arguments[arguments.index("--polish-steps") + 1] = "25"
    arguments += ["--patience", "100"]
    environment = os.environ | {"PYTHONPATH": str(Path(etnpot.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "etnpot", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    history = Path("run/history.jsonl")
    deadline = time.monotonic() + 90
    while not (history.exists() and history.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=90)
    assert process.returncode == status
    assert err == (
        "interrupted; the fit is kept after its last complete step. "
        "To continue: etnpot fit --resume --out run\n"
    )
    assert "stopping after this step" in out
    shown = history.read_text().count("\n")
    assert shown >= 3 and not Path("run/finished.json").exists()
    assert "interrupted" in Path("run/fit.log").read_text()

    if number == signal.SIGINT:
        monkeypatch.setattr(report, "write_report", lambda *_: None)
        assert cli.main(["fit", "--resume", "--out", "run"]) == 0
        whole = [a if a != "run" else "whole" for a in arguments]
        assert cli.main(whole) == 0
        a, b = (etnpot.load(f"{name}/potential.etn").parameters for name in ("run", "whole"))
        np.testing.assert_array_equal(a, b)
        assert len(history.read_text().splitlines()) > shown


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_the_second_ctrl_c_stops_at_once() -> None:
    stop, said = _Stop(), []
    stop.say = said.append
    before = signal.getsignal(signal.SIGINT)
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT and len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# --------------------------------------------------------------------------------------------------- progress

RECORD: dict[str, Any] = {
    "step": 7,
    "stage": "polish",
    "sample": 0.5,
    "n_parameters": 985,
    "grows_to": 2187,
    "seconds": 65.25,
    "is_best": True,
    "train": {"energy_rmse": 0.00123, "forces_rmse": 0.0456, "stress_rmse": 0.001},
    "valid": {"energy_rmse": 0.00234, "forces_rmse": 0.0567},
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines() -> None:
    stream = io.StringIO()
    display = progress_display(FitSettings(), stream)
    assert isinstance(display, PlainProgress)
    with display:
        display.update(RECORD)
        display.update({**RECORD, "stage": "sweep", "sweep": 0, "core": 2, "is_best": False})
        display.update({**RECORD, "stage": "dynamics", "falls": 3})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5 and lines[1].split() == [word for column in COLUMNS for word in column.split()]
    assert lines[2].split() == [
        "7",
        "polish",
        "50%",
        "985",
        "1.23",
        "2.34",
        "0.0456",
        "0.0567",
        "0.160",
        "-",
        "1:05*",
    ]
    assert lines[0].endswith("the model grows to 2,187 parameters")
    assert "sweep 1 core 2" in lines[3] and not lines[3].endswith("*")
    assert lines[4].split()[1:4] == ["3", "falls", "985"]
    assert "\x1b" not in stream.getvalue()


def test_the_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    display = progress_display(FitSettings(time_limit=100.0), stream)
    assert isinstance(display, LiveProgress)
    with display:
        display.note("a [note]")
        display.update(RECORD)
        status = display._status()
    text = stream.getvalue()
    assert "a [note]" in text and "2,187" in text and "0.0456" in text and "1:05*" in text
    assert status.startswith("step 8: 1:05, 34.") and "left of 1:40" in status and "--resume" in status


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2s"), (59.97, "1:00"), (245, "4:05"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# ------------------------------------------------------------------------------- configurations that were abused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("order: 2\x00", "is not YAML"),
        ("order: " + "9" * 5000, "a number cannot be read"),
        ("order: " + "[" * 3000, "nested too deeply|not YAML"),
        ("channels: &a [1, *a]", "contains itself"),
        (
            "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmnopqrstu")),
            "more than 10000 values",
        ),
        ("order: !!python/object/apply:os.system [touch executed]", "could not determine a constructor|this is not YAML"),
    ],
)  # fmt: skip
def test_configurations_that_exhaust_or_execute_are_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(SpecificationError, match=message):
        check_config(*read_yaml(path))


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("train: " + "x" * 5000)
    with pytest.raises(SpecificationError, match="cannot be looked for"):
        check_config(*read_yaml(path))
    with pytest.raises(DataError, match="cannot be looked for"):
        etnpot.DataSet.from_files("x" * 5000)


def test_values_of_flags_that_cannot_be_read_are_text() -> None:
    for text in ("9" * 5000, "[" * 3000, "a\x00b", "{a: *b}"):
        assert parse_value(text) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("energy_weight", "x"), ("alpha", [1]), ("threads", 1.5), ("threads", "2"), ("cutoff", [5]), ("r_min", float("nan")),
        ("growth", 1), ("two_site", "yes"), ("neighbor_scale", 5e-324), ("stress_weight", None), ("cutoff", True),
        ("forces_weight", 1e300), ("cutoff_power", 10**30),
    ],
)  # fmt: skip
def test_settings_of_another_type_are_named(name: str, value: Any) -> None:
    with pytest.raises(SpecificationError, match=name.removesuffix("_weight")):
        FitSettings(**{name: value}).spec([29], r_min=1.5, neighbor_scale=40.0)
