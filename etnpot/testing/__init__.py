"""Physics checks that run on any ASE calculator.

Every check measures how far a calculator is from obeying a law that it must obey,

    forces = -∂E/∂x,   stress = (1/V) ∂E/∂strain,   E(g X) = E(X) for every symmetry g,   E local and smooth,

returns the measured numbers, and raises `PhysicsCheckError` with those numbers unless
``raise_on_failure=False``. No check changes the caller's atoms. The symbols are tabulated in the modules
below.

======================================== =================================================================
module                                   holds
======================================== =================================================================
`etnpot.testing.derivatives`             finite differences of the energy with an h-sweep
`etnpot.testing.symmetries`              rotation, inversion, translation, permutation, images, net force
`etnpot.testing.locality`                smoothness at the cutoff, separation, isolated atoms
`etnpot.testing.tensors`                 symmetries and derivatives of dipoles and polarizabilities
`etnpot.testing.structures`              random structures of low symmetry
`etnpot.testing.checks`                  all of them in one report
`etnpot.testing.results`                 what they return
======================================== =================================================================

Example
-------
>>> from ase.calculators.morse import MorsePotential
>>> from etnpot.testing import check_forces, random_structure
>>> import numpy as np
>>> atoms = random_structure(["Cu", "Au"], 8, np.random.default_rng(0))
>>> check_forces(atoms, MorsePotential(r0=2.5)).passed
True
"""

from __future__ import annotations

from etnpot.testing.checks import check_all
from etnpot.testing.derivatives import FORCE_STEPS, STRAIN_STEPS, check_forces, check_stress
from etnpot.testing.locality import check_cutoff_smoothness, check_isolated_atom, check_separation
from etnpot.testing.results import CheckResult, DerivativeResult, Measurement, PhysicsCheckError, Report
from etnpot.testing.structures import (
    default_min_distance,
    default_volume_per_atom,
    random_molecule,
    random_structure,
)
from etnpot.testing.symmetries import (
    check_inversion,
    check_net_force,
    check_permutation,
    check_rotation,
    check_species_relabelling,
    check_supercell,
    check_translation,
    check_wrapping,
    random_rotation,
)
from etnpot.testing.tensors import (
    check_tensor_derivatives,
    check_tensor_inversion,
    check_tensor_permutation,
    check_tensor_rotation,
    check_tensor_translation,
)

__all__ = [
    "FORCE_STEPS",
    "STRAIN_STEPS",
    "CheckResult",
    "DerivativeResult",
    "Measurement",
    "PhysicsCheckError",
    "Report",
    "check_all",
    "check_cutoff_smoothness",
    "check_forces",
    "check_inversion",
    "check_isolated_atom",
    "check_net_force",
    "check_permutation",
    "check_rotation",
    "check_separation",
    "check_species_relabelling",
    "check_stress",
    "check_supercell",
    "check_tensor_derivatives",
    "check_tensor_inversion",
    "check_tensor_permutation",
    "check_tensor_rotation",
    "check_tensor_translation",
    "check_translation",
    "check_wrapping",
    "default_min_distance",
    "default_volume_per_atom",
    "random_molecule",
    "random_rotation",
    "random_structure",
]
