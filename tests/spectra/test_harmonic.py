"""Harmonic spectra against closed forms: springs with charges and bond polarizabilities."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.vibrations import VibrationsData

import etnpot
from etnpot.errors import SpecificationError
from etnpot.potential import make_tensor_model
from etnpot.spectra import harmonic_spectrum, hessian, stokes_factor
from etnpot.spectra.harmonic import COULOMB, KM_PER_MOL, PER_CM, HarmonicSpectrum


class Springs(Calculator):
    """Springs between all pairs, charges, and bonds with a polarizability along and across them that grows with length."""

    implemented_properties = ["energy", "forces", "dipole", "polarizability"]  # noqa: RUF012

    def __init__(self, lengths: np.ndarray, charges: np.ndarray, stiffness: float = 30.0) -> None:
        super().__init__()
        self.lengths, self.charges, self.stiffness = lengths, charges, stiffness

    def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        energy, forces, alpha = 0.0, np.zeros_like(x), np.zeros((3, 3))
        for i in range(len(x)):
            for j in range(i):
                r = x[i] - x[j]
                d = np.linalg.norm(r)
                stretch, u = d - self.lengths[i, j], r / d
                energy += 0.5 * self.stiffness * stretch**2
                forces[i] -= self.stiffness * stretch * u
                forces[j] += self.stiffness * stretch * u
                alpha += (0.02 + 0.05 * stretch) * np.outer(u, u) + (0.01 + 0.02 * stretch) * np.eye(3)
        self.results = {
            "energy": energy,
            "forces": forces,
            "dipole": self.charges @ x,
            "polarizability": alpha,
        }


def test_constants() -> None:
    assert PER_CM == pytest.approx(521.4709, abs=1e-3)
    assert KM_PER_MOL == pytest.approx(42.2561 / units.Debye**2, rel=1e-4)  # ASE's km/mol for 1 (D/Å)²/amu
    assert COULOMB == pytest.approx(14.39964, abs=1e-4)


def test_a_diatomic_molecule_has_the_closed_form() -> None:
    atoms = Atoms("HF", [[0, 0, 0], [0.3, 0.5, 0.72]])
    length = atoms.get_distance(0, 1)
    calculator = Springs(np.full((2, 2), length), np.array([0.4, -0.4]))
    found = harmonic_spectrum(atoms, calculator, step=1e-4)
    reduced = float(1.0 / (1.0 / atoms.get_masses()).sum())
    assert found.frequencies == pytest.approx([PER_CM * np.sqrt(30.0 / reduced)], rel=1e-6)
    assert found.infrared == pytest.approx([KM_PER_MOL * 0.4**2 / reduced], rel=1e-6)
    mean, anisotropy = COULOMB * (0.05 / 3 + 0.02), COULOMB * 0.05
    assert found.raman == pytest.approx([(45 * mean**2 + 7 * anisotropy**2) / reduced], rel=1e-6)
    assert found.depolarization == pytest.approx(
        [3 * anisotropy**2 / (45 * mean**2 + 4 * anisotropy**2)], rel=1e-6
    )


def test_modes_are_those_of_ase(rng: np.random.Generator) -> None:
    atoms = Atoms("OHHC", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.2], [0.1, -0.5, 1.2]])
    calculator = Springs(atoms.get_all_distances(), np.array([-0.8, 0.3, 0.3, 0.2]))
    found = harmonic_spectrum(atoms, calculator, step=1e-3)
    h = hessian(atoms, calculator, step=1e-3)
    assert np.array_equal(h, h.T)
    data = VibrationsData.from_2d(atoms, h)
    theirs = np.sort(data.get_energies().real / units.invcm)[6:]
    assert np.allclose(found.frequencies, theirs, rtol=1e-6)
    gram = np.einsum("qic,i,ric->qr", found.modes_qic, atoms.get_masses(), found.modes_qic)
    assert np.allclose(gram, np.eye(6), atol=1e-12)
    turned = atoms.copy()
    turned.positions = turned.positions @ etnpot.testing.random_rotation(rng).T
    again = harmonic_spectrum(turned, calculator, step=1e-3)
    for name in ("frequencies", "infrared", "raman", "depolarization"):
        assert np.allclose(getattr(again, name), getattr(found, name), rtol=1e-4, atol=1e-5), name


def test_linear_molecules_and_crystals_lose_their_own_rigid_motions() -> None:
    line = Atoms("OCO", [[-1.1, 0, 0], [0, 0, 0], [1.1, 0, 0]])
    calculator = Springs(line.get_all_distances(), np.array([-0.4, 0.8, -0.4]))
    assert len(harmonic_spectrum(line, calculator).frequencies) == 9 - 5
    line.pbc, line.cell = True, np.eye(3) * 9.0
    assert len(harmonic_spectrum(line, calculator).frequencies) == 9 - 3


def test_derivatives_of_the_calculator_and_differences_agree() -> None:
    """With `tensor_derivatives`, and with a calculator that has only the properties."""
    atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    settings: dict[str, Any] = dict(cutoff=3.0, order=2, l_max=2, radial_size=4, channels=2, ranks=2)
    models = {name: make_tensor_model(["H", "O"], name, **settings) for name in ("dipole", "polarizability")}
    springs = Springs(atoms.get_all_distances(), np.zeros(3))

    class Both(Springs):
        def calculate(
            self, atoms: Any = None, properties: Any = (), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            self.results |= {name: model.predict(self.atoms).total for name, model in models.items()}

    class Analytic(Both):
        def tensor_derivatives(self, name: str, atoms: Atoms) -> Any:
            return models[name].predict_derivatives(atoms)[1]

    one = harmonic_spectrum(atoms, Both(springs.lengths, springs.charges), step=1e-3)
    two = harmonic_spectrum(atoms, Analytic(springs.lengths, springs.charges), step=1e-3)
    assert one.infrared is not None and one.raman is not None
    assert np.allclose(one.infrared, two.infrared, rtol=1e-4, atol=1e-4 * one.infrared.max())
    assert np.allclose(one.raman, two.raman, rtol=1e-4, atol=1e-4 * one.raman.max())


def test_no_minimum_is_remarked_on(caplog: pytest.LogCaptureFixture) -> None:
    atoms = Atoms("HF", [[0, 0, 0], [0, 0, 1.2]])
    with caplog.at_level(logging.WARNING, logger="etnpot"):
        harmonic_spectrum(atoms, Springs(np.full((2, 2), 1.0), np.zeros(2)))
    assert "not a minimum" in caplog.text


def test_lines_have_unit_area_and_stokes_factors_a_known_ratio() -> None:
    spectrum = HarmonicSpectrum(np.array([1000.0, 3000.0]), np.zeros((2, 1, 3)), None, None, None)
    grid = np.arange(-20000.0, 20000.0, 0.5)
    curve = spectrum.broadened(np.array([2.0, 5.0]), grid, 8.0)
    assert 0.5 * curve.sum() == pytest.approx(7.0, rel=1e-3)
    assert curve.max() == pytest.approx(5.0 * 2 / (np.pi * 8.0), rel=1e-3)
    cold = stokes_factor([1000.0, 2000.0], 1.0, 500.0)
    assert cold == pytest.approx([1.0, (18000.0 / 19000.0) ** 4 / 2.0])
    with pytest.raises(SpecificationError):
        stokes_factor([1000.0], -1.0, 500.0)
    with pytest.raises(SpecificationError):
        spectrum.broadened(np.ones(2), grid, 0.0)
