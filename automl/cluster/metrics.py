"""A search's figures as metrics of its Ray cluster; `docs/metrics.md` says the same for people.

All of them are defined in one table, `METRICS`, and set by one object that stands where the terminal's progress stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from automl.archive import Archive
from automl.cluster.connect import import_ray
from automl.executor import Executor
from automl.ledger import DRIVER_PHASES, TrialRecord
from automl.progress import SearchProgress

LABELS = ("search", "net")
"""Labels of every metric: name of the run, name of the net."""

_LOOK_S = 2.0
"""How often workers are looked at; Ray itself collects every 10 s."""
_BOUNDARIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As Ray is told.
        kind: `counter`, `gauge` or `histogram`.
        unit: Of its value.
        help: What it means.
        labels: Besides those that all metrics have.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name by which Prometheus sees it; a histogram has `_bucket`, `_sum` and `_count` of it."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


METRICS = (
    Metric("secateur_episodes", "counter", "episodes",
           "Trials recorded by this process. A lost episode counts as failed.", ("status",)),
    Metric("secateur_episodes_requeued", "counter", "episodes",
           "Times that an episode was given to another worker, since its worker died or ran out of time."),
    Metric("secateur_episodes_lost", "counter", "episodes",
           "Episodes that were given up, since they took several workers down."),
    Metric("secateur_worker_restarts", "counter", "workers", "Workers that were replaced."),
    Metric("secateur_phase_seconds", "counter", "seconds",
           "Time spent in a phase: propose, rollout, build, finetune, evaluate, learn, record.", ("phase",)),
    Metric("secateur_episode_seconds", "histogram", "seconds", "How long episodes took where they were played."),
    Metric("secateur_best_accuracy", "gauge", "fraction",
           "Best search accuracy so far; every trial meets its target, so it is that within the target."),
    Metric("secateur_hypervolume", "gauge", "cost ratio x accuracy", "Hypervolume of the front against (1, 0)."),
    Metric("secateur_front_members", "gauge", "trials", "Trials that no other trial beats in cost and accuracy."),
    Metric("secateur_episodes_recorded", "gauge", "episodes",
           "Trials in the ledger, those of earlier processes of a resumed search too."),
    Metric("secateur_episodes_planned", "gauge", "episodes", "Trials that the search will have at its end."),
    Metric("secateur_episodes_in_flight", "gauge", "episodes",
           "Episodes asked for and not yet learned from; at most the search's staleness."),
    Metric("secateur_replay_transitions", "gauge", "transitions",
           "Size of the agent's memory; absent for agents that have none."),
    Metric("secateur_workers_busy", "gauge", "workers", "Workers that play an episode now."),
    Metric("secateur_calls_waiting", "gauge", "episodes", "Episodes that no worker has taken yet."),
)  # fmt: skip


class Counted(Protocol):
    """What an executor tells of its workers, as `automl.workers.Counts` does."""

    busy: int
    waiting: int
    requeued: int
    restarts: int
    lost: int


def metered(
    progress: SearchProgress, executor: Executor, *, search: str, net: str, staleness: int = 1
) -> SearchProgress:
    """The progress of a search that also sets metrics, where the executor works on a Ray cluster; else `progress`.

    Args:
        progress: Is told everything all the same.
        executor: Where episodes run; has `counts` if it is on a cluster.
        search: Name of the run.
        net: Name of the net.
        staleness: Of the search.
    """
    counts: Counted | None = getattr(executor, "counts", None)
    return progress if counts is None else Metered(progress, Meters(search, net), counts, staleness)


class Meters:
    """The metrics of one search, by name.

    What goes wrong with them is no reason to stop a search, so the first error switches them off.

    Args:
        search: Name of the run.
        net: Name of the net.
        make: Makes Ray's object of a metric; replaced in tests.
    """

    def __init__(self, search: str, net: str, make: Callable[[Metric], Any] | None = None) -> None:
        self._tags = dict(zip(LABELS, (search, net), strict=True))
        self.error = ""
        self._of: dict[str, Any] = {}
        try:
            self._of = {metric.name: (make or _make)(metric) for metric in METRICS}
        except Exception as error:
            self._fail(error)

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Raises a counter."""
        if amount > 0:
            self._call(name, "inc", amount, labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        self._call(name, "set", value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds a value to a histogram."""
        self._call(name, "observe", value, labels)

    def _call(self, name: str, method: str, value: float, labels: dict[str, str]) -> None:
        if self.error:
            return
        try:
            getattr(self._of[name], method)(float(value), self._tags | labels)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.error = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _make(metric: Metric) -> Any:
    import_ray()
    from ray.util import metrics

    labels = (*LABELS, *metric.labels)
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, boundaries=list(_BOUNDARIES), tag_keys=labels)
    return (metrics.Counter if metric.kind == "counter" else metrics.Gauge)(metric.name, metric.help, tag_keys=labels)


class Metered:
    """A progress that also sets metrics: from each trial, and from a look at the workers every few seconds.

    Args:
        progress: Is told everything first.
        meters: The metrics.
        counts: What happens to the workers.
        staleness: Of the search.
        look_s: Seconds between two looks.
    """

    def __init__(
        self, progress: SearchProgress, meters: Meters, counts: Counted, staleness: int, look_s: float = _LOOK_S
    ) -> None:
        self._progress, self._meters, self._counts = progress, meters, counts
        self._staleness, self._look_s = staleness, look_s
        self._episodes = 0
        self._told: dict[str, int] = {}
        self._ending = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, episodes: int, archive: Archive) -> None:
        """Sets what is known at the beginning, and begins to look."""
        self._progress.start(episodes, archive)
        self._episodes = episodes
        self._meters.set("secateur_episodes_planned", episodes)
        self._standing(archive)
        self._ending.clear()
        self._thread = threading.Thread(target=self._follow, name="secateur-metrics", daemon=True)
        self._thread.start()

    def trial(self, record: TrialRecord, archive: Archive) -> None:
        """Counts a trial."""
        self._progress.trial(record, archive)
        self._meters.count("secateur_episodes", status=record.status)
        played = 0.0
        for phase, seconds in record.seconds.items():
            self._meters.count("secateur_phase_seconds", seconds, phase=phase)
            played += 0.0 if phase in DRIVER_PHASES else seconds
        self._meters.observe("secateur_episode_seconds", played)
        self._standing(archive)

    def figures(self, figures: Mapping[str, float]) -> None:
        """Takes what the agent's learning said of itself."""
        self._progress.figures(figures)
        if "replay" in figures:
            self._meters.set("secateur_replay_transitions", figures["replay"])

    def note(self, message: str) -> None:
        """One line."""
        self._progress.note(message)

    def stop(self) -> None:
        """Looks a last time."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(self._look_s + 1)
        self._look()
        if self._meters.error:
            self._progress.note(f"Metrics were switched off: {self._meters.error}")
        self._progress.stop()

    def _standing(self, archive: Archive) -> None:
        recorded = len(archive.records)
        self._meters.set("secateur_episodes_recorded", recorded)
        self._meters.set("secateur_episodes_in_flight", min(self._staleness, self._episodes - recorded))
        self._meters.set("secateur_front_members", len(archive.front))
        best = archive.best()
        if best is not None:
            self._meters.set("secateur_best_accuracy", best.accuracy_search)
            self._meters.set("secateur_hypervolume", archive.hypervolume())

    def _follow(self) -> None:
        while not self._ending.wait(self._look_s):
            self._look()

    def _look(self) -> None:
        with self._looking:
            counts = self._counts
            self._meters.set("secateur_workers_busy", counts.busy)
            self._meters.set("secateur_calls_waiting", counts.waiting)
            self._raise_to("secateur_episodes_requeued", counts.requeued)
            self._raise_to("secateur_episodes_lost", counts.lost)
            self._raise_to("secateur_worker_restarts", counts.restarts)

    def _raise_to(self, name: str, total: int) -> None:
        self._meters.count(name, total - self._told.get(name, 0))
        self._told[name] = total


def endpoints(ray: Any) -> list[str]:
    """Where Prometheus finds the metrics of a cluster: one URL for each node that lives."""
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()
        if node["Alive"] and node["MetricsExportPort"] > 0
    ]
