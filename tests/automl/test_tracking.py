import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from searching import evaluate, go, make_player, make_record, make_run

from automl.ledger import Ledger
from automl.tracker import MlflowTracker, NullTracker
from automl.tracking import Projection, default_uri, track
from compressors.errors import UserError

mlflow = pytest.importorskip("mlflow")

# MLflow and what it stands on (SQLAlchemy, Alembic, pydantic) warn about each other's deprecations.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One database for all tests, since making it takes seconds; each has a run, hence an experiment, of its own."""
    root = tmp_path_factory.mktemp("store")
    return root, default_uri(root)


@pytest.fixture
def run(store, request):
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return make_run(store[0], name)


def fill(run, count):
    ledger = Ledger(run.ledger)
    for episode in range(len(ledger.records), count):
        ledger.append(make_record(episode, macs=900 - 100 * episode, accuracy_search=0.9 - 0.1 * episode))


def runs_of(run, uri, kind="trial"):
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(run.search_id)
    found = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")
    return sorted(found, key=lambda item: item.data.tags.get("trial_id", ""))


def write_front(run, *names):
    run.front.write_text(json.dumps({"original": {}, "front": [{"trial_id": name} for name in names]}))
    run.report.write_text("<html></html>")


def test_a_trial_becomes_one_flat_run_with_all_its_numbers(run, store):
    _, uri = store
    fill(run, 2)
    assert track(run) == 2
    first, second = runs_of(run, uri)
    assert first.info.status == second.info.status == "FINISHED"
    assert first.data.tags["search_id"] == run.search_id
    assert (first.data.tags["trial_id"], first.data.tags["kind"], first.data.tags["status"]) == (
        "t00000",
        "trial",
        "done",
    )
    assert "mlflow.parentRunId" not in first.data.tags
    metrics = first.data.metrics
    names = ("accuracy", "l2", "macs", "flops", "params", "size_bytes", "bops", "reward", "seconds_evaluate")
    assert [metrics[name] for name in names] == [0.9, 0.25, 900, 1800, 50, 200, 921600, 0.7, 0.5]
    assert metrics["macs_ratio"] == 0.9
    assert first.data.params == {"episode": "0", "behaviour": "tiny", "target_macs": "0.5"}
    path = mlflow.MlflowClient(uri).download_artifacts(first.info.run_id, "policy.json")
    with open(path) as file:
        assert json.load(file)["kept"] == [3, 4]


def test_replay_adds_what_is_missing_and_never_twice(run, store):
    fill(run, 3)
    assert track(run) == 3
    assert track(run) == 0
    fill(run, 5)
    assert track(run) == 2
    assert [item.data.tags["trial_id"] for item in runs_of(run, store[1])] == [f"t{index:05d}" for index in range(5)]


@pytest.mark.parametrize("call", ["log_batch", "log_dict", "set_terminated"])
def test_a_half_written_run_is_completed_not_doubled(run, store, call, monkeypatch):
    fill(run, 2)

    def die(*args, **kwargs):
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, call, die)
        with pytest.raises(UserError, match=r"Cannot track at .*: gone"):
            track(run)
    assert track(run) == 2
    found = runs_of(run, store[1])
    assert [item.info.status for item in found] == ["FINISHED", "FINISHED"]
    client = mlflow.MlflowClient(store[1])
    assert len(client.get_metric_history(found[0].info.run_id, "accuracy")) == 1


def test_the_tracker_follows_a_search_and_writes_the_summary(run, store):
    tracker = MlflowTracker(run, warn=pytest.fail)
    tracker.start()
    archive = go(run, episodes=6, tracker=tracker)
    write_front(run, *(member.trial_id for member in archive.front))
    tracker.finish()
    assert len(runs_of(run, store[1])) == 6
    (summary,) = runs_of(run, store[1], "summary")
    assert summary.data.metrics["hypervolume"] == pytest.approx(archive.hypervolume())
    client = mlflow.MlflowClient(store[1])
    names = {item.path for item in client.list_artifacts(summary.info.run_id)}
    assert {"front.json", "report.html", "config.json"} <= names
    marked = {item.data.tags["trial_id"] for item in runs_of(run, store[1]) if item.data.tags.get("front")}
    assert marked == {member.trial_id for member in archive.front}
    assert track(run) == 0
    assert len(runs_of(run, store[1], "summary")) == 1


def test_a_killed_tracker_is_replayed(run, store):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from automl.runs import Run\n"
        "import automl.tracking as tracking\n"
        "run, seen = Run(Path(sys.argv[1])), []\n"
        "write = tracking.Projection._log\n"
        "def dying(self, *args):\n"
        "    seen.append(1)\n"
        "    if len(seen) == 3: os.kill(os.getpid(), 9)\n"
        "    write(self, *args)\n"
        "tracking.Projection._log = dying\n"
        "tracking.track(run)\n"
    )
    track(run)  # makes the database, which is not what is killed here
    fill(run, 5)
    done = subprocess.run(
        [sys.executable, "-c", script, str(run.folder)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == -signal.SIGKILL
    assert len(runs_of(run, store[1])) == 3
    assert track(run) == 3
    assert track(run) == 0
    assert [item.info.status for item in runs_of(run, store[1])] == ["FINISHED"] * 5


def test_front_members_become_models_without_pickle(run, store):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    example = np.ones((2, 1, 2, 2), np.float32)
    fill(run, 2)
    write_front(run, "t00001", "t00000")
    track(run, model_of=lambda name: (net, example) if name == "t00001" else None)
    track(run, model_of=lambda name: (net, example))
    (summary,) = runs_of(run, store[1], "summary")
    client = mlflow.MlflowClient(store[1])
    (model,) = client.search_logged_models([summary.info.experiment_id])
    assert model.name == "t00001"
    files = [name for _, _, names in os.walk(model.artifact_location.removeprefix("file://")) for name in names]
    assert "model.pt2" in files
    assert not [name for name in files if name.endswith((".pkl", ".pth", ".pickle"))]
    assert not os.path.exists("mlruns")


def test_a_new_front_replaces_the_summary(run, store):
    fill(run, 2)
    write_front(run, "t00001")
    track(run)
    write_front(run, "t00000")
    track(run)
    (summary,) = runs_of(run, store[1], "summary")
    path = mlflow.MlflowClient(store[1]).download_artifacts(summary.info.run_id, "front.json")
    with open(path) as file:
        assert json.load(file)["front"] == [{"trial_id": "t00000"}]


def test_a_server_that_is_down_costs_one_line_and_nothing_else(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    said = []
    tracker = MlflowTracker(run, uri, warn=said.append, retry_s=0.01)
    tracker.start()
    archive = go(run, episodes=5, tracker=tracker)
    tracker.finish(timeout_s=30)
    assert len(archive.records) == 5
    assert len(said) == 2
    assert said[0].startswith(f"Tracking at {uri} fails, the search goes on without it")
    assert "secateur track" in said[1]
    assert not any("\n" in line for line in said)
    with pytest.raises(UserError, match="Cannot track at"):
        track(run, uri)
    assert track(run) == 5


def test_a_server_that_never_answers_does_not_slow_the_search(run):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        said = []
        tracker = MlflowTracker(run, f"http://127.0.0.1:{mute.getsockname()[1]}", warn=said.append)
        begun = time.perf_counter()
        tracker.start()
        for episode in range(200):
            tracker.trial(make_record(episode))
        assert time.perf_counter() - begun < 0.5
        tracker.close(timeout_s=0.2)
        assert time.perf_counter() - begun < 1.5
    assert len(said) == 1
    assert "secateur track" in said[0]


def test_the_tracker_recovers_when_the_server_does(run, store, monkeypatch):
    broken = [True]
    find = Projection._find_experiment

    def sometimes(self):
        if broken:
            raise ConnectionError("starting up")
        return find(self)

    monkeypatch.setattr(Projection, "_find_experiment", sometimes)
    said = []
    tracker = MlflowTracker(run, warn=said.append, retry_s=0.02)
    tracker.start()

    def recovering(allocation, seed, bar):
        if len(said) == 1:
            broken.clear()
        return evaluate(allocation, seed, bar)

    go(run, episodes=4, tracker=tracker, player=make_player(recovering))
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    broken.clear()
    tracker.finish()
    assert len(said) == 1 and "starting up" in said[0]
    assert len(runs_of(run, store[1])) == 4


def test_an_experiment_of_another_search_is_not_written_to(run, store):
    mlflow.MlflowClient(store[1]).create_experiment(run.search_id)
    fill(run, 1)
    with pytest.raises(UserError, match="belongs to another search"):
        track(run)


def test_a_run_that_is_being_searched_is_not_replayed(run):
    with run.lock(), pytest.raises(UserError, match="in use by process"):
        track(run)


def test_tracking_prints_nothing(run, capfd):
    fill(run, 2)
    track(run)
    assert capfd.readouterr() == ("", "")


def test_the_null_tracker_takes_everything():
    tracker = NullTracker()
    tracker.start()
    tracker.trial(make_record())
    tracker.finish()
    tracker.close()


def test_nothing_heavy_is_imported_with_the_module():
    script = "import sys, automl.tracker; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
