"""DDPG: Stable-Baselines3's learner inside the search's protocol.

Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016; used for layer-wise compression by
He et al., AMC, ECCV 2018. What differs from AMC: the executed action is what is learned from, the target is part of
the observation, returns are scaled, and the first episodes are played by plans from the profile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DDPG
from stable_baselines3.common.logger import Logger

from agents.actor import ActorBehaviour, Weights, actor_weights
from agents.config import DDPGConfig
from agents.noise import sigma_at
from agents.protocol import AgentState, Behaviour, Rollout, check_episode, check_next, check_state
from agents.replay import Replay
from agents.warmup import warmup_behaviour
from compressors.errors import UserError
from compressors.threads import single_threaded
from envs.compression import CompressionEnv

_REPLAY_STREAM = 1
_WEIGHT_STREAM = 2


class DDPGAgent:
    """Learns one actor for all targets of a search.

    Attributes:
        name: `ddpg`.
        config: Settings.
        warmup: Episodes that are played by plans.
    """

    name = "ddpg"

    def __init__(self, config: DDPGConfig, env: CompressionEnv, episodes: int, seed: int) -> None:
        """Makes a fresh agent.

        Args:
            config: Settings.
            env: Only its spaces are read.
            episodes: Length of the search, for the noise.
            seed: Seed of the search.
        """
        self.config = config
        self.warmup = min(config.warmup_episodes, episodes // 4)
        self._episodes = episodes
        self._learned = 0
        self._mean = 0.0
        self._square = 0.0
        self._weight = 0.0
        self._issued: dict[int, tuple[int, float]] = {}  # by episode: version of the actor, sigma
        self._versions: dict[int, Weights] = {}
        self._replay = Replay(config.buffer_size, env.observation_space, env.action_space, [seed, _REPLAY_STREAM])
        with _own_torch_randomness(seed):
            self._model = _Learner(config, env, self._replay)

    def behaviour(self, episode: int) -> Behaviour:
        """A plan during the warm-up, then the actor of now with the episode's noise."""
        check_episode(self.name, self._learned, episode)
        if episode < self.warmup:
            return warmup_behaviour(episode)
        if episode not in self._issued:
            last, config = self._episodes - 1, self.config
            sigma = sigma_at(episode, self.warmup, last, config.noise_start, config.noise_end)
            self._issued[episode] = (self._learned, sigma)
            if self._learned not in self._versions:
                self._versions[self._learned] = actor_weights(self._model.actor.state_dict())
        version, sigma = self._issued[episode]
        return ActorBehaviour(self._versions[version], sigma)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Remembers the episode and makes gradient steps.

        Returns:
            `actor_loss`, `critic_loss` and `baseline`, as far as there are any.
        """
        check_next(self.name, self._learned, rollout)
        self._learned += 1
        self._forget(rollout.episode)
        self._remember(rollout)
        figures = {"baseline": self._replay.offset}
        if self._replay.size() >= min(self.config.batch_size, self.config.buffer_size):
            wanted = math.ceil(self.config.gradient_steps * len(rollout.actions))
            steps = min(max(wanted, self.config.min_gradient_steps), self.config.max_gradient_steps)
            with single_threaded(), _own_torch_randomness(None):
                figures |= self._model.fit(steps)
        return figures

    def state(self) -> AgentState:
        """Actor, critic, their targets and optimizers, replay, baseline, random stream, issued behaviours."""
        arrays = {f"replay/{name}": array for name, array in self._replay.arrays().items()}
        arrays |= self._model.arrays()
        for version, weights in self._versions.items():
            arrays |= {f"actors/{version}/{index}": weight.copy() for index, weight in enumerate(weights)}
        meta = {
            "agent": self.name,
            "learned": self._learned,
            "moments": [self._mean, self._square, self._weight],
            "issued": [[episode, version, sigma] for episode, (version, sigma) in self._issued.items()],
            "replay": self._replay.meta(),
            "updates": self._model.updates,
        }
        return AgentState(arrays, meta)

    def load_state(self, state: AgentState) -> None:
        """Takes over a state."""
        check_state(self.name, state)
        meta = state.meta
        self._replay.load(_under(state.arrays, "replay/"), meta["replay"])
        self._model.load_arrays(state.arrays, int(meta["updates"]))
        self._learned = int(meta["learned"])
        self._mean, self._square, self._weight = (float(value) for value in meta["moments"])
        self._issued = {int(episode): (int(version), float(sigma)) for episode, version, sigma in meta["issued"]}
        self._versions = {}
        for version in {version for version, _ in self._issued.values()}:
            found = _under(state.arrays, f"actors/{version}/")
            self._versions[version] = tuple(found[str(index)].copy() for index in range(len(found)))

    def _forget(self, episode: int) -> None:
        """Drops the behaviour of an episode that is over, and actors that nobody plays any more."""
        self._issued.pop(episode, None)
        used = {version for version, _ in self._issued.values()}
        self._versions = {version: weights for version, weights in self._versions.items() if version in used}

    def _remember(self, rollout: Rollout) -> None:
        steps = len(rollout.actions)
        terminal = rollout.outcome.rewards["terminal"]
        rewards = rollout.rewards.astype(np.float64)
        shares, dones = np.zeros(steps), np.zeros(steps)
        dones[-1] = 1
        if self.config.credit == "terminal":
            shares[-1] = 1
        elif self.config.credit == "spread":
            shares[:] = 1 / steps
            rewards[-1] -= terminal
            rewards += terminal / steps
        else:
            shares[:], dones[:] = 1, 1
            rewards[:] = rewards.sum()
        self._follow(terminal)
        as_float32 = (array.astype(np.float32) for array in (rewards, shares, dones))
        self._replay.add_episode(rollout.observations, rollout.actions, *as_float32)

    def _follow(self, terminal: float) -> None:
        """Moves the baseline; early averages are corrected for their short memory, as Adam does."""
        decay = self.config.baseline_decay
        self._mean = decay * self._mean + (1 - decay) * terminal
        self._square = decay * self._square + (1 - decay) * terminal**2
        self._weight = decay * self._weight + (1 - decay)
        mean = self._mean / self._weight
        self._replay.offset = mean
        if self.config.scale_reward:
            deviation = math.sqrt(max(self._square / self._weight - mean**2, 0.0))
            # Below this the differences are the evaluation's noise, not worth magnifying.
            self._replay.scale = max(deviation, 0.01 * max(abs(mean), 1e-3))


class _Learner(DDPG):
    """Stable-Baselines3's DDPG without an env of its own, and with two learning rates."""

    def __init__(self, config: DDPGConfig, env: CompressionEnv, replay: Replay) -> None:
        super().__init__(
            "MlpPolicy",
            None,  # type: ignore[arg-type]  # the same way in which the library's own `load` begins
            batch_size=config.batch_size,
            tau=config.tau,
            gamma=config.gamma,
            # The fused optimizer takes a fifth off the time of a step.
            policy_kwargs={"net_arch": list(config.net_arch), "optimizer_kwargs": {"fused": True}},
            device="cpu",
            _init_setup_model=False,
        )
        self.rates = (config.actor_learning_rate, config.critic_learning_rate)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.n_envs = 1
        self.replay_buffer = replay
        self._setup_model()
        self.set_logger(Logger(None, []))

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return int(self._n_updates)

    def fit(self, steps: int) -> dict[str, float]:
        """Makes gradient steps; the losses."""
        self.train(gradient_steps=steps, batch_size=self.batch_size)
        values: Mapping[str, Any] = self.logger.name_to_value
        return {name: float(values[f"train/{name}"]) for name in ("actor_loss", "critic_loss")}

    def _update_learning_rate(self, optimizers: Any) -> None:
        for optimizer, rate in zip((self.actor.optimizer, self.critic.optimizer), self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all weights and optimizer states."""
        found = {f"policy/{name}": value.detach().numpy().copy() for name, value in self.policy.state_dict().items()}
        for who, optimizer in (("actor", self.actor.optimizer), ("critic", self.critic.optimizer)):
            for index, state in optimizer.state_dict()["state"].items():
                found |= {
                    f"{who}_optimizer/{index}/{name}": value.detach().numpy().copy() for name, value in state.items()
                }
        return found

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]], updates: int) -> None:
        """Takes over weights and optimizer states.

        Raises:
            UserError: They are of another architecture.
        """
        weights = {name: torch.from_numpy(np.array(value)) for name, value in _under(arrays, "policy/").items()}
        try:
            self.policy.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                "The checkpoint's actor and critic do not fit; resume with the net_arch, mode and version of the "
                f"search that wrote it ({' '.join(str(error).split())[:160]})."
            ) from None
        for who, optimizer in (("actor", self.actor.optimizer), ("critic", self.critic.optimizer)):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for path, value in _under(arrays, f"{who}_optimizer/").items():
                index, name = path.split("/")
                state.setdefault(int(index), {})[name] = torch.from_numpy(np.array(value))
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        self._n_updates = updates


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


@contextmanager
def _own_torch_randomness(seed: int | None) -> Iterator[None]:
    """Leaves torch's global random stream as it was; inside it starts from `seed` where one is given."""
    before = torch.get_rng_state()
    if seed is not None:
        torch.default_generator.manual_seed(int(np.random.default_rng([seed, _WEIGHT_STREAM]).integers(2**31)))
    try:
        yield
    finally:
        torch.set_rng_state(before)
