"""The random agent: the least that any search has to beat."""

from __future__ import annotations

import numpy as np

from agents.planning import PlanningAgent
from agents.plans import Plan, Problem, random_plan
from envs.compression import CompressionEnv


def plan_random(env: CompressionEnv, rng: np.random.Generator) -> Plan:
    """A random plan that just meets the episode's targets."""
    return random_plan(Problem.of(env), rng)


def random_agent() -> PlanningAgent:
    """An agent that plays random feasible episodes."""
    return PlanningAgent("random", plan_random)
