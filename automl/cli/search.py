"""`secateur search` and `secateur resume`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from automl.cli.options import (
    data_options,
    data_values,
    installed,
    machine_options,
    net_options,
    net_values,
    runs_option,
    runs_place,
    typed,
    worker_options,
    worker_plan,
)


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
@click.option(
    "--staleness",
    type=int,
    help="Episodes that the agent may lag behind. [default: 1, or twice the workers]",
)
@click.option("--finetune-steps", type=int, help="Training steps before a candidate is judged. [default: 0]")
@click.option("--search-precision", metavar="TYPE", help="bfloat16 judges candidates faster. [default: float32]")
@click.option(
    "--first-images",
    type=int,
    help="Judge candidates on so many search images first, and on more if they may matter; 0: on all. [default: 350]",
)
@click.option(
    "--stop-margin", type=float, help="Standard errors below the front that end a candidate's judging. [default: 2.5]"
)
@click.option("--members", type=int, help="Front members that are finetuned and tested. [default: 5]")
@click.option("--finetune-epochs", type=int, help="Epochs of the front's finetune; 0: none. [default: 5]")
@click.option("--finetune-lr", type=float, help="Its highest learning rate. [default: 0.05]")
@click.option(
    "--finetune-precision", metavar="TYPE", help="float32 or bfloat16, faster where there is hardware for it."
)
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
@worker_options
def search_command(**values: Any) -> None:  # fmt: skip
    """Searches how to compress a net: the front of accuracy against cost, finetuned, tested and reported.

    `secateur search --data digits` alone runs on a small net and data that come with Secateur.
    """
    from automl.config import SearchConfig, merge, parse, read_yaml
    from automl.pipeline import run_search
    from automl.preflight import check_export
    from compressors.errors import UserError

    config_file, place, export_to = values.pop("config_file"), _place(values), values.pop("export_to")
    base = read_yaml(config_file) if config_file else {}
    settings = merge(base, _settings(values, base, place.workers))
    try:
        config = parse(SearchConfig, settings)
    except UserError:
        if config_file:
            parse(SearchConfig, base, str(config_file))  # raises where the file, not an option, is wrong
        raise
    if export_to is not None:
        check_export(export_to)
    _finish(run_search(config, place), place, export_to)


@click.command("resume", short_help="Go on with a search that was stopped.")
@click.argument("run")
@click.option("--finetune-epochs", type=int, help="Epochs of the front's finetune. [default: as before]")
@click.option("--finetune-lr", type=float, help="Its highest learning rate. [default: as before]")
@runs_option
@click.option("--tracking-uri", help="Of an MLflow server. [default: SQLite in the runs folder]")
@click.option("--no-track", is_flag=True, help="Tell MLflow nothing.")
@click.option(
    "--export", "export_to", type=click.Path(path_type=Path), help="Also export the best member to this folder."
)
@machine_options
@worker_options
def resume_command(run: str, finetune_epochs: int | None, finetune_lr: float | None, **values: Any) -> None:
    """Goes on with a search that was stopped; RUN is its folder or id.

    A search that was killed gives the same trials as one that never stopped. One that is finished is only printed.
    """
    from automl.cli.results import write_member
    from automl.config import SearchConfig, merge, parse
    from automl.front import read_front
    from automl.open_run import named_config_in
    from automl.pipeline import run_search
    from automl.preflight import check_export
    from automl.remote.runs import send_rest
    from automl.runs import find_run
    from automl.search_loop import SearchInterrupted
    from compressors.errors import UserError

    found = find_run(values["runs"], run)
    values["name"], export_to = None, values.pop("export_to")
    place = _place({**values, "runs": found.folder.parent})
    config = named_config_in(found)
    training = {"epochs": finetune_epochs, "lr": finetune_lr}
    given = finetune_epochs is not None or finetune_lr is not None
    if export_to is not None:
        check_export(export_to)
    if found.front.exists():
        front = read_front(found)
        send_rest(found)
        if given:
            raise UserError(
                f"The front of {found.folder} is finetuned already. Train a member on with: secateur apply "
                f"{found.policies / front.best().trial_id}.json --finetune-epochs 20"
            )
        _print(front)
        if export_to is not None:
            write_member(found, front.best(), export_to)
        _say_more(found, [found.report] if found.report.exists() else [], place, front, export_to)
        return
    if given:
        config = parse(SearchConfig, merge(config.model_dump(), {"finetune": {"training": training}}))
    try:
        _finish(run_search(config, place, found), place, export_to)
    except SearchInterrupted:
        raise
    except KeyboardInterrupt:
        raise UserError(f"Interrupted. Go on with: secateur resume {found.address}") from None


def _place(values: dict[str, Any]) -> Any:
    from rich.console import Console

    from automl.cli.console import ConsoleWatch
    from automl.place import Place
    from automl.progress import make_progress

    console = Console(stderr=True)
    runs, remote = runs_place(values.pop("runs"))
    return Place(
        runs=runs, remote=remote, name=values.pop("name"), tracking_uri=values.pop("tracking_uri"),
        track=not values.pop("no_track"), threads=values.pop("threads"), workers=worker_plan(values),
        device=values.pop("device"), command=typed(),
        watch=ConsoleWatch(console), progress=make_progress(console),
    )  # fmt: skip


def _staleness(given: int | None, workers: Any, base: dict[str, Any]) -> int | None:
    """Enough episodes in flight that no worker waits for another, unless somebody has decided."""
    configured = base.get("loop")
    if given is not None or workers is None or (isinstance(configured, dict) and "staleness" in configured):
        return given
    return 2 * int(workers.workers)


def _settings(values: dict[str, Any], base: dict[str, Any], workers: Any) -> dict[str, Any]:
    """The options as nested settings; None where nothing was given."""
    env = ("mode", "activation_bits", "min_preserve_ratio", "channel_multiple", "residual", "reward", "l2_weight")
    loop = ("episodes", "seed")
    return {
        "net": net_values(values),
        "data": data_values(values),
        "env": {**{name: values[name] for name in env}, "targets": list(values["targets"]) or None},
        "agent": {"name": values["agent"]},
        "compressor": {name: values[name] for name in ("order", "repair", "batchnorm")},
        "loop": {**{name: values[name] for name in loop}, "staleness": _staleness(values["staleness"], workers, base)},
        "evaluation": {
            "finetune_steps": values["finetune_steps"],
            "precision": values["search_precision"],
            "first_images": values["first_images"],
            "margin": values["stop_margin"],
        },
        "finetune": {
            "members": values["members"],
            "training": {
                "epochs": values["finetune_epochs"],
                "lr": values["finetune_lr"],
                "precision": values["finetune_precision"],
            },
            "distill": _distill(values, base.get("finetune")),
        },
    }


def _distill(values: dict[str, Any], finetune: Any) -> dict[str, Any] | None:
    from automl.config import merge
    from compressors.errors import UserError
    from compressors.training import DistillConfig

    options = {"--temperature": values["temperature"], "--distill-weight": values["distill_weight"]}
    configured = finetune.get("distill") if isinstance(finetune, dict) else None
    if not values["distill"] and configured is None:
        for option, value in options.items():
            if value is not None:
                raise UserError(f"{option} needs --distill, which was not given: add it, or leave {option} out.")
        return None
    given = {"temperature": values["temperature"], "weight": values["distill_weight"]}
    if isinstance(configured, dict) and configured:
        return given
    # Written out, since a section without any setting would count as not given.
    return merge(DistillConfig().model_dump(), given)


def _finish(result: Any, place: Any, export_to: Path | None) -> None:
    _print(result.result)
    if export_to is not None:
        from automl.cli.results import say_exported

        chosen = result.best()
        say_exported(chosen, result.export(export_to, trial_id=chosen.trial_id))
    _say_more(result.run, result.reports, place, result.result, export_to)


def _print(front: Any) -> None:
    from rich.console import Console

    from automl.cli.console import front_table

    Console(width=None if Console().is_terminal else 140).print(front_table(front))


def _say_more(run: Any, reports: list[Path], place: Any, front: Any, export_to: Path | None) -> None:
    """One line each: where the report is, how to open MLflow, what to try next."""
    from automl.tracking import default_uri

    if run.remote:
        click.echo(f"Run:     {run.remote}")
    for report in reports:
        click.echo(f"Report:  {report}")
    uri = place.tracking_uri or default_uri(run.folder.parent)
    if place.track:
        served = uri.startswith(("http://", "https://"))
        opened = uri if served else shlex.join([installed("mlflow"), "ui", "--backend-store-uri", uri])
        click.echo(f"MLflow:  {opened}  (experiment {run.search_id})")
    if export_to is None:
        # Rounded up, so that the ratio finds the member that it came from.
        ratio = f"{front.best().macs_ratio + 0.005:.2f}"
        command = [installed("secateur"), "export", run.address, "--max-macs", ratio, "--out", "export"]
        click.echo(f"Next:    {shlex.join(command)}")
    else:
        program = installed("secateur")
        click.echo(f"Next:    {program} search --net resnet20 --weights FILE --data parquet:FOLDER --target macs=0.5")
