"""The equivariant tensor train: a head, d cores, and the elementary operations on them.

    x_0[a] = A_0[z, a]
    x_k[l3, m3, a3] = sum_{l1 l2 a1 a2} A_k^{l1 l2 l3}[a1, a2, a3]
                      sum_{m1 m2} C^{l3 m3}_{l1 m1, l2 m2} x_{k-1}[l1, m1, a1] v[a2, l2, m2]

A `Train` holds the numbers A_0 .. A_d in the memory order of its `TrainLayout`. It is immutable; every
operation returns a new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.network.layout import Bond, CoreLayout, Path, TrainLayout

__all__ = ["Train", "core_block", "flatten_blocks", "random_core"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Train:
    """Parameters of an equivariant tensor train.

    Parameters
    ----------
    layout : TrainLayout
        Bonds and paths.
    head : float64 array [species, a]
        A_0.
    cores : tuple of float64 arrays [q]
        Flat cores, one per layout.cores entry.
    """

    layout: TrainLayout
    head: Array
    cores: tuple[Array, ...]

    def __post_init__(self) -> None:
        """Check the shapes and take read-only copies."""
        head = _frozen(self.head)
        cores = tuple(_frozen(core) for core in self.cores)
        if head.shape != self.layout.head_shape:
            raise SpecificationError(
                f"the head must be [species, rank of bond 0] = {self.layout.head_shape}, got {head.shape}"
            )
        if len(cores) != self.layout.order:
            raise SpecificationError(f"the layout has {self.layout.order} cores, got {len(cores)}")
        for k, (core, layout) in enumerate(zip(cores, self.layout.cores, strict=True)):
            if core.shape != (layout.size,):
                raise SpecificationError(
                    f"core {k} must be flat with {layout.size} entries, got an array of shape {core.shape}"
                )
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "cores", cores)

    @classmethod
    def from_flat(cls, layout: TrainLayout, parameters: Array) -> Train:
        """Train from head and cores concatenated, as `flat` gives them."""
        parameters = np.asarray(parameters, dtype=np.float64)
        if parameters.shape != (layout.n_parameters,):
            raise SpecificationError(
                f"the train has {layout.n_parameters} parameters, got an array of shape {parameters.shape}"
            )
        n_species, rank = layout.head_shape
        at = n_species * rank
        cores = []
        for core in layout.cores:
            cores.append(parameters[at : at + core.size])
            at += core.size
        return cls(layout, parameters[: n_species * rank].reshape(n_species, rank), tuple(cores))

    @classmethod
    def random(cls, layout: TrainLayout, rng: np.random.Generator) -> Train:
        """Normal entries, scaled so that bond vectors keep the size of the features.

        The entries of A^{l1 l2 l3} are independent, of mean zero and variance s(l3). Averaged over them,

            <x_k[l3, m3, a3]^2> = s(l3) sum_{l1 l2 a1 a2} (sum_{m1 m2} C^{l3 m3}_{l1 m1, l2 m2} x[l1, m1, a1]
                                  v[a2, l2, m2])^2.

        If the components of x_{k-1} are uncorrelated with variance X and those of v with variance V, the
        orthonormality sum_{m1 m2} (C^{l3 m3}_{l1 m1, l2 m2})^2 = 1 gives every (l1, l2, a1, a2) the same
        share X V, whatever l1, l2 and l3. So s(l3) = 1 / F(l3), with the fan-in F(l3) = sum r[l1] n[l2] over
        the paths into l3, keeps the variance at X V; the head has variance one. By the same sum, the columns
        of each core are normalised in the mean as those of a left-orthogonal core are.

        Parameters
        ----------
        layout : TrainLayout
            Bonds and features.
        rng : numpy.random.Generator
            Drawn from in the order head, core 0, core 1, ..., each core path by path.
        """
        head = rng.normal(size=layout.head_shape)
        return cls(layout, head, tuple(random_core(core, rng) for core in layout.cores))

    @property
    def flat(self) -> Array:
        """Head and cores concatenated, float64 [q]."""
        return np.concatenate([self.head.ravel(), *self.cores])

    def block(self, k: int, path: Path) -> Array:
        """Read-only view [a1, a2, a3] of one block of core k (0-based)."""
        return core_block(self.layout.cores[k], self.cores[k], path)

    def blocks(self, k: int) -> dict[Path, Array]:
        """All blocks of core k (0-based), as read-only views."""
        return {path: self.block(k, path) for path in self.layout.cores[k].paths}

    def with_core(self, k: int, core: Array) -> Train:
        """The same train with the numbers of core k (0-based) replaced."""
        return Train(self.layout, self.head, (*self.cores[:k], core, *self.cores[k + 1 :]))

    def with_bond(self, k: int, bond: Bond, left: Array, right: Array) -> Train:
        """The train with bond k (0..d-1) and the two tensors that meet there replaced.

        Parameters
        ----------
        k : int
            Index of the bond.
        bond : Bond
            Its new irreps and ranks.
        left : float64 array
            New head [species, a] for k = 0, else the new flat core k-1 [q].
        right : float64 array [q]
            New flat core k.
        """
        head = left if k == 0 else self.head
        cores = list(self.cores)
        if k > 0:
            cores[k - 1] = left
        cores[k] = right
        return Train(self.layout.with_bond(k, bond), head, tuple(cores))


def random_core(layout: CoreLayout, rng: np.random.Generator) -> Array:
    """Flat core of normal entries with the variance that `Train.random` derives, float64 [q]."""
    fan_in = dict.fromkeys(layout.right.irreps, 0)
    for path in layout.paths:
        n1, n2, _ = layout.shape(path)
        fan_in[path.right] += n1 * n2
    core = np.zeros(layout.size)
    for path in layout.paths:
        core[layout.slice(path)] = rng.normal(size=layout.shape(path)).ravel() / np.sqrt(fan_in[path.right])
    return core


def core_block(layout: CoreLayout, core: Array, path: Path) -> Array:
    """View [a1, a2, a3] of one block in a flat core."""
    return core[layout.slice(path)].reshape(layout.shape(path))


def flatten_blocks(layout: CoreLayout, blocks: Mapping[Path, Array]) -> Array:
    """Flat core from its blocks; paths that are absent are zero."""
    core = np.zeros(layout.size)
    for path, block in blocks.items():
        core[layout.slice(path)] = np.asarray(block).reshape(-1)
    return core


def _frozen(array: Array | Sequence[float]) -> Array:
    frozen = np.array(array, dtype=np.float64)
    frozen.flags.writeable = False
    return frozen
