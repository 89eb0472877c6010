"""`secateur bench quality`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl.cli.comparing import (
    dispatch,
    draw_pages,
    entries,
    episodes_option,
    how_options,
    request,
    show_table,
    summarised,
    targets_option,
    what_options,
)


@click.command("quality", short_help="Compare agents at equal cost.")
@what_options
@targets_option
@click.option("--agents", multiple=True, metavar="NAME,...", help="Who is compared. [default: all]")
@episodes_option("Evaluations of each search")
@how_options("Searches by each agent")
def quality_command(**values: Any) -> None:  # fmt: skip
    """Lets agents search the same nets, with the same evaluations and seeds, and says who finds what.

    Stopped and started again it goes on where it was. Equal candidates are measured once; they still count for
    everyone, with the seconds that they took. --from-csv takes a summary.csv; with --out it draws plots too.
    """

    def jobs() -> Any:
        from automl.benchmarks.quality.plan import plan

        return plan(request(values, entries(values["targets"]) or ["macs=0.5"], entries(values["agents"]) or ["all"]))

    dispatch(values, "quality", jobs, _summarise, _show_csv)


def _summarise(out: Path, markdown: bool) -> None:
    _print(summarised(out), markdown)


def _show_csv(path: Path, out: Path | None, markdown: bool) -> None:
    from automl.benchmarks.quality.results import read_summary

    results = read_summary(path)
    if out is not None:
        draw_pages(path, out)
    _print(results.rows, markdown)


def _print(rows: Any, markdown: bool) -> None:
    from automl.benchmarks.quality.tables import CAPTION, HEAD, cells_of
    from automl.benchmarks.quality.tables import entries as lines_of

    for cell in cells_of(rows):
        show_table(cell.title, HEAD, (entry.cells() for entry in lines_of(cell)), markdown)
    click.echo(CAPTION)
