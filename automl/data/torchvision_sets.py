"""CIFAR-10 and CIFAR-100 through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from automl.data.cache import Allocate, Array, cache_dir, cached, files_key
from automl.data.config import DataConfig
from automl.data.decode import Fit, refit
from automl.data.raw import Part, RawData
from compressors.errors import UserError

_CLASS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
_FOLDER = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load_cifar(config: DataConfig) -> RawData:
    """CIFAR-10 or CIFAR-100: 50,000 and 10,000 images of 3x32x32 (Krizhevsky 2009).

    torchvision compares each file with its known checksum before it reads it.

    Raises:
        UserError: The files are not there, or damaged.
    """
    root = config.data_dir.expanduser() if config.data_dir else cache_dir() / "downloads"
    folder = root / _FOLDER[config.name]
    if config.download and not folder.is_dir():
        download(_CLASS[config.name], root)
    if not folder.is_dir():
        raise UserError(
            f"{config.name} needs the folder {_FOLDER[config.name]}, but it is not in {root}: pass --data-dir with the "
            "folder that holds it, or --download."
        )
    fit = Fit(config.image_size, config.channels)

    def produce(allocate: Allocate) -> tuple[dict[str, Array], dict[str, object]]:
        arrays: dict[str, Array] = {}
        names: list[str] = []
        for part in ("train", "test"):
            found = _open(_CLASS[config.name], root, part == "train")
            images = np.ascontiguousarray(np.asarray(found.data, dtype=np.uint8).transpose(0, 3, 1, 2))
            arrays[f"{part}_images"] = refit(images, fit)
            arrays[f"{part}_labels"] = np.asarray(found.targets, dtype=np.int64)
            names = list(found.classes)
        return arrays, {"class_names": names}

    files = sorted(path for path in folder.iterdir() if path.is_file())
    key = files_key(files, {"image_size": config.image_size, "channels": config.channels})
    arrays, facts = cached(config.name, key, produce)
    mean, std = _STATISTICS[config.name]
    coloured = arrays["train_images"].shape[1] == 3
    return RawData(
        train=Part(arrays["train_images"], arrays["train_labels"]),
        test=Part(arrays["test_images"], arrays["test_labels"]),
        class_names=tuple(facts["class_names"]),
        mean=mean if coloured else None,
        std=std if coloured else None,
    )


def download(dataset: str, root: Path) -> None:
    """Fetches a torchvision data set.

    Raises:
        UserError: That fails.
    """
    import torchvision.datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        getattr(torchvision.datasets, dataset)(root=str(root), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{dataset} could not be downloaded to {root}: {str(error).splitlines()[0]}") from error


def _open(dataset: str, root: Path, train: bool) -> Any:
    import torchvision.datasets

    try:
        return getattr(torchvision.datasets, dataset)(root=str(root), train=train, download=False)
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{dataset} in {root} must be complete and undamaged, but: {str(error).splitlines()[0]} "
            "Remove it and pass --download, or pass another --data-dir."
        ) from error
