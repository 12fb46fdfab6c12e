"""Settings written by people: YAML of version 1.2, with the line of every key.

``1e-3`` is a number and only ``true`` and ``false`` are truth values (YAML 1.2). Whoever checks the values names
the line of a wrong one with `SettingsFile.place`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from etnpot.errors import SpecificationError

__all__ = ["SettingsFile", "parse_value", "read_settings_file"]

#: Values of a file, each as often as aliases repeat it.
_MOST_VALUES = 10_000
#: Where a value stands in a file: keys of mappings and indices of lists, from the outside in.
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class SettingsFile:
    """What a file holds.

    Attributes
    ----------
    path : str
    values : dict
    places : dict
        "file, line 3" for every key and every entry of a list, at any depth.
    """

    path: str
    values: dict[str, Any]
    places: Mapping[Key, str]

    def place(self, key: Sequence[str | int]) -> str:
        """Of a key, or of the innermost one around it that is in the file."""
        for n in range(len(key), 0, -1):
            if tuple(key[:n]) in self.places:
                return self.places[tuple(key[:n])]
        return self.path


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # decimal, also with leading zeros


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse_value(text: str) -> Any:
    """The value of a flag: a number, a word, ``[1, 2]``, ``1,2`` or ``{0e: 4, 1o: 3}``."""
    if re.fullmatch(r"[^\s,\[\]{}]+(,[^\s,\[\]{}]+)+", text):
        text = f"[{text.replace(',', ', ')}]"
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_size(node, "the value")
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text  # what cannot be read is text, and refused as such


def read_settings_file(path: str | Path, *, make: str, what: str, line: str) -> SettingsFile:
    """Keys and values of a file, and the place of each.

    Parameters
    ----------
    path : path
    make : str
        Command that prints an example of such a file.
    what : str
        What the file is called.
    line : str
        Example of a line.

    Raises
    ------
    SpecificationError
        If the file is missing, is no YAML, is no mapping of names to values, has a key twice, or stands for more values than
        settings are.
    """
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecificationError(
            f"the {what} {where} does not exist; '{make} > {where}' makes one to edit"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecificationError(f"cannot read the {what} {where}: {error}") from error
    loader = None
    places: dict[Key, str] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_size(node, where)
        if node is None:
            return SettingsFile(where, {}, {})
        if not isinstance(node, yaml.MappingNode):
            raise SpecificationError(f"{where}: expected lines such as '{line}', got {_kind_of(node)}")
        _locate(loader, node, where, (), places)
        values = loader.construct_object(node, deep=True)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else where
        raise SpecificationError(f"{place}: this is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SpecificationError(f"{where} is not YAML: {error}") from None
    except RecursionError:
        raise SpecificationError(
            f"{where} is nested too deeply; settings are numbers, words and short lists"
        ) from None
    except ValueError as error:
        if isinstance(error, SpecificationError):
            raise
        raise SpecificationError(f"{where}: a number cannot be read: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()
    return SettingsFile(where, values, places)


def _locate(loader: _Loader, node: yaml.Node, where: str, key: Key, places: dict[Key, str]) -> None:
    """The places of everything inside a node; a key that comes twice is an error."""
    if isinstance(node, yaml.SequenceNode):
        for k, entry in enumerate(node.value):
            places[*key, k] = f"{where}, line {entry.start_mark.line + 1}"
            _locate(loader, entry, where, (*key, k), places)
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            name = loader.construct_object(key_node, deep=True)
            place = f"{where}, line {key_node.start_mark.line + 1}"
            if not isinstance(name, str):
                if key:
                    continue  # of a mapping that is a value, such as {1: 2}
                raise SpecificationError(f"{place}: expected the name of a setting, got {name!r}")
            if (*key, name) in places:
                raise SpecificationError(
                    f"{place}: {name} was given before, in {places[*key, name]}; keep one"
                )
            places[*key, name] = place
            _locate(loader, value_node, where, (*key, name), places)


def _kind_of(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _check_size(node: yaml.Node | None, where: str) -> None:
    """Refuse values that refer to themselves, or that aliases multiply: a few lines could stand for gigabytes."""
    counts: dict[int, int] = {}

    def count(part: Any) -> int:
        if id(part) in counts:
            if not counts[id(part)]:
                raise SpecificationError(f"{where}: a value contains itself; write it out")
            return counts[id(part)]
        counts[id(part)] = 0
        parts = part.value if isinstance(part, yaml.SequenceNode | yaml.MappingNode) else []
        total = 1 + sum(sum(map(count, p)) if isinstance(p, tuple) else count(p) for p in parts)
        counts[id(part)] = total
        return total

    if node is not None and count(node) > _MOST_VALUES:
        raise SpecificationError(
            f"{where} holds more than {_MOST_VALUES} values, more than settings are; shorten it"
        )
