"""Behaviours and agents that plan an episode at its start and learn nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from agents.plans import Plan
from agents.protocol import AgentState, Behaviour, Rollout, check_episode, check_next, check_state
from envs.compression import CompressionEnv
from envs.decisions import Action
from envs.observation import Observation

Planner = Callable[[CompressionEnv, np.random.Generator], Plan]
"""Makes the plan of the episode that the env is in; a function of a module, so that it can be pickled."""


@dataclass
class PlannedBehaviour:
    """Plays a plan that it makes at the first step.

    Attributes:
        name: A word for the ledger.
        planner: What makes the plan.
    """

    name: str
    planner: Planner
    _actions: Action | None = field(default=None, init=False, repr=False, compare=False)

    def act(self, observation: Observation, env: CompressionEnv, rng: np.random.Generator) -> Action:
        """The plan's action for the step at hand."""
        if env.position == 0 or self._actions is None:
            self._actions = env.space.actions(self.planner(env, rng))
        return np.array(self._actions[env.position])


class PlanningAgent:
    """An agent that plays every episode by the same planner.

    Attributes:
        name: Its name in the registry.
    """

    def __init__(self, name: str, planner: Planner) -> None:
        self.name = name
        self._planner = planner
        self._learned = 0

    def behaviour(self, episode: int) -> Behaviour:
        """The planner's behaviour, the same for every episode."""
        check_episode(self.name, self._learned, episode)
        return PlannedBehaviour(self.name, self._planner)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Counts the episode."""
        check_next(self.name, self._learned, rollout)
        self._learned += 1
        return {}

    def state(self) -> AgentState:
        """How many episodes it has seen."""
        return AgentState({}, {"agent": self.name, "learned": self._learned})

    def load_state(self, state: AgentState) -> None:
        """Takes over the count."""
        check_state(self.name, state)
        self._learned = int(state.meta["learned"])
