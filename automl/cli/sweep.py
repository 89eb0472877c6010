"""`secateur sweep`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from automl.cli.options import installed, local_runs_option, typed, worker_options


@click.command("sweep", short_help="Run many searches on Ray.")
@click.argument("file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@click.option("--concurrent", type=click.IntRange(1), help="Most searches at once. [default: as many as have room]")
@click.option("--dry-run", is_flag=True, help="List the searches and run nothing.")
@local_runs_option
@click.option("--name", help="Name of the sweep, a folder in the runs folder. [default: the file's]")
@click.option("--tracking-uri", help="Of an MLflow server. [default: SQLite in the sweep's folder]")
@click.option("--no-track", is_flag=True, help="Tell MLflow nothing.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of torch in each search. [default: 1]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@worker_options
def sweep_command(file: Path, dry_run: bool, **values: Any) -> None:
    """Runs the grid of nets, targets, agents, compressors and seeds in SWEEP.yaml, each point a whole search.

    The same command goes on with a sweep that was stopped: what is finished is kept, the rest continues where it was.
    --workers and --cpus-per-worker are those of each search.
    """
    from automl.cluster.sweep import run_sweep
    from automl.cluster.sweep_config import read_sweep
    from automl.cluster.sweep_folder import SweepPlace, open_sweep, recorded_staleness
    from automl.files import require_writable

    plan = _plan(values)
    name = values["name"] or file.stem
    place = SweepPlace(
        values["runs"], name, values["tracking_uri"], not values["no_track"], values["device"], typed(), _note
    )
    searches = read_sweep(file, name, recorded_staleness(place) or max(1, 2 * plan.workers))
    if dry_run:
        _list(searches, place)
        return
    require_writable(values["runs"], f"make a sweep in {values['runs']}")
    missing = open_sweep(place, searches)
    failures: dict[str, str] = {}
    if missing:
        _note(f"Sweep {name}: {len(searches)} searches, {len(searches) - len(missing)} of them finished already.")
        _begin_tracking(place)
        try:
            failures = run_sweep(missing, plan, place)
        except KeyboardInterrupt:
            _interrupted(searches, place, file)
    _show(searches, failures, place)


def _plan(values: dict[str, Any]) -> Any:
    from automl.cluster.sweep_room import SweepPlan
    from compressors.errors import UserError

    address = values["ray_address"] or "local"
    if address.startswith("ray://"):
        raise UserError(
            f"A sweep runs on a node of its cluster, but got --ray-address {address}: log in there and give "
            "--ray-address auto, or give the address of its port 6379 from a machine that shares its folders."
        )
    workers = values["workers"] or 0
    if values["deadline"] and not workers:
        raise UserError("--deadline is about workers, but there are none: add --workers N, or leave --deadline out.")
    return SweepPlan(
        workers=workers,
        address=address,
        cpus_per_worker=values["cpus_per_worker"] or 1,
        gpus_per_worker=values["gpus_per_worker"] or 0.0,
        concurrent=values["concurrent"],
        threads=values["threads"],
        deadline_s=values["deadline"],
        wait=values["wait"],
        insecure=values["insecure"],
    )


def _note(message: str) -> None:
    click.echo(message, err=True)


def _list(searches: list[Any], place: Any) -> None:
    from automl.cli.comparing import show_table
    from automl.runs import Run

    done = [Run(place.folder / search.name).front.exists() for search in searches]
    lines = [
        [search.net, search.target, search.agent, search.compressor, str(search.seed), "yes" if finished else "no"]
        for search, finished in zip(searches, done, strict=True)
    ]
    head = ["net", "target", "agent", "compressor", "seed", "finished"]
    show_table(f"Sweep {place.name}: {len(searches)} searches", head, lines, markdown=False, words=4)


def _begin_tracking(place: Any) -> None:
    from automl.tracking_sweep import begin_sweep
    from compressors.errors import UserError

    if not place.track:
        return
    try:
        begin_sweep(place.uri, place.folder)
    except UserError as error:
        _note(f"{error} The sweep goes on without it.")


def _interrupted(searches: list[Any], place: Any, file: Path) -> None:
    from automl.cluster.sweep_results import read_results, write_results
    from compressors.errors import UserError

    rows = read_results(place.folder, searches, {})
    write_results(place.folder, rows)
    done = sum(row.status == "finished" for row in rows)
    again = shlex.join(["secateur", "sweep", str(file), "--name", place.name, "--runs", str(place.runs)])
    raise UserError(f"Interrupted with {done} of {len(rows)} searches finished. Go on with: {again}") from None


def _show(searches: list[Any], failures: dict[str, str], place: Any) -> None:
    from automl.benchmarks.tabulate import markdown_table
    from automl.cli.comparing import show_table
    from automl.cluster.sweep_results import cells, read_results, write_results
    from automl.place import write_reports
    from automl.runs import Run
    from automl.tracking_sweep import track_sweep
    from compressors.errors import UserError

    rows = read_results(place.folder, searches, failures)
    files = write_results(place.folder, rows)
    done = [row for row in rows if row.status == "finished"]
    failed = [row for row in rows if row.status != "finished"]
    for row in done:
        run = Run(place.folder / row.name)
        if not run.report.exists():  # killed between the front and its report
            write_reports(run)
    ranking = ""
    if done:
        shared, head, lines, words = cells(rows)
        title = f"Sweep {place.name}: {len(done)} of {len(rows)} searches" + "".join(
            f", {name} {value}" for name, value in shared.items()
        )
        show_table(title, head, lines, markdown=False, words=words)
        ranking = markdown_table(title, head, lines, words)
    if place.track:
        try:
            track_sweep(place.uri, place.folder, [row.model_dump() for row in rows], ranking, files)
        except UserError as error:
            _note(f"{error} The same command writes what MLflow lacks.")
    for row in failed:
        click.echo(f"Failed:  {row.name}: {row.failure}")
    folder = place.runs / place.name
    click.echo(f"Results: {folder / files[0].name} and {files[1].name}")
    if place.track:
        opened = [installed("mlflow"), "ui", "--backend-store-uri", place.uri]
        served = place.uri.startswith(("http://", "https://"))
        click.echo(f"MLflow:  {place.uri if served else shlex.join(opened)}  (experiment {place.name})")
    if done:
        click.echo(f"Next:    {installed('secateur')} front {shlex.quote(str(folder / done[0].name))}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} searches failed, as listed above; the same command tries them again."
        )
