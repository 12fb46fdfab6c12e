"""NEP on the processor, through calorine: a model file with the defaults of NEP4 and random weights.

Radial and angular cutoff are those of the cell; the file is written here, as its cost does not depend on the weights. NEP
builds its neighbour list at every call.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import common
import numpy as np
from calorine.calculators import CPUNEP

SPECIES = common.SPECIES[:4]
#: GPUMD's defaults: n_max 4 4, basis_size 8 8, l_max 4 2 0, 30 neurons.
N_MAX, BASIS_SIZE, L_MAX, NEURONS = 4, 8, (4, 2, 0), 30


def write_model(path: Path) -> int:
    """A potential file; returns its number of parameters."""
    rng = np.random.default_rng(0)
    n_types = len(SPECIES)
    dimension = (N_MAX + 1) + (N_MAX + 1) * (L_MAX[0] + (L_MAX[1] > 0) + (L_MAX[2] > 0))
    network = n_types * (dimension + 2) * NEURONS + 1
    descriptor = n_types**2 * 2 * (N_MAX + 1) * (BASIS_SIZE + 1)
    lines = [
        f"nep4 {n_types} {' '.join(SPECIES)}",
        f"cutoff {common.CUTOFF:g} {common.CUTOFF:g} 200 200",
        f"n_max {N_MAX} {N_MAX}",
        f"basis_size {BASIS_SIZE} {BASIS_SIZE}",
        "l_max " + " ".join(map(str, L_MAX)),
        f"ANN {NEURONS} 0",
    ]
    weights = 0.1 * rng.normal(size=network + descriptor)
    lines += [f"{value:15.7e}" for value in weights]
    lines += [f"{1.0:15.7e}"] * dimension
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return network + descriptor


def main() -> None:
    """Time one size."""
    values = common.task()
    atoms = common.cell(values["n_atoms"], SPECIES)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "nep.txt"
        n_parameters = write_model(path)
        timing = common.time_calculator(atoms, CPUNEP(str(path)), budget=values["budget"])
    common.report(
        timing,
        with_list=timing,
        n_parameters=n_parameters,
        versions={"calorine": version("calorine")},
    )


if __name__ == "__main__":
    main()
