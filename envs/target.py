"""Targets: what a search must reach, e.g. `macs=0.5`, `macs=0.3..0.8` or `size=100kB`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compressors.cost import COSTS, Costs
from compressors.errors import UserError, one_of

_EXAMPLES = "for example macs=0.5, macs=0.3..0.8, params=200k or size=100kB"
_UNITS = {"": 1.0, "%": 0.01, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_NUMBER = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z%]*)", re.IGNORECASE)
_BASES = (2, 3, 5, 7)


@dataclass(frozen=True)
class Target:
    """A bound on one cost, or a range from which each episode gets its bound.

    Attributes:
        kind: One of `COSTS`.
        low: Smallest bound: a ratio to the original net where at most 1, otherwise absolute (macs, parameters,
            bytes or bops).
        high: Largest bound, equal to `low` where the bound is fixed.
    """

    kind: str
    low: float
    high: float

    @property
    def is_absolute(self) -> bool:
        """Whether the bounds are absolute numbers and not ratios."""
        return self.high > 1

    def __str__(self) -> str:
        low = f"{self.kind}={self.low:.15g}"
        return low if self.low == self.high else f"{low}..{self.high:.15g}"

    def sample(self, episode: int, seed: int, axis: int = 0) -> Target:
        """The fixed target of one episode, spread evenly over the range.

        A van der Corput sequence with a shift that depends on the seed: any run of episodes covers the range
        without gaps, and no random state is needed.

        Args:
            episode: Number of the episode, from 0.
            seed: Seed of the search.
            axis: Position among several targets; each position gets a sequence of its own (Halton).
        """
        shift = float(np.random.default_rng([seed, axis]).random())
        position = (_van_der_corput(episode, _BASES[axis % len(_BASES)]) + shift) % 1.0
        value = self.low + position * (self.high - self.low)
        return Target(self.kind, value, value)

    def absolute(self, original: Costs) -> int:
        """The upper bound as a whole number of macs, parameters, bytes or bops.

        Args:
            original: Costs of the net before compression.
        """
        return limit(self.kind, self.high, original)


def limit(kind: str, value: float, original: Costs) -> int:
    """The largest whole cost that meets `kind=value`; a value of at most 1 is a ratio to `original`."""
    exact = value * original.of(kind) if value <= 1 else value
    # 0.7 x 10 is 7.000000000000001 and 0.29 x 100 is 28.999999999999996: both mean the whole number.
    return math.floor(exact * (1 + 1e-12) + 1e-9)


def sample_targets(targets: Sequence[Target], episode: int, seed: int) -> dict[str, float]:
    """The value of every target in one episode, by kind, for `reset(options={"targets": ...})`."""
    return {target.kind: target.sample(episode, seed, axis).high for axis, target in enumerate(targets)}


def check_values(values: Mapping[str, float]) -> dict[str, float]:
    """The values of fixed targets by kind, checked.

    Raises:
        UserError: An unknown kind, or a value that is not a positive number.
    """
    checked: dict[str, float] = {}
    for kind, value in values.items():
        if kind not in COSTS:
            raise one_of("target", str(kind), COSTS)
        if not isinstance(value, (int, float, np.number)) or not math.isfinite(value) or value <= 0:
            raise UserError(f"A target must be a positive number, but got {kind}={value!r}; {_EXAMPLES}.")
        checked[kind] = float(value)
    return checked


def front_cost(kinds: Collection[str]) -> str:
    """The cost that a front is drawn over: macs where there is a target on them or none at all, else the first kind."""
    return "macs" if "macs" in kinds or not kinds else next(kind for kind in COSTS if kind in kinds)


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Targets from what a user typed.

    Args:
        texts: Each `KIND=VALUE` or `KIND=LOW..HIGH`; several in one text are separated by commas. A value of at most 1
            is a ratio to the original, a larger one is absolute and may carry a unit: `k`, `M`, `G`, for
            `size` also `B`, `kB`, `MB`, `KiB`, `MiB`; `50%` is the ratio 0.5.

    Raises:
        UserError: Malformed, unknown kind, the same kind twice, or no target at all.
    """
    pieces = [piece.strip() for text in texts for piece in text.split(",") if piece.strip()]
    if not pieces:
        raise UserError(f"A search needs at least one target, {_EXAMPLES}.")
    targets = tuple(_parse(piece) for piece in pieces)
    kinds = [target.kind for target in targets]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise UserError(f"Target {kind!r} is given {kinds.count(kind)} times; give it once, {_EXAMPLES}.")
    return targets


def _parse(text: str) -> Target:
    kind, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise UserError(f"A target must be KIND=VALUE, but got {text!r}; {_EXAMPLES}.")
    kind = kind.lower()
    if kind not in COSTS:
        raise one_of("target", kind, COSTS)
    bounds = [_number(kind, part.strip(), text) for part in value.split("..")]
    if len(bounds) > 2:
        raise UserError(f"A range has two ends, but got {text!r}; {_EXAMPLES}.")
    low, high = bounds[0], bounds[-1]
    if low > high:
        raise UserError(f"A range must go from low to high, but got {text!r}; write {kind}={high:g}..{low:g}.")
    if low <= 1 < high:
        raise UserError(f"Both ends of a range must be ratios (at most 1) or both absolute, but got {text!r}.")
    return Target(kind, low, high)


def _number(kind: str, text: str, whole: str) -> float:
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise UserError(f"{text!r} in target {whole!r} is not a number; {_EXAMPLES}.")
    unit = found[2].lower()
    units = _UNITS | _BYTES if kind == "size" else _UNITS
    if unit not in units:
        raise UserError(f"Unknown unit {found[2]!r} in target {whole!r}; {_EXAMPLES}.")
    value = float(found[1]) * units[unit]
    if not math.isfinite(value) or value <= 0:
        raise UserError(f"A target must be a positive number, but got {whole!r}; {_EXAMPLES}.")
    if (unit == "%") != (value <= 1) and unit:
        raise UserError(f"{text!r} in target {whole!r} must be {'at most 100%' if unit == '%' else 'above 1'}.")
    return value


def _van_der_corput(index: int, base: int) -> float:
    value, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        value += digit * scale
    return value
