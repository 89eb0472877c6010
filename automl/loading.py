"""A net and data by name, fitted to each other."""

from __future__ import annotations

from automl.data import DataConfig, load_splits
from automl.data.remote import Progress
from automl.data.splits import Splits
from automl.zoo import LoadedNet, NetConfig, load_net


def load_named(
    net: NetConfig, data: DataConfig, *, pretrained: bool = True, seed: int = 0, progress: Progress | None = None
) -> tuple[LoadedNet, Splits]:
    """The net, made for the data's images and classes, and the data, normalised as the net expects.

    Args:
        net: Which net.
        data: Which data.
        pretrained: Whether committed weights are used where no file is named and they fit.
        seed: Seed of what no weights file sets.
        progress: Is told how far data and weights at URLs are fetched, in megabytes.

    Raises:
        UserError: Bad input, in one line.
    """
    splits = load_splits(data, progress)
    channels, *size = splits.image_shape
    loaded = load_net(
        net, in_channels=channels, num_classes=splits.num_classes, image_size=(size[0], size[1]), pretrained=pretrained,
        seed=seed, progress=progress,
    )  # fmt: skip
    return loaded, splits.normalised(loaded.mean, loaded.std)
