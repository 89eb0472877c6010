"""All searches of a comparison, from checking what is there to the last evaluation; survives whatever stops it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automl.benchmarks.quality.attempt import Progress, State, Tally, attempt
from automl.benchmarks.quality.cell import STORE_FILE, Benches, begin, trials
from automl.benchmarks.quality.identity import check_job
from automl.benchmarks.quality.plan import Cell, Job
from automl.benchmarks.quality.store import Store
from automl.benchmarks.quality.workers import run_in_processes
from automl.files import storage_errors
from automl.place import Watch, settle
from automl.search_loop import SearchInterrupted, stopped_by_sigterm


def prepare_cells(jobs: Sequence[Job], benches: Benches) -> None:
    """Loads and measures all nets, and checks that nothing in the folders was made differently.

    Raises:
        UserError: Something was, a target is out of reach, or a net or data cannot be loaded.
    """
    cells: dict[Path, Cell] = {job.cell.folder: job.cell for job in jobs}
    for cell in cells.values():
        begin(cell, benches.of(cell))
    for job in jobs:
        check_job(job)


def run_all(jobs: Sequence[Job], processes: int, watch: Watch, progress: Progress) -> Tally:
    """Runs all searches that are not finished; finished ones cost nothing.

    Args:
        jobs: The searches.
        processes: How many run at once, each on one thread.
        watch: Shows preparations.
        progress: Is told how far it is.

    Raises:
        UserError: Bad input, before any search runs.
        SearchInterrupted: Ctrl-C or SIGTERM came; the same call goes on.
    """
    out = jobs[0].cell.out
    with storage_errors(f"make {out}"):
        out.mkdir(parents=True, exist_ok=True)
    settle(1, jobs[0].cell.device)
    total = sum(job.config.loop.episodes for job in jobs)
    tally, benches = Tally(), Benches(watch)
    state = State(progress, len(jobs), total)
    with stopped_by_sigterm():
        try:
            prepare_cells(jobs, benches)
            done = {job: min(trials(job.folder), job.config.loop.episodes) for job in jobs}
            pending = [job for job in jobs if done[job] < job.config.loop.episodes]
            state.start(len(jobs) - len(pending), sum(done.values()))
            if min(processes, len(pending)) > 1:
                del benches  # the processes load their own
                run_in_processes(pending, processes, tally, state)
            elif pending:
                _run_here(pending, benches, tally, state)
        except KeyboardInterrupt:
            raise SearchInterrupted(
                f"Interrupted after {state.evaluations} of {total} evaluations; {state.jobs} of {len(jobs)} searches "
                "are finished. Go on with the same command."
            ) from None
        finally:
            progress.stop()
    return tally


def _run_here(jobs: Sequence[Job], benches: Benches, tally: Tally, state: State) -> None:
    store = Store(jobs[0].cell.out / STORE_FILE)
    try:
        for job in jobs:
            state.finished(job, attempt(job, benches, store, state.one), tally)
    finally:
        store.close()
