"""Which net, and what travels with it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import nn

from automl.remote.url import is_url


class NetConfig(BaseModel):
    """Which net is compressed.

    Attributes:
        name: One of our own (`resnet20`, ...), `torchvision:NAME`, `timm:NAME` or `package.module:factory`.
        weights: File with its weights, or its URL (`s3://`, `gs://`, ...); None: the committed ones where there are
            some, else untrained.
        num_classes: Outputs of the net; None: as many as the data has classes.
        mean: Normalisation that the net was trained with, of images in 0..1, one number for each channel; None: what
            is known of the net, else the data's.
        std: Likewise; given together with `mean`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "resnet8_digits"
    weights: str | Path | None = None
    num_classes: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None

    @field_validator("weights", mode="before")
    @classmethod
    def _path_or_url(cls, value: Any) -> Any:
        if value is None or is_url(value):
            return value
        if not isinstance(value, str | PathLike):
            raise ValueError("must be a path or a URL")
        return Path(value)

    @model_validator(mode="after")
    def _together(self) -> NetConfig:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std must be given together, with one number for each channel")
        return self


@dataclass(frozen=True, eq=False)
class LoadedNet:
    """A net, ready to use, with its facts.

    Attributes:
        net: In evaluation mode, on the CPU.
        name: As the user typed it.
        input_shape: Of one image, `(C, H, W)`.
        num_classes: Outputs it was made with.
        mean: Normalisation that it expects of images in 0..1; None: the data's.
        std: Likewise.
        source: Where net and weights come from.
        licence: Of the net and of weights that come with it; of a user's own weights nothing is known.
        trained: Whether weights were loaded (or a user's factory made the net, which may have loaded its own).
    """

    net: nn.Module
    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    source: str
    licence: str
    trained: bool
