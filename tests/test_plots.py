"""Figures: what they contain, that they are written, and what is refused."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from etnpot.errors import DataError, InstallationError, SpecificationError
from etnpot.io.structures import Labelled
from etnpot.metrics import Prediction, evaluate_errors
from etnpot.plots import plot_group_errors, plot_learning_curves, plot_parity


def labelled(
    rng: np.random.Generator, n: int, n_atoms: int = 4, group: str = "a"
) -> tuple[list[Labelled], list[Prediction]]:
    data: list[Labelled] = []
    predictions: list[Prediction] = []
    for _ in range(n):
        atoms = Atoms("Cu" * n_atoms, rng.standard_normal((n_atoms, 3)))
        energy, forces, stress = (
            float(rng.normal()),
            rng.standard_normal((n_atoms, 3)),
            rng.standard_normal(6),
        )
        data.append(Labelled(atoms, energy, forces, stress, group=group))
        predictions.append((energy + 0.01, forces + 0.1 * rng.standard_normal(forces.shape), stress * 1.01))
    return data, predictions


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


def test_parity_of_small_sets_shares_panels(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "parity.png"
    sets = {"train": labelled(rng, 5), "valid": labelled(rng, 3)}
    figure = plot_parity(sets, path, title="Cu", reference_energies={29: -0.1})
    assert is_png(path)
    assert len(figure.axes) == 3
    legend = figure.axes[0].get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["train: MAE 2.5, RMSE 2.5 meV/atom", "valid: MAE 2.5, RMSE 2.5 meV/atom"]
    for axis in figure.axes:
        assert axis.get_xlim() == axis.get_ylim()


def test_parity_of_large_sets_is_a_density_per_set(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "parity.png"
    sets = {"train": labelled(rng, 3, 400), "test": labelled(rng, 2, 4)}
    figure = plot_parity(sets, path)
    assert is_png(path)
    assert len(figure.axes) == 7, "two rows of three, and one colour bar"


def test_parity_leaves_out_what_is_missing(rng: np.random.Generator) -> None:
    data, predictions = labelled(rng, 3)
    figure = plot_parity({"test": (data, [(p[0], None, None) for p in predictions])})
    assert len(figure.axes) == 1
    with pytest.raises(DataError, match="nothing to plot"):
        plot_parity({"test": (data, [(None, None, None)] * 3)})
    with pytest.raises(DataError, match="atomic number 29"):
        plot_parity({"test": (data, predictions)}, reference_energies={28: 0.0})


def test_parity_survives_predictions_that_are_not_finite(tmp_path: Path, rng: np.random.Generator) -> None:
    data, predictions = labelled(rng, 2)
    predictions[0] = (float("nan"), np.full((4, 3), np.inf), None)
    plot_parity({"train": (data, predictions)}, tmp_path / "parity.png")
    assert is_png(tmp_path / "parity.png")


@pytest.mark.parametrize("nested", [True, False])
def test_learning_curves(tmp_path: Path, nested: bool) -> None:
    history: list[dict[str, Any]] = []
    for k in range(12):
        entry: dict[str, Any] = {"sweep": k // 4, "core": k % 4}
        for name, floor in (("train", 0.01), ("valid", 0.02)):
            errors = {f"{q}_rmse": floor + 0.5 ** (k + 1) for q in ("energy", "forces")}
            if nested:
                entry[name] = errors
            else:
                entry.update({f"{name}_{key}": value for key, value in errors.items()})
        history.append(entry)
    figure = plot_learning_curves(history, tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")
    assert len(figure.axes) == 2
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata()[0], 1e3 * 0.51)


def test_learning_curves_with_gaps() -> None:
    history = [{"train_forces_mae": 0.3}, {"train_forces_mae": None}, {"train_forces_mae": 0.1}]
    figure = plot_learning_curves(history, measure="mae")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [0, 2])
    with pytest.raises(DataError, match="train_forces_rmse"):
        plot_learning_curves(history)
    with pytest.raises(DataError, match="none"):
        plot_learning_curves([])
    with pytest.raises(SpecificationError):
        plot_learning_curves(history, measure="max")


def test_group_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    a, b = labelled(rng, 2, group="hot"), labelled(rng, 2, group="a surface with a long name")
    both = evaluate_errors([*a[0], *b[0]], [*a[1], *b[1]])
    figure = plot_group_errors(both, tmp_path / "groups.png")
    assert is_png(tmp_path / "groups.png")
    assert [len(axis.patches) for axis in figure.axes] == [2, 2, 2]
    figure = plot_group_errors({"train": both, "test": evaluate_errors(*a)}, measure="mae", title="t")
    assert [len(axis.patches) for axis in figure.axes] == [3, 3, 3]
    with pytest.raises(DataError, match="nothing to plot"):
        plot_group_errors(evaluate_errors([], []))
    with pytest.raises(SpecificationError):
        plot_group_errors(both, measure="r2")


def test_missing_matplotlib_says_what_to_install(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **options)

    sets = {"train": labelled(rng, 1)}
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InstallationError, match="pip install matplotlib"):
        plot_parity(sets)


def test_importing_does_not_load_matplotlib() -> None:
    code = "import sys, etnpot.plots, etnpot.metrics; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
