"""Moment tensor potentials of a level, as motep's compiled engine reads them.

The contractions of each level come from the tables in the motep package; here they are written out as the products of tensor
components. Equal products are kept once.

Runs where motep is installed.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["moment_tensor_potential"]


class Products:
    """Tensor components as numbered nodes: monomials first, then sums of products of two earlier nodes."""

    def __init__(self) -> None:
        self.basic: dict[tuple[int, int, int, int], int] = {}
        self.products: dict[tuple[tuple[tuple[int, int], int], ...], int] = {}
        self._known: dict[tuple[str, tuple[int, ...]], int] = {}

    def gather_basic(self, moment: Any) -> None:
        """Number the monomials of every basic moment below `moment`."""
        if isinstance(moment[0], list):
            self.gather_basic(moment[0])
            self.gather_basic(moment[1])
            return
        mu, nu = moment[0], moment[1]
        for x in range(nu, -1, -1):
            for y in range(nu - x, -1, -1):
                self.basic.setdefault((mu, x, y, nu - x - y), len(self.basic))

    def node(self, moment: Any, index: tuple[int, ...]) -> int:
        """Number of one component of a moment (all monomials are numbered by then)."""
        if not isinstance(moment[0], list):
            counts = Counter(index)
            return self.basic[moment[0], counts[0], counts[1], counts[2]]
        key = json.dumps(moment), index
        if key in self._known:
            return self._known[key]
        left, right, _, (axes_left, axes_right) = moment
        free_left, free_right = rank(left) - len(axes_left), rank(right) - len(axes_right)
        terms: Counter[tuple[int, int]] = Counter()
        for summed in itertools.product(range(3), repeat=len(axes_left)):
            a = self.node(left, spread(index[:free_left], summed, axes_left))
            b = self.node(right, spread(index[free_left : free_left + free_right], summed, axes_right))
            terms[min(a, b), max(a, b)] += 1
        content = tuple(sorted(terms.items()))
        self._known[key] = self.products.setdefault(content, len(self.basic) + len(self.products))
        return self._known[key]


def rank(moment: Any) -> int:
    """Number of indices of a moment."""
    if not isinstance(moment[0], list):
        return int(moment[1])
    return rank(moment[0]) + rank(moment[1]) - 2 * len(moment[3][0])


def spread(free: tuple[int, ...], summed: tuple[int, ...], axes: list[int]) -> tuple[int, ...]:
    """All indices of a tensor, the summed ones at their axes and the free ones in between."""
    at = dict(zip(axes, summed, strict=True))
    rest = iter(free)
    return tuple(at[axis] if axis in at else next(rest) for axis in range(len(free) + len(axes)))


def moment_tensor_potential(
    level: int,
    species: Sequence[int],
    *,
    cutoff: float,
    min_distance: float,
    radial_size: int,
    radial_coeffs: Any = None,
    moment_coeffs: Any = None,
    species_coeffs: Any = None,
) -> Any:
    """The basis of a level, without coefficients unless these are given.

    Parameters
    ----------
    level : int
        Even, 2 to 24.
    species : sequence of int
        Atomic numbers.
    cutoff, min_distance : float, Å
    radial_size : int
        Number of radial functions.
    radial_coeffs, moment_coeffs, species_coeffs : callable, optional
        Make the array of a shape.

    Returns
    -------
    motep.potentials.mtp.data.MTPData
    """
    import motep
    import numpy as np
    from motep.potentials.mtp.data import MTPData

    folder = Path(motep.__file__).parent / "potentials" / "mtp" / "jax" / "precomputed_moments"
    moments = json.loads((folder / f"moments_level{level}.json").read_text(encoding="utf-8"))
    products = Products()
    for moment in moments:
        products.gather_basic(moment)
    scalars = [products.node(moment, ()) for moment in moments]
    times = [(*pair, count, at) for content, at in products.products.items() for pair, count in content]
    radial_funcs = 1 + max(mu for mu, *_ in products.basic)
    n = len(species)

    def made(maker: Any, *shape: int) -> Any:
        return None if maker is None else maker(shape)

    data = MTPData(
        version="1.1.0",
        potential_name=f"level {level}",
        species_count=n,
        radial_basis={"type": "RBChebyshev", "min": min_distance, "max": cutoff, "size": radial_size},
        radial_funcs_count=radial_funcs,
        radial_coeffs=made(radial_coeffs, n, n, radial_funcs, radial_size),
        alpha_moments_count=len(products.basic) + len(products.products),
        alpha_index_basic_count=len(products.basic),
        alpha_index_basic=np.array(list(products.basic), dtype=np.int32),
        alpha_index_times_count=len(times),
        alpha_index_times=np.array(times, dtype=np.int32).reshape(-1, 4),
        alpha_scalar_moments=len(scalars),
        alpha_moment_mapping=np.array(scalars, dtype=np.int32),
        species_coeffs=made(species_coeffs, n),
        moment_coeffs=made(moment_coeffs, len(scalars)),
    )
    data.species = np.array(species, dtype=np.int32)
    return data
