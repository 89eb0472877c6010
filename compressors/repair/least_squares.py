"""The weights of what is left are fitted to the original outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.linalg import damped_cholesky, damping_of
from compressors.repair.base import REPAIRS
from compressors.repair.mean import mean
from compressors.statistics import LayerStatistics


@REPAIRS.register(
    "least_squares",
    "the weights of what is left are fitted to the original outputs",
    "He et al. 2017, Channel Pruning for Accelerating Very Deep Neural Networks, eq. 4, from second moments",
)
def least_squares(weight: Tensor, statistics: LayerStatistics, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Solves G_SS V = G_S: W for the kept columns S; layers without full second moments get the mean repair."""
    if statistics.second is None:
        return mean(weight, statistics, kept)
    damping = damping_of(statistics.diagonal)
    rows = statistics.second[:, kept]  # (blocks, kept, columns)
    # Damping pulls towards the original weights, not towards zero: with nothing cut they come back as they were.
    right = torch.bmm(rows, weight.transpose(1, 2)) + damping[:, None, None] * weight[:, :, kept].transpose(1, 2)
    repaired = torch.cholesky_solve(right, damped_cholesky(rows[:, :, kept], damping)).transpose(1, 2)
    outputs = (weight * statistics.mean[:, None]).sum(2)
    return repaired, outputs - (repaired * statistics.mean[:, None, kept]).sum(2)
