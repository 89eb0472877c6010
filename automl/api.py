"""The Python API: a search on a user's own net, data, metric and loss."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from automl.config import SearchConfig
from automl.data.splits import Splits
from automl.open_run import config_in
from automl.pipeline import search_net
from automl.place import Place
from automl.result import SearchResult
from automl.runs import find_run
from automl.task import Loaders, Measure, task_of
from automl.zoo import LoadedNet
from compressors.errors import UserError
from compressors.grouping import layer_table
from compressors.policy import CompressionPolicy
from compressors.storage import load_packed
from compressors.training.regimes import LossFunction


def search(
    net: nn.Module | LoadedNet,
    splits: Splits | Loaders,
    config: SearchConfig | None = None,
    *,
    evaluate: Measure | None = None,
    evaluate_test: Measure | None = None,
    loss: LossFunction | None = None,
    name: str = "net",
    place: Place | None = None,
) -> SearchResult:
    """Searches how to compress a net, finetunes the front and returns it.

    Args:
        net: Any trained module that runs on the calibration inputs; it is put into evaluation mode, its weights are
            not changed. A net from `automl.load_net` brings its name, and the normalisation that it expects of
            `Splits`.
        splits: From `automl.load_splits`, or a user's own `Loaders`.
        config: Settings; its `net` and `data` are not used.
        evaluate: Judges a net, any metric for which more is better; None: accuracy on the search split.
        evaluate_test: Reports, once, after the choice; None: accuracy on the test split unless `evaluate` is given.
        loss: Of outputs and labels, for finetuning; None: cross-entropy.
        name: Name of the net, for run folder and messages.
        place: Where runs lie, tracking, threads, device.

    Raises:
        UserError: Bad input, in one line.
        SearchInterrupted: Ctrl-C or SIGTERM; `resume` goes on.
    """
    net, splits, own_name = _taken_apart(net, splits)
    task = task_of(splits, evaluate=evaluate, evaluate_test=evaluate_test, loss=loss)
    return search_net(net, task, config or SearchConfig(), place or Place(), name=own_name or name)


def resume(
    run: str | Path,
    net: nn.Module | LoadedNet,
    splits: Splits | Loaders,
    *,
    evaluate: Measure | None = None,
    evaluate_test: Measure | None = None,
    loss: LossFunction | None = None,
    place: Place | None = None,
) -> SearchResult:
    """Goes on with a search that was stopped; `run` is its folder or id, the rest as it was given to `search`.

    Raises:
        UserError: There is no such run, or net, data or settings are not those of the run.
    """
    place = place or Place()
    found = find_run(place.runs, run)
    net, splits, _ = _taken_apart(net, splits)
    task = task_of(splits, evaluate=evaluate, evaluate_test=evaluate_test, loss=loss)
    return search_net(net, task, config_in(found), place, name=found.info().net, run=found)


def load_exported(folder: str | Path, net: nn.Module | LoadedNet) -> nn.Module:
    """The compressed net from an export folder, in evaluation mode, ready to be run or trained on.

    Its inputs are normalised as those of the original net. Quantised weights are unpacked to their values.

    Args:
        folder: Holds `policy.json` and `model.safetensors`.
        net: The original net, which gives the structure; untouched.

    Raises:
        UserError: A file is missing or damaged, or the net is not the one that was compressed.
    """
    original = net.net if isinstance(net, LoadedNet) else net
    policy = CompressionPolicy.load(Path(folder) / "policy.json")
    shape = policy.details.get("input_shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise UserError(f"{folder}/policy.json must say the shape of an input under details.input_shape.")
    table = layer_table(original, torch.zeros(1, *shape), policy.net)
    return load_packed(original, table, policy, Path(folder) / "model.safetensors")


def _taken_apart(
    net: nn.Module | LoadedNet, splits: Splits | Loaders
) -> tuple[nn.Module, Splits | Loaders, str | None]:
    """Net, splits as the net expects them, and the net's own name if it has one."""
    if not isinstance(net, LoadedNet):
        return net, splits, None
    fitting = splits.normalised(net.mean, net.std) if isinstance(splits, Splits) else splits
    return net.net, fitting, net.name
