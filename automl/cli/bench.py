"""`secateur bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl.cli.options import data_options, data_values, machine_options, net_options, net_values


@click.group("bench", short_help="Measure Secateur's own speed and quality.")
def bench_command() -> None:
    """Measures Secateur itself; `docs/benchmarks.md` holds the figures."""


@bench_command.command("speed")
@net_options
@data_options
@click.option("--target", "targets", multiple=True, default=("macs=0.5",), show_default=True)
@click.option(
    "--episodes", type=click.IntRange(3), default=45, show_default=True, help="How many; the first third warms up."
)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figures to this .json file.")
@machine_options
def speed(targets: tuple[str, ...], episodes: int, out: Path | None, **values: Any) -> None:  # fmt: skip
    """Times an episode against the plain forward passes of the same candidates; leave the machine alone meanwhile."""
    import json

    from rich.console import Console

    from automl.benchmarks.speed import help_time, measure
    from automl.cli.console import ConsoleWatch
    from automl.config import SearchConfig, merge, parse
    from automl.place import settle

    settle(values.pop("threads"), values.pop("device"))
    settings = {
        "net": net_values(values),
        "data": data_values(values),
        "env": {"targets": list(targets)},
        "loop": {"episodes": episodes},
    }
    config = parse(SearchConfig, merge({}, settings))
    watch = ConsoleWatch(Console(stderr=True))
    found = {**measure(config, watch.stage).as_dict(), "help_s": help_time()}
    watch.close()
    for name, value in found.items():
        click.echo(f"{name:16} {value:.4g}" if isinstance(value, float) else f"{name:16} {value}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")
