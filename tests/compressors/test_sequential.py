"""The sequential repair against the regressions that it claims to solve, and where it must step aside."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.compressor import Compressor, CompressorConfig
from compressors.cost import Allocation
from compressors.grouping import fingerprint, layer_table
from compressors.sequential import _spread
from tests.compressors.small import images, small_net


class Block(nn.Module):
    """A stem that is cut inside, then a sum of its output with a branch of its own."""

    def __init__(self, norm=True, shortcut=False, twice=False):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(10, 24), nn.Linear(24, 12)
        self.c = nn.Linear(12, 16)
        self.d = nn.Linear(16, 12, bias=not norm)
        self.norm = nn.BatchNorm1d(12) if norm else nn.Identity()
        self.side = nn.Linear(12, 12, bias=False) if shortcut else nn.Identity()
        self.head = nn.Linear(12, 5)
        self.twice = twice
        if norm:
            self.norm.running_mean.normal_(0, 0.3)
            self.norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def branch(self, x):
        return self.norm(self.d(F.relu(self.c(x))))

    def summed(self, x):
        stem = self.b(F.relu(self.a(x)))
        added = self.branch(stem) + self.side(stem)
        return self.branch(F.relu(added)) + added if self.twice else added

    def forward(self, x):
        return self.head(F.relu(self.summed(x)))


def vectors(count=512, seed=1):
    return torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))


def made(net, x, repair="sequential", **settings):
    table = layer_table(net, x[:1], "block")
    compressor = Compressor(CompressorConfig(**{"order": "l1", "repair": repair, "rows": 4000, **settings}))
    compressor.prepare(net, table, list(x.split(64)))
    return compressor


def policy_of(compressor, share=0.5, only=None):
    full = Allocation.full(compressor.table)
    kept = [
        max(1, int(group.size * share)) if only in (None, group.name) else group.size
        for group in compressor.table.groups
    ]
    return compressor.policy(Allocation(np.array(kept), full.weight_bits, full.activation_bits))


def damped_fit(inputs, lacks):
    """The change of weights and intercept that solves the damped regression, as an ordinary least-squares problem."""
    x, y = inputs.double(), lacks.double()
    count, columns = x.shape
    mean = x.mean(0)
    damping = (x - mean).square().mean() * columns / count
    design = torch.cat([x - mean, (damping * count).sqrt() * torch.eye(columns)])
    change = torch.linalg.lstsq(design, torch.cat([y - y.mean(0), torch.zeros(columns, y.shape[1])])).solution
    return change.T, y.mean(0) - change.T @ mean


def inputs_of(net, name, x):
    seen = []
    handle = net.get_submodule(name).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        net(x)
    handle.remove()
    return seen[0]


def test_a_layer_is_fitted_to_its_original_outputs_on_the_inputs_of_the_cut_net():
    net, x = Block(norm=False).eval(), vectors()
    compressor = made(net, x, sequential_images=512)
    start = made(net, x, "least_squares")
    policy = policy_of(compressor, only="a")
    before, after = start.apply(net, policy), compressor.apply(net, policy)
    for name in ("b", "c", "head"):  # c and head lose nothing: only their inputs have drifted
        now, then = inputs_of(after, name, x), inputs_of(net, name, x)
        old, new, full = (n.get_submodule(name) for n in (before, after, net))
        with torch.no_grad():
            change, shift = damped_fit(now, full(then) - old(now))
        torch.testing.assert_close(new.weight.double(), old.weight + change, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(new.bias.double(), old.bias + shift, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batchnorm", ["keep", "auto"])
def test_a_branch_is_fitted_to_the_sum_of_the_original_net(batchnorm):
    net, x = Block().eval(), vectors()
    compressor = made(net, x, sequential_images=512, batchnorm=batchnorm)
    start = made(net, x, "least_squares", batchnorm="keep")
    policy = policy_of(compressor, only="a")
    before, after = start.apply(net, policy), compressor.apply(net, policy)
    assert [name for name, target in compressor._sequential.targets.items() if target.summed] == ["d"]
    now = inputs_of(after, "d", x)
    with torch.no_grad():
        stem = after.b(F.relu(after.a(x)))
        norm = net.norm
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        wanted = (net.summed(x) - stem - norm.bias) / gain + norm.running_mean
        change, shift = damped_fit(now, wanted - before.d(now) + before.norm.running_mean - norm.running_mean)
    torch.testing.assert_close(after.d.weight.double(), before.d.weight + change, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after.norm.running_mean.double(), before.norm.running_mean - shift, rtol=1e-3, atol=1e-4)
    assert torch.equal(after.norm.running_var, norm.running_var)
    with torch.no_grad():
        errors = [float((n.summed(x) - net.summed(x)).square().mean()) for n in (before, after)]
    assert errors[1] < errors[0]


def test_of_two_branches_the_one_with_more_inputs_makes_up_for_the_other():
    compressor = made(Block(shortcut=True).eval(), vectors())
    compressor.apply(Block(shortcut=True).eval(), policy_of(compressor))
    targets = compressor._sequential.targets
    assert targets["d"].summed and not targets["side"].summed


def test_a_layer_that_is_called_twice_stays_as_least_squares_left_it():
    net, x = Block(twice=True).eval(), vectors()
    compressor, start = made(net, x, batchnorm="keep"), made(net, x, "least_squares", batchnorm="keep")
    policy = policy_of(compressor)
    after, before = compressor.apply(net, policy), start.apply(net, policy)
    assert {"c", "d"}.isdisjoint(compressor._sequential.targets)
    assert torch.equal(after.c.weight, before.c.weight) and not torch.equal(after.b.weight, before.b.weight)


def test_a_plain_layer_beside_a_branch_is_left_to_itself():
    """Both operands come straight from layers, and the weaker one is read twice."""
    compressor = made(Block().eval(), vectors())
    compressor.apply(Block().eval(), policy_of(compressor))
    assert {name: target.summed for name, target in compressor._sequential.targets.items()} == {
        "a": False, "b": False, "c": False, "d": True, "head": False,
    }  # fmt: skip


def test_an_output_that_is_read_elsewhere_is_fitted_to_itself():
    class Read(Block):
        def summed(self, x):
            stem = self.b(F.relu(self.a(x)))
            branch = self.branch(stem)
            return branch + stem + branch.square()

    compressor = made(Read().eval(), vectors())
    compressor.apply(Read().eval(), policy_of(compressor))
    assert not compressor._sequential.targets["d"].summed


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_of_other_ranks_fall_back(rank):
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    net = nn.Sequential(conv(2, 8, 3), nn.ReLU(), conv(8, 4, 1), nn.Flatten(), nn.Linear(4 * 2**rank, 3)).eval()
    x = torch.randn(64, 2, *[4] * rank)
    compressor, start = made(net, x), made(net, x, "least_squares")
    policy = policy_of(compressor, only="0")
    after, before = compressor.apply(net, policy), start.apply(net, policy)
    assert list(compressor._sequential.targets) == ["4"]
    assert torch.equal(after[2].weight, before[2].weight) and not torch.equal(after[4].weight, before[4].weight)


def test_layers_without_second_moments_fall_back():
    net = Block().eval()
    compressor, start = made(net, vectors(), memory_mib=0), made(net, vectors(), "least_squares", memory_mib=0)
    policy = policy_of(compressor)
    assert fingerprint(compressor.apply(net, policy)) == fingerprint(start.apply(net, policy))


def test_depthwise_and_strided_convolutions_follow():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2, dilation=2, padding=2), nn.Flatten(),
        nn.Linear(54, 3),
    ).eval()  # fmt: skip
    x = images(256)
    compressor, start = made(net, x), made(net, x, "least_squares")
    policy = policy_of(compressor, 0.7)
    losses = []
    for each in (start, compressor):
        with torch.no_grad():
            losses.append(float((each.apply(net, policy)(images(256, 5)) - net(images(256, 5))).square().mean()))
    assert len(compressor._sequential.targets) == 5 and losses[1] < losses[0]


def test_sequential_loses_less_than_least_squares_on_other_images():
    net, x, losses = small_net(), images(256, seed=7), {}
    for repair in ("least_squares", "sequential"):
        compressor = made(net, images(512), repair, rows=20_000, sequential_images=512, batchnorm="keep")
        with torch.no_grad():
            losses[repair] = float((compressor.apply(net, policy_of(compressor))(x) - net(x)).square().mean())
    assert losses["sequential"] < 0.9 * losses["least_squares"]


def test_what_stands_before_the_first_cut_stays_as_it_was():
    net = small_net()
    compressor = made(net, images(128))
    head = compressor.table.groups[-1].name
    after = compressor.apply(net, policy_of(compressor, only=head))
    before = [layer for layer in compressor.table.layers if layer.index < compressor.table.by_name[head].index]
    for layer in before:
        assert torch.equal(after.get_parameter(layer.weight), net.get_parameter(layer.weight))
    assert not torch.equal(after.linear.weight, net.linear.weight)


def test_a_candidate_does_not_depend_on_what_came_before_nor_on_cached_statistics():
    net, x = small_net().train(), images(128)
    first = made(net, x)
    half = policy_of(first)
    expected = fingerprint(first.apply(net, half))
    second = Compressor(first.config)
    second.use(first.table, first.statistics, list(x.split(64)))
    second.apply(net, policy_of(first, 0.7))
    again = second.apply(net, half)
    assert fingerprint(again) == expected and again.training and net.training
    for module in (*net.modules(), *again.modules()):
        assert not module._forward_pre_hooks and not module._forward_hooks
    with torch.inference_mode():
        assert fingerprint(second.apply(net, half)) == expected
    copied = copy.deepcopy(second)
    assert fingerprint(copied.apply(net, half)) == expected


def test_a_channel_without_gain_does_not_spoil_the_others():
    net, x = Block().eval(), vectors()
    with torch.no_grad():
        net.norm.weight[3] = 1e-30
        net.norm.weight[4] = 0
    policy = policy_of(made(net, x), only="a")
    settings = {"sequential_images": 512, "batchnorm": "keep"}
    after, start = (made(net, x, repair, **settings).apply(net, policy) for repair in ("sequential", "least_squares"))
    assert not torch.equal(after.d.weight, start.d.weight)
    with torch.no_grad():
        assert torch.isfinite(after(x)).all()
        assert (after.summed(x) - net.summed(x)).square().mean() < (start.summed(x) - net.summed(x)).square().mean()


def test_images_are_spread_over_all_batches():
    batches = [torch.arange(4.0), torch.arange(4.0, 7.0), torch.arange(7.0, 12.0)]
    assert _spread(batches, 4).tolist() == [0, 3, 6, 9]
    assert _spread(batches, 12).tolist() == list(range(12))
