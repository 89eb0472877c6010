"""What a comparison consists of: cells (net, data, target), and in each a search for every agent and seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import registry
from agents.registry import AGENTS
from automl.config import SearchConfig, merge, parse
from automl.preflight import check_config
from compressors.errors import UserError
from envs.target import parse_targets

CELL_FILE = "cell.json"
Settings = tuple[tuple[str, Any], ...]
"""Settings that are laid over a configuration, by their whole names, e.g. `env.l2_weight`."""


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        base: Settings from a file, as plain values; what is given below wins over them.
        nets: Settings of each net, as plain values; none: the base's.
        data: Settings of the data, as plain values.
        targets: Each a target or a range, and a cell of its own.
        agents: Names, or `all`.
        episodes: Length of every search.
        seeds: Seeds are 0 to this number, exclusive.
        mode: As `EnvConfig.mode`; None: the base's, else `both` for targets on size or bops.
        out: Folder of all results.
        device: Where nets run.
        command: What the user typed, for the record.
    """

    base: Mapping[str, Any]
    nets: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]
    targets: Sequence[str]
    agents: Sequence[str]
    episodes: int
    seeds: int
    mode: str | None
    out: Path
    device: str = "cpu"
    command: str = ""


@dataclass(frozen=True)
class Cell:
    """One table: a net on data under a target.

    Attributes:
        out: Folder of all results.
        config: What its searches have in common; the agent's name and the seed come from the job.
        device: Where the net runs.
        command: What the user typed.
        ablated: The agent whose parts are left out one at a time; empty where agents are compared.
    """

    out: Path
    config: SearchConfig
    device: str
    command: str
    ablated: str = ""

    @property
    def net(self) -> str:
        """Short name of the net."""
        return label(self.config.net.name)

    @property
    def data(self) -> str:
        """Short name of the data."""
        return label(self.config.data.name)

    @property
    def target(self) -> str:
        """The target as typed, in its plainest form."""
        return str(parse_targets(self.config.env.targets)[0])

    @property
    def folder(self) -> Path:
        """Where its results lie."""
        return self.out / f"{self.net}-{self.data}" / self.target

    @property
    def file(self) -> Path:
        """What its results were made with."""
        return self.folder / CELL_FILE


@dataclass(frozen=True)
class Job:
    """One search.

    Attributes:
        cell: Where it belongs.
        agent: Who searches.
        seed: Of the search.
        variant: Name in folders and tables where the agent's is not enough; empty: the agent's.
        settings: What the variant changes.
    """

    cell: Cell
    agent: str
    seed: int
    variant: str = ""
    settings: Settings = ()

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.cell.folder / (self.variant or self.agent) / f"seed-{self.seed}"

    @property
    def config(self) -> SearchConfig:
        """The configuration of its search."""
        own = (*self.settings, ("agent.name", self.agent), ("loop.seed", self.seed))
        return parse(SearchConfig, overlaid(self.cell.config.model_dump(), own))


def overlaid(values: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Plain values with some settings replaced; the given ones stay as they are."""
    found = dict(values)
    for path, value in settings:
        head, dot, rest = path.partition(".")
        found[head] = overlaid(found.get(head, {}), ((rest, value),)) if dot else value
    return found


def label(name: str) -> str:
    """A short name for folders and tables: `torchvision:resnet18` is `resnet18`, `parquet:/x/cifar10` is `cifar10`."""
    short = name.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", short).strip("-.") or "unnamed"


def plan(request: Request) -> list[Job]:
    """All searches of a request, seed by seed, so that an early stop leaves every agent with as many.

    Raises:
        UserError: Unknown names, malformed settings or targets, two nets of one name, or fewer episodes than an agent
            needs.
    """
    if request.seeds < 1:
        raise UserError(f"--seeds must be at least 1, but got {request.seeds}.")
    agents = agent_names(request.agents)
    cells = [_cell(request, net, target) for net in request.nets or ({},) for target in dict.fromkeys(request.targets)]
    _require_different(cells)
    for cell in cells:
        for agent in agents:
            _require_enough(Job(cell, agent, 0).config)
    return [Job(cell, agent, seed) for seed in range(request.seeds) for cell in cells for agent in agents]


def agent_names(given: Sequence[str]) -> list[str]:
    """Names of agents, each once; `all` is every registered one.

    Raises:
        UserError: An unknown name; the message has the nearest.
    """
    if not given:
        raise UserError(f"--agents must name at least one of {', '.join(AGENTS)}, or be `all`.")
    names: list[str] = []
    for name in given:
        names += list(AGENTS) if name == "all" else [AGENTS.entry(name).name]
    return list(dict.fromkeys(names))


def _cell(request: Request, net: Mapping[str, Any], target: str) -> Cell:
    parsed = parse_targets([target])
    if len(parsed) != 1:
        raise UserError(f"Each target is a cell of its own, but {target!r} holds {len(parsed)}.")
    given = request.base.get("env")
    mode = request.mode or (given.get("mode") if isinstance(given, Mapping) else None)
    if mode is None and parsed[0].kind in ("size", "bops"):
        mode = "both"
    over = {
        "net": net,
        "data": request.data,
        "env": {"targets": [str(parsed[0])], "mode": mode},
        "loop": {"episodes": request.episodes, "seed": 0},
    }
    base = dict(request.base)
    own = base.get("net")
    if isinstance(own, Mapping) and net.get("name") not in (None, own.get("name")):
        del base["net"]  # another net's weights and normalisation
    config = parse(SearchConfig, merge(base, over))
    check_config(config)
    return Cell(request.out, config, request.device, request.command)


def _require_different(cells: Sequence[Cell]) -> None:
    seen: dict[Path, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.folder, cell)
        if other is not cell and other.config != cell.config:
            raise UserError(
                f"Two nets share the folder {cell.folder}: {other.config.net.name} and {cell.config.net.name} with "
                "different settings. Compare them in two folders (--out)."
            )
        if other is not cell:
            raise UserError(f"The net {cell.net} with target {cell.target} is given twice; give it once.")


def _require_enough(config: SearchConfig) -> None:
    least = registry.least_episodes(config.agent)
    if config.loop.episodes < least:
        raise UserError(
            f"Agent {config.agent.name!r} needs at least {least} episodes to show anything, but got --episodes "
            f"{config.loop.episodes}: give --episodes {least} or more, or leave the agent out."
        )
