"""`secateur submit`, `status`, `logs`, `stop` and `list jobs`: searches as jobs of a Ray cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from automl.cli.options import installed, machine_options, worker_options

address_option = click.option(
    "--address",
    metavar="URL",
    help="Of the cluster's dashboard. [default: $RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265]",
)
_SEARCH_OPTIONS = (
    "workers", "cpus_per_worker", "gpus_per_worker", "deadline", "wait", "threads", "device", "no_track", "tracking_uri"
)  # fmt: skip


@click.command("submit", short_help="Run a search as a job on a Ray cluster.")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--resume", metavar="RUN", help="Go on with a run of an earlier job, instead of a new search.")
@address_option
@click.option("--working-dir", type=click.Path(path_type=Path),
              help="Folder that travels along, with the net's module. [default: this folder]")  # fmt: skip
@click.option("--runs", metavar="PATH", help="Folder of all runs on the cluster, or a URL. [default: ~/secateur-runs]")
@click.option("--name", help="Name of the run. [default: net, data and the time]")
@click.option("--tracking-uri", help="Of an MLflow server. [default: SQLite in the runs folder]")
@click.option("--no-track", is_flag=True, help="Tell MLflow nothing.")
@click.option("--no-code", is_flag=True, help="Secateur does not travel: the nodes have the very same version.")
@click.option("--follow", is_flag=True, help="Print what the job says until it ends.")
@worker_options
@machine_options
def submit_command(
    config: Path | None, resume: str | None, address: str | None, name: str | None, follow: bool, **values: Any
) -> None:
    """Runs the search that CONFIG (YAML) describes as a job on a Ray cluster.

    The working folder, the net's weights and Secateur itself travel with the job; data lies on the nodes or at a URL.
    With --resume a search that was stopped, or crashed, goes on where it was.
    """
    from automl.cluster.job_server import open_server
    from automl.cluster.submission import new_submission, resumption, send
    from compressors.errors import UserError

    if (config is None) == (resume is None):
        raise UserError("Give either the CONFIG of a new search (YAML), or --resume RUN.")
    if resume is not None and name is not None:
        raise UserError("--name names a new run: leave it out with --resume.")
    options = {key: values[key] for key in _SEARCH_OPTIONS if values[key] not in (None, False, "auto")}
    folder, runs, no_code, insecure = (values[key] for key in ("working_dir", "runs", "no_code", "insecure"))
    # A new search is checked before the cluster is asked for anything.
    new = new_submission(config, folder, runs, name, options, _note, no_code=no_code) if config is not None else None
    server = open_server(address, _note, insecure=insecure)
    submission = new or resumption(server, str(resume), folder, runs, options, no_code=no_code)
    _note(f"Sends {submission.shipment.line()}.")
    job = send(server, submission, insecure=insecure or not server.guarded)
    _watch(server, job, follow, address)


# A job always joins the cluster that it belongs to.
submit_command.params = [option for option in submit_command.params if option.name != "ray_address"]


def _watch(server: Any, job: Any, follow: bool, address: str | None) -> None:
    from automl.cluster.jobs import wait_until_begun
    from compressors.errors import UserError

    click.echo(f"Job:     {job.id} at {server.address}; run {job.run} in {job.runs} there")
    try:
        if not wait_until_begun(server, job):
            _note("The job has not begun yet; the cluster is slow or busy.")
        click.echo(f"Status:  {_command('status', job.id, address)}")
        click.echo(f"Logs:    {_command('logs', job.id, address, '--follow')}")
        click.echo(f"Stop:    {_command('stop', job.id, address)}")
        if follow:
            _end(_follow(server, job), server, address)
    except KeyboardInterrupt:
        raise UserError(f"The job goes on. Stop it with: {_command('stop', job.id, address)}") from None


def _follow(server: Any, job: Any) -> Any:
    from automl.cluster.jobs import follow

    return follow(server, job, lambda text: click.echo(text, nl=False), _note)


def _end(job: Any, server: Any, address: str | None) -> None:
    """Ends a followed submission as its job ended.

    Raises:
        UserError: The job was stopped or failed.
    """
    from automl.cluster.job_log import why
    from automl.cluster.jobs import read_log
    from compressors.errors import UserError

    log = read_log(server, job)
    again = _again(job, log, address, "Go on with: ")
    if job.state == "STOPPED":
        raise UserError(f"The job {job.id} was stopped. {again}")
    if job.state == "FAILED":
        raise UserError(f"{why(job.id, job.message, log)} {again}")
    _note(f"The job {job.id} is finished.")


@click.command("status", short_help="Say how a job on a cluster is doing.")
@click.argument("job")
@address_option
def status_command(job: str, address: str | None) -> None:
    """Says how a job is doing, how far its search is, and what to do next; JOB is its id or its run's name."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from automl.cluster.job_log import progress, why
    from automl.cluster.jobs import find_job, read_log

    server = _server(address)
    found = find_job(server, job)
    log = read_log(server, found)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "job": found.id,
        "state": found.state.lower(),
        "run": f"{found.run} in {found.runs} on the cluster" if "://" not in found.runs else
               f"{found.runs.rstrip('/')}/{found.run}",
        "submitted": f"{found.started:%Y-%m-%d %H:%M:%S}" if found.started else "",
        "for": _duration(found.seconds),
        "progress": progress(log),
        "problem": why(found.id, found.message, log) if found.state == "FAILED" else "",
        "next": _next(found, log, address),
    }  # fmt: skip
    for title, text in rows.items():
        if text:
            table.add_row(title, escape(text))
    Console(width=None if Console().is_terminal else 200).print(table)


def _again(job: Any, log: str, address: str | None, before: str = "") -> str:
    from automl.cluster.job_log import resumable

    if not resumable(log):
        return "Its search had not begun: submit it again."
    return f"{before}{_command('submit', '--resume', address, job.run)}"


def _next(job: Any, log: str, address: str | None) -> str:
    if not job.over:
        return _command("logs", job.id, address, "--follow")
    if job.state == "SUCCEEDED":
        where = f"{job.runs.rstrip('/')}/{job.run}"
        return f"secateur front {where}" + ("" if "://" in where else "  (on the cluster's head)")
    return _again(job, log, address)


@click.command("logs", short_help="Print what a job on a cluster says.")
@click.argument("job")
@click.option("--follow", is_flag=True, help="Go on until the job ends.")
@address_option
def logs_command(job: str, follow: bool, address: str | None) -> None:
    """Prints what a job says; JOB is its id or its run's name."""
    from automl.cluster.jobs import find_job, read_log

    server = _server(address)
    found = find_job(server, job)
    if not follow:
        click.echo(read_log(server, found), nl=False)
        return
    ended = _follow(server, found)
    _note(f"The job {ended.id} has ended: {ended.state.lower()}.")


@click.command("stop", short_help="Stop a job on a cluster.")
@click.argument("job")
@address_option
def stop_command(job: str, address: str | None) -> None:
    """Stops a job; its run can be resumed. JOB is its id or its run's name."""
    from automl.cluster.jobs import find_job, read_log, stop

    server = _server(address)
    found = find_job(server, job)
    if found.over:
        click.echo(f"The job {found.id} had ended already: {found.state.lower()}.")
    else:
        _note("Waiting until the search has written its state.")
        found = stop(server, found)
        click.echo(f"The job {found.id} has ended: {found.state.lower()}.")
    if found.state != "SUCCEEDED":
        click.echo(f"Next:    {_again(found, read_log(server, found), address)}")


def print_jobs(address: str | None) -> None:
    """Prints Secateur's jobs on a cluster."""
    from rich.console import Console
    from rich.table import Table

    from automl.cluster.jobs import list_jobs

    server = _server(address)
    jobs = list_jobs(server)
    if not jobs:
        click.echo(f"{server.address} has no jobs of Secateur's. Send one with: secateur submit CONFIG")
        return
    table = Table(title=f"Jobs at {server.address}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title in ("job", "state", "submitted", "for", "runs"):
        table.add_column(title, no_wrap=title != "runs")
    for job in jobs:
        started = f"{job.started:%Y-%m-%d %H:%M:%S}" if job.started else ""
        table.add_row(job.id, job.state.lower(), started, _duration(job.seconds), job.runs)
    Console(width=None if Console().is_terminal else 160).print(table)


def _server(address: str | None) -> Any:
    """To read and to stop, a cluster that anybody can use is good enough: nothing of ours is sent."""
    from automl.cluster.job_server import open_server

    return open_server(address, _note, insecure=True)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _command(name: str, word: str, address: str | None, *more: str) -> str:
    where = ["--address", address] if address else []
    return shlex.join([installed("secateur"), name, word, *more, *where])


def _note(message: str) -> None:
    click.echo(message, err=True)
