"""PaiNN, SO3net and SchNet, trained by SchNetPack's task on PyTorch Lightning.

Loss, optimiser and scheduler are those of SchNetPack's own experiment on molecular dynamics (``rmd17``): mean squared errors of
energies (weight 0.01) and forces (0.99), AdamW at 1e-3, halved on a plateau. Energies of the elements are subtracted first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from etnpot.compare.adapters.base import Adapter, Job, composition_energies

__all__ = ["PaiNN", "SO3net", "SchNet"]

_N_ATOMREFS = 100


class _SchNetPack(Adapter):
    environment = "schnetpack"
    distributions = ("schnetpack", "torch", "pytorch-lightning")
    defaults: ClassVar[Mapping[str, Any]] = {
        "cutoff": 5.0,
        "n_atom_basis": 64,
        "n_interactions": 3,
        "n_rbf": 20,
        "batch_size": 5,
        "lr": 1e-3,
        "energy_weight": 0.01,
        "forces_weight": 0.99,
        "lr_patience": 25,
    }

    def representation(self, spk: Any, settings: Mapping[str, Any]) -> Any:
        """The layers before the readout."""
        raise NotImplementedError

    def train(self, job: Job) -> dict[str, Any]:
        """Train by SchNetPack's task."""
        spk = _schnetpack()
        import pytorch_lightning as pl
        import schnetpack.transform as trn
        import torch
        import torchmetrics

        torch.set_num_threads(job.threads)
        job.needs_valid(self.title)
        pl.seed_everything(job.seed)
        settings = job.settings
        module = self._data(job, spk, trn)
        model = spk.model.NeuralNetworkPotential(
            representation=self.representation(spk, settings),
            input_modules=[spk.atomistic.PairwiseDistances()],
            output_modules=[
                spk.atomistic.Atomwise(n_in=settings["n_atom_basis"], output_key="energy"),
                spk.atomistic.Forces(energy_key="energy", force_key="forces"),
            ],
            postprocessors=[
                trn.CastTo64(),
                trn.AddOffsets("energy", add_mean=True, add_atomrefs=True),
            ],
        )
        outputs = [
            spk.task.ModelOutput(
                name=name,
                loss_fn=torch.nn.MSELoss(),
                loss_weight=settings[f"{name}_weight"],
                metrics={"mae": torchmetrics.MeanAbsoluteError()},
            )
            for name in ("energy", "forces")
        ]
        task = spk.task.AtomisticTask(
            model=model,
            outputs=outputs,
            optimizer_cls=torch.optim.AdamW,
            optimizer_args={"lr": settings["lr"]},
            scheduler_cls=torch.optim.lr_scheduler.ReduceLROnPlateau,  # SchNetPack's own needs an older torch
            scheduler_args={"factor": 0.5, "patience": settings["lr_patience"]},
            scheduler_monitor="val_loss",
        )
        best = job.directory / "best_model"
        limits: dict[str, Any] = {"max_epochs": -1 if job.epochs is None else job.epochs}
        if job.seconds is not None:
            limits["max_time"] = {"seconds": job.seconds}
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(job.directory),
            callbacks=[
                spk.train.ModelCheckpoint(
                    model_path=str(best),
                    dirpath=str(job.directory / "checkpoints"),
                    monitor="val_loss",
                    save_top_k=1,
                )
            ],
            **limits,
        )
        begin = time.perf_counter()
        trainer.fit(task, datamodule=module)
        if not best.exists():
            raise RuntimeError("not even one epoch was complete in time")
        return {
            "n_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "epochs": int(trainer.current_epoch),
            "seconds": time.perf_counter() - begin,
            "note": "epochs or time used up",
        }

    def _data(self, job: Job, spk: Any, trn: Any) -> Any:
        """SchNetPack's own database of both sets, with its data module."""
        import numpy as np
        from ase.data import atomic_numbers

        path = job.directory / "data.db"
        path.unlink(missing_ok=True)
        train, valid = job.frames("train"), job.frames("valid")
        energies = np.zeros(_N_ATOMREFS)
        for symbol, energy in composition_energies(train).items():
            energies[atomic_numbers[symbol]] = energy
        data = spk.data.ASEAtomsData.create(
            str(path),
            distance_unit="Ang",
            property_unit_dict={"energy": "eV", "forces": "eV/Ang"},
            atomrefs={"energy": energies.tolist()},
        )
        frames = train + valid
        for atoms in frames:
            if atoms.calc is None or not {"energy", "forces"} <= set(atoms.calc.results):
                raise ValueError(f"{self.title} needs energy and forces of every configuration")
        data.add_systems(
            atoms_list=[atoms.copy() for atoms in frames],
            property_list=[
                {"energy": np.array([atoms.calc.results["energy"]]), "forces": atoms.calc.results["forces"]}
                for atoms in frames
            ],
        )
        split = job.directory / "split.npz"
        np.savez(
            split,
            train_idx=np.arange(len(train)),
            val_idx=np.arange(len(train), len(frames)),
            test_idx=np.arange(0),
        )
        module = spk.data.AtomsDataModule(
            str(path),
            batch_size=job.settings["batch_size"],
            num_train=len(train),
            num_val=len(valid),
            num_test=0,
            split_file=str(split),
            num_workers=0,
            distance_unit="Ang",
            property_units={"energy": "eV", "forces": "eV/Ang"},
            transforms=[
                trn.RemoveOffsets("energy", remove_mean=True, remove_atomrefs=True),
                trn.MatScipyNeighborList(cutoff=job.settings["cutoff"]),
                trn.CastTo32(),
            ],
        )
        return module

    def calculator(self, job: Job) -> Any:
        """The best model on the validation set, with the stress from its strain derivative."""
        _schnetpack()
        import numpy as np
        import schnetpack.transform as trn
        import torch
        from schnetpack.interfaces import SpkCalculator

        torch.set_num_threads(job.threads)
        path = job.directory / "best_model"
        strained = job.directory / "best_model_strained"
        model = torch.load(path, map_location="cpu", weights_only=False)
        import schnetpack as spk

        if not any(isinstance(m, spk.atomistic.Strain) for m in model.input_modules):
            model.input_modules.insert(0, spk.atomistic.Strain())
        torch.save(model, strained)

        class Everything(SpkCalculator):  # type: ignore[misc]
            """All results by one evaluation; the original does one for each."""

            def calculate(
                self, atoms: Any = None, properties: Any = None, system_changes: Any = None
            ) -> None:
                bulk = bool(np.all(atoms.pbc)) and atoms.cell.rank == 3
                wanted = ["energy", "forces", "stress"] if bulk else ["energy", "forces"]
                super().calculate(atoms, wanted, system_changes)

        return Everything(
            model_file=str(strained),
            neighbor_list=trn.MatScipyNeighborList(cutoff=job.settings["cutoff"]),
            energy_key="energy",
            force_key="forces",
            stress_key="stress",
            energy_unit="eV",
            position_unit="Ang",
        )


class PaiNN(_SchNetPack):
    """Polarisable atom interaction network."""

    title = "PaiNN (SchNetPack)"

    def representation(self, spk: Any, settings: Mapping[str, Any]) -> Any:
        """PaiNN's layers."""
        return spk.representation.PaiNN(**_layers(spk, settings))


class SO3net(_SchNetPack):
    """``lmax``: order of the harmonics."""

    title = "SO3net (SchNetPack)"
    defaults: ClassVar[Mapping[str, Any]] = {**_SchNetPack.defaults, "lmax": 2}

    def representation(self, spk: Any, settings: Mapping[str, Any]) -> Any:
        """SO3net's layers."""
        return spk.representation.SO3net(lmax=settings["lmax"], **_layers(spk, settings))


class SchNet(_SchNetPack):
    """Continuous-filter convolutions."""

    title = "SchNet (SchNetPack)"

    def representation(self, spk: Any, settings: Mapping[str, Any]) -> Any:
        """SchNet's layers."""
        return spk.representation.SchNet(**_layers(spk, settings))


def _layers(spk: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "n_atom_basis": settings["n_atom_basis"],
        "n_interactions": settings["n_interactions"],
        "radial_basis": spk.nn.GaussianRBF(n_rbf=settings["n_rbf"], cutoff=settings["cutoff"]),
        "cutoff_fn": spk.nn.CosineCutoff(settings["cutoff"]),
    }


def _schnetpack() -> Any:
    """The package: version 2.1.1 imports a type variable which recent versions of torch no longer have."""
    import typing
    import warnings

    import torch.utils.data.dataloader

    warnings.filterwarnings("ignore")
    if not hasattr(torch.utils.data.dataloader, "T_co"):
        torch.utils.data.dataloader.T_co = typing.TypeVar("T_co", covariant=True)
    import schnetpack

    return schnetpack
