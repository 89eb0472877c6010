"""The folder of a sweep: where it lies, what it was asked for, and what of that is finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.cluster.sweep_config import Search
from automl.files import require_writable, storage_errors, write_atomic
from automl.runs import Run, require_free
from automl.tracking import default_uri
from compressors.errors import UserError

Note = Callable[[str], None]


@dataclass(frozen=True)
class SweepPlace:
    """Where a sweep runs and what it leaves behind.

    Attributes:
        runs: Folder of all runs; the sweep is a folder in it, its searches are run folders in that.
        name: Of the sweep.
        tracking_uri: Of MLflow; None: SQLite in the sweep's folder.
        track: Whether MLflow is told at all.
        device: `auto`, `cpu`, `cuda`, ...
        command: What the user typed, for the record.
        note: Gets lines about how the sweep goes.
    """

    runs: Path
    name: str
    tracking_uri: str | None = None
    track: bool = True
    device: str = "auto"
    command: str = ""
    note: Note = lambda message: None

    @property
    def folder(self) -> Path:
        """Of the sweep, whole."""
        return (self.runs / self.name).absolute()

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return self.tracking_uri or default_uri(self.folder)


def open_sweep(place: SweepPlace, searches: Sequence[Search]) -> list[Search]:
    """Makes the sweep's folder, or checks that the one there is of the same sweep, and records what is searched.

    Args:
        place: Where.
        searches: All searches of the sweep.

    Returns:
        Those that are not finished.

    Raises:
        UserError: The folder cannot be written to or belongs to something else, or a search was begun with other
            settings.
    """
    require_free(place.runs, place.name)
    require_writable(place.folder, f"make a sweep in {place.runs}")
    recorded = _recorded(place.folder)
    plans = {search.name: search.config.model_dump(mode="json") for search in searches}
    for name, plan in plans.items():
        if name in recorded["searches"] and recorded["searches"][name] != plan:
            raise UserError(
                f"The sweep {place.folder} was started with other settings: in {name} "
                f"{_difference(recorded['searches'][name], plan)}. Give the sweep another --name, or the old settings."
            )
    recorded["searches"] |= plans
    with storage_errors(f"make a sweep in {place.runs}"):
        place.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(place.folder / "plan.json", (json.dumps(recorded, indent=1) + "\n").encode())
    return [search for search in searches if not Run(place.folder / search.name).front.exists()]


def recorded_staleness(place: SweepPlace) -> int | None:
    """The staleness that the searches of an earlier call were given, which later ones keep."""
    found = [config["loop"]["staleness"] for config in _recorded(place.folder)["searches"].values()]
    return int(found[0]) if found else None


def _recorded(folder: Path) -> dict[str, Any]:
    path = folder / "plan.json"
    if not path.exists():
        return {"version": 1, "searches": {}}
    with storage_errors(f"read {path}"):
        text = path.read_text()
    try:
        found: dict[str, Any] = json.loads(text)
        if found["version"] == 1 and isinstance(found["searches"], dict):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is damaged. Restore it from a copy, or give the sweep another --name.")


def _difference(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                return _difference(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))
    return f"{path} was {old!r}, here {new!r}"
