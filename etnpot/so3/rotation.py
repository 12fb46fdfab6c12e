# ruff: noqa: E741 (l is the angular momentum)
"""Wigner matrices of the real harmonics: how they turn with the coordinates.

    Y_l(R r) = D^l(R) Y_l(r),    D^l(R1 R2) = D^l(R1) D^l(R2),    D^l(R)ᵀ D^l(R) = 1                     (1)

D^1 is R itself with its axes in the order (y, z, x), and one more unit of angular momentum is one coupling:

    D^l[m', m] = sum C^{l m'}_{l-1 a', 1 b'} D^{l-1}[a', a] D^1[b', b] C^{l m}_{l-1 a, 1 b}             (2)

so no angles, no quadrature and no special cases enter. An improper R = -R₊ is the rotation R₊ followed by the
inversion, which multiplies an irrep of parity p by p:

    D^{l,p}(R) = p D^l(R₊)  if det R = -1                                                               (3)

============  =================================
symbol        variable
============  =================================
R             ``rotation`` [3, 3]
p             ``p``
D^{l,p}       ``wigner_d(l, rotation, p=p)``
============  =================================
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from etnpot.errors import SpecificationError
from etnpot.so3.coupling import clebsch_gordan
from etnpot.so3.irreps import Irrep, angular_momentum

__all__ = ["wigner_d"]

#: Cartesian axes (x, y, z) = (0, 1, 2) in the order of the harmonics m = -1, 0, 1.
_CARTESIAN_OF_M = np.array([1, 2, 0])

#: Largest accepted |Rᵀ R - 1|.
_ORTHOGONALITY_TOLERANCE = 1e-8


def wigner_d(l: int, rotation: npt.ArrayLike, *, p: int | None = None) -> npt.NDArray[np.float64]:
    """Matrix D^{l,p}(R) by which the 2l+1 components of an irrep turn.

    Parameters
    ----------
    l : int
        Angular momentum, >= 0.
    rotation : array_like, shape [3, 3], dimensionless
        An orthogonal matrix R, proper or improper, that maps a column vector r = (x, y, z) to R r.
    p : int, optional
        Parity of the irrep, +1 or -1; it matters for improper ``rotation`` only. Default: natural, (-1)^l,
        the parity of the harmonics themselves, so that eq. (1) holds.

    Returns
    -------
    ndarray, shape [2l+1, 2l+1], float64, dimensionless
        D[l+m', l+m] with m = -l..l. Orthogonal to about l machine epsilons.

    Raises
    ------
    SpecificationError
        If ``l`` or ``p`` is not what it should be, or ``rotation`` is not an orthogonal 3 x 3 matrix.
    """
    l = angular_momentum(l)
    irrep = Irrep.natural(l) if p is None else Irrep(l, p)
    matrix_cc = np.asarray(rotation, dtype=np.float64)
    if matrix_cc.shape != (3, 3):
        raise SpecificationError(
            f"rotation: expected an array of shape (3, 3), got {matrix_cc.shape}; pass one matrix at a time"
        )
    deviation = np.abs(matrix_cc.T @ matrix_cc - np.eye(3)).max()
    if not deviation <= _ORTHOGONALITY_TOLERANCE:  # NaN must fail too
        raise SpecificationError(
            f"rotation: expected an orthogonal matrix, got |RᵀR - 1| up to {deviation:.1e} "
            f"(at most {_ORTHOGONALITY_TOLERANCE:.0e} is accepted); "
            "orthogonalise it first, for example by numpy.linalg.qr"
        )
    is_improper = np.linalg.det(matrix_cc) < 0.0
    proper_cc = -matrix_cc if is_improper else matrix_cc
    d1 = proper_cc[np.ix_(_CARTESIAN_OF_M, _CARTESIAN_OF_M)]
    d = np.ones((1, 1))
    for step in range(1, l + 1):
        c = clebsch_gordan(step - 1, 1, step)  # [a, b, m]
        dc = np.einsum("xa,yb,abm->xym", d, d1, c, optimize=True)
        d = np.einsum("xyn,xym->nm", c, dc)  # eq. (2)
    return irrep.p * d if is_improper else d
