"""What Ray's errors about workers mean, and how to say it in few words."""

from __future__ import annotations

from typing import Any

from compressors.errors import UserError


def is_death(ray: Any, error: BaseException) -> bool:
    """Whether a worker is gone or out of reach, in contrast to an error that its function raised."""
    known = ray.exceptions
    return isinstance(
        error,
        (known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError,
         known.ObjectLostError, known.LocalRayletDiedError),
    ) and not isinstance(error, known.RayTaskError)  # fmt: skip


def reason(error: BaseException) -> str:
    """Why a worker is gone."""
    text = str(error)
    if "low on memory" in text or "OutOfMemory" in type(error).__name__:
        return "its node ran out of memory"
    if node_is_gone(error):
        return "its node is gone"
    if "worker process has died" in text or "connection error code" in text:
        return "its process or its node was killed, or crashed"
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300].rstrip(".")


def node_is_gone(error: BaseException) -> bool:
    """Whether a worker is gone because its node is."""
    return "node has died" in str(error) or bool(getattr(error, "preempted", False))


def gone_nodes(ray: Any) -> set[str]:
    """Ids of nodes that are known to be dead; none where nobody can tell."""
    try:
        return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
    except Exception:  # the cluster itself may be on its way out
        return set()


def cannot_begin(error: BaseException) -> UserError:
    """What to do about workers that cannot load what they are to work with."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError):
        return cause
    text = reason(cause)
    if isinstance(cause, ModuleNotFoundError) or "No module named" in text:
        return UserError(
            f"The workers lack a module of the net or its data: {text}. Install it on the nodes, or send it along "
            "with `secateur submit --working-dir .`."
        )
    return UserError(f"The workers cannot begin: {text}.")
