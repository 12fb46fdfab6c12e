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
from numpy.typing import NDArray

from etnpot.errors import ConvergenceError

__all__ = ["RidgeSolution", "solve_ridge"]

Floats = NDArray[np.float64]

#: Range of lambda searched, relative to the largest eigenvalue.
_LOWEST, _HIGHEST = 1e-14, 1e2


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
    """

    x: Floats
    ridge: float
    effective: float
    log_evidence: float
    loss: float


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
    if not (np.isfinite(gram).all() and np.isfinite(rhs).all()):
        raise ConvergenceError(
            "the normal equations hold NaN or infinity: the potential has diverged; lower the step"
        )
    scale = np.ones(len(rhs)) if weights is None else 1.0 / np.sqrt(weights)
    values, vectors = scipy.linalg.eigh(scale[:, None] * gram * scale, check_finite=False, driver="evd")
    values = np.maximum(values, 0.0)
    projected = vectors.T @ (scale * rhs)
    top = values[-1] if values[-1] > 0 else 1.0

    def evidence(log_ridge: float) -> float:
        lam = top * np.exp(log_ridge)
        rest = max(square - float(projected**2 @ (1.0 / (values + lam))), 1e-30 * max(square, 1e-300))
        return -0.5 * n_rows * np.log(rest) - 0.5 * float(np.log1p(values / lam).sum())

    if ridge is None:
        # a coarse scan finds the hill, golden section its top
        grid = np.linspace(np.log(_LOWEST), np.log(_HIGHEST), 65)
        heights = [evidence(x) for x in grid]
        at = int(np.argmax(heights))
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
        golden = 0.5 * (np.sqrt(5.0) - 1.0)
        for _ in range(25):
            left, right = high - golden * (high - low), low + golden * (high - low)
            if evidence(left) > evidence(right):
                high = right
            else:
                low = left
        log_ridge = 0.5 * (low + high)
        ridge = float(top * np.exp(log_ridge))
    else:
        log_ridge = float(np.log(max(ridge, 1e-300) / top))
    # exact zeros of the spectrum without ridge: the shortest solution
    inverse = np.where(values + ridge > 1e-15 * top, 1.0 / np.maximum(values + ridge, 1e-300), 0.0)
    x = scale * (vectors @ (inverse * projected))
    loss = square - 2.0 * float(x @ rhs) + float(x @ (gram @ x))
    return RidgeSolution(x, ridge, float((values * inverse).sum()), evidence(log_ridge), max(loss, 0.0))
