"""Several searches at once, each in a process of its own with one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from automl.benchmarks.quality.attempt import Report, State, Tally, attempt
from automl.benchmarks.quality.cell import STORE_FILE, Benches
from automl.benchmarks.quality.plan import Job
from automl.benchmarks.quality.store import Store
from automl.place import settle
from compressors.errors import UserError

_PATIENCE_S = 10.0
"""How long episodes that run may take to end after Ctrl-C; then their processes are killed, which loses one episode."""


@dataclass
class _Worker:
    """What one process of the pool holds."""

    benches: Benches
    store: Store
    stop: Any
    counter: Any

    def told(self) -> None:
        with self.counter.get_lock():
            self.counter.value += 1
        if self.stop.is_set():
            raise KeyboardInterrupt


_worker: _Worker | None = None  # a pool hands its processes nothing but functions of a module


def _start_worker(out: Path, device: str, stop: Any, counter: Any) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process says when to stop
    threading.Thread(target=_follow_parent, daemon=True).start()
    settle(1, device)
    _worker = _Worker(Benches(), Store(out / STORE_FILE), stop, counter)


def _follow_parent() -> None:
    """Ends this process with the one that started it, which may have been killed; a search survives that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _run_in_worker(job: Job) -> Report:
    worker = _worker
    assert worker is not None
    if worker.stop.is_set():
        return Report(stopped=True)
    return attempt(job, worker.benches, worker.store, worker.told)


def run_in_processes(jobs: Sequence[Job], processes: int, tally: Tally, state: State) -> None:
    """Runs searches in `processes` processes.

    Args:
        jobs: The searches, at least one.
        processes: How many at once.
        tally: Gets what came of them.
        state: Is told how far it is.

    Raises:
        UserError: A process died.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; all processes have ended.
    """
    context = multiprocessing.get_context("spawn")  # forking a process with torch's threads may hang
    stop, counter, before = context.Event(), context.Value("q", state.evaluations), multiprocessing.active_children()
    first = jobs[0].cell
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), context, _start_worker, (first.out, first.device, stop, counter)
    )
    try:
        with _without_interrupts():
            futures = {pool.submit(_run_in_worker, job): job for job in jobs}
        _collect(futures, counter, tally, state)
    except BrokenProcessPool:
        raise UserError(
            "A process of the pool died, perhaps for want of memory. Go on with the same command, and with fewer "
            "--processes if it happens again."
        ) from None
    except KeyboardInterrupt:
        stop.set()
        _end(pool, [child for child in multiprocessing.active_children() if child not in before])
        state.evaluations = int(counter.value)
        raise
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _collect(futures: dict[Future[Report], Job], counter: Any, tally: Tally, state: State) -> None:
    left = set(futures)
    while left:
        ready, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
        state.set(int(counter.value))
        for future in ready:
            state.finished(futures[future], future.result(), tally)


def _end(pool: ProcessPoolExecutor, children: Sequence[Any]) -> None:
    """Lets episodes that run end, but not for long, and not after a second Ctrl-C."""
    pool.shutdown(wait=False, cancel_futures=True)
    until = time.monotonic() + _PATIENCE_S
    with suppress(KeyboardInterrupt):
        for child in children:
            child.join(max(0.0, until - time.monotonic()))
    for child in children:
        if child.is_alive():
            child.kill()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started in this block never react to Ctrl-C, not even while they start."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
