"""Channel groups on real architectures: what is cut computes what the masked net computes, and costs what it says."""

import time

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from automl.zoo.resnet import SmallResNet
from compressors.cost import Allocation, CostModel
from compressors.counting import recount
from compressors.errors import UserError
from compressors.grouping import fingerprint, layer_table
from compressors.slicing import cut, keep_mask

TORCHVISION = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "googlenet",
    "vgg11_bn", "densenet121", "efficientnet_b0", "mnasnet0_5", "regnet_y_400mf", "convnext_tiny",
)  # fmt: skip
RESNETS = {"resnet20": 3, "resnet56": 9}
AGREED = ("resnet20", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "googlenet", "vgg11_bn")


def make(name):
    torch.manual_seed(0)
    if name in RESNETS:
        net, size = SmallResNet(RESNETS[name]), 32
    else:
        options = {"init_weights": False} if name == "googlenet" else {}
        net, size = torchvision.models.get_model(name, weights=None, **options), 224
    # Statistics as after training, so that a removed channel is not zero by chance.
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return net.eval(), torch.randn(2, 3, size, size)


def random_kept(table, seed):
    rng = np.random.default_rng(seed)
    kept = np.ones(table.num_units, dtype=bool)
    for group in table.groups:
        lose = int(rng.integers(0, group.size))
        kept[group.start + rng.permutation(group.size)[:lose]] = False
    return kept


def masked(net, table, kept):
    """The full net in which nobody reads a removed channel."""
    copied = cut(net, table, np.ones(table.num_units, dtype=bool))
    tensors = dict(copied.named_parameters())
    for piece in table.slices:
        if piece.axis == 1:
            gone = np.flatnonzero(~keep_mask(piece.units, kept))
            with torch.no_grad():
                tensors[piece.name][:, gone] = 0
    return copied


@pytest.mark.parametrize("name", [*RESNETS, *TORCHVISION])
def test_removed_equals_masked_and_costs_equal_a_recount(name):
    net, x = make(name)
    before = fingerprint(net)
    start = time.perf_counter()
    table = layer_table(net, x, name)
    seconds = time.perf_counter() - start
    assert seconds < 8, "2 s on a quiet machine, with room for a busy one"
    assert sum(layer.macs for layer in table.layers) == recount(net, x)[0]
    cost = CostModel(table)
    assert (cost.original.macs, cost.original.params) == recount(net, x)
    for seed in range(2):
        kept = random_kept(table, seed)
        smaller = cut(net, table, kept)
        with torch.no_grad():
            expected, found = masked(net, table, kept)(x), smaller(x)
        assert found.shape == expected.shape
        scale = expected.abs().max().clamp_min(1.0)
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)
        counts = np.bincount(table.unit_groups[kept], minlength=len(table.groups))
        full = Allocation.full(table)
        costs = cost.of(Allocation(counts, full.weight_bits, full.activation_bits))
        assert (costs.macs, costs.params) == recount(smaller, x)
    assert fingerprint(net) == before
    assert table.num_units > 0


@pytest.mark.parametrize("name", AGREED)
def test_groups_equal_torch_pruning(name):
    tp = pytest.importorskip("torch_pruning")
    net, x = make(name)
    table = layer_table(net, x, name)
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=x[:1])
    modules = dict(net.named_modules())
    names = {module: path for path, module in modules.items()}
    for group in table.groups:
        if name == "resnet20" and not group.inner:
            continue  # its shortcut is padding, which Torch-Pruning does not follow
        head = table.by_name[group.name]
        unit = group.start + group.size // 2
        channels = np.flatnonzero(table.axis_units(head.weight, 0) == unit).tolist()
        prune = tp.prune_linear_out_channels if head.kind == "linear" else tp.prune_conv_out_channels
        if head.kind == "depthwise":
            prune = tp.prune_depthwise_conv_out_channels
        theirs = {}
        for dependency, indices in graph.get_pruning_group(modules[group.name], prune, channels):
            path = names.get(dependency.target.module)
            if path is None or not isinstance(modules[path], nn.Conv2d | nn.Linear):
                continue
            depthwise = isinstance(modules[path], nn.Conv2d) and modules[path].groups == modules[path].in_channels > 1
            axis = 0 if depthwise or "out_channels" in dependency.handler.__name__ else 1
            theirs.setdefault((path, axis), set()).update(int(i) for i in indices)
        ours = {
            (piece.name.rpartition(".")[0], piece.axis): set(np.flatnonzero(piece.units == unit).tolist())
            for piece in table.slices
            if (piece.units == unit).any() and piece.name.endswith("weight")
            and isinstance(modules[piece.name.rpartition(".")[0]], nn.Conv2d | nn.Linear)
        }  # fmt: skip
        assert ours == theirs, group.name


class HardCodedSplit(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.Conv2d(6, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        left, right = torch.split(self.a(x), [6, 6], 1)
        return self.c(F.relu(self.b(left) + self.b(right)))


class HardCodedView(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Linear(8 * 64, 7)

    def forward(self, x):
        return self.b(self.a(x).view(-1, 512))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = self.embed(x.flatten(2).flatten(0, 1))
        x = x + self.attend(x, x, x)[0]
        return self.down(F.gelu(self.up(x)))


class Gate(nn.Module):
    """A spatial gate of one channel, a learned scale, a constant table and shared weights."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 1, 1)
        self.scale = nn.Parameter(torch.randn(8, 1, 1))
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.a(x)
        x = x * torch.sigmoid(self.gate(x)) * self.scale
        x = self.twice(F.relu(self.twice(x)))
        return self.last(x).mean((2, 3))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        out = x.new_zeros(len(x), 12, *x.shape[2:])
        out[:, :6].add_(self.a(x))
        out[:, 6:].copy_(self.b(x))
        return self.last(out)


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8)
        self.b, self.c = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(self.norm(self.a(x)))))


def cuttable(table):
    return {name for group in table.groups for name in group.layers}


@pytest.mark.parametrize(
    ("net", "shape", "whole", "free"),
    [
        (HardCodedSplit(), (3, 8, 8), {"a"}, {"b"}),
        (HardCodedView(), (3, 8, 8), {"a"}, set()),
        (Attention(), (8, 5, 1), {"embed"}, {"up"}),
        (Gate(), (3, 8, 8), {"gate"}, {"a"}),
        (InPlace(), (3, 8, 8), {"a", "b"}, set()),
        (Norms(), (3, 8, 8), {"a"}, {"b"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_cut_safely_is_left_whole_and_reported(net, shape, whole, free):
    x = torch.randn(2, *shape) if not isinstance(net, Attention) else torch.randn(1, 5, 8, 1)
    net.eval()
    table = layer_table(net, x)
    assert not cuttable(table) & whole
    assert free <= cuttable(table)
    assert whole <= {pin.layer for pin in table.pins}
    assert all(pin.operator and pin.channels > 0 for pin in table.pins)
    for seed in range(3):
        kept = random_kept(table, seed)
        with torch.no_grad():
            torch.testing.assert_close(cut(net, table, kept)(x), masked(net, table, kept)(x), rtol=1e-4, atol=1e-5)


def test_cut_shares_no_memory_and_updates_attributes():
    net, x = make("mobilenet_v2")
    table = layer_table(net, x)
    smaller = cut(net, table, random_kept(table, 3))
    ours = {tensor.data_ptr() for tensor in smaller.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in net.state_dict().values()}
    for module in smaller.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.running_mean)


def test_errors_are_one_line():
    with pytest.raises(UserError, match=r"does not run on an input of shape \(1, 1, 8, 8\)"):
        layer_table(SmallResNet(1), torch.zeros(1, 1, 8, 8), "mine")
    with pytest.raises(UserError, match="no convolution or linear layer"):
        layer_table(nn.ReLU(), torch.zeros(1, 3, 8, 8))
