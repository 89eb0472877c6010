"""From a trace to the layer table: which channels form units, which units form groups, and what stays whole."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from compressors.errors import UserError
from compressors.layers import Group, Ints, Layer, LayerTable, Pin, TensorSlice
from compressors.tracing import Call, Trace, components_of, trace
from compressors.trial_cut import violations


def layer_table(net: nn.Module, example: Tensor, name: str = "net") -> LayerTable:
    """The layer table of any net that runs.

    The net is traced, a third of each group is cut as a trial, and the cut net is traced again: groups in which some
    layer then reads other channels than expected (a hard-coded split, say) are left whole.

    Args:
        net: The net; neither changed nor kept.
        example: One input with its batch axis, `(1, C, H, W)`.
        name: Name of the net for messages and files.

    Raises:
        UserError: The net does not run on `example`, or has no weighted layer.
    """
    # Other memory formats bring operators that only restride.
    example = example[:1].clone(memory_format=torch.contiguous_format)
    try:
        full = trace(net, example)
    except Exception as error:
        raise UserError(
            f"{name} does not run on an input of shape {tuple(example.shape)}: {_first_line(error)}"
        ) from error
    if not full.calls:
        raise UserError(f"{name} has no convolution or linear layer, so there is nothing to compress.")
    extra: dict[int, str] = {}
    while True:
        table, classes = _build(net, full, example, name, extra)
        wrong = violations(net, example, table, full, classes)
        if not wrong:
            return table
        for group, operator in wrong.items():
            units = np.arange(table.num_units)[table.groups[group].units]
            extra |= dict.fromkeys(np.flatnonzero(np.isin(classes, units)).tolist(), operator)


def fingerprint(net: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a net's tensors, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _build(net: nn.Module, full: Trace, example: Tensor, name: str, extra: dict[int, str]) -> tuple[LayerTable, Ints]:
    """The table, and for each node its unit, -1 where it is pinned."""
    components = components_of(full)
    count = int(components.max()) + 1 if len(components) else 0
    reasons: dict[int, str] = {}
    for nodes, operator in full.pins:
        for component in np.unique(components[nodes]):
            reasons.setdefault(int(component), operator)
    for node, operator in extra.items():
        reasons.setdefault(int(components[node]), operator)
    calls = _unique_calls(full.calls)

    # All axes that carry nodes: (tensor, axis, component of each index).
    axes: list[tuple[str, int, Ints]] = [
        (tensor, axis, components[nodes]) for tensor, (axis, nodes) in full.nodes.items()
    ]
    for call in calls:
        if call.kind != "depthwise":
            columns = call.columns[: len(call.columns) // call.groups]
            axes.append((call.weight, 1, np.where(columns >= 0, components[columns], -1)))
    produced = np.zeros(count, dtype=bool)
    for call in calls:
        produced[components[full.nodes[call.weight][1]]] = True
    cuttable = produced.copy()
    cuttable[list(reasons)] = False

    # Components that touch the same tensors equally often form one group.
    signature: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for position, (_, _, of_axis) in enumerate(axes):
        present, counts = np.unique(of_axis[of_axis >= 0], return_counts=True)
        for component, times in zip(present.tolist(), counts.tolist(), strict=True):
            if cuttable[component]:
                signature[component].append((position, times))
    families: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    first_node = np.unique(components, return_index=True)[1]
    for component in sorted(signature, key=lambda c: int(first_node[c])):
        families[tuple(signature[component])].append(component)

    summed = np.zeros(count, dtype=bool)
    layer_of_node = _owners(full, calls)
    for pairs in full.sums:
        both = (layer_of_node[pairs[0]] >= 0) & (layer_of_node[pairs[1]] >= 0)
        summed[components[pairs[0][both]]] = True

    unit_of = np.full(count + 1, -1, dtype=np.int64)  # the last entry serves component -1
    groups: list[Group] = []
    start = 0
    names = {call.weight: call.weight.rpartition(".")[0] or call.weight for call in calls}
    for touched, members in families.items():
        tensors = [(axes[position][0], axes[position][1]) for position, _ in touched]
        layers = tuple(names[call.weight] for call in calls if (call.weight, 0) in tensors)
        consumers = tuple(names[call.weight] for call in calls if (call.weight, 1) in tensors)
        unit_of[members] = np.arange(start, start + len(members))
        inner = not summed[members].any()
        groups.append(Group(len(groups), layers[0], layers, consumers, start, len(members), bool(inner)))
        start += len(members)
    slices = tuple(
        TensorSlice(tensor, axis, unit_of[of_axis]) for tensor, axis, of_axis in axes if (unit_of[of_axis] >= 0).any()
    )
    params = {key: tuple(value.shape) for key, value in net.named_parameters()}
    buffers = {key: tuple(value.shape) for key, value in net.named_buffers() if value.is_floating_point()}
    layers_found = tuple(_layer(call, index, names[call.weight], params) for index, call in enumerate(calls))
    pins = _pins(full, calls, names, components, reasons)
    table = LayerTable(
        net=name,
        fingerprint=fingerprint(net),
        input_shape=tuple(example.shape[1:]),
        layers=layers_found,
        groups=tuple(groups),
        slices=slices,
        pins=pins,
        batchnorms=_batchnorms(full, names),
        param_shapes=params,
        buffer_shapes=buffers,
    )
    return table, unit_of[components]


def _unique_calls(calls: list[Call]) -> list[Call]:
    """One call for each layer; a layer that is used several times computes at all its positions."""
    first: dict[str, Call] = {}
    for call in calls:
        if call.weight in first:
            first[call.weight].positions += call.positions
        else:
            first[call.weight] = Call(**vars(call))
    return list(first.values())


def _owners(full: Trace, calls: list[Call]) -> Ints:
    owners = np.full(full.num_nodes, -1, dtype=np.int64)
    for index, call in enumerate(calls):
        owners[full.nodes[call.weight][1]] = index
    return owners


def _layer(call: Call, index: int, name: str, params: dict[str, tuple[int, ...]]) -> Layer:
    shape = params[call.weight]
    weights = int(np.prod(shape, dtype=np.int64))
    return Layer(
        name=name,
        kind=call.kind,
        index=index,
        in_channels=len(call.columns),
        out_channels=shape[0],
        kernel_size=shape[2:],
        stride=call.stride,
        groups=call.groups,
        positions=call.positions,
        macs=weights * call.positions,
        params=weights + (params[call.bias][0] if call.bias else 0),
        weight=call.weight,
        bias=call.bias,
    )


def _pins(
    full: Trace, calls: list[Call], names: dict[str, str], components: Ints, reasons: dict[int, str]
) -> tuple[Pin, ...]:
    pins = []
    for call in calls:
        counts: dict[str, int] = defaultdict(int)
        for component in components[full.nodes[call.weight][1]].tolist():
            if component in reasons:
                counts[reasons[component]] += 1
        pins += [Pin(names[call.weight], channels, operator) for operator, channels in counts.items()]
    return tuple(pins)


def _batchnorms(full: Trace, names: dict[str, str]) -> dict[str, str]:
    uses: dict[str, int] = defaultdict(int)
    for call in full.calls:
        uses[call.weight] += 1
    followers = list(full.batchnorms.values())
    return {
        names[weight]: statistics.rpartition(".")[0]
        for weight, statistics in full.batchnorms.items()
        if uses[weight] == 1 and full.reads.get(weight) == 1 and followers.count(statistics) == 1
    }
