"""MaxVol: the rows, of very many, whose matrix has the largest volume.

Rows z_i of length r arrive block by block and are not kept. A holds r of them, the active set; c_i = z_i A^-1 are the
coefficients of a row in it. Putting row i in the place of active row j multiplies |det A| by |c_ij|, so that the exchange

    A^-1 <- A^-1 - (A^-1)_:j (c_i - e_j) / c_ij,        c_k <- c_k - c_kj (c_i - e_j) / c_ij              (1)

is done for the largest |c_ij| as long as it is above 1 + tolerance (Goreinov, Oseledets, Savostyanov, Tyrtyshnikov and
Zamarashkin, in Matrix Methods, World Scientific 2010, p. 247). At first A is a small multiple of the identity: nothing of it
is left once the rows span the space. When a pass over all rows exchanges nothing, no |c_ij| exceeds 1 + tolerance.

=========  ===================================
symbol     here
=========  ===================================
A          ``rows_rs``, unless only A^-1 is known
A^-1       ``inverse_sr``
=========  ===================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "ActiveSet", "maxvol"]

Floats = NDArray[np.float64]

#: No coefficient exceeds one by more than this at the end.
TOLERANCE = 0.01
#: Size of the first, artificial rows, relative to the root mean square of real ones.
_SMALL = 1e-6
#: Passes over all rows.
_MOST_PASSES = 20


@dataclass(eq=False)
class ActiveSet:
    """An active set that rows may enter.

    Attributes
    ----------
    rows_rs : float64 [r, r]
        A.
    inverse_sr : float64 [r, r]
        A^-1.
    labels : list
        What each active row was said to be; None for the artificial ones of the beginning.
    """

    rows_rs: Floats
    inverse_sr: Floats
    labels: list[object] = field(default_factory=list)

    @classmethod
    def artificial(cls, size: int, scale: float) -> ActiveSet:
        """A small multiple of the identity, for rows of root-mean-square entries `scale`."""
        small = _SMALL * scale
        return cls(small * np.eye(size), np.eye(size) / small, [None] * size)

    @property
    def is_real(self) -> bool:
        """Whether no artificial row is left."""
        return all(label is not None for label in self.labels)

    def coefficients(self, z_is: Floats) -> Floats:
        """c, [i, r]."""
        return np.asarray(z_is @ self.inverse_sr)

    def absorb(self, z_is: Floats, label: Callable[[int], object], *, tolerance: float = TOLERANCE) -> int:
        """Exchange until no row of a block has a coefficient above 1 + `tolerance`; returns the number of exchanges.

        Parameters
        ----------
        z_is : float64 [i, r]
        label : callable
            Of the number of a row in the block.
        tolerance : float
        """
        if not z_is.size:
            return 0
        c_ir = self.coefficients(z_is)
        n_exchanged = 0
        while True:
            i, j = np.unravel_index(int(np.abs(c_ir).argmax()), c_ir.shape)
            pivot = c_ir[i, j]
            if not abs(pivot) > 1.0 + tolerance:
                return n_exchanged
            change = c_ir[i] / pivot
            change[j] -= 1.0 / pivot
            self.inverse_sr -= np.outer(self.inverse_sr[:, j], change)
            c_ir -= np.outer(c_ir[:, j], change)
            self.rows_rs[j] = z_is[i]
            self.labels[j] = label(int(i))
            n_exchanged += 1
            if n_exchanged % len(self.labels) == 0:  # rounding errors of eq. (1) must not pile up
                self.refresh()
                c_ir = self.coefficients(z_is)

    def refresh(self) -> None:
        """A^-1 anew from A."""
        self.inverse_sr = np.asarray(np.linalg.inv(self.rows_rs), dtype=np.float64)


def maxvol(blocks: Callable[[], Iterable[tuple[Floats, object]]], size: int, scale: float) -> ActiveSet:
    """The active set of all rows.

    Parameters
    ----------
    blocks : callable
        Gives blocks of rows [i, r] with the label of each block, the same ones at every call. A row gets the label
        (label of the block, number in the block).
    size : int
        r.
    scale : float
        Root mean square of the entries of all rows.

    Returns
    -------
    ActiveSet
    """
    active = ActiveSet.artificial(size, scale)
    for _ in range(_MOST_PASSES):
        n_exchanged = 0
        for z_is, name in blocks():
            n_exchanged += active.absorb(z_is, lambda i, name=name: (name, i))  # type: ignore[misc]
        active.refresh()
        if n_exchanged == 0:
            break
    return active
