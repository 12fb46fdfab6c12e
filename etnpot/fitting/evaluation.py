"""What a potential predicts for labelled configurations, and how far that is from the labels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from etnpot.conventions import voigt
from etnpot.io.structures import Labelled
from etnpot.metrics import Metrics, Prediction, evaluate_errors
from etnpot.potential import Potential
from etnpot.potential.threads import default_threads

__all__ = ["evaluate", "predict"]


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
        Default: see `etnpot.potential.threads`. The result does not depend on it.

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
        stress = None
        if labelled.volume > 0:
            stress = voigt(result.virial) / labelled.volume
        return result.energy, result.forces, stress

    if outer == 1:
        return [work(labelled) for labelled in dataset]
    with ThreadPoolExecutor(outer) as pool:
        return list(pool.map(work, dataset))


def evaluate(potential: Potential, dataset: Sequence[Labelled], *, threads: int | None = None) -> Metrics:
    """Errors of a potential on labelled configurations: see `etnpot.metrics`."""
    return evaluate_errors(dataset, predict(potential, dataset, threads=threads))
