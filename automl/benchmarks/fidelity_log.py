"""What the fidelity benchmark has measured so far: one JSON line for each policy and criterion, in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from automl.files import require_writable, storage_errors, write_atomic
from compressors.errors import UserError
from compressors.profile import Floats


class Measurement(BaseModel):
    """One criterion of one policy.

    Attributes:
        policy: Number of the policy, from 0.
        criterion: What was measured.
        score: More is better.
        seconds: What it took.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: int
    criterion: str
    score: float
    seconds: float


class FidelityLog:
    """The measurements in a folder: reads what is there, then appends.

    Args:
        folder: Holds `settings.json` and `measurements.jsonl`; made where missing.
        settings: What measurements must share to be compared, ready for JSON.

    Attributes:
        criteria: All names, in the order in which they were first measured.

    Raises:
        UserError: The folder holds measurements under other settings, cannot be written to, or is damaged.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / "measurements.jsonl"
        self.criteria: list[str] = []
        self._found: dict[tuple[int, str], Measurement] = {}
        require_writable(folder, f"write to {folder}")
        with storage_errors(f"write to {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        self._agree(folder / "settings.json", json.loads(json.dumps(settings)))
        if self.path.exists():
            self._read()

    def _agree(self, path: Path, settings: dict[str, Any]) -> None:
        if not path.exists():
            if self.path.exists():
                raise UserError(f"{self.path} has no settings.json beside it: restore that, or name another folder.")
            write_atomic(path, (json.dumps(settings, indent=1) + "\n").encode())
            return
        try:
            with storage_errors(f"read {path}"):
                held = json.loads(path.read_bytes())
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            held = None
        if not isinstance(held, dict):
            raise UserError(f"{path} must hold the settings of a benchmark, but is damaged: name another folder.")
        other = [name for name in (*settings, *held) if held.get(name) != settings.get(name)]
        if other:
            raise UserError(
                f"{path.parent} holds measurements that cannot be compared with these, since they differ in "
                f"{', '.join(dict.fromkeys(other))}: give the same options again, or name another folder with --out."
            )

    def _read(self) -> None:
        with storage_errors(f"read {self.path}"):
            data = self.path.read_bytes()
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                self._hold(Measurement.model_validate_json(line))
            except ValidationError:
                raise UserError(
                    f"{self.path}, line {number} is not a measurement: delete the line, and it is measured again."
                ) from None
        if rest:  # a process was killed while it wrote
            with storage_errors(f"cut {self.path}"), self.path.open("r+b") as file:
                file.truncate(len(data) - len(rest))

    def _hold(self, found: Measurement) -> None:
        self._found[found.policy, found.criterion] = found
        if found.criterion not in self.criteria:
            self.criteria.append(found.criterion)

    def add(self, found: Measurement) -> None:
        """Writes one line and returns when it is on the disk."""
        line = json.dumps(found.model_dump(), allow_nan=False) + "\n"
        with storage_errors(f"write to {self.path}"), self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._hold(found)

    def find(self, policy: int, criterion: str) -> Measurement | None:
        """What was measured, if it was."""
        return self._found.get((policy, criterion))

    def of(self, criterion: str, policies: int) -> list[Measurement] | None:
        """A criterion of the first so many policies, or None where one is missing."""
        found = [self._found.get((policy, criterion)) for policy in range(policies)]
        return None if None in found else [one for one in found if one is not None]

    def seconds(self, criterion: str) -> list[float]:
        """What a criterion took, for all policies that it was measured on."""
        return [found.seconds for (_, name), found in self._found.items() if name == criterion]


def scores_of(measurements: list[Measurement]) -> Floats:
    """Scores as an array."""
    return np.array([found.score for found in measurements], dtype=np.float64)
