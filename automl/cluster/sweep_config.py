"""What a sweep consists of: a base configuration, axes, and the grid of all searches that they make."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from automl.config import SearchConfig, merge, parse, read_yaml
from automl.preflight import check_config
from automl.remote.url import is_url
from automl.zoo import NETS
from automl.zoo.external import torchvision_names
from compressors.errors import UserError, one_of
from compressors.repair import REPAIRS
from compressors.select import SELECTORS
from envs.target import parse_targets

AXES = ("nets", "targets", "agents", "compressors", "seeds")
"""The axes of a sweep, outermost first."""
_LONGEST = 200
"""Letters that the name of a run folder may have."""


@dataclass(frozen=True)
class Search:
    """One search of a sweep.

    Attributes:
        name: Of its run folder; begins with the sweep's name.
        net: Short name of the net.
        target: What it must reach.
        agent: Who searches.
        compressor: Order and repair, and what else the axis names.
        seed: Of the search.
        config: Its configuration.
    """

    name: str
    net: str
    target: str
    agent: str
    compressor: str
    seed: int
    config: SearchConfig


@dataclass(frozen=True)
class _Point:
    """One value of an axis: how it is called, and what it sets."""

    label: str
    settings: Mapping[str, Any]


def read_sweep(path: Path, name: str, staleness: int) -> list[Search]:
    """The searches that a file asks for.

    Args:
        path: The YAML file: `base` holds a search's settings, each axis a list.
        name: Of the sweep.
        staleness: Of the searches, where the file does not say.

    Raises:
        UserError: The file cannot be read, or an axis, a name or a setting in it is wrong.
    """
    return plan_sweep(read_yaml(path), name, staleness, str(path))


def plan_sweep(values: Mapping[str, Any], name: str, staleness: int = 1, where: str = "the sweep") -> list[Search]:
    """The grid of all axes over the base; an axis that is not given has the base's value alone.

    Args:
        values: `base` and the axes.
        name: Of the sweep.
        staleness: Of the searches, where the base does not say.
        where: Where the values come from, for messages.

    Raises:
        UserError: An axis, a name or a setting is wrong, or two searches are the same.
    """
    for key in values:
        if key not in ("base", *AXES):
            raise one_of(f"setting of a sweep in {where},", str(key), ("base", *AXES))
    base = values.get("base")
    base = {} if base is None else base
    if not isinstance(base, Mapping):
        raise UserError(f"base in {where} must hold the settings of a search, but holds {type(base).__name__}.")
    plain = parse(SearchConfig, base, f"base of {where}")
    check_config(plain)
    _require_net(plain.net.name)
    readers: dict[str, Callable[[Any], _Point]] = {
        "nets": _net, "targets": _target, "agents": _agent, "compressors": _compressor, "seeds": _seed,
    }  # fmt: skip
    axes = {axis: _points(values, axis, readers[axis], where) for axis in AXES}
    loop = base.get("loop")
    decided = isinstance(loop, Mapping) and "staleness" in loop
    base = base if decided else merge(base, {"loop": {"staleness": staleness}})
    return [_search(name, base, points, where) for points in product(*axes.values())]


def _points(values: Mapping[str, Any], axis: str, read: Callable[[Any], _Point], where: str) -> list[_Point]:
    if axis not in values:
        return [_Point("", {})]
    entries = values[axis]
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"{axis} in {where} must be a list with at least one entry, e.g. {_EXAMPLES[axis]}, but got {entries!r}."
        )
    points: list[_Point] = []
    for entry in entries:
        try:
            point = read(entry)
        except UserError as error:
            raise UserError(f"{axis} in {where}: {error}") from None
        if any(point.settings == other.settings for other in points):
            raise UserError(f"{axis} in {where} names {point.label} twice: give it once.")
        points.append(point)
    return _told_apart(points)


_EXAMPLES = {
    "nets": "[resnet20, {name: resnet56, weights: resnet56.pt}]",
    "targets": "[macs=0.5, macs=0.3]",
    "agents": "[ddpg, tpe]",
    "compressors": "[surgeon+least_squares, l1+none]",
    "seeds": "[0, 1, 2]",
}


def _told_apart(points: Sequence[_Point]) -> list[_Point]:
    """Numbers labels that several points have, so that each has a name of its own."""
    found: list[_Point] = []
    for point in points:
        taken = {other.label for other in found}
        label, number = point.label, 2
        while label in taken:
            label, number = f"{point.label}-{number}", number + 1
        found.append(_Point(label, point.settings))
    return found


def _net(entry: Any) -> _Point:
    if isinstance(entry, str):
        name, equals, weights = entry.partition("=")
        entry = {"name": name.strip(), **({"weights": weights.strip()} if equals else {})}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise UserError(f"an entry must be a name, NAME=WEIGHTS or a section with a name, but got {entry!r}.")
    _require_net(entry["name"])
    file = entry.get("weights")
    label = short(entry["name"]) + (f"-{short(Path(str(file)).stem)}" if file else "")
    return _Point(label, {"net": _whole(dict(entry))})


def _require_net(name: str) -> None:
    """Refuses a name that no machine knows; what needs other packages or the user's module is tried out later."""
    family, colon, rest = name.partition(":")
    if not colon and name not in NETS:
        if name in torchvision_names():
            raise UserError(f"Unknown net {name!r}. Did you mean 'torchvision:{name}'?")
        raise one_of("net", name, [*NETS, "torchvision:NAME", "timm:NAME", "package.module:factory"])
    if family == "torchvision" and rest not in torchvision_names():
        raise one_of("torchvision net", rest, torchvision_names())


def _target(entry: Any) -> _Point:
    texts = [entry] if isinstance(entry, str) else entry
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"an entry must be a target, e.g. macs=0.5, or a list of several, but got {entry!r}.")
    targets = [str(target) for target in parse_targets(texts)]
    return _Point(",".join(targets), {"env": {"targets": targets}})


def _agent(entry: Any) -> _Point:
    from agents.registry import AGENTS

    if not isinstance(entry, str):
        raise UserError(f"an entry must be an agent's name, but got {entry!r}; its settings belong to base.")
    AGENTS.entry(entry)
    return _Point(entry, {"agent": {"name": entry}})


def _compressor(entry: Any) -> _Point:
    if isinstance(entry, str):
        order, plus, repair = (part.strip() for part in entry.partition("+"))
        if not plus:
            raise UserError(f"an entry must be ORDER+REPAIR, e.g. surgeon+least_squares, or a section, not {entry!r}.")
        entry = {"order": order, "repair": repair}
    if not isinstance(entry, Mapping) or not entry:
        raise UserError(f"an entry must be ORDER+REPAIR or a section with settings, but got {entry!r}.")
    checked = parse(SearchConfig, {"compressor": entry}).compressor
    SELECTORS.entry(checked.order)
    REPAIRS.entry(checked.repair)
    more = [f"{key}={value}" for key, value in entry.items() if key not in ("order", "repair")]
    return _Point("+".join((checked.order, checked.repair, *more)), {"compressor": dict(entry)})


def _seed(entry: Any) -> _Point:
    if isinstance(entry, bool) or not isinstance(entry, int) or entry < 0:
        raise UserError(f"an entry must be a whole number of at least 0, but got {entry!r}.")
    return _Point(str(entry), {"loop": {"seed": entry}})


def _search(name: str, base: Mapping[str, Any], points: Sequence[_Point], where: str) -> Search:
    settings: dict[str, Any] = dict(base)
    for point in points:
        net, own = point.settings.get("net"), settings.get("net")
        if net and isinstance(own, Mapping) and own.get("name") != net["name"]:
            del settings["net"]  # another net's weights and normalisation
        settings = merge(settings, point.settings)
    config = parse(SearchConfig, _whole_paths(settings), where)
    check_config(config)
    net, target, agent, compressor, seed = (point.label for point in points)
    net, agent = net or short(config.net.name), agent or config.agent.name
    target = target or ",".join(str(one) for one in parse_targets(config.env.targets))
    compressor = compressor or f"{config.compressor.order}+{config.compressor.repair}"
    seed = seed or str(config.loop.seed)
    run = "-".join((name, net, target.replace("=", ""), agent, compressor.replace("+", "-"), f"seed{seed}"))
    run = re.sub(r"[^A-Za-z0-9._-]+", "_", run)
    if len(run) > _LONGEST:
        raise UserError(f"The search {run} has a name of {len(run)} letters, at most {_LONGEST}: shorten --name.")
    return Search(run, net, target, agent, compressor, int(seed), config)


def short(name: str) -> str:
    """A short name for folders and tables: `torchvision:resnet18` is `resnet18`."""
    last = name.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "unnamed"


def _whole_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with whole paths, since workers may run in another folder."""
    found = dict(settings)
    if isinstance(found.get("net"), Mapping):
        found["net"] = _whole(dict(found["net"]))
    data = found.get("data")
    if isinstance(data, Mapping):
        data = dict(data)
        kind, colon, path = str(data.get("name") or "").partition(":")
        if colon and path and kind in ("folder", "parquet") and not is_url(path):
            data["name"] = f"{kind}:{Path(path).expanduser().absolute()}"
        if data.get("data_dir"):
            data["data_dir"] = str(Path(str(data["data_dir"])).expanduser().absolute())
        found["data"] = data
    return found


def _whole(net: dict[str, Any]) -> dict[str, Any]:
    weights = net.get("weights")
    if isinstance(weights, str) and weights and not is_url(weights):
        net["weights"] = str(Path(weights).expanduser().absolute())
    return net
