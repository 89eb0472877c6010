"""What a trial of a sweep does: one search in a process of the cluster, whose failure stops no other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from automl.cluster.plan import WorkerPlan
from automl.cluster.sweep_config import Search
from automl.cluster.sweep_folder import SweepPlace
from automl.cluster.sweep_room import SweepPlan
from automl.config import SearchConfig, parse
from automl.runs import Run
from compressors.errors import UserError

_RELEASE_S = 30.0
"""How long a search waits for the run folder that a process just killed may still hold."""


def job_of(search: Search, plan: SweepPlan, place: SweepPlace) -> dict[str, Any]:
    """All that a trial is told, as plain values."""
    workers = asdict(plan.of_one_search()) if plan.workers else None
    return {
        "name": search.name,
        "folder": str(place.folder),
        "config": search.config.model_dump(mode="json"),
        "threads": plan.threads,
        "cpus": plan.cpus_per_worker,
        "workers": workers,
        "device": place.device,
        "uri": place.uri if place.track else None,
        "command": place.command,
    }


def search_one(job: Mapping[str, Any]) -> dict[str, str]:
    """Runs or goes on with one search; this is what a trial does, in a process of the cluster.

    Args:
        job: As the driver made it.

    Returns:
        Why it failed, under `failure`; empty if it did not.
    """
    from rich.console import Console

    from automl.cli.console import ConsoleWatch
    from automl.pipeline import run_search
    from automl.place import Place
    from automl.progress import LineProgress

    folder = Path(job["folder"])
    run = Run(folder / job["name"])
    if run.folder.is_dir():
        _wait_for(run)
    going_on = run.config.exists()
    path = folder / "logs" / f"{job['name']}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            console = Console(file=file, width=200)
            place = Place(
                runs=folder,
                name=None if going_on else run.search_id,
                tracking_uri=job["uri"],
                track=job["uri"] is not None,
                threads=job["threads"] or (None if going_on else job["cpus"]),
                workers=WorkerPlan(**job["workers"]) if job["workers"] else None,
                device=job["device"],
                command=job["command"],
                watch=ConsoleWatch(console),
                progress=LineProgress(console),
            )
            try:
                run_search(parse(SearchConfig, job["config"]), place, run if going_on else None)
            except UserError as error:
                console.print(str(error), markup=False, highlight=False, soft_wrap=True)
                return {"failure": str(error)}
            except Exception:
                console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
                raise
    except Exception as error:  # a mistake in one search, or a full disk, must not stop the others
        return {"failure": f"{last_line(error)} See {path}."}
    return {"failure": ""}


def _wait_for(run: Run) -> None:
    """Waits until a process that was killed a moment ago has let go of the run."""
    until = time.monotonic() + _RELEASE_S
    while time.monotonic() < until:
        with suppress(UserError), run.lock():
            return
        time.sleep(0.2)


def last_line(error: BaseException) -> str:
    """The kind of an error and the end of what it says, where remote errors say what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else f"{type(error).__name__}."
