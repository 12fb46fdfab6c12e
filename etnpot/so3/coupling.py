# ruff: noqa: E741 (l is the angular momentum)
r"""Exact Clebsch-Gordan coefficients for real spherical harmonics.

With x[m1] an object of angular momentum l1 and y[m2] one of l2, both in the basis of real harmonics,

    z[m3] = sum_{m1 m2} C^{l3 m3}_{l1 m1, l2 m2} x[m1] y[m2]                                            (1)

is an object of angular momentum l3. The coefficients are real and orthonormal,

    sum_{m1 m2} C^{l3 m3}_{l1 m1, l2 m2} C^{l3' m3'}_{l1 m1, l2 m2} = delta_{l3 l3'} delta_{m3 m3'}      (2)

**From complex to real.** The real harmonics are S_lm = sum_μ U^l[m, μ] Y_lμ, where Y_lμ are the complex ones
with the Condon-Shortley sign and, for a > 0,

    S_l0     = Y_l0
    S_l,+a   = ( (-1)^a Y_l,a + Y_l,-a ) / √2
    S_l,-a   = ( (-1)^a Y_l,a - Y_l,-a ) / (i √2)                                                        (3)

so that S_1m is proportional to (y, z, x). The complex coefficients <l1 μ1 l2 μ2 | l3 μ3> then become

    C[m1, m2, m3] = η sum_{μ1+μ2=μ3} U^l1[m1, μ1]* U^l2[m2, μ2]* U^l3[m3, μ3] <l1 μ1 l2 μ2 | l3 μ3>      (4)

**Phase convention** (part of the potential file format; never to be changed): the complex coefficients follow
Condon and Shortley, and

    η = 1 when l1+l2+l3 is even,  η = -i when it is odd.                                                 (5)

Consequences, all of them tested:

- (l, 0 -> l) and (0, l -> l) are the identity, with a plus sign;
- exchange: C^{l3 m3}_{l1 m1, l2 m2} = (-1)^(l1+l2-l3) C^{l3 m3}_{l2 m2, l1 m1};
- C[0, 0, 0] (all m = 0) equals <l1 0 l2 0 | l3 0>, hence the product of two harmonics of one direction is
  sqrt((2l1+1)(2l2+1) / (4π(2l3+1))) <l1 0 l2 0 | l3 0> times the harmonic l3;
- (1, 1 -> 0) is -a·b/√3 and (1, 1 -> 1) is +a×b/√2.

**Exactness.** In (4) at most two terms survive, (μ1, μ2, μ3) and its negative, and their complex coefficients
differ only by the sign (-1)^(l1+l2-l3). Each C is therefore a small integer times 2^(-n/2) times a single
complex coefficient: the signed square root of a rational number. That rational is computed by sympy; the
float64 values are its square roots rounded correctly, and what is zero is exactly 0.0.

==========================  ====================================================================
symbol                      variable
==========================  ====================================================================
C^{l3 m3}_{l1 m1, l2 m2}    `clebsch_gordan` ``[l1+m1, l2+m2, l3+m3]``
nonzeros of C               `coupling_table`: ``m_triples`` (zero-based l+m), ``values``
sign(C) C²                  `signed_squares`
U^l[m, μ]                   `_real_from_complex`
==========================  ====================================================================

Coefficients up to `STORED_L_MAX` are package data. Others are computed when first asked for and kept in
``$XDG_CACHE_HOME/etnpot/so3`` (by default ``~/.cache/etnpot/so3``). That cache is only ever a convenience: a
file that is damaged, or a directory that cannot be written, costs a new computation and nothing else.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from etnpot.errors import InstallationError, SpecificationError
from etnpot.so3.irreps import angular_momentum

if TYPE_CHECKING:
    import sympy

__all__ = ["STORED_L_MAX", "clebsch_gordan", "coupling_table", "exact_clebsch_gordan", "signed_squares"]

logger = logging.getLogger(__name__)

#: Every coefficient with l1, l2 and l3 up to this one is package data.
STORED_L_MAX = 6

#: Version of the arrays inside the package data and the user cache.
TABLE_FORMAT = 1

#: Name of the package data file, beside this module.
TABLE_FILE = "clebsch_gordan.npz"

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Table: TypeAlias = tuple[IntArray, FloatArray]
Path3: TypeAlias = tuple[int, int, int]


def clebsch_gordan(l1: int, l2: int, l3: int) -> FloatArray:
    """Real Clebsch-Gordan coefficients of the path (l1, l2 -> l3), dense.

    Parameters
    ----------
    l1, l2, l3 : int
        Angular momenta with |l1-l2| <= l3 <= l1+l2.

    Returns
    -------
    ndarray, shape [2 l1 + 1, 2 l2 + 1, 2 l3 + 1], float64, dimensionless
        ``C[l1+m1, l2+m2, l3+m3]`` of eq. (1). Read-only, and shared between callers.

    Raises
    ------
    SpecificationError
        If an l is not an integer >= 0 or the triangle rule does not hold.
    """
    return _dense(*_checked_path(l1, l2, l3))


def coupling_table(l1: int, l2: int, l3: int) -> Table:
    """Nonzero coefficients of the path (l1, l2 -> l3), sorted by (m3, m1, m2).

    Parameters
    ----------
    l1, l2, l3 : int
        As for `clebsch_gordan`.

    Returns
    -------
    m_triples : ndarray, shape [nonzero, 3], int64
        Zero-based indices (l1+m1, l2+m2, l3+m3). Read-only.
    values : ndarray, shape [nonzero], float64, dimensionless
        The coefficients, none of them zero. Read-only.
    """
    return _table(*_checked_path(l1, l2, l3))


def exact_clebsch_gordan(l1: int, l2: int, l3: int) -> sympy.ImmutableDenseNDimArray:
    """Real Clebsch-Gordan coefficients of the path (l1, l2 -> l3) as exact sympy numbers.

    Parameters
    ----------
    l1, l2, l3 : int
        As for `clebsch_gordan`.

    Returns
    -------
    sympy.ImmutableDenseNDimArray, shape (2 l1 + 1, 2 l2 + 1, 2 l3 + 1)
        Signed square roots of rationals, with the indices of `clebsch_gordan`.
    """
    import sympy

    l1, l2, l3 = _checked_path(l1, l2, l3)
    shape = (2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)
    entries = [sympy.Integer(0)] * math.prod(shape)
    for (i1, i2, i3), square in signed_squares(l1, l2, l3).items():
        root = sympy.sqrt(sympy.Rational(abs(square.numerator), square.denominator))
        entries[(i1 * shape[1] + i2) * shape[2] + i3] = root if square > 0 else -root
    return sympy.ImmutableDenseNDimArray(entries, shape)


def signed_squares(l1: int, l2: int, l3: int) -> dict[Path3, Fraction]:
    """Exact sign(C) C² of every nonzero coefficient of one path, by eqs. (3) to (5).

    Parameters
    ----------
    l1, l2, l3 : int
        As for `clebsch_gordan`.

    Returns
    -------
    dict
        From the zero-based (l1+m1, l2+m2, l3+m3), in the order of `coupling_table`, to a nonzero rational.

    Notes
    -----
    Imports sympy. The cost is that of about (2 l1 + 1)(2 l2 + 1) / 2 complex coefficients.
    """
    l1, l2, l3 = _checked_path(l1, l2, l3)
    mirror = (-1) ** (l1 + l2 - l3)  # <-μ1 -μ2 | -μ3> = mirror * <μ1 μ2 | μ3>
    eta = 3 * ((l1 + l2 + l3) % 2)  # η = i^eta, eq. (5)

    @functools.cache
    def complex_square(mu1: int, mu2: int) -> Fraction:
        return _complex_signed_square(l1, mu1, l2, mu2, l3)

    squares: dict[Path3, Fraction] = {}
    for m3 in range(-l3, l3 + 1):
        for m1 in range(-l1, l1 + 1):
            for m2 in range(-l2, l2 + 1):
                if abs(m3) not in (abs(m1) + abs(m2), abs(abs(m1) - abs(m2))):
                    continue
                # The sum of eq. (4), its terms referred to the complex coefficient with (μ1, μ2) >= (0, 0).
                gaussian = [0, 0]  # real and imaginary part of the sum of the phases
                reference = (0, 0)
                for mu1, k1 in _real_from_complex(m1):
                    for mu2, k2 in _real_from_complex(m2):
                        for mu3, k3 in _real_from_complex(m3):
                            if mu1 + mu2 != mu3:
                                continue
                            k = (eta - k1 - k2 + k3) % 4
                            sign = 1 if k < 2 else -1
                            if (mu1, mu2) < (0, 0):
                                sign *= mirror
                            gaussian[k % 2] += sign
                            reference = max((mu1, mu2), (-mu1, -mu2))
                real, imaginary = gaussian
                if imaginary and complex_square(*reference):
                    raise ArithmeticError(f"expected ({l1}, {l2} -> {l3}) to be real, got a complex value")
                if real == 0:
                    continue
                n_mixed = (m1 != 0) + (m2 != 0) + (m3 != 0)  # one factor 1/√2 from each
                square = Fraction(real * abs(real), 2**n_mixed) * complex_square(*reference)
                if square:
                    squares[l1 + m1, l2 + m2, l3 + m3] = square
    return squares


def table_from_squares(squares: dict[Path3, Fraction]) -> Table:
    """The float64 table of `signed_squares`: its correctly rounded signed square roots."""
    m_triples = np.array(list(squares), dtype=np.int64).reshape(-1, 3)
    values = np.array([_signed_sqrt(square) for square in squares.values()], dtype=np.float64)
    return m_triples, values


def _checked_path(l1: int, l2: int, l3: int) -> Path3:
    """The path as Python ints, or an error that says why there is none."""
    l1, l2, l3 = (angular_momentum(l, name=name) for l, name in ((l1, "l1"), (l2, "l2"), (l3, "l3")))
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise SpecificationError(
            f"path ({l1}, {l2} -> {l3}): expected |l1-l2| <= l3 <= l1+l2, got l3 = {l3}; "
            f"choose l3 between {abs(l1 - l2)} and {l1 + l2}"
        )
    return l1, l2, l3


def _real_from_complex(m: int) -> tuple[tuple[int, int], ...]:
    """Row m of U^l in eq. (3), for any l: pairs (μ, k) with U^l[m, μ] = i^k / √2, or i^k for m = 0."""
    a = abs(m)
    if m == 0:
        return ((0, 0),)
    if m > 0:
        return ((a, 2 * a), (-a, 0))
    return ((a, 2 * a + 3), (-a, 1))


def _complex_signed_square(l1: int, mu1: int, l2: int, mu2: int, l3: int) -> Fraction:
    """sign(c) c² of the complex coefficient c = <l1 μ1 l2 μ2 | l3 μ1+μ2>, exactly, by sympy."""
    from sympy.physics.wigner import clebsch_gordan as complex_clebsch_gordan

    coefficient = complex_clebsch_gordan(l1, l2, l3, mu1, mu2, mu1 + mu2)
    square = coefficient**2
    if not square.is_Rational:
        raise ArithmeticError(f"expected a coefficient with a rational square from sympy, got {coefficient}")
    return (-1 if coefficient.is_negative else 1) * Fraction(int(square.p), int(square.q))


def _signed_sqrt(square: Fraction) -> float:
    """sign(s) √|s| as the nearest float64."""
    numerator, denominator = abs(square.numerator), square.denominator
    # Scale by 4^shift so that the integer root has more than 64 bits, and mark in its last bit that something
    # was cut off: the conversion to float then rounds as it would have rounded the exact root.
    shift = max(0, (denominator.bit_length() - numerator.bit_length()) // 2 + 1) + 66
    quotient, remainder = divmod(numerator << (2 * shift), denominator)
    root = math.isqrt(quotient)
    if remainder or root * root != quotient:
        root |= 1
    return math.copysign(math.ldexp(float(root), -shift), square.numerator)


@functools.cache
def _dense(l1: int, l2: int, l3: int) -> FloatArray:
    dense = _dense_from_table((l1, l2, l3), _table(l1, l2, l3))
    dense.flags.writeable = False
    return dense


@functools.cache
def _table(l1: int, l2: int, l3: int) -> Table:
    if l1 > l2:  # only l1 <= l2 is stored; the exchange is a sign
        swapped, values = _table(l2, l1, l3)
        m_triples = swapped[:, (1, 0, 2)]
        order = np.lexsort((m_triples[:, 1], m_triples[:, 0], m_triples[:, 2]))
        m_triples, values = m_triples[order], (-1) ** (l1 + l2 - l3) * values[order]
    elif max(l2, l3) <= STORED_L_MAX:
        m_triples, values = _stored_tables()[l1, l2, l3]
    else:
        m_triples, values = _computed_table((l1, l2, l3))
    m_triples.flags.writeable = False
    values.flags.writeable = False
    return m_triples, values


def _dense_from_table(path: Path3, table: Table) -> FloatArray:
    l1, l2, l3 = path
    m_triples, values = table
    dense = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    dense[m_triples[:, 0], m_triples[:, 1], m_triples[:, 2]] = values
    return dense


@functools.cache
def _stored_tables() -> dict[Path3, Table]:
    """All tables of the package data, read once."""
    from importlib.resources import as_file, files

    try:
        with as_file(files("etnpot.so3") / TABLE_FILE) as file:
            return read_tables(file)
    except Exception as error:
        raise InstallationError(
            f"expected the coupling coefficients in etnpot/so3/{TABLE_FILE}, "
            f"got {type(error).__name__}: {error}; "
            "reinstall etnpot, or write the file again with `python -m etnpot.so3.generate`"
        ) from error


def write_tables(file: Path, tables: dict[Path3, Table]) -> None:
    """Write coupling tables, atomically: the file is either complete or as it was before.

    Parameters
    ----------
    file : Path
        Where to; the directory must exist.
    tables : dict
        From (l1, l2, l3) to what `coupling_table` returns.

    Notes
    -----
    The file is a compressed npz of ``table_format`` int64 [], ``paths`` uint16 [path, 3], ``n_nonzero`` int64
    [path], ``m_triples`` uint16 [nonzero, 3] and ``values`` float64 [nonzero], paths one after the other.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "xb") as stream:
            np.savez_compressed(
                stream,
                table_format=np.int64(TABLE_FORMAT),
                paths=np.array(list(tables), dtype=np.uint16),
                n_nonzero=np.array([len(values) for _, values in tables.values()], dtype=np.int64),
                m_triples=np.concatenate([m_triples for m_triples, _ in tables.values()]).astype(np.uint16),
                values=np.concatenate([values for _, values in tables.values()]),
            )
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def read_tables(file: Path) -> dict[Path3, Table]:
    """Read what `write_tables` wrote. Whatever numpy and zipfile raise for a damaged file is passed on."""
    # The stream is opened here because np.load forgets to close it when the archive is damaged.
    with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        table_format = int(archive["table_format"])
        if table_format != TABLE_FORMAT:
            raise ValueError(f"expected coupling table format {TABLE_FORMAT}, got {table_format}")
        paths, n_nonzero = archive["paths"], archive["n_nonzero"]
        m_triples = archive["m_triples"].astype(np.int64)
        values = archive["values"].astype(np.float64)
    stops = np.cumsum(n_nonzero)[:-1]
    tables = zip(np.split(m_triples, stops), np.split(values, stops), strict=True)
    return {(int(l1), int(l2), int(l3)): table for (l1, l2, l3), table in zip(paths, tables, strict=True)}


def _computed_table(path: Path3) -> Table:
    """A table beyond the package data: from the user's cache if it holds a sound one, else from sympy."""
    directory = _cache_directory()
    file = None if directory is None else directory / "cg-v{}-{}-{}-{}.npz".format(TABLE_FORMAT, *path)
    if file is not None:
        try:
            table = read_tables(file)[path]
            _check_orthonormal(path, table)
            return table
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever is wrong with a cache file, the answer is to compute it again
            logger.debug("ignoring the coupling cache %s: %s", file, error)
    table = table_from_squares(signed_squares(*path))
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_tables(file, {path: table})
        except OSError as error:
            logger.debug("cannot write the coupling cache %s: %s", file, error)
    return table


def _check_orthonormal(path: Path3, table: Table) -> None:
    """Raise ValueError or IndexError unless the table satisfies eq. (2)."""
    dense = _dense_from_table(path, table)
    gram = np.einsum("abi,abj->ij", dense, dense)
    if not np.allclose(gram, np.eye(2 * path[2] + 1), rtol=0.0, atol=1e-12):
        raise ValueError("the coefficients are not orthonormal")


def _cache_directory() -> Path | None:
    """The user's cache directory, or None without a home. XDG asks to ignore a relative XDG_CACHE_HOME."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:  # no home directory
        return None
    return root / "etnpot" / "so3"
