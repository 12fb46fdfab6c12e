"""What fits have in common that go step by step and continue from a state: where they are, and what they refuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import EtnpotError, RunDirectoryError, SpecificationError
from etnpot.fitting.progress import Counters

__all__ = ["Stepwise", "history_of", "plain"]

Floats = NDArray[np.float64]


class Stepwise(ABC):
    """A fit in progress; everything the next step depends on is in its state.

    Attributes
    ----------
    settings : dataclass
    history : list of dict
        The records of all steps.
    """

    #: What the state is one of, for the error of one that is not.
    _state_of: ClassVar[str] = "a fit"

    settings: Any
    history: list[dict[str, Any]]
    _progress: Counters

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self._progress.finished

    @property
    def reason(self) -> str:
        """Why the fit stopped."""
        return self._progress.reason

    @property
    def seconds(self) -> float:
        """Time spent, over all restarts."""
        return self._progress.seconds

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Everything the next step depends on: JSON values, and arrays."""

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Continue from a `state`; the data must be the same, and so must every setting but the limits of the run.

        Raises
        ------
        DataError, SpecificationError
            For other data and other settings.
        RunDirectoryError
            For values that are no state of this fit. Nothing has changed then.
        """
        try:
            self._restore(values, arrays)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            if isinstance(error, EtnpotError):
                raise
            raise RunDirectoryError(
                f"the checkpoint does not hold the state of {self._state_of} ({type(error).__name__}: {error!s:.200}); "
                "begin anew with --force (force=True)"
            ) from error

    @abstractmethod
    def _restore(self, values: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """The same; any error but those of etnpot says that the values are no state."""

    def _check_settings(self, before: Mapping[str, Any], limits: Collection[str], *others: str) -> None:
        """Refuse settings that are not those of a state, but for limits; `others` are known to differ."""
        now = plain(asdict(self.settings))
        changed = [k for k, v in before.items() if k not in limits and now.get(k) != plain(v)]
        changed += others
        if changed:
            raise SpecificationError(
                f"the checkpoint was made with other settings of {changed}; use the same ones, or --force to begin anew"
            )


def history_of(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records in a state."""
    history = values["history"]
    if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
        raise ValueError("the history is no list of records")
    return list(history)


def plain(value: Any) -> Any:
    """`value` as JSON has it: lists, strings as keys, and plain numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value
