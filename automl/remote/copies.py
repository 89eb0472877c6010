"""Local copies of remote runs: where they lie, and what of them the remote has."""

from __future__ import annotations

import hashlib
import re
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from automl.data.cache import cache_dir
from automl.files import write_atomic
from automl.remote.lease import LEASE
from automl.remote.url import joined
from automl.runs import STATE, Run

# The weights are those that a job brought along.
_OF_ONE_SIDE = ("lock", LEASE, "weights")

CONFIG, LEDGER, CHECKPOINT, FRONT = "config.json", "trials.jsonl", "checkpoint.safetensors", "front.json"


class Seen(BaseModel):
    """What a file was when both sides had the same.

    Attributes:
        size: Of the local file, in bytes.
        mtime_ns: When the local file was changed.
        version: Of the remote file; empty where it was written and not looked at since.
    """

    model_config = ConfigDict(extra="forbid")

    size: int
    mtime_ns: int
    version: str = ""


class State(BaseModel):
    """The file `.mirror.json` of a local copy.

    Attributes:
        url: The remote run.
        folder: Where the copy is; in a copy of the copy this is wrong, so that one is a plain run.
        owner: Name of the copy, for the lease.
        seen: Files by name.
    """

    model_config = ConfigDict(extra="forbid")

    url: str
    folder: str
    owner: str
    seen: dict[str, Seen] = {}

    def save(self) -> None:
        """Writes the file."""
        write_atomic(Path(self.folder) / STATE, self.model_dump_json().encode())


def state_in(folder: Path) -> State | None:
    """What a folder is a local copy of; None: of nothing."""
    try:
        state = State.model_validate_json((folder / STATE).read_bytes())
    except (OSError, ValidationError):
        return None
    return state if Path(state.folder) == folder.resolve() else None


def state_of(run: Run) -> State:
    """The state of a run's local copy, a fresh one if there is none."""
    state = state_in(run.folder)
    if state is None or state.url != run.remote:
        state = State(url=run.remote, folder=str(run.folder.resolve()), owner=uuid.uuid4().hex)
        state.save()
    return state


def copies_of(url: str) -> Path:
    """The local folder of the copies of all runs in a remote folder."""
    plain = joined(url)
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", plain.rpartition("/")[2]).strip("-.") or "runs"
    return cache_dir() / "runs" / f"{short}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"


def pending(run: Run, state: State | None = None) -> list[str]:
    """Files that the remote does not have as they are here, in the order in which they must be sent."""
    state = state or state_of(run)
    # What must be sent last is looked for first: it says that the rest is complete.
    late = [path for path in (run.front, *sorted(run.nets.glob("*.json"))) if path.exists()]
    found = [*late, *(path for path in sorted(run.folder.rglob("*")) if path.is_file() and path not in late)]
    names = [path.relative_to(run.folder).as_posix() for path in found]
    unsent = [name for name in names if travels(name) and changed(run.folder / name, state.seen.get(name))]
    return sorted(unsent, key=rank)


def travels(name: str) -> bool:
    """Whether a file of a run belongs to both sides."""
    first = name.partition("/")[0]
    return first not in _OF_ONE_SIDE and not any(part.startswith(".") for part in name.split("/"))


def rank(name: str) -> tuple[int, str]:
    """The order in which files are sent and taken: whatever counts on others after them."""
    first = {CONFIG: 0, LEDGER: 1, CHECKPOINT: 2, FRONT: 9}.get(name)
    return (first if first is not None else 5 if name.startswith("nets/") and name.endswith(".json") else 4, name)


def changed(path: Path, seen: Seen | None) -> bool:
    """Whether a file is here and differs from what both sides had."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return False
    return seen is None or (seen.size, seen.mtime_ns) != (facts.st_size, facts.st_mtime_ns)
