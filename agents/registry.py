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
_SHORTEST_WARMUP = 4
"""With fewer episodes an actor has no warm-up at all, which is never more than a quarter of the search."""


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


def least_episodes(config: AgentConfig) -> int:
    """The fewest episodes with which an agent is worth comparing.

    One more than its start-up where it plans from the start-up's results, a whole population where it has one. A
    shorter search runs all the same, but never gets beyond the start-up.

    Args:
        config: The agent's name and settings.

    Raises:
        UserError: No agent of that name.
    """
    AGENTS.entry(config.name)
    learned = {
        "ddpg": _SHORTEST_WARMUP + 2,  # its surrogate begins with five trials
        "td3": _SHORTEST_WARMUP,
        "sac": _SHORTEST_WARMUP,
        "tpe": config.tpe.n_startup_trials + 1,
        "gp": config.gp.n_startup_trials + 1,
        "nsga2": config.nsga2.population_size,
        "cem": config.cem.population_size,
    }
    return learned.get(config.name, 1)


@AGENTS.register("ddpg", "learns an actor and a critic over all episodes", "Lillicrap et al., ICLR 2016")
def _ddpg(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.ddpg import DDPGAgent

    return DDPGAgent(config.ddpg, env, episodes, seed)


@AGENTS.register(
    "td3", "DDPG with two critics, of which the lesser counts, and a slower actor", "Fujimoto et al., ICML 2018"
)
def _td3(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.offpolicy import TD3Agent

    return TD3Agent(config.td3, env, episodes, seed)


@AGENTS.register("sac", "learns a random actor that is paid for its entropy", "Haarnoja et al., arXiv:1812.05905")
def _sac(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.offpolicy import SACAgent

    return SACAgent(config.sac, env, episodes, seed)


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


@AGENTS.register("tpe", "tree-structured Parzen estimators over whole plans (Optuna)", "Bergstra et al., NeurIPS 2011")
def _tpe(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.optuna_agents import tpe_agent

    return tpe_agent(config.tpe, env, seed)


@AGENTS.register("gp", "a Gaussian process over whole plans, expected improvement (Optuna)", "Jones et al., JGO 1998")
def _gp(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.optuna_agents import gp_agent

    return gp_agent(config.gp, env, seed)


@AGENTS.register("nsga2", "evolves plans towards accuracy and low cost (Optuna)", "Deb et al., IEEE TEC 2002")
def _nsga2(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.optuna_agents import nsga2_agent

    return nsga2_agent(config.nsga2, env, seed)


@AGENTS.register("cem", "the cross-entropy method around the profile's own plan", "Rubinstein, MCAP 1999")
def _cem(config: AgentConfig, env: CompressionEnv, episodes: int, seed: int) -> Agent:
    from agents.cem import cem_agent

    return cem_agent(config.cem, env, seed)
