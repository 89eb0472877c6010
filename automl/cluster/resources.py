"""Whether a cluster has what the workers of a search need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from automl.cluster.plan import WorkerPlan
from compressors.errors import UserError

_LOOK_S = 2.0


def require_resources(ray: Any, plan: WorkerPlan, note: Callable[[str], None]) -> None:
    """Checks that all workers find room, or waits until they do if the plan says so.

    Args:
        ray: The module, connected.
        plan: The workers.
        note: Gets one line when waiting begins.

    Raises:
        UserError: They do not; says what is missing.
    """
    said = False
    while missing := missing_resources(plan, _free(ray)):
        total = missing_resources(plan, _all(ray))
        what = f"The cluster {'is too small' if total else 'is busy'}: {total or missing}"
        if not plan.wait:
            other = "" if total else " Wait for them with --wait."
            hint = "Use fewer --workers or smaller ones, add nodes, or wait for nodes with --wait." if total else other
            raise UserError(f"{what}. {hint.strip()}")
        if not said:
            note(f"{what}. Waiting.")
            said = True
        time.sleep(_LOOK_S)


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
    from ray._private.state import available_resources_per_node

    return list(available_resources_per_node().values())


def _all(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
