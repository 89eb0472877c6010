"""Plans: whole episodes chosen at once, so that the targets are just met. No network, no learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compressors.cost import Allocation, CostModel
from envs.budget import fits
from envs.compression import CompressionEnv
from envs.decisions import Choice, DecisionSpace, Floats

Plan = list[Choice]


@dataclass(frozen=True)
class Problem:
    """What a plan must meet.

    Attributes:
        space: The decisions.
        costs: Cost model of the net.
        limits: Whole limits by kind.
    """

    space: DecisionSpace
    costs: CostModel
    limits: Mapping[str, int]

    @classmethod
    def of(cls, env: CompressionEnv) -> Problem:
        """The problem of the episode that an env is in."""
        return cls(env.space, env.costs, env.limits)

    def feasible(self, plans: Sequence[Plan]) -> list[bool]:
        """Whether each plan meets every target."""
        return [bool(ok) for ok in fits(self.cost(plans), self.limits)]

    def cost(self, plans: Sequence[Plan]) -> dict[str, Floats]:
        """Costs by kind, `(plans,)`."""
        return self.cost_of([self.space.allocate(plan) for plan in plans])

    def cost_of(self, allocations: Sequence[Allocation]) -> dict[str, Floats]:
        """Costs by kind, `(allocations,)`."""
        return self.costs.arrays(
            np.stack([allocation.kept for allocation in allocations]),
            np.stack([allocation.weight_bits for allocation in allocations]),
            np.stack([allocation.activation_bits for allocation in allocations]),
        )


def at_points(space: DecisionSpace, points: Floats) -> Plan:
    """The plan nearest to points in [0, 1], `(steps, 3)`: 0 keeps least, 1 keeps most."""
    plan = []
    for step, row in zip(space.steps, points, strict=True):
        nearest = [
            int(np.abs(coordinates - (2 * point - 1)).argmin())
            for coordinates, point in zip(step.coordinates, row, strict=True)
        ]
        plan.append(Choice(*nearest))
    return plan


def largest_feasible(problem: Problem, plan_at: Callable[[float], Plan], rounds: int = 30) -> Plan:
    """The plan of the largest feasible scale.

    Args:
        problem: What the plan must meet.
        plan_at: A plan for a scale in 0..1; costs must not fall with it, and at 0 it must keep least.
        rounds: Halvings.
    """
    best = plan_at(1.0)
    if problem.feasible([best])[0]:
        return best
    low, high = 0.0, 1.0
    best = [Choice(0, 0, 0)] * len(problem.space)
    for _ in range(rounds):
        middle = (low + high) / 2
        plan = plan_at(middle)
        if problem.feasible([plan])[0]:
            low, best = middle, plan
        else:
            high = middle
    return best


def uniform_plan(problem: Problem) -> Plan:
    """The same preserve ratio, and the same place between fewest and most bits, everywhere."""
    steps = len(problem.space)
    return largest_feasible(problem, lambda scale: at_points(problem.space, np.full((steps, 3), scale)))


def random_plan(problem: Problem, rng: np.random.Generator) -> Plan:
    """A random plan that just meets the targets.

    Independent uniform numbers are raised to the one power that meets the targets, so that the cut is spread over all
    steps: clipping raw random actions to the budget would cut the last layers to the bone, always.
    """
    return powered_plan(problem, rng.random((len(problem.space), 3)))


def powered_plan(problem: Problem, points: Floats) -> Plan:
    """The plan at points in [0, 1], `(steps, 3)`, raised to the one power with which the targets are just met."""

    def plan_at(scale: float) -> Plan:
        if scale <= 0:
            return [Choice(0, 0, 0)] * len(problem.space)
        # Powers from 0 (keeps all) to infinity (keeps least), 1 in the middle of the scale.
        return at_points(problem.space, points ** ((1 - scale) / scale))

    return largest_feasible(problem, plan_at)
