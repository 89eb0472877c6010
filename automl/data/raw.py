"""What a data source hands over: decoded images, before they are divided."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from automl.data.imageset import Bytes, Ints
from compressors.errors import UserError


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one origin, in file order.

    Attributes:
        images: `(M, C, H, W)`; rows that could not be read are zeros.
        labels: `(M,)`.
        readable: Rows that hold an image, ascending; None: all.
    """

    images: Bytes = field(repr=False)
    labels: Ints = field(repr=False)
    readable: Ints | None = field(default=None, repr=False)

    @property
    def rows(self) -> Ints:
        """Rows that may be used, in file order."""
        return np.arange(len(self.labels), dtype=np.int64) if self.readable is None else self.readable

    @property
    def skipped(self) -> int:
        """Rows that may not."""
        return len(self.labels) - len(self.rows)


@dataclass(frozen=True, eq=False)
class RawData:
    """Decoded data of one source.

    Attributes:
        train: Training images.
        test: Test (or validation) images.
        class_names: One for each class.
        mean: Per channel of images in 0..1; None: to be computed.
        std: Likewise.
        flip: Whether a mirrored image is as good an example of its class.
        held_out: Fraction of the training images that is always set aside for the search; None: as many as it needs.
    """

    train: Part
    test: Part
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = True
    held_out: float | None = None

    def checked(self, name: str) -> RawData:
        """This data, if its labels fit its classes and no part is empty.

        Args:
            name: Of the data, for messages.

        Raises:
            UserError: A label is out of range, or a part has no images.
        """
        for origin, part in (("training", self.train), ("test", self.test)):
            if len(part.rows) == 0:
                raise UserError(f"Data {name!r} must have {origin} images, but none can be read.")
            labels = part.labels[part.rows]
            wrong = np.flatnonzero((labels < 0) | (labels >= len(self.class_names)))
            if len(wrong):
                row = int(part.rows[wrong[0]])
                more = f" (and {len(wrong) - 1} more rows are wrong)" if len(wrong) > 1 else ""
                raise UserError(
                    f"Labels of {name!r} must be in 0..{len(self.class_names) - 1}, but {origin} row {row} has "
                    f"{int(labels[wrong[0]])}{more}."
                )
        return self

    def with_statistics(self, limit: int = 10_000) -> RawData:
        """This data with mean and standard deviation, computed from training images where the source gives none.

        Args:
            limit: Training images to look at, spread evenly over the file.
        """
        if self.mean is not None and self.std is not None:
            return self
        rows = self.train.rows
        picked = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(np.int64)]
        counts = np.zeros((self.train.images.shape[1], 256))
        for start in range(0, len(picked), 512):
            block = self.train.images[picked[start : start + 512]]
            for channel in range(block.shape[1]):
                counts[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        weights = counts / counts.sum(1, keepdims=True)
        mean = weights @ values
        std = np.sqrt(np.maximum(weights @ values**2 - mean**2, 1e-12))
        # A channel without contrast must not become a division by nearly nothing.
        std = np.where(std < 1e-3, 1.0, std)
        return replace(
            self,
            mean=tuple(round(float(m), 6) for m in mean),
            std=tuple(round(float(s), 6) for s in std),
        )
