"""Potentials with layers in files and in calculators."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import etnpot
from etnpot import cli
from etnpot.errors import PotentialFileError, SpecificationError
from etnpot.io.potential_file import write_potential_file
from etnpot.network import Bond
from etnpot.potential import Potential
from etnpot.potential.layers import Layer

Make = Callable[..., Potential]


def test_round_trip(kind: str, potential: Potential, crystal: Atoms, tmp_path: Path) -> None:
    potential.save(tmp_path / "p.etn")
    loaded = etnpot.load(tmp_path / "p.etn")
    assert loaded.spec == potential.spec and loaded.spec.layers
    edges = potential.edges(crystal)
    one, two = (p.evaluate(edges, crystal.numbers) for p in (potential, loaded))
    np.testing.assert_array_equal(one.energy_i, two.energy_i)
    np.testing.assert_array_equal(one.dE_dr_pc, two.dE_dr_pc)
    text = loaded.summary()
    assert all(f"layer {k}" in text for k in range(1, len(potential.spec.layers) + 1))
    assert ("normalised attention" in text) == (kind in ("normalised", "deep"))


def test_without_layers_the_specification_is_what_it_was(make_layered: Make) -> None:
    assert "layers" not in make_layered("local").spec.to_dict()


def test_info(make_layered: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_layered("deep").save(tmp_path / "p.etn")
    assert cli.main(["info", str(tmp_path / "p.etn")]) == 0
    out = capsys.readouterr().out
    assert "message, normalised attention of 1 heads" in out and "layer 3" in out and "pool: " in out


FORGED: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "no list": (lambda layers: {"kind": "message"}, "layers: expected a list of mappings"),
    "text": (lambda layers: "message", "layers: expected a list of mappings"),
    "no mapping": (lambda layers: [3], "layers: expected mappings, got 3"),
    "unknown field": (lambda layers: [layers[0] | {"gate": 1}], "expected the fields .*'gate'"),
    "missing field": (lambda layers: [{"kind": "message"}], "expected the fields"),
    "kind": (lambda layers: [layers[0] | {"kind": "gated"}], "kind: expected one of message, pool"),
    "attention": (lambda layers: [layers[0] | {"attention": 3}], "attention: expected one of none, bilinear"),
    "bonds": (lambda layers: [layers[0] | {"bonds": 3}], "bonds: expected mappings"),
    "bond": (lambda layers: [layers[0] | {"bonds": ["0e", "0e"]}], "bonds: expected mappings"),
    "one bond": (lambda layers: [layers[0] | {"bonds": [{"0e": 1}]}], "at least two Bond"),
    "negative": (lambda layers: [layers[0] | {"bonds": [{"0e": 1}, {"0e": -1}]}], "at least 1"),
    "fraction": (lambda layers: [layers[0] | {"bonds": [{"0e": 1}, {"0e": 1.5}]}], "expected an integer"),
    "parity": (lambda layers: [layers[0] | {"bonds": [{"0e": 1}, {"1e": 1}]}], "natural parity"),
    "l": (lambda layers: [layers[0] | {"bonds": [{"0e": 1}, {"3o": 1}]}], "l_max is 2"),
    "absurd l": (lambda layers: [layers[0] | {"bonds": [{"0e": 1}, {"1000000000e": 1}]}], "l up to 12"),
    "absurd rank": (lambda layers: [layers[0] | {"bonds": [{"0e": 2**50}, {"0e": 1}]}], "at most 1000"),
    "absurd carry": (lambda layers: [layers[0] | {"bonds": [{"0e": 1}, {"0e": 2**50}]}], "at most 1000"),
    "absurd heads": (lambda layers: [layers[0] | {"attention": "bilinear", "heads": 2**40}], "from 1 to 100"),
    "heads": (lambda layers: [layers[0] | {"heads": 2}], "belong to attention"),
    "heads of text": (lambda layers: [layers[0] | {"heads": "2"}], "heads: expected an integer"),
    "no heads": (lambda layers: [layers[0] | {"attention": "bilinear"}], "heads: expected an integer from 1"),
    "no scalars": (
        lambda layers: [layers[0] | {"attention": "bilinear", "heads": 2, "width": 2}],
        "the last bond has 2 scalars, fewer than the 8 of queries and keys",
    ),
    "pool with attention": (
        lambda layers: [layers[0] | {"kind": "pool", "attention": "bilinear", "heads": 1, "width": 1}],
        "only messages have it",
    ),
    "many layers": (lambda layers: layers * 3000, "at most 20"),
    "one more": (lambda layers: layers * 2, "asks for arrays"),
    "none": (lambda layers: [], "asks for arrays"),
}  # fmt: skip


@pytest.mark.parametrize("change", FORGED)
def test_forged_layers_are_refused(change: str, make_layered: Make, tmp_path: Path) -> None:
    """Also those that ask for more than anybody has: nothing of their size is ever allocated."""
    potential = make_layered("message")
    forge, message = FORGED[change]
    values = potential.spec.to_dict()
    values["layers"] = forge(values["layers"])
    write_potential_file(tmp_path / "p.etn", spec=values, arrays=potential.arrays, provenance={})
    with pytest.raises(PotentialFileError, match=message):
        etnpot.load(tmp_path / "p.etn")


def test_layers_of_another_type_are_refused(make_layered: Make) -> None:
    spec = make_layered("local").spec
    with pytest.raises(SpecificationError, match="layers: expected Layer objects"):
        replace(spec, layers=("message",))
    with pytest.raises(SpecificationError, match="at most 20"):
        replace(spec, layers=(Layer("pool", (Bond.of({"0e": 1}), Bond.of({"0e": 1}))),) * 21)


def test_calculator(
    potential: Potential, crystal: Atoms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Energy, energies of atoms, forces, stress; copies, pickles, and a molecule that moves."""
    potential.save(tmp_path / "p.etn")
    crystal.calc = etnpot.ETNCalculator(tmp_path / "p.etn")
    expected = potential.evaluate(potential.edges(crystal), crystal.numbers)
    assert crystal.get_potential_energy() == pytest.approx(expected.energy, abs=1e-12)
    np.testing.assert_allclose(crystal.get_potential_energies(), expected.energy_i, atol=1e-12)
    np.testing.assert_allclose(crystal.get_forces(), expected.forces, atol=1e-12)
    np.testing.assert_allclose(
        crystal.get_stress(voigt=False), expected.virial / crystal.get_volume(), atol=1e-12
    )
    again = pickle.loads(pickle.dumps(crystal.calc))
    for _ in range(2):
        crystal.positions += np.random.default_rng(0).normal(scale=0.05, size=(5, 3))
        fresh = potential.evaluate(potential.edges(crystal), crystal.numbers)
        for calc in (crystal.calc, again):
            assert calc.get_potential_energy(crystal) == pytest.approx(fresh.energy, abs=1e-12)
            np.testing.assert_allclose(calc.get_forces(crystal), fresh.forces, atol=1e-12)
