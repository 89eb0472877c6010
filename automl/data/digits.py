"""The embedded default: handwritten digits of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from automl.data.config import DataConfig
from automl.data.decode import Fit, refit
from automl.data.raw import Part, RawData

_TEST_FRACTION = 0.25
_SPLIT_SEED = 0


def load_digits(config: DataConfig) -> RawData:
    """All 1,797 digits, a fixed stratified quarter of them for testing.

    A fixed quarter of the others is held out for the search whatever the seed, because the committed checkpoint must
    not have been trained on it.
    """
    from sklearn.datasets import load_digits as load

    found = load()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]  # (N, 1, 8, 8)
    images = refit(images, Fit(config.image_size, config.channels))
    labels = found.target.astype(np.int64)
    rng = np.random.default_rng(_SPLIT_SEED)
    tested = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        rows = np.flatnonzero(labels == digit)
        tested[rng.permutation(rows)[: round(_TEST_FRACTION * len(rows))]] = True
    return RawData(
        train=Part(images[~tested], labels[~tested]),
        test=Part(images[tested], labels[tested]),
        class_names=tuple(str(digit) for digit in range(10)),
        flip=False,
        held_out=0.25,
    )
