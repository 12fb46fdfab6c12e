"""Figures of a fit: parity plots, learning curves, errors per group.

Each function returns a `matplotlib.figure.Figure` made without pyplot, so that no display is needed and no
global state is left behind, and writes it if a path is given (the suffix chooses the format). matplotlib is
imported when a figure is made.

Parity plots show the quantities of `etnpot.metrics` (energy per atom in eV/atom, force components in eV/Å,
stress components in GPa) with the MAE and RMSE of each set; beyond `DENSITY_ABOVE` points a panel shows
their density, in logarithmic shades, instead of the points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from etnpot.errors import DataError, InstallationError, SpecificationError
from etnpot.io.structures import Labelled
from etnpot.metrics import Metrics, Pairs, Prediction, collect_pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DENSITY_ABOVE",
    "INK",
    "MUTED",
    "finish",
    "plain_figure",
    "plain_log_ticks",
    "plot_group_errors",
    "plot_learning_curves",
    "plot_parity",
    "plot_tensor_parity",
    "style_axis",
]

#: Number of points beyond which a parity panel shows a density.
DENSITY_ABOVE = 3000

_GPA = 160.21766208  # GPa per eV/Å³
INK, MUTED, _GRID = "#1a1a1a", "#666666", "#e3e3e3"
_COLOURS = {"train": "#0072B2", "valid": "#D55E00", "test": "#009E73"}
_OTHER_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#000000")


class _Parity(NamedTuple):
    """What a parity panel shows: title, axis unit and the factor to it, unit of the errors and the factor to that."""

    title: str
    unit: str
    factor: float
    error_unit: str
    error_factor: float


_PARITY = {
    "energy": _Parity("Energy per atom", "eV/atom", 1.0, "meV/atom", 1e3),
    "forces": _Parity("Force components", "eV/Å", 1.0, "meV/Å", 1e3),
    "stress": _Parity("Stress components", "GPa", _GPA, "GPa", _GPA),
}
_ERRORS = {
    "energy": ("Energy", "meV/atom", 1e3),
    "forces": ("Forces", "eV/Å", 1.0),
    "stress": ("Stress", "GPa", _GPA),
}


def plot_parity(
    sets: Mapping[str, tuple[Sequence[Labelled], Iterable[Prediction]]],
    path: str | Path | None = None,
    *,
    title: str | None = None,
    reference_energies: Mapping[int, float] | None = None,
) -> Figure:
    """Predicted against reference energy, forces and stress.

    Parameters
    ----------
    sets
        Per name of a set (``"train"``, ``"valid"``, ``"test"`` have fixed colours) its configurations and the
        predictions of `etnpot.metrics.evaluate_errors`.
    path
        File to write, e.g. ``parity.png``.
    title
        Line above the panels.
    reference_energies
        E₀ of each element, eV by atomic number, subtracted from both energies: without them the spread
        between compositions hides the errors.

    Returns
    -------
    matplotlib.figure.Figure
        One column per quantity; one row, or one per set if a panel has to show a density.
    """
    pairs = {
        name: _relative(collect_pairs(data, predicted), data, reference_energies)
        for name, (data, predicted) in sets.items()
    }
    quantities = [q for q in _PARITY if any(part[q].reference.size for part in pairs.values())]
    if not quantities:
        raise DataError(
            "nothing to plot: no set has both a label and a prediction of energy, forces or stress"
        )
    dense = any(part[q].reference.size > DENSITY_ABOVE for part in pairs.values() for q in quantities)
    rows = [[name] for name in pairs] if dense and len(pairs) > 1 else [list(pairs)]
    figure = plain_figure(4.0 * len(quantities), 3.75 * len(rows) + (0.35 if title else 0.0))
    axes = figure.subplots(len(rows), len(quantities), squeeze=False)
    for column, quantity in enumerate(quantities):
        shown = _PARITY[quantity]
        if quantity == "energy" and reference_energies is not None:
            shown = shown._replace(title=f"{shown.title} − E₀")
        limits = _limits([part[quantity] for part in pairs.values()], shown.factor)
        for row, names in enumerate(rows):
            parts = {name: pairs[name][quantity] for name in names}
            _parity_panel(axes[row, column], shown, parts, limits, row_of_its_own=len(rows) > 1)
    return finish(figure, path, title)


def plot_tensor_parity(pairs: Pairs, name: str, unit: str, path: str | Path | None = None) -> Figure:
    """Predicted against reference components of a tensor.

    Parameters
    ----------
    pairs
        `TensorComparison.pairs`.
    name, unit
        Of the quantity.
    path
        File to write.
    """
    figure = plain_figure(4.0, 3.75)
    shown = _Parity(f"{name.capitalize()} components", unit, 1.0, unit, 1.0)
    _parity_panel(figure.subplots(), shown, {"test": pairs}, _limits([pairs], 1.0), row_of_its_own=False)
    return finish(figure, path, None)


def plot_learning_curves(
    history: Sequence[Mapping[str, Any]],
    path: str | Path | None = None,
    *,
    measure: str = "rmse",
    title: str | None = None,
) -> Figure:
    """Errors over the steps of a fit.

    Parameters
    ----------
    history
        One entry per step, in order. Errors are ``entry["train"]["forces_rmse"]`` or
        ``entry["train_forces_rmse"]``, with ``train`` or ``valid``, ``energy`` (eV/atom), ``forces`` (eV/Å)
        or ``stress`` (eV/Å³), and `measure`; what is absent or None is left out. ``entry["sweep"]`` and
        ``entry["core"]``, where present, label the axis.
    path
        File to write.
    measure
        ``"rmse"`` or ``"mae"``.
    title
        Line above the panels.
    """
    if measure not in ("rmse", "mae"):
        raise SpecificationError(f"learning curves of {measure!r} are not known; give 'rmse' or 'mae'")
    curves = {
        (quantity, name): _curve(history, name, quantity, measure)
        for quantity in _ERRORS
        for name in ("train", "valid")
    }
    quantities = [q for q in _ERRORS if any(len(curves[q, name][0]) for name in ("train", "valid"))]
    if not quantities:
        raise DataError(
            f"nothing to plot: no entry of the history has errors such as 'train_forces_{measure}' "
            f"(keys found: {sorted({key for entry in history for key in entry}) or 'none'})"
        )
    figure = plain_figure(4.2 * len(quantities), 3.5 + (0.35 if title else 0.0))
    axes = figure.subplots(1, len(quantities), squeeze=False)[0]
    boundaries = [
        (k, entry.get("sweep"))
        for k, entry in enumerate(history)
        if k == 0 or entry.get("sweep") != history[k - 1].get("sweep")
    ]
    has_sweeps = any(sweep is not None for _, sweep in boundaries)
    for axis, quantity in zip(axes, quantities, strict=True):
        label, unit, factor = _ERRORS[quantity]
        for name in ("train", "valid"):
            x, y = curves[quantity, name]
            if not len(x):
                continue
            colour = _COLOURS[name]
            axis.plot(
                x,
                y * factor,
                color=colour,
                linewidth=1.6,
                marker="o" if len(x) <= 40 else "",
                markersize=3.5,
                label=name,
            )
            best = int(np.argmin(y))
            if name == "valid" and len(x) > 1:
                axis.plot(x[best], y[best] * factor, marker="o", markersize=9, fillstyle="none", color=colour)
                axis.plot([], [], marker="o", markersize=9, fillstyle="none", linestyle="", color=colour,
                          label=f"best valid: {_short(y[best] * factor)}")  # fmt: skip
        style_axis(axis)
        axis.grid(visible=False, axis="x")
        axis.set_yscale("log")
        plain_log_ticks(axis)
        axis.set_title(f"{label} {measure.upper()} ({unit})", fontsize=10.5, color=INK)
        if has_sweeps:
            for k, _ in boundaries[1:]:
                axis.axvline(k - 0.5, color="#bbbbbb", linewidth=0.7, linestyle=(0, (3, 3)), zorder=0)
            every = max(1, math.ceil(len(boundaries) / 8))
            ticks = [(k, sweep) for n, (k, sweep) in enumerate(boundaries) if n % every == 0]
            axis.set_xticks(
                [k for k, _ in ticks], ["polish" if sweep is None else str(sweep) for _, sweep in ticks]
            )
            axis.set_xlabel("steps of the fit", fontsize=9.5, color=MUTED)
        else:
            axis.set_xlabel("step of the fit", fontsize=9.5, color=MUTED)
        axis.set_xlim(-0.5 - 0.02 * len(history), len(history) - 0.5 + 0.02 * len(history))
        axis.legend(fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none")
    return finish(figure, path, title)


def plot_group_errors(
    metrics: Metrics | Mapping[str, Metrics],
    path: str | Path | None = None,
    *,
    measure: str = "rmse",
    title: str | None = None,
) -> Figure:
    """Energy, force and stress errors of each group as bars.

    Parameters
    ----------
    metrics
        Errors of one set, or of several by name (``"train"``, ``"valid"``, ``"test"``).
    path
        File to write.
    measure
        ``"rmse"`` or ``"mae"``.
    title
        Line above the panels.
    """
    if measure not in ("rmse", "mae"):
        raise SpecificationError(f"group errors by {measure!r} are not known; give 'rmse' or 'mae'")
    from matplotlib.ticker import MaxNLocator

    sets = {"": metrics} if isinstance(metrics, Metrics) else dict(metrics)
    groups = sorted({name for m in sets.values() for name in m.by_group})
    quantities = [
        q for q in _ERRORS if any(getattr(g, q).n for m in sets.values() for g in m.by_group.values())
    ]
    if not quantities:
        raise DataError(
            "nothing to plot: the metrics hold no group with an error of energy, forces or stress"
        )
    # Each group takes as many bars as there are sets that contain it, and half a bar of space.
    place: dict[tuple[str, str], float] = {}
    centre = []
    top = 0.0
    for group in groups:
        present = [name for name, m in sets.items() if group in m.by_group]
        place.update({(name, group): top + k for k, name in enumerate(present)})
        centre.append(top + 0.5 * (len(present) - 1))
        top += len(present) + 0.5
    height = 0.9 + (0.2 if len(sets) > 1 else 0.24) * top + (0.5 if len(sets) > 1 else 0.0)
    figure = plain_figure(2.0 + 3.0 * len(quantities), max(height, 2.2))
    axes = figure.subplots(1, len(quantities), squeeze=False, sharey=True)[0]
    for axis, quantity in zip(axes, quantities, strict=True):
        label, unit, factor = _ERRORS[quantity]
        largest = 0.0
        for k, (name, m) in enumerate(sets.items()):
            values = [float(getattr(getattr(g, quantity), measure)) * factor for g in m.by_group.values()]
            y = [place[name, group] for group in m.by_group]
            shown = [v if math.isfinite(v) else 0.0 for v in values]
            axis.barh(y, shown, height=0.88, color=_colour(name, k), label=name)
            largest = max([largest, *shown])
            for position, value in zip(y, values, strict=True):
                if math.isfinite(value):
                    axis.annotate(_short(value), (value, position), xytext=(3, 0), textcoords="offset points",
                                  va="center", fontsize=7.5, color=MUTED)  # fmt: skip
        style_axis(axis)
        axis.grid(visible=False, axis="y")
        axis.set_xlim(0, 1.22 * largest if largest else 1.0)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_title(f"{label} {measure.upper()} ({unit})", fontsize=10.5, color=INK)
    axes[0].set_yticks(centre, groups)
    axes[0].set_ylim(top - 0.75, -0.75)
    if len(sets) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(sets), fontsize=9, frameon=False)
    return finish(figure, path, title)


# ----------------------------------------------------------------------------------------------------- panels


def _parity_panel(
    axis: Axes,
    shown: _Parity,
    parts: Mapping[str, Pairs],
    limits: tuple[float, float],
    *,
    row_of_its_own: bool,
) -> None:
    heading, unit, factor, error_unit, error_factor = shown
    low, high = limits
    axis.plot([low, high], [low, high], color="#888888", linewidth=0.9, zorder=1)
    notes = []
    for k, (name, part) in enumerate(parts.items()):
        if not part.reference.size:
            continue
        x, y = part.reference * factor, part.predicted * factor
        finite = np.isfinite(x) & np.isfinite(y)
        colour = _colour(name, k)
        if np.count_nonzero(finite) > DENSITY_ABOVE:
            _density(axis, x[finite], y[finite], limits, colour)
        else:
            size, alpha = (14.0, 0.75) if x.size <= 500 else (5.0, 0.5)
            axis.scatter(x[finite], y[finite], s=size, color=colour, alpha=alpha, linewidths=0, zorder=3 + k)
        s = part.statistics()
        note = (
            f"{name}: MAE {_short(s.mae * error_factor)}, RMSE {_short(s.rmse * error_factor)} {error_unit}"
        )
        notes.append((note, colour))
    style_axis(axis)
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)
    axis.set_aspect("equal")
    suffix = f" · {next(iter(parts))}" if row_of_its_own else ""
    axis.set_title(f"{heading}{f' ({unit})' if unit else ''}{suffix}", fontsize=10.5, color=INK)
    axis.set_xlabel("reference", fontsize=9.5, color=MUTED)
    axis.set_ylabel("predicted", fontsize=9.5, color=MUTED)
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    if notes:
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], marker="o", markersize=5, linestyle="", color=colour) for _, colour in notes
        ]
        axis.legend(handles, [note for note, _ in notes], loc="upper left", fontsize=7.5, handletextpad=0.1,
                    borderpad=0.3, frameon=True, framealpha=0.85, edgecolor="none")  # fmt: skip


def _density(axis: Axes, x: np.ndarray, y: np.ndarray, limits: tuple[float, float], colour: str) -> None:
    """Number of points per hexagon in logarithmic shades of a colour."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb

    rgb = np.array(to_rgb(colour))
    shades = LinearSegmentedColormap.from_list("density", [0.72 + 0.28 * rgb, rgb, 0.35 * rgb])
    image = axis.hexbin(
        x,
        y,
        gridsize=70,
        extent=(*limits, *limits),
        mincnt=1,
        cmap=shades,
        norm=LogNorm(),
        linewidths=0.1,
        zorder=2,
    )
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.72, pad=0.02, aspect=22)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, colors=MUTED, length=2)
    bar.ax.set_title("points", fontsize=7.5, color=MUTED)


def _relative(
    pairs: dict[str, Pairs], dataset: Sequence[Labelled], reference_energies: Mapping[int, float] | None
) -> dict[str, Pairs]:
    """Subtract the mean reference energy of its atoms from the energy per atom of each configuration."""
    if reference_energies is None:
        return pairs
    energy = pairs["energy"]
    try:
        base = np.array(
            [
                np.mean([reference_energies[int(z)] for z in dataset[s].atoms.numbers])
                for s in energy.configuration
            ]
        )
    except KeyError as error:
        raise DataError(f"the reference energies lack atomic number {error.args[0]}; add it") from None
    shifted = Pairs(
        energy.reference - base, energy.predicted - base, energy.configuration, energy.atomic_number
    )
    return {**pairs, "energy": shifted}


def _limits(parts: Sequence[Pairs], factor: float) -> tuple[float, float]:
    """Common limits of both axes, with a margin."""
    values = np.concatenate([np.concatenate([part.reference, part.predicted]) for part in parts]) * factor
    values = values[np.isfinite(values)]
    if not values.size:
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _curve(
    history: Sequence[Mapping[str, Any]], name: str, quantity: str, measure: str
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values > 0 of one error along the history."""
    x, y = [], []
    for k, entry in enumerate(history):
        nested = entry.get(name)
        value = nested.get(f"{quantity}_{measure}") if isinstance(nested, Mapping) else None
        value = entry.get(f"{name}_{quantity}_{measure}") if value is None else value
        if value is not None and math.isfinite(value) and value > 0:
            x.append(k)
            y.append(float(value))
    return np.array(x, dtype=np.int64), np.array(y)


# ------------------------------------------------------------------------------------------------------ style


def plain_figure(width: float, height: float) -> Figure:
    """An empty figure, without pyplot; inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InstallationError(
            "plots need matplotlib, which is not installed; run `pip install matplotlib`"
        ) from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def finish(figure: Figure, path: str | Path | None, title: str | None) -> Figure:
    """Write the title, and the figure if there is a path."""
    if title:
        figure.suptitle(title, fontsize=12, color=INK)
    if path is not None:
        figure.savefig(path)
    return figure


def style_axis(axis: Axes) -> None:
    """Grid, spines and ticks as in all plots of etnpot."""
    axis.set_axisbelow(True)
    axis.grid(visible=True, color=_GRID, linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#999999")
    axis.tick_params(labelsize=8.5, colors=MUTED, length=3)


def plain_log_ticks(axis: Axes, direction: str = "y") -> None:
    """Ticks of a logarithmic axis ("x" or "y") as plain numbers, also when it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim() if direction == "y" else axis.get_xlim()
    ticks = axis.yaxis if direction == "y" else axis.xaxis
    decades = math.log10(high / low)
    subs = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
    ticks.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ticks.set_minor_formatter(NullFormatter())


def _colour(name: str, k: int) -> str:
    return _COLOURS.get(name) or (_COLOURS["train"] if not name else _OTHER_COLOURS[k % len(_OTHER_COLOURS)])


def _short(value: float) -> str:
    """Three significant digits without an exponent where it can be avoided."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
