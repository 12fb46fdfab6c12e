"""MACE, trained by ``mace_run_train``.

The recommendations of its documentation hold: an exponential moving average, AMSGrad, and a second stage with a larger weight
of the energies for the last quarter of the training. A time budget is kept by ending the epochs in time; MACE then goes on as
it does after its last epoch: the best model on the validation set is loaded and saved.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from etnpot.compare.adapters.base import Adapter, Job, composition_energies, has_stress

__all__ = ["Mace"]

_SECOND_STAGE = 0.75
_ENDLESS = 10**6


class Mace(Adapter):
    """Settings are flags of ``mace_run_train``; ``flags`` takes any others."""

    title = "MACE"
    environment = "mace"
    distributions = ("mace-torch", "e3nn", "torch")
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_irreps": "64x0e",
        "r_max": 5.0,
        "max_ell": 3,
        "correlation": 3,
        "num_interactions": 2,
        "batch_size": 5,
        "lr": 0.01,
        "default_dtype": "float32",
        "ema_decay": 0.99,
        "second_stage": True,
        "flags": {},
    }

    def train(self, job: Job) -> dict[str, Any]:
        """Train by MACE's own program."""
        import mace.tools
        import torch
        from mace.cli import run_train
        from mace.tools.arg_parser import build_default_arg_parser

        torch.set_num_threads(job.threads)
        job.needs_valid(self.title)
        settings = dict(job.settings)
        flags = settings.pop("flags")
        two_stages = settings.pop("second_stage")
        frames = job.frames("train")
        stress = has_stress(frames + job.frames("valid"))
        names = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress" if stress else None}
        for name in ("train", "valid"):
            job.write(name, job.directory / f"{name}.extxyz", **names)  # type: ignore[arg-type]
        n_epochs = _ENDLESS if job.epochs is None else job.epochs
        from ase.data import atomic_numbers

        energies = {atomic_numbers[s]: e for s, e in composition_energies(frames).items()}
        values: dict[str, Any] = {
            **settings,
            "name": "model",
            "train_file": "train.extxyz",
            "valid_file": "valid.extxyz",
            "E0s": str(energies),
            "seed": job.seed,
            "device": "cpu",
            "max_num_epochs": n_epochs,
            "model": "MACE",
            "loss": "stress" if stress else "weighted",
            "compute_stress": stress,
            "valid_batch_size": 10,
            "work_dir": ".",
            "plot": False,
            **flags,
        }
        arguments = [f"--{name}={value}" for name, value in values.items()] + ["--ema", "--amsgrad"]
        if two_stages:
            start = max(1, int(_SECOND_STAGE * n_epochs))
            arguments += ["--swa", f"--start_swa={start}"]
        done = _keep_time(sys.modules["mace.tools.train"], mace.tools, job.seconds)
        run_train.run(build_default_arg_parser().parse_args(arguments))
        model = torch.load(job.directory / _saved(job), map_location="cpu", weights_only=False)
        return {
            "n_parameters": sum(p.numel() for p in model.parameters()),
            "epochs": done["epochs"],
            "seconds": done["seconds"],
            "note": done["note"],
        }

    def calculator(self, job: Job) -> Any:
        """The model of the second stage, if there was one."""
        import torch
        from mace.calculators import MACECalculator

        torch.set_num_threads(job.threads)
        return MACECalculator(
            model_paths=[str(job.directory / _saved(job))],
            device="cpu",
            default_dtype=job.settings["default_dtype"],
        )


def _saved(job: Job) -> str:
    second = "model_stagetwo.model"
    return second if (job.directory / second).exists() else "model.model"


class _TimeIsUp(Exception):
    pass


def _keep_time(loop: Any, tools: Any, seconds: float | None) -> dict[str, Any]:
    """End MACE's epochs in time, and begin its second stage after three quarters of it."""
    found: dict[str, Any] = {"epochs": 0, "seconds": 0.0, "note": "all epochs done"}
    one_epoch, train = loop.train_one_epoch, tools.train
    stages: dict[str, Any] = {"swa": None}

    def timed_epoch(**options: Any) -> None:
        spent = time.monotonic() - found["begin"]
        swa = stages["swa"]
        if seconds is not None:
            if swa is not None and spent > _SECOND_STAGE * seconds and options["epoch"] + 1 < swa.start:
                swa.start = stages["checkpoints"].swa_start = options["epoch"] + 1
            began_second = swa is None or options["epoch"] > swa.start
            if spent > seconds and found["epochs"] > 0 and began_second:
                found["note"] = "time limit"
                raise _TimeIsUp
        one_epoch(**options)
        found["epochs"] += 1

    def timed_train(**options: Any) -> None:
        found["begin"] = time.monotonic()
        stages["swa"] = options.get("swa")
        stages["checkpoints"] = options["checkpoint_handler"].io
        try:
            train(**options)
        except _TimeIsUp:
            pass
        found["seconds"] = time.monotonic() - found["begin"]

    loop.train_one_epoch = timed_epoch
    tools.train = timed_train
    return found
