"""Searches whose evaluations only take time, and many workers on few cores: what a driver can do, without a cluster.

A simulated worker is a thread in one of a few processes of a real, local Ray; the driver's side is `RayExecutor` as it
is, and each call, its arguments and its result travel through Ray as they would on a cluster.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from automl.cluster.actor import Actor
from automl.cluster.plan import WorkerPlan
from automl.episode import Guarded, Player
from automl.executor import Ticket
from automl.workers import RayExecutor
from compressors.compressor import Compressor, CompressorConfig
from compressors.cost import Allocation
from compressors.grouping import layer_table
from compressors.profile import Profile
from envs.compression import CompressionEnv
from envs.config import EnvConfig
from envs.evaluation import Evaluation

Span = tuple[float, float]
"""Begin and end of a call, in seconds of the machine's monotonic clock."""


@dataclass(frozen=True)
class Sleeping:
    """How long evaluations take: a Pareto distribution cut at both ends.

    Attributes:
        low_s: The shortest.
        high_s: The longest; 0: no evaluation takes any time.
        alpha: The heavier the tail, the smaller.
    """

    low_s: float = 1.0
    high_s: float = 10.0
    alpha: float = 1.0

    def seconds(self, seed: int) -> float:
        """One evaluation's, the same for equal seeds."""
        if not self.high_s:
            return 0.0
        share = float(np.random.default_rng(seed).random())
        cut = 1 - (self.low_s / self.high_s) ** self.alpha
        return self.low_s * float((1 - share * cut) ** (-1 / self.alpha))


class SleepingEvaluation:
    """Judges by the profile's errors, after a sleep.

    Args:
        profile: Of the net.
        sleeping: How long.
    """

    def __init__(self, profile: Profile, sleeping: Sleeping) -> None:
        self.profile, self.sleeping = profile, sleeping

    def __call__(self, allocation: Allocation, seed: int, bar: float) -> Evaluation:
        """The accuracy that the profile suggests."""
        seconds = self.sleeping.seconds(seed)
        time.sleep(seconds)
        lost = sum(self.profile.cut_error(group, int(kept)) for group, kept in enumerate(allocation.kept))
        return Evaluation(math.exp(-lost), {"evaluate": seconds})


def simulated_player(layers: int, sleeping: Sleeping, target: str = "macs=0.5") -> Player:
    """An environment of as many decisions as `layers`: a chain of small convolutions and a linear layer.

    Args:
        layers: Convolutions, each of which is decided about.
        sleeping: How long evaluations take.
        target: What episodes must reach.
    """
    width = 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts: list[nn.Module] = []
        for layer in range(layers):
            parts += [nn.Conv2d(width if layer else 3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()
        images = torch.randn(64, 3, 8, 8)
    table = layer_table(net, images[:1], f"chain{layers}")
    profile = Compressor(CompressorConfig()).prepare(net, table, (images,))
    guard = Guarded(SleepingEvaluation(profile, sleeping))
    return Player(CompressionEnv(table, profile, guard, EnvConfig(targets=(target,))), guard)


class _Host:
    """A process that is many workers, each in a thread of its own."""

    def __init__(self, workers: Sequence[int]) -> None:
        self._workers = {number: Actor(1, "cpu") for number in workers}
        self._spans: list[Span] = []

    def hold(self, number: int, key: str, parcel: Any) -> None:
        self._workers[number].hold(key, parcel)

    def facts(self, number: int, *held: None) -> dict[str, Any]:
        return self._workers[number].facts()

    def begin(self) -> None:
        """Lives."""

    def run(self, number: int, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        begun = time.monotonic()
        try:
            return self._workers[number].run(function, args)
        finally:
            self._spans.append((begun, time.monotonic()))

    def spans(self) -> list[Span]:
        return self._spans


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class _Slot:
    """Looks like a worker of its own to the executor."""

    def __init__(self, host: Any, number: int) -> None:
        self._host, self._number = host, number
        self._held: list[Any] = []
        self.hold, self.facts, self.run = _Method(self._hold), _Method(self._facts), _Method(self._run)
        self.begin = _Method(self._begin)

    def _hold(self, key: str, parcel: Any) -> Any:
        self._held.append(self._host.hold.remote(self._number, key, parcel))
        return self._held[-1]

    def _facts(self) -> Any:
        # A process with threads answers in any order: what was sent has to arrive first.
        return self._host.facts.remote(self._number, *self._held)

    def _begin(self) -> Any:
        return self._host.begin.remote()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return self._host.run.remote(self._number, function, args)


class SimulatedExecutor(RayExecutor):
    """A `RayExecutor` whose workers share a few processes.

    Args:
        ray: The module, connected.
        workers: How many there seem to be.
        processes: In which they are.

    Attributes:
        submitted: When each call was submitted, in seconds of the monotonic clock.
    """

    def __init__(self, ray: Any, workers: int, processes: int) -> None:
        super().__init__(ray, WorkerPlan(workers), 1, lambda message: None)
        shares = [range(first, workers, processes) for first in range(processes)]
        # Calls of one process must not wait for each other: a thread for each worker, and one to ask for the spans.
        self._hosts = [
            ray.remote(_Host).options(num_cpus=0, max_concurrency=len(share) + 1).remote(share) for share in shares
        ]
        self._slots = itertools.count()
        self._new_actor = self._slot
        self.submitted: list[float] = []

    def _slot(self) -> _Slot:
        number = next(self._slots)
        return _Slot(self._hosts[number % len(self._hosts)], number)

    def submit(self, function: Callable[..., Any], *args: Any) -> Ticket:
        """Queues a call."""
        self.submitted.append(time.monotonic())
        return super().submit(function, *args)

    def spans(self) -> list[Span]:
        """When workers were at work."""
        found: list[list[Span]] = self._ray.get([host.spans.remote() for host in self._hosts])
        return sorted(itertools.chain(*found))

    def close(self) -> None:
        """Ends the processes."""
        super().close()
        for host in self._hosts:
            self._ray.kill(host)


def busy_share(spans: Sequence[Span], workers: int, begin: float, end: float) -> float:
    """Which fraction of their time workers were at work.

    Args:
        spans: Of all calls.
        workers: How many.
        begin: Of the time that counts.
        end: Of the time that counts.
    """
    work = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)
    return work / (workers * (end - begin))


def ideal_share(seconds: Sequence[float], workers: int, staleness: int) -> float:
    """The same for a driver that takes no time: what consuming in the order of episodes costs by itself.

    Args:
        seconds: What each episode takes, in their order.
        workers: How many.
        staleness: Episodes in flight.
    """
    free = [0.0] * workers
    spans: list[Span] = []
    consumed: list[float] = []
    issued = 0.0
    for episode, duration in enumerate(seconds):
        issued = consumed[episode - staleness] if episode >= staleness else 0.0
        start = max(issued, heapq.heappop(free))
        spans.append((start, start + duration))
        heapq.heappush(free, start + duration)
        consumed.append(max(consumed[-1] if consumed else 0.0, start + duration))
    # Until the last episode is asked for; then workers have nothing more to do.
    return busy_share(spans, workers, 0.0, issued) if issued else 1.0
