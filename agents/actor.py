"""The actor without a learning library: a forward pass in numpy, small enough to send to any worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.noise import truncated_normal
from envs.compression import CompressionEnv
from envs.decisions import Action
from envs.observation import Observation

Weights = tuple[NDArray[np.float32], ...]
"""Weight and bias of each linear layer in turn; of a Gaussian actor the last two layers are mean and log_std."""

LOG_STD_RANGE = (-20.0, 2.0)
"""Bounds of a Gaussian actor's log_std, those of Stable-Baselines3."""

_LAYERS = ("latent_pi.", "mu.", "log_std.")


def actor_weights(state: Mapping[str, Any]) -> Weights:
    """Copies of the weights of a Stable-Baselines3 actor (of DDPG, TD3 or SAC), from its `state_dict`."""
    return tuple(value.detach().cpu().numpy().copy() for name, value in state.items() if name.startswith(_LAYERS))


def forward(weights: Weights, observation: Observation) -> NDArray[np.float32]:
    """What the actor of DDPG and TD3 does: linear layers with ReLU between them, then tanh.

    Args:
        weights: From `actor_weights`.
        observation: `(..., columns)`.
    """
    return np.asarray(np.tanh(_linear(weights[-2:], _hidden(weights[:-2], observation))), dtype=np.float32)


def gaussian(weights: Weights, observation: Observation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the actor of SAC does: mean and standard deviation of the action before its tanh.

    Args:
        weights: From `actor_weights`.
        observation: `(..., columns)`.
    """
    hidden = _hidden(weights[:-4], observation)
    log_std = _linear(weights[-2:], hidden).clip(*LOG_STD_RANGE)
    return _linear(weights[-4:-2], hidden), np.asarray(np.exp(log_std), dtype=np.float32)


@dataclass(frozen=True)
class ActorBehaviour:
    """Plays what the actor says, with noise.

    Attributes:
        weights: The actor.
        sigma: Standard deviation of the noise.
        name: A word for the ledger.
    """

    weights: Weights
    sigma: float
    name: str = "actor"

    def act(self, observation: Observation, env: CompressionEnv, rng: np.random.Generator) -> Action:
        """A sample around the actor's action, within [-1, 1]."""
        return truncated_normal(forward(self.weights, observation), self.sigma, rng)


@dataclass(frozen=True)
class GaussianBehaviour:
    """Plays samples of an actor that says itself how sure it is.

    Attributes:
        weights: The actor.
        name: A word for the ledger.
    """

    weights: Weights
    name: str = "actor"

    def act(self, observation: Observation, env: CompressionEnv, rng: np.random.Generator) -> Action:
        """The tanh of a sample of the actor's normal distribution."""
        mean, std = gaussian(self.weights, observation)
        return np.asarray(np.tanh(mean + std * rng.standard_normal(mean.shape)), dtype=np.float32)


def _hidden(weights: Weights, observation: Observation) -> NDArray[np.float32]:
    hidden = observation
    for pair in zip(weights[::2], weights[1::2], strict=True):
        hidden = np.maximum(_linear(pair, hidden), 0)
    return hidden


def _linear(pair: Weights, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    weight, bias = pair
    return np.asarray(inputs @ weight.T + bias, dtype=np.float32)
