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
layers               integer  how many layers
==================== ======== ===============================================================================

A file with layers has more tables. All features are the local ones, then those that each layer appends; `order` says where
among them the features of a train lie. The tables of layer k, counted from 1, begin with ``layer_k_``; each has
``train_sizes``, ``paths``, ``coupling_index``, ``coupling_value`` and ``weights`` as above for its own train, and

==================== ======== ===============================================================================
layers_local         integer  length of the local features
order                integer  of the last train: place of each feature among all
layer_k_order        integer  the same of the train of layer k
layer_k_kind         integer  place in `etnpot.potential.layers.KINDS`, and in ``ATTENTIONS``, heads, width, first row of
                              the queries in the last bond, which keys follow, length of this bond, copies of irreps that are
                              passed on, length of what is appended
layer_k_carried      integer  [c, 3] of every component that is passed on: row in the last bond, copy, head
layer_k_terms        integer  [t, 4]: u[f + a] += C A[lm, c + a] as lm, c, f, number of a; lm = 0 for a pool
layer_k_term_value   real     C [t]
layer_k_radial_table real     T [z_i, z_j, n, l copy], with N^(-1/2); of messages
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
from etnpot.errors import PotentialFileError
from etnpot.io.atomic import write_bytes_atomically
from etnpot.network import SCALAR, TrainLayout
from etnpot.potential import Potential
from etnpot.potential.layers import ATTENTIONS, KINDS, split_radial_table
from etnpot.so3 import Irrep, coupling_table

__all__ = [
    "EXPORT_VERSION",
    "export_text",
    "input_text",
    "pair_commands",
    "write_export",
    "write_input",
    "write_text",
]

#: Version of the exported file; ``FORMAT_VERSION`` of ``source/etn_model.h`` is the same. Version 2 had no layers.
EXPORT_VERSION = 3

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
    """
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
    write_text(path, export_text(potential))


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
    write_text(path, input_text(potential, potential_name, n_cells))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in one step; a PotentialFileError if that fails."""
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
    codes, constants, recurrence = spec.radial.kernel_tables()
    r_min, cutoff, width, p0, power = constants[:5]
    irreps = [Irrep.natural(l) for l in range(spec.l_max + 1)]
    local = spec.feature_bonds[0]
    yield "species", "text", symbols
    yield "reference_energies", "real", potential.arrays["reference_energies"]
    yield "radial_codes", "integer", [*codes, power]
    yield "radial_constants", "real", [r_min, cutoff, width, p0]
    yield "radial_recurrence", "real", recurrence
    yield "channels", "integer", spec.channels
    yield "harmonics_norms", "real", recurrence_constants(spec.l_max)
    yield "feature_first", "integer", [local.offset(irrep) + (irrep.l == 0) for irrep in irreps]
    yield "feature_rank", "integer", [local.rank(irrep) for irrep in irreps]
    local_table, *layer_tables = split_radial_table(potential.radial_table, spec.channels, spec.layers)
    yield "radial_table", "real", local_table
    repulsion, bounds = spec.repulsion, spec.energy_bounds
    yield "repulsion_charges", "integer", spec.species
    yield "repulsion_inner", "real", [] if repulsion is None else repulsion.inner
    yield "repulsion_outer", "real", [] if repulsion is None else repulsion.outer
    yield "repulsion_constants", "real", ZBL_CONSTANTS
    yield "energy_bounds", "real", [] if bounds is None else [*bounds, BOUND_WIDTH]
    places = potential.layered_tables.places if spec.layers else (slice(None),)
    weights = potential.layered_tables.weights if spec.layers else potential.weights
    yield from _train("", spec.layout, weights[places[-1]])
    yield "layers", "integer", [len(spec.layers)]
    if spec.layers:
        yield from _layers(potential, layer_tables)
    known = potential.reliability
    if known is not None:
        core = int(known.group.split(".")[1]) - 1
        counts = np.cumsum([0, *(len(core.paths) for core in spec.layout.cores)])
        yield "grade_paths", "integer", counts[core : core + 2]
        yield "grade", "real", known.grade_qr
        yield "grade_center", "real", known.center_zr


def _train(prefix: str, layout: TrainLayout, weights: np.ndarray) -> Iterator[tuple[str, str, Any]]:
    """The tables of one train."""
    rows, index, value = _paths(layout)
    sizes = [
        layout.feature.dimension,
        sum(bond.dimension for bond in layout.bonds),
        layout.bonds[0].dimension,
    ]
    yield f"{prefix}train_sizes", "integer", sizes
    yield f"{prefix}paths", "integer", rows
    yield f"{prefix}coupling_index", "integer", index
    yield f"{prefix}coupling_value", "real", value
    yield f"{prefix}weights", "real", weights


def _layers(potential: Potential, radial_tables: Sequence[np.ndarray]) -> Iterator[tuple[str, str, Any]]:
    """The tables of the layers, whose features are those of `etnpot.potential.layers` in another order: appended at the end."""
    spec, tables = potential.spec, potential.layered_tables
    place = np.arange(tables.widths[0])  # among all features, of every feature of V^k
    yield "layers_local", "integer", [len(place)]
    for k, (layer, table) in enumerate(zip(spec.layers, tables.layers, strict=True)):
        prefix, n_old, n_new = f"layer_{k + 1}_", len(place), tables.widths[k + 1]
        yield f"{prefix}order", "integer", place
        last, carried = layer.bonds[-1], layer.carried
        n_copies = sum(rank for _, rank in carried)
        kind = [KINDS.index(layer.kind), ATTENTIONS.index(layer.attention), layer.heads, layer.width]
        kind += [carried.rank(SCALAR), last.dimension, n_copies, n_new - n_old]
        yield f"{prefix}kind", "integer", kind
        yield f"{prefix}carried", "integer", table.carried
        new = np.setdiff1d(np.arange(n_new), table.kept)
        appended = np.empty(n_new, dtype=np.int64)
        appended[new] = np.arange(len(new))
        if layer.kind == "pool":
            component = np.arange(len(table.source))
            terms = np.stack([0 * new, component, appended[table.target], 1 + 0 * new], axis=1)
            values = np.ones(len(new))
        else:
            lm, component, v, count = table.coupling_index.T
            terms = np.stack([lm, component, appended[v], count], axis=1)
            values = table.term_value
        yield f"{prefix}terms", "integer", terms
        yield f"{prefix}term_value", "real", values
        if layer.kind == "message":
            yield f"{prefix}radial_table", "real", radial_tables[k]
        yield from _train(prefix, spec.layer_layouts[k], tables.weights[tables.places[k]])
        following = np.empty(n_new, dtype=np.int64)
        following[table.kept], following[new] = place, n_old + np.arange(len(new))
        place = following
    yield "order", "integer", place


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


def input_text(potential: Potential, potential_name: str, n_cells: int = 6) -> str:
    """The content of the input file: a random solid solution at zero pressure and 300 K.

    Parameters
    ----------
    potential, potential_name, n_cells
        As for `write_input`.

    Returns
    -------
    str
        ASCII.
    """
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
