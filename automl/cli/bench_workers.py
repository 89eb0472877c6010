"""`secateur bench workers`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from automl.cli.comparing import entries
from automl.cli.options import data_options, data_values, net_options, net_values, typed

_PARTS = ("overhead", "speedup", "busy", "throughput")


@click.command("workers", short_help="Measure what workers cost and bring, and how many one driver keeps busy.")
@net_options
@data_options
@click.option("--target", "targets", multiple=True, default=("macs=0.5",), show_default=True)
@click.option("--parts", multiple=True, metavar="NAME,...", help=f"Of {', '.join(_PARTS)}. [default: all]")
@click.option("--agents", multiple=True, metavar="NAME,...", help="Who searches. [default: random,ddpg]")
@click.option(
    "--episodes",
    type=click.IntRange(5),
    default=20,
    show_default=True,
    help="Of each search for overhead; of each worker for speed-up.",
)
@click.option(
    "--episode-seconds",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    help="About what an evaluation takes there: it is repeated until then.",
)
@click.option("--workers", multiple=True, metavar="N,...", help="For speed-up. [default: 1, 2, 4, .. all cores]")
@click.option("--simulated", multiple=True, metavar="N,...", help="Simulated workers. [default: 16,64,256]")
@click.option("--staleness", multiple=True, metavar="K,...", help="Theirs, in workers. [default: 2,4,8]")
@click.option("--each", type=click.IntRange(4), default=20, show_default=True, help="Episodes of a simulated worker.")
@click.option("--processes", type=click.IntRange(1), default=4, show_default=True, help="That are simulated workers.")
@click.option(
    "--driver-episodes",
    type=click.IntRange(10),
    default=300,
    show_default=True,
    help="Of the search that measures the driver alone.",
)
@click.option("--layers", type=click.IntRange(1), default=20, show_default=True, help="Of a simulated net.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("workers"),
    show_default=True,
    help="Folder of the figures; parts that are not measured again stay as they are.",
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option("--show", is_flag=True, help="Run nothing: show what --out holds.")
def workers_command(**values: Any) -> None:  # fmt: skip
    """Measures workers on this machine; leave it alone meanwhile.

    overhead: the same search without and with one worker. speedup: one-thread workers on real evaluations. busy: many
    simulated workers, whose evaluations only take time. throughput: the driver alone, phase by phase.
    """
    from automl.benchmarks.workers_table import PICTURE, draw, read, tables, write
    from automl.cli.comparing import say_written, show_table
    from compressors.errors import UserError, one_of

    out = values["out"]
    parts = entries(values["parts"]) or list(_PARTS)
    for part in parts:
        if part not in _PARTS:
            raise one_of("part", part, _PARTS)
    figures = read(out)
    if not values["show"]:
        for part in dict.fromkeys(parts):
            figures = _measured(part, figures, values)
            write(out, figures)
    if not tables(figures):
        raise UserError(f"{out} holds no figures yet: leave --show out to measure them.")
    for table in tables(figures):
        show_table(table.title, table.head, table.lines, values["markdown"], 1)
    if draw(figures, out / PICTURE):
        say_written(out / PICTURE)


def _measured(part: str, figures: Any, values: dict[str, Any]) -> Any:
    """The figures with one part measured."""
    from rich.console import Console

    from automl.benchmarks.workers_table import machine
    from automl.cli.console import ConsoleWatch
    from automl.place import settle

    settle(1, "cpu")
    watch = ConsoleWatch(Console(stderr=True))
    try:
        rows = _MEASURES[part](values, watch.stage)
    finally:
        watch.close()
    facts = figures.facts | machine() | {"commands": figures.facts.get("commands", {}) | {part: typed()}}
    return replace(figures, **{part: tuple(rows)}, facts=facts)


def _configs(values: dict[str, Any]) -> Any:
    """A configuration for each agent."""
    from automl.config import SearchConfig, merge, parse

    options = dict(values)
    settings = {
        "net": net_values(options),
        "data": data_values(options),
        "env": {"targets": list(values["targets"])},
        "loop": {"episodes": values["episodes"]},
    }
    return [parse(SearchConfig, merge({}, settings | {"agent": {"name": name}})) for name in _agents(values)]


def _agents(values: dict[str, Any]) -> list[str]:
    from agents.registry import AGENTS

    names = entries(values["agents"]) or ["random", "ddpg"]
    for name in names:
        AGENTS.entry(name)
    return names


def _overhead(values: dict[str, Any], tell: Any) -> Any:
    from automl.benchmarks.timed import real_player
    from automl.benchmarks.workers import measure_overhead

    configs = _configs(values)
    player = real_player(configs[0], values["episode_seconds"])
    return [measure_overhead(config, player, values["out"], tell) for config in configs]


def _speedup(values: dict[str, Any], tell: Any) -> Any:
    from automl.benchmarks.timed import real_player
    from automl.benchmarks.workers import measure_speedup

    configs = _configs(values)
    workers = _numbers("--workers", values["workers"]) or _up_to(os.cpu_count() or 1)
    player = real_player(configs[0], values["episode_seconds"])
    return [row for config in configs for row in measure_speedup(config, player, workers, values["out"], tell)]


def _busy(values: dict[str, Any], tell: Any) -> Any:
    from automl.benchmarks.workers_driver import measure_busy

    factors = _numbers("--staleness", values["staleness"]) or [2, 4, 8]
    return [
        measure_busy(
            number,
            factor,
            values["out"],
            agent=(entries(values["agents"]) or ["random"])[0],
            each=values["each"],
            layers=values["layers"],
            processes=values["processes"],
            tell=tell,
        )
        for number in _numbers("--simulated", values["simulated"]) or [16, 64, 256]
        for factor in factors
    ]


def _throughput(values: dict[str, Any], tell: Any) -> Any:
    from automl.benchmarks.workers_driver import measure_throughput

    return [
        measure_throughput(
            name, values["out"], episodes=values["driver_episodes"], layers=values["layers"], tell=tell
        )
        for name in _agents(values)
    ]  # fmt: skip


_MEASURES = {"overhead": _overhead, "speedup": _speedup, "busy": _busy, "throughput": _throughput}


def _numbers(option: str, texts: tuple[str, ...]) -> list[int]:
    from compressors.errors import UserError

    found = []
    for text in entries(texts):
        if not text.isdigit() or not int(text):
            raise UserError(f"{option} must be whole numbers of at least 1, e.g. 1,2,4, but got {text!r}.")
        found.append(int(text))
    return sorted(set(found))


def _up_to(cores: int) -> list[int]:
    """1, 2, 4 and so on, up to the machine's cores."""
    return [2**power for power in range(cores.bit_length()) if 2**power <= cores] or [1]
