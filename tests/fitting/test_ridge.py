"""Ridge regression: the closed form, and a ridge from the evidence that generalises."""

from __future__ import annotations

import numpy as np
import pytest

from etnpot.errors import ConvergenceError
from etnpot.fitting.ridge import solve_ridge, solve_ridge_triangular


def test_closed_form_with_weights(rng: np.random.Generator) -> None:
    rows, y, weights = rng.normal(size=(30, 7)), rng.normal(size=30), rng.uniform(1, 5, size=7)
    got = solve_ridge(rows.T @ rows, rows.T @ y, y @ y, 30, weights=weights, ridge=0.3)
    expected = np.linalg.solve(rows.T @ rows + 0.3 * np.diag(weights), rows.T @ y)
    np.testing.assert_allclose(got.x, expected, rtol=1e-11)
    assert got.loss == pytest.approx(float(np.sum((rows @ expected - y) ** 2)), rel=1e-10)
    hat = rows @ np.linalg.solve(rows.T @ rows + 0.3 * np.diag(weights), rows.T)
    assert got.effective == pytest.approx(float(np.trace(hat)), rel=1e-10)


def test_a_triangular_factor_gives_the_same_and_more_digits(rng: np.random.Generator) -> None:
    rows, y, weights = rng.normal(size=(30, 7)), rng.normal(size=30), rng.uniform(1, 5, size=7)
    factor = np.linalg.qr(np.column_stack([rows, y]), mode="r")
    r, rhs = factor[:, :-1], factor[:, -1]
    for ridge in (0.3, None):
        a = solve_ridge(rows.T @ rows, rows.T @ y, y @ y, 30, weights=weights, ridge=ridge)
        b = solve_ridge_triangular(r, rhs, 30, weights=weights, ridge=ridge)
        np.testing.assert_allclose(b.x, a.x, rtol=1e-9 if ridge else 1e-3)
        assert b.loss == pytest.approx(a.loss, rel=1e-6)
        assert b.log_evidence == pytest.approx(a.log_evidence, rel=1e-8)
    # singular values over ten orders: their squares are beyond a Gram matrix in double precision
    u, _, vt = np.linalg.svd(rng.normal(size=(40, 8)), full_matrices=False)
    steep = u * np.logspace(0, -10, 8) @ vt
    wanted = rng.normal(size=8)
    exact = steep @ wanted
    factor = np.linalg.qr(np.column_stack([steep, exact]), mode="r")
    by_gram = solve_ridge(steep.T @ steep, steep.T @ exact, exact @ exact, 40, ridge=0.0).x
    by_factor = solve_ridge_triangular(factor[:, :-1], factor[:, -1], 40, ridge=0.0).x
    assert np.abs(by_factor - wanted).max() < 1e-4
    assert np.abs(by_gram - wanted).max() > 1e-2


def test_evidence_is_the_marginal_likelihood(rng: np.random.Generator) -> None:
    rows, y = rng.normal(size=(20, 4)), rng.normal(size=20)
    gram, rhs = rows.T @ rows, rows.T @ y

    def direct(ridge: float) -> float:
        covariance = np.eye(20) + rows @ rows.T / ridge
        quadratic = float(y @ np.linalg.solve(covariance, y))
        return -10.0 * np.log(quadratic) - 0.5 * np.linalg.slogdet(covariance)[1]

    for ridge in (1e-3, 1.0, 30.0):
        got = solve_ridge(gram, rhs, y @ y, 20, ridge=ridge).log_evidence
        assert got - solve_ridge(gram, rhs, y @ y, 20, ridge=2.0).log_evidence == pytest.approx(
            direct(ridge) - direct(2.0), rel=1e-9, abs=1e-9
        )
    best = solve_ridge(gram, rhs, y @ y, 20).ridge
    assert direct(best) >= max(direct(best * 1.3), direct(best / 1.3))


def test_evidence_beats_fixed_ridges_on_held_out_rows(rng: np.random.Generator) -> None:
    excess = {ridge: [] for ridge in (None, 1e-8, 1e-2, 1e2)}
    for _ in range(20):
        truth = rng.normal(size=40)
        rows, held = rng.normal(size=(60, 40)), rng.normal(size=(400, 40))
        y = rows @ truth + 3.0 * rng.normal(size=60)
        for ridge, errors in excess.items():
            x = solve_ridge(rows.T @ rows, rows.T @ y, y @ y, 60, ridge=ridge).x
            errors.append(np.mean((held @ (x - truth)) ** 2))
    mean = {ridge: np.mean(errors) for ridge, errors in excess.items()}
    assert mean[None] < min(mean[1e-8], mean[1e-2], mean[1e2])


def test_singular_problem_gives_the_shortest_solution(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(5, 9))
    y = rng.normal(size=5)
    got = solve_ridge(rows.T @ rows, rows.T @ y, y @ y, 5, ridge=0.0)
    np.testing.assert_allclose(got.x, np.linalg.pinv(rows) @ y, atol=1e-8)


def test_nan_is_an_error() -> None:
    with pytest.raises(ConvergenceError, match="NaN"):
        solve_ridge(np.full((2, 2), np.nan), np.zeros(2), 1.0, 2)


def test_data_that_are_fitted_to_the_last_bit_have_a_solution() -> None:
    """Rounding can make |y|^2 zero or negative once nothing is left to explain: no logarithm of it may be taken."""
    rng = np.random.default_rng(0)
    j = rng.normal(size=(20, 3))
    for square in (0.0, -1e-16):
        solution = solve_ridge(j.T @ j, 1e-20 * rng.normal(size=3), square, 20)
        assert np.abs(solution.x).max() < 1e-18
        assert np.isfinite([solution.ridge, solution.log_evidence, solution.loss]).all()
