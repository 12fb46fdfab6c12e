"""Watching the extrapolation grade during molecular dynamics and relaxations of ASE.

    monitor = GradeMonitor(atoms, warn=2, stop=10, dump="extrapolated.extxyz")
    dynamics.attach(monitor, interval=1)

The grade costs about as much as an evaluation, from the neighbour list of the calculator.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from etnpot.errors import ExtrapolationError, ExtrapolationWarning, SpecificationError

if TYPE_CHECKING:
    from ase import Atoms

    from etnpot.potential import Assessment

__all__ = ["GradeMonitor"]


class GradeMonitor:
    """Warns, writes configurations, or stops when the grade passes a threshold; None for any of these does not.

    Parameters
    ----------
    atoms : ase.Atoms
        With an `ETNCalculator` whose potential carries what grades need.
    warn : float, optional
        Grade above which an `ExtrapolationWarning` is given, once.
    stop : float, optional
        Grade above which an `ExtrapolationError` ends the run.
    dump : path, optional
        Extended XYZ file that configurations above `dump_above` are appended to, with ``grade`` and ``step`` and the grades
        of all atoms.
    dump_above : float, optional
        The threshold of `dump`; that of `warn` by default.
    keep : int
        Call for a dump at most once in so many calls: consecutive configurations are much alike.

    Attributes
    ----------
    grade, largest : float
        At the last call, and of all calls.
    calls, above : int
        How many calls there were, and at how many of them the grade was above the threshold of `dump`.
    assessment : Assessment or None
        Of the last call.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        warn: float | None = 2.0,
        stop: float | None = 10.0,
        dump: str | os.PathLike[str] | None = None,
        dump_above: float | None = None,
        keep: int = 1,
    ) -> None:
        for name, value in (("warn", warn), ("stop", stop), ("dump_above", dump_above)):
            if value is not None and not value > 0:
                raise SpecificationError(f"{name}: expected a positive grade or None, got {value!r}")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise SpecificationError(f"keep: expected a positive integer, got {keep!r}")
        calculator: Any = atoms.calc
        if not hasattr(calculator, "assess"):
            raise SpecificationError(
                f"a GradeMonitor needs atoms with an ETNCalculator, got {type(calculator).__name__}"
            )
        calculator.potential.known_reliability()
        self.atoms, self.warn, self.stop, self.dump, self.keep = atoms, warn, stop, dump, keep
        self.dump_above = warn if dump_above is None else dump_above
        if dump is not None and self.dump_above is None:
            raise SpecificationError("dump: say above which grade, with dump_above or warn")
        self.grade = self.largest = 0.0
        self.calls = self.above = 0
        self.assessment: Assessment | None = None
        self._has_warned, self._dumped_at = False, -keep

    def __call__(self) -> None:
        """Look at the atoms as they are now."""
        calculator: Any = self.atoms.calc
        self.assessment = calculator.assess(self.atoms)
        self.grade = self.assessment.grade
        self.largest = max(self.largest, self.grade)
        self.calls += 1
        if self.dump_above is not None and self.grade > self.dump_above:
            self.above += 1
            if self.dump is not None and self.calls - 1 >= self._dumped_at + self.keep:
                self._dumped_at = self.calls - 1
                self._write()
        if self.stop is not None and self.grade > self.stop:
            raise ExtrapolationError(self._message("ends here: add such configurations to the training set"))
        if self.warn is not None and self.grade > self.warn and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                self._message("goes on, and this monitor will not say so again"),
                ExtrapolationWarning,
                stacklevel=2,
            )

    def _message(self, what: str) -> str:
        assert self.assessment is not None
        i = int(self.assessment.grade_i.argmax())
        return (
            f"extrapolation grade {self.grade:.3g} at call {self.calls} of the monitor, of atom {i} "
            f"({self.atoms.symbols[i]}); the potential was not trained on anything alike; the run {what}"
        )

    def _write(self) -> None:
        from ase.io import write

        assert self.assessment is not None and self.dump is not None
        frame = self.atoms.copy()
        frame.info |= {"grade": self.grade, "step": self.calls - 1}
        frame.set_array("grades", self.assessment.grade_i)
        write(os.fspath(self.dump), frame, format="extxyz", append=True)
