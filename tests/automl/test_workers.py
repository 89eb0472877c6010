"""Workers on Ray: one cluster for the file, small searches, and workers that die."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from searching import TinyAgent, evaluate, go, make_player, make_run, schedule

from automl.cluster.connect import connected
from automl.cluster.plan import WorkerPlan
from automl.executor import InlineExecutor, WorkLost
from automl.ledger import comparable, read_ledger
from automl.parcels import pack
from automl.place import Place
from automl.search_loop import LoopConfig, search
from automl.workers import make_executor, ray_executor
from compressors.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with connected(WorkerPlan(4)) as ray:
        yield ray


@pytest.fixture
def notes():
    return []


@pytest.fixture
def executor(request, notes):
    plan = WorkerPlan(**{"workers": 2, "address": "auto", **getattr(request, "param", {})})
    with ray_executor(plan, 1, notes.append, notes.append) as made:
        yield made


def lines(run):
    return [comparable(line) for line in run.ledger.read_text().splitlines()]


def total(values, more):
    return float(values.sum()) + more


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise ValueError("no such luck")


def refuse():
    raise UserError("Bad input.")


def test_results_are_those_of_the_function_with_handles_resolved(executor):
    handle = executor.put(torch.arange(10.0))
    tickets = [executor.submit(total, handle, number) for number in range(20)]
    assert [executor.result(ticket) for ticket in tickets] == [45.0 + number for number in range(20)]


def test_what_the_function_raises_is_raised_here(executor):
    with pytest.raises(ValueError, match="no such luck"):
        executor.result(executor.submit(fail))
    with pytest.raises(UserError, match="Bad input"):
        executor.result(executor.submit(refuse))
    assert executor.counts.restarts == 0


def test_a_call_that_kills_three_workers_is_given_up_and_others_go_on(executor, notes):
    handle = executor.put(np.ones(3))
    poison = executor.submit(kill_self)
    others = [executor.submit(total, handle, 1) for _ in range(5)]
    with pytest.raises(WorkLost, match="workers died of it, again and again"):
        executor.result(poison)
    assert [executor.result(ticket) for ticket in others] == [4.0] * 5
    assert (executor.counts.lost, executor.counts.requeued, executor.counts.restarts) == (1, 2, 3)
    assert len(notes) == 3 and all("another takes over" in note for note in notes)


@pytest.mark.parametrize("executor", [{"workers": 1, "deadline_s": 1.0}], indirect=True)
def test_a_call_past_its_deadline_is_stopped(executor):
    with pytest.raises(WorkLost, match="did not end within 1 s"):
        executor.result(executor.submit(time.sleep, 60))
    assert executor.result(executor.submit(abs, -1)) == 1


def test_what_cannot_be_sent_is_refused(executor):
    with pytest.raises(UserError, match="sent to other processes"):
        executor.put(threading.Lock())


@pytest.mark.parametrize("plan, message", [
    ({"workers": 5}, "5 workers of 1 CPU each are asked for, but 1 node.* with 4 CPU have room for 4"),
    ({"workers": 2, "cpus_per_worker": 3}, "2 workers of 3 CPU each .* room for 1"),
    ({"workers": 1, "gpus_per_worker": 0.5}, "1 CPU and 0.5 GPU"),
])  # fmt: skip
def test_more_than_the_cluster_has_is_refused(plan, message):
    with (
        pytest.raises(UserError, match=message),
        ray_executor(WorkerPlan(address="auto", **plan), 1, print, print),
    ):
        pass


def reference(tmp_path, **settings):
    run = make_run(tmp_path, "reference")
    go(run, **settings)
    return lines(run)


def through(executor, run, episodes, staleness, player=None):
    config = LoopConfig(episodes=episodes, staleness=staleness)
    return search(player or make_player(), TinyAgent(), executor, run, config, schedule)


@pytest.mark.parametrize("executor", [{"workers": count} for count in (1, 2, 4)], indirect=True)
def test_ledger_does_not_depend_on_the_number_of_workers(executor, tmp_path):
    run = make_run(tmp_path, "workers")
    through(executor, run, 12, 4)
    assert lines(run) == reference(tmp_path, staleness=4)


def deadly(allocation, seed, bar):
    if seed % 5 == 0:
        kill_self()
    return evaluate(allocation, seed, bar)


def test_an_episode_that_kills_its_workers_is_a_failed_trial(executor, tmp_path):
    run = make_run(tmp_path)
    through(executor, run, 6, 2, make_player(deadly))
    found = read_ledger(run.ledger)
    failed = [record for record in found if record.status == "failed"]
    assert len(found) == 6 and 0 < len(failed) < 6
    for record in failed:
        assert record.accuracy_search == 0.0
        assert record.error.startswith("WorkLost: workers died of it, again and again")


def slow(allocation, seed, bar):
    time.sleep(0.3)
    return evaluate(allocation, seed, bar)


class Killer(threading.Thread):
    """Kills random workers while a search goes on."""

    def __init__(self, executor, kills, seed=0, pause_s=1.0):
        super().__init__(daemon=True)
        self.executor, self.left, self.rng, self.pause_s = executor, kills, random.Random(seed), pause_s
        self.done = 0
        self.over = threading.Event()

    def run(self):
        while self.left and not self.over.wait(self.rng.uniform(0.2, 2) * self.pause_s):
            pids = self.executor.pids()
            if pids:
                os.kill(self.rng.choice(pids), signal.SIGKILL)
                self.left -= 1
                self.done += 1


def test_random_kills_leave_the_ledger_as_it_is(executor, tmp_path):
    run = make_run(tmp_path, "killed")
    killer = Killer(executor, 3)
    killer.start()
    through(executor, run, 30, 4, make_player(slow))
    killer.over.set()
    assert killer.done >= 1
    assert lines(run) == reference(tmp_path, episodes=30, staleness=4)


@pytest.mark.slow
def test_twenty_random_kills_lose_and_double_nothing(executor, tmp_path):
    def very_slow(allocation, seed, bar):
        time.sleep(1.5)
        return evaluate(allocation, seed, bar)

    run = make_run(tmp_path, "killed")
    killer = Killer(executor, 20, pause_s=1.5)
    killer.start()
    through(executor, run, 60, 4, make_player(very_slow))
    killer.over.set()
    assert killer.done == 20
    assert executor.counts.restarts >= 20
    assert lines(run) == reference(tmp_path, episodes=60, staleness=4)


def private_bytes(handle_value):
    """What this process alone holds, after it has touched the value."""
    float(handle_value.sum())
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(
        int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Clean", "Private_Dirty"))
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's smaps_rollup")
@pytest.mark.parametrize("executor", [{"workers": 4}], indirect=True)
def test_values_exist_once_on_a_node(executor):
    size_kb = 200_000
    small, large = executor.put(torch.zeros(1000)), executor.put(torch.ones(size_kb * 1024 // 4))
    before = [executor.result(executor.submit(private_bytes, small)) for _ in range(4)]
    after = [executor.result(executor.submit(private_bytes, large)) for _ in range(4)]
    assert max(after) - max(before) < size_kb / 10


def test_memory_format_and_values_survive_the_journey(executor):
    image = torch.rand(2, 3, 5, 7).to(memory_format=torch.channels_last)
    handle = executor.put({"image": image, "half": image.to(torch.bfloat16)})

    back = executor.result(
        executor.submit(lambda value: {name: (t.stride(), t.clone()) for name, t in value.items()}, handle)
    )
    assert back["image"][0] == image.stride()
    assert torch.equal(back["image"][1], image)
    assert torch.equal(back["half"][1], image.to(torch.bfloat16))


def test_inline_and_workers_share_the_protocol(executor):
    for made in (executor, InlineExecutor()):
        assert made.result(made.submit(total, made.put(np.arange(4)), 1)) == 7.0
        made.close()
        made.close()


def test_an_object_store_without_room_is_one_line(executor, monkeypatch, cluster):
    def full(value):
        raise cluster.exceptions.ObjectStoreFullError("no room")

    monkeypatch.setattr(cluster, "put", full)
    with pytest.raises(UserError, match=r"no room for 40 MB of net and images: use fewer search images"):
        executor.put(np.zeros(5_000_000))


@pytest.mark.parametrize("executor", [{"workers": 3}], indirect=True)
def test_workers_that_died_while_idle_are_no_ones_fault(executor):
    assert executor.result(executor.submit(abs, -1)) == 1
    deadline = time.monotonic() + 30
    while len(pids := executor.pids()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert executor.result(executor.submit(abs, -2)) == 2
    assert executor.counts.requeued == 3 and executor.counts.lost == 0


def test_a_token_for_one_cluster_is_forgotten_after_it(monkeypatch):
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    script = (
        "import os\nfrom automl.cluster.connect import connected\nfrom automl.cluster.plan import WorkerPlan\n"
        "with connected(WorkerPlan(1)):\n    print(os.environ['RAY_AUTH_MODE'], len(os.environ['RAY_AUTH_TOKEN']))\n"
        f"print([name for name in {names} if name in os.environ])\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "token 64\n[]\n", done.stderr


def test_workers_without_a_gpu_are_refused_where_the_driver_has_one():
    place = Place(workers=WorkerPlan(1))
    with pytest.raises(UserError, match=r"computes on cuda.*--gpus-per-worker"), make_executor(place, 1, "cuda"):
        pass


def test_memory_mapped_arrays_are_shared_too(executor, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(1000.0))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    parcel = pack({"a": mapped})
    assert len(parcel.stream) < 1000 and sum(len(buffer) for buffer in parcel.buffers) == 8000
    assert executor.result(executor.submit(total, executor.put(mapped), 0)) == 499500.0
