"""What a fit shows while it runs: a live table on a terminal, plain lines anywhere else.

One row per step: stage, parameters, root-mean-square errors of energy (meV/atom), forces (eV/Å) and stress
(GPa) on the training and the validation set, and the time. A star marks the best potential so far. On a
terminal the last rows stay in view over a line that tells what runs, for how long, and how much of a time
limit is left.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from etnpot.fitting.fit import error_cells
from etnpot.fitting.settings import FitSettings

__all__ = ["COLUMNS", "LiveProgress", "PlainProgress", "clock", "progress_display", "row"]

#: Headings of the table; the units are those of the module.
COLUMNS: tuple[str, ...] = (
    "step",
    "stage",
    "params",
    "E train",
    "valid",
    "F train",
    "valid",
    "S train",
    "valid",
    "time",
)
_WIDTHS = (4, 14, 6, 8, 8, 8, 8, 8, 8, 8)
_ROWS = 12


def row(record: Mapping[str, Any], settings: FitSettings) -> list[str]:
    """The cells of a step, with a star behind the time of the best one."""
    if record["stage"] == "sweep":
        stage = f"sweep {record['sweep'] + 1} core {record['core']}"
    elif record["stage"] == "features":
        stage = f"sweep {record['sweep'] + 1} feat."
    elif record["stage"] == "dynamics":
        stage = f"{record['falls']} falls"
    else:
        stage = record["stage"] + (f" core {record['core']}" if "core" in record else "")
        if record.get("sample", 1.0) < 1.0:
            stage += f" {100 * record['sample']:.0f}%"
    train, valid = (error_cells(record.get(name, {})) for name in ("train", "valid"))
    errors = [part[key] or "-" for key in "EFS" for part in (train, valid)]
    best = "*" if record.get("is_best") else ""
    return [
        str(record["step"]),
        stage,
        f"{record['n_parameters']}",
        *errors,
        f"{clock(record['seconds'])}{best}",
    ]


def heading(record: Mapping[str, Any]) -> str:
    """The line above the table, with the size of the local model once it has grown."""
    return f"RMSE: E meV/atom, F eV/Å, S GPa; * best so far; the model grows to {record['grows_to']:,} parameters"


def clock(seconds: float) -> str:
    """Seconds as 12.3s, 4:05 or 1:02:03."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def progress_display(settings: FitSettings, stream: TextIO | None = None) -> PlainProgress | LiveProgress:
    """The live table if `stream` (stdout) is a terminal, else plain lines."""
    stream = sys.stdout if stream is None else stream
    if stream.isatty():
        return LiveProgress(settings, stream)
    return PlainProgress(settings, stream)


class PlainProgress:
    """A line per step, for log files and pipes.

    Parameters
    ----------
    settings : FitSettings
    stream : text file
    """

    def __init__(self, settings: FitSettings, stream: TextIO) -> None:
        self._settings, self._stream = settings, stream
        self._has_heading = False

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def update(self, record: Mapping[str, Any]) -> None:
        """Show a step."""
        if not self._has_heading:
            self._has_heading = True
            self.note(heading(record))
            self._line(COLUMNS)
        self._line(row(record, self._settings))

    def note(self, text: str) -> None:
        """Show a line of text."""
        print(text, file=self._stream, flush=True)

    def _line(self, cells: Sequence[str]) -> None:
        padded = [
            c.ljust(w) if k == 1 else c.rjust(w) for k, (c, w) in enumerate(zip(cells, _WIDTHS, strict=True))
        ]
        self.note(" ".join(padded).rstrip())


class LiveProgress:
    """A table that is redrawn in place, by rich.

    Parameters
    ----------
    settings : FitSettings
    stream : text file
        A terminal.
    """

    def __init__(self, settings: FitSettings, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._settings = settings
        self._rows: list[list[str]] = []
        self._heading = ""
        self._spent, self._since = 0.0, time.monotonic()
        self._running = "preparing"
        self._live = Live(
            console=Console(file=stream, highlight=False), get_renderable=self._render, refresh_per_second=4
        )

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = ""
        self._live.stop()

    def update(self, record: Mapping[str, Any]) -> None:
        """Show a step."""
        self._rows.append(row(record, self._settings))
        self._heading = heading(record)
        self._spent, self._since = float(record["seconds"]), time.monotonic()
        self._running = f"step {record['step'] + 1}"
        self._live.refresh()

    def note(self, text: str) -> None:
        """A line of text above the table."""
        self._live.console.print(text, markup=False)

    def _render(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=None)
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
        for cells in self._rows[-_ROWS:]:
            table.add_row(*cells, style="bold" if cells[-1].endswith("*") else None)
        return Group(Text(self._heading, style="dim"), table, Text(self._status()))

    def _status(self) -> str:
        if not self._running:
            return ""
        elapsed = self._spent + time.monotonic() - self._since
        text = f"{self._running}: {clock(elapsed)}"
        limit = self._settings.time_limit
        if limit is not None:
            text += f", {clock(max(0.0, limit - elapsed))} left of {clock(limit)}"
        return text + "   (Ctrl-C ends after this step; --resume continues)"
