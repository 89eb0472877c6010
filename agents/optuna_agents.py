"""Agents that let a sampler of Optuna choose whole episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from agents.blackbox import Asked, BlackBoxAgent
from agents.config import GPConfig, NSGA2Config, TPEConfig
from compressors.threads import single_threaded
from envs.compression import CompressionEnv
from envs.decisions import Floats

_STREAM = 6
_MORE, _LESS = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE

Learned = dict[int, int]
"""By number of a trial, how many episodes had been learned from when it was asked for."""
SamplerMaker = Callable[[int, Learned], BaseSampler]
"""Makes a fresh sampler from a seed."""


class OptunaSearcher:
    """One study; every episode asks a fresh sampler with a seed of its own, so that no random state is carried along.

    Episodes in flight are running trials: TPE and the Gaussian process count them in (a constant liar, and an expected
    improvement beside them), NSGA-II needs not.
    """

    def __init__(self, make: SamplerMaker, dimensions: int, directions: list[StudyDirection], seed: int) -> None:
        """Makes an empty study.

        Args:
            make: Makes the sampler.
            dimensions: Numbers of a point.
            directions: Of the reward, and of the cost where it counts.
            seed: Seed of the search.
        """
        width = len(str(dimensions))
        # Padded, because Optuna sorts them by name.
        self._box: dict[str, BaseDistribution] = {
            f"x{index:0{width}}": FloatDistribution(0, 1) for index in range(dimensions)
        }
        self._make = make
        self._seed = seed
        self._objectives = len(directions)
        self._numbers: dict[int, int] = {}
        self._learned: Learned = {}
        self._told = 0
        with _quiet():
            self._study = optuna.create_study(directions=directions, sampler=make(0, self._learned))

    def ask(self, episode: int) -> Floats:
        """A new running trial's point."""
        number = len(self._numbers)
        self._numbers[episode], self._learned[number] = number, self._told
        seed = int(np.random.default_rng([self._seed, episode, _STREAM]).integers(2**31))
        with _quiet(), single_threaded():
            self._study.sampler = self._make(seed, self._learned)
            trial = self._study.ask(self._box)
        return np.array([trial.params[name] for name in self._box])

    def add(self, asked: Asked) -> None:
        """A running trial of that point."""
        number = len(self._numbers)
        self._numbers[asked.episode], self._learned[number] = number, asked.learned
        params = dict(zip(self._box, asked.point.tolist(), strict=True))
        with _quiet():
            self._study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=self._box))

    def tell(self, episode: int, reward: float, cost: float) -> None:
        """Completes the trial."""
        self._told += 1
        with _quiet():
            self._study.tell(self._numbers[episode], [reward, cost][: self._objectives])


class Generations(NSGAIISampler):
    """NSGA-II whose generations follow from when a trial was asked for, and that stores nothing in the study.

    Optuna writes generations and parents into the study as it goes, which a study made anew from its trials would
    lack. Here both are found again from the trials each time: the parents of a generation are the best of the one
    before and of its parents.
    """

    def __init__(self, config: NSGA2Config, seed: int, learned: Learned) -> None:
        super().__init__(
            population_size=config.population_size,
            crossover_prob=config.crossover_prob,
            swapping_prob=config.swapping_prob,
            mutation_prob=config.mutation_prob,
            seed=seed,
        )
        self._size = config.population_size
        self._learned = learned

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """One generation for every full population that had been learned from."""
        return self._learned[trial.number] // self._size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The finished trials of a generation."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in finished if self.get_trial_generation(study, trial) == generation]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The parents of a generation; the first has none."""
        return self.select_parent(study, generation) if generation else []


def tpe_agent(config: TPEConfig, env: CompressionEnv, seed: int) -> BlackBoxAgent:
    """An agent that searches by tree-structured Parzen estimators over all decisions jointly."""

    def sampler(seed: int, learned: Learned) -> BaseSampler:
        return TPESampler(
            n_startup_trials=config.n_startup_trials,
            n_ei_candidates=config.n_ei_candidates,
            multivariate=True,
            constant_liar=True,
            seed=seed,
        )

    return _agent("tpe", env, seed, sampler, [_MORE])


def gp_agent(config: GPConfig, env: CompressionEnv, seed: int) -> BlackBoxAgent:
    """An agent that searches by a Gaussian process and expected improvement."""

    def sampler(seed: int, learned: Learned) -> BaseSampler:
        sampler = GPSampler(n_startup_trials=config.n_startup_trials, seed=seed)
        # Not arguments, but fixed in the library: its own numbers take up to two seconds an episode.
        sampler._n_preliminary_samples = config.n_preliminary_samples
        sampler._n_local_search = config.n_local_search
        return sampler

    return _agent("gp", env, seed, sampler, [_MORE])


def nsga2_agent(config: NSGA2Config, env: CompressionEnv, seed: int) -> BlackBoxAgent:
    """An agent that evolves a population towards more reward and less cost."""
    return _agent("nsga2", env, seed, lambda seed, learned: Generations(config, seed, learned), [_MORE, _LESS])


def _agent(
    name: str, env: CompressionEnv, seed: int, make: SamplerMaker, directions: list[StudyDirection]
) -> BlackBoxAgent:
    return BlackBoxAgent(name, env, seed, lambda start: OptunaSearcher(make, len(start), directions, seed))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna's log to errors inside; its own setting comes back after."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
