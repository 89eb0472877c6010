"""Rules for operators that move data: they are run on the id tensor itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from compressors.tracing.ids import compact, narrow_flat, shrink, varies
from compressors.tracing.rules import rule

if TYPE_CHECKING:
    from compressors.tracing.tracer import Tracer


@rule("t", "transpose", "permute")
def _transposed(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    if id(args[0]) in tracer.names and args[0].dim() == 2:
        tracer.views[id(out)] = (tracer.names[id(args[0])], args[0])
        tracer.alive.append(out)
        return
    _move(tracer, func, args, kwargs, out)


@rule(
    *"view _unsafe_view reshape _reshape_alias expand unsqueeze squeeze slice select narrow diagonal".split(),
    *"split split_with_sizes unsafe_split chunk unbind cat stack constant_pad_nd flip roll repeat index_select".split(),
    *"native_channel_shuffle channel_shuffle pixel_shuffle pixel_unshuffle".split(),
)
def _move(tracer: Tracer, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    operator = func.overloadpacket.__name__
    flat = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    ids_of = {id(tensor): tracer.ids(tensor) for tensor in flat}
    leaves = [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, Tensor)]
    if all(ids is None for ids in ids_of.values()):
        for leaf in leaves:
            tracer.set(leaf, None)
        return
    if operator == "index_select" and tracer.ids(args[2]) is not None:
        return tracer.unknown(func.overloadpacket, flat, outputs)

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
                tracer.pin_ids(moved_args[0], f"{operator} along channels")
    for leaf, ids in zip(leaves, tree_flatten(moved)[0], strict=True):
        tracer.set(leaf, compact(ids))


def _carried(ids: Tensor) -> list[int]:
    return [axis for axis in range(ids.dim()) if varies(ids, axis)]


def _squeeze_pad(ids: Tensor, pad: list[int]) -> Tensor:
    """Narrows axes that are neither padded nor carry channels, so that padding stays small."""
    padded = {ids.dim() - 1 - k // 2 for k, amount in enumerate(pad) if amount}
    return narrow_flat(ids, *padded)


def _join(func: Any, args: Any, out: Tensor) -> Tensor:
    pieces = list(args[0])
    if func.overloadpacket is torch.ops.aten.stack:
        return torch.stack(pieces, *args[1:])
    axis = (args[1] if len(args) > 1 else 0) % out.dim()
    pieces = [piece for piece in pieces if piece.dim() == out.dim()]
    for other in range(out.dim()):
        if other != axis and all(piece.shape[other] <= 1 or piece.stride(other) == 0 for piece in pieces):
            pieces = [piece.narrow(other, 0, 1) for piece in pieces]
    return torch.cat(pieces, axis).expand(out.shape)


def _tie_split(tracer: Tracer, ids: Tensor, shape: torch.Size) -> None:
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
            tracer.pin_ids(ids, "view")
            continue
        moved = ids.movedim(axis, 0).reshape(size, -1)
        every = moved.reshape(outer, -1)
        tracer.tie(every[:1].expand_as(every), every)


def _tie_pieces(tracer: Tracer, operator: str, args: Any, kwargs: Any, source: Tensor, moved: Any) -> None:
    """Equal pieces of the channel axis lose the same positions; unequal ones are left whole."""
    if operator == "slice":
        axis = (args[1] if len(args) > 1 else 0) % source.dim()
        if axis not in _carried(source) or moved.shape[axis] == source.shape[axis]:
            return
        size, part = source.shape[axis], moved.shape[axis]
        start = (args[2] if len(args) > 2 and args[2] is not None else 0) % size
        step = args[4] if len(args) > 4 else 1
        if step != 1 or size % part or start % part:
            return tracer.pin_ids(source, "slice along channels")
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
            return tracer.pin_ids(source, f"{operator} along channels")
    for piece in pieces[1:]:
        tracer.tie(*shrink(pieces[0], piece))
        mixed = (pieces[0] < 0) != (piece < 0)
        if mixed.any():
            tracer.pin_ids(pieces[0][mixed], f"{operator} of constants")
            tracer.pin_ids(piece[mixed], f"{operator} of constants")
    return None
