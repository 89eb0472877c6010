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
"""Weight and bias of each linear layer in turn."""


def actor_weights(state: Mapping[str, Any]) -> Weights:
    """Copies of the weights of a Stable-Baselines3 actor, from its `state_dict`."""
    return tuple(value.detach().cpu().numpy().copy() for name, value in state.items() if name.startswith("mu."))


def forward(weights: Weights, observation: Observation) -> NDArray[np.float32]:
    """What the actor does: linear layers with ReLU between them, then tanh.

    Args:
        weights: From `actor_weights`.
        observation: `(..., columns)`.
    """
    hidden = observation
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        hidden = np.maximum(hidden @ weight.T + bias, 0)
    weight, bias = pairs[-1]
    return np.asarray(np.tanh(hidden @ weight.T + bias), dtype=np.float32)


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
