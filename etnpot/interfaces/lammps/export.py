"""A potential as LAMMPS reads it: a text file of named tables with a digest, and an input file that uses it.

    # UNITS: metal  ...
    etnpot-lammps VERSION crc32 DIGEST bytes LENGTH
    NAME integer|real|text COUNT
    value value ...
    ...
    end

DIGEST (CRC-32, eight hexadecimal digits) and LENGTH (bytes) are those of everything after the second line. Real numbers are
written with as many digits as it takes to read back the same bits. The first line tells LAMMPS the units. This module alone
knows how the tables of a potential become those of the file; ``source/etn_model.h`` reads them.

==================== ======== ===============================================================================
table                kind     content
==================== ======== ===============================================================================
species              text     chemical symbols, in the order of the types
reference_energies   real     E0 [z], eV
radial_codes         integer  coordinate and cutoff function as in `RadialBasis.kernel_tables`, cutoff power
radial_constants     real     r_min, cutoff (Å), saturation width, p_0
radial_recurrence    real     a, b, c [3, n]
channels             integer  [l]
harmonics_norms      real     F_lm [lm]
feature_first        integer  feature of (l, m = -l, first channel) [l]
feature_rank         integer  features per component of l [l]
radial_table         real     T [z_i, z_j, n, lc], with N^(-1/2)
repulsion_charges    integer  atomic numbers [z]
repulsion_inner      real     a [z_i, z_j], Å; empty without a repulsion
repulsion_outer      real     b [z_i, z_j], Å; empty without a repulsion
repulsion_constants  real     of `etnpot.basis.zbl`: e²/(4πε0), 0.8854 a0, the exponent 0.23, c_k [4], d_k [4]
energy_bounds        real     x_low, x_high, D of `etnpot.basis.bounded`, eV; empty without bounds
train_sizes          integer  length of the features, of all bond vectors, and of bond 0
paths                integer  [path, 10]: row of the left irrep, its rank, of the feature, its rank, of the right
                              irrep, its rank, first weight, first coupling, end of the couplings, 2 l3 + 1
coupling_index       integer  m1, m2, m3 [coupling, 3], zero-based, sorted by m3
coupling_value       real     Clebsch-Gordan coefficients [coupling]
weights              real     head [z, a], then the cores
grade_paths          integer  first path of the core that grades are made of, and the first beyond it; this and the
                              two tables that follow are left out for a potential without grades
grade                real     G [q, r] of `etnpot.potential.reliability`
grade_center         real     m G [z, r]
==================== ======== ===============================================================================
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import etnpot
from etnpot.basis import BOUND_WIDTH, ZBL_CONSTANTS, recurrence_constants
from etnpot.errors import PotentialFileError, SpecificationError
from etnpot.io.atomic import write_bytes_atomically
from etnpot.network import TrainLayout
from etnpot.potential import Potential
from etnpot.so3 import Irrep, coupling_table

__all__ = ["EXPORT_VERSION", "export_text", "pair_commands", "write_export", "write_input"]

#: Version of the exported file; ``FORMAT_VERSION`` of ``source/etn_model.h`` is the same.
EXPORT_VERSION = 2

_VALUES_PER_LINE = 10


def export_text(potential: Potential) -> str:
    """The content of the exported file.

    Parameters
    ----------
    potential : Potential

    Returns
    -------
    str
        ASCII; equal potentials give equal texts.

    Raises
    ------
    SpecificationError
        For a potential with layers, which the pair style does not have.
    """
    if potential.spec.layers:
        raise SpecificationError(
            "the pair style etn computes potentials without layers; run this one through ASE, or fit one without 'layers'"
        )
    symbols = _symbols(potential.species)
    body = "".join(_table(*table) for table in _tables(potential, symbols)) + "end\n"
    content = body.encode("ascii")
    return (
        f"# UNITS: metal  potential for the LAMMPS pair style etn, written by etnpot {etnpot.__version__}: "
        f"{' '.join(symbols)}\n"
        f"etnpot-lammps {EXPORT_VERSION} crc32 {zlib.crc32(content):08x} bytes {len(content)}\n{body}"
    )


def write_export(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write the exported file in one step.

    Parameters
    ----------
    potential : Potential
    path : str or path-like
        The file to make or replace.

    Raises
    ------
    PotentialFileError
        If it cannot be written.
    """
    _write(path, export_text(potential))


def pair_commands(potential: Potential, potential_name: str) -> list[str]:
    """The commands of an input file that name the potential, dispersion included.

    Parameters
    ----------
    potential : Potential
    potential_name : str
        Name of the exported file.

    Raises
    ------
    SpecificationError
        If LAMMPS does not have the dispersion of the potential.
    """
    coefficients = f"{potential_name} {' '.join(_symbols(potential.species))}"
    if potential.spec.dispersion is not None:
        return potential.spec.dispersion.lammps(potential.species, coefficients)
    return ["pair_style      etn", f"pair_coeff      * * {coefficients}"]


def write_input(
    potential: Potential, path: str | os.PathLike[str], *, potential_name: str, n_cells: int = 6
) -> None:
    """Write an input file for LAMMPS that runs a short molecular dynamics simulation with the exported file.

    Parameters
    ----------
    potential : Potential
    path : str or path-like
        The file to make or replace.
    potential_name : str
        Name of the exported file, as seen from the directory in which LAMMPS runs.
    n_cells : int
        Cubic cells along each edge of the start structure.
    """
    _write(path, _input_text(potential, potential_name, n_cells))


def _write(path: str | os.PathLike[str], text: str) -> None:
    try:
        write_bytes_atomically(path, text.encode("ascii"))
    except OSError as error:
        raise PotentialFileError(
            f"cannot write {os.fspath(path)}: {error.strerror or error}; the path must name a file in a "
            "directory that exists, can be written and has room"
        ) from error


def _tables(potential: Potential, symbols: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Name, kind and values of every table."""
    spec = potential.spec
    layout = spec.layout
    codes, constants, recurrence = spec.radial.kernel_tables()
    r_min, cutoff, width, p0, power = constants[:5]
    irreps = [Irrep.natural(l) for l in range(spec.l_max + 1)]
    rows, index, value = _paths(layout)
    yield "species", "text", symbols
    yield "reference_energies", "real", potential.arrays["reference_energies"]
    yield "radial_codes", "integer", [*codes, power]
    yield "radial_constants", "real", [r_min, cutoff, width, p0]
    yield "radial_recurrence", "real", recurrence
    yield "channels", "integer", spec.channels
    yield "harmonics_norms", "real", recurrence_constants(spec.l_max)
    yield "feature_first", "integer", [spec.feature.offset(irrep) + (irrep.l == 0) for irrep in irreps]
    yield "feature_rank", "integer", [spec.feature.rank(irrep) for irrep in irreps]
    yield "radial_table", "real", potential.radial_table
    repulsion, bounds = spec.repulsion, spec.energy_bounds
    yield "repulsion_charges", "integer", spec.species
    yield "repulsion_inner", "real", [] if repulsion is None else repulsion.inner
    yield "repulsion_outer", "real", [] if repulsion is None else repulsion.outer
    yield "repulsion_constants", "real", ZBL_CONSTANTS
    yield "energy_bounds", "real", [] if bounds is None else [*bounds, BOUND_WIDTH]
    sizes = [
        layout.feature.dimension,
        sum(bond.dimension for bond in layout.bonds),
        layout.bonds[0].dimension,
    ]
    yield "train_sizes", "integer", sizes
    yield "paths", "integer", rows
    yield "coupling_index", "integer", index
    yield "coupling_value", "real", value
    yield "weights", "real", potential.weights
    known = potential.reliability
    if known is not None:
        core = int(known.group.split(".")[1]) - 1
        counts = np.cumsum([0, *(len(core.paths) for core in layout.cores)])
        yield "grade_paths", "integer", counts[core : core + 2]
        yield "grade", "real", known.grade_qr
        yield "grade_center", "real", known.center_zr


def _paths(layout: TrainLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paths [path, 10] and their couplings, see the module's table."""
    ranges: dict[tuple[int, int, int], tuple[int, int]] = {}
    indices: list[np.ndarray] = []
    values: list[np.ndarray] = []
    rows: list[list[int]] = []
    weight = layout.n_species * layout.bonds[0].dimension
    left = 0
    for k, core in enumerate(layout.cores):
        right = left + layout.bonds[k].dimension
        for path in core.paths:
            triple = (path.left.l, path.feature.l, path.right.l)
            if triple not in ranges:
                index, value = coupling_table(*triple)
                begin = sum(map(len, values))
                ranges[triple] = begin, begin + len(value)
                indices.append(index)
                values.append(value)
            n1, n2, n3 = core.shape(path)
            rows.append(
                [
                    left + core.left.offset(path.left),
                    n1,
                    core.feature.offset(path.feature),
                    n2,
                    right + core.right.offset(path.right),
                    n3,
                    weight + core.offset(path),
                    *ranges[triple],
                    path.right.dim,
                ]
            )
        weight += core.size
        left = right
    return np.array(rows), np.concatenate(indices), np.concatenate(values)


def _table(name: str, kind: str, values: Any) -> str:
    """One table as text."""
    if kind == "text":
        words = list(values)
    elif kind == "integer":
        words = [str(int(value)) for value in np.ravel(values)]
    else:
        words = [repr(float(value)) for value in np.ravel(values)]
    lines = [
        " ".join(words[at : at + _VALUES_PER_LINE]) + "\n" for at in range(0, len(words), _VALUES_PER_LINE)
    ]
    return f"{name} {kind} {len(words)}\n" + "".join(lines)


def _input_text(potential: Potential, potential_name: str, n_cells: int) -> str:
    """An input file: a random solid solution at zero pressure and 300 K."""
    from ase.data import atomic_masses

    symbols = _symbols(potential.species)
    lattice, constant = _lattice(potential.species)
    n_types = len(symbols)
    # of what is there, one part in k becomes type k: equal shares in the end
    fractions = [
        f"set             group all type/fraction {k} {1 / k:.6f} {1000 + k}" for k in range(2, n_types + 1)
    ]
    masses = [
        f"mass            {k} {atomic_masses[z]:.4f}    # {symbol}"
        for k, (z, symbol) in enumerate(zip(potential.species, symbols, strict=True), start=1)
    ]
    lines = [
        f"# Molecular dynamics with {potential_name}, written by etnpot {etnpot.__version__}.",
        "# A LAMMPS that does not find the plugin by itself needs a first line",
        "# plugin load DIR/etnplugin.so",
        "",
        "units           metal",
        "atom_style      atomic",
        "newton          on",
        "",
        f"lattice         {lattice} {constant:.4f}",
        f"region          box block 0 {n_cells} 0 {n_cells} 0 {n_cells}",
        f"create_box      {n_types} box",
        "create_atoms    1 box",
        *fractions,
        *masses,
        "",
        *pair_commands(potential, potential_name),
        "neighbor        1.0 bin",
        "",
        "minimize        1e-8 1e-4 100 1000",
        "reset_timestep  0",
        "velocity        all create 300.0 12345",
        "fix             integrate all npt temp 300.0 300.0 0.1 iso 0.0 0.0 1.0",
        "timestep        0.001",
        "thermo          20",
        "thermo_style    custom step temp pe etotal press vol",
        "run             100",
    ]
    return "\n".join(lines) + "\n"


def _lattice(species: Sequence[int]) -> tuple[str, float]:
    """A cubic lattice and its constant (Å): the commonest of the elements, at their mean volume."""
    from ase.data import covalent_radii, reference_states

    atoms_per_cell = {"fcc": 4, "bcc": 2, "diamond": 8}
    found: list[str] = []
    volumes: list[float] = []
    for z in species:
        state: dict[str, Any] | None = reference_states[z] if z < len(reference_states) else None
        symmetry = state.get("symmetry") if state else None
        if state and symmetry in atoms_per_cell:
            found.append(symmetry)
            volumes.append(state["a"] ** 3 / atoms_per_cell[symmetry])
        elif state and symmetry == "hcp":
            volumes.append(math.sqrt(3) / 4 * state["a"] ** 3 * state["c/a"])
        else:
            volumes.append((2 * covalent_radii[z]) ** 3 / math.sqrt(2))
    lattice = max(("fcc", "bcc", "diamond"), key=found.count)
    return lattice, (atoms_per_cell[lattice] * float(np.mean(volumes))) ** (1 / 3)


def _symbols(species: Sequence[int]) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in species]
