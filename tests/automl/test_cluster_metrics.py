"""Metrics: one table for code and page, cheap, harmless, and there where Prometheus looks."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from searching import ORIGINAL, TinyAgent, make_player, make_record, make_run, schedule

from automl.archive import Archive
from automl.cluster.calls import Counts
from automl.cluster.metrics import LABELS, METRICS, Metered, Meters, endpoints, metered
from automl.executor import InlineExecutor
from automl.progress import NullProgress
from automl.search_loop import LoopConfig, search

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Fake:
    """One metric that keeps what it is told."""

    def __init__(self, metric):
        self.metric, self.values = metric, []

    def inc(self, value, tags):
        assert self.metric.kind == "counter"
        self._keep(value, tags)

    def set(self, value, tags):
        assert self.metric.kind == "gauge"
        self._keep(value, tags)

    def observe(self, value, tags):
        assert self.metric.kind == "histogram"
        self._keep(value, tags)

    def _keep(self, value, tags):
        assert tuple(tags) == (*LABELS, *self.metric.labels)
        self.values.append((value, tags))


class Fakes:
    def __init__(self):
        self.all: dict[str, Fake] = {}

    def __call__(self, metric):
        self.all[metric.name] = Fake(metric)
        return self.all[metric.name]

    def total(self, name, **labels):
        return sum(value for value, tags in self.all[name].values if labels.items() <= tags.items())

    def last(self, name):
        return self.all[name].values[-1][0]


class Notes(NullProgress):
    def __init__(self):
        self.calls: list[str] = []
        self.lines: list[str] = []

    def start(self, episodes: int, archive: Archive) -> None:
        self.calls.append(f"start {episodes}")

    def trial(self, record: Any, archive: Archive) -> None:
        self.calls.append(record.trial_id)

    def figures(self, figures: Any) -> None:
        self.calls.append(f"figures {dict(figures)}")

    def note(self, message: str) -> None:
        self.lines.append(message)

    def stop(self) -> None:
        self.calls.append("stop")


class OnCluster(InlineExecutor):
    """Plays here, and says what a cluster's executor would."""

    def __init__(self) -> None:
        self.counts = Counts()


def played(meters: Meters, records: list[Any], counts: Counts | None = None, staleness: int = 4) -> Metered:
    progress = Metered(NullProgress(), meters, counts or Counts(), staleness, look_s=0.01)
    archive = Archive(ORIGINAL)
    progress.start(10, archive)
    for record in records:
        archive.add(record)
        progress.trial(record, archive)
    return progress


def test_page_and_code_name_the_same_metrics():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", PAGE.read_text(), re.M)
    assert rows == [
        (metric.exported, metric.kind, metric.unit, ", ".join(f"`{label}`" for label in metric.labels) or "-",
         metric.help)
        for metric in METRICS
    ]  # fmt: skip


def test_names_are_ones_that_prometheus_takes():
    for metric in METRICS:
        assert re.fullmatch(r"secateur_[a-z_]+[a-z]", metric.name)
        assert not metric.name.endswith("_total"), "Ray adds it to counters"
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_a_search_sets_its_figures():
    fakes = Fakes()
    records = [
        make_record(0, macs=900, accuracy_search=0.7, seconds={"rollout": 0.1, "evaluate": 0.5, "learn": 0.2}),
        make_record(1, macs=500, accuracy_search=0.6, status="stopped"),
        make_record(2, macs=500, accuracy_search=0.0, status="failed", error="died"),
        make_record(3, macs=600, accuracy_search=0.65, seconds={"rollout": 0.1, "evaluate": 1.5}),
    ]
    progress = played(Meters("run-1", "tiny", fakes), records)
    progress.figures({"replay": 120.0, "critic_loss": 1.0})
    progress.stop()
    assert [fakes.total("secateur_episodes", status=status) for status in ("done", "stopped", "failed")] == [2, 1, 1]
    assert fakes.total("secateur_phase_seconds", phase="evaluate") == pytest.approx(0.5 + 0.5 + 0.5 + 1.5)
    assert fakes.total("secateur_phase_seconds", phase="learn") == pytest.approx(0.2)
    assert [value for value, _ in fakes.all["secateur_episode_seconds"].values] == pytest.approx([0.6, 0.6, 0.6, 1.6])
    assert fakes.last("secateur_best_accuracy") == 0.7
    # Two rectangles against the corner (1, 0).
    assert fakes.last("secateur_hypervolume") == pytest.approx(0.4 * 0.65 + 0.1 * 0.05)
    assert fakes.last("secateur_front_members") == 2
    assert (fakes.last("secateur_episodes_recorded"), fakes.last("secateur_episodes_planned")) == (4, 10)
    assert fakes.last("secateur_episodes_in_flight") == 4
    assert fakes.last("secateur_replay_transitions") == 120
    assert {tuple(tags.items())[:2] for fake in fakes.all.values() for _, tags in fake.values} == {
        (("search", "run-1"), ("net", "tiny"))
    }


def test_fewer_are_in_flight_at_the_end():
    fakes = Fakes()
    played(Meters("r", "n", fakes), [make_record(episode) for episode in range(9)]).stop()
    assert fakes.last("secateur_episodes_in_flight") == 1


def test_workers_are_looked_at_between_trials_and_counted_once():
    fakes, counts = Fakes(), Counts()
    progress = played(Meters("r", "n", fakes), [], counts)
    counts.busy, counts.waiting, counts.requeued, counts.restarts, counts.lost = 3, 5, 2, 4, 1
    until = time.monotonic() + 5
    while not fakes.total("secateur_worker_restarts") and time.monotonic() < until:
        time.sleep(0.01)
    counts.restarts = 6
    time.sleep(0.1)
    counts.busy = 0
    progress.stop()
    assert 3 in [value for value, _ in fakes.all["secateur_workers_busy"].values]
    assert fakes.last("secateur_workers_busy") == 0
    assert fakes.last("secateur_calls_waiting") == 5
    totals = [fakes.total(f"secateur_{name}") for name in ("episodes_requeued", "episodes_lost", "worker_restarts")]
    assert totals == [2, 1, 6]


def test_everything_is_told_to_the_progress_first():
    notes = Notes()
    progress = Metered(notes, Meters("r", "n", Fakes()), Counts(), 1)
    archive = Archive(ORIGINAL)
    progress.start(3, archive)
    archive.add(make_record(0))
    progress.trial(make_record(0), archive)
    progress.figures({"replay": 3.0})
    progress.note("a worker died")
    progress.stop()
    assert notes.calls == ["start 3", "t00000", "figures {'replay': 3.0}", "stop"]
    assert notes.lines == ["a worker died"]


@pytest.mark.parametrize("when", ["made", "set"])
def test_metrics_that_fail_are_switched_off_with_one_line(when):
    def make(metric):
        if when == "made":
            raise RuntimeError("no\nagent")
        return object()

    notes = Notes()
    progress = Metered(notes, Meters("r", "n", make), Counts(), 1)
    archive = Archive(ORIGINAL)
    progress.start(3, archive)
    archive.add(make_record(0))
    progress.trial(make_record(0), archive)
    progress.stop()
    assert notes.calls == ["start 3", "t00000", "stop"]
    assert len(notes.lines) == 1 and notes.lines[0].startswith("Metrics were switched off: ")


def test_without_a_cluster_nothing_changes():
    progress = NullProgress()
    assert metered(progress, InlineExecutor(), search="r", net="n") is progress


@pytest.fixture(scope="module")
def cluster():
    from automl.cluster.connect import connected
    from automl.cluster.plan import WorkerPlan

    with pytest.MonkeyPatch.context() as patch:
        # Every 10 s by default. A driver that has read its settings before keeps them; the test then takes longer.
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with connected(WorkerPlan(1)) as ray:
            yield ray


def scraped(ray: Any) -> dict[str, float]:
    """Samples of our metrics by name and their own labels."""
    [url] = endpoints(ray)
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        match = re.fullmatch(r"(ray_secateur\w+)\{(.*)\} (\S+)", line)
        if match:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            own = [labels[name] for name in ("search", "net", "status", "phase", "le") if name in labels]
            found[" ".join([match[1], *own])] = float(match[3])
    return found


@pytest.mark.timeout(120)
def test_values_arrive_where_prometheus_looks_and_cost_little(cluster, tmp_path):
    run = make_run(tmp_path)
    executor = OnCluster()
    executor.counts.restarts = 2
    progress = metered(NullProgress(), executor, search=run.search_id, net="tiny", staleness=2)
    assert isinstance(progress, Metered)
    config = LoopConfig(episodes=12, staleness=2)
    archive = search(make_player(), TinyAgent(), executor, run, config, schedule, progress=progress)
    progress.figures({"replay": 36})

    more = metered(NullProgress(), executor, search="other", net="tiny")
    times = []
    for record in archive.records * 20:
        begun = time.perf_counter()
        more.trial(record, archive)
        times.append(time.perf_counter() - begun)
    assert sorted(times)[len(times) // 2] < 0.001

    until = time.monotonic() + 60
    while "ray_secateur_replay_transitions tiny tiny" not in (found := scraped(cluster)):
        assert time.monotonic() < until, "no metrics of ours at the endpoint"
        time.sleep(0.5)
    best = archive.best()
    assert best is not None
    assert found["ray_secateur_episodes_total tiny tiny done"] == 12
    assert found["ray_secateur_worker_restarts_total tiny tiny"] == 2
    assert found["ray_secateur_best_accuracy tiny tiny"] == pytest.approx(best.accuracy_search)
    assert found["ray_secateur_hypervolume tiny tiny"] == pytest.approx(archive.hypervolume())
    assert found["ray_secateur_replay_transitions tiny tiny"] == 36
    spent = sum(record.seconds["learn"] for record in archive.records)
    assert found["ray_secateur_phase_seconds_total tiny tiny learn"] == pytest.approx(spent)
    assert found["ray_secateur_episode_seconds_count tiny tiny"] == 12
    # Every one is there under the name that the page gives; counters from their first event on.
    present = {name.split()[0].removesuffix("_count") for name in found}
    silent = {"ray_secateur_episodes_requeued_total", "ray_secateur_episodes_lost_total"}
    assert {metric.exported for metric in METRICS} - present == silent
