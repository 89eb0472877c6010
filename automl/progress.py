"""What the terminal shows while a search runs. Everything goes to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from automl.archive import Archive
from automl.ledger import TrialRecord


class SearchProgress(Protocol):
    """Is told how a search goes."""

    def start(self, episodes: int, archive: Archive) -> None:
        """The search begins, or goes on, with what is in the archive."""

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        """A trial was recorded; the archive has it."""

    def figures(self, figures: Mapping[str, float]) -> None:
        """What the agent said of itself when it learned from a trial."""

    def note(self, message: str) -> None:
        """Something worth a line."""

    def stop(self) -> None:
        """The search ended or was interrupted."""


class NullProgress:
    """Shows nothing."""

    def start(self, episodes: int, archive: Archive) -> None:
        """Nothing."""

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        """Nothing."""

    def figures(self, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


def describe(record: TrialRecord, archive: Archive) -> str:
    """A trial in a few words, e.g. `t00017 0.912 at macs 0.49`."""
    if record.status == "failed":
        return f"{record.trial_id} failed: {record.error}"
    about = "stopped at about " if record.status == "stopped" else ""
    return f"{record.trial_id} {about}{record.accuracy_search:.3f} at {archive.cost} {archive.cost_ratio(record):.2f}"


def _best(archive: Archive) -> str:
    best = archive.best()
    return describe(best, archive) if best else "none yet"


class LiveProgress:
    """A bar with the best trial, the last trial and the time left."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("Search"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]}, last {task.fields[last]}"),
            TimeRemainingColumn(),
            console=console,
        )

    def start(self, episodes: int, archive: Archive) -> None:
        """Shows the bar."""
        done = len(archive.records)
        # rich estimates from the steps it saw, so what an earlier process did does not distort the time left.
        self._task = self._bar.add_task("", total=episodes, completed=done, best=_best(archive), last="none yet")
        self._bar.start()

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        """Moves the bar."""
        best, last = escape(_best(archive)), escape(describe(record, archive))
        self._bar.update(self._task, advance=1, best=best, last=last)

    def figures(self, figures: Mapping[str, float]) -> None:
        """Not shown."""

    def note(self, message: str) -> None:
        """A line above the bar."""
        self._bar.console.print(message, markup=False, highlight=False)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self._bar.stop()


@dataclass
class LineProgress:
    """Plain lines for a log: one when something better was found, and one every few seconds.

    Attributes:
        console: Where to write.
        every_s: Seconds between lines.
        clock: Seconds now, increasing.
    """

    console: Console
    every_s: float = 10.0
    clock: Callable[[], float] = time.monotonic

    def start(self, episodes: int, archive: Archive) -> None:
        """Says where the search begins."""
        self._episodes, self._begun, self._first = episodes, self.clock(), len(archive.records)
        self._said, self._best = self._begun, archive.best()
        self.note(f"Search: {self._first} of {episodes} episodes done, best {_best(archive)}.")

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        """Writes a line if one is due."""
        now, done, best = self.clock(), len(archive.records), archive.best()
        if best is self._best and now - self._said < self.every_s and done < self._episodes:
            return
        self._said, self._best = now, best
        left = (now - self._begun) / (done - self._first) * (self._episodes - done)
        self.note(
            f"Search: {done}/{self._episodes}, best {_best(archive)}, last {describe(record, archive)}, "
            f"{left:.0f} s left."
        )

    def figures(self, figures: Mapping[str, float]) -> None:
        """Not shown."""

    def note(self, message: str) -> None:
        """One line."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Nothing."""


def make_progress(console: Console | None = None) -> LiveProgress | LineProgress:
    """A bar on a terminal, plain lines elsewhere.

    Args:
        console: Where to write; standard error without it.
    """
    console = console or Console(stderr=True)
    return LiveProgress(console) if console.is_terminal else LineProgress(console)
