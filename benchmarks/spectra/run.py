"""Spectra of small molecules from fitted models against PySCF's own: frequencies, infrared and Raman intensities.

    python benchmarks/spectra/reference.py DATA            the reference (needs the extra `spectra-reference`)
    python benchmarks/spectra/run.py DATA [--molecules water formaldehyde] [--seed 0]
    python benchmarks/spectra/run.py --render              table of docs/spectra.md again from the JSON

For each molecule: a potential, a dipole model and a polarizability model are fitted to train.extxyz, judged on test.extxyz,
and then asked for

- the minimum and its harmonic spectra (`etnpot.spectra.harmonic_spectrum`), beside PySCF's analytic Hessian and the central
  differences of its dipoles and polarizabilities;
- spectra of molecular dynamics (velocity Verlet without thermostat, 0.25 fs, 4 ps), from the minimum with the same kinetic
  energy in every mode and random signs, averaged over 3 runs: at 20 K, where they must give the harmonic bands, and at 300 K.

Writes results.json beside this file, docs/spectra-NAME.png, and the tables of docs/spectra.md between their markers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import etnpot
from etnpot.spectra import (
    HarmonicSpectrum,
    harmonic_spectrum,
    infrared_spectrum,
    plot_spectra,
    raman_spectrum,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
DOCS = HERE.parents[1] / "docs"

#: Settings of the three fits.
POTENTIAL: dict[str, Any] = dict(
    cutoff=4.0, size="small", order=4, radial_size=8, repulsion="none", reliability=False
)  # fmt: skip
TENSOR: dict[str, Any] = dict(cutoff=4.0, order=3, l_max=3, ranks=4)
TIMESTEP, STEPS, RUNS, EVERY = 0.25, 16_000, 3, 4
TEMPERATURES = (20.0, 300.0)
#: Half the width of a band of a mode, 1/cm; modes closer than twice that share a band.
BAND = 60.0


def fits(directory: Path, seed: int) -> dict[str, Any]:
    """The models and their errors."""
    files = {name: str(directory / f"{name}.extxyz") for name in ("train", "valid", "test")}
    found: dict[str, Any] = {}
    started = time.monotonic()
    energy = etnpot.fit(files["train"], files["valid"], test=files["test"], seed=seed, **POTENTIAL)
    errors = energy.metrics["test"]
    found["potential"] = energy.potential
    found["errors"] = {
        "energy_rmse_mev_per_atom": 1e3 * errors.energy.rmse,
        "forces_rmse_mev_per_angstrom": 1e3 * errors.forces.rmse,
    }
    found["seconds"] = {"potential": time.monotonic() - started}
    for name in ("dipole", "polarizability"):
        result = etnpot.fit_tensor(
            files["train"], name, files["valid"], test=files["test"], seed=seed, **TENSOR
        )
        found[name] = result.model
        test = result.metrics["test"]
        found["errors"][name] = {"rmse": test.rmse, "spread": test.spread, "n": test.n}
        found["seconds"][name] = result.seconds
    return found


def dynamics(
    atoms: Atoms, calculator: Any, modes: HarmonicSpectrum, temperature: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Mean infrared and Raman spectra of several runs."""
    infrared, raman, drift = [], [], []
    for _ in range(RUNS):
        work = atoms.copy()
        work.calc = calculator
        signs = rng.choice([-1.0, 1.0], size=len(modes.frequencies))
        # dQ/dt = sqrt(2 kT) in every mode, so that each has the energy kT of the classical oscillator
        work.set_velocities(
            np.einsum("q,qic->ic", signs, modes.modes_qic) * np.sqrt(2.0 * units.kB * temperature)
        )
        dipoles, alphas, energies = [], [], []

        def record(work: Atoms = work, d: list = dipoles, a: list = alphas, e: list = energies) -> None:
            d.append(work.get_dipole_moment())
            a.append(calculator.get_property("polarizability", work))
            e.append(work.get_total_energy())

        run = VelocityVerlet(work, TIMESTEP * units.fs)
        run.attach(record, interval=EVERY)
        run.run(STEPS)
        infrared.append(infrared_spectrum(dipoles, EVERY * TIMESTEP, temperature))
        raman.append(raman_spectrum(alphas, EVERY * TIMESTEP, temperature))
        drift.append(float(np.abs(np.array(energies) - energies[0]).max()))
    mean: dict[str, Any] = {"wavenumbers": infrared[0].wavenumbers, "resolution": infrared[0].resolution}
    for kind, spectra in (("infrared", infrared), ("raman", raman)):
        mean[kind] = type(spectra[0])(
            spectra[0].wavenumbers,
            np.mean([s.intensities for s in spectra], axis=0),
            kind,
            spectra[0].resolution,
        )
    mean["largest_energy_change_mev"] = 1e3 * max(drift)
    return mean


def bands(frequencies: np.ndarray) -> list[list[int]]:
    """Modes that share a band."""
    groups: list[list[int]] = []
    for q, nu in enumerate(frequencies):
        if groups and nu - frequencies[groups[-1][-1]] < 2 * BAND:
            groups[-1].append(q)
        else:
            groups.append([q])
    return groups


def study(directory: Path, seed: int) -> dict[str, Any]:
    """Everything about one molecule."""
    reference = json.loads((directory / "reference.json").read_text())
    models = fits(directory, seed)
    calculator = etnpot.ETNCalculator(
        models["potential"], dipole=models["dipole"], polarizability=models["polarizability"]
    )
    minimum = Atoms(reference["symbols"], reference["positions"])
    atoms = minimum.copy()
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(fmax=1e-5, steps=300)
    found = harmonic_spectrum(atoms, calculator)
    assert found.infrared is not None and found.raman is not None
    rng = np.random.default_rng(seed)
    row: dict[str, Any] = {
        "method": reference["method"],
        "errors": models["errors"],
        "seconds": models["seconds"],
        "parameters": {n: models[n].n_parameters for n in ("potential", "dipole", "polarizability")},
        "distances": float(np.abs(atoms.get_all_distances() - minimum.get_all_distances()).max()),
        "dipole": [atoms.get_dipole_moment().tolist(), reference["dipole"]],
        "reference": {name: reference[name] for name in ("frequencies", "infrared", "raman")},
        "harmonic": found.to_json(),
        "dynamics": {},
    }  # fmt: skip
    curves: dict[str, Any] = {"infrared": [], "raman": []}
    grid = np.arange(0.0, 5000.0, 1.0)
    for kind in curves:
        theirs = HarmonicSpectrum(np.array(reference["frequencies"]), found.modes_qic, None, None, None)
        curves[kind].append(
            ("PySCF, harmonic", grid, theirs.broadened(np.array(reference[kind]), grid, 16.0))
        )
        ours = found.infrared if kind == "infrared" else found.raman
        curves[kind].append(("etnpot, harmonic", grid, found.broadened(ours, grid, 16.0)))
    for temperature in TEMPERATURES:
        started = time.monotonic()
        spectra = dynamics(atoms, calculator, found, temperature, rng)
        entry: dict[str, Any] = {
            "resolution": spectra["resolution"],
            "largest_energy_change_mev": spectra["largest_energy_change_mev"],
            "seconds": time.monotonic() - started,
            "bands": [],
        }
        for group in bands(found.frequencies):
            low, high = found.frequencies[group[0]] - 2 * BAND, found.frequencies[group[-1]] + 2 * BAND
            band: dict[str, Any] = {"modes": [q + 1 for q in group], "range": [float(low), float(high)]}
            for kind, of_modes in (("infrared", found.infrared), ("raman", found.raman)):
                band[kind] = {
                    "peak": spectra[kind].peak(low, high),
                    "intensity": spectra[kind].integral(low, high),
                    "harmonic": float(of_modes[group].sum()),
                }
            entry["bands"].append(band)
        row["dynamics"][f"{temperature:g}"] = entry
        if temperature == TEMPERATURES[-1]:
            for kind in curves:
                curves[kind].append(
                    (
                        f"etnpot, dynamics at {temperature:g} K",
                        spectra["wavenumbers"],
                        spectra[kind].intensities,
                    )
                )
    plot_spectra(
        curves, DOCS / f"spectra-{directory.name}.png",
        sticks={kind: (np.array(reference["frequencies"]), np.array(reference[kind])) for kind in curves},
        title=f"{directory.name}, {reference['method']}",
    )  # fmt: skip
    return row


def render(results: dict[str, Any]) -> None:
    """The tables of docs/spectra.md."""
    errors = [
        "| molecule | energy, meV/atom | forces, meV/Å | dipole, e Å | of spread | polarizability, e²Å²/eV | of spread |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    harmonic = [
        "| molecule | mode | PySCF, 1/cm | etnpot, 1/cm | PySCF, km/mol | etnpot, km/mol | PySCF, Å⁴/amu | etnpot, Å⁴/amu |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    moving = [
        "| molecule | modes | harmonic, 1/cm | peak at 20 K | peak at 300 K | infrared, harmonic | at 20 K | at 300 K "
        "| Raman, harmonic | at 20 K | at 300 K |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in results.items():
        e = row["errors"]
        d, a = e["dipole"], e["polarizability"]
        errors.append(
            f"| {name} | {e['energy_rmse_mev_per_atom']:.3g} | {e['forces_rmse_mev_per_angstrom']:.3g} | {d['rmse']:.2g} | "
            f"{100 * d['rmse'] / d['spread']:.2g}% | {a['rmse']:.2g} | {100 * a['rmse'] / a['spread']:.2g}% |"
        )
        theirs, ours = row["reference"], row["harmonic"]
        for q in range(len(theirs["frequencies"])):
            cells = [
                f"{part[key][q]:.{digits}f}"
                for key, digits in (("frequencies", 1), ("infrared", 2), ("raman", 2))
                for part in (theirs, ours)
            ]
            harmonic.append(f"| {name} | {q + 1} | " + " | ".join(cells) + " |")
        cold, warm = (row["dynamics"][f"{t:g}"]["bands"] for t in TEMPERATURES)
        for low, high in zip(cold, warm, strict=True):
            nus = ", ".join(f"{ours['frequencies'][q - 1]:.0f}" for q in low["modes"])
            kind = "infrared" if low["infrared"]["harmonic"] > 0.02 * max(ours["infrared"]) else "raman"
            moving.append(
                f"| {name} | {', '.join(map(str, low['modes']))} | {nus} | {low[kind]['peak']:.0f} | "
                f"{high[kind]['peak']:.0f} | "
                + " | ".join(
                    f"{low[k]['harmonic']:.2f} | {low[k]['intensity']:.2f} | {high[k]['intensity']:.2f}"
                    for k in ("infrared", "raman")
                )
                + " |"
            )
    write_sections(
        DOCS / "spectra.md",
        {
            "generated errors": "\n".join(errors),
            "generated harmonic": "\n".join(harmonic),
            "generated dynamics": "\n".join(moving),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help="what reference.py wrote")
    parser.add_argument("--molecules", nargs="+", default=["water", "formaldehyde"])
    parser.add_argument("--render", action="store_true", help="write the tables from the JSON alone")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not args.render:
        if args.data is None:
            parser.error("DATA is missing: make it with reference.py")
        for name in args.molecules:
            results[name] = study(args.data / name, args.seed)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(name, json.dumps(results[name]["errors"]), flush=True)
    render(results)


if __name__ == "__main__":
    main()
