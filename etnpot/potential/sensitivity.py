"""The parameter Jacobian of a configuration: energies, forces, virial.

`etnpot.kernels.jacobian` has the equations and sums their rows; here are the derivatives of the train by its features, by
the matrix products of numpy, and the primes of a few atoms at a time. Where there are layers,
this is so for the last train, whose features then depend on more positions; for the other parameters see
`etnpot.potential.layered_jacobian`.

A range of parameters aligned with the groups of ``spec.shapes`` can be asked for: one core for a local solve, the
radial and species parameters together, or everything.

The cost is about 2 (2 l1 + 2 l2 + 2 l3 + 3) floating-point operations per atom, parameter
and local column (three for each site that the atom touches, six for the strain).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.conventions import VOIGT
from etnpot.errors import SpecificationError
from etnpot.kernels import evaluate, jacobian
from etnpot.kernels.lanes import LANES, QUAD
from etnpot.neighbors import EdgeList
from etnpot.potential.layered import LayeredPass
from etnpot.potential.layered_jacobian import LayeredJacobian
from etnpot.potential.potential import Potential
from etnpot.potential.train_derivatives import DenseCores, differentiate
from etnpot.workspace import Workspace

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Jacobian", "Sensitivities"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Bytes that the factors of a chunk of atoms may take.
_CHUNK_BYTES = 64e6
#: Atoms are alike whose features and their derivatives by the strain differ by less than this part of the largest.
_ALIKE = 1e-4
#: Columns of all sites in place of those that an atom touches, where they are not more by more than this.
_NEARLY_ALL = 1.25


@dataclass(frozen=True, eq=False)
class Jacobian:
    """Derivatives by a range of parameters.

    Attributes
    ----------
    energy_iq : float64 [n_atoms, q], or [1, q] of their sum
        Of the energy of every atom, eV.
    gradient_qc : float64 [q, 3 n_sites + 6], or [q, 3 n_sites] without virial
        Of dE/dx (minus the forces), atom by atom, eV/Å, then of the virial in Voigt order, eV.
    n_sites : int
        Atoms that carry a force; 0 where no forces were wanted.
    """

    energy_iq: Floats
    gradient_qc: Floats
    n_sites: int

    @property
    def forces(self) -> Floats:
        """Of the forces, float64 [n_sites, 3, q]."""
        gradient_cq = self.gradient_qc[:, : 3 * self.n_sites].T
        return np.asarray(-gradient_cq.reshape(self.n_sites, 3, len(self.gradient_qc)))

    @property
    def virial(self) -> Floats:
        """Of the virial, Voigt order, float64 [6, q]."""
        return self.gradient_qc[:, 3 * self.n_sites :].T


class _Chain(NamedTuple):
    """dS/dtheta: one sparse list for each pair of species, and for each central species z_i those theta that matter to it, with
    a sparse matrix [theta, (l k z_j)].

    ``first`` [z_i * S + z_j]: entries of the pair in ``lk``, ``q`` and ``value``; ``q_z`` and ``matrix_z`` of each z_i.
    """

    first: Integers
    lk: Integers
    q: Integers
    value: Floats
    q_z: list[Integers]
    matrix_z: list[csr_array]


class Sensitivities:
    """Computes `Jacobian` objects of one potential for a range of its parameters.

    Parameters
    ----------
    potential : Potential
    groups : sequence of str, optional
        Consecutive names of ``spec.shapes``; all by default. Species and radial groups come together or not
        at all.
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
        shared = spec.shared_groups
        if 0 < len(set(wanted) & set(shared)) < len(shared):
            raise SpecificationError(f"groups: {list(shared)} come together, got {wanted}")
        self.potential = potential
        self.start = spec.slices[wanted[0]].start
        self.stop = spec.slices[wanted[-1]].stop
        self._with_reference = "reference_energies" in wanted
        self._with_head = "head" in wanted
        self._cores = [int(name.split(".")[1]) - 1 for name in wanted if name.startswith("core.")]
        self._q_species = spec.slices["reference_energies"].stop
        self._q_radial = spec.slices["radial.0"].start
        self._q_weight = spec.slices["head"].start
        self._scale = 1.0 / np.sqrt(spec.neighbor_scale)
        self._chain = _species_chain(potential) if set(wanted) & set(shared) else None
        self._dense = DenseCores(potential.train)
        self._layered = LayeredJacobian(potential) if spec.layers else None

    @property
    def n_parameters(self) -> int:
        """Number of parameters in the range."""
        return self.stop - self.start

    def jacobian(
        self,
        edges: EdgeList,
        numbers: ArrayLike,
        *,
        per_atom: bool = True,
        with_forces: bool = True,
        with_virial: bool = True,
        workspace: Workspace | None = None,
    ) -> Jacobian:
        """Jacobian of one configuration.

        Parameters
        ----------
        edges, numbers
            As for `Potential.evaluate`.
        per_atom : bool
            Energies of every atom, or their sum in one row.
        with_forces, with_virial : bool
            Whether forces and the virial are wanted.
        workspace : Workspace, optional
            Holds the large arrays: the Jacobian is then that of the last call with it alone.

        Returns
        -------
        Jacobian
        """
        workspace = Workspace() if workspace is None else workspace
        found = self._jacobian(edges, numbers, per_atom, with_forces, with_virial, workspace)
        if with_forces or found.n_sites == 0:
            return found
        return Jacobian(found.energy_iq, found.gradient_qc[:, 3 * found.n_sites :], 0)

    def _jacobian(
        self,
        edges: EdgeList,
        numbers: ArrayLike,
        per_atom: bool,
        with_forces: bool,
        with_virial: bool,
        workspace: Workspace,
    ) -> Jacobian:
        """The Jacobian; may hold forces that are not wanted."""
        spec = self.potential.spec
        type_i = self.potential.type_index(numbers)
        n_atoms, n_sites, n_q = edges.n_atoms, len(type_i), self.n_parameters
        energy_iq = np.zeros((n_atoms if per_atom else 1, n_q))
        n_strain = len(VOIGT) if with_virial else 0
        arguments, close = self.potential._arguments(edges, type_i)
        if self._chain is not None and spec.layers and per_atom:
            return self._row_by_row(edges, numbers, per_atom=per_atom, with_virial=with_virial)
        layered = self.potential._pass(edges, arguments, 1) if spec.layers else None
        if isinstance(layered, LayeredPass):
            v_if = layered.v[-1]
        else:
            v_if = np.empty((n_atoms, spec.feature.dimension))
            evaluate.features(*arguments[:6], 0, n_atoms, v_if)
        if close is not None or self._leaves_bounds(v_if, type_i[:n_atoms]):
            return self._row_by_row(edges, numbers, per_atom=per_atom, with_virial=with_virial)
        columns_ifc = None
        if isinstance(layered, LayeredPass):
            columns = layered.columns(with_virial)
            if self._chain is not None and self._layered is not None:
                energy_1q, all_qc = self._layered.rows(layered, columns)
                mine = slice(self.start, self.stop)
                energy_iq += energy_1q[:, mine]
                if self._with_reference:
                    np.add.at(energy_iq[0], type_i, 1.0)
                return Jacobian(energy_iq, all_qc[mine], n_sites)
            touched, columns_ifc = _all_sites(edges, n_sites, n_strain), columns.v[-1]
        elif with_forces:
            touched = _touched_sites(edges, n_sites, n_strain)
        else:
            touched, n_sites = _one_site(edges, n_strain), 1
        n_columns = 3 * n_sites + n_strain
        gradient_qc = workspace.empty(
            "gradient_qc", (n_q, touched.n_columns if touched.is_aligned else n_columns)
        )
        gradient_qc[:] = 0.0
        n_rows = self.potential.train_tables.n_bond_rows + spec.feature.dimension
        chunk = max(1, int(_CHUNK_BYTES / (16 * n_rows * (touched.n_columns + spec.feature.dimension))))
        for start in range(0, n_atoms, chunk):
            stop = min(start + chunk, n_atoms)
            merge = not with_forces and not per_atom
            work = _Chunk(
                self,
                edges,
                arguments,
                touched,
                v_if,
                columns_ifc,
                start,
                stop,
                merge=merge,
                workspace=workspace,
            )
            work.add(energy_iq[start:stop] if per_atom else energy_iq, gradient_qc)
        return Jacobian(energy_iq, gradient_qc[:, :n_columns], n_sites)

    def _leaves_bounds(self, v_if: Floats, type_i: Integers) -> bool:
        if self.potential.spec.energy_bounds is None:
            return False
        x_ia = np.empty((len(v_if), self.potential.train_tables.n_bond_rows))
        evaluate.bonds(v_if, type_i, self.potential.train_tables, self.potential.weights, x_ia)
        return self.potential._leaves_bounds(x_ia[:, -1])

    def _row_by_row(
        self, edges: EdgeList, numbers: ArrayLike, *, per_atom: bool, with_virial: bool
    ) -> Jacobian:
        """The Jacobian from one gradient for each row: where the short range acts, which is rare, since it acts on no
        configuration of a training set, and for single atoms of a potential with layers."""
        n_atoms, n_sites = edges.n_atoms, len(np.asarray(numbers))
        gradient = self.potential.gradients(edges, numbers)
        mine = slice(self.start, self.stop)
        none_pc = np.zeros((edges.n_pairs, 3))
        weights = np.eye(n_atoms) if per_atom else np.ones((1, n_atoms))
        energy_iq = np.stack([gradient(e_i, none_pc)[mine] for e_i in weights])
        gradient_qc = np.empty((self.n_parameters, 3 * n_sites + with_virial * len(VOIGT)))
        none_i = np.zeros(n_atoms)
        for at in range(3 * n_sites):
            site, c = divmod(at, 3)
            direction_pc = np.zeros((edges.n_pairs, 3))
            direction_pc[:, c] = (edges.neighbor == site).astype(float) - (edges.center == site)
            gradient_qc[:, at] = gradient(none_i, direction_pc)[mine]
        for at, (a, b) in enumerate(VOIGT if with_virial else ()):
            direction_pc = np.zeros((edges.n_pairs, 3))
            direction_pc[:, a] += 0.5 * edges.r_pc[:, b]
            direction_pc[:, b] += 0.5 * edges.r_pc[:, a]
            gradient_qc[:, 3 * n_sites + at] = gradient(none_i, direction_pc)[mine]
        return Jacobian(energy_iq, gradient_qc, n_sites)


class _Touched(NamedTuple):
    """The sites whose positions matter to each atom: its neighbours and itself.

    ``site_is`` [i, s] and ``count_i`` [i]: the sites; ``slot_p``, ``slot_i``: where in them the neighbour of a pair and the
    atom itself are; ``n_sites``, ``n_strain``: sites of the configuration, and columns of strain after them. Where ``site_is``
    has no columns, the columns of every atom are those of the configuration.
    """

    site_is: Integers
    count_i: Integers
    slot_p: Integers
    slot_i: Integers
    n_sites: int
    n_strain: int

    @property
    def is_aligned(self) -> bool:
        """Whether the columns of every atom are those of the configuration."""
        return self.site_is.shape[1] == 0

    @property
    def n_columns(self) -> int:
        """Columns of the atom that has most, rounded up to lanes."""
        return _in_lanes(3 * (self.n_sites if self.is_aligned else self.site_is.shape[1]) + self.n_strain)


def _in_lanes(n: int) -> int:
    return -(-n // LANES) * LANES


def _touched_sites(edges: EdgeList, n_sites: int, n_strain: int) -> _Touched:
    n_atoms = edges.n_atoms
    atoms = np.arange(n_atoms, dtype=np.int64)
    keys = np.concatenate([edges.center * n_sites + edges.neighbor, atoms * n_sites + atoms])
    found, place = np.unique(keys, return_inverse=True)
    center = found // n_sites
    first_i = np.searchsorted(center, atoms)
    count_i = np.diff(np.append(first_i, len(found)))
    most = int(count_i.max(initial=0))
    if _in_lanes(3 * n_sites + n_strain) <= _NEARLY_ALL * _in_lanes(3 * most + n_strain):
        return _all_sites(edges, n_sites, n_strain)
    site_is = np.zeros((n_atoms, most), dtype=np.int64)
    site_is[center, np.arange(len(found)) - first_i[center]] = found % n_sites
    slots = place.reshape(-1) - first_i[np.concatenate([edges.center, atoms])]
    slot_p, slot_i = slots[: edges.n_pairs].copy(), slots[edges.n_pairs :].copy()
    return _Touched(site_is, count_i, slot_p, slot_i, n_sites, n_strain)


def _one_site(edges: EdgeList, n_strain: int) -> _Touched:
    """All atoms as one site, which has no forces: what is left are the columns of strain."""
    return _aligned(np.zeros(edges.n_pairs, np.int64), np.zeros(edges.n_atoms, np.int64), 1, n_strain)


def _all_sites(edges: EdgeList, n_sites: int, n_strain: int) -> _Touched:
    """Every atom touched by every site, as nearly so in small cells, and where there are layers."""
    return _aligned(edges.neighbor, np.arange(edges.n_atoms, dtype=np.int64), n_sites, n_strain)


def _aligned(slot_p: Integers, slot_i: Integers, n_sites: int, n_strain: int) -> _Touched:
    n_atoms = len(slot_i)
    none_is, count_i = np.empty((n_atoms, 0), np.int64), np.full(n_atoms, n_sites, np.int64)
    return _Touched(none_is, count_i, slot_p, slot_i, n_sites, n_strain)


def _distinct(type_i: Integers, *arrays: Floats) -> tuple[Integers, Floats]:
    """Atoms that are not alike in their type and what is given of them, and how many each of them stands for."""
    columns = [array.reshape(len(type_i), -1) for array in arrays if len(array)]
    scales = [max(float(np.abs(c).max(initial=0.0)), 1e-300) for c in columns]
    rows = np.concatenate([c / s for c, s in zip(columns, scales, strict=True)], axis=1)
    keys = np.concatenate([type_i[:, None], np.rint(rows / _ALIKE)], axis=1) + 0.0  # no -0
    members: dict[bytes, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key.tobytes(), []).append(i)
    kept = np.array([group[0] for group in members.values()], dtype=np.int64)
    return kept, np.array([len(group) for group in members.values()], dtype=np.float64)


def _pairs_of(
    atoms: Integers, arrays: tuple[Integers, Integers, Floats, Integers, Integers]
) -> tuple[Integers, Integers, Floats, Integers, Integers]:
    """``first``, ``neighbor``, ``r_pc``, ``type_i`` and ``type_p`` of some atoms, all of whose neighbours are one site."""
    first, _, r_pc, type_i, type_p = arrays
    pairs = np.concatenate([np.arange(first[i], first[i + 1]) for i in atoms])
    ends = np.cumsum(first[atoms + 1] - first[atoms])
    return np.append(0, ends), np.zeros_like(pairs), r_pc[pairs], type_i[atoms], type_p[pairs]


class _Chunk:
    """A chunk of atoms: states of the train, derivatives of the features, and the sums of the equations.

    Where neither forces nor the energies of single atoms are wanted, one atom stands for all that are alike, as most are in
    crystals (`merge`).
    """

    def __init__(
        self,
        owner: Sensitivities,
        edges: EdgeList,
        arguments: tuple[Any, ...],
        touched: _Touched,
        v_if: Floats,
        columns_ifc: Floats | None,
        start: int,
        stop: int,
        *,
        merge: bool,
        workspace: Workspace,
    ) -> None:
        first, r_pc, type_i, type_p, basis, table, train, weights = arguments
        self.owner, self.spec, self.train, self.workspace = owner, owner.potential.spec, train, workspace
        self.type_i = type_i[start:stop]
        self.n = n = stop - start
        self.v_if = v_if[start:stop]
        self.site_is, self.count_i = touched.site_is[start:stop], touched.count_i[start:stop]
        self.n_strain, self.n_sites, self.n_column_sites = touched.n_strain, len(type_i), touched.n_sites
        #: How many atoms of the chunk each stands for.
        self.weight_i = np.ones(n)
        n_features = v_if.shape[1]
        with_shared = owner._chain is not None
        #: dv/dx, [i, f, local column]
        self.dv_ifc: Floats
        if columns_ifc is not None:
            self.dv_ifc = workspace.empty("dv_ifc", (n, n_features, touched.n_columns))
            self.dv_ifc[:, :, columns_ifc.shape[2] :] = 0.0
            self.dv_ifc[:, :, : columns_ifc.shape[2]] = columns_ifc[start:stop]
            self._differentiate_train(weights, with_shared)
            return
        columns_icf = workspace.empty("columns_icf", (n, touched.n_columns, n_features))
        self.moments_iznm = np.empty(
            (n if with_shared else 0, self.spec.n_species, self.spec.radial.size, (self.spec.l_max + 1) ** 2)
        )
        jacobian.pair_sensitivities(
            first, r_pc, type_i, type_p, basis, table, start, stop, touched.slot_p, touched.slot_i, touched.count_i,
            touched.n_strain, owner._scale, columns_icf, self.moments_iznm,
        )  # fmt: skip
        arrays = first, edges.neighbor, r_pc, type_i, type_p
        self._range = start, stop
        if merge:
            kept, self.weight_i = _distinct(
                self.type_i, self.v_if, columns_icf[:, 3 : 3 + self.n_strain], self.moments_iznm
            )
            self.n = n = len(kept)
            self.type_i, self.v_if, columns_icf = self.type_i[kept], self.v_if[kept], columns_icf[kept]
            self.moments_iznm = self.moments_iznm[kept] if with_shared else self.moments_iznm
            self.site_is, self.count_i = self.site_is[:n], self.count_i[:n]
            arrays = _pairs_of(start + kept, arrays)
            self._range, self.n_sites = (0, n), n
        self.dv_ifc = workspace.empty("dv_ifc", (n, n_features, touched.n_columns))
        self.dv_ifc[:] = columns_icf.transpose(0, 2, 1)
        self._direct = (
            *arrays, basis, owner.potential.parameters[owner._q_radial : owner._q_weight],
            owner.potential.species_table,
        )  # fmt: skip
        self._differentiate_train(weights, with_shared)

    def _differentiate_train(self, weights: Floats, with_hessian: bool) -> None:
        """Bonds, adjoints, g = dE/dv, their derivatives by the features, and the Hessian.

        For some of the cores, dx/dv is wanted up to the left bond of the last of them, and dy/dv down to the right bond of the
        first.
        """
        owner, cores = self.owner, self.owner._cores
        found = differentiate(
            self.train, owner._dense, weights, self.v_if, self.type_i, self.weight_i[:, None],
            last_dx=cores[-1] if cores else 0,
            first_dy=0 if with_hessian or owner._with_head else cores[0] + 1 if cores else self.spec.order,
            with_hessian=with_hessian, workspace=self.workspace,
        )  # fmt: skip
        self.x_ia, self.y_ia, self.dx_iaf, self.dy_iaf, self.hessian_iff, _ = found
        if with_hessian:
            # g is the derivative of the first adjoint contracted with the head
            rank = int(self.train.bond_first[1])
            self.g_if = (self.x_ia[:, None, :rank] @ self.dy_iaf[:, :rank])[:, 0]

    def add(self, energy_iq: Floats, gradient_qc: Floats) -> None:
        """Add everything that is wanted; `energy_iq` has one row per atom, or one for their sum."""
        owner = self.owner
        if owner._with_reference:
            rows = np.arange(self.n) if len(energy_iq) == self.n else np.zeros(self.n, dtype=np.int64)
            np.add.at(energy_iq, (rows, self.type_i), self.weight_i)
        if owner._chain is not None:
            self._add_shared(owner._chain, energy_iq, gradient_qc)
        if owner._with_head:
            self._add_head(energy_iq, gradient_qc)
        if owner._cores:
            self._add_cores(energy_iq, gradient_qc)

    def _add_head(self, energy_iq: Floats, gradient_qc: Floats) -> None:
        """dE/dA_0[z, a] = y_0[a] for the atoms of type z."""
        rank = self.spec.layout.head_shape[1]
        at = self.owner._q_weight - self.owner.start
        atoms = np.arange(self.n) if len(energy_iq) == self.n else np.zeros(self.n, dtype=np.int64)
        q_i = at + self.type_i * rank
        np.add.at(energy_iq, (atoms[:, None], q_i[:, None] + np.arange(rank)), self.y_ia[:, :rank])
        self._add_rows(
            np.broadcast_to(np.eye(rank), (self.n, rank, rank)), self.dy_iaf[:, :rank] @ self.dv_ifc,
            np.arange(rank), q_i, gradient_qc,
        )  # fmt: skip

    def _add_rows(
        self, factor_iqm: Floats, prime_ifc: Floats, f_m: Integers, q_i: Integers, gradient_qc: Floats
    ) -> None:
        jacobian.add_rows(
            np.ascontiguousarray(factor_iqm), prime_ifc, np.ascontiguousarray(f_m), q_i, self.site_is, self.count_i,
            self.n_strain, gradient_qc,
        )  # fmt: skip

    def _add_cores(self, energy_iq: Floats, gradient_qc: Floats) -> None:
        """Eqs. (1) and (2), for a few atoms at a time."""
        cores, first, path_first = self.owner._cores, self.train.bond_first, self.train.path_first
        begin, end = int(path_first[cores[0]]), int(path_first[cores[-1] + 1])
        lefts = slice(int(first[cores[0]]), int(first[cores[-1] + 1]))
        rights = slice(int(first[cores[0] + 1]), int(first[cores[-1] + 2]))
        q_shift = self.owner._q_weight - self.owner.start
        per_atom = len(energy_iq) == self.n
        for here in range(0, self.n, QUAD):
            atoms = slice(here, here + QUAD)
            dv_ifc = self.dv_ifc[atoms]
            jacobian.add_cores(
                self.train, begin, end, self.v_if[atoms], self.x_ia[atoms], self.y_ia[atoms], dv_ifc,
                self._primes("dx_iac", self.dx_iaf[atoms, lefts], dv_ifc), lefts.start,
                self._primes("dy_iac", self.dy_iaf[atoms, rights], dv_ifc), rights.start,
                self.site_is[atoms], self.count_i[atoms], self.n_strain, q_shift,
                energy_iq[atoms] if per_atom else energy_iq, gradient_qc,
            )  # fmt: skip

    def _primes(self, name: str, by_feature_iaf: Floats, dv_ifc: Floats) -> Floats:
        out = self.workspace.empty(name, (*by_feature_iaf.shape[:2], dv_ifc.shape[2]))
        return np.asarray(np.matmul(by_feature_iaf, dv_ifc, out=out))

    def _add_shared(self, chain: _Chain, energy_iq: Floats, gradient_qc: Floats) -> None:
        """Eq. (3): radial coefficients and species factor."""
        owner, spec, n = self.owner, self.spec, self.n
        n_species, rank, n_radial = spec.n_species, spec.species_rank, spec.radial.size
        per_atom = len(energy_iq) == n
        basis = owner.potential.basis_tables
        table_lkij = owner.potential.species_table
        dg_ifc = self.workspace.empty("dg_ifc", self.dv_ifc.shape)
        np.matmul(self.hessian_iff, self.dv_ifc, out=dg_ifc)
        n_columns = gradient_qc.shape[1]
        n_species_q = owner._q_radial - owner._q_species
        at_species = owner._q_species - owner.start
        at = owner._q_radial - owner.start
        # derivatives by S[l, k, z_i, z_j] for each central species, chained to theta once they are complete
        by_table_zlkjc = np.zeros((n_species, spec.l_max + 1, rank, n_species, n_columns))
        energy_ilkj = np.zeros((n, spec.l_max + 1, rank, n_species))
        for l, channels in enumerate(spec.channels):
            dim, harmonics = 2 * l + 1, slice(l * l, (l + 1) ** 2)
            feature_mc = (
                int(basis.feature_first[l])
                + np.arange(dim)[:, None] * int(basis.feature_rank[l])
                + np.arange(channels)
            )
            moments_iznm = self.moments_iznm[..., harmonics]
            coefficients_cnk = owner.potential.arrays[f"radial.{l}"]
            g_imc = self.g_if[:, feature_mc]
            table_ikz = table_lkij[l].transpose(1, 0, 2)[self.type_i]
            by_species_iznm = np.ascontiguousarray(moments_iznm).reshape(n, n_species, n_radial * dim)
            mixed_iknm = (table_ikz @ by_species_iznm).reshape(n, rank, n_radial, dim)
            mixed_iqm = np.ascontiguousarray(mixed_iknm.transpose(0, 2, 1, 3)).reshape(
                n, n_radial * rank, dim
            )
            size = channels * n_radial * rank
            for c in range(channels):
                q_i = np.full(n, at + c * n_radial * rank)
                self._add_rows(mixed_iqm, dg_ifc, feature_mc[:, c], q_i, gradient_qc)
            energy = (mixed_iqm @ g_imc).transpose(0, 2, 1).reshape(n, size)
            energy_iq[:, at : at + size] += energy if per_atom else energy.sum(axis=0)
            by_radial_in = moments_iznm.transpose(0, 1, 3, 2).reshape(-1, n_radial)
            weighted_izmkc = by_radial_in @ coefficients_cnk.transpose(1, 2, 0).reshape(n_radial, -1)
            weighted_ikzmc = weighted_izmkc.reshape(n, n_species, dim, rank, channels).transpose(
                0, 3, 1, 2, 4
            )
            weighted_ikzf = weighted_ikzmc.reshape(n, rank * n_species, dim * channels)
            energy_ilkj[:, l] = (weighted_ikzf @ g_imc.reshape(n, -1, 1)).reshape(n, rank, n_species)
            by_table = by_table_zlkjc.reshape(-1, n_columns)
            self._add_rows(
                weighted_ikzf, dg_ifc, feature_mc.ravel(),
                (self.type_i * (spec.l_max + 1) + l) * rank * n_species, by_table,
            )  # fmt: skip
            at += size
        for z in np.unique(self.type_i):
            rows, matrix = at_species + chain.q_z[z], chain.matrix_z[z]
            mine = self.type_i == z
            gradient_qc[rows] += matrix @ by_table_zlkjc[z].reshape(matrix.shape[1], -1)
            energy = (matrix @ energy_ilkj[mine].reshape(-1, matrix.shape[1]).T).T
            if per_atom:
                energy_iq[np.ix_(mine, rows)] += energy
            else:
                energy_iq[0, rows] += energy.sum(axis=0)
        # one site in place of all has no forces
        n_sites = self.n_sites if self.n_column_sites == self.n_sites else 0
        direct_cq = np.zeros((3 * n_sites + self.n_strain, owner._q_weight - owner._q_species))
        jacobian.direct_sensitivities(
            *self._direct, *chain[:4], *self._range, owner._scale, n_species_q, n_sites, self.g_if, direct_cq
        )
        end = 3 * self.n_column_sites + self.n_strain
        gradient_qc[at_species : at_species + direct_cq.shape[1], end - len(direct_cq) : end] += direct_cq.T


def _species_chain(potential: Potential) -> _Chain:
    """dS[l, k, z_i, z_j]/dtheta for all theta."""
    from scipy.sparse import csr_array  # here, since evaluation alone does without it

    spec = potential.spec
    factor = spec.species_factor
    n_species, n_lk = spec.n_species, (spec.l_max + 1) * spec.species_rank
    arrays = {name: potential.arrays[f"species.{name}"] for name in factor.shapes}
    zeros = {name: np.zeros(shape) for name, shape in factor.shapes.items()}
    found: list[NDArray[np.int64]] = []
    values: list[Floats] = []
    q = 0
    for name, shape in factor.shapes.items():
        for index in range(int(np.prod(shape))):
            unit = np.zeros(shape)
            unit.flat[index] = 1.0
            table = factor.table_tangent(arrays, {**zeros, name: unit}).reshape(n_lk, n_species, n_species)
            lk, zi, zj = np.nonzero(table)
            found.append(np.stack([zi * n_species + zj, lk, np.full(len(lk), q)]))
            values.append(table[lk, zi, zj])
            q += 1
    pair_type, lk, q_entries = np.concatenate(found, axis=1)
    value = np.concatenate(values)
    q_z, matrix_z = [], []
    for z in range(n_species):
        mine = pair_type // n_species == z
        q_here, row = np.unique(q_entries[mine], return_inverse=True)
        column = lk[mine] * n_species + pair_type[mine] % n_species
        q_z.append(q_here)
        matrix_z.append(
            csr_array((value[mine], (row.reshape(-1), column)), shape=(len(q_here), n_lk * n_species))
        )
    order = np.argsort(pair_type, kind="stable")
    first = np.searchsorted(pair_type[order], np.arange(n_species**2 + 1)).astype(np.int64)
    return _Chain(
        first,
        np.ascontiguousarray(lk[order]),
        np.ascontiguousarray(q_entries[order]),
        np.ascontiguousarray(value[order]),
        q_z,
        matrix_z,
    )
