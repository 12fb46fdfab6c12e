"""Spectra of series whose spectra are known: oscillations of given energies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from etnpot.errors import DataError, SpecificationError
from etnpot.potential import make_tensor_model
from etnpot.spectra import (
    CORRECTIONS,
    WINDOWS,
    infrared_spectrum,
    plot_spectra,
    quantum_correction,
    raman_spectrum,
    tensor_series,
)
from etnpot.spectra.harmonic import COULOMB, KM_PER_MOL

#: 1/cm to radians per fs.
ANGULAR = 2.0 * np.pi * units._c * 100.0 * 1e-15
TIMESTEP = 0.5
TIMES = TIMESTEP * np.arange(16000)
KT = units.kB * 300.0


def amplitude(wavenumber: float, slope: float) -> float:
    """Of y = a cos(omega t), where y = slope Q and Q (amu^1/2 Å) is a classical oscillator of energy kT."""
    q = np.sqrt(2.0 * KT * units._e / units._amu * 1e-10) / (ANGULAR * wavenumber)  # Å amu^1/2, with fs
    return float(slope * q)


@pytest.mark.parametrize("window", WINDOWS)
def test_bands_have_the_place_and_the_intensity_of_their_modes(window: str) -> None:
    dipoles = np.tile([3.0, -1.0, 0.5], (len(TIMES), 1))  # a constant dipole absorbs nothing
    for c, (nu, slope) in enumerate(((800.0, 0.2), (1650.0, 0.1), (3700.0, 0.3))):
        dipoles[:, c] += amplitude(nu, slope) * np.cos(ANGULAR * nu * TIMES + c)
    found = infrared_spectrum(dipoles, TIMESTEP, 300.0, window=window)
    for nu, slope in ((800.0, 0.2), (1650.0, 0.1), (3700.0, 0.3)):
        assert found.peak(nu - 60, nu + 60) == pytest.approx(nu, abs=0.5)
        wide = 300.0
        tolerance = 0.1 if window == "none" else 0.01  # the window "none" rings far out
        assert found.integral(nu - wide, nu + wide) == pytest.approx(KM_PER_MOL * slope**2, rel=tolerance)
    assert found.resolution == pytest.approx(1e15 / (2 * units._c * 100 * 3999.5), rel=1e-3)


def test_raman_of_a_breathing_and_a_stretching_mode() -> None:
    axis = np.array([1.0, 2.0, 2.0]) / 3.0
    stretch = np.outer(axis, axis) - np.eye(3) / 3.0
    for nu, slope, shape, activity in (
        (1200.0, 0.02, np.eye(3), 45.0),
        (2500.0, 0.03, stretch, 7.0 * 1.5 * (stretch**2).sum()),
    ):
        alphas = 0.1 * np.eye(3) + amplitude(nu, slope) * np.cos(ANGULAR * nu * TIMES)[:, None, None] * shape
        found = raman_spectrum(alphas, TIMESTEP, 300.0)
        assert found.peak(nu - 60, nu + 60) == pytest.approx(nu, abs=0.5)
        expected = activity * (COULOMB * slope) ** 2
        assert found.integral(nu - 200, nu + 200) == pytest.approx(expected, rel=0.01)


def test_a_direct_sum_gives_the_same_numbers(rng: np.random.Generator) -> None:
    """The definition (1), lag by lag and frequency by frequency."""
    series, n_lags = rng.normal(size=(60, 3)), 20
    found = infrared_spectrum(series, 2.0, 250.0, lag=2.0 * n_lags, window="hann", highest=4000.0)
    slope = (series[2:] - series[:-2]) / 4.0
    correlation = [(slope[: len(slope) - k] * slope[k:]).sum() / (len(slope) - k) for k in range(n_lags + 1)]
    for at in (0, 7, 30):
        nu = found.wavenumbers[at]
        phase = ANGULAR * nu * 2.0
        total = correlation[0] + 2.0 * sum(
            np.cos(0.5 * np.pi * k / n_lags) ** 2 * correlation[k] * np.cos(phase * k)
            for k in range(1, n_lags + 1)
        )
        density = (
            2.0 * units._c * 100.0 * 1e-15 * 2.0 * total / (np.sin(phase) / phase if phase else 1.0) ** 2
        )
        thermal = units.kB * 250.0 * units._e / units._amu * 1e-10
        assert found.intensities[at] == pytest.approx(KM_PER_MOL * density / thermal, rel=1e-9)


def test_quantum_corrections_keep_detailed_balance_in_the_classical_limit() -> None:
    nu = np.array([1e-3, 500.0, 3000.0])
    x = units._hplanck * units._c * 100 * nu / (units._k * 300.0)
    expected = {
        "harmonic": np.ones(3),
        "standard": np.tanh(x / 2) / (x / 2),
        "schofield": np.sinh(x / 2) / (x / 2),
        "none": (1 - np.exp(-x)) / x,
    }
    for name in CORRECTIONS:
        found = quantum_correction(nu, 300.0, name)
        assert np.allclose(found, expected[name], rtol=1e-4)
        assert found[0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(lag=9000.0), "lag: expected from"),
        (dict(window="box"), "window: expected one of hann"),
        (dict(correction="quantum"), "correction: expected one of"),
        (dict(width=3), "unknown options width"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        infrared_spectrum(np.zeros((1000, 3)), 1.0, 300.0, **options)


def test_series_of_frames_and_of_models() -> None:
    frames = []
    for k in range(20):
        atoms = Atoms("HF", [[0, 0, 0], [0, 0, 0.9 + 0.01 * k]])
        atoms.calc = SinglePointCalculator(atoms, dipole=[0.0, 0.0, 0.1 * k])
        frames.append(atoms)
    assert np.allclose(tensor_series(frames)[:, 2], 0.1 * np.arange(20))
    model = make_tensor_model(["H", "F"], "polarizability", cutoff=3.0, l_max=2, order=2)
    series = tensor_series(frames, model, name="polarizability")
    assert np.array_equal(series[3], model.predict(frames[3]).total)
    frames[4].calc = None
    with pytest.raises(DataError, match="1 of 20 frames carry no dipole"):
        tensor_series(frames)
    with pytest.raises(DataError, match="at least 16"):
        infrared_spectrum(np.zeros((5, 3)), 1.0, 300.0)
    with pytest.raises(DataError, match="not finite"):
        infrared_spectrum(np.full((50, 3), np.nan), 1.0, 300.0)
    with pytest.raises(SpecificationError, match="temperature"):
        infrared_spectrum(np.zeros((50, 3)), 1.0, 0.0)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(DataError, match="no spectrum"):
        plot_spectra({})
