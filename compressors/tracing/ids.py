"""Helpers on id tensors. Axes along which ids do not change are held with stride 0."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compressors.layers import Ints


def varies(ids: Tensor, axis: int) -> bool:
    """Whether ids change along an axis."""
    if ids.shape[axis] <= 1 or ids.stride(axis) == 0:
        return False
    ids = narrow_flat(ids, axis)
    return bool((ids != ids.narrow(axis, 0, 1)).any())


def narrow_flat(ids: Tensor, *but: int) -> Tensor:
    """Narrows the axes held with stride 0 to length 1, except `but`."""
    for axis in range(ids.dim()):
        if ids.shape[axis] > 1 and ids.stride(axis) == 0 and axis not in but:
            ids = ids.narrow(axis, 0, 1)
    return ids


def shrink(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Narrows the axes held with stride 0 in both operands to length 1."""
    for axis in range(left.dim()):
        if left.shape[axis] > 1 and left.stride(axis) == 0 and right.stride(axis) == 0:
            left, right = left.narrow(axis, 0, 1), right.narrow(axis, 0, 1)
    return left, right


def compact(ids: Tensor) -> Tensor:
    """The same ids, every axis along which they do not change held with stride 0."""
    shape = ids.shape
    for axis in range(ids.dim()):
        if ids.shape[axis] > 1 and (ids.stride(axis) == 0 or not varies(ids, axis)):
            ids = ids.narrow(axis, 0, 1)
    return ids.expand(shape)


def unique(ids: Tensor) -> Ints:
    """All nodes among ids."""
    found = np.unique(narrow_flat(ids).numpy())
    return found[found >= 0]


def meets_constant(left: Tensor, right: Tensor) -> Ints:
    """Nodes of one operand that meet -1 of the other."""
    left, right = torch.broadcast_tensors(left, right)
    return np.unique(torch.cat([left[(left >= 0) & (right < 0)], right[(right >= 0) & (left < 0)]]).numpy())
