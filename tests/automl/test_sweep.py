"""Sweeps: the grid and what is refused, and real ones on a small cluster that is shared by the file."""

import csv
import json
import os
import signal
import threading
import time

import pytest
import yaml
from journeys import ledger, refused, secateur, start

from automl.cluster.connect import connected
from automl.cluster.plan import WorkerPlan
from automl.cluster.sweep_config import plan_sweep
from automl.cluster.sweep_folder import SweepPlace, open_sweep, recorded_staleness
from automl.cluster.sweep_results import SearchRow, _ranked, cells
from automl.cluster.sweep_room import SweepPlan, missing_room
from automl.runs import Run
from automl.tracking_sweep import begin_sweep, track_sweep
from compressors.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)

BASE = {
    "data": {"name": "digits", "calibration_images": 200, "search_images": 150},
    "loop": {"episodes": 10},
    "finetune": {"members": 2, "training": {"epochs": 0}},
}


@pytest.fixture
def sweep(tmp_path):
    def write(name="grid", **axes):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"base": BASE, **axes}))
        return path

    return write


def names(**axes):
    return [search.name for search in plan_sweep({"base": BASE, **axes}, "s")]


def test_the_grid_is_every_combination_and_names_tell_them_apart():
    searches = plan_sweep(
        {
            "base": BASE,
            "nets": ["resnet8_digits", {"name": "resnet20", "weights": "w.pt"}],
            "targets": ["macs=0.5", ["size=0.1", "macs=0.3..0.8"]],
            "agents": ["uniform", "ddpg"],
            "compressors": ["l1+none", {"order": "surgeon", "batchnorm": "keep"}],
            "seeds": [0, 7],
        },
        "s",
        staleness=6,
    )
    assert len(searches) == len({search.name for search in searches}) == 32
    last = searches[-1]
    assert last.name == "s-resnet20-w-size0.1_macs0.3..0.8-ddpg-surgeon-least_squares-batchnorm_keep-seed7"
    assert (last.config.net.name, last.config.agent.name, last.config.loop.seed) == ("resnet20", "ddpg", 7)
    assert last.config.net.weights.is_absolute()
    assert last.config.env.targets == ("size=0.1", "macs=0.3..0.8")
    assert (last.config.compressor.order, last.config.compressor.batchnorm) == ("surgeon", "keep")
    assert all(search.config.loop.episodes == 10 and search.config.loop.staleness == 6 for search in searches)
    assert {search.config.data.calibration_images for search in searches} == {200}


def test_an_axis_that_is_not_given_has_the_value_of_the_base():
    (search,) = plan_sweep({"base": {**BASE, "loop": {"seed": 3, "staleness": 2}, "agent": {"name": "tpe"}}}, "s", 9)
    assert (search.agent, search.seed, search.target, search.net) == ("tpe", 3, "macs=0.5", "resnet8_digits")
    assert search.compressor == "surgeon+least_squares"
    assert search.config.loop.staleness == 2
    assert names() == ["s-resnet8_digits-macs0.5-ddpg-surgeon-least_squares-seed0"]


def test_another_net_does_not_get_the_weights_of_the_base():
    base = {**BASE, "net": {"name": "resnet8_digits", "weights": "own.pt", "mean": [0.5], "std": [0.5]}}
    own, other = plan_sweep({"base": base, "nets": ["resnet8_digits", "resnet20"]}, "s")
    assert own.config.net.weights is not None and own.config.net.mean == (0.5,)
    assert other.config.net.weights is None and other.config.net.mean is None


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"agent": ["ddpg"]}, ["Unknown setting of a sweep", "'agent'", "Did you mean 'agents'?"]),
        ({"agents": []}, ["agents in", "at least one entry", "[ddpg, tpe]"]),
        ({"targets": "macs=0.5"}, ["targets in", "must be a list"]),
        ({"agents": ["dpdg"]}, ["agents in", "Unknown agent 'dpdg'", "Did you mean 'ddpg'?"]),
        ({"nets": ["resnet21"]}, ["nets in", "Unknown net 'resnet21'", "Did you mean 'resnet"]),
        ({"nets": ["torchvision:resnet19"]}, ["Unknown torchvision net 'resnet19'", "Did you mean"]),
        ({"nets": [3]}, ["nets in", "but got 3"]),
        ({"nets": [{"name": "resnet20", "weigths": "x"}]}, ["weigths", "Did you mean 'weights'?"]),
        ({"targets": ["mac=0.5"]}, ["targets in", "Unknown target 'mac'"]),
        ({"compressors": ["surgeon"]}, ["ORDER+REPAIR"]),
        ({"compressors": ["surgeon+none", "sturgeon+none"]}, ["'sturgeon'", "Did you mean 'surgeon'?"]),
        ({"compressors": [{"odrer": "l1"}]}, ["odrer", "Did you mean 'order'?"]),
        ({"seeds": [0, -1]}, ["seeds in", "at least 0, but got -1"]),
        ({"seeds": [1, 1]}, ["seeds in", "names 1 twice"]),
        ({"targets": ["macs=0.5", "macs=50%"]}, ["targets in", "twice"]),
        ({"base": {"loop": {"episode": 3}}}, ["loop.episode", "Did you mean 'episodes'?"]),
        ({"base": ["x"]}, ["base in", "list"]),
    ],
)
def test_what_is_wrong_with_a_sweep_is_one_line(axes, words, sweep, runs):
    error = refused(secateur("sweep", sweep(**axes), "--runs", runs), *words)
    assert "grid.yaml" in error
    assert not runs.exists()


def test_a_sweep_keeps_its_staleness_and_may_grow_but_not_change(tmp_path):
    place = SweepPlace(tmp_path, "s")
    assert recorded_staleness(place) is None
    begun = plan_sweep({"base": BASE}, "s", staleness=8)
    assert open_sweep(place, begun) == begun
    assert recorded_staleness(place) == 8
    run = Run(place.folder / begun[0].name)
    run.folder.mkdir()
    run.front.write_text("{}")
    grown = plan_sweep({"base": BASE, "agents": ["ddpg", "tpe"]}, "s", staleness=8)
    assert [search.agent for search in open_sweep(place, grown)] == ["tpe"]
    with pytest.raises(UserError, match=r"other settings.*loop.staleness was 8, here 4"):
        open_sweep(place, plan_sweep({"base": BASE}, "s", staleness=4))
    (place.folder / "plan.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        open_sweep(place, begun)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--runs", "s3://bucket/runs"], ["--runs", "folder"]),
        (["--deadline", "3"], ["--deadline", "--workers"]),
        (
            ["--workers", "1", "--ray-address", "ray://somewhere:10001"],
            ["on a node of its cluster", "--ray-address auto"],
        ),
        (["--name", "a/b"], ["name", "'a/b'"]),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(options, words, sweep, runs):
    refused(secateur("sweep", sweep(), "--runs", runs, *options), *words)


def test_a_dry_run_lists_the_searches_and_leaves_nothing(sweep, runs):
    done = secateur("sweep", sweep(agents=["ddpg", "tpe"], seeds=[0, 1]), "--runs", runs, "--dry-run")
    assert done.code == 0 and "4 searches" in done.out
    assert done.out.count("tpe") == 2 and done.out.count("ddpg") == 2
    assert not runs.exists()


def test_a_search_reserves_one_bundle_for_itself_and_one_for_each_worker():
    assert SweepPlan(workers=3, cpus_per_worker=2).bundles() == [{"CPU": 1}, {"CPU": 2}, {"CPU": 2}, {"CPU": 2}]
    assert SweepPlan(threads=2).bundles() == [{"CPU": 2}]
    assert SweepPlan(workers=1, gpus_per_worker=0.5).bundles() == [{"CPU": 1, "GPU": 0.5}] * 2


def test_room_counts_by_nodes_since_a_bundle_cannot_be_split():
    plan = SweepPlan(workers=2, cpus_per_worker=2)
    assert missing_room(plan, [{"CPU": 5}]) == missing_room(plan, [{"CPU": 2}, {"CPU": 3}]) == ""
    assert missing_room(plan, [{"CPU": 1}] * 9) == (
        "a search needs 1 CPU for itself and 2 CPU for each of 2 workers, but 9 node(s) with 9 CPU have no room for "
        "that"
    )
    assert "1 CPU and 1 GPU" in missing_room(SweepPlan(gpus_per_worker=1), [{"CPU": 8}])


def row(name, **values):
    known = {"net": "n", "target": "t", "agent": "a", "compressor": "c", "seed": 0, "cost": 0.5, "seconds": 1.0}
    return SearchRow(name=name, status="finished", **{**known, "hypervolume": 0.4, **values})


def test_searches_are_ranked_within_net_and_target():
    rows = [
        row("slow", accuracy=0.9, seconds=2.0),
        SearchRow(name="failed", net="n", target="t", agent="a", compressor="c", seed=9, status="failed"),
        row("quick", accuracy=0.9),
        row("wide", accuracy=0.9, hypervolume=0.5),
        row("best", accuracy=0.95, agent="b"),
    ]
    ranked = _ranked(rows)
    assert [(row.name, row.rank) for row in ranked] == [
        ("best", 1), ("wide", 2), ("quick", 3), ("slow", 4), ("failed", None),
    ]  # fmt: skip
    shared, titles, lines, words = cells(ranked)
    assert shared == {"net": "n", "target": "t", "compressor": "c", "seed": "0"}
    assert (titles[:2], words, [line[0] for line in lines]) == (["agent", "rank"], 1, ["b", "a", "a", "a"])


def test_mlflow_has_each_search_and_the_ranking_once(tmp_path):
    folder = tmp_path / "grid"
    folder.mkdir()
    (folder / "sweep.csv").write_text("rank\n1\n")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    good = row("good", rank=1, accuracy=0.9)
    bad = SearchRow(**{**good.model_dump(include={"net", "target", "agent", "compressor", "seed"}), "name": "bad"})
    begin_sweep(uri, folder)
    for _ in range(2):
        failed = bad.model_copy(update={"status": "failed", "failure": "No such luck."})
        rows = [good, failed, bad.model_copy(update={"name": "later"})]
        track_sweep(uri, folder, [row.model_dump() for row in rows], "| table |", [folder / "sweep.csv"])
    found = _runs(uri)
    assert set(found) == {"ranking", "good", "bad"}
    assert found["good"].data.metrics["rank"] == 1 and found["good"].data.params["agent"] == "a"
    assert found["bad"].info.status == "FAILED" and found["bad"].data.tags["failure"] == "No such luck."
    assert found["ranking"].data.metrics == {"searches": 3, "finished": 1, "accuracy": 0.9}

    # What went on since replaces what was.
    finished = [good, bad.model_copy(update={"status": "finished", "rank": 2, "accuracy": 0.5})]
    track_sweep(uri, folder, [row.model_dump() for row in finished], "| other |", [folder / "sweep.csv"])
    found = _runs(uri)
    assert len(found) == 3 and found["bad"].info.status == "FINISHED" and found["bad"].data.metrics["rank"] == 2


def _runs(uri):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("grid")
    assert "|" in experiment.tags.get("mlflow.note.content", "|")
    runs = client.search_runs([experiment.experiment_id])
    found = {run.info.run_name: run for run in runs}
    assert len(found) == len(runs)
    return found


OWN_NET = """
import os, torch
from automl.zoo.resnet import SmallResNet

def good(in_channels, num_classes):
    return SmallResNet(1, in_channels, num_classes)

def holding_nan(in_channels, num_classes):
    net = good(in_channels, num_classes)
    net.register_buffer("unused", torch.tensor(float("nan")))
    return net

class Single(SmallResNet):
    def forward(self, images):
        if len(images) > 1 and images.abs().sum() > 0:
            raise RuntimeError("one at a time")
        return super().forward(images)

def single(in_channels, num_classes):
    return Single(1, in_channels, num_classes)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two CPUs, and a module with nets of one's own that all processes can import."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "own_sweep_nets.py").write_text(OWN_NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        with connected(WorkerPlan(2)) as ray:
            yield ray


def plain(tmp_path, search):
    """The same search by itself."""
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(search.config.model_dump(mode="json")))
    done = secateur(
        "search", "--config", path, "--runs", tmp_path / "plain", "--name", search.name, "--threads", 1, "--no-track"
    )
    assert done.code == 0, done.err
    return Run(tmp_path / "plain" / search.name)


def results(folder):
    return json.loads((folder / "sweep.json").read_text())["searches"]


def test_searches_with_workers_on_fewer_cpus_than_all_need_and_one_that_fails(cluster, sweep, runs, tmp_path):
    file = sweep(agents=["tpe"], nets=["resnet8_digits", "own_sweep_nets:holding_nan", "own_sweep_nets:good"])
    # Two searches' own processes alone would take all of the cluster, and their workers would wait for ever.
    command = ("sweep", file, "--runs", runs, "--no-track", "--workers", 1)
    done = secateur(*command)
    refused(done, "1 of 3 searches failed", "the same command")
    assert done.err.count("Finished") == 2 and done.err.count("Failed") == 1
    assert "Configuration for experiment" not in done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("Failed:")]
    assert "holding_nan" in line and "must be finite" in line

    rows = {row["net"]: row for row in results(runs / "grid")}
    bad = rows.pop("holding_nan")
    assert bad["status"] == "failed" and "must be finite" in bad["failure"]
    assert all(row["rank"] == 1 and row["trials"] == 10 and row["seconds"] > 0 for row in rows.values())
    with (runs / "grid" / "sweep.csv").open() as written:
        assert {row["name"] for row in csv.DictReader(written)} == {
            bad["name"],
            *(row["name"] for row in rows.values()),
        }
    search = plan_sweep(yaml.safe_load(file.read_text()), "grid", staleness=2)[0]
    assert ledger(Run(runs / "grid" / search.name)) == ledger(plain(tmp_path, search))

    refused(
        secateur("sweep", sweep(agents=["tpe"], base={**BASE, "loop": {"episodes": 11}}), "--runs", runs),
        "other settings", "loop.episodes was 10, here 11", "--name",
    )  # fmt: skip


def test_what_cannot_work_is_refused_before_any_search_starts(cluster, sweep, runs):
    file = sweep(targets=["macs=0.5", "macs=0.0001"])
    refused(secateur("sweep", file, "--runs", runs, "--no-track"), "No search was started", "macs=0.0001")
    assert not list((runs / "grid").glob("grid-*"))


def test_a_sweep_that_has_no_room_is_refused(cluster, sweep, runs):
    file = sweep(agents=["uniform"])
    refused(
        secateur("sweep", file, "--runs", runs, "--no-track", "--workers", 2, "--cpus-per-worker", 2),
        "too small", "1 CPU for itself and 2 CPU for each of 2 workers", "1 node(s) with 2 CPU", "--wait",
    )  # fmt: skip


def _finished(folder):
    return [run.name for run in folder.glob("cut-*") if (run / "front.json").exists()]


def _stopped(file, runs, how, ready):
    """Starts a sweep in a process of its own, and stops it when it is ready for that."""
    process = start("sweep", file, "--runs", runs, "--no-track", "--concurrent", 1, cwd=runs.parent)
    until = time.monotonic() + 200
    while not ready(runs / file.stem):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    searching = [int(lock.read_text()) for lock in (runs / file.stem).glob("*/lock")]
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    until = time.monotonic() + 10
    while any(_runs_still(pid) for pid in searching):
        assert time.monotonic() < until, "a search outlived its sweep"
        time.sleep(0.1)
    return process.returncode, out, err


def _runs_still(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _lines(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("cut-*/trials.jsonl"))


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(cluster, sweep, runs, tmp_path):
    file = sweep("cut", agents=["uniform", "tpe"], base={**BASE, "loop": {"episodes": 400}})
    code, _, _ = _stopped(file, runs, signal.SIGKILL, lambda folder: _finished(folder) and _lines(folder) >= 403)
    assert code == -signal.SIGKILL
    (finished,) = _finished(runs / "cut")
    before = {path: path.stat().st_mtime_ns for path in (runs / "cut" / finished).rglob("*") if path.is_file()}
    done = secateur("sweep", file, "--runs", runs, "--no-track")
    assert done.code == 0, done.err
    assert "1 of them finished already" in done.err and done.err.count("Begun") == 1
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert [row["rank"] for row in results(runs / "cut")] == [1, 2]
    again = secateur("sweep", file, "--runs", runs, "--no-track")
    assert (again.code, again.out, again.err) == (0, done.out, "")
    search = plan_sweep(yaml.safe_load(file.read_text()), "cut")[1]
    assert ledger(Run(runs / "cut" / search.name)) == ledger(plain(tmp_path, search))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_sweep_that_is_interrupted_says_how_to_go_on(cluster, sweep, runs, how):
    file = sweep("cut", agents=["uniform", "tpe"], base={**BASE, "loop": {"episodes": 40}})
    begun = time.monotonic()
    code, _, err = _stopped(file, runs, how, lambda folder: _lines(folder) >= 5)
    assert code == 2 and "Traceback" not in err, err
    assert "Interrupted with 0 of 2 searches finished" in err and "--name cut" in err
    assert time.monotonic() - begun < 60
    done = secateur("sweep", file, "--runs", runs, "--no-track")
    assert done.code == 0, done.err
    assert {row["trials"] for row in results(runs / "cut")} == {40}


@pytest.mark.slow
def test_an_unexpected_error_is_kept_in_a_log(cluster, sweep, runs):
    done = secateur("sweep", sweep(nets=["own_sweep_nets:single"]), "--runs", runs, "--no-track")
    refused(done, "1 of 1 searches failed")
    (row,) = results(runs / "grid")
    assert "one at a time" in row["failure"]
    assert "one at a time" in next((runs / "grid" / "logs").glob("*.log")).read_text()


@pytest.mark.slow
def test_a_search_whose_process_dies_is_tried_again(cluster, sweep, runs, tmp_path):
    file = sweep(agents=["tpe"], base={**BASE, "loop": {"episodes": 60}})
    killed = []

    def kill():
        until = time.monotonic() + 100
        while not killed and time.monotonic() < until:
            for lock in (runs / "grid").glob("grid-*/lock"):
                lines = lock.with_name("trials.jsonl")
                if lines.exists() and lines.read_bytes().count(b"\n") > 5 and lock.read_text():
                    killed.append(int(lock.read_text()))
                    os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    done = secateur("sweep", file, "--runs", runs)
    thread.join()
    assert killed and done.code == 0, done.err
    (row,) = results(runs / "grid")
    assert (row["status"], row["trials"]) == ("finished", 60)
    assert "goes on from its checkpoint" in done.err
    assert set(_runs(f"sqlite:///{runs / 'grid' / 'mlflow.db'}")) == {"ranking", row["name"]}
    (search,) = plan_sweep(yaml.safe_load(file.read_text()), "grid")
    assert ledger(Run(runs / "grid" / search.name)) == ledger(plain(tmp_path, search))


@pytest.fixture
def nodes(monkeypatch):
    from automl.cluster.connect import import_ray

    import_ray()
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_sweep_outlives_the_node_that_its_search_runs_on(nodes, sweep, runs, tmp_path):
    first = [nodes.add_node(num_cpus=1), nodes.add_node(num_cpus=1)]
    file = sweep("cut", agents=["tpe"], base={**BASE, "loop": {"episodes": 60}})
    process = start(
        "sweep", file, "--runs", runs, "--no-track", "--workers", 1, "--ray-address", nodes.address, "--insecure",
        cwd=runs.parent,
    )  # fmt: skip
    until = time.monotonic() + 120
    while _lines(runs / "cut") < 5:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    for node in first:
        nodes.remove_node(node, allow_graceful=False)
    nodes.add_node(num_cpus=2)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, (out, err)
    assert "goes on from its checkpoint" in err
    search = plan_sweep(yaml.safe_load(file.read_text()), "cut", staleness=2)[0]
    assert ledger(Run(runs / "cut" / search.name)) == ledger(plain(tmp_path, search))
