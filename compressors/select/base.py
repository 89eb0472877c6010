"""What every channel selector takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from compressors.layers import Ints
from compressors.registry import Registry


@dataclass(frozen=True)
class Problem:
    """One consumer of a group: whose outputs must survive the loss of units.

    Attributes:
        second: Second moments of its inputs, `(blocks, columns, columns)`, or `(blocks, columns)` for a diagonal.
        weight: Its weights, rows scaled by their gain, `(blocks, out, columns)`.
        columns: The columns that each unit owns in a block, `(units, owned)`.
    """

    second: Tensor
    weight: Tensor
    columns: Tensor


class Selector(Protocol):
    """Ranks the units of one group."""

    def __call__(self, filters: Tensor, problems: Sequence[Problem], rng: np.random.Generator) -> Ints | None:
        """The order of removal, first removed first, or None: let elimination itself choose.

        Args:
            filters: What produces each unit: all its weights, `(units, weights)`.
            problems: The group's consumers.
            rng: For selectors that draw.
        """


SELECTORS: Registry[Selector] = Registry("channel order")
