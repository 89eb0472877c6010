"""`secateur train`, `layers`, `profile` and `list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from automl.cli.jobs import address_option, print_jobs
from automl.cli.options import data_options, data_values, machine_options, net_options, net_values

_TRAINING = ("epochs", "steps", "lr", "label_smoothing", "weight_decay", "precision", "seed")


def _load(values: dict[str, Any], *, pretrained: bool = True, seed: int | None = None) -> tuple[Any, Any]:
    """The net and the data that options name."""
    from automl.config import parse
    from automl.data import DataConfig
    from automl.loading import load_named
    from automl.zoo import NetConfig

    given_net = {name: value for name, value in net_values(values).items() if value is not None}
    given_data = {name: value for name, value in data_values(values).items() if value is not None}
    net, data = parse(NetConfig, given_net), parse(DataConfig, given_data)
    return load_named(net, data, pretrained=pretrained, seed=data.seed if seed is None else seed)


@click.command("train", short_help="Train or finetune a net.")
@net_options
@data_options
@click.option("--epochs", type=click.IntRange(0), default=10, show_default=True, help="Passes over the training split.")
@click.option("--steps", type=click.IntRange(0), help="Training steps, instead of epochs.")
@click.option("--lr", type=float, default=0.05, show_default=True, help="Highest learning rate.")
@click.option("--train-batch-size", type=click.IntRange(1), default=128, show_default=True, help="Images of one step.")
@click.option("--label-smoothing", type=float, default=0.0, show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16 is nearly twice as fast where there is hardware for it.",
)
@click.option("--weight-decay", type=float, default=5e-4, show_default=True)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of initial weights and order."
)
@click.option("--force", is_flag=True, help="Write over weights that are there already.")
@click.option("--distill-from", type=click.Path(path_type=Path), help="Weights of a teacher of the same architecture.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the weights go. [default: NET-DATA.safetensors]")
@machine_options
def train_command(**values: Any) -> None:
    """Trains a net from scratch, or finetunes it if --weights is given; writes .safetensors.

    The weights that come with Secateur are made by:
    secateur train --net resnet8_digits --data digits --epochs 60 --train-batch-size 32 --label-smoothing 0.1
    """
    from rich.console import Console

    from automl.cli.console import ConsoleWatch
    from automl.config import parse
    from automl.files import require_writable
    from automl.place import settle
    from automl.training import train_net
    from automl.weights import load_weights, save_weights
    from compressors.errors import UserError
    from compressors.training import TrainConfig

    device = settle(values.pop("threads"), values.pop("device"))
    settings = {name: values.pop(name) for name in _TRAINING}
    config = parse(TrainConfig, {**settings, "batch_size": values.pop("train_batch_size")})
    out, teacher_weights, force = values.pop("out"), values.pop("distill_from"), values.pop("force")
    loaded, splits = _load(values, pretrained=False, seed=config.seed)
    out = out or Path(f"{_file_name(loaded.name)}-{_file_name(str(splits.record['data']))}.safetensors")
    if out.suffix.lower() != ".safetensors":
        raise UserError(f"Weights are written as .safetensors, but --out is {str(out)!r}.")
    require_writable(out.parent, f"write the weights {out}")
    if out.exists() and not force:
        raise UserError(f"{out} exists, and runs may depend on it: name another file with --out, or pass --force.")
    teacher = None
    if teacher_weights is not None:
        import copy

        teacher = copy.deepcopy(loaded.net)
        load_weights(teacher, teacher_weights)
    console = Console(stderr=True)
    watch = ConsoleWatch(console)
    console.print(f"Training {loaded.name} on {len(splits.train):,} images.", highlight=False)
    trained = train_net(
        loaded, splits, config, teacher=teacher, device=device,
        progress=lambda done, total, loss: watch.stage("train", done, total),
    )  # fmt: skip
    watch.close()
    save_weights(loaded.net, out, name=loaded.name, num_classes=loaded.num_classes)
    click.echo(
        f"Accuracy: search split {trained.accuracy_before:.2%} -> {trained.accuracy_after:.2%}, "
        f"test split {trained.accuracy_test:.2%}, in {trained.result.seconds:.1f} s. Weights: {out}"
    )


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name.rpartition("/")[2])


@click.command("layers", short_help="Print a net's layers and groups.")
@net_options
@data_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def layers_command(as_json: bool, **values: Any) -> None:
    """Prints every layer with shapes and costs, its group, and what is left whole and why."""
    import dataclasses
    import json

    from rich.console import Console
    from rich.table import Table

    from automl.cli.console import scaled
    from compressors.grouping import layer_table

    loaded, splits = _load(values)
    table = layer_table(loaded.net, splits.example, loaded.name)
    groups: dict[str, list[str]] = {layer.name: [] for layer in table.layers}
    for group in table.groups:
        for name in group.layers:
            groups[name].append(f"{group.index}")
    if as_json:
        document = {
            "net": table.net,
            "fingerprint": table.fingerprint,
            "layers": [
                {**dataclasses.asdict(layer), "groups": [int(g) for g in groups[layer.name]]} for layer in table.layers
            ],
            "groups": [dataclasses.asdict(group) for group in table.groups],
            "pins": [dataclasses.asdict(pin) for pin in table.pins],
        }
        click.echo(json.dumps(document, indent=1))
        return
    total = sum(layer.macs for layer in table.layers)
    shown = Table(title=f"{table.net}: {len(table.layers)} layers, {len(table.groups)} groups", title_justify="left")
    for title in ("layer", "kind", "in", "out", "kernel", "stride", "MACs", "share", "parameters", "group"):
        shown.add_column(title, justify="left" if title in ("layer", "kind", "group") else "right")
    for layer in table.layers:
        shown.add_row(
            layer.name, layer.kind, str(layer.in_channels), str(layer.out_channels),
            "x".join(map(str, layer.kernel_size)), "x".join(map(str, layer.stride)),
            scaled(layer.macs, ("", "k", "M", "G"), 1000), f"{layer.macs / total:.1%}",
            scaled(layer.params, ("", "k", "M", "G"), 1000), ", ".join(groups[layer.name]) or "whole",
        )  # fmt: skip
    Console(width=None if Console().is_terminal else 140).print(shown)
    params = sum(_size(shape) for shape in table.param_shapes.values())
    click.echo(f"In all: {scaled(total, ('', 'k', 'M', 'G'), 1000)} MACs, {params:,} parameters.")
    for group in table.groups:
        if len(group.layers) > 1:
            click.echo(f"Group {group.index}: {group.size} units, each of {', '.join(group.layers)}.")
    for pin in table.pins:
        click.echo(f"Left whole: {pin.channels} channels of {pin.layer}, by {pin.operator}.")


def _size(shape: tuple[int, ...]) -> int:
    import math

    return math.prod(shape)


@click.command("profile", short_help="Measure how much each layer can lose.")
@net_options
@data_options
@click.option("--order", default="surgeon", show_default=True, help="Which channels go first.")
@click.option("--memory-mib", type=int, help="Bound on second moments, in MiB. [default: 2048]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("profile.png"),
    show_default=True,
    help="Picture: .png, .svg, .pdf.",
)
@machine_options
def profile_command(order: str, memory_mib: int | None, out: Path, **values: Any) -> None:  # fmt: skip
    """Prints each group's relative L2 error by fraction kept, and each layer's by bits; writes a picture."""
    from rich.console import Console

    from automl.cli.console import ConsoleWatch
    from automl.cli.sensitivity import check_picture, draw, print_tables
    from automl.config import parse
    from automl.place import settle
    from automl.profile_cache import prepare
    from automl.task import task_of
    from compressors.compressor import Compressor, CompressorConfig
    from compressors.grouping import layer_table

    settle(values.pop("threads"), values.pop("device"))
    check_picture(out)
    settings: dict[str, Any] = {"order": order}
    if memory_mib is not None:
        settings["memory_mib"] = memory_mib
    compressor = Compressor(parse(CompressorConfig, settings))
    loaded, splits = _load(values)
    task = task_of(splits)
    table = layer_table(loaded.net, task.example, loaded.name)
    watch = ConsoleWatch(Console(stderr=True))
    profile = prepare(compressor, loaded.net, table, task, watch.stage)
    watch.close()
    print_tables(Console(width=None if Console().is_terminal else 140), table, profile)
    for note in profile.notes:
        click.echo(note)
    draw(table, profile, out)
    click.echo(f"Picture: {out}")


@click.command("list", short_help="List the names that commands take.")
@click.argument("what", required=False)
@address_option
def list_command(what: str | None, address: str | None) -> None:
    """Lists the names of nets, data, agents, orders, repairs, rewards and targets.

    `secateur list jobs` lists the searches that are jobs of a Ray cluster.
    """
    if what is not None or address is not None:
        from compressors.errors import one_of

        if what != "jobs":
            raise one_of("list", what or "", ["jobs"])
        print_jobs(address)
        return
    from rich.console import Console
    from rich.table import Table

    from agents.registry import AGENTS
    from automl.zoo import NETS
    from compressors.cost import COSTS
    from compressors.repair import REPAIRS
    from compressors.select import SELECTORS
    from envs.reward import REWARDS

    table = Table(show_header=False, box=None)
    for registry in (NETS, AGENTS, SELECTORS, REPAIRS, REWARDS):
        table.add_row(f"[bold]{registry.kind}[/bold]", "", "")
        for name in registry:
            entry = registry.entry(name)
            table.add_row(f"  {name}", entry.summary, entry.source)
    Console(width=None if Console().is_terminal else 160).print(table)
    click.echo("More nets: torchvision:NAME, timm:NAME, package.module:factory.")
    click.echo("Data: digits, fashion-mnist, cifar10, cifar100, folder:PATH, parquet:PATH.")
    click.echo(f"Targets: {', '.join(COSTS)}.")
