"""What TD3 and SAC add to the contract that every agent keeps (see `test_agents.py`)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from stable_baselines3 import SAC, TD3

from agents.actor import LOG_STD_RANGE, ActorBehaviour, GaussianBehaviour, Weights, forward, gaussian
from agents.config import AgentConfig, DDPGConfig, OffPolicyConfig, SACConfig, TD3Config
from agents.learner import Learner
from agents.registry import make_agent
from agents.rollout import run_episode
from automl.config import parse
from compressors.errors import UserError
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from tests.states import assert_equal_states, through_disk
from tests.toys import by_profile, chain, make_profile

EPISODES = 24
SMALL = {"net_arch": (24, 16), "batch_size": 16, "warmup_episodes": 4}
PLAIN = {"surrogate": False, "pretrain_episodes": 0, "imagined_episodes": 0, "relabel": False}
SETTINGS: dict[str, type[OffPolicyConfig]] = {"ddpg": DDPGConfig, "td3": TD3Config, "sac": SACConfig}


def make_env() -> CompressionEnv:
    table = chain()
    profile = make_profile(table)
    return CompressionEnv(table, profile, by_profile(table, profile), EnvConfig(mode="both", targets=("macs=0.5",)))


def make(name: str, env: CompressionEnv, seed: int = 0, **changes: Any) -> Any:
    config = SETTINGS[name](**{**SMALL, **(PLAIN if name == "ddpg" else {}), **changes})
    return make_agent(AgentConfig.model_validate({"name": name, name: config}), env, EPISODES, seed)


def play(env: CompressionEnv, agent: Any, first: int, last: int) -> list[dict[str, float]]:
    return [agent.learn(run_episode(env, agent.behaviour(e), seed=0, episode=e)) for e in range(first, last)]


def observations(env: CompressionEnv, count: int = 20) -> np.ndarray:
    columns = env.observation_space.shape[0]
    return np.random.default_rng(0).normal(0, 3, (count, columns)).astype(np.float32)


# Behaviours


@pytest.mark.parametrize("net_arch", [(), (32, 16)])
def test_the_numpy_gaussian_is_the_actor_of_sac(net_arch: tuple[int, ...]) -> None:
    env = make_env()
    learner = make("sac", env, net_arch=net_arch)._model
    seen = observations(env)
    with torch.no_grad():
        mean, log_std, _ = learner.actor.get_action_dist_params(torch.from_numpy(seen))
    found = gaussian(learner.weights(), seen)
    np.testing.assert_allclose(found[0], mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], log_std.exp().numpy(), rtol=1e-5)
    assert all(array.dtype == np.float32 for array in found)


@pytest.mark.parametrize(("bias", "bound"), [(50.0, LOG_STD_RANGE[1]), (-50.0, LOG_STD_RANGE[0])])
def test_log_std_is_clipped_as_the_library_does(bias: float, bound: float) -> None:
    env = make_env()
    learner = make("sac", env)._model
    learner.actor.log_std.bias.data.fill_(bias)
    seen = observations(env)
    with torch.no_grad():
        expected = learner.actor.get_action_dist_params(torch.from_numpy(seen))[1].exp()
    std = gaussian(learner.weights(), seen)[1]
    np.testing.assert_allclose(std, expected.numpy(), rtol=1e-5)
    np.testing.assert_allclose(std, np.exp(bound), rtol=1e-5)


def test_samples_of_the_gaussian_have_its_moments_before_the_tanh() -> None:
    env = make_env()
    # No hidden layer, no weight: mean 0.4 and -0.2, log_std -1 and -0.5 everywhere.
    axes, columns = 2, env.observation_space.shape[0]
    blank = np.zeros((axes, columns), np.float32)
    weights: Weights = (blank, np.array([0.4, -0.2], np.float32), blank, np.array([-1, -0.5], np.float32))
    behaviour, rng = GaussianBehaviour(weights), np.random.default_rng(0)
    samples = np.stack([behaviour.act(np.ones(columns, np.float32), env, rng) for _ in range(20_000)])
    assert samples.dtype == np.float32
    assert (np.abs(samples) <= 1).all()
    np.testing.assert_allclose(np.arctanh(samples).mean(0), [0.4, -0.2], atol=0.02)
    np.testing.assert_allclose(np.arctanh(samples).std(0), np.exp([-1, -0.5]), atol=0.02)


def test_each_agent_plays_its_own_kind_of_actor() -> None:
    env = make_env()
    kinds = {name: type(make(name, env).behaviour(10)) for name in SETTINGS}
    assert kinds == {"ddpg": ActorBehaviour, "td3": ActorBehaviour, "sac": GaussianBehaviour}
    td3 = make("td3", env)
    seen = observations(env)
    with torch.no_grad():
        expected = td3._model.actor(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(forward(td3._model.weights(), seen), expected, atol=1e-6)


# Learning


@pytest.mark.parametrize(("name", "library"), [("td3", TD3), ("sac", SAC)])
def test_settings_reach_the_library(name: str, library: type) -> None:
    own = {
        "td3": {"policy_delay": 3, "target_policy_noise": 0.3, "target_noise_clip": 0.4},
        "sac": {"ent_coef_start": 0.25, "ent_coef_learning_rate": 0.02},
    }[name]
    common = {"gamma": 0.9, "tau": 0.03, "actor_learning_rate": 0.002, "critic_learning_rate": 0.003}
    agent = make(name, make_env(), **common, **own)
    play(make_env(), agent, 0, 10)
    algorithm = agent._model._algorithm
    assert isinstance(algorithm, library)
    assert (algorithm.gamma, algorithm.tau, algorithm.batch_size) == (0.9, 0.03, 16)
    rates = {who: optimizer.param_groups[0]["lr"] for who, optimizer in agent._model._optimizers().items()}
    expected = {"actor": 0.002, "critic": 0.003}
    if isinstance(algorithm, TD3):
        assert (algorithm.policy_delay, algorithm.target_policy_noise, algorithm.target_noise_clip) == (3, 0.3, 0.4)
        assert rates == expected
    else:
        assert rates == {**expected, "ent_coef": 0.02}
        assert algorithm.target_entropy == -2.0
        fresh = make(name, make_env(), **own)._model.arrays()["log_ent_coef"]
        assert np.exp(fresh) == pytest.approx(0.25)


def test_td3_updates_the_actor_only_every_so_many_steps() -> None:
    env = make_env()
    agent = make("td3", env, policy_delay=4)
    play(env, agent, 0, 8)
    updates = agent._model.updates
    assert updates % 4 == 0
    before = agent._model.weights()
    assert set(agent._fit(3)) == {"critic_loss"}
    for left, right in zip(before, agent._model.weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert set(agent._fit(1)) == {"critic_loss", "actor_loss"}
    assert any((left != right).any() for left, right in zip(before, agent._model.weights(), strict=True))


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_learning_depends_on_seed_and_steps_alone(name: str) -> None:
    """The noise of a gradient step is not that of another seed, nor of another step, nor of torch's global stream."""
    env = make_env()
    draws: list[torch.Tensor] = []

    def spy(learner: Learner) -> None:
        train = learner._algorithm.train

        def noting(gradient_steps: int, batch_size: int) -> None:
            draws.append(torch.rand(4))
            train(gradient_steps=gradient_steps, batch_size=batch_size)

        learner._algorithm.train = noting  # type: ignore[method-assign]

    for seed, noise in ((0, 1), (0, 2), (5, 1)):
        torch.manual_seed(noise)
        agent = make(name, env, seed)
        spy(agent._model)
        before = torch.get_rng_state()
        play(env, agent, 0, 6)
        assert torch.equal(before, torch.get_rng_state())
    runs = [torch.stack(draws[start : start + len(draws) // 3]) for start in range(0, len(draws), len(draws) // 3)]
    assert len(runs[0]) > 2
    assert torch.equal(runs[0], runs[1])
    assert not torch.isin(runs[0], runs[2]).any()
    assert len(runs[0].unique(dim=0)) == len(runs[0])


@pytest.mark.parametrize("name", list(SETTINGS))
def test_many_small_fits_go_on_from_a_state_between_them(name: str) -> None:
    """What learns between episodes (more than one fit an episode) is resumed bit for bit, too."""
    env = make_env()
    whole = make(name, env)
    play(env, whole, 0, 8)
    whole._fit(3)
    resumed = make(name, env)
    resumed.load_state(through_disk(whole.state()))
    for agent in (whole, resumed):
        agent._fit(2)
        agent._fit(5)
    assert_equal_states(whole.state(), resumed.state())


@pytest.mark.parametrize("ent_coef", ["auto", 0.05])
def test_the_entropy_coefficient_is_part_of_the_state(ent_coef: Any) -> None:
    env = make_env()
    agent = make("sac", env, ent_coef=ent_coef)
    figures = play(env, agent, 0, 12)
    arrays = agent.state().arrays
    if ent_coef == "auto":
        assert np.exp(arrays["log_ent_coef"]) != pytest.approx(SACConfig().ent_coef_start)
        assert {f"ent_coef_optimizer/0/{part}" for part in ("step", "exp_avg", "exp_avg_sq")} <= set(arrays)
        # The same object that the optimizer moves, so a resumed search goes on learning it.
        resumed = make("sac", env)
        resumed.load_state(agent.state())
        before = resumed.state().arrays["log_ent_coef"]
        np.testing.assert_array_equal(before, arrays["log_ent_coef"])
        resumed._fit(1)
        assert resumed.state().arrays["log_ent_coef"] != before
    else:
        assert not [name for name in arrays if "ent_coef" in name]
        assert figures[-1]["ent_coef"] == pytest.approx(0.05)


def test_a_state_with_another_kind_of_entropy_coefficient_is_refused() -> None:
    env = make_env()
    learned, fixed = make("sac", env), make("sac", env, ent_coef=0.05)
    for into, state in ((learned, fixed.state()), (fixed, learned.state())):
        with pytest.raises(UserError, match="ent_coef is 'auto' or a number"):
            into.load_state(state)


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_a_state_of_another_architecture_is_refused(name: str) -> None:
    env = make_env()
    with pytest.raises(UserError, match="net_arch"):
        make(name, env, net_arch=(8,)).load_state(make(name, env).state())


@pytest.mark.parametrize("name", list(SETTINGS))
def test_gradient_steps_per_episode_are_bounded(name: str) -> None:
    env = make_env()
    for changes, expected in (
        ({"min_gradient_steps": 7, "gradient_steps": 0.01}, 7),
        ({"gradient_steps": 99, "max_gradient_steps": 9}, 9),
        ({"batch_size": 1000}, 0),
        ({"batch_size": 1000, "buffer_size": 3}, 12),
    ):
        agent = make(name, env, **changes)
        play(env, agent, 0, 6)
        before = agent._model.updates
        play(env, agent, 6, 7)
        assert agent._model.updates - before == expected


# Settings


def test_settings_written_for_ddpg_alone_stay_valid() -> None:
    old = {
        "name": "ddpg",
        "ddpg": {
            "net_arch": [300, 300],
            "actor_learning_rate": 1e-4,
            "critic_learning_rate": 1e-3,
            "gamma": 1.0,
            "tau": 0.01,
            "batch_size": 64,
            "buffer_size": 20_000,
            "gradient_steps": 1.25,
            "min_gradient_steps": 12,
            "max_gradient_steps": 24,
            "warmup_episodes": 20,
            "noise_start": 0.5,
            "noise_end": 0.05,
            "credit": "spread",
            "baseline_decay": 0.95,
            "scale_reward": True,
        },
    }
    assert AgentConfig.model_validate(old).ddpg.noise_start == 0.5
    assert AgentConfig.model_validate(json.loads(AgentConfig().model_dump_json())) == AgentConfig()


@pytest.mark.parametrize("value", ["automatic", "", -0.1, True, None, [0.1]])
def test_a_wrong_entropy_coefficient_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(ValidationError):
        SACConfig(ent_coef=value)
    with pytest.raises(UserError, match=r"^Setting 'sac\.ent_coef': must be 'auto' or a number of at least 0") as error:
        parse(AgentConfig, {"sac": {"ent_coef": value}})
    assert "\n" not in str(error.value)


def test_settings_of_one_algorithm_are_not_those_of_another() -> None:
    for name, setting in (("sac", "noise_start"), ("ddpg", "policy_delay"), ("td3", "ent_coef")):
        with pytest.raises(UserError, match=f"Unknown setting '{name}.{setting}'"):
            parse(AgentConfig, {name: {setting: 1}})
