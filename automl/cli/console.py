"""What commands show: tables on standard output, progress on standard error."""

from __future__ import annotations

import time

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
    """The front as a table, against the original net."""
    original = front.original
    table = Table(title="The front", title_justify="left")
    for name in ("trial", "accuracy: search", "finetuned", "test", "MACs", "of original", "parameters", "of original",
                 "size", "of original"):  # fmt: skip
        table.add_column(name, justify="left" if name == "trial" else "right")
    table.add_row(
        "original", _percent(original["accuracy_search"]), "", _percent(original["accuracy_test"]),
        _count(original["macs"]), "", _count(original["params"]), "", _bytes(original["size_bytes"]), "",
    )  # fmt: skip
    for member in front.front:
        table.add_row(
            member.trial_id, _percent(member.accuracy_search), _percent(member.accuracy_finetuned),
            _percent(member.accuracy_test), _count(member.macs), f"{member.macs_ratio:.1%}",
            _count(member.params), _ratio(member.params, original["params"]),
            _bytes(member.size_bytes), _ratio(member.size_bytes, original["size_bytes"]),
        )  # fmt: skip
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _ratio(value: float, whole: float | None) -> str:
    return f"{value / whole:.1%}" if whole else ""


def _count(value: float | None) -> str:
    return scaled(value or 0, ("", "k", "M", "G", "T"), 1000)


def _bytes(value: float | None) -> str:
    return scaled(value or 0, (" B", " kB", " MB", " GB"), 1000)


def scaled(value: float, units: tuple[str, ...], base: int) -> str:
    """A number with three digits or so and its unit."""
    index = 0
    while abs(value) >= base and index < len(units) - 1:
        value, index = value / base, index + 1
    return f"{value:.3g}{units[index]}" if index else f"{value:.0f}{units[0]}"
