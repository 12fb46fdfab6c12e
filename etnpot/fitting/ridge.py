"""Ridge regression from normal equations, with the ridge that the data themselves make most probable.

With G = J^T J, b = J^T y, y of n rows, prior weights W (diagonal), and
x = argmin |J x - y|^2 + lambda x^T W x,

    G' = W^{-1/2} G W^{-1/2} = Q e Q^T,   b' = Q^T W^{-1/2} b,   x = W^{-1/2} Q b' / (e + lambda)      (1)
    R(lambda) = |y|^2 - sum b'^2 / (e + lambda)                 (residual plus penalty at the minimum) (2)

For Gaussian noise and a Gaussian prior whose ratio of variances is lambda, the evidence, with the noise
variance at its most probable value R/n, is

    log p(y | lambda) = - n/2 log R(lambda) - 1/2 sum log(1 + e / lambda) + const,                     (3)

a function of one number once the eigenvalues are known (MacKay, Neural Computation 4, 415, 1992). Where rows
are not independent (every force sees its neighbours' energies) n counts them as if they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

from etnpot.errors import ConvergenceError

__all__ = ["RidgeSolution", "rounded", "solve_ridge", "solve_ridge_triangular"]

Floats = NDArray[np.float64]

#: Eigenvalues of a Gram matrix below this part of the largest are rounding; those from singular values, below its square.
_GRAM_ROUNDING = 1e-15
#: A lambda below so many times the rounding may not be what shapes the solution.
_TRUSTED = 100.0
#: Largest lambda searched, relative to the largest eigenvalue.
_HIGHEST = 1e2


@dataclass(frozen=True, eq=False)
class RidgeSolution:
    """Solution of a ridge problem.

    Attributes
    ----------
    x : float64 [q]
    ridge : float
        lambda.
    effective : float
        Effective number of parameters, sum e / (e + lambda).
    log_evidence : float
        Eq. (3) without its constant.
    loss : float
        |J x - y|^2 at the solution.
    resolved : bool
        Whether lambda is above the rounding of the eigenvalues.
    """

    x: Floats
    ridge: float
    effective: float
    log_evidence: float
    loss: float
    resolved: bool


def solve_ridge(
    gram: Floats,
    rhs: Floats,
    square: float,
    n_rows: int,
    *,
    weights: Floats | None = None,
    ridge: float | None = None,
) -> RidgeSolution:
    """Solve eq. (1), with lambda from the evidence unless it is given.

    Parameters
    ----------
    gram, rhs : float64 [q, q], [q]
        G and b.
    square : float
        |y|^2.
    n_rows : int
        n.
    weights : float64 [q], optional
        W; ones by default.
    ridge : float, optional
        lambda, fixed.

    Returns
    -------
    RidgeSolution
    """
    scale = _checked_scale("normal equations hold", gram, rhs, weights)
    values, vectors = scipy.linalg.eigh(scale[:, None] * gram * scale, check_finite=False, driver="evd")
    values = np.maximum(values, 0.0)
    spectrum = _Spectrum(values, vectors.T @ (scale * rhs), square, n_rows, _GRAM_ROUNDING)
    ridge = spectrum.best_ridge() if ridge is None else ridge
    x = scale * (vectors @ spectrum.coefficients(ridge))
    loss = square - 2.0 * float(x @ rhs) + float(x @ (gram @ x))
    return spectrum.solution(x, ridge, max(loss, 0.0))


def solve_ridge_triangular(
    factor: Floats, rhs: Floats, n_rows: int, *, weights: Floats | None = None, ridge: float | None = None
) -> RidgeSolution:
    """The same from a triangular factor R of J, and Q^T y: singular values s of R W^{-1/2} in place of e = s^2.

    Parameters
    ----------
    factor, rhs : float64 [r, q], [r]
        R and Q^T y; r may be larger than q.
    n_rows, weights, ridge
        As for `solve_ridge`.

    Returns
    -------
    RidgeSolution
    """
    scale = _checked_scale("triangular factor holds", factor, rhs, weights)
    u, singular, vt = scipy.linalg.svd(factor * scale, full_matrices=False, check_finite=False)
    spectrum = _Spectrum(singular**2, singular * (u.T @ rhs), float(rhs @ rhs), n_rows, _GRAM_ROUNDING**2)
    ridge = spectrum.best_ridge() if ridge is None else ridge
    x = scale * (vt.T @ spectrum.coefficients(ridge))
    rest = factor @ x - rhs
    return spectrum.solution(x, ridge, float(rest @ rest))


def rounded(ridge: float) -> float:
    """A ridge to three digits."""
    return float(f"{ridge:.2e}")


def _checked_scale(what: str, matrix: Floats, rhs: Floats, weights: Floats | None) -> Floats:
    """W^{-1/2}, once the numbers are known to be finite."""
    if not (np.isfinite(matrix).all() and np.isfinite(rhs).all()):
        raise ConvergenceError(f"the {what} NaN or infinity: the potential has diverged; lower the step")
    return np.ones(matrix.shape[1]) if weights is None else 1.0 / np.sqrt(weights)


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """Eigenvalues e, b', |y|^2 and n of eqs. (1) to (3), and the part of the largest e below which others are rounding."""

    values: Floats
    projected: Floats
    square: float
    n_rows: int
    rounding: float

    @property
    def top(self) -> float:
        largest = float(self.values.max())
        return largest if largest > 0 else 1.0

    def _rest(self, inverse: Floats) -> float:
        """R, eq. (2), for 1 / (e + lambda)."""
        return max(self.square - float(self.projected**2 @ inverse), 1e-30 * self.square, 1e-300)

    def log_evidence(self, ridge: float) -> float:
        """Eq. (3)."""
        rest = self._rest(1.0 / (self.values + ridge))
        return -0.5 * self.n_rows * np.log(rest) - 0.5 * float(np.log1p(self.values / ridge).sum())

    def evidence_slope(self, log_ridge: float) -> float:
        """Derivative of eq. (3) by log lambda: [sum e / (e + lambda) - n lambda |x|^2 / R] / 2."""
        ridge = float(np.exp(log_ridge))
        inverse = 1.0 / (self.values + ridge)
        penalty = ridge * float(self.projected**2 @ inverse**2)
        return 0.5 * (float(self.values @ inverse) - self.n_rows * penalty / self._rest(inverse))

    def best_ridge(self) -> float:
        """Where the evidence is highest: a coarse scan finds the hill, the zero of the slope its top.

        It is taken to three digits (`rounded`): cancellation in R leaves not many more, and the fits of two ranks would
        drift apart in the others.
        """
        grid = np.log(self.top) + np.linspace(np.log(10.0 * self.rounding), np.log(_HIGHEST), 65)
        at = int(np.argmax([self.log_evidence(float(np.exp(x))) for x in grid]))
        low, high = float(grid[max(at - 1, 0)]), float(grid[min(at + 1, len(grid) - 1)])
        if self.evidence_slope(low) <= 0 or self.evidence_slope(high) >= 0:
            return float(np.exp(grid[at]))
        return rounded(float(np.exp(scipy.optimize.brentq(self.evidence_slope, low, high, xtol=1e-6))))

    def inverse(self, ridge: float) -> Floats:
        """1 / (e + lambda); zero for exact zeros of the spectrum without ridge: the shortest solution."""
        shifted = self.values + ridge
        return np.where(shifted > self.rounding * self.top, 1.0 / np.maximum(shifted, 1e-300), 0.0)

    def coefficients(self, ridge: float) -> Floats:
        """b' / (e + lambda), the solution in the basis of the eigenvectors."""
        return self.inverse(ridge) * self.projected

    def solution(self, x: Floats, ridge: float, loss: float) -> RidgeSolution:
        """What is known of a solution x."""
        effective = float((self.values * self.inverse(ridge)).sum())
        resolved = ridge >= _TRUSTED * self.rounding * self.top
        return RidgeSolution(x, ridge, effective, self.log_evidence(max(ridge, 1e-300)), loss, resolved)
