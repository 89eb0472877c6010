"""Where training batches come from: data whose rows can be chosen, or any iterable of ready-made batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.errors import UserError
from compressors.training.config import TrainConfig


@runtime_checkable
class TakesRows(Protocol):
    """Data whose rows can be chosen, so that training itself shuffles it."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def take(self, rows: NDArray[np.int64], *, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The inputs and labels of some rows, ready for the net."""
        ...


Batches: TypeAlias = "TakesRows | Iterable[tuple[Any, Any]]"
"""What a net can be trained on."""


def count_steps(data: Batches, config: TrainConfig) -> int | None:
    """How many steps `config` asks for on this data; None where an iterable does not know its length."""
    if config.steps is not None:
        return config.steps
    if isinstance(data, TakesRows):
        return config.epochs * len(_bounds(len(data), config.batch_size))
    return config.epochs * len(data) if isinstance(data, Sized) else None


def one_pass(
    data: Batches, config: TrainConfig, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of one pass over the data, on `device`.

    Raises:
        UserError: A batch is not a pair of tensors.
    """
    if isinstance(data, TakesRows):
        order = torch.randperm(len(data), generator=generator).numpy()
        for start, stop in _bounds(len(data), config.batch_size):
            yield data.take(order[start:stop], device=device)
        return
    for batch in data:
        if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(b, Tensor) for b in batch)):
            raise UserError(
                f"Training batches must be pairs of tensors (inputs, labels), but got {type(batch).__name__}."
            )
        yield batch[0].to(device), batch[1].to(device)


def _bounds(rows: int, size: int) -> list[tuple[int, int]]:
    """Cuts `rows` into batches; a last one of less than half the size is left out where there are others.

    A batch of one image would make BatchNorm fail, and a tiny one makes its statistics noise.
    """
    if rows == 0:
        raise UserError("Training needs at least one image, but the training data is empty.")
    bounds = [(start, min(rows, start + size)) for start in range(0, rows, size)]
    if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] < math.ceil(size / 2):
        bounds.pop()
    return bounds
