"""Exploration noise that stays within the action's range and fades with the episodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from envs.decisions import Action

_LEAST = 1e-6
"""Below this noise is no noise, and dividing by it overflows."""


def truncated_normal(mean: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> Action:
    """Samples a normal distribution around `mean`, restricted to [-1, 1].

    Args:
        mean: In [-1, 1].
        sigma: Standard deviation before truncation; 0 gives the mean.
        rng: Where randomness comes from; one uniform number per entry is drawn even if `sigma` is 0.

    Returns:
        The shape of `mean`, float32.
    """
    uniform = rng.random(mean.shape)
    if sigma < _LEAST:
        return np.array(mean, dtype=np.float32)
    centre = mean.astype(np.float64)
    low, high = ndtr((-1 - centre) / sigma), ndtr((1 - centre) / sigma)
    sample = centre + sigma * ndtri(low + uniform * (high - low))
    return np.asarray(sample.clip(-1, 1), dtype=np.float32)


def sigma_at(episode: int, first: int, last: int, start: float, end: float) -> float:
    """Standard deviation of an episode: from `start` to `end`, geometrically.

    Args:
        episode: The episode.
        first: The first episode with noise.
        last: The last episode.
        start: Value at `first` and before.
        end: Value at `last` and after.
    """
    if start <= end or last <= first:
        return start
    progress = min(1.0, max(0.0, (episode - first) / (last - first)))
    return float(start * (end / start) ** progress)
