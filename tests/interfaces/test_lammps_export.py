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
from etnpot.potential import Reliability


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


@pytest.fixture(scope="module")
def layered() -> etnpot.Potential:
    return etnpot.ETN(
        ["Ni", "Mo"], cutoff=4.0, order=2, l_max=1, ranks=2, channels=[2, 1], radial_size=3, seed=1,
        layers=[
            {"kind": "pool", "carry": {"0e": 2}},
            {"kind": "message", "carry": {"0e": 1, "1o": 2}, "attention": "bilinear", "heads": 2, "width": 1},
        ],
    )  # fmt: skip


def test_tables_of_layers(layered: etnpot.Potential) -> None:
    """Every feature has one place, trains are those of the potential, and terms give the messages of `kernels.layers`."""
    found = tables(export_text(layered))
    spec, tabled = layered.spec, layered.layered_tables
    assert found["layers"] == ["2"] and found["layers_local"] == [str(spec.feature_bonds[0].dimension)]
    orders = [found["layer_1_order"], found["layer_2_order"], found["order"]]
    for order, bond in zip(orders, spec.feature_bonds, strict=True):
        assert sorted(map(int, order)) == list(range(bond.dimension))
    for prefix, place in zip(("layer_1_", "layer_2_", ""), tabled.places, strict=True):
        assert [float(word) for word in found[f"{prefix}weights"]] == list(tabled.weights[place])
    n_channels = sum(spec.pair_channels)
    n_local = sum(spec.channels)
    assert len(found["radial_table"]) * n_channels == layered.radial_table.size * n_local
    assert len(found["layer_2_radial_table"]) * n_channels == layered.radial_table.size * (
        n_channels - n_local
    )
    assert "layer_1_radial_table" not in found
    # u_i of one pair, by eq. (7) of source/etn_layers.h and by the kernel
    rng = np.random.default_rng(0)
    layer = tabled.layers[1]
    w, x = (
        rng.normal(size=(1, 1 + int(layer.columns.max()))),
        rng.normal(size=(1, spec.layers[1].bonds[-1].dimension)),
    )
    expected = np.zeros((1, tabled.widths[2]))
    from etnpot.reference import layers as reference

    reference.gather(
        np.array([0, 1]), np.array([0]), layer.term_index, layer.term_value, w, x, 0, 1, expected
    )
    carried = np.array(found["layer_2_carried"], dtype=int).reshape(-1, 3)
    n_copies = int(found["layer_2_kind"][6])
    u = np.zeros(tabled.widths[2])
    w_lc = w[0, layer.columns].reshape(-1, n_copies)  # [lm][copy]
    for (lm, c, f, count), value in zip(
        np.array(found["layer_2_terms"], dtype=int).reshape(-1, 4),
        map(float, found["layer_2_term_value"]),
        strict=True,
    ):
        for a in range(count):
            row, copy, _ = carried[c + a]
            u[tabled.widths[1] + f + a] += value * w_lc[lm, copy] * x[0, row]
    np.testing.assert_allclose(u[np.array(found["order"], dtype=int)], expected[0], rtol=1e-12, atol=1e-14)


def test_command_says_what_pools_do(
    layered: etnpot.Potential, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layered.save(tmp_path / "alloy.etn")
    assert main(["lammps", str(tmp_path / "alloy.etn"), "--out", str(tmp_path / "run")]) == 0
    assert "no groups of molecules" in capsys.readouterr().out


def test_grades_are_exported(layered: etnpot.Potential, potential: etnpot.Potential, tmp_path: Path) -> None:
    for made in (layered, potential):
        assert "grade_paths" not in tables(export_text(made))
        n_q, n_z = made.spec.shapes["core.1"][0], len(made.species)
        known = Reliability("core.1", np.ones((n_q, 2)), np.ones((n_z, 2)), np.ones((n_q, 2)))
        made.with_reliability(known).save(tmp_path / "alloy.etn")
        assert main(["lammps", str(tmp_path / "alloy.etn"), "--out", str(tmp_path / "run")]) == 0
        found = tables((tmp_path / "run/alloy.lammps").read_text())
        assert (len(found["grade"]), len(found["grade_center"])) == (2 * n_q, 2 * n_z)


def test_nothing_is_made_for_what_cannot_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three_body = {"method": "d3bj", "xc": "pbe", "three_body": True}
    potential = etnpot.ETN(["C", "Ni"], cutoff=4.0, order=2, l_max=1, dispersion=three_body)
    potential.save(tmp_path / "alloy.etn")
    assert main(["lammps", str(tmp_path / "alloy.etn"), "--out", str(tmp_path / "run")]) == 2
    assert "LAMMPS" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_directory_that_cannot_be_made_is_told(
    potential: etnpot.Potential, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    potential.save(tmp_path / "alloy.etn")
    (tmp_path / "file").write_text("")
    assert main(["lammps", str(tmp_path / "alloy.etn"), "--out", str(tmp_path / "file")]) == 2
    assert "cannot make the directory" in capsys.readouterr().err
