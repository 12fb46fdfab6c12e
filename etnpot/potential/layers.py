"""Layers between the local features and the last train: what they are made of, and their tables.

    V^0 = v,      x^k = train_k(V^{k-1}),      V^k = V^{k-1} + u^k(x^k),      E_i = train(V^L_i)                (1)

where + appends channels. Layer k has a train of its own, whose last bond x^k it passes on:

    message       u_i[l', m', (l, lambda, a)] = N^(-1/2) sum_j alpha_ij R_l,lambda,a(r_ij; z_i, z_j)
                                                 sum_{m mu} C^{l'm'}_{lm, lambda mu} Y_lm(u_ij) x_j[lambda, mu, a]  (2)
    pool          u_i[lambda, mu, a] = (1 / n) sum_j x_j[lambda, mu, a]   over the n atoms of the group of i      (3)

with radial functions R made of the same basis and species factor as those of the local features, and all l', l <= l_max of
natural parity. Attention multiplies the copies a of head h = a mod H of a message by a weight,

    none          alpha_ij = 1
    bilinear      alpha_ij = s_ij = q_i . k_j / sqrt(D)
    normalised    alpha_ij = e_ij / (1 + sum_j' e_ij'),     e_ij = (1 - r_ij^2 / r_c^2)^3 exp(s_ij)               (4)

of a query at i and a key at j, which are 2 H D further scalars on the last bond of the layer's train. The one in the
denominator is a neighbour that says nothing: the weights of an atom without neighbours, and of one whose neighbours leave,
are smooth.

============  =======================================================================
symbol        here
============  =======================================================================
x^k           ``Layer.bonds[-1]``; what is passed on is ``Layer.carried``
V^k           ``feature_bonds(...)[k]``
R, C          ``LayerTables.term_index``, ``term_value``, channels of the radial table
H, D          ``Layer.heads``, ``Layer.width``
============  =======================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.network import SCALAR, Bond
from etnpot.so3 import Irrep, coupling_table

__all__ = [
    "ATTENTIONS",
    "KINDS",
    "Layer",
    "LayerTables",
    "feature_bonds",
    "layer_tables",
    "pair_channels",
    "split_radial_table",
]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

KINDS = ("message", "pool")
ATTENTIONS = ("none", "bilinear", "normalised")

#: Limits of what is asked for, or claimed by a file: layers, copies of an irrep on a bond, l, heads and width.
MOST_LAYERS, MOST_COPIES, MOST_L, MOST_HEADS = 20, 1000, 12, 100


@dataclass(frozen=True)
class Layer:
    """One layer of eq. (1); validated when made, never changed.

    Parameters
    ----------
    kind : {"message", "pool"}
    bonds : tuple of Bond
        Of the layer's train; the last one is passed on, queries and keys included.
    attention : {"none", "bilinear", "normalised"}
        Of messages.
    heads, width : int
        H and D of the attention; 0 without.
    """

    kind: str
    bonds: tuple[Bond, ...]
    attention: str = "none"
    heads: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecificationError(
                f"layers, kind: expected one of {', '.join(KINDS)}, got {self.kind!r:.100}"
            )
        if self.attention not in ATTENTIONS:
            raise SpecificationError(
                f"layers, attention: expected one of {', '.join(ATTENTIONS)}, got {self.attention!r:.100}"
            )
        if self.kind == "pool" and self.attention != "none":
            raise SpecificationError(
                "layers, attention: only messages have it; remove it from the layer of kind pool"
            )
        object.__setattr__(self, "bonds", tuple(self.bonds))
        if len(self.bonds) < 2 or not all(isinstance(bond, Bond) for bond in self.bonds):
            raise SpecificationError(
                f"layers, bonds: expected at least two Bond objects, got {self.bonds!r:.200}"
            )
        for name in ("heads", "width"):
            value = getattr(self, name)
            least = 0 if self.attention == "none" else 1
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_HEADS:
                raise SpecificationError(
                    f"layers, {name}: expected an integer from {least} to {MOST_HEADS}, got {value!r:.100}"
                )
        if self.attention == "none" and (self.heads or self.width):
            raise SpecificationError(
                "layers, heads and width: they belong to attention; choose one, or leave them out"
            )
        if self.bonds[-1].rank(SCALAR) < self.n_attention:
            raise SpecificationError(
                f"layers: the last bond has {self.bonds[-1].rank(SCALAR)} scalars, fewer than the {self.n_attention} of "
                "queries and keys"
            )
        for bond in (*self.bonds[:-1], self.carried):
            if any(rank > MOST_COPIES or irrep.l > MOST_L for irrep, rank in bond):
                raise SpecificationError(
                    f"layers, bonds: expected at most {MOST_COPIES} copies of an irrep, and l up to {MOST_L}, got {bond!s:.100}"
                )
        if not self.carried.ranks or not all(irrep.is_natural for irrep in self.carried.irreps):
            raise SpecificationError(
                f"layers, carry: expected irreps of natural parity (0e, 1o, 2e, ...), got {self.carried}"
            )

    @property
    def n_attention(self) -> int:
        """Scalars of queries and keys on the last bond: they come after those that are passed on."""
        return 2 * self.heads * self.width

    @property
    def carried(self) -> Bond:
        """What is passed on: the last bond without queries and keys."""
        ranks = dict(self.bonds[-1].ranks)
        return Bond.of({irrep: rank - (irrep == SCALAR) * self.n_attention for irrep, rank in ranks.items()})

    def __str__(self) -> str:
        kind = (
            self.kind
            if self.attention == "none"
            else f"{self.kind}, {self.attention} attention of {self.heads} heads"
        )
        return f"{kind}: " + " | ".join(str(bond) for bond in self.bonds)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the file."""
        return {
            "kind": self.kind,
            "bonds": [bond.to_dict() for bond in self.bonds],
            "attention": self.attention,
            "heads": self.heads,
            "width": self.width,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Layer:
        """The inverse of `to_dict`; unknown and missing fields are named."""
        if not isinstance(values, Mapping):
            raise SpecificationError(f"layers: expected mappings, got {values!r:.100}")
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise SpecificationError(
                f"layers: expected the fields {sorted(known)}, got {sorted(map(str, values))}"
            )
        try:
            bonds = tuple(Bond.of(dict(bond)) for bond in values["bonds"])
        except (TypeError, ValueError) as error:
            raise SpecificationError(
                f"layers, bonds: expected mappings such as {{'0e': 4}}: {error}"
            ) from error
        return cls(**{**values, "bonds": bonds})


def message_paths(layer: Layer, l_max: int) -> list[tuple[int, Irrep, int]]:
    """(l, lambda, l') of eq. (2), in the order of their features."""
    return [
        (l, irrep, out)
        for l in range(l_max + 1)
        for irrep in layer.carried.irreps
        for out in range(abs(l - irrep.l), min(l + irrep.l, l_max) + 1)
        if (l + irrep.l + out) % 2 == 0
    ]


def appended(layer: Layer, l_max: int) -> Bond:
    """u of a layer."""
    if layer.kind == "pool":
        return layer.carried
    ranks: dict[Irrep, int] = {}
    for _, irrep, out in message_paths(layer, l_max):
        ranks[Irrep.natural(out)] = ranks.get(Irrep.natural(out), 0) + layer.carried.rank(irrep)
    return Bond.of(ranks)


def feature_bonds(channels: Sequence[int], layers: Sequence[Layer]) -> list[Bond]:
    """V^0 .. V^L, the constant being the first scalar of each."""
    ranks = {Irrep.natural(l): count + (l == 0) for l, count in enumerate(channels)}
    bonds = [Bond.of(ranks)]
    for layer in layers:
        bonds.append(bonds[-1] + appended(layer, len(channels) - 1))
    return bonds


def pair_channels(channels: Sequence[int], layers: Sequence[Layer]) -> tuple[int, ...]:
    """Channels of the radial table per l: those of the local features, then one for each copy that a layer passes on."""
    messages = sum(sum(rank for _, rank in layer.carried) for layer in layers if layer.kind == "message")
    return tuple(count + messages for count in channels)


def split_radial_table(table: Floats, channels: Sequence[int], layers: Sequence[Layer]) -> list[Floats]:
    """Radial tables of the local features and of every layer, [z_i, z_j, n, lc], all l in turn; of no channels for pools."""
    copies = [sum(rank for _, rank in layer.carried) * (layer.kind == "message") for layer in layers]
    parts: list[list[Floats]] = [[] for _ in range(1 + len(copies))]
    at = 0
    for count in channels:
        for part, n in zip(parts, (count, *copies), strict=True):
            part.append(table[..., at : at + n])
            at += n
    return [np.concatenate(part, axis=-1) for part in parts]


class LayerTables(NamedTuple):
    """Where the numbers of one layer lie.

    Attributes
    ----------
    kept : int64 [f]
        Columns of V^k that are those of V^{k-1}.
    source, target : int64 [f]
        Of a pool: columns of x^k, and of V^k.
    carried : int64 [c, 3]
        Row in x^k, copy and head of every component that is passed on.
    coupling_index, term_index : int64 [t, 4]
    term_value : float64 [t]
        Of messages: the sums as `etnpot.kernels.messages` and `etnpot.kernels.layers` take them; the coefficients of both.
    columns : int64 [f]
        Of messages: the columns of w that carry them.
    heads : int64 [f]
        Head of each of these columns.
    queries, keys : int64 [h, d]
        Columns of x^k.
    """

    kept: Integers
    source: Integers
    target: Integers
    carried: Integers
    coupling_index: Integers
    term_index: Integers
    term_value: Floats
    columns: Integers
    heads: Integers
    queries: Integers
    keys: Integers


def local_columns(channels: Sequence[int], layers: Sequence[Layer]) -> tuple[Integers, Integers]:
    """Columns of w, and of V^0, of the local features."""
    total = pair_channels(channels, layers)
    first = feature_bonds(channels, ())[0]
    source, target, at = [], [], 0
    for l, count in enumerate(channels):
        irrep = Irrep.natural(l)
        for m in range(2 * l + 1):
            for c in range(count):
                source.append(at + m * total[l] + c)
                target.append(first.offset(irrep) + m * first.rank(irrep) + c + (l == 0))
        at += (2 * l + 1) * total[l]
    return np.array(source, dtype=np.int64), np.array(target, dtype=np.int64)


@lru_cache(maxsize=64)
def layer_tables(channels: tuple[int, ...], layers: tuple[Layer, ...]) -> tuple[LayerTables, ...]:
    """Tables of every layer; kept, since a fit asks for the same ones at every step, and nobody writes to them."""
    l_max = len(channels) - 1
    bonds, total = feature_bonds(channels, layers), pair_channels(channels, layers)
    first_w = np.cumsum([0, *((2 * l + 1) * total[l] for l in range(l_max + 1))])
    tables, used = [], 0  # channels of each l that earlier layers took
    for k, layer in enumerate(layers):
        old, new, carried = bonds[k], bonds[k + 1], layer.carried
        kept = np.concatenate([_places(new, irrep, 0, rank) for irrep, rank in old])
        n_keys = layer.heads * layer.width
        scalars = carried.rank(SCALAR) + np.arange(2 * n_keys, dtype=np.int64)
        queries, keys = (part.reshape(layer.heads, layer.width) for part in np.split(scalars, 2))
        source = target = columns = heads = np.zeros(0, dtype=np.int64)
        coupling = index = np.zeros((0, 4), dtype=np.int64)
        value, carried_rows = np.zeros(0), _carried(layer)
        if layer.kind == "pool":
            source = carried_rows[:, 0]
            target = np.concatenate([_places(new, irrep, old.rank(irrep), rank) for irrep, rank in carried])
        else:
            n_copies = sum(rank for _, rank in carried)
            head_a = np.concatenate([np.arange(rank) % max(layer.heads, 1) for _, rank in carried])
            columns = np.concatenate(
                [
                    first_w[l] + m * total[l] + channels[l] + used + np.arange(n_copies)
                    for l in range(l_max + 1)
                    for m in range(2 * l + 1)
                ]
            )
            heads = np.tile(head_a, (l_max + 1) ** 2)
            coupling, value = _couplings(layer, l_max, carried_rows[:, 0], old, new)
            lm, component = coupling[:, 0], coupling[:, 1]
            l = np.sqrt(lm).astype(np.int64)
            w = first_w[l] + (lm - l * l) * np.array(total)[l] + np.array(channels)[l] + used
            index = np.stack(
                [w + carried_rows[component, 1], carried_rows[component, 0], *coupling[:, 2:].T], axis=1
            )
            used += n_copies
        tables.append(
            LayerTables(
                kept, source, target, carried_rows, coupling, index, value, columns, heads, queries, keys
            )
        )
    return tuple(tables)


def _places(bond: Bond, irrep: Irrep, copy: int, count: int) -> Integers:
    """Indices of some copies of an irrep in a bond vector, components outside."""
    m, a = np.arange(irrep.dim), np.arange(copy, copy + count)
    return np.asarray(bond.offset(irrep) + (m[:, None] * bond.rank(irrep) + a).ravel(), dtype=np.int64)


def _carried(layer: Layer) -> Integers:
    """Row in the last bond, copy and head of every component that a layer passes on, int64 [c, 3]."""
    rows, first = [], 0
    for irrep, rank in layer.carried:
        copies = np.arange(rank)
        of_irrep = np.stack([copies, first + copies, copies % max(layer.heads, 1)], axis=1)
        for m in range(irrep.dim):
            row = layer.bonds[-1].offset(irrep) + m * layer.bonds[-1].rank(irrep)
            rows.append(of_irrep + np.array([row, 0, 0]))
        first += rank
    return np.concatenate(rows).astype(np.int64)


def _couplings(
    layer: Layer, l_max: int, carried_row: Integers, old: Bond, new: Bond
) -> tuple[Integers, Floats]:
    """The sums of eq. (2): lm, first component that is carried, first feature, copies; the coefficients."""
    passed, taken = layer.bonds[-1], {irrep: old.rank(irrep) for irrep in new.irreps}
    component = {int(row): c for c, row in enumerate(carried_row)}
    rows, values = [], []
    for l, irrep, out_l in message_paths(layer, l_max):
        out, rank = Irrep.natural(out_l), layer.carried.rank(irrep)
        for (m1, m2, m3), c in zip(*coupling_table(l, irrep.l, out_l), strict=True):
            row = passed.offset(irrep) + m2 * passed.rank(irrep)
            feature = new.offset(out) + m3 * new.rank(out) + taken[out]
            rows.append([l * l + m1, component[int(row)], feature, rank])
            values.append(c)
        taken[out] += rank
    return np.array(rows, dtype=np.int64).reshape(-1, 4), np.array(values, dtype=np.float64)
