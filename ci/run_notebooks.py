"""Execute every notebook from a clean kernel; the first cell that fails stops with its traceback.

Usage: ``python ci/run_notebooks.py [DIRECTORY]``; DIRECTORY is notebooks by default. A directory without
notebooks is an error, since then nothing would be tested. The files are not changed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

CELL_TIMEOUT = 300  # s


def main(directory: Path) -> int:
    """Run all notebooks of `directory`; 0 if every cell of every one ran."""
    paths = sorted(directory.glob("*.ipynb"))
    if not paths:
        print(f"run_notebooks: expected notebooks in {directory}/; found none", file=sys.stderr)
        return 1

    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    for path in paths:
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": str(directory)}},
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"run_notebooks: {path} failed\n{error}", file=sys.stderr)
            return 1
        n_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
        print(f"{path}: {n_cells} code cells, {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(*(sys.argv[1:] or ["notebooks"]))))
