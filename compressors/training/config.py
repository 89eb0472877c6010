"""Settings of training and of distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainConfig(BaseModel):
    """How a net is trained.

    Attributes:
        epochs: Passes over the data; ignored where `steps` is given.
        steps: Updates of the weights, however many passes that takes. 0 trains nothing.
        lr: Highest learning rate of the schedule.
        momentum: Momentum of stochastic gradient descent.
        nesterov: Whether the momentum looks ahead; ignored at momentum 0.
        weight_decay: L2 penalty on weights. Biases and normalisation are left free of it.
        batch_size: Images per step, for data whose rows can be chosen; batches that come ready-made keep their size.
        schedule: `cosine` falls to 0 by the last step, `constant` stays.
        warmup: Fraction of the steps over which the learning rate rises from 0.
        label_smoothing: Mass that the target spreads over all classes; not used with a loss of one's own.
        augment: Whether images are shifted (and mirrored) at random.
        crop_padding: How far an image is shifted at most, in pixels.
        flip: Whether an image may be mirrored, where `augment` is on.
        clip_norm: The gradient is scaled down to this length; None leaves it.
        precision: What forward and backward passes compute in; weights stay float32. `bfloat16` is nearly twice as fast
            on processors that have it.
        seed: Seed of the order of images, augmentation and dropout.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=10, ge=0)
    steps: int | None = Field(default=None, ge=0)
    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0)
    batch_size: int = Field(default=128, ge=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    augment: bool = True
    crop_padding: int = Field(default=4, ge=0)
    flip: bool = True
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(default=0, ge=0, lt=2**63)


class DistillConfig(BaseModel):
    """How much a net listens to its teacher.

    Attributes:
        temperature: Softens both nets' outputs before they are compared.
        weight: Share of the teacher in the loss, 0 (labels alone) to 1 (teacher alone).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=4.0, gt=0)
    weight: float = Field(default=0.5, ge=0, le=1)
