"""What the commands that compare searches have in common: options, and running, resuming and showing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from automl.cli.options import Command, data_options, data_values, typed

PAGES = "secateur.benchmark_pages"
"""Entry points that draw a `summary.csv`: functions of its path and the folder to write to, answering the file."""

_WHAT = (
    click.option(
        "--config", "config_file", type=click.Path(path_type=Path), help="Settings as YAML; options win over it."
    ),
    click.option(
        "--nets",
        multiple=True,
        metavar="NAME[=WEIGHTS],...",
        help="Nets, each with its weights file. [default: the configuration's, or resnet8_digits]",
    ),
    data_options,
)
_HOW = (
    click.option("--mode", metavar="MODE", help="sparsity, bits or both. [default: by the target]"),
    click.option(
        "--out", type=click.Path(path_type=Path), help="Folder of all results; more can be added to it later."
    ),
    click.option(
        "--processes", type=click.IntRange(1), help="Searches at once, each on one thread. [default: all cores]"
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ..."),
    click.option("--summarise", is_flag=True, help="Run nothing: show what --out holds."),
    click.option("--from-csv", type=click.Path(path_type=Path), help="Run nothing: show a CSV file of results."),
    click.option("--markdown", is_flag=True, help="Print the tables as Markdown."),
)
targets_option = click.option(
    "--targets",
    multiple=True,
    metavar="KIND=VALUE,...",
    help="Each is a table of its own; size and bops decide bits too. [default: macs=0.5]",
)


def what_options(command: Command) -> Command:
    """Adds the options on configuration, nets and data."""
    for option in reversed(_WHAT):
        command = option(command)
    return command


def how_options(searches: str) -> Callable[[Command], Command]:
    """Adds the options on how much is run, where, and what is shown.

    Args:
        searches: What --seeds counts, e.g. `Searches by each agent`.
    """
    seeds = click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help=f"{searches}.")

    def add(command: Command) -> Command:
        for option in reversed((seeds, *_HOW)):
            command = option(command)
        return command

    return add


def episodes_option(meaning: str) -> Callable[[Command], Command]:
    """Adds --episodes.

    Args:
        meaning: What it counts, e.g. `Evaluations of each search`.
    """
    return click.option("--episodes", type=click.IntRange(1), default=150, show_default=True, help=f"{meaning}.")


def dispatch(
    values: dict[str, Any],
    folder: str,
    plan: Callable[[], Sequence[Any]],
    summarise: Callable[[Path, bool], None],
    show_csv: Callable[[Path, Path | None, bool], None],
) -> None:
    """Does what the options ask for: show a CSV, show a folder, or run what is missing there and show it.

    Args:
        values: The command's options.
        folder: Example of a folder, for messages.
        plan: The searches that are asked for.
        summarise: Shows a folder; is told whether as Markdown.
        show_csv: Shows a CSV file, writing pages to a folder where there is one.

    Raises:
        UserError: Bad input, or a search failed.
    """
    from compressors.errors import UserError

    out, from_csv, markdown = values["out"], values["from_csv"], values["markdown"]
    if from_csv is not None and values["summarise"]:
        raise UserError("--from-csv and --summarise exclude each other: give the one whose results are to be shown.")
    if from_csv is None and out is None:
        raise UserError(f"--out must name the folder of the results, e.g. --out {folder}.")
    if from_csv is not None:
        show_csv(from_csv, out, markdown)
    elif values["summarise"]:
        summarise(out, markdown)
    else:
        _run(plan(), values, summarise)


def _run(jobs: Sequence[Any], values: dict[str, Any], summarise: Callable[[Path, bool], None]) -> None:
    from rich.console import Console

    from automl.benchmarks.quality.pool import run_all
    from automl.benchmarks.quality.progress import QualityProgress
    from automl.cli.console import ConsoleWatch
    from compressors.errors import UserError

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
        summarise(values["out"], values["markdown"])
    except UserError:
        tally.require_success()
        raise
    tally.require_success()


def request(values: dict[str, Any], targets: Sequence[str], agents: Sequence[str]) -> Any:
    """What the options ask for, as a `Request`; the folder is checked to be writable.

    Args:
        values: The command's options.
        targets: Each a cell of its own.
        agents: Names.

    Raises:
        UserError: A file cannot be read, or the folder cannot be written to.
    """
    from automl.benchmarks.quality.plan import Request
    from automl.config import read_yaml
    from automl.files import require_writable
    from automl.place import settle

    require_writable(values["out"], f"write results to {values['out']}")
    return Request(
        base=read_yaml(values["config_file"]) if values["config_file"] else {},
        nets=[_net(entry) for entry in entries(values["nets"])],
        data=data_values(values),
        targets=targets,
        agents=agents,
        episodes=values["episodes"],
        seeds=values["seeds"],
        mode=values["mode"],
        out=values["out"],
        device=settle(None, values["device"]),
        command=typed(),
    )


def entries(texts: Iterable[str]) -> list[str]:
    """What an option lists, given several times or with commas."""
    return [entry.strip() for text in texts for entry in text.split(",") if entry.strip()]


def _net(entry: str) -> dict[str, Any]:
    """Settings of a net from `NAME` or `NAME=WEIGHTS`; the path is recorded whole, as `--weights` is."""
    name, equals, weights = entry.partition("=")
    return {"name": name.strip(), "weights": str(Path(weights.strip()).expanduser().absolute()) if equals else None}


def _cores() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def summarised(out: Path, expected: Any = None) -> Any:
    """Rows of all finished searches of a folder, which are also written there, with pages.

    Args:
        out: The folder.
        expected: As for `quality.results.collect`.

    Raises:
        UserError: There are none, or they cannot be put together.
    """
    from automl.benchmarks.quality.results import collect, write_summary

    results = collect(out, expected)
    for note in results.notes:
        click.echo(note, err=True)
    written = write_summary(results, out)
    say_written(*written)
    draw_pages(written[0], out)
    return results.rows


def draw_pages(summary: Path, out: Path) -> None:
    """Has every installed page writer draw a summary, and says what was written."""
    from automl.files import storage_errors

    with storage_errors(f"make {out}"):
        out.mkdir(parents=True, exist_ok=True)
    for entry in entry_points(group=PAGES):
        draw: Callable[[Path, Path], Path] = entry.load()
        say_written(draw(summary, out))


def say_written(*paths: Path) -> None:
    """Names files that were written, on standard error."""
    for path in paths:
        click.echo(f"Wrote {path}", err=True)


def show_table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]], markdown: bool, words: int = 1) -> None:
    """Prints a table; its first `words` columns hold words, the others numbers."""
    from rich.console import Console

    from automl.benchmarks.tabulate import markdown_table, rich_table

    if markdown:
        click.echo(markdown_table(title, head, lines, words))
    else:
        table, terminal = rich_table(title, head, lines, words), Console()
        # A narrow terminal breaks lines, which can be read; cut columns cannot.
        needed = terminal.measure(table, options=terminal.options.update(width=10_000)).maximum
        Console(width=max(terminal.width, needed)).print(table)
