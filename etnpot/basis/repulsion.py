"""The short range: a screened nuclear repulsion, and bounds of the learned energy.

    E_i = E0[z_i] + f(x_i) + u_i,      u_i = 1/2 sum_j s(r_ij) V(r_ij),      x_i = x_d(v_i)                 (1)

V is the universal potential of Ziegler, Biersack and Littmark (1985) between two nuclei,

    V(r) = (e²/4πε0) Z_i Z_j phi(r/l) / r,   l = 0.8854 a0 / (Z_i^0.23 + Z_j^0.23),   phi(x) = sum_k c_k e^(-d_k x),   (2)

switched on between two radii b > a of each pair of species by the smooth step S, and the features v_i are those of
vectors whose length h does not fall below the middle of the two,

    s = S(t),   h = b - (b - a) I(t),   t = (b - r)/(b - a),   S = 35 t⁴ - 84 t⁵ + 70 t⁶ - 20 t⁷,   I = int (1 - S),   (3)

with S = 0 for t <= 0 and 1 for t >= 1, so that h' = 1 - s. The learned energy x of an atom is left alone between two
bounds and comes to rest beyond them,

    f(x) = x_low - D I((x_low - x)/D) below x_low,      x_high + D I((x - x_high)/D) above x_high,         (4)

because a polynomial of many crowded neighbours can go anywhere, faster than any repulsion of pairs.

============== =============================== ========
symbol         here                            unit
============== =============================== ========
b, a           ``outer``, ``inner``            Å
V, V'          `zbl`                           eV, eV/Å
S, S', I       `smooth_step`
f, f', f''     `bounded`                       eV, 1, 1/eV
D              `BOUND_WIDTH`                   eV
============== =============================== ========
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.errors import SpecificationError

__all__ = [
    "BOUND_WIDTH",
    "REPULSIONS",
    "ZBL_CONSTANTS",
    "Repulsion",
    "bounded",
    "cold_elements",
    "cold_pairs",
    "data_distances",
    "smooth_step",
    "zbl",
]

Floats = NDArray[np.float64]

#: Names of the setting.
REPULSIONS = ("zbl", "none")
#: D: the learned energy rests half of this beyond its bounds, eV.
BOUND_WIDTH = 1.0
#: e²/(4πε0), eV Å, and 0.8854 a0, Å.
COULOMB, SCREENING_LENGTH = 14.399645, 0.46850
#: Exponent of the nuclear charges in the screening length.
SCREENING_POWER = 0.23
#: c_k, which add up to one, and d_k of the screening function.
_AMPLITUDES = np.array([0.18175, 0.50986, 0.28022, 0.02817])
_RATES = np.array([3.19980, 0.94229, 0.40290, 0.20162])
#: All constants of V: e²/(4πε0), 0.8854 a0, the exponent, c_k, d_k.
ZBL_CONSTANTS = (COULOMB, SCREENING_LENGTH, SCREENING_POWER, *_AMPLITUDES.tolist(), *_RATES.tolist())
#: a/b where radii are chosen, not given.
_INNER = 0.85
#: b over the shortest distance in the data: pairs of elements of which there are few come closer in other configurations.
#: Where that leaves dimers that attract, `etnpot.fitting.short_range` chooses other radii after a fit.
_SEEN = 0.9
#: b over the sum of covalent radii, for elements that were never seen close to one another.
_UNSEEN = 0.8
#: Pairs of elements are cold whose data begin so much farther out than d.
_COLD = 1.2
#: The largest b, as a part of the cutoff, and the smallest, Å.
_LARGEST, _SMALLEST = 0.9, 1e-3


def smooth_step(t: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """S(t), dS/dt and I(t), the integral of 1 - S from 0 to t; S has three continuous derivatives.

    I is t below 0 and 1/2 from 1 on.
    """
    t = np.asarray(t, dtype=np.float64)
    x = np.clip(t, 0.0, 1.0)
    x4 = x**4
    step = x4 * (35.0 - x * (84.0 - x * (70.0 - 20.0 * x)))
    slope = 140.0 * (x * (1.0 - x)) ** 3
    integral = np.minimum(t, 0.0) + x - x4 * x * (7.0 - x * (14.0 - x * (10.0 - 2.5 * x)))
    return step, slope, integral


def zbl(r: ArrayLike, z_i: ArrayLike, z_j: ArrayLike) -> tuple[Floats, Floats]:
    """V (eV) and V' (eV/Å) between nuclei of charges z_i and z_j at distances r (Å), eq. (2)."""
    r, z_i, z_j = (np.asarray(x, dtype=np.float64) for x in (r, z_i, z_j))
    inverse = (z_i**SCREENING_POWER + z_j**SCREENING_POWER) / SCREENING_LENGTH
    terms = _AMPLITUDES * np.exp(-_RATES * (r * inverse)[..., None])
    phi, dphi = terms.sum(axis=-1), -(terms @ _RATES) * inverse
    scale = COULOMB * z_i * z_j / r
    return scale * phi, scale * (dphi - phi / r)


def bounded(x: ArrayLike, low: float, high: float) -> tuple[Floats, Floats, Floats]:
    """f(x), f'(x) and f''(x), eq. (4), x and bounds in eV; f(x) is x to the last bit between the bounds."""
    x = np.asarray(x, dtype=np.float64)
    below = x < low
    t = np.where(below, low - x, x - high) / BOUND_WIDTH
    step, slope, integral = smooth_step(np.maximum(t, 0.0))
    rest = np.where(below, low - BOUND_WIDTH * integral, high + BOUND_WIDTH * integral)
    inside = t <= 0.0
    return (
        np.where(inside, x, rest),
        1.0 - step,
        np.where(below, slope, -slope) / BOUND_WIDTH,
    )


def data_distances(
    species: Sequence[int], cutoff: float, distances: Mapping[tuple[int, int], float] | None = None
) -> Floats:
    """Where the data of each pair of species begin, Å, float64 [z_i, z_j].

    Parameters
    ----------
    species : sequence of int
        Atomic numbers, ascending.
    cutoff : float, Å
        No distance exceeds it.
    distances : mapping of (int, int) to float, Å
        Shortest distance of pairs of atomic numbers, the smaller number first. Where the mean of the two elements' own
        distances is less, that is taken: data hold alloys near their ground states beside hot elements. For a pair that
        is missing, it is 0.8/0.9 times the sum of the covalent radii.
    """
    from ase.data import covalent_radii

    known = distances or {}
    found = np.empty((len(species), len(species)))
    for i, z_i in enumerate(species):
        for j, z_j in enumerate(species):
            seen = known.get((min(z_i, z_j), max(z_i, z_j)))
            if seen is not None and (z_i, z_i) in known and (z_j, z_j) in known:
                seen = min(seen, 0.5 * (known[z_i, z_i] + known[z_j, z_j]))
            unseen = _UNSEEN / _SEEN * float(covalent_radii[z_i] + covalent_radii[z_j])
            found[i, j] = max(min(unseen if seen is None else seen, cutoff * _LARGEST / _SEEN), _SMALLEST)
    return found


def cold_pairs(
    species: Sequence[int], cutoff: float, distances: Mapping[tuple[int, int], float] | None = None
) -> list[tuple[int, int]]:
    """Pairs of elements, of atomic numbers, whose data begin much farther out than those of the two elements alone.

    Such data hold hot elements and alloys near their ground states: what the atoms of a hot alloy do is in no data.

    Parameters
    ----------
    species, cutoff, distances
        As for `data_distances`.
    """
    known = distances or {}
    shortest_zz = data_distances(species, cutoff, known)
    return [
        (z, w)
        for i, z in enumerate(species)
        for j, w in enumerate(species[i + 1 :], start=i + 1)
        if known.get((z, w), 0.0) > _COLD * shortest_zz[i, j] and known[z, w] < _LARGEST * cutoff
    ]


def cold_elements(
    species: Sequence[int], cutoff: float, distances: Mapping[tuple[int, int], float] | None = None
) -> list[int]:
    """Elements of `cold_pairs`, ascending atomic numbers."""
    return sorted({z for pair in cold_pairs(species, cutoff, distances) for z in pair})


@dataclass(frozen=True)
class Repulsion:
    """The radii between which the repulsion of each pair of species is switched on.

    Parameters
    ----------
    inner, outer : tuple of tuples of float, Å
        [z_i, z_j], symmetric: the repulsion is that of two nuclei below ``inner`` and zero from ``outer`` on.
    kind : {"zbl"}
    """

    inner: tuple[tuple[float, ...], ...]
    outer: tuple[tuple[float, ...], ...]
    kind: str = "zbl"

    def __post_init__(self) -> None:
        if self.kind != "zbl":
            raise SpecificationError(f"repulsion: expected the kind 'zbl', got {self.kind!r}")
        tables = []
        for name in ("inner", "outer"):
            try:
                table = np.array(getattr(self, name), dtype=np.float64)
            except (TypeError, ValueError):
                table = np.empty(0)
            if table.ndim != 2 or len(table) != table.shape[1] or not len(table):
                raise SpecificationError(
                    f"repulsion: expected {name} radii (Å) as a square table over the species, got "
                    f"{getattr(self, name)!r}"
                )
            if not np.isfinite(table).all() or (table != table.T).any():
                raise SpecificationError(
                    f"repulsion: expected finite {name} radii that are the same for (z_i, z_j) and (z_j, z_i), "
                    f"got {table.tolist()}"
                )
            object.__setattr__(self, name, tuple(tuple(float(x) for x in row) for row in table))
            tables.append(table)
        if tables[0].shape != tables[1].shape or not ((tables[0] > 0) & (tables[0] < tables[1])).all():
            raise SpecificationError(
                f"repulsion: expected 0 < inner < outer for every pair of species, got inner radii "
                f"{tables[0].tolist()} and outer radii {tables[1].tolist()}"
            )

    @classmethod
    def for_species(
        cls,
        species: Sequence[int],
        cutoff: float,
        distances: Mapping[tuple[int, int], float] | None = None,
    ) -> Repulsion:
        """Radii from the shortest distances of data, or from covalent radii.

        Parameters
        ----------
        species, cutoff, distances
            As for `data_distances`: ``outer`` is 0.9 times as large.
        """
        outer = np.round(_SEEN * data_distances(species, cutoff, distances), 6)
        inner = np.round(_INNER * outer, 6)
        return cls(tuple(map(tuple, inner.tolist())), tuple(map(tuple, outer.tolist())))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the file."""
        return {"kind": self.kind, "inner": [*map(list, self.inner)], "outer": [*map(list, self.outer)]}

    @classmethod
    def from_dict(cls, values: Any) -> Repulsion:
        """From plain values."""
        if not isinstance(values, Mapping) or set(values) != {"kind", "inner", "outer"}:
            raise SpecificationError(f"repulsion: expected the fields kind, inner and outer, got {values!r}")
        return cls(values["inner"], values["outer"], values["kind"])
