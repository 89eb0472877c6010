"""From a local copy to its remote run: what has changed, in an order that leaves a run to resume at any moment.

The ledger goes before the checkpoint that counts on its lines, a member's net before the file that says it is finished,
and the front last.
"""

from __future__ import annotations

from collections.abc import Callable

from automl.files import storage_errors
from automl.remote.copies import CHECKPOINT, LEDGER, Seen, State, pending, state_of
from automl.remote.folder import RemoteFolder
from automl.remote.lease import Lease
from automl.runs import Run

Moved = Callable[[str, int], None]
"""Is told of each file and its size in bytes before it is sent."""


def push(run: Run, *, only: tuple[str, ...] = (), moved: Moved | None = None) -> None:
    """Sends what has changed here since both sides had the same.

    Args:
        run: The local copy, whose lease this process holds; may be written to meanwhile, as a search does.
        only: Names of files; without them all.
        moved: Is told of each file.

    Raises:
        LeaseLost: Another machine has taken the run over.
        UserError: The remote refuses; what was sent until then stays sent.
    """
    state, remote = state_of(run), RemoteFolder(run.remote)
    Lease(run.remote, state.owner).require_mine()
    names = [name for name in pending(run, state) if not only or name in only]
    trials = [name for name in names if name in (LEDGER, CHECKPOINT)]
    try:
        for name in names:
            if name not in trials:
                _push_file(run, name, state, remote, moved)
            elif name == trials[0]:
                _push_trials(run, state, remote, moved)
    finally:
        state.save()


def seal(run: Run) -> None:
    """Notes what the remote calls the files that were sent, so that nobody here fetches them again.

    Asks the remote nothing where all is noted.

    Raises:
        UserError: The remote refuses.
    """
    state = state_of(run)
    if all(seen.version for seen in state.seen.values()):
        return
    for name, file in RemoteFolder(run.remote).files().items():
        seen = state.seen.get(name)
        if seen is not None and not seen.version and seen.size == file.size:
            seen.version = file.version
    state.save()


def send_report(run: Run) -> None:
    """Sends the report of a remote run alone; it may be written again while another machine searches the run.

    Raises:
        UserError: The remote refuses.
    """
    if run.remote and run.report.exists():
        RemoteFolder(run.remote).send(run.report.name, run.report)


def _push_file(run: Run, name: str, state: State, remote: RemoteFolder, moved: Moved | None) -> None:
    path = run.folder / name
    if not path.exists():
        return
    facts = path.stat()
    if moved is not None:
        moved(name, facts.st_size)
    remote.send(name, path)
    state.seen[name] = Seen(size=facts.st_size, mtime_ns=facts.st_mtime_ns)


def _push_trials(run: Run, state: State, remote: RemoteFolder, moved: Moved | None) -> None:
    # Read in the reverse of the order in which they are written, so that the ledger has all that the checkpoint counts.
    parts = []
    for path in (run.checkpoint, run.ledger):
        if path.exists():
            facts = path.stat()
            with storage_errors(f"read {path}"):
                parts.append((path.name, facts, path.read_bytes()))
    for name, facts, data in reversed(parts):
        if moved is not None:
            moved(name, len(data))
        remote.write(name, data)
        state.seen[name] = Seen(size=facts.st_size, mtime_ns=facts.st_mtime_ns)
