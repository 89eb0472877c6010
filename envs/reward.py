"""The reward at the end of an episode, in the forms that a user may choose from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from compressors.errors import UserError
from compressors.registry import Registry

Point = tuple[float, float]
"""`(cost ratio, accuracy)`."""


@dataclass(frozen=True)
class Finish:
    """What a finished episode is judged by.

    Attributes:
        accuracy: Fraction of correct answers in 0..1.
        flops: 2 x macs of one input.
        point: `(cost ratio, accuracy)` with the cost that the front is drawn over.
        front: The points that the search has found so far, which this one may add to.
    """

    accuracy: float
    flops: int
    point: Point
    front: tuple[Point, ...] = ()


RewardForm = Callable[[Finish], float]

REWARDS: Registry[RewardForm] = Registry("reward")
"""Forms of the reward at the end."""


@REWARDS.register("accuracy", "accuracy alone; the target bounds the cost")
def accuracy(finish: Finish) -> float:
    """The accuracy: 0 if every answer is wrong, 1 if every answer is right."""
    return finish.accuracy


@REWARDS.register(
    "accuracy_flops",
    "minus error x log(flops), so that fewer flops than the target pay too",
    "He et al., AMC, ECCV 2018, section 3.4",
)
def accuracy_flops(finish: Finish) -> float:
    """Minus the error times the natural logarithm of the flops: -log(flops of the net) at worst, 0 without error.

    flops here are 2 x macs; the paper counts multiply-accumulates, which shifts the logarithm by 0.69.
    """
    return -(1 - finish.accuracy) * math.log(max(finish.flops, 1))


@REWARDS.register(
    "front",
    "what the result adds to the hypervolume of the front found so far",
    "Zitzler and Thiele, PPSN 1998 (hypervolume)",
)
def front(finish: Finish) -> float:
    """Hypervolume that the point adds to the front: 0 if another point is as good in both, 1 for all at no cost.

    The box is the unit square of cost ratio and error, with its worst corner (1, 1) as the reference.
    """
    known = [*finish.front]
    return max(0.0, hypervolume([*known, finish.point]) - hypervolume(known))


def hypervolume(points: Sequence[Point]) -> float:
    """Area of the unit square of (cost ratio, accuracy) that is no better than some point; in 0..1."""
    inside = [(cost, 1 - good) for cost, good in points if cost < 1 and good > 0]
    if not inside:
        return 0.0
    return float(moocore.hypervolume(np.array(inside, dtype=np.float64), ref=[1.0, 1.0]))


def check_front(points: object) -> tuple[Point, ...]:
    """The points of `reset(options={"front": ...})`, checked.

    Raises:
        UserError: Not a sequence of pairs of finite numbers.
    """
    try:
        array = np.array(points, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.size == 0:
        return ()
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise UserError(f"A front must be a list of finite pairs (cost ratio, accuracy), but got {points!r}.")
    return tuple((float(cost), float(good)) for cost, good in array)
