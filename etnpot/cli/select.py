"""``etnpot select POTENTIAL POOL... --n N``: which configurations are worth computing."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from etnpot.cli.reading import add_reading_options, check_outputs, check_threads, read_data, write_json

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions

__all__ = ["add_parser", "run"]


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "select",
        help="choose the configurations that are worth computing",
        description="Choose from a pool, which needs no labels, the configurations that a potential would learn most "
        "from: those outside of its training set first, each seen as known before the next is chosen.",
    )
    parser.add_argument("potential", metavar="POTENTIAL", help="potential file")
    parser.add_argument("pool", metavar="POOL", nargs="+", help="anything that ASE reads, or MLIP .cfg")
    parser.add_argument("--n", metavar="N", type=int, required=True, help="how many, at most")
    parser.add_argument(
        "--rule",
        choices=("grade", "deviation"),
        default="grade",
        help="by grade while there are grades above 1 and then by the expected error, or by the expected error alone "
        "[grade]",
    )
    parser.add_argument(
        "--threshold", metavar="GRADE", type=float, help="only configurations of a grade above it"
    )
    parser.add_argument(
        "--out", metavar="OUT.extxyz", help="write the chosen configurations, without labels, in their order"
    )
    parser.add_argument("--json", metavar="OUT.json", help="write which were chosen ('-': to stdout)")
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Choose, print, write."""
    import etnpot
    from etnpot.fitting.selection import select
    from etnpot.metrics import format_table

    check_outputs(args.json, args.out)
    check_threads(args.threads)
    potential = etnpot.load(args.potential)
    potential.known_reliability()
    pool = read_data(args, args.pool, require_labels=False)
    choices = select(potential, pool, args.n, rule=args.rule, threshold=args.threshold, threads=args.threads)
    text = sys.stderr if args.json == "-" else sys.stdout
    rows = [
        [pool[c.index].name, pool[c.index].group or "", f"{c.grade:.2f}", f"{c.deviation:.4f}", c.rule]
        for c in choices
    ]
    head = ["configuration", "group", "grade", "F std, eV/Å", "by"]
    print(f"{len(choices)} of {len(pool)} configurations chosen", file=text)
    if rows:
        print("\n" + format_table(head, rows), file=text)
    if args.out is not None:
        from ase.io import write

        frames = []
        for choice in choices:
            atoms = pool[choice.index].atoms.copy()
            atoms.info = {"grade": choice.grade, "source": pool[choice.index].name}
            if pool[choice.index].group is not None:
                atoms.info["config_type"] = pool[choice.index].group
            frames.append(atoms)
        write(args.out, frames, format="extxyz")
    if args.json is not None:
        values = {
            "potential": args.potential,
            "pool": args.pool,
            "pool_sha256": pool.hash,
            "choices": [
                {
                    "index": c.index,
                    "name": pool[c.index].name,
                    "frame": pool[c.index].index,
                    "grade": c.grade,
                    "force_std": c.deviation,
                    "rule": c.rule,
                }
                for c in choices
            ],
        }
        write_json(values, args.json)
    return 0
