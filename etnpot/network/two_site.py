"""Two cores at once: merged for a two-site sweep, split again by SVD with the rank that the tensor asks for.

    Theta_{l p}[(l1 a1 l2 a2), (l2' a2' l3 a3)] = sum_b A^{l1 l2 l}[a1, a2, b] A^{l l2' l3}[b, a2', a3]  (1)

With the centre on the pair, the squared Frobenius norm of the full tensor is sum (2 l3 + 1) Theta^2 over all
entries, because the coupling schemes of different (l, p) are orthogonal; the matrices

    M_{l p} = Theta_{l p} sqrt((2 l3 + 1) / (2 l + 1)) = U diag(s) V                                     (2)

have the singular values of the full tensor unfolded at the bond, each 2l+1 times (`etnpot.network.rounding`).
Cutting these is therefore the best truncation of the full tensor at this bond.

=========================== ============================================================================
symbol                      here
=========================== ============================================================================
(l, p), b                   irrep and index on the bond between the two
(l1 a1 l2 a2)               row: index of that irrep on the bond of `full_bond`, in the order of the paths
Theta                       core `bond` of the train that `merge_cores` returns
(2)                         `split_cores`
=========================== ============================================================================
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np

from etnpot.errors import SpecificationError
from etnpot.network.canonical import center_norm
from etnpot.network.layout import SCALAR, Bond, CoreLayout, TrainLayout
from etnpot.network.train import Train, flatten_blocks
from etnpot.network.truncation import (
    RankLimit,
    RankLimits,
    Truncation,
    check_tolerance,
    svd_per_irrep,
    truncate,
)
from etnpot.network.unfold import (
    absorb_into_left,
    absorb_left,
    fold_left,
    fold_left_matrices,
    left_matrices,
    unfold_left,
)
from etnpot.so3 import Irrep

__all__ = ["full_bond", "merge_cores", "split_cores"]


def full_bond(layout: TrainLayout, bond: int, irreps: Collection[Irrep] | None = None) -> Bond:
    """The bond that holds everything the tensor to its left can send through it.

    Parameters
    ----------
    layout : TrainLayout
    bond : int
        0..d-1.
    irreps : collection of Irrep, optional
        Which irreps it may carry besides those that it carries now. Those that are out of reach from the
        left, or that no path takes to the right, are left out.

    Returns
    -------
    Bond
        With rank sum_{l1 l2} r[l1] n[l2] for each irrep; on bond 0 the number of species.
    """
    layout.check_inner_bond(bond)
    wanted = {*layout.bonds[bond].irreps, *(irreps or ())}
    core = layout.cores[bond]
    onward = {
        irrep
        for irrep in wanted
        if any(right in core.right for feature in core.feature.irreps for right in irrep * feature)
    }
    if bond == 0:
        room = {SCALAR: layout.n_species}
    else:
        room = dict.fromkeys(onward, 0)
        before = layout.cores[bond - 1]
        for left, rank in before.left:
            for feature, channels in before.feature:
                for irrep in left * feature:
                    if irrep in room:
                        room[irrep] += rank * channels
    full = Bond.of({irrep: rank for irrep, rank in room.items() if irrep in onward})
    if not full.ranks:
        raise SpecificationError(
            f"bond {bond}: expected an irrep that both sides can reach, got "
            f"{', '.join(map(str, sorted(wanted)))}; allow more irreps"
        )
    return full


def merge_cores(train: Train, bond: int, irreps: Collection[Irrep] | None = None) -> Train:
    """Multiply the two tensors that meet at a bond, as a train whose bond is wide enough for any product.

    The tensor to the left becomes the identity from (l1 a1 l2 a2) to the bond of `full_bond` (for bond 0,
    from the species), which is left-orthogonal; core `bond` becomes Theta (eq. 1), its left index being the
    row. So the local problem of a two-site sweep is that of core `bond` in the train returned: linear in
    Theta, and if the centre was on either of the two tensors, `center_weights` of that core, 2 l3 + 1, make
    its norm that of the full tensor. Theta has rows times columns entries for each irrep of the bond, which
    is the cost of a two-site sweep.

    Parameters
    ----------
    train : Train
    bond : int
        0..d-1. Merges the head and core 0 (bond 0), or cores bond - 1 and `bond`.
    irreps : collection of Irrep, optional
        Which irreps the bond may carry besides those it carries now, so that a sweep can find them; their
        part of Theta is zero at first.

    Returns
    -------
    Train
        The same full tensor. `split_cores` lowers the rank of the bond again.
    """
    full = full_bond(train.layout, bond, irreps)
    layout = train.layout.cores[bond]
    identity = {irrep: np.eye(rank) for irrep, rank in full}
    left = fold_left_matrices(train, bond, full, identity)
    gauge = {irrep: matrix for irrep, matrix in left_matrices(train, bond).items() if irrep in full}
    product_bond, product = absorb_left(layout, train.cores[bond], gauge)
    product_layout = CoreLayout(product_bond, layout.feature, layout.right)
    theta = flatten_blocks(
        CoreLayout(full, layout.feature, layout.right),
        {path: product[product_layout.slice(path)] for path in product_layout.paths},
    )
    return train.with_bond(bond, full, left, theta)


def split_cores(
    train: Train,
    bond: int,
    *,
    tolerance: float = 0.0,
    max_ranks: RankLimit | None = None,
    max_total: int | None = None,
    center: Literal["left", "right"] = "right",
) -> tuple[Train, Truncation]:
    """Split a merged pair by SVD: the best truncation of the full tensor at this bond.

    The SVD is that of the left unfolding of core `bond`, whose weights sqrt((2 l3 + 1) / (2 l + 1)) make
    its singular values those of the full tensor, provided that the train is canonical with its centre on
    core `bond`: so it is after `merge_cores` if the centre was on one of the two tensors. This is not
    checked.

    Parameters
    ----------
    train : Train
        From `merge_cores`, possibly with new numbers in core `bond`.
    bond : int
        0..d-1.
    tolerance : float
        Frobenius error relative to the norm of the full tensor, 0 <= tolerance < 1.
    max_ranks : int, mapping of irrep (or its name) to int, or None
        Most multiplets per irrep.
    max_total : int, optional
        Most multiplets, all irreps together.
    center : {"right", "left"}
        Where the centre goes: on core `bond` (the tensor to its left becomes left-orthogonal), or on the
        tensor to the left (core `bond` becomes right-orthogonal).

    Returns
    -------
    Train
        With the ranks that were kept.
    Truncation
        Singular values and the true Frobenius error.
    """
    train.layout.check_inner_bond(bond)
    check_tolerance(tolerance)
    if center not in ("left", "right"):
        raise SpecificationError(f"center: expected 'left' or 'right', got {center!r}")
    layout = train.layout.cores[bond]
    factors = svd_per_irrep(unfold_left(layout, train.cores[bond]), f"bond {bond}")
    norm = center_norm(train, bond)
    truncation = truncate(factors, (tolerance * norm) ** 2, norm, RankLimits.of(max_ranks, max_total))
    gauge, rows = {}, {}
    for irrep, rank in truncation.kept:
        u, s, vt = factors[irrep]
        gauge[irrep], rows[irrep] = u[:, :rank], vt[:rank]
        if center == "left":
            gauge[irrep] = gauge[irrep] * s[:rank]
        else:
            rows[irrep] = s[:rank, None] * rows[irrep]
    new_bond, left = absorb_into_left(train, bond, gauge)
    right = fold_left(CoreLayout(new_bond, layout.feature, layout.right), rows)
    return train.with_bond(bond, new_bond, left, right), truncation
