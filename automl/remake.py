"""Makes a net again: the original from its names, a compressed one from its policy."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from automl.candidate import for_inference
from automl.config import merge, parse
from automl.data import DataConfig
from automl.export import export
from automl.files import require_writable
from automl.loading import load_named
from automl.place import settle, versions
from automl.profile_cache import prepare
from automl.task import Task, task_of
from automl.zoo import NetConfig
from compressors.compressor import Compressor, CompressorConfig
from compressors.errors import UserError
from compressors.grouping import fingerprint, layer_table
from compressors.policy import CompressionPolicy, units_of
from compressors.training import DistillConfig, TrainConfig, train


@dataclass(frozen=True, eq=False)
class Original:
    """An original net, its data and a compressor that knows its layer table.

    Attributes:
        net: The net.
        task: Its data.
        compressor: Measured only if settings were given.
    """

    net: nn.Module
    task: Task
    compressor: Compressor

    @property
    def example(self) -> Tensor:
        """Some inputs, `(4, C, H, W)`."""
        return self.task.calibration[0][:4]


def load_original(net: NetConfig, data: DataConfig, compressor: CompressorConfig | None = None) -> Original:
    """Loads net and data by name; with `compressor` the net is profiled as well (from the cache where possible).

    Raises:
        UserError: Bad input, in one line.
    """
    loaded, splits = load_named(net, data)
    task = task_of(splits, batch_size=data.batch_size)
    table = layer_table(loaded.net, task.example, loaded.name)
    made = Compressor(compressor)
    if compressor is not None:
        prepare(made, loaded.net, table, task)
    else:
        made.table = table
    return Original(loaded.net, task, made)


@dataclass(frozen=True)
class Remade:
    """A net made from its policy.

    Attributes:
        identical: Whether it was, before finetuning, bit for bit the net of the search.
        why: Why not.
        accuracy_search: On the search split, at the end.
        accuracy_test: On the test split, at the end.
    """

    identical: bool
    why: str
    accuracy_search: float
    accuracy_test: float


def remake(
    policy: CompressionPolicy,
    net: dict[str, Any],
    data: dict[str, Any],
    training: TrainConfig,
    distill: DistillConfig | None,
    out: Path,
    *,
    threads: int | None = None,
    device: str = "auto",
    command: str = "",
) -> Remade:
    """Makes a policy's net from the original weights and the recorded calibration, and exports it.

    Args:
        policy: The policy.
        net: Settings of the net that replace the recorded ones.
        data: Settings of the data that replace the recorded ones.
        training: Finetuning; `epochs=0`: none.
        distill: Learn from the original net as well.
        out: Folder to write to.
        threads: Threads of torch; None: as recorded.
        device: Where to compute.
        command: What the user typed, for the record.

    Raises:
        UserError: The net or its weights are not those the policy was made for, or other bad input.
    """
    require_writable(out, f"write the export to {out}")
    details = policy.details
    recorded = details.get("threads")
    settle(threads or (recorded if isinstance(recorded, int) and recorded > 0 else None), device)
    if not ("net" in details or net.get("name")):
        raise UserError(
            "The policy was made from Python on a net of its own: name the net (--net package.module:factory) and its "
            "--weights and --data, or use automl.load_exported(folder, net)."
        )
    net_config = parse(NetConfig, merge(_section(details, "net"), net), "the policy's net")
    data_config = parse(DataConfig, merge(_section(details, "data"), data), "the policy's data")
    original = load_original(net_config, data_config)
    units_of(policy, original.compressor.table)  # refuses another net before anything is measured
    compressor = Compressor(parse(CompressorConfig, _section(details, "compressor"), "the policy's compressor"))
    prepare(compressor, original.net, original.compressor.table, original.task)
    candidate = compressor.apply(original.net, policy)
    identical, why = _compare(details, original.task, candidate)
    if training.epochs or training.steps:
        train(
            candidate, original.task.train, original.task.suit(training),
            teacher=original.net if distill else None, distill=distill,
        )  # fmt: skip
    ready = for_inference(copy.deepcopy(candidate), compressor)
    assert original.task.measure_test is not None
    accuracies = {
        "accuracy_search": original.task.measure_search(ready),
        "accuracy_test": original.task.measure_test(ready),
    }
    # The recorded accuracies are those of the search's net after its own finetuning, which this one is not.
    described = policy.with_details(accuracies=accuracies, command=command or details.get("command", ""))
    export(candidate, original.net, described, compressor, original.example, out)
    return Remade(identical, why, **accuracies)


def _section(details: dict[str, Any], name: str) -> dict[str, Any]:
    found = details.get(name)
    return found if isinstance(found, dict) else {}


def _compare(details: dict[str, Any], task: Task, candidate: nn.Module) -> tuple[bool, str]:
    if fingerprint(candidate) == details.get("before_finetune_fingerprint"):
        return True, ""
    if task.fingerprint != details.get("calibration_fingerprint"):
        return False, "the calibration images differ from the recorded ones"
    recorded = _section(details, "versions").get("torch")
    present = versions().get("torch")
    if recorded != present:
        return False, f"torch is {present}, and was {recorded}"
    return False, "the type of machine or the number of threads differs from that of the search"
