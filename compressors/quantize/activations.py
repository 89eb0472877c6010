"""The range of a layer's input activations."""

from __future__ import annotations

import torch
from torch import Tensor

_SHRINK = torch.linspace(0.2, 1.0, 33)


def activation_range(samples: Tensor, bits: int) -> tuple[float, int]:
    """Scale and zero point of the per-tensor grid 0 .. 2**bits - 1 that loses least on a sample.

    Args:
        samples: Values of the tensor, `(n,)`.
        bits: 2..8.

    Returns:
        Scale and zero point; values that are never negative get zero point 0.
    """
    top = 2**bits - 1
    if not len(samples):
        return 1.0, 0
    low, high = min(0.0, float(samples.min())), max(0.0, float(samples.max()))
    if high - low <= 0:
        return 1.0, 0
    best, chosen = float("inf"), (1.0, 0)
    for shrink in _SHRINK.tolist():
        scale = (high - low) * shrink / top
        zero = round(-low * shrink / scale)
        held = torch.fake_quantize_per_tensor_affine(samples, scale, zero, 0, top)
        loss = float((held - samples).square().sum())
        if loss < best:
            best, chosen = loss, (scale, zero)
    return chosen


def activation_error(samples: Tensor, bits: int) -> float:
    """Squared error of a sample on its best grid, relative to its variance."""
    if not len(samples):
        return 0.0
    scale, zero = activation_range(samples, bits)
    held = torch.fake_quantize_per_tensor_affine(samples, scale, zero, 0, 2**bits - 1)
    power = float((samples - samples.mean()).square().sum())
    return float((held - samples).square().sum()) / power if power > 0 else 0.0
