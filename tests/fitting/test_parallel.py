"""Two ranks under a real MPI launcher give the fit of one rank.

This file is the program of the ranks as well: ``mpirun -n 2 python tests/fitting/test_parallel.py FILE`` runs
every case of `CASES` through `etnpot.fitting.parallel` and writes what rank 0 found to FILE. There are five
training configurations of unequal size, so that the shares are uneven, and one of the two ranks has no
validation configuration at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from etnpot.errors import InstallationError
from etnpot.fitting import parallel, samples
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys, spring_molecules
from etnpot.fitting.fitter import Fitter
from etnpot.fitting.problem import Problem
from etnpot.fitting.settings import FitSettings
from etnpot.fitting.start import initial_potential, initial_spec

MODEL: dict[str, Any] = {
    "cutoff": 4.0, "order": 2, "l_max": 1, "channels": 2, "ranks": 2, "radial_size": 4, "species_rank": 2,
    "threads": 1,
}  # fmt: skip

#: Name -> settings: every kind of step, and every place where ranks have to agree.
CASES: dict[str, dict[str, Any]] = {
    "one-site, evidence, polish": {"sweeps": 2, "polish_steps": 2},
    "two-site": {"sweeps": 1, "two_site": True, "rank_tolerance": 0.05, "polish_steps": 1},
    "enriched, fixed ridge": {"sweeps": 1, "enrichment": 2, "ridge": 1e-2, "polish_steps": 1},
    "robust": {"sweeps": 1, "robust": 1.5, "ridge": 1e-2, "polish_steps": 2},
    "l-bfgs": {"sweeps": 1, "method": "l-bfgs", "ridge": 0.1, "polish_steps": 1},
    "sampled": {"sweeps": 1, "ridge": 1e-2, "polish_steps": 2},
    "molecules": {"sweeps": 1, "polish_steps": 2, "growth": False},
}
#: Rows per parameter of the first sample in the last case: it takes one of the five configurations, so that one rank has
#: none.
FEW_ROWS = 0.8
N_RANKS = 2


def training_set() -> DataSet:
    """Five alloys of two to six cubic cells."""
    cells = [(1, 1, 2), (1, 1, 3), (1, 2, 2), (1, 1, 4), (1, 2, 3)]
    parts = [
        emt_alloys(1, symbols=("Cu", "Ag"), seed=n, repeat=cell) for n, cell in enumerate(cells, start=3)
    ]
    return DataSet([configuration for part in parts for configuration in part])


def validation_set() -> DataSet:
    """One configuration: fewer than ranks."""
    return emt_alloys(1, symbols=("Cu", "Ag"), seed=11, repeat=(1, 1, 2))


def outcomes(
    reduce: Callable[[NDArray[np.float64]], None] | None, shard: tuple[int, int]
) -> dict[str, NDArray[np.float64]]:
    """Of each case: the best parameters, and the numbers of every record."""
    train, valid = training_set(), validation_set()
    found = {}
    for name, options in CASES.items():
        rows = FEW_ROWS if name == "sampled" else samples._ROWS_PER_PARAMETER
        if name == "molecules":
            train, valid = spring_molecules("CH3OH", 5), spring_molecules("CH3OH", 1, seed=1)
        with (
            mock.patch.object(samples, "_ROWS_PER_PARAMETER", rows),
            mock.patch.multiple("etnpot.fitting.moves", _DYNAMICS=1e4, _RUN_STEPS=(30, 30)),
            mock.patch("etnpot.fitting.fitter._MATURE", 1.0),
        ):
            fitter = Fitter(train, valid, FitSettings(**MODEL, **options), reduce=reduce, shard=shard)
            fitter.run()
            if name == "sampled":
                assert fitter._sample_size == 1
                assert len(fitter._working_problem().data) <= 1
            if name == "molecules":
                assert sum(record.get("falls", 0) for record in fitter.history) > 0
        found[f"{name}: parameters"] = fitter.best.parameters
        repulsion = fitter.bounded_best().spec.repulsion
        assert repulsion is not None
        found[f"{name}: radii"] = np.array([repulsion.inner, repulsion.outer])
        found[f"{name}: history"] = np.array([_numbers(record) for record in fitter.history])
        found[f"{name}: configurations"] = np.array([float(len(fitter._problem))])
    return found


def _numbers(record: dict[str, Any]) -> list[float]:
    errors = [record[part][key] for part in ("train", "valid") for key in sorted(record[part])]
    return [*errors, float(record["n_parameters"]), record["selection_loss"]]


def launcher() -> str:
    """The ``mpirun`` installed with this interpreter; another one may belong to another MPI library."""
    beside = Path(sys.executable).with_name("mpirun")
    assert beside.is_file(), f"expected mpirun beside {sys.executable}: pip install 'etnpot[mpi]'"
    return str(beside)


def mpirun(arguments: list[str], *, timeout: float = 240.0) -> str:
    """Standard output of this interpreter on `N_RANKS` ranks of this machine, without a network."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "OMP_NUM_THREADS": "1",
        "HYDRA_LAUNCHER": "fork",
        "HYDRA_IFACE": "lo",
    }
    command = [launcher(), "-n", str(N_RANKS), sys.executable, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_command_line_under_mpirun(tmp_path: Path) -> None:
    from ase.io import write

    data = tmp_path / "train.extxyz"
    write(data, [labelled.to_atoms() for labelled in training_set()])
    losses = {}
    for name, start in (("one", [sys.executable]), ("two", [launcher(), "-n", "2", sys.executable])):
        command = [*start, "-m", "etnpot", "fit", "--train", str(data), "--out", str(tmp_path / name)]
        command += [
            "--size",
            "60",
            "--cutoff",
            "4.0",
            "--sweeps",
            "1",
            "--polish-steps",
            "1",
            "--valid-fraction",
            "0.3",
        ]
        environment = {**os.environ, "HYDRA_LAUNCHER": "fork", "HYDRA_IFACE": "lo", "ETNPOT_NUM_THREADS": "2"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=240, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        history = (tmp_path / name / "history.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = [json.loads(line)["selection_loss"] for line in history]
        assert (tmp_path / name / "potential.etn").is_file()
    np.testing.assert_allclose(losses["one"], losses["two"], rtol=1e-8)
    # a finished fit is refused by the first rank, and no rank is left waiting
    again = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert again.returncode == 2
    assert again.stderr.count("holds a finished fit") == 1


@pytest.mark.slow
def test_two_ranks_give_the_fit_of_one(tmp_path: Path) -> None:
    alone = outcomes(None, (0, 1))
    path = tmp_path / "ranks.npz"
    mpirun([str(Path(__file__).resolve()), str(path)])
    with np.load(path) as together:
        assert set(together) == set(alone)
        for name, expected in alone.items():
            got = together[name]
            if name.endswith(": configurations"):
                if name.startswith(
                    "molecules"
                ):  # falls are as many as dynamics found; an odd one is rank 0's
                    assert 0 <= got - expected // 2 <= 1
                    continue
                # five alloys, and five dimers of three pairs of elements, of which rank 0 holds the first, third, ... each
                assert expected == 5 + 15 and got == 3 + 8
                continue
            assert got.shape == expected.shape, name
            scale = np.abs(expected).max(axis=0 if name.endswith(": history") else None)
            # rounding, times the condition of the equations: the evidence has a ridge near 1e-10 of the largest eigenvalue
            bound = 1e-7 if "evidence" in name else 2e-8
            assert np.all(np.abs(got - expected) <= bound * scale), (name, np.abs(got - expected) / scale)


@pytest.mark.parametrize("work", ["loss", "gradient"])
def test_a_rank_without_configurations_sums_floats(work: str) -> None:
    types = []
    train, settings = training_set(), FitSettings(**MODEL)
    potential = initial_potential(train, settings, initial_spec(train, settings))
    getattr(Problem([], reduce=lambda array: types.append(array.dtype)), work)(potential)
    assert types
    assert set(types) == {np.dtype(np.float64)}


def test_the_launcher_is_seen() -> None:
    # one write for each rank: those of a line and its end may interleave
    code = "import os; from etnpot.fitting.parallel import launched_ranks; os.write(1, b'%d\\n' % launched_ranks())"
    assert mpirun(["-c", code]).split() == [str(N_RANKS)] * N_RANKS


def test_without_a_launcher_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in parallel._SIZE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert parallel.launched_ranks() == 1
    monkeypatch.setenv("PMI_SIZE", "1")
    assert parallel.launched_ranks() == 1
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert parallel.launched_ranks() == 4


def test_a_missing_mpi4py_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(InstallationError, match=r"etnpot\[mpi\]"):
        parallel.mpi_world()


def main(path: str) -> None:
    """What each rank does."""
    rank, size, reduce, broadcast = parallel.mpi_world()
    assert size == N_RANKS
    assert broadcast(rank) == 0
    found = outcomes(reduce, (rank, size))
    # whatever is repeated on every rank has to be the same there
    for name, value in found.items():
        if not name.endswith(": configurations"):
            np.testing.assert_array_equal(broadcast(value), value, err_msg=name)
    if rank == 0:
        np.savez(path, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1])
