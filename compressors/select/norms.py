"""Orders that look at the filters alone, and chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from compressors.layers import Ints
from compressors.select.base import SELECTORS, Problem


@SELECTORS.register(
    "l1", "smallest sum of absolute weights first", "Li et al. 2017, Pruning Filters for Efficient ConvNets"
)
def l1(filters: Tensor, problems: Sequence[Problem], rng: np.random.Generator) -> Ints:
    """Filters with the smallest L1 norm go first."""
    return np.asarray(filters.abs().sum(1).argsort(stable=True).numpy())


@SELECTORS.register("l2", "smallest Euclidean norm first", "He et al. 2018, Soft Filter Pruning")
def l2(filters: Tensor, problems: Sequence[Problem], rng: np.random.Generator) -> Ints:
    """Filters with the smallest L2 norm go first."""
    return np.asarray(filters.square().sum(1).argsort(stable=True).numpy())


@SELECTORS.register("random", "in random order: the control", "Li et al. 2022, Revisiting Random Channel Pruning")
def random(filters: Tensor, problems: Sequence[Problem], rng: np.random.Generator) -> Ints:
    """Any order is as good as another."""
    return rng.permutation(len(filters))
