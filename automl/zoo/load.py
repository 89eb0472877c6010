"""From a `NetConfig` to a net in evaluation mode, with its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from automl.data.remote import Progress, fetched_file
from automl.remote.errors import named_as
from automl.remote.url import is_url, shown
from automl.weights import load_weights
from automl.zoo.config import LoadedNet, NetConfig
from automl.zoo.external import Made, make_own, make_timm, make_torchvision, torchvision_names
from automl.zoo.registry import NETS
from compressors.errors import UserError, one_of

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Weights that come with Secateur."""

_COMMITTED = {"resnet8_digits": ((1, 8, 8), 10)}
"""Our nets with committed weights: the input shape and classes that they are for."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OURS = "Apache-2.0"


def load_net(
    config: NetConfig,
    *,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    pretrained: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> LoadedNet:
    """Makes the net, loads its weights and tries it on one input.

    Args:
        config: Which net and weights.
        in_channels: Channels of the data's images.
        num_classes: Classes of the data; `config.num_classes` wins.
        image_size: Height and width of the data's images.
        pretrained: Whether committed weights are used where no file is named and they fit.
        seed: Seed of what the weights file does not set; the global random state is left as it was.
        progress: Is told how far weights at a URL are fetched, in megabytes.

    Raises:
        UserError: The net is unknown or cannot be made, the weights do not fit, or the net does not run on such
            images, or gives NaN.
    """
    classes = config.num_classes or num_classes
    input_shape = (in_channels, *image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _make(config.name, in_channels, classes)
    net, trained = made.net, made.licence == "unknown"
    source = made.source
    committed = CHECKPOINTS / f"{config.name}.safetensors"
    if config.weights is not None:
        weights = str(config.weights)
        local = fetched_file(weights, progress) if is_url(weights) else Path(weights)
        with named_as(local, weights):
            load_weights(net, local, ignored=made.ignored)
        source, trained = f"{source}, weights {shown(weights)}", True
    elif pretrained and _COMMITTED.get(config.name) == (input_shape, classes) and committed.is_file():
        load_weights(net, committed)
        source, trained = f"{source}, committed weights", True
    net = net.cpu().eval()
    _try(net, config.name, input_shape, num_classes)
    mean, std = (config.mean, config.std) if config.mean is not None else (made.mean, made.std)
    if config.mean is not None and len(config.mean) != in_channels:
        raise UserError(
            f"mean and std must have {in_channels} numbers, one for each channel, but got {len(config.mean)}."
        )
    fits = mean is not None and len(mean) == in_channels
    return LoadedNet(
        net=net,
        name=config.name,
        input_shape=input_shape,
        num_classes=classes,
        mean=mean if fits else None,
        std=std if fits else None,
        source=source,
        licence=made.licence,
        trained=trained,
    )


def _make(name: str, in_channels: int, num_classes: int) -> Made:
    family, colon, rest = name.partition(":")
    if not colon:
        if name not in NETS and name in torchvision_names():
            raise UserError(f"Unknown net {name!r}. Did you mean 'torchvision:{name}'?")
        if name not in NETS:
            raise one_of("net", name, [*NETS, "torchvision:NAME", "timm:NAME", "package.module:factory"])
        mean, std = _IMAGENET if in_channels == 3 else (None, None)
        return Made(NETS[name](in_channels, num_classes), mean, std, "secateur", _OURS)
    if family in ("torchvision", "timm"):
        made = make_torchvision(rest, num_classes) if family == "torchvision" else make_timm(rest, num_classes)
        if in_channels != 3:
            raise UserError(
                f"Net {name!r} needs images of 3 channels, but the data has {in_channels}: pass --channels 3."
            )
        return made
    return make_own(name, in_channels, num_classes)


def _try(net: nn.Module, name: str, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Runs one input of zeros, so that a net that does not fit the data is refused before anything else starts."""
    shape = "x".join(map(str, input_shape))
    try:
        with torch.no_grad():
            outputs = net(torch.zeros(1, *input_shape))
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"Net {name!r} must run on images of {shape} (channels, height, width), but it failed with "
            f"{type(error).__name__}: {text} Try --image-size 224 (or what the net was made for) or --channels."
        ) from error
    if isinstance(outputs, Tensor) and not bool(torch.isfinite(outputs).all()):
        raise UserError(f"Outputs of net {name!r} must be finite, but it gives NaN or infinity on an image of zeros.")
    if isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] < num_classes:
        raise UserError(
            f"Net {name!r} must have an output for each of {num_classes} classes, but it has {outputs.shape[1]}: pass "
            f"other data, or make the net with num_classes={num_classes}."
        )
