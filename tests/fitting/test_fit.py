"""The whole fit as one call: what goes in, what comes out, what is refused before anything starts."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import write

import etnpot
from etnpot.errors import DataError, RunDirectoryError, SpeciesError, SpecificationError
from etnpot.fitting.checkpoint import OUTPUTS
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import SYMBOLS, emt_alloys, fcc_alloy
from etnpot.fitting.evaluation import evaluate, predict
from etnpot.fitting.fit import Communicator, FitResult, fit, one_line, prepare_data
from etnpot.fitting.report import Code, Figure, Heading, Table, Text, to_html, to_markdown
from etnpot.fitting.settings import FitSettings

Tiny = dict[str, Any]


@pytest.fixture(scope="module")
def test_set() -> DataSet:
    return emt_alloys(3, symbols=("Ni", "Cu"), seed=9, repeat=(1, 1, 2))


@pytest.fixture(scope="module")
def finished(
    alloys: DataSet, test_set: DataSet, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> FitResult:
    """A complete fit in a directory, with a validation set split off and a test set."""
    return fit(alloys, test=test_set, out=tmp_path_factory.mktemp("fit") / "run", **tiny)


# --------------------------------------------------------------------------------------------- what comes out


def test_the_result_agrees_with_itself(finished: FitResult, alloys: DataSet, test_set: DataSet) -> None:
    assert list(finished.metrics) == ["train", "valid", "test"]
    assert finished.data.was_split
    assert len(finished.data.train) + len(finished.data.valid or ()) == len(alloys)
    assert finished.reason == "polish steps" and finished.seconds > 0
    assert len(finished.history) == 2 + 1 + 4
    recomputed = evaluate(finished.potential, test_set, threads=1)
    assert recomputed.to_json() == finished.metrics["test"].to_json()
    best = min(record["selection_loss"] for record in finished.history)
    assert best < 0.5 * finished.history[0]["selection_loss"]  # it learns


def test_the_potential_file_says_where_it_comes_from(finished: FitResult) -> None:
    assert finished.out is not None
    loaded = etnpot.load(finished.out / "potential.etn")
    np.testing.assert_array_equal(loaded.parameters, finished.potential.parameters)
    provenance = loaded.provenance
    for name, part in finished.data.sets.items():
        assert provenance["data"][name]["sha256"] == part.hash
        assert provenance["errors"][name]["forces_rmse"] == finished.metrics[name].forces.rmse
    assert provenance["settings"]["cutoff"] == 3.6 and provenance["versions"]["etnpot"] == etnpot.__version__
    assert provenance["finished"] is True and provenance["valid_was_split_off"] is True
    assert re.match(r"\d{4}-\d\d-\d\dT", provenance["date"])
    assert str(finished.out) not in json.dumps(dict(provenance)), "a potential must not carry paths"


def test_everything_is_written(finished: FitResult) -> None:
    assert finished.out is not None
    # config.yaml belongs to the command line
    assert {p.name for p in finished.out.iterdir()} == set(OUTPUTS) - {"config.yaml"}
    lines = (finished.out / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == json.loads(json.dumps(finished.history))
    metrics = json.loads((finished.out / "metrics.json").read_text())
    assert metrics["test"]["forces"]["rmse"] == finished.metrics["test"].forces.rmse
    assert metrics["n_parameters"] == finished.potential.n_parameters
    log = (finished.out / "fit.log").read_text()
    assert all(one_line(record) in log for record in finished.history)
    for name in ("parity.png", "learning.png", "groups.png"):
        assert (finished.out / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_holds_the_numbers_and_needs_no_other_file(finished: FitResult) -> None:
    assert finished.out is not None
    markdown = (finished.out / "report.md").read_text()
    page = (finished.out / "report.html").read_text()
    rmse = f"{finished.metrics['test'].forces.rmse:.4g}"
    for text in (markdown, page):
        assert rmse in text and "polish steps" in text and "sha256" in text and "Fit of Ni-Cu" in text
        assert f"{finished.potential.n_parameters} parameters" in text
        assert "etnpot.fit(train, test=test, cutoff=3.6" in text or "etnpot.fit(train, test=test" in text
        assert str(finished.out) not in text
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    for heading in ("Errors", "Data", "Errors by element", "Errors by group", "Model", "To repeat it"):
        assert f"## {heading}" in markdown


def test_the_two_ways_to_write_a_report_escape_what_they_must(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    blocks = [
        Heading("A < B", 1),
        Text("a & b"),
        Code("x < y"),
        Table(["one", "two"], [["a|b", "<c>"]]),
        Figure("a.png", "it's"),
    ]
    page = to_html(blocks, tmp_path)
    assert "<h1>A &lt; B</h1>" in page and "a &amp; b" in page and "<pre>x &lt; y</pre>" in page
    assert "&lt;c&gt;" in page and "base64,aW1hZ2U=" in page and "<c>" not in page
    markdown = to_markdown(blocks)
    assert (
        "| a\\|b | <c> |" in markdown and "```text\nx < y\n```" in markdown and "![it's](a.png)" in markdown
    )


# ----------------------------------------------------------------------------------------------- what goes in


def test_data_sets_atoms_and_files_give_the_same_bits(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    settings = tiny | {"polish_steps": 1}
    atoms = [labelled.to_atoms() for labelled in alloys]
    write(tmp_path / "a.traj", atoms)  # binary: no rounding
    results = [
        fit(data, **settings)
        for data in (alloys, list(alloys), atoms, str(tmp_path / "a.traj"), [tmp_path / "a.traj"])
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.potential.parameters, results[0].potential.parameters)
    assert results[0].out is None


def test_the_test_set_has_no_influence(alloys: DataSet, test_set: DataSet, tiny: Tiny) -> None:
    settings = FitSettings(**tiny)
    with_test = fit(alloys, test=test_set, settings=settings, polish_steps=1)
    without = fit(alloys, settings=settings, polish_steps=1)
    np.testing.assert_array_equal(with_test.potential.parameters, without.potential.parameters)
    assert with_test.settings.polish_steps == 1, "an override wins over settings"


def test_no_validation_set_if_none_is_wanted(alloys: DataSet, tiny: Tiny) -> None:
    result = fit(alloys, valid_fraction=0.0, **tiny | {"polish_steps": 1})
    assert list(result.metrics) == ["train"] and len(result.data.train) == len(alloys)


@pytest.mark.slow
def test_a_constant_virial_in_the_references_changes_no_potential(
    alloys: DataSet, tiny: Tiny, tmp_path: Path
) -> None:
    shifted = []
    for labelled in alloys:
        assert labelled.stress is not None
        stress = np.array(labelled.stress)
        stress[:3] += 0.3 * labelled.n_atoms / labelled.volume
        shifted.append(replace(labelled, stress=stress))
    plain, result = (
        fit(data[2:], data[:2], out=tmp_path / name, **tiny | {"polish_steps": 1})
        for name, data in (("plain", alloys), ("shifted", DataSet(shifted)))
    )
    expected = {symbol: p + 0.3 for symbol, p in plain.virial_shift.items()}
    assert result.virial_shift == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(result.potential.parameters, plain.potential.parameters, rtol=1e-6, atol=1e-8)
    assert "GPa of isotropic stress" in (tmp_path / "shifted" / "report.md").read_text(encoding="utf-8")


def test_a_validation_set_that_is_given_is_used(alloys: DataSet, tiny: Tiny) -> None:
    result = fit(alloys[:10], alloys[10:], **tiny | {"polish_steps": 1})
    assert not result.data.was_split and result.data.valid is not None and len(result.data.valid) == 2


def test_extra_species_are_possible_and_noticed(
    alloys: DataSet, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "etnpot"):
        result = fit(alloys, species=["Ni", "Cu", "Ag"], **tiny | {"polish_steps": 1})
    assert result.potential.species == (28, 29, 47)
    assert "no configuration holds Ag" in caplog.text


def bare(n: int = 2) -> list[Atoms]:
    return [Atoms("Ni2", positions=[[0, 0, 0], [2.5, 0, 0]], cell=[9, 9, 9], pbc=True) for _ in range(n)]


def silver() -> DataSet:
    return emt_alloys(1, symbols=("Ag",), seed=0, repeat=(1, 1, 1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train": []}, DataError, "the training set is empty"),
        ({"train": 3}, DataError, "training set: expected a DataSet, Atoms .* got int"),
        ({"train": [1, 2]}, DataError, "expected a DataSet"),
        ({"train": "nowhere.xyz"}, DataError, "nowhere.xyz does not exist"),
        ({"train": bare()}, DataError, "no energies and no forces"),
        ({"valid": silver}, DataError, r"validation set contains elements .* lacks: Ag"),
        ({"test": silver}, DataError, r"test set contains elements .* lacks: Ag"),
        ({"species": ["Ni"]}, DataError, "species: the training set holds Cu"),
        ({"species": ["Ni", "Xx"]}, SpeciesError, "'Xx' is not a chemical symbol"),
        ({"cutof": 4.0}, SpecificationError, "unknown settings .*cutof"),
        ({"l_max": 3}, SpecificationError, "channels: expected 4"),
        ({"resume": True, "force": True}, RunDirectoryError, "give one of them"),
    ],
)
def test_mistakes_are_found_before_anything_starts(
    alloys: DataSet, tiny: Tiny, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    made = {key: value() if callable(value) else value for key, value in change.items()}
    arguments: dict[str, Any] = {"train": alloys, "out": tmp_path / "run", **tiny, **made}
    with pytest.raises(error, match=message):
        fit(**arguments)
    assert not (tmp_path / "run").exists(), "a directory made in vain is removed"


def test_atoms_in_one_place_are_refused_and_an_earlier_fit_survives(
    alloys: DataSet, tiny: Tiny, tmp_path: Path
) -> None:
    fit(alloys, out=tmp_path / "run", **tiny | {"polish_steps": 0})
    before = (tmp_path / "run" / "checkpoint.etnfit").read_bytes()
    bad = alloys[0].to_atoms()
    results = dict(bad.calc.results)
    bad.positions[1] = bad.positions[0]
    bad.calc = type(bad.calc)(bad, **results)
    with pytest.raises(etnpot.errors.StructureError, match=r"spot|apart|same"):
        fit([*[a.to_atoms() for a in alloys], bad], out=tmp_path / "run", force=True, **tiny)
    assert (tmp_path / "run" / "checkpoint.etnfit").read_bytes() == before


# ------------------------------------------------------------------------------------------ several processes


def test_rank_0_alone_writes_and_calls_back(alloys: DataSet, tiny: Tiny, tmp_path: Path) -> None:
    calls: list[int] = []
    alone = Communicator(rank=1, size=2, reduce=None, broadcast=lambda value: value)
    settings = tiny | {"polish_steps": 1}
    result = fit(
        alloys, out=tmp_path / "run", communicator=alone, callback=lambda r: calls.append(1), **settings
    )
    assert not (tmp_path / "run").exists() and not calls and result.out is None


def test_what_rank_0_raises_is_raised_everywhere() -> None:
    sent: list[Any] = []
    root = Communicator(rank=0, size=2, broadcast=lambda value: sent.append(value) or value)
    with pytest.raises(DataError, match="no data"):
        root.on_root(lambda: (_ for _ in ()).throw(DataError("no data")))
    other = Communicator(rank=1, size=2, broadcast=lambda value: sent[0])
    with pytest.raises(DataError, match="no data"):
        other.on_root(lambda: pytest.fail("only rank 0 works"))
    assert root.on_root(lambda: 7) == 7


# ---------------------------------------------------------------------------------- predictions, example data


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_predictions_do_not_depend_on_threads(finished: FitResult, test_set: DataSet, threads: int) -> None:
    predictions = predict(finished.potential, test_set, threads=threads)
    for (energy, forces, stress), labelled in zip(predictions, test_set, strict=True):
        atoms = labelled.atoms.copy()
        atoms.calc = etnpot.ETNCalculator(finished.potential, threads=1)
        assert energy == atoms.get_potential_energy()
        np.testing.assert_array_equal(forces, atoms.get_forces())
        np.testing.assert_array_equal(stress, atoms.get_stress())


def test_a_molecule_has_no_stress(finished: FitResult) -> None:
    cluster = Atoms("NiCu", positions=[[0, 0, 0], [2.4, 0, 0]])
    cluster.calc = EMT()
    cluster.get_forces()
    ((energy, forces, stress),) = predict(finished.potential, DataSet.from_atoms(cluster))
    assert energy is not None and forces is not None and stress is None


def test_example_data_are_what_emt_says() -> None:
    data = emt_alloys(6, seed=3, repeat=(1, 1, 2))
    assert data.groups == {"hot": 2, "rattled": 2, "strained": 2}
    assert emt_alloys(6, seed=3, repeat=(1, 1, 2)).hash == data.hash != emt_alloys(6, seed=4).hash
    for labelled in data:
        atoms = labelled.atoms.copy()
        atoms.calc = EMT()
        assert labelled.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(labelled.forces, atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(labelled.stress, atoms.get_stress(), atol=1e-12)


def test_example_alloys(rng: np.random.Generator) -> None:
    atoms = fcc_alloy(rng, repeat=(2, 2, 2), n_elements=6)
    assert set(atoms.symbols) <= set(SYMBOLS) and len(set(atoms.symbols)) > 3 and len(atoms) == 32
    with pytest.raises(SpeciesError, match="'Fe'"):
        fcc_alloy(rng, ("Fe",))
    with pytest.raises(SpecificationError, match="at least one"):
        emt_alloys(0)


def test_prepared_data_are_taken_as_they_are(alloys: DataSet, tiny: Tiny) -> None:
    settings = FitSettings(**tiny | {"polish_steps": 0})
    data = prepare_data(alloys, None, None, settings)
    assert fit(data, settings=settings).data is data
