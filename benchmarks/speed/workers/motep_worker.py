"""motep's compiled engine: moment tensor potentials of level 8, 12, 16, 20 with random coefficients.

The neighbour list is motep's own, with its skin: positions hardly move between calls, so that it is not built again ("step"); a
call with a new list is timed apart.
"""

from __future__ import annotations

import time
from importlib.metadata import version

import common
import numpy as np
from ase.data import atomic_numbers
from motep.calculator import MTP

from etnpot.compare.adapters.moment_tensor import moment_tensor_potential

RADIAL_SIZE = 8
MIN_DISTANCE = 1.9


def main() -> None:
    """Time one level at one size."""
    values = common.task()
    atoms = common.cell(values["n_atoms"])
    species = sorted({atomic_numbers[symbol] for symbol in atoms.get_chemical_symbols()})
    rng = np.random.default_rng(0)
    data = moment_tensor_potential(
        int(values["model"].removeprefix("mtp")),
        species,
        cutoff=common.CUTOFF,
        min_distance=MIN_DISTANCE,
        radial_size=RADIAL_SIZE,
        radial_coeffs=lambda shape: rng.uniform(-0.1, 0.1, shape),
        moment_coeffs=lambda shape: 1e-4 * rng.normal(size=shape),
        species_coeffs=np.zeros,
    )
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
