"""The lock of a run folder: one search at a time, also when the file system knows no locks but a person does."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from automl.files import storage_errors
from compressors.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows, where a run is not guarded against a second writer
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class RunInUse(UserError):
    """Another process writes to the run."""


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[TextIO]:
    """Holds a run folder's lock, which the system drops with the process, however it ends.

    Args:
        folder: The run folder.
        shared: Together with others that ask for the same.

    Raises:
        RunInUse: Another process holds it.
        UserError: The folder cannot be written to.
    """
    with storage_errors(f"write to the run {folder}"):
        file = (folder / "lock").open("a+")
    with file:
        if fcntl is not None:
            _flock(file, folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # The file stays: were it removed, one process could lock the old file and another the new.
        yield file


def _flock(file: TextIO, folder: Path, how: int) -> None:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        file.seek(0)
        raise RunInUse(
            f"The run {folder} is in use by process {file.read().strip() or 'unknown'}. Wait until it ends, or stop it."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise UserError(
                f"Cannot lock the run {folder}: {error.strerror}. Check the disk, then try again."
            ) from None
        # As on some network file systems.
        logging.getLogger(__name__).warning(
            "The file system of %s knows no locks, so nothing keeps a second process from this run: start none.", folder
        )
