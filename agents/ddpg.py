"""DDPG: an actor and a critic that learn from what was tried and from what is imagined.

Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016; used for layer-wise compression by He
et al., AMC, ECCV 2018. An evaluation takes seconds and an imagined episode milliseconds, so most of what this agent
does is imagined: a surrogate of the accuracy (Sutton 1991, Dyna) weighs the actor's plans and their neighbours before
one of them is evaluated, and rewards episodes that are never evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.actor import ActorBehaviour, Weights
from agents.batch import PlanBatch
from agents.config import DDPGConfig
from agents.learner import Learner, ddpg_learner
from agents.offpolicy import NoisyAgent
from agents.planner import PlannedByModel
from agents.protocol import AgentState, Behaviour, Rollout
from agents.surrogate import Surrogate
from compressors.layers import Ints
from compressors.threads import single_threaded
from envs.compression import CompressionEnv
from envs.evaluation import Outcome
from envs.rehearsal import Rehearsal, rehearse
from envs.reward import REWARDS, Finish
from envs.target import limit, sample_targets

_FEWEST = 5
_MOST = 300
_IMAGINATION_STREAM = 3


class DDPGAgent(NoisyAgent[DDPGConfig]):
    """Learns with DDPG, guided by a surrogate."""

    name = "ddpg"

    def __init__(self, config: DDPGConfig, env: CompressionEnv, episodes: int, seed: int) -> None:
        super().__init__(config, env, episodes, seed)
        self._env = env
        self._seed = seed
        self._batch = PlanBatch.of(env)
        self._choices: list[Ints] = []
        self._accuracies: list[float] = []
        self._errors: list[float] = []
        self._fitted: tuple[int, Surrogate] | None = None

    def _make_learner(self, env: CompressionEnv, seed: int) -> Learner:
        return ddpg_learner(self.config, env, self._replay, seed)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Remembers the episode, imagines others, and makes gradient steps."""
        if rollout.episode == 0 and self.config.pretrain_episodes:
            self._pretrain()
        return super().learn(rollout)

    def _behave(self, weights: Weights, sigma: float, version: int) -> Behaviour:
        actor = ActorBehaviour(weights, sigma)
        if not self.config.surrogate or version < _FEWEST:
            return actor
        known = np.stack(self._choices[max(0, version - _MOST) : version])
        return PlannedByModel(self.config, self._surrogate(version), known, actor)

    def _surrogate(self, version: int) -> Surrogate:
        """What the first `version` trials teach."""
        if self._fitted is None or self._fitted[0] != version:
            rows = slice(max(0, version - _MOST), version)
            features = self._batch.features(np.stack(self._choices[rows]))
            accuracies, errors = np.array(self._accuracies[rows]), np.array(self._errors[rows])
            with single_threaded():
                self._fitted = version, Surrogate.fit(features, accuracies, errors)
        return self._fitted[1]

    def _remember(self, rollout: Rollout) -> None:
        super()._remember(rollout)
        choices = [self._env.space.point(action) for action in rollout.actions]
        self._choices.append(self._batch.choices((np.stack(choices)[None] + 1) / 2)[0])
        self._accuracies.append(rollout.outcome.accuracy)
        self._errors.append(_standard_error(rollout.outcome))
        if self.config.relabel:
            self._relabel(rollout)
        if self.config.imagined_episodes and self._learned >= _FEWEST and self._env.config.reward != "front":
            self._imagine(rollout)

    def _relabel(self, rollout: Rollout) -> None:
        """Remembers the episode under another target of the search that it meets too (Andrychowicz et al. 2017)."""
        original, rng = self._env.costs.original, self._rng(rollout.episode, 0)
        limits = {}
        for target in self._env.targets:
            low = max(limit(target.kind, target.low, original), rollout.outcome.costs.of(target.kind))
            high = limit(target.kind, target.high, original)
            limits[target.kind] = int(rng.integers(low, high + 1))
        if limits == rollout.outcome.limits:
            return
        again = rehearse(self._env, lambda step, _: rollout.actions[step], limits)
        self._store(again.observations, again.actions, again.rewards, rollout.outcome.rewards["terminal"])

    def _imagine(self, rollout: Rollout) -> None:
        """Remembers episodes of the actor of now, with the accuracy that the surrogate gives them."""
        actor = ActorBehaviour(self._model.weights(), self._sigma(rollout.episode))
        surrogate, rng = self._surrogate(self._learned), self._rng(rollout.episode, 1)
        for _ in range(self.config.imagined_episodes):
            played = self._rehearsed(actor, rollout.outcome.limits, rng)
            guess = float(surrogate.predict(self._batch.features(np.array(played.choices)[None]))[0][0])
            terminal = REWARDS[self._env.config.reward](self._finish(played, guess))
            self._store(played.observations, played.actions, played.rewards, terminal)

    def _pretrain(self) -> None:
        """Learns to keep the profile's errors small before anything is evaluated, then forgets the episodes."""
        targets = self._env.targets
        for index in range(self.config.pretrain_episodes):
            rng = self._rng(index, 2)
            values = sample_targets(targets, index, self._seed)
            limits = {kind: limit(kind, value, self._env.costs.original) for kind, value in values.items()}
            actor = ActorBehaviour(self._model.weights(), self.config.noise_start)
            played = self._rehearsed(actor, limits, rng)
            error = float(self._batch.errors(np.array(played.choices)[None]).sum())
            self._follow(-error)
            self._store(played.observations, played.actions, played.rewards, -error)
            self._fit(self.config.min_gradient_steps)
        self._replay.clear()
        self._mean = self._square = self._weight = 0.0

    def _rehearsed(self, actor: ActorBehaviour, limits: Mapping[str, int], rng: np.random.Generator) -> Rehearsal:
        return rehearse(self._env, lambda _, observation: actor.act(observation, self._env, rng), limits)

    def _finish(self, played: Rehearsal, accuracy: float) -> Finish:
        costs = self._env.costs.of(self._env.space.allocate(played.choices))
        return Finish(accuracy, costs.flops, (1.0, accuracy))

    def _rng(self, episode: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, episode, _IMAGINATION_STREAM, purpose])

    def state(self) -> AgentState:
        """What every off-policy agent keeps, and the trials that the surrogate learns from."""
        found = super().state()
        steps = len(self._env.space)
        arrays: dict[str, NDArray[Any]] = {
            "surrogate/choices": np.array(self._choices, dtype=np.int64).reshape(-1, steps, 3),
            "surrogate/accuracies": np.array(self._accuracies, dtype=np.float64),
            "surrogate/errors": np.array(self._errors, dtype=np.float64),
        }
        return AgentState(found.arrays | arrays, found.meta)

    def load_state(self, state: AgentState) -> None:
        """Takes over a state."""
        super().load_state(state)
        self._choices = list(state.arrays["surrogate/choices"].copy())
        self._accuracies = state.arrays["surrogate/accuracies"].tolist()
        self._errors = state.arrays["surrogate/errors"].tolist()
        self._fitted = None


def _standard_error(outcome: Outcome) -> float:
    """Of an accuracy that was estimated from some of the images; 0 where it was measured to the end."""
    if outcome.complete or not outcome.images:
        return 0.0
    accuracy = min(1.0, max(0.0, outcome.accuracy))
    return float(np.sqrt((accuracy * (1 - accuracy) + 1 / outcome.images) / outcome.images))
