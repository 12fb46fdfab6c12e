"""The parameter Jacobian of a configuration: energies, forces, virial.

    d/dq dE/dx_jc = sum_i sum_f M_i[q, f] dv_if/dx_jc  +  (direct dependence of the radial part on the positions)

The product is one matrix multiplication per chunk of atoms; `etnpot.kernels.jacobian` prepares its two factors.
A range of parameters aligned with the groups of ``spec.shapes`` can be asked for: one core for a local solve, the radial
and species parameters together, or everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.errors import SpecificationError
from etnpot.kernels import evaluate, jacobian
from etnpot.neighbors import EdgeList
from etnpot.potential.potential import Potential

__all__ = ["Jacobian", "Sensitivities"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Bytes that the two factors of a chunk may take.
_CHUNK_BYTES = 48e6


@dataclass(frozen=True, eq=False)
class Jacobian:
    """Derivatives by a range of parameters.

    Attributes
    ----------
    energy_iq : float64 [n_atoms, q]
        Of the energy of every atom, eV.
    gradient_qc : float64 [q, 3 n_sites + 6]
        Of dE/dx (minus the forces), atom by atom, eV/Å, then of the virial in Voigt order, eV.
    """

    energy_iq: Floats
    gradient_qc: Floats

    @property
    def forces(self) -> Floats:
        """Of the forces, float64 [n_sites, 3, q]."""
        n_sites = (self.gradient_qc.shape[1] - 6) // 3
        return np.asarray(-self.gradient_qc[:, :-6].T.reshape(n_sites, 3, -1))

    @property
    def virial(self) -> Floats:
        """Of the virial, Voigt order, float64 [6, q]."""
        return self.gradient_qc[:, -6:].T


class _Chain(NamedTuple):
    """dS/dtheta as one sparse list for each pair of species."""

    first: Integers
    lk: Integers
    q: Integers
    value: Floats


class Sensitivities:
    """Computes `Jacobian` objects of one potential for a range of its parameters.

    Parameters
    ----------
    potential : Potential
    groups : sequence of str, optional
        Consecutive names of ``spec.shapes``; all by default. Species and radial groups come together or not at all.
    """

    def __init__(self, potential: Potential, groups: tuple[str, ...] | None = None) -> None:
        spec = potential.spec
        names = list(spec.shapes)
        wanted = names if groups is None else list(groups)
        unknown = [name for name in wanted if name not in names]
        if unknown or not wanted:
            raise SpecificationError(f"groups: unknown {unknown}; the parameter groups are {names}")
        at = names.index(wanted[0])
        if names[at : at + len(wanted)] != wanted:
            raise SpecificationError(f"groups: expected consecutive names of {names}, got {wanted}")
        shared = [name for name in names if name.startswith(("species.", "radial."))]
        if 0 < len(set(wanted) & set(shared)) < len(shared):
            raise SpecificationError(f"groups: {shared} come together, got {wanted}")
        self.potential = potential
        self.start = spec.slices[wanted[0]].start
        self.stop = spec.slices[wanted[-1]].stop
        self.with_reference = "reference_energies" in wanted
        self.with_radial = bool(set(wanted) & set(shared))
        cores = [int(name.split(".")[1]) for name in wanted if name.startswith("core.")]
        path_first = potential.train_tables.path_first
        self._paths = (int(path_first[cores[0] - 1]), int(path_first[cores[-1]])) if cores else (0, 0)
        self._q_weight = spec.slices["head"].start
        self._with_head = "head" in wanted
        self._q_radial = spec.slices["radial.0"].start
        self._radial_flat = potential.parameters[self._q_radial : self._q_weight]
        self._scale = 1.0 / np.sqrt(spec.neighbor_scale)
        self._chain = _species_chain(potential) if self.with_radial else None

    @property
    def n_parameters(self) -> int:
        """Number of parameters in the range."""
        return self.stop - self.start

    def jacobian(self, edges: EdgeList, numbers: ArrayLike) -> Jacobian:
        """Jacobian of one configuration.

        Parameters
        ----------
        edges, numbers
            As for `Potential.evaluate`.

        Returns
        -------
        Jacobian
        """
        potential = self.potential
        type_i = potential.type_index(numbers)
        n_atoms, n_sites, n_q = edges.n_atoms, len(type_i), self.n_parameters
        energy_iq = np.zeros((n_atoms, n_q))
        gradient_qc = np.zeros((n_q, 3 * n_sites + 6))
        if self.with_reference:
            energy_iq[np.arange(n_atoms), type_i[:n_atoms]] = 1.0
        arguments = potential._kernel_arguments(edges, type_i)
        first = edges.first
        v_if = np.empty((n_atoms, potential.spec.feature.dimension))
        evaluate.features(*arguments[:6], 0, n_atoms, v_if)
        n_features = v_if.shape[1]
        chunk = max(1, int(_CHUNK_BYTES / (8 * n_features * (n_q + 3 * min(n_sites, 100) + 6 + n_features))))
        site_of = np.zeros(n_sites, dtype=np.int64)
        for start in range(0, n_atoms, chunk):
            stop = min(start + chunk, n_atoms)
            touched = np.arange(n_sites, dtype=np.int64)
            if n_sites > 64:
                touched = np.union1d(edges.neighbor[first[start] : first[stop]], np.arange(start, stop))
            site_of[touched] = np.arange(len(touched))
            self._chunk(edges, arguments, v_if, start, stop, touched, site_of, energy_iq, gradient_qc)
        return Jacobian(energy_iq, gradient_qc)

    def _chunk(
        self,
        edges: EdgeList,
        arguments: tuple[Any, ...],
        v_if: Floats,
        start: int,
        stop: int,
        touched: Integers,
        site_of: Integers,
        energy_iq: Floats,
        gradient_qc: Floats,
    ) -> None:
        first, r_pc, type_i, type_p, basis, table, train, weights = arguments
        n, n_features, n_q = stop - start, v_if.shape[1], self.n_parameters
        n_columns = 3 * len(touched) + 6
        spec = self.potential.spec
        sensitivity_qif = np.zeros((n_q, n, n_features)) if self.with_reference else np.empty((n_q, n, n_features))
        columns_cif = np.empty((n_columns, n, n_features))
        g_if = np.empty((n, n_features))
        shared = n if self.with_radial else 0
        hessian_iff = np.empty((shared, n_features, n_features))
        moments_iznm = np.empty((shared, spec.n_species, spec.radial.size, (spec.l_max + 1) ** 2))
        jacobian.train_sensitivities(
            train, weights, type_i[start:stop], v_if[start:stop], self._q_weight, self.start,
            *self._paths, self._with_head, energy_iq[start:stop], sensitivity_qif, g_if, hessian_iff,
        )  # fmt: skip
        jacobian.pair_sensitivities(
            first, edges.neighbor, r_pc, type_i, type_p, basis, table, start, stop, site_of, len(touched),
            self._scale, columns_cif, moments_iznm,
        )  # fmt: skip
        direct_cq = None
        if self._chain is not None:
            q_species = spec.slices["reference_energies"].stop
            direct_cq = np.zeros((n_columns, self._q_weight - q_species))
            jacobian.radial_sensitivities(
                first, edges.neighbor, r_pc, type_i, type_p, basis, self._radial_flat,
                self.potential.species_table, *self._chain, start, stop, site_of, len(touched), self._scale,
                self._q_radial, self.start, g_if, hessian_iff, moments_iznm, energy_iq[start:stop],
                sensitivity_qif, direct_cq,
            )  # fmt: skip
        product = sensitivity_qif.reshape(n_q, -1) @ columns_cif.reshape(n_columns, -1).T
        if direct_cq is not None:
            at = spec.slices["reference_energies"].stop - self.start
            product[at : at + direct_cq.shape[1]] += direct_cq.T
        if 3 * len(touched) + 6 == gradient_qc.shape[1]:
            gradient_qc += product
        else:
            columns = (3 * touched[:, None] + np.arange(3)).ravel()
            gradient_qc[:, columns] += product[:, :-6]
            gradient_qc[:, -6:] += product[:, -6:]


def _species_chain(potential: Potential) -> _Chain:
    """dS[l, k, z_i, z_j]/dtheta as sparse lists by (z_i, z_j)."""
    spec = potential.spec
    factor = spec.species_factor
    n_species, n_lk = spec.n_species, (spec.l_max + 1) * spec.species_rank
    arrays = {name: potential.arrays[f"species.{name}"] for name in factor.shapes}
    zeros = {name: np.zeros(shape) for name, shape in factor.shapes.items()}
    found: list[NDArray[np.int64]] = []
    values: list[Floats] = []
    for name, shape in factor.shapes.items():
        start = spec.slices[f"species.{name}"].start
        for index in range(int(np.prod(shape))):
            unit = np.zeros(shape)
            unit.flat[index] = 1.0
            table = factor.table_tangent(arrays, {**zeros, name: unit}).reshape(n_lk, n_species, n_species)
            lk, zi, zj = np.nonzero(table)
            found.append(np.stack([zi * n_species + zj, lk, np.full(len(lk), start + index)]))
            values.append(table[lk, zi, zj])
    pair_type, lk, q = np.concatenate(found, axis=1)
    order = np.argsort(pair_type, kind="stable")
    first = np.searchsorted(pair_type[order], np.arange(n_species**2 + 1)).astype(np.int64)
    return _Chain(
        first,
        np.ascontiguousarray(lk[order]),
        np.ascontiguousarray(q[order]),
        np.ascontiguousarray(np.concatenate(values)[order]),
    )
