"""Equivariant tensor trains as algebra: layouts, cores, canonical forms, rounding, growth."""

from etnpot.network.layout import SCALAR, Bond, CoreLayout, Path, TrainLayout
from etnpot.network.train import Train

__all__ = ["SCALAR", "Bond", "CoreLayout", "Path", "Train", "TrainLayout"]
