"""`ETN`: a new potential from a few settings, with sensible defaults for all but the species."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from etnpot.basis import REPULSIONS, RadialBasis, Repulsion
from etnpot.dispersion import Dispersion
from etnpot.errors import SpeciesError, SpecificationError
from etnpot.network import SCALAR, Bond, Train, TrainLayout, grow_features
from etnpot.potential.feature_model import symbols_to_numbers
from etnpot.potential.layers import KINDS, MOST_COPIES, MOST_HEADS, MOST_LAYERS, Layer, feature_bonds
from etnpot.potential.potential import Potential
from etnpot.potential.spec import NetworkSpec, PotentialSpec, checked_integers
from etnpot.so3 import Irrep

__all__ = [
    "ETN",
    "add_layers",
    "checked_order",
    "make_layers",
    "make_spec",
    "network_fields",
    "random_network",
    "random_potential",
    "symbols_to_numbers",
]

#: Volume per atom of a dense metal, Å³: for the default neighbour scale.
_VOLUME_PER_ATOM = 16.0

Ranks = int | Mapping[str, int] | Sequence["int | Mapping[str, int]"]


def ETN(
    species: str | int | Sequence[str | int],
    *,
    cutoff: float = 5.0,
    order: int = 3,
    l_max: int = 3,
    radial_size: int = 8,
    channels: int | Sequence[int] | None = None,
    ranks: Ranks = 5,
    seed: int = 0,
    r_min: float | None = None,
    radial_family: str = "chebyshev",
    cutoff_function: str = "power",
    cutoff_power: int = 3,
    species_form: str | None = None,
    species_rank: int | None = None,
    embedding: tuple[int, int] | None = None,
    bond_l_max: int | None = None,
    pseudotensors: bool = False,
    head_rank: int | None = None,
    neighbor_scale: float | None = None,
    repulsion: str = "none",
    dispersion: Mapping[str, Any] | None = None,
    layers: Sequence[Mapping[str, Any] | Layer] = (),
    reference_energies: Mapping[str | int, float] | None = None,
) -> Potential:
    """Make a potential with random parameters.

    Parameters
    ----------
    species : str, int, or sequence of them
        Elements, as symbols or atomic numbers.
    cutoff : float, Å
        Range r_c.
    order : int
        Number of cores d; the body order of the energy is d + 1.
    l_max : int
        Highest angular momentum of the features.
    radial_size : int
        Radial functions N_r.
    channels : int or sequence of int
        Feature channels, for all l or per l. Default ``6, 5, 4, 3, 2, 2, ...``.
    ranks : int, mapping, or sequence of them
        Ranks of the bonds inside the train: one number for every irrep, or ``{"0e": 6, "1o": 4}``; a sequence
        gives bonds 1 .. order-1 one by one. Ranks that a bond cannot use are cut.
    seed : int
        Of the random parameters.
    r_min : float, Å
        Distance below which the radial coordinate saturates. Default 0.7 times the shortest sum of covalent
        radii.
    radial_family : {"chebyshev", "jacobi", "bessel"}
    cutoff_function : {"power", "envelope"}
    cutoff_power : int
        See `etnpot.basis`.
    species_form : {"pair", "embedding"}
        Default "pair" for up to four elements, "embedding" beyond.
    species_rank : int
        K, channels of the species factor. Default: up to 6. There are no more than pairs of elements.
    embedding : (int, int)
        Embedding sizes P, Q. Default: up to 4.
    bond_l_max : int
        Highest angular momentum on the bonds. Default `l_max`.
    pseudotensors : bool
        Carry irreps of unnatural parity on the bonds as well.
    head_rank : int
        Rank of bond 0: how many starting vectors the central species chooses from. Default: the number of
        species, as far as bond 1 can use it.
    neighbor_scale : float
        N of the features. Default: the neighbours within `cutoff` in a dense metal.
    repulsion : {"none", "zbl"}
        A screened nuclear repulsion below 0.8 times the sum of the covalent radii: see `etnpot.basis.repulsion`. Fits
        have it by default, with radii from their data.
    dispersion : mapping
        Long-ranged term that the calculator adds, such as ``{"method": "d3bj", "xc": "pbe"}``: see
        `etnpot.dispersion.Dispersion`.
    layers : sequence of mappings
        Between the features and the train, such as ``{"kind": "message"}`` or ``{"kind": "pool", "carry": {"0e": 4}}``: see
        `make_layers`.
    reference_energies : mapping
        Energy per element in eV, by symbol or number; 0 where not given.

    Returns
    -------
    Potential

    Raises
    ------
    SpecificationError, SpeciesError
        Naming the field.
    """
    spec = make_spec(
        species, cutoff=cutoff, order=order, l_max=l_max, radial_size=radial_size, channels=channels,
        ranks=ranks, r_min=r_min, radial_family=radial_family, cutoff_function=cutoff_function,
        cutoff_power=cutoff_power, species_form=species_form, species_rank=species_rank, embedding=embedding,
        bond_l_max=bond_l_max, pseudotensors=pseudotensors, head_rank=head_rank,
        neighbor_scale=neighbor_scale, repulsion=repulsion, dispersion=dispersion, layers=layers,
    )  # fmt: skip
    rng = np.random.default_rng(_checked_integer("seed", seed, 0, None))
    return random_potential(spec, rng, reference_energies)


def random_potential(
    spec: PotentialSpec, rng: np.random.Generator, reference_energies: Mapping[str | int, float] | None = None
) -> Potential:
    """Random parameters for a specification.

    Radial coefficients are scaled so that every channel has unit variance when the radial functions have; the
    cores follow `Train.random`.
    """
    groups: dict[str, np.ndarray] = {"reference_energies": np.zeros(spec.n_species)}
    if reference_energies is not None and not isinstance(reference_energies, Mapping):
        raise SpecificationError(
            f"reference_energies: expected a mapping such as {{'Cu': -3.7}}, in eV; "
            f"got {reference_energies!r}"
        )
    for key, energy in (reference_energies or {}).items():
        (z,) = symbols_to_numbers(key)
        if z not in spec.species:
            raise SpeciesError(f"reference_energies: {key!r} is not among the species of this potential")
        if not isinstance(energy, int | float | np.number) or not math.isfinite(energy):
            raise SpecificationError(
                f"reference_energies: expected a finite energy in eV for {key!r}, got {energy!r}"
            )
        groups["reference_energies"][spec.species.index(z)] = energy
    return Potential(spec, np.concatenate([groups["reference_energies"], random_network(spec, rng)]))


def random_network(spec: NetworkSpec, rng: np.random.Generator) -> np.ndarray:
    """Random parameters of species factor, radial coefficients and train, as `random_potential` has them, float64 [q]."""
    groups = list(spec.species_factor.initial(rng).values())
    for channels in spec.pair_channels:
        shape = (channels, spec.radial.size, spec.species_rank)
        groups.append(rng.normal(size=shape) / np.sqrt(spec.species_rank))
    groups += [Train.random(layout, rng).flat for layout in spec.layer_layouts]
    groups.append(Train.random(spec.layout, rng).flat)
    return np.concatenate([array.ravel() for array in groups])


def add_layers(potential: Potential, layers: Sequence[Layer], rng: np.random.Generator) -> Potential:
    """The same energies with layers appended, random ones on which the train does not depend yet.

    Parameters
    ----------
    potential : Potential
    layers : sequence of Layer
        After those that there are.
    rng : numpy.random.Generator

    Returns
    -------
    Potential
    """
    old = potential.spec
    # the spec is checked with its layers at once: their trains get the features that they will have
    spec = replace(old, layers=(*old.layers, *layers))
    fresh = random_network(spec, rng)
    start = spec.n_parameters - len(fresh)
    parameters = np.concatenate([np.zeros(start), fresh])
    for name, array in potential.arrays.items():
        if name.startswith("radial."):
            here = parameters[spec.slices[name]].reshape(spec.shapes[name])
            here[: len(array)] = array
        elif name != "head" and not name.startswith("core."):
            parameters[spec.slices[name]] = array.ravel()
    parameters[spec.slices["head"].start :] = grow_features(potential.train, spec.feature).flat
    return Potential(spec, parameters, potential.provenance)


def make_spec(
    species: str | int | Sequence[str | int],
    *,
    repulsion: str = "none",
    distances: Mapping[tuple[int, int], float] | None = None,
    dispersion: Mapping[str, Any] | None = None,
    **settings: Any,
) -> PotentialSpec:
    """The specification that `ETN` makes from its settings; `distances` as in `Repulsion.for_species`."""
    network = network_fields(species, **settings, output=Bond.of({SCALAR: 1}))
    if repulsion not in REPULSIONS:
        raise SpecificationError(
            f"repulsion: expected {' or '.join(map(repr, REPULSIONS))}, got {repulsion!r}"
        )
    cutoff = network["radial"].cutoff
    return PotentialSpec(
        **network,
        repulsion=Repulsion.for_species(network["species"], cutoff, distances)
        if repulsion == "zbl"
        else None,
        dispersion=None if dispersion is None else Dispersion.from_dict(dispersion),
    )


def network_fields(
    species: str | int | Sequence[str | int],
    *,
    cutoff: float,
    order: int,
    l_max: int,
    radial_size: int,
    channels: int | Sequence[int] | None,
    ranks: Ranks,
    r_min: float | None,
    radial_family: str,
    cutoff_function: str,
    cutoff_power: int,
    species_form: str | None,
    species_rank: int | None,
    embedding: tuple[int, int] | None,
    bond_l_max: int | None,
    pseudotensors: bool,
    head_rank: int | None,
    neighbor_scale: float | None,
    output: Bond,
    layers: Sequence[Mapping[str, Any] | Layer] = (),
) -> dict[str, Any]:
    """Fields of a `NetworkSpec` from settings as of `ETN`, with the last bond `output`; ``layers`` if there are any."""
    numbers = symbols_to_numbers(species)
    n_species = len(numbers)
    if not numbers:
        raise SpecificationError("species: at least one element is needed, for example species=['Cu']")
    order = checked_order(order)
    l_max = _checked_integer("l_max", l_max, 0, 12)
    if bond_l_max is not None:
        bond_l_max = _checked_integer("bond_l_max", bond_l_max, 0, 12)
    if channels is None:
        channels = tuple(max(2, 6 - l) for l in range(l_max + 1))
    elif isinstance(channels, int | np.integer):
        channels = (_checked_integer("channels", channels, 1, None),) * (l_max + 1)
    channels = checked_integers("channels", channels)
    if r_min is None:
        r_min = _shortest_bond(numbers)
        if isinstance(cutoff, int | float) and cutoff > 0:
            r_min = min(r_min, 0.5 * cutoff)
    radial = RadialBasis(radial_family, radial_size, cutoff, r_min, cutoff_function, cutoff_power)
    if species_form is None:
        species_form = "pair" if n_species <= 4 and embedding is None else "embedding"
    if species_rank is None:
        species_rank = min(n_species**2, 6)
    else:
        species_rank = min(n_species**2, _checked_integer("species_rank", species_rank, 1, None))
    if species_form == "embedding" and embedding is None:
        embedding = (min(n_species, 4), min(n_species, 4))
    if neighbor_scale is None:
        neighbor_scale = max(1.0, 4.0 / 3.0 * math.pi * radial.cutoff**3 / _VOLUME_PER_ATOM)
    elif isinstance(neighbor_scale, np.number):
        neighbor_scale = float(neighbor_scale)
    made = make_layers(layers, n_species, channels)
    feature = feature_bonds(channels, made)[-1]
    inner = _inner_bonds(ranks, order, l_max if bond_l_max is None else bond_l_max, pseudotensors)
    if head_rank is None:
        head_rank = n_species
    else:
        head_rank = _checked_integer("head_rank", head_rank, 1, None)
    layout = TrainLayout(n_species, feature, (Bond.of({SCALAR: head_rank}), *inner, output)).trimmed()
    return {
        "species": numbers,
        "radial": radial,
        "l_max": l_max,
        "channels": channels,
        "species_form": species_form,
        "species_rank": species_rank,
        "embedding": embedding,
        "bonds": layout.bonds,
        "neighbor_scale": neighbor_scale,
        **({"layers": made} if made else {}),
    }


def make_layers(
    layers: Sequence[Mapping[str, Any] | Layer], n_species: int, channels: Sequence[int]
) -> tuple[Layer, ...]:
    """Layers from settings; `Layer` objects are taken as they are.

    Parameters
    ----------
    layers : sequence of mappings
        With the keys

        kind : "message" or "pool"
        carry : mapping, irreps and copies that the layer passes on; default ``{0e: 4, 1o: 2, 2e: 1}``, of a pool ``{0e: 4}``
        order, ranks, bond_l_max, head_rank : of the layer's train, as for `ETN`; defaults 2, 4, l_max, the number of species
        attention : "none" (default), "bilinear" or "normalised"
        heads, width : of the attention; defaults 1 and 4
    n_species : int
    channels : sequence of int
        Of the local features.

    Returns
    -------
    tuple of Layer

    Raises
    ------
    SpecificationError
    """
    if isinstance(layers, str | Mapping) or not isinstance(layers, Sequence):
        raise SpecificationError(
            f"layers: expected a list of mappings such as {{kind: message}}, got {layers!r:.200}"
        )
    if len(layers) > MOST_LAYERS:
        raise SpecificationError(f"layers: expected at most {MOST_LAYERS}, got {len(layers)}")
    made: list[Layer] = []
    for number, settings in enumerate(layers, start=1):
        try:
            layer = (
                settings if isinstance(settings, Layer) else _make_layer(settings, n_species, channels, made)
            )
        except SpecificationError as error:
            text = str(error).removeprefix("layers, ").removeprefix("layers: ")
            raise SpecificationError(f"layers: layer {number}, {text}") from error
        made.append(layer)
    return tuple(made)


_LAYER_DEFAULTS: dict[str, Any] = {
    "kind": None, "carry": None, "order": 2, "ranks": 4, "bond_l_max": None, "head_rank": None, "attention": "none",
    "heads": None, "width": None,
}  # fmt: skip


def _make_layer(
    settings: Mapping[str, Any], n_species: int, channels: Sequence[int], before: Sequence[Layer]
) -> Layer:
    if not isinstance(settings, Mapping):
        raise SpecificationError(f"expected a mapping such as {{kind: message}}, got {settings!r:.100}")
    for unknown in sorted(set(map(str, settings)) - set(_LAYER_DEFAULTS)):
        raise SpecificationError(f"{unknown}: no such setting; they are {', '.join(sorted(_LAYER_DEFAULTS))}")
    if settings.get("kind") not in KINDS:
        raise SpecificationError(
            f"kind: expected one of {', '.join(KINDS)}, got {settings.get('kind')!r:.100}"
        )
    values = {**_LAYER_DEFAULTS, **settings}
    l_max = len(channels) - 1
    carry = values["carry"]
    if carry is None:
        copies = {0: 4} if values["kind"] == "pool" else {0: 4, 1: 2, 2: 1}
        carry = {str(Irrep.natural(l)): count for l, count in copies.items() if l <= l_max}
    if not isinstance(carry, Mapping) or not carry:
        raise SpecificationError(f"carry: expected a mapping such as {{0e: 4, 1o: 2}}, got {carry!r:.100}")
    heads, width = values["heads"], values["width"]
    if values["attention"] != "none":
        heads, width = 1 if heads is None else heads, 4 if width is None else width
    heads = 0 if heads is None else _checked_integer("heads", heads, 0, MOST_HEADS)
    width = 0 if width is None else _checked_integer("width", width, 0, MOST_HEADS)
    output = Bond.of(dict(carry))
    if any(irrep.l > l_max or rank > MOST_COPIES for irrep, rank in output):
        raise SpecificationError(
            f"carry: expected l up to {l_max}, the l_max of the features, and at most {MOST_COPIES} copies, got {output!s:.100}"
        )
    if heads * width:
        output = output + Bond.of({SCALAR: 2 * heads * width})
    order = checked_order(values["order"])
    limit = values["bond_l_max"]
    limit = l_max if limit is None else _checked_integer("bond_l_max", limit, 0, 12)
    head_rank = values["head_rank"]
    head_rank = n_species if head_rank is None else _checked_integer("head_rank", head_rank, 1, MOST_COPIES)
    bonds = (Bond.of({SCALAR: head_rank}), *_inner_bonds(values["ranks"], order, limit, False), output)
    feature = feature_bonds(channels, before)[-1]
    layout = TrainLayout(n_species, feature, bonds).trimmed()
    return Layer(values["kind"], layout.bonds, values["attention"], heads, width)


def _inner_bonds(ranks: Ranks, order: int, l_max: int, pseudotensors: bool) -> list[Bond]:
    """Bonds 1 .. order-1 before trimming."""
    irreps = [Irrep(l, p) for l in range(l_max + 1) for p in (1, -1)]
    irreps = [irrep for irrep in irreps if irrep.is_natural or pseudotensors]
    if isinstance(ranks, int | np.integer | Mapping):
        per_bond = [ranks] * (order - 1)
    elif isinstance(ranks, str) or not isinstance(ranks, Iterable):
        raise SpecificationError(
            f"ranks: expected an integer, a mapping such as {{'0e': 6, '1o': 4}}, or a sequence of them, "
            f"one per inner bond; got {ranks!r}"
        )
    else:
        per_bond = list(ranks)
    if len(per_bond) != order - 1:
        raise SpecificationError(
            f"ranks: a train of order {order} has {order - 1} inner bonds, got ranks for {len(per_bond)}"
        )
    bonds = []
    for entry in per_bond:
        if isinstance(entry, Mapping):
            bonds.append(Bond.of(dict(entry)))
        else:
            rank = _checked_integer("ranks", entry, 1, None)
            bonds.append(Bond.of(dict.fromkeys(irreps, rank)))
    return bonds


def _shortest_bond(numbers: Sequence[int]) -> float:
    from ase.data import covalent_radii

    return round(1.4 * min(float(covalent_radii[z]) for z in numbers), 3)


def checked_order(order: object) -> int:
    """The number of cores of a train."""
    return _checked_integer("order", order, 1, 12)


def _checked_integer(field: str, value: object, low: int, high: int | None) -> int:
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):  # type: ignore[operator]
        expected = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise SpecificationError(f"{field}: expected an integer {expected}, got {value!r}")
    return int(value)  # type: ignore[call-overload]
