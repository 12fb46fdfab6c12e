"""The calculator under the name that ASE looks for: ``ase.calculators.etn``.

ASE's ``get_calculator_class(name)`` knows its own calculators and a table of others; any other name it takes
for a module ``ase.calculators.<name>`` with a class ``<Name>``. This finder supplies that module for ``etn``,
and for nothing else, to every process that has imported etnpot (or has let ASE discover its plugins, which
imports etnpot). It stands at the end of the line: it is asked only for what nobody else has found, and a
module of that name in ASE itself would come first. Nothing is loaded before the name is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["NAME", "install"]

#: The calculator's name in ASE.
NAME = "etn"

_MODULE = f"ase.calculators.{NAME}"


class _Finder:
    """Finder and loader of the one module."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of ``ase.calculators.etn``; None for any other name."""
        return ModuleSpec(name, _Finder, origin=__file__) if name == _MODULE else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """A module of the usual kind."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Fill the module with the calculator, under ASE's name for it and its own."""
        module.__doc__ = "The calculator of etnpot, found by name."
        calculator = importlib.import_module("etnpot").ETNCalculator
        vars(module).update({NAME.title(): calculator, calculator.__name__: calculator})


def install() -> None:
    """Let this process find the module; does nothing the second time."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
