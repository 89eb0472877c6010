"""Who may write to a remote run: a lease, one small object with its owner and a time, renewed while the owner lives.

It is as good as the store's "create unless it is there", which is exact on S3, Google's store and local disks, and as
the clocks of the machines, which must agree within a minute. What it guards is itself harmless to lose: two searches of
one run make the same trials.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from automl.remote.folder import RemoteFolder
from automl.remote.url import joined
from automl.run_lock import RunInUse
from compressors.errors import UserError

LEASE = "lease.json"
"""Name of the object in the run's folder."""

RENEW_S = 30.0
"""Seconds from renewal to renewal."""

DEAD_S = 180.0
"""An owner that was not heard of for so many seconds is dead."""

_SETTLE_S = 1.0
_PATIENCE_S = 3.0


class Holder(BaseModel):
    """The content of a lease.

    Attributes:
        owner: Of which local copy of the run.
        host: Its machine, for people.
        process: Its process, for people.
        time: Of the last renewal, seconds since 1970.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: str
    host: str
    process: int
    time: float


class LeaseLost(UserError):
    """Another process has taken a remote run over."""


class Lease:
    """The lease of a remote run for one local copy of it.

    The process that asks holds the local copy's own lock, so an earlier process of the same copy is dead.

    Args:
        url: The remote run.
        owner: Name of the local copy, known to no other.
    """

    def __init__(self, url: str, owner: str) -> None:
        self._url, self._owner = url, owner
        self._remote = RemoteFolder(url)

    def require_free(self) -> None:
        """Checks that no other copy of the run is being searched.

        Raises:
            RunInUse: One is; says by whom, and until when.
        """
        found = self._holder()
        if found is not None and found.owner != self._owner and time.time() - found.time <= DEAD_S:
            raise self._in_use(found)

    def require_mine(self) -> None:
        """Checks that nobody else took the lease.

        Raises:
            LeaseLost: Somebody did.
        """
        found = self._holder()
        if found is not None and found.owner != self._owner:
            raise LeaseLost(f"process {found.process} on {found.host} has taken it over")

    def claim(self) -> None:
        """Takes the lease.

        Raises:
            RunInUse: Another copy of the run is being searched.
            UserError: The remote refuses.
        """
        if self._remote.create(LEASE, self._content()):
            return
        before = self._holder()
        self.require_free()
        self._remote.write(LEASE, self._content())
        if before is None or before.owner != self._owner:
            # Two that find a dead owner at once both write; the later one stays.
            time.sleep(_SETTLE_S)
            self.require_free()

    def renew(self) -> None:
        """Says that the owner lives.

        Raises:
            LeaseLost: Another process took the lease meanwhile.
        """
        self.require_mine()
        self._remote.write(LEASE, self._content())

    def release(self) -> None:
        """Gives the lease back, if it is still this copy's."""
        self.require_mine()
        self._remote.remove(LEASE)

    def _holder(self) -> Holder | None:
        data = self._remote.read(LEASE)
        if data is None:
            return None
        try:
            return Holder.model_validate_json(data)
        except ValidationError:
            return None  # half-written by a process that died over it

    def _content(self) -> bytes:
        holder = Holder(owner=self._owner, host=socket.gethostname(), process=os.getpid(), time=time.time())
        return holder.model_dump_json().encode()

    def _in_use(self, found: Holder) -> RunInUse:
        age = max(0.0, time.time() - found.time)
        return RunInUse(
            f"The run {self._url} is in use by process {found.process} on {found.host}, last heard of {age:.0f} s ago. "
            f"Wait until it ends; if it has died, the run is free in {DEAD_S - age:.0f} s, or at once when you delete "
            f"{joined(self._url, LEASE)}."
        )


@contextmanager
def held(lease: Lease) -> Iterator[None]:
    """Holds a lease and renews it; a remote that is down meanwhile stops nothing.

    Raises:
        UserError: As `Lease.claim`.
    """
    lease.claim()
    ending = threading.Event()

    def keep() -> None:
        while not ending.wait(RENEW_S):
            try:
                lease.renew()
            except LeaseLost:
                return
            except UserError:
                continue

    def release() -> None:
        with suppress(UserError):
            lease.release()

    keeper = threading.Thread(target=keep, name="secateur-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ending.set()
        # In a thread, since a store that hangs must not keep the process from its end.
        releasing = threading.Thread(target=release, daemon=True)
        releasing.start()
        releasing.join(_PATIENCE_S)
