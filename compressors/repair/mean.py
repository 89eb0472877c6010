"""The mean of what went is added to the outputs."""

from __future__ import annotations

from torch import Tensor

from compressors.repair.base import REPAIRS
from compressors.statistics import LayerStatistics


@REPAIRS.register(
    "mean",
    "the mean of what went is added to the outputs",
    "Ye et al. 2018, Rethinking the Smaller-Norm-Less-Informative Assumption",
)
def mean(weight: Tensor, statistics: LayerStatistics, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Takes the columns kept and adds the mean output of the others."""
    outputs = (weight * statistics.mean[:, None]).sum(2)
    repaired = weight[:, :, kept]
    return repaired, outputs - (repaired * statistics.mean[:, None, kept]).sum(2)
