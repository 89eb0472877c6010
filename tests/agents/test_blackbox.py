from __future__ import annotations

import pickle

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from pydantic import ValidationError

from agents.blackbox import Asked, PointPlanner, plan_of, point_of
from agents.cem import CrossEntropySearcher
from agents.config import AgentConfig, CEMConfig, GPConfig, NSGA2Config, TPEConfig
from agents.lagrangian import lagrangian_plan
from agents.optuna_agents import Generations, OptunaSearcher
from agents.planning import PlannedBehaviour
from agents.plans import Problem, uniform_plan
from agents.protocol import AgentState
from agents.registry import AGENTS, least_episodes, make_agent
from agents.rollout import run_episode
from compressors.cost import COSTS
from compressors.errors import UserError
from envs.budget import smallest
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.target import sample_targets
from tests.agents.test_learning import make_env as redundant_block
from tests.states import through_disk
from tests.toys import TABLES, by_profile, chain, make_profile, residual

NAMES = ["cem", "gp", "nsga2", "tpe"]
SMALL = {
    "tpe": TPEConfig(n_startup_trials=4),
    "gp": GPConfig(n_startup_trials=4, n_preliminary_samples=64, n_local_search=2),
    "nsga2": NSGA2Config(population_size=4),
    "cem": CEMConfig(population_size=4, elites=2),
}


def make_env(name: str = "chain", mode: str = "sparsity", targets=("macs=0.3..0.7",), seed: int = 0) -> CompressionEnv:
    table = TABLES[name]()
    profile = make_profile(table, seed)
    return CompressionEnv(
        table, profile, by_profile(table, profile), EnvConfig(mode=mode, targets=targets, residual=True)
    )


def make(name: str, env: CompressionEnv, seed: int = 0):
    return make_agent(AgentConfig(name=name, **SMALL), env, 30, seed)


def play(env, agent, first: int, last: int, staleness: int = 1, states=None) -> list[tuple]:
    """Episodes `first..last-1` with `staleness` in flight; `states` gets the state after each."""
    flying = {episode: agent.behaviour(episode) for episode in range(first, min(first + staleness, last))}
    lines = []
    for episode in range(first, last):
        behaviour = pickle.loads(pickle.dumps(flying.pop(episode)))
        targets = sample_targets(env.targets, episode, 0)
        rollout = run_episode(env, behaviour, seed=0, episode=episode, targets=targets)
        assert all(rollout.outcome.costs.of(kind) <= bound for kind, bound in env.limits.items())
        np.testing.assert_array_equal(rollout.actions, behaviour._actions)  # played as planned
        agent.learn(rollout)
        lines.append((behaviour.name, rollout.outcome.allocation.key(), rollout.outcome.accuracy))
        if states is not None:
            states.append(through_disk(agent.state()))
        if episode + staleness < last:
            flying[episode + staleness] = agent.behaviour(episode + staleness)
    return lines


any_problem = (
    st.sampled_from(sorted(TABLES)),
    st.sampled_from(["sparsity", "bits", "both"]),
    st.sets(st.sampled_from(COSTS), min_size=1),
    st.floats(0.0, 1.0),
    st.integers(0, 99),
)


def reachable(name: str, mode: str, kinds: set[str], looseness: float, seed: int) -> tuple[CompressionEnv, dict]:
    env = make_env(name, mode, ("macs=1",), seed)
    least = smallest(env.table, env.config)
    ratios = {kind: least.of(kind) / env.costs.original.of(kind) for kind in kinds}
    return env, {kind: min(1.0, low + looseness * (1 - low) + 1e-9) for kind, low in ratios.items()}


@settings(max_examples=60, deadline=None)
@given(*any_problem, st.sampled_from([0.0, 0.5, 1.0]))
def test_every_point_is_a_plan_that_is_executed_as_it_was_made(name, mode, kinds, looseness, seed, edge) -> None:
    env, targets = reachable(name, mode, kinds, looseness, seed)
    rng = np.random.default_rng(seed)
    point = rng.random(int(env.space.decided().sum()))
    point[rng.random(len(point)) < edge] = rng.integers(2)  # corners of the box too
    behaviour = PlannedBehaviour("point", PointPlanner(tuple(point.tolist())))
    rollout = run_episode(env, behaviour, seed=seed, episode=3, targets=targets)
    np.testing.assert_array_equal(rollout.actions, behaviour._actions)
    assert all(rollout.outcome.costs.of(kind) <= bound for kind, bound in env.limits.items())
    assert rollout.outcome.accuracy == run_episode(env, behaviour, seed=1, episode=0, targets=targets).outcome.accuracy


@settings(max_examples=60, deadline=None)
@given(*any_problem)
def test_the_profiles_plan_has_a_point_that_gives_that_very_plan(name, mode, kinds, looseness, seed) -> None:
    env, targets = reachable(name, mode, kinds, looseness, seed)
    env.reset(seed=0, options={"targets": targets})
    problem = Problem.of(env)
    plan = lagrangian_plan(problem, env.errors)
    point = point_of(env.space, env.space.actions(plan))
    assert point.shape == (env.space.decided().sum(),)
    assert plan_of(problem, point) == plan


def test_points_are_taken_up_to_a_power_and_equal_numbers_are_the_uniform_plan() -> None:
    env = make_env(targets=("macs=0.4",))
    env.reset(seed=0)
    problem = Problem.of(env)
    rng = np.random.default_rng(0)
    for _ in range(20):
        point = rng.uniform(0.05, 0.95, len(env.space))
        assert plan_of(problem, point) == plan_of(problem, point**2)
    for value in (0.0, 0.2, 1.0):
        assert plan_of(problem, np.full(len(env.space), value)) == uniform_plan(problem)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_episode_is_the_profiles_plan_whatever_comes_first(name: str) -> None:
    env = make_env(mode="both")
    profiled = run_episode(env, make_agent(AgentConfig(name="sensitivity"), env, 5, 0).behaviour(0), seed=0, episode=0)
    for order in ((0, 1), (2, 0), (1, 0)):
        agent = make(name, env)
        behaviours = {episode: agent.behaviour(episode) for episode in order}
        rollout = run_episode(env, behaviours[0], seed=0, episode=0)
        assert rollout.behaviour == "even"
        assert rollout.outcome.allocation.key() == profiled.outcome.allocation.key()
        agent.learn(rollout)
    targets = sample_targets(env.targets, 0, 0)
    env.reset(seed=0, options={"targets": targets})
    first = dict(zip([e for e, _ in agent.state().meta["asked"]], agent.state().arrays["points"], strict=True))[0]
    assert plan_of(Problem.of(env), first) == lagrangian_plan(Problem.of(env), env.errors)


@pytest.mark.parametrize("staleness", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_search_resumed_past_its_start_up_goes_on_bit_for_bit(name: str, staleness: int) -> None:
    env = make_env(mode="both")
    whole = make(name, env)
    states: list[AgentState] = []
    lines = play(env, whole, 0, 13, staleness, states)
    assert [line[0] for line in lines] == ["even"] + [name] * 12
    assert len({line[1] for line in lines}) > 6
    for cut in (2, 9):
        resumed = make(name, env)
        resumed.load_state(states[cut - 1])
        assert lines[cut:] == play(env, resumed, cut, 13, staleness)
        for key, array in whole.state().arrays.items():
            np.testing.assert_array_equal(array, resumed.state().arrays[key])
        assert resumed.state().meta == whole.state().meta


@pytest.mark.parametrize("name", NAMES)
def test_behaviours_in_flight_come_back_equal_after_a_resume(name: str) -> None:
    env = make_env()
    agent = make(name, env)
    play(env, agent, 0, 9)
    flying = {episode: agent.behaviour(episode) for episode in (11, 9, 10)}
    resumed = make(name, env)
    resumed.load_state(through_disk(agent.state()))
    for episode, behaviour in flying.items():
        assert resumed.behaviour(episode) == behaviour == agent.behaviour(episode)
    assert len({behaviour.planner.point for behaviour in flying.values()}) == 3
    assert resumed.behaviour(12) == agent.behaviour(12)
    other = make(name, env, seed=1)
    assert other.behaviour(5) != make(name, env).behaviour(5)


@pytest.mark.parametrize("name", NAMES)
def test_episodes_played_by_somebody_else_are_learned_from_by_their_actions(name: str) -> None:
    env = make_env(targets=("macs=0.5",))
    agent = make(name, env)
    stranger = make_agent(AgentConfig(name="random"), env, 30, 0)
    rollouts = [run_episode(env, stranger.behaviour(episode), seed=0, episode=episode) for episode in range(6)]
    for rollout in rollouts:
        figures = agent.learn(rollout)
    rewards = [rollout.outcome.rewards["terminal"] for rollout in rollouts]
    assert figures == {"best_reward": max(rewards)}
    state = agent.state()
    np.testing.assert_array_equal(state.arrays["points"][3], point_of(env.space, rollouts[3].actions))
    np.testing.assert_array_equal(state.arrays["told"][:, 0], rewards)
    np.testing.assert_array_equal(state.arrays["told"][:, 1], [r.outcome.front_point[0] for r in rollouts])
    agent.behaviour(6)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_another_search_is_refused(name: str) -> None:
    state = make(name, make_env()).state()
    table = residual()
    other = CompressionEnv(table, make_profile(table), by_profile(table, make_profile(table)), EnvConfig())
    with pytest.raises(UserError, match="settings of the search"):
        make(name, other).load_state(state)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_global_is_touched_and_nothing_is_printed(name: str, capfd) -> None:
    env = make_env()
    torch.manual_seed(3)
    np.random.seed(3)
    before = (torch.get_rng_state().clone(), np.random.get_state()[1].copy(), optuna.logging.get_verbosity())
    play(env, make(name, env), 0, 8)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    assert optuna.logging.get_verbosity() == before[2]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_points_in_flight_are_counted_in(name: str) -> None:
    env = make_env(targets=("macs=0.5",))

    def next_point(in_flight: tuple[int, ...]) -> tuple[float, ...]:
        agent = make(name, env)
        play(env, agent, 0, 10)
        for episode in in_flight:
            agent.behaviour(episode)
        return agent.behaviour(20).planner.point  # the same random numbers

    assert next_point(()) == next_point(()) != next_point(tuple(range(10, 18)))


def evolving(dimensions: int, **kwargs) -> OptunaSearcher:
    config = NSGA2Config(**kwargs)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    return OptunaSearcher(lambda seed, learned: Generations(config, seed, learned), dimensions, directions, seed=0)


def test_nsga2_breeds_from_the_front_of_both_objectives() -> None:
    copies = evolving(3, population_size=4, crossover_prob=0, mutation_prob=0)
    good = {1: (0.9, 0.9), 3: (0.2, 0.1), 4: (0.6, 0.4), 6: (0.8, 0.6)}
    points = {}
    for episode in range(8):
        points[episode] = copies.ask(episode) if episode < 4 else np.full(3, episode / 10)
        if episode >= 4:
            copies.add(Asked(episode, points[episode], episode))
        copies.tell(episode, *good.get(episode, (0.1, 0.95)))
    born = {tuple(copies.ask(episode)) for episode in range(8, 40)}
    assert born == {tuple(points[episode]) for episode in good}


def test_nsga2_mixes_the_numbers_of_its_parents() -> None:
    mixing = evolving(6, population_size=4, crossover_prob=1, mutation_prob=0)
    parents = np.stack([mixing.ask(episode) for episode in range(4)])
    for episode in range(4):
        mixing.tell(episode, episode / 10, episode / 10)
    born = np.stack([mixing.ask(episode) for episode in range(4, 24)])
    assert all(number in parents[:, axis] for point in born for axis, number in enumerate(point))
    assert len({tuple(point) for point in born} - {tuple(point) for point in parents}) > 10


def test_cem_closes_in_on_the_elites() -> None:
    config = CEMConfig(population_size=4, elites=2, smoothing=1, spread_start=0.3, spread_end=0.02)
    cem = CrossEntropySearcher(config, np.array([0.0, 0.5, 1.0]), seed=0)
    drawn = np.stack([cem.ask(episode) for episode in range(400)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    # A normal distribution cut in half at its mean has its own mean at sqrt(2 / pi) deviations.
    np.testing.assert_allclose(drawn.mean(0), [0.3 * np.sqrt(2 / np.pi), 0.5, 1 - 0.3 * np.sqrt(2 / np.pi)], atol=0.03)

    cem = CrossEntropySearcher(config, np.array([0.0, 0.5, 1.0]), seed=0)
    points = np.stack([cem.ask(episode) for episode in range(4)])
    for episode, reward in enumerate([0.1, 0.9, 0.3, 0.5]):
        cem.tell(episode, reward, 1.0)
    np.testing.assert_allclose(cem.mean, points[[1, 3]].mean(0))
    np.testing.assert_allclose(cem.spread, np.maximum(points[[1, 3]].std(0), 0.02))
    for episode in range(4, 8):  # worse ones do not displace the elites
        cem.add(Asked(episode, np.full(3, 0.5), 4))
        cem.tell(episode, 0.2, 1.0)
    np.testing.assert_allclose(cem.mean, points[[1, 3]].mean(0))
    cem = CrossEntropySearcher(config.model_copy(update={"smoothing": 0.5}), np.array([0.2]), seed=0)
    for episode in range(4):
        cem.add(Asked(episode, np.array([0.6]), 0))
        cem.tell(episode, 1.0, 1.0)
    np.testing.assert_allclose(cem.mean, [0.4])
    np.testing.assert_allclose(cem.spread, [0.15])


@pytest.fixture(scope="module")
def random_rewards() -> np.ndarray:
    return rewards_of("random", 80)


def rewards_of(name: str, episodes: int) -> np.ndarray:
    env = redundant_block(1, ("macs=0.78",))
    agent = make_agent(AgentConfig(name=name), env, episodes, 0)
    rewards = []
    for episode in range(episodes):
        rollout = run_episode(env, agent.behaviour(episode), seed=0, episode=episode)
        agent.learn(rollout)
        rewards.append(rollout.outcome.rewards["terminal"])
    return np.array(rewards)


@pytest.mark.parametrize(("name", "episodes"), [("cem", 80), ("gp", 26), ("nsga2", 80), ("tpe", 80)])
def test_each_learns_where_to_cut(name: str, episodes: int, random_rewards: np.ndarray) -> None:
    found = rewards_of(name, episodes)
    assert found[-15:].mean() > random_rewards.mean() + random_rewards.std() / 3
    assert found[-15:].max() >= found[0]
    assert found[-15:].mean() > found[:15].mean()


@pytest.mark.parametrize("name", NAMES)
def test_searches_shorter_than_the_start_up_run(name: str) -> None:
    table = chain()
    env = CompressionEnv(table, make_profile(table), by_profile(table, make_profile(table)), EnvConfig())
    agent = make_agent(AgentConfig(name=name), env, 2, 0)
    assert len(play(env, agent, 0, 2)) == 2 < least_episodes(AgentConfig(name=name))


def test_least_episodes_follow_the_settings() -> None:
    def least(name: str, **kwargs) -> int:
        return least_episodes(AgentConfig(name=name, **kwargs))

    assert {name: least(name) for name in ("random", "uniform", "sensitivity")} == {
        "random": 1,
        "uniform": 1,
        "sensitivity": 1,
    }
    assert least("ddpg") == 6
    assert [least("tpe"), least("gp"), least("nsga2"), least("cem")] == [11, 11, 20, 15]
    assert [least(name, **SMALL) for name in ("tpe", "gp", "nsga2", "cem")] == [5, 5, 4, 4]
    assert all(least(name) >= 1 for name in AGENTS)
    with pytest.raises(UserError, match="Did you mean 'tpe'"):
        least("tpee")


def test_as_many_elites_as_points_are_refused() -> None:
    with pytest.raises(ValidationError, match="elites must be fewer than population_size=4"):
        CEMConfig(population_size=4, elites=4)
