"""What an evaluation of one allocation answers, and what a finished episode leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from compressors.cost import Allocation, Costs


@dataclass(frozen=True)
class Evaluation:
    """How good one compressed net is.

    Attributes:
        accuracy: Fraction of correct answers in 0..1 (or any metric for which more is better); an estimate below the
            bar where the evaluation stopped early.
        seconds: Wall time by phase, e.g. `{"build": 0.01, "evaluate": 0.8}`.
        images: How many images the accuracy rests on; 0 where nobody counts.
        complete: Whether the accuracy was measured to the end.
    """

    accuracy: float
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    images: int = 0
    complete: bool = True


Evaluate = Callable[[Allocation, int, float], Evaluation]
"""Measures an allocation; gets a seed for whatever is random in it, and the bar: the accuracy that a candidate must
beat to matter. A candidate surely below the bar may be measured roughly, as long as it is reported below it."""


def bar_of(front: Iterable[tuple[float, float]], cost_ratio: float) -> float:
    """The best accuracy in a front of `(cost ratio, accuracy)` at no more than this cost ratio; else minus infinity."""
    return max((accuracy for ratio, accuracy in front if ratio <= cost_ratio), default=-math.inf)


@dataclass(frozen=True)
class Outcome:
    """A finished episode.

    Attributes:
        allocation: What was decided.
        costs: Exact costs of the allocation.
        targets: The episode's targets by kind, as ratio (at most 1) or absolute.
        limits: The same as whole macs, parameters, bytes or bops; every cost is at most its limit.
        accuracy: Measured accuracy.
        l2: Sum of the relative squared L2 errors of all decisions, from the profile.
        front_point: `(cost ratio, accuracy)`, the point that the `front` reward looks at.
        rewards: The parts of the episode's reward: `terminal`, `l2` (at most 0) and their sum `total`.
        seconds: Wall time by phase, as the evaluation reported it.
        images: How many images the accuracy rests on, as the evaluation reported it.
        complete: Whether the accuracy was measured to the end.
    """

    allocation: Allocation = field(compare=False)
    costs: Costs
    targets: dict[str, float]
    limits: dict[str, int]
    accuracy: float
    l2: float
    front_point: tuple[float, float]
    rewards: dict[str, float]
    seconds: dict[str, float] = field(compare=False)
    images: int = 0
    complete: bool = True
