"""No repair: what is left stays as it was."""

from __future__ import annotations

from torch import Tensor

from compressors.repair.base import REPAIRS
from compressors.statistics import LayerStatistics


@REPAIRS.register("none", "what is left stays as it was: the control")
def none(weight: Tensor, statistics: LayerStatistics, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Takes the columns kept and adds nothing."""
    return weight[:, :, kept], weight.new_zeros(weight.shape[:2])
