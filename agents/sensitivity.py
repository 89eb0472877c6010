"""The sensitivity agent: the profile alone decides. A learned agent that does not beat it has learned nothing."""

from __future__ import annotations

import numpy as np

from agents.lagrangian import lagrangian_plan
from agents.planning import PlanningAgent
from agents.plans import Plan, Problem
from envs.compression import CompressionEnv


def plan_sensitivity(env: CompressionEnv, rng: np.random.Generator) -> Plan:
    """The plan of small summed profile error that meets the episode's targets."""
    return lagrangian_plan(Problem.of(env), env.errors)


def sensitivity_agent() -> PlanningAgent:
    """An agent that spreads the targets by the profile."""
    return PlanningAgent("sensitivity", plan_sensitivity)
