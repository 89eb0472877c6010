"""How a compressed net is trained: plain or with knowledge distillation, on any module and any batches."""

from compressors.training.config import DistillConfig, TrainConfig
from compressors.training.loop import TrainResult, train
from compressors.training.regimes import REGIMES, Distill, Plain, Regime
from compressors.training.sources import Batches, TakesRows

__all__ = [
    "REGIMES",
    "Batches",
    "Distill",
    "DistillConfig",
    "Plain",
    "Regime",
    "TakesRows",
    "TrainConfig",
    "TrainResult",
    "train",
]
