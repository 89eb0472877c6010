"""Least squares once more, on the inputs that the cut net really has."""

from __future__ import annotations

from torch import Tensor

from compressors.repair.base import REPAIRS
from compressors.repair.least_squares import least_squares
from compressors.statistics import LayerStatistics


@REPAIRS.register(
    "sequential",
    "least squares, then layer after layer on the inputs of the net cut so far",
    "He et al. 2017, Channel Pruning for Accelerating Very Deep Neural Networks, whole model; Luo et al. 2017, ThiNet",
)
def sequential(weight: Tensor, statistics: LayerStatistics, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Where it starts: the independent fit. `compressors/sequential.py` goes on from there, on the cut net."""
    return least_squares(weight, statistics, kept)
