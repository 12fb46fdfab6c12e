"""The study file: data sets, models, budgets, seeds, training-set sizes; checked before anything starts.

A file is YAML (`etnpot compare --example` prints one with everything explained); a script may pass the same as a mapping. All
mistakes are shown at once, each with its line.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from etnpot.compare.adapters import ADAPTERS, adapter_class
from etnpot.compare.properties import LATTICES, NUMBERS, PROPERTIES
from etnpot.errors import SpecificationError
from etnpot.fitting.demo_data import KINDS
from etnpot.io.settings_file import SettingsFile, read_settings_file

__all__ = [
    "EXAMPLE",
    "Budget",
    "DataSpec",
    "Emt",
    "ModelSpec",
    "PropertySpec",
    "Study",
    "located",
    "read_study",
]

EXAMPLE = """\
# A comparison of potentials: etnpot compare study.yaml --out my-study
name: copper and gold

# ------------------------------------------------ data: one or several data sets by name; the models are trained on each
data:
  cuau:
    train: train.extxyz        # a file or a list of files: anything with energies and forces that ASE reads, or MLIP .cfg;
                               # $NAME in it is an environment variable
    # valid: valid.extxyz      # otherwise valid_fraction of each training set is held out
    # valid_fraction: 0.1
    test:                      # test sets by name; every model is evaluated on all of them
      same: test.extxyz
      # hot: test_1200K.extxyz
    # test_fraction: 0.2       # instead of test: held out of the training data, a share of each group
    # energy_key: dft_energy   # as for etnpot fit: energy_key, forces_key, stress_key, virial_key, group_key, index, format,
    #                          # type_map
  # made:                      # data made on the spot: random alloys labelled with ASE's EMT (Ni Cu Pd Ag Pt Au Al)
  #   train: {emt: {n: 60, symbols: [Cu, Au], seed: 0}}
  #   test:                    # kinds: rattled, strained, hot; of hot the temperatures in K
  #     same: {emt: {n: 20, symbols: [Cu, Au], seed: 1}}
  #     hot: {emt: {n: 20, symbols: [Cu, Au], seed: 2, kinds: [hot], temperatures: [2000, 2500]}}

# ------------------------------------------------ models
models:
  - name: etnpot small
    type: etnpot               # settings are those of etnpot fit
    settings: {size: small}
  - name: MTP 12
    type: motep                # the types: 'etnpot compare --models' lists them with their settings
    settings: {level: 12}
    # budget: {seconds: 120}   # of this model alone
  # - name: MACE
  #   type: mace
  #   python: /path/to/bin/python   # instead of the environment that 'etnpot compare --install mace' makes
  # - name: EMT
  #   type: calculator         # any ASE calculator, for evaluation alone
  #   settings: {calculator: emt}

# ------------------------------------------------ what each training gets
budget:
  seconds: 60                  # time of a training
  # epochs: 100                # or passes over the data (etnpot, motep: steps): the same seeds then give the same figures
  # parameters: 2000           # about how many, for models that can be asked for a number (etnpot)
seeds: [0, 1]                  # each seed trains every model once more
# sizes: [20, 40, all]         # numbers of training configurations, for learning curves; validation included
# threads: 1
# timing_atoms: 256            # at least so many atoms are timed
# kill_after: 3600             # s; a step that takes longer has failed

# ------------------------------------------------ properties of crystals, against a calculator or given values
# properties:
#   reference: EMT             # name of a model of type calculator; may be left out where crystals have values
#   compute: [lattice, volume_curve, bulk, elastic, vacancy, formation, phonons]
#   crystals:                  # a: lattice constant in Å, about; of hcp also c
#     - {name: Cu, lattice: fcc, symbols: [Cu], a: 3.6}
#     - {name: Au, lattice: fcc, symbols: [Au], a: 4.06}
#     - {name: Cu3Au, lattice: l12, symbols: [Cu, Au], a: 3.75}
#     - name: Si               # the lattices: fcc bcc sc diamond hcp, of two elements b2 l12 rocksalt zincblende
#       lattice: diamond
#       symbols: [Si]
#       a: 5.43
#       values: {a: 5.431, C11: 166, C12: 64, C44: 80}   # what this crystal is compared with, Å, GPa, eV, THz
#       source: experiment at room temperature           # and where that comes from
"""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Emt(_Strict):
    """Random alloys labelled with EMT: see `etnpot.fitting.demo_data.emt_alloys`."""

    n: int
    symbols: list[str]
    seed: int = 0
    repeat: list[int] = [2, 2, 2]
    kinds: list[str] = ["rattled", "strained", "hot"]
    temperatures: list[float] = [600.0, 1500.0]


class Made(_Strict):
    """Data made on the spot."""

    emt: Emt


Source = str | list[str] | Made


class DataSpec(_Strict):
    """One data set."""

    train: Source
    valid: Source | None = None
    valid_fraction: float = 0.1
    test: dict[str, Source] | None = None
    test_fraction: float | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    group_key: str = "config_type"
    index: str | int = ":"
    format: str | None = None
    type_map: list[str] | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """Options of `etnpot.io.structures.read_structures`."""
        names = ("energy_key", "forces_key", "stress_key", "virial_key", "group_key", "index", "format")
        return {**{name: getattr(self, name) for name in names}, "species": self.type_map}


class Budget(_Strict):
    """What a training gets."""

    seconds: float | None = None
    epochs: int | None = None
    parameters: int | None = None


class ModelSpec(_Strict):
    """One model."""

    name: str
    type: str
    settings: dict[str, Any] = {}
    budget: Budget | None = None
    python: str | None = None

    @property
    def full_settings(self) -> dict[str, Any]:
        """Those given over the defaults."""
        return {**adapter_class(self.type).defaults, **self.settings}


class Crystal(_Strict):
    """A crystal; `values` are what it is compared with, by the names of `etnpot.compare.properties.NUMBERS`."""

    name: str
    lattice: str
    symbols: list[str]
    a: float
    c: float | None = None
    values: dict[str, float] = {}
    source: str | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """What `etnpot.compare.properties.all_properties` is told."""
        return self.model_dump(exclude={"values", "source"}, exclude_none=True)


class PropertySpec(_Strict):
    """Which properties, of what, against which model or the values of the crystals."""

    reference: str | None = None
    crystals: list[Crystal]
    compute: list[str] = list(PROPERTIES)


class Study(_Strict):
    """A checked study."""

    name: str = "comparison"
    data: dict[str, DataSpec]
    models: list[ModelSpec]
    budget: Budget = Budget()
    seeds: list[int] = [0]
    sizes: list[int | Literal["all"]] = ["all"]
    threads: int = 1
    timing_atoms: int = 256
    kill_after: float | None = None
    properties: PropertySpec | None = None

    def budget_of(self, model: ModelSpec) -> Budget:
        """Its own, or that of all."""
        return self.budget if model.budget is None else model.budget

    def model(self, name: str) -> ModelSpec:
        """By name."""
        return next(model for model in self.models if model.name == name)


def read_study(study: str | Path | Mapping[str, Any]) -> Study:
    """A study from its file, or from the same as a mapping. Paths in a file are relative to the working directory.

    Raises
    ------
    SpecificationError
        With one line for every mistake.
    """
    if isinstance(study, Mapping):
        return check_study(SettingsFile("the study", dict(study), {}))
    return check_study(
        read_settings_file(study, make="etnpot compare --example", what="study file", line="name: my study")
    )


def check_study(read: SettingsFile) -> Study:
    """A study from plain values; see `read_study`."""
    problems: list[tuple[tuple[str | int, ...], str]] = []
    study = None
    try:
        study = Study(**read.values)
    except ValidationError as error:
        problems = list(_type_problems(error, read.values))
    except TypeError as error:  # a name of a setting that is no text
        problems = [((), str(error))]
    if study is not None:
        problems = _value_problems(study)
    if problems:
        lines = []
        for key, text in problems:
            name = ".".join(str(part) for part in key)
            lines.append(f"{read.place(key)}: {name}: {text}" if name else f"{read.path}: {text}")
        raise SpecificationError("\n".join(dict.fromkeys(lines)))
    assert study is not None
    return study


def _type_problems(
    error: ValidationError, values: Mapping[str, Any]
) -> list[tuple[tuple[str | int, ...], str]]:
    """Unknown names, missing ones, wrong types: one for each place, the alternatives of a union together."""
    found: dict[tuple[str | int, ...], list[str]] = {}
    for detail in error.errors():
        key = _of_the_file(detail["loc"], values)
        if detail["type"] == "extra_forbidden":
            known = _names_beside(key)
            close = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.6)
            text = (
                f"no such setting; did you mean {close[0]!r}?"
                if close
                else f"no such setting; expected one of {', '.join(known)}"
            )
        elif detail["type"] == "missing":
            text = "is missing"
        else:
            what = re.sub(r"^Input should be (a valid |an? )?", "", detail["msg"])
            text = f"expected {what}, got {_shown(detail['input'])}"
        found.setdefault(key, []).append(text)
    problems = []
    for key, texts in found.items():
        if any(len(other) > len(key) and other[: len(key)] == key for other in found):
            continue  # one of several forms was meant, and what is wrong with it is told
        wanted = [re.sub(r", got .*", "", text) for text in texts if text.startswith("expected ")]
        if len(texts) > 1 and len(wanted) == len(texts):
            got = texts[0].partition(", got ")[2]
            alternatives = " or ".join(dict.fromkeys(text.removeprefix("expected ") for text in wanted))
            texts = [f"expected {alternatives}, got {got}"]
        problems += [(key, text) for text in dict.fromkeys(texts)]
    return problems


def _of_the_file(loc: Sequence[str | int], values: Any) -> tuple[str | int, ...]:
    """A place without the names that pydantic gives to the alternatives of a union."""
    key: list[str | int] = []
    at = values
    for k, part in enumerate(loc):
        inside = (isinstance(at, Mapping) and part in at) or (
            isinstance(at, list) and isinstance(part, int) and part < len(at)
        )
        if inside:
            key.append(part)
            at = at[part]
        elif k == len(loc) - 1 and isinstance(at, Mapping) and isinstance(part, str) and part.isidentifier():
            if part not in ("str", "int", "Made"):
                key.append(part)  # missing
    return tuple(key)


def _names_beside(key: Sequence[str | int]) -> list[str]:
    """The settings of the mapping in which `key` stands."""
    at = [part for part in key[:-1] if isinstance(part, str)]
    model: type[BaseModel] = Study
    if at[:1] == ["data"]:
        model = Emt if at[-1] == "emt" else DataSpec if len(at) == 2 else Made
    elif at[:1] == ["models"]:
        model = Budget if at[-1] == "budget" else ModelSpec
    elif at[:1] == ["budget"]:
        model = Budget
    elif at[:1] == ["properties"]:
        model = Crystal if at[-1] == "crystals" else PropertySpec
    return list(model.model_fields)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _value_problems(study: Study) -> list[tuple[tuple[str | int, ...], str]]:
    """What is of the right type but cannot be."""
    problems: list[tuple[tuple[str | int, ...], str]] = []

    def add(text: str, *key: str | int) -> None:
        problems.append((key, text))

    if not study.data:
        add("at least one data set is needed", "data")
    if not study.models:
        add("at least one model is needed", "models")
    for title, data in study.data.items():
        _check_data(title, data, add)
    names = [model.name for model in study.models]
    for k, model in enumerate(study.models):
        if names.index(model.name) != k:
            add(
                f"{model.name!r} is the name of another model; names are what the report shows",
                "models",
                k,
                "name",
            )
        _check_model(study, k, model, add)
    _check_budget(study.budget, add, "budget")
    given: dict[str, Sequence[Any]] = {"seeds": study.seeds, "sizes": study.sizes}
    for key, values in given.items():
        if not values or len(set(values)) != len(values):
            add("expected a list without repetition", key)
    if any(seed < 0 for seed in study.seeds):
        add("expected integers that are not negative", "seeds")
    if any(isinstance(size, int) and size < 2 for size in study.sizes):
        add("expected numbers of configurations (2 at least) or 'all'", "sizes")
    for key, number in (("threads", study.threads), ("timing_atoms", study.timing_atoms)):
        if number < 1:
            add(f"expected a positive number, got {number}", key)
    if study.kill_after is not None and not study.kill_after > 0:
        add(f"expected seconds, got {study.kill_after}", "kill_after")
    if study.properties is not None:
        _check_properties(study, study.properties, names, add)
    return problems


def _check_data(name: str, data: DataSpec, add: Any) -> None:
    if (data.test is None) == (data.test_fraction is None):
        add("give test sets ('test: {name: file}') or 'test_fraction: 0.2', and not both", "data", name)
    if data.test == {}:
        add("no test set is named", "data", name, "test")
    if data.test_fraction is not None and not 0 < data.test_fraction < 1:
        add(f"expected a number between 0 and 1, got {data.test_fraction}", "data", name, "test_fraction")
    if not 0 <= data.valid_fraction < 0.9:
        add(f"expected a number from 0 to 0.9, got {data.valid_fraction}", "data", name, "valid_fraction")
    if data.stress_key is not None and data.virial_key is not None:
        add("stress_key is given as well; keep one of them", "data", name, "virial_key")
    sources: dict[tuple[str, ...], Source | None] = {("train",): data.train, ("valid",): data.valid}
    sources.update({("test", key): source for key, source in (data.test or {}).items()})
    for key, source in sources.items():
        if isinstance(source, Made):
            made = source.emt
            if made.n < 1 or len(made.repeat) != 3 or min(made.repeat) < 1:
                add("expected n > 0 configurations and three numbers of cells", "data", name, *key)
            if not made.kinds or not set(made.kinds) <= set(KINDS):
                add(f"expected some of {', '.join(KINDS)}", "data", name, *key, "emt", "kinds")
            if len(made.temperatures) != 2 or not 0 < made.temperatures[0] <= made.temperatures[1]:
                add(
                    "expected two temperatures, the lower one first",
                    "data",
                    name,
                    *key,
                    "emt",
                    "temperatures",
                )
            continue
        for path in [source] if isinstance(source, str) else source or []:
            if "$" in str(located(path)):
                add(f"{path} names an environment variable that is not set", "data", name, *key)
            elif not located(path).is_file():
                add(f"the file {located(path)} does not exist", "data", name, *key)


def located(path: str) -> Path:
    """The path of a data file, with the values of the environment variables (``$NAME``) and the home directory (``~``)."""
    return Path(os.path.expandvars(path)).expanduser()


def _check_model(study: Study, k: int, model: ModelSpec, add: Any) -> None:
    if model.type not in ADAPTERS:
        close = difflib.get_close_matches(model.type, ADAPTERS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        add(f"no such type of model{hint}; the types are {', '.join(ADAPTERS)}", "models", k, "type")
        return
    adapter = adapter_class(model.type)
    known = adapter.known()
    right = True
    for name, value in model.settings.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the settings are {', '.join(known)}"
            add(f"{model.type} has no such setting; {hint}", "models", k, "settings", name)
            right = False
        elif not _same_kind(value, adapter.defaults.get(name)):
            add(
                f"expected something like {adapter.defaults[name]!r}, got {value!r}",
                "models",
                k,
                "settings",
                name,
            )
            right = False
    if right:
        try:
            adapter.check(model.full_settings)
        except (ValueError, TypeError) as error:
            add(str(error), "models", k, "settings")
    if model.python is not None and not Path(model.python).is_file():
        add(f"the interpreter {model.python} does not exist", "models", k, "python")
    if model.budget is not None:
        _check_budget(model.budget, add, "models", k, "budget")
    budget = study.budget_of(model)
    if adapter.trains:
        key = ("budget",) if model.budget is None else ("models", k, "budget")
        if budget.seconds is None and budget.epochs is None:
            add(f"{model.name} has no budget: give seconds or epochs", *key)
        if budget.parameters is not None and not adapter.sized:
            add(
                f"{model.name}: a number of parameters cannot be asked of {model.type}; choose its settings, and give it a "
                "budget of its own without parameters",
                *key,
            )


def _same_kind(value: Any, default: Any) -> bool:
    """Whether a value has the type of a default; None stands for anything."""
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, type(default))


def _check_budget(budget: Budget, add: Any, *key: str | int) -> None:
    if budget.seconds is not None and not budget.seconds > 0:
        add(f"expected a positive number, got {budget.seconds}", *key, "seconds")
    for name in ("epochs", "parameters"):
        value = getattr(budget, name)
        if value is not None and value < 1:
            add(f"expected a positive number, got {value}", *key, name)


def _check_properties(study: Study, spec: PropertySpec, names: Sequence[str], add: Any) -> None:
    if spec.reference is None:
        if not any(entry.values for entry in spec.crystals):
            add(
                "there is nothing to compare with: give a reference (the name of a model of type calculator), or values of "
                "the crystals and their source",
                "properties",
            )
    elif spec.reference not in names or study.model(spec.reference).type != "calculator":
        add(
            f"expected the name of a model of type calculator, got {spec.reference!r}",
            "properties",
            "reference",
        )
    unknown = sorted(set(spec.compute) - set(PROPERTIES))
    if unknown:
        add(
            f"unknown {', '.join(unknown)}; the properties are {', '.join(PROPERTIES)}",
            "properties",
            "compute",
        )
    if len({entry.name for entry in spec.crystals}) != len(spec.crystals):
        add("two crystals have the same name", "properties", "crystals")
    for k, entry in enumerate(spec.crystals):
        if entry.lattice not in LATTICES:
            add(
                f"no such lattice; the lattices are {', '.join(LATTICES)}",
                "properties",
                "crystals",
                k,
                "lattice",
            )
        elif len(entry.symbols) != LATTICES[entry.lattice]:
            add(
                f"{entry.lattice} has {LATTICES[entry.lattice]} element(s)",
                "properties",
                "crystals",
                k,
                "symbols",
            )
        if not entry.a > 0:
            add("expected a lattice constant in Å", "properties", "crystals", k, "a")
        if entry.c is not None and (entry.lattice != "hcp" or not entry.c > 0):
            add("expected a lattice constant in Å, of hcp alone", "properties", "crystals", k, "c")
        for name in entry.values:
            if name not in NUMBERS:
                close = difflib.get_close_matches(name, NUMBERS, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the properties are {', '.join(NUMBERS)}"
                add(f"no such property; {hint}", "properties", "crystals", k, "values", name)
        if entry.values and not entry.source:
            add("values need a source: 'source: where they come from'", "properties", "crystals", k)
