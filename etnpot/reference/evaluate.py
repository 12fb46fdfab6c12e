"""Features, bonds, energies and pair derivatives, from every pair's own share of the features.

    R_lc(r)      = sum_n T[z_i, z_j, n, lc] phi_n(r)                                               (1)
    v[l, m, c]   = sum_p v_p[l, m, c],   v_p = R_lc(r_p) Y_lm(r_p/|r_p|),   v[0, 0, constant] = 1   (2)
    dv_p/dr_p    = R'_lc Y_lm r_p/|r_p| + R_lc dY_lm/dr_p                                           (3)
    dE/dr_p      = sum_f dE/dv_f dv_p,f/dr_p                                                        (4)

============  ==========================================================================================
symbol        here
============  ==========================================================================================
T             ``radial_table`` [z_i, z_j, n, lc], with N^(-1/2) folded in; lc = channels of l = 0, 1, ...
phi_n, Y_lm   ``phi_pn``, ``y_pm`` with derivatives ``dphi_pn`` (1/Å), ``dy_pmc`` (1/Å)
v_p           ``v_pf`` [p, f], ``dv_pfc`` [p, f, c] (1/Å)
============  ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.basis import spherical_harmonics
from etnpot.reference.assemble import centers
from etnpot.reference.basis import radial_basis
from etnpot.reference.train import adjoint, forward

if TYPE_CHECKING:
    from etnpot.potential.tables import BasisTables, TrainTables

__all__ = [
    "bonds",
    "evaluate",
    "feature_slices",
    "features",
    "features_adjoint",
    "pair_basis",
    "pair_features",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def feature_slices(basis: BasisTables, l: int) -> list[slice]:  # noqa: E741
    """Where the channels of (l, m) lie in the features, for m = -l..l; the constant is not among them."""
    first, rank = int(basis.feature_first[l]), int(basis.feature_rank[l])
    n_channels = int(basis.channel_first[l + 1] - basis.channel_first[l])
    return [slice(first + m * rank, first + m * rank + n_channels) for m in range(2 * l + 1)]


def pair_basis(r_pc: Floats, basis: BasisTables) -> tuple[Floats, Floats, Floats, Floats]:
    """phi_n and Y_lm of every pair with their derivatives by the pair vector.

    Returns
    -------
    phi_pn : float64 [p, n]
    dphi_pnc : float64 [p, n, c], 1/Å
    y_pm : float64 [p, lm]
    dy_pmc : float64 [p, lm, c], 1/Å
    """
    r_p = np.linalg.norm(r_pc, axis=1)
    phi_pn, slope_pn = radial_basis(basis.codes, basis.constants, basis.recurrence).evaluate(r_p)
    l_max = len(basis.feature_first) - 1
    y_pm, dy_pmc = spherical_harmonics(r_pc, l_max)
    return (
        phi_pn,
        np.einsum("pn,pc->pnc", slope_pn, r_pc / r_p[:, None]),
        y_pm,
        dy_pmc,
    )


def pair_features(
    r_pc: Floats, center_type_p: Integers, type_p: Integers, basis: BasisTables, radial_table: Floats
) -> tuple[Floats, Floats]:
    """Eqs. (1) to (3): every pair's share of its centre's features, and the derivative by the pair vector.

    Parameters
    ----------
    r_pc : float64 [p, c], Å
    center_type_p, type_p : int64 [p]
        Types of centre and neighbour.
    basis : BasisTables
    radial_table : float64 [z_i, z_j, n, lc]

    Returns
    -------
    v_pf : float64 [p, f]
    dv_pfc : float64 [p, f, c], 1/Å
    """
    phi_pn, dphi_pnc, y_pm, dy_pmc = pair_basis(r_pc, basis)
    table_pnl = radial_table[center_type_p, type_p]
    radial_pl = np.einsum("pnl,pn->pl", table_pnl, phi_pn)
    dradial_plc = np.einsum("pnl,pnc->plc", table_pnl, dphi_pnc)
    n_features = feature_slices(basis, len(basis.feature_first) - 1)[-1].stop
    v_pf = np.zeros((len(r_pc), n_features))
    dv_pfc = np.zeros((len(r_pc), n_features, 3))
    for l in range(len(basis.feature_first)):  # noqa: E741
        channels = slice(basis.channel_first[l], basis.channel_first[l + 1])
        for m, place in enumerate(feature_slices(basis, l)):
            y = l * l + m
            v_pf[:, place] = radial_pl[:, channels] * y_pm[:, y, None]
            dv_pfc[:, place] = dradial_plc[:, channels] * y_pm[:, y, None, None]
            dv_pfc[:, place] += radial_pl[:, channels, None] * dy_pmc[:, y, None, :]
    return v_pf, dv_pfc


def features(
    first: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    start: int,
    stop: int,
    v_if: Floats,
) -> None:
    """Features of atoms ``start:stop``, eq. (2); arguments as for `evaluate`, `v_if` [i, f] is written."""
    center = centers(first)
    v_pf, _ = pair_features(r_pc, type_i[center], type_p, basis, radial_table)
    for i in range(start, stop):
        v_if[i] = v_pf[first[i] : first[i + 1]].sum(axis=0)
        v_if[i, 0] = 1.0


def features_adjoint(
    first: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    g_if: Floats,
    start: int,
    stop: int,
    dE_dr_pc: Floats,
) -> None:
    """Eq. (4) for atoms ``start:stop`` from `g_if` [i, f], dE/dv; other arguments as for `evaluate`."""
    pairs, center = slice(first[start], first[stop]), centers(first)
    _, dv_pfc = pair_features(r_pc, type_i[center], type_p, basis, radial_table)
    dE_dr_pc[pairs] = np.einsum("pf,pfc->pc", g_if[center[pairs]], dv_pfc[pairs])


def bonds(v_if: Floats, type_i: Integers, train: TrainTables, weights: Floats, x_ia: Floats) -> None:
    """Every bond vector of every atom from its features: `x_ia` [i, a] is written, bonds stacked."""
    forward(train, weights, type_i[: len(v_if)], v_if.T, None, x_ia.T)


def evaluate(
    first: Integers,
    r_pc: Floats,
    type_i: Integers,
    type_p: Integers,
    basis: BasisTables,
    radial_table: Floats,
    train: TrainTables,
    weights: Floats,
    start: int,
    stop: int,
    energy_i: Floats,
    dE_dr_pc: Floats,
) -> None:
    """Energies of atoms ``start:stop`` and their derivatives by the pair vectors that leave them.

    Parameters
    ----------
    first : int64 [i + 1]
        Pairs of atom i are ``first[i]:first[i + 1]``.
    r_pc : float64 [p, c], Å
        Pair vectors, none of length zero.
    type_i, type_p : int64
        Types of the atoms and of the neighbours.
    basis : BasisTables
    radial_table : float64 [z_i, z_j, n, lc]
    train : TrainTables
    weights : float64 [q]
        Head and cores.
    start, stop : int
        Range of atoms.
    energy_i : float64 [i], eV
        Written for the range: the energy without the reference energy.
    dE_dr_pc : float64 [p, c], eV/Å
        Written for the pairs of the range.
    """
    v_if = np.empty((len(first) - 1, train.n_features))
    features(first, r_pc, type_i, type_p, basis, radial_table, start, stop, v_if)
    v_fb = v_if[start:stop].T
    x_ab = np.empty((train.n_bond_rows, stop - start))
    y_ab, g_fb = np.empty_like(x_ab), np.empty_like(v_fb)
    forward(train, weights, type_i[start:stop], v_fb, None, x_ab)
    adjoint(train, weights, v_fb, x_ab, None, y_ab, g_fb)
    energy_i[start:stop] = x_ab[train.bond_first[-2]]
    g_if = np.zeros_like(v_if)
    g_if[start:stop] = g_fb.T
    features_adjoint(first, r_pc, type_i, type_p, basis, radial_table, g_if, start, stop, dE_dr_pc)
