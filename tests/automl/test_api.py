"""The Python API on nets, data, metrics and losses that Secateur has never seen."""

import pytest
import torch
from journeys import ledger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import automl
from automl.config import parse
from automl.place import Place
from compressors.errors import UserError
from compressors.training import train


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 12, 3, padding=1)
        self.last = nn.Linear(12, 2)

    def forward(self, x):
        return self.last(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))


class Denoiser(nn.Module):
    """Images to images, and a dictionary of outputs at that."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        return {"image": self.last(torch.relu(self.two(torch.relu(self.one(x)))))}


def classes(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    images = torch.randn(count, 1, 8, 8, generator=generator) / 2
    images[:, 0, :, :4] += labels[:, None, None].float()
    return TensorDataset(images, labels)


def noisy(count: int, seed: int) -> TensorDataset:
    clean = classes(count, seed).tensors[0]
    generator = torch.Generator().manual_seed(seed + 100)
    return TensorDataset(clean + torch.randn(clean.shape, generator=generator) / 4, clean)


def loaders(make, shuffle: bool = True) -> automl.Loaders:
    return automl.Loaders(
        train=DataLoader(make(160, 0), batch_size=32, shuffle=shuffle),
        calibration=DataLoader(make(96, 1), batch_size=32),
        search=DataLoader(make(120, 2), batch_size=40),
        test=DataLoader(make(120, 3), batch_size=40),
    )


def settings(**more):
    values = {
        "loop": {"episodes": 5},
        "env": {"targets": ["macs=0.3..0.8"], "min_preserve_ratio": 0.2},
        "finetune": {"members": 2, "training": {"epochs": 1, "augment": False}},
    }
    return parse(automl.SearchConfig, {**values, **more})


def trained(net: nn.Module, make, loss=None) -> nn.Module:
    from compressors.training import TrainConfig

    train(net, DataLoader(make(160, 0), batch_size=32), TrainConfig(epochs=3, augment=False), loss=loss)
    return net.eval()


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return trained(Classifier(), classes)


def place(runs, name=None) -> Place:
    return Place(runs=runs, name=name, track=False, threads=1)


def test_own_net_and_loaders(classifier, runs, tmp_path):
    result = automl.search(classifier, loaders(classes), settings(), name="mine", place=place(runs, "a"))
    assert isinstance(result, automl.SearchResult) and result.run.info().net == "mine"
    best = result.best(max_macs=0.8)
    assert best in result.front and best.macs_ratio <= 0.8 and best.accuracy_test is not None
    made = result.export(tmp_path / "out", max_macs=0.8)
    program = torch.export.load(made.program).module()
    inputs = classes(5, 9).tensors[0]
    assert torch.allclose(program(inputs), result.net(best.trial_id)(inputs), atol=1e-4)
    named = result.export(tmp_path / "named", trial_id=result.front[0].trial_id)
    assert named.macs == result.front[0].macs
    with pytest.raises(UserError, match="front member 'nobody'"):
        result.export(tmp_path / "none", trial_id="nobody")
    with pytest.raises(UserError, match="smallest is"):
        result.best(max_macs=0.01)


def test_any_metric_any_outputs_any_loss(runs, tmp_path):
    torch.manual_seed(0)

    def loss(outputs, clean):
        return (outputs["image"] - clean).square().mean()

    def quality(data):
        def measure(net):
            inputs, clean = data.tensors
            with torch.no_grad():
                return 1 / (1 + float((net(inputs)["image"] - clean).square().mean()))

        return measure

    net = trained(Denoiser(), noisy, loss)
    result = automl.search(
        net, loaders(noisy), settings(), evaluate=quality(noisy(100, 2)), evaluate_test=quality(noisy(100, 3)),
        loss=loss, place=place(runs),
    )  # fmt: skip
    member = result.best()
    assert member.accuracy_search == pytest.approx(quality(noisy(100, 2))(net), abs=0.2)
    assert member.accuracy_test == pytest.approx(quality(noisy(100, 3))(result.net(member.trial_id)))
    assert result.export(tmp_path / "out").largest_difference < 1e-4


def test_own_metric_alone_tests_nothing(classifier, runs):
    result = automl.search(classifier, loaders(classes), settings(), evaluate=lambda net: 0.5, place=place(runs))
    assert all(member.accuracy_test is None for member in result.front)
    assert result.result.original["accuracy_test"] is None


def test_resume_goes_on_from_python(classifier, runs, monkeypatch):
    def search(name):
        return automl.search(classifier, loaders(classes, shuffle=False), settings(), name="mine",
                             place=place(runs, name))  # fmt: skip

    whole = search("whole")

    def stop(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(UserError, match="Interrupted"):
        patch.setattr("automl.finetuning.train", stop)
        search("cut")
    for run in ("cut", runs / "cut"):
        result = automl.resume(run, classifier, loaders(classes, shuffle=False), place=place(runs))
        assert ledger(result.run) == ledger(whole.run)
        assert [member.accuracy_test for member in result.front] == [member.accuracy_test for member in whole.front]


def test_resume_with_another_net_or_other_data_is_refused(classifier, runs):
    automl.search(classifier, loaders(classes), settings(), place=place(runs, "a"))
    torch.manual_seed(5)
    with pytest.raises(UserError, match="belongs to another search"):
        automl.resume("a", Classifier().eval(), loaders(classes), place=place(runs))
    other = automl.Loaders(**{**loaders(classes).__dict__, "calibration": DataLoader(classes(96, 7), batch_size=32)})
    with pytest.raises(UserError, match="belongs to another search"):
        automl.resume("a", classifier, other, place=place(runs))
    with pytest.raises(UserError, match="Unknown run 'b'"):
        automl.resume("b", classifier, loaders(classes), place=place(runs))


def test_splits_by_name_with_a_net_by_name(runs):
    splits = automl.load_splits(automl.DataConfig(calibration_images=150, search_images=100, train_images=200))
    loaded = automl.load_net(automl.NetConfig(), in_channels=1, num_classes=10, image_size=(8, 8))
    result = automl.search(loaded.net, splits, settings(), place=place(runs))
    assert result.best().accuracy_finetuned > 0.5


def test_nets_that_do_not_run_on_the_data_say_so(classifier, runs):
    wrong = automl.Loaders(**{**loaders(classes).__dict__, "calibration": [torch.zeros(4, 3, 8, 8)]})
    with pytest.raises(UserError, match=r"does not run on an input of shape \(1, 3, 8, 8\)"):
        automl.search(classifier, wrong, settings(), place=place(runs))
    with pytest.raises(UserError, match="pass your own `evaluate`"):
        automl.search(Denoiser().eval(), loaders(noisy), settings(), place=place(runs))
