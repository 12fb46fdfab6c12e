"""How far predictions are from reference labels.

For n pairs of a reference y and a prediction ŷ:

    MAE = (1/n) sum |ŷ - y|,    RMSE = sqrt((1/n) sum (ŷ - y)²),    max = max |ŷ - y|,
    R² = 1 - sum (ŷ - y)² / sum (y - mean y)².

================ ========================================================== =============
quantity         one pair per                                               unit (stored)
================ ========================================================== =============
energy           configuration: energy per atom                             eV/atom
energy_total     configuration: energy of the whole                         eV
forces           Cartesian component of an atom's force                     eV/Å
force_vectors    atom: y = 0, ŷ = |F̂ - F| (R² is not defined)               eV/Å
stress           Voigt component, each of the six counted once              eV/Å³
================ ========================================================== =============

Everything is stored in eV; tables show meV/atom for energies and GPa for stresses. The errors of an element
are those of the force components of its atoms; the errors of a group are those of its configurations.
Weights of the data play no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from etnpot.errors import DataError, SpecificationError
from etnpot.io.structures import UNGROUPED, Labelled

__all__ = [
    "ConfigurationErrors",
    "ErrorStatistics",
    "GroupErrors",
    "Metrics",
    "Pairs",
    "Prediction",
    "collect_pairs",
    "evaluate_errors",
    "format_table",
]

Float = NDArray[np.float64]

#: Energy (eV), forces [n_atoms, 3] (eV/Å) and stress [6] (eV/Å³) of one configuration; None where not
#: predicted.
Prediction = tuple[float | None, ArrayLike | None, ArrayLike | None]

_GPA = 160.21766208  # GPa per eV/Å³


@dataclass(frozen=True)
class ErrorStatistics:
    """Errors of one quantity, in its own unit.

    Attributes
    ----------
    mae, rmse, max
        Mean absolute, root mean square and largest absolute error; NaN if there are no pairs.
    r2
        Coefficient of determination; NaN if the references do not vary.
    n
        Number of pairs.
    """

    mae: float
    rmse: float
    max: float
    r2: float
    n: int

    @classmethod
    def from_arrays(cls, reference: ArrayLike, predicted: ArrayLike) -> ErrorStatistics:
        """Statistics of ``predicted - reference``, two arrays of the same shape."""
        y = np.asarray(reference, dtype=np.float64).ravel()
        y_predicted = np.asarray(predicted, dtype=np.float64).ravel()
        if y.shape != y_predicted.shape:
            raise DataError(f"expected as many predictions as references ({y.size}), got {y_predicted.size}")
        if not y.size:
            return cls(math.nan, math.nan, math.nan, math.nan, 0)
        error = y_predicted - y
        total = float(np.sum((y - y.mean()) ** 2))
        # References that are all equal up to rounding have no variance to explain.
        varies = total > y.size * (8 * np.finfo(np.float64).eps * float(np.max(np.abs(y)))) ** 2
        return cls(
            mae=float(np.mean(np.abs(error))),
            rmse=float(np.sqrt(np.mean(error**2))),
            max=float(np.max(np.abs(error))),
            r2=1.0 - float(np.sum(error**2)) / total if varies else math.nan,
            n=int(y.size),
        )

    def to_json(self) -> dict[str, float | int | None]:
        """Plain dictionary; None in place of what is not finite."""
        values = {"mae": self.mae, "rmse": self.rmse, "max": self.max, "r2": self.r2}
        return {**{name: _finite(value) for name, value in values.items()}, "n": self.n}


@dataclass(frozen=True)
class GroupErrors:
    """Errors of the configurations of one group; quantities as in the module docstring."""

    energy: ErrorStatistics
    forces: ErrorStatistics
    stress: ErrorStatistics
    n_configurations: int


@dataclass(frozen=True)
class ConfigurationErrors:
    """Errors of one configuration; None where label or prediction is missing.

    Attributes
    ----------
    position
        Index in the data set.
    name
        File and frame.
    group, formula, n_atoms
        What it is.
    energy
        Signed error of the energy per atom, eV/atom.
    forces_rmse, forces_max
        Of the force components, eV/Å.
    stress_rmse
        Of the Voigt components, eV/Å³.
    """

    position: int
    name: str
    group: str
    formula: str
    n_atoms: int
    energy: float | None
    forces_rmse: float | None
    forces_max: float | None
    stress_rmse: float | None


@dataclass(frozen=True)
class Pairs:
    """References and predictions of one quantity, flattened over configurations.

    Attributes
    ----------
    reference, predicted
        float64 [n].
    configuration
        int64 [n], index of the configuration each pair comes from.
    atomic_number
        int64 [n], of the atom (forces only; zeros otherwise).
    """

    reference: Float
    predicted: Float
    configuration: NDArray[np.int64]
    atomic_number: NDArray[np.int64]

    def statistics(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> ErrorStatistics:
        """Error statistics of all or of the chosen pairs."""
        return ErrorStatistics.from_arrays(self.reference[chosen], self.predicted[chosen])


@dataclass(frozen=True)
class Metrics:
    """Errors of a set of predictions; see the module docstring for quantities and units.

    Attributes
    ----------
    energy, energy_total, forces, force_vectors, stress
        Over the whole set.
    by_element
        Force components by chemical symbol.
    by_group
        By name of the group.
    configurations
        One entry per configuration, in the order of the data set.
    """

    energy: ErrorStatistics
    energy_total: ErrorStatistics
    forces: ErrorStatistics
    force_vectors: ErrorStatistics
    stress: ErrorStatistics
    by_element: dict[str, ErrorStatistics] = field(default_factory=dict)
    by_group: dict[str, GroupErrors] = field(default_factory=dict)
    configurations: tuple[ConfigurationErrors, ...] = ()

    def worst(self, n: int = 10, by: str = "forces") -> list[ConfigurationErrors]:
        """The `n` configurations of largest error.

        Parameters
        ----------
        n
            How many.
        by
            ``"energy"`` (absolute, per atom), ``"forces"`` (RMSE), ``"forces_max"`` or ``"stress"`` (RMSE).
        """
        measures: dict[str, Callable[[ConfigurationErrors], float | None]] = {
            "energy": lambda c: None if c.energy is None else abs(c.energy),
            "forces": lambda c: c.forces_rmse,
            "forces_max": lambda c: c.forces_max,
            "stress": lambda c: c.stress_rmse,
        }
        if by not in measures:
            raise SpecificationError(
                f"worst configurations by {by!r} are not known; give one of {list(measures)}"
            )
        ranked = [(measures[by](c), c) for c in self.configurations]
        # What is not finite is worst of all.
        key = [(-math.inf if not math.isfinite(e) else -e, c.position, c) for e, c in ranked if e is not None]
        return [c for _, _, c in sorted(key, key=lambda item: item[:2])[:n]]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for `json.dump`, in the stored units; None in place of what is not finite."""
        total = {name: getattr(self, name).to_json() for name in _QUANTITIES}
        return {
            "units": {"energy": "eV/atom", "energy_total": "eV", "forces": "eV/Å", "stress": "eV/Å^3"},
            **total,
            "by_element": {symbol: s.to_json() for symbol, s in self.by_element.items()},
            "by_group": {
                name: {
                    "n_configurations": g.n_configurations,
                    **{q: getattr(g, q).to_json() for q in ("energy", "forces", "stress")},
                }
                for name, g in self.by_group.items()
            },
            "configurations": [
                {
                    name: _finite(value) if isinstance(value, float) else value
                    for name, value in vars(configuration).items()
                }
                for configuration in self.configurations
            ],
        }

    def table(self, *, n_worst: int = 0) -> str:
        """Errors as tables for people; `n_worst` adds that many configurations of largest force error."""
        head = ["quantity", "unit", "MAE", "RMSE", "max", "R²", "n"]
        rows = [
            [title, unit, *_row(getattr(self, name), factor)]
            for name, (title, unit, factor) in _QUANTITIES.items()
            if getattr(self, name).n
        ]
        parts = [format_table(head, rows, left=2)]
        if len(self.by_element) > 1:
            rows = [[symbol, *_row(s)] for symbol, s in self.by_element.items()]
            parts.append(format_table(["element: forces, eV/Å", *head[2:]], rows))
        if len(self.by_group) > 1:
            columns = ["group (MAE/RMSE)", "E, meV/atom", "F, eV/Å", "σ, GPa", "configurations"]
            rows = [
                [
                    name,
                    _pair(g.energy, 1e3),
                    _pair(g.forces),
                    _pair(g.stress, _GPA),
                    f"{g.n_configurations:,}",
                ]
                for name, g in self.by_group.items()
            ]
            parts.append(format_table(columns, rows))
        worst = self.worst(n_worst, by="forces" if self.forces.n else "energy") if n_worst else []
        if worst:
            columns = [
                "worst configurations",
                "formula",
                "group",
                "E, meV/atom",
                "F RMSE, eV/Å",
                "F max, eV/Å",
            ]
            rows = [
                [c.name, c.formula, c.group, _cell(c.energy, 1e3), _cell(c.forces_rmse), _cell(c.forces_max)]
                for c in worst
            ]
            parts.append(format_table(columns, rows, left=3))
        return "\n\n".join(parts)


_QUANTITIES: dict[str, tuple[str, str, float]] = {
    "energy": ("energy per atom", "meV/atom", 1e3),
    "energy_total": ("energy", "meV", 1e3),
    "forces": ("force components", "eV/Å", 1.0),
    "force_vectors": ("force vectors", "eV/Å", 1.0),
    "stress": ("stress components", "GPa", _GPA),
}


def collect_pairs(dataset: Sequence[Labelled], predictions: Iterable[Prediction]) -> dict[str, Pairs]:
    """Reference and predicted values, where both exist.

    Parameters
    ----------
    dataset
        The configurations.
    predictions
        One `Prediction` per configuration, in the same order.

    Returns
    -------
    dict of str to Pairs
        ``energy`` (eV/atom), ``forces`` (eV/Å) and ``stress`` (eV/Å³).
    """
    collected: dict[str, list[tuple[Float, Float, int, NDArray[np.int64]]]] = {
        "energy": [],
        "forces": [],
        "stress": [],
    }
    predictions = list(predictions)
    if len(predictions) != len(dataset):
        raise DataError(f"expected one prediction per configuration ({len(dataset)}), got {len(predictions)}")
    for s, (c, prediction) in enumerate(zip(dataset, predictions, strict=True)):
        if len(prediction) != 3:
            raise DataError(f"prediction {s} must be (energy, forces, stress), got {len(prediction)} entries")
        shapes: tuple[tuple[int, ...], ...] = ((), (c.n_atoms, 3), (6,))
        labels = (c.energy, c.forces, c.stress)
        for name, label, value, shape in zip(collected, labels, prediction, shapes, strict=True):
            if label is None or value is None:
                continue
            predicted = np.asarray(value, dtype=np.float64)
            if predicted.shape != shape:
                raise DataError(
                    f"predicted {name} of {c.name} must have shape {shape}, got {predicted.shape}"
                )
            scale = c.n_atoms if name == "energy" else 1
            numbers = (
                np.repeat(c.atoms.numbers, 3)
                if name == "forces"
                else np.zeros(predicted.size, dtype=np.int64)
            )
            collected[name].append((np.ravel(label) / scale, predicted.ravel() / scale, s, numbers))
    return {name: _concatenate(parts) for name, parts in collected.items()}


def evaluate_errors(dataset: Sequence[Labelled], predictions: Iterable[Prediction]) -> Metrics:
    """Compare predictions with the labels of a data set.

    Parameters
    ----------
    dataset
        The configurations; labels that a configuration lacks are left out.
    predictions
        Per configuration ``(energy, forces, stress)``: total energy (eV), forces float64 [n_atoms, 3]
        (eV/Å) and stress float64 [6] (eV/Å³, positive under tension), each of which may be None.
    """
    pairs = collect_pairs(dataset, predictions)
    energy, forces, stress = pairs["energy"], pairs["forces"], pairs["stress"]
    n_atoms = np.array([c.n_atoms for c in dataset], dtype=np.float64)
    scale = n_atoms[energy.configuration]
    force_error = (forces.predicted - forces.reference).reshape(-1, 3)
    length = np.linalg.norm(force_error, axis=1)
    vectors = ErrorStatistics.from_arrays(np.zeros_like(length), length)

    groups = [c.group or UNGROUPED for c in dataset]
    code = {name: k for k, name in enumerate(sorted(set(groups)))}
    group_of = np.array([code[name] for name in groups], dtype=np.int64)
    by_group = {
        name: GroupErrors(
            energy=energy.statistics(group_of[energy.configuration] == k),
            forces=forces.statistics(group_of[forces.configuration] == k),
            stress=stress.statistics(group_of[stress.configuration] == k),
            n_configurations=int(np.count_nonzero(group_of == k)),
        )
        for name, k in code.items()
    }
    return Metrics(
        energy=energy.statistics(),
        energy_total=ErrorStatistics.from_arrays(energy.reference * scale, energy.predicted * scale),
        forces=forces.statistics(),
        force_vectors=vectors,
        stress=stress.statistics(),
        by_element={
            chemical_symbols[z]: forces.statistics(forces.atomic_number == z)
            for z in np.unique(forces.atomic_number)
        },
        by_group=by_group,
        configurations=tuple(_per_configuration(dataset, groups, pairs)),
    )


def _concatenate(parts: Sequence[tuple[Float, Float, int, NDArray[np.int64]]]) -> Pairs:
    if not parts:
        return Pairs(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    return Pairs(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([np.full(len(part[0]), part[2], dtype=np.int64) for part in parts]),
        np.concatenate([part[3] for part in parts]).astype(np.int64),
    )


def _per_configuration(
    dataset: Sequence[Labelled], groups: Sequence[str], pairs: dict[str, Pairs]
) -> Iterable[ConfigurationErrors]:
    """Errors of each configuration; the pairs of a configuration are contiguous."""
    bounds = {
        name: np.searchsorted(part.configuration, np.arange(len(dataset) + 1)) for name, part in pairs.items()
    }
    for s, (c, group) in enumerate(zip(dataset, groups, strict=True)):
        errors = {}
        for name, part in pairs.items():
            chosen = slice(bounds[name][s], bounds[name][s + 1])
            errors[name] = part.predicted[chosen] - part.reference[chosen]
        rmse = {name: float(np.sqrt(np.mean(e**2))) if e.size else None for name, e in errors.items()}
        yield ConfigurationErrors(
            position=s,
            name=c.name,
            group=group,
            formula=c.atoms.get_chemical_formula(),
            n_atoms=c.n_atoms,
            energy=float(errors["energy"][0]) if errors["energy"].size else None,
            forces_rmse=rmse["forces"],
            forces_max=float(np.max(np.abs(errors["forces"]))) if errors["forces"].size else None,
            stress_rmse=rmse["stress"],
        )


# ------------------------------------------------------------------------------------------------ formatting


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float) -> str:
    """Four significant digits, without an exponent where it can be avoided."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    digits = 3 - math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}" if 0 <= digits <= 7 else f"{value:,.0f}" if digits < 0 else f"{value:.3e}"


def _cell(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else _number(value * factor)


def _row(s: ErrorStatistics, factor: float = 1.0) -> list[str]:
    if not s.n:
        return ["-"] * 4 + ["0"]
    r2 = f"{s.r2:.5f}" if math.isfinite(s.r2) else "-"
    return [_cell(s.mae, factor), _cell(s.rmse, factor), _cell(s.max, factor), r2, f"{s.n:,}"]


def _pair(s: ErrorStatistics, factor: float = 1.0) -> str:
    return f"{_cell(s.mae, factor)} / {_cell(s.rmse, factor)}" if s.n else "-"


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns aligned by spaces, the first `left` of them to the left."""
    width = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = []
    for line in (head, ["-" * w for w in width], *rows):
        cells = zip(line, width, strict=True)
        lines.append(
            "  ".join(c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in enumerate(cells)).rstrip()
        )
    return "\n".join(lines)
