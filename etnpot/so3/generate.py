"""Write the packaged coupling coefficients: ``python -m etnpot.so3.generate``.

For every path (l1, l2 -> l3) with l1 <= l2 and all three up to `etnpot.so3.coupling.STORED_L_MAX`, the exact
signed squares sign(C) C² come from sympy (`etnpot.so3.coupling` has the equations), and their correctly
rounded square roots are stored. Paths with l1 > l2 follow by the exchange sign. Two runs write equal bytes.

``--check`` writes nothing: it recomputes everything and fails if a single bit of a stored number differs.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from etnpot.so3.coupling import (
    STORED_L_MAX,
    TABLE_FILE,
    Path3,
    Table,
    read_tables,
    signed_squares,
    table_from_squares,
    write_tables,
)

__all__ = ["differences", "generate_tables", "main", "stored_paths"]

logger = logging.getLogger(__name__)


def stored_paths(l_max: int = STORED_L_MAX) -> list[Path3]:
    """The paths (l1, l2, l3) with l1 <= l2 that a file up to ``l_max`` holds, in its order."""
    return [
        (l1, l2, l3)
        for l1 in range(l_max + 1)
        for l2 in range(l1, l_max + 1)
        for l3 in range(l2 - l1, min(l1 + l2, l_max) + 1)
    ]


def generate_tables(l_max: int = STORED_L_MAX) -> dict[Path3, Table]:
    """Compute the table of every path of `stored_paths` with sympy."""
    return {path: table_from_squares(signed_squares(*path)) for path in stored_paths(l_max)}


def differences(expected: dict[Path3, Table], found: dict[Path3, Table]) -> list[Path3]:
    """The paths that one side lacks or whose tables are not equal bit by bit."""
    return sorted(
        path
        for path in expected.keys() | found.keys()
        if path not in expected
        or path not in found
        or not all(np.array_equal(a, b) for a, b in zip(expected[path], found[path], strict=True))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m etnpot.so3.generate", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name(TABLE_FILE),
        help="the file (default: the package data)",
    )
    parser.add_argument("--l-max", type=int, default=STORED_L_MAX, help="largest l (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file differs")
    options = parser.parse_args(arguments)

    start = time.perf_counter()
    tables = generate_tables(options.l_max)
    n_nonzero = sum(len(values) for _, values in tables.values())
    logger.info(
        "%d paths, %d nonzero coefficients in %.1f s", len(tables), n_nonzero, time.perf_counter() - start
    )
    if options.check:
        different = differences(tables, read_tables(options.out))
        if different:
            logger.error(
                "%s: %d paths differ, first (%d, %d -> %d)", options.out, len(different), *different[0]
            )
            return 1
        logger.info("%s: equal", options.out)
        return 0
    write_tables(options.out, tables)
    logger.info("%s: %d bytes", options.out, options.out.stat().st_size)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    sys.exit(main())
