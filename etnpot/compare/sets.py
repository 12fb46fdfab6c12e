"""The data of a study: read once, divided, and checked for leaks before any training.

A test configuration has leaked when a training or validation configuration is a copy of it: the same elements in the same order
and the same periodicity, and no component of cell and positions that differs by more than `LEAK_TOLERANCE`, whatever cell an
atom is wrapped into. Labels and names play no part. What a training is handed is checked once more, by `fingerprint`.

The training set of size n for a seed is the beginning of a random order of all training configurations, so that smaller
sets are parts of larger ones; free atoms, and the first configuration of every element, come first. Its validation set is held
out of it, unless the study names one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etnpot.compare.study import DataSpec, Made, Source, located
from etnpot.errors import DataError
from etnpot.fitting.dataset import DataSet, is_isolated_atom
from etnpot.fitting.split import near_copies, split
from etnpot.io.structures import Labelled

__all__ = ["LEAK_TOLERANCE", "StudyData", "check_apart", "fingerprint", "read_data"]

#: Å; well above the digits of a text file, well below the differences of configurations.
LEAK_TOLERANCE = 1e-3

_SPLIT_SEED = 0


@dataclass(frozen=True)
class StudyData:
    """The sets of one data set.

    Attributes
    ----------
    name : str
    train : DataSet
        All that may be trained on, validation included unless `valid` is there.
    valid : DataSet or None
    tests : dict of str to DataSet
    valid_fraction : float
    """

    name: str
    train: DataSet
    valid: DataSet | None
    tests: dict[str, DataSet]
    valid_fraction: float

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers of what may be trained on."""
        return self.train.species

    def chosen(self, size: int | str, seed: int) -> tuple[DataSet, DataSet | None]:
        """Training and validation set of a size ("all" or a number) and a seed."""
        pool = self.train if size == "all" else self.train.subset(self._order(seed)[: int(size)])
        if self.valid is not None or self.valid_fraction == 0:
            return pool, self.valid
        train, valid = split(pool, self.valid_fraction, seed=seed)
        return train, valid if len(valid) else None

    def _order(self, seed: int) -> list[int]:
        order = [int(i) for i in np.random.default_rng(seed).permutation(len(self.train))]
        first = [i for i in order if is_isolated_atom(self.train[i])]
        seen: set[int] = {int(z) for i in first for z in self.train[i].atoms.numbers}
        for i in order:
            new = {int(z) for z in self.train[i].atoms.numbers} - seen
            if new:
                first.append(i)
                seen |= new
        front = set(first)
        return first + [i for i in order if i not in front]


def read_data(name: str, spec: DataSpec) -> StudyData:
    """Read, divide and check the sets of one data set.

    Raises
    ------
    DataError
        If a file cannot be read, a test configuration is in a training or validation set, or an element of a test set is in no
        training set.
    """
    train = _read(spec.train, spec)
    valid = None if spec.valid is None else _read(spec.valid, spec)
    if spec.test is not None:
        tests = {key: _read(source, spec) for key, source in spec.test.items()}
    else:
        assert spec.test_fraction is not None
        train, test = split(train, spec.test_fraction, seed=_SPLIT_SEED)
        tests = {"test": test}
    for key, test in tests.items():
        if not len(test):
            raise DataError(f"data set {name}: the test set {key} is empty; give another one, or more data")
        test.check_against(train, name=f"test set {key} of {name}")
        check_apart(train, test, name, f"the test set {key}", "the training set")
        if valid is not None:
            check_apart(valid, test, name, f"the test set {key}", "the validation set")
    if valid is not None:
        valid.check_against(train, name=f"validation set of {name}")
    return StudyData(name, train, valid, tests, spec.valid_fraction)


def _read(source: Source, spec: DataSpec) -> DataSet:
    if isinstance(source, Made):
        from etnpot.fitting.demo_data import emt_alloys

        made = source.emt
        repeat = (made.repeat[0], made.repeat[1], made.repeat[2])
        return emt_alloys(
            made.n,
            symbols=tuple(made.symbols),
            seed=made.seed,
            repeat=repeat,
            kinds=tuple(made.kinds),
            temperatures=(made.temperatures[0], made.temperatures[1]),
        )
    files = [source] if isinstance(source, str) else source
    return DataSet.from_files([located(path) for path in files], **spec.reading)


def check_apart(known: DataSet, test: DataSet, name: str, what: str, where: str) -> None:
    """Raise DataError if a configuration of `test` is in `known`."""
    n = len(known)
    for family in near_copies([*known, *test], LEAK_TOLERANCE):
        inside = [i for i in family if i < n]
        outside = [i - n for i in family if i >= n]
        if inside and outside:
            raise DataError(
                f"data set {name}: {what} has configurations that are in {where} as well: {test[outside[0]].name} is "
                f"{known[inside[0]].name}; remove them from one of the two"
            )


def fingerprint(configuration: Labelled | Any) -> str:
    """SHA-256 of elements, cell, periodicity and positions of a configuration (or Atoms), to 1e-6 Å."""
    atoms: Any = configuration.atoms if isinstance(configuration, Labelled) else configuration
    digest = hashlib.sha256()
    for value in (atoms.numbers, atoms.pbc, np.rint(atoms.cell.array * 1e6), np.rint(atoms.positions * 1e6)):
        array = np.ascontiguousarray(value, dtype="<i8")
        digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()


def check_handed(frames: Iterable[Any], tests: Iterable[DataSet]) -> None:
    """Raise DataError if a configuration that a training is about to get is one of a test set."""
    held = {fingerprint(labelled) for test in tests for labelled in test}
    for frame in frames:
        if fingerprint(frame) in held:
            raise DataError("a test configuration was about to be trained on; this is a defect of etnpot")


def write_set(path: Path, data: DataSet) -> None:
    """A set for the worker, with all digits."""
    from ase.io import write

    write(path, [labelled.to_atoms() for labelled in data], format="traj")
