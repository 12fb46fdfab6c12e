"""How far a potential can be trusted on an atom: extrapolation grade and standard deviations, from the linearised potential.

The energy of an atom is linear in the entries A of one core of the last train, with derivatives b_i = dE_i/dA
(`etnpot.kernels.sites`) that follow from the features of the atom, whether layers made these or not. What the training set says
of them is kept in three arrays:

    c_i = G^T (b_i - m[z_i]),        grade_i = max_r |c_i[r]|                                               (1)
    d_i = D^T b_i,                   std of E_i = s_E |d_i|,     std of sum_i E_i = s_E |sum_i d_i|         (2)
    std of F_ic = s_F |D^T dF_ic/dA|,                            about  s_P |d_i|                           (3)

The columns of G are the inverse of the active set: those training atoms, as many as b has independent directions, whose
matrix of rows b_i - m[z_i] has the largest volume (Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171, 2017). m is the
mean over the training atoms of an element, which its reference energy takes up. c_i are the coefficients of an atom in the
active set: where all are at most one in size, the atom lies within what was trained on. D D^T is the posterior covariance of A
after the last least-squares solve, and s_E, s_F, s_P are the factors by which it had to be scaled on held-out data.
`etnpot.fitting.reliability` makes all of them.

=======  ===========================  ===============================
symbol   here                         unit
=======  ===========================  ===============================
G        ``grade_qr``                 1 / unit of b
m G      ``center_zr``                1
D        ``deviation_qr``             eV / unit of b
s_E      ``energy_scale``             1
s_F      ``force_scale``              1
s_P      ``proxy_scale``              1/Å
         ``force_noise``              eV/Å
=======  ===========================  ===============================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.basis import bounded
from etnpot.errors import SpecificationError
from etnpot.kernels import sites
from etnpot.kernels.lanes import LANES
from etnpot.neighbors import EdgeList
from etnpot.potential import assembly
from etnpot.potential.feature_model import explain
from etnpot.threads import run_ranges

if TYPE_CHECKING:
    from etnpot.potential.potential import Potential
    from etnpot.potential.spec import PotentialSpec

__all__ = ["PREFIX", "Assessment", "Reliability", "gradients_along", "site_gradients"]

Floats = NDArray[np.float64]

#: What the names of these arrays begin with in a potential file.
PREFIX = "reliability."
#: Atoms whose derivatives are held at a time.
_CHUNK = 2048
#: With layers every site touches every atom, and the cost of a Jacobian grows with the square of their number: with more
#: atoms than this for each column of D, `gradients_along` is faster, and its memory is that of an evaluation.
_ATOMS_PER_DIRECTION = 3


@dataclass(frozen=True, eq=False)
class Assessment:
    """Grades and standard deviations of one configuration.

    Attributes
    ----------
    grade_i : float64 [n_atoms]
        Eq. (1): above one, an atom is outside of what was trained on.
    energy_std : float, eV
        Of the total energy.
    energy_std_i : float64 [n_atoms], eV
        Of the energies of atoms.
    force_std_i : float64 [n_atoms], eV/Å
        Of a force component, root mean square over the three, estimated from the energy of the atom alone.
    """

    grade_i: Floats
    energy_std: float
    energy_std_i: Floats
    force_std_i: Floats

    @property
    def grade(self) -> float:
        """The largest grade of all atoms; zero without atoms."""
        return float(self.grade_i.max(initial=0.0))


@dataclass(frozen=True, eq=False)
class Reliability:
    """What eqs. (1) to (3) need.

    Attributes
    ----------
    group : str
        The core, as in ``spec.shapes``.
    grade_qr : float64 [q, r]
        G.
    center_zr : float64 [species, r]
        m G.
    deviation_qr : float64 [q, r']
        D.
    energy_scale, force_scale, proxy_scale : float
        s_E, s_F, s_P.
    force_noise : float, eV/Å
        Standard deviation of a force component about the potential, as the last solve saw it: what a new configuration
        teaches is measured by it.
    """

    group: str
    grade_qr: Floats
    center_zr: Floats
    deviation_qr: Floats
    energy_scale: float = 1.0
    force_scale: float = 1.0
    proxy_scale: float = 1.0
    force_noise: float = 1.0

    def check(self, spec: PotentialSpec) -> None:
        """Raise SpecificationError unless the arrays belong to this specification."""
        shape = spec.shapes.get(self.group)
        if shape is None or not self.group.startswith("core."):
            raise SpecificationError(f"reliability: there is no core {self.group!r} in this potential")
        n_q, n_r = shape[0], self.grade_qr.shape[-1]
        wanted = {
            "grade": (self.grade_qr.shape, (n_q, n_r)),
            "center": (self.center_zr.shape, (spec.n_species, n_r)),
            "deviation": (self.deviation_qr.shape, (n_q, self.deviation_qr.shape[-1])),
        }
        for name, (found, expected) in wanted.items():
            if found != expected:
                raise SpecificationError(f"reliability: {name} should have shape {expected}, it has {found}")
        if not (min(self.scales) > 0 and np.isfinite(self.scales).all()):
            raise SpecificationError(f"reliability: the factors must be positive, got {self.scales}")

    @property
    def scales(self) -> tuple[float, float, float, float]:
        """s_E, s_F, s_P, and the noise of forces."""
        return self.energy_scale, self.force_scale, self.proxy_scale, self.force_noise

    def scaled(self, energy: float, force: float, proxy: float) -> Reliability:
        """The same with other factors."""
        return replace(self, energy_scale=energy, force_scale=force, proxy_scale=proxy)

    def to_arrays(self) -> dict[str, Floats]:
        """Arrays for a potential file, by name."""
        return {
            f"{PREFIX}core": np.array([float(self.group.split(".")[1])]),
            f"{PREFIX}grade": self.grade_qr,
            f"{PREFIX}center": self.center_zr,
            f"{PREFIX}deviation": self.deviation_qr,
            f"{PREFIX}scales": np.array(self.scales),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats], spec: PotentialSpec) -> Reliability | None:
        """From the arrays of a file, checked; None where there are none."""
        if not arrays:
            return None
        names = {f"{PREFIX}{name}": ndim for name, ndim in _DIMENSIONS.items()}
        found = {name: array.ndim for name, array in arrays.items()}
        if found != names:
            raise SpecificationError(f"reliability: expected arrays of dimensions {names}, got {found}")
        core, scales = arrays[f"{PREFIX}core"], arrays[f"{PREFIX}scales"]
        if core.shape != (1,) or scales.shape != (4,):
            raise SpecificationError("reliability: expected one core and four factors")
        reliability = cls(
            f"core.{core[0]:g}",
            arrays[f"{PREFIX}grade"],
            arrays[f"{PREFIX}center"],
            arrays[f"{PREFIX}deviation"],
            *(float(scale) for scale in scales),
        )
        reliability.check(spec)
        return reliability

    # ------------------------------------------------------------------------------------------- what it tells

    def coefficients(self, gradient_iq: Floats, type_i: NDArray[np.int64]) -> Floats:
        """c of eq. (1), float64 [i, r], from b."""
        return np.asarray(gradient_iq @ self.grade_qr - self.center_zr[type_i])

    def assess(
        self, potential: Potential, edges: EdgeList, numbers: ArrayLike, *, threads: int | None = None
    ) -> Assessment:
        """Eqs. (1) and (2), and (3) from the energies: see `Potential.assess`."""
        type_i = potential.type_index(numbers)[: edges.n_atoms]
        v_if = potential.features(edges, numbers, threads=threads)
        grade_i, norm_i = np.empty(edges.n_atoms), np.empty(edges.n_atoms)
        total_r = np.zeros(self.deviation_qr.shape[1])
        for start in range(0, edges.n_atoms, _CHUNK):
            part = slice(start, min(start + _CHUNK, edges.n_atoms))
            b_iq = site_gradients(potential, self.group, v_if[part], type_i[part], threads=threads)
            grade_i[part] = np.abs(self.coefficients(b_iq, type_i[part])).max(axis=1, initial=0.0)
            d_ir = b_iq @ self.deviation_qr
            norm_i[part] = np.sqrt(np.einsum("ir,ir->i", d_ir, d_ir))
            total_r += d_ir.sum(axis=0)
        if not np.isfinite(grade_i.sum() + total_r.sum()):
            explain(edges)
        return Assessment(
            grade_i=grade_i,
            energy_std=self.energy_scale * float(np.linalg.norm(total_r)),
            energy_std_i=self.energy_scale * norm_i,
            force_std_i=self.proxy_scale * norm_i,
        )

    def force_deviations(
        self, potential: Potential, edges: EdgeList, numbers: ArrayLike, *, threads: int | None = None
    ) -> Floats:
        """Eq. (3) in full, float64 [n_sites, 3], eV/Å: the cost is that of the Jacobian of a core."""
        d_cr = self.force_rows(potential, edges, numbers, threads=threads)
        return self.force_scale * np.sqrt(np.einsum("cr,cr->c", d_cr, d_cr)).reshape(-1, 3)

    def force_rows(
        self, potential: Potential, edges: EdgeList, numbers: ArrayLike, *, threads: int | None = None
    ) -> Floats:
        """D^T dE/dx dA, float64 [3 n_sites, r'], eV/Å."""
        has_many = edges.n_atoms > _ATOMS_PER_DIRECTION * self.deviation_qr.shape[1]
        if (potential.spec.layers and has_many) or potential._is_short_ranged(edges, numbers, threads):
            return gradients_along(potential, self.group, self.deviation_qr, edges, numbers, threads=threads)
        from etnpot.potential.sensitivity import Sensitivities

        jacobian = Sensitivities(potential, (self.group,)).jacobian(
            edges, numbers, per_atom=False, with_virial=False
        )
        return np.asarray(jacobian.gradient_qc.T @ self.deviation_qr)


_DIMENSIONS = {"core": 1, "grade": 2, "center": 2, "deviation": 2, "scales": 1}


def site_gradients(
    potential: Potential, group: str, v_if: Floats, type_i: NDArray[np.int64], *, threads: int | None = None
) -> Floats:
    """b_i = dE_i/dA of one core, float64 [n_atoms, q].

    Parameters
    ----------
    potential : Potential
    group : str
        "core.1" and so on.
    v_if : float64 [n_atoms, f]
        Features, as `Potential.features` gives them.
    type_i : int64 [n_atoms]
    threads : int, optional
    """
    core, where = int(group.split(".")[1]) - 1, potential.spec.slices[group]
    tables = potential.train_tables
    begin, end = int(tables.path_first[core]), int(tables.path_first[core + 1])
    q_begin = where.start - potential.spec.slices["head"].start
    before = tables._replace(path=tables.path[:begin])
    after = tables._replace(path=tables.path[end:])
    gradient_iq = np.empty((len(v_if), where.stop - where.start))
    v_if = np.ascontiguousarray(v_if)
    type_i = np.ascontiguousarray(type_i)

    def work(start: int, stop: int) -> None:
        sites.site_gradients(
            v_if,
            type_i,
            before,
            tables,
            after,
            potential.weights,
            begin,
            end,
            q_begin,
            start,
            stop,
            gradient_iq,
        )

    run_ranges(work, len(v_if), threads=threads, block=LANES, smallest=4 * LANES)
    return gradient_iq


def gradients_along(
    potential: Potential,
    group: str,
    direction_qr: Floats,
    edges: EdgeList,
    numbers: ArrayLike,
    *,
    threads: int | None = None,
) -> Floats:
    """Derivatives of dE/dx along directions of one core, float64 [3 n_sites, r], eV/Å: the cost of forces for each of them.

    The learned energy e_i is linear in a core and has no constant part: its derivative along D_r is the energy e_ir with D_r in
    the place of the core. Where f bounds it (section 16 of the theory),

        d/dA_r sum_i df(e_i)/dx = sum_i f'(e_i) de_ir/dx + f''(e_i) e_ir de_i/dx.                               (4)

    Parameters
    ----------
    potential : Potential
    group : str
        "core.1" and so on.
    direction_qr : float64 [q, r]
        D.
    edges, numbers, threads
        As for `Potential.evaluate`.
    """
    type_i = potential.type_index(numbers)
    arguments, close = potential._arguments(edges, type_i)
    way, slope_i, curvature_i = potential._pass(edges, arguments, threads), None, None
    if potential._leaves_bounds(way.energy_i):
        _, slope_i, curvature_i = bounded(way.energy_i, *potential._bounds)
    where, head = potential.spec.slices[group], potential.spec.slices["head"].start
    rows_rc = np.empty((direction_qr.shape[1], 3 * len(type_i)))
    for row_c, direction_q in zip(rows_rc, direction_qr.T, strict=True):
        weights = potential.weights.copy()
        weights[where.start - head : where.stop - head] = direction_q
        along = way.with_last_train(weights)
        gradient_pc = along.derivatives(slope_i)
        if curvature_i is not None:
            gradient_pc = gradient_pc + way.derivatives(curvature_i * along.energy_i)
        if close is not None:
            close.hold(gradient_pc)
        row_c[:] = -assembly.forces(edges, gradient_pc, len(type_i), threads).ravel()
    if not np.isfinite(rows_rc.sum()):
        explain(edges)
    return np.ascontiguousarray(rows_rc.T)
