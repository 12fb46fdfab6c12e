"""Potentials: specification, parameters, evaluation, files."""

from etnpot.potential.build import ETN
from etnpot.potential.potential import Evaluation, Potential, load
from etnpot.potential.reliability import Assessment, Reliability
from etnpot.potential.sensitivity import Jacobian, Sensitivities
from etnpot.potential.spec import PotentialSpec

__all__ = [
    "ETN",
    "Assessment",
    "Evaluation",
    "Jacobian",
    "Potential",
    "PotentialSpec",
    "Reliability",
    "Sensitivities",
    "load",
]
