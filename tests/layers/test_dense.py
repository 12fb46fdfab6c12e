"""Energies of potentials with layers against the formulas written out: scipy's harmonics, dense couplings, dense trains.

Nothing here knows tables, columns or paths of the library: features are a list of copies for each l, in the order that
`etnpot.potential.layers` and docs/layers.md give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.special import sph_harm_y

from etnpot.network import SCALAR, Bond, Train, TrainLayout
from etnpot.network.dense import evaluate_dense
from etnpot.potential import Potential
from etnpot.so3 import Irrep, clebsch_gordan

#: [i][l] -> list of copies, each an array of 2 l + 1 components.
Features = list[list[list[np.ndarray]]]


def harmonics(r_c: np.ndarray, l: int) -> np.ndarray:
    """Real harmonics without the sign of Condon and Shortley, m = -l .. l."""
    theta, phi = np.arctan2(np.hypot(r_c[0], r_c[1]), r_c[2]), np.arctan2(r_c[1], r_c[0])
    found = np.empty(2 * l + 1)
    for m in range(l + 1):
        value = (-1.0) ** m * sph_harm_y(l, m, theta, phi) * (math.sqrt(2) if m else 1.0)
        found[l - m], found[l + m] = value.imag, value.real
    return found


def flat(copies: list[list[np.ndarray]]) -> np.ndarray:
    """A vector in the order of a `Bond`: irreps ascending, components outside, copies inside."""
    return np.concatenate([np.array(of_l).T.ravel() for of_l in copies if of_l])


def unflat(bond: Bond, vector: np.ndarray) -> dict[Irrep, np.ndarray]:
    """Copies [a, m] of each irrep."""
    return {irrep: vector[bond.slice(irrep)].reshape(irrep.dim, rank).T for irrep, rank in bond}


def train_of(potential: Potential, prefix: str, layout: TrainLayout) -> Train:
    names = [f"{prefix}head", *(f"{prefix}core.{k}" for k in range(1, layout.order + 1))]
    return Train.from_flat(layout, np.concatenate([potential.arrays[name].ravel() for name in names]))


def dense_energies(potential: Potential, atoms: Atoms, group_i: np.ndarray | None = None) -> np.ndarray:
    """Energies of atoms by eqs. (1) to (4) of `etnpot.potential.layers`."""
    spec = potential.spec
    n, ls = len(atoms), range(spec.l_max + 1)
    z_i = [spec.species.index(int(z)) for z in atoms.numbers]
    pairs = list(zip(*neighbor_list("ijD", atoms, spec.cutoff), strict=True))

    def radial(l: int, channel: int, r_c: np.ndarray, i: int, j: int) -> float:
        phi_n = spec.radial.evaluate(np.array([np.linalg.norm(r_c)]))[0][0]
        b_nk, s_k = potential.arrays[f"radial.{l}"][channel], potential.species_table[l][:, z_i[i], z_i[j]]
        return float(phi_n @ b_nk @ s_k) / math.sqrt(spec.neighbor_scale)

    v: Features = [[[np.zeros(2 * l + 1) for _ in range(spec.channels[l])] for l in ls] for _ in range(n)]
    for i, j, r_c in pairs:
        for l in ls:
            for c in range(spec.channels[l]):
                v[i][l][c] = v[i][l][c] + radial(l, c, r_c, i, j) * harmonics(r_c, l)
    for of_atom in v:
        of_atom[0].insert(0, np.ones(1))

    used = 0  # channels of messages that earlier layers took, of every l
    for k, (layer, layout) in enumerate(zip(spec.layers, spec.layer_layouts, strict=True), start=1):
        train = train_of(potential, f"layer.{k}.", layout)
        x = [unflat(layer.bonds[-1], evaluate_dense(train, flat(v[i]))[z_i[i]]) for i in range(n)]
        n_scalars = layer.carried.rank(SCALAR)
        if layer.kind == "pool":
            groups = np.zeros(n, dtype=int) if group_i is None else group_i
            for i in range(n):
                members = np.flatnonzero(groups == groups[i])
                for irrep, rank in layer.carried:
                    v[i][irrep.l] += [
                        sum(x[j][irrep][a] for j in members) / len(members) for a in range(rank)
                    ]
            continue
        query_key = [x[i][SCALAR][n_scalars:, 0].reshape(2, layer.heads, layer.width) if layer.heads else None
                     for i in range(n)]  # fmt: skip
        weights = attention(layer.attention, query_key, pairs, spec.cutoff)
        new: list[dict[tuple[int, int, int], Any]] = [{} for _ in range(n)]
        for (i, j, r_c), alpha_h in zip(pairs, weights, strict=True):
            for l in ls:
                copy = 0
                for irrep, rank in layer.carried:
                    for a in range(rank):
                        channel = spec.channels[l] + used + copy
                        w_m = radial(l, channel, r_c, i, j) * harmonics(r_c, l)
                        scale = 1.0 if not layer.heads else alpha_h[a % layer.heads]
                        for out in ls:
                            if abs(l - irrep.l) <= out <= l + irrep.l and (l + irrep.l + out) % 2 == 0:
                                c_abc = clebsch_gordan(l, irrep.l, out)
                                coupled = scale * np.einsum("abc,a,b->c", c_abc, w_m, x[j][irrep][a])
                                key = (out, copy, l)
                                new[i][key] = new[i].get(key, 0.0) + coupled
                        copy += 1
        # of each l' the copies come path by path: l outside, the copies that are passed on inside
        keys = [
            (out, copy, l)
            for l in ls
            for copy, irrep in enumerate(irrep for irrep, rank in layer.carried for _ in range(rank))
            for out in ls
            if abs(l - irrep.l) <= out <= l + irrep.l and (l + irrep.l + out) % 2 == 0
        ]
        for i in range(n):
            for out, copy, l in keys:
                v[i][out].append(np.asarray(new[i].get((out, copy, l), np.zeros(2 * out + 1))))
        used += sum(rank for _, rank in layer.carried)

    train = train_of(potential, "", spec.layout)
    energy_z = potential.arrays["reference_energies"]
    return np.array([energy_z[z_i[i]] + evaluate_dense(train, flat(v[i]))[z_i[i], 0] for i in range(n)])


def attention(kind: str, query_key: list[Any], pairs: list[Any], cutoff: float) -> list[np.ndarray]:
    """alpha_ij of every head, for every pair."""
    if kind == "none":
        return [np.ones(1)] * len(pairs)
    scores = []
    for i, j, _ in pairs:
        query, key = query_key[i][0], query_key[j][1]
        scores.append((query * key).sum(axis=1) / math.sqrt(query.shape[1]))
    if kind == "bilinear":
        return scores
    e = [
        (1 - r_c @ r_c / cutoff**2) ** 3 * np.exp(s_h) for (_, _, r_c), s_h in zip(pairs, scores, strict=True)
    ]
    total = [np.ones(query_key[0].shape[1]) for _ in query_key]
    for (i, _, _), e_h in zip(pairs, e, strict=True):
        total[i] = total[i] + e_h
    return [e_h / total[i] for (i, _, _), e_h in zip(pairs, e, strict=True)]


def energies(potential: Potential, atoms: Atoms) -> np.ndarray:
    return potential.evaluate(potential.edges(atoms), atoms.numbers).energy_i


def test_molecule(potential: Potential, molecule: Atoms) -> None:
    expected = dense_energies(potential, molecule)
    np.testing.assert_allclose(energies(potential, molecule), expected, rtol=0, atol=1e-10)
    assert np.ptp(expected) > 0.1  # there is something to compare


def test_layers_do_something(potential: Potential, molecule: Atoms) -> None:
    """Each kind of layer changes the energies: without what it appends they are other ones."""
    silent = {name: 0 * array for name, array in potential.arrays.items() if name.startswith("layer.1.")}
    assert (
        np.abs(energies(potential.with_arrays(**silent), molecule) - energies(potential, molecule)).max()
        > 1e-3
    )


@pytest.mark.slow
def test_cell_smaller_than_the_cutoff(potential: Potential, crystal: Atoms) -> None:
    small = crystal[:2]
    small.set_cell(np.diag([2.6, 2.9, 3.3]) + 0.2)
    small.positions[1] = small.positions[0] + [1.2, 1.3, 1.4]
    np.testing.assert_allclose(
        energies(potential, small), dense_energies(potential, small), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("kind", ["pool", "deep"])
def test_groups(kind: str, molecule: Atoms, make_layered: Callable[..., Potential]) -> None:
    potential = make_layered(kind)
    group_i = np.array([7, -2, 7, 7, -2])
    molecule.arrays["pool_group"] = group_i
    expected = dense_energies(potential, molecule, group_i)
    np.testing.assert_allclose(energies(potential, molecule), expected, rtol=0, atol=1e-10)
    assert np.abs(expected - dense_energies(potential, molecule)).max() > 1e-3


@pytest.mark.slow
def test_one_species_of_scalars_to_four_species_of_l_3(
    make_layered: Callable[..., Potential], crystal: Atoms
) -> None:
    import etnpot

    one = etnpot.ETN(
        "Cu", cutoff=3.5, order=1, l_max=0, channels=2, radial_size=3,
        layers=[dict(kind="message", order=1, carry={"0e": 2})],
    )  # fmt: skip
    copper = crystal.copy()
    copper.numbers[:] = 29
    np.testing.assert_allclose(energies(one, copper), dense_energies(one, copper), rtol=0, atol=1e-10)
    four = etnpot.ETN(
        ["Al", "Ni", "Cu", "Zr"], cutoff=3.5, order=2, l_max=3, channels=1, ranks=1, radial_size=2,
        radial_family="bessel", species_form="embedding", head_rank=2,
        layers=[
            dict(kind="message", carry={"2e": 1, "3o": 1, "0e": 2}, ranks=1, attention="normalised", heads=1, width=1)
        ],
    )  # fmt: skip
    mixed = crystal[:3]
    mixed.numbers[:] = [13, 40, 29]
    np.testing.assert_allclose(energies(four, mixed), dense_energies(four, mixed), rtol=0, atol=1e-10)
