"""Decoded images on disk, so that a second start is fast."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Allocate = Callable[[str, tuple[int, ...], Any], Array]
"""Makes room for an array by name, shape and dtype: on disk where the cache can be written, else in memory."""

Produce = Callable[[Allocate], tuple[Mapping[str, Array], dict[str, Any]]]
"""Decodes: given room, returns arrays by name and facts for JSON."""

_FORMAT = 1
_SCRATCH = ".new-"
_STALE_S = 24 * 3600


def cache_dir() -> Path:
    """`$SECATEUR_CACHE`, or `secateur` in the user's XDG cache folder."""
    own = os.environ.get("SECATEUR_CACHE")
    if own:
        return Path(own).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "secateur"


def files_key(files: list[Path], settings: Mapping[str, Any]) -> str:
    """A key that changes when a file's path, size or time of change, or a setting changes."""
    facts = [(str(path.resolve()), *_stat(path)) for path in files]
    return hashlib.sha256(json.dumps([_FORMAT, facts, dict(settings)], sort_keys=True).encode()).hexdigest()[:32]


def cached(kind: str, key: str, produce: Produce) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and facts under `key`, decoded by `produce` if they are not there yet.

    An entry appears whole or not at all: it is written beside its place and renamed. Where the folder cannot be
    written everything works, but nothing is kept.

    Args:
        kind: First part of the entry's name, for people who look into the folder.
        key: From `files_key`.
        produce: Decodes.

    Returns:
        Arrays (memory-mapped, read-only where they were cached) and facts.
    """
    place = cache_dir() / "data" / f"{kind}-{key}"
    found = _read(place)
    if found is not None:
        return found
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=place.parent))
    except OSError:
        arrays, facts = produce(_in_memory)
        return dict(arrays), facts
    try:
        return _write(scratch, place, produce)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(scratch: Path, place: Path, produce: Produce) -> tuple[dict[str, Array], dict[str, Any]]:
    on_disk: dict[str, Array] = {}

    def allocate(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        try:
            # A memory map over a full disk would end in a bus error, so ask first.
            if not size or shutil.disk_usage(scratch).free < 2 * size:
                return _in_memory(name, shape, dtype)
            on_disk[name] = np.lib.format.open_memmap(scratch / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        except OSError:
            return _in_memory(name, shape, dtype)
        return on_disk[name]

    arrays, facts = produce(allocate)
    try:
        for name, array in arrays.items():
            if array is on_disk.get(name):
                array.flush()  # type: ignore[attr-defined]
            else:
                np.save(scratch / f"{name}.npy", array, allow_pickle=False)
        (scratch / "facts.json").write_text(json.dumps({"arrays": sorted(arrays), **facts}))
        first = _read(place)
        if first is not None:
            return first
        shutil.rmtree(place, ignore_errors=True)
        os.rename(scratch, place)
    except OSError:
        # The disk may be full, or another process was first; what was decoded is good either way, and an open map
        # outlives its file.
        return dict(arrays), facts
    return _read(place) or (dict(arrays), facts)


def _read(place: Path) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """An entry, or None if there is none that can be read."""
    try:
        facts = json.loads((place / "facts.json").read_text())
        arrays: dict[str, Array] = {
            name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in facts.pop("arrays")
        }
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError):
        return None
    return arrays, facts


def _sweep(folder: Path) -> None:
    """Removes what a killed process left half-written a day ago or earlier."""
    for left in folder.glob(f"{_SCRATCH}*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)


def _in_memory(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    return np.zeros(shape, dtype=dtype)


def _stat(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
