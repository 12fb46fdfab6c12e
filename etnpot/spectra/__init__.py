"""Infrared and Raman spectra, from normal modes and from molecular dynamics.

========================== ==================================================================================
module                     holds
========================== ==================================================================================
`etnpot.spectra.harmonic`  normal modes, infrared intensities and Raman activities of a minimum
`etnpot.spectra.dynamics`  spectra of time series of dipoles and polarizabilities
`etnpot.spectra.figures`   figures of both
========================== ==================================================================================

Intensities have the same units in both: km/mol and Å⁴/amu for a mode, and the same per 1/cm for a spectrum, whose integral over
a band is what its modes have.
"""

from etnpot.spectra.dynamics import (
    CORRECTIONS,
    WINDOWS,
    Spectrum,
    infrared_spectrum,
    quantum_correction,
    raman_spectrum,
    tensor_series,
)
from etnpot.spectra.figures import plot_spectra
from etnpot.spectra.harmonic import HarmonicSpectrum, harmonic_spectrum, hessian, stokes_factor

__all__ = [
    "CORRECTIONS",
    "WINDOWS",
    "HarmonicSpectrum",
    "Spectrum",
    "harmonic_spectrum",
    "hessian",
    "infrared_spectrum",
    "plot_spectra",
    "quantum_correction",
    "raman_spectrum",
    "stokes_factor",
    "tensor_series",
]
