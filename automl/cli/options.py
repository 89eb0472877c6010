"""Options that several commands share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from automl.cluster.plan import WorkerPlan
from automl.remote.url import is_url
from compressors.errors import UserError

Command = TypeVar("Command", bound=Callable[..., Any])


class PathOrUrl(click.Path):
    """A path as `Path`; a URL (`s3://...`) as it is, since a path of it would lose a slash."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path or URL that was typed."""
        return value if is_url(value) else super().convert(value, param, ctx)


class LocalPath(PathOrUrl):
    """A path; a URL is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path that was typed."""
        if is_url(value):
            name = param.opts[0] if param is not None else "The path"
            raise UserError(f"{name} must be a folder that all nodes see here, not a URL, but got {value!r}.")
        return super().convert(value, param, ctx)


_NET = (
    click.option(
        "--net", "net_name", metavar="NAME", help="resnet20, torchvision:NAME, timm:NAME, package.module:factory."
    ),
    click.option("--weights", type=PathOrUrl(), help="Its weights: .pt, .pth, .th or .safetensors; a path or URL."),
    click.option("--mean", metavar="M,M,M", help="Mean of images in 0..1 that the net was trained with, by channel."),
    click.option("--std", metavar="S,S,S", help="Standard deviation, likewise."),
    click.option("--num-classes", type=int, help="Outputs of the net. [default: as many as the data has classes]"),
)
_DATA = (
    click.option("--data", "data_name", metavar="NAME",
                 help="digits, fashion-mnist, cifar10, cifar100, folder:PATH, parquet:PATH; a PATH may be a URL "
                      "(s3://, gs://, ...)."),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Where a named data set lies."),
    click.option("--download", is_flag=True, default=None,
                 help="Fetch a named data set from the network if it is missing."),
    click.option("--train-images", type=int, help="Images to train on. [default: all that are left]"),
    click.option("--calibration-images", type=int, help="Images to measure layers on. [default: 1000]"),
    click.option("--search-images", type=int, help="Images to judge candidates on. [default: 2000]"),
    click.option("--test-images", type=int, help="Images to report on. [default: all that are left]"),
    click.option("--search-from", metavar="SPLIT[:FRACTION]",
                 help="train, train:0.2, test:0.5: where the search split is cut from."),
    click.option("--image-size", type=int, help="Scale and cut images to this size."),
    click.option("--channels", type=click.Choice(["1", "3"]), help="Turn images into gray (1) or colour (3)."),
    click.option("--skip-corrupt", is_flag=True, default=None, help="Leave out images that cannot be read."),
    click.option("--data-seed", type=int, help="Seed of the splits."),
    click.option("--batch-size", type=int, help="Images at once where nothing is trained. [default: 250]"),
)  # fmt: skip
_MACHINE = (
    click.option("--threads", type=click.IntRange(1, 1024), help="Threads of torch. [default: all cores]"),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ..."),
)
runs_option = click.option(
    "--runs", type=PathOrUrl(), default=Path("runs"), show_default=True,
    help="Folder of all runs; at a URL (s3://, gs://, ...) each run is kept there as well as in the cache folder.",
)  # fmt: skip
local_runs_option = click.option(
    "--runs", type=LocalPath(), default=Path("runs"), show_default=True, help="Folder of all runs."
)


_WORKERS = (
    click.option("--workers", type=click.IntRange(0, 100_000),
                 help="Processes that play episodes, on Ray; 0: this one plays them. [default: 0]"),
    click.option("--ray-address", metavar="ADDRESS",
                 help="local (this machine), auto (the cluster that runs here), HOST:PORT, ray://HOST:PORT. "
                      "[default: local]"),
    click.option("--cpus-per-worker", type=click.IntRange(1, 1024), help="Also its threads of torch. [default: 1]"),
    click.option("--gpus-per-worker", type=click.FloatRange(0), help="May be a fraction. [default: 0]"),
    click.option("--deadline", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                 help="Stop an episode that takes longer, and try it again. [default: none]"),
    click.option("--wait", is_flag=True, help="Wait until the cluster has room for all workers."),
    click.option("--insecure", is_flag=True, help="Use a cluster that asks for no token."),
)  # fmt: skip


def _all(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


net_options = _all(_NET)
data_options = _all(_DATA)
machine_options = _all(_MACHINE)
worker_options = _all(_WORKERS)


def net_values(values: dict[str, Any]) -> dict[str, Any]:
    """Takes the net's settings out of a command's options."""
    return {
        "name": values.pop("net_name"),
        "weights": _text(values.pop("weights")),
        "num_classes": values.pop("num_classes"),
        "mean": _numbers("--mean", values.pop("mean")),
        "std": _numbers("--std", values.pop("std")),
    }


def data_values(values: dict[str, Any]) -> dict[str, Any]:
    """Takes the data's settings out of a command's options."""
    channels = values.pop("channels")
    found = {
        "name": _anywhere(values.pop("data_name")),
        "data_dir": _text(values.pop("data_dir")),
        "channels": int(channels) if channels else None,
        "seed": values.pop("data_seed"),
    }
    for name in (
        "download", "train_images", "calibration_images", "search_images", "test_images", "search_from", "image_size",
        "skip_corrupt", "batch_size",
    ):  # fmt: skip
        found[name] = values.pop(name)
    return found


def runs_place(runs: Path | str) -> tuple[Path, str]:
    """The local folder of all runs, and its URL if it is elsewhere (else empty)."""
    if not is_url(runs):
        return Path(runs), ""
    from automl.remote.copies import copies_of

    return copies_of(str(runs)), str(runs)


def _text(path: Path | str | None) -> str | None:
    # Recorded whole, so that a run can be resumed or exported from another folder.
    return path if path is None or isinstance(path, str) else str(path.expanduser().absolute())


def _anywhere(data: str | None) -> str | None:
    """`folder:PATH` and `parquet:PATH` with the whole path; a URL stays as it is."""
    kind, colon, path = (data or "").partition(":")
    local = colon and path and kind in ("folder", "parquet") and not is_url(path)
    return f"{kind}:{Path(path).expanduser().absolute()}" if local else data


def worker_plan(values: dict[str, Any]) -> WorkerPlan | None:
    """Takes the workers' settings out of a command's options; None where this process plays the episodes.

    Raises:
        UserError: Something is said about workers, but there are none.
    """
    workers = values.pop("workers") or 0
    names = ("ray_address", "cpus_per_worker", "gpus_per_worker", "deadline", "wait", "insecure")
    given = {name: value for name in names if (value := values.pop(name)) not in (None, False)}
    if not workers:
        if given:
            option = "--" + next(iter(given)).replace("_", "-")
            raise UserError(f"{option} is about workers, but there are none: add --workers N, or leave {option} out.")
        return None
    renamed = {"ray_address": "address", "deadline": "deadline_s"}
    return WorkerPlan(workers, **{renamed.get(name, name): value for name, value in given.items()})


def typed() -> str:
    """The command as the user typed it."""
    return str(click.get_current_context().find_root().obj)


def _numbers(option: str, text: str | None) -> list[float] | None:
    """Numbers separated by commas."""
    if text is None:
        return None
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise UserError(f"{option} must be numbers separated by commas, e.g. 0.5,0.5,0.5, but got {text!r}.") from None


def installed(program: str) -> str:
    """How to call a program that was installed with Secateur: its name, or its path where the name is not found."""
    beside = Path(sys.executable).parent / program
    if shutil.which(program) or not beside.exists():
        return program
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
