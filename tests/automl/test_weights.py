import os
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from automl.weights import load_weights, read_state_dict, save_weights
from compressors.errors import UserError


def make_net(classes: int = 3) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes))


class Touches:
    """Pickles into a command that makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(
    ("ending", "wrap"),
    [
        *product((".pt", ".pth", ".th"), ("plain", "state_dict", "model", "module", "both")),
        *product((".safetensors",), ("plain", "module")),
    ],
)
def test_every_form_of_file_loads(tmp_path, ending, wrap):
    source, net = make_net(), make_net()
    with torch.no_grad():
        for value in source.parameters():
            value.add_(1)
    state = dict(source.state_dict())
    if wrap in ("module", "both"):
        state = {f"module.{name}": value for name, value in state.items()}
    path = tmp_path / f"net{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        key = {"state_dict": "state_dict", "model": "model", "both": "state_dict"}.get(wrap)
        torch.save({key: state, "epoch": 3, "best": 0.9} if key else state, path)
    load_weights(net, path)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), source.state_dict().values(), strict=True))


@pytest.mark.parametrize("how", ["torch", "torch-legacy", "pickle", "pickle-0", "inside"])
@pytest.mark.parametrize("ending", [".pt", ".th", ".safetensors"])
def test_code_in_a_file_never_runs(tmp_path, how, ending):
    path, mark = tmp_path / f"evil{ending}", tmp_path / "mark"
    evil = {"weight": torch.zeros(2), "payload": Touches(mark)}
    if how == "torch":
        torch.save(evil, path)
    elif how == "torch-legacy":
        torch.save(evil, path, _use_new_zipfile_serialization=False)
    elif how == "inside":
        torch.save({"state_dict": evil}, path)
    else:
        path.write_bytes(pickle.dumps({"payload": Touches(mark)}, protocol=0 if how == "pickle-0" else 4))
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not mark.exists()
    if how == "torch" and ending != ".safetensors":
        assert "can run code" in str(caught.value) and "system" in str(caught.value)


def test_whole_pickled_nets_are_refused_with_advice(tmp_path):
    torch.save(make_net(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"Sequential\).*save net.state_dict\(\) alone"):
        read_state_dict(tmp_path / "net.pt")


@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.5, -1])
def test_truncated_files_are_refused(tmp_path, ending, keep):
    path = tmp_path / f"net{ending}"
    state = make_net().state_dict()
    if ending == ".safetensors":
        save_file(dict(state), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=ending == ".pt")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="empty" if keep == 0 else "truncated|damaged|no checkpoint|general pickle"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"hello", b"\x89PNG....", b"\x80\x04garbage", b"PK\x03\x04", bytes(range(7, 71))])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"net\.pt"):
        read_state_dict(path)


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(3), {"epoch": 3}, {"state_dict": {}}, 7])
def test_checkpoints_without_weights_say_what_they_hold(tmp_path, value):
    torch.save(value, tmp_path / "net.pt")
    with pytest.raises(UserError, match="must hold tensors by name"):
        read_state_dict(tmp_path / "net.pt")


def test_missing_files_and_other_endings_are_named(tmp_path):
    with pytest.raises(UserError, match="does not"):
        read_state_dict(tmp_path / "none.pt")
    with pytest.raises(UserError, match=r"ends in \.pt"):
        read_state_dict(tmp_path / "net.onnx")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        read_state_dict(tmp_path / "folder.pt")


def test_names_that_do_not_fit_are_listed_up_to_five(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({f"other.{i}": torch.zeros(1) for i in range(8)}, path)
    with pytest.raises(UserError) as caught:
        load_weights(make_net(), path)
    text = str(caught.value)
    assert "other.4 and 3 more" in text and "other.5" not in text and "lacks 0.weight" in text


def test_shapes_that_differ_are_shown_and_only_classes_get_a_hint(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(make_net(10).state_dict(), path)
    net = make_net(3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=r"3\.weight \(10, 16\) \(net: \(3, 16\)\).*--num-classes 10"):
        load_weights(net, path)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    state = make_net(10).state_dict()
    state["0.weight"] = torch.zeros(5, 1, 3, 3)
    torch.save(state, path)
    with pytest.raises(UserError) as caught:
        load_weights(make_net(3), path)
    assert "--num-classes" not in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, bad):
    net = make_net()
    net[3].bias.data[1] = bad
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"finite, but .* in 3\.bias"):
        load_weights(make_net(), tmp_path / "net.pt")


def test_old_batchnorm_files_and_ignored_extras_load(tmp_path):
    state = {name: value for name, value in make_net().state_dict().items() if "num_batches" not in name}
    torch.save({**state, "aux1.weight": torch.zeros(2)}, tmp_path / "net.pt")
    load_weights(make_net(), tmp_path / "net.pt", ignored=("aux1.",))
    with pytest.raises(UserError, match=r"also has aux1\.weight"):
        load_weights(make_net(), tmp_path / "net.pt")


def test_saving_is_exact_repeatable_and_tells_which_net_it_was(tmp_path):
    net = make_net().to(memory_format=torch.channels_last)
    for name in ("a", "b"):
        save_weights(net, tmp_path / "deep" / f"{name}.safetensors", name="toy", num_classes=3)
    first, second = ((tmp_path / "deep" / f"{name}.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second and len(list((tmp_path / "deep").iterdir())) == 2
    copy = make_net(3)
    load_weights(copy, tmp_path / "deep" / "a.safetensors")
    assert all(np.array_equal(a, b) for a, b in zip(copy.state_dict().values(), net.state_dict().values(), strict=True))
    with pytest.raises(UserError, match="written for net 'toy' with 3 classes"):
        load_weights(nn.Linear(2, 2), tmp_path / "deep" / "a.safetensors")


def test_saving_where_nothing_can_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_weights(make_net(), tmp_path / "file" / "net.safetensors", name="toy", num_classes=3)
    with pytest.raises(UserError, match=r"as \.safetensors"):
        save_weights(make_net(), tmp_path / "net.pt", name="toy", num_classes=3)
