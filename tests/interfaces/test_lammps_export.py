"""What LAMMPS is given: the exported potential, the input file, the choice of a LAMMPS to build for. No LAMMPS is needed."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest

import etnpot
from etnpot.cli import main
from etnpot.errors import InstallationError, PotentialFileError
from etnpot.interfaces.lammps.build import SOURCE, LammpsHeaders, build_plugin, plugin_directory
from etnpot.interfaces.lammps.export import EXPORT_VERSION, export_text, write_export


@pytest.fixture(scope="module")
def potential() -> etnpot.Potential:
    return etnpot.ETN(
        ["Ni", "Mo", "Si"], cutoff=4.0, order=3, l_max=2, ranks=2, channels=[3, 2, 1], radial_size=4, seed=1,
        pseudotensors=True, reference_energies={"Mo": -10.25},
    )  # fmt: skip


def tables(text: str) -> dict[str, list[str]]:
    """The tables of an exported file, after its two first lines."""
    lines = text.splitlines()[2:]
    found, at = {}, 0
    while lines[at] != "end":
        name, _, count = lines[at].split()
        words: list[str] = []
        while len(words) < int(count):
            at += 1
            words += lines[at].split()
        assert len(words) == int(count)
        found[name] = words
        at += 1
    assert at == len(lines) - 1
    return found


def test_header_names_units_version_length_and_digest(potential: etnpot.Potential) -> None:
    text = export_text(potential)
    first, second, body = text.split("\n", 2)
    assert re.search(r"^#.*UNITS: metal ", first)
    content = body.encode("ascii")
    assert second == f"etnpot-lammps {EXPORT_VERSION} crc32 {zlib.crc32(content):08x} bytes {len(content)}"
    assert text == export_text(etnpot.Potential(potential.spec, potential.parameters))


def test_source_reads_the_version_that_is_written() -> None:
    found = re.findall(r"FORMAT_VERSION = (\d+);", (SOURCE / "etn_model.h").read_text(encoding="utf-8"))
    assert found == [str(EXPORT_VERSION)]


def test_numbers_keep_all_their_bits(potential: etnpot.Potential) -> None:
    found = tables(export_text(potential))
    assert found["species"] == ["Si", "Ni", "Mo"]
    expected = {
        "weights": potential.weights,
        "radial_table": potential.radial_table,
        "reference_energies": potential.arrays["reference_energies"],
        "radial_recurrence": potential.basis_tables.recurrence,
    }
    for name, values in expected.items():
        assert [float(word) for word in found[name]] == list(np.ravel(values)), name


def test_paths_give_the_energy(potential: etnpot.Potential, rng: np.random.Generator) -> None:
    """The train contracted from the exported tables alone, eq. (3) of ``source/etn_kernel.h``."""
    found = tables(export_text(potential))
    n_features, n_rows, n_head = (int(word) for word in found["train_sizes"])
    weights = np.array(found["weights"], dtype=float)
    index = np.array(found["coupling_index"], dtype=int).reshape(-1, 3)
    value = np.array(found["coupling_value"], dtype=float)
    v = rng.normal(size=n_features)
    v[0] = 1.0
    for z in range(3):
        x = np.zeros(n_rows)
        x[:n_head] = weights[z * n_head : (z + 1) * n_head]
        for row in np.array(found["paths"], dtype=int).reshape(-1, 10):
            left, n1, feature, n2, right, n3, weight, begin, end, components = row
            assert index[begin:end, 2].max() < components
            core = weights[weight : weight + n1 * n2 * n3].reshape(n1, n2, n3)
            for (m1, m2, m3), c in zip(index[begin:end], value[begin:end], strict=True):
                x1 = x[left + m1 * n1 : left + (m1 + 1) * n1]
                v2 = v[feature + m2 * n2 : feature + (m2 + 1) * n2]
                x[right + m3 * n3 : right + (m3 + 1) * n3] += c * np.einsum("abc,a,b->c", core, x1, v2)
        assert x[-1] == pytest.approx(_energy_of_features(potential, v, z), rel=1e-12)


def _energy_of_features(potential: etnpot.Potential, v: np.ndarray, z: int) -> float:
    from etnpot.kernels import evaluate

    x_ia = np.empty((1, potential.train_tables.n_bond_rows))
    evaluate.bonds(v[None], np.array([z]), potential.train_tables, potential.weights, x_ia)
    return float(x_ia[0, -1])


def test_command_writes_potential_and_input(
    potential: etnpot.Potential, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    potential.save(tmp_path / "alloy.etn")
    assert main(["lammps", str(tmp_path / "alloy.etn"), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "alloy.lammps").read_text() == export_text(potential)
    text = (tmp_path / "run" / "in.lammps").read_text()
    assert "pair_coeff      * * alloy.lammps Si Ni Mo" in text
    assert "lattice         fcc" in text  # of diamond, fcc and bcc, the first of the commonest
    assert "alloy.lammps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a potential file to export, or --build"),
        (["--out", "x"], "a potential file to export, or --build"),
        (["--build", "--out", "x"], "the plugin goes to --plugin-dir"),
        (["p.etn", "--lammps", "x"], "add --build"),
        (["nowhere.etn"], "no potential file nowhere.etn"),
        (["--build", "--lammps", "nowhere", "--plugin-dir", "x"], "does not hold the source of LAMMPS"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lammps", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_versions_of_a_source_tree(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "version.h").write_text('#define LAMMPS_VERSION "2 Aug 2023"\n')
    headers = LammpsHeaders.of_source(tmp_path)
    assert (headers.date, headers.number) == ("2 Aug 2023", 20230802)
    (tmp_path / "src" / "version.h").write_text('#define LAMMPS_VERSION "stable"\n')
    with pytest.raises(InstallationError, match="such as '22 Jul 2025', got 'stable'"):
        _ = LammpsHeaders.of_source(tmp_path).number
    (tmp_path / "src" / "version.h").write_text("\n")
    with pytest.raises(InstallationError, match="does not say which version"):
        LammpsHeaders.of_source(tmp_path)


def test_a_compiler_that_is_missing_or_fails_is_named(tmp_path: Path) -> None:
    headers = LammpsHeaders((tmp_path,), "22 Jul 2025", ("no-such-compiler",))
    with pytest.raises(InstallationError, match="cannot run the compiler 'no-such-compiler'"):
        build_plugin(headers, tmp_path / "out")
    with pytest.raises(InstallationError, match="could not make the plugin for LAMMPS 22 Jul 2025"):
        build_plugin(headers, tmp_path / "out", compiler=["false"])
    assert not (tmp_path / "out").exists()


def test_plugin_folder_names_both_versions() -> None:
    assert f"plugin-{etnpot.__version__}-lammps-" in plugin_directory()


def test_what_cannot_be_written_is_told(potential: etnpot.Potential, tmp_path: Path) -> None:
    with pytest.raises(PotentialFileError, match="cannot write"):
        write_export(potential, tmp_path / "nowhere" / "x.lammps")
