"""The report of a study on one page that needs no other file. Every figure comes from the records of the runs.

The page is a function of ``results.json``: the same runs give the same page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.data import chemical_symbols

import etnpot
from etnpot.compare import figures
from etnpot.compare.adapters import adapter_class
from etnpot.compare.properties import NUMBERS
from etnpot.compare.results import MOST_SYSTEMS, QUANTITIES, Record, Spread, StudyResult, grouped
from etnpot.fitting.report import Block, Code, Figure, Heading, Table, Text, to_html
from etnpot.io.atomic import write_bytes_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["write_report"]


def write_report(result: StudyResult) -> None:
    """``report.html`` in the directory of the study."""
    with tempfile.TemporaryDirectory() as name:
        drawn = Path(name)
        blocks = report_blocks(result, drawn)
        text = to_html(blocks, drawn)
    write_bytes_atomically(result.out / "report.html", text.encode())


def report_blocks(result: StudyResult, directory: Path) -> list[Block]:
    """The content; plots are drawn into `directory`."""

    def drawn(figure: Drawing | None, name: str, caption: str) -> list[Block]:
        if figure is None:
            return []
        figure.savefig(directory / f"{name}.png", metadata={"Software": None})
        return [Figure(f"{name}.png", caption)]

    study = result.study
    blocks: list[Block] = [Heading(study.name, 1), Text(_protocol(result)), *_failures(result)]
    blocks += [Heading("Errors"), *_error_tables(result)]
    blocks += drawn(
        figures.plot_errors(result),
        "errors",
        "Errors on the test sets, largest training set; bars: spread over seeds.",
    )
    blocks += [Heading("Cost"), *_cost_tables(result)]
    blocks += drawn(
        figures.plot_pareto(result), "pareto",
        "Error against time per atom. The line joins the models that no other beats in both.",
    )  # fmt: skip
    blocks += _section(
        "Number of elements",
        drawn(
            figures.plot_species(result),
            "species",
            "Errors on the first test set, and cost, against the number of elements.",
        ),
    )
    learning: list[Block] = drawn(
        figures.plot_learning(result),
        "learning",
        "Test errors against the number of training configurations.",
    )
    if learning:
        learning += _learning_tables(result)
    blocks += _section("Learning curves", learning)
    for kind, title in (("by_element", "element"), ("by_composition", "composition"), ("by_group", "group")):
        inside: list[Block] = []
        for k, data in enumerate(result.data):
            for j, test in enumerate(result.data[data].tests):
                quantity = "forces" if kind == "by_element" else "energy"
                inside += _grouped_tables(result, data, test, kind)
                if len(_names(result, data, test, kind)) <= MOST_SYSTEMS:
                    inside += drawn(
                        figures.plot_compositions(result, data, test, kind, quantity), f"{kind}-{k}-{j}",
                        f"Errors of {QUANTITIES[quantity][0]} by {title}.",
                    )  # fmt: skip
        blocks += _section(f"Errors by {title}", inside)
    properties: list[Block] = []
    for k, data in enumerate(result.data):
        properties += _property_tables(result, data)
        properties += drawn(
            figures.plot_properties(result, data),
            f"properties-{k}",
            f"Deviations from the reference{_of(result, data)}.",
        )
        properties += drawn(
            figures.plot_volume_curves(result, data), f"curves-{k}",
            f"Energy per atom against the lattice constant, from that of the given one{_of(result, data)}; circles: reference.",
        )  # fmt: skip
    blocks += _section("Properties of crystals", properties)
    blocks += [Heading("Data"), *_data_tables(result), Heading("Models"), *_model_tables(result)]
    blocks += [Heading("Versions"), Text(_versions(result)), Heading("The study"), Code(_as_yaml(result))]
    return blocks


def _section(title: str, blocks: Sequence[Block]) -> list[Block]:
    return [Heading(title), *blocks] if blocks else []


def _of(result: StudyResult, data: str) -> str:
    return f" ({data})" if len(result.data) > 1 else ""


def _protocol(result: StudyResult) -> str:
    study = result.study
    budget = [
        f"{value:g} {unit}"
        for value, unit in (
            (study.budget.seconds, "s"),
            (study.budget.epochs, "epochs or steps"),
            (study.budget.parameters, "parameters"),
        )
        if value is not None
    ]
    seeds = f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"
    trained = [model.name for model in study.models if adapter_class(model.type).trains]
    return (
        f"{len(trained)} models trained on {', '.join(result.data)}, each by its own code, with {seeds}"
        + (f" and a budget of {', '.join(budget)} per training" if budget else "")
        + f", on {study.threads} thread{'s' if study.threads > 1 else ''}. All are evaluated through their ASE calculators on "
        "the same test sets, which no training has seen. Errors are root-mean-square errors (mean absolute errors in "
        "results.csv); ± is the standard deviation over seeds."
    )


def _failures(result: StudyResult) -> list[Block]:
    if not result.failures:
        return []
    rows: dict[tuple[str, str, str], int] = {}
    for record in result.failures:
        key = record["data"], record["model"], record["error"]
        rows[key] = rows.get(key, 0) + 1
    return [
        Heading("Without figures"),
        Table(["data", "model", "why", "runs"], [[*key, str(n)] for key, n in rows.items()], left=3),
    ]


def _text(spread: Spread | None, factor: float = 1.0) -> str:
    return "-" if spread is None else spread.text(factor)


def _shown(result: StudyResult, data: str) -> list[tuple[str, list[Record]]]:
    """Every model of the study with its runs of the largest training set; those without figures too."""
    return [(model.name, result.seeds_of(data, model.name)) for model in result.study.models]


def _error_tables(result: StudyResult) -> list[Block]:
    blocks: list[Block] = []
    for data, parts in result.data.items():
        rows = []
        for test, part in parts.tests.items():
            for model, records in _shown(result, data):
                cells = [_text(result.error(records, test, quantity)) for quantity in QUANTITIES]
                mae = [_text(result.error(records, test, quantity, "mae")) for quantity in QUANTITIES]
                rows.append([f"{test} ({len(part)})", model, *cells, *mae])
        head = [f"{title} {m}, {unit}" for m in ("RMSE", "MAE") for title, unit, _ in QUANTITIES.values()]
        if len(result.data) > 1:
            blocks.append(Heading(data, 3))
        blocks.append(Table(["test set", "model", *head], rows, left=2))
        sources = [model for model, _ in _shown(result, data) if figures.is_source(result, data, model)]
        if sources:
            blocks.append(
                Text(f"{', '.join(sources)} has made the labels of {data}, and is left out of the plots.")
            )
    return blocks


def _cost_tables(result: StudyResult) -> list[Block]:
    blocks: list[Block] = []
    for data in result.data:
        rows = []
        for model, records in _shown(result, data):
            rows.append(
                [
                    model,
                    _text(result.parameters(records)),
                    _text(result.figure(records, "train", "seconds")),
                    _text(result.figure(records, "train", "epochs")),
                    _text(result.figure(records, "train", "memory_mb")),
                    _text(result.figure(records, "evaluation", "us_per_atom")),
                    _text(result.figure(records, "evaluation", "timing_atoms")),
                    _text(result.figure(records, "evaluation", "memory_mb")),
                ]
            )
        if len(result.data) > 1:
            blocks.append(Heading(data, 3))
        head = [
            "model", "parameters", "training, s", "epochs or steps", "training, MB", "µs/atom", "timed atoms",
            "evaluation, MB",
        ]  # fmt: skip
        blocks.append(Table(head, rows))
    untimed = {
        f"{record['model']}: {record['evaluation']['timing_error']}"
        for record in result.records
        if record["error"] is None and "timing_error" in record["evaluation"]
    }
    if untimed:
        blocks.append(Text("Not timed: " + "; ".join(sorted(untimed)) + "."))
    blocks.append(
        Text(
            "Time per atom: processor time of energy, forces and stress (of what has a volume), the fastest of repeated "
            "calls with moving atoms. "
            "Memory: the largest resident size of the process, its libraries included."
        )
    )
    return blocks


def _learning_tables(result: StudyResult) -> list[Block]:
    blocks: list[Block] = []
    for data, parts in result.data.items():
        for test in parts.tests:
            sizes = sorted(
                {size for model in result.study.models for size in result.sizes_of(data, model.name)},
                key=lambda size: float("inf") if size == "all" else float(size),
            )
            rows = []
            for model in figures.judged(result, data):
                for quantity in ("energy", "forces"):
                    cells = [
                        _text(result.error(result.seeds_of(data, model, size), test, quantity))
                        for size in sizes
                    ]
                    if any(cell != "-" for cell in cells) and result.sizes_of(data, model):
                        rows.append([model, f"{quantity}, {QUANTITIES[quantity][1]}", *cells])
            if rows:
                blocks.append(Heading(f"{data}, {figures.name_of_test(test)}", 3))
                blocks.append(Table(["model", "RMSE", *(str(size) for size in sizes)], rows, left=2))
    return blocks


def _names(result: StudyResult, data: str, test: str, kind: str) -> list[str]:
    found = {
        name
        for model in result.study.models
        for record in result.seeds_of(data, model.name)
        for name in record["metrics"][test][kind]
    }
    return sorted(found, key=lambda name: (name.count("-"), name))


def _grouped_tables(result: StudyResult, data: str, test: str, kind: str) -> list[Block]:
    names = _names(result, data, test, kind)
    if len(names) < 2 or len(names) > 4 * MOST_SYSTEMS:
        return []
    quantities = ("forces",) if kind == "by_element" else ("energy", "forces")
    columns = []
    head = []
    for model in figures.judged(result, data):
        for quantity in quantities:
            factor = QUANTITIES[quantity][2]

            def value(
                entry: Mapping[str, Any], quantity: str = quantity, factor: float = factor
            ) -> float | None:
                errors = entry if kind == "by_element" else entry.get(quantity, {})
                found = errors.get("rmse")
                return None if found is None else factor * found

            columns.append(grouped(result.seeds_of(data, model), test, kind, value))
            head.append(f"{model}: {quantity}, {QUANTITIES[quantity][1]}")
    if not columns:
        return []
    rows = [[name, *(_text(column.get(name)) for column in columns)] for name in names]
    return [Heading(f"{data}, {figures.name_of_test(test)}", 3), Table(["", *head], rows)]


def _property_tables(result: StudyResult, data: str) -> list[Block]:
    spec = result.study.properties
    crystals = result.crystals(data)
    if spec is None or not crystals:
        return []
    models = ([] if spec.reference is None else [spec.reference]) + figures.judged(result, data)
    found: list[tuple[str, str, list[Record]]] = []
    for crystal in crystals:
        if crystal.values:
            found.append((crystal.name, "given", [dict(crystal.values)]))
        for model in models:
            records = result.seeds_of(data, model)
            found.append((crystal.name, model, [r["properties"].get(crystal.name, {}) for r in records]))
    names = [n for n in NUMBERS if any(isinstance(e.get(n), float) for *_, es in found for e in es)]
    rows = []
    notes: list[str] = []
    for name, model, entries in found:
        cells = []
        for number in names:
            shown = Spread.of([e[number] for e in entries if isinstance(e.get(number), float)])
            cells.append(_precise(shown) if number in ("a", "c/a", "formation") else _text(shown))
        rows.append([name, model, *cells])
        notes += [
            f"{model}, {name}, {key}: {v}" for e in entries for key, v in e.items() if isinstance(v, str)
        ]
    if not names:
        return []
    notes += [f"given values of {crystal.name}: {crystal.source}" for crystal in crystals if crystal.values]
    blocks: list[Block] = [Heading(data, 3)] if len(result.data) > 1 else []
    head = [", ".join(part for part in NUMBERS[name] if part) for name in names]
    blocks.append(Table(["crystal", "model", *head], rows, left=2))
    if notes:
        blocks.append(Text("; ".join(dict.fromkeys(notes))))
    return blocks


def _precise(spread: Spread | None) -> str:
    """Four decimals."""
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" + ("" if spread.spread is None else f" ± {spread.spread:.4f}")


def _data_tables(result: StudyResult) -> list[Block]:
    rows = []
    for name, parts in result.data.items():
        sets = {"training": parts.train, "validation": parts.valid}
        sets.update({figures.name_of_test(key): test for key, test in parts.tests.items()})
        for title, part in sets.items():
            if part is not None:
                symbols = " ".join(chemical_symbols[z] for z in part.species)
                rows.append([name, title, symbols, part.hash[:16], f"{len(part):,}", f"{part.n_atoms:,}"])
    blocks: list[Block] = [
        Table(["data", "set", "elements", "sha256", "configurations", "atoms"], rows, left=4)
    ]
    held = [name for name, parts in result.data.items() if parts.valid is None and parts.valid_fraction]
    if held:
        blocks.append(
            Text(
                f"Validation sets of {', '.join(held)} are held out of each training set ("
                + ", ".join(f"{100 * result.data[name].valid_fraction:g} %" for name in held)
                + "), by content and seed."
            )
        )
    return blocks


def _model_tables(result: StudyResult) -> list[Block]:
    rows = []
    for model in result.study.models:
        settings = ", ".join(f"{key}: {value}" for key, value in model.full_settings.items())
        budget = result.study.budget_of(model)
        given = ", ".join(f"{k} {v:g}" for k, v in budget.model_dump().items() if v is not None)
        adapter = adapter_class(model.type)
        rows.append(
            [model.name, adapter.title, settings or "defaults", given if adapter.trains else "not trained"]
        )
    blocks: list[Block] = [Table(["model", "code", "settings", "budget"], rows, left=4)]
    notes: dict[tuple[str, str], int] = {}
    for record in result.records:
        note = (record.get("train") or {}).get("note")
        if note:
            notes[record["model"], note] = notes.get((record["model"], note), 0) + 1
    if notes:
        blocks.append(
            Table(
                ["model", "how trainings ended", "runs"],
                [[model, note, str(n)] for (model, note), n in notes.items()],
                left=2,
            )
        )
    return blocks


def _versions(result: StudyResult) -> str:
    found: dict[str, dict[str, None]] = {}
    for record in result.records:
        for part in ("train", "evaluation"):
            for name, version in ((record.get(part) or {}).get("versions") or {}).items():
                found.setdefault(name, {})[version] = None
    listed = "; ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items()))
    return f"Report by etnpot {etnpot.__version__}. Runs by {listed or 'nothing yet'}."


def _as_yaml(result: StudyResult) -> str:
    import yaml

    plain = result.study.model_dump(exclude_defaults=True)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))
