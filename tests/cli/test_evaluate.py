"""``etnpot evaluate``: the numbers it prints and writes are those of the calculator."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk

import etnpot
from etnpot import cli
from etnpot.io.mlip_cfg import write_mlip_cfg
from etnpot.io.structures import read_structures


@pytest.fixture
def potential(in_data: Path) -> etnpot.Potential:
    made = etnpot.ETN(["Ni", "Cu"], cutoff=4.0, order=2, l_max=1, seed=0)
    made.save("random.etn")
    return made


def test_errors_are_those_of_the_calculator(
    potential: etnpot.Potential, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "random.etn", "test.extxyz", "valid.extxyz"]
    assert (
        cli.main([*arguments, "--json", "m.json", "--plot", "p.png", "--write", "o.extxyz", "--worst", "2"])
        == 0
    )
    out = capsys.readouterr().out
    found = json.loads(Path("m.json").read_text())
    errors = []
    for labelled in [*read_structures("test.extxyz"), *read_structures("valid.extxyz")]:
        atoms = labelled.atoms.copy()
        atoms.calc = etnpot.ETNCalculator(potential)
        errors.append((atoms.get_forces() - labelled.forces).ravel())
    rmse = float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    assert found["forces"]["rmse"] == pytest.approx(rmse, rel=1e-12)
    assert f"{rmse:.4g}" in out and "worst configurations" in out
    assert set(found["by_element"]) == {"Ni", "Cu"} and set(found["by_group"]) == {
        "rattled",
        "strained",
        "hot",
    }
    assert len(found["configurations"]) == 6 and len(found["data_sha256"]) == 64
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_written_reads_back(potential: etnpot.Potential, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "random.etn", "test.extxyz", "--write", "o.extxyz"]) == 0
    references = read_structures("test.extxyz")
    keys = {"energy_key": "ref_energy", "forces_key": "ref_forces", "stress_key": "ref_stress"}
    for atoms, reference, again in zip(
        ase.io.read("o.extxyz", ":"), references, read_structures("o.extxyz", **keys), strict=True
    ):
        np.testing.assert_allclose(again.forces, reference.forces, atol=1e-7)
        np.testing.assert_allclose(again.stress, reference.stress, atol=1e-12)
        assert again.energy == pytest.approx(reference.energy) and again.group == reference.group
        predicted = reference.atoms.copy()
        predicted.calc = etnpot.ETNCalculator(potential)
        assert atoms.get_potential_energy() == pytest.approx(predicted.get_potential_energy())
        np.testing.assert_allclose(atoms.get_forces(), predicted.get_forces(), atol=1e-7)


def test_json_alone_on_stdout(potential: etnpot.Potential, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "random.etn", "test.extxyz", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["energy"]["n"] == 3 and "force components" in err


def test_structures_without_labels_can_be_predicted(
    potential: etnpot.Potential, capsys: pytest.CaptureFixture[str]
) -> None:
    ase.io.write("bare.extxyz", bulk("Cu", cubic=True))
    assert cli.main(["evaluate", "random.etn", "bare.extxyz", "--write", "o.extxyz"]) == 0
    assert "no labels to compare with" in capsys.readouterr().out
    assert np.isfinite(ase.io.read("o.extxyz").get_potential_energy())
    assert cli.main(["evaluate", "random.etn", "bare.extxyz"]) == 2
    assert "no energies and no forces" in capsys.readouterr().err


def test_mlip_files_need_their_type_map(
    potential: etnpot.Potential, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mlip_cfg("test.cfg", ase.io.read("test.extxyz", ":"), ["Ni", "Cu"])
    assert cli.main(["evaluate", "random.etn", "test.cfg", "--type-map", "Ni,Cu", "--json", "a.json"]) == 0
    assert cli.main(["evaluate", "random.etn", "test.extxyz", "--json", "b.json"]) == 0
    a, b = (json.loads(Path(name).read_text())["forces"]["rmse"] for name in ("a.json", "b.json"))
    assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["random.etn", "silver.extxyz"], "species 47 (Ag) not in this potential"),
        (["random.etn", "nowhere.xyz"], "nowhere.xyz does not exist"),
        (["nowhere.etn", "test.extxyz"], "nowhere.etn"),
        (["random.etn", "test.extxyz", "--energy-key", "nope"], "energy_key='nope' is in no configuration"),
        (["random.etn", "test.extxyz", "--json", "no/where.json"], "its directory does not exist"),
        (["random.etn", "test.extxyz", "--plot", "p.nope"], "cannot draw p.nope"),
        (["random.etn", "test.extxyz", "--threads", "0"], "--threads: expected a positive integer"),
    ],
)
def test_mistakes(
    potential: etnpot.Potential, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["evaluate", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
