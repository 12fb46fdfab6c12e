"""Reading configurations with their reference labels, from files (ASE's formats, MLIP ``.cfg``) or Atoms.

A label may sit in the results that ASE attaches, in ``atoms.info``, in ``atoms.arrays`` or among the
key-value pairs of an ASE database. Unless a key is asked for, every usual name is looked up (case does not
matter); one label found under two names with two values is an error, never a silent choice.

Signs and units
---------------
The stress σ of a configuration of volume V is ASE's, positive under tension; the virial W has the opposite
sign:

    σ = (1/V) ∂E/∂ε,    W = -∂E/∂ε,        hence        σ = -W / V

=========== ============================ ==============
symbol      variable                     unit
=========== ============================ ==============
E           ``Labelled.energy``          eV
F = -∂E/∂x  ``Labelled.forces`` [n, 3]   eV/Å
σ           ``Labelled.stress`` [6]      eV/Å³
W           file entry ``virial``        eV
V           ``Labelled.volume``          Å³
=========== ============================ ==============

Stress and virial are accepted as a 3x3 matrix, nine numbers, or six in Voigt order (xx yy zz yz xz xy).

The energy of a calculation with smeared occupations comes in two kinds: ASE's ``energy`` (extrapolated to
zero width, the default here) and ``free_energy`` (whose derivative the forces are;
``energy_key="free_energy"``).

Constraints that a file carries (fixed atoms) never change a reference force, and are dropped. A frame whose
``info["stress_shear_order_uncertain"]`` is true loses its stress, because the order of its shear components
is not known. A stress without a cell of finite volume is dropped as well.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from etnpot.conventions import MAX_ATOMIC_NUMBER, voigt
from etnpot.errors import DataError, EtnpotError
from etnpot.io.claims import check_claims
from etnpot.io.memory import memory_limit
from etnpot.io.mlip_cfg import TypeMap, is_mlip_cfg, read_mlip_cfg

__all__ = ["LABEL_NAMES", "UNGROUPED", "Labelled", "named_entries", "read_frames", "read_structures"]

logger = logging.getLogger(__name__)

Float = NDArray[np.float64]
Source = str | Path | Atoms

#: Name under which configurations that name no group are counted.
UNGROUPED = "ungrouped"

#: Names under which each label is looked for when no key is given, in lower case.
LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "energy": ("energy", "ref_energy", "dft_energy", "energy_ref", "total_energy", "totenergy"),
    "forces": ("forces", "force", "ref_forces", "ref_force", "dft_forces", "dft_force", "forces_ref"),
    "stress": ("stress", "ref_stress", "dft_stress", "stress_ref"),
    "virial": ("virial", "virials", "ref_virial", "ref_virials", "dft_virial", "dft_virials"),
}
_LABEL_OF_NAME = {name: label for label, names in LABEL_NAMES.items() for name in names}

# Two values of one label are the same when they differ by less than this (rounding in a text file).
_SAME = {"energy": 1e-5, "forces": 1e-4, "stress": 1e-5}  # eV/atom, eV/Å, eV/Å³

#: Memory that reading a file may take: so much, and so many times its size.
_READING_BYTES, _READING_FACTOR = 4 * 1024**3, 100

_WEIGHT_KEYS: dict[str, tuple[str, ...]] = {
    "weight": ("config_weight",),
    "energy_weight": ("energy_weight", "config_energy_weight"),
    "forces_weight": ("forces_weight", "force_weight", "config_forces_weight"),
    "stress_weight": ("stress_weight", "config_stress_weight", "virial_weight", "config_virials_weight"),
}
_CALCULATOR = (
    "calculator:"  # prefix of a calculator result hidden by an info or arrays entry of the same name
)
_EXTXYZ_STRESS = re.compile(r"""(?:^|\s)stress=(?:"([^"]*)"|\{([^}]*)\})""")


@dataclass(frozen=True, eq=False)
class Labelled:
    """One configuration with its reference labels.

    Attributes
    ----------
    atoms
        Structure without calculator and constraints.
    energy
        Total energy, eV, or None.
    forces
        float64 [n_atoms, 3], eV/Å, or None.
    stress
        float64 [6], xx yy zz yz xz xy, eV/Å³, positive under tension, or None.
    group
        Name of the family of configurations it belongs to (``config_type``), or None.
    weight, energy_weight, forces_weight, stress_weight
        Factors on the whole configuration and on each label; 1 by default.
    source
        File it was read from, or None.
    index
        Position in that file, counted from 0.
    """

    atoms: Atoms
    energy: float | None = None
    forces: Float | None = None
    stress: Float | None = None
    group: str | None = None
    weight: float = 1.0
    energy_weight: float = 1.0
    forces_weight: float = 1.0
    stress_weight: float = 1.0
    source: str | None = None
    index: int = 0

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    @property
    def volume(self) -> float:
        """Volume of the cell, Å³; 0 if it has none."""
        return abs(float(np.linalg.det(self.atoms.cell.array)))

    @property
    def name(self) -> str:
        """``file, frame index``, for messages."""
        return f"{self.source or 'the given Atoms'}, frame {self.index}"

    def to_atoms(self) -> Atoms:
        """Copy of the structure whose single-point calculator holds the labels."""
        atoms = self.atoms.copy()
        labels = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        for name in (*labels, "free_energy", "virial"):
            atoms.info.pop(name, None)
            if name in atoms.arrays:
                del atoms.arrays[name]
        results = {name: value for name, value in labels.items() if value is not None}
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


def read_structures(
    path_or_atoms: Source | Sequence[Source],
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    virial_key: str | None = None,
    group_key: str = "config_type",
    index: int | slice | str = ":",
    format: str | None = None,
    species: TypeMap | None = None,
    require_labels: bool = True,
) -> list[Labelled]:
    """Read configurations and their labels.

    Parameters
    ----------
    path_or_atoms
        A file (anything that ASE reads, or an MLIP ``.cfg``), an Atoms, or a sequence of these.
    energy_key, forces_key, stress_key, virial_key
        Name of the entry that holds the label; nothing else is looked at then. By default every name in
        `LABEL_NAMES` is tried.
    group_key
        Entry of ``atoms.info`` that names the group.
    index
        Which frames of each file, as in `ase.io.read`; ignored for Atoms.
    format
        ASE's name of the file format, where the file name does not tell it.
    species
        Elements of the types of an MLIP ``.cfg`` file, e.g. ``["Nb", "Mo"]``.
    require_labels
        Whether a file without any energy and force is an error.

    Returns
    -------
    list of Labelled
        In the order given.

    Raises
    ------
    DataError
        A file is missing, unreadable or empty; an asked-for key is in no frame of a file; a label has several
        values, a wrong shape, or is not finite; a stress is not symmetric; there is nothing to fit.
    """
    if stress_key is not None and virial_key is not None:
        raise DataError(
            f"both stress_key={stress_key!r} and virial_key={virial_key!r} were given; give one of them"
        )
    keys: dict[str, str] = {}
    for label, key in zip(LABEL_NAMES, (energy_key, forces_key, stress_key, virial_key), strict=True):
        if key is not None:
            keys[label] = key
    uses_stress = virial_key is None and stress_key in (None, "stress")
    sources = [path_or_atoms] if isinstance(path_or_atoms, str | Path | Atoms) else list(path_or_atoms)
    configurations: list[Labelled] = []
    given: list[Atoms] = []
    for source in sources:
        if isinstance(source, Atoms):
            given.append(source)
            continue
        if given:
            configurations.extend(_label(given, None, keys, group_key, require_labels))
            given = []
        path = Path(source)
        frames, numbers = read_frames(path, index, format, species, check_stress=uses_stress)
        configurations.extend(_label(frames, path, keys, group_key, require_labels, numbers))
    if given:
        configurations.extend(_label(given, None, keys, group_key, require_labels))
    return configurations


# ------------------------------------------------------------------------------------------------ files


def read_frames(
    path: Path, index: int | slice | str, format: str | None, species: TypeMap | None, *, check_stress: bool
) -> tuple[list[Atoms], list[int]]:
    """The selected frames of a file and their numbers in it."""
    from ase.io import read
    from ase.utils import string2index

    try:
        if not path.is_file():
            raise DataError(f"{path} {'is a directory, not a file' if path.is_dir() else 'does not exist'}")
    except OSError as error:  # a name that no file can have
        raise DataError(f"{str(path)[:200]} cannot be looked for: {error.strerror or error}") from error
    stresses: dict[int, list[str]] = {}
    try:
        if format in (None, "mlip-cfg") and is_mlip_cfg(path):
            everything = read_mlip_cfg(path, species)
        else:
            stresses = _scan_extxyz(path, format)
            check_claims(path)
            with memory_limit(_READING_BYTES + _READING_FACTOR * path.stat().st_size):
                read_back = read(str(path), index=":", format=format, do_not_split_by_at_sign=True)
            everything = [read_back] if isinstance(read_back, Atoms) else list(read_back)
    except EtnpotError:
        raise
    except MemoryError:
        raise DataError(
            f"cannot read {path}: it asks for more memory than a file of {path.stat().st_size} bytes can need; a number "
            "in it is wrong, such as the number of atoms"
        ) from None
    except Exception as error:  # ASE's readers raise whatever their parsing runs into
        raise DataError(f"cannot read {path}: {type(error).__name__}: {error}") from error
    try:
        chosen: Any = string2index(index) if isinstance(index, str) else index
        picked = range(len(everything))[chosen]
        numbers = [picked] if isinstance(picked, int) else list(picked)
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"index {index!r} does not fit the {len(everything)} frames of {path}: {error}"
        ) from None
    if not numbers:
        raise DataError(f"{path} holds no configurations (index {index!r} of {len(everything)} frames)")
    if check_stress:
        for frame in sorted(stresses.keys() & set(numbers)):
            _voigt(stresses[frame], f"{path}, frame {frame}", "stress")  # refuses one that is not symmetric
    return [everything[k] for k in numbers], numbers


def _scan_extxyz(path: Path, format: str | None) -> dict[int, list[str]]:
    """The 3x3 stresses of an extended XYZ file, by frame; other files have none.

    ASE keeps the upper triangle of them, and believes any number of atoms: one that is larger than the file is
    refused here, before it is counted to.
    """
    stresses: dict[int, list[str]] = {}
    if format not in ("extxyz", "xyz") and path.suffix not in (".xyz", ".extxyz"):
        return stresses
    size = path.stat().st_size
    with open(path, encoding="utf-8", errors="replace") as stream:
        frame = 0
        while line := stream.readline():
            try:
                n_atoms = int(line)
            except ValueError:
                return stresses  # blank lines at the end, or another format
            if n_atoms > size:
                raise DataError(
                    f"{path}, frame {frame}: {line.strip()[:40]} atoms cannot be in a file of {size} bytes; it is damaged"
                )
            match = _EXTXYZ_STRESS.search(stream.readline())
            if match:
                words = (match.group(1) or match.group(2) or "").replace(",", " ").split()
                if len(words) == 9:
                    stresses[frame] = words
            for _ in range(n_atoms):
                stream.readline()
            frame += 1
    return stresses


# ------------------------------------------------------------------------------------------------ labels


def _label(
    frames: Sequence[Atoms],
    path: Path | None,
    keys: Mapping[str, str],
    group_key: str,
    require_labels: bool,
    numbers: Sequence[int] | None = None,
) -> list[Labelled]:
    """Attach labels to the frames of one file (or to Atoms, with no path)."""
    source = None if path is None else str(path)
    where = "the given Atoms" if path is None else str(path)
    used: dict[str, set[str]] = {label: set() for label in LABEL_NAMES}
    seen: set[str] = set()
    n_uncertain = 0
    configurations = []
    for k, atoms in enumerate(frames):
        index = k if numbers is None else numbers[k]
        name = f"{where}, frame {index}"
        fields = named_entries(atoms, name, is_file=path is not None)
        seen.update(fields)
        if not np.all(np.isfinite(atoms.positions)):
            raise DataError(f"{name}: positions are not finite; correct or remove the frame")
        if not np.all(np.isfinite(atoms.cell.array)):
            raise DataError(f"{name}: the cell is not finite; correct or remove the frame")
        no_element = atoms.numbers[(atoms.numbers < 1) | (atoms.numbers > MAX_ATOMIC_NUMBER)]
        if no_element.size:
            raise DataError(
                f"{name}: atomic number {no_element[0]} is no element (expected 1 to {MAX_ATOMIC_NUMBER}; 0 is a "
                "ghost or unknown atom, X); name the elements in the file, or remove the atom"
            )
        energy = _energy(fields, keys, used, name, len(atoms))
        forces = _forces(fields, keys, used, name, len(atoms))
        stress = _stress(fields, keys, used, name, abs(float(np.linalg.det(atoms.cell.array))))
        if stress is not None and fields.get("stress_shear_order_uncertain"):
            stress = None
            n_uncertain += 1
        clean = atoms.copy()  # copies no calculator
        clean.set_constraint()
        group = fields.get(group_key)
        configurations.append(
            Labelled(
                clean,
                energy,
                forces,
                stress,
                None if group is None else str(group),
                **{weight: _weight(fields, names, name) for weight, names in _WEIGHT_KEYS.items()},
                source=source,
                index=index,
            )
        )
    _check_found(where, keys, used, seen)
    if require_labels and not used["energy"] and not used["forces"]:
        raise DataError(
            f"{where}: no energies and no forces in any of {len(frames)} configurations; there are "
            f"{_list(seen)}. Name the entries with energy_key and forces_key"
        )
    for label, names in used.items():
        if len(names) > 1:
            logger.warning(
                "%s: the %s is read from %s; select one if they differ in kind", where, label, _list(names)
            )
    if n_uncertain:
        logger.info("%s: %d stresses left out (stress_shear_order_uncertain)", where, n_uncertain)
    return configurations


def named_entries(atoms: Atoms, name: str, *, is_file: bool) -> dict[str, Any]:
    """Every named entry of a configuration: info and arrays first, then the results of the calculator.

    A result hidden by an entry of the same name but another value comes as ``calculator:name``.
    """
    calc = atoms.calc
    results: Mapping[str, Any] = getattr(calc, "results", None) or {}
    if results and not is_file and hasattr(calc, "check_state") and calc.check_state(atoms):
        raise DataError(
            f"{name}: the calculator's results belong to other positions, cell or elements than those of "
            "the Atoms; calculate again, or attach the right results"
        )
    entries: dict[str, Any] = {}
    for nested in ("data", "key_value_pairs"):
        if isinstance(atoms.info.get(nested), Mapping):
            entries.update(atoms.info[nested])
    entries.update(
        (key, value) for key, value in atoms.info.items() if key not in ("data", "key_value_pairs")
    )
    entries.update((key, value) for key, value in atoms.arrays.items() if key not in ("numbers", "positions"))
    for key, value in results.items():
        if value is None:
            continue
        if key not in entries:
            entries[key] = value
        elif not _equal(entries[key], value):
            entries[_CALCULATOR + key] = value
    return entries


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(np.array_equal(a, b))
    except (TypeError, ValueError):
        return False


def _candidates(
    fields: Mapping[str, Any], keys: Mapping[str, str], label: str, used: dict[str, set[str]]
) -> dict[str, Any]:
    """Entries that may hold a label: the one asked for, or all with a usual name."""
    if label in keys:
        found = {keys[label]: fields[keys[label]]} if keys[label] in fields else {}
    else:
        found = {
            key: value
            for key, value in fields.items()
            if _LABEL_OF_NAME.get(key.lower().removeprefix(_CALCULATOR)) == label
        }
        if label == "energy" and not found and "free_energy" in fields:
            found = {"free_energy": fields["free_energy"]}
    used[label].update(found)
    return found


def _energy(
    fields: Mapping[str, Any], keys: Mapping[str, str], used: dict[str, set[str]], name: str, n_atoms: int
) -> float | None:
    values = {
        key: _array(value, (), f"{name}: the energy {key!r}")
        for key, value in _candidates(fields, keys, "energy", used).items()
    }
    value = _agreed(values, "energy", name, _SAME["energy"] * max(n_atoms, 1))
    return None if value is None else float(value)


def _forces(
    fields: Mapping[str, Any], keys: Mapping[str, str], used: dict[str, set[str]], name: str, n_atoms: int
) -> Float | None:
    values = {
        key: _array(value, (n_atoms, 3), f"{name}: the forces {key!r}")
        for key, value in _candidates(fields, keys, "forces", used).items()
    }
    return _agreed(values, "forces", name, _SAME["forces"])


def _stress(
    fields: Mapping[str, Any], keys: Mapping[str, str], used: dict[str, set[str]], name: str, volume: float
) -> Float | None:
    values: dict[str, Float] = {}
    if "virial" not in keys:
        for key, value in _candidates(fields, keys, "stress", used).items():
            values[key] = _voigt(value, name, key)
    if "stress" not in keys:
        for key, value in _candidates(fields, keys, "virial", used).items():
            virial = _voigt(value, name, key)
            if volume > 0:
                values[key] = -virial / volume  # σ = -W / V
    if not volume > 0:
        return None
    return _agreed(values, "stress", name, _SAME["stress"])


def _array(value: Any, shape: tuple[int, ...], what: str) -> Float:
    """Finite float64 array of the given shape, or a DataError."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} must be numbers, got {value!r}") from None
    if array.size == 1 and shape == ():
        array = array.reshape(())
    if array.shape != shape:
        expected = "one number" if shape == () else f"shape {shape}"
        raise DataError(f"{what} must have {expected}, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise DataError(f"{what} is not finite; correct the value or remove the frame")
    return array


def _voigt(value: Any, name: str, key: str) -> Float:
    """Six Voigt components of a stress or virial given as 3x3, nine or six numbers; float64 [6]."""
    what = f"{name}: {key!r}"
    try:
        size = np.size(value)
    except ValueError:  # lists of unequal lengths
        raise DataError(f"{what} must be a 3x3 matrix, nine or six numbers, got {value!r:.200}") from None
    if size == 6:
        return _array(np.reshape(value, 6), (6,), what)
    if size != 9:
        raise DataError(f"{what} must be a 3x3 matrix, nine or six numbers, got shape {np.shape(value)}")
    matrix = _array(np.reshape(value, (3, 3)), (3, 3), what)
    asymmetry = float(np.max(np.abs(matrix - matrix.T)))
    if asymmetry > 1e-6 + 1e-3 * float(np.max(np.abs(matrix))):
        raise DataError(
            f"{what} is not symmetric (components differ by up to {asymmetry:.3g}); correct it, or select "
            "another entry with stress_key or virial_key"
        )
    matrix = 0.5 * (matrix + matrix.T)
    return voigt(matrix)


def _agreed(values: Mapping[str, Float], label: str, name: str, tolerance: float) -> Float | None:
    """The one value of a label, or an error if the candidates differ."""
    if not values:
        return None
    (first, value), *others = values.items()
    for key, other in others:
        difference = float(np.max(np.abs(other - value), initial=0.0))
        if difference > tolerance:
            option = "stress_key or virial_key" if label == "stress" else f"{label}_key"
            raise DataError(
                f"{name} has the {label} under {first!r} and, differing by up to {difference:.3g}, under "
                f"{key!r}; say which one to use with {option}"
            )
    return value


def _weight(fields: Mapping[str, Any], names: Sequence[str], name: str) -> float:
    for key in names:
        if key in fields:
            value = float(_array(fields[key], (), f"{name}: the weight {key!r}"))
            if value < 0:
                raise DataError(f"{name}: the weight {key!r} must be >= 0, got {value:g}")
            return value
    return 1.0


def _check_found(where: str, keys: Mapping[str, str], used: Mapping[str, set[str]], seen: set[str]) -> None:
    for label, key in keys.items():
        if not used[label]:
            raise DataError(
                f"{where}: {label}_key={key!r} is in no configuration; the entries there are {_list(seen)}"
            )


def _list(names: set[str]) -> str:
    return ", ".join(map(repr, sorted(names))) if names else "none"
