"""A small net that everything in this folder can afford: a residual net on 8x8 images, with calibration inputs."""

import torch
from torch import nn

from automl.zoo.resnet import SmallResNet
from compressors.compressor import Compressor, CompressorConfig
from compressors.grouping import layer_table


def small_net(seed=0):
    torch.manual_seed(seed)
    net = SmallResNet(1, in_channels=1, widths=(8, 12, 16)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.3)
    return net


def images(count=64, seed=1):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def prepared(**settings):
    net = small_net()
    table = layer_table(net, images(1), "small")
    compressor = Compressor(CompressorConfig(**{"rows": 8000, **settings}))
    compressor.prepare(net, table, list(images(128).split(32)))
    return net, table, compressor
