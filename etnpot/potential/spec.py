"""The immutable specification of a model: everything but the numbers that are fitted.

`NetworkSpec` has what every tensor train on features has; `PotentialSpec` adds what belongs to an energy, and
`etnpot.potential.tensor_spec.TensorSpec` what belongs to a tensor. It fixes the shape of every parameter array,

==================== ======================= =================================================
group                shape                   symbol
==================== ======================= =================================================
reference_energies   [species]               E0[z], eV; what an isolated atom has (`offsets` of a tensor)
species.*            see `SpeciesFactor`     S^l[k](z_i, z_j), or its embeddings a, b, G
radial.l             [channel, n, k]         B^l[c, n, k], for l = 0 .. l_max, those of messages after the local ones
layer.k.head, .core  as below                of the train of layer k (`etnpot.potential.layers`), for k = 1 ..
head                 [species, a]            A_0[z, a]
core.k               [q]                     A_k, flat, for k = 1 .. order
==================== ======================= =================================================

and the order of all of them in the flat parameter vector is the order of this table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from etnpot.basis import RadialBasis, Repulsion, SpeciesFactor, make_species_factor
from etnpot.conventions import MAX_ATOMIC_NUMBER
from etnpot.dispersion import Dispersion
from etnpot.errors import SpecificationError
from etnpot.network import SCALAR, Bond, TrainLayout
from etnpot.potential.layers import MOST_LAYERS, Layer, feature_bonds, pair_channels

__all__ = ["NetworkSpec", "PotentialSpec"]


#: Fields that files of format version 1 lack; None means the same there.
_SINCE_VERSION_2 = ("repulsion", "energy_bounds", "dispersion")


@dataclass(frozen=True)
class NetworkSpec:
    """What a tensor train on the features of an atom is made of; validated when made, never changed.

    Parameters
    ----------
    species : tuple of int
        Atomic numbers, ascending. The dense type of an atom is its index here.
    radial : RadialBasis
        Radial functions and cutoff (Å).
    l_max : int
        Highest angular momentum of the features.
    channels : tuple of int
        Channels per l = 0 .. l_max (the constant is not counted).
    species_form : {"pair", "embedding"}
        Form of the species factor.
    species_rank : int
        K, its number of channels.
    embedding : tuple of int or None
        (P, Q) of the form "embedding".
    bonds : tuple of Bond
        Bonds 0 .. order of the train; bond 0 carries scalars, the last one is the output.
    neighbor_scale : float
        N of the features: about the mean number of neighbours.
    """

    species: tuple[int, ...]
    radial: RadialBasis
    l_max: int
    channels: tuple[int, ...]
    species_form: str
    species_rank: int
    embedding: tuple[int, int] | None
    bonds: tuple[Bond, ...]
    neighbor_scale: float

    #: Name of the group of constants by species, on which no ridge acts.
    constants: ClassVar[str]

    def __post_init__(self) -> None:
        species = checked_integers("species", self.species)
        if not species:
            raise SpecificationError("species: at least one element is needed, for example species=['Cu']")
        if list(species) != sorted(set(species)) or species[0] < 1 or species[-1] > MAX_ATOMIC_NUMBER:
            raise SpecificationError(
                f"species: expected distinct ascending atomic numbers from 1 to {MAX_ATOMIC_NUMBER}, "
                f"got {species}"
            )
        object.__setattr__(self, "species", species)
        if not isinstance(self.radial, RadialBasis):
            raise SpecificationError(f"radial: expected a RadialBasis, got {type(self.radial).__name__}")
        if isinstance(self.l_max, bool) or not isinstance(self.l_max, int) or not 0 <= self.l_max <= 12:
            raise SpecificationError(f"l_max: expected an integer from 0 to 12, got {self.l_max!r}")
        channels = checked_integers("channels", self.channels)
        if len(channels) != self.l_max + 1 or min(channels) < 1:
            raise SpecificationError(
                f"channels: expected {self.l_max + 1} positive integers, one per l = 0..{self.l_max}, "
                f"got {channels}"
            )
        object.__setattr__(self, "channels", channels)
        if self.embedding is not None:
            embedding = checked_integers("embedding", self.embedding)
            if len(embedding) != 2:
                raise SpecificationError(f"embedding: expected two integers (P, Q), got {self.embedding!r}")
            object.__setattr__(self, "embedding", embedding)
        scale = self.neighbor_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 1e-6 <= scale <= 1e12:
            raise SpecificationError(
                f"neighbor_scale: expected a positive number (from 1e-6 to 1e12), got {scale!r}"
            )
        object.__setattr__(self, "neighbor_scale", float(scale))
        bonds = tuple(self.bonds)
        if len(bonds) < 2 or not all(isinstance(bond, Bond) for bond in bonds):
            raise SpecificationError(f"bonds: expected at least two Bond objects, got {self.bonds!r}")
        object.__setattr__(self, "bonds", bonds)
        self._check_output(bonds[-1])
        # ranks beyond what the neighbouring bonds can fill are allowed: a two-site solve passes through them
        _ = self.layout.trimmed()  # raises when no path leads from the head to the output
        rank = self.species_rank
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise SpecificationError(f"species_rank: expected an integer of at least 1, got {rank!r}")
        try:
            _ = self.species_factor
        except SpecificationError as error:
            raise SpecificationError(f"species_form, embedding: {error}") from error

    def _check_output(self, bond: Bond) -> None:
        """Raise SpecificationError unless the last bond is what the model gives."""
        raise NotImplementedError

    @property
    def _constant_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the constants by species, if there are any."""
        raise NotImplementedError

    @property
    def _layers(self) -> tuple[Layer, ...]:
        """Layers between the local features and the train."""
        return ()

    @property
    def cutoff(self) -> float:
        """Range of one pair, Å; each layer of messages reaches once further."""
        return self.radial.cutoff

    @property
    def n_species(self) -> int:
        """Number of elements."""
        return len(self.species)

    @property
    def order(self) -> int:
        """Number of cores: polynomial degree in the features; the body order is one more."""
        return len(self.bonds) - 1

    @cached_property
    def feature(self) -> Bond:
        """The feature space of the train: the constant as the first channel of 0e, channels per l, what layers append."""
        return self.feature_bonds[-1]

    @cached_property
    def feature_bonds(self) -> tuple[Bond, ...]:
        """The feature space of the train of every layer, and last that of the train."""
        return tuple(feature_bonds(self.channels, self._layers))

    @cached_property
    def pair_channels(self) -> tuple[int, ...]:
        """Channels of the radial functions per l, those of messages included."""
        return pair_channels(self.channels, self._layers)

    @cached_property
    def layer_layouts(self) -> tuple[TrainLayout, ...]:
        """Layouts of the trains of the layers."""
        return tuple(
            TrainLayout(self.n_species, feature, layer.bonds)
            for layer, feature in zip(self._layers, self.feature_bonds, strict=False)
        )

    @cached_property
    def layout(self) -> TrainLayout:
        """Layout of the train."""
        return TrainLayout(self.n_species, self.feature, self.bonds)

    @cached_property
    def species_factor(self) -> SpeciesFactor:
        """The species factor S."""
        return make_species_factor(
            self.species_form, self.n_species, self.species_rank, self.l_max, embedding=self.embedding
        )

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter group, in the order of the flat vector."""
        shapes: dict[str, tuple[int, ...]] = self._constant_shapes
        shapes.update({f"species.{name}": shape for name, shape in self.species_factor.shapes.items()})
        for l, channels in enumerate(self.pair_channels):
            shapes[f"radial.{l}"] = (channels, self.radial.size, self.species_rank)
        for k, layout in enumerate(self.layer_layouts, start=1):
            shapes[f"layer.{k}.head"] = layout.head_shape
            shapes.update(
                {f"layer.{k}.core.{c}": (core.size,) for c, core in enumerate(layout.cores, start=1)}
            )
        shapes["head"] = self.layout.head_shape
        shapes.update({f"core.{k}": (core.size,) for k, core in enumerate(self.layout.cores, start=1)})
        return shapes

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where every group lies in the flat parameter vector."""
        slices, at = {}, 0
        for name, shape in self.shapes.items():
            slices[name] = slice(at, at + math.prod(shape))
            at += math.prod(shape)
        return slices

    @cached_property
    def shared_groups(self) -> tuple[str, ...]:
        """The groups that every core depends on, consecutive: species factor, radial coefficients, layers."""
        return tuple(name for name in self.shapes if name.startswith(("species.", "radial.", "layer.")))

    @cached_property
    def n_parameters(self) -> int:
        """Length of the flat parameter vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the file; `from_dict` is the inverse."""
        return {
            "species": list(self.species),
            "radial": {field.name: getattr(self.radial, field.name) for field in fields(RadialBasis)},
            "l_max": self.l_max,
            "channels": list(self.channels),
            "species_form": self.species_form,
            "species_rank": self.species_rank,
            "embedding": None if self.embedding is None else list(self.embedding),
            "bonds": [bond.to_dict() for bond in self.bonds],
            "neighbor_scale": self.neighbor_scale,
        }

    @classmethod
    def _plain(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the class from plain values, radial basis and bonds made; errors name the field."""
        known = {field.name for field in fields(cls)}
        check_fields("specification", values, known)
        if not isinstance(values["radial"], Mapping):
            raise SpecificationError(f"radial: expected a mapping of fields, got {values['radial']!r}")
        check_fields("radial", values["radial"], {field.name for field in fields(RadialBasis)})
        try:
            bonds = tuple(Bond.of(dict(bond)) for bond in values["bonds"])
        except (TypeError, ValueError) as error:
            raise SpecificationError(
                f"bonds: expected a list of mappings such as {{'0e': 4}}: {error}"
            ) from error
        return {
            **{name: values[name] for name in known},
            "radial": RadialBasis(**values["radial"]),
            "bonds": bonds,
        }


@dataclass(frozen=True)
class PotentialSpec(NetworkSpec):
    """What a potential is made of; validated when made, never changed.

    Parameters
    ----------
    species, radial, l_max, channels, species_form, species_rank, embedding, bonds, neighbor_scale
        As of `NetworkSpec`; the last bond is one scalar, the energy.
    repulsion : Repulsion or None
        Below the distances of the data: see `etnpot.basis.repulsion`.
    energy_bounds : (float, float) or None
        Between which the learned energy of an atom is left alone, without its reference energy, eV.
    dispersion : Dispersion or None
        Long-ranged term that `Potential.evaluate` leaves to whoever has the atoms: see `etnpot.dispersion`.
    layers : tuple of Layer
        Between the local features and the train: see `etnpot.potential.layers`.
    """

    repulsion: Repulsion | None = None
    energy_bounds: tuple[float, float] | None = None
    dispersion: Dispersion | None = None
    layers: tuple[Layer, ...] = ()

    constants: ClassVar[str] = "reference_energies"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not all(isinstance(layer, Layer) for layer in self.layers):
            raise SpecificationError(f"layers: expected Layer objects, got {self.layers!r:.200}")
        _check_count(self.layers)
        super().__post_init__()
        for k, (layer, layout) in enumerate(zip(self.layers, self.layer_layouts, strict=True), start=1):
            if any(irrep.l > self.l_max for irrep in layer.carried.irreps):
                raise SpecificationError(
                    f"layers: layer {k} passes on {layer.carried}, but l_max is {self.l_max}; raise it, or carry less"
                )
            _ = layout.trimmed()
        if self.repulsion is not None:
            self._check_repulsion(self.repulsion)
        if self.dispersion is not None and not isinstance(self.dispersion, Dispersion):
            raise SpecificationError(
                f"dispersion: expected a Dispersion or None, got {type(self.dispersion).__name__}"
            )
        if self.energy_bounds is not None:
            object.__setattr__(self, "energy_bounds", _checked_bounds(self.energy_bounds))

    @property
    def _layers(self) -> tuple[Layer, ...]:
        return self.layers

    def _check_output(self, bond: Bond) -> None:
        if bond != Bond.of({SCALAR: 1}):
            raise SpecificationError(f"bonds: the last bond is one scalar (1x0e), got {bond}")

    @property
    def _constant_shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.constants: (self.n_species,)}

    def _check_repulsion(self, repulsion: Repulsion) -> None:
        if not isinstance(repulsion, Repulsion):
            raise SpecificationError(
                f"repulsion: expected a Repulsion or None, got {type(repulsion).__name__}"
            )
        if len(repulsion.outer) != self.n_species:
            raise SpecificationError(
                f"repulsion: expected radii for {self.n_species} species, got them for {len(repulsion.outer)}"
            )
        largest = max(map(max, repulsion.outer))
        if largest > self.radial.cutoff:
            raise SpecificationError(
                f"repulsion: expected outer radii within the cutoff of {self.radial.cutoff:g} Å, got {largest:g} Å"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the file; `from_dict` is the inverse."""
        return {
            **super().to_dict(),
            "repulsion": None if self.repulsion is None else self.repulsion.to_dict(),
            "energy_bounds": None if self.energy_bounds is None else list(self.energy_bounds),
            "dispersion": None if self.dispersion is None else self.dispersion.to_dict(),
            **({"layers": [layer.to_dict() for layer in self.layers]} if self.layers else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PotentialSpec:
        """Specification from plain values; unknown and missing fields are named."""
        plain = cls._plain({**dict.fromkeys(_SINCE_VERSION_2), "layers": (), **values})
        if plain["repulsion"] is not None:
            plain["repulsion"] = Repulsion.from_dict(plain["repulsion"])
        if plain["dispersion"] is not None:
            plain["dispersion"] = Dispersion.from_dict(plain["dispersion"])
        if isinstance(plain["layers"], str | Mapping) or not isinstance(plain["layers"], Sequence):
            raise SpecificationError(f"layers: expected a list of mappings, got {plain['layers']!r:.100}")
        _check_count(plain["layers"])
        plain["layers"] = tuple(Layer.from_dict(layer) for layer in plain["layers"])
        return cls(**plain)


def _checked_bounds(bounds: Any) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        raise SpecificationError(
            f"energy_bounds: expected two finite numbers in eV, the lower first, got {bounds!r}"
        )
    return low, high


def check_fields(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    unknown, missing = sorted(set(values) - known), sorted(known - set(values))
    if unknown or missing:
        raise SpecificationError(
            f"{where}: unknown fields {unknown}, missing fields {missing}; the fields are {sorted(known)}"
        )


def checked_integers(field: str, values: Sequence[int] | Any) -> tuple[int, ...]:
    """`values` as a tuple of plain integers, or an error that names the field."""
    try:
        items = list(values)
    except TypeError:
        items = [None]
    if not all(isinstance(item, int | np.integer) and not isinstance(item, bool) for item in items):
        raise SpecificationError(f"{field}: expected a sequence of integers, got {values!r}")
    return tuple(int(item) for item in items)


def _check_count(layers: Sequence[Any]) -> None:
    if len(layers) > MOST_LAYERS:
        raise SpecificationError(f"layers: expected at most {MOST_LAYERS}, got {len(layers)}")
