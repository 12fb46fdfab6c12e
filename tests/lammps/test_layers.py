"""The pair style etn with layers: what it needs of LAMMPS beyond `test_pair_style`, and what it refuses."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from etnpot.interfaces.lammps.export import export_text

from .conftest import CENTROID, Lammps
from .potentials import LAYERED, LOCAL, triclinic

pytestmark = pytest.mark.lammps


def test_tiled_communication(
    lammps: Lammps, rng: np.random.Generator, check_state: Callable[..., None]
) -> None:
    """Domains that are cut by the number of atoms, whose exchange is another one."""
    potential = LAYERED["deep"]()
    text = lammps.setup(potential, triclinic(potential, rng)).replace(
        "neighbor 0.6 bin", "neighbor 0.6 bin\ncomm_style tiled\nbalance 1.0 rcb"
    )
    lammps.run(text + "run 0\n" + lammps.record("state"), ranks=4)
    check_state(lammps.state("state"), potential)


# ------------------------------------------------------------------------------------------------ what must stop


def signed(text: str) -> str:
    """An exported text with the digest and the length that its tables have."""
    first, second, body = text.split("\n", 2)
    content = body.encode("ascii")
    words = second.split()
    words[3], words[5] = f"{zlib.crc32(content):08x}", str(len(content))
    return "\n".join([first, " ".join(words), body])


def first_of(table: str, value: str) -> Callable[[str], str]:
    """Another first entry of a table."""
    return lambda text: signed(re.sub(rf"(\n{table} \S+ \d+\n)\S+", rf"\g<1>{value}", text))


def test_what_layers_do_not_have(lammps: Lammps, rng: np.random.Generator) -> None:
    potential = LAYERED["deep"]()
    for style in ("etn", "hybrid/overlay etn zero 3.0"):
        name = "etn " if "hybrid" in style else ""
        more = "pair_coeff * * zero\n" if "hybrid" in style else ""
        pair = f"pair_style {style}\npair_coeff * * {name}test.lammps Al Ni Cu\n{more}"
        again = lammps.setup(potential, triclinic(potential, rng, n=2), style=pair) + CENTROID
        log = lammps.run(
            again + "thermo_style custom step c_c[1]\nrun 0\n".replace(" c_c[1]", ""), fails=True
        )
        assert re.search("ERROR.*does not support compute centroid/stress/atom", log.replace("\n", " "))


DAMAGES: dict[str, tuple[str, Any, str]] = {
    "layers": ("layers", "7", "no table 'layer_4"),
    "place of a feature": ("layer_2_order", "1000", "'layer_2_order' does not fit"),
    "kind": ("layer_1_kind", "5", "'layer_1_kind' does not fit"),
    "row": ("layer_2_carried", "-1", "'layer_2_carried' does not fit"),
    "term": ("layer_1_terms", "99", "'layer_1_terms' does not fit"),
    "features": ("layer_3_train_sizes", "2", "'layer_3_.*' does not fit"),
    "local features": ("layers_local", "3", "does not fit"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_tables_that_do_not_fit(name: str, lammps: Lammps, rng: np.random.Generator) -> None:
    potential = LAYERED["deep"]()
    text = lammps.setup(potential, triclinic(potential, rng, n=2))
    table, value, message = DAMAGES[name]
    exported = export_text(potential)
    damaged = first_of(table, value)(exported)
    assert damaged != exported
    (lammps.directory / "test.lammps").write_text(damaged)
    log = lammps.run(text + "run 0\n", fails=True)
    assert re.search(f"ERROR.*damaged.*{message}", log.replace("\n", " ")), log[-1000:]


def test_files_of_version_2_are_read(lammps: Lammps, rng: np.random.Generator) -> None:
    """What was exported before there were layers gives the same bits."""
    potential = LOCAL["pair factor, envelope"]()
    text = lammps.setup(potential, triclinic(potential, rng, n=2)) + "run 0\n"
    lammps.run(text + lammps.record("new"))
    exported = export_text(potential)
    older = signed(
        exported.replace("etnpot-lammps 3 ", "etnpot-lammps 2 ").replace("\nlayers integer 1\n0\n", "\n")
    )
    assert "layers" not in older
    (lammps.directory / "test.lammps").write_text(older)
    lammps.run(text + lammps.record("old"))
    new, old = lammps.state("new"), lammps.state("old")
    assert new.energy == old.energy
    assert (new.force_ic == old.force_ic).all()
