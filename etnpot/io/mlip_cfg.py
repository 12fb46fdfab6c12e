"""Reading and writing the text configurations (``.cfg``) of the MLIP codes.

A file is a sequence of blocks::

    BEGIN_CFG
     Size
        2
     Supercell
        3.30 0.00 0.00
        0.00 3.30 0.00
        0.00 0.00 3.30
     AtomData:  id type  cartes_x cartes_y cartes_z  fx fy fz
        1    0   0.00 0.00 0.00   0.01 0.00 0.00
        2    1   1.65 1.65 1.65  -0.01 0.00 0.00
     Energy
        -21.7
     PlusStress:  xx yy zz yz xz xy
        0.12 0.12 0.12 0.0 0.0 0.0
     Feature   EFS_by  VASP
    END_CFG

Columns of ``AtomData`` and components of ``PlusStress`` may stand in any order; positions are Cartesian
(``cartes_*``, Å) or fractional (``direct_*``). Without ``Supercell`` the configuration is not periodic; with
one or two vectors it is periodic along these. Types are small integers whose elements the file does not say.

Sign and unit of the stress
---------------------------
``PlusStress`` is the virial, in eV, positive under compression (like the pressure, and like the "Total"
line of a VASP OUTCAR), whereas the stress of etnpot and ASE is positive under tension:

    PlusStress = p V = -σ V        =>        σ = -PlusStress / V

============== ============================== ==================
symbol         variable                       unit
============== ============================== ==================
σ              ``stress`` (xx yy zz yz xz xy) eV/Å³
PlusStress     ``plus_stress``                eV
V              ``atoms.get_volume()``         Å³
============== ============================== ==================

Older files carry a header ``Stress:`` (opposite sign) or ``Virial:``, about whose meaning versions of the
MLIP codes disagree; they are refused rather than guessed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from etnpot.conventions import MAX_ATOMIC_NUMBER
from etnpot.errors import DataError, SpeciesError

__all__ = ["is_mlip_cfg", "read_mlip_cfg", "write_mlip_cfg"]

logger = logging.getLogger(__name__)

#: What maps the integer types of a file to elements: a sequence in the order of the types, or a mapping.
TypeMap = Sequence[str | int] | Mapping[int, str | int]

_VOIGT_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")
_POSITION_COLUMNS = {
    "cartes": ("cartes_x", "cartes_y", "cartes_z"),
    "direct": ("direct_x", "direct_y", "direct_z"),
}
_FORCE_COLUMNS = ("fx", "fy", "fz")
_HEADERS = ("Size", "Supercell", "SuperCell", "AtomData:", "Atomic_data:", "Energy", "PlusStress:", "Feature")
_ESCAPES = {" ": r"\_", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


def is_mlip_cfg(path: str | Path) -> bool:
    """Whether the first word of a file is ``BEGIN_CFG`` (ASE knows another format by the suffix ``.cfg``)."""
    try:
        with open(path, "rb") as stream:
            for line in stream:
                if line.strip():
                    return line.split()[0] == b"BEGIN_CFG"
    except OSError:
        return False
    return False


def read_mlip_cfg(path: str | Path, species: TypeMap | None = None) -> list[Atoms]:
    """Read every configuration of an MLIP ``.cfg`` file.

    Parameters
    ----------
    path
        The file.
    species
        Elements of the integer types, as symbols or atomic numbers: ``["Nb", "Mo"]`` or
        ``{0: "Nb", 1: "Mo"}``. Required, since the file does not hold them.

    Returns
    -------
    list of ase.Atoms
        With a single-point calculator that holds what the file has of energy (eV), forces (eV/Å) and stress
        (eV/Å³, positive under tension); features in ``atoms.info``, other columns in ``atoms.arrays``.

    Raises
    ------
    DataError
        The file is malformed (the message gives the line), or the type map is missing or incomplete.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    numbers_by_type = None if species is None else _resolve_species(species)
    frames = [
        _Block(path, first_line, lines, numbers_by_type).atoms() for first_line, lines in _blocks(path, text)
    ]
    if not frames:
        raise DataError(f"{path} holds no configuration: expected blocks from BEGIN_CFG to END_CFG")
    return frames


def write_mlip_cfg(
    path: str | Path, frames: Atoms | Iterable[Atoms], species: TypeMap | None = None, *, direct: bool = False
) -> dict[int, str]:
    """Write configurations, with the results their calculators hold, as an MLIP ``.cfg`` file.

    Parameters
    ----------
    path
        The file, overwritten.
    frames
        Configurations, either periodic along all three axes or not at all.
    species
        Elements of the types (see `read_mlip_cfg`); by default every element present, by atomic number.
    direct
        Write fractional instead of Cartesian positions (periodic configurations only).

    Returns
    -------
    dict of int to str
        Symbol of each type, which is what a reader of the file needs.
    """
    images = [frames] if isinstance(frames, Atoms) else list(frames)
    if species is None:
        present = sorted({int(z) for atoms in images for z in atoms.numbers})
        numbers_by_type = dict(enumerate(present))
    else:
        numbers_by_type = _resolve_species(species)
    type_by_number = {z: t for t, z in numbers_by_type.items()}
    blocks = []
    for frame, atoms in enumerate(images):
        missing = sorted({int(z) for z in atoms.numbers} - set(type_by_number))
        if missing:
            raise DataError(
                f"frame {frame} contains {_names(missing)}, which the given type map lacks "
                f"({_names(sorted(type_by_number))}); add it to `species`"
            )
        blocks.append(_format_block(atoms, frame, type_by_number, direct))
    Path(path).write_text("".join(blocks), encoding="utf-8")
    return {t: chemical_symbols[z] for t, z in numbers_by_type.items()}


# ------------------------------------------------------------------------------------------------ reading


def _resolve_species(species: TypeMap) -> dict[int, int]:
    """Atomic number of each type, from symbols or numbers in a sequence or mapping."""
    if isinstance(species, str):
        raise SpeciesError(
            f'the type map must be a sequence of elements such as ["Nb", "Mo"]; got {species!r}'
        )
    items = species.items() if isinstance(species, Mapping) else enumerate(species)
    numbers: dict[int, int] = {}
    for type_, element in items:
        z = atomic_numbers.get(element, 0) if isinstance(element, str) else int(element)
        if not 1 <= z <= MAX_ATOMIC_NUMBER:
            raise SpeciesError(
                f"type {type_} is mapped to {element!r}, which is no element; give symbols or Z"
            )
        numbers[int(type_)] = z
    if len(set(numbers.values())) != len(numbers):
        raise SpeciesError(f"two types are mapped to one element ({_names(list(numbers.values()))})")
    return numbers


def _blocks(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line inside, lines) of every block."""
    begin: int | None = None
    lines = text.splitlines()
    for i, line in enumerate(lines):
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if word == "BEGIN_CFG":
            if begin is not None:
                raise DataError(f"{path}, line {i + 1}: BEGIN_CFG inside a block that began at line {begin}")
            begin = i + 1
        elif word == "END_CFG":
            if begin is None:
                raise DataError(f"{path}, line {i + 1}: END_CFG without BEGIN_CFG")
            yield begin + 1, lines[begin:i]
            begin = None
        elif word and begin is None:
            raise DataError(f"{path}, line {i + 1}: expected BEGIN_CFG, got {line.strip()[:40]!r}")
    if begin is not None:
        raise DataError(f"{path} is truncated: the block that began at line {begin} has no END_CFG")


class _Block:
    """Parser of the lines between BEGIN_CFG and END_CFG."""

    def __init__(self, path: Path, first_line: int, lines: list[str], species: dict[int, int] | None) -> None:
        self.path, self.first_line, self.lines, self.species = path, first_line, lines, species
        self.cursor = 0

    def error(self, message: str) -> DataError:
        return DataError(f"{self.path}, line {self.first_line + max(self.cursor - 1, 0)}: {message}")

    def numbers(self, n: int, what: str, inline: Sequence[str] = ()) -> np.ndarray:
        """The next `n` numbers, beginning with the words left on the header line; float64 [n]."""
        words = list(inline)
        while len(words) < n and self.cursor < len(self.lines):
            words.extend(self.lines[self.cursor].split())
            self.cursor += 1
        if len(words) != n:
            raise self.error(f"expected {n} number{'s' * (n != 1)} for {what}, got {len(words)}")
        try:
            return np.array(words, dtype=np.float64)
        except ValueError as error:
            raise self.error(f"{what} must be numbers: {error}") from None

    def table(self, n_rows: int, n_columns: int) -> np.ndarray:
        """The rows of AtomData; float64 [n_rows, n_columns]."""
        rows: list[list[str]] = []
        while len(rows) < n_rows and self.cursor < len(self.lines):
            words = self.lines[self.cursor].split()
            self.cursor += 1
            if not words:
                continue
            if len(words) != n_columns:
                raise self.error(
                    f"expected atom {len(rows) + 1} of {n_rows} in {n_columns} columns, got {len(words)}"
                )
            rows.append(words)
        if len(rows) != n_rows:
            raise self.error(f"expected {n_rows} atoms (Size), got {len(rows)}")
        try:
            return np.array(rows, dtype=np.float64)
        except ValueError as error:
            raise self.error(f"AtomData must be numbers: {error}") from None

    def cell(self) -> np.ndarray:
        """Up to three lattice vectors; float64 [0..3, 3], Å."""
        vectors: list[list[float]] = []
        while len(vectors) < 3 and self.cursor < len(self.lines):
            try:
                vector = [float(word) for word in self.lines[self.cursor].split()]
            except ValueError:
                break  # the next header: fewer than three vectors
            self.cursor += 1
            if not vector:
                continue
            if len(vector) != 3:
                raise self.error(f"a Supercell vector has 3 components, got {len(vector)}")
            vectors.append(vector)
        if not vectors:
            raise self.error("Supercell without lattice vectors")
        return np.array(vectors)

    def atoms(self) -> Atoms:
        size: int | None = None
        cell: np.ndarray | None = None
        columns: dict[str, np.ndarray] = {}
        results: dict[str, Any] = {}
        plus_stress: np.ndarray | None = None
        info: dict[str, Any] = {}
        while self.cursor < len(self.lines):
            line = self.lines[self.cursor]
            self.cursor += 1
            if not line.strip():
                continue
            header, *words = line.split()
            if header == "Size":
                value = self.numbers(1, "Size", words)[0]
                if value < 1 or value != int(value):
                    raise self.error(f"Size must be a positive integer, got {value:g}")
                size = int(value)
            elif header in ("Supercell", "SuperCell"):
                cell = self.cell()
            elif header in ("AtomData:", "Atomic_data:"):
                if size is None:
                    raise self.error("AtomData before Size: the number of atoms is not known")
                if len(set(words)) != len(words):
                    raise self.error(f"AtomData names a column twice: {' '.join(words)}")
                if not words:
                    raise self.error(
                        "AtomData names no columns; expected such as 'id type cartes_x cartes_y cartes_z'"
                    )
                columns = dict(zip(words, self.table(size, len(words)).T, strict=True))
            elif header == "Energy":
                results["energy"] = float(self.numbers(1, "Energy", words)[0])
            elif header == "PlusStress:":
                if sorted(words) != sorted(_VOIGT_NAMES):
                    raise self.error(
                        f"PlusStress must name {' '.join(_VOIGT_NAMES)} in some order, got {' '.join(words)}"
                    )
                components = dict(zip(words, self.numbers(6, "PlusStress"), strict=True))
                plus_stress = np.array([components[name] for name in _VOIGT_NAMES])
            elif header in ("Stress:", "Virial:"):
                raise self.error(
                    f"the obsolete header {header!r} has no settled sign; convert the file to 'PlusStress:' "
                    "(eV, positive under compression) or delete the entry"
                )
            elif header == "Feature":
                _add_feature(info, line, self)
            else:
                raise self.error(f"unknown entry {header!r}; known are {', '.join(_HEADERS)}")
        if size is None or not columns:
            raise self.error("a configuration needs Size and AtomData")
        return self.build(columns, cell, results, plus_stress, info)

    def build(
        self,
        columns: dict[str, np.ndarray],
        cell: np.ndarray | None,
        results: dict[str, Any],
        plus_stress: np.ndarray | None,
        info: dict[str, Any],
    ) -> Atoms:
        order = self.order(columns.pop("id", None))
        columns = {name: values[order] for name, values in columns.items()}
        kinds = [kind for kind, names in _POSITION_COLUMNS.items() if all(name in columns for name in names)]
        if len(kinds) != 1:
            raise self.error("expected positions either as cartes_x/y/z or as direct_x/y/z in AtomData")
        position = np.column_stack([columns.pop(name) for name in _POSITION_COLUMNS[kinds[0]]])
        pbc = np.zeros(3, dtype=bool)
        matrix = np.zeros((3, 3))
        if cell is not None:
            matrix[: len(cell)] = cell
            pbc[: len(cell)] = True
        if kinds[0] == "direct":
            if cell is None or len(cell) != 3:
                raise self.error("direct (fractional) positions need a Supercell of three vectors")
            position = position @ matrix
        atoms = Atoms(
            numbers=self.atomic_numbers(columns.pop("type", None), len(position)), positions=position
        )
        atoms.set_cell(matrix)
        atoms.pbc = pbc
        if any(name in columns for name in _FORCE_COLUMNS):
            if not all(name in columns for name in _FORCE_COLUMNS):
                raise self.error("AtomData must have all of fx, fy, fz or none")
            results["forces"] = np.column_stack([columns.pop(name) for name in _FORCE_COLUMNS])
        if plus_stress is not None:
            volume = abs(float(np.linalg.det(matrix)))
            if volume > 0:
                results["stress"] = -plus_stress / volume
            else:
                logger.debug("%s: PlusStress without a full Supercell is left out", self.path)
        for name, values in columns.items():
            atoms.set_array(name, values)
        atoms.info.update(info)
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    def order(self, ids: np.ndarray | None) -> np.ndarray | slice:
        """Permutation that sorts the rows by id."""
        if ids is None:
            return slice(None)
        order = np.argsort(ids, kind="stable")
        if not np.array_equal(ids[order], np.arange(1, len(ids) + 1)):
            raise self.error(f"the ids of AtomData must be 1..{len(ids)}, each once")
        return order

    def atomic_numbers(self, types: np.ndarray | None, n_atoms: int) -> np.ndarray:
        """Atomic numbers of the atoms; int64 [n_atoms]. A file without types has type 0 only."""
        types = np.zeros(n_atoms) if types is None else types
        if np.any(types != np.round(types)) or np.any(types < 0):
            raise self.error("types must be integers >= 0")
        found = sorted({int(t) for t in types})
        if self.species is None:
            raise DataError(
                f"{self.path} numbers its elements as types ({found} in the first configuration) and does "
                'not name them; give the elements in the order of the types, e.g. species=["Nb", "Mo"]'
            )
        unknown = [t for t in found if t not in self.species]
        if unknown:
            known = ", ".join(f"{t}: {chemical_symbols[z]}" for t, z in sorted(self.species.items()))
            raise self.error(f"types {unknown} have no element in the type map ({known}); extend `species`")
        return np.array([self.species[int(t)] for t in types])


def _add_feature(info: dict[str, Any], line: str, block: _Block) -> None:
    """Store ``Feature key value``; a key that comes again continues its value on a new line."""
    words = line.strip().split(maxsplit=2)
    if len(words) < 2:
        raise block.error("a Feature needs a name")
    key = words[1]
    for character, escape in _ESCAPES.items():
        key = key.replace(escape, character)
    value = words[2].strip() if len(words) > 2 else ""
    info[key] = f"{info[key]}\n{value}" if key in info else _scalar(value)


def _scalar(text: str) -> int | float | str:
    for kind in (int, float) if "_" not in text else ():  # Python would read 1_000 as a number
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# ------------------------------------------------------------------------------------------------ writing


def _format_block(atoms: Atoms, frame: int, type_by_number: Mapping[int, int], direct: bool) -> str:
    periodic = bool(np.all(atoms.pbc))
    if np.any(atoms.pbc) and not periodic:
        raise DataError(
            f"frame {frame} is periodic along some axes only (pbc {list(map(bool, atoms.pbc))}), which "
            "MLIP codes do not know; set pbc to all True with vacuum, or to all False"
        )
    if direct and not periodic:
        raise DataError(f"frame {frame} is not periodic: write it with Cartesian positions (direct=False)")
    results: Mapping[str, Any] = getattr(atoms.calc, "results", None) or {}
    lines = ["BEGIN_CFG", " Size", f"    {len(atoms)}"]
    if periodic:
        lines.append(" Supercell")
        lines.extend("    " + _row(vector) for vector in np.asarray(atoms.cell))
    kind = "direct" if direct else "cartes"
    names = ["id", "type", *_POSITION_COLUMNS[kind]]
    position = atoms.get_scaled_positions(wrap=False) if direct else atoms.positions
    table = position
    if "forces" in results:
        names.extend(_FORCE_COLUMNS)
        table = np.hstack([position, np.asarray(results["forces"], dtype=np.float64)])
    lines.append(" AtomData:  " + " ".join(names))
    for i, (z, row) in enumerate(zip(atoms.numbers, table, strict=True)):
        lines.append(f"    {i + 1} {type_by_number[int(z)]}  {_row(row)}")
    if "energy" in results:
        lines.extend([" Energy", f"    {float(results['energy'])!r}"])
    if "stress" in results and periodic:
        plus_stress = -np.asarray(results["stress"], dtype=np.float64) * atoms.get_volume()
        lines.extend([" PlusStress:  " + " ".join(_VOIGT_NAMES), "    " + _row(plus_stress)])
    for key, value in atoms.info.items():
        lines.extend(_format_feature(str(key), value))
    lines.extend(["END_CFG", "", ""])
    return "\n".join(lines)


def _format_feature(key: str, value: Any) -> list[str]:
    """Lines of one feature; what is neither number nor text has no place in the format."""
    if not isinstance(value, str | bool | int | float | np.bool_ | np.integer | np.floating):
        logger.debug("info entry %r of type %s is left out of the cfg file", key, type(value).__name__)
        return []
    for character, escape in _ESCAPES.items():
        key = key.replace(character, escape)
    text = repr(float(value)) if isinstance(value, float | np.floating) else str(value)
    return [f" Feature   {key}\t{part}" for part in text.split("\n")]


def _row(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)


def _names(numbers: Sequence[int]) -> str:
    return ", ".join(f"{z} ({chemical_symbols[z]})" for z in numbers)
