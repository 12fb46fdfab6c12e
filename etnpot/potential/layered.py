"""Energies, forces and gradients of a potential with layers (see `etnpot.potential.layers`).

A pass goes through the layers once and keeps what the ways back need: the features V^k, what every layer passes on, and the
weights of attention. Three ways back begin with seeds on the energies of the atoms:

    `derivatives`   dL/dr_p of L = sum_i s_i E_i
    `tangent`       E'_i and all tangents along r'_p = d_p
    `gradient`      dL/dtheta of L = sum_i e_i E_i + s_i E'_i

Every stage z = B(x, y) is linear in each of its arguments, or is a function of scalars (attention), so that with
dL/dz and dL/dz' of its result

    dL/dx = B^T(dL/dz, y) + B^T(dL/dz', y'),     dL/dx' = B^T(dL/dz', y),                                  (1)

and x and y swapped alike. Energies and `derivatives` take the kernels of `etnpot.kernels.messages`, which couple once for each
atom and keep nothing of a pair; `tangent`, `gradient` and `columns` those of `etnpot.kernels.layers` with the features w of
every pair, which are made when they are asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etnpot.conventions import VOIGT
from etnpot.errors import StructureError
from etnpot.kernels import evaluate, layers, messages
from etnpot.kernels.lanes import LANES
from etnpot.potential.layers import LayerTables
from etnpot.potential.tables import BasisTables, TrainTables
from etnpot.threads import run_ranges

if TYPE_CHECKING:
    from etnpot.potential.potential import Potential

__all__ = ["LayeredColumns", "LayeredPass", "LayeredTables", "LayeredTangent", "by_head"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: First arguments of the kernels of messages.
MessageArguments = tuple[
    Integers, Integers, Floats, Integers, Integers, BasisTables, Floats, Integers, Integers, Floats, Floats, Floats
]  # fmt: skip

#: Fewer atoms, or pairs, than this are not worth another thread.
_ATOMS_PER_THREAD, _PAIRS_PER_THREAD = 64, 2048


class LayeredTables(NamedTuple):
    """All tables of a potential with layers.

    ``basis``, ``local_source``, ``local_target``: of pairs and local features; ``local_basis``, ``radial_tables``: the basis
    of the local features alone, and the parts of the radial table that belong to them and to each layer; ``layers``,
    ``trains``: of each layer, and of the train of each and the last one; ``places``: where the parameters of each train are
    in ``weights``, those of all; ``widths``: lengths of V^0 .. V^L; ``attention``: of each layer.
    """

    basis: BasisTables
    local_basis: BasisTables
    radial_tables: tuple[Floats, ...]
    local_source: Integers
    local_target: Integers
    layers: tuple[LayerTables, ...]
    trains: tuple[TrainTables, ...]
    places: tuple[slice, ...]
    weights: Floats
    widths: tuple[int, ...]
    attention: tuple[str, ...]


@dataclass(eq=False)
class _Attention:
    """Weights of the messages of one layer, [p, h]; where normalised their denominators Z as `attend` scales them, [i, h]."""

    weight: Floats
    total_i: Floats | None = None


class LayeredPass:
    """One way through the layers.

    Parameters
    ----------
    potential : Potential
        With layers.
    first, neighbor : int64
        Rows of the pairs of each atom, and their neighbours, all of which are centres themselves.
    r_pc : float64 [p, c], Å
    type_i : int64 [i]
    group_i : int64 [i], optional
        Atoms of one number are pooled together; all by default.
    threads : int, optional
    """

    def __init__(
        self,
        potential: Potential,
        first: Integers,
        neighbor: Integers,
        r_pc: Floats,
        type_i: Integers,
        group_i: Integers | None,
        threads: int | None,
    ) -> None:
        n = self.n_atoms = len(first) - 1
        if len(type_i) != n or (len(neighbor) and int(neighbor.max()) >= n):
            raise StructureError(
                "a potential with layers needs the neighbours of every neighbour: edges that name ghost atoms do not have them"
            )
        self.potential, self.tables, self.threads = potential, potential.layered_tables, threads
        self.first, self.neighbor, self.r_pc, self.type_i = first, neighbor, r_pc, type_i
        self.type_p = type_i[neighbor]
        self.group_i = np.zeros(n, dtype=np.int64) if group_i is None else group_i
        #: V^0 .. V^L, what each layer passes on, and attention.
        self.v = [self._local()]
        self.x: list[Floats] = []
        self.attention: list[_Attention | None] = []
        for k in range(len(self.tables.layers)):
            self._append(k)

    # ------------------------------------------------------------------------------------------------ forward

    def _over_pairs(self, work: Callable[[int, int], None]) -> None:
        run_ranges(work, len(self.neighbor), threads=self.threads, block=LANES, smallest=_PAIRS_PER_THREAD)

    def _over_atoms(self, work: Callable[[int, int], None]) -> None:
        run_ranges(work, self.n_atoms, threads=self.threads, block=LANES, smallest=_ATOMS_PER_THREAD)

    def _weights(self, k: int) -> Floats:
        return self.tables.weights[self.tables.places[k]]

    def last(self, k: int) -> slice:
        """Rows of the last bond of train k."""
        first = self.tables.trains[k].bond_first
        return slice(int(first[-2]), int(first[-1]))

    def _local(self) -> Floats:
        """Local features V^0."""
        tables = self.tables
        v_if = np.empty((self.n_atoms, tables.widths[0]))
        self._over_atoms(
            lambda a, b: evaluate.features(
                self.first, self.r_pc, self.type_i, self.type_p, tables.local_basis, tables.radial_tables[0], a, b, v_if
            )
        )  # fmt: skip
        return v_if

    def _append(self, k: int) -> None:
        """x^k, attention, and V^{k+1} from V^k."""
        layer, train, last = self.tables.layers[k], self.tables.trains[k], self.last(k)
        x_jo = np.empty((self.n_atoms, last.stop - last.start))
        self._over_atoms(
            lambda a, b: layers.last_bonds(self.v[k], self.type_i, train, self._weights(k), a, b, x_jo)
        )
        self.x.append(x_jo)
        self.attention.append(None if self.tables.attention[k] == "none" else self._attend(k))
        v_if = np.zeros((self.n_atoms, self.tables.widths[k + 1]))
        v_if[:, layer.kept] = self.v[k]
        if len(layer.source):
            v_if[:, layer.target] = self._pooled(x_jo[:, layer.source])
        else:
            arguments = self._message(k)
            self._over_atoms(lambda a, b: messages.messages(*arguments, a, b, v_if))
        self.v.append(v_if)

    def _message(self, k: int) -> MessageArguments:
        """First arguments of the kernels of messages."""
        tables, layer = self.tables, self.tables.layers[k]
        return (
            self.first, self.neighbor, self.r_pc, self.type_i, self.type_p, tables.basis, tables.radial_tables[k + 1],
            layer.carried, layer.coupling_index, layer.term_value, self.scale_ph(k), self.x[k],
        )  # fmt: skip

    @property
    def energy_i(self) -> Floats:
        """Learned energy of every atom, eV."""
        return self._energies[0]

    @cached_property
    def _energies(self) -> tuple[Floats, Floats]:
        """E_i and dE_i/dV^L."""
        k = len(self.tables.layers)
        train, v_if = self.tables.trains[k], self.v[k]
        energy_i, g_if = np.empty(self.n_atoms), np.empty_like(v_if)
        self._over_atoms(
            lambda a, b: layers.energies(v_if, self.type_i, train, self._weights(k), a, b, energy_i, g_if)
        )
        return energy_i, g_if

    # ------------------------------------------------------------------------------------ features of pairs

    @cached_property
    def center(self) -> Integers:
        """Centre of every pair, int64 [p]."""
        return np.repeat(np.arange(self.n_atoms, dtype=np.int64), np.diff(self.first))

    @cached_property
    def zi_p(self) -> Integers:
        """Type of the centre of every pair, int64 [p]; ``type_p`` are those of the neighbours."""
        return self.type_i[self.center]

    @cached_property
    def w_pf(self) -> Floats:
        """Features w of every pair, of the local features and all layers, float64 [p, f]."""
        n_columns = len(self.tables.local_source) + sum(len(t.columns) for t in self.tables.layers)
        w_pf = np.empty((len(self.neighbor), n_columns))
        self._over_pairs(
            lambda a, b: layers.pair_features(
                self.r_pc, self.zi_p, self.type_p, self.tables.basis, self.potential.radial_table, a, b, w_pf
            )
        )  # fmt: skip
        return w_pf

    @cached_property
    def carriers(self) -> list[Floats]:
        """w of each layer with its weights of attention; without attention w itself."""
        carriers = []
        for layer, attention in zip(self.tables.layers, self.attention, strict=True):
            carrier = self.w_pf
            if attention is not None:
                carrier = carrier.copy()
                carrier[:, layer.columns] *= attention.weight[:, layer.heads]
            carriers.append(carrier)
        return carriers

    def _gather(self, layer: LayerTables, w_pf: Floats, x_jo: Floats, v_if: Floats) -> None:
        self._over_atoms(
            lambda a, b: layers.gather(
                self.first, self.neighbor, layer.term_index, layer.term_value, w_pf, x_jo, a, b, v_if
            )
        )

    def _gather_adjoint(
        self, layer: LayerTables, w_pf: Floats, x_jo: Floats, g_if: Floats, wbar_pf: Floats, xbar_jo: Floats
    ) -> None:
        def work(start: int, stop: int, xbar: Floats) -> None:
            layers.gather_adjoint(
                self.first, self.neighbor, layer.term_index, layer.term_value, w_pf, x_jo, g_if, start, stop, wbar_pf, xbar
            )  # fmt: skip

        self._to_neighbors(work, xbar_jo)

    def _to_neighbors(self, work: Callable[[int, int, Floats], None], xbar_jo: Floats) -> None:
        """Work on ranges of atoms that adds to any row: of an array for each range, all of which are added to `xbar_jo`."""
        parts: dict[int, Floats] = {}

        def of_range(start: int, stop: int) -> None:
            parts[start] = np.zeros_like(xbar_jo)
            work(start, stop, parts[start])

        self._over_atoms(of_range)
        for start in sorted(parts):
            xbar_jo += parts[start]

    @cached_property
    def _groups(self) -> tuple[Integers, Integers, Integers]:
        """Of every atom the place of its group; atoms in the order of these; how many each has."""
        _, place_i, count_g = np.unique(self.group_i, return_inverse=True, return_counts=True)
        place_i = place_i.reshape(-1)
        return place_i, np.argsort(place_i, kind="stable"), count_g

    def _pooled(self, x_i: Floats) -> Floats:
        """Mean over the group of every atom, [i, ...]; it is its own adjoint."""
        place_i, order_i, count_g = self._groups
        sums = np.add.reduceat(x_i[order_i], np.cumsum(count_g) - count_g, axis=0)
        sums /= count_g.reshape(-1, *(1,) * (x_i.ndim - 1))
        return np.asarray(sums[place_i])

    # ---------------------------------------------------------------------------------------------- attention

    def scale_ph(self, k: int) -> Floats:
        """Weights of attention of layer k, float64 [p, h]; of no heads where there is none."""
        attention = self.attention[k]
        return np.zeros((len(self.neighbor), 0)) if attention is None else attention.weight

    def query_key(self, k: int, x_jo: Floats) -> tuple[Floats, Floats]:
        """q_i and k_j of every pair, [p, h, d], q scaled."""
        layer = self.tables.layers[k]
        scale = 1.0 / np.sqrt(layer.queries.shape[1])
        return scale * x_jo[self.center][:, layer.queries], x_jo[self.neighbor][:, layer.keys]

    def _attend(self, k: int) -> _Attention:
        layer, x_jo, normalised = self.tables.layers[k], self.x[k], self.tables.attention[k] == "normalised"
        n_heads = len(layer.queries)
        weight_ph, total_ih = np.empty((len(self.neighbor), n_heads)), np.empty((self.n_atoms, n_heads))
        envelope_p = self._envelope[0] if normalised else np.zeros(0)
        self._over_atoms(
            lambda a, b: messages.attend(
                self.first, self.neighbor, x_jo, layer.queries, layer.keys, envelope_p, normalised, a, b, weight_ph, total_ih
            )
        )  # fmt: skip
        return _Attention(weight_ph, total_ih if normalised else None)

    def exponentials(self, attention: _Attention) -> Floats:
        """e of every pair, scaled as Z is, float64 [p, h]."""
        assert attention.total_i is not None
        return np.asarray(attention.weight * attention.total_i[self.center])

    @cached_property
    def _envelope(self) -> tuple[Floats, Floats]:
        """(1 - r^2 / r_c^2)^3 of every pair and its derivative by r^2."""
        reach = self.potential.cutoff**2
        rest = np.maximum(1.0 - np.einsum("pc,pc->p", self.r_pc, self.r_pc) / reach, 0.0)
        return rest**3, -3.0 * rest**2 / reach

    @cached_property
    def _log_slope(self) -> Floats:
        """d log f / d r^2 of every pair, zero where f vanishes."""
        envelope, slope = self._envelope
        return np.divide(slope, envelope, out=np.zeros_like(slope), where=envelope > 0)

    def sum_at_center(self, values: Floats) -> Floats:
        """Sums over the pairs of every atom, [p, ...] to [i, ...]."""
        sums = np.zeros((self.n_atoms, *values.shape[1:]))
        np.add.at(sums, self.center, values)
        return sums

    def _add_query_key(self, k: int, x_jo: Floats, score_bar: Floats, xbar_jo: Floats) -> None:
        """dL/dx of queries and keys from dL/ds; `xbar_jo` is added to."""
        layer = self.tables.layers[k]
        query, key = self.query_key(k, x_jo)
        scale = 1.0 / np.sqrt(layer.queries.shape[1])
        n_heads, width = layer.queries.shape
        # no -1 here: there may be no pairs
        at_query = (scale * score_bar[:, :, None] * key).reshape(len(key), n_heads * width)
        at_key = (score_bar[:, :, None] * query).reshape(len(key), n_heads * width)
        rows = np.zeros((self.n_atoms, n_heads * width))
        np.add.at(rows, self.center, at_query)
        xbar_jo[:, layer.queries.ravel()] += rows
        rows[:] = 0.0
        np.add.at(rows, self.neighbor, at_key)
        xbar_jo[:, layer.keys.ravel()] += rows

    # ----------------------------------------------------------------------------------------- forces

    def derivatives(self, seed_i: Floats | None = None) -> Floats:
        """dL/dr_p of L = sum_i s_i E_i, float64 [p, c]; all s are 1 by default."""
        tables = self.tables
        g_if = self._energies[1] if seed_i is None else self._energies[1] * seed_i[:, None]
        slope_pc = np.zeros_like(self.r_pc)
        for k in range(len(tables.layers) - 1, -1, -1):
            layer, xbar_jo = tables.layers[k], np.zeros_like(self.x[k])
            if len(layer.source):
                xbar_jo[:, layer.source] = self._pooled(g_if[:, layer.target])
            else:
                self._message_adjoint(k, g_if, slope_pc, xbar_jo)
            g_if = g_if[:, layer.kept] + self._bonds_adjoint(k, xbar_jo)
        derivative_pc = np.empty_like(self.r_pc)
        self._over_atoms(
            lambda a, b: evaluate.features_adjoint(
                self.first, self.r_pc, self.type_i, self.type_p, tables.local_basis, tables.radial_tables[0], g_if, a, b,
                derivative_pc,
            )
        )  # fmt: skip
        derivative_pc += slope_pc
        return derivative_pc

    def _message_adjoint(self, k: int, g_if: Floats, slope_pc: Floats, xbar_jo: Floats) -> None:
        """From dL/dV^{k+1} by way of messages and their attention: dL/dr is added to `slope_pc`, dL/dx to `xbar_jo`."""
        layer, arguments, weight_ph = self.tables.layers[k], self._message(k), self.scale_ph(k)
        weight_bar_ph = np.empty_like(weight_ph)
        normalised = self.tables.attention[k] == "normalised"
        log_slope_p = self._log_slope if normalised else np.zeros(0)

        def work(start: int, stop: int, xbar: Floats) -> None:
            messages.messages_adjoint(*arguments, g_if, start, stop, slope_pc, xbar, weight_bar_ph)
            if weight_ph.shape[1]:
                messages.attend_adjoint(
                    self.first, self.neighbor, self.r_pc, self.x[k], layer.queries, layer.keys, log_slope_p, normalised,
                    weight_ph, weight_bar_ph, start, stop, slope_pc, xbar,
                )  # fmt: skip

        self._to_neighbors(work, xbar_jo)

    def _bonds_adjoint(self, k: int, seed_io: Floats) -> Floats:
        train, g_if = self.tables.trains[k], np.empty_like(self.v[k])
        self._over_atoms(
            lambda a, b: layers.bonds_adjoint(
                self.v[k], self.type_i, train, self._weights(k), seed_io, a, b, g_if
            )
        )
        return g_if

    # ----------------------------------------------------------------------------------------- parameters

    def columns(self, with_strain: bool) -> LayeredColumns:
        """Derivatives of all features by all positions, and by the strain."""
        return LayeredColumns(self, with_strain)

    def bond_derivatives(self, k: int) -> Floats:
        """dx^k/dV^{k-1} of every atom, float64 [i, o, f]."""
        n_outputs = self.x[k].shape[1]
        rows = []
        for o in range(n_outputs):
            seed_io = np.zeros((self.n_atoms, n_outputs))
            seed_io[:, o] = 1.0
            rows.append(self._bonds_adjoint(k, seed_io))
        return np.stack(rows, axis=1)

    def _attention_columns(self, k: int, attention: _Attention, dx_joc: Floats, n_strain: int) -> Floats:
        """d alpha by all positions and the strain, float64 [p, h, column]."""
        layer = self.tables.layers[k]
        scale = 1.0 / np.sqrt(layer.queries.shape[1])
        query, key = self.query_key(k, self.x[k])
        dquery, dkey = dx_joc[:, layer.queries][self.center], dx_joc[:, layer.keys][self.neighbor]
        dscore = scale * np.einsum("phdc,phd->phc", dquery, key) + np.einsum("phd,phdc->phc", query, dkey)
        if attention.total_i is None:
            return dscore
        dscore += self._log_envelope_columns(n_strain)[:, None]
        dexponential = self.exponentials(attention)[:, :, None] * dscore
        dtotal = self.sum_at_center(dexponential)[self.center]
        found: Floats = (dexponential - attention.weight[:, :, None] * dtotal) / attention.total_i[
            self.center
        ][:, :, None]
        return found

    def _log_envelope_columns(self, n_strain: int) -> Floats:
        """Derivative of log f of every pair, zero where f vanishes, float64 [p, column]."""
        rate_pc = 2.0 * self._log_slope[:, None] * self.r_pc
        pairs, n = np.arange(len(self.neighbor)), self.n_atoms
        found = np.zeros((len(pairs), 3 * n + n_strain))
        for c in range(3):
            found[pairs, 3 * self.neighbor + c] += rate_pc[:, c]
            found[pairs, 3 * self.center + c] -= rate_pc[:, c]
        for s, (a, b) in enumerate(VOIGT[:n_strain]):
            found[:, 3 * n + s] = 0.5 * (rate_pc[:, a] * self.r_pc[:, b] + rate_pc[:, b] * self.r_pc[:, a])
        return found

    def tangent(self, direction_pc: Floats) -> LayeredTangent:
        """Tangents of everything along r'_p = d_p."""
        return LayeredTangent(self, direction_pc)

    def with_last_train(self, weights: Floats) -> LayeredPass:
        """The same features with another head and other cores of the last train."""
        last, all_weights = len(self.tables.layers), self.tables.weights.copy()
        all_weights[self.tables.places[last]] = weights
        twin = copy.copy(self)
        twin.tables = self.tables._replace(weights=all_weights)
        twin.__dict__.pop("_energies", None)  # all else that is kept does not depend on the last train
        return twin


class LayeredColumns:
    """Derivatives of all features by all positions, then by the strain in Voigt order: columns.

    Attributes
    ----------
    dw_pfc : float64 [p, f, c]
        dw/dr_p.
    dw_pfs : float64 [p, f, s]
        dw/d(strain), six or none.
    v : list of float64 [i, f, 3 n + s]
        dV^0 .. dV^L.
    x : list of float64 [i, o, 3 n + s]
        Those of what each layer passes on.
    """

    def __init__(self, base: LayeredPass, with_strain: bool) -> None:
        tables, n = base.tables, base.n_atoms
        self.n_strain = len(VOIGT) if with_strain else 0
        self.dw_pfc = np.empty((*base.w_pf.shape, 3))
        for c in range(3):
            dw_pf, unit_pc = np.empty_like(base.w_pf), np.zeros_like(base.r_pc)
            unit_pc[:, c] = 1.0
            layers.pair_tangent(
                base.r_pc, unit_pc, base.zi_p, base.type_p, tables.basis, base.potential.radial_table, 0, len(unit_pc), dw_pf
            )  # fmt: skip
            self.dw_pfc[:, :, c] = dw_pf
        self.dw_pfs = np.zeros((*base.w_pf.shape, self.n_strain))
        for s, (a, b) in enumerate(VOIGT[: self.n_strain]):
            self.dw_pfs[:, :, s] = 0.5 * (
                base.r_pc[:, b, None] * self.dw_pfc[:, :, a] + base.r_pc[:, a, None] * self.dw_pfc[:, :, b]
            )
        dv_ifc = np.zeros((n, tables.widths[0], 3 * n + self.n_strain))
        layers.sum_columns(
            base.first,
            base.neighbor,
            tables.local_source,
            tables.local_target,
            self.dw_pfc,
            self.dw_pfs,
            n,
            dv_ifc,
        )
        self.v, self.x = [dv_ifc], list[Floats]()
        #: Derivatives of the weights of attention, [p, h, column]; of no heads where there is none.
        self.attention: list[Floats] = []
        for k in range(len(tables.layers)):
            self._append(base, k)

    def _append(self, base: LayeredPass, k: int) -> None:
        layer, n, old = base.tables.layers[k], base.n_atoms, self.v[k]
        dx_joc = base.bond_derivatives(k) @ old
        dv_ifc = np.zeros((n, base.tables.widths[k + 1], old.shape[2]))
        dv_ifc[:, layer.kept] = old
        dscale_phc, attention = np.zeros((len(base.neighbor), 0, old.shape[2])), base.attention[k]
        if len(layer.source):
            dv_ifc[:, layer.target] = base._pooled(dx_joc[:, layer.source])
        else:
            if attention is not None:
                dscale_phc = base._attention_columns(k, attention, dx_joc, self.n_strain)
            layers.gather_columns(
                base.first, base.neighbor, layer.term_index, layer.term_value, base.w_pf, self.dw_pfc, self.dw_pfs,
                base.scale_ph(k), dscale_phc, base.x[k], dx_joc, n, dv_ifc,
            )  # fmt: skip
        self.attention.append(dscale_phc)
        self.x.append(dx_joc)
        self.v.append(dv_ifc)


class LayeredTangent:
    """Tangents along one direction, and the gradient by the parameters that needs them.

    Attributes
    ----------
    energy_i : float64 [i]
        E'_i.
    """

    def __init__(self, base: LayeredPass, direction_pc: Floats) -> None:
        self.base, self.direction_pc = base, direction_pc
        tables = base.tables
        self.w_pf = np.empty_like(base.w_pf)
        base._over_pairs(
            lambda a, b: layers.pair_tangent(
                base.r_pc, direction_pc, base.zi_p, base.type_p, tables.basis, base.potential.radial_table, a, b, self.w_pf
            )
        )  # fmt: skip
        dv_if = np.zeros((base.n_atoms, tables.widths[0]))
        base._over_atoms(
            lambda a, b: layers.sum_pairs(
                base.first, tables.local_source, tables.local_target, self.w_pf, a, b, dv_if
            )
        )
        self.v = [dv_if]
        self.x: list[Floats] = []
        self.carriers: list[Floats] = []
        #: Tangents of the attention of each layer: of s, e, and alpha.
        self.attention: list[tuple[Floats, Floats, Floats] | None] = []
        for k, layer in enumerate(tables.layers):
            dx_jo = self._bonds(k)
            self.x.append(dx_jo)
            dv_if = np.zeros_like(base.v[k + 1])
            dv_if[:, layer.kept] = self.v[k]
            carrier, tangent = self.w_pf, None
            if len(layer.source):
                dv_if[:, layer.target] = base._pooled(dx_jo[:, layer.source])
            else:
                attention = base.attention[k]
                if attention is not None:
                    tangent = self._attend(k, attention)
                    carrier = self.w_pf.copy()
                    weight, dweight = attention.weight[:, layer.heads], tangent[2][:, layer.heads]
                    carrier[:, layer.columns] = (
                        self.w_pf[:, layer.columns] * weight + base.w_pf[:, layer.columns] * dweight
                    )
                base._gather(layer, carrier, base.x[k], dv_if)
                base._gather(layer, base.carriers[k], dx_jo, dv_if)
            self.attention.append(tangent)
            self.carriers.append(carrier)
            self.v.append(dv_if)
        self.energy_i = self._bonds(len(tables.layers))[:, 0]

    def _bonds(self, k: int) -> Floats:
        base, train = self.base, self.base.tables.trains[k]
        last = base.last(k)
        dx_io = np.empty((base.n_atoms, last.stop - last.start))
        base._over_atoms(
            lambda a, b: layers.bonds_tangent(
                base.v[k], self.v[k], base.type_i, train, base._weights(k), a, b, dx_io
            )
        )
        return dx_io

    def _attend(self, k: int, attention: _Attention) -> tuple[Floats, Floats, Floats]:
        base = self.base
        query, key = base.query_key(k, base.x[k])
        dquery, dkey = base.query_key(k, self.x[k])
        dscore = np.einsum("phd,phd->ph", dquery, key) + np.einsum("phd,phd->ph", query, dkey)
        if attention.total_i is None:
            return dscore, dscore, dscore
        exponential, total = base.exponentials(attention), attention.total_i[base.center]
        dexponential = exponential * (dscore + self._log_envelope()[:, None])
        dtotal = base.sum_at_center(dexponential)[base.center]
        return dscore, dexponential, (dexponential - attention.weight * dtotal) / total

    def _log_envelope(self) -> Floats:
        """(log f)' of every pair, zero where f vanishes."""
        base = self.base
        return np.asarray(2.0 * base._log_slope * np.einsum("pc,pc->p", base.r_pc, self.direction_pc))

    def gradient(
        self, e_i: Floats, s_i: Floats | None, table_gradient: Floats, train_gradient: Floats
    ) -> None:
        """dL/dtheta of L = sum_i e_i E_i + s_i E'_i: added to those of the radial table and of all trains; s is 1 for None."""
        base = self.base
        if s_i is None:
            s_i = np.ones(base.n_atoms)
        tables = base.tables
        n_layers = len(tables.layers)
        g_if, h_if = self._bonds_adjoint(n_layers, s_i[:, None], e_i[:, None], train_gradient)
        wbar_pf, dwbar_pf = np.zeros_like(base.w_pf), np.zeros_like(base.w_pf)
        for k in range(n_layers - 1, -1, -1):
            layer, x_jo, dx_jo = tables.layers[k], base.x[k], self.x[k]
            xbar_jo, dxbar_jo = np.zeros_like(x_jo), np.zeros_like(x_jo)
            if len(layer.source):
                dxbar_jo[:, layer.source] = base._pooled(g_if[:, layer.target])
                xbar_jo[:, layer.source] = base._pooled(h_if[:, layer.target])
            else:
                attention, tangent = base.attention[k], self.attention[k]
                bar, dbar = wbar_pf, dwbar_pf
                if attention is not None:
                    bar, dbar = np.zeros_like(wbar_pf), np.zeros_like(wbar_pf)
                base._gather_adjoint(layer, base.carriers[k], x_jo, h_if, bar, xbar_jo)
                base._gather_adjoint(layer, base.carriers[k], dx_jo, g_if, bar, dxbar_jo)
                base._gather_adjoint(layer, self.carriers[k], x_jo, g_if, dbar, xbar_jo)
                if attention is not None and tangent is not None:
                    self._attention_adjoint(
                        k, attention, tangent, bar, dbar, wbar_pf, dwbar_pf, xbar_jo, dxbar_jo
                    )
            g_next, h_next = self._bonds_adjoint(k, dxbar_jo, xbar_jo, train_gradient)
            g_if, h_if = g_if[:, layer.kept] + g_next, h_if[:, layer.kept] + h_next
        for bar_if, bar_pf in ((h_if, wbar_pf), (g_if, dwbar_pf)):
            layers.sum_pairs_adjoint(
                base.first, tables.local_source, tables.local_target, bar_if, 0, base.n_atoms, bar_pf
            )
        layers.table_adjoint(
            base.r_pc, self.direction_pc, base.zi_p, base.type_p, tables.basis, wbar_pf, dwbar_pf, 0, len(base.neighbor),
            table_gradient,
        )  # fmt: skip

    def _bonds_adjoint(
        self, k: int, dseed_io: Floats, seed_io: Floats, train_gradient: Floats
    ) -> tuple[Floats, Floats]:
        """dL/dv' and dL/dv of train k; dL/dA is added to its part of `train_gradient`."""
        base = self.base
        g_if, h_if = np.empty_like(base.v[k]), np.empty_like(base.v[k])
        layers.bonds_adjoint_tangent(
            base.v[k], self.v[k], base.type_i, base.tables.trains[k], base._weights(k), np.ascontiguousarray(dseed_io),
            np.ascontiguousarray(seed_io), 0, base.n_atoms, g_if, h_if, train_gradient[base.tables.places[k]],
        )  # fmt: skip
        return g_if, h_if

    def _attention_adjoint(
        self,
        k: int,
        attention: _Attention,
        tangent: tuple[Floats, Floats, Floats],
        bar: Floats,
        dbar: Floats,
        wbar_pf: Floats,
        dwbar_pf: Floats,
        xbar_jo: Floats,
        dxbar_jo: Floats,
    ) -> None:
        """From dL/d(alpha w) and its tangent's to w, w', x and x' of queries and keys."""
        base, layer = self.base, self.base.tables.layers[k]
        _, dexponential, dweight = tangent
        columns, heads = layer.columns, layer.heads
        bar, dbar = bar[:, columns], dbar[:, columns]
        w, dw = base.w_pf[:, columns], self.w_pf[:, columns]
        wbar_pf[:, columns] += bar * attention.weight[:, heads] + dbar * dweight[:, heads]
        dwbar_pf[:, columns] += dbar * attention.weight[:, heads]
        weight_bar = by_head(layer, bar * w + dbar * dw)
        dweight_bar = by_head(layer, dbar * w)
        score_bar, dscore_bar = weight_bar, dweight_bar
        if attention.total_i is not None:
            e, total = base.exponentials(attention), attention.total_i[base.center]
            dtotal = base.sum_at_center(dexponential)[base.center]
            # alpha = e / D, alpha' = e' / D - e D' / D^2
            e_bar = weight_bar / total - dweight_bar * dtotal / total**2
            de_bar = dweight_bar / total
            total_bar = (
                -weight_bar * e - dweight_bar * dexponential + 2.0 * dweight_bar * e * dtotal / total
            ) / total**2
            dtotal_bar = -dweight_bar * e / total**2
            e_bar = e_bar + base.sum_at_center(total_bar)[base.center]
            de_bar = de_bar + base.sum_at_center(dtotal_bar)[base.center]
            # e = f exp(s), e' = e (s' + (log f)')
            score_bar = e_bar * e + de_bar * dexponential
            dscore_bar = de_bar * e
        base._add_query_key(k, base.x[k], score_bar, xbar_jo)
        base._add_query_key(k, self.x[k], dscore_bar, xbar_jo)
        base._add_query_key(k, base.x[k], dscore_bar, dxbar_jo)


def by_head(layer: LayerTables, values: Floats) -> Floats:
    """Sums over the columns of each head, [p, h]."""
    n_heads = len(layer.queries)
    sums = np.zeros((len(values), n_heads))
    for head in range(n_heads):
        sums[:, head] = values[:, layer.heads == head].sum(axis=1)
    return sums
