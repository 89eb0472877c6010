"""Joining a cluster: whom to trust, and one line for every refusal."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from automl.cluster.connect import check_code, connected
from automl.cluster.plan import WorkerPlan
from automl.cluster.probe import Answer, ask
from automl.cluster.resources import missing_resources
from compressors.errors import UserError

AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No token and no cluster of the person who runs the tests."""
    for name in AUTH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def joined(address, **more):
    with connected(WorkerPlan(**{"workers": 1, "address": address, **more})) as ray:
        yield ray


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_answers(scheme):
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=f"Nobody answers at {address}"), joined(address):
        pass


@pytest.mark.parametrize("address", ["here", "head:", "ray://head", "http://head:port"])
def test_what_is_no_address(address):
    with pytest.raises(UserError, match="--ray-address must be local, auto, HOST:PORT"), joined(address):
        pass


def test_something_else_answers():
    """A server that speaks HTTP, not gRPC."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UserError, match=f"answers at {address}"):
            ask(address)
        listener.shutdown(socket.SHUT_RDWR)


def test_other_code_on_the_nodes_is_named():
    here = {"python": "3.11", "secateur": "0.1.0+aaa", "ray": "2.60.0"}
    check_code(dict(here), "head:6379", here)
    with pytest.raises(UserError, match=r"secateur is 0.1.0\+bbb there, 0.1.0\+aaa here; ray is missing there"):
        check_code({"python": "3.11", "secateur": "0.1.0+bbb"}, "head:6379", here)


@pytest.mark.parametrize("nodes, room", [
    ([{"CPU": 8.0}], 4),
    ([{"CPU": 3.0}, {"CPU": 3.0}], 2),
    ([{"CPU": 1.0}] * 9, 0),
    ([], 0),
])  # fmt: skip
def test_room_is_counted_node_by_node(nodes, room):
    plan = WorkerPlan(workers=room, cpus_per_worker=2)
    assert missing_resources(plan, nodes) == ""
    more = missing_resources(WorkerPlan(workers=room + 1, cpus_per_worker=2), nodes)
    assert more.endswith(f"have room for {room}")


def test_workers_that_share_a_gpu():
    nodes = [{"CPU": 16.0, "GPU": 1.0}]
    assert missing_resources(WorkerPlan(4, gpus_per_worker=0.25), nodes) == ""
    assert "room for 3" in missing_resources(WorkerPlan(4, gpus_per_worker=0.3), nodes)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A cluster that asks for a token, and the token."""
    token, ports = secrets.token_hex(32), [free_port() for _ in range(3)]
    folder = tmp_path_factory.mktemp("ray")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    options = ["--include-dashboard=false", f"--temp-dir={folder}", f"--port={ports[0]}"]
    options += [f"--ray-client-server-port={ports[1]}", f"--dashboard-port={ports[2]}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *options], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    addresses = f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}"
    try:
        deadline = time.monotonic() + 60
        while not (answers(addresses[0]) and answers(addresses[1])):
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        yield (*addresses, token)
    finally:
        for pid in session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(30)


def session(leader):
    """All processes of a session; only Linux tells."""
    folders = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    found = [leader]
    for folder in folders:
        with suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(folder.name))
    return found


def answers(address):
    try:
        ask(address)
    except UserError as error:
        return "token" in str(error)
    return True


def square(number):
    return number * number


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["gcs", "client"])
def test_a_cluster_with_a_token(guarded, monkeypatch, tmp_path, which):
    address, token = guarded[which], guarded[2]
    with pytest.raises(UserError, match="asks for a token, and this machine has none"), joined(address):
        pass
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    with pytest.raises(UserError, match="does not accept this machine's token"), joined(address):
        pass
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert ask(address).guarded
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    # In a process of its own: Ray keeps a token that it has read.
    script = (
        "from automl.cluster.plan import WorkerPlan\nfrom automl.workers import ray_executor\n"
        f"with ray_executor(WorkerPlan(1, address={address!r}), 1, print, print) as executor:\n"
        "    print('squared', executor.result(executor.submit(pow, 7, 2)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "squared 49" in done.stdout, done.stderr


@pytest.mark.slow
def test_what_the_port_of_the_other_kind_says(guarded):
    gcs, client, _ = guarded
    with pytest.raises(UserError, match="did you mean ray://HOST:10001"):
        ask(client.removeprefix("ray://"))
    with pytest.raises(UserError, match="did you mean HOST:6379"):
        ask(f"ray://{gcs}")


def test_far_more_workers_than_cores_are_refused_here(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    message = r"64 workers of 1 thread\(s\).*2 core\(s\).*--workers 2"
    with pytest.raises(UserError, match=message), joined("local", workers=64):
        pass


def test_an_open_cluster_elsewhere_is_refused_before_anything_is_sent(monkeypatch):
    monkeypatch.setattr("automl.cluster.connect.ask", lambda address: Answer(guarded=False, version=""))
    with pytest.raises(UserError, match=r"asks for no token.*--insecure"), joined("10.1.2.3:6379"):
        pass


def test_another_version_of_ray_is_named(monkeypatch):
    monkeypatch.setattr("automl.cluster.connect.ask", lambda address: Answer(guarded=True, version="2.9.0"))
    with pytest.raises(UserError, match=r"runs Ray 2.9.0, this process \d"), joined("10.1.2.3:6379"):
        pass
