"""Where a search runs and what it leaves behind: none of this changes its results."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Protocol

from automl.cluster.plan import WorkerPlan
from automl.progress import NullProgress, SearchProgress
from automl.runs import Run
from compressors.errors import UserError

_PACKAGES = ("secateur", "torch", "torchvision", "stable-baselines3", "gymnasium", "numpy")


class Watch(Protocol):
    """Shows a person what goes on."""

    def stage(self, name: str, done: int, total: int | None) -> None:
        """Progress of one stage; `total` None where nobody knows."""

    def note(self, message: str) -> None:
        """One line."""


class NullWatch:
    """Shows nothing."""

    def stage(self, name: str, done: int, total: int | None) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Place:
    """Where a search runs.

    Attributes:
        runs: Folder of all runs.
        remote: URL of a folder where all runs are kept as well; empty: nowhere.
        name: Name of the run; None: net, data and a number.
        tracking_uri: Of MLflow; None: SQLite in the runs folder.
        track: Whether MLflow is told at all.
        threads: Threads of torch; None: those of a worker where there are workers, else as they are, or as the run
            that goes on was started with.
        workers: Processes that play episodes; None: this one plays them.
        device: `auto`, `cpu`, `cuda`, ...
        command: What the user typed, for the record.
        watch: Shows stages.
        progress: Shows the search.
    """

    runs: Path = Path("runs")
    remote: str = ""
    name: str | None = None
    tracking_uri: str | None = None
    track: bool = True
    threads: int | None = None
    workers: WorkerPlan | None = None
    device: str = "auto"
    command: str = ""
    watch: Watch = field(default_factory=NullWatch)
    progress: SearchProgress = field(default_factory=NullProgress)


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def settle(threads: int | None, device: str) -> str:
    """Sets threads and memory for many forward passes, and says which device to use.

    Raises:
        UserError: No such device here.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    _keep_memory()
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or "unknown").splitlines()[0]
        raise UserError(f"Device {device!r} cannot be used here: {reason} Choose cpu or auto.") from error
    return device


def _keep_memory() -> None:
    """Keeps freed feature maps in the process: with glibc's defaults each pass maps and clears them anew."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)


def write_reports(run: Run) -> list[Path]:
    """Has every installed report writer (entry points `secateur.reports`) write about a run."""
    written = []
    for entry in entry_points(group="secateur.reports"):
        write: Callable[[Path], Path] = entry.load()
        written.append(write(run.folder))
    return written
