"""``etnpot spectra harmonic|trajectory FILE``: infrared and Raman spectra, from modes or from molecular dynamics."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from etnpot.cli.reading import check_outputs, write_json
from etnpot.errors import DataError, SpecificationError

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions

__all__ = ["add_parser", "run"]

_DESCRIPTION = """Infrared absorption and Raman activity. 'harmonic' relaxes the structure in FILE with --potential and takes
its normal modes; 'trajectory' takes the frames in FILE, at equal times, and the correlation functions of their dipoles and
polarizabilities."""


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "spectra", help="infrared and Raman spectra from modes or dynamics", description=_DESCRIPTION
    )
    parser.add_argument("how", choices=("harmonic", "trajectory"), help="normal modes, or a trajectory")
    parser.add_argument("file", metavar="FILE", help="structure or trajectory: anything that ASE reads")
    parser.add_argument("--dipole", metavar="MODEL.etn", help="tensor model of the dipole, for the infrared")
    parser.add_argument(
        "--polarizability", metavar="MODEL.etn", help="tensor model of the polarizability, for Raman"
    )
    parser.add_argument("--plot", metavar="OUT.png", help="figure to write [spectra.png]")
    parser.add_argument("--json", metavar="OUT.json", help="write the numbers ('-': to stdout)")
    parser.add_argument("--index", metavar="SLICE", default=None, help="which frames, as in ASE [-1; all]")
    parser.add_argument(
        "--temperature", metavar="K", type=float, default=300.0, help="of the simulation, or of --laser [300]"
    )
    parser.add_argument(
        "--laser", metavar="NM", type=float, help="Raman intensities under this light, not activities"
    )
    modes = parser.add_argument_group("harmonic")
    modes.add_argument("--potential", metavar="POTENTIAL", help="potential file")
    modes.add_argument(
        "--fmax",
        metavar="EV/Å",
        type=float,
        default=1e-4,
        help="relax to this force; 0 for not at all [1e-4]",
    )
    modes.add_argument(
        "--width", metavar="1/CM", type=float, default=10.0, help="full width of the lines [10]"
    )
    times = parser.add_argument_group("trajectory")
    times.add_argument("--timestep", metavar="FS", type=float, help="between two frames")
    times.add_argument(
        "--lag", metavar="FS", type=float, help="longest lag of the correlation functions [4000]"
    )
    times.add_argument("--window", metavar="NAME", default="hann", help="hann, gaussian or none [hann]")
    times.add_argument(
        "--correction", metavar="NAME", default="harmonic",
        help="quantum correction: harmonic, standard, schofield or none [harmonic]",
    )  # fmt: skip
    times.add_argument("--highest", metavar="1/CM", type=float, help="end of the spectra [5000]")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compute, print, draw."""
    from etnpot.potential import load_tensor
    from etnpot.spectra import stokes_factor

    plot = "spectra.png" if args.plot is None else args.plot
    check_outputs(plot, args.json)
    models = {
        name: None if path is None else load_tensor(path)
        for name, path in (("dipole", args.dipole), ("polarizability", args.polarizability))
    }
    if args.laser is not None:
        stokes_factor([1000.0], args.temperature, args.laser)  # refuses what makes no sense
    return _harmonic(args, models, plot) if args.how == "harmonic" else _trajectory(args, models, plot)


def _frames(args: argparse.Namespace, default: str) -> list[Any]:
    from pathlib import Path

    from etnpot.io.structures import read_frames

    frames, _ = read_frames(Path(args.file), args.index or default, None, None, check_stress=False)
    return frames


def _harmonic(args: argparse.Namespace, models: dict[str, Any], plot: str) -> int:
    import sys

    import numpy as np

    from etnpot.interfaces.ase import ETNCalculator
    from etnpot.spectra import harmonic_spectrum, plot_spectra, stokes_factor

    if args.potential is None:
        raise SpecificationError("--potential: normal modes need a potential; give its file")
    if not any(models.values()):
        raise SpecificationError(
            "give --dipole, --polarizability, or both: without them there are no intensities"
        )
    (atoms,) = _frames(args, "-1:")[-1:]
    calculator = ETNCalculator(args.potential, **models)
    text = sys.stderr if args.json == "-" else sys.stdout
    if args.fmax > 0:
        _relax(atoms, calculator, args.fmax)
    found = harmonic_spectrum(atoms, calculator)
    print(found.table(), file=text)
    grid = np.arange(0.0, max(500.0, 1.1 * float(found.frequencies.max(initial=0.0))), 1.0)
    curves, sticks = {}, {}
    for kind, intensities in (("infrared", found.infrared), ("raman", found.raman)):
        if intensities is None:
            continue
        if kind == "raman" and args.laser is not None:
            intensities = intensities * stokes_factor(found.frequencies, args.temperature, args.laser)
        curves[kind] = [(kind, grid, found.broadened(intensities, grid, args.width))]
        sticks[kind] = (found.frequencies, intensities)
    plot_spectra(curves, plot, sticks=sticks, title=atoms.get_chemical_formula())
    print(f"figure     {plot}", file=text)
    if args.json is not None:
        write_json(
            {"positions": atoms.positions.tolist(), "symbols": list(atoms.symbols), **found.to_json()},
            args.json,
        )
    return 0


def _relax(atoms: Any, calculator: Any, fmax: float) -> None:
    from ase.optimize import BFGS

    atoms.set_constraint()
    atoms.calc = calculator
    if not BFGS(atoms, logfile=None).run(fmax=fmax, steps=1000):
        raise DataError(
            f"the structure did not relax to {fmax:g} eV/Å in 1000 steps; start closer to a minimum, or raise --fmax"
        )


def _trajectory(args: argparse.Namespace, models: dict[str, Any], plot: str) -> int:
    import sys

    from etnpot.spectra import infrared_spectrum, plot_spectra, raman_spectrum, stokes_factor, tensor_series

    if args.timestep is None:
        raise SpecificationError("--timestep: give the time between two frames in fs")
    frames = _frames(args, ":")
    options = {"lag": args.lag, "window": args.window, "correction": args.correction, "highest": args.highest}
    text = sys.stderr if args.json == "-" else sys.stdout
    spectra: dict[str, Any] = {}
    lacking: list[str] = []
    for kind, name, compute in (
        ("infrared", "dipole", infrared_spectrum),
        ("raman", "polarizability", raman_spectrum),
    ):
        try:
            series = tensor_series(frames, models[name], name=name)
        except DataError as error:
            if models[name] is not None:
                raise
            lacking.append(str(error))  # the frames carry none
            continue
        spectra[kind] = compute(series, args.timestep, args.temperature, **options)
    if not spectra:
        raise DataError(f"{lacking[0]}; or give a model with --dipole or --polarizability")
    curves = {}
    for kind, spectrum in spectra.items():
        y = spectrum.intensities
        if kind == "raman" and args.laser is not None:
            y = y * stokes_factor(spectrum.wavenumbers, args.temperature, args.laser)
        curves[kind] = [(kind, spectrum.wavenumbers, y)]
        unit = "km/mol" if kind == "infrared" else "Å⁴/amu"
        print(
            f"{kind}: {len(frames)} frames, resolution {spectrum.resolution:.3g} 1/cm, total "
            f"{spectrum.integral(0.0, float(spectrum.wavenumbers[-1])):.4g} {unit}",
            file=text,
        )
    plot_spectra(curves, plot)
    print(f"figure     {plot}", file=text)
    if args.json is not None:
        write_json({kind: spectrum.to_json() for kind, spectrum in spectra.items()}, args.json)
    return 0
