"""Every exception that etnpot raises on purpose.

A message says what was expected, what was got, and what to do. All of them derive from `EtnpotError`, so that
a caller can catch the whole family, and each also from the built-in class that a Python programmer would
expect.
"""

from __future__ import annotations

__all__ = [
    "ConvergenceError",
    "DataError",
    "EtnpotError",
    "ExtrapolationError",
    "ExtrapolationWarning",
    "InstallationError",
    "PotentialFileError",
    "PotentialFileNotFoundError",
    "RunDirectoryError",
    "SpeciesError",
    "SpecificationError",
    "StructureError",
]


class EtnpotError(Exception):
    """Base class of all etnpot errors."""


class SpecificationError(EtnpotError, ValueError):
    """A setting of a potential, a fit or a command is wrong; the message names the field."""


class SpeciesError(EtnpotError, ValueError):
    """A chemical element is not known to a potential or to the periodic table."""


class StructureError(EtnpotError, ValueError):
    """An atomic structure cannot be evaluated: no atoms, NaN positions, coinciding atoms, singular cell."""


class DataError(EtnpotError, ValueError):
    """A data set cannot be read or lacks what was asked for."""


class PotentialFileError(EtnpotError, RuntimeError):
    """A potential file is damaged, foreign, or of a format version that this library does not know."""


class PotentialFileNotFoundError(PotentialFileError, FileNotFoundError):
    """There is no potential file at the path that was given."""


class RunDirectoryError(EtnpotError, RuntimeError):
    """The directory of a fit cannot be used.

    In use, not writable, or holding another fit or a damaged checkpoint.
    """


class ConvergenceError(EtnpotError, RuntimeError):
    """A numerical procedure did not reach what it promised."""


class ExtrapolationError(EtnpotError, RuntimeError):
    """A run was stopped because its potential guesses: the extrapolation grade passed the threshold that was set."""


class InstallationError(EtnpotError, RuntimeError):
    """Something that belongs to the installation is missing or damaged.

    A file of the package, or an optional package that what was asked for needs; the message names it.
    """


class ExtrapolationWarning(UserWarning):
    """A structure lies outside the range in which the potential was fitted."""
