from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm
from stable_baselines3.common.policies import BasePolicy

from agents.actor import actor_weights, forward
from agents.config import DDPGConfig
from agents.ddpg import DDPGAgent
from agents.noise import sigma_at, truncated_normal
from envs.compression import CompressionEnv
from tests.toys import chain, constant, make_profile


@given(st.floats(-1, 1, width=32), st.floats(0, 3), st.integers(0, 1000))
def test_samples_stay_within_the_range(mean: float, sigma: float, seed: int) -> None:
    sample = truncated_normal(np.full(5, mean, np.float32), sigma, np.random.default_rng(seed))
    assert sample.dtype == np.float32
    assert (np.abs(sample) <= 1).all()


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.5), (0.9, 0.3), (-1.0, 0.05)])
def test_moments_are_those_of_the_truncated_normal(mean: float, sigma: float) -> None:
    sample = truncated_normal(np.full(40_000, mean, np.float32), sigma, np.random.default_rng(0))
    exact = truncnorm((-1 - mean) / sigma, (1 - mean) / sigma, loc=mean, scale=sigma)
    assert sample.mean() == pytest.approx(exact.mean(), abs=0.01)
    assert sample.std() == pytest.approx(exact.std(), abs=0.01)


def test_no_noise_gives_the_mean() -> None:
    mean = np.array([0.3, -1], np.float32)
    np.testing.assert_array_equal(truncated_normal(mean, 0, np.random.default_rng(0)), mean)


def test_sigma_decays_geometrically_by_episode() -> None:
    values = [sigma_at(episode, 10, 50, 0.5, 0.02) for episode in (0, 10, 30, 50, 99)]
    np.testing.assert_allclose(values, [0.5, 0.5, 0.1, 0.02, 0.02])
    assert sigma_at(5, 0, 0, 0.5, 0.02) == 0.5


def test_the_numpy_actor_is_the_torch_actor() -> None:
    table = chain()
    env = CompressionEnv(table, make_profile(table), constant())
    agent = DDPGAgent(DDPGConfig(net_arch=(32, 16)), env, 10, 0)
    actor: BasePolicy = agent._model.actor
    observations = np.random.default_rng(0).random((20, env.observation_space.shape[0])).astype(np.float32)
    with torch.no_grad():
        expected = actor(torch.from_numpy(observations)).numpy()
    weights = actor_weights(actor.state_dict())
    np.testing.assert_allclose(forward(weights, observations), expected, atol=1e-6)
    weights[0][:] = 0
    assert actor.state_dict()["mu.0.weight"].abs().max() > 0
