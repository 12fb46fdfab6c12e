"""NequIP and Allegro, trained by ``nequip-train`` and compiled by ``nequip-compile --mode aotinductor``.

Loss, optimiser, scheduler and moving average are those of NequIP's tutorial configuration. The compilation comes after the
training and is no part of its time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from etnpot.compare.adapters.base import Adapter, Job, composition_energies, has_stress

__all__ = ["Allegro", "NequIP"]

_SHARED = {"r_max": 5.0, "batch_size": 5, "lr": 0.01, "ema_decay": 0.99, "model_dtype": "float32"}
#: Length of the cell vectors of structures that have none, Å; they are not periodic along them.
_ROOM = 100.0


class NequIP(Adapter):
    """``model`` takes any other argument of the model's builder."""

    title = "NequIP"
    environment = "nequip"
    distributions: ClassVar[tuple[str, ...]] = ("nequip", "e3nn", "torch", "lightning")
    builder: ClassVar[str] = "nequip.model.NequIPGNNModel"
    defaults: ClassVar[Mapping[str, Any]] = {
        **_SHARED,
        "num_layers": 2,
        "l_max": 1,
        "parity": True,
        "num_features": 32,
        "radial_mlp_depth": 1,
        "radial_mlp_width": 64,
        "model": {},
    }

    def train(self, job: Job) -> dict[str, Any]:
        """Train and compile by NequIP's own programs."""
        job.needs_valid(self.title)
        config = self.config(job)
        # JSON is YAML
        (job.directory / "config.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")
        begin = time.perf_counter()
        _program(
            "nequip.scripts.train", "-cp", str(job.directory), "-cn", "config",
            f"hydra.run.dir={job.directory}", "hydra.output_subdir=null",
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        _program(
            "nequip.scripts.compile", str(job.directory / "best.ckpt"), str(job.directory / "model.nequip.pt2"),
            "--mode", "aotinductor", "--device", "cpu", "--target", "ase",
        )  # fmt: skip
        import torch

        checkpoint = torch.load(job.directory / "last.ckpt", map_location="cpu", weights_only=False)
        counted = json.loads((job.directory / "parameters.json").read_text(encoding="utf-8"))
        return {
            "n_parameters": counted["n_parameters"],
            "epochs": int(checkpoint["epoch"]) + 1,
            "seconds": counted.get("seconds", seconds),
            "note": "epochs or time used up",
        }

    def config(self, job: Job) -> dict[str, Any]:
        """What ``nequip-train`` is given."""
        settings = dict(job.settings)
        frames = job.frames("train")
        stress = has_stress(frames + job.frames("valid"))
        for name in ("train", "valid"):
            self._write(job, name, stress)
        energies = composition_energies(frames)
        batch = settings.pop("batch_size")
        lr, decay = settings.pop("lr"), settings.pop("ema_decay")
        more = settings.pop("model")
        coeffs = {"total_energy": 1.0, "forces": 1.0, **({"stress": 1.0} if stress else {})}
        kind = "EnergyForceStress" if stress else "EnergyForce"
        monitored = "val0_epoch/weighted_sum"
        metrics = {
            f"{name}_mae" if name != "total_energy" else "per_atom_energy_mae": x
            for name, x in coeffs.items()
        }
        loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": batch, "num_workers": 0}
        trainer: dict[str, Any] = {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "max_epochs": 10**6 if job.epochs is None else job.epochs,
            "check_val_every_n_epoch": 1,
            "log_every_n_steps": 20,
            "logger": False,
            "callbacks": [
                {
                    "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "monitor": monitored,
                    "dirpath": str(job.directory),
                    "filename": "best",
                    "save_last": True,
                },
                {"_target_": "etnpot.compare.adapters.nequip.count_parameters", "path": str(job.directory)},
            ],
        }
        if job.seconds is not None:
            minutes, seconds = divmod(max(1, round(job.seconds)), 60)
            hours, minutes = divmod(minutes, 60)
            trainer["max_time"] = f"{hours // 24:02d}:{hours % 24:02d}:{minutes:02d}:{seconds:02d}"
        return {
            "run": ["train"],
            "data": {
                "_target_": "nequip.data.datamodule.ASEDataModule",
                "seed": job.seed,
                "train_file_path": str(job.directory / "train.extxyz"),
                "val_file_path": str(job.directory / "valid.extxyz"),
                "transforms": [
                    {
                        "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
                        "model_type_names": job.species,
                        "chemical_species_to_atom_type_map": {symbol: symbol for symbol in job.species},
                    },
                    {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": settings["r_max"]},
                ],
                "train_dataloader": {**loader, "shuffle": True},
                "val_dataloader": {**loader, "batch_size": 10},
                "stats_manager": {
                    "_target_": "nequip.data.CommonDataStatisticsManager",
                    "dataloader_kwargs": {"batch_size": 10},
                    "type_names": job.species,
                },
            },
            "trainer": trainer,
            "training_module": {
                "_target_": "nequip.train.EMALightningModule",
                "ema_decay": decay,
                "loss": {"_target_": f"nequip.train.{kind}Loss", "per_atom_energy": True, "coeffs": coeffs},
                "val_metrics": {"_target_": f"nequip.train.{kind}Metrics", "coeffs": metrics},
                "optimizer": {"_target_": "torch.optim.Adam", "lr": lr},
                "lr_scheduler": {
                    "scheduler": {
                        "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
                        "factor": 0.6,
                        "patience": 5,
                        "threshold": 0.2,
                        "min_lr": 1e-6,
                    },
                    "monitor": monitored,
                    "interval": "epoch",
                    "frequency": 1,
                },
                "model": {
                    "_target_": self.builder,
                    "seed": job.seed,
                    "type_names": job.species,
                    "avg_num_neighbors": "${training_data_stats:num_neighbors_mean}",
                    "per_type_energy_scales": "${training_data_stats:per_type_forces_rms}",
                    "per_type_energy_shifts": energies,
                    "per_type_energy_scales_trainable": False,
                    "per_type_energy_shifts_trainable": False,
                    **settings,
                    **more,
                },
            },
            "global_options": {"allow_tf32": False, "seed": job.seed},
        }

    def _write(self, job: Job, name: str, stress: bool) -> None:
        """Results of a calculator in extxyz, as ASE reads them back."""
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.io import write

        wanted = ("energy", "forces", "stress") if stress else ("energy", "forces")
        frames = []
        for atoms in job.frames(name):
            results = atoms.calc.results if atoms.calc is not None else {}
            missing = [key for key in ("energy", "forces") if key not in results]
            if missing:
                raise ValueError(f"{self.title} needs {' and '.join(missing)} of every configuration")
            bare = atoms.copy()
            bare.info = {}
            if bare.cell.rank < 3:  # NequIP checks what it compiled by the stress, which needs a volume
                missing_vectors = ~np.any(bare.cell.array, axis=1)
                vectors = bare.cell.complete().array.copy()
                vectors[missing_vectors] *= _ROOM
                bare.set_cell(vectors)
            bare.calc = SinglePointCalculator(bare, **{key: results[key] for key in wanted})
            frames.append(bare)
        write(job.directory / f"{name}.extxyz", frames, format="extxyz")

    def calculator(self, job: Job) -> Any:
        """The compiled model."""
        import torch
        from nequip.integrations.ase import NequIPCalculator

        torch.set_num_threads(job.threads)
        return NequIPCalculator.from_compiled_model(
            str(job.directory / "model.nequip.pt2"),
            device="cpu",
            chemical_species_to_atom_type_map={symbol: symbol for symbol in job.species},
        )


class Allegro(NequIP):
    """``model`` takes any other argument of the model's builder."""

    title = "Allegro"
    distributions: ClassVar[tuple[str, ...]] = ("nequip-allegro", "nequip", "e3nn", "torch", "lightning")
    builder: ClassVar[str] = "allegro.model.AllegroModel"
    defaults: ClassVar[Mapping[str, Any]] = {
        **_SHARED,
        "l_max": 2,
        "parity": True,
        "num_layers": 1,
        "num_scalar_features": 64,
        "num_tensor_features": 16,
        "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 8},
        "radial_chemical_embed_dim": 32,
        "scalar_embed_mlp_hidden_layers_depth": 1,
        "scalar_embed_mlp_hidden_layers_width": 64,
        "allegro_mlp_hidden_layers_depth": 1,
        "allegro_mlp_hidden_layers_width": 64,
        "readout_mlp_hidden_layers_depth": 1,
        "readout_mlp_hidden_layers_width": 32,
        "model": {},
    }


def count_parameters(path: str) -> Any:
    """A callback of the trainer that leaves ``parameters.json``: their number, and the seconds of the training proper."""
    from pathlib import Path

    from lightning.pytorch.callbacks import Callback

    class Count(Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.begin = time.perf_counter()

        def on_train_end(self, trainer: Any, module: Any) -> None:
            model = next(iter(module.model.values()))
            found = {
                "n_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "seconds": time.perf_counter() - self.begin,
            }
            (Path(path) / "parameters.json").write_text(json.dumps(found), encoding="utf-8")

    return Count()


def _program(module: str, *arguments: str) -> None:
    """A program of nequip, in this environment, that can import this module."""
    from pathlib import Path

    here = Path(__file__).resolve()
    begin = (
        "import sys, types, runpy\n"
        f"for name, where in (('etnpot', {str(here.parents[2])!r}), ('etnpot.compare', {str(here.parents[1])!r})):\n"
        "    package = types.ModuleType(name); package.__path__ = [where]; sys.modules[name] = package\n"
        f"sys.argv = [{module!r}] + sys.argv[1:]\n"
        f"runpy.run_module({module!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", begin, *arguments], check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{module} ended with status {done.returncode}")
