"""How many workers one driver keeps busy, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from agents.config import AgentConfig, DDPGConfig, SACConfig, TD3Config
from agents.protocol import Agent, AgentState, Behaviour, Rollout
from automl.archive import Archive
from automl.benchmarks.simulated import SimulatedExecutor, Sleeping, busy_share, ideal_share, simulated_player
from automl.benchmarks.timed import Stopwatch, Tell, played_s, run_search
from automl.cluster.connect import connected
from automl.cluster.plan import WorkerPlan
from automl.config import SearchConfig
from automl.episode import Player
from automl.executor import InlineExecutor, Ticket
from automl.ledger import TrialRecord
from automl.search_loop import LoopConfig

Value = TypeVar("Value")


@dataclass(frozen=True)
class Busy:
    """Workers whose evaluations only take time.

    Attributes:
        agent: Who searched.
        workers: How many.
        staleness: Episodes in flight.
        episodes: Of the search.
        episode_s: Mean of an episode, in its worker.
        per_second: Episodes, while there was work for all.
        busy: Fraction of their time that workers were at work.
        ideal: The same for a driver that takes no time: what is lost by consuming episodes in their order.
    """

    agent: str
    workers: int
    staleness: int
    episodes: int
    episode_s: float
    per_second: float
    busy: float
    ideal: float


@dataclass(frozen=True)
class Throughput:
    """The driver alone, with evaluations that take no time: milliseconds for each episode, on average.

    Learning is measured in a search of its own; in the other one an agent that makes gradient steps makes one an
    episode, so that the driver is as quick, and its files as large, as if somebody else learned.

    Attributes:
        agent: Who searched.
        layers: Decisions of an episode.
        episodes: Of the search; the first third is left out. The search for learning is a third as long.
        propose_ms: The agent's part before the episode.
        send_ms: Packing an episode for its journey, and unpacking what comes back.
        state_ms: Copying the agent's state for the checkpoint.
        write_ms: Ledger and checkpoint.
        other_ms: Front, archive, schedule, and the loop itself.
        per_second: Episodes that the driver could handle if learning took no time.
        learn_ms: Learning, with all gradient steps.
        learning_per_second: Episodes that it handles with learning.
    """

    agent: str
    layers: int
    episodes: int
    propose_ms: float
    send_ms: float
    state_ms: float
    write_ms: float
    other_ms: float
    per_second: float
    learn_ms: float
    learning_per_second: float


def measure_busy(
    workers: int,
    factor: int,
    folder: Path,
    *,
    agent: str = "random",
    sleeping: Sleeping | None = None,
    each: int = 12,
    layers: int = 20,
    processes: int = 4,
    tell: Tell | None = None,
) -> Busy:
    """One search with simulated workers.

    Args:
        workers: How many.
        factor: Staleness, in workers.
        folder: For its run folder.
        agent: Who searches.
        sleeping: How long evaluations take.
        each: Episodes for each worker.
        layers: Decisions of an episode.
        processes: In which the workers are.
        tell: Is told how far it is.
    """
    player = simulated_player(layers, sleeping or Sleeping())
    staleness = factor * workers
    episodes = staleness + each * workers
    config = SearchConfig(agent=AgentConfig(name=agent), loop=LoopConfig(episodes=episodes, staleness=staleness))
    processes = min(processes, workers)
    watch = Stopwatch(tell, f"{workers} simulated workers, staleness {staleness}")
    with connected(WorkerPlan(processes)) as ray:
        executor = SimulatedExecutor(ray, workers, processes)
        try:
            run_search(player, config, executor, folder, watch)
            spans = executor.spans()
        finally:
            executor.close()
    # From when each worker has begun to when the last episode was asked for.
    begin, end = spans[workers - 1][0], executor.submitted[-1]
    seconds = [played_s(record) for record in watch.records]
    finished = sum(begin < stop <= end for _, stop in spans)
    return Busy(
        agent=agent,
        workers=workers,
        staleness=staleness,
        episodes=episodes,
        episode_s=sum(seconds) / len(seconds),
        per_second=finished / (end - begin),
        busy=busy_share(spans, workers, begin, end),
        ideal=ideal_share(seconds, workers, staleness),
    )


def measure_throughput(
    agent: str, folder: Path, *, episodes: int = 300, layers: int = 20, staleness: int = 8, tell: Tell | None = None
) -> Throughput:
    """Searches in this process whose evaluations take no time.

    Args:
        agent: Who searches.
        folder: For its run folder.
        episodes: How many.
        layers: Decisions of an episode.
        staleness: Episodes in flight.
        tell: Is told how far it is.
    """
    player = simulated_player(layers, Sleeping(high_s=0.0))
    light, heavy = _hardly_learning(agent), AgentConfig(name=agent)
    ms = _phases(light, player, LoopConfig(episodes=episodes, staleness=staleness), folder, tell)
    fewer = LoopConfig(episodes=max(episodes // 3, 10), staleness=staleness)
    learn_ms = _phases(heavy, player, fewer, folder, tell)["learn"]
    without = ms["whole"] - ms["learn"]
    parts = ("propose", "send", "state", "write")
    return Throughput(
        agent=agent,
        layers=layers,
        episodes=episodes,
        propose_ms=ms["propose"],
        send_ms=ms["send"],
        state_ms=ms["state"],
        write_ms=ms["write"],
        other_ms=without - sum(ms[part] for part in parts),
        per_second=1000 / without,
        learn_ms=learn_ms,
        learning_per_second=1000 / (without + learn_ms),
    )


def _hardly_learning(agent: str) -> AgentConfig:
    few: dict[str, Any] = {"min_gradient_steps": 1, "max_gradient_steps": 1}
    return AgentConfig(name=agent, ddpg=DDPGConfig(**few), td3=TD3Config(**few), sac=SACConfig(**few))


def _phases(agent: AgentConfig, player: Player, loop: LoopConfig, folder: Path, tell: Tell | None) -> dict[str, float]:
    """Milliseconds of the driver for each episode, by phase and as a `whole`, after the first third of a search."""
    clock = _Clock(dict.fromkeys(("propose", "send", "learn", "state", "play"), 0.0))
    watch = _Snapshots(clock, tell, f"{agent.name}, driver alone")
    config = SearchConfig(agent=agent, loop=loop)
    run_search(player, config, _TimedExecutor(clock), folder, watch, lambda inner: _TimedAgent(inner, clock))
    # A trial says what recording the trial before it took, so the last one's own is not known and is left out.
    first, last = loop.episodes // 3, loop.episodes - 2
    count = last - first
    begin, end = watch.seconds[first], watch.seconds[last]
    ms = {name: 1000 * (end[name] - begin[name]) / count for name in end}
    record_ms = 1000 * sum(record.seconds["record"] for record in watch.records[first + 2 :]) / count
    ms["write"] = record_ms - ms["state"]
    ms["whole"] = 1000 * (watch.times[last] - watch.times[first]) / count - ms["play"]
    return ms


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, name: str, call: Callable[[], Value]) -> Value:
        begun = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


class _Snapshots(Stopwatch):
    """Remembers the clock of each trial."""

    def __init__(self, clock: _Clock, tell: Tell | None, what: str) -> None:
        super().__init__(tell, what)
        self._clock = clock
        self.seconds: list[dict[str, float]] = []

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        super().trial(record, archive)
        self.seconds.append(dict(self._clock.seconds))


class _TimedAgent:
    def __init__(self, agent: Agent, clock: _Clock) -> None:
        self._agent, self._clock = agent, clock

    @property
    def name(self) -> str:
        return self._agent.name

    def behaviour(self, episode: int) -> Behaviour:
        return self._clock.time("propose", lambda: self._agent.behaviour(episode))

    def learn(self, rollout: Rollout) -> dict[str, float]:
        return self._clock.time("learn", lambda: self._agent.learn(rollout))

    def state(self) -> AgentState:
        return self._clock.time("state", self._agent.state)

    def load_state(self, state: AgentState) -> None:
        self._agent.load_state(state)


class _TimedExecutor(InlineExecutor):
    """Packs what would travel, and plays here."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock

    def submit(self, function: Callable[..., Any], *args: Any) -> Ticket:
        self._clock.time("send", lambda: cloudpickle.dumps((function, args[1:]), protocol=5))
        return super().submit(function, *args)

    def result(self, ticket: Ticket) -> Any:
        played = self._clock.time("play", lambda: super(_TimedExecutor, self).result(ticket))
        # A worker packs, the driver unpacks; neither is play.
        packed = self._clock.time("play", lambda: cloudpickle.dumps(played, protocol=5))
        return self._clock.time("send", lambda: cloudpickle.loads(packed))
