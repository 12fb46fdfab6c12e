"""Errors of a tensor model on labelled configurations: over all of them, by element, and of each configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from etnpot.errors import DataError
from etnpot.fitting.tensor_problem import TensorProblem
from etnpot.io.tensor_labels import TensorLabel
from etnpot.metrics import Pairs, format_table
from etnpot.potential import Quantity, TensorModel

__all__ = [
    "TensorComparison",
    "TensorMetrics",
    "compare_tensors",
    "metrics_table",
    "problem_metrics",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TensorMetrics:
    """Errors of Cartesian components over a set.

    Attributes
    ----------
    n : int
        Tensors.
    mae, rmse, largest : float
        Of the components, in the unit of the quantity.
    spread : float
        Root mean square of the references about their mean, component by component: what a constant would do.
    """

    n: int
    mae: float
    rmse: float
    largest: float
    spread: float

    @classmethod
    def of(cls, errors: Floats, references: Floats) -> TensorMetrics:
        """From errors and references, [tensor, ...]."""
        about = references - references.mean(axis=0)
        return cls(
            n=len(errors),
            mae=float(np.abs(errors).mean()),
            rmse=float(np.sqrt((errors**2).mean())),
            largest=float(np.abs(errors).max()),
            spread=float(np.sqrt((about**2).mean())),
        )

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def metrics_table(parts: Mapping[str, TensorMetrics], title: str = "set") -> str:
    """Errors by name of a part, as text."""
    rows = [
        [
            name,
            str(m.n),
            f"{m.mae:.4g}",
            f"{m.rmse:.4g}",
            f"{m.largest:.4g}",
            f"{100 * m.rmse / m.spread:.3g}" if m.spread > 0 else "-",
        ]
        for name, m in parts.items()
    ]
    return format_table([title, "tensors", "MAE", "RMSE", "largest", "RMSE, % of spread"], rows)


def problem_metrics(problem: TensorProblem, model: TensorModel) -> TensorMetrics:
    """Errors of a model on the configurations of a fitting problem."""
    return TensorMetrics.of(problem.errors(model), problem.targets())


@dataclass(frozen=True, eq=False)
class TensorComparison:
    """Predictions beside references.

    Attributes
    ----------
    quantity : Quantity
    labels : list of TensorLabel
    references, predictions : list of float64 [*shape] or [n_atoms, *shape]
        Of each configuration. The references are the labels in the form of the quantity; a dipole of charges is that about
        the centre of the positions, as charged molecules have no other that does not depend on the origin.
    """

    quantity: Quantity
    labels: Sequence[TensorLabel]
    references: list[Floats]
    predictions: list[Floats]

    @cached_property
    def metrics(self) -> TensorMetrics:
        """Errors over all."""
        references = self._rows(self.references)
        return TensorMetrics.of(self._rows(self.predictions) - references, references)

    @cached_property
    def by_element(self) -> dict[str, TensorMetrics]:
        """Errors by element, of tensors of atoms; else empty."""
        if not self.quantity.per_atom:
            return {}
        numbers = np.concatenate([label.atoms.numbers for label in self.labels])
        references = self._rows(self.references)
        errors = self._rows(self.predictions) - references
        return {
            chemical_symbols[z]: TensorMetrics.of(errors[numbers == z], references[numbers == z])
            for z in np.unique(numbers)
        }

    def totals(self) -> list[Floats]:
        """Predictions about the origin of the coordinates, as the labels are."""
        if not self.quantity.charges:
            return self.predictions
        return [
            found + label.charge * label.atoms.positions.mean(axis=0)
            for found, label in zip(self.predictions, self.labels, strict=True)
        ]

    def per_configuration(self) -> list[dict[str, Any]]:
        """Name, formula and errors of the components of each configuration, in the order of the data."""
        found = []
        for label, reference, predicted in zip(self.labels, self.references, self.predictions, strict=True):
            error = np.abs(predicted - reference)
            found.append(
                {
                    "name": label.name,
                    "formula": label.atoms.get_chemical_formula(),
                    "mae": float(error.mean()),
                    "rmse": float(np.sqrt((error**2).mean())),
                    "largest": float(error.max()),
                }
            )
        return found

    def pairs(self) -> Pairs:
        """Components of references and predictions, flattened, for plots."""
        reference = self._rows(self.references).ravel()
        none = np.zeros(len(reference), dtype=np.int64)
        return Pairs(reference, self._rows(self.predictions).ravel(), none, none)

    def table(self, *, n_worst: int = 0) -> str:
        """Errors as text; `n_worst` adds that many configurations of the largest root mean square."""
        parts = [metrics_table({"all": self.metrics}, "components")]
        if len(self.by_element) > 1:
            parts.append(metrics_table(self.by_element, "element"))
        worst = sorted(self.per_configuration(), key=lambda c: -c["rmse"])[:n_worst]
        if worst:
            rows = [[c["name"], c["formula"], f"{c['rmse']:.4g}", f"{c['largest']:.4g}"] for c in worst]
            parts.append(format_table(["worst configurations", "formula", "RMSE", "largest"], rows, left=2))
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "quantity": self.quantity.name,
            "unit": self.quantity.unit,
            **self.metrics.to_json(),
            "by_element": {name: metrics.to_json() for name, metrics in self.by_element.items()},
            "configurations": self.per_configuration(),
        }

    def _rows(self, values: Sequence[Floats]) -> Floats:
        """All tensors one after another, [tensor, *shape]."""
        return np.concatenate([value.reshape(-1, *self.quantity.shape) for value in values])


def compare_tensors(
    model: TensorModel, labels: Sequence[TensorLabel], *, threads: int | None = None
) -> TensorComparison:
    """Predictions of a model for labelled configurations.

    Raises
    ------
    DataError
        There are none, or some hold elements that the model does not know.
    """
    if not labels:
        raise DataError("there are no labelled configurations to evaluate")
    for label in labels:
        unknown = sorted(set(label.atoms.numbers.tolist()) - set(model.species))
        if unknown:
            raise DataError(
                f"{label.name} holds {', '.join(chemical_symbols[z] for z in unknown)}, which the model does not know; "
                f"its elements are {', '.join(chemical_symbols[z] for z in model.species)}"
            )
    problem = TensorProblem(labels, model.quantity, model.cutoff, threads=threads)
    references, errors = problem.targets(), problem.errors(model)
    ends = np.cumsum([len(label.atoms) if model.quantity.per_atom else 1 for label in labels])[:-1]
    shapes = [label.value.shape for label in labels]

    def split(rows: Floats) -> list[Floats]:
        return [part.reshape(shape) for part, shape in zip(np.split(rows, ends), shapes, strict=True)]

    return TensorComparison(model.quantity, list(labels), split(references), split(references + errors))
