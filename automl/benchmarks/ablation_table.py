"""What each part of the agent brings: one table for each cell, from rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from automl.benchmarks.ablation import FULL, VARIANTS
from automl.benchmarks.quality.statistics import METHOD, Interval, interval
from automl.benchmarks.quality.tables import CellCurves, Curve

HEAD = (
    "variant", "seeds", "best accuracy", "95% interval", "to full", "95% interval", "hypervolume", "to full",
    "95% interval", "s/episode", "pays",
)  # fmt: skip
CAPTION = (
    f"Mean over seeds; intervals: {METHOD}. To full: points of accuracy, or hypervolume, less those of full with the "
    "same seed. A part pays where without it the best accuracy, under a range of targets the hypervolume, is worse and "
    "the interval excludes 0; early stopping (full-images) where without it an episode is longer and the result no "
    "better. Few seeds agree by chance: three of three once in four times, five of five once in sixteen."
)


@dataclass(frozen=True)
class Ablated:
    """One line of a table.

    Attributes:
        name: The variant.
        seeds: How many searches.
        best: Best accuracy at the end.
        best_to_full: The same less that of `full` with the same seed; None for `full` itself, or without a common seed.
        hypervolume: Mean at the end.
        hypervolume_to_full: As `best_to_full`.
        seconds: Mean of an episode.
        pays: `yes`, `no` or `unclear`; empty for `full` itself, or without a common seed.
    """

    name: str
    seeds: int
    best: Interval
    best_to_full: Interval | None
    hypervolume: float
    hypervolume_to_full: Interval | None
    seconds: float
    pays: str

    def cells(self) -> tuple[str, ...]:
        """The line's texts, under `HEAD`."""
        return (
            self.name,
            str(self.seeds),
            f"{self.best.mean:.2%}",
            f"{100 * self.best.low:.2f}..{100 * self.best.high:.2f}",
            *_difference(self.best_to_full, 100, 2),
            f"{self.hypervolume:.4f}",
            *_difference(self.hypervolume_to_full, 1, 4),
            f"{self.seconds:.3g}",
            self.pays,
        )


def _difference(found: Interval | None, scale: float, digits: int) -> tuple[str, str]:
    if found is None:
        return "", ""
    mean, low, high = (f"{scale * value:+.{digits}f}" for value in (found.mean, found.low, found.high))
    return mean, f"{low}..{high}"


def is_ablation(cells: Iterable[CellCurves]) -> bool:
    """Whether all searches are by variants of the agent, and not by agents."""
    return all(set(cell.agents) <= set(VARIANTS) for cell in cells)


def lines(cell: CellCurves) -> list[Ablated]:
    """A cell's table: `full`, then the others, first the one that is worst without its part."""
    full = {curve.seed: curve for curve in cell.agents.get(FULL, [])}
    in_range = ".." in cell.target
    found = [_line(name, curves, full, in_range) for name, curves in cell.agents.items()]
    return sorted(
        found, key=lambda line: (line.name != FULL, line.hypervolume if in_range else line.best.mean, line.name)
    )


def legend(cells: Iterable[CellCurves]) -> list[str]:
    """For each variant that is shown a line on what is missing."""
    shown = {name for cell in cells for name in cell.agents}
    return [f"{one.name}: {one.without}." for one in VARIANTS.values() if one.name in shown]


def _line(name: str, curves: Sequence[Curve], full: Mapping[int, Curve], in_range: bool) -> Ablated:
    pairs = [(curve, full[curve.seed]) for curve in curves if curve.seed in full and name != FULL]
    best = [own.best[-1] - other.best[-1] for own, other in pairs]
    volume = [own.hypervolume[-1] - other.hypervolume[-1] for own, other in pairs]
    seconds = [_per_episode(own) - _per_episode(other) for own, other in pairs]
    return Ablated(
        name=name,
        seeds=len(curves),
        best=interval([curve.best[-1] for curve in curves]),
        best_to_full=interval(best) if pairs else None,
        hypervolume=float(np.mean([curve.hypervolume[-1] for curve in curves])),
        hypervolume_to_full=interval(volume) if pairs else None,
        seconds=float(np.mean([_per_episode(curve) for curve in curves])),
        pays=_verdict(name, volume if in_range else best, seconds) if pairs else "",
    )


def _per_episode(curve: Curve) -> float:
    return float(curve.seconds[-1] / curve.evaluations[-1])


def _verdict(name: str, results: Sequence[float], seconds: Sequence[float]) -> str:
    """Whether the part that a variant leaves out pays, from its differences to `full`, one for each seed."""
    if len(results) < 2:
        return "unclear"  # the interval of one seed is a point, which says nothing
    brings = -_sign(interval(results))
    if name in VARIANTS and VARIANTS[name].pays_in == "seconds" and brings >= 0:
        brings = _sign(interval(seconds))
    return {1: "yes", 0: "unclear", -1: "no"}[brings]


def _sign(found: Interval) -> int:
    return (found.low > 0) - (found.high < 0)
