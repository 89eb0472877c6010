"""A search on a cluster of several nodes on one machine: nodes die and come."""

import os
import sys
import threading
import time

import pytest
from searching import evaluate, go, make_player, make_run, schedule

from automl.cluster.connect import import_ray, reread_authentication
from automl.cluster.plan import WorkerPlan
from automl.ledger import comparable
from automl.search_loop import LoopConfig, search
from automl.workers import ray_executor
from compressors.errors import UserError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    import_ray()
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # as if the nodes had the tests' own modules installed
        # An open cluster, whatever this process or this person's home holds from elsewhere.
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        reread_authentication()
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        yield made
        made.shutdown()
    reread_authentication()


def test_a_module_that_nodes_lack_is_named(cluster):
    node = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": ""})
    plan = WorkerPlan(1, address=cluster.address, insecure=True)
    with ray_executor(plan, 1, print, print) as executor, pytest.raises(UserError, match="No module named 'searching'"):
        executor.put(make_player())
        executor.result(executor.submit(abs, -1))
    cluster.remove_node(node)


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lines(run):
    return [comparable(line) for line in run.ledger.read_text().splitlines()]


def test_a_cluster_without_token_is_refused(cluster):
    plan = WorkerPlan(1, address=cluster.address)
    with pytest.raises(UserError, match=r"asks for no token.*--insecure"), ray_executor(plan, 1, print, print):
        pass


def test_a_node_dies_and_another_comes_and_the_ledger_is_the_same(cluster, tmp_path):
    from searching import TinyAgent

    def slow(allocation, seed, bar):
        time.sleep(0.8)
        return evaluate(allocation, seed, bar)

    reference = make_run(tmp_path, "reference")
    go(reference, episodes=30, staleness=6)
    nodes = [cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=1)]
    cluster.wait_for_nodes()
    run, notes = make_run(tmp_path, "nodes"), []
    plan = WorkerPlan(3, address=cluster.address, insecure=True)
    with ray_executor(plan, 1, notes.append, notes.append) as executor:
        config = LoopConfig(episodes=30, staleness=6)
        # Ray adds nodes in the main thread only.
        searching = threading.Thread(
            target=search, args=(make_player(slow), TinyAgent(), executor, run, config, schedule), daemon=True
        )
        searching.start()
        wait_for(lambda: run.ledger.exists() and len(lines(run)) >= 6)
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
        wait_for(lambda: len(lines(run)) >= 12)
        nodes.append(cluster.add_node(num_cpus=2))
        searching.join(60)
        assert not searching.is_alive()
        assert executor.counts.restarts >= 2
    assert lines(run) == lines(reference)
    assert notes and all("another takes over" in note for note in notes)
    for node in nodes:
        cluster.remove_node(node)


def test_waits_for_a_cluster_that_is_too_small_and_only_if_told_to(cluster):
    plan = {"workers": 1, "address": cluster.address, "insecure": True}
    with pytest.raises(UserError, match=r"too small.*--wait"), ray_executor(WorkerPlan(**plan), 1, print, print):
        pass
    notes, nodes, found = [], [], []

    def wait():
        with ray_executor(WorkerPlan(**plan, wait=True), 1, notes.append, notes.append) as executor:
            found.append(executor.result(executor.submit(abs, -2)))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    wait_for(lambda: notes)
    nodes.append(cluster.add_node(num_cpus=1))
    waiting.join(60)
    assert found == [2]
    assert len(notes) == 1 and notes[0].endswith("Waiting.")
