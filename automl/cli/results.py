"""`secateur front`, `export`, `apply`, `report` and `track`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl.cli.options import data_options, data_values, machine_options, net_options, net_values, runs_option, typed


@click.command("front", short_help="Print the front of a finished search.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@runs_option
def front_command(run: str, as_json: bool, runs: Path | str) -> None:
    """Prints the front of a finished search; RUN is its folder or id."""
    from rich.console import Console

    from automl.cli.console import front_table
    from automl.front import read_front
    from automl.runs import find_run

    front = read_front(find_run(runs, run, light=True))
    if as_json:
        click.echo(front.model_dump_json(indent=1))
    else:
        Console(width=None if Console().is_terminal else 140).print(front_table(front))


@click.command("export", short_help="Write one member of the front.")
@click.argument("run")
@click.option("--trial", help="The member; see `secateur front`.")
@click.option("--max-macs", type=float, help="The most accurate one within this ratio (at most 1) or number of MACs.")
@click.option("--min-accuracy", type=float, help="The cheapest of at least this accuracy on the search split.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@runs_option
def export_command(
    run: str, trial: str | None, max_macs: float | None, min_accuracy: float | None, out: Path, runs: Path | str
) -> None:
    """Writes policy.json, model.pt2 and model.safetensors of one member, reads them back and compares."""
    from automl.front import read_front
    from automl.preflight import check_export
    from automl.runs import find_run
    from compressors.errors import UserError

    if trial is not None and (max_macs is not None or min_accuracy is not None):
        raise UserError(
            "--trial names the member itself: leave out --max-macs and --min-accuracy, or leave out --trial."
        )
    found = find_run(runs, run)
    front = read_front(found)
    chosen = front.member(trial) if trial is not None else front.best(max_macs, min_accuracy)
    check_export(out)
    write_member(found, chosen, out)


def write_member(run: Any, chosen: Any, out: Path) -> None:
    """Exports a member of a run's front and says what it is."""
    from automl.export import export
    from automl.front import load_member
    from automl.open_run import named_config_in
    from automl.remake import load_original

    config = named_config_in(run)
    original = load_original(config.net, config.data)
    policy, net = load_member(run, chosen.trial_id, original.net, original.compressor)
    made = export(net, original.net, policy, original.compressor, original.example, out)
    say_exported(chosen, made)


def say_exported(chosen: Any, made: Any) -> None:
    """What was exported and where it lies."""
    tested = "" if chosen.accuracy_test is None else f", {chosen.accuracy_test:.2%} on the test split"
    click.echo(
        f"Trial {chosen.trial_id}: {made.macs:,} MACs ({chosen.macs_ratio:.1%} of the original), {made.params:,} "
        f"parameters, {chosen.size_bytes:,} bytes; accuracy {chosen.accuracy_finetuned:.2%} on the search split"
        f"{tested}."
    )
    click.echo(
        f"Export:  {made.folder} (policy.json, model.pt2, model.safetensors; read back, equal to "
        f"{made.largest_difference:.1e})"
    )


@click.command("apply", short_help="Make the net that a policy describes.")
@click.argument("policy", type=click.Path(path_type=Path))
@net_options
@data_options
@click.option("--finetune-epochs", type=click.IntRange(0), default=0, show_default=True, help="Train it so long.")
@click.option("--finetune-lr", type=float, default=0.05, show_default=True, help="Highest learning rate.")
@click.option("--distill", is_flag=True, help="Learn from the original net as well.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("applied"), show_default=True, help="Folder to write to."
)
@machine_options
def apply_command(
    policy: Path, out: Path, finetune_epochs: int, finetune_lr: float, distill: bool, **values: Any
) -> None:
    """Makes the net that a policy describes, from the original net's weights and the recorded calibration.

    Before finetuning it is bit for bit the net of the search, on the same type of machine, threads and torch.
    """
    from automl.config import parse
    from automl.remake import remake
    from compressors.policy import CompressionPolicy
    from compressors.training import DistillConfig, TrainConfig

    loaded = CompressionPolicy.load(policy)
    training = parse(TrainConfig, {"epochs": finetune_epochs, "lr": finetune_lr})
    threads, device = values.pop("threads"), values.pop("device")
    made = remake(
        loaded, net_values(values), data_values(values), training, DistillConfig() if distill else None, out,
        threads=threads, device=device, command=typed(),
    )  # fmt: skip
    if made.identical:
        click.echo("Before finetuning: bit for bit the net of the search.")
    else:
        click.echo(f"Before finetuning: not the very net of the search ({made.why}).")
    finetuned = f" after {finetune_epochs} epochs" if finetune_epochs else ""
    click.echo(f"Accuracy{finetuned}: search split {made.accuracy_search:.2%}, test split {made.accuracy_test:.2%}.")
    click.echo(f"Export:  {out} (policy.json, model.pt2, model.safetensors)")


@click.command("report", short_help="Write a run's report again.")
@click.argument("run")
@runs_option
def report_command(run: str, runs: Path | str) -> None:
    """Writes a run's report again, from what it has so far."""
    from automl.place import write_reports
    from automl.remote.push import send_report
    from automl.runs import find_run

    found = find_run(runs, run, light=True)
    for path in write_reports(found):
        click.echo(f"Report:  {path}")
    send_report(found)


@click.command("track", short_help="Write into MLflow what it lacks of a run.")
@click.argument("run")
@click.option("--tracking-uri", help="Of an MLflow server. [default: SQLite in the runs folder]")
@runs_option
def track_command(run: str, tracking_uri: str | None, runs: Path | str) -> None:
    """Writes into MLflow whatever of a run it does not have; doing so twice changes nothing."""
    from automl.open_run import named_config_in
    from automl.remake import load_original
    from automl.runs import find_run
    from automl.tracked import track_again
    from automl.tracking import default_uri

    found = find_run(runs, run)
    config = named_config_in(found)
    original = load_original(config.net, config.data, config.compressor)
    written = track_again(found, tracking_uri, original.net, original.compressor, original.task)
    click.echo(f"Wrote {written} trials to {tracking_uri or default_uri(found.folder.parent)}.")
