"""The decisions of an episode: which layer decides what, and what an action in [-1, 1] stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressors.cost import FULL_BITS, Allocation
from compressors.errors import UserError
from compressors.layers import Group, Ints, Layer, LayerTable
from envs.config import EnvConfig

Floats = NDArray[np.float64]
Action = NDArray[np.float32]

AXES = ("preserve_ratio", "weight_bits", "activation_bits")
"""Everything that can be decided about a layer, in the order of an action's numbers."""


class Choice(NamedTuple):
    """One executed decision, as positions in the lists of its `Decision`."""

    level: int
    weight: int
    activation: int


@dataclass(frozen=True)
class Decision:
    """What one step decides. Every list is ascending; where nothing is to be decided it has one entry.

    Attributes:
        layer: Index of the layer.
        groups: Indices of the groups that the layer heads and that may be cut, `(groups,)`, perhaps none.
        kept: Units kept in each of them, `(levels, groups)`.
        ratios: Fraction of the largest group's units that is kept, `(levels,)`, the last is 1.
        weight_bits: `(widths,)`.
        activation_bits: `(widths,)`.
        coordinates: For each of `AXES` the number in [-1, 1] that stands for each entry.
    """

    layer: int
    groups: Ints
    kept: Ints
    ratios: Floats
    weight_bits: Ints
    activation_bits: Ints
    coordinates: tuple[Floats, Floats, Floats]

    @property
    def full(self) -> Choice:
        """The choice that keeps most."""
        return Choice(len(self.ratios) - 1, len(self.weight_bits) - 1, len(self.activation_bits) - 1)


class DecisionSpace:
    """All decisions of an episode, in the order of the layers.

    Attributes:
        table: Table of the net.
        config: The environment's settings.
        steps: One decision for each layer that has something to decide.
        axes: Names of the numbers in an action.
    """

    def __init__(self, table: LayerTable, config: EnvConfig) -> None:
        """Lists the decisions.

        Raises:
            UserError: No layer has anything to decide.
        """
        self.table = table
        self.config = config
        self.axes = config.axes
        self._columns = [AXES.index(name) for name in self.axes]
        found = (self._decision(layer) for layer in table.layers)
        self.steps = tuple(step for step in found if max(len(c) for c in step.coordinates) > 1)
        if not self.steps:
            raise UserError(f"Nothing to decide in {table.net!r} with mode={config.mode!r}: {self._why_nothing()}.")

    def __len__(self) -> int:
        return len(self.steps)

    def decided(self) -> NDArray[np.bool_]:
        """Which of `AXES` each step has something to decide on, `(steps, 3)`."""
        return np.array([[len(scale) > 1 for scale in step.coordinates] for step in self.steps])

    def largest(self) -> Allocation:
        """The allocation in which every decision keeps most."""
        return self._extreme(-1)

    def smallest(self) -> Allocation:
        """The allocation in which every decision keeps least."""
        return self._extreme(0)

    def allocate(self, choices: Sequence[Choice]) -> Allocation:
        """The allocation that a choice for every step makes."""
        result = self.largest()
        for step, choice in zip(self.steps, choices, strict=True):
            result.kept[step.groups] = step.kept[choice.level]
            result.weight_bits[step.layer] = step.weight_bits[choice.weight]
            result.activation_bits[step.layer] = step.activation_bits[choice.activation]
        return result

    def action(self, step: int, choice: Choice) -> Action:
        """The action in [-1, 1] that stands for a choice, `(axes,)`."""
        coordinates = self.steps[step].coordinates
        return np.array([coordinates[axis][choice[axis]] for axis in self._columns], dtype=np.float32)

    def actions(self, choices: Sequence[Choice]) -> Action:
        """The actions of a whole episode, `(steps, axes)`."""
        return np.stack([self.action(step, choice) for step, choice in enumerate(choices)])

    def point(self, action: Action) -> Floats:
        """An action over all of `AXES`, `(3,)`, with 1 where the mode decides nothing."""
        full = np.ones(len(AXES))
        full[self._columns] = action
        return full

    def _extreme(self, end: int) -> Allocation:
        layers = len(self.table.layers)
        kept = self.table.group_sizes.copy()
        weights = np.full(layers, FULL_BITS, dtype=np.int64)
        activations = weights.copy()
        for layer in self.table.layers:
            weights[layer.index] = self._weight_bits(layer)[end]
            activations[layer.index] = self._activation_bits(layer)[end]
        for step in self.steps:
            kept[step.groups] = step.kept[end]
        return Allocation(kept, weights, activations)

    def _decision(self, layer: Layer) -> Decision:
        config = self.config
        groups = [group for group in self.table.heads(layer.name) if self._may_cut(group)]
        levels, ratios = self._levels(groups)
        weights, activations = self._weight_bits(layer), self._activation_bits(layer)
        span = 1 - config.min_preserve_ratio
        cut = 2 * (ratios - config.min_preserve_ratio) / span - 1 if span > 0 else np.ones(len(ratios))
        coordinates = (cut, self._bits_coordinates(weights), self._bits_coordinates(activations))
        indices = np.array([group.index for group in groups], dtype=np.int64)
        return Decision(layer.index, indices, levels, ratios, weights, activations, coordinates)

    def _may_cut(self, group: Group) -> bool:
        if not self.config.decides_ratio or not (group.inner or self.config.residual):
            return False
        return self._least(group.size) < group.size

    def _least(self, size: int) -> int:
        """Fewest units of a group of `size` that may be kept."""
        multiple = self.config.channel_multiple
        # The tolerance keeps 0.1 x 30 = 3.0000000000000004 from meaning 4 units.
        wanted = max(1, math.ceil(self.config.min_preserve_ratio * size - 1e-9))
        return min(size, math.ceil(wanted / multiple) * multiple)

    def _levels(self, groups: Sequence[Group]) -> tuple[Ints, Floats]:
        if not groups:
            return np.zeros((1, 0), dtype=np.int64), np.ones(1)
        multiple = self.config.channel_multiple
        widest = max(group.size for group in groups)
        least = self._least(widest)
        counts = np.unique([*range(least, widest, multiple), widest]).astype(np.int64)
        ratios = counts / widest
        columns = []
        for group in groups:
            column = np.rint(ratios * group.size / multiple).astype(np.int64) * multiple
            column = column.clip(self._least(group.size), group.size)
            column[-1] = group.size
            columns.append(column)
        return np.stack(columns, axis=1), ratios

    def _weight_bits(self, layer: Layer) -> Ints:
        return self._widths(layer) if self.config.decides_bits else np.array([FULL_BITS], dtype=np.int64)

    def _activation_bits(self, layer: Layer) -> Ints:
        return self._widths(layer) if self.config.activation_bits else np.array([FULL_BITS], dtype=np.int64)

    def _widths(self, layer: Layer) -> Ints:
        fixed = self.config.first_last_bits
        if fixed is not None and layer.index in (0, len(self.table.layers) - 1):
            return np.array([fixed], dtype=np.int64)
        return np.arange(self.config.min_bits, self.config.max_bits + 1, dtype=np.int64)

    def _bits_coordinates(self, bits: Ints) -> Floats:
        if len(bits) == 1:
            return np.ones(1)
        return np.asarray(2 * (bits - bits[0]) / (bits[-1] - bits[0]) - 1.0)

    def _why_nothing(self) -> str:
        if self.config.mode == "bits":
            return "min_bits equals max_bits, or only the first and last layer exist and first_last_bits holds them"
        if self.table.groups and not self.config.residual and not any(group.inner for group in self.table.groups):
            return "all groups are tied by sums of branches; set residual=True to cut them"
        if self.table.groups:
            return "no group may lose a unit; lower min_preserve_ratio or channel_multiple"
        return "all channels are pinned, see `secateur layers`"
