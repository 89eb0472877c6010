"""A sweep in MLflow: one experiment with a run for each search and one for the ranking; doing so again adds nothing.

The trials of each search are in its own experiment, which the search itself writes, see `automl.tracking`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automl.tracking import quiet_mlflow, tracking_errors
from compressors.errors import UserError

_WORDS = ("net", "target", "agent", "compressor", "seed")
_NUMBERS = ("rank", "accuracy", "accuracy_search", "accuracy_test", "cost", "hypervolume", "trials", "seconds")


def begin_sweep(uri: str, folder: Path) -> None:
    """Makes the sweep's experiment, and with it the database, before many searches would do so at once.

    Args:
        uri: Tracking URI.
        folder: The sweep's; its name is the experiment's.

    Raises:
        UserError: The server cannot be reached, or the experiment is something else's.
    """
    with tracking_errors(uri):
        _experiment(quiet_mlflow().MlflowClient(tracking_uri=uri), uri, folder)


def track_sweep(uri: str, folder: Path, rows: Sequence[Mapping[str, Any]], ranking: str, files: Sequence[Path]) -> None:
    """Writes how the searches did: a run for each finished or failed one, and a run `ranking` with the tables.

    Args:
        uri: Tracking URI.
        folder: The sweep's.
        rows: The fields of `SearchRow`.
        ranking: The table as Markdown, also the experiment's description.
        files: Are kept with the ranking.

    Raises:
        UserError: The server cannot be reached, or the experiment is something else's.
    """
    with tracking_errors(uri):
        mlflow = quiet_mlflow()
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, uri, folder)
        known = {run.data.tags.get("search_id", ""): run for run in _runs(client, experiment)}
        for row in rows:
            if row["status"] != "unfinished":
                _write(mlflow, client, experiment, known.get(row["name"]), row)
        found = known.get(folder.name)
        digest = hashlib.sha256("".join([ranking, *(path.read_text() for path in files)]).encode()).hexdigest()
        if found is not None and found.data.tags.get("digest") == digest:
            return
        run_id = found.info.run_id if found else _new(client, experiment, "ranking", folder.name, "ranking")
        done = [row for row in rows if row["status"] == "finished"]
        counts = {"searches": len(rows), "finished": len(done)}
        best = {"accuracy": max(row["accuracy"] for row in done)} if done else {}
        client.log_batch(run_id, [mlflow.entities.Metric(key, float(n), 0, 0) for key, n in (counts | best).items()])
        client.log_text(run_id, ranking, "ranking.md")
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_experiment_tag(experiment, "mlflow.note.content", ranking)
        client.set_tag(run_id, "digest", digest)
        client.set_terminated(run_id, "FINISHED")


def _experiment(client: Any, uri: str, folder: Path) -> str:
    found = client.get_experiment_by_name(folder.name)
    if found is None:
        artifacts = (folder / "mlartifacts" / folder.name).as_uri() if uri.startswith("sqlite:") else None
        return str(client.create_experiment(folder.name, artifacts, {"kind": "sweep", "folder": str(folder)}))
    if found.lifecycle_stage != "active" or found.tags.get("kind") != "sweep":
        raise UserError(
            f"The MLflow experiment {folder.name!r} at {uri} was deleted, or is no sweep's. Restore or rename it "
            "there, or give the sweep another --name."
        )
    return str(found.experiment_id)


def _runs(client: Any, experiment: str) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _write(mlflow: Any, client: Any, experiment: str, found: Any, row: Mapping[str, Any]) -> None:
    facts = {name: row[name] for name in ("rank", "accuracy", "hypervolume", "trials", "status", "failure")}
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    if found is not None and found.data.tags.get("digest") == digest:
        return
    run_id = found.info.run_id if found else _new(client, experiment, "search", row["name"], row["name"])
    entities = mlflow.entities
    numbers = [entities.Metric(name, float(row[name]), 0, 0) for name in _NUMBERS if row[name] is not None]
    words = [entities.Param(name, str(row[name])) for name in _WORDS]
    tags = {"status": row["status"], "failure": row["failure"][:4000]}
    client.log_batch(run_id, numbers, words, [entities.RunTag(name, value) for name, value in tags.items()])
    client.set_tag(run_id, "digest", digest)
    client.set_terminated(run_id, "FINISHED" if row["status"] == "finished" else "FAILED")


def _new(client: Any, experiment: str, kind: str, search: str, name: str) -> str:
    tags = {"kind": kind, "search_id": search}
    return str(client.create_run(experiment, int(time.time() * 1000), tags, name).info.run_id)
