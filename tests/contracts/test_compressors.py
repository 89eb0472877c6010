"""One suite over every registered way of making a smaller net."""

import copy
import itertools

import numpy as np
import pytest
import torch

from compressors.compressor import Compressor, CompressorConfig
from compressors.cost import Allocation
from compressors.counting import recount
from compressors.errors import UserError
from compressors.grouping import fingerprint, layer_table
from compressors.repair import REPAIRS
from compressors.select import SELECTORS
from compressors.storage import load_packed, save_packed
from tests.compressors.small import images, small_net

CHOICES = list(itertools.product(SELECTORS, REPAIRS, ["keep", "reestimate"]))


@pytest.fixture(scope="module")
def world():
    net = small_net()
    table = layer_table(net, images(1), "small")
    made = {}
    for order, repair, batchnorm in CHOICES:
        compressor = Compressor(CompressorConfig(order=order, repair=repair, batchnorm=batchnorm, rows=4000))
        compressor.prepare(net, table, list(images(96).split(32)))
        made[order, repair, batchnorm] = compressor
    return net, table, made


def allocations(table):
    full = Allocation.full(table)
    rng = np.random.default_rng(0)
    bits = lambda: rng.integers(2, 9, len(table.layers))  # noqa: E731
    for mode in ("sparsity", "bits", "both"):
        kept = rng.integers(1, table.group_sizes + 1) if mode != "bits" else full.kept
        yield Allocation(
            kept,
            full.weight_bits if mode == "sparsity" else bits(),
            full.activation_bits if mode == "sparsity" else bits(),
        )


@pytest.mark.parametrize("choice", CHOICES, ids="-".join)
def test_every_compressor_keeps_the_contract(world, choice, tmp_path):
    net, table, made = world
    compressor, x, before = made[choice], images(8, seed=9), fingerprint(net)
    with torch.no_grad():
        expected = net(x)
    whole = compressor.apply(net, compressor.policy(Allocation.full(table)))
    with torch.no_grad():
        torch.testing.assert_close(whole(x), expected)
        torch.testing.assert_close(compressor.fold(copy.deepcopy(whole))(x), expected, rtol=1e-4, atol=1e-5)
    for allocation in allocations(table):
        policy = compressor.policy(allocation)
        smaller = compressor.apply(net, policy)
        with torch.no_grad():
            outputs = smaller(x)
            folded = compressor.fold(copy.deepcopy(smaller))(x)
        assert outputs.shape == expected.shape and torch.isfinite(outputs).all()
        torch.testing.assert_close(folded, outputs, rtol=1e-3, atol=1e-4)
        assert recount(smaller, x[:1]) == (policy.costs["macs"], policy.costs["params"])
        assert fingerprint(compressor.apply(net, policy)) == fingerprint(smaller), "pure and deterministic"
        save_packed(smaller, tmp_path / "net.safetensors")
        again = load_packed(net, table, policy, tmp_path / "net.safetensors")
        with torch.no_grad():
            torch.testing.assert_close(again(x), outputs, rtol=1e-5, atol=1e-6)
        if (allocation.weight_bits < 32).all():
            # The header of the file, a few hundred bytes a tensor, is not part of the size that is claimed.
            assert (tmp_path / "net.safetensors").stat().st_size < policy.costs["size_bytes"] * 1.05 + 150 * 90
    assert fingerprint(net) == before


def test_least_squares_loses_less_than_no_repair(world):
    net, table, made = world
    x = images(256, seed=4)
    with torch.no_grad():
        expected = net(x)
    full = Allocation.full(table)
    half = Allocation(np.maximum(1, table.group_sizes // 2), full.weight_bits, full.activation_bits)
    losses = {}
    for repair in ("least_squares", "mean", "none"):
        compressor = made["l1", repair, "keep"]
        with torch.no_grad():
            losses[repair] = float((compressor.apply(net, compressor.policy(half))(x) - expected).square().mean())
    assert losses["least_squares"] < losses["mean"] < losses["none"]


def test_unknown_names_list_the_choices():
    with pytest.raises(UserError, match=r"Unknown channel order 'surgon'. Did you mean 'surgeon'\?"):
        Compressor(CompressorConfig(order="surgon"))
    with pytest.raises(UserError, match=r"Unknown repair 'glue'\. .*least_squares"):
        Compressor(CompressorConfig(repair="glue"))
