"""Cholesky factors of second moments that may be singular."""

from __future__ import annotations

import torch
from torch import Tensor

DAMPING = 1e-4
"""Share of the mean diagonal that is added to second moments before they are inverted."""


def damping_of(diagonal: Tensor) -> Tensor:
    """What to add to the diagonal of each block.

    Args:
        diagonal: `(blocks, columns)` float64.

    Returns:
        `(blocks,)`, positive.
    """
    damping: Tensor = DAMPING * diagonal.mean(1) + torch.finfo(torch.float64).tiny ** 0.5
    return damping


def damped_cholesky(second: Tensor, damping: Tensor) -> Tensor:
    """Lower Cholesky factors of `second + damping * I`.

    Sums of rounded products can have eigenvalues a little below zero where inputs are (nearly) dependent; damping is
    then raised until the factorisation succeeds.

    Args:
        second: `(blocks, columns, columns)` float64, symmetric; untouched.
        damping: `(blocks,)`, positive.
    """
    for _ in range(12):
        system = second.clone()
        system.diagonal(dim1=1, dim2=2).add_(damping[:, None])
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(system)
        if not failed.any():
            return factor
        damping = torch.where(failed > 0, damping * 10, damping)
    # A matrix that needs this much holds no information: fall back to its diagonal.
    diagonal = second.diagonal(dim1=1, dim2=2).clamp_min(0) + damping[:, None]
    return torch.diag_embed(diagonal.sqrt())
