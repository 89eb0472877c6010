"""Layers that compute with weights and inputs as a device with few bits would hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressors.quantize.activations import activation_range
from compressors.quantize.weights import quantize_weight, weight_scales

FULL_BITS = 32


@dataclass(frozen=True)
class Width:
    """Bits of one layer; 32 means not quantised."""

    weight_bits: int = FULL_BITS
    activation_bits: int = FULL_BITS


class _Quantized(nn.Module):
    """What quantised layers share: scales as buffers, so that they travel with the state dict."""

    weight: Tensor
    weight_scale: Tensor
    activation_scale: Tensor
    activation_zero: Tensor
    weight_bits: int
    activation_bits: int

    def set_width(self, width: Width, samples: Tensor) -> None:
        """Sets bits and chooses scales from the present weights and a sample of the inputs."""
        self.weight_bits, self.activation_bits = width.weight_bits, width.activation_bits
        if self.weight_bits < FULL_BITS:
            scales = weight_scales(self.weight, self.weight_bits)
        else:
            scales = torch.ones(len(self.weight), device=self.weight.device)
        scale, zero = activation_range(samples, self.activation_bits) if self.activation_bits < FULL_BITS else (1.0, 0)
        self.register_buffer("weight_scale", scales)
        self.register_buffer("activation_scale", torch.tensor(scale, device=self.weight.device))
        self.register_buffer("activation_zero", torch.tensor(zero, dtype=torch.int32, device=self.weight.device))

    def held_weight(self) -> Tensor:
        """The weights as they are held."""
        if self.weight_bits == FULL_BITS:
            return self.weight
        return quantize_weight(self.weight, self.weight_scale, self.weight_bits)

    def held_input(self, x: Tensor) -> Tensor:
        """The inputs as they are held."""
        if self.activation_bits == FULL_BITS:
            return x
        top = 2**self.activation_bits - 1
        return torch.fake_quantize_per_tensor_affine(x, self.activation_scale, self.activation_zero, 0, top)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_bits={self.weight_bits}, activation_bits={self.activation_bits}"


class QuantConv2d(_Quantized, nn.Conv2d):
    """A convolution with fake-quantised weights and inputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolves `(N, C, H, W)`."""
        outputs: Tensor = self._conv_forward(self.held_input(x), self.held_weight(), self.bias)
        return outputs


class QuantLinear(_Quantized, nn.Linear):
    """A linear map with fake-quantised weights and inputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., in_features)`."""
        return nn.functional.linear(self.held_input(x), self.held_weight(), self.bias)


def quantize_net(net: nn.Module, widths: Mapping[str, Width], samples: Mapping[str, Tensor]) -> nn.Module:
    """Replaces layers, in place, by quantised ones of the same name and tensors.

    Args:
        net: The net; layers other than `nn.Conv2d` and `nn.Linear` are left as they are.
        widths: Bits by layer name.
        samples: A sample of each layer's inputs, by layer name.

    Returns:
        The same net.
    """
    for name, width in widths.items():
        if width == Width():
            continue
        layer = net.get_submodule(name)
        parent = net.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _quantized(layer, width, samples[name]))
    return net


def _quantized(layer: nn.Module, width: Width, samples: Tensor) -> nn.Module:
    quantized: QuantConv2d | QuantLinear
    if type(layer) is nn.Conv2d:
        quantized = QuantConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
            device="meta",
        )
    elif type(layer) is nn.Linear:
        quantized = QuantLinear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    else:
        return layer
    quantized.weight, quantized.bias = layer.weight, layer.bias
    quantized.train(layer.training)
    quantized.set_width(width, samples)
    return quantized
