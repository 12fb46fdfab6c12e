"""Fixtures shared by the whole suite."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: reproducible, and different from test to test."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))
