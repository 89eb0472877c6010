"""Means over seeds and how sure they are: functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
SEED = 0
METHOD = f"95% percentile bootstrap of the mean over seeds, {RESAMPLES:,} resamples, seed {SEED}"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95% interval.

    Attributes:
        mean: The mean.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


def interval(values: ArrayLike) -> Interval:
    """The mean of `(seeds,)` numbers and its bootstrap interval; a single number is its own interval."""
    means, lows, highs = bands(np.asarray(values, dtype=np.float64)[:, None])
    return Interval(float(means[0]), float(lows[0]), float(highs[0]))


def bands(curves: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Mean, lower and upper end at each point of curves.

    Args:
        curves: `(seeds, points)`; all points are resampled alike, whole seeds at a time.

    Returns:
        Three arrays `(points,)`.
    """
    values = np.asarray(curves, dtype=np.float64)
    seeds = len(values)
    picks = np.random.default_rng(SEED).integers(seeds, size=(RESAMPLES, seeds))
    # How often each seed was drawn: a matrix product takes the place of a gather of resamples x seeds x points.
    weights = np.stack([(picks == seed).sum(1) for seed in range(seeds)], axis=1) / seeds
    low, high = np.quantile(weights @ values, [0.025, 0.975], axis=0)
    mean = values.mean(0)
    # Rounding of the product must not put a mean outside its own interval.
    return mean, np.minimum(low, mean), np.maximum(high, mean)


def steps_at(positions: ArrayLike, values: ArrayLike, wanted: ArrayLike) -> Floats:
    """A step function at other places: the value at the last position not after each; before the first the first.

    Args:
        positions: Rising, `(points,)`.
        values: `(points,)`.
        wanted: Where to look.
    """
    index = np.searchsorted(np.asarray(positions, dtype=np.float64), np.asarray(wanted), side="right") - 1
    return np.asarray(values, dtype=np.float64)[np.maximum(index, 0)]


def first_reaching(positions: ArrayLike, values: ArrayLike, bar: float) -> float | None:
    """The first position at which a value is at least `bar`, or None."""
    reached = np.flatnonzero(np.asarray(values, dtype=np.float64) >= bar - 1e-12)
    return float(np.asarray(positions)[reached[0]]) if len(reached) else None
