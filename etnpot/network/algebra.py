"""Trains as a vector space, and growth without a change of the function.

    (T + T')[z, f.., o]    A_0 = (A_0 A_0'),  A_k = diag(A_k, A_k'),  A_d = (A_d over A_d')            (1)

    <T, T'> = sum T[z, f.., o] T'[z, f.., o] = sum_{l p} (2l+1) tr G_d^{l p}                           (2)
    G_k^{l3}[a3, a3'] = sum over (l1 l2 a1 a1' a2) of A_k[a1, a2, a3] G_{k-1}^{l1}[a1, a1'] A_k'[a1', a2, a3']
    G_0[a, a'] = sum_z A_0[z, a] A_0'[z, a']

    gauge on a bond        A_k -> A_k X,  A_{k+1} -> X^{-1} A_{k+1}  per irrep                         (3)
    a new core             A^{l 0 l}[a, constant, a'] = delta(a, a')  on any bond                      (4)
    more rank on a bond    A_k -> (A_k P),  A_{k+1} -> (A_{k+1} over 0)                                (5)

(4) is exact because C^{l m'}_{l m, 0 0} = delta(m, m') and the constant channel is one. The new columns P of
(5) never reach the output, so the function is as before; but the derivative with respect to the zero rows
below A_{k+1} is alive, which is what the next local solve needs. With zeros on both sides it would be dead.

=========================== ============================================================================
symbol                      here
=========================== ============================================================================
(1), (2)                    `add`, `scale`, `balanced`; `inner`
X of (3)                    `gauge_transform`
(4)                         `grow_order`
P of (5)                    `enrich` (given), `grow_ranks` (random)
more channels a2            `grow_features`
rows z of the head          `relabel_species`, `extend_species`
=========================== ============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.network.layout import SCALAR, Bond, CoreLayout, Path, TrainLayout
from etnpot.network.train import Train, core_block, random_core
from etnpot.network.unfold import absorb_into_left, absorb_left
from etnpot.so3 import Irrep

__all__ = [
    "add",
    "balanced",
    "enrich",
    "extend_species",
    "gauge_transform",
    "grow_features",
    "grow_order",
    "grow_ranks",
    "inner",
    "relabel_species",
    "scale",
]

Array = NDArray[np.float64]


# --- the vector space -----------------------------------------------------------------------------


def add(first: Train, second: Train) -> Train:
    """The sum of two trains of the same species, features, order and output: direct sums of bonds (eq. 1).

    The ranks add up; `etnpot.network.rounding.round_train` lowers them to what the sum needs.
    """
    _check_same_space(first.layout, second.layout)
    a, b = first.layout, second.layout
    bonds = (*(left + right for left, right in zip(a.bonds[:-1], b.bonds[:-1], strict=True)), a.bonds[-1])
    layout = TrainLayout(a.n_species, a.feature, bonds)
    cores = []
    for k, core in enumerate(layout.cores):
        new = np.zeros(core.size)
        _place(core, new, a.cores[k], first.cores[k])
        ends_here = k == layout.order - 1
        _place(
            core,
            new,
            b.cores[k],
            second.cores[k],
            left=a.bonds[k],
            right=None if ends_here else a.bonds[k + 1],
        )
        cores.append(new)
    return Train(layout, np.hstack([first.head, second.head]), tuple(cores))


def scale(train: Train, factor: float, k: int | Literal["head"] | None = None) -> Train:
    """The train times a number, put on core k or the head (default: the last core)."""
    if k == "head":
        return Train(train.layout, factor * train.head, train.cores)
    core = train.layout.order - 1 if k is None else k
    return train.with_core(core, factor * train.cores[core])


def balanced(train: Train) -> Train:
    """The same tensor with its norm spread evenly over head and cores: each has the same mean square per copy on its right."""
    tensors = [train.head, *train.cores]
    copies = [len(train.head), *(sum(rank for _, rank in core.right) for core in train.layout.cores)]
    sizes = [float(np.linalg.norm(t)) / np.sqrt(n) for t, n in zip(tensors, copies, strict=True)]
    if min(sizes) <= 0:
        return train
    mean = float(np.exp(np.mean(np.log(sizes))))
    head, *cores = (t * (mean / size) for t, size in zip(tensors, sizes, strict=True))
    return Train(train.layout, head, tuple(cores))


def inner(first: Train, second: Train) -> float:
    """The Frobenius inner product of the full tensors, sum T[z, f.., o] T'[z, f.., o] (eq. 2).

    Costs one pass over the cores. The norm of a difference loses half of the digits this way:
    `etnpot.network.canonical.frobenius_norm` of `add` does not.
    """
    _check_same_space(first.layout, second.layout)
    gram = {SCALAR: first.head.T @ second.head}
    for k, (a, b) in enumerate(zip(first.layout.cores, second.layout.cores, strict=True)):
        new = {irrep: np.zeros((rank, b.right.rank(irrep))) for irrep, rank in a.right if irrep in b.right}
        for path in a.paths:
            if path.left in gram and path.right in new:
                left = np.tensordot(gram[path.left], core_block(b, second.cores[k], path), 1)
                new[path.right] += np.tensordot(core_block(a, first.cores[k], path), left, ((0, 1), (0, 1)))
        gram = new
    return float(sum(irrep.dim * np.trace(matrix) for irrep, matrix in gram.items()))


def gauge_transform(train: Train, bond: int, matrices: Mapping[Irrep, Array]) -> Train:
    """Insert X X^{-1} on a bond (eq. 3): another train with the same function.

    Parameters
    ----------
    train : Train
    bond : int
        0..d-1.
    matrices : mapping of Irrep to float64 array [rank, rank]
        Invertible; irreps that are absent stay as they are.
    """
    train.layout.check_inner_bond(bond)
    here = train.layout.bonds[bond]
    if unknown := [str(irrep) for irrep in matrices if irrep not in here]:
        raise SpecificationError(f"gauge: bond {bond} carries {here}, got also {', '.join(unknown)}")
    gauge = {irrep: np.asarray(matrices.get(irrep, np.eye(rank)), dtype=np.float64) for irrep, rank in here}
    inverse: dict[Irrep, Array] = {}
    for irrep, rank in here:
        if gauge[irrep].shape != (rank, rank):
            raise SpecificationError(
                f"gauge of {irrep} on bond {bond}: expected shape {(rank, rank)}, got {gauge[irrep].shape}"
            )
        try:
            inverse[irrep] = np.asarray(np.linalg.inv(gauge[irrep]), dtype=np.float64)
        except np.linalg.LinAlgError:
            raise SpecificationError(
                f"gauge of {irrep} on bond {bond}: expected an invertible matrix, got a singular one"
            ) from None
    _, left = absorb_into_left(train, bond, gauge)
    _, right = absorb_left(train.layout.cores[bond], train.cores[bond], inverse)
    return train.with_bond(bond, here, left, right)


# --- growth: the function does not change ---------------------------------------------------------


def enrich(
    train: Train,
    bond: int,
    directions: Array | Mapping[Path, Array],
    extra: Bond,
    *,
    side: Literal["left", "right"] = "left",
) -> Train:
    """Append given directions to the tensor on one side of a bond, and zeros on the other (eq. 5).

    Parameters
    ----------
    train : Train
    bond : int
        0..d-1.
    directions : float64 array or mapping of Path to float64 array
        Numbers of the extra part of the tensor on `side`: for the head an array [species, a]; for a core an
        array [q] in the order of a `CoreLayout` whose bond on this side is `extra`, or its blocks (absent
        ones are zero).
    extra : Bond
        The multiplets to append to the bond.
    side : {"left", "right"}
        Which tensor receives the directions: the head or core bond - 1, or core `bond`. The other receives
        zeros.

    Returns
    -------
    Train
        The same function on a bond that is the direct sum of the old one and `extra`.
    """
    train.layout.check_inner_bond(bond)
    if side not in ("left", "right"):
        raise SpecificationError(f"side: expected 'left' or 'right', got {side!r}")
    layout, old = train.layout, train.layout.bonds[bond]
    grown = layout.with_bond(bond, old + extra)
    core = layout.cores[bond]
    right = np.zeros(grown.cores[bond].size)
    _place(grown.cores[bond], right, core, train.cores[bond])
    if side == "right":
        part = CoreLayout(extra, core.feature, core.right)
        _place(grown.cores[bond], right, part, _flat(part, directions), left=old)
    if bond == 0:
        extra_head = np.zeros((layout.n_species, extra.rank(SCALAR)))
        if side == "left":
            if isinstance(directions, Mapping) or np.shape(directions) != extra_head.shape:
                raise SpecificationError(
                    f"directions for the head: expected an array of shape {extra_head.shape}, got "
                    f"{'blocks' if isinstance(directions, Mapping) else np.shape(directions)}"
                )
            extra_head = np.asarray(directions, dtype=np.float64)
        return train.with_bond(bond, old + extra, np.hstack([train.head, extra_head]), right)
    before = layout.cores[bond - 1]
    left = np.zeros(grown.cores[bond - 1].size)
    _place(grown.cores[bond - 1], left, before, train.cores[bond - 1])
    if side == "left":
        part = CoreLayout(before.left, before.feature, extra)
        _place(grown.cores[bond - 1], left, part, _flat(part, directions), right=old)
    return train.with_bond(bond, old + extra, left, right)


def grow_ranks(
    train: Train,
    bond: int,
    new_bond: Bond,
    rng: np.random.Generator | None = None,
    amplitude: float = 1.0,
    *,
    side: Literal["left", "right"] = "left",
) -> Train:
    """Raise the ranks of a bond; the function stays exactly as it is.

    Parameters
    ----------
    train : Train
    bond : int
        0..d-1.
    new_bond : Bond
        Its ranks after; none may be less than now. It may bring new irreps.
    rng : numpy.random.Generator, optional
        Fills the new part of the tensor on `side` as `Train.random` does, times `amplitude`. Without it the
        new part is zero on both sides, where every derivative vanishes.
    amplitude : float
        Of the random numbers.
    side : {"left", "right"}
        Which tensor gets them; the other gets zeros, and is the one to solve for first.
    """
    train.layout.check_inner_bond(bond)
    old = train.layout.bonds[bond]
    for irrep, rank in old:
        if new_bond.rank(irrep) < rank:
            raise SpecificationError(
                f"new_bond: expected at least {old}, got fewer copies of {irrep} in {new_bond}; "
                "use round_train to lower ranks"
            )
    extra = Bond.of({irrep: rank - old.rank(irrep) for irrep, rank in new_bond})
    core = train.layout.cores[bond]
    if side == "left" and bond == 0:
        shape = train.layout.n_species, extra.rank(SCALAR)
        directions = np.zeros(shape) if rng is None else amplitude * rng.normal(size=shape)
    else:
        before = train.layout.cores[bond - 1]
        part = (
            CoreLayout(before.left, before.feature, extra)
            if side == "left"
            else CoreLayout(extra, core.feature, core.right)
        )
        directions = np.zeros(part.size) if rng is None else amplitude * random_core(part, rng)
    return enrich(train, bond, directions, extra, side=side)


def grow_order(train: Train, position: int) -> Train:
    """Insert a core that lets every bond component through by way of the constant channel (eq. 4).

    Parameters
    ----------
    train : Train
    position : int
        Index of the new core, 0..d. It sits on the former bond `position`, of which there are then two; at d
        it sits on the output.

    Returns
    -------
    Train
        Of order d + 1, the same function of the features. (Its full tensor has one index more.)
    """
    layout = train.layout
    if not 0 <= position <= layout.order:
        raise SpecificationError(f"position: expected 0..{layout.order} for the new core, got {position!r}")
    bond = layout.bonds[position]
    core = CoreLayout(bond, layout.feature, bond)
    identity = np.zeros(core.size)
    for irrep, rank in bond:
        core_block(core, identity, Path(irrep, SCALAR, irrep))[:, 0, :] = np.eye(rank)
    bonds = (*layout.bonds[:position], bond, *layout.bonds[position:])
    cores = (*train.cores[:position], identity, *train.cores[position:])
    return Train(TrainLayout(layout.n_species, layout.feature, bonds), train.head, cores)


def grow_features(train: Train, new_feature: Bond) -> Train:
    """More feature channels and more l, on which the train does not depend yet.

    Parameters
    ----------
    train : Train
    new_feature : Bond
        Channels per l after; none may be fewer than now. Old channels keep their index within their l, new
        ones follow; all entries of the cores for new channels are zero.
    """
    layout = train.layout
    for irrep, channels in layout.feature:
        if new_feature.rank(irrep) < channels:
            raise SpecificationError(
                f"new_feature: expected at least {layout.feature}, got fewer {irrep} in {new_feature}"
            )
    grown = TrainLayout(layout.n_species, new_feature, layout.bonds)
    cores = []
    for old, core, numbers in zip(layout.cores, grown.cores, train.cores, strict=True):
        new = np.zeros(core.size)
        _place(core, new, old, numbers)
        cores.append(new)
    return Train(grown, train.head, tuple(cores))


# --- species --------------------------------------------------------------------------------------


def relabel_species(train: Train, permutation: Sequence[int]) -> Train:
    """Reorder, repeat or leave out central species: new species s is old species ``permutation[s]``.

    Parameters
    ----------
    train : Train
    permutation : sequence of int
        Old type indices, at least one.
    """
    layout = train.layout
    rows = [int(species) for species in permutation]
    if not rows or not all(0 <= species < layout.n_species for species in rows):
        raise SpecificationError(f"permutation: expected type indices 0..{layout.n_species - 1}, got {rows}")
    return Train(TrainLayout(len(rows), layout.feature, layout.bonds), train.head[rows], train.cores)


def extend_species(train: Train, n_new: int, rows: Array | None = None) -> Train:
    """Append central species; the function of the old ones does not change.

    Parameters
    ----------
    train : Train
    n_new : int
        How many.
    rows : float64 array [n_new, a], optional
        Their rows of the head. Zero by default: their output is zero until the head is fitted.
    """
    layout = train.layout
    if n_new < 0:
        raise SpecificationError(f"n_new: expected a number of species >= 0, got {n_new!r}")
    shape = n_new, layout.head_shape[1]
    new = np.zeros(shape) if rows is None else np.asarray(rows, dtype=np.float64)
    if new.shape != shape:
        raise SpecificationError(f"rows: expected [new species, rank of bond 0] = {shape}, got {new.shape}")
    grown = TrainLayout(layout.n_species + n_new, layout.feature, layout.bonds)
    return Train(grown, np.vstack([train.head, new]), train.cores)


# --- blocks within larger blocks ------------------------------------------------------------------


def _place(
    target_layout: CoreLayout,
    target: Array,
    layout: CoreLayout,
    core: Array,
    *,
    left: Bond | None = None,
    right: Bond | None = None,
) -> None:
    """Write a core into a larger one, in place, behind the copies that `left` and `right` hold."""
    for path in layout.paths:
        n1, n2, n3 = layout.shape(path)
        at1 = 0 if left is None else left.rank(path.left)
        at3 = 0 if right is None else right.rank(path.right)
        block = core_block(target_layout, target, path)
        block[at1 : at1 + n1, :n2, at3 : at3 + n3] = core_block(layout, core, path)


def _flat(layout: CoreLayout, directions: Array | Mapping[Path, Array]) -> Array:
    """Flat core [q] of given directions, checked."""
    if isinstance(directions, Mapping):
        core = np.zeros(layout.size)
        for path, block in directions.items():
            if path not in layout.paths or np.shape(block) != layout.shape(path):
                expected = layout.shape(path) if path in layout.paths else "none (no such path)"
                raise SpecificationError(
                    f"directions, {path}: expected shape {expected}, got {np.shape(block)}"
                )
            core[layout.slice(path)] = np.ravel(block)
        return core
    core = np.asarray(directions, dtype=np.float64)
    if core.shape != (layout.size,):
        raise SpecificationError(f"directions: expected {layout.size} numbers, got shape {core.shape}")
    return core


def _check_same_space(a: TrainLayout, b: TrainLayout) -> None:
    for name, here, there in (
        ("species", a.n_species, b.n_species),
        ("features", a.feature, b.feature),
        ("order", a.order, b.order),
        ("output", a.bonds[-1], b.bonds[-1]),
    ):
        if here != there:
            raise SpecificationError(
                f"two trains must agree in their {name} to be combined, got {here} and {there}; "
                "see extend_species, grow_features and grow_order"
            )
