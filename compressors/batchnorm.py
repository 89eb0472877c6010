"""BatchNorm: folding it into the layer before it, and measuring its statistics anew."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compressors.layers import LayerTable
from compressors.quantize.modules import _Quantized
from compressors.statistics import device_of


def fold_batchnorms(net: nn.Module, table: LayerTable) -> nn.Module:
    """Folds, in place, every BatchNorm that alone follows a convolution or linear layer into it.

    The net computes the same in eval mode with one pass less over each feature map. Quantised weights stay on their
    grid: scales of output channels absorb the gain.

    Returns:
        The same net, for inference.
    """
    for name, norm_name in table.batchnorms.items():
        layer, norm = net.get_submodule(name), net.get_submodule(norm_name)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None:
            continue
        assert isinstance(layer.weight, Tensor) and norm.running_var is not None
        with torch.no_grad():
            gain = (norm.running_var + norm.eps).rsqrt()
            gain = gain * norm.weight if norm.weight is not None else gain
            bias = layer.bias if isinstance(layer.bias, Tensor) else torch.zeros_like(norm.running_mean)
            shift = (bias - norm.running_mean) * gain + (norm.bias if norm.bias is not None else 0)
            if isinstance(layer, _Quantized):
                # The grid is symmetric, so a negative gain is as good as a positive one.
                layer.weight_scale = layer.weight_scale * gain.abs()
            layer.weight = nn.Parameter(layer.weight * gain.reshape(-1, *[1] * (layer.weight.dim() - 1)), False)
            layer.bias = nn.Parameter(shift, False)
        parent = net.get_submodule(norm_name.rpartition(".")[0])
        setattr(parent, norm_name.rpartition(".")[2], nn.Identity())
    return net


def reestimate_batchnorms(net: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Measures, in place, the running statistics of all BatchNorms anew (EagleEye, Li et al. 2020, section 3.3).

    After a least-squares repair this can hurt: a fit has less variance than its target, and normalising it to unit
    variance amplifies what was lost.

    Args:
        net: The net.
        batches: Inputs, `(N, C, H, W)` each.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    modes = {module: module.training for module in net.modules()}
    momenta = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for batch in batches:
            net(batch.to(device_of(net)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes.items():
        module.training = training
    return net
