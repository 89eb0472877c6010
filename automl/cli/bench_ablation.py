"""`secateur bench ablation`."""

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


@click.command("ablation", short_help="Find out which of the agent's parts pay.")
@what_options
@targets_option
@click.option("--variants", multiple=True, metavar="NAME,...", help="What is left out, besides full. [default: all]")
@episodes_option("Evaluations of each search")
@how_options("Searches by each variant")
def ablation_command(**values: Any) -> None:
    """Lets the agent ddpg search without one of its parts at a time, and says what each part brings.

    A stopped comparison goes on where it was. Equal candidates are measured once; they still count for everyone, with
    the seconds that they took. --from-csv takes a summary.csv; with --out it draws plots too.
    """

    def jobs() -> Any:
        from automl.benchmarks.ablation import plan_ablation

        targets, names = entries(values["targets"]) or ["macs=0.5"], entries(values["variants"]) or ["all"]
        found, notes = plan_ablation(request(values, targets, ["ddpg"]), names)
        for note in notes:
            click.echo(note, err=True)
        return found

    dispatch(values, "ablation", jobs, _summarise, _show_csv)


def _summarise(out: Path, markdown: bool) -> None:
    from automl.benchmarks.ablation import expected

    _print(summarised(out, expected), markdown)


def _show_csv(path: Path, out: Path | None, markdown: bool) -> None:
    from automl.benchmarks.ablation_table import is_ablation
    from automl.benchmarks.quality.results import read_summary
    from automl.benchmarks.quality.tables import cells_of
    from compressors.errors import UserError

    results = read_summary(path)
    if not is_ablation(cells_of(results.rows)):
        raise UserError(f"{path} compares agents: show it with secateur bench quality --from-csv {path}.")
    if out is not None:
        draw_pages(path, out)
    _print(results.rows, markdown)


def _print(rows: Any, markdown: bool) -> None:
    from automl.benchmarks.ablation_table import CAPTION, HEAD, legend, lines
    from automl.benchmarks.quality.tables import cells_of

    cells = cells_of(rows)
    for cell in cells:
        show_table(cell.title, HEAD, (line.cells() for line in lines(cell)), markdown)
    mark = "- " if markdown else ""
    click.echo("\n".join(f"{mark}{line}" for line in legend(cells)) + "\n")
    click.echo(CAPTION)
