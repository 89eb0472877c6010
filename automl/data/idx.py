"""Fashion-MNIST from the four IDX files, wherever they are."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl.data.cache import Allocate, Array, cache_dir, cached, files_key
from automl.data.config import DataConfig
from automl.data.decode import Fit, refit
from automl.data.raw import Part, RawData
from compressors.errors import UserError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the four files."""

_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_MEAN, _STD = 0.2860, 0.3530


def load_fashion_mnist(config: DataConfig) -> RawData:
    """Fashion-MNIST: 60,000 and 10,000 gray images of 28x28 (Xiao et al. 2017).

    Raises:
        UserError: The files are nowhere, or damaged.
    """
    files = _find(config)
    fit = Fit(config.image_size, config.channels)

    def produce(allocate: Allocate) -> tuple[dict[str, Array], dict[str, object]]:
        arrays: dict[str, Array] = {}
        for name, path in files.items():
            values = read_idx(path)
            arrays[name] = refit(values[:, None], fit) if name.endswith("images") else values.astype(np.int64)
        return arrays, {}

    key = files_key(list(files.values()), {"image_size": config.image_size, "channels": config.channels})
    arrays, _ = cached("fashion-mnist", key, produce)
    channels = arrays["train_images"].shape[1]
    return RawData(
        train=Part(arrays["train_images"], arrays["train_labels"]),
        test=Part(arrays["test_images"], arrays["test_labels"]),
        class_names=_CLASSES,
        mean=(_MEAN,) * channels,
        std=(_STD,) * channels,
        flip=False,
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of bytes, compressed or not.

    Raises:
        UserError: It is damaged, or not of this kind.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} must be a readable IDX file, but: {error}.") from error
    # Two zero bytes, the type (8: bytes), the number of axes, then each axis as a big-endian integer.
    axes = data[3] if len(data) >= 4 else 0
    if data[:3] != b"\x00\x00\x08" or not 1 <= axes <= 3 or len(data) < 4 + 4 * axes:
        raise UserError(f"{path} must be an IDX file of bytes, but its header is of another kind.")
    shape = tuple(int(size) for size in np.frombuffer(data, dtype=">i4", count=axes, offset=4))
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise UserError(f"{path} must hold {shape} values, but it holds {values.size}: it is damaged.")
    return values.reshape(shape)


def _find(config: DataConfig) -> dict[str, Path]:
    roots = [config.data_dir.expanduser()] if config.data_dir else [cache_dir() / "downloads", DEBIAN_FASHION_MNIST]
    for root in roots:
        for folder in (root, root / "FashionMNIST" / "raw", root / "raw"):
            found = {}
            for key, name in _FILES.items():
                for candidate in (folder / name, folder / f"{name}.gz"):
                    if candidate.is_file():
                        found[key] = candidate
                        break
            if len(found) == len(_FILES):
                return found
    if config.download:
        from automl.data.torchvision_sets import download

        download("FashionMNIST", roots[0])
        return _find(config.model_copy(update={"download": False, "data_dir": roots[0]}))
    raise UserError(
        f"fashion-mnist needs its four *-ubyte files, but they are not in {' or '.join(map(str, roots))}: install "
        "Debian's dataset-fashion-mnist, pass --data-dir, or --download."
    )
