"""Random shifts and mirror images, for a whole batch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_and_flip(images: Tensor, generator: torch.Generator, *, padding: int = 4, flip: bool = True) -> Tensor:
    """Moves each image by up to `padding` pixels both ways and mirrors half of them.

    The border is filled with 0, for normalised images the mean colour. All images of a batch are gathered in one
    indexing operation, which keeps the cost far below that of a loop over images.

    Args:
        images: `(N, C, H, W)`.
        generator: Source of randomness, on the CPU.
        padding: Largest shift in pixels; 0 leaves images where they are.
        flip: Whether half of the images, chosen at random, are mirrored left to right.

    Returns:
        New images `(N, C, H, W)` in the memory format of the old ones.
    """
    count, _, height, width = images.shape
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if padding:
        shifts = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
        rows, columns = rows + shifts[0], columns + shifts[1]
        images = F.pad(images, (padding, padding, padding, padding))
    device = images.device
    which = torch.arange(count, device=device)[:, None, None]
    # Indexing with channels last moves whole pixels: (N, H', W', C) -> (N, H, W, C).
    moved = images.permute(0, 2, 3, 1)[which, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
    return moved.permute(0, 3, 1, 2)
