"""A task whose optimum is known: of four equal layers one is redundant, and the profile does not say which."""

from __future__ import annotations

import numpy as np
import pytest

from agents.actor import ActorBehaviour
from agents.config import AgentConfig, DDPGConfig
from agents.ddpg import DDPGAgent
from agents.registry import make_agent
from agents.rollout import run_episode
from compressors.cost import Allocation
from compressors.layers import LayerTable
from compressors.profile import BITS, Profile
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.evaluation import Evaluation
from envs.target import sample_targets
from tests.toys import Spec, make_table

EPISODES = 160
NEAR_OPTIMAL = 0.85


def blocks() -> LayerTable:
    """A stem and four blocks alike on one residual stream, each with an inner group of 16."""
    sizes = {"stream": (8, False), **{f"inner{index}": (16, True) for index in range(4)}}
    specs = [Spec("stem", "conv", 3, "stream", 3, 4)]
    for index in range(4):
        specs.append(Spec(f"block{index}.conv1", "conv", "stream", f"inner{index}", 3, 64))
        specs.append(Spec(f"block{index}.conv2", "conv", f"inner{index}", "stream", 3, 64))
    return make_table("blocks", sizes, [*specs, Spec("fc", "linear", "stream", 5, 1, 1)])


def blank_profile(table: LayerTable) -> Profile:
    """A profile that tells nothing: the same straight line for every group."""
    curves = tuple(1 - np.arange(group.size + 1) / group.size for group in table.groups)
    orders = tuple(np.arange(group.size) for group in table.groups)
    none = np.zeros((len(table.layers), len(BITS)))
    return Profile("none", orders, curves, none, none)


def make_env(redundant: int, targets: tuple[str, ...]) -> CompressionEnv:
    """Cutting the redundant block costs nothing, any other one costs its share of the accuracy.

    At `macs=0.78` the redundant block alone, cut to the bone, reaches the target: the optimum is an accuracy of 1. A
    cut spread evenly loses half of it.
    """
    table = blocks()

    def evaluate(allocation: Allocation, seed: int, bar: float) -> Evaluation:
        lost = [1 - kept / 16 for index, kept in enumerate(allocation.kept[1:]) if index != redundant]
        return Evaluation(float(np.exp(-2 * np.square(lost).sum() - 0.5 * sum(lost))), {})

    config = EnvConfig(targets=targets, l2_weight=0.0, min_preserve_ratio=0.05)
    return CompressionEnv(table, blank_profile(table), evaluate, config)


ACTOR = DDPGConfig(net_arch=(64, 64), surrogate=False, pretrain_episodes=0, imagined_episodes=0, relabel=False)
PLANNER = DDPGConfig(net_arch=(64, 64), mutants=40, strangers=40, rounds=2, proposals=1)


def train(env: CompressionEnv, episodes: int, seed: int) -> DDPGAgent:
    """An actor that has to learn by itself."""
    agent = make_agent(AgentConfig(ddpg=ACTOR), env, EPISODES, seed)
    assert isinstance(agent, DDPGAgent)
    for episode in range(episodes):
        targets = sample_targets(env.targets, episode, seed)
        agent.learn(run_episode(env, agent.behaviour(episode), seed=seed, episode=episode, targets=targets))
    return agent


def greedy_accuracy(env: CompressionEnv, agent: DDPGAgent, targets: dict[str, float]) -> float:
    """What the actor itself does, without noise."""
    behaviour = agent.behaviour(EPISODES - 1)
    assert isinstance(behaviour, ActorBehaviour)
    quiet = ActorBehaviour(behaviour.weights, 0.0)
    return run_episode(env, quiet, seed=0, episode=0, targets=targets).outcome.accuracy


@pytest.mark.parametrize("redundant", [1, 2])
def test_ddpg_finds_the_redundant_layer_and_an_untrained_agent_does_not(redundant: int) -> None:
    env = make_env(redundant, ("macs=0.78",))
    trained = train(env, EPISODES - 1, seed=0)
    assert greedy_accuracy(env, trained, {"macs": 0.78}) > NEAR_OPTIMAL
    untrained = train(env, 0, seed=0)
    assert greedy_accuracy(env, untrained, {"macs": 0.78}) < NEAR_OPTIMAL


def test_one_agent_serves_a_range_of_targets() -> None:
    env = make_env(2, ("macs=0.78..0.95",))
    targets = [{"macs": ratio} for ratio in (0.8, 0.86, 0.92)]
    trained, untrained = train(env, EPISODES - 1, seed=0), train(env, 0, seed=0)
    assert min(greedy_accuracy(env, trained, target) for target in targets) > 0.75
    assert max(greedy_accuracy(env, untrained, target) for target in targets) < 0.5


@pytest.mark.parametrize("targets", [("macs=0.78",), ("macs=0.78..0.95",)])
def test_planned_episodes_leave_the_other_layers_alone(targets: tuple[str, ...]) -> None:
    env = make_env(2, targets)
    agent = make_agent(AgentConfig(ddpg=PLANNER), env, EPISODES, 0)
    found: dict[str, list[float]] = {}
    for episode in range(50):
        values = sample_targets(env.targets, episode, 0)
        rollout = run_episode(env, agent.behaviour(episode), seed=0, episode=episode, targets=values)
        agent.learn(rollout)
        found.setdefault(rollout.behaviour, []).append(rollout.outcome.accuracy)
    planned = found["model"] + found.get("actor", [])
    assert np.median(planned[-10:]) > NEAR_OPTIMAL > np.median(found["random"]) + 0.1
