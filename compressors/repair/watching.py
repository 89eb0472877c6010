"""Runs a net and reports its layers as they are reached, and the sums of two branches that their outputs go into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from compressors.layers import Layer, LayerTable

_ADDS = (torch.ops.aten.add, torch.ops.aten.add_)

OnLayer = Callable[[Layer, nn.Module, Tensor], None]
"""Takes a layer, its module and its input, before it computes."""

OnSum = Callable[[str, Tensor, Tensor, str | None], Tensor | None]
"""Takes a layer's name, its operand of a sum, the other one, and the layer that made that; may give a new operand."""


def watch(
    net: nn.Module,
    table: LayerTable,
    layers: list[Layer],
    batches: Sequence[Tensor],
    on_layer: OnLayer,
    on_sum: OnSum,
) -> Counter[str]:
    """Runs a net in evaluation mode and without gradients; it is left as it was, up to what the callbacks do.

    Args:
        net: The net.
        table: Its layer table.
        layers: The layers to report.
        batches: Inputs, `(N, C, H, W)` each.
        on_layer: Called before a layer computes.
        on_sum: Called where the output of a layer, or of the BatchNorm that alone follows it, is added to a tensor of
            the same shape; once for each operand that is such an output.

    Returns:
        How often each layer's output, or that of its BatchNorm, was read over all batches.
    """
    modules = dict(net.named_modules())
    sums = _Sums(on_sum)

    def before(layer: Layer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Sequence[Any]) -> None:
            sums.paused = True
            on_layer(layer, module, inputs[0])
            sums.paused = False

        return hook

    def after(layer: Layer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if isinstance(outputs, Tensor):
                sums.made[id(outputs)] = (layer.name, outputs)

        return hook

    handles = []
    for layer in layers:
        handles.append(modules[layer.name].register_forward_pre_hook(before(layer)))
        tail = modules[table.batchnorms.get(layer.name, layer.name)]
        handles.append(tail.register_forward_hook(after(layer)))
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad(), sums:
            for batch in batches:
                net(batch)
                sums.made.clear()
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return sums.reads


class _Sums(TorchDispatchMode):
    """Sees where the outputs of layers go, and reports those that go into a sum of two branches."""

    def __init__(self, on_sum: OnSum) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_sum = on_sum
        self.made: dict[int, tuple[str, Tensor]] = {}
        self.reads: Counter[str] = Counter()
        self.paused = False  # while a layer is being fitted, which reads its input as well

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        for leaf in tree_flatten((args, kwargs))[0]:
            if id(leaf) in self.made:
                self.reads[self.made[id(leaf)][0]] += 1
        if func.overloadpacket in _ADDS and not kwargs and _alike(args):
            makers = [self.made[id(arg)][0] if id(arg) in self.made else None for arg in args]
            for index, name in enumerate(makers):
                new = None if name is None else self.on_sum(name, args[index], args[1 - index], makers[1 - index])
                if new is not None:
                    args[index].copy_(new)
        if func._schema.is_mutable and args:
            self.made.pop(id(args[0]), None)
        return func(*args, **kwargs)


def _alike(args: Any) -> bool:
    return len(args) == 2 and all(isinstance(arg, Tensor) for arg in args) and args[0].shape == args[1].shape
