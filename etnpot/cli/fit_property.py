"""``etnpot fit-property QUANTITY DATA...``: a model of dipoles, polarizabilities or other tensors from data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etnpot.cli.reading import check_outputs, write_json

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions

__all__ = ["add_parser", "run"]

_DESCRIPTION = """Fit a tensor model: of dipoles, polarizabilities, atomic charges, or any scalar, vector or matrix of a
structure or of its atoms. 'etnpot spectra' and ETNCalculator use such models."""


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand; the settings of the fit are added when it is used."""
    parser = subparsers.add_parser(
        "fit-property",
        help="fit dipoles, polarizabilities or other tensors to data",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "quantity",
        metavar="QUANTITY",
        help="dipole, polarizability, charges, or with --form a name of your own",
    )
    parser.add_argument("train", metavar="DATA", nargs="+", help="training set: anything that ASE reads")
    parser.add_argument(
        "--valid", metavar="FILE", nargs="+", help="validation set; by default a part of DATA"
    )
    parser.add_argument("--test", metavar="FILE", nargs="+", help="test set, evaluated at the end")
    parser.add_argument("--out", metavar="MODEL.etn", help="file to write [QUANTITY.etn]")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a fit that was stopped, from MODEL.etn.etnfit"
    )
    parser.add_argument("--force", action="store_true", help="begin anew although a fit was stopped")
    parser.add_argument("--json", metavar="OUT.json", help="write errors and history ('-': to stdout)")
    parser.add_argument(
        "--charges", action="store_true", help="dipole of atomic charges and atomic dipoles (molecules)"
    )
    labels = parser.add_argument_group("labels")
    labels.add_argument(
        "--key", metavar="NAME", help="entry that holds the label; the usual names by default"
    )
    labels.add_argument(
        "--unit",
        metavar="UNIT",
        help="of the data: e*Ang, debye, ea0, au; Ang^3, bohr^3, au. By default the units of ASE",
    )
    labels.add_argument(
        "--form", metavar="FORM", help="scalar, vector, axial, traceless, symmetric or matrix"
    )
    labels.add_argument("--per-atom", action="store_true", help="one tensor for each atom; with --form")
    labels.add_argument(
        "--index", metavar="SLICE", default=":", help="which frames of each file, as in ASE [:]"
    )
    labels.add_argument("--format", metavar="NAME", help="ASE's name of the file format")
    parser.populate = _add_settings
    parser.set_defaults(run=run)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting of the fit."""
    from dataclasses import fields

    from etnpot.cli.options import flag, parameter_texts
    from etnpot.fitting.tensor_fit import TensorFitSettings

    group = parser.add_argument_group("model and training")
    texts = parameter_texts(TensorFitSettings)
    for field in fields(TensorFitSettings):
        text = texts.get(field.name, "").replace("%", "%%")
        if field.default is not None:
            text += f" [{field.default}]"
        group.add_argument(
            flag(field.name), dest=f"set_{field.name}", metavar="VALUE", default=argparse.SUPPRESS, help=text
        )


def run(args: argparse.Namespace) -> int:
    """Fit, print errors, write."""
    import sys

    from etnpot.fitting.tensor_fit import fit_tensor
    from etnpot.io.settings_file import parse_value
    from etnpot.potential import Quantity

    out = args.out or f"{args.quantity}.etn"
    check_outputs(out, args.json)
    quantity: Any = args.quantity
    if args.form is not None:
        quantity = Quantity(args.quantity, args.form, per_atom=args.per_atom)
    elif args.per_atom:
        from etnpot.errors import SpecificationError

        raise SpecificationError("--per-atom goes with --form, which says what each atom has")
    settings = {
        name.removeprefix("set_"): parse_value(value)
        for name, value in vars(args).items()
        if name.startswith("set_")
    }
    text = sys.stderr if args.json == "-" else sys.stdout
    checkpoint = Path(f"{out}.etnfit")
    try:
        result = fit_tensor(
            args.train, quantity, args.valid, test=args.test, charges=args.charges, key=args.key, unit=args.unit,
            index=args.index, format=args.format, checkpoint=checkpoint, resume=args.resume, force=args.force,
            callback=lambda record: print(_line(record), file=text, flush=True), **settings,
        )  # fmt: skip
    except KeyboardInterrupt:
        if checkpoint.exists():
            print("the fit is kept after its last complete step; go on with --resume", file=sys.stderr)
        raise
    result.model.save(out)
    checkpoint.unlink(missing_ok=True)
    unit = result.model.quantity.unit
    print(f"\nerrors of the components{f' ({unit})' if unit else ''}\n{result.table()}\n", file=text)
    print(f"finished: {result.reason} ({len(result.history)} steps, {result.seconds:.1f} s)", file=text)
    print(f"model      {out}", file=text)
    if args.json is not None:
        values = {
            "model": str(out),
            "metrics": {name: metrics.to_json() for name, metrics in result.metrics.items()},
            "history": result.history,
            "reason": result.reason,
        }
        write_json(values, args.json)
    return 0


def _line(record: dict[str, Any]) -> str:
    valid = record["valid_rmse"]
    core = f" core {record['core']}" if "core" in record else ""
    return f"{record['step']:4d}  {record['stage'] + core:<14}rmse {record['train_rmse']:.4g}" + (
        "" if valid is None else f"  validation {valid:.4g}"
    )
