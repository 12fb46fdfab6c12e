"""The potential file: round trip, every kind of damage, atomic writing, frozen files of past releases."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import etnpot
from etnpot.errors import PotentialFileError, PotentialFileNotFoundError
from etnpot.io import potential_file
from etnpot.io.atomic import write_bytes_atomically
from etnpot.io.potential_file import POTENTIAL, TENSOR, read_potential_file, write_potential_file

FROZEN = Path(__file__).parents[1] / "data"
SPEC = {
    "species": ["Cu", "Ni"],
    "cutoff": 5.1,
    "order": 3,
    "nested": {"tiny": 5e-324, "pi": np.pi, "flag": True, "none": None},
}
PROVENANCE = {
    "data": "abc",
    "text": 'quotes "sha256":"' + "0" * 64 + '" and ünïcode \u2603',
    "errors": [1e-3, -0.0],
}

property_settings = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def arrays(seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "core/1": rng.normal(size=(3, 4, 2)),
        "core/0": rng.normal(size=(2, 3)).T,  # not C-contiguous
        "empty": np.zeros((0, 3)),
        "scalar": np.array(-0.0),
        "big_endian": rng.normal(size=5).astype(">f8"),
        "extremes": np.array([np.finfo(float).max, 5e-324, -np.finfo(float).max]),
    }


def write(path: Path) -> bytes:
    write_potential_file(path, spec=SPEC, arrays=arrays(), provenance=PROVENANCE)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "potential.etn"


def refused(path: Path, message: str | None = None) -> str:
    with pytest.raises(PotentialFileError, match=message) as caught:
        read_potential_file(path)
    text = str(caught.value)
    assert str(path) in text
    return text


def sealed(header: dict, data: bytes = b"") -> bytes:
    """A container with a right digest, whatever its content."""
    header["__metadata__"]["sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + data
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest, 1)


def metadata(**changes: str) -> dict[str, str]:
    fields = {"format": "etnpot-potential", "format_version": "1", "library_version": "0.1.0", "spec": "{}"}
    return fields | {"provenance": "{}", "sha256": ""} | changes


# ------------------------------------------------------------------------------------------------- round trip


def test_round_trip_is_exact(path: Path) -> None:
    write(path)
    stored = read_potential_file(path)
    assert stored.spec == SPEC
    assert stored.provenance == PROVENANCE
    assert stored.format_version == potential_file.FORMAT_VERSION == 2
    assert stored.library_version == etnpot.__version__
    assert stored.arrays.keys() == arrays().keys()
    for name, array in arrays().items():
        got = stored.arrays[name]
        assert got.dtype == np.dtype("<f8") and got.shape == array.shape and got.flags.c_contiguous
        assert got.tobytes() == np.ascontiguousarray(array, dtype="<f8").tobytes()  # also the sign of zero
        assert not got.flags.writeable


def test_equal_content_gives_equal_bytes_in_any_process(path: Path, tmp_path: Path) -> None:
    content = write(path)
    reordered = dict(reversed(arrays().items()))
    again = tmp_path / "again.etn"
    write_potential_file(again, spec=dict(reversed(SPEC.items())), arrays=reordered, provenance=PROVENANCE)
    assert again.read_bytes() == content
    program = "from etnpot.io.potential_file import *; import sys; s = read_potential_file(sys.argv[1]); "
    program += "write_potential_file(sys.argv[2], spec=s.spec, arrays=s.arrays, provenance=s.provenance)"
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(etnpot.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program, str(path), str(again)], check=True, env=environment)
    assert again.read_bytes() == content


def test_other_programs_read_the_container(path: Path) -> None:
    write(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["spec"]) == SPEC
        np.testing.assert_array_equal(file.get_tensor("core/0"), arrays()["core/0"])


def test_the_digest_is_that_of_the_documentation(path: Path) -> None:
    content = write(path)
    digest = read_potential_file(path).sha256
    assert content.count(digest.encode()) == 1
    assert hashlib.sha256(content.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@property_settings
@given(
    spec=st.dictionaries(st.text(max_size=6), json_values, max_size=4),
    value=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_json_and_any_number_survive(path: Path, spec: dict, value: float) -> None:
    write_potential_file(path, spec=spec, arrays={"x": np.array([value])}, provenance=spec)
    stored = read_potential_file(path)
    assert stored.spec == stored.provenance == spec
    assert stored.arrays["x"].tobytes() == np.array([value]).tobytes()


# ------------------------------------------------------------------------------------- what cannot be written


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"a": {"b": [1.0, np.nan]}}, r"spec\.a\.b\[1\] must be finite"),
        ({"a": np.int64(1)}, r"spec\.a must be a JSON value .* got int64"),
        ({"a": {29: 1.0}}, r"keys of spec\.a must be strings .* got 29 of type int"),
        ({"a": np.zeros(2)}, r"spec\.a must be a JSON value .* got ndarray"),
        ([], r"spec must be a mapping; got list"),
    ],
)
def test_values_that_json_would_change_are_refused(path: Path, spec: dict, message: str) -> None:
    with pytest.raises(PotentialFileError, match=message):
        write_potential_file(path, spec=spec, arrays={}, provenance={})
    assert not path.exists()


def test_floats_of_numpy_and_tuples_become_plain_values(path: Path) -> None:
    write_potential_file(path, spec={"a": np.float64(0.1), "b": (1, 2)}, arrays={}, provenance={})
    assert read_potential_file(path).spec == {"a": 0.1, "b": [1, 2]}


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", np.zeros(2, np.float32), r"array 'x' must be a float64 ndarray; got float32"),
        ("x", np.zeros(2, complex), r"got complex128"),
        ("x", [1.0], r"got list"),
        ("x", np.array([[0.0, np.inf]]), r"array 'x' must be finite; got inf at index \(0, 1\) \(1 of 2"),
        ("", np.zeros(2), r"name of an array must be a non-empty string"),
        ("__metadata__", np.zeros(2), r"other than '__metadata__'"),
    ],
)
def test_arrays_that_cannot_be_stored_are_refused(path: Path, name: str, array: object, message: str) -> None:
    with pytest.raises(PotentialFileError, match=message):
        write_potential_file(path, spec={}, arrays={name: array}, provenance={})  # type: ignore[dict-item]
    assert not path.exists()


# ---------------------------------------------------------------------------------------- damaged and foreign


@property_settings
@given(position=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(path: Path, position: float) -> None:
    content = write(path)
    path.write_bytes(content[: int(position * len(content))])
    refused(path)


def test_truncation_at_every_byte_of_the_header_is_refused(path: Path) -> None:
    content = write(path)
    for end in [*range(0, 80), *range(len(content) - 40, len(content))]:
        path.write_bytes(content[:end])
        refused(path)


@property_settings
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused(path: Path, position: float, flip: int) -> None:
    content = bytearray(write(path))
    content[int(position * len(content))] ^= flip
    path.write_bytes(content)
    refused(path)


def test_a_changed_bit_in_every_byte_is_refused(path: Path) -> None:
    write_potential_file(path, spec={"a": 1}, arrays={"x": np.arange(3.0)}, provenance={})
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        refused(path)


def test_a_change_of_padding_into_other_white_space_is_refused(path: Path) -> None:
    for extra in range(8):  # one of these lengths needs padding
        write_potential_file(path, spec={"a": "x" * extra}, arrays={}, provenance={})
        content = path.read_bytes()
        if content.endswith(b" "):
            path.write_bytes(content[:-1] + b"\n")
            refused(path, "digest")
            return
    raise AssertionError("no file had padding")


@property_settings
@given(extra=st.binary(min_size=1, max_size=30))
def test_bytes_after_the_end_are_refused(path: Path, extra: bytes) -> None:
    path.write_bytes(write(path) + extra)
    refused(path, "damaged")


@property_settings
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path)


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"")
    refused(path, "is empty")
    refused(tmp_path, "is a directory")
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path)
    refused(path, "not an etnpot potential file")
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path, metadata={"format": "pt"})
    refused(path, "format field says 'pt'")
    path.write_text("hello, this is a text file and no potential\n")
    refused(path, "not an etnpot potential file")


def test_a_missing_file_is_also_a_file_not_found_error(path: Path) -> None:
    assert "there is no potential file" in refused(path)
    with pytest.raises(FileNotFoundError):
        read_potential_file(path)
    with pytest.raises(PotentialFileNotFoundError):
        read_potential_file(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    refused(path, "special file")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 1000, 1, 0])
def test_an_absurd_header_length_is_refused_without_reading(path: Path, length: int) -> None:
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + b" " * 90)
    begin = time.perf_counter()
    refused(path)
    assert time.perf_counter() - begin < 1.0


def test_a_deeply_nested_header_is_refused(path: Path) -> None:
    text = b"[" * 200_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    refused(path, "not JSON")


def test_a_newer_format_is_refused_with_the_advice_to_upgrade(path: Path) -> None:
    header = {
        "__metadata__": metadata(format_version="3", library_version="7.1", entirely="new"),
        "x": {"dtype": "Q4"},
    }
    path.write_bytes(sealed(header))
    refused(path, r"written by a newer etnpot \(7\.1, file format 3\).*upgrade etnpot")


@pytest.mark.parametrize("version", ["", "0", "-1", "1.5", "one", "٣", "9" * 5000])
def test_a_format_version_that_is_none_is_refused(path: Path, version: str) -> None:
    path.write_bytes(sealed({"__metadata__": metadata(format_version=version)}))
    refused(path, "format version must be a positive integer")


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (
            {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            b"\0" * 4,
            "must be float64; got float32",
        ),
        (
            {"x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}},
            np.array([np.nan]).tobytes(),
            "array 'x' must be finite; got nan at index",
        ),
        ({"x": {"dtype": "F64", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8, "damaged"),
        ({"x": {"dtype": "F64", "shape": [2**62], "data_offsets": [0, 2**65]}}, b"\0" * 8, "damaged"),
        ({"x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 16, "damaged"),
        ({"x": {"dtype": "XYZ", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8, "damaged"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_even_with_a_right_digest(
    path: Path, header: dict, data: bytes, message: str
) -> None:
    path.write_bytes(sealed({"__metadata__": metadata(), **header}, data))
    refused(path, message)


@pytest.mark.parametrize(
    "changes",
    [{"spec": "[]"}, {"spec": "{"}, {"provenance": "3"}, {"spec": "[" * 200_000}, {"unknown": "field"}],
)
def test_fields_that_do_not_fit_are_refused_even_with_a_right_digest(path: Path, changes: dict) -> None:
    path.write_bytes(sealed({"__metadata__": metadata(**changes)}))
    refused(path, "damaged")


def test_the_helper_of_these_tests_makes_files_that_load(path: Path) -> None:
    header = {"__metadata__": metadata(), "x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}
    path.write_bytes(sealed(header, np.array([2.5]).tobytes()))
    assert read_potential_file(path).arrays["x"].tolist() == [2.5]


# --------------------------------------------------------------------------------------------- atomic writing


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(path)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(PotentialFileError, match="No space left on device"):
        write_potential_file(path, spec={}, arrays={}, provenance={})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_an_interrupt_while_writing_leaves_nothing_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_potential_file(path, spec={}, arrays={}, provenance={})
    assert os.listdir(path.parent) == []


def test_targets_that_cannot_be_written_are_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(PotentialFileError, match="directory does not exist; make it first"):
        write(tmp_path / "missing" / "potential.etn")
    with pytest.raises(PotentialFileError, match=re.escape(f"cannot write the potential file {tmp_path}")):
        write(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
def test_permissions_and_links_are_kept(path: Path, tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link = tmp_path / "link.etn"
    link.symlink_to(path.name)
    write(link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    read_potential_file(link)


def test_a_long_file_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".etn")
    write_bytes_atomically(path, b"x")
    assert path.read_bytes() == b"x"


# ----------------------------------------------------------------------------------------------- frozen files


@pytest.mark.parametrize("name", sorted(path.stem for path in FROZEN.glob("*.etn")))
def test_files_of_past_releases_keep_loading(name: str) -> None:
    stored = read_potential_file(FROZEN / f"{name}.etn", (POTENTIAL, TENSOR))
    expected = json.loads((FROZEN / f"{name}.json").read_text(encoding="utf-8"))
    arrays, _ = expected.pop("arrays"), expected.pop("evaluations", None)
    assert {field: getattr(stored, field) for field in expected} == expected
    assert stored.arrays.keys() == arrays.keys()
    for key, values in arrays.items():
        np.testing.assert_array_equal(
            stored.arrays[key], np.array(values).reshape(stored.arrays[key].shape), strict=True
        )


def test_every_format_version_has_a_frozen_file() -> None:
    versions = {
        json.loads(path.read_text(encoding="utf-8"))["format_version"] for path in FROZEN.glob("*.json")
    }
    assert versions == set(range(1, potential_file.FORMAT_VERSION + 1))


def test_freezing_never_replaces_a_frozen_file(path: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("freeze", FROZEN / "freeze.py")
    assert spec is not None and spec.loader is not None
    freeze = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(freeze)
    write(path)
    directory = tmp_path / "frozen"
    directory.mkdir()
    freeze.freeze(path, "a", directory)
    assert (directory / "a.etn").read_bytes() == path.read_bytes()
    assert "evaluations" not in json.loads((directory / "a.json").read_text(encoding="utf-8"))
    with pytest.raises(FileExistsError):
        freeze.freeze(path, "a", directory)
