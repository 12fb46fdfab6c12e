"""Tensor models beside a potential: what `etnpot.ETNCalculator` adds to its results.

=============== ====================== ============== =====================================================
property        model                  shape          unit
=============== ====================== ============== =====================================================
dipole          vector, total          float64 [c]    e Å; about the origin of the coordinates for ions
charges         dipole with charges    float64 [i]    e, they add up to ``atoms.info["charge"]``, or zero
polarizability  symmetric, total       float64 [c, c] e²Å²/eV
=============== ====================== ============== =====================================================
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError, StructureError
from etnpot.neighbors import NeighborCache, check_distances, check_structure
from etnpot.potential import TensorEvaluation, TensorModel, load_tensor
from etnpot.potential.tensor import check_boundaries, total_charge

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["FORMS_OF_PROPERTIES", "TensorEvaluator", "model_and_label"]

Floats = NDArray[np.float64]

#: The form that the model of each property has.
FORMS_OF_PROPERTIES = {"dipole": "vector", "polarizability": "symmetric"}


class TensorEvaluator:
    """One tensor model with its neighbour list."""

    def __init__(self, model: TensorModel, skin: float) -> None:
        self.model = model
        self._neighbors = NeighborCache(model.cutoff, skin)

    def _arguments(self, atoms: Atoms) -> tuple[Any, dict[str, Any]]:
        check_structure(atoms)
        check_boundaries(self.model.quantity, atoms)
        self.model.type_index(atoms.numbers)
        edges = self._neighbors.edges(atoms)
        check_distances(edges)
        return edges, {"positions": atoms.positions, "charge": total_charge(atoms)}

    def results(self, atoms: Atoms, name: str) -> dict[str, Any]:
        """Results of the calculator, the property `name` among them."""
        edges, options = self._arguments(atoms)
        found = self.model.evaluate(edges, atoms.numbers, **options)
        _check(found.total, name)
        results: dict[str, Any] = {name: found.total}
        if found.charge_i is not None:
            results["charges"] = found.charge_i.copy()
        return results

    def derivatives(self, atoms: Atoms, name: str) -> tuple[TensorEvaluation, Floats]:
        """The property and its derivatives by the positions, [n_atoms, 3, ...]."""
        edges, options = self._arguments(atoms)
        found, derivative = self.model.derivatives(edges, atoms.numbers, **options)
        _check(derivative, name)
        return found, derivative


def _check(values: Floats, name: str) -> None:
    if not np.isfinite(values).all():
        raise StructureError(
            f"the {name} of this structure is not finite: look at the structure, and at the parameters of the model"
        )


def model_and_label(name: str, model: Any) -> tuple[TensorModel | None, str | None]:
    """The model of a property, and what ASE's databases write down of it; None for None."""
    if model is None:
        return None, None
    label = repr(model)
    if isinstance(model, str | os.PathLike):
        label = os.fsdecode(model)
        model = load_tensor(model)
    if not isinstance(model, TensorModel):
        raise SpecificationError(
            f"{name}: expected a TensorModel, the path of its file, or None, got {type(model).__name__}"
        )
    form = FORMS_OF_PROPERTIES[name]
    if model.quantity.form != form or model.quantity.per_atom:
        raise SpecificationError(
            f"{name}: expected a model of form '{form}' of whole structures, got {model.quantity.name} of form "
            f"'{model.quantity.form}'{' of each atom' if model.quantity.per_atom else ''}"
        )
    return model, label
