"""From what a user asks for to a job that is sent: checked here first, and nothing of it a secret."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from automl.cluster.code import code_facts
from automl.cluster.driver import FOLDER, JobRequest
from automl.cluster.job_config import config_for_nodes
from automl.cluster.job_server import JobServer
from automl.cluster.jobs import Job, check_name, list_jobs, submit
from automl.cluster.shipping import Shipment, collect, pack_code, pack_working_folder
from automl.cluster.tokens import token_files
from automl.remote.url import check_no_secret, has_user
from compressors.errors import UserError

RUNS = "~/secateur-runs"
"""Where runs of jobs lie, on the head of the cluster."""


@dataclass(frozen=True)
class Submission:
    """A checked search, or the resumption of one.

    Attributes:
        run: Name of the run.
        runs: Folder of all runs on the cluster, or a URL.
        shipment: What travels.
        options: Of the search's workers and machine, by name; those of an earlier submission where the run goes on.
        no_code: Whether the nodes have Secateur.
        resume: Whether the run goes on.
        config: The search's settings as YAML, for the nodes.
        weights: The file with the net's weights; None: none travels.
    """

    run: str
    runs: str
    shipment: Shipment
    options: dict[str, Any]
    no_code: bool
    resume: bool = False
    config: str = ""
    weights: Path | None = None


def new_submission(
    file: Path,
    folder: Path | None,
    runs: str | None,
    name: str | None,
    options: dict[str, Any],
    note: Callable[[str], None],
    *,
    no_code: bool,
) -> Submission:
    """Checks a new search.

    Args:
        file: Its settings, YAML.
        folder: The working folder; None: the present one.
        runs: Folder of all runs on the cluster, or a URL; None: the usual one.
        name: Name of the run; None: net, data and the time.
        options: Of the search's workers and machine.
        note: Gets a line about what must be on the nodes.
        no_code: Whether the nodes have Secateur.

    Raises:
        UserError: Something in it is wrong, or missing here.
    """
    import yaml

    from automl.config import SearchConfig, parse, read_yaml
    from automl.preflight import check_config

    values = read_yaml(file)
    config = parse(SearchConfig, values, str(file))
    check_config(config)
    _check_tracking(options)
    if name is None:
        parts = "-".join(_short(part) for part in (config.net.name, config.data.name))
        name = f"{parts[:80]}-{datetime.now():%Y%m%d-%H%M%S}"
    check_name(name)
    shipment = collect((folder or Path()).expanduser(), token_files())
    there, weights = config_for_nodes(values, shipment, note)
    text = yaml.safe_dump(there, sort_keys=False)
    return Submission(name, _checked(runs or RUNS), shipment, options, no_code, config=text, weights=weights)


def resumption(
    server: JobServer, run: str, folder: Path | None, runs: str | None, options: dict[str, Any], *, no_code: bool
) -> Submission:
    """The resumption of a run, as its last submission was where nothing else is said.

    Args:
        server: The cluster, which may have forgotten the run's jobs.
        run: Its name or a job's id; or its path or URL.
        folder: The working folder; None: that of the last submission if it is here, else the present one.
        runs: Folder of all runs on the cluster, or a URL.
        options: Of the search's workers and machine.
        no_code: Whether the nodes have Secateur.

    Raises:
        UserError: A name that no run can have, or a password in a URL.
    """
    above, _, name = run.rstrip("/").rpartition("/")
    last = next((job for job in reversed(list_jobs(server)) if name in (job.run, job.id)), None)
    facts = last.facts if last is not None else {}
    name = last.run if last is not None else name
    check_name(name)
    options = {**facts.get("options", {}), **options}
    _check_tracking(options)
    before = Path(facts.get("working_dir") or ".")
    shipment = collect((folder or (before if before.is_dir() else Path())).expanduser(), token_files())
    where = _checked(runs or above or (last.runs if last is not None else RUNS))
    return Submission(name, where, shipment, options, no_code or bool(facts.get("no_code")), resume=True)


def send(server: JobServer, submission: Submission, *, insecure: bool) -> Job:
    """Packs what travels and sends the job.

    Args:
        server: The cluster.
        submission: What to send.
        insecure: Whether the job may run on a cluster that anybody can use.

    Raises:
        UserError: Too much would travel, the run is a job already, or the cluster refuses.
    """
    weights = submission.weights
    request = JobRequest(
        run=submission.run,
        runs=submission.runs,
        resume=submission.resume,
        options=_typed(submission.options, insecure=insecure),
        weights=f"weights/{weights.name}" if weights is not None else "",
        code=code_facts() if submission.no_code else {},
    )
    more: dict[str, bytes | Path] = {
        f"{FOLDER}/request.json": request.data(),
        f"{FOLDER}/config.yaml": submission.config.encode(),
    }
    if weights is not None:
        more[f"{FOLDER}/{request.weights}"] = weights
    with tempfile.TemporaryDirectory(prefix="secateur-") as temporary:
        folder = pack_working_folder(submission.shipment, more, Path(temporary) / "folder.zip")
        code = None if submission.no_code else pack_code(Path(temporary) / "code.zip")
        return submit(server, request, (folder, code), _facts(submission))


def _facts(submission: Submission) -> dict[str, Any]:
    """What everybody with access to the cluster may know of a submission."""
    return {
        "options": submission.options,
        "no_code": submission.no_code,
        "working_dir": str(submission.shipment.root),
    }


def _check_tracking(options: dict[str, Any]) -> None:
    """Refuses what everybody with access to the cluster could read: the package, the job's record and its log."""
    address = str(options.get("tracking_uri") or "")
    if has_user(address):
        raise UserError(
            "--tracking-uri must not hold a name or password, since whoever has access to the cluster can read it: set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment of the nodes instead."
        )
    check_no_secret(address)


def _typed(options: dict[str, Any], *, insecure: bool) -> list[str]:
    """Options of `secateur search` as they are typed; a job has workers, since its own process has no CPU reserved."""
    words: list[str] = []
    given = {**options, "workers": options.get("workers") or 1, "ray_address": "auto", "insecure": insecure}
    for key, value in given.items():
        if value is not None and value is not False:
            words += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def _checked(runs: str) -> str:
    if "://" not in runs and not runs.startswith(("/", "~")):
        raise UserError(
            f"--runs must be a path on the cluster that begins with / or ~ (e.g. {RUNS}), or a URL, but got {runs!r}."
        )
    check_no_secret(runs)
    return runs


def _short(name: str) -> str:
    last = name.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return "".join(letter if (letter.isascii() and letter.isalnum()) or letter in "._" else "-" for letter in last)
