"""The notebooks as files: clean, portable, and listed. CI executes them (`ci/run_notebooks.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def load(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def faults(notebook: dict[str, Any]) -> list[str]:
    """What is wrong with a notebook as a file, in words."""
    found = []
    cells = notebook["cells"]
    if notebook.get("nbformat") != 4:
        found.append(f"format {notebook.get('nbformat')}, expected 4")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("kernel is not python3")
    if not cells or cells[0]["cell_type"] != "markdown" or not "".join(cells[0]["source"]).startswith("# "):
        found.append("does not begin with a title")
    if len({cell.get("id") for cell in cells}) != len(cells):
        found.append("cell ids are missing or not unique")
    for n, cell in enumerate(cells, start=1):
        if cell["cell_type"] != "code":
            continue
        if cell["outputs"] or cell["execution_count"] is not None:
            found.append(f"cell {n} has outputs; clear them: jupyter nbconvert --clear-output --inplace")
        if not "".join(cell["source"]).strip():
            found.append(f"cell {n} is empty")
    if not any("assert " in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        found.append("checks nothing: no assert")
    return found


def test_there_are_notebooks() -> None:
    assert PATHS


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_notebook_is_clean(path: Path) -> None:
    assert faults(load(path)) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_notebook_is_listed(path: Path) -> None:
    assert f"({path.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_faults_are_seen() -> None:
    notebook = load(PATHS[0])
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    notebook["metadata"]["kernelspec"]["name"] = "other"
    notebook["cells"] = [code, dict(code)]
    notebook["cells"][1]["source"] = [""]
    text = "; ".join(faults(notebook))
    for word in ("outputs", "kernel", "title", "ids", "empty"):
        assert word in text
