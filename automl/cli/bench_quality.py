"""`secateur bench quality`."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from automl.cli.options import data_options, data_values, typed

PAGES = "secateur.benchmark_pages"
"""Entry points that draw a `summary.csv`: functions of its path and the folder to write to, answering the file."""


@click.command("quality", short_help="Compare agents at equal cost.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings as YAML; options win over it.")
@click.option(
    "--nets",
    multiple=True,
    metavar="NAME[=WEIGHTS],...",
    help="Nets, each with its weights file. [default: the configuration's, or resnet8_digits]",
)
@data_options
@click.option(
    "--targets",
    multiple=True,
    metavar="KIND=VALUE,...",
    help="Each is a table of its own; size and bops decide bits too. [default: macs=0.5]",
)
@click.option("--agents", multiple=True, metavar="NAME,...", help="Who is compared. [default: all]")
@click.option("--episodes", type=click.IntRange(1), default=150, show_default=True, help="Evaluations of each search.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Searches by each agent.")
@click.option("--mode", metavar="MODE", help="sparsity, bits or both. [default: by the target]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of all results; more can be added to it later.")
@click.option("--processes", type=click.IntRange(1), help="Searches at once, each on one thread. [default: all cores]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--summarise", is_flag=True, help="Run nothing: tables and plots of what --out holds.")
@click.option(
    "--from-csv", type=click.Path(path_type=Path), help="Run nothing: tables of a summary.csv; with --out plots too."
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
def quality_command(**values: Any) -> None:  # fmt: skip
    """Lets agents search the same nets, with the same evaluations and seeds, and says who finds what.

    Stopped and started again it goes on where it was. Equal candidates are measured once; they still count for
    everyone, with the seconds that they took.
    """
    from compressors.errors import UserError

    out, from_csv, summarise = values["out"], values["from_csv"], values["summarise"]
    if from_csv is not None and summarise:
        raise UserError("--from-csv and --summarise exclude each other: give the one whose results are to be shown.")
    if from_csv is None and out is None:
        raise UserError("--out must name the folder of the results, e.g. --out quality.")
    if from_csv is not None:
        _show_csv(from_csv, out, values["markdown"])
    elif summarise:
        _summarise(out, values["markdown"])
    else:
        _compare(values)


def _compare(values: dict[str, Any]) -> None:
    from rich.console import Console

    from automl.benchmarks.quality.plan import plan
    from automl.benchmarks.quality.pool import run_all
    from automl.benchmarks.quality.progress import QualityProgress
    from automl.cli.console import ConsoleWatch
    from automl.files import require_writable
    from compressors.errors import UserError

    jobs = plan(_request(values))
    require_writable(values["out"], f"write results to {values['out']}")
    console = Console(stderr=True)
    watch = ConsoleWatch(console)
    try:
        tally = run_all(jobs, values["processes"] or _cores(), watch, QualityProgress(console))
    finally:
        watch.close()
    made = tally.evaluated + tally.shared
    if made:
        watch.note(f"{made:,} evaluations, {tally.shared:,} of them shared.")
    try:
        _summarise(values["out"], values["markdown"])
    except UserError:
        tally.require_success()
        raise
    tally.require_success()


def _request(values: dict[str, Any]) -> Any:
    from automl.benchmarks.quality.plan import Request
    from automl.config import read_yaml
    from automl.place import settle

    return Request(
        base=read_yaml(values["config_file"]) if values["config_file"] else {},
        nets=[_net(entry) for entry in _entries(values["nets"])],
        data=data_values(values),
        targets=_entries(values["targets"]) or ["macs=0.5"],
        agents=_entries(values["agents"]) or ["all"],
        episodes=values["episodes"],
        seeds=values["seeds"],
        mode=values["mode"],
        out=values["out"],
        device=settle(None, values["device"]),
        command=typed(),
    )


def _entries(texts: tuple[str, ...]) -> list[str]:
    return [entry.strip() for text in texts for entry in text.split(",") if entry.strip()]


def _net(entry: str) -> dict[str, Any]:
    """Settings of a net from `NAME` or `NAME=WEIGHTS`; the path is recorded whole, as `--weights` is."""
    name, equals, weights = entry.partition("=")
    return {"name": name.strip(), "weights": str(Path(weights.strip()).expanduser().absolute()) if equals else None}


def _cores() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _summarise(out: Path, markdown: bool) -> None:
    from automl.benchmarks.quality.results import collect, write_summary

    results = collect(out)
    for note in results.notes:
        click.echo(note, err=True)
    written = write_summary(results, out)
    written += _draw(written[0], out)
    _print(results.rows, markdown)
    for path in written:
        click.echo(f"Wrote {path}", err=True)


def _show_csv(path: Path, out: Path | None, markdown: bool) -> None:
    from automl.benchmarks.quality.results import read_summary
    from automl.files import storage_errors

    results = read_summary(path)
    if out is not None:
        with storage_errors(f"make {out}"):
            out.mkdir(parents=True, exist_ok=True)
        for written in _draw(path, out):
            click.echo(f"Wrote {written}", err=True)
    _print(results.rows, markdown)


def _draw(summary: Path, out: Path) -> list[Path]:
    """Has every installed page writer draw a summary."""
    written = []
    for entry in entry_points(group=PAGES):
        draw: Callable[[Path, Path], Path] = entry.load()
        written.append(draw(summary, out))
    return written


def _print(rows: Any, markdown: bool) -> None:
    from rich.console import Console

    from automl.benchmarks.quality.tables import CAPTION, cells_of, markdown_table, rich_table

    # A narrow terminal breaks lines, which can be read; cut columns cannot.
    console = Console(width=max(Console().width, 120))
    for cell in cells_of(rows):
        if markdown:
            click.echo(markdown_table(cell))
        else:
            console.print(rich_table(cell))
    click.echo(CAPTION)
