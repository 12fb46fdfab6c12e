"""``etnpot lammps``: a potential as LAMMPS reads it, and the plugin that reads it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from etnpot.errors import PotentialFileError, SpecificationError

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions

__all__ = ["add_parser", "run"]


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "lammps",
        help="export a potential to LAMMPS, and build the plugin that LAMMPS needs",
        description="Write a potential as the LAMMPS pair style etn reads it, with an input file that runs it; "
        "with --build, compile the pair style for the LAMMPS of this Python environment or for your own.",
    )
    parser.add_argument("potential", metavar="POTENTIAL", nargs="?", help="potential file to export")
    parser.add_argument("--out", metavar="DIR", default=None, help="where the exported files go (default: .)")
    parser.add_argument("--build", action="store_true", help="compile the plugin")
    parser.add_argument(
        "--lammps",
        metavar="DIR",
        help="build for the LAMMPS whose source tree this is (default: the package 'lammps' of this environment)",
    )
    parser.add_argument(
        "--plugin-dir",
        metavar="DIR",
        help="where the plugin goes (default: where lmp of this environment looks)",
    )
    parser.add_argument(
        "--compiler", metavar="CXX", help="C++ compiler that finds MPI, with its options (default: mpicxx)"
    )
    parser.add_argument(
        "--march", metavar="CPU", default="native", help="processor to build for (default: %(default)s)"
    )
    parser.add_argument(
        "--flags",
        metavar="FLAGS",
        default="-DLAMMPS_SMALLBIG",
        help="further flags of the compiler, those of your LAMMPS (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build, export, or both."""
    if args.potential is None and not args.build:
        raise SpecificationError("etnpot lammps: expected a potential file to export, or --build, or both")
    if args.potential is None and args.out is not None:
        raise SpecificationError(
            "--out is where an exported potential goes, and no POTENTIAL was given; the plugin goes to --plugin-dir"
        )
    if not args.build and (args.lammps or args.plugin_dir or args.compiler):
        raise SpecificationError("--lammps, --plugin-dir and --compiler say how to build; add --build")
    if args.build:
        _build(args)
    if args.potential is not None:
        _export(args.potential, args.out or ".")
    return 0


def _build(args: argparse.Namespace) -> None:
    """Compile the plugin and say how to load it."""
    import shlex

    from etnpot.interfaces.lammps.build import LammpsHeaders, build_plugin, plugin_directory

    headers = LammpsHeaders.of_source(args.lammps) if args.lammps else LammpsHeaders.of_package()
    if args.lammps and not args.plugin_dir:
        raise SpecificationError(
            "--plugin-dir: expected a folder for the plugin of your own LAMMPS, got none"
        )
    plugin = build_plugin(
        headers,
        args.plugin_dir or plugin_directory(),
        compiler=shlex.split(args.compiler) if args.compiler else None,
        march=args.march,
        flags=shlex.split(args.flags),
    )
    print(f"plugin       {plugin}")
    print(f"for          LAMMPS {headers.date}")
    if args.plugin_dir:
        print(f"to load it   plugin load {plugin}")
    else:
        print("to load it   nothing: lmp of this environment finds it")


def _export(potential_file: str, out: str) -> None:
    """Write the exported potential and the input file; what cannot be exported is told before anything is made."""
    from pathlib import Path

    import etnpot
    from etnpot.interfaces.lammps.export import export_text, input_text, pair_commands, write_text

    potential = etnpot.load(potential_file)
    name = f"{Path(potential_file).stem}.lammps"
    commands = pair_commands(potential, name)
    texts = {name: export_text(potential), "in.lammps": input_text(potential, name)}
    directory = Path(out)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PotentialFileError(
            f"cannot make the directory {out}: {error.strerror or error}; name another one with --out"
        ) from error
    for file, text in texts.items():
        write_text(directory / file, text)
    print(f"potential    {directory / name}")
    print(f"input        {directory / 'in.lammps'}")
    if potential.spec.dispersion is not None:
        print("dispersion   is not in the exported file; LAMMPS adds it with these lines, as the input does:")
        print("\n".join(f"  {command}" for command in commands))
    if any(layer.kind == "pool" for layer in potential.spec.layers):
        print(
            "pools        take the mean over all atoms that LAMMPS gives to the pair style: it has no groups of molecules"
        )
    print(f"to run it    cd {directory} && lmp -in in.lammps")
