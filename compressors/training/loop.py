"""The training loop: knows nothing of where the net or the data come from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressors.errors import UserError
from compressors.training.augment import shift_and_flip
from compressors.training.config import DistillConfig, TrainConfig
from compressors.training.regimes import Distill, LossFunction, Plain, Regime
from compressors.training.schedule import learning_rate
from compressors.training.sources import Batches, count_steps, one_pass

Progress = Callable[[int, int | None, float], None]
"""Called after each step with steps done, steps in all (None: unknown) and the step's loss."""


@dataclass(frozen=True)
class TrainResult:
    """What one training did.

    Attributes:
        losses: Loss of each step.
        steps: Updates made.
        epochs: Passes over the data that were begun.
        seconds: Time it took.
        accuracy: Fraction of the last pass's images that the net had right as it saw them (augmented, before the step
            on them); None where outputs and labels are no classes or nothing was trained.
    """

    losses: tuple[float, ...]
    steps: int
    epochs: int
    seconds: float
    accuracy: float | None


def train(
    net: nn.Module,
    data: Batches,
    config: TrainConfig,
    *,
    teacher: nn.Module | None = None,
    distill: DistillConfig | None = None,
    loss: LossFunction | None = None,
    progress: Progress | None = None,
    device: torch.device | str | None = None,
) -> TrainResult:
    """Trains `net` in place and leaves each module in the mode (train or eval) it was in.

    Equal seeds, data, net and thread counts give equal weights. The global random state is the same before and after.

    Args:
        net: Any module; parameters that need no gradient stay as they are.
        data: Rows to choose from (`TakesRows`), or an iterable of `(inputs, labels)` that can be gone through again.
        config: Settings.
        teacher: Turns distillation on.
        distill: Settings of distillation; needs a teacher.
        loss: Replaces cross-entropy.
        progress: Called after each step.
        device: Where to train; None: where the net is.

    Raises:
        UserError: The loss or a weight stops being finite (the net is then unusable), no parameter can be trained, the
            data is empty, or `distill` comes without a teacher.
    """
    if distill is not None and teacher is None:
        raise UserError("Distillation needs a teacher, but got none.")
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise UserError("Training needs a net with parameters that require gradients, but it has none.")
    place = parameters[0].device if device is None else torch.device(device)
    net.to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    regime: Regime
    if teacher is None:
        regime = Plain(loss, config.label_smoothing)
    else:
        teacher.to(place)
        regime = Distill(teacher, distill, loss, config.label_smoothing)
    with _own_randomness(config.seed, place), _training_mode(net):
        return _run(net, data, config, regime, progress, place)


def _run(
    net: nn.Module,
    data: Batches,
    config: TrainConfig,
    regime: Regime,
    progress: Progress | None,
    device: torch.device,
) -> TrainResult:
    started = time.perf_counter()
    optimizer = _optimizer(net, config)
    generator = torch.Generator().manual_seed(config.seed)
    total = count_steps(data, config)
    losses: list[float] = []
    right, seen, epoch = 0, 0, 0
    while total is None or len(losses) < total:
        if total is None and epoch == config.epochs:
            break
        epoch, before, right, seen = epoch + 1, len(losses), 0, 0
        for inputs, labels in one_pass(data, config, generator, device):
            if inputs.ndim == 4:
                if config.augment:
                    inputs = shift_and_flip(inputs, generator, padding=config.crop_padding, flip=config.flip)
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            rate = learning_rate(config, len(losses), total) if total is not None else config.lr
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                outputs = net(inputs)
                value = regime(outputs, labels, inputs)
            losses.append(_finite(float(value.detach()), len(losses), rate))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm)
            optimizer.step()
            hits = _hits(outputs, labels)
            right, seen = right + (hits or 0), seen + (0 if hits is None else len(labels))
            if progress is not None:
                progress(len(losses), total, losses[-1])
            if len(losses) == total:
                break
        if len(losses) == before:
            raise UserError(
                f"Training needs data that yields batches on every pass, but pass {epoch} yielded none: "
                "give a list or a DataLoader, not a generator."
            )
    if losses and not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
        _finite(math.nan, len(losses) - 1, config.lr)
    return TrainResult(
        losses=tuple(losses),
        steps=len(losses),
        epochs=epoch,
        seconds=time.perf_counter() - started,
        accuracy=right / seen if seen else None,
    )


def _optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov and config.momentum > 0
    )


def _finite(value: float, step: int, rate: float) -> float:
    if not math.isfinite(value):
        raise UserError(
            f"Training must keep the loss finite, but it became {value} at step {step + 1} (learning rate {rate:g}): "
            f"try a smaller learning rate, e.g. {rate / 10:g}, and check the data for NaN."
        )
    return value


def _hits(outputs: object, labels: Tensor) -> int | None:
    """How many images are right, or None where that question makes no sense."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or labels.ndim != 1 or labels.is_floating_point():
        return None
    return int((outputs.detach().argmax(1) == labels).sum())


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds what draws from the global state (dropout, loaders that shuffle) and puts that state back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _training_mode(net: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in net.modules()]
    net.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
