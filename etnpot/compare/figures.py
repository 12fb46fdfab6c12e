"""The plots of a study. Every model has one colour in all of them; bars and bands are the spread over seeds.

Each function returns a `matplotlib.figure.Figure` made without pyplot, and None where there is nothing to show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from etnpot.compare.properties import NUMBERS
from etnpot.compare.results import QUANTITIES, Spread, StudyResult, grouped
from etnpot.plots import INK, MUTED, plain_figure, plain_log_ticks, style_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "name_of_test",
    "plot_compositions",
    "plot_errors",
    "plot_learning",
    "plot_pareto",
    "plot_properties",
    "plot_species",
    "plot_volume_curves",
]

_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F5539", "#8A8A00", "#6A3D9A",
)  # fmt: skip
_MARKERS = "osD^vP*Xdh"


def style_of(result: StudyResult) -> dict[str, tuple[str, str]]:
    """Colour and marker of every model."""
    names = [model.name for model in result.study.models]
    return {name: (_COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)]) for k, name in enumerate(names)}


#: eV/atom and eV/Å; a model with smaller errors has made the labels.
_ROUNDING = 1e-7


def judged(result: StudyResult, data: str) -> list[str]:
    """Models with figures on a data set, without the reference calculator and whatever has made the labels."""
    reference = None if result.study.properties is None else result.study.properties.reference
    return [
        model.name
        for model in result.study.models
        if model.name != reference
        and not is_source(result, data, model.name)
        and result.seeds_of(data, model.name)
    ]


def is_source(result: StudyResult, data: str, model: str) -> bool:
    """Whether a model is the one that the labels of a data set come from: its errors are those of rounding."""
    errors = [
        metrics[quantity]["max"]
        for record in result.seeds_of(data, model)
        for metrics in record["metrics"].values()
        for quantity in ("energy", "forces")
        if metrics[quantity]["max"] is not None
    ]
    return bool(errors) and max(errors) < _ROUNDING


def _positive(spread: Spread | None) -> bool:
    return spread is not None and spread.mean > 0


def _grid(n: int, *, width: float = 4.6, height: float = 3.6, columns: int = 3) -> tuple[Figure, list[Axes]]:
    columns = min(2 if n == 4 else columns, n)
    width = max(width, 6.4) if columns == 1 else width
    rows = -(-n // columns)
    figure = plain_figure(width * columns, height * rows)
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axis in axes[n:]:
        axis.remove()
    return figure, axes[:n]


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, below them."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center",
            ncols=min(len(handles), max(1, int(figure.get_figwidth() / 1.5))),
            fontsize=8.5, frameon=False,
        )  # fmt: skip


def _title(result: StudyResult, data: str, test: str) -> str:
    """Names of data set and test set, as far as there are several."""
    parts = []
    if len(result.data) > 1:
        parts.append(data)
    if len(result.data[data].tests) > 1 or not parts:
        parts.append(name_of_test(test))
    return ", ".join(parts)


def name_of_test(test: str) -> str:
    """How a test set is called in titles: its name, after the word test unless that is part of it."""
    return test if "test" in test.lower().split() else f"test {test}"


def _bar(spread: Spread, factor: float = 1.0) -> float:
    return 0.0 if spread.spread is None else min(spread.spread, 0.95 * spread.mean) * factor


def _grouped_bars(
    axis: Axes,
    groups: Sequence[Mapping[str, Spread | None]],
    styles: Mapping[str, tuple[str, str]],
    *,
    elinewidth: float,
) -> None:
    """One bar for each model that has a value in a group, on a logarithmic axis; group k stands around x = k."""
    values = []
    for k, group in enumerate(groups):
        width = 0.8 / len(group)
        for m, (model, spread) in enumerate(group.items()):
            if spread is None or not _positive(spread):
                continue
            axis.bar(
                k + (m - (len(group) - 1) / 2) * width, spread.mean, 0.92 * width, yerr=_bar(spread) or None,
                color=styles[model][0], label=model, error_kw={"elinewidth": elinewidth, "ecolor": "#444444"},
            )  # fmt: skip
            values.append(spread.mean)
    style_axis(axis)
    axis.grid(visible=False, axis="x")
    axis.set_yscale("log")
    if values:
        axis.set_ylim(min(values) / 2, max(values) * 2)
    plain_log_ticks(axis)


def plot_errors(result: StudyResult) -> Figure | None:
    """Energy and force RMSE of every model on every test set, as bars."""
    tests = [(data, test) for data in result.data for test in result.data[data].tests]
    tests = [(data, test) for data, test in tests if judged(result, data)]
    if not tests:
        return None
    colours = style_of(result)
    n_models = max(len(judged(result, data)) for data, _ in tests)
    figure, axes = _grid(2, width=max(4.6, 0.28 * len(tests) * (n_models + 1) + 1.5), columns=2)
    for axis, quantity in zip(axes, ("energy", "forces"), strict=True):
        groups = [
            {
                model: result.error(result.seeds_of(data, model), test, quantity)
                for model in judged(result, data)
            }
            for data, test in tests
        ]
        # test sets without this label have no place
        shown = [k for k, group in enumerate(groups) if any(map(_positive, group.values()))] or range(
            len(tests)
        )
        _grouped_bars(axis, [groups[k] for k in shown], colours, elinewidth=1.0)
        titles = [_title(result, *tests[k]) for k in shown]
        axis.set_xticks(range(len(titles)), titles, fontsize=8.5)
        axis.set_xlim(-0.6, len(titles) - 0.4)
        if len(titles) > 3 and max(len(title) for title in titles) > 10:
            axis.tick_params(axis="x", rotation=25)
        title, unit, _ = QUANTITIES[quantity]
        axis.set_title(f"{title.capitalize()} RMSE ({unit})", fontsize=10.5, color=INK)
    _legend(figure, axes)
    return figure


def plot_learning(result: StudyResult) -> Figure | None:
    """Energy and force RMSE against the number of training configurations."""
    panels = [
        (data, test, quantity)
        for data in result.data
        for test in result.data[data].tests
        for quantity in ("energy", "forces")
        if any(len(result.sizes_of(data, model)) > 1 for model in judged(result, data))
    ]
    if not panels:
        return None
    styles = style_of(result)
    figure, axes = _grid(len(panels), columns=2)
    for axis, (data, test, quantity) in zip(axes, panels, strict=True):
        ticks: set[int] = set()
        for model in judged(result, data):
            x, y, bars = [], [], []
            for size in result.sizes_of(data, model):
                error = result.error(result.seeds_of(data, model, size), test, quantity)
                if error is not None and _positive(error):
                    x.append(len(result.data[data].train) if size == "all" else int(size))
                    y.append(error.mean)
                    bars.append(_bar(error))
            if x:
                colour, marker = styles[model]
                axis.errorbar(
                    x,
                    y,
                    yerr=bars,
                    color=colour,
                    marker=marker,
                    markersize=5,
                    linewidth=1.5,
                    capsize=2,
                    label=model,
                )
                ticks.update(x)
        style_axis(axis)
        axis.set_xscale("log")
        axis.set_yscale("log")
        plain_log_ticks(axis)
        axis.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
        axis.xaxis.set_minor_locator(_no_ticks())
        title, unit, _ = QUANTITIES[quantity]
        axis.set_title(
            f"{title.capitalize()} RMSE ({unit}), {_title(result, data, test)}", fontsize=10, color=INK
        )
        axis.set_xlabel("training configurations, validation included", fontsize=9, color=MUTED)
    _legend(figure, axes)
    return figure


def plot_pareto(result: StudyResult) -> Figure | None:
    """Force (or energy) RMSE against time per atom; the line joins what nothing else beats in both."""
    panels = []
    for data in result.data:
        for test in result.data[data].tests:
            points = []
            labelled = any(c.forces is not None for c in result.data[data].tests[test])
            quantity = "forces" if labelled else "energy"
            for model in judged(result, data):
                records = result.seeds_of(data, model)
                speed = result.figure(records, "evaluation", "us_per_atom")
                error = result.error(records, test, quantity)
                if speed is not None and error is not None and _positive(error):
                    points.append((model, speed, error))
            if points:
                panels.append((data, test, quantity, points))
    if not panels:
        return None
    styles = style_of(result)
    figure, axes = _grid(len(panels))
    for axis, (data, test, quantity, points) in zip(axes, panels, strict=True):
        for model, speed, error in points:
            colour, marker = styles[model]
            axis.errorbar(
                speed.mean, error.mean, yerr=_bar(error) or None, color=colour, marker=marker, markersize=7,
                linestyle="", capsize=2, label=model,
            )  # fmt: skip
        steps: list[tuple[float, float]] = []
        for _, speed, error in sorted(points, key=lambda point: point[1].mean):
            if not steps or error.mean < steps[-1][1]:
                steps.append((speed.mean, error.mean))
        if len(steps) > 1:
            axis.step(*zip(*steps, strict=True), where="post", color="#999999", linewidth=1.0, zorder=0)
        style_axis(axis)
        axis.set_xscale("log")
        axis.set_yscale("log")
        times = [speed.mean for _, speed, _ in points]
        axis.set_xlim(min(times) / 2, max(times) * 2)
        errors = [error.mean for _, _, error in points]
        axis.set_ylim(min(errors) / 1.6, max(errors) * 1.6)
        plain_log_ticks(axis)
        plain_log_ticks(axis, "x")
        axis.set_title(_title(result, data, test), fontsize=10.5, color=INK)
        axis.set_xlabel("µs per atom: energy, forces, stress", fontsize=9, color=MUTED)
        name, unit, _ = QUANTITIES[quantity]
        axis.set_ylabel(f"{name} RMSE ({unit})", fontsize=9, color=MUTED)
    _legend(figure, axes)
    return figure


def plot_species(result: StudyResult) -> Figure | None:
    """Errors, parameters, time and training time against the number of elements, where data sets differ in it."""
    counts = {data: len(parts.species) for data, parts in result.data.items()}
    if len(set(counts.values())) < 3 or len(set(counts.values())) != len(counts):
        return None
    order = sorted(counts, key=lambda data: counts[data])
    first = {data: next(iter(result.data[data].tests)) for data in order}

    def forces(data: str, records: Sequence[dict[str, Any]]) -> Spread | None:
        return result.error(records, first[data], "forces")

    def energy(data: str, records: Sequence[dict[str, Any]]) -> Spread | None:
        return result.error(records, first[data], "energy")

    panels = {
        "Energy RMSE (meV/atom)": energy,
        "Force RMSE (eV/Å)": forces,
        "Parameters": lambda _, records: result.parameters(records),
        "µs per atom": lambda _, records: result.figure(records, "evaluation", "us_per_atom"),
    }
    styles = style_of(result)
    figure, axes = _grid(len(panels), columns=2)
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        values = []
        for model in result.study.models:
            points = [
                (counts[data], value(data, result.seeds_of(data, model.name)))
                for data in order
                if model.name in judged(result, data)
            ]
            shown = [(n, spread) for n, spread in points if spread is not None and _positive(spread)]
            if shown:
                colour, marker = styles[model.name]
                axis.errorbar(
                    [n for n, _ in shown], [spread.mean for _, spread in shown],
                    yerr=[_bar(spread) for _, spread in shown], color=colour, marker=marker, markersize=5,
                    linewidth=1.5, capsize=2, label=model.name,
                )  # fmt: skip
                values += [spread.mean for _, spread in shown]
        style_axis(axis)
        axis.set_yscale("log")
        if values:
            axis.set_ylim(min(values) / 1.6, max(values) * 1.6)
        plain_log_ticks(axis)
        axis.set_xticks([counts[data] for data in order])
        axis.set_title(title, fontsize=10.5, color=INK)
        axis.set_xlabel("elements", fontsize=9, color=MUTED)
    _legend(figure, axes)
    return figure


def plot_compositions(result: StudyResult, data: str, test: str, kind: str, quantity: str) -> Figure | None:
    """An RMSE of every model by element, group or composition, as bars."""
    models = judged(result, data)
    factor = QUANTITIES[quantity][2]

    def value(entry: Mapping[str, Any]) -> float | None:
        errors = entry if kind == "by_element" else entry.get(quantity, {})
        found = errors.get("rmse")
        return None if found is None else factor * found

    found = {model: grouped(result.seeds_of(data, model), test, kind, value) for model in models}
    names = sorted(
        {name for entry in found.values() for name in entry}, key=lambda name: (name.count("-"), name)
    )
    if len(names) < 2:
        return None
    styles = style_of(result)
    figure, (axis,) = _grid(1, width=max(6.0, 0.22 * len(names) * (len(models) + 1) + 1.5), height=3.4)
    groups = [{model: found[model].get(name) for model in models} for name in names]
    _grouped_bars(axis, groups, styles, elinewidth=0.8)
    axis.set_xticks(range(len(names)), names, fontsize=8.5)
    if max(len(name) for name in names) > 5 and len(names) > 4:
        axis.tick_params(axis="x", rotation=35)
    axis.set_xlim(-0.6, len(names) - 0.4)
    title, unit, _ = QUANTITIES[quantity]
    axis.set_title(
        f"{title.capitalize()} RMSE ({unit}), {_title(result, data, test)}", fontsize=10.5, color=INK
    )
    _legend(figure, [axis])
    return figure


def plot_volume_curves(result: StudyResult, data: str) -> Figure | None:
    """Energy against lattice constant of every crystal: the reference as points, the models as lines."""
    if result.study.properties is None:
        return None
    from scipy.interpolate import CubicSpline

    reference = result.references(data)
    models = judged(result, data)
    found = {
        crystal: {
            model: [
                r["properties"][crystal]
                for r in result.seeds_of(data, model)
                if "curve" in r["properties"].get(crystal, {})
            ]
            for model in models
        }
        for crystal in reference
    }
    crystals = [name for name, curves in found.items() if any(curves.values())]
    if not crystals:
        return None
    styles = style_of(result)
    figure, axes = _grid(len(crystals), width=3.8, height=3.2)
    for axis, crystal in zip(axes, crystals, strict=True):
        for model, entries in found[crystal].items():
            if entries:
                x = entries[0]["curve_a"]  # common to all
                fine = np.linspace(x[0], x[-1], 81)
                y = CubicSpline(x, 1e3 * np.array([entry["curve"] for entry in entries]), axis=1)(fine)
                axis.plot(fine, y.mean(axis=0), color=styles[model][0], linewidth=1.5, label=model)
                if len(entries) > 1:
                    low, high = y.min(axis=0), y.max(axis=0)
                    axis.fill_between(fine, low, high, color=styles[model][0], alpha=0.15, linewidth=0)
        own = reference[crystal]
        if "curve" in own:
            axis.plot(
                own["curve_a"], 1e3 * np.array(own["curve"]), "o", color=INK, markersize=4, fillstyle="none",
                label=result.study.properties.reference,
            )  # fmt: skip
        style_axis(axis)
        axis.set_title(f"{crystal} (meV/atom)", fontsize=10.5, color=INK)
        axis.set_xlabel("lattice constant (Å)", fontsize=9, color=MUTED)
    _legend(figure, axes)
    return figure


def plot_properties(result: StudyResult, data: str) -> Figure | None:
    """Relative deviation of every property from the reference, the mean over crystals of its size, in percent."""
    reference = result.references(data)
    models = judged(result, data)
    if not reference or not models:
        return None
    names = [name for name in NUMBERS if name != "formation"]
    found: dict[str, dict[str, Spread]] = {model: {} for model in models}
    for model in models:
        for name in names:
            values = []
            for record in result.seeds_of(data, model):
                deviations = []
                for crystal, own in reference.items():
                    x, y = own.get(name), record["properties"].get(crystal, {}).get(name)
                    if isinstance(x, float) and isinstance(y, float) and x:
                        deviations.append(abs(y / x - 1))
                if deviations:
                    values.append(100 * math.fsum(deviations) / len(deviations))
            spread = Spread.of(values)
            if spread is not None and spread.mean > 0:
                found[model][name] = spread
    names = [name for name in names if any(name in entry for entry in found.values())]
    if not names:
        return None
    styles = style_of(result)
    figure, (axis,) = _grid(
        1, width=min(14.0, max(6.0, 0.25 * len(names) * (len(models) + 1) + 1.5)), height=3.4
    )
    values = []
    for m, model in enumerate(models):
        width = 0.8 / len(models)
        for k, name in enumerate(names):
            if name in found[model]:
                spread = found[model][name]
                axis.bar(
                    k + (m - (len(models) - 1) / 2) * width, spread.mean, 0.92 * width, yerr=_bar(spread) or None,
                    color=styles[model][0], label=model, error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
                )  # fmt: skip
                values.append(spread.mean)
    style_axis(axis)
    axis.grid(visible=False, axis="x")
    axis.set_yscale("log")
    axis.set_ylim(min(values) / 2, max(values) * 2)
    plain_log_ticks(axis)
    axis.set_xticks(range(len(names)), [NUMBERS[name][0] for name in names], fontsize=8.5)
    axis.set_title("Deviation from the reference (%), mean over crystals", fontsize=10.5, color=INK)
    _legend(figure, [axis])
    return figure


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
