"""Off-policy agents: a learner inside the search's protocol, as DDPG, TD3 and SAC.

DDPG is used for layer-wise compression by He et al., AMC, ECCV 2018. What differs from AMC: the executed action is what
is learned from, the target is part of the observation, returns are scaled, and the first episodes are played by plans
from the profile.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from agents.actor import ActorBehaviour, GaussianBehaviour, Weights
from agents.config import NoisyConfig, OffPolicyConfig, SACConfig, TD3Config
from agents.learner import Learner, sac_learner, td3_learner, under
from agents.noise import sigma_at
from agents.protocol import AgentState, Behaviour, Rollout, check_episode, check_next, check_state
from agents.replay import Replay
from agents.warmup import warmup_behaviour
from envs.compression import CompressionEnv

_REPLAY_STREAM = 1

Config = TypeVar("Config", bound=OffPolicyConfig)
Noisy = TypeVar("Noisy", bound=NoisyConfig)


class OffPolicyAgent(ABC, Generic[Config]):
    """Learns one actor for all targets of a search, from every episode that it remembers.

    Attributes:
        name: Its name in the registry.
        config: Settings.
        warmup: Episodes that are played by plans.
    """

    name: ClassVar[str]

    def __init__(self, config: Config, env: CompressionEnv, episodes: int, seed: int) -> None:
        """Makes a fresh agent.

        Args:
            config: Settings.
            env: Only its spaces are read.
            episodes: Length of the search, for the warm-up and the noise.
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
        self._model = self._make_learner(env, seed)

    @abstractmethod
    def _make_learner(self, env: CompressionEnv, seed: int) -> Learner:
        """The algorithm, learning from the agent's replay."""

    @abstractmethod
    def _behave(self, weights: Weights, sigma: float, version: int) -> Behaviour:
        """How the actor that had learned from `version` episodes plays."""

    def _sigma(self, episode: int) -> float:
        """Exploration noise of an episode; 0 where the actor explores by itself."""
        return 0.0

    def behaviour(self, episode: int) -> Behaviour:
        """A plan during the warm-up, then the actor of now with the episode's noise."""
        check_episode(self.name, self._learned, episode)
        return warmup_behaviour(episode, self.config.warm_start) if episode < self.warmup else self._play(episode)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Remembers the episode and makes gradient steps.

        Returns:
            `baseline`, `replay` (transitions remembered), and, once there is enough, what `Learner.fit` says.
        """
        check_next(self.name, self._learned, rollout)
        self._learned += 1
        self._forget(rollout.episode)
        self._remember(rollout)
        wanted = math.ceil(self.config.gradient_steps * len(rollout.actions))
        steps = min(max(wanted, self.config.min_gradient_steps), self.config.max_gradient_steps)
        return {"baseline": self._replay.offset, "replay": float(self._replay.size())} | self._fit(steps)

    def state(self) -> AgentState:
        """Actor, critics, their targets and optimizers, replay, baseline, random stream, issued behaviours."""
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
        self._replay.load(under(state.arrays, "replay/"), meta["replay"])
        self._model.load_arrays(state.arrays, int(meta["updates"]))
        self._learned = int(meta["learned"])
        self._mean, self._square, self._weight = (float(value) for value in meta["moments"])
        self._issued = {int(episode): (int(version), float(sigma)) for episode, version, sigma in meta["issued"]}
        self._versions = {}
        for version in {version for version, _ in self._issued.values()}:
            found = under(state.arrays, f"actors/{version}/")
            self._versions[version] = tuple(found[str(index)].copy() for index in range(len(found)))

    def _play(self, episode: int) -> Behaviour:
        """The actor of now, or the one that was handed out for this episode before."""
        if episode not in self._issued:
            self._issued[episode] = (self._learned, self._sigma(episode))
            if self._learned not in self._versions:
                self._versions[self._learned] = self._model.weights()
        version, sigma = self._issued[episode]
        return self._behave(self._versions[version], sigma, version)

    def _forget(self, episode: int) -> None:
        """Drops the behaviour of an episode that is over, and actors that nobody plays any more."""
        self._issued.pop(episode, None)
        used = {version for version, _ in self._issued.values()}
        self._versions = {version: weights for version, weights in self._versions.items() if version in used}

    def _remember(self, rollout: Rollout) -> None:
        """Puts an executed episode into the replay and moves the baseline."""
        terminal = rollout.outcome.rewards["terminal"]
        self._follow(terminal)
        rewards = rollout.rewards.copy()
        rewards[-1] -= terminal
        self._store(rollout.observations, rollout.actions, rewards, terminal)

    def _store(
        self,
        observations: NDArray[np.float32],
        actions: NDArray[np.float32],
        rewards: NDArray[np.float32],
        terminal: float,
    ) -> None:
        """Puts an episode of T steps into the replay, its reward at the end credited as configured.

        Args:
            observations: `(T + 1, O)`.
            actions: Executed, `(T, A)`.
            rewards: Without the reward at the end, `(T,)`.
            terminal: The reward at the end.
        """
        steps = len(actions)
        credited = rewards.astype(np.float64)
        shares, dones = np.zeros(steps), np.zeros(steps)
        dones[-1] = 1
        if self.config.credit == "terminal":
            shares[-1] = 1
        elif self.config.credit == "spread":
            shares[:] = 1 / steps
        else:
            shares[:], dones[:] = 1, 1
            credited[:] = credited.sum()
        credited += terminal * shares
        as_float32 = (array.astype(np.float32) for array in (credited, shares, dones))
        self._replay.add_episode(observations, actions, *as_float32)

    def _fit(self, steps: int) -> dict[str, float]:
        """Makes gradient steps if there is enough to learn from; figures for people."""
        return self._model.fit(steps) if self._model.ready else {}

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


class NoisyAgent(OffPolicyAgent[Noisy]):
    """An off-policy agent whose actor is certain, so that noise has to explore."""

    def _behave(self, weights: Weights, sigma: float, version: int) -> Behaviour:
        return ActorBehaviour(weights, sigma)

    def _sigma(self, episode: int) -> float:
        return sigma_at(episode, self.warmup, self._episodes - 1, self.config.noise_start, self.config.noise_end)


class TD3Agent(NoisyAgent[TD3Config]):
    """Learns with TD3."""

    name = "td3"

    def _make_learner(self, env: CompressionEnv, seed: int) -> Learner:
        return td3_learner(self.config, env, self._replay, seed)


class SACAgent(OffPolicyAgent[SACConfig]):
    """Learns with SAC; its actor's own randomness explores."""

    name = "sac"

    def _make_learner(self, env: CompressionEnv, seed: int) -> Learner:
        return sac_learner(self.config, env, self._replay, seed)

    def _behave(self, weights: Weights, sigma: float, version: int) -> Behaviour:
        return GaussianBehaviour(weights)
