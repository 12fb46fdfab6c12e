"""Accuracy on public data sets: fit, evaluate on the published test sets, write JSON and the tables of docs/accuracy.md and
the README.

    python benchmarks/accuracy/run.py                 every row
    python benchmarks/accuracy/run.py --rows emt6 Mo  some rows; the others keep their last results
    python benchmarks/accuracy/run.py --render        the table again from the JSON, no fit

The data are read from ``$ETNPOT_DATA``, else from ``../shared/data`` beside the repository; docs/accuracy.md says where they
come from. Settings were chosen on validation sets split off the training sets; the test sets are evaluated once, after the
fit. Every row says what it was fitted with, so that it can be repeated with ``etnpot fit``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.evaluation import evaluate
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.split import split
from etnpot.potential import Potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections
from public_data import data_directory

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
#: The potentials of the rows, which other benchmarks run.
POTENTIALS = HERE / "potentials"
PAGE = HERE.parents[1] / "docs" / "accuracy.md"
README = HERE.parents[1] / "README.md"


@dataclass(frozen=True)
class Row:
    """One fit of the table.

    Attributes
    ----------
    train, test : file names below the data directory; of `test`, by name of the column group
    settings : what differs from the defaults of `FitSettings`
    valid : file of a given validation set; otherwise 10 % of the training set, by group
    references : published or measured figures, as text
    per_molecule : energies in meV per molecule and forces in meV/Å
    """

    train: str
    test: dict[str, str]
    settings: dict[str, Any]
    references: str
    valid: str | None = None
    by_elements: bool = False
    per_molecule: bool = False
    isolated: dict[str, float] = field(default_factory=dict)


ALLOY = {
    "order": 4, "l_max": 4, "radial_size": 8, "channels": [4, 3, 3, 2, 1],
    "ranks": {"0e": 3, "1o": 3, "2e": 2, "3o": 2, "4e": 1}, "cutoff": 5.0,
}  # fmt: skip
ELEMENT = {"size": "large", "cutoff": 5.0, "time_limit": 285}
EQUAL_RANKS = {
    **ELEMENT, "order": 5, "l_max": 5, "radial_size": 8, "channels": [5, 4, 3, 2, 2, 1],
    "ranks": {"0e": 4, "1o": 3, "2e": 3, "3o": 2, "4e": 2, "5o": 1},
}  # fmt: skip

MOLECULE = {
    "order": 5, "l_max": 4, "radial_size": 8, "channels": [5, 4, 3, 2, 1],
    "ranks": {"0e": 5, "1o": 4, "2e": 3, "3o": 2, "4e": 1}, "species_rank": 6, "r_min": 0.8, "cutoff": 5.0,
    "stress_weight": 0.0, "energy_weight": 1000.0,
}  # fmt: skip
ATOMS_3BPA = {
    "C": -1029.4889999855063, "H": -13.587222780835477, "N": -1484.9814568572233, "O": -2041.9816003861047,
}  # fmt: skip

ROWS: dict[str, Row] = {
    "emt6": Row(
        "emt6/train.extxyz", {"test": "emt6/test.extxyz"},
        {"order": 3, "l_max": 2, "radial_size": 7, "channels": [5, 4, 3], "ranks": 4, "species_rank": 4, "time_limit": 50},
        "RMSE: MLIP-3 level 12 7.9, 0.104 (797 s); NequIP 12.0, 0.061 (150 s); MACE 33, 0.047 (339 s)",
        valid="emt6/valid.extxyz",
    ),
    "Mo": Row("zuo2020/Mo/train.extxyz", {"test": "zuo2020/Mo/test.extxyz"}, {**EQUAL_RANKS, "robust": 1.0},
              "MAE: GAP 2.24, 0.09; MTP 2.83, 0.090"),
    "Si": Row("zuo2020/Si/train.extxyz", {"test": "zuo2020/Si/test.extxyz"}, {**ELEMENT, "robust": 1.0},
              "MAE: MTP 2.21, 0.056"),
    "Ni": Row("zuo2020/Ni/train.extxyz", {"test": "zuo2020/Ni/test.extxyz"}, {**ELEMENT, "energy_weight": 1000.0},
              "MAE: GAP 0.42, 0.02; MTP 0.48, 0.0140"),
    "Cu": Row("zuo2020/Cu/train.extxyz", {"test": "zuo2020/Cu/test.extxyz"}, {**ELEMENT, "energy_weight": 600.0, "cutoff": 6.0},
              "MAE: MTP 0.41, 0.0069"),
    "NbMoTaW": Row(
        "nbmotaw_snap2020/train.extxyz", {"test": "nbmotaw_snap2020/test.extxyz"},
        {**ALLOY, "species_rank": 2, "orthogonal": False, "time_limit": 960},
        "MAE: elements SNAP 4.29, 0.132, MTP 5.39, 0.118; binaries SNAP 5.45, 0.031, MTP 5.24, 0.012; "
        "quaternary SNAP 5.88, 0.189, MTP 1.93, 0.130 (both trained with quaternary cells)",
        by_elements=True,
    ),
    "3BPA": Row(
        "3bpa/train.extxyz", {"300 K": "3bpa/test.extxyz", "600 K": "3bpa/test_600K.extxyz"},
        {**MOLECULE, "time_limit": 3500},
        "RMSE: 300 K Allegro 3.84, 12.98, NequIP 3.3, 10.8, MACE 3.0, 8.8; 600 K 12.07, 29.17, 11.2, 26.4, 9.7, 21.8",
        per_molecule=True, isolated=ATOMS_3BPA,
    ),
    "ethanol": Row("rmd17/ethanol/train.extxyz", {"test": "rmd17/ethanol/test.extxyz"}, {**MOLECULE, "time_limit": 1750},
                   "MAE: ACE 1.2, 7.3; PaiNN 2.7, 10.0; NequIP 0.4, 2.8; Allegro 0.4, 2.1", per_molecule=True),
    "aspirin": Row("rmd17/aspirin/train.extxyz", {"test": "rmd17/aspirin/test.extxyz"}, {**MOLECULE, "time_limit": 3500},
                   "MAE: ACE 6.1, 17.9; PaiNN 6.9, 16.1; NequIP 2.3, 8.2; Allegro 2.3, 7.3", per_molecule=True),
}  # fmt: skip


def errors(potential: Potential, data: DataSet, *, per_molecule: bool) -> dict[str, float]:
    """MAE and RMSE: energies in meV/atom (per molecule: meV), force components in eV/Å."""
    metrics = evaluate(potential, data)
    energy = metrics.energy_total if per_molecule else metrics.energy
    return {
        "n": len(data),
        "energy_mae": 1e3 * energy.mae,
        "energy_rmse": 1e3 * energy.rmse,
        "forces_mae": metrics.forces.mae,
        "forces_rmse": metrics.forces.rmse,
    }


def parts(row: Row, name: str, data: DataSet) -> dict[str, DataSet]:
    """A test set, or its parts by number of elements."""
    if not row.by_elements:
        return {name: data}
    by_count: dict[int, list[int]] = {}
    for index, labelled in enumerate(data):
        by_count.setdefault(len(set(labelled.atoms.numbers.tolist())), []).append(index)
    names = {1: "elements", 2: "binaries", 3: "ternary", 4: "quaternary"}
    return {names[count]: data.subset(indices) for count, indices in sorted(by_count.items())}


def run(name: str, row: Row, threads: int | None, overrides: dict[str, Any], keep: Path) -> dict[str, Any]:
    """Fit and evaluate one row; the potential goes to the directory `keep`."""
    root = data_directory()
    settings = FitSettings(**{**row.settings, **overrides}, threads=threads)
    if row.isolated:
        settings = FitSettings(**{**settings.to_dict(), "reference_energies": row.isolated})
    full = DataSet.from_files(root / row.train)
    train, valid = (full, DataSet.from_files(root / row.valid)) if row.valid else split(full, 0.1, seed=0)
    # compilation is not part of a fit
    warm = Fitter(train[:2], None, FitSettings(**{**settings.to_dict(), "polish_steps": 1, "sweeps": 1}))
    while not warm.finished:
        warm.step()
    fitter = Fitter(train, valid, settings)
    begun = time.monotonic()

    def show(record: dict[str, Any]) -> None:
        t, v = record["train"], record["valid"]
        print(
            f"{name} {record['step']:3d} {record['stage']:6s} {time.monotonic() - begun:6.0f} s  "
            f"train E {1e3 * t['energy_rmse']:.2f} F {t['forces_rmse']:.4f}  "
            f"valid E {1e3 * v['energy_rmse']:.2f} F {v['forces_rmse']:.4f}",
            flush=True,
        )

    fitter.run(show)
    potential = fitter.bounded_best()
    seconds = time.monotonic() - begun
    keep.mkdir(parents=True, exist_ok=True)
    potential.save(keep / f"{name}.etn")
    result = {
        "settings": {
            key: value for key, value in settings.to_dict().items() if value != getattr(FitSettings(), key)
        },
        "model": model(potential),
        "n_parameters": potential.n_parameters,
        "seconds": round(seconds, 1),
        "reason": fitter.reason,
        "steps": len(fitter.history),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "per_molecule": row.per_molecule,
        "train": errors(potential, train, per_molecule=row.per_molecule),
        "valid": errors(potential, valid, per_molecule=row.per_molecule),
        "test": {},
        "train_hash": train.hash,
        "version": etnpot.__version__,
        "machine": {
            "processors": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
    }
    for label, file in row.test.items():
        for part, data in parts(row, label, DataSet.from_files(root / file)).items():
            result["test"][part] = errors(potential, data, per_molecule=row.per_molecule)
    return result


def model(potential: Potential) -> dict[str, Any]:
    """What was fitted: settings such as `size` mean something else in other versions."""
    spec = potential.spec.to_dict()
    return {key: spec[key] for key in ("channels", "bonds", "radial", "species_form", "species_rank")}


def seconds(result: dict[str, Any]) -> str:
    """Time of a fit, and that it had one thread where it had."""
    return f"{result['seconds']:.0f}" + (", 1 thread" if result["settings"].get("threads") == 1 else "")


def render(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "| data | set | E MAE | E RMSE | F MAE | F RMSE | parameters | fit, s | others (E, F) |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name in ROWS:
        if name not in results:
            lines.append(f"| {name} | not yet run | | | | | | | {ROWS[name].references} |")
            continue
        result = results[name]
        force, digits = (1e3, 1) if result["per_molecule"] else (1.0, 4)
        sets = {"train": result["train"], "valid": result["valid"]}
        sets.update({f"**{key}**": value for key, value in result["test"].items()})
        for index, (label, e) in enumerate(sets.items()):
            cells = [
                name if index == 0 else "",
                f"{label} ({e['n']})",
                f"{e['energy_mae']:.2f}",
                f"{e['energy_rmse']:.2f}",
                f"{force * e['forces_mae']:.{digits}f}",
                f"{force * e['forces_rmse']:.{digits}f}",
                str(result["n_parameters"]) if index == 0 else "",
                seconds(result) if index == 0 else "",
                ROWS[name].references if index == 0 else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def render_brief(results: dict[str, Any]) -> str:
    """The test errors of the rows that were run."""
    lines = [
        "| test set | energy MAE / RMSE | forces MAE / RMSE | parameters | fit, s |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in (name for name in ROWS if name in results):
        result = results[name]
        energy, unit, force = ("meV", "meV/Å", 1e3) if result["per_molecule"] else ("meV/atom", "eV/Å", 1.0)
        digits = 1 if result["per_molecule"] else 4
        for part, e in result["test"].items():
            lines.append(
                f"| {name}{'' if part == 'test' else ', ' + part} ({e['n']}) | "
                f"{e['energy_mae']:.2f} / {e['energy_rmse']:.2f} {energy} | "
                f"{force * e['forces_mae']:.{digits}f} / {force * e['forces_rmse']:.{digits}f} {unit} | "
                f"{result['n_parameters']} | {seconds(result)} |"
            )
    return "\n".join(lines)


def write_pages(results: dict[str, Any]) -> None:
    """Put the tables between the markers of docs/accuracy.md and of the README."""
    for page, table in ((PAGE, render(results)), (README, render_brief(results))):
        write_sections(page, {"generated table": table})


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=JSON", help="override a setting of every row"
    )
    parser.add_argument(
        "--keep", type=Path, default=POTENTIALS, metavar="DIR",
        help="where the potentials go, as DIR/ROW.etn [beside the results]",
    )  # fmt: skip
    parser.add_argument("--render", action="store_true", help="write the table from the JSON alone")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    overrides = {key: json.loads(value) for key, value in (item.split("=", 1) for item in options.set)}
    for name in [] if options.render else options.rows:
        results[name] = run(name, ROWS[name], options.threads, overrides, options.keep)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        for part, figures in results[name]["test"].items():
            print(name, part, {key: round(value, 4) for key, value in figures.items()}, flush=True)
    write_pages(results)


if __name__ == "__main__":
    main()
