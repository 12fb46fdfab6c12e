"""Polish: Levenberg-Marquardt over all parameters at once, with the ridge re-estimated from the evidence.

    minimise   loss(theta) + lambda sum_q w_q theta_q^2,       (G + lambda w + mu d) step = b - lambda w theta      (1)

with G, b the normal equations at theta, d the mean of the diagonal of G, w zero for the reference energies and one elsewhere.
mu is raised until a step lowers the penalised loss, and lowered when the quadratic model predicted the gain well. After every
accepted step lambda moves to the fixed point of the evidence in the quadratic model (MacKay),

    gamma = n_q - lambda sum_q w_q [(G + lambda w)^-1]_qq,     lambda = gamma loss / ((n - gamma) |theta|^2).         (2)

The gauge directions of the train, along which nothing changes, cost nothing: damping keeps the step out of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from etnpot.errors import ConvergenceError
from etnpot.fitting.problem import NormalEquations, Problem
from etnpot.potential import Potential

__all__ = ["Damping", "PolishStep", "lbfgs_steps", "polish_step"]

Floats = NDArray[np.float64]

_LARGEST_DAMPING = 1e8


@dataclass(frozen=True)
class Damping:
    """What one step hands on to the next.

    Attributes
    ----------
    mu : float
        Levenberg-Marquardt parameter, relative to the mean of the diagonal of G.
    ridge : float
        lambda.
    """

    mu: float = 1e-3
    ridge: float = 0.0


@dataclass(frozen=True, eq=False)
class PolishStep:
    """Outcome of one step.

    Attributes
    ----------
    potential : Potential
        The old one if no step lowered the penalised loss.
    damping : Damping
        For the next step.
    loss_before, loss : float
        Without penalty.
    gain : float
        Drop of the penalised loss; zero when no step was found.
    effective : float
        gamma.
    """

    potential: Potential
    damping: Damping
    loss_before: float
    loss: float
    gain: float
    effective: float


def polish_step(
    problem: Problem, potential: Potential, damping: Damping, *, fixed_ridge: bool = False
) -> PolishStep:
    """One Levenberg-Marquardt step, eq. (1), and the new ridge, eq. (2).

    Parameters
    ----------
    problem : Problem
    potential : Potential
    damping : Damping
        From the step before.
    fixed_ridge : bool
        Leave lambda as it is.

    Returns
    -------
    PolishStep
    """
    equations = problem.normal_equations(potential)
    theta = potential.parameters
    weights = np.ones(len(theta))
    weights[potential.spec.slices["reference_energies"]] = 0.0
    scale = float(np.trace(equations.gram)) / len(theta)
    penalty = damping.ridge * weights
    before = equations.loss + float(penalty @ theta**2)
    rhs = equations.rhs - penalty * theta
    mu, found = damping.mu, None
    while mu < _LARGEST_DAMPING:
        step = _damped_step(equations.gram, penalty + mu * scale, rhs)
        if step is not None:
            trial = potential.with_parameters(theta + step)
            loss = problem.loss(trial)
            after = loss + float(penalty @ trial.parameters**2)
            if after < before:
                found = trial, loss, after
                break
        mu *= 5.0
    if found is None:
        return PolishStep(potential, replace(damping, mu=_LARGEST_DAMPING), equations.loss, equations.loss, 0.0, 0.0)
    trial, loss, after = found
    predicted = 2.0 * float(step @ rhs) - float(step @ (equations.gram @ step)) - float(penalty @ step**2)
    quality = (before - after) / predicted if predicted > 0 else 0.0
    if quality > 0.7:
        mu /= 5.0
    elif quality > 0.4:
        mu /= 2.0
    elif quality < 0.2:
        mu *= 2.0
    ridge, effective = damping.ridge, float(len(theta))
    if not fixed_ridge:
        ridge, effective = _evidence_ridge(equations, trial.parameters, weights, damping.ridge, loss, scale)
    return PolishStep(trial, Damping(mu, ridge), equations.loss, loss, before - after, effective)


def _damped_step(gram: Floats, diagonal: Floats, rhs: Floats) -> Floats | None:
    """Solve (gram + diagonal) step = rhs; None if that is not positive definite."""
    if not np.isfinite(gram).all():
        raise ConvergenceError("the normal equations hold NaN or infinity: the potential has diverged")
    matrix = gram.copy()
    matrix[np.diag_indices_from(matrix)] += diagonal
    try:
        factor = scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return np.asarray(scipy.linalg.cho_solve(factor, rhs, check_finite=False))


def _evidence_ridge(
    equations: NormalEquations, theta: Floats, weights: Floats, ridge: float, loss: float, scale: float
) -> tuple[float, float]:
    """Eq. (2), one fixed-point iteration; also returns gamma."""
    free = weights > 0
    square = float(theta[free] @ theta[free])
    lam = ridge if ridge > 0 else 1e-8 * scale
    gamma = float(free.sum())
    matrix = equations.gram[np.ix_(free, free)]
    matrix[np.diag_indices_from(matrix)] += lam
    factor, info = scipy.linalg.lapack.dpotrf(matrix, lower=1, overwrite_a=1)
    if info == 0:
        inverse, info = scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
        if info == 0:
            gamma = float(np.clip(gamma - lam * np.trace(inverse), 1.0, gamma))
    lam = gamma * loss / (max(equations.n_rows - gamma, 1.0) * max(square, 1e-300))
    return lam, gamma


def lbfgs_steps(problem: Problem, potential: Potential, *, ridge: float, steps: int) -> tuple[Potential, float]:
    """Some L-BFGS iterations on the penalised loss: memory linear in the number of parameters.

    Parameters
    ----------
    problem : Problem
    potential : Potential
    ridge : float
        lambda, on all parameters but the reference energies.
    steps : int
        Iterations.

    Returns
    -------
    Potential
    float
        The loss without penalty.
    """
    import scipy.optimize

    weights = np.full(potential.n_parameters, ridge)
    weights[potential.spec.slices["reference_energies"]] = 0.0

    def objective(theta: Floats) -> tuple[float, Floats]:
        loss, gradient = problem.gradient(potential.with_parameters(theta))
        return loss + float(weights @ theta**2), gradient + 2.0 * weights * theta

    result = scipy.optimize.minimize(
        objective, potential.parameters, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 20}
    )
    better = potential.with_parameters(result.x)
    return better, float(result.fun) - float(weights @ result.x**2)
