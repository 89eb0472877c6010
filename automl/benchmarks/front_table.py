"""One search or several: one table for each net, from rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from automl.benchmarks.front_results import HYPERVOLUME, ONE, SPLIT, FrontRow
from automl.benchmarks.quality.statistics import METHOD, interval

DIFFERENCE = "difference"
WORDS = 2
"""How many columns of the head hold words."""
CAPTION = (
    "One search: over the whole range of targets. Split: as many episodes, in a search for each target. Under a target "
    "the best accuracy of the trials within it, whichever search they come from; (2/3) where only 2 of 3 seeds have "
    f"one. Mean over seeds; intervals: {METHOD}. Difference: one search less split with the same seed; accuracies in "
    "points."
)

Values = dict[int, float]
"""A figure of each seed that has it."""


@dataclass(frozen=True)
class FrontLine:
    """One line of a table.

    Attributes:
        agent: Who searched.
        way: `one search`, `split` or `difference`.
        seeds: How many.
        values: For each measure the figure of each seed.
        seconds: Mean.
    """

    agent: str
    way: str
    seeds: int
    values: Mapping[str, Values]
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """The line's texts, under the table's head."""
        figures = [text for measure in self.values for text in self._figure(measure)]
        seconds = f"{self.seconds:+.0f}" if self.way == DIFFERENCE else f"{self.seconds:.0f}"
        return (self.agent, self.way, str(self.seeds), *figures, seconds)

    def _figure(self, measure: str) -> tuple[str, str]:
        values = self.values[measure]
        if not values:
            return "-", ""
        found = interval(list(values.values()))
        sign = "+" if self.way == DIFFERENCE else ""
        scale, digits = (1, 4) if measure == HYPERVOLUME else (100, 2)
        mean, low, high = (f"{scale * value:{sign}.{digits}f}" for value in (found.mean, found.low, found.high))
        unit = "%" if measure != HYPERVOLUME and self.way != DIFFERENCE else ""
        few = f" ({len(values)}/{self.seeds})" if len(values) < self.seeds else ""
        return f"{mean}{unit}{few}", f"{low}..{high}"


@dataclass(frozen=True)
class FrontTable:
    """A table.

    Attributes:
        title: Net, data, range and episodes.
        measures: Names of the figures.
        lines: Three for each agent.
    """

    title: str
    measures: tuple[str, ...]
    lines: tuple[FrontLine, ...]

    @property
    def head(self) -> tuple[str, ...]:
        """Titles of the columns."""
        figures = [name for measure in self.measures for name in (measure, "95% interval")]
        return ("agent", "way", "seeds", *figures, "seconds")


def tables(rows: Iterable[FrontRow]) -> list[FrontTable]:
    """The tables of all nets, in the order of the rows."""
    nets: dict[tuple[str, str, str], list[FrontRow]] = {}
    for row in rows:
        nets.setdefault((row.net, row.data, row.range), []).append(row)
    return [_table(*names, found) for names, found in nets.items()]


def _table(net: str, data: str, span: str, rows: list[FrontRow]) -> FrontTable:
    measures = tuple(dict.fromkeys(row.measure for row in rows))
    lines: list[FrontLine] = []
    for agent in dict.fromkeys(row.agent for row in rows):
        one, split = (_line([row for row in rows if row.agent == agent], agent, way, measures) for way in (ONE, SPLIT))
        differences = {
            measure: {
                seed: one.values[measure][seed] - split.values[measure][seed]
                for seed in one.values[measure]
                if seed in split.values[measure]
            }
            for measure in measures
        }
        lines += [one, split, FrontLine(agent, DIFFERENCE, one.seeds, differences, one.seconds - split.seconds)]
    return FrontTable(
        f"{net} on {data}, {span}, {max(row.evaluations for row in rows)} evaluations", measures, tuple(lines)
    )


def _line(rows: list[FrontRow], agent: str, way: str, measures: tuple[str, ...]) -> FrontLine:
    own = [row for row in rows if row.way == way]
    values = {
        measure: {row.seed: row.value for row in own if row.measure == measure and row.value is not None}
        for measure in measures
    }
    seconds = {row.seed: row.seconds for row in own}
    return FrontLine(agent, way, len(seconds), values, float(np.mean(list(seconds.values()))))
