"""What the terminal shows of a comparison, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class QualityProgress:
    """A bar on a terminal, elsewhere a line now and then: searches, evaluations, time left.

    Args:
        console: Where to write.
        every_s: Seconds between lines where there is no terminal.
        clock: Seconds now, increasing.
    """

    def __init__(self, console: Console, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._every_s, self._clock = console, every_s, clock
        self._bar: Progress | None = None

    def start(self, jobs: int, evaluations: int, jobs_done: int, evaluations_done: int) -> None:
        """Shows what there is to do, and how much of it was done before."""
        self._jobs, self._total, self._first = jobs, evaluations, evaluations_done
        self._begun = self._said = self._clock()
        self._last = -1
        if self._console.is_terminal and evaluations_done < evaluations:
            self._bar = Progress(BarColumn(bar_width=24), TextColumn("{task.description}"), console=self._console)
            self._task = self._bar.add_task("", total=evaluations)
            self._bar.start()
        self._show(jobs_done, evaluations_done, due=True)

    def update(self, jobs_done: int, evaluations_done: int) -> None:
        """Shows how much is done now."""
        finished = evaluations_done >= self._total and jobs_done >= self._jobs
        self._show(jobs_done, evaluations_done, due=finished or self._clock() - self._said >= self._every_s)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def describe(self, jobs_done: int, evaluations_done: int) -> str:
        """How far it is, e.g. `Searches 3/40, evaluations 450/6,000, 1:20:03 left`."""
        text = f"Searches {jobs_done}/{self._jobs}, evaluations {evaluations_done:,}/{self._total:,}"
        new = evaluations_done - self._first
        if not new or evaluations_done >= self._total:
            return text
        left = round((self._clock() - self._begun) / new * (self._total - evaluations_done))
        return f"{text}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"

    def _show(self, jobs_done: int, evaluations_done: int, due: bool) -> None:
        text = self.describe(jobs_done, evaluations_done)
        if self._bar is not None:
            self._bar.update(self._task, completed=evaluations_done, description=text)
        elif due:
            self._said = self._clock()
            self._console.print(f"{text}.", markup=False, highlight=False, soft_wrap=True)
