"""The workers' benchmark: what it computes by hand, its files and its command; with Ray in one cluster for all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from journeys import secateur

from automl.benchmarks.simulated import Sleeping, busy_share, ideal_share, simulated_player
from automl.benchmarks.timed import Repeated, real_player
from automl.benchmarks.workers import Overhead, Speedup, measure_overhead, measure_speedup
from automl.benchmarks.workers_driver import Busy, Throughput, measure_busy, measure_throughput
from automl.benchmarks.workers_table import FILE, Figures, draw, read, tables, write
from automl.config import SearchConfig
from compressors.errors import UserError
from envs.evaluation import Evaluation

FIGURES = Figures(
    overhead=(Overhead("random", 34, 1.02, 6.25, 4.5),),
    speedup=(Speedup("ddpg", 1, 4, 20, 1.0, 1.0, 1.0), Speedup("ddpg", 2, 4, 40, 1.0, 1.9, 1.9)),
    busy=(Busy("random", 16, 64, 300, 2.5, 6.3, 0.987, 0.999), Busy("random", 64, 256, 900, 2.5, 25, 0.98, 0.999)),
    throughput=(Throughput("ddpg", 20, 300, 0.4, 0.5, 1.5, 5.0, 0.5, 126.0, 70.0, 12.7),),
    facts={"cores": 2},
)


def test_sleeps_follow_the_cut_pareto_distribution():
    sleeping = Sleeping(1.0, 10.0, 1.0)
    taken = np.array([sleeping.seconds(seed) for seed in range(4000)])
    assert taken.min() >= 1 and taken.max() <= 10
    # Mean of x^-2 on [1, 10], normalised: ln(10) / (1 - 1/10).
    assert taken.mean() == pytest.approx(np.log(10) / 0.9, rel=0.05)
    assert np.median(taken) == pytest.approx(1 / 0.55, rel=0.05)
    assert sleeping.seconds(7) == sleeping.seconds(7) != sleeping.seconds(8)
    assert Sleeping(high_s=0.0).seconds(1) == 0


def test_busy_share_counts_what_lies_in_the_window():
    spans = [(0.0, 4.0), (1.0, 2.0), (3.0, 9.0)]
    assert busy_share(spans, 2, 1.0, 5.0) == pytest.approx((3 + 1 + 2) / 8)


@pytest.mark.parametrize(
    ("seconds", "workers", "staleness", "share"),
    [
        ([1.0] * 8, 2, 2, 1.0),
        ([1.0] * 8, 2, 1, 0.5),
        # The first holds back: with two in flight the second worker has 1 s of work in 4 s, again and again.
        ([4.0, 1.0] * 4, 2, 2, 5 / 8),
        # With four in flight there is other work for it.
        ([2.0, 1.0, 1.0, 2.0] * 20, 2, 8, 1.0),
    ],
)
def test_ideal_share_is_what_order_alone_costs(seconds, workers, staleness, share):
    assert ideal_share(seconds, workers, staleness) == pytest.approx(share)


def test_repeated_evaluations_add_up():
    calls = []

    def evaluate(allocation, seed, bar):
        calls.append(seed)
        return Evaluation(0.5, {"build": 0.1, "evaluate": 0.2}, 30)

    found = Repeated(evaluate, 3)(None, 7, 0.1)
    assert calls == [7, 7, 7]
    assert (found.accuracy, found.images, found.complete) == (0.5, 30, True)
    assert found.seconds == pytest.approx({"build": 0.3, "evaluate": 0.6})


def test_a_simulated_episode_has_as_many_decisions_as_layers():
    player = simulated_player(3, Sleeping(high_s=0.0))
    assert len(player.env.space) == 3


def test_figures_are_kept_and_read_again(tmp_path):
    assert read(tmp_path) == Figures()
    path = write(tmp_path / "new", FIGURES)
    assert path.name == FILE and read(tmp_path / "new") == FIGURES


@pytest.mark.parametrize("text", ["{", "[]", '{"overhead": [{"agent": "random"}], "facts": {}}'])
def test_damaged_figures_are_refused_in_one_line(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        read(tmp_path)


def test_tables_hold_what_was_measured(tmp_path):
    assert [len(table.lines) for table in tables(FIGURES)] == [1, 2, 2, 1]
    assert "40 ms" in tables(FIGURES)[0].title
    assert tables(FIGURES)[1].lines[1] == ("ddpg", "2", "4", "1.00", "1.90", "1.90")
    assert "98.7%" in tables(FIGURES)[2].lines[0]
    assert all(len(line) == len(table.head) for table in tables(FIGURES) for line in table.lines)
    assert tables(Figures()) == []
    assert draw(FIGURES, tmp_path / "a.png") and (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    assert not draw(Figures(), tmp_path / "b.png")


@pytest.mark.parametrize("agent", ["random", "ddpg"])
def test_phases_of_the_driver_add_up(tmp_path, agent):
    found = measure_throughput(agent, tmp_path, episodes=24, layers=4, staleness=3)
    parts = (found.propose_ms, found.send_ms, found.state_ms, found.write_ms, found.other_ms)
    assert all(part >= 0 for part in parts)
    assert 1000 / found.per_second == pytest.approx(sum(parts))
    assert 1000 / found.learning_per_second == pytest.approx(sum(parts) + found.learn_ms)
    assert (found.learn_ms > 1) == (agent == "ddpg")
    assert list(tmp_path.iterdir()) == []


def test_command_shows_and_refuses(tmp_path):
    write(tmp_path / "workers", FIGURES)
    shown = secateur("bench", "workers", "--show", "--markdown", "--out", tmp_path / "workers")
    assert shown.code == 0 and "| random | 1.02 | 6.2 | 4.5 | 34 |" in shown.out
    assert (tmp_path / "workers" / "workers.png").exists()
    other = ("bench", "workers", "--out", tmp_path / "other")
    assert "no figures yet" in secateur(*other, "--show").err
    assert "'speedup'" in secateur(*other, "--parts", "speedupp").err
    wrong = secateur(*other, "--parts", "busy", "--simulated", "4,x")
    assert wrong.code == 2 and "--simulated must be whole numbers" in wrong.err


@pytest.fixture(scope="module")
def cluster():
    from automl.cluster.connect import connected
    from automl.cluster.plan import WorkerPlan

    with connected(WorkerPlan(2)) as ray:
        yield ray


@pytest.mark.timeout(120)
def test_simulated_workers_are_kept_busy_by_the_real_executor(cluster, tmp_path):
    sleeping = Sleeping(0.2, 0.6)
    found = measure_busy(6, 4, tmp_path, sleeping=sleeping, each=8, layers=3, processes=2)
    assert (found.workers, found.staleness, found.episodes) == (6, 24, 24 + 48)
    assert found.episode_s >= 0.2
    assert 0.5 < found.busy <= 1 and 0.9 < found.ideal <= 1
    assert found.per_second == pytest.approx(6 * found.busy / found.episode_s, rel=0.3)


@pytest.mark.slow
def test_real_evaluations_without_and_with_workers(cluster, tmp_path):
    config = SearchConfig.model_validate(
        {"net": {"name": "resnet8_digits"}, "data": {"name": "digits"}, "agent": {"name": "random"},
         "loop": {"episodes": 6}}
    )  # fmt: skip
    player = real_player(config, 0.2)
    overhead = measure_overhead(config, player, tmp_path)
    assert overhead.pairs == 4 and 0.05 < overhead.episode_s < 2
    rows = measure_speedup(config, player, [1, 2], tmp_path)
    assert [row.workers for row in rows] == [1, 2] and rows[0].ratio == 1
    assert {row.staleness for row in rows} == {4}
    assert [row.episodes for row in rows] == [5, 11]


def test_kept_files_are_plain_json(tmp_path):
    content = json.loads(write(tmp_path, FIGURES).read_text())
    assert set(content) == {"overhead", "speedup", "busy", "throughput", "facts"}
