"""What every repair takes and gives."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from compressors.registry import Registry
from compressors.statistics import LayerStatistics

LEAST_EXPLAINED = 0.05
"""Smallest share of its variance that a channel is taken to keep: what is all but lost is not blown up from noise."""


class Repair(Protocol):
    """Chooses new weights for a layer that loses input columns."""

    def __call__(self, weight: Tensor, statistics: LayerStatistics, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of the columns kept and what to add to the outputs.

        Args:
            weight: `(blocks, out, columns)` float64.
            statistics: The layer's statistics.
            kept: Indices of the columns that stay, the same in each block; `(kept,)`.

        Returns:
            Weights `(blocks, out, kept)` and intercept `(blocks, out)`, float64.
        """


REPAIRS: Registry[Repair] = Registry("repair")
