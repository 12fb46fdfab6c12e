"""Interatomic potentials from equivariant tensor networks.

The energy of an atom is an equivariant tensor train contracted with the features of its neighbourhood,

    E_i = E0[z_i] + A_0[z_i] A_1[v_i] A_2[v_i] ... A_d[v_i]
    v_i[c, l, m] = N^(-1/2) sum_j R_c^l(r_ij; z_i, z_j) Y_lm(r_ij),

linear in each core A_k. The names below are loaded on first use, so that ``import etnpot`` stays fast.

============== =======================================================================
name           what
============== =======================================================================
ETN            makes a potential from species, cutoff, order, l_max, ... with defaults
Potential      specification + parameters: energies, forces, virial, descriptors
PotentialSpec  the validated, immutable specification
load           reads a potential file
fit            fits a potential to data; gives a FitResult
fit_tensor     fits a model of dipoles, polarizabilities, ...; gives a TensorFitResult
TensorModel    such a model: tensors of atoms and structures, and their derivatives
Quantity       what such a model gives: name, form, unit
load_tensor    reads the file of such a model
FitSettings    everything that can be set in a fit
DataSet        labelled configurations, from files or Atoms
compare        trains and evaluates potentials side by side; gives a StudyResult
ETNCalculator  the ASE calculator
GradeMonitor   watches the extrapolation grade of a run in ASE
ActiveLearning fit, explore, choose, compute, and again
spectra        infrared and Raman spectra, of modes and of dynamics
testing        physics checks to run on any ASE calculator
errors         every exception that etnpot raises on purpose
============== =======================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from etnpot import _ase_name

if TYPE_CHECKING:
    from etnpot import errors, spectra, testing
    from etnpot.compare.runner import compare
    from etnpot.fitting.dataset import DataSet
    from etnpot.fitting.fit import FitResult, fit
    from etnpot.fitting.settings import FitSettings
    from etnpot.fitting.tensor_fit import fit_tensor
    from etnpot.interfaces.active_learning import ActiveLearning
    from etnpot.interfaces.ase import ETNCalculator
    from etnpot.interfaces.monitor import GradeMonitor
    from etnpot.potential import ETN, Potential, PotentialSpec, Quantity, TensorModel, load, load_tensor

__version__ = "0.1.0"

__all__ = [
    "ETN",
    "ActiveLearning",
    "DataSet",
    "ETNCalculator",
    "FitResult",
    "FitSettings",
    "GradeMonitor",
    "Potential",
    "PotentialSpec",
    "Quantity",
    "TensorModel",
    "__version__",
    "compare",
    "errors",
    "fit",
    "fit_tensor",
    "load",
    "load_tensor",
    "spectra",
    "testing",
]

#: Public name -> (module, attribute); no attribute means the module itself.
_LAZY: dict[str, tuple[str, str | None]] = {
    "ETN": ("etnpot.potential", "ETN"),
    "ActiveLearning": ("etnpot.interfaces.active_learning", "ActiveLearning"),
    "DataSet": ("etnpot.fitting.dataset", "DataSet"),
    "ETNCalculator": ("etnpot.interfaces.ase", "ETNCalculator"),
    "FitResult": ("etnpot.fitting.fit", "FitResult"),
    "FitSettings": ("etnpot.fitting.settings", "FitSettings"),
    "GradeMonitor": ("etnpot.interfaces.monitor", "GradeMonitor"),
    "Potential": ("etnpot.potential", "Potential"),
    "PotentialSpec": ("etnpot.potential", "PotentialSpec"),
    "Quantity": ("etnpot.potential", "Quantity"),
    "TensorModel": ("etnpot.potential", "TensorModel"),
    "compare": ("etnpot.compare", None),
    "errors": ("etnpot.errors", None),
    "fit": ("etnpot.fitting.fit", "fit"),
    "fit_tensor": ("etnpot.fitting.tensor_fit", "fit_tensor"),
    "load": ("etnpot.potential", "load"),
    "load_tensor": ("etnpot.potential", "load_tensor"),
    "spectra": ("etnpot.spectra", None),
    "testing": ("etnpot.testing", None),
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    try:
        module_name, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(
            f"module 'etnpot' has no attribute {name!r}; it has {', '.join(__all__)}"
        ) from None
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


_ase_name.install()
