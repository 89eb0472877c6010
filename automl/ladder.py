"""The ladder: how many images a candidate is looked at before it is clear that it cannot matter.

Pure functions of arrays. Images are ordered once, by how hard they are for the original net, so that each rung (the
first so many images) is a stratified sample of all. On each rung the accuracy on all images is estimated; a candidate
whose estimate is surely below the bar stops there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressors.layers import Bools, Ints
from compressors.profile import Floats


@dataclass(frozen=True)
class Estimate:
    """The accuracy on all images, as a rung shows it.

    Attributes:
        accuracy: In 0..1.
        error: Its standard error, corrected for the finite number of images: 0 once all were looked at.
    """

    accuracy: float
    error: float


def signed_margins(scores: NDArray[Any], labels: Ints) -> Floats:
    """How easily a net gets each image right: its two best probabilities' difference, negative where it is wrong.

    Args:
        scores: Of each class before the softmax, `(N, classes)`.
        labels: `(N,)`.

    Returns:
        `(N,)`, each in -1..1; a net with one class is sure of it.
    """
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    best = np.sort(probabilities, axis=1)
    margins = best[:, -1] - (best[:, -2] if best.shape[1] > 1 else 0.0)
    return np.asarray(np.where(scores.argmax(axis=1) == labels, margins, -margins), dtype=np.float64)


def rungs(first: int, total: int) -> tuple[int, ...]:
    """How many images are looked at on each rung: `first`, then twice as many, and so on up to `total`."""
    found = []
    while 0 < first < total:
        found.append(first)
        first *= 2
    return (*found, total)


def stratified_order(difficulty: Floats, counts: tuple[int, ...]) -> Ints:
    """An order of images of which each rung is spread evenly over the difficulties.

    Each rung takes, from the images that are left, sorted by difficulty, every so many-th (a systematic sample), so
    that earlier rungs stay part of later ones.

    Args:
        difficulty: `(N,)`; images of equal difficulty keep their order.
        counts: Images of each rung, rising, the last one N.

    Returns:
        Image numbers, `(N,)`.
    """
    left = np.argsort(difficulty, kind="stable")
    chosen, done = [], 0
    for count in counts:
        more = count - done
        places = ((np.arange(more) + 0.5) * len(left) / more).astype(np.int64)
        chosen.append(left[places])
        left = np.delete(left, places)
        done = count
    return np.concatenate(chosen).astype(np.int64)


def estimate(right: Bools, reference: Bools) -> Estimate:
    """The accuracy on all images, from the answers to the first ones.

    The original net's answers are known for all images and go with the candidate's: where the images of the rung are
    easier for the original than all are, the candidate's share of right ones is corrected downwards, by as much as the
    two sets of answers go together (a regression estimator). One wrong residual more than was seen is counted, so that
    a few equal answers are not taken for certainty.

    Args:
        right: Whether the candidate got each of the first n images right, `(n,)`, n at least 3.
        reference: Whether the original net got each image right, in the same order, `(N,)`.
    """
    count, total = len(right), len(reference)
    seen, own = reference[:count].astype(np.float64), right.astype(np.float64)
    if count == total:
        return Estimate(float(own.mean()), 0.0)
    spread = seen - seen.mean()
    energy = float(spread @ spread)
    slope = float(own @ spread) / energy if energy else 0.0
    residuals = own - own.mean() - slope * spread
    accuracy = float(own.mean() + slope * (reference.mean() - seen.mean()))
    variance = (float(residuals @ residuals) + 1) / (count - 2)
    return Estimate(min(1.0, max(0.0, accuracy)), math.sqrt(variance / count * (1 - count / total)))


def cannot_matter(found: Estimate, bar: float, margin: float) -> bool:
    """Whether an accuracy is so many standard errors below the bar."""
    return found.accuracy + margin * found.error < bar


def below(accuracy: float, bar: float) -> float:
    """The accuracy, or the next smaller number than the bar if it is no smaller."""
    return min(accuracy, math.nextafter(bar, -math.inf))
