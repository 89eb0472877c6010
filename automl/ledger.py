"""The ledger `trials.jsonl`: one JSON line for each trial, in episode order, and the truth about a search.

Everything else that shows trials (MLflow, the report, the front) is derived from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from automl.files import storage_errors
from compressors.errors import UserError

DRIVER_PHASES = ("propose", "learn", "record")
"""The phases of `TrialRecord.seconds` that the searching process spends itself, wherever the episode is played."""


class TrialPolicy(BaseModel):
    """What an episode decided.

    Attributes:
        kept: Units kept of each group, in the order of the layer table's groups.
        weight_bits: Of each layer, in the order of the layer table's layers; 32 is not quantised.
        activation_bits: Of each layer's input; 32 is not quantised.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept: tuple[int, ...]
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]


class TrialRecord(BaseModel):
    """One episode's result.

    Attributes:
        trial_id: Name of the trial inside its search; equal for equal runs.
        episode: From 0.
        target: What each cost had to reach, by kind: a ratio to the original where at most 1, otherwise absolute.
        actions: Executed actions in [-1, 1], one list for each step.
        policy: What was decided.
        costs: `macs`, `flops`, `params`, `size_bytes` and `bops` of the compressed net.
        accuracy_search: Accuracy on the search split; for a failed trial the floor, 0 where the metric is not negative.
        l2: Sum of the relative squared L2 errors of the decisions.
        reward: Sum of the episode's rewards.
        behaviour: Name of what chose the actions, e.g. `ddpg` or a warm-up.
        status: `failed` where the evaluation raised an error or gave no finite number; `stopped` where it ended early,
            its accuracy an estimate below what the search had found within the target.
        error: Why it failed, else empty.
        images: How many search images the accuracy rests on; fewer than all where the evaluation stopped early because
            the trial could not matter, 0 where nobody counts (a metric of one's own, ledgers of older versions).
        seconds: By phase: `propose` (the agent's part before the episode), `rollout` (choosing, without the
            evaluation), the phases of the evaluation, `learn`, and `record` (the previous trial's line and checkpoint,
            since its own are not yet written).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_id: str
    episode: int
    target: dict[str, float]
    actions: tuple[tuple[float, ...], ...]
    policy: TrialPolicy
    costs: dict[str, int]
    accuracy_search: float
    l2: float
    reward: float
    behaviour: str
    status: Literal["done", "stopped", "failed"] = "done"
    error: str = ""
    images: int = 0
    seconds: dict[str, float] = {}

    def line(self) -> str:
        """The record as one line of JSON without its newline; floats are exact."""
        return json.dumps(self.model_dump(mode="python"), separators=(",", ":"), allow_nan=False)


def trial_id(episode: int) -> str:
    """The name of an episode's trial, e.g. `t00017`."""
    return f"t{episode:05d}"


def comparable(line: str) -> str:
    """A ledger line without its times: equal for equal runs."""
    fields: dict[str, Any] = json.loads(line)
    fields.pop("seconds", None)
    return json.dumps(fields, separators=(",", ":"))


def _parse(path: Path, data: bytes) -> tuple[list[TrialRecord], list[int], int]:
    """Records, the offset behind each one's line, and how many bytes of a half-written line follow."""
    *complete, rest = data.split(b"\n")
    records: list[TrialRecord] = []
    ends: list[int] = []
    position = 0
    for number, line in enumerate(complete, start=1):
        position += len(line) + 1
        try:
            record = TrialRecord.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            what = f"{'.'.join(map(str, problem['loc'])) or 'the line'}: {problem['msg']}"
            raise UserError(
                f"{path}, line {number} of {len(complete)} is not a trial ({what}). Restore the file from a copy, "
                f"or cut it to its first {number - 1} lines and start a new search."
            ) from None
        if record.episode != number - 1:
            raise UserError(
                f"{path}, line {number} holds episode {record.episode} where episode {number - 1} must stand: "
                "lines are missing or moved. Restore the file from a copy."
            )
        records.append(record)
        ends.append(position)
    return records, ends, len(rest)


def read_ledger(path: Path) -> list[TrialRecord]:
    """All complete trials of a ledger that may still be written to; a half-written last line is left out.

    Args:
        path: The file; one that does not exist has no trials.

    Raises:
        UserError: The file cannot be read, or a line before the last is corrupt (its number is named).
    """
    if not path.exists():
        return []
    with storage_errors(f"read the ledger {path}"):
        data = path.read_bytes()
    return _parse(path, data)[0]


class Ledger:
    """The ledger of the one process that searches: reads what is there, then appends.

    Args:
        path: The file `trials.jsonl`; made with the first line.
        least: How many trials must be there, since a checkpoint counts on them.

    Attributes:
        records: All trials, in episode order.
        note: One line for a person when something was cut off, else empty.

    Raises:
        UserError: As `read_ledger`, or fewer than `least` trials are there.
    """

    def __init__(self, path: Path, least: int = 0) -> None:
        self.path = path
        self.note = ""
        self.records: list[TrialRecord] = []
        if least and not path.exists():
            raise UserError(f"The checkpoint knows {least} trials, but {path} does not exist. Restore it from a copy.")
        if path.exists():
            self._restore(least)

    def _restore(self, least: int) -> None:
        self.records, ends, torn = self._read()
        if len(self.records) < least:
            raise UserError(
                f"The checkpoint knows {least} trials, but {self.path} holds {len(self.records)}. Restore it from a "
                "copy."
            )
        if torn:
            self._truncate(ends[-1] if ends else 0)
            self.note = f"{self.path}: cut off a half-written line; the search runs that trial again."

    def cut(self, keep: int) -> None:
        """Cuts the ledger to its first trials, if it has more.

        Args:
            keep: How many stay.
        """
        dropped = len(self.records) - keep
        if dropped <= 0:
            return
        _, ends, _ = self._read()
        self._truncate(ends[keep - 1] if keep else 0)
        del self.records[keep:]
        self.note = (
            f"{self.path}: cut off {dropped} trial(s) newer than the checkpoint, which come out differently here; the "
            "search runs them again."
        )

    def _read(self) -> tuple[list[TrialRecord], list[int], int]:
        with storage_errors(f"read the ledger {self.path}"):
            data = self.path.read_bytes()
        return _parse(self.path, data)

    def _truncate(self, end: int) -> None:
        with storage_errors(f"cut the ledger {self.path}"), self.path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())

    def append(self, record: TrialRecord) -> None:
        """Writes one line and returns when it is on the disk.

        Raises:
            UserError: The disk is full or not writable; the ledger is left as it was.
        """
        data = (record.line() + "\n").encode()
        with storage_errors(f"write to the ledger {self.path}"), self.path.open("ab") as file:
            size = file.tell()
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise
        self.records.append(record)

    def lines(self) -> Sequence[str]:
        """The records as lines, for comparison."""
        return [record.line() for record in self.records]
