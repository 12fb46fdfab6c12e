"""What a potential knows of its own errors, from the data that it was fitted to: see `etnpot.potential.reliability`.

One core of the last train is chosen, the largest that is not too large. With b_i the derivatives of the energy of a training
atom by its entries, and m_z their mean over the atoms of element z,

    K = sum_i (b_i - m)(b_i - m)^T = U w U^T,     z_i = w^{-1/2} U^T (b_i - m)                                    (1)

over the eigenvalues that are not rounding: the gauge of the train and directions that no data excite are left out. The active
set A of the rows z_i has the largest volume (`etnpot.fitting.active_set`); G = U w^{-1/2} A^-1. The posterior covariance of the
entries, with the weighted Jacobian J of the loss, the ridge lambda of highest evidence and the noise s^2 = loss / (n - gamma),
is

    D D^T = s^2 V (V^T J^T J V + lambda)^-1 V^T,      V the leading eigenvectors of sum_i b_i b_i^T,               (2)

and the factors of the standard deviations make the mean of (error / std)^2 one on held-out configurations:

    s_E^2 = < dE^2 / |sum_i d_i|^2 >,    s_F^2 = < dF^2 / |D^T dF/dA|^2 >,    s_P^2 = < dF^2 / |d_i|^2 >.          (3)

The means are trimmed by one part in a hundred, so that no single configuration decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from etnpot.errors import DataError, SpecificationError
from etnpot.fitting.active_set import maxvol
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.evaluation import without_dispersion
from etnpot.fitting.normal_equations import NormalEquations
from etnpot.fitting.prepared import LossWeights
from etnpot.fitting.problem import Problem
from etnpot.fitting.ridge import solve_ridge
from etnpot.io.structures import Labelled
from etnpot.potential import Potential, Reliability
from etnpot.potential.reliability import site_gradients
from etnpot.threads import default_threads

__all__ = ["assessed", "blocks_of", "chosen_core"]

Floats = NDArray[np.float64]

#: Most entries of the core, most directions that are kept, and the eigenvalues that count, relative to the largest.
_MOST_ENTRIES, _MOST_DIRECTIONS, _SIGNIFICANT = 800, 128, 1e-10
#: Eigenvalues below this part of the sum of squares are rounding.
_ROUNDING = 1e-13
#: Part of the largest ratios left out of eq. (3), and fewer configurations than this calibrate nothing.
_TRIMMED, _FEWEST = 0.01, 2
#: Atoms, about, whose rows make eq. (2): of a larger training set, configurations are taken evenly and count for all.
_POSTERIOR_ATOMS = 8_000
#: Configurations, at most, whose forces calibrate s_F: spread evenly.
_FORCE_CONFIGURATIONS = 60


def chosen_core(potential: Potential) -> str:
    """The group of the largest core of at most so many entries; of the smallest, if all have more."""
    sizes = {name: shape[0] for name, shape in potential.spec.shapes.items() if name.startswith("core.")}
    small = {name: size for name, size in sizes.items() if size <= _MOST_ENTRIES}
    return max(small, key=lambda name: small[name]) if small else min(sizes, key=lambda name: sizes[name])


def assessed(
    potential: Potential,
    train: DataSet,
    valid: DataSet | None,
    weights: LossWeights,
    *,
    shifted: Sequence[int] = (),
    threads: int | None = None,
) -> Potential:
    """The potential with its reliability, and what that was made from in the provenance.

    Parameters
    ----------
    potential : Potential
    train : DataSet
        What it was fitted to.
    valid : DataSet, optional
        Held-out configurations for the factors of eq. (3); the training set without one, which makes them too small.
    weights : LossWeights
        Of the fit.
    shifted : sequence of int
        As for `Problem`.
    threads : int, optional

    Returns
    -------
    Potential

    Raises
    ------
    DataError
        If there is nothing to learn from.
    SpecificationError
        If the derivatives of all training atoms are the same.
    """
    started = time.monotonic()
    if not train.n_energies and not train.n_forces:
        raise DataError("grades need the training set with its energies or forces; this one has neither")
    group, threads = chosen_core(potential), default_threads() if threads is None else threads
    held_out = valid if valid is not None and len(valid) >= _FEWEST else train
    local, local_held_out = (
        without_dispersion(part, potential.spec.dispersion) for part in (train, held_out)
    )
    problem = Problem.from_dataset(local, potential.cutoff, weights, shifted=shifted, threads=threads)
    moments = _moments(_sites(potential, problem, group, threads), potential.spec.n_species)
    grade_qr, center_zr, labels = _active_set(potential, problem, group, moments, threads)
    deviation_qr, ridge, noise = _posterior(potential, problem, group, moments)
    force_noise = float(np.sqrt(noise / weights.forces)) if weights.forces > 0 else 1.0
    reliability = Reliability(group, grade_qr, center_zr, deviation_qr, force_noise=force_noise)
    scales = _calibrated(potential, reliability, local_held_out, threads)
    provenance = {
        **potential.provenance,
        "reliability": {
            "core": group,
            "entries": len(grade_qr),
            "directions": grade_qr.shape[1],
            "active_configurations": len({name for name, _ in labels}),
            "train_sha256": train.hash,
            "calibrated_on": "validation set" if held_out is valid else "training set",
            "calibration_sha256": held_out.hash,
            "ridge": ridge,
            "noise": noise,
            "energy_scale": scales[0],
            "force_scale": scales[1],
            "proxy_scale": scales[2],
            "seconds": round(time.monotonic() - started, 3),
        },
    }
    return potential.with_parameters(potential.parameters, provenance).with_reliability(
        reliability.scaled(*scales)
    )


def blocks_of(
    potential: Potential, group: str, configurations: Iterable[tuple[Any, NDArray[np.int64]]], threads: int
) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
    """b_i and types of the atoms of configurations, given as edges and atomic numbers."""
    for edges, numbers in configurations:
        type_i = potential.type_index(numbers)[: edges.n_atoms]
        v_if = potential.features(edges, numbers, threads=threads)
        yield site_gradients(potential, group, v_if, type_i, threads=threads), type_i


def _sites(
    potential: Potential, problem: Problem, group: str, threads: int
) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
    return blocks_of(potential, group, ((c.edges, c.numbers) for c in problem.configurations), threads)


@dataclass(frozen=True, eq=False)
class _Moments:
    """sum b b^T [q, q], numbers of atoms [z], and mean b [z, q]."""

    second_qq: Floats
    count_z: Floats
    mean_zq: Floats

    def centered(self) -> Floats:
        """K of eq. (1)."""
        return self.second_qq - (self.mean_zq * self.count_z[:, None]).T @ self.mean_zq


def _moments(blocks: Iterable[tuple[Floats, NDArray[np.int64]]], n_species: int) -> _Moments:
    second_qq, sum_zq, count_z = np.zeros((0, 0)), np.zeros((n_species, 0)), np.zeros(n_species)
    for b_iq, type_i in blocks:
        if not second_qq.size:
            n_q = b_iq.shape[1]
            second_qq, sum_zq = np.zeros((n_q, n_q)), np.zeros((n_species, n_q))
        second_qq += b_iq.T @ b_iq
        np.add.at(sum_zq, type_i, b_iq)
        np.add.at(count_z, type_i, 1.0)
    return _Moments(second_qq, count_z, sum_zq / np.maximum(count_z, 1.0)[:, None])


def _leading(matrix: Floats, size: float) -> tuple[Floats, Floats]:
    """Eigenvalues and eigenvectors that count, the largest first, of a matrix computed from terms of a `size`."""
    values, vectors = scipy.linalg.eigh(matrix, driver="evd")
    values, vectors = values[::-1][:_MOST_DIRECTIONS], vectors[:, ::-1][:, :_MOST_DIRECTIONS]
    kept = values > max(_SIGNIFICANT * float(values[0]), _ROUNDING * size)
    return values[kept], np.ascontiguousarray(vectors[:, kept])


def _active_set(
    potential: Potential, problem: Problem, group: str, moments: _Moments, threads: int
) -> tuple[Floats, Floats, list[Any]]:
    """G and m G of eq. (1), and which atoms (configuration, atom) are active."""
    values, vectors = _leading(moments.centered(), float(np.trace(moments.second_qq)))
    n_atoms = float(moments.count_z.sum())
    if not len(values):
        raise SpecificationError(
            "the atoms of the training set are all alike to this potential: there is nothing to grade against; give "
            "the data that it was fitted to"
        )
    whitening_qr = vectors / np.sqrt(values)
    center_zr = moments.mean_zq @ whitening_qr

    def blocks() -> Iterator[tuple[Floats, object]]:
        for index, (b_iq, type_i) in enumerate(_sites(potential, problem, group, threads)):
            yield b_iq @ whitening_qr - center_zr[type_i], index

    active = maxvol(blocks, len(values), 1.0 / np.sqrt(n_atoms))
    labels = [label for label in active.labels if label is not None]
    return (
        np.ascontiguousarray(whitening_qr @ active.inverse_sr),
        np.ascontiguousarray(center_zr @ active.inverse_sr),
        labels,
    )


def _posterior(
    potential: Potential, problem: Problem, group: str, moments: _Moments
) -> tuple[Floats, float, float]:
    """D of eq. (2), lambda and s^2."""
    _, vectors = _leading(moments.second_qq, float(np.trace(moments.second_qq)))
    step = max(1, round(float(moments.count_z.sum()) / _POSTERIOR_ATOMS))
    part = problem if step == 1 else problem.subset(range(0, len(problem), step))
    equations = part.normal_equations(potential, (group,))
    share = problem.n_rows / max(part.n_rows, 1)
    equations = NormalEquations(
        share * equations.gram, share * equations.rhs, share * equations.loss, problem.n_rows
    )
    theta_r = vectors.T @ potential.parameters[potential.spec.slices[group]]
    gram, rhs = vectors.T @ equations.gram @ vectors, vectors.T @ equations.rhs
    # the rows that this core alone would have to reproduce: r + J A
    square = equations.loss + 2.0 * float(theta_r @ rhs) + float(theta_r @ gram @ theta_r)
    solution = solve_ridge(gram, rhs + gram @ theta_r, square, equations.n_rows)
    noise = equations.loss / max(equations.n_rows - solution.effective, 1.0)
    values, modes = scipy.linalg.eigh(gram, driver="evd")
    spread = np.sqrt(noise / (np.maximum(values, 0.0) + solution.ridge))
    return np.ascontiguousarray(vectors @ (modes * spread)), float(solution.ridge), float(noise)


def _calibrated(
    potential: Potential, reliability: Reliability, held_out: Sequence[Labelled], threads: int
) -> tuple[float, float, float]:
    """Eq. (3); one where there are no labels."""
    ratios: dict[str, list[Floats]] = {"energy": [], "force": [], "proxy": []}
    with_forces = [index for index, c in enumerate(held_out) if c.forces is not None]
    step = max(1, -(-len(with_forces) // _FORCE_CONFIGURATIONS))
    in_full = set(with_forces[::step])
    for index, labelled in enumerate(held_out):
        numbers = labelled.atoms.numbers
        edges = potential.edges(labelled.atoms)
        evaluation = potential.evaluate(edges, numbers, threads=threads)
        assessment = reliability.assess(potential, edges, numbers, threads=threads)
        if labelled.energy is not None:
            ratios["energy"].append(
                np.array([_ratio(evaluation.energy - labelled.energy, assessment.energy_std)])
            )
        if labelled.forces is None:
            continue
        error_ic = evaluation.forces - labelled.forces
        ratios["proxy"].append(_ratio(error_ic, assessment.force_std_i[:, None]).ravel())
        if index in in_full:
            deviation_ic = reliability.force_deviations(potential, edges, numbers, threads=threads)
            ratios["force"].append(_ratio(error_ic, deviation_ic).ravel())
    energy, force, proxy = (_trimmed(ratios[name]) for name in ("energy", "force", "proxy"))
    return energy, force, proxy


def _ratio(error: Any, deviation: Any) -> Any:
    """Squares of errors over standard deviations; NaN where the latter vanish (atoms that symmetry holds)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(deviation > 1e-12, (error / deviation) ** 2, np.nan)


def _trimmed(parts: Sequence[Floats]) -> float:
    """Root of the mean without the largest values; one where there are none."""
    values = np.concatenate(parts) if parts else np.empty(0)
    values = np.sort(values[np.isfinite(values)])
    values = values[: max(1, int(np.ceil(len(values) * (1.0 - _TRIMMED))))]
    mean = float(values.mean()) if len(values) else 0.0
    return float(np.sqrt(mean)) if mean > 0 else 1.0
