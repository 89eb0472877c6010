"""Dividing images into train, calibration, search and test, so that no image is in two of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from automl.data.config import DataConfig
from automl.data.imageset import ImageSet, Ints
from automl.data.raw import Part, RawData
from compressors.errors import UserError

_SET_ASIDE_SEED = 0
"""Seed of what must be the same for every `DataConfig.seed`: images set aside for the search."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Four sets of images that have none in common.

    Attributes:
        train: To train on.
        calibration: To measure layers on.
        search: To judge candidates on.
        test: To report on, once.
        num_classes: Number of classes.
        class_names: One for each class.
        mean: Normalisation of images in 0..1, per channel.
        std: Likewise.
        flip: Whether mirrored images may be trained on.
        record: What was divided how, ready for JSON: for each split its origin, count and SHA-256 of the indices.
    """

    train: ImageSet
    calibration: ImageSet
    search: ImageSet
    test: ImageSet
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    record: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, `(C, H, W)`."""
        return self.train.shape

    @property
    def example(self) -> Tensor:
        """One normalised image as a batch, `(1, C, H, W)`."""
        return self.calibration.example

    def normalised(self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Splits:
        """The same splits with the normalisation a net was trained with; None leaves the data's own."""
        if mean is None or std is None:
            return self
        sets = {name: getattr(self, name).normalised(mean, std) for name in ("train", "calibration", "search", "test")}
        record = {**self.record, "mean": list(mean), "std": list(std)}
        return replace(self, **sets, mean=mean, std=std, record=record)


def divide(raw: RawData, config: DataConfig) -> Splits:
    """Divides decoded data as `config` says.

    Every draw is stratified, so that any number of leading images holds the classes in their proportions. Calibration
    comes first, then the search split, then training: asking for more of a later one leaves the earlier as it is.

    Raises:
        UserError: The counts asked for do not fit (the message names the largest that would), or `search_from` is
            malformed.
    """
    if raw.mean is None or raw.std is None:
        raw = raw.with_statistics()
    source, fraction = parse_search_from(config.search_from)
    rng = np.random.default_rng([config.seed, 1])
    wanted = {
        "train_images": config.train_images,
        "calibration_images": config.calibration_images,
        "search_images": config.search_images,
        "test_images": config.test_images,
    }
    training, testing = raw.train.rows, raw.test.rows
    aside = None
    if source == "test":
        ordered = _mixed(raw.test)
        count = int((fraction or 0.5) * len(ordered))
        aside, testing = ordered[:count], ordered[count:]
    elif fraction or raw.held_out:
        fixed = _stratified(raw.train, training, np.random.default_rng(_SET_ASIDE_SEED))
        count = int((fraction or raw.held_out or 0) * len(fixed))
        aside, training = fixed[:count], np.sort(fixed[count:])

    preferred: dict[str, Callable[[int], int] | None] = {
        "calibration_images": lambda left: min(1000, left * 3 // 10),
        "search_images": lambda left: min(2000, left // 4),
        "train_images": None,
    }
    if aside is not None:
        only = _allot(len(aside), wanted, {"search_images": lambda left: min(2000, left)}, f"set-aside {source}")
        search = _stratified(raw.test if source == "test" else raw.train, aside, rng)[: only["search_images"]]
        del preferred["search_images"]
    counts = _allot(len(training), wanted, preferred, "training")
    ordered = _stratified(raw.train, training, rng)
    calibration, ordered = np.split(ordered, [counts["calibration_images"]])
    if aside is None:
        search, ordered = np.split(ordered, [counts["search_images"]])
    train = np.sort(ordered[: counts["train_images"]])
    tested = _allot(len(testing), wanted, {"test_images": None}, "test")["test_images"]
    test = np.sort(_stratified(raw.test, testing, rng)[:tested])
    return _assemble(raw, config, source, {"train": train, "calibration": calibration, "search": search, "test": test})


def parse_search_from(text: str) -> tuple[str, float | None]:
    """Reads `train`, `train:0.2`, `test` or `test:0.5`.

    Raises:
        UserError: It is none of these.
    """
    match = re.fullmatch(r"(train|test)(?::(\d*\.?\d+))?", text.strip())
    fraction = float(match[2]) if match and match[2] else None
    if match is None or (fraction is not None and not 0 < fraction < 1):
        raise UserError(
            f"search_from must be train, train:FRACTION, test or test:FRACTION with a fraction between 0 and 1 "
            f"(e.g. test:0.5), but got {text!r}."
        )
    return match[1], fraction


def _assemble(raw: RawData, config: DataConfig, search_from: str, rows: dict[str, Ints]) -> Splits:
    mean, std = raw.mean or (), raw.std or ()
    origins = {"train": "train", "calibration": "train", "search": search_from, "test": "test"}
    sets: dict[str, ImageSet] = {}
    for name, picked in rows.items():
        part = raw.train if origins[name] == "train" else raw.test
        sets[name] = ImageSet(part.images, part.labels, picked, mean, std, origins[name])
    record = {
        "data": config.name,
        "search_from": config.search_from,
        "seed": config.seed,
        "image_shape": list(sets["train"].shape),
        "num_classes": len(raw.class_names),
        "mean": list(mean),
        "std": list(std),
        "skipped": {"train": raw.train.skipped, "test": raw.test.skipped},
        "splits": {
            name: {
                "source": origins[name],
                "count": len(picked),
                "sha256": hashlib.sha256(np.ascontiguousarray(picked).astype("<i8").tobytes()).hexdigest(),
            }
            for name, picked in rows.items()
        },
    }
    return Splits(
        **sets,
        num_classes=len(raw.class_names),
        class_names=raw.class_names,
        mean=mean,
        std=std,
        flip=raw.flip,
        record=record,
    )


def _allot(
    pool: int,
    wanted: Mapping[str, int | None],
    preferred: Mapping[str, Callable[[int], int] | None],
    source: str,
) -> dict[str, int]:
    """Shares out a pool of images among the splits in `preferred`.

    Args:
        pool: Images there are.
        wanted: Counts by setting; None where the user leaves it open.
        preferred: For open ones, the count out of what the fixed ones leave; None takes all that is left over.
        source: What the pool is, for messages.
    """
    asked = {name: count for name in preferred if (count := wanted[name]) is not None}
    open_ones = [name for name in preferred if name not in asked]
    total = sum(asked.values())
    if total + len(open_ones) > pool:
        if not asked:
            raise UserError(
                f"The {source} images must be at least {len(open_ones)} to be divided, but they are {pool}."
            )
        name = max(asked, key=lambda key: asked[key])
        most = pool - (total - asked[name]) - len(open_ones)
        others = f" once the other splits have theirs (at least {pool - most})" if pool != most else ""
        raise UserError(
            f"{name} must be at most {max(most, 0)}, but got {asked[name]}: there are {pool} {source} images{others}."
        )
    left = pool - total
    found = dict(asked)
    for name in open_ones:
        rule = preferred[name]
        if rule is not None:
            found[name] = max(1, rule(left))
    for name in open_ones:
        if preferred[name] is None:
            found[name] = pool - sum(found.values())
    return found


def _stratified(part: Part, rows: Ints, rng: np.random.Generator) -> Ints:
    """A random order of `rows` in which any leading number of them holds the classes in their proportions."""
    labels = part.labels[rows]
    shuffled = rng.permutation(len(rows))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    rank = np.arange(len(rows)) - first[labels[by_class]]
    place = (rank + rng.random(len(rows))) / counts[labels[by_class]]
    return np.asarray(rows[by_class[np.argsort(place, kind="stable")]], dtype=np.int64)


def _mixed(part: Part) -> Ints:
    """Rows in file order; in a fixed stratified order where the file is sorted by class, so that no half lacks one."""
    rows = part.rows
    labels = part.labels[rows]
    if len(np.unique(labels)) > 1 and bool((np.diff(labels) >= 0).all()):
        return _stratified(part, rows, np.random.default_rng(_SET_ASIDE_SEED))
    return rows
