"""Spectra of time series: dipoles give infrared absorption, polarizabilities Raman activity.

With the spectral density of a series y of vectors, from the autocorrelation of its time derivative at lags up to L with a
window w,

    C(t) = <dy/dt(0) . dy/dt(t)>,    S(nu) = 2 c ∫_{-L}^{L} w(t) C(t) cos(2 pi c nu t) dt,    ∫_0^∞ S dnu = <|dy/dt|²>      (1)

the spectra are

    A(nu) = N_A/(12 eps0 c²) S_mu(nu) / kT                                         km/mol per 1/cm         (2)
    R(nu) = [ 45 S_a(nu) + 21/2 S_b(nu) ] / kT,    a = tr(alpha)/3,  b = alpha - a 1      Å⁴/amu per 1/cm  (3)

since a classical harmonic mode has <|dmu/dt|²> = |dmu/dQ|² kT: the integral over a band is the harmonic intensity of its modes.
Equations (2) and (3) hold the harmonic quantum correction. Others differ by a factor of x = h c nu / kT:

============  ====================================  ====================
correction    of the correlation function of mu     factor on (2), (3)
============  ====================================  ====================
harmonic      x / (1 - exp(-x))                     1
standard      2 / (1 + exp(-x))                     tanh(x/2) / (x/2)
schofield     exp(x/2)                              sinh(x/2) / (x/2)
none          1                                     (1 - exp(-x)) / x
============  ====================================  ====================

(R. Ramírez, T. López-Ciudad, P. Kumar P, D. Marx, J. Chem. Phys. 121, 3973 (2004)). The derivative is a central difference of
the series, dy/dt = [y(t + dt) - y(t - dt)] / 2 dt, whose response sin(2 pi c nu dt) / (2 pi c nu dt) is divided out.

============  ==============================================
symbol        here
============  ==============================================
y             ``series`` [t, ...]
nu            ``Spectrum.wavenumbers`` [w], 1/cm
A, R          ``Spectrum.intensities`` [w]
L             ``lag``, fs
============  ==============================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from numpy.typing import ArrayLike, NDArray

from etnpot.errors import DataError, SpecificationError
from etnpot.spectra.harmonic import COULOMB, KM_PER_MOL

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "CORRECTIONS",
    "WINDOWS",
    "Spectrum",
    "infrared_spectrum",
    "quantum_correction",
    "raman_spectrum",
    "tensor_series",
]

Floats = NDArray[np.float64]

#: Quantum corrections.
CORRECTIONS = ("harmonic", "standard", "schofield", "none")
#: Windows on the correlation function.
WINDOWS = ("hann", "gaussian", "none")
#: c, cm/fs.
_C = units._c * 100.0 * 1e-15
#: amu Å²/fs² per eV.
_AMU = units._e / units._amu * 1e-10
#: The part of the band below the Nyquist frequency in which the response of the central difference is divided out.
_BAND = 0.8


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A spectrum.

    Attributes
    ----------
    wavenumbers : float64 [w], 1/cm
        From 0 in equal steps.
    intensities : float64 [w]
        km/mol or Å⁴/amu per 1/cm.
    kind : {"infrared", "raman"}
    resolution : float, 1/cm
        1/(2 c L): what is narrower is as wide as the window makes it.
    """

    wavenumbers: Floats
    intensities: Floats
    kind: str
    resolution: float

    def integral(self, low: float, high: float) -> float:
        """Intensity of a band, km/mol or Å⁴/amu."""
        inside = (self.wavenumbers >= low) & (self.wavenumbers <= high)
        return float(self.intensities[inside].sum() * (self.wavenumbers[1] - self.wavenumbers[0]))

    def peak(self, low: float, high: float) -> float:
        """Wavenumber of the highest point of a band, from a parabola through it and its neighbours, 1/cm."""
        inside = np.flatnonzero((self.wavenumbers >= low) & (self.wavenumbers <= high))
        if len(inside) == 0:
            raise SpecificationError(f"there are no points between {low:g} and {high:g} 1/cm")
        at = int(inside[np.argmax(self.intensities[inside])])
        if at in (0, len(self.wavenumbers) - 1):
            return float(self.wavenumbers[at])
        before, here, after = self.intensities[at - 1 : at + 2]
        bend = before - 2.0 * here + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
        return float(self.wavenumbers[at] + shift * (self.wavenumbers[1] - self.wavenumbers[0]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "resolution": self.resolution,
            "wavenumbers": self.wavenumbers.tolist(),
            "intensities": self.intensities.tolist(),
        }


def infrared_spectrum(dipoles: ArrayLike, timestep: float, temperature: float, **options: Any) -> Spectrum:
    """Absorption from a series of dipoles, eq. (2).

    Parameters
    ----------
    dipoles : float64 [t, 3], e Å
        Total dipoles at equal times, continuous in time (no jumps between branches of the polarization).
    timestep : float, fs
        Between two of them; at most about a tenth of the shortest period.
    temperature : float, K
        Of the simulation.
    lag, window, correction, highest
        As for `raman_spectrum`.

    Returns
    -------
    Spectrum
    """
    series = _checked_series(dipoles, (3,))
    density, wavenumbers, resolution = _density([(1.0, series)], timestep, **_density_options(options))
    scale = KM_PER_MOL / (_thermal(temperature) * _AMU)
    factor = quantum_correction(wavenumbers, temperature, options.get("correction", "harmonic"))
    return Spectrum(wavenumbers, scale * factor * density, "infrared", resolution)


def raman_spectrum(
    polarizabilities: ArrayLike, timestep: float, temperature: float, **options: Any
) -> Spectrum:
    """Raman activity from a series of polarizabilities, eq. (3).

    Parameters
    ----------
    polarizabilities : float64 [t, 3, 3], e²Å²/eV
        At equal times.
    timestep, temperature
        As for `infrared_spectrum`.
    lag : float, fs, optional
        L. Default: 4000 fs, at most half of the series.
    window : {"hann", "gaussian", "none"}
        w: cos²(pi t/2L), exp(-(3 t/L)²/2), or 1.
    correction : {"harmonic", "standard", "schofield", "none"}
        Quantum correction.
    highest : float, 1/cm
        Where the spectrum ends. Default: 5000, at most 0.8 of the highest that the time step resolves.

    Returns
    -------
    Spectrum
    """
    series = _checked_series(polarizabilities, (3, 3))
    mean = np.trace(series, axis1=1, axis2=2) / 3.0
    rest = series - mean[:, None, None] * np.eye(3)
    parts = [(45.0, mean[:, None]), (10.5, rest.reshape(len(series), -1))]
    density, wavenumbers, resolution = _density(parts, timestep, **_density_options(options))
    scale = COULOMB**2 / (_thermal(temperature) * _AMU)
    factor = quantum_correction(wavenumbers, temperature, options.get("correction", "harmonic"))
    return Spectrum(wavenumbers, scale * factor * density, "raman", resolution)


def quantum_correction(wavenumbers: ArrayLike, temperature: float, correction: str) -> Floats:
    """Factor on the spectra (2) and (3), which hold the harmonic one; the table of the module.

    Parameters
    ----------
    wavenumbers : array_like, 1/cm
    temperature : float, K
    correction : {"harmonic", "standard", "schofield", "none"}
    """
    if correction not in CORRECTIONS:
        raise SpecificationError(f"correction: expected one of {', '.join(CORRECTIONS)}, got {correction!r}")
    nu = np.asarray(wavenumbers, dtype=np.float64)
    x = units._hplanck * units._c * 100.0 * nu / (units._e * _thermal(temperature))
    small = np.maximum(np.abs(x), 1e-6)
    if correction == "standard":
        return np.asarray(np.tanh(0.5 * small) / (0.5 * small))
    if correction == "schofield":
        return np.asarray(np.sinh(0.5 * small) / (0.5 * small))
    if correction == "none":
        return np.asarray(-np.expm1(-small) / small)
    return np.ones_like(x)


def tensor_series(frames: Iterable[Atoms], model: Any = None, *, name: str = "dipole") -> Floats:
    """Values along a trajectory: of a tensor model, or those that the frames carry.

    Parameters
    ----------
    frames : iterable of Atoms
    model : TensorModel, optional
        Without one, the labels of the frames are taken as `etnpot.io.tensor_labels.read_tensors` finds them.
    name : str
        "dipole" or "polarizability".

    Returns
    -------
    float64 array [t, 3] or [t, 3, 3]
    """
    if model is not None:
        return np.array([model.predict(atoms).total for atoms in frames])
    from etnpot.io.tensor_labels import read_tensors

    listed = list(frames)
    labels = read_tensors(listed, name, (3,) if name == "dipole" else (3, 3))
    if len(labels) != len(listed):
        raise DataError(
            f"{len(listed) - len(labels)} of {len(listed)} frames carry no {name}; give a model of it, or remove "
            "them if the times stay equally spaced"
        )
    return np.array([label.value for label in labels])


def _checked_series(series: ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = np.asarray(series, dtype=np.float64)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape or len(array) < 16:
        raise DataError(
            f"expected at least 16 values of shape {list(shape)}, got an array {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise DataError("the series is not finite: look at the trajectory")
    return array


def _thermal(temperature: float) -> float:
    """kT, eV."""
    if (
        isinstance(temperature, bool)
        or not isinstance(temperature, int | float | np.number)
        or not 0 < temperature < 1e6
    ):
        raise SpecificationError(f"temperature: expected a positive number in K, got {temperature!r}")
    return float(units.kB * temperature)


def _density_options(options: dict[str, Any]) -> dict[str, Any]:
    known = ("lag", "window", "highest", "correction")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SpecificationError(f"unknown options {', '.join(unknown)}; they are {', '.join(known)}")
    return {name: value for name, value in options.items() if name != "correction"}


def _density(
    parts: list[tuple[float, Floats]],
    timestep: float,
    lag: float | None = None,
    window: str = "hann",
    highest: float | None = None,
) -> tuple[Floats, Floats, float]:
    """Weighted sum of S of eq. (1), units of y²/fs² per 1/cm; wavenumbers; resolution."""
    if not (isinstance(timestep, int | float | np.number) and 0 < timestep < 1e4):
        raise SpecificationError(f"timestep: expected a positive number in fs, got {timestep!r}")
    if window not in WINDOWS:
        raise SpecificationError(f"window: expected one of {', '.join(WINDOWS)}, got {window!r}")
    n_times = len(parts[0][1]) - 2
    most = n_times // 2
    n_lags = min(most, round(4000.0 / timestep)) if lag is None else round(lag / timestep)
    if not 4 <= n_lags <= most:
        raise SpecificationError(
            f"lag: expected from {4 * timestep:g} to {most * timestep:g} fs (half of the series), got {lag!r}"
        )
    correlation = np.zeros(n_lags + 1)
    for weight, series in parts:
        slope = (series[2:] - series[:-2]) / (2.0 * timestep)
        transform = np.fft.rfft(slope, n=2 * len(slope), axis=0)
        full = np.fft.irfft((np.abs(transform) ** 2).sum(axis=1))[: n_lags + 1]
        correlation += weight * full / (len(slope) - np.arange(n_lags + 1))
    t = np.arange(n_lags + 1) / n_lags
    if window == "hann":
        correlation *= np.cos(0.5 * np.pi * t) ** 2
    elif window == "gaussian":
        correlation *= np.exp(-0.5 * (3.0 * t) ** 2)
    n_fft = 1 << int(np.ceil(np.log2(8 * n_lags)))
    even = np.zeros(n_fft)
    even[: n_lags + 1] = correlation
    even[-n_lags:] = correlation[:0:-1]
    density = 2.0 * _C * timestep * np.fft.rfft(even).real
    wavenumbers = np.arange(len(density)) / (n_fft * timestep * _C)
    end = min(5000.0 if highest is None else highest, _BAND * wavenumbers[-1])
    kept = wavenumbers <= end
    phase = 2.0 * np.pi * _C * wavenumbers[kept] * timestep
    response = np.sinc(phase / np.pi)
    return density[kept] / response**2, wavenumbers[kept], 1.0 / (2.0 * _C * n_lags * timestep)
