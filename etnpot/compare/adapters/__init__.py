"""One small class per kind of potential: see `etnpot.compare.adapters.base`."""

from __future__ import annotations

import importlib

from etnpot.compare.adapters.base import Adapter, Job

__all__ = ["ADAPTERS", "Adapter", "Job", "adapter_class"]

#: ``type`` of a model in a study -> module and class.
ADAPTERS: dict[str, tuple[str, str]] = {
    "etnpot": ("etnpot.compare.adapters.etn", "Etn"),
    "motep": ("etnpot.compare.adapters.mtp", "MomentTensor"),
    "ace": ("etnpot.compare.adapters.ace", "LinearACE"),
    "mace": ("etnpot.compare.adapters.mace", "Mace"),
    "nequip": ("etnpot.compare.adapters.nequip", "NequIP"),
    "allegro": ("etnpot.compare.adapters.nequip", "Allegro"),
    "painn": ("etnpot.compare.adapters.schnetpack", "PaiNN"),
    "so3net": ("etnpot.compare.adapters.schnetpack", "SO3net"),
    "schnet": ("etnpot.compare.adapters.schnetpack", "SchNet"),
    "nep": ("etnpot.compare.adapters.nep", "Nep"),
    "calculator": ("etnpot.compare.adapters.calculator", "AnyCalculator"),
}


def adapter_class(kind: str) -> type[Adapter]:
    """The adapter of a type of model."""
    module, name = ADAPTERS[kind]
    found: type[Adapter] = getattr(importlib.import_module(module), name)
    return found
