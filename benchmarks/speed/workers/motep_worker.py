"""motep's compiled engine: moment tensor potentials of level 8, 12, 16, 20 with random coefficients.

The contractions of each level come from the tables in the motep package; here they are written out as the products of
tensor components that its compiled engine reads. Equal products are kept once. The neighbour list is motep's own, with its
skin: positions hardly move between calls, so that it is not built again ("step"); a call with a new list is timed apart.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import common
import motep
import numpy as np
from ase.data import atomic_numbers
from motep.calculator import MTP
from motep.potentials.mtp.data import MTPData

RADIAL_SIZE = 8
MIN_DISTANCE = 1.9


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


def moment_tensor_potential(level: int, species: list[int]) -> MTPData:
    """Random coefficients for the basis of a level."""
    folder = Path(motep.__file__).parent / "potentials" / "mtp" / "jax" / "precomputed_moments"
    moments = json.loads((folder / f"moments_level{level}.json").read_text(encoding="utf-8"))
    products = Products()
    for moment in moments:
        products.gather_basic(moment)
    scalars = [products.node(moment, ()) for moment in moments]
    times = [(*pair, count, at) for content, at in products.products.items() for pair, count in content]
    radial_funcs = 1 + max(mu for mu, *_ in products.basic)
    rng = np.random.default_rng(0)
    n = len(species)
    data = MTPData(
        version="1.1.0",
        potential_name=f"level {level}",
        species_count=n,
        radial_basis={"type": "RBChebyshev", "min": MIN_DISTANCE, "max": common.CUTOFF, "size": RADIAL_SIZE},
        radial_funcs_count=radial_funcs,
        radial_coeffs=rng.uniform(-0.1, 0.1, (n, n, radial_funcs, RADIAL_SIZE)),
        alpha_moments_count=len(products.basic) + len(products.products),
        alpha_index_basic_count=len(products.basic),
        alpha_index_basic=np.array(list(products.basic), dtype=np.int32),
        alpha_index_times_count=len(times),
        alpha_index_times=np.array(times, dtype=np.int32).reshape(-1, 4),
        alpha_scalar_moments=len(scalars),
        alpha_moment_mapping=np.array(scalars, dtype=np.int32),
        species_coeffs=np.zeros(n),
        moment_coeffs=1e-4 * rng.normal(size=len(scalars)),
    )
    data.species = np.array(species, dtype=np.int32)
    return data


def main() -> None:
    """Time one level at one size."""
    values = common.task()
    atoms = common.cell(values["n_atoms"])
    species = sorted({atomic_numbers[symbol] for symbol in atoms.get_chemical_symbols()})
    data = moment_tensor_potential(int(values["model"].removeprefix("mtp")), species)
    calculator = MTP(data, engine="cext")
    atoms.calc = calculator
    begin, begin_processor = time.perf_counter(), time.process_time()
    atoms.get_potential_energy()
    first = {
        "seconds": time.perf_counter() - begin,
        "processor_seconds": time.process_time() - begin_processor,
    }
    timing = common.time_calculator(atoms, calculator, budget=values["budget"], warm=1)
    common.report(
        timing,
        with_list=first,
        n_parameters=int(data.parameters.size),
        size={
            "moments": int(data.alpha_moments_count),
            "products": int(data.alpha_index_times_count),
            "scalars": int(data.alpha_scalar_moments),
        },
        versions={"motep": version("motep"), "numpy": np.__version__},
    )


if __name__ == "__main__":
    main()
