"""What runs in a worker's process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from automl.cluster.code import code_facts
from automl.parcels import Parcel, unpack
from automl.place import settle


class Key(str):
    """Stands for a value that every worker holds."""


class Actor:
    """A worker: holds values, and runs functions one after the other.

    Args:
        threads: Of torch.
        device: `cpu` or `cuda`, for nets among the values.

    Raises:
        UserError: There is no such device.
    """

    def __init__(self, threads: int, device: str) -> None:
        self.device = settle(threads, device)
        self.values: dict[str, Any] = {}

    def hold(self, key: str, parcel: Parcel) -> None:
        """Takes a value, whose arrays stay in the node's memory."""
        value = unpack(parcel)
        if hasattr(value, "use_device"):
            value.use_device(self.device)
        self.values[key] = value

    def facts(self) -> dict[str, Any]:
        """Which code this is, and where."""
        import ray

        return {"code": code_facts(), "pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}

    def begin(self) -> None:
        """Answers just before a call: a worker that died while it was idle does not."""

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Calls a function, with held values in the places of their keys."""
        return function(*(self.values[arg] if isinstance(arg, Key) else arg for arg in args))
