r"""Neighbour lists: from atoms to the edge list on which everything else works.

For every centre i the list holds all neighbours j, periodic images included, with

    r_ij(S) = x_j - x_i + S·h,      |r_ij(S)| < r_c,      S = 0 along directions that are not periodic,

so that an atom can be a neighbour of its own images, and j can appear many times when the cell is shorter
than the cutoff. Both (i, j, S) and (j, i, -S) are listed, and their vectors are each other's exact negative.

The edges are in one canonical order, by (i, j, S): the list does not depend on the library that found the
pairs, on a number of threads, or on whether it was built anew or taken from a `NeighborCache`.

Empty space costs nothing: before the search, slabs without atoms are cut out along every axis, down to a width that
no pair within the cutoff bridges. The pairs stay the same; their vectors are computed from the positions as given.

Reuse of a list. Let a list hold every pair with |r| < r_c + s at cell h and positions x, and let the periodic
cell vectors become h' and the positions x'. Any matrix F with h F = h' splits the motion into a strain and a
rest, x' = x F + d + const, and a pair then has r' = r F + d_j - d_i. Hence no pair outside the list is closer
than r_c if

    σ_min(F)·(r_c + s) - 2·max_i |d_i| >= r_c,                                                            (1)

σ_min being the smallest singular value. `NeighborCache` takes F = 1 + h⁺(h' - h), which leaves directions
perpendicular to the periodic vectors alone, and removes the mean of d. At a fixed cell (1) is the familiar
condition that no atom has moved by more than half the skin s, up to a common translation.

========== ====================== ==========================================================
symbol     variable               meaning
========== ====================== ==========================================================
x          ``positions``          float64 [n_atoms, 3], Å
h          ``cell``               float64 [3, 3], rows are the cell vectors, Å
S          ``shift``              int32 [n_pairs, 3], cell vectors between j and its image
r_ij       ``r_pc``               float64 [n_pairs, 3], Å
r_c, s     ``cutoff``, ``skin``   Å
F          ``strain``             float64 [3, 3]
========== ====================== ==========================================================
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError, StructureError
from etnpot.threads import cut, in_parallel
from etnpot.workspace import Workspace

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["POOL_GROUP", "EdgeList", "NeighborCache", "check_distances", "check_structure", "neighbor_list"]

logger = logging.getLogger(__name__)

#: Name of the array of `Atoms` that says which atoms are pooled together: one integer each.
POOL_GROUP = "pool_group"
#: Pairs processed at a time: temporaries stay in the cache of one core.
_BLOCK = 32_768
#: Fewer atoms than this are not worth another thread.
_ATOMS_PER_THREAD = 512
#: The search reaches this much further (relative) than asked, so that its rounding never loses a pair; the
#: exact comparison with the cutoff is ours.
_SEARCH_MARGIN = 1.0e-9
#: An atom that would see more of its own images than this sits in a cell that cannot be meant.
_MAX_IMAGES = 1.0e5
#: Images of the cell that may lie within the radius: more are those of a cell whose vectors are nearly parallel.
_MAX_SHIFTS = 3.0e6
#: Atoms further from the origin than this many cells have lost their decimals.
_MAX_CELLS_AWAY = 2**30
#: So have atoms this far from the origin, Å, and cells as long.
_MAX_LENGTH = 1.0e9
#: Empty space is kept up to this many radii of the search, and cut out beyond; more than one leaves no new pairs.
_GAP = 2.0
#: So many bins along an axis cost nothing, whether there are atoms in them or not.
_FEW_BINS = 64.0
#: The search divides the space into bins; this many along one axis per bin across it are more than it can number.
_MAX_BINS = 5.0e4
#: Periodic cell vectors scaled to unit length span less than this when they are linearly dependent.
_SINGULAR_VOLUME = 1.0e-8


@dataclass(frozen=True, eq=False, repr=False)
class EdgeList:
    """Directed edges from centres to neighbours, in compressed rows, as plain arrays.

    Parameters
    ----------
    first : int64 [n_atoms + 1]
        The edges of centre i are ``first[i]:first[i + 1]``; ``first[0] == 0``, ``first[-1] == n_pairs``.
    neighbor : int64 [n_pairs]
        Index of the neighbour of each edge. It may exceed ``n_atoms - 1`` where a host program appends ghost
        atoms.
    r_pc : float64 [n_pairs, 3], Å
        Vector from the centre to the neighbour, x_j - x_i, image included.
    shift : int32 or int64 [n_pairs, 3], optional
        Cell vectors added to x_j, where the origin of the list knows them.
    group : int64 [n_atoms], optional
        Atoms of one number are pooled together (`etnpot.potential.layers`): those of one structure, where there are several.

    Notes
    -----
    The arrays are held, not copied, if they are contiguous, writable and in the byte order of the machine;
    others are copied into such, since a kernel is compiled anew for every kind of array that it meets.
    Construction checks shapes and types, at constant cost; `validate` checks the contents as well.
    """

    first: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    r_pc: NDArray[np.float64]
    shift: NDArray[np.signedinteger[Any]] | None = None
    group: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self._expect("first", self.first, (np.int64,), (max(len(self.first), 1),))
        n_pairs = len(self.neighbor)
        self._expect("neighbor", self.neighbor, (np.int64,), (n_pairs,))
        self._expect("r_pc", self.r_pc, (np.float64,), (n_pairs, 3))
        if self.shift is not None:
            self._expect("shift", self.shift, (np.int32, np.int64), (n_pairs, 3))
        if self.group is not None:
            self._expect("group", self.group, (np.int64,), (self.n_atoms,))
        if self.first[0] != 0 or self.first[-1] != n_pairs:
            raise StructureError(
                f"EdgeList.first must begin with 0 and end with the number of pairs, {n_pairs}; "
                f"it begins with {self.first[0]} and ends with {self.first[-1]}"
            )
        for name, dtype in (("first", np.int64), ("neighbor", np.int64), ("r_pc", np.float64)):
            plain = np.require(getattr(self, name), dtype, ("C_CONTIGUOUS", "ALIGNED", "WRITEABLE"))
            object.__setattr__(self, name, plain)

    @staticmethod
    def _expect(name: str, array: NDArray[Any], dtypes: tuple[type, ...], shape: tuple[int, ...]) -> None:
        if array.dtype.type not in dtypes or array.shape != shape:
            wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
            raise StructureError(
                f"EdgeList.{name} must be {wanted} of shape {shape}; got {array.dtype} of shape {array.shape}"
            )

    @property
    def n_atoms(self) -> int:
        """Number of centres."""
        return len(self.first) - 1

    @property
    def n_pairs(self) -> int:
        """Number of directed edges."""
        return len(self.neighbor)

    @cached_property
    def center(self) -> NDArray[np.int64]:
        """Centre of each edge, int64 [n_pairs]; made at first use and kept."""
        return np.repeat(np.arange(self.n_atoms, dtype=np.int64), np.diff(self.first))

    @cached_property
    def has_ordered_rows(self) -> bool:
        """Whether `first` does not decrease, so that loops over the edges stay inside the arrays; found once and kept."""
        return bool((np.diff(self.first) >= 0).all())

    @cached_property
    def shortest(self) -> float:
        """Length of the shortest edge, Å, infinite without edges; found once and kept."""
        from etnpot.kernels.pairs import shortest_pair  # here, so that the import of this module stays light

        return float(shortest_pair(self.r_pc)[1]) if self.n_pairs else math.inf

    def closest(self) -> tuple[int, int]:
        """Centre and neighbour of the shortest of at least one edge."""
        from etnpot.kernels.pairs import shortest_pair

        p, _ = shortest_pair(self.r_pc)
        return int(np.searchsorted(self.first, p, side="right")) - 1, int(self.neighbor[p])

    def validate(self) -> None:
        """Check the contents: rows in order, no negative neighbour, finite vectors. Cost O(n_pairs).

        Raises
        ------
        StructureError
            Naming the array and the first offending entry.
        """
        checks = (
            ("first", "must not decrease", np.diff(self.first) < 0),
            ("neighbor", "must not be negative", self.neighbor < 0),
            ("r_pc", "must be finite", ~np.isfinite(self.r_pc).all(axis=1)),
        )
        for name, demand, offends in checks:
            if offends.any():
                raise StructureError(
                    f"EdgeList.{name} {demand}; entry {int(np.argmax(offends))} does not comply"
                )

    def __repr__(self) -> str:
        return f"EdgeList(n_atoms={self.n_atoms}, n_pairs={self.n_pairs})"


# ------------------------------------------------------------------------------------------- public functions


def neighbor_list(atoms: Atoms, cutoff: float) -> EdgeList:
    """All edges shorter than the cutoff.

    Molecules without a cell, slabs and chains (mixed periodicity), skewed cells, cells shorter than the
    cutoff and atoms outside the cell are all treated exactly. The atoms are not changed.

    Parameters
    ----------
    atoms : ase.Atoms
    cutoff : float, Å
        Edges have ``|r| < cutoff``, strictly.

    Returns
    -------
    EdgeList
        Sorted by centre, neighbour and shift, with shifts. Cost O(n_pairs), about 50 bytes per pair at the
        peak.

    Raises
    ------
    StructureError
        See `check_structure`; also for a cell so small that an atom would see more than 10⁵ of its own
        images.
    SpecificationError
        For a cutoff that is not positive and finite.
    """
    cutoff = _positive("cutoff", cutoff)
    check_structure(atoms)
    positions, cell = atoms.positions, atoms.cell.array
    return _grouped(
        _search(positions, cell, atoms.pbc, cutoff).edges(positions, cell, cutoff, shifts=True), atoms
    )


def _grouped(edges: EdgeList, atoms: Atoms) -> EdgeList:
    """The edges with the groups of ``atoms.arrays["pool_group"]``, where there are any."""
    group = atoms.arrays.get(POOL_GROUP)
    if group is None:
        return edges
    if group.shape != (len(atoms),) or group.dtype.kind not in "iu":
        raise StructureError(
            f"{POOL_GROUP}: expected one integer for each of {len(atoms)} atoms, got {group.dtype} of shape {group.shape}"
        )
    return replace(edges, group=group.astype(np.int64))


def check_structure(atoms: Atoms) -> None:
    """Refuse atoms for which no energy is defined. Cost O(n_atoms).

    Raises
    ------
    StructureError
        For no atoms at all, positions or cell that are NaN or infinite, and periodic cell vectors that are
        zero or linearly dependent. Vectors along directions that are not periodic may be anything finite.
    """
    positions, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
    if len(positions) == 0:
        raise StructureError("a structure needs at least one atom; got an empty Atoms object")
    if not np.isfinite(positions).all():
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        raise StructureError(
            f"positions must be finite; atom {bad[0]} is at {positions[bad[0]].tolist()}"
            + (f", and {len(bad) - 1} more atoms are affected" if len(bad) > 1 else "")
            + "; a simulation that produced this has probably blown up earlier (time step, overlapping atoms)"
        )
    if not np.isfinite(cell).all():
        raise StructureError(f"the cell must be finite; got {cell.tolist()}")
    axes = "".join(axis for axis, periodic in zip("abc", pbc, strict=True) if periodic)
    if not axes:
        return
    _refuse_astronomic(cell[pbc])
    lengths = np.linalg.norm(cell[pbc], axis=1)
    if not lengths.all():
        zero = axes[int(np.argmin(lengths))]
        raise StructureError(
            f"cell vector {zero} is zero although the structure is periodic along it; set the cell, or "
            f"pbc=False along {zero} (for a molecule: atoms.pbc = False)"
        )
    volume = math.prod(np.linalg.svd(cell[pbc] / lengths[:, None], compute_uv=False).tolist())
    if volume < _SINGULAR_VOLUME:
        raise StructureError(
            f"the cell vectors of the periodic directions {', '.join(axes)} must be linearly independent; "
            f"got {cell[pbc].tolist()}"
        )


def check_distances(edges: EdgeList, minimum: float = 1.0e-8) -> None:
    """Refuse two atoms on one spot. Cost O(n_pairs).

    Parameters
    ----------
    edges : EdgeList
    minimum : float, Å
        Shortest distance that still tells two atoms apart.

    Raises
    ------
    StructureError
        Naming the two atoms of the shortest edge below `minimum`.
    """
    if edges.shortest >= minimum:
        return
    i, j = edges.closest()
    pair = f"atom {i} and its own periodic image are" if i == j else f"atoms {i} and {j} are"
    raise StructureError(
        f"{pair} at one spot: {edges.shortest:.2e} Å apart, expected at least {minimum:.0e} Å; "
        f"remove the duplicate (in a supercell, an atom is often repeated across the boundary) or correct "
        f"the cell"
    )


class NeighborCache:
    """Edges of successive frames of a trajectory, from a list that is rebuilt only when atoms have moved far.

    The list is built with the radius ``cutoff + skin``. As long as condition (1) of the module proves it
    complete, the vectors are recomputed from the new positions and cell, and edges of length ``cutoff`` or
    more are dropped: the result is the same, bit for bit, as that of `neighbor_list`. Everything else
    (another number of atoms, other periodic directions, an atom wrapped back into the cell, a new structure)
    builds the list anew. Chemical elements do not matter to an edge list, so that exchanging two species does
    not cost a search.

    Parameters
    ----------
    cutoff : float, Å
    skin : float, Å
        A larger skin means fewer searches and more pairs to look at in every frame. Zero is allowed: the list
        is then reused for an unchanged structure only.
    shifts : bool
        Whether the edge lists carry ``shift``.
    workspace : Workspace, optional
        Holds the arrays of the edge lists, which are then those of the last call alone.

    Notes
    -----
    Pickles and copies carry the settings and not the list; they begin with ``n_builds == 0``. One object must
    not be used by several threads at once.
    """

    def __init__(
        self, cutoff: float, skin: float = 0.5, *, shifts: bool = False, workspace: Workspace | None = None
    ) -> None:
        self._cutoff = _positive("cutoff", cutoff)
        self._skin = _positive("skin", skin, or_zero=True)
        self._shifts = bool(shifts)
        self._workspace = workspace
        self.reset()

    @property
    def cutoff(self) -> float:
        """Cutoff of the edges, Å."""
        return self._cutoff

    @property
    def skin(self) -> float:
        """Radius of the list beyond the cutoff, Å."""
        return self._skin

    @property
    def n_builds(self) -> int:
        """Number of searches since construction or `reset`."""
        return self._n_builds

    def reset(self) -> None:
        """Forget the list and the count."""
        self._n_builds = 0
        self._pairs: _PairTable | None = None

    def edges(self, atoms: Atoms, *, threads: int | None = 1) -> EdgeList:
        """The edges of `atoms`, as `neighbor_list` gives them.

        Parameters
        ----------
        atoms : ase.Atoms
            Not changed.
        threads : int, optional, keyword-only
            Of the vectors of listed pairs; None as in `etnpot.threads`. The result does not depend on it.

        Returns
        -------
        EdgeList
            Its arrays belong to the caller, unless there is a workspace: later calls do not touch them.

        Raises
        ------
        StructureError
            As `neighbor_list`; the list that was held is kept.
        """
        check_structure(atoms)
        positions, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
        if self._pairs is None or not self._covers(self._pairs, positions, cell, pbc):
            self._pairs = _search(positions, cell, pbc, self._cutoff + self._skin)
            self._n_builds += 1
            logger.debug(
                "neighbour list %d: %d atoms, %d pairs", self._n_builds, len(positions), self._pairs.n_pairs
            )
        edges = self._pairs.edges(
            positions, cell, self._cutoff, shifts=self._shifts, threads=threads, workspace=self._workspace
        )
        return _grouped(edges, atoms)

    def _covers(
        self,
        pairs: _PairTable,
        positions: NDArray[np.float64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
    ) -> bool:
        """Whether condition (1) proves that no pair within the cutoff is missing from the table."""
        if positions.shape != pairs.positions.shape or not np.array_equal(pbc, pairs.pbc):
            return False
        from etnpot.kernels.pairs import farthest_move

        old, new = pairs.cell[pbc], cell[pbc]
        before, compression = pairs.positions, 1.0
        if not np.array_equal(old, new):
            strain = np.eye(3) + np.linalg.pinv(old) @ (new - old)
            before = before @ strain
            compression = float(np.linalg.svd(strain, compute_uv=False)[-1])
        farthest = farthest_move(before, np.require(positions, np.float64, ("C", "A", "W")))
        return compression * (self._cutoff + self._skin) - 2.0 * farthest >= self._cutoff

    def __getstate__(self) -> dict[str, Any]:
        return {
            "cutoff": self._cutoff, "skin": self._skin, "shifts": self._shifts,
            "workspace": None if self._workspace is None else Workspace(),
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"NeighborCache(cutoff={self._cutoff:g}, skin={self._skin:g}, n_builds={self._n_builds})"


# ------------------------------------------------------------------------------------------------- the search


@dataclass(frozen=True, eq=False)
class _PairTable:
    """Pairs found at one geometry, without vectors: what stays true while the atoms move a little.

    Symbols: ``crossing`` int64 [n_crossing], the edges with S != 0, ascending; ``crossing_shift`` int32
    [n_crossing, 3], their S; ``positions``, ``cell``, ``pbc`` as they were at the search.
    """

    first: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    crossing: NDArray[np.int64]
    crossing_shift: NDArray[np.int32]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]

    @property
    def n_pairs(self) -> int:
        return len(self.neighbor)

    def edges(
        self,
        positions: NDArray[np.float64],
        cell: NDArray[np.float64],
        cutoff: float,
        *,
        shifts: bool,
        threads: int | None = 1,
        workspace: Workspace | None = None,
    ) -> EdgeList:
        """Vectors at the given geometry (Å), edges of length >= cutoff dropped, order kept."""
        from etnpot.kernels.pairs import count_within, pairs_within  # here, so that the import stays light

        n_atoms, n_pairs = len(self.first) - 1, self.n_pairs
        given = (
            self.first, self.neighbor, self.crossing, self.crossing_shift, np.require(positions, np.float64, ("C", "A", "W")),
            np.require(cell, np.float64, ("C", "A", "W")), _squared_limit(cutoff),
        )  # fmt: skip
        workspace = Workspace() if workspace is None else workspace
        first = workspace.empty("edges.first", (n_atoms + 1,), np.int64)
        neighbor = workspace.empty("edges.neighbor", (n_pairs,), np.int64)
        r_pc = workspace.empty("edges.r_pc", (n_pairs, 3))
        kept = np.empty(n_pairs if shifts else 0, dtype=np.bool_)
        cuts = cut(n_atoms, threads=threads, block=1, smallest=_ATOMS_PER_THREAD)
        # where the pairs of a range go depends on how many those before it keep
        counts = in_parallel([partial(count_within, *given, *ends) for ends in pairwise(cuts[:-1])])
        places = [*accumulate(counts, initial=0), n_pairs]
        found = in_parallel(
            [
                partial(pairs_within, *given, *ends, *where, first, neighbor, r_pc, kept)
                for ends, where in zip(pairwise(cuts), pairwise(places), strict=True)
            ]
        )
        n_kept = found[-1][0]
        first[n_atoms] = n_kept
        shift = None
        if shifts:
            shift = np.zeros((n_pairs, 3), dtype=np.int32)
            shift[self.crossing] = self.crossing_shift
            shift = shift[kept]
        edges = EdgeList(first, neighbor[:n_kept], r_pc[:n_kept], shift)
        if n_kept:  # beside it, the pairs that are not kept are longer
            object.__setattr__(edges, "shortest", math.sqrt(min(least for _, least in found)))
        return edges


def _squared_limit(cutoff: float) -> float:
    """The number below which are the squares, and only those, whose root is below the cutoff."""
    limit = cutoff * cutoff
    while limit > 0.0 and math.sqrt(math.nextafter(limit, 0.0)) >= cutoff:
        limit = math.nextafter(limit, 0.0)
    while math.sqrt(limit) < cutoff:
        limit = math.nextafter(limit, math.inf)
    return limit


def _search(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], radius: float
) -> _PairTable:
    """Every pair with |r| < radius (and, by rounding, a few just beyond), in canonical order.

    Atoms are first moved into the cell, which bounds the shifts by the geometry alone: every pair (i, j, S)
    then packs into one integer whose order is the canonical one, and sorting pairs is sorting integers.
    """
    reach = radius * (1.0 + _SEARCH_MARGIN)
    vectors = _completed_cell(cell, pbc)
    _refuse_tiny_cell(vectors[pbc], radius)
    inverse = np.linalg.inv(vectors)
    home_ic = np.where(pbc, np.floor(positions @ inverse), 0.0)
    if np.abs(home_ic).max() > _MAX_CELLS_AWAY:
        i = int(np.argmax(np.abs(home_ic).max(axis=1)))
        raise StructureError(
            f"atom {i} is more than {_MAX_CELLS_AWAY} cells away from the origin, where positions have lost "
            f"their precision; wrap the atoms into the cell (atoms.wrap())"
        )
    inside_ic = positions - home_ic @ vectors
    _refuse_astronomic(inside_ic)
    inside_ic, vectors = _without_gaps(inside_ic, vectors, pbc, reach)
    inverse = np.linalg.inv(vectors)

    # |S_c| <= reach / (height of the cell along c) + 1 for fractional coordinates in [0, 1).
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    if np.prod((2.0 * reach / heights + 1.0)[pbc]) > _MAX_SHIFTS:
        raise StructureError(
            f"the cell is too skewed: its vectors {cell[pbc].tolist()} span planes {heights[pbc].min():.1e} Å apart; "
            "use an equivalent cell with short vectors (atoms.cell.minkowski_reduce() gives them), and wrap the atoms into it"
        )
    largest = np.where(pbc, (reach / heights + 1.0 + 1.0e-6).astype(np.int64), 0)
    packing = _Packing.for_ranges(len(positions), largest.tolist())
    key = _packed_pairs(inside_ic, vectors, pbc, reach, packing)
    key.sort()

    n_atoms = len(positions)
    rows = np.arange(n_atoms + 1, dtype=np.int64) << packing.center_bit
    first = np.searchsorted(key, rows).astype(np.int64, copy=False)
    code = key & ((1 << packing.neighbor_bit) - 1)
    neighbor = key
    neighbor >>= packing.neighbor_bit
    neighbor &= (1 << (packing.center_bit - packing.neighbor_bit)) - 1
    center = np.repeat(np.arange(n_atoms, dtype=np.int32), np.diff(first))
    home = home_ic.astype(np.int32)
    if home.any():
        # S of the atoms as given = S of the wrapped ones + home_i - home_j. What is added is the same for
        # all S of one (i, j): the order holds.
        shift = packing.shifts(code)
        shift += home.take(center, axis=0)
        shift -= home.take(neighbor, axis=0)
        crossing = np.flatnonzero(shift.any(axis=1))
        crossing_shift = shift.take(crossing, axis=0)
    else:
        crossing = np.flatnonzero(code != packing.zero)
        crossing_shift = packing.shifts(code.take(crossing))
    return _PairTable(first, neighbor, crossing, crossing_shift, positions.copy(), cell.copy(), pbc.copy())


@dataclass(frozen=True)
class _Packing:
    """How (i, j, S) becomes one integer: bit fields i | j | S_0 + m_0 | S_1 + m_1 | S_2 + m_2, i on top."""

    largest: tuple[int, int, int]
    shift_bits: tuple[int, int, int]
    neighbor_bit: int
    center_bit: int

    @classmethod
    def for_ranges(cls, n_atoms: int, largest: list[int]) -> _Packing:
        m0, m1, m2 = largest
        low_1 = (2 * m2).bit_length()
        low_0 = low_1 + (2 * m1).bit_length()
        neighbor_bit = low_0 + (2 * m0).bit_length()
        atom_bits = n_atoms.bit_length()
        if neighbor_bit + 2 * atom_bits > 63:
            raise StructureError(
                f"{n_atoms} atoms whose neighbours lie up to {max(largest)} cells away are more than one "
                f"process can list; use a larger cell, or a program that divides the atoms among processes"
            )
        return cls((m0, m1, m2), (low_0, low_1, 0), neighbor_bit, neighbor_bit + atom_bits)

    @property
    def zero(self) -> int:
        """The code of S = 0."""
        return sum(m << bit for m, bit in zip(self.largest, self.shift_bits, strict=True))

    def codes(self, shift: NDArray[np.int32]) -> NDArray[np.int64]:
        """Codes of shifts [n, 3]; the code of -S is ``2 * zero - code``."""
        code = np.full(len(shift), self.zero, dtype=np.int64)
        for c, bit in enumerate(self.shift_bits):
            if self.largest[c]:
                code += shift[:, c].astype(np.int64) << bit
        return code

    def shifts(self, code: NDArray[np.int64]) -> NDArray[np.int32]:
        """Shifts [n, 3] of codes [n]."""
        shift = np.empty((len(code), 3), dtype=np.int32)
        for c, bit in enumerate(self.shift_bits):
            m = self.largest[c]
            shift[:, c] = ((code >> bit) & ((1 << (2 * m).bit_length()) - 1)) - m
        return shift


def _packed_pairs(
    positions: NDArray[np.float64],
    vectors: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    reach: float,
    packing: _Packing,
) -> NDArray[np.int64]:
    """Packed pairs in both directions, unsorted, int64 [n_pairs].

    Half of the pairs are asked for and mirrored here, which needs half of the memory and makes the list
    symmetric by construction. One thread: a process of an MPI run or of a pool must not take the cores of its
    siblings.
    """
    from vesin import NeighborList  # imported late: it imports torch and cupy where they are installed

    finder = NeighborList(cutoff=reach, full_list=False, sorted=False, n_threads=1)
    found, shift = finder.compute(positions, vectors, pbc, "PS", copy=False)
    n_half = len(found)
    key = np.empty(2 * n_half, dtype=np.int64)
    for low in range(0, n_half, _BLOCK):
        high = min(low + _BLOCK, n_half)
        i = found[low:high, 0].astype(np.int64)
        j = found[low:high, 1].astype(np.int64)
        code = packing.codes(shift[low:high])
        key[low:high] = (i << packing.center_bit) + (j << packing.neighbor_bit) + code
        code = 2 * packing.zero - code
        key[n_half + low : n_half + high] = (j << packing.center_bit) + (i << packing.neighbor_bit) + code
    return key


def _without_gaps(
    positions: NDArray[np.float64], vectors: NDArray[np.float64], pbc: NDArray[np.bool_], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions and cell with wide empty slabs between the atoms cut out: the same pairs in less space.

    Along each axis, the planes on which atoms lie are moved together until no gap is wider than `_GAP` times
    the reach. Atoms on the two sides of such a gap stay further apart than the reach, and those on one side keep
    their distances. The bins of the search are as many as the atoms then, not as the space between them.

    Raises
    ------
    StructureError
        For a single file of atoms so long that its bins cannot be numbered.
    """
    inverse = np.linalg.inv(vectors)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    n_bins = np.empty(3)
    for c in range(3):
        along_i = (positions @ inverse[:, c]) * heights[c]
        extent = heights[c] if pbc[c] else float(np.ptp(along_i))
        n_bins[c] = max(1.0, extent / reach)
        if n_bins[c] < _FEW_BINS:
            continue
        order = np.argsort(along_i, kind="stable")
        gaps = np.diff(along_i[order])
        around = heights[c] - (along_i[order[-1]] - along_i[order[0]]) if pbc[c] else 0.0
        widest = _GAP * reach
        length = np.minimum(gaps, widest).sum() + min(around, widest)
        n_bins[c] = max(1.0, length / reach)
        if max(gaps.max(initial=0.0), around) <= widest:
            continue
        cut_i = np.empty(len(along_i))
        cut_i[order] = np.concatenate([[0.0], np.cumsum(np.maximum(gaps - widest, 0.0))])
        direction = vectors[c] / heights[c]
        positions = positions - cut_i[:, None] * direction
        if pbc[c]:
            vectors = vectors.copy()
            vectors[c] = length * direction
    if n_bins.max() ** 2 > _MAX_BINS * n_bins.prod():
        raise StructureError(
            f"the atoms form a file of {n_bins.max() * reach:.1e} Å, more than {_MAX_BINS:.0e} times the search "
            f"radius of {reach:.3g} Å, which is more than one process can list; divide it"
        )
    return positions, vectors


def _completed_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The cell with unit normals of the periodic vectors in place of the vectors that are not periodic."""
    completed = np.eye(3) if not pbc.any() else cell.copy()
    if pbc.any() and not pbc.all():
        normals = np.linalg.svd(cell[pbc])[2][pbc.sum() :]
        completed[~pbc] = normals
    return completed


def _refuse_astronomic(lengths: NDArray[np.float64]) -> None:
    """Raise where positions or cell vectors (Å) have lost their decimals."""
    longest = np.abs(lengths).max(initial=0.0)
    if longest > _MAX_LENGTH:
        raise StructureError(
            f"positions and cell reach {longest:.1e} Å, where they have lost their precision (expected at most "
            f"{_MAX_LENGTH:.0e} Å); remove atoms that have flown away, or correct the unit"
        )


def _refuse_tiny_cell(periodic: NDArray[np.float64], radius: float) -> None:
    """Raise where one atom would have an absurd number of its own images within the radius (Å)."""
    n = len(periodic)
    if n == 0:
        return
    ball = (2.0 * radius, math.pi * radius**2, 4.0 / 3.0 * math.pi * radius**3)[n - 1]
    extent = math.prod(np.linalg.svd(periodic, compute_uv=False).tolist())
    shortest = float(np.linalg.norm(periodic, axis=1).min())
    n_images = max(ball / extent, 2.0 * radius / shortest) if extent > 0.0 and shortest > 0.0 else math.inf
    if n_images > _MAX_IMAGES:
        raise StructureError(
            f"the cell is too small: an atom would have about {n_images:.1e} of its own images within "
            f"{radius:g} Å (at most {_MAX_IMAGES:.0e} are accepted); got periodic vectors "
            f"{periodic.tolist()} in Å, check their unit"
        )


def _positive(name: str, value: float, *, or_zero: bool = False) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0.0 or (number == 0.0 and not or_zero):
        raise SpecificationError(
            f"{name} must be a finite {'number >= 0' if or_zero else 'positive number'} in Å; got {value!r}"
        )
    return number
