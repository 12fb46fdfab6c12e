"""How ASE finds the calculator by its name, ``etn``.

- ASE's plugins (``ase._4.plugins.plugins``, listed by ``ase info --plugins``): the entry point ``etnpot`` of
  the group ``ase.plugins`` names this module, and ASE reads `__ase_plugins__` from it on discovery. No import
  of etnpot is needed; ``plugin()`` then gives the class.
- ``ase.calculators.calculator.get_calculator_class("etn")``: ASE 3.29 does not ask its plugins there, but
  knows its own calculators, those entered into its table, and modules ``ase.calculators.<name>``. After
  ``import etnpot``, or after the discovery of plugins, `etnpot._ase_name` supplies that module.
  `register_name` enters the class into the table, and its name into ASE's list of names, when
  `etnpot.interfaces.ase` is imported.

`__ase_plugins__` is made when ASE asks for it. An import of ASE's plugin classes at the top of this module
would start ASE's discovery while it is half imported, and ASE would then skip it without a word.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from ase.calculators.calculator import Calculator, external_calculators, register_calculator_class

from etnpot._ase_name import NAME

__all__ = ["NAME", "register_name"]


def register_name(calculator: type[Calculator]) -> None:
    """Let ``get_calculator_class("etn")`` of ASE return `calculator`; a second call replaces the first.

    Parameters
    ----------
    calculator : type
        A subclass of ASE's `Calculator`.
    """
    if NAME in external_calculators:
        external_calculators[NAME] = calculator
    else:
        register_calculator_class(NAME, calculator)


def _calculator() -> type[Calculator]:
    """The calculator class, imported when ASE asks for it."""
    from etnpot.interfaces.ase import ETNCalculator

    return ETNCalculator


@functools.cache
def _plugins() -> frozenset[Any]:
    """What ASE reads from this module."""
    from ase._4.plugins.plugin import CalculatorPlugin

    return frozenset({CalculatorPlugin(NAME, module=sys.modules[__name__], implementation=_calculator)})


def __getattr__(name: str) -> frozenset[Any]:
    if name == "__ase_plugins__":
        return _plugins()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
