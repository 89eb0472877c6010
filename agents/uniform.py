"""The uniform agent: the same everywhere."""

from __future__ import annotations

import numpy as np

from agents.planning import PlanningAgent
from agents.plans import Plan, Problem, uniform_plan
from envs.compression import CompressionEnv


def plan_uniform(env: CompressionEnv, rng: np.random.Generator) -> Plan:
    """The largest uniform plan that meets the episode's targets."""
    return uniform_plan(Problem.of(env))


def uniform_agent() -> PlanningAgent:
    """An agent that cuts every layer alike."""
    return PlanningAgent("uniform", plan_uniform)
