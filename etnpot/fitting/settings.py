"""Every setting of a fit, with its default and its check.

A model is chosen by `size` ("auto", "small", "medium", "large", or a number of parameters) and explicit settings, which win.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from etnpot.basis import REPULSIONS, cold_elements
from etnpot.dispersion import Dispersion
from etnpot.errors import SpecificationError
from etnpot.fitting.prepared import LossWeights
from etnpot.potential import PotentialSpec
from etnpot.potential.build import checked_order, make_layers, make_spec
from etnpot.so3 import Irrep

__all__ = ["SIZES", "FitSettings"]

#: Model settings behind each named size; ranks of the bonds one by one, the last one for all that follow. Channels and ranks
#: fall with l: many angular momenta with few copies of each do better, at equal numbers of parameters, than few with many. In
#: the large one ranks fall along the train as well, and leave room for more channels and a rich product of two: more accurate
#: and cheaper where data are many, worse than equal ranks where they are few.
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "order": 3,
        "l_max": 3,
        "radial_size": 6,
        "channels": [4, 3, 2, 1],
        "ranks": [{"0e": 3, "1o": 2, "2e": 2, "3o": 1}],
        "species_rank": 4,
    },
    "medium": {
        "order": 5,
        "l_max": 4,
        "radial_size": 8,
        "channels": [4, 3, 2, 2, 1],
        "ranks": [{"0e": 3, "1o": 2, "2e": 2, "3o": 2, "4e": 1}],
        "species_rank": 5,
    },
    "large": {
        "order": 5,
        "l_max": 4,
        "radial_size": 8,
        "channels": [8, 6, 6, 4, 4],
        "ranks": [
            {"0e": 6, "1o": 4, "2e": 4, "3o": 3, "4e": 3},
            {"0e": 4, "1o": 2, "2e": 2, "3o": 0},
            {"0e": 4, "1o": 1, "2e": 1, "3o": 0},
            {"0e": 3, "1o": 0},
        ],
        "species_rank": 6,
    },
}

#: Where alloys are far colder than elements, few functions of the species say more of hot alloys: half the number of elements
#: at most, but not fewer than this.
_COLD_SPECIES_RANK = 2
#: With the size "auto" a model is the large one where the training set has so many rows for each of its parameters and atoms so
#: many neighbours in the mean, and its normal equations are no more than so many multiplications; else the medium one.
_LARGE_ROWS, _LARGE_NEIGHBORS, _LARGE_WORK = 10.0, 20.0, 1e12


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Settings of a fit; see docs/fitting for advice.

    Parameters
    ----------
    size : str or int
        "small", "medium", "large", or about how many parameters; "auto" is large where the training set determines that many
        parameters and atoms have many neighbours, as in metals and crystals, else medium.
    cutoff : float, Å
        Range of the potential: a few shells of neighbours.
    order, l_max, radial_size, channels, ranks, species_rank, species_form, embedding, bond_l_max, pseudotensors, head_rank
        As for `etnpot.ETN`; None takes what `size` says.
    layers : list of mappings
        Message passing, attention and pooling between the features and the train, such as ``[{kind: message}, {kind: pool}]``:
        each has a kind and may have carry (irreps and copies that it passes on, such as ``{0e: 4, 1o: 2}``), order, ranks,
        bond_l_max and head_rank of its own train, and of messages attention (none, bilinear or normalised), heads and width;
        see docs/layers.
    radial_family, cutoff_function, cutoff_power
        As for `etnpot.ETN`.
    r_min : float, optional, Å
        Default: a little less than the shortest distance in the training set.
    neighbor_scale : float, optional
        Default: the mean number of neighbours in the training set.
    repulsion : {"zbl", "none"}
        A screened nuclear repulsion below the shortest distance of each pair of elements in the training set, so that no
        configuration collapses.
    alloys : {"auto", "none"}
        Where the alloys of the training set are far colder than its elements: let hot alloys, which are in no data, follow
        those elements, and have species_rank, unless it is given, no larger than half the number of elements, and 2 at least.
    dynamics : {"auto", "none"}
        Of molecules: let them move with the potential of the fit, hotter than the data, and keep it from the holes between the
        data that they fall into; "auto" does where the training set holds molecules with forces and nothing else.
    dispersion : mapping, optional
        Dispersion that the reference data contain and the potential adds again: ``{method: d3bj, xc: pbe}``; methods are
        d3bj, d3zero, d3bjm, d3zerom and d2, further keys cutoff, cn_cutoff (Å) and three_body.
    energy_weight : float, 1/eV²
        Weight w_E of the squared energy errors in the loss.
    forces_weight : float, (Å/eV)²
        Weight w_F of the squared force components.
    stress_weight : float, Å³/eV²
        Weight w_S of the squared stress components, times the volume.
    stress_shift : bool
        Fit along, for each element, a constant isotropic virial per atom that the reference stresses have beyond the strain
        derivative of the reference energies, as plane-wave stresses do (Pulay stress). The potential's stress is always the
        derivative of its energy.
    alpha : float
        The energy term is divided by N_atoms to this power: 1 counts a configuration of N atoms like N of one, 2 weighs the
        energy per atom.
    reference_energies : str or mapping
        "least_squares", "isolated", or eV by element.
    valid_fraction : float
        Part of the training set held out when no validation set is given; 0 for none.
    sweeps : int
        Half-sweeps of local solves before the polish.
    two_site : bool
        Two-site sweeps, which choose the ranks (small models only: the local problem has the product of two cores).
    growth : bool
        Begin with a train of order 2 and add a core at a time (not with `two_site`); otherwise all cores are there from the
        beginning, random.
    enrichment : int
        Random directions added to a bond in each one-site solve.
    rank_tolerance : float
        Relative Frobenius error of the splits.
    polish_steps : int
        Most Levenberg-Marquardt steps over all parameters.
    orthogonal : bool
        Damp and penalise the steps of all parameters in radial functions that are orthogonal on the pairs of the training
        set, in place of the coefficients of Chebyshev polynomials.
    method : {"levenberg-marquardt", "l-bfgs"}
        Of the polish; L-BFGS never forms the Gram matrix, for models of very many parameters.
    ridge : float, optional
        Fixed ridge; from the evidence by default.
    patience : int
        Polish steps without a better validation loss before it stops.
    tolerance : float
        Relative gain of the validation loss that counts as better.
    robust : float, optional
        Configurations whose residual exceeds this many times the median are weighed down (for instance 5).
    time_limit : float, optional, s
        No new step begins after it.
    reliability : bool
        At the end, find out what extrapolation grades and standard deviations need, and keep it in the potential.
    seed : int
        Of the random start, the validation split and the samples.
    threads : int, optional
        Default: ``ETNPOT_NUM_THREADS``, else ``OMP_NUM_THREADS``, else all processors.
    """

    size: str | int = "auto"
    cutoff: float = 5.0
    order: int | None = None
    l_max: int | None = None
    radial_size: int | None = None
    channels: int | Sequence[int] | None = None
    ranks: Any = None
    species_rank: int | None = None
    species_form: str | None = None
    embedding: tuple[int, int] | None = None
    bond_l_max: int | None = None
    pseudotensors: bool = False
    head_rank: int | None = None
    layers: Sequence[Mapping[str, Any]] = ()
    radial_family: str = "chebyshev"
    cutoff_function: str = "power"
    cutoff_power: int = 3
    r_min: float | None = None
    neighbor_scale: float | None = None
    repulsion: str = "zbl"
    alloys: str = "auto"
    dynamics: str = "auto"
    dispersion: Mapping[str, Any] | None = None
    energy_weight: float = 300.0
    forces_weight: float = 1.0
    stress_weight: float = 10.0
    stress_shift: bool = True
    alpha: float = 1.0
    reference_energies: str | Mapping[str, float] = "least_squares"
    valid_fraction: float = 0.1
    sweeps: int = 1
    two_site: bool = False
    growth: bool = True
    enrichment: int = 0
    rank_tolerance: float = 1e-3
    polish_steps: int = 60
    orthogonal: bool = True
    method: str = "levenberg-marquardt"
    ridge: float | None = None
    patience: int = 10
    tolerance: float = 2e-3
    robust: float | None = None
    time_limit: float | None = None
    reliability: bool = True
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, str):
            if self.size not in ("auto", *SIZES):
                names = ", ".join(map(repr, ("auto", *SIZES)))
                raise SpecificationError(
                    f"size: expected {names} or a number of parameters, got {self.size!r}"
                )
        elif isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 50:
            raise SpecificationError(f"size: expected a name or at least 50 parameters, got {self.size!r}")
        for name in ("sweeps", "polish_steps", "enrichment", "patience", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise SpecificationError(f"{name}: expected an integer that is not negative, got {value!r}")
        for name, low, high in (
            ("valid_fraction", 0.0, 0.9),
            ("rank_tolerance", 0.0, 0.999),
            ("tolerance", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value <= high:
                raise SpecificationError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
        for name in ("ridge", "robust", "time_limit"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or not 0 <= value < math.inf):
                raise SpecificationError(f"{name}: expected a number that is not negative, got {value!r}")
        if self.method not in ("levenberg-marquardt", "l-bfgs"):
            raise SpecificationError(
                f"method: expected 'levenberg-marquardt' or 'l-bfgs', got {self.method!r}"
            )
        for name in ("alloys", "dynamics"):
            if getattr(self, name) not in ("auto", "none"):
                raise SpecificationError(f"{name}: expected 'auto' or 'none', got {getattr(self, name)!r}")
        if self.dispersion is not None:
            Dispersion.from_dict(self.dispersion)
        if self.repulsion not in REPULSIONS:
            raise SpecificationError(
                f"repulsion: expected {' or '.join(map(repr, REPULSIONS))}, got {self.repulsion!r}"
            )
        for name in ("pseudotensors", "stress_shift", "two_site", "growth", "orthogonal"):
            if not isinstance(getattr(self, name), bool):
                raise SpecificationError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        for name in ("cutoff", "r_min", "neighbor_scale"):  # their ranges are checked by the model
            value = getattr(self, name)
            if value is None and name != "cutoff":
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float | np.number)
                or not math.isfinite(value)
            ):
                raise SpecificationError(f"{name}: expected a finite number, got {value!r}")
        threads = self.threads
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1
        ):
            raise SpecificationError(f"threads: expected a positive integer, got {self.threads!r}")
        _ = self.loss_weights
        _ = make_layers(self.layers, 1, (1,) * 13)
        if self.layers and self.polish_steps < 2:
            raise SpecificationError(
                f"layers: the polish trains them, polish_steps must be at least 2, got {self.polish_steps}"
            )

    @property
    def loss_weights(self) -> LossWeights:
        """Weights of the loss."""
        return LossWeights(self.energy_weight, self.forces_weight, self.stress_weight, self.alpha)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitSettings:
        """Settings from plain values; an unknown one is an error that lists the known ones."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SpecificationError(
                f"unknown settings {unknown}; the settings are {', '.join(sorted(known))}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def spec(
        self,
        species: Sequence[int],
        *,
        r_min: float,
        neighbor_scale: float,
        distances: Mapping[tuple[int, int], float] | None = None,
        n_rows: int = 0,
    ) -> PotentialSpec:
        """The model for given elements; `r_min` and `neighbor_scale` are used where the settings leave them open.

        `distances` are the shortest ones of the data (Å), from which the repulsion takes its radii; the size "auto" looks at
        `neighbor_scale`, the mean number of neighbours, and at `n_rows`, the number of labels of the data.
        """
        cold = self.alloys == "auto" and bool(cold_elements(sorted(species), self.cutoff, distances))
        data = {"r_min": r_min, "neighbor_scale": neighbor_scale, "distances": distances, "cold": cold}
        if self.size == "auto":
            large = self._spec(species, SIZES["large"], data)
            n = large.n_parameters
            determined = n_rows >= _LARGE_ROWS * n and n_rows * n**2 <= _LARGE_WORK
            crowded = neighbor_scale >= _LARGE_NEIGHBORS
            return large if determined and crowded else self._spec(species, SIZES["medium"], data)
        if isinstance(self.size, str):
            return self._spec(species, SIZES[self.size], data)
        # between and beyond the named sizes: theirs with more or fewer copies of every irrep
        best = None
        for base in SIZES.values():
            for more_ranks in range(-2, 16):
                for more_channels in (more_ranks - 1, more_ranks, more_ranks + 1):
                    ranks = [
                        {irrep: max(1, rank + more_ranks) if rank else 0 for irrep, rank in bond.items()}
                        for bond in base["ranks"]
                    ]
                    channels = [max(1, count + more_channels) for count in base["channels"]]
                    spec = self._spec(species, {**base, "ranks": ranks, "channels": channels}, data)
                    distance = abs(math.log(spec.n_parameters / self.size))
                    if best is None or distance < best[0]:
                        best = distance, spec
                if spec.n_parameters > 2 * self.size:
                    break
        assert best is not None
        return best[1]

    def _spec(
        self, species: Sequence[int], preset: Mapping[str, Any], data: Mapping[str, Any]
    ) -> PotentialSpec:
        def chosen(name: str) -> Any:
            value = getattr(self, name)
            return preset.get(name) if value is None else value

        l_max = chosen("l_max")
        channels, ranks = chosen("channels"), chosen("ranks")
        if self.channels is None:
            channels = [channels[min(l, len(channels) - 1)] for l in range(l_max + 1)]
        order = checked_order(chosen("order"))
        if self.ranks is None:  # bonds beyond those of the size are as its last one
            last = len(ranks) - 1
            ranks = [self._bond_ranks(ranks[min(k, last)], l_max) for k in range(order - 1)]
        species_rank = chosen("species_rank")
        if self.species_rank is None and data["cold"]:
            species_rank = min(species_rank, max(_COLD_SPECIES_RANK, len(species) // 2))
        return make_spec(
            list(species), cutoff=self.cutoff, order=order, l_max=l_max, radial_size=chosen("radial_size"),
            channels=channels, ranks=ranks, r_min=data["r_min"] if self.r_min is None else self.r_min,
            radial_family=self.radial_family, cutoff_function=self.cutoff_function, cutoff_power=self.cutoff_power,
            species_form=self.species_form, species_rank=species_rank, embedding=self.embedding,
            bond_l_max=self.bond_l_max, pseudotensors=self.pseudotensors, head_rank=self.head_rank,
            neighbor_scale=data["neighbor_scale"] if self.neighbor_scale is None else self.neighbor_scale,
            repulsion=self.repulsion, distances=data["distances"], dispersion=self.dispersion, layers=self.layers,
        )  # fmt: skip

    def _bond_ranks(self, preset: Mapping[str, int], l_max: int) -> dict[str, int]:
        """The ranks of one bond of a size, by l, for the irreps that the bonds of these settings hold."""
        by_l = list(preset.values())
        largest = l_max if self.bond_l_max is None else self.bond_l_max
        parities = (1, -1) if self.pseudotensors else (0,)
        return {
            str(Irrep(l, p or (-1) ** l)): by_l[min(l, len(by_l) - 1)]
            for l in range(largest + 1)
            for p in parities
        }


def with_overrides(settings: FitSettings | None, overrides: Mapping[str, Any]) -> FitSettings:
    """`settings` (or the defaults) with some replaced; unknown names are an error."""
    if settings is None:
        return FitSettings.from_dict(overrides)
    FitSettings.from_dict({**settings.to_dict(), **overrides})
    return replace(settings, **overrides)
