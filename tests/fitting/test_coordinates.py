"""Coordinates of a step: orthogonal radial functions, and the chain rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import etnpot
from etnpot.fitting.coordinates import Coordinates, radial_factor, radial_moments
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.polish import Damping, lbfgs_steps, polish_step
from etnpot.fitting.problem import Problem
from etnpot.potential import Potential


@pytest.fixture
def lower_nn(
    teacher: Potential, labelled_by: Callable[..., DataSet], problem_of: Callable[..., Problem]
) -> np.ndarray:
    return problem_of(labelled_by(teacher, n=6), teacher.cutoff).radial_factor(teacher.spec.radial)


def test_radial_functions_are_orthogonal_on_the_pairs(
    teacher: Potential, labelled_by: Callable[..., DataSet], problem_of: Callable[..., Problem]
) -> None:
    problem = problem_of(labelled_by(teacher, n=6), teacher.cutoff)
    r_p = np.concatenate([np.linalg.norm(c.edges.r_pc, axis=1) for c in problem.data])
    phi_pn, _ = teacher.spec.radial.evaluate(r_p)
    mean_nn = phi_pn.T @ phi_pn / len(phi_pn)
    lower_nn = problem.radial_factor(teacher.spec.radial)
    floor_nn = 1e-3 * np.trace(mean_nn) / len(mean_nn) * np.eye(len(mean_nn))
    np.testing.assert_allclose(lower_nn @ lower_nn.T, mean_nn + floor_nn, rtol=1e-12, atol=1e-14)
    # what the data see is orthogonal; what they do not is as small as its coefficients
    psi_pn = np.linalg.solve(lower_nn, phi_pn.T).T
    values = np.linalg.eigvalsh(psi_pn.T @ psi_pn / len(psi_pn))
    seen = np.linalg.eigvalsh(mean_nn)
    np.testing.assert_allclose(values, seen / (seen + floor_nn[0, 0]), rtol=1e-6, atol=1e-12)


def test_radial_functions_keep_their_sum(teacher: Potential, lower_nn: np.ndarray) -> None:
    """sum_n B_n phi_n = sum_n B'_n psi_n for every channel and species function."""
    spec = teacher.spec
    everything = slice(0, spec.n_parameters)
    turned = teacher.with_parameters(Coordinates(spec, everything, lower_nn).of(teacher.parameters))
    phi_pn, _ = spec.radial.evaluate(np.linspace(1.8, spec.cutoff, 20))
    psi_pn = np.linalg.solve(lower_nn, phi_pn.T).T
    for l in range(spec.l_max + 1):
        old, new = teacher.arrays[f"radial.{l}"], turned.arrays[f"radial.{l}"]
        expected = np.einsum("cnk,pn->pck", old, phi_pn)
        np.testing.assert_allclose(np.einsum("cnk,pn->pck", new, psi_pn), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("part", ["all", "shared", "one core"])
def test_chain_rule(teacher: Potential, lower_nn: np.ndarray, rng: np.random.Generator, part: str) -> None:
    spec = teacher.spec
    names = {"all": list(spec.slices), "shared": list(spec.shared_groups), "one core": ["core.1"]}[part]
    moving = slice(spec.slices[names[0]].start, spec.slices[names[-1]].stop)
    coordinates = Coordinates(spec, moving, lower_nn)
    theta = teacher.parameters[moving]
    np.testing.assert_allclose(coordinates.parameters(coordinates.of(theta)), theta, rtol=1e-9)
    jacobian = rng.normal(size=(2 * len(theta), len(theta)))
    step = rng.normal(size=len(theta))
    by_coordinates = coordinates.gradient(jacobian.T).T
    along = jacobian @ coordinates.parameters(step)
    np.testing.assert_allclose(by_coordinates @ step, along, rtol=1e-9, atol=1e-9 * abs(along).max())
    gram = coordinates.gram(jacobian.T @ jacobian)
    expected = by_coordinates.T @ by_coordinates
    np.testing.assert_allclose(gram, expected, rtol=1e-9, atol=1e-12 * abs(expected).max())
    if part == "one core":
        assert coordinates.of(theta) is theta  # nothing to turn, nothing copied


def test_of_layers_too() -> None:
    """The radial functions of messages are of the same basis, and turn with the others."""
    potential = etnpot.ETN(["Ni", "Cu"], cutoff=4.0, order=2, l_max=1, seed=1, layers=[{"kind": "message"}])
    spec, n = potential.spec, potential.n_parameters
    lower = np.tril(np.ones((spec.radial.size, spec.radial.size)))
    moved = Coordinates(spec, slice(0, n), lower).of(potential.parameters) != potential.parameters
    radial = np.zeros(n, dtype=bool)
    for l in range(spec.l_max + 1):
        radial[spec.slices[f"radial.{l}"]] = True
    assert not moved[~radial].any()
    assert moved[radial].mean() > 0.8


def test_no_pairs() -> None:
    radial = etnpot.ETN("Ni", cutoff=4.0).spec.radial
    np.testing.assert_array_equal(radial_factor(radial_moments(radial, [])), np.eye(radial.size))


def test_steps_lower_the_loss(
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    lower_nn: np.ndarray,
) -> None:
    problem = problem_of(labelled_by(teacher, n=6), teacher.cutoff)
    student, damping = reseeded(teacher, 2), Damping(ridge=1e-6)
    everything = slice(0, student.n_parameters)
    for _ in range(3):
        before = student
        step = polish_step(problem, before, damping, fixed_ridge=True, lower_nn=lower_nn)
        student, damping = step.potential, step.damping
        penalised = []
        for potential in (before, student):
            theta = Coordinates(potential.spec, everything, lower_nn).of(potential.parameters)
            theta = np.delete(theta, np.arange(len(potential.species)))  # reference energies carry no ridge
            penalised.append(problem.loss(potential) + damping.ridge * float(theta @ theta))
        assert step.gain == pytest.approx(penalised[0] - penalised[1], rel=1e-6)
        assert step.gain > 0
    better, after = lbfgs_steps(problem, student, ridge=0.0, steps=5, lower_nn=lower_nn)
    assert after < problem.loss(student)
    assert problem.loss(better) == pytest.approx(after, rel=1e-8)
