"""Where a fit is: the counters and strengths that one step hands on to the next, as JSON values for checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self

__all__ = ["FIRST_DAMPING", "Counters", "Progress"]

#: mu of the first polish step.
FIRST_DAMPING = 1e-3
#: No counter of a fit reaches this.
_MOST = 2**53


@dataclass
class Counters:
    """Numbers, lists of integers and texts that are kept in a checkpoint; integers are counts."""

    seconds: float = 0.0
    finished: bool = False
    reason: str = ""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """The inverse of `asdict`; anything that a fit would not have written raises ValueError."""
        made = cls(**values)
        for item in fields(cls):
            value, default = getattr(made, item.name), getattr(cls(), item.name)
            numbers = value if isinstance(value, list) else [value]
            kinds = (int,) if isinstance(default, int | list) else (int, float)
            if isinstance(default, bool | str):
                sound = type(value) is type(default)
            else:
                sound = isinstance(value, list) == isinstance(default, list) and all(
                    (type(x) is type(default) and x == default)
                    or (type(x) in kinds and 0 <= x < (_MOST if type(x) is int else float("inf")))
                    for x in numbers
                )
            if not sound:
                raise ValueError(f"{item.name} is {value!r:.100}")
        return made


@dataclass
class Progress(Counters):
    """Where the fit of a potential is."""

    step: int = 0
    sweep_at: int = 0
    growth_at: int = 0
    due: bool = False
    polish_at: int = 0
    cycle_at: int = 0
    step_gain: float = 0.0
    parts_gain: float = 0.0
    skipped: int = 0
    repeated: int = 0
    slow: bool = False
    level: int = 0
    sample_sizes: list[int] = field(default_factory=list)
    stale: int = 0
    mu: float = FIRST_DAMPING
    feature_mu: float = FIRST_DAMPING
    ridge: float = 0.0
    best_loss: float = float("inf")
    best_penalty: float = 1.0
    forces_rmse: float = 0.0
    level_loss: float = float("inf")
    level_stale: int = 0
    mature: bool = False
    owed: float = 0.0
    temperature: float = 0.0
    runs: int = 0
