# ruff: noqa: E741 (l is the angular momentum)
"""Clebsch-Gordan coefficients against quadrature, rotations, sympy and known values; the user cache."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.special import sph_harm_y

from etnpot.errors import InstallationError, SpecificationError
from etnpot.so3 import clebsch_gordan, coupling, coupling_table, exact_clebsch_gordan, generate

L_MAX = coupling.STORED_L_MAX
PATHS = [
    (l1, l2, l3)
    for l1, l2 in itertools.product(range(L_MAX + 1), repeat=2)
    for l3 in range(abs(l1 - l2), min(l1 + l2, L_MAX) + 1)
]


def scipy_harmonics(l: int, r_pc: np.ndarray) -> np.ndarray:
    """Real harmonics [m, point] of the unit vectors ``r_pc``, made from scipy's complex ones."""
    theta, phi = np.arccos(np.clip(r_pc[:, 2], -1.0, 1.0)), np.arctan2(r_pc[:, 1], r_pc[:, 0])
    rows = []
    for m in range(-l, l + 1):
        y = sph_harm_y(l, abs(m), theta, phi)
        sign = (-1) ** m * np.sqrt(2.0)
        rows.append(y.real if m == 0 else sign * (y.real if m > 0 else y.imag))
    return np.array(rows)


@functools.cache
def quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Points [point, 3] and weights [point], exact for polynomials up to degree 3 L_MAX on the sphere."""
    n = 3 * L_MAX // 2 + 1
    z, w = np.polynomial.legendre.leggauss(n)
    phi = 2.0 * np.pi * np.arange(2 * n + 1) / (2 * n + 1)
    s = np.sqrt(1.0 - z**2)
    points = np.stack(
        [np.outer(s, np.cos(phi)), np.outer(s, np.sin(phi)), np.outer(z, np.ones_like(phi))], axis=-1
    )
    return points.reshape(-1, 3), np.repeat(w, len(phi)) * 2.0 * np.pi / len(phi)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.linalg.det(q)


def fitted_rotation_matrix(l: int, rotation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """D with Y_l(R r) = D Y_l(r), by least squares over random directions and scipy's harmonics."""
    r_pc = rng.normal(size=(6 * (2 * l + 1), 3))
    r_pc /= np.linalg.norm(r_pc, axis=1, keepdims=True)
    solution, *_ = np.linalg.lstsq(
        scipy_harmonics(l, r_pc).T, scipy_harmonics(l, r_pc @ rotation.T).T, rcond=None
    )
    return solution.T


def test_every_pair_is_orthonormal_and_complete() -> None:
    """For all l1, l2 <= 6 with every l3 up to l1+l2 <= 6: the map to ⊕ l3 is orthogonal, both ways."""
    for l1, l2 in itertools.product(range(L_MAX + 1), repeat=2):
        shape = (2 * l1 + 1) * (2 * l2 + 1)
        l3s = range(abs(l1 - l2), min(l1 + l2, L_MAX) + 1)
        columns = np.concatenate([clebsch_gordan(l1, l2, l3).reshape(shape, -1) for l3 in l3s], axis=1)
        np.testing.assert_allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=4e-15)
        if l1 + l2 <= L_MAX:
            np.testing.assert_allclose(columns @ columns.T, np.eye(shape), atol=4e-15)


@pytest.mark.parametrize(("l1", "l2", "l3"), PATHS)
def test_weighted_right_orthogonality(l1: int, l2: int, l3: int) -> None:
    """sum_{m2 m3} C[m1] C[m1'] = (2 l3 + 1)/(2 l1 + 1) delta: the weight of right-orthogonal cores."""
    c = clebsch_gordan(l1, l2, l3)
    weight = (2 * l3 + 1) / (2 * l1 + 1)
    np.testing.assert_allclose(np.einsum("abc,dbc->ad", c, c), weight * np.eye(2 * l1 + 1), atol=1e-14)


def test_natural_paths_equal_gaunt_integrals() -> None:
    """∫ Y1 Y2 Y3 = g C with one g per path, g by quadrature; and its square as the 3j formula has it."""
    points, weights = quadrature()
    y = [scipy_harmonics(l, points) for l in range(L_MAX + 1)]
    for l1, l2, l3 in PATHS:
        gaunt = np.einsum("ap,bp,cp,p->abc", y[l1], y[l2], y[l3], weights, optimize=True)
        if (l1 + l2 + l3) % 2:
            np.testing.assert_allclose(gaunt, 0.0, atol=1e-13)
            continue
        c = clebsch_gordan(l1, l2, l3)
        g = np.sum(c * gaunt) / (2 * l3 + 1)
        np.testing.assert_allclose(gaunt, g * c, atol=1e-13)
        scale = np.sqrt((2 * l1 + 1) * (2 * l2 + 1) / (4 * np.pi * (2 * l3 + 1)))
        assert g == pytest.approx(scale * c[l1, l2, l3], abs=1e-13)
        assert abs(g) > 1e-3


def test_product_of_harmonics_is_a_sum_of_harmonics(rng: np.random.Generator) -> None:
    r_pc = rng.normal(size=(40, 3))
    r_pc /= np.linalg.norm(r_pc, axis=1, keepdims=True)
    for l1, l2, l3 in PATHS:
        c = clebsch_gordan(l1, l2, l3)
        coupled = np.einsum("abc,ap,bp->cp", c, scipy_harmonics(l1, r_pc), scipy_harmonics(l2, r_pc))
        scale = np.sqrt((2 * l1 + 1) * (2 * l2 + 1) / (4 * np.pi * (2 * l3 + 1)))
        factor = 0.0 if (l1 + l2 + l3) % 2 else scale * c[l1, l2, l3]
        np.testing.assert_allclose(coupled, factor * scipy_harmonics(l3, r_pc), atol=1e-13)


def test_equivariance_under_rotations(rng: np.random.Generator) -> None:
    """All paths, odd ones included: D3ᵀ C (D1 x D2) = C with D fitted to scipy's harmonics."""
    for _ in range(2):
        rotation = random_rotation(rng)
        d = [fitted_rotation_matrix(l, rotation, rng) for l in range(L_MAX + 1)]
        for l1, l2, l3 in PATHS:
            c = clebsch_gordan(l1, l2, l3)
            turned = np.einsum("xyz,xa,yb,zc->abc", c, d[l1], d[l2], d[l3], optimize=True)
            np.testing.assert_allclose(turned, c, atol=1e-12, err_msg=f"({l1}, {l2} -> {l3})")


def test_equivariance_test_sees_a_wrong_sign(rng: np.random.Generator) -> None:
    rotation = random_rotation(rng)
    d1, d2 = (fitted_rotation_matrix(l, rotation, rng) for l in (1, 2))
    broken = clebsch_gordan(1, 1, 2).copy()
    i1, i2, i3 = np.argwhere(broken)[0]
    broken[i1, i2, i3] *= -1
    turned = np.einsum("xyz,xa,yb,zc->abc", broken, d1, d1, d2)
    assert np.abs(turned - broken).max() > 1e-2


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_coupling_with_a_scalar_is_exactly_the_identity(l: int) -> None:
    assert np.array_equal(clebsch_gordan(l, 0, l)[:, 0, :], np.eye(2 * l + 1))
    assert np.array_equal(clebsch_gordan(0, l, l)[0], np.eye(2 * l + 1))


def test_two_vectors_couple_to_dot_and_cross_product(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 3))
    yzx = np.array([1, 2, 0])
    scalar = np.einsum("abc,a,b->c", clebsch_gordan(1, 1, 0), a[yzx], b[yzx])
    vector = np.einsum("abc,a,b->c", clebsch_gordan(1, 1, 1), a[yzx], b[yzx])
    np.testing.assert_allclose(scalar, [-a @ b / np.sqrt(3.0)], atol=1e-15)
    np.testing.assert_allclose(vector, np.cross(a, b)[yzx] / np.sqrt(2.0), atol=1e-15)
    zz_to_zz = clebsch_gordan(1, 1, 2)[1, 1, 2]
    assert zz_to_zz == pytest.approx(np.sqrt(2.0 / 3.0), rel=1e-15)


@pytest.mark.parametrize("l", range(L_MAX + 1))
def test_scalar_product_sign(l: int) -> None:
    """(l, l -> 0) is (-1)^l times the dot product over sqrt(2l+1)."""
    expected = (-1) ** l * np.eye(2 * l + 1) / np.sqrt(2 * l + 1)
    np.testing.assert_allclose(clebsch_gordan(l, l, 0)[:, :, 0], expected, atol=1e-15)


def test_exchange_sign_is_exact() -> None:
    for l1, l2, l3 in PATHS:
        exchanged = clebsch_gordan(l2, l1, l3).transpose(1, 0, 2)
        assert np.array_equal(clebsch_gordan(l1, l2, l3), (-1) ** (l1 + l2 - l3) * exchanged)


@pytest.mark.parametrize(
    ("l1", "l2", "l3"), [(1, 1, 1), (1, 2, 2), (2, 1, 3), (2, 2, 1), (2, 2, 2), (3, 2, 4), (3, 3, 3)]
)
def test_documented_phase_by_brute_force(l1: int, l2: int, l3: int) -> None:
    """Eqs. (3) to (5) as they stand: full unitary matrices, sympy's complex coefficients as floats."""
    from sympy.physics.wigner import clebsch_gordan as complex_clebsch_gordan

    def unitary(l: int) -> np.ndarray:
        u = np.zeros((2 * l + 1, 2 * l + 1), dtype=complex)
        u[l, l] = 1.0
        for a in range(1, l + 1):
            u[l + a, l + a], u[l + a, l - a] = (-1) ** a / np.sqrt(2.0), 1.0 / np.sqrt(2.0)
            u[l - a, l + a], u[l - a, l - a] = -1j * (-1) ** a / np.sqrt(2.0), 1j / np.sqrt(2.0)
        return u

    complex_c = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1, m2 in itertools.product(range(-l1, l1 + 1), range(-l2, l2 + 1)):
        if abs(m1 + m2) <= l3:
            value = float(complex_clebsch_gordan(l1, l2, l3, m1, m2, m1 + m2))
            complex_c[l1 + m1, l2 + m2, l3 + m1 + m2] = value
    eta = -1j if (l1 + l2 + l3) % 2 else 1.0
    real_c = eta * np.einsum(
        "am,bn,co,mno->abc", unitary(l1).conj(), unitary(l2).conj(), unitary(l3), complex_c, optimize=True
    )
    np.testing.assert_allclose(real_c, clebsch_gordan(l1, l2, l3), atol=1e-14)


@pytest.mark.parametrize(
    ("l1", "l2", "l3"), [(0, 0, 0), (1, 1, 2), (2, 1, 2), (2, 3, 4), (4, 3, 2), (6, 0, 6), (3, 6, 6)]
)
def test_stored_values_equal_sympy(l1: int, l2: int, l3: int) -> None:
    """Every stored float is within one unit in the last place of the exact number; zeros are zeros."""
    c = clebsch_gordan(l1, l2, l3)
    exact = exact_clebsch_gordan(l1, l2, l3)
    assert exact.shape == c.shape
    for index in itertools.product(*map(range, c.shape)):
        reference = float(exact[index].evalf(30))
        assert abs(c[index] - reference) <= np.spacing(abs(reference)) * (reference != 0.0)


def test_exact_values_are_exactly_orthonormal() -> None:
    import sympy

    c = exact_clebsch_gordan(2, 1, 2)
    for i3, j3 in itertools.product(range(5), repeat=2):
        total = sum(c[i1, i2, i3] * c[i1, i2, j3] for i1 in range(5) for i2 in range(3))
        assert sympy.expand(total) == int(i3 == j3)


@pytest.mark.parametrize(("l1", "l2", "l3"), PATHS[::7])
def test_table_equals_dense(l1: int, l2: int, l3: int) -> None:
    c = clebsch_gordan(l1, l2, l3)
    m_triples, values = coupling_table(l1, l2, l3)
    assert m_triples.dtype == np.int64 and values.dtype == c.dtype == np.float64
    assert m_triples.shape == (np.count_nonzero(c), 3) and values.shape == (len(m_triples),)
    assert np.all(values != 0.0)
    assert np.array_equal(c[tuple(m_triples.T)], values)
    m3_m1_m2 = [(m3, m1, m2) for m1, m2, m3 in m_triples.tolist()]
    assert m3_m1_m2 == sorted(m3_m1_m2)


def test_selection_rule_and_signless_zeros() -> None:
    for l1, l2, l3 in PATHS:
        c = clebsch_gordan(l1, l2, l3)
        m1, m2, m3 = (np.abs(np.arange(-l, l + 1)) for l in (l1, l2, l3))
        total = m1[:, None, None] + m2[None, :, None]
        difference = np.abs(m1[:, None, None] - m2[None, :, None])
        allowed = (total == m3) | (difference == m3)
        assert not np.any(c[~allowed])
        assert not np.any(np.signbit(c[c == 0.0]))
        assert c.min() >= -1.0 and c.max() <= 1.0


def test_arrays_are_shared_and_read_only() -> None:
    assert clebsch_gordan(2, 1, 3) is clebsch_gordan(np.int64(2), 1, 3)
    m_triples, values = coupling_table(2, 1, 3)
    for array in (clebsch_gordan(2, 1, 3), m_triples, values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("function", [clebsch_gordan, coupling_table, exact_clebsch_gordan])
def test_bad_paths_are_refused(function: object) -> None:
    assert callable(function)
    for path in [(1, 1, 3), (0, 2, 1), (5, 1, 3)]:
        with pytest.raises(SpecificationError, match=r"expected \|l1-l2\| <= l3 <= l1\+l2"):
            function(*path)
    for path in [(-1, 1, 1), (1, 1.0, 1), (1, 1, "1"), (True, 1, 1)]:
        with pytest.raises(SpecificationError, match=r"l[123]: expected an angular momentum"):
            function(*path)


# Package data


def test_package_data_is_complete_small_and_quick() -> None:
    file = Path(coupling.__file__).with_name(coupling.TABLE_FILE)
    assert file.stat().st_size < 100_000
    coupling._stored_tables.cache_clear()
    elapsed = []
    for _ in range(5):
        start = time.perf_counter()
        tables = coupling.read_tables(file)
        elapsed.append(time.perf_counter() - start)
    assert list(tables) == generate.stored_paths()
    assert min(elapsed) < 0.05  # a few milliseconds on an idle machine


def test_stored_values_do_not_import_sympy() -> None:
    code = (
        "import sys, etnpot.so3 as so3; so3.clebsch_gordan(6, 6, 6); "
        "sys.exit(bool({'sympy', 'scipy', 'numba'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(coupling.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_missing_package_data_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coupling, "TABLE_FILE", "missing.npz")
    with pytest.raises(InstallationError, match="reinstall etnpot"):
        coupling._stored_tables.__wrapped__()


def test_generator_writes_what_is_stored(tmp_path: Path) -> None:
    file = tmp_path / "tables.npz"
    assert generate.main(["--out", str(file), "--l-max", "2"]) == 0
    stored = coupling.read_tables(Path(coupling.__file__).with_name(coupling.TABLE_FILE))
    written = coupling.read_tables(file)
    assert list(written) == generate.stored_paths(2)
    assert generate.differences(written, {path: stored[path] for path in written}) == []
    before = file.read_bytes()
    assert generate.main(["--out", str(file), "--l-max", "2"]) == 0
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_generator_check_sees_one_changed_bit(tmp_path: Path) -> None:
    file = tmp_path / "tables.npz"
    tables = generate.generate_tables(2)
    coupling.write_tables(file, tables)
    assert generate.main(["--out", str(file), "--l-max", "2", "--check"]) == 0
    m_triples, values = tables[1, 2, 2]
    values = values.copy()
    values[0] = np.nextafter(values[0], 1.0)
    coupling.write_tables(file, {**tables, (1, 2, 2): (m_triples, values)})
    assert generate.main(["--out", str(file), "--l-max", "2", "--check"]) == 1


# The user's cache, with the cheapest path beyond the package data

BEYOND = (1, 6, 7)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no table in memory; returns the file that `BEYOND` would use."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for function in (coupling._table, coupling._dense):
        function.cache_clear()
    return tmp_path / "etnpot" / "so3" / "cg-v1-1-6-7.npz"


def forget() -> None:
    coupling._table.cache_clear()
    coupling._dense.cache_clear()


def assert_sound(c: np.ndarray) -> None:
    assert c.shape == (3, 13, 15)
    np.testing.assert_allclose(np.einsum("abi,abj->ij", c, c), np.eye(15), atol=4e-15)
    assert c[1, 6, 7] > 0.0


def test_large_l_is_computed_once_then_cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = clebsch_gordan(*BEYOND)
    assert_sound(first)
    assert cache.is_file() and list(cache.parent.iterdir()) == [cache]
    forget()
    monkeypatch.setattr(coupling, "signed_squares", lambda *path: pytest.fail("computed again"))
    assert np.array_equal(clebsch_gordan(*BEYOND), first)
    assert np.array_equal(clebsch_gordan(6, 1, 7).transpose(1, 0, 2), first)


@pytest.mark.parametrize("damage", ["empty", "random", "truncated", "foreign", "values", "format"])
def test_damaged_cache_is_computed_again(
    cache: Path, damage: str, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    expected = clebsch_gordan(*BEYOND).copy()
    sound = cache.read_bytes()
    if damage == "empty":
        cache.write_bytes(b"")
    elif damage == "random":
        cache.write_bytes(rng.bytes(500))
    elif damage == "truncated":
        cache.write_bytes(sound[: len(sound) // 2])
    elif damage == "foreign":
        np.savez(cache, something=np.arange(3))
    elif damage == "values":
        m_triples, values = coupling.read_tables(cache)[BEYOND]
        coupling.write_tables(cache, {BEYOND: (m_triples, values * 1.001)})
    else:
        with np.load(cache) as archive:
            np.savez(cache, **{**archive, "table_format": np.int64(99)})
    forget()
    with caplog.at_level(logging.DEBUG, logger="etnpot.so3.coupling"):
        assert np.array_equal(clebsch_gordan(*BEYOND), expected)
    assert "ignoring the coupling cache" in caplog.text
    assert cache.read_bytes() == sound  # repaired


def test_unwritable_cache_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a_file"
    blocked.write_text("not a directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    forget()
    with caplog.at_level(logging.DEBUG, logger="etnpot.so3.coupling"):
        assert_sound(clebsch_gordan(*BEYOND))
    assert "cannot write the coupling cache" in caplog.text


def test_no_home_directory_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setattr(Path, "home", no_home)
    forget()
    assert_sound(clebsch_gordan(*BEYOND))
    assert not Path("relative").exists()
