"""Puts weights on their grid once, so that inference does not do it for every batch."""

from __future__ import annotations

import torch
from torch import nn

from compressors.quantize.modules import FULL_BITS, _Quantized


def bake_weights(net: nn.Module) -> nn.Module:
    """Replaces, in place, the weights of quantised layers by the values that they are held at.

    Inputs are still quantised where the layer says so. The same net computes the same outputs.
    """
    for module in net.modules():
        if isinstance(module, _Quantized) and module.weight_bits < FULL_BITS:
            with torch.no_grad():
                module.weight = nn.Parameter(module.held_weight().detach(), False)
            module.weight_bits = FULL_BITS
    return net
