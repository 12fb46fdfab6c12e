"""NEP: trained by ``nep`` of GPUMD, a program for GPUs; evaluated on the processor through calorine.

``nep`` is no Python package: the setting ``executable`` names it. Without it a study says so and goes on. An epoch is a
generation of its evolution strategy. A time budget ends the program; the potential that it writes every hundred generations
is then used.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from typing import Any, ClassVar

from etnpot.compare.adapters.base import Adapter, Job

__all__ = ["Nep"]


class Nep(Adapter):
    """Keywords of ``nep.in``; ``keywords`` takes any others."""

    title = "NEP (GPUMD, calorine)"
    environment = "calorine"
    distributions = ("calorine",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "executable": "nep",
        "cutoff": [5.0, 5.0],
        "n_max": [4, 4],
        "basis_size": [8, 8],
        "l_max": [4, 2, 0],
        "neuron": 30,
        "batch": 1000,
        "population": 50,
        "keywords": {},
    }

    def train(self, job: Job) -> dict[str, Any]:
        """Train by GPUMD's program."""
        settings = job.settings
        program = shutil.which(settings["executable"])
        if program is None:
            raise RuntimeError(
                f"NEP is trained by GPUMD's program 'nep', which needs a GPU: {settings['executable']!r} is not installed "
                "here; name it with the setting 'executable'"
            )
        job.write("train", job.directory / "train.xyz", energy="energy", forces="force", stress="stress")
        name = "valid" if "valid" in job.sets else "train"
        job.write(name, job.directory / "test.xyz", energy="energy", forces="force", stress="stress")
        keywords: dict[str, Any] = {
            "version": 4,
            "type": [len(job.species), *job.species],
            **{
                key: settings[key]
                for key in ("cutoff", "n_max", "basis_size", "l_max", "neuron", "batch", "population")
            },
            "generation": 10**6 if job.epochs is None else job.epochs,
            **settings["keywords"],
        }
        lines = [
            f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in keywords.items()
        ]
        (job.directory / "nep.in").write_text("\n".join(lines) + "\n", encoding="utf-8")
        note = "all generations done"
        try:
            done = subprocess.run([program], cwd=job.directory, check=False, timeout=job.seconds)
            if done.returncode != 0:
                raise RuntimeError(f"nep ended with status {done.returncode}")
        except subprocess.TimeoutExpired:
            note = "time limit"
        model = job.directory / "nep.txt"
        if not model.exists():
            raise RuntimeError(
                "nep has written no nep.txt; give it more time (it writes every 100 generations)"
            )
        n_lines = sum(1 for line in model.read_text(encoding="utf-8").splitlines() if len(line.split()) == 1)
        lost = job.directory / "loss.out"
        generations = len(lost.read_text(encoding="utf-8").splitlines()) * 100 if lost.exists() else None
        return {"n_parameters": n_lines, "epochs": generations, "note": note}

    def calculator(self, job: Job) -> Any:
        """The processor's implementation."""
        from calorine.calculators import CPUNEP

        return CPUNEP(str(job.directory / "nep.txt"))
