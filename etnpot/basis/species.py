"""The species factor S^l[k](z_i, z_j) of the radial functions, in two forms with one interface.

    R_c^l(r; z_i, z_j) = sum_{n,k} B^l[c, n, k] phi_n(r) S^l[k](z_i, z_j)

    `PairTable`          S^l[k](z_i, z_j) is itself the parameter: (l_max+1) K S² of them
    `EmbeddingProduct`   S^l[k](z_i, z_j) = sum_{p,q} G[l,k,p,q] a[p](z_i) b[q](z_j):
                         S (P+Q) + (l_max+1) K P Q parameters, linear in the number of species S

Pairs are ordered, centre first: S(z_i, z_j) need not equal S(z_j, z_i). Both forms are evaluated through the
same table over species pairs, so that the cost per pair of atoms depends on neither the form nor the number
of species.

=================== ======================== ======================================
symbol              here                     shape
=================== ======================== ======================================
S^l[k](z_i, z_j)    ``table``, "pair"        [l_max + 1, K, S, S], indices l k i j
a[p](z_i)           "center"                 [S, P]
b[q](z_j)           "neighbor"               [S, Q]
G[l,k,p,q]          "coupling"               [l_max + 1, K, P, Q]
=================== ======================== ======================================

Here z_i and z_j are the dense ``type_index`` 0..S-1 of a potential, never atomic numbers. All arrays are
float64 and without unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etnpot.basis.cutoff import check_choice, check_integer
from etnpot.errors import SpecificationError

__all__ = ["SPECIES_FORMS", "EmbeddingProduct", "PairTable", "SpeciesFactor", "make_species_factor"]

FloatArray = NDArray[np.float64]
Parameters = Mapping[str, ArrayLike]


def _spread(rng: np.random.Generator, n_points: int, n_components: int) -> FloatArray:
    """Random coordinates [n_points, n_components]: the first component 1, the others well spread.

    Component 1 takes equally spaced values in random order, so that no two points coincide. Each further
    component is Gaussian, made orthogonal to those before it as long as the number of points allows. Every
    component has mean square 1, hence mean 0 and variance 1 where it is orthogonal to component 0.
    """
    spread = np.ones((n_points, n_components))
    for component in range(1, n_components):
        if component == 1 and n_points > 1:
            column = rng.permutation(n_points) - (n_points - 1) / 2
        else:
            column = rng.standard_normal(n_points)
            if component < n_points:
                previous = spread[:, :component]
                for _ in range(2):  # once more removes what rounding left
                    column = column - previous @ (previous.T @ column) / n_points
        spread[:, component] = column / np.sqrt(np.mean(column * column))
    return spread


@dataclass(frozen=True)
class SpeciesFactor(ABC):
    """What the two forms of S^l[k](z_i, z_j) share.

    Parameters
    ----------
    n_species : int
        Number of species S, at least 1.
    size : int
        Number of channels K, at least 1.
    l_max : int
        Highest angular momentum, at least 0.

    Raises
    ------
    SpecificationError
        Naming the field that is out of its range.
    """

    n_species: int
    size: int
    l_max: int

    #: Name of the form in specifications and files.
    form: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_species", check_integer("n_species", self.n_species, 1))
        object.__setattr__(self, "size", check_integer("size", self.size, 1))
        object.__setattr__(self, "l_max", check_integer("l_max", self.l_max, 0))

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter array, in the order in which they are stored."""

    @abstractmethod
    def initial(self, rng: np.random.Generator) -> dict[str, FloatArray]:
        """Random starting parameters.

        Channel 0 does not see the species: it is 1 for every pair. Each other channel has mean square 1 over
        the species pairs of every l (and mean 0 as far as the number of pairs allows; of the embedding this
        holds exactly when P, Q <= S).

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        dict of str to ndarray
            Arrays of `shapes`.
        """

    @abstractmethod
    def _table(self, parameters: dict[str, FloatArray]) -> FloatArray: ...

    @abstractmethod
    def _table_adjoint(
        self, parameters: dict[str, FloatArray], dtable: FloatArray
    ) -> dict[str, FloatArray]: ...

    @abstractmethod
    def _table_tangent(
        self, parameters: dict[str, FloatArray], dparameters: dict[str, FloatArray]
    ) -> FloatArray: ...

    @property
    def table_shape(self) -> tuple[int, int, int, int]:
        """[l_max + 1, size, n_species, n_species]."""
        return self.l_max + 1, self.size, self.n_species, self.n_species

    @property
    def n_parameters(self) -> int:
        """Number of parameters, redundant ones included."""
        return sum(prod(shape) for shape in self.shapes.values())

    def table(self, parameters: Parameters) -> FloatArray:
        """S^l[k](z_i, z_j) for every ordered pair of species.

        Parameters
        ----------
        parameters : mapping of str to array_like
            Arrays of `shapes`.

        Returns
        -------
        ndarray, [l, k, species i, species j], float64
            A new array.
        """
        return self._table(self._checked(parameters, "parameters", batched=False))

    def table_adjoint(self, parameters: Parameters, dtable: ArrayLike) -> dict[str, FloatArray]:
        """Vector-Jacobian product: derivatives with respect to the table -> with respect to the parameters.

        Parameters
        ----------
        parameters : mapping of str to array_like
            Arrays of `shapes`.
        dtable : array_like, [..., l, k, species i, species j], float64
            Derivative of one or (leading axes) several functions with respect to the table.

        Returns
        -------
        dict of str to ndarray
            Derivatives with respect to each parameter array: its shape, after the same leading axes.
        """
        dtable = np.asarray(dtable, dtype=np.float64)
        if dtable.shape[-4:] != self.table_shape:
            raise SpecificationError(
                f"dtable must have the shape [..., {', '.join(map(str, self.table_shape))}], "
                f"got {list(dtable.shape)}"
            )
        return self._table_adjoint(self._checked(parameters, "parameters", batched=False), dtable)

    def table_tangent(self, parameters: Parameters, dparameters: Parameters) -> FloatArray:
        """Jacobian-vector product: a change of the parameters -> the first-order change of the table.

        Parameters
        ----------
        parameters : mapping of str to array_like
            Arrays of `shapes`.
        dparameters : mapping of str to array_like
            Arrays of `shapes`, all after the same (or no) leading axes.

        Returns
        -------
        ndarray, [..., l, k, species i, species j], float64
            The change, linear in `dparameters`; a new array.
        """
        return self._table_tangent(
            self._checked(parameters, "parameters", batched=False),
            self._checked(dparameters, "dparameters", batched=True),
        )

    def _checked(self, parameters: Parameters, field: str, *, batched: bool) -> dict[str, FloatArray]:
        """The arrays of `parameters` as float64, after a check of names and shapes."""
        shapes = self.shapes
        if set(parameters) != set(shapes):
            raise SpecificationError(
                f"{field} of the species factor {self.form!r} must be {', '.join(map(repr, shapes))}, "
                f"got {', '.join(map(repr, parameters)) or 'none'}"
            )
        checked = {name: np.asarray(parameters[name], dtype=np.float64) for name in shapes}
        for name, array in checked.items():
            shape = shapes[name]
            if (array.shape[-len(shape) :] if batched else array.shape) != shape:
                leading = "..., " if batched else ""
                raise SpecificationError(
                    f"{field}[{name!r}] must have the shape [{leading}{', '.join(map(str, shape))}], "
                    f"got {list(array.shape)}"
                )
        return checked


@dataclass(frozen=True)
class PairTable(SpeciesFactor):
    """S^l[k](z_i, z_j) as a full table over ordered species pairs; see `SpeciesFactor` for the parameters."""

    form: ClassVar[str] = "pair"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"pair": (l_max + 1, size, n_species, n_species)}``."""
        return {"pair": self.table_shape}

    def initial(self, rng: np.random.Generator) -> dict[str, FloatArray]:
        pairs = self.n_species**2
        spread = [_spread(rng, pairs, self.size).T for _ in range(self.l_max + 1)]
        return {"pair": np.stack(spread).reshape(self.table_shape)}

    def _table(self, parameters: dict[str, FloatArray]) -> FloatArray:
        return parameters["pair"].copy()

    def _table_adjoint(self, parameters: dict[str, FloatArray], dtable: FloatArray) -> dict[str, FloatArray]:
        return {"pair": dtable.copy()}

    def _table_tangent(
        self, parameters: dict[str, FloatArray], dparameters: dict[str, FloatArray]
    ) -> FloatArray:
        return dparameters["pair"].copy()


@dataclass(frozen=True)
class EmbeddingProduct(SpeciesFactor):
    """S^l[k](z_i, z_j) = sum_pq G[l,k,p,q] a[p](z_i) b[q](z_j), the embeddings a and b shared by all l and k.

    Parameters
    ----------
    n_species, size, l_max : int
        As in `SpeciesFactor`.
    embedding : tuple of int
        Number of components (P, Q) of the embeddings of the centre and of the neighbour, each at least 1. The
        first component starts species-blind, so that species are told apart from the beginning only on a side
        that has at least two components (and with at least two channels).

    Raises
    ------
    SpecificationError
        Naming the field that is out of its range.
    """

    embedding: tuple[int, int] = (4, 4)

    form: ClassVar[str] = "embedding"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.embedding, (tuple, list)) or len(self.embedding) != 2:
            raise SpecificationError(f"embedding must be two integers (P, Q), got {self.embedding!r}")
        center, neighbor = (check_integer("embedding", components, 1) for components in self.embedding)
        object.__setattr__(self, "embedding", (center, neighbor))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of "center" [S, P], "neighbor" [S, Q] and "coupling" [l_max + 1, K, P, Q]."""
        P, Q = self.embedding
        return {
            "center": (self.n_species, P),
            "neighbor": (self.n_species, Q),
            "coupling": (self.l_max + 1, self.size, P, Q),
        }

    def initial(self, rng: np.random.Generator) -> dict[str, FloatArray]:
        P, Q = self.embedding
        coupling = np.zeros((self.l_max + 1, self.size, P * Q))
        coupling[:, 0, 0] = 1.0  # a[0] = b[0] = 1: channel 0 is 1 for every pair
        for coupling_kpq in coupling:
            if P * Q == 1:
                coupling_kpq[1:] = 1.0
                continue
            # rows k >= 1 without the blind product a[0] b[0], of norm 1, orthogonal as long as there is room
            for k in range(1, self.size):
                row = rng.standard_normal(P * Q)
                row[0] = 0.0
                if k < P * Q:
                    previous = coupling_kpq[1:k]
                    for _ in range(2):  # once more removes what rounding left
                        row = row - (previous @ row) @ previous
                coupling_kpq[k] = row / np.linalg.norm(row)
        return {
            "center": _spread(rng, self.n_species, P),
            "neighbor": _spread(rng, self.n_species, Q),
            "coupling": coupling.reshape(self.shapes["coupling"]),
        }

    def _table(self, parameters: dict[str, FloatArray]) -> FloatArray:
        a_ip, b_jq, G_lkpq = (parameters[name] for name in self.shapes)
        Gb_lkpj = np.einsum("lkpq,jq->lkpj", G_lkpq, b_jq)
        table: FloatArray = np.einsum("lkpj,ip->lkij", Gb_lkpj, a_ip)
        return table

    def _table_adjoint(self, parameters: dict[str, FloatArray], dtable: FloatArray) -> dict[str, FloatArray]:
        a_ip, b_jq, G_lkpq = (parameters[name] for name in self.shapes)
        by_center = np.einsum("...lkij,ip->...lkpj", dtable, a_ip)
        Gb_lkpj = np.einsum("lkpq,jq->lkpj", G_lkpq, b_jq)
        return {
            "center": np.einsum("...lkij,lkpj->...ip", dtable, Gb_lkpj),
            "neighbor": np.einsum("...lkpj,lkpq->...jq", by_center, G_lkpq),
            "coupling": np.einsum("...lkpj,jq->...lkpq", by_center, b_jq),
        }

    def _table_tangent(
        self, parameters: dict[str, FloatArray], dparameters: dict[str, FloatArray]
    ) -> FloatArray:
        a_ip, b_jq, G_lkpq = (parameters[name] for name in self.shapes)
        da_ip, db_jq, dG_lkpq = (dparameters[name] for name in self.shapes)
        Gb_lkpj = np.einsum("lkpq,jq->lkpj", G_lkpq, b_jq)
        dGb_lkpj: FloatArray = np.einsum("...lkpq,jq->...lkpj", dG_lkpq, b_jq)
        dGb_lkpj = dGb_lkpj + np.einsum("lkpq,...jq->...lkpj", G_lkpq, db_jq)
        by_neighbor: FloatArray = np.einsum("...lkpj,ip->...lkij", dGb_lkpj, a_ip)
        by_center: FloatArray = np.einsum("lkpj,...ip->...lkij", Gb_lkpj, da_ip)
        return by_neighbor + by_center


#: The forms of the species factor by name.
SPECIES_FORMS = MappingProxyType({"pair": PairTable, "embedding": EmbeddingProduct})


def make_species_factor(
    form: str, n_species: int, size: int, l_max: int, *, embedding: tuple[int, int] | None = None
) -> SpeciesFactor:
    """The species factor of the form called `form`, as a specification names it.

    Parameters
    ----------
    form : {"pair", "embedding"}
        See the module.
    n_species, size, l_max : int
        As in `SpeciesFactor`.
    embedding : tuple of int, optional
        (P, Q) of `EmbeddingProduct`; only the form "embedding" takes it.
    """
    check_choice("form", form, SPECIES_FORMS)
    if form == "pair":
        if embedding is not None:
            raise SpecificationError(
                f"embedding belongs to the species form 'embedding', got {embedding!r} with the form 'pair'; "
                "leave it out or change the form"
            )
        return PairTable(n_species, size, l_max)
    if embedding is None:
        return EmbeddingProduct(n_species, size, l_max)
    return EmbeddingProduct(n_species, size, l_max, embedding)
