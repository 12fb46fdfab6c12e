"""Coordinates in which the steps of all parameters are damped and penalised: radial functions that are orthogonal on the data.

The functions phi_n of a radial basis are far from orthogonal on the pairs of a training set: the condition number of their
mean products is 10^7 for eight Chebyshev polynomials times their cutoff. Damping and ridge on their coefficients B would hold
some changes of a radial function back a thousand times as much as others of the same size. With the mean over all pairs within
the cutoff,

    C = <phi phi^T> + eps tr <phi phi^T>/N_r 1 = L L^T,    psi = L^-1 phi,    <psi psi^T> = 1 but for eps,              (1)
    B'[c, :, k] = L^T B[c, :, k],                     sum_n B_n phi_n = sum_n B'_n psi_n,                           (2)

the size of B' is that of the radial function where there are pairs. Of combinations that next to no pair sees, below the floor
eps, it is that of the coefficients: the data do not say what they are, and without the floor neither damping nor ridge would
hold them. All other parameters are their own coordinates. The model, its files and the minimum without ridge know nothing of
this; the way there does.

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

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from etnpot.basis import RadialBasis
from etnpot.neighbors import EdgeList
from etnpot.potential.spec import NetworkSpec

__all__ = ["Coordinates", "radial_factor", "radial_moments"]

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


class Coordinates:
    """The coordinates of some consecutive parameters.

    Parameters
    ----------
    spec : NetworkSpec
    moving : slice
        Where these parameters stand among all.
    lower_nn : float64 [n, n], optional
        L; without it all parameters are their own coordinates.
    """

    def __init__(self, spec: NetworkSpec, moving: slice, lower_nn: Floats | None) -> None:
        #: Places of the radial coefficients among these parameters, and their shapes.
        self._parts: list[tuple[slice, tuple[int, ...]]] = []
        lower = np.eye(spec.radial.size) if lower_nn is None else lower_nn
        self._upper = np.ascontiguousarray(lower.T)
        self._inverse = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
        for name, where in spec.slices.items() if lower_nn is not None else ():
            if name.startswith("radial.") and moving.start <= where.start and where.stop <= moving.stop:
                part = slice(where.start - moving.start, where.stop - moving.start)
                self._parts.append((part, spec.shapes[name]))

    def of(self, parameters: Floats) -> Floats:
        """Coordinates of parameters, [q]."""
        return self._applied(self._upper, parameters)

    def parameters(self, coordinates: Floats) -> Floats:
        """The inverse of `of`, [q]."""
        return self._applied(self._inverse.T, coordinates)

    def gradient(self, by_parameters: Floats) -> Floats:
        """Derivatives by the coordinates from those by the parameters, [q, ...]."""
        return self._applied(self._inverse, by_parameters)

    def gram(self, by_parameters: Floats) -> Floats:
        """J^T J of derivatives by the coordinates, [q, q]."""
        if not self._parts:
            return by_parameters
        half = np.ascontiguousarray(self.gradient(by_parameters).T)
        return np.ascontiguousarray(self.gradient(half).T)

    def _applied(self, matrix_nn: Floats, array: Floats) -> Floats:
        """B' = matrix B for every channel and species function; what has no radial coefficients comes back as it is."""
        if not self._parts:
            return array
        result = np.array(array)
        for part, (channels, size, _) in self._parts:
            block = result[part].reshape(channels, size, -1)
            result[part] = (matrix_nn @ block).reshape(-1, *result.shape[1:])
        return result
