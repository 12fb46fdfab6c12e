"""What an adapter is: how one kind of potential is trained, and which ASE calculator it then gives.

A new one is a small class in a module of its own and a line in `etnpot.compare.adapters.ADAPTERS`. Its methods run in the
environment of the potential; its attributes are read by etnpot before anything starts. At module level an adapter imports
numpy, ASE and the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Adapter", "Job", "composition_energies", "has_stress", "versions"]


@dataclass(frozen=True)
class Job:
    """One model to be trained on one set with one seed.

    Attributes
    ----------
    directory : pathlib.Path
        Where the model lies; the working directory of both steps.
    sets : dict of str to str
        Files with labelled configurations: "train", "valid", and "test/NAME" when it is evaluated. ASE reads them.
    settings : dict
        Those of the adapter's `defaults`, with what the study says.
    species : list of str
    seed, threads : int
    seconds : float or None
        Time of the training.
    epochs : int or None
        Passes over the training set, or steps, whatever the code counts.
    parameters : int or None
        About how many.
    properties : dict
        What `etnpot.compare.properties` computes; empty for nothing.
    timing_atoms : int
        At least so many atoms are timed.
    """

    directory: Path
    sets: dict[str, str]
    settings: dict[str, Any]
    species: list[str]
    seed: int = 0
    threads: int = 1
    seconds: float | None = None
    epochs: int | None = None
    parameters: int | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    timing_atoms: int = 256

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "directory": Path(values["directory"])})

    def to_json(self) -> str:
        """Plain text."""
        return json.dumps({**vars(self), "directory": str(self.directory)}, indent=1) + "\n"

    def needs_valid(self, title: str) -> None:
        """Raise ValueError without a validation set."""
        if "valid" not in self.sets:
            raise ValueError(f"{title} needs a validation set: name one, or let valid_fraction be above zero")

    def frames(self, name: str) -> list[Any]:
        """The configurations of a set, with their labels."""
        from ase.io import read

        if name not in self.sets:
            return []
        return list(read(self.sets[name], index=":"))

    def write(self, name: str, path: Path, *, energy: str, forces: str, stress: str | None = None) -> Path:
        """A set as extxyz with labels under the names that a code looks for; those that are missing are left out."""
        from ase.io import write

        frames = []
        for atoms in self.frames(name):
            results = atoms.calc.results if atoms.calc is not None else {}
            bare = atoms.copy()
            bare.calc = None
            bare.info = {}
            if "energy" in results:
                bare.info[energy] = float(results["energy"])
            if "forces" in results:
                bare.arrays[forces] = results["forces"]
            if stress is not None and "stress" in results:
                from ase.stress import voigt_6_to_full_3x3_stress

                bare.info[stress] = voigt_6_to_full_3x3_stress(results["stress"])
            frames.append(bare)
        write(path, frames, format="extxyz")
        return path


class Adapter:
    """How one kind of potential is trained and evaluated.

    Attributes
    ----------
    title : str
        What the report calls it.
    environment : str or None
        Of `etnpot.compare.environments.ENVIRONMENTS`; None: where etnpot is installed.
    distributions : tuple of str
        Packages whose versions the report names.
    defaults : dict
        Every setting and its default.
    trains : bool
        Whether there is something to train.
    sized : bool
        Whether a number of parameters can be asked for.
    """

    title: ClassVar[str]
    environment: ClassVar[str | None] = None
    distributions: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}
    trains: ClassVar[bool] = True
    sized: ClassVar[bool] = False

    @classmethod
    def known(cls) -> Sequence[str]:
        """Names of the settings."""
        return list(cls.defaults)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Raise ValueError for a value that cannot be; names and types are checked before."""

    def train(self, job: Job) -> dict[str, Any]:
        """Train, and leave the model in the job's directory.

        Returns
        -------
        dict
            ``n_parameters``, and whatever the report should know: ``epochs``; ``note``; ``seconds`` of the training proper,
            where a part of the time goes to a compiler.
        """
        raise NotImplementedError

    def calculator(self, job: Job) -> Any:
        """The ASE calculator of the model in the job's directory."""
        raise NotImplementedError


def composition_energies(frames: Sequence[Any]) -> dict[str, float]:
    """Energies of the elements by least squares over compositions, eV: nearest to the mean where these leave a choice.

    The same as etnpot's own ``reference_energies: least_squares``, up to its ridge.
    """
    import numpy as np

    labelled = [atoms for atoms in frames if atoms.calc is not None and "energy" in atoms.calc.results]
    symbols = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    if not labelled:
        return dict.fromkeys(symbols, 0.0)
    share = np.array(
        [
            [atoms.get_chemical_symbols().count(symbol) / len(atoms) for symbol in symbols]
            for atoms in labelled
        ]
    )
    energy = np.array([atoms.calc.results["energy"] / len(atoms) for atoms in labelled])
    mean = float(energy.mean())
    deviation = np.linalg.lstsq(share, energy - mean, rcond=1e-5)[0]
    return {symbol: mean + float(x) for symbol, x in zip(symbols, deviation, strict=True)}


def has_stress(frames: Sequence[Any]) -> bool:
    """Whether every configuration has a reference stress."""
    return bool(frames) and all(atoms.calc is not None and "stress" in atoms.calc.results for atoms in frames)


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of installed packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
