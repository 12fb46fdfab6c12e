"""``etnpot evaluate`` of tensor models: the numbers are those of the model, and what is written reads back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot import cli
from etnpot.fitting.tensor_evaluation import compare_tensors
from etnpot.io.tensor_labels import UNITS, read_tensors
from etnpot.potential import Quantity, make_tensor_model
from etnpot.potential.tensor_spec import QUANTITIES

DEBYE = UNITS["dipole"]["debye"]
SHIELDING = Quantity("shielding", "matrix", per_atom=True)


def small_model(quantity: Quantity | str, provenance: dict[str, object] | None = None) -> etnpot.TensorModel:
    model = make_tensor_model(
        ["H", "O"], quantity, seed=1, cutoff=3.0, order=2, l_max=1, radial_size=3, ranks=2, r_min=0.6
    )
    return model.with_parameters(model.parameters, provenance or {})


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> list[Atoms]:
    """Water-like ions with labels in a file."""
    monkeypatch.chdir(tmp_path)
    made = []
    for _ in range(6):
        atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        atoms.positions += 0.1 * rng.normal(size=(3, 3)) + 4.0
        atoms.info.update(mu_debye=rng.normal(size=3), charge=1.0)
        atoms.set_array("shielding", rng.normal(size=(3, 9)))
        made.append(atoms)
    ase.io.write("data.extxyz", made)
    return made


def test_dipoles_of_charged_molecules(frames: list[Atoms], capsys: pytest.CaptureFixture[str]) -> None:
    provenance: dict[str, object] = {"key": "mu_debye", "unit_of_data": "debye"}
    model = small_model(replace(QUANTITIES["dipole"], charges=True), provenance)
    model.save("dipole.etn")
    given = ["evaluate", "dipole.etn", "data.extxyz", "--worst", "2"]
    assert cli.main([*given, "--json", "m.json", "--write", "o.extxyz", "--plot", "p.png"]) == 0
    out = capsys.readouterr().out
    errors = np.array([model.predict(a).total - DEBYE * a.info["mu_debye"] for a in frames])
    found = json.loads(Path("m.json").read_text())
    assert found["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    assert found["largest"] == pytest.approx(np.abs(errors).max(), rel=1e-6)
    per_configuration = [c["mae"] for c in found["configurations"]]
    np.testing.assert_allclose(per_configuration, np.abs(errors).mean(axis=1), rtol=1e-6)
    assert "6 configurations with a dipole under mu_debye, in debye" in out and "worst configurations" in out
    for atoms, again in zip(frames, ase.io.read("o.extxyz", ":"), strict=True):
        np.testing.assert_allclose(again.get_dipole_moment(), model.predict(atoms).total, atol=1e-7)
        np.testing.assert_allclose(again.info["ref_dipole"], DEBYE * atoms.info["mu_debye"], atol=1e-7)
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    # another entry has a unit of its own
    assert cli.main([*given, "--key", "mu_debye"]) == 0
    assert "in e Å" in capsys.readouterr().out


def test_tensors_of_atoms_by_element(frames: list[Atoms], capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(SHIELDING)
    model.save("shielding.etn")
    assert cli.main(["evaluate", "shielding.etn", "data.extxyz", "--json", "-", "--write", "o.extxyz"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "element" in captured.err
    errors = np.array([model.predict(a).value - a.arrays["shielding"].reshape(3, 3, 3) for a in frames])
    assert found["by_element"]["O"]["rmse"] == pytest.approx(np.sqrt((errors[:, 0] ** 2).mean()), rel=1e-6)
    assert found["by_element"]["H"]["n"] == 12 and found["n"] == 18
    again = ase.io.read("o.extxyz", 0)
    np.testing.assert_allclose(
        again.arrays["shielding"].reshape(3, 3, 3), model.predict(frames[0]).value, atol=1e-7
    )


def test_what_cannot_be(frames: list[Atoms], capsys: pytest.CaptureFixture[str]) -> None:
    small_model("dipole").save("dipole.etn")
    etnpot.ETN(["H", "O"], cutoff=3.0, order=1, l_max=0, seed=0).save("energy.etn")

    def said(*arguments: str) -> str:
        assert cli.main(["evaluate", *arguments]) == 2
        return capsys.readouterr().err

    assert "looked for dipole" in said("dipole.etn", "data.extxyz")
    assert "unit: expected one of" in said("dipole.etn", "data.extxyz", "--key", "mu_debye", "--unit", "eV")
    assert "--forces-key mean nothing for a tensor model" in said(
        "dipole.etn", "data.extxyz", "--forces-key", "f"
    )
    assert "--key mean nothing for a potential" in said("energy.etn", "data.extxyz", "--key", "mu")
    frames[0].symbols[1] = "F"
    ase.io.write("other.extxyz", frames)
    assert "holds F, which the model does not know" in said("dipole.etn", "other.extxyz", "--key", "mu_debye")


def test_nothing_to_compare(frames: list[Atoms]) -> None:
    model = small_model("dipole")
    labels = read_tensors("data.extxyz", "dipole", (3,), key="mu_debye")
    assert compare_tensors(model, labels[:1], threads=1).metrics.spread == 0.0
    with pytest.raises(etnpot.errors.DataError, match="no labelled configurations"):
        compare_tensors(model, [])
