"""The budget: what a step may still choose so that every target stays within reach."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from compressors.cost import COSTS, Allocation, CostModel, Costs
from compressors.errors import UserError
from compressors.layers import Ints, LayerTable
from envs.config import EnvConfig
from envs.decisions import Choice, DecisionSpace, Floats
from envs.target import limit

_TIE = 1e-6


class Budget:
    """The allocation so far, and the feasible choices of the step at hand.

    What is not decided yet is held at its minimum. Costs rise with the units kept and with the bits, so a choice is
    feasible exactly if all targets hold with the rest at its minimum, and after the last step they hold exactly.

    Attributes:
        position: Number of decisions made.
    """

    def __init__(self, space: DecisionSpace, costs: CostModel, limits: Mapping[str, int]) -> None:
        """Starts an episode with nothing decided.

        Args:
            space: The decisions.
            costs: Cost model of the same table.
            limits: Whole macs, parameters, bytes or bops that may not be exceeded, by kind.

        Raises:
            UserError: A limit is below the smallest reachable cost.
        """
        self.position = 0
        self._space = space
        self._costs = costs
        self._limits = {kind: float(value) for kind, value in limits.items()}
        start = space.smallest()
        check_reachable(space, costs, costs.of(start), limits)
        self._kept, self._weights, self._activations = start.kept, start.weight_bits, start.activation_bits
        self._ceilings: Ints | None = None

    @property
    def allocation(self) -> Allocation:
        """Decisions so far, the rest at its minimum."""
        return Allocation(self._kept.copy(), self._weights.copy(), self._activations.copy())

    def ceilings(self) -> Ints:
        """For each pair of widths the largest feasible level, -1 where none is; `(weight widths, activation widths)`.

        Bisection over the levels, for all pairs at once: costs are monotone.
        """
        if self._ceilings is not None:
            return self._ceilings
        step = self._space.steps[self.position]
        shape = (len(step.weight_bits), len(step.activation_bits))
        pairs = shape[0] * shape[1]
        kept = np.repeat(self._kept[None], pairs, axis=0)
        weights = np.repeat(self._weights[None], pairs, axis=0)
        activations = np.repeat(self._activations[None], pairs, axis=0)
        weights[:, step.layer] = np.repeat(step.weight_bits, shape[1])
        activations[:, step.layer] = np.tile(step.activation_bits, shape[0])
        low, high = np.full(pairs, -1), np.full(pairs, len(step.ratios) - 1)
        middle = high.copy()  # tried first, because at a loose target everything is feasible
        while (low < high).any():
            kept[:, step.groups] = step.kept[middle]
            fits = self._fits(self._costs.arrays(kept, weights, activations))
            open_ = low < high
            low = np.where(open_ & fits, middle, low)
            high = np.where(open_ & ~fits, middle - 1, high)
            middle = (low + high + 1) // 2
        self._ceilings = low.reshape(shape)
        return self._ceilings

    def project(self, point: Floats) -> Choice:
        """The feasible choice nearest to a proposal.

        Distance is Euclidean over the numbers of the action. Of equally near choices one with the proposed bits
        wins, then the one that keeps more units, then more bits.

        Args:
            point: The proposal over `AXES`, `(3,)`, in [-1, 1].
        """
        step = self._space.steps[self.position]
        ceilings = self.ceilings().ravel()
        wanted = [_nearest(c, float(p)) for c, p in zip(step.coordinates, point, strict=True)]
        levels = np.minimum(ceilings, wanted[0])
        weights, activations = np.divmod(np.arange(len(ceilings)), len(step.activation_bits))
        chosen = (np.maximum(levels, 0), weights, activations)
        distance = np.zeros(len(ceilings))
        for coordinates, indices, proposal in zip(step.coordinates, chosen, point, strict=True):
            if len(coordinates) > 1:
                distance += (coordinates[indices] - proposal) ** 2
        distance[ceilings < 0] = np.inf
        near = np.flatnonzero(distance <= distance.min() + _TIE)
        same = (weights[near] == wanted[1]).astype(np.int64) + (activations[near] == wanted[2])
        best = int(near[np.lexsort((weights[near] + activations[near], levels[near], same))[-1]])
        return Choice(int(levels[best]), int(weights[best]), int(activations[best]))

    def commit(self, choice: Choice) -> None:
        """Makes the decision of the step at hand."""
        step = self._space.steps[self.position]
        self._kept[step.groups] = step.kept[choice.level]
        self._weights[step.layer] = step.weight_bits[choice.weight]
        self._activations[step.layer] = step.activation_bits[choice.activation]
        self._ceilings = None
        self.position += 1

    def _fits(self, costs: Mapping[str, Floats]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return fits(costs, self._limits)


def fits(costs: Mapping[str, Floats], limits: Mapping[str, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Whether costs (as from `CostModel.arrays`) meet all limits; over their leading axes."""
    shape = np.shape(next(iter(costs.values())))
    held = np.ones(shape, dtype=np.bool_)
    for kind, bound in limits.items():
        held &= np.rint(costs[kind]) <= bound
    return held


def smallest(table: LayerTable, config: EnvConfig) -> Costs:
    """The smallest costs that an episode can reach; all four are reached by one and the same allocation."""
    return CostModel(table).of(DecisionSpace(table, config).smallest())


def check_reachable(space: DecisionSpace, costs: CostModel, least: Costs, limits: Mapping[str, int]) -> None:
    """Refuses limits below the smallest reachable costs.

    Raises:
        UserError: Names the target, the smallest reachable value as ratio and absolute, and what would help.
    """
    for kind, bound in limits.items():
        if least.of(kind) <= bound:
            continue
        whole, reach = costs.original.of(kind), least.of(kind)
        raise UserError(
            f"Target {kind}={bound / whole:.4g} ({bound:,} of {whole:,}) is out of reach for {space.table.net!r}: "
            f"the smallest reachable is {kind}={_round_up(reach / whole):.4g} ({reach:,}) "
            f"with {_settings(space.config)}.{_hint(space, costs, kind, bound)}"
        )


def _round_up(ratio: float) -> float:
    """A ratio with four decimals that can be typed as a target and is reachable."""
    return min(1.0, math.ceil(ratio * 1e4) / 1e4)


def _settings(config: EnvConfig) -> str:
    parts = [f"mode={config.mode}"]
    if config.decides_ratio:
        parts += [f"min_preserve_ratio={config.min_preserve_ratio:g}", f"residual={config.residual}"]
    if config.decides_bits:
        parts += [f"min_bits={config.min_bits}"]
    return ", ".join(parts)


def _hint(space: DecisionSpace, costs: CostModel, kind: str, bound: int) -> str:
    """What to change, the least change that reaches the bound first."""
    config = space.config
    changes: list[tuple[str, dict[str, object]]] = []
    if config.mode == "sparsity" and kind in ("size", "bops"):
        changes.append(("mode=both", {"mode": "both"}))
    if config.decides_ratio and not config.residual:
        changes.append(("residual=True", {"residual": True}))
    if config.decides_ratio and config.min_preserve_ratio > 0.02:
        changes.append(("min_preserve_ratio=0.02", {"min_preserve_ratio": 0.02, "channel_multiple": 1}))
    if config.decides_bits and config.min_bits > 2:
        changes.append(("min_bits=2", {"min_bits": 2}))
    if kind == "bops" and config.decides_bits and not config.activation_bits:
        changes.append(("activation_bits=True", {"activation_bits": True}))
    if config.mode == "bits":
        changes.append(("mode=both", {"mode": "both"}))
    together: dict[str, object] = {}
    names: list[str] = []
    for name, change in changes:
        if _least(space.table, config, costs, change).of(kind) <= bound:
            return f" With {name} it can be reached."
        together |= change
        names.append(name)
        if len(names) > 1 and _least(space.table, config, costs, together).of(kind) <= bound:
            return f" With {' and '.join(names)} it can be reached."
    return " No other setting reaches it either."


def _least(table: LayerTable, config: EnvConfig, costs: CostModel, change: dict[str, object]) -> Costs:
    return costs.of(DecisionSpace(table, config.model_copy(update=change)).smallest())


def _nearest(coordinates: Floats, value: float) -> int:
    """Position of the entry nearest to `value` in an ascending array; the larger one of two equally near."""
    return int(np.searchsorted((coordinates[:-1] + coordinates[1:]) / 2, value, side="right"))


def limits_of(values: Mapping[str, float], original: Costs) -> dict[str, int]:
    """Whole limits of fixed targets, in the order of `COSTS`."""
    return {kind: limit(kind, values[kind], original) for kind in COSTS if kind in values}
