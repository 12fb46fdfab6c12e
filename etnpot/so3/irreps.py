# ruff: noqa: E741 (l is the angular momentum)
"""Irreducible representations of O(3): angular momentum l and parity p.

An object of the irrep (l, p) has 2l+1 components. Under a proper rotation they mix by the Wigner matrix D^l;
under the inversion r -> -r all of them are multiplied by p. The product of two irreps decomposes as

    (l1, p1) ⊗ (l2, p2) = ⊕_{l3 = |l1-l2|}^{l1+l2} (l3, p1 p2)

================  ======================================================================
symbol            variable
================  ======================================================================
l                 `Irrep.l`
p = ±1            `Irrep.p`, written ``e`` (even, +1) or ``o`` (odd, -1): ``"0e"``, ``"1o"``
2l + 1            `Irrep.dim`
p = (-1)^l        `Irrep.is_natural`: the parity of the harmonics Y_lm themselves
================  ======================================================================
"""

from __future__ import annotations

import functools
import operator
import re
from dataclasses import dataclass
from typing import Any

from etnpot.errors import SpecificationError

__all__ = ["Irrep", "angular_momentum"]

_IRREP_PATTERN = re.compile(r"([0-9]+)([eo])")


def angular_momentum(value: Any, *, name: str = "l") -> int:
    """Check that ``value`` is an angular momentum and return it as a Python int.

    Parameters
    ----------
    value : object
        Any integer type (numpy integers included), >= 0.
    name : str
        What the error message calls it.

    Raises
    ------
    SpecificationError
        If it is negative or not an integer (booleans and floats are not).
    """
    try:
        l = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        l = -1
    if l < 0:
        raise SpecificationError(
            f"{name}: expected an angular momentum, an integer >= 0, got {value!r}; give one of 0, 1, 2, ..."
        )
    return l


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Irrep:
    """One irreducible representation of O(3).

    Immutable and hashable. Irreps are ordered by l; for equal l the natural parity p = (-1)^l comes first.

    Parameters
    ----------
    l : int
        Angular momentum, >= 0.
    p : int
        Parity under inversion, +1 or -1.

    Examples
    --------
    >>> Irrep.from_string("1o").is_natural
    True
    >>> [str(irrep) for irrep in Irrep(1, -1) * Irrep(1, -1)]
    ['0e', '1e', '2e']
    """

    l: int
    p: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "l", angular_momentum(self.l, name="Irrep.l"))
        try:
            p = 0 if isinstance(self.p, bool) else operator.index(self.p)
        except TypeError:
            p = 0
        if p not in (-1, 1):
            raise SpecificationError(
                f"Irrep.p: expected a parity, +1 (even) or -1 (odd), got {self.p!r}; "
                f"the harmonics of l = {self.l} themselves have p = {(-1) ** self.l:+d}"
            )
        object.__setattr__(self, "p", p)

    @classmethod
    def natural(cls, l: int) -> Irrep:
        """The irrep of the harmonics Y_lm: parity (-1)^l."""
        l = angular_momentum(l)
        return cls(l, (-1) ** l)

    @classmethod
    def from_string(cls, text: str) -> Irrep:
        """Read ``"0e"``, ``"1o"``, ...: l in decimal digits, then ``e`` (even) or ``o`` (odd)."""
        match = _IRREP_PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise SpecificationError(
                f"irrep: expected l in digits followed by 'e' (even) or 'o' (odd), got {text!r}; "
                "write for example '0e' for a scalar or '1o' for a vector"
            )
        return cls(int(match[1]), 1 if match[2] == "e" else -1)

    @property
    def dim(self) -> int:
        """Number of components, 2l + 1."""
        return 2 * self.l + 1

    @property
    def is_natural(self) -> bool:
        """Whether p = (-1)^l: a polar tensor, not a pseudotensor."""
        return self.p == (-1 if self.l % 2 else 1)

    def __mul__(self, other: Irrep) -> tuple[Irrep, ...]:
        """The irreps in the product, in ascending l; each occurs once."""
        if not isinstance(other, Irrep):
            return NotImplemented
        p = self.p * other.p
        return tuple(Irrep(l, p) for l in range(abs(self.l - other.l), self.l + other.l + 1))

    def __lt__(self, other: Irrep) -> bool:
        if not isinstance(other, Irrep):
            return NotImplemented
        return (self.l, not self.is_natural) < (other.l, not other.is_natural)

    def __str__(self) -> str:
        return f"{self.l}{'e' if self.p == 1 else 'o'}"
