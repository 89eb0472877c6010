"""Replay of executed transitions, with its own random stream and a reward that may be re-centred."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from compressors.errors import UserError

_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones")


class Replay(ReplayBuffer):
    """Stable-Baselines3's buffer, but for its random numbers (it samples from numpy's global stream) and its rewards.

    Rewards are kept as they came. When sampled, `offset` is subtracted in proportion to the transition's part in the
    reward at the end, and the result is divided by `scale`, so that all of the memory follows the baseline.

    Attributes:
        offset: The baseline.
        scale: What rewards are divided by.
        shares: Each transition's part in the reward at the end, `(buffer_size,)`.
    """

    def __init__(
        self, size: int, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], seed: list[int]
    ) -> None:
        super().__init__(size, observation_space, action_space, device="cpu", handle_timeout_termination=False)
        self.rng = np.random.default_rng(seed)
        self.shares = np.zeros(self.buffer_size, dtype=np.float32)
        self.offset = 0.0
        self.scale = 1.0

    def add_episode(
        self,
        observations: NDArray[np.float32],
        actions: NDArray[np.float32],
        rewards: NDArray[np.float32],
        shares: NDArray[np.float32],
        dones: NDArray[np.float32],
    ) -> None:
        """Appends the transitions of one episode, the oldest ones giving way.

        Args:
            observations: `(T + 1, O)`.
            actions: Executed, `(T, A)`.
            rewards: `(T,)`.
            shares: Each transition's part in the reward at the end, `(T,)`.
            dones: 1 where the future does not count, `(T,)`.
        """
        for step in range(len(actions)):
            self.shares[self.pos] = shares[step]
            self.add(observations[step], observations[step + 1], actions[step], rewards[step], dones[step], [])

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Uniformly drawn transitions, with replacement; `env` is not used."""
        rows = self.rng.integers(self.size(), size=batch_size)
        rewards = (self.rewards[rows, 0] - self.offset * self.shares[rows]) / self.scale
        return ReplayBufferSamples(
            observations=torch.from_numpy(self.observations[rows, 0]),
            actions=torch.from_numpy(self.actions[rows, 0]),
            next_observations=torch.from_numpy(self.next_observations[rows, 0]),
            dones=torch.from_numpy(self.dones[rows]),
            rewards=torch.from_numpy(rewards.astype(np.float32)[:, None]),
        )

    def clear(self) -> None:
        """Forgets all transitions, the baseline and the scale; the random stream goes on."""
        self.pos, self.full, self.offset, self.scale = 0, False, 0.0, 1.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of what is filled."""
        rows = self.size()
        return {name: getattr(self, name)[:rows].copy() for name in _ARRAYS} | {"shares": self.shares[:rows].copy()}

    def meta(self) -> dict[str, Any]:
        """The rest of the state, as JSON can hold it."""
        return {
            "pos": self.pos,
            "full": self.full,
            "offset": self.offset,
            "scale": self.scale,
            "rng": self.rng.bit_generator.state,
        }

    def load(self, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
        """Takes over a state.

        Raises:
            UserError: The arrays do not fit this buffer.
        """
        for name in (*_ARRAYS, "shares"):
            mine, given = getattr(self, name), arrays[name]
            if given.shape[1:] != mine.shape[1:] or len(given) > len(mine):
                raise UserError(
                    f"The checkpoint's replay has {name} of shape {given.shape}, this search needs {mine.shape}; "
                    "resume with the settings of the search that wrote it."
                )
            mine[: len(given)] = given
        self.pos, self.full = int(meta["pos"]), bool(meta["full"])
        self.offset, self.scale = float(meta["offset"]), float(meta["scale"])
        self.rng.bit_generator.state = meta["rng"]
