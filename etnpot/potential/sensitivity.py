"""The parameter Jacobian of a configuration: energies, forces, virial.

`etnpot.kernels.jacobian` has the equations and prepares their factors; here they are multiplied, path by
path, by the matrix products of numpy, over all atoms of a chunk at once. A range of parameters aligned with
the groups of ``spec.shapes`` can be asked for: one core for a local solve, the radial and species parameters
together, or everything.

The cost per configuration is about 2 (2 l1 + 2 l2 + 2 l3 + 3) floating-point operations per atom, parameter
and column (three columns for each atom within reach, six for the strain).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.errors import SpecificationError
from etnpot.kernels import evaluate, jacobian
from etnpot.kernels.train import RIGHT, WEIGHT
from etnpot.neighbors import EdgeList
from etnpot.network import CoreLayout, Path, dense_core
from etnpot.potential.potential import Potential
from etnpot.so3 import Irrep

__all__ = ["Jacobian", "Sensitivities"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Bytes that the factors of a chunk of atoms may take.
_CHUNK_BYTES = 64e6
#: Atoms whose primes are computed together.
_ATOMS_IN_CACHE = 4


@dataclass(frozen=True, eq=False)
class Jacobian:
    """Derivatives by a range of parameters.

    Attributes
    ----------
    energy_iq : float64 [n_atoms, q], or [1, q] of their sum
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
    """dS/dtheta: one sparse list for each pair of species, one matrix [theta, (l k z_j)] per central species.

    ``first`` [z_i * S + z_j]: entries of the pair in ``lk``, ``q`` and ``value``; ``matrix_z`` [z_i, q, lkz].
    """

    first: Integers
    lk: Integers
    q: Integers
    value: Floats
    matrix_z: Floats


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
        shared = [name for name in names if name.startswith(("species.", "radial."))]
        if 0 < len(set(wanted) & set(shared)) < len(shared):
            raise SpecificationError(f"groups: {shared} come together, got {wanted}")
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
        #: T = A C of every core, [right row, left row, feature].
        self.cores_abf = [
            np.ascontiguousarray(dense_core(layout, core).transpose(2, 0, 1))
            for layout, core in zip(spec.layout.cores, potential.train.cores, strict=True)
        ]

    @property
    def n_parameters(self) -> int:
        """Number of parameters in the range."""
        return self.stop - self.start

    def jacobian(self, edges: EdgeList, numbers: ArrayLike, *, per_atom: bool = True) -> Jacobian:
        """Jacobian of one configuration.

        Parameters
        ----------
        edges, numbers
            As for `Potential.evaluate`.
        per_atom : bool
            Energies of every atom, or their sum in one row.

        Returns
        -------
        Jacobian
        """
        spec = self.potential.spec
        type_i = self.potential.type_index(numbers)
        n_atoms, n_sites, n_q = edges.n_atoms, len(type_i), self.n_parameters
        energy_iq = np.zeros((n_atoms if per_atom else 1, n_q))
        gradient_qc = np.zeros((n_q, 3 * n_sites + 6))
        arguments = self.potential._kernel_arguments(edges, type_i)
        first = edges.first
        v_if = np.empty((n_atoms, spec.feature.dimension))
        evaluate.features(*arguments[:6], 0, n_atoms, v_if)
        n_rows = self.potential.train_tables.n_bond_rows + spec.feature.dimension
        n_columns = 3 * min(n_sites, 100) + 6 + spec.feature.dimension
        chunk = max(1, int(_CHUNK_BYTES / (16 * n_rows * n_columns)))
        site_of = np.zeros(n_sites, dtype=np.int64)
        for start in range(0, n_atoms, chunk):
            stop = min(start + chunk, n_atoms)
            touched = np.arange(n_sites, dtype=np.int64)
            if n_sites > 64:
                touched = np.union1d(edges.neighbor[first[start] : first[stop]], np.arange(start, stop))
            site_of[touched] = np.arange(len(touched))
            work = _Chunk(self, edges, arguments, v_if, start, stop, len(touched), site_of)
            energy = energy_iq[start:stop] if per_atom else energy_iq
            if len(touched) == n_sites:
                work.add(energy, gradient_qc)
            else:
                local_qc = np.zeros((n_q, work.n_columns))
                work.add(energy, local_qc)
                gradient_qc[:, (3 * touched[:, None] + np.arange(3)).ravel()] += local_qc[:, :-6]
                gradient_qc[:, -6:] += local_qc[:, -6:]
        return Jacobian(energy_iq, gradient_qc)


class _Stack:
    """Blocks [a, b, m, i] of the paths of a core, one matrix [(path, a, b), (m, i)] for all paths that share an irrep.

    Parameters
    ----------
    entries : iterable of (Path, Irrep, shape)
    """

    def __init__(self, entries: Iterable[tuple[Path, Irrep, tuple[int, int, int, int]]]) -> None:
        self.groups: dict[Irrep, list[tuple[Path, slice]]] = {}
        self.blocks: dict[Path, Floats] = {}
        shared: dict[Irrep, list[tuple[Path, tuple[int, int, int, int]]]] = {}
        for path, irrep, shape in entries:
            shared.setdefault(irrep, []).append((path, shape))
        self.matrices: dict[Irrep, Floats] = {}
        for irrep, members in shared.items():
            height = sum(a * b for _, (a, b, _, _) in members)
            _, _, dim, n = members[0][1]
            matrix = self.matrices[irrep] = np.empty((height, n * dim))
            self.groups[irrep], at = [], 0
            for path, shape in members:
                rows = slice(at, at + shape[0] * shape[1])
                self.groups[irrep].append((path, rows))
                self.blocks[path] = matrix[rows].reshape(shape)
                at = rows.stop


class _Chunk:
    """A chunk of atoms: states of the train, derivatives of the features, and the products of the equations.

    A factor named ``..._Kac`` is [(m, i), (a, column)]: the sum over components and atoms is the inner index of
    a product.
    """

    def __init__(
        self,
        owner: Sensitivities,
        edges: EdgeList,
        arguments: tuple[Any, ...],
        v_if: Floats,
        start: int,
        stop: int,
        n_sites: int,
        site_of: Integers,
    ) -> None:
        first, r_pc, type_i, type_p, basis, table, train, weights = arguments
        self.owner, self.spec, self.train = owner, owner.potential.spec, train
        self.type_i = type_i[start:stop]
        self.n = n = stop - start
        self.n_columns = 3 * n_sites + 6
        self.v_if = v_if[start:stop]
        n_features = v_if.shape[1]
        with_shared = owner._chain is not None
        shared = n if with_shared else 0
        self._differentiate_train(weights, with_shared)
        columns_cif = np.empty((self.n_columns, n, n_features))
        self.moments_iznm = np.empty(
            (shared, self.spec.n_species, self.spec.radial.size, (self.spec.l_max + 1) ** 2)
        )
        jacobian.pair_sensitivities(
            first, edges.neighbor, r_pc, type_i, type_p, basis, table, start, stop, site_of, n_sites,
            owner._scale, columns_cif, self.moments_iznm,
        )  # fmt: skip
        #: dv/dx, [i, f, column]
        self.dv_ifc = np.ascontiguousarray(columns_cif.transpose(1, 2, 0))
        self.direct_cq: Floats | None = None
        if owner._chain is not None:
            self.direct_cq = np.zeros((self.n_columns, owner._q_weight - owner._q_species))
            jacobian.direct_sensitivities(
                first, edges.neighbor, r_pc, type_i, type_p, basis,
                owner.potential.parameters[owner._q_radial : owner._q_weight], owner.potential.species_table,
                *owner._chain[:4], start, stop, site_of, n_sites, owner._scale,
                owner._q_radial - owner._q_species, self.g_if, self.direct_cq,
            )  # fmt: skip

    def _differentiate_train(self, weights: Floats, with_hessian: bool) -> None:
        """Bonds x, adjoints y, g = dE/dv, their derivatives by the features, and the Hessian.

        With the cores as dense tensors T = A C, the transfer matrices W = T v, X = T x and Y = T y of each,

            x_k = W x_{k-1},   dx_k/dv = W dx_{k-1}/dv + X,   dy_{k-1}/dv = W^T dy_k/dv + Y,   g = sum_k X^T y_k,
            H = M + M^T,   M = sum_k X^T dy_k/dv      (the feature of core k first, one of a later core second).
        """
        n, n_features, first = self.n, self.v_if.shape[1], self.train.bond_first
        n_rows, n_cores = self.train.n_bond_rows, self.spec.order
        bonds = [slice(first[k], first[k + 1]) for k in range(n_cores + 1)]
        self.x_ia, self.y_ia = np.zeros((n, n_rows)), np.zeros((n, n_rows))
        self.dx_iaf, self.dy_iaf = np.zeros((n, n_rows, n_features)), np.zeros((n, n_rows, n_features))
        self.x_ia[:, bonds[0]] = weights[: self.spec.layout.head_shape[0] * first[1]].reshape(-1, first[1])[
            self.type_i
        ]
        self.y_ia[:, -1] = 1.0
        transfers = []
        for k, tensor_abf in enumerate(self.owner.cores_abf):
            right, left = bonds[k + 1], bonds[k]
            n_right, n_left, _ = tensor_abf.shape
            transfer = (self.v_if @ tensor_abf.reshape(-1, n_features).T).reshape(n, n_right, n_left)
            by_left = self.x_ia[:, left] @ tensor_abf.transpose(1, 0, 2).reshape(n_left, -1)
            self.x_ia[:, right] = (transfer @ self.x_ia[:, left, None])[..., 0]
            self.dx_iaf[:, right] = by_left.reshape(n, n_right, n_features)
            transfers.append(
                (transfer, self.dx_iaf[:, right].copy() if k < n_cores - 1 else self.dx_iaf[:, right])
            )
            if k > 0:
                self.dx_iaf[:, right] += transfer @ self.dx_iaf[:, left]
        if with_hessian:
            self.hessian_iff = np.zeros((n, n_features, n_features))
        for k in range(n_cores - 1, -1, -1):
            right, left = bonds[k + 1], bonds[k]
            tensor_abf, (transfer, by_left) = self.owner.cores_abf[k], transfers[k]
            back = transfer.transpose(0, 2, 1)
            self.y_ia[:, left] = (back @ self.y_ia[:, right, None])[..., 0]
            self.dy_iaf[:, left] = (self.y_ia[:, right] @ tensor_abf.reshape(len(tensor_abf), -1)).reshape(
                n, -1, n_features
            )
            if k < n_cores - 1:
                self.dy_iaf[:, left] += back @ self.dy_iaf[:, right]
                if with_hessian:
                    self.hessian_iff += by_left.transpose(0, 2, 1) @ self.dy_iaf[:, right]
        # g is the derivative of the first adjoint contracted with the head
        self.g_if = (self.x_ia[:, None, bonds[0]] @ self.dy_iaf[:, bonds[0]])[:, 0]
        if with_hessian:
            self.hessian_iff += self.hessian_iff.transpose(0, 2, 1).copy()

    def add(self, energy_iq: Floats, gradient_qc: Floats) -> None:
        """Add everything that is wanted; `energy_iq` has one row per atom, or one for their sum."""
        owner = self.owner
        if owner._with_reference:
            rows = np.arange(self.n) if len(energy_iq) == self.n else np.zeros(self.n, dtype=np.int64)
            np.add.at(energy_iq, (rows, self.type_i), 1.0)
        if owner._chain is not None:
            self._add_shared(owner._chain, energy_iq, gradient_qc)
        if owner._with_head:
            self._add_head(energy_iq, gradient_qc)
        if owner._cores:
            self._add_cores(energy_iq, gradient_qc)

    def _add_head(self, energy_iq: Floats, gradient_qc: Floats) -> None:
        """dE/dA_0[z, a] = y_0[a] for the atoms of type z."""
        n_species, rank = self.spec.layout.head_shape
        y_ia = self.y_ia[:, :rank]
        dy_iac = self.dy_iaf[:, :rank] @ self.dv_ifc
        at = self.owner._q_weight - self.owner.start
        for z in range(n_species):
            mine = self.type_i == z
            rows = slice(at + z * rank, at + (z + 1) * rank)
            if len(energy_iq) == self.n:
                energy_iq[mine, rows] += y_ia[mine]
            else:
                energy_iq[0, rows] += y_ia[mine].sum(axis=0)
            gradient_qc[rows] += dy_iac[mine].sum(axis=0)

    def _add_cores(self, energy_iq: Floats, gradient_qc: Floats) -> None:
        """Eqs. (1) and (2): one product for all paths of a core that share a right, left or feature irrep."""
        feature = self.spec.layout.feature
        dv_Kac = {
            irrep: self._gathered(self.dv_ifc, feature.offset(irrep), feature.rank(irrep), irrep.dim)
            for irrep in feature.irreps
        }
        dx_Kac: dict[Irrep, Floats] = {}
        for k in self.owner._cores:
            core = self.spec.layout.cores[k]
            # primes of the left bond: those of the right bond of the core before, if that was just done
            if k - 1 not in self.owner._cores:
                dx_Kac = self._primes(self.dx_iaf, k, core.left)
            dy_Kac = self._primes(self.dy_iaf, k + 1, core.right)
            self._add_core(k, core, dx_Kac, dv_Kac, dy_Kac, energy_iq, gradient_qc)
            if k + 1 in self.owner._cores:
                dx_Kac = self._primes(self.dx_iaf, k + 1, core.right)

    def _add_core(
        self,
        k: int,
        core: CoreLayout,
        dx_Kac: dict[Irrep, Floats],
        dv_Kac: dict[Irrep, Floats],
        dy_Kac: dict[Irrep, Floats],
        energy_iq: Floats,
        gradient_qc: Floats,
    ) -> None:
        n, n_columns = self.n, self.n_columns
        at = self.owner._q_weight + int(self.train.path[self.train.path_first[k], WEIGHT]) - self.owner.start
        gradient_qc, energy_iq = gradient_qc[at : at + core.size], energy_iq[:, at : at + core.size]
        shapes = {path: core.shape(path) for path in core.paths}
        t = _Stack((path, path.right, (n1, n2, path.right.dim, n)) for path, (n1, n2, _) in shapes.items())
        u = _Stack((path, path.left, (n2, n3, path.left.dim, n)) for path, (_, n2, n3) in shapes.items())
        s = _Stack(
            (path, path.feature, (n1, n3, path.feature.dim, n)) for path, (n1, _, n3) in shapes.items()
        )
        v_fi, x_ai, y_ai = (np.ascontiguousarray(array.T) for array in (self.v_if, self.x_ia, self.y_ia))
        for index, path in enumerate(core.paths):
            jacobian.path_products(
                self.train, int(self.train.path_first[k]) + index, v_fi, x_ai, y_ai,
                t.blocks[path], u.blocks[path], s.blocks[path],
            )  # fmt: skip
            right = self.train.path[self.train.path_first[k] + index, RIGHT]
            n3, l3 = shapes[path][2], path.right.dim
            y_mci = y_ai[right : right + l3 * n3].reshape(l3, n3, n)
            if len(energy_iq) == n:
                energy = np.einsum("abmi,mci->iabc", t.blocks[path], y_mci, optimize=True).reshape(n, -1)
            else:
                y_Kc = y_mci.transpose(0, 2, 1).reshape(l3 * n, n3)
                energy = (t.blocks[path].reshape(-1, l3 * n) @ y_Kc).reshape(1, -1)
            energy_iq[:, core.slice(path)] += energy
        # products are [(path, two indices of the block), (the third index, column)]
        for stack, primes, order in (
            (t, dy_Kac, (0, 1, 2, 3)),
            (u, dx_Kac, (2, 0, 1, 3)),
            (s, dv_Kac, (0, 2, 1, 3)),
        ):
            for irrep, prime_Kac in primes.items():
                if irrep not in stack.groups:
                    continue
                product = stack.matrices[irrep] @ prime_Kac
                for path, rows in stack.groups[irrep]:
                    a, b = stack.blocks[path].shape[:2]
                    block = product[rows].reshape(a, b, -1, n_columns).transpose(order)
                    target = gradient_qc[core.slice(path)].reshape(block.shape)
                    target += block

    def _primes(self, derivative_iaf: Floats, k: int, bond: Any) -> dict[Irrep, Floats]:
        """x' or y' of bond k by irrep; nothing for the ends, which do not depend on the features."""
        is_end = k == 0 if derivative_iaf is self.dx_iaf else k == self.spec.order
        if is_end:
            return {}
        begin, end = self.train.bond_first[k], self.train.bond_first[k + 1]
        primes = {irrep: np.empty((irrep.dim, self.n, rank, self.n_columns)) for irrep, rank in bond}
        # a few atoms at a time, so that what is sorted by irrep is still in the cache
        for first in range(0, self.n, _ATOMS_IN_CACHE):
            atoms = slice(first, first + _ATOMS_IN_CACHE)
            prime_iac = derivative_iaf[atoms, begin:end] @ self.dv_ifc[atoms]
            for irrep, array in primes.items():
                shape = len(prime_iac), irrep.dim, bond.rank(irrep), self.n_columns
                array[:, atoms] = prime_iac[:, bond.slice(irrep)].reshape(shape).transpose(1, 0, 2, 3)
        return {
            irrep: array.reshape(-1, bond.rank(irrep) * self.n_columns) for irrep, array in primes.items()
        }

    def _gathered(self, array_iac: Floats, offset: int, rank: int, dim: int) -> Floats:
        """[i, (m, a), column] of one irrep as [(m, i), (a, column)]."""
        block = array_iac[:, offset : offset + dim * rank].reshape(self.n, dim, -1)
        return block.transpose(1, 0, 2).reshape(dim * self.n, rank * self.n_columns)

    def _add_shared(self, chain: _Chain, energy_iq: Floats, gradient_qc: Floats) -> None:
        """Eq. (3): radial coefficients and species factor."""
        owner, spec, n = self.owner, self.spec, self.n
        n_species, rank, n_radial = spec.n_species, spec.species_rank, spec.radial.size
        per_atom = len(energy_iq) == n
        basis = owner.potential.basis_tables
        table_lkij = owner.potential.species_table
        dg_ifc = self.hessian_iff @ self.dv_ifc
        n_species_q = owner._q_radial - owner._q_species
        at_species = owner._q_species - owner.start
        at = owner._q_radial - owner.start
        # derivatives by S[l, k, z_i, z_j] for each central species, chained to theta once they are complete
        by_table_zlkjc = np.zeros((n_species, spec.l_max + 1, rank, n_species, self.n_columns))
        energy_ilkj = np.zeros((n, spec.l_max + 1, rank, n_species))
        for l, channels in enumerate(spec.channels):
            dim, harmonics = 2 * l + 1, slice(l * l, (l + 1) ** 2)
            first, width = int(basis.feature_first[l]), int(basis.feature_rank[l])
            moments_iznm = self.moments_iznm[..., harmonics]
            coefficients_cnk = owner.potential.arrays[f"radial.{l}"]
            offset = first - (width - channels)  # the whole irrep, with the constant of l = 0
            dg_imcx = dg_ifc[:, offset : offset + dim * width].reshape(n, dim, width, -1)[
                :, :, width - channels :
            ]
            g_imc = self.g_if[:, offset : offset + dim * width].reshape(n, dim, width)
            g_imc = g_imc[:, :, width - channels :]
            table_ikz = table_lkij[l].transpose(1, 0, 2)[self.type_i]
            mixed_nkim = np.einsum("ikz,iznm->nkim", table_ikz, moments_iznm, optimize=True)
            size = channels * n_radial * rank
            left = mixed_nkim.reshape(n_radial * rank, n * dim)
            product = (left @ dg_imcx.reshape(n * dim, -1)).reshape(n_radial * rank, channels, -1)
            gradient_qc[at : at + size].reshape(channels, n_radial * rank, -1)[:] += product.transpose(
                1, 0, 2
            )
            energy = np.einsum("imc,nkim->icnk", g_imc, mixed_nkim, optimize=True).reshape(n, size)
            energy_iq[:, at : at + size] += energy if per_atom else energy.sum(axis=0)
            weighted_kzimc = np.einsum("cnk,iznm->kzimc", coefficients_cnk, moments_iznm, optimize=True)
            energy_ilkj[:, l] = np.einsum("kzimc,imc->ikz", weighted_kzimc, g_imc, optimize=True)
            for z in np.unique(self.type_i):
                mine = self.type_i == z
                left = weighted_kzimc[:, :, mine].reshape(rank * n_species, -1)
                right = dg_imcx[mine].reshape(left.shape[1], -1)
                by_table_zlkjc[z, l] = (left @ right).reshape(rank, n_species, -1)
            at += size
        for z in np.unique(self.type_i):
            matrix = chain.matrix_z[z]
            mine = self.type_i == z
            rows = slice(at_species, at_species + n_species_q)
            gradient_qc[rows] += matrix @ by_table_zlkjc[z].reshape(matrix.shape[1], -1)
            energy = energy_ilkj[mine].reshape(-1, matrix.shape[1]) @ matrix.T
            if per_atom:
                energy_iq[mine, rows] += energy
            else:
                energy_iq[0, rows] += energy.sum(axis=0)
        if self.direct_cq is not None:
            gradient_qc[at_species : at_species + self.direct_cq.shape[1]] += self.direct_cq.T


def _species_chain(potential: Potential) -> _Chain:
    """dS[l, k, z_i, z_j]/dtheta for all theta."""
    spec = potential.spec
    factor = spec.species_factor
    n_species, n_lk = spec.n_species, (spec.l_max + 1) * spec.species_rank
    arrays = {name: potential.arrays[f"species.{name}"] for name in factor.shapes}
    zeros = {name: np.zeros(shape) for name, shape in factor.shapes.items()}
    matrix_z = np.zeros((n_species, factor.n_parameters, n_lk * n_species))
    found: list[NDArray[np.int64]] = []
    values: list[Floats] = []
    q = 0
    for name, shape in factor.shapes.items():
        for index in range(int(np.prod(shape))):
            unit = np.zeros(shape)
            unit.flat[index] = 1.0
            table = factor.table_tangent(arrays, {**zeros, name: unit}).reshape(n_lk, n_species, n_species)
            matrix_z[:, q] = table.transpose(1, 0, 2).reshape(n_species, -1)
            lk, zi, zj = np.nonzero(table)
            found.append(np.stack([zi * n_species + zj, lk, np.full(len(lk), q)]))
            values.append(table[lk, zi, zj])
            q += 1
    pair_type, lk, q_entries = np.concatenate(found, axis=1)
    order = np.argsort(pair_type, kind="stable")
    first = np.searchsorted(pair_type[order], np.arange(n_species**2 + 1)).astype(np.int64)
    return _Chain(
        first,
        np.ascontiguousarray(lk[order]),
        np.ascontiguousarray(q_entries[order]),
        np.ascontiguousarray(np.concatenate(values)[order]),
        matrix_z,
    )
