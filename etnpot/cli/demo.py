"""``etnpot demo``: the whole way on an example made on the spot, from data to molecular dynamics.

Six-element alloys labelled with ASE's effective-medium potential are fitted by the same code as ``etnpot
fit``; the potential meets cells that it has not seen, then drives a short molecular dynamics run at constant
energy,

    E_tot(t) = E_pot + E_kin = const,

whose drift, and the force errors along it, are shown as they are.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etnpot.errors import DataError

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions

__all__ = ["Trajectory", "add_parser", "run", "run_dynamics"]


@dataclass(frozen=True)
class _Plan:
    """Sizes of the demonstration."""

    n_train: int
    n_valid: int
    n_test: int
    size: str | int
    time_limit: float
    md_cells: int
    md_steps: int


_FULL = _Plan(n_train=80, n_valid=15, n_test=30, size="small", time_limit=45.0, md_cells=3, md_steps=500)
_QUICK = _Plan(n_train=15, n_valid=6, n_test=6, size=300, time_limit=4.0, md_cells=2, md_steps=100)

_MD_KELVIN, _MD_STEP, _MD_SAMPLE = (
    1200.0,
    2.0,
    10,
)  # K at the start on ideal sites: half of it soon is potential energy; fs; steps


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="fit, test and run an example in under two minutes",
        description="Make example data (six-element alloys, ASE's EMT), fit a potential, test it on unseen "
        "cells, run molecular dynamics with it. Needs no download; takes less than two minutes on two cores.",
    )
    parser.add_argument(
        "--out", metavar="DIR", default="etnpot-demo", help="directory for everything [etnpot-demo]"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer data and a shorter fit: shows that it runs, not how well"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier demonstration in DIR")
    parser.add_argument("--threads", metavar="N", type=int, help="threads; all processors by default")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """All of it, with a line for each part."""
    from etnpot.cli.config import check_config
    from etnpot.cli.fit import fit_with_display, read_sets
    from etnpot.fitting.checkpoint import RunDirectory
    from etnpot.fitting.fit import prepare_data

    begin = time.monotonic()
    plan = _QUICK if args.quick else _FULL
    out = Path(args.out)
    with RunDirectory(out / "fit", force=args.force) as directory:
        _say(1, f"example data: alloys of Ni, Cu, Pd, Ag, Pt and Au, labelled by EMT, in {out / 'data'}")
        files = make_data(plan, out / "data")
        _say(2, f"fit: at most {plan.time_limit:.0f} s (the first fit after an installation compiles first)")
        values: dict[str, Any] = {name: str(path) for name, path in files.items()}
        values |= {"out": str(out / "fit"), "size": plan.size, "time_limit": plan.time_limit}
        if args.threads is not None:
            values["threads"] = args.threads
        config = check_config(values, {"threads": "--threads"})
        directory.config = config.to_yaml()
        status = fit_with_display(
            config, prepare_data(*read_sets(config), config.settings), directory, brief=True
        )
    if status:
        return status
    _say(3, "molecular dynamics with the fitted potential, at constant energy")
    potential = out / "fit" / "potential.etn"
    trajectory = run_dynamics(potential, cells=plan.md_cells, steps=plan.md_steps, threads=args.threads)
    trajectory.plot(out / "md.png")
    print(trajectory.summary())
    _say(4, f"done in {time.monotonic() - begin:.0f} s; look at")
    test = files["test"]
    print(
        f"    {out / 'fit' / 'report.html'}   errors, plots, model on one page\n"
        f"    {out / 'fit' / 'parity.png'}    predicted against reference values\n"
        f"    {out / 'fit' / 'learning.png'}  errors step by step\n"
        f"    {out / 'md.png'}            energies along the dynamics\n"
        "\nnext\n"
        f"    etnpot info {potential}\n"
        f"    etnpot evaluate {potential} {test} --plot test.png\n"
        f"    etnpot grade {potential} {test}      where it guesses, and how wrong it may be\n"
        "    etnpot fit --train YOUR_DATA.extxyz --out my-fit\n"
        "    etnpot fit --example > config.yaml      every setting, explained\n"
        "in Python\n"
        f'    atoms.calc = etnpot.ETNCalculator("{potential}")'
    )
    return 0


def _say(number: int, text: str) -> None:
    print(f"\n[{number}/4] {text}", flush=True)


def make_data(plan: _Plan, directory: Path) -> dict[str, Path]:
    """Training, validation and test set as extended XYZ files."""
    from ase.io import write

    from etnpot.fitting.demo_data import emt_alloys

    try:
        directory.mkdir(parents=True, exist_ok=True)
        files = {}
        for seed, (name, n) in enumerate(
            (("train", plan.n_train), ("valid", plan.n_valid), ("test", plan.n_test))
        ):
            files[name] = directory / f"{name}.extxyz"
            write(files[name], [labelled.to_atoms() for labelled in emt_alloys(n, seed=seed)])
    except OSError as error:
        raise DataError(f"cannot write the example data to {directory}: {error.strerror or error}") from error
    return files


@dataclass(frozen=True)
class Trajectory:
    """What is recorded of a run at constant energy.

    Attributes
    ----------
    n_atoms : int
    times : list of float, ps
    potential, kinetic : list of float, eV
    kelvin : float
        Mean temperature of the second half.
    forces_rmse : float, eV/Å
        Against the reference potential, on configurations along the run.
    wall : float, s
        Of the dynamics alone.
    steps : int
    """

    n_atoms: int
    times: list[float]
    potential: list[float]
    kinetic: list[float]
    kelvin: float
    forces_rmse: float
    wall: float
    steps: int

    @property
    def drift(self) -> float:
        """Largest deviation of the total energy from its start, eV/atom."""
        total = [p + k for p, k in zip(self.potential, self.kinetic, strict=True)]
        return max(abs(e - total[0]) for e in total) / self.n_atoms

    def summary(self) -> str:
        """Some lines for people."""
        return (
            f"    {self.n_atoms} atoms of six elements, {self.times[-1]:.2f} ps at {self.kelvin:.0f} K: "
            f"{self.steps} steps in {self.wall:.1f} s "
            f"({1e6 * self.wall / self.steps / self.n_atoms:.0f} µs per atom and step)\n"
            f"    total energy stays within {1e3 * self.drift:.3f} meV/atom of its start (kinetic energy: "
            f"{1e3 * self.kinetic[-1] / self.n_atoms:.0f} meV/atom)\n"
            f"    force error along the run, against EMT: RMSE {self.forces_rmse:.3f} eV/Å"
        )

    def plot(self, path: Path) -> None:
        """Energies over time."""
        from matplotlib.figure import Figure

        total = [p + k for p, k in zip(self.potential, self.kinetic, strict=True)]
        figure = Figure(figsize=(9.0, 3.6), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2)
        for values, colour, name in (
            (self.potential, "#0072B2", "potential"),
            (self.kinetic, "#D55E00", "kinetic"),
            (total, "#1a1a1a", "total"),
        ):
            left.plot(
                self.times, [1e3 * (v - values[0]) / self.n_atoms for v in values], color=colour, label=name
            )
        left.set_title("Energies since the start (meV/atom)", fontsize=10.5)
        left.legend(fontsize=8.5, frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.33))
        right.plot(self.times, [1e3 * (v - total[0]) / self.n_atoms for v in total], color="#1a1a1a")
        right.set_title("Total energy alone (meV/atom)", fontsize=10.5)
        for axis in (left, right):
            axis.set_xlabel("time (ps)", fontsize=9.5)
            axis.grid(color="#e3e3e3", linewidth=0.7)
            axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)


def run_dynamics(potential: Path, *, cells: int, steps: int, threads: int | None = None) -> Trajectory:
    """Dynamics at constant energy of a random six-element crystal that no data set holds.

    Parameters
    ----------
    potential : path
        Of the potential file.
    cells : int
        Cubic cells of four atoms along each axis.
    steps : int
        Of 2 fs.
    threads : int, optional

    Returns
    -------
    Trajectory
    """
    import numpy as np
    from ase import units
    from ase.calculators.emt import EMT
    from ase.md.verlet import VelocityVerlet

    import etnpot
    from etnpot.fitting.demo_data import fcc_alloy, thermalize

    rng = np.random.default_rng(1729)
    atoms = fcc_alloy(rng, repeat=(cells, cells, cells), n_elements=6)
    atoms.calc = etnpot.ETNCalculator(potential, threads=threads)
    thermalize(atoms, _MD_KELVIN, rng)
    times: list[float] = []
    potential_energy: list[float] = []
    kinetic_energy: list[float] = []
    temperatures: list[float] = []
    squares: list[float] = []

    def record() -> None:
        times.append(len(times) * _MD_SAMPLE * _MD_STEP * 1e-3)
        potential_energy.append(float(atoms.get_potential_energy()))
        kinetic_energy.append(float(atoms.get_kinetic_energy()))
        temperatures.append(float(atoms.get_temperature()))

    atoms.get_forces()
    dynamics = VelocityVerlet(atoms, timestep=_MD_STEP * units.fs)
    wall = 0.0
    record()
    for block in range(steps // _MD_SAMPLE):
        begin = time.monotonic()
        dynamics.run(_MD_SAMPLE)
        wall += time.monotonic() - begin
        record()
        if block % 5 == 4:
            reference = atoms.copy()
            reference.calc = EMT()
            squares.append(float(np.mean((atoms.get_forces() - reference.get_forces()) ** 2)))
    return Trajectory(
        n_atoms=len(atoms),
        times=times,
        potential=potential_energy,
        kinetic=kinetic_energy,
        kelvin=float(np.mean(temperatures[len(temperatures) // 2 :])),
        forces_rmse=float(np.sqrt(np.mean(squares))),
        wall=wall,
        steps=steps,
    )
