import pytest
import torch

from automl.data import DataConfig, load_splits
from automl.training import accuracy, suited_to, train_net
from automl.zoo import NetConfig, load_net
from compressors.errors import UserError
from compressors.training import TrainConfig

DIGITS = {"in_channels": 1, "num_classes": 10, "image_size": (8, 8)}


@pytest.fixture(scope="module")
def splits():
    return load_splits(DataConfig())


def test_training_digits_is_repeatable_and_learns(splits):
    config = TrainConfig(epochs=4, batch_size=32)
    nets = [load_net(NetConfig(), **DIGITS, pretrained=False) for _ in range(2)]
    results = [train_net(loaded, splits, config) for loaded in nets]
    assert results[0].accuracy_before < 0.3 and results[0].accuracy_after > 0.85
    assert results[0].result.losses == results[1].result.losses
    assert all(torch.equal(a, b) for a, b in zip(nets[0].net.parameters(), nets[1].net.parameters(), strict=True))
    assert results[0].accuracy_test == accuracy(nets[0].net, splits.test)
    assert not nets[0].net.training


def test_augmentation_is_toned_down_to_the_data(splits):
    suited = suited_to(splits, TrainConfig())
    assert suited.crop_padding == 1 and not suited.flip and suited.augment


def test_net_for_other_images_is_refused(splits):
    loaded = load_net(NetConfig(name="resnet20"), in_channels=3, num_classes=10, image_size=(32, 32))
    with pytest.raises(UserError, match=r"made for images \(3, 32, 32\), but the data has \(1, 8, 8\)"):
        train_net(loaded, splits, TrainConfig(epochs=1))


def test_accuracy_is_a_count_and_nan_is_refused(splits):
    class Always(torch.nn.Module):
        def forward(self, x):
            return torch.eye(10)[3].expand(len(x), 10) * self.scale

    net = Always()
    net.scale = 1.0
    assert accuracy(net, splits.test) == pytest.approx((splits.test.labels == 3).mean())
    net.scale = float("nan")
    with pytest.raises(UserError, match="finite"):
        accuracy(net, splits.test)
