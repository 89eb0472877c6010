"""Follows channels through one forward pass, operator by operator.

Each tensor carries an *id tensor* of its own shape that says for every element which channel it holds, -1 for none.
Weighted layers make new ids; operators that move data are run on the id tensor itself; element-wise operators unite
the ids that meet; whatever is unknown pins its ids, so that those channels are left whole. Axes along which ids do
not change are held with stride 0, which keeps the id tensors as small as the number of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from compressors.layers import Bools, Ints

_aten = torch.ops.aten


@dataclass
class Call:
    """One use of a weighted layer.

    Attributes:
        weight: Name of the weight.
        bias: Name of the bias, or None.
        kind: `conv`, `grouped`, `depthwise` or `linear`.
        columns: Node of each input channel, -1 for none; `(in_channels,)`.
        groups: Groups of the convolution.
        stride: Stride, `()` for linear maps.
        positions: Output positions of one input.
    """

    weight: str
    bias: str | None
    kind: str
    columns: Ints
    groups: int
    stride: tuple[int, ...]
    positions: int


@dataclass
class Trace:
    """What one forward pass says about channels.

    A *node* is one index along an axis of one tensor: an output channel of a layer, or an element of a BatchNorm's weight.

    Attributes:
        nodes: For each tensor's name the axis and the nodes along it.
        calls: Uses of weighted layers in order.
        pairs: Nodes that go together, `(2, n)` each.
        sums: The pairs that a sum of two branches made.
        pins: Nodes that are left whole, with the operator.
        batchnorms: BatchNorm weight that follows a layer's weight directly.
        reads: How often each layer's output (by weight) was read.
        num_nodes: Number of nodes.
    """

    nodes: dict[str, tuple[int, Ints]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    pairs: list[Ints] = field(default_factory=list)
    sums: list[Ints] = field(default_factory=list)
    pins: list[tuple[Ints, str]] = field(default_factory=list)
    batchnorms: dict[str, str] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    num_nodes: int = 0


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
    tracer = _Tracer(net, kept or {}, full)
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


class _Tracer(TorchDispatchMode):
    def __init__(self, net: nn.Module, kept: Mapping[str, Bools], full: Trace | None) -> None:
        super().__init__()
        self.trace = Trace(num_nodes=full.num_nodes if full else 0)
        self._kept, self._full = kept, full
        self._names: dict[int, str] = {}
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            self._names.setdefault(id(tensor), name)
        self._ids: dict[int, Tensor] = {}
        self._alive: list[Any] = []  # keeps id() of traced tensors unique
        self._views: dict[int, tuple[str, Tensor]] = {}  # transposed weights of linear maps
        self._made_by: dict[int, str] = {}  # output tensor -> weight of the layer that made it

    # -- nodes and ids ------------------------------------------------------------------------------------------

    def _nodes(self, name: str, axis: int, size: int) -> Ints:
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
        found = self._ids.get(id(tensor))
        if found is None and id(tensor) in self._names:
            wide = [axis for axis, size in enumerate(tensor.shape) if size > 1]
            if len(wide) == 1:
                nodes = torch.from_numpy(self._nodes(self._names[id(tensor)], wide[0], tensor.shape[wide[0]]))
                shape = [1] * tensor.dim()
                shape[wide[0]] = -1
                found = nodes.view(shape)
                self._ids[id(tensor)] = found
        return found

    def _set(self, tensor: Any, ids: Tensor | None) -> None:
        if not isinstance(tensor, Tensor):
            return
        self._alive.append(tensor)
        if ids is None or ids.shape != tensor.shape:
            self._ids.pop(id(tensor), None)
            if ids is not None:
                self._pin_ids(ids, "a shape that could not be followed")
        else:
            self._ids[id(tensor)] = ids

    def pin(self, tensors: list[Any], operator: str) -> None:
        """Leaves whole whatever channels these tensors carry."""
        for tensor in tensors:
            ids = self._ids.get(id(tensor)) if isinstance(tensor, Tensor) else None
            if ids is not None:
                self._pin_ids(ids, operator)

    def _pin_ids(self, ids: Tensor, operator: str) -> None:
        nodes = _unique(ids)
        if len(nodes):
            self.trace.pins.append((nodes, operator))

    def _tie(self, left: Tensor, right: Tensor, *, is_sum: bool = False) -> None:
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
            if id(tensor) in self._made_by:
                weight = self._made_by[id(tensor)]
                self.trace.reads[weight] = self.trace.reads.get(weight, 0) + 1
        rule = _RULES.get(packet)
        with torch.no_grad():
            if rule is not None:
                rule(self, func, args, kwargs, outputs)
            elif torch.Tag.pointwise in func.tags or packet in _POINTWISE:
                self._pointwise(packet, flat, args, outputs)
            else:
                self._unknown(packet, flat, outputs)
        return outputs

    def _unknown(self, packet: Any, flat: list[Tensor], outputs: Any) -> None:
        self.pin(flat, packet.__name__)
        for leaf in tree_flatten(outputs)[0]:
            self._set(leaf, None)

    def _pointwise(self, packet: Any, flat: list[Tensor], args: Any, outputs: Any) -> None:
        if not isinstance(outputs, Tensor):
            return self._unknown(packet, flat, outputs)
        name, shape = packet.__name__, outputs.shape
        known = [(tensor, self.ids(tensor)) for tensor in flat if tensor.numel() > 1]
        if not any(ids is not None for _, ids in known):
            return self._set(outputs, None)
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
            if any(_varies(result, axis) for axis in spread):
                self._pin_ids(own, f"{name} (broadcast over channels)")
                continue
            if any(_varies(own, axis) for axis in first_spread):
                self._pin_ids(result, f"{name} (broadcast over channels)")
                result, first_spread = own, spread
                continue
            left, right = _shrink(result, own)
            self._tie(left, right, is_sum=name in _SUMS)
            # A constant of fixed size cannot follow a cut: padding, a position table, the input itself.
            fixed = _meets_constant(left, right)
            if len(fixed):
                self.trace.pins.append((fixed, f"{name} (with a constant of fixed size)"))
            result = torch.maximum(left, right).expand(shape)
            first_spread = [axis for axis in first_spread if axis in spread]
        inplace = bool(args) and outputs is args[0]
        if inplace and outputs._is_view() and result is not None:
            before = self._ids.get(id(outputs))
            if before is None or not torch.equal(before, result):
                self._pin_ids(result, f"{name} (in place on a view)")
        self._set(outputs, result)

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
        if bias is not None and id(bias) not in self._names:
            self.pin([x], "a layer with a computed bias")
        ids = self._ids.get(id(x))
        size = x.shape[axis]
        columns = torch.full((size,), -1)
        if ids is not None:
            moved = ids.movedim(axis, 0)
            columns = moved.reshape(size, -1)[:, 0].clone()
            if any(_varies(moved, other) for other in range(1, moved.dim())):
                spread = moved.reshape(size, -1)
                mixed = (spread < 0).any(1) & (spread >= 0).any(1)
                if mixed.any():
                    self._pin_ids(spread[mixed], "channels mixed with constants")
                columns = spread.amax(1)
                self._tie(columns[:, None].expand_as(spread), spread)
        depthwise = groups > 1 and groups == size
        kind = "linear" if len(shape) == 2 else "depthwise" if depthwise else "grouped" if groups > 1 else "conv"
        nodes = torch.from_numpy(self._nodes(weight, 0, shape[0]))
        if bias is not None and id(bias) in self._names:
            self._tie(nodes, torch.from_numpy(self._nodes(self._names[id(bias)], 0, shape[0])))
        if depthwise:
            self._tie(nodes, columns.repeat_interleave(shape[0] // groups))
            if (columns < 0).any():
                self._pin_ids(nodes, "a depthwise convolution of constants")
            if shape[0] != groups:
                self._pin_ids(nodes, "a depthwise convolution with a multiplier")
        elif groups > 1:
            # Equal counts in every group: the same positions go in each of them.
            for every in (columns.view(groups, -1), nodes.view(groups, -1)):
                self._tie(every[:1].expand_as(every), every)
            mixed = (columns.view(groups, -1) < 0).any(0) & (columns.view(groups, -1) >= 0).any(0)
            if mixed.any():
                self._pin_ids(columns.view(groups, -1)[:, mixed], "a grouped convolution of constants")
        for earlier in self.trace.calls:
            if earlier.weight == weight:
                first = torch.from_numpy(earlier.columns)
                self._tie(first, columns)
                mixed = (first < 0) != (columns < 0)
                self._pin_ids(torch.stack([first[mixed], columns[mixed]]), "a layer used twice, once on constants")
        positions = out.numel() // (shape[0] * out.shape[0]) if out.dim() > 1 else 1
        name = self._names[id(bias)] if bias is not None and id(bias) in self._names else None
        self.trace.calls.append(Call(weight, name, kind, columns.numpy(), groups, tuple(stride), positions))
        view = [1] * out.dim()
        view[axis] = shape[0]
        self._set(out, nodes.view(view).expand(out.shape))
        self._made_by[id(out)] = weight


# -- helpers on id tensors ------------------------------------------------------------------------------------------


def _varies(ids: Tensor, axis: int) -> bool:
    if ids.shape[axis] <= 1 or ids.stride(axis) == 0:
        return False
    ids = _squeeze_flat(ids, axis)
    return bool((ids != ids.narrow(axis, 0, 1)).any())


def _squeeze_flat(ids: Tensor, *but: int) -> Tensor:
    """Narrows the axes held with stride 0 to length 1, except `but`."""
    for axis in range(ids.dim()):
        if ids.shape[axis] > 1 and ids.stride(axis) == 0 and axis not in but:
            ids = ids.narrow(axis, 0, 1)
    return ids


def _shrink(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    for axis in range(left.dim()):
        if left.shape[axis] > 1 and left.stride(axis) == 0 and right.stride(axis) == 0:
            left, right = left.narrow(axis, 0, 1), right.narrow(axis, 0, 1)
    return left, right


def _compact(ids: Tensor) -> Tensor:
    shape = ids.shape
    for axis in range(ids.dim()):
        if ids.shape[axis] > 1 and (ids.stride(axis) == 0 or not _varies(ids, axis)):
            ids = ids.narrow(axis, 0, 1)
    return ids.expand(shape)


def _unique(ids: Tensor) -> Ints:
    found = np.unique(_squeeze_flat(ids).numpy())
    return found[found >= 0]


def _meets_constant(left: Tensor, right: Tensor) -> Ints:
    """Nodes of one operand that meet -1 of the other."""
    left, right = torch.broadcast_tensors(left, right)
    return np.unique(torch.cat([left[(left >= 0) & (right < 0)], right[(right >= 0) & (left < 0)]]).numpy())


# -- rules ----------------------------------------------------------------------------------------------------------

_Rule = Callable[[_Tracer, Any, Any, Any, Any], None]
_RULES: dict[Any, _Rule] = {}
_SUMS = {"add", "add_", "sub", "sub_", "rsub", "maximum", "minimum"}
_POINTWISE = {
    getattr(_aten, name)
    for name in ("hardtanh", "hardtanh_", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "silu", "silu_", "elu", "elu_",
                 "leaky_relu", "leaky_relu_", "softplus", "gelu", "mish", "mish_", "clone", "_to_copy", "detach", "alias",
                 "native_dropout", "lift_fresh", "contiguous", "copy", "celu", "celu_", "_prelu_kernel", "log_sigmoid_forward")
    if hasattr(_aten, name)
}  # fmt: skip


def _rule(*names: str) -> Callable[[_Rule], _Rule]:
    def add(rule: _Rule) -> _Rule:
        for name in names:
            if hasattr(_aten, name):
                _RULES[getattr(_aten, name)] = rule
        return rule

    return add


@_rule("convolution", "conv2d", "conv1d", "_convolution")
def _convolution(tracer: _Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    x, weight, bias, stride, _padding, _dilation, transposed, _output_padding, groups = args[:9]
    name = tracer._names.get(id(weight))
    if name is None or transposed:
        why = "a transposed convolution" if transposed else "a convolution with a computed weight"
        tracer.pin([x, weight], why)
        return tracer._set(out, None)
    return tracer.weighted(x, name, bias, weight.shape, groups, stride, out, 1)


@_rule("t", "transpose", "permute")
def _transposed(tracer: _Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    if id(args[0]) in tracer._names and args[0].dim() == 2:
        tracer._views[id(out)] = (tracer._names[id(args[0])], args[0])
        tracer._alive.append(out)
        return
    _move(tracer, func, args, kwargs, out)


@_rule("addmm", "mm", "linear")
def _linear(tracer: _Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    operator = func.overloadpacket.__name__
    if operator == "linear":
        x, weight, bias = args[0], args[1], (args[2] if len(args) > 2 else kwargs.get("bias"))
        view = (tracer._names[id(weight)], weight) if id(weight) in tracer._names else None
    else:
        bias, x, right = args if operator == "addmm" else (None, *args)
        view = tracer._views.get(id(right))
    if view is None or (bias is not None and id(bias) not in tracer._names):
        tracer.pin([leaf for leaf in args if isinstance(leaf, Tensor)], f"{operator} with a computed weight")
        return tracer._set(out, None)
    name, weight = view
    tracer.weighted(x, name, bias, weight.shape, 1, (), out, x.dim() - 1)
    # Rows of a matrix are positions of one input: the batch of a trace is one.
    tracer.trace.calls[-1].positions = x.numel() // x.shape[-1]
    return None


@_rule("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "_batch_norm_no_update",
       "batch_norm", "cudnn_batch_norm")  # fmt: skip
def _batch_norm(tracer: _Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    x = args[0]
    out = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    ids = tracer._ids.get(id(x))
    if ids is None:
        return tracer._set(out, None)
    channels = ids.movedim(1, 0).reshape(x.shape[1], -1)
    if _varies(channels, 1):
        return tracer._unknown(func.overloadpacket, [x], out)
    channels = channels[:, 0]
    for tensor in args[1:5]:
        if not isinstance(tensor, Tensor):
            continue
        if id(tensor) not in tracer._names:
            tracer.pin([x], "a BatchNorm with computed parameters")
            continue
        tracer._tie(channels, torch.from_numpy(tracer._nodes(tracer._names[id(tensor)], 0, tensor.shape[0])))
    if (channels < 0).any():
        tracer._pin_ids(channels, "a BatchNorm over constants")
    maker = tracer._made_by.get(id(x))
    statistics = args[3]
    if maker is not None and isinstance(statistics, Tensor) and id(statistics) in tracer._names:
        tracer.trace.batchnorms[maker] = tracer._names[id(statistics)]
    return tracer._set(out, ids)


@_rule("_adaptive_avg_pool2d", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d_with_indices", "max_pool2d", "adaptive_max_pool2d",
       "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "avg_pool1d", "avg_pool3d",
       "max_pool3d_with_indices", "reflection_pad2d", "replication_pad2d")  # fmt: skip
def _spatial(tracer: _Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    x = args[0]
    out = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    ids = tracer._ids.get(id(x))
    if ids is None:
        return tracer._set(out, None)
    axes = range(2, x.dim())
    if any(_varies(ids, axis) for axis in axes):
        return tracer._unknown(func.overloadpacket, [x], outputs)
    for axis in axes:
        ids = ids.narrow(axis, 0, 1)
    return tracer._set(out, ids.expand(out.shape))


@_rule("mean", "sum", "amax", "amin", "std", "var", "linalg_vector_norm")
def _reduction(tracer: _Tracer, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    x = args[0]
    ids = tracer._ids.get(id(x)) if isinstance(x, Tensor) else None
    if ids is None or not isinstance(out, Tensor):
        return tracer._unknown(func.overloadpacket, [x], out)
    schema = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(schema, args, strict=False)), **kwargs}
    dims = given.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(x.dim()))
    dims = [dim % x.dim() for dim in dims]
    if any(_varies(ids, dim) for dim in dims):
        tracer._pin_ids(ids, f"{func.overloadpacket.__name__} over channels")
        return tracer._set(out, None)
    for dim in dims:
        ids = ids.narrow(dim, 0, 1)
    return tracer._set(out, ids.expand([1 if i in dims else n for i, n in enumerate(x.shape)]).reshape(out.shape))


@_rule("_softmax", "_log_softmax", "native_layer_norm", "native_group_norm", "cumsum", "_fused_rms_norm", "rms_norm")
def _normalisation(tracer: _Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    operator = func.overloadpacket.__name__
    x = args[0]
    out = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    ids = tracer._ids.get(id(x))
    if ids is None:
        return tracer._set(out, None)
    if operator == "native_group_norm":
        axes = list(range(1, x.dim()))
    elif operator in ("native_layer_norm", "_fused_rms_norm", "rms_norm"):
        axes = list(range(x.dim() - len(args[1]), x.dim()))
    else:
        axes = [args[1] % x.dim()]
    # The statistics run over all channels: a net without some of them computes something else.
    if any(_varies(ids, axis) for axis in axes):
        tracer._pin_ids(ids, operator)
    return tracer._set(out, ids)


@_rule("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like")
def _like(tracer: _Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    tracer._set(out, tracer._ids.get(id(args[0])))


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "unsqueeze", "squeeze", "slice", "select", "split",
       "split_with_sizes", "chunk", "unbind", "cat", "stack", "constant_pad_nd", "flip", "roll", "repeat", "index_select",
       "native_channel_shuffle", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "unsafe_split", "narrow", "diagonal")  # fmt: skip
def _move(tracer: _Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    operator = func.overloadpacket.__name__
    flat = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    ids_of = {id(tensor): tracer.ids(tensor) for tensor in flat}
    leaves = [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, Tensor)]
    if all(ids is None for ids in ids_of.values()):
        for leaf in leaves:
            tracer._set(leaf, None)
        return
    if operator == "index_select" and tracer.ids(args[2]) is not None:
        return tracer._unknown(func.overloadpacket, flat, outputs)

    def swap(value: Any) -> Any:
        if isinstance(value, Tensor):
            if operator == "index_select" and value is args[2]:
                return value
            ids = ids_of[id(value)]
            return torch.full((1,), -1).expand(value.shape) if ids is None else ids
        if isinstance(value, (list, tuple)):
            return type(value)(swap(item) for item in value)
        return value

    moved_args = swap(tuple(args))
    if operator in ("view", "_unsafe_view", "reshape", "_reshape_alias"):
        source = moved_args[0]
        _tie_split(tracer, source, outputs.shape)
        moved: Any = source.reshape(outputs.shape)
    elif operator == "constant_pad_nd":
        moved = torch.constant_pad_nd(_squeeze_pad(moved_args[0], args[1]), args[1], -1).expand(outputs.shape)
    elif operator in ("cat", "stack"):
        moved = _join(func, moved_args, outputs)
    else:
        moved = func(*moved_args, **kwargs)
    if operator in ("split", "split_with_sizes", "chunk", "unbind", "slice", "unsafe_split"):
        _tie_pieces(tracer, operator, args, kwargs, moved_args[0], moved)
    elif operator in (
        "select",
        "index_select",
        "flip",
        "roll",
        "narrow",
        "repeat",
        "pixel_shuffle",
        "pixel_unshuffle",
        "diagonal",
    ):
        axes = _carried(moved_args[0])
        if operator != "repeat" or any(list(args[1])[axis - moved_args[0].dim()] > 1 for axis in axes):
            dim = args[1] if len(args) > 1 and isinstance(args[1], int) else None
            if dim is None or dim % moved_args[0].dim() in axes:
                tracer._pin_ids(moved_args[0], f"{operator} along channels")
    for leaf, ids in zip(leaves, tree_flatten(moved)[0], strict=True):
        tracer._set(leaf, _compact(ids))


def _carried(ids: Tensor) -> list[int]:
    return [axis for axis in range(ids.dim()) if _varies(ids, axis)]


def _squeeze_pad(ids: Tensor, pad: list[int]) -> Tensor:
    """Narrows axes that are neither padded nor carry channels, so that padding stays small."""
    padded = {ids.dim() - 1 - k // 2 for k, amount in enumerate(pad) if amount}
    return _squeeze_flat(ids, *padded)


def _join(func: Any, args: Any, out: Tensor) -> Tensor:
    pieces = list(args[0])
    if func.overloadpacket is _aten.stack:
        return torch.stack(pieces, *args[1:])
    axis = (args[1] if len(args) > 1 else 0) % out.dim()
    pieces = [piece for piece in pieces if piece.dim() == out.dim()]
    for other in range(out.dim()):
        if other != axis and all(piece.shape[other] <= 1 or piece.stride(other) == 0 for piece in pieces):
            pieces = [piece.narrow(other, 0, 1) for piece in pieces]
    return torch.cat(pieces, axis).expand(out.shape)


def _tie_split(tracer: _Tracer, ids: Tensor, shape: torch.Size) -> None:
    """A view that splits the channel axis into (a, b): the same position b goes in every a.

    Which of the two sizes a net's code computes from the other cannot be seen from here; `layer_table` cuts and traces
    again, and pins what does not hold.
    """
    for axis in _carried(ids):
        before = int(np.prod(ids.shape[:axis], dtype=np.int64))
        size = ids.shape[axis]
        position, product = 0, 1
        while position < len(shape) and product < before:
            product *= shape[position]
            position += 1
        while position < len(shape) and shape[position] == 1:
            position += 1
        if position >= len(shape) or product != before or shape[position] >= size:
            continue
        outer = shape[position]
        if size % outer:
            tracer._pin_ids(ids, "view")
            continue
        moved = ids.movedim(axis, 0).reshape(size, -1)
        every = moved.reshape(outer, -1)
        tracer._tie(every[:1].expand_as(every), every)


def _tie_pieces(tracer: _Tracer, operator: str, args: Any, kwargs: Any, source: Tensor, moved: Any) -> None:
    """Equal pieces of the channel axis lose the same positions; unequal ones are left whole."""
    if operator == "slice":
        axis = (args[1] if len(args) > 1 else 0) % source.dim()
        if axis not in _carried(source) or moved.shape[axis] == source.shape[axis]:
            return
        size, part = source.shape[axis], moved.shape[axis]
        start = (args[2] if len(args) > 2 and args[2] is not None else 0) % size
        step = args[4] if len(args) > 4 else 1
        if step != 1 or size % part or start % part:
            return tracer._pin_ids(source, "slice along channels")
        pieces = list(source.split(part, axis))
    else:
        axis = (
            kwargs.get("dim", args[2] if len(args) > 2 else 0)
            if operator != "unbind"
            else (args[1] if len(args) > 1 else 0)
        ) % source.dim()
        if axis not in _carried(source):
            return
        pieces = [piece.unsqueeze(axis) for piece in moved] if operator == "unbind" else list(moved)
        if operator == "unbind" or len({piece.shape[axis] for piece in pieces}) > 1:
            return tracer._pin_ids(source, f"{operator} along channels")
    for piece in pieces[1:]:
        tracer._tie(*_shrink(pieces[0], piece))
        mixed = (pieces[0] < 0) != (piece < 0)
        if mixed.any():
            tracer._pin_ids(pieces[0][mixed], f"{operator} of constants")
            tracer._pin_ids(piece[mixed], f"{operator} of constants")
    return None
