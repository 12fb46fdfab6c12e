"""What a physics check returns: measured numbers, what was allowed, and a verdict.

A check measures quantities q ≥ 0 (errors, jumps, violations) and passes when every one obeys

    q ≤ q_allowed,

so that a NaN, which compares false with everything, can never pass.

=========== ==================================================
symbol      variable
=========== ==================================================
q           ``Measurement.value``
q_allowed   ``Measurement.allowed`` (``inf``: reported, not judged)
=========== ==================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import EtnpotError

__all__ = ["CheckResult", "DerivativeResult", "Measurement", "PhysicsCheckError", "Report"]


class PhysicsCheckError(EtnpotError, AssertionError):
    """A calculator violates a physical law beyond the tolerance that was asked for.

    Attributes
    ----------
    result : CheckResult or Report
        The measured numbers.
    """

    def __init__(self, result: CheckResult | Report) -> None:
        super().__init__(str(result))
        self.result = result

    def __reduce__(self) -> tuple[type[PhysicsCheckError], tuple[CheckResult | Report]]:
        return type(self), (self.result,)


@dataclass(frozen=True)
class Measurement:
    """One measured violation and the largest value that passes.

    Attributes
    ----------
    quantity : str
        What was measured.
    value, allowed : float
        The measured violation and its bound, both in ``unit``. An infinite bound means that the number is
        reported and not judged; a NaN fails even then.
    unit : str
        Empty for a pure number.
    """

    quantity: str
    value: float
    allowed: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value is a number within the bound."""
        return bool(self.value <= self.allowed)

    @property
    def severity(self) -> float:
        """``value / allowed``: 1 is the limit, and NaN counts as infinitely bad."""
        if np.isnan(self.value):
            return float("inf")
        if self.allowed > 0.0:
            return float(self.value / self.allowed)
        return 0.0 if self.passed else float("inf")

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        bound = "not judged" if np.isinf(self.allowed) else f"allowed {self.allowed:.3g}"
        return f"{self.quantity}: {self.value:.3g}{unit} ({bound}){'' if self.passed else '  <-- FAILED'}"


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one physics check on one structure.

    Attributes
    ----------
    check : str
        Name of the check function.
    subject : str
        The structure, in words.
    measurements : tuple of Measurement
        Every number that was measured.
    notes : tuple of str
        Remarks that help to read the numbers.
    error : str
        Set when the calculator raised instead of answering (only in a `Report`); such a check has failed.
    """

    check: str
    subject: str
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every measurement is within its bound."""
        return not self.error and all(m.passed for m in self.measurements)

    @property
    def worst(self) -> Measurement | None:
        """The measurement that is closest to, or furthest beyond, its bound."""
        return max(self.measurements, key=lambda m: m.severity, default=None)

    def __bool__(self) -> bool:
        return self.passed

    def __getitem__(self, quantity: str) -> Measurement:
        """The measurement of that name; `KeyError` lists the names there are."""
        for measurement in self.measurements:
            if measurement.quantity == quantity:
                return measurement
        names = ", ".join(repr(m.quantity) for m in self.measurements)
        raise KeyError(f"no measurement {quantity!r} in {self.check}; there are: {names}")

    def __str__(self) -> str:
        lines = [f"{self.check} on {self.subject}: {'passed' if self.passed else 'FAILED'}"]
        if self.error:
            lines.append(f"  the calculator raised {self.error}")
        lines += [f"  {measurement}" for measurement in self.measurements]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, kw_only=True)
class DerivativeResult(CheckResult):
    """Outcome of a finite-difference check: the h-sweep besides the verdict.

    Attributes
    ----------
    steps : ndarray of float64, shape (n_steps,)
        Steps h, largest first [Å for forces, strain for stress].
    sweep_errors : ndarray of float64, shape (n_steps,)
        Root mean square over components of \\|D(h) - analytic\\|, D the plain central difference.
    order : float
        Exponent p in error ~ h^p over the steps above the noise; NaN when fewer than two are.
    noise : float
        Estimated noise of one energy evaluation [eV].
    labels : tuple of str
        Name of each component.
    analytic, numeric, uncertainty : ndarray of float64, shape (n_components,)
        The calculator's derivative, the extrapolated finite difference, and the latter's own error estimate
        [eV/Å for forces, eV/Å³ for stress].
    """

    steps: NDArray[np.float64]
    sweep_errors: NDArray[np.float64]
    order: float
    noise: float
    labels: tuple[str, ...]
    analytic: NDArray[np.float64]
    numeric: NDArray[np.float64]
    uncertainty: NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """The outcomes of many checks; ``str()`` is a table.

    Attributes
    ----------
    calculator : str
        Name of the calculator.
    results : tuple of CheckResult
        What was checked.
    skipped : tuple of (str, str, str)
        Check, structure and reason of everything that was not.
    """

    calculator: str
    results: tuple[CheckResult, ...]
    skipped: tuple[tuple[str, str, str], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether something was checked and all of it passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if not result.passed)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        header = ("check", "structure", "verdict", "worst measurement", "value", "allowed", "unit")
        rows: list[tuple[str, ...]] = []
        for result in self.results:
            worst, verdict = result.worst, "passed" if result.passed else "FAILED"
            if result.error:
                rows.append((result.check, result.subject, verdict, result.error, "", "", ""))
            elif worst is None:
                rows.append((result.check, result.subject, verdict, "", "", "", ""))
            else:
                numbers = (worst.quantity, f"{worst.value:.2e}", f"{worst.allowed:.2e}", worst.unit)
                rows.append((result.check, result.subject, verdict, *numbers))
        rows += [(check, subject, "skipped", reason, "", "", "") for check, subject, reason in self.skipped]
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

        def line(cells: tuple[str, ...]) -> str:
            return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

        count = f"{len(self.results) - len(self.failures)} of {len(self.results)} checks passed"
        title = f"physics checks of {self.calculator}: {count}, {len(self.skipped)} skipped"
        table = [title, line(header), line(tuple("-" * width for width in widths)), *map(line, rows)]
        return "\n".join(table + [f"\n{result}" for result in self.failures])


R = TypeVar("R", CheckResult, DerivativeResult, Report)


def settle(result: R, raise_on_failure: bool) -> R:
    """Return the result, or raise `PhysicsCheckError` when it failed and that was asked for."""
    if raise_on_failure and not result.passed:
        raise PhysicsCheckError(result)
    return result
