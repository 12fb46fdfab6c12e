"""Reading configurations with a tensor label: dipoles, polarizabilities, tensors of atoms.

A label is looked for among the results of the calculator that ASE attaches, in ``atoms.info`` and in ``atoms.arrays``: under
the key that is asked for, else under the usual names of the quantity (case does not matter). Two names with two values are an
error, never a silent choice. A symmetric matrix may be given as 3x3, nine numbers, or six in Voigt order (xx yy zz yz xz xy).

Numbers are multiplied by the factor of `UNITS` that takes them to the units of ASE, if a unit is named:

========================= ============= ==========================
unit                      quantity      factor to
========================= ============= ==========================
``e*Ang``, ``ea0``,       dipole        e Å
``debye``, ``au``
``Ang^3``, ``bohr^3``,    polarizability e²Å²/eV
``au``
========================= ============= ==========================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from etnpot.errors import DataError, SpecificationError
from etnpot.io.structures import named_entries, read_frames

__all__ = ["NAMES", "UNITS", "TensorLabel", "read_tensors"]

Floats = NDArray[np.float64]

#: Usual names of a label, in lower case.
NAMES: dict[str, tuple[str, ...]] = {
    "dipole": ("dipole", "ref_dipole", "dft_dipole", "dipole_moment", "mu"),
    "polarizability": ("polarizability", "ref_polarizability", "dft_polarizability", "alpha"),
    "charges": ("charges", "ref_charges", "dft_charges"),
}

# alpha in Å³ is alpha times e²/(4 pi eps0) = 14.4 eV Å in e²Å²/eV, whose value is Hartree times Bohr.
_COULOMB = units.Hartree * units.Bohr
#: Factors to the units of ASE, by quantity.
UNITS: dict[str, dict[str, float]] = {
    "dipole": {"e*Ang": 1.0, "ea0": units.Bohr, "au": units.Bohr, "debye": units.Debye},
    "polarizability": {
        "Ang^3": 1.0 / _COULOMB,
        "bohr^3": units.Bohr**3 / _COULOMB,
        "au": units.Bohr**3 / _COULOMB,
    },
}


@dataclass(frozen=True, eq=False)
class TensorLabel:
    """One configuration with its label.

    Attributes
    ----------
    atoms : Atoms
        Structure without calculator and constraints.
    value : float64 [*shape] or [n_atoms, *shape]
        The label.
    charge : float, e
        Total charge, ``info["charge"]`` or zero.
    weight : float
        ``info["config_weight"]`` or one.
    name : str
        Where it comes from.
    """

    atoms: Atoms
    value: Floats
    charge: float
    weight: float
    name: str


def read_tensors(
    sources: Any,
    name: str,
    shape: tuple[int, ...],
    *,
    per_atom: bool = False,
    key: str | None = None,
    unit: str | None = None,
    index: int | slice | str = ":",
    format: str | None = None,
) -> list[TensorLabel]:
    """Configurations that have the label; those without it are left out.

    Parameters
    ----------
    sources : path, Atoms, or sequence of them
    name : str
        Of the quantity.
    shape : tuple of int
        Of its Cartesian tensor.
    per_atom : bool
        One tensor for each atom.
    key : str, optional
        Entry that holds the label; nothing else is looked at then.
    unit : str, optional
        Of the numbers: see `UNITS`.
    index, format
        Frames of each file, and ASE's name of its format, as in `ase.io.read`.

    Returns
    -------
    list of TensorLabel

    Raises
    ------
    DataError
        A file is missing or unreadable, a label has several values, a wrong shape, or is not finite, or there is none.
    """
    factor = _factor(name, unit)
    given: Sequence[Any] = [sources] if isinstance(sources, str | Path | Atoms) else list(sources)
    labels: list[TensorLabel] = []
    seen: set[str] = set()
    n_frames = 0
    for at, source in enumerate(given):
        if isinstance(source, Atoms):
            frames = [(source, f"configuration {at}")]
        else:
            path = Path(source)
            read, numbers = read_frames(path, index, format, None, check_stress=False)
            frames = [(atoms, f"{path}, frame {k}") for atoms, k in zip(read, numbers, strict=True)]
        for atoms, where in frames:
            n_frames += 1
            entries = named_entries(atoms, where, is_file=not isinstance(source, Atoms))
            seen.update(entries)
            value = _value(entries, name, key, where)
            if value is None:
                continue
            array = factor * _shaped(value, shape, len(atoms) if per_atom else None, name, where)
            labels.append(
                TensorLabel(
                    _plain(atoms),
                    array,
                    _number(entries, "charge", 0.0, where),
                    _weight(entries, where),
                    where,
                )
            )
    if not labels:
        wanted = key or " or ".join(NAMES.get(name, (name,)))
        raise DataError(
            f"none of {n_frames} configurations has a {name} (looked for {wanted}); the entries are "
            f"{', '.join(sorted(seen)) or 'none'}; name the one that holds it with key="
        )
    return labels


def _factor(name: str, unit: str | None) -> float:
    if unit is None:
        return 1.0
    known = UNITS.get(name, {})
    if unit not in known:
        raise SpecificationError(
            f"unit: expected one of {', '.join(known) or 'none'} for {name}, got {unit!r}; convert the numbers "
            "yourself and leave it out"
        )
    return known[unit]


def _value(entries: dict[str, Any], name: str, key: str | None, where: str) -> Any:
    if key is not None:
        return entries.get(key)
    names = NAMES.get(name, (name.lower(),))
    found = {k: v for k, v in entries.items() if k.lower().removeprefix("calculator:") in names}
    values = list(found.values())
    for value in values[1:]:
        if np.shape(value) != np.shape(values[0]) or not np.allclose(value, values[0], rtol=1e-4, atol=1e-6):
            raise DataError(
                f"{where}: {name} has several values, under {', '.join(sorted(found))}; name one with key="
            )
    return values[0] if values else None


def _shaped(value: Any, shape: tuple[int, ...], n_atoms: int | None, name: str, where: str) -> Floats:
    lead = () if n_atoms is None else (n_atoms,)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name} is not made of numbers: {value!r:.100}") from None
    if shape == (3, 3) and array.shape == (*lead, 6):
        xx, yy, zz, yz, xz, xy = np.moveaxis(array, -1, 0)
        array = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1)
    if array.size != int(np.prod((*lead, *shape))):
        raise DataError(
            f"{where}: expected a {name} of shape {[*lead, *shape]}, got one of shape {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {name} is not finite; remove this configuration")
    return array.reshape(*lead, *shape)


def _number(entries: dict[str, Any], key: str, default: float, where: str) -> float:
    try:
        value = float(entries.get(key, default))
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{where}: {key} must be a finite number, got {entries[key]!r:.100}")
    return value


def _weight(entries: dict[str, Any], where: str) -> float:
    weight = _number(entries, "config_weight", 1.0, where)
    if not 0.0 <= weight <= 1e15:
        raise DataError(f"{where}: config_weight must be from 0 to 1e15, got {weight}")
    return weight


def _plain(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = None
    copy.set_constraint()
    return copy
