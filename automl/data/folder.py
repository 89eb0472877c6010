"""Images in class folders: `train/CLASS/*.png` and `test/CLASS/*.png` (or `val/`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from automl.data.cache import Allocate, Array, cached, files_key
from automl.data.config import DataConfig
from automl.data.decode import Fit, Item, decode
from automl.data.raw import Part, RawData
from compressors.errors import UserError

_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def load_folder(config: DataConfig) -> RawData:
    """Images in class folders. Classes are numbered in the order of the names of the folders below `train/`.

    Raises:
        UserError: A folder is missing or empty, a test class has no training images, or an image is unusable.
    """
    root = Path(config.name.partition(":")[2]).expanduser()
    train_dir, test_dir = _parts(root)
    classes = sorted(path.name for path in train_dir.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise UserError(f"{train_dir} must hold one folder for each class, but it holds none.")
    numbers = {name: number for number, name in enumerate(classes)}
    files = {"train": _files(train_dir, numbers), "test": _files(test_dir, numbers)}
    empty = [name for name in classes if not any(label == numbers[name] for _, label in files["train"])]
    if empty:
        raise UserError(f"Every class needs training images, but {train_dir / empty[0]} has none.")
    fit = Fit(config.image_size, config.channels, config.skip_corrupt)

    def produce(allocate: Allocate) -> tuple[dict[str, Array], dict[str, Any]]:
        arrays: dict[str, Array] = {}
        for part, found in files.items():
            items = (Item(str(path), partial(Image.open, path)) for path, _ in found)
            name = f"{part}_images"
            arrays[name], arrays[f"{part}_readable"] = decode(items, len(found), fit, name, allocate)
            arrays[f"{part}_labels"] = np.array([label for _, label in found], dtype=np.int64)
        return arrays, {}

    settings = {
        "image_size": fit.image_size,
        "channels": fit.channels,
        "skip_corrupt": fit.skip_corrupt,
        "classes": classes,
    }
    key = files_key([path for part in files.values() for path, _ in part], settings)
    arrays, _ = cached("folder", key, produce)
    return from_arrays(arrays, tuple(classes))


def from_arrays(arrays: dict[str, Array], classes: tuple[str, ...]) -> RawData:
    """Decoded arrays as data, with ImageNet's normalisation for colour images.

    Raises:
        UserError: Training and test images differ in size or channels.
    """
    shapes = {part: arrays[f"{part}_images"].shape[1:] for part in ("train", "test")}
    if shapes["train"] != shapes["test"]:
        raise UserError(
            f"Training and test images must be of one shape, but they are {shapes['train']} and {shapes['test']} "
            "(channels, height, width): pass --image-size and --channels."
        )
    coloured = shapes["train"][0] == 3
    train, test = (
        Part(arrays[f"{part}_images"], arrays[f"{part}_labels"], arrays[f"{part}_readable"])
        for part in ("train", "test")
    )
    mean, std = _IMAGENET if coloured else (None, None)
    return RawData(train=train, test=test, class_names=classes, mean=mean, std=std)


def _parts(root: Path) -> tuple[Path, Path]:
    if not root.is_dir():
        raise UserError(f"The data folder {str(root)!r} must exist, but it does not.")
    tests = [root / name for name in ("test", "val", "validation") if (root / name).is_dir()]
    if not (root / "train").is_dir() or not tests:
        missing = "train/" if not (root / "train").is_dir() else "test/ or val/"
        raise UserError(f"The data folder {str(root)!r} must hold train/ and test/ or val/, but {missing} is missing.")
    return root / "train", tests[0]


def _files(folder: Path, numbers: dict[str, int]) -> list[tuple[Path, int]]:
    """Images with their labels, class after class, in the order of their names."""
    found: list[tuple[Path, int]] = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
        if inside and place.name not in numbers:
            raise UserError(
                f"Labels must be among the {len(numbers)} classes of the training images, but {place} is none of them."
            )
        found.extend((path, numbers[place.name]) for path in inside)
    if not found:
        raise UserError(f"{folder} must hold images ({', '.join(sorted(_ENDINGS))}), but it holds none.")
    return found
