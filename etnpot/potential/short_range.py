"""The short range of a potential, around the kernels of the learned energy: see `etnpot.basis.repulsion`.

With the held vector q_p = h(r_p) r_p/r_p of each close pair, g_p = dx_i/dq_p from the kernels, and u, r the unit vector and
length of the pair,

    E_i      = E0[z_i] + f(x_i) + u_i                                                                          (1)
    dE/dr_p  = f'(x_i) H_p g_p + du_i/dr_p,     H_p = h' u u^T + (h/r) (1 - u u^T)                             (2)

and du_i/dr_p = (1/2) (s V)' u. For pairs that are not close H is the identity and du vanishes. The gradient of a linear
functional of energies and pair derivatives by the parameters, which enter through x_i and g_p alone, is that of

    sum_i e_i E_i + sum_p d_p . dE/dr_p  ->  sum_i (f'_i e_i + f''_i sum_p d_p . H_p g_p) x_i + sum_p (f'_i H_p d_p) . g_p.  (3)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etnpot.basis import Repulsion, smooth_step, zbl
from etnpot.kernels.short_range import close_pairs
from etnpot.neighbors import EdgeList

__all__ = ["ShortRange", "short_range"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShortRange:
    """What the close pairs of one configuration do.

    Attributes
    ----------
    close_p : int64 [k]
        The close pairs, ascending; the arrays with k follow it.
    center_k : int64 [k]
        Their centres.
    unit_kc : float64 [k, c]
        u.
    along_k, across_k : float64 [k]
        h' and h/r.
    slope_k : float64 [k], eV/Å
        (1/2) (s V)'.
    r_pc : float64 [p, c], Å
        q of all pairs.
    u_i : float64 [i], eV
        Repulsion of every atom.
    """

    close_p: Integers
    center_k: Integers
    unit_kc: Floats
    along_k: Floats
    across_k: Floats
    slope_k: Floats
    r_pc: Floats
    u_i: Floats

    def hold(self, g_pc: Floats) -> None:
        """H g in place of g, of derivatives by q as of directions of r."""
        g_kc = g_pc[self.close_p]
        radial_k = np.einsum("kc,kc->k", g_kc, self.unit_kc)
        turned_kc = ((self.along_k - self.across_k) * radial_k)[:, None] * self.unit_kc
        g_pc[self.close_p] = self.across_k[:, None] * g_kc + turned_kc

    def add_repulsion(self, energy_i: Floats, dE_dr_pc: Floats) -> None:
        """Add u_i and du_i/dr_p."""
        energy_i += self.u_i
        dE_dr_pc[self.close_p] += self.slope_k[:, None] * self.unit_kc


def short_range(
    repulsion: Repulsion, species: tuple[int, ...], edges: EdgeList, type_i: Integers, type_p: Integers
) -> ShortRange | None:
    """The short range of a configuration; None where no pair is close.

    Parameters
    ----------
    repulsion : Repulsion
    species : tuple of int
        Atomic numbers of the types.
    edges : EdgeList
    type_i, type_p : int64
        Types of the atoms and of the neighbours.
    """
    outer_zz = np.array(repulsion.outer)
    if edges.shortest >= outer_zz.max():
        return None
    close_p = np.empty(0, dtype=np.int64)
    n_close = close_pairs(edges.first, edges.r_pc, type_i, type_p, outer_zz, close_p)
    if n_close == 0:
        return None
    close_p = np.empty(n_close, dtype=np.int64)
    close_pairs(edges.first, edges.r_pc, type_i, type_p, outer_zz, close_p)
    center_k = np.searchsorted(edges.first, close_p, side="right") - 1
    z_i, z_j = type_i[center_k], type_p[close_p]
    inner_k, outer_k = np.array(repulsion.inner)[z_i, z_j], outer_zz[z_i, z_j]
    r_kc = edges.r_pc[close_p]
    r_k = np.linalg.norm(r_kc, axis=1)
    unit_kc = r_kc / r_k[:, None]
    width_k = outer_k - inner_k
    s_k, ds_k, integral_k = smooth_step((outer_k - r_k) / width_k)
    charges = np.array(species)
    v_k, dv_k = zbl(r_k, charges[z_i], charges[z_j])
    held_k = outer_k - width_k * integral_k
    r_pc = edges.r_pc.copy()
    r_pc[close_p] = held_k[:, None] * unit_kc
    u_i: Floats = np.bincount(center_k, weights=0.5 * s_k * v_k, minlength=edges.n_atoms).astype(np.float64)
    return ShortRange(
        close_p=close_p,
        center_k=center_k,
        unit_kc=unit_kc,
        along_k=1.0 - s_k,
        across_k=held_k / r_k,
        slope_k=0.5 * (s_k * dv_k - ds_k * v_k / width_k),
        r_pc=r_pc,
        u_i=u_i,
    )
