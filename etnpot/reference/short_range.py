"""The short range, pair by pair: equations (1) to (4) of `etnpot.basis.repulsion` and their derivatives.

    E_i = f(x_i(q)) + u_i,    u_i = 1/2 sum_p s(r_p) V(r_p),    q_p = h(r_p) r_p/r_p

The polynomials S and I are those of numpy, and x_i is whatever function of the held vectors q is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from etnpot.reference.assemble import centers

__all__ = ["close_pairs", "evaluate", "nuclear_repulsion"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Learned = Callable[[Floats], tuple[Floats, Floats]]

_STEP = Polynomial([0.0, 0.0, 0.0, 0.0, 35.0, -84.0, 70.0, -20.0])
_STEP_SLOPE = _STEP.deriv()
_REST = (1.0 - _STEP).integ()


def close_pairs(
    first: Integers, r_pc: Floats, type_i: Integers, type_p: Integers, outer_zz: Floats, found: Integers
) -> int:
    """Number of pairs closer than b[z_i, z_j]; the first of them are written to `found`."""
    close = np.flatnonzero(np.linalg.norm(r_pc, axis=1) < outer_zz[type_i[centers(first)], type_p])
    found[: len(close)] = close[: len(found)]
    return len(close)


def nuclear_repulsion(r: float, z_i: int, z_j: int) -> float:
    """V of Ziegler, Biersack and Littmark, eV, at r in Å."""
    x = r * (z_i**0.23 + z_j**0.23) / 0.46850
    phi = (
        0.18175 * math.exp(-3.19980 * x)
        + 0.50986 * math.exp(-0.94229 * x)
        + 0.28022 * math.exp(-0.40290 * x)
        + 0.02817 * math.exp(-0.20162 * x)
    )
    return 14.399645 * z_i * z_j / r * phi


def evaluate(
    first: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    charges: Sequence[int],
    inner_zz: Floats,
    outer_zz: Floats,
    bounds: tuple[float, float],
    bound_width: float,
    learned: Learned,
) -> tuple[Floats, Floats]:
    """Energies of all atoms without reference energies, eV, and their derivatives by the pair vectors, eV/Å.

    Parameters
    ----------
    first, r_pc, type_i, type_p
        As for `etnpot.reference.evaluate.evaluate`.
    charges : sequence of int
        Atomic numbers of the types.
    inner_zz, outer_zz : float64 [z_i, z_j], Å
    bounds : (float, float), eV
        x_low and x_high.
    bound_width : float, eV
        D.
    learned : callable
        x_i and dx_i/dq_p of held vectors q_pc.
    """
    n_atoms, center = len(first) - 1, centers(first)
    q_pc, u_i, du_pc = r_pc.copy(), np.zeros(n_atoms), np.zeros_like(r_pc)
    dq_pcc = np.tile(np.eye(3), (len(r_pc), 1, 1))
    for p, i in enumerate(center):
        r, unit = float(np.linalg.norm(r_pc[p])), r_pc[p] / np.linalg.norm(r_pc[p])
        z_i, z_j = type_i[i], type_p[p]
        width = outer_zz[z_i, z_j] - inner_zz[z_i, z_j]
        t = (outer_zz[z_i, z_j] - r) / width
        if t <= 0:
            continue
        t = min(t, 1.0)
        s, ds = _STEP(t), -_STEP_SLOPE(t) / width
        held = outer_zz[z_i, z_j] - width * _REST(t)
        v = nuclear_repulsion(r, charges[z_i], charges[z_j])
        step = 1e-6 * r
        up, down = (nuclear_repulsion(r + d, charges[z_i], charges[z_j]) for d in (step, -step))
        u_i[i] += 0.5 * s * v
        du_pc[p] = 0.5 * (ds * v + s * (up - down) / (2 * step)) * unit
        q_pc[p] = held * unit
        along = np.outer(unit, unit)
        dq_pcc[p] = (1.0 - s) * along + held / r * (np.eye(3) - along)
    x_i, g_pc = learned(q_pc)
    f_i, df_i = x_i.copy(), np.ones(n_atoms)
    for i, x in enumerate(x_i):
        t = max(bounds[0] - x, x - bounds[1]) / bound_width
        if t > 0:
            beyond = bound_width * _REST(min(t, 1.0))
            f_i[i] = bounds[0] - beyond if x < bounds[0] else bounds[1] + beyond
            df_i[i] = 1.0 - _STEP(min(t, 1.0))
    dE_dr_pc = df_i[center, None] * np.einsum("pcd,pd->pc", dq_pcc, g_pc) + du_pc
    return f_i + u_i, dE_dr_pc
