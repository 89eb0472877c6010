"""Searches for measurements: real evaluations of a wanted length, and a watch on each trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agents.registry import make_agent
from automl.archive import Archive
from automl.candidate import Evaluator
from automl.config import SearchConfig
from automl.episode import Episode, Guarded, Player, play
from automl.executor import Executor, Handle, Ticket
from automl.ledger import DRIVER_PHASES, TrialRecord
from automl.loading import load_named
from automl.progress import NullProgress
from automl.run_info import RunInfo
from automl.runs import new_run
from automl.search_loop import search
from automl.task import task_of
from compressors.compressor import Compressor
from compressors.cost import Allocation
from compressors.grouping import layer_table
from envs.compression import CompressionEnv
from envs.evaluation import Evaluate, Evaluation
from envs.target import parse_targets, sample_targets

Tell = Callable[[str, int, int], None]
"""Is told what is done, how many episodes of it, and of how many."""

_TRIES = 3


class Repeated:
    """An evaluation made several times over, so that it takes as long as a larger net's.

    Args:
        evaluate: The evaluation.
        times: How often.
    """

    def __init__(self, evaluate: Evaluate, times: int = 1) -> None:
        self.evaluate, self.times = evaluate, times

    def __call__(self, allocation: Allocation, seed: int, bar: float) -> Evaluation:
        """What the last one says, with the seconds of all."""
        seconds: dict[str, float] = {}
        for _ in range(self.times):
            found = self.evaluate(allocation, seed, bar)
            seconds = {phase: seconds.get(phase, 0.0) + value for phase, value in found.seconds.items()}
        return Evaluation(found.accuracy, seconds, found.images, found.complete)


class Stopwatch(NullProgress):
    """Notes when each trial was recorded.

    Args:
        tell: Is told of each trial.
        what: What is being done.

    Attributes:
        times: Of the trials, in seconds of a clock that only rises.
        records: The trials.
    """

    def __init__(self, tell: Tell | None = None, what: str = "") -> None:
        self._tell, self._what = tell, what
        self.times: list[float] = []
        self.records: list[TrialRecord] = []

    def start(self, episodes: int, archive: Archive) -> None:
        """Remembers how many there will be."""
        self._episodes = episodes

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        """Notes the time."""
        self.times.append(time.perf_counter())
        self.records.append(record)
        if self._tell is not None:
            self._tell(self._what, len(self.times), self._episodes)

    def steps(self) -> list[float]:
        """Seconds from each trial to the next."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


class Shared:
    """An executor that several searches of one player use, one after the other.

    Args:
        executor: The executor.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._handle: Handle | None = None

    def put(self, value: Any) -> Handle:
        """Hands over the first value; the others are the same."""
        if self._handle is None:
            self._handle = self._executor.put(value)
        return self._handle

    def submit(self, function: Callable[..., Any], *args: Any) -> Ticket:
        """Asks for a call."""
        return self._executor.submit(function, *args)

    def result(self, ticket: Ticket) -> Any:
        """Waits for it."""
        return self._executor.result(ticket)

    def close(self) -> None:
        """Nothing: others may come."""


def run_search(
    player: Player,
    config: SearchConfig,
    executor: Executor,
    folder: Path,
    stopwatch: Stopwatch,
    wrap: Callable[[Any], Any] = lambda agent: agent,
) -> None:
    """One search without finetuning, in a run folder that is removed at the end.

    Args:
        player: Environment and evaluation.
        config: Agent and loop.
        executor: Where episodes run.
        folder: On the disk that ledger and checkpoints are to be written to.
        stopwatch: Is told of each trial.
        wrap: Puts something around the agent.
    """
    targets = parse_targets(player.env.config.targets)
    agent = make_agent(config.agent, player.env, config.loop.episodes, config.loop.seed)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".run-") as place:
        run = new_run(Path(place), "bench")
        original = {"accuracy": 1.0, **player.env.costs.original.as_dict()}
        run.write_info(
            RunInfo(search_id="bench", config={}, net="bench", net_fingerprint="", fingerprint="", original=original)
        )
        search(
            player, wrap(agent), executor, run, config.loop,
            lambda episode: sample_targets(targets, episode, config.loop.seed), progress=stopwatch,
        )  # fmt: skip


def real_player(config: SearchConfig, episode_s: float) -> Player:
    """The player of a configuration, with evaluations of about so many seconds."""
    loaded, splits = load_named(config.net, config.data)
    task = task_of(splits, batch_size=config.data.batch_size)
    table = layer_table(loaded.net, task.example, loaded.name)
    compressor = Compressor(config.compressor)
    profile = compressor.prepare(loaded.net, table, task.calibration)
    whole = config.evaluation.model_copy(update={"first_images": 0})
    repeated = Repeated(Evaluator(loaded.net, compressor, task, whole))
    guard = Guarded(repeated)
    player = Player(CompressionEnv(table, profile, guard, config.env), guard)
    agent = make_agent(config.agent, player.env, 10, 0)
    values = sample_targets(parse_targets(config.env.targets), 0, 0)
    taken = []
    for _ in range(_TRIES):
        played = play(player, Episode(agent.behaviour(0), 0, 0, values, ()))
        taken.append(sum(played.rollout.outcome.seconds.values()))
    repeated.times = max(1, round(episode_s / min(taken)))
    return player


def played_s(record: TrialRecord) -> float:
    """What an episode took where it was played."""
    return sum(seconds for phase, seconds in record.seconds.items() if phase not in DRIVER_PHASES)
