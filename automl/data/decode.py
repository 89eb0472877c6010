"""From compressed images to one array of bytes, in a pool of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from automl.data.cache import Allocate
from automl.data.imageset import Bytes, Ints
from compressors.errors import UserError

_GRAY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "F"})
_CHUNK = 256


@dataclass(frozen=True)
class Fit:
    """What an image must look like.

    Attributes:
        image_size: Side of the square; None: as it is.
        channels: 1 or 3; None: as it is.
        skip_corrupt: Whether unreadable images are left out.
    """

    image_size: int | None = None
    channels: int | None = None
    skip_corrupt: bool = False


@dataclass(frozen=True)
class Item:
    """One compressed image.

    Attributes:
        name: File or row, for messages.
        open: Opens the image.
    """

    name: str
    open: Callable[[], Image.Image]


def decode(items: Iterable[Item], count: int, fit: Fit, name: str, allocate: Allocate) -> tuple[Bytes, Ints]:
    """Decodes `count` images into one array.

    Args:
        items: The images, in order; may be made on the fly.
        count: How many there are.
        fit: What each must look like.
        name: Of the array.
        allocate: Makes room for it.

    Returns:
        Images `(count, C, H, W)`, zeros where one could not be read, and the rows that could.

    Raises:
        UserError: An image cannot be read (and `skip_corrupt` is off), or differs from the first in size or channels.
    """
    images: Bytes | None = None
    readable = np.ones(count, dtype=bool)
    first = ""
    row = 0
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for chunk in _chunks(items, _CHUNK * 8):
            for item, pixels in zip(chunk, pool.map(lambda one: _read(one, fit), chunk, chunksize=1), strict=True):
                if isinstance(pixels, str):
                    if not fit.skip_corrupt:
                        raise UserError(
                            f"Images must be readable, but {item.name} is not ({pixels}): repair or remove it, "
                            "or pass --skip-corrupt."
                        )
                    readable[row] = False
                else:
                    if images is None:
                        images, first = allocate(name, (count, *pixels.shape), np.uint8), item.name
                    _same_shape(pixels, images, item.name, first)
                    images[row] = pixels
                row += 1
    if images is None:
        raise UserError(f"At least one {name.split('_')[0]} image must be readable, but none of {count} is.")
    return images, np.flatnonzero(readable).astype(np.int64)


def refit(images: Bytes, fit: Fit) -> Bytes:
    """Changes the size and channels of images that are already decoded; `(N, C, H, W)` in and out."""
    same_size = fit.image_size is None or images.shape[2:] == (fit.image_size, fit.image_size)
    if same_size and fit.channels in (None, images.shape[1]):
        return images
    if same_size and images.shape[1] == 1:
        return np.repeat(images, 3, axis=1)
    return np.stack([_pixels(Image.fromarray(image.transpose(1, 2, 0).squeeze()), fit) for image in images])


def _read(item: Item, fit: Fit) -> Bytes | str:
    """The pixels, or why there are none."""
    try:
        with item.open() as image:
            return _pixels(image, fit)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]


def _pixels(image: Image.Image, fit: Fit) -> Bytes:
    channels = fit.channels or (1 if image.mode in _GRAY_MODES else 3)
    image = image.convert("L" if channels == 1 else "RGB")
    if fit.image_size is not None:
        image = _square(image, fit.image_size)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _square(image: Image.Image, size: int) -> Image.Image:
    """Scales the shorter side to `size` and cuts the centre."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _same_shape(pixels: Bytes, images: Bytes, name: str, first: str) -> None:
    if pixels.shape == images.shape[1:]:
        return
    got, wanted = pixels.shape, images.shape[1:]
    if got[0] != wanted[0]:
        raise UserError(
            f"All images must have as many channels as the first, but {name} has {got[0]} and {first} has {wanted[0]}: "
            "pass --channels 1 or --channels 3."
        )
    raise UserError(
        f"All images must be of one size, but {name} is {got[2]}x{got[1]} and {first} is {wanted[2]}x{wanted[1]}: "
        "pass --image-size."
    )


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
