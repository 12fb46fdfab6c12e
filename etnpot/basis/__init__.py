"""The factors of the atomic features, one module per factor of the formula.

    R_c^l(r; z_i, z_j) Y_lm(r_ij/|r_ij|),    R_c^l = sum_{n,k} B^l[c, n, k] phi_n(r) S^l[k](z_i, z_j)

============== ===============================================
factor         module
============== ===============================================
phi_n(r)       `radial`, which multiplies by f_c(r) of `cutoff`
Y_lm           `angular`
S^l[k]         `species`
============== ===============================================

`repulsion` is what the energy has below the shortest distances of the data.

Everything here is plain numpy, written to be read; compiled kernels repeat it from the tables that
`RadialBasis.kernel_tables`, `recurrence_constants` and `SpeciesFactor.table` hand over.
"""

from etnpot.basis.angular import recurrence_constants, solid_harmonics, spherical_harmonics
from etnpot.basis.cutoff import CUTOFF_FUNCTIONS, SATURATION_WIDTH, evaluate_cutoff, scaled_coordinate
from etnpot.basis.radial import RADIAL_FAMILIES, RadialBasis
from etnpot.basis.repulsion import (
    BOUND_WIDTH,
    REPULSIONS,
    ZBL_CONSTANTS,
    Repulsion,
    bounded,
    cold_elements,
    cold_pairs,
    data_distances,
    smooth_step,
    zbl,
)
from etnpot.basis.species import (
    SPECIES_FORMS,
    EmbeddingProduct,
    PairTable,
    SpeciesFactor,
    make_species_factor,
)

__all__ = [
    "BOUND_WIDTH",
    "CUTOFF_FUNCTIONS",
    "RADIAL_FAMILIES",
    "REPULSIONS",
    "SATURATION_WIDTH",
    "SPECIES_FORMS",
    "ZBL_CONSTANTS",
    "EmbeddingProduct",
    "PairTable",
    "RadialBasis",
    "Repulsion",
    "SpeciesFactor",
    "bounded",
    "cold_elements",
    "cold_pairs",
    "data_distances",
    "evaluate_cutoff",
    "make_species_factor",
    "recurrence_constants",
    "scaled_coordinate",
    "smooth_step",
    "solid_harmonics",
    "spherical_harmonics",
    "zbl",
]
