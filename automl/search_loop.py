"""The search: episodes with a fixed staleness, consumed in order, each recorded before the next is learned from."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from pydantic import BaseModel, ConfigDict, Field

from agents.protocol import Agent
from automl.archive import Archive
from automl.checkpoint import Snapshot, load_checkpoint, save_checkpoint
from automl.episode import Episode, Player, make_record, play, play_lost
from automl.executor import Executor, Handle, Ticket, WorkLost
from automl.ledger import Ledger, TrialRecord
from automl.playback import asked_by, play_back
from automl.progress import NullProgress, SearchProgress
from automl.run_info import RunInfo
from automl.runs import Run
from automl.tracker import NullTracker, Tracker
from compressors.errors import UserError

Schedule = Callable[[int], dict[str, float]]

FAILURES_AT_START = 3
"""A search whose first so many trials all fail is stopped: its evaluation is broken, not its candidates."""


_SAVING_SHARE = 20
"""A checkpoint follows the last one after so many times what that took."""


class LoopConfig(BaseModel):
    """Settings of the search loop.

    Attributes:
        episodes: How many trials.
        seed: Of every random stream, together with the episode.
        staleness: K: an episode is played by what the agent knew K episodes before. 1 is sequential; results depend
            on it but not on how many workers share the episodes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    episodes: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0)
    staleness: int = Field(default=1, ge=1)


class SearchInterrupted(UserError):
    """The search was asked to stop; everything up to the last recorded trial is kept."""


def search(
    player: Player,
    agent: Agent,
    executor: Executor,
    run: Run,
    config: LoopConfig,
    schedule: Schedule,
    tracker: Tracker | None = None,
    progress: SearchProgress | None = None,
    *,
    checkpoint_s: float = 1.0,
) -> Archive:
    """Runs a search, or goes on with it from the run's ledger and checkpoint.

    Episode e is played by the agent, and is given the front, as they were after episode e - staleness; results are
    consumed in the order of episodes. So equal seeds give equal ledgers, whatever the executor and however often the
    search was killed in between.

    Args:
        player: The environment with its guarded evaluation.
        agent: Fresh, as its configuration makes it; its state is restored from the checkpoint.
        executor: Where episodes run.
        run: The run folder with its `config.json` written; the caller holds its lock.
        config: Settings.
        schedule: The targets of an episode by kind, as `envs.target.sample_targets` gives them.
        tracker: Is told of each recorded trial; never stops the search.
        progress: Is told of each recorded trial.
        checkpoint_s: Least time between two checkpoints, which cost at most a twentieth of the search; 0: after each
            trial. What the last one lacks, the agent learns from the ledger again.

    Returns:
        All trials and their front.

    Raises:
        SearchInterrupted: Ctrl-C or SIGTERM came.
        UserError: Bad input, a full disk, a damaged run folder, or the first trials all failed.
    """
    progress = progress or NullProgress()
    info = run.info()
    with _interruptions(run):
        ledger = _restore(player, agent, run, info, config, schedule, progress)
        held = executor.put(player)
    archive = Archive(info.original, info.cost)
    for record in ledger.records:
        archive.add(record)
    loop = _Loop(
        player, held, agent, executor, run, info, config, asked_by(agent, config.seed, schedule, info), ledger, archive,
        tracker or NullTracker(), progress, checkpoint_s,
    )  # fmt: skip
    progress.start(config.episodes, archive)
    try:
        with stopped_by_sigterm():
            loop.play_all()
        loop.save()
    except KeyboardInterrupt:
        with suppress(UserError):
            loop.save()
        raise SearchInterrupted(
            f"Interrupted after {len(archive.records)} of {config.episodes} episodes. "
            f"Go on with: secateur resume {run.address}"
        ) from None
    finally:
        progress.stop()
    return archive


@contextmanager
def _interruptions(run: Run) -> Iterator[None]:
    try:
        with stopped_by_sigterm():
            yield
    except KeyboardInterrupt:
        raise SearchInterrupted(
            f"Interrupted before another episode was played. Go on with: secateur resume {run.address}"
        ) from None


def _restore(
    player: Player,
    agent: Agent,
    run: Run,
    info: RunInfo,
    config: LoopConfig,
    schedule: Schedule,
    progress: SearchProgress,
) -> Ledger:
    """The ledger, with the agent as it was after its last trial."""
    snapshot = load_checkpoint(run.checkpoint, info.fingerprint)
    first = snapshot.next_episode if snapshot else 0
    ledger = Ledger(run.ledger, least=first)
    if snapshot:
        agent.load_state(snapshot.agent)
    if first < len(ledger.records):
        ask = asked_by(agent, config.seed, schedule, info)
        ledger.cut(play_back(player, agent, ledger.records, first, config, ask))
    if ledger.note:
        progress.note(ledger.note)
    return ledger


@dataclass
class _Loop:
    player: Player
    held: Handle
    agent: Agent
    executor: Executor
    run: Run
    info: RunInfo
    config: LoopConfig
    ask: Callable[[int, Sequence[TrialRecord]], Episode]
    ledger: Ledger
    archive: Archive
    tracker: Tracker
    progress: SearchProgress
    checkpoint_s: float
    tickets: dict[int, tuple[Ticket, Episode]] = field(default_factory=dict)
    proposing_s: dict[int, float] = field(default_factory=dict)
    recording_s: float = 0.0
    learning: bool = False
    saved_at: float = -math.inf
    saving_s: float = 0.0

    def play_all(self) -> None:
        """Keeps `staleness` episodes in flight and consumes them in order."""
        first, last = len(self.ledger.records), self.config.episodes
        for episode in range(first, min(first + self.config.staleness, last)):
            self.issue(episode)
        for episode in range(first, last):
            self.consume(episode)
            _require_some_success(self.ledger.records)
            if episode + self.config.staleness < last:
                self.issue(episode + self.config.staleness)

    def issue(self, episode: int) -> None:
        """Asks for an episode, with the behaviour and the front as they were `staleness` episodes before it."""
        # The front follows from the ledger, so a resumed search gives an episode the front that it was given before.
        known = self.ledger.records[: max(0, episode - self.config.staleness + 1)]
        begun = time.perf_counter()
        asked = self.ask(episode, known)
        self.proposing_s[episode] = time.perf_counter() - begun
        self.tickets[episode] = self.executor.submit(play, self.held, asked), asked

    def consume(self, episode: int) -> None:
        """Learns from an episode and records it: the ledger first, since a checkpoint counts on its lines."""
        ticket, asked = self.tickets.pop(episode)
        try:
            played = self.executor.result(ticket)
        except WorkLost as lost:
            played = play_lost(self.player, asked, lost)
        begun = time.perf_counter()
        self.learning = True
        self.progress.figures(self.agent.learn(played.rollout))
        learned = time.perf_counter()
        driver = {
            "propose": self.proposing_s.pop(episode),
            "learn": learned - begun,
            "record": self.recording_s,
        }
        record = make_record(played, asked.targets, driver)
        self.ledger.append(record)
        self.learning = False
        wait_s = max(self.checkpoint_s, _SAVING_SHARE * self.saving_s) if self.checkpoint_s else 0.0
        if time.perf_counter() - self.saved_at >= wait_s:
            self.save()
        self.recording_s = time.perf_counter() - learned
        self.archive.add(record)
        self.tracker.trial(record)
        self.progress.trial(record, self.archive)

    def save(self) -> None:
        """Writes a checkpoint, unless the agent has learned from a trial that is not recorded yet."""
        if self.learning:
            return
        begun = time.perf_counter()
        learned = len(self.ledger.records)
        save_checkpoint(self.run.checkpoint, Snapshot(self.info.fingerprint, learned, self.agent.state()))
        self.saved_at = time.perf_counter()
        self.saving_s = self.saved_at - begun


def _require_some_success(records: Sequence[TrialRecord]) -> None:
    if len(records) == FAILURES_AT_START and all(record.status == "failed" for record in records):
        raise UserError(
            f"The first {len(records)} trials all failed, the last with: {records[-1].error}. "
            "Check that the evaluation runs on the original net."
        )


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the block like Ctrl-C; outside the main thread signals are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
