"""Training a loaded net on the splits, with accuracies before and after: what `secateur train` does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automl.data.imageset import ImageSet
from automl.data.splits import Splits
from automl.zoo.config import LoadedNet
from compressors.errors import UserError
from compressors.training import DistillConfig, TrainConfig, TrainResult, train
from compressors.training.loop import Progress


@dataclass(frozen=True)
class TrainedNet:
    """What a training did to a net.

    Attributes:
        accuracy_before: On the search split, before training.
        accuracy_after: On the search split, after it.
        accuracy_test: On the test split, after it.
        result: Losses and time.
    """

    accuracy_before: float
    accuracy_after: float
    accuracy_test: float
    result: TrainResult


def train_net(
    loaded: LoadedNet,
    splits: Splits,
    config: TrainConfig,
    *,
    teacher: nn.Module | None = None,
    distill: DistillConfig | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> TrainedNet:
    """Trains the net in place on the training split, normalised as the net expects.

    Args:
        loaded: The net.
        splits: The data; calibration, search and test images are not trained on.
        config: Settings; shifts and mirroring are toned down to what the data bears (`suited_to`).
        teacher: Turns distillation on.
        distill: Settings of distillation.
        progress: Called after each step.
        device: Where to train and measure.

    Raises:
        UserError: The net and the data do not fit, or training fails.
    """
    if loaded.input_shape != splits.image_shape:
        raise UserError(f"The net was made for images {loaded.input_shape}, but the data has {splits.image_shape}.")
    fitting = splits.normalised(loaded.mean, loaded.std)
    net = loaded.net.to(device)
    before = accuracy(net, fitting.search, device=device)
    result = train(
        net,
        fitting.train,
        suited_to(fitting, config),
        teacher=teacher,
        distill=distill,
        progress=progress,
        device=device,
    )
    net.eval()
    return TrainedNet(
        accuracy_before=before,
        accuracy_after=accuracy(net, fitting.search, device=device),
        accuracy_test=accuracy(net, fitting.test, device=device),
        result=result,
    )


def suited_to(splits: Splits, config: TrainConfig) -> TrainConfig:
    """The settings with augmentation that the data bears.

    A shift is at most an eighth of the image (4 pixels of 32, 1 of 8), and images whose mirror image is no example of
    their class are not mirrored.
    """
    padding = min(config.crop_padding, min(splits.image_shape[1:]) // 8)
    return config.model_copy(update={"crop_padding": padding, "flip": config.flip and splits.flip})


def accuracy(net: nn.Module, images: ImageSet, *, batch_size: int = 250, device: torch.device | str = "cpu") -> float:
    """Fraction of images that the net, in evaluation mode, classifies right.

    Args:
        net: Left in the modes it came in.
        images: Normalised as they say.
        batch_size: Images at once.
        device: Where to measure.

    Raises:
        UserError: The net gives NaN or infinity, or no class scores.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    right = 0
    try:
        with torch.inference_mode():
            for inputs, labels in images.batches(batch_size, device=device):
                outputs = net(inputs)
                if not isinstance(outputs, Tensor) or outputs.ndim != 2:
                    raise UserError("Accuracy needs a net that returns class scores (N, classes), but it does not.")
                if not bool(torch.isfinite(outputs).all()):
                    raise UserError("Outputs of the net must be finite, but it gives NaN or infinity.")
                right += int((outputs.argmax(1) == labels).sum())
    finally:
        for module, mode in modes:
            module.training = mode
    return right / len(images)
