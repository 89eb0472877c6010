import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import automl
from automl.candidate import for_inference
from automl.export import export
from automl.profile_cache import prepare
from automl.task import Loaders, task_of
from compressors.compressor import Compressor
from compressors.cost import Allocation
from compressors.errors import UserError
from compressors.grouping import layer_table


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.n = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 12, 3, stride=2)
        self.f = nn.Linear(12, 4)

    def forward(self, x):
        return self.f(torch.relu(self.b(torch.relu(self.n(self.a(x))))).mean((2, 3)))


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    net = Small().eval()
    inputs = torch.randn(64, 3, 9, 9)
    task = task_of(
        Loaders([(inputs, torch.zeros(64, dtype=torch.long))], [inputs], [(inputs, inputs[:, 0, 0, 0].long())])
    )
    table = layer_table(net, inputs[:1], "small")
    compressor = Compressor()
    prepare(compressor, net, table, task)
    return net, compressor, inputs


def smaller(made, bits: int = 32):
    net, compressor, _ = made
    kept = np.array([group.size // 2 for group in compressor.table.groups])
    widths = np.full(len(compressor.table.layers), bits)
    policy = compressor.policy(Allocation(kept, widths, np.full(len(widths), 8 if bits < 32 else 32)))
    return compressor.apply(net, policy), policy


@pytest.mark.parametrize("bits", [32, 8, 3])
def test_program_computes_what_the_net_does_for_any_batch_size(made, tmp_path, bits):
    net, compressor, inputs = made
    candidate, policy = smaller(made, bits)
    found = export(candidate, net, policy, compressor, inputs[:4], tmp_path / "deep/er")
    assert found.largest_difference <= 1e-4
    assert found.params == policy.costs["params"] and found.macs == policy.costs["macs"]
    program = torch.export.load(found.program).module()
    for size in (1, 2, 7):
        with torch.no_grad():
            difference = (program(inputs[:size]) - candidate(inputs[:size])).abs().max()
        assert float(difference) < 1e-4
    assert found.program.stat().st_size and json.loads(found.policy.read_text())["schema_version"] == 1


def test_weights_hold_exactly_the_bits_that_are_claimed(made, tmp_path):
    net, compressor, inputs = made
    candidate, policy = smaller(made, 3)
    found = export(candidate, net, policy, compressor, inputs[:4], tmp_path)
    with safe_open(found.weights, framework="pt") as file:
        packed = file.get_tensor("b.weight.packed")
    assert packed.dtype == torch.uint8 and len(packed) == -(-candidate.b.weight.numel() * 3 // 8)


def test_the_net_is_left_alone(made, tmp_path):
    net, compressor, inputs = made
    candidate, policy = smaller(made)
    before = {name: value.clone() for name, value in candidate.state_dict().items()}
    export(candidate, net, policy, compressor, inputs[:4], tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in candidate.state_dict().items())
    assert isinstance(candidate.n, nn.BatchNorm2d)


def test_a_policy_of_another_net_is_refused(made, tmp_path):
    net, compressor, inputs = made
    _, policy = smaller(made)
    with pytest.raises(UserError, match="do not belong together"):
        export(net, net, policy, compressor, inputs[:4], tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_program_that_computes_something_else_is_noticed(made, tmp_path, monkeypatch):
    net, compressor, inputs = made
    candidate, policy = smaller(made)

    def spoiled(ready, compressor):
        ready = for_inference(ready, compressor)
        ready.f.bias.data += 1
        return ready

    monkeypatch.setattr("automl.export.for_inference", spoiled)
    with pytest.raises(UserError, match=r"differs by .* do not use it"):
        export(candidate, net, policy, compressor, inputs[:4], tmp_path)


def test_a_net_that_torch_cannot_export_still_leaves_policy_and_weights(made, tmp_path, monkeypatch):
    net, compressor, inputs = made
    candidate, policy = smaller(made)

    def fail(*_args, **_more):
        raise RuntimeError("data-dependent\nlong story")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(UserError, match=r"RuntimeError: data-dependent\).*written and complete"):
        export(candidate, net, policy, compressor, inputs[:4], tmp_path)
    assert (tmp_path / "policy.json").exists() and (tmp_path / "model.safetensors").exists()


def test_full_disk_is_one_line(made, tmp_path, monkeypatch):
    net, compressor, inputs = made
    candidate, policy = smaller(made)

    def full(*_args, **_more):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(UserError, match=r"Cannot write .*model.pt2"):
        export(candidate, net, policy, compressor, inputs[:4], tmp_path)


@pytest.mark.parametrize("bits", [32, 3])
def test_an_export_folder_becomes_a_module_again(made, tmp_path, bits):
    net, compressor, inputs = made
    candidate, policy = smaller(made, bits)
    export(candidate, net, policy.with_details(input_shape=[3, 9, 9]), compressor, inputs[:4], tmp_path)
    again = automl.load_exported(tmp_path, net)
    with torch.no_grad():
        torch.testing.assert_close(again(inputs), candidate(inputs), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"this net .* has"):
        automl.load_exported(tmp_path, Small().eval())
    policy.save(tmp_path / "policy.json")
    with pytest.raises(UserError, match=r"details\.input_shape"):
        automl.load_exported(tmp_path, net)
