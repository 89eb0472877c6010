"""What accuracy a plan will have, guessed from the errors that the profile gives its decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.decisions import Floats

_LENGTHS = (1.0, 2.0, 4.0)
_SLOPES = (1.0, 10.0, 50.0)
_NOISES = (0.01, 0.05, 0.2, 0.5)
_SPREADS_BELOW = 4.0


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process over the profile's errors (Rasmussen & Williams 2006, algorithm 2.1).

    The inputs are what makes it learn from few trials: over errors accuracy is nearly linear, over ratios and bits it
    is not. Its kernel is a linear one plus a squared exponential for what is not linear.

    Attributes:
        centre: Mean of each feature, `(features,)`.
        width: Standard deviation of each feature; infinite where it never changed.
        inputs: Standardised features of the trials, `(trials, features)`.
        factor: Cholesky factor of the kernel matrix.
        weights: Inverse kernel matrix x standardised values, `(trials,)`.
        mean: Mean of the values.
        deviation: Standard deviation of the values.
        length: Length scale of the squared exponential.
        slope: Variance of the linear part.
    """

    centre: Floats
    width: Floats
    inputs: Floats
    factor: Floats
    weights: Floats
    mean: float
    deviation: float
    length: float
    slope: float

    @classmethod
    def fit(cls, features: Floats, values: Floats, errors: Floats | None = None) -> Surrogate:
        """The process of the largest marginal likelihood among a few length scales, slopes and noises.

        Args:
            features: `(trials, features)`, at least two trials.
            values: Accuracies, `(trials,)`. What lies far below the median is raised: how bad a ruined net is does not
                matter, and would hide the differences between good ones.
            errors: Standard error of each accuracy, for those that are estimates, `(trials,)`; None: all are exact.
        """
        median, best = float(np.median(values)), float(values.max())
        values = np.maximum(values, median - _SPREADS_BELOW * max(best - median, 1e-3))
        centre, width = features.mean(0), features.std(0)
        width = np.where(width > 1e-9, width, np.inf)
        inputs = (features - centre) / width
        mean, deviation = float(values.mean()), float(values.std()) + 1e-6
        wanted = (values - mean) / deviation
        doubt = np.zeros(len(values)) if errors is None else (errors / deviation) ** 2
        products, distances = _products(inputs, inputs), _distances(inputs, inputs)
        found: tuple[float, Floats, Floats, float, float] | None = None
        for length in _LENGTHS:
            bumps = np.exp(-distances / (2 * length**2))
            for slope in _SLOPES:
                for noise in _NOISES:
                    kernel = slope * products + bumps + np.diag(noise + doubt)
                    factor = np.asarray(np.linalg.cholesky(kernel), dtype=np.float64)
                    half = np.linalg.solve(factor, wanted)
                    likelihood = -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())
                    if found is None or likelihood > found[0]:
                        weights = np.asarray(np.linalg.solve(factor.T, half), dtype=np.float64)
                        found = (likelihood, factor, weights, length, slope)
        assert found is not None
        return cls(centre, width, inputs, found[1], found[2], mean, deviation, found[3], found[4])

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the accuracy, each `(plans,)`, for features `(plans, features)`."""
        inputs = (features - self.centre) / self.width
        products = _products(inputs, self.inputs)
        kernel = self.slope * products + np.exp(-_distances(inputs, self.inputs) / (2 * self.length**2))
        explained = np.linalg.solve(self.factor, kernel.T)
        own = self.slope * (inputs**2).mean(1) + 1
        variance = np.maximum(own - (explained**2).sum(0), 1e-9)
        return self.mean + self.deviation * (kernel @ self.weights), self.deviation * np.sqrt(variance)


def _products(left: Floats, right: Floats) -> Floats:
    return np.asarray(left @ right.T / left.shape[1])


def _distances(left: Floats, right: Floats) -> Floats:
    """Mean squared differences, `(left, right)`."""
    squares = (left**2).mean(1)[:, None] + (right**2).mean(1)[None]
    return np.asarray(np.maximum(squares - 2 * _products(left, right), 0))
