"""`secateur search` and `secateur resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl.cli.options import data_options, data_values, machine_options, net_options, net_values, runs_option, typed


@click.command("search", short_help="Search how to compress a net.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings as YAML; options win over it.")
@net_options
@data_options
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="KIND=VALUE",
    help="macs=0.5, macs=0.3..0.8, size=0.1, params=100k, bops=0.05; may be given again. [default: macs=0.5]",
)
@click.option("--mode", metavar="MODE", help="sparsity, bits or both. [default: sparsity]")
@click.option("--activation-bits", is_flag=True, default=None, help="Decide the bits of activations too.")
@click.option("--min-preserve-ratio", type=float, help="Smallest fraction of a group that is kept. [default: 0.1]")
@click.option("--channel-multiple", type=int, help="Keep channels in multiples of this. [default: 1]")
@click.option("--residual", is_flag=True, default=None, help="Cut the channels of residual sums too.")
@click.option("--reward", metavar="FORM", help="accuracy, accuracy_flops or front. [default: accuracy]")
@click.option("--l2-weight", type=float, help="Weight of the L2 errors in the reward. [default: 0.1]")
@click.option("--agent", metavar="NAME", help="Who searches; see `secateur list`. [default: ddpg]")
@click.option("--order", metavar="NAME", help="Which channels go first. [default: surgeon]")
@click.option("--repair", metavar="NAME", help="How what is left is repaired. [default: least_squares]")
@click.option("--batchnorm", metavar="HOW", help="auto, keep or reestimate. [default: auto]")
@click.option("--episodes", type=int, help="How many candidates are tried. [default: 200]")
@click.option("--seed", type=int, help="Seed of the search. [default: 0]")
@click.option("--staleness", type=int, help="How many episodes the agent may lag behind. [default: 1]")
@click.option("--finetune-steps", type=int, help="Training steps before a candidate is judged. [default: 0]")
@click.option("--members", type=int, help="Front members that are finetuned and tested. [default: 5]")
@click.option("--finetune-epochs", type=int, help="Epochs of the front's finetune; 0: none. [default: 5]")
@click.option("--finetune-lr", type=float, help="Its highest learning rate. [default: 0.02]")
@click.option("--distill", is_flag=True, help="Let the front learn from the original net as well.")
@click.option("--temperature", type=float, help="Of the distillation. [default: 4]")
@click.option("--distill-weight", type=float, help="Share of the original net in the loss, 0..1. [default: 0.5]")
@runs_option
@click.option("--name", help="Name of the run. [default: net, data and a number]")
@click.option("--tracking-uri", help="Of an MLflow server. [default: SQLite in the runs folder]")
@click.option("--no-track", is_flag=True, help="Tell MLflow nothing.")
@click.option(
    "--export", "export_to", type=click.Path(path_type=Path), help="Also export the best member to this folder."
)
@machine_options
def search_command(**values: Any) -> None:  # fmt: skip
    """Searches how to compress a net: the front of accuracy against cost, finetuned, tested and reported.

    `secateur search --data digits` alone runs on a small net and data that come with Secateur.
    """
    from automl.config import SearchConfig, merge, parse, read_yaml
    from automl.pipeline import run_search

    config_file, place, export_to = values.pop("config_file"), _place(values), values.pop("export_to")
    base = read_yaml(config_file) if config_file else {}
    settings = merge(base, _settings(values))
    result = run_search(parse(SearchConfig, settings, str(config_file or "")), place)
    _finish(result, place, export_to)


@click.command("resume", short_help="Go on with a search that was stopped.")
@click.argument("run")
@runs_option
@click.option("--tracking-uri", help="Of an MLflow server. [default: SQLite in the runs folder]")
@click.option("--no-track", is_flag=True, help="Tell MLflow nothing.")
@click.option(
    "--export", "export_to", type=click.Path(path_type=Path), help="Also export the best member to this folder."
)
@machine_options
def resume_command(run: str, **values: Any) -> None:
    """Goes on with a search that was stopped; RUN is its folder or id.

    A search that was killed gives the same trials as one that never stopped. One that is finished is only printed.
    """
    from automl.open_run import config_in
    from automl.pipeline import run_search
    from automl.runs import find_run

    found = find_run(values["runs"], run)
    values["name"], export_to = None, values.pop("export_to")
    place = _place({**values, "runs": found.folder.parent})
    _finish(run_search(config_in(found), place, found), place, export_to)


def _place(values: dict[str, Any]) -> Any:
    from rich.console import Console

    from automl.cli.console import ConsoleWatch
    from automl.place import Place
    from automl.progress import make_progress

    console = Console(stderr=True)
    return Place(
        runs=values.pop("runs"), name=values.pop("name"), tracking_uri=values.pop("tracking_uri"),
        track=not values.pop("no_track"), threads=values.pop("threads"), device=values.pop("device"), command=typed(),
        watch=ConsoleWatch(console), progress=make_progress(console),
    )  # fmt: skip


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """The options as nested settings; None where nothing was given."""
    distill = None
    if values["distill"] or values["temperature"] is not None or values["distill_weight"] is not None:
        given = {"temperature": values["temperature"], "weight": values["distill_weight"]}
        distill = {name: value for name, value in given.items() if value is not None}
    env = ("mode", "activation_bits", "min_preserve_ratio", "channel_multiple", "residual", "reward", "l2_weight")
    loop = ("episodes", "seed", "staleness")
    settings: dict[str, Any] = {
        "net": net_values(values),
        "data": data_values(values),
        "env": {**{name: values[name] for name in env}, "targets": list(values["targets"]) or None},
        "agent": {"name": values["agent"]},
        "compressor": {name: values[name] for name in ("order", "repair", "batchnorm")},
        "loop": {name: values[name] for name in loop},
        "evaluation": {"finetune_steps": values["finetune_steps"]},
        "finetune": {
            "members": values["members"],
            "training": _finetune_training(values),
        },
    }
    if distill is not None:
        settings["finetune"]["distill"] = distill or {"temperature": 4.0}
    return settings


def _finetune_training(values: dict[str, Any]) -> dict[str, Any] | None:
    from automl.front import FinetuneConfig

    given = {"epochs": values["finetune_epochs"], "lr": values["finetune_lr"]}
    given = {name: value for name, value in given.items() if value is not None}
    # The front's own defaults differ from those of a training from scratch.
    return {**FinetuneConfig().training.model_dump(), **given} if given else None


def _finish(result: Any, place: Any, export_to: Path | None) -> None:
    from rich.console import Console

    from automl.cli.console import front_table
    from automl.tracking import default_uri

    folder = result.run.folder
    Console(width=None if Console().is_terminal else 140).print(front_table(result.result))
    if export_to is not None:
        made = result.export(export_to)
        click.echo(
            f"Export:  {made.folder} (policy.json, model.pt2, model.safetensors; read back, equal to {made.largest_difference:.1e})"
        )
    for report in result.reports:
        click.echo(f"Report:  {report}")
    uri = place.tracking_uri or default_uri(folder.parent)
    if place.track:
        click.echo(f"MLflow:  mlflow ui --backend-store-uri {uri}  (experiment {result.run.search_id})")
    if export_to is None:
        click.echo(f"Next:    secateur export {folder} --max-macs {_cheapest_good(result)} --out export")
    else:
        click.echo("Next:    secateur search --data digits --target macs=0.3..0.8, or --mode both --target size=0.1")


def _cheapest_good(result: Any) -> str:
    best = result.best()
    return f"{best.macs_ratio + 0.005:.2f}"
