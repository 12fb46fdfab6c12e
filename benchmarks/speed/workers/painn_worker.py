"""PaiNN through SchNetPack's ASE calculator: random weights, float32.

64 features, 3 interactions, 20 Gaussians (SchNetPack's own examples use these with up to 128 features); the neighbour list is
the one of matscipy, at every call.
"""

from __future__ import annotations

import tempfile
import typing
import warnings
from importlib.metadata import version
from pathlib import Path

import common
import torch
import torch.utils.data.dataloader


def main() -> None:
    """Time one size."""
    warnings.filterwarnings("ignore")
    values = common.task()
    torch.set_num_threads(values["threads"])
    torch.manual_seed(0)
    # SchNetPack 2.1.1 imports this type variable, which recent versions of torch no longer have
    if not hasattr(torch.utils.data.dataloader, "T_co"):
        torch.utils.data.dataloader.T_co = typing.TypeVar("T_co", covariant=True)
    import schnetpack as spk
    import schnetpack.transform as trn
    from schnetpack.interfaces import SpkCalculator

    model = spk.model.NeuralNetworkPotential(
        representation=spk.representation.PaiNN(
            n_atom_basis=64,
            n_interactions=3,
            radial_basis=spk.nn.GaussianRBF(n_rbf=20, cutoff=common.CUTOFF),
            cutoff_fn=spk.nn.CosineCutoff(common.CUTOFF),
        ),
        input_modules=[spk.atomistic.Strain(), spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=64, output_key="energy"),
            spk.atomistic.Forces(calc_forces=True, calc_stress=True, energy_key="energy"),
        ],
    )
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model"
        torch.save(model, path)
        calculator = SpkCalculator(
            model_file=str(path),
            neighbor_list=trn.MatScipyNeighborList(cutoff=common.CUTOFF),
            energy_key="energy",
            force_key="forces",
            stress_key="stress",
            energy_unit="eV",
            position_unit="Angstrom",
        )
    timing = common.time_calculator(common.cell(values["n_atoms"]), calculator, budget=values["budget"])
    common.report(
        timing,
        with_list=timing,
        n_parameters=n_parameters,
        versions={name: version(name) for name in ("schnetpack", "torch")},
    )


if __name__ == "__main__":
    main()
