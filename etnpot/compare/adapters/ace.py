"""Linear atomic cluster expansion (ACE), trained by python-ace, the package of pacemaker.

The basis is pacemaker's: its bonds and shares of functions for each order and number of elements, cut to a number of functions
per element. With one linear density the energy is linear in the coefficients, and python-ace's `LinearACEFit` solves for them
at once: ridge regression of energies per atom and forces. Energies are those above the elements' energies, which are found by
least squares over compositions. There is nothing to iterate, so that a budget plays no part; no stress is trained on.

The whole design matrix is held: 8 bytes for each function of all elements and each row, three rows per atom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from etnpot.compare.adapters.base import Adapter, Job, composition_energies

__all__ = ["LinearACE"]

#: Radial functions and angular momenta by order, for pairs of elements and more: those of pacemaker's own input file.
_FUNCTIONS = {
    "UNARY": {"nradmax_by_orders": [15, 6, 4, 3, 2, 2], "lmax_by_orders": [0, 3, 3, 2, 2, 1]},
    "BINARY": {"nradmax_by_orders": [15, 6, 3, 2, 2, 1], "lmax_by_orders": [0, 3, 2, 1, 1, 0]},
    "TERNARY": {"nradmax_by_orders": [15, 3, 3, 2, 1], "lmax_by_orders": [0, 2, 2, 1, 1]},
    "ALL": {"nradmax_by_orders": [15, 3, 2, 1, 1], "lmax_by_orders": [0, 2, 2, 1, 1]},
}


class LinearACE(Adapter):
    """``functions`` per element; ``alpha`` of the ridge and weights of squared errors in eV/atom and eV/Å."""

    title = "linear ACE (python-ace)"
    environment = "ace"
    distributions = ("python-ace", "scikit-learn", "numpy")
    defaults: ClassVar[Mapping[str, Any]] = {
        "functions": 200,
        "cutoff": 5.0,
        "alpha": 1e-5,
        "energy_weight": 100.0,
        "forces_weight": 1.0,
    }

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Numbers above zero."""
        for name, value in settings.items():
            if not value > 0:
                raise ValueError(f"{name}: expected a number above zero, got {value}")

    def train(self, job: Job) -> dict[str, Any]:
        """One linear solve by python-ace."""
        import numpy as np
        import pandas as pd
        from pyace import ACEBBasisSet, create_multispecies_basis_config
        from pyace.linearacefit import LinearACEDataset, LinearACEFit
        from sklearn.linear_model import Ridge

        settings = job.settings
        frames = [
            atoms
            for atoms in job.frames("train")
            if atoms.calc is not None and {"energy", "forces"} <= atoms.calc.results.keys()
        ]
        if not frames:
            raise ValueError(f"{self.title} needs configurations with energy and forces")
        energies = {symbol: 0.0 for symbol in job.species} | composition_energies(frames)
        configuration = create_multispecies_basis_config({
            "deltaSplineBins": 0.001,
            "elements": sorted(job.species),
            "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1], "ndensity": 1}},
            "bonds": {
                "ALL": {
                    "radbase": "SBessel", "radparameters": [5.25], "rcut": float(settings["cutoff"]), "dcut": 0.01,
                    "NameOfCutoffFunction": "cos",
                }
            },
            "functions": {"number_of_functions_per_element": settings["functions"], **_FUNCTIONS},
        })  # fmt: skip
        rows = pd.DataFrame(
            {
                "ase_atoms": [bare(atoms) for atoms in frames],
                "energy_corrected": [
                    atoms.get_potential_energy() - sum(energies[s] for s in atoms.get_chemical_symbols())
                    for atoms in frames
                ],
                "forces": [atoms.get_forces() for atoms in frames],
            }
        )
        data = LinearACEDataset(ACEBBasisSet(configuration), rows)
        data.construct_design_matrix(max_workers=job.threads)
        n_rows = len(data.get_target_vector())
        weights = np.full(n_rows, float(settings["forces_weight"]))
        weights[: len(frames)] = settings["energy_weight"]
        fit = LinearACEFit(Ridge(alpha=settings["alpha"], fit_intercept=False), data)
        fit.fit(sample_weight=weights)
        fit.get_bbasis().save(str(job.directory / "potential.yaml"))
        (job.directory / "energies.json").write_text(json.dumps(energies) + "\n", encoding="utf-8")
        return {
            "n_parameters": int(data.nfunc),
            "epochs": 1,
            "note": "one linear solve, whatever the budget",
        }

    def calculator(self, job: Job) -> Any:
        """python-ace's calculator, with the energies of the elements."""
        from pyace import PyACECalculator

        energies = json.loads((job.directory / "energies.json").read_text(encoding="utf-8"))

        class WithElements(PyACECalculator):  # type: ignore[misc]
            """Adds them to what python-ace gives."""

            def calculate(self, atoms: Any = None, *arguments: Any, **options: Any) -> None:
                super().calculate(atoms, *arguments, **options)
                shift = sum(energies[symbol] for symbol in atoms.get_chemical_symbols())
                for name in ("energy", "free_energy"):
                    if name in self.results:
                        self.results[name] += shift

        return WithElements(str(job.directory / "potential.yaml"))


def bare(atoms: Any) -> Any:
    """Without labels."""
    copied = atoms.copy()
    copied.calc = None
    return copied
