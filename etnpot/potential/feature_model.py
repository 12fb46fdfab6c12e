"""What all tensor trains on the features of atoms share: parameters by name, tables, features, bonds.

`Potential` gives an energy, `etnpot.potential.tensor.TensorModel` a tensor; both derive from `FeatureModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.conventions import MAX_ATOMIC_NUMBER
from etnpot.errors import SpeciesError, SpecificationError, StructureError
from etnpot.kernels import evaluate, pairs
from etnpot.kernels.lanes import LANES
from etnpot.neighbors import EdgeList, check_distances, check_structure, neighbor_list
from etnpot.network import Train
from etnpot.potential.spec import NetworkSpec
from etnpot.potential.tables import BasisTables, TrainTables, basis_tables, train_tables
from etnpot.threads import run_ranges
from etnpot.workspace import Workspace

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "FeatureModel",
    "checked_groups",
    "element_symbol",
    "explain",
    "neighbor_types",
    "numbered_symbol",
    "symbols_to_numbers",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Spec = TypeVar("Spec", bound=NetworkSpec)

#: Fewer atoms than this are not worth another thread.
_ATOMS_PER_THREAD = 64
#: The same for pairs whose types are looked up.
_PAIRS_PER_THREAD = 32_768


class FeatureModel(Generic[Spec]):
    """A specification and the numbers that go with it; what derives from it is an immutable dataclass.

    Attributes
    ----------
    spec : NetworkSpec
    parameters : float64 array [q]
        All parameters in the order of ``spec.shapes``; read-only.
    provenance : mapping
        Where the parameters come from: JSON values.
    """

    spec: Spec
    parameters: Floats
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the parameters and take a read-only copy."""
        parameters = np.array(self.parameters, dtype=np.float64)
        if parameters.shape != (self.spec.n_parameters,):
            raise SpecificationError(
                f"parameters: this specification has {self.spec.n_parameters} of them, "
                f"got shape {parameters.shape}"
            )
        if not np.isfinite(parameters).all():
            at = int(np.flatnonzero(~np.isfinite(parameters))[0])
            raise SpecificationError(f"parameters: entry {at} is {parameters[at]}; all must be finite")
        parameters.flags.writeable = False
        object.__setattr__(self, "parameters", parameters)
        object.__setattr__(self, "provenance", dict(self.provenance))

    @property
    def n_parameters(self) -> int:
        """Number of fitted parameters."""
        return self.spec.n_parameters

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers, ascending."""
        return self.spec.species

    @property
    def cutoff(self) -> float:
        """Range, Å."""
        return self.spec.cutoff

    @cached_property
    def arrays(self) -> dict[str, Floats]:
        """Every parameter group by name, as read-only views: see ``spec.shapes``."""
        return {
            name: self.parameters[self.spec.slices[name]].reshape(shape)
            for name, shape in self.spec.shapes.items()
        }

    @cached_property
    def train(self) -> Train:
        """The tensor train."""
        return Train.from_flat(self.spec.layout, self.weights)

    @cached_property
    def weights(self) -> Floats:
        """Head and cores, flat: a read-only view of the parameters."""
        return self.parameters[self.spec.slices["head"].start :]

    @cached_property
    def basis_tables(self) -> BasisTables:
        """Tables of the pair stage."""
        return basis_tables(self.spec)

    @cached_property
    def train_tables(self) -> TrainTables:
        """Tables of the train stage."""
        return train_tables(self.spec.layout)

    @cached_property
    def species_table(self) -> Floats:
        """S^l[k](z_i, z_j), float64 [l, k, z_i, z_j]."""
        return self.spec.species_factor.table(self._species_arrays(self.arrays))

    @cached_property
    def radial_table(self) -> Floats:
        """T[z_i, z_j, n, lc] = N^(-1/2) sum_k B^l[c, n, k] S^l[k](z_i, z_j), float64."""
        blocks = [
            np.einsum("cnk,kij->ijnc", self.arrays[f"radial.{l}"], self.species_table[l], optimize=True)
            for l in range(self.spec.l_max + 1)
        ]
        return np.ascontiguousarray(np.concatenate(blocks, axis=3) / np.sqrt(self.spec.neighbor_scale))

    def type_index(self, numbers: ArrayLike) -> Integers:
        """Dense types 0..S-1 of atomic numbers; an error names the elements that are not known."""
        numbers = _integers(numbers)
        within = np.clip(numbers, 0, MAX_ATOMIC_NUMBER)
        types: Integers = self._type_of_number[within]
        unknown = (types < 0) | (within != numbers)
        if unknown.any():
            names = ", ".join(numbered_symbol(z) for z in sorted({int(z) for z in numbers[unknown]}))
            have = ", ".join(numbered_symbol(z) for z in self.species)
            raise SpeciesError(
                f"species {names} not in this potential, which knows {have}; refit with them or remove "
                f"those atoms"
            )
        return types

    @cached_property
    def _type_of_number(self) -> Integers:
        """Type of every atomic number, -1 where there is none."""
        types = np.full(MAX_ATOMIC_NUMBER + 1, -1, dtype=np.int64)
        types[list(self.species)] = np.arange(len(self.species))
        return types

    def edges(self, atoms: Atoms) -> EdgeList:
        """Checked edge list of a structure."""
        check_structure(atoms)
        self.type_index(atoms.numbers)
        edges = neighbor_list(atoms, self.cutoff)
        check_distances(edges)
        return edges

    def features(self, edges: EdgeList, numbers: ArrayLike, *, threads: int | None = None) -> Floats:
        """Features v_i in the order of ``spec.feature``, float64 [n_atoms, f]; the first is the constant."""
        type_i = self.type_index(numbers)
        first, r_pc, type_p = self._feature_pairs(edges, type_i)
        v_if = np.empty((edges.n_atoms, self.spec.feature.dimension))

        def work(start: int, stop: int) -> None:
            evaluate.features(
                first, r_pc, type_i, type_p, self.basis_tables, self.radial_table, start, stop, v_if
            )

        run_ranges(work, edges.n_atoms, threads=threads, block=LANES, smallest=_ATOMS_PER_THREAD)
        return v_if

    def bonds(self, edges: EdgeList, numbers: ArrayLike) -> list[Floats]:
        """Every bond vector x_0 .. x_d of every atom, float64 [n_atoms, dimension of bond k]."""
        type_i = self.type_index(numbers)[: edges.n_atoms]
        tables = self.train_tables
        x_ia = np.empty((edges.n_atoms, tables.n_bond_rows))
        evaluate.bonds(self.features(edges, numbers), type_i, tables, self.weights, x_ia)
        return [x_ia[:, a:b] for a, b in zip(tables.bond_first[:-1], tables.bond_first[1:], strict=True)]

    def _feature_pairs(self, edges: EdgeList, type_i: Integers) -> tuple[Integers, Floats, Integers]:
        """first, r_pc and type_p of the pairs that make the features."""
        return edges.first, edges.r_pc, neighbor_types(edges, type_i)

    def descriptors(self, atoms: Atoms, *, bond: int | None = None) -> Floats:
        """Equivariant descriptors of every atom.

        Parameters
        ----------
        atoms : ase.Atoms
        bond : int, optional
            None: the features, in the order of ``spec.feature``. k: the open bond x_k of the train, in the
            order of ``spec.bonds[k]`` (components m outside, copies a inside, per irrep).

        Returns
        -------
        float64 array [n_atoms, dimension]
        """
        edges = self.edges(atoms)
        if bond is None:
            return self.features(edges, atoms.numbers)
        if not 0 <= bond <= self.spec.order:
            raise SpecificationError(
                f"bond: expected 0..{self.spec.order} for a train of order {self.spec.order}, got {bond}"
            )
        return self.bonds(edges, atoms.numbers)[bond]

    def _add_radial_gradient(self, dL_dtable: Floats, total: Floats) -> None:
        """Chain rule from the radial table to the radial and species parameters (adds to `total`)."""
        scaled = dL_dtable / np.sqrt(self.spec.neighbor_scale)
        dL_dS = np.empty_like(self.species_table)
        first = self.basis_tables.channel_first
        for l in range(self.spec.l_max + 1):
            block = scaled[..., first[l] : first[l + 1]]
            dL_dB = np.einsum("ijnc,kij->cnk", block, self.species_table[l], optimize=True)
            total[self.spec.slices[f"radial.{l}"]] += dL_dB.ravel()
            dL_dS[l] = np.einsum("ijnc,cnk->kij", block, self.arrays[f"radial.{l}"], optimize=True)
        arrays = self._species_arrays(self.arrays)
        for name, value in self.spec.species_factor.table_adjoint(arrays, dL_dS).items():
            total[self.spec.slices[f"species.{name}"]] += value.ravel()

    @cached_property
    def species_jacobian(self) -> Floats:
        """dS/dtheta, float64 [(l k z_i z_j), q]: the adjoint of the table applied to every unit vector."""
        factor, arrays = self.spec.species_factor, self._species_arrays(self.arrays)
        units = np.eye(self.species_table.size).reshape(-1, *self.species_table.shape)
        return np.stack(
            [
                np.concatenate([by.ravel() for by in factor.table_adjoint(arrays, unit).values()])
                for unit in units
            ]
        )

    def _species_arrays(self, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name: arrays[f"species.{name}"] for name in self.spec.species_factor.shapes}


def neighbor_types(
    edges: EdgeList, type_i: Integers, threads: int | None = 1, workspace: Workspace | None = None
) -> Integers:
    """Type of the neighbour of every pair, once the edges are known to stay within the atoms."""
    if not edges.has_ordered_rows:
        edges.validate()
    if len(type_i) < edges.n_atoms:
        raise StructureError(f"expected the atomic numbers of {edges.n_atoms} atoms, got {len(type_i)}")
    workspace = Workspace() if workspace is None else workspace
    type_p = workspace.empty("type_p", (edges.n_pairs,), np.int64)
    known = run_ranges(
        lambda start, stop: pairs.neighbor_types(edges.neighbor, type_i, start, stop, type_p),
        edges.n_pairs, threads=threads, block=LANES, smallest=_PAIRS_PER_THREAD,
    )  # fmt: skip
    if not all(known):
        edges.validate()
        raise StructureError(
            f"expected the atomic numbers of all {int(edges.neighbor.max()) + 1} atoms that the edges "
            f"name, ghosts included, got {len(type_i)}"
        )
    return type_p


def _integers(numbers: ArrayLike) -> Integers:
    """Atomic numbers as int64 [n], or an error."""
    try:
        found = np.asarray(numbers)
        if found.ndim == 1 and (found.size == 0 or found.dtype.kind in "iu"):
            return found.astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        pass
    raise SpeciesError(
        f"expected the atomic numbers of the atoms, a sequence of integers, got {numbers!r:.200}"
    )


def explain(edges: EdgeList) -> None:
    """Raise where numbers that are not finite come from the edges: NaN, infinite or vanishing vectors."""
    edges.validate()
    check_distances(edges)


def checked_groups(spec: NetworkSpec, arrays: Mapping[str, Floats]) -> Mapping[str, Floats]:
    found = {name: array.shape for name, array in arrays.items()}
    if found != spec.shapes:
        raise SpecificationError(f"its specification asks for arrays {spec.shapes}, it holds {found}")
    return arrays


def element_symbol(z: int) -> str:
    from ase.data import chemical_symbols

    return str(chemical_symbols[z]) if 0 < z < len(chemical_symbols) else f"Z={z}"


def numbered_symbol(z: int) -> str:
    return f"{z} ({element_symbol(z)})"


def symbols_to_numbers(species: str | int | Sequence[str | int]) -> tuple[int, ...]:
    """Ascending atomic numbers from symbols or numbers, each once."""
    from ase.data import atomic_numbers

    items: list[Any]
    try:
        items = [species] if isinstance(species, str | int | np.integer) else list(species)
    except TypeError:
        items = [species]  # refused below
    numbers = set()
    for item in items:
        if isinstance(item, str):
            z = atomic_numbers.get(item, 0)
            if z < 1:
                raise SpeciesError(
                    f"species: {item!r} is not a chemical symbol; expected symbols such as 'Cu' or atomic "
                    f"numbers"
                )
            numbers.add(int(z))
        elif isinstance(item, int | np.integer) and not isinstance(item, bool):
            if not 1 <= item <= MAX_ATOMIC_NUMBER:
                raise SpeciesError(
                    f"species: expected atomic numbers from 1 to {MAX_ATOMIC_NUMBER}, got {item}"
                )
            numbers.add(int(item))
        else:
            raise SpeciesError(f"species: expected chemical symbols or atomic numbers, got {item!r}")
    return tuple(sorted(numbers))
