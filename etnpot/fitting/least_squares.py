"""What sweeps and polish need of a model and of a fitting problem: energies and tensors are fitted by the same solvers.

Two pairs: `etnpot.fitting.problem.Problem` with `etnpot.potential.Potential`, and `etnpot.fitting.tensor_problem.TensorProblem`
with `etnpot.potential.TensorModel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from etnpot.network import Train

if TYPE_CHECKING:
    from etnpot.fitting.normal_equations import NormalEquations
    from etnpot.potential.spec import NetworkSpec

__all__ = ["LeastSquares", "Model", "ModelT"]

Floats = NDArray[np.float64]


class Model(Protocol):
    """Parameters by name, and a train among them."""

    @property
    def spec(self) -> NetworkSpec:
        """Names and places of the parameters."""

    @property
    def parameters(self) -> Floats:
        """All of them, float64 [q]."""

    @property
    def n_parameters(self) -> int:
        """Their number."""

    @property
    def train(self) -> Train:
        """The tensor train."""

    def with_parameters(self, parameters: Any) -> Any:
        """The same model with other numbers."""

    def with_train(self, train: Train) -> Any:
        """The same features with another train."""


ModelT = TypeVar("ModelT", bound=Model)
_Model = TypeVar("_Model", bound=Model, contravariant=True)


class LeastSquares(Protocol[_Model]):
    """Weighted rows, (reference - prediction), and their derivatives."""

    def residuals(self, potential: _Model, /) -> list[Floats]:
        """The rows, in some number of arrays."""

    def loss(self, potential: _Model, /) -> float:
        """Sum of their squares."""

    def normal_equations(
        self,
        potential: _Model,
        groups: tuple[str, ...] | None = None,
        /,
        *,
        rows: Sequence[Floats] | None = None,
    ) -> NormalEquations:
        """J^T J and J^T r of some consecutive groups of parameters."""

    def triangular_factor(self, potential: _Model, groups: tuple[str, ...] | None = None, /) -> Floats:
        """R of a QR decomposition of [J, r]."""

    def project(self, potential: _Model, rows: Sequence[Floats], /) -> Floats:
        """J^T times given rows, [q]."""

    def gradient(self, potential: _Model, /) -> tuple[float, Floats]:
        """The loss and its gradient."""
