"""Neighbour list libraries compared: time per atom and peak memory, from Atoms to the same edge list.

    python benchmarks/neighbors/compare_neighbor_lists.py [--atoms N ...] [--repeat K]

Every (library, size) runs in a process of its own, so that peak memory is its own. All libraries start from
the same rattled fcc nickel cell, and all end with the edge list of `etnpot.neighbors` (rows by centre; j and
shift ascending; float64 vectors): sorting is part of the time. "search" is the library's own call, "edge
list" everything. The first call, which touches fresh memory and loads the library, is left out; the figure is
the median of the following ones, in processor time, which a busy machine disturbs less (JSON: wall time too).

Writes results.json beside this file and the tables of docs/dependencies.md between their markers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs" / "dependencies.md"
LIBRARIES = ("vesin", "matscipy", "ase")
CUTOFF = 5.0  # Å
REPEATS_OF_CUBE = {100: (5, 5, 1), 10_000: (25, 20, 5), 1_000_000: (50, 50, 100)}


def structure(n_atoms: int) -> Atoms:
    """Rattled fcc nickel with the given number of atoms."""
    atoms = bulk("Ni", "fcc", a=3.52, cubic=True).repeat(REPEATS_OF_CUBE[n_atoms])
    atoms.rattle(0.05, seed=1)
    return atoms


# ------------------------------------------------------------------------------------------- what is measured


def search(library: str, atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs and shifts (i, j, S) by the library's own call, as users make it."""
    cell, pbc, positions = atoms.cell.array, atoms.pbc, atoms.positions
    if library == "vesin":
        from vesin import NeighborList

        finder = NeighborList(cutoff=CUTOFF, full_list=True, n_threads=1)
        pairs, shift = finder.compute(positions, cell, pbc, "PS")
        return pairs[:, 0], pairs[:, 1], shift
    if library == "matscipy":
        from matscipy.neighbours import neighbour_list

        return neighbour_list("ijS", cell=cell, positions=positions, pbc=pbc, cutoff=CUTOFF)
    from ase.neighborlist import primitive_neighbor_list

    return primitive_neighbor_list("ijS", pbc, cell, positions, CUTOFF)


def canonical(library: str, atoms: Atoms) -> Any:
    """The library's pairs as the edge list of etnpot, by the same steps as `etnpot.neighbors` takes."""
    from etnpot import neighbors

    if library == "vesin":
        return neighbors.neighbor_list(atoms, CUTOFF)
    i, j, shift = search(library, atoms)
    packing = neighbors._Packing.for_ranges(len(atoms), np.abs(shift).max(axis=0).tolist())
    key = (i.astype(np.int64) << packing.center_bit) + (j.astype(np.int64) << packing.neighbor_bit)
    key += packing.codes(shift)
    del i, j, shift
    key.sort()
    first = np.searchsorted(key, np.arange(len(atoms) + 1, dtype=np.int64) << packing.center_bit)
    code = key & ((1 << packing.neighbor_bit) - 1)
    crossing = np.flatnonzero(code != packing.zero)
    neighbor = (key >> packing.neighbor_bit) & ((1 << (packing.center_bit - packing.neighbor_bit)) - 1)
    crossing_shift = packing.shifts(code.take(crossing))
    del key, code
    cell, pbc = atoms.cell.array, atoms.pbc
    table = neighbors._PairTable(first, neighbor, crossing, crossing_shift, atoms.positions, cell, pbc)
    return table.edges(atoms.positions, cell, CUTOFF, shifts=True)


def seconds(call: Any, repeat: int) -> dict[str, float]:
    """Median processor and wall time of the calls after the first."""
    cpu, wall = [], []
    for _ in range(repeat + 1):
        start = time.process_time(), time.perf_counter()
        result = call()
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
        del result
    return {"cpu_s": statistics.median(cpu[1:]), "wall_s": statistics.median(wall[1:])}


def memory_mib(field: str) -> float:
    """A field of /proc/self/status in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; peak memory is measured on Linux only")


def measure(library: str, n_atoms: int, repeat: int) -> dict[str, Any]:
    """One row of the table, in this process."""
    atoms = structure(n_atoms)
    search(library, atoms[:1])  # loads the library
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = memory_mib("VmRSS")
    edges = canonical(library, atoms)
    peak = memory_mib("VmHWM") - before
    n_pairs = edges.n_pairs
    checksum = float(np.abs(edges.r_pc).sum()) + float((edges.neighbor % 97).sum())
    del edges
    row = {
        "library": library,
        "n_atoms": n_atoms,
        "n_pairs": n_pairs,
        "checksum": checksum,
        "search": seconds(lambda: search(library, atoms), repeat),
        "edge_list": seconds(lambda: canonical(library, atoms), repeat),
        "repeat": repeat,
        "peak_mib": peak,
    }
    if library == "vesin":
        from etnpot.neighbors import NeighborCache

        cache = NeighborCache(CUTOFF)
        cache.edges(atoms)
        row["reused"] = seconds(lambda: cache.edges(atoms), repeat)
        if cache.n_builds != 1:
            raise RuntimeError("the cached list was built again although nothing moved")
    return row


def awkward_structures() -> dict[str, Atoms]:
    """Small structures of the kinds on which neighbour lists have failed."""
    spread = [[0, 0, 0], [5, -6, 9], [1, 8, -2], [2, 2, 1]]
    skewed = [[4, 0, 0], [1, 4, 0], [0, 1, 4]]
    two = [[0, 0, 0], [0, 0, 2]]
    return {
        "cell shorter than the cutoff": Atoms("Ni", cell=[2.0, 2.5, 3.0], pbc=True),
        "mixed pbc, atoms outside": Atoms("Ni4", spread, cell=skewed, pbc=(True, False, True)),
        "molecule without cell": Atoms("Ni3", [*two, [0, 2, 4]]),
        "slab, third vector zero": Atoms("Ni2", two, cell=[3, 3, 0], pbc=(True, True, False)),
        "skewed slab, first vector zero": Atoms(
            "Ni2",
            [[1, 0.5, -1], [2, 1.5, 0]],
            cell=[[0, 0, 0], [1, 3, 0], [3, 1, 1]],
            pbc=(False, True, True),
        ),
        "chain, two vectors zero": Atoms("Ni2", two, cell=[0, 0, 3], pbc=(False, False, True)),
    }


def n_pairs_found(library: str, atoms: Atoms) -> str:
    """The number of pairs when the library is given the structure as it is, or the error it raises."""
    try:
        return str(len(search(library, atoms)[0]))
    except Exception as error:  # whatever a library raises is its result here
        return type(error).__name__


def n_pairs_exact(atoms: Atoms) -> str:
    """The number of pairs, counted over all images within 12 cells."""
    ranges = [np.arange(-12, 13) if periodic else np.zeros(1) for periodic in atoms.pbc]
    images = np.stack(np.meshgrid(*ranges), axis=-1).reshape(-1, 3) @ atoms.cell.array
    x = atoms.positions
    d = np.linalg.norm(x[None, :, None] + images[:, None, None] - x[None, None], axis=-1)
    return str(int((d < CUTOFF).sum()) - len(atoms))


def import_time(library: str) -> float:
    """Seconds that importing the library adds to a process that has numpy and ase (median of 5)."""
    module = {"vesin": "vesin", "matscipy": "matscipy.neighbours", "ase": "ase.neighborlist"}[library]
    code = (
        f"import numpy, ase, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    )
    return statistics.median(
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(5)
    )


# ------------------------------------------------------------------------------------------------- the report


def cpu_name() -> str:
    """Model name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"Rattled fcc nickel, cutoff {CUTOFF:g} Å, one thread, {results['machine']['cpu']}, Python "
        f"{results['machine']['python']}, numpy {results['versions']['numpy']}; median of "
        f"{results['repeat']} calls after a first one. Microseconds of processor time per atom.",
        "",
        "| library | atoms | pairs per atom | search | edge list | edge list, reused | peak memory, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results["rows"]:
        name = f"{row['library']} {results['versions'][row['library']]}"
        if "skipped" in row:
            lines.append(f"| {name} | {row['n_atoms']:,} | | | {row['skipped']} | | |")
            continue

        search_us, edges_us, reused_us = (
            f"{row[key]['cpu_s'] / row['n_atoms'] * 1e6:.1f}" if row.get(key) else ""
            for key in ("search", "edge_list", "reused")
        )
        lines.append(
            f"| {name} | {row['n_atoms']:,} | {row['n_pairs'] / row['n_atoms']:.1f} | {search_us} "
            f"| {edges_us} | {reused_us} | {row['peak_mib']:,.0f} |"
        )
    lines += ["", "Pairs found when the library is handed an awkward structure as it is:", ""]
    lines += ["| structure | exact | " + " | ".join(LIBRARIES) + " |", "|---|--:|" + "--:|" * len(LIBRARIES)]
    for name, counts in results["awkward"].items():
        lines.append(f"| {name} | " + " | ".join(counts[key] for key in ("exact", *LIBRARIES)) + " |")
    imports = ", ".join(f"{library} {results['import_s'][library] * 1e3:.0f} ms" for library in LIBRARIES)
    lines += ["", f"Import, on top of numpy and ase: {imports}."]
    return "\n".join(lines)


def write_docs(page: Path, text: str) -> None:
    """Replace what stands between the markers of the page."""
    begin, end = "<!-- neighbour lists: begin -->", "<!-- neighbour lists: end -->"
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, marker, tail = rest.partition(end)
    if not marker:
        raise SystemExit(f"{page} needs the lines '{begin}' and '{end}' around the tables")
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def run_row(library: str, n_atoms: int, repeat: int) -> dict[str, Any]:
    """One row, measured in a process of its own."""
    command = [sys.executable, __file__, "--row", library, str(n_atoms), "--repeat", str(repeat)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def main() -> None:
    """Measure everything, or one row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--atoms", type=int, nargs="+", default=list(REPEATS_OF_CUBE), choices=list(REPEATS_OF_CUBE)
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--memory-limit-gib", type=float, default=8.0, help="rows expected to need more are skipped"
    )
    parser.add_argument("--row", nargs=2, metavar=("LIBRARY", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--render", action="store_true", help="measure nothing; tables from results.json")
    args = parser.parse_args()
    if args.render:
        write_docs(DOCS, tables(json.loads((HERE / "results.json").read_text(encoding="utf-8"))))
        return
    if args.row:
        print(json.dumps(measure(args.row[0], int(args.row[1]), args.repeat)))
        return
    rows: list[dict[str, Any]] = []
    for library in LIBRARIES:
        previous = None
        for n_atoms in sorted(args.atoms):
            if previous:
                expected_gib = previous["peak_mib"] / 1024 * n_atoms / previous["n_atoms"]
                if expected_gib > args.memory_limit_gib and previous["n_atoms"] >= 10_000:
                    note = f"not run: about {expected_gib:.0f} GiB of memory expected"
                    rows.append({"library": library, "n_atoms": n_atoms, "skipped": note})
                    continue
            previous = run_row(library, n_atoms, args.repeat)
            rows.append(previous)
            print(f"{library:10s} {n_atoms:9,d} {previous['edge_list']['cpu_s']:9.4f} s", file=sys.stderr)
    for n_atoms in args.atoms:
        sums = {round(row["checksum"], 3) for row in rows if row["n_atoms"] == n_atoms and "checksum" in row}
        if len(sums) > 1 and max(sums) - min(sums) > 1e-9 * max(sums):
            raise SystemExit(f"the libraries disagree on {n_atoms} atoms: {sums}")
    results = {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("numpy", *LIBRARIES)},
        "cutoff": CUTOFF,
        "repeat": args.repeat,
        "rows": rows,
        "awkward": {
            name: {"exact": n_pairs_exact(atoms)} | {lib: n_pairs_found(lib, atoms) for lib in LIBRARIES}
            for name, atoms in awkward_structures().items()
        },
        "import_s": {library: import_time(library) for library in LIBRARIES},
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_docs(DOCS, tables(results))


if __name__ == "__main__":
    main()
