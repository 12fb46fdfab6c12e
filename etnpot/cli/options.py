"""The settings of ``etnpot fit``, read off two dataclasses.

`DataSettings` has the files and labels, `etnpot.fitting.settings.FitSettings` the model and the training:
names, types, defaults, and the text of their docstrings. A new field of either is a key of the configuration
file, a flag and a line of ``etnpot fit --example`` without further work.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml

from etnpot.fitting.settings import SIZES, FitSettings

__all__ = ["DataSettings", "Option", "alternatives", "as_list", "example", "flag", "options", "plain"]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Files and labels of a fit.

    Parameters
    ----------
    train : path or list of paths
        Training set: anything with energies and forces that ASE reads (extxyz, db, vasprun.xml, OUTCAR,
        traj), or MLIP .cfg.
    valid : path or list of paths
        Validation set. Without one, `valid_fraction` of the training set is held out.
    test : path or list of paths
        Test set: evaluated once after the fit, without influence on it.
    out : path
        Directory for everything that is written.
    species : list of elements
        Elements of the potential. Default: those of the training set.
    energy_key, forces_key, stress_key, virial_key : name
        Entry of the files that holds the label. Default: every usual name is tried.
    group_key : name
        Entry that names the group of a configuration, for errors by group and for a validation set with a
        share of each.
    index : slice
        Which frames of each file, as in ASE: ":" for all, "::10" for every tenth.
    format : name
        ASE's name of the file format, where the file name does not tell it.
    type_map : list of elements
        Elements of the types 0, 1, ... of MLIP .cfg files.
    """

    train: str | Sequence[str]
    valid: str | Sequence[str] | None = None
    test: str | Sequence[str] | None = None
    out: str = "fit"
    species: str | Sequence[str | int] | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    group_key: str = "config_type"
    index: str | int = ":"
    format: str | None = None
    type_map: str | Sequence[str | int] | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """Options of `etnpot.io.structures.read_structures`."""
        names = ("energy_key", "forces_key", "stress_key", "virial_key", "group_key", "index", "format")
        return {**{name: getattr(self, name) for name in names}, "species": as_list(self.type_map)}

    def files(self) -> dict[str, list[Path]]:
        """The files of each set that is there."""
        sets = {name: as_list(getattr(self, name)) for name in ("train", "valid", "test")}
        return {name: [Path(path) for path in paths] for name, paths in sets.items() if paths}


@dataclass(frozen=True)
class Option:
    """One setting.

    Attributes
    ----------
    name : str
        Key in the file; the flag is the same with dashes.
    annotation
        Its type.
    default
        `MISSING` where there is none.
    help : str
    section : str
        "data" or "fit".
    """

    name: str
    annotation: Any
    default: Any
    help: str
    section: str

    @property
    def is_switch(self) -> bool:
        """Whether it is true or false."""
        return self.annotation is bool

    @property
    def is_text(self) -> bool:
        """Whether a flag's value is taken as it stands."""
        return all(part in (str, type(None)) for part in alternatives(self.annotation))

    @property
    def is_path_list(self) -> bool:
        """Whether a flag takes several files."""
        return self.name in ("train", "valid", "test")


@cache
def options() -> tuple[Option, ...]:
    """Every setting, in the order of the dataclasses."""
    found = []
    for section, cls in (("data", DataSettings), ("fit", FitSettings)):
        hints, texts = typing.get_type_hints(cls), parameter_texts(cls)
        for field in fields(cls):
            text = _resolved(field.name, texts.get(field.name, ""), field.default)
            found.append(Option(field.name, hints[field.name], field.default, text, section))
    return tuple(found)


def _resolved(name: str, text: str, default: Any) -> str:
    """The text of a setting, with what `etnpot.ETN` says of those that it shares."""
    from etnpot.potential import ETN

    text = text.replace(", optional", "").replace("(optional) ", "")
    reference = "As for etnpot.ETN"
    if not text.startswith(reference):
        return text
    found = parameter_texts(ETN).get(name, "")
    if name in SIZES["medium"]:
        return re.split(r" Default\b", found)[0] + " Default: what size says."
    return found if default is None else re.split(r" Default\b", found)[0]


def parameter_texts(documented: object) -> dict[str, str]:
    """What a numpydoc docstring says of each parameter, in one line: "(type) description"."""
    lines = inspect.cleandoc(documented.__doc__ or "").splitlines()
    try:
        start = lines.index("Parameters") + 2
    except ValueError:
        return {}
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in lines[start:]:
        if line and not line.startswith(" "):
            head, _, kind = line.partition(" : ")
            if not re.fullmatch(r"\w+(, \w+)*", head):
                break
            names = head.split(", ")
            texts.update(dict.fromkeys(names, f"({kind})" if kind else ""))
        elif line.strip():
            texts.update({name: f"{texts[name]} {line.strip()}".strip() for name in names})
    return {
        name: text.replace("`", "").replace("etnpot.basis", "docs/theory") for name, text in texts.items()
    }


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def example() -> str:
    """A commented configuration file: what is required, and every other setting with its default."""
    lines = ["# Settings of a fit: etnpot fit config.yaml", "# Lines that begin with '#' show the defaults."]
    titles = {"data": "files and labels", "fit": "model and training"}
    section = help_before = ""
    for option in options():
        if option.section != section:
            section = option.section
            lines += ["", f"# {'-' * 20} {titles[section]} {'-' * 20}"]
        if option.help != help_before:
            help_before = option.help
            lines += ["", *(f"# {line}" for line in textwrap.wrap(option.help, 100))]
        if option.default is MISSING:
            lines.append(f"{option.name}: {option.name}.extxyz")
        else:
            lines.append(f"# {option.name}: {_yaml_text(option.default)}")
    return "\n".join(lines) + "\n"


def as_list(value: Any) -> list[Any] | None:
    """A single value as a list of one; None stays None."""
    if value is None:
        return None
    return [value] if isinstance(value, str | int | Path) else list(value)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def plain(value: Any) -> Any:
    """`value` with lists for tuples, as YAML has it."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _yaml_text(value: Any) -> str:
    text = yaml.safe_dump(plain(value), default_flow_style=True, allow_unicode=True).strip()
    return text.removesuffix("...").strip()
