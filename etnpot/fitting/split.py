"""A validation set out of the training data: stratified, reproducible, and without near copies on both sides.

The split depends on what the configurations hold (`etnpot.fitting.dataset.configuration_digest`) and on the
seed, not on their order or file: a configuration's rank is SHA-256(seed, digest), and the lowest ranks are
taken.

Every group g of n_g configurations gives q_g of them, where the q_g are the shares ``fraction * n_g``
rounded by the method of largest remainders to a total of ``fraction * n`` (at least 1); a group keeps at
least one configuration in the training set.

Near copies
-----------
Two configurations with the same sequence of elements are near copies when no component of the cell and of the
positions differs by more than ``duplicate_tolerance`` (Å), whatever cell an atom is wrapped into. Being a
near copy is made transitive (successive snapshots of a trajectory form one family), and a family is not
divided. Copies that are rotated, shifted or renumbered are not recognised. A group all of whose families
are larger than its share (a fine grid of strains) is divided into exact copies instead, so that it is
represented; this is logged.

Free atoms, and configurations without which an element would be missing from the training set, stay in the
training set.

Positions along a periodic axis are compared on a torus: the fractional coordinate s enters as
(L/2π)(cos 2πs, sin 2πs), with L the height of the cell along that axis, so that wrapping changes nothing and
a small displacement keeps its length.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.fitting.dataset import DataSet, configuration_digest, is_isolated_atom
from etnpot.io.structures import UNGROUPED, Labelled

__all__ = ["near_copies", "split"]

logger = logging.getLogger(__name__)

#: Configurations closer than this are one and the same, Å (rounding in a file).
_EXACT = 1e-6


def split(
    dataset: DataSet,
    fraction: float = 0.1,
    seed: int = 0,
    by: str = "group",
    *,
    duplicate_tolerance: float = 0.02,
) -> tuple[DataSet, DataSet]:
    """Divide a data set into a training and a validation set.

    Parameters
    ----------
    dataset
        The configurations.
    fraction
        Share of the validation set, 0 <= fraction < 1.
    seed
        Another seed gives another split.
    by
        ``"group"``: each group contributes its share. ``"random"``: groups are not looked at.
    duplicate_tolerance
        Configurations that differ by less stay together, Å; 0 keeps only exact copies together.

    Returns
    -------
    train, valid : DataSet
        Each in the order of `dataset`.
    """
    if not 0 <= fraction < 1:
        raise SpecificationError(f"fraction of the validation set must be in [0, 1), got {fraction}")
    if by not in ("group", "random"):
        raise SpecificationError(f"split by {by!r} is not known; give 'group' or 'random'")
    if not duplicate_tolerance >= 0:
        raise SpecificationError(f"duplicate_tolerance must be >= 0 Å, got {duplicate_tolerance}")
    if fraction == 0 or len(dataset) < 2:
        return dataset, DataSet()
    chosen = _choose(dataset, fraction, seed, by, duplicate_tolerance)
    if not chosen:
        logger.warning("no configuration could be spared for the validation set")
    valid = sorted(chosen)
    return dataset.subset(i for i in range(len(dataset)) if i not in chosen), dataset.subset(valid)


def _choose(dataset: DataSet, fraction: float, seed: int, by: str, tolerance: float) -> set[int]:
    """Indices of the validation set."""
    rank = [hashlib.sha256(f"{seed}:".encode() + configuration_digest(c)).hexdigest() for c in dataset]
    stratum_of = [UNGROUPED if by == "random" else (c.group or UNGROUPED) for c in dataset]
    size = Counter(stratum_of)
    quota = _quotas(dict(size), fraction)

    # A family belongs to the group of most of its members.
    families: dict[str, list[list[int]]] = defaultdict(list)
    for family in near_copies(dataset, max(tolerance, _EXACT)):
        if any(is_isolated_atom(dataset[i]) for i in family):
            continue
        votes = Counter(stratum_of[i] for i in family)
        families[min(votes, key=lambda name: (-votes[name], name))].append(family)

    # How many configurations of the training set hold each element and belong to each group.
    def census(indices: Iterable[int]) -> Counter[int | str]:
        count: Counter[int | str] = Counter()
        for i in indices:
            count.update([stratum_of[i], *np.unique(dataset[i].atoms.numbers).tolist()])
        return count

    left = census(range(len(dataset)))
    chosen: set[int] = set()

    def take(candidates: list[list[int]], wanted: int) -> int:
        """Add families in the order of their lowest rank, up to `wanted` configurations; return how many."""
        taken = 0
        for _, family in sorted((min(rank[i] for i in family), family) for family in candidates):
            if taken + len(family) > wanted:
                continue
            members = census(family)
            if any(left[name] <= n for name, n in members.items()):
                continue  # an element or a group would be gone from the training set
            left.subtract(members)
            chosen.update(family)
            taken += len(family)
        return taken

    for name in sorted(quota):
        if not quota[name] or take(families[name], quota[name]) or not families[name]:
            continue
        if min(len(family) for family in families[name]) <= quota[name] or tolerance <= _EXACT:
            continue  # refused for an element or a group, or exact copies
        logger.info(
            "group %r consists of near copies (within %g Å) in families larger than its share of the "
            "validation set; they are divided, and its validation error will look too good",
            name,
            tolerance,
        )
        divided = [
            [family[i] for i in part]
            for family in families[name]
            for part in near_copies([dataset[i] for i in family], _EXACT)
        ]
        take(divided, quota[name])
    return chosen


def _quotas(size: dict[str, int], fraction: float) -> dict[str, int]:
    """Number of configurations each stratum gives, by largest remainders."""
    total = max(1, int(np.floor(fraction * sum(size.values()) + 0.5)))
    share = {name: fraction * n for name, n in size.items()}
    quota = {name: min(int(share[name]), size[name] - 1) for name in size}
    by_remainder = sorted(size, key=lambda name: (int(share[name]) - share[name], -size[name], name))
    for name in by_remainder:
        if sum(quota.values()) >= total:
            break
        if quota[name] < size[name] - 1:
            quota[name] += 1
    return quota


def near_copies(configurations: Sequence[Labelled], tolerance: float) -> list[list[int]]:
    """Families of near copies, as lists of indices; every configuration is in exactly one.

    Parameters
    ----------
    configurations
        The configurations.
    tolerance
        Largest difference of a component of cell and positions, Å.

    Notes
    -----
    Configurations with the same elements in the same order, and the same periodicity, are compared as
    points in the maximum norm by a k-d tree.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    alike: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for i, c in enumerate(configurations):
        alike[c.atoms.numbers.astype("<i8").tobytes(), c.atoms.pbc.tobytes()].append(i)
    families: list[list[int]] = []
    for members in alike.values():
        if len(members) == 1:
            families.append(members)
            continue
        points = np.array([_torus_point(configurations[i]) for i in members])
        pairs = cKDTree(points).query_pairs(tolerance, p=np.inf, output_type="ndarray")
        n = len(members)
        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        n_families, label = connected_components(graph, directed=False)
        found: list[list[int]] = [[] for _ in range(n_families)]
        for i, family in zip(members, label, strict=True):
            found[family].append(i)
        families.extend(found)
    return families


def _torus_point(configuration: Labelled) -> NDArray[np.float64]:
    """Cell and positions as coordinates in which distance is displacement; float64 [9 + 6 n_atoms], Å."""
    atoms = configuration.atoms
    if (
        abs(np.linalg.det(atoms.cell.complete().array)) < 1e-12
    ):  # dependent vectors: no fractional coordinates
        return np.concatenate([atoms.cell.array.ravel(), atoms.positions.ravel(), np.zeros(3 * len(atoms))])
    cell = atoms.cell.complete().array
    fractional = atoms.positions @ np.linalg.inv(cell)
    height = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # distance between opposite faces
    parts = [atoms.cell.array.ravel()]
    for axis in range(3):
        if atoms.pbc[axis]:
            angle = 2.0 * np.pi * fractional[:, axis]
            radius = height[axis] / (2.0 * np.pi)
            parts.extend([radius * np.cos(angle), radius * np.sin(angle)])
        else:
            parts.extend([height[axis] * fractional[:, axis], np.zeros(len(atoms))])
    return np.concatenate(parts)
