"""Options that commands on data share: where the labels are, which frames, how many threads, where the output goes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etnpot.errors import DataError

if TYPE_CHECKING:
    from etnpot.fitting.dataset import DataSet

__all__ = ["add_reading_options", "check_outputs", "check_threads", "read_data", "write_json"]


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads`` and the options of `read_data`."""
    parser.add_argument("--threads", metavar="N", type=int, help="threads; all processors by default")
    labels = parser.add_argument_group("labels")
    for name in ("energy", "forces", "stress", "virial"):
        labels.add_argument(
            f"--{name}-key", metavar="NAME", help=f"entry that holds the {name}; the usual names by default"
        )
    labels.add_argument(
        "--group-key", metavar="NAME", default="config_type", help="entry that names the group [config_type]"
    )
    labels.add_argument(
        "--index", metavar="SLICE", default=":", help="which frames of each file, as in ASE [:]"
    )
    labels.add_argument("--format", metavar="NAME", help="ASE's name of the file format")
    labels.add_argument(
        "--type-map", metavar="SYMBOLS", help="elements of the types 0, 1, ... of .cfg files: Nb,Mo,..."
    )


def check_threads(threads: int | None) -> None:
    """Raise DataError for a number of threads that makes no sense."""
    if threads is not None and threads < 1:
        raise DataError(f"--threads: expected a positive integer, got {threads}")


def check_outputs(*paths: str | None) -> None:
    """Raise DataError if a file could not be written because its directory is missing."""
    for out in paths:
        if out not in (None, "-") and not Path(str(out)).absolute().parent.is_dir():
            raise DataError(f"cannot write {out}: its directory does not exist; make it first")


def read_data(args: argparse.Namespace, paths: Sequence[str], *, require_labels: bool) -> DataSet:
    """The configurations of files, read as the options say."""
    from etnpot.fitting.dataset import DataSet

    return DataSet.from_files(
        list(paths),
        energy_key=args.energy_key,
        forces_key=args.forces_key,
        stress_key=args.stress_key,
        virial_key=args.virial_key,
        group_key=args.group_key,
        index=args.index,
        format=args.format,
        species=None if args.type_map is None else args.type_map.replace(",", " ").split(),
        require_labels=require_labels,
    )


def write_json(values: Any, path: str) -> None:
    """Write JSON to a file, or to the standard output for "-"."""
    document = json.dumps(values, indent=1, ensure_ascii=False)
    if path == "-":
        print(document)
    else:
        Path(path).write_text(document + "\n", encoding="utf-8")
