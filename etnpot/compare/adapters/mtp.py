"""Moment tensor potentials, trained by motep.

motep's trainer does the steps that the settings name: by default its linear least squares for a pair potential (level 2), from
there those for the coefficients of all moments, then L-BFGS-B over all coefficients. From random coefficients, without the
first step, the same time ends at several times the loss. A time budget ends the last step after an iteration.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from etnpot.compare.adapters.base import Adapter, Job

__all__ = ["MomentTensor"]


class MomentTensor(Adapter):
    """``level`` is even, 2 to 24; ``min_distance`` by default 0.9 times the shortest distance of the training set."""

    title = "MTP (motep)"
    environment = "motep"
    distributions = ("motep", "numpy", "scipy")
    defaults: ClassVar[Mapping[str, Any]] = {
        "level": 12,
        "cutoff": 5.0,
        "min_distance": None,
        "radial_size": 8,
        "steps": ["Level2MTP", "LLS", "L-BFGS-B"],
        "energy_weight": 1.0,
        "forces_weight": 0.01,
        "stress_weight": 0.001,
        "tolerance": 1e-9,
    }

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """The levels that motep has tables of."""
        if settings["level"] not in range(2, 25, 2):
            raise ValueError(f"level: expected an even number from 2 to 24, got {settings['level']}")

    def train(self, job: Job) -> dict[str, Any]:
        """Train by motep's own trainer."""
        import motep.optimizers.scipy
        import numpy as np
        from ase.data import atomic_numbers
        from ase.neighborlist import neighbor_list
        from motep.io.mlip.mtp import write_mtp
        from motep.train import Trainer

        from etnpot.compare.adapters.moment_tensor import moment_tensor_potential

        settings = job.settings
        # where some have no stress, motep 0.2 takes the volume of another configuration, unless those are the last
        frames = sorted(job.frames("train"), key=lambda atoms: "stress" not in atoms.calc.results)
        nearest = min(
            (float(d.min()) for d in (neighbor_list("d", atoms, 4.0) for atoms in frames) if len(d)),
            default=2.0,
        )
        given = settings["min_distance"]
        data = moment_tensor_potential(
            settings["level"],
            [atomic_numbers[symbol] for symbol in job.species],
            cutoff=settings["cutoff"],
            min_distance=0.9 * nearest if given is None else given,
            radial_size=settings["radial_size"],
        )
        deadline = None if job.seconds is None else time.monotonic() + job.seconds
        count = [0]

        class Callback(motep.optimizers.scipy.Callback):  # type: ignore[misc]
            """Ends a minimisation in time."""

            def __call__(self, intermediate_result: Any) -> None:
                super().__call__(intermediate_result)
                count[0] += self.iter > 1
                if deadline is not None and self.iter > 1 and time.monotonic() > deadline:
                    raise StopIteration

        motep.optimizers.scipy.Callback = Callback
        options: dict[str, Any] = {"ftol": settings["tolerance"] * 1e-3, "gtol": 0.0}
        options |= {"maxfun": 10**9, "maxiter": 10**9 if job.epochs is None else job.epochs}
        steps = [
            {"method": "minimize", "kwargs": {"method": step, "options": dict(options)}}
            if step == "L-BFGS-B"
            else {"method": step}
            for step in settings["steps"]
        ]
        loss = {name: settings[name] for name in ("energy_weight", "forces_weight", "stress_weight")}
        rng = np.random.default_rng(job.seed)
        Trainer(data, seed=1, rng=rng, engine="cext", loss=loss, steps=steps).train(frames)
        path = job.directory / "final.mtp"
        write_mtp(str(path), data)
        path.write_text(readable(path.read_text(encoding="utf-8")), encoding="utf-8")
        late = deadline is not None and time.monotonic() > deadline
        return {
            "n_parameters": int(data.parameters.size),
            "epochs": count[0],
            "note": "time limit" if late else "converged or all steps done",
        }

    def calculator(self, job: Job) -> Any:
        """motep's compiled engine, made anew for another structure: it keeps the number of atoms of its first one."""
        import numpy as np
        from ase.data import atomic_numbers
        from motep.calculator import MTP, make_mtp_engine
        from motep.io.mlip.mtp import read_mtp

        data = read_mtp(str(job.directory / "final.mtp"))
        data.species = np.array([atomic_numbers[symbol] for symbol in job.species], dtype=np.int32)

        class AnyStructure(MTP):  # type: ignore[misc]
            """For structures of different sizes, one after another."""

            known: Any = None

            def calculate(self, atoms: Any = None, *arguments: Any, **options: Any) -> None:
                now = atoms.numbers.tobytes(), atoms.cell.array.tobytes(), atoms.pbc.tobytes()
                if now != self.known:
                    self.engine, self.known = make_mtp_engine("cext")(data, mode="run"), now
                super().calculate(atoms, *arguments, **options)

        return AnyStructure(data, engine="cext")


def readable(text: str) -> str:
    """A potential file with the number of radial functions before their coefficients, where motep 0.2 looks for it."""
    lines = text.splitlines()
    name = "radial_funcs_count"
    count = next(line for line in lines if line.startswith(name))
    rest = [line for line in lines if not line.startswith(name)]
    at = next(k for k, line in enumerate(rest) if line.startswith("radial_basis_type"))
    return "\n".join([*rest[:at], count, *rest[at:]]) + "\n"
