"""How the first episodes are played, before the actor knows anything: feasible, varied, and not stupid."""

from __future__ import annotations

import numpy as np

from agents.lagrangian import jittered, lagrangian_plan
from agents.planning import PlannedBehaviour
from agents.plans import Plan, Problem
from agents.random import plan_random
from envs.compression import CompressionEnv

SPREAD_JITTER = 0.7
"""Standard deviation of the logarithm of the factors on the profile's errors."""


def plan_spread(env: CompressionEnv, rng: np.random.Generator) -> Plan:
    """A plan that spreads the targets evenly by a jittered profile."""
    return lagrangian_plan(Problem.of(env), jittered(env.errors, SPREAD_JITTER, rng), rounds=12)


def plan_even(env: CompressionEnv, rng: np.random.Generator) -> Plan:
    """A plan that spreads the targets evenly by the profile as it is."""
    return lagrangian_plan(Problem.of(env), env.errors)


def warmup_behaviour(episode: int, warm_start: bool = True) -> PlannedBehaviour:
    """The behaviour of a warm-up episode: the profile's own plan first, then random and jittered ones in turn.

    Args:
        episode: Number of the episode, from 0.
        warm_start: Whether the profile may be looked at; without it all plans are random.
    """
    if not warm_start:
        return PlannedBehaviour("random", plan_random)
    if episode == 0:
        return PlannedBehaviour("even", plan_even)
    if episode % 2:
        return PlannedBehaviour("random", plan_random)
    return PlannedBehaviour("spread", plan_spread)
