"""Rows of the derivatives, streamed into normal equations or a triangular factor, block by block.

================  =========================================================================
symbol            here
================  =========================================================================
J^T J, J^T r      ``NormalEquations.gram`` [q, q], ``NormalEquations.rhs`` [q]
|r|^2             ``NormalEquations.loss``
N                 ``shift_row`` [n], the same for xx, yy and zz of a virial; zero in all other rows
================  =========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk

from etnpot.fitting.prepared import Prepared
from etnpot.potential import Jacobian

__all__ = [
    "PRESSURE",
    "AccumulatorT",
    "GramAccumulator",
    "NormalEquations",
    "TriangularAccumulator",
    "triangle",
]

Floats = NDArray[np.float64]

#: xx, yy and zz among the rows of a configuration.
PRESSURE = slice(-6, -3)
#: Columns of J^T gathered before they are multiplied into the Gram matrix.
_GRAM_COLUMNS = 2048
#: Rows of the Gram matrix of which one triangle becomes both at once.
_MIRRORED = 256


@dataclass(eq=False)
class NormalEquations:
    """J^T J, J^T r, |r|^2 and the number of rows.

    Attributes
    ----------
    gram : float64 [q, q]
    rhs : float64 [q]
    loss : float
    n_rows : int
    """

    gram: Floats
    rhs: Floats
    loss: float = 0.0
    n_rows: int = 0

    @classmethod
    def zeros(cls, n: int) -> NormalEquations:
        """Nothing yet."""
        return cls(np.zeros((n, n)), np.zeros(n))

    def __iadd__(self, other: NormalEquations) -> NormalEquations:
        self.gram += other.gram
        self.rhs += other.rhs
        self.loss += other.loss
        self.n_rows += other.n_rows
        return self


class Accumulator:
    """Rows of [N, J] and r of one thread, worked in block by block, the last of them by `finish`."""

    def __init__(self, n: int) -> None:
        self._buffer_qc = np.empty((n, _GRAM_COLUMNS))
        self._rows = np.empty(_GRAM_COLUMNS)
        self._filled = 0

    def add(self, c: Prepared, jacobian: Jacobian, rows: Floats, shift_row: Floats) -> None:
        """The rows of one configuration; `shift_row` are those of N for the pressure."""
        if c.energy is not None and c.scale_energy > 0:
            self._append(c.scale_energy * jacobian.energy_iq.T, rows[:1])
        if c.has_forces and c.at_rest:
            self._absorb_constant(rows[1:-6])
        elif c.has_forces:
            scale = np.broadcast_to(c.scale_forces, (jacobian.n_sites, 3)).reshape(-1)
            self._append(jacobian.gradient_qc[:, : 3 * jacobian.n_sites], rows[1:-6], scale)
        if c.has_virial:
            self._append(jacobian.gradient_qc[:, -6:-3], rows[PRESSURE], c.scale_virial, shift_row)
            self._append(jacobian.gradient_qc[:, -3:], rows[-3:], c.scale_virial)

    def _append(
        self,
        columns_qc: Floats,
        rows: Floats,
        scale: float | Floats = 1.0,
        shift_row: Floats | None = None,
    ) -> None:
        scale = np.broadcast_to(scale, len(rows))
        at, first = 0, len(self._buffer_qc) - len(columns_qc)
        while at < len(rows):
            count = min(len(rows) - at, _GRAM_COLUMNS - self._filled)
            target = slice(self._filled, self._filled + count)
            np.multiply(
                columns_qc[:, at : at + count], scale[at : at + count], out=self._buffer_qc[first:, target]
            )
            self._buffer_qc[:first, target] = 0.0 if shift_row is None else shift_row[:, None]
            self._rows[target] = rows[at : at + count]
            self._filled += count
            at += count
            if self._filled == _GRAM_COLUMNS:
                self._work_in()

    def finish(self) -> None:
        """All rows have been added."""
        self._work_in()

    def _work_in(self) -> None:
        if self._filled:
            self._absorb(self._buffer_qc[:, : self._filled], self._rows[: self._filled])
            self._filled = 0

    def _absorb(self, block: Floats, rows: Floats) -> None:
        raise NotImplementedError

    def _absorb_constant(self, rows: Floats) -> None:
        """Rows that depend on no parameter."""
        raise NotImplementedError


class GramAccumulator(Accumulator):
    """Normal equations."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.total = NormalEquations.zeros(n)

    def _absorb(self, block: Floats, rows: Floats) -> None:
        # its upper triangle, which is the lower one of the transposed, the matrix as Fortran sees it
        dsyrk(1.0, block.T, beta=1.0, c=self.total.gram.T, trans=1, lower=1, overwrite_c=1)
        self.total.rhs += block @ rows
        self._absorb_constant(rows)

    def finish(self) -> None:
        super().finish()
        gram = self.total.gram
        for at in range(0, len(gram), _MIRRORED):
            end = at + _MIRRORED
            gram[end:, at:end] = gram[at:end, end:].T
            corner = np.triu(gram[at:end, at:end])
            gram[at:end, at:end] = corner + np.triu(corner, 1).T

    def _absorb_constant(self, rows: Floats) -> None:
        self.total.loss += float(rows @ rows)
        self.total.n_rows += len(rows)


class TriangularAccumulator(Accumulator):
    """The triangular factor of [J, r]."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.factor = np.zeros((n + 1, n + 1))

    def _absorb(self, block: Floats, rows: Floats) -> None:
        self.factor = triangle(np.vstack([self.factor, np.vstack([block, rows]).T]))

    def _absorb_constant(self, rows: Floats) -> None:
        self.factor[-1, -1] = np.hypot(self.factor[-1, -1], np.linalg.norm(rows))


AccumulatorT = TypeVar("AccumulatorT", bound=Accumulator)


def triangle(matrix: Floats) -> Floats:
    """R of the QR decomposition of a tall matrix."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))
