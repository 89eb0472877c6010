"""A run's remote folder, kept up to date behind the search's back: one that is slow or down costs the search nothing.

Everything is in the local copy first, so nothing that the remote missed is lost: it is sent when the remote is back, or
by `secateur resume` later.
"""

from __future__ import annotations

import logging
import threading
import time

from automl.ledger import TrialRecord
from automl.remote.copies import pending
from automl.remote.lease import LeaseLost
from automl.remote.push import push, seal
from automl.runs import Run
from automl.tracker import Tracker, Warn
from compressors.errors import UserError

EVERY_S = 5.0
"""Seconds between two rounds at least."""

LOOK_S = 30.0
"""Seconds after which the folder is looked through although no trial came, as in the finetune."""

_LISTED = 3
_SLOWEST_BYTES_S = 100_000


class Mirror:
    """A tracker that sends what changes in the run folder; the run's lock is held while it works.

    Args:
        run: A remote run's local copy.
        warn: Gets one line when sending fails, when it works again and when something is left; a log without it.
        every_s: Seconds between two rounds at least.
        retry_s: Seconds without any try after a failure.
        patience_s: How long the end waits for a remote that fails.
    """

    def __init__(
        self,
        run: Run,
        warn: Warn | None = None,
        every_s: float = EVERY_S,
        retry_s: float = 30.0,
        patience_s: float = 30.0,
    ) -> None:
        self._run, self._warn = run, warn or logging.getLogger(__name__).warning
        self._every_s, self._retry_s, self._patience_s = every_s, retry_s, patience_s
        self._wake, self._ending = threading.Event(), threading.Event()
        self._complete, self._failed, self._lost, self._growing = False, False, False, False
        self._give_up = float("inf")
        self._thread = threading.Thread(target=self._follow, name="secateur-mirror", daemon=True)

    def start(self) -> None:
        """Starts the thread, which first sends what an earlier process could not."""
        self._wake.set()
        self._thread.start()

    def trial(self, record: TrialRecord) -> None:
        """Wakes the thread; it reads the trial from the ledger."""
        self._wake.set()

    def finish(self, timeout_s: float = 60.0) -> None:
        """Waits until all is sent, as long as it goes on; what is missing is said in one line."""
        self._end(min(timeout_s, self._patience_s), growing=True)

    def close(self, timeout_s: float = 3.0) -> None:
        """As `finish`, but waits no longer than it says."""
        self._end(timeout_s, growing=False)

    def _end(self, timeout_s: float, growing: bool) -> None:
        self._give_up = time.monotonic() + timeout_s
        self._growing = growing
        self._ending.set()
        self._wake.set()
        try:
            while self._thread.is_alive() and time.monotonic() < self._give_up:
                self._thread.join(0.05)
        except KeyboardInterrupt:
            pass  # everything is here, so the impatient lose nothing
        if not self._complete:
            self._say_left()

    def _follow(self) -> None:
        while True:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            # Read before the folder is, so that the last round sees everything.
            last = self._ending.is_set()
            try:
                push(self._run, moved=self._moved)
                # Each round, since a process that is killed has no last one.
                seal(self._run)
            except LeaseLost as error:
                self._lost = True
                self._warn(f"{self._run.remote} gets nothing more from here: {error}. This search goes on alone.")
                return
            except Exception as error:  # whatever a file system or a disk may raise: the search goes on
                if time.monotonic() > self._give_up:
                    return
                self._fail(error)
                if last:
                    time.sleep(min(1.0, self._retry_s))
                else:
                    self._ending.wait(self._retry_s)
                self._wake.set()
                continue
            if self._failed:
                self._failed = False
                self._warn(f"{self._run.remote} is up to date again.")
            if last:
                self._complete = True
                return
            self._ending.wait(self._every_s)

    def _moved(self, name: str, size: int) -> None:
        if time.monotonic() > self._give_up:
            raise UserError(f"no time left for {name}")
        if self._ending.is_set() and self._growing:
            self._give_up = max(self._give_up, time.monotonic() + self._patience_s + size / _SLOWEST_BYTES_S)

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            reason = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self._warn(f"{self._run.remote} cannot be written to, the search goes on in {self._run.folder}. {reason}")

    def _say_left(self) -> None:
        names = pending(self._run)
        if self._lost or not names:
            return
        some = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        self._warn(
            f"{self._run.remote} lacks {len(names)} files ({some}), which are in {self._run.folder}. "
            f"Send them from this machine with: secateur resume {self._run.remote}"
        )


class Together:
    """Two trackers as one."""

    def __init__(self, first: Tracker, second: Tracker) -> None:
        self._both = (first, second)

    def start(self) -> None:
        """Starts both."""
        for tracker in self._both:
            tracker.start()

    def trial(self, record: TrialRecord) -> None:
        """Tells both."""
        for tracker in self._both:
            tracker.trial(record)

    def finish(self, timeout_s: float = 60.0) -> None:
        """Finishes both."""
        for tracker in self._both:
            tracker.finish(timeout_s)

    def close(self, timeout_s: float = 3.0) -> None:
        """Closes both."""
        for tracker in self._both:
            tracker.close(timeout_s)


def mirrored(tracker: Tracker, run: Run, warn: Warn) -> Tracker:
    """A tracker that also keeps a remote run up to date; the same one for a run that is only here."""
    return Together(Mirror(run, warn), tracker) if run.remote else tracker
