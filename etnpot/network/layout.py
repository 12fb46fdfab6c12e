"""The shape of an equivariant tensor train: bonds, paths, and where each block lies in memory.

Bond k carries a direct sum of irreps, ``r[l, p]`` copies of each (l, p). Core k holds one reduced block per
path,

    A_k^{l1 l2 l3}[a1, a2, a3],    (l1, p1) x (l2, p2) -> (l3, p3),   |l1 - l2| <= l3 <= l1 + l2,  p3 = p1 p2,

from the left bond (a1) and the features (a2, a bond as well, of natural parity) to the right bond (a3). The
formulas count cores 1..d, so that core k ends on bond k; the code counts them 0..d-1, so that core k lies
between the bonds k and k + 1, and the head lies to the left of bond 0.

=========================== ==================================================================================
symbol                      here
=========================== ==================================================================================
sum over (l, p) of r[l, p]  `Bond`, with ``bond.rank(irrep)``
x_k[l, m, a]                vector of ``bond.dimension`` numbers, at ``bond.offset(irrep) + m * rank + a``
v[a2, l2, m2]               the same with ``layout.feature``; the constant channel is index 0 of 0e
A_k^{l1 l2 l3}[a1, a2, a3]  C-ordered block at ``core.offset(path)`` of the flat core, ``core.shape(path)``
x_0[a] = A_0[z, a]          the head, [species, rank of 0e on bond 0]
=========================== ==================================================================================
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from etnpot.errors import SpecificationError
from etnpot.so3 import Irrep

__all__ = ["SCALAR", "Bond", "CoreLayout", "Path", "TrainLayout"]

#: The irrep of an energy.
SCALAR = Irrep(0, 1)


@dataclass(frozen=True)
class Bond:
    """A direct sum of irreps with multiplicities (ranks), in ascending order of the irreps.

    Parameters
    ----------
    ranks : tuple of (Irrep, int)
        Each irrep once, each rank at least one. `Bond.of` sorts, merges nothing and drops zero ranks.
    """

    ranks: tuple[tuple[Irrep, int], ...]

    def __post_init__(self) -> None:
        """Check order and positivity."""
        irreps = [irrep for irrep, _ in self.ranks]
        if irreps != sorted(set(irreps)):
            raise SpecificationError(f"the irreps of a bond must be distinct and ascending, got {self}")
        if any(rank < 1 for _, rank in self.ranks):
            raise SpecificationError(f"the rank of every irrep on a bond must be at least 1, got {self}")

    @classmethod
    def of(cls, ranks: Mapping[Irrep, int] | Mapping[str, int]) -> Bond:
        """Bond from a mapping such as ``{"0e": 4, "1o": 3}``; entries of rank zero are left out."""
        parsed: dict[Irrep, int] = {}
        for key, rank in ranks.items():
            irrep = key if isinstance(key, Irrep) else Irrep.from_string(key)
            if irrep in parsed:
                raise SpecificationError(f"rank of {irrep}: expected one, got two in {dict(ranks)}")
            try:
                parsed[irrep] = operator.index(rank)
            except TypeError:
                raise SpecificationError(f"rank of {irrep}: expected an integer >= 0, got {rank!r}") from None
        return cls(tuple((irrep, parsed[irrep]) for irrep in sorted(parsed) if parsed[irrep] != 0))

    def __iter__(self) -> Iterator[tuple[Irrep, int]]:
        return iter(self.ranks)

    def __contains__(self, irrep: object) -> bool:
        return irrep in self._offsets

    def __str__(self) -> str:
        return " + ".join(f"{rank}x{irrep}" for irrep, rank in self.ranks) or "nothing"

    @property
    def irreps(self) -> tuple[Irrep, ...]:
        """The irreps, ascending."""
        return tuple(irrep for irrep, _ in self.ranks)

    @cached_property
    def dimension(self) -> int:
        """Sum of rank times 2 l + 1."""
        return sum(rank * irrep.dim for irrep, rank in self.ranks)

    @cached_property
    def _offsets(self) -> dict[Irrep, int]:
        offsets, at = {}, 0
        for irrep, rank in self.ranks:
            offsets[irrep] = at
            at += rank * irrep.dim
        return offsets

    @cached_property
    def _ranks(self) -> dict[Irrep, int]:
        return dict(self.ranks)

    def rank(self, irrep: Irrep) -> int:
        """Copies of `irrep`, zero when it is absent."""
        return self._ranks.get(irrep, 0)

    def offset(self, irrep: Irrep) -> int:
        """Index of the first component of `irrep` in a bond vector."""
        return self._offsets[irrep]

    def slice(self, irrep: Irrep) -> slice:
        """Where the components of `irrep` lie; reshape to ``(2 l + 1, rank)``."""
        at = self._offsets[irrep]
        return slice(at, at + self._ranks[irrep] * irrep.dim)

    def to_dict(self) -> dict[str, int]:
        """``{"0e": 4, "1o": 3}``, for files and messages."""
        return {str(irrep): rank for irrep, rank in self.ranks}

    def __add__(self, other: Bond) -> Bond:
        """Direct sum: the ranks add up."""
        total = dict(self.ranks)
        for irrep, rank in other:
            total[irrep] = total.get(irrep, 0) + rank
        return Bond.of(total)


@dataclass(frozen=True, order=True)
class Path:
    """One way (l1, p1) x (l2, p2) -> (l3, p3) through a core."""

    left: Irrep
    feature: Irrep
    right: Irrep

    def __str__(self) -> str:
        return f"{self.left} x {self.feature} -> {self.right}"


@dataclass(frozen=True)
class CoreLayout:
    """The blocks of one core between two bonds.

    Paths are ordered by (left, feature, right) irrep; the flat core is the concatenation of their C-ordered
    blocks.
    """

    left: Bond
    feature: Bond
    right: Bond

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Every path that the triangle rule, parity and the three bonds allow."""
        return tuple(
            Path(left, feature, right)
            for left in self.left.irreps
            for feature in self.feature.irreps
            for right in sorted(left * feature)
            if right in self.right
        )

    def shape(self, path: Path) -> tuple[int, int, int]:
        """(a1, a2, a3) of a block."""
        return self.left.rank(path.left), self.feature.rank(path.feature), self.right.rank(path.right)

    @cached_property
    def _offsets(self) -> dict[Path, int]:
        offsets, at = {}, 0
        for path in self.paths:
            offsets[path] = at
            n1, n2, n3 = self.shape(path)
            at += n1 * n2 * n3
        return offsets

    def offset(self, path: Path) -> int:
        """Index of the first entry of a block in the flat core."""
        return self._offsets[path]

    def slice(self, path: Path) -> slice:
        """Where the block lies in the flat core; reshape to ``shape(path)``."""
        n1, n2, n3 = self.shape(path)
        at = self._offsets[path]
        return slice(at, at + n1 * n2 * n3)

    @cached_property
    def size(self) -> int:
        """Number of parameters of the core."""
        return sum(n1 * n2 * n3 for n1, n2, n3 in map(self.shape, self.paths))


@dataclass(frozen=True)
class TrainLayout:
    """All bonds of a train: d cores, d + 1 bonds, one feature space.

    Parameters
    ----------
    n_species : int
        Rows of the head.
    feature : Bond
        Channels per l of the features, natural parity; its 0e rank counts the constant channel (index 0).
    bonds : tuple of Bond
        ``bonds[0]`` holds scalars alone, ``bonds[-1]`` is the output irrep.
    """

    n_species: int
    feature: Bond
    bonds: tuple[Bond, ...]

    def __post_init__(self) -> None:
        if self.n_species < 1:
            raise SpecificationError(f"a train needs at least one species, got {self.n_species}")
        if len(self.bonds) < 2:
            raise SpecificationError("a train needs at least one core, that is two bonds")
        for k, bond in enumerate(self.bonds):
            if not bond.ranks:
                raise SpecificationError(
                    f"bond {k} of the train is empty: no path leads through it from the head to the output; "
                    "give it an irrep that the bonds on both sides can reach"
                )
        if self.bonds[0].irreps != (SCALAR,):
            raise SpecificationError(f"bond 0 carries scalars (0e) alone, got {self.bonds[0]}")
        if SCALAR not in self.feature or not all(irrep.is_natural for irrep in self.feature.irreps):
            raise SpecificationError(
                "features must have natural parity (0e, 1o, 2e, ...) and at least one scalar, the constant "
                f"channel; got {self.feature}"
            )

    @property
    def order(self) -> int:
        """Number of cores d: the polynomial degree in the features."""
        return len(self.bonds) - 1

    @cached_property
    def cores(self) -> tuple[CoreLayout, ...]:
        """Layouts of cores 1..d (index 0..d-1 here)."""
        return tuple(
            CoreLayout(left, self.feature, right)
            for left, right in zip(self.bonds[:-1], self.bonds[1:], strict=True)
        )

    @property
    def head_shape(self) -> tuple[int, int]:
        """(species, rank of bond 0)."""
        return self.n_species, self.bonds[0].rank(SCALAR)

    @cached_property
    def n_parameters(self) -> int:
        """Entries of the head and of all cores."""
        n_species, rank = self.head_shape
        return n_species * rank + sum(core.size for core in self.cores)

    def check_inner_bond(self, k: int) -> None:
        """Raise `SpecificationError` unless k is a bond between two tensors of the train, 0..d-1."""
        if not 0 <= k < self.order:
            raise SpecificationError(
                f"expected a bond 0..{self.order - 1} of this train, got {k!r}; "
                f"bond {self.order} is the output, on which no gauge acts"
            )

    def with_bond(self, k: int, bond: Bond) -> TrainLayout:
        """The same layout with bond k replaced."""
        return TrainLayout(self.n_species, self.feature, (*self.bonds[:k], bond, *self.bonds[k + 1 :]))

    def trimmed(self) -> TrainLayout:
        """The smallest layout that holds the same functions.

        Irreps that no path reaches from the head or carries to the output are left out, and no rank is larger
        than the space on either side of its bond can fill. One pass from the left and one from the right
        suffice: a bond that the second pass cuts keeps room enough for what lies to its right.

        Raises
        ------
        SpecificationError
            If nothing is left of a bond: such a train is zero.
        """
        bonds = list(self.bonds)
        bonds[0] = Bond.of({SCALAR: min(bonds[0].rank(SCALAR), self.n_species)})
        for k in range(1, self.order):  # from the left
            bonds[k] = _reachable(bonds[k - 1], self.feature, bonds[k])
        for k in range(self.order - 1, -1, -1):  # from the right
            bonds[k] = _reachable(bonds[k + 1], self.feature, bonds[k])
        return TrainLayout(self.n_species, self.feature, tuple(bonds))


def _reachable(source: Bond, feature: Bond, target: Bond) -> Bond:
    """Ranks of `target` cut to what source x feature can fill, from the left or from the right.

    The side does not matter: the path (l1, l2 -> l3) exists exactly when (l3, l2 -> l1) does.
    """
    room: dict[Irrep, int] = {}
    for irrep, rank in source:
        for other, channels in feature:
            for out in irrep * other:
                room[out] = room.get(out, 0) + rank * channels
    return Bond.of({irrep: min(rank, room.get(irrep, 0)) for irrep, rank in target})
