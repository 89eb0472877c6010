"""The room that each search of a sweep reserves, and whether a cluster has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.cluster.plan import WorkerPlan
from compressors.errors import UserError

_LOOK_S = 2.0

Bundle = dict[str, float]


@dataclass(frozen=True)
class SweepPlan:
    """What each search of a sweep may use, and where.

    Attributes:
        workers: Processes that play the episodes of one search; 0: its own process plays them.
        address: As that of a `WorkerPlan`, but no `ray://`.
        cpus_per_worker: Of each worker, or of the search's own process where there are none; also their threads.
        gpus_per_worker: Likewise, and of the search's own process; may be a fraction.
        concurrent: Most searches at once; None: as many as there is room for.
        threads: Threads of torch; None: `cpus_per_worker`.
        deadline_s: As that of a `WorkerPlan`.
        wait: Wait for a cluster that is too small now, instead of refusing.
        insecure: Accept a cluster elsewhere that anybody may use.
    """

    workers: int = 0
    address: str = "local"
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    concurrent: int | None = None
    threads: int | None = None
    deadline_s: float | None = None
    wait: bool = False
    insecure: bool = False

    def bundles(self) -> list[Bundle]:
        """What one search reserves: first for its own process, then for each worker.

        A search gets all of it or nothing, so no search ever holds some workers and waits for others. Where there are
        workers the search's own process has one CPU: it measures and finetunes on more threads, but while its workers
        rest.
        """
        worker = self._bundle(self.cpus_per_worker)
        if not self.workers:
            return [self._bundle(max(self.cpus_per_worker, self.threads or 0))]
        return [self._bundle(1), *(dict(worker) for _ in range(self.workers))]

    def _bundle(self, cpus: int) -> Bundle:
        return {"CPU": float(cpus), **({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})}

    @property
    def cpus(self) -> int:
        """CPUs of one search, all together."""
        return int(sum(bundle["CPU"] for bundle in self.bundles()))

    def of_one_search(self) -> WorkerPlan:
        """The workers of one search, inside what it has reserved."""
        return WorkerPlan(
            self.workers, "auto", self.cpus_per_worker, self.gpus_per_worker, self.wait, self.deadline_s, self.insecure
        )


def require_room(ray: Any, plan: SweepPlan, folder: Path, note: Callable[[str], None]) -> None:
    """Checks that the cluster can hold one search at least, and that all its nodes see the sweep's folder.

    Args:
        ray: The module, connected.
        plan: What a search needs.
        folder: The sweep's.
        note: Gets one line when waiting begins.

    Raises:
        UserError: It cannot, or they do not.
    """
    said = False
    while missing := missing_room(plan, [node["Resources"] for node in ray.nodes() if node["Alive"]]):
        if not plan.wait:
            raise UserError(
                f"The cluster is too small: {missing}. Use fewer or smaller workers, add nodes, or wait for nodes with "
                "--wait."
            )
        if not said:
            note(f"The cluster is too small: {missing}. Waiting.")
            said = True
        time.sleep(_LOOK_S)
    _require_shared(ray, folder)


def missing_room(plan: SweepPlan, nodes: Sequence[Bundle]) -> str:
    """What one search lacks on these nodes, or nothing.

    Args:
        plan: What a search needs.
        nodes: What each node has, by name of the resource.
    """
    bundles = plan.bundles()
    free = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=lambda bundle: (bundle.get("GPU", 0.0), bundle["CPU"]), reverse=True):
        room = next((node for node in free if _fits(bundle, node)), None)
        if room is None:
            break
        for name, amount in bundle.items():
            room[name] -= amount
    else:
        return ""
    have = " and ".join(f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in bundles[0])
    own = _words(bundles[0])
    workers = f" for itself and {_words(bundles[1])} for each of {plan.workers} workers" if plan.workers else ""
    return f"a search needs {own}{workers}, but {len(nodes)} node(s) with {have} have no room for that"


def _fits(bundle: Bundle, node: Bundle) -> bool:
    return all(node.get(name, 0.0) + 1e-9 >= amount for name, amount in bundle.items())


def _words(bundle: Bundle) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())


def _require_shared(ray: Any, folder: Path) -> None:
    """Has each other node look for the sweep's folder."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here and node["Resources"].get("CPU")]
    marker = folder / "plan.json"
    look = ray.remote(num_cpus=0, max_retries=1)(_sees)
    for node in others:
        where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        try:
            found = ray.get(look.options(scheduling_strategy=where).remote(str(marker)), timeout=120)
        except ray.exceptions.RayError:
            continue  # a node that just went away says nothing about the folder
        if not found:
            raise UserError(
                f"The node {node['NodeManagerAddress']} does not see {folder}: --runs must be a folder that all nodes "
                "share, e.g. on NFS."
            )


def _sees(path: str) -> bool:
    return Path(path).exists()
