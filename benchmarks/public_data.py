"""Where the public data sets are that do not come along."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["data_directory"]

#: Where they are looked for when the variable is not set.
_BESIDE = {"ETNPOT_DATA": Path(__file__).resolve().parents[2] / "shared" / "data"}


def data_directory(variable: str = "ETNPOT_DATA", told: str = "docs/accuracy.md") -> Path:
    """The directory that a variable names; ends with a message when there is none. `told` is the file that says more."""
    named = os.environ.get(variable)
    path = Path(named) if named else _BESIDE.get(variable)
    if path is None:
        sys.exit(f"set {variable} to the directory of the data sets ({told})")
    if not path.is_dir():
        sys.exit(f"the data sets were expected in {path}; set {variable} to their directory ({told})")
    return path
