"""The compression policy: what is kept of each layer, and with how many bits. The file `policy.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compressors.cost import FULL_BITS, Allocation, Costs
from compressors.errors import UserError
from compressors.layers import Bools, LayerTable
from compressors.slicing import keep_mask

SCHEMA_VERSION = 1


class LayerPolicy(BaseModel):
    """What becomes of one layer.

    Attributes:
        name: Path of the module in the net.
        preserve_ratio: Fraction of the output channels kept, in (0, 1].
        kept: Indices of the output channels kept.
        total: Output channels of the original layer.
        weight_bits: 2..8, or 32 for not quantised.
        activation_bits: Bits of the layer's input, 2..8, or 32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    preserve_ratio: float = Field(gt=0, le=1)
    kept: tuple[int, ...]
    total: int = Field(ge=1)
    weight_bits: int = FULL_BITS
    activation_bits: int = FULL_BITS

    @model_validator(mode="after")
    def _check(self) -> LayerPolicy:
        if (
            not self.kept
            or sorted(set(self.kept)) != list(self.kept)
            or self.kept[-1] >= self.total
            or self.kept[0] < 0
        ):
            raise ValueError(
                f"kept must be increasing channel indices in 0..{self.total - 1}, at least one, for layer {self.name!r}"
            )
        for what in ("weight_bits", "activation_bits"):
            if getattr(self, what) not in (*range(2, 9), FULL_BITS):
                raise ValueError(f"{what} must be 2..8 or 32, but got {getattr(self, what)} for layer {self.name!r}")
        return self


class CompressionPolicy(BaseModel):
    """What becomes of a net.

    Attributes:
        schema_version: Version of this file format.
        net: Name of the net.
        fingerprint: SHA-256 of the original net's tensors.
        layers: In order of execution.
        costs: Costs of the compressed net: macs, flops, params, size_bytes, bops.
        original: The same of the original net.
        details: What else is known: accuracies, the command, versions, how to make the net again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    net: str
    fingerprint: str
    layers: tuple[LayerPolicy, ...]
    costs: dict[str, int]
    original: dict[str, int]
    details: dict[str, Any] = Field(default_factory=dict)

    def with_details(self, **details: Any) -> CompressionPolicy:
        """A copy with more details."""
        return self.model_copy(update={"details": {**self.details, **details}})

    def save(self, path: Path) -> None:
        """Writes the policy as JSON."""
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> CompressionPolicy:
        """Reads a policy.

        Raises:
            UserError: No such file, or it is not a policy of this version.
        """
        try:
            document = json.loads(path.read_text())
        except OSError as error:
            raise UserError(f"Cannot read the policy {path}: {error.strerror}.") from error
        except (ValueError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not JSON, so it is no policy: {error}.") from error
        if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
            found = document.get("schema_version") if isinstance(document, dict) else None
            raise UserError(f"{path} must have schema_version {SCHEMA_VERSION}, but has {found}.")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} is no valid policy: {first['msg']} (at {where or 'top'}).") from error


def make_policy(
    table: LayerTable, kept: Bools, allocation: Allocation, costs: Costs, original: Costs
) -> CompressionPolicy:
    """The policy that keeps these units.

    Args:
        table: The layer table.
        kept: Whether each unit is kept; `(units,)`.
        allocation: Gives the bits.
        costs: Costs of the compressed net.
        original: Costs of the original net.
    """
    layers = []
    for index, layer in enumerate(table.layers):
        channels = range(layer.out_channels)
        units = table.axis_units(layer.weight, 0)
        stays = tuple(channels) if units is None else tuple(np.flatnonzero(keep_mask(units, kept)).tolist())
        layers.append(
            LayerPolicy(
                name=layer.name,
                preserve_ratio=len(stays) / layer.out_channels,
                kept=stays,
                total=layer.out_channels,
                weight_bits=int(allocation.weight_bits[index]),
                activation_bits=int(allocation.activation_bits[index]),
            )
        )
    return CompressionPolicy(
        net=table.net,
        fingerprint=table.fingerprint,
        layers=tuple(layers),
        costs=costs.as_dict(),
        original=original.as_dict(),
    )


def units_of(policy: CompressionPolicy, table: LayerTable) -> Bools:
    """Which units a policy keeps; `(units,)`.

    Raises:
        UserError: The policy is for another net, or cuts channels apart that go together.
    """
    if policy.fingerprint != table.fingerprint:
        raise UserError(
            f"The policy was made for net {policy.net!r} with fingerprint {policy.fingerprint[:12]}, but this net "
            f"({table.net!r}) has {table.fingerprint[:12]}: give the net and the weights that it was made from."
        )
    names = [layer.name for layer in table.layers]
    if [layer.name for layer in policy.layers] != names:
        raise UserError(f"The policy must list the layers of {table.net!r} in order: {', '.join(names[:3])}, ...")
    kept = np.ones(table.num_units, dtype=bool)
    masks = {}
    for layer, entry in zip(table.layers, policy.layers, strict=True):
        if entry.total != layer.out_channels:
            raise UserError(
                f"Layer {layer.name!r} has {layer.out_channels} channels, but the policy says {entry.total}."
            )
        mask = np.zeros(layer.out_channels, dtype=bool)
        mask[list(entry.kept)] = True
        masks[layer.name] = mask
        units = table.axis_units(layer.weight, 0)
        if units is not None:
            lost = units[~mask]
            kept[lost[lost >= 0]] = False
    for layer in table.layers:
        units = table.axis_units(layer.weight, 0)
        expected = keep_mask(units, kept) if units is not None else np.ones(layer.out_channels, dtype=bool)
        wrong = np.flatnonzero(expected != masks[layer.name])
        if len(wrong):
            raise UserError(
                f"The policy cuts channels apart that only go together: channel {wrong[0]} of layer {layer.name!r}."
            )
    return kept


def allocation_of(policy: CompressionPolicy, table: LayerTable) -> Allocation:
    """The allocation behind a policy; raises like `units_of`."""
    kept = units_of(policy, table)
    counts = np.bincount(table.unit_groups[kept], minlength=len(table.groups)).astype(np.int64)
    return Allocation(
        counts,
        np.array([layer.weight_bits for layer in policy.layers], dtype=np.int64),
        np.array([layer.activation_bits for layer in policy.layers], dtype=np.int64),
    )
