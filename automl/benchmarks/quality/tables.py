"""One table for each cell, from rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from automl.benchmarks.quality.results import Row
from automl.benchmarks.quality.statistics import METHOD, Floats, Interval, first_reaching, interval

BASELINE = "random"
"""Whose best at the end the others are timed by."""
HEAD = ("agent", "seeds", "best accuracy", "95% interval", "hypervolume", "95% interval", "to random's", "seconds")
CAPTION = (
    f"Mean over seeds; intervals: {METHOD}. To random's: evaluations until the mean best accuracy that {BASELINE} ends "
    "with is reached; where only some seeds reach it, how many do. With so few seeds such intervals are too narrow; "
    "stopped trials count for neither figure."
)


@dataclass(frozen=True, eq=False)
class Curve:
    """One search, at the numbers of evaluations that the rows have.

    Attributes:
        seed: Of the search.
        evaluations: `(points,)`, rising.
        seconds: `(points,)`, rising.
        best: Best accuracy so far, `(points,)`.
        hypervolume: So far, `(points,)`.
    """

    seed: int
    evaluations: Floats
    seconds: Floats
    best: Floats
    hypervolume: Floats


@dataclass(frozen=True, eq=False)
class CellCurves:
    """All searches of one cell.

    Attributes:
        net: Short name.
        data: Short name.
        target: As typed.
        agents: Curves of each agent, one for each seed.
    """

    net: str
    data: str
    target: str
    agents: dict[str, list[Curve]]

    @property
    def title(self) -> str:
        """Net, data, target and how many evaluations."""
        return f"{self.net} on {self.data}, {self.target}, {self.episodes} evaluations"

    @property
    def episodes(self) -> int:
        """Evaluations of each search."""
        return int(max(curve.evaluations[-1] for curves in self.agents.values() for curve in curves))


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Attributes:
        agent: Who searched.
        seeds: How many searches.
        best: Best accuracy at the end.
        hypervolume: At the end.
        reached: Of each seed the evaluations until random's mean best, or None if never; empty without random.
        seconds: Mean of whole searches.
    """

    agent: str
    seeds: int
    best: Interval
    hypervolume: Interval
    reached: tuple[float | None, ...]
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """The line's texts, under `HEAD`."""
        return (
            self.agent,
            str(self.seeds),
            f"{self.best.mean:.2%}",
            f"{100 * self.best.low:.2f}..{100 * self.best.high:.2f}",
            f"{self.hypervolume.mean:.4f}",
            f"{self.hypervolume.low:.4f}..{self.hypervolume.high:.4f}",
            self._reached(),
            f"{self.seconds:.0f}" if self.seconds >= 10 else f"{self.seconds:.2g}",
        )

    def _reached(self) -> str:
        if not self.reached:
            return ""
        counts = [count for count in self.reached if count is not None]
        if len(counts) == len(self.reached):
            return f"{np.mean(counts):.1f}"
        return f"- ({len(counts)}/{len(self.reached)})" if counts else "-"


def cells_of(rows: Iterable[Row]) -> list[CellCurves]:
    """The searches of each cell, in the order of the rows."""
    found: dict[tuple[str, str, str], dict[str, dict[int, list[Row]]]] = {}
    for row in rows:
        agents = found.setdefault((row.net, row.data, row.target), {})
        agents.setdefault(row.agent, {}).setdefault(row.seed, []).append(row)
    return [
        CellCurves(*names, {agent: [_curve(*one) for one in seeds.items()] for agent, seeds in agents.items()})
        for names, agents in found.items()
    ]


def _curve(seed: int, rows: Sequence[Row]) -> Curve:
    columns = [(row.evaluations, row.seconds, row.best_accuracy, row.hypervolume) for row in rows]
    evaluations, seconds, best, volume = np.array(columns, dtype=np.float64).T
    return Curve(seed, evaluations, seconds, best, volume)


def entries(cell: CellCurves) -> list[Entry]:
    """A cell's table, the best mean accuracy first."""
    bar = None
    if BASELINE in cell.agents:
        bar = float(np.mean([curve.best[-1] for curve in cell.agents[BASELINE]]))
    lines = [
        Entry(
            agent=agent,
            seeds=len(curves),
            best=interval([curve.best[-1] for curve in curves]),
            hypervolume=interval([curve.hypervolume[-1] for curve in curves]),
            reached=()
            if bar is None
            else tuple(first_reaching(curve.evaluations, curve.best, bar) for curve in curves),
            seconds=float(np.mean([curve.seconds[-1] for curve in curves])),
        )
        for agent, curves in cell.agents.items()
    ]
    return sorted(lines, key=lambda line: (-line.best.mean, -line.hypervolume.mean, line.agent))
