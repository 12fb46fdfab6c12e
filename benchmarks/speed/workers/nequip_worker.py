"""NequIP and Allegro through their ASE calculator: random weights, float32, compiled with AOTInductor.

The model is built by the packages' own builders, exported by the function behind ``nequip-compile --mode aotinductor --target
ase``, and kept in a cache directory, so that a model is compiled once.
"""

from __future__ import annotations

import os
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import common
import torch
from nequip.ase import NequIPCalculator
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.scripts._compile_utils import AOTI_ASE_TARGET, COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import get_latest_global_state, set_global_state

SPECIES = common.SPECIES[:4]
SHARED: dict[str, Any] = {
    "seed": 0,
    "model_dtype": "float32",
    "r_max": common.CUTOFF,
    "type_names": list(SPECIES),
    "avg_num_neighbors": 54.0,
}


def build(name: str) -> Any:
    """A model with random weights."""
    if name == "nequip":
        from nequip.model import NequIPGNNModel

        return NequIPGNNModel(
            **SHARED, num_layers=2, l_max=1, parity=False, num_features=32, radial_mlp_width=64
        )
    from allegro.model import AllegroModel

    return AllegroModel(
        **SHARED,
        l_max=2,
        parity=True,
        num_layers=1,
        num_scalar_features=64,
        num_tensor_features=16,
        radial_chemical_embed={"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 8},
        radial_chemical_embed_dim=32,
        scalar_embed_mlp_hidden_layers_depth=1,
        scalar_embed_mlp_hidden_layers_width=64,
        allegro_mlp_hidden_layers_depth=1,
        allegro_mlp_hidden_layers_width=64,
        readout_mlp_hidden_layers_depth=1,
        readout_mlp_hidden_layers_width=32,
    )


def exported(model: Any, path: Path) -> None:
    """Compile the model for the ASE calculator."""
    data = from_ase(common.cell(108, SPECIES))
    types = {symbol: symbol for symbol in SPECIES}
    for transform in (
        ChemicalSpeciesToAtomTypeMapper(
            model_type_names=list(SPECIES), chemical_species_to_atom_type_map=types
        ),
        NeighborListTransform(r_max=common.CUTOFF),
    ):
        data = transform(data)
    target = COMPILE_TARGET_DICT[AOTI_ASE_TARGET]
    dims = {
        "graph": torch.export.Dim.STATIC,
        "node": torch.export.dynamic_shapes.Dim("num_nodes", min=2, max=torch.inf),
        "edge": torch.export.dynamic_shapes.Dim("num_edges", min=2, max=torch.inf),
    }
    metadata = {**model.metadata, **get_latest_global_state(only_metadata_related=True)}
    metadata = {k: str(int(v)) if isinstance(v, bool) else str(v) for k, v in metadata.items()}
    from nequip.utils.aoti_metadata import (
        NEQUIP_AOTI_INPUTS_KEY,
        NEQUIP_AOTI_OUTPUTS_KEY,
        serialize_aoti_keys,
    )

    metadata[NEQUIP_AOTI_INPUTS_KEY] = serialize_aoti_keys(target["input"])
    metadata[NEQUIP_AOTI_OUTPUTS_KEY] = serialize_aoti_keys(target["output"])
    aot_export_model(
        model=model,
        device=torch.device("cpu"),
        input_fields=target["input"],
        output_fields=target["output"],
        data=target["data_settings"](AtomicDataDict.to_(data, torch.device("cpu"))),
        batch_map=dims,
        output_path=str(path),
        inductor_configs={"aot_inductor.metadata": metadata},
    )


def main() -> None:
    """Time one model at one size."""
    warnings.filterwarnings("ignore")
    values = common.task()
    torch.set_num_threads(values["threads"])
    set_global_state(allow_tf32=False)
    name = values["model"]
    distributions = ("nequip", "nequip-allegro", "e3nn", "torch")
    versions = {
        package: version(package)
        for package in distributions
        if name == "allegro" or package != "nequip-allegro"
    }
    model = build(name)
    n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    path = Path(values["cache"]) / f"{name}-{versions['nequip']}-{n_parameters}.nequip.pt2"
    compile_seconds = None
    if not path.exists():
        begin = time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name("partial-" + path.name)
        exported(model.eval(), partial)
        os.replace(partial, path)
        compile_seconds = round(time.perf_counter() - begin, 1)
    calculator = NequIPCalculator.from_compiled_model(
        str(path), device="cpu", chemical_species_to_atom_type_map={symbol: symbol for symbol in SPECIES}
    )
    timing = common.time_calculator(
        common.cell(values["n_atoms"], SPECIES), calculator, budget=values["budget"]
    )
    common.report(
        timing,
        with_list=timing,
        n_parameters=n_parameters,
        compile_seconds=compile_seconds,
        versions=versions,
    )


if __name__ == "__main__":
    main()
