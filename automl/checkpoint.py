"""The checkpoint of a search: one safetensors file, arrays plus JSON, replaced after each episode, never pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from agents.protocol import AgentState
from automl.files import storage_errors, write_atomic
from compressors.errors import UserError

VERSION = 1
_KEY = "secateur"


@dataclass(frozen=True)
class Snapshot:
    """What a search needs, besides its ledger, to go on as if it had never stopped.

    The fronts that the episodes in flight were given are not here: they follow from the ledger.

    Attributes:
        fingerprint: Fingerprint of the search's configuration and net.
        next_episode: The first episode that has not been learned from; also the number of ledger lines it counts on.
        agent: The agent's complete state, with the behaviours it has issued.
    """

    fingerprint: str
    next_episode: int
    agent: AgentState


def save_checkpoint(path: Path, snapshot: Snapshot) -> None:
    """Writes a checkpoint; a crash or a full disk leaves the one before it.

    Raises:
        UserError: The disk is full or not writable.
    """
    # np.require leaves 0-d arrays 0-d, which ascontiguousarray does not; safetensors writes the raw memory.
    arrays = {name: np.require(array, requirements="C") for name, array in snapshot.agent.arrays.items()}
    facts = {
        "version": VERSION,
        "fingerprint": snapshot.fingerprint,
        "next_episode": snapshot.next_episode,
        "agent": snapshot.agent.meta,
    }
    write_atomic(path, save(arrays, {_KEY: json.dumps(facts)}))


def load_checkpoint(path: Path, fingerprint: str) -> Snapshot | None:
    """Reads a checkpoint.

    Args:
        path: The file.
        fingerprint: What the checkpoint must belong to.

    Returns:
        The checkpoint, or None where there is none yet.

    Raises:
        UserError: It is damaged, of another version, or of another search.
    """
    if not path.exists():
        return None
    with storage_errors(f"read the checkpoint {path}"):
        data = path.read_bytes()
    try:
        arrays = load(data)
        header = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + header])["__metadata__"][_KEY])
        found = (facts["version"], facts["fingerprint"], int(facts["next_episode"]), facts["agent"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a checkpoint of a search, or is damaged ({error}). Restore it from a copy, or delete it "
            "together with trials.jsonl to start this search again."
        ) from None
    version, owner, next_episode, meta = found
    if version != VERSION:
        raise UserError(f"{path} has checkpoint version {version}, this Secateur reads {VERSION}. Start a new search.")
    if owner != fingerprint:
        raise UserError(
            f"{path} belongs to a search with another configuration or net (fingerprint {str(owner)[:12]}, here "
            f"{fingerprint[:12]}). Resume with the configuration in config.json, or start a new run."
        )
    return Snapshot(str(owner), next_episode, AgentState(arrays=arrays, meta=meta))
