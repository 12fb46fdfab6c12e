"""The potential as an object: specification, defaults, parameters, files, text, descriptors, threads."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import chemical_symbols, covalent_radii
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import etnpot
from etnpot.errors import PotentialFileError, SpeciesError, SpecificationError, StructureError
from etnpot.io.potential_file import write_potential_file
from etnpot.neighbors import EdgeList, neighbor_list
from etnpot.network import Bond
from etnpot.threads import default_threads, run_ranges

FROZEN = Path(__file__).parent / "data"

SMALL: dict[str, Any] = {"cutoff": 3.5, "order": 2, "l_max": 1, "ranks": 2, "channels": 2, "radial_size": 3}


def small(species: Any = ("Ni", "Cu"), **changes: Any) -> etnpot.Potential:
    return etnpot.ETN(species, **(SMALL | changes))


def alloy(rng: np.random.Generator, species: tuple[int, ...]) -> Atoms:
    """A rattled, sheared cell of 8 atoms."""
    atoms = bulk("Cu", cubic=True) * (1, 1, 2)
    atoms.numbers = rng.choice(species, len(atoms))
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0.0, 0.08, atoms.positions.shape)
    return atoms


def energies(potential: etnpot.Potential, atoms: Atoms) -> np.ndarray:
    return potential.evaluate(potential.edges(atoms), atoms.numbers).energy_i


#: Small valid settings of every kind.
SETTINGS = st.fixed_dictionaries(
    {
        "species": st.lists(st.integers(1, 118), min_size=1, max_size=5, unique=True),
        "cutoff": st.floats(2.0, 8.0),
        "order": st.integers(1, 4),
        "l_max": st.integers(0, 3),
        "radial_size": st.integers(1, 6),
        "channels": st.none() | st.integers(1, 3),
        "ranks": st.integers(1, 4),
        "seed": st.integers(0, 1000),
        "radial_family": st.sampled_from(["chebyshev", "jacobi", "bessel"]),
        "cutoff_function": st.sampled_from(["power", "envelope"]),
        "species_form": st.sampled_from([None, "pair", "embedding"]),
        "pseudotensors": st.booleans(),
        "neighbor_scale": st.none() | st.floats(1.0, 100.0),
    }
)
FEW = settings(max_examples=25, deadline=None, derandomize=True)
FEW_FILES = settings(FEW, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ----------------------------------------------------------------------------------------- specification, ETN


BAD = {
    "no species": ({"species": []}, "species: at least one element"),
    "species of no kind": ({"species": None}, "species: expected chemical symbols .*, got None"),
    "unknown symbol": ({"species": ["Cu", "Xx"]}, "species: 'Xx' is not a chemical symbol"),
    "element 0": ({"species": [0]}, "species: expected atomic numbers from 1 to 118, got 0"),
    "element 200": ({"species": 200}, "species: expected atomic numbers from 1 to 118, got 200"),
    "nested species": ({"species": [["Cu"]]}, r"species: expected chemical symbols .*, got \['Cu'\]"),
    "cutoff": ({"cutoff": -1.0}, "cutoff must be positive"),
    "cutoff text": ({"cutoff": "5"}, "cutoff must be a finite number, got '5'"),
    "r_min": ({"r_min": 4.0}, "r_min must be at least 0 and below the cutoff"),
    "order": ({"order": 0}, "order: expected an integer from 1 to 12, got 0"),
    "order fraction": ({"order": 2.5}, "order: expected an integer"),
    "l_max": ({"l_max": 13}, "l_max: expected an integer from 0 to 12, got 13"),
    "l_max bool": ({"l_max": True}, "l_max: expected an integer"),
    "bond_l_max": ({"bond_l_max": -1}, "bond_l_max: expected an integer"),
    "radial_size": ({"radial_size": 0}, "size must be"),
    "family": ({"radial_family": "hermite"}, "family must be one of 'chebyshev', 'jacobi', 'bessel'"),
    "cutoff_function": ({"cutoff_function": "cosine"}, "cutoff_function must be one of"),
    "cutoff_power": ({"cutoff_power": 1}, "cutoff_power must be"),
    "channels": ({"channels": (1, 2, 3)}, r"channels: expected 2 positive integers, .* got \(1, 2, 3\)"),
    "channels zero": ({"channels": 0}, "channels: expected an integer of at least 1, got 0"),
    "channels text": ({"channels": "ab"}, "channels: expected a sequence of integers, got 'ab'"),
    "channels fraction": ({"channels": (1.0, 2.0)}, "channels: expected a sequence of integers"),
    "ranks": ({"ranks": 0}, "ranks: expected an integer of at least 1, got 0"),
    "ranks fraction": ({"ranks": 2.5}, "ranks: expected an integer, a mapping .* got 2.5"),
    "ranks none": ({"ranks": None}, "ranks: expected an integer, a mapping"),
    "ranks text": ({"ranks": "4x0e"}, "ranks: expected an integer, a mapping"),
    "ranks count": ({"ranks": [2, 2]}, "ranks: a train of order 2 has 1 inner bonds, got ranks for 2"),
    "ranks irrep": ({"ranks": {"0x": 1}}, "irrep: expected l in digits"),
    "ranks without a path": ({"ranks": {"0o": 1}}, "no path leads through it"),
    "head_rank": ({"head_rank": 0}, "head_rank: expected an integer of at least 1"),
    "species_form": ({"species_form": "full"}, "species_form, embedding: form must be one of"),
    "species_rank": ({"species_rank": 0}, "species_rank: expected an integer of at least 1, got 0"),
    "embedding": ({"embedding": 3}, "embedding: expected a sequence of integers, got 3"),
    "embedding count": ({"embedding": (1, 2, 3)}, "embedding: expected two integers"),
    "embedding of a table": ({"species_form": "pair", "embedding": (2, 2)}, "embedding belongs to"),
    "neighbor_scale": ({"neighbor_scale": 0.0}, "neighbor_scale: expected a positive number"),
    "seed": ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    "reference_energies": ({"reference_energies": 3.0}, "reference_energies: expected a mapping"),
    "reference energy": ({"reference_energies": {"Cu": "low"}}, "expected a finite energy"),
    "reference nan": ({"reference_energies": {"Cu": math.nan}}, "finite energy in eV for 'Cu', got nan"),
    "reference of another": ({"reference_energies": {"Al": 1.0}}, "reference_energies: 'Al' is not among"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_setting_is_named(kind: str) -> None:
    changes, message = BAD[kind]
    with pytest.raises((SpecificationError, SpeciesError), match=message):
        etnpot.ETN(**(SMALL | {"species": ["Ni", "Cu"]} | changes))


BAD_FIELDS = {
    "species order": ({"species": (29, 28)}, "species: expected distinct ascending atomic numbers"),
    "species twice": ({"species": (29, 29)}, "species: expected distinct ascending"),
    "no species": ({"species": ()}, "species: at least one element"),
    "species number": ({"species": 29}, "species: expected a sequence of integers"),
    "radial": ({"radial": "chebyshev"}, "radial: expected a RadialBasis, got str"),
    "l_max": ({"l_max": -1}, "l_max: expected an integer"),
    "species_rank": ({"species_rank": 1.0}, "species_rank: expected an integer"),
    "bonds": ({"bonds": ()}, "bonds: expected at least two Bond objects"),
    "bonds of text": ({"bonds": ("2x0e", "1x0e")}, "bonds: expected at least two Bond objects"),
    "last bond": ({"bonds": (Bond.of({"0e": 2}), Bond.of({"0e": 2}))}, "bonds: the last bond is one scalar"),
    "no path": ({"bonds": (Bond.of({"0e": 1}), Bond.of({"0o": 1}), Bond.of({"0e": 1}))}, "no path"),
    "neighbor_scale": ({"neighbor_scale": math.inf}, "neighbor_scale: expected a positive number"),
}


@pytest.mark.parametrize("kind", BAD_FIELDS)
def test_a_wrong_field_of_a_specification_is_named(kind: str) -> None:
    changes, message = BAD_FIELDS[kind]
    with pytest.raises(SpecificationError, match=message):
        dataclasses.replace(small().spec, **changes)


def test_a_specification_never_changes() -> None:
    spec = small().spec
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.l_max = 3  # type: ignore[misc]
    assert spec == small(seed=9).spec and hash(spec) == hash(small(seed=9).spec)
    assert spec != small(order=3).spec


@FEW
@given(SETTINGS)
def test_specifications_survive_json(values: dict[str, Any]) -> None:
    spec = etnpot.ETN(**values).spec
    again = etnpot.PotentialSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.shapes == spec.shapes


def test_fields_of_a_stored_specification_are_checked() -> None:
    values = small().spec.to_dict()
    with pytest.raises(SpecificationError, match=r"unknown fields \['charge'\], missing fields \['l_max'\]"):
        etnpot.PotentialSpec.from_dict({k: v for k, v in values.items() if k != "l_max"} | {"charge": 1})
    with pytest.raises(SpecificationError, match=r"radial: unknown fields \['width'\]"):
        etnpot.PotentialSpec.from_dict(values | {"radial": values["radial"] | {"width": 1.0}})
    for wrong in (3, "text", [3], [{"0e": "many"}]):
        with pytest.raises(SpecificationError):
            etnpot.PotentialSpec.from_dict(values | {"bonds": wrong})
    with pytest.raises(SpecificationError, match="radial: expected a mapping"):
        etnpot.PotentialSpec.from_dict(values | {"radial": None})


def test_defaults_are_those_of_the_documentation() -> None:
    potential = etnpot.ETN(["Cu", "Ni", "H"])
    spec = potential.spec
    assert potential.species == (1, 28, 29) and potential.cutoff == 5.0
    assert (spec.order, spec.l_max, spec.channels, spec.radial.size) == (3, 3, (6, 5, 4, 3), 8)
    assert (spec.species_form, spec.species_rank, spec.embedding) == ("pair", 6, None)
    assert spec.radial.r_min == pytest.approx(1.4 * covalent_radii[1], abs=1e-3)
    assert spec.neighbor_scale == pytest.approx(4 / 3 * math.pi * 125 / 16)
    assert str(spec.bonds[-1]) == "1x0e" and spec.bonds[0].dimension == 3
    assert etnpot.ETN("Cu").spec.species_rank == 1
    assert etnpot.ETN(["Cu", "Ni"], species_rank=2**63).spec.species_rank == 4
    many = etnpot.ETN(["Cu", "Ni", "H", "C", "O"]).spec
    assert (many.species_form, many.species_rank, many.embedding) == ("embedding", 6, (4, 4))
    assert etnpot.ETN("Cu", cutoff=1.5).spec.radial.r_min == 0.75  # never above half of the cutoff


def test_numpy_numbers_are_numbers() -> None:
    plain = small("Cu", neighbor_scale=3.0, head_rank=1, species_rank=1)
    numpy = etnpot.ETN(
        np.int64(29), cutoff=np.float64(3.5), order=np.int32(2), l_max=np.int64(1), ranks=np.int64(2),
        channels=np.array([2, 2]), radial_size=np.int64(3), neighbor_scale=np.float32(3.0), seed=np.uint8(0),
        head_rank=np.int64(1), species_rank=np.int64(1),
    )  # fmt: skip
    assert numpy.spec == plain.spec
    json.dumps(numpy.spec.to_dict())
    np.testing.assert_array_equal(numpy.parameters, plain.parameters)


def test_ranks_per_irrep_and_per_bond() -> None:
    spec = small(order=3, ranks=[{"0e": 2, "1o": 1}, 1]).spec
    assert [str(bond) for bond in spec.bonds[1:]] == ["2x0e + 1x1o", "1x0e + 1x1o", "1x0e"]
    natural = {(irrep.l, irrep.p) for bond in small(order=3).spec.bonds for irrep in bond.irreps}
    bonds = small(order=4, pseudotensors=True).spec.bonds
    every = {(irrep.l, irrep.p) for bond in bonds for irrep in bond.irreps}
    assert natural == {(0, 1), (1, -1)} and every > natural
    assert max(irrep.l for irrep in small(l_max=3, order=3, bond_l_max=1).spec.bonds[1].irreps) == 1


def test_the_seed_decides_the_parameters() -> None:
    np.testing.assert_array_equal(small(seed=4).parameters, small(seed=4).parameters)
    assert not np.array_equal(small(seed=4).parameters, small(seed=5).parameters)


def test_the_order_of_species_in_the_input_does_not_matter(rng: np.random.Generator) -> None:
    species = ["Cu", "Al", "Ni", "H"]
    energy = {"Al": -1.0, 29: -3.5}
    atoms = alloy(rng, (1, 13, 28, 29))
    first = small(species, reference_energies=energy)
    for other in (small([1, "Ni", 13, 29], reference_energies=energy), small(species[::-1] * 2)):
        assert other.spec == first.spec
    np.testing.assert_array_equal(first.arrays["reference_energies"], [0.0, -1.0, 0.0, -3.5])
    order = rng.permutation(len(atoms))
    np.testing.assert_allclose(energies(first, atoms[order]), energies(first, atoms)[order], rtol=1e-12)


@pytest.mark.parametrize("form", ["pair", "embedding"])
@pytest.mark.parametrize("n_species", [1, 4, 5, 89])
def test_any_number_of_species(rng: np.random.Generator, n_species: int, form: str) -> None:
    numbers = tuple(range(1, n_species + 1))
    potential = etnpot.ETN(numbers, cutoff=4.0, order=2, l_max=2, ranks=2, species_form=form)
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    atoms.numbers = np.resize(numbers, len(atoms))
    atoms.positions += rng.normal(0.0, 0.1, atoms.positions.shape)
    energy_i = energies(potential, atoms)
    assert np.isfinite(energy_i).all() and len(set(energy_i)) == len(atoms)
    assert chemical_symbols[min(n_species, 8)] in repr(potential)


# ------------------------------------------------------------------------------------------------- parameters


def test_groups_fill_the_vector_and_are_read_only() -> None:
    potential = small(order=3)
    assert potential.n_parameters == len(potential.parameters) == potential.spec.n_parameters
    np.testing.assert_array_equal(
        np.concatenate([array.ravel() for array in potential.arrays.values()]), potential.parameters
    )
    assert list(potential.arrays) == list(potential.spec.shapes)
    for array in (potential.parameters, potential.weights, *potential.arrays.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        potential.parameters = np.zeros(3)  # type: ignore[misc]


def test_a_potential_does_not_share_memory_with_its_maker() -> None:
    values, provenance = np.array(small().parameters), {"a": 1}
    potential = etnpot.Potential(small().spec, values, provenance)
    kept = values.copy()
    values[:] = 0.0
    provenance["a"] = 2
    np.testing.assert_array_equal(potential.parameters, kept)
    assert potential.provenance == {"a": 1}


def test_replacing_parameters(rng: np.random.Generator) -> None:
    potential = small(reference_energies={"Cu": -1.0}).with_parameters(small().parameters, {"from": "test"})
    radial = rng.normal(size=potential.spec.shapes["radial.1"])
    changed = potential.with_arrays(radial__1=radial, reference_energies=[2, 3])
    np.testing.assert_array_equal(changed.arrays["radial.1"], radial)
    np.testing.assert_array_equal(changed.arrays["reference_energies"], [2.0, 3.0])
    np.testing.assert_array_equal(changed.arrays["radial.0"], potential.arrays["radial.0"])
    assert changed.spec is potential.spec and changed.provenance == {"from": "test"}
    shifted = potential.with_arrays(reference_energies=potential.arrays["reference_energies"] + [1.0, 2.0])
    atoms = alloy(rng, (28, 29))
    difference = energies(shifted, atoms) - energies(potential, atoms)
    np.testing.assert_allclose(difference, atoms.numbers - 27, atol=1e-13)
    with pytest.raises(SpecificationError, match=r"unknown parameter group 'radial\.7'; the groups are \['"):
        potential.with_arrays(radial__7=radial)
    with pytest.raises(SpecificationError, match=r"radial\.1: expected shape \(2, 3, 4\), got \(3,\)"):
        potential.with_arrays(radial__1=np.zeros(3))
    with pytest.raises(SpecificationError, match=r"this specification has \d+ of them, got shape \(3,\)"):
        potential.with_parameters(np.zeros(3))
    with pytest.raises(SpecificationError, match=r"entry 5 is nan; all must be finite"):
        potential.with_parameters(np.where(np.arange(potential.n_parameters) == 5, np.nan, 1.0))


def test_the_energy_is_linear_in_each_core(rng: np.random.Generator) -> None:
    potential = small(order=3)
    atoms = alloy(rng, (28, 29))
    for name in ("head", "core.1", "core.2", "core.3"):
        key, value = name.replace(".", "__"), potential.arrays[name]
        other = rng.normal(size=value.shape)
        e_0, e_1, e_2 = (
            energies(potential.with_arrays(**{key: array}), atoms)
            for array in (value, other, 2 * value - 3 * other)
        )
        np.testing.assert_allclose(e_2, 2 * e_0 - 3 * e_1, rtol=1e-10, atol=1e-12)


def test_the_gradient_by_parameters_is_that_of_differences(rng: np.random.Generator) -> None:
    potential = small(order=3)
    atoms = alloy(rng, (28, 29))
    edges = potential.edges(atoms)
    weight_i, direction_pc = rng.normal(size=len(atoms)), rng.normal(size=(edges.n_pairs, 3))
    gradient = potential.gradient(edges, atoms.numbers, weight_i, direction_pc)

    def loss(parameters: np.ndarray) -> float:
        evaluation = potential.with_parameters(parameters).evaluate(edges, atoms.numbers)
        return float(weight_i @ evaluation.energy_i + (direction_pc * evaluation.dE_dr_pc).sum())

    for name, where in potential.spec.slices.items():
        step = np.zeros(potential.n_parameters)
        step[where] = rng.normal(size=where.stop - where.start)
        slopes = [
            (loss(potential.parameters + h * step) - loss(potential.parameters - h * step)) / (2 * h)
            for h in (2e-4, 1e-4)
        ]
        expected = gradient @ step
        assert abs((4 * slopes[1] - slopes[0]) / 3 - expected) < 1e-7 * max(1.0, abs(expected)), name
    with pytest.raises(StructureError, match=r"expected weights of shapes \(8,\) and"):
        potential.gradient(edges, atoms.numbers, weight_i[:3], direction_pc)


# ------------------------------------------------------------------------------------------ files and pickles


@FEW_FILES
@given(SETTINGS, st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=2))
def test_files_and_pickles_keep_every_bit(
    tmp_path: Path, values: dict[str, Any], note: dict[str, Any]
) -> None:
    potential = etnpot.ETN(**values)
    potential = potential.with_parameters(potential.parameters, note)
    potential.save(tmp_path / "a.etn")
    for twin in (
        etnpot.load(tmp_path / "a.etn"),
        pickle.loads(pickle.dumps(potential)),
        copy.copy(potential),
        copy.deepcopy(potential),
    ):
        assert twin.spec == potential.spec and twin.provenance == note
        assert twin.parameters.tobytes() == potential.parameters.tobytes()
        assert not twin.parameters.flags.writeable
        assert twin.summary() == potential.summary()


def test_a_loaded_potential_gives_the_same_numbers(rng: np.random.Generator, tmp_path: Path) -> None:
    potential = etnpot.ETN(["Al", "Ni", "Cu"], cutoff=4.5, order=3, l_max=2, pseudotensors=True, ranks=3)
    atoms = alloy(rng, potential.species)
    potential.save(tmp_path / "a.etn")
    edges = potential.edges(atoms)
    before = potential.evaluate(edges, atoms.numbers)
    after = etnpot.load(str(tmp_path / "a.etn")).evaluate(edges, atoms.numbers)
    np.testing.assert_array_equal(after.energy_i, before.energy_i)
    np.testing.assert_array_equal(after.dE_dr_pc, before.dE_dr_pc)


@pytest.mark.parametrize("name", sorted(path.stem for path in FROZEN.glob("potential-*.etn")))
def test_potentials_of_past_releases_keep_their_numbers(name: str) -> None:
    """Phases of the coupling coefficients, memory order and every convention on the way to a force."""
    potential = etnpot.load(FROZEN / f"{name}.etn")
    expected = json.loads((FROZEN / f"{name}.json").read_text(encoding="utf-8"))["evaluations"]
    assert len(expected) == 2
    for entry in expected:
        atoms = Atoms(**entry["structure"])
        result = potential.evaluate(potential.edges(atoms), atoms.numbers)
        for quantity, value in entry["results"].items():
            wanted = np.array(value)
            error = np.abs(getattr(result, quantity) - wanted).max()
            assert error <= 1e-12 * np.abs(wanted).max(), f"{quantity}: {error:.1e}"


def test_a_pickle_carries_parameters_and_no_tables() -> None:
    potential = etnpot.ETN(["Al", "Ni", "Cu"])
    potential.evaluate(potential.edges(bulk("Cu")), [29])
    assert len(pickle.dumps(potential)) < 8 * potential.n_parameters + 4000


def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    potential = small()
    path = tmp_path / "wrong.etn"
    spec, arrays = potential.spec.to_dict(), dict(potential.arrays)
    cases: list[tuple[dict[str, Any], dict[str, np.ndarray]]] = [
        (spec | {"l_max": 2}, arrays),
        (spec | {"channels": [1, 1]}, arrays),
        (spec | {"charge": 1}, arrays),
        (spec | {"species": [28, 400]}, arrays),
        (spec | {"species": None}, arrays),
        (spec | {"radial": {}}, arrays),
        (spec | {"bonds": "two"}, arrays),
        (spec, arrays | {"extra": np.zeros(3)}),
        (spec, arrays | {"head": np.zeros(3)}),
        (spec, {name: array for name, array in arrays.items() if name != "head"}),
    ]
    for wrong_spec, wrong_arrays in cases:
        write_potential_file(path, spec=wrong_spec, arrays=wrong_arrays, provenance={})
        with pytest.raises(PotentialFileError, match=r"wrong\.etn' is not a potential that etnpot"):
            etnpot.load(path)


# ------------------------------------------------------------------------------------------------------- text


def test_summary_and_repr() -> None:
    potential = small(["Cu", "Ni"], reference_energies={"Cu": -3.5}, order=3)
    assert repr(potential) == (
        f"Potential(NiCu, cutoff=3.5, order=3, l_max=1, n_parameters={potential.n_parameters})"
    )
    text = potential.summary()
    for part in (
        f"{potential.n_parameters} parameters", "species      Ni, Cu", "cutoff       3.5 Å", "r_min 1.736 Å",
        "3 chebyshev functions", "'pair' of rank 4", "order 3: 2x0e | ", "| 1x0e\n", "Ni 0, Cu -3.5",
    ):  # fmt: skip
        assert part in text, part
    assert "embeddings 2 x 2" in small(species_form="embedding").summary()
    assert repr(small(range(1, 20))).startswith("Potential(HHeLiBeBCNO..., ")


# --------------------------------------------------------------------------------- evaluation and descriptors


def test_unknown_elements_are_named_with_those_that_are_known(rng: np.random.Generator) -> None:
    potential = small(["V", "Mo"])
    np.testing.assert_array_equal(potential.type_index([42, 23, 23]), [1, 0, 0])
    assert potential.type_index([]).shape == (0,)
    message = r"species 13 \(Al\), 41 \(Nb\) not in this potential, which knows 23 \(V\), 42 \(Mo\); refit"
    with pytest.raises(SpeciesError, match=message):
        potential.type_index([41, 23, 13, 41])
    atoms = alloy(rng, (23, 41))
    for method in (potential.edges, potential.descriptors):
        with pytest.raises(SpeciesError, match="refit"):
            method(atoms)


def test_descriptors_are_invariant_and_equivariant(rng: np.random.Generator) -> None:
    potential = small(order=3, l_max=2)
    atoms = alloy(rng, potential.species)
    rotated = atoms.copy()
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # of either determinant
    rotated.set_cell(atoms.cell.array @ rotation.T)
    rotated.positions = atoms.positions @ rotation.T
    for bond in (None, 0, 1, 2, 3):
        space = potential.spec.feature if bond is None else potential.spec.bonds[bond]
        x, y = (potential.descriptors(a, bond=bond) for a in (atoms, rotated))
        assert x.shape == y.shape == (len(atoms), space.dimension)
        for irrep in space.irreps:
            at, rank = space.offset(irrep), space.rank(irrep)
            x_ima, y_ima = (z[:, at : at + irrep.dim * rank].reshape(-1, irrep.dim, rank) for z in (x, y))
            # a representation keeps all scalar products among copies, and scalars themselves
            np.testing.assert_allclose(
                np.einsum("ima,imb->iab", x_ima, x_ima), np.einsum("ima,imb->iab", y_ima, y_ima), atol=1e-10
            )
            if irrep.l == 0:
                np.testing.assert_allclose(x_ima, y_ima, atol=1e-10)
    np.testing.assert_array_equal(potential.descriptors(atoms)[:, 0], 1)
    last_i = potential.descriptors(atoms, bond=3)[:, 0]
    np.testing.assert_allclose(last_i, energies(potential, atoms), rtol=1e-12)
    with pytest.raises(SpecificationError, match=r"bond: expected 0\.\.3 for a train of order 3, got 4"):
        potential.descriptors(atoms, bond=4)


def test_ghosts_carry_the_forces_of_their_images(rng: np.random.Generator) -> None:
    potential = small()
    atoms = alloy(rng, potential.species)
    edges = potential.edges(atoms)
    whole = potential.evaluate(edges, atoms.numbers)
    # the same edges with every image as an atom of its own behind the centres, as a host program has them
    assert edges.shift is not None
    n = len(atoms)
    images, ghost = np.unique(np.column_stack([edges.neighbor, edges.shift]), axis=0, return_inverse=True)
    ghosts = EdgeList(edges.first, n + ghost.ravel().astype(np.int64), edges.r_pc)
    numbers = np.concatenate([atoms.numbers, atoms.numbers[images[:, 0]]])
    parts = potential.evaluate(ghosts, numbers)
    np.testing.assert_array_equal(parts.energy_i, whole.energy_i)
    assert parts.forces.shape == (n + len(images), 3)
    folded = parts.forces[:n].copy()
    np.add.at(folded, images[:, 0], parts.forces[n:])
    np.testing.assert_allclose(folded, whole.forces, atol=1e-13)
    np.testing.assert_array_equal(parts.virial, whole.virial)
    np.testing.assert_array_equal(whole.virial, whole.virial.T)
    with pytest.raises(StructureError, match=r"of all \d+ atoms that the edges name, ghosts included"):
        potential.evaluate(ghosts, atoms.numbers)
    with pytest.raises(StructureError, match="expected the atomic numbers of 8 atoms, got 7"):
        potential.evaluate(edges, atoms.numbers[:-1])


def test_pairs_beyond_the_cutoff_contribute_nothing(rng: np.random.Generator) -> None:
    potential = small()
    atoms = alloy(rng, potential.species)
    near = potential.evaluate(potential.edges(atoms), atoms.numbers)
    far = potential.evaluate(neighbor_list(atoms, 1.4 * potential.cutoff), atoms.numbers)
    np.testing.assert_allclose(far.energy_i, near.energy_i, rtol=1e-13)
    np.testing.assert_allclose(far.forces, near.forces, atol=1e-13)


def test_a_molecule_and_a_lone_atom() -> None:
    potential = small(["H", "O"], cutoff=3.0)
    water = molecule("H2O")
    forces = potential.evaluate(potential.edges(water), water.numbers).forces
    assert abs(forces).max() > 1e-6 and abs(forces.sum(axis=0)).max() < 1e-14
    alone = potential.evaluate(potential.edges(Atoms("O")), [8])
    assert alone.dE_dr_pc.shape == (0, 3) and alone.virial.shape == (3, 3) and not alone.forces.any()


# ---------------------------------------------------------------------------------------------------- threads


def test_the_number_of_threads_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ETNPOT_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert default_threads() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # a list per level is legal there: not ours to judge
    assert default_threads() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.setenv("ETNPOT_NUM_THREADS", "5")
    assert default_threads() == 5
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("ETNPOT_NUM_THREADS", wrong)
        with pytest.raises(SpecificationError, match="ETNPOT_NUM_THREADS: expected a positive integer"):
            default_threads()


@FEW
@given(st.integers(0, 300), st.integers(1, 9), st.integers(1, 16), st.integers(1, 64))
def test_ranges_cover_everything_once(n_items: int, threads: int, block: int, smallest: int) -> None:
    ranges: list[tuple[int, int]] = []
    run_ranges(lambda a, b: ranges.append((a, b)), n_items, threads=threads, block=block, smallest=smallest)
    ranges.sort()
    assert ranges[0][0] == 0 and ranges[-1][1] == n_items and len(ranges) <= threads
    assert all(a[1] == b[0] and a[1] % block == 0 for a, b in pairwise(ranges))


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def work(start: int, stop: int) -> None:
        if start > 0:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_ranges(work, 100, threads=2, block=1, smallest=1)


# ------------------------------------------------------------------------------------------------ compilation

#: Every way in which arrays reach the kernels; prints the kernels that met more than one kind of argument.
ONE_KIND = """
import sys
import numpy as np
import etnpot
from ase.build import bulk
from etnpot.neighbors import EdgeList
potential = etnpot.ETN(["Ni", "Cu"], cutoff=3.5, order=2, l_max=1, ranks=2, channels=2, radial_size=3)
potential.save(sys.argv[1])
loaded = etnpot.load(sys.argv[1])
atoms = bulk("Cu", cubic=True)
edges = potential.edges(atoms)
parts = {name: getattr(edges, name).copy() for name in ("first", "neighbor", "r_pc")}
for part in parts.values():
    part.flags.writeable = False
odd = EdgeList(**(parts | {"r_pc": np.asfortranarray(edges.r_pc)}))
for p in (potential, loaded, loaded.with_parameters(loaded.parameters.copy())):
    for e, numbers in ((edges, atoms.numbers), (odd, list(atoms.numbers)), (odd, atoms.numbers.astype("i4"))):
        result = p.evaluate(e, numbers)
        result.forces, result.virial
        p.gradient(e, numbers, np.ones(4, dtype=int), np.asfortranarray(np.ones((e.n_pairs, 3))))
        p.jacobian(e, numbers)
        p.bonds(e, numbers)
for structure in (atoms, bulk("Ni") * (1, 1, 2)):
    structure.calc = etnpot.ETNCalculator(loaded)
    structure.get_forces(), structure.get_stress(), structure.get_stresses()
modules = [module for name, module in sys.modules.items() if name.startswith("etnpot.kernels.")]
kernels = {kernel for module in modules for kernel in vars(module).values() if hasattr(kernel, "signatures")}
assert {"evaluate", "gradient", "pair_sensitivities"} <= {k.__name__ for k in kernels if k.signatures}
for kernel in kernels:
    if len(kernel.signatures) > 1:
        print(kernel.__module__, kernel.__name__, kernel.signatures)
"""


def test_every_kernel_is_compiled_for_one_kind_of_argument(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ONE_KIND, tmp_path / "random.etn"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


# ------------------------------------------------------------------------------------------ hand-made edge lists


@pytest.mark.parametrize(
    ("first", "neighbor", "r", "numbers", "message"),
    [
        ([0, 5, 1], [1], [[0, 0, 2]], [28, 29], "first must not decrease"),
        ([0, -3, 1], [1], [[0, 0, 2]], [28, 29], "first must not decrease"),
        ([0, 1, 1], [-1], [[0, 0, 2]], [28, 29], "neighbor must not be negative"),
        ([0, 1, 1], [2], [[0, 0, 2]], [28, 29], "ghosts included"),
        ([0, 1, 1], [1], [[0, 0, np.nan]], [28, 29], "r_pc must be finite"),
        ([0, 1, 1], [1], [[0, 0, np.inf]], [28, 29], "r_pc must be finite"),
        ([0, 1, 1], [1], [[0, 0, 0]], [28, 29], "at one spot"),
        ([0, 1, 1], [1], [[0, 0, 2]], [28.5, 29], "sequence of integers"),
        ([0, 1, 1], [1], [[0, 0, 2]], ["Ni", "Cu"], "sequence of integers"),
        ([0, 1, 1], [1], [[0, 0, 2]], [28, 10**30], "sequence of integers"),
    ],
)
def test_edges_that_would_leave_the_arrays_are_refused(
    first: list, neighbor: list, r: list, numbers: list, message: str
) -> None:
    # the kernels read beyond the arrays (a segmentation fault), or gave NaN
    potential = etnpot.ETN(
        ["Ni", "Cu"], cutoff=4.0, order=2, l_max=1, channels=2, ranks=1, radial_size=3, seed=0
    )
    edges = EdgeList(np.array(first), np.array(neighbor), np.array(r, dtype=float))
    with pytest.raises((StructureError, SpeciesError), match=message):
        potential.evaluate(edges, numbers, threads=1)
    with pytest.raises((StructureError, SpeciesError), match=message):
        potential.gradient(edges, numbers, np.ones(2), np.zeros((1, 3)))
