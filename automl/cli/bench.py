"""`secateur bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from automl.cli.bench_ablation import ablation_command
from automl.cli.bench_front import front_command
from automl.cli.bench_quality import quality_command
from automl.cli.bench_workers import workers_command
from automl.cli.options import data_options, data_values, machine_options, net_options, net_values


@click.group("bench", short_help="Measure Secateur's own speed and quality.")
def bench_command() -> None:
    """Measures Secateur itself; `docs/benchmarks.md` holds the figures."""


for _command in (quality_command, ablation_command, front_command, workers_command):
    bench_command.add_command(_command)


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
        "evaluation": {"first_images": 0},
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


@bench_command.command("fidelity")
@net_options
@data_options
@click.option("--target", "targets", multiple=True, default=("macs=0.5",), show_default=True)
@click.option("--mode", metavar="MODE", help="sparsity, bits or both. [default: sparsity]")
@click.option("--policies", type=int, default=40, show_default=True, help="Random feasible policies; at least 10.")
@click.option("--finetune-steps", type=int, default=600, show_default=True, help="Training of each policy's net.")
@click.option("--finetune-lr", type=float, help="Its highest learning rate. [default: 0.05]")
@click.option("--finetune-precision", metavar="TYPE", help="float32 or bfloat16; short finetunes too.")
@click.option("--distill/--no-distill", default=True, show_default=True, help="Learn from the original net as well.")
@click.option(
    "--short-steps",
    type=int,
    multiple=True,
    default=(10, 30, 100),
    show_default=True,
    help="Shorter finetunes.",
)
@click.option("--images", type=int, help="Search images that criteria are measured on. [default: 1000]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of policies and training.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("fidelity"),
    show_default=True,
    help="Folder of the measurements; one that was interrupted goes on.",
)
@machine_options
def fidelity(targets: tuple[str, ...], markdown: bool, out: Path, **values: Any) -> None:
    """Ranks random policies by cheap measures and by their accuracy after finetuning, and says how well these agree.

    Whatever is measured is kept in the folder --out, with fidelity.csv and fidelity.md: the same command goes on.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from automl.benchmarks.fidelity import FidelityConfig, measure
    from automl.benchmarks.fidelity_table import TITLES, as_csv, as_markdown, cells
    from automl.config import SearchConfig, merge, parse
    from automl.files import write_atomic
    from automl.place import settle

    device = settle(values.pop("threads"), values.pop("device"))
    settings = {
        "net": net_values(values),
        "data": data_values(values),
        "env": {"targets": list(targets), "mode": values["mode"]},
    }
    config = parse(SearchConfig, merge({}, settings))
    training = {name: values[f"finetune_{name}"] for name in ("steps", "lr", "precision")}
    chosen = {name: values[name] for name in ("policies", "images", "seed", "short_steps")}
    asked = parse(FidelityConfig, merge({}, {**chosen, "finetune": training}))
    if not values["distill"]:
        asked = asked.model_copy(update={"distill": None})
    rows = measure(config, asked, out, _time_left(), device)
    write_atomic(out / "fidelity.csv", as_csv(rows).encode())
    write_atomic(out / "fidelity.md", as_markdown(rows).encode())
    if markdown:
        click.echo(as_markdown(rows), nl=False)
        return
    title = f"Rank correlation with the accuracy after {asked.finetune.steps} finetune steps, {asked.policies} policies"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in TITLES:
        table.add_column(name, justify="left" if name == TITLES[0] else "right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=None if Console().is_terminal else 140).print(table)


def _time_left(every_s: float = 30.0) -> Callable[[int, int, float | None], None]:
    """Says now and then, on standard error, how far a benchmark is and how long it will take."""
    said = -every_s

    def say(done: int, total: int, left_s: float | None) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < every_s and done < total:
            return
        said = now
        left = "" if left_s is None or done == total else f"; about {_duration(left_s)} left"
        click.echo(f"{done} of {total} measurements{left}.", err=True)

    return say


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
