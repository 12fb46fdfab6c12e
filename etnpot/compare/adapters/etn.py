"""etnpot itself: `etnpot.fit` with a checkpoint after every step, so that a training that was stopped goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etnpot.compare.adapters.base import Adapter, Job

__all__ = ["Etn"]

_GIVEN_BY_THE_STUDY = ("seed", "threads", "time_limit", "valid_fraction")


class Etn(Adapter):
    """Settings are those of `etnpot.FitSettings`."""

    title = "etnpot"
    distributions = ("etnpot", "numpy", "numba")
    sized = True

    @classmethod
    def known(cls) -> Sequence[str]:
        """Those of a fit that the study does not give itself."""
        from dataclasses import fields

        from etnpot.fitting.settings import FitSettings

        return [field.name for field in fields(FitSettings) if field.name not in _GIVEN_BY_THE_STUDY]

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """As a fit does."""
        from etnpot.fitting.settings import FitSettings

        FitSettings.from_dict(_plain(settings))

    def train(self, job: Job) -> dict[str, Any]:
        """Fit."""
        from etnpot.fitting.dataset import DataSet
        from etnpot.fitting.fit import fit

        sets = {name: DataSet.from_files(path) for name, path in job.sets.items()}
        settings: dict[str, Any] = dict(_plain(job.settings))
        if job.parameters is not None:
            settings["size"] = job.parameters
        if job.epochs is not None:
            settings["polish_steps"] = job.epochs
        result = fit(
            sets["train"],
            sets.get("valid"),
            out=job.directory / "fit",
            resume=True,
            seed=job.seed,
            threads=job.threads,
            time_limit=job.seconds,
            valid_fraction=0.0,
            species=job.species,
            **settings,
        )
        result.potential.save(job.directory / "potential.etn")
        return {
            "n_parameters": result.potential.n_parameters,
            "epochs": len(result.history),
            "seconds": result.seconds,
            "note": result.reason,
        }

    def calculator(self, job: Job) -> Any:
        """The best potential of the fit."""
        from etnpot.interfaces.ase import ETNCalculator

        return ETNCalculator(str(job.directory / "potential.etn"), threads=job.threads)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as the tuples that settings ask for."""
    return {
        key: tuple(value) if key == "embedding" and isinstance(value, list) else value
        for key, value in settings.items()
    }
