"""Secateur finds how much of each layer of a trained network to cut, and how few bits to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl.api import load_exported, resume, search
    from automl.cluster.plan import WorkerPlan
    from automl.config import SearchConfig
    from automl.data import DataConfig, load_splits
    from automl.finetuning import FinetuneConfig
    from automl.place import Place
    from automl.result import SearchResult
    from automl.search_loop import SearchInterrupted
    from automl.task import Loaders
    from automl.zoo import NetConfig, load_net
    from compressors.errors import UserError

_HOMES = {
    "DataConfig": "automl.data",
    "FinetuneConfig": "automl.finetuning",
    "Loaders": "automl.task",
    "NetConfig": "automl.zoo",
    "Place": "automl.place",
    "SearchInterrupted": "automl.search_loop",
    "UserError": "compressors.errors",
    "WorkerPlan": "automl.cluster.plan",
    "SearchConfig": "automl.config",
    "SearchResult": "automl.result",
    "load_exported": "automl.api",
    "load_net": "automl.zoo",
    "load_splits": "automl.data",
    "resume": "automl.api",
    "search": "automl.api",
}

__all__ = [
    "DataConfig",
    "FinetuneConfig",
    "Loaders",
    "NetConfig",
    "Place",
    "SearchConfig",
    "SearchInterrupted",
    "SearchResult",
    "UserError",
    "WorkerPlan",
    "load_exported",
    "load_net",
    "load_splits",
    "resume",
    "search",
]


def __getattr__(name: str) -> Any:
    # Public names load what they need when they are used, so that `secateur --help` loads nothing.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
