"""The dispatch mode that carries ids beside the tensors of a forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from compressors.layers import Bools, Ints
from compressors.tracing.ids import meets_constant, shrink, unique, varies
from compressors.tracing.operators import POINTWISE, RULES, SUMS
from compressors.tracing.records import Call, Trace


def trace(net: nn.Module, example: Tensor, kept: Mapping[str, Bools] | None = None, full: Trace | None = None) -> Trace:
    """Traces one forward pass.

    Args:
        net: Any module that runs on `example`; it is run in eval mode, without gradients, and left as it was.
        example: One batch of inputs, `(1, C, H, W)` for images.
        kept: For a cut net: which nodes of each tensor of the full net it still has.
        full: The full net's trace; a cut net's nodes get the same numbers.

    Returns:
        The trace.

    Raises:
        Exception: Whatever the net's forward raises.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    tracer = Tracer(net, kept or {}, full)
    try:
        with torch.no_grad(), tracer:
            outputs = net(example)
    finally:
        for module, training in modes.items():
            module.training = training
    for leaf in tree_flatten(outputs)[0]:
        if isinstance(leaf, Tensor):
            tracer.pin([leaf], "output of the net")
    return tracer.trace


class Tracer(TorchDispatchMode):
    """Sees every operator of a forward pass and keeps ids for its tensors.

    Args:
        net: The net that is run.
        kept: For a cut net: which nodes of each tensor of the full net it still has.
        full: The full net's trace.
    """

    def __init__(self, net: nn.Module, kept: Mapping[str, Bools], full: Trace | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace(num_nodes=full.num_nodes if full else 0)
        self._kept, self._full = kept, full
        self.names: dict[int, str] = {}
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            self.names.setdefault(id(tensor), name)
        self.held: dict[int, Tensor] = {}
        self.alive: list[Any] = []  # keeps id() of traced tensors unique
        self.views: dict[int, tuple[str, Tensor]] = {}  # transposed weights of linear maps
        self.made_by: dict[int, str] = {}  # output tensor -> weight of the layer that made it

    # -- nodes and ids ------------------------------------------------------------------------------------------

    def nodes(self, name: str, axis: int, size: int) -> Ints:
        """The nodes along the cut axis of a parameter or buffer, `(size,)`; made at the first call."""
        if name not in self.trace.nodes:
            if self._full is not None and name in self._full.nodes:
                nodes = self._full.nodes[name][1]
                nodes = nodes[self._kept[name]] if name in self._kept else nodes
                if len(nodes) != size:
                    raise ValueError(f"{name} has {size} entries, expected {len(nodes)}")
            else:
                nodes = np.arange(self.trace.num_nodes, self.trace.num_nodes + size)
                self.trace.num_nodes += size
            self.trace.nodes[name] = (axis, nodes)
        return self.trace.nodes[name][1]

    def ids(self, tensor: Tensor) -> Tensor | None:
        """The tensor's ids, or None where it carries none."""
        found = self.held.get(id(tensor))
        if found is None and id(tensor) in self.names:
            wide = [axis for axis, size in enumerate(tensor.shape) if size > 1]
            if len(wide) == 1:
                nodes = torch.from_numpy(self.nodes(self.names[id(tensor)], wide[0], tensor.shape[wide[0]]))
                shape = [1] * tensor.dim()
                shape[wide[0]] = -1
                found = nodes.view(shape)
                self.held[id(tensor)] = found
        return found

    def set(self, tensor: Any, ids: Tensor | None) -> None:
        """Gives a tensor ids; None, or ids that do not fit, leave it without."""
        if not isinstance(tensor, Tensor):
            return
        self.alive.append(tensor)
        if ids is None or ids.shape != tensor.shape:
            self.held.pop(id(tensor), None)
            if ids is not None:
                self.pin_ids(ids, "a shape that could not be followed")
        else:
            self.held[id(tensor)] = ids

    def pin(self, tensors: list[Any], operator: str) -> None:
        """Leaves whole whatever channels these tensors carry."""
        for tensor in tensors:
            ids = self.held.get(id(tensor)) if isinstance(tensor, Tensor) else None
            if ids is not None:
                self.pin_ids(ids, operator)

    def pin_ids(self, ids: Tensor, operator: str) -> None:
        """Leaves whole the channels among ids."""
        nodes = unique(ids)
        if len(nodes):
            self.trace.pins.append((nodes, operator))

    def tie(self, left: Tensor, right: Tensor, *, is_sum: bool = False) -> None:
        """Unites the nodes that stand at the same places."""
        pairs = torch.stack([left.reshape(-1), right.reshape(-1)])
        pairs = pairs[:, (pairs[0] >= 0) & (pairs[1] >= 0) & (pairs[0] != pairs[1])]
        if pairs.shape[1]:
            found = torch.unique(pairs, dim=1).numpy()
            self.trace.pairs.append(found)
            if is_sum:
                self.trace.sums.append(found)

    # -- dispatch -----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        packet = func.overloadpacket
        flat = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        for tensor in flat:
            if id(tensor) in self.made_by:
                weight = self.made_by[id(tensor)]
                self.trace.reads[weight] = self.trace.reads.get(weight, 0) + 1
        rule = RULES.get(packet)
        with torch.no_grad():
            if rule is not None:
                rule(self, func, args, kwargs, outputs)
            elif torch.Tag.pointwise in func.tags or packet in POINTWISE:
                self._pointwise(packet, flat, args, outputs)
            else:
                self.unknown(packet, flat, outputs)
        return outputs

    def unknown(self, packet: Any, flat: list[Tensor], outputs: Any) -> None:
        """Pins all inputs of an operator that is not known."""
        self.pin(flat, packet.__name__)
        for leaf in tree_flatten(outputs)[0]:
            self.set(leaf, None)

    def _pointwise(self, packet: Any, flat: list[Tensor], args: Any, outputs: Any) -> None:
        if not isinstance(outputs, Tensor):
            return self.unknown(packet, flat, outputs)
        name, shape = packet.__name__, outputs.shape
        known = [(tensor, self.ids(tensor)) for tensor in flat if tensor.numel() > 1]
        if not any(ids is not None for _, ids in known):
            return self.set(outputs, None)
        result: Tensor | None = None
        for tensor, ids in known:
            padded = [1] * (len(shape) - tensor.dim()) + list(tensor.shape)
            own = (torch.full((1,), -1).expand(tensor.shape) if ids is None else ids).reshape(padded)
            spread = [axis for axis in range(len(shape)) if padded[axis] == 1 and shape[axis] > 1]
            own = own.expand(shape)
            if result is None:
                result, first_spread = own, spread
                continue
            # What is broadcast along an axis of channels has no part in them: it must itself stay whole.
            if any(varies(result, axis) for axis in spread):
                self.pin_ids(own, f"{name} (broadcast over channels)")
                continue
            if any(varies(own, axis) for axis in first_spread):
                self.pin_ids(result, f"{name} (broadcast over channels)")
                result, first_spread = own, spread
                continue
            left, right = shrink(result, own)
            self.tie(left, right, is_sum=name in SUMS)
            # A constant of fixed size cannot follow a cut: padding, a position table, the input itself.
            fixed = meets_constant(left, right)
            if len(fixed):
                self.trace.pins.append((fixed, f"{name} (with a constant of fixed size)"))
            result = torch.maximum(left, right).expand(shape)
            first_spread = [axis for axis in first_spread if axis in spread]
        inplace = bool(args) and outputs is args[0]
        if inplace and outputs._is_view() and result is not None:
            before = self.held.get(id(outputs))
            if before is None or not torch.equal(before, result):
                self.pin_ids(result, f"{name} (in place on a view)")
        self.set(outputs, result)

    # -- weighted layers ----------------------------------------------------------------------------------------

    def weighted(
        self,
        x: Tensor,
        weight: str,
        bias: Tensor | None,
        shape: torch.Size,
        groups: int,
        stride: Any,
        out: Tensor,
        axis: int,
    ) -> None:
        """Records one use of a convolution or linear map whose input channels lie along `axis` of `x`."""
        if bias is not None and id(bias) not in self.names:
            self.pin([x], "a layer with a computed bias")
        ids = self.held.get(id(x))
        size = x.shape[axis]
        columns = torch.full((size,), -1)
        if ids is not None:
            moved = ids.movedim(axis, 0)
            columns = moved.reshape(size, -1)[:, 0].clone()
            if any(varies(moved, other) for other in range(1, moved.dim())):
                spread = moved.reshape(size, -1)
                mixed = (spread < 0).any(1) & (spread >= 0).any(1)
                if mixed.any():
                    self.pin_ids(spread[mixed], "channels mixed with constants")
                columns = spread.amax(1)
                self.tie(columns[:, None].expand_as(spread), spread)
        depthwise = groups > 1 and groups == size
        kind = "linear" if len(shape) == 2 else "depthwise" if depthwise else "grouped" if groups > 1 else "conv"
        nodes = torch.from_numpy(self.nodes(weight, 0, shape[0]))
        if bias is not None and id(bias) in self.names:
            self.tie(nodes, torch.from_numpy(self.nodes(self.names[id(bias)], 0, shape[0])))
        if depthwise:
            self.tie(nodes, columns.repeat_interleave(shape[0] // groups))
            if (columns < 0).any():
                self.pin_ids(nodes, "a depthwise convolution of constants")
            if shape[0] != groups:
                self.pin_ids(nodes, "a depthwise convolution with a multiplier")
        elif groups > 1:
            # Equal counts in every group: the same positions go in each of them.
            for every in (columns.view(groups, -1), nodes.view(groups, -1)):
                self.tie(every[:1].expand_as(every), every)
            mixed = (columns.view(groups, -1) < 0).any(0) & (columns.view(groups, -1) >= 0).any(0)
            if mixed.any():
                self.pin_ids(columns.view(groups, -1)[:, mixed], "a grouped convolution of constants")
        for earlier in self.trace.calls:
            if earlier.weight == weight:
                first = torch.from_numpy(earlier.columns)
                self.tie(first, columns)
                mixed = (first < 0) != (columns < 0)
                self.pin_ids(torch.stack([first[mixed], columns[mixed]]), "a layer used twice, once on constants")
        positions = out.numel() // (shape[0] * out.shape[0]) if out.dim() > 1 else 1
        name = self.names[id(bias)] if bias is not None and id(bias) in self.names else None
        self.trace.calls.append(Call(weight, name, kind, columns.numpy(), groups, tuple(stride), positions))
        view = [1] * out.dim()
        view[axis] = shape[0]
        self.set(out, nodes.view(view).expand(out.shape))
        self.made_by[id(out)] = weight
