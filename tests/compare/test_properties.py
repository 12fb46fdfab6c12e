"""Properties of crystals beside models whose elastic constants and frequencies are known in closed form, or by brute force."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

from etnpot.compare.properties import LATTICES, all_properties, crystal, primitive

R0, ALPHA, BETA = 2.35, 3.0, 0.9  # Å, eV/Å²: about silicon
A0 = 4 * R0 / 3**0.5


class Keating(Calculator):  # type: ignore[misc]
    """E = (3/8 r₀²) [α sum_bonds (r² - r₀²)² + β sum_angles (r_ij·r_ik + r₀²/3)²] of the diamond structure.

    With it (R. M. Martin, Phys. Rev. B 1, 4005, 1970) C11 = √3 (α + 3β) / 4r₀, C12 = √3 (α - β) / 4r₀ and
    C44 = √3 αβ / [r₀ (α + β)]; without relaxation inside the cell C44 is √3 (α + β) / 4r₀.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]
    default_parameters: ClassVar[dict[str, float]] = {"alpha": ALPHA, "beta": BETA}

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        i_p, j_p, r_pc = neighbor_list("ijD", atoms, 1.25 * R0)
        c, alpha, beta = 3 / (8 * R0**2), self.parameters["alpha"], self.parameters["beta"]
        excess = np.einsum("pc,pc->p", r_pc, r_pc) - R0**2
        energy = 0.5 * c * alpha * (excess**2).sum()
        gradient = 2 * c * alpha * excess[:, None] * r_pc  # each bond stands there twice
        p, q = (x.ravel() for x in np.indices((len(i_p), len(i_p))))
        pairs = (i_p[p] == i_p[q]) & (p != q)
        p, q = p[pairs], q[pairs]  # every angle twice
        bend = np.einsum("ac,ac->a", r_pc[p], r_pc[q]) + R0**2 / 3
        energy += 0.5 * c * beta * (bend**2).sum()
        np.add.at(gradient, p, 2 * c * beta * bend[:, None] * r_pc[q])
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i_p, gradient)
        np.add.at(forces, j_p, -gradient)
        self.results = {"energy": float(energy), "forces": forces}
        if atoms.cell.rank == 3:
            virial = r_pc.T @ gradient
            self.results["stress"] = full_3x3_to_voigt_6_stress(
                0.5 * (virial + virial.T) / atoms.get_volume()
            )


def test_the_model_of_the_test_has_its_own_derivatives() -> None:
    """Forces and stress of `Keating` are those of its energy."""
    atoms = bulk("Si", "diamond", a=1.01 * A0)
    atoms.rattle(0.05, seed=1)
    atoms.calc = Keating()
    h, forces, stress = 1e-4, atoms.get_forces(), atoms.get_stress(voigt=False)
    positions, cell = atoms.get_positions(), atoms.cell.array.copy()

    def energy() -> float:
        return float(atoms.get_potential_energy())

    for i in range(3):
        sides = []
        for sign in (1, -1):
            atoms.positions[1, i] = positions[1, i] + sign * h
            sides.append(energy())
        atoms.set_positions(positions)
        assert forces[1, i] == pytest.approx(-(sides[0] - sides[1]) / (2 * h), abs=1e-6)
        sides = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, 2] += 0.5 * sign * h
            strain[2, i] += 0.5 * sign * h
            atoms.set_cell(cell @ strain, scale_atoms=True)
            sides.append(energy())
        atoms.set_cell(cell, scale_atoms=True)
        assert stress[i, 2] == pytest.approx((sides[0] - sides[1]) / (2 * h * atoms.get_volume()), abs=1e-7)


@pytest.mark.slow
def test_diamond_has_the_elastic_constants_of_keating() -> None:
    """C44 with and without the sublattices' relaxation; the lattice constant, the bulk modulus, the frequency at Γ."""
    found = all_properties(
        Keating(),
        crystals=[{"name": "Si", "lattice": "diamond", "symbols": ["Si"], "a": 5.3}],
        compute=["bulk", "elastic", "phonons", "vacancy"],
    )["Si"]
    assert found["a"] == pytest.approx(A0, abs=1e-5) and found["E0"] == pytest.approx(0, abs=1e-8)
    unit = 3**0.5 / R0 / GPa
    assert found["C11"] == pytest.approx(unit * (ALPHA + 3 * BETA) / 4, rel=1e-3)
    assert found["C12"] == pytest.approx(unit * (ALPHA - BETA) / 4, rel=2e-3)
    assert found["C44"] == pytest.approx(unit * ALPHA * BETA / (ALPHA + BETA), rel=1e-3)
    assert found["C44 clamped"] == pytest.approx(unit * (ALPHA + BETA) / 4, rel=1e-3)
    assert found["B"] == pytest.approx((found["C11"] + 2 * found["C12"]) / 3, rel=2e-3)
    # one sublattice against the other: the curvature k of the energy of a cell by brute force, ω² = k / (m / 2)
    h, energies = 0.01, []
    for step in (-h, 0.0, h):
        atoms = bulk("Si", "diamond", a=A0)
        atoms.positions[1, 0] += step
        atoms.calc = Keating()
        energies.append(atoms.get_potential_energy())
    k = (energies[0] - 2 * energies[1] + energies[2]) / h**2
    omega = (k / (0.5 * atoms.get_masses()[0])) ** 0.5 * units.second / 1e12
    assert found["phonon Γ"] == pytest.approx(omega / (2 * np.pi), rel=2e-3)
    assert 0 < found["phonon X"] < found["phonon Γ"] and 0 < found["phonon L"] < found["phonon Γ"]
    assert found["vacancy"] == pytest.approx(0, abs=1e-6)  # bonds of no energy are less, and nothing pulls


@pytest.mark.slow
def test_hcp_has_the_constants_of_springs_between_neighbours() -> None:
    """Lennard-Jones of nearest neighbours alone against the algebra of its twelve springs per atom."""
    sigma, epsilon = 2.5, 0.1
    calculator = LennardJones(epsilon=epsilon, sigma=sigma, rc=1.3 * sigma)
    found = all_properties(
        calculator,
        crystals=[
            {"name": "hcp", "lattice": "hcp", "symbols": ["Mg"], "a": 2.85, "c": 4.5},
            {"name": "fcc", "lattice": "fcc", "symbols": ["Mg"], "a": 4.0},
        ],
        compute=["bulk", "elastic", "volume_curve"],
    )
    hcp, fcc = found["hcp"], found["fcc"]
    distance = 2 ** (1 / 6) * sigma
    assert hcp["a"] == pytest.approx(distance, rel=1e-4)
    assert hcp["c/a"] == pytest.approx((8 / 3) ** 0.5, abs=1e-4)
    assert hcp["E0"] == pytest.approx(fcc["E0"], rel=1e-7)
    assert hcp["B"] == pytest.approx(fcc["B"], rel=1e-3)
    # E = k/2 sum_bonds [n·(e r n + u)]², u the shift of the second atom for bonds between the two
    k = 72 * epsilon / distance**2
    atoms = primitive("hcp", ["Mg"], distance)
    i_p, j_p, r_pc = neighbor_list("ijD", atoms, 1.1 * distance)
    n_pc = r_pc / distance
    voigt = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    strains = np.array([n_pc[:, a] * n_pc[:, b] * distance for a, b in voigt]).T
    shifts = (j_p - i_p)[:, None] * n_pc
    rows = np.concatenate([strains, shifts], axis=1)
    hessian = 0.5 * k * rows.T @ rows / atoms.get_volume() / GPa  # every bond stands there twice
    ee, eu, uu = hessian[:6, :6], hessian[:6, 6:], hessian[6:, 6:]
    relaxed = ee - eu @ np.linalg.solve(uu, eu.T)
    expected = {"C11": (0, 0), "C12": (0, 1), "C13": (0, 2), "C33": (2, 2), "C44": (3, 3)}
    for name, place in expected.items():
        assert hcp[name] == pytest.approx(relaxed[place], rel=3e-3), name
    assert relaxed[0, 0] < 0.97 * ee[0, 0]  # the sublattices do move
    # the bulk modulus under hydrostatic pressure, from the compliances
    compliance = np.linalg.inv(relaxed)[:3, :3].sum()
    assert hcp["B"] == pytest.approx(1 / compliance, rel=3e-3)
    # the curve is a function of the volume: its lowest point is the one next to the volume of the crystal
    volumes = 0.5 * 3**0.5 * 4.5 / 2.85 * np.array(hcp["curve_a"]) ** 3
    assert np.argmin(hcp["curve"]) == np.abs(volumes - atoms.get_volume()).argmin()


@pytest.mark.slow
def test_phonons_of_hcp_and_of_a_compound_are_those_of_their_supercells() -> None:
    """The highest frequency at a point against the dynamical matrix of a cell that holds the wave, by brute force."""
    found = all_properties(
        EMT(),
        crystals=[
            {"name": "Cu", "lattice": "hcp", "symbols": ["Cu"], "a": 2.54},
            {"name": "CuAu", "lattice": "b2", "symbols": ["Cu", "Au"], "a": 3.05},
        ],
        compute=["phonons"],
    )
    for name, lattice, symbols, repeat, points in (
        ("Cu", "hcp", ["Cu"], (1, 1, 2), ("Γ", "A")),
        ("CuAu", "b2", ["Cu", "Au"], (2, 2, 2), ("Γ", "X", "M", "R")),
    ):
        own = found[name]
        c = own["a"] * own["c/a"] if "c/a" in own else None
        atoms = primitive(lattice, symbols, own["a"], c).repeat(repeat)
        n = 3 * len(atoms)
        constants = np.empty((n, n))
        for x in range(n):
            sides = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[x // 3, x % 3] += 0.02 * sign
                moved.calc = EMT()
                sides.append(moved.get_forces().ravel())
            constants[x] = -(sides[0] - sides[1]) / 0.04
        root = np.repeat(atoms.get_masses(), 3) ** -0.5
        matrix = root[:, None] * 0.5 * (constants + constants.T) * root
        omega = np.sqrt(np.abs(np.linalg.eigvalsh(matrix))) * units.second / 1e12 / (2 * np.pi)
        assert max(own[f"phonon {point}"] for point in points) == pytest.approx(omega.max(), rel=0.02)


@pytest.mark.parametrize("lattice", LATTICES)
def test_cells_of_every_lattice(lattice: str) -> None:
    """Primitive and conventional cell are one crystal: density, composition, and shells of neighbours."""
    symbols = ["Cu", "Au"][: LATTICES[lattice]]
    whole, small = crystal(lattice, symbols, 4.0), primitive(lattice, symbols, 4.0)
    assert len(whole) / whole.get_volume() == pytest.approx(len(small) / small.get_volume())
    assert len(whole) % len(small) == 0
    times = len(whole) // len(small)
    assert sorted(whole.symbols) == sorted(list(small.symbols) * times)
    near = [np.sort(neighbor_list("d", cell, 4.5)) for cell in (whole, small)]
    assert np.allclose(near[0], np.sort(np.tile(near[1], times)))
    expected = {
        "fcc": 12,
        "bcc": 8,
        "sc": 6,
        "diamond": 4,
        "hcp": 12,
        "b2": 8,
        "l12": 12,
        "rocksalt": 6,
        "zincblende": 4,
    }
    shell = near[1][near[1] < 1.001 * near[1][0]]
    assert len(shell) == expected[lattice] * len(small)


@pytest.mark.slow
def test_what_relaxes_inside_is_a_minimum_or_says_so() -> None:
    """A crystal of sublattices that fall apart has no elastic constants, and its other properties."""
    found = all_properties(
        Keating(alpha=1.0, beta=-2.0),  # 3α + β > 0, α + β < 0
        crystals=[{"name": "Si", "lattice": "diamond", "symbols": ["Si"], "a": 5.43}],
        compute=["elastic"],
    )["Si"]
    assert isinstance(found["a"], float)
    assert "not a minimum" in found["elastic"]
