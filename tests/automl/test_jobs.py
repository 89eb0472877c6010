"""Searches as jobs: what travels, one real cluster for the file, and everything that a cluster can refuse."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests
from journeys import ROOT, ledger, refused, secateur

from automl.cluster import job_server
from automl.cluster.connect import import_ray, reread_authentication
from automl.cluster.driver import FOLDER, JobRequest
from automl.cluster.job_config import config_for_nodes
from automl.cluster.job_log import progress, resumable, why
from automl.cluster.shipping import LIMIT_BYTES, collect, pack_code, pack_working_folder
from automl.cluster.submission import new_submission, resumption
from automl.config import SearchConfig, parse, read_yaml
from automl.place import Place
from automl.runs import Run
from compressors.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
TOKEN = "0123456789abcdef" * 4
EPISODES = 24
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

NET = """
import time
from torch import nn

class Own(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, num_classes)

    def forward(self, images):
        time.sleep(0.05)  # so that there is time to stop it
        features = self.second(self.first(images).relu()).relu()
        return self.last(features.mean((2, 3)))

def make(num_classes=10):
    return Own(num_classes)
"""
CONFIG = f"""
net: {{name: 'own_jobs_net:make', weights: ../elsewhere/trained.safetensors}}
data: {{calibration_images: 200, search_images: 150}}
loop: {{episodes: {EPISODES}}}
finetune: {{members: 1, training: {{epochs: 0}}}}
"""


class Cluster:
    """A head of one node in a session of its own, so that nothing else is stopped with it."""

    def __init__(self, token):
        self.folder = Path(tempfile.mkdtemp(prefix="sj", dir="/tmp"))  # sockets have short paths
        self.address = f"http://127.0.0.1:{free_port()}"
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"HOME": str(self.folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        if token:
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        options = {
            "--port": 0, "--dashboard-port": self.address.rpartition(":")[2], "--dashboard-host": "127.0.0.1",
            "--node-ip-address": "127.0.0.1", "--dashboard-agent-listen-port": 0, "--dashboard-agent-grpc-port": 0,
            "--metrics-export-port": 0, "--ray-client-server-port": free_port(), "--num-cpus": 2,
            "--include-dashboard": "true", "--object-store-memory": 100_000_000, "--temp-dir": self.folder / "ray",
        }  # fmt: skip
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        self.process = subprocess.Popen(
            [*words, *(f"{name}={value}" for name, value in options.items())], env=env, cwd=self.folder,
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: self.answers() in (401, 200), 120)

    def answers(self):
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.address}/api/jobs/", timeout=5).status_code

    @property
    def runs(self):
        return self.folder / "secateur-runs"

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # workers and drivers end with their node
        self.process.wait(10)
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(true, seconds):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(TOKEN)
    yield made
    made.stop()


@pytest.fixture
def authentication(monkeypatch):
    """Sets what this process knows of tokens; as before afterwards."""
    import_ray()

    def use(**env):
        for name in (*AUTHENTICATION, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        reread_authentication()

    with monkeypatch.context() as monkeypatch:
        yield use
    reread_authentication()


@pytest.fixture
def here(authentication, tmp_path, monkeypatch):
    """A working folder with a net of one's own, whose weights lie elsewhere."""
    authentication(RAY_AUTH_TOKEN=TOKEN)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "own_jobs_net.py").write_text(NET)
    (folder / "config.yaml").write_text(CONFIG)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(folder)
    save_own_weights(tmp_path / "elsewhere" / "trained.safetensors")
    return folder


def save_own_weights(path):
    import torch
    from safetensors.torch import save_file

    made: dict[str, object] = {}
    exec(NET, made)  # not imported here: the search of the test must find it as a job does
    torch.manual_seed(3)
    save_file(made["make"]().state_dict(), path)


@pytest.fixture
def call(cluster):
    def call(*words):
        return secateur(*words, "--address", cluster.address)

    return call


def undisturbed(tmp_path, staleness):
    """The ledger of the same search in this process, on which jobs must agree."""
    from automl.pipeline import run_search

    values = read_yaml(Path("config.yaml")) | {"loop": {"episodes": EPISODES, "staleness": staleness}}
    settings = parse(SearchConfig, values)
    place = Place(runs=tmp_path / "undisturbed", name="run", track=False, threads=1)
    return ledger(run_search(settings, place).run)


def lines(run):
    return run.ledger.read_text().count("\n") if run.ledger.exists() else 0


# On a real cluster.


def test_a_stopped_job_goes_on_as_if_it_had_not_been_stopped(cluster, call, here, tmp_path):
    run = Run(cluster.runs / "own")
    done = call("submit", "config.yaml", "--name", "own", "--no-track")
    assert done.code == 0, done.err
    assert "Job:     own" in done.out and TOKEN not in done.out + done.err
    wait_for(lambda: lines(run) >= 3, 180)
    twice = call("submit", "config.yaml", "--name", "own")
    refused(twice, "is being searched by the job own", "secateur stop own")
    stopped = call("stop", "own")
    assert stopped.code == 0 and "has ended: stopped" in stopped.out and "submit --resume own" in stopped.out
    assert 3 <= lines(run) < EPISODES
    shown = call("status", "own").out
    assert "stopped" in shown and "Search: " in shown and "submit --resume own" in shown

    resumed = call("submit", "--resume", "own", "--follow")
    assert resumed.code == 0, resumed.err
    assert "Job:     own@2" in resumed.out and "The front" in resumed.out
    assert ledger(run) == undisturbed(tmp_path, staleness=2)
    assert run.report.exists()  # the writers of reports travelled
    assert Path(run.info().config["net"]["weights"]) == run.folder / "weights" / "trained.safetensors"
    assert stat.S_IMODE((run.folder / "weights" / "trained.safetensors").stat().st_mode) & 0o400

    listed = call("list", "jobs").out
    assert "own@2" in listed and "succeeded" in listed and "stopped" in listed
    assert "succeeded" in call("status", "own").out
    assert "The front" in call("logs", "own").out
    refused(call("status", "onw"), "Unknown job 'onw'", "Did you mean 'own'")
    again = call("submit", "config.yaml", "--name", "own", "--no-track")
    refused(again, "exists on the cluster", "submit --resume own")


def test_bad_requests_are_refused_before_anything_is_sent(call, here):
    (here / "bad.yaml").write_text("agent: {name: dpdg}\n")
    refused(call("submit", "bad.yaml"), "ddpg")
    refused(call("submit", "nowhere.yaml"), "nowhere.yaml")
    refused(call("submit"), "CONFIG", "--resume")
    refused(call("submit", "config.yaml", "--resume", "own"), "either")
    refused(call("submit", "config.yaml", "--name", "a b"), "'a b'")
    refused(call("submit", "config.yaml", "--name", "x@2"), "'x@2'")
    refused(call("submit", "config.yaml", "--runs", "there"), "begins with / or ~")
    refused(call("submit", "config.yaml", "--working-dir", "nowhere"), "--working-dir")
    refused(secateur("list", "jbos"), "Did you mean 'jobs'")


def test_tokens_that_do_not_fit(cluster, call, here, authentication, tmp_path):
    authentication(RAY_AUTH_TOKEN="f" * 64)
    refused(call("submit", "config.yaml"), "does not accept this machine's token")
    authentication(HOME=str(tmp_path / "home"))
    refused(call("submit", "config.yaml"), "this machine has none", "umask 077")
    authentication(RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=TOKEN)
    refused(call("status", "own"), "RAY_AUTH_MODE=token")


def test_a_token_file_that_others_can_read_works_and_is_warned_of(cluster, call, authentication, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    authentication(RAY_AUTH_TOKEN_PATH=str(file))
    done = call("list", "jobs")
    assert done.code == 0, done.err
    assert done.err.splitlines() == [
        f"Warning: other users of this machine can read the cluster's token: chmod 600 {file}"
    ]


def test_a_checked_address_is_the_one_that_is_used(cluster, call, authentication):
    # Ray itself would prefer the environment's.
    authentication(RAY_AUTH_TOKEN=TOKEN, RAY_ADDRESS="http://127.0.0.1:1", RAY_API_SERVER_ADDRESS="http://127.0.0.1:2")
    assert call("list", "jobs").code == 0
    refused(secateur("list", "jobs"), "Nobody answers at http://127.0.0.1:2")


@pytest.mark.slow
def test_a_killed_driver_and_what_the_nodes_lack(cluster, call, here, tmp_path):
    run = Run(cluster.runs / "killed")
    assert call("submit", "config.yaml", "--name", "killed", "--no-track", "--workers", "2").code == 0
    wait_for(lambda: lines(run) >= 3, 180)
    os.kill(int((run.folder / "lock").read_text()), signal.SIGKILL)
    wait_for(lambda: "failed" in call("status", "killed").out, 60)
    shown = call("status", "killed").out
    assert "its driver was killed" in shown and "submit --resume killed" in shown
    done = call("submit", "--resume", "killed", "--follow")
    assert done.code == 0, done.err
    assert ledger(run) == undisturbed(tmp_path, staleness=4)

    refused(call("submit", "--resume", "kiled"), "Unknown run 'kiled'", "Did you mean 'killed'")
    (here / "no-data.yaml").write_text("data: {name: 'folder:/there/is/none'}\n")
    failed = call("submit", "no-data.yaml", "--name", "no-data", "--no-track", "--follow")
    refused(failed, "/there/is/none", "submit it again")
    (here / "own_jobs_net.py").unlink()
    failed = call("submit", "config.yaml", "--name", "no-module", "--no-track", "--follow")
    assert "must be installed on the nodes" in failed.err
    refused(failed, "own_jobs_net")
    # The nodes have this very code, in its place.
    plain = here / "plain.yaml"
    plain.write_text("loop: {episodes: 2}\nfinetune: {training: {epochs: 0}}\n")
    done = call("submit", plain, "--name", "no-code", "--no-code", "--no-track", "--follow")
    assert done.code == 0, done.err


@pytest.mark.slow
def test_a_run_at_a_url_keeps_its_weights_there(cluster, call, here, tmp_path):
    where = f"file://{cluster.folder}/remote"
    done = call("submit", "config.yaml", "--name", "far", "--runs", where, "--no-track", "--follow")
    assert done.code == 0, done.err
    run = Run(cluster.folder / "remote" / "far")
    assert ledger(run) == undisturbed(tmp_path, staleness=2)
    assert run.info().config["net"]["weights"] == f"{where}/far/weights/trained.safetensors"
    refused(call("submit", "config.yaml", "--name", "far", "--runs", where), "exists on the cluster")


@pytest.mark.slow
def test_a_cluster_without_token_is_for_loopback_only(here, monkeypatch):
    open_to_all = Cluster("")
    try:
        plain = here / "plain.yaml"
        plain.write_text("loop: {episodes: 2}\nfinetune: {training: {epochs: 0}}\n")
        words = ("submit", plain, "--no-track", "--follow", "--address", open_to_all.address)
        done = secateur(*words, "--name", "near")
        assert done.code == 0, done.err
        with monkeypatch.context() as far:
            far.setattr(job_server, "is_loopback", lambda address: False)
            refused(secateur(*words, "--name", "far"), "asks for no token", "--insecure")
            assert "far" not in secateur("list", "jobs", "--address", open_to_all.address).out
            done = secateur(*words, "--name", "far", "--insecure")
            assert done.code == 0, done.err
    finally:
        open_to_all.stop()


# Without a cluster.


class Answer(BaseHTTPRequestHandler):
    status, body = 404, b"nothing here"

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *words):
        pass


@contextlib.contextmanager
def listening(status, body):
    server = HTTPServer(("127.0.0.1", 0), type("Other", (Answer,), {"status": status, "body": body}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [(404, b"nothing", ("no dashboard with a job server", "ray[default]")), (200, b"<html>", ("no dashboard",)),
     (302, b"", ("no dashboard",)), (503, b"", ("in trouble", "503"))],
)  # fmt: skip
def test_what_is_no_dashboard_is_refused(authentication, status, body, words):
    authentication(RAY_AUTH_TOKEN=TOKEN)
    with listening(status, body) as address:
        refused(secateur("list", "jobs", "--address", address), *words)
        refused(secateur("list", "jobs", "--address", address.replace("http", "https")), "does not speak https")


def test_a_port_that_does_not_speak_http(authentication):
    authentication(RAY_AUTH_TOKEN=TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(10)
                connection.sendall(b"\0\0\x12\4\0\0\0\0\0")  # how gRPC greets

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        refused(secateur("status", "run", "--address", address), "does not speak HTTP", "8265", "6379")
        thread.join()
    refused(secateur("status", "run", "--address", address), "Nobody answers")


@pytest.fixture
def folder(tmp_path):
    for name, text in {
        "net.py": "x", "package/__init__.py": "", "package/part.py": "y", "package/__pycache__/part.pyc": "z",
        ".env": "secret", ".git/config": "", "venv/pyvenv.cfg": "", "venv/lib/a.py": "", "token": "secret",
        "runs/a/config.json": "{}", "runs/a/policies/t.json": "{}", "runs/a/trials.jsonl": "", "runs/mlflow.db": "",
        ".gitignore": "data/\n*.log\n", "data/big.bin": "0", "images/a.png": "0", "a.log": "", "package/b.log": "",
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_only_what_a_job_needs_travels(folder):
    (folder / "link").symlink_to("token")
    found = collect(folder, secrets=[folder / "token", folder / "nowhere"])
    assert found.files == ["images/a.png", "net.py", "package/__init__.py", "package/part.py"]
    assert {"data/", "runs/a/", "venv/", ".env", ".git/", "a.log", "token", "link"} <= set(found.left_out)
    assert found.has("images") and not found.has("data") and not found.has("image")
    assert found.has_module("net") and found.has_module("package") and not found.has_module("part")


def test_too_much_is_refused_with_what_is_largest(folder, monkeypatch):
    (folder / "images" / "noise.bin").write_bytes(os.urandom(300_000))
    monkeypatch.setattr("automl.cluster.shipping.LIMIT_BYTES", 200_000)
    with pytest.raises(UserError, match=r"largest: images 0 MB.*\.rayignore"):
        pack_working_folder(collect(folder), {}, folder / "out.zip")
    monkeypatch.setattr("automl.cluster.shipping._MOST_FILES", 3)
    with pytest.raises(UserError, match="--working-dir"):
        collect(folder)
    assert LIMIT_BYTES == 100 * 1024**2


def test_equal_files_give_equal_packages(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    more = {f"{FOLDER}/request.json": b"{}", f"{FOLDER}/weights/w.pt": folder / "net.py"}
    first = pack_working_folder(collect(folder), more, out / "a.zip").read_bytes()
    (folder / "net.py").touch()
    assert pack_working_folder(collect(folder), more, out / "b.zip").read_bytes() == first
    with zipfile.ZipFile(out / "a.zip") as package:
        assert package.read(f"{FOLDER}/weights/w.pt") == b"x" and "images/a.png" in package.namelist()


def test_the_code_travels_with_its_data_and_its_installation(tmp_path):
    with zipfile.ZipFile(pack_code(tmp_path / "code.zip")) as package:
        names = set(package.namelist())
        assert {"automl/cluster/driver.py", "dashboards/report.py"} <= names
        assert any(name.endswith(".safetensors") for name in names)
        assert not any("__pycache__" in name or name.startswith("tests") for name in names)
        (points,) = (name for name in names if name.endswith("dist-info/entry_points.txt"))
        assert b"secateur.reports" in package.read(points)
        (metadata,) = (name for name in names if name.endswith("dist-info/METADATA"))
        assert b"Version: " in package.read(metadata)
        package.extractall(tmp_path / "there")
    words = "from automl.cluster.code import code_facts; print(code_facts()['secateur'])"
    facts = [
        subprocess.run([sys.executable, "-P", "-c", words], env={**os.environ, "PYTHONPATH": str(root)},
                       capture_output=True, text=True, check=True).stdout
        for root in (tmp_path / "there", ROOT)
    ]  # fmt: skip
    assert facts[0] == facts[1]


def test_paths_of_this_machine_become_paths_of_the_nodes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    shipment, notes = collect(folder), []
    values = {
        "net": {"name": "package.part:make", "weights": "net.py"},
        "data": {"name": "folder:images"},
        "loop": {"episodes": 5},
    }
    there, weights = config_for_nodes(values, shipment, notes.append)
    assert weights == Path("net.py") and notes == []
    assert there == {"net": {"name": "package.part:make"}, "data": {"name": "folder:images"}, "loop": {"episodes": 5}}

    elsewhere = {
        "net": {"name": "other.part:make", "weights": "/far/w.pt"},
        "data": {"name": "parquet:s3://bucket/images", "data_dir": "/far/data"},
    }
    there, weights = config_for_nodes(elsewhere, shipment, notes.append)
    assert there == elsewhere and weights is None
    assert len(notes) == 2 and "'other'" in notes[0] and "/far/w.pt" in notes[1]
    by_url = {"net": {"weights": "s3://bucket/w.pt"}}
    assert config_for_nodes(by_url, shipment, notes.append) == (by_url, None)

    with pytest.raises(UserError, match="'data' does not travel"):
        config_for_nodes({"data": {"name": "folder:data"}}, shipment, notes.append)
    with pytest.raises(UserError, match=r"There are no weights 'w\.pt'"):
        config_for_nodes({"net": {"weights": "w.pt"}}, shipment, notes.append)


@pytest.mark.parametrize(
    ("message", "log", "reason"),
    [("x", "Secateur: the job begins.\nError: No such thing.\nFrom where ...", "No such thing."),
     ("x", "Traceback\nModuleNotFoundError: No module named 'torch'", "lack the module 'torch'; install"),
     ("runtime_env: No module named 'automl'", "", "without --no-code"),
     ("Job entrypoint command failed with exit code 127, logs", "sh: python: not found", "no command `python`"),
     ("Job entrypoint command failed with exit code -9, logs", "Search: 3/10", "its driver was killed"),
     ("Job supervisor actor died: gone", "", "supervisor actor died: gone")],
)  # fmt: skip
def test_why_a_job_failed_is_one_line(message, log, reason):
    line = why("a@2", message, log)
    assert line.startswith("The job a@2 failed: ") and reason in line and "\n" not in line


def test_progress_is_the_last_line_that_says_how_far():
    log = "setting up\nSecateur: the job begins.\nProfile: 0.3 s.\n"
    assert progress("setting up\n") == "" and not resumable(log)
    assert progress(log) == "Profile: 0.3 s."
    log += "Search: 0 of 9 episodes done.\nSearch: 3/9, best none.\nError: It ended.\n"
    assert progress(log) == "Search: 3/9, best none." and resumable(log)


URI_WORDS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.mark.parametrize(
    "uri", ["http://me:sesame@server:5000", "http://sesame@server", "http://me:ses/ame@server:5000"]
)
def test_passwords_of_tracking_servers_travel_nowhere(folder, monkeypatch, uri):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(job_server, "open_server", lambda *words, **more: pytest.fail("it went on"))
    (folder / "config.yaml").write_text("loop: {episodes: 2}\n")
    done = secateur("submit", "config.yaml", "--tracking-uri", uri)
    refused(done, "--tracking-uri", *URI_WORDS)
    assert "ame" not in done.err.replace("name", "").replace("USERNAME", "")


def test_passwords_of_tracking_servers_are_refused_when_a_run_goes_on(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("automl.cluster.submission.list_jobs", lambda server: [])
    server = job_server.JobServer("http://127.0.0.1:1", None, True, "2.60.0")
    with pytest.raises(UserError, match=URI_WORDS[1]):
        resumption(server, "a", None, None, {"tracking_uri": "http://me:sesame@server"}, no_code=False)
    plain = {"tracking_uri": "http://server:5000/a@b"}
    assert resumption(server, "a", None, None, plain, no_code=False).options == plain


@pytest.mark.parametrize(
    ("config", "runs"),
    [("{}", "s3://me:sesame@bucket/runs"), ("net: {weights: 'https://h/w.pt?X-Amz-Signature=sesame'}", None),
     ("data: {name: 'folder:https://h/d?sig=sesame'}", None)],
)  # fmt: skip
def test_urls_with_secrets_do_not_travel(folder, monkeypatch, config, runs):
    monkeypatch.chdir(folder)
    (folder / "config.yaml").write_text(f"{config}\n")
    with pytest.raises(UserError, match="A URL must not hold a") as caught:
        new_submission(Path("config.yaml"), None, runs, "a", {}, print, no_code=False)
    assert "sesame" not in str(caught.value)


def test_no_token_travels_wherever_it_comes_from(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text("secret")
    (folder / "images" / "key").symlink_to(folder / ".ray" / "auth_token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    (folder / "config.yaml").write_text("{}\n")
    sent = new_submission(Path("config.yaml"), None, None, "a", {}, print, no_code=False)
    assert {"token", "images/key"} <= set(sent.shipment.left_out)
    assert not {"token", "images/key"} & set(sent.shipment.files)


def test_a_request_is_read_as_it_was_written():
    import json

    request = JobRequest("a", "~/runs", True, ["--workers", "2"], "weights/w.pt", {"torch": "2"})
    assert JobRequest(**json.loads(request.data())) == request
