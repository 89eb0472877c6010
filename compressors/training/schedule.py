"""The learning rate over the steps of one training."""

from __future__ import annotations

import math

from compressors.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of one step.

    Rises in a straight line over the first `warmup * steps` steps, then stays or follows half a cosine to 0
    (Loshchilov & Hutter 2017, eq. 5, without restarts). No step has a rate of exactly 0.

    Args:
        config: Names the schedule and its highest rate.
        step: From 0.
        steps: How many there are.
    """
    rising = int(config.warmup * steps)
    if step < rising:
        return config.lr * (step + 1) / (rising + 1)
    if config.schedule == "constant":
        return config.lr
    done = (step - rising) / max(1, steps - rising)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))
