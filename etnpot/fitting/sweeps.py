"""Local solves: the loss is quadratic in each core, and so is the penalty when the centre of the train is there.

    minimise over A_k   loss + lambda sum (2 l3 + 1) A_k^2,

the second term being lambda times the squared Frobenius norm of the whole tensor. `one_site` solves for one core;
`two_site` first multiplies two neighbouring cores into one, solves for it, and splits it by SVD with the ranks of each irrep
that a tolerance and a limit leave: ranks follow the data. With `enrichment` a one-site step widens the bond by a few random
orthogonal directions before the solve and lets the SVD keep what was of use, at a fraction of the cost of two sites.

With a fixed lambda every solve lowers the regularised loss (a truncation may raise it by what it cuts). The ridge found by
maximising the evidence changes from solve to solve, and so does the penalised loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from etnpot.errors import SpecificationError
from etnpot.fitting.least_squares import LeastSquares, ModelT
from etnpot.fitting.ridge import RidgeSolution, solve_ridge, solve_ridge_triangular
from etnpot.network import Bond, CoreLayout, Train
from etnpot.network.algebra import enrich
from etnpot.network.canonical import canonicalize, center_weights
from etnpot.network.two_site import full_bond, merge_cores, split_cores
from etnpot.network.unfold import fold_right, unfold_right

__all__ = ["LocalSolve", "one_site", "sweep_order", "two_site"]


@dataclass(frozen=True, eq=False)
class LocalSolve(Generic[ModelT]):
    """Outcome of a local solve.

    Attributes
    ----------
    potential : Potential or TensorModel
        With the new core(s); canonical with its centre on core `core`.
    core : int
        0-based.
    loss_before, loss : float
        The loss without penalty, before the solve and as the quadratic model has it after (before any truncation).
    solution : RidgeSolution
    truncation : float
        Relative Frobenius norm cut off by the SVD.
    """

    potential: ModelT
    core: int
    loss_before: float
    loss: float
    solution: RidgeSolution
    truncation: float = 0.0


def sweep_order(order: int, *, forward: bool) -> list[int]:
    """Cores of one half-sweep: left to right, or right to left."""
    return list(range(order)) if forward else list(range(order - 1, -1, -1))


def one_site(
    problem: LeastSquares[ModelT],
    potential: ModelT,
    core: int,
    *,
    ridge: float | None = None,
    enrichment: int = 0,
    tolerance: float = 1e-3,
    max_rank: int | None = None,
    rng: np.random.Generator | None = None,
) -> LocalSolve[ModelT]:
    """Solve for one core with all else fixed.

    Parameters
    ----------
    problem : Problem or TensorProblem
    potential : Potential or TensorModel
    core : int
        0-based.
    ridge : float, optional
        lambda; from the evidence by default.
    enrichment : int
        Random directions added to each irrep of the bond to the left of the core before the solve.
    tolerance : float
        Relative Frobenius error of the SVD after an enriched solve.
    max_rank : int, optional
        Largest rank per irrep after an enriched solve; default: the ranks before it.
    rng : numpy.random.Generator, optional
        Needed with `enrichment`.

    Returns
    -------
    LocalSolve
    """
    train = canonicalize(potential.train, core)
    limits: dict[str, int] | int | None = max_rank
    if enrichment > 0 and core > 0:
        if rng is None:
            raise SpecificationError("rng: an enriched solve draws random directions, give a numpy Generator")
        if max_rank is None:
            limits = {str(irrep): rank for irrep, rank in train.layout.bonds[core]}
        train = _widened(train, core, enrichment, rng)
    potential = potential.with_train(train)
    solved = _solve(problem, potential, core, ridge)
    if enrichment > 0 and core > 0:
        cut, truncation = split_cores(
            solved.potential.train, core, tolerance=tolerance, max_ranks=limits, center="right"
        )
        return LocalSolve(
            solved.potential.with_train(cut), core, solved.loss_before, solved.loss, solved.solution,
            truncation.relative_error,
        )  # fmt: skip
    return solved


def two_site(
    problem: LeastSquares[ModelT],
    potential: ModelT,
    bond: int,
    *,
    ridge: float | None = None,
    tolerance: float = 1e-3,
    max_ranks: int | dict[str, int] | None = None,
    center: str = "right",
) -> LocalSolve[ModelT]:
    """Solve for the two tensors that meet at a bond, and choose its ranks.

    Parameters
    ----------
    problem : Problem or TensorProblem
    potential : Potential or TensorModel
    bond : int
        1 .. order-1 (between cores bond-1 and bond, 0-based), or 0 for the head and core 0.
    ridge : float, optional
        lambda; from the evidence by default.
    tolerance : float
        Relative Frobenius error of the split.
    max_ranks : int or mapping, optional
        Largest rank of each irrep.
    center : {"right", "left"}
        Where the centre goes.

    Returns
    -------
    LocalSolve
    """
    merged = merge_cores(canonicalize(potential.train, bond), bond)
    solved = _solve(problem, potential.with_train(merged), bond, ridge)
    train, truncation = split_cores(
        solved.potential.train, bond, tolerance=tolerance, max_ranks=max_ranks,
        center="left" if center == "left" else "right",
    )  # fmt: skip
    where = bond if center == "right" else max(bond - 1, 0)
    return LocalSolve(
        solved.potential.with_train(train), where, solved.loss_before, solved.loss, solved.solution,
        truncation.relative_error,
    )  # fmt: skip


def _solve(
    problem: LeastSquares[ModelT], potential: ModelT, core: int, ridge: float | None
) -> LocalSolve[ModelT]:
    """The linear problem of one core at the centre of a canonical train."""
    equations = problem.normal_equations(potential, (f"core.{core + 1}",))
    old = potential.train.cores[core]
    # the equations are for a step; y = r + J A makes them those of the core itself
    gram_old = equations.gram @ old
    rhs = equations.rhs + gram_old
    square = equations.loss + 2.0 * float(equations.rhs @ old) + float(old @ gram_old)
    weights = center_weights(potential.train.layout.cores[core])
    solution = solve_ridge(equations.gram, rhs, square, equations.n_rows, weights=weights, ridge=ridge)
    if not solution.resolved:
        factor = problem.triangular_factor(potential, (f"core.{core + 1}",))
        known = factor[:, -1] + factor[:, :-1] @ old
        solution = solve_ridge_triangular(
            factor[:, :-1], known, equations.n_rows, weights=weights, ridge=ridge
        )
    new = potential.with_train(potential.train.with_core(core, solution.x))
    return LocalSolve(new, core, equations.loss, solution.loss, solution)


def _widened(train: Train, bond: int, extra: int, rng: np.random.Generator) -> Train:
    """Append random left-orthogonal directions to the core left of a bond; the function does not change."""
    room = full_bond(train.layout, bond)
    now = train.layout.bonds[bond]
    added = Bond.of({irrep: min(extra, room.rank(irrep) - now.rank(irrep)) for irrep, _ in room})
    if not added.ranks:
        return train
    layout = train.layout.cores[bond - 1]
    part = CoreLayout(layout.left, layout.feature, added)
    known = unfold_right(layout, train.cores[bond - 1])
    columns = {}
    for irrep, random in unfold_right(part, rng.normal(size=part.size)).items():
        if irrep in known:
            random = random - known[irrep] @ (known[irrep].T @ random)
        columns[irrep] = np.linalg.qr(random)[0]
    return enrich(train, bond, fold_right(part, columns), added, side="left")
