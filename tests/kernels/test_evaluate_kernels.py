"""Features, bonds, energies, pair derivatives, forces and virials: kernels, references, and physics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etnpot import reference
from etnpot.conventions import VOIGT
from etnpot.kernels import assemble as assemble_kernels
from etnpot.kernels import evaluate as kernels
from etnpot.kernels.lanes import LANES
from etnpot.network.dense import dense_tensor
from etnpot.potential import Potential
from etnpot.testing.derivatives import check_forces, check_stress

SPECIES = ("Al", "Ni", "Cu", "Zr")

thousands_of_energies = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="thousands of energies: too slow as plain Python"
)


def evaluated(module: Any, case: Any, start: int = 0, stop: int | None = None) -> tuple[Any, Any]:
    """Energies and pair derivatives of a range; NaN outside it."""
    energy_i = np.full(case.edges.n_atoms, np.nan)
    dE_dr_pc = np.full(case.edges.r_pc.shape, np.nan)
    module.evaluate(*case.arguments, start, case.edges.n_atoms if stop is None else stop, energy_i, dE_dr_pc)
    return energy_i, dE_dr_pc


def featured(module: Any, case: Any) -> tuple[Any, Any]:
    """Features and stacked bonds."""
    v_if = np.full((case.edges.n_atoms, case.potential.spec.feature.dimension), np.nan)
    module.features(*case.pair_arguments, 0, case.edges.n_atoms, v_if)
    train, weights = case.train_arguments
    x_ia = np.full((case.edges.n_atoms, train.n_bond_rows), np.nan)
    module.bonds(v_if, case.type_i[: case.edges.n_atoms], train, weights, x_ia)
    return v_if, x_ia


# ------------------------------------------------------------------------------------- kernel = reference


def test_features_and_bonds(neighborhoods: Any, assert_close: Callable[..., None]) -> None:
    actual, expected = featured(kernels, neighborhoods), featured(reference.evaluate, neighborhoods)
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1])
    assert (actual[0][:, 0] == 1.0).all()


def test_evaluate(neighborhoods: Any, assert_close: Callable[..., None]) -> None:
    actual, expected = evaluated(kernels, neighborhoods), evaluated(reference.evaluate, neighborhoods)
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1])


def test_adjoint_of_features(neighborhoods: Any, assert_close: Callable[..., None]) -> None:
    """Over ranges, and with seeds that no train gives."""
    n = neighborhoods.edges.n_atoms
    g_if = np.random.default_rng(0).normal(size=(n, neighborhoods.potential.spec.feature.dimension))
    found = []
    for module in (kernels, reference.evaluate):
        dE_dr_pc = np.full(neighborhoods.edges.r_pc.shape, np.nan)
        for start, stop in ((0, n // 3), (n // 3, n), (n, n)):
            module.features_adjoint(*neighborhoods.pair_arguments, g_if, start, stop, dE_dr_pc)
        found.append(dE_dr_pc)
    assert_close(*found)


def test_forces_and_virials(
    models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    case = make_neighborhoods(models["order 1, scalars"], rng, [3, 0, 1, 6, 2])
    edges, dE_dr_pc = case.edges, rng.normal(size=case.edges.r_pc.shape)
    results = []
    for module in (assemble_kernels, reference.assemble):
        force_ic, virial_icc = np.zeros((case.n_sites, 3)), np.full((edges.n_atoms, 3, 3), np.nan)
        for atoms in ((0, 2), (2, 2), (2, edges.n_atoms)):
            module.forces(edges.first, edges.neighbor, dE_dr_pc, *atoms, force_ic)
            module.virials(edges.first, edges.r_pc, dE_dr_pc, *atoms, virial_icc)
        results.append((force_ic, virial_icc))
    assert_close(results[0][0], results[1][0], 1e-14)
    assert_close(results[0][1], results[1][1], 1e-14)
    assert np.abs(results[0][0].sum(axis=0)).max() < 1e-13  # no net force


@pytest.mark.parametrize(
    "name",
    ["order 1, l 0-2", "order 2, l 0-1", "order 3, l 0-2, embedding", "order 3, l 0-2, pseudotensors"],
)
def test_evaluate_is_the_dense_tensor(
    name: str,
    models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    neighborhoods = make_neighborhoods(models[name], rng, [2, 0, 4, 1, 3])
    tensor = dense_tensor(models[name].train)[..., 0]
    energy_i, dE_dr_pc = np.empty(neighborhoods.edges.n_atoms), np.empty(neighborhoods.edges.r_pc.shape)
    arguments = neighborhoods.pair_arguments
    reference.dense.evaluate(*arguments, tensor, 0, len(energy_i), energy_i, dE_dr_pc)
    actual = evaluated(kernels, neighborhoods)
    assert_close(actual[0], energy_i)
    assert_close(actual[1], dE_dr_pc)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, Any], list[int], int]:
    """Random settings of `make_model`, neighbour counts, and a seed."""
    l_max, order = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    irreps = [f"{l}{'eo'[l % 2]}" for l in range(l_max + 1)] + ["1e", "2o"] * draw(st.booleans())
    needed = {"0e": st.integers(1, 2), irreps[l_max]: st.integers(1, 2)}
    further = {irrep: st.integers(1, 2) for irrep in irreps if irrep not in needed}
    bond = st.fixed_dictionaries(needed, optional=further)
    ranks = draw(st.lists(bond, min_size=order - 1, max_size=order - 1))
    chosen = dict(
        species=SPECIES[: draw(st.integers(1, 4))], order=order, l_max=l_max, ranks=ranks,
        radial_family=draw(st.sampled_from(["chebyshev", "jacobi", "bessel"])),
        cutoff_function=draw(st.sampled_from(["power", "envelope"])),
        species_form=draw(st.sampled_from(["pair", "embedding"])),
        head_rank=draw(st.integers(1, 2)), radial_size=draw(st.integers(1, 4)),
    )  # fmt: skip
    counts = draw(st.lists(st.integers(0, 3), max_size=LANES + 2))
    return chosen, counts, draw(st.integers(0, 2**16))


@settings(
    max_examples=8 if numba.config.DISABLE_JIT else 40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(layout=layouts())
def test_evaluate_over_random_layouts(
    layout: tuple[dict[str, Any], list[int], int],
    assert_close: Callable[..., None],
    make_model: Callable[..., Any],
    make_neighborhoods: Callable[..., Any],
) -> None:
    chosen, counts, seed = layout
    case = make_neighborhoods(make_model(seed, **chosen), np.random.default_rng(seed), counts)
    actual, expected = evaluated(kernels, case), evaluated(reference.evaluate, case)
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1])


# ---------------------------------------------------------------------------- ranges, threads, repetition


@pytest.mark.parametrize("counts", [[], [0], [0] * 9, [1]], ids=["no atoms", "one", "lonely", "dimer"])
def test_few_neighbors(
    counts: list[int],
    models: dict[str, Potential],
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    case = make_neighborhoods(models["order 3, l 0-2, embedding"], rng, counts)
    evaluation = case.potential.evaluate(case.edges, case.numbers)
    energy_i, dE_dr_pc = evaluated(reference.evaluate, case)
    energy_i += case.potential.arrays["reference_energies"][case.type_i[: len(counts)]]
    assert_close(evaluation.energy_i, energy_i)
    assert_close(evaluation.dE_dr_pc, dE_dr_pc)
    assert evaluation.forces.shape == (case.n_sites, 3)
    assert evaluation.virial.shape == (3, 3)


def test_ranges(
    models: dict[str, Potential], rng: np.random.Generator, make_neighborhoods: Callable[..., Any]
) -> None:
    case = make_neighborhoods(models["order 3, l 0-2, embedding"], rng, rng.integers(0, 4, size=21))
    first = case.edges.first
    energy_i, dE_dr_pc = evaluated(kernels, case)
    for start, stop in ((0, 8), (8, 21), (3, 17), (20, 21), (5, 5)):
        part_i, part_pc = evaluated(kernels, case, start, stop)
        np.testing.assert_array_equal(part_i[start:stop], energy_i[start:stop])
        np.testing.assert_array_equal(
            part_pc[first[start] : first[stop]], dE_dr_pc[first[start] : first[stop]]
        )
        # and nothing else was written
        assert np.isnan(part_i[:start]).all() and np.isnan(part_i[stop:]).all()
        assert np.isnan(part_pc[: first[start]]).all() and np.isnan(part_pc[first[stop] :]).all()


def test_threads_and_repetition_give_the_same_bits(
    models: dict[str, Potential], rng: np.random.Generator, make_neighborhoods: Callable[..., Any]
) -> None:
    counts = rng.integers(0, 3, size=150)  # enough atoms for two ranges
    case = make_neighborhoods(models["order 2, l 0-1"], rng, counts)
    one, again, two = (case.potential.evaluate(case.edges, case.numbers, threads=n) for n in (1, 1, 2))
    for other in (again, two):
        np.testing.assert_array_equal(one.energy_i, other.energy_i)
        np.testing.assert_array_equal(one.dE_dr_pc, other.dE_dr_pc)


def test_nan_is_passed_on(
    models: dict[str, Potential], rng: np.random.Generator, make_neighborhoods: Callable[..., Any]
) -> None:
    case = make_neighborhoods(models["order 2, l 0-1"], rng, [2, 2, 2])
    case.edges.r_pc[2, 1] = np.nan
    energy_i, dE_dr_pc = evaluated(kernels, case)
    assert np.isnan(energy_i).tolist() == [False, True, False]
    assert np.isnan(dE_dr_pc).any(axis=1).tolist() == [False, False, True, True, False, False]


# ------------------------------------------------------------------------------------------------ physics


def test_symmetries(
    potential: Potential,
    rng: np.random.Generator,
    assert_close: Callable[..., None],
    make_neighborhoods: Callable[..., Any],
) -> None:
    case = make_neighborhoods(potential, rng, [3, 5, 0, 1, 4, 2, 3, 1, 2])
    edges, numbers = case.edges, case.numbers
    plain = potential.evaluate(edges, numbers)
    rotation_cc, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    for operation_cc in (rotation_cc, -rotation_cc, -np.eye(3)):
        turned = potential.evaluate(
            type(edges)(edges.first, edges.neighbor, edges.r_pc @ operation_cc.T), numbers
        )
        assert_close(turned.energy_i, plain.energy_i)
        assert_close(turned.dE_dr_pc, plain.dE_dr_pc @ operation_cc.T)
        assert_close(turned.virial, operation_cc @ plain.virial @ operation_cc.T)
    # neighbours of each atom in reverse order
    reverse_p = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(edges.first[:-1], edges.first[1:], strict=True)]
    )
    permuted = potential.evaluate(
        type(edges)(edges.first, edges.neighbor[reverse_p], edges.r_pc[reverse_p]), numbers
    )
    assert_close(permuted.energy_i, plain.energy_i)
    assert_close(permuted.forces, plain.forces)


@pytest.mark.parametrize("cutoff_function", ["power", "envelope"])
def test_energy_and_force_vanish_smoothly_at_the_cutoff(
    cutoff_function: str,
    rng: np.random.Generator,
    make_model: Callable[..., Any],
    make_neighborhoods: Callable[..., Any],
) -> None:
    potential = make_model(3, species=SPECIES[:2], order=3, l_max=2, ranks=2, cutoff_function=cutoff_function)
    case = make_neighborhoods(potential, rng, [1], n_ghosts=1)
    direction_c = case.edges.r_pc[0] / np.linalg.norm(case.edges.r_pc[0])

    def at(r: float) -> tuple[float, float]:
        case.edges.r_pc[0] = r * direction_c
        energy_i, dE_dr_pc = evaluated(kernels, case)
        return float(energy_i[0]), float(np.abs(dE_dr_pc).max())

    alone, zero = at(potential.cutoff)
    assert zero == 0.0
    assert at(np.nextafter(1.5 * potential.cutoff, 9.0)) == (alone, 0.0)
    delta = 1e-3 * potential.cutoff
    (far, far_slope), (near, near_slope) = at(potential.cutoff - 2 * delta), at(potential.cutoff - delta)
    # triple zero of the energy, double zero of the force: two continuous derivatives
    assert (far - alone) / (near - alone) == pytest.approx(8.0, rel=0.1)
    assert far_slope / near_slope == pytest.approx(4.0, rel=0.1)


class PlainCalculator(Calculator):
    """The potential as an ASE calculator, with a fresh edge list at every call."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        evaluation = self.potential.evaluate(self.potential.edges(self.atoms), self.atoms.numbers, threads=1)
        stress_cc = evaluation.virial / self.atoms.cell.volume
        self.results = {
            "energy": evaluation.energy,
            "free_energy": evaluation.energy,
            "energies": evaluation.energy_i,
            "forces": evaluation.forces,
            "stress": np.array([stress_cc[c, d] for c, d in VOIGT]),
        }


def rattled_crystal(rng: np.random.Generator) -> Atoms:
    """Five atoms of four elements in a small skewed cell, every atom with its own images as neighbours."""
    cell_cc = np.array([[3.9, 0.3, 0.1], [0.9, 4.2, -0.4], [-0.5, 0.8, 4.6]])
    scaled_ic = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 0.6]])
    atoms = Atoms(["Al", "Ni", "Cu", "Zr", "Ni"], scaled_positions=scaled_ic, cell=cell_cc, pbc=True)
    atoms.positions += rng.uniform(-0.15, 0.15, size=(5, 3))
    return atoms


@thousands_of_energies
@pytest.mark.parametrize(
    ("order", "l_max", "pseudotensors", "components"),
    [
        (2, 0, False, 5),
        (2, 4, False, 5),
        (3, 2, True, "all"),
        (3, 3, False, 5),
        (4, 1, True, 5),
        (4, 4, False, 5),
        (4, 2, True, 5),
        (5, 4, False, 4),
        (5, 3, True, 3),
    ],
)
def test_forces_and_stress_are_derivatives_of_the_energy(
    order: int,
    l_max: int,
    pseudotensors: bool,
    components: Any,
    rng: np.random.Generator,
    make_model: Callable[..., Any],
) -> None:
    potential = make_model(
        order, species=SPECIES, order=order, l_max=l_max, ranks=2 if order < 5 else 1,
        pseudotensors=pseudotensors, species_form="embedding" if order % 2 else "pair",
    )  # fmt: skip
    atoms, calculator = rattled_crystal(rng), PlainCalculator(potential)
    forces = check_forces(atoms, calculator, components=components, rtol=1e-7)
    stress = check_stress(atoms, calculator, rtol=1e-7)
    assert forces.passed and stress.passed


def test_derivatives_of_one_neighborhood(
    models: dict[str, Potential], rng: np.random.Generator, make_neighborhoods: Callable[..., Any]
) -> None:
    """Every component of every pair derivative, small enough for plain Python."""
    case = make_neighborhoods(models["order 3, l 0-2, pseudotensors"], rng, [3])
    _, dE_dr_pc = evaluated(kernels, case)
    origin_pc = case.edges.r_pc.copy()
    errors = []
    for h in (2e-3, 1e-3):
        difference_pc = np.empty_like(dE_dr_pc)
        for p, c in np.ndindex(*dE_dr_pc.shape):
            ends = []
            for sign in (1.0, -1.0):
                case.edges.r_pc[:] = origin_pc
                case.edges.r_pc[p, c] += sign * h
                ends.append(evaluated(kernels, case)[0][0])
            difference_pc[p, c] = (ends[0] - ends[1]) / (2 * h)
        errors.append(np.abs(difference_pc - dE_dr_pc).max() / np.abs(dE_dr_pc).max())
    assert errors[1] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)  # second order
