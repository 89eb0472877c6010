from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.cost import COSTS, Allocation, CostModel
from compressors.errors import UserError
from envs.budget import Budget, smallest
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.decisions import Choice, DecisionSpace
from tests.toys import TABLES, chain, constant, make_profile, residual


@st.composite
def episodes(draw: st.DrawFn) -> tuple[CompressionEnv, dict[str, float], np.ndarray]:
    """An env over a toy net, targets that can be reached, and actions for every step."""
    table = TABLES[draw(st.sampled_from(sorted(TABLES)))]()
    mode = draw(st.sampled_from(["sparsity", "bits", "both"]))
    config = EnvConfig(
        mode=mode,
        targets=("macs=1",),
        min_preserve_ratio=draw(st.sampled_from([0.05, 0.1, 0.3])),
        channel_multiple=draw(st.sampled_from([1, 2, 4])),
        residual=True,
        activation_bits=mode != "sparsity" and draw(st.booleans()),
        min_bits=draw(st.sampled_from([2, 4])),
        first_last_bits=draw(st.sampled_from([None, 8])),
    )
    env = CompressionEnv(table, make_profile(table), constant(), config)
    least = smallest(table, config)
    targets = {}
    for kind in draw(st.sets(st.sampled_from(COSTS), min_size=1)):
        low = least.of(kind) / env.costs.original.of(kind)
        targets[kind] = min(1.0, low + draw(st.floats(0, 1)) * (1 - low) + 1e-9)
    seed = draw(st.integers(0, 2**16))
    actions = np.random.default_rng(seed).uniform(-1, 1, (len(env.space), len(env.space.axes)))
    if draw(st.booleans()):
        actions = np.sign(actions)
    return env, targets, actions.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(episodes())
def test_every_finished_episode_meets_every_target_and_projection_is_idempotent(
    episode: tuple[CompressionEnv, dict[str, float], np.ndarray],
) -> None:
    env, targets, actions = episode
    observation, _ = env.reset(seed=0, options={"targets": targets})
    executed = []
    for action in actions:
        assert env.observation_space.contains(observation)
        observation, _, terminated, truncated, info = env.step(action)
        executed.append(info["executed_action"])
    assert terminated and not truncated
    outcome = info["outcome"]
    for kind, ratio in targets.items():
        assert outcome.costs.of(kind) <= ratio * env.costs.original.of(kind) * (1 + 1e-9)
    assert env.costs.of(outcome.allocation) == outcome.costs
    least, most = env.space.smallest(), env.space.largest()
    for name in ("kept", "weight_bits", "activation_bits"):
        found = getattr(outcome.allocation, name)
        assert (getattr(least, name) <= found).all() and (found <= getattr(most, name)).all()
    env.reset(seed=1, options={"targets": targets})
    for action in executed:
        *_, info = env.step(action)
        np.testing.assert_array_equal(info["executed_action"], action)
    assert info["outcome"].allocation.key() == outcome.allocation.key()


@settings(max_examples=60, deadline=None)
@given(episodes())
def test_projection_finds_the_nearest_feasible_choice_by_exhaustive_search(
    episode: tuple[CompressionEnv, dict[str, float], np.ndarray],
) -> None:
    env, targets, actions = episode
    env.reset(seed=0, options={"targets": targets})
    model = env.costs
    for position, action in enumerate(actions):
        step, decided = env.space.steps[position], env.budget.allocation
        point = env.space.point(action)
        best = np.inf
        for level in range(len(step.ratios)):
            for weight in range(len(step.weight_bits)):
                for activation in range(len(step.activation_bits)):
                    trial = Allocation(decided.kept.copy(), decided.weight_bits.copy(), decided.activation_bits.copy())
                    trial.kept[step.groups] = step.kept[level]
                    trial.weight_bits[step.layer] = step.weight_bits[weight]
                    trial.activation_bits[step.layer] = step.activation_bits[activation]
                    costs = model.of(trial)
                    if all(costs.of(kind) <= bound for kind, bound in env.limits.items()):
                        best = min(best, distance(step, point, (level, weight, activation)))
        chosen = env.budget.project(point)
        assert distance(step, point, chosen) <= best + 1e-5
        env.step(action)


def distance(step, point, choice) -> float:
    parts = [
        (coordinates[index] - value) ** 2
        for coordinates, index, value in zip(step.coordinates, choice, point, strict=True)
        if len(coordinates) > 1
    ]
    return float(sum(parts))


def test_a_loose_target_leaves_every_action_alone() -> None:
    space = DecisionSpace(chain(), EnvConfig())
    budget = Budget(space, CostModel(chain()), {"macs": 10**9})
    for step in space.steps:
        choice = budget.project(np.array([step.coordinates[0][2], 1.0, 1.0]))
        assert choice.level == 2
        budget.commit(choice)


def test_the_tightest_target_allows_only_the_minimum() -> None:
    table, config = chain(), EnvConfig()
    space, costs = DecisionSpace(table, config), CostModel(table)
    least = smallest(table, config)
    budget = Budget(space, costs, {"macs": least.macs})
    for _ in space.steps:
        choice = budget.project(np.ones(3))
        assert choice == Choice(0, 0, 0)
        budget.commit(choice)
    assert costs.of(budget.allocation) == least


def test_smallest_by_hand() -> None:
    # Widths 8, 12, 16, 10 at 10%: 1, 2, 2, 1 units; 3x3 kernels; 64, 32, 21, 16 positions; 5 classes.
    macs = 9 * (3 * 1 * 64 + 1 * 2 * 32 + 2 * 2 * 21 + 2 * 1 * 16) + 1 * 5
    assert smallest(chain(), EnvConfig()).macs == macs


def test_an_impossible_target_is_refused_with_the_smallest_reachable_value_and_what_helps() -> None:
    table = residual()
    reach = smallest(table, EnvConfig())
    ratio = reach.macs / CostModel(table).original.macs
    with pytest.raises(UserError) as caught:
        CompressionEnv(table, make_profile(table), constant(), EnvConfig(targets=(f"macs={ratio * 0.9:.4f}",)))
    text = str(caught.value)
    assert f"({reach.macs:,})" in text and "residual=True" in text and "\n" not in text
    named = float(text.split("smallest reachable is macs=")[1].split()[0])
    CompressionEnv(table, make_profile(table), constant(), EnvConfig(targets=(f"macs={named}",)))


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (EnvConfig(min_preserve_ratio=0.5, targets=("size=0.2",)), "mode=both"),
        (EnvConfig(mode="bits", min_bits=4, targets=("size=0.1",)), "min_bits=2"),
        (EnvConfig(targets=("macs=0.000001",)), "No other setting"),
        (EnvConfig(min_preserve_ratio=0.5, targets=("macs=0.2",)), "min_preserve_ratio=0.02"),
    ],
)
def test_hints_name_the_setting_that_helps(config: EnvConfig, hint: str) -> None:
    table = chain((32, 32, 32, 32))
    with pytest.raises(UserError, match=hint):
        CompressionEnv(table, make_profile(table), constant(), config)


def test_an_impossible_target_of_one_episode_is_refused_at_reset() -> None:
    env = CompressionEnv(chain(), make_profile(chain()), constant(), EnvConfig())
    with pytest.raises(UserError, match="out of reach"):
        env.reset(options={"targets": {"macs": 0.001}})


def test_a_step_of_a_56_layer_net_takes_little_time() -> None:
    table = chain(tuple([16] * 18 + [32] * 18 + [64] * 19))
    config = EnvConfig(mode="both", activation_bits=True, targets=("size=0.1", "macs=0.5"))
    env = CompressionEnv(table, make_profile(table), constant(), config)
    actions = np.random.default_rng(0).uniform(-0.5, 1, (len(env.space), 3)).astype(np.float32)
    times = []
    for _ in range(3):
        env.reset(seed=0)
        begun = time.perf_counter()
        for action in actions:
            env.step(action)
        times.append((time.perf_counter() - begun) / len(actions))
    assert min(times) < 3e-3  # about 0.3 ms on a quiet core
