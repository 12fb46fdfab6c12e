"""Polish: Levenberg-Marquardt over all parameters at once, along a curve, with the ridge from the evidence.

    minimise   loss(theta) + lambda sum_q w_q theta_q^2,      (G + lambda w + mu D) s = b - lambda w theta          (1)
    D_q = sqrt(max(G_qq, 1e-4 g) g),      g = mean of G_qq                                                           (2)

with G, b the normal equations at theta, w zero for the reference energies and one elsewhere; all of them may be in coordinates
in which the radial functions are orthogonal on the training set (`etnpot.fitting.coordinates`). The damping D lies half-way
between the two customary choices, 1 and G_qq: the first ignores that parameters act with different strength, the second lets
those run away that act weakly.

The potential is multilinear in its cores, so that the model curves along the straight step s. With the second derivative of
the weighted predictions p along s, p'' = [p(theta + h s) - 2 p(theta) + p(theta - h s)] / h^2, the step is bent,

    (G + lambda w + mu D) c = -J^T p'',      theta <- theta + s + c / 2                                             (3)

(geodesic acceleration; Transtrum and Sethna, arXiv:1201.5885), at the cost of two evaluations and one gradient. mu is raised
until |c| <= |s| in the norm of D and the penalised loss falls. In the parameters of one core alone the model is linear: there
is nothing to bend, and without damping the step ends in the minimum. Once the loss has settled, lambda moves to the fixed point
of the evidence in the quadratic model (MacKay) after every step,

    gamma = n_q - lambda sum_q w_q [(G + lambda w)^-1]_qq,     lambda = gamma loss / ((n - gamma) |theta|^2).         (4)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from etnpot.errors import ConvergenceError
from etnpot.fitting.coordinates import Coordinates
from etnpot.fitting.least_squares import LeastSquares, ModelT
from etnpot.fitting.normal_equations import NormalEquations
from etnpot.fitting.ridge import rounded
from etnpot.potential.spec import NetworkSpec

__all__ = ["Damping", "PolishStep", "lbfgs_steps", "polish_step"]

Floats = NDArray[np.float64]

_LEAST_DAMPING, _LARGEST_DAMPING, _RAISE, _LOWER = 1e-15, 1e10, 3.0, 5.0
_METRIC_FLOOR = 1e-4
#: h of eq. (3).
_PROBE = 0.1
#: The ridge follows the evidence once a step lowers the penalised loss by less than this part of it.
_SETTLED = 0.3


@dataclass(frozen=True)
class Damping:
    """What one step hands on to the next.

    Attributes
    ----------
    mu : float
        Levenberg-Marquardt parameter.
    ridge : float
        lambda.
    """

    mu: float = 1e-3
    ridge: float = 0.0


@dataclass(frozen=True, eq=False)
class PolishStep(Generic[ModelT]):
    """Outcome of one step.

    Attributes
    ----------
    potential : Potential or TensorModel
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

    potential: ModelT
    damping: Damping
    loss_before: float
    loss: float
    gain: float
    effective: float


def polish_step(
    problem: LeastSquares[ModelT],
    potential: ModelT,
    damping: Damping,
    *,
    groups: tuple[str, ...] | None = None,
    fixed_ridge: bool = False,
    lower_nn: Floats | None = None,
) -> PolishStep[ModelT]:
    """One Levenberg-Marquardt step, eqs. (1) to (3), and the new ridge, eq. (4).

    Parameters
    ----------
    problem : Problem or TensorProblem
    potential : Potential or TensorModel
    damping : Damping
        From the step before.
    groups : tuple of str, optional
        Consecutive groups of parameters that move (see `Sensitivities`); all by default.
    fixed_ridge : bool
        Leave lambda as it is.
    lower_nn : float64 [n, n], optional
        L of `etnpot.fitting.coordinates`; without it parameters are their own coordinates.

    Returns
    -------
    PolishStep
    """
    # the model is linear in every single group: those in which it is not come together
    linear = groups is not None and len(groups) == 1
    rows = problem.residuals(potential)
    equations = problem.normal_equations(potential, groups, rows=rows)
    slices = potential.spec.slices
    names = list(slices) if groups is None else groups
    moving = slice(slices[names[0]].start, slices[names[-1]].stop)
    coordinates = Coordinates(potential.spec, moving, lower_nn)
    theta = coordinates.of(potential.parameters[moving])
    equations = replace(
        equations, gram=coordinates.gram(equations.gram), rhs=coordinates.gradient(equations.rhs)
    )
    weights = _penalised(potential.spec)[moving]
    diagonal = np.diag(equations.gram)
    scale = float(diagonal.mean())
    metric = np.sqrt(np.maximum(diagonal, _METRIC_FLOOR * scale) * scale)
    penalty = damping.ridge * weights
    before = equations.loss + float(penalty @ theta**2)
    rhs = equations.rhs - penalty * theta
    mu = max(damping.mu, _LEAST_DAMPING)
    found: tuple[ModelT, Floats, float, float] | None = None
    while found is None and mu < _LARGEST_DAMPING:
        total = penalty + mu * metric
        if linear:
            step = _straight_step(equations.gram, total, rhs)
        else:
            step = _curved_step(
                problem, potential, moving, coordinates, rows, equations.gram, total, metric, rhs
            )
        if step is not None:
            trial = _moved(potential, moving, coordinates.parameters(step))
            loss = problem.loss(trial)
            after = loss + float(penalty @ (theta + step) ** 2)
            if after < before:
                found = trial, theta + step, loss, after
                break
        mu *= _RAISE
    if found is None:
        return PolishStep(
            potential, replace(damping, mu=_LARGEST_DAMPING), equations.loss, equations.loss, 0.0, 0.0
        )
    trial, theta, loss, after = found
    gain = before - after
    ridge, effective = damping.ridge, float(len(theta))
    if not fixed_ridge and gain < _SETTLED * before:
        ridge, effective = _evidence_ridge(equations, theta, weights, damping.ridge, loss, scale)
    return PolishStep(trial, Damping(mu / _LOWER, ridge), equations.loss, loss, gain, effective)


def _penalised(spec: NetworkSpec) -> Floats:
    """w of eq. (1): zero for the constants by species, one elsewhere."""
    weights = np.ones(spec.n_parameters)
    if spec.constants in spec.slices:
        weights[spec.slices[spec.constants]] = 0.0
    return weights


def _moved(potential: ModelT, moving: slice, step: Floats) -> ModelT:
    parameters = potential.parameters.copy()
    parameters[moving] += step
    moved: ModelT = potential.with_parameters(parameters)
    return moved


def _straight_step(gram: Floats, damping: Floats, rhs: Floats) -> Floats | None:
    """The step of eq. (1); None where it is not defined."""
    factor = _factored(gram, damping)
    return None if factor is None else np.asarray(scipy.linalg.cho_solve(factor, rhs, check_finite=False))


def _curved_step(
    problem: LeastSquares[ModelT],
    potential: ModelT,
    moving: slice,
    coordinates: Coordinates,
    rows: list[Floats],
    gram: Floats,
    damping: Floats,
    metric: Floats,
    rhs: Floats,
) -> Floats | None:
    """The step of eqs. (1) and (3); None where it is not defined or bends too much."""
    factor = _factored(gram, damping)
    if factor is None:
        return None
    straight = np.asarray(scipy.linalg.cho_solve(factor, rhs, check_finite=False))
    probe = _PROBE * coordinates.parameters(straight)
    forward = problem.residuals(_moved(potential, moving, probe))
    backward = problem.residuals(_moved(potential, moving, -probe))
    # rows hold reference - prediction, so that these are -p''
    curvature = [(f - 2.0 * r + b) / _PROBE**2 for f, r, b in zip(forward, rows, backward, strict=True)]
    projected = coordinates.gradient(problem.project(potential, curvature)[moving])
    bend = np.asarray(scipy.linalg.cho_solve(factor, projected, check_finite=False))
    if not np.isfinite(bend).all() or bend @ (metric * bend) > straight @ (metric * straight):
        return None
    return straight + 0.5 * bend


def _factored(gram: Floats, diagonal: Floats) -> tuple[Floats, bool] | None:
    """Cholesky factor of gram + diagonal; None if that is not positive definite."""
    if not np.isfinite(gram).all():
        raise ConvergenceError("the normal equations hold NaN or infinity: the potential has diverged")
    matrix = gram.copy()
    matrix[np.diag_indices_from(matrix)] += diagonal
    try:
        factor, lower = scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return factor, lower


def _evidence_ridge(
    equations: NormalEquations, theta: Floats, weights: Floats, ridge: float, loss: float, scale: float
) -> tuple[float, float]:
    """Eq. (4), one fixed-point iteration; also returns gamma."""
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
    return rounded(lam), gamma


def lbfgs_steps(
    problem: LeastSquares[ModelT],
    potential: ModelT,
    *,
    ridge: float,
    steps: int,
    lower_nn: Floats | None = None,
) -> tuple[ModelT, float]:
    """Some L-BFGS iterations on the penalised loss: memory linear in the number of parameters.

    Parameters
    ----------
    problem : Problem or TensorProblem
    potential : Potential or TensorModel
    ridge : float
        lambda, on all parameters but the reference energies.
    steps : int
        Iterations.
    lower_nn : float64 [n, n], optional
        As for `polish_step`.

    Returns
    -------
    Potential
    float
        The loss without penalty.
    """
    import scipy.optimize

    weights = ridge * _penalised(potential.spec)
    coordinates = Coordinates(potential.spec, slice(0, potential.n_parameters), lower_nn)

    def objective(theta: Floats) -> tuple[float, Floats]:
        loss, gradient = problem.gradient(potential.with_parameters(coordinates.parameters(theta)))
        return loss + float(weights @ theta**2), coordinates.gradient(gradient) + 2.0 * weights * theta

    result = scipy.optimize.minimize(
        objective, coordinates.of(potential.parameters), jac=True, method="L-BFGS-B",
        options={"maxiter": steps, "maxcor": 20},
    )  # fmt: skip
    better: ModelT = potential.with_parameters(coordinates.parameters(result.x))
    return better, float(result.fun) - float(weights @ result.x**2)
