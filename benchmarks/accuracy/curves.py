"""Error against the number of parameters and against the size of the training set, for emt6 and NbMoTaW.

    python benchmarks/accuracy/curves.py                    every point that is missing, then the page
    python benchmarks/accuracy/curves.py --curves emt6      points of one data set
    python benchmarks/accuracy/curves.py --again            every point anew
    python benchmarks/accuracy/curves.py --render           plot and table again from the JSON, no fit

Every fit has the default settings but its size, its share of the training set and the time given here; up to
`LARGEST_POLISH` parameters it is polished by Levenberg-Marquardt steps, beyond by L-BFGS, whose memory is linear in the
number of parameters. Data as for ``run.py``. Points are kept in curves.json as soon as they are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run import data_directory, errors

from etnpot.fitting.dataset import DataSet
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.split import split

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "curves.json"
DOCS = HERE.parents[1] / "docs"
PAGE, FIGURE = DOCS / "accuracy.md", DOCS / "accuracy-curves.png"
LARGEST_POLISH = 6000


@dataclass(frozen=True)
class Curve:
    """Fits of one data set.

    Attributes
    ----------
    train, test : file names below the data directory
    sizes : numbers of parameters, with all of the training set
    shares : parts of the training set, with `size` parameters
    seconds : time of each fit
    elements : most elements in a test configuration
    """

    train: str
    test: str
    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    size: int
    seconds: float
    elements: int = 99


CURVES = {
    "emt6": Curve(
        "emt6/train.extxyz", "emt6/test.extxyz", (500, 1000, 2000, 5000, 10000, 20000, 50000),
        (0.1, 0.2, 0.4, 0.7), 2000, 60,
    ),
    "NbMoTaW": Curve(
        "nbmotaw_snap2020/train.extxyz", "nbmotaw_snap2020/test.extxyz", (500, 1000, 2000, 5000, 10000, 20000, 50000),
        (0.03, 0.1, 0.3), 2000, 300, 2,
    ),
}  # fmt: skip


def points(curve: Curve) -> list[tuple[int, float]]:
    """(size, share of the training set) of every fit."""
    return [(size, 1.0) for size in curve.sizes] + [(curve.size, share) for share in curve.shares]


def fit_point(curve: Curve, size: int, share: float) -> dict[str, Any]:
    """Fit and evaluate one point; the smaller training sets are drawn from every group."""
    root = data_directory()
    train = DataSet.from_files(root / curve.train)
    if share < 1.0:
        _, train = split(train, share, seed=1)
    train, valid = split(train, 0.1, seed=0)
    method = "levenberg-marquardt" if size <= LARGEST_POLISH else "l-bfgs"
    settings = FitSettings(size=size, time_limit=curve.seconds, method=method, growth=size <= LARGEST_POLISH)
    fitter = Fitter(train, valid, settings)
    started = time.monotonic()
    fitter.run()
    potential = fitter.bounded_best()
    test = DataSet.from_files(root / curve.test)
    test = test.subset(
        [i for i, c in enumerate(test) if len(set(c.atoms.numbers.tolist())) <= curve.elements]
    )
    return {
        "size": size,
        "share": share,
        "n_parameters": potential.n_parameters,
        "n_train": len(train),
        "method": method,
        "steps": len(fitter.history),
        "reason": fitter.reason,
        "seconds": round(time.monotonic() - started, 1),
        "train": errors(potential, train, per_molecule=False),
        "valid": errors(potential, valid, per_molecule=False),
        "test": errors(potential, test, per_molecule=False),
    }


def plot(results: dict[str, list[dict[str, Any]]]) -> None:
    """Test and training errors: rows energy and forces, columns parameters and configurations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.1 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 4, squeeze=False)
    for row, (name, found) in zip(axes, results.items(), strict=True):
        by_size = sorted((p for p in found if p["share"] == 1.0), key=lambda p: p["n_parameters"])
        size = CURVES[name].size
        by_share = sorted((p for p in found if p["size"] == size), key=lambda p: p["n_train"])
        for column, (series, x, label) in enumerate(
            [(by_size, "n_parameters", "parameters"), (by_share, "n_train", "training configurations")]
        ):
            for shift, (quantity, unit) in enumerate([("energy", "meV/atom"), ("forces", "eV/Å")]):
                ax = row[2 * column + shift]
                for part, style in (("test", "o-"), ("train", "s--")):
                    ax.loglog(
                        [p[x] for p in series], [p[part][f"{quantity}_rmse"] for p in series], style, label=part,
                        color="#0072B2" if part == "test" else "#999999", markersize=4, linewidth=1.2,
                    )  # fmt: skip
                ax.set_title(f"{name}: {quantity} RMSE, {unit}", fontsize=8)
                ax.set_xlabel(label, fontsize=8)
                ax.tick_params(labelsize=7, which="both")
                ax.grid(True, which="both", color="#e3e3e3", linewidth=0.5)
    axes[0][0].legend(fontsize=7, frameon=False)
    figure.savefig(FIGURE, dpi=130)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The points as Markdown."""
    lines = [
        "| data | parameters | training configurations | train E, F RMSE | test E, F RMSE | method | fit, s | stopped |",
        "|---|--:|--:|--:|--:|---|--:|---|",
    ]
    for name, found in results.items():
        for p in sorted(found, key=lambda p: (p["share"] < 1.0, p["n_parameters"], p["n_train"])):
            cells = [name, str(p["n_parameters"]), str(p["n_train"])]
            cells += [f"{p[k]['energy_rmse']:.2f}, {p[k]['forces_rmse']:.4f}" for k in ("train", "test")]
            cells += [p["method"], f"{p['seconds']:.0f}", p["reason"]]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", nargs="+", choices=list(CURVES), default=list(CURVES))
    parser.add_argument("--again", action="store_true", help="points that are there already, too")
    parser.add_argument("--render", action="store_true", help="plot and table from the JSON alone")
    options = parser.parse_args(arguments)
    results: dict[str, list[dict[str, Any]]] = (
        json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    )
    for name in [] if options.render else options.curves:
        for size, share in points(CURVES[name]):
            found = [p for p in results.get(name, []) if (p["size"], p["share"]) != (size, share)]
            if len(found) < len(results.get(name, [])) and not options.again:
                continue
            point = fit_point(CURVES[name], size, share)
            results[name] = [*found, point]
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(name, point["n_parameters"], point["n_train"], point["reason"], point["test"], flush=True)
    plot(results)
    write_sections(PAGE, {"generated curves": table(results)})


if __name__ == "__main__":
    main()
