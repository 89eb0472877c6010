"""Data and weights from elsewhere, fetched once into the cache folder and read there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from automl.data.cache import cache_dir
from automl.files import storage_errors
from automl.remote.folder import RemoteFile, RemoteFolder
from automl.remote.url import shown
from compressors.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows, where two processes at once fetch the same twice
    fcntl = None  # type: ignore[assignment]

Progress = Callable[[str, int, int | None], None]
"""Is told of a stage, steps done and steps in all; the steps of fetching are megabytes."""

_FORMAT = 1
_PARTS = frozenset({"train", "test", "val", "validation"})
_BATCH_FILES, _BATCH_BYTES = 64, 64 << 20
_STALE_S = 24 * 3600
_MB = 1 << 20


def _in_folders(name: str) -> bool:
    first, *inner = name.split("/")
    return first in _PARTS and not any(part.startswith(".") for part in inner)


def _parquet(name: str) -> bool:
    return re.fullmatch(r"(data/)?(train|test|val)[^/]*\.parquet", name) is not None


_WANTED: dict[str, tuple[Callable[[str], bool], str]] = {
    "folder": (_in_folders, "train/ and test/ or val/"),
    "parquet": (_parquet, "train-*.parquet and test-*.parquet (or validation-*.parquet)"),
}


def fetched_data(kind: str, url: str, progress: Progress | None = None) -> Path:
    """The local copy of a data set, fetched unless it is there and unchanged.

    Args:
        kind: `folder` or `parquet`, which decides what is fetched.
        url: The folder; one of this machine's (`file://`) is used where it is.
        progress: Is told how far it is; without it the start is logged.

    Raises:
        UserError: Nothing there, no permission, no connection, or no space.
    """
    folder = RemoteFolder(url)
    if _is_here(folder):
        return Path(folder.path)
    wanted, content = _WANTED[kind]
    there = folder.files()
    files = {name: file for name, file in there.items() if wanted(name)}
    if not there:
        raise UserError(
            f"There is nothing at {shown(url)}: check the bucket and the path, and that this machine can see them."
        )
    if not files:
        raise UserError(f"The data folder {shown(url)} must hold {content}, but none of its files is of these.")
    return _fetched(folder, files, progress)


def fetched_file(url: str, progress: Progress | None = None) -> Path:
    """The local copy of one file; otherwise as `fetched_data`."""
    folder = RemoteFolder(url)
    if _is_here(folder):
        return Path(folder.path)
    name = shown(url).rstrip("/").rpartition("/")[2]
    return _fetched(folder, {name: folder.file()}, progress) / name


def _is_here(folder: RemoteFolder) -> bool:
    return folder.scheme in ("file", "local")


def _fetched(folder: RemoteFolder, files: Mapping[str, RemoteFile], progress: Progress | None) -> Path:
    facts = [_FORMAT, *sorted((name, file.size, file.version) for name, file in files.items())]
    same = _hash(folder.url, 12)
    place = cache_dir() / "remote" / f"{same}-{_hash(json.dumps(facts), 20)}"
    with storage_errors(f"keep {shown(folder.url)} in the cache {place.parent}"):
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone(place.parent / f".{same}.lock", folder.url, not place.is_dir()):
            if not place.is_dir():
                _fetch(folder, files, place, progress)
                _sweep(place)
    with suppress(OSError):
        os.utime(place)
    return place


def _fetch(folder: RemoteFolder, files: Mapping[str, RemoteFile], place: Path, progress: Progress | None) -> None:
    """Fetches file by file, so that an interrupted start goes on where it stopped; the folder is renamed at the end."""
    scratch = place.with_name(f".{place.name}.part")
    missing = {name: file for name, file in files.items() if not (scratch / name).is_file()}
    total, done = (sum(file.size or 0 for file in group.values()) for group in (files, missing))
    done = total - done
    scratch.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(scratch).free
    if total - done > free:
        raise UserError(
            f"{shown(folder.url)} has {(total - done) / _MB:,.0f} MB to fetch, but {place.parent} has room for "
            f"{free / _MB:,.0f} MB: free some space, or set SECATEUR_CACHE to another disk."
        )
    stage = f"Fetching {shown(folder.url)} (MB)"
    if progress is None:
        logging.getLogger(__name__).warning("Fetching %s (%.0f MB).", shown(folder.url), total / _MB)
    for batch in _batches(missing):
        if progress is not None:
            progress(stage, done // _MB, max(1, total // _MB + 1))
        beside = [scratch / f"{name}.{os.getpid()}.new" for name in batch]
        try:
            folder.fetch(list(batch.values()), beside)
            for name, path in zip(batch, beside, strict=True):
                os.replace(path, scratch / name)
        except (UserError, OSError):
            if not place.is_dir():
                raise
        finally:
            for path in beside:
                path.unlink(missing_ok=True)
        if place.is_dir():
            break  # where locks do not work, another process was first and took the folder away
        done += sum(file.size or 0 for file in batch.values())
    if progress is not None:
        progress(stage, total // _MB + 1, total // _MB + 1)
    try:
        os.rename(scratch, place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(scratch, ignore_errors=True)


def _batches(files: Mapping[str, RemoteFile]) -> Iterator[dict[str, RemoteFile]]:
    batch: dict[str, RemoteFile] = {}
    size = 0
    for name, file in files.items():
        batch[name] = file
        size += file.size or 0
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


@contextmanager
def _alone(path: Path, url: str, needed: bool) -> Iterator[None]:
    """Waits while another process fetches the same; where the disk knows no locks, both do."""
    if fcntl is None or not needed:
        yield
        return
    with path.open("a") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.getLogger(__name__).warning("Another process fetches %s: waiting for it.", shown(url))
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield


def _sweep(place: Path) -> None:
    """Removes what the URL held before, unless somebody has used it during the last day."""
    same = place.name.partition("-")[0]
    for left in [*place.parent.glob(f"{same}-*"), *place.parent.glob(f".{same}-*.part")]:
        with suppress(OSError):
            if left != place and time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
