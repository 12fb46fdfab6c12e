"""Damage to bytes, texts and JSON values, drawn from a generator: the same generator gives the same damage."""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["NUMBERS", "mutate_bytes", "mutate_text", "mutate_value"]

Rng = np.random.Generator

#: What stands in the place of a number or a word of a text.
NUMBERS: tuple[str, ...] = (
    "nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e308", "-1e308", "1e-320", "5e-324", "0", "-0", "-0.0",
    "-1", "1", "2", "3", "1e9", "1e-9", "999999999", "2147483647", "2147483648", "-2147483649", "4294967296",
    "9223372036854775807", "9223372036854775808", "1" + "0" * 30, "9" * 5000, "0x10", "1_000", "1.5", "1,5", "--1", "+-1",
    "1e", "e5", ".", "", "True", "none", "null", "٣", "１", "½", "∞", "1\u00a02", "\u202e1", "\ufeff1", "\x00", "'", '"', "{", "[",
)  # fmt: skip

#: Pieces of text that parsers stumble over.
_PIECES: tuple[str, ...] = (
    "\n", "\n\n", "\r\n", "\r", "\t", " ", "\x00", "\ufeff", "\u2028", "\x85", "ünï", "☃", "𝔘", "\ud7ff", "e\u0301", "\u202e",
    '"', "'", "\\", "=", ":", "{", "}", "[", "]", ",", "#", "&a", "*a", "!!python/object/apply:os.system [id]", "<<: ", "---\n",
    "%", "${HOME}", "@", "<!ENTITY x SYSTEM 'file:///etc/passwd'>", "&x;", "]]>", "-- ", "; DROP TABLE systems; ",
)  # fmt: skip

#: Values of other types than the ones expected.
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 13, 10**3, 10**6, 10**9, 10**12, 2**31, 2**63, 10**30, -(10**30), 0.0, -0.0, 0.5, 1.5, -1.5,
    1e-9, 1e-300, 5e-324, 1e9, 1e300, float("nan"), float("inf"), float("-inf"), "", "1", "nan", "Cu", "0e", "medium", "ünï\x00",
    "x" * 5000, [], [1], [0], [None], [1, 2, 3], [1e300] * 3, [[]], [[1]], ["0e"], {}, {"0e": 1}, {"0e": 10**12}, {"9o": 3},
    {"0e": -1}, {"": 1}, {"x": "y"}, [{}], [{"0e": 2}], "small", "large", "chebyshev", "bessel", "jacobi", "envelope", "l-bfgs",
)  # fmt: skip


def _some(rng: Rng, low: int, high: int) -> int:
    """An integer of a range whose small values come more often."""
    return int(low + (high - low) * rng.random() ** 2)


def mutate_bytes(content: bytes, rng: Rng, others: Sequence[bytes] = ()) -> bytes:
    """One to a few random changes of bytes: flips, cuts, copies, insertions, splices with `others`."""
    changed = bytearray(content)
    for _ in range(_some(rng, 1, 6)):
        n = len(changed)
        kind = rng.integers(9)
        if n == 0 or kind == 0:
            at = int(rng.integers(n + 1))
            changed[at:at] = rng.bytes(_some(rng, 1, 40))
            continue
        at = int(rng.integers(n))
        length = _some(rng, 1, max(2, min(n, 200)))
        if kind in (1, 2):
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            changed[at] = int(rng.integers(256))
        elif kind == 4:
            del changed[at:]
        elif kind == 5:
            del changed[at : at + length]
        elif kind == 6:
            to = int(rng.integers(n))
            changed[to:to] = changed[at : at + length] * _some(rng, 1, 5)
        elif kind == 7:
            changed[at : at + 8] = int(
                rng.choice([0, 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**40])
            ).to_bytes(8, rng.choice(["little", "big"]))  # fmt: skip
        elif others:
            other = others[int(rng.integers(len(others)))]
            changed = bytearray(bytes(changed[:at]) + other[int(rng.integers(len(other) + 1)) :])
    return bytes(changed)


def mutate_text(text: str, rng: Rng, others: Sequence[str] = ()) -> str:
    """One to a few random changes of words, lines and numbers, or of characters."""
    for _ in range(_some(rng, 1, 5)):
        kind = rng.integers(10)
        lines = text.split("\n")
        at = int(rng.integers(len(lines)))
        line = lines[at]
        words = line.split(" ")
        word = int(rng.integers(len(words)))
        if kind in (0, 1, 2):
            # also numbers inside quotes and after '='
            head, _, tail = words[word].rpartition("=")
            quote = '"' if tail.startswith('"') else ""
            words[word] = (
                (head + "=" if head else "") + quote + str(rng.choice(np.array(NUMBERS, dtype=object)))
            )
            lines[at] = " ".join(words)
        elif kind == 3:
            other = int(rng.integers(len(lines)))
            theirs = lines[other].split(" ")
            place = int(rng.integers(len(theirs)))
            if other == at:
                words[word], words[place % len(words)] = words[place % len(words)], words[word]
            else:
                words[word], theirs[place] = theirs[place], words[word]
                lines[other] = " ".join(theirs)
            lines[at] = " ".join(words)
        elif kind == 4:
            del lines[at]
        elif kind == 5:
            lines[at:at] = lines[int(rng.integers(len(lines))) :][: _some(rng, 1, 20)]
        elif kind == 6:
            place = int(rng.integers(len(line) + 1))
            lines[at] = line[:place] + str(rng.choice(np.array(_PIECES, dtype=object))) + line[place:]
        elif kind == 7:
            lines = lines[: at + 1]
            lines[-1] = line[: int(rng.integers(len(line) + 1))]
        elif kind == 8 and others:
            theirs = others[int(rng.integers(len(others)))].split("\n")
            lines = lines[:at] + theirs[int(rng.integers(len(theirs))) :]
        else:
            del words[word]
            lines[at] = " ".join(words)
        text = "\n".join(lines)
    return text


def mutate_value(value: Any, rng: Rng, depth: int = 0) -> Any:
    """A JSON value with one entry, somewhere, replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = list(value)[int(rng.integers(len(value)))]
        changed = dict(value)
        kind = rng.random()
        if kind < 0.06:
            del changed[key]
        elif kind < 0.1:
            changed[str(rng.choice(np.array(NUMBERS, dtype=object)))] = value[key]
        else:
            changed[key] = mutate_value(value[key], rng, depth + 1)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = int(rng.integers(len(value)))
        kind = rng.random()
        if kind < 0.1:
            return value[:at] + value[at + 1 :]
        if kind < 0.2:
            return value[:at] + value[at : at + 1] * _some(rng, 2, 6) + value[at:]
        return [*value[:at], mutate_value(value[at], rng, depth + 1), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.4:
        return [
            value + 1,
            value - 1,
            -value,
            value * 10,
            float(value),
            int(value) if abs(value) < 1e15 else 0,
        ][int(rng.integers(6))]
    return _VALUES[int(rng.integers(len(_VALUES)))]
