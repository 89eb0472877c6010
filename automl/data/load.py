"""From a `DataConfig` to four sets of images."""

from __future__ import annotations

from collections.abc import Callable

from automl.data.config import DataConfig
from automl.data.digits import load_digits
from automl.data.folder import load_folder
from automl.data.idx import load_fashion_mnist
from automl.data.parquet import load_parquet
from automl.data.raw import RawData
from automl.data.remote import Progress, fetched_data
from automl.data.splits import Splits, divide, parse_search_from
from automl.data.torchvision_sets import load_cifar
from automl.remote.errors import named_as
from automl.remote.url import is_url
from compressors.errors import UserError, one_of
from compressors.registry import Registry

SOURCES: Registry[Callable[[DataConfig], RawData]] = Registry("data")
"""Where images can come from."""

SOURCES.register("digits", "1,797 handwritten digits of 8x8 that come with scikit-learn.")(load_digits)
SOURCES.register("fashion-mnist", "70,000 articles of clothing, gray, 28x28.", "Xiao et al. 2017")(load_fashion_mnist)
SOURCES.register("cifar10", "60,000 photographs of ten things, 32x32.", "Krizhevsky 2009")(load_cifar)
SOURCES.register("cifar100", "60,000 photographs of a hundred things, 32x32.", "Krizhevsky 2009")(load_cifar)

PATH_SOURCES: Registry[Callable[[DataConfig], RawData]] = Registry("data")
"""Where images can come from by path or URL, as in `folder:PATH`."""

PATH_SOURCES.register("folder", "Class folders below train/ and test/ or val/.")(load_folder)
PATH_SOURCES.register("parquet", "Parquet files as the Hugging Face hub lays them out.")(load_parquet)


def load_splits(config: DataConfig, progress: Progress | None = None) -> Splits:
    """Loads the data that `config` names and divides it.

    Decoded images are kept in the cache folder, so that the next start maps them instead of decoding again. Data at a
    URL is fetched into that folder first.

    Args:
        config: Which data, and how it is divided.
        progress: Is told how far fetching is, in megabytes.

    Raises:
        UserError: The name is unknown, or the data is missing, damaged or too small for what is asked.
    """
    parse_search_from(config.search_from)
    kind, _, path = config.name.partition(":")
    if config.name in SOURCES:
        loader = SOURCES[config.name]
    elif kind in PATH_SOURCES and path:
        loader = PATH_SOURCES[kind]
    elif kind in PATH_SOURCES:
        raise UserError(f"Data {kind!r} needs a path, e.g. {kind}:images, but got {config.name!r}.")
    else:
        raise one_of("data", config.name, [*SOURCES, *(f"{name}:PATH" for name in PATH_SOURCES)])
    return divide(_loaded(loader, config, kind, path, progress).checked(config.name).with_statistics(), config)


def _loaded(
    loader: Callable[[DataConfig], RawData], config: DataConfig, kind: str, path: str, progress: Progress | None
) -> RawData:
    if not is_url(path):
        return loader(config)
    local = fetched_data(kind, path, progress)
    with named_as(local, path):
        return loader(config.model_copy(update={"name": f"{kind}:{local}"}))


def check_classes(splits: Splits, num_classes: int) -> None:
    """Refuses data that a net with `num_classes` outputs cannot be judged on.

    Raises:
        UserError: The net has fewer outputs than the data has classes.
    """
    if num_classes < splits.num_classes:
        raise UserError(
            f"Labels must be in 0..{num_classes - 1} for a net with {num_classes} classes, but the data has "
            f"{splits.num_classes}: pass --num-classes {splits.num_classes} or other data."
        )
