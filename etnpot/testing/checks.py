"""Every physics check in one call.

`check_all` runs each check wherever it applies and collects the outcomes in a `Report`:

=========================== ===========================================================================
check                       applies to
=========================== ===========================================================================
`check_forces`              every structure
`check_stress`              three periodic directions, calculator with stress
`check_rotation`            every structure
`check_inversion`           every structure
`check_translation`         every structure
`check_permutation`         two atoms or more
`check_wrapping`            at least one periodic direction
`check_supercell`           at least one periodic direction
`check_net_force`           every structure
`check_cutoff_smoothness`   cutoff known: pairs of species as dimers, structures with two atoms or more
`check_separation`          cutoff known: two molecules or more, neighbours in the list
`check_isolated_atom`       every species
=========================== ===========================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, pairwise
from typing import Any, Literal

import numpy as np
from ase import Atoms

from etnpot.errors import SpecificationError
from etnpot.testing.derivatives import check_forces, check_stress
from etnpot.testing.evaluation import describe, implements
from etnpot.testing.locality import check_cutoff_smoothness, check_isolated_atom, check_separation
from etnpot.testing.results import CheckResult, Report, settle
from etnpot.testing.structures import random_molecule, random_structure
from etnpot.testing.symmetries import (
    check_inversion,
    check_net_force,
    check_permutation,
    check_rotation,
    check_supercell,
    check_translation,
    check_wrapping,
)

__all__ = ["check_all"]

logger = logging.getLogger(__name__)


def _default_structures(species: Sequence[str], seed: int) -> list[Atoms]:
    """A rattled triclinic crystal and two molecules that hold the species."""
    rng = np.random.default_rng(seed)
    n_atoms = max(6, len(species))
    return [
        random_structure(species, n_atoms, rng),
        random_molecule(species, n_atoms, rng),
        random_molecule(species, 4, rng),
    ]


def check_all(
    calculator: Any,
    structures: Sequence[Atoms] | None = None,
    *,
    species: Sequence[str] | None = None,
    cutoff: float | None = None,
    components: Literal["all"] | int = "all",
    derivative_rtol: float = 1e-7,
    symmetry_rtol: float = 1e-10,
    smoothness_rtol: float = 1e-6,
    continuous_derivatives: int = 2,
    max_dimers: int = 10,
    grouped: bool = False,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> Report:
    """Run every check that applies and report on all of them, failures included.

    Parameters
    ----------
    calculator : ASE calculator
        The calculator under test.
    structures : sequence of Atoms, optional
        Structures to test on; not changed. By default a random triclinic crystal and two random molecules of
        ``species``.
    species : sequence of str, optional
        Chemical symbols; by default those of ``structures``. One of the two must be given.
    cutoff : float, optional
        Range of the interaction [Å]; without it the smoothness and separation checks are skipped.
    components : "all" or int
        Force components that are differentiated, per structure.
    derivative_rtol, symmetry_rtol, smoothness_rtol : float
        Relative tolerances of the finite differences, of everything exact, and of the jumps at the cutoff.
    continuous_derivatives : {0, 1, 2}
        Smoothness demanded at the cutoff.
    max_dimers : int
        Pairs of species tested as dimers; a random subset if there are more.
    grouped : bool
        As for `check_separation`: what is separated are groups of atoms that are pooled apart.
    seed : int
        Draws everything random.
    raise_on_failure : bool
        Raise `PhysicsCheckError`, whose text holds the whole report, when a check fails.

    Returns
    -------
    Report
        A calculator that raises has failed that check; the exception is named in the report.
    """
    if structures is None:
        if species is None:
            raise SpecificationError("check_all needs structures or species, got neither; give one of them")
        structures = _default_structures(species, seed)
    elif len(structures) == 0:
        raise SpecificationError("check_all needs at least one structure, got an empty sequence")
    if species is None:
        species = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})

    results: list[CheckResult] = []
    skipped: list[tuple[str, str, str]] = []

    def run(subject: str, check: Callable[..., CheckResult], *args: Any, **options: Any) -> None:
        try:
            results.append(check(*args, raise_on_failure=False, **options))
        except Exception as error:
            logger.debug("%s on %s raised", check.__name__, subject, exc_info=True)
            results.append(CheckResult(check.__name__, subject, (), error=f"{type(error).__name__}: {error}"))
            # ASE's cache may hold numbers of the failed calculation; the next check must not read them
            getattr(calculator, "reset", lambda: None)()

    exact = {"rtol": symmetry_rtol}
    smooth = {"rtol": smoothness_rtol, "continuous_derivatives": continuous_derivatives}
    for atoms in structures:
        name = describe(atoms)
        run(name, check_forces, atoms, calculator, components=components, rtol=derivative_rtol, seed=seed)
        if not atoms.pbc.all():
            skipped.append(("check_stress", name, "not periodic in three dimensions"))
        elif not implements(calculator, "stress"):
            skipped.append(("check_stress", name, "the calculator has no stress"))
        else:
            run(name, check_stress, atoms, calculator, rtol=derivative_rtol, seed=seed)
        run(name, check_rotation, atoms, calculator, seed=seed, **exact)
        run(name, check_inversion, atoms, calculator, **exact)
        run(name, check_translation, atoms, calculator, seed=seed, **exact)
        if len(atoms) > 1:
            run(name, check_permutation, atoms, calculator, seed=seed, **exact)
        else:
            skipped.append(("check_permutation", name, "fewer than two atoms"))
        if atoms.pbc.any():
            run(name, check_wrapping, atoms, calculator, seed=seed, **exact)
            run(name, check_supercell, atoms, calculator, **exact)
        else:
            skipped += [(check, name, "not periodic") for check in ("check_wrapping", "check_supercell")]
        run(name, check_net_force, atoms, calculator, **exact)
        if cutoff is None:
            skipped.append(("check_cutoff_smoothness", name, "no cutoff given"))
        elif len(atoms) < 2:
            skipped.append(("check_cutoff_smoothness", name, "fewer than two atoms"))
        else:
            run(name, check_cutoff_smoothness, atoms, calculator, cutoff=cutoff, **smooth)

    dimers = list(combinations_with_replacement(species, 2))
    if cutoff is None:
        skipped.append(("check_cutoff_smoothness", "dimers", "no cutoff given"))
    else:
        chosen = np.random.default_rng(seed).permutation(len(dimers))[:max_dimers]
        for k in sorted(chosen):
            name = f"dimer {'-'.join(dimers[k])}"
            run(name, check_cutoff_smoothness, dimers[k], calculator, cutoff, seed=seed, **smooth)
        if len(dimers) > max_dimers:
            reason = f"only {max_dimers} of {len(dimers)} pairs of species"
            skipped.append(("check_cutoff_smoothness", "other dimers", reason))
    molecules = [atoms for atoms in structures if not atoms.pbc.any()]
    if cutoff is None:
        skipped.append(("check_separation", "molecules", "no cutoff given"))
    elif len(molecules) < 2:
        skipped.append(("check_separation", "molecules", "fewer than two molecules"))
    else:
        for first, second in pairwise(molecules):
            name = f"{first.get_chemical_formula()} + {second.get_chemical_formula()}"
            run(
                name, check_separation, first, second, calculator, cutoff, grouped=grouped, seed=seed, **exact
            )
    run(", ".join(species), check_isolated_atom, species, calculator, cutoff, seed=seed, **exact)
    report = Report(type(calculator).__name__, tuple(results), tuple(skipped))
    return settle(report, raise_on_failure)
