"""The cross-entropy method: a normal distribution that closes in on the best of what it drew.

Rubinstein, The cross-entropy method for combinatorial and continuous optimization, Methodology and Computing in
Applied Probability 1, 1999. What differs: it is truncated to the box, begins around a given point, and the best of
earlier generations compete with the new ones, since evaluations are few.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from agents.blackbox import Asked, BlackBoxAgent
from agents.config import CEMConfig
from envs.compression import CompressionEnv
from envs.decisions import Floats

_STREAM = 5


class CrossEntropySearcher:
    """Independent truncated normal distributions over [0, 1], one for each number of a point.

    Attributes:
        mean: `(dimensions,)`.
        spread: Standard deviations before truncation, `(dimensions,)`.
    """

    def __init__(self, config: CEMConfig, start: Floats, seed: int) -> None:
        self.mean = start.copy()
        self.spread = np.full(len(start), config.spread_start)
        self._config = config
        self._seed = seed
        self._playing: dict[int, Floats] = {}
        self._elites: list[tuple[float, Floats]] = []
        self._drawn: list[tuple[float, Floats]] = []

    def ask(self, episode: int) -> Floats:
        """A draw from the distribution of now."""
        rng = np.random.default_rng([self._seed, episode, _STREAM])
        low, high = ndtr(-self.mean / self.spread), ndtr((1 - self.mean) / self.spread)
        drawn = self.mean + self.spread * ndtri(low + rng.random(len(self.mean)) * (high - low))
        self._playing[episode] = np.asarray(drawn.clip(0, 1))
        return self._playing[episode]

    def add(self, asked: Asked) -> None:
        """Takes over a point."""
        self._playing[asked.episode] = asked.point

    def tell(self, episode: int, reward: float, cost: float) -> None:
        """Moves the distribution to the elites once a generation is complete."""
        self._drawn.append((reward, self._playing.pop(episode)))
        if len(self._drawn) < self._config.population_size:
            return
        ranked = sorted(self._elites + self._drawn, key=lambda pair: pair[0], reverse=True)
        self._elites, self._drawn = ranked[: self._config.elites], []
        points = np.stack([point for _, point in self._elites])
        share = self._config.smoothing
        self.mean = (1 - share) * self.mean + share * points.mean(0)
        self.spread = np.maximum((1 - share) * self.spread + share * points.std(0), self._config.spread_end)


def cem_agent(config: CEMConfig, env: CompressionEnv, seed: int) -> BlackBoxAgent:
    """An agent that searches by the cross-entropy method, around the profile's own plan at first."""
    return BlackBoxAgent("cem", env, seed, lambda start: CrossEntropySearcher(config, start, seed))
