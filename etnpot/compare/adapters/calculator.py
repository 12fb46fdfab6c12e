"""Any ASE calculator, for evaluation alone: a reference such as EMT, or a potential that was trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from etnpot.compare.adapters.base import Adapter, Job

__all__ = ["AnyCalculator", "calculator_of"]


class AnyCalculator(Adapter):
    """``calculator: emt``; ``calculator: etn``, ``arguments: {potential: file.etn}``; ``calculator: package.module:Class``."""

    title = "ASE calculator"
    defaults: ClassVar = {"calculator": "emt", "arguments": {}}
    trains = False

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Its name must be one that ASE knows, or look like a class of a module."""
        from ase.calculators.calculator import get_calculator_class

        name = settings["calculator"]
        if ":" in name:
            return
        try:
            get_calculator_class(name)
        except Exception as error:
            raise ValueError(
                f"calculator: ASE knows no calculator {name!r} ({error}); give a name such as 'emt' or 'etn', or "
                "'package.module:Class'"
            ) from None

    def calculator(self, job: Job) -> Any:
        """As the settings say."""
        return calculator_of(job.settings["calculator"], job.settings["arguments"])


def calculator_of(name: str, arguments: Mapping[str, Any]) -> Any:
    """A calculator by ASE's name or as ``package.module:Class``."""
    import importlib

    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)(**arguments)
    from ase.calculators.calculator import get_calculator_class

    return get_calculator_class(name)(**arguments)
