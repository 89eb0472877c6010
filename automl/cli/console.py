"""What commands show: tables on standard output, progress on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from automl.front import Front

_TITLES = {"statistics": "Calibration", "profile": "Profile", "train": "Training"}


class ConsoleWatch:
    """Progress bars on a terminal; elsewhere one line at the end of each stage.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._stage = ""
        self._task: TaskID | None = None
        self._begun = 0.0

    def stage(self, name: str, done: int, total: int | None) -> None:
        """Shows how far a stage is; a stage ends when all its steps are done, or when another begins."""
        if name != self._stage:
            self.close()
            self._stage, self._begun = name, time.monotonic()
            if self.console.is_terminal:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
                self._progress = Progress(*columns, console=self.console)
                self._progress.start()
                self._task = self._progress.add_task(self._title(), total=total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        if total is not None and done >= total:
            self.close()

    def note(self, message: str) -> None:
        """One line."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the present stage."""
        if self._progress is not None:
            self._progress.stop()
        elif self._stage:
            self.note(f"{self._title()}: {time.monotonic() - self._begun:.1f} s.")
        self._progress, self._stage, self._task = None, "", None

    def _title(self) -> str:
        return _TITLES.get(self._stage, self._stage)


def front_table(front: Front) -> Table:
    """The front against the original net, narrow enough for 80 columns; bops only where bits make them differ."""
    original = front.original
    bits = any(abs(member.bops / (original["bops"] or 1) - member.macs_ratio) > 1e-3 for member in front.front)
    table = Table(
        title="The front: accuracies, and costs against the original",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    names = ("trial", "search", "tuned", "test", "MACs", "params", "size", *(("bops",) if bits else ()))
    for name in names:
        table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
    rows = [(original, None), *((member.model_dump(), member) for member in front.front)]
    for facts, member in rows:
        table.add_row(
            member.trial_id if member else "original",
            _percent(facts["accuracy_search"]),
            _percent(member.accuracy_finetuned) if member else "",
            _percent(facts["accuracy_test"]),
            _cost(facts, original, "macs", _count),
            _cost(facts, original, "params", _count),
            _cost(facts, original, "size_bytes", _bytes),
            *((_cost(facts, original, "bops", _count),) if bits else ()),
        )
    return table


def _cost(facts: Mapping[str, Any], original: Mapping[str, Any], name: str, shown: Callable[[float], str]) -> str:
    """A cost and its share of the original's."""
    share = "" if facts is original or not original[name] else f" {facts[name] / original[name]:4.0%}"
    return f"{shown(facts[name])}{share}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _count(value: float | None) -> str:
    return scaled(value or 0, ("", "k", "M", "G", "T"), 1000)


def _bytes(value: float | None) -> str:
    return scaled(value or 0, ("B", "kB", "MB", "GB"), 1000)


def scaled(value: float, units: tuple[str, ...], base: int) -> str:
    """A number with three digits or so and its unit."""
    index = 0
    while abs(value) >= base and index < len(units) - 1:
        value, index = value / base, index + 1
    return f"{value:.3g}{units[index]}" if index else f"{value:.0f}{units[0]}"
