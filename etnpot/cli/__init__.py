"""The command ``etnpot``: one subcommand per module, loaded light.

A subcommand is a module ``etnpot.cli.<name>`` with

    add_parser(subparsers)      adds its argument parser and sets ``run`` as the parser's default
    run(args) -> int            does the work and returns the exit status

and its name in `COMMANDS`. A parser whose options take time to find (those of a fit are read off its
settings) has them added by a function in its ``populate``, when it is first used. At module level it imports
nothing beyond the standard library and `etnpot.errors`, so that ``etnpot --help`` answers at once; what it
needs for the work, `run` imports.

===========  =============================================================================
exit status  meaning
===========  =============================================================================
0            done
1            an unexpected error: a defect of etnpot, shown with its traceback
2            wrong usage, or an error that etnpot raises on purpose: one line on stderr
130          interrupted (Ctrl-C)
143          told to end (SIGTERM)
141          whoever reads the output has closed it (``etnpot ... | head``)
===========  =============================================================================
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, cast

import etnpot
from etnpot.errors import EtnpotError, SpecificationError

__all__ = ["COMMANDS", "build_parser", "main"]

#: The subcommands, in the order of the help text; each is the module ``etnpot.cli.<name>``, dashes as underscores.
COMMANDS: tuple[str, ...] = (
    "demo", "fit", "fit-property", "evaluate", "grade", "select", "calibrate", "compare", "spectra", "info",
    "lammps",
)  # fmt: skip

_INTERRUPTED = 130
_CLOSED_PIPE = 141


def build_parser() -> argparse.ArgumentParser:
    """The argument parser with all subcommands."""
    common = _Parser(add_help=False)
    common.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the traceback of an error and debug messages",
    )
    common.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="show what is being done"
    )
    parser = _Parser(
        prog="etnpot",
        description="Interatomic potentials from equivariant tensor networks.",
        epilog="'etnpot COMMAND --help' explains a command.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"etnpot {etnpot.__version__}")
    subparsers: argparse._SubParsersAction[_Parser] = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    for name in COMMANDS:
        importlib.import_module(f"etnpot.cli.{name.replace('-', '_')}").add_parser(
            _WithCommonOptions(subparsers, common)
        )
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that gets some options when it is first used, and knows what a mistyped one may have meant."""

    populate: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in the base class."""
        self._fill()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """As in the base class."""
        self._fill()
        return super().format_help()

    def _fill(self) -> None:
        populate, self.populate = self.populate, None
        if populate is not None:
            populate(self)

    def error(self, message: str) -> NoReturn:
        """End with status 2; an unknown option comes with the nearest known one."""
        unknown = (
            re.findall(r"(?<!\S)--[\w-]+", message) if message.startswith("unrecognized arguments") else []
        )
        if unknown:
            import difflib

            close = difflib.get_close_matches(unknown[0], self._known_options(), n=1)
            message += f"; did you mean {close[0]}?" if close else ""
        super().error(message)

    def _known_options(self) -> list[str]:
        """Options of this parser and of the command that was used."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    known += [option for option in parser._option_string_actions if option.startswith("--")]
        return known


class _WithCommonOptions:
    """Gives every subcommand the common options, so that they may stand before or after its name."""

    def __init__(self, subparsers: argparse._SubParsersAction[_Parser], common: _Parser):
        self._subparsers, self._common = subparsers, common

    def add_parser(self, name: str, *, help: str, description: str | None = None) -> _Parser:
        """Add a subcommand; its description is its help line unless another is given."""
        return self._subparsers.add_parser(
            name, help=help, description=description or help, parents=[self._common], allow_abbrev=False
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    int
        The exit status, see the module.
    """
    args = build_parser().parse_args(argv)
    debug = getattr(args, "debug", False)
    with _terminal_messages(debug, getattr(args, "verbose", False)):
        try:
            status = cast(Callable[[argparse.Namespace], int], args.run)(args)
            sys.stdout.flush()
        except KeyboardInterrupt:
            if debug:
                raise
            _say("interrupted")
            return _INTERRUPTED
        except BrokenPipeError:
            _abandon_stdout()
            return _CLOSED_PIPE
        except (EtnpotError, OSError) as error:
            if debug:
                raise
            _complain(error)
            return 2
    return status


def _say(message: str) -> None:
    """One line on stderr."""
    with contextlib.suppress(OSError):
        print("etnpot: " + " ".join(message.split()), file=sys.stderr, flush=True)


def _complain(error: Exception) -> None:
    """An error on stderr in one line; the mistakes of a configuration in several, as they come."""
    lines = str(error).splitlines() if isinstance(error, SpecificationError) else [str(error)]
    for line in lines:
        _say(f"error: {line}")


class _StderrHandler(logging.StreamHandler):
    """Writes to whatever stderr is at the moment: a live display replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        """As in the base class."""
        self.setStream(sys.stderr)
        super().emit(record)


def _abandon_stdout() -> None:
    """Point stdout to nowhere, so that the interpreter does not fail on its last flush."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: stdout is no file of the system
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _terminal_messages(debug: bool, verbose: bool) -> Iterator[None]:
    """Show warnings and log messages of etnpot as single lines on stderr."""
    handler = _StderrHandler()
    handler.setLevel(logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING)
    handler.setFormatter(logging.Formatter("etnpot: %(levelname)s: %(message)s"))
    logger = logging.getLogger("etnpot")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING)
    show = warnings.showwarning

    def show_in_one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
    ) -> None:
        place = f" ({category.__name__}, {filename}:{lineno})" if debug else ""
        _say(f"warning: {message}{place}")

    warnings.showwarning = show_in_one_line
    try:
        yield
    finally:
        warnings.showwarning = show
        logger.setLevel(level)
        logger.removeHandler(handler)
