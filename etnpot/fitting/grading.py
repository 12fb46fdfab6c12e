"""Grades and standard deviations of many configurations, and how well they foretell the errors where these are known.

A standard deviation sigma is judged by three numbers: Spearman's rank correlation with the size of the error, the part of the
errors below sigma and below 1.96 sigma (0.683 and 0.95 for a Gaussian), and the root mean square error beside the root mean
square of sigma in bins of equal numbers, sorted by sigma: the reliability plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etnpot.io.structures import UNGROUPED, Labelled
from etnpot.metrics import format_table
from etnpot.potential import Assessment, Potential

__all__ = ["Graded", "calibration", "grade_all", "table"]

Floats = NDArray[np.float64]

_BINS = 10
#: Errors and standard deviations below this are those of atoms that symmetry holds, eV/Å.
_HELD = 1e-9


@dataclass(frozen=True, eq=False)
class Graded:
    """One configuration.

    Attributes
    ----------
    labelled : Labelled
    assessment : Assessment
    energy : float, eV
        Predicted.
    forces : float64 [n_atoms, 3], eV/Å
        Predicted.
    force_std_ic : float64 [n_atoms, 3] or None, eV/Å
        Standard deviations of all components, where they were asked for.
    """

    labelled: Labelled
    assessment: Assessment
    energy: float
    forces: Floats
    force_std_ic: Floats | None

    @property
    def force_std(self) -> float:
        """Root mean square of the standard deviations of force components, eV/Å; the cheap ones unless there are others."""
        found = self.assessment.force_std_i if self.force_std_ic is None else self.force_std_ic
        return float(np.sqrt(np.mean(found**2)))

    @property
    def force_error(self) -> float | None:
        """Root mean square error of the force components, eV/Å."""
        if self.labelled.forces is None:
            return None
        return float(np.sqrt(np.mean(_errors(self) ** 2)))


def grade_all(
    potential: Potential, dataset: Sequence[Labelled], *, forces: bool = False, threads: int | None = None
) -> list[Graded]:
    """Assess every configuration.

    Parameters
    ----------
    potential : Potential
        With its reliability.
    dataset : sequence of Labelled
        Labels are not needed.
    forces : bool
        Also the standard deviation of every force component, which takes some twenty times as long, with layers up to eighty.
    threads : int, optional

    Returns
    -------
    list of Graded

    Raises
    ------
    SpecificationError
        If the potential carries nothing to assess with.
    SpeciesError, StructureError
        If a configuration cannot be evaluated.
    """
    graded = []
    for labelled in dataset:
        edges, numbers = potential.edges(labelled.atoms), labelled.atoms.numbers
        assessment = potential.assess(edges, numbers, threads=threads)
        evaluation = potential.evaluate(edges, numbers, threads=threads)
        full = potential.force_deviations(edges, numbers, threads=threads) if forces else None
        graded.append(Graded(labelled, assessment, evaluation.energy, evaluation.forces, full))
    return graded


def table(graded: Sequence[Graded], *, n_worst: int = 10) -> str:
    """Grades by group, and the configurations of the highest grades."""
    groups: dict[str, list[Graded]] = {}
    for one in graded:
        groups.setdefault(one.labelled.group or UNGROUPED, []).append(one)
    rows = [_summary(name, groups[name]) for name in sorted(groups)]
    if len(rows) > 1:
        rows.append(_summary("all", list(graded)))
    head = [
        "group",
        "configurations",
        "atoms",
        "median grade",
        "largest",
        "above 1",
        "F std, eV/Å",
        "F error, eV/Å",
    ]
    lines = [format_table(head, rows)]
    worst = sorted(graded, key=lambda one: -one.assessment.grade)[:n_worst]
    if worst:
        head = ["highest grades", "grade", "atom", "E std, meV/atom", "F std, eV/Å", "F error, eV/Å"]
        lines.append(format_table(head, [_configuration(one) for one in worst]))
    return "\n\n".join(lines)


def _summary(name: str, graded: Sequence[Graded]) -> list[str]:
    grade_i = np.concatenate([one.assessment.grade_i for one in graded])
    errors = [one.force_error for one in graded if one.force_error is not None]
    return [
        name,
        f"{len(graded):,}",
        f"{len(grade_i):,}",
        f"{np.median(grade_i):.2f}",
        f"{grade_i.max():.2f}",
        f"{100 * np.mean(grade_i > 1):.1f}%",
        f"{np.sqrt(np.mean([one.force_std**2 for one in graded])):.4f}",
        f"{np.sqrt(np.mean(np.square(errors))):.4f}" if errors else "",
    ]


def _configuration(one: Graded) -> list[str]:
    known = one.assessment
    error = one.force_error
    return [
        one.labelled.name if len(one.labelled.name) <= 40 else "..." + one.labelled.name[-37:],
        f"{known.grade:.2f}",
        str(int(known.grade_i.argmax())),
        f"{1e3 * known.energy_std / one.labelled.n_atoms:.2f}",
        f"{one.force_std:.4f}",
        "" if error is None else f"{error:.4f}",
    ]


def calibration(graded: Sequence[Graded]) -> dict[str, Any]:
    """How grades and standard deviations agree with the errors of labelled configurations: JSON values.

    Returns
    -------
    dict
        "atoms": rank correlations of the size of the force error of an atom with its grade, its cheap and its full standard
        deviation; "force_std" and "force_proxy": coverage and bins of force components; "energy": rank correlation and
        coverage of energies per atom; "configurations": rank correlations of the force error with grade and deviation.
        Only what there are labels for; atoms on which symmetry leaves no force are left out.
    """
    with_forces = [one for one in graded if one.labelled.forces is not None]
    result: dict[str, Any] = {}
    if with_forces:
        error_ic = np.concatenate([_errors(one) for one in with_forces])
        size_i = np.linalg.norm(error_ic, axis=1)
        grade_i = np.concatenate([one.assessment.grade_i for one in with_forces])
        proxy_i = np.concatenate([one.assessment.force_std_i for one in with_forces])
        free = size_i > _HELD  # no error where symmetry leaves no force
        error_ic, size_i, grade_i, proxy_i = error_ic[free], size_i[free], grade_i[free], proxy_i[free]
        outside = grade_i > 1.0
        atoms = {
            "n": len(size_i),
            "spearman_grade": spearman(grade_i, size_i),
            "spearman_proxy": spearman(proxy_i, size_i),
            "part_above_1": float(outside.mean()) if len(size_i) else None,
            "error": float(size_i.mean()) if len(size_i) else None,
            "error_above_1": float(size_i[outside].mean()) if outside.any() else None,
        }
        result["force_proxy"] = _coverage(np.repeat(proxy_i, 3), error_ic.ravel())
        if all(one.force_std_ic is not None for one in with_forces):
            full_ic = np.concatenate([np.asarray(one.force_std_ic) for one in with_forces])[free]
            atoms["spearman_std"] = spearman(np.linalg.norm(full_ic, axis=1), size_i)
            result["force_std"] = _coverage(full_ic.ravel(), error_ic.ravel())
        result["atoms"] = atoms
        error_s = np.array([one.force_error for one in with_forces], dtype=np.float64)
        result["configurations"] = {
            "n": len(error_s),
            "spearman_grade": spearman(np.array([one.assessment.grade for one in with_forces]), error_s),
            "spearman_std": spearman(np.array([one.force_std for one in with_forces]), error_s),
        }
    with_energies = [one for one in graded if one.labelled.energy is not None]
    if with_energies:
        error_s = np.array(
            [(one.energy - (one.labelled.energy or 0.0)) / one.labelled.n_atoms for one in with_energies]
        )
        std_s = np.array([one.assessment.energy_std / one.labelled.n_atoms for one in with_energies])
        result["energy"] = {
            "spearman_std": spearman(std_s, np.abs(error_s)),
            **_coverage(std_s, error_s, bins=4),
        }
    return result


def _errors(one: Graded) -> Floats:
    return one.forces - np.asarray(one.labelled.forces)


def spearman(x: Floats, y: Floats) -> float | None:
    """Spearman's rank correlation; None where it is not defined."""
    if len(x) < 3:
        return None
    from scipy.stats import rankdata

    ranks = rankdata(x), rankdata(y)
    if min(rank.std() for rank in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _coverage(sigma: Floats, error: Floats, *, bins: int = _BINS) -> dict[str, Any]:
    """Parts of the errors within sigma and 1.96 sigma, and the bins of a reliability plot."""
    sigma, error = sigma[sigma > _HELD], error[sigma > _HELD]
    if not len(sigma):
        return {"within_1": None, "within_1.96": None, "bins": []}
    order = np.argsort(sigma, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return {
        "within_1": float(np.mean(np.abs(error) <= sigma)),
        "within_1.96": float(np.mean(np.abs(error) <= 1.96 * sigma)),
        "bins": [
            {
                "n": len(part),
                "std": float(np.sqrt(np.mean(sigma[part] ** 2))),
                "rmse": float(np.sqrt(np.mean(error[part] ** 2))),
            }
            for part in parts
        ],
    }
