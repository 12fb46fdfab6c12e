"""D3 and D2 as a term of a potential: numbers, derivatives, fit, calculator, file, export."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError

import etnpot
from etnpot.cli import main
from etnpot.conventions import voigt
from etnpot.dispersion import METHODS, Dispersion
from etnpot.errors import InstallationError, SpeciesError, SpecificationError
from etnpot.fitting.demo_data import emt_alloys
from etnpot.fitting.evaluation import without_dispersion
from etnpot.interfaces.lammps.export import pair_commands

D3 = {"method": "d3bj", "xc": "pbe", "cutoff": 9.0, "cn_cutoff": 6.0}
D2 = {"method": "d2", "xc": "pbe", "cutoff": 9.0}


def alloy(rng: np.random.Generator) -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.symbols[::2] = "Ni"
    atoms.rattle(0.1, rng=rng)
    return atoms


@pytest.mark.parametrize("damping", ["d3bj", "d3zero"])
def test_d3_is_that_of_the_calculator_of_the_library(damping: str, rng: np.random.Generator) -> None:
    """In the units and signs of ASE."""
    from dftd3.ase import DFTD3

    for atoms in (molecule("C6H6"), alloy(rng)):
        atoms.calc = DFTD3(method="pbe", damping=damping)
        # its ranges are 60 and 40 bohr
        energy, forces, virial = Dispersion(
            method=damping, xc="PBE", cutoff=31.75063262, cn_cutoff=21.16708841
        ).evaluate(atoms)
        assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-6)
        if atoms.pbc.any():
            np.testing.assert_allclose(voigt(virial) / atoms.get_volume(), atoms.get_stress(), atol=1e-6)
        three_body = Dispersion(method=damping, xc="pbe", three_body=True).evaluate(atoms)[0]
        assert three_body > energy + 1e-5


def test_d2_is_the_sum_of_grimme_2006() -> None:
    """Two argon atoms by hand: C6 = 4.61 J nm⁶/mol, R = 1.595 Å each."""
    from ase.units import J, mol

    r = 3.7
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, r]])
    c6 = 4.61 * 1e6 * J / mol
    expected = -0.75 * c6 / r**6 / (1 + np.exp(-20 * (r / 3.19 - 1)))
    assert Dispersion(method="d2", xc="pbe").evaluate(atoms)[0] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("settings", [D3, D2, {**D3, "method": "d3zero", "three_body": True}])
def test_forces_and_virial_are_derivatives(settings: dict[str, Any], rng: np.random.Generator) -> None:
    """The range ends sharply: steps so small that no pair crosses it."""
    dispersion = Dispersion.from_dict(settings)
    atoms = alloy(rng)
    energy, forces, virial = dispersion.evaluate(atoms)
    assert energy < 0
    h = 1e-6
    for i in range(len(atoms)):
        for c in range(3):
            ends = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[i, c] += sign * h
                ends.append(dispersion.evaluate(moved)[0])
            assert forces[i, c] == pytest.approx(-(ends[0] - ends[1]) / (2 * h), abs=2e-6)
    for a in range(3):
        for b in range(a, 3):
            ends = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[a, b] += 0.5 * sign * h
                strain[b, a] += 0.5 * sign * h
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                ends.append(dispersion.evaluate(moved)[0])
            assert virial[a, b] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=2e-5)


@pytest.mark.parametrize("settings", [D3, D2])
def test_a_fit_sees_the_rest_and_the_calculator_adds_it_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model: dict[str, Any] = dict(order=2, l_max=1, radial_size=4, channels=[2, 2], ranks=2, species_rank=2)
    options: dict[str, Any] = dict(cutoff=3.6, polish_steps=2, threads=1, valid_fraction=0.0, **model)
    data = emt_alloys(8, symbols=("Ni", "Cu"), seed=1, repeat=(1, 1, 2))
    dispersion = Dispersion.from_dict(settings)
    result = etnpot.fit(data, dispersion=settings, **options)
    local = etnpot.fit(without_dispersion(data, dispersion), **options)
    np.testing.assert_array_equal(result.potential.parameters, local.potential.parameters)
    for name in ("energy", "forces", "stress"):
        assert getattr(result.metrics["train"], name).rmse == pytest.approx(
            getattr(local.metrics["train"], name).rmse, rel=1e-9
        )
    result.potential.save(tmp_path / "p.etn")
    potential = etnpot.load(tmp_path / "p.etn")
    assert potential.spec.dispersion == dispersion
    assert "dispersion" in potential.summary()
    atoms = data[0].atoms.copy()
    atoms.calc = etnpot.ETNCalculator(potential)
    energy, forces, virial = dispersion.evaluate(atoms)
    alone = potential.evaluate(potential.edges(atoms), atoms.numbers)
    assert atoms.get_potential_energy() == pytest.approx(energy + alone.energy)
    np.testing.assert_allclose(atoms.get_forces(), forces + alone.forces)
    np.testing.assert_allclose(atoms.get_stress(), voigt(virial + alone.virial) / atoms.get_volume())
    for name in ("energies", "stresses"):
        with pytest.raises(
            PropertyNotImplementedError, match="with dispersion, which belongs to no single atom"
        ):
            atoms.calc.get_property(name, atoms)


def without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "dftd3":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in [name for name in sys.modules if name.split(".")[0] == "dftd3"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etnpot.ETN("Cu", dispersion=D3).save(tmp_path / "p.etn")
    without_the_library(monkeypatch)
    potential = etnpot.load(tmp_path / "p.etn")  # to look at it, nothing is needed
    with pytest.raises(InstallationError, match=r"pip install 'etnpot\[dispersion\]'"):
        etnpot.ETNCalculator(potential)
    with pytest.raises(InstallationError, match=r"pip install 'etnpot\[dispersion\]'"):
        etnpot.fit(emt_alloys(2, symbols=("Ni",), repeat=(1, 1, 1)), dispersion=D3, cutoff=3.6, size="small")
    etnpot.ETNCalculator(etnpot.ETN("Cu", dispersion=D2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("d3bj", "expected method and xc"),
        ({"method": "d3bj"}, "expected method and xc"),
        ({**D3, "a1": 0.4}, "expected method and xc"),
        ({**D3, "method": "d5"}, "a method among d3bj, d3zero"),
        ({**D3, "xc": "p b e"}, "name of a functional"),
        ({**D3, "xc": 3}, "name of a functional"),
        ({**D3, "cutoff": 2.0}, "a cutoff from 5 to 100"),
        ({**D3, "cn_cutoff": float("nan")}, "a cn_cutoff from 5 to 100"),
        ({**D3, "three_body": 1}, "three_body true or false"),
        ({**D2, "xc": "m06"}, "D2 has parameters for pbe"),
        ({**D2, "three_body": True}, "no three-body"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        etnpot.ETN("Cu", dispersion=settings)


def test_unknown_functionals_and_elements_are_refused() -> None:
    with pytest.raises(SpecificationError, match="no parameters of d3bj for the functional 'nonsense'"):
        Dispersion(method="d3bj", xc="nonsense").check([29])
    with pytest.raises(SpeciesError, match="D2 has parameters for H to Xe"):
        Dispersion(method="d2", xc="pbe").evaluate(Atoms("Au2", [[0, 0, 0], [0, 0, 3]]))
    with pytest.raises(SpeciesError, match="D3 has parameters for H to Pu"):
        Dispersion(method="d3bj", xc="pbe").check([1, 96])


def test_lammps_gets_the_lines_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, (_, damping) in METHODS.items():
        potential = etnpot.ETN(["Cu", "Ni"], dispersion={"method": method, "xc": "pbe"})
        lines = "\n".join(pair_commands(potential, "x.lammps"))
        assert "* * etn x.lammps Ni Cu" in lines
        style = "momb 31.7506 0.75 20" if method == "d2" else f"dispersion/d3 {damping} pbe 31.7506 21.1671"
        assert f"hybrid/overlay etn {style}" in lines
    potential.save(tmp_path / "x.etn")
    assert main(["lammps", str(tmp_path / "x.etn"), "--out", str(tmp_path)]) == 0
    assert lines.splitlines()[0] in (tmp_path / "in.lammps").read_text()
    assert lines.splitlines()[0] in capsys.readouterr().out
    etnpot.ETN("Cu", dispersion={**D3, "three_body": True}).save(tmp_path / "y.etn")
    assert main(["lammps", str(tmp_path / "y.etn"), "--out", str(tmp_path / "none")]) == 2
    assert "LAMMPS has no three-body term" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
