"""``etnpot info FILE``: what a potential file, or that of a tensor model, holds."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions
    from etnpot.io.potential_file import StoredPotential

__all__ = ["add_parser", "run"]


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "info",
        help="show what a potential file holds",
        description="Check a potential file, or that of a tensor model, and show its species, settings, parameters and "
        "provenance.",
    )
    parser.add_argument("file", metavar="FILE", help="potential file, or file of a tensor model")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the summary of one potential file."""
    from etnpot.potential.either import load_either

    model, stored = load_either(args.file)
    if args.json:
        print(json.dumps(as_json(args.file, stored), indent=2, sort_keys=True))
    else:
        print(as_text(args.file, stored, model.summary()))
    return 0


def as_json(path: str | os.PathLike[str], stored: StoredPotential) -> dict[str, Any]:
    """The file as JSON values: format, specification, parameters per array, provenance.

    Parameters
    ----------
    path : str or path-like
    stored : StoredPotential

    Returns
    -------
    dict
    """
    from etnpot.potential.reliability import PREFIX

    return {
        "file": os.fspath(path),
        "format": stored.kind.format,
        "format_version": stored.format_version,
        "library_version": stored.library_version,
        "sha256": stored.sha256,
        "spec": stored.spec,
        "n_parameters": sum(
            array.size for name, array in stored.arrays.items() if not name.startswith(PREFIX)
        ),
        "arrays": {name: list(array.shape) for name, array in stored.arrays.items()},
        "provenance": stored.provenance,
    }


def as_text(path: str | os.PathLike[str], stored: StoredPotential, summary: str) -> str:
    """The file as text: a heading, the potential's own summary, the provenance.

    Parameters
    ----------
    path : str or path-like
    stored : StoredPotential
    summary : str
        What ``Potential.summary()`` says.

    Returns
    -------
    str
    """
    rows = [
        ("file", os.fspath(path)),
        (
            "format",
            f"{stored.kind.format} version {stored.format_version}, written by etnpot {stored.library_version}",
        ),
        ("sha256", stored.sha256),
    ]
    lines = [f"{label:<12}{value}" for label, value in rows]
    lines += ["", summary.rstrip(), "", "provenance"]
    lines += [f"  {line}" for line in _tree(stored.provenance)] or ["  none"]
    return "\n".join(lines)


def _tree(values: dict[str, Any]) -> list[str]:
    """Nested mappings as indented lines."""
    lines = []
    for key in sorted(values):
        value = values[key]
        if isinstance(value, dict) and value:
            lines += [f"{key}:", *(f"  {line}" for line in _tree(value))]
        else:
            lines.append(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    return lines
