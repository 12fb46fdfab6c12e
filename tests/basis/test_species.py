"""The two forms of the species factor: values, products with the Jacobian, start, size."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etnpot.basis.species import (
    SPECIES_FORMS,
    EmbeddingProduct,
    PairTable,
    SpeciesFactor,
    make_species_factor,
)
from etnpot.errors import SpecificationError

FloatArray = NDArray[np.float64]

FACTORS: list[SpeciesFactor] = [
    PairTable(1, 1, 0),
    PairTable(3, 4, 2),
    EmbeddingProduct(1, 1, 0, (1, 1)),
    EmbeddingProduct(1, 3, 1, (2, 2)),
    EmbeddingProduct(4, 3, 2, (2, 3)),
    EmbeddingProduct(2, 5, 1, (3, 1)),
]


def random_like(factor: SpeciesFactor, rng: np.random.Generator, *leading: int) -> dict[str, FloatArray]:
    return {name: rng.normal(size=(*leading, *shape)) for name, shape in factor.shapes.items()}


def flat(parameters: dict[str, FloatArray]) -> FloatArray:
    return np.concatenate([array.ravel() for array in parameters.values()])


def unflat(factor: SpeciesFactor, vector_q: FloatArray) -> dict[str, FloatArray]:
    parameters, at = {}, 0
    for name, shape in factor.shapes.items():
        n = int(np.prod(shape))
        parameters[name] = vector_q[at : at + n].reshape(shape)
        at += n
    return parameters


def test_embedding_table_is_the_formula(rng: np.random.Generator) -> None:
    factor = EmbeddingProduct(3, 2, 1, (2, 4))
    parameters = random_like(factor, rng)
    a, b, G = parameters["center"], parameters["neighbor"], parameters["coupling"]
    table = factor.table(parameters)
    for l, k, i, j in np.ndindex(*factor.table_shape):  # noqa: E741
        expected = sum(G[l, k, p, q] * a[i, p] * b[j, q] for p in range(2) for q in range(4))
        np.testing.assert_allclose(table[l, k, i, j], expected, rtol=1e-12, atol=1e-13)


def test_pair_table_is_its_parameter_and_a_copy(rng: np.random.Generator) -> None:
    factor = PairTable(3, 2, 1)
    parameters = random_like(factor, rng)
    table = factor.table(parameters)
    np.testing.assert_array_equal(table, parameters["pair"])
    assert not np.shares_memory(table, parameters["pair"])


@pytest.mark.parametrize("factor", FACTORS, ids=str)
def test_tangent_converges_at_second_order_to_finite_differences(
    factor: SpeciesFactor, rng: np.random.Generator
) -> None:
    """In a joint direction; and exactly in each single parameter, in which the table is linear."""
    at_q, direction_q = flat(random_like(factor, rng)), flat(random_like(factor, rng))
    tangent = factor.table_tangent(unflat(factor, at_q), unflat(factor, direction_q))

    def error(h: float) -> float:
        plus, minus = (factor.table(unflat(factor, at_q + sign * h * direction_q)) for sign in (1, -1))
        return float(np.abs((plus - minus) / (2 * h) - tangent).max())

    coarse, fine = error(1e-1), error(5e-2)
    if factor.form == "pair":
        assert max(coarse, fine) < 1e-13
    else:
        assert 1.99 < np.log2(coarse / fine) < 2.01

    for q in range(len(at_q)):
        unit_q = np.zeros_like(at_q)
        unit_q[q] = 1.0
        change = factor.table(unflat(factor, at_q + unit_q)) - factor.table(unflat(factor, at_q))
        column = factor.table_tangent(unflat(factor, at_q), unflat(factor, unit_q))
        np.testing.assert_allclose(column, change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", FACTORS, ids=str)
def test_adjoint_is_the_transpose_of_the_tangent(factor: SpeciesFactor, rng: np.random.Generator) -> None:
    parameters = random_like(factor, rng)
    dparameters = random_like(factor, rng, 2, 3)
    cotangent = rng.normal(size=(5, *factor.table_shape))
    tangent = factor.table_tangent(parameters, dparameters)
    adjoint = factor.table_adjoint(parameters, cotangent)
    assert tangent.shape == (2, 3, *factor.table_shape)
    assert {name: array.shape for name, array in adjoint.items()} == {
        name: (5, *shape) for name, shape in factor.shapes.items()
    }
    left = np.einsum("xylkij,blkij->xyb", tangent, cotangent)
    right = sum(
        np.einsum("xyq,bq->xyb", dparameters[name].reshape(2, 3, -1), adjoint[name].reshape(5, -1))
        for name in factor.shapes
    )
    np.testing.assert_allclose(left, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("factor", FACTORS, ids=str)
def test_leading_axes_are_a_loop(factor: SpeciesFactor, rng: np.random.Generator) -> None:
    parameters = random_like(factor, rng)
    dparameters = random_like(factor, rng, 3)
    dtable = rng.normal(size=(3, *factor.table_shape))
    tangent, adjoint = factor.table_tangent(parameters, dparameters), factor.table_adjoint(parameters, dtable)
    for row in range(3):
        one = factor.table_tangent(parameters, {name: array[row] for name, array in dparameters.items()})
        np.testing.assert_allclose(tangent[row], one, rtol=1e-13, atol=1e-13)
        for name, array in factor.table_adjoint(parameters, dtable[row]).items():
            assert array.shape == factor.shapes[name]
            np.testing.assert_allclose(adjoint[name][row], array, rtol=1e-13, atol=1e-13)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    form=st.sampled_from(list(SPECIES_FORMS)),
    n_species=st.integers(1, 12),
    size=st.integers(1, 6),
    l_max=st.integers(0, 3),
    P=st.integers(1, 5),
    Q=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_start_of_any_size(
    form: str, n_species: int, size: int, l_max: int, P: int, Q: int, seed: int
) -> None:
    embedding = (P, Q) if form == "embedding" else None
    factor = make_species_factor(form, n_species, size, l_max, embedding=embedding)
    parameters = factor.initial(np.random.default_rng(seed))
    assert list(parameters) == list(factor.shapes)
    for name, array in parameters.items():
        assert array.shape == factor.shapes[name]
        assert array.dtype == np.float64
        assert np.all(np.isfinite(array))
    assert factor.n_parameters == sum(array.size for array in parameters.values())
    table = factor.table(parameters)
    assert table.shape == factor.table_shape == (l_max + 1, size, n_species, n_species)
    assert np.all(table[:, 0] == 1.0)  # channel 0 does not see the species
    if form == "pair" or max(P, Q) <= n_species:
        mean_square = np.mean(table**2, axis=(2, 3))
        np.testing.assert_allclose(mean_square, 1.0, rtol=1e-10)


@pytest.mark.parametrize("factor", [PairTable(8, 4, 2), EmbeddingProduct(8, 4, 2, (4, 4))], ids=str)
def test_channels_start_orthonormal_over_the_pairs(factor: SpeciesFactor, rng: np.random.Generator) -> None:
    table = factor.table(factor.initial(rng)).reshape(3, 4, 64)
    gram = np.einsum("lkp,lnp->lkn", table, table) / 64
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(4), gram.shape), atol=1e-12)


@pytest.mark.parametrize("n_species", [2, 5, 16, 89])
@pytest.mark.parametrize("embedding", [(2, 2), (4, 4), (6, 3)])
def test_every_species_is_told_apart_from_the_start(
    n_species: int, embedding: tuple[int, int], rng: np.random.Generator
) -> None:
    factor = EmbeddingProduct(n_species, 4, 1, embedding)
    parameters = factor.initial(rng)
    spacing = np.sqrt(12 / (n_species**2 - 1))  # of equally spaced values of unit variance
    for name in ("center", "neighbor"):
        points = parameters[name]
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        assert np.min(distance[~np.eye(n_species, dtype=bool)]) >= spacing * (1 - 1e-12)
    table = factor.table(parameters)
    rows = np.moveaxis(table, 2, 0).reshape(n_species, -1)
    columns = np.moveaxis(table, 3, 0).reshape(n_species, -1)
    for points in (rows, columns):
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        assert np.min(distance[~np.eye(n_species, dtype=bool)]) > 0.1 * spacing


@pytest.mark.parametrize("form", SPECIES_FORMS)
def test_eighty_nine_species(form: str, rng: np.random.Generator) -> None:
    factor = make_species_factor(form, 89, 4, 2)
    parameters = factor.initial(rng)
    table = factor.table(parameters)
    assert table.shape == (3, 4, 89, 89)
    adjoint = factor.table_adjoint(parameters, table)
    tangent = factor.table_tangent(parameters, adjoint)
    squares = sum(float(np.sum(array**2)) for array in adjoint.values())
    np.testing.assert_allclose(np.sum(tangent * table), squares, rtol=1e-10)


def test_number_of_parameters() -> None:
    counts = np.array([EmbeddingProduct(n, 4, 3, (3, 5)).n_parameters for n in range(1, 90)])
    assert np.all(np.diff(counts) == 3 + 5)
    assert counts[0] == 3 + 5 + 4 * 4 * 3 * 5
    assert PairTable(7, 4, 3).n_parameters == 4 * 4 * 49


@pytest.mark.parametrize("factor", FACTORS, ids=str)
def test_same_seed_same_bits(factor: SpeciesFactor) -> None:
    first, second = (factor.initial(np.random.default_rng(7)) for _ in range(2))
    for name in factor.shapes:
        np.testing.assert_array_equal(first[name], second[name])


def test_form_hashable_and_pickled() -> None:
    for factor in FACTORS:
        assert SPECIES_FORMS[factor.form] is type(factor)
        assert pickle.loads(pickle.dumps(factor)) == factor
        assert hash(factor) == hash(pickle.loads(pickle.dumps(factor)))
    assert EmbeddingProduct(2, 2, 1, [2, 3]).embedding == (2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("n_species", (0, 2, 1)),
        ("n_species", (2.0, 2, 1)),
        ("size", (2, 0, 1)),
        ("l_max", (2, 2, -1)),
        ("embedding", (2, 2, 1, (0, 2))),
        ("embedding", (2, 2, 1, (2,))),
        ("embedding", (2, 2, 1, 3)),
    ],
)
def test_a_bad_field_is_named(field: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(SpecificationError, match=rf"^{field} must be"):
        EmbeddingProduct(*arguments)  # type: ignore[arg-type]


def test_bad_arrays_are_named(rng: np.random.Generator) -> None:
    factor = EmbeddingProduct(3, 2, 1, (2, 2))
    parameters = random_like(factor, rng)
    with pytest.raises(SpecificationError, match="'center', 'neighbor', 'coupling', got 'pair'"):
        factor.table({"pair": np.ones(3)})
    with pytest.raises(
        SpecificationError, match=r"parameters\['center'\] must have the shape \[3, 2\], got \[2, 2\]"
    ):
        factor.table({**parameters, "center": np.ones((2, 2))})
    with pytest.raises(
        SpecificationError, match=r"dtable must have the shape \[\.\.\., 2, 2, 3, 3\], got \[3, 3\]"
    ):
        factor.table_adjoint(parameters, np.ones((3, 3)))
    with pytest.raises(SpecificationError, match=r"dparameters\['coupling'\]"):
        factor.table_tangent(parameters, {**parameters, "coupling": np.ones(2)})
    with pytest.raises(SpecificationError, match="form must be one of 'pair', 'embedding', got 'full'"):
        make_species_factor("full", 2, 2, 1)
    with pytest.raises(SpecificationError, match="embedding belongs to"):
        make_species_factor("pair", 2, 2, 1, embedding=(2, 2))
