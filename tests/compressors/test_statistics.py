"""Statistics against the unfolded inputs themselves."""

import torch
from torch import nn
from torch.nn import functional as F

from compressors.grouping import layer_table
from compressors.statistics import gather_statistics
from tests.compressors.small import images, small_net


def gather(net, x, **options):
    table = layer_table(net, x[:1])
    return table, gather_statistics(net, table, x.split(16), images=len(x), **options)


def test_second_moments_equal_those_of_the_unfolded_input():
    torch.manual_seed(0)
    first, second = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 6, 3, dilation=2, padding=2)
    net = nn.Sequential(first, nn.ReLU(), second, nn.Flatten(), nn.Linear(96, 3)).eval()
    x = torch.randn(32, 2, 8, 8)
    _, found = gather(net, x, rows=10**6)
    with torch.no_grad():
        middle = net[1](net[0](x))
    for name, inputs, options in (("0", x, {"padding": 1, "stride": 2}), ("2", middle, {"padding": 2, "dilation": 2})):
        rows = F.unfold(inputs, 3, **options).transpose(1, 2).flatten(0, 1).double()
        centred = rows - rows.mean(0)
        torch.testing.assert_close(found.layers[name].second[0], centred.T @ centred / len(rows), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.layers[name].mean[0], rows.mean(0), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        flat = net[3](net[2](middle)).double()
    centred = flat - flat.mean(0)
    torch.testing.assert_close(found.layers["4"].second[0], centred.T @ centred / 32, rtol=1e-3, atol=1e-4)


def test_grouped_and_depthwise_layers_have_one_block_for_each_group():
    net = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2)).eval()
    _, found = gather(net, torch.randn(16, 4, 10, 10))
    assert found.layers["1"].second.shape == (8, 9, 9)
    assert found.layers["2"].second.shape == (2, 36, 36)


def test_layers_without_bias_or_batchnorm_are_not_centred():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 2, 3, bias=False)).eval()
    _, found = gather(net, torch.rand(16, 1, 8, 8) + 1)
    assert not found.layers["0"].mean.any()


def test_a_memory_bound_falls_back_and_says_so():
    net = small_net()
    table, found = gather(net, images(32), memory_bytes=8 * 72**2 * 2)
    poor = [name for name, seen in found.layers.items() if seen.second is None]
    assert poor
    consumers = {name for group in table.groups for name in group.consumers}
    assert {note.split(":")[0] for note in found.notes} == set(poor) & consumers
    assert all("exceeds the bound" in note for note in found.notes)
    _, full = gather(net, images(32))
    for name in poor:
        torch.testing.assert_close(found.layers[name].diagonal, full.layers[name].diagonal, rtol=1e-3, atol=1e-6)


def test_gathering_leaves_the_net_alone_and_is_deterministic():
    net = small_net().train()
    first = gather(net, images(32))[1]
    assert net.training and not any(module._forward_pre_hooks for module in net.modules())
    second = gather(net, images(32))[1]
    for name in first.layers:
        assert torch.equal(first.layers[name].second, second.layers[name].second)
        assert torch.equal(first.layers[name].samples, second.layers[name].samples)


def test_gains_of_batchnorms_weigh_output_channels():
    net = small_net()
    _, found = gather(net, images(16))
    norm = net.bn1
    gain = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(found.layers["conv1"].scale, gain.double())
