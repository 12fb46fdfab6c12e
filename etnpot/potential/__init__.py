"""Potentials: specification, parameters, evaluation, files."""

from etnpot.potential.build import ETN
from etnpot.potential.potential import Evaluation, Potential, load
from etnpot.potential.sensitivity import Jacobian, Sensitivities
from etnpot.potential.spec import PotentialSpec

__all__ = ["ETN", "Evaluation", "Jacobian", "Potential", "PotentialSpec", "Sensitivities", "load"]
