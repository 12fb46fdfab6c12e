"""Small versions of the campaigns of benchmarks/reliability: the same inputs every time, in seconds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DIRECTORY = Path(__file__).parents[2] / "benchmarks" / "reliability"

#: Inputs of each target. `export` needs a C++ compiler and is a test of LAMMPS.
INPUTS = {
    "structures": 60, "edges": 100, "potential": 200, "sealed": 60, "tensor": 80, "checkpoint": 150, "resume": 30,
    "resume-molecules": 30, "tensor-resume": 20, "extxyz": 80,
    "cfg": 200, "traj": 60, "text": 60, "labels": 60, "keywords": 20, "yaml": 40, "flags": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    sys.path.insert(0, str(DIRECTORY))
    try:
        return importlib.import_module("fuzz")
    finally:
        sys.path.remove(str(DIRECTORY))


@pytest.fixture(scope="module")
def targets(fuzz: ModuleType) -> ModuleType:
    sys.path.insert(0, str(DIRECTORY))
    try:
        return importlib.import_module("targets")
    finally:
        sys.path.remove(str(DIRECTORY))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", INPUTS)
def test_whatever_comes_in_a_result_or_an_etnpot_error_comes_out(
    fuzz: ModuleType, targets: ModuleType, name: str
) -> None:
    outcome = fuzz.in_process(name, INPUTS[name], seed=1)
    assert outcome.failures == []
    assert outcome.n == INPUTS[name]
    if name != "flags":  # there every error is a status
        assert outcome.refused > 0, "the inputs are not damaged"


@pytest.mark.lammps
def test_damaged_exports_are_refused_by_the_reader_of_lammps(fuzz: ModuleType, targets: ModuleType) -> None:
    outcome = fuzz.in_process("export", 300, seed=1)
    assert outcome.failures == [] and outcome.refused > 0


def test_every_target_is_tested(targets: ModuleType) -> None:
    assert set(targets.TARGETS) == {*INPUTS, "export"}


@pytest.mark.parametrize("name", ["structures", "potential"])
def test_an_input_is_the_same_whenever_it_is_made(
    fuzz: ModuleType, targets: ModuleType, tmp_path: Path, name: str
) -> None:
    target = targets.TARGETS[name](tmp_path)
    assert target.make(fuzz.generator(name, 3, 5)) == target.make(fuzz.generator(name, 3, 5))
    assert target.make(fuzz.generator(name, 3, 5)) != target.make(fuzz.generator(name, 3, 6))


def test_the_checks_find_wrong_results(
    fuzz: ModuleType, targets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the tester tested: energies that are a little wrong, and an error that is none of etnpot
    from etnpot.potential import Potential

    evaluate = Potential.evaluate

    def off(self: Potential, *arguments: object, **options: object) -> object:
        found = evaluate(self, *arguments, **options)  # type: ignore[arg-type]
        found.energy_i[:] *= 1.0 + 1e-6
        return found

    monkeypatch.setattr(Potential, "evaluate", off)
    target = targets.TARGETS["structures"](tmp_path)
    with pytest.raises(targets.Wrong, match="energies differ"):
        target.warm(tmp_path)
    monkeypatch.setattr(Potential, "evaluate", lambda *_, **__: 1 / 0)
    assert {failure["kind"] for failure in fuzz.in_process("structures", 20).failures} == {
        "ZeroDivisionError"
    }


@pytest.mark.lammps
@pytest.mark.parametrize("integer", ["2147483647", "4294967296", "-1", "100000000", "99999999"])
@pytest.mark.parametrize(
    "table", ["channels", "feature_first", "feature_rank", "train_sizes", "paths", "coupling_index"]
)
def test_integers_of_a_damaged_export_neither_overflow_nor_allocate(
    exports: object, targets: ModuleType, tmp_path: Path, table: str, integer: str
) -> None:
    # indices were added and multiplied as int, and sizes believed
    import zlib

    from etnpot.errors import PotentialFileError

    head, _, body = exports.texts[0].split("\n", 2)  # type: ignore[attr-defined]
    lines = body.split("\n")
    at = next(k for k, line in enumerate(lines) if line.startswith(f"{table} integer")) + 1
    words = lines[at].split()
    for place in range(len(words)):
        changed = [*lines[:at], " ".join([*words[:place], integer, *words[place + 1 :]]), *lines[at + 1 :]]
        content = "\n".join(changed).encode()
        second = f"etnpot-lammps 1 crc32 {zlib.crc32(content):08x} bytes {len(content)}"
        try:
            exports.check(f"{head}\n{second}\n".encode() + content, tmp_path)  # type: ignore[attr-defined]
        except PotentialFileError:
            continue  # anything else, such as a report of a sanitizer, fails


@pytest.fixture(scope="module")
def exports(targets: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The reader of exported potentials, compiled with sanitizers."""
    target = targets.TARGETS["export"](tmp_path_factory.mktemp("export"))
    yield target
    target.close()
