from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.lagrangian import lagrangian_plan
from agents.planning import PlannedBehaviour
from agents.plans import Problem, random_plan, uniform_plan
from agents.random import plan_random
from agents.rollout import run_episode
from agents.sensitivity import plan_sensitivity
from agents.uniform import plan_uniform
from agents.warmup import plan_spread, warmup_behaviour
from compressors.cost import COSTS
from envs.budget import smallest
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.decisions import Choice
from tests.toys import TABLES, by_profile, chain, make_profile

PLANNERS = {"random": plan_random, "uniform": plan_uniform, "sensitivity": plan_sensitivity, "spread": plan_spread}


def make(name: str = "chain", mode: str = "sparsity", targets=("macs=0.5",), seed: int = 0, **kwargs) -> CompressionEnv:
    table = TABLES[name]()
    profile = make_profile(table, seed)
    config = EnvConfig(mode=mode, targets=targets, residual=True, **kwargs)
    return CompressionEnv(table, profile, by_profile(table, profile), config)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(TABLES)),
    st.sampled_from(["sparsity", "bits", "both"]),
    st.sampled_from(sorted(PLANNERS)),
    st.sets(st.sampled_from(COSTS), min_size=1),
    st.floats(0.0, 1.0),
    st.integers(0, 99),
)
def test_every_plan_is_executed_as_it_was_made(
    name: str, mode: str, planner: str, kinds: set[str], looseness: float, seed: int
) -> None:
    env = make(name, mode, ("macs=1",))
    least = smallest(env.table, env.config)
    ratios = {kind: least.of(kind) / env.costs.original.of(kind) for kind in kinds}
    targets = {kind: min(1.0, low + looseness * (1 - low) + 1e-9) for kind, low in ratios.items()}
    behaviour = PlannedBehaviour("plan", PLANNERS[planner])
    rollout = run_episode(env, behaviour, seed=seed, episode=3, targets=targets)
    np.testing.assert_array_equal(rollout.actions, behaviour._actions)
    assert all(rollout.outcome.costs.of(kind) <= bound for kind, bound in env.limits.items())


def test_the_uniform_plan_is_the_largest_that_fits() -> None:
    env = make()
    env.reset(seed=0)
    plan = uniform_plan(Problem.of(env))
    ratios = [step.ratios[choice.level] for step, choice in zip(env.space.steps, plan, strict=True)]
    assert max(ratios) - min(ratios) <= 1 / 8 + 1e-9
    more = [
        choice._replace(level=min(choice.level + 1, len(s.ratios) - 1))
        for s, choice in zip(env.space.steps, plan, strict=True)
    ]
    assert Problem.of(env).feasible([plan, more]) == [True, False]


def test_random_plans_spend_the_budget_and_do_not_starve_the_last_layers() -> None:
    env = make(targets=("macs=0.3",))
    env.reset(seed=0)
    problem, rng = Problem.of(env), np.random.default_rng(0)
    plans = [random_plan(problem, rng) for _ in range(200)]
    assert all(problem.feasible(plans))
    used = problem.cost(plans)["macs"] / env.limits["macs"]
    assert used.mean() > 0.85
    ratios = np.array([[s.ratios[c.level] for s, c in zip(env.space.steps, plan, strict=True)] for plan in plans])
    assert ratios.mean(0).max() / ratios.mean(0).min() < 1.3
    assert len({tuple(plan) for plan in plans}) > 150


@pytest.mark.parametrize("seed", range(4))
def test_the_lagrangian_is_close_to_the_best_of_all_plans(seed: int) -> None:
    env = make(seed=seed, channel_multiple=2)
    env.reset(seed=0)
    problem = Problem.of(env)
    everything = [
        [Choice(level, 0, 0) for level in levels]
        for levels in itertools.product(*(range(len(step.ratios)) for step in env.space.steps))
    ]
    feasible = [plan for plan, ok in zip(everything, problem.feasible(everything), strict=True) if ok]
    errors = np.sort([sum(e.of(c) for e, c in zip(env.errors, plan, strict=True)) for plan in feasible])
    found = sum(e.of(c) for e, c in zip(env.errors, lagrangian_plan(problem, env.errors), strict=True))
    assert found >= errors[0] - 1e-12
    assert np.mean(errors < found - 1e-12) < 0.005
    assert found <= errors[0] * 1.25 + 0.01


def test_sensitivity_beats_uniform_where_the_profile_is_the_truth() -> None:
    for mode, targets in (("sparsity", ("macs=0.4",)), ("both", ("size=0.1",)), ("bits", ("size=0.2",))):
        env = make("chain", mode, targets)
        runs = {
            name: run_episode(env, PlannedBehaviour(name, PLANNERS[name]), seed=0, episode=0).outcome.accuracy
            for name in ("sensitivity", "uniform")
        }
        assert runs["sensitivity"] > runs["uniform"]


def test_a_target_of_one_keeps_everything() -> None:
    env = make(targets=("macs=1",))
    for name in ("uniform", "sensitivity", "spread"):
        outcome = run_episode(env, PlannedBehaviour(name, PLANNERS[name]), seed=0, episode=0).outcome
        assert outcome.costs == env.costs.original


def test_warm_up_episodes_differ_and_can_be_pickled() -> None:
    table = chain()
    env = CompressionEnv(table, make_profile(table), by_profile(table, make_profile(table)), EnvConfig())
    names, keys = [], []
    for episode in range(8):
        behaviour = pickle.loads(pickle.dumps(warmup_behaviour(episode)))
        rollout = run_episode(env, behaviour, seed=0, episode=episode)
        names.append(rollout.behaviour)
        keys.append(rollout.outcome.allocation.key())
    assert names == ["even", "random", "spread", "random", "spread", "random", "spread", "random"]
    assert len(set(keys)) >= 6
