"""Freeze a potential file: ``python freeze.py POTENTIAL NAME`` makes NAME.etn and NAME.json beside it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etnpot.io.potential_file import StoredPotential, read_potential_file

HERE = Path(__file__).parent


def expected(stored: StoredPotential) -> dict[str, Any]:
    """What reading the file must give, as JSON values."""
    return asdict(stored) | {"arrays": {name: array.tolist() for name, array in stored.arrays.items()}}


def freeze(source: Path, name: str, directory: Path = HERE) -> None:
    """Copy `source` to NAME.etn and describe it in NAME.json; refuses to replace a file."""
    content = source.read_bytes()
    described = json.dumps(expected(read_potential_file(source)), indent=1, sort_keys=True) + "\n"
    with open(directory / f"{name}.etn", "xb") as file:
        file.write(content)
    with open(directory / f"{name}.json", "x", encoding="utf-8") as text:
        text.write(described)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    freeze(Path(sys.argv[1]), sys.argv[2])
