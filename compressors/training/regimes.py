"""Training regimes: what the loss of one batch is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressors.errors import UserError
from compressors.registry import Registry
from compressors.training.config import DistillConfig

LossFunction = Callable[[Any, Tensor], Tensor]
"""A loss of outputs and labels, a scalar tensor."""


class Regime(Protocol):
    """Turns what a net said about a batch into the loss to minimise."""

    def __call__(self, outputs: Any, labels: Tensor, inputs: Tensor) -> Tensor:
        """The loss, a scalar."""
        ...


REGIMES: Registry[Callable[..., Regime]] = Registry("training regime")
"""All regimes by name."""


@REGIMES.register("plain", "Learns from the labels alone.")
class Plain:
    """Cross-entropy with the labels, or a loss of one's own.

    Args:
        loss: Replaces cross-entropy.
        label_smoothing: Mass that the target spreads over all classes.
    """

    def __init__(self, loss: LossFunction | None = None, label_smoothing: float = 0.0) -> None:
        self._loss = loss
        self._label_smoothing = label_smoothing

    def __call__(self, outputs: Any, labels: Tensor, inputs: Tensor) -> Tensor:
        """The loss on the labels; `inputs` are not used."""
        if self._loss is not None:
            return self._loss(outputs, labels)
        if not isinstance(outputs, Tensor):
            raise UserError(
                f"The default loss needs a net that returns one tensor of class scores, but got "
                f"{type(outputs).__name__}: pass a loss of your own."
            )
        return F.cross_entropy(outputs, labels, label_smoothing=self._label_smoothing)


@REGIMES.register("distill", "Also learns to answer as a larger net does.", "Hinton et al. 2015, section 2")
class Distill:
    """Labels plus the softened answers of a teacher (Hinton et al. 2015, section 2).

    `(1 - weight) * L(labels) + weight * T^2 * KL(teacher/T || student/T)`. The factor T^2 keeps the gradient's size
    when T changes. Differs from the paper in minimising the divergence instead of the cross-entropy: the gradient is
    the same, and 0 means that both nets agree.

    Args:
        teacher: Answers for each batch in evaluation mode; its mode is put back after each answer.
        config: Temperature and weight.
        loss: Replaces cross-entropy with the labels.
        label_smoothing: Of the labels' part.
    """

    def __init__(
        self,
        teacher: nn.Module,
        config: DistillConfig | None = None,
        loss: LossFunction | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self._teacher = teacher
        self._config = config or DistillConfig()
        self._plain = Plain(loss, label_smoothing)

    def __call__(self, outputs: Any, labels: Tensor, inputs: Tensor) -> Tensor:
        """The mixed loss."""
        modes = {module: module.training for module in self._teacher.modules()}
        self._teacher.eval()
        with torch.no_grad():
            wanted = self._teacher(inputs)
        for module, mode in modes.items():
            module.training = mode
        if not (isinstance(outputs, Tensor) and isinstance(wanted, Tensor) and outputs.shape == wanted.shape):
            raise UserError(
                "Distillation needs a net and a teacher with outputs of one shape, but got "
                f"{_shape(outputs)} and {_shape(wanted)}."
            )
        weight, temperature = self._config.weight, self._config.temperature
        teaching = divergence(outputs, wanted, temperature)
        if weight == 1:
            return teaching
        return (1 - weight) * self._plain(outputs, labels, inputs) + weight * teaching


def divergence(outputs: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """`T^2 * KL(softmax(wanted/T) || softmax(outputs/T))`, the mean over the batch.

    Args:
        outputs: `(N, classes)`, gradients flow here.
        wanted: `(N, classes)`.
        temperature: T.
    """
    student = F.log_softmax(outputs / temperature, dim=1)
    teacher = F.log_softmax(wanted / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
