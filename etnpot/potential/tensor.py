"""Tensor models: dipoles, polarizabilities, charges and other tensors of atoms and of their sums.

    t_i = offset[z_i] + x_d(v_i, z_i),      T = sum_i t_i                                               (1)

with the last bond x_d of the train as in `etnpot.potential.tensor_spec`. A dipole with charges has a scalar q̂_i and a vector
m_i of each atom. With the total charge Q that is asked for, n atoms, and their mean position x̄,

    q_i = q̂_i + (Q - sum_j q̂_j) / n,
    mu = sum_i (q_i x_i + m_i) = Q x̄ + sum_i [ q̂_i (x_i - x̄) + m_i ]                                   (2)

The charges add up to Q, whatever the train says. For Q = 0 mu does not depend on the origin; else it is the dipole about the
origin of the coordinates, and moves by Q t with the atoms. Without charges mu is a sum of atomic dipoles, which a translation
leaves alone: right for neutral molecules and, on one branch of the polarization, for periodic cells.

Every component of T is a sum of seeds w over atoms and components of the last bond, so that

    T_s = sum_io w_sio (offset + x)_io + const,
    dT_s/dx_j = sum_p (dT_s/dr_p) (delta_j,neighbor - delta_j,center) + q_j delta                       (3)

by the kernels of `etnpot.kernels.outputs`; the last term stands for charges only.

============  ==============================================================================
symbol        here
============  ==============================================================================
t_i           ``TensorEvaluation.component_io`` [i, o], ``atomic`` [i, *shape]
T             ``TensorEvaluation.total`` [*shape]
q_i           ``TensorEvaluation.charge_i`` [i]
w             `TensorModel.seeds` [s, i, o]
============  ==============================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import etnpot
from etnpot.errors import PotentialFileError, SpecificationError, StructureError
from etnpot.io.potential_file import TENSOR, StoredPotential, read_potential_file, write_potential_file
from etnpot.kernels import evaluate, outputs
from etnpot.neighbors import EdgeList
from etnpot.network import Train
from etnpot.potential.build import network_fields, random_network
from etnpot.potential.feature_model import FeatureModel, checked_groups, element_symbol, explain
from etnpot.potential.tensor_spec import QUANTITIES, Quantity, TensorSpec

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "TensorEvaluation",
    "TensorModel",
    "check_boundaries",
    "load_tensor",
    "make_tensor_model",
    "total_charge",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TensorEvaluation:
    """Tensors of atoms and of their sum.

    Attributes
    ----------
    quantity : Quantity
    component_io : float64 [n_atoms, o]
        Last bond of every atom, with its offset; charges are those of eq. (2) of the module.
    total : float64 [*shape]
        The sum, or for a dipole with charges eq. (2).
    """

    quantity: Quantity
    component_io: Floats
    total: Floats

    @cached_property
    def atomic(self) -> Floats:
        """Tensor of every atom, float64 [n_atoms, *shape]; the atomic dipoles where there are charges as well."""
        return self.quantity.to_cartesian(self.component_io[:, self.quantity.components])

    @property
    def charge_i(self) -> Floats | None:
        """Charge of every atom, float64 [n_atoms], e; None for a quantity without charges."""
        return self.component_io[:, 0] if self.quantity.charges else None

    @property
    def value(self) -> Floats:
        """What the quantity is: the tensors of the atoms, or their sum."""
        return self.atomic if self.quantity.per_atom else self.total


@dataclass(frozen=True, eq=False, repr=False)
class TensorModel(FeatureModel[TensorSpec]):
    """A tensor of a structure, or of each of its atoms, as an equivariant tensor network.

    Parameters
    ----------
    spec : TensorSpec
        What it is made of.
    parameters : float64 array [q]
        All parameters in the order of ``spec.shapes``; copied and made read-only.
    provenance : mapping
        Where the parameters come from: JSON values, kept in the file.

    See Also
    --------
    etnpot.fit_tensor : fits one.
    etnpot.load_tensor : reads one from a file.
    """

    spec: TensorSpec
    parameters: Floats
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quantity(self) -> Quantity:
        """What it gives."""
        return self.spec.quantity

    def with_parameters(
        self, parameters: ArrayLike, provenance: Mapping[str, Any] | None = None
    ) -> TensorModel:
        """The same specification with other numbers."""
        if provenance is None:
            provenance = self.provenance
        return TensorModel(self.spec, np.asarray(parameters, dtype=np.float64), provenance)

    def with_train(self, train: Train) -> TensorModel:
        """The same features and offsets with another train, of whatever bonds."""
        shared = self.parameters[: self.spec.slices["head"].start]
        spec = replace(self.spec, bonds=train.layout.bonds)
        return TensorModel(spec, np.concatenate([shared, train.flat]), self.provenance)

    # --------------------------------------------------------------------------------------------- evaluation

    def evaluate(
        self,
        edges: EdgeList,
        numbers: ArrayLike,
        *,
        positions: ArrayLike | None = None,
        charge: float = 0.0,
    ) -> TensorEvaluation:
        """Tensors of all atoms and their sum.

        Parameters
        ----------
        edges, numbers
            As for `Potential.evaluate`.
        positions : float64 [n_atoms, 3], Å
            Needed for a dipole with charges only.
        charge : float, e
            Q of eq. (2).

        Returns
        -------
        TensorEvaluation
        """
        type_i = self.type_index(numbers)
        return self._evaluation(self.components(edges, numbers), edges, len(type_i), positions, charge)

    def components(self, edges: EdgeList, numbers: ArrayLike) -> Floats:
        """Last bond of every atom with its offset, float64 [n_atoms, o]; charges are not made to add up."""
        type_i = self.type_index(numbers)[: edges.n_atoms]
        tables = self.train_tables
        x_ia = np.empty((edges.n_atoms, tables.n_bond_rows))
        evaluate.bonds(self.features(edges, numbers), type_i, tables, self.weights, x_ia)
        return self._with_offsets(np.ascontiguousarray(x_ia[:, tables.bond_first[-2] :]), edges, type_i)

    def derivatives(
        self,
        edges: EdgeList,
        numbers: ArrayLike,
        *,
        positions: ArrayLike | None = None,
        charge: float = 0.0,
    ) -> tuple[TensorEvaluation, Floats]:
        """What `evaluate` gives, and the derivatives of the total by the positions, eq. (3).

        Parameters
        ----------
        edges, numbers, positions, charge
            As for `evaluate`.

        Returns
        -------
        TensorEvaluation
        float64 array [n_sites, 3, *shape]
            dT/dx_ic, per Å.
        """
        type_i = self.type_index(numbers)
        first, r_pc, type_p = self._feature_pairs(edges, type_i)
        seed_sio = self.seeds(edges.n_atoms, positions)
        output_io = np.empty((edges.n_atoms, self.quantity.bond.dimension))
        derivative_spc = np.empty((len(seed_sio), edges.n_pairs, 3))
        outputs.output_derivatives(
            first, r_pc, type_i, type_p, self.basis_tables, self.radial_table, self.train_tables, self.weights,
            0, edges.n_atoms, seed_sio, output_io, derivative_spc,
        )  # fmt: skip
        n_sites = len(type_i)
        component_io = self._with_offsets(output_io, edges, type_i[: edges.n_atoms])
        found = self._evaluation(component_io, edges, n_sites, positions, charge)
        by_site_ics = np.zeros((n_sites, 3, len(seed_sio)))
        derivative_pcs = derivative_spc.transpose(1, 2, 0)
        np.add.at(by_site_ics, edges.neighbor, derivative_pcs)
        np.subtract.at(by_site_ics, edges.center, derivative_pcs)
        derivative = self.quantity.to_cartesian(by_site_ics)
        if found.charge_i is not None:
            derivative[: edges.n_atoms] += found.charge_i[:, None, None] * np.eye(3)
        return found, derivative

    def predict(self, atoms: Atoms, *, charge: float | None = None) -> TensorEvaluation:
        """`evaluate` of a structure; the total charge is ``atoms.info["charge"]``, or zero, unless given."""
        check_boundaries(self.quantity, atoms)
        return self.evaluate(
            self.edges(atoms),
            atoms.numbers,
            positions=atoms.positions,
            charge=total_charge(atoms) if charge is None else charge,
        )

    def predict_derivatives(
        self, atoms: Atoms, *, charge: float | None = None
    ) -> tuple[TensorEvaluation, Floats]:
        """`derivatives` of a structure, total charge as for `predict`."""
        check_boundaries(self.quantity, atoms)
        return self.derivatives(
            self.edges(atoms),
            atoms.numbers,
            positions=atoms.positions,
            charge=total_charge(atoms) if charge is None else charge,
        )

    def seeds(self, n_atoms: int, positions: ArrayLike | None = None) -> Floats:
        """w of eq. (3): which part each component of an atom has in each component of the total, float64 [s, i, o]."""
        quantity = self.quantity
        seed_sio = np.zeros((quantity.n_components, n_atoms, quantity.bond.dimension))
        for s, o in enumerate(range(quantity.components.start, quantity.components.stop)):
            seed_sio[s, :, o] = 1.0
        if quantity.charges:
            x_ic = self._positions(n_atoms, positions)
            seed_sio[:, :, 0] = quantity.to_components(x_ic - x_ic.mean(axis=0)).T
        return seed_sio

    @cached_property
    def prepared(self) -> bool:
        """True, once everything that evaluations share is made: threads that evaluate together need not make it each."""
        _ = self.basis_tables, self.train_tables, self.radial_table, self.weights, self.species_jacobian
        return True

    def gradient_rows(
        self,
        edges: EdgeList,
        numbers: ArrayLike,
        seed_sio: Floats,
        row_i: Integers,
        n_rows: int,
        groups: tuple[str, ...] | None = None,
    ) -> Floats:
        """Derivatives of sum_io w_sio t_io by a range of parameters, summed over the atoms of each row.

        Parameters
        ----------
        edges, numbers
            As for `evaluate`; of several structures, if their atoms are numbered through.
        seed_sio : float64 [s, i, o]
            w.
        row_i : int64 [i]
            The row to which an atom adds.
        n_rows : int
        groups : tuple of str, optional
            Consecutive names of ``spec.shapes``; all by default.

        Returns
        -------
        float64 array [s, row, q]
        """
        spec = self.spec
        names = tuple(spec.shapes) if groups is None else groups
        type_i = self.type_index(numbers)
        first, r_pc, type_p = self._feature_pairs(edges, type_i)
        n_seeds, with_table = len(seed_sio), bool(set(names) & set(spec.shared_groups))
        by_weight = np.zeros((n_seeds, n_rows, len(self.weights)))
        by_table = np.zeros(
            (n_seeds if with_table else 0, n_rows if with_table else 0, *self.radial_table.shape)
        )
        outputs.output_gradients(
            first, r_pc, type_i, type_p, self.basis_tables, self.radial_table, self.train_tables, self.weights,
            0, edges.n_atoms, np.ascontiguousarray(seed_sio), row_i, with_table, by_weight, by_table,
        )  # fmt: skip
        if not np.isfinite(by_weight.sum()):
            explain(edges)
        total = np.zeros((n_seeds, n_rows, self.n_parameters))
        total[..., spec.slices["head"].start :] = by_weight
        if with_table:
            self._add_table_rows(by_table, total)
        if spec.constants in names and spec.constants in spec.shapes:
            at = spec.slices[spec.constants].start + type_i[: edges.n_atoms]
            for s in range(n_seeds):  # one scalar, the first component
                np.add.at(total[s], (row_i, at), seed_sio[s, :, 0])
        return total[..., spec.slices[names[0]].start : spec.slices[names[-1]].stop]

    def _add_table_rows(self, by_table: Floats, total: Floats) -> None:
        """Chain rule from the radial table [s, row, z_i, z_j, n, lc] to radial and species parameters, for all rows at once."""
        spec, first = self.spec, self.basis_tables.channel_first
        lead = by_table.shape[:2]
        by_table = by_table.reshape(-1, *by_table.shape[2:]) / np.sqrt(spec.neighbor_scale)
        by_species = []
        for l in range(spec.l_max + 1):
            block = by_table[..., first[l] : first[l + 1]]
            by_radial = np.einsum("rijnc,kij->rcnk", block, self.species_table[l], optimize=True)
            total[..., spec.slices[f"radial.{l}"]] = by_radial.reshape(*lead, -1)
            by_species.append(np.einsum("rijnc,cnk->rkij", block, self.arrays[f"radial.{l}"], optimize=True))
        rows = np.stack(by_species, axis=1).reshape(len(by_table), -1)
        start = spec.slices[spec.shared_groups[0]].start
        total[..., start : spec.slices["radial.0"].start] = (rows @ self.species_jacobian).reshape(*lead, -1)

    def _with_offsets(self, output_io: Floats, edges: EdgeList, type_i: Integers) -> Floats:
        if not np.isfinite(output_io.sum()):
            explain(edges)
        if self.quantity.n_scalars:
            output_io[:, 0] += self.arrays[self.spec.constants][type_i, 0]
        return output_io

    def _evaluation(
        self,
        component_io: Floats,
        edges: EdgeList,
        n_sites: int,
        positions: ArrayLike | None,
        charge: float,
    ) -> TensorEvaluation:
        quantity = self.quantity
        total = quantity.to_cartesian(component_io[:, quantity.components].sum(axis=0))
        if quantity.charges and len(component_io):
            if n_sites != len(component_io):
                raise StructureError(
                    "a dipole of charges needs all atoms of the molecule as centres, got ghosts"
                )
            if not np.isfinite(charge):
                raise StructureError(f"charge: expected a finite total charge in e, got {charge!r}")
            component_io[:, 0] += (charge - component_io[:, 0].sum()) / len(component_io)
            total = total + component_io[:, 0] @ self._positions(edges.n_atoms, positions)
        return TensorEvaluation(quantity, component_io, total)

    def _positions(self, n_atoms: int, positions: ArrayLike | None) -> Floats:
        if positions is None:
            raise StructureError("positions: a dipole with charges needs the positions of the atoms")
        x_ic = np.asarray(positions, dtype=np.float64)
        if x_ic.shape != (n_atoms, 3):
            raise StructureError(f"positions: expected shape ({n_atoms}, 3), got {x_ic.shape}")
        return x_ic

    # -------------------------------------------------------------------------------------------- files, text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file of the model (atomically): see docs/file-format."""
        write_potential_file(
            path,
            spec=self.spec.to_dict(),
            arrays=dict(self.arrays),
            provenance=dict(self.provenance),
            kind=TENSOR,
        )

    def summary(self) -> str:
        """Readable description, several lines."""
        spec, quantity, radial = self.spec, self.quantity, self.spec.radial
        what = (
            "of each atom" if quantity.per_atom else "of charges and atoms" if quantity.charges else "total"
        )
        lines = [
            f"equivariant tensor network of {quantity.name}, {self.n_parameters} parameters",
            f"  quantity     {quantity.form} ({quantity.bond}), {what}, unit {quantity.unit or 'not given'}",
            f"  species      {', '.join(element_symbol(z) for z in spec.species)}",
            f"  cutoff       {radial.cutoff:g} Å, r_min {radial.r_min:g} Å",
            f"  radial       {radial.size} {radial.family} functions, species factor '{spec.species_form}' of rank "
            f"{spec.species_rank}",
            f"  features     {spec.feature}  (l_max {spec.l_max}, one constant scalar)",
            f"  train        order {spec.order}: " + " | ".join(str(bond) for bond in spec.bonds),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        species = "".join(element_symbol(z) for z in self.species[:8])
        return (
            f"TensorModel({self.quantity.name}, {species}, cutoff={self.cutoff:g}, order={self.spec.order}, "
            f"n_parameters={self.n_parameters})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorModel, (self.spec, self.parameters, dict(self.provenance))


def check_boundaries(quantity: Quantity, atoms: Atoms) -> None:
    """Raise StructureError for a dipole with charges under periodic boundary conditions."""
    if quantity.charges and atoms.pbc.any():
        raise StructureError(
            "a dipole of charges is not defined in a periodic cell: fit a model without charges, or take a "
            "molecule without periodic boundaries (atoms.pbc = False)"
        )


def total_charge(atoms: Atoms) -> float:
    """``atoms.info["charge"]``, or zero."""
    charge = atoms.info.get("charge", 0.0)
    try:
        return float(charge)
    except (TypeError, ValueError):
        raise StructureError(f"info['charge']: expected the total charge in e, got {charge!r:.100}") from None


def make_tensor_model(
    species: Any,
    quantity: Quantity | str,
    *,
    seed: int = 0,
    **settings: Any,
) -> TensorModel:
    """A tensor model with random parameters.

    Parameters
    ----------
    species : str, int, or sequence of them
        Elements, as symbols or atomic numbers.
    quantity : Quantity or str
        What it gives; "dipole", "polarizability" and "charges" have names.
    seed : int
        Of the random parameters.
    **settings
        Of the features and the train, as for `etnpot.ETN` but for energies, repulsion and dispersion.

    Returns
    -------
    TensorModel
    """
    if isinstance(quantity, str):
        if quantity not in QUANTITIES:
            raise SpecificationError(
                f"quantity: {quantity!r} has no meaning of its own; the names are {', '.join(QUANTITIES)}; give a "
                "Quantity for another one"
            )
        quantity = QUANTITIES[quantity]
    defaults: dict[str, Any] = {
        "cutoff": 5.0, "order": 3, "l_max": 3, "radial_size": 8, "channels": None, "ranks": 5, "r_min": None,
        "radial_family": "chebyshev", "cutoff_function": "power", "cutoff_power": 3, "species_form": None,
        "species_rank": None, "embedding": None, "bond_l_max": None, "pseudotensors": quantity.form in ("axial", "matrix"),
        "head_rank": None, "neighbor_scale": None,
    }  # fmt: skip
    unknown = sorted(set(settings) - set(defaults))
    if unknown:
        raise SpecificationError(
            f"{', '.join(unknown)}: no such setting of a tensor model; the settings are {', '.join(defaults)}"
        )
    fields = network_fields(species, **{**defaults, **settings}, output=quantity.bond)
    spec = TensorSpec(**fields, quantity=quantity)
    offsets = np.zeros(spec.n_species * quantity.n_scalars)
    return TensorModel(spec, np.concatenate([offsets, random_network(spec, np.random.default_rng(seed))]))


def load_tensor(path: str | os.PathLike[str]) -> TensorModel:
    """Read the file of a tensor model.

    Parameters
    ----------
    path : str or path-like
        A file that `TensorModel.save` wrote.

    Returns
    -------
    TensorModel

    Raises
    ------
    PotentialFileError
        If the file is missing, damaged, foreign, a potential, or of a newer format.
    """
    return from_stored(read_potential_file(path, (TENSOR,)), path)


def from_stored(stored: StoredPotential, path: str | os.PathLike[str]) -> TensorModel:
    """The tensor model that a file holds; `path` is for the error, as of `load_tensor`."""
    try:
        spec = TensorSpec.from_dict(stored.spec)
        arrays = checked_groups(spec, stored.arrays)
        parameters = np.concatenate([arrays[name].ravel() for name in spec.shapes])
        return TensorModel(spec, parameters, stored.provenance)
    except SpecificationError as error:
        raise PotentialFileError(
            f"{os.fspath(path)!r} is not a tensor model that etnpot {etnpot.__version__} understands: {error}"
        ) from error
