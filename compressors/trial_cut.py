"""Cuts part of a net as a trial and traces it again, to find code that fixes a number of channels."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from compressors.layers import Bools, Ints, LayerTable
from compressors.slicing import cut, keep_mask
from compressors.tracing import Trace, components_of, trace


def violations(net: nn.Module, example: Tensor, table: LayerTable, full: Trace, classes: Ints) -> dict[int, str]:
    """Groups that a trial cut shows to be wrong, each with the reason.

    Args:
        net: The original net.
        example: One input with its batch axis.
        table: The table as the trace suggests it.
        full: The trace.
        classes: For each node its unit, -1 where it stays.
    """
    everything = list(range(len(table.groups)))
    if not everything or _agrees(net, example, table, full, classes, everything):
        return {}
    wrong = {
        group: "code that fixes a number of channels"
        for group in everything
        if not _agrees(net, example, table, full, classes, [group])
    }
    # Each alone may be right and only some together wrong: then none of them is safe.
    return wrong or dict.fromkeys(everything, "code that fixes a number of channels")


def _agrees(net: nn.Module, example: Tensor, table: LayerTable, full: Trace, classes: Ints, groups: list[int]) -> bool:
    """Whether a net with some units of these groups cut reads and unites just the channels that it should."""
    kept = np.ones(table.num_units, dtype=bool)
    rng = np.random.default_rng(0)
    for index in groups:
        group = table.groups[index]
        # An odd number, so that sizes computed by rounding or fixed in code show.
        lose = min(group.size - 1, max(1, group.size // 3) | 1)
        kept[group.start + rng.permutation(group.size)[:lose]] = False
    if kept.all():
        return True
    masks: dict[str, Bools] = {
        tensor: keep_mask(classes[nodes], kept)
        for tensor, (_, nodes) in full.nodes.items()
        if (classes[nodes] >= 0).any()
    }
    try:
        smaller = trace(cut(net, table, kept), example, masks, full)
    except Exception:
        # Whatever the net's own code raises, it says that this cut does not fit it.
        return False
    units = np.concatenate([classes, np.full(smaller.num_nodes - len(classes), -1)])
    # Pinned nodes must agree one by one, cut ones unit by unit.
    same = np.where(units >= 0, units, -2 - np.arange(len(units)))
    same = np.append(same, -1)  # entry -1: no channel
    if len(smaller.calls) != len(full.calls):
        return False
    for before, after in zip(full.calls, smaller.calls, strict=True):
        stays = keep_mask(np.append(classes, -1)[before.columns], kept)
        if before.weight != after.weight or not np.array_equal(same[before.columns[stays]], same[after.columns]):
            return False
    components = components_of(full)
    for pairs in smaller.pairs:
        if pairs.max() >= len(components) or (components[pairs[0]] != components[pairs[1]]).any():
            return False
    return True
