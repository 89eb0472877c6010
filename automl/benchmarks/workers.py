"""What workers cost and bring: the same search in one process, with one worker, and with several.

Every evaluation is a real one, repeated until it takes about as long as is asked for, and never stopped early, so that
equal episodes are equal work.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.benchmarks.timed import Shared, Stopwatch, Tell, played_s, run_search
from automl.cluster.connect import connected
from automl.cluster.plan import WorkerPlan
from automl.cluster.resources import require_resources
from automl.config import SearchConfig
from automl.episode import Player
from automl.executor import Executor, InlineExecutor
from automl.workers import RayExecutor

_SKIPPED = 3
"""First episodes of a search that are left out: they fill caches."""


@dataclass(frozen=True)
class Overhead:
    """One worker against none, paired by episode: medians.

    Attributes:
        agent: Who searched.
        pairs: Episodes that were compared.
        episode_s: An episode in this process.
        overhead_ms: What the same episode takes longer with a worker, from one trial to the next.
        unexplained_ms: The same, of the time that neither the worker nor the driver's phases account for: the way
            there and back.
    """

    agent: str
    pairs: int
    episode_s: float
    overhead_ms: float
    unexplained_ms: float


@dataclass(frozen=True)
class Speedup:
    """Throughput of one-thread workers.

    Attributes:
        agent: Who searched.
        workers: How many.
        staleness: Episodes in flight.
        episodes: That the figures rest on.
        episode_s: An episode in its worker, median.
        per_second: Episodes.
        ratio: To one worker.
    """

    agent: str
    workers: int
    staleness: int
    episodes: int
    episode_s: float
    per_second: float
    ratio: float


def measure_overhead(config: SearchConfig, player: Player, folder: Path, tell: Tell | None = None) -> Overhead:
    """Searches in turn without and with one worker, on as many threads, the second time the other way round.

    Args:
        config: Agent, and how many episodes each of the four searches has.
        player: What plays.
        folder: For run folders.
        tell: Is told how far it is.
    """
    walls: dict[bool, list[float]] = {False: [], True: []}
    gaps: dict[bool, list[float]] = {False: [], True: []}
    config = config.model_copy(update={"loop": config.loop.model_copy(update={"staleness": 1})})
    with _cluster(1) as ray:
        one = RayExecutor(ray, WorkerPlan(1), 1, lambda message: None)
        executors: dict[bool, Executor] = {False: InlineExecutor(), True: Shared(one)}
        try:
            for remote in (False, True, True, False):
                watch = Stopwatch(tell, f"{config.agent.name}, {'one worker' if remote else 'no worker'}")
                run_search(player, config, executors[remote], folder, watch)
                steps = watch.steps()[_SKIPPED:]
                explained = [sum(record.seconds.values()) for record in watch.records[1 + _SKIPPED :]]
                walls[remote] += steps
                gaps[remote] += [step - known for step, known in zip(steps, explained, strict=True)]
        finally:
            one.close()
    return Overhead(
        agent=config.agent.name,
        pairs=len(walls[False]),
        episode_s=statistics.median(walls[False]),
        overhead_ms=1000 * statistics.median(b - a for a, b in zip(walls[False], walls[True], strict=True)),
        unexplained_ms=1000 * (statistics.median(gaps[True]) - statistics.median(gaps[False])),
    )


def measure_speedup(
    config: SearchConfig, player: Player, workers: Sequence[int], folder: Path, tell: Tell | None = None
) -> list[Speedup]:
    """The same search with so many workers of one thread each, with the same staleness.

    Args:
        config: Agent, and how many episodes each worker plays.
        player: What plays.
        workers: Numbers of workers, the first one 1.
        folder: For run folders.
        tell: Is told how far it is.
    """
    found: list[Speedup] = []
    staleness = 2 * max(workers)
    with _cluster(max(workers)) as ray:
        for number in workers:
            episodes = config.loop.episodes * number + 2 * staleness
            loop = config.loop.model_copy(update={"staleness": staleness, "episodes": episodes})
            executor = RayExecutor(ray, WorkerPlan(number), 1, lambda message: None)
            watch = Stopwatch(tell, f"{config.agent.name}, {number} worker{'s' if number > 1 else ''}")
            try:
                run_search(player, config.model_copy(update={"loop": loop}), executor, folder, watch)
            finally:
                executor.close()
            # From a moment when all workers are at work to one when there is still work for all of them.
            times, records = watch.times[staleness:-staleness], watch.records[staleness:-staleness]
            per_second = (len(times) - 1) / (times[-1] - times[0])
            found.append(
                Speedup(
                    agent=config.agent.name,
                    workers=number,
                    staleness=staleness,
                    episodes=len(times) - 1,
                    episode_s=statistics.median(played_s(record) for record in records),
                    per_second=per_second,
                    ratio=per_second / (found[0].per_second if found else per_second),
                )
            )
    return found


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    plan = WorkerPlan(workers)
    with connected(plan) as ray:
        require_resources(ray, plan, lambda message: None)
        yield ray
