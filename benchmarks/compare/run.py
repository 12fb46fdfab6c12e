"""The studies of examples/compare: run, and their tables and reports put into docs/.

    python benchmarks/compare/run.py            all of them, whatever is not there yet
    python benchmarks/compare/run.py species    one of them
    python benchmarks/compare/run.py --render   pages again from the runs that are there

Runs are kept below ``$ETNPOT_STUDIES``, else below ``~/.cache/etnpot-studies``. Other potentials must be installed:
``etnpot compare --install motep ace mace nequip schnetpack``; a study whose data are missing is left out, with a line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import etnpot
from etnpot.compare.results import StudyResult
from etnpot.errors import SpecificationError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(path.stem for path in (ROOT / "examples" / "compare").glob("*.yaml"))
PAGE = ROOT / "docs" / "compare.md"


def directory() -> Path:
    """Where runs are kept."""
    return Path(os.environ.get("ETNPOT_STUDIES") or Path.home() / ".cache" / "etnpot-studies").resolve()


def block(result: StudyResult) -> str:
    """Table and conditions for the page."""
    versions: dict[str, str] = {"etnpot": etnpot.__version__}
    for record in result.records:
        versions.update((record.get("train") or {}).get("versions") or {})
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"```text\n{result.table()}\n```\n\nRoot-mean-square errors. Versions: {listed}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--render", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    for name in options.names or STUDIES:
        study = ROOT / "examples" / "compare" / f"{name}.yaml"
        try:
            result = etnpot.compare(study, directory() / name, report_only=options.render)
        except SpecificationError as error:  # data that are not here
            print(f"{name}: {error}")
            continue
        if len(result.failures) == len(result.records):
            print(f"{name}: nothing has been run")
            continue
        for record in result.failures:
            print(f"{name}: {record['data']}, {record['model']}: {record['error']}")
        shutil.copyfile(result.out / "report.html", ROOT / "docs" / "studies" / f"{name}.html")
        write_sections(PAGE, {name: block(result)})


if __name__ == "__main__":
    main()
