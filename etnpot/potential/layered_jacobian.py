"""Derivatives of energy, forces and virial of a potential with layers by all its parameters.

For a column c (a position, or a strain) the row is dL/dtheta of L = E', the derivative of E along c. With g = dE/dV^k and
x_bar = dE/dx^k, which are the same for all columns, and their derivatives h_c = dg/dc and x_bar'_c,

    last train    h_c = H dV^L/dc
    messages      w_bar'_c = B^T(h_c, x) + B^T(g, dx/dc),     x_bar'_c = B^T(h_c, w) + B^T(g, dw/dc)               (1)
    train k       g = kept g + d(x_bar . x)/dV,     h_c = kept h_c + H_k dV/dc + (dx/dV)^T x_bar'_c                (2)

H_k being the Hessian of x_bar . x^k at fixed x_bar. Each train gives its rows as in `etnpot.potential.sensitivity`, with
adjoints y of the seed x_bar and dy/dc = (dy/dV) dV/dc + y(x_bar'_c); the radial table those of every pair,

    dL/dT[n, lc] = sum_m w_bar'_c Y phi_n + w_bar d(Y phi_n)/dc.                                             (3)

Columns are the last axis of every array, so that all of this is done for all of them at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etnpot.kernels import jacobian, layers
from etnpot.kernels.lanes import LANES, QUAD
from etnpot.network import Train
from etnpot.potential.layered import LayeredColumns, LayeredPass, by_head
from etnpot.potential.potential import Potential
from etnpot.potential.train_derivatives import DenseCores, TrainDerivatives, differentiate

__all__ = ["LayeredJacobian"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class LayeredJacobian:
    """Rows by all parameters of one potential with layers.

    Parameters
    ----------
    potential : Potential
    """

    def __init__(self, potential: Potential) -> None:
        self._potential, tables = potential, potential.layered_tables
        layouts = (*potential.spec.layer_layouts, potential.spec.layout)
        self._cores = [
            DenseCores(Train.from_flat(layout, tables.weights[place]))
            for layout, place in zip(layouts, tables.places, strict=True)
        ]
        self._start = potential._trains.start
        spec = potential.spec
        # channel of the radial table, and l*l + l + m, of every column of w
        self._channel_w = np.concatenate(
            [
                np.tile(np.arange(first, last), 2 * l + 1)
                for l, (first, last) in enumerate(
                    zip(tables.basis.channel_first[:-1], tables.basis.channel_first[1:], strict=True)
                )
            ]
        ).astype(np.int64)
        dims = 2 * np.arange(spec.l_max + 1) + 1
        self._lm_w = np.repeat(np.arange(dims.sum()), np.repeat(spec.pair_channels, dims))

    def rows(self, way: LayeredPass, columns: LayeredColumns) -> tuple[Floats, Floats]:
        """Derivatives of the energy [1, q], and of its derivatives by all columns [q, 3 n + s].

        Those of the constants by species are zero, and those of the radial table are at the radial and species parameters.
        """
        potential, tables, n = self._potential, way.tables, way.n_atoms
        n_layers, n_columns = len(tables.layers), columns.v[0].shape[2]
        energy_1q, gradient_qc = (
            np.zeros((1, potential.n_parameters)),
            np.zeros((potential.n_parameters, n_columns)),
        )
        u_pc, phi_pn, dphi_pn, y_pm, dy_pmc = self._pair_basis(way)
        energy_table = np.zeros(potential.radial_table.shape)
        table_columns = np.zeros((*potential.radial_table.shape, n_columns))
        found, g_if = self._train(way, n_layers, np.ones((n, 1)))
        h_ifc = found.hessian_iff @ columns.v[n_layers]
        none_ioc = np.zeros((n, 1, n_columns))
        self._add_train(way, n_layers, found, columns.v[n_layers], none_ioc, energy_1q, gradient_qc)
        dwbar_pf = np.zeros_like(way.w_pf)
        for k in range(n_layers - 1, -1, -1):
            layer, x_jo = tables.layers[k], way.x[k]
            xbar_jo, xbar_joc = np.zeros_like(x_jo), np.zeros((*x_jo.shape, n_columns))
            if len(layer.source):
                xbar_jo[:, layer.source] = way._pooled(g_if[:, layer.target])
                xbar_joc[:, layer.source] = way._pooled(h_ifc[:, layer.target])
            else:
                scale_ph, carried_pf = way.scale_ph(k), np.zeros_like(way.w_pf)
                way._gather_adjoint(layer, way.carriers[k], x_jo, g_if, carried_pf, xbar_jo)
                scale_bar = np.zeros((len(way.neighbor), scale_ph.shape[1], n_columns))
                heads = layer.heads
                if scale_ph.shape[1]:
                    dwbar_pf[:, layer.columns] += carried_pf[:, layer.columns] * scale_ph[:, heads]
                else:
                    dwbar_pf += carried_pf
                slot_f = np.zeros(way.w_pf.shape[1], dtype=np.int64)
                slot_f[layer.columns] = np.arange(len(layer.columns))
                layers.message_columns_adjoint(
                    way.first, way.neighbor, way.type_i, layer.term_index, layer.term_value, layer.columns, slot_f,
                    self._channel_w[layer.columns], self._lm_w[layer.columns], heads, way.w_pf, columns.dw_pfc, columns.dw_pfs,
                    scale_ph, columns.attention[k], x_jo, columns.x[k], g_if, h_ifc, dwbar_pf, way.r_pc, u_pc, phi_pn, dphi_pn,
                    y_pm, dy_pmc, xbar_joc, scale_bar, energy_table, table_columns,
                )  # fmt: skip
                if scale_ph.shape[1]:
                    weight_bar = by_head(layer, carried_pf[:, layer.columns] * way.w_pf[:, layer.columns])
                    self._add_attention(way, columns, k, weight_bar, scale_bar, xbar_jo, xbar_joc)
            found, by_train = self._train(way, k, xbar_jo)
            g_if = g_if[:, layer.kept] + by_train
            h_ifc = h_ifc[:, layer.kept] + found.hessian_iff @ columns.v[k]
            h_ifc += found.dx_iaf[:, way.last(k)].transpose(0, 2, 1) @ xbar_joc
            self._add_train(way, k, found, columns.v[k], xbar_joc, energy_1q, gradient_qc)
        source, target = tables.local_source, tables.local_target
        layers.sum_pairs_adjoint(way.first, source, target, g_if, 0, n, dwbar_pf)
        layers.local_columns_adjoint(
            way.first, way.neighbor, way.type_i, source, target, self._channel_w[source], self._lm_w[source],
            np.ascontiguousarray(h_ifc), dwbar_pf, way.r_pc, u_pc, phi_pn, dphi_pn, y_pm, dy_pmc, columns.n_strain,
            energy_table, table_columns,
        )  # fmt: skip
        potential._add_radial_gradient(energy_table, energy_1q[0])
        self._add_table(table_columns, gradient_qc)
        return energy_1q, gradient_qc

    def _add_attention(
        self,
        way: LayeredPass,
        columns: LayeredColumns,
        k: int,
        weight_bar: Floats,
        dweight_bar: Floats,
        xbar_jo: Floats,
        xbar_joc: Floats,
    ) -> None:
        """From dE/d alpha [p, h] and its derivatives [p, h, column] to those by queries and keys: `xbar_jo`, `xbar_joc`.

        s_bar = alpha_bar, or where the weights are normalised alpha (alpha_bar - sum_j alpha alpha_bar), and the product rule.
        """
        layer, n = way.tables.layers[k], way.n_atoms
        score_bar, dscore_bar = weight_bar, dweight_bar
        if way.tables.attention[k] == "normalised":
            weight, dweight = way.scale_ph(k), columns.attention[k]
            rest = weight_bar - way.sum_at_center(weight * weight_bar)[way.center]
            along = dweight * weight_bar[..., None] + weight[..., None] * dweight_bar
            score_bar = weight * rest
            dscore_bar = dweight * rest[..., None] + weight[..., None] * (
                dweight_bar - way.sum_at_center(along)[way.center]
            )
        query, key = way.query_key(k, way.x[k])
        scale = 1.0 / np.sqrt(layer.queries.shape[1])
        dquery = scale * columns.x[k][:, layer.queries][way.center]
        dkey = columns.x[k][:, layer.keys][way.neighbor]
        for places, sites, factor, dfactor, size in (
            (layer.queries, way.center, key, dkey, scale),
            (layer.keys, way.neighbor, query, dquery, 1.0),
        ):
            by_pair = size * score_bar[:, :, None] * factor
            dby_pair = size * (
                dscore_bar[:, :, None] * factor[..., None] + score_bar[:, :, None, None] * dfactor
            )
            rows, drows = np.zeros((n, *by_pair.shape[1:])), np.zeros((n, *dby_pair.shape[1:]))
            np.add.at(rows, sites, by_pair)
            np.add.at(drows, sites, dby_pair)
            xbar_jo[:, places] += rows
            xbar_joc[:, places] += drows

    def _pair_basis(self, way: LayeredPass) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """What `etnpot.kernels.layers.pair_basis` writes."""
        n_pairs, spec = len(way.neighbor), self._potential.spec
        n_lm, n_radial = (spec.l_max + 1) ** 2, spec.radial.size
        arrays = (
            np.empty((n_pairs, 3)), np.empty((n_pairs, n_radial)), np.empty((n_pairs, n_radial)), np.empty((n_pairs, n_lm)),
            np.empty((n_pairs, n_lm, 3)),
        )  # fmt: skip
        layers.pair_basis(way.r_pc, way.tables.basis, *arrays)
        return arrays

    def _train(self, way: LayeredPass, k: int, seed_io: Floats) -> tuple[TrainDerivatives, Floats]:
        """Derivatives of train k with a seed, and of the seed times its last bond by the features."""
        train, n_cores = way.tables.trains[k], len(self._cores[k].abf)
        found = differentiate(
            train, self._cores[k], way._weights(k), way.v[k], way.type_i, seed_io, last_dx=n_cores, first_dy=0,
            with_hessian=True, with_units=True,
        )  # fmt: skip
        rank = int(train.bond_first[1])
        return found, (found.x_ia[:, None, :rank] @ found.dy_iaf[:, :rank])[:, 0]

    def _add_train(
        self,
        way: LayeredPass,
        k: int,
        found: TrainDerivatives,
        dv_ifc: Floats,
        seed_ioc: Floats,
        energy_1q: Floats,
        gradient_qc: Floats,
    ) -> None:
        """Rows of head and cores of train k; `seed_ioc` are the derivatives of its seed."""
        train, n, n_columns = way.tables.trains[k], way.n_atoms, dv_ifc.shape[2]
        padded = -(-n_columns // LANES) * LANES
        dv_ifp = np.zeros((n, dv_ifc.shape[1], padded))
        dv_ifp[:, :, :n_columns] = dv_ifc
        seed_iop = np.zeros((n, seed_ioc.shape[1], padded))
        seed_iop[:, :, :n_columns] = seed_ioc
        at, rank = self._start + way.tables.places[k].start, int(train.bond_first[1])
        last, n_paths = int(train.bond_first[-2]), len(train.path)
        site_is = np.tile(np.arange(n, dtype=np.int64), (n, 1))
        count_i = np.full(n, n, dtype=np.int64)
        n_strain = n_columns - 3 * n
        for here in range(0, n, QUAD):
            atoms = slice(here, here + QUAD)
            dx_iap = found.dx_iaf[atoms, :last] @ dv_ifp[atoms]
            dy_iap = found.dy_iaf[atoms] @ dv_ifp[atoms] + found.y_iao[atoms] @ seed_iop[atoms]
            jacobian.add_cores(
                train, 0, n_paths, way.v[k][atoms], found.x_ia[atoms], found.y_ia[atoms], dv_ifp[atoms], dx_iap, 0,
                np.ascontiguousarray(dy_iap[:, rank:]), rank, site_is[atoms], count_i[atoms], n_strain, at, energy_1q,
                gradient_qc,
            )  # fmt: skip
            q_i = at + way.type_i[atoms] * rank
            np.add.at(energy_1q[0], q_i[:, None] + np.arange(rank), found.y_ia[atoms, :rank])
            np.add.at(gradient_qc, q_i[:, None] + np.arange(rank), dy_iap[:, :rank, :n_columns])

    def _add_table(self, table_columns: Floats, gradient_qc: Floats) -> None:
        """Chain rule from the radial table to radial and species parameters, for all columns."""
        potential, spec = self._potential, self._potential.spec
        first = potential.basis_tables.channel_first
        scaled = table_columns / np.sqrt(spec.neighbor_scale)
        by_species = np.empty((*potential.species_table.shape, scaled.shape[-1]))
        for l in range(spec.l_max + 1):
            block = scaled[:, :, :, first[l] : first[l + 1]]
            by_radial = np.einsum("ijncp,kij->cnkp", block, potential.species_table[l], optimize=True)
            gradient_qc[spec.slices[f"radial.{l}"]] = by_radial.reshape(-1, scaled.shape[-1])
            by_species[l] = np.einsum(
                "ijncp,cnk->kijp", block, potential.arrays[f"radial.{l}"], optimize=True
            )
        start = spec.slices[spec.shared_groups[0]].start
        rows = potential.species_jacobian.T @ by_species.reshape(-1, scaled.shape[-1])
        gradient_qc[start : spec.slices["radial.0"].start] = rows
