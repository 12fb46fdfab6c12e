"""What a potential predicts for labelled configurations, and how far that is from the labels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from etnpot.conventions import voigt
from etnpot.dispersion import Dispersion
from etnpot.fitting.dataset import DataSet
from etnpot.io.structures import Labelled
from etnpot.metrics import Metrics, Prediction, evaluate_errors
from etnpot.potential import Potential
from etnpot.threads import default_threads

__all__ = ["evaluate", "predict", "without_dispersion"]


def without_dispersion(dataset: DataSet, dispersion: Dispersion | None) -> DataSet:
    """The data set with the dispersion taken off its labels: what the local part of a potential is fitted to."""
    if dispersion is None:
        return dataset
    dispersion.check(dataset.species)
    local = []
    for labelled in dataset:
        energy, forces, virial = dispersion.evaluate(labelled.atoms)
        local.append(
            replace(
                labelled,
                energy=None if labelled.energy is None else labelled.energy - energy,
                forces=None if labelled.forces is None else labelled.forces - forces,
                stress=None
                if labelled.stress is None or labelled.volume <= 0
                else labelled.stress - voigt(virial) / labelled.volume,
            )
        )
    return DataSet(local)


def predict(
    potential: Potential, dataset: Sequence[Labelled], *, threads: int | None = None
) -> list[Prediction]:
    """Energy (eV), forces [n_atoms, 3] (eV/Å) and stress [6] (eV/Å³; None without a volume) of each.

    Parameters
    ----------
    potential : Potential
    dataset : sequence of Labelled
        Its labels play no part.
    threads : int, optional
        Default: see `etnpot.threads`. The result does not depend on it.

    Raises
    ------
    SpeciesError, StructureError
        If a configuration cannot be evaluated.
    """
    n_threads = default_threads() if threads is None else threads
    # many configurations: one thread each; a few large ones: all threads for each
    outer = n_threads if len(dataset) >= n_threads else 1

    def work(labelled: Labelled) -> Prediction:
        atoms = labelled.atoms
        result = potential.evaluate(
            potential.edges(atoms), atoms.numbers, threads=1 if outer > 1 else n_threads
        )
        energy, forces, virial, stress = result.energy, result.forces, result.virial, None
        if potential.spec.dispersion is not None:
            added = potential.spec.dispersion.evaluate(atoms)
            energy, forces, virial = energy + added[0], forces + added[1], virial + added[2]
        if labelled.volume > 0:
            stress = voigt(virial) / labelled.volume
        return energy, forces, stress

    if outer == 1:
        return [work(labelled) for labelled in dataset]
    with ThreadPoolExecutor(outer) as pool:
        return list(pool.map(work, dataset))


def evaluate(potential: Potential, dataset: Sequence[Labelled], *, threads: int | None = None) -> Metrics:
    """Errors of a potential on labelled configurations: see `etnpot.metrics`."""
    return evaluate_errors(dataset, predict(potential, dataset, threads=threads))
