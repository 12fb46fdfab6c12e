"""Configuration files and flags of ``etnpot fit``, checked before anything starts.

Files are YAML in which ``1e-3`` is a number and only ``true`` and ``false`` are truth values (YAML 1.2); the
value of a flag is read in the same way. Everything is checked at once, so that one run shows every mistake,
each with its line or flag.
"""

from __future__ import annotations

import collections.abc
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from etnpot.cli.options import DataSettings, alternatives, as_list, flag, options, plain
from etnpot.errors import SpecificationError
from etnpot.fitting.settings import FitSettings
from etnpot.io.settings_file import parse_value, read_settings_file

__all__ = ["Config", "check_config", "parse_value", "read_yaml"]


@dataclass(frozen=True)
class Config:
    """Checked settings of a fit, and where each was given.

    Attributes
    ----------
    data : DataSettings
    settings : FitSettings
    places : dict of str to str
        "config.yaml, line 3" or "--cutoff" for each that was given.
    """

    data: DataSettings
    settings: FitSettings
    places: Mapping[str, str]

    def locate(self, error: Exception) -> str:
        """The message of an error with the place of the setting that it names first, if it does."""
        return _located(str(error), self.places)

    def to_yaml(self) -> str:
        """A configuration file that gives the same settings from any directory."""
        values: dict[str, Any] = {}
        for option in options():
            value = getattr(self.data if option.section == "data" else self.settings, option.name)
            if value is None or (value == option.default and option.name not in ("out", "seed")):
                continue
            if option.is_path_list or option.name == "out":
                paths = [str(Path(path).absolute()) for path in as_list(value) or []]
                value = paths[0] if len(paths) == 1 else paths
            values[option.name] = plain(value)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


# ---------------------------------------------------------------------------------------------------- reading


def read_yaml(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Keys and values of a configuration file, and the place of each key.

    Raises
    ------
    SpecificationError
        If the file is missing, is no YAML, is no mapping of names to values, or has a key twice.
    """
    read = read_settings_file(
        path, make="etnpot fit --example", what="configuration file", line="train: data.extxyz"
    )
    return read.values, {key[0]: place for key, place in read.places.items() if len(key) == 1}  # type: ignore[misc]


# --------------------------------------------------------------------------------------------------- checking


def check_config(values: Mapping[str, Any], places: Mapping[str, str]) -> Config:
    """Settings from plain values.

    Parameters
    ----------
    values : mapping
        Of a file, of flags, or both.
    places : mapping
        Where each was given, for the messages.

    Raises
    ------
    SpecificationError
        With one line for every unknown name, wrong type, missing file, and value out of range.
    """
    from pydantic import ValidationError

    known = {option.name: option for option in options()}
    clean = {name: value for name, value in values.items() if name in known}
    problems: dict[str, str] = {
        name: f"no such setting{_nearest(name, list(known))}" for name in values if name not in known
    }
    checked: dict[str, Any] = {}
    try:
        checked = {name: value for name, value in _model()(**clean).model_dump().items() if name in clean}
    except ValidationError as error:
        for detail in error.errors():
            name = str(detail["loc"][0])
            if detail["type"] == "missing" and detail["loc"] == (name,):
                problems[name] = (
                    "no training set; write 'train: data.extxyz' in the configuration file, or give --train"
                )
            else:
                problems[name] = f"expected {_expected(known[name].annotation)}, got {clean[name]!r}"
    for check in (_out_of_range, _missing_files, _both_stresses):
        for name, problem in check({n: v for n, v in clean.items() if n not in problems}).items():
            problems[name] = problem
    if problems:
        order = [*values, *problems]
        lines = [
            _located(f"{name}: {problems[name]}", places) for name in dict.fromkeys(order) if name in problems
        ]
        raise SpecificationError("\n".join(lines))
    data = DataSettings(**{name: value for name, value in checked.items() if known[name].section == "data"})
    settings = FitSettings(**{name: value for name, value in checked.items() if known[name].section == "fit"})
    return Config(data, settings, dict(places))


@cache
def _model() -> Any:
    """The pydantic model of all options; it checks types and changes nothing but lists into tuples."""
    from pydantic import BeforeValidator, ConfigDict, create_model

    definitions: dict[str, Any] = {}
    for option in options():
        annotation = option.annotation
        if any(get_origin(part) is tuple for part in alternatives(annotation)):
            annotation = typing.Annotated[annotation, BeforeValidator(_tuple_of_list)]
        definitions[option.name] = (annotation, ... if option.default is MISSING else option.default)
    return create_model("FitConfig", __config__=ConfigDict(strict=True, extra="forbid"), **definitions)


def _tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _out_of_range(values: Mapping[str, Any]) -> dict[str, str]:
    """What `FitSettings` refuses, one setting at a time so that all of them are found."""
    problems = {}
    for option in options():
        if option.section == "fit" and option.name in values:
            try:
                FitSettings(**{option.name: values[option.name]})
            except (SpecificationError, TypeError) as error:
                problems[option.name] = str(error).removeprefix(f"{option.name}: ")
    return problems


def _missing_files(values: Mapping[str, Any]) -> dict[str, str]:
    problems = {}
    for name in ("train", "valid", "test"):
        for path in as_list(values.get(name)) or []:
            try:
                if Path(path).is_file():
                    continue
                state = (
                    "is a directory, not a file"
                    if Path(path).is_dir()
                    else f"does not exist{_beside(Path(path))}"
                )
            except OSError as error:  # a name that no file can have
                state = f"cannot be looked for: {error.strerror or error}"
            problems[name] = f"the file {str(path)[:200]} {state}"
    return problems


def _both_stresses(values: Mapping[str, Any]) -> dict[str, str]:
    if values.get("stress_key") is None or values.get("virial_key") is None:
        return {}
    return {"virial_key": "stress_key is given as well; keep one of them"}


def _beside(path: Path) -> str:
    """A file of nearly the same name, or where was looked."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"; neither does its directory {path.parent}"
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    return "" if path.is_absolute() else f" in {Path.cwd() / path.parent}"


def _located(message: str, places: Mapping[str, str]) -> str:
    """A message that begins with the name of a setting, after the place where it was given."""
    found = re.match(r"\w+", message)
    name = found[0] if found else ""
    if name not in places:
        return message
    if places[name] == flag(name):
        return (
            f"{flag(name)}{message.removeprefix(name)}"
            if message.startswith(f"{name}:")
            else f"{flag(name)}: {message}"
        )
    return f"{places[name]}: {message}"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return "; 'etnpot fit --example' lists the settings"


# ------------------------------------------------------------------------------------------------------ types


def _expected(annotation: Any) -> str:
    """A type in words."""
    words = [_words(part) for part in alternatives(annotation) if part is not type(None)]
    return " or ".join(dict.fromkeys(words))


def _words(part: Any) -> str:
    simple = {bool: "true or false", int: "an integer", float: "a number", str: "text", Any: "a value"}
    if part in simple:
        return simple[part]
    origin, arguments = get_origin(part), get_args(part)
    if origin is tuple:
        return f"a list of {len(arguments)} values ({', '.join(_words(a) for a in arguments)})"
    if origin is collections.abc.Mapping:
        return f"a mapping of names to {_words(arguments[1]).removeprefix('a ')}s"
    if origin is collections.abc.Sequence:
        return "a list of " + " or ".join(_plural(_words(a)) for a in alternatives(arguments[0]))
    return str(part)


def _plural(words: str) -> str:
    known = {"an integer": "integers", "a number": "numbers", "text": "texts"}
    return known.get(words, words.replace("a mapping", "mappings"))
