"""`secateur bench front`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl.cli.comparing import (
    dispatch,
    entries,
    episodes_option,
    how_options,
    request,
    say_written,
    show_table,
    what_options,
)


@click.command("front", short_help="Compare one search over a range with several single ones.")
@what_options
@click.option("--range", "span", metavar="KIND=LOW..HIGH", default="macs=0.3..0.7", show_default=True)
@click.option(
    "--targets",
    multiple=True,
    metavar="KIND=VALUE,...",
    help="A search for each, within the range. [default: macs=0.3,macs=0.5,macs=0.7]",
)
@click.option("--agents", multiple=True, metavar="NAME,...", help="Who searches, both ways. [default: ddpg]")
@episodes_option("Evaluations in all, of the one search and of the others together")
@how_options("Comparisons by each agent")
def front_command(**values: Any) -> None:
    """Lets an agent search once over a range of targets, and as long in all with a search for each single target.

    Says how good each way is within every single target, and how large the front of all its trials is. Stopped and
    started again it goes on where it was. --from-csv takes a front.csv.
    """

    def jobs() -> Any:
        from automl.benchmarks.front import claim, notes_on, plan_front, question

        targets = entries(values["targets"]) or ["macs=0.3", "macs=0.5", "macs=0.7"]
        asked = question(values["span"], targets, values["episodes"])
        found = plan_front(request(values, [], entries(values["agents"]) or ["ddpg"]), asked)
        claim(values["out"], asked)
        for note in notes_on(asked):
            click.echo(note, err=True)
        return found

    dispatch(values, "front", jobs, _summarise, _show_csv)


def _summarise(out: Path, markdown: bool) -> None:
    from automl.benchmarks.front_results import CSV_FILE, collect, to_csv
    from automl.files import write_atomic

    rows, notes = collect(out)
    for note in notes:
        click.echo(note, err=True)
    write_atomic(out / CSV_FILE, to_csv(rows).encode())
    say_written(out / CSV_FILE)
    _print(rows, markdown)


def _show_csv(path: Path, out: Path | None, markdown: bool) -> None:
    from automl.benchmarks.front_results import from_csv

    _print(from_csv(path), markdown)


def _print(rows: Any, markdown: bool) -> None:
    from automl.benchmarks.front_table import CAPTION, WORDS, tables

    for table in tables(rows):
        show_table(table.title, table.head, (line.cells() for line in table.lines), markdown, WORDS)
    click.echo(CAPTION)
