"""How numbers are held: fake quantisation of weights and activations."""

from compressors.quantize.activations import activation_range
from compressors.quantize.modules import QuantConv2d, QuantLinear, quantize_net
from compressors.quantize.weights import quantize_weight, weight_scales

__all__ = ["QuantConv2d", "QuantLinear", "activation_range", "quantize_net", "quantize_weight", "weight_scales"]
