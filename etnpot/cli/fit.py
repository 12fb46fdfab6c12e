"""``etnpot fit``: a potential from data, by a configuration file, by flags, or both (flags win).

What is wrong with settings, files, data or directory is said before anything starts. The first Ctrl-C (or
SIGTERM) lets the running step come to its end, whose checkpoint is written; the second one stops at once and
loses that step. Either way ``--resume`` goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etnpot.errors import EtnpotError, RunDirectoryError, SpecificationError

if TYPE_CHECKING:
    from etnpot.cli import _WithCommonOptions
    from etnpot.cli.config import Config
    from etnpot.cli.options import Option
    from etnpot.fitting.checkpoint import RunDirectory
    from etnpot.fitting.fit import Communicator, FitData, FitResult

__all__ = ["add_parser", "fit_with_display", "run"]

_DESCRIPTION = """Fit a potential to energies, forces and stresses. Settings come from CONFIG, from the flags
below, or from both (flags win); only a training set is required. 'etnpot fit --example' prints a
configuration file with every setting explained."""


def add_parser(subparsers: _WithCommonOptions) -> None:
    """Add the subcommand; its flags are added when it is used."""
    parser = subparsers.add_parser("fit", help="fit a potential to data", description=_DESCRIPTION)
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="configuration file (YAML)")
    parser.add_argument(
        "--example", action="store_true", help="print a commented configuration file, and do nothing else"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the fit in the output directory, if one is there"
    )
    parser.add_argument("--force", action="store_true", help="replace a fit that is in the output directory")
    parser.populate = _add_settings
    parser.set_defaults(run=run)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting."""
    from etnpot.cli.options import flag, options

    titles = {"data": "files and labels", "fit": "model and training"}
    groups = {section: parser.add_argument_group(title) for section, title in titles.items()}
    for option in options():
        text = option.help.replace("%", "%%")
        if isinstance(option.default, str | int | float) and not option.is_switch:
            text += f" [{option.default}]"
        common: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": text}
        group = groups[option.section]
        if option.is_switch:
            group.add_argument(flag(option.name), action=argparse.BooleanOptionalAction, **common)
        elif option.is_path_list:
            group.add_argument(flag(option.name), nargs="+", metavar="FILE", **common)
        else:
            group.add_argument(flag(option.name), metavar=_metavar(option), **common)


def _metavar(option: Option) -> str:
    words = {"out": "DIR", "type_map": "SYMBOLS", "species": "SYMBOLS", "index": "SLICE", "size": "SIZE"}
    if option.name in words:
        return words[option.name]
    if option.is_text:
        return "NAME"
    return "NUMBER" if option.annotation in (int, float, int | None, float | None) else "VALUE"


def run(args: argparse.Namespace) -> int:
    """Check everything, then fit."""
    from etnpot.cli.options import example

    if args.example:
        print(example(), end="")
        return 0
    from etnpot.fitting.parallel import launched_ranks

    config = read_config(args)
    return _run(config, args) if launched_ranks() == 1 else _run_ranks(config, args)


def _run(config: Config, args: argparse.Namespace, communicator: Communicator | None = None) -> int:
    """Fit in this process, the first one if there are several."""
    from etnpot.fitting.checkpoint import RunDirectory

    with RunDirectory(config.data.out, resume=args.resume, force=args.force) as directory:
        data = _prepare(config)
        if args.resume and not directory.has_checkpoint:
            print(f"{directory.path} holds no fit to continue: a new one begins")
        directory.config = config.to_yaml()
        return fit_with_display(config, data, directory, communicator=communicator)


def _run_ranks(config: Config, args: argparse.Namespace) -> int:
    """The same under mpirun: the first rank reads, writes and speaks, the others compute."""
    from etnpot.fitting.fit import Communicator, fit
    from etnpot.fitting.parallel import abort, mpi_world
    from etnpot.threads import default_threads

    rank, size, reduce, broadcast = mpi_world()
    communicator = Communicator(rank, size, reduce, broadcast)
    if config.settings.threads is None:  # the processors of one machine are shared by its ranks
        config = replace(config, settings=replace(config.settings, threads=max(1, default_threads() // size)))
    status = 1
    try:
        if communicator.is_root:
            status = _run(config, args, communicator)
        else:
            fit(
                _prepare(config),
                species=_species(config),
                settings=config.settings,
                communicator=communicator,
            )
            status = 0
    except EtnpotError as error:
        if not communicator.is_root:
            time.sleep(2.0)  # what is wrong for all is said by the first rank, which ends this one
        print(
            f"etnpot: error: {error}" + ("" if rank == 0 else f" (rank {rank})"), file=sys.stderr, flush=True
        )
        status = 2
    if status != 0:
        sys.stdout.flush()
        abort(status)
    return status


def _prepare(config: Config) -> FitData:
    """The data sets, checked; what is wrong is said with the place of the setting."""
    from etnpot.fitting.fit import prepare_data

    try:
        return prepare_data(*read_sets(config), config.settings, species=_species(config))
    except EtnpotError as error:
        raise type(error)(config.locate(error)) from error


def read_config(args: argparse.Namespace) -> Config:
    """Settings of the file, if any, and of the flags, checked."""
    from etnpot.cli.config import check_config, parse_value, read_yaml
    from etnpot.cli.options import flag, options

    given = vars(args)
    path = args.config
    names = {option.name: option for option in options()}
    if path is None and "train" not in given:
        used = Path(given.get("out", "fit")) / "config.yaml"
        if args.resume and used.is_file():
            path = str(used)
        elif args.resume:
            raise RunDirectoryError(
                f"there is no fit to continue in {used.parent} (no {used}); name its directory with --out, "
                "or give CONFIG or --train"
            )
    if path is None and "train" not in given:
        raise SpecificationError(
            "no data: give a configuration file (etnpot fit CONFIG.yaml; 'etnpot fit --example' prints one) "
            "or a training set (etnpot fit --train DATA.extxyz)"
        )
    values, places = ({}, {}) if path is None else read_yaml(path)
    for name, option in names.items():
        if name not in given:
            continue
        value = given[name]
        if option.is_path_list:
            _no_config_among(value, flag(name))
            value = value[0] if len(value) == 1 else value
        elif not option.is_switch and not option.is_text:
            value = parse_value(value)
        values[name], places[name] = value, flag(name)
    return check_config(values, places)


def _no_config_among(files: list[str], where: str) -> None:
    found = [name for name in files if name.endswith((".yaml", ".yml"))]
    if found:
        raise SpecificationError(
            f"{where}: {found[0]} looks like a configuration file, not like data; write it first: "
            f"etnpot fit {found[0]} {where} ..."
        )


def read_sets(config: Config) -> tuple[Any, Any, Any]:
    """The training, validation and test set, as far as they are named."""
    from etnpot.fitting.dataset import DataSet

    files = config.data.files()
    sets: dict[str, Any] = {
        name: DataSet.from_files(paths, **config.data.reading) for name, paths in files.items()
    }
    return sets["train"], sets.get("valid"), sets.get("test")


def _species(config: Config) -> list[str | int] | None:
    from etnpot.cli.options import as_list

    return as_list(config.data.species)


def fit_with_display(
    config: Config,
    data: FitData,
    directory: RunDirectory,
    *,
    brief: bool = False,
    communicator: Communicator | None = None,
) -> int:
    """Show the data, fit, show the errors (`brief`: of the last set alone); returns the exit status."""
    from etnpot.cli.progress import progress_display

    show_data(data, directory, brief=brief)
    stop = _Stop()
    with _log_file(directory), stop.listening(), progress_display(config.settings) as display:
        stop.say = display.note

        def callback(record: dict[str, Any]) -> None:
            display.update(record)
            if stop.signal is not None:
                raise KeyboardInterrupt

        try:
            result = _fit(config, data, directory, callback, communicator)
        except KeyboardInterrupt:
            result = None
        except EtnpotError as error:
            raise type(error)(config.locate(error)) from error
    if result is None:
        directory.log("interrupted")
        how = f"etnpot fit --resume --out {directory.path}"
        if directory.has_checkpoint:
            print(
                f"interrupted; the fit is kept after its last complete step. To continue: {how}",
                file=sys.stderr,
            )
        else:
            print("interrupted before the first step was complete: nothing was kept", file=sys.stderr)
        return 128 + (stop.signal or signal.SIGINT)
    show_result(result, brief=brief)
    return 0


def _fit(
    config: Config, data: FitData, directory: RunDirectory, callback: Any, communicator: Communicator | None
) -> FitResult:
    from etnpot.fitting.fit import fit

    return fit(
        data, species=_species(config), settings=config.settings, out=directory, callback=callback,
        communicator=communicator,
    )  # fmt: skip


_TITLES = {"train": "training set", "valid": "validation set", "test": "test set"}


def show_data(data: FitData, directory: RunDirectory, *, brief: bool = False) -> None:
    """What was read, as tables, on stdout (`brief`: of the training set alone) and in the log."""
    for name, part in data.sets.items():
        title = _TITLES[name]
        if name == "valid" and data.was_split:
            title += " (held out of the training data)"
        text = f"{title}\n{part.table(distances=name == 'train')}\n"
        if name == "train" or not brief:
            print(text, flush=True)
        directory.log(text)


def show_result(result: FitResult, *, brief: bool = False) -> None:
    """Errors, and what was written where."""
    print()
    for name in list(result.metrics)[-1:] if brief else list(result.metrics):
        print(f"errors on the {_TITLES[name]}\n{result.metrics[name].table()}\n")
    steps = f"{len(result.history)} steps, {result.seconds:.1f} s, {result.potential.n_parameters} parameters"
    print(f"finished: {result.reason} ({steps})")
    if result.out is not None:
        print(f"potential  {result.out / 'potential.etn'}\nreport     {result.out / 'report.html'}")


class _Stop:
    """Turns the first SIGINT or SIGTERM into a request, and the second into KeyboardInterrupt."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.say: Any = print

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over, and give them back at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals belong to the main thread
            return
        before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of other output
            self.say("stopping after this step; once more to stop at once")


class _DirectoryHandler(logging.Handler):
    """Writes messages of the library into the log of a fit."""

    def __init__(self, directory: RunDirectory) -> None:
        super().__init__(logging.INFO)
        self._directory = directory

    def emit(self, record: logging.LogRecord) -> None:
        """As in the base class."""
        self._directory.log(f"{record.levelname.lower()}: {record.getMessage()}")


@contextlib.contextmanager
def _log_file(directory: RunDirectory) -> Iterator[None]:
    """Messages and warnings of the library go into the log of the fit as well."""
    handler = _DirectoryHandler(directory)
    logger = logging.getLogger("etnpot")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
