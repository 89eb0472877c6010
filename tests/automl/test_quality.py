"""`secateur bench quality`: equal cost, equal evaluations, nothing lost, nothing mixed."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from journeys import ledger, refused, secateur, start
from rich.console import Console
from scipy.stats import binom
from searching import TinyAgent, TinyBehaviour, make_player, make_run, schedule

from agents.registry import AGENTS
from automl.benchmarks.quality import attempt
from automl.benchmarks.quality.identity import differences
from automl.benchmarks.quality.plan import Request, label, plan
from automl.benchmarks.quality.progress import QualityProgress
from automl.benchmarks.quality.results import Row, from_csv, to_csv
from automl.benchmarks.quality.statistics import bands, first_reaching, interval, steps_at
from automl.benchmarks.quality.store import SharedEvaluator, SharingExecutor, Store
from automl.benchmarks.quality.tables import HEAD, cells_of, entries
from automl.benchmarks.tabulate import markdown_table
from automl.ledger import read_ledger
from automl.runs import Run
from automl.search_loop import LoopConfig, search
from compressors.cost import Allocation
from compressors.errors import UserError
from envs.evaluation import Evaluation

EPISODES = 8
IMAGES = ("--data", "digits", "--calibration-images", "200", "--search-images", "100")
GRID = (
    "bench", "quality", *IMAGES, "--agents", "random,uniform,ddpg", "--targets", "macs=0.5", "--targets", "size=0.1",
    "--episodes", EPISODES, "--seeds", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    done = secateur(*GRID, "--processes", "1", "--out", out)
    assert done.code == 0, done.err
    return out, done


@pytest.fixture
def copy(compared, tmp_path):
    shutil.copytree(compared[0], tmp_path / "out")
    return tmp_path / "out"


def runs_in(out):
    return {str(path.parent.relative_to(out)): Run(path.parent) for path in sorted(out.glob("*/*/*/*/config.json"))}


def test_every_agent_searches_every_cell_with_every_seed(compared):
    out, _ = compared
    expected = {
        f"resnet8_digits-digits/{target}/{agent}/seed-{seed}"
        for target in ("macs=0.5", "size=0.1")
        for agent in ("random", "uniform", "ddpg")
        for seed in range(2)
    }
    runs = runs_in(out)
    assert set(runs) == expected
    for name, run in runs.items():
        records = read_ledger(run.ledger)
        assert len(records) == EPISODES
        bits = {width for record in records for width in record.policy.weight_bits}
        assert (bits == {32}) == ("macs" in name)  # a target on the size decides bits too


def test_equal_candidates_are_measured_once_and_all_counted(compared):
    out, done = compared
    records = [(name.split("/")[1], record) for name, run in runs_in(out).items() for record in read_ledger(run.ledger)]
    distinct = {(record.policy.kept, record.policy.weight_bits) for _, record in records}
    shared = len(records) - len(distinct)
    assert shared >= 2 * (2 * EPISODES - 1)  # uniform repeats itself
    assert f"{len(records)} evaluations, {shared} of them shared." in done.err
    store = Store(out / "evaluations.sqlite")
    assert len(store) == len(distinct)
    store.close()
    times = {}
    for _, record in records:
        key = (record.policy.kept, record.policy.weight_bits)
        assert times.setdefault(key, record.seconds["evaluate"]) == record.seconds["evaluate"] > 0


def test_finished_searches_cost_nothing_and_more_can_be_added(copy):
    before = {name: run.ledger.read_bytes() for name, run in runs_in(copy).items()}
    more = ("bench", "quality", *IMAGES, "--episodes", EPISODES, "--seeds", "2", "--processes", "1", "--out", copy)
    done = secateur(*more, "--agents", "random", "--agents", "sensitivity")
    assert done.code == 0, done.err
    after = runs_in(copy)
    assert {name: run.ledger.read_bytes() for name, run in after.items() if name in before} == before
    assert len(after) == len(before) + 2
    found = re.search(rf"{2 * EPISODES} evaluations, (\d+) of them shared\.", done.err)
    assert found and int(found[1]) >= 2 * EPISODES - 1  # it repeats itself
    again = secateur(*GRID, "--processes", "1", "--out", copy)
    assert again.code == 0 and "of them shared" not in again.err
    assert "sensitivity" in again.out


def test_tables_from_ledgers_and_from_the_csv_are_equal(copy, compared, tmp_path):
    _, done = compared
    csv = copy / "summary.csv"
    rows = from_csv(csv)
    assert to_csv(rows) == csv.read_text()
    assert csv.stat().st_size < 10_000
    csv.unlink()
    redrawn = secateur("bench", "quality", "--out", copy, "--summarise")
    assert redrawn.out == done.out
    assert from_csv(csv) == rows
    alone = tmp_path / "alone.csv"
    shutil.copy(csv, alone)
    shutil.rmtree(copy)
    assert secateur("bench", "quality", "--from-csv", alone).out == done.out
    written = secateur("bench", "quality", "--from-csv", alone, "--markdown").out
    assert "### resnet8_digits on digits, size=0.1, 8 evaluations" in written
    assert "| agent | seeds |" in written and "| ddpg | 2 |" in written


def test_summary_says_what_it_was_made_with(compared):
    out, _ = compared
    facts = json.loads((out / "summary.json").read_text())
    cell = next(cell for cell in facts["cells"] if cell["target"] == "macs=0.5")
    assert cell["facts"]["episodes"] == EPISODES
    assert cell["facts"]["evaluator"]["splits"]["splits"]["search"]["count"] == 100
    assert cell["facts"]["evaluator"]["threads"] == 1
    assert cell["agents"]["ddpg"]["seeds"] == [0, 1]
    assert "net_arch" in cell["agents"]["ddpg"]["settings"]["ddpg"]
    assert set(cell["agents"]["random"]["settings"]).isdisjoint(AGENTS)
    assert len(cell["fingerprint"]) == 64 and facts["versions"]["torch"]
    assert "10,000 resamples" in facts["interval"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_stopped_half_way_and_started_again_equals_undisturbed(compared, tmp_path, how):
    out = tmp_path / "out"
    process = start(*GRID, "--processes", "2", "--out", out, cwd=tmp_path)
    until = time.monotonic() + 120

    def lines():
        return sum(run.ledger.read_bytes().count(b"\n") for run in runs_in(out).values() if run.ledger.exists())

    while lines() < 12:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        errors = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert process.returncode == 2 and "Traceback" not in err
        assert len(errors) == 1 and "of 96 evaluations" in errors[0] and "Go on with the same command" in errors[0]
    assert lines() < 96
    for _ in range(100):  # processes of a killed parent end by themselves
        done = secateur(*GRID, "--processes", "1", "--out", out)
        if "is in use by process" not in done.err:
            break
        time.sleep(0.1)
    assert done.code == 0, done.err
    expected = runs_in(compared[0])
    found = runs_in(out)
    assert {name: ledger(run) for name, run in found.items()} == {name: ledger(run) for name, run in expected.items()}


def test_unfinished_searches_are_left_out_and_counted(copy):
    run = Run(copy / "resnet8_digits-digits" / "macs=0.5" / "random" / "seed-1")
    lines = run.ledger.read_text().splitlines(keepends=True)
    run.ledger.write_text("".join(lines[:3]))
    done = secateur("bench", "quality", "--out", copy, "--summarise")
    assert "macs=0.5: 1 unfinished search(es) are left out" in done.err
    rows = [row for row in from_csv(copy / "summary.csv") if row.target == "macs=0.5" and row.agent == "random"]
    assert {row.seed for row in rows} == {0}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--search-images", "90"), "search.count: 100 there, 90 here"),
        (("--episodes", "9"), "episodes: 8 there, 9 here"),
        (("--mode", "both"), "env.mode: sparsity there, both here"),
        (("--calibration-images", "190"), "evaluator.calibration: "),
    ],
)
def test_results_made_differently_are_not_mixed(copy, options, word):
    done = secateur(*GRID, "--targets", "macs=0.5", "--processes", "1", "--out", copy, *options)
    refused(done, word, "never put into one table", "another --out, or delete")


def test_an_agent_with_other_settings_is_not_mixed(copy, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("agent: {ddpg: {noise_start: 0.25}}")
    line = refused(secateur(*GRID, "--processes", "1", "--out", copy, "--config", settings), "agent.ddpg.noise_start")
    assert "delete" in line and "ddpg to run the agent again" in line
    # The settings of another agent do not matter to these.
    rest = secateur(*GRID, "--processes", "1", "--out", copy, "--config", settings, "--agents", "random")
    refused(rest, "agent.ddpg.noise_start")
    others = [part if part != "random,uniform,ddpg" else "random,uniform" for part in GRID]
    assert secateur(*others, "--processes", "1", "--out", copy, "--config", settings).code == 0


def test_strange_runs_in_a_cell_are_refused_when_summarised(copy):
    cell = copy / "resnet8_digits-digits"
    shutil.copytree(cell / "size=0.1" / "random" / "seed-1", cell / "macs=0.5" / "random" / "seed-2")
    refused(secateur("bench", "quality", "--out", copy, "--summarise"), "seed-2", "env.mode: both there, sparsity here")


def test_one_search_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    run_job = attempt.run_job

    def fragile(job, *rest):
        if job.agent == "random" and job.seed == 0:
            job.folder.mkdir(parents=True)
            raise RuntimeError("out of\nmemory")
        return run_job(job, *rest)

    small = (*GRID[:4], *IMAGES[2:], "--agents", "random,uniform", "--episodes", "3", "--seeds", "2")
    with monkeypatch.context() as patch:
        patch.setattr(attempt, "run_job", fragile)
        done = secateur(*small, "--processes", "1", "--out", tmp_path)
    refused(done, "One search failed", "random/seed-0: RuntimeError: out of memory (see failure.txt)")
    assert len(from_csv(tmp_path / "summary.csv")) == 9
    assert "fragile" in next(tmp_path.glob("*/*/random/seed-0/failure.txt")).read_text()
    assert secateur(*small, "--processes", "1", "--out", tmp_path).code == 0
    assert len(from_csv(tmp_path / "summary.csv")) == 12


def request(**changes):
    base = Request({}, (), {}, ("macs=0.5",), ("random",), 150, 1, None, Path("out"))
    return replace(base, **changes)


def test_plan_goes_seed_by_seed_and_knows_its_folders():
    nets = ({"name": "resnet20"}, {"name": "torchvision:resnet18"})
    jobs = plan(request(nets=nets, targets=("macs=50%", "size=0.1", "macs=0.3..0.7"), agents=("all",), seeds=2))
    assert len(jobs) == 2 * 2 * 3 * len(AGENTS)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert str(jobs[0].folder) == f"out/resnet20-digits/macs=0.5/{next(iter(AGENTS))}/seed-0"
    assert {str(job.cell.folder) for job in jobs} == {
        f"out/{net}-digits/{target}"
        for net in ("resnet20", "resnet18")
        for target in ("macs=0.5", "size=0.1", "macs=0.3..0.7")
    }
    assert {job.cell.config.env.mode for job in jobs if job.cell.target == "size=0.1"} == {"both"}
    assert {job.cell.config.env.mode for job in jobs if job.cell.target != "size=0.1"} == {"sparsity"}
    assert jobs[-1].config.loop.seed == 1 and jobs[-1].config.agent.name == jobs[-1].agent


def test_a_mode_that_is_given_stays():
    assert plan(request(targets=("size=0.5",), mode="sparsity"))[0].cell.config.env.mode == "sparsity"
    assert plan(request(targets=("bops=0.1",), base={"env": {"mode": "bits"}}))[0].cell.config.env.mode == "bits"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": ("rnadom",)}, "Unknown agent 'rnadom'. Did you mean 'random'"),
        ({"agents": ()}, "--agents must name at least one"),
        ({"targets": ("mcas=0.5",)}, "Unknown target 'mcas'. Did you mean 'macs'"),
        ({"agents": ("random", "nsga2"), "episodes": 3}, r"'nsga2' needs at least \d+ episodes .* --episodes 3"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"base": {"evaluatoin": {}}}, "Unknown setting 'evaluatoin'"),
        ({"nets": ({"name": "a:resnet8_digits"}, {"name": "resnet8_digits"})}, "Two nets share the folder"),
        ({"targets": ("macs=0.5", "macs=50%")}, "is given twice"),
    ],
)
def test_bad_requests(changes, message):
    with pytest.raises(UserError, match=message):
        plan(request(**changes))


def test_bad_command_lines(tmp_path):
    quality = ("bench", "quality")
    refused(secateur(*quality), "--out must name the folder")
    refused(secateur(*quality, "--nets", "resnet8_digit", "--out", tmp_path), "Did you mean 'resnet8_digits'")
    missing = secateur(*quality, "--nets", "resnet20=none.pt", "--out", tmp_path)
    refused(missing, str(Path("none.pt").absolute()))
    refused(secateur(*quality, "--out", tmp_path, "--summarise"), "holds no results")
    refused(secateur(*quality, "--from-csv", tmp_path / "no.csv"), "Cannot read", "no.csv")
    refused(secateur(*quality, "--from-csv", tmp_path, "--summarise"), "exclude each other")
    refused(secateur(*quality, "--out", tmp_path, "--targets", "macs=0.0001", *IMAGES), "macs")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n")
    refused(secateur(*quality, "--from-csv", wrong), "is not a summary")
    wrong.write_text(to_csv([ROW]) + "resnet20,digits\n")
    refused(secateur(*quality, "--from-csv", wrong), "line 3 is no row")


def test_labels():
    assert label("parquet:/x/cifar10-jpeg/") == "cifar10-jpeg"
    assert label("package.module:factory") == "factory"
    assert label("timm:a b") == "a-b"


# Shared evaluations


def allocation(*kept):
    bits = np.full(len(kept), 32)
    return Allocation(np.array(kept), bits, bits)


@pytest.fixture
def open_store(tmp_path):
    """Opens the same file each time, as each process does."""
    stores = []

    def opened():
        stores.append(Store(tmp_path / "store"))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


class Counting:
    """An evaluation that counts its calls; whoever is below the bar is looked at on 10 of 100 images only."""

    def __init__(self):
        self.calls = []

    def __call__(self, allocation, seed, bar):
        self.calls.append((tuple(allocation.kept), seed, bar))
        accuracy = float(allocation.kept.sum()) / 100
        stopped = accuracy < bar
        return Evaluation(accuracy, {"build": 0.5, "evaluate": 40.0}, 10 if stopped else 100, not stopped)


def test_a_hit_gives_accuracy_and_seconds_of_whoever_measured(open_store):
    counting = Counting()
    first = SharedEvaluator(counting, open_store(), "net a")
    second = SharedEvaluator(counting, open_store(), "net a")
    made = first(allocation(3, 4), 1, 0.2)
    found = second(allocation(3, 4), 2, 0.9)
    assert found == made and found.seconds == made.seconds and found.images == made.images
    assert (len(counting.calls), second.evaluated, second.shared) == (1, 0, 1)
    assert second.saved_s == pytest.approx(40.5, abs=0.5)
    other = SharedEvaluator(counting, open_store(), "net b")
    other(allocation(3, 4), 1, 0.2)
    second(allocation(4, 3), 1, 0.2)
    assert len(counting.calls) == 3 and second.saved_s == 0


def test_a_seed_counts_only_where_something_is_trained(open_store):
    counting = Counting()
    shared = SharedEvaluator(counting, open_store(), "net", seeded=True)
    for seed in (1, 2, 1):
        shared(allocation(3), seed, -math.inf)
    assert len(counting.calls) == 2


def test_early_stopped_evaluations_are_shared_only_where_they_would_be_equal(open_store):
    counting = Counting()
    shared = SharedEvaluator(counting, open_store(), "net", stops=True)
    stopped = shared(allocation(30), 0, 0.4)
    assert shared(allocation(30), 0, 0.4) == stopped and len(counting.calls) == 1
    whole = shared(allocation(30), 0, 0.3)  # a lower bar: measured anew, and to the end
    assert (stopped.images, whole.images, len(counting.calls)) == (10, 100, 2)
    assert shared(allocation(30), 0, -math.inf) == whole and len(counting.calls) == 2
    assert shared(allocation(30), 0, 0.4) == stopped and len(counting.calls) == 2
    assert shared(allocation(30), 0, 0.35).images == 10 and len(counting.calls) == 3


def test_what_is_not_finite_or_fails_is_not_kept(open_store):
    answers = [Evaluation(math.nan), RuntimeError("no"), Evaluation(0.5)]

    def fragile(allocation, seed, bar):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shared = SharedEvaluator(fragile, open_store(), "net")
    assert math.isnan(shared(allocation(1), 0, 0).accuracy)
    with pytest.raises(RuntimeError):
        shared(allocation(1), 0, 0)
    assert [shared(allocation(1), 0, 0).accuracy for _ in range(2)] == [0.5, 0.5]


def test_a_damaged_store_is_one_line(tmp_path):
    (tmp_path / "store").write_text("no database at all, but some text that is long enough" * 100)
    with pytest.raises(UserError, match=r"Cannot use the shared evaluations .*not a database"):
        Store(tmp_path / "store")


def test_an_episode_lasts_as_long_as_if_it_had_measured_itself(tmp_path, open_store):
    @dataclass(frozen=True)
    class Thinking(TinyBehaviour):
        def act(self, observation, env, rng):
            time.sleep(0.1)
            return super().act(observation, env, rng)

    class Thinker(TinyAgent):
        def behaviour(self, episode):
            return Thinking(super().behaviour(episode).center)

    def slow(allocation, seed, bar):
        time.sleep(0.2)
        return Evaluation(0.5, {"evaluate": 0.2})

    for name in ("made", "looked-up"):
        shared = SharedEvaluator(slow, open_store(), "net")
        run = make_run(tmp_path, name)
        search(make_player(shared), Thinker(), SharingExecutor(shared), run, LoopConfig(episodes=1), schedule)
        seconds = read_ledger(run.ledger)[0].seconds
        assert seconds["evaluate"] == 0.2 and 0.3 <= seconds["rollout"] < 0.5
    assert (shared.evaluated, shared.shared) == (0, 1)


# Statistics and tables


def test_interval_of_one_and_of_equal_seeds_is_the_mean():
    for values in ([0.7], [0.7, 0.7, 0.7]):
        found = interval(values)
        assert (found.mean, found.low, found.high) == pytest.approx((0.7, 0.7, 0.7))


@pytest.mark.parametrize(("ones", "seeds"), [(1, 2), (1, 3), (2, 5), (5, 20)])
def test_interval_of_zeros_and_ones_is_binomial(ones, seeds):
    found = interval([1.0] * ones + [0.0] * (seeds - ones))
    assert found.mean == pytest.approx(ones / seeds)
    expected = binom.ppf([0.025, 0.975], seeds, ones / seeds) / seeds
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_bands_are_intervals_at_every_point_and_keep_scale():
    curves = np.random.default_rng(0).random((5, 7))
    mean, low, high = bands(curves)
    assert mean == pytest.approx(curves.mean(0))
    assert low[3] == pytest.approx(interval(curves[:, 3]).low)
    assert (low <= mean).all() and (mean <= high).all()
    assert bands(2 * curves - 1)[2] == pytest.approx(2 * high - 1)


def test_steps_and_first_reaching():
    assert steps_at([1, 3, 6], [10, 20, 30], [0, 1, 2.9, 3, 7]).tolist() == [10, 10, 10, 20, 30]
    assert first_reaching([1, 3, 6], [0.1, 0.5, 0.5], 0.5) == 3
    assert first_reaching([1, 3, 6], [0.1, 0.5, 0.5], 0.6) is None


ROW = Row("net", "data", "macs=0.5", "random", 0, 1, 1.0, 0.5, 0.25)


def rows_of(agent, *searches):
    found = []
    for seed, points in enumerate(searches):
        found += [
            replace(ROW, agent=agent, seed=seed, evaluations=count, seconds=2.0 * count, best_accuracy=best)
            for count, best in points
        ]
    return found


def test_table_sorts_by_mean_best_and_times_by_randoms_mean_end():
    rows = [
        *rows_of("random", [(1, 0.4), (10, 0.6)], [(1, 0.5), (10, 0.8)]),  # ends at 0.7 in the mean
        *rows_of("strong", [(1, 0.7), (10, 0.9)], [(1, 0.5), (4, 0.75), (10, 0.75)]),
        *rows_of("mixed", [(1, 0.1), (10, 0.69)], [(1, 0.8), (10, 0.8)]),
        *rows_of("weak", [(1, 0.6), (10, 0.6)], [(1, 0.6), (10, 0.6)]),
    ]
    (cell,) = cells_of(rows)
    lines = {entry.agent: entry for entry in entries(cell)}
    assert list(lines) == ["strong", "mixed", "random", "weak"]
    assert lines["strong"].reached == (1, 4) and lines["strong"].cells()[6] == "2.5"
    assert lines["mixed"].cells()[6] == "- (1/2)"
    assert lines["weak"].cells()[6] == "-"
    assert lines["strong"].cells()[:4] == ("strong", "2", "82.50%", "75.00..90.00")
    assert lines["strong"].seconds == 20
    without = cells_of(row for row in rows if row.agent != "random")
    assert {entry.cells()[6] for entry in entries(without[0])} == {""}
    written = markdown_table(cell.title, HEAD, (entry.cells() for entry in entries(cell)))
    assert [line.split(" | ")[0] for line in written.splitlines()[2:]] == [
        "| agent", "| ---", "| strong", "| mixed", "| random", "| weak",
    ]  # fmt: skip


def test_csv_keeps_what_it_says():
    rows = [replace(ROW, seconds=12345.7, best_accuracy=0.123457), ROW]
    assert to_csv(rows).splitlines()[1] == "net,data,macs=0.5,random,0,1,12345.7,0.123457,0.25"


def test_differences_name_what_differs():
    there = {"a": {"b": 1, "c": 2}, "d": [1], "e": "x" * 64}
    here = {"a": {"b": 1, "c": 3}, "e": "y" * 64}
    assert differences(there, here) == [
        "a.c: 2 there, 3 here",
        "d: [1] there, nothing here",
        f"e: {'x' * 12}... there, {'y' * 12}... here",
    ]
    assert differences(there, there) == []


def test_progress_counts_only_what_this_process_did():
    now, shown = [0.0], io.StringIO()
    progress = QualityProgress(Console(file=shown), clock=lambda: now[0])
    progress.start(4, 1000, 1, 400)
    progress.update(1, 401)  # too soon for a line
    now[0] = 60.0
    progress.update(2, 500)
    progress.update(4, 1000)
    assert shown.getvalue().splitlines() == [
        "Searches 1/4, evaluations 400/1,000.",
        "Searches 2/4, evaluations 500/1,000, 0:05:00 left.",
        "Searches 4/4, evaluations 1,000/1,000.",
    ]
