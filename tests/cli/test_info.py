"""The command line: ``etnpot info``, ``--version``, errors, pipes, interrupts, speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import etnpot
from etnpot import cli
from etnpot.cli import info
from etnpot.errors import PotentialFileError
from etnpot.io.potential_file import read_potential_file, write_potential_file
from etnpot.potential import either

PROVENANCE = {"data": "abc", "errors": {"energy": 0.001, "forces": None}}


@pytest.fixture
def potential() -> etnpot.Potential:
    made = etnpot.ETN(species=["Cu", "Ni"], cutoff=4.5, order=2, l_max=1, seed=0)
    return etnpot.Potential(made.spec, made.parameters, PROVENANCE)


@pytest.fixture
def stored(potential: etnpot.Potential, tmp_path: Path) -> Path:
    path = tmp_path / "copper.etn"
    potential.save(path)
    return path


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(etnpot.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "etnpot", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_info_shows_file_summary_and_provenance(
    potential: etnpot.Potential, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(stored)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"file        {stored}",
        f"format      etnpot-potential version 2, written by etnpot {etnpot.__version__}",
        f"sha256      {read_potential_file(stored).sha256}",
        "",
        *potential.summary().rstrip().splitlines(),
        "",
        "provenance",
        "  data: abc",
        "  errors:",
        "    energy: 0.001",
        "    forces: null",
    ]
    for expected in ("Cu", "Ni", "4.5"):
        assert expected in out


def test_info_as_json(potential: etnpot.Potential, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json", str(stored)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "file": str(stored),
        "format": "etnpot-potential",
        "format_version": 2,
        "library_version": etnpot.__version__,
        "sha256": read_potential_file(stored).sha256,
        "spec": json.loads(json.dumps(potential.spec.to_dict())),
        "n_parameters": potential.n_parameters,
        "arrays": {name: list(array.shape) for name, array in potential.arrays.items()},
        "provenance": PROVENANCE,
    }


def test_info_without_provenance_says_so(stored: Path) -> None:
    write_potential_file(stored, spec={}, arrays={}, provenance={})
    assert info.as_text(stored, read_potential_file(stored), "").endswith("provenance\n  none")


@pytest.mark.parametrize("content", [b"", b"hello world, not a potential", None])
def test_a_bad_file_is_one_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "bad.etn"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["info", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err.startswith("etnpot: error: ") and str(path) in err and err.count("\n") == 1 and err.endswith("\n")
    )


@pytest.mark.parametrize("arguments", [["--debug", "info"], ["info", "--debug"]])
def test_debug_shows_the_traceback(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(PotentialFileError):
        cli.main([*arguments, str(tmp_path / "missing.etn")])


def test_an_interrupt_is_status_130(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(either, "load_either", interrupt)
    assert cli.main(["info", str(stored)]) == 130
    assert capsys.readouterr().err == "etnpot: interrupted\n"


def test_warnings_are_one_line_and_the_filter_is_restored(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_either = either.load_either

    def warn(path: str) -> object:
        warnings.warn("watch\nout", UserWarning, stacklevel=1)
        return load_either(path)

    monkeypatch.setattr(either, "load_either", warn)
    show = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show_inside = warnings.showwarning
        assert cli.main(["info", str(stored)]) == 0
        assert warnings.showwarning is show_inside
    assert warnings.showwarning is show
    assert capsys.readouterr().err == "etnpot: warning: watch out\n"


def test_usage_errors_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nonsense"], ["info"], ["info", "a", "b"], ["--no-such-option"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err


def test_version_and_help_of_the_process() -> None:
    assert run("--version").stdout == f"etnpot {etnpot.__version__}\n"
    begin = time.perf_counter()
    done = run("--help")
    assert time.perf_counter() - begin < 1.0
    assert done.returncode == 0 and done.stderr == ""
    assert all(command in done.stdout for command in cli.COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from etnpot import cli; cli.build_parser().format_help(); "
        "heavy = ['numpy',"
        " 'numba', 'sympy', 'scipy', 'ase', 'matplotlib', 'pydantic']; "
        "print([m for m in heavy if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(etnpot.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(Path(etnpot.__file__).parents[1])}
    program = (
        "import sys; from types import SimpleNamespace; import etnpot; from etnpot import cli; "
        "cli.build_parser = lambda: SimpleNamespace(parse_args=lambda argv: SimpleNamespace("
        "run=lambda args: print('x' * 100000) or 0)); sys.exit(cli.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
