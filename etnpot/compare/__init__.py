"""Studies that compare potentials: each trained by its own code on the same data, all evaluated through ASE on the same tests.

    study file -> data sets, splits, checks -> one process per training and per evaluation -> results -> report

``etnpot.compare(...)`` runs a study: this module can be called, see `etnpot.compare.runner.compare`.

============== ============================================================================
module         what
============== ============================================================================
study          the study file, checked
sets           its data: sets, sizes, and the check that no test configuration is trained on
adapters       one small class per kind of potential
worker         the program that trains and evaluates, in the environment of the potential
properties     lattice constants, elastic constants and the like of an ASE calculator
runner         runs what is missing
results        the figures of all runs; JSON and CSV
figures        the plots
report         the page that shows them
environments   the environments of other potentials
timing         time and memory
============== ============================================================================

Adapters, worker, properties and timing run in the environments of other potentials as well: they import numpy, ASE and the
standard library alone, and this module nothing at all.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """A module that can be called, so that ``etnpot.compare`` is the function and the package in one."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """`etnpot.compare.runner.compare`."""
        from etnpot.compare.runner import compare

        return compare(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
