"""Other potentials, trained for real on a small set; their figures are those of their own evaluation commands.

Needs their environments: ``etnpot compare --install motep ace mace nequip schnetpack calorine``, in ``$ETNPOT_PEERS``. A
missing one is a failure, not a skip.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

import etnpot
from etnpot.compare import environments
from etnpot.compare.results import StudyResult
from etnpot.fitting.demo_data import emt_alloys

pytestmark = pytest.mark.peers

CELLS = [1, 1, 2]
MODELS: dict[str, dict[str, Any]] = {
    "motep": {"level": 6, "cutoff": 4.0},
    "ace": {"functions": 40, "cutoff": 4.0},
    "mace": {"hidden_irreps": "4x0e", "r_max": 4.0},
    "nequip": {"num_features": 4, "r_max": 4.0},
    "allegro": {"num_tensor_features": 4, "num_scalar_features": 8, "r_max": 4.0},
    "painn": {"n_atom_basis": 16, "cutoff": 4.0},
    "so3net": {"n_atom_basis": 16, "cutoff": 4.0},
    "schnet": {"n_atom_basis": 16, "cutoff": 4.0},
}
#: eV, eV/Å: double precision in a text file, or single precision.
TOLERANCES = {"motep": (1e-6, 1e-6), "ace": (1e-6, 1e-6)}
SINGLE = (2e-5, 2e-5)


def study(kind: str, budget: dict[str, float]) -> dict[str, Any]:
    """One model on two elements."""
    return {
        "data": {
            "cuni": {
                "train": {"emt": {"n": 12, "symbols": ["Cu", "Ni"], "repeat": CELLS}},
                "test": {"same": {"emt": {"n": 5, "symbols": ["Cu", "Ni"], "seed": 1, "repeat": CELLS}}},
            }
        },
        "models": [{"name": kind, "type": kind, "settings": MODELS.get(kind, {})}],
        "budget": budget,
        "seeds": [1],
        "timing_atoms": 32,
    }


def run(environment: str, *command: str, cwd: Path) -> None:
    done = subprocess.run(
        [str(environments.python_of(environment).parent / command[0]), *command[1:]],
        cwd=cwd, env=environments.variables(environment, 1), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_frames(result: StudyResult) -> list[Atoms]:
    frames = []
    for labelled in result.data["cuni"].tests["same"]:
        atoms = labelled.to_atoms()
        atoms.info = {}
        frames.append(atoms)
    return frames


test_frames.__test__ = False  # type: ignore[attr-defined]


def by_motep(result: StudyResult, where: Path, work: Path) -> tuple[list[float], list[np.ndarray]]:
    """``motep evaluate``."""
    write(work / "test.xyz", test_frames(result), format="extxyz")
    (work / "evaluate.toml").write_text(
        f'[common]\nspecies = [28, 29]\n[configurations]\ninitial = ["{work}/test.xyz"]\nfinal = ["{work}/out.xyz"]\n'
        f'[potentials]\nfinal = "{where}/final.mtp"\n'
    )
    run("motep", "motep", "evaluate", "evaluate.toml", cwd=work)
    frames = read(work / "out.xyz", ":")
    return [a.get_potential_energy() for a in frames], [a.get_forces() for a in frames]


def by_ace(result: StudyResult, where: Path, work: Path) -> tuple[list[float], list[np.ndarray]]:
    """python-ace's own prediction: its design matrix of the test set times the coefficients, and the elements' energies."""
    frames = test_frames(result)
    write(work / "test.traj", frames)
    program = (
        "import json, sys\n"
        "import pandas as pd\n"
        "from ase.io import read\n"
        "from pyace import ACEBBasisSet\n"
        "from pyace.linearacefit import LinearACEDataset\n"
        "basis = ACEBBasisSet(sys.argv[1])\n"
        "data = LinearACEDataset(basis, pd.DataFrame({'ase_atoms': [a.copy() for a in read('test.traj', ':')]}))\n"
        "vector = data.get_design_matrix(max_workers=1) @ basis.basis_coeffs\n"
        "found = {'energy': data.get_energies_per_atom(vector).tolist(), 'forces': data.get_forces(vector, True).tolist()}\n"
        "json.dump(found, open('out.json', 'w'))\n"
    )
    (work / "predict.py").write_text(program)
    run("ace", "python", "predict.py", str(where / "potential.yaml"), cwd=work)
    found = json.loads((work / "out.json").read_text())
    elements = json.loads((where / "energies.json").read_text())
    energies = [
        len(atoms) * e + sum(elements[s] for s in atoms.get_chemical_symbols())
        for atoms, e in zip(frames, found["energy"], strict=True)
    ]
    ends = np.cumsum([len(atoms) for atoms in frames])[:-1]
    return energies, np.split(np.array(found["forces"]), ends)


def by_mace(result: StudyResult, where: Path, work: Path) -> tuple[list[float], list[np.ndarray]]:
    """``mace_eval_configs``."""
    write(work / "test.xyz", test_frames(result), format="extxyz")
    run(
        "mace", "mace_eval_configs", "--configs", "test.xyz", "--model", str(where / "model_stagetwo.model"),
        "--output", "out.xyz", "--default_dtype", "float32", cwd=work,
    )  # fmt: skip
    frames = read(work / "out.xyz", ":")
    return [a.info["MACE_energy"] for a in frames], [a.arrays["MACE_forces"] for a in frames]


def by_nequip(result: StudyResult, where: Path, work: Path) -> tuple[list[float], list[np.ndarray]]:
    """``nequip-train`` with ``run: [test]``, from the checkpoint and not from the compiled model."""
    config = json.loads((where / "config.yaml").read_text())
    write(work / "test.extxyz", test_frames(result), format="extxyz")
    config["run"] = ["test"]
    config["training_module"]["model"] = {
        "_target_": "nequip.model.ModelFromCheckpoint",
        "checkpoint_path": str(where / "best.ckpt"),
    }
    config["data"]["test_file_path"] = str(work / "test.extxyz")
    config["data"]["test_dataloader"] = config["data"]["val_dataloader"]
    config["training_module"]["test_metrics"] = config["training_module"]["val_metrics"]
    config["trainer"]["callbacks"] = [
        {"_target_": "nequip.train.callbacks.TestTimeXYZFileWriter", "out_file": str(work / "out"),
         "chemical_symbols": config["data"]["transforms"][0]["model_type_names"]}
    ]  # fmt: skip
    (work / "config.yaml").write_text(json.dumps(config))
    run("nequip", "nequip-train", "-cp", str(work), "-cn", "config", f"hydra.run.dir={work}", cwd=work)
    frames = read(work / "out_dataset0.xyz", ":")
    return [a.get_potential_energy() for a in frames], [a.get_forces() for a in frames]


def by_schnetpack(result: StudyResult, where: Path, work: Path) -> tuple[list[float], list[np.ndarray]]:
    """``spkpredict``."""
    frames = test_frames(result)
    program = (
        "import sys, typing, numpy as np, torch.utils.data.dataloader as d\n"
        "d.T_co = typing.TypeVar('T_co', covariant=True)\n"
        "from ase.io import read\n"
        "import schnetpack as spk\n"
        "data = spk.data.ASEAtomsData.create('test.db', distance_unit='Ang', property_unit_dict={'energy': 'eV'})\n"
        "frames = read('test.xyz', ':')\n"
        "data.add_systems(atoms_list=[a.copy() for a in frames], property_list=[{'energy': np.array([0.0])}] * len(frames))\n"
        "from schnetpack.cli import predict\n"
        "predict()\n"
    )
    write(work / "test.xyz", frames, format="extxyz")
    (work / "predict.py").write_text(program)
    run(
        "schnetpack", "python", "predict.py", f"datapath={work}/test.db", f"modeldir={where}", f"outputdir={work}/out",
        "cutoff=4.0", "write_interval=batch", "enable_grad=true", "trainer.accelerator=cpu", "trainer.inference_mode=false",
        cwd=work,
    )  # fmt: skip
    reader = (
        "import torch, json\n"
        "found = torch.load('out/0/0.pt', weights_only=False)\n"
        "parts = found if isinstance(found, list) else [found]\n"
        "energies = [float(x) for part in parts for x in part['energy'].ravel()]\n"
        "forces = [row for part in parts for row in part['forces'].tolist()]\n"
        "json.dump({'energy': energies, 'forces': forces}, open('out.json', 'w'))\n"
    )
    run("schnetpack", "python", "-c", reader, cwd=work)
    found = json.loads((work / "out.json").read_text())
    ends = np.cumsum([len(atoms) for atoms in frames])[:-1]
    return found["energy"], np.split(np.array(found["forces"]), ends)


OWN = {
    "motep": by_motep, "ace": by_ace, "mace": by_mace, "nequip": by_nequip, "allegro": by_nequip,
    "painn": by_schnetpack, "so3net": by_schnetpack, "schnet": by_schnetpack,
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_a_peer_is_trained_and_agrees_with_its_own_evaluation(kind: str, tmp_path: Path) -> None:
    result = etnpot.compare(study(kind, {"epochs": 4}), tmp_path / "study")
    (record,) = result.records
    assert record["error"] is None, record["error"]
    (where,) = (tmp_path / "study" / "runs" / "cuni").glob("*/all-seed-1")
    assert record["train"]["n_parameters"] > 20
    steps = {"motep": pytest.approx(4, abs=1), "ace": 1}
    assert record["train"]["epochs"] == steps.get(kind, 4)
    assert record["evaluation"]["us_per_atom"] > 0, record["evaluation"]
    assert record["metrics"]["same"]["stress"]["n"] == 30
    work = tmp_path / "own"
    work.mkdir()
    energies, forces = OWN[kind](result, where, work)
    with np.load(where / "predictions.npz") as arrays:
        e, f = arrays["test/same/energy"], arrays["test/same/forces"]
    at_most = TOLERANCES.get(kind, SINGLE)
    assert np.abs(np.array(energies) - e).max() < at_most[0]
    assert np.abs(np.concatenate(forces) - f).max() < at_most[1]
    # and the errors of the report are those of these numbers
    labels = np.array([c.energy / c.n_atoms for c in result.data["cuni"].tests["same"]])
    n = np.array([c.n_atoms for c in result.data["cuni"].tests["same"]])
    own = float(np.sqrt(np.mean((np.array(energies) / n - labels) ** 2)))
    assert record["metrics"]["same"]["energy"]["rmse"] == pytest.approx(own, rel=1e-3)


def test_stresses_may_be_missing(tmp_path: Path) -> None:
    """motep takes volumes in the order of the configurations that have a stress."""
    frames = [c.to_atoms() for c in emt_alloys(8, symbols=["Cu", "Ni"], repeat=(1, 1, 2))]
    for atoms in frames[:3]:
        del atoms.calc.results["stress"]
    write(tmp_path / "train.extxyz", frames)
    asked = study("motep", {"epochs": 2})
    asked["data"]["cuni"]["train"] = str(tmp_path / "train.extxyz")
    result = etnpot.compare(asked, tmp_path / "study")
    assert result.records[0]["error"] is None, result.records[0]["error"]


@pytest.mark.parametrize("kind", ["motep", "ace", "painn", "mace"])
def test_the_same_seed_gives_the_same_figures(kind: str, tmp_path: Path) -> None:
    one, two = (etnpot.compare(study(kind, {"epochs": 3}), tmp_path / name) for name in "ab")
    assert one.records[0]["error"] is None
    assert one.records[0]["metrics"] == two.records[0]["metrics"]


@pytest.mark.parametrize("kind", ["motep", "mace", "painn"])
def test_a_time_budget_is_kept(kind: str, tmp_path: Path) -> None:
    """The training ends within a few seconds of it (compilation and start-up are not training)."""
    result = etnpot.compare(study(kind, {"seconds": 6}), tmp_path)
    assert result.records[0]["error"] is None, result.records[0]["error"]
    assert 1 < result.records[0]["train"]["seconds"] < 15


def test_what_cannot_be_trained_here_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = etnpot.compare(study("nep", {"epochs": 100}), tmp_path / "nep")
    if result.records[0]["error"] is not None:
        assert "nep" in result.records[0]["error"] and "GPU" in result.records[0]["error"]
    monkeypatch.setenv("ETNPOT_PEERS", os.fspath(tmp_path / "nothing"))
    result = etnpot.compare(study("mace", {"epochs": 1}), tmp_path / "mace")
    assert "etnpot compare --install mace" in result.records[0]["error"]
    assert "etnpot compare --install mace" in (tmp_path / "mace" / "report.html").read_text()
