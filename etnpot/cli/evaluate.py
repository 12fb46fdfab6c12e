"""``etnpot evaluate MODEL DATA...``: how far a potential, or a tensor model, is from reference data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etnpot.cli.reading import add_reading_options, check_outputs, check_threads, read_data, write_json
from etnpot.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

    from etnpot.cli import _WithCommonOptions
    from etnpot.fitting.dataset import DataSet
    from etnpot.fitting.tensor_evaluation import TensorComparison
    from etnpot.io.structures import Labelled
    from etnpot.metrics import Prediction
    from etnpot.potential import Potential, TensorModel

__all__ = ["add_parser", "predicted_atoms", "run", "tensor_atoms"]


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="errors of a potential or of a tensor model on reference data",
        description="Errors of energies, forces and stresses, or of dipoles, polarizabilities and other tensors: over all "
        "data, by element, by group, and where they are largest.",
    )
    parser.add_argument("potential", metavar="MODEL", help="potential file, or file of a tensor model")
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
        "ref_energy, ref_forces, ref_stress (of a tensor model its quantity, such as dipole and ref_dipole)",
    )
    parser.add_argument(
        "--worst", metavar="N", type=int, default=5, help="configurations in the list of the worst [5]"
    )
    add_reading_options(parser)
    tensors = parser.add_argument_group("labels of tensor models")
    tensors.add_argument(
        "--key",
        metavar="NAME",
        help="entry that holds the label; that of the fit, or the usual names, by default",
    )
    tensors.add_argument(
        "--unit", metavar="UNIT", help="of the data, as in the fit; that of the fit by default"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, write."""
    from etnpot.potential import TensorModel
    from etnpot.potential.either import load_either

    check_outputs(args.json, args.plot, args.write)
    check_threads(args.threads)
    model, _ = load_either(args.potential)
    if isinstance(model, TensorModel):
        return _run_tensor(args, model)
    return _run_potential(args, model)


def _refuse(args: argparse.Namespace, options: Sequence[str], kind: str, instead: str) -> None:
    """Raise DataError for options that mean nothing for this kind of model."""
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(args, name) is not None]
    if given:
        raise DataError(
            f"{' and '.join(given)} mean nothing for {kind}, which is what {args.potential} holds; {instead}"
        )


def _run_potential(args: argparse.Namespace, potential: Potential) -> int:
    from etnpot.fitting.evaluation import predict
    from etnpot.metrics import evaluate_errors

    _refuse(args, ("key", "unit"), "a potential", "name its labels with --energy-key, --forces-key and so on")
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


def _run_tensor(args: argparse.Namespace, model: TensorModel) -> int:
    from etnpot.fitting.tensor_evaluation import compare_tensors
    from etnpot.io.tensor_labels import read_tensors

    names = ("energy_key", "forces_key", "stress_key", "virial_key", "type_map")
    _refuse(args, names, "a tensor model", "name the label with --key")
    quantity = model.quantity
    # another entry has another unit
    fitted = model.provenance if args.key is None else {}
    key = args.key or fitted.get("key")
    unit = args.unit or fitted.get("unit_of_data")
    labels = read_tensors(
        args.data, quantity.name, quantity.shape, per_atom=quantity.per_atom, key=key, unit=unit, index=args.index,
        format=args.format,
    )  # fmt: skip
    found = compare_tensors(model, labels, threads=args.threads)
    text = sys.stderr if args.json == "-" else sys.stdout
    where = (f" under {key}" if key else "") + (
        f", in {unit or quantity.unit}" if unit or quantity.unit else ""
    )
    print(f"{model!r}\n{len(labels)} configurations with a {quantity.name}{where}", file=text)
    unit_text = f" ({quantity.unit})" if quantity.unit else ""
    print(f"\nerrors of the components{unit_text}\n{found.table(n_worst=max(args.worst, 0))}", file=text)
    if args.json is not None:
        write_json({"model": args.potential, "data": args.data, **found.to_json()}, args.json)
    if args.plot is not None:
        from etnpot.plots import plot_tensor_parity

        with _drawing(args.plot):
            plot_tensor_parity(found.pairs(), quantity.name, quantity.unit, args.plot)
    if args.write is not None:
        from ase.io import write

        write(args.write, tensor_atoms(found))
    return 0


@contextmanager
def _drawing(path: str) -> Iterator[None]:
    """What matplotlib says of a file name becomes a DataError."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot draw {path}: {error}") from error


def _plot(potential: Any, dataset: DataSet, predictions: Sequence[Prediction], path: str) -> None:
    from etnpot.plots import plot_parity

    energies = dict(zip(potential.species, potential.arrays["reference_energies"].tolist(), strict=True))
    name = "test" if len({c.source for c in dataset}) > 1 else Path(dataset[0].source or "data").stem
    with _drawing(path):
        plot_parity({name: (dataset, predictions)}, path, reference_energies=energies)


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


def tensor_atoms(comparison: TensorComparison) -> list[Atoms]:
    """Atoms with predictions under the name of the quantity, and labels as ``ref_`` and that name."""
    name, frames = comparison.quantity.name, []
    for label, predicted in zip(comparison.labels, comparison.totals(), strict=True):
        atoms = label.atoms.copy()
        for entry, value in ((name, predicted), (f"ref_{name}", label.value)):
            if comparison.quantity.per_atom:
                atoms.set_array(entry, value.reshape(len(atoms), *((-1,) if value.ndim > 1 else ())))
            else:
                atoms.info[entry] = value
        frames.append(atoms)
    return frames
