"""The content of a run's `config.json`: what a search was asked to do, and on what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

VERSION = 1


class LayerFacts(BaseModel):
    """What people want to see of one layer.

    Attributes:
        name: Module path.
        kind: `conv`, `grouped`, `depthwise` or `linear`.
        macs: Multiply-accumulates of one input.
        params: Weights plus biases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    macs: int
    params: int


class GroupFacts(BaseModel):
    """What people want to see of one group.

    Attributes:
        name: Name of its head.
        size: Units.
        layers: Layers whose output channels are cut with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    layers: tuple[str, ...]


class RunInfo(BaseModel):
    """The content of `config.json`: what a search was asked to do, on what.

    Attributes:
        version: Version of this file's form.
        search_id: Name of the run and of its folder.
        config: The whole configuration, as plain values.
        net: Name of the net.
        net_fingerprint: Fingerprint of the net's tensors.
        fingerprint: `fingerprint(config, net_fingerprint)`; resume and checkpoints must agree with it.
        cost: The cost of the front, one of `macs`, `params`, `size`, `bops`.
        original: The original net: `accuracy`, `macs`, `flops`, `params`, `size_bytes`, `bops`.
        layers: In the order of a record's bits.
        groups: In the order of a record's kept units.
        command: The command that started it, or empty.
        versions: Versions of what it ran with.
        named: Whether net and data were given by name, so that the command line can load them again.
        threads: Threads of torch; results depend on them in the last bits, so a resumed search uses as many.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = VERSION
    search_id: str
    config: dict[str, Any]
    net: str
    net_fingerprint: str
    fingerprint: str
    cost: str = "macs"
    original: dict[str, int | float]
    layers: tuple[LayerFacts, ...] = ()
    groups: tuple[GroupFacts, ...] = ()
    command: str = ""
    versions: dict[str, str] = {}
    named: bool = True
    threads: int | None = None


def fingerprint(config: Mapping[str, Any], net_fingerprint: str) -> str:
    """SHA-256, in hex, of a configuration (plain values) and the net it is for."""
    text = json.dumps({"config": config, "net": net_fingerprint}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
