"""The loss, its gradient and its normal equations against one another and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from etnpot.errors import SpecificationError
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.prepared import LossWeights
from etnpot.fitting.problem import Problem
from etnpot.io.structures import Labelled
from etnpot.potential import Potential, Sensitivities


def test_loss_is_the_sum_written_in_the_design(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    rng: np.random.Generator,
) -> None:
    data = labelled_by(teacher, n=3)
    weights = LossWeights(energy=2.0, forces=0.3, stress=5.0, alpha=1.5)
    student = reseeded(teacher, 1)
    problem = Problem.from_dataset(data, teacher.cutoff, weights)
    expected = 0.0
    for labelled in data:
        edges = student.edges(labelled.atoms)
        got = student.evaluate(edges, labelled.atoms.numbers)
        stress = (
            np.array([got.virial[c] for c in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
            / labelled.volume
        )
        assert labelled.energy is not None and labelled.forces is not None and labelled.stress is not None
        expected += 2.0 * (got.energy - labelled.energy) ** 2 / labelled.n_atoms**1.5
        expected += 0.3 * np.sum((got.forces - labelled.forces) ** 2)
        expected += 5.0 * labelled.volume * np.sum((stress - labelled.stress) ** 2)
    assert problem.loss(student) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shifted", [False, True])
def test_normal_equations_agree_with_gradient_and_finite_differences(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
    rng: np.random.Generator,
    *,
    shifted: bool,
) -> None:
    data = labelled_by(teacher, n=4)
    problem = problem_of(data, teacher.cutoff, shifted=data.species if shifted else ())
    student = reseeded(teacher, 2)
    equations = problem.normal_equations(student)
    loss, gradient = problem.gradient(student)
    assert equations.loss == pytest.approx(loss, rel=1e-12)
    assert equations.n_rows == problem.n_rows == 4 * (1 + 24 + 6)
    np.testing.assert_allclose(-2.0 * equations.rhs, gradient, rtol=0, atol=1e-11 * np.abs(gradient).max())
    direction = rng.normal(size=student.n_parameters)
    direction *= 1e-4 / np.linalg.norm(direction)
    up, down = (problem.loss(student.with_parameters(student.parameters + s * direction)) for s in (1, -1))
    assert (up - down) / 2 == pytest.approx(gradient @ direction, rel=1e-6)
    # J^T J from differences of the rows along the same direction
    rows = [problem.residuals(student.with_parameters(student.parameters + s * direction)) for s in (1, -1)]
    along = np.concatenate([(a - b) / 2 for a, b in zip(*rows, strict=True)])
    assert along @ along == pytest.approx(direction @ equations.gram @ direction, rel=1e-6)


def test_virial_shift_is_what_least_squares_with_its_columns_gives(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
) -> None:
    data, student = labelled_by(teacher, n=5), reseeded(teacher, 2)
    plain, shifted = (problem_of(data, teacher.cutoff, shifted=z) for z in ((), data.species))
    columns = []
    for c in plain.configurations:
        block = np.zeros((len(data.species), 1 + c.forces.size + 6))  # type: ignore[union-attr]
        counts = [np.count_nonzero(c.numbers == z) for z in data.species]
        block[:, -6:-3] = c.scale_virial * np.array(counts, dtype=float)[:, None]
        columns.append(block)
    rows = np.concatenate(plain.residuals(student))
    p, *_ = np.linalg.lstsq(np.hstack(columns).T, rows, rcond=None)
    shift = shifted.errors(student)[1]
    np.testing.assert_allclose(shift, p, rtol=1e-10)
    np.testing.assert_allclose(
        np.concatenate(shifted.residuals(student)),
        rows - p @ np.hstack(columns),
        atol=1e-12 * np.abs(rows).max(),
    )
    given, _ = shifted.errors(student, np.zeros(len(data.species)))
    assert given["stress_rmse"] == pytest.approx(plain.errors(student)[0]["stress_rmse"])
    # the triangular factor is that of the projected rows
    equations, factor = shifted.normal_equations(student), shifted.triangular_factor(student)
    np.testing.assert_allclose(
        (factor.T @ factor)[:-1, :-1], equations.gram, atol=1e-11 * np.abs(equations.gram).max()
    )


def test_virial_shift_is_found_and_harmless_where_elements_cannot_be_told_apart(
    teacher: Potential, labelled_by: Callable[..., DataSet], problem_of: Callable[..., Problem]
) -> None:
    """A Pulay stress on one composition: only the sum over elements is known, and the teacher still fits."""
    data = labelled_by(teacher, n=3)
    one = DataSet([replace(c, stress=_pressed(c, 0.2)) for c in data[:1]])
    problem = problem_of(one, teacher.cutoff, shifted=data.species)
    errors, shift = problem.errors(teacher)
    counts = np.array([np.count_nonzero(one[0].atoms.numbers == z) for z in data.species])
    assert counts @ shift == pytest.approx(0.2 * counts.sum(), rel=1e-9)
    assert errors["stress_rmse"] < 1e-12
    with_shift = DataSet([replace(c, stress=_pressed(c, 0.2)) for c in data])
    _, shift = problem_of(with_shift, teacher.cutoff, shifted=data.species).errors(teacher)
    np.testing.assert_allclose(shift, 0.2, rtol=1e-9)


def _pressed(labelled: Labelled, per_atom: float) -> np.ndarray:
    """Its stress with an isotropic virial of `per_atom` eV for each atom on top."""
    assert labelled.stress is not None
    stress = np.array(labelled.stress)
    stress[:3] += per_atom * labelled.n_atoms / labelled.volume
    return stress


def test_one_core_is_a_block_of_the_whole(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
) -> None:
    problem = problem_of(labelled_by(teacher, n=3), teacher.cutoff)
    student = reseeded(teacher, 4)
    whole = problem.normal_equations(student)
    for name in ("core.1", "core.2"):
        where = student.spec.slices[name]
        part = problem.normal_equations(student, (name,))
        np.testing.assert_allclose(
            part.gram, whole.gram[where, where], rtol=1e-11, atol=1e-12 * np.abs(whole.gram).max()
        )


def test_threads_change_nothing_beyond_rounding(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
) -> None:
    data, student = labelled_by(teacher, n=5), reseeded(teacher, 5)
    one = problem_of(data, teacher.cutoff, threads=1).normal_equations(student)
    again = problem_of(data, teacher.cutoff, threads=1).normal_equations(student)
    two = problem_of(data, teacher.cutoff, threads=2).normal_equations(student)
    np.testing.assert_array_equal(one.gram, again.gram)
    np.testing.assert_allclose(one.gram, two.gram, rtol=0, atol=1e-13 * np.abs(one.gram).max())


def test_shards_add_up(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
) -> None:
    data, student = labelled_by(teacher, n=6), reseeded(teacher, 6)
    whole = problem_of(data, teacher.cutoff).normal_equations(student)
    parts = [problem_of(data[a:b], teacher.cutoff).normal_equations(student) for a, b in ((0, 2), (2, 6))]
    np.testing.assert_allclose(
        parts[0].gram + parts[1].gram, whole.gram, rtol=0, atol=1e-13 * np.abs(whole.gram).max()
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_the_triangular_factor_is_that_of_the_normal_equations(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("etnpot.fitting.normal_equations._GRAM_COLUMNS", 40)
    problem, student = (
        problem_of(labelled_by(teacher, n=5), teacher.cutoff, threads=threads),
        reseeded(teacher, 5),
    )
    for groups in (None, ("core.1",)):
        equations = problem.normal_equations(student, groups)
        factor = problem.triangular_factor(student, groups)
        square = factor.T @ factor
        np.testing.assert_allclose(
            square[:-1, :-1], equations.gram, rtol=0, atol=1e-12 * np.abs(equations.gram).max()
        )
        np.testing.assert_allclose(
            square[:-1, -1], equations.rhs, rtol=0, atol=1e-12 * np.abs(equations.rhs).max()
        )
        assert square[-1, -1] == pytest.approx(equations.loss, rel=1e-12)


def test_missing_labels_have_no_rows(
    teacher: Potential,
    reseeded: Callable[[Potential, int], Potential],
    labelled_by: Callable[..., DataSet],
    problem_of: Callable[..., Problem],
) -> None:
    from dataclasses import replace

    data = labelled_by(teacher, n=3)
    partial = DataSet(
        [
            replace(data[0], energy=None),
            replace(data[1], forces=None),
            replace(data[2], stress=None, energy=None),
        ]
    )
    problem = problem_of(partial, teacher.cutoff)
    assert problem.n_rows == (24 + 6) + (1 + 6) + 24
    student = reseeded(teacher, 7)
    equations = problem.normal_equations(student)
    assert equations.n_rows == problem.n_rows
    gradient = problem.gradient(student)[1]
    np.testing.assert_allclose(-2.0 * equations.rhs, gradient, rtol=0, atol=1e-11 * np.abs(gradient).max())


def test_outliers_are_weighed_down(
    teacher: Potential, labelled_by: Callable[..., DataSet], problem_of: Callable[..., Problem]
) -> None:
    from dataclasses import replace

    data = labelled_by(teacher, n=6, noise=0.01)
    assert data[0].forces is not None
    spoiled = DataSet([replace(data[0], forces=data[0].forces + 10.0), *data[1:]])
    problem = problem_of(spoiled, teacher.cutoff)
    robust = problem.reweighted(teacher, 3.0)
    factors = [
        b.scale_forces / a.scale_forces
        for a, b in zip(problem.configurations, robust.configurations, strict=True)
    ]
    assert factors[0] < 0.1
    assert min(factors[1:]) > 0.5


def test_weights_are_checked() -> None:
    with pytest.raises(SpecificationError, match="energy weight"):
        LossWeights(energy=-1.0)
    with pytest.raises(SpecificationError, match="alpha"):
        LossWeights(alpha=3.0)


def test_forces_that_vanish_by_symmetry_are_left_out_of_derivatives_alone(
    teacher: Potential, reseeded: Callable[[Potential, int], Potential], rng: np.random.Generator
) -> None:
    cubic = bulk("Cu", "fcc", a=3.7, cubic=True)
    ordered = cubic.copy()
    ordered.symbols[:2] = "Ag"
    ordered.set_cell(ordered.cell @ [[1.02, 0.01, 0], [0.01, 1, 0], [0, 0, 0.99]], scale_atoms=True)
    displaced = cubic.copy()
    displaced.positions[0, 0] += 0.02
    disordered = cubic * (1, 1, 2)
    disordered.symbols[0] = "Ag"
    data = DataSet(
        [
            Labelled(
                atoms, energy=-1.0, forces=1e-3 * rng.normal(size=(len(atoms), 3)), stress=np.arange(6.0)
            )
            for atoms in (cubic, ordered, displaced, disordered)
        ]
    )
    student = reseeded(teacher, 9)
    plain = Problem.from_dataset(data, teacher.cutoff, LossWeights(stress=1.0), shifted=(29, 47))
    probed = plain.probed(reseeded(teacher, 8))
    assert [c.at_rest for c in probed.configurations] == [True, True, False, False]
    assert probed.n_rows == plain.n_rows and probed.loss(student) == plain.loss(student)
    for groups in (None, ("core.1",)):
        expected, found = plain.normal_equations(student, groups), probed.normal_equations(student, groups)
        tiny = 1e-12 * np.abs(expected.gram).max()
        np.testing.assert_allclose(found.gram, expected.gram, rtol=0, atol=tiny)
        np.testing.assert_allclose(found.rhs, expected.rhs, rtol=0, atol=1e-9 * np.abs(expected.rhs).max())
        assert (found.loss, found.n_rows) == (pytest.approx(expected.loss, rel=1e-12), expected.n_rows)
        factor = probed.triangular_factor(student, groups)
        square = factor.T @ factor
        assert square[-1, -1] == pytest.approx(expected.loss, rel=1e-12)
        np.testing.assert_allclose(square[:-1, :-1], expected.gram, rtol=0, atol=tiny)


@pytest.mark.parametrize("with_virial", [False, True])
@pytest.mark.parametrize("groups", [None, ("core.2",)])
def test_a_jacobian_without_forces_is_the_rest_of_the_whole(
    teacher: Potential,
    labelled_by: Callable[..., DataSet],
    groups: tuple[str, ...] | None,
    *,
    with_virial: bool,
) -> None:
    c = Problem.from_dataset(labelled_by(teacher, n=1), teacher.cutoff, LossWeights()).configurations[0]
    sensitivities = Sensitivities(teacher, groups)
    for per_atom in (True, False):
        whole = sensitivities.jacobian(c.edges, c.numbers, per_atom=per_atom, with_virial=with_virial)
        part = sensitivities.jacobian(
            c.edges, c.numbers, per_atom=per_atom, with_forces=False, with_virial=with_virial
        )
        assert part.n_sites == 0 and part.forces.shape == (0, 3, sensitivities.n_parameters)
        np.testing.assert_allclose(part.energy_iq, whole.energy_iq, rtol=1e-13, atol=1e-13)
        rest = whole.gradient_qc[:, 3 * whole.n_sites :]
        np.testing.assert_allclose(part.gradient_qc, rest, rtol=0, atol=1e-12)
