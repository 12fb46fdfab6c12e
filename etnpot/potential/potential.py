"""A potential: an immutable specification and the numbers that go with it.

    E = sum_i ( E0[z_i] + train(v_i) ),    F_i = -dE/dx_i,    stress = (1/V) sum_p r_p (x) dE/dr_p

Below the distances of the data a nuclear repulsion takes over: `etnpot.potential.short_range`.

`Potential` is the one evaluation path: ASE, LAMMPS and the training all hand it an edge list.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import etnpot
from etnpot.basis import Repulsion, bounded
from etnpot.errors import PotentialFileError, SpecificationError, StructureError
from etnpot.io.potential_file import StoredPotential, read_potential_file, write_potential_file
from etnpot.neighbors import EdgeList
from etnpot.network import Train
from etnpot.potential import assembly
from etnpot.potential.feature_model import (
    FeatureModel,
    checked_groups,
    element_symbol,
    explain,
    neighbor_types,
)
from etnpot.potential.layered import LayeredPass, LayeredTables
from etnpot.potential.layers import layer_tables, local_columns, split_radial_table
from etnpot.potential.local import Arguments, LocalPass
from etnpot.potential.reliability import PREFIX, Assessment, Reliability
from etnpot.potential.short_range import ShortRange, short_range
from etnpot.potential.spec import PotentialSpec
from etnpot.potential.tables import train_tables
from etnpot.workspace import Workspace

if TYPE_CHECKING:
    from etnpot.potential.sensitivity import Jacobian

__all__ = ["Evaluation", "Potential", "load"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Energies of atoms and their derivatives by the pair vectors.

    Attributes
    ----------
    edges : EdgeList
        The pairs.
    energy_i : float64 [n_atoms], eV
        Energy of every centre, reference energy included.
    dE_dr_pc : float64 [n_pairs, 3], eV/Å
        Derivative of the energy of the centre of pair p by r_p.
    n_sites : int
        Atoms that carry a force: the centres, and ghosts where the edges name some.
    threads : int, optional
        Of what is computed when it is asked for.
    """

    edges: EdgeList
    energy_i: Floats
    dE_dr_pc: Floats
    n_sites: int
    threads: int | None = None

    @property
    def energy(self) -> float:
        """Total energy, eV."""
        return float(self.energy_i.sum())

    @cached_property
    def _assembled(self) -> tuple[Floats, Floats]:
        found = assembly.forces_and_virials(self.edges, self.dE_dr_pc, self.n_sites, self.threads)
        if not np.isfinite(found[0].sum()):
            explain(self.edges)
        return found

    @property
    def forces(self) -> Floats:
        """Forces, float64 [n_sites, 3], eV/Å."""
        return self._assembled[0]

    @property
    def virial_icc(self) -> Floats:
        """Virial of every centre, float64 [n_atoms, 3, 3], eV: the derivative of the energy by a strain."""
        return self._assembled[1]

    @cached_property
    def virial(self) -> Floats:
        """Total virial, float64 [3, 3], eV; the stress is this over the volume."""
        return np.asarray(self.virial_icc.reshape(-1, 9).sum(axis=0).reshape(3, 3))


@dataclass(frozen=True, eq=False, repr=False)
class Potential(FeatureModel[PotentialSpec]):
    """An equivariant tensor network potential.

    Parameters
    ----------
    spec : PotentialSpec
        What it is made of.
    parameters : float64 array [q]
        All parameters in the order of ``spec.shapes``; copied and made read-only.
    provenance : mapping
        Where the parameters come from: JSON values, kept in the file.
    reliability : Reliability, optional
        What grades and standard deviations of these parameters need.

    See Also
    --------
    etnpot.ETN : makes one with random parameters.
    etnpot.load : reads one from a file.
    """

    spec: PotentialSpec
    parameters: Floats
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reliability: Reliability | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reliability is not None:
            self.reliability.check(self.spec)

    # --------------------------------------------------------------------------------------------- what it is

    def with_parameters(
        self, parameters: ArrayLike, provenance: Mapping[str, Any] | None = None
    ) -> Potential:
        """The same specification with other numbers; what was known of the reliability of the old ones goes."""
        if provenance is None:
            provenance = self.provenance
        parameters = np.asarray(parameters, dtype=np.float64)
        kept = self.reliability if np.array_equal(parameters, self.parameters) else None
        return Potential(self.spec, parameters, provenance, kept)

    def with_reliability(self, reliability: Reliability | None) -> Potential:
        """The same potential with what grades and standard deviations need, or without."""
        return Potential(self.spec, self.parameters, self.provenance, reliability)

    def with_arrays(self, **arrays: ArrayLike) -> Potential:
        """The same potential with some parameter groups replaced; dots in the names are written ``__``."""
        parameters = self.parameters.copy()
        for key, array in arrays.items():
            name = key.replace("__", ".")
            if name not in self.spec.shapes:
                raise SpecificationError(
                    f"unknown parameter group {name!r}; the groups are {list(self.spec.shapes)}"
                )
            values = np.asarray(array, dtype=np.float64)
            if values.shape != self.spec.shapes[name]:
                raise SpecificationError(
                    f"{name}: expected shape {self.spec.shapes[name]}, got {values.shape}"
                )
            parameters[self.spec.slices[name]] = values.ravel()
        return self.with_parameters(parameters)

    def with_train(self, train: Train) -> Potential:
        """The same features and energies of reference with another train, of whatever bonds."""
        shared = self.parameters[: self.spec.slices["head"].start]
        spec = replace(self.spec, bonds=train.layout.bonds)
        return Potential(spec, np.concatenate([shared, train.flat]), self.provenance)

    def with_energy_bounds(self, bounds: tuple[float, float] | None) -> Potential:
        """The same potential with the learned energy of an atom held between bounds (eV, without the reference energy)."""
        spec = replace(self.spec, energy_bounds=bounds)
        return Potential(spec, self.parameters, self.provenance, self.reliability)

    def with_repulsion(self, repulsion: Repulsion | None) -> Potential:
        """The same potential with other radii of the repulsion, or without it."""
        spec = replace(self.spec, repulsion=repulsion)
        return Potential(spec, self.parameters, self.provenance, self.reliability)

    # --------------------------------------------------------------------------------------------- evaluation

    def evaluate(
        self,
        edges: EdgeList,
        numbers: ArrayLike,
        *,
        threads: int | None = None,
        workspace: Workspace | None = None,
    ) -> Evaluation:
        """Energies and pair derivatives of all but the dispersion, which reaches beyond the edges.

        Parameters
        ----------
        edges : EdgeList
            Pairs within the cutoff (longer ones contribute nothing).
        numbers : int array [n_sites]
            Atomic numbers of the centres, followed by those of ghosts if the edges name any.
        threads : int, optional
            Default: see `etnpot.threads`. The result does not depend on it.
        workspace : Workspace, optional
            Holds what is as large as the pairs: ``dE_dr_pc`` is then that of the last call with it alone.

        Returns
        -------
        Evaluation
        """
        type_i = self.type_index(numbers)
        arguments, close = self._arguments(edges, type_i, threads, workspace)
        way = self._pass(edges, arguments, threads, workspace)
        energy_i, slope_i = way.energy_i, None
        if self._leaves_bounds(energy_i):
            energy_i, slope_i, _ = bounded(energy_i, *self._bounds)
        dE_dr_pc = way.derivatives(slope_i)
        if edges.shortest == 0.0 or not np.isfinite(energy_i.sum()):
            explain(edges)
        if close is not None:
            close.hold(dE_dr_pc)
            close.add_repulsion(energy_i, dE_dr_pc)
        energy_i += self.arrays["reference_energies"][type_i[: edges.n_atoms]]
        return Evaluation(edges, energy_i, dE_dr_pc, len(type_i), threads)

    def gradient(
        self, edges: EdgeList, numbers: ArrayLike, energy_weight_i: ArrayLike, direction_pc: ArrayLike
    ) -> Floats:
        """Gradient of sum_i e_i E_i + sum_p d_p . dE/dr_p by every parameter: a few times `evaluate`.

        Parameters
        ----------
        edges, numbers
            As for `evaluate`.
        energy_weight_i : float64 [n_atoms]
            e.
        direction_pc : float64 [n_pairs, 3]
            d.

        Returns
        -------
        float64 array [q]
        """
        e_i = np.ascontiguousarray(energy_weight_i, dtype=np.float64)
        direction_pc = np.ascontiguousarray(direction_pc, dtype=np.float64)
        if e_i.shape != (edges.n_atoms,) or direction_pc.shape != (edges.n_pairs, 3):
            raise StructureError(
                f"expected weights of shapes ({edges.n_atoms},) and ({edges.n_pairs}, 3), "
                f"got {e_i.shape} and {direction_pc.shape}"
            )
        return self.gradients(edges, numbers)(e_i, direction_pc)

    def gradients(self, edges: EdgeList, numbers: ArrayLike) -> Callable[[Floats, Floats], Floats]:
        """`gradient` as a function of its weights alone, for many of them: what does not depend on them is computed once."""
        type_i = self.type_index(numbers)
        arguments, close = self._arguments(edges, type_i)
        way = self._pass(edges, arguments, 1)
        leaves = self.spec.energy_bounds is not None and self._leaves_bounds(way.energy_i)

        def gradient(e_i: Floats, direction_pc: Floats) -> Floats:
            dL_dtable, total = np.zeros_like(self.radial_table), np.zeros(self.n_parameters)
            if close is not None:
                direction_pc = direction_pc.copy()
                close.hold(direction_pc)
            tangent, weight_i, slope_i = way.tangent(direction_pc), e_i, None
            if leaves:
                _, slope_i, curvature_i = bounded(way.energy_i, *self._bounds)
                weight_i = slope_i * e_i + curvature_i * tangent.energy_i
            tangent.gradient(weight_i, slope_i, dL_dtable, total[self._trains])
            if not np.isfinite(dL_dtable.sum() + total.sum()):
                explain(edges)
            self._add_radial_gradient(dL_dtable, total)
            total[self.spec.slices["reference_energies"]] += np.bincount(
                type_i[: edges.n_atoms], weights=e_i, minlength=self.spec.n_species
            )
            return total

        return gradient

    def jacobian(self, edges: EdgeList, numbers: ArrayLike) -> Jacobian:
        """Derivatives of energies, forces and virial by every parameter: see `Jacobian`.

        For a range of parameters, or many configurations, make one `Sensitivities` and keep it.
        """
        from etnpot.potential.sensitivity import Sensitivities

        return Sensitivities(self).jacobian(edges, numbers)

    def assess(self, edges: EdgeList, numbers: ArrayLike, *, threads: int | None = None) -> Assessment:
        """Extrapolation grades and standard deviations, at about the cost of `evaluate`.

        Parameters
        ----------
        edges, numbers, threads
            As for `evaluate`.

        Returns
        -------
        Assessment

        Raises
        ------
        SpecificationError
            If the potential carries nothing to assess with.
        """
        return self.known_reliability().assess(self, edges, numbers, threads=threads)

    def force_deviations(self, edges: EdgeList, numbers: ArrayLike, *, threads: int | None = None) -> Floats:
        """Standard deviations of all force components, float64 [n_sites, 3], eV/Å; slower than `assess`."""
        return self.known_reliability().force_deviations(self, edges, numbers, threads=threads)

    def known_reliability(self) -> Reliability:
        """What grades and standard deviations need; a SpecificationError if this potential carries none of it."""
        if self.reliability is None:
            raise SpecificationError(
                "this potential does not carry what grades need: it was never fitted, or fitted without it; add it "
                "with 'etnpot calibrate POTENTIAL --train DATA'"
            )
        return self.reliability

    def features(self, edges: EdgeList, numbers: ArrayLike, *, threads: int | None = None) -> Floats:
        """Features of the train in the order of ``spec.feature``, float64 [n_atoms, f]; the first is the constant."""
        if not self.spec.layers:
            return super().features(edges, numbers, threads=threads)
        arguments, _ = self._arguments(edges, self.type_index(numbers))
        way = self._pass(edges, arguments, threads)
        assert isinstance(way, LayeredPass)
        return way.v[-1]

    def _feature_pairs(self, edges: EdgeList, type_i: Integers) -> tuple[Integers, Floats, Integers]:
        (first, r_pc, _, type_p, *_), _ = self._arguments(edges, type_i)
        return first, r_pc, type_p

    def _arguments(
        self, edges: EdgeList, type_i: Integers, threads: int | None = 1, workspace: Workspace | None = None
    ) -> tuple[Arguments, ShortRange | None]:
        """What the kernels of the learned energy take, close pairs held, and the short range if there are any."""
        type_p = neighbor_types(edges, type_i, threads, workspace)
        close = None
        if self.spec.repulsion is not None:
            close = short_range(self.spec.repulsion, self.species, edges, type_i, type_p)
        arguments = (
            edges.first,
            edges.r_pc if close is None else close.r_pc,
            type_i,
            type_p,
            self.basis_tables,
            self.radial_table,
            self.train_tables,
            self.weights,
        )
        return arguments, close

    def _pass(
        self,
        edges: EdgeList,
        arguments: Arguments,
        threads: int | None,
        workspace: Workspace | None = None,
    ) -> LocalPass | LayeredPass:
        if not self.spec.layers:
            return LocalPass(arguments, edges, threads, workspace)
        first, r_pc, type_i, *_ = arguments
        return LayeredPass(self, first, edges.neighbor, r_pc, type_i, edges.group, threads)

    @property
    def _trains(self) -> slice:
        """Parameters of all trains: those of the layers and the last one."""
        spec = self.spec
        return slice(spec.slices["layer.1.head" if spec.layers else "head"].start, spec.n_parameters)

    @cached_property
    def layered_tables(self) -> LayeredTables:
        """Tables of the layers."""
        spec, first = self.spec, self._trains.start
        layouts = (*spec.layer_layouts, spec.layout)
        starts = np.cumsum([0, *(layout.n_parameters for layout in layouts)])
        return LayeredTables(
            self.basis_tables,
            self.basis_tables._replace(channel_first=np.cumsum([0, *spec.channels], dtype=np.int64)),
            tuple(split_radial_table(self.radial_table, spec.channels, spec.layers)),
            *local_columns(spec.channels, spec.layers),
            layer_tables(spec.channels, spec.layers),
            tuple(train_tables(layout) for layout in layouts),
            tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(starts)),
            self.parameters[first:],
            tuple(bond.dimension for bond in spec.feature_bonds),
            tuple(layer.attention for layer in spec.layers),
        )

    @property
    def _bounds(self) -> tuple[float, float]:
        bounds = self.spec.energy_bounds
        return (-np.inf, np.inf) if bounds is None else bounds

    def _is_short_ranged(self, edges: EdgeList, numbers: ArrayLike, threads: int | None) -> bool:
        """Whether the short range acts: pairs where the repulsion does, or energies of atoms beyond their bounds."""
        arguments, close = self._arguments(edges, self.type_index(numbers))
        if close is not None or self.spec.energy_bounds is None:
            return close is not None
        return self._leaves_bounds(self._pass(edges, arguments, threads).energy_i)

    def _leaves_bounds(self, energy_i: Floats) -> bool:
        """Whether the learned energy of any atom lies beyond ``spec.energy_bounds``."""
        bounds = self.spec.energy_bounds
        return bounds is not None and bool(((energy_i < bounds[0]) | (energy_i > bounds[1])).any())

    # -------------------------------------------------------------------------------------------- files, text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the potential file (atomically): see docs/file-format."""
        provenance, arrays = dict(self.provenance), dict(self.arrays)
        if self.reliability is not None:
            arrays |= self.reliability.to_arrays()
        write_potential_file(path, spec=self.spec.to_dict(), arrays=arrays, provenance=provenance)

    def summary(self) -> str:
        """Readable description, several lines."""
        spec = self.spec
        radial = spec.radial
        lines = [
            f"equivariant tensor network potential, {self.n_parameters} parameters",
            f"  species      {', '.join(element_symbol(z) for z in spec.species)}",
            f"  cutoff       {radial.cutoff:g} Å ({radial.cutoff_function}, p = {radial.cutoff_power}), "
            f"r_min {radial.r_min:g} Å",
            f"  radial       {radial.size} {radial.family} functions, species factor "
            f"'{spec.species_form}' of rank {spec.species_rank}"
            + (f", embeddings {spec.embedding[0]} x {spec.embedding[1]}" if spec.embedding else ""),
            f"  features     {spec.feature_bonds[0]}  (l_max {spec.l_max}, one constant scalar)",
            *(f"  layer {k}      {layer}" for k, layer in enumerate(spec.layers, start=1)),
            f"  train        order {spec.order}: " + " | ".join(str(bond) for bond in spec.bonds),
            "  parameters   "
            + ", ".join(
                f"{name} {sum(int(np.prod(spec.shapes[g])) for g in spec.shapes if g.split('.')[0] == name)}"
                for name in dict.fromkeys(g.split(".")[0] for g in spec.shapes)
            ),
            "  repulsion    " + _repulsion_text(spec),
            *(
                []
                if spec.dispersion is None
                else [f"  dispersion   {spec.dispersion.method}, {spec.dispersion.xc}"]
            ),
            "  E0 (eV)      "
            + ", ".join(
                f"{element_symbol(z)} {e:.6g}"
                for z, e in zip(spec.species, self.arrays["reference_energies"], strict=True)
            ),
        ]
        if self.reliability is not None:
            known = self.reliability
            lines.append(
                f"  reliability  {known.group} of {known.grade_qr.shape[0]} parameters, {known.grade_qr.shape[1]} atoms "
                f"in the active set"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        spec = self.spec
        species = "".join(element_symbol(z) for z in spec.species[:8]) + ("..." if spec.n_species > 8 else "")
        return (
            f"Potential({species}, cutoff={spec.cutoff:g}, order={spec.order}, l_max={spec.l_max}, "
            f"n_parameters={self.n_parameters})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # caches (tables, views) are left behind: they are remade where they are needed
        return Potential, (self.spec, self.parameters, dict(self.provenance), self.reliability)


def load(path: str | os.PathLike[str]) -> Potential:
    """Read a potential file.

    Parameters
    ----------
    path : str or path-like
        A file that `Potential.save` wrote.

    Returns
    -------
    Potential

    Raises
    ------
    PotentialFileError
        If the file is missing, damaged, foreign, or of a newer format.
    """
    return from_stored(read_potential_file(path), path)


def from_stored(stored: StoredPotential, path: str | os.PathLike[str]) -> Potential:
    """The potential that a file holds; `path` is for the error, as of `load`."""
    try:
        spec = PotentialSpec.from_dict(stored.spec)
        known = {name: array for name, array in stored.arrays.items() if name.startswith(PREFIX)}
        groups = {name: array for name, array in stored.arrays.items() if name not in known}
        arrays = checked_groups(spec, groups)
        parameters = np.concatenate([arrays[name].ravel() for name in spec.shapes])
        return Potential(spec, parameters, stored.provenance, Reliability.from_arrays(known, spec))
    except SpecificationError as error:
        raise PotentialFileError(
            f"{os.fspath(path)!r} is not a potential that etnpot {etnpot.__version__} understands: {error}"
        ) from error


def _repulsion_text(spec: PotentialSpec) -> str:
    if spec.repulsion is None:
        return "none"
    radii = [
        f"{element_symbol(z)}-{element_symbol(w)} {spec.repulsion.outer[i][j]:.3g}"
        for i, z in enumerate(spec.species)
        for j, w in enumerate(spec.species)
        if i <= j
    ]
    text = "ZBL below (Å) " + ", ".join(radii[:10]) + (", ..." if len(radii) > 10 else "")
    if spec.energy_bounds is not None:
        text += "; learned energy from {:.3g} to {:.3g} eV per atom".format(*spec.energy_bounds)
    return text
