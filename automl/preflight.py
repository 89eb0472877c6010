"""What can be refused before anything takes time: names, targets, places that cannot be written to."""

from __future__ import annotations

from pathlib import Path

from agents.registry import AGENTS
from automl.config import SearchConfig
from automl.data.splits import parse_search_from
from automl.files import require_writable
from automl.place import Place
from automl.remote.runs import check_remote
from automl.runs import Run, require_free
from compressors.cost import CostModel
from compressors.layers import LayerTable
from compressors.repair import REPAIRS
from compressors.select import SELECTORS
from envs.budget import check_reachable, limits_of
from envs.decisions import DecisionSpace
from envs.reward import REWARDS
from envs.target import parse_targets


def check_config(config: SearchConfig) -> None:
    """Checks what needs neither net nor data.

    Raises:
        UserError: An unknown agent, reward, order or repair, or a malformed target or split.
    """
    AGENTS.entry(config.agent.name)
    REWARDS.entry(config.env.reward)
    SELECTORS.entry(config.compressor.order)
    for repair in (config.compressor.repair, *config.finetune.repairs):
        REPAIRS.entry(repair)
    parse_targets(config.env.targets)
    parse_search_from(config.data.search_from)


def check_place(place: Place, run: Run | None) -> None:
    """Checks that the run's folder can be made, or the given run be written to.

    Raises:
        UserError: The name is taken or no name for a folder, or the folder cannot be written to; likewise where runs
            are kept elsewhere as well.
    """
    if run.remote if run is not None else place.remote:
        check_remote(place.remote, place.name, run)
    if run is not None:
        require_writable(run.folder, f"write to the run {run.folder}")
        return
    if place.name is not None:
        require_free(place.runs, place.name)
    require_writable(place.runs, f"make a run in {place.runs}")


def check_targets(config: SearchConfig, table: LayerTable) -> None:
    """Checks that the net can meet the targets, before its layers are measured.

    Raises:
        UserError: One is out of reach; the message says what the smallest reachable value is.
    """
    space, costs = DecisionSpace(table, config.env), CostModel(table)
    limits = limits_of({target.kind: target.low for target in parse_targets(config.env.targets)}, costs.original)
    check_reachable(space, costs, costs.of(space.smallest()), limits)


def check_export(folder: Path) -> None:
    """Checks that an export can be written.

    Raises:
        UserError: It cannot.
    """
    require_writable(folder, f"write the export to {folder}")
