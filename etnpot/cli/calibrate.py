"""``etnpot calibrate POTENTIAL --train DATA``: add grades and standard deviations to a potential that lacks them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from etnpot.cli.reading import add_reading_options, check_outputs, check_threads, read_data
from etnpot.errors import DataError

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions

__all__ = ["add_parser", "run"]


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "calibrate",
        help="add extrapolation grades and expected errors to a potential",
        description="Find out, from the data that a potential was fitted to, what 'etnpot grade', 'etnpot select' and the "
        "monitors of molecular dynamics need, and keep it in the potential file. Every 'etnpot fit' does this at its end.",
    )
    parser.add_argument("potential", metavar="POTENTIAL", help="potential file")
    parser.add_argument("--train", metavar="DATA", nargs="+", required=True, help="what it was fitted to")
    parser.add_argument(
        "--valid", metavar="DATA", nargs="+", help="held-out data that set the scale of the expected errors"
    )
    parser.add_argument(
        "--valid-fraction",
        metavar="X",
        type=float,
        help="without --valid: the part of the training data that the fit held out, chosen as the fit chose it "
        "(default: what the potential says of its fit, else none)",
    )
    parser.add_argument("--out", metavar="FILE", help="where the potential goes; its own file by default")
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Add it, and say what was found."""
    import etnpot
    from etnpot.fitting.prepared import LossWeights
    from etnpot.fitting.reliability import assessed
    from etnpot.fitting.split import split

    out = args.potential if args.out is None else args.out
    check_outputs(out)
    check_threads(args.threads)
    if args.valid_fraction is not None and not 0 <= args.valid_fraction < 1:
        raise DataError(f"--valid-fraction: expected a number from 0 to 1, got {args.valid_fraction}")
    potential = etnpot.load(args.potential)
    train = read_data(args, args.train, require_labels=True)
    valid = None if args.valid is None else read_data(args, args.valid, require_labels=True)
    settings: dict[str, Any] = dict(potential.provenance.get("settings", {}))
    if valid is None:
        held_out = (
            settings.get("valid_fraction", 0.0) if potential.provenance.get("valid_was_split_off") else 0.0
        )
        fraction = held_out if args.valid_fraction is None else args.valid_fraction
        if fraction > 0:
            train, valid = split(train, fraction, int(settings.get("seed", 0)))
    names = {
        "energy": "energy_weight",
        "forces": "forces_weight",
        "stress": "stress_weight",
        "alpha": "alpha",
    }
    weights = LossWeights(**{key: settings[name] for key, name in names.items() if name in settings})
    shifted = potential.species if settings.get("stress_shift", True) else ()
    potential = assessed(potential, train, valid, weights, shifted=shifted, threads=args.threads)
    potential.save(out)
    found = potential.provenance["reliability"]
    print(
        f"{out}: {found['core']}, {found['directions']} directions of {found['entries']} parameters, "
        f"{found['active_configurations']} active configurations, calibrated on the {found['calibrated_on']}, "
        f"{found['seconds']:.1f} s"
    )
    return 0
