import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from automl.data import DataConfig, load_splits
from automl.training import accuracy
from automl.zoo import NETS, NetConfig, load_net
from automl.zoo.resnet import BasicBlock
from compressors.errors import UserError

DIGITS = {"in_channels": 1, "num_classes": 10, "image_size": (8, 8)}
SMALL = {"in_channels": 3, "num_classes": 10, "image_size": (32, 32)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_net_of_ours_takes_any_channels_and_classes(name, channels):
    loaded = load_net(NetConfig(name=name), in_channels=channels, num_classes=7, image_size=(32, 32))
    assert loaded.net(torch.zeros(2, channels, 32, 32)).shape == (2, 7)
    assert not any(module.training for module in loaded.net.modules())
    assert loaded.input_shape == (channels, 32, 32) and not loaded.trained and loaded.licence == "Apache-2.0"
    entry = NETS.entry(name)
    assert entry.summary and entry.source


@pytest.mark.parametrize(("name", "params"), [("resnet20", 269_722), ("resnet56", 853_018), ("resnet110", 1_727_962)])
def test_residual_nets_have_the_parameters_of_the_paper(name, params):
    net = NETS[name](3, 10)
    assert sum(value.numel() for value in net.parameters()) == params
    keys = set(net.state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"} <= keys


def test_shortcut_subsamples_and_pads_channels_on_both_sides():
    block = BasicBlock(2, 6, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2])
    assert not out[:, :2].any() and not out[:, 4:].any()


def test_small_mobilenet_ends_at_an_eighth_of_the_image():
    net = NETS["mobilenet_v2_32"](3, 10).eval()
    assert net.features(torch.zeros(1, 3, 32, 32)).shape == (1, 1280, 4, 4)


def test_digits_come_with_weights_that_reach_the_promised_accuracy():
    splits = load_splits(DataConfig())
    loaded = load_net(NetConfig(name="resnet8_digits"), **DIGITS)
    assert loaded.trained and "committed" in loaded.source and loaded.mean is None
    assert accuracy(loaded.net, splits.test) > 0.975
    assert accuracy(loaded.net, splits.search) > 0.975
    assert not load_net(NetConfig(name="resnet8_digits"), **DIGITS, pretrained=False).trained
    assert not load_net(NetConfig(name="resnet8_digits", num_classes=5), **DIGITS | {"num_classes": 5}).trained


def test_equal_seeds_make_equal_nets_and_leave_the_random_state_alone():
    state = torch.random.get_rng_state()
    a, b, c = (load_net(NetConfig(name="resnet20"), **SMALL, seed=seed).net for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(a.conv1.weight, b.conv1.weight) and not torch.equal(a.conv1.weight, c.conv1.weight)


def test_own_nets_carry_imagenets_normalisation_for_colour_only():
    assert load_net(NetConfig(name="resnet20"), **SMALL).mean == (0.485, 0.456, 0.406)
    assert load_net(NetConfig(name="resnet20"), **SMALL | {"in_channels": 1}).mean is None


def test_weights_are_loaded_and_num_classes_of_the_net_wins(tmp_path):
    source = load_net(NetConfig(name="resnet20", num_classes=4), **SMALL | {"num_classes": 3}, seed=5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.net.state_dict().items()}}, tmp_path / "w.th")
    config = NetConfig(name="resnet20", num_classes=4, weights=tmp_path / "w.th")
    loaded = load_net(config, **SMALL | {"num_classes": 3})
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded.net(x), source.net(x)) and loaded.trained and loaded.num_classes == 4
    with pytest.raises(UserError, match="--num-classes 4"):
        load_net(NetConfig(name="resnet20", weights=tmp_path / "w.th"), **SMALL)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:googlenet", "timm:resnet18"])
def test_nets_of_others_get_the_classes_and_bring_their_normalisation(name):
    loaded = load_net(NetConfig(name=name), in_channels=3, num_classes=6, image_size=(64, 64))
    assert loaded.net(torch.zeros(1, 3, 64, 64)).shape == (1, 6)
    assert loaded.mean == ((0.5,) * 3 if name.endswith("googlenet") else (0.485, 0.456, 0.406))
    assert loaded.source.startswith(name.partition(":")[0])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet21", "Did you mean 'resnet"),
        ("resnet18", "torchvision:resnet18"),
        ("mobilenetv2_32", "'mobilenet_v2_32'"),
        ("torchvision:resnet17", "'resnet1"),
        ("torchvision:fcn_resnet50", "Unknown torchvision net"),
        ("timm:resnett18", "'resnet18'"),
        ("nowhere.at_all:make", "neither installed nor in"),
    ],
)
def test_unknown_nets_name_the_nearest(name, hint):
    with pytest.raises(UserError, match=hint) as caught:
        load_net(NetConfig(name=name), **SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_gray_images_for_a_colour_net_say_what_helps(name):
    with pytest.raises(UserError, match="--channels 3"):
        load_net(NetConfig(name=name), **DIGITS)


def test_net_that_cannot_run_on_the_images_is_refused_in_one_line():
    with pytest.raises(UserError, match="--image-size 224") as caught:
        load_net(NetConfig(name="torchvision:alexnet"), **SMALL)
    assert "\n" not in str(caught.value)


def test_factories_are_found_in_the_working_folder(tmp_path, monkeypatch):
    package = tmp_path / "own_nets_for_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("from torch import nn\nHEAD = nn.Flatten\n")
    (package / "nets.py").write_text(
        "from torch import nn\n"
        "from own_nets_for_test.parts import HEAD\n"
        "def plain(): return nn.Sequential(HEAD(), nn.Linear(64, 10))\n"
        "def sized(num_classes, in_channels): return nn.Sequential(HEAD(), nn.Linear(64 * in_channels, num_classes))\n"
        "def fails(): raise RuntimeError('first line\\nsecond line')\n"
        "def wrong(): return 7\n"
        "def needs(depth): return None\n"
        "def few(): return nn.Sequential(HEAD(), nn.Linear(64, 2))\n"
        "def nan():\n"
        "    net = plain()\n"
        "    net[1].bias.data.fill_(float('nan'))\n"
        "    return net\n"
        "NUMBER = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    make = "own_nets_for_test.nets:"
    assert load_net(NetConfig(name=make + "plain"), **DIGITS).net[1].out_features == 10
    loaded = load_net(NetConfig(name=make + "sized", num_classes=12), **DIGITS)
    assert loaded.net[1].out_features == 12 and loaded.licence == "unknown" and loaded.trained
    for name, message in {
        "fails": r"failed with RuntimeError: first line$",
        "wrong": "must return a torch.nn.Module, but it returned int",
        "needs": "failed with TypeError: .*depth",
        "plane": "it has none. Did you mean 'plain'",
        "NUMBER": "must be a function or class, but it is a int",
        "few": "an output for each of 10 classes, but it has 2",
        "nan": "must be finite",
    }.items():
        with pytest.raises(UserError, match=message):
            load_net(NetConfig(name=make + name), **DIGITS)


def test_module_that_does_not_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_net_for_test.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "syntax_net_for_test.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"cannot be imported: ModuleNotFoundError: .*a_module_that_is_not_there"):
        load_net(NetConfig(name="broken_net_for_test:make"), **DIGITS)
    with pytest.raises(UserError, match="cannot be imported: SyntaxError"):
        load_net(NetConfig(name="syntax_net_for_test:make"), **DIGITS)


@pytest.mark.skipif("SECATEUR_DATA" not in os.environ, reason="needs SECATEUR_DATA")
@pytest.mark.parametrize(
    ("file", "low", "high"), [("resnet20-cifar10-jpeg.pt", 0.87, 0.89), ("resnet20-original.th", 0.79, 0.82)]
)
def test_public_weights_reach_their_accuracy(file, low, high):
    root = Path(os.environ["SECATEUR_DATA"])
    splits = load_splits(DataConfig(name=f"parquet:{root / 'cifar10-jpeg'}", search_from="test:0.5"))
    loaded = load_net(NetConfig(name="resnet20", weights=root / "weights" / file), **SMALL)
    assert low < accuracy(loaded.net, splits.normalised(loaded.mean, loaded.std).test) < high


def test_functional_relu_is_what_follows_each_sum():
    block = BasicBlock(4, 4).eval()
    x = torch.randn(2, 4, 5, 5)
    inner = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    assert torch.equal(block(x), F.relu(inner + x))
