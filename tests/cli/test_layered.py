"""Commands with potentials that have layers: settings and their mistakes, errors, grades."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
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
    """Without a warning, with grades, also in the export to LAMMPS."""
    layers = "[{kind: message, carry: {0e: 1, 1o: 1}, ranks: 1}, {kind: pool, carry: {0e: 1}, ranks: 1}]"
    arguments = ["fit", "--train", "train.extxyz", "--valid-fraction", "0", *TINY, "--layers", layers]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "layers" in out and "grades" not in err
    potential = etnpot.load("fit/potential.etn")
    assert [layer.kind for layer in potential.spec.layers] == ["message", "pool"]
    assert potential.reliability is not None
    assert cli.main(["evaluate", "fit/potential.etn", "test.extxyz"]) == 0
    assert "F, eV/Å" in capsys.readouterr().out
    assert cli.main(["grade", "fit/potential.etn", "train.extxyz", "--forces", "--json", "g.json"]) == 0
    assert "rank correlation" in capsys.readouterr().out
    grades = [one["grade"] for one in json.loads(Path("g.json").read_text())["configurations"]]
    assert len(grades) == 10 and max(grades) <= 1.02
    assert cli.main(["lammps", "fit/potential.etn", "--out", "run"]) == 0
    assert "\ngrade_center real " in Path("run/potential.lammps").read_text()


def test_calibrate_grade_and_select(in_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A random potential with layers learns what its training set is, and what of a pool lies outside of it."""
    layers = [
        {"kind": "message", "carry": {"0e": 1, "1o": 1}, "ranks": 1, "attention": "normalised", "heads": 1}
    ]
    layers += [{"kind": "pool", "carry": {"0e": 1}, "ranks": 1}]
    model = dict(cutoff=3.6, order=2, l_max=1, radial_size=4, channels=[2, 2], ranks=2, species_rank=2)
    etnpot.ETN(["Ni", "Cu"], **model, layers=layers, seed=0).save("random.etn")
    assert cli.main(["grade", "random.etn", "test.extxyz"]) == 2
    assert "etnpot calibrate POTENTIAL --train DATA" in capsys.readouterr().err
    data = ["--train", "train.extxyz", "--valid", "valid.extxyz"]
    assert cli.main(["calibrate", "random.etn", *data, "--out", "known.etn"]) == 0
    assert "active configurations, calibrated on the validation set" in capsys.readouterr().out
    assert cli.main(["info", "known.etn"]) == 0
    assert "atoms in the active set" in capsys.readouterr().out
    assert cli.main(["grade", "known.etn", "test.extxyz", "--forces", "--json", "g.json"]) == 0
    potential = etnpot.load("known.etn")
    found = json.loads(Path("g.json").read_text())["configurations"]
    for atoms, one in zip(ase.io.read("test.extxyz", ":"), found, strict=True):
        edges = potential.edges(atoms)
        assert one["grades"] == pytest.approx(potential.assess(edges, atoms.numbers).grade_i.tolist())
        components_ic = np.array(one["force_components_std"])
        np.testing.assert_allclose(
            components_ic, potential.force_deviations(edges, atoms.numbers), rtol=1e-9, atol=1e-12
        )
    # of the training set and strangers, strangers are chosen
    pool = [atoms.copy() for atoms in ase.io.read("train.extxyz", ":")]
    pool[3].set_cell(0.85 * pool[3].cell, scale_atoms=True)
    ase.io.write("pool.extxyz", pool)
    assert cli.main(["select", "known.etn", "pool.extxyz", "--n", "1", "--json", "s.json"]) == 0
    (choice,) = json.loads(Path("s.json").read_text())["choices"]
    assert choice["index"] == 3 and choice["rule"] == "grade" and choice["grade"] > 1.5
