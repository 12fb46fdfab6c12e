"""``etnpot evaluate POTENTIAL DATA...``: how far a potential is from reference data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etnpot.cli.reading import add_reading_options, check_outputs, check_threads, read_data, write_json
from etnpot.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

    from etnpot.cli import _WithCommonOptions
    from etnpot.fitting.dataset import DataSet
    from etnpot.io.structures import Labelled
    from etnpot.metrics import Prediction

__all__ = ["add_parser", "predicted_atoms", "run"]


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="errors of a potential on reference data",
        description="Errors of energies, forces and stresses: over all data, by element, by group, and where "
        "they are largest.",
    )
    parser.add_argument("potential", metavar="POTENTIAL", help="potential file")
    parser.add_argument("data", metavar="DATA", nargs="+", help="anything that ASE reads, or MLIP .cfg")
    parser.add_argument(
        "--json",
        metavar="OUT.json",
        help="write all errors, also those of each configuration ('-': to stdout)",
    )
    parser.add_argument("--plot", metavar="OUT.png", help="draw predicted against reference values")
    parser.add_argument(
        "--write",
        metavar="OUT.extxyz",
        help="write the configurations with predicted energy, forces and stress, and the references as "
        "ref_energy, ref_forces, ref_stress",
    )
    parser.add_argument(
        "--worst", metavar="N", type=int, default=5, help="configurations in the list of the worst [5]"
    )
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, write."""
    import etnpot
    from etnpot.fitting.evaluation import predict
    from etnpot.metrics import evaluate_errors

    check_outputs(args.json, args.plot, args.write)
    check_threads(args.threads)
    potential = etnpot.load(args.potential)
    dataset = read_data(args, args.data, require_labels=args.write is None)
    predictions = predict(potential, dataset, threads=args.threads)
    metrics = evaluate_errors(dataset, predictions)
    text = sys.stderr if args.json == "-" else sys.stdout
    if metrics.energy.n or metrics.forces.n:
        print(f"{potential!r}\n{dataset!r}\n\n{metrics.table(n_worst=max(args.worst, 0))}", file=text)
    else:
        print(f"{potential!r}\n{dataset!r}: no labels to compare with", file=text)
    if args.json is not None:
        values = {
            "potential": args.potential,
            "data": args.data,
            "data_sha256": dataset.hash,
            **metrics.to_json(),
        }
        write_json(values, args.json)
    if args.plot is not None:
        _plot(potential, dataset, predictions, args.plot)
    if args.write is not None:
        from ase.io import write

        write(args.write, predicted_atoms(dataset, predictions))
    return 0


def _plot(potential: Any, dataset: DataSet, predictions: Sequence[Prediction], path: str) -> None:
    from etnpot.plots import plot_parity

    energies = dict(zip(potential.species, potential.arrays["reference_energies"].tolist(), strict=True))
    name = "test" if len({c.source for c in dataset}) > 1 else Path(dataset[0].source or "data").stem
    try:
        plot_parity({name: (dataset, predictions)}, path, reference_energies=energies)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot draw {path}: {error}") from error


def predicted_atoms(dataset: Sequence[Labelled], predictions: Sequence[Prediction]) -> list[Atoms]:
    """Atoms with predictions as results, and labels as ``ref_energy``, ``ref_forces``, ``ref_stress``."""
    from ase.calculators.singlepoint import SinglePointCalculator

    from etnpot.io.structures import LABEL_NAMES

    reserved = {name for names in LABEL_NAMES.values() for name in names}
    frames = []
    for labelled, (energy, forces, stress) in zip(dataset, predictions, strict=True):
        atoms = labelled.atoms.copy()
        for entries in (atoms.info, atoms.arrays):
            for name in [name for name in entries if name.lower() in reserved]:
                del entries[name]
        if labelled.group is not None:
            atoms.info["config_type"] = labelled.group
        if labelled.energy is not None:
            atoms.info["ref_energy"] = labelled.energy
        if labelled.forces is not None:
            atoms.set_array("ref_forces", labelled.forces)
        if labelled.stress is not None:
            atoms.info["ref_stress"] = labelled.stress
        results = {"energy": energy, "forces": forces, "stress": stress}
        atoms.calc = SinglePointCalculator(
            atoms, **{name: value for name, value in results.items() if value is not None}
        )
        frames.append(atoms)
    return frames
