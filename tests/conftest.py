"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

#: Where the public data sets are, when ``ETNPOT_DATA`` does not say: beside the repository.
DATA_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

#: Tests that compile most kernels, at the start of the first and of the second half of all tests.
COMPILED_FIRST = (
    ("test_evaluate_kernels.py", "test_gradient_kernels.py"),
    ("test_layer_kernels.py", "test_output_kernels.py", "test_site_kernels.py", "test_train_kernels.py"),
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes that begin with the two halves compile different kernels, and find those of each other in the cache."""
    heads = [[item for item in items if item.path.name in names] for names in COMPILED_FIRST]
    others = [item for item in items if not any(item.path.name in names for names in COMPILED_FIRST)]
    half = max(0, len(items) // 2 - len(heads[0]))
    items[:] = [*heads[0], *others[:half], *heads[1], *others[half:]]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: reproducible, and different from test to test."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """The directory of the public data sets: ``ETNPOT_DATA``, else ``../shared/data`` beside the repository.

    The test fails, and is never skipped, where it is missing.
    """
    named = os.environ.get("ETNPOT_DATA", "").strip()
    directory = Path(named).expanduser().resolve() if named else DATA_BESIDE
    if not directory.is_dir():
        source = f"ETNPOT_DATA={named}" if named else "ETNPOT_DATA is not set"
        pytest.fail(
            f"the public data sets are needed for this test, but {directory} is not a directory ({source}); "
            "set ETNPOT_DATA to the directory that holds emt6, zuo2020, nbmotaw_snap2020, ..., or leave "
            "these tests out (-m 'not data', the default)",
            pytrace=False,
        )
    return directory
