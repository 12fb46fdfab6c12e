"""Coordinates in which the steps of all parameters are damped and penalised: radial functions that are orthogonal on the data,
and species functions whose mixed pairs follow those of the elements.

The functions phi_n of a radial basis are far from orthogonal on the pairs of a training set: the condition number of their
mean products is 10^7 for eight Chebyshev polynomials times their cutoff. Damping and ridge on their coefficients B would hold
some changes of a radial function back a thousand times as much as others of the same size. With the mean over all pairs within
the cutoff,

    C = <phi phi^T> + eps tr <phi phi^T>/N_r 1 = L L^T,    psi = L^-1 phi,    <psi psi^T> = 1 but for eps,              (1)
    B'[c, :, k] = L^T B[c, :, k],                     sum_n B_n phi_n = sum_n B'_n psi_n,                           (2)

the size of B' is that of the radial function where there are pairs. Of combinations that next to no pair sees, below the floor
eps, it is that of the coefficients: the data do not say what they are, and without the floor neither damping nor ridge would
hold them.

Where the data hold hot elements and cold alloys (`Turning.means`), those parts of the species functions are dearer in which a
pair of two elements is not the mean of the pairs of each with itself: `etnpot.basis.SpeciesFactor.stiffened`.

All other parameters are their own coordinates. The model, its files and the minimum without ridge know nothing of this; the way
there does.

=============  =======================================  ====
symbol         here                                     unit
=============  =======================================  ====
<phi phi^T>    ``mean_nn``                              1
L              ``lower_nn``                             1
eps            `_FLOOR`                                 1
=============  =======================================  ====
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from etnpot.basis import RadialBasis
from etnpot.neighbors import EdgeList
from etnpot.potential.spec import NetworkSpec

__all__ = ["Coordinates", "Turning", "radial_factor", "radial_moments"]

Floats = NDArray[np.float64]

#: eps of eq. (1).
_FLOOR = 1e-3


def radial_moments(radial: RadialBasis, configurations: Iterable[EdgeList]) -> Floats:
    """Sum over all pairs within the cutoff of phi phi^T, and at the end their number, float64 [n n + 1]."""
    sums = np.zeros(radial.size**2 + 1)
    for edges in configurations:
        phi_pn, _ = radial.evaluate(np.linalg.norm(edges.r_pc, axis=1))
        sums[:-1] += (phi_pn.T @ phi_pn).ravel()
        sums[-1] += len(phi_pn)
    return sums


def radial_factor(moments: Floats) -> Floats:
    """L of eq. (1) from `radial_moments`, float64 [n, n]; the identity where there are no pairs."""
    size = math.isqrt(len(moments) - 1)
    mean_nn = moments[:-1].reshape(size, size) / max(float(moments[-1]), 1.0)
    scale = float(np.trace(mean_nn)) / size
    if not scale > 0.0:
        return np.eye(size)
    return np.asarray(scipy.linalg.cholesky(mean_nn + _FLOOR * scale * np.eye(size), lower=True))


@dataclass(frozen=True, eq=False)
class Turning:
    """What the coordinates of a fit are; by default all parameters are their own.

    Attributes
    ----------
    lower_nn : float64 [n, n] or None
        L; without it radial coefficients are their own coordinates.
    means : bool
        Whether pairs of two elements follow those of each with itself.
    """

    lower_nn: Floats | None = None
    means: bool = False


class Coordinates:
    """The coordinates of some consecutive parameters.

    Parameters
    ----------
    spec : NetworkSpec
    moving : slice
        Where these parameters stand among all.
    turning : Turning
    """

    def __init__(self, spec: NetworkSpec, moving: slice, turning: Turning) -> None:
        #: Places of the arrays that are turned among these parameters, and their shapes.
        self._radial: list[tuple[slice, tuple[int, ...]]] = []
        self._species: list[tuple[slice, tuple[int, ...]]] = []
        self._factor = spec.species_factor
        lower_nn = np.eye(spec.radial.size) if turning.lower_nn is None else turning.lower_nn
        self._upper = np.ascontiguousarray(lower_nn.T)
        self._inverse = scipy.linalg.solve_triangular(lower_nn, np.eye(len(lower_nn)), lower=True)
        for name, where in spec.slices.items():
            if moving.start <= where.start and where.stop <= moving.stop:
                part = slice(where.start - moving.start, where.stop - moving.start), spec.shapes[name]
                if name.startswith("radial.") and turning.lower_nn is not None:
                    self._radial.append(part)
                elif name == f"species.{self._factor.tabular}" and turning.means:
                    self._species.append(part)

    def of(self, parameters: Floats) -> Floats:
        """Coordinates of parameters, [q]."""
        return self._applied(parameters, self._upper, inverse=False)

    def parameters(self, coordinates: Floats) -> Floats:
        """The inverse of `of`, [q]."""
        return self._applied(coordinates, self._inverse.T, inverse=True)

    def gradient(self, by_parameters: Floats) -> Floats:
        """Derivatives by the coordinates from those by the parameters, [q, ...]."""
        return self._applied(by_parameters, self._inverse, inverse=True)

    def gram(self, by_parameters: Floats) -> Floats:
        """J^T J of derivatives by the coordinates, [q, q]."""
        if not self._turns:
            return by_parameters
        half = np.ascontiguousarray(self.gradient(by_parameters).T)
        return np.ascontiguousarray(self.gradient(half).T)

    @property
    def _turns(self) -> bool:
        return bool(self._radial or self._species)

    def _applied(self, array: Floats, matrix_nn: Floats, *, inverse: bool) -> Floats:
        """A matrix times B for every channel and species function, and the table of species stiffened or back; what has
        neither comes back as it is."""
        if not self._turns:
            return array
        result = np.array(array)
        for part, (channels, size, _) in self._radial:
            block = result[part].reshape(channels, size, -1)
            result[part] = (matrix_nn @ block).reshape(-1, *result.shape[1:])
        for part, shape in self._species:
            table = np.moveaxis(result[part].reshape(*shape, -1), -1, 0)
            turned = self._factor.stiffened(table, inverse=inverse)
            result[part] = np.moveaxis(turned, 0, -1).reshape(-1, *result.shape[1:])
        return result
