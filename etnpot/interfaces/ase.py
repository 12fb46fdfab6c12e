"""The ASE calculator.

    E = sum_i E_i,    F_i = -dE/dx_i,    sigma = (1/V) sum_i W_i,    W_i = sum_j r_ij (x) dE_i/dr_ij

========= =================== ============== =================================================================
symbol    ``results``         shape          unit
========= =================== ============== =================================================================
E         energy, free_energy float          eV; the two are the same, there are no electrons
E_i       energies            float64 [i]    eV, with the reference energy E0[z_i]
F_i       forces              float64 [i, c] eV/Å
sigma     stress              float64 [6]    eV/Å³, Voigt xx yy zz yz xz xy, positive under tension
W_i / V   stresses            float64 [i, 6] eV/Å³, their sum is the stress; on request only
mu, alpha dipole, ...         [c], [c, c]    of tensor models, on request only: see `etnpot.interfaces.ase_tensors`
========= =================== ============== =================================================================

Pairs come from a `NeighborCache`: a list with a skin, searched anew when atoms have moved by more than half
of it. Only the vectors of its pairs are computed at every step, and the results are those of a fresh list to
the last bit.
"""

from __future__ import annotations

import copy
import math
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from etnpot.conventions import voigt
from etnpot.errors import ExtrapolationWarning, SpecificationError, StructureError
from etnpot.interfaces.ase_plugin import NAME, register_name
from etnpot.interfaces.ase_tensors import FORMS_OF_PROPERTIES, TensorEvaluator, model_and_label
from etnpot.neighbors import POOL_GROUP, EdgeList, NeighborCache, check_distances, check_structure
from etnpot.potential import Assessment, Potential, TensorModel, load
from etnpot.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

__all__ = ["ETNCalculator"]

#: Pairs closer than this (Å) are looked at by `check_distances`, whatever the r_min of the potential.
_CLOSE = 1.0e-3
#: Cell vectors scaled to unit length span more than this where a volume, hence a stress, is defined.
_FLAT_VOLUME = 1.0e-8
#: A shorter vector than this, Å, spans no volume: a stress could overflow.
_SHORTEST_VECTOR = 1.0e-6

_PROPERTIES = ("energy", "free_energy", "energies", "forces", "stress", "stresses")
_DEFAULTS: dict[str, Any] = {"skin": 0.5, "threads": None, "dipole": None, "polarizability": None}
_IGNORED = ("initial_charges", "initial_magmoms")
_SETTINGS = ("potential", *_DEFAULTS)


class ETNCalculator(Calculator):
    """ASE calculator of a potential: energy, free_energy, energies, forces, stress, stresses, and tensors if asked for.

    Parameters
    ----------
    potential : Potential, str or path-like
        A potential, or the file that holds one.
    skin : float, Å, keyword-only
        How far the neighbour list reaches beyond the cutoff. A larger one is searched for less often and
        costs more at every step; the results do not depend on it.
    threads : int, keyword-only
        Threads of the evaluation; None for ``ETNPOT_NUM_THREADS``, else ``OMP_NUM_THREADS``, else all
        processors. The results do not depend on it.
    dipole, polarizability : TensorModel, str or path-like, keyword-only
        Models, or their files, that give ``dipole`` (e Å; with charges also ``charges``, e) and ``polarizability`` (e²Å²/eV).
    atoms : ase.Atoms, keyword-only
        Atoms that get this calculator, as in other ASE calculators.

    Raises
    ------
    PotentialFileError
        If the file is missing or is not a potential.
    SpecificationError
        For a setting that is unknown or out of range.

    Notes
    -----
    *Periodicity.* Anything: molecules, chains, slabs, crystals, cells smaller than the cutoff. The stress
    exists where the cell has three independent vectors, periodic or not, as in ASE's own calculators;
    elsewhere asking for it raises ASE's `PropertyNotImplementedError`.

    *Tensors.* Dipole, charges and polarizability are computed when they are asked for, not at every step. The total charge is
    ``atoms.info["charge"]``, or zero; ASE does not notice when it alone is changed: call ``reset`` then.

    *Layers.* Where the potential pools over groups of atoms, these are ``atoms.arrays["pool_group"]``. With layers, energies
    and stresses of single atoms depend on more than their own neighbours.

    *Dispersion.* Where the potential has one, it is added here; energies and stresses of single atoms are then not defined.

    *Bad input.* Positions that are not finite, a singular periodic cell, two atoms on one spot, no atoms
    (`StructureError`) and elements that the potential does not know (`SpeciesError`) are refused before any
    number is returned, and the results of the previous call are not kept.

    *Extrapolation.* Below ``potential.spec.radial.r_min`` the radial functions stop changing, and a fitted
    potential has seen no pair as close; further below, its nuclear repulsion takes over. The first such pair
    gives one `ExtrapolationWarning` per calculator. A potential without provenance has never been fitted,
    hence cannot extrapolate, and never warns.

    *Processes and threads.* Pickles, copies and deep copies carry the potential (copies share it: it never
    changes), the settings and the results, not the neighbour list. Threads may share one calculator: calls
    wait for each other. One calculator per thread or process is faster.

    Examples
    --------
    >>> from ase.build import bulk
    >>> import etnpot
    >>> atoms = bulk("Cu", cubic=True)
    >>> atoms.calc = etnpot.ETNCalculator(etnpot.ETN("Cu", seed=0))
    >>> atoms.get_forces().shape
    (4, 3)
    """

    name = NAME  # type: ignore[assignment,unused-ignore]
    implemented_properties: ClassVar[list[str]] = list(_PROPERTIES)  # type: ignore[misc]
    default_parameters: ClassVar[dict[str, Any]] = dict(_DEFAULTS)  # type: ignore[misc]
    ignored_changes: ClassVar[set[str]] = set(_IGNORED)  # type: ignore[misc]
    nolabel: ClassVar[bool] = True  # for the command ``ase run``: there are no files to be named

    _potential: Potential
    _neighbors: NeighborCache
    _workspace: Workspace

    def __init__(
        self,
        potential: Potential | str | os.PathLike[str],
        *,
        skin: float = 0.5,
        threads: int | None = None,
        dipole: TensorModel | str | os.PathLike[str] | None = None,
        polarizability: TensorModel | str | os.PathLike[str] | None = None,
        atoms: Atoms | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._virial_icc: NDArray[np.float64] | None = None
        self._has_warned = False
        self._tensors: dict[str, TensorEvaluator] = {}
        super().__init__(
            potential=potential, skin=skin, threads=threads, dipole=dipole, polarizability=polarizability
        )
        if atoms is not None:
            atoms.calc = self

    @property
    def potential(self) -> Potential:
        """The potential; ``set(potential=...)`` takes another one."""
        return self._potential

    def set(self, **settings: Any) -> dict[str, Any]:
        """Change settings: ``potential``, ``skin``, ``threads``, ``dipole``, ``polarizability``.

        All of them are checked before any is changed. Another potential discards the results; the other
        settings have no influence on them.

        Returns
        -------
        dict
            What has changed, as in ``self.parameters``.

        Raises
        ------
        SpecificationError, PotentialFileError
        """
        unknown = [name for name in settings if name not in _SETTINGS]
        if unknown:
            raise SpecificationError(
                f"ETNCalculator has no settings {', '.join(unknown)}; the settings are {', '.join(_SETTINGS)}"
            )
        potential = getattr(self, "_potential", None)
        values = dict(settings)
        if "potential" in settings:
            potential, values["potential"] = _potential_and_label(settings["potential"])
        if potential is not None and potential.spec.dispersion is not None:
            potential.spec.dispersion.check(potential.species)
        if potential is None:
            raise SpecificationError("potential: expected a Potential or a path, got None")
        if "threads" in settings:
            values["threads"] = _checked_threads(settings["threads"])
        if "skin" in settings:
            values["skin"] = _checked_skin(settings["skin"])
        models = {}
        for name in FORMS_OF_PROPERTIES:
            if name in settings:
                models[name], values[name] = model_and_label(name, settings[name])
        with self._lock:
            changed: dict[str, Any] = super().set(**values)
            self._take_tensors(models, changed)
            if potential is not getattr(self, "_potential", None):
                self._potential = potential
                self._has_warned = False
                self.reset()
                changed["potential"] = self.parameters["potential"]
            if changed.keys() & {"potential", "skin"}:
                self._workspace = Workspace()
                self._neighbors = NeighborCache(
                    self._potential.cutoff, self.parameters["skin"], workspace=self._workspace
                )
        return changed

    def _take_tensors(self, models: dict[str, TensorModel | None], changed: dict[str, Any]) -> None:
        """Take other tensor models, or none; a new skin makes new neighbour lists."""
        if "skin" in changed:
            models = {**{name: known.model for name, known in self._tensors.items()}, **models}
        for name, model in models.items():
            if model is not None:
                self._tensors[name] = TensorEvaluator(model, self.parameters["skin"])
            else:
                self._tensors.pop(name, None)
            self.results.pop(name, None)
            self.results.pop("charges", None)
        properties = [*_PROPERTIES, *self._tensors]
        if "dipole" in self._tensors and self._tensors["dipole"].model.quantity.charges:
            properties.append("charges")
        self.implemented_properties = properties  # type: ignore[misc]

    def reset(self) -> None:
        """Forget the atoms and the results of the last call."""
        super().reset()
        self._virial_icc = None

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last call, as in the base class, and the groups that are pooled together."""
        changes: list[str] = super().check_state(atoms, tol)
        if self.atoms is not None and not changes and self._pools:
            before, now = (a.arrays.get(POOL_GROUP, np.zeros(len(a))) for a in (self.atoms, atoms))
            if (np.asarray(before) != np.asarray(now)).any():
                changes = [POOL_GROUP]
        return changes

    @property
    def _pools(self) -> bool:
        return any(layer.kind == "pool" for layer in self._potential.spec.layers)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """One property, computed if need be; arrays belong to the caller."""
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results``. Whatever is asked for, one evaluation gives all properties.

        Parameters
        ----------
        atoms : ase.Atoms
            Default: those of the last call.
        properties : sequence of str
            Of `implemented_properties`. "stresses" appear in the results only if asked for.
        system_changes : sequence of str
            As ASE gives them; if there are none since the last call, nothing is evaluated again.

        Raises
        ------
        StructureError, SpeciesError
            See the notes of the class.
        PropertyNotImplementedError
            For a stress without a volume, and for properties that the model does not have.
        """
        with self._lock:
            unknown = [name for name in properties if name not in self.implemented_properties]
            if unknown:
                raise PropertyNotImplementedError(
                    f"{', '.join(unknown)} not implemented; the properties are "
                    f"{', '.join(self.implemented_properties)}"
                )
            if atoms is None:
                atoms = self.atoms
            if atoms is None:
                raise StructureError("no atoms to evaluate; pass some, or attach the calculator to some")
            if system_changes or self._virial_icc is None or "forces" not in self.results:
                self.reset()
                self._evaluate(atoms)
            has_parts = self._potential.spec.dispersion is None
            if (
                has_parts
                and "stresses" in properties
                and "stress" in self.results
                and self._virial_icc is not None
            ):
                self.results["stresses"] = voigt(self._virial_icc) / _volume(atoms)
            for name in properties:
                if name not in self.results and (name in self._tensors or name == "charges"):
                    owner = "dipole" if name == "charges" else name
                    self.results.update(self._tensors[owner].results(atoms, owner))
            missing = [name for name in properties if name not in self.results]
        if missing and not has_parts and set(missing) <= {"energies", "stresses"}:
            raise PropertyNotImplementedError(
                f"{', '.join(missing)} not defined with dispersion, which belongs to no single atom; ask for the sums, "
                f"energy and stress"
            )
        if missing:
            raise PropertyNotImplementedError(
                f"{', '.join(missing)} not defined without a volume: expected a cell with three linearly "
                f"independent vectors, got {atoms.cell.array.tolist()}; set one, or ask for energy and forces"
            )

    def assess(self, atoms: Atoms | None = None) -> Assessment:
        """Extrapolation grades and standard deviations, see `Potential.assess`; the results are not touched.

        Parameters
        ----------
        atoms : ase.Atoms
            Default: those of the last call.

        Raises
        ------
        SpecificationError
            If the potential carries nothing to assess with.
        StructureError, SpeciesError
            See the notes of the class.
        """
        with self._lock:
            if atoms is None:
                atoms = self.atoms
            if atoms is None:
                raise StructureError("no atoms to assess; pass some, or attach the calculator to some")
            check_structure(atoms)
            self._potential.type_index(atoms.numbers)
            edges = self._neighbors.edges(atoms, threads=self.parameters["threads"])
            check_distances(edges)
            return self._potential.assess(edges, atoms.numbers, threads=self.parameters["threads"])

    def tensor_derivatives(self, name: str, atoms: Atoms | None = None) -> NDArray[np.float64]:
        """Derivatives of the dipole or the polarizability by the positions; the results are not touched.

        Parameters
        ----------
        name : {"dipole", "polarizability"}
        atoms : ase.Atoms
            Default: those of the last call.

        Returns
        -------
        float64 array [n_atoms, 3, 3] or [n_atoms, 3, 3, 3]
            dmu_d/dx_ic (e) or dalpha_de/dx_ic (e²Å/eV) at [i, c, d] or [i, c, d, e].

        Raises
        ------
        PropertyNotImplementedError
            If the calculator has no such model.
        StructureError, SpeciesError
            See the notes of the class.
        """
        with self._lock:
            if name not in self._tensors:
                raise PropertyNotImplementedError(
                    f"{name}: this calculator has no model of it; make it with ETNCalculator(potential, {name}=...)"
                )
            if atoms is None:
                atoms = self.atoms
            if atoms is None:
                raise StructureError("no atoms to evaluate; pass some, or attach the calculator to some")
            return self._tensors[name].derivatives(atoms, name)[1]

    def export_properties(self) -> Any:
        """As in the base class, without what ASE's table of properties does not know."""
        from ase.outputs import Properties, all_outputs

        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def _evaluate(self, atoms: Atoms) -> None:
        check_structure(atoms)
        self._potential.type_index(atoms.numbers)
        edges = self._neighbors.edges(atoms, threads=self.parameters["threads"])
        self._check_distances(edges, atoms)
        evaluation = self._potential.evaluate(
            edges, atoms.numbers, threads=self.parameters["threads"], workspace=self._workspace
        )
        energy, forces, virial = evaluation.energy, evaluation.forces, evaluation.virial
        dispersion = self._potential.spec.dispersion
        if dispersion is not None:
            added = dispersion.evaluate(atoms)
            energy, forces, virial = energy + added[0], forces + added[1], virial + added[2]
        if not (math.isfinite(energy) and np.isfinite(forces).all()):
            raise StructureError(
                f"energy and forces of this structure are not finite ({energy} eV); expected distances and a potential "
                "for which they are: look at the structure, and at the parameters of the potential"
            )
        results: dict[str, Any] = {"energy": energy, "free_energy": energy, "forces": forces}
        if dispersion is None:
            results["energies"] = evaluation.energy_i
        volume = _volume(atoms)
        if volume > 0.0:
            results["stress"] = voigt(virial) / volume
        self.atoms, self.results, self._virial_icc = atoms.copy(), results, evaluation.virial_icc

    def _check_distances(self, edges: EdgeList, atoms: Atoms) -> None:
        """Refuse coinciding atoms; warn once when a fitted potential sees a pair below its r_min."""
        r_min, shortest = self._potential.spec.radial.r_min, edges.shortest
        if shortest >= max(r_min, _CLOSE):
            return
        check_distances(edges)
        if shortest < r_min and self._potential.provenance and not self._has_warned:
            self._has_warned = True
            i, j = edges.closest()
            warnings.warn(
                f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]}) are {shortest:.3f} Å apart, "
                f"closer than the r_min of this potential, {r_min:g} Å: energies and forces are extrapolated "
                f"(this calculator will not say so again)",
                ExtrapolationWarning,
                stacklevel=2,
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __copy__(self) -> ETNCalculator:
        # a neighbour list of its own: two calculators must not take turns in one
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> ETNCalculator:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        memo[id(self._potential)] = self._potential
        for known in self._tensors.values():
            memo[id(known.model)] = known.model
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __repr__(self) -> str:
        threads = self.parameters["threads"]
        return f"ETNCalculator({self._potential!r}, skin={self.parameters['skin']:g}, threads={threads})"


def _potential_and_label(potential: Any) -> tuple[Potential, str]:
    """The potential, and what ASE's databases write down of it: the path, or a description."""
    if isinstance(potential, Potential):
        return potential, repr(potential)
    if isinstance(potential, str | os.PathLike):
        path = os.fspath(potential)
        return load(path), os.fsdecode(path)
    raise SpecificationError(
        f"potential: expected a Potential or the path of a potential file, got {type(potential).__name__}"
    )


def _checked_skin(skin: Any) -> float:
    if isinstance(skin, bool) or not isinstance(skin, int | float | np.number) or not 0.0 <= skin < math.inf:
        raise SpecificationError(f"skin: expected a finite number of at least 0 in Å, got {skin!r}")
    return float(skin)


def _checked_threads(threads: Any) -> int | None:
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise SpecificationError(f"threads: expected a positive integer or None, got {threads!r}")
    return int(threads)


def _volume(atoms: Atoms) -> float:
    """Volume of the cell, Å³; 0 where its vectors are not linearly independent, or are no lengths of a cell."""
    cell = atoms.cell.array
    lengths = np.linalg.norm(cell, axis=1)
    volume = abs(float(np.linalg.det(cell)))
    flat = lengths.min() < _SHORTEST_VECTOR or volume <= _FLAT_VOLUME * math.prod(lengths.tolist())
    return 0.0 if flat else volume


register_name(ETNCalculator)
