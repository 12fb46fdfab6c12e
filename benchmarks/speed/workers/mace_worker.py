"""MACE through its ASE calculator: random weights, float32.

Two interactions, correlation 3, harmonics up to l = 3, 64 scalar channels ("mace-64x0e") or 128 of them and 128 vectors
("mace-128x0e+128x1o", the size of MACE's own examples).
"""

from __future__ import annotations

import warnings
from importlib.metadata import version

import common
import numpy as np
import torch
from ase.data import atomic_numbers
from e3nn import o3
from mace.calculators import MACECalculator
from mace.modules import gate_dict, interaction_classes
from mace.modules.models import ScaleShiftMACE

SPECIES = common.SPECIES[:4]


def main() -> None:
    """Time one model at one size."""
    warnings.filterwarnings("ignore")
    values = common.task()
    torch.set_num_threads(values["threads"])
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    atoms = common.cell(values["n_atoms"], SPECIES)
    model = ScaleShiftMACE(
        r_max=common.CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(SPECIES),
        hidden_irreps=o3.Irreps(values["model"].removeprefix("mace-")),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(SPECIES)),
        avg_num_neighbors=54.0,
        atomic_numbers=sorted(atomic_numbers[symbol] for symbol in SPECIES),
        correlation=3,
        gate=gate_dict["silu"],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float32")
    timing = common.time_calculator(atoms, calculator, budget=values["budget"])
    common.report(
        timing,
        with_list=timing,
        n_parameters=n_parameters,
        versions={name: version(name) for name in ("mace-torch", "e3nn", "torch")},
    )


if __name__ == "__main__":
    main()
