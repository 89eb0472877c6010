"""Opens a search's run folder, and records how each of its nets can be made again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agents.registry import AGENTS
from automl.config import SearchConfig, parse
from automl.place import Place, versions
from automl.run_info import GroupFacts, LayerFacts, RunInfo, fingerprint
from automl.runs import Run, new_run
from automl.task import Task
from compressors.compressor import Compressor
from compressors.cost import Costs
from compressors.errors import UserError
from compressors.grouping import fingerprint as net_fingerprint
from compressors.layers import LayerTable
from compressors.policy import CompressionPolicy
from envs.target import front_cost, parse_targets


@dataclass(frozen=True)
class Remake:
    """What is needed to make a net of this search again."""

    config: SearchConfig
    task: Task
    place: Place
    named: bool


def open_run(
    run: Run | None,
    place: Place,
    config: SearchConfig,
    table: LayerTable,
    task: Task,
    accuracy: float,
    costs: Costs,
    *,
    named: bool,
) -> Run:
    """A new run folder with its `config.json`, or the given one if it is of this very search.

    Args:
        run: An earlier run to go on with.
        place: Where runs lie.
        config: The search's configuration.
        table: The net's layer table.
        task: Gives the calibration data's fingerprint.
        accuracy: Of the original net on the search split.
        costs: Of the original net.
        named: Whether net and data were given by name.

    Raises:
        UserError: The run is of another search, or cannot be made.
    """
    plain = config.model_dump(mode="json")
    # The same search on other images is another search.
    plain["calibration"] = task.fingerprint
    plain["splits"] = task.record
    # How the front is finetuned changes no trial, so a search may be resumed with other settings of that.
    facts = {name: value for name, value in plain.items() if name != "finetune"}
    facts["agent"] = agent_facts(plain["agent"], config.agent.name)
    own = fingerprint(facts, table.fingerprint)
    if run is not None:
        run.require(own)
        if run.info().config != plain:
            run.write_info(run.info().model_copy(update={"config": plain}))
        return run
    data = f"-{_short(config.data.name)}" if named else ""
    run = new_run(place.runs, place.name, prefix=f"{_short(table.net)}{data}", remote=place.remote)
    run.write_info(
        RunInfo(
            search_id=run.search_id,
            config=plain,
            net=table.net,
            net_fingerprint=table.fingerprint,
            fingerprint=own,
            cost=front_cost([target.kind for target in parse_targets(config.env.targets)]),
            original={"accuracy": accuracy, **costs.as_dict()},
            layers=tuple(
                LayerFacts(name=layer.name, kind=layer.kind, macs=layer.macs, params=layer.params)
                for layer in table.layers
            ),
            groups=tuple(GroupFacts(name=group.name, size=group.size, layers=group.layers) for group in table.groups),
            command=place.command,
            versions={"python": sys.version.split()[0], **versions()},
            named=named,
            threads=torch.get_num_threads(),
        )
    )
    return run


def agent_facts(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings that matter to an agent: its own section and those that belong to no agent."""
    return {key: value for key, value in config.items() if key in ("name", name) or key not in AGENTS}


def config_in(run: Run) -> SearchConfig:
    """The configuration that a run was started with.

    Raises:
        UserError: The run has none, or one that this version does not know.
    """
    values = {name: value for name, value in run.info().config.items() if name not in ("calibration", "splits")}
    return parse(SearchConfig, values, str(run.config))


def named_config_in(run: Run) -> SearchConfig:
    """The configuration of a run whose net and data the command line can load.

    Raises:
        UserError: The run was started from Python on a net that has no name here; or as `config_in`.
    """
    if not run.info().named:
        raise UserError(
            f"The run {run.folder} was started from Python on a net of its own, which the command line cannot load: "
            "use automl.resume(run, net, splits), and .export(...) or .net(...) of its result."
        )
    return config_in(run)


def describe(
    policy: CompressionPolicy, candidate: nn.Module, compressor: Compressor, remake: Remake
) -> CompressionPolicy:
    """Adds to a policy what makes its net again, and the fingerprint by which to tell that it worked.

    Args:
        policy: The policy.
        candidate: The net that it made, before any finetuning.
        compressor: What made it.
        remake: The search.
    """
    config = remake.config
    details: dict[str, Any] = {
        "command": remake.place.command,
        "versions": versions(),
        **({name: getattr(config, name).model_dump(mode="json") for name in ("net", "data")} if remake.named else {}),
        "input_shape": list(remake.task.example.shape[1:]),
        "compressor": compressor.config.model_dump(mode="json"),
        "calibration_fingerprint": remake.task.fingerprint,
        "splits": remake.task.record,
        "before_finetune_fingerprint": net_fingerprint(candidate),
        "threads": torch.get_num_threads(),
    }
    return policy.with_details(**details)


def _short(name: str) -> str:
    return name.replace("torchvision:", "").replace("timm:", "").rstrip("/").rpartition("/")[2].rpartition(":")[2]
