"""Speed: time per atom of energy, forces and stress, of etnpot and of its peers, in one run on one machine.

    python benchmarks/speed/run.py                       every row; makes the environments of the peers first
    python benchmarks/speed/run.py --rows small motep-16 some rows; the others keep their last results
    python benchmarks/speed/run.py --resume              what is missing or failed
    python benchmarks/speed/run.py --sizes 500 --budget 1   a quick look
    python benchmarks/speed/run.py --render              the pages again from the JSON, no timing

Every timing is a process of its own, in the environment of its potential (`etnpot.compare.environments`), pinned to a
number of threads, on the same cell (`common.py`). Results are written after every timing. A peer that cannot be installed
or fails has its reason in the table. docs/speed.md, its plot and the table of the README are written at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common

from etnpot.compare import environments

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages import write_sections

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.json"
ACCURACY = HERE.parent / "accuracy" / "results.json"
PAGE = ROOT / "docs" / "speed.md"
README = ROOT / "README.md"
PLOT = ROOT / "docs" / "speed-accuracy.png"
#: Longest time of one worker, s: the compilation of a neural potential is part of it.
TIME_LIMIT = 900

SIZES = (500, 4_000, 100_000)
FEW_ATOMS = "not timed at 100,000 atoms: too slow and too large for this machine"
MEMORY = "timed at 500 atoms only: it takes megabytes of memory per atom"


@dataclass(frozen=True)
class Row:
    """One potential.

    Attributes
    ----------
    label, setting : what the page says
    environment : of `etnpot.compare.environments.ENVIRONMENTS`; empty for etnpot itself
    worker : file in ``workers/``
    model : passed to the worker
    sizes, threads : what is timed
    remark : why sizes are left out
    extra : passed to the worker as well
    """

    label: str
    setting: str
    environment: str
    worker: str
    model: str
    sizes: tuple[int, ...] = SIZES
    threads: tuple[int, ...] = (1,)
    remark: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def _etnpot(label: str, setting: str, settings: dict[str, Any], **more: Any) -> Row:
    extra = {"settings": settings, "species": more.pop("species", list(common.SPECIES[:4]))}
    return Row(label, setting, "", "etnpot_worker.py", label, extra=extra, **more)


def _lammps(label: str, setting: str, model: str) -> Row:
    return Row(label, setting, "lammps", "lammps_worker.py", model)


def _motep(level: int) -> Row:
    return Row(f"MTP level {level}", "motep, compiled engine", "motep", "motep_worker.py", f"mtp{level}")


EMT6_SPECIES = ["Ni", "Cu", "Pd", "Ag", "Pt", "Au"]

ROWS: dict[str, Row] = {
    "small": _etnpot("etnpot small", "preset", {"size": "small"}, threads=(1, 2)),
    "medium": _etnpot("etnpot medium", "preset", {"size": "medium"}, threads=(1, 2)),
    "large": _etnpot("etnpot large", "preset", {"size": "large"}, threads=(1, 2)),
    "eam": _lammps("EAM", "LAMMPS eam/alloy, 2,000-point tables", "eam"),
    "snap-6": _lammps("SNAP 2J = 6", "LAMMPS snap, linear", "snap6"),
    "snap-8": _lammps("SNAP 2J = 8", "LAMMPS snap, linear", "snap8"),
    "uf3": _lammps("UF3", "LAMMPS uf3: two-body to 5 Å, three-body to 4 Å", "uf3"),
    "pod": _lammps("POD", "LAMMPS pod, the shipped Ta potential (cutoff 5 Å)", "pod"),
    **{f"motep-{level}": _motep(level) for level in (8, 12, 16, 20)},
    "nep": Row("NEP", "calorine: NEP4, n_max 4 4, l_max 4 2 0, 30 neurons", "calorine", "nep_worker.py", "nep"),
    "nequip": Row("NequIP", "2 layers, l = 1, 32 features, float32, AOTInductor", "nequip", "nequip_worker.py", "nequip",
                  sizes=(500, 4_000), remark=FEW_ATOMS),
    "allegro": Row("Allegro", "1 layer, l = 2, 64 scalars, 16 tensors, float32, AOTInductor", "nequip",
                   "nequip_worker.py", "allegro", sizes=(500, 4_000), remark=FEW_ATOMS),
    "mace": Row("MACE 64x0e", "2 layers, correlation 3, float32", "mace", "mace_worker.py", "mace-64x0e", sizes=(500,),
                remark=MEMORY),
    "mace-128": Row("MACE 128x0e + 128x1o", "2 layers, correlation 3, float32", "mace", "mace_worker.py",
                    "mace-128x0e+128x1o", sizes=(500,), remark=MEMORY),
    "painn": Row("PaiNN", "SchNetPack: 64 features, 3 layers, float32", "schnetpack", "painn_worker.py", "painn",
                 sizes=(500,), remark=MEMORY),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A potential fitted to a data set: test errors and the row of its time; without a row its time is not known."""

    label: str
    row: str | None
    energy: float
    forces: float
    note: str


#: Test errors, as docs/accuracy.md defines them, of fits by others or with other programs; energies in meV/atom, forces in
#: eV/Å. emt6: RMSE, measured with fixed budgets, without tuning. NbMoTaW: MAE, as published.
PEER_POINTS: dict[str, list[Point]] = {
    "emt6": [
        Point("MTP 8", "motep-8", 8.3, 0.268, "fitted with motep, 121 s"),
        Point("MTP 8 (MLIP-3)", "motep-8", 7.4, 0.196, "fitted with MLIP-3, 237 s; timed in motep"),
        Point("MTP 12", "motep-12", 9.1, 0.172, "fitted with motep, 463 s"),
        Point("MTP 12 (MLIP-3)", "motep-12", 7.9, 0.104, "fitted with MLIP-3, 797 s; timed in motep"),
        Point("NequIP", "nequip", 12.0, 0.061, "2 layers, l = 1; 150 s"),
        Point("Allegro", "allegro", 15.3, 0.205, "1 layer, l = 2; 139 s"),
        Point("MACE 64x0e", "mace", 33.0, 0.047, "339 s"),
        Point("PaiNN", "painn", 15.0, 0.137, "64 features, 3 layers; 198 s"),
    ],
    "NbMoTaW, elements": [
        Point("SNAP 2020", None, 4.29, 0.132, "published"),
        Point("MTP 2021", None, 5.39, 0.118, "published"),
    ],
    "NbMoTaW, binaries": [
        Point("SNAP 2020", None, 5.45, 0.031, "published"),
        Point("MTP 2021", None, 5.24, 0.012, "published"),
    ],
    "NbMoTaW, quaternary": [
        Point("SNAP 2020", None, 5.88, 0.189, "published; trained with quaternary cells"),
        Point("MTP 2021", None, 1.93, 0.130, "published; trained with quaternary cells"),
    ],
}
#: Data sets of the accuracy page that the plot shows: name of its results, and the species of the timed cell.
FITTED_SPECIES = {"emt6": EMT6_SPECIES, "NbMoTaW": list(common.SPECIES[:4])}


def fitted_rows() -> dict[str, Row]:
    """The potentials of the accuracy page on emt6 and NbMoTaW: timed with their own settings."""
    rows = {}
    accuracy = json.loads(ACCURACY.read_text(encoding="utf-8")) if ACCURACY.exists() else {}
    model = {
        "size", "cutoff", "order", "l_max", "radial_size", "channels", "ranks", "species_rank", "species_form", "embedding",
        "bond_l_max", "pseudotensors", "head_rank", "radial_family", "cutoff_function", "cutoff_power",
    }  # fmt: skip
    for name, result in accuracy.items():
        data_set = name.split()[0].split("-")[0]
        if data_set in FITTED_SPECIES:
            settings = {key: value for key, value in result["settings"].items() if key in model}
            rows[f"fitted-{name}"] = _etnpot(
                f"etnpot, {name}",
                "as on the accuracy page",
                settings,
                sizes=(4_000,),
                species=FITTED_SPECIES[data_set],
            )
    return rows


def all_rows() -> dict[str, Row]:
    """Every row."""
    return {**ROWS, **fitted_rows()}


# ----------------------------------------------------------------------------------------------------- timing


def machine() -> dict[str, Any]:
    """The machine without its name."""
    found: dict[str, Any] = {
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line]
        values = {key.strip(): value.strip() for key, value in lines}
        found["cpu"] = values.get("model name", "unknown")
        found["family"] = f"family {values.get('cpu family')}, model {values.get('model')}"
        flags = values.get("flags", "").split()
        found["vector"] = next((name for name in ("avx512f", "avx2", "avx", "sse2") if name in flags), "none")
    memory = Path("/proc/meminfo")
    if memory.exists():
        found["memory_gib"] = round(int(memory.read_text(encoding="utf-8").split()[1]) / 2**20)
    return found


def environment_variables(threads: int, environment: str) -> dict[str, str]:
    """Threads pinned for every library that has its own setting; nothing that would send a peer to a GPU."""
    variables = environments.variables(environment or None, threads)
    modules = [str(HERE), str(ROOT), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in modules if path)
    return variables


def reason_of(done: subprocess.CompletedProcess[str]) -> str:
    """Why a worker failed, in a line without paths."""
    return environments.reason_of(done.returncode, done.stdout + "\n" + done.stderr).replace(str(ROOT), ".")


def timed(row: Row, n_atoms: int, threads: int, budget: float) -> dict[str, Any]:
    """One timing in a process of its own; a failure is a result with an ``error``."""
    task = {"model": row.model, "n_atoms": n_atoms, "threads": threads, "budget": budget, **row.extra}
    interpreter = sys.executable
    if row.environment:
        try:
            environments.make(row.environment)
        except environments.PeerError as error:
            return {"error": str(error)}
        interpreter = str(environments.python_of(row.environment))
        task["cache"] = str(environments.directory() / row.environment / "models")
    load = os.getloadavg()[0]
    command = [interpreter, str(HERE / "workers" / row.worker), json.dumps(task)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT,
            env=environment_variables(threads, row.environment),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {TIME_LIMIT} s"}
    if done.returncode != 0:
        return {"error": reason_of(done)}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "load": round(load, 2)}


def best_seconds(timing: dict[str, Any], threads: int) -> float:
    """Seconds per call: processor time of a single thread, which other programs do not lengthen; else time on the clock."""
    return float(timing["processor_seconds"] if threads == 1 else timing["seconds"])


def per_atom(
    results: dict[str, Any], name: str, n_atoms: int, threads: int = 1, part: str | None = None
) -> float | None:
    """Microseconds per atom, or None where there is no timing."""
    found = results["timings"].get(f"{name}|{n_atoms}|{threads}")
    if found is None or "error" in found or (part is not None and part not in found):
        return None
    return 1e6 * best_seconds(found if part is None else found[part], threads) / n_atoms


# ----------------------------------------------------------------------------------------------------- pages


def number(value: float | None, scale: float = 1.0) -> str:
    """Three digits, or nothing."""
    if value is None:
        return ""
    value *= scale
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table_all(results: dict[str, Any]) -> list[str]:
    """All potentials, one thread."""
    lines = [
        "| potential | setting | parameters | 500 | 4,000 | 100,000 | 4,000, new list | times etnpot small |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    base = {n: per_atom(results, "small", n) for n in SIZES}
    for name, row in all_rows().items():
        times = {n: per_atom(results, name, n) for n in SIZES}
        if all(value is None for value in times.values()):
            continue
        at = 4_000 if times[4_000] is not None else 500
        ratio = times[at] / base[at] if times[at] and base[at] else None  # type: ignore[operator]
        found = next(
            (results["timings"][f"{name}|{n}|1"] for n in SIZES if times[n] is not None),
            {"n_parameters": None},
        )
        cells = [
            row.label,
            row.setting,
            str(found.get("n_parameters") or ""),
            *(number(times[n]) for n in SIZES),
            number(per_atom(results, name, 4_000, part="with_list")),
            number(ratio) + (" (at 500)" if at == 500 and ratio is not None else ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def table_brief(results: dict[str, Any]) -> list[str]:
    """One line for each potential, for the README."""
    lines = ["| potential | µs per atom |", "|---|--:|"]
    for name, row in all_rows().items():
        time = time_of(results, name)
        if time is not None and not name.startswith("fitted-"):
            where = "" if per_atom(results, name, 4_000) is not None else " (500 atoms)"
            lines.append(f"| {row.label} | {number(time)}{where} |")
    return lines


def missing(results: dict[str, Any]) -> list[str]:
    """What was not timed, and why."""
    lines = []
    for name, row in all_rows().items():
        for n_atoms in row.sizes:
            for threads in row.threads:
                found = results["timings"].get(f"{name}|{n_atoms}|{threads}")
                if found is None:
                    lines.append(f"- {row.label}, {n_atoms:,} atoms, threads {threads}: not yet run.")
                elif "error" in found:
                    lines.append(f"- {row.label}, {n_atoms:,} atoms, threads {threads}: {found['error']}")
        if row.remark:
            lines.append(f"- {row.label}: {row.remark}.")
    return lines


def table_parts(results: dict[str, Any]) -> list[str]:
    """What the time of etnpot consists of."""
    lines = [
        "| preset | atoms | call | evaluation alone | overhead | list alone | call with a new list | two threads | gain |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in ("small", "medium", "large"):
        for n in SIZES:
            call, evaluation = per_atom(results, name, n), per_atom(results, name, n, part="evaluation")
            if call is None or evaluation is None:
                continue
            one = results["timings"][f"{name}|{n}|1"]
            two = results["timings"].get(f"{name}|{n}|2", {})
            clock = 1e6 * two["seconds"] / n if "seconds" in two else None
            cells = [
                name,
                f"{n:,}",
                number(call),
                number(evaluation),
                f"{100 * (call - evaluation) / call:.0f} %",
                number(per_atom(results, name, n, part="list")),
                number(per_atom(results, name, n, part="with_list")),
                number(clock),
                "" if clock is None else f"{one['seconds'] / two['seconds']:.2f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def table_memory(results: dict[str, Any]) -> list[str]:
    """Memory at 100,000 atoms."""
    lines = [
        "| preset | list, held | list, while searched | evaluation, beyond the list |",
        "|---|--:|--:|--:|",
    ]
    for name in ("small", "medium", "large"):
        found = results["timings"].get(f"{name}|100000|1", {}).get("memory")
        if found:
            cells = [f"{found[key] / 1000:.2f}" for key in ("list", "list_peak", "evaluation_peak")]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def points(results: dict[str, Any]) -> dict[str, list[tuple[Point, float | None]]]:
    """Per data set, potentials with their accuracy and, where it is known, their time in microseconds per atom."""
    found = {
        key: [(point, None if point.row is None else time_of(results, point.row)) for point in values]
        for key, values in PEER_POINTS.items()
    }
    accuracy = json.loads(ACCURACY.read_text(encoding="utf-8")) if ACCURACY.exists() else {}
    for name in fitted_rows():
        own = name.removeprefix("fitted-")
        measure = "rmse" if own.startswith("emt6") else "mae"
        for part, errors in accuracy[own]["test"].items():
            key = "emt6" if own.startswith("emt6") else f"NbMoTaW, {part}"
            if key in found:
                label = "etnpot" + own.removeprefix("emt6").removeprefix("NbMoTaW")
                point = Point(label, name, errors[f"energy_{measure}"], errors[f"forces_{measure}"],
                              f"accuracy page, {accuracy[own]['seconds']:.0f} s")  # fmt: skip
                found[key].append((point, time_of(results, name)))
    return found


def time_of(results: dict[str, Any], name: str) -> float | None:
    """At 4,000 atoms, else at 500."""
    return per_atom(results, name, 4_000) or per_atom(results, name, 500)


def table_points(results: dict[str, Any]) -> list[str]:
    """Accuracy beside time."""
    lines = [
        "| data | potential | µs/atom | energy, meV/atom | forces, eV/Å | fit |",
        "|---|---|--:|--:|--:|---|",
    ]
    for key, values in points(results).items():
        measure = "RMSE" if key == "emt6" else "MAE"
        for point, time in sorted(values, key=lambda entry: entry[0].forces):
            lines.append(
                f"| {key} ({measure}) | {point.label} | {number(time)} | {point.energy:.2f} | {point.forces:.4f} | "
                f"{point.note} |"
            )
    return lines


def plot(results: dict[str, Any]) -> None:
    """Force error against time per atom, one panel per data set; what has no time is a line across."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    found = points(results)
    times = [time for values in found.values() for _, time in values if time is not None]
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    figure = Figure(figsize=(9.6, 7.6), dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(-(-len(found) // 2), 2, squeeze=False).ravel()
    for axis, (key, values) in zip(axes, found.items(), strict=False):
        placed: list[tuple[float, float]] = []
        for point, time in sorted(values, key=lambda entry: -entry[0].forces):
            if time is None:
                axis.axhline(point.forces, color="#999999", linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
                axis.annotate(f"{point.label}: time not known", (0.98, point.forces), xycoords=("axes fraction", "data"),
                              ha="right", va="bottom", fontsize=8, color="#666666")  # fmt: skip
                continue
            own = point.label.startswith("etnpot")
            axis.plot(
                time, point.forces, "o", color="#0072B2" if own else "#D55E00", markersize=8 if own else 6
            )
            crowded = any(t <= time < 10 * t and f < 1.35 * point.forces for t, f in placed)
            axis.annotate(point.label, (time, point.forces), xytext=(6, -11 if crowded else 4),
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
            placed.append((time, point.forces))
        steps: list[tuple[float, float]] = []
        for time, error in sorted(placed):
            if not steps or error < steps[-1][1]:
                steps.append((time, error))
        if len(steps) > 1:
            axis.step(*zip(*steps, strict=True), where="post", color="#999999", linewidth=1.0, zorder=0)
        axis.set_xscale("log")
        axis.set_yscale("log")
        if times:
            axis.set_xlim(min(times) / 2, max(times) * 7)
        errors = [point.forces for point, _ in values]
        axis.set_ylim(min(errors) / 1.6, max(errors) * 1.6)
        axis.xaxis.set_major_formatter(plain)
        axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(plain)
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_title(key, fontsize=10.5)
        axis.set_xlabel("µs per atom, one core", fontsize=9.5)
        axis.set_ylabel(f"test force {'RMSE' if key == 'emt6' else 'MAE'} (eV/Å)", fontsize=9.5)
        axis.grid(visible=True, which="major", color="#e3e3e3", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8.5)
    figure.savefig(PLOT)


def machine_line(found: dict[str, Any]) -> str:
    """The machine in a sentence."""
    known = [found.get("family", ""), found.get("vector", "").upper()]
    known = [text for text in known if text]
    memory = [f"{found['memory_gib']} GiB"] if "memory_gib" in found else []
    parts = [
        f"{found.get('cpu', found['machine'])} ({', '.join(known)})" if known else str(found["machine"]),
        f"{found['processors']} processors",
        *memory,
        found["system"],
        f"Python {found['python']}",
    ]
    return ", ".join(parts) + "."


def load_remark(results: dict[str, Any]) -> str:
    """A warning where other programs ran beside the timings; nothing on an idle machine."""
    load = max((timing["load"] for timing in results["timings"].values() if "load" in timing), default=0.0)
    return (
        ""
        if load < 1.5
        else f" Other programs ran beside (load up to {load:.1f}): compare the rows, not the figures."
    )


def versions(results: dict[str, Any]) -> str:
    """Versions of everything that was timed."""
    found: dict[str, set[str]] = {}
    for timing in results["timings"].values():
        for name, value in timing.get("versions", {}).items():
            found.setdefault(name, set()).add(value)
    return ", ".join(f"{name} {' and '.join(sorted(values))}" for name, values in sorted(found.items()))


def blocks(results: dict[str, Any]) -> dict[str, list[str]]:
    """Everything generated on docs/speed.md, by the name of its markers."""
    loads = [timing["load"] for timing in results["timings"].values() if "load" in timing]
    return {
        "machine": [
            machine_line(results["machine"]),
            "",
            f"Versions: {versions(results)}.",
            "",
            f"Load of the machine (average of the last minute) before each timing: {min(loads, default=0):.1f} to "
            f"{max(loads, default=0):.1f}; on an idle machine it is below one.",
        ],
        "table": table_all(results),
        "missing": missing(results) or ["- nothing: every row was timed."],
        "parts": table_parts(results),
        "memory": table_memory(results),
        "accuracy": table_points(results),
    }


def write_blocks(page: Path, generated: dict[str, list[str]]) -> None:
    """Put generated lines between their markers."""
    write_sections(page, {name: "\n".join(lines) for name, lines in generated.items()})


def save(results: dict[str, Any]) -> None:
    """Write the JSON."""
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_results() -> dict[str, Any]:
    """The JSON, or an empty one."""
    if RESULTS.exists():
        return dict(json.loads(RESULTS.read_text(encoding="utf-8")))
    return {"machine": machine(), "timings": {}}


def wanted(options: argparse.Namespace, results: dict[str, Any]) -> Iterator[tuple[str, Row, int, int]]:
    """Timings that are asked for."""
    for name, row in all_rows().items():
        if options.rows and name not in options.rows:
            continue
        for n_atoms in row.sizes:
            if options.sizes and n_atoms not in options.sizes:
                continue
            for threads in row.threads:
                found = results["timings"].get(f"{name}|{n_atoms}|{threads}", {"error": ""})
                if not options.resume or "error" in found:
                    yield name, row, n_atoms, threads


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=list(all_rows()))
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES)
    parser.add_argument(
        "--budget", type=float, default=8.0, help="seconds of timing per row and size (default 8)"
    )
    parser.add_argument("--resume", action="store_true", help="leave rows alone that have a result")
    parser.add_argument("--render", action="store_true", help="write the pages from the JSON alone")
    options = parser.parse_args(arguments)
    results = load_results()
    if not options.render:
        results["machine"] = machine()
        for name, row, n_atoms, threads in list(wanted(options, results)):
            found = results["timings"][f"{name}|{n_atoms}|{threads}"] = timed(
                row, n_atoms, threads, options.budget
            )
            save(results)
            shown = found.get("error") or f"{1e6 * best_seconds(found, threads) / n_atoms:.2f} µs/atom"
            print(f"{name:10s} {n_atoms:7d} atoms, threads {threads}: {shown}", flush=True)
    write_blocks(PAGE, blocks(results))
    brief = [machine_line(results["machine"]) + load_remark(results), "", *table_brief(results)]
    write_blocks(README, {"speed": brief})
    plot(results)


if __name__ == "__main__":
    main()
