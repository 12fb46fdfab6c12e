"""Commands with potentials that have layers: settings and their mistakes, errors, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import etnpot
from etnpot import cli
from etnpot.cli.config import check_config, read_yaml
from etnpot.cli.fit import read_config
from etnpot.cli.options import example

TINY = (
    "--cutoff 3.6 --order 2 --l-max 1 --radial-size 4 --channels 2,2 --ranks 2 --species-rank 2 "
    "--polish-steps 2 --threads 1 --sweeps 1"
).split()


def test_settings_from_a_file_and_from_a_flag(in_data: Path) -> None:
    Path("c.yaml").write_text(
        "train: train.extxyz\nlayers:\n- kind: message\n  attention: normalised\n  carry: {0e: 3, 1o: 1}\n- {kind: pool}\n"
    )
    expected = [{"kind": "message", "attention": "normalised", "carry": {"0e": 3, "1o": 1}}, {"kind": "pool"}]
    config = check_config(*read_yaml("c.yaml"))
    assert [dict(layer) for layer in config.settings.layers] == expected
    flags = ["--layers", "[{kind: message, attention: normalised, carry: {0e: 3, 1o: 1}}, {kind: pool}]"]
    from_flags = read_config(cli.build_parser().parse_args(["fit", "--train", "train.extxyz", *flags]))
    assert from_flags.settings.layers == config.settings.layers
    Path("used.yaml").write_text(from_flags.to_yaml())
    assert check_config(*read_yaml("used.yaml")).settings == from_flags.settings
    assert "kind: message" in example() and "\n# layers: []" in example()


WRONG = {
    "{kind: message}": "--layers: expected a list of mappings of names to values",
    "message": "--layers: expected a list of mappings",
    "[message]": "--layers: expected a list of mappings",
    "[{kind: mesage}]": "--layers: layer 1, kind: expected one of message, pool, got 'mesage'",
    "[{kind: pool}, {carry: {0e: 1}}]": "--layers: layer 2, kind: expected one of message, pool, got None",
    "[{kind: message, cary: {0e: 1}}]": "--layers: layer 1, cary: no such setting; they are attention, bond_l_max",
    "[{kind: message, carry: {}}]": "--layers: layer 1, carry: expected a mapping such as {0e: 4, 1o: 2}",
    "[{kind: message, carry: {0x: 1}}]": "--layers: layer 1, irrep: expected l in digits",
    "[{kind: message, carry: {1e: 1}}]": "natural parity",
    "[{kind: message, carry: {0e: 1000000000}}]": "--layers: layer 1, carry: expected",
    "[{kind: message, heads: 2}]": "--layers: layer 1, heads and width: they belong to attention",
    "[{kind: message, attention: soft}]": "--layers: layer 1, attention: expected one of none, bilinear, normalised",
    "[{kind: message, attention: bilinear, heads: 1000}]": "--layers: layer 1, heads: expected an integer from",
    "[{kind: pool, attention: bilinear}]": "--layers: layer 1, attention: only messages have it",
    "[{kind: message, order: two}]": "--layers: layer 1, order: expected an integer from 1 to 12",
    "[{kind: message, carry: {2e: 1}}]": "--layers: layer 1, carry: expected l up to 1, the l_max of the features",
}  # fmt: skip


@pytest.mark.parametrize("value", WRONG)
def test_a_wrong_setting_is_named_before_anything_starts(
    in_data: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    assert cli.main(["fit", "--train", "train.extxyz", *TINY, "--layers", value]) == 2
    err = capsys.readouterr().err
    assert WRONG[value] in err and err.count("\n") == 1
    assert not Path("fit").exists()


def test_a_wrong_setting_of_a_file_is_named_by_line(
    in_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text("train: train.extxyz\nlayers: [{kind: message, width: 3}]\n")
    assert cli.main(["fit", "c.yaml"]) == 2
    assert "c.yaml, line 2: layers: layer 1, heads and width: they belong to" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fit_and_what_its_potential_can_do(in_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fit warns that there will be no grades and goes on; commands of grades say why not."""
    layers = "[{kind: message, carry: {0e: 1, 1o: 1}, ranks: 1}, {kind: pool, carry: {0e: 1}, ranks: 1}]"
    arguments = ["fit", "--train", "train.extxyz", "--valid-fraction", "0", *TINY, "--layers", layers]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "layers" in out and "no extrapolation grades: potentials with layers have no grades" in err
    potential = etnpot.load("fit/potential.etn")
    assert [layer.kind for layer in potential.spec.layers] == ["message", "pool"]
    assert potential.reliability is None
    assert cli.main(["evaluate", "fit/potential.etn", "test.extxyz"]) == 0
    assert "F, eV/Å" in capsys.readouterr().out
    for command in (
        ["grade", "fit/potential.etn", "test.extxyz"],
        ["select", "fit/potential.etn", "test.extxyz", "--n", "1"],
        ["calibrate", "fit/potential.etn", "--train", "train.extxyz"],
    ):
        assert cli.main(command) == 2
        assert "potentials with layers have no grades" in capsys.readouterr().err
