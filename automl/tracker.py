"""Tracking while a search runs, behind its back: a server that is slow, down or gone costs the search nothing.

The ledger is the truth and a thread follows it, so nothing that a server missed is lost: the thread writes it when the
server is back, or `automl.tracking.track` does so later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from automl.ledger import TrialRecord
from automl.runs import Run
from automl.tracking import ModelOf, PolicyOf, Projection, catch_up, default_uri, first_line, plain_policy

Warn = Callable[[str], None]


class Tracker(Protocol):
    """Is told of a search. None of its methods raises, or waits for a server longer than its arguments say."""

    def start(self) -> None:
        """The search begins or goes on; the run folder has its `config.json`."""

    def trial(self, record: TrialRecord) -> None:
        """A trial is in the ledger."""

    def finish(self, timeout_s: float = 60.0) -> None:
        """The search ended: front, report and nets are in the run folder."""

    def close(self, timeout_s: float = 3.0) -> None:
        """The search was interrupted."""


class NullTracker:
    """Tracks nothing."""

    def start(self) -> None:
        """Nothing."""

    def trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def finish(self, timeout_s: float = 60.0) -> None:
        """Nothing."""

    def close(self, timeout_s: float = 3.0) -> None:
        """Nothing."""


class MlflowTracker:
    """Follows the ledger from a thread of its own and never stands in the search's way.

    Args:
        run: The run folder.
        uri: Tracking URI; SQLite beside the runs without it.
        policy_of: The content of a trial's `policy.json`.
        model_of: The net of a front member and one example input, for the summary.
        warn: Gets one line when tracking fails and when something is left to do; a log without it.
        retry_s: Seconds without any try after a failure.
    """

    def __init__(
        self,
        run: Run,
        uri: str | None = None,
        policy_of: PolicyOf = plain_policy,
        model_of: ModelOf | None = None,
        warn: Warn | None = None,
        retry_s: float = 30.0,
    ) -> None:
        self._run, self._uri = run, uri or default_uri(run.folder.parent)
        self._policy_of, self._model_of, self._retry_s = policy_of, model_of, retry_s
        self._warn = warn or logging.getLogger(__name__).warning
        self._wake, self._ending = threading.Event(), threading.Event()
        self._summarise, self._complete, self._warned = False, False, False
        self._thread = threading.Thread(target=self._follow, name="secateur-tracking", daemon=True)

    def start(self) -> None:
        """Starts the thread, which first writes what an earlier process left out."""
        self._wake.set()
        self._thread.start()

    def trial(self, record: TrialRecord) -> None:
        """Wakes the thread; it reads the trial from the ledger."""
        self._wake.set()

    def finish(self, timeout_s: float = 60.0) -> None:
        """Waits until all is written, at most `timeout_s`; what is missing is said in one line."""
        self._summarise = True
        self._end(timeout_s)

    def close(self, timeout_s: float = 3.0) -> None:
        """As `finish`, without a summary."""
        self._end(timeout_s)

    def _end(self, timeout_s: float) -> None:
        self._ending.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if not self._complete:
            self._warn(f"MLflow does not have everything yet: secateur track {self._run.address}")

    def _follow(self) -> None:
        projection: Projection | None = None
        while True:
            self._wake.wait()
            self._wake.clear()
            # Read before the ledger is, so that the last round sees every trial.
            last = self._ending.is_set()
            try:
                projection = projection or Projection(self._run, self._uri, self._policy_of, self._model_of)
                catch_up(projection, self._run, summary=last and self._summarise)
                self._complete = last
            except Exception as error:  # whatever a server, a database or MLflow may raise: the search goes on
                self._fail(error)
                if not last:
                    self._ending.wait(self._retry_s)
                    self._wake.set()
                    continue
            if last:
                return

    def _fail(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"Tracking at {self._uri} fails, the search goes on without it: {first_line(error)}")
