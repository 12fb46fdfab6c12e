"""The report of a fit on one page, as Markdown and as HTML that needs no other file.

What the data are, what the model is, how large the errors are (per set, element and group), where they are
largest, how the fit went, and how to repeat it: all of it from a `FitResult`, no number by hand.

A report is a list of blocks (headings, lines of text, tables, figures, commands) and two ways to write them
down.
"""

from __future__ import annotations

import base64
import html
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from ase.units import GPa

import etnpot
from etnpot.metrics import ErrorStatistics, Metrics
from etnpot.plots import plot_group_errors, plot_learning_curves, plot_parity

if TYPE_CHECKING:
    from etnpot.fitting.fit import FitResult
    from etnpot.fitting.settings import FitSettings

__all__ = [
    "Code",
    "Figure",
    "Heading",
    "Table",
    "Text",
    "report_blocks",
    "to_html",
    "to_markdown",
    "write_report",
]

#: Configurations in the table of the worst.
N_WORST = 8


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Lines to be shown as they are."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells of text; columns from `left` on are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Figure:
    """An image beside the report."""

    file: str
    caption: str


Block = Heading | Text | Code | Table | Figure


def write_report(result: FitResult, directory: str | os.PathLike[str], *, command: str | None = None) -> None:
    """Write ``report.md``, ``report.html`` and the plots they show.

    Parameters
    ----------
    result : FitResult
    directory : path
        Must exist.
    command : str, optional
        How to repeat the fit; by default the command line with the ``config.yaml`` in `directory` if there is
        one, else the call in Python.
    """
    where = Path(directory)
    figures = _plots(result, where)
    if command is None:
        command = _command(result, where)
    blocks = report_blocks(result, figures, command)
    (where / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
    (where / "report.html").write_text(to_html(blocks, where), encoding="utf-8")


def report_blocks(result: FitResult, figures: Sequence[Figure], command: str) -> list[Block]:
    """The content of the report."""
    potential, metrics = result.potential, result.metrics
    last = next(name for name in ("test", "valid", "train") if name in metrics)
    blocks: list[Block] = [
        Heading("Fit of " + "-".join(chemical_symbols[z] for z in potential.species), 1),
        Text(_verdict(result, last)),
        Heading("Errors"),
        _error_table(metrics),
    ]
    if pressure := _shift_in_gpa(result):
        blocks.append(Text(pressure))
    blocks += [figure for figure in figures if figure.file == "parity.png"]
    blocks += [Heading("Data"), _data_table(result)]
    if result.data.was_split:
        share = result.settings.valid_fraction
        blocks.append(
            Text(
                f"The validation set was held out of the training data: {100 * share:g} % of each group, by "
                "content and seed."
            )
        )
    if len(potential.species) > 1 and any(m.by_element for m in metrics.values()):
        blocks += [Heading("Errors by element"), _element_table(metrics)]
    if len({name for m in metrics.values() for name in m.by_group}) > 1:
        blocks += [Heading("Errors by group"), _group_table(metrics)]
        blocks += [figure for figure in figures if figure.file == "groups.png"]
    blocks += [
        Heading(f"Worst configurations ({_NAMES[last]})"),
        _worst_table(metrics[last]),
        Heading("Model"),
        Code(potential.summary()),
        Heading("Course of the fit"),
    ]
    blocks += [figure for figure in figures if figure.file == "learning.png"]
    blocks += [Text(_course(result)), _time_table(result.history)]
    if moved := _moved(result.history):
        blocks.append(Text(moved))
    blocks += [Heading("To repeat it"), Code(command)]
    changed = changed_settings(result.settings)
    blocks.append(
        Text(
            "Settings other than the defaults: "
            + (", ".join(f"{k} = {v!r}" for k, v in changed.items()) or "none")
        )
    )
    blocks.append(
        Text("Data: " + "; ".join(f"{_NAMES[n]} sha256 {p.hash}" for n, p in result.data.sets.items()))
    )
    blocks.append(
        Text(
            f"etnpot {etnpot.__version__}, numpy {np.__version__}, Python {platform.python_version()}, "
            f"{result.potential.provenance.get('date', '')}"
        )
    )
    return blocks


def changed_settings(settings: FitSettings) -> dict[str, Any]:
    """Settings that are not the defaults."""
    defaults = type(settings)().to_dict()
    return {key: value for key, value in settings.to_dict().items() if value != defaults[key]}


# ---------------------------------------------------------------------------------------------------- content

#: Mean shift of the reference stresses worth a word, GPa.
_NOTABLE_SHIFT = 0.05

_NAMES = {"train": "training", "valid": "validation", "test": "test"}


def _verdict(result: FitResult, last: str) -> str:
    m = result.metrics[last]
    parts = []
    if m.energy.n:
        parts.append(f"energy {1e3 * m.energy.rmse:.3g} meV/atom")
    if m.forces.n:
        parts.append(f"forces {m.forces.rmse:.3g} eV/Å")
    if m.stress.n:
        parts.append(f"stress {m.stress.rmse / GPa:.3g} GPa")
    return (
        f"Root-mean-square errors on the {_NAMES[last]} set: {', '.join(parts)}. "
        f"{result.potential.n_parameters} parameters, {len(result.history)} steps, "
        f"{_duration(result.seconds)}. "
        f"Stopped because: {result.reason}."
    )


def _shift_in_gpa(result: FitResult) -> str:
    """What to know of reference stresses that are not the derivatives of the energies; empty when they are."""
    if not result.virial_shift:
        return ""
    pressures = [
        sum(result.virial_shift[symbol] for symbol in labelled.atoms.get_chemical_symbols())
        / labelled.volume
        / GPa
        for labelled in result.data.train
        if labelled.stress is not None
    ]
    mean = float(np.mean(pressures))
    if abs(mean) < _NOTABLE_SHIFT:
        return ""
    each = ", ".join(f"{symbol} {shift:.3g}" for symbol, shift in result.virial_shift.items())
    return (
        f"The reference stresses differ from the strain derivatives of the reference energies by about {mean:.3g} GPa of "
        f"isotropic stress, as plane-wave stresses do (Pulay stress). A constant virial per atom ({each} eV) was fitted "
        "along for it. The potential's stress is the derivative of its energy: the stress errors above contain the shift."
    )


def _statistics(s: ErrorStatistics, factor: float) -> list[str]:
    if not s.n:
        return ["-"] * 4
    return [
        *(_short(v * factor) for v in (s.mae, s.rmse, s.max)),
        f"{s.r2:.5f}" if np.isfinite(s.r2) else "-",
    ]


_QUANTITIES = (
    ("energy", "energy, meV/atom", 1e3),
    ("forces", "force components, eV/Å", 1.0),
    ("stress", "stress components, GPa", 1.0 / GPa),
)


def _error_table(metrics: Mapping[str, Metrics]) -> Table:
    rows = []
    for attribute, title, factor in _QUANTITIES:
        for name, m in metrics.items():
            s = getattr(m, attribute)
            if s.n:
                rows.append([title, _NAMES[name], *_statistics(s, factor), f"{s.n:,}"])
    return Table(["quantity", "set", "MAE", "RMSE", "max", "R²", "values"], rows, left=2)


def _data_table(result: FitResult) -> Table:
    rows = []
    for name, part in result.data.sets.items():
        files = sorted({Path(c.source).name if c.source else "Atoms" for c in part})
        counts = (len(part), part.n_atoms, part.n_energies, part.n_forces, part.n_stresses)
        listed = ", ".join(files[:4]) + (f" and {len(files) - 4} more" if len(files) > 4 else "")
        symbols = " ".join(chemical_symbols[z] for z in part.species)
        rows.append([_NAMES[name], listed, symbols, *(f"{n:,}" for n in counts)])
    head = ["set", "files", "elements", "configurations", "atoms", "energies", "force components", "stresses"]
    return Table(head, rows, left=3)


def _element_table(metrics: Mapping[str, Metrics]) -> Table:
    symbols = list(dict.fromkeys(symbol for m in metrics.values() for symbol in m.by_element))
    head = ["element: force MAE / RMSE, eV/Å", *(_NAMES[name] for name in metrics)]
    return Table(
        head, [[symbol, *(_pair(m.by_element.get(symbol)) for m in metrics.values())] for symbol in symbols]
    )


def _group_table(metrics: Mapping[str, Metrics]) -> Table:
    rows = []
    for group in sorted({name for m in metrics.values() for name in m.by_group}):
        for name, m in metrics.items():
            if group in m.by_group:
                g = m.by_group[group]
                cells = [_pair(g.energy, 1e3), _pair(g.forces), _pair(g.stress, 1.0 / GPa)]
                rows.append([group, _NAMES[name], *cells, f"{g.n_configurations:,}"])
    head = ["group (MAE / RMSE)", "set", "energy, meV/atom", "forces, eV/Å", "stress, GPa", "configurations"]
    return Table(head, rows, left=2)


def _worst_table(metrics: Metrics) -> Table:
    worst = metrics.worst(N_WORST, by="forces" if metrics.forces.n else "energy")
    rows = [
        [
            Path(c.name).name,
            c.formula,
            c.group,
            _cell(c.energy, 1e3),
            _cell(c.forces_rmse),
            _cell(c.forces_max),
        ]
        for c in worst
    ]
    head = ["configuration", "formula", "group", "energy, meV/atom", "force RMSE, eV/Å", "force max, eV/Å"]
    return Table(head, rows, left=3)


def _course(result: FitResult) -> str:
    best = max((r["step"] for r in result.history if r.get("is_best")), default=0)
    return (
        f"{len(result.history)} steps; the best potential is that of step {best}, by the loss on the "
        f"{'validation' if 'valid' in result.metrics else 'training'} set."
    )


def _time_table(history: Sequence[Mapping[str, Any]]) -> Table:
    seconds: dict[str, float] = {}
    steps: dict[str, int] = {}
    before = 0.0
    for record in history:
        stage = str(record["stage"])
        seconds[stage] = seconds.get(stage, 0.0) + record["seconds"] - before
        steps[stage] = steps.get(stage, 0) + 1
        before = record["seconds"]
    rows = [
        [stage, str(steps[stage]), f"{seconds[stage]:.1f}", f"{seconds[stage] / steps[stage]:.2f}"]
        for stage in seconds
    ]
    return Table(["stage", "steps", "seconds", "seconds per step"], rows)


def _moved(history: Sequence[Mapping[str, Any]]) -> str:
    """What dynamics between the steps found; empty where there was none."""
    runs = [record for record in history if record["stage"] == "dynamics"]
    if not runs:
        return ""
    steps, falls = (sum(record[name] for record in runs) for name in ("dynamics_steps", "falls"))
    return (
        f"Between the steps molecules moved at {runs[-1]['temperature']:.0f} K, {steps:,} steps in {len(runs)} runs. "
        f"Geometries without data that they fell into, and that count in the loss since: {falls}, in the last run "
        f"{runs[-1]['falls']}."
    )


def _command(result: FitResult, where: Path) -> str:
    if (where / "config.yaml").exists():
        return f"etnpot fit {where / 'config.yaml'} --out NEW_DIRECTORY"
    arguments = "".join(f", {key}={value!r}" for key, value in changed_settings(result.settings).items())
    sets = ", ".join(["train", *(name for name in ("valid", "test") if name in result.data.sets)])
    if result.data.was_split:
        sets = sets.replace(", valid", "")
    return f"etnpot.fit({sets.replace('test', 'test=test')}{arguments})"


def _labelled(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose part of the fit has a name: what the axis of the learning curves shows."""
    stage = record["stage"]
    in_sweep = stage in ("sweep", "features")
    return {**record, "sweep": f"sweep {record['sweep'] + 1}" if in_sweep else stage}


def _plots(result: FitResult, where: Path) -> list[Figure]:
    """Draw what there is to draw."""
    energies = dict(
        zip(result.potential.species, result.potential.arrays["reference_energies"].tolist(), strict=True)
    )
    sets = {name: (part, result.predictions[name]) for name, part in result.data.sets.items()}
    plot_parity(sets, where / "parity.png", reference_energies=energies)
    figures = [
        Figure(
            "parity.png", "Predicted against reference values, energies without those of the free atoms E₀."
        )
    ]
    if len(result.history) > 1:
        plot_learning_curves([_labelled(record) for record in result.history], where / "learning.png")
        figures.append(Figure("learning.png", "Errors after every step of the fit."))
    if len({name for m in result.metrics.values() for name in m.by_group}) > 1:
        plot_group_errors(result.metrics, where / "groups.png")
        figures.append(Figure("groups.png", "Errors by group."))
    return figures


# ---------------------------------------------------------------------------------------------------- numbers


def _short(value: float) -> str:
    if not np.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _cell(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else _short(value * factor)


def _pair(s: ErrorStatistics | None, factor: float = 1.0) -> str:
    return f"{_short(s.mae * factor)} / {_short(s.rmse * factor)}" if s is not None and s.n else "-"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------------------- writing


def to_markdown(blocks: Sequence[Block]) -> str:
    """The report as Markdown; figures are named by file."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append("#" * block.level + " " + block.text)
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Code):
            parts.append(f"```text\n{block.text}\n```")
        elif isinstance(block, Figure):
            parts.append(f"![{block.caption}]({block.file})")
        else:
            align = ["---" if k < block.left else "--:" for k in range(len(block.head))]
            lines = [block.head, align, *block.rows]
            parts.append(
                "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
            )
    return "\n\n".join(parts) + "\n"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1100px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.15em; margin-top: 1.8em; border-bottom: 1px solid #e3e3e3; }
table { border-collapse: collapse; font-size: 0.92em; display: block; overflow-x: auto; }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #eeeeee; text-align: right; white-space: nowrap; }
th { color: #666666; font-weight: 600; } th.left, td.left { text-align: left; }
td { font-variant-numeric: tabular-nums; }
pre { background: #f6f6f6; padding: 0.8em; overflow-x: auto; font-size: 0.88em; }
figure { margin: 1em 0; } img { max-width: 100%; } figcaption { color: #666666; font-size: 0.9em; }
""".strip()


def to_html(blocks: Sequence[Block], directory: str | os.PathLike[str]) -> str:
    """The report as one HTML file; the figures, read from `directory`, are inside."""
    title = next((b.text for b in blocks if isinstance(b, Heading)), "Report")
    body = "\n".join(_html(block, Path(directory)) for block in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n"
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block, directory: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    if isinstance(block, Figure):
        image = base64.b64encode((directory / block.file).read_bytes()).decode()
        caption = html.escape(block.caption)
        return (
            f'<figure><img src="data:image/png;base64,{image}" alt="{caption}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )

    def row(cells: Sequence[str], tag: str) -> str:
        mark = [f'<{tag} class="left">' if k < block.left else f"<{tag}>" for k in range(len(cells))]
        return (
            "<tr>"
            + "".join(f"{m}{html.escape(c)}</{tag}>" for m, c in zip(mark, cells, strict=True))
            + "</tr>"
        )

    rows = "\n".join(row(cells, "td") for cells in block.rows)
    return f"<table>\n<thead>{row(block.head, 'th')}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
