from __future__ import annotations

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import envs
from compressors.cost import Allocation
from compressors.errors import UserError
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.evaluation import Evaluation
from envs.observation import COLUMNS
from envs.sensitivity import step_errors
from tests.toys import TABLES, by_profile, chain, constant, depthwise, make_profile, residual


def make(config: EnvConfig | None = None, table=None, **kwargs) -> CompressionEnv:
    table = table or chain()
    profile = make_profile(table)
    return CompressionEnv(table, profile, by_profile(table, profile), config, **kwargs)


def play(env: CompressionEnv, actions, seed: int = 0, options=None):
    observations, rewards, infos = [env.reset(seed=seed, options=options)[0]], [], []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        infos.append(info)
        assert not truncated
    assert terminated
    return np.array(observations), np.array(rewards), infos


def random_actions(env: CompressionEnv, seed: int = 0) -> np.ndarray:
    shape = (len(env.space), len(env.space.axes))
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", sorted(TABLES))
@pytest.mark.parametrize("mode", ["sparsity", "bits", "both"])
def test_both_checkers_pass_without_a_warning(name: str, mode: str) -> None:
    table = TABLES[name]()
    profile = make_profile(table)
    config = EnvConfig(mode=mode, targets=("bops=0.6",), residual=True, activation_bits=mode == "both")
    env = gymnasium.make(envs.ENV_ID, table=table, profile=profile, evaluate=by_profile(table, profile), config=config)
    check_env(env.unwrapped)
    check_env_sb3(env.unwrapped)


def test_equal_seeds_and_actions_give_equal_rollouts() -> None:
    config = EnvConfig(mode="both", targets=("size=0.1..0.3",))
    seeds: list[int] = []

    def evaluate(allocation: Allocation, seed: int, bar: float) -> Evaluation:
        seeds.append(seed)
        return Evaluation(float(np.random.default_rng(seed).random()), {})

    table = chain()
    pair = [CompressionEnv(table, make_profile(table), evaluate, config) for _ in range(2)]
    actions = random_actions(pair[0])
    (first, rewards, infos), (second, rewards2, infos2) = (play(env, actions, seed=7) for env in pair)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(rewards, rewards2)
    assert infos[-1]["outcome"] == infos2[-1]["outcome"]
    play(pair[0], actions, seed=7)
    assert seeds[0] == seeds[1] == seeds[2]
    play(pair[0], actions, seed=8)
    assert seeds[3] != seeds[0]


def test_nothing_leaks_from_one_episode_into_the_next() -> None:
    env, fresh = make(), make()
    play(env, random_actions(env, 1), seed=3, options={"targets": {"macs": 0.3}, "front": [(0.1, 0.9)]})
    env.reset(seed=5)
    env.step(random_actions(env, 2)[0])
    actions = random_actions(env, 4)
    observations, rewards, _ = play(env, actions, seed=9)
    observations2, rewards2, _ = play(fresh, actions, seed=9)
    np.testing.assert_array_equal(observations, observations2)
    np.testing.assert_array_equal(rewards, rewards2)


class Half:
    """An evaluation that can be pickled."""

    def __call__(self, allocation: Allocation, seed: int, bar: float) -> Evaluation:
        return Evaluation(0.5)


def test_an_env_can_be_sent_to_a_worker() -> None:
    env = CompressionEnv(chain(), make_profile(chain()), Half(), EnvConfig(mode="both", targets=("size=0.2",)))
    copy = pickle.loads(pickle.dumps(env))
    actions = random_actions(env)
    observations, rewards, _ = play(env, actions)
    observations2, rewards2, _ = play(copy, actions)
    np.testing.assert_array_equal(observations, observations2)
    np.testing.assert_array_equal(rewards, rewards2)


def test_keeping_everything_costs_nothing() -> None:
    env = make(EnvConfig(targets=("macs=1",)))
    _, rewards, infos = play(env, np.ones((len(env.space), 1), np.float32))
    outcome = infos[-1]["outcome"]
    assert outcome.l2 == 0 and outcome.costs == env.costs.original and outcome.accuracy == 1
    assert rewards.tolist() == [0, 0, 0, 1]
    assert outcome.rewards == {"terminal": 1.0, "l2": 0.0, "total": 1.0}


def test_rewards_are_the_profiles_errors_and_the_form_at_the_end() -> None:
    env = make(EnvConfig(mode="both", targets=("size=0.15",), l2_weight=0.25, activation_bits=True))
    _, rewards, infos = play(env, random_actions(env))
    outcome = infos[-1]["outcome"]
    allocation = outcome.allocation
    for step, info in zip(env.space.steps, infos, strict=True):
        bits = (int(allocation.weight_bits[step.layer]), int(allocation.activation_bits[step.layer]))
        cut = sum(env.profile.cut_error(int(group), int(allocation.kept[group])) for group in step.groups)
        assert info["l2"] == pytest.approx(cut + env.profile.bits_error(step.layer, *bits))
    errors = np.array([info["l2"] for info in infos])
    np.testing.assert_allclose(rewards[:-1], -0.25 * errors[:-1], rtol=1e-6)
    assert rewards[-1] == pytest.approx(outcome.accuracy - 0.25 * errors[-1])
    assert rewards.sum() == pytest.approx(outcome.rewards["total"])
    assert outcome.l2 == pytest.approx(errors.sum())


def test_the_front_of_the_options_reaches_the_reward() -> None:
    env = make(EnvConfig(reward="front", l2_weight=0))
    actions = random_actions(env)
    _, rewards, infos = play(env, actions)
    cost, accuracy = infos[-1]["outcome"].front_point
    assert cost == infos[-1]["outcome"].costs.macs / env.costs.original.macs
    assert rewards[-1] == pytest.approx((1 - cost) * accuracy)
    _, rewards, _ = play(env, actions, options={"front": [(cost, accuracy)]})
    assert rewards[-1] == 0


def test_the_front_is_over_the_first_target_where_macs_are_none() -> None:
    env = make(EnvConfig(mode="both", targets=("size=0.2", "params=0.9")))
    _, _, infos = play(env, random_actions(env))
    outcome = infos[-1]["outcome"]
    assert outcome.front_point[0] in (
        outcome.costs.size_bytes / env.costs.original.size_bytes,
        outcome.costs.params / env.costs.original.params,
    )


def column(name: str) -> int:
    return [c.name for c in COLUMNS].index(name)


def test_observation_columns_are_documented_distinct_and_say_what_they_mean() -> None:
    assert len({c.name for c in COLUMNS}) == len(COLUMNS)
    assert all(c.meaning and c.unit and c.low < c.high for c in COLUMNS)
    env = make(EnvConfig(targets=("macs=0.5",)), table=depthwise())
    assert env.observation_space.shape == (len(COLUMNS),)
    observations, _, infos = play(env, [[0.0], [1.0], [-1.0]])
    first, second, third, end = observations
    assert first[column("macs_target")] == pytest.approx(env.limits["macs"] / env.costs.original.macs)
    assert first[column("size_target")] == 1 and first[column("size_slack")] == 1
    assert first[column("macs_spent")] == 0 and first[column("last_preserve_ratio")] == 1
    assert first[column("is_conv")] == 1 and first[column("stride")] == 0.5
    shares = [env.table.layers[step.layer].macs / env.costs.original.macs for step in env.space.steps]
    np.testing.assert_allclose(observations[:3, column("macs_share")], shares, rtol=1e-6)
    assert second[column("last_preserve_ratio")] == infos[0]["executed_action"][0]
    assert third[column("last_preserve_ratio")] == infos[1]["executed_action"][0]
    # What is spent, what is left above the minimum, and the minimum itself make up the whole limit.
    least = env.costs.of(env.space.smallest()).macs / env.costs.original.macs
    limit = env.limits["macs"] / env.costs.original.macs
    np.testing.assert_allclose(
        observations[:, column("macs_spent")] + observations[:, column("macs_slack")], limit - least, atol=1e-6
    )
    assert end[column("macs_rest")] == 0 and end[column("position")] == 1
    root = np.sqrt(env.profile.cut_error(0, 3))
    assert first[column("cut_error_50")] == pytest.approx(root)


def test_the_largest_feasible_ratio_is_shown_before_it_binds() -> None:
    env = make(EnvConfig(targets=("macs=0.2",)))
    env.reset(seed=0)
    for position in range(len(env.space)):
        shown = env._observe()[column("max_ratio")]
        env.step(np.ones(1, np.float32))
        step = env.space.steps[position]
        assert step.ratios[env.choices[-1].level] == pytest.approx(shown, rel=1e-6)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([np.nan], "in -1..1"),
        ([1.5], "in -1..1"),
        ([0.1, 0.2], "1 number"),
        (0.5, "1 number"),
        (["a"], "1 number"),
    ],
)
def test_invalid_actions_are_refused(action, words: str) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(UserError, match=words):
        env.step(action)


def test_steps_outside_an_episode_are_refused() -> None:
    env = make()
    with pytest.raises(UserError, match="reset"):
        env.step(np.zeros(1, np.float32))
    play(env, random_actions(env))
    with pytest.raises(UserError, match="reset"):
        env.step(np.zeros(1, np.float32))


def test_bad_options_are_refused() -> None:
    env = make()
    with pytest.raises(UserError, match="'target'"):
        env.reset(options={"target": {"macs": 0.5}})
    with pytest.raises(UserError, match="mapping"):
        env.reset(options={"targets": 0.5})
    with pytest.raises(UserError, match="Did you mean 'macs'"):
        env.reset(options={"targets": {"mac": 0.5}})


def test_an_accuracy_that_is_not_a_number_is_refused() -> None:
    table = chain()
    env = CompressionEnv(table, make_profile(table), constant(float("nan")), EnvConfig())
    with pytest.raises(UserError, match="finite accuracy"):
        play(env, random_actions(env))


def test_a_profile_of_another_net_is_refused() -> None:
    with pytest.raises(UserError, match="profile this net again"):
        CompressionEnv(chain(), make_profile(residual()), constant())


def test_step_errors_fall_with_what_is_kept() -> None:
    env = make(EnvConfig(mode="both", targets=("size=0.2",)), table=residual())
    for step in step_errors(env.profile, env.space):
        assert (np.diff(step.cut) <= 1e-12).all() and (np.diff(step.weight) <= 0).all()
        assert step.cut[-1] == 0
