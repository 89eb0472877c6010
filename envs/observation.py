"""What the agent sees: facts of the layer at hand, the budget, the last action, and what a cut would cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressors.cost import COSTS, Allocation, CostModel
from compressors.layers import Layer
from compressors.profile import BITS, Profile
from envs.budget import Budget
from envs.decisions import AXES, Choice, Decision, DecisionSpace, Floats

KINDS = ("conv", "grouped", "depthwise", "linear")
WAVES = (1, 2, 4, 8, 16)
CUT_RATIOS = (0.25, 0.5, 0.75)
CUT_BITS = (2, 4, 8)

Observation = NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """One number of the observation.

    Attributes:
        name: Its name.
        meaning: What it says.
        unit: Its unit, `1` for a ratio of like quantities.
        low: Smallest value.
        high: Largest value.
    """

    name: str
    meaning: str
    unit: str
    low: float = 0.0
    high: float = 1.0


_STATIC = (
    Column("position", "index of the step's layer among all layers, first 0, last 1; 1 after the end", "1"),
    *(Column(f"wave_{count}", f"cos(pi x position x {count}): tells neighbours apart", "1", -1.0) for count in WAVES),
    *(Column(f"is_{kind}", f"1 for a layer of kind {kind}", "flag") for kind in KINDS),
    Column("in_channels", "log2 of the input channels / 12", "log2"),
    Column("out_channels", "log2 of the output channels / 12", "log2"),
    Column("kernel_area", "log2 of the kernel's area / 8", "log2"),
    Column("stride", "largest stride / 4", "1"),
    Column("macs_share", "the layer's part of the original macs", "1"),
    Column("params_share", "the layer's part of the original parameters", "1"),
    Column("can_cut", "1 if the step decides a preserve ratio", "flag"),
    Column("can_quantize", "1 if the step decides bits", "flag"),
    *(
        Column(f"cut_error_{round(100 * ratio)}", f"root of the relative squared L2 error at ratio {ratio:g}", "1")
        for ratio in CUT_RATIOS
    ),
    *(
        Column(f"weight_error_{bits}", f"root of the relative squared L2 error with {bits}-bit weights", "1")
        for bits in CUT_BITS
    ),
    Column("activation_error_4", "root of the relative squared L2 error with 4-bit inputs", "1"),
    Column("rest_error", "the steps after this one: their part of all steps' error at ratio 0.5 and 4 bits", "1"),
)

_DYNAMIC = (
    *(Column(f"{kind}_spent", f"{kind} decided above the smallest reachable / original", "1") for kind in COSTS),
    *(Column(f"{kind}_rest", f"{kind} between least and most of what is undecided / original", "1") for kind in COSTS),
    *(Column(f"{kind}_target", f"limit on {kind} / original; 1 without one", "1") for kind in COSTS),
    *(Column(f"{kind}_slack", f"{kind} that may still be spent / original; 1 without limit", "1") for kind in COSTS),
    Column("affordable", "part of what is undecided that the tightest target can pay for", "1"),
    *(Column(f"last_{axis}", f"the executed {axis} of the step before; 1 at the first", "1", -1.0) for axis in AXES),
    Column("max_ratio", "largest feasible preserve ratio of this step", "1"),
    Column("max_weight_bits", "largest feasible weight bits of this step / 8; 1 if not quantised", "1"),
    Column("l2", "root of the mean relative squared L2 error of the decisions so far", "1"),
)

COLUMNS: tuple[Column, ...] = (*_STATIC, *_DYNAMIC)
"""The observation, number by number."""
_FROM_PROFILE = re.compile(r"cut_error_\d+|weight_error_\d+|activation_error_\d+|rest_error|l2")
"""Columns that are 0 where the profile is not shown."""


class Observer:
    """Makes observations; what does not change within an episode is computed once."""

    def __init__(self, space: DecisionSpace, costs: CostModel, profile: Profile) -> None:
        self._space = space
        self._costs = costs
        self._original = np.array([costs.original.of(kind) for kind in COSTS], dtype=np.float64)
        self._least = self._costs_of(space.smallest())
        self._most = space.largest()
        weight = [_static(space, step, costs, profile) for step in space.steps]
        halves = [row[_index("cut_error_50")] ** 2 + row[_index("weight_error_4")] ** 2 for row in weight]
        total = max(sum(halves), 1e-12)
        for step, row in enumerate(weight):
            row[_index("rest_error")] = sum(halves[step + 1 :]) / total
        done = np.zeros(len(_STATIC))
        done[0] = 1.0
        self._static = np.array([*weight, done])
        hidden = [bool(_FROM_PROFILE.fullmatch(column.name)) for column in COLUMNS]
        self._shown = np.ones(len(COLUMNS)) if space.config.profile_in_observation else 1.0 - np.array(hidden)

    def observe(self, budget: Budget, limits: Mapping[str, int], last: Choice | None, l2: float) -> Observation:
        """The observation of the step at hand, `(len(COLUMNS),)`, every number within its column's range.

        Args:
            budget: Decisions so far.
            limits: Whole limits by kind.
            last: What the step before executed, None at the first.
            l2: Sum of the relative squared L2 errors so far.
        """
        steps, position = self._space.steps, budget.position
        decided = budget.allocation
        low = self._costs_of(decided)
        high = self._costs_of(self._with_rest(decided, position))
        absent = [kind not in limits for kind in COSTS]
        bounds = np.array([limits.get(kind, whole) for kind, whole in zip(COSTS, self._original, strict=True)])
        slack, rest = bounds - low, high - low
        share = np.where(np.array(absent) | (rest <= 0), 1.0, slack / np.maximum(rest, 1e-12)).min()
        slack_ratio = np.where(absent, 1.0, slack / self._original)
        last_action = self._last(position, last)
        max_ratio, max_bits = self._reach(budget) if position < len(steps) else (1.0, 1.0)
        error = np.sqrt(l2 / position) if position else 0.0
        dynamic = [
            *((low - self._least) / self._original),
            *(rest / self._original),
            *(bounds / self._original),
            *slack_ratio,
            share,
            *last_action,
            max_ratio,
            max_bits,
            error,
        ]
        found = np.concatenate([self._static[position], dynamic]) * self._shown
        return np.asarray(found.clip(LOW, HIGH), dtype=np.float32)

    def _with_rest(self, decided: Allocation, position: int) -> Allocation:
        """The allocation with everything undecided at its most."""
        kept, weights = decided.kept.copy(), decided.weight_bits.copy()
        activations = decided.activation_bits.copy()
        for step in self._space.steps[position:]:
            kept[step.groups] = self._most.kept[step.groups]
            weights[step.layer] = self._most.weight_bits[step.layer]
            activations[step.layer] = self._most.activation_bits[step.layer]
        return Allocation(kept, weights, activations)

    def _costs_of(self, allocation: Allocation) -> Floats:
        found = self._costs.arrays(allocation.kept, allocation.weight_bits, allocation.activation_bits)
        return np.array([float(found[kind]) for kind in COSTS])

    def _last(self, position: int, last: Choice | None) -> list[float]:
        if last is None or position == 0:
            return [1.0] * len(AXES)
        coordinates = self._space.steps[position - 1].coordinates
        return [float(coordinates[axis][last[axis]]) for axis in range(len(AXES))]

    def _reach(self, budget: Budget) -> tuple[float, float]:
        step = self._space.steps[budget.position]
        ceilings = budget.ceilings()
        bits = step.weight_bits[np.flatnonzero((ceilings >= 0).any(axis=1))[-1]]
        return float(step.ratios[ceilings.max()]), min(1.0, float(bits) / 8)


def _index(name: str) -> int:
    return [column.name for column in COLUMNS].index(name)


def _static(space: DecisionSpace, step: Decision, costs: CostModel, profile: Profile) -> Floats:
    table = space.table
    layer = table.layers[step.layer]
    cut = [_cut_error(profile, step, ratio) for ratio in CUT_RATIOS]
    bits = [profile.weight_errors[step.layer, BITS.index(width)] for width in CUT_BITS]
    bits.append(profile.activation_errors[step.layer, BITS.index(4)])
    position = layer.index / max(1, len(table.layers) - 1)
    return np.array(
        [
            position,
            *(np.cos(np.pi * position * count) for count in WAVES),
            *_shape(layer),
            layer.macs / max(1, costs.original.macs),
            layer.params / max(1, costs.original.params),
            float(len(step.ratios) > 1),
            float(len(step.weight_bits) > 1 or len(step.activation_bits) > 1),
            *np.sqrt(np.clip([*cut, *bits], 0, 1)),
            0.0,
        ],
        dtype=np.float64,
    )


def _shape(layer: Layer) -> list[float]:
    area = float(np.prod(layer.kernel_size, dtype=np.int64)) if layer.kernel_size else 1.0
    return [
        *(float(layer.kind == kind) for kind in KINDS),
        float(np.log2(max(1, layer.in_channels))) / 12,
        float(np.log2(max(1, layer.out_channels))) / 12,
        float(np.log2(area)) / 8,
        max(layer.stride, default=1) / 4,
    ]


def _cut_error(profile: Profile, step: Decision, ratio: float) -> float:
    sizes = step.kept[-1]
    pairs = zip(step.groups, sizes, strict=True)
    return sum(profile.cut_error(int(group), max(1, round(ratio * int(size)))) for group, size in pairs)


LOW = np.array([column.low for column in COLUMNS])
HIGH = np.array([column.high for column in COLUMNS])
