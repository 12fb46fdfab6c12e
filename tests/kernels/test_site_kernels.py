"""Derivatives of the energies of atoms by the train: the kernel against the train with tensors taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from etnpot import reference
from etnpot.kernels import sites as kernels
from etnpot.potential import Potential

#: A block of atoms and one more.
N_ATOMS = 33


def derivatives(module: Any, potential: Potential, rng: np.random.Generator, begin: int, end: int) -> Any:
    """Of cores begin + 1 .. end, with the head where `begin` is 0, for a range of random atoms."""
    train, weights = potential.train_tables, potential.weights
    v_if = rng.normal(size=(N_ATOMS, train.n_features))
    type_i = rng.integers(0, len(potential.species), size=N_ATOMS)
    shift = potential.spec.slices["head"].start
    first = 0 if begin == 0 else potential.spec.slices[f"core.{begin + 1}"].start - shift
    last = potential.spec.slices[f"core.{end}"].stop - shift
    gradient_iq = np.full((N_ATOMS, last - first), 7.0)
    paths = int(train.path_first[begin]), int(train.path_first[end])
    # with the head, all adjoints are needed
    before = train._replace(path=train.path[: train.path_first[end - 1]])
    after = train if begin == 0 else train._replace(path=train.path[train.path_first[begin + 1] :])
    for start, stop in ((0, 32), (32, N_ATOMS)):
        module.site_gradients(
            v_if, type_i, before, train, after, weights, *paths, first, start, stop, gradient_iq
        )
    return gradient_iq


def test_site_gradients_of_everything(potential: Potential, assert_close: Callable[..., None]) -> None:
    order = potential.spec.order
    actual = derivatives(kernels, potential, np.random.default_rng(1), 0, order)
    assert_close(actual, derivatives(reference.sites, potential, np.random.default_rng(1), 0, order))
    assert actual.shape == (N_ATOMS, len(potential.weights))


def test_site_gradients_of_one_core(potential: Potential, assert_close: Callable[..., None]) -> None:
    core = potential.spec.order - 1
    if core == 0:
        return  # one core only: the case above
    actual = derivatives(kernels, potential, np.random.default_rng(2), core, core + 1)
    assert_close(actual, derivatives(reference.sites, potential, np.random.default_rng(2), core, core + 1))
