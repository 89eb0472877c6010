"""Searches as jobs of a cluster: sent, listed, followed, stopped. One run is one job at a time."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from automl.cluster.driver import BEGUN, ENTRYPOINT, JobRequest
from automl.cluster.job_log import last_line, why
from automl.cluster.job_server import JobServer, answers
from compressors.errors import UserError, one_of

STOP_WAIT_S = 60
"""Seconds that a stopped search has to write its state; by default Ray kills after 3."""

_OURS = "secateur"
_OVER = ("STOPPED", "SUCCEEDED", "FAILED")
_LOOK_S = 0.5
_BEGIN_S = 60.0
_SILENT_S = 120.0

Note = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it.

    Attributes:
        id: Its submission id: the run's name, with `@2` and so on where the run goes on.
        run: Name of the run.
        attempt: From 1.
        runs: Folder of all runs on the cluster, or a URL.
        state: `PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED` or `FAILED`.
        message: What the cluster says of it.
        started: When it was submitted.
        ended: When it ended; None: it has not.
        facts: What the submission recorded, for the next one.
    """

    id: str
    run: str
    attempt: int
    runs: str
    state: str
    message: str
    started: datetime | None
    ended: datetime | None
    facts: dict[str, Any]

    @property
    def over(self) -> bool:
        """Whether it has ended, however."""
        return self.state in _OVER

    @property
    def seconds(self) -> float:
        """How long it has run, or did."""
        if self.started is None:
            return 0.0
        return ((self.ended or datetime.now()) - self.started).total_seconds()


def check_name(name: str) -> None:
    """Checks the name of a run that is to be a job.

    Raises:
        UserError: It cannot be one.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            "A job's run has a name of at most 100 letters, digits, '.', '_' and '-' that begins with a letter or "
            f"digit, but got {name!r}."
        )


def list_jobs(server: JobServer) -> list[Job]:
    """Secateur's jobs on a cluster, the oldest first.

    Raises:
        UserError: The cluster does not answer.
    """
    with answers(server.address), _refusals(server.address):
        found = server.client.list_jobs()
    jobs = [_job(details) for details in found if (details.metadata or {}).get(_OURS)]
    return sorted(jobs, key=lambda job: (job.started or datetime.min, job.attempt))


def find_job(server: JobServer, name: str) -> Job:
    """The job of an id, or the last one of a run.

    Raises:
        UserError: There is none (names the nearest).
    """
    jobs = list_jobs(server)
    for job in reversed(jobs):
        if name in (job.id, job.run):
            return job
    if not jobs:
        raise UserError(f"There is no job {name!r}: {server.address} has none of Secateur's.")
    raise one_of("job", name, {job.id for job in jobs})


def submit(server: JobServer, request: JobRequest, packages: tuple[Path, Path | None], facts: Mapping[str, Any]) -> Job:
    """Sends a job to the cluster.

    Args:
        server: The cluster's job server.
        request: What is to be done; the working folder's package holds it too.
        packages: The working folder, and Secateur's code unless the nodes have it.
        facts: What a later submission of the run may want to know; everybody with access to the cluster can read it.

    Raises:
        UserError: The run is a job already, or the cluster refuses.
    """
    own = [job for job in list_jobs(server) if job.run == request.run]
    active = next((job for job in own if not job.over), None)
    if active is not None:
        raise UserError(
            f"The run {request.run} is being searched by the job {active.id}. Watch it with: secateur logs "
            f"{active.id} --follow; or stop it with: secateur stop {active.id}"
        )
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    attempt = max((job.attempt for job in own), default=0) + 1
    name = request.run if attempt == 1 else f"{request.run}@{attempt}"
    folder, code = (_upload(server, path) if path is not None else None for path in packages)
    environment = {
        "working_dir": folder,
        **({"py_modules": [code]} if code is not None else {}),
        "env_vars": {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
            # By the setting of that name the job's own process would not call it, only the workers.
            WORKER_PROCESS_SETUP_HOOK_ENV_VAR: "automl.cluster.driver.remember_python",
        },
    }
    recorded = {_OURS: "1", "run": request.run, "attempt": str(attempt), "runs": request.runs,
                "facts": json.dumps(dict(facts))}  # fmt: skip
    with answers(server.address), _refusals(server.address, request.run):
        server.client.submit_job(entrypoint=ENTRYPOINT, submission_id=name, runtime_env=environment, metadata=recorded)
    return find_job(server, name)


def _upload(server: JobServer, package: Path) -> str:
    """Sends a package unless the cluster has it, and gives its URI.

    Not by the public way, `submit_job` with local files: Ray 2.60 takes a local .zip as `working_dir`, but not as one
    of `py_modules`, only folders, which it packs by rules of its own (`upload_py_modules_if_needed`).
    """
    data = package.read_bytes()
    name = f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:32]}.zip"
    with answers(server.address), _refusals(server.address):
        there = server.client._do_request("GET", f"/api/packages/gcs/{name}").status_code == 200
        if not there:
            sent = server.client._do_request("PUT", f"/api/packages/gcs/{name}", data=data)
            if sent.status_code != 200:
                raise UserError(f"The cluster at {server.address} does not take the package: {last_line(sent.text)}")
    return f"gcs://{name}"


def wait_until_begun(server: JobServer, job: Job) -> bool:
    """Waits until a job's request has proved to be in order.

    Returns:
        Whether it has; if not, the cluster takes its time.

    Raises:
        UserError: The job failed at once; says why.
    """
    deadline = time.monotonic() + _BEGIN_S
    while time.monotonic() < deadline:
        job, text = find_job(server, job.id), read_log(server, job)
        if BEGUN in text:
            return True
        if job.over:
            raise UserError(why(job.id, job.message, text))
        time.sleep(_LOOK_S)
    return False


def read_log(server: JobServer, job: Job) -> str:
    """What a job has said so far.

    Raises:
        UserError: The cluster does not answer.
    """
    with answers(server.address), _refusals(server.address):
        return str(server.client.get_job_logs(job.id) or "")


def follow(server: JobServer, job: Job, write: Callable[[str], None], note: Note) -> Job:
    """Writes what a job says until it is over.

    Args:
        server: The cluster's job server.
        job: The job.
        write: Gets the log, piece by piece.
        note: Gets a line when the cluster does not answer for a while.

    Raises:
        UserError: It did not answer for minutes.
    """
    written, silent_since = 0, 0.0
    while True:
        try:
            job = find_job(server, job.id)
            text = read_log(server, job)
        except UserError as error:
            now = time.monotonic()
            if not silent_since:
                silent_since = now
                note(f"{error} Trying again; the job goes on.")
            elif now - silent_since > _SILENT_S:
                raise
            time.sleep(5 * _LOOK_S)
            continue
        silent_since = 0.0
        write(text[written:])
        written = max(written, len(text))
        if job.over:
            return job
        # The whole log comes each time.
        time.sleep(_LOOK_S if written < 1_000_000 else 10 * _LOOK_S)


def stop(server: JobServer, job: Job) -> Job:
    """Asks a job to stop and waits until it has.

    Raises:
        UserError: It does not, or the cluster does not answer.
    """
    with answers(server.address), _refusals(server.address):
        server.client.stop_job(job.id)
    deadline = time.monotonic() + STOP_WAIT_S + 15
    while time.monotonic() < deadline:
        job = find_job(server, job.id)
        if job.over:
            return job
        time.sleep(_LOOK_S)
    raise UserError(f"The job {job.id} has not stopped yet. Look again with: secateur status {job.id}")


@contextmanager
def _refusals(address: str, run: str = "") -> Iterator[None]:
    """Turns what a job server refuses into one line."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "already exists" in text and run:
            raise UserError(
                f"The run {run} was submitted a moment ago. Look at it with: secateur status {run}"
            ) from error
        raise UserError(f"The job server at {address} refuses: {last_line(text)}") from error


def _job(details: Any) -> Job:
    recorded = details.metadata or {}
    try:
        facts, attempt = json.loads(recorded.get("facts", "{}")), int(recorded.get("attempt", 1))
    except ValueError:
        facts, attempt = {}, 1
    return Job(
        id=str(details.submission_id),
        run=recorded.get("run", str(details.submission_id)),
        attempt=attempt,
        runs=recorded.get("runs", ""),
        state=str(details.status),
        message=details.message or "",
        started=_when(details.start_time),
        ended=_when(details.end_time),
        facts=facts,
    )


def _when(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000) if milliseconds else None
