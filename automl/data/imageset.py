"""A set of labelled images: some rows of an array that may live on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.errors import UserError

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images, held as bytes and normalised when a batch is asked for.

    Attributes:
        store: All images that this set draws from, `(M, C, H, W)`, possibly memory-mapped and shared with other sets.
        store_labels: Their classes, `(M,)`.
        rows: The rows of `store` that belong to this set, in this set's order, `(N,)`.
        mean: Subtracted from each channel of images in 0..1.
        std: Each channel is divided by it.
        origin: Which file rows are numbered in, `train` or `test`.
        numbers: For each row of `store` its number in the origin, `(M,)`; None: the same.
    """

    store: Bytes = field(repr=False)
    store_labels: Ints = field(repr=False)
    rows: Ints = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = "data"
    numbers: Ints | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuses what no net could use."""
        if self.store.ndim != 4 or self.store.dtype != np.uint8:
            raise UserError(
                f"Images must be bytes (N, C, H, W), but got {self.store.dtype} of shape {tuple(self.store.shape)}."
            )
        if len(self.store_labels) != len(self.store):
            raise UserError(f"Every image needs a label, but {len(self.store)} have {len(self.store_labels)}.")
        if not len(self.mean) == len(self.std) == self.store.shape[1]:
            raise UserError(
                f"Mean and standard deviation must have one entry for each of {self.store.shape[1]} channels, "
                f"but got {len(self.mean)} and {len(self.std)}."
            )

    @classmethod
    def from_arrays(
        cls, images: Bytes, labels: Ints, *, mean: tuple[float, ...], std: tuple[float, ...], origin: str = "data"
    ) -> ImageSet:
        """A set of all given images.

        Args:
            images: `(N, C, H, W)` in 0..255.
            labels: `(N,)`.
            mean: Of images in 0..1, per channel.
            std: Likewise.
            origin: Name for provenance.
        """
        rows = np.arange(len(images), dtype=np.int64)
        return cls(images, np.asarray(labels, dtype=np.int64), rows, mean, std, origin)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles only this set's own images, not the whole store."""
        rows = np.arange(len(self), dtype=np.int64)
        return ImageSet, (self.images, self.labels, rows, self.mean, self.std, self.origin, self.indices)

    @cached_property
    def images(self) -> Bytes:
        """This set's images as bytes, `(N, C, H, W)`."""
        return np.ascontiguousarray(self.store[self.rows])

    @cached_property
    def labels(self) -> Ints:
        """This set's classes, `(N,)`."""
        return np.asarray(self.store_labels[self.rows], dtype=np.int64)

    @cached_property
    def indices(self) -> Ints:
        """Each image's number in its origin, `(N,)`."""
        return self.rows if self.numbers is None else np.asarray(self.numbers[self.rows], dtype=np.int64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, `(C, H, W)`."""
        _, channels, height, width = self.store.shape
        return channels, height, width

    @property
    def example(self) -> Tensor:
        """The first image as a batch of one, `(1, C, H, W)`."""
        return self.take(np.arange(1, dtype=np.int64))[0]

    def provenance(self, position: int) -> str:
        """Where an image comes from, e.g. `train:17`."""
        return f"{self.origin}:{self.indices[position]}"

    def take(
        self,
        rows: Ints,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Normalised images and labels at some positions of this set.

        Args:
            rows: Positions, `(n,)`.
            device: Where to put both.
            dtype: Of the images.
            channels_last: Memory format of the images.

        Returns:
            Images `(n, C, H, W)` and labels `(n,)`.
        """
        picked = self.rows[rows]
        images = torch.from_numpy(np.ascontiguousarray(self.store[picked])).to(device)
        labels = torch.from_numpy(np.asarray(self.store_labels[picked], dtype=np.int64)).to(device)
        return self._normalise(images, dtype, channels_last), labels

    def batches(
        self,
        batch_size: int = 250,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, as normalised batches `(n, C, H, W)` with labels `(n,)`."""
        for start in range(0, len(self), batch_size):
            rows = np.arange(start, min(start + batch_size, len(self)), dtype=np.int64)
            yield self.take(rows, device=device, dtype=dtype, channels_last=channels_last)

    def tensors(
        self, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, channels_last: bool = True
    ) -> tuple[Tensor, Tensor]:
        """All images and labels at once."""
        rows = np.arange(len(self), dtype=np.int64)
        return self.take(rows, device=device, dtype=dtype, channels_last=channels_last)

    def head(self, count: int) -> ImageSet:
        """The first `count` images, or all if there are fewer."""
        return replace(self, rows=self.rows[:count])

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageSet:
        """The same images with another normalisation."""
        return replace(self, mean=mean, std=std)

    def fingerprint(self) -> str:
        """SHA-256 over images, labels and normalisation, in hex."""
        digest = hashlib.sha256(repr((self.shape, len(self), self.mean, self.std)).encode())
        digest.update(self.labels.tobytes())
        for start in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self.store[self.rows[start : start + 4096]]).data)
        return digest.hexdigest()

    def _normalise(self, images: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
        form = torch.channels_last if channels_last else torch.contiguous_format
        # One multiply-add on bytes turned to floats: x/255 - mean over std is x*scale + shift.
        scale = torch.tensor([1 / (255 * s) for s in self.std], device=images.device)[:, None, None]
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=images.device)
        floats = images.to(torch.float32, memory_format=form)
        return floats.mul_(scale).add_(shift[:, None, None]).to(dtype)
