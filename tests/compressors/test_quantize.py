"""Quantisation: grids, scales, straight-through gradients, packing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.quantize import (
    QuantConv2d,
    QuantLinear,
    activation_range,
    quantize_net,
    quantize_weight,
    weight_scales,
)
from compressors.quantize.bake import bake_weights
from compressors.quantize.modules import Width
from compressors.quantize.weights import levels
from compressors.storage.packed import pack, unpack


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_take_at_most_the_grids_values_in_each_channel(bits):
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(bits))
    scales = weight_scales(weight, bits)
    held = quantize_weight(weight, scales, bits)
    low, high = levels(bits)
    for channel in range(6):
        grid = (held[channel] / scales[channel]).round()
        torch.testing.assert_close(grid * scales[channel], held[channel])
        assert grid.min() >= low and grid.max() <= high
        assert len(grid.unique()) <= 2**bits - 1


def test_more_bits_lose_less_and_scales_beat_plain_maximum():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    losses = []
    for bits in range(2, 9):
        held = quantize_weight(weight, weight_scales(weight, bits), bits)
        plain = quantize_weight(weight, weight.abs().amax(1) / levels(bits)[1], bits)
        losses.append(float((held - weight).square().sum()))
        assert losses[-1] <= float((plain - weight).square().sum()) + 1e-9
    assert losses == sorted(losses, reverse=True)


def test_a_channel_of_zeros_stays_zero():
    weight = torch.zeros(2, 5)
    assert not quantize_weight(weight, weight_scales(weight, 4), 4).any()


def test_ranges_of_activations():
    ramp = torch.linspace(0, 1, 1001)
    scale, zero = activation_range(ramp, 8)
    assert zero == 0 and scale == pytest.approx(1 / 255, rel=0.05)
    scale, zero = activation_range(ramp * 2 - 1, 8)
    assert zero == pytest.approx(127.5, abs=1)
    assert activation_range(torch.zeros(10), 4) == (1.0, 0)


def test_modules_quantise_weights_and_inputs_and_pass_gradients():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 5)).eval()
    x = torch.rand(4, 2, 6, 6)
    weight = net[0].weight.detach().clone()
    quantize_net(net, {"0": Width(3, 4), "2": Width(8, 32)}, {"0": x.flatten(), "2": torch.zeros(0)})
    assert isinstance(net[0], QuantConv2d) and isinstance(net[2], QuantLinear)
    torch.testing.assert_close(net[0].weight, weight)
    held_x = net[0].held_input(x)
    assert len(held_x.unique()) <= 16
    expected = nn.functional.conv2d(held_x, quantize_weight(weight, net[0].weight_scale, 3), net[0].bias)
    torch.testing.assert_close(net[0](x), expected)
    net(x).sum().backward()
    assert net[0].weight.grad.abs().sum() > 0


def test_baking_changes_no_output():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 5)).eval()
    x = torch.rand(4, 2, 6, 6)
    quantize_net(net, {"0": Width(4, 6), "2": Width(3, 32)}, {"0": x.flatten(), "2": torch.zeros(0)})
    with torch.no_grad():
        before = net(x)
        torch.testing.assert_close(bake_weights(net)(x), before, rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(bits=st.integers(2, 8), data=st.data())
def test_packing_is_lossless_and_takes_just_its_bits(bits, data):
    low, high = levels(bits)
    values = torch.tensor(data.draw(st.lists(st.integers(low, high), min_size=1, max_size=70)), dtype=torch.float32)
    stream = pack(values, bits)
    assert len(stream) == -(-len(values) * bits // 8)
    assert torch.equal(unpack(stream, len(values), bits), values)
