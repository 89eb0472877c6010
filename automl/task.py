"""What a net is trained and judged on: built from image splits, or from a user's own loaders and metric."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl.data.imageset import ImageSet
from automl.data.splits import Splits
from compressors.errors import UserError
from compressors.training import TrainConfig
from compressors.training.regimes import LossFunction
from compressors.training.sources import Batches

Measure = Callable[[nn.Module], float]
"""Judges a net; more is better."""

Pairs = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Loaders:
    """A user's own data, as iterables of `(inputs, labels)` batches that can be gone through again and again.

    Attributes:
        train: To finetune on.
        calibration: To measure layers on; some hundred to a thousand inputs suffice.
        search: To judge candidates on.
        test: To report on, once; None where there is nothing to report.
    """

    train: Pairs
    calibration: Pairs
    search: Pairs = ()
    test: Pairs | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """What a net is trained and judged on.

    Attributes:
        train: Data for finetuning.
        calibration: Batches of inputs to measure layers on.
        measure_search: Judges candidates.
        measure_test: Reports, once; None where there is no test.
        loss: Replaces cross-entropy in finetuning.
        suit: Adapts training settings to the data.
        record: What was divided how, ready for JSON.
        fingerprint: SHA-256 of the calibration inputs.
    """

    train: Batches
    calibration: tuple[Tensor, ...]
    measure_search: Measure
    measure_test: Measure | None
    loss: LossFunction | None = None
    suit: Callable[[TrainConfig], TrainConfig] = lambda config: config
    record: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def example(self) -> Tensor:
        """One input with its batch axis."""
        return self.calibration[0][:1]


class Accuracy:
    """The fraction of labelled inputs that a net classifies right.

    The batches are held in memory, so that judging a candidate costs its forward passes and nothing else.

    Args:
        batches: `(inputs, labels)` pairs.

    Attributes:
        batches: The same; an evaluator may put the images into another order.
        arranged: For which net and rungs that was done, and which images, in this order, the net has right.
    """

    def __init__(self, batches: Pairs) -> None:
        self.arranged: tuple[nn.Module, tuple[int, ...], NDArray[np.bool_]] | None = None
        self.batches = [(inputs, labels) for inputs, labels in batches]
        if not self.batches:
            raise UserError("Accuracy needs at least one batch of (inputs, labels) to judge a net on, but got none.")

    @property
    def images(self) -> int:
        """How many inputs there are."""
        return sum(len(labels) for _, labels in self.batches)

    def __call__(self, net: nn.Module) -> float:
        """Accuracy in 0..1, or NaN where an output is not finite; the net is left in evaluation mode."""
        net.eval()
        right = total = 0
        with torch.inference_mode():
            for inputs, labels in self.batches:
                scores = self.scores(net, inputs)
                if scores is None:
                    return float("nan")
                right += int((scores.argmax(1) == labels.to(scores.device)).sum())
                total += len(labels)
        return right / total

    @staticmethod
    def scores(net: nn.Module, inputs: Tensor) -> Tensor | None:
        """The net's scores for each class, `(N, classes)`, or None where one is not finite.

        Raises:
            UserError: The net gives something else.
        """
        device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
        outputs = net(inputs.to(device))
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise UserError(
                "Accuracy needs a net that returns one tensor of class scores (N, classes): for other nets "
                "pass your own `evaluate`."
            )
        return outputs if bool(torch.isfinite(outputs).all()) else None


def task_of(
    splits: Splits | Loaders,
    *,
    evaluate: Measure | None = None,
    evaluate_test: Measure | None = None,
    loss: LossFunction | None = None,
    batch_size: int = 250,
) -> Task:
    """The task behind splits or loaders.

    Args:
        splits: The data.
        evaluate: Judges candidates, any metric for which more is better; None: accuracy on the search split.
        evaluate_test: Reports; None: accuracy on the test split, unless `evaluate` is given.
        loss: Replaces cross-entropy in finetuning.
        batch_size: Images at once where nothing is trained.

    Raises:
        UserError: The calibration data is empty or not batches of tensors.
    """
    if isinstance(splits, Splits):
        from automl.training import suited_to

        images = splits
        calibration = tuple(batch for batch, _ in _held(splits.calibration, batch_size))
        test = Accuracy(_held(splits.test, batch_size)) if evaluate is None else None
        return Task(
            train=splits.train,
            calibration=calibration,
            measure_search=evaluate or Accuracy(_held(splits.search, batch_size)),
            measure_test=evaluate_test or test,
            loss=loss,
            suit=lambda config: suited_to(images, config),
            record=splits.record,
            fingerprint=_digest(calibration),
        )
    if not isinstance(splits, Loaders):
        raise UserError(
            f"Data must be automl.Loaders(train, calibration, search, test) or come from automl.load_splits, but got "
            f"{type(splits).__name__}."
        )
    calibration = tuple(_inputs(splits.calibration))
    test = Accuracy(splits.test) if splits.test is not None and evaluate is None else None
    return Task(
        train=splits.train,
        calibration=calibration,
        measure_search=evaluate or Accuracy(splits.search),
        measure_test=evaluate_test or test,
        loss=loss,
        suit=_as_given,
        fingerprint=_digest(calibration),
    )


def _as_given(config: TrainConfig) -> TrainConfig:
    """Settings for inputs that may be no images, from loaders that augment them as their owner likes."""
    return config.model_copy(update={"augment": False})


def _held(images: ImageSet, batch_size: int) -> Pairs:
    return images.batches(batch_size)


def _inputs(batches: Pairs) -> list[Tensor]:
    found: list[Tensor] = []
    for batch in batches:
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(inputs, Tensor):
            raise UserError(
                f"Calibration batches must be tensors or (inputs, labels), but got {type(inputs).__name__}."
            )
        found.append(inputs)
    if not found:
        raise UserError("Calibration needs at least one batch of inputs, but got none.")
    return found


def _digest(batches: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(f"{batch.dtype}{tuple(batch.shape)}".encode())
        digest.update(batch.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
