"""All agents by name. Each imports what it needs when it is made, so that listing them loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from agents.config import AgentConfig
from agents.protocol import Agent
from compressors.registry import Registry
from envs.compression import CompressionEnv

AgentFactory = Callable[[AgentConfig, CompressionEnv, int, int], Agent]

AGENTS: Registry[AgentFactory] = Registry("agent")
"""Makers of agents from configuration, env, number of episodes and seed."""


def make_agent(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    """The agent that a configuration names, fresh.

    Args:
        config: Its name and settings.
        env: The environment that it will act in; not changed.
        episodes: Length of the search, for schedules.
        seed: Seed of the search.

    Raises:
        UserError: No agent of that name.
    """
    return AGENTS[config.name](config, env, episodes, seed)


@AGENTS.register("ddpg", "learns an actor and a critic over all episodes", "Lillicrap et al., ICLR 2016")
def _ddpg(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.ddpg import DDPGAgent

    return DDPGAgent(config.ddpg, env, episodes, seed)


@AGENTS.register("random", "random choices that just meet the target")
def _random(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.random import random_agent

    return random_agent()


@AGENTS.register("uniform", "the same ratio and bits everywhere, as large as the target allows")
def _uniform(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.uniform import uniform_agent

    return uniform_agent()


@AGENTS.register("sensitivity", "the least summed profile error that meets the target (a Lagrangian)")
def _sensitivity(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.sensitivity import sensitivity_agent

    return sensitivity_agent()
