"""``etnpot grade POTENTIAL DATA...``: where a potential is guessing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etnpot.cli.reading import add_reading_options, check_outputs, check_threads, read_data, write_json

if TYPE_CHECKING:
    from ase import Atoms

    from etnpot.cli import _WithCommonOptions
    from etnpot.fitting.grading import Graded

__all__ = ["add_parser", "graded_atoms", "run"]


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "grade",
        help="extrapolation grades and expected errors of configurations",
        description="Extrapolation grades (above 1: outside of the training set) and standard deviations of energies "
        "and forces. Where the data have labels, also how well both foretell the errors.",
    )
    parser.add_argument("potential", metavar="POTENTIAL", help="potential file")
    parser.add_argument("data", metavar="DATA", nargs="+", help="anything that ASE reads, or MLIP .cfg")
    parser.add_argument(
        "--forces",
        action="store_true",
        help="the standard deviation of every force component, from its own derivatives: slower and better than the "
        "estimate from the energy of the atom",
    )
    parser.add_argument(
        "--json", metavar="OUT.json", help="write all of it, also of every atom ('-': to stdout)"
    )
    parser.add_argument(
        "--write",
        metavar="OUT.extxyz",
        help="write the configurations with predicted energy and forces as results, grade and energy_std, and by atom "
        "grades, energies_std and forces_std",
    )
    parser.add_argument(
        "--worst", metavar="N", type=int, default=10, help="configurations in the list of the highest [10]"
    )
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Grade, print, write."""
    import etnpot
    from etnpot.fitting.grading import calibration, grade_all, table

    check_outputs(args.json, args.write)
    check_threads(args.threads)
    potential = etnpot.load(args.potential)
    potential.known_reliability()
    dataset = read_data(args, args.data, require_labels=False)
    graded = grade_all(potential, dataset, forces=args.forces, threads=args.threads)
    agreement = calibration(graded)
    text = sys.stderr if args.json == "-" else sys.stdout
    print(f"{potential!r}\n{dataset!r}\n\n{table(graded, n_worst=max(args.worst, 0))}", file=text)
    if agreement:
        print("\n" + "\n".join(_agreement(agreement)), file=text)
    if args.json is not None:
        values = {
            "potential": args.potential,
            "data": args.data,
            "data_sha256": dataset.hash,
            "calibration": agreement,
            "configurations": [_as_json(one) for one in graded],
        }
        write_json(values, args.json)
    if args.write is not None:
        from ase.io import write

        write(args.write, graded_atoms(graded))
    return 0


def _agreement(found: dict[str, Any]) -> list[str]:
    """What `calibration` found, as sentences."""
    lines = []
    for name, value in found.get("atoms", {}).items():
        if name.startswith("spearman") and value is not None:
            what = {"grade": "grade", "proxy": "std from its energy", "std": "std of its forces"}
            lines.append(
                f"rank correlation of the force error of an atom with its {what[name.split('_')[1]]}: {value:.3f}"
            )
    for key, name in (
        ("force_std", "force components (full)"),
        ("force_proxy", "force components"),
        ("energy", "energies"),
    ):
        if key in found and found[key]["within_1"] is not None:
            lines.append(
                f"{name} within one standard deviation: {100 * found[key]['within_1']:.0f}% (Gaussian: 68%), within 1.96: "
                f"{100 * found[key]['within_1.96']:.0f}% (95%)"
            )
    return lines


def _as_json(one: Graded) -> dict[str, Any]:
    known = one.assessment
    values: dict[str, Any] = {
        "name": one.labelled.name,
        "group": one.labelled.group,
        "n_atoms": one.labelled.n_atoms,
        "grade": known.grade,
        "energy_std": known.energy_std,
        "force_std": one.force_std,
        "grades": known.grade_i.tolist(),
        "energies_std": known.energy_std_i.tolist(),
        "forces_std": known.force_std_i.tolist(),
    }
    if one.force_std_ic is not None:
        values["force_components_std"] = one.force_std_ic.tolist()
    if one.labelled.energy is not None:
        values["energy_error"] = one.energy - one.labelled.energy
    if one.force_error is not None:
        values["force_error"] = one.force_error
    return values


def graded_atoms(graded: Sequence[Graded]) -> list[Atoms]:
    """Atoms with predictions as results, and grades and standard deviations beside them."""
    from etnpot.cli.evaluate import predicted_atoms

    frames = predicted_atoms(
        [one.labelled for one in graded], [(one.energy, one.forces, None) for one in graded]
    )
    for atoms, one in zip(frames, graded, strict=True):
        known = one.assessment
        atoms.info |= {"grade": known.grade, "energy_std": known.energy_std}
        atoms.set_array("grades", known.grade_i)
        atoms.set_array("energies_std", known.energy_std_i)
        atoms.set_array("forces_std", known.force_std_i if one.force_std_ic is None else one.force_std_ic)
    return frames
