"""Proposes the plan of an episode: many are imagined, the surrogate weighs them, the most promising one is played."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agents.actor import ActorBehaviour
from agents.batch import PlanBatch, plan_of
from agents.config import DDPGConfig
from agents.surrogate import Surrogate
from compressors.layers import Ints
from compressors.threads import single_threaded
from envs.compression import CompressionEnv
from envs.decisions import Action, Floats
from envs.observation import Observation
from envs.rehearsal import rehearse
from envs.reward import REWARDS, Finish
from envs.target import front_cost

_SURVIVORS = 20
_REACH = 0.25
_CHANGES = 3.0
_CROSSED = 0.3
_POWERS = (0.3, 2.0)


@dataclass
class PlannedByModel:
    """Plays the plan that the surrogate thinks best among the actor's, the known ones and their mutants.

    Attributes:
        config: Settings.
        surrogate: Guesses accuracy.
        known: Plans that were tried, `(plans, steps, 3)`; none of them is played again.
        actor: Proposes plans, with noise.
        name: A word for the ledger: `model`, or `actor` where a plan of the actor's was the best.
    """

    config: DDPGConfig
    surrogate: Surrogate
    known: Ints
    actor: ActorBehaviour
    name: str = "model"
    _actions: Action | None = field(default=None, init=False, repr=False, compare=False)

    def act(self, observation: Observation, env: CompressionEnv, rng: np.random.Generator) -> Action:
        """The plan's action for the step at hand."""
        if env.position == 0 or self._actions is None:
            with single_threaded():
                self._actions = env.space.actions(plan_of(self._plan(env, rng)))
        return np.array(self._actions[env.position])

    def _plan(self, env: CompressionEnv, rng: np.random.Generator) -> Ints:
        batch = PlanBatch.of(env)
        tried = {row.tobytes() for row in self.known}
        own = [self._proposal(env, rng) for _ in range(self.config.proposals)]
        places = [batch.places(self.known), strangers(batch, self.config.strangers, rng)]
        known = batch.balanced(np.concatenate(places), env.limits)
        pool = np.unique(np.concatenate([*own, known]) if own else known, axis=0)
        scores = self._scores(batch, env, pool)
        for _ in range(self.config.rounds):
            best = pool[np.argsort(-scores, kind="stable")[:_SURVIVORS]]
            mutants = batch.balanced(mutated(batch, best, self.config.mutants, rng), env.limits)
            pool = np.unique(np.concatenate([best, mutants]), axis=0)
            scores = self._scores(batch, env, pool)
        order = np.argsort(-scores, kind="stable")
        chosen = next((row for row in pool[order] if row.tobytes() not in tried), pool[order[0]])
        self.name = "actor" if any((chosen == plan[0]).all() for plan in own) else "model"
        return np.asarray(chosen)

    def _proposal(self, env: CompressionEnv, rng: np.random.Generator) -> Ints:
        def choose(step: int, observation: Observation) -> Action:
            return self.actor.act(observation, env, rng)

        return np.array(rehearse(env, choose, env.limits).choices)[None]

    def _scores(self, batch: PlanBatch, env: CompressionEnv, plans: Ints) -> Floats:
        """The reward at the end that each plan would get with its hopeful accuracy, `(plans,)`."""
        mean, deviation = self.surrogate.predict(batch.features(plans))
        hopeful = mean + self.config.optimism * deviation
        form, kind, costs = REWARDS[env.config.reward], front_cost(env.limits), batch.costs(plans)
        ratios = costs[kind] / env.costs.original.of(kind)
        rewards = [
            form(Finish(float(accuracy), round(2 * float(macs)), (float(ratio), float(accuracy)), env.front))
            for accuracy, macs, ratio in zip(hopeful, costs["macs"], ratios, strict=True)
        ]
        return np.array(rewards)


def strangers(batch: PlanBatch, count: int, rng: np.random.Generator) -> Floats:
    """Random places, some of them generous everywhere and some strict, `(count, steps, 3)`."""
    return np.asarray(rng.random((count, *batch.active.shape)) ** rng.uniform(*_POWERS, (count, 1, 1)))


def mutated(batch: PlanBatch, plans: Ints, count: int, rng: np.random.Generator) -> Floats:
    """Places of `count` children, `(count, steps, 3)`: plans with some numbers moved, some of two parents."""
    places = batch.places(plans[rng.integers(len(plans), size=count)])
    mates = batch.places(plans[rng.integers(len(plans), size=count)])
    crossed = (rng.random(places.shape) < 0.5) & (rng.random((count, 1, 1)) < _CROSSED)
    places = np.where(crossed, mates, places)
    decided = int(batch.active.sum())
    share = (rng.exponential(_CHANGES / decided, size=(count, 1, 1))).clip(1 / decided, 1)
    moved = batch.active & (rng.random(places.shape) < share)
    moves = _REACH * rng.random((count, 1, 1)) * rng.standard_normal(places.shape)
    return np.asarray(np.where(moved, places + moves, places).clip(0, 1))
