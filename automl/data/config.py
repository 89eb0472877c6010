"""Which data, and how it is divided."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DataConfig(BaseModel):
    """Which data, and how it is divided into train, calibration, search and test.

    Attributes:
        name: `digits`, `fashion-mnist`, `cifar10`, `cifar100`, `folder:PATH` (class folders below `train/` and `test/`
            or `val/`) or `parquet:PATH` (`train-*.parquet` and `test-*.parquet` or `validation-*.parquet` as Hugging
            Face writes them). PATH may be a URL (`s3://`, `gs://`, ...): what is there is fetched once and kept in
            the cache folder.
        data_dir: Where a named data set is; None: its usual places.
        download: Whether a named data set may be fetched from the network.
        train_images: Images to train on; None: all that are left.
        calibration_images: Images to measure layers on; None: 1,000, or 30% of the training images if that is less.
        search_images: Images to judge candidates on; None: 2,000, or what `search_from` leaves for it if that is less.
        test_images: Images to report on; None: all that are left.
        search_from: `train` or `train:0.2` (from the training images; the fraction is set aside, the same images for
            every seed), `test` or `test:0.5` (from the first half of the test images in file order; the other half is
            the test split). Without a fraction `train` sets aside exactly the images it needs, and `test` takes half.
        image_size: Images are scaled (shorter side) and cut (centre) to squares of this size; None: as they are.
        skip_corrupt: Whether images that cannot be read are left out and counted, instead of refused.
        channels: 1 (gray) or 3 (RGB); None: as they are.
        seed: Seed of the division.
        batch_size: Images per batch where nothing is trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "digits"
    data_dir: Path | None = None
    download: bool = False
    train_images: int | None = Field(default=None, ge=1)
    calibration_images: int | None = Field(default=None, ge=1)
    search_images: int | None = Field(default=None, ge=1)
    test_images: int | None = Field(default=None, ge=1)
    search_from: str = "train"
    image_size: int | None = Field(default=None, ge=1)
    skip_corrupt: bool = False
    channels: Literal[1, 3] | None = None
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=250, ge=1)
