"""Whether a cluster has what the workers of a search need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from automl.cluster.plan import WorkerPlan
from compressors.errors import UserError

_LOOK_S = 0.5
_PATIENCE_S = 10.0
"""What an earlier search had is free again only some seconds after its end."""


def require_resources(ray: Any, plan: WorkerPlan, note: Callable[[str], None]) -> None:
    """Checks that all workers find room, or waits until they do if the plan says so.

    Args:
        ray: The module, connected.
        plan: The workers.
        note: Gets one line when waiting begins.

    Raises:
        UserError: They do not; says what is missing.
    """
    if in_reservation(ray):
        return
    said, begun = False, time.monotonic()
    while missing := missing_resources(plan, _free(ray)):
        total = missing_resources(plan, _all(ray))
        what = f"The cluster {'is too small' if total else 'is busy'}: {total or missing}"
        late = time.monotonic() - begun > _PATIENCE_S
        if not plan.wait and (total or late):
            hint = "Use fewer or smaller ones, add nodes, or wait for them" if total else "Wait for the others"
            raise UserError(f"{what}. {hint} with --wait.")
        if late and not said:
            note(f"{what}. Waiting.")
            said = True
        time.sleep(_LOOK_S)


def in_reservation(ray: Any) -> bool:
    """Whether this process is part of a placement group, which has room for its workers by construction."""
    return ray.util.get_current_placement_group() is not None


def strategy(ray: Any) -> Any:
    """Where workers go: into the placement group of this process if there is one, else to all nodes in turn."""
    group = ray.util.get_current_placement_group()
    if group is None:
        return "SPREAD"
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(placement_group=group, placement_group_capture_child_tasks=True)


def missing_resources(plan: WorkerPlan, nodes: list[dict[str, float]]) -> str:
    """What workers lack on these nodes, or nothing.

    Args:
        plan: The workers.
        nodes: What each node has, by name of the resource.
    """
    need = {"CPU": float(plan.cpus_per_worker), "GPU": plan.gpus_per_worker}
    need = {name: amount for name, amount in need.items() if amount}
    room = sum(
        min((int(node.get(name, 0.0) / amount + 1e-9) for name, amount in need.items()), default=plan.workers)
        for node in nodes
    )
    if room >= plan.workers:
        return ""
    each = " and ".join(f"{amount:g} {name}" for name, amount in need.items())
    have = " and ".join(f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in need)
    asked = f"{plan.workers} workers of {each} each are asked for"
    return f"{asked}, but {len(nodes)} node(s) with {have} have room for {room}"


def _free(ray: Any) -> list[dict[str, float]]:
    if ray.util.client.ray.is_connected():  # through `ray://` only a process of the cluster can ask
        nodes: list[dict[str, float]] = ray.get(ray.remote(num_cpus=0)(_free_of_each).remote())
        return nodes
    return _free_of_each()


def _free_of_each() -> list[dict[str, float]]:
    from ray._private.state import available_resources_per_node

    return list(available_resources_per_node().values())


def _all(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
