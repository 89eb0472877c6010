"""Spreads the targets by the profile: everywhere the same error for the last bit of cost (a Lagrangian)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.plans import Plan, Problem
from compressors.cost import Allocation
from envs.budget import fits
from envs.decisions import Choice, Floats
from envs.sensitivity import StepErrors

_FILL_ROUNDS = 400


def lagrangian_plan(problem: Problem, errors: Sequence[StepErrors], rounds: int = 24) -> Plan:
    """A plan of small summed error that meets the targets.

    For a price of cost each step takes what minimises error + price x cost, with the cost of a step's choices
    taken as linear at the present choices of the others. The price rises until the targets are met, is then
    bisected, and what budget is left is spent greedily. The answer is feasible always, optimal not always: the costs
    of neighbouring layers multiply.

    Args:
        problem: What the plan must meet.
        errors: Errors of all choices of each step.
        rounds: Halvings of the price.
    """
    plan = [step.full for step in problem.space.steps]
    if problem.feasible([plan])[0]:
        return plan
    scale = _violated(problem, plan)
    low, high = 0.0, 1e-4
    start = plan
    while high < 1e6:
        plan = _cheapest(problem, errors, plan, high, scale)
        if problem.feasible([plan])[0]:
            break
        start, low, high = plan, high, high * 1.8
    else:
        plan = [Choice(0, 0, 0)] * len(problem.space)
    best = plan
    for _ in range(rounds):
        middle = (low + high) / 2
        plan = start
        for _ in range(2):
            plan = _cheapest(problem, errors, plan, middle, scale)
        if problem.feasible([plan])[0]:
            high = middle
            if _error(errors, plan) < _error(errors, best):
                best = plan
        else:
            start, low = plan, middle
    return _fill(problem, errors, best, scale)


def jittered(errors: Sequence[StepErrors], jitter: float, rng: np.random.Generator) -> list[StepErrors]:
    """The same errors, each kind of each step times exp(jitter x normal)."""
    factors = np.exp(jitter * rng.standard_normal((len(errors), 3)))
    return [
        StepErrors(step.cut * cut, step.weight * weight, step.activation * activation)
        for step, (cut, weight, activation) in zip(errors, factors, strict=True)
    ]


def _violated(problem: Problem, plan: Plan) -> dict[str, float]:
    """What a unit of each cost weighs: one over the limit where the full plan exceeds it, else nothing."""
    found = problem.cost([plan])
    return {kind: 1 / max(bound, 1) for kind, bound in problem.limits.items() if found[kind][0] > bound}


def _error(errors: Sequence[StepErrors], plan: Plan) -> float:
    return sum(step.of(choice) for step, choice in zip(errors, plan, strict=True))


def _cheapest(
    problem: Problem, errors: Sequence[StepErrors], plan: Plan, price: float, scale: dict[str, float]
) -> Plan:
    """Every step's best choice at a price, the others' choices given."""
    slopes = _slopes(problem, plan, scale)
    found = []
    for step, error, slope in zip(problem.space.steps, errors, slopes, strict=True):
        kept = step.ratios
        widths = (step.weight_bits / step.weight_bits[-1], step.activation_bits / step.activation_bits[-1])
        found.append(
            Choice(
                int((error.cut + price * slope[0] * kept).argmin()),
                int((error.weight + price * slope[1] * widths[0]).argmin()),
                int((error.activation + price * slope[2] * widths[1]).argmin()),
            )
        )
    return found


def _slopes(problem: Problem, plan: Plan, scale: dict[str, float]) -> Floats:
    """Normalised cost per unit of ratio, of weight bits and of activation bits (as parts of the most), `(steps, 3)`."""
    base = problem.space.allocate(plan)
    ends: list[Allocation] = []
    spans = np.ones((len(plan), 3))
    for row, step in enumerate(problem.space.steps):
        full = step.full
        spans[row] = (
            1 - step.ratios[0],
            1 - step.weight_bits[0] / step.weight_bits[-1],
            1 - step.activation_bits[0] / step.activation_bits[-1],
        )
        for axis in range(3):
            for end in (0, full[axis]):
                choice = plan[row]._replace(**{Choice._fields[axis]: end})
                ends.append(_moved(problem, base, row, choice))
    found = problem.cost_of(ends)
    weighed = sum((found[kind] * weight for kind, weight in scale.items()), np.zeros(len(ends)))
    pairs = weighed.reshape(len(plan), 3, 2)
    slopes = (pairs[..., 1] - pairs[..., 0]) / np.where(spans > 0, spans, 1.0)
    return np.asarray(np.where(spans > 0, slopes, 0.0))


def _moved(problem: Problem, base: Allocation, row: int, choice: Choice) -> Allocation:
    step = problem.space.steps[row]
    kept, weights = base.kept.copy(), base.weight_bits.copy()
    activations = base.activation_bits.copy()
    kept[step.groups] = step.kept[choice.level]
    weights[step.layer] = step.weight_bits[choice.weight]
    activations[step.layer] = step.activation_bits[choice.activation]
    return Allocation(kept, weights, activations)


def _fill(problem: Problem, errors: Sequence[StepErrors], plan: Plan, scale: dict[str, float]) -> Plan:
    """Spends what budget is left, one level or bit at a time, where it lowers the error most for its cost."""
    plan = list(plan)
    for _ in range(_FILL_ROUNDS):
        base = problem.space.allocate(plan)
        moves = [
            (row, plan[row]._replace(**{Choice._fields[axis]: plan[row][axis] + 1}))
            for row, step in enumerate(problem.space.steps)
            for axis in range(3)
            if plan[row][axis] < step.full[axis]
        ]
        if not moves:
            break
        found = problem.cost_of([base, *(_moved(problem, base, row, choice) for row, choice in moves)])
        weighed = sum((found[kind] * weight for kind, weight in scale.items()), np.zeros(len(moves) + 1))
        gains = np.array([errors[row].of(plan[row]) - errors[row].of(choice) for row, choice in moves])
        rates = (gains + 1e-12) / np.maximum(weighed[1:] - weighed[0], 1e-12)
        rates[~fits(found, problem.limits)[1:]] = -np.inf
        best = int(rates.argmax())
        if not np.isfinite(rates[best]):
            break
        plan[moves[best][0]] = moves[best][1]
    return plan
