"""What the original net computes at the sampled positions of a layer, and what stands between a layer and a sum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressors.layers import Layer, LayerTable


@dataclass(frozen=True)
class Target:
    """What the original net computed at the sampled positions of one layer.

    Attributes:
        values: The layer's outputs less the running mean of its BatchNorm, or the sum they went into; `(rows, out)`.
        summed: Whether it is the sum.
        gain: What the BatchNorm multiplies by, 1 without, infinite where a sum gets nothing of a channel; `(out,)`.
        offset: What it adds; `(out,)`.
        variance: Its running variance; `(out,)`.
    """

    values: Tensor
    summed: bool
    gain: Tensor
    offset: Tensor
    variance: Tensor


def matrices(module: nn.Module, groups: int) -> Tensor:
    """The weight as one matrix for each block; `(groups, out / groups, columns)` float32."""
    weight = module.get_parameter("weight").detach().float().cpu()
    return weight.reshape(groups, len(weight) // groups, -1)


def intercept(net: nn.Module, table: LayerTable, layer: Layer) -> Tensor:
    """What a layer adds before its BatchNorm scales: its bias less the running mean; `(out,)`."""
    weight = net.get_parameter(layer.weight)
    found = torch.zeros(len(weight)) if layer.bias is None else net.get_parameter(layer.bias).detach().float().cpu()
    norm = table.batchnorms.get(layer.name)
    return found if norm is None else found - net.get_buffer(f"{norm}.running_mean").float().cpu()


def normalisation(net: nn.Module, table: LayerTable, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
    """Gain, offset and running variance of the BatchNorm behind a layer; `(out,)` each."""
    ones = torch.ones(layer.out_channels)
    if layer.name not in table.batchnorms:
        return ones, torch.zeros_like(ones), ones
    norm = net.get_submodule(table.batchnorms[layer.name])
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None
    variance = norm.running_var.detach().float().cpu().clone()
    gain = (variance + norm.eps).rsqrt()
    if not norm.affine:
        return gain, torch.zeros_like(ones), variance
    return gain * norm.weight.detach().float().cpu(), norm.bias.detach().float().cpu().clone(), variance
