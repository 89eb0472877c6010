"""Recounts a net by running it: the independent check on `compressors/cost.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def recount(net: nn.Module, example: Tensor) -> tuple[int, int]:
    """Multiply-accumulates of one input and learnable parameters of a net, counted on the net itself.

    Args:
        net: Any module.
        example: One input with its batch axis.
    """
    training = net.training
    net.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example[:1])
    net.train(training)
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in net.parameters())
