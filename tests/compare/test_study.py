"""Studies: what is refused, with its place; leaks; sizes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write

import etnpot
from etnpot.compare.runner import plan
from etnpot.compare.sets import check_handed, fingerprint, read_data
from etnpot.compare.study import EXAMPLE, read_study
from etnpot.errors import DataError, SpecificationError
from etnpot.fitting.demo_data import emt_alloys

EXAMPLES = Path(__file__).parents[2] / "examples" / "compare"
WRONG = """\
name: wrong
dta: {}
data:
  a:
    train: missing.extxyz
    test: {t: {emt: {n: 4, symbols: [Cu], sed: 1}}}
models:
  - name: one
    type: etnpot
    settings: {size: smal}
  - name: one
    type: mtp
  - type: etnpot
budget: {second: 60}
seeds: 0
"""


def test_every_mistake_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(WRONG)
    with pytest.raises(SpecificationError) as caught:
        read_study("wrong.yaml")
    lines = str(caught.value).splitlines()
    assert "wrong.yaml, line 2: dta: no such setting; did you mean 'data'?" in lines
    assert "wrong.yaml, line 6: data.a.test.t.emt.sed: no such setting; did you mean 'seed'?" in lines
    assert "wrong.yaml, line 13: models.2.name: is missing" in lines
    assert len(lines) == 5
    assert "wrong.yaml, line 14: budget.second: no such setting; did you mean 'seconds'?" in lines
    assert "wrong.yaml, line 15: seeds: expected list, got 0" in lines
    text = WRONG.replace("dta: {}\n", "").replace("sed:", "seed:").replace("  - type: etnpot\n", "")
    Path("wrong.yaml").write_text(text.replace("second:", "parameters:").replace("seeds: 0", "seeds: [0, 0]"))
    with pytest.raises(SpecificationError) as caught:
        read_study("wrong.yaml")
    lines = str(caught.value).splitlines()
    assert "wrong.yaml, line 4: data.a.train: the file missing.extxyz does not exist" in lines
    assert any(
        line.startswith("wrong.yaml, line 9: models.0.settings: size: expected 'auto'") for line in lines
    )
    assert any("line 10: models.1.name: 'one' is the name of another model" in line for line in lines)
    assert any("line 11: models.1.type: no such type of model; did you mean" in line for line in lines)
    assert any("line 12: budget: one has no budget: give seconds or epochs" in line for line in lines)
    assert "wrong.yaml, line 13: seeds: expected a list without repetition" in lines


def test_paths_hold_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(EXAMPLE.replace("train.extxyz  ", "$STUDY_DATA/train.extxyz  "))
    Path("test.extxyz").touch()
    with pytest.raises(
        SpecificationError, match=r"\$STUDY_DATA/train.extxyz names an environment variable that is not set"
    ):
        read_study("study.yaml")
    Path("elsewhere").mkdir()
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(SpecificationError, match=r"the file .*elsewhere.train.extxyz does not exist"):
        read_study("study.yaml")
    Path("elsewhere/train.extxyz").touch()
    assert read_study("study.yaml").data["cuau"].train == "$STUDY_DATA/train.extxyz"


def test_a_missing_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="etnpot compare --example > "):
        read_study(tmp_path / "none.yaml")


def test_the_example_is_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        Path(f"{name}.extxyz").touch()
    Path("study.yaml").write_text(EXAMPLE)
    study = read_study("study.yaml")
    assert [model.name for model in study.models] == ["etnpot small", "MTP 12"]
    uncommented = "\n".join(
        line.replace("# ", "", 1) if line.lstrip().startswith(("# sizes", "# threads", "# kill")) else line
        for line in EXAMPLE.splitlines()
    )
    Path("study.yaml").write_text(uncommented)
    assert read_study("study.yaml").sizes == [20, 40, "all"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_come_along_can_be_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where their data are; each has its place on the page, and none has values without a source."""
    for variable in ("ETNPOT_DATA", "ETNPOT_ACAC", "ETNPOT_ZUO"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable, name in re.findall(r"\$(ETNPOT_\w+)/([\w/.]+xyz)", path.read_text()):
        (tmp_path / variable / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / variable / name).touch()
    study = read_study(path)
    assert {"etnpot"} < {model.type for model in study.models}
    page = (EXAMPLES.parents[1] / "docs" / "compare.md").read_text(encoding="utf-8")
    assert page.count(f"<!-- begin {path.stem} -->") == page.count(f"<!-- end {path.stem} -->") == 1


def test_what_cannot_be_is_refused(study: dict[str, Any]) -> None:
    study["properties"]["reference"] = "etnpot tiny"
    study["properties"]["crystals"][0]["lattice"] = "hpc"
    study["properties"]["crystals"][1].update(c=5.7, values={"C1": 3.0})
    study["properties"]["compute"].append("melting")
    study["data"]["cuni"]["test_fraction"] = 0.5
    study["models"][1]["settings"] = {"calculator": "emmt"}
    with pytest.raises(SpecificationError) as caught:
        read_study(study)
    text = str(caught.value)
    for part in ("properties.reference: expected the name of a model of type calculator",
                 "lattice: no such lattice", "1.c: expected a lattice constant in Å, of hcp alone",
                 "values.C1: no such property; did you mean", "values need a source",
                 "unknown melting", "and not both", "ASE knows no calculator 'emmt'"):  # fmt: skip
        assert part in text


def test_properties_need_something_to_compare_with(study: dict[str, Any]) -> None:
    del study["properties"]["reference"]
    with pytest.raises(
        SpecificationError, match="properties: there is nothing to compare with: give a reference"
    ):
        read_study(study)
    study["properties"]["crystals"][0].update(values={"C11": 170, "phonon X": 7.3}, source="a book")
    checked = read_study(study).properties
    assert checked is not None and checked.crystals[0].values == {"C11": 170.0, "phonon X": 7.3}
    assert checked.crystals[0].asked == {"name": "Cu", "lattice": "fcc", "symbols": ["Cu"], "a": 3.6}


def test_a_source_of_the_wrong_kind_lists_what_can_be(study: dict[str, Any]) -> None:
    study["data"]["cuni"]["train"] = 5
    with pytest.raises(SpecificationError, match=r"data.cuni.train: expected string or list .*, got 5"):
        read_study(study)


def test_a_number_of_parameters_is_asked_only_of_who_has_a_choice(study: dict[str, Any]) -> None:
    study["budget"] = {"epochs": 1, "parameters": 300}
    read_study(study)
    study["models"].append({"name": "m", "type": "motep"})
    with pytest.raises(SpecificationError, match="cannot be asked of motep"):
        read_study(study)


def test_a_leak_is_found_whatever_it_looks_like(tmp_path: Path, study: dict[str, Any]) -> None:
    """A test configuration in the training set, under other labels, wrapped by a lattice vector."""
    train = emt_alloys(6, symbols=("Cu", "Ni"), seed=0, repeat=(1, 1, 2))
    leaked = train[4].to_atoms()
    leaked.positions += np.array([1.0, 0.0, -2.0]) @ leaked.cell.array
    leaked.positions[0] += 1e-5
    leaked.calc.results["energy"] += 1.0
    leaked.info["config_type"] = "other"
    tests = [c.to_atoms() for c in emt_alloys(3, symbols=("Cu", "Ni"), seed=1, repeat=(1, 1, 2))]
    write(tmp_path / "train.extxyz", [c.to_atoms() for c in train])
    write(tmp_path / "test.extxyz", [*tests, leaked])
    study["data"] = {
        "a": {"train": str(tmp_path / "train.extxyz"), "test": {"t": str(tmp_path / "test.extxyz")}}
    }
    study["sizes"] = ["all"]
    with pytest.raises(
        DataError,
        match=r"the test set t has configurations .*test.extxyz, frame 3 is .*train.extxyz, frame 4",
    ):
        etnpot.compare(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write(tmp_path / "test.extxyz", tests)
    data = read_data("a", read_study(study).data["a"])
    held = data.tests["t"][1]
    with pytest.raises(DataError, match="about to be trained on"):
        check_handed([c.atoms for c in [*data.train, held]], data.tests.values())
    check_handed(data.train, data.tests.values())


def test_near_copies_are_on_one_side_when_the_test_set_is_held_out(study: dict[str, Any]) -> None:
    study["data"]["cuni"] = {
        "train": {"emt": {"n": 20, "symbols": ["Cu", "Ni"], "repeat": [1, 1, 2]}},
        "test_fraction": 0.25,
    }
    data = read_data("cuni", read_study(study).data["cuni"])
    assert len(data.tests["test"]) == 5 and len(data.train) == 15
    inside = {fingerprint(c) for c in data.train}
    assert not inside & {fingerprint(c) for c in data.tests["test"]}


def test_smaller_sets_are_parts_of_larger_ones(study: dict[str, Any]) -> None:
    data = read_data("cuni", read_study(study).data["cuni"])
    for seed in (0, 1):
        small, large = (
            {fingerprint(c) for part in data.chosen(n, seed) if part for c in part} for n in (6, 12)
        )
        assert len(small) == 6 and len(large) == 12 and small < large
        train, valid = data.chosen(12, seed)
        assert valid is not None and len(train) + len(valid) == 12
        assert train.species == data.species
    assert {fingerprint(c) for c in data.chosen(6, 0)[0]} != {fingerprint(c) for c in data.chosen(6, 1)[0]}


def test_sizes_that_do_not_exist_are_refused(study: dict[str, Any], tmp_path: Path) -> None:
    study["sizes"] = [17]
    with pytest.raises(DataError, match="16 training configurations, the study asks for 17"):
        etnpot.compare(study, tmp_path / "out")


def test_the_plan_has_small_sets_first(study: dict[str, Any]) -> None:
    study.update(seeds=[0, 1], sizes=["all", 8, 12])
    runs = [(run.model.name, run.size, run.seed) for run in plan(read_study(study))]
    assert runs[:2] == [("EMT", None, None), ("broken", None, None)]
    assert runs[2:] == [("etnpot tiny", size, seed) for size in (8, 12, "all") for seed in (0, 1)]
