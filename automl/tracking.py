"""MLflow as a projection of a run folder: what it does not have yet is written, by `trial_id`, as often as one likes.

The only file that imports MLflow, and not before it is needed. `automl/tracker.py` does this while a search runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.archive import Archive
from automl.ledger import TrialRecord, read_ledger
from automl.runs import Run
from compressors.errors import UserError

if TYPE_CHECKING:
    from torch import nn

PolicyOf = Callable[[TrialRecord], dict[str, Any]]
ModelOf = Callable[[str], "tuple[nn.Module, Any] | None"]


def default_uri(runs_root: Path) -> str:
    """The tracking URI without a server: SQLite beside the runs."""
    return f"sqlite:///{(runs_root / 'mlflow.db').resolve()}"


def plain_policy(record: TrialRecord) -> dict[str, Any]:
    """What an episode decided, without channel indices."""
    return {"trial_id": record.trial_id, "costs": record.costs, **record.policy.model_dump(mode="json")}


def quiet_mlflow() -> Any:
    """MLflow, imported without its telemetry, its logging and its long waits."""
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_CONFIGURE_LOGGING": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


class Projection:
    """Writes a run folder into MLflow: one flat run for each trial, one summary run with the front.

    Args:
        run: The run folder.
        uri: Tracking URI.
        policy_of: The content of a trial's `policy.json`.
        model_of: The net of a front member and one example input as an array, or None where there is none.
    """

    def __init__(self, run: Run, uri: str, policy_of: PolicyOf = plain_policy, model_of: ModelOf | None = None) -> None:
        self._mlflow = quiet_mlflow()
        self._run, self._uri, self._policy_of, self._model_of = run, uri, policy_of, model_of
        self._info = run.info()
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        self._experiment = self._find_experiment()
        # A run that did not finish is completed, not made again: a killed writer leaves at most one.
        self._known: dict[str, tuple[str, bool]] = {}
        self._summary: Any = None
        for found in self._existing():
            if found.data.tags.get("kind") == "summary":
                self._summary = found
            elif name := found.data.tags.get("trial_id"):
                self._known[name] = (found.info.run_id, found.info.status == "FINISHED")

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._info.search_id)
        if found is None:
            local = self._uri.startswith("sqlite:")
            artifacts = self._run.folder.resolve().parent / "mlartifacts" / self._info.search_id
            return str(
                self._client.create_experiment(
                    self._info.search_id, artifacts.as_uri() if local else None, self._tags()
                )
            )
        if found.lifecycle_stage != "active":
            raise UserError(
                f"The MLflow experiment {self._info.search_id!r} was deleted at {self._uri}. Restore it there, or "
                "track into another URI."
            )
        owner = found.tags.get("fingerprint")
        if owner != self._info.fingerprint:
            raise UserError(
                f"The MLflow experiment {self._info.search_id!r} at {self._uri} belongs to another search. "
                "Rename it there, or track into another URI."
            )
        return str(found.experiment_id)

    def _tags(self) -> dict[str, str]:
        info = self._info
        return {"search_id": info.search_id, "fingerprint": info.fingerprint, "net": info.net}

    def _existing(self) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def write_trial(self, record: TrialRecord) -> bool:
        """Writes a trial unless MLflow has it; says whether it did."""
        run_id, complete = self._known.get(record.trial_id, ("", False))
        if complete:
            return False
        now_ms = int(time.time() * 1000)
        if not run_id:
            tags = {"search_id": self._info.search_id, "kind": "trial", "trial_id": record.trial_id}
            run_id = self._client.create_run(self._experiment, now_ms, tags, record.trial_id).info.run_id
            self._known[record.trial_id] = (run_id, False)
        self._log(run_id, self._metrics(record), self._params(record), {"status": record.status})
        self._client.log_dict(run_id, self._policy_of(record), "policy.json")
        self._client.set_terminated(run_id, "FINISHED")
        self._known[record.trial_id] = (run_id, True)
        return True

    def _metrics(self, record: TrialRecord) -> dict[str, float]:
        ratios = {f"{name}_ratio": cost / self._info.original[name] for name, cost in record.costs.items()}
        seconds = {f"seconds_{phase}": value for phase, value in record.seconds.items()}
        facts = {"accuracy": record.accuracy_search, "l2": record.l2, "reward": record.reward}
        return {**facts, **record.costs, **ratios, **seconds}

    def _params(self, record: TrialRecord) -> dict[str, str]:
        target = {f"target_{name}": f"{value:.6g}" for name, value in record.target.items()}
        return {"episode": str(record.episode), "behaviour": record.behaviour, **target}

    def _log(self, run_id: str, metrics: dict[str, float], params: dict[str, str], tags: dict[str, str]) -> None:
        entities = self._mlflow.entities
        # One timestamp for all times, so that writing a half-written run again adds nothing to a metric's history.
        self._client.log_batch(
            run_id,
            [entities.Metric(name, float(value), 0, 0) for name, value in metrics.items()],
            [entities.Param(name, value) for name, value in params.items()],
            [entities.RunTag(name, value) for name, value in tags.items()],
        )

    def write_summary(self) -> bool:
        """Writes the front, the report and the front's nets unless MLflow has them; says whether it did."""
        if not self._run.front.exists():
            return False
        content = self._run.front.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        found = self._summary
        if found is not None and found.data.tags.get("front_sha256") == digest:
            return False
        if found is None:
            tags = {"search_id": self._info.search_id, "kind": "summary"}
            found = self._client.create_run(self._experiment, int(time.time() * 1000), tags, "summary")
        run_id = found.info.run_id
        archive = Archive(self._info.original, self._info.cost)
        for record in read_ledger(self._run.ledger):
            archive.add(record)
        metrics = {"hypervolume": archive.hypervolume(), "trials": len(archive.records)}
        original = {f"original_{name}": value for name, value in self._info.original.items()}
        self._log(run_id, {**metrics, **original}, {"net": self._info.net}, {})
        self._client.log_text(run_id, json.dumps(self._info.config, indent=1), "config.json")
        for path in (self._run.front, self._run.report):
            if path.exists():
                self._client.log_artifact(run_id, str(path))
        self._write_members(run_id, found, content)
        self._client.set_tag(run_id, "front_sha256", digest)
        self._client.set_terminated(run_id, "FINISHED")
        self._summary = self._client.get_run(run_id)
        return True

    def _write_members(self, run_id: str, summary: Any, content: bytes) -> None:
        for member in json.loads(content)["front"]:
            name = str(member["trial_id"])
            if name in self._known:
                self._client.set_tag(self._known[name][0], "front", "true")
            policy = self._run.policies / f"{name}.json"
            if policy.exists():
                self._client.log_artifact(run_id, str(policy), "policies")
            made = self._model_of(name) if self._model_of and f"model_{name}" not in summary.data.tags else None
            if made is not None:
                self._write_model(run_id, name, *made)
                self._client.set_tag(run_id, f"model_{name}", "true")

    def _write_model(self, run_id: str, name: str, net: nn.Module, example: Any) -> None:
        import torch

        # Stated, since MLflow would find them out by loading the model in another process, for many seconds.
        requirements = [f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={self._mlflow.__version__}"]
        before = os.environ.get("MLFLOW_TRACKING_URI"), self._mlflow.get_tracking_uri()
        self._mlflow.set_tracking_uri(self._uri)
        try:
            from mlflow.models import Model

            # Made here, since `log` alone would put it into the default experiment, with its files in ./mlruns.
            entry = self._client.create_logged_model(self._experiment, name, run_id)
            with warnings.catch_warnings():
                # torch's own about its archive format, which says nothing about the net.
                warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.export\.")
                Model.log(
                    artifact_path=None,
                    model_id=entry.model_id,
                    flavor=self._mlflow.pytorch,
                    run_id=run_id,
                    pytorch_model=net,
                    input_example=example,
                    pip_requirements=requirements,
                    serialization_format="pt2",
                )
        finally:
            self._mlflow.set_tracking_uri(before[1])
            if before[0] is None:
                os.environ.pop("MLFLOW_TRACKING_URI", None)


def catch_up(projection: Projection, run: Run, summary: bool) -> int:
    """Writes what MLflow does not have yet and says how many trials that were.

    Args:
        projection: The way into MLflow.
        run: The run folder.
        summary: Whether to write the front too.
    """
    written = sum(projection.write_trial(record) for record in read_ledger(run.ledger))
    if summary:
        projection.write_summary()
    return written


def track(run: Run, uri: str | None = None, policy_of: PolicyOf = plain_policy, model_of: ModelOf | None = None) -> int:
    """Writes into MLflow whatever of a run it does not have; doing so again changes nothing.

    Args:
        run: The run folder.
        uri: Tracking URI; SQLite beside the runs without it.
        policy_of: The content of a trial's `policy.json`.
        model_of: The net of a front member and one example input.

    Returns:
        How many trials were written.

    Raises:
        UserError: The run is being searched, the server cannot be reached, or the experiment is another search's.
    """
    uri = uri or default_uri(run.folder.parent)
    with run.lock(), tracking_errors(uri):
        return catch_up(Projection(run, uri, policy_of, model_of), run, summary=True)


def first_line(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turns whatever MLflow raises into one line.

    Raises:
        UserError: Something came from the block.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # MLflow raises its own, requests' and SQLAlchemy's errors
        raise UserError(
            f"Cannot track at {uri}: {first_line(error)}. Check the URI and that the server runs."
        ) from error
