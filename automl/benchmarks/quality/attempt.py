"""One search at a time: what comes of it, and of all of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from automl.benchmarks.quality.cell import Benches, run_job
from automl.benchmarks.quality.plan import Job
from automl.benchmarks.quality.store import Store
from automl.search_loop import SearchInterrupted
from compressors.errors import UserError

FAILURE_FILE = "failure.txt"


class Progress(Protocol):
    """Is told how far the searches are."""

    def start(self, jobs: int, evaluations: int, jobs_done: int, evaluations_done: int) -> None:
        """What there is to do, and how much of it was done before."""

    def update(self, jobs_done: int, evaluations_done: int) -> None:
        """How much is done now."""

    def stop(self) -> None:
        """Finished or interrupted."""


@dataclass
class Tally:
    """What came of all searches.

    Attributes:
        evaluated: Evaluations that were made.
        shared: Evaluations that were looked up.
        failures: For each search that failed its folder and why.
    """

    evaluated: int = 0
    shared: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)

    def require_success(self) -> None:
        """Raises where searches failed.

        Raises:
            UserError: Some did.
        """
        if self.failures:
            folder, error = self.failures[0]
            count = f"{len(self.failures)} searches" if len(self.failures) > 1 else "One search"
            raise UserError(
                f"{count} failed and the others are finished; {folder}: {error} Go on with the same command when it "
                "is mended."
            )


@dataclass(frozen=True)
class Report:
    """What comes back from one search.

    Attributes:
        evaluated: Evaluations that were made.
        shared: Evaluations that were looked up.
        error: Why it failed, else empty.
        stopped: Whether it was stopped, to go on another time.
    """

    evaluated: int = 0
    shared: int = 0
    error: str = ""
    stopped: bool = False


@dataclass
class State:
    """Counts for the progress line.

    Attributes:
        progress: Is told.
        total_jobs: Searches in all.
        total: Evaluations in all.
        jobs: Searches that are finished.
        evaluations: Evaluations that are done.
    """

    progress: Progress
    total_jobs: int
    total: int
    jobs: int = 0
    evaluations: int = 0

    def start(self, jobs: int, evaluations: int) -> None:
        """What was done before."""
        self.jobs, self.evaluations = jobs, evaluations
        self.progress.start(self.total_jobs, self.total, jobs, evaluations)

    def one(self) -> None:
        """One evaluation more."""
        self.evaluations += 1
        self.progress.update(self.jobs, self.evaluations)

    def set(self, evaluations: int) -> None:
        """So many evaluations."""
        self.evaluations = evaluations
        self.progress.update(self.jobs, self.evaluations)

    def finished(self, job: Job, report: Report, tally: Tally) -> None:
        """A search came to an end; one that was stopped stops them all, by KeyboardInterrupt."""
        tally.evaluated += report.evaluated
        tally.shared += report.shared
        if report.stopped:
            raise KeyboardInterrupt
        if report.error:
            tally.failures.append((job.folder, report.error))
            return
        self.jobs += 1
        self.progress.update(self.jobs, self.evaluations)


def attempt(job: Job, benches: Benches, store: Store, told: Callable[[], None]) -> Report:
    """One search; whatever goes wrong in it does not stop the others."""
    try:
        done = run_job(job, benches.of(job.cell), store, told)
    except SearchInterrupted:
        return Report(stopped=True)
    except UserError as error:
        return Report(error=str(error))
    except Exception as error:
        kept = ""
        with suppress(OSError):
            (job.folder / FAILURE_FILE).write_text(traceback.format_exc())
            kept = f" (see {FAILURE_FILE})"
        return Report(error=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{kept}.")
    return Report(done.evaluated, done.shared)
