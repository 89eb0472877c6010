"""An episode played through without being evaluated: what an agent needs to imagine one, or to look at it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.budget import Budget
from envs.compression import CompressionEnv
from envs.decisions import Action, Choice
from envs.observation import Observation

Choose = Callable[[int, Observation], Action]
"""What chooses: the action `(axes,)` for a step's number and observation."""


@dataclass(frozen=True)
class Rehearsal:
    """A finished episode that nobody evaluated, with T steps.

    Attributes:
        observations: `(T + 1, O)` float32, the last one after the end.
        actions: Executed actions, `(T, A)` float32.
        choices: What was executed.
        rewards: Minus the weighted error of each step, `(T,)` float32; there is no reward at the end.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    choices: tuple[Choice, ...]
    rewards: NDArray[np.float32]


def rehearse(env: CompressionEnv, choose: Choose, limits: Mapping[str, int]) -> Rehearsal:
    """Plays an episode under the given limits; the env's own episode is left as it is.

    Args:
        env: Its decisions, costs, errors and observations are used.
        choose: Proposes; the budget projects, as in `CompressionEnv.step`.
        limits: Whole limits by kind.

    Raises:
        UserError: A limit is out of reach.
    """
    budget = Budget(env.space, env.costs, limits)
    observations, actions, rewards = [], [], []
    choices: list[Choice] = []
    error = 0.0
    for step, errors in enumerate(env.errors):
        last = choices[-1] if choices else None
        observations.append(env.observer.observe(budget, limits, last, error))
        choice = budget.project(env.space.point(choose(step, observations[-1])))
        budget.commit(choice)
        choices.append(choice)
        error += errors.of(choice)
        actions.append(env.space.action(step, choice))
        rewards.append(-env.config.l2_weight * errors.of(choice))
    observations.append(env.observer.observe(budget, limits, choices[-1], error))
    return Rehearsal(np.stack(observations), np.stack(actions), tuple(choices), np.array(rewards, dtype=np.float32))
