"""What an evaluation of one allocation answers, and what a finished episode leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from compressors.cost import Allocation, Costs


@dataclass(frozen=True)
class Evaluation:
    """How good one compressed net is.

    Attributes:
        accuracy: Fraction of correct answers in 0..1 (or any metric for which more is better).
        seconds: Wall time by phase, e.g. `{"build": 0.01, "evaluate": 0.8}`.
    """

    accuracy: float
    seconds: dict[str, float] = field(default_factory=dict, compare=False)


Evaluate = Callable[[Allocation, int], Evaluation]
"""Measures an allocation; the second argument is a seed for whatever is random in it."""


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
