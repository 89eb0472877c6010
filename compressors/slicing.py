"""Makes a net really smaller: every tensor that carries a removed unit loses it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compressors.layers import Bools, Ints, LayerTable


def keep_mask(units: Ints, kept: Bools) -> Bools:
    """Which indices of an axis stay.

    Args:
        units: Unit of each index, -1 where it always stays; `(size,)`.
        kept: Whether each unit is kept; `(units,)`.
    """
    mask = np.ones(len(units), dtype=bool)
    cut = units >= 0
    mask[cut] = kept[units[cut]]
    return mask


def cut(net: nn.Module, table: LayerTable, kept: Bools, replace: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A copy of `net` without the units that are not kept; the input net is untouched.

    Args:
        net: The net that `table` was made from.
        table: Its layer table.
        kept: Whether each unit is kept; `(units,)`.
        replace: New values, already in the smaller shape, for some tensors (repaired weights), by name.

    Returns:
        A plain module with fewer channels, sharing no memory with `net`.
    """
    replace = replace or {}
    memo: dict[int, object] = {}
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if name in replace:
            smaller = replace[name].detach().clone()
        elif name in table.slices_of:
            smaller = tensor.detach()
            for piece in table.slices_of[name]:
                mask = keep_mask(piece.units, kept)
                if not mask.all():
                    smaller = smaller.index_select(piece.axis, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device))
            smaller = smaller.clone() if smaller.data_ptr() == tensor.data_ptr() else smaller
        else:
            continue
        memo[id(tensor)] = nn.Parameter(smaller, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else smaller
    smaller_net = copy.deepcopy(net, memo)
    refresh_attributes(smaller_net)
    return smaller_net


def refresh_attributes(net: nn.Module) -> None:
    """Brings `out_channels`, `num_features` and the like in line with the tensors."""
    for module in net.modules():
        if isinstance(module, nn.modules.conv._ConvNd) and not module.transposed:
            if module.groups > 1 and module.groups == module.in_channels:
                module.groups = module.weight.shape[0] * module.groups // module.out_channels
            module.out_channels = module.weight.shape[0]
            module.in_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.num_features = module.running_mean.shape[0]
        elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
            module.num_parameters = module.weight.shape[0]
