"""Runs a study: whatever of it is not there yet, one training after another, each in processes of its own.

===================================== ====================================================================================
file in the directory of a study      what
===================================== ====================================================================================
``study.json``                        the study as checked
``sets/DATA/test-NAME.traj``          test sets, for the evaluations alone
``runs/DATA/MODEL/SIZE-seed-S/``      one run: ``train.traj``, ``valid.traj``, the model, ``run.log``, ``train.json``,
                                      ``evaluate.json``, ``predictions.npz``, and ``result.json``, written last
``results.json``, ``results.csv``     the figures of all runs
``report.html``                       the report
===================================== ====================================================================================

A run is done when its ``result.json`` has no error and the key of what it was asked for: data, settings, budget, seed. Done
runs are not repeated; failed ones are tried again when the study is run again, a training that was complete is kept. A run that
fails leaves its reason there, and the next one begins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase.data import chemical_symbols

from etnpot.compare import environments
from etnpot.compare.adapters import Job, adapter_class
from etnpot.compare.results import StudyResult, metrics_of
from etnpot.compare.sets import StudyData, check_handed, read_data, write_set
from etnpot.compare.study import ModelSpec, Study, read_study
from etnpot.errors import EtnpotError, RunDirectoryError
from etnpot.fitting.checkpoint import locked
from etnpot.fitting.dataset import DataSet
from etnpot.io.atomic import write_bytes_atomically

__all__ = ["Progress", "Run", "compare", "plan"]

logger = logging.getLogger(__name__)

#: s that a step may take beyond four times its budget.
_GRACE = 1800.0


@dataclass(frozen=True)
class Run:
    """One training, or the one evaluation of a model that is not trained.

    Attributes
    ----------
    data : str
    model : ModelSpec
    size : int, "all", or None
        Training configurations, validation included; None without training.
    seed : int or None
    """

    data: str
    model: ModelSpec
    size: int | str | None
    seed: int | None

    @property
    def label(self) -> str:
        """For messages."""
        parts = [self.data, self.model.name]
        if self.size is not None:
            parts += [f"{self.size} configurations", f"seed {self.seed}"]
        return ", ".join(parts)

    def directory(self, out: Path) -> Path:
        """Where it is kept."""
        last = "evaluation" if self.size is None else f"{self.size}-seed-{self.seed}"
        return out / "runs" / _file_name(self.data) / _file_name(self.model.name) / last


class Progress(Protocol):
    """What is told while a study runs."""

    def begin(self, runs: list[Run], done: int) -> None:
        """Before the first run; `done` of them are complete already."""

    def step(self, run: Run, step: str) -> None:
        """A training or an evaluation begins."""

    def tick(self, seconds: float) -> None:
        """It has run for so long."""

    def end(self, run: Run, result: Mapping[str, Any]) -> None:
        """A run is over."""


class LogProgress:
    """Progress as log messages."""

    def begin(self, runs: list[Run], done: int) -> None:
        """As in `Progress`."""
        logger.info("%d runs, %d of them are done already", len(runs), done)

    def step(self, run: Run, step: str) -> None:
        """As in `Progress`."""
        logger.info("%s: %s", run.label, step)

    def tick(self, seconds: float) -> None:
        """As in `Progress`."""

    def end(self, run: Run, result: Mapping[str, Any]) -> None:
        """As in `Progress`."""
        if result["error"] is not None:
            logger.warning("%s failed: %s", run.label, result["error"])


def compare(
    study: str | os.PathLike[str] | Mapping[str, Any] | Study,
    out: str | os.PathLike[str] = "study",
    *,
    progress: Progress | None = None,
    report_only: bool = False,
) -> StudyResult:
    """Train and evaluate all models of a study, and write the report.

    Parameters
    ----------
    study : path, mapping or Study
        A study file, or what it holds.
    out : path
        Directory of the study. What is there already is not repeated.
    progress : Progress, optional
        Told what happens; log messages by default.
    report_only : bool
        Run nothing: write the report of the runs that are there.

    Returns
    -------
    StudyResult

    Raises
    ------
    SpecificationError, DataError, RunDirectoryError
        Before anything starts: a mistake in the study, a test configuration in a training set, a directory in use.
    """
    from etnpot.compare.report import write_report

    checked = (
        study
        if isinstance(study, Study)
        else read_study(study if isinstance(study, Mapping) else os.fspath(study))
    )
    where = Path(out).absolute()
    data = {name: read_data(name, spec) for name, spec in checked.data.items()}
    for parts in data.values():
        _check_sizes(checked, parts)
    told = LogProgress() if progress is None else progress
    runs = plan(checked)
    with _opened(where):
        _write_json(where / "study.json", checked.model_dump())
        if not report_only:
            _write_tests(where, data)
            todo = [run for run in runs if not _is_done(run, checked, data[run.data], where)]
            told.begin(runs, len(runs) - len(todo))
            for run in todo:
                told.end(run, _do(run, checked, data[run.data], where, told))
        records = [_record(run, checked, data[run.data], where) for run in runs]
        result = StudyResult(checked, records, data, where)
        result.write()
        write_report(result)
    return result


def plan(study: Study) -> list[Run]:
    """All runs, in order: those that the rest is compared with first, then small training sets before large ones."""
    runs = [
        Run(data, model, None, None)
        for data in study.data
        for model in study.models
        if not adapter_class(model.type).trains
    ]
    sizes = sorted(study.sizes, key=lambda size: np.inf if size == "all" else float(size))
    for size in sizes:
        for data in study.data:
            for model in study.models:
                if adapter_class(model.type).trains:
                    runs += [Run(data, model, size, seed) for seed in study.seeds]
    return runs


def _check_sizes(study: Study, data: StudyData) -> None:
    from etnpot.errors import DataError

    for size in study.sizes:
        if size != "all" and size > len(data.train):
            raise DataError(
                f"data set {data.name} has {len(data.train)} training configurations, the study asks for {size}; make the "
                "sizes smaller, or write 'all'"
            )
    for size in study.sizes:
        for seed in study.seeds:
            train, _ = data.chosen(size, seed)
            missing = set(data.species) - set(train.species)
            if missing:
                symbols = ", ".join(chemical_symbols[z] for z in sorted(missing))
                raise DataError(
                    f"data set {data.name}: {size} training configurations do not hold {symbols}; make the size larger"
                )


@contextlib.contextmanager
def _opened(where: Path) -> Iterator[None]:
    """The directory of a study, locked."""
    try:
        where.mkdir(parents=True, exist_ok=True)
        lock = locked(where / ".lock", "a study is running")
    except RunDirectoryError:
        raise
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to the directory {where} of the study: {error.strerror or error}; name another one"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (where / ".lock").unlink()
        lock.close()


# ------------------------------------------------------------------------------------------------- what is there


def _file_name(name: str) -> str:
    """A name as a directory; different names give different ones."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "x"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _write_json(path: Path, values: Any) -> None:
    write_bytes_atomically(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _test_path(where: Path, data: str, name: str) -> Path:
    return where / "sets" / _file_name(data) / f"test-{_file_name(name)}.traj"


def _write_tests(where: Path, data: Mapping[str, StudyData]) -> None:
    for parts in data.values():
        for name, test in parts.tests.items():
            path = _test_path(where, parts.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            write_set(partial, test)
            os.replace(partial, path)


def _keys(run: Run, study: Study, data: StudyData) -> tuple[str, str]:
    """Hashes of everything that the training, and the evaluation after it, depend on."""
    budget = study.budget_of(run.model)
    asked: dict[str, Any] = {
        "type": run.model.type,
        "code": _code_of(run.model.type),
        "settings": run.model.full_settings,
        "budget": budget.model_dump(),
        "size": run.size,
        "seed": run.seed,
        "threads": study.threads,
        "species": list(data.species),
        "python": run.model.python,
    }
    if run.size is not None and run.seed is not None:
        train, valid = data.chosen(run.size, run.seed)
        asked["train"], asked["valid"] = train.hash, None if valid is None else valid.hash
    training = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    judged = {
        "training": training,
        "tests": {name: test.hash for name, test in data.tests.items()},
        "timing_atoms": study.timing_atoms,
        "properties": _properties(study, data),
    }
    return training, hashlib.sha256(json.dumps(judged, sort_keys=True).encode()).hexdigest()


@cache
def _code_of(kind: str) -> str:
    """Hash of an adapter's module: what an earlier one did is done again."""
    source = sys.modules[adapter_class(kind).__module__].__file__
    assert source is not None
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def _properties(study: Study, data: StudyData) -> dict[str, Any]:
    """What is computed of the crystals whose elements are in the data."""
    if study.properties is None:
        return {}
    symbols = {chemical_symbols[z] for z in data.species}
    crystals = [entry.asked for entry in study.properties.crystals if set(entry.symbols) <= symbols]
    return {"crystals": crystals, "compute": study.properties.compute} if crystals else {}


def _is_done(run: Run, study: Study, data: StudyData, where: Path) -> bool:
    found = _read_json(run.directory(where) / "result.json")
    return found.get("key") == _keys(run, study, data)[1] and found.get("error") is None


def _record(run: Run, study: Study, data: StudyData, where: Path) -> dict[str, Any]:
    """The result of a run; what has not been run has that as its error."""
    found = _read_json(run.directory(where) / "result.json")
    if found.get("key") == _keys(run, study, data)[1]:
        return found
    return {**_head(run), "error": "not yet run"}


def _head(run: Run) -> dict[str, Any]:
    return {
        "data": run.data,
        "model": run.model.name,
        "type": run.model.type,
        "size": run.size,
        "seed": run.seed,
    }


# -------------------------------------------------------------------------------------------------------- one run


def _do(run: Run, study: Study, data: StudyData, where: Path, progress: Progress) -> dict[str, Any]:
    """Train and evaluate; whatever goes wrong is the result's ``error``."""
    directory = run.directory(where)
    training, judged = _keys(run, study, data)
    result: dict[str, Any] = {**_head(run), "key": judged, "error": None}
    try:
        result.update(_steps(run, study, data, where, training, progress))
    except (EtnpotError, OSError, ValueError) as error:
        result["error"] = " ".join(str(error).split())
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "result.json", result)
    return result


def _steps(
    run: Run, study: Study, data: StudyData, where: Path, training: str, progress: Progress
) -> dict[str, Any]:
    directory = run.directory(where)
    python = _interpreter(run.model)
    if _read_json(directory / "begun.json").get("key") != training:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _write_json(directory / "begun.json", {"key": training})
    budget = study.budget_of(run.model)
    job = Job(
        directory=directory,
        sets={},
        settings=run.model.full_settings,
        species=[chemical_symbols[z] for z in data.species],
        seed=run.seed or 0,
        threads=study.threads,
        seconds=budget.seconds,
        epochs=budget.epochs,
        parameters=budget.parameters,
        timing_atoms=study.timing_atoms,
    )
    found: dict[str, Any] = {}
    if run.size is not None and run.seed is not None:
        train, valid = data.chosen(run.size, run.seed)
        found["n_train"], found["n_valid"] = len(train), 0 if valid is None else len(valid)
        if not (directory / "train.json").exists():
            job = replace(job, sets=_handed(directory, train, valid, data))
            progress.step(run, "training")
            limit = study.kill_after
            if limit is None and budget.seconds is not None:
                limit = 4 * budget.seconds + _GRACE
            _worker(python, run.model, "train", job, limit, progress)
        found["train"] = _read_json(directory / "train.json")
    tests = {f"test/{name}": str(_test_path(where, data.name, name)) for name in data.tests}
    job = replace(job, sets=tests, properties=_properties(study, data))
    progress.step(run, "evaluation")
    _worker(python, run.model, "evaluate", job, study.kill_after, progress)
    evaluation = _read_json(directory / "evaluate.json")
    found["properties"] = evaluation.pop("properties", {})
    found["evaluation"] = evaluation
    with np.load(directory / "predictions.npz") as arrays:
        found["metrics"] = {
            name: metrics_of(test, {k: arrays[f"test/{name}/{k}"] for k in ("energy", "forces", "stress")})
            for name, test in data.tests.items()
        }
    return found


def _handed(directory: Path, train: DataSet, valid: DataSet | None, data: StudyData) -> dict[str, str]:
    """Write what a training gets, and look at it once more before it does."""
    sets = {}
    for name, part in (("train", train), ("valid", valid)):
        if part is not None:
            sets[name] = str(directory / f"{name}.traj")
            write_set(Path(sets[name]), part)
            check_handed(DataSet.from_files(sets[name]), data.tests.values())
    return sets


def _interpreter(model: ModelSpec) -> str:
    """The program that runs a model's code."""
    name = adapter_class(model.type).environment
    if model.python is not None:
        return str(Path(model.python).absolute())
    if name is None:
        return sys.executable
    if not environments.is_made(name):
        raise environments.PeerError(
            f"{adapter_class(model.type).title} is not installed: 'etnpot compare --install {name}' makes its environment in "
            "$ETNPOT_PEERS (or name an interpreter with 'python' in the study)"
        )
    return str(environments.python_of(name))


def _worker(
    python: str, model: ModelSpec, step: str, job: Job, limit: float | None, progress: Progress
) -> None:
    """One step in a process of its own; its output goes to ``run.log``."""
    (job.directory / f"{step}.json").unlink(missing_ok=True)
    path = job.directory / f"{step}-job.json"
    path.write_text(job.to_json(), encoding="utf-8")
    environment = None if model.python is not None else adapter_class(model.type).environment
    variables = environments.variables(environment, job.threads)
    package = Path(__file__).resolve().parents[1]
    own_path = variables.pop("PYTHONPATH", None)
    if python == sys.executable:
        variables["PYTHONPATH"] = os.pathsep.join([str(package.parent), *filter(None, [own_path])])
    command = [python, str(package / "compare" / "worker.py"), step, model.type, str(path)]
    begin = time.monotonic()
    log = job.directory / "run.log"
    with open(log, "ab") as stream:
        start = stream.tell()
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=variables,
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                seconds = time.monotonic() - begin
                progress.tick(seconds)
                if limit is not None and seconds > limit and process.poll() is None:
                    _end(process)
                    raise environments.PeerError(f"the {step} step was not finished after {limit:.0f} s")
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0 or not (job.directory / f"{step}.json").exists():
        with open(log, "rb") as stream:
            stream.seek(start)
            output = stream.read().decode(errors="replace")
        reason = environments.reason_of(process.returncode, output).replace(str(job.directory), ".")
        raise environments.PeerError(f"{'training' if step == 'train' else 'evaluation'}: {reason}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker and whatever it has started."""
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
