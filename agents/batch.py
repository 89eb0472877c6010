"""Many plans at once, as arrays: hundreds of them are balanced and weighed in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.plans import Plan
from compressors.cost import CostModel
from compressors.layers import Ints
from envs.budget import fits
from envs.compression import CompressionEnv
from envs.decisions import AXES, Choice, DecisionSpace, Floats
from envs.sensitivity import StepErrors

_ROUNDS = 14


class PlanBatch:
    """Arithmetic on many plans of one net.

    A plan is a row of choices, `(steps, 3)`: positions in the lists of each step's `Decision`. Its place is
    the same in [0, 1]: 0 keeps least, 1 keeps most.

    Attributes:
        active: Whether a step has anything to decide on an axis, `(steps, 3)`.
    """

    def __init__(self, space: DecisionSpace, costs: CostModel, errors: Sequence[StepErrors]) -> None:
        self._space = space
        self._costs = costs
        self._edges = [[(scale[:-1] + scale[1:]) / 2 for scale in step.coordinates] for step in space.steps]
        self._errors = [(step.cut, step.weight, step.activation) for step in errors]
        self._largest = space.largest()
        self.active = space.decided()

    @classmethod
    def of(cls, env: CompressionEnv) -> PlanBatch:
        """For the net of an env."""
        return cls(env.space, env.costs, env.errors)

    def choices(self, places: Floats) -> Ints:
        """The nearest choices to places `(plans, steps, 3)`; the same shape."""
        found = np.zeros(places.shape, dtype=np.int64)
        wanted = 2 * places - 1
        for step, edges in enumerate(self._edges):
            for axis, between in enumerate(edges):
                if len(between):
                    found[:, step, axis] = np.searchsorted(between, wanted[:, step, axis], side="right")
        return found

    def places(self, choices: Ints) -> Floats:
        """Where choices `(plans, steps, 3)` stand in [0, 1]; 1 where there is nothing to decide."""
        found = np.ones(choices.shape)
        for step, decision in enumerate(self._space.steps):
            for axis in range(len(AXES)):
                found[:, step, axis] = (decision.coordinates[axis][choices[:, step, axis]] + 1) / 2
        return found

    def errors(self, choices: Ints) -> Floats:
        """Relative squared L2 errors of all decisions, `(plans, steps, 3)`."""
        found = np.zeros(choices.shape)
        for step, errors in enumerate(self._errors):
            for axis, error in enumerate(errors):
                found[:, step, axis] = error[choices[:, step, axis]]
        return found

    def features(self, choices: Ints) -> Floats:
        """What `Surrogate` looks at, `(plans, steps x 3)`."""
        return self.errors(choices).reshape(len(choices), -1)

    def costs(self, choices: Ints) -> dict[str, Floats]:
        """Costs by kind, `(plans,)`."""
        plans = len(choices)
        kept = np.repeat(self._largest.kept[None], plans, axis=0)
        weights = np.repeat(self._largest.weight_bits[None], plans, axis=0)
        activations = np.repeat(self._largest.activation_bits[None], plans, axis=0)
        for index, step in enumerate(self._space.steps):
            kept[:, step.groups] = step.kept[choices[:, index, 0]]
            weights[:, step.layer] = step.weight_bits[choices[:, index, 1]]
            activations[:, step.layer] = step.activation_bits[choices[:, index, 2]]
        return self._costs.arrays(kept, weights, activations)

    def feasible(self, choices: Ints, limits: Mapping[str, int]) -> NDArray[np.bool_]:
        """Whether each plan meets every limit, `(plans,)`."""
        return np.asarray(fits(self.costs(choices), limits))

    def balanced(self, places: Floats, limits: Mapping[str, int]) -> Ints:
        """Plans near `places` that just meet the limits: all numbers of a plan are shifted alike, within 0..1.

        The shift is found by bisection, for all plans at once, since costs rise with every number.
        """
        low, high = np.full(len(places), -1.0), np.full(len(places), 1.0)
        best = np.zeros(places.shape, dtype=np.int64)
        middle = high.copy()  # everything may be affordable
        for _ in range(_ROUNDS):
            choices = self.choices((places + middle[:, None, None]).clip(0, 1))
            good = self.feasible(choices, limits)
            best[good] = choices[good]
            low, high = np.where(good, middle, low), np.where(good, high, middle)
            middle = (low + high) / 2
        return best


def plan_of(row: Ints) -> Plan:
    """A row of choices `(steps, 3)` as a plan."""
    return [Choice(*(int(value) for value in choice)) for choice in row]
