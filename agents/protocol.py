"""What a search asks of an agent, and what travels between the agent and its episodes.

An agent hands out behaviours, small objects that may be pickled and sent to a worker, and learns from the rollouts that
come back, strictly in the order of episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compressors.errors import UserError
from envs.compression import CompressionEnv
from envs.decisions import Action
from envs.evaluation import Outcome
from envs.observation import Observation


class Behaviour(Protocol):
    """How one episode is played; small and picklable."""

    @property
    def name(self) -> str:
        """A word for the ledger, e.g. `actor` or `random`."""

    def act(self, observation: Observation, env: CompressionEnv, rng: np.random.Generator) -> Action:
        """The action for the step at hand, `(axes,)`, in [-1, 1].

        Args:
            observation: What the env showed last.
            env: The env itself, for behaviours that plan; read only.
            rng: The episode's random stream.
        """


@dataclass(frozen=True)
class Rollout:
    """A finished episode, with T steps, O numbers an observation and A numbers an action.

    Attributes:
        episode: Its number.
        observations: `(T + 1, O)` float32, the last one after the end.
        actions: Executed actions, `(T, A)` float32.
        rewards: `(T,)` float32; the last one includes the reward at the end.
        outcome: What the episode led to.
        behaviour: Name of the behaviour that played it.
    """

    episode: int
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    outcome: Outcome
    behaviour: str


@dataclass(frozen=True)
class AgentState:
    """Everything an agent needs to go on as if it had never stopped.

    Attributes:
        arrays: Copies, by path-like name.
        meta: What JSON can hold.
    """

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


class Agent(Protocol):
    """Proposes, and learns from what comes of it."""

    @property
    def name(self) -> str:
        """The agent's name in the registry."""

    def behaviour(self, episode: int) -> Behaviour:
        """How to play an episode.

        Until that episode has been learned from, the same behaviour comes back, also after `load_state`: a search that
        was killed plays the episodes in flight again as they were.

        Args:
            episode: At least the number of episodes learned from.
        """

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from the next episode; answers figures for people, e.g. losses.

        Raises:
            UserError: It is not the next episode.
        """

    def state(self) -> AgentState:
        """The complete state, as copies."""

    def load_state(self, state: AgentState) -> None:
        """Takes over a state; the agent must have been made by the same configuration.

        Raises:
            UserError: The state is another agent's, or does not fit.
        """


def check_next(name: str, expected: int, rollout: Rollout) -> None:
    """Refuses rollouts out of order.

    Raises:
        UserError: The rollout is not episode `expected`.
    """
    if rollout.episode != expected:
        raise UserError(f"Agent {name!r} learns in order: episode {expected} is next, but got {rollout.episode}.")


def check_state(name: str, state: AgentState) -> None:
    """Refuses the state of another agent.

    Raises:
        UserError: `state` is not one of the agent called `name`.
    """
    found = state.meta.get("agent")
    if found != name:
        raise UserError(f"A checkpoint of agent {found!r} cannot go on as agent {name!r}; resume with agent {found!r}.")


def check_episode(name: str, learned: int, episode: int) -> None:
    """Refuses behaviours for episodes that are over.

    Raises:
        UserError: The agent has already learned from `episode`.
    """
    if episode < learned:
        raise UserError(f"Agent {name!r} has learned from episode {episode}; ask for episode {learned} or later.")
