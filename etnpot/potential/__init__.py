"""Potentials: specification, parameters, evaluation, files."""

from etnpot.potential.build import ETN
from etnpot.potential.potential import Evaluation, Potential, load
from etnpot.potential.reliability import Assessment, Reliability
from etnpot.potential.sensitivity import Jacobian, Sensitivities
from etnpot.potential.spec import PotentialSpec
from etnpot.potential.tensor import TensorEvaluation, TensorModel, load_tensor, make_tensor_model
from etnpot.potential.tensor_spec import Quantity, TensorSpec

__all__ = [
    "ETN",
    "Assessment",
    "Evaluation",
    "Jacobian",
    "Potential",
    "PotentialSpec",
    "Quantity",
    "Reliability",
    "Sensitivities",
    "TensorEvaluation",
    "TensorModel",
    "TensorSpec",
    "load",
    "load_tensor",
    "make_tensor_model",
]
