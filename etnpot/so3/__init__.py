"""Irreducible representations of O(3), their coupling coefficients, and their rotation matrices.

Everything here speaks of *real* orthonormal harmonics in the order m = -l..l: see `etnpot.conventions`.

========================  =====================================================================
module                    holds
========================  =====================================================================
`etnpot.so3.irreps`       `Irrep`: angular momentum and parity, products
`etnpot.so3.coupling`     exact real Clebsch-Gordan coefficients, dense and as tables of nonzeros
`etnpot.so3.rotation`     `wigner_d`: how the harmonics of one l turn with the coordinates
`etnpot.so3.generate`     writes the packaged table: ``python -m etnpot.so3.generate``
========================  =====================================================================
"""

from __future__ import annotations

from etnpot.so3.coupling import clebsch_gordan, coupling_table, exact_clebsch_gordan
from etnpot.so3.irreps import Irrep
from etnpot.so3.rotation import wigner_d

__all__ = ["Irrep", "clebsch_gordan", "coupling_table", "exact_clebsch_gordan", "wigner_d"]
