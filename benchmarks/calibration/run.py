"""Do grades and standard deviations foretell errors? On published test sets that no fit has seen.

    python benchmarks/calibration/run.py                     fits, JSON, figure and the table of docs/reliability.md
    python benchmarks/calibration/run.py --folder DIR        keeps the fits there, and uses those that are there
    python benchmarks/calibration/run.py --render            figure and table again from the JSON

The data are read from ``$ETNPOT_DATA``, else from ``../shared/data`` beside the repository; docs/accuracy.md says where they
come from. Every potential is fitted to a published training set of which a tenth is held out; the factors of the standard
deviations come from that tenth, and the test set is looked at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.grading import calibration, grade_all, spearman
from etnpot.fitting.reliability import assessed
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.split import split
from etnpot.potential import Potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections
from public_data import data_directory

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
DOCS = HERE.parents[1] / "docs"
PAGE, FIGURE = DOCS / "reliability.md", DOCS / "reliability.png"


@dataclass(frozen=True)
class Row:
    """One potential and its test set: files below the data directory, settings of the fit, and whether the test set is also
    looked at by number of elements."""

    train: str
    test: str
    settings: dict[str, Any]
    by_elements: bool = False


ROWS: dict[str, Row] = {
    "Mo": Row("zuo2020/Mo/train.extxyz", "zuo2020/Mo/test.extxyz", {"time_limit": 150}),
    "NbMoTaW": Row(
        "nbmotaw_snap2020/train.extxyz",
        "nbmotaw_snap2020/test.extxyz",
        {"size": "small", "time_limit": 240},
        True,
    ),
}


def fitted(row: Row, folder: Path, threads: int) -> Potential:
    """The potential of a row, from the folder if it is there."""
    settings = FitSettings(**row.settings, threads=threads)
    train, valid = split(
        DataSet.from_files(data_directory() / row.train), settings.valid_fraction, settings.seed
    )
    if (folder / "finished.json").is_file():
        potential = etnpot.load(folder / "potential.etn")
    else:
        potential = etnpot.fit(train, valid, settings=settings, out=folder, resume=True).potential
    if potential.reliability is None:
        potential = assessed(
            potential, train, valid, settings.loss_weights, shifted=potential.species, threads=threads
        )
    return potential


def cost(potential: Potential, test: DataSet) -> dict[str, float]:
    """Microseconds per atom of an evaluation and of an assessment, one thread, on copies of a test configuration."""
    atoms = max(test, key=lambda c: c.n_atoms).atoms
    while len(atoms) < 1000:
        atoms = atoms.repeat((2, 1, 1)) if atoms.cell.lengths()[0] < 20 else atoms.repeat((1, 2, 2))
    edges, result = potential.edges(atoms), {}
    for name in ("evaluate", "assess"):
        call = getattr(potential, name)
        call(edges, atoms.numbers, threads=1)
        times = []
        for _ in range(15):
            begun = time.process_time()
            call(edges, atoms.numbers, threads=1)
            times.append(time.process_time() - begun)
        result[name] = 1e6 * statistics.median(times) / len(atoms)
    return result


def run(name: str, row: Row, folder: Path, threads: int) -> dict[str, Any]:
    """One row."""
    potential = fitted(row, folder, threads)
    test = DataSet.from_files(data_directory() / row.test)
    graded = grade_all(potential, test, forces=True, threads=threads)
    found = {"all": calibration(graded)}
    if row.by_elements:
        names = {1: "elements", 2: "binaries", 3: "ternaries", 4: "quaternaries"}
        for count, part in names.items():
            chosen = [one for one in graded if len(set(one.labelled.atoms.numbers.tolist())) == count]
            if chosen:
                found[part] = calibration(chosen)
    force_i = np.concatenate([np.linalg.norm(c.forces, axis=1) for c in test if c.forces is not None])
    error_i = np.concatenate(
        [
            np.linalg.norm(one.forces - one.labelled.forces, axis=1)
            for one in graded
            if one.labelled.forces is not None
        ]
    )
    return {
        "settings": row.settings,
        "n_parameters": potential.n_parameters,
        "reliability": potential.provenance["reliability"],
        "calibration": found,
        "spearman_reference_force": spearman(force_i, error_i),
        "cost": cost(potential, test),
        "version": etnpot.__version__,
    }


def render(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "| test set | atoms | by its forces | by its energy | by grade | grade above 1 | error there / mean | σ | 1.96 σ | "
        "energies: σ | assess / evaluate |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, result in results.items():
        for part, found in result["calibration"].items():
            atoms, forces = found["atoms"], found["force_std"]
            outside = atoms["error_above_1"]
            ratio = f"{result['cost']['assess'] / result['cost']['evaluate']:.2f}" if part == "all" else ""
            lines.append(
                f"| {name}{'' if part == 'all' else ', ' + part} | {atoms['n']:,} | {atoms['spearman_std']:.2f} | "
                f"{atoms['spearman_proxy']:.2f} | {atoms['spearman_grade']:.2f} | {100 * atoms['part_above_1']:.1f}% | "
                f"{'' if outside is None else format(outside / atoms['error'], '.1f')} | {100 * forces['within_1']:.0f}% | "
                f"{100 * forces['within_1.96']:.0f}% | {100 * found['energy']['within_1']:.0f}% | {ratio} |"
            )
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> None:
    """Reliability plots: what was met against what was foretold, in bins of equal numbers."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(4.2 * len(results), 4.0), layout="constrained")
    for axis, (name, result) in zip(
        np.atleast_1d(figure.subplots(1, len(results))), results.items(), strict=True
    ):
        for key, label in (("force_std", "by its forces"), ("force_proxy", "by its energy")):
            bins = result["calibration"]["all"][key]["bins"]
            axis.loglog([b["std"] for b in bins], [b["rmse"] for b in bins], "o-", label=label)
        ends = axis.get_xlim()
        axis.loglog(ends, ends, color="0.6", lw=1, zorder=0)
        axis.set(
            title=name, xlabel="expected error of a force component (eV/Å)", ylabel="RMS error met (eV/Å)"
        )
        axis.legend()
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_minor_formatter(NullFormatter())
    figure.savefig(FIGURE, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="where the fits are kept (default: nowhere)")
    parser.add_argument("--render", action="store_true", help="write figure and table from the JSON alone")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in [] if options.render else options.rows:
            folder = Path(options.folder or temporary) / name
            results[name] = run(name, ROWS[name], folder, options.threads)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_sections(PAGE, {"calibration": render(results)})
    draw(results)
    print(render(results))


if __name__ == "__main__":
    main()
