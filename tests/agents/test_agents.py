from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from agents.config import AgentConfig, DDPGConfig, GPConfig, SACConfig, TD3Config
from agents.protocol import Agent, AgentState
from agents.registry import AGENTS, make_agent
from agents.rollout import run_episode
from compressors.errors import UserError
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.target import sample_targets
from tests.states import assert_equal_states, through_disk
from tests.toys import by_profile, chain, make_profile, residual

EPISODES = 24
SMALL = DDPGConfig(net_arch=(24, 24), batch_size=16, warmup_episodes=4, buffer_size=60, pretrain_episodes=2, mutants=40)
SMALL_TD3 = TD3Config(net_arch=(24, 24), batch_size=16, warmup_episodes=4, buffer_size=60)
SMALL_GP = GPConfig(n_startup_trials=8, n_preliminary_samples=64, n_local_search=2)
SMALL_SAC = SACConfig(net_arch=(24, 24), batch_size=16, warmup_episodes=4, buffer_size=60)


def make_env(targets=("macs=0.3..0.7",)) -> CompressionEnv:
    table = chain()
    profile = make_profile(table)
    return CompressionEnv(table, profile, by_profile(table, profile), EnvConfig(mode="both", targets=targets))


def make(name: str, env: CompressionEnv, seed: int = 0) -> Agent:
    config = AgentConfig(name=name, ddpg=SMALL, td3=SMALL_TD3, sac=SMALL_SAC, gp=SMALL_GP)
    return make_agent(config, env, EPISODES, seed)


def play(env: CompressionEnv, agent: Agent, first: int, last: int, staleness: int = 1) -> list[tuple]:
    """Episodes `first..last-1` with `staleness` behaviours in flight, as a search plays them."""
    flying, lines = {}, []
    for episode in range(first, min(first + staleness, last)):
        flying[episode] = agent.behaviour(episode)
    for episode in range(first, last):
        targets = sample_targets(env.targets, episode, 0)
        rollout = run_episode(
            env, pickle.loads(pickle.dumps(flying.pop(episode))), seed=0, episode=episode, targets=targets
        )
        figures = agent.learn(rollout)
        lines.append((rollout.behaviour, rollout.outcome.allocation.key(), rollout.rewards.tobytes(), figures))
        if episode + staleness < last:
            flying[episode + staleness] = agent.behaviour(episode + staleness)
    return lines


@pytest.mark.parametrize("name", list(AGENTS))
def test_equal_seeds_give_equal_searches(name: str) -> None:
    env = make_env()
    first, second = make(name, env), make(name, env)
    np.random.seed(1)
    torch.manual_seed(1)
    lines = play(env, first, 0, EPISODES)
    np.random.seed(2)
    torch.manual_seed(2)
    assert lines == play(env, second, 0, EPISODES)
    assert_equal_states(first.state(), second.state())


@pytest.mark.parametrize("staleness", [1, 3])
@pytest.mark.parametrize("name", list(AGENTS))
def test_a_search_resumed_from_its_state_goes_on_bit_for_bit(name: str, staleness: int) -> None:
    env = make_env()
    whole = make(name, env)
    lines = play(env, whole, 0, EPISODES, staleness)

    interrupted = make(name, env)
    kept: list[AgentState] = []
    flying = {e: interrupted.behaviour(e) for e in range(staleness)}
    for episode in range(12):
        targets = sample_targets(env.targets, episode, 0)
        interrupted.learn(run_episode(env, flying.pop(episode), seed=0, episode=episode, targets=targets))
        kept.append(through_disk(interrupted.state()))
        flying[episode + staleness] = interrupted.behaviour(episode + staleness)

    for cut in (3, 12):
        resumed = make(name, env)
        resumed.load_state(kept[cut - 1])
        assert lines[cut:] == play(env, resumed, cut, EPISODES, staleness)
        assert_equal_states(resumed.state(), whole.state())


def test_states_are_copies() -> None:
    env = make_env()
    agent = make("ddpg", env)
    play(env, agent, 0, 12)
    state = agent.state()
    before = {name: array.copy() for name, array in state.arrays.items()}
    play(env, agent, 12, 16)
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(array, before[name])
    for array in state.arrays.values():
        array.fill(0)
    assert agent.state().arrays["policy/actor.mu.0.weight"].any()


@pytest.mark.parametrize("name", list(AGENTS))
def test_a_behaviour_stays_the_same_until_its_episode_is_learned_from(name: str) -> None:
    env = make_env()
    agent = make(name, env)
    play(env, agent, 0, 10)
    before = agent.behaviour(13)
    weights = pickle.dumps(before)
    play(env, agent, 10, 13)
    assert pickle.dumps(agent.behaviour(13)) == weights
    assert agent.behaviour(13).name == before.name
    with pytest.raises(UserError, match="13 or later"):
        agent.behaviour(12)


@pytest.mark.parametrize("name", list(AGENTS))
def test_episodes_out_of_order_and_foreign_states_are_refused(name: str) -> None:
    env = make_env()
    agent = make(name, env)
    rollout = run_episode(env, agent.behaviour(1), seed=0, episode=1)
    with pytest.raises(UserError, match="episode 0 is next"):
        agent.learn(rollout)
    with pytest.raises(UserError, match="'nobody'"):
        agent.load_state(AgentState({}, {"agent": "nobody"}))


def test_a_state_of_another_shape_is_refused() -> None:
    env = make_env()
    state = make("ddpg", env).state()
    other = make_agent(AgentConfig(ddpg=SMALL.model_copy(update={"net_arch": (8,)})), env, EPISODES, 0)
    with pytest.raises(UserError, match="net_arch"):
        other.load_state(state)
    table = residual()
    sparsity = CompressionEnv(table, make_profile(table), by_profile(table, make_profile(table)), EnvConfig())
    with pytest.raises(UserError, match="settings of the search"):
        make("ddpg", sparsity).load_state(state)


def test_global_random_streams_are_left_alone() -> None:
    env = make_env()
    torch.manual_seed(3)
    np.random.seed(3)
    before = (torch.get_rng_state().clone(), np.random.get_state()[1].copy())
    play(env, make("ddpg", env), 0, 10)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_replay_holds_executed_actions_and_the_whole_reward() -> None:
    for credit in ("terminal", "spread", "return"):
        env = make_env()
        config = SMALL.model_copy(update={"credit": credit, "buffer_size": 1000, "relabel": False})
        agent = make_agent(AgentConfig(ddpg=config), env, EPISODES, 0)
        rollout = run_episode(env, agent.behaviour(0), seed=0, episode=0)
        agent.learn(rollout)
        arrays = agent.state().arrays
        steps = len(env.space)
        np.testing.assert_array_equal(arrays["replay/actions"][:, 0], rollout.actions)
        np.testing.assert_array_equal(arrays["replay/observations"][:, 0], rollout.observations[:-1])
        np.testing.assert_array_equal(arrays["replay/next_observations"][:, 0], rollout.observations[1:])
        total = rollout.rewards.sum() * (steps if credit == "return" else 1)
        assert arrays["replay/rewards"].sum() == pytest.approx(total, rel=1e-5)
        assert arrays["replay/shares"].sum() == pytest.approx(steps if credit == "return" else 1)
        assert arrays["replay/dones"].sum() == (steps if credit == "return" else 1)


def test_the_oldest_transitions_give_way() -> None:
    env = make_env()
    agent = make("ddpg", env)
    play(env, agent, 0, EPISODES)
    assert len(agent.state().arrays["replay/rewards"]) == SMALL.buffer_size


def test_the_baseline_is_the_moving_average_of_the_rewards_at_the_end() -> None:
    env = make_env()
    config = SMALL.model_copy(update={"baseline_decay": 0.5})
    agent = make_agent(AgentConfig(ddpg=config), env, EPISODES, 0)
    found = []
    for episode in range(3):
        rollout = run_episode(env, agent.behaviour(episode), seed=0, episode=episode)
        found.append(rollout.outcome.rewards["terminal"])
        figures = agent.learn(rollout)
    weights = np.array([0.125, 0.25, 0.5])
    assert figures["baseline"] == pytest.approx(float(weights @ found / weights.sum()))


def test_warm_up_is_at_most_a_quarter_of_the_search() -> None:
    env = make_env()
    names = [make_agent(AgentConfig(), env, 12, 0).behaviour(episode).name for episode in range(5)]
    assert names == ["even", "random", "spread", "actor", "actor"]


def test_unknown_agent_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'ddpg'"):
        make_agent(AgentConfig(name="dpg"), make_env(), 10, 0)
    assert all(AGENTS.entry(name).summary for name in AGENTS)
