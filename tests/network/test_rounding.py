"""Rounding and the two-site split against SVDs of the dense unfoldings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etnpot.errors import ConvergenceError, SpecificationError
from etnpot.network import (
    HEAD,
    SCALAR,
    Bond,
    Train,
    TrainLayout,
    add,
    bond_entropy,
    canonicalize,
    center_norm,
    center_weights,
    dense_tensor,
    flatten_blocks,
    frobenius_norm,
    full_bond,
    grow_ranks,
    is_canonical,
    is_left_orthogonal,
    is_right_orthogonal,
    merge_cores,
    move_center,
    round_train,
    scale,
    singular_values,
    split_cores,
)
from etnpot.so3 import Irrep

seeds = st.integers(0, 2**32 - 1)
random_trains = settings(max_examples=20, deadline=None, derandomize=True)


def unfolding(train: Train, bond: int) -> np.ndarray:
    """The dense tensor as a matrix [(z f_1 .. f_k), (f_{k+1} .. f_d o)]."""
    layout = train.layout
    return dense_tensor(train).reshape(layout.n_species * layout.feature.dimension**bond, -1)


def with_multiplicity(values: dict[Irrep, np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate([np.repeat(s, irrep.dim) for irrep, s in values.items()]))[::-1]


def decaying(train: Train, base: float = 0.3) -> Train:
    """The same layout with copies of falling importance, so that there is something to truncate."""
    cores = []
    for k, layout in enumerate(train.layout.cores):
        blocks = {
            path: block * base ** np.arange(block.shape[0])[:, None, None] * base ** (path.left.l / 2)
            for path, block in train.blocks(k).items()
        }
        cores.append(flatten_blocks(layout, blocks))
    return Train(train.layout, train.head, tuple(cores))


@random_trains
@given(seed=seeds)
def test_singular_values_are_those_of_the_dense_unfolding(draw_train, seed: int) -> None:
    train = draw_train(np.random.default_rng(seed), max_entries=5000)
    norm = frobenius_norm(train)
    for bond in range(train.layout.order):
        expected = np.linalg.svd(unfolding(train, bond), compute_uv=False)
        got = with_multiplicity(singular_values(train, bond))
        n = min(len(got), len(expected))
        np.testing.assert_allclose(got[:n], expected[:n], rtol=0, atol=1e-12 * norm)
        assert np.all(expected[n:] <= 1e-12 * norm) and np.all(got[n:] <= 1e-12 * norm)


@random_trains
@given(seed=seeds, tolerance=st.sampled_from([0.0, 1e-6, 0.01, 0.1, 0.3, 0.7]))
def test_rounding_error_is_the_claim_and_below_the_tolerance(draw_train, seed: int, tolerance: float) -> None:
    train = decaying(draw_train(np.random.default_rng(seed)))
    dense = dense_tensor(train)
    rounded, report = round_train(train, tolerance=tolerance)
    error = np.linalg.norm(dense_tensor(rounded) - dense)
    assert report.norm == pytest.approx(np.linalg.norm(dense), rel=1e-12)
    assert report.error == pytest.approx(error, rel=1e-12, abs=2e-13 * report.norm)
    assert report.error == pytest.approx(math.sqrt(sum(e**2 for e in report.bond_errors)), rel=1e-14)
    assert report.relative_error <= max(tolerance, 1e-13) * (1 + 1e-12)
    share = max(tolerance / math.sqrt(train.layout.order), 1e-13)  # the first bond may not spend it all
    assert report.bonds[0].relative_error <= share * (1 + 1e-12)
    assert is_canonical(rounded, train.layout.order - 1, tol=1e-12)
    # Pythagoras: what was cut is orthogonal to what is left.
    assert frobenius_norm(rounded) ** 2 + report.error**2 == pytest.approx(report.norm**2, rel=1e-12)
    assert tuple(truncation.kept for truncation in report.bonds) == rounded.layout.bonds[:-1]
    again, second = round_train(rounded)
    assert second.relative_error < 1e-13 and again.layout.n_parameters <= rounded.layout.n_parameters


@random_trains
@given(seed=seeds, limit=st.integers(1, 2))
def test_error_with_limits_is_the_claim_and_quasi_optimal(draw_train, seed: int, limit: int) -> None:
    train = draw_train(np.random.default_rng(seed), max_entries=8000)
    rounded, report = round_train(train, max_ranks=limit)
    assert all(rank <= limit for bond in rounded.layout.bonds[:-1] for _, rank in bond)
    error = np.linalg.norm(dense_tensor(rounded) - dense_tensor(train))
    assert report.error == pytest.approx(error, rel=1e-12, abs=2e-13 * report.norm)
    # At each bond alone no train with these ranks does better than (2) on the original tensor.
    best = [
        math.sqrt(
            sum(
                irrep.dim * float(np.sum(s[rounded.layout.bonds[k].rank(irrep) :] ** 2))
                for irrep, s in singular_values(train, k).items()
            )
        )
        for k in range(train.layout.order)
    ]
    assert report.error >= max(best) - 1e-12 * report.norm
    assert report.error <= math.hypot(*best) * (1 + 1e-10) + 1e-12 * report.norm


def test_a_tolerance_weighs_the_irreps_jointly(rng) -> None:
    """(2l+1) s^2 decides: a scalar of s = 1 goes before a vector of s = 0.9, and the error counts it so."""
    feature = Bond.of({"0e": 1, "1o": 1})
    layout = TrainLayout(1, feature, (Bond.of({"0e": 1}), Bond.of({"0e": 1, "1o": 1}), Bond.of({"0e": 1})))
    train = canonicalize(Train.random(layout, rng), 1)
    core = train.layout.cores[1]  # two entries: 0e 0e 0e, and 1o 1o 0e of weight 1/3 in the singular value
    assert core.size == 2
    train = train.with_core(1, [1.0, 0.9 * math.sqrt(3.0)])
    values = singular_values(train, 1)
    assert values[SCALAR] == pytest.approx([1.0]) and values[Irrep(1, -1)] == pytest.approx([0.9])
    norm = math.sqrt(1.0 + 3 * 0.81)
    rounded, report = round_train(train, tolerance=1.001 / norm)
    assert rounded.layout.bonds[1] == Bond.of({"1o": 1}) and report.error == pytest.approx(1.0, rel=1e-12)
    rounded, report = round_train(train, max_total=1)
    assert rounded.layout.bonds[1] == Bond.of({"1o": 1})
    rounded, report = round_train(train, max_ranks={"1o": 0})
    assert rounded.layout.bonds[1] == Bond.of({"0e": 1})
    assert report.error == pytest.approx(0.9 * math.sqrt(3.0), rel=1e-12)


def test_rounding_recovers_the_ranks_of_a_padded_train(draw_train, rng) -> None:
    train, _ = round_train(draw_train(rng, order=4))
    padded = train
    for bond in range(4):
        extra = {SCALAR: 2} if bond == 0 else {SCALAR: 2, Irrep(1, -1): 1, Irrep(1, 1): 2}
        padded = grow_ranks(padded, bond, train.layout.bonds[bond] + Bond.of(extra), rng)
    for wasteful in (padded, add(train, scale(train, 0.5)), add(padded, train)):
        rounded, report = round_train(wasteful)
        assert rounded.layout == train.layout
        assert report.relative_error < 1e-13


def test_zero_train_keeps_one_copy_per_bond(draw_train, rng) -> None:
    train = scale(draw_train(rng, order=3), 0.0)
    rounded, report = round_train(train, tolerance=0.1)
    assert [sum(rank for _, rank in bond) for bond in rounded.layout.bonds[:-1]] == [1, 1, 1]
    assert report.error == report.relative_error == frobenius_norm(rounded) == 0.0


def test_report_reads_well(draw_train, rng) -> None:
    train = draw_train(rng, order=2)
    _, report = round_train(train, tolerance=0.5)
    text = str(report)
    assert text.startswith("relative error") and f"-> {report.bonds[1].kept}, error" in text
    assert len(report.singular_values) == 2
    assert report.bonds[0].relative_error == pytest.approx(report.bond_errors[0] / report.norm)


def test_bond_entropy_of_known_spectra() -> None:
    scalar, vector = SCALAR, Irrep(1, -1)
    assert bond_entropy({scalar: np.array([2.0, 0.0])}) == pytest.approx(0.0)
    assert bond_entropy({vector: np.array([0.7])}) == pytest.approx(math.log(3))
    assert bond_entropy({scalar: np.array([1.0]), vector: np.array([1.0])}) == pytest.approx(math.log(4))
    assert bond_entropy({scalar: np.array([0.0])}) == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": -0.1},
        {"tolerance": 1.0},
        {"tolerance": float("nan")},
        {"max_ranks": 0},
        {"max_ranks": 2.5},
        {"max_ranks": {"0e": -1}},
        {"max_ranks": {"spin": 1}},
        {"max_ranks": {"0e": 0}},
        {"max_total": 0},
    ],
    ids=str,
)
def test_nonsense_options_are_refused(draw_train, rng, options: dict) -> None:
    with pytest.raises(SpecificationError, match=r"tolerance|max_ranks|max_total|irrep"):
        round_train(draw_train(rng, order=2), **options)


def test_bad_bonds_and_bad_numbers_are_refused(draw_train, rng) -> None:
    train = draw_train(rng, order=2)
    for call in (singular_values, merge_cores, split_cores):
        with pytest.raises(SpecificationError, match="output"):
            call(train, 2)
    with pytest.raises(SpecificationError, match="center"):
        split_cores(train, 1, center="middle")
    nowhere = TrainLayout(1, Bond.of({"0e": 1}), (Bond.of({"0e": 1}), Bond.of({"1o": 1}), Bond.of({"0e": 1})))
    with pytest.raises(SpecificationError, match="both sides can reach"):
        merge_cores(Train.random(nowhere, rng), 1, irreps=[Irrep(9, 1)])
    with pytest.raises(ConvergenceError, match="NaN"):
        split_cores(train.with_core(1, np.full(train.layout.cores[1].size, np.inf)), 1)


def test_svd_that_does_not_converge_is_done_again(draw_train, rng, monkeypatch) -> None:
    train = draw_train(rng, order=3)
    expected = with_multiplicity(singular_values(train, 1))

    def gives_up(*args, **kwargs):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", gives_up)
    np.testing.assert_allclose(with_multiplicity(singular_values(train, 1)), expected, atol=1e-12)


# --- two sites ------------------------------------------------------------------------------------


@random_trains
@given(seed=seeds)
def test_merge_and_split_are_exact(draw_train, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = draw_train(rng)
    bond = int(rng.integers(train.layout.order))
    dense = dense_tensor(train)
    atol = 1e-12 * max(np.abs(dense).max(), 1.0)
    for center in (HEAD if bond == 0 else bond - 1, bond):
        merged = merge_cores(canonicalize(train, center), bond)
        assert is_canonical(merged, bond, tol=1e-12)
        np.testing.assert_allclose(dense_tensor(merged), dense, rtol=0, atol=atol)
        for side in ("left", "right"):
            split, truncation = split_cores(merged, bond, center=side)
            np.testing.assert_allclose(dense_tensor(split), dense, rtol=0, atol=atol)
            assert is_canonical(
                split, bond if side == "right" else (HEAD if bond == 0 else bond - 1), tol=1e-11
            )
            assert truncation.kept == split.layout.bonds[bond]
            assert truncation.norm == pytest.approx(np.linalg.norm(dense), rel=1e-12)
            assert truncation.relative_error < 1e-13


@random_trains
@given(seed=seeds, limit=st.integers(1, 2))
def test_split_of_any_theta_is_the_best_truncation(draw_train, seed: int, limit: int) -> None:
    """Random numbers on the pair, every irrep allowed: claim = error, spectrum = that of the dense SVD."""
    rng = np.random.default_rng(seed)
    train = draw_train(rng, max_entries=5000)
    bond = int(rng.integers(train.layout.order))
    irreps = [Irrep(l, p) for l in range(5) for p in (1, -1)]
    merged = merge_cores(canonicalize(train, bond), bond, irreps=irreps)
    assert is_left_orthogonal(merged, HEAD if bond == 0 else bond - 1)
    weights = center_weights(merged.layout.cores[bond])
    theta = rng.normal(size=weights.shape)
    merged = merged.with_core(bond, theta)
    norm = np.linalg.norm(dense_tensor(merged))
    assert norm**2 == pytest.approx(np.sum(weights * theta**2), rel=1e-12)

    split, truncation = split_cores(merged, bond, max_ranks=limit, center="left")
    assert all(rank <= limit for _, rank in split.layout.bonds[bond])
    assert is_right_orthogonal(split, bond)
    error = np.linalg.norm(dense_tensor(split) - dense_tensor(merged))
    assert truncation.error == pytest.approx(error, rel=1e-12, abs=1e-13 * norm)
    expected = np.linalg.svd(unfolding(merged, bond), compute_uv=False)
    got = with_multiplicity(truncation.singular_values)
    n = min(len(got), len(expected))
    np.testing.assert_allclose(got[:n], expected[:n], atol=1e-12 * norm)

    # A tolerance drops the least (2l+1) s^2 over all irreps, as many as fit into it and no more.
    cost = np.sort([irrep.dim * x**2 for irrep, s in truncation.singular_values.items() for x in s])
    cut = len(cost) // 2
    total = math.sqrt(cost[:cut].sum())
    split, truncation = split_cores(merged, bond, tolerance=min((total + 1e-9 * norm) / norm, 0.999))
    kept = sum(rank for _, rank in split.layout.bonds[bond])
    assert kept == max(len(cost) - cut, 1)
    assert truncation.error == pytest.approx(total, rel=1e-9, abs=1e-12 * norm)


def test_dense_svd_of_the_same_size_does_no_better(rng) -> None:
    """With one irrep on the bond, cutting to rank r is Eckart-Young of the unfolding at rank (2l+1) r."""
    feature = Bond.of({"0e": 1, "1o": 3})
    bonds = Bond.of({"0e": 2}), Bond.of({"1o": 5}), Bond.of({"0e": 3})
    train = canonicalize(Train.random(TrainLayout(2, feature, bonds), rng), 1)
    merged = merge_cores(train, 1)
    full = np.linalg.svd(unfolding(merged, 1), compute_uv=False)
    for rank in (1, 2, 3):
        split, truncation = split_cores(merged, 1, max_ranks=rank)
        best = np.linalg.norm(full[3 * rank :])
        assert truncation.error == pytest.approx(best, rel=1e-12)
        assert np.linalg.norm(dense_tensor(split) - dense_tensor(merged)) == pytest.approx(best, rel=1e-12)


def test_leaving_the_weight_out_of_the_split_is_not_optimal(rng) -> None:
    """The tester tested: an SVD of plain Theta picks other directions and makes a larger error."""
    feature = Bond.of({"0e": 1, "1o": 2, "2e": 1})
    bonds = Bond.of({"0e": 2}), Bond.of({"0e": 1, "1o": 2, "2e": 1}), Bond.of({"0e": 2, "2e": 2})
    train = canonicalize(Train.random(TrainLayout(3, feature, bonds), rng), 1)
    merged = merge_cores(train, 1)
    layout = merged.layout.cores[1]
    theta = rng.normal(size=layout.size)
    merged = merged.with_core(1, theta)
    _, best = split_cores(merged, 1, max_ranks=1)
    blocks: dict = {}
    for irrep in layout.left.irreps:
        paths = [path for path in layout.paths if path.left == irrep]
        plain = np.hstack([merged.block(1, path).reshape(layout.left.rank(irrep), -1) for path in paths])
        u = np.linalg.svd(plain, full_matrices=False)[0][:, :1]
        for path in paths:
            blocks[path] = np.einsum("ar,br,bcd->acd", u, u, merged.block(1, path))
    worse = merged.with_core(1, flatten_blocks(layout, blocks))
    assert np.linalg.norm(dense_tensor(worse) - dense_tensor(merged)) > 1.001 * best.error


def test_full_bond_counts_the_room() -> None:
    feature = Bond.of({"0e": 2, "1o": 3})
    layout = TrainLayout(
        4,
        feature,
        (Bond.of({"0e": 2}), Bond.of({"0e": 1, "1o": 5}), Bond.of({"0e": 1, "1e": 1}), Bond.of({"0e": 1})),
    )
    assert full_bond(layout, 0) == Bond.of({"0e": 4})
    assert full_bond(layout, 1) == Bond.of({"0e": 4, "1o": 6})
    every = [Irrep(l, p) for l in range(3) for p in (1, -1)]
    # 1e cannot go on to the output; 0e comes from 0e x 0e and 1o x 1o; 1o from 0e x 1o and 1o x 0e
    assert full_bond(layout, 2, every) == Bond.of({"0e": 1 * 2 + 5 * 3, "1o": 1 * 3 + 5 * 2})
    assert full_bond(layout, 2) == full_bond(layout, 2, []) == Bond.of({"0e": 17})
    assert full_bond(layout, 1, [SCALAR]) == full_bond(layout, 1)  # what is there now stays allowed


def test_a_two_site_sweep_visits_every_pair_and_changes_nothing(draw_train, rng) -> None:
    train = canonicalize(draw_train(rng, order=4), 3)
    dense, norm = dense_tensor(train), frobenius_norm(train)
    for bond in (3, 2, 1, 0):
        train, _ = split_cores(merge_cores(train, bond), bond, center="left")
    assert is_canonical(train, HEAD, tol=1e-11)
    for bond in (0, 1, 2, 3):
        train, _ = split_cores(merge_cores(train, bond), bond, center="right")
    assert is_canonical(train, 3, tol=1e-11)
    assert center_norm(move_center(train, 3, 1), 1) == pytest.approx(norm, rel=1e-12)
    np.testing.assert_allclose(dense_tensor(train), dense, atol=1e-12 * max(1.0, np.abs(dense).max()))
