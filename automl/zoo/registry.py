"""Our own nets: each is made for any number of image channels and classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from automl.zoo.resnet import SmallResNet
from compressors.registry import Registry

NETS: Registry[Callable[[int, int], nn.Module]] = Registry("net")
"""Our own nets by name; each value takes `in_channels` and `num_classes`."""


def _resnet(blocks: int, in_channels: int, num_classes: int) -> nn.Module:
    return SmallResNet(blocks, in_channels, num_classes)


for _depth in (20, 32, 44, 56, 110):
    NETS.register(
        f"resnet{_depth}", f"Residual net of {_depth} layers for 32x32 images.", "He et al. 2016, section 4.2"
    )(partial(_resnet, (_depth - 2) // 6))


NETS.register("resnet8_digits", "Residual net of 8 layers for 8x8 images.", "He et al. 2016, section 4.2")(
    partial(_resnet, 1)
)


@NETS.register(
    "mobilenet_v2_32", "MobileNetV2 for 32x32 images: a quarter of the strides.", "Sandler et al. 2018, table 2"
)
def mobilenet_v2_32(in_channels: int, num_classes: int) -> nn.Module:
    """MobileNetV2 whose stem and first shrinking stage keep the size, so that 32x32 images end as 4x4.

    Args:
        in_channels: Channels of the image.
        num_classes: Outputs.
    """
    from torchvision.models import MobileNetV2

    # Expansion, channels, repeats, stride. The second row's stride is 2 in the paper.
    rows = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    net: Any = MobileNetV2(num_classes=num_classes, inverted_residual_setting=rows)
    stem = nn.Conv2d(in_channels, net.features[0][0].out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    net.features[0][0] = stem
    made: nn.Module = net
    return made
