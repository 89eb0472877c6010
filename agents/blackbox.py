"""Black-box agents: one point of a box is asked for each episode, played as a plan, and told its reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agents.lagrangian import lagrangian_plan
from agents.planning import PlannedBehaviour
from agents.plans import Plan, Problem, powered_plan
from agents.protocol import AgentState, Behaviour, Rollout, check_episode, check_next, check_state
from agents.warmup import warmup_behaviour
from compressors.errors import UserError
from envs.budget import limits_of
from envs.compression import CompressionEnv
from envs.decisions import AXES, Action, DecisionSpace, Floats
from envs.target import sample_targets

_MARGIN = 1e-4
"""Distance from 0 and 1 within which numbers are taken for each other: no power would move 0 or 1 itself."""


def point_of(space: DecisionSpace, actions: Action) -> Floats:
    """The point in [0, 1] that stands for the executed actions of an episode, `(steps, axes)`."""
    return np.asarray((np.stack([space.point(action) for action in actions])[space.decided()] + 1) / 2)


def plan_of(problem: Problem, point: Floats) -> Plan:
    """The plan that a point stands for, `(dimensions,)`, in [0, 1]: 0 keeps least, 1 keeps most.

    All numbers are raised to the one power, found by bisection, with which the episode's targets are just met. So the
    cut is spread over all steps, as the point weighs them; clipping to the budget step by step would starve the last
    ones. A point whose own plan meets the targets, and that no single decision could be raised in, gives that plan.
    """
    points = np.ones((len(problem.space), len(AXES)))
    points[problem.space.decided()] = point.clip(_MARGIN, 1 - _MARGIN)
    return powered_plan(problem, points)


@dataclass(frozen=True)
class PointPlanner:
    """Makes the plan of one point.

    Attributes:
        point: Numbers in [0, 1], one for each decision.
    """

    point: tuple[float, ...]

    def __call__(self, env: CompressionEnv, rng: np.random.Generator) -> Plan:
        """The plan that just meets the episode's targets."""
        return plan_of(Problem.of(env), np.array(self.point))


@dataclass(frozen=True, eq=False)
class Asked:
    """A point that an episode plays.

    Attributes:
        episode: Number of the episode.
        point: `(dimensions,)`.
        learned: Episodes that had been learned from when it was asked for.
    """

    episode: int
    point: Floats
    learned: int


class Searcher(Protocol):
    """A method that proposes points of a box and is told what they are worth.

    All it knows comes from these three calls, and a proposal depends on nothing but them, the seed and the episode: a
    fresh searcher that is given the same points and told the same values, in any interleaving, goes on alike.
    """

    def ask(self, episode: int) -> Floats:
        """A new point for an episode, which counts as being played until it is told."""

    def add(self, asked: Asked) -> None:
        """Takes a point that was asked for elsewhere as being played."""

    def tell(self, episode: int, reward: float, cost: float) -> None:
        """What an episode's point led to; episodes come in their order.

        Args:
            episode: One that was asked for or added.
            reward: The reward at the end; more is better.
            cost: Cost as a fraction of the original net's; less is better.
        """


class BlackBoxAgent:
    """Lets a searcher choose whole episodes. The first is the profile's own plan, from which `ddpg` starts as well.

    Attributes:
        name: Its name in the registry.
    """

    def __init__(self, name: str, env: CompressionEnv, seed: int, make: Callable[[Floats], Searcher]) -> None:
        """Makes a fresh agent.

        Args:
            name: Its name in the registry.
            env: Its decisions, costs, targets and profile are read.
            seed: Seed of the search, which fixes the first episode's targets.
            make: Makes a fresh searcher from the point of the first episode, `(dimensions,)`.
        """
        self.name = name
        self._space = env.space
        self._make = make
        values = sample_targets(env.targets, 0, seed)
        problem = Problem(env.space, env.costs, limits_of(values, env.costs.original))
        self._start = point_of(env.space, env.space.actions(lagrangian_plan(problem, env.errors)))
        self._searcher = make(self._start)
        self._asked: list[Asked] = []  # in the order of asking, which a searcher may depend on
        self._told: list[tuple[float, float]] = []

    def behaviour(self, episode: int) -> Behaviour:
        """The plan of the episode's point."""
        check_episode(self.name, len(self._told), episode)
        asked = self._find(episode)
        if asked is None:
            asked = Asked(episode, self._start, len(self._told))
            if episode == 0:
                self._searcher.add(asked)
            else:
                asked = Asked(episode, self._searcher.ask(episode), len(self._told))
            self._asked.append(asked)
        if episode == 0:
            return warmup_behaviour(0)  # the same plan as the point's, and also if the targets are others
        return PlannedBehaviour(self.name, PointPlanner(tuple(asked.point.tolist())))

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Tells the searcher the reward at the end.

        Returns:
            `best_reward` so far.
        """
        check_next(self.name, len(self._told), rollout)
        if self._find(rollout.episode) is None:
            asked = Asked(rollout.episode, point_of(self._space, rollout.actions), len(self._told))
            self._searcher.add(asked)
            self._asked.append(asked)
        told = (float(rollout.outcome.rewards["terminal"]), float(rollout.outcome.front_point[0]))
        self._searcher.tell(rollout.episode, *told)
        self._told.append(told)
        return {"best_reward": max(reward for reward, _ in self._told)}

    def state(self) -> AgentState:
        """All points and what they led to; everything else follows from them."""
        arrays = {
            "points": np.array([asked.point for asked in self._asked]).reshape(-1, len(self._start)),
            "told": np.array(self._told).reshape(-1, 2),
        }
        meta = {
            "agent": self.name,
            "learned": len(self._told),
            "asked": [[asked.episode, asked.learned] for asked in self._asked],
        }
        return AgentState(arrays, meta)

    def load_state(self, state: AgentState) -> None:
        """Takes over a state."""
        check_state(self.name, state)
        points = state.arrays["points"]
        if points.shape[1] != len(self._start):
            raise UserError(
                f"The checkpoint of agent {self.name!r} holds points of {points.shape[1]} decisions, but this search "
                f"has {len(self._start)}; resume with the net, mode and settings of the search that wrote it."
            )
        self._searcher = self._make(self._start)
        self._asked = [
            Asked(int(episode), np.array(point), int(learned))
            for (episode, learned), point in zip(state.meta["asked"], points, strict=True)
        ]
        self._told = [(float(reward), float(cost)) for reward, cost in state.arrays["told"]]
        for asked in self._asked:
            self._searcher.add(asked)
        for episode, told in enumerate(self._told):
            self._searcher.tell(episode, *told)

    def _find(self, episode: int) -> Asked | None:
        return next((asked for asked in self._asked if asked.episode == episode), None)
