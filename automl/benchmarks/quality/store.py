"""Evaluations shared between searches: equal candidates are measured once, and still count for everyone."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from automl.episode import Played
from automl.executor import InlineExecutor, Ticket
from compressors.cost import Allocation
from compressors.errors import UserError
from envs.evaluation import Evaluate, Evaluation

_SCHEMA = """CREATE TABLE IF NOT EXISTS evaluations (
    evaluator TEXT, candidate TEXT, bar REAL, complete INTEGER, evaluation TEXT,
    PRIMARY KEY (evaluator, candidate, bar)
) WITHOUT ROWID"""


class Store:
    """Evaluations on disk, for several processes at once.

    Args:
        path: An SQLite file; made where missing.

    Raises:
        UserError: It cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            self._database = sqlite3.connect(path, timeout=120, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            # What a power cut takes is only measured again.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(_SCHEMA)

    def find(self, evaluator: str, candidate: str, bar: float) -> Evaluation | None:
        """What an evaluation with this bar gave, or would give; None where nobody knows.

        One that went through to the end goes through with every lower bar too.
        """
        with self._errors():
            row = self._database.execute(
                "SELECT evaluation FROM evaluations WHERE evaluator = ? AND candidate = ? "
                "AND (bar = ? OR (complete AND bar >= ?)) ORDER BY bar DESC LIMIT 1",
                (evaluator, candidate, bar, bar),
            ).fetchone()
        return Evaluation(**json.loads(row[0])) if row else None

    def add(self, evaluator: str, candidate: str, bar: float, evaluation: Evaluation) -> None:
        """Keeps an evaluation; of two equal ones the first."""
        with self._errors():
            self._database.execute(
                "INSERT OR IGNORE INTO evaluations VALUES (?, ?, ?, ?, ?)",
                (evaluator, candidate, bar, evaluation.complete, json.dumps(asdict(evaluation))),
            )

    def __len__(self) -> int:
        with self._errors():
            return int(self._database.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0])

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(
                f"Cannot use the shared evaluations {self.path}: {error}. Check the disk; the file may be deleted, its "
                "evaluations are then measured again."
            ) from None


class SharedEvaluator:
    """Looks an evaluation up before it is made. A hit gives the seconds that it took whoever made it.

    Args:
        evaluate: The evaluation.
        store: Where evaluations are shared.
        evaluator: Fingerprint of all that the evaluation depends on but its arguments.
        seeded: Whether the seed matters (something is trained).
        stops: Whether evaluations may stop early below their bar.

    Attributes:
        evaluated: How many were made.
        shared: How many were looked up.
        saved_s: Seconds that the last one took somebody else, less those of looking it up; 0 where it was made.
    """

    def __init__(
        self, evaluate: Evaluate, store: Store, evaluator: str, *, seeded: bool = False, stops: bool = False
    ) -> None:
        self._evaluate, self._store, self._evaluator = evaluate, store, evaluator
        self._seeded, self._stops = seeded, stops
        self.evaluated = self.shared = 0
        self.saved_s = 0.0

    def __call__(self, allocation: Allocation, seed: int, bar: float) -> Evaluation:
        """The evaluation, made or looked up; one that is not finite or fails is not kept."""
        begun = time.perf_counter()
        facts = (allocation.key(), seed if self._seeded else None)
        candidate = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        asked = bar if self._stops else math.inf
        found = self._store.find(self._evaluator, candidate, asked)
        if found is not None:
            self.shared += 1
            self.saved_s = sum(found.seconds.values()) - (time.perf_counter() - begun)
            return found
        self.saved_s = 0.0
        found = self._evaluate(allocation, seed, bar)
        self.evaluated += 1
        if math.isfinite(found.accuracy):
            self._store.add(self._evaluator, candidate, asked, found)
        return found


class SharingExecutor(InlineExecutor):
    """Plays inline, and counts for each episode the seconds that it would have taken without shared evaluations.

    Args:
        evaluator: What the episodes are judged by.
    """

    def __init__(self, evaluator: SharedEvaluator) -> None:
        self._evaluator = evaluator

    def result(self, ticket: Ticket) -> Any:
        """The episode, as long as if its evaluation had been made here."""
        self._evaluator.saved_s = 0.0
        played = super().result(ticket)
        return (
            replace(played, seconds=played.seconds + self._evaluator.saved_s) if isinstance(played, Played) else played
        )
