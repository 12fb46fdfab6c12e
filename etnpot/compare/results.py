"""The figures of a study: one record per run, and what several seeds say together.

Over the runs of one model on one set that differ in their seed alone, a figure x is given as

    mean x̄ = (1/n) sum x,    spread s = sqrt( sum (x - x̄)² / (n - 1) )  (None for one run).

Energies are in meV/atom and forces in eV/Å, stresses in GPa wherever a name says so; `Metrics.to_json` inside the records keeps
the units of `etnpot.metrics`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

import etnpot
from etnpot.compare.sets import StudyData
from etnpot.compare.study import Crystal, Study
from etnpot.fitting.dataset import DataSet
from etnpot.io.atomic import write_bytes_atomically
from etnpot.io.structures import Labelled
from etnpot.metrics import Prediction, evaluate_errors, format_table

__all__ = ["MOST_SYSTEMS", "QUANTITIES", "Spread", "StudyResult", "metrics_of", "system_of"]

_GPA = 160.21766208  # GPa per eV/Å³

#: Sets of elements by which errors are given.
MOST_SYSTEMS = 24

#: Quantity -> title, unit, factor from the stored unit.
QUANTITIES: dict[str, tuple[str, str, float]] = {
    "energy": ("energy", "meV/atom", 1e3),
    "forces": ("forces", "eV/Å", 1.0),
    "stress": ("stress", "GPa", _GPA),
}


def system_of(labelled: Labelled) -> str:
    """The elements of a configuration: "Ag-Cu"."""
    return "-".join(sorted({chemical_symbols[z] for z in labelled.atoms.numbers}))


def metrics_of(test: DataSet, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Errors of predictions as plain values; `arrays` as the worker writes them.

    Besides those of `etnpot.metrics.Metrics.to_json`, "by_composition": by the elements of the configurations, or by their
    number where there are more than `MOST_SYSTEMS` sets of elements.
    """
    predictions: list[Prediction] = []
    at = 0
    for k, labelled in enumerate(test):
        forces = arrays["forces"][at : at + labelled.n_atoms]
        at += labelled.n_atoms
        stress = arrays["stress"][k]
        predictions.append((float(arrays["energy"][k]), forces, None if np.isnan(stress).any() else stress))
    found = evaluate_errors(test, predictions).to_json()
    del found["configurations"]
    systems = [system_of(labelled) for labelled in test]
    if len(set(systems)) > MOST_SYSTEMS:
        counts = [system.count("-") + 1 for system in systems]
        systems = [f"{count} element{'s' if count > 1 else ''}" for count in counts]
    by_system = [replace(labelled, group=system) for labelled, system in zip(test, systems, strict=True)]
    found["by_composition"] = evaluate_errors(by_system, predictions).to_json()["by_group"]
    return found


@dataclass(frozen=True)
class Spread:
    """Mean and spread over the seeds; see the module."""

    mean: float
    spread: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """Of those that are there; None if there are none."""
        x = np.array([value for value in values if value is not None and math.isfinite(value)])
        if not len(x):
            return None
        return cls(float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else None, len(x))

    def text(self, factor: float = 1.0) -> str:
        """Three digits, with the spread in two behind it."""
        mean = short(self.mean * factor)
        return mean if self.spread is None else f"{mean} ± {short(self.spread * factor, 2)}"


def short(value: float, digits: int = 3) -> str:
    """A number for people."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


Record = dict[str, Any]


@dataclass(frozen=True)
class StudyResult:
    """What a study gives.

    Attributes
    ----------
    study : Study
    records : list of dict
        One per run, in the order of the plan: ``data``, ``model``, ``size``, ``seed``; ``error``, None when it succeeded;
        ``train`` and ``evaluation`` (seconds, memory, parameters, versions); ``metrics`` by test set; ``properties``.
    data : dict of str to StudyData
    out : pathlib.Path
    """

    study: Study
    records: list[Record]
    data: dict[str, StudyData]
    out: Path

    @property
    def failures(self) -> list[Record]:
        """Runs without figures."""
        return [record for record in self.records if record["error"] is not None]

    def seeds_of(self, data: str, model: str, size: int | str | None = None) -> list[Record]:
        """The successful runs of a model on a data set that differ in their seed alone.

        `size` None: those of the largest training set of the study, or of a model that is not trained.
        """
        found = [r for r in self.records if r["data"] == data and r["model"] == model and r["error"] is None]
        if size is None:
            size = max(self.study.sizes, key=_order)
            return [r for r in found if r["size"] in (None, size)]
        return [r for r in found if r["size"] == size]

    def sizes_of(self, data: str, model: str) -> list[int | str]:
        """Training-set sizes that have figures, ascending."""
        found = {r["size"] for r in self.records if r["data"] == data and r["model"] == model}
        return sorted((size for size in found if size is not None), key=_order)

    def error(
        self, records: Sequence[Record], test: str, quantity: str, measure: str = "rmse"
    ) -> Spread | None:
        """An error over seeds, in the unit of `QUANTITIES`."""
        factor = QUANTITIES[quantity][2]
        values = [record["metrics"][test][quantity][measure] for record in records]
        return Spread.of([None if value is None else factor * value for value in values])

    def figure(self, records: Sequence[Record], *keys: str) -> Spread | None:
        """A figure that lies at the end of `keys` in the records."""
        return Spread.of([_at(record, keys) for record in records])

    def parameters(self, records: Sequence[Record]) -> Spread | None:
        """Their number."""
        return self.figure(records, "train", "n_parameters") or self.figure(
            records, "evaluation", "n_parameters"
        )

    def crystals(self, data: str) -> list[Crystal]:
        """Those of the study whose elements are in a data set."""
        if self.study.properties is None:
            return []
        symbols = {chemical_symbols[z] for z in self.data[data].species}
        return [entry for entry in self.study.properties.crystals if set(entry.symbols) <= symbols]

    def references(self, data: str) -> dict[str, dict[str, Any]]:
        """Properties by crystal that the models are compared with: given values, and else those of the reference calculator."""
        spec = self.study.properties
        own: Record = {}
        if spec is not None and spec.reference is not None:
            own = next((record["properties"] for record in self.seeds_of(data, spec.reference)), {})
        return {entry.name: {**own.get(entry.name, {}), **entry.values} for entry in self.crystals(data)}

    def table(self, measure: str = "rmse") -> str:
        """Errors of all models on all test sets, for people."""
        rows = []
        for data, parts in self.data.items():
            for test in parts.tests:
                for model in self.study.models:
                    records = self.seeds_of(data, model.name)
                    if not records:
                        continue
                    cells = []
                    for quantity in QUANTITIES:
                        error = self.error(records, test, quantity, measure)
                        cells.append("-" if error is None else error.text())
                    parameters, seconds, speed = (
                        self.parameters(records),
                        self.figure(records, "train", "seconds"),
                        self.figure(records, "evaluation", "us_per_atom"),
                    )
                    cells += ["-" if x is None else short(x.mean) for x in (parameters, seconds, speed)]
                    rows.append([data, test, model.name, *cells])
        head = ["data", "test", "model", *(f"{q} {measure.upper()}, {QUANTITIES[q][1]}" for q in QUANTITIES)]
        return format_table([*head, "parameters", "training, s", "µs/atom"], rows, left=3)

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        sets = {
            name: {
                "train": {"configurations": len(parts.train), "atoms": parts.train.n_atoms, "sha256": parts.train.hash},
                "valid": None
                if parts.valid is None
                else {"configurations": len(parts.valid), "sha256": parts.valid.hash},
                "tests": {
                    key: {"configurations": len(test), "atoms": test.n_atoms, "sha256": test.hash}
                    for key, test in parts.tests.items()
                },
            }
            for name, parts in self.data.items()
        }  # fmt: skip
        return {
            "etnpot": etnpot.__version__,
            "study": self.study.model_dump(),
            "data": sets,
            "runs": self.records,
        }

    def to_csv(self) -> str:
        """One line per run and test set; a failed run has its error in the last column."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        errors = [f"{q}_{m}" for q in QUANTITIES for m in ("mae", "rmse", "max")]
        units = {"energy": "meV/atom", "forces": "eV/A", "stress": "GPa"}
        head = [f"{name} ({units[name.split('_')[0]]})" for name in errors]
        writer.writerow([
            "data", "test", "model", "type", "size", "seed", *head, "parameters", "training (s)", "epochs",
            "training memory (MB)", "us per atom", "evaluation memory (MB)", "error",
        ])  # fmt: skip
        for record in self.records:
            for test in self.data[record["data"]].tests:
                values = []
                for quantity, (_, _, factor) in QUANTITIES.items():
                    for measure in ("mae", "rmse", "max"):
                        value = _at(record, ("metrics", test, quantity, measure))
                        values.append(None if value is None else f"{factor * value:.6g}")
                keys = (
                    ("train", "n_parameters"), ("train", "seconds"), ("train", "epochs"), ("train", "memory_mb"),
                    ("evaluation", "us_per_atom"), ("evaluation", "memory_mb"),
                )  # fmt: skip
                more = [_at(record, key) for key in keys]
                writer.writerow([
                    record["data"], test, record["model"], record["type"], record["size"], record["seed"], *values,
                    *(f"{x:.6g}" if isinstance(x, float) else x for x in more), record["error"],
                ])  # fmt: skip
        return stream.getvalue()

    def write(self) -> None:
        """``results.json`` and ``results.csv``."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        write_bytes_atomically(self.out / "results.json", (text + "\n").encode())
        write_bytes_atomically(self.out / "results.csv", self.to_csv().encode())


def _order(size: int | str | None) -> float:
    return -1.0 if size is None else math.inf if size == "all" else float(size)


def _at(record: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if not isinstance(record, Mapping) or key not in record:
            return None
        record = record[key]
    return record


def grouped(
    records: Sequence[Record], test: str, kind: str, value: Callable[[Mapping[str, Any]], float | None]
) -> dict[str, Spread]:
    """A figure over seeds for each element ("by_element"), group ("by_group") or system ("by_composition")."""
    names = list(dict.fromkeys(name for r in records for name in r["metrics"][test][kind]))
    found = {}
    for name in names:
        spread = Spread.of([value(r["metrics"][test][kind].get(name, {})) for r in records])
        if spread is not None:
            found[name] = spread
    return found
