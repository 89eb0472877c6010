"""Profiles and statistics on disk, so that a second search on the same net starts at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from automl.data.cache import cache_dir
from automl.files import write_atomic
from automl.task import Task
from compressors.compressor import Compressor
from compressors.errors import UserError
from compressors.layers import LayerTable
from compressors.profile import Profile
from compressors.statistics import LayerStatistics, Statistics

_FORMAT = 1
_LARGEST_BYTES = 1 << 30
_PARTS = ("second", "diagonal", "mean", "scale", "samples")


def prepare(
    compressor: Compressor,
    net: nn.Module,
    table: LayerTable,
    task: Task,
    progress: Callable[[str, int, int], None] | None = None,
) -> Profile:
    """`compressor.prepare`, or what an earlier one with the same net, data and settings left.

    Args:
        compressor: Is prepared.
        net: The original net.
        table: Its layer table.
        task: Its calibration batches are measured.
        progress: Called with the stage, steps done and steps in all.
    """
    path = cache_dir() / "profiles" / f"{_key(compressor, table, task)}.safetensors"
    found = _read(path, table)
    if found is not None:
        statistics, compressor.profile = found
        compressor.use(table, statistics, task.calibration)
        return compressor.profile
    profile = compressor.prepare(net, table, task.calibration, progress)
    _write(path, compressor.statistics, profile)
    return profile


def _key(compressor: Compressor, table: LayerTable, task: Task) -> str:
    facts = {
        "format": _FORMAT,
        "net": table.fingerprint,
        "groups": [(group.name, group.size) for group in table.groups],
        "calibration": task.fingerprint,
        "compressor": compressor.config.model_dump(mode="json"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),  # sums are rounded differently with other threads
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path, table: LayerTable) -> tuple[Statistics, Profile] | None:
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["secateur"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None  # nothing there, or half of it: measured anew
    layers = {}
    for index, layer in enumerate(table.layers):
        parts = {part: arrays.get(f"{index}.{part}") for part in _PARTS}
        layers[layer.name] = LayerStatistics(**parts)  # type: ignore[arg-type]
    groups = range(len(table.groups))
    profile = Profile(
        order=meta["order"],
        orders=tuple(arrays[f"order.{index}"].numpy() for index in groups),
        errors=tuple(arrays[f"error.{index}"].numpy() for index in groups),
        weight_errors=arrays["weight_errors"].numpy(),
        activation_errors=arrays["activation_errors"].numpy(),
        notes=tuple(meta["notes"]),
    )
    return Statistics(layers, tuple(meta["notes"])), profile


def _write(path: Path, statistics: Statistics, profile: Profile) -> None:
    arrays: dict[str, Tensor] = {
        "weight_errors": torch.from_numpy(profile.weight_errors),
        "activation_errors": torch.from_numpy(profile.activation_errors),
    }
    for index, seen in enumerate(statistics.layers.values()):
        for part in _PARTS:
            value = getattr(seen, part)
            if value is not None:
                arrays[f"{index}.{part}"] = value.contiguous()
    for index, (order, errors) in enumerate(zip(profile.orders, profile.errors, strict=True)):
        arrays[f"order.{index}"] = torch.from_numpy(np.ascontiguousarray(order))
        arrays[f"error.{index}"] = torch.from_numpy(np.ascontiguousarray(errors))
    if sum(value.numel() * value.element_size() for value in arrays.values()) > _LARGEST_BYTES:
        return
    meta = {"secateur": json.dumps({"order": profile.order, "notes": list(profile.notes)})}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(arrays, metadata=meta))
    except (OSError, UserError):
        return  # a cache that cannot be written is no cache, and no error
