"""Equivariant tensor trains as algebra: layouts, cores, canonical forms, rounding, growth.

=============================== ============================================================================
module                          holds
=============================== ============================================================================
`etnpot.network.layout`         bonds with ranks per irrep, paths, and where each block lies in memory
`etnpot.network.train`          the numbers: head and cores
`etnpot.network.unfold`         cores as matrices per irrep, and back
`etnpot.network.canonical`      left-, right- and mixed-orthogonal forms, the Frobenius norm
`etnpot.network.truncation`     SVD of one bond and the choice of what to keep
`etnpot.network.rounding`       lower ranks with a known error; singular values
`etnpot.network.two_site`       two cores merged, and split by SVD
`etnpot.network.algebra`        sums, gauges, growth without a change of the function
`etnpot.network.dense`          the full tensor, for checks
=============================== ============================================================================
"""

from etnpot.network.algebra import (
    add,
    balanced,
    enrich,
    extend_species,
    gauge_transform,
    grow_features,
    grow_order,
    grow_ranks,
    inner,
    relabel_species,
    scale,
)
from etnpot.network.canonical import (
    HEAD,
    Center,
    canonicalize,
    center_norm,
    center_weights,
    frobenius_norm,
    is_canonical,
    is_left_orthogonal,
    is_right_orthogonal,
    left_orthogonalize,
    move_center,
    push_left,
    push_right,
    right_orthogonalize,
)
from etnpot.network.dense import dense_core, dense_tensor, evaluate_dense
from etnpot.network.layout import SCALAR, Bond, CoreLayout, Path, TrainLayout
from etnpot.network.rounding import RoundingReport, bond_entropy, round_train, singular_values
from etnpot.network.train import Train, core_block, flatten_blocks, random_core
from etnpot.network.truncation import Truncation
from etnpot.network.two_site import full_bond, merge_cores, split_cores

__all__ = [
    "HEAD",
    "SCALAR",
    "Bond",
    "Center",
    "CoreLayout",
    "Path",
    "RoundingReport",
    "Train",
    "TrainLayout",
    "Truncation",
    "add",
    "balanced",
    "bond_entropy",
    "canonicalize",
    "center_norm",
    "center_weights",
    "core_block",
    "dense_core",
    "dense_tensor",
    "enrich",
    "evaluate_dense",
    "extend_species",
    "flatten_blocks",
    "frobenius_norm",
    "full_bond",
    "gauge_transform",
    "grow_features",
    "grow_order",
    "grow_ranks",
    "inner",
    "is_canonical",
    "is_left_orthogonal",
    "is_right_orthogonal",
    "left_orthogonalize",
    "merge_cores",
    "move_center",
    "push_left",
    "push_right",
    "random_core",
    "relabel_species",
    "right_orthogonalize",
    "round_train",
    "scale",
    "singular_values",
    "split_cores",
]
