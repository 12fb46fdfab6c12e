"""Local solves: every one lowers the penalised loss; two-site solves find the ranks of a teacher."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.problem import Problem
from etnpot.fitting.sweeps import one_site, sweep_order, two_site
from etnpot.network import dense_tensor, scale
from etnpot.network.canonical import frobenius_norm, is_canonical
from etnpot.potential import Potential


def penalised(problem: Problem, potential: Potential, ridge: float) -> float:
    return problem.loss(potential) + ridge * frobenius_norm(potential.train) ** 2


@pytest.mark.parametrize("enrichment", [0, 1])
def test_every_one_site_solve_lowers_the_penalised_loss(
    enrichment: int,
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
    teacher: Potential,
    rng: np.random.Generator,
) -> None:
    problem = problem_of(labelled_by(teacher, noise=0.05), teacher.cutoff)
    student = etnpot.ETN(
        ["Cu", "Ag"], cutoff=4.5, order=3, l_max=1, channels=2, ranks=2, radial_size=4, species_rank=2, seed=1
    )
    ridge = 0.05
    value = penalised(problem, student, ridge)
    for forward in (False, True, False):
        for core in sweep_order(3, forward=forward):
            # without truncation the function before is within reach of the solve
            solved = one_site(
                problem,
                student,
                core,
                ridge=ridge,
                enrichment=enrichment,
                tolerance=0.0,
                max_rank=50,
                rng=rng,
            )
            student = solved.potential
            assert is_canonical(student.train, core)
            assert problem.loss(student) == pytest.approx(solved.loss, rel=1e-8)
            new = penalised(problem, student, ridge)
            assert new <= value * (1 + 1e-10)
            value = new


def test_two_site_sweeps_find_the_ranks_of_the_teacher(
    labelled_by: Callable[..., DataSet], problem_of: Callable[..., Problem], teacher: Potential
) -> None:
    problem = problem_of(labelled_by(teacher, n=20), teacher.cutoff)
    # the features of the teacher, a train of rank one that knows nothing
    narrow = etnpot.ETN(
        ["Cu", "Ag"], cutoff=4.5, order=2, l_max=1, channels=2, ranks=1, radial_size=4, species_rank=2, seed=9
    )
    shared = teacher.parameters[: teacher.spec.slices["head"].start]
    start = teacher.spec.slices["head"].start
    student = Potential(
        narrow.with_train(narrow.train).spec,
        np.concatenate([shared, narrow.parameters[narrow.spec.slices["head"].start :]]),
    )
    assert len(shared) == start
    for _ in range(3):
        student = two_site(problem, student, 0, ridge=1e-12, tolerance=1e-6, center="right").potential
        student = two_site(problem, student, 1, ridge=1e-12, tolerance=1e-6, center="left").potential
    # the data know the part of the tensor that is symmetric in the two copies of the features alone
    dense = dense_tensor(teacher.train)[..., 0]
    symmetric = 0.5 * (dense + dense.transpose(0, 2, 1))
    wanted = np.linalg.matrix_rank(
        symmetric.reshape(-1, symmetric.shape[2]), tol=1e-6 * np.abs(symmetric).max()
    )
    assert student.spec.bonds[1].dimension == wanted
    size = np.sqrt(problem.loss(student.with_train(scale(student.train, 0.0))))
    assert np.sqrt(problem.loss(student)) < 1e-6 * size


def test_same_seed_same_bits(
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
) -> None:
    problem = problem_of(labelled_by(teacher, n=5), teacher.cutoff, threads=1)
    student = reseeded(teacher, 3)
    first = one_site(problem, student, 1, enrichment=1, rng=np.random.default_rng(0)).potential.parameters
    again = one_site(problem, student, 1, enrichment=1, rng=np.random.default_rng(0)).potential.parameters
    np.testing.assert_array_equal(first, again)
