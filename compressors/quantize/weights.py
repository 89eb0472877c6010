"""Symmetric quantisation of weights with one scale for each output channel."""

from __future__ import annotations

import torch
from torch import Tensor

_SHRINK = torch.linspace(0.3, 1.0, 36)
"""Candidate clipping points, as a share of a channel's largest absolute weight."""


def levels(bits: int) -> tuple[int, int]:
    """The smallest and largest integer of a symmetric grid; with 2 bits -1..1."""
    top = 2 ** (bits - 1) - 1
    return -top, top


def weight_scales(weight: Tensor, bits: int) -> Tensor:
    """The scale of each output channel that loses least in the squared sense.

    Clipping the few largest weights pays at low widths (Banner et al. 2019, Post Training 4-bit Quantization, searches
    the same trade-off in closed form; this tries 36 clipping points).

    Args:
        weight: `(out, ...)`.
        bits: 2..8.

    Returns:
        `(out,)`, positive.
    """
    low, high = levels(bits)
    flat = weight.detach().reshape(weight.shape[0], -1)
    largest = flat.abs().amax(1).clamp_min(torch.finfo(flat.dtype).tiny * 2**10)
    scales = largest[None] * _SHRINK.to(flat)[:, None] / high  # (candidates, out)
    best = torch.full_like(largest, torch.inf)
    chosen = scales[-1].clone()
    for scale in scales:
        held = (flat / scale[:, None]).round_().clamp_(low, high).mul_(scale[:, None])
        loss = held.sub_(flat).square_().sum(1)
        better = loss < best
        best = torch.where(better, loss, best)
        chosen = torch.where(better, scale, chosen)
    return chosen


def quantize_weight(weight: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Weights on the grid of their channel, in floating point; gradients pass straight through inside the range."""
    low, high = levels(bits)
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scales.to(weight.dtype), zeros, 0, low, high)
