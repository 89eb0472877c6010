"""Files that survive a crash: whole or not at all, and one clear line when the disk refuses."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compressors.errors import UserError

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "change the permissions or choose another folder",
    errno.EPERM: "change the permissions or choose another folder",
}


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns the operating system's refusal into one line.

    Args:
        what: What is being done, as in `Cannot {what}`.

    Raises:
        UserError: An `OSError` came from the block.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = _ADVICE.get(error.errno or 0, "check the path and the disk")
        raise UserError(f"Cannot {what}: {reason}. Please {advice}, then try again.") from error


def require_writable(folder: Path, what: str) -> None:
    """Checks that files can be made in a folder, or in the nearest that exists above it; leaves nothing behind.

    Args:
        folder: The folder; need not exist.
        what: What would be done there, as in `Cannot {what}`.

    Raises:
        UserError: They cannot.
    """
    with storage_errors(what):
        place = folder.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces a file such that a crash at any moment leaves either the old content or the new.

    Args:
        path: The file.
        data: Its new content.

    Raises:
        UserError: The disk refuses; the old content stays.
    """
    temporary = _beside(path)
    with storage_errors(f"write {path}"):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def _beside(path: Path) -> Path:
    """A name of its own for each writing: two processes may write one file at once, and the later one stays."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # Some network file systems sync files alone.
    finally:
        os.close(descriptor)
