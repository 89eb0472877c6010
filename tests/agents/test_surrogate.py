"""Plans in batches, the surrogate, and plans chosen by it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.actor import ActorBehaviour
from agents.batch import PlanBatch, plan_of
from agents.config import DDPGConfig
from agents.planner import PlannedByModel, mutated
from agents.plans import Problem
from agents.rollout import run_episode
from agents.surrogate import Surrogate
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.evaluation import Evaluation
from envs.rehearsal import rehearse
from tests.toys import make_profile, residual


def make_env(mode: str = "both", target: str = "size=0.12") -> CompressionEnv:
    """A small residual net whose accuracy falls with a weighted sum of errors that the profile does not know."""
    table = residual()
    made: list[CompressionEnv] = []

    def evaluate(allocation, seed, bar):
        env = made[0]
        return Evaluation(1 - float(PlanBatch.of(env).errors(np.array(env.choices)[None])[0].sum()) / 10)

    made.append(CompressionEnv(table, make_profile(table), evaluate, EnvConfig(mode=mode, targets=(target,))))
    made[0].reset(seed=0)
    return made[0]


def random_choices(env: CompressionEnv, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    full = np.array([step.full for step in env.space.steps])
    return rng.integers(0, full + 1, size=(count, *full.shape))


@pytest.mark.parametrize("mode", ["sparsity", "bits", "both"])
def test_a_batch_agrees_with_plans_one_by_one(mode: str) -> None:
    env = make_env(mode, "size=0.9" if mode == "sparsity" else "size=0.2")
    batch, choices, problem = PlanBatch.of(env), random_choices(env, 12), Problem.of(env)
    plans = [plan_of(row) for row in choices]
    for kind, values in problem.cost(plans).items():
        np.testing.assert_array_equal(batch.costs(choices)[kind], values)
    assert batch.feasible(choices, env.limits).tolist() == problem.feasible(plans)
    errors = [[env.errors[step].of(choice) for step, choice in enumerate(plan)] for plan in plans]
    np.testing.assert_allclose(batch.errors(choices).sum(2), errors)
    np.testing.assert_array_equal(batch.choices(batch.places(choices)), choices)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 0.9))
def test_balanced_plans_meet_the_limits_and_waste_nothing(seed: int, ratio: float) -> None:
    env = make_env()
    limits = {"size": int(ratio * env.costs.original.size_bytes)}
    batch, rng = PlanBatch.of(env), np.random.default_rng(seed)
    places = rng.random((5, len(env.space), 3))
    found = batch.balanced(places, limits)
    assert batch.feasible(found, limits).all()
    higher = batch.choices((places + 1).clip(0, 1))
    for row, most in zip(found, higher, strict=True):
        # Either everything is kept, or the same plan shifted up a little more would not fit.
        assert (row == most).all() or batch.costs(row[None])["size"][0] > 0.5 * limits["size"]


def test_the_surrogate_learns_a_line_and_knows_what_it_does_not_know() -> None:
    rng = np.random.default_rng(0)
    features = np.c_[rng.random((40, 4)), np.ones(40)]
    values = 0.9 - features[:, :4] @ np.array([0.3, 0.0, 0.1, 0.2])
    surrogate = Surrogate.fit(features, values)
    fresh = np.c_[rng.random((200, 4)), np.ones(200)]
    mean, deviation = surrogate.predict(fresh)
    truth = 0.9 - fresh[:, :4] @ np.array([0.3, 0.0, 0.1, 0.2])
    assert np.abs(mean - truth).max() < 0.03
    far = surrogate.predict(fresh + 5)[1]
    assert far.min() > deviation.max()
    seen = surrogate.predict(features)
    assert np.abs(seen[0] - values).max() < 0.02


def test_a_ruined_net_does_not_hide_the_differences_between_good_ones() -> None:
    rng = np.random.default_rng(1)
    features = rng.random((40, 3))
    values = 0.8 - 0.05 * features[:, 0]
    features[:3] = 0.5 + rng.random((3, 3))
    values[:3] = 0.1
    mean, _ = Surrogate.fit(features, values).predict(np.array([[0.1, 0.5, 0.5], [0.9, 0.5, 0.5]]))
    assert mean[0] > mean[1] > 0.7


def fitted(env: CompressionEnv, weights: np.ndarray, count: int = 60) -> tuple[Surrogate, np.ndarray]:
    batch = PlanBatch.of(env)
    known = batch.balanced(np.random.default_rng(3).random((count, len(env.space), 3)), env.limits)
    return Surrogate.fit(batch.features(known), 1 - batch.features(known) @ weights), known


def test_the_planner_plays_a_new_feasible_plan_that_is_better_than_all_it_knows() -> None:
    env = make_env()
    batch = PlanBatch.of(env)
    weights = np.random.default_rng(5).random(len(env.space) * 3) / 10
    surrogate, known = fitted(env, weights)
    actor = ActorBehaviour((np.zeros((2, len(env.observation_space.low)), np.float32), np.zeros(2, np.float32)), 0.3)
    behaviour = PlannedByModel(DDPGConfig(), surrogate, known, actor)
    rollout = run_episode(env, pickle.loads(pickle.dumps(behaviour)), seed=0, episode=9, targets={"size": 0.12})
    played = np.array(env.choices)
    assert rollout.behaviour in ("model", "actor")
    assert not (known == played).all((1, 2)).any()
    assert batch.feasible(played[None], env.limits)[0]
    truth = 1 - batch.features(np.concatenate([known, played[None]])) @ weights
    assert truth[-1] > truth[:-1].max()
    again = run_episode(env, behaviour, seed=0, episode=9, targets={"size": 0.12})
    np.testing.assert_array_equal(again.actions, rollout.actions)


def test_mutants_change_something_but_not_what_is_not_decided() -> None:
    env = make_env()
    batch, parents = PlanBatch.of(env), random_choices(env, 4)
    children = mutated(batch, parents, 200, np.random.default_rng(0))
    assert children.shape == (200, len(env.space), 3)
    assert ((children >= 0) & (children <= 1)).all()
    moved = np.array([min(int((child != row).sum()) for row in batch.places(parents)) for child in children])
    assert (moved <= batch.active.sum()).all()
    assert 1 <= np.median(moved[moved > 0]) <= 6
    np.testing.assert_array_equal(children[:, ~batch.active], 1.0)


def test_a_rehearsal_is_the_episode_that_the_env_would_play() -> None:
    env = make_env()
    rng = np.random.default_rng(0)
    proposals = rng.uniform(-1, 1, (len(env.space), len(env.space.axes))).astype(np.float32)

    class Fixed:
        name = "fixed"

        def act(self, observation, env, rng):
            return proposals[env.position]

    played = run_episode(env, Fixed(), seed=0, episode=0, targets={"size": 0.12})
    before = list(env.choices)
    rehearsed = rehearse(env, lambda step, _: proposals[step], env.limits)
    assert env.choices == before == list(rehearsed.choices)
    np.testing.assert_array_equal(rehearsed.observations, played.observations)
    np.testing.assert_array_equal(rehearsed.actions, played.actions)
    np.testing.assert_allclose(rehearsed.rewards.sum(), played.outcome.rewards["l2"], rtol=1e-5)
