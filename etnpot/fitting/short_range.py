"""What a fit does for the pairs that are closer than those of its data: the two atoms repel each other there.

No data say anything about such pairs, and a dimer is far from all data at every distance. Below d, where the data of a pair of
species begin (`etnpot.basis.data_distances`), with the potential V of two nuclei,

1. dimers at 0.83 d, the middle of the usual layer of (3), 0.9 d, 0.95 d, 0.975 d and d enter the loss of a fit. The force that
   pushes their atoms apart should be that of nuclei,

       w (F_d(r) + V'(r))²,     w = tau (F_rms / V'(r))²,     tau = min(1, n / (1000 n_d)),                                (1)

   with the root mean square F_rms of the n force components of the data. Little more than the sign is wanted: each of the n_d
   dimers that is wrong by all of V' counts at most as a component that is wrong by F_rms, all together as a thousandth of them,
   and one that is wrong by more is weighed down at every step, in proportion (`Prepared.counting`).
   They count in the polish, and there in full only those whose force is below a tenth of that of nuclei; those with more,
   but not all of it, should keep what they have (`Problem.demanding`).

2. Data often hold hot elements and alloys near their ground states. Where they hold such `etnpot.basis.cold_pairs`, pairs of
   the elements of those alloys are pushed together to 0.9 d, d, 1.1 d and 1.2 d in the midst of others: in calm configurations
   of the alloys, displaced at random and with elements drawn at random, half of them with a third atom close by. The force
   along the pair should be

       F_e(r) = g (V'(r_0) - V'(r)),                                                                                       (2)

   r_0 the distance before, with weights as in (1); those count in full that have less than half of it. Pairs for which there
   are data have forces of 0.55 to 1 times the parenthesis.

3. After the fit, the radii b > a of the repulsion (`etnpot.basis.repulsion`) are those in whose dimer the force

       F(r) = (1 - s) F_d(h) - s V' + S'(t) V / (b - a)                                                                      (3)

   is positive at all r < d: the usual ones if these are such, else those with the smallest

       (b/b_0 - 1) + q ln((b_0 - a_0)/b_0) - q ln((b - a)/b).                                                                (4)

   Where there are none, the layer keeps its width, b is 0.95 d at most, and the least of the attraction is left.
   No pair of the training set is closer than b, which therefore changes nothing on it.

============== =============================== ========
symbol         here                            unit
============== =============================== ========
d              ``shortest_zz``                 Å
F_d            `dimer_forces`                  eV/Å
F_e            ``push``                        eV/Å
g              `_PUSH`
1/1000, q      `_SHARE`, `_THINNING`
============== =============================== ========
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from etnpot.basis import Repulsion, cold_elements, data_distances, smooth_step, zbl
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.prepared import LossWeights, Prepared
from etnpot.io.structures import Labelled
from etnpot.neighbors import EdgeList, neighbor_list
from etnpot.potential import Potential

__all__ = [
    "attracting_dimers",
    "dimer_forces",
    "embedded_pairs",
    "repulsive_dimers",
    "repulsive_radii",
    "short_range_constraints",
]

Floats = NDArray[np.float64]
Pair = tuple[int, int]

#: Distances of the dimers of the loss, in units of d, and the largest part of the data that they count for.
_AT, _SHARE = (0.83, 0.9, 0.95, 0.975, 1.0), 0.001
#: The part of their forces that is enough, of dimers and of embedded pairs.
_ENOUGH_ALONE, _ENOUGH_EMBEDDED = 0.1, 0.5
#: Configurations of either kind for each distance and pair, displaced by which part of d; distances, in units of d; that of the
#: third atom; g.
_ENVIRONMENTS, _RATTLE = 3, 0.08
_PUSHED, _CROWDED, _PUSH = (0.9, 1.0, 1.1, 1.2), 1.05, 0.6
#: Layers (b - a)/b as parts of the usual one, the first of them where it will do; q; the step of b and how far it may go,
#: in units of d.
_LAYERS, _THINNING, _STEP, _FARTHEST = (1.0, 0.8, 2 / 3, 8 / 15, 0.4, 1 / 3, 4 / 15, 0.2), 0.05, 0.01, 1.1
#: No layer is as thin as that.
_THINNEST = 0.029
#: The largest b, in units of d, of a dimer that attracts whatever the radii.
_NEAREST = 0.95
#: The largest b, as a part of the cutoff.
_LARGEST = 0.9
#: Points of the scans, in which nothing but the rounding of a force is below this part of V'.
_POINTS, _SMALLEST_FORCE = 1200, 1e-3


def short_range_constraints(
    species: Sequence[int],
    cutoff: float,
    distances: Mapping[Pair, float],
    data: DataSet,
    weights: LossWeights,
) -> list[Prepared]:
    """The dimers and the embedded pairs, as configurations of a fit.

    Parameters
    ----------
    species, cutoff, distances, data
        As for `repulsive_dimers`.
    weights : LossWeights
        Of the data.
    """
    return [
        Prepared.of(labelled, cutoff, weights).demanded(enough)
        for of, enough in ((repulsive_dimers, _ENOUGH_ALONE), (embedded_pairs, _ENOUGH_EMBEDDED))
        for labelled in of(species, cutoff, distances, data)
    ]


def repulsive_dimers(
    species: Sequence[int], cutoff: float, distances: Mapping[Pair, float], data: DataSet
) -> DataSet:
    """The dimers of eq. (1), for the pairs of species that the data hold.

    Parameters
    ----------
    species : sequence of int
        Atomic numbers, ascending.
    cutoff : float, Å
    distances : mapping of (int, int) to float, Å
        Shortest distances of the data.
    data : DataSet
        With whose forces they are compared.
    """
    shortest_zz = data_distances(species, cutoff, distances)
    places = [
        (z, w, part * float(shortest_zz[i, j]))
        for i, z in enumerate(species)
        for j, w in enumerate(species[i:], start=i)
        if distances.get((z, w), cutoff) < _LARGEST * cutoff
        for part in _AT
    ]
    rms_force = data.rms_force
    share = min(1.0, _SHARE * data.n_forces / max(len(places), 1)) if data.n_forces else 1.0
    found = []
    for z, w, r in places:
        push = -float(zbl(r, z, w)[1])
        weight = min(1.0, share * (rms_force / push) ** 2) if push > 0 else 0.0
        if weight > 0:
            atoms = Atoms([z, w], [[0.0, 0.0, 0.0], [r, 0.0, 0.0]])
            forces = np.array([[-push, 0.0, 0.0], [push, 0.0, 0.0]])
            found.append(Labelled(atoms, forces=forces, weight=weight))
    return DataSet(found)


def embedded_pairs(
    species: Sequence[int], cutoff: float, distances: Mapping[Pair, float], data: DataSet
) -> DataSet:
    """Pairs of atoms pushed together in the midst of others, with the forces of eq. (2) on them, along x.

    Parameters
    ----------
    species, cutoff, distances, data
        As for `repulsive_dimers`.
    """
    shortest_zz = data_distances(species, cutoff, distances)
    alloyed = cold_elements(species, cutoff, distances)
    calm = _calm_alloys(data, set(alloyed))
    rng = np.random.default_rng(0)
    pushed = []
    for index, z in enumerate(alloyed if calm else []):
        for w in alloyed[index:]:
            d = float(shortest_zz[species.index(z), species.index(w)])
            for part, crowded in product(_PUSHED, [False, True] * _ENVIRONMENTS):
                atoms = calm[rng.integers(len(calm))].atoms.copy()
                atoms.positions += rng.normal(scale=_RATTLE * d, size=(len(atoms), 3))
                atoms.numbers[:] = rng.choice([z, w] if crowded else alloyed, len(atoms))
                pair, r_c = _nearest(atoms, cutoff)
                atoms.numbers[list(pair)] = z, w
                r_0, r = float(np.linalg.norm(r_c)), part * d
                if r >= r_0:
                    continue
                _pull(atoms, pair, r_c, r)
                if crowded:
                    third, r_3c = _nearest(atoms, cutoff, pair)
                    if np.linalg.norm(r_3c) > _CROWDED * d:
                        _pull(atoms, third, r_3c, _CROWDED * d, second_only=True)
                atoms.rotate(r_c, "x", rotate_cell=True)
                push = _PUSH * float(zbl(r_0, z, w)[1] - zbl(r, z, w)[1])
                forces = np.zeros((len(atoms), 3))
                forces[list(pair), 0] = -push, push
                pushed.append((atoms, forces))
    square = min(1.0, _SHARE * data.n_forces / max(len(pushed), 1)) * data.rms_force**2
    return DataSet(
        Labelled(atoms, forces=f, weight=min(1.0, square / float(f.max()) ** 2)) for atoms, f in pushed
    )


def _nearest(
    atoms: Atoms, cutoff: float, pair: tuple[int, int] | None = None
) -> tuple[tuple[int, int], Floats]:
    """The closest two atoms, or the first of a pair and its closest neighbour that is not the other, and the vector between."""
    edges = neighbor_list(atoms, cutoff)
    allowed = edges.center != edges.neighbor
    if pair is not None:
        allowed &= (edges.center == pair[0]) & (edges.neighbor != pair[1])
    p = np.argmin(np.where(allowed, np.einsum("pc,pc->p", edges.r_pc, edges.r_pc), np.inf))
    return (int(edges.center[p]), int(edges.neighbor[p])), edges.r_pc[p]


def _pull(atoms: Atoms, pair: tuple[int, int], r_c: Floats, r: float, *, second_only: bool = False) -> None:
    """Move both atoms, or the second alone, along the vector between them until they are r apart."""
    share = np.array([0.0, -1.0] if second_only else [0.5, -0.5])
    atoms.positions[list(pair)] += (1.0 - r / np.linalg.norm(r_c)) * share[:, None] * r_c


def _calm_alloys(data: DataSet, alloyed: set[int]) -> list[Labelled]:
    """Of the configurations of several of these elements and no others, the half with fewer atoms and little force."""
    found = []
    for index, labelled in enumerate(data):
        numbers = set(labelled.atoms.numbers.tolist())
        if len(numbers) > 1 and numbers <= alloyed and labelled.forces is not None:
            found.append((labelled.n_atoms, float(np.abs(labelled.forces).mean()), index))
    return [data[index] for _, _, index in sorted(found)[: (len(found) + 1) // 2]]


def dimer_forces(potential: Potential, pairs: Sequence[Pair], r_kr: Floats) -> Floats:
    """Force that pushes the atoms of dimers apart, eV/Å.

    Parameters
    ----------
    potential : Potential
    pairs : sequence of (int, int) [k]
        Atomic numbers.
    r_kr : float64 [k, r], Å

    Returns
    -------
    float64 [k, r]
    """
    n = r_kr.size
    r_pc = np.zeros((2 * n, 3))
    r_pc[0::2, 0], r_pc[1::2, 0] = r_kr.ravel(), -r_kr.ravel()
    edges = EdgeList(np.arange(2 * n + 1), np.arange(2 * n) ^ 1, r_pc, group=np.arange(2 * n) // 2)
    numbers = np.repeat(np.array(pairs), r_kr.shape[1], axis=0).ravel()
    forces: Floats = potential.evaluate(edges, numbers, threads=1).forces[1::2, 0].reshape(r_kr.shape)
    return forces


def repulsive_radii(potential: Potential, distances: Mapping[Pair, float]) -> Repulsion:
    """The radii of a potential with which dimers repel below the distances of the data, as far as any radii do that.

    Parameters
    ----------
    potential : Potential
        With its bounds of the learned energy; its own radii do not matter.
    distances : mapping of (int, int) to float, Å
        Shortest distances of the data.
    """
    species, cutoff = potential.species, potential.cutoff
    usual = Repulsion.for_species(species, cutoff, distances)
    shortest_zz = data_distances(species, cutoff, distances)
    inner, outer = np.array(usual.inner), np.array(usual.outer)
    pairs, reach_k, limit_k = [], [], []
    for i, z in enumerate(species):
        for j, w in enumerate(species[i:], start=i):
            d = float(shortest_zz[i, j])
            pairs.append((i, j))
            reach_k.append(d)
            limit_k.append(
                max(min(distances.get((z, w), np.inf), _FARTHEST * d, _LARGEST * cutoff), outer[i, j])
            )
    # h does not fall below the middle of the layer
    r_kr = np.linspace(
        [0.4 * outer[ij] + 0.6 * inner[ij] for ij in pairs],
        [max(limit, d) for limit, d in zip(limit_k, reach_k, strict=True)],
        _POINTS, axis=1,
    )  # fmt: skip
    numbers = [(species[i], species[j]) for i, j in pairs]
    learned_kr = dimer_forces(potential.with_repulsion(None), numbers, r_kr)
    for k, (i, j) in enumerate(pairs):
        learned = _interpolated(r_kr[k], learned_kr[k])
        chosen = _radii(numbers[k], (inner[i, j], outer[i, j]), reach_k[k], limit_k[k], learned)
        if chosen is not None:
            inner[i, j], outer[i, j] = inner[j, i], outer[j, i] = np.floor(1e6 * np.array(chosen)) / 1e6
    return Repulsion(tuple(map(tuple, inner.tolist())), tuple(map(tuple, outer.tolist())))


def attracting_dimers(
    potential: Potential, distances: Mapping[Pair, float]
) -> dict[Pair, tuple[float, float]]:
    """Pairs of species whose dimers attract somewhere below the distances of the data, and from where to where, Å."""
    species = potential.species
    shortest_zz = data_distances(species, potential.cutoff, distances)
    places = [(i, j) for i in range(len(species)) for j in range(i, len(species))]
    pairs = [(species[i], species[j]) for i, j in places]
    r_kr = np.linspace(
        [0.5 * shortest_zz[ij] for ij in places], [shortest_zz[ij] for ij in places], _POINTS, axis=1
    )
    forces_kr = dimer_forces(potential, pairs, r_kr)
    found = {}
    for pair, r, force in zip(pairs, r_kr, forces_kr, strict=True):
        attracting = r[force <= 0]
        if len(attracting):
            found[pair] = float(attracting[0]), float(attracting[-1])
    return found


def _interpolated(r: Floats, force: Floats) -> Callable[[Floats], Floats]:
    def learned(x: Floats) -> Floats:
        return np.interp(x, r, force)

    return learned


def _radii(
    pair: Pair,
    usual: tuple[float, float],
    reach: float,
    limit: float,
    learned: Callable[[Floats], Floats],
) -> tuple[float, float] | None:
    """a and b of a pair of species; None where the usual ones will do.

    Where no radii make all of the dimer repulsive, as where it attracts at d itself, those with the usual layer for which the
    least is left, at some distance from the data: thinner and larger ones cost more, in the forces of configurations that come
    that close, than they gain. Carbon atoms alone attract each other at the length of a bond, and in a molecule are held apart.
    """
    # a may be anywhere below d; below it there is nothing but V
    usual_inner, usual_outer = usual
    usual_layer = 1.0 - usual_inner / usual_outer
    r = np.linspace(usual_inner, reach, _POINTS)
    outer_b = np.arange(usual_outer, limit + 1e-9, _STEP * reach)
    if limit - outer_b[-1] > 1e-6:
        outer_b = np.append(outer_b, limit)
    candidates = sorted(
        (b / usual_outer - 1.0 - _THINNING * np.log(part), float(b), part)
        for b in outer_b
        for part in _LAYERS
        if part * usual_layer > _THINNEST
    )
    least_bad, best = len(r) + 1, None
    for _, b, part in candidates:
        inner = (1 - part * usual_layer) * b
        force, slope = _force(pair, inner, b, r, learned)
        attracting = r[force <= _SMALLEST_FORCE * -slope]
        if not len(attracting):
            return None if (b, part) == (usual_outer, _LAYERS[0]) else (inner, b)
        near = b > max(_NEAREST * reach, usual_outer)
        if part == _LAYERS[0] and not near and len(attracting) < least_bad:
            least_bad, best = len(attracting), (inner, b)
    return best


def _force(
    pair: Pair, inner: float, outer: float, r: Floats, learned: Callable[[Floats], Floats]
) -> tuple[Floats, Floats]:
    """Eq. (3), and V'."""
    s, slope, integral = smooth_step((outer - r) / (outer - inner))
    value, derivative = zbl(r, *pair)
    held = outer - (outer - inner) * integral
    return (1 - s) * learned(held) - s * derivative + slope * value / (outer - inner), derivative
