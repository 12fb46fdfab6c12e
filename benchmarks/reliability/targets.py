"""What the fuzzing feeds, and what a correct result is.

Each target makes an input (bytes) from a generator, and checks one: `check` returns if the result is correct, raises an etnpot
error if the input is refused, and anything else is a failure. Checks compare with an independent path wherever there is one:

================  ===============================================================================================================
target            a result is correct if
================  ===============================================================================================================
structures        energy, forces and stress of the ASE calculator are those of the slow reference on a brute-force neighbour list
edges             the same for `Potential.evaluate` with hand-made edge lists
potential         the file reads back bit for bit
sealed            a forged potential file, with a right digest, evaluates to finite numbers within bounded time and memory
checkpoint        the file reads back bit for bit
resume            a forged checkpoint, with a right digest, is continued and leaves finite parameters
resume-molecules  the same of a fit of molecules with constraints from their dynamics
tensor-resume     a forged checkpoint of a fit of dipoles goes on to its end and leaves finite parameters
extxyz, ...       labels have their shapes and are finite, the elements exist, weights are not negative, the table can be printed
config            the settings make a model whose parameters can be counted
keywords          the same for keywords of `etnpot.fit`, and one step of the fit leaves finite parameters
flags             the command line ends with a status; no exception
export            LAMMPS' reader, with the address and undefined-behaviour sanitizers, gives finite energies and forces
================  ===============================================================================================================
"""

# ruff: noqa: E501

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import resource
import subprocess
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from mutations import NUMBERS, mutate_bytes, mutate_text, mutate_value

import etnpot
from etnpot.fitting.dataset import DataSet
from etnpot.fitting.demo_data import emt_alloys, spring_molecules
from etnpot.potential.tensor import make_tensor_model

__all__ = ["TARGETS", "Target"]

Rng = np.random.Generator


class Wrong(AssertionError):
    """A result that is not correct."""


def require(truth: Any, what: str) -> None:
    """Raise `Wrong` unless something holds."""
    if not truth:
        raise Wrong(what)


class Target:
    """One kind of input.

    Attributes
    ----------
    title : str
        What is read, for the table.
    inputs : int
        How many in a campaign.
    """

    title: ClassVar[str]
    inputs: ClassVar[int] = 5000

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self, rng: Rng) -> bytes:
        """An input."""
        raise NotImplementedError

    def check(self, case: bytes, directory: Path) -> None:
        """Return, or raise an etnpot error, or anything else for a failure."""
        raise NotImplementedError

    def close(self) -> None:
        """End what the target has begun."""

    def warm(self, directory: Path) -> None:
        """Have everything imported and compiled before memory is limited."""
        for index in range(20):
            with contextlib.suppress(Exception):
                self.check(self.make(np.random.default_rng(index)), directory)


def small_potential(**changes: Any) -> etnpot.Potential:
    """Copper and nickel, random parameters."""
    settings: dict[str, Any] = dict(
        species=["Ni", "Cu"], cutoff=4.0, order=3, l_max=2, channels=[3, 2, 2], ranks=2, radial_size=4, seed=1,
        reference_energies={"Cu": -3.0, "Ni": -4.0},
    )  # fmt: skip
    return etnpot.ETN(**(settings | changes))


def graded(potential: etnpot.Potential) -> etnpot.Potential:
    """With grades that mean nothing."""
    from etnpot.fitting.reliability import chosen_core
    from etnpot.potential import Reliability

    group, rng = chosen_core(potential), np.random.default_rng(0)
    n_q, n_z = potential.spec.shapes[group][0], len(potential.species)
    return potential.with_reliability(
        Reliability(group, rng.normal(size=(n_q, 3)), rng.normal(size=(n_z, 3)), np.ones((n_q, 1)))
    )


# -------------------------------------------------------------------------------------------------- structures

#: Pairs beyond which the slow reference is not worth its time.
_MOST_PAIRS, _MOST_CANDIDATES = 4000, 2_000_000


def brute_force(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Centres, neighbours and vectors of all pairs, by trying every image; None where there would be too many."""
    h, pbc, x = atoms.cell.array, atoms.pbc, atoms.positions
    ranges = []
    inverse = np.linalg.pinv(np.where(pbc[:, None], h, 0.0))
    s = x @ inverse
    for c in range(3):
        if not pbc[c]:
            ranges.append(np.zeros(1))
            continue
        # |S + s_j - s_i| <= cutoff / height, with the height 1 / |column of the inverse|
        reach = cutoff * np.linalg.norm(inverse[:, c])
        spread = s[:, c].max() - s[:, c].min()
        if not reach + spread < 1e6:
            return None
        most = int(reach + spread) + 1
        ranges.append(np.arange(-most, most + 1, dtype=float))
    n_shifts = int(np.prod([len(r) for r in ranges]))
    if n_shifts * len(atoms) ** 2 > _MOST_CANDIDATES:
        return None
    found: list[tuple[int, int, np.ndarray]] = []
    shifts = np.array(list(product(*ranges)))
    images = shifts @ np.where(pbc[:, None], h, 0.0)
    home = np.flatnonzero(~shifts.any(axis=1))
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            r = x[j] - x[i] + images
            near = np.einsum("sc,sc->s", r, r) < cutoff**2
            if i == j:
                near[home] = False
            found += [(i, j, vector) for vector in r[near]]
            if len(found) > _MOST_PAIRS:
                return None
    centre = np.array([f[0] for f in found], dtype=np.int64)
    neighbor = np.array([f[1] for f in found], dtype=np.int64)
    return centre, neighbor, np.array([f[2] for f in found]).reshape(-1, 3)


def reference(
    potential: etnpot.Potential,
    numbers: np.ndarray,
    centre: np.ndarray,
    neighbor: np.ndarray,
    r_pc: np.ndarray,
    n: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Energies of the atoms and dE/dr of the pairs, by the slow twin."""
    from etnpot import reference as slow

    type_i = potential.type_index(numbers)
    first = np.searchsorted(centre, np.arange(n + 1)).astype(np.int64)
    energy_i, dE_dr_pc = np.empty(n), np.empty_like(r_pc)
    slow.evaluate.evaluate(
        first, r_pc, type_i, type_i[neighbor], potential.basis_tables, potential.radial_table, potential.train_tables,
        potential.weights, 0, n, energy_i, dE_dr_pc,
    )  # fmt: skip
    return energy_i + potential.arrays["reference_energies"][type_i[:n]], dE_dr_pc


class Structures(Target):
    """Atoms through the ASE calculator."""

    title = "structures (ASE calculator)"
    inputs = 3000

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.potential = small_potential()

    def make(self, rng: Rng) -> bytes:
        kind = rng.integers(7)
        if kind == 0:
            atoms = Atoms("Cu" * int(rng.integers(0, 7)), positions=None)
            atoms.positions = 3.0 * rng.standard_normal((len(atoms), 3))
        elif kind == 1:
            atoms = bulk("Cu", cubic=bool(rng.integers(2)))
        elif kind == 2:
            atoms = fcc111("Ni", (1, 1, int(rng.integers(1, 4))), vacuum=4.0)
        elif kind == 3:
            atoms = molecule("CO2")
            atoms.numbers[:] = [29, 28, 29]
        elif kind == 4:
            atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]], cell=[0, 0, 4.6], pbc=[False, False, True])
        else:
            n = int(rng.integers(1, 9))
            atoms = Atoms(
                "Cu" * n,
                cell=rng.uniform(1.5, 6.0) * (np.eye(3) + 0.4 * rng.standard_normal((3, 3))),
                pbc=True,
            )
            atoms.set_scaled_positions(rng.random((n, 3)))
        atoms.numbers[rng.random(len(atoms)) < 0.4] = 28
        if rng.random() < 0.4:
            atoms.rattle(float(rng.choice([1e-12, 1e-3, 0.1, 1.0])), seed=int(rng.integers(1000)))
        numbers, x, cell, pbc = (
            atoms.numbers.tolist(),
            atoms.positions.copy(),
            atoms.cell.array.copy(),
            atoms.pbc.copy(),
        )
        special = (
            0.0,
            -0.0,
            1e-300,
            5e-324,
            1e-9,
            1e-5,
            1e5,
            1e9,
            1e15,
            1e18,
            1e150,
            1e300,
            -1e308,
            np.inf,
            -np.inf,
            np.nan,
        )
        for _ in range(int(rng.integers(0, 4))):
            kind = rng.integers(14)
            c, row = int(rng.integers(3)), int(rng.integers(3))
            if kind == 0:
                pbc = rng.random(3) < 0.5
            elif kind == 1:
                cell[row, c] = special[int(rng.integers(len(special)))]
            elif kind == 2:
                cell[row] = 0.0
            elif kind == 3:
                cell[row] *= -1.0
            elif kind == 4:
                cell[row] = cell[c] * float(rng.choice([1.0, -1.0, 2.0, 1.0 + 1e-9, 1e3]))
            elif kind == 5:
                cell[row] += cell[c] * float(rng.choice([1.0, 3.0, 17.0, 1e3, 1e5, 1e8]))
            elif kind == 6:
                cell *= float(rng.choice([1e-6, 1e-3, 0.1, 0.3, 3.0, 1e3, 1e7, 1e12]))
            elif kind == 7 and len(x):
                x[int(rng.integers(len(x))), c] = special[int(rng.integers(len(special)))]
            elif kind == 8 and len(x) > 1:
                i, j = rng.integers(len(x), size=2)
                x[i] = x[j] + float(rng.choice([0.0, 1e-12, 1e-8, 1e-6, 1e-3, 0.1])) * rng.standard_normal(3)
            elif kind == 9 and numbers:
                numbers[int(rng.integers(len(numbers)))] = int(
                    rng.choice([0, 1, 28, 29, 30, 118, 119, 255, -1, 2**31])
                )
            elif kind == 10 and len(x):
                x[int(rng.integers(len(x)))] += (
                    np.round(rng.normal(size=3) * float(rng.choice([1, 10, 1e6, 1e12]))) @ cell
                )
            elif kind == 11:
                x = x * float(rng.choice([1e-9, 1e-3, 0.3, 1e3, 1e9]))
            elif kind == 12:
                x, numbers = np.concatenate([x, x]), numbers + numbers
            else:
                x = x + rng.standard_normal(3) * float(rng.choice([1.0, 1e6, 1e12]))
        values = {
            "numbers": numbers,
            "positions": x.tolist(),
            "cell": cell.tolist(),
            "pbc": [bool(p) for p in pbc],
        }
        return json.dumps(values).encode()

    def warm(self, directory: Path) -> None:
        atoms = bulk("Cu", cubic=True)
        values = {
            "numbers": [29] * 4,
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.tolist(),
            "pbc": [True] * 3,
        }
        self.check(json.dumps(values).encode(), directory)

    def check(self, case: bytes, directory: Path) -> None:
        values = json.loads(case)
        n = len(values["numbers"])
        atoms = Atoms(
            values["numbers"], positions=np.reshape(np.array(values["positions"], dtype=float), (n, 3))
        )
        atoms.cell[:] = values["cell"]
        atoms.pbc = values["pbc"]
        atoms.calc = etnpot.ETNCalculator(self.potential, threads=1)
        before = atoms.copy()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        energies = atoms.get_potential_energies()
        stress = atoms.calc.results.get("stress")
        require(before == atoms, "the atoms were changed")
        require(
            np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(energies).all(),
            "a result is not finite",
        )
        require(stress is None or np.isfinite(stress).all(), "the stress is not finite")
        pairs = brute_force(atoms, self.potential.cutoff)
        if pairs is None:
            self._check_shifted(atoms, energy, forces)
            return
        energy_i, dE = reference(self.potential, atoms.numbers, *pairs, len(atoms))
        centre, neighbor, r_pc = pairs
        force_ic = np.zeros((n, 3))
        np.add.at(force_ic, centre, dE)
        np.subtract.at(force_ic, neighbor, dE)
        # vectors differ by the rounding of positions and images, relative to the shortest distance
        largest = max(float(np.abs(atoms.positions).max()), float(np.abs(r_pc).max(initial=0.0)), 1.0)
        shortest = float(np.sqrt((r_pc**2).sum(axis=1)).min(initial=1.0))
        error = 1e-9 + 1e-14 * largest / shortest
        if largest > 1e4:
            error += 1e-15 * largest * 10
        scale = float(np.abs(dE).max(initial=0.0)) * max(1, len(r_pc))
        total = 1.0 + float(np.abs(energy_i).max())
        if error > 1e-3:
            return  # positions so far out, or so close, that no digits are left to compare
        require(
            np.abs(energies - energy_i).max() <= error * (total + scale),
            f"energies differ by {np.abs(energies - energy_i).max():.2e}",
        )
        require(abs(energy - energy_i.sum()) <= error * n * (total + scale), "the energy differs")
        require(
            np.abs(forces - force_ic).max() <= error * (1.0 + scale),
            f"forces differ by {np.abs(forces - force_ic).max():.2e}",
        )
        if stress is not None:
            w = np.einsum("pa,pb->ab", r_pc, dE)
            w = 0.5 * (w + w.T)
            sigma = w[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            require(
                np.abs(stress * atoms.get_volume() - sigma).max()
                <= error * (1.0 + scale * self.potential.cutoff),
                "the stress differs",
            )

    def _check_shifted(self, atoms: Atoms, energy: float, forces: np.ndarray) -> None:
        """Where the reference is too slow: the same atoms in another order, wrapped, give the same."""
        order = np.arange(len(atoms))[::-1]
        other = atoms[order]
        other.calc = etnpot.ETNCalculator(self.potential, threads=1)
        error = 1e-7 + 1e-12 * max(1.0, float(np.abs(atoms.positions).max()))
        scale = 1.0 + abs(energy) + float(np.abs(forces).max()) * max(1, len(atoms))
        require(
            abs(other.get_potential_energy() - energy) <= error * scale,
            "the energy changes with the order of the atoms",
        )


class Edges(Target):
    """Hand-made edge lists through `Potential.evaluate` and `Potential.gradient`."""

    title = "edge lists (`Potential.evaluate`, `gradient`)"
    inputs = 4000

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.potential = small_potential()

    def make(self, rng: Rng) -> bytes:
        n, ghosts = int(rng.integers(0, 6)), int(rng.integers(0, 3))
        counts = rng.integers(0, 5, size=n)
        first = np.concatenate([[0], np.cumsum(counts)])
        n_pairs = int(first[-1])
        values: dict[str, Any] = {
            "first": first.tolist(),
            "neighbor": rng.integers(0, max(n + ghosts, 1), size=n_pairs).tolist(),
            "r": (1.5 * rng.standard_normal((n_pairs, 3))).tolist(),
            "numbers": rng.choice([28, 29], size=n + ghosts).tolist(),
            "types": ["int64", "int64", "float64"],
        }
        for _ in range(int(rng.integers(0, 3))):
            kind = rng.integers(6)
            if kind == 0:
                values["types"][int(rng.integers(3))] = str(
                    rng.choice(["int32", "float32", "float64", "int64", "object"])
                )
            elif kind == 1 and n_pairs:
                values["neighbor"][int(rng.integers(n_pairs))] = int(
                    rng.choice([-1, -2, n, n + ghosts, 10**6, 2**62, -(2**62)])
                )
            elif kind == 2 and n:
                values["first"][int(rng.integers(n + 1))] = int(
                    rng.choice([-1, 0, 1, n_pairs, n_pairs + 1, 10**6, 2**62, -(2**62)])
                )
            elif kind == 3 and n_pairs:
                values["r"][int(rng.integers(n_pairs))][int(rng.integers(3))] = float(
                    rng.choice([np.nan, np.inf, -np.inf, 0.0, 1e-12, 1e308, 1e160, 4.0])
                )
            elif kind == 4:
                values["numbers"] = mutate_value(values["numbers"], rng)
            elif n_pairs:
                values["r"][int(rng.integers(n_pairs))] = [0.0, 0.0, 0.0]
        return json.dumps(values).encode()

    def warm(self, directory: Path) -> None:
        values = {
            "first": [0, 1],
            "neighbor": [1],
            "r": [[0.0, 0.5, 2.0]],
            "numbers": [28, 29],
            "types": ["int64", "int64", "float64"],
        }
        self.check(json.dumps(values).encode(), directory)

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.neighbors import EdgeList

        values = json.loads(case)
        try:
            arrays = [
                np.array(values[name], dtype=dtype)
                for name, dtype in zip(("first", "neighbor", "r"), values["types"], strict=True)
            ]
        except (OverflowError, ValueError):
            return  # numpy does not make such an array
        arrays[2] = arrays[2].reshape(-1, 3)
        edges = EdgeList(*arrays)
        found = self.potential.evaluate(edges, values["numbers"], threads=1)
        results = found.energy_i, found.dE_dr_pc, found.forces, found.virial
        require(all(np.isfinite(part).all() for part in results), "a result is not finite")
        gradient = self.potential.gradient(
            edges, values["numbers"], np.ones(edges.n_atoms), np.zeros((edges.n_pairs, 3))
        )
        require(np.isfinite(gradient).all(), "the gradient is not finite")
        if edges.n_atoms:
            energy_i, dE = reference(
                self.potential,
                np.asarray(values["numbers"]),
                edges.center,
                edges.neighbor,
                edges.r_pc,
                edges.n_atoms,
            )
            scale = 1.0 + np.abs(energy_i).max() + np.abs(dE).max(initial=0.0)
            require(
                np.abs(energy_i - found.energy_i).max() <= 1e-8 * scale, "energies differ from the reference"
            )
            require(
                np.abs(dE - found.dE_dr_pc).max(initial=0.0) <= 1e-8 * scale,
                "derivatives differ from the reference",
            )


# ---------------------------------------------------------------------------------------- files of the library


def sealed(content: bytes) -> bytes:
    """A container with its digest made right again, if it still has the field."""
    import re

    found = re.search(rb'"sha256":"([0-9a-f]{64})"', content)
    if found is None:
        return content
    blank = content.replace(found[0], b'"sha256":"' + b"0" * 64 + b'"', 1)
    return content.replace(found[1], hashlib.sha256(blank).hexdigest().encode(), 1)


def opened(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a container."""
    n = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def closed(header: dict[str, Any], data: bytes) -> bytes:
    """The inverse of `opened`, with a right digest."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return sealed(len(text).to_bytes(8, "little") + text + data)


def forged(content: bytes, rng: Rng) -> bytes:
    """A file with a changed specification or changed arrays, and the right digest."""
    header, data = opened(content)
    metadata = header["__metadata__"]
    for _ in range(int(rng.integers(1, 3))):
        kind = rng.integers(6)
        if kind < 3:
            with contextlib.suppress(ValueError):  # it was damaged by the turn before
                spec = mutate_value(json.loads(metadata["spec"]), rng)
                metadata["spec"] = (
                    json.dumps(spec) if rng.random() < 0.95 else mutate_text(metadata["spec"], rng)
                )
        elif kind == 3:
            header = mutate_value(header, rng)
        elif kind == 4:
            data = mutate_bytes(data, rng)
        else:
            metadata["provenance"] = json.dumps(mutate_value({"a": {"b": [1, 2]}}, rng))
        if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
            break
        metadata = header["__metadata__"]
        if not isinstance(metadata.get("spec"), str):
            break
    return closed(header, data) if isinstance(header, dict) else json.dumps(header).encode()


class PotentialFile(Target):
    """Damaged potential files."""

    title = "potential files, damaged"
    inputs = 25000

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.potentials = {
            name: small_potential(**changes)
            for name, changes in {
                "small": {"order": 2, "l_max": 0, "channels": [1], "ranks": 1, "radial_size": 2},
                "medium": {},
                "embedding": {"species": ["Ni", "Cu", "Pd", "Ag", "Pt"], "reference_energies": None},
                "layers": {
                    "layers": [
                        {"kind": "message", "carry": {"0e": 1}, "ranks": 1, "attention": "normalised"},
                        {"kind": "pool", "carry": {"0e": 1}, "order": 1},
                    ]
                },
            }.items()
        }
        self.contents = {}
        for name, potential in self.potentials.items():
            potential.save(directory / "seed.etn")
            self.contents[name] = (directory / "seed.etn").read_bytes()

    def make(self, rng: Rng) -> bytes:
        contents = list(self.contents.values())
        return mutate_bytes(contents[int(rng.integers(len(contents)))], rng, contents)

    def check(self, case: bytes, directory: Path) -> None:
        path = directory / "case.etn"
        path.write_bytes(case)
        found = etnpot.load(path)
        same = [p for p in self.potentials.values() if p.spec == found.spec]
        require(
            same and found.parameters.tobytes() == same[0].parameters.tobytes(),
            "a damaged file loads as another potential",
        )


class SealedPotential(PotentialFile):
    """Forged potential files: changed specification or arrays, right digest."""

    title = "potential files, forged with a right digest"
    inputs = 4000

    def make(self, rng: Rng) -> bytes:
        contents = list(self.contents.values())
        return forged(contents[int(rng.integers(len(contents)))], rng)

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.cli.info import as_text
        from etnpot.interfaces.lammps.export import export_text
        from etnpot.io.potential_file import read_potential_file

        path = directory / "case.etn"
        path.write_bytes(case)
        found = etnpot.load(path)
        require(as_text(path, read_potential_file(path), found.summary()), "no text")
        if found.n_parameters < 10000:
            require(found.spec.layers or export_text(found), "no export")
            z = found.species[0]
            atoms = Atoms([z, z], [[0, 0, 0], [0, 0, 0.7 * found.cutoff]])
            energy = found.evaluate(found.edges(atoms), atoms.numbers, threads=1).energy
            largest = max(float(np.abs(found.parameters).max()), 1.0)
            require(np.isfinite(energy) or largest > 1e20, "the energy is not finite")


class TensorFile(Target):
    """Damaged and forged files of tensor models, and files of the other kind."""

    title = "tensor model files, damaged or forged"
    inputs = 6000

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        small: dict[str, Any] = dict(cutoff=3.0, order=2, l_max=2, channels=[2, 1, 1], ranks=2, radial_size=3)
        self.models = [
            make_tensor_model(["O", "H"], quantity, seed=1, **small)
            for quantity in (
                etnpot.Quantity("mu", "vector", charges=True),
                "polarizability",
                etnpot.Quantity("sigma", "matrix", per_atom=True),
            )
        ]
        self.contents = []
        for model in (*self.models, small_potential()):
            model.save(directory / "seed.etn")
            self.contents.append((directory / "seed.etn").read_bytes())

    def make(self, rng: Rng) -> bytes:
        content = self.contents[int(rng.integers(len(self.contents)))]
        return mutate_bytes(content, rng, self.contents) if rng.random() < 0.5 else forged(content, rng)

    def check(self, case: bytes, directory: Path) -> None:
        path = directory / "case.etn"
        path.write_bytes(case)
        found = etnpot.load_tensor(path)
        require(found.summary(), "no text")
        if found.n_parameters < 10000:
            z = found.species[0]
            atoms = Atoms([z, z], [[0, 0, 0], [0, 0, 0.7 * found.cutoff]])
            value = found.predict(atoms).value
            largest = max(float(np.abs(found.parameters).max()), 1.0)
            require(np.isfinite(value).all() or largest > 1e20, "the tensor is not finite")


def forged_state(content: bytes, rng: Rng) -> bytes:
    """A checkpoint with another state, other parameters or another header, and a right digest."""
    header, data = opened(content)
    metadata = header["__metadata__"]
    for _ in range(int(rng.integers(1, 3))):
        kind = rng.integers(5)
        if kind < 3:
            with contextlib.suppress(ValueError):  # it was damaged by the turn before
                metadata["state"] = json.dumps(mutate_value(json.loads(metadata["state"]), rng))
        elif kind == 3:
            data = mutate_bytes(data, rng)
        else:
            header = mutate_value(header, rng)
        if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
            break
        metadata = header["__metadata__"]
        if not isinstance(metadata.get("state"), str):
            break
    return closed(header, data) if isinstance(header, dict) else json.dumps(header).encode()


class Checkpoint(Target):
    """Damaged checkpoints of a fit."""

    title = "checkpoints, damaged"
    inputs = 15000
    settings: ClassVar[dict[str, Any]] = dict(
        cutoff=3.6,
        order=2,
        l_max=1,
        radial_size=3,
        channels=[2, 1],
        ranks=1,
        species_rank=1,
        polish_steps=2,
        threads=1,
    )

    def __init__(self, directory: Path) -> None:
        from etnpot.fitting.checkpoint import write_checkpoint
        from etnpot.fitting.fitter import Fitter
        from etnpot.fitting.settings import FitSettings

        super().__init__(directory)
        self.train = self.data()
        self.fitter = Fitter(self.train, None, FitSettings(**self.settings))
        self.contents = []
        self.states = []
        for _ in range(2):
            self.fitter.step()
            self.states.append(copy.deepcopy(self.state()))
            write_checkpoint(directory / "seed", *self.states[-1])
            self.contents.append((directory / "seed").read_bytes())

    def data(self) -> DataSet:
        """The training set."""
        return emt_alloys(3, symbols=("Cu",), seed=4, repeat=(1, 1, 1))

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """That of the fit, which is kept."""
        return self.fitter.state()

    def make(self, rng: Rng) -> bytes:
        return mutate_bytes(self.contents[int(rng.integers(len(self.contents)))], rng, self.contents)

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.fitting.checkpoint import read_checkpoint

        path = directory / "case.etnfit"
        path.write_bytes(case)
        values, arrays = read_checkpoint(path)
        kept = [
            state for state in self.states
            if json.dumps(state[0], sort_keys=True, default=list) == json.dumps(values, sort_keys=True)
            and all(np.array_equal(arrays[name], array) for name, array in state[1].items())
        ]  # fmt: skip
        require(kept, "a damaged checkpoint reads as another one")


class Resume(Checkpoint):
    """Forged checkpoints: changed state, right digest, continued by one step."""

    title = "checkpoints, forged with a right digest, continued"
    inputs = 2000

    def make(self, rng: Rng) -> bytes:
        return forged_state(self.contents[int(rng.integers(len(self.contents)))], rng)

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.fitting.checkpoint import read_checkpoint
        from etnpot.fitting.fitter import Fitter
        from etnpot.fitting.settings import FitSettings

        path = directory / "case.etnfit"
        path.write_bytes(case)
        values, arrays = read_checkpoint(path)
        fitter = Fitter(self.train, None, FitSettings(**self.settings))
        fitter.restore(values, arrays)
        if not fitter.finished and fitter.potential.n_parameters < 500:
            fitter.step()
        require(np.isfinite(fitter.potential.parameters).all(), "parameters are not finite")


class ResumeMolecules(Resume):
    """The same of a fit of molecules, whose state holds what they fell into."""

    title = "checkpoints of a fit of molecules, forged with a right digest, continued"

    def data(self) -> DataSet:
        return spring_molecules("H2O", 3)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        values, arrays = self.fitter.state()
        places = [1.1 * self.train[n].atoms.positions.ravel() for n in (0, 2)]
        return {**values, "falls": [[0, 1.0, 0.5], [2, 1.5, 0.0]]}, {
            **arrays,
            "falls": np.concatenate(places),
        }


class TensorResume(Target):
    """Forged checkpoints of fits of dipoles, which go on to their end."""

    title = "checkpoints of tensor fits, forged with a right digest, continued"
    inputs = 2000
    settings: ClassVar[dict[str, Any]] = dict(
        cutoff=3.0, order=2, l_max=1, radial_size=3, channels=[2, 1], ranks=1, species_rank=1, polish_steps=2, sweeps=1,
        threads=1,
    )  # fmt: skip

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        rng = np.random.default_rng(0)
        self.frames = []
        for _ in range(6):
            atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
            atoms.positions += 0.1 * rng.normal(size=(3, 3))
            atoms.info["dipole"] = rng.normal(size=3)
            self.frames.append(atoms)
        self.contents = []
        path = directory / "seed"
        etnpot.fit_tensor(
            self.frames,
            "dipole",
            checkpoint=path,
            callback=lambda _: self.contents.append(path.read_bytes()),
            **self.settings,
        )

    def make(self, rng: Rng) -> bytes:
        return forged_state(self.contents[int(rng.integers(len(self.contents)))], rng)

    def check(self, case: bytes, directory: Path) -> None:
        path = directory / "case.etnfit"
        path.write_bytes(case)
        found = etnpot.fit_tensor(self.frames, "dipole", checkpoint=path, resume=True, **self.settings)
        require(np.isfinite(found.model.parameters).all(), "parameters are not finite")


# --------------------------------------------------------------------------------------------------- data files


@cache
def frames() -> list[Atoms]:
    """Labelled configurations of the kinds that data sets hold."""
    made = [labelled.to_atoms() for labelled in emt_alloys(3, symbols=("Ni", "Cu"), seed=2, repeat=(1, 1, 1))]
    made[0].info["config_weight"] = 2.0
    slab = made[1].copy()
    slab.pbc = [True, True, False]
    slab.info.update(ref_energy=-1.5, virial=np.eye(3), energy_weight=0.5)
    slab.set_array("ref_forces", np.zeros((len(slab), 3)))
    atom = Atoms("Cu", info={"config_type": "isolated_atom", "energy": -3.0})
    return [*made, slab, atom]


class DataFile(Target):
    """Damaged files of labelled configurations; subclasses name the formats."""

    suffixes: ClassVar[tuple[str, ...]]
    is_text = True
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.seeds = dict(self.written(directory))

    def written(self, directory: Path) -> Iterator[tuple[str, bytes]]:
        """A sound file for each suffix."""
        import ase.io

        for suffix in self.suffixes:
            path = directory / f"seed{suffix}"
            ase.io.write(path, frames())
            yield suffix, path.read_bytes()

    def make(self, rng: Rng) -> bytes:
        suffix = self.suffixes[int(rng.integers(len(self.suffixes)))]
        content, others = self.seeds[suffix], list(self.seeds.values())
        if self.is_text and rng.random() < 0.75:
            texts = [other.decode() for other in others]
            content = mutate_text(content.decode(), rng, texts).encode("utf-8", "surrogatepass")
        else:
            content = mutate_bytes(content, rng, others)
        return suffix.encode() + b"\n" + content

    def check(self, case: bytes, directory: Path) -> None:
        suffix, _, content = case.partition(b"\n")
        path = directory / f"case{suffix.decode()}"
        path.write_bytes(content)
        try:
            data = DataSet.from_files(path, **self.options)
        finally:
            path.unlink()
            for name in os.listdir(directory):
                if name.startswith("case"):
                    os.unlink(directory / name)
        check_data(data)


def check_data(data: DataSet) -> None:
    """Whether a data set is one that a fit can take: see the module's table."""
    require(len(data) > 0, "an empty data set")
    for c in data:
        n = len(c.atoms)
        require(
            c.energy is None or (type(c.energy) is float and np.isfinite(c.energy)), f"energy {c.energy!r}"
        )
        for name, value, shape in (("forces", c.forces, (n, 3)), ("stress", c.stress, (6,))):
            if value is not None:
                require(
                    value.dtype == np.float64 and value.shape == shape and np.isfinite(value).all(),
                    f"{name} {value!r}",
                )
        require(
            np.isfinite(c.atoms.positions).all() and np.isfinite(c.atoms.cell.array).all(),
            "positions or cell not finite",
        )
        require(((c.atoms.numbers >= 1) & (c.atoms.numbers <= 118)).all(), f"elements {c.atoms.numbers}")
        weights = c.weight, c.energy_weight, c.forces_weight, c.stress_weight
        require(all(type(w) is float and 0 <= w < np.inf for w in weights), f"weights {weights}")
        require(c.group is None or isinstance(c.group, str), f"group {c.group!r}")
        require(c.atoms.calc is None and not c.atoms.constraints, "a calculator or constraints are left")
    require(data.table() and len(data.hash) == 64, "no table")


class ExtXYZ(DataFile):
    """Extended XYZ."""

    title = "data: extended XYZ"
    suffixes = (".extxyz", ".xyz")
    inputs = 12000


class Cfg(DataFile):
    """MLIP configurations."""

    title = "data: MLIP .cfg"
    suffixes = (".cfg",)
    inputs = 25000
    options: ClassVar[dict[str, Any]] = {"species": ["Ni", "Cu"]}

    def written(self, directory: Path) -> Iterator[tuple[str, bytes]]:
        from etnpot.io.mlip_cfg import write_mlip_cfg

        path = directory / "seed.cfg"
        periodic = [atoms for atoms in frames() if atoms.pbc.all() or not atoms.pbc.any()]
        write_mlip_cfg(path, periodic, ["Ni", "Cu"])
        text = path.read_text(encoding="utf-8")
        write_mlip_cfg(path, periodic[:2], ["Ni", "Cu"], direct=True)
        yield ".cfg", (text + path.read_text(encoding="utf-8")).encode()


class Trajectory(DataFile):
    """ASE's binary trajectories and databases."""

    title = "data: ASE .traj and .db"
    suffixes = (".traj", ".db")
    is_text = False
    inputs = 5000


class Text(DataFile):
    """Other text formats that ASE reads."""

    title = "data: ASE .json, vasprun.xml, OUTCAR, POSCAR, LAMMPS dump, CIF, XSF, PDB, .gen, SHELX, aims"
    options: ClassVar[dict[str, Any]] = {"require_labels": False}
    suffixes = (
        ".json",
        "_vasprun.xml",
        "_OUTCAR",
        ".lammpstrj",
        "_POSCAR",
        ".cif",
        ".gen",
        ".xsf",
        ".in",
        ".shelx",
        ".pdb",
    )
    inputs = 5000

    def written(self, directory: Path) -> Iterator[tuple[str, bytes]]:
        import ase.io

        formats = {".cif": "cif", ".gen": "gen", ".xsf": "xsf", "_POSCAR": "vasp", ".in": "aims", ".shelx": "res",
                   ".pdb": "proteindatabank", ".json": "json"}  # fmt: skip
        for suffix in self.suffixes:
            path = directory / f"seed{suffix}"
            if suffix == "_vasprun.xml":
                yield suffix, vasprun().encode()
            elif suffix == "_OUTCAR":
                yield suffix, outcar().encode()
            elif suffix == ".lammpstrj":
                yield suffix, DUMP.encode()
            else:
                several = frames()[:2] if suffix in (".json", ".xsf", ".pdb") else frames()[0]
                ase.io.write(path, several, format=formats[suffix])
                yield suffix, path.read_bytes()


DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 3.6
0 3.6
0 3.6
ITEM: ATOMS id type x y z fx fy fz
1 1 0.1 0.2 0.3 0 0.5 0
2 2 1.8 1.8 0.0 0 -0.5 0
"""


def vasprun() -> str:
    """The parts of a vasprun.xml that ASE reads."""
    vectors = "\n".join(f"<v> {a} {b} {c} </v>" for a, b, c in ((3.6, 0, 0), (0, 3.6, 0), (0, 0, 3.6)))
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
<generator><i name="version" type="string">6.3.0</i></generator>
<kpoints><varray name="kpointlist"><v> 0 0 0 </v></varray><varray name="weights"><v> 1 </v></varray></kpoints>
<parameters><separator name="electronic"><i name="NELECT"> 22 </i></separator></parameters>
<atominfo><atoms> 2 </atoms><types> 1 </types>
<array name="atoms"><set><rc><c>Cu</c><c>1</c></rc><rc><c>Ni</c><c>1</c></rc></set></array></atominfo>
<structure name="initialpos"><crystal><varray name="basis">{vectors}</varray></crystal>
<varray name="positions"><v> 0 0 0 </v><v> 0.5 0.5 0 </v></varray></structure>
<calculation><scstep><energy><i name="e_fr_energy"> -7.1 </i><i name="e_wo_entrp"> -7.0 </i><i name="e_0_energy"> -7.05 </i></energy></scstep>
<structure><crystal><varray name="basis">{vectors}</varray></crystal>
<varray name="positions"><v> 0 0 0 </v><v> 0.5 0.5 0.01 </v></varray></structure>
<varray name="forces"><v> 0 0 0.1 </v><v> 0 0 -0.1 </v></varray>
<varray name="stress"><v> 1 0 0 </v><v> 0 1 0 </v><v> 0 0 1 </v></varray>
<energy><i name="e_fr_energy"> -7.1 </i><i name="e_wo_entrp"> -7.0 </i><i name="e_0_energy"> -7.05 </i></energy>
</calculation>
</modeling>
"""


def outcar() -> str:
    """The parts of an OUTCAR that ASE reads."""
    return """ vasp.6.3.0
 POTCAR:    PAW_PBE Cu 22Jun2005
 POTCAR:    PAW_PBE Ni 02Aug2007
   VRHFIN =Cu: d10 p1
   VRHFIN =Ni: 3d8 4s2
   ions per type =               1   1
   NIONS =      2
   ISPIN  =      1    spin polarized calculation?
   direct lattice vectors                 reciprocal lattice vectors
     3.600000000  0.000000000  0.000000000     0.277  0.0  0.0
     0.000000000  3.600000000  0.000000000     0.0  0.277  0.0
     0.000000000  0.000000000  3.600000000     0.0  0.0  0.277

  FORCE on cell =-STRESS in cart. coord.  units (eV):
  Direction    XX          YY          ZZ          XY          YZ          ZX
  Total       1.0  1.0  1.0  0.0  0.0  0.0
  in kB       1.0  1.0  1.0  0.0  0.0  0.0

      direct lattice vectors                 reciprocal lattice vectors
     3.600000000  0.000000000  0.000000000     0.277  0.0  0.0
     0.000000000  3.600000000  0.000000000     0.0  0.277  0.0
     0.000000000  0.000000000  3.600000000     0.0  0.0  0.277

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.000000      0.000000      0.100000
      1.80000      1.80000      0.03600         0.000000      0.000000     -0.100000
 -----------------------------------------------------------------------------------
    total drift:                                0.000000      0.000000      0.000000

  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =        -7.10000000 eV

  energy  without entropy=       -7.00000000  energy(sigma->0) =       -7.05000000
"""


class Labels(Target):
    """Atoms with labels of all kinds, through `DataSet.from_atoms`."""

    title = "data: Atoms with labels and weights"
    inputs = 6000

    def make(self, rng: Rng) -> bytes:
        atoms = frames()[int(rng.integers(5))]
        results = (
            {} if atoms.calc is None else {k: np.asarray(v).tolist() for k, v in atoms.calc.results.items()}
        )
        info = {key: np.asarray(value).tolist() for key, value in atoms.info.items()}
        arrays = {
            key: value.tolist() for key, value in atoms.arrays.items() if key not in ("numbers", "positions")
        }
        values = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist(), "cell": atoms.cell.array.tolist(),
                  "pbc": [bool(p) for p in atoms.pbc], "info": info, "arrays": arrays, "results": results, "options": {}}  # fmt: skip
        for _ in range(int(rng.integers(1, 4))):
            kind = rng.integers(4)
            if kind == 0:
                part = str(rng.choice(["info", "results", "arrays"]))
                name = str(rng.choice(["energy", "forces", "stress", "virial", "REF_energy", "config_weight", "forces_weight",
                                       "config_type", "free_energy", "dft_forces", "data", "key_value_pairs"]))  # fmt: skip
                entries = values[part] if isinstance(values[part], dict) else {}
                values[part] = {**entries, name: mutate_value(entries.get(name, 1.0), rng)}
            elif kind == 1:
                name = str(rng.choice(["energy_key", "forces_key", "stress_key", "virial_key", "group_key"]))
                values["options"] = {
                    **values["options"],
                    name: str(rng.choice(["energy", "forces", "x", "", "positions"])),
                }
            elif kind == 2:
                name = str(rng.choice(["positions", "cell", "numbers"]))
                values[name] = mutate_value(values[name], rng)
            else:
                part = str(rng.choice(["info", "results"]))
                values[part] = mutate_value(values[part], rng)
        return json.dumps(values).encode()

    def check(self, case: bytes, directory: Path) -> None:
        from ase.calculators.singlepoint import SinglePointCalculator

        values = json.loads(case)
        try:
            atoms = Atoms(
                values["numbers"], positions=values["positions"], cell=values["cell"], pbc=values["pbc"]
            )
            atoms.info.update(values["info"])
            atoms.arrays.update({key: np.asarray(value) for key, value in values["arrays"].items()})
            if isinstance(values["results"], dict) and values["results"]:
                atoms.calc = SinglePointCalculator(atoms)
                atoms.calc.results.update(values["results"])
            atoms.copy()
        except Exception:
            return  # ASE itself does not take it
        check_data(DataSet.from_atoms(atoms, **values["options"]))


# ---------------------------------------------------------------------------------------------------- settings

#: Every setting with some sound values.
_SOUND: dict[str, list[Any]] = {
    "size": ["small", "medium", 300], "cutoff": [3.5, 4], "order": [1, 2, 3], "l_max": [0, 1, 2], "radial_size": [2, 4],
    "channels": [2, [2, 1]], "ranks": [1, {"0e": 2, "1o": 1}, [2, 2]], "species_rank": [1, 2], "species_form": ["pair", "embedding"],
    "embedding": [[1, 2]], "bond_l_max": [1], "pseudotensors": [True], "head_rank": [1], "radial_family": ["bessel"],
    "cutoff_function": ["envelope"], "cutoff_power": [4], "r_min": [1.0], "neighbor_scale": [20.0], "energy_weight": [1.0],
    "forces_weight": [0.5], "stress_weight": [0.0], "stress_shift": [False], "orthogonal": [False], "alpha": [2.0], "reference_energies": [{"Cu": -3.0}],
    "valid_fraction": [0.3, 0.0], "sweeps": [0, 1, 2], "two_site": [True], "growth": [False], "enrichment": [1],
    "rank_tolerance": [0.1], "polish_steps": [0, 1], "method": ["l-bfgs"], "ridge": [1e-3], "patience": [1], "tolerance": [0.1],
    "robust": [3.0], "time_limit": [5.0], "seed": [1], "threads": [1],
    "layers": [[{"kind": "pool", "carry": {"0e": 1}}], [{"kind": "message", "carry": {"0e": 1}, "order": 1}]],
}  # fmt: skip
_DATA = ("valid", "test", "out", "species", "energy_key", "group_key", "index", "format", "type_map")


class Keywords(Target):
    """Keywords of `etnpot.fit`: the data set is sound and tiny."""

    title = "settings of a fit, as keywords; then one step"
    inputs = 2000

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.train = emt_alloys(4, symbols=("Cu",), seed=4, repeat=(1, 1, 1))

    def settings(self, rng: Rng) -> dict[str, Any]:
        """Some settings, most of them sound."""
        base: dict[str, Any] = dict(
            order=2,
            l_max=1,
            radial_size=3,
            channels=[2, 1],
            ranks=1,
            species_rank=1,
            cutoff=3.6,
            polish_steps=1,
            threads=1,
        )
        names = list(_SOUND)
        for _ in range(int(rng.integers(1, 5))):
            name = names[int(rng.integers(len(names)))]
            sound = _SOUND[name][int(rng.integers(len(_SOUND[name])))]
            base[name] = sound if rng.random() < 0.4 else mutate_value(sound, rng)
        return base

    def make(self, rng: Rng) -> bytes:
        values = self.settings(rng)
        if rng.random() < 0.1:
            values[str(rng.choice(["species", "resume", "ordr", "", "out"]))] = mutate_value(["Cu"], rng)
        return json.dumps(values).encode()

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.fitting.fit import prepare_data
        from etnpot.fitting.fitter import Fitter
        from etnpot.fitting.settings import FitSettings

        values = json.loads(case)
        for name in ("resume", "out"):
            values.pop(name, None)
        species = values.pop("species", None)
        settings = FitSettings.from_dict(values)
        data = prepare_data(self.train, None, None, settings, species=species)
        spec = settings.spec(data.train.species, r_min=1.5, neighbor_scale=20.0)
        require(spec.n_parameters > 0, "no parameters")
        if spec.n_parameters > 400 or spec.order > 4 or spec.cutoff > 6:
            return
        fitter = Fitter(data.train, data.valid, settings)
        fitter.step()
        require(np.isfinite(fitter.potential.parameters).all(), "parameters are not finite")
        require(
            fitter.potential.evaluate(
                fitter.potential.edges(self.train[0].atoms), self.train[0].atoms.numbers
            ),
            "no result",
        )


class ConfigFile(Keywords):
    """Configuration files of `etnpot fit`."""

    title = "settings of a fit, as YAML"
    inputs = 5000

    def __init__(self, directory: Path) -> None:
        import ase.io
        import yaml

        super().__init__(directory)
        self.yaml = yaml
        self.data = directory / "train.extxyz"
        ase.io.write(self.data, [c.to_atoms() for c in self.train])

    def make(self, rng: Rng) -> bytes:
        values: dict[str, Any] = {"train": "train.extxyz", **self.settings(rng)}
        if rng.random() < 0.3:
            values[str(rng.choice(_DATA))] = mutate_value(
                str(rng.choice(["x", "train.extxyz", "Cu", ":", "::2"])), rng
            )
        text = self.yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        if rng.random() < 0.05:
            last = chr(119) if rng.random() < 0.5 else "channels"  # aliases that multiply
            text += "a: &a [x, x]\n" + "".join(
                f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}, *{chr(97 + k)}]\n" for k in range(22)
            )
            text += f"{last}: *w\n"
        if rng.random() < 0.03:
            text += "order: " + "[" * int(rng.choice([100, 3000, 100000]))
        if rng.random() < 0.6:
            text = mutate_text(text, rng)
        content = text.encode("utf-8", "surrogatepass")
        return mutate_bytes(content, rng) if rng.random() < 0.2 else content

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.cli.config import check_config, read_yaml

        path = directory / "config.yaml"
        path.write_bytes(case)
        here = os.getcwd()
        os.chdir(directory)
        try:
            config = check_config(*read_yaml(path))
            again = directory / "again.yaml"
            again.write_text(config.to_yaml(), encoding="utf-8")
            require(
                check_config(*read_yaml(again)).settings == config.settings, "the written settings are others"
            )
            config.settings.spec([28, 29], r_min=1.5, neighbor_scale=20.0)
        finally:
            os.chdir(here)


class Flags(Keywords):
    """The command line."""

    title = "command lines (`etnpot` and its subcommands)"
    inputs = 1500

    def __init__(self, directory: Path) -> None:
        import ase.io

        super().__init__(directory)
        ase.io.write(directory / "train.extxyz", [c.to_atoms() for c in self.train])
        small_potential().save(directory / "p.etn")

    def make(self, rng: Rng) -> bytes:
        command = str(rng.choice(["fit", "evaluate", "info", "lammps"]))
        if command == "fit":
            words = ["fit", "--train", str(rng.choice(["train.extxyz", "no.extxyz", "."])), "--out", "run"]
            if rng.random() < 0.95:
                words += ["--polish-steps", "0", "--sweeps", "0"]
            for name, value in self.settings(rng).items():
                words += [f"--{name.replace('_', '-')}"] + ([] if isinstance(value, bool) else [_word(value)])
        else:
            words = {
                "evaluate": ["evaluate", "p.etn", "train.extxyz", "--json", "-"],
                "info": ["info", "p.etn", "--json"],
                "lammps": ["lammps", "p.etn", "--out", "run"],
            }[command]
        for _ in range(int(rng.integers(0, 4))):
            at = int(rng.integers(1, len(words) + 1))
            kind = rng.integers(4)
            if kind == 0:
                del words[at - 1 : at]
            elif kind == 1:
                words[at:at] = [str(rng.choice(np.array(NUMBERS, dtype=object)))]
            elif kind == 2:
                words[at:at] = [str(rng.choice(["--resume", "--force", "--debug", "--worst", "--index", "--energy-key", "--species", "-h",
                                                "--threads", "--write", "--plot", "--example"]))]  # fmt: skip
            else:
                words[at - 1] = mutate_text(words[at - 1], rng)
            if not words:
                break
        return json.dumps(
            [word.encode("utf-8", "replace").decode().replace("\x00", "") for word in words]
        ).encode()

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.cli import main

        words = json.loads(case)
        if "--build" in words or "--debug" in words or "-d" in words:
            return  # compiles; shows tracebacks on purpose
        # a fit that is really begun is the target `keywords`; here it is the words that count
        if words[:1] == ["fit"]:
            words += ["--time-limit", "0", "--size", "50"]
        here = os.getcwd()
        os.chdir(directory)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                status = main(words)
            require(status == 0 or said.getvalue().strip(), "an error without a word")
            require("Traceback" not in said.getvalue(), "a traceback")
        except SystemExit as end:
            require(end.code in (0, 2), f"status {end.code}")
        finally:
            os.chdir(here)
            for path in sorted(directory.rglob("*"), reverse=True):
                if (
                    path.name not in ("train.extxyz", "p.etn")
                    and path.is_file()
                    and not path.name.startswith("seed")
                ):
                    path.unlink()


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


# ----------------------------------------------------------------------------------------------------- LAMMPS


class Export(Target):
    """Exported potentials through the reader and the kernel of the LAMMPS pair style, with sanitizers."""

    title = "exported potentials (C++ reader and kernel of LAMMPS, with sanitizers)"
    inputs = 4000

    def __init__(self, directory: Path) -> None:
        from etnpot.interfaces.lammps.export import export_text

        super().__init__(directory)
        tiny: dict[str, Any] = dict(order=2, l_max=1, channels=[2, 1], ranks=1, radial_size=2)
        layers = [
            {"kind": "message", "carry": {"0e": 1, "1o": 1}, "attention": "normalised"},
            {"kind": "pool"},
        ]
        self.texts = [
            export_text(small_potential(**tiny)),
            export_text(graded(small_potential())),
            export_text(graded(small_potential(**tiny, layers=layers))),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.errors: Any = None

    def start(self) -> subprocess.Popen[bytes]:
        """The program that reads, compiled at the first call."""
        from etnpot.interfaces.lammps.build import SOURCE

        program = self.directory / "read_export"
        if not program.exists():
            flags = [
                "-std=c++17",
                "-O1",
                "-g",
                "-fsanitize=address,undefined",
                "-fno-sanitize-recover=all",
                "-march=native",
            ]
            source = Path(__file__).with_name("read_export.cpp")
            subprocess.run(
                [os.environ.get("CXX", "c++"), *flags, f"-I{SOURCE}", str(source), "-o", str(program)],
                check=True,
            )
        self.errors = open(self.directory / "stderr", "w+b")
        options = "allocator_may_return_null=0:max_allocation_size_mb=1024:detect_leaks=0"
        return subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, preexec_fn=_without_limit,
            env=os.environ | {"ASAN_OPTIONS": options, "UBSAN_OPTIONS": "print_stacktrace=1"},
        )  # fmt: skip

    def warm(self, directory: Path) -> None:
        self.process = self.start()

    def close(self) -> None:
        """End the program."""
        if self.process is not None:
            assert self.process.stdin is not None and self.process.stdout is not None
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None
        if self.errors is not None:
            self.errors.close()
            self.errors = None

    def make(self, rng: Rng) -> bytes:
        text = self.texts[int(rng.integers(len(self.texts)))]
        if rng.random() < 0.25:
            return mutate_bytes(text.encode(), rng, [t.encode() for t in self.texts])
        first, header, body = text.split("\n", 2)
        body = mutate_text(body, rng, [t.split("\n", 2)[2] for t in self.texts])
        content = body.encode("utf-8", "surrogatepass")
        return (
            f"{first}\n{header.split(' crc32 ')[0]} crc32 {zlib.crc32(content):08x} bytes {len(content)}\n".encode()
            + content
        )

    def check(self, case: bytes, directory: Path) -> None:
        from etnpot.errors import PotentialFileError

        if self.process is None:
            self.process = self.start()
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(len(case).to_bytes(8, "little") + case)
            process.stdin.flush()
            answer = process.stdout.readline().decode(errors="replace").strip()
        except OSError:
            answer = ""
        if answer.startswith("refused"):
            raise PotentialFileError(answer)
        if answer.startswith("correct"):
            return
        process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace")
        self.close()
        guilty = [
            line
            for line in said.splitlines()
            if "ERROR" in line or "runtime error" in line or "what()" in line
        ]
        raise Wrong(f"{answer or 'the program died'}: {(guilty or [said[-300:]])[0][:300]}")


def _without_limit() -> None:
    """The address sanitizer maps terabytes; it has a limit of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))


TARGETS: dict[str, type[Target]] = {
    "structures": Structures, "edges": Edges, "potential": PotentialFile, "sealed": SealedPotential, "tensor": TensorFile,
    "checkpoint": Checkpoint, "resume": Resume, "resume-molecules": ResumeMolecules, "tensor-resume": TensorResume,
    "extxyz": ExtXYZ, "cfg": Cfg, "traj": Trajectory, "text": Text, "labels": Labels, "keywords": Keywords,
    "yaml": ConfigFile, "flags": Flags, "export": Export,
}  # fmt: skip
